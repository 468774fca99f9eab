"""MIFA: FedAvg on the latest update of every client, whether or not it takes part now.

    i ∈ Sₖ:  yᵢ = xₖ,   K times  yᵢ ← yᵢ − η gᵢ(yᵢ);      Gᵢ ← (xₖ − yᵢ)/η, the sum of K gradients
    xₖ₊₁ = xₖ − η_g η Σⱼ pⱼ Gⱼ,      over all n clients

The server keeps the mean of the Gⱼ, and the clients their own, of which they send the change. From
Gⱼ = 0, the authors' MIFA(0); their main form waits at x₀ until every client has been there once,
and is the same where all are in round 0. A round without participants moves x once more along the
mean. If clients have own η the server takes their mean.

Source: Gu, Huang, Zhang, Huang (2021), arXiv 2106.04159, algorithm 1.
Confidence: authors' code.
Invariant: the server's mean is Σⱼ pⱼ Gⱼ.
Theorem in the tests: the limit does not depend on who takes part, and is the solution for K = 1;
for K > 1 it has the bias of FedAvg with full participation. With K = 1 it is `FedSUMB`.
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
    """The state of MIFA."""

    server: jax.Array  # [d] the server's model
    mean: jax.Array  # [d] the mean of the clients' updates
    updates: jax.Array  # [n, d] each client's latest sum of K gradients
    n: int = static()


@pytree
class MIFA:
    """Gᵢ ← the sum of K local gradients for i ∈ Sₖ;  xₖ₊₁ = xₖ − η_g η Σⱼ pⱼ Gⱼ.

    Args:
        stepsize: η ≥ 0 of local steps, one for all clients or [n, 1].
        server_stepsize: η_g ≥ 0: the server steps by η_g η along the mean sum of K gradients.
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
        update = self.local_steps * gradient
        mean = state.mean + clients.total(update - old) / state.n
        stepsize = self.server_stepsize * jnp.mean(self.stepsize, dtype=state.server.dtype)
        return State(
            state.server - stepsize * mean, mean, clients.keep(state.updates, update), state.n
        )
