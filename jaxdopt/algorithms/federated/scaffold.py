"""SCAFFOLD: local steps corrected by control variates, which take the drift out of them.

    i ∈ Sₖ:  yᵢ = xₖ,   K times  yᵢ ← yᵢ − η (gᵢ(yᵢ) − cᵢ + c)
             cᵢ⁺ = cᵢ − c + (xₖ − yᵢ)/(Kη) = the mean of the K gradients
    xₖ₊₁ = xₖ − η_g Σ_{i ∈ Sₖ} pᵢ (xₖ − yᵢ) / Σ_{i ∈ Sₖ} pᵢ,      c⁺ = c + Σ_{i ∈ Sₖ} pᵢ (cᵢ⁺ − cᵢ)

Option II, from c = cᵢ = 0 (the paper may also start from gradients at x₀; it has pᵢ = 1/n). c is
the mean of all n cᵢ, which the server keeps up by the changes that participants send; a round
without any changes nothing. Two vectors go down and one up: cᵢ⁺ − cᵢ says how far yᵢ moved too,
Kη (cᵢ⁺ − cᵢ + c).

Source: Karimireddy, Kale, Mohri, Reddi, Stich, Suresh (2020), arXiv 1910.06378, algorithm 1.
Confidence: authors' code.
Invariant: c = Σᵢ pᵢ cᵢ.
Theorem in the tests: reaches the solution with a constant stepsize under arbitrary participation;
with full participation it is `FedSUM`.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdopt._checks import Count
from jaxdopt._numbers import Nonnegative
from jaxdopt._pytree import pytree, static
from jaxdopt.algorithms.federated.clients import Central, common, descend, participants


@pytree
class State(Central):
    """The state of SCAFFOLD."""

    server: jax.Array  # [d] the server's model
    c: jax.Array  # [d] the server's control variate, the mean of the clients'
    own: jax.Array  # [n, d] the clients' control variates cᵢ
    n: int = static()


@pytree
class SCAFFOLD:
    """yᵢ ← yᵢ − η (gᵢ(yᵢ) − cᵢ + c), K times;  xₖ₊₁ = xₖ − η_g mean_{Sₖ} (xₖ − yᵢ).

    Args:
        stepsize: η ≥ 0 of local steps, one for all clients or [n, 1].
        server_stepsize: η_g ≥ 0, on the clients' mean update; 1 averages their models.
        local_steps: K ≥ 1, the gradient steps of a client in a round; static.
    """

    stepsize: Nonnegative
    server_stepsize: Nonnegative = 1.0
    local_steps: Count = static(default=1)
    needs: ClassVar[set[str]] = {"server", "sum"}
    vectors: ClassVar[float] = 1.5  # two down, one up

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at the mean of x0's rows."""
        x = common(x0)
        return State(x, jnp.zeros_like(x), jnp.zeros_like(x0), problem.n)

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one round."""
        clients = participants(problem, network)
        start, own = clients.share(state.server), clients.own(state.own)
        correction = clients.share(state.c) - own
        y, mean, _ = descend(
            clients, start, self.stepsize, self.local_steps, key, lambda _, g: g + correction
        )
        return State(
            state.server - self.server_stepsize * clients.mean(start - y),
            state.c + clients.total(mean - own) / state.n,
            clients.keep(state.own, mean),
            state.n,
        )
