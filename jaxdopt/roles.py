"""Roles: what a network offers, what a method needs of it, and which agents take part in a step.

``network.offers`` is a set of words that say what its rounds can do; ``method.needs`` is the set of
those that the method requires. A method fits a network that offers all that it needs. `check`
refuses any other pair before any work, in `run`, `sweep`, `compare` and in a bare ``init``.
Wrappers keep words or drop them.

==============  =================================================================================
word            what it promises
==============  =================================================================================
all             all agents take part in every round
mixing          ``network @ x`` = W x and ``network.laplacian(x)`` = (I − W) x, W doubly stochastic
symmetric       W = Wᵀ
links           ``network.links``, the same table in every round, though some links may be down
pull            ``network.row @ x`` = R x, rows of R sum to 1
push            ``network.column @ x`` = C x, columns of C sum to 1, its graph strongly connected
                with a positive diagonal (or C doubly stochastic): push-sum weights stay positive
push-pull       both, with a common root
hop             an exchange is one round of communication
tree            ``network.root``, and ``row`` and ``column`` along spanning trees
both ways       the two trees are the same
server          ``network.active`` [n] or ``network.clients`` [s]: which clients take part, or None
sum             the server adds up what its clients send, as they send it; one that does not has
                ``aggregate(rows, clients, taking_part)``, a rule in the place of their mean
returns         the same, and the staleness: ``fetched``, ``handed``, ``stale``, ``interval``
ticks           the server aggregates at fixed times
timeline        a run of completion events: ``agents``, ``sender``, ``age``, ``mix``
pairs           a run of pairwise meetings: ``agents``, ``partners``
==============  =================================================================================

"server or links" is offered with either: what each agent says can reach all others in a step, by
the server, or flooded over the graph.

Every network has ``n``, ``at(k, key)`` (round k's network, with ``k`` and ``time`` set), ``mean``,
``offers`` and, where known, ``horizon``, ``repetitions`` and ``link_count``. It has no attributes
for what it does not offer: asking for one raises `Missing`. A network that does not declare
``offers`` is taken to offer "mixing" and "all" if it has ``@``.

Problems declare nothing; what they have is what they offer. "finite sum" means ``grad_at`` and
``draw``; "values" means ``value``, for which a method asks in place of ``grad``; a "regularizer" is
a part of the objective that only methods with ``composite = True`` handle.

**Inactive agents.** Where a round of a network without a server has ``active`` [n], the agents that
are not active are asleep: `freeze` leaves their rows of the state unchanged, bit for bit. A leaf
whose first axis has length n belongs to the agents; `field` declares another axis, or none.
"""

import copy
import dataclasses
import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

T = TypeVar("T")

WORDS = {  # from the general to the special: the first that is missing is named
    "timeline": (
        "a timeline of agents that never wait",
        "jd.networks.timeline(network, steps=...), compute= and delay= being times",
    ),
    "pairs": (
        "the meetings of pairs of agents",
        "jd.networks.pairwise(network, steps=...), compute= and delay= being times",
    ),
    "returns": (
        "the times at which clients return to the server",
        "jd.networks.arrivals(n, rule='each', steps=...), or with buffer= or every=",
    ),
    "ticks": (
        "a server that aggregates at fixed ticks",
        "jd.networks.arrivals(n, every=<seconds>, steps=...), or take AsyncFedAvg",
    ),
    "server": (
        "a server with clients",
        "jd.networks.Server(n), or a pattern such as jd.networks.participation.uniform(n, size)",
    ),
    "server or links": (
        "a server, or links over which numbers are flooded",
        "jd.networks.Server(n), or jd.networks.metropolis(graph) of an undirected graph",
    ),
    "sum": (
        "the plain sum of what clients send",
        "jd.networks.Server(n), or a pattern such as jd.networks.participation.uniform(n, size), "
        "without jd.networks.robust",
    ),
    "tree": (
        "spanning trees",
        "jd.networks.spanning_tree(graph), or jd.networks.Tree(parent)",
    ),
    "both ways": (
        "one tree for both directions",
        "jd.networks.spanning_tree(graph) of an undirected graph, or jd.networks.Tree(parent)",
    ),
    "mixing": (
        "doubly stochastic weights in every round",
        "jd.networks.metropolis(graph), or jd.networks.mixing(W)",
    ),
    "push-pull": (
        "a row- and a column-stochastic part",
        "jd.networks.push_pull(graph), or jd.networks.metropolis(graph)",
    ),
    "push": (
        "column-stochastic weights of a strongly connected graph, with a positive diagonal",
        "jd.networks.column_stochastic(graph), or jd.networks.push_pull(graph)",
    ),
    "pull": (
        "row-stochastic weights",
        "jd.networks.row_stochastic(graph), or jd.networks.push_pull(graph)",
    ),
    "symmetric": (
        "a symmetric W",
        "jd.networks.metropolis(graph) of an undirected graph, or jd.networks.Complete(n)",
    ),
    "links": (
        "the same links both ways in every round, in a table of all neighbors",
        "jd.networks.metropolis(graph) of an undirected graph, or mixing(W, form=Dense)",
    ),
    "hop": (
        "exchanges of one round",
        "the network without Repeated or Chebyshev, such as jd.networks.push_pull(graph) or "
        "metropolis(graph)",
    ),
    "timeline of mixing": (
        "a timeline of doubly stochastic weights",
        "the jd.networks.timeline of metropolis(graph), or of mixing(W)",
    ),
    "timeline of symmetric": (
        "a timeline of symmetric weights",
        "the jd.networks.timeline of metropolis(graph), its graph undirected, or of Complete(n)",
    ),
    "timeline of push-pull": (
        "a timeline of weights whose rows and columns sum to 1",
        "the jd.networks.timeline of push_pull(graph), or of metropolis(graph)",
    ),
    "all": (
        "all agents in every round",
        "jd.networks.Server(n) or jd.networks.metropolis(graph), with all agents in all rounds",
    ),
}
PROBLEMS = ("finite sum", "values")


