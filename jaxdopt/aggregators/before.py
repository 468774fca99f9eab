"""What is done to messages before a rule: mixing, bucketing, clipping; and their chains.

``before(x, heard, key)`` returns the messages that the rule is given, and which of them it hears.
"""

from typing import Annotated, Any

import jax
import jax.numpy as jnp

from jaxdopt._checks import Count, require
from jaxdopt._leaves import is_traced
from jaxdopt._pytree import pytree, static
from jaxdopt.aggregators.messages import (
    Aggregator,
    Radius,
    Tolerant,
    arrived,
    as_given,
    equally,
    length,
    nearest,
    receive,
    share,
    shrinking,
    squared_distances,
    whole,
)


@pytree
class NNM(Tolerant):
    """Each message becomes the mean of the m − f nearest to it, itself among them.

    A message that is not finite stays so. Before a rule with κ the chain has 8f/(n − f) (1 + κ).

    Args:
        f: the number of liars, fewer than half of the messages.

    Source: Allouah, Farhadkhani, Guerraoui, Gupta, Pinot, Stephan (2023), arXiv 2302.01772
    ("nearest-neighbor mixing").
    """

    def before(self, x: Any, heard: Any = None, key: Any = None) -> tuple[jax.Array, Any]:
        """Return the mixed messages [n, d], and ``heard``."""
        received = receive(x, heard)
        k = self._kept(received.count)
        inside = nearest(squared_distances(received), k)
        weights = equally(inside, k, received.rows)
        mixed = jnp.matmul(weights, received.rows, precision="highest")
        driven = ~received.finite | jnp.any(inside & ~received.finite, axis=1)
        return as_given(jnp.where(driven[:, None], jnp.nan, mixed + received.center), x), heard

    def breakdown(self, n: int, rule: Any) -> Any:
        """Return that of the rule, but at most f."""
        self._kept(n)
        return _least(whole(self.f), rule.breakdown(n))

    def kappa(self, n: int, f: int, rule: Any) -> float | None:
        """Return 8f / (n − f) (1 + κ)."""
        kappa = rule.kappa(n, f)
        return None if kappa is None else 8 * f / (n - f) * (1 + kappa) if f else 0.0


