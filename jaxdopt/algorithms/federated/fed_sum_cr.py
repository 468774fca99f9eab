"""FedSUM-CR: FedSUM whose clients estimate the server's sum from how far its model has moved.

    i ∈ Sₖ:  ŷᵢ = (x_{t} − xₖ) / (s_t + ... + s_{k−1}),   t < k the last round it took part in
             zᵢ = xₖ,   K times  zᵢ ← zᵢ − η (gᵢ(zᵢ) − hᵢ + ŷᵢ);   ḡᵢ the mean of the K gradients
    yₖ₊₁ = yₖ + Σ_{i ∈ Sₖ} pᵢ (ḡᵢ − hᵢ),   hᵢ ← ḡᵢ,   xₖ₊₁ = xₖ − sₖ yₖ₊₁,   sₖ = η_g η K

ŷᵢ is the mean of y_{t+1}, ..., yₖ by their stepsizes. All clients know x₀: t = 0 before the first
time, and ŷᵢ = y₀ = 0 where t = k. So one vector goes down and one up, and with x the sum of the s
so far. From hᵢ = y₀ = 0 (a cold start); a round without participants moves x along y. If clients
have own η the server takes their mean.

Source: You, Pu (2025), arXiv 2512.18275.
Confidence: derived (from what is published about the method, the least certain of the three); open:
how clients estimate y.
Invariant: y = Σᵢ pᵢ hᵢ.
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
    """The state of FedSUM-CR."""

    server: jax.Array  # [d] the server's model
    y: jax.Array  # [d] the mean of the clients' h
    moved: jax.Array  # [] the sum of the server's stepsizes so far
    h: jax.Array  # [n, d] the mean gradient that each client sent last
    seen: jax.Array  # [n, d] the model that each client saw last
    then: jax.Array  # [n, 1] the sum of the server's stepsizes when it did
    n: int = static()


@pytree
class FedSUMCR:
    """yₖ₊₁ = yₖ + Σ_{Sₖ} pᵢ (ḡᵢ − hᵢ),  xₖ₊₁ = xₖ − sₖ yₖ₊₁,  locally gᵢ − hᵢ + ŷᵢ.

    Args:
        stepsize: η ≥ 0 of local steps, one for all clients or [n, 1].
        server_stepsize: η_g ≥ 0: the server steps by η_g η K along y.
        local_steps: K ≥ 1, the gradient steps of a client in a round; static.
    """

    stepsize: Nonnegative
    server_stepsize: Nonnegative = 1.0
    local_steps: Count = static(default=1)
    needs: ClassVar[set[str]] = {"server", "sum"}
    numbers: ClassVar[float] = 0.5  # one down

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at the mean of x0's rows."""
        x = common(x0)
        none = jnp.zeros((), x.dtype)
        seen, then = jnp.broadcast_to(x, x0.shape), jnp.zeros((problem.n, 1), x.dtype)
        return State(x, jnp.zeros_like(x), none, jnp.zeros_like(x0), seen, then, problem.n)

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one round."""
        clients = participants(problem, network)
        start = clients.share(state.server)
        h, seen, then = clients.own((state.h, state.seen, state.then))
        since = state.moved - then
        estimate = jnp.where(since > 0, (seen - start) / jnp.where(since > 0, since, 1), 0)
        _, mean, _ = descend(
            clients,
            start,
            self.stepsize,
            self.local_steps,
            key,
            lambda _, g: g - h + estimate,
        )
        y = state.y + clients.total(mean - h) / state.n
        stepsize = (
            self.server_stepsize
            * jnp.mean(self.stepsize, dtype=state.server.dtype)
            * self.local_steps
        )
        now = jnp.broadcast_to(state.moved, then.shape)
        h, seen, then = clients.keep((state.h, state.seen, state.then), (mean, start, now))
        return State(state.server - stepsize * y, y, state.moved + stepsize, h, seen, then, state.n)
