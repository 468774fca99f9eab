"""Regularizers r with their proximal maps, for `Composite` problems F(x) = Σᵢ pᵢ fᵢ(x) + r(x).

A regularizer is a pytree with ``r(x)`` at one point [d] and

    r.prox(z, t) = argmin_u r(u) + |u − z|² / (2t)

at a point [d] or for every row of [..., d], with t > 0 a number, or one for each row as [n, 1].
``convex`` says whether r is convex; if it is not, ``weak_convexity`` is the least ρ for which
r(x) + (ρ/2)|x|² is convex. Numbers are leaves: they can be traced, swept and differentiated.

Source: Parikh, Boyd (2014), "Proximal algorithms"; for `MCP`, Zhang (2010), arXiv 1002.4734.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdopt._checks import count, require
from jaxdopt._leaves import is_traced
from jaxdopt._numbers import number
from jaxdopt._pytree import pytree, static


@pytree
class L1:
    """r(x) = w |x|₁, with prox the soft threshold: exactly 0 where |zⱼ| ≤ t w.

    Args:
        weight: w ≥ 0.

    Raises:
        ValueError: the weight is negative, or not one number.

    Example:
        >>> import jax.numpy as jnp
        >>> L1(0.5).prox(jnp.array([3.0, -0.2, -2.0]), 2.0).tolist()
        [2.0, 0.0, -1.0]
    """

    weight: Any

    convex = True

    def __post_init__(self) -> None:
        """Check the weight."""
        _set_numbers(self, weight={"minimum": 0.0})

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return r(x) at one point [d]."""
        return self.weight * jnp.sum(jnp.abs(x))

    def prox(self, z: jax.Array, t: Any) -> jax.Array:
        """Return sign(z) max(|z| − t w, 0), [..., d]."""
        return _soft(z, t * self.weight)


@pytree
class ElasticNet:
    """r(x) = l1 |x|₁ + (l2/2) |x|², with prox the soft threshold of `L1` over 1 + t l2.

    Args:
        l1: ≥ 0, the weight of the norm.
        l2: ≥ 0, that of its square.

    Raises:
        ValueError: a weight is negative, or not one number.
    """

    l1: Any
    l2: Any

    convex = True

    def __post_init__(self) -> None:
        """Check the weights."""
        _set_numbers(self, l1={"minimum": 0.0}, l2={"minimum": 0.0})

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return r(x) at one point [d]."""
        return self.l1 * jnp.sum(jnp.abs(x)) + self.l2 / 2 * jnp.sum(x**2)

    def prox(self, z: jax.Array, t: Any) -> jax.Array:
        """Return sign(z) max(|z| − t l1, 0) / (1 + t l2), [..., d]."""
        return _soft(z, t * self.l1) / _like(z, 1 + t * self.l2)


@pytree
class GroupL1:
    """r(x) = w Σ_g |x_g|, the plain sum of the groups' Euclidean norms (group lasso).

    The groups are d / size blocks of ``size`` consecutive coordinates, so that a [p, size] matrix
    of parameters has its rows as groups. No group's norm is scaled: multiply w by √size for the
    convention of Yuan and Lin (2006). Where |z_g| ≤ t w the prox of the group is exactly 0.

    Args:
        weight: w ≥ 0.
        size: of a group, a divisor of d; static.

    Raises:
        ValueError: the weight is negative; the size is not a positive integer, or no divisor of d.
    """

    weight: Any
    size: int = static()

    convex = True

    def __post_init__(self) -> None:
        """Check the weight and the groups' size."""
        _set_numbers(self, weight={"minimum": 0.0})
        count("size", self.size)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return r(x) at one point [d]; its gradient is 0 for a group at 0."""
        square = jnp.sum(self._groups(x) ** 2, axis=-1)
        positive = square > 0
        return self.weight * jnp.sum(
            jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1)), 0)
        )

    def prox(self, z: jax.Array, t: Any) -> jax.Array:
        """Return z_g max(1 − t w / |z_g|, 0) for every group, [..., d]."""
        groups = self._groups(z)
        radius = _like(z, t * self.weight)
        radius = radius[..., None] if radius.ndim else radius
        return (groups - _into_ball(groups, radius)).reshape(z.shape)

    def _groups(self, x: jax.Array) -> jax.Array:
        d = x.shape[-1]
        require(
            d % self.size == 0,
            f"the groups have {self.size} coordinates and x has {d}; give a size that divides {d}.",
        )
        return x.reshape(*x.shape[:-1], d // self.size, self.size)


@pytree
class MCP:
    """The minimax concave penalty r(x) = Σⱼ w |xⱼ| − xⱼ² / (2θ) where |xⱼ| ≤ θ w, else θ w² / 2.

    It is not convex, but r + |·|² / (2θ) is. Its prox shrinks like that of `L1` near 0, and leaves
    coordinates with |zⱼ| > θ w unchanged.

    Args:
        weight: w ≥ 0.
        theta: θ > 0; 1/θ is its weak convexity.

    Raises:
        ValueError: the weight is negative, θ is not positive, or either is not one number.
    """

    weight: Any
    theta: Any

    convex = False

    def __post_init__(self) -> None:
        """Check the weight and θ."""
        _set_numbers(self, weight={"minimum": 0.0}, theta={"above": 0.0})

    @property
    def weak_convexity(self) -> Any:
        """ρ = 1/θ; the prox needs t < 1/ρ."""
        return 1 / self.theta

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return r(x) at one point [d]."""
        size = jnp.minimum(jnp.abs(x), self.theta * self.weight)
        return jnp.sum(self.weight * size - size**2 / (2 * self.theta))

    def prox(self, z: jax.Array, t: Any) -> jax.Array:
        """Return sign(z) max(|z| − t w, 0) / (1 − t/θ) where |z| ≤ θ w, else z, [..., d].

        Raises:
            ValueError: t ≥ θ, where the minimizer is not unique. Traced numbers give NaN then.
        """
        require(
            is_traced((t, self.theta)) or np.max(t) < self.theta,
            f"t is {t} and theta {self.theta}; MCP has a prox for t < theta only, so take a "
            "shorter step or a larger theta.",
        )
        t, weight, theta = (_like(z, v) for v in (t, self.weight, self.theta))
        slope = jnp.where(t < theta, 1 - t / theta, jnp.nan)
        return jnp.where(jnp.abs(z) <= theta * weight, _soft(z, t * weight) / slope, z)


