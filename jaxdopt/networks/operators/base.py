"""Mixing matrices as operators: ``network @ x`` is W x on any pytree with a leading agent axis.

All compute x + Σⱼ wᵢⱼ (xⱼ − xᵢ) rather than Σⱼ wᵢⱼ xⱼ, in float32 at least. At consensus the
differences are exactly zero; and where wᵢⱼ and wⱼᵢ are equal bit for bit, what flows from i to j is
minus what flows from j to i, so that the mean does not drift in float32. ``laplacian(x)`` is
(I − W) x by the same differences: primal-dual methods accumulate it, and its sum has to stay zero.

A doubly stochastic W keeps consensus and the mean; a row-stochastic one (``kind`` "row") keeps only
consensus, a column-stochastic one ("column") only the mean. The rounds of these two are therefore
not operators: `at` returns a network of one part, whose ``row`` or ``column`` is the operator.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp

from jaxdopt import _repr, agents
from jaxdopt._checks import require
from jaxdopt._leaves import is_traced, wide_dtype
from jaxdopt._pytree import pytree, replace
from jaxdopt.networks import spectra
from jaxdopt.networks.checks import require_agents, require_network
from jaxdopt.networks.operators.halo import Halo
from jaxdopt.networks.parts import ColumnOnly, RowOnly
from jaxdopt.roles import Missing, Network, lacks

SMALL = 64  # agents up to which links and the spectral gap are part of what a network says

T = TypeVar("T")
Keep = Callable[[jax.Array, jax.Array], jax.Array]
"""keep(i, j): whether receiver i still hears sender j, for arrays of both; the other links are cut.
"""


@pytree
class Links:
    """The directed links of a network: slot s of agent i hears ``sender[i, s]``.

    An edge variable m is [n, s, ...], slot s of row i belonging to i's link with that neighbor;
    what arrives at every slot is ``m[sender, reverse]``.

    Args:
        sender: [n, s] int.
        reverse: [n, s] int: the slot at the sender that belongs to agent i.
        present: [n, s] bool: false where a slot is padding or its link is cut.
        degree: [n] int: the number of neighbors, whether the links to them are cut or not.
        halo: the plan by which devices exchange rows; see `jaxdopt.networks.sharded`.
    """

    sender: jax.Array
    reverse: jax.Array
    present: jax.Array
    degree: jax.Array
    halo: Halo | None = None

    def __post_init__(self) -> None:
        """Check the tables: the slot at j that ``reverse`` names has to be j's link with i."""
        shape = np.shape(self.sender)
        require(
            len(shape) == 2 and np.shape(self.reverse) == np.shape(self.present) == shape,
            f"sender has shape {shape}, reverse {np.shape(self.reverse)} and present "
            f"{np.shape(self.present)}; give all as [n, slots].",
        )
        if is_traced((self.sender, self.reverse, self.present)):
            return
        require_agents("sender", self.sender, shape[0], shape)
        require_agents("reverse", self.reverse, shape[1], shape)
        sender, reverse, here = map(np.asarray, (self.sender, self.reverse, self.present))
        back = sender[sender, reverse] == np.arange(shape[0])[:, None]
        require(
            bool(np.all(back | ~here)),
            "reverse names a slot at the sender that belongs to another agent; give sender and "
            "reverse with sender[sender, reverse] = i in row i.",
        )

    def hear(self, x: jax.Array) -> jax.Array:
        """Return what every slot hears of the agents' own values, [n, ...] -> [n, s, ...]."""
        return x[self.sender] if self.halo is None else self.halo.take(x)

    def diameter(self) -> jax.Array:
        """Return the rounds in which all pass on what they know until nobody hears news.

        Where all links are up it is the graph's diameter.
        """

        def pass_on(carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            rounds, known, _ = carry

            def hear(slot: Any, heard: jax.Array) -> jax.Array:
                return heard | (known[self.sender[:, slot]] & self.present[:, slot, None])

            wider = jax.lax.fori_loop(0, self.sender.shape[1], hear, known)
            news = jnp.any(wider != known)
            return rounds + news, wider, news

        n = len(self.sender)
        begun = jnp.zeros((), jnp.int32), jnp.eye(n, dtype=bool), jnp.ones((), bool)
        return jax.lax.while_loop(lambda carry: carry[2], pass_on, begun)[0]

    def swap(self, edges: jax.Array) -> jax.Array:
        """Return the neighbor's value of every edge variable, [n, s, ...] -> [n, s, ...]."""
        if self.halo is None:
            return edges[self.sender, self.reverse]
        return self.halo.apply(_swapped, edges, self.reverse)


class Operator(Network):
    """The base of fixed operators; a subclass defines `_pull`, and overrides more for speed."""

    n: Any  # the number of agents
    k: Any  # the step, once `at` has set it
    symmetric: bool
    kind: Any = "doubly"
    linked: bool = False  # whether there is a table of `links`, for all rounds
    pushes: bool = True  # for columns that sum to 1: whether push-sum weights stay positive
    active: Any = None  # which agents are awake, [n] bool, or None for all
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

    @property
    def offers(self) -> frozenset[str]:  # type: ignore[override]
        """What every round can do; see `jaxdopt.roles`."""
        words = {"all"} if self.active is None else set()
        if self.repetitions == 1:
            words.add("hop")
        if self.kind == "row":
            return frozenset({*words, "pull"})
        if self.kind == "column":
            return frozenset({*words, "push"} if self.pushes else words)
        words |= {"mixing", "pull", "push", "push-pull"}
        if self.symmetric:
            words |= {"symmetric", "links"} if self.linked else {"symmetric"}
        return frozenset(words)

    def at(self, k: Any, key: jax.Array) -> Any:
        """Return round k's network: this operator, or a network of which it is the only part."""
        return self._as_round(replace(self, k=k))

    def _as_round(self, now: Any) -> Any:
        return {"row": RowOnly, "column": ColumnOnly}.get(self.kind, lambda now: now)(now)

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
        if self.kind == "column":
            raise Missing(lacks(self, "pull", "what asks for .row"))
        return self

    @property
    def column(self) -> Any:
        """The column-stochastic part: W itself, unless it is only row-stochastic."""
        if self.kind == "row":
            raise Missing(lacks(self, "push", "what asks for .column"))
        return self

    def require_linked(self) -> None:
        """Raise `Missing` where there is no table of links that holds for all rounds."""
        if not self.linked:
            raise Missing(lacks(self, "links", "what asks for .links"))

    @property
    def link_count(self) -> Any:
        """The number of directed links with a nonzero weight."""
        raise NotImplementedError

    @property
    def in_neighbors(self) -> tuple[jax.Array, jax.Array]:
        """Whom every agent hears, itself left out: senders [n, s], and which slots have one."""
        me = jnp.arange(self.n)
        present = (self.matrix() != 0) & (me[:, None] != me)
        return jnp.broadcast_to(me, (self.n, self.n)), present

    @property
    def diagonal(self) -> jax.Array:
        """The diagonal of W, [n]: the weight of every agent's own value."""
        return jnp.diagonal(self.matrix())

    def matrix(self) -> jax.Array:
        """Return W as a dense [n, n] array."""
        return self @ jnp.eye(self.n)

    @property
    def eigenvalues(self) -> np.ndarray:
        """All n eigenvalues of W by decreasing modulus, computed on the host; complex if needed."""
        return spectra.eigenvalues(self.csr().toarray(), self.symmetric)

    @property
    def spectral_gap(self) -> float:
        """1 − |λ₂|, λ₂ the eigenvalue of W of largest modulus besides the 1 of the mean."""
        return spectra.gap(self.eigenvalues)

    def csr(self) -> sp.csr_array:
        """Return W as a scipy.sparse matrix, on the host."""
        return sp.csr_array(np.asarray(self.matrix(), float))

    def _facts(self) -> dict[str, str]:
        doubly = "symmetric" if self.symmetric else "doubly stochastic"
        facts = {
            "agents": str(self.n),
            "weights": doubly if self.kind == "doubly" else f"{self.kind}-stochastic",
        }
        if self._stacked:
            facts = {"networks": str(len(jax.tree.leaves(self)[0])), **facts}
        elif self.n <= SMALL and not is_traced(self):
            facts["links"] = str(int(self.link_count))
            facts["spectral gap"] = f"{self.spectral_gap:.3g}"
        if self.k is not None:
            facts["round"] = _repr.brief(self.k)
        halo = getattr(self, "halo", None)
        if halo is not None:
            facts["devices"] = f"{halo.devices.count} (each receives {halo.received} rows)"
        return facts | {"memory": _repr.memory(self)}

    @property
    def cuttable(self) -> bool:
        """Whether W keeps its kind when links are cut, see `cut`."""
        return self.symmetric or self.kind != "doubly"

    def cut(self, keep: Keep) -> Any:
        """Return the network without the links that ``keep`` denies; see `Keep`.

        The weight of a cut link is added to the diagonal. Where W is symmetric, ``keep(i, j)`` has
        to be symmetric too.

        Raises:
            ValueError: W is doubly stochastic and not symmetric, so that cutting links would
                change the sums of its rows or columns.
        """
        require_cuttable(self)
        now = self._cut(keep)
        return replace(now, degree=self.links.degree) if self.linked else now

    def awake(self, active: jax.Array) -> Any:
        """Return the network with the agents where ``active`` [n] is true awake."""
        return replace(self, active=active)

    def _cut(self, keep: Keep) -> Any:
        raise NotImplementedError

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
            wide = wide_dtype(value.dtype)
            narrow = value.dtype if jnp.issubdtype(value.dtype, jnp.floating) else wide
            return apply(value.astype(wide)).astype(narrow)

        return jax.tree.map(leaf, x)


def _swapped(_: jax.Array, heard: jax.Array, places: Any, reverse: jax.Array) -> jax.Array:
    """Return the other ends' values of edge variables, for the rows of a device."""
    return heard[places[0], reverse]


def require_cuttable(network: Any) -> None:
    """Refuse a network whose links cannot be cut."""
    require_network(network)
    require(
        getattr(network, "cuttable", False),
        f"links of this {type(network).__name__} cannot be cut, as nothing would keep the sums of "
        "its weights; give a graph's symmetric weights, or jd.networks.push_pull(graph).",
    )
