"""FedZO: FedAvg whose local gradients are forward differences of values along random directions.

    i ∈ Sₖ:  yᵢ = xₖ,   K times  yᵢ ← yᵢ − η eᵢ(yᵢ),
             eᵢ(y) = d/(μ m) Σⱼ (fᵢ(y + μ vⱼ) − fᵢ(y)) vⱼ,   vⱼ uniform on the unit sphere
    xₖ₊₁ = xₖ + Σ_{i ∈ Sₖ} pᵢ (yᵢ − xₖ) / Σ_{i ∈ Sₖ} pᵢ

All values of an estimate are of the same samples; a local step asks for m + 1 of them. It is
`FedAvg` on `jd.problems.ZerothOrder`, and its weights are those of FedAvg. A round without
participants changes nothing.

Source: Fang, Yu, Jiang, Shi, Jones, Zhou (2022), arXiv 2201.09531, algorithm 1.
Confidence: authors' code (whose factor d is for directions on the sphere).
Theorem in the tests: E e → ∇fᵢ as μ → 0; with K = 1 and all clients it is centralized
zeroth-order descent, and the exact gradient's FedAvg as m → ∞.
"""

from typing import Any, ClassVar

import jax

from jaxdopt._checks import Count
from jaxdopt._numbers import Nonnegative
from jaxdopt._pytree import pytree, static
from jaxdopt.algorithms.federated.clients import Central, common, descend, participants
from jaxdopt.costs import LINK_AXES, QUERY_AXES, Cost, counted
from jaxdopt.problems.zeroth_order import Radius, ZerothOrder


@pytree
class State(Central):
    """The state of FedZO."""

    server: jax.Array  # [d] the server's model
    n: int = static()


@pytree
class FedZO:
    """xₖ₊₁ = mean_{Sₖ} yᵢ,  yᵢ after K local steps yᵢ ← yᵢ − η eᵢ(yᵢ), eᵢ of m + 1 values.

    Args:
        stepsize: η ≥ 0 of local steps, one for all clients or [n, 1].
        local_steps: K ≥ 1, the local steps of a client in a round; static.
        directions: m ≥ 1, of an estimate; static.
        radius: μ > 0, how far from y the values are.
    """

    stepsize: Nonnegative
    local_steps: Count = static(default=1)
    directions: Count = static(default=10)
    radius: Radius = 1e-3
    needs: ClassVar[set[str]] = {"server", "values"}
    axes: ClassVar = {**LINK_AXES, **QUERY_AXES}

    def estimated(self, problem: Any) -> ZerothOrder:
        """Return the problem whose gradients are the clients' estimates."""
        return ZerothOrder(problem, self.directions, self.radius, "forward", "sphere")

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at the mean of x0's rows."""
        return State(common(x0), problem.n)

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one round."""
        clients = participants(self.estimated(problem), network)
        start = clients.share(state.server)
        y, *_ = descend(clients, start, self.stepsize, self.local_steps, key)
        return State(state.server + clients.mean(y - start), state.n)

    def cost(self, state: State, problem: Any, network: Any) -> Cost:
        """Count as FedAvg on these estimates."""
        return counted(self, state, self.estimated(problem), network)
