"""Matrix factorization as a finite sum over the entries that were observed."""

from typing import Any

import jax
import numpy as np

from jaxdopt._checks import count, require
from jaxdopt.problems.finite_sum import FiniteSum, Weighting
from jaxdopt.problems.partition import split
from jaxdopt.problems.samples import as_floating, as_numbers


def factorization_loss(
    params: dict[str, jax.Array], sample: tuple[jax.Array, jax.Array, jax.Array]
) -> jax.Array:
    """(u_rᵀ v_c − b)² / 2 for an entry b in row r and column c."""
    row, column, value = sample
    return (params["left"][row] @ params["right"][column] - value) ** 2 / 2


def matrix_factorization(
    rows: Any,
    columns: Any,
    values: Any,
    *,
    rank: int,
    agents: int | None = None,
    partition: Any = "iid",
    l2: float = 0.0,
    weights: Weighting = "agents",
    seed: int = 0,
) -> FiniteSum:
    """Return fᵢ(U, V) = (1/mᵢ) Σ (u_rᵀ v_c − b)² / 2 + (l2/2)(|U|² + |V|²) over observed entries.

    The parameters are ``{"left": U [r, rank], "right": V [c, rank]}``, with as many rows as the
    largest index requires; all agents start from the same random ones, of variance 1/rank. The
    problem is not convex, and (U R, V R⁻ᵀ) is as good as (U, V): compare products U Vᵀ.

    Args:
        rows: [m] integers from 0, the entries' rows.
        columns: [m] integers from 0, their columns.
        values: [m], the entries.
        rank: the number of columns of U and V.
        agents: n.
        partition: how entries are split, with the rows as labels: "iid", "by_label" (every agent
            has its own rows), `jd.partition.dirichlet(alpha)`, or index arrays.
        l2: the regularizer's weight, at least 0.
        weights: "agents" for pᵢ = 1/n, "samples" for pᵢ = mᵢ/m.
        seed: of the start.

    Raises:
        ValueError: indices that are not integers from 0, lengths that disagree, a rank below 1,
            and what `jd.partition.split` refuses.

    Example:
        >>> import jaxdopt as jd
        >>> rows, columns = np.divmod(np.arange(12), 3)
        >>> problem = jd.problems.matrix_factorization(rows, columns, rows, rank=2, agents=4)
        >>> {name: leaf.shape for name, leaf in problem.unravel(problem.start()[0]).items()}
        {'left': (4, 2), 'right': (3, 2)}
    """
    rank = count("rank", rank)
    shape = []
    for name, indices in (("rows", rows), ("columns", columns)):
        indices = np.asarray(indices)
        require(
            indices.ndim == 1 and len(indices) > 0 and np.issubdtype(indices.dtype, np.integer),
            f"{name} has shape {indices.shape} and dtype {indices.dtype}; give [m] integers.",
        )
        require(indices.min() >= 0, f"{name} has the index {indices.min()}; count from 0.")
        shape.append(int(indices.max()) + 1)
    values = as_floating(as_numbers("values", values))
    require(
        values.shape == np.shape(rows) == np.shape(columns),
        f"rows, columns and values have shapes {np.shape(rows)}, {np.shape(columns)} and "
        f"{values.shape}; give one of each an entry.",
    )
    entries = (np.asarray(rows, np.int32), np.asarray(columns, np.int32), values)
    data = split(entries, rows, agents=agents, partition=partition)
    random = np.random.default_rng(seed)
    left, right = (
        (random.standard_normal((length, rank)) / np.sqrt(rank)).astype(values.dtype)
        for length in shape
    )
    params = {"left": left, "right": right}
    return FiniteSum(factorization_loss, data, params, l2=l2, weights=weights)
