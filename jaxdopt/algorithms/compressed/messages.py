"""Messages of compressed methods, and the defaults of their γ and α.

Papers give γ and α as bounds of worst cases, ω and 1 − δ, that no simulation would choose. The
defaults here come from a compressor's ``error(d)`` on Gaussian vectors instead.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxdopt import compressors
from jaxdopt._checks import require

CHANNEL = 0xC0DEC000  # folded into the key of a step, so that messages use no other draw's key


def message(compressor: Any, key: jax.Array, x: jax.Array, channel: int = 0) -> jax.Array:
    """Return the received C(x) of x [n, d]; random numbers depend on the key and channel only."""
    return compressor(jax.random.fold_in(key, CHANNEL + channel), x)


def consensus(method: Any, x: jax.Array) -> Any:
    """Return the γ of a primal-dual method, by default (1 + e)⁻³, e the error on Gaussian vectors.

    It is 1 without compression, 0.5 for nominally 2 bits and d = 20, and 1/8 for a random half of
    the coordinates: below the limits of stability that we measured, which fall with the cube of ω
    and with the stepsize. Heavy-tailed vectors have larger errors and need a smaller γ.
    """
    if method.consensus_stepsize is not None:
        return method.consensus_stepsize
    require(
        compressors.is_unbiased(method.compressor),
        f"{type(method).__name__} has safe defaults for unbiased compressors only and a "
        f"{type(method.compressor).__name__} is biased; give consensus_stepsize and alpha, "
        "or another one.",
    )
    return (1 + _error(method, x)) ** -3


def tracking(method: Any, x: jax.Array) -> Any:
    """Return the γ of a method that tracks gradients, by default (1 + e)^(−3/2)."""
    return (
        (1 + _error(method, x)) ** -1.5
        if method.consensus_stepsize is None
        else method.consensus_stepsize
    )


def feedback(method: Any, x: jax.Array) -> Any:
    """Return the γ of a method for contractive compressors, by default (1 − e) / (1 + e)."""
    if method.consensus_stepsize is not None:
        return method.consensus_stepsize
    e = _error(method, x)
    require(
        e < 1,
        f"{type(method).__name__} needs a contractive compressor and the error of this "
        f"{type(method.compressor).__name__} is {e:.3g} |x|²; give Contractive of it, or "
        "consensus_stepsize.",
    )
    return (1 - e) / (1 + e)


def memory(method: Any, x: jax.Array) -> Any:
    """Return the method's α, by default 0.9 / (1 + e); theory allows 1 / (1 + ω)."""
    return 0.9 / (1 + _error(method, x)) if method.alpha is None else method.alpha


def references(x0: jax.Array) -> jax.Array:
    """Return the references before the first message, [n, d]: x0 if all agents share it, else 0.

    A common start is known without communication, and the first messages need not carry it.
    """
    return jnp.where(jnp.all(x0 == x0[:1]), x0, jnp.zeros_like(x0))


def _error(method: Any, x: jax.Array) -> float:
    compressor = method.compressor
    require(
        hasattr(compressor, "error"),
        f"a {type(compressor).__name__} does not say its error, from which consensus_stepsize and "
        "alpha have their defaults; give both, or another compressor.",
    )
    return compressor.error(x.shape[1])
