"""Mixing matrices as operators: ``network @ x`` is W x on any pytree with a leading agent axis.

All compute x + Σⱼ wᵢⱼ (xⱼ − xᵢ) rather than Σⱼ wᵢⱼ xⱼ, in float32 at least: at consensus the
difference is exactly zero, and where wᵢⱼ and wⱼᵢ are equal bit for bit what flows from i to j is
minus what flows from j to i, so that the mean does not drift in float32. ``laplacian(x)`` is
(I − W) x by the same differences: primal-dual methods accumulate it, and its sum has to stay zero.

A doubly stochastic W keeps consensus and the mean; a row-stochastic one (``kind`` "row") only the
first, a column-stochastic one ("column") only the second.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp

from jaxdopt import agents
from jaxdopt._pytree import count, is_traced, pytree, replace, require, static
from jaxdopt.networks import spectra

T = TypeVar("T")
Keep = Callable[[jax.Array, jax.Array], jax.Array]
"""Whether receiver i still hears sender j, for arrays of both: what cuts links."""

ROLLED = 2  # offsets up to which rolls are quicker than slices: fusions give up on many rolls
SHIFTS = 64  # offsets up to which a circulant matrix is applied by shifts
UNROLLED = 16  # neighbor slots an operator unrolls; an agent's further neighbors go to tiers


@pytree
class Links:
    """The directed links of a network: slot s of agent i hears ``sender[i, s]``.

    An edge variable m is [n, s, ...], slot s of row i belonging to i's link with that neighbor;
    what arrives at every slot is ``m[sender, reverse]``.
    """

    sender: jax.Array  # [n, s] int
    reverse: jax.Array  # [n, s] int: the slot at the sender that belongs to agent i
    present: jax.Array  # [n, s] bool: false where a slot is padding or its link is cut

    def hear(self, x: jax.Array) -> jax.Array:
        """Return what every slot hears of the agents' own values, [n, ...] -> [n, s, ...]."""
        return x[self.sender]

    def swap(self, edges: jax.Array) -> jax.Array:
        """Return the neighbor's value of every edge variable, [n, s, ...] -> [n, s, ...]."""
        return edges[self.sender, self.reverse]

    @property
    def degree(self) -> jax.Array:
        """The number of neighbors, [n]."""
        return self.present.sum(axis=1)


