"""Rules that look at one coordinate at a time, and the mean.

A number that is not finite counts as received: ±∞ are the largest and smallest numbers of their
coordinate, and NaN is above all.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxdopt._pytree import pytree
from jaxdopt.aggregators.messages import (
    Messages,
    arrived,
    as_given,
    kept,
    nearest,
    share,
    whole,
)


@pytree
class Mean:
    """(1/m) Σᵢ xᵢ, the baseline: one liar moves it anywhere.

    A message that is not finite makes it so.
    """

    def __call__(self, x: jax.Array, heard: Any = None, own: Any = 0, key: Any = None) -> jax.Array:
        """Return the aggregate [d] of the messages x [n, d] that are heard."""
        rows, mask, count = arrived(x, heard)
        return as_given(jnp.sum(jnp.where(mask[:, None], rows, 0), axis=0) / count, x)

    def breakdown(self, n: int) -> int:
        """Return 0."""
        return 0

    def kappa(self, n: int, f: int) -> float:
        """Return 0 without liars, else ∞."""
        return float("inf") if f else 0.0


@pytree
class Median:
    """The median of each coordinate; of an even number the mean of the two in the middle.

    Source: Yin, Chen, Ramchandran, Bartlett (2018), arXiv 1803.01498; κ of Allouah, Farhadkhani,
    Guerraoui, Gupta, Pinot, Stephan (2023), arXiv 2302.01772.
    """

    def __call__(self, x: jax.Array, heard: Any = None, own: Any = 0, key: Any = None) -> jax.Array:
        """Return the aggregate [d] of the messages x [n, d] that are heard."""
        rows, mask, count = arrived(x, heard)
        return as_given(median(_ordered(rows, mask), count), x)

    def breakdown(self, n: int) -> int:
        """Return ⌈n / 2⌉ − 1."""
        return (n - 1) // 2

    def kappa(self, n: int, f: int) -> float:
        """Return 4 (1 + f / (n − 2f))²."""
        return 4 * (1 + share(n, f)) ** 2


@pytree
class TrimmedMean:
    """The mean of each coordinate without its f largest and f smallest numbers.

    Args:
        f: the number of liars, fewer than half of the messages.

    Source: Yin, Chen, Ramchandran, Bartlett (2018), arXiv 1803.01498; κ of Allouah, Farhadkhani,
    Guerraoui, Gupta, Pinot, Stephan (2023), arXiv 2302.01772.
    """

    f: Messages

    def __call__(self, x: jax.Array, heard: Any = None, own: Any = 0, key: Any = None) -> jax.Array:
        """Return the aggregate [d] of the messages x [n, d] that are heard."""
        rows, mask, count = arrived(x, heard)
        end, f = kept(self, count), whole(self.f)
        rank = jnp.arange(len(rows))[:, None]
        inside = jnp.where((rank >= f) & (rank < end), _ordered(rows, mask), 0)
        return as_given(jnp.sum(inside, axis=0) / jnp.maximum(end - f, 1), x)

    def breakdown(self, n: int) -> Any:
        """Return f."""
        kept(self, n)
        return whole(self.f)

    def kappa(self, n: int, f: int) -> float:
        """Return 6q (1 + q) with q = f / (n − 2f)."""
        q = share(n, f)
        return 6 * q * (1 + q)


@pytree
class MeaMed:
    """The mean of each coordinate's m − f numbers nearest its median; the first where several tie.

    Args:
        f: the number of liars, fewer than half of the messages.

    Source: Xie, Koyejo, Gupta (2018), arXiv 1802.10116 ("mean around median"). No κ is known.
    """

    f: Messages

    def __call__(self, x: jax.Array, heard: Any = None, own: Any = 0, key: Any = None) -> jax.Array:
        """Return the aggregate [d] of the messages x [n, d] that are heard."""
        rows, mask, count = arrived(x, heard)
        k = kept(self, count)
        away = jnp.abs(rows - median(_ordered(rows, mask), count))
        away = jnp.where(jnp.isnan(away), jnp.inf, away)
        inside = nearest(jnp.where(mask[:, None], away, jnp.nan).T, k).T
        return as_given(jnp.sum(jnp.where(inside, rows, 0), axis=0) / k, x)

    def breakdown(self, n: int) -> Any:
        """Return f."""
        kept(self, n)
        return whole(self.f)

    def kappa(self, n: int, f: int) -> None:
        """Return None: no bound is known."""


def median(ordered: jax.Array, count: Any) -> jax.Array:
    """Return the medians of sorted columns, of which the first ``count`` numbers matter."""
    low, high = ordered[(count - 1) // 2], ordered[count // 2]
    return 0.5 * low + 0.5 * high


def _ordered(rows: jax.Array, heard: jax.Array) -> jax.Array:
    """Sort each column: NaN is above all, and what is not heard is NaN."""
    return jnp.sort(jnp.where(heard[:, None], rows, jnp.nan), axis=0)
