"""PG-EXTRA: EXTRA with a proximal map, for objectives with a regularizer.

    zₖ₊₁ = W xₖ + zₖ − W̃ xₖ₋₁ − α (g(xₖ) − g(xₖ₋₁)),      z₁ = W x₀ − α g(x₀),      W̃ = (I + W)/2,
    xₖ₊₁ = prox_{αr}(zₖ₊₁)

in its primal-dual form, the same sequence:

    zₖ₊₁ = W xₖ − α g(xₖ) − dₖ,      dₖ₊₁ = dₖ + (I − W) xₖ / 2,      d₀ = 0

r is the problem's regularizer (`jd.problems.Composite`); without one this is `EXTRA`.

Source: Shi, Ling, Wu, Yin (2015), arXiv 1506.02308, algorithm 1.
Confidence: paper.
Theorem in the tests: with a symmetric W it converges for α < 2 λ_min(W̃) / L (theorem 1).
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdopt._numbers import Nonnegative
from jaxdopt._pytree import pytree
from jaxdopt.problems.problem import proximal


@pytree
class State:
    """The state of PG-EXTRA."""

    x: jax.Array  # [n, d] estimates
    d: jax.Array  # [n, d] accumulated disagreement Σ (I − W) x / 2; sums to zero over agents


@pytree
class PGEXTRA:
    """xₖ₊₁ = prox_{αr}(W xₖ − α g(xₖ) − dₖ),  dₖ₊₁ = dₖ + (I − W) xₖ / 2      (symmetric W).

    Args:
        stepsize: α ≥ 0; converges below (1 + λ_min(W)) / L.
    """

    stepsize: Nonnegative
    composite: ClassVar[bool] = True
    needs: ClassVar[set[str]] = {"mixing", "symmetric"}

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at x0 [n, d]."""
        return State(x0, jnp.zeros_like(x0))

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one step."""
        g = problem.grad(state.x, key)
        away = network.laplacian(state.x)
        z = state.x - away - self.stepsize * g - state.d
        return State(proximal(problem, z, self.stepsize), state.d + away / 2)
