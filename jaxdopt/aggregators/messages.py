"""What rules share: the messages that arrived, their distances, and a mask of the nearest."""

import dataclasses
from typing import Annotated, Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdopt import _selection
from jaxdopt._checks import Called, require
from jaxdopt._leaves import is_traced, wide_dtype
from jaxdopt._numbers import Number
from jaxdopt._pytree import pytree


@dataclasses.dataclass(frozen=True)
class Whole(Number):
    """The annotation of a traced number that counts messages."""

    minimum: float = 0.0
    shared: bool = True
    kind: ClassVar[str] = "int | Schedule"

    def require_range(self, name: str, value: Any) -> None:
        """Refuse fractions, too, where the number is known."""
        super().require_range(name, value)
        if not is_traced(value):
            known = np.asarray(value)
            require(
                bool(np.all(known == np.round(known))), f"{name} is {value}; give a whole number."
            )


Messages = Annotated[Any, Whole()]
"""A number of messages, at least 0, such as the f liars of a rule; traced."""

Radius = Annotated[Any, Number(minimum=0.0, shared=True)]
"""A radius to which messages are clipped; traced."""

Aggregator = Annotated[
    Any, Called("Aggregator", "one of jd.aggregators, such as TrimmedMean(f)", "breakdown")
]
"""A rule of `jaxdopt.aggregators`, or an object of your own with its call and ``breakdown``."""


class Received(NamedTuple):
    """The messages that arrived, relative to one of them, ready for a Gram matrix."""

    rows: jax.Array  # [n, d], x - center; 0 where not heard or not finite
    center: jax.Array  # [d]
    squares: jax.Array  # [n], |rows|²
    heard: jax.Array  # [n]
    finite: jax.Array  # [n], heard, and its square is a number
    count: Any  # of heard messages; an int where it is known


def receive(x: Any, heard: Any = None, *, centered: bool = True) -> Received:
    """Return the messages x [n, d] that are ``heard`` [n], in at least float32.

    A Gram matrix has the distances between near messages only if its origin is near them. The
    origin is the message at the median distance from the first finite one: where most messages
    are honest, that is about the distance of an honest one, however far the first is.
    """
    x, heard, count = arrived(x, heard)
    finite = heard & squares_exist(x)
    center = jnp.zeros_like(x[0])
    if centered:
        away = jnp.sum((x - x[jnp.argmax(finite)]) ** 2, axis=1)
        away = jnp.where(finite, away, jnp.nan)
        middle = jnp.sort(away)[jnp.maximum(jnp.sum(finite) - 1, 0) // 2]
        center = jax.lax.stop_gradient(x[jnp.argmax(away == middle)])
    rows = jnp.where(finite[:, None], x - center, 0)
    return Received(rows, center, jnp.sum(rows * rows, axis=1), heard, finite, count)


def arrived(x: Any, heard: Any) -> tuple[jax.Array, jax.Array, Any]:
    """Return messages in at least float32, the mask of those heard, and their number."""
    x = jnp.asarray(x)
    require(x.ndim == 2, f"x has shape {x.shape}; give one message a row, [n, d].")
    x = x.astype(wide_dtype(x.dtype))
    if heard is None:
        return x, jnp.ones(len(x), bool), len(x)
    require(
        np.shape(heard) == (len(x),),
        f"heard has shape {np.shape(heard)}; give one truth value a message, [{len(x)}].",
    )
    count = jnp.sum(jnp.asarray(heard), dtype=jnp.int32)
    count = count if is_traced(count) else int(count)
    require(count != 0, "no message is heard; give at least one, such as one's own.")
    return x, jnp.asarray(heard, bool), count


def squares_exist(x: jax.Array) -> jax.Array:
    """Return which rows have a square, such that sums of four products of two do not overflow."""
    return jnp.sum(x * x, axis=1) < jnp.finfo(x.dtype).max / 16


def combine(received: Received, weights: jax.Array) -> jax.Array:
    """Return Σᵢ wᵢ xᵢ [d]; messages that are not finite count only if they have a weight."""
    rows, center = received.rows, received.center
    total = jnp.matmul(weights, rows, precision="highest") + jnp.sum(weights) * center
    driven = jnp.any((weights != 0) & ~received.finite)
    return jnp.where(driven, jnp.nan, total)


def gram(received: Received) -> jax.Array:
    """Return the Gram matrix [n, n] of the rows."""
    return jnp.matmul(received.rows, received.rows.T, precision="highest")


def squared_distances(received: Received) -> jax.Array:
    """Return |xᵢ − xⱼ|² [n, n]: infinite where one is not finite, NaN where j is not heard."""
    products, squares = gram(received), received.squares
    distances = squares[:, None] + squares - (products + products.T)
    distances = jnp.where(jnp.eye(len(squares), dtype=bool), 0, jnp.maximum(distances, 0))
    return _known(received, distances, received.finite[:, None])


def squared_distances_from(received: Received, own: Any) -> jax.Array:
    """Return |xᵢ − x_own|² [n]: infinite where not finite, NaN where i is not heard.

    As a product, for which all receivers of the same messages need one Gram matrix together.
    """
    products = jnp.matmul(received.rows, received.rows[own], precision="highest")
    distances = jnp.maximum(received.squares + received.squares[own] - 2 * products, 0)
    distances = jnp.where(jnp.arange(len(distances)) == own, 0, distances)
    return _known(received, distances, received.finite[own])


def _known(received: Received, distances: jax.Array, finite: jax.Array) -> jax.Array:
    distances = jnp.where(received.finite & finite, distances, jnp.inf)
    return jnp.where(received.heard, distances, jnp.nan)


def nearest(distances: jax.Array, k: Any) -> jax.Array:
    """Return a mask of the k smallest distances [..., n] of the last axis, the first of equals.

    Distances are at least 0; NaN is never among the nearest. k may be traced.
    """
    shape, known = distances.shape, jax.lax.stop_gradient(distances)
    word = jnp.dtype(f"uint{jnp.finfo(distances.dtype).bits}")
    words = jax.lax.bitcast_convert_type(jnp.abs(known), word)  # in the same order, NaN last
    chosen = _selection.largest(~words.reshape(-1, shape[-1]), k).reshape(shape)
    return chosen & ~jnp.isnan(known)


def equally(factors: jax.Array, k: Any, like: jax.Array) -> jax.Array:
    """Return factors, or a mask, divided by a number of messages, in the dtype of an array."""
    return factors.astype(like.dtype) / jnp.asarray(k, like.dtype)


def whole(number: Any) -> Any:
    """Return a count as an integer, traced or not."""
    if is_traced(number):
        return jnp.round(number).astype(jnp.int32)
    return int(np.round(np.asarray(number)))


def length(squares: jax.Array) -> jax.Array:
    """Return square roots, whose slope is 0 at 0."""
    positive = squares > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squares, 1)), 0)


