"""Simulated seconds of rounds: all wait for the slowest gradient and the slowest message.

A round in which every agent that takes part calls for c gradients takes

    maxᵢ c tᵢ + exchanges · max d + b / w   or, if messages travel under m steps,   max(·, · / m)

seconds, where tᵢ is the compute time of agent i in that round, the same for all its calls, d the
delay over a link that is up, b the bits that it sends over a link and w the link's bandwidth. With
a server a round takes maxᵢ (2 dᵢ + 2 b / w + c tᵢ), as client i waits for a message down and one
up, of b bits in the mean; the server itself is as fast as all its links. Messages that have
travelled under earlier gradients, h of them, take only what these have not hidden. By default a
gradient takes one second and messages take none, and bandwidths are infinite.

The history has an axis ``utilization``: the share of the time so far in which the average agent has
computed, rather than waited.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxdopt._checks import require
from jaxdopt._leaves import is_traced
from jaxdopt._numbers import number
from jaxdopt._pytree import pytree, replace
from jaxdopt._wrapper import layers, rewrap, wrapped
from jaxdopt.costs import AXES, Axis, Step
from jaxdopt.networks.checks import require_network
from jaxdopt.networks.events import durations
from jaxdopt.networks.events.schedule import Schedule
from jaxdopt.networks.operators.circulant import Circulant
from jaxdopt.networks.operators.complete import Complete
from jaxdopt.networks.operators.dense import Dense
from jaxdopt.networks.operators.sparse import Neighbors, Pushes
from jaxdopt.networks.parts import Parts
from jaxdopt.networks.server import Server
from jaxdopt.networks.trees import FromParent, ToParent
from jaxdopt.networks.wrapper import Wrapper


def _busy(step: Step) -> Any:
    """Return the seconds of a step in which the average agent computes, and all of them."""
    busy = step.network.busy(step.calls)
    return jnp.stack([jnp.asarray(part, jnp.float32) for part in (busy, _lasts(step))])


def _lasts(step: Step) -> Any:
    return AXES["seconds"].increment(step)


def _utilization(totals: Any) -> Any:
    xp = jnp if is_traced(totals) else np
    busy, lasts = totals[..., 0], totals[..., 1]
    return xp.where(lasts > 0, busy / xp.where(lasts > 0, lasts, 1), 1)


@pytree
class Timed(Wrapper):
    """A network whose rounds take simulated seconds: see `timed`, which builds it.

    Args:
        network: any network of rounds.
        compute: a model of the seconds of a gradient, from `jaxdopt.networks.durations`.
        delay: a model of the seconds of a message.
        bandwidth: bits a second over a link; None if it is infinite.
        key: the run's; set by ``at``.
        k: the round's number; set by ``at``.
    """

    network: Any
    compute: Any
    delay: Any
    bandwidth: Any = None
    key: Any = None
    k: Any = None
    axes: ClassVar = {"utilization": Axis(_busy, read=_utilization)}

    def at(self, k: Any, key: jax.Array) -> "Timed":
        """Return round k's network."""
        return replace(rewrap(self, self.network.at(k, key)), k=k, key=key)

    def seconds(
        self, calls: Any, exchanges: Any, overlap: Any, bits: Any = 0, hidden: Any = 0
    ) -> Any:
        """Return the seconds that a step of this round takes.

        Args:
            calls: gradients that every agent takes one after the other, a number or [n].
            exchanges: rounds of communication.
            overlap: the number of steps during whose gradients messages travel, 0 if agents wait
                for them.
            bits: of an agent that takes part, over one of its links.
            hidden: gradients before this step under which its messages have travelled.
        """
        who, there = self._working
        each = _at(self._model("compute"), self.k, who, who)
        work = _of(calls, who) * each
        across = 0 if self.bandwidth is None else bits / self.bandwidth
        delay = self._model("delay")
        rounds = getattr(self.network, "repetitions", 1)
        if isinstance(self.network, Server):
            slowest = _at(delay, self.k, jnp.full_like(who, self.n), who)
            travel = 2 * (exchanges * slowest + across)
        else:
            travel = rounds * (exchanges * _longest(self.network, delay, self.k) + across)
        lasts = work + jnp.maximum(travel - hidden * each, 0)
        if is_traced(overlap) or overlap > 0:
            under = jnp.maximum(work, travel / jnp.maximum(overlap, 1))
            lasts = jnp.where(overlap > 0, under, lasts)
        return _slowest(lasts, there)

    def busy(self, calls: Any) -> Any:
        """Return the seconds of this round in which the average of all agents computes."""
        who, there = self._working
        work = _of(calls, who) * _at(self._model("compute"), self.k, who, who)
        work = jnp.broadcast_to(work, who.shape)
        return jnp.sum(work if there is None else jnp.where(there, work, 0)) / self.n

    @property
    def _working(self) -> tuple[jax.Array, Any]:
        """The agents who may take part, and which of them do; None for all."""
        clients = getattr(self.network, "clients", None)
        if clients is not None:  # few: their times alone are drawn
            return clients, clients < self.n
        return jnp.arange(self.n), getattr(self.network, "active", None)

    def _model(self, which: str) -> tuple[Any, jax.Array]:
        require(
            self.key is not None,
            "this network's times are drawn round by round; take network.at(k, key).",
        )
        constant = {"compute": durations.COMPUTE, "delay": durations.DELAY}[which]
        return getattr(self, which), jax.random.fold_in(self.key, constant)


