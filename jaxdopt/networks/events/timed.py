"""Simulated seconds of rounds: all wait for the slowest gradient and the slowest message.

A round in which every agent that takes part calls for c gradients takes

    maxᵢ c tᵢ + exchanges · max d       or, if messages travel under m steps,   max(·, · / m)

seconds, where tᵢ is the compute time of agent i in that round, the same for all its calls, and d
the delay over a link that is up. With a server a round takes maxᵢ (2 dᵢ + c tᵢ), as client i waits
for a message down and one up. By default a gradient takes one second and messages take none.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxdopt._checks import require
from jaxdopt._leaves import is_traced
from jaxdopt._pytree import pytree, replace
from jaxdopt._wrapper import layers, rewrap, wrapped
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


@pytree
class Timed(Wrapper):
    """A network whose rounds take simulated seconds: see `timed`, which builds it.

    Args:
        network: any network of rounds.
        compute: a model of the seconds of a gradient, from `jaxdopt.networks.durations`.
        delay: a model of the seconds of a message.
        key: the run's; set by ``at``.
        k: the round's number; set by ``at``.
    """

    network: Any
    compute: Any
    delay: Any
    key: Any = None
    k: Any = None

    def at(self, k: Any, key: jax.Array) -> "Timed":
        """Return round k's network."""
        return replace(rewrap(self, self.network.at(k, key)), k=k, key=key)

    def seconds(self, calls: Any, exchanges: Any, overlap: Any) -> Any:
        """Return the seconds that a step of this round takes.

        Args:
            calls: gradients that every agent takes one after the other, a number or [n].
            exchanges: rounds of communication.
            overlap: the number of steps during whose gradients messages travel, 0 if agents wait
                for them.
        """
        require(
            self.key is not None,
            "this network's times are drawn round by round; take network.at(k, key).",
        )
        compute, delay = (
            (model, jax.random.fold_in(self.key, constant))
            for model, constant in (
                (self.compute, durations.COMPUTE),
                (self.delay, durations.DELAY),
            )
        )
        return _seconds(self.network, compute, delay, self.k, calls, exchanges, overlap)


def timed(network: Any, *, compute: Any = 1.0, delay: Any = 0.0) -> Timed:
    """Return the network with simulated ``seconds`` for its rounds, as `jd.run` records them.

    The same key and times give an agent's m-th gradient the same seconds as in
    `jd.networks.timeline`.

    Args:
        network: fixed or varying, directed, a tree, a server or a pattern of participation. Other
            wrappers go inside, as in timed(Repeated(network, 2)).
        compute: seconds a gradient: a number, [n] or a model of `jd.networks.durations`.
        delay: seconds a message over a link: a number, [n] of the senders, [n, n] or a model.

    Raises:
        ValueError: times of another n, or times that are infinite, as rounds would never end; a
            network that has simulated times of its own, such as a timeline.

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
    return Timed(network, compute, delay)


def _seconds(
    network: Any, compute: Any, delay: Any, k: Any, calls: Any, exchanges: Any, overlap: Any
) -> Any:
    """Return the seconds of a round; ``compute`` and ``delay`` are models with a key each."""
    who, taking_part = jnp.arange(network.n), getattr(network, "active", None)
    clients = getattr(network, "clients", None)
    if clients is not None:  # few: their times alone are drawn
        who, taking_part = clients, clients < network.n
    work = (jnp.ravel(calls)[who] if jnp.ndim(calls) else calls) * _at(compute, k, who, who)
    if isinstance(network, Server):
        travel = 2 * exchanges * _at(delay, k, jnp.full_like(who, network.n), who)
    else:
        rounds = getattr(network, "repetitions", 1)
        travel = exchanges * rounds * _longest(network, delay, k)
    lasts = work + travel
    if is_traced(overlap) or overlap > 0:
        under = jnp.maximum(work, travel / jnp.maximum(overlap, 1))
        lasts = jnp.where(overlap > 0, under, lasts)
    return _slowest(lasts, taking_part)


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
