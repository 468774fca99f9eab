"""Networks that change with time: ``network.at(k, key)`` is the fixed network of round k.

All are pure functions of the step and the key. Each kind of random choice folds a constant of its
own into the key before k, so that the agents awake, the links that are up and the samples drawn are
independent. Failing links and agents are in `jaxdopt.networks.failures`.
"""

from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
from jax.extend.random import threefry_2x32

from jaxdopt import _repr, agents
from jaxdopt._checks import count, require
from jaxdopt._leaves import is_traced
from jaxdopt._pytree import pytree, replace, static
from jaxdopt._wrapper import passed_on, rewrap, wrapped
from jaxdopt.networks import connectivity
from jaxdopt.networks.connectivity import require_connected
from jaxdopt.networks.operators.choose import choose
from jaxdopt.networks.operators.halo import Devices, Halo
from jaxdopt.networks.operators.sparse import Neighbors
from jaxdopt.networks.parts import Parts
from jaxdopt.networks.stacking import stack
from jaxdopt.networks.weights import SCHEMES
from jaxdopt.roles import Missing, Network

MATCHING = 0xF0003A7C  # folded into the key before the step, and larger than any step's number


OF_ROUNDS = ("laplacian", "matrix", "csr", "cut", "links", "link_count", "eigenvalues", "row")
OF_ROUNDS += ("column", "time", "in_neighbors")


class Varying(Network):
    """The base of networks that change with time: only their rounds, `at`, have a matrix."""

    n: Any
    symmetric: Any
    kind: Any = "doubly"
    active = None
    repetitions = 1
    varies = True
    k = None

    def __matmul__(self, x: Any) -> Any:
        return self.__getattr__("laplacian")

    def __getattr__(self, name: str) -> Any:
        if name in OF_ROUNDS:
            raise Missing(
                f"a {type(self).__name__} network changes with time; take one round's, "
                "network.at(k, key)."
            )
        if name == "spectral_gap":
            raise Missing(
                f"a {type(self).__name__} network changes with time and has no one spectral gap; "
                "measure 1 - jd.networks.contraction(network, key)."
            )
        return super().__getattr__(name)

    @property
    def cuttable(self) -> bool:
        """Whether links of every round can be cut."""
        return self.symmetric or self.kind != "doubly"

    def _facts(self) -> dict[str, str]:
        return {"agents": str(self.n)} | _repr.fields(self, "n")

    def mean(self, x: Any) -> Any:
        """Return the mean over agents, leaves [n, ...] -> [...]."""
        return agents.average(x)


@pytree
class Cyclic(Varying):
    """A sequence of T networks: round k is networks[k mod T].

    Args:
        networks: T fixed networks of the same n; different forms of operator are made one.
        after: "repeat" starts over after T rounds, "hold" stays with the last network.

    Raises:
        ValueError: another ``after``, or networks that `stack` refuses.
    """

    networks: Any  # stacked: leaves [T, ...]
    length: int = static()
    after: str = static()
    n, symmetric, kind, cuttable, repetitions, offers = (  # type: ignore[assignment]
        passed_on("networks", name)
        for name in ("n", "symmetric", "kind", "cuttable", "repetitions", "offers")
    )

    def __init__(
        self, networks: Sequence[Any], *, after: Literal["repeat", "hold"] = "repeat"
    ) -> None:
        require(
            after in ("repeat", "hold"),
            f"after is {after!r}; give 'repeat' to start over or 'hold' to stay with the last.",
        )
        object.__setattr__(self, "networks", _in_turn(stack(networks), networks))
        object.__setattr__(self, "length", len(networks))
        object.__setattr__(self, "after", after)

    def at(self, k: Any, key: jax.Array) -> Any:
        """Return round k's network."""
        now = k % self.length if self.after == "repeat" else jnp.minimum(k, self.length - 1)
        return jax.tree.map(lambda leaf: leaf[now], self.networks).at(k, key)


def _in_turn(together: Any, members: Sequence[Any]) -> Any:
    """Return a stack as the rounds of one network, whose links change from round to round.

    Push-sum weights stay positive if the union of all rounds is strongly connected.
    """
    if isinstance(together, Parts):
        each = {name: [member.parts[name] for member in members] for name in together.parts}
        parts = {name: _in_turn(part, each[name]) for name, part in together.parts.items()}
        return replace(together, **parts)
    within = wrapped(together)
    if within is not None:
        return rewrap(together, _in_turn(within, [wrapped(member) for member in members]))
    changes = {"lasting": False} if "lasting" in vars(together) else {}
    if "pushes" in vars(together) and together.kind == "column" and not is_traced(together):
        least = min(float(np.min(member.csr().diagonal())) for member in members)
        union = sum((member.csr() for member in members[1:]), members[0].csr())
        changes["pushes"] = least > 0 and connectivity.keeps_pushing(sp.csr_array(union))
    return replace(together, **changes)


