"""The operator that suits the structure of a matrix of weights, chosen and checked on the host."""

from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp

from jaxdopt._checks import require
from jaxdopt._leaves import is_traced
from jaxdopt.networks import connectivity, spectra
from jaxdopt.networks.checks import SUMS, TOLERANCE, require_real, require_sums
from jaxdopt.networks.operators.circulant import SHIFTS, Circulant
from jaxdopt.networks.operators.complete import Complete
from jaxdopt.networks.operators.dense import Dense
from jaxdopt.networks.operators.sparse import UNROLLED, Neighbors, Pushes, off_diagonal, table

Kind = Literal["doubly", "row", "column"]
Form = Dense | Neighbors | Circulant | Complete | Pushes

SPARSE = 4  # the neighbor table is used where n is at least this many times the slots it needs


def mixing(weights: Any, *, kind: Kind = "doubly", form: type[Form] | None = None) -> Any:
    """Return a matrix W of weights as the operator that suits its structure.

    ``Complete`` if all weights are 1 / n; ``Circulant`` if every agent sees the same few weights;
    ``Neighbors`` if the graph is sparse, ``Pushes`` if W is column-stochastic too; else ``Dense``.

    Args:
        weights: W [n, n], a NumPy, JAX or scipy.sparse array; row i has the weights of what agent i
            receives.
        kind: which sums are 1: "doubly" stochastic, "row" or "column".
        form: one of the operator classes, instead of the one that suits.

    Raises:
        ValueError: W is not square and finite, its sums are not 1, its graph is disconnected (for
            "row": no agent reaches all others; for "column": none is reached by all others), or
            powers of W do not converge to an average.
    """
    require(kind in list(SUMS), f"kind is {kind!r}; give 'doubly', 'row' or 'column'.")
    if is_traced(weights):
        raise ValueError(
            "W is traced, and its numbers say which operator suits it; give "
            f"Dense(W, symmetric=True or False, kind={kind!r}), or make a network of this graph "
            "outside and jd.replace(network, weights=...) inside."
        )
    return choose(_checked(weights, kind), kind, form)


def choose(matrix: sp.csr_array, kind: Kind = "doubly", form: Any = None) -> Any:
    """Return a checked matrix as an operator; see `mixing`."""
    n = matrix.shape[0]
    full = kind == "doubly" and matrix.nnz == n * n and np.ptp(matrix.data) <= 1e-12
    if full and form is None:
        return Complete(n)
    symmetric = kind == "doubly" and is_symmetric(matrix)
    away = off_diagonal(matrix)
    slots = int(np.diff(away.indptr).max())
    circulant = _circulant(away) if kind == "doubly" else None
    most = max(UNROLLED, min(SHIFTS, n // SPARSE))  # shifts that are worth their while
    if form is None:
        if circulant is not None and len(circulant[0]) <= most and n >= SPARSE:
            form = Circulant
        elif is_sparse(n, slots, away.nnz):
            form = Pushes if kind == "column" else Neighbors
        else:
            form = Dense
    if form in (Complete, Circulant):
        require(
            kind == "doubly",
            f"{form.__name__} is for doubly stochastic weights and kind is {kind!r}; use Dense.",
        )
    if form is Complete:
        require(full, "the weights are not all 1 / n; use another form than Complete.")
        return Complete(n)
    if form is Circulant:
        if circulant is None:
            raise ValueError("the matrix is not circulant; use another form than Circulant.")
        offsets, values = circulant
        return Circulant(jnp.asarray(values, float), offsets, n, symmetric=symmetric)
    if form is Neighbors:
        require(kind != "column", "the matrix is column-stochastic; use the form Pushes.")
        index, values, tiers = table(away)
        return Neighbors(index, values, tiers, symmetric=symmetric, kind=kind)
    if form is Pushes:
        require(kind == "column", "Pushes is for column-stochastic weights; use Neighbors.")
        (index, values, tiers), (others, given, more) = table(away), table(sp.csr_array(away.T))
        pushes = connectivity.keeps_pushing(matrix)
        return Pushes(index, values, others, given, tiers, more, pushes=pushes)
    require(
        form is Dense, f"form is {form!r}; give Dense, Neighbors, Pushes, Circulant or Complete."
    )
    return Dense(matrix.toarray(), symmetric=symmetric, kind=kind)


def is_sparse(n: int, slots: int, links: int) -> bool:
    """Return whether a neighbor table suits n agents of at most so many neighbors, links in all."""
    return SPARSE * min(slots, UNROLLED) <= n and SPARSE * links <= n * n


def _checked(weights: Any, kind: Kind) -> sp.csr_array:
    """Return W in float64 with equal entries (i, j) and (j, i), or raise what is wrong with it."""
    require(
        not hasattr(weights, "nodes"),
        f"W is a {type(weights).__name__}; give jd.networks.metropolis(graph), or a matrix.",
    )
    matrix = weights if sp.issparse(weights) else np.asarray(weights)
    require(
        matrix.ndim == 2 and matrix.shape[0] == matrix.shape[1] > 0,
        f"W has shape {matrix.shape}; give a square [n, n] matrix of weights.",
    )
    require_real(matrix.dtype)
    matrix = sp.csr_array(matrix, dtype=np.float64)
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    require_sums(matrix, kind)
    if kind == "doubly":
        connectivity.require_connected(matrix)
        if abs(matrix - matrix.T).max() <= TOLERANCE:
            matrix = sp.csr_array((matrix + matrix.T) / 2)
    else:
        require(
            connectivity.reaching(matrix if kind == "row" else sp.csr_array(matrix.T)).any(),
            "the graph is disconnected: no agent "
            f"{'is heard by' if kind == 'row' else 'hears'} all others, maybe through some of "
            "them; add links.",
        )
    if matrix.data.min() < 0 or (kind != "doubly" and matrix.diagonal().min() <= 0):
        gap = _gap(matrix)
    else:  # Perron and Frobenius: a connected nonnegative matrix contracts unless it is periodic
        gap = float(matrix.diagonal().max() > 0 or not connectivity.is_periodic(matrix))
    require(
        gap > TOLERANCE,
        f"W does not average: its second largest eigenvalue has modulus {1 - gap:.6g}; use "
        "(I + W) / 2, or smaller weights.",
    )
    return matrix


def _gap(matrix: sp.csr_array) -> float:
    if matrix.shape[0] > spectra.DENSE:
        return spectra.sparse_gap(matrix, is_symmetric(matrix))
    return spectra.gap(spectra.eigenvalues(matrix.toarray(), is_symmetric(matrix)))


def is_symmetric(matrix: Any) -> bool:
    """Return whether a sparse matrix equals its transpose."""
    return (matrix != matrix.T).nnz == 0


def _circulant(away: sp.csr_array) -> tuple[tuple[int, ...], np.ndarray] | None:
    """Return the offsets and weights of a circulant matrix without its diagonal, else None."""
    n = away.shape[0]
    degree = np.diff(away.indptr)
    if np.ptp(degree):
        return None
    first, second = (np.sort(away[[i]].indices - i) % n for i in (0, min(1, n - 1)))
    if set(first.tolist()) != set(second.tolist()):  # soon, as sorting all takes long
        return None
    entries = away.tocoo()
    offset = (entries.col - entries.row) % n
    order = np.lexsort((entries.row, offset))
    offsets = offset[order].reshape(degree[0], n)
    values = entries.data[order].reshape(degree[0], n)
    if np.ptp(offsets, axis=1).any() or np.ptp(values, axis=1).any():
        return None
    return tuple(int(o) for o in offsets[:, 0]), values[:, 0]
