"""Draws of a model's durations, or of partners, on the host: many at once, by few programs."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdopt.networks.events.durations import Fixed, Table


def drawn(model: Any, key: jax.Array, k: Any, receiver: Any, sender: Any) -> np.ndarray:
    """Return the seconds of many draws on the host, for arrays of one shape [m], in float64.

    What is not random is not rounded either.
    """
    if isinstance(model, Fixed | Table) and isinstance(model.seconds, float | np.ndarray):
        seconds = model.at(k, None, receiver, sender)
        return np.broadcast_to(np.asarray(seconds, np.float64), np.shape(k))
    return batched(functools.partial(_many, model, key), k, receiver, sender).astype(np.float64)


def batched(draw: Any, *arrays: Any) -> np.ndarray:
    """Return what a compiled function gives for integers [m], by few programs for all m."""
    parts = []
    for first in range(0, max(len(arrays[0]), 1), _CHUNK):
        part = [np.asarray(a[first : first + _CHUNK]) for a in arrays]
        size = len(part[0])
        # padded to a power of two, so that few programs serve all sizes
        padding = max(1 << (size - 1).bit_length(), 256) - size
        filled = [np.pad(a, (0, padding)).astype(np.int32) for a in part]
        parts.append(np.asarray(draw(*filled))[:size])
    return np.concatenate(parts)


_CHUNK = 2**20


@jax.jit
def _many(model: Any, key: jax.Array, k: Any, receiver: Any, sender: Any) -> jax.Array:
    def one(k: Any, i: Any, j: Any) -> jax.Array:
        return jnp.asarray(model.at(k, key, i, j), float)

    return jax.vmap(one)(k, receiver, sender)
