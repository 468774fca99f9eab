"""From a matrix of weights to the operator that suits its structure; checked in NumPy, once."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
from scipy.sparse import csgraph

from jaxdopt._pytree import is_traced, replace, require
from jaxdopt.networks import graphs, spectra
from jaxdopt.networks.checks import SUMS, TOLERANCE, require_network, require_real, require_sums
from jaxdopt.networks.operators import SHIFTS, Circulant, Complete, Dense
from jaxdopt.networks.parts import Parts
from jaxdopt.networks.tables import UNROLLED, Neighbors, Pushes

Kind = Literal["doubly", "row", "column"]
Network = Dense | Neighbors | Circulant | Complete | Pushes

SPARSE = 4  # the neighbor table is used where n is at least this many times the slots it needs
SMALL = 512  # agents up to which a stack of sparse networks with hubs is dense


def mixing(weights: Any, *, kind: Kind = "doubly", form: type[Network] | None = None) -> Any:
    """Return a matrix W of weights as the operator that suits its structure.

    ``Complete`` if all weights are 1 / n; ``Circulant`` if every agent sees the same few weights;
    ``Neighbors`` if the graph is sparse, ``Pushes`` if W is column-stochastic too; else ``Dense``.

    Args:
        weights: [n, n], NumPy, JAX or scipy.sparse; row i is what agent i puts on what it hears.
        kind: which sums are 1: "doubly" stochastic, "row" or "column".
        form: one of the operator classes, instead of the one that suits.

    Raises:
        ValueError: W is not square and finite, its sums are not 1, it is disconnected (for "row",
            no agent is heard by all; for "column", none hears all), or it does not contract.
    """
    require(kind in list(SUMS), f"kind is {kind!r}; give 'doubly', 'row' or 'column'.")
    if is_traced(weights):
        raise ValueError(
            "W is traced, and its numbers say which operator suits it; give "
            f"Dense(W, symmetric=True or False, kind={kind!r}), or make a network of this graph "
            "outside and jd.replace(network, weights=...) inside."
        )
    return operator(_checked(weights, kind), kind, form)


def operator(matrix: sp.csr_array, kind: Kind = "doubly", form: Any = None) -> Any:
    """Return a checked matrix as an operator; see `mixing`."""
    n = matrix.shape[0]
    symmetric = kind == "doubly" and is_symmetric(matrix)
    away = _without_diagonal(matrix)
    slots = int(np.diff(away.indptr).max())
    circulant = _circulant(away) if kind == "doubly" else None
    full = kind == "doubly" and matrix.nnz == n * n and np.ptp(matrix.data) <= 1e-12
    most = max(UNROLLED, min(SHIFTS, n // SPARSE))  # shifts that are worth their while
    if form is None:
        if full:
            form = Complete
        elif circulant is not None and len(circulant[0]) <= most and n >= SPARSE:
            form = Circulant
        elif SPARSE * min(slots, UNROLLED) <= n and away.nnz * SPARSE <= n * n:
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
        pushes = graphs.keeps_pushing(matrix)
        return Pushes(index, values, others, given, tiers, more, pushes=pushes)
    require(
        form is Dense, f"form is {form!r}; give Dense, Neighbors, Pushes, Circulant or Complete."
    )
    return Dense(matrix.toarray(), symmetric=symmetric, kind=kind)


def stack(networks: Sequence[Any]) -> Any:
    """Stack networks of the same n along a new first axis, for `jax.vmap` and `sweep`.

    Members of one structure keep it; fixed networks of different ones become neighbor tables if
    all are sparse, and `Dense` otherwise. Timelines are brought to one size, and cut to the length
    of the shortest. A time that `at` has set is dropped.

    Raises:
        ValueError: no networks, or they have different numbers of agents, or some change with
            time in different ways.
    """
    require(
        isinstance(networks, Iterable) and not hasattr(networks, "nodes"),
        f"networks is a {type(networks).__name__}; give a list of networks.",
    )
    networks = list(networks)
    for network in networks:
        require_network(network)
    members = [_timeless(network) for network in networks]
    require(members, "there are no networks to stack; give at least one.")
    counts = sorted({network.n for network in members})
    require(
        len(counts) == 1,
        f"networks of {' and '.join(map(str, counts))} agents cannot be stacked; "
        "give them the same number of agents.",
    )
    if isinstance(members[0], Complete):  # it has nothing to stack
        members = _same_form(members)
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *_aligned(members))


def _timeless(network: Any) -> Any:
    """Return a network without the time that `at` has set."""
    own = vars(network)
    if isinstance(network, Parts):
        return replace(network, **{name: _timeless(p) for name, p in network.parts.items()})
    return replace(network, **{name: None for name in ("k", "key") if name in own})


def _aligned(members: list[Any]) -> list[Any]:
    """Return members of one structure as they are, and others in one form."""
    return _same_form(members) if len({_structure(m) for m in members}) > 1 else members


def _same_form(members: list[Any]) -> list[Any]:
    """Bring fixed networks of different forms to one, and tables of rounds to one size."""
    if hasattr(members[0], "aligned") and len({type(m) for m in members}) == 1:
        return members[0].aligned(members)
    if all(isinstance(m, Parts) and type(m) is type(members[0]) for m in members):
        parts = {name: _aligned([m.parts[name] for m in members]) for name in members[0].parts}
        each = zip(members, zip(*parts.values(), strict=True), strict=True)
        return [replace(m, **dict(zip(parts, own, strict=True))) for m, own in each]
    names = sorted({type(m).__name__ for m in members})
    require(
        all(isinstance(m, Network) for m in members),
        f"networks of the kinds {', '.join(names)} differ in structure and cannot be stacked; run "
        "them one by one.",
    )
    kinds = sorted({m.kind for m in members})
    require(
        len(kinds) == 1,
        f"networks whose weights are {' and '.join(kinds)} stochastic cannot be stacked; run them "
        "one by one.",
    )
    symmetric, pushes = (all(getattr(m, name) for m in members) for name in ("symmetric", "pushes"))
    if all(isinstance(m, Neighbors | Circulant | Pushes) for m in members):
        n = members[0].n
        parts = [_without_diagonal(m.csr()) for m in members]
        given = [sp.csr_array(away.T) for away in parts] if kinds[0] == "column" else []
        heard, hearing = (
            max((int(np.diff(away.indptr).max()) for away in several), default=1) or 1
            for several in (parts, given)
        )
        if max(heard, hearing) <= UNROLLED and SPARSE * max(heard, hearing) <= n:
            tables = [table(away, heard) for away in parts]
            others = [table(away, hearing) for away in given]
            if given:
                both = zip(tables, others, strict=True)
                return [Pushes(*t[:2], *o[:2], pushes=pushes) for t, o in both]
            return [Neighbors(i, w, symmetric=symmetric, kind=kinds[0]) for i, w, _ in tables]
        require(
            n <= SMALL,
            f"networks of {n} agents in which one has more than {UNROLLED} neighbors cannot be "
            "stacked at this size; run them one by one.",
        )
    options = {"symmetric": symmetric, "kind": kinds[0], "pushes": pushes}
    return [Dense(m.matrix(), **options) for m in members]


def require_connected(pattern: sp.csr_array) -> None:
    """Refuse a pattern in which some agents do not reach each other."""
    count, component = csgraph.connected_components(pattern, directed=True, connection="strong")
    outside = int(np.argmax(component != component[0]))
    require(
        count == 1,
        f"the graph is disconnected: {count} components, and agent {outside} and agent 0 do not "
        "reach each other; add links, or run the components as problems of their own.",
    )


def common_root(heard: sp.csr_array, pushed: sp.csr_array) -> bool:
    """Return whether some agent is heard, maybe through others, by all, and also hears all."""
    return bool(np.any(_reaching(heard) & _reaching(sp.csr_array(pushed.T))))


def _reaching(heard: sp.csr_array) -> np.ndarray:
    """Return [n] bool: the agents whose values reach everybody."""
    count, component = csgraph.connected_components(heard, directed=True, connection="strong")
    edges = heard.tocoo()
    hears_others = np.zeros(count, bool)
    outside = component[edges.row] != component[edges.col]
    hears_others[component[edges.row[outside]]] = True
    closed = np.flatnonzero(~hears_others)
    return component == closed[0] if len(closed) == 1 else np.zeros(heard.shape[0], bool)


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
        require_connected(matrix)
        if abs(matrix - matrix.T).max() <= TOLERANCE:
            matrix = sp.csr_array((matrix + matrix.T) / 2)
    else:
        require(
            _reaching(matrix if kind == "row" else sp.csr_array(matrix.T)).any(),
            "the graph is disconnected: no agent "
            f"{'is heard by' if kind == 'row' else 'hears'} all others, maybe through some of "
            "them; add links.",
        )
    if matrix.data.min() < 0 or (kind != "doubly" and matrix.diagonal().min() <= 0):
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
    if matrix.shape[0] > spectra.DENSE:
        return spectra.sparse_gap(matrix, is_symmetric(matrix))
    return spectra.gap(spectra.eigenvalues(matrix.toarray(), is_symmetric(matrix)))


def is_symmetric(matrix: Any) -> bool:
    """Return whether a sparse matrix equals its transpose."""
    return (matrix != matrix.T).nnz == 0


def _without_diagonal(matrix: sp.csr_array) -> sp.csr_array:
    away = sp.csr_array(matrix - sp.diags_array(matrix.diagonal()))
    away.eliminate_zeros()
    return away


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


def table(away: sp.csr_array, width: int | None = None) -> tuple[Any, Any, Any]:
    """Return the neighbor table of a matrix without diagonal: index, weights and tiers for hubs.

    ``width`` is the number of slots if it should be more than the matrix needs.
    """
    n = away.shape[0]
    away.sort_indices()
    degree = np.diff(away.indptr)
    row = np.repeat(np.arange(n), degree)
    slot = np.arange(away.nnz) - away.indptr[row]

    def part(who: np.ndarray, first: int, last: int) -> tuple[jax.Array, jax.Array]:
        position = np.full(n, -1)
        position[who] = np.arange(len(who))
        chosen = (slot >= first) & (slot < last) & (position[row] >= 0)
        index = np.tile(who[:, None], (1, last - first))
        weights = np.zeros(index.shape)
        where = (position[row[chosen]], slot[chosen] - first)
        index[where], weights[where] = away.indices[chosen], away.data[chosen]
        return jnp.asarray(index), jnp.asarray(weights, float)

    most = int(degree.max(initial=1))  # one empty slot for an agent alone
    first = width or min(most, UNROLLED)
    tiers = []
    start = first
    while start < most:
        last = min(2 * start, most)
        hubs = np.flatnonzero(degree > start)
        tiers.append((jnp.asarray(hubs), *part(hubs, start, last)))
        start = last
    return (*part(np.arange(n), 0, first), tuple(tiers))


def _structure(network: Any) -> Any:
    leaves, treedef = jax.tree.flatten(network)
    return treedef, tuple(np.shape(leaf) for leaf in leaves)
