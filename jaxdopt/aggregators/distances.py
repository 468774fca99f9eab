"""Rules that keep some of the messages, by their distances or norms."""

from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdopt._checks import require
from jaxdopt._leaves import is_traced
from jaxdopt._pytree import pytree
from jaxdopt.aggregators.messages import (
    Received,
    Tolerant,
    Weighted,
    Whole,
    equally,
    nearest,
    share,
    squared_distances,
    squared_distances_from,
    whole,
)

ENUMERATED = 16  # messages of which MDA looks at all subsets


@pytree
class Krum(Tolerant, Weighted):
    """The message with the smallest sum of squared distances from its nearest others.

    The first where several tie.

    Args:
        f: the number of liars, fewer than half of the messages.
        neighbors: how many others are summed up; by default m − f − 1, as in ByzFL. Blanchard et
            al. have m − f − 2.

    Source: Blanchard, El Mhamdi, Guerraoui, Stainer (2017), arXiv 1703.02757; κ of Allouah,
    Farhadkhani, Guerraoui, Gupta, Pinot, Stephan (2023), arXiv 2302.01772.
    """

    neighbors: Annotated[Any, Whole(minimum=1)] | None = None

    def _weights(self, received: Received, own: Any) -> jax.Array:
        others = _others(self, received.count, self.neighbors)
        return _best(received, others, 1)

    def breakdown(self, n: int) -> Any:
        """Return f, or what fewer ``neighbors`` allow: a group of liars larger than they wins."""
        f = super().breakdown(n)
        if self.neighbors is None:
            return f
        others = whole(self.neighbors)
        return min(f, others, n - 1 - others)

    def kappa(self, n: int, f: int) -> float | None:
        """Return 6 (1 + f / (n − 2f)) for the default ``neighbors``, None for others."""
        return 6 * (1 + share(n, f)) if self.neighbors is None else None


@pytree
class MultiKrum(Tolerant, Weighted):
    """The mean of the messages with the smallest scores of `Krum`; the first where several tie.

    Args:
        f: the number of liars, fewer than half of the messages.
        select: how many messages are kept; by default m − f.

    Source: Blanchard, El Mhamdi, Guerraoui, Stainer (2017), arXiv 1703.02757. No κ was found.
    """

    select: Annotated[Any, Whole(minimum=1)] | None = None

    def _weights(self, received: Received, own: Any) -> jax.Array:
        count = received.count
        select = self._kept(count) if self.select is None else whole(self.select)
        if not is_traced((select, count)):
            require(
                select <= count,
                f"select is {select}, of {count} messages; give at most {count}.",
            )
        return _best(received, _others(self, count, None), select)

    def breakdown(self, n: int) -> Any:
        """Return f, or n − select if that is less."""
        f = super().breakdown(n)
        return f if self.select is None else min(f, n - whole(self.select))

    def kappa(self, n: int, f: int) -> None:
        """Return None: no bound was found."""


@pytree
class MDA(Tolerant, Weighted):
    """The mean of the m − f messages with the smallest diameter, the first such subset on ties.

    All subsets are looked at, in the order of their sorted members: the messages can be at most
    16, padding among them.

    Args:
        f: the number of liars, fewer than half of the messages.

    Raises:
        ValueError: more than 16 messages, when it is called.

    Source: El Mhamdi, Guerraoui, Guirguis, Hoang, Rouault (2020), arXiv 1905.03853 ("minimum
    diameter averaging"). No κ was found.
    """

    def _weights(self, received: Received, own: Any) -> jax.Array:
        n, k = len(received.heard), self._kept(received.count)
        require(
            n <= ENUMERATED,
            f"MDA looks at all subsets of {n} messages; give at most {ENUMERATED}, or another "
            "rule, such as NNM(f) before TrimmedMean(f).",
        )
        apart = squared_distances(received)
        # a subset with a message that is not finite comes before one with what is not heard
        apart = jnp.minimum(apart, jnp.finfo(apart.dtype).max)
        apart = jnp.where(received.heard & received.heard[:, None], apart, jnp.inf)
        size = np.sum(_subsets(n), axis=1)
        diameter = jnp.where(size == k, _diameters(apart), jnp.inf)
        best = 2**n - 1 - jnp.argmin(diameter[::-1])  # first members first
        inside = best >> jnp.arange(n)[::-1] & 1
        return equally(inside, k, apart)

    def kappa(self, n: int, f: int) -> None:
        """Return None: no bound was found."""