def sequence(
    graphs_or_adjacency: Any,
    *,
    weights: str = "metropolis",
    after: Literal["repeat", "hold"] = "repeat",
) -> Cyclic:
    """Return the network of a sequence of graphs, such as a mobility trace: round k has graph k.

    Only the union of all graphs has to be connected; agents isolated in a round keep their values.

    Args:
        graphs_or_adjacency: T networkx graphs (their nodes are taken in the first one's order) or
            adjacency matrices, or one array [T, n, n].
        weights: the scheme, by the name of its function: "metropolis", "lazy_metropolis",
            "row_stochastic" or "column_stochastic".
        after: what follows the last graph: "repeat" begins again, "hold" stays at the last.

    Raises:
        ValueError: an unknown scheme, no graphs, graphs of different n, or a union that is not
            connected.
    """
    require(
        weights in SCHEMES,
        f"weights is {weights!r}; give one of {', '.join(map(repr, SCHEMES))}.",
    )
    scheme, kind = SCHEMES[weights]
    patterns = [pattern.astype(float) for pattern in connectivity.adjacencies(graphs_or_adjacency)]
    require(patterns, "the trace has no graphs; give at least one.")
    counts = sorted({p.shape[0] for p in patterns})
    require(
        len(counts) == 1,
        f"the trace has graphs of {' and '.join(map(str, counts))} agents; give all the same.",
    )
    require_connected(sp.csr_array(sum(patterns[1:], patterns[0])))
    return Cyclic([choose(scheme(p), kind) for p in patterns], after=after)  # type: ignore


def one_peer_exponential(n: int) -> Cyclic:
    """Return the one-peer exponential network: in round k agent i hears i + 2ʰ, h = k mod ⌈log₂ n⌉.

    W = (I + P) / 2 with P a shift by 2ʰ. If n is a power of 2, log₂ n rounds average exactly.

    Source: Ying, Yuan, Chen, Hu, Pan, Yin (2021), "Exponential graph is provably efficient for
    decentralized deep training", arXiv 2110.13363.
    """
    n = count("n", n)
    eye = sp.eye_array(n, format="csr")
    shifts = [np.arange(n) + 2**h for h in range(max((n - 1).bit_length(), 1))]
    return Cyclic([choose(sp.csr_array((eye + eye[shift % n]) / 2)) for shift in shifts])


@pytree
class RandomMatching(Varying):
    """Random pairs of neighbors average, wᵢᵢ = wᵢⱼ = 1/2; all other agents keep their values.

    On the complete graph all agents are paired uniformly at random (all but one if n is odd). On
    other graphs every link draws a number, and the two agents of a link pair up if its number is
    the largest at both of them: a random matching, not always a maximal one.

    Args:
        graph: a connected undirected networkx graph or adjacency matrix.

    Raises:
        ValueError: the graph is directed or disconnected.
    """

    index: Any  # [n, largest degree] int, padded with the agent itself; None if all are neighbors
    n: int = static()
    halo: Halo | None = None  # the plan by which devices exchange rows
    symmetric = True
    offers = frozenset({"mixing", "symmetric", "pull", "push", "push-pull", "hop", "all"})

    def __init__(self, graph: Any) -> None:
        pattern = connectivity.adjacency(graph)
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
        object.__setattr__(self, "halo", None)

    def over(self, devices: Devices) -> "RandomMatching":
        """Return the network for agents that are spread over devices."""
        if self.index is None:
            return self
        halo = devices.halo(self.n, [(np.arange(self.n), self.index)])
        return replace(self, index=devices.put(self.index, -2), halo=halo)

    def at(self, k: Any, key: jax.Array) -> Neighbors:
        """Return round k's network."""
        key = own_key(key, MATCHING, k)
        me = jnp.arange(self.n)
        if self.index is None:
            order = jax.random.permutation(key, self.n)
            place = jnp.argsort(order) ^ 1
            partner = jnp.where(place < self.n, order[jnp.minimum(place, self.n - 1)], me)
        else:
            # 0 on the padding, at least 1 on a link
            rank = jnp.where(
                self.index != me[:, None], link_bits(key, me[:, None], self.index) | 1, 0
            )
            wish = jnp.take_along_axis(self.index, rank.argmax(axis=1)[:, None], axis=1)[:, 0]
            partner = jnp.where(wish[wish] == me, wish, me)
        if self.halo is not None:
            paired = (self.index == partner[:, None]) & (self.index != me[:, None])
            weights = jnp.where(paired, 0.5, 0.0)
            return Neighbors(self.index, weights, k=k, lasting=False, halo=self.halo)
        weights = jnp.where(partner != me, 0.5, 0.0)
        return Neighbors(partner[:, None], weights[:, None], k=k, lasting=False)


def own_key(key: jax.Array, constant: int, k: Any) -> jax.Array:
    """Return the key of round k for the kind of random choice that has this constant."""
    return jax.random.fold_in(jax.random.fold_in(key, constant), k)


def link_bits(key: jax.Array, i: jax.Array, j: jax.Array) -> jax.Array:
    """Return 32 random bits for every link, the same for (i, j) and (j, i): a hash of the pair."""
    low, high = (f(i, j).astype(jnp.uint32) for f in (jnp.minimum, jnp.maximum))
    pairs = jnp.concatenate([low.ravel(), high.ravel()])
    bits = threefry_2x32(jax.random.key_data(key).ravel()[:2], pairs)
    return bits[: low.size].reshape(low.shape)
