"""The composite method of Zhang, Hu and Johansson: corrected local steps, one prox at the server.

    pᵏ = prox_{tr}(x̄ᵏ),   t = ηηₛQ,   uᵢ₀ = vᵢ₀ = pᵏ
    uᵢₗ₊₁ = uᵢₗ − η (gᵢ(vᵢₗ) + cᵢᵏ),   vᵢₗ₊₁ = prox_{(l+1)ηr}(uᵢₗ₊₁),   l < Q
    x̄ᵏ⁺¹ = pᵏ + ηₛ mean(uᵢ_Q − pᵏ),   cᵢᵏ⁺¹ = (pᵏ − x̄ᵏ⁺¹)/t − (1/Q) Σₗ gᵢ(vᵢₗ),   cᵢ⁰ = 0

mean(u) = Σᵢ wᵢ uᵢ, wᵢ the client's weight in the objective (1/n, or its share of the samples). uᵢ_Q
goes up and x̄ down, and the estimate is prox_{tr}(x̄), but x⁰ at first. The paper gives the method no
name. As Σᵢ wᵢ cᵢ = 0, (pᵏ − x̄ᵏ⁺¹)/t is the clients' mean gradient, and c is computed from that: the
difference over t would drift in float32. All clients take part in every round.
If r is ρ-weakly convex, such as `MCP`, t < 1/ρ is needed.

Source: Zhang, Hu, Johansson (2023), arXiv 2309.01795 (convex fᵢ), and (2025), arXiv 2502.03958
(non-convex fᵢ, convex r).
Confidence: from memory (the limit checked; a summary in prose agrees on the prox apart from
communication and on one vector a client); open: the equations.
Invariant: Σᵢ wᵢ cᵢ = 0.
Property in the tests: converges to the solution with full gradients, whatever the heterogeneity.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdopt._checks import Count
from jaxdopt._numbers import Nonnegative
from jaxdopt._pytree import pytree, static
from jaxdopt.algorithms.federated.clients import Central, Shared, common, participants
from jaxdopt.problems.problem import proximal


@pytree
class State(Central):
    """The state of the method."""

    server: jax.Array  # [d] the estimate prox(x̄)
    mean: jax.Array  # [d] x̄
    c: jax.Array  # [n, d] corrections; their mean is zero
    n: int = static()


@pytree
class ZhangHuJohansson:
    """uᵢ ← uᵢ − η(gᵢ(vᵢ) + cᵢ), vᵢ = prox_{(l+1)ηr}(uᵢ), Q times;  x̄⁺ = p + ηₛ(ū − p).

    Args:
        stepsize: η ≥ 0 of local steps, one for all clients.
        server_stepsize: ηₛ ≥ 0, on the clients' mean update; 1 averages their u.
        local_steps: Q ≥ 1, the gradient steps of a client in a round; static.
    """

    stepsize: Shared
    server_stepsize: Nonnegative = 1.0
    local_steps: Count = static(default=1)
    composite: ClassVar[bool] = True
    needs: ClassVar[set[str]] = {"server", "all"}

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at the mean of x0 [n, d]; raise ValueError unless clients share η."""
        x = common(x0)
        return State(x, x, jnp.zeros_like(x0), problem.n)

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one round of Q local steps."""
        total = self.stepsize * self.server_stepsize * self.local_steps
        p = proximal(problem, state.mean, total)
        clients = participants(problem, network)
        start = clients.share(p)

        def local(carry: Any, step: jax.Array) -> tuple[Any, None]:
            u, v, gradients = carry
            g = clients.grad(v, jax.random.fold_in(key, step))
            u = u - self.stepsize * (g + state.c)
            length = (step + 1).astype(u.dtype) * self.stepsize
            return (u, proximal(problem, u, length), gradients + g), None

        begin = (start, start, jnp.zeros_like(start))
        (u, _, gradients), _ = jax.lax.scan(local, begin, jnp.arange(self.local_steps))
        mean = p + self.server_stepsize * clients.mean(u - start)
        c = (clients.mean(gradients)[None] - gradients) / self.local_steps
        return State(proximal(problem, mean, total), mean, c, state.n)