class Operator:
    """What all fixed operators share; a subclass gives `_pull`, and what else it knows better."""

    n: Any  # the number of agents
    k: Any  # the step, once `at` has set it
    symmetric: bool
    kind: Any = "doubly"
    active: Any = None  # who is awake, [n] bool, or None for everybody
    repetitions = 1  # rounds of communication that one ``network @ x`` takes
    varies = False

    def _pull(self, x: jax.Array) -> jax.Array:
        """Return (W − I) x for an array [n, ...] of at least float32."""
        raise NotImplementedError

    def __matmul__(self, x: T) -> T:
        return self._map(lambda leaf: leaf + self._pull(leaf), x)

    def laplacian(self, x: T) -> T:
        """Return (I − W) x, whose sum over agents is zero up to the rounding of the differences."""
        return self._map(lambda leaf: -self._pull(leaf), x)

    def mean(self, x: T) -> T:
        """Return the mean over agents, leaves [n, ...] -> [...]."""
        return agents.average(x)

    def at(self, k: Any, key: jax.Array) -> Any:
        """Return round k's network: this one, with the time set."""
        return replace(self, k=k)

    @property
    def time(self) -> Any:
        """The step k; raises ValueError where `at` has not set it."""
        if self.k is None:
            raise ValueError(
                "this method needs the time and the network has none; "
                "pass network.at(k, key) to step."
            )
        return self.k

    @property
    def row(self) -> Any:
        """The row-stochastic part: W itself, unless it is only column-stochastic."""
        require(
            self.kind != "column",
            "this network's W is column-stochastic and has no row-stochastic part; use "
            "jd.networks.push_pull(graph).",
        )
        return self

    @property
    def column(self) -> Any:
        """The column-stochastic part: W itself, unless it is only row-stochastic."""
        require(
            self.kind != "row",
            "this network's W is row-stochastic and has no column-stochastic part; use "
            "jd.networks.push_pull(graph).",
        )
        return self

    @property
    def link_count(self) -> Any:
        """The number of directed links with a nonzero weight."""
        raise NotImplementedError

    @property
    def links(self) -> Links:
        """Every agent's links; here ValueError, as there is no table of them."""
        raise ValueError(
            f"links of a {type(self).__name__} network are not tabulated; give a graph's symmetric "
            "weights, such as jd.networks.metropolis(graph)."
        )

    def matrix(self) -> jax.Array:
        """Return W as a dense [n, n] array."""
        return self @ jnp.eye(self.n)

    @property
    def eigenvalues(self) -> np.ndarray:
        """All n eigenvalues of W by decreasing modulus, computed on the host; complex if needed."""
        return spectra.eigenvalues(self.csr().toarray(), self.symmetric)

    @property
    def spectral_gap(self) -> float:
        """1 − |λ₂|, λ₂ the largest eigenvalue of W in modulus but for the one of the mean."""
        return spectra.gap(self.eigenvalues)

    def csr(self) -> sp.csr_array:
        """Return W as a scipy.sparse matrix, on the host."""
        return sp.csr_array(np.asarray(self.matrix(), float))

    @property
    def cuttable(self) -> bool:
        """Whether links can be cut and W stays what it is, see `cut`."""
        return self.symmetric or self.kind != "doubly"

    def cut(self, keep: Keep) -> Any:
        """Return the network with only the links that ``keep``; their weight goes to the diagonal.

        ``keep(receiver, sender)`` has to be symmetric where W is, and then the mean is kept. Raises
        ValueError where W is doubly stochastic and not symmetric, as it would no longer be so, and
        where there is no weight to give back (servers and trees).
        """
        require_cuttable(self)
        return self._cut(keep)

    def awake(self, active: jax.Array) -> Any:
        """Return the network with the agents where ``active`` [n] is true awake."""
        return replace(self, active=active)

    def _cut(self, keep: Keep) -> Any:
        raise NotImplementedError

    @property
    def _stacked(self) -> bool:
        """Whether this is a stack of networks rather than one."""
        return False

    def _map(self, apply: Callable[[jax.Array], jax.Array], x: T) -> T:
        require(
            not self._stacked,
            "this is a stack of networks; take one, or sweep over them with "
            'jd.sweep(jd.run, over=("network",)).',
        )

        def leaf(value: Any) -> jax.Array:
            value = jnp.asarray(value)
            require(
                value.shape[:1] == (self.n,),
                f"a leaf has shape {value.shape} and the network {self.n} agents; give [n, ...].",
            )
            wide = jnp.promote_types(value.dtype, jnp.float32)
            narrow = value.dtype if jnp.issubdtype(value.dtype, jnp.floating) else wide
            return apply(value.astype(wide)).astype(narrow)

        return jax.tree.map(leaf, x)


@pytree
class Dense(Operator):
    """W as an [n, n] array, for small or dense graphs; the mean is kept by projection."""

    weights: Any  # [n, n]
    k: Any = None
    active: Any = None
    symmetric: bool = static(default=None)
    kind: str = static(default="doubly")  # what sums to 1: "doubly", "row" or "column"

    def __post_init__(self) -> None:
        """Check the shape; find out whether a concrete matrix is symmetric."""
        weights = self.weights
        require(
            np.ndim(weights) == 2 and np.shape(weights)[0] == np.shape(weights)[1],
            f"weights has shape {np.shape(weights)}; give a square matrix.",
        )
        require(
            self.kind in ("doubly", "row", "column"),
            f"kind is {self.kind!r}; give 'doubly', 'row' or 'column'.",
        )
        if self.symmetric is None:
            if is_traced(weights):
                raise ValueError("weights is traced; say Dense(weights, symmetric=True or False).")
            object.__setattr__(self, "symmetric", bool(np.allclose(weights, np.transpose(weights))))
        object.__setattr__(self, "weights", jnp.asarray(weights, jnp.result_type(weights, float)))

    @property
    def n(self) -> int:
        """The number of agents."""
        return self.weights.shape[-1]

    def _pull(self, x: jax.Array) -> jax.Array:
        away = x if self.kind == "column" else x - x.mean(axis=0)
        mixed = jnp.tensordot(
            self.weights.astype(x.dtype), away, axes=1, precision=jax.lax.Precision.HIGHEST
        )
        pull = mixed - away
        if self.kind == "row":
            return pull
        # what rounding adds to the sum one agent with links bears: shared, it would be rounded away
        bearer = jnp.argmax(jnp.diagonal(self.weights) != 1)
        return agents.select(jnp.arange(self.n) == bearer, pull - pull.sum(axis=0), pull)

    def _cut(self, keep: Keep) -> "Dense":
        me = jnp.arange(self.n)
        kept = jnp.where(keep(me[:, None], me) & ~jnp.eye(self.n, dtype=bool), self.weights, 0)
        own = 1 - kept.sum(axis=0 if self.kind == "column" else 1)
        return replace(self, weights=kept + jnp.diag(own))

    @property
    def _stacked(self) -> bool:
        return self.weights.ndim != 2

    @property
    def link_count(self) -> jax.Array:
        """The number of directed links with a nonzero weight."""
        return jnp.sum(self._linked)

    @property
    def links(self) -> Links:
        """Every agent's links, n slots each: slot j of agent i is its link with j."""
        require(self.symmetric, "links need every neighbor to hear back; this W is directed.")
        return _all_links(self.n, self._linked)

    def matrix(self) -> jax.Array:
        """Return W itself."""
        return self.weights

    @property
    def _linked(self) -> jax.Array:
        return (self.weights != 0) & ~jnp.eye(self.n, dtype=bool)


