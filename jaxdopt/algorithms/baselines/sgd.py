"""SGD: the centralized stochastic baseline, every agent's sample drawn with replacement.

    x̄ₖ₊₁ = x̄ₖ − (α/n) Σᵢ ∇fᵢₛ(x̄ₖ),      s drawn by every agent

One step takes one sample of every agent, as a decentralized method's step does, so that gradient
counts compare. It is `GradientDescent` on `Minibatch(problem, b)`, but takes the finite sum too, as
`CentralizedRR` does: a `Minibatch` problem says how many samples a step draws, a finite sum means
one. The network is ignored.

Source: Robbins, Monro (1951), "A stochastic approximation method".
Confidence: textbook.
Theorem in the tests: the stationary error falls as α/n.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdopt._numbers import Nonnegative
from jaxdopt._pytree import pytree
from jaxdopt.agents import average
from jaxdopt.problems.oracles import finite_sum


@pytree
class State:
    """The state of SGD."""

    x: jax.Array  # [n, d] the estimate, the same in every row after the first step


@pytree
class SGD:
    """x̄ₖ₊₁ = x̄ₖ − (α/n) Σᵢ ∇fᵢₛ(x̄ₖ)      (centralized).

    Args:
        stepsize: α ≥ 0; stable below 2 / L, with a noise floor proportional to α/n.
    """

    stepsize: Nonnegative
    needs: ClassVar[set[str]] = {"all", "finite sum"}

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at x0 [n, d]."""
        return State(x0)

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one step."""
        whole, batch = finite_sum(problem)
        x = jnp.broadcast_to(average(state.x), state.x.shape)
        g = whole.grad_at(x, whole.draw(key, batch))
        return State(jnp.broadcast_to(average(x - self.stepsize * g), x.shape))
