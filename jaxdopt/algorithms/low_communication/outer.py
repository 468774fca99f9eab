"""What outer loops share: optimizers that live on in workers, and one of the slow model.

    K local steps  yᵢ ← yᵢ − η uᵢ,  uᵢ the direction of worker i's own optimizer, from the slow φ
    Δ = φ − Σ pᵢ yᵢ / Σ pᵢ, the pseudo-gradient;  φ ← φ − η_o U, U the outer optimizer's for Δ

Sums are over the workers that take part. Both optimizers are Optax's, without a learning rate, and
see the parameters' pytree. A method says what it sends over an uplink and a downlink; ``bits`` is
their mean. `AXES` adds ``bits_up``, ``bits_down`` and ``peak_bits``, the most in one step.
"""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp

from jaxdopt._checks import require
from jaxdopt.algorithms.federated.clients import Clients, descend, participants, serve
from jaxdopt.costs import LINK_AXES, Axis
from jaxdopt.optimizers import OfRow, of_row


def rows_of(method: Any, problem: Any, x: jax.Array) -> Any:
    """Return the memories of the workers' local optimizers at their rows x [n, d]."""
    return jax.vmap(of_row(method.local, getattr(problem, "leaves", None)).init)(x)


def outer_of(method: Any, problem: Any) -> OfRow:
    """Return the outer optimizer as one of the slow model [d]."""
    return of_row(method.server, getattr(problem, "leaves", None))


def work(
    method: Any, clients: Clients, start: jax.Array, inner: Any, key: jax.Array, own: Any = None
) -> tuple[jax.Array, Any]:
    """Return where the local steps of workers end, [s, d], and the memories of their optimizers.

    Args:
        method: with ``stepsize``, ``local`` and, if it takes several, ``local_steps``.
        clients: who works.
        start: [s, d], a row each.
        inner: the memories of all n, before; None if they begin anew.
        key: of the samples.
        own: how many of the steps each of all n takes, [n, 1]; by default all.
    """
    y, _, memory = descend(
        clients,
        start,
        method.stepsize,
        getattr(method, "local_steps", 1),
        key,
        own_steps=own,
        optimizer=method.local,
        memory=clients.own(inner),
    )
    return y, memory


def advance(
    method: Any, clients: Clients, state: Any, problem: Any, update: jax.Array
) -> tuple[jax.Array, Any]:
    """Return the slow model after a step of the outer optimizer, and the optimizer's memory."""
    outer = outer_of(method, problem)
    return serve(clients, state.server, method.server_stepsize, update, outer, state.outer)


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
    y, memory = work(method, clients, start, state.inner, key, method.own_steps(network))
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


AXES = {
    **LINK_AXES,
    "peak_bits": Axis(lambda step: step.awake_share * step.rounds * step.cost.bits, "maximum"),
}
"""The average agent's bits to the server and from it, and the most of their mean in one step."""
