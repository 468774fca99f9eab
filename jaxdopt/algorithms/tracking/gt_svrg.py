"""GT-SVRG: gradient tracking of SVRG's estimates, which snapshots of the full gradient denoise.

    every T steps:  τᵢ = xᵢ,  μᵢ = ∇fᵢ(τᵢ)
    vᵢ = ∇fᵢₛ(xᵢ) − ∇fᵢₛ(τᵢ) + μᵢ,      s drawn by every agent
    yₖ = W yₖ₋₁ + vₖ − vₖ₋₁,      xₖ₊₁ = W xₖ − α yₖ

No table as `GTSAGA` has, but two component gradients a step and a full gradient in every T-th: in
all others T is a branch not taken, in sweeps too. The trackers run on through the snapshots. A
`Minibatch` problem says how many samples are drawn in a step, a finite sum means one. Who is asleep
when snapshots are taken keeps its last one, and before its first one vᵢ lacks ∇fᵢ. `GTVR` is
another paper's method: its snapshots are Bernoulli, and it adapts, then combines.

Source: Xin, Khan, Kar (2020), arXiv 1912.04230, algorithm 2.
Confidence: from memory (the limit checked; third parties' code of the same authors' GT-SARAH
combines, then adapts, as here).
Invariant: Σᵢ yᵢ = Σᵢ vᵢ.
Theorem in the tests: linear convergence to the solution with a constant stepsize and one sample.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdopt import costs
from jaxdopt._checks import Count
from jaxdopt._numbers import Nonnegative
from jaxdopt._pytree import pytree, replace, static
from jaxdopt.problems.oracles import finite_sum


@pytree
class State:
    """The state of GT-SVRG."""

    x: jax.Array  # [n, d] estimates
    y: jax.Array  # [n, d] mixed tracker W y: its sum is the sum of the last estimates v
    v: jax.Array  # [n, d] gradient estimates last made
    snapshot: jax.Array  # [n, d] τ
    full: jax.Array  # [n, d] μ, the full gradients at τ


@pytree
class GTSVRG:
    """vᵢ = ∇fᵢₛ(xᵢ) − ∇fᵢₛ(τᵢ) + ∇fᵢ(τᵢ),  yₖ = W yₖ₋₁ + vₖ − vₖ₋₁,  xₖ₊₁ = W xₖ − α yₖ.

    Args:
        stepsize: α ≥ 0, one for all agents or [n, 1].
        period: T ≥ 1, steps from a snapshot to the next; by default one pass over the largest
            agent's data; static.
    """

    stepsize: Nonnegative
    period: Count | None = static(default=None)
    needs: ClassVar[set[str]] = {"mixing", "finite sum"}
    vectors: ClassVar[int] = 2

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at x0 [n, d]."""
        zero = jnp.zeros_like(x0)
        return State(x0, zero, zero, zero, zero)

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one step."""
        whole, batch = finite_sum(problem)
        snapshot, full = jax.lax.cond(
            self._is_due(problem, network),
            lambda: (state.x, whole.grad(state.x, key)),
            lambda: (state.snapshot, state.full),
        )
        drawn = whole.draw(key, batch)
        v = whole.grad_at(state.x, drawn) - whole.grad_at(snapshot, drawn) + full
        y = state.y + v - state.v
        return State(network @ state.x - self.stepsize * y, network @ y, v, snapshot, full)

    def cost(self, state: State, problem: Any, network: Any) -> costs.Cost:
        """Two batches, a full gradient in every T-th step, and one exchange of two vectors."""
        whole, batch = finite_sum(problem)
        full = jnp.where(self._is_due(problem, network), whole.size, 0)
        cost = costs.counted(self, state, problem, network)
        return replace(cost, gradients=2 * batch + full)

    def _is_due(self, problem: Any, network: Any) -> Any:
        whole, batch = finite_sum(problem)
        return network.time % (self.period or -(-whole.most // batch)) == 0
