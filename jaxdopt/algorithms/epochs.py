"""Random reshuffling's part that its methods share: whose sample comes when.

Step k is the (k mod m)-th of its epoch, m = ⌊most / batch⌋ with ``most`` the samples of the largest
agent. A `Minibatch` problem says how many samples a step takes; what is left over by the last whole
batch is left out of the epoch, in another order each time. An agent with fewer samples than the
largest goes through its order again until the epoch ends.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxdopt._pytree import require
from jaxdopt.problems.oracles import finite_sum

Sampling = Literal["reshuffle", "once", "cyclic"]


def require_sampling(sampling: Any) -> None:
    """Refuse what is no way to order samples."""
    require(
        sampling in ("reshuffle", "once", "cyclic"),
        f"sampling is {sampling!r}; give 'reshuffle' (a new order in every epoch), 'once' "
        "(one random order) or 'cyclic' (the data's own).",
    )


def first_order(problem: Any, sampling: Sampling, key: jax.Array) -> jax.Array:
    """Return the first epoch's order of every agent's samples, [n, most]."""
    whole, _ = finite_sum(problem)
    if sampling != "cyclic":
        return whole.permutation(key)
    return jnp.broadcast_to(jnp.arange(whole.most, dtype=jnp.int32), (whole.n, whole.most))


def place(problem: Any, network: Any) -> Any:
    """Return the number of this step in its epoch, from 0; it depends on time alone."""
    whole, batch = finite_sum(problem)
    return network.time % (whole.most // batch)


def gradient(
    problem: Any, network: Any, order: jax.Array, sampling: Sampling, key: jax.Array, x: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return this step's gradients at x [n, d], and the order, drawn anew where an epoch begins."""
    whole, batch = finite_sum(problem)
    step = place(problem, network)
    if sampling == "reshuffle":
        drawn = order
        order = jax.lax.cond(step == 0, lambda: whole.permutation(key), lambda: drawn)
    slots = (step * batch + jnp.arange(batch)).astype(jnp.int32)[None] % whole.counts[:, None]
    return whole.grad_at(x, jnp.take_along_axis(order, slots, axis=1)), order


def batch_size(problem: Any) -> int:
    """Return the component gradients that an agent takes in a step."""
    return finite_sum(problem)[1]
