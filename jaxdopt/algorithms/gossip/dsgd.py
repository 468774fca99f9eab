"""DSGD: step, then mix what came out (adapt-then-combine, also called diffusion).

    xₖ₊₁ = W (xₖ − α g(xₖ))

Inexact with a constant stepsize and heterogeneous data, by O(α λ₂ / (1 − λ₂)): a little closer than
`DGD`, which steps after mixing, and stable for any mixing matrix where centralized SGD is. On the
complete graph it is minibatch SGD.

Source: Chen, Sayed (2012), "Diffusion adaptation strategies for distributed optimization and
learning over networks", arXiv 1111.0034; Lian et al. (2017), arXiv 1705.09056, print the other
order and allow both.
Confidence: textbook (decent-bench's code agrees).
Theorems in the tests: the fixed point X = W (X − α ∇F(X)); the noise floor falls as 1/n.
"""

from typing import Any, ClassVar

import jax

from jaxdopt._numbers import Nonnegative
from jaxdopt._pytree import pytree


@pytree
class State:
    """The state of DSGD."""

    x: jax.Array  # [n, d] estimates


@pytree
class DSGD:
    """xₖ₊₁ = W (xₖ − α g(xₖ)): mixes what it has stepped, where `DGD` steps after mixing.

    Args:
        stepsize: α ≥ 0; stable below 2 / L on every network.
    """

    stepsize: Nonnegative
    needs: ClassVar[set[str]] = {"mixing"}

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at x0 [n, d]."""
        return State(x0)

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one step."""
        g = problem.grad(state.x, key)
        return State(network @ (state.x - self.stepsize * g))
