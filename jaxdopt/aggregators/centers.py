"""Rules that move a center towards the messages, with bounded steps."""

from typing import Annotated, Any

import jax
import jax.numpy as jnp

from jaxdopt._checks import Count
from jaxdopt._numbers import Number
from jaxdopt._pytree import pytree, static
from jaxdopt.aggregators.coordinates import Median
from jaxdopt.aggregators.messages import (
    Radius,
    Received,
    Weighted,
    arrived,
    as_given,
    equally,
    length,
    share,
    shrinking,
    squared_distances_from,
    squares_exist,
)


@pytree
class GeometricMedian:
    """arg minᵤ Σᵢ |xᵢ − z|, by Weiszfeld's steps from the median of coordinates.

    z ← Σᵢ wᵢ xᵢ / Σᵢ wᵢ,  wᵢ = 1 / max(ν, |xᵢ − z|).

    A message that is not finite has weight 0.

    Args:
        smoothing: ν, more than 0.
        iterations: the number of steps; static.

    Source: Pillutla, Kakade, Harchaoui (2022), arXiv 1912.13445 (smoothed Weiszfeld); κ, of the
    exact minimum, of Allouah, Farhadkhani, Guerraoui, Gupta, Pinot, Stephan (2023), arXiv
    2302.01772.
    """

    smoothing: Annotated[Any, Number(above=0.0, shared=True)] = 1e-6
    iterations: Count = static(default=50)

    def __call__(self, x: Any, heard: Any = None, own: Any = 0, key: Any = None) -> jax.Array:
        """Return the aggregate [d] of the messages x [n, d] that are heard."""
        rows, finite = _finite(x, heard)

        def step(_: Any, z: jax.Array) -> jax.Array:
            away = jnp.sum((rows - z) ** 2, axis=1)
            weights = jnp.where(finite, jax.lax.rsqrt(jnp.maximum(away, self.smoothing**2)), 0)
            weights = weights.astype(z.dtype) / jnp.sum(weights).astype(z.dtype)
            return jnp.matmul(weights, rows, precision="highest")

        start = Median()(x, heard).astype(rows.dtype)
        return as_given(jax.lax.fori_loop(0, self.iterations, step, start), x)

    def breakdown(self, n: int) -> int:
        """Return ⌈n / 2⌉ − 1."""
        return (n - 1) // 2

    def kappa(self, n: int, f: int) -> float:
        """Return 4 (1 + f / (n − 2f))²."""
        return 4 * (1 + share(n, f)) ** 2


@pytree
class CenteredClipping:
    """v ← v + (1/m) Σᵢ clip(xᵢ − v, τ), from v = 0: at most τ an iteration, whoever lies.

    A message that is not finite adds nothing. It measures from 0, and is meant for gradients.

    Args:
        radius: τ, at least 0.
        iterations: the number of steps; static.

    Source: Karimireddy, He, Jaggi (2021), arXiv 2012.10333, whose v starts at the last aggregate.
    Its guarantee depends on τ; no κ is known.
    """

    radius: Radius
    iterations: Count = static(default=1)

    def __call__(self, x: Any, heard: Any = None, own: Any = 0, key: Any = None) -> jax.Array:
        """Return the aggregate [d] of the messages x [n, d] that are heard."""
        rows, finite = _finite(x, heard)
        count = arrived(x, heard)[2]

        def step(_: Any, v: jax.Array) -> jax.Array:
            away = jnp.sum((rows - v) ** 2, axis=1)
            weights = equally(jnp.where(finite, shrinking(away, self.radius), 0), count, v)
            return (1 - jnp.sum(weights)) * v + jnp.matmul(weights, rows, precision="highest")

        start = jnp.zeros_like(rows[0])
        return as_given(jax.lax.fori_loop(0, self.iterations, step, start), x)

    def breakdown(self, n: int) -> int:
        """Return n: it is within τ times ``iterations`` of 0, whatever arrives."""
        return n

    def kappa(self, n: int, f: int) -> None:
        """Return None: no bound is known that does not depend on the radius."""


@pytree
class SelfCenteredClipping(Weighted):
    """x_own + (1/m) Σᵢ clip(xᵢ − x_own, τ): at most τ from one's own message; for graphs.

    A message that is not finite adds nothing.

    Args:
        radius: τ, at least 0; by default the second largest distance from one's own message, that
            of one's own among them, which withstands one liar.

    Source: He, Karimireddy, Jaggi (2022), arXiv 2202.01545, with the adaptive radius of the
    authors' code; there weights are Metropolis's. Its guarantee is that of the whole graph.
    """

    radius: Radius | None = None
    pivot = True

    def _weights(self, received: Received, own: Any) -> jax.Array:
        away, count = squared_distances_from(received, own), received.count
        if self.radius is None:
            # received in an infinite distance, so never the second largest of one liar
            second = jnp.sort(away)[jnp.maximum(count - 2, 0)]
            radius = length(jnp.where(jnp.isfinite(second), second, 0))
        else:
            radius = self.radius
        factors = jnp.where(received.finite, shrinking(away, radius), 0)
        factors = equally(factors, count, received.rows)
        rest = 1 - jnp.sum(factors)
        return factors + jnp.where(jnp.arange(len(away)) == own, rest, 0)

    def breakdown(self, n: int) -> int:
        """Return n − 1 for a given radius, 1 for the adaptive one."""
        return n - 1 if self.radius is not None else min(1, n - 1)

    def kappa(self, n: int, f: int) -> None:
        """Return None: its guarantee is that of the whole graph."""


def _finite(x: Any, heard: Any) -> tuple[jax.Array, jax.Array]:
    """Return the messages, 0 where not finite or not heard, and the mask of the others."""
    rows, mask, _ = arrived(x, heard)
    finite = mask & squares_exist(rows)
    return jnp.where(finite[:, None], rows, 0), finite
