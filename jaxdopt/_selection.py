"""The largest numbers of each row, and those of some rank in each column, without sorting."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxdopt._backend import by_backend


def largest(words: jax.Array, k: Any) -> jax.Array:
    """Return a mask of exactly k largest unsigned integers a row, the first where several tie.

    k may be traced.

    The least of them is found by counting how many are above a threshold: sorting takes sixty
    times as long on a CPU, and up to seven times on a GPU.
    """
    d = words.shape[1]
    k = min(k, d) if isinstance(k, int) else jnp.minimum(k, d)
    words = words[:, None]
    index = jnp.arange(d, dtype=jnp.uint32)[None, None]
    zero = jnp.zeros_like(words[:, :, :1])

    def count(mask: jax.Array) -> jax.Array:
        return jnp.sum(mask, axis=2, keepdims=True)

    least = _greatest(lambda t: count(words >= t) >= k, zero, jnp.iinfo(words.dtype).bits)
    above, ties = words > least, words == least
    room = k - count(above)
    first = jnp.zeros_like(zero, jnp.uint32)
    end = _greatest(lambda t: count(ties & (index < t)) <= room, first, d.bit_length())
    return (above | (ties & (index < end)))[:, 0]


def at_ranks(words: jax.Array, *ranks: Any) -> jax.Array:
    """Return the unsigned integers [r, d] that have r ranks, from 0, in sorted columns of [n, d].

    They are found bit by bit, by counting how many are below a threshold. Ranks may be traced.
    """
    most = jnp.asarray(ranks, jnp.int32)[:, None]

    def reached(t: jax.Array) -> jax.Array:
        return jnp.sum(words[:, None] < t, axis=0, dtype=jnp.int32) <= most

    zero = jnp.zeros((len(ranks), *words.shape[1:]), words.dtype)
    return _by_bits(reached, zero, jnp.iinfo(words.dtype).bits)


def _greatest(holds: Callable[[jax.Array], jax.Array], zero: jax.Array, bits: int) -> jax.Array:
    """Return the greatest integers of some bits [n, 1, 1] for which a monotone condition holds.

    ``holds`` is asked for thresholds [n, t, 1], one or several a row. It is true at zero.
    """
    return by_backend(
        zero,
        cpu=lambda zero: _by_bits(holds, zero, bits),
        gpu=lambda zero: _by_digits(holds, zero, bits),
    )


def _by_bits(holds: Callable[[jax.Array], jax.Array], zero: jax.Array, bits: int) -> jax.Array:
    """Bisect thresholds of any shape: one pass over the data a bit, in a loop."""

    def bit(i: jax.Array, t: jax.Array) -> jax.Array:
        tried = t | (jnp.ones((), t.dtype) << jnp.asarray(bits - 1 - i, t.dtype))
        return jnp.where(holds(tried), tried, t)

    return jax.lax.fori_loop(0, bits, bit, zero)


def _by_digits(holds: Callable[[jax.Array], jax.Array], zero: jax.Array, bits: int) -> jax.Array:
    """Try all values of four bits in one pass, unrolled: a GPU's passes cost their launches."""
    digits, t = jnp.arange(1, 16, dtype=zero.dtype)[None, :, None], zero
    for shift in reversed(range(0, bits, 4)):
        place = jnp.asarray(shift, t.dtype)
        digit = jnp.sum(holds(t | (digits << place)), axis=1, keepdims=True, dtype=t.dtype)
        t = t | (digit << place)
    return t
