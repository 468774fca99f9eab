"""LEAD: NIDS with compressed messages.

    x₁ = x₀ − η g₀
    yₖ = xₖ − η gₖ − η dₖ,      qₖ = Q(yₖ − hₖ),      ŷₖ = hₖ + qₖ,      hₖ₊₁ = hₖ + α qₖ
    dₖ₊₁ = dₖ + (γ/2η) (I − W) ŷₖ,      xₖ₊₁ = xₖ − η gₖ − η dₖ₊₁,      d₁ = 0

q is sent, from the second step on (the first counts as much). h₁ is x₀ if all agents start there,
which costs no message, and 0 otherwise. d tends to −∇fᵢ(x*): with decreasing stepsizes, `CEDAS` is
another method. (I − W) ŷ is computed by differences where the paper keeps W h by recursion, which
drifts. With `Identity` and γ = 1 it is `NIDS` with a constant stepsize. γ and α have safe defaults
(`messages.consensus`, `messages.memory`); the paper's are 1 and 0.5.

Source: Liu, Li, Wang, Tang, Yan (2021), arXiv 2007.00232, algorithm 1.
Confidence: authors' slides (γ = 1), from memory (where γ enters, and the paper's 1 and 0.5).
Invariant: Σᵢ dᵢ = 0 if agents share η.
Theorem in the tests: linear convergence to the solution with full gradients.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdopt._numbers import Fraction, Positive
from jaxdopt._pytree import pytree
from jaxdopt.algorithms.compressed import messages
from jaxdopt.compressors import Compressor


@pytree
class State:
    """The state of LEAD."""

    x: jax.Array  # [n, d] estimates
    d: jax.Array  # [n, d] dual; sums to zero over agents
    h: jax.Array  # [n, d] references, which neighbors know
    begun: jax.Array  # [] 0 before the first step, which sends nothing, and 1 after it


@pytree
class LEAD:
    """dₖ₊₁ = dₖ + (γ/2η)(I − W)(hₖ + Q(xₖ − ηgₖ − ηdₖ − hₖ)),  xₖ₊₁ = xₖ − ηgₖ − ηdₖ₊₁, W = Wᵀ.

    Args:
        stepsize: η > 0.
        compressor: Q, unbiased, such as `Dither`.
        consensus_stepsize: γ > 0 of mixing; by default (1 + e)⁻³, e the ``error(d)`` of an unbiased
            one; the paper's is 1.
        alpha: α in [0, 1], the references' share of a message; by default 0.9 / (1 + e); the
            paper's is 0.5.
    """

    stepsize: Positive
    compressor: Compressor
    consensus_stepsize: Positive | None = None
    alpha: Fraction | None = None
    needs: ClassVar[set[str]] = {"mixing", "symmetric"}

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at x0 [n, d]."""
        zero = jnp.zeros_like(x0)
        return State(x0, zero, messages.references(x0), jnp.zeros((), x0.dtype))

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one step."""
        gamma, alpha = messages.consensus(self, state.x), messages.memory(self, state.x)
        adapted = state.x - self.stepsize * problem.grad(state.x, key)
        y = adapted - self.stepsize * state.d
        q = state.begun * messages.message(self.compressor, key, y - state.h)
        d = state.d + gamma / (2 * self.stepsize) * network.laplacian(state.h + q)
        return State(
            adapted - self.stepsize * d, d, state.h + alpha * q, jnp.ones_like(state.begun)
        )
