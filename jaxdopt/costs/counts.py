"""What a step costs, from what its method says of itself and from who takes part."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdopt import roles
from jaxdopt._pytree import pytree
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


def taking_part(network: Any) -> tuple[Any, Any] | None:
    """Return the numbers of those who may take part and a mask of those who do; None for all."""
    clients = getattr(network, "clients", None)
    if clients is not None:
        return clients, clients < network.n
    active = getattr(network, "active", None)
    return None if active is None else (None, active)


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
    index, mask = (taking_part(network) if of_server else None) or (None, True)
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
