"""Compressors made of another one."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdopt._checks import Count, count, require
from jaxdopt._leaves import is_traced
from jaxdopt._pytree import pytree, static
from jaxdopt.compressors.base import FLOAT, Compressor, is_unbiased


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
class PerLeaf:
    """Another compressor on every leaf of the parameters alone, small leaves whole: see `per_leaf`.

    Args:
        compressor: of one leaf.
        sizes: how many coordinates every leaf has, in the order of a row; static.
        dense: leaves of at most so many coordinates are sent whole; static.
    """

    compressor: Compressor
    sizes: tuple[int, ...] = static()
    dense: int = static(default=0)

    def __call__(self, key: jax.Array, x: jax.Array) -> jax.Array:
        """Compress every row of x [n, d]; leaf l draws with the l-th fold of the key."""
        self._require(x.shape[1])
        leaves = jnp.split(x, list(itertools.accumulate(self.sizes))[:-1], axis=1)
        for i, size in enumerate(self.sizes):
            if size > self.dense:
                leaves[i] = self.compressor(jax.random.fold_in(key, i), leaves[i])
        return jnp.concatenate(leaves, axis=1)

    def omega(self, d: int) -> Any:
        """The largest ω of a leaf."""
        return self._of(max, self.compressor.omega, d, 0.0)

    def delta(self, d: int) -> Any:
        """The least δ of a leaf."""
        return self._of(min, self.compressor.delta, d, 1.0)

    def error(self, d: int) -> Any:
        """The mean of the leaves', by their sizes."""
        self._require(d)
        return sum(size * self.compressor.error(size) for size in self._compressed) / d

    def bits(self, d: int) -> Any:
        """Those of all leaves."""
        self._require(d)
        whole = FLOAT * (d - sum(self._compressed))
        return whole + sum(self.compressor.bits(size) for size in self._compressed)

    def whole(self, d: int) -> np.ndarray:
        """Return which coordinates are of leaves that are sent whole, [d] bool."""
        self._require(d)
        return np.repeat([size <= self.dense for size in self.sizes], self.sizes)

    @property
    def _compressed(self) -> list[int]:
        return [size for size in self.sizes if size > self.dense]

    def _of(self, worst: Any, constant: Any, d: int, best: float) -> Any:
        self._require(d)
        values = [constant(size) for size in self._compressed] or [best]
        if is_traced(values):
            return {max: jnp.max, min: jnp.min}[worst](jnp.stack(values))
        return worst(values)

    def _require(self, d: int) -> None:
        require(
            sum(self.sizes) == d,
            f"the leaves have {sum(self.sizes)} coordinates together and the row {d}; give "
            "per_leaf the problem that the method runs on.",
        )


def per_leaf(compressor: Any, problem: Any, dense: int = 0) -> PerLeaf:
    """Return a compressor that compresses every leaf of a problem's parameters alone.

    ω is the largest and δ the least of the leaves', and bits add up. ``TopK(density=)`` keeps the
    same share of all leaves, as is usual for networks, where ``TopK`` of the row compares
    gradients of layers with each other.

    Args:
        compressor: of one leaf.
        problem: whose ``leaves`` are meant, such as a `jd.problems.FiniteSum` of a network.
        dense: leaves of at most so many parameters are sent whole, `FLOAT` bits each: biases.

    Raises:
        ValueError: a problem that does not say what its leaves are, or a negative ``dense``.

    Example:
        >>> import jaxdopt as jd
        >>> import numpy as np
        >>> toy = jd.problems.mlp(np.eye(8), [0, 1] * 4, agents=2, hidden=(4,))
        >>> each = jd.compressors.per_leaf(jd.compressors.TopK(density=0.25), toy, dense=4)
        >>> each.sizes, each.delta(toy.d), each.bits(toy.d)
        ((32, 4, 8, 2), 0.25, 558)
    """
    leaves: Any = getattr(problem, "leaves", None)
    require(
        leaves is not None,
        f"per_leaf needs the leaves of the parameters and a {type(problem).__name__} does not say "
        "what they are; give a jd.problems.FiniteSum or Oracle of a parameter pytree.",
    )
    return PerLeaf(compressor, leaves.sizes, count("dense", dense, 0))


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
