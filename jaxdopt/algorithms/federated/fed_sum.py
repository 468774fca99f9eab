"""FedSUM: a server that merges what clients have changed, with local steps corrected by its sum.

    i ∈ Sₖ:  zᵢ = xₖ,   K times  zᵢ ← zᵢ − η (gᵢ(zᵢ) − hᵢ + yₖ);   ḡᵢ the mean of the K gradients
    yₖ₊₁ = yₖ + Σ_{i ∈ Sₖ} pᵢ (ḡᵢ − hᵢ),   hᵢ ← ḡᵢ,      xₖ₊₁ = xₖ − η_g η K yₖ₊₁

hᵢ is what client i sent last, and y their mean over all n, so that clients that take part more
often do not count more; a round without participants moves x along y. From hᵢ = y = 0 (a cold
start, whose first steps are short until all have taken part). Two vectors go down and one up. If
clients have own η the server takes their mean.

Source: You, Pu (2025), arXiv 2512.18275.
Confidence: derived (from what is published of its variants, special cases and costs); open: the
listing, not read in the paper.
Invariant: y = Σᵢ pᵢ hᵢ.
Theorem in the tests: reaches the solution with a constant stepsize under arbitrary participation;
with K = 1 and η_g = 1 it is `FedSUMB`, with full participation `SCAFFOLD`.
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
    """The state of FedSUM."""

    server: jax.Array  # [d] the server's model
    y: jax.Array  # [d] the mean of the clients' h
    h: jax.Array  # [n, d] the mean gradient that each client sent last
    n: int = static()


@pytree
class FedSUM:
    """yₖ₊₁ = yₖ + Σ_{Sₖ} pᵢ (ḡᵢ − hᵢ),  xₖ₊₁ = xₖ − η_g η K yₖ₊₁,  locally gᵢ − hᵢ + yₖ.

    Args:
        stepsize: η ≥ 0 of local steps, one for all clients or [n, 1].
        server_stepsize: η_g ≥ 0: the server steps by η_g η K along y.
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
        h = clients.own(state.h)
        _, mean, _ = descend(
            clients,
            clients.share(state.server),
            self.stepsize,
            self.local_steps,
            key,
            lambda _, g: g - h + clients.share(state.y),
        )
        y = state.y + clients.total(mean - h) / state.n
        stepsize = (
            self.server_stepsize
            * jnp.mean(self.stepsize, dtype=state.server.dtype)
            * self.local_steps
        )
        return State(state.server - stepsize * y, y, clients.keep(state.h, mean), state.n)
