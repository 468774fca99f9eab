"""What compressors share: bits, and messages in the dtype of what they stand for."""

import math
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from jaxdopt._checks import Called
from jaxdopt._pytree import pytree

FLOAT = 32


Compressor = Annotated[
    Any, Called("Compressor", "one of jd.compressors, such as Dither(bits=2)", "bits")
]
"""One of this module, or an object of your own with their call, ``bits`` and ``error``."""


@pytree
class Identity:
    """C(x) = x: nothing is compressed."""

    def __call__(self, key: Any, x: jax.Array) -> jax.Array:  # noqa: ARG002
        """Compress every row of x [n, d]."""
        return x

    def omega(self, d: int) -> float:  # noqa: ARG002
        """0."""
        return 0.0

    def delta(self, d: int) -> float:  # noqa: ARG002
        """1."""
        return 1.0

    error = omega

    def bits(self, d: int) -> int:
        """`FLOAT` for each number."""
        return FLOAT * d


def is_unbiased(compressor: Any) -> bool:
    """Return whether E C(x) = x, as far as a compressor says."""
    if hasattr(compressor, "compressor"):  # made of another one
        return is_unbiased(compressor.compressor)
    biased = getattr(compressor, "nearest", False) or not getattr(compressor, "scaled", True)
    return hasattr(compressor, "omega") and not biased


def is_contractive(compressor: Any) -> bool:
    """Return whether E|C(x) − x|² ≤ (1 − δ) |x|², as far as a compressor says."""
    if hasattr(compressor, "compressor"):  # made of another one
        return is_contractive(compressor.compressor)
    unbiased = not getattr(compressor, "nearest", True) or getattr(compressor, "scaled", False)
    return hasattr(compressor, "delta") and not unbiased


def held(message: jax.Array, x: jax.Array) -> jax.Array:
    """Return a message in the dtype of x, clipped to the dtype's largest numbers."""
    most = jnp.finfo(x.dtype).max.astype(message.dtype)
    held = jnp.where(jnp.isfinite(x), jnp.clip(message, -most, most), message)
    return held.astype(x.dtype)


def kept(k: int, d: int) -> int:
    """Return k, or all coordinates where there are fewer."""
    return min(k, d)


def index_bits(d: int) -> int:
    """Return the bits of the position of one of d coordinates."""
    return math.ceil(math.log2(d))


def word_of(x: jax.Array) -> Any:
    """Return the unsigned integers that have the bits of this dtype's numbers."""
    return jnp.dtype(f"uint{jnp.finfo(x.dtype).bits}")
