"""Compressors that send some coordinates and leave the others out."""

import math
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from jaxdopt import _selection
from jaxdopt._checks import count, require
from jaxdopt._leaves import is_traced
from jaxdopt._numbers import Number
from jaxdopt._pytree import pytree, static
from jaxdopt.compressors.base import FLOAT, held, index_bits, kept, word_of

Density = Annotated[Any, Number(above=0.0, maximum=1.0, shared=True)]
"""A share of the coordinates, in (0, 1]: a number, or a schedule of the step."""


@pytree
class TopK:
    """The k coordinates of largest modulus, unchanged: δ = k / d.

    Of coordinates that tie for the last place the first are kept. Positions are sent with the
    values, ⌈log₂ d⌉ bits each.

    Args:
        k: the number of coordinates to keep, at least 1; d if it is more; static.
        density: in place of k, the share ρ in (0, 1] of coordinates to keep: k = ⌈ρ d⌉. It is a
            number like a method's: it sweeps without compiling anew, and inside a method takes a
            schedule, such as a warm-up.

    Raises:
        ValueError: both or neither of k and density, or one out of its range.
    """

    k: int | None = static(default=None)
    density: Density | None = None

    def __post_init__(self) -> None:
        """Check that there is k or the density."""
        require(
            (self.k is None) != (self.density is None),
            f"k is {self.k} and density {self.density}; give one of them, such as TopK(10) or "
            "TopK(density=0.01).",
        )
        if self.k is not None:
            count("k", self.k, remedy="the number of coordinates to keep, an integer of at least 1")

    def __call__(self, key: Any, x: jax.Array) -> jax.Array:  # noqa: ARG002
        """Compress every row of x [n, d]."""
        modulus = jax.lax.bitcast_convert_type(jnp.abs(x), word_of(x))  # in the same order
        k = self._kept(x.shape[1])
        k = k if isinstance(k, int) else k.astype(jnp.int32)
        return jnp.where(_selection.largest(modulus, k), x, 0)

    def delta(self, d: int) -> Any:
        """δ = k / d; a traced number where the density is one, as are all below."""
        return self._kept(d) / d

    def error(self, d: int) -> Any:
        """1 − δ: a Gaussian vector would lose less, but differences to references are flat."""
        return 1 - self.delta(d)

    def bits(self, d: int) -> Any:
        """The values and their positions."""
        return self._kept(d) * (FLOAT + index_bits(d))

    def _kept(self, d: int) -> Any:
        if self.k is not None:
            return kept(self.k, d)
        density: Any = self.density
        share = density * d * (1 - 1e-6)  # or 0.07 of 100 were 8
        if is_traced(share):
            return jnp.maximum(jnp.ceil(share), 1)
        return max(math.ceil(share), 1)


@pytree
class RandomK:
    """k coordinates drawn without replacement, times d / k: ω = d / k − 1, with equality.

    With ``scaled=False`` there is no factor: the compressor is biased and contractive, δ = k / d.
    With ``shared_seed`` a message has a seed of `FLOAT` bits, from which the receiver draws the
    positions, instead of the positions; agents still draw independently of each other.

    Args:
        k: the number of coordinates to keep, at least 1; d if it is more; static.
        scaled: whether they are multiplied by d / k, which makes the compressor unbiased; static.
        shared_seed: whether a seed is sent in place of the positions; static.
    """

    k: int = static()
    scaled: bool = static(default=True)
    shared_seed: bool = static(default=True)

    def __post_init__(self) -> None:
        """Check k."""
        count("k", self.k, remedy="the number of coordinates to keep, an integer of at least 1")

    def __call__(self, key: jax.Array, x: jax.Array) -> jax.Array:
        """Compress every row of x [n, d]."""
        drawn = _selection.largest(jax.random.bits(key, x.shape, jnp.uint32), self.k)
        if self.scaled:
            x = held(x.shape[1] / kept(self.k, x.shape[1]) * x, x)
        return jnp.where(drawn, x, 0)

    def omega(self, d: int) -> float:
        """ω = d / k − 1, if scaled."""
        require(self.scaled, "RandomK(scaled=False) is biased and has no omega; see delta.")
        return d / kept(self.k, d) - 1

    def delta(self, d: int) -> float:
        """δ = k / d, if not scaled."""
        require(
            not self.scaled,
            "RandomK is unbiased and has no delta; give RandomK(k, scaled=False), or "
            "Contractive(RandomK(k)).",
        )
        return kept(self.k, d) / d

    def error(self, d: int) -> float:
        """ω, or 1 − δ."""
        return self.omega(d) if self.scaled else 1 - self.delta(d)

    def bits(self, d: int) -> int:
        """The values, and their positions or a seed."""
        if self.shared_seed:
            return FLOAT * (kept(self.k, d) + 1)
        return kept(self.k, d) * (FLOAT + index_bits(d))
