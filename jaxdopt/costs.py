"""What a step costs: the axes against which papers draw their curves.

A method says what it sends in class variables, and `cost_of` knows the rest from its fields and
from what it needs:

==============  =================================================================================
``vectors``     vectors that an agent sends over one of its links in a step, 1 by default,
                compressed if the method has a ``compressor``; for a client of a server, half of
                those that go down and up
``numbers``     single numbers sent beside them, 0 by default
``exchanges``   rounds of communication, 1 by default
``gradients``   calls for a gradient, 1 by default; times ``local_steps`` if the method has them
``downlink``    the compressor of what comes back from a server, None if it is whole; by default
                the same as ``compressor``
``overlap``     steps under whose gradients the messages travel, 0 (they are waited for) by default
==============  =================================================================================

One call is the problem's ``samples`` component gradients, or its ``batch`` if the method draws its
samples itself. Where only some clients or agents take part in a step, all is the average agent's;
where some lie (`jaxdopt.networks.robust`), the average honest agent's. A method whose costs vary in
other ways has a method ``cost(state, problem, network)`` that returns a `Cost`.

**Axes are open.** An `Axis` is what a step adds to it, whether steps add up or the largest counts,
and how the total is read. A method, a problem, a network or a wrapper of one adds its own as an
attribute ``axes``, {name: `Axis`}; `jd.run` records them beside those of this module.

Example:
    >>> import jaxdopt as jd
    >>> class Asking(jd.DGD):
    ...     axes = {"queries": jd.Axis(lambda step: 2 * step.problem.d)}
    >>> problem = jd.problems.quadratic(4, 3)
    >>> setting = problem, jd.networks.metropolis(jd.graphs.ring(4)), problem.start()
    >>> jd.run(Asking(0.1), *setting, jax.random.key(0), steps=2).history["queries"].tolist()
    [0.0, 6.0, 12.0]
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdopt import roles
from jaxdopt._checks import require
from jaxdopt._leaves import is_traced
from jaxdopt._pytree import pytree
from jaxdopt._wrapper import layers, wrapped
from jaxdopt.compressors import FLOAT


@pytree
class Cost:
    """The cost of one step, an agent's unless said otherwise.

    Where only some take part, all are the average agent's. ``calls`` and ``overlap`` are for
    simulated time.

    Args:
        gradients: component gradients.
        exchanges: rounds of communication.
        vectors: vectors that an agent sends over one of its links.
        bits: bits that it sends there.
        links: directed links that they take; by default the network's.
        calls: how often an agent that takes part calls for a gradient, one call after the other; by
            default ``gradients`` over the problem's ``samples``.
        overlap: the steps, this one and those that follow, under whose gradients messages travel; 0
            if they are waited for.
        up: bits that a client sends to the server, where they differ from what it gets; ``bits``
            is then the mean.
        down: bits that it gets.
        hidden: calls for a gradient before this step, under which the messages of this step have
            travelled, 0 if none.
    """

    gradients: Any
    exchanges: Any
    vectors: Any
    bits: Any
    links: Any = None
    calls: Any = None
    overlap: Any = 0
    up: Any = None
    down: Any = None
    hidden: Any = 0


def samples(problem: Any) -> Any:
    """Return the component gradients that one gradient of the problem costs an agent."""
    return getattr(problem, "samples", 1)


def vector_bits(x: jax.Array) -> int:
    """Return the bits of one agent's row of ``x`` [n, d]: 32 a number, as what is sent is.

    A simulation in float64 counts the same, and compares with compressed messages; one in 16 bits
    sends 16.
    """
    return x[0].size * min(FLOAT, jnp.finfo(x.dtype).bits)


def cost_of(method: Any, state: Any, problem: Any, network: Any) -> Cost:
    """Return the cost of a step: the method's own ``cost``, or what its class variables say.

    Args:
        method: with the class variables of this module, or none.
        state: with ``x``, after the step.
        problem: whose gradients are taken.
        network: the round's.
    """
    if hasattr(method, "cost"):
        return method.cost(state, problem, network)
    return counted(method, state, problem, network)


def counted(method: Any, state: Any, problem: Any, network: Any) -> Cost:
    """Return the cost of a step as the method's class variables say, for ``cost`` to change.

    The arguments are those of ``method.cost``: the state after the step, the problem, the network.
    """
    vectors, numbers, exchanges, calls = (
        getattr(method, name, default)
        for name, default in (("vectors", 1), ("numbers", 0), ("exchanges", 1), ("gradients", 1))
    )
    needs = getattr(method, "needs", ())
    local = getattr(method, "local_steps", None)
    calls = calls if local is None else calls * local
    share, average = _participation(method, network, calls)
    gradients = average * (
        getattr(problem, "batch", 1) if "finite sum" in needs else samples(problem)
    )
    ways = [getattr(method, "compressor", None)]
    if hasattr(method, "downlink"):
        ways.append(method.downlink)
    bits = [share * (vectors * _message_bits(way, state.x) + numbers * FLOAT) for way in ways]
    waited = 1 if {"timeline", "pairs"}.isdisjoint(needs) else share  # of a round of all agents
    return Cost(
        gradients,
        waited * exchanges,
        share * vectors,
        sum(bits) / len(bits),
        calls=None if local is None else calls,
        overlap=getattr(method, "overlap", 0),
        up=bits[0] if len(bits) > 1 else None,
        down=bits[-1] if len(bits) > 1 else None,
    )


def told_to_all(network: Any, bits: int) -> dict[str, Any]:
    """Return exchanges and bits of numbers of so many bits, one an agent, that reach all in a step.

    A client sends its own to the server and gets all n. On a graph they are flooded: all pass on
    over all their links what they hear for the first time, n numbers over a link in as many rounds
    as the diameter.

    Args:
        network: the round's, with a server or links.
        bits: of a number.
    """
    if "server" in roles.offers(network):
        up, down = bits, network.n * bits
        return {"exchanges": 1, "bits": (up + down) / 2, "up": up, "down": down}
    return {"exchanges": network.links.diameter(), "bits": network.n * bits}


def _message_bits(compressor: Any, x: Any) -> int:
    """Return the bits of one agent's row of ``x``, compressed if there is a compressor."""
    size = vector_bits if compressor is None else lambda leaf: compressor.bits(leaf.shape[1])
    return sum(size(leaf) for leaf in jax.tree.leaves(x))


