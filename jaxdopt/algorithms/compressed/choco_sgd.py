"""CHOCO-SGD: DSGD on public copies of the estimates, which compressed differences keep up to date.

    uₖ = xₖ − α gₖ
    order "before":  x̂ₖ₊₁ = x̂ₖ + C(uₖ − x̂ₖ),  xₖ₊₁ = uₖ − γ (I − W) x̂ₖ₊₁                x̂₀ = 0
    order "after":   xₖ₊₁ = uₖ − γ (I − W) x̂ₖ,  x̂ₖ₊₁ = x̂ₖ + C(xₖ₊₁ − x̂ₖ)               x̂₀ = x₀

Both are published, and have the same limit: the paper compresses before agents mix, the authors'
code after. "After" assumes a start that neighbors know, such as a common one. With `Identity` and
γ = 1 "before" is `DSGD`, "after" is `DGD`. C is contractive, biased or not. Not exact: the bias is
that of DSGD at a stepsize divided by the smaller gap. γ has a default (`messages.feedback`) that
is no guarantee; theory's is orders of magnitude smaller, tuned ones lie about it.

Source: Koloskova, Stich, Jaggi (2019), arXiv 1902.00340, algorithm 2 ("before"); Koloskova, Lin,
Stich, Jaggi (2020), arXiv 1907.09356 ("after").
Confidence: authors' code (both orders).
Theorem in the tests: the mean is not compressed, x̄ₖ₊₁ = x̄ₖ − α ḡₖ; gossip alone converges
linearly.
"""

from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp

from jaxdopt._numbers import Nonnegative, Positive
from jaxdopt._pytree import pytree, static
from jaxdopt.algorithms.compressed import messages
from jaxdopt.compressors import Compressor


@pytree
class State:
    """The state of CHOCO-SGD."""

    x: jax.Array  # [n, d] estimates
    public: jax.Array  # [n, d] x̂, which neighbors know


@pytree
class CHOCOSGD:
    """uₖ = xₖ − α gₖ,  x̂ₖ₊₁ = x̂ₖ + C(uₖ − x̂ₖ),  xₖ₊₁ = uₖ − γ(I − W) x̂ₖ₊₁.

    Args:
        stepsize: α ≥ 0.
        compressor: C, contractive, such as `TopK`.
        consensus_stepsize: γ > 0 of mixing; by default (1 − e) / (1 + e), e the compressor's
            ``error(d)``.
        order: whether messages are compressed "before" agents mix or "after"; static.
    """

    stepsize: Nonnegative
    compressor: Compressor
    consensus_stepsize: Positive | None = None
    order: Literal["before", "after"] = static(default="before")
    needs: ClassVar[set[str]] = {"mixing"}

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at x0 [n, d]."""
        return State(x0, jnp.zeros_like(x0) if self.order == "before" else x0)

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one step."""
        gamma = messages.feedback(self, state.x)
        u = state.x - self.stepsize * problem.grad(state.x, key)
        if self.order == "before":
            public = state.public + self._message(key, u - state.public)
            return State(u - gamma * network.laplacian(public), public)
        x = u - gamma * network.laplacian(state.public)
        return State(x, state.public + self._message(key, x - state.public))

    def _message(self, key: jax.Array, difference: jax.Array) -> jax.Array:
        return messages.message(self.compressor, key, difference)