def add(
    pull: jax.Array, table: tuple[Any, Any], tiers: Any, term: Callable[[Any, Any], jax.Array]
) -> jax.Array:
    """Add Σ_s weights[:, s] term(agents, index[:, s]) to the agents' rows, slots unrolled."""

    def weighted(weights: jax.Array, values: jax.Array) -> jax.Array:
        trailing = (1,) * (values.ndim - weights.ndim)
        return weights.astype(pull.dtype).reshape(weights.shape + trailing) * values

    index, weights = table
    for s in range(index.shape[1]):
        pull = pull + weighted(weights[:, s], term(slice(None), index[:, s]))
    for hubs, index, weights in tiers:
        if 4 * hubs.shape[0] < pull.shape[0]:
            more = weighted(weights, term(hubs[:, None], index)).sum(axis=1)
        else:  # many agents: slot after slot, as one gather of all would not fit the cache

            def slot(s: Any, more: jax.Array, tier: Any = (hubs, index, weights)) -> jax.Array:
                hubs, index, weights = tier
                return more + weighted(weights[:, s], term(hubs, index[:, s]))

            more = jax.lax.fori_loop(0, index.shape[1], slot, jnp.zeros_like(pull[hubs]))
        pull = pull.at[hubs].add(more, unique_indices=True, indices_are_sorted=True)
    return pull