def _participation(method: Any, network: Any, calls: Any) -> tuple[Any, Any]:
    """Return the share of agents that take part in a step, and the calls of the average agent."""
    needs = set(getattr(method, "needs", ()))
    if not needs.isdisjoint({"timeline", "pairs"}):
        return network.share, network.share * calls
    of_server = not needs.isdisjoint({"server", "returns"})
    index, mask = (_taking_part(network) if of_server else None) or (None, True)
    honest, count = roles.honest(network), network.n
    if honest is not None:
        count = np.sum(honest)
        honest = jnp.asarray(honest)
        honest = honest if index is None else honest.at[index].get(mode="fill", fill_value=False)
    share = 1 if mask is True else jnp.sum(_both(mask, honest)) / count
    own: Any = getattr(method, "own_steps", None)
    own = own(network) if callable(own) else own
    if own is None:
        return share, share * calls
    own = jnp.broadcast_to(own, (network.n, 1))[:, 0]
    own = own if index is None else own.at[index].get(mode="clip")
    return share, jnp.sum(jnp.where(_both(mask, honest), own, 0)) / count


def _both(mask: Any, honest: Any) -> Any:
    if honest is None:
        return mask
    return honest if mask is True else mask & honest


def _taking_part(network: Any) -> tuple[Any, Any] | None:
    """Return the numbers of those who may take part and a mask of those who do; None for all."""
    clients = getattr(network, "clients", None)
    if clients is not None:
        return clients, clients < network.n
    active = getattr(network, "active", None)
    return None if active is None else (None, active)


