"""Local DSGD: several steps alone, then one exchange (also decentralized FedAvg).

    yᵢ₀ = xᵢ,      yᵢ,ₗ₊₁ = yᵢₗ − α gᵢ(yᵢₗ),  l = 0 … τ − 1,      X⁺ = W Y_τ

A step is a round of τ gradients and one exchange, so the papers' time of single gradients is
t = k τ + l. Stepsizes stay the same within a round. Not exact with heterogeneous data: the bias is
O(α), growing with τ.

Source: Koloskova, Loizou, Boreiri, Jaggi, Stich (2020), arXiv 2003.10422, cover it by weights that
are the identity between exchanges.
Confidence: textbook.
Theorem in the tests: whatever W, noise and data, x̄⁺ = x̄ − (α/n) Σᵢ Σₗ gᵢ(yᵢₗ).
"""

from typing import Any, ClassVar

import jax

from jaxdopt._checks import Count
from jaxdopt._numbers import Nonnegative
from jaxdopt._pytree import pytree, static
from jaxdopt.algorithms.federated.clients import descend, everyone


@pytree
class State:
    """The state of local DSGD."""

    x: jax.Array  # [n, d] estimates, as the round's exchange leaves them


@pytree
class LocalDSGD:
    """yᵢ ← yᵢ − α gᵢ(yᵢ), τ times from xᵢ,  then  X⁺ = W Y.

    Args:
        stepsize: α ≥ 0 of local steps.
        local_steps: τ ≥ 1, the gradient steps of a round; static.
    """

    stepsize: Nonnegative
    local_steps: Count = static(default=1)
    needs: ClassVar[set[str]] = {"mixing"}

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at x0 [n, d]."""
        return State(x0)

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one round."""
        y, *_ = descend(everyone(problem), state.x, self.stepsize, self.local_steps, key)
        return State(network @ y)
