"""Linear sketches: messages R x of s numbers, which a receiver turns into Rᵀ R x, E Rᵀ R = I.

The matrix R [s, d] is a function of key, d and precision alone: **all rows of x share it**, where
other compressors draw for every row. Sums of sketches are so sketches of sums, which a server can
add up (or a secure aggregation) without decoding, and whoever knows the key knows R. The errors of
agents who send the same vector are the same, and a mean over agents does not make them smaller.

All have E|Rᵀ R x − x|² = ω |x|², with equality for every x.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

from jaxdopt import _selection
from jaxdopt._checks import Count, require
from jaxdopt._leaves import wide_dtype
from jaxdopt._pytree import pytree, static
from jaxdopt.compressors.base import FLOAT, held, word_of

MOST = 2**22  # entries of a drawn matrix that are in memory at a time


class Sketch:
    """What linear sketches share: both ways at once, and their bits."""

    size: Any  # s

    def encode(self, key: jax.Array, x: jax.Array) -> jax.Array:
        """Return R x of every row, [n, d] -> [n, s]."""
        raise NotImplementedError

    def decode(self, key: jax.Array, y: jax.Array, d: int) -> jax.Array:
        """Return Rᵀ y of every row, [n, s] -> [n, d]."""
        raise NotImplementedError

    def omega(self, d: int) -> float:
        """Return ω."""
        raise NotImplementedError

    def __call__(self, key: jax.Array, x: jax.Array) -> jax.Array:
        """Return Rᵀ R x of every row of x [n, d].

        It is ``decode(key, encode(key, x), d)``, in units of each row so that nothing overflows.
        """
        wide = x.astype(wide_dtype(x.dtype))
        word, known = word_of(wide), jnp.finfo(wide.dtype)
        largest = jnp.max(jnp.abs(jax.lax.stop_gradient(wide)), axis=1, keepdims=True)
        mantissa = word.type(2**known.nmant - 1)
        bits = jax.lax.bitcast_convert_type(largest, word) & ~mantissa
        unit = jax.lax.bitcast_convert_type(bits, wide.dtype)  # a power of 2: rounds nothing
        unit = jnp.where(unit < known.tiny, 1, unit)
        return held(unit * self.decode(key, self.encode(key, wide / unit), x.shape[1]), x)

    def error(self, d: int) -> float:
        """ω."""
        return self.omega(d)

    def bits(self, d: int) -> int:  # noqa: ARG002
        """Those of s numbers; the key is the receiver's already."""
        return FLOAT * self.size


