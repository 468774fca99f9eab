"""GT-VR: gradient tracking of SVRG's estimates whose snapshots are taken at random.

    with probability p, each agent for itself:  τᵢ = xᵢ,  μᵢ = ∇fᵢ(τᵢ)
    vᵢ = ∇fᵢₛ(xᵢ) − ∇fᵢₛ(τᵢ) + μᵢ,      s drawn by every agent
    yₖ = W (yₖ₋₁ + vₖ − vₖ₋₁),      xₖ₊₁ = W (xₖ − α yₖ)

`GTSVRG` takes its snapshots all together in every T-th step, and combines, then adapts; here there
is no period (the estimate is loopless SVRG's), and the order is `ATCGT`'s, with two exchanges a
step. An agent's first step begins with a snapshot. A `Minibatch` problem says how many samples are
drawn in a step, a finite sum means one. Where seeds or p are swept, the program computes full
gradients in every step and discards most of them; what is counted are the snapshots.

Source: Jiang, Zeng, Sun, Chen (2022), "Distributed stochastic gradient tracking algorithm with
variance reduction for non-convex optimization", arXiv 2106.14479, algorithm 1.
Confidence: third-party code (which refers to the paper's lines: a coin an agent, before the sample;
both exchanges after the adaptation).
Departs: starts from y₀ = W v₀ rather than v₀, as `ATCGT`; p's default is ours.
Invariant: Σᵢ yᵢ = Σᵢ vᵢ.
Theorem in the tests: with a constant stepsize |∇F|² → 0 on smooth non-convex problems (the paper
has the rate O(1/k); its bound on α is not known to us), and linearly on strongly convex ones. With
p = 1 it is `ATCGT`.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdopt import costs
from jaxdopt._numbers import Fraction, Nonnegative
from jaxdopt._pytree import pytree, replace
from jaxdopt.agents import select
from jaxdopt.problems.oracles import finite_sum
from jaxdopt.roles import awake, honest

TOSS = 1  # folded into a step's key, which is also that of the samples


@pytree
class State:
    """The state of GT-VR."""

    x: jax.Array  # [n, d] estimates
    y: jax.Array  # [n, d] tracker: its sum is the sum of the last estimates v
    v: jax.Array  # [n, d] gradient estimates last made
    snapshot: jax.Array  # [n, d] τ
    full: jax.Array  # [n, d] μ, the full gradients at τ
    age: jax.Array  # [n] int: steps since the agent's snapshot; −1 before its first one


@pytree
class GTVR:
    """vᵢ = ∇fᵢₛ(xᵢ) − ∇fᵢₛ(τᵢ) + ∇fᵢ(τᵢ),  yₖ = W(yₖ₋₁ + vₖ − vₖ₋₁),  xₖ₊₁ = W(xₖ − α yₖ).

    Args:
        stepsize: α ≥ 0, one for all agents or [n, 1].
        probability: p in [0, 1], of an agent's snapshot in a step; by default 1 in as many steps as
            one pass takes.
    """

    stepsize: Nonnegative
    probability: Fraction | None = None
    needs: ClassVar[set[str]] = {"mixing", "finite sum"}
    vectors: ClassVar[int] = 2
    exchanges: ClassVar[int] = 2  # y, and then x

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at x0 [n, d]."""
        zero = jnp.zeros_like(x0)
        return State(x0, zero, zero, zero, zero, jnp.full(len(x0), -1, jnp.int32))

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one step."""
        whole, batch = finite_sum(problem)
        p = self.probability
        p = 1 / -(-whole.most // batch) if p is None else jnp.ravel(p).astype(jnp.float32)
        due = (self.toss(key, len(state.x)) < p) | (state.age < 0)
        snapshot, full = jax.lax.cond(
            jnp.any(due),
            lambda: select(due, (state.x, whole.grad(state.x, key)), (state.snapshot, state.full)),
            lambda: (state.snapshot, state.full),
        )
        drawn = whole.draw(key, batch)
        v = whole.grad_at(state.x, drawn) - whole.grad_at(snapshot, drawn) + full
        y = network @ (state.y + v - state.v)
        x = network @ (state.x - self.stepsize * y)
        return State(x, y, v, snapshot, full, jnp.where(due, 0, state.age + 1))

    def toss(self, key: jax.Array, n: int) -> jax.Array:
        """Return the agents' uniform numbers [n] in the step with this key."""
        return jax.random.uniform(jax.random.fold_in(key, TOSS), (n,), jnp.float32)

    def cost(self, state: State, problem: Any, network: Any) -> costs.Cost:
        """Two batches, a full gradient of those who took a snapshot, two exchanges of a vector."""
        whole, batch = finite_sum(problem)
        active = awake(network)
        active = jnp.ones_like(state.age, bool) if active is None else active
        never_lie = honest(network)
        active = active if never_lie is None else active & never_lie
        passes = jnp.sum(jnp.where((state.age == 0) & active, whole.counts, 0))
        full = passes / jnp.maximum(jnp.sum(active), 1)
        cost = costs.counted(self, state, problem, network)
        return replace(cost, gradients=2 * batch + full)