class Step(NamedTuple):
    """All that an axis may look at: the step that has just been taken.

    Attributes:
        method: with its schedules' values of this step.
        state: after the step.
        problem: the run's.
        network: the round's.
        cost: what the step cost, a `Cost`.
    """

    method: Any
    state: Any
    problem: Any
    network: Any
    cost: Cost

    @property
    def calls(self) -> Any:
        """The calls for a gradient, one after the other, of an agent that takes part."""
        cost = self.cost
        return cost.gradients / samples(self.problem) if cost.calls is None else cost.calls

    @property
    def share(self) -> Any:
        """The share of agents that take part; of none, one agent's."""
        _, mask = _taking_part(self.network) or (None, True)
        if mask is True:
            return 1
        n = self.network.n
        return jnp.maximum(jnp.sum(mask, dtype=jnp.float32), 1) / n

    @property
    def rounds(self) -> Any:
        """The rounds of communication that one exchange takes."""
        return getattr(self.network, "repetitions", 1)

    @property
    def awake_share(self) -> Any:
        """The share of agents that are awake: those who sleep count nothing."""
        awake = roles.awake(self.network)
        honest = roles.honest(self.network)
        if awake is not None and honest is not None:
            awake = awake[np.flatnonzero(honest)]
        return 1 if awake is None else jnp.mean(awake, dtype=jnp.float32)


@dataclasses.dataclass(frozen=True)
class Axis:
    """One axis of a history.

    Args:
        increment: of a `Step`: what the step adds, a number of at least 0 or an array of such; None
            if the axis has no meaning here. Traced: it must not branch on values.
        over: "sum" if steps add up, "maximum" if the largest step counts.
        read: what is shown of the totals, [..., *shape of the increment] -> [...]; the totals
            themselves by default. So a quantity that does not add up, such as a privacy loss, is
            read off sums that do. It gets NumPy arrays, or traced ones inside a transformation.
    """

    increment: Callable[[Step], Any]
    over: Literal["sum", "maximum"] = "sum"
    read: Callable[[Any], Any] | None = None

    def __post_init__(self) -> None:
        """Refuse a rule that there is not."""
        require(self.over in ("sum", "maximum"), f"over is {self.over!r}; give 'sum' or 'maximum'.")

    def total(self, increments: Any, axis: int) -> Any:
        """Return the totals along the axis of records, and read them."""
        traced = is_traced(increments)
        if not traced:
            increments = np.asarray(increments, np.float64)
        if self.over == "sum":
            totals = (jnp if traced else np).cumsum(increments, axis=axis)
        elif traced:
            totals = jax.lax.cummax(increments, axis=axis % increments.ndim)
        else:
            totals = np.maximum.accumulate(increments, axis=axis)
        return totals if self.read is None else self.read(totals)


def _seconds(step: Step) -> Any:
    cost, network = step.cost, step.network
    calls = step.calls
    if hasattr(network, "seconds"):
        bits = cost.bits / step.share if getattr(network, "bandwidth", None) is not None else 0
        return network.seconds(calls, cost.exchanges, cost.overlap, bits, cost.hidden)
    require(
        not any(hasattr(layer, "seconds") for layer in layers(network)),
        f"jd.networks.timed is inside a {type(network).__name__}, which does not tell its times; "
        "put it outside, around the whole network.",
    )
    index, mask = _taking_part(network) or (None, True)
    if jnp.ndim(calls):
        calls = jnp.ravel(calls) if index is None else jnp.ravel(calls).at[index].get(mode="clip")
    elif mask is True:
        return calls
    return jnp.max(jnp.where(mask, calls, 0), initial=0)  # all wait for the slowest


def _traffic(step: Step) -> Any:
    links = step.cost.links
    links = getattr(step.network, "link_count", None) if links is None else links
    if links is None:
        return None
    return jnp.asarray(step.cost.bits * step.rounds, jnp.float32) * jnp.asarray(links, jnp.float32)


