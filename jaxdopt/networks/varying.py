"""Networks that change: ``network.at(k, key)`` is round k's, a fixed operator like any other.

All are pure functions of the step and the key. What is random folds a constant of its own into the
key before k, so that who is awake, which links are up and which samples are drawn are independent.
Cut links give their weight back to the diagonal: symmetric weights stay doubly stochastic and keep
the mean in every single draw.
"""

from collections.abc import Sequence
from typing import Any, Literal, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
from jax.extend.random import threefry_2x32

from jaxdopt import agents
from jaxdopt._pytree import Fraction, Number, count, evaluate, pytree, require, static
from jaxdopt.networks import graphs
from jaxdopt.networks.forms import operator, require_connected, stack
from jaxdopt.networks.operator import require_cuttable
from jaxdopt.networks.operators import Server
from jaxdopt.networks.tables import Neighbors
from jaxdopt.networks.weights import SCHEMES

# folded into the key before the step, and larger than any step's number
MATCHING, LINKS, ASLEEP = 0xF0003A7C, 0xF00011E5, 0xF000A51E


class Varying:
    """What networks that change with time share: before `at` they have no matrix."""

    n: Any
    symmetric: Any
    kind: Any = "doubly"
    active = None
    repetitions = 1
    varies = True
    rewires = False  # whether slots of `links` belong to other neighbors in other rounds
    k = None

    def _refuse(self, *_: Any) -> NoReturn:
        raise ValueError(
            f"a {type(self).__name__} network changes with time; take one round's, "
            "network.at(k, key)."
        )

    __matmul__ = laplacian = matrix = csr = cut = _refuse
    links = link_count = eigenvalues = row = column = time = property(_refuse)

    @property
    def spectral_gap(self) -> NoReturn:
        """Not defined; `jd.networks.contraction` measures what comes closest to it."""
        raise ValueError(
            f"a {type(self).__name__} network changes with time and has no one spectral gap; "
            "measure 1 - jd.networks.contraction(network, key)."
        )

    @property
    def cuttable(self) -> bool:
        """Whether links of every round can be cut."""
        return self.symmetric or self.kind != "doubly"

    def mean(self, x: Any) -> Any:
        """Return the mean over agents, leaves [n, ...] -> [...]."""
        return agents.average(x)


@pytree
class Cyclic(Varying):
    """One network after the other: round k has networks[k mod T].

    Args:
        networks: T fixed networks of the same n; networks of different forms are brought to one.
        after: "repeat" starts over after T rounds, "hold" stays with the last network.
    """

    networks: Any  # stacked: leaves [T, ...]
    length: int = static()
    after: str = static()
    rewires = True

    def __init__(
        self, networks: Sequence[Any], *, after: Literal["repeat", "hold"] = "repeat"
    ) -> None:
        require(
            after in ("repeat", "hold"),
            f"after is {after!r}; give 'repeat' to start over or 'hold' to stay with the last.",
        )
        object.__setattr__(self, "networks", stack(networks))
        object.__setattr__(self, "length", len(networks))
        object.__setattr__(self, "after", after)

    @property
    def n(self) -> int:
        """The number of agents."""
        return self.networks.n

    @property
    def symmetric(self) -> bool:
        """Whether every round's W is symmetric."""
        return self.networks.symmetric

    @property
    def kind(self) -> str:
        """What sums to 1: "doubly", "row", "column", or "directed" for two parts."""
        return self.networks.kind

    @property
    def cuttable(self) -> bool:
        """Whether links of every round can be cut."""
        return self.networks.cuttable

    @property
    def repetitions(self) -> int:
        """The rounds of communication that one exchange takes."""
        return self.networks.repetitions

    def at(self, k: Any, key: jax.Array) -> Any:
        """Return round k's network."""
        now = k % self.length if self.after == "repeat" else jnp.minimum(k, self.length - 1)
        return jax.tree.map(lambda leaf: leaf[now], self.networks).at(k, key)


def trace(
    graphs_or_adjacency: Any,
    *,
    weights: str = "metropolis",
    after: Literal["repeat", "hold"] = "repeat",
) -> Cyclic:
    """Return the network of a mobility trace: round k has the weights of graph k.

    Only the union of all graphs has to be connected; agents alone in a round keep their values.

    Args:
        graphs_or_adjacency: T networkx graphs (their nodes are taken in the first one's order) or
            adjacency matrices, or one array [T, n, n].
        weights: "metropolis", "lazy_metropolis", "row_stochastic" or "column_stochastic".
        after: what follows the last graph, as in `Cyclic`.

    Raises:
        ValueError: no graphs, graphs of different n, or a union that is not connected.
    """
    require(
        weights in SCHEMES,
        f"weights is {weights!r}; give one of {', '.join(map(repr, SCHEMES))}.",
    )
    scheme, kind = SCHEMES[weights]
    patterns = [pattern.astype(float) for pattern in graphs.adjacencies(graphs_or_adjacency)]
    require(patterns, "the trace has no graphs; give at least one.")
    counts = sorted({p.shape[0] for p in patterns})
    require(
        len(counts) == 1,
        f"the trace has graphs of {' and '.join(map(str, counts))} agents; give all the same.",
    )
    require_connected(sp.csr_array(sum(patterns[1:], patterns[0])))
    return Cyclic([operator(scheme(p), kind) for p in patterns], after=after)  # type: ignore


