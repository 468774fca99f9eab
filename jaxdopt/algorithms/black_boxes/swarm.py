"""What swarms share: agents are particles that meet at consensus points, and the noise they need.

    vᵢ = Σⱼ xⱼ e^{−α Eⱼ} / Σⱼ e^{−α Eⱼ},   Eⱼ = fⱼ(xⱼ),   j in the closed in-neighborhood of i

On `jd.networks.Complete` there is one v for all, which is computed once. All agents are to have
the same f: values of different functions do not compare.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdopt._pytree import pytree
from jaxdopt.algorithms.federated.clients import common
from jaxdopt.costs import QUERY_AXES
from jaxdopt.networks.operators.complete import Complete

NOISE = 0x5A42  # folded into the key, so that the particles' noise and the values' are independent


@pytree
class State:
    """The state of a swarm."""

    x: jax.Array  # [n, d] particles
    v: jax.Array  # [n, d] consensus points, of the particles before the step; x0 at the start

    @property
    def estimate(self) -> jax.Array:
        """The mean of the consensus points, [d]."""
        return common(self.v)


class Particles:
    """What methods of swarms share: whom they hear, what they send, and the noise."""

    needs: ClassVar[set[str]] = {"pull", "hop", "values"}
    numbers: ClassVar[int] = 1  # the value, beside x
    axes: ClassVar = QUERY_AXES

    def normals(self, key: jax.Array, like: jax.Array) -> jax.Array:
        """Return ξ of the step with this key, standard normal, an array like x [n, d]."""
        return jax.random.normal(jax.random.fold_in(key, NOISE), like.shape, like.dtype)


def consensus(x: jax.Array, values: jax.Array, alpha: Any, network: Any) -> jax.Array:
    """Return vᵢ, [n, d], of particles x [n, d] and their values [n].

    Only differences enter: α times those of values from the least in the neighborhood, and those
    of particles from one's own, so that particles that agree stay as they are.
    """
    row = network.row
    if isinstance(row, Complete):
        w = _weights(values, alpha)
        return jnp.broadcast_to(x[0] + w @ (x - x[0]), x.shape)
    senders, present = row.in_neighbors
    heard = jnp.concatenate([values[:, None], jnp.where(present, values[senders], jnp.inf)], axis=1)
    w = _weights(heard, alpha)[:, 1:, None]  # one's own is of a difference that is 0
    return x + jnp.sum(w * (x[senders] - x[:, None]), axis=1)


def _weights(values: jax.Array, alpha: Any) -> jax.Array:
    """Return e^{−α E} over its sum along the last axis; 0 where E is infinite."""
    away = values - jnp.min(values, axis=-1, keepdims=True)
    absent = jnp.isinf(away)  # 0 before the product, whose slope is else not a number
    return jax.nn.softmax(jnp.where(absent, -jnp.inf, -alpha * jnp.where(absent, 0, away)), axis=-1)