def _masked(index: jax.Array, weights: jax.Array, tiers: Any, keep: Keep, hears: bool) -> Any:
    """Return a table's weights, tiers' too, with zeros on the links that are cut."""

    def kept(agents: jax.Array, others: jax.Array, weights: jax.Array) -> jax.Array:
        pair = (agents, others) if hears else (others, agents)
        return jnp.where(keep(*pair), weights, 0)

    me = jnp.arange(index.shape[0])[:, None]
    return kept(me, index, weights), tuple((a, i, kept(a[:, None], i, w)) for a, i, w in tiers)


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

    The first 16 slots are unrolled over all agents; agents with more neighbors have the rest in
    tiers of doubling width, so that a star or a heavy-tailed graph costs no more than its edges.
    """

    index: Any  # [n, s] int: the neighbors that agent i hears, padded with i itself
    weights: Any  # [n, s], zero on the padding
    tiers: Any = ()  # of (agents [h], index [h, s], weights [h, s])
    k: Any = None
    active: Any = None
    symmetric: bool = static(default=True)
    kind: str = static(default="doubly")  # or "row"

    @property
    def n(self) -> int:
        """The number of agents."""
        return self.index.shape[-2]

    @property
    def _stacked(self) -> bool:
        return self.index.ndim != 2

    def _pull(self, x: jax.Array) -> jax.Array:
        table = self.index, self.weights
        return add(jnp.zeros_like(x), table, self.tiers, lambda me, other: x[other] - x[me])

    def _cut(self, keep: Keep) -> "Neighbors":
        weights, tiers = _masked(self.index, self.weights, self.tiers, keep, hears=True)
        return replace(self, weights=weights, tiers=tiers)

    @property
    def link_count(self) -> Any:
        """The number of directed links with a nonzero weight."""
        tables = [self.weights, *(weights for _, _, weights in self.tiers)]
        return sum(jnp.sum(weights != 0) for weights in tables)

    @property
    def links(self) -> Links:
        """Every agent's links, a slot a neighbor; ValueError if an agent has more than 16."""
        require(
            not self.tiers and self.symmetric,
            f"links are tabulated for symmetric weights and at most {UNROLLED} neighbors an agent; "
            "use jd.networks.mixing(W, form=jd.networks.Dense).",
        )
        me = jnp.arange(self.n)[:, None]
        reverse = jnp.argmax(self.index[self.index] == me[:, :, None], axis=-1)
        return Links(self.index, reverse, (self.index != me) & (self.weights != 0))

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
    """A column-stochastic W as two tables: what every agent hears, and what it gives away.

    (W x)ᵢ = xᵢ + Σⱼ wᵢⱼ xⱼ − Σⱼ wⱼᵢ xᵢ: every product is added once and subtracted once, so that
    the sum over agents does not drift in float32.
    """

    index: Any  # [n, s] int: the neighbors that agent i hears, padded with i itself
    weights: Any  # [n, s]: wᵢⱼ, zero on the padding
    receivers: Any  # [n, r] int: the neighbors that hear agent i, padded with i itself
    given: Any  # [n, r]: wⱼᵢ, zero on the padding
    tiers: Any = ()  # as those of `Neighbors`, of what is heard
    given_tiers: Any = ()  # the same, of what is given
    k: Any = None
    active: Any = None
    kind = "column"
    symmetric = False

    @property
    def n(self) -> int:
        """The number of agents."""
        return self.index.shape[-2]

    @property
    def _stacked(self) -> bool:
        return self.index.ndim != 2

    def _pull(self, x: jax.Array) -> jax.Array:
        heard, given = (self.index, self.weights), (self.receivers, self.given)
        pull = add(jnp.zeros_like(x), heard, self.tiers, lambda _, other: x[other])
        return add(pull, given, self.given_tiers, lambda me, _: -x[me])

    def _cut(self, keep: Keep) -> "Pushes":
        weights, tiers = _masked(self.index, self.weights, self.tiers, keep, hears=True)
        given, others = _masked(self.receivers, self.given, self.given_tiers, keep, hears=False)
        return replace(self, weights=weights, tiers=tiers, given=given, given_tiers=others)

    link_count = Neighbors.link_count
    spectral_gap = Neighbors.spectral_gap

    def csr(self) -> sp.csr_array:
        """Return W as a scipy.sparse matrix, on the host."""
        rows, columns, values = _entries(self.index, self.weights, self.tiers)
        away = sp.csr_array((values, (rows, columns)), shape=(self.n, self.n))
        return sp.csr_array(away + sp.diags_array(1 - away.sum(axis=0)))


