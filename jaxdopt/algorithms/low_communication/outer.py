"""What outer loops share: optimizers that live on in workers, and one of the slow model.

    K local steps  yᵢ ← yᵢ − η uᵢ,  uᵢ the direction of worker i's own optimizer, from the slow φ
    Δ = φ − Σ pᵢ yᵢ / Σ pᵢ, the pseudo-gradient;  φ ← φ − η_o U, U the outer optimizer's for Δ

Sums are over the workers that take part. Both optimizers are Optax's, without a learning rate, and
see the parameters' pytree. Some methods exchange the model in P fragments, each a few of its leaves
with an outer memory of its own. A method says what it sends over an uplink and a downlink; ``bits``
is their mean. `AXES` adds ``bits_up``, ``bits_down`` and ``peak_bits``, the most in one step.
"""

import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxdopt._checks import require
from jaxdopt._pytree import replace
from jaxdopt.algorithms.federated.clients import Clients, descend, participants
from jaxdopt.compressors import FLOAT
from jaxdopt.costs import Axis, Cost, Step, counted
from jaxdopt.optimizers import OfRow, of_row
from jaxdopt.problems.layout import leaves_of


def rows_of(method: Any, problem: Any, x: jax.Array) -> Any:
    """Return the memories of the workers' local optimizers at their rows x [n, d]."""
    return jax.vmap(of_row(method.local, getattr(problem, "leaves", None)).init)(x)


def outer_of(method: Any, problem: Any) -> OfRow:
    """Return the outer optimizer as one of the slow model [d]."""
    return of_row(method.server, getattr(problem, "leaves", None))


class Fragment(NamedTuple):
    """A part of the model that is exchanged alone."""

    p: int  # its number
    d: int  # how many coordinates it has
    select: Callable[[jax.Array], jax.Array]  # its coordinates, [..., d] -> [..., d_p]
    put: Callable[[jax.Array, jax.Array], jax.Array]  # rows [..., d] with others in their place
    outer: OfRow  # the outer optimizer, of [d_p]


def fragments_of(method: Any, problem: Any) -> list[Fragment]:
    """Return the P = ``method.fragments`` fragments of the model: leaf l is in fragment l mod P.

    One fragment is the whole model, of which nothing needs to be known.

    Raises:
        ValueError: a problem without leaves, or with fewer than P, unless P = 1.
    """
    if method.fragments == 1:
        whole = outer_of(method, problem)
        return [Fragment(0, problem.d, lambda rows: rows, _other, whole)]
    leaves = leaves_of(problem, type(method).__name__)

    def fragment(p: int, which: tuple[int, ...]) -> Fragment:
        part = leaves.part(which)
        return Fragment(
            p,
            part.d,
            functools.partial(leaves.select, which=which),
            lambda rows, values: leaves.put(rows, which, values),
            of_row(method.server, part),
        )

    return [fragment(p, which) for p, which in enumerate(leaves.fragments(method.fragments))]


def require_turns(method: Any, delay: int = 0) -> None:
    """Refuse a period in which fragments have unequal turns, and a delay of a turn or more."""
    period, fragments = method.period, method.fragments
    require(
        period % fragments == 0,
        f"period is {period} and fragments is {fragments}; give a period that is a multiple of the "
        "fragments.",
    )
    require(
        delay < period // fragments,
        f"delay is {delay}, and a fragment is sent every {period // fragments} steps; give less, "
        "so that one message has arrived before the next is sent.",
    )


def _other(rows: jax.Array, values: jax.Array) -> jax.Array:
    return jnp.broadcast_to(values, rows.shape)


def up_and_down(method: Any, state: Any, problem: Any, network: Any) -> Cost:
    """Return the cost of a round whose messages are compressed, and the server's model whole."""
    cost = counted(method, state, problem, network)
    up, down = (cost.vectors * bits for bits in _bits(method, problem.d))
    return replace(cost, bits=(up + down) / 2, up=up, down=down)


