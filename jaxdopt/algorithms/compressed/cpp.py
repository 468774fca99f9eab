"""CPP: Push-Pull with compressed messages.

    yₖ = yₖ₋₁ − γ (I − C) pₖ₋₁ + g(xₖ) − g(xₖ₋₁),      pₖ = Q(yₖ),      y₀ = g(x₀)
    form "atc":  x̃ = xₖ − λ yₖ,  x̂ = uₖ + Q(x̃ − uₖ),  xₖ₊₁ = x̃ − γ (I − R) x̂
    form "cta":  x̂ = uₖ + Q(xₖ − uₖ),  xₖ₊₁ = xₖ − γ (I − R) x̂ − λ yₖ
    uₖ₊₁ = uₖ + α (x̂ − uₖ),      u₀ = x₀ if all agents start there, else 0

Two messages a step, one along each graph. The tracker tends to zero and is compressed as it is; the
estimates need references u. With `Identity` and γ = 1 "atc" is `PushPull`, "cta" is `AB`. One λ an
agent, [n, 1], may be 0 but at a common root. γ and α have safe defaults (`messages.tracking`,
`messages.memory`).

Source: Song, Shi, Pu, Yan (2022), arXiv 2106.07243.
Confidence: from memory (no second source, the limit checked); open: which of the forms is printed,
and whether p is compressed without a reference.
Departs: one γ for both graphs, and R u is computed rather than kept by recursion.
Invariant: Σᵢ yᵢ = Σᵢ gᵢ.
Theorem in the tests: linear convergence to the solution with full gradients.
"""

from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp

from jaxdopt._numbers import Fraction, Nonnegative, Positive
from jaxdopt._pytree import pytree, static
from jaxdopt.algorithms.compressed import messages
from jaxdopt.compressors import Compressor


@pytree
class State:
    """The state of CPP."""

    x: jax.Array  # [n, d] estimates
    y: jax.Array  # [n, d] mixed tracker y − γ (I − C) p: its sum is the sum of the last gradients
    g: jax.Array  # [n, d] gradients last taken
    u: jax.Array  # [n, d] references, which neighbors know


@pytree
class CPP:
    """X⁺ = X − λY − γ(I − R)X̂,  Y⁺ = Y − γ(I − C) Q(Y) + G⁺ − G,  X̂ = U + Q(X − λY − U).

    Args:
        stepsize: λ ≥ 0, one for all agents or [n, 1]; it may be 0 except at one common root.
        compressor: Q, unbiased, such as `Dither`.
        consensus_stepsize: γ > 0 of mixing, on both graphs; by default (1 + e)^(−3/2), e the
            compressor's ``error(d)``.
        alpha: α in [0, 1], the references' share of a message; by default 0.9 / (1 + e).
        form: whether agents step before they mix, "atc", or after, "cta"; static.
    """

    stepsize: Nonnegative
    compressor: Compressor
    consensus_stepsize: Positive | None = None
    alpha: Fraction | None = None
    form: Literal["atc", "cta"] = static(default="atc")
    needs: ClassVar[set[str]] = {"push-pull"}
    vectors: ClassVar[int] = 2

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at x0 [n, d]."""
        zero = jnp.zeros_like(x0)
        return State(x0, zero, zero, messages.references(x0))

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one step."""
        gamma, alpha = messages.tracking(self, state.x), messages.memory(self, state.x)
        g = problem.grad(state.x, key)
        y = state.y + g - state.g
        adapted = state.x - self.stepsize * y
        sent = adapted if self.form == "atc" else state.x
        q = messages.message(self.compressor, key, sent - state.u, channel=0)
        p = messages.message(self.compressor, key, y, channel=1)
        return State(
            adapted - gamma * network.row.laplacian(state.u + q),
            y - gamma * network.column.laplacian(p),
            g,
            state.u + alpha * q,
        )