def one_peer_exponential(n: int) -> Cyclic:
    """Return the one-peer exponential network: in round k agent i hears i + 2ʰ, h = k mod ⌈log₂ n⌉.

    W = (I + P) / 2 with P a shift by 2ʰ. If n is a power of 2, log₂ n rounds average exactly.

    Source: Ying, Yuan, Chen, Hu, Pan, Yin (2021), "Exponential graph is provably efficient for
    decentralized deep training", arXiv 2110.13363.
    """
    n = count("n", n)
    eye = sp.eye_array(n, format="csr")
    shifts = [np.arange(n) + 2**h for h in range(max((n - 1).bit_length(), 1))]
    return Cyclic([operator(sp.csr_array((eye + eye[shift % n]) / 2)) for shift in shifts])


@pytree
class RandomMatching(Varying):
    """Random pairs of neighbors that average, wᵢᵢ = wᵢⱼ = 1/2; everybody else keeps its value.

    On the complete graph all agents are paired at random (but one, if n is odd). On other graphs
    every link draws a number and a pair forms where it is the largest at both ends: a random
    matching, though maybe not a maximal one.

    Args:
        graph: a connected undirected graph or adjacency matrix.
    """

    index: Any  # [n, largest degree] int, padded with the agent itself; None if all are neighbors
    n: int = static()
    symmetric = rewires = True

    def __init__(self, graph: Any) -> None:
        pattern = graphs.adjacency(graph)
        require_connected(pattern)
        require(
            (pattern != pattern.T).nnz == 0,
            "the graph is directed; random matching needs an undirected one.",
        )
        n = pattern.shape[0]
        object.__setattr__(self, "n", n)
        index = None
        if pattern.nnz < n * (n - 1):
            degree = np.diff(pattern.indptr)
            index = np.tile(np.arange(n)[:, None], (1, degree.max()))
            row = np.repeat(np.arange(n), degree)
            index[row, np.arange(pattern.nnz) - pattern.indptr[row]] = pattern.indices
            index = jnp.asarray(index)
        object.__setattr__(self, "index", index)

    def at(self, k: Any, key: jax.Array) -> Neighbors:
        """Return round k's network."""
        key = _own(key, MATCHING, k)
        me = jnp.arange(self.n)
        if self.index is None:
            order = jax.random.permutation(key, self.n)
            place = jnp.argsort(order) ^ 1
            partner = jnp.where(place < self.n, order[jnp.minimum(place, self.n - 1)], me)
        else:
            # 0 on the padding, at least 1 on a link
            rank = jnp.where(self.index != me[:, None], _bits(key, me[:, None], self.index) | 1, 0)
            wish = jnp.take_along_axis(self.index, rank.argmax(axis=1)[:, None], axis=1)[:, 0]
            partner = jnp.where(wish[wish] == me, wish, me)
        weights = jnp.where(partner != me, 0.5, 0.0)
        return Neighbors(partner[:, None], weights[:, None], k=k)


@pytree
class RandomLinks(Varying):
    """Every link is up with probability p in every round, independently; both ways or not at all.

    Args:
        network: with symmetric weights; it may itself change with time.
        probability: p, between 0 and 1.
    """

    network: Any
    probability: Fraction

    def __post_init__(self) -> None:
        """Refuse networks whose links cannot be cut."""
        require_cuttable(self.network)
        shape = np.shape(self.probability)
        require(shape == (), f"probability has shape {shape}; give one number for all links.")

    @property
    def n(self) -> int:
        """The number of agents."""
        return self.network.n

    @property
    def symmetric(self) -> bool:
        """Whether every round's W is symmetric."""
        return self.network.symmetric

    @property
    def kind(self) -> str:
        """What sums to 1, as in the network within."""
        return self.network.kind

    @property
    def cuttable(self) -> bool:
        """True: the network within is."""
        return True

    @property
    def repetitions(self) -> int:
        """The rounds of communication that one exchange takes."""
        return self.network.repetitions

    @property
    def rewires(self) -> bool:
        """Whether the network within has other links in other rounds."""
        return getattr(self.network, "rewires", False)

    def at(self, k: Any, key: jax.Array) -> Any:
        """Return round k's network."""
        up = _Up(_own(key, LINKS + _depth(self), k), evaluate(self.probability, k))
        return self.network.at(k, key).cut(up)


