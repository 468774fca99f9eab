"""FedFix: aggregation at fixed ticks, of all clients that have returned since the last.

    at kΔ, Sₖ those back since (k − 1)Δ:   x ← x + η_g Σ_{i ∈ Sₖ} pᵢ cᵢ (yᵢ − sentᵢ),   sentᵢ ← x

yᵢ is where K local steps y ← y − η gᵢ(y) have led from sentᵢ, and cᵢ how many ticks a visit of i
takes, ⌈τᵢ / Δ⌉ for constant times τᵢ: a client that returns at every c-th tick counts c times, so
that the limit is near the objective's minimizer however slow some are. Between FedAvg (Δ ≥ maxᵢ τᵢ)
and asynchronous FedAvg (Δ → 0); `AsyncFedAvg` on ticks is the same. The network is
``jd.networks.arrivals(n, every=Δ, ...)``, which counts the ticks itself.

Source: Fraboni, Vidal, Kameni, Lorenzi (2023), arXiv 2206.10189, section 5.
Confidence: authors' code (which takes momentum in local steps).
Theorem in the tests: the limit, and FedAvg with long ticks.
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
    """The state of FedFix."""

    server: jax.Array  # [d] the server's model
    sent: jax.Array  # [n, d] the model that every client fetched last
    n: int = static()


@pytree
class FedFix:
    """x⁺ = x + η_g Σ_{i ∈ S} pᵢ cᵢ (yᵢ − sentᵢ),  cᵢ ticks of a visit, yᵢ after K steps.

    Args:
        stepsize: η ≥ 0 of local steps, one for all clients or [n, 1].
        server_stepsize: η_g ≥ 0, on the weighted updates.
        local_steps: K ≥ 1, the gradient steps of a visit; static.
    """

    stepsize: Nonnegative
    server_stepsize: Nonnegative = 1.0
    local_steps: Count = static(default=1)
    needs: ClassVar[set[str]] = {"returns", "ticks", "sum"}

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at the mean of x0's rows."""
        return State(common(x0), jnp.broadcast_to(common(x0), x0.shape), problem.n)

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one tick."""
        clients, moved, _ = visit(state, problem, network, self.stepsize, self.local_steps, key)
        ticks = network.interval.astype(moved.dtype)
        update = clients.total(clients.own(ticks) * moved) / state.n
        new = state.server + self.server_stepsize * update
        return State(new, network.handed(state.sent, state.server, new), state.n)
