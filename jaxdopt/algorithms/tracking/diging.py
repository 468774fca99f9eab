"""DIGing: gradient tracking in the combine-then-adapt order.

    yₖ = W yₖ₋₁ + g(xₖ) − g(xₖ₋₁),      xₖ₊₁ = W xₖ − α yₖ

`GradientTracking` steps before it mixes, `ATCGT` also corrects the tracker before it mixes; DIGing
does neither, and wants the smallest stepsize of the three. The file carries W yₖ in the state, so
that the gradient is taken first, and a step exchanges x and y together.

Source: Nedić, Olshevsky, Shi (2017), arXiv 1607.03218 (undirected, fixed W); Qu, Li (2018), arXiv
1605.07112, found the same.
Confidence: paper (both).
Invariant: Σᵢ yᵢ = Σᵢ gᵢ for any doubly stochastic W.
Theorem in the tests: linear convergence to the solution with a constant stepsize.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdopt._numbers import Nonnegative
from jaxdopt._pytree import pytree


@pytree
class State:
    """The state of DIGing."""

    x: jax.Array  # [n, d] estimates
    y: jax.Array  # [n, d] mixed tracker W y: its sum is the sum of the last gradients
    g: jax.Array  # [n, d] gradients last taken


@pytree
class DIGing:
    """yₖ = W yₖ₋₁ + g(xₖ) − g(xₖ₋₁),  xₖ₊₁ = W xₖ − α yₖ      (any doubly stochastic W).

    Args:
        stepsize: α ≥ 0, one for all agents or [n, 1].
    """

    stepsize: Nonnegative
    needs: ClassVar[set[str]] = {"mixing"}
    vectors: ClassVar[int] = 2

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at x0 [n, d], so that y₀ = g(x₀)."""
        zero = jnp.zeros_like(x0)
        return State(x0, zero, zero)

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one step."""
        g = problem.grad(state.x, key)
        y = state.y + g - state.g
        return State(network @ state.x - self.stepsize * y, network @ y, g)