@pytree
class Asleep(Varying):
    """Some agents sleep: all their links are cut, and ``active`` says who is awake.

    Args:
        network: with symmetric weights, or with two parts; it may itself change with time.
        pattern: who is awake: a probability for all or one an agent, [n, 1]; a trace [T, n] of
            booleans, which repeats; or a network whose rounds have ``active``.
    """

    network: Any
    pattern: Any

    def __post_init__(self) -> None:
        """Check the pattern against the network."""
        require_cuttable(self.network)
        pattern = self.pattern
        if hasattr(pattern, "active"):
            require(
                pattern.n == self.n,
                f"the pattern is for {pattern.n} agents and the network has {self.n}; give both "
                "the same.",
            )
            return
        if isinstance(pattern, list | tuple):
            pattern = np.asarray(pattern)
        if np.issubdtype(getattr(pattern, "dtype", float), np.bool_):
            require(
                np.ndim(pattern) == 2 and pattern.shape[1] == self.n and len(pattern) > 0,
                f"the pattern has shape {np.shape(pattern)}; give who is awake in every round as "
                f"[T, {self.n}] booleans.",
            )
            object.__setattr__(self, "pattern", jnp.asarray(pattern))
            return
        shape = np.shape(pattern)
        require(
            shape in ((), (self.n, 1)),
            f"the pattern has shape {shape}; give one probability, one an agent as ({self.n}, 1), "
            f"or who is awake in every round as [T, {self.n}] booleans.",
        )
        probability = Number(minimum=0.0, maximum=1.0).accept("pattern", pattern)
        object.__setattr__(self, "pattern", probability)

    @property
    def n(self) -> int:
        """The number of agents."""
        return self.network.n

    @property
    def symmetric(self) -> bool:
        """Whether every round's W is symmetric."""
        return self.network.symmetric

    @property
    def kind(self) -> str:
        """What sums to 1, as in the network within."""
        return self.network.kind

    @property
    def cuttable(self) -> bool:
        """True: the network within is."""
        return True

    @property
    def repetitions(self) -> int:
        """The rounds of communication that one exchange takes."""
        return self.network.repetitions

    @property
    def rewires(self) -> bool:
        """Whether the network within has other links in other rounds."""
        return getattr(self.network, "rewires", False)

    @property
    def horizon(self) -> int | None:
        """The rounds that the network and the pattern know, or None if neither ends."""
        known = (getattr(part, "horizon", None) for part in (self.network, self.pattern))
        return min((horizon for horizon in known if horizon is not None), default=None)

    def at(self, k: Any, key: jax.Array) -> Any:
        """Return round k's network, its ``active`` set."""
        awake = self._awake(k, key)
        now = self.network.at(k, key)
        awake = awake if now.active is None else awake & now.active
        return now.cut(_Awake(awake)).awake(awake)

    def _awake(self, k: Any, key: jax.Array) -> jax.Array:
        if hasattr(self.pattern, "active"):
            now = self.pattern.at(k, key)
            require(
                now.active is not None or isinstance(now, Server),
                f"in the pattern, a {type(self.pattern).__name__}, nobody ever sleeps; give a "
                "network whose rounds have active, such as Asleep.",
            )
            return jnp.ones(self.n, bool) if now.active is None else now.active
        pattern = jnp.asarray(evaluate(self.pattern, k))
        if pattern.dtype == bool:
            return pattern[k % pattern.shape[0]]
        drawn = jax.random.uniform(_own(key, ASLEEP + _depth(self), k), (self.n,), jnp.float32)
        return drawn < jnp.ravel(pattern)


@pytree
class _Up:
    """Whether a link is up, drawn from its two agents."""

    key: Any
    probability: Any

    def __call__(self, i: jax.Array, j: jax.Array) -> jax.Array:
        drawn = (_bits(self.key, i, j) >> 8).astype(jnp.result_type(self.probability))
        return drawn * 2.0**-24 < self.probability


@pytree
class _Awake:
    """Whether both agents of a link are awake."""

    awake: Any  # [n] bool

    def __call__(self, i: jax.Array, j: jax.Array) -> jax.Array:
        return self.awake[i] & self.awake[j]


def _depth(network: Any) -> int:
    """Return how many networks are inside one another, so that the same kind draws anew in each."""
    return 1 + _depth(network.network) if hasattr(network, "network") else 0


def _own(key: jax.Array, constant: int, k: Any) -> jax.Array:
    return jax.random.fold_in(jax.random.fold_in(key, constant), k)


def _bits(key: jax.Array, i: jax.Array, j: jax.Array) -> jax.Array:
    """Return 32 random bits a link, the same for (i, j) and (j, i): one hash of the pair."""
    low, high = (f(i, j).astype(jnp.uint32) for f in (jnp.minimum, jnp.maximum))
    pairs = jnp.concatenate([low.ravel(), high.ravel()])
    bits = threefry_2x32(jax.random.key_data(key).ravel()[:2], pairs)
    return bits[: low.size].reshape(low.shape)
