"""Axes of histories: what a step adds to each, whether steps add up, and how totals are read."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdopt import roles
from jaxdopt._checks import require
from jaxdopt._leaves import is_traced
from jaxdopt._wrapper import layers, wrapped
from jaxdopt.costs.counts import Cost, cost_of, samples, taking_part


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
        _, mask = taking_part(self.network) or (None, True)
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
    index, mask = taking_part(network) or (None, True)
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
