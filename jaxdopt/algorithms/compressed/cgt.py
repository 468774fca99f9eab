"""C-GT: gradient tracking whose estimates and trackers are sent as compressed differences.

    yₖ = yₖ₋₁ − γ (I − W) ŷₖ₋₁ + g(xₖ) − g(xₖ₋₁),      xₖ₊₁ = xₖ − γ (I − W) x̂ₖ − η yₖ
    x̂ₖ = hₖ + C(xₖ − hₖ),  hₖ₊₁ = hₖ + α C(xₖ − hₖ),      and ŷ from y in the same way

Two messages a step. References start at 0, but that of x at x₀ if all agents do, which costs no
message. `BEER` mixes the references themselves, with α = 1. With `Identity` and γ = 1 it is
`DIGing`. γ and α have safe defaults (`messages.tracking`, `messages.memory`).

Source: Liao, Li, Huang, Pu (2022), "A compressed gradient tracking method for decentralized
optimization with linear convergence", arXiv 2205.12623; with error feedback, too, in "Compressed
gradient tracking methods ...", arXiv 2103.13748.
Confidence: from memory (no second source, the limit checked).
Invariant: Σᵢ yᵢ = Σᵢ gᵢ.
Theorem in the tests: linear convergence to the solution with full gradients.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdopt._numbers import Fraction, Nonnegative, Positive
from jaxdopt._pytree import pytree
from jaxdopt.algorithms.compressed import messages
from jaxdopt.compressors import Compressor


@pytree
class State:
    """The state of C-GT."""

    x: jax.Array  # [n, d] estimates
    y: jax.Array  # [n, d] mixed tracker y − γ (I − W) ŷ: its sum is the sum of the last gradients
    g: jax.Array  # [n, d] gradients last taken
    reference_x: jax.Array  # [n, d] h of x, which neighbors know
    reference_y: jax.Array  # [n, d] h of y, which neighbors know


@pytree
class CGT:
    """X⁺ = X − γ(I − W)X̂ − ηY, Y⁺ = Y − γ(I − W)Ŷ + G⁺ − G,  X̂ = H + C(X − H), H⁺ = H + αC.

    Args:
        stepsize: η ≥ 0, one for all agents or [n, 1].
        compressor: C, unbiased or contractive.
        consensus_stepsize: γ > 0 of mixing; by default (1 + e)^(−3/2), e the compressor's
            ``error(d)``.
        alpha: α in [0, 1], the references' share of a message; by default 0.9 / (1 + e).
    """

    stepsize: Nonnegative
    compressor: Compressor
    consensus_stepsize: Positive | None = None
    alpha: Fraction | None = None
    needs: ClassVar[set[str]] = {"mixing"}
    vectors: ClassVar[int] = 2

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at x0 [n, d]."""
        zero = jnp.zeros_like(x0)
        return State(x0, zero, zero, messages.references(x0), zero)

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one step."""
        gamma, alpha = messages.tracking(self, state.x), messages.memory(self, state.x)
        g = problem.grad(state.x, key)
        y = state.y + g - state.g
        qx = messages.message(self.compressor, key, state.x - state.reference_x, channel=0)
        qy = messages.message(self.compressor, key, y - state.reference_y, channel=1)
        away_x, away_y = network.laplacian((state.reference_x + qx, state.reference_y + qy))
        return State(
            state.x - gamma * away_x - self.stepsize * y,
            y - gamma * away_y,
            g,
            state.reference_x + alpha * qx,
            state.reference_y + alpha * qy,
        )
