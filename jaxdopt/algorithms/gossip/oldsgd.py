"""OLDSGD: local DSGD whose exchange runs under the local steps (overlapping).

    yᵢ₀ = xᵢ,      yᵢ,ₗ₊₁ = yᵢₗ − α gᵢ(yᵢₗ),  l = 0 … τ − 1,      X⁺ = W X − α Σₗ G(Yₗ)

What is mixed is where the round began, the own model too, so that it can travel while the τ
gradients are taken: a round takes max(τ t_c, t_m) in place of the τ t_c + t_m of `LocalDSGD`. A
step is a round, so the paper's time of single gradients is t = k τ + l and its x at k τ is ours;
its objective is the sum over agents, ours the mean. Not exact with heterogeneous data: the bias is
O(α). Stable for smaller stepsizes than `LocalDSGD` is, α ≲ 1 / (τ L).

Source: Zhou, Pu (2026), arXiv 2601.01493.
Confidence: summaries (two, independent; one has the two cases of the recursion the other way, and
they are assigned by what the paper says of its mean).
Theorem in the tests: x̄⁺ = x̄ − (α/n) Σᵢ Σₗ gᵢ(yᵢₗ), the recursion of local SGD, and where all
Hessians are equal x̄ is centralized gradient descent's. τ = 1 is `DGD`.
"""

from typing import Any, ClassVar

import jax

from jaxdopt._checks import Count
from jaxdopt._numbers import Nonnegative
from jaxdopt._pytree import pytree, static
from jaxdopt.algorithms.federated.clients import descend, everyone


@pytree
class State:
    """The state of OLDSGD."""

    x: jax.Array  # [n, d] estimates at the end of a round, as they are posted


@pytree
class OLDSGD:
    """yᵢ ← yᵢ − α gᵢ(yᵢ), τ times from xᵢ,  and  X⁺ = W X − α Σₗ G(Yₗ).

    Args:
        stepsize: α ≥ 0 of local steps; stable below about 1 / (τ L).
        local_steps: τ ≥ 1, the gradient steps of a round; static.
    """

    stepsize: Nonnegative
    local_steps: Count = static(default=1)
    needs: ClassVar[set[str]] = {"mixing"}
    overlap: ClassVar[int] = 1

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at x0 [n, d]."""
        return State(x0)

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one round."""
        _, g, _ = descend(everyone(problem), state.x, self.stepsize, self.local_steps, key)
        return State(network @ state.x - self.stepsize * self.local_steps * g)
