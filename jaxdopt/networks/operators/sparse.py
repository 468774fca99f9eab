"""Sparse operators of any size: padded tables of every agent's in-neighbors and out-neighbors."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp

from jaxdopt._backend import by_backend
from jaxdopt._checks import require
from jaxdopt._leaves import is_traced
from jaxdopt._pytree import pytree, replace, static
from jaxdopt.agents import select
from jaxdopt.networks import spectra
from jaxdopt.networks.checks import TOLERANCE, require_agents, require_sums, require_symmetry
from jaxdopt.networks.operators.base import Keep, Links, Operator
from jaxdopt.networks.operators.halo import Devices, Halo

UNROLLED = 16  # neighbor slots an operator unrolls; an agent's further neighbors go to tiers
PRODUCT = 20  # measured: 43 TFLOP/s in float32 at the highest precision, 4.3 TB/s of gathered rows


def add(
    pull: jax.Array,
    table: tuple[Any, Any],
    tiers: Any,
    term: Callable[[Any, Any], jax.Array],
    gpu: Callable[[], jax.Array] | None = None,
) -> jax.Array:
    """Add Σ_s weights[:, s] term(agents, index[:, s]) to the agents' rows.

    Slot after slot, as one gather of all would not fit a CPU's cache; on a GPU tables of many slots
    at once, or as ``gpu`` does it.
    """
    if not _wide(pull.shape[0], tiers):
        return _by_slots(pull, table, tiers, term)
    return by_backend(
        cpu=lambda: _by_slots(pull, table, tiers, term),
        gpu=jax.checkpoint(gpu or (lambda: _at_once(pull, table, tiers, term))),
    )


def _wide(n: int, tiers: Any) -> bool:
    """Return whether many agents have more neighbors than an operator unrolls."""
    return any(_many(n, hubs) for hubs, _, _ in tiers)


def _many(n: int, hubs: jax.Array) -> bool:
    return 4 * hubs.shape[0] >= n


def _weighted(weights: jax.Array, values: jax.Array) -> jax.Array:
    trailing = (1,) * (values.ndim - weights.ndim)
    return weights.astype(values.dtype).reshape(weights.shape + trailing) * values


def _by_slots(
    pull: jax.Array, table: tuple[Any, Any], tiers: Any, term: Callable[[Any, Any], jax.Array]
) -> jax.Array:
    """Add a table slot after slot, the first ones unrolled."""
    index, weights = table
    for s in range(index.shape[1]):
        pull = pull + _weighted(weights[:, s], term(slice(None), index[:, s]))
    for hubs, index, weights in tiers:
        if _many(pull.shape[0], hubs):

            def slot(s: Any, more: jax.Array, tier: Any = (hubs, index, weights)) -> jax.Array:
                hubs, index, weights = tier
                return more + _weighted(weights[:, s], term(hubs, index[:, s]))

            more = jax.lax.fori_loop(0, index.shape[1], slot, jnp.zeros_like(pull[hubs]))
        else:
            more = _weighted(weights, term(hubs[:, None], index)).sum(axis=1)
        pull = pull.at[hubs].add(more, unique_indices=True, indices_are_sorted=True)
    return pull


def _at_once(
    pull: jax.Array, table: tuple[Any, Any], tiers: Any, term: Callable[[Any, Any], jax.Array]
) -> jax.Array:
    """Add a table by one gather and a sum, and so every tier that not all agents are in."""
    whole = [table, *((i, w) for hubs, i, w in tiers if hubs.shape[0] == pull.shape[0])]
    index, weights = (jnp.concatenate(part, axis=1) for part in zip(*whole, strict=True))
    pull = pull + _weighted(weights, term((slice(None), None), index)).sum(axis=1)
    for hubs, index, weights in tiers:
        if hubs.shape[0] < pull.shape[0]:
            more = _weighted(weights, term(hubs[:, None], index)).sum(axis=1)
            pull = pull.at[hubs].add(more, unique_indices=True, indices_are_sorted=True)
    return pull


def _heard(x: jax.Array, heard: jax.Array, places: Any, table: Any) -> jax.Array:
    """Return (W − I) x for the rows of a device."""
    first, tiers = _on_device(len(x), table, places)
    return add(jnp.zeros_like(x), first, tiers, lambda me, other: heard[other] - x[me])


def _pushed(x: jax.Array, heard: jax.Array, places: Any, table: Any, given: Any) -> jax.Array:
    """Return (W − I) x for the rows of a device, W column-stochastic."""
    pull = summed(x, heard, places, table)
    places = given[0], *(index for _, index, _ in given[2])  # which are not looked up
    first, tiers = _on_device(len(x), given, places)
    return add(pull, first, tiers, lambda me, _: -x[me])


def summed(x: jax.Array, heard: jax.Array, places: Any, table: Any) -> jax.Array:
    """Return Σⱼ wᵢⱼ xⱼ for the rows of a device."""
    first, tiers = _on_device(len(x), table, places)
    return add(jnp.zeros_like(x), first, tiers, lambda _, other: heard[other])


def _on_device(block: int, table: Any, places: Any) -> tuple[Any, Any]:
    """Return a device's table and tiers with the places of what its agents hear."""
    _, weights, tiers = table
    first, *more = places
    own = ((h % block, place, w) for (h, _, w), place in zip(tiers, more, strict=True))
    return (first, weights), tuple(own)


