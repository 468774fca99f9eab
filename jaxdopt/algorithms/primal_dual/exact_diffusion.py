"""Exact diffusion, also known as D²: diffusion with the last step's bias corrected.

    x₁ = V (x₀ − α g(x₀)),    xₖ₊₂ = V (2 xₖ₊₁ − xₖ − α (g(xₖ₊₁) − g(xₖ))),    V = (1 − θ) I + θ W

in its primal-dual form, the same sequence:

    φₖ = xₖ − α g(xₖ) − dₖ,      xₖ₊₁ = V φₖ,      dₖ₊₁ = dₖ + (I − V) φₖ,      d₀ = 0

(φₖ₊₁ = 2 xₖ₊₁ − α g(xₖ₊₁) − (dₖ + φₖ), and dₖ + φₖ = xₖ − α g(xₖ)). The default θ = 1/2 needs
nothing of W but symmetry; θ = 1 is D² on W itself and needs λ_min(W) > −1/3, which the ring with
weights 1/3 and even n just misses. With a schedule, each αₖ stays with its own gradient.

Source: Yuan, Ying, Zhao, Sayed (2018), arXiv 1702.05122 (exact diffusion, V = (I + W)/2); Tang,
Lian, Yan, Zhang, Liu (2018), arXiv 1803.07068 (D², V = W).
Confidence: paper (both; decent-bench's code agrees).
Theorem in the tests: linear convergence to the solution with a constant stepsize.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdopt._numbers import Fraction, Nonnegative
from jaxdopt._pytree import pytree


@pytree
class State:
    """The state of exact diffusion."""

    x: jax.Array  # [n, d] estimates
    d: jax.Array  # [n, d] accumulated correction Σ (I − V) φ; sums to zero over agents


@pytree
class ExactDiffusion:
    """φₖ = xₖ − α g(xₖ) − dₖ,  xₖ₊₁ = V φₖ,  dₖ₊₁ = dₖ + (I − V) φₖ      (symmetric W).

    Args:
        stepsize: α ≥ 0.
        relaxation: θ in [0, 1]: V = (1 − θ) I + θ W; 1/2 suits every symmetric W, 1 is D².
    """

    stepsize: Nonnegative
    relaxation: Fraction = 0.5
    needs: ClassVar[set[str]] = {"mixing", "symmetric"}

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at x0 [n, d]."""
        return State(x0, jnp.zeros_like(x0))

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one step."""
        g = problem.grad(state.x, key)
        phi = state.x - self.stepsize * g - state.d
        away = self.relaxation * network.laplacian(phi)
        return State(phi - away, state.d + away)
