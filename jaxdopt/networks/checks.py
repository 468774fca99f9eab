"""Checks of networks and of the numbers that operators are made of, on the host."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxdopt._checks import require

TOLERANCE = 1e-6  # of row and column sums; float32 matrices have to pass
SUMS = {"doubly": ((1, "row"), (0, "column")), "row": ((1, "row"),), "column": ((0, "column"),)}


def require_network(network: Any) -> None:
    """Refuse what is not a network, such as the graph to make one of."""
    require(
        hasattr(network, "at") and hasattr(network, "n") and not isinstance(network, type),
        f"a {type(network).__name__} is given where a network is wanted; give one with weights, "
        "such as jd.networks.metropolis(graph).",
    )


def require_real(dtype: Any) -> None:
    """Refuse weights that are not real numbers."""
    require(
        np.dtype(dtype).kind == "b"
        or (jnp.issubdtype(dtype, jnp.number) and not jnp.issubdtype(dtype, jnp.complexfloating)),
        f"W has dtype {dtype}; give real numbers.",
    )


def require_finite(weights: Any) -> None:
    """Refuse weights that are NaN or infinite."""
    bad = int(np.sum(~np.isfinite(np.asarray(weights, float))))
    require(bad == 0, f"W has {bad} entries that are not finite; give finite weights.")


def require_sums(matrix: Any, kind: str) -> None:
    """Refuse a matrix, dense or sparse, whose rows or columns do not sum to 1 as its kind says."""
    require_finite(matrix.data if hasattr(matrix, "indptr") else matrix)
    both = "rows and columns of a mixing matrix sum to 1, as jd.networks.metropolis(graph) gives"
    one = f"{kind}s of a {kind}-stochastic matrix sum to 1, as jd.networks.{kind}_stochastic gives"
    for axis, name in SUMS[kind]:
        sums = np.asarray(matrix.sum(axis=axis), float)
        worst = int(np.argmax(np.abs(sums - 1)))
        require(
            abs(sums[worst] - 1) <= TOLERANCE,
            f"{name} {worst} of W sums to {sums[worst]:.6g}; the "
            f"{both if kind == 'doubly' else one} them.",
        )


def require_symmetry(claimed: bool, found: Any) -> None:
    """Refuse a W that is declared symmetric and is not."""
    require(
        not claimed or bool(found),
        "symmetric is True and W is not symmetric; give symmetric=False, or other weights.",
    )


def require_agents(name: str, index: Any, n: int, shape: tuple[int, ...]) -> None:
    """Refuse a table of agents that has another shape, or an index that is no agent's."""
    require(
        np.shape(index) == shape and jnp.issubdtype(jnp.result_type(index), jnp.integer),
        f"{name} is an array of {jnp.result_type(index)}{list(np.shape(index))}; give integers, "
        f"{list(shape)}, one a slot.",
    )
    numbers = np.asarray(index)
    outside = numbers[(numbers < 0) | (numbers >= n)]
    require(
        outside.size == 0,
        f"{name} has the number {outside[:1].tolist()}; give numbers from 0 to {n - 1}.",
    )
