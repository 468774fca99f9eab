"""FedNMap: local steps along the normal map, corrected for drift; for objectives f + r.

    xᵢₗ = prox_{λr}(zᵢₗ),   zᵢₗ₊₁ = zᵢₗ − η (gᵢ(xᵢₗ) + (zᵢₗ − xᵢₗ)/λ + dᵢᵏ),   zᵢ₀ = zᵏ,   l < Q
    z̄ = (1/n) Σᵢ zᵢ_Q,   zᵏ⁺¹ = zᵏ + ηₛ (z̄ − zᵏ),   dᵢᵏ⁺¹ = dᵢᵏ + (zᵢ_Q − z̄)/(ηQ),   dᵢ⁰ = 0

zᵢ_Q goes up and z̄ down, and the estimate is xᵏ = prox_{λr}(zᵏ), but x⁰ at first. The normal map
F(z) = ∇f(prox(z)) + (z − prox(z))/λ is 0 where prox(z) is stationary for f + r. r may be ρ-weakly
convex, λ < 1/ρ, such as `MCP`; as F is (L + 1/λ)-Lipschitz, ηₛηQ (L + 1/λ) should be about 1/2.
With the clients' mean maps Fᵢ = (1/Q) Σₗ (gᵢ(xᵢₗ) + (zᵢₗ − xᵢₗ)/λ) the corrections are
dᵢ = (1/n) Σⱼ Fⱼ − Fᵢ, and computed so: sums of differences over ηQ drift away from zero in float32.
Everybody takes part in every round: what that rests on is Σᵢ dᵢ = 0.

Source: Huang, Pu, Johansson (2026), arXiv 2602.03357; normal map: Robinson (1992), Qiu, Jiang,
Milzarek (2023), arXiv 2305.05828. Listing: derived from the abstract. Where in a round the prox,
the correction and the server's step stand may be otherwise in the paper.
Theorem in the tests: E|F(z)|² nQ is constant at a fixed total step, linear speedup in n and Q;
without noise F(z) → 0 linearly, with l1 and with MCP. Invariant: Σᵢ dᵢ = 0.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdopt._pytree import Nonnegative, Positive, count, pytree, require, static
from jaxdopt.agents import average
from jaxdopt.algorithms.clients import Central, Clients, common, descend, round_trip
from jaxdopt.algorithms.cost import Cost
from jaxdopt.problems.problem import proximal


@pytree
class State(Central):
    """What FedNMap carries on."""

    server: jax.Array  # [d] the estimate prox(z)
    z: jax.Array  # [d] the server's too; dense where the estimate is sparse
    d: jax.Array  # [n, d] corrections; sum to zero over clients
    n: int = static()


@pytree
class NormalMap:
    """A problem that answers with its normal map, Fᵢ(zᵢ) = gᵢ(prox(zᵢ)) + (zᵢ − prox(zᵢ))/λ."""

    problem: Any
    lam: Any

    @property
    def n(self) -> int:
        """The number of clients."""
        return self.problem.n

    def grad(self, z: jax.Array, key: jax.Array) -> jax.Array:
        """Return every client's normal map at its own row, [n, d] -> [n, d]."""
        x = proximal(self.problem, z, self.lam)
        return self.problem.grad(x, key) + (z - x) / self.lam


@pytree
class FedNMap:
    """zᵢ ← zᵢ − η(gᵢ(xᵢ) + (zᵢ − xᵢ)/λ + dᵢ), xᵢ = prox_{λr}(zᵢ), Q times;  z⁺ = z + ηₛ(z̄ − z)."""

    stepsize: Nonnegative  # η
    lam: Positive  # λ, below 1/ρ where r is ρ-weakly convex
    server_stepsize: Nonnegative = 1.0  # ηₛ
    local_steps: int = static(default=1)  # Q
    composite: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check the number of local steps."""
        count("local_steps", self.local_steps)

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at the mean of x0 [n, d].

        Raises:
            ValueError: λ ≥ 1/ρ, where the prox is not unique (NaN if λ is traced, as in `run`);
                a network in which not everybody takes part; stepsizes that clients do not share.
        """
        rho = getattr(getattr(problem, "regularizer", None), "weak_convexity", 0.0)
        require(
            self.lam * rho < 1,
            f"lam is {self.lam} and the regularizer {rho}-weakly convex; give a lam below "
            f"1 / {rho}, as its prox is not unique otherwise.",
        )
        require(
            getattr(network, "active", None) is None and getattr(network, "clients", None) is None,
            "FedNMap's corrections sum to zero only if all clients take part in every round; give "
            "jd.networks.Server(n), or take FedMid or FedDualAvg.",
        )
        require(
            jnp.ndim(self.stepsize) == 0,
            f"stepsize has shape {jnp.shape(self.stepsize)}; FedNMap needs one for all clients.",
        )
        z = common(x0)
        return State(z, z, jnp.zeros_like(x0), problem.n)

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one round of Q local steps."""
        everybody = Clients(NormalMap(problem, self.lam), None, None, problem.n)
        start = everybody.share(state.z)
        end, maps = descend(
            everybody, start, self.stepsize, self.local_steps, key, lambda _, f: f + state.d
        )
        z = state.z + self.server_stepsize * average(end - start)
        return State(
            proximal(problem, z, self.lam), z, everybody.share(average(maps)) - maps, state.n
        )

    def cost(self, state: State, problem: Any, network: Any) -> Cost:
        """Q gradients, and a vector down and one up."""
        return round_trip(state, problem, network, self.local_steps)
