"""ATC gradient tracking, also known as Aug-DGM: both the estimates and the trackers step, then mix.

    yₖ = W (yₖ₋₁ + g(xₖ) − g(xₖ₋₁)),      xₖ₊₁ = W (xₖ − α yₖ)

Mixing twice makes it the most robust of the three gradient tracking forms (see `GradientTracking`
and `DIGing`), at the price of two exchanges one after the other in every step: x can be sent only
when y has arrived.

Source: Xu, Zhu, Soh, Xie (2015), "Augmented distributed gradient methods for multi-agent
optimization under uncoordinated constant stepsizes" (Aug-DGM).
Confidence: paper (but for the start).
Departs: y₀ = W g(x₀) where the paper has g(x₀): the recursion from y₋₁ = g(x₋₁) = 0.
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
    """The state of ATC gradient tracking."""

    x: jax.Array  # [n, d] estimates
    y: jax.Array  # [n, d] trackers: their sum is the sum of the last gradients
    g: jax.Array  # [n, d] gradients last taken


@pytree
class ATCGT:
    """yₖ = W(yₖ₋₁ + g(xₖ) − g(xₖ₋₁)),  xₖ₊₁ = W(xₖ − α yₖ)      (any doubly stochastic W).

    Args:
        stepsize: α ≥ 0, one for all agents or [n, 1].
    """

    stepsize: Nonnegative
    needs: ClassVar[set[str]] = {"mixing"}
    vectors: ClassVar[int] = 2
    exchanges: ClassVar[int] = 2  # y waits for x

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at x0 [n, d], so that y₀ = W g(x₀)."""
        zero = jnp.zeros_like(x0)
        return State(x0, zero, zero)

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one step."""
        g = problem.grad(state.x, key)
        y = network @ (state.y + g - state.g)
        return State(network @ (state.x - self.stepsize * y), y, g)
