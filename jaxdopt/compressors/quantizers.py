"""Compressors that send every coordinate in a few bits."""

import math
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxdopt._checks import count, require
from jaxdopt._leaves import wide_dtype
from jaxdopt._pytree import pytree, static
from jaxdopt.compressors.base import FLOAT, held, word_of


@pytree
class Dither:
    """(|x| / s) sign(xᵢ) ⌊s |xᵢ| / |x| + uᵢ⌋ with |x| the maximum norm, u uniform in [0, 1)ᵈ.

    It rounds to one of the two nearest levels of −s ... s at random, without bias. With
    s = 2^(b − 1) this is the quantizer that papers call b-bit: it has 2^b + 1 symbols, so that b
    bits a coordinate are nominal.

    Args:
        bits: b; messages are counted with the nominal b d + 32 bits, see ``exact_bits``.
        levels: s, in place of bits; messages are counted with ⌈log₂(2s + 1)⌉ d + 32 bits.
        norm: "max", or "euclidean" (QSGD), whose error is larger.
        block: the number of coordinates that share a norm (the last block may be shorter), by
            default all. Every block costs 32 bits, and ω is that of one block. LEAD uses 512.

    Raises:
        ValueError: both or neither of bits and levels, counts out of range, or another norm.

    The guarantee in the maximum norm is ω = min((d − 1) / (4 s²), √(d − 1) / (2 s)): the largest
    coordinate is a level itself, and the rounding of another one has variance at most 1/4 and at
    most s |xᵢ| / |x|, in units of (|x| / s)².
    """

    levels: int = static()
    nominal: int | None = static()  # b, if that was given
    norm: str = static()
    block: int | None = static()

    def __init__(
        self,
        *,
        bits: int | None = None,
        levels: int | None = None,
        norm: Literal["max", "euclidean"] = "max",
        block: int | None = None,
    ) -> None:
        require(
            (bits is None) != (levels is None),
            f"bits is {bits} and levels {levels}; give one of them, such as Dither(bits=2).",
        )
        if bits is not None:
            bits = count("bits", bits, remedy="2 or more (1 for one level), an integer")
            require(bits <= 24, f"bits is {bits}; give at most 24, as 32 send the numbers whole.")
        if block is not None:
            block = count("block", block)
        require(norm in ("max", "euclidean"), f"norm is {norm!r}; give 'max' or 'euclidean'.")
        steps = 2 ** (bits - 1) if bits is not None else count("levels", levels)
        for name, value in (("levels", steps), ("nominal", bits), ("norm", norm), ("block", block)):
            object.__setattr__(self, name, value)

    def __call__(self, key: jax.Array, x: jax.Array) -> jax.Array:
        """Compress every row of x [n, d]."""
        dtype = wide_dtype(x.dtype)
        n, d = x.shape
        block = min(self.block or d, d)
        padding = ((0, 0), (0, -d % block))
        u = jax.random.uniform(key, x.shape, dtype)
        x, u = (jnp.pad(a, padding).reshape(n, -1, block) for a in (x, u))
        wide = x.astype(dtype)
        largest = jnp.max(jnp.abs(wide), axis=-1, keepdims=True)
        largest = jnp.where(largest < jnp.finfo(dtype).tiny, 0, largest)  # XLA may do so or not
        if self.norm == "euclidean":  # only units' length has a slope, which keeps it finite
            largest = jax.lax.stop_gradient(largest)
        unit = wide / jnp.where(largest == 0, 1, largest)
        length = 1.0 if self.norm == "max" else _length(unit)
        # no level is above s, however |x| was rounded, and nothing overflows on the way
        level = jnp.minimum(jnp.abs(unit) * (self.levels / length), self.levels)
        level = jax.lax.stop_gradient(level)  # it matters by its integers alone
        below = jnp.floor(level)
        rounded = below + (u < level - below).astype(dtype)  # ⌊level + u⌋ can round to s + 1
        message = jnp.sign(wide) * (largest * (length * (rounded / self.levels)))
        return held(message, x).reshape(n, -1)[:, :d]

    def omega(self, d: int) -> float:
        """The guaranteed constant, of a block."""
        b, s = min(self.block or d, d), self.levels
        if self.norm == "max":
            return min((b - 1) / (4 * s**2), math.sqrt(b - 1) / (2 * s))
        return min(b / (4 * s**2), math.sqrt(b) / s)

    def error(self, d: int) -> float:
        """About log(d) / (3 s²), as a Gaussian vector's largest coordinate is about √(2 log d)."""
        b, s = min(self.block or d, d), self.levels
        if self.norm == "max":
            return min(self.omega(d), math.log(b) / (3 * s**2))
        return min(b / (6 * s**2), 0.8 * math.sqrt(b) / s)

    def bits(self, d: int) -> int:
        """The nominal count where ``bits`` was given, the exact one where ``levels`` was."""
        if self.nominal is None:
            return self.exact_bits(d)
        return self.nominal * d + FLOAT * self._blocks(d)

    def exact_bits(self, d: int) -> int:
        """2s + 1 symbols in ⌈log₂(2s + 1)⌉ bits a coordinate, and a number a block."""
        return d * math.ceil(math.log2(2 * self.levels + 1)) + FLOAT * self._blocks(d)

    def _blocks(self, d: int) -> int:
        return math.ceil(d / (self.block or d))


def _length(unit: jax.Array) -> jax.Array:
    """Return the Euclidean norms of rows, of zeros 1, so that there is a slope."""
    squares = jnp.sum(unit**2, axis=-1, keepdims=True)
    return jnp.sqrt(jnp.where(squares == 0, 1, squares))


