"""FedNMap: local steps along the normal map, corrected for drift; for objectives f + r.

    xᵢₗ = prox_{λr}(zᵢₗ),   zᵢₗ₊₁ = zᵢₗ − η (gᵢ(xᵢₗ) + (zᵢₗ − xᵢₗ)/λ + dᵢᵏ),   zᵢ₀ = zᵏ,   l < Q
    z̄ = Σᵢ pᵢ zᵢ_Q,   zᵏ⁺¹ = zᵏ + ηₛ (z̄ − zᵏ),   dᵢᵏ⁺¹ = dᵢᵏ + (zᵢ_Q − z̄)/(ηQ),   dᵢ⁰ = 0

zᵢ_Q goes up and z̄ down, and the estimate is xᵏ = prox_{λr}(zᵏ), but x⁰ at first. The normal map
F(z) = ∇f(prox(z)) + (z − prox(z))/λ is 0 where prox(z) is stationary for f + r. r may be ρ-weakly
convex, λ < 1/ρ, such as `MCP`; as F is (L + 1/λ)-Lipschitz, ηₛηQ (L + 1/λ) should be about 1/2.
With the clients' mean maps Fᵢ = (1/Q) Σₗ (gᵢ(xᵢₗ) + (zᵢₗ − xᵢₗ)/λ) the corrections are
dᵢ = Σⱼ pⱼ Fⱼ − Fᵢ, and computed so: sums of differences over ηQ drift away from zero in float32.
All clients have to take part in every round, as Σᵢ pᵢ dᵢ = 0 rests on it.

Source: Huang, Pu, Johansson (2026), arXiv 2602.03357; normal map: Robinson (1992), Qiu, Jiang,
Milzarek (2023), arXiv 2305.05828.
Confidence: derived (from the abstract); open: where in a round the prox, the correction and the
server's step stand.
Invariant: Σᵢ pᵢ dᵢ = 0.
Theorem in the tests: E|F(z)|² nQ is constant at a fixed total step, linear speedup in n and Q;
without noise F(z) → 0 linearly, with l1 and with MCP.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdopt._checks import Count, require
from jaxdopt._numbers import Nonnegative, Positive
from jaxdopt._pytree import pytree, static
from jaxdopt.algorithms.federated.clients import Central, Shared, common, participants
from jaxdopt.problems.problem import proximal


@pytree
class State(Central):
    """The state of FedNMap."""

    server: jax.Array  # [d] the estimate prox(z)
    z: jax.Array  # [d] the server's too; dense where the estimate is sparse
    d: jax.Array  # [n, d] corrections; their mean is zero
    n: int = static()


@pytree
class FedNMap:
    """zᵢ ← zᵢ − η(gᵢ(xᵢ) + (zᵢ − xᵢ)/λ + dᵢ), xᵢ = prox_{λr}(zᵢ), Q times;  z⁺ = z + ηₛ(z̄ − z).

    Args:
        stepsize: η ≥ 0 of local steps, one for all clients; ηₛηQ (L + 1/λ) should be about 1/2.
        prox_stepsize: λ > 0 of the normal map, below 1/ρ where r is ρ-weakly convex.
        server_stepsize: ηₛ ≥ 0, on the clients' mean update; 1 averages their z.
        local_steps: Q ≥ 1, the gradient steps of a client in a round; static.
    """

    stepsize: Shared
    prox_stepsize: Positive
    server_stepsize: Nonnegative = 1.0
    local_steps: Count = static(default=1)
    composite: ClassVar[bool] = True
    needs: ClassVar[set[str]] = {"server", "all"}

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at the mean of x0 [n, d].

        Raises:
            ValueError: λ ≥ 1/ρ, where the prox is not unique (NaN if λ is traced, as in `run`).
        """
        rho = getattr(getattr(problem, "regularizer", None), "weak_convexity", 0.0)
        require(
            self.prox_stepsize * rho < 1,
            f"prox_stepsize is {self.prox_stepsize} and the regularizer {rho}-weakly convex; "
            f"give one below 1 / {rho}, as its prox is not unique otherwise.",
        )
        z = common(x0)
        return State(z, z, jnp.zeros_like(x0), problem.n)

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one round of Q local steps."""
        clients = participants(problem, network)
        start = clients.share(state.z)

        def local(carry: Any, step: jax.Array) -> tuple[Any, None]:
            z, maps = carry
            x = proximal(problem, z, self.prox_stepsize)
            normal = clients.grad(x, jax.random.fold_in(key, step)) + (z - x) / self.prox_stepsize
            return (z - self.stepsize * (normal + state.d), maps + normal), None

        begin = (start, jnp.zeros_like(start))
        (end, maps), _ = jax.lax.scan(local, begin, jnp.arange(self.local_steps))
        z = state.z + self.server_stepsize * clients.mean(end - start)
        d = (clients.mean(maps)[None] - maps) / self.local_steps
        return State(proximal(problem, z, self.prox_stepsize), z, d, state.n)
