"""Gradient descent: the centralized baseline, with the agents' gradients averaged exactly.

    x̄ₖ₊₁ = x̄ₖ − (α/n) Σᵢ ∇fᵢ(x̄ₖ)

The network is ignored: this is what a method could reach if every exchange were an
exact average, and its rate is the one that linear speed-ups are measured against. With a stochastic
problem it is minibatch SGD over n agents.

Source: Cauchy (1847); Nesterov (2004), "Introductory lectures on convex optimization".
Confidence: textbook.
Theorem in the tests: for L-smooth μ-strongly convex F and α ≤ 2/(L + μ) the distance to the
solution falls by 1 − αμ in every step (Nesterov 2004, theorem 2.1.15).
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdopt._numbers import Nonnegative
from jaxdopt._pytree import pytree
from jaxdopt.agents import average


@pytree
class State:
    """The state of gradient descent."""

    x: jax.Array  # [n, d] the estimate, the same in every row after the first step


@pytree
class GradientDescent:
    """x̄ₖ₊₁ = x̄ₖ − (α/n) Σᵢ ∇fᵢ(x̄ₖ)      (centralized).

    Args:
        stepsize: α ≥ 0; stable below 2 / L.
    """

    stepsize: Nonnegative
    needs: ClassVar[set[str]] = {"all"}

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at x0 [n, d]; the first step averages its rows."""
        return State(x0)

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one step."""
        x = jnp.broadcast_to(average(state.x), state.x.shape)
        g = problem.grad(x, key)
        return State(jnp.broadcast_to(average(x - self.stepsize * g), x.shape))
