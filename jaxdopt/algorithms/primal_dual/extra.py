"""EXTRA: DGD with the accumulated disagreement taken off, which makes it exact.

    x₁ = W x₀ − α g(x₀),      xₖ₊₂ = (I + W) xₖ₊₁ − W̃ xₖ − α (g(xₖ₊₁) − g(xₖ)),      W̃ = (I + W)/2

in its primal-dual form, the same sequence:

    xₖ₊₁ = W xₖ − α g(xₖ) − dₖ,      dₖ₊₁ = dₖ + (I − W) xₖ / 2,      d₀ = 0

(subtract two consecutive lines). One gradient and one exchange a step from the first step on; with
a schedule, each αₖ stays with its own gradient. In exact arithmetic Σᵢ dᵢ = 0; the laplacian's
differences keep it so in float32.

Source: Shi, Ling, Wu, Yin (2015), arXiv 1404.6264.
Confidence: paper (decent-bench's code agrees).
Theorem in the tests: with a symmetric W it converges for α < 2 λ_min(W̃) / L (theorem 3.3).
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdopt._numbers import Nonnegative
from jaxdopt._pytree import pytree


@pytree
class State:
    """The state of EXTRA."""

    x: jax.Array  # [n, d] estimates
    d: jax.Array  # [n, d] accumulated disagreement Σ (I − W) x / 2; sums to zero over agents


@pytree
class EXTRA:
    """xₖ₊₁ = W xₖ − α g(xₖ) − dₖ,  dₖ₊₁ = dₖ + (I − W) xₖ / 2      (symmetric W).

    Args:
        stepsize: α ≥ 0; converges below (1 + λ_min(W)) / L.
    """

    stepsize: Nonnegative
    needs: ClassVar[set[str]] = {"mixing", "symmetric"}

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at x0 [n, d]."""
        return State(x0, jnp.zeros_like(x0))

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one step."""
        g = problem.grad(state.x, key)
        away = network.laplacian(state.x)
        return State(state.x - away - self.stepsize * g - state.d, state.d + away / 2)