@pytree
class Sign:
    """sign(xᵢ): neither unbiased nor contractive, for methods that scale it themselves."""

    def __call__(self, key: Any, x: jax.Array) -> jax.Array:  # noqa: ARG002
        """Compress every row of x [n, d]."""
        return jnp.sign(x)

    def bits(self, d: int) -> int:
        """One bit for each coordinate."""
        return d


@pytree
class ScaledSign:
    """(|x|₁ / d) sign(xᵢ): |C(x) − x|² = |x|² − |x|₁² / d, so δ = 1 / d; 2/π if x is Gaussian."""

    def __call__(self, key: Any, x: jax.Array) -> jax.Array:  # noqa: ARG002
        """Compress every row of x [n, d]."""
        dtype = wide_dtype(x.dtype)
        total = jnp.sum(jnp.abs(x).astype(dtype), axis=1, keepdims=True)
        scale = jnp.minimum(total, jnp.finfo(dtype).max) / x.shape[1]
        return scale.astype(x.dtype) * jnp.sign(x)

    def delta(self, d: int) -> float:
        """1 / d, for a vector with one coordinate that is not 0."""
        return 1 / d

    def error(self, d: int) -> float:
        """(1 − 1/d) (1 − 2/π)."""
        return (1 - 1 / d) * (1 - 2 / math.pi)

    def bits(self, d: int) -> int:
        """One bit for each coordinate, and the scale."""
        return d + FLOAT


@pytree
class Natural:
    """Unbiased random rounding to a neighboring power of 2: ω = 1/8, sent as sign and exponent.

    Numbers above the largest power of 2 are sent unchanged, those below the smallest normal as 0.
    """

    def __call__(self, key: jax.Array, x: jax.Array) -> jax.Array:
        """Compress every row of x [n, d]."""
        wide = x.astype(wide_dtype(x.dtype))
        word, known = word_of(wide), jnp.finfo(wide.dtype)
        mantissa = word.type(2**known.nmant - 1)
        # adding random bits below carries into the exponent as often as the mantissa says
        drawn = jax.random.bits(key, x.shape, word) & mantissa
        rounded = (jax.lax.bitcast_convert_type(wide, word) + drawn) & ~mantissa
        power = jax.lax.bitcast_convert_type(rounded, wide.dtype)
        modulus, most = jnp.abs(wide), 2.0 ** (jnp.finfo(x.dtype).maxexp - 1)
        power = jnp.where(modulus < known.tiny, 0, power)
        return jnp.where(modulus <= most, power.astype(x.dtype), x)

    def omega(self, d: int) -> float:  # noqa: ARG002
        """1/8."""
        return 0.125

    error = omega

    def bits(self, d: int) -> int:
        """Nine bits for each coordinate."""
        return 9 * d


@pytree
class E3M0:
    """Floats of 4 bits: a sign, and 0 or one of 2⁻ʲ |x|, j = 0 … 6, with |x| the maximum norm.

    Random rounding to one of the two neighbors is unbiased, ω = max(1/8, (√(1 + (d − 1)/4096) −
    1)/2); rounding to the nearer one is contractive, δ = min(8/9, 1/(1 + (d − 1)/16384)). The
    second terms are of vectors with one large coordinate: all others are below 2⁻⁶ |x|. `Blocks` of
    it have norms of their own.

    Args:
        nearest: whether numbers are rounded to the nearer neighbor, without chance; static.
    """

    nearest: bool = static(default=False)

    def __call__(self, key: jax.Array, x: jax.Array) -> jax.Array:
        """Compress every row of x [n, d]."""
        wide = x.astype(wide_dtype(x.dtype))
        word, known = word_of(wide), jnp.finfo(wide.dtype)
        largest = jnp.max(jnp.abs(wide), axis=-1, keepdims=True)
        largest = jnp.where(largest < known.tiny, 0, largest)
        unit = jax.lax.stop_gradient(jnp.abs(wide) / jnp.where(largest == 0, 1, largest))
        mantissa = word.type(2**known.nmant - 1)
        power = jax.lax.bitcast_convert_type(
            jax.lax.bitcast_convert_type(unit, word) & ~mantissa, wide.dtype
        )
        least = 2.0**-6
        below = jnp.where(unit < least, 0, power)
        above = jnp.where(unit < least, least, 2 * power)
        u = 0.5 if self.nearest else jax.random.uniform(key, x.shape, wide.dtype)
        rounded = jnp.where(u * (above - below) < unit - below, above, below)
        return held(jnp.sign(wide) * (largest * rounded), x)

    def omega(self, d: int) -> float:
        """ω, of random rounding."""
        require(not self.nearest, "E3M0(nearest=True) is biased and has no omega; see delta.")
        return max(1 / 8, (math.sqrt(1 + (d - 1) / 4096) - 1) / 2)

    def delta(self, d: int) -> float:
        """δ, of rounding to the nearer one."""
        require(
            self.nearest,
            "E3M0 is unbiased and has no delta; give E3M0(nearest=True), or Contractive(E3M0()).",
        )
        return min(8 / 9, 1 / (1 + (d - 1) / 16384))

    def error(self, d: int) -> float:  # noqa: ARG002
        """1/14, or 1/28 to the nearer one: of numbers spread evenly between two powers of 2."""
        return 1 / 28 if self.nearest else 1 / 14

    def bits(self, d: int) -> int:
        """Four bits for each coordinate, and the norm."""
        return 4 * d + FLOAT
