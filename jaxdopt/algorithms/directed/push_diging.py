"""Push-DIGing: gradient tracking on directed graphs, with only column-stochastic weights.

    yₖ = C yₖ₋₁ + g(xₖ) − g(xₖ₋₁),      uₖ₊₁ = C (uₖ − α yₖ),      wₖ₊₁ = C wₖ,      xₖ = uₖ / wₖ

from y₀ = g(x₀), u₀ = x₀, w₀ = 1. The file carries C yₖ in the state, so that the gradient is taken
first and a step exchanges everything together.

Source: Nedić, Olshevsky, Shi (2017), arXiv 1607.03218, algorithm 2.
Confidence: paper.
Invariants: Σᵢ yᵢ = Σᵢ gᵢ, Σᵢ wᵢ = n.
Theorem in the tests: linear convergence to the solution with a constant stepsize.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdopt._numbers import Nonnegative
from jaxdopt._pytree import pytree
from jaxdopt.algorithms.directed.ratio import Ratio


@pytree
class State(Ratio):
    """The state of Push-DIGing."""

    u: jax.Array  # [n, d] weighted estimates
    w: jax.Array  # [n, 1] push-sum weights; their sum is n
    y: jax.Array  # [n, d] mixed tracker C y: its sum is the sum of the last gradients
    g: jax.Array  # [n, d] gradients last taken


@pytree
class PushDIGing:
    """yₖ = C yₖ₋₁ + g(xₖ) − g(xₖ₋₁),  uₖ₊₁ = C(uₖ − α yₖ),  wₖ₊₁ = C wₖ,  xₖ = uₖ / wₖ.

    Args:
        stepsize: α ≥ 0, one for all agents or [n, 1].
    """

    stepsize: Nonnegative
    needs: ClassVar[set[str]] = {"push"}
    vectors: ClassVar[int] = 2
    numbers: ClassVar[int] = 1  # the weight

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at x0 [n, d], so that y₀ = g(x₀)."""
        zero = jnp.zeros_like(x0)
        return State(x0, jnp.ones_like(x0[:, :1]), zero, zero)

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one step."""
        g = problem.grad(state.x, key)
        y = state.y + g - state.g
        u, w, y = network.column @ (state.u - self.stepsize * y, state.w, y)
        return State(u, w, y, g)
