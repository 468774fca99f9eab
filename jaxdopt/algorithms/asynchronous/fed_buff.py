"""FedBuff: the server merges a buffer of returns at a time, the staler the less.

    S the c who have come back:   x ← x + η_g Σ_{i ∈ S} pᵢ (yᵢ − sentᵢ) / √(1 + tᵢ) / Σ_{i ∈ S} pᵢ

yᵢ is where K local steps y ← y − η gᵢ(y) have led from sentᵢ, the model that i had fetched, and tᵢ
the versions that have been made since. Quick clients are in more buffers and count for more: the
limit is not the objective's minimizer (`AsyncFedAvg` with its default weights corrects that).

The network is ``jd.networks.arrivals(n, buffer=c, restart="at once", ...)``, in which clients do
not wait for the buffer to fill, as in the paper; a client that is done goes on itself, where the
paper draws another of a large population. Without ``restart`` they wait, as in arXiv 2206.10189.

With equal pᵢ this is the paper's (1/c) Σ. The authors' simulator divides by Σ 1/√(1 + tᵢ) instead,
so that a stale buffer counts as much as a fresh one: its server takes longer steps.

Source: Nguyen, Malik, Zhan, Yousefpour, Rabbat, Malek, Huba (2022), arXiv 2106.06639, algorithm 1.
Confidence: authors' code (but for that divisor, which is the paper's).
Property in the tests: a buffer of all n is FedAvg.
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
    """The state of FedBuff."""

    server: jax.Array  # [d] the server's model
    sent: jax.Array  # [n, d] the model that every client fetched last
    n: int = static()


@pytree
class FedBuff:
    """x⁺ = x + η_g mean_{i ∈ S} (yᵢ − sentᵢ) / √(1 + tᵢ),  yᵢ after K local steps from sentᵢ.

    Args:
        stepsize: η ≥ 0 of local steps, one for all clients or [n, 1].
        server_stepsize: η_g ≥ 0, on the buffer's weighted mean update.
        local_steps: K ≥ 1, the gradient steps of a visit; static.
    """

    stepsize: Nonnegative
    server_stepsize: Nonnegative = 1.0
    local_steps: Count = static(default=1)
    needs: ClassVar[set[str]] = {"returns"}

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at the mean of x0's rows."""
        return State(common(x0), jnp.broadcast_to(common(x0), x0.shape), problem.n)

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one aggregation."""
        clients, moved, _ = visit(state, problem, network, self.stepsize, self.local_steps, key)
        trust = 1 / jnp.sqrt(1 + network.stale[:, None].astype(moved.dtype))
        new = state.server + self.server_stepsize * clients.mean(trust * moved)
        return State(new, network.handed(state.sent, state.server, new), state.n)
