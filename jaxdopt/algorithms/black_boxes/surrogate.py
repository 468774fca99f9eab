"""What a few values say of a function's slopes: a Gaussian process, and random features of it.

    k(a, b) = exp(−|a − b|² / (2 ℓ²)),   values scaled to 0 ... 1: u = (f − min f) / (max f − min f)
    process   ∇m(y) = (max f − min f) Σⱼ cⱼ ∇k(y, zⱼ),   (K + ε I) c = u
              tr cov ∇u(y) = d / ℓ² − tr ∇k(y, Z)ᵀ (K + ε I)⁻¹ ∇k(y, Z)
    features  φ(z) = √(2/M) cos(Ω z / ℓ + b),   Ω ~ N(0, 1), b uniform in [0, 2π),  E φ(a)·φ(b) = k
              w = (max f − min f) Φᵀ (Φ Φᵀ + ε I)⁻¹ u

All is one agent's, of its queries zⱼ [m, d] and their values [m]; those that are not ``present``
[m] count nothing. ε is ``jitter``, or as much as rounding needs where that is more, m times the
precision of a number.

Source: Rasmussen, Williams (2006), Gaussian Processes for Machine Learning, equations 2.25 and 9.1;
Rahimi, Recht (2007), Random features for large-scale kernel machines.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_factor, cho_solve, solve_triangular

from jaxdopt._pytree import pytree


@pytree
class Process:
    """The posterior of a Gaussian process; `fit` makes it."""

    points: jax.Array  # [m, d]
    present: jax.Array  # [m] bool
    factor: jax.Array  # [m, m] of K + ε I, lower
    coefficients: jax.Array  # [m] c times the range of the values
    lengthscale: Any

    def slopes(self, y: jax.Array) -> jax.Array:
        """Return ∇k(y, zⱼ) at points y [c, d], [m, c, d]."""
        away = (y[None] - self.points[:, None]) / self.lengthscale
        k = jnp.exp(-jnp.sum(away**2, axis=-1) / 2)
        return jnp.where(self.present[:, None, None], -k[..., None] * away / self.lengthscale, 0)

    def gradient(self, y: jax.Array) -> jax.Array:
        """Return the gradient of f's posterior mean at y, [d]."""
        return self.coefficients @ self.slopes(y[None])[:, 0]

    def uncertainty(self, y: jax.Array) -> jax.Array:
        """Return the trace of the posterior covariance of ∇u at points y [c, d], [c]."""
        slopes = self.slopes(y)
        known = solve_triangular(self.factor, slopes.reshape(len(slopes), -1), lower=True)
        return y.shape[1] / self.lengthscale**2 - jnp.sum(known.reshape(slopes.shape) ** 2, (0, 2))


def fit(
    points: jax.Array, values: jax.Array, present: jax.Array, lengthscale: Any, jitter: Any
) -> Process:
    """Return the posterior after values [m] at points [m, d]."""
    away = (points[:, None] - points[None]) / lengthscale
    scaled, span = _scaled(values, present)
    factor = _factor(jnp.exp(-jnp.sum(away**2, axis=-1) / 2), present, jitter)
    coefficients = span * cho_solve((factor, True), scaled)
    return Process(points, present, factor, coefficients, lengthscale)


@pytree
class Features:
    """Random Fourier features φ: [d] -> [M]."""

    frequencies: jax.Array  # [M, d] Ω
    phases: jax.Array  # [M] b
    lengthscale: Any

    def angles(self, z: jax.Array) -> jax.Array:
        """Return Ω z / ℓ + b of points [..., d], [..., M]."""
        angles = z / self.lengthscale @ self.frequencies.T
        return angles + jnp.broadcast_to(self.phases, angles.shape)

    def __call__(self, z: jax.Array) -> jax.Array:
        """Return φ of points [..., d], [..., M]."""
        return jnp.sqrt(2 / len(self.phases)) * jnp.cos(self.angles(z))

    def gradient(self, z: jax.Array, w: jax.Array) -> jax.Array:
        """Return ∇(φ·w) = −√(2/M) Ωᵀ (sin(Ω z / ℓ + b) w) / ℓ at one z, [d]."""
        slopes = -jnp.sqrt(2 / len(self.phases)) * jnp.sin(self.angles(z)) * w
        return slopes @ self.frequencies / self.lengthscale

    def weights(
        self, points: jax.Array, values: jax.Array, present: jax.Array, jitter: Any
    ) -> jax.Array:
        """Return the weights [M] of the ridge regression on values [m] at points [m, d]."""
        scaled, span = _scaled(values, present)
        phi = jnp.where(present[:, None], self(points), 0)
        factor = _factor(phi @ phi.T, present, jitter)
        return span * (phi.T @ cho_solve((factor, True), scaled))


def draw(key: jax.Array, features: int, like: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return Ω [M, d] and b [M] for points like x [d]."""
    of_frequencies, of_phases = jax.random.split(key)
    frequencies = jax.random.normal(of_frequencies, (features, like.size), like.dtype)
    phases = jax.random.uniform(of_phases, (features,), like.dtype, maxval=2 * jnp.pi)
    return frequencies, phases


def _scaled(values: jax.Array, present: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return values scaled to 0 ... 1, 0 where they are all equal or not there, and their range."""
    low = jnp.min(jnp.where(present, values, jnp.inf))
    span = jnp.max(jnp.where(present, values, -jnp.inf)) - low
    return jnp.where(present, (values - low) / jnp.where(span > 0, span, 1), 0), span


def _factor(gram: jax.Array, present: jax.Array, jitter: Any) -> jax.Array:
    """Return the lower Cholesky factor of a Gram matrix + ε I, 1 for those that are not there."""
    m = len(gram)
    jitter = jnp.maximum(jnp.asarray(jitter, gram.dtype), m * jnp.finfo(gram.dtype).eps)
    gram = jnp.where(present[:, None] & present[None], gram, 0)
    diagonal = jnp.where(present, jitter, 1)
    return cho_factor(gram + jnp.diag(diagonal), lower=True)[0]
