"""FedDualAvg, federated dual averaging: clients and server average in the dual space.

    wᵢₗ = prox_{(Tₖ + lη) r}(zᵢₗ),   zᵢₗ₊₁ = zᵢₗ − η gᵢ(wᵢₗ),   zᵢ₀ = zᵏ,   l < Q
    zᵏ⁺¹ = zᵏ + ηₛ mean_S(zᵢ_Q − zᵏ),   Tₖ₊₁ = Tₖ + ηₛηQ,   xᵏ = prox_{Tₖ r}(zᵏ),   z⁰ = x⁰, T₀ = 0

mean_S(u) = Σ_S pᵢ uᵢ / Σ_S pᵢ over the clients S that take part; a round without participants
changes nothing.
With a constant η this is the paper's Tₖ = ηₛηQk. What is averaged is dual, and dense, so that the
estimate stays sparse. The regularizer's weight T grows without bound, so r has to be convex.
Clients drift: there is a bias O(ηQ).

Source: Yuan, Zaheer, Reddi (2021), arXiv 2011.08474.
Confidence: authors' code.
Property in the tests: with Q = 1 and full gradients it converges to the solution, with Q > 1 to a
neighbor that comes closer with η.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdopt._checks import Count, require
from jaxdopt._numbers import Nonnegative
from jaxdopt._pytree import pytree, static
from jaxdopt.algorithms.federated.clients import Central, Shared, common, participants
from jaxdopt.problems.problem import proximal


@pytree
class State(Central):
    """The state of FedDualAvg."""

    server: jax.Array  # [d] the estimate
    dual: jax.Array  # [d] z
    weight: jax.Array  # [] T, of the regularizer
    n: int = static()


@pytree
class FedDualAvg:
    """zᵢ ← zᵢ − ηgᵢ(prox_{(T + lη)r}(zᵢ)), Q times;  z⁺ = z + ηₛ mean(zᵢ − z),  T⁺ = T + ηₛηQ.

    Args:
        stepsize: η ≥ 0 of local steps, one for all clients.
        server_stepsize: ηₛ ≥ 0, on the clients' mean update; 1 averages their dual states.
        local_steps: Q ≥ 1, the gradient steps of a client in a round; static.
    """

    stepsize: Shared
    server_stepsize: Nonnegative = 1.0
    local_steps: Count = static(default=1)
    composite: ClassVar[bool] = True
    needs: ClassVar[set[str]] = {"server"}

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at the mean of x0 [n, d]; raise ValueError unless r is convex and η shared."""
        regularizer = getattr(problem, "regularizer", None)
        require(
            regularizer is None or getattr(regularizer, "convex", False),
            f"FedDualAvg's weight of the regularizer grows without bound, and "
            f"{type(regularizer).__name__} is not known to be convex (convex = True); take FedNMap "
            "or FedMid.",
        )
        x = common(x0)
        return State(x, x, jnp.zeros((), x.dtype), problem.n)

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one round of Q local steps."""
        clients = participants(problem, network)
        start = clients.share(state.dual)

        def local(z: jax.Array, step: jax.Array) -> tuple[jax.Array, None]:
            w = proximal(problem, z, state.weight + step.astype(z.dtype) * self.stepsize)
            g = clients.grad(w, jax.random.fold_in(key, step))
            return z - self.stepsize * g, None

        end, _ = jax.lax.scan(local, start, jnp.arange(self.local_steps))
        dual = state.dual + self.server_stepsize * clients.mean(end - start)
        weight = state.weight + self.server_stepsize * self.stepsize * self.local_steps
        after = State(proximal(problem, dual, weight), dual, weight, state.n)
        return jax.tree.map(lambda new, old: jnp.where(clients.number > 0, new, old), after, state)
