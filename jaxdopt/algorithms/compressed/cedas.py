"""CEDAS: exact diffusion with compressed messages and a dual that goes with the stepsize.

    yₖ = xₖ − ηₖ gₖ − dₖ,      qₖ = Q(yₖ − hₖ),      ŷₖ = hₖ + qₖ,      hₖ₊₁ = hₖ + α qₖ
    dₖ₊₁ = dₖ + (γ/2) (I − W) ŷₖ,      xₖ₊₁ = xₖ − ηₖ gₖ − dₖ₊₁,      d₀ = 0

q is sent. h₀ is x₀ if all agents start there, which costs no message, and 0 otherwise. Compression
never touches the mean, x̄ₖ₊₁ = x̄ₖ − ηₖ ḡₖ. Where agents keep W h by recursion it is computed here,
(I − W) ŷ by differences: the recursion drifts in float32. d holds the stepsize, `LEAD`'s does not:
with decreasing stepsizes they are different methods. With `Identity` and γ = 1 it is
`ExactDiffusion`.

γ and α have safe defaults (`messages.consensus`, `messages.memory`); the region of γ shrinks
with the stepsize, so that a run can look well and blow up late if γ is too large.

Source: Huang, Pu (2023), arXiv 2301.05872.
Confidence: third-party code (with a plain step before what is the first one here), authors' code
(the uncompressed form); open: the paper's start.
Invariant: Σᵢ dᵢ = 0.
Theorem in the tests: linear convergence to the solution with full gradients, a constant stepsize.
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
    """The state of CEDAS."""

    x: jax.Array  # [n, d] estimates
    d: jax.Array  # [n, d] dual; sums to zero over agents
    h: jax.Array  # [n, d] references, which neighbors know


@pytree
class CEDAS:
    """dₖ₊₁ = dₖ + (γ/2)(I − W)(hₖ + Q(xₖ − ηgₖ − dₖ − hₖ)),  xₖ₊₁ = xₖ − ηgₖ − dₖ₊₁, W = Wᵀ.

    Args:
        stepsize: η ≥ 0.
        compressor: Q, unbiased, such as `Dither`.
        consensus_stepsize: γ > 0 of mixing; by default (1 + e)⁻³, e the ``error(d)`` of an unbiased
            compressor.
        alpha: α in [0, 1], the references' share of a message; by default 0.9 / (1 + e).
    """

    stepsize: Nonnegative
    compressor: Compressor
    consensus_stepsize: Positive | None = None
    alpha: Fraction | None = None
    needs: ClassVar[set[str]] = {"mixing", "symmetric"}

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at x0 [n, d]."""
        return State(x0, jnp.zeros_like(x0), messages.references(x0))

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one step."""
        gamma, alpha = messages.consensus(self, state.x), messages.memory(self, state.x)
        adapted = state.x - self.stepsize * problem.grad(state.x, key)
        q = messages.message(self.compressor, key, adapted - state.d - state.h)
        d = state.d + gamma / 2 * network.laplacian(state.h + q)
        return State(adapted - d, d, state.h + alpha * q)