@pytree
class Bucketing:
    """Messages become the means of buckets of ``size`` of them, which are drawn at random.

    The last bucket may have fewer. One message that is not finite makes its bucket so. A rule
    that has a pivot, one's own message, cannot follow.

    Args:
        size: the number of messages in a bucket; static.

    Source: Karimireddy, He, Jaggi (2022), arXiv 2006.09365. No κ is known.
    """

    size: Count = static()
    _scatters = True

    def before(self, x: Any, heard: Any = None, key: Any = None) -> tuple[jax.Array, Any]:
        """Return the buckets' means [⌈n / size⌉, d], and a mask of those with messages."""
        require(key is not None, "key is None, and Bucketing draws the buckets; give a key.")
        rows, mask, count = arrived(x, heard)
        n, (buckets, extra) = len(rows), (-(-len(rows) // self.size), -len(rows) % self.size)
        draws = jax.random.bits(key, (n,), jnp.uint32) >> 1
        order = jnp.argsort(jnp.where(mask, draws, jnp.uint32(2**31)))  # those heard come first
        rows = jnp.where((jnp.arange(n) < count)[:, None], rows[order], 0)
        rows = jnp.pad(rows, ((0, extra), (0, 0))).reshape(buckets, self.size, -1)
        sizes = jnp.clip(count - jnp.arange(buckets) * self.size, 0, self.size)
        means = jnp.sum(rows, axis=1) / jnp.maximum(sizes, 1)[:, None].astype(rows.dtype)
        return as_given(means, x), None if heard is None else sizes > 0

    def breakdown(self, n: int, rule: Any) -> Any:
        """Return that of the rule for as many messages as there are buckets."""
        return rule.breakdown(-(-n // self.size))

    def kappa(self, n: int, f: int, rule: Any) -> None:
        """Return None: no bound is known."""


@pytree
class Clip:
    """Each message is shortened to at most the radius: x min(1, τ / |x|).

    It measures from 0, and is meant for gradients. A message that is not finite becomes 0.

    Args:
        radius: τ, at least 0; ByzFL has 2.
    """

    radius: Radius

    def before(self, x: Any, heard: Any = None, key: Any = None) -> tuple[jax.Array, Any]:
        """Return the clipped messages [n, d], and ``heard``."""
        received = receive(x, heard, centered=False)
        return _shortened(x, received, received.squares, self.radius), heard

    def breakdown(self, n: int, rule: Any) -> int:
        """Return n: all that the rule is given is bounded."""
        return n

    def kappa(self, n: int, f: int, rule: Any) -> None:
        """Return None: no bound is known that does not depend on the radius."""


@pytree
class ARC(Tolerant):
    """The ⌊2f (m − f) / m⌋ longest messages are clipped to the length of the next one.

    It measures from 0, and is meant for gradients. A message that is not finite is the longest,
    and becomes 0. Before a rule with κ the chain has κ + 2f / (n − 2f).

    Args:
        f: the number of liars, fewer than half of the messages.

    Source: Allouah, Guerraoui, Gupta, Jellouli, Rizk, Stephan (2025), arXiv 2405.14432 ("adaptive
    robust clipping"); its κ from memory, and not exceeded in our enumerations.
    """

    def before(self, x: Any, heard: Any = None, key: Any = None) -> tuple[jax.Array, Any]:
        """Return the clipped messages [n, d], and ``heard``."""
        received = receive(x, heard, centered=False)
        squares = jnp.where(received.finite, received.squares, jnp.inf)
        squares = jnp.where(received.heard, squares, jnp.nan)
        radius = length(jnp.sort(squares)[received.count - 1 - self._clipped(received.count)])
        return _shortened(x, received, squares, radius), heard

    def _clipped(self, count: Any) -> Any:
        end = self._kept(count)
        return 2 * (count - end) * end // count

    def breakdown(self, n: int, rule: Any) -> Any:
        """Return the number of messages that are clipped, or that of the rule if it is more."""
        clipped, other = self._clipped(n), rule.breakdown(n)
        return jnp.maximum(clipped, other) if is_traced((clipped, other)) else max(clipped, other)

    def kappa(self, n: int, f: int, rule: Any) -> float | None:
        """Return κ + 2f / (n − 2f)."""
        kappa = rule.kappa(n, f)
        return None if kappa is None else kappa + 2 * share(n, f)


class _Precedes:
    """The check of what comes before a rule."""

    kind = "tuple"

    def accept(self, name: str, value: Any) -> Any:
        """Return what prepares messages."""
        for own in value:
            require(
                callable(getattr(own, "before", None)) and not isinstance(own, type),
                f"{own!r} in a chain is not for messages before a rule; give NNM(f), "
                "Bucketing(size), Clip(radius) or ARC(f), and the rule last.",
            )
        return tuple(value)


@pytree
class Chain:
    """A rule for messages that others prepare, one after the other; `chain` makes it.

    Args:
        preparations: what is done to the messages before, in this order.
        rule: what aggregates them.
    """

    preparations: Annotated[Any, _Precedes()]
    rule: Aggregator

    def __post_init__(self) -> None:
        """Refuse what loses one's own message before a rule that needs it."""
        loses = [p for p in self.preparations if getattr(p, "_scatters", False)]
        require(
            not (loses and self.pivot),
            f"{self.rule!r} needs one's own message, which {loses[:1]!r} puts into a bucket; give "
            "NNM(f) in its place, or another rule.",
        )

    def __call__(self, x: Any, heard: Any = None, own: Any = 0, key: Any = None) -> jax.Array:
        """Return the aggregate [d] of the messages x [n, d] that are heard."""
        for i, preparation in enumerate(self.preparations):
            draws = None if key is None else jax.random.fold_in(key, i)
            x, heard = preparation.before(x, heard, draws)
        last = None if key is None else jax.random.fold_in(key, len(self.preparations))
        return self.rule(x, heard, own, last)

    @property
    def pivot(self) -> bool:
        """Whether the rule needs one's own message."""
        return getattr(self.rule, "pivot", False)

    @property
    def _scatters(self) -> bool:
        return any(getattr(p, "_scatters", False) for p in (*self.preparations, self.rule))

    def breakdown(self, n: int) -> Any:
        """Return how many liars the chain withstands."""
        first, *others = self.preparations
        return first.breakdown(n, chain(*others, self.rule))

    def kappa(self, n: int, f: int) -> float | None:
        """Return the chain's bound, None where none is known."""
        first, *others = self.preparations
        return first.kappa(n, f, chain(*others, self.rule))


def chain(*steps: Any) -> Any:
    """Return a rule for messages that are prepared before.

    Args:
        steps: NNM, Bucketing, Clip, ARC or your own, with a ``before``, and the rule last.

    Example:
        >>> import jax.numpy as jnp, jaxdopt as jd
        >>> rule = jd.aggregators.chain(jd.aggregators.NNM(1), jd.aggregators.TrimmedMean(1))
        >>> rule(jnp.array([[1.0], [2.0], [3.0], [-90.0]])).round(3).tolist()
        [2.0]

    Raises:
        ValueError: no rule, or a rule that is not the last.
    """
    require(len(steps) > 0, "a chain of nothing has no rule; give one, such as TrimmedMean(f).")
    *preparations, rule = steps
    return Chain(tuple(preparations), rule) if preparations else rule


def _shortened(x: Any, received: Any, squares: jax.Array, radius: Any) -> jax.Array:
    """Return the messages with norms at most the radius; if that is infinite, as they are."""
    squares = jnp.where(received.finite, squares, jnp.inf)
    factors = shrinking(squares, radius).astype(received.rows.dtype)
    rows = factors[:, None] * received.rows
    unclipped = received.heard & ~received.finite & (factors > 0)
    return as_given(jnp.where(unclipped[:, None], jnp.nan, rows), x)


def _least(first: Any, second: Any) -> Any:
    return jnp.minimum(first, second) if is_traced((first, second)) else min(first, second)
