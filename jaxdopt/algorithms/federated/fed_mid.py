"""FedMid, federated mirror descent: proximal gradient steps at clients and server.

    vᵢₗ₊₁ = prox_{ηr}(vᵢₗ − η gᵢ(vᵢₗ)),   vᵢ₀ = xᵏ,   l < Q
    xᵏ⁺¹ = prox_{ηₛηQ r}(xᵏ + ηₛ mean_S(vᵢ_Q − xᵏ))

mean_S(u) = Σ_S pᵢ uᵢ / Σ_S pᵢ over the clients S that take part; a round without participants
changes nothing.
Clients and server both shrink: for small η this solves f + 2r. With ``client_prox=False``, the
authors' second variant, clients take plain gradient steps and the server alone shrinks: f + r. The
estimate is sparse in both. Either way clients drift: there is a bias O(ηQ) besides.

Source: Yuan, Zaheer, Reddi (2021), arXiv 2011.08474.
Confidence: authors' code.
Property in the tests: comes to the minimizer of f + 2r as η → 0, and to that of f + r without the
clients' prox, with the zeros of each.
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
    """The state of FedMid."""

    server: jax.Array  # [d] the estimate
    n: int = static()


@pytree
class FedMid:
    """vᵢ ← prox_{ηr}(vᵢ − ηgᵢ(vᵢ)), Q times;  x⁺ = prox_{ηₛηQr}(x + ηₛ mean(vᵢ − x)).

    Args:
        stepsize: η ≥ 0 of local steps, one for all clients.
        server_stepsize: ηₛ ≥ 0, on the clients' mean update; 1 averages their models.
        local_steps: Q ≥ 1, the gradient steps of a client in a round; static.
        client_prox: whether clients apply the prox in local steps, which solves f + 2r; static.
    """

    stepsize: Shared
    server_stepsize: Nonnegative = 1.0
    local_steps: Count = static(default=1)
    client_prox: bool = static(default=True)
    composite: ClassVar[bool] = True
    needs: ClassVar[set[str]] = {"server"}

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at the mean of x0 [n, d]; raise ValueError unless clients share η."""
        return State(common(x0), problem.n)

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one round of Q local steps."""
        clients = participants(problem, network)
        start = clients.share(state.server)

        def local(v: jax.Array, step: jax.Array) -> tuple[jax.Array, None]:
            v = v - self.stepsize * clients.grad(v, jax.random.fold_in(key, step))
            return proximal(problem, v, self.stepsize) if self.client_prox else v, None

        end, _ = jax.lax.scan(local, start, jnp.arange(self.local_steps))
        x = state.server + self.server_stepsize * clients.mean(end - start)
        x = proximal(problem, x, self.server_stepsize * self.stepsize * self.local_steps)
        return State(jnp.where(clients.number > 0, x, state.server), state.n)
