"""FedVARP: FedAvg with the variance of participation reduced by the clients' latest updates.

    i ∈ Sₖ:  yᵢ = xₖ,   K times  yᵢ ← yᵢ − η gᵢ(yᵢ);      Dᵢ = (xₖ − yᵢ)/η, the sum of K gradients
    v = Σ_{i ∈ Sₖ} pᵢ (Dᵢ − tᵢ) / Σ_{i ∈ Sₖ} pᵢ + Σⱼ pⱼ tⱼ,      then tᵢ ← Dᵢ
    xₖ₊₁ = xₖ − η_g η v

SAGA over clients. The published server keeps all tⱼ; here it keeps their mean, and clients send the
changes of their own, which is the same sequence. From tⱼ = 0. A round without participants, which
the paper excludes, changes nothing. If clients have own η the server takes their mean. v has the
mean Σ pᵢ Dᵢ if all are equally likely to take part and weigh the same, as in the paper; with
unequal pᵢ only in the limit, as the first term stays an average, whose steps are no longer than η.

Source: Jhunjhunwala, Sharma, Nagarkatti, Joshi (2022), arXiv 2207.14130, algorithm 2.
Confidence: third-party code (two implementations).
Invariant: the server's mean is Σⱼ pⱼ tⱼ.
Theorem in the tests: the limit does not depend on who takes part, and is the solution for K = 1;
for K > 1 it has the bias of FedAvg with full participation.
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
    """The state of FedVARP."""

    server: jax.Array  # [d] the server's model
    mean: jax.Array  # [d] the mean of the clients' updates
    updates: jax.Array  # [n, d] each client's latest sum of K gradients, tᵢ
    n: int = static()


@pytree
class FedVARP:
    """v = mean_{Sₖ} (Dᵢ − tᵢ) + Σⱼ pⱼ tⱼ,  tᵢ ← Dᵢ for i ∈ Sₖ,  xₖ₊₁ = xₖ − η_g η v.

    Args:
        stepsize: η ≥ 0 of local steps, one for all clients or [n, 1].
        server_stepsize: η_g ≥ 0: the server steps by η_g η along v, a sum of K gradients.
        local_steps: K ≥ 1, the gradient steps of a client in a round; static.
    """

    stepsize: Nonnegative
    server_stepsize: Nonnegative = 1.0
    local_steps: Count = static(default=1)
    needs: ClassVar[set[str]] = {"server", "sum"}

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at the mean of x0's rows."""
        x = common(x0)
        return State(x, jnp.zeros_like(x), jnp.zeros_like(x0), problem.n)

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one round."""
        clients = participants(problem, network)
        start, old = clients.share(state.server), clients.own(state.updates)
        _, gradient, _ = descend(clients, start, self.stepsize, self.local_steps, key)
        change = self.local_steps * gradient - old
        along = jnp.where(clients.number > 0, clients.mean(change) + state.mean, 0)
        stepsize = self.server_stepsize * jnp.mean(self.stepsize, dtype=state.server.dtype)
        return State(
            state.server - stepsize * along,
            state.mean + clients.total(change) / state.n,
            clients.keep(state.updates, old + change),
            state.n,
        )