class Missing(AttributeError, ValueError):
    """A network was asked for what it does not offer; hasattr sees a missing attribute."""


class Network:
    """The base of all networks: it says what is missing where an attribute is asked for in vain."""

    offers: frozenset[str]
    _stacked: Any = False  # whether this is a stack of networks rather than one

    def __getattr__(self, name: str) -> Any:
        word = OF_ATTRIBUTE.get(name)
        if word is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        raise Missing(lacks(self, word, f"what asks for .{name}"))


OF_ATTRIBUTE = {
    **dict.fromkeys(("laplacian", "matrix", "csr", "cut", "eigenvalues", "spectral_gap"), "mixing"),
    "row": "pull",
    "column": "push",
    "links": "links",
    "root": "tree",
    "in_neighbors": "pull",
    "stale": "returns",
    "fetched": "returns",
    "partners": "pairs",
    "age": "timeline",
}


def lacks(network: Any, word: str, who: str) -> str:
    """Return the sentence that ``who`` needs a word that the network lacks, and which ones do."""
    what, remedy = WORDS[word]
    kind, name = getattr(network, "kind", None), type(network).__name__
    sums = f"{kind}-stochastic " if kind in ("row", "column") else ""
    room = "participation." if ".participation." in type(network).__module__ else ""
    return f"{who} needs {what} and this {sums}{room}{name} does not offer that; give {remedy}."


def offers(network: Any) -> frozenset[str]:
    """Return the words that a network offers; one that declares none mixes if it has ``@``."""
    declared = getattr(network, "offers", None)
    if declared is not None:
        either = set() if {"server", "links"}.isdisjoint(declared) else {"server or links"}
        return frozenset({*declared, *either})
    mixes = hasattr(type(network), "__matmul__")
    return frozenset({"mixing", "all"}) if mixes else frozenset()


def check(method: Any, network: Any, problem: Any) -> None:
    """Refuse a method on a network or a problem that does not offer what it needs.

    Raises:
        ValueError: a sentence that names the method, what it needs, and what to give.
    """
    name, needs = type(method).__name__, set(getattr(method, "needs", ()))
    unknown = sorted(needs - {*WORDS, *PROBLEMS})
    if unknown:
        raise ValueError(
            f"{name} needs {unknown[0]!r}, which is no role; give some of {', '.join(WORDS)} or "
            f"{', '.join(PROBLEMS)}."
        )
    missing = needs - offers(network)
    for word in WORDS:
        if word in missing:
            raise ValueError(lacks(network, word, name))
    if "finite sum" in needs and not (hasattr(problem, "grad_at") and hasattr(problem, "draw")):
        raise ValueError(
            f"{name} draws its samples itself and a {type(problem).__name__} has no samples to "
            "draw from; give a finite sum such as jd.problems.logistic_regression(...), or "
            "Minibatch of one."
        )
    kind = type(problem).__name__
    if "values" in needs and not hasattr(problem, "value"):
        raise ValueError(
            f"{name} asks for values and a {kind} has none; give a finite sum such as "
            "jd.problems.logistic_regression(...), or jd.problems.BlackBox(function, data, params)."
        )
    if "values" not in needs and hasattr(problem, "value") and not hasattr(problem, "grad"):
        raise ValueError(
            f"{name} asks for gradients and a {kind} has values alone; give "
            "jd.problems.ZerothOrder(problem), whose gradients are differences of values, or take "
            "a method that asks for values, such as FedZO."
        )
    regularizer = getattr(problem, "regularizer", None)
    if regularizer is not None and not getattr(method, "composite", False):
        raise ValueError(
            f"{name} ignores the regularizer {type(regularizer).__name__}; take a composite method "
            "such as PGEXTRA or NIDS, or the problem without it."
        )


