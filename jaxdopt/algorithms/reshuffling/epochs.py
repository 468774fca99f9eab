"""What methods with random reshuffling share: the order of every agent's samples.

Every agent goes through its own mᵢ samples, and at the end of this pass begins the next one, in a
new order. A step takes the next b samples of every agent, as many as a `Minibatch` problem says (a
finite sum: one); where fewer are left, the first of the next pass fill the batch. So every agent
takes each of its samples once a pass, whatever the others have and whatever b is, and none is ever
left out.

Where all agents have m samples and b divides m, passes are the papers' epochs of m/b steps, which
all agents end together. Otherwise they end theirs in steps of their own. The noise of a pass that
is under way has not canceled yet and moves x by O(α): the squared error is then O(α²), and less
only in steps where all agents end a pass.

An order is drawn as it is used (Fisher and Yates): at place p of its pass agent i swaps the sample
there with that at a place drawn uniformly from p, ..., mᵢ − 1. This costs the same in every step
and makes a uniformly random order of any other.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxdopt._checks import require
from jaxdopt._pytree import pytree, replace
from jaxdopt.problems.finite_sum import high_product
from jaxdopt.problems.oracles import finite_sum

Sampling = Literal["reshuffle", "once", "cyclic"]


@pytree
class Passes:
    """How far every agent is in its own samples."""

    order: jax.Array  # [n, m] int: every agent's samples in its pass's order, padding last
    place: jax.Array  # [n] int: how many of them the pass has seen, 0 to mᵢ − 1


def require_common(problem: Any) -> None:
    """Refuse a problem whose agents do not all end their passes in the same steps, at their end."""
    whole, batch = finite_sum(problem)
    have = f"{whole.most} samples each for batches of {batch}" if whole.even else "uneven data"
    require(
        whole.even and whole.most % batch == 0,
        f"restart is True and agents have {have}, so that their epochs do not end together; give "
        "all the same number of samples, a multiple of the batch, or restart=False.",
    )


def begin(problem: Any, sampling: Sampling, key: jax.Array) -> Passes:
    """Return every agent at the start of its first pass."""
    whole, _ = finite_sum(problem)
    if sampling == "once":
        order = whole.permutation(key)
    else:
        order = jnp.broadcast_to(jnp.arange(whole.most, dtype=jnp.int32), (whole.n, whole.most))
    return Passes(order, jnp.zeros(whole.n, jnp.int32))


def gradient(
    problem: Any, passes: Passes, sampling: Sampling, key: jax.Array, x: jax.Array
) -> tuple[jax.Array, Passes]:
    """Return the gradients at x [n, d] of every agent's next batch, and its passes after it."""
    whole, batch = finite_sum(problem)
    if sampling == "reshuffle":
        chosen, passes = _drawn(passes, whole.counts, batch, key)
    else:
        chosen, passes = _in_order(passes, whole.counts, batch)
    return whole.grad_at(x, chosen), passes


def batch_size(problem: Any) -> int:
    """Return the component gradients that an agent takes in a step."""
    return finite_sum(problem)[1]


def _in_order(passes: Passes, counts: jax.Array, batch: int) -> tuple[jax.Array, Passes]:
    """Return the next samples of orders that stay as they are, [n, batch]."""
    ahead = passes.place[:, None] + jnp.arange(batch, dtype=passes.place.dtype)[None]
    chosen = jnp.take_along_axis(passes.order, ahead % counts[:, None], axis=1)
    return chosen, replace(passes, place=(passes.place + batch) % counts)


def _drawn(
    passes: Passes, counts: jax.Array, batch: int, key: jax.Array
) -> tuple[jax.Array, Passes]:
    """Return the next samples of orders that are drawn on the way, [n, batch]."""
    rows = jnp.arange(len(counts))[None]

    def draw(passes: Passes, bits: jax.Array) -> tuple[Passes, jax.Array]:
        order, place = passes.order, passes.place
        left = (counts - place).astype(jnp.uint32)
        other = place + high_product(bits, left).astype(place.dtype)
        # one gather and one scatter for both ends of the swap: with two the order is copied
        pair = jnp.stack([place, other])
        swapped = order[rows, pair[::-1]]
        order = order.at[rows, pair].set(swapped)
        return Passes(order, jnp.where(place + 1 == counts, 0, place + 1)), swapped[0]

    bits = jax.random.bits(key, (len(counts), batch), jnp.uint32)
    passes, chosen = jax.lax.scan(draw, passes, bits.T, unroll=4)
    return chosen.T, passes