def spread(devices: Devices, *tables: Any) -> tuple[list[Any], Halo | None]:
    """Return tables (index, weights, tiers) over devices, and the first one's plan, if it has one.

    With a plan all devices have equally many agents in every tier: those added hear only themselves
    there.
    """
    n, stacked = tables[0][0].shape[-2], tables[0][0].ndim > 2
    halo = None
    if not (stacked and any(tiers for _, _, tiers in tables)):  # every round has other hubs
        even = [
            (index, weights, tuple(_even(n, devices.count, *map(np.asarray, t)) for t in tiers))
            for index, weights, tiers in tables
        ]
        index, _, tiers = even[0]
        rows = [(np.arange(n), index), *((hubs, others) for hubs, others, _ in tiers)]
        halo = devices.halo(n, rows)
    tables = tables if halo is None else tuple(even)
    placed = []
    for index, weights, tiers in tables:
        if halo is not None:
            tiers = jax.tree.map(devices.put, tiers)
        placed.append((devices.put(index, -2), devices.put(weights, -2), tiers))
    return placed, halo


def _even(
    n: int, count: int, hubs: np.ndarray, index: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a tier with as many agents of every device as of the one with the most."""
    block = n // count
    taken = np.bincount(hubs // block, minlength=count)
    others = np.setdiff1d(np.arange(n), hubs)
    of_device = others // block
    number = np.arange(len(others)) - np.searchsorted(of_device, of_device)
    added = others[number < (taken.max() - taken)[of_device]]
    agents = np.concatenate([hubs, added])
    order = np.argsort(agents)
    more = np.tile(added[:, None], (1, index.shape[1])).astype(index.dtype)
    index = np.concatenate([index, more])[order]
    weights = np.concatenate([weights, np.zeros(more.shape, weights.dtype)])[order]
    return agents[order], index, weights


def _masked(index: jax.Array, weights: jax.Array, tiers: Any, keep: Keep, hears: bool) -> Any:
    """Return a table's weights, tiers' too, with zeros on the links that are cut."""

    def kept(agents: jax.Array, others: jax.Array, weights: jax.Array) -> jax.Array:
        pair = (agents, others) if hears else (others, agents)
        return jnp.where(keep(*pair), weights, 0)

    me = jnp.arange(index.shape[0])[:, None]
    return kept(me, index, weights), tuple((a, i, kept(a[:, None], i, w)) for a, i, w in tiers)


def _sums(weights: jax.Array, tiers: Any) -> jax.Array:
    """Return the sums of a table's rows, [n]."""
    sums = weights.sum(axis=1)
    for hubs, _, more in tiers:
        sums = sums.at[hubs].add(more.sum(axis=1), unique_indices=True)
    return sums


def _require_table(
    index: Any, weights: Any, tiers: Any, names: tuple[str, str] = ("index", "weights")
) -> None:
    """Refuse a table, or tiers, whose shapes do not agree or that name agents that do not exist."""
    for agents, others, values in ((None, index, weights), *tiers):
        require(
            np.ndim(others) >= 2 and np.shape(values) == np.shape(others),
            f"{names[1]} has shape {np.shape(values)} and {names[0]} {np.shape(others)}; give one "
            "weight a slot, [n, slots].",
        )
        if not is_traced((agents, others)):
            n = np.shape(index)[-2]
            require_agents(names[0], others, n, np.shape(others))
            if agents is not None:
                require_agents("an agent of tiers", agents, n, np.shape(others)[:-1])
                require(
                    bool(np.all(np.diff(agents) > 0)),
                    "the agents of a tier are not in increasing order; sort its rows by agent.",
                )


def _entries(index: Any, weights: Any, tiers: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a table's rows, columns and values, padding included, on the host."""
    tables = [(np.arange(len(index)), index, weights), *tiers]
    rows = [np.repeat(np.asarray(a), i.shape[1]) for a, i, _ in tables]
    columns = [np.asarray(i).ravel() for _, i, _ in tables]
    values = [np.asarray(w, float).ravel() for _, _, w in tables]
    return np.concatenate(rows), np.concatenate(columns), np.concatenate(values)


@pytree
class Neighbors(Operator):
    """W as a padded table of neighbors, for sparse graphs of any size.

    The first 16 slots of all agents are unrolled. Agents with more neighbors have the others in
    tiers of doubling width, so that the cost of a star or of a heavy-tailed graph is proportional
    to the number of its edges.

    Args:
        index: [n, s] int: the in-neighbors of agent i, padded with i itself.
        weights: [n, s] wᵢⱼ, zero on the padding.
        tiers: of (agents [h], index [h, s], weights [h, s]), for those with more neighbors.
        k: the round's number; set by ``at``.
        active: which agents are awake, [n] bool; by default all.
        symmetric: whether W = Wᵀ; static.
        kind: what sums to 1: "doubly" or "row"; static.
        lasting: whether links are the same in every round; static.
        degree: [n] int: the number of neighbors, where links are cut.
        halo: the plan by which devices exchange rows; see `jaxdopt.networks.sharded`.
    """

    index: Any
    weights: Any
    tiers: Any = ()
    k: Any = None
    active: Any = None
    symmetric: bool = static(default=True)
    kind: str = static(default="doubly")
    lasting: bool = static(default=True)
    degree: Any = None
    halo: Halo | None = None

    def __post_init__(self) -> None:
        """Check shapes, agents' numbers, and that W is of the kind it is said to be."""
        require(
            self.kind in ("doubly", "row"),
            f"kind is {self.kind!r}; give 'doubly' or 'row', or take Pushes for 'column'.",
        )
        _require_table(self.index, self.weights, self.tiers)
        if is_traced(self) or self._stacked:
            return
        matrix = self.csr()
        require_sums(matrix, self.kind)
        require_symmetry(
            self.symmetric and self.kind == "doubly", abs(matrix - matrix.T).max() <= TOLERANCE
        )

    @property
    def n(self) -> int:
        """The number of agents."""
        return self.index.shape[-2]

    @property
    def _stacked(self) -> bool:
        return self.index.ndim != 2

    def _pull(self, x: jax.Array) -> jax.Array:
        if self.halo is not None:
            return self.halo.apply(_heard, x, (self.index, self.weights, self.tiers))
        return add(
            jnp.zeros_like(x),
            (self.index, self.weights),
            self.tiers,
            lambda me, other: x[other] - x[me],
            gpu=(lambda: self._product(x)) if self._product_is_quicker(x) else None,
        )

    def over(self, devices: Devices) -> "Neighbors":
        """Return the operator with its rows spread over devices, and a plan of their exchange."""
        ((index, weights, tiers),), halo = spread(devices, (self.index, self.weights, self.tiers))
        return replace(self, index=index, weights=weights, tiers=tiers, halo=halo)

    def _product(self, x: jax.Array) -> jax.Array:
        """Return (W − I) x by a product with all of W."""
        table = jnp.arange(self.n), self.index, self.weights
        away = jnp.zeros((self.n, self.n), x.dtype)
        for hubs, index, weights in (table, *self.tiers):
            away = away.at[hubs[:, None], index].add(weights.astype(x.dtype))
        away = jnp.where(np.eye(self.n, dtype=bool), 0, away)
        apart = x - x.mean(axis=0, keepdims=True)  # zero at consensus

        def by(matrix: jax.Array) -> jax.Array:
            return jnp.tensordot(matrix, apart, axes=1, precision=jax.lax.Precision.HIGHEST)

        pull = by(away) - _weighted(away.sum(axis=1), apart)
        if self.kind == "row":
            return pull
        # the sum is that of what agents give less what they receive: nothing, if W is symmetric;
        # what rounding adds to it one agent with links bears, as in `Dense`
        rounding = pull.sum(axis=0) - by((away - away.T).sum(axis=0))
        bearer = jnp.arange(self.n) == jnp.argmax(jnp.any(away != 0, axis=1))
        return select(bearer, pull - jax.lax.stop_gradient(rounding), pull)

    def _product_is_quicker(self, x: jax.Array) -> bool:
        """Return whether a GPU multiplies by W faster than it gathers the neighbors' rows.

        An H200 does `PRODUCT` multiplications in the time in which it gathers one number; to fill
        in W takes about as long as two more columns a slot.
        """
        if not _wide(self.n, self.tiers):
            return False
        slots = self.index.shape[1] + sum(index.shape[1] for _, index, _ in self.tiers)
        columns = x.size // self.n
        return self.n * (columns + 2 * slots) <= PRODUCT * slots * columns

    def _cut(self, keep: Keep) -> "Neighbors":
        weights, tiers = _masked(self.index, self.weights, self.tiers, keep, hears=True)
        return replace(self, weights=weights, tiers=tiers)

    @property
    def link_count(self) -> Any:
        """The number of directed links with a nonzero weight."""
        tables = [self.weights, *(weights for _, _, weights in self.tiers)]
        return sum(jnp.sum(weights != 0) for weights in tables)

    @property
    def in_neighbors(self) -> tuple[jax.Array, jax.Array]:
        """Whom every agent hears, itself left out: senders [n, s], and which slots have one."""
        me, senders, present = jnp.arange(self.n)[:, None], [self.index], [self.weights != 0]
        for hubs, index, weights in self.tiers:
            others = jnp.broadcast_to(me, (self.n, index.shape[1]))
            senders.append(others.at[hubs].set(index, unique_indices=True))
            weighted = jnp.zeros((self.n, index.shape[1]), bool)
            present.append(weighted.at[hubs].set(weights != 0, unique_indices=True))
        whole = jnp.concatenate(senders, axis=1)
        return whole, jnp.concatenate(present, axis=1) & (whole != me)

    @property
    def diagonal(self) -> jax.Array:
        """The diagonal of W, [n]: the weight of every agent's own value."""
        return 1 - _sums(self.weights, self.tiers)

    @property
    def linked(self) -> bool:  # type: ignore[override]
        """Whether there is a table of `links` for all rounds; there is none with tiers."""
        return self.lasting and self.symmetric and not self.tiers

    @property
    def links(self) -> Links:
        """Every agent's links, a slot a neighbor."""
        self.require_linked()
        me = jnp.arange(self.n)[:, None]
        theirs = self.index[self.index] if self.halo is None else self.halo.take(self.index)
        reverse = jnp.argmax(theirs == me[:, :, None], axis=-1)
        present = (self.index != me) & (self.weights != 0)
        degree = present.sum(axis=1) if self.degree is None else self.degree
        return Links(self.index, reverse, present, degree, self.halo)

    @property
    def spectral_gap(self) -> float:
        """1 − |λ₂|; by Lanczos or Arnoldi iteration for more than 2048 agents."""
        if self.n <= spectra.DENSE:
            return spectra.gap(self.eigenvalues)
        return spectra.sparse_gap(self.csr(), self.symmetric)

    def csr(self) -> sp.csr_array:
        """Return W as a scipy.sparse matrix, on the host."""
        rows, columns, values = _entries(self.index, self.weights, self.tiers)
        away = sp.csr_array((values, (rows, columns)), shape=(self.n, self.n))
        return sp.csr_array(away + sp.diags_array(1 - away.sum(axis=1)))


@pytree
class Pushes(Operator):
    """A column-stochastic W as two tables: of what every agent receives, and of what it sends.

    (W x)ᵢ = xᵢ + Σⱼ wᵢⱼ xⱼ − Σⱼ wⱼᵢ xᵢ: every product is added once and subtracted once, so that
    the sum over agents does not drift in float32.

    Args:
        index: [n, s] int: the in-neighbors of agent i, padded with i itself.
        weights: [n, s] wᵢⱼ, zero on the padding.
        receivers: [n, r] int: the out-neighbors of agent i, padded with i itself.
        given: [n, r] wⱼᵢ, zero on the padding.
        tiers: of ``weights``: (agents [h], index [h, s], weights [h, s]), for those with more
            neighbors.
        given_tiers: of ``given``, likewise.
        k: the round's number; set by ``at``.
        active: which agents are awake, [n] bool; by default all.
        pushes: whether push-sum weights stay positive; static.
        halo: the plan by which devices exchange rows; see `jaxdopt.networks.sharded`.
    """

    index: Any
    weights: Any
    receivers: Any
    given: Any
    tiers: Any = ()
    given_tiers: Any = ()
    k: Any = None
    active: Any = None
    pushes: bool = static(default=True)
    halo: Halo | None = None
    kind = "column"
    symmetric = False

    def __post_init__(self) -> None:
        """Check shapes, agents' numbers, and that both tables are the same matrix."""
        _require_table(self.index, self.weights, self.tiers)
        _require_table(self.receivers, self.given, self.given_tiers, ("receivers", "given"))
        if is_traced(self) or self._stacked:
            return
        rows, columns, values = _entries(self.receivers, self.given, self.given_tiers)
        given = sp.csr_array((values, (columns, rows)), shape=(self.n, self.n))
        apart = off_diagonal(self.csr()) - off_diagonal(given)
        require(
            abs(apart).max() <= TOLERANCE,
            "index and weights say another W than receivers and given; give both tables of one "
            "matrix, as jd.networks.mixing(W, kind='column') does.",
        )

    @property
    def n(self) -> int:
        """The number of agents."""
        return self.index.shape[-2]

    @property
    def _stacked(self) -> bool:
        return self.index.ndim != 2

    def _pull(self, x: jax.Array) -> jax.Array:
        heard = self.index, self.weights, self.tiers
        given = self.receivers, self.given, self.given_tiers
        if self.halo is not None:
            return self.halo.apply(_pushed, x, heard, given)
        pull = add(jnp.zeros_like(x), heard[:2], self.tiers, lambda _, other: x[other])
        return add(pull, given[:2], self.given_tiers, lambda me, _: -x[me])

    def over(self, devices: Devices) -> "Pushes":
        """Return the operator with its rows spread over devices, and a plan of their exchange."""
        heard = self.index, self.weights, self.tiers
        tables, halo = spread(devices, heard, (self.receivers, self.given, self.given_tiers))
        (index, weights, tiers), (receivers, given, more) = tables
        return Pushes(
            index, weights, receivers, given, tiers, more, self.k, self.active, self.pushes, halo
        )

    def _cut(self, keep: Keep) -> "Pushes":
        weights, tiers = _masked(self.index, self.weights, self.tiers, keep, hears=True)
        given, others = _masked(self.receivers, self.given, self.given_tiers, keep, hears=False)
        return replace(self, weights=weights, tiers=tiers, given=given, given_tiers=others)

    link_count = Neighbors.link_count
    spectral_gap = Neighbors.spectral_gap

    @property
    def diagonal(self) -> jax.Array:
        """The diagonal of W, [n]: the weight of every agent's own value."""
        return 1 - _sums(self.given, self.given_tiers)

    def csr(self) -> sp.csr_array:
        """Return W as a scipy.sparse matrix, on the host."""
        rows, columns, values = _entries(self.index, self.weights, self.tiers)
        away = sp.csr_array((values, (rows, columns)), shape=(self.n, self.n))
        return sp.csr_array(away + sp.diags_array(1 - away.sum(axis=0)))


def table(away: sp.csr_array, width: int | None = None) -> tuple[Any, Any, Any]:
    """Return the neighbor table of a matrix without its diagonal: index, weights, tiers for hubs.

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
        return jax.device_put(index), jax.device_put(weights)

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


def off_diagonal(matrix: sp.csr_array) -> sp.csr_array:
    """Return a matrix without its diagonal."""
    away = sp.csr_array(matrix - sp.diags_array(matrix.diagonal()))
    away.eliminate_zeros()
    return away