def awake(network: Any) -> Any:
    """Return which agents are awake in a round's network, [n] bool, or None if none is asleep.

    In a server's rounds no client is asleep: the methods themselves use who takes part.
    """
    active = getattr(network, "active", None)
    if active is None or not offers(network).isdisjoint({"server", "returns"}):
        return None
    return active


def honest(network: Any) -> np.ndarray | None:
    """Return which agents of a network never lie, [n] bool, or None where nobody lies."""
    mask = getattr(network, "honest", None)
    return None if mask is None or np.all(mask) else np.asarray(mask)


def freeze(network: Any, old: T, new: T) -> T:
    """Return the new state after a step in a network, with the old rows of those who sleep."""
    active = awake(network)
    return new if active is None else _keep(active, old, new, 0)


def _keep(active: jax.Array, old: Any, new: Any, axis: int | None) -> Any:
    if axis is None or old is None:
        return new
    if dataclasses.is_dataclass(new) and not isinstance(new, type):
        changed = object.__new__(type(new))
        for name, value in vars(new).items():
            object.__setattr__(changed, name, value)
        for field in dataclasses.fields(new):
            if not field.metadata.get("static"):
                own = field.metadata.get("axis", axis)
                kept = _keep(active, getattr(old, field.name), getattr(new, field.name), own)
                object.__setattr__(changed, field.name, kept)
        return changed

    def leaf(before: Any, after: Any) -> Any:
        shape = np.shape(after)
        if len(shape) <= axis or shape[axis] != active.shape[0]:
            return after
        mask = active.reshape((1,) * axis + (-1,) + (1,) * (len(shape) - axis - 1))
        return jnp.where(mask, after, before)

    return jax.tree.map(leaf, old, new)


def rows_of(state: T, agents: Any, n: int) -> T:
    """Return a state that has the rows of some of n agents alone.

    Args:
        state: a method's, whose arrays are told apart as for those who sleep. A field that is the
            agents' although it changes in their sleep has "rows" in its metadata, their axis.
        agents: whose rows, [h] int.
        n: the number of all agents.
    """

    def of(value: Any, axis: int) -> Any:
        if not dataclasses.is_dataclass(value):
            return jax.tree.map(lambda part: leaf_or(part, axis), value, is_leaf=_is_dataclass)
        changed = copy.copy(value)
        for field in dataclasses.fields(value):
            if not field.metadata.get("static"):
                own = field.metadata.get("rows", field.metadata.get("axis", axis))
                inner = getattr(value, field.name)
                object.__setattr__(changed, field.name, inner if own is None else of(inner, own))
        return changed

    def leaf_or(part: Any, axis: int) -> Any:
        if _is_dataclass(part):
            return of(part, axis)
        shape = np.shape(part)
        there = len(shape) > axis and shape[axis] == n
        return jnp.take(part, agents, axis=axis) if there else part

    return of(state, 0)


def _is_dataclass(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def play(method: type, distinct: Callable[[Any, Any], Any]) -> None:
    """Make a method's ``init`` check its role, and its ``step`` leave sleeping agents unchanged.

    What ``init`` returns is made ``distinct``: no two of its arrays share memory with each other or
    with an argument, so that states can be donated.
    """
    if "init" in method.__dict__:
        start = method.__dict__["init"]

        @functools.wraps(start)
        def init(self: Any, x0: Any, problem: Any, network: Any, key: Any) -> Any:
            check(self, network, problem)
            if np.ndim(x0) != 2:  # a pytree has no shape at all
                raise ValueError(
                    f"x0 is {_described(x0)}; give estimates [n, d], such as problem.start()."
                )
            state = start(self, x0, problem, network, key)
            return distinct(state, (self, x0, problem, network))

        method.init = init  # type: ignore[attr-defined]
    if "step" in method.__dict__:
        move = method.__dict__["step"]

        @functools.wraps(move)
        def step(self: Any, state: Any, problem: Any, network: Any, key: Any) -> Any:
            return freeze(network, state, move(self, state, problem, network, key))

        method.step = step  # type: ignore[attr-defined]


def _described(x0: Any) -> str:
    shape = getattr(x0, "shape", None)
    return f"a {type(x0).__name__}" if shape is None else f"an array of shape {shape}"


def require_told_apart(method: Any, network: Any, state: Any) -> None:
    """Refuse a network's sleeping agents in a user's method whose state cannot tell n from d."""
    x = jax.tree.leaves(state.x)[0]
    square = np.shape(x)[1:2] == np.shape(x)[:1]
    if awake(network) is not None and square and not hasattr(method, "needs"):
        raise ValueError(
            f"{type(method).__name__} does not say which axis of its state is the agents', and n = "
            f"d = {x.shape[0]}; declare needs = {{...}} on the class, and fields whose first axis "
            "is not the agents' as jd.field(axis=...)."
        )
