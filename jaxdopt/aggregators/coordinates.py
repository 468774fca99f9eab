"""Rules that look at one coordinate at a time, and the mean.

A message that is not finite counts as received: its numbers are above all others.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxdopt import _selection
from jaxdopt._pytree import pytree
from jaxdopt.aggregators.messages import (
    Tolerant,
    arrived,
    as_given,
    nearest,
    share,
    squares_exist,
    whole,
)


@pytree
class Mean:
    """(1/m) Σᵢ xᵢ, the baseline: one liar moves it anywhere.

    A message that is not finite makes it so.
    """

    def __call__(self, x: Any, heard: Any = None, own: Any = 0, key: Any = None) -> jax.Array:
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

    def __call__(self, x: Any, heard: Any = None, own: Any = 0, key: Any = None) -> jax.Array:
        """Return the aggregate [d] of the messages x [n, d] that are heard."""
        rows, mask, count = _ranked(x, heard)
        return as_given(median(rows, mask, count), x)

    def breakdown(self, n: int) -> int:
        """Return ⌈n / 2⌉ − 1."""
        return (n - 1) // 2

    def kappa(self, n: int, f: int) -> float:
        """Return 4 (1 + f / (n − 2f))²."""
        return 4 * (1 + share(n, f)) ** 2


@pytree
class TrimmedMean(Tolerant):
    """The mean of each coordinate without its f largest and f smallest numbers.

    Args:
        f: the number of liars, fewer than half of the messages.

    Source: Yin, Chen, Ramchandran, Bartlett (2018), arXiv 1803.01498; κ of Allouah, Farhadkhani,
    Guerraoui, Gupta, Pinot, Stephan (2023), arXiv 2302.01772.
    """

    def __call__(self, x: Any, heard: Any = None, own: Any = 0, key: Any = None) -> jax.Array:
        """Return the aggregate [d] of the messages x [n, d] that are heard."""
        rows, mask, count = _ranked(x, heard)
        end, f = self._kept(count), whole(self.f)
        return as_given(_mean_of_ranks(rows, mask, f, jnp.maximum(end, f + 1)), x)

    def kappa(self, n: int, f: int) -> float:
        """Return 6q (1 + q) with q = f / (n − 2f)."""
        q = share(n, f)
        return 6 * q * (1 + q)


@pytree
class MeaMed(Tolerant):
    """The mean of each coordinate's m − f numbers nearest its median; the first where several tie.

    Args:
        f: the number of liars, fewer than half of the messages.

    Source: Xie, Koyejo, Gupta (2018), arXiv 1802.10116 ("mean around median"). No κ is known.
    """

    def __call__(self, x: Any, heard: Any = None, own: Any = 0, key: Any = None) -> jax.Array:
        """Return the aggregate [d] of the messages x [n, d] that are heard."""
        rows, mask, count = _ranked(x, heard)
        k = self._kept(count)
        away = jnp.abs(rows - median(rows, mask, count))
        away = jnp.where(jnp.isnan(away), jnp.inf, away)
        inside = nearest(jnp.where(mask[:, None], away, jnp.nan).T, k).T
        return as_given(jnp.sum(jnp.where(inside, rows, 0), axis=0) / k, x)

    def kappa(self, n: int, f: int) -> None:
        """Return None: no bound is known."""


def median(rows: jax.Array, heard: jax.Array, count: Any) -> jax.Array:
    """Return the median of each column of those rows, ``count`` of them, that are heard."""
    return _mean_of_ranks(rows, heard, (count - 1) // 2, count // 2 + 1)


def _ranked(x: Any, heard: Any) -> tuple[jax.Array, jax.Array, Any]:
    """Return messages as `arrived` does, ∞ in place of those that are not finite."""
    rows, mask, count = arrived(x, heard)
    return jnp.where(squares_exist(rows)[:, None], rows, jnp.inf), mask, count


def _mean_of_ranks(rows: jax.Array, heard: jax.Array, start: Any, end: Any) -> jax.Array:
    """Return the mean of the numbers with the ranks start ... end − 1 of each column.

    Selected, as sorting takes longer, and its slope much longer. Equal numbers share a slope.
    """
    words = _in_order(jax.lax.stop_gradient(rows))
    words = jnp.where(heard[:, None], words, ~jnp.zeros_like(words))
    first, last = _selection.at_ranks(words, start, end - 1)
    inside = (words > first) & (words < last)
    least, most = (jnp.max(jnp.where(words == w, rows, -jnp.inf), axis=0) for w in (first, last))
    at_least = jnp.sum(words <= first, axis=0) - start
    at_most = end - jnp.sum(words < last, axis=0)
    total = jnp.sum(jnp.where(inside, rows, 0), axis=0) + at_least * least + at_most * most
    return jnp.where(first == last, least, total / (end - start))


def _in_order(x: jax.Array) -> jax.Array:
    """Return unsigned integers in the order of floating numbers."""
    word = jnp.dtype(f"uint{jnp.finfo(x.dtype).bits}")
    bits = jax.lax.bitcast_convert_type(x, word)
    sign = word.type(2 ** (jnp.finfo(x.dtype).bits - 1))
    return jnp.where(bits >= sign, ~bits, bits | sign)
