"""Compressors made of another one."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxdopt._checks import Count, require
from jaxdopt._pytree import pytree, static
from jaxdopt.compressors.base import Compressor, is_unbiased


@pytree
class Blocks:
    """Another compressor on every block of coordinates alone, with its constants.

    Such as the k largest of each 4096, where ``TopK`` would take those of all.

    Args:
        compressor: of one block.
        size: how many coordinates a block has, of which the last may have fewer; static.
    """

    compressor: Compressor
    size: Count = static()

    def __call__(self, key: jax.Array, x: jax.Array) -> jax.Array:
        """Compress every row of x [n, d]."""
        n, d = x.shape
        size = min(self.size, d)
        blocks = jnp.pad(x, ((0, 0), (0, -d % size))).reshape(-1, size)
        return self.compressor(key, blocks).reshape(n, -1)[:, :d]

    def omega(self, d: int) -> float:
        """ω of a block."""
        return self.compressor.omega(min(self.size, d))

    def delta(self, d: int) -> float:
        """δ of a block."""
        return self.compressor.delta(min(self.size, d))

    def error(self, d: int) -> float:
        """That of a block."""
        return self.compressor.error(min(self.size, d))

    def bits(self, d: int) -> int:
        """Those of all blocks."""
        whole, rest = divmod(d, self.size)
        bits = self.compressor.bits
        return (whole * bits(self.size) if whole else 0) + (bits(rest) if rest else 0)


@pytree
class Contractive:
    """Q(x) / (1 + ω) of an unbiased compressor Q: δ = 1 / (1 + ω).

    Args:
        unbiased: Q, a compressor that knows its ``omega(d)``.
    """

    unbiased: Any

    def __post_init__(self) -> None:
        """Check that it is unbiased."""
        require(
            is_unbiased(self.unbiased),
            f"{self.unbiased!r} is not unbiased; give a compressor with omega, such as "
            "Dither(bits=2).",
        )

    def __call__(self, key: jax.Array, x: jax.Array) -> jax.Array:
        """Compress every row of x [n, d]."""
        return self.unbiased(key, x) / (1 + self.unbiased.omega(x.shape[1]))

    def delta(self, d: int) -> float:
        """1 / (1 + ω)."""
        return 1 / (1 + self.unbiased.omega(d))

    def error(self, d: int) -> float:
        """The bias ω² / (1 + ω)² and the variance of Q over (1 + ω)²."""
        omega = self.unbiased.omega(d)
        return (omega**2 + self.unbiased.error(d)) / (1 + omega) ** 2

    def bits(self, d: int) -> int:
        """The bits of Q."""
        return self.unbiased.bits(d)