@pytree
class Box:
    """r(x) = 0 where low ≤ xⱼ ≤ high for all j, else ∞; prox is the projection.

    The bounds are numbers, or vectors [d], and may be infinite: ``Box(0, math.inf)`` requires
    nonnegative coordinates. A point counts as inside up to a relative error of √ε (ε the rounding
    unit), so that means of points of the box have value 0.

    Args:
        low: a number or [d].
        high: a number or [d], at least ``low``.

    Raises:
        ValueError: a bound is NaN or of another shape, or low exceeds high.
    """

    low: Any
    high: Any

    convex = True

    def __post_init__(self) -> None:
        """Check the bounds."""
        _set_vectors(self, "low", "high")
        require(
            is_traced((self.low, self.high)) or np.all(self.low <= self.high),
            f"low is {self.low} and high {self.high}; give low <= high.",
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return 0 or ∞ at one point [d]."""
        low, high = _like(x, self.low), _like(x, self.high)
        slack = _slack(x)
        inside = (low - slack * jnp.abs(low) <= x) & (x <= high + slack * jnp.abs(high))
        return _indicator(jnp.all(inside), x)

    def prox(self, z: jax.Array, t: Any = None) -> jax.Array:
        """Return min(max(z, low), high), [..., d], whatever t."""
        return jnp.clip(z, _like(z, self.low), _like(z, self.high))


@pytree
class Ball:
    """r(x) = 0 where |x − center| ≤ radius, else ∞; prox is the projection.

    The center is a number, the same for every coordinate, or a vector [d]. A point counts as inside
    up to a relative error of √ε (ε the rounding unit), so that means of points of the ball have
    value 0.

    Args:
        radius: ≥ 0.
        center: a number or [d].

    Raises:
        ValueError: the radius is negative or not one number, the center NaN or of another shape.
    """

    radius: Any
    center: Any = 0.0

    convex = True

    def __post_init__(self) -> None:
        """Check the radius and the center."""
        _set_numbers(self, radius={"minimum": 0.0})
        _set_vectors(self, "center")

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return 0 or ∞ at one point [d]."""
        center, radius = _like(x, self.center), _like(x, self.radius)
        slack = _slack(x) * (radius + jnp.linalg.norm(jnp.broadcast_to(center, x.shape)))
        return _indicator(jnp.linalg.norm(x - center) <= radius + slack, x)

    def prox(self, z: jax.Array, t: Any = None) -> jax.Array:
        """Return center + (z − center) min(1, radius / |z − center|), [..., d], whatever t."""
        center = _like(z, self.center)
        return center + _into_ball(z - center, _like(z, self.radius))


def _soft(z: jax.Array, bound: Any) -> jax.Array:
    """Return z less its projection on [−bound, bound]: exactly 0 within."""
    bound = _like(z, bound)
    return z - jnp.clip(z, -bound, bound)


def _into_ball(z: jax.Array, radius: jax.Array) -> jax.Array:
    """Return the projection of every row on the ball about 0; differentiable at 0."""
    square = jnp.sum(z**2, axis=-1, keepdims=True)
    outside = square > radius**2
    return jnp.where(outside, z * (radius / jnp.sqrt(jnp.where(outside, square, 1))), z)


def _indicator(inside: jax.Array, x: jax.Array) -> jax.Array:
    return _like(x, jnp.where(inside, 0, jnp.inf))


def _slack(x: jax.Array) -> float:
    return math.sqrt(jnp.finfo(jnp.result_type(x)).eps)


def _like(z: jax.Array, value: Any) -> jax.Array:
    """Return a value in the dtype of z, so that float32 rows stay so; one [d] as a row [1, d]."""
    value = jnp.asarray(value, jnp.result_type(z))
    return value.reshape((1,) * (jnp.ndim(z) - value.ndim) + value.shape) if value.ndim else value


def _set_numbers(regularizer: Any, **bounds: dict[str, float]) -> None:
    """Check some fields as single numbers and store them as such."""
    for name, bound in bounds.items():
        object.__setattr__(regularizer, name, number(name, getattr(regularizer, name), **bound))


def _set_vectors(regularizer: Any, *names: str) -> None:
    """Check some fields as numbers or vectors [d], infinite ones too, and store them as floats."""
    for name in names:
        value = getattr(regularizer, name)
        require(
            np.ndim(value) <= 1,
            f"{name} has shape {np.shape(value)}; give a number, or one a coordinate, [d].",
        )
        if not is_traced(value):
            value = np.asarray(value, float)
            require(not np.isnan(value).any(), f"{name} has NaN; give numbers.")
            value = value if value.ndim else float(value)
        object.__setattr__(regularizer, name, value)