def timed(network: Any, *, compute: Any = 1.0, delay: Any = 0.0, bandwidth: Any = None) -> Timed:
    """Return the network with simulated ``seconds`` for its rounds, as `jd.run` records them.

    The same key and times give an agent's m-th gradient the same seconds as in
    `jd.networks.timeline`.

    Args:
        network: fixed or varying, directed, a tree, a server or a pattern of participation. Other
            wrappers go inside, as in timed(Repeated(network, 2)).
        compute: seconds a gradient: a number, [n] or a model of `jd.networks.durations`.
        delay: seconds a message over a link: a number, [n] of the senders, [n, n] or a model.
        bandwidth: bits a second over each link, so that large messages take longer; a leaf, so that
            it is swept. By default it does not matter.

    Raises:
        ValueError: a bandwidth that is not positive, times of another n, or times that are
            infinite, as rounds would never end; a network that has simulated times of its own, such
            as a timeline.

    Example:
        >>> import jaxdopt as jd
        >>> ring = timed(jd.networks.metropolis(jd.graphs.ring(4)), compute=[1, 1, 1, 5], delay=0.5)
        >>> now = ring.at(0, jax.random.key(0))
        >>> float(now.seconds(calls=1, exchanges=2, overlap=0))
        6.0
    """
    require_network(network)
    compute, delay = durations.models(compute, delay, network.n)
    for name, model in (("compute", compute), ("delay", delay)):
        require(
            not durations.forever(model),
            f"{name} is infinite for some, and a synchronous round would wait forever; give "
            "finite times, and lose messages with jd.networks.RandomLinks.",
        )
    require(
        not any(isinstance(layer, Timed | Schedule) for layer in layers(network)),
        f"the {type(network).__name__} has times of its own; give the network it is made of, or "
        "these times where it is made.",
    )
    if bandwidth is not None:
        bandwidth = number("bandwidth", bandwidth, above=0.0)
    return Timed(network, compute, delay, bandwidth)


def _of(calls: Any, who: jax.Array) -> Any:
    return jnp.ravel(calls)[who] if jnp.ndim(calls) else calls


def _at(timing: Any, k: Any, receiver: Any, sender: Any) -> Any:
    model, key = timing
    return model.at(k, key, receiver, sender)


def _slowest(lasts: Any, who: Any) -> Any:
    """Return the longest of those where ``who`` is true, 0 if there are none; None means all."""
    if who is None:
        return lasts if jnp.ndim(lasts) == 0 else jnp.max(lasts)
    return jnp.max(jnp.where(who, lasts, 0), initial=0)


def _longest(network: Any, delay: Any, k: Any) -> Any:
    """Return the longest delay over the links that are up."""
    model, _ = delay
    if isinstance(model, durations.Fixed) and jnp.ndim(model.seconds) == 0:
        return model.seconds  # the same for all: there is nothing to draw
    longest = [_slowest(_at(delay, k, i, j), up) for i, j, up in _links(network)]
    return jnp.max(jnp.stack(longest))


def _links(network: Any) -> list[tuple[Any, Any, Any]]:
    """Return a network's links as arrays of receivers, senders and whether they are up."""
    if isinstance(network, Parts):
        return [link for part in network.parts.values() for link in _links(part)]
    me = jnp.arange(network.n)
    if isinstance(network, Dense | Complete):
        i, j = me[:, None], me[None, :]
        weights = network.matrix()
        i, j = jnp.broadcast_arrays(i, j)
        return [(i, j, (weights != 0) & (i != j))]
    if isinstance(network, Circulant):
        sender = (me[:, None] + jnp.array(network.offsets, int)) % network.n
        return [(jnp.broadcast_to(me[:, None], sender.shape), sender, network.weights != 0)]
    if isinstance(network, Neighbors | Pushes):
        tables = [(me, network.index, network.weights), *network.tiers]
        return [(jnp.broadcast_to(i[:, None], j.shape), j, w != 0) for i, j, w in tables]
    if isinstance(network, FromParent | ToParent):
        up = network.parent != me
        down = isinstance(network, FromParent)
        return [(me, network.parent, up) if down else (network.parent, me, up)]
    within = wrapped(network)
    require(
        within is not None and not within.varies,
        f"the links of a {type(network).__name__} are not known in every round; give one delay "
        "for all, a number.",
    )
    return _links(within)
