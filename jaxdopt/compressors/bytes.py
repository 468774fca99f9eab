"""A byte a number: its sign and its rounded logarithm."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxdopt._checks import Count, require
from jaxdopt._numbers import Positive
from jaxdopt._pytree import pytree, static


@pytree
class LogByte:
    """sign(g) exp(p / s), p = ln|g| in steps of 1/s, rounded and clipped to ±t; 0 is itself.

    These are 2 (2t + 1) + 1 symbols, 255 with t = 63, and one for what is not a number. From
    exp(−t/s) to exp(t/s), 3.8e-4 to 2631, the relative error is at most exp(1/(2s)) − 1, 6.5 %;
    smaller and larger numbers become these. So it is neither unbiased nor, near 0, contractive.

    Args:
        steps: s > 0, steps to a factor of e.
        top: t ≤ 63; static.

    Raises:
        ValueError: an argument out of its range.

    Example:
        >>> code = LogByte()
        >>> sent = code.encode(jnp.array([0.0, 1.0, -2.0, 1e9]))
        >>> sent.tolist(), code.decode(sent).round(1).tolist()
        ([0, 64, -70, 127], [0.0, 1.0, -2.1, 2630.7...])
    """

    steps: Positive = 8.0
    top: Count = static(default=63)

    def __post_init__(self) -> None:
        """Check that a byte suffices."""
        require(self.top <= 63, f"top is {self.top}; give at most 63, as a byte has 256 symbols.")

    def encode(self, g: jax.Array) -> jax.Array:
        """Return the symbols of numbers, sign(g) (p + t + 1), as int8; −128 is not a number."""
        steps = jnp.asarray(self.steps, g.dtype)
        p = jnp.clip(jnp.round(steps * jnp.log(jnp.abs(g))), -self.top, self.top)
        symbol = jnp.sign(g) * (p + self.top + 1)
        return jnp.where(jnp.isnan(g), -128, symbol).astype(jnp.int8)

    def decode(self, symbols: jax.Array, dtype: Any = float) -> jax.Array:
        """Return the numbers that symbols stand for."""
        p = jnp.abs(symbols.astype(dtype)) - self.top - 1
        g = jnp.sign(symbols).astype(dtype) * jnp.exp(p / jnp.asarray(self.steps, dtype))
        return jnp.where(symbols == -128, jnp.nan, g)

    def __call__(self, key: Any, x: jax.Array) -> jax.Array:  # noqa: ARG002
        """Compress every row of x [n, d]."""
        return self.decode(self.encode(x), x.dtype)

    def error(self, d: int) -> Any:  # noqa: ARG002
        """1 / (12 s²): of numbers in range whose logarithms are spread evenly."""
        return 1 / (12 * self.steps**2)

    def bits(self, d: int) -> int:
        """Eight bits for each coordinate."""
        return 8 * d
