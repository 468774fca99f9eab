"""DeepSqueeze: DSGD that sends compressed models and keeps what compression leaves out.

    pₖ = xₖ − α gₖ,      qₖ = C(pₖ + eₖ),      eₖ₊₁ = pₖ + eₖ − qₖ,      xₖ₊₁ = pₖ − γ (I − W) qₖ

No agent keeps copies of its neighbors. Not exact, and as the messages do not tend to zero, the
error of compression does not either: `CHOCOSGD` goes lower. With `Identity` and γ = 1 it is `DSGD`.
γ has a default (`messages.feedback`).

Source: Tang, Lian, Qiu, Yuan, Zhang, Zhang, Liu (2019), arXiv 1907.07346, algorithm 1.
Confidence: third-party code.
Theorem in the tests: the mean is not compressed, x̄ₖ₊₁ = x̄ₖ − α ḡₖ.
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
    """The state of DeepSqueeze."""

    x: jax.Array  # [n, d] estimates
    e: jax.Array  # [n, d] what compression has left out


@pytree
class DeepSqueeze:
    """pₖ = xₖ − α gₖ,  qₖ = C(pₖ + eₖ),  eₖ₊₁ = pₖ + eₖ − qₖ,  xₖ₊₁ = pₖ − γ(I − W) qₖ.

    Args:
        stepsize: α ≥ 0.
        compressor: C, contractive, such as `TopK`.
        consensus_stepsize: γ > 0 of mixing; by default (1 − e) / (1 + e), e the compressor's
            ``error(d)``.
    """

    stepsize: Nonnegative
    compressor: Compressor
    consensus_stepsize: Positive | None = None
    needs: ClassVar[set[str]] = {"mixing"}

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at x0 [n, d]."""
        return State(x0, jnp.zeros_like(x0))

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one step."""
        gamma = messages.feedback(self, state.x)
        p = state.x - self.stepsize * problem.grad(state.x, key)
        q = messages.message(self.compressor, key, p + state.e)
        return State(p - gamma * network.laplacian(q), p + state.e - q)
