"""What outer loops share: optimizers that live on in workers, and one of the slow model.

    K local steps  yᵢ ← yᵢ − η uᵢ,  uᵢ the direction of worker i's own optimizer, from the slow φ
    Δ = φ − Σ pᵢ yᵢ / Σ pᵢ, the pseudo-gradient;  φ ← φ − η_o U, U the outer optimizer's for Δ

Sums are over the workers that take part. Both optimizers are Optax's, without a learning rate, and
see the parameters' pytree. A method says what it sends over an uplink and a downlink; ``bits`` is
their mean. `AXES` adds ``bits_up``, ``bits_down`` and ``peak_bits``, the most in one step.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxdopt.algorithms.federated.clients import Clients
from jaxdopt.costs import Axis, Step
from jaxdopt.optimizers import OfRow, of_row


def rows_of(method: Any, problem: Any, x: jax.Array) -> Any:
    """Return the memories of the workers' local optimizers at their rows x [n, d]."""
    return jax.vmap(of_row(method.local, getattr(problem, "leaves", None)).init)(x)


def outer_of(method: Any, problem: Any) -> OfRow:
    """Return the outer optimizer as one of the slow model [d]."""
    return of_row(method.server, getattr(problem, "leaves", None))


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