def _tokens(step: Step) -> Any:
    each = getattr(step.problem, "tokens", None)
    return None if each is None else step.problem.n * AXES["gradients"].increment(step) * each


def _epochs(step: Step) -> Any:
    size = getattr(step.problem, "size", None)
    if size is None:
        return None
    gradients = jnp.asarray(AXES["gradients"].increment(step), jnp.float32)
    return gradients / jnp.asarray(size, jnp.float32)


AXES: Mapping[str, Axis] = {
    "epochs": Axis(_epochs),
    "gradients": Axis(lambda step: step.awake_share * step.cost.gradients),
    "tokens": Axis(_tokens),
    "rounds": Axis(lambda step: step.rounds * step.cost.exchanges),
    "vectors": Axis(lambda step: step.awake_share * (step.rounds * step.cost.vectors)),
    "bits": Axis(lambda step: step.awake_share * (step.rounds * step.cost.bits)),
    "traffic": Axis(_traffic),  # whose links are cut where agents sleep
    "seconds": Axis(_seconds),
}
"""The axes that every run has: passes over an agent's data, component gradients an agent, the
tokens of all agents together where the problem says how many a sample has, rounds of communication,
vectors and bits over one link of an agent, bits over all links together, and simulated seconds: a
gradient takes one and messages none, unless the network tells the time."""


def _of_link(direction: str) -> Axis:
    def increment(step: Step) -> Any:
        own = getattr(step.cost, direction)
        return step.awake_share * (step.rounds * (step.cost.bits if own is None else own))

    return Axis(increment)


LINK_AXES: Mapping[str, Axis] = {"bits_up": _of_link("up"), "bits_down": _of_link("down")}
"""The average client's bits to its server and from it: axes of methods with a ``downlink``, and of
others that say so in their ``axes``."""


def _queries(step: Step) -> Any:
    each = samples(step.problem) / getattr(step.problem, "queries", 1)
    return step.awake_share * (step.cost.gradients / each)


QUERY_AXES: Mapping[str, Axis] = {"queries": Axis(_queries)}
"""The points at which the average agent asks for a value, whatever the batch, for the ``axes`` of
`jd.problems.ZerothOrder` and of methods that ask for values: their ``gradients`` are values of
samples."""


def axes_of(method: Any, problem: Any, network: Any) -> dict[str, Axis]:
    """Return all axes of a run by name: those of every run, and what its parts add.

    The parts are the method, the problem and the network. A method with a ``downlink`` has
    `LINK_AXES`.

    Raises:
        ValueError: two axes of one name, or one that is no `Axis`.
    """
    found = dict(AXES) | dict(LINK_AXES if hasattr(method, "downlink") else {})
    parts = [part for given in (method, problem, network) for part in layers(given)]
    for part in parts:
        who = type(part).__name__
        own = wrapped(part) is None or hasattr(type(part), "axes")  # and not passed on
        for name, axis in (getattr(part, "axes", {}) if own else {}).items():
            require(
                found.get(name, axis) is axis and name != "step",
                f"the axis {name!r} of {who} is there already; give it another name.",
            )
            require(
                isinstance(axis, Axis),
                f"the axis {name!r} of {who} is {axis!r}; give jd.Axis(increment).",
            )
            found[name] = axis
    return found


def increments(
    axes: Mapping[str, Axis],
    method: Any,
    state: Any,
    problem: Any,
    network: Any,
    judged: Any = None,
) -> dict[str, jax.Array]:
    """Return what a step of a method adds to all axes that have a meaning in it, in float32.

    ``state`` is the one after the step, and the network the round's of a run on the problem, of
    which ``judged`` is the honest agents' part where some lie.
    """
    part = judged if hasattr(judged, "samples") else problem
    whole = problem if hasattr(method, "cost") else part  # whose own may have an entry an agent
    step = Step(method, state, part, network, cost_of(method, state, whole, network))
    found = {name: axis.increment(step) for name, axis in axes.items()}
    return {n: jnp.asarray(v, jnp.float32) for n, v in found.items() if v is not None}