@pytree
class NNA(Tolerant, Weighted):
    """The mean of the m − f messages nearest one's own, which is one of them ("pivot").

    Args:
        f: the number of liars among the others, at most all of them.

    Source: Farhadkhani, Guerraoui, Gupta, Hoang, Pinot, Stephan (2023), arXiv 2209.10931
    ("nearest-neighbor averaging", of MoNNA). Its guarantee is not a κ: it is of all receivers
    together.
    """

    pivot = True
    _minority = False

    def _weights(self, received: Received, own: Any) -> jax.Array:
        k = self._kept(received.count)
        near = nearest(squared_distances_from(received, own), k)
        return equally(near, k, received.rows)

    def kappa(self, n: int, f: int) -> None:
        """Return None: its guarantee is another one."""


@pytree
class CGE(Tolerant, Weighted):
    """The mean of the m − f messages with the smallest norms ("comparative elimination").

    It is meant for gradients, as it measures from 0; the first where several tie.

    Args:
        f: the number of liars, fewer than half of the messages.

    Source: Gupta, Vaidya (2019), arXiv 1912.09528; Gupta, Liu, Vaidya (2021), arXiv 2008.04699. No
    κ exists: it depends on the norms.
    """

    _centered = False

    def _weights(self, received: Received, own: Any) -> jax.Array:
        k = self._kept(received.count)
        norms = jnp.where(received.finite, received.squares, jnp.inf)
        short = nearest(jnp.where(received.heard, norms, jnp.nan), k)
        return equally(short, k, received.rows)

    def kappa(self, n: int, f: int) -> None:
        """Return None: there is no bound that honest distances alone give."""


def _others(rule: Any, count: Any, neighbors: Any) -> Any:
    """Return how many others Krum's scores sum up."""
    most = rule._kept(count) - 1
    if neighbors is None:
        return most
    others = whole(neighbors)
    if not is_traced((others, count)):
        require(
            others < count,
            f"neighbors is {others}, of {count} messages; give at most {count - 1}.",
        )
    return others


def _best(received: Received, others: Any, select: Any) -> jax.Array:
    """Return equal weights of the messages with the smallest scores."""
    n = len(received.heard)
    apart = jnp.where(jnp.eye(n, dtype=bool), jnp.nan, squared_distances(received))
    scores = jnp.sum(jnp.where(nearest(apart, others), apart, 0), axis=1)
    best = nearest(jnp.where(received.heard, scores, jnp.nan), select)
    return equally(best, select, scores)


def _diameters(apart: jax.Array) -> jax.Array:
    """Return the largest distance within each of 2ⁿ subsets, the first message the highest bit.

    A subset is one of the first half of the messages and one of the second.
    """
    half = len(apart) // 2
    first, second = _subsets(half), _subsets(len(apart) - half)

    def within(block: jax.Array, subsets: np.ndarray) -> jax.Array:
        pairs = subsets[:, :, None] & subsets[:, None, :]
        return jnp.max(jnp.where(pairs, block, 0), axis=(1, 2), initial=0)

    farthest = jnp.max(jnp.where(second, apart[:half, None, half:], 0), axis=2, initial=0)
    across = jnp.max(jnp.where(first[:, :, None], farthest, 0), axis=1, initial=0)
    one, other = within(apart[:half, :half], first), within(apart[half:, half:], second)
    return jnp.maximum(across, jnp.maximum(one[:, None], other)).reshape(-1)


def _subsets(n: int) -> np.ndarray:
    """Return masks [2ⁿ, n] of all subsets, counted up; the first message is the highest bit."""
    return (np.arange(2**n)[:, None] >> np.arange(n)[::-1] & 1).astype(bool)
