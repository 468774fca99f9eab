"""FedAvg-M: FedAvg whose local directions are mixed with the last round's mean direction.

    i ∈ Sₖ:  yᵢ = xₖ,   K times  yᵢ ← yᵢ − η (β gᵢ(yᵢ) + (1 − β) mₖ)
    mₖ₊₁ = (1/p_S) Σ_{i ∈ Sₖ} pᵢ (xₖ − yᵢ)/(ηK),   p_S = Σ_{i ∈ Sₖ} pᵢ,   xₖ₊₁ = xₖ − η_g η K mₖ₊₁

(xₖ − yᵢ)/(ηK) is β times the mean gradient met plus (1 − β) mₖ, as it is computed here. From m = 0;
the paper starts with the mean of the clients' gradients at x₀. β = 1 is `FedAvg`. Two vectors go
down (x and m) and one up. A round without participants changes nothing. If clients have own η the
server takes their mean.

Source: Cheng, Huang, Wu, Yuan (2024), arXiv 2306.16504; the same as FedCM (Xu, Wang, Wang, Yao
2021, arXiv 2106.10874).
Confidence: authors' code (of FedCM; public reviews confirm that it is the same).
Theorem in the tests: without noise and with full participation, the bias is β times that of FedAvg.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdopt._checks import Count
from jaxdopt._numbers import Fraction, Nonnegative
from jaxdopt._pytree import pytree, static
from jaxdopt.algorithms.federated.clients import Central, common, descend, participants


@pytree
class State(Central):
    """The state of FedAvg-M."""

    server: jax.Array  # [d] the server's model
    momentum: jax.Array  # [d] the last round's mean direction
    n: int = static()


@pytree
class FedAvgMomentum:
    """yᵢ ← yᵢ − η (β gᵢ(yᵢ) + (1 − β) mₖ), K times;  mₖ₊₁ = mean_{Sₖ} (xₖ − yᵢ)/(ηK).

    Args:
        stepsize: η ≥ 0 of local steps, one for all clients or [n, 1].
        gradient_weight: β in [0, 1], of new gradients against the last mean direction; 1 is
            `FedAvg`.
        server_stepsize: η_g ≥ 0, on the clients' mean update; 1 averages their models.
        local_steps: K ≥ 1, the gradient steps of a client in a round; static.
    """

    stepsize: Nonnegative
    gradient_weight: Fraction = 0.2
    server_stepsize: Nonnegative = 1.0
    local_steps: Count = static(default=1)
    needs: ClassVar[set[str]] = {"server"}
    vectors: ClassVar[float] = 1.5  # two down, one up

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at the mean of x0's rows."""
        x = common(x0)
        return State(x, jnp.zeros_like(x), problem.n)

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one round."""
        clients = participants(problem, network)
        momentum = clients.share(state.momentum)
        _, mean, _ = descend(
            clients,
            clients.share(state.server),
            self.stepsize,
            self.local_steps,
            key,
            lambda _, g: self.gradient_weight * g + (1 - self.gradient_weight) * momentum,
        )
        along = (
            self.gradient_weight * clients.mean(mean) + (1 - self.gradient_weight) * state.momentum
        )
        stepsize = (
            self.server_stepsize
            * jnp.mean(self.stepsize, dtype=state.server.dtype)
            * self.local_steps
        )
        there = clients.number > 0
        return State(
            state.server - jnp.where(there, stepsize * along, 0),
            jnp.where(there, along, state.momentum),
            state.n,
        )