class _Drawn(Sketch):
    """Sketches by a matrix of independent entries, drawn in blocks of columns."""

    def encode(self, key: jax.Array, x: jax.Array) -> jax.Array:
        """Return R x of every row, [n, d] -> [n, s]."""
        n, d = x.shape
        blocks, width = self._blocks(d)
        wide = jnp.pad(x.astype(wide_dtype(x.dtype)), ((0, 0), (0, blocks * width - d)))

        def add(y: jax.Array, block: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
            number, part = block
            columns = self._columns(key, number, width, y.dtype)
            return y + jnp.matmul(part, columns.T, precision="highest"), None

        parts = wide.reshape(n, blocks, width).swapaxes(0, 1)
        zero = jnp.zeros((n, self.size), wide.dtype)
        return jax.lax.scan(add, zero, (jnp.arange(blocks), parts))[0].astype(x.dtype)

    def decode(self, key: jax.Array, y: jax.Array, d: int) -> jax.Array:
        """Return Rᵀ y of every row, [n, s] -> [n, d]."""
        blocks, width = self._blocks(d)
        wide = y.astype(wide_dtype(y.dtype))

        def part(number: jax.Array) -> jax.Array:
            columns = self._columns(key, number, width, wide.dtype)
            return jnp.matmul(wide, columns, precision="highest")

        parts = jax.lax.map(part, jnp.arange(blocks))
        return parts.swapaxes(0, 1).reshape(len(y), -1)[:, :d].astype(y.dtype)

    def _blocks(self, d: int) -> tuple[int, int]:
        width = min(d, max(1, MOST // self.size))
        return math.ceil(d / width), width

    def _columns(self, key: jax.Array, block: jax.Array, width: int, dtype: Any) -> jax.Array:
        shape = self.size, width
        return self._entries(jax.random.fold_in(key, block), shape, dtype) / math.sqrt(self.size)

    def _entries(self, key: jax.Array, shape: tuple[int, int], dtype: Any) -> jax.Array:
        raise NotImplementedError


@pytree
class GaussianSketch(_Drawn):
    """R of independent entries N(0, 1/s): ω = (d + 1) / s.

    All entries are drawn both for R x and for Rᵀ y, which takes time s d; of large matrices a
    block of columns is in memory at a time.

    Args:
        size: s, how many numbers are sent, which may be more than d; static.
    """

    size: Count = static()

    def omega(self, d: int) -> float:
        """ω = (d + 1) / s."""
        return (d + 1) / self.size

    def _entries(self, key: jax.Array, shape: tuple[int, int], dtype: Any) -> jax.Array:
        return jax.random.normal(key, shape, dtype)


@pytree
class RademacherSketch(_Drawn):
    """R of independent entries ±1/√s, as AMS: ω = (d − 1) / s.

    Memory and time are those of a `GaussianSketch`.

    Args:
        size: s, how many numbers are sent, which may be more than d; static.
    """

    size: Count = static()

    def omega(self, d: int) -> float:
        """ω = (d − 1) / s."""
        return (d - 1) / self.size

    def _entries(self, key: jax.Array, shape: tuple[int, int], dtype: Any) -> jax.Array:
        return jax.random.rademacher(key, shape, dtype)


@pytree
class CountSketch(Sketch):
    """Each coordinate is added to one of s buckets, with a sign: ω = (d − 1) / s.

    R has one entry ±1 a column, in a row drawn uniformly. Time is that of reading x, and neither
    time nor memory grow with s.

    Args:
        size: s, how many buckets are sent, which may be more than d; static.
    """

    size: Count = static()

    def encode(self, key: jax.Array, x: jax.Array) -> jax.Array:
        """Return R x of every row, [n, d] -> [n, s]."""
        bucket, sign = self._hash(key, x.shape[1], wide_dtype(x.dtype))
        signed = sign * x.astype(sign.dtype)  # and agents last: d scattered rows, no n d numbers
        return jax.ops.segment_sum(signed.T, bucket, self.size).T.astype(x.dtype)

    def decode(self, key: jax.Array, y: jax.Array, d: int) -> jax.Array:
        """Return Rᵀ y of every row, [n, s] -> [n, d]."""
        bucket, sign = self._hash(key, d, wide_dtype(y.dtype))
        return (sign * y[:, bucket].astype(sign.dtype)).astype(y.dtype)

    def omega(self, d: int) -> float:
        """ω = (d − 1) / s."""
        return (d - 1) / self.size

    def _hash(self, key: jax.Array, d: int, dtype: Any) -> tuple[jax.Array, jax.Array]:
        bucket, sign = jax.random.split(key)
        drawn = jax.random.randint(bucket, (d,), 0, self.size)
        return drawn, jax.random.rademacher(sign, (d,), dtype)


@pytree
class SRHT(Sketch):
    """Subsampled randomized Hadamard transform: R = P H Σ / √s, ω = (D/s − 1) (d − 1) / (D − 1).

    x is padded to the next power of 2, D ≥ d; Σ are random signs, H [D, D] is the Hadamard matrix
    of ±1, and P keeps s rows drawn without replacement. For s = D nothing is lost. Time is
    D log₂ D and no matrix is formed.

    Args:
        size: s, how many numbers are sent, at most D; static.
    """

    size: Count = static()

    def encode(self, key: jax.Array, x: jax.Array) -> jax.Array:
        """Return R x of every row, [n, d] -> [n, s]; raise ValueError for s > D."""
        d = x.shape[1]
        sign, kept = self._drawn(key, d, wide_dtype(x.dtype))
        padded = jnp.pad(x.astype(sign.dtype), ((0, 0), (0, len(sign) - d)))
        rows = jnp.searchsorted(jnp.cumsum(kept), jnp.arange(1, self.size + 1))
        return (hadamard(sign * padded)[:, rows] / math.sqrt(self.size)).astype(x.dtype)

    def decode(self, key: jax.Array, y: jax.Array, d: int) -> jax.Array:
        """Return Rᵀ y of every row, [n, s] -> [n, d]; raise ValueError for s > D."""
        sign, kept = self._drawn(key, d, wide_dtype(y.dtype))
        wide = y.astype(sign.dtype)
        spread = jnp.where(kept, wide[:, jnp.cumsum(kept) - 1], 0)
        return (sign * hadamard(spread) / math.sqrt(self.size))[:, :d].astype(y.dtype)

    def omega(self, d: int) -> float:
        """ω = (D/s − 1) (d − 1) / (D − 1)."""
        padded = self._padded(d)
        return (padded / self.size - 1) * (d - 1) / max(padded - 1, 1)

    def _padded(self, d: int) -> int:
        padded = 1 << (d - 1).bit_length()
        require(
            self.size <= padded,
            f"size is {self.size} and a vector of {d} is padded to {padded}; give no more.",
        )
        return padded

    def _drawn(self, key: jax.Array, d: int, dtype: Any) -> tuple[jax.Array, jax.Array]:
        """Return the signs [D] and which rows of H are kept, [D] bool."""
        padded = self._padded(d)
        sign, row = jax.random.split(key)
        order = jax.random.bits(row, (1, padded), jnp.uint32)
        kept = _selection.largest(order, self.size)[0]
        return jax.random.rademacher(sign, (padded,), dtype), kept


def hadamard(x: jax.Array) -> jax.Array:
    """Return H x of every row of [n, D], D a power of 2, in log₂ D passes.

    H = [[G, G], [G, −G]] with G of half the size, and [[1]] for D = 1. Every pass takes the sums
    and the differences of neighbors, and puts the sums first.
    """
    if x.shape[1] == 1:
        return x

    def one(x: jax.Array, _: None) -> tuple[jax.Array, None]:
        first, second = x[:, 0::2], x[:, 1::2]
        return jnp.concatenate([first + second, first - second], axis=1), None

    return jax.lax.scan(one, x, length=(x.shape[1] - 1).bit_length())[0]
