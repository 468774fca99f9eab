"""Mixing weights of a graph, built and checked in NumPy and scipy.sparse, once."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
from scipy.sparse import csgraph

from jaxdopt._pytree import replace, require
from jaxdopt.networks import graphs
from jaxdopt.networks.operators import (
    DENSE_SPECTRUM,
    UNROLLED,
    Circulant,
    Complete,
    Dense,
    Neighbors,
    sparse_gap,
)

Network = Dense | Neighbors | Circulant | Complete

SPARSE = 4  # the neighbor table is used where n is at least this many times the slots it needs
TOLERANCE = 1e-6  # of row and column sums; float32 matrices have to pass
SMALL = 512  # agents up to which a stack of different forms is dense


def metropolis(graph: Any) -> Network:
    """Return Metropolis-Hastings weights, wᵢⱼ = 1 / (1 + max(dᵢ, dⱼ)), wᵢᵢ = 1 − Σⱼ wᵢⱼ.

    ``graph`` is a networkx graph or an adjacency matrix (NumPy, scipy.sparse) of a connected
    undirected graph; a directed one has to be regular (as many arcs in as out, the same for all
    agents), so that W is doubly stochastic.

    Raises:
        ValueError: the graph is disconnected, or directed and not regular.

    Source: Xiao, Boyd, Kim (2007), "Distributed average consensus with least-mean-square deviation"
    """
    return mixing(_metropolis(graph))


def lazy_metropolis(graph: Any) -> Network:
    """Return (I + W) / 2 with W the Metropolis-Hastings weights: no negative eigenvalue."""
    weights = _metropolis(graph)
    return mixing((sp.eye_array(weights.shape[0]) + weights) / 2)


def laplacian(graph: Any, step: float | None = None) -> Network:
    """Return W = I − ε L, with L the graph Laplacian and ε the weight of every link.

    ``step`` ε defaults to 1 / (1 + largest degree); it has to be below 2 / λ_max(L).

    Source: Xiao, Boyd (2004), "Fast linear iterations for distributed averaging"
    """
    edges = _connected(graph)
    require(
        _is_symmetric(edges), "the graph is directed; Laplacian weights need an undirected one."
    )
    degree = edges.sum(axis=1)
    epsilon = 1 / (1 + degree.max()) if step is None else step
    require(epsilon > 0, f"step is {step}; give a positive weight for every link.")
    return mixing(sp.eye_array(len(degree)) - epsilon * (sp.diags_array(degree) - edges))


def mixing(weights: Any, *, form: type[Network] | None = None) -> Network:
    """Return a doubly stochastic matrix W as the operator that suits its structure.

    ``Complete`` if all weights are 1 / n; ``Circulant`` if every agent sees the same few weights;
    ``Neighbors`` if the graph is sparse; ``Dense`` otherwise. ``form`` overrides the choice.

    Args:
        weights: [n, n], NumPy, JAX or scipy.sparse; row i is what agent i puts on what it hears.
        form: one of the four operator classes.

    Raises:
        ValueError: W is not square, finite, doubly stochastic, connected and contracting.
    """
    matrix = _checked(weights)
    n = matrix.shape[0]
    symmetric = _is_symmetric(matrix)
    away = matrix - sp.diags_array(matrix.diagonal())
    away = sp.csr_array(away)
    away.eliminate_zeros()
    slots = int(np.diff(away.indptr).max())
    circulant = _circulant(away)
    if form is None:
        if matrix.nnz == n * n and np.ptp(matrix.data) <= 1e-12:
            form = Complete
        elif circulant is not None and len(circulant[0]) <= UNROLLED and n >= SPARSE:
            form = Circulant
        elif SPARSE * min(slots, UNROLLED) <= n and away.nnz * SPARSE <= n * n:
            form = Neighbors
        else:
            form = Dense
    if form is Complete:
        require(
            matrix.nnz == n * n and np.ptp(matrix.data) <= 1e-12,
            "the weights are not all 1 / n; use another form than Complete.",
        )
        return Complete(n)
    if form is Circulant:
        if circulant is None:
            raise ValueError("the matrix is not circulant; use another form than Circulant.")
        offsets, values = circulant
        return Circulant(jnp.asarray(values, float), offsets, n, symmetric=symmetric)
    if form is Neighbors:
        return _table(away, symmetric)
    require(form is Dense, f"form is {form!r}; give Dense, Neighbors, Circulant or Complete.")
    return Dense(matrix.toarray(), symmetric=symmetric)


def stack(networks: Sequence[Any]) -> Any:
    """Stack networks of the same n along a new first axis, for `jax.vmap` and `sweep`.

    Members of one structure keep it; others become `Dense`, or `Neighbors` where that would be
    large. A time that `at` has set is dropped.

    Raises:
        ValueError: no networks, or they have different numbers of agents.
    """
    members = [replace(network, k=None) for network in networks]
    require(members, "there are no networks to stack; give at least one.")
    counts = sorted({network.n for network in members})
    require(
        len(counts) == 1,
        f"networks of {' and '.join(map(str, counts))} agents cannot be stacked; "
        "give them the same number of agents.",
    )
    bare = not jax.tree.leaves(members)  # Complete has nothing to stack
    if bare or len({_structure(network) for network in members}) > 1:
        symmetric = all(network.symmetric for network in members)
        sparse = counts[0] > SMALL and all(not isinstance(m, Complete | Dense) for m in members)
        if sparse:
            members = _same_tables([_table(_away(m), symmetric) for m in members])
        else:
            members = [Dense(m.matrix(), symmetric=symmetric) for m in members]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)


def _metropolis(graph: Any) -> sp.csr_array:
    edges = _connected(graph).tocoo()
    heard = edges.sum(axis=1)
    require(
        _is_symmetric(edges) or (np.ptp(heard) == 0 and np.all(edges.sum(axis=0) == heard)),
        "the graph is directed and not regular, so these weights would not be doubly stochastic; "
        "give jd.networks.mixing a doubly stochastic matrix of your own.",
    )
    values = 1 / (1 + np.maximum(heard[edges.row], heard[edges.col]))
    away = sp.csr_array((values, (edges.row, edges.col)), shape=edges.shape)
    return sp.csr_array(away + sp.diags_array(1 - away.sum(axis=1)))


def _connected(graph: Any) -> sp.csr_array:
    edges = graphs.adjacency(graph).astype(float)
    _require_connected(edges)
    return edges


def _require_connected(pattern: sp.csr_array) -> None:
    count, component = csgraph.connected_components(pattern, directed=True, connection="strong")
    outside = int(np.argmax(component != component[0]))
    require(
        count == 1,
        f"the graph is disconnected: {count} components, and agent {outside} and agent 0 do not "
        "reach each other; add links, or run the components as problems of their own.",
    )


def _checked(weights: Any) -> sp.csr_array:
    """Return W in float64 with equal entries (i, j) and (j, i), or raise what is wrong with it."""
    matrix = weights if sp.issparse(weights) else np.asarray(weights)
    require(
        matrix.ndim == 2 and matrix.shape[0] == matrix.shape[1] > 0,
        f"W has shape {matrix.shape}; give a square [n, n] matrix of weights.",
    )
    matrix = sp.csr_array(matrix, dtype=np.float64)
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    bad = np.flatnonzero(~np.isfinite(matrix.data))
    if len(bad):
        raise ValueError(f"W has {len(bad)} entries that are not finite; give finite weights.")
    for axis, name in ((1, "row"), (0, "column")):
        sums = matrix.sum(axis=axis)
        worst = int(np.argmax(np.abs(sums - 1)))
        require(
            abs(sums[worst] - 1) <= TOLERANCE,
            f"{name} {worst} of W sums to {sums[worst]:.6g}; the rows and columns of a mixing "
            "matrix sum to 1, as jd.networks.metropolis(graph) gives them.",
        )
    _require_connected(matrix)
    if abs(matrix - matrix.T).max() <= TOLERANCE:
        matrix = sp.csr_array((matrix + matrix.T) / 2)
    if matrix.data.min() < 0:
        gap = _gap(matrix)
    else:  # Perron and Frobenius: a connected nonnegative matrix contracts unless it is periodic
        gap = float(matrix.diagonal().max() > 0 or not graphs.is_periodic(matrix))
    require(
        gap > TOLERANCE,
        f"W does not average: its second largest eigenvalue has modulus {1 - gap:.6g}; use "
        "(I + W) / 2, or smaller weights.",
    )
    return matrix


def _gap(matrix: sp.csr_array) -> float:
    if matrix.shape[0] > DENSE_SPECTRUM:
        return sparse_gap(matrix, _is_symmetric(matrix))
    return Dense(matrix.toarray()).spectral_gap


def _is_symmetric(matrix: Any) -> bool:
    return (matrix != matrix.T).nnz == 0


def _circulant(away: sp.csr_array) -> tuple[tuple[int, ...], np.ndarray] | None:
    """Return the offsets and weights of a circulant matrix without its diagonal, else None."""
    n = away.shape[0]
    degree = np.diff(away.indptr)
    if np.ptp(degree):
        return None
    entries = away.tocoo()
    offset = (entries.col - entries.row) % n
    order = np.lexsort((entries.row, offset))
    offsets = offset[order].reshape(degree[0], n)
    values = entries.data[order].reshape(degree[0], n)
    if np.ptp(offsets, axis=1).any() or np.ptp(values, axis=1).any():
        return None
    return tuple(int(o) for o in offsets[:, 0]), values[:, 0]


def _table(away: sp.csr_array, symmetric: bool) -> Neighbors:
    """Return the neighbor table of a matrix without its diagonal."""
    n = away.shape[0]
    away.sort_indices()
    degree = np.diff(away.indptr)
    row = np.repeat(np.arange(n), degree)
    slot = np.arange(away.nnz) - away.indptr[row]

    def table(who: np.ndarray, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        position = np.full(n, -1)
        position[who] = np.arange(len(who))
        chosen = (slot >= first) & (slot < last) & (position[row] >= 0)
        index = np.tile(who[:, None], (1, last - first))
        weights = np.zeros(index.shape)
        where = (position[row[chosen]], slot[chosen] - first)
        index[where], weights[where] = away.indices[chosen], away.data[chosen]
        return index, weights

    most = int(degree.max(initial=1))  # one empty slot for an agent alone
    width = min(most, UNROLLED)
    index, weights = table(np.arange(n), 0, width)
    tiers = []
    first = width
    while first < most:
        last = min(2 * first, most)
        hubs = np.flatnonzero(degree > first)
        tiers.append((jnp.asarray(hubs), *map(jnp.asarray, table(hubs, first, last))))
        first = last
    return Neighbors(
        jnp.asarray(index), jnp.asarray(weights, float), tuple(tiers), symmetric=symmetric
    )


def _away(network: Any) -> sp.csr_array:
    """Return the matrix of a sparse operator without its diagonal."""
    if isinstance(network, Circulant):
        n, offsets = network.n, np.array(network.offsets)
        rows = np.repeat(np.arange(n), len(offsets))
        columns = (rows + np.tile(offsets, n)) % n
        values = np.tile(np.asarray(network.weights, float), n)
        return sp.csr_array((values, (rows, columns)), shape=(n, n))
    matrix = network._csr()
    away = sp.csr_array(matrix - sp.diags_array(matrix.diagonal()))
    away.eliminate_zeros()
    return away


def _same_tables(tables: list[Neighbors]) -> list[Neighbors]:
    """Pad neighbor tables to a common number of slots."""
    require(
        not any(t.tiers for t in tables),
        f"networks in which an agent has more than {UNROLLED} neighbors cannot be stacked at this "
        "size; run them one by one.",
    )
    width = max(t.index.shape[1] for t in tables)

    def pad(t: Neighbors) -> Neighbors:
        more = width - t.index.shape[1]
        own = jnp.tile(jnp.arange(t.n)[:, None], (1, more))
        return Neighbors(
            jnp.concatenate([t.index, own], axis=1),
            jnp.pad(t.weights, ((0, 0), (0, more))),
            symmetric=t.symmetric,
        )

    return [pad(t) for t in tables]


def _structure(network: Any) -> Any:
    leaves, treedef = jax.tree.flatten(network)
    return treedef, tuple(np.shape(leaf) for leaf in leaves)
