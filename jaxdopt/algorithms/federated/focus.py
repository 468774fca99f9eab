"""FOCUS: push-pull over a server's tree, whose sum of gradients follows those who take part.

    i ∈ Sₖ:  zᵢ = xₖ, yᵢ = 0,   K times  yᵢ ← yᵢ + gᵢ(zᵢ) − hᵢ,   hᵢ ← gᵢ(zᵢ),
             and but for the last time  zᵢ ← zᵢ − η yᵢ
    yₖ₊₁ = yₖ + Σ_{i ∈ Sₖ} n pᵢ yᵢ,      xₖ₊₁ = xₖ − η_g η yₖ₊₁

y is the sum of all n pᵢ hᵢ, and not their mean (n pᵢ = 1 in the paper): stepsizes are 1/n of other
methods'. In a round all but the first term of yᵢ cancel, so that yᵢ = gᵢ(zᵢ) − hᵢ with the hᵢ from
before the round, as it is computed here. η_g = 1 in the paper. From hᵢ = y = 0; a round without
participants moves x along y. If clients have own η the server takes their mean.

Source: Ying, Li, Yang (2025), arXiv 2503.20117.
Confidence: authors' code.
Invariant: y = Σᵢ n pᵢ hᵢ.
Theorem in the tests: reaches the solution with a constant stepsize under arbitrary participation;
with K = 1 and the stepsize γ/n it is `FedSUMB`.
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
    """The state of FOCUS."""

    server: jax.Array  # [d] the server's model
    y: jax.Array  # [d] the sum of n pᵢ times the clients' h
    h: jax.Array  # [n, d] the gradient that each client took last
    n: int = static()


@pytree
class FOCUS:
    """yₖ₊₁ = yₖ + Σ_{Sₖ} n pᵢ (gᵢ(zᵢ) − hᵢ),  hᵢ ← gᵢ(zᵢ),  xₖ₊₁ = xₖ − η_g η yₖ₊₁.

    Args:
        stepsize: η ≥ 0, one for all clients or [n, 1]: 1/n of other methods', as y is a sum.
        server_stepsize: η_g ≥ 0: the server steps by η_g η along y; 1 in the paper.
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
        h = clients.own(state.h)
        start, last = clients.share(state.server), self.local_steps - 1
        z, *_ = descend(clients, start, self.stepsize, last, key, lambda _, g: g - h)
        g = clients.grad(z, jax.random.fold_in(key, last))
        y = state.y + clients.total(g - h)
        stepsize = self.server_stepsize * jnp.mean(self.stepsize, dtype=state.server.dtype)
        return State(state.server - stepsize * y, y, clients.keep(state.h, g), state.n)
