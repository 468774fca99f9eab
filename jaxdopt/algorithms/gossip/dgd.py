"""DGD: mix, then step with the gradient at the unmixed estimate (combine-then-adapt).

    xₖ₊₁ = W xₖ − α g(xₖ)

Inexact with a constant stepsize: the limit solves (I − W) X + α ∇F(X) = 0 and lies O(α) from the
solution where the agents' data differ. `DSGD` is the adapt-then-combine order, W (x − α g).

Source: Nedić, Ozdaglar (2009), "Distributed subgradient methods for multi-agent optimization";
Yuan, Ling, Yin (2016), arXiv 1310.7063.
Confidence: textbook (decent-bench's code agrees).
Theorems in the tests: the fixed point above; stable for α < (1 + λ_min(W)) / L (arXiv 1310.7063,
theorem 1).
"""

from typing import Any, ClassVar

import jax

from jaxdopt._numbers import Nonnegative
from jaxdopt._pytree import pytree


@pytree
class State:
    """The state of DGD."""

    x: jax.Array  # [n, d] estimates


@pytree
class DGD:
    """xₖ₊₁ = W xₖ − α g(xₖ): steps after mixing, where `DSGD` mixes what it has stepped.

    Args:
        stepsize: α ≥ 0; stable below (1 + λ_min(W)) / L.
    """

    stepsize: Nonnegative
    needs: ClassVar[set[str]] = {"mixing"}

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at x0 [n, d]."""
        return State(x0)

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one step."""
        g = problem.grad(state.x, key)
        return State(network @ state.x - self.stepsize * g)
