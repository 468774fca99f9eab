"""Asynchronous FedAvg: the server merges each return, however old, and never waits.

    i ∈ Sₖ (who come back):   x ← x + η_g Σᵢ dᵢ (yᵢ − sentᵢ),      sentᵢ ← x

yᵢ is where K local steps y ← y − η gᵢ(y) have led from sentᵢ, the model that i had fetched. Weights
are not renormalized and know no staleness. How often each client returns decides what is solved:
the limit is near the minimizer of Σᵢ dᵢ φᵢ fᵢ, φᵢ the network's ``frequency`` of client i in an
aggregation. By default dᵢ = pᵢ / φᵢ, so that it is the objective: with a return an aggregation and
constant times τᵢ that is pᵢ τᵢ Σⱼ 1/τⱼ, and with all in every one the mean, FedAvg. Weights that
are given are all that counts, whatever the pᵢ; equal ones solve another problem, in which quick
clients count for more.

The network is a `jd.networks.arrivals` of any rule; ``calls=`` is there what ``local_steps`` is
here.

Source: Fraboni, Vidal, Kameni, Lorenzi (2023), arXiv 2206.10189.
Confidence: authors' code (which takes momentum in local steps), paper (its weights).
Theorem in the tests: the two limits; with rule="all" it is FedAvg.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdopt._checks import Count
from jaxdopt._numbers import Nonnegative
from jaxdopt._pytree import pytree, static
from jaxdopt.algorithms.federated.clients import Central, common, visit


@pytree
class State(Central):
    """The state of asynchronous FedAvg."""

    server: jax.Array  # [d] the server's model
    sent: jax.Array  # [n, d] the model that every client fetched last
    n: int = static()


@pytree
class AsyncFedAvg:
    """x⁺ = x + η_g Σ_{i ∈ S} dᵢ (yᵢ − sentᵢ),  yᵢ after K local steps from sentᵢ.

    Args:
        stepsize: η ≥ 0 of local steps, one for all clients or [n, 1].
        server_stepsize: η_g ≥ 0, on the weighted updates.
        weights: dᵢ ≥ 0, a number or [n, 1]; by default pᵢ / φᵢ, which solves the objective.
        local_steps: K ≥ 1, the gradient steps of a visit; static.
    """

    stepsize: Nonnegative
    server_stepsize: Nonnegative = 1.0
    weights: Nonnegative | None = None
    local_steps: Count = static(default=1)
    needs: ClassVar[set[str]] = {"returns", "sum"}

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at the mean of x0's rows."""
        return State(common(x0), jnp.broadcast_to(common(x0), x0.shape), problem.n)

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one aggregation."""
        clients, moved, _ = visit(state, problem, network, self.stepsize, self.local_steps, key)
        if self.weights is None:
            interval = network.interval.astype(moved.dtype)
            update = clients.total(clients.own(interval) * moved) / state.n
        else:
            update = clients.sum(clients.own(self.weights) * moved)
        new = state.server + self.server_stepsize * update
        return State(new, network.handed(state.sent, state.server, new), state.n)
