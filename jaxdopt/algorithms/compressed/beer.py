"""BEER: gradient tracking on public copies of estimates and trackers, both compressed.

    vₖ = vₖ₋₁ − γ (I − W) ĝₖ₋₁ + g(xₖ) − g(xₖ₋₁),      ĝₖ = ĝₖ₋₁ + C(vₖ − ĝₖ₋₁)
    x̂ₖ = x̂ₖ₋₁ + C(xₖ − x̂ₖ₋₁),      xₖ₊₁ = xₖ − γ (I − W) x̂ₖ − η vₖ

Two messages a step. C is contractive, biased or not: `TopK`, or `Contractive` of an unbiased one.
Public copies start at 0, so that the first messages are C(x₀) and C(v₀). With `Identity` and γ = 1
it is `DIGing`. γ has a default (`messages.feedback`).

Source: Zhao, Li, Li, Richtárik, Chi (2022), arXiv 2201.13320, algorithm 1, written with the
gradient first.
Confidence: authors' code.
Invariant: Σᵢ vᵢ = Σᵢ gᵢ.
Theorem in the tests: linear convergence to the solution with full gradients.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdopt._numbers import Nonnegative, Positive
from jaxdopt._pytree import pytree
from jaxdopt.algorithms.compressed import messages
from jaxdopt.compressors import Compressor


@pytree
class State:
    """The state of BEER."""

    x: jax.Array  # [n, d] estimates
    y: jax.Array  # [n, d] mixed tracker v − γ (I − W) ĝ: its sum is the sum of the last gradients
    g: jax.Array  # [n, d] gradients last taken
    public_x: jax.Array  # [n, d] x̂, which neighbors know
    public_y: jax.Array  # [n, d] ĝ, which neighbors know


@pytree
class BEER:
    """Gradient tracking, X⁺ = X − γ(I − W)X̂ − ηV, V⁺ = V − γ(I − W)Ĝ + G⁺ − G, compressed.

    Args:
        stepsize: η ≥ 0.
        compressor: C, contractive, such as `TopK`.
        consensus_stepsize: γ > 0 of mixing; by default (1 − e) / (1 + e), e the compressor's
            ``error(d)``.
    """

    stepsize: Nonnegative
    compressor: Compressor
    consensus_stepsize: Positive | None = None
    needs: ClassVar[set[str]] = {"mixing"}
    vectors: ClassVar[int] = 2

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at x0 [n, d]."""
        zero = jnp.zeros_like(x0)
        return State(x0, zero, zero, zero, zero)

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one step."""
        gamma = messages.feedback(self, state.x)
        g = problem.grad(state.x, key)
        v = state.y + g - state.g
        public_x, public_y = (
            public + messages.message(self.compressor, key, own - public, channel)
            for channel, (own, public) in enumerate(
                ((state.x, state.public_x), (v, state.public_y))
            )
        )
        x = state.x - gamma * network.laplacian(public_x) - self.stepsize * v
        return State(x, v - gamma * network.laplacian(public_y), g, public_x, public_y)
