"""AB: Push-Pull that adapts after it has pulled.

    yₖ = C yₖ₋₁ + g(xₖ) − g(xₖ₋₁),      xₖ₊₁ = R xₖ − α yₖ,      y₀ = g(x₀)

The file carries C yₖ in the state, so that the gradient is taken first. With a doubly stochastic
R = C it is `DIGing`.

Source: Xin, Khan (2018), arXiv 1803.02503.
Confidence: paper.
Invariant: Σᵢ yᵢ = Σᵢ gᵢ.
Theorem in the tests: linear convergence to the solution with a constant stepsize.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdopt._numbers import Nonnegative
from jaxdopt._pytree import pytree


@pytree
class State:
    """The state of AB."""

    x: jax.Array  # [n, d] estimates
    y: jax.Array  # [n, d] mixed tracker C y: its sum is the sum of the last gradients
    g: jax.Array  # [n, d] gradients last taken


@pytree
class AB:
    """yₖ = C yₖ₋₁ + g(xₖ) − g(xₖ₋₁),  xₖ₊₁ = R xₖ − α yₖ      (any R, C with a common root).

    Args:
        stepsize: α ≥ 0, one for all agents or [n, 1].
    """

    stepsize: Nonnegative
    needs: ClassVar[set[str]] = {"push-pull"}
    vectors: ClassVar[int] = 2

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at x0 [n, d], so that y₀ = g(x₀)."""
        zero = jnp.zeros_like(x0)
        return State(x0, zero, zero)

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one step."""
        g = problem.grad(state.x, key)
        y = state.y + g - state.g
        return State(network.row @ state.x - self.stepsize * y, network.column @ y, g)