@pytree
class Circulant(Operator):
    """W with the same weights seen from every agent, for rings and exponential graphs.

    (W x)ᵢ = xᵢ + Σ_o w_o (x_{i + o mod n} − xᵢ). Shifts, and not gathers: over devices they become
    exchanges with neighbors.
    """

    weights: Any  # [len(offsets)]
    offsets: tuple[int, ...] = static()  # each in 1 ... n − 1
    n: int = static()
    k: Any = None
    active: Any = None
    symmetric: bool = static(default=True)

    @property
    def _stacked(self) -> bool:
        return np.ndim(self.weights) != 1

    def _pull(self, x: jax.Array) -> jax.Array:
        pull = jnp.zeros_like(x)
        for weight, shifted in zip(self.weights.astype(x.dtype), self._shifted(x), strict=True):
            pull = pull + weight * (shifted - x)
        return pull

    def _shifted(self, x: jax.Array) -> list[jax.Array]:
        """Return x as it is seen at every offset: by rolls, or cut out of x with a halo."""
        if len(self.offsets) <= ROLLED:
            return [jnp.roll(x, -offset, axis=0) for offset in self.offsets]
        signed = [o if 2 * o <= self.n else o - self.n for o in self.offsets]
        first, last = min(0, *signed), max(0, *signed)
        halo = jnp.concatenate([x[self.n + first :], x, x[:last]])
        return [jax.lax.slice_in_dim(halo, o - first, o - first + self.n) for o in signed]

    def _cut(self, keep: Keep) -> Neighbors:
        senders = self._senders
        weights = jnp.broadcast_to(self.weights, senders.shape)
        table = Neighbors(senders, weights, k=self.k, active=self.active, symmetric=self.symmetric)
        return table._cut(keep)

    @property
    def _senders(self) -> jax.Array:
        return (jnp.arange(self.n)[:, None] + jnp.array(self.offsets, int)) % self.n

    @property
    def link_count(self) -> Any:
        """The number of directed links with a nonzero weight."""
        return self.n * jnp.sum(self.weights != 0)

    @property
    def links(self) -> Links:
        """Every agent's links, a slot an offset; ValueError if some offset has no opposite."""
        opposite = [self.n - offset for offset in self.offsets]
        require(
            set(opposite) == set(self.offsets),
            "links need every neighbor to hear back; this circulant network is directed.",
        )
        sender = self._senders
        reverse = jnp.array([self.offsets.index(o) for o in opposite], int)
        return Links(
            sender, jnp.broadcast_to(reverse, sender.shape), jnp.ones_like(sender, dtype=bool)
        )

    def csr(self) -> sp.csr_array:
        """Return W as a scipy.sparse matrix, on the host."""
        return self._cut(lambda i, j: i != j).csr()

    @property
    def eigenvalues(self) -> np.ndarray:
        """All n eigenvalues of W by decreasing modulus: 1 + Σ_o w_o (e^{2πi o j / n} − 1)."""
        angles = 2j * np.pi * np.outer(np.arange(self.n), self.offsets) / self.n
        values = 1 + (np.exp(angles) - 1) @ np.asarray(self.weights, float)
        return spectra.by_modulus(np.real(values) if self.symmetric else values)


@pytree
class Complete(Operator):
    """W = 11ᵀ / n, the exact average."""

    n: int = static()
    k: Any = None
    active: Any = None
    symmetric: bool = static(default=True)

    def __post_init__(self) -> None:
        """Check the number of agents."""
        count("n", self.n)

    def __matmul__(self, x: T) -> T:
        return self._map(
            lambda leaf: jnp.broadcast_to(leaf[0] + (leaf - leaf[0]).mean(axis=0), leaf.shape), x
        )

    def _pull(self, x: jax.Array) -> jax.Array:
        away = x - x[0]
        return away.mean(axis=0) - away

    def _cut(self, keep: Keep) -> Dense:
        return Dense(self.matrix(), k=self.k, active=self.active, symmetric=True)._cut(keep)

    @property
    def link_count(self) -> int:
        """The number of directed links, n (n − 1)."""
        return self.n * (self.n - 1)

    @property
    def links(self) -> Links:
        """Every agent's links, n slots each: slot j of agent i is its link with j."""
        return _all_links(self.n, ~jnp.eye(self.n, dtype=bool))

    def matrix(self) -> jax.Array:
        """Return W as a dense [n, n] array."""
        return jnp.full((self.n, self.n), 1 / self.n)

    @property
    def eigenvalues(self) -> np.ndarray:
        """The eigenvalues 1, 0, ..., 0."""
        return np.eye(1, self.n)[0]


@pytree
class Server(Operator):
    """A server and n clients: W = 11ᵀ / n, over one link up and one down for every client."""

    n: int = static()
    k: Any = None
    active: Any = None
    symmetric: bool = static(default=True)
    cuttable = False  # type: ignore[assignment]

    def __post_init__(self) -> None:
        """Check the number of clients."""
        count("n", self.n)

    __matmul__ = Complete.__matmul__
    _pull = Complete._pull
    matrix = Complete.matrix
    eigenvalues = Complete.eigenvalues

    @property
    def link_count(self) -> int:
        """The number of directed links: 2 n, all with the server."""
        return 2 * self.n


def require_cuttable(network: Any) -> None:
    """Refuse a network whose links cannot be cut."""
    require(
        getattr(network, "cuttable", False),
        f"links of this {type(network).__name__} cannot be cut, as nothing would keep the sums of "
        "its weights; give a graph's symmetric weights, or jd.networks.push_pull(graph).",
    )


def _all_links(n: int, present: jax.Array) -> Links:
    senders = jnp.broadcast_to(jnp.arange(n), (n, n))
    return Links(senders, senders.T, present)
