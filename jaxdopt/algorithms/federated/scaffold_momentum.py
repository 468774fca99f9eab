"""SCAFFOLD-M: SCAFFOLD whose local directions are mixed with the last round's mean direction.

    i ∈ Sₖ:  yᵢ = xₖ,   K times  yᵢ ← yᵢ − η (β (gᵢ(yᵢ) − cᵢ + c) + (1 − β) mₖ)
             cᵢ⁺ = the mean of the K gradients
    mₖ₊₁ = (1/p_S) Σ_{i ∈ Sₖ} pᵢ (xₖ − yᵢ)/(ηK),   p_S = Σ_{i ∈ Sₖ} pᵢ,   xₖ₊₁ = xₖ − η_g η K mₖ₊₁
    c⁺ = c + Σ_{i ∈ Sₖ} pᵢ (cᵢ⁺ − cᵢ)

(xₖ − yᵢ)/(ηK) is β (cᵢ⁺ − cᵢ + c) + (1 − β) mₖ, as it is computed here. From m = c = cᵢ = 0; the
paper starts with gradients at x₀. β = 1 is `SCAFFOLD`. Three vectors go down (x, m and c) and one
up. A round without participants changes nothing. If clients have own η the server takes their mean.

Source: Cheng, Huang, Wu, Yuan (2024), arXiv 2306.16504.
Confidence: from memory (the limit checked; public reviews confirm what is sent); open: the local
direction.
Invariant: c = Σᵢ pᵢ cᵢ.
Theorem in the tests: reaches the solution with a constant stepsize under arbitrary participation.
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
    """The state of SCAFFOLD-M."""

    server: jax.Array  # [d] the server's model
    momentum: jax.Array  # [d] the last round's mean direction
    c: jax.Array  # [d] the server's control variate, the mean of the clients'
    own: jax.Array  # [n, d] the clients' control variates cᵢ
    n: int = static()


@pytree
class SCAFFOLDMomentum:
    """yᵢ ← yᵢ − η (β (gᵢ(yᵢ) − cᵢ + c) + (1 − β) mₖ), K times;  mₖ₊₁ = mean_{Sₖ} (xₖ − yᵢ)/(ηK).

    Args:
        stepsize: η ≥ 0 of local steps, one for all clients or [n, 1].
        gradient_weight: β in [0, 1], of new directions against the last mean one; 1 is `SCAFFOLD`.
        server_stepsize: η_g ≥ 0, on the clients' mean update; 1 averages their models.
        local_steps: K ≥ 1, the gradient steps of a client in a round; static.
    """

    stepsize: Nonnegative
    gradient_weight: Fraction = 0.2
    server_stepsize: Nonnegative = 1.0
    local_steps: Count = static(default=1)
    needs: ClassVar[set[str]] = {"server", "sum"}
    vectors: ClassVar[float] = 2.0  # three down, one up

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at the mean of x0's rows."""
        x = common(x0)
        zero = jnp.zeros_like(x)
        return State(x, zero, zero, jnp.zeros_like(x0), problem.n)

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one round."""
        clients = participants(problem, network)
        own = clients.own(state.own)
        c, momentum = clients.share(state.c), clients.share(state.momentum)
        correction = self.gradient_weight * (c - own) + (1 - self.gradient_weight) * momentum
        _, mean, _ = descend(
            clients,
            clients.share(state.server),
            self.stepsize,
            self.local_steps,
            key,
            lambda _, g: self.gradient_weight * g + correction,
        )
        along = clients.mean(self.gradient_weight * mean + correction)
        stepsize = (
            self.server_stepsize
            * jnp.mean(self.stepsize, dtype=state.server.dtype)
            * self.local_steps
        )
        return State(
            state.server - stepsize * along,
            jnp.where(clients.number > 0, along, state.momentum),
            state.c + clients.total(mean - own) / state.n,
            clients.keep(state.own, mean),
            state.n,
        )