def exchanged(
    method: Any, state: Any, problem: Any, network: Any, which: Any, now: Any, delay: int = 0
) -> Cost:
    """Return the cost of an inner step with an exchange of fragments.

    Args:
        method: with ``fragments``; the next three are those of its ``cost``.
        state: with ``sent``, the share of agents that have sent, if not those who take part now.
        problem: whose model is sent.
        network: the round's.
        which: fragments were exchanged, [P] bool.
        now: whether there was an exchange.
        delay: the steps for which their messages have travelled.
    """
    cost, parts = counted(method, state, problem, network), fragments_of(method, problem)
    down = cost.vectors
    up, size = getattr(state, "sent", down), which @ jnp.asarray([part.d for part in parts])
    bits = which @ jnp.asarray([_bits(method, part.d) for part in parts])
    return replace(
        cost,
        exchanges=jnp.where(now, cost.exchanges, 0),
        vectors=(up + down) / 2 * size / problem.d,
        bits=(up * bits[0] + down * bits[1]) / 2,
        up=up * bits[0],
        down=down * bits[1],
        hidden=delay,
    )


def _bits(method: Any, d: int) -> tuple[int, int]:
    """Return the bits of d numbers on their way to the server, and on their way back."""
    compressor = getattr(method, "compressor", None)
    return FLOAT * d if compressor is None else compressor.bits(d), FLOAT * d


def visit(
    method: Any, state: Any, problem: Any, network: Any, key: jax.Array
) -> tuple[Clients, jax.Array, Any]:
    """Return who comes back to a server that does not wait, and what each brings.

    Args:
        method: with ``stepsize``, ``local_steps``, ``local`` and ``own_steps(network)``.
        state: with ``server`` [d], ``sent`` [n, d] and ``inner``.
        problem: whose gradients are taken.
        network: the round of a `jd.networks.arrivals`.
        key: of the samples.

    Returns:
        The clients; sentᵢ − yᵢ, how far local steps took them from what they had fetched, [s, d];
        and the memories of their optimizers.
    """
    clients = participants(problem, network)
    start = network.fetched(state.sent, state.server)
    y, _, memory = descend(
        clients,
        start,
        method.stepsize,
        method.local_steps,
        key,
        own_steps=method.own_steps(network),
        optimizer=method.local,
        memory=clients.own(state.inner),
    )
    return clients, start - y, memory


def require_calls(method: Any, network: Any, calls: Iterable[int]) -> None:
    """Refuse a network whose longest visits are of another number of gradients than the method's.

    Args:
        method: with ``local_steps``.
        network: an aggregation, whose clock knows the gradients of visits.
        calls: those that will do.
    """
    require(
        network.most in calls,
        f"local_steps is {method.local_steps} and the longest visit takes {network.most} of them "
        f"in jd.networks.arrivals; give it calls={method.local_steps}, or "
        f"calls=jd.networks.dynamic_calls(compute, {method.local_steps}).",
    )


def averaged(clients: Clients, memory: Any) -> Any:
    """Return the memories of those who take part, all floating leaves [s, ...] their mean."""

    def leaf(rows: jax.Array) -> jax.Array:
        if not jnp.issubdtype(rows.dtype, jnp.floating):
            return rows  # counts, keys
        flat = rows.reshape(len(rows), -1)
        return clients.share(clients.mean(flat)).reshape(rows.shape)

    return jax.tree.map(leaf, memory)


def _of_link(direction: str) -> Axis:
    def increment(step: Step) -> Any:
        own = getattr(step.cost, direction)
        return step.awake_share * (step.rounds * (step.cost.bits if own is None else own))

    return Axis(increment)


AXES = {
    "bits_up": _of_link("up"),
    "bits_down": _of_link("down"),
    "peak_bits": Axis(lambda step: step.awake_share * step.rounds * step.cost.bits, "maximum"),
}
"""The average agent's bits to the server and from it, and the most of their mean in one step."""
