"""Push-Pull: estimates are pulled (row-stochastic R), gradients pushed (column-stochastic C).

    yₖ = C yₖ₋₁ + g(xₖ) − g(xₖ₋₁),      xₖ₊₁ = R (xₖ − α yₖ),      y₀ = g(x₀)

No weights have to be undone: R carries the estimates to agreement, C the gradients to where they
are used. The two graphs may differ, as long as they have a common root. The file carries C yₖ in
the state, so that the gradient is taken first. With a doubly stochastic R = C it is
`GradientTracking`, on trees `STPP`; `AB` adapts after it has pulled.

Source: Pu, Shi, Xu, Nedić (2021), arXiv 1810.06653, algorithm 1.
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
    """The state of Push-Pull."""

    x: jax.Array  # [n, d] estimates
    y: jax.Array  # [n, d] mixed tracker C y: its sum is the sum of the last gradients
    g: jax.Array  # [n, d] gradients last taken


@pytree
class PushPull:
    """yₖ = C yₖ₋₁ + g(xₖ) − g(xₖ₋₁),  xₖ₊₁ = R(xₖ − α yₖ)      (any R, C with a common root).

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
        return State(network.row @ (state.x - self.stepsize * y), network.column @ y, g)
