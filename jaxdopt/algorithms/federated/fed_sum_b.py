"""FedSUM-B: a server that merges what clients have changed, without local steps.

    i ∈ Sₖ:  gᵢ = gᵢ(xₖ), the mean of K gradients there
    yₖ₊₁ = yₖ + Σ_{i ∈ Sₖ} pᵢ (gᵢ − hᵢ),   hᵢ ← gᵢ,      xₖ₊₁ = xₖ − η_g η yₖ₊₁

hᵢ is what client i sent last, and y their mean over all n, however often each takes part; a round
without participants moves x along y. From hᵢ = y = 0 (a cold start). ``local_steps`` is K, the
gradients that a participant takes at the same point, each with samples of its own: with full
gradients it changes nothing. If clients have own η the server takes their mean.

Source: You, Pu (2025), arXiv 2512.18275.
Confidence: derived (from what is published about the method; hardly another is possible).
Invariant: y = Σᵢ pᵢ hᵢ.
Theorem in the tests: reaches the solution with a constant stepsize under arbitrary participation;
it is `MIFA` with K = 1, and `FOCUS` with one local step and η/n.
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
    """The state of FedSUM-B."""

    server: jax.Array  # [d] the server's model
    y: jax.Array  # [d] the mean of the clients' h
    h: jax.Array  # [n, d] the gradient that each client sent last
    n: int = static()


@pytree
class FedSUMB:
    """yₖ₊₁ = yₖ + Σ_{Sₖ} pᵢ (gᵢ(xₖ) − hᵢ),  hᵢ ← gᵢ(xₖ),  xₖ₊₁ = xₖ − η_g η yₖ₊₁.

    Args:
        stepsize: η ≥ 0, one for all clients or [n, 1].
        server_stepsize: η_g ≥ 0: the server steps by η_g η along y.
        local_steps: K ≥ 1, the gradients that a participant averages at the same point; static.
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
        h = clients.own(state.h)
        _, g, _ = descend(clients, clients.share(state.server), 0.0, self.local_steps, key)
        y = state.y + clients.total(g - h) / state.n
        stepsize = self.server_stepsize * jnp.mean(self.stepsize, dtype=state.server.dtype)
        return State(state.server - stepsize * y, y, clients.keep(state.h, g), state.n)