def shrinking(squares: jax.Array, radius: Any) -> jax.Array:
    """Return min(1, radius / |x|) for squares |x|²; 1 for NaN, which gives the radius no slope."""
    inside = ~(squares > jnp.square(radius))
    return jnp.where(inside, 1, radius / jnp.sqrt(jnp.where(inside, 1, squares)))


@pytree
class Tolerant:
    """A base of what is told how many liars it has to withstand.

    Args:
        f: the number of liars.
    """

    f: Messages
    _minority = True  # whether fewer than half of the messages may lie; else all but one

    def breakdown(self, n: int) -> Any:
        """Return f."""
        self._kept(n)
        return whole(self.f)

    def _kept(self, count: Any) -> Any:
        """Return m − f, of m messages, where f is not too many."""
        f = whole(self.f)
        if not is_traced((f, count)):
            most = (count - 1) // 2 if self._minority else count - 1
            require(
                f <= most,
                f"f of {type(self).__name__} is {f}, of {count} messages; give at most {most}.",
            )
            return count - f
        return jnp.maximum(count - f, 1)


class Weighted:
    """A rule that is Σᵢ wᵢ xᵢ, with weights that depend on the messages."""

    _centered = True

    def __call__(self, x: Any, heard: Any = None, own: Any = 0, key: Any = None) -> jax.Array:
        """Return the aggregate [d] of the messages x [n, d] that are heard."""
        received = receive(x, heard, centered=self._centered)
        weights = self._weights(received, own)
        return as_given(combine(received, weights.astype(received.rows.dtype)), x)

    def weights(self, x: Any, heard: Any = None, own: Any = 0) -> jax.Array:
        """Return the weights [n] of the messages; 0 for those that are not heard."""
        received = receive(x, heard, centered=self._centered)
        return self._weights(received, own).astype(received.rows.dtype)

    def _weights(self, received: Received, own: Any) -> jax.Array:
        raise NotImplementedError


def as_given(result: jax.Array, x: Any) -> jax.Array:
    """Return a result in the dtype of the messages, if that is a floating one."""
    dtype = jnp.asarray(x).dtype
    return result.astype(dtype) if jnp.issubdtype(dtype, jnp.floating) else result


def share(n: int, f: Any) -> Any:
    """Return f / (n − 2f), which no rule's κ is below; infinite where half or more lie."""
    return f / (n - 2 * f) if 2 * f < n else np.inf
