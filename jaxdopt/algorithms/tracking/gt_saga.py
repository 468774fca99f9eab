"""GT-SAGA: gradient tracking of SAGA's estimates, one sample a step and no noise in the limit.

    vᵢ = ∇fᵢₛ(xᵢ) − Tᵢₛ + mean_l Tᵢₗ,      then Tᵢₛ = ∇fᵢₛ(xᵢ),      s drawn by every agent
    order "cta":  yₖ = W yₖ₋₁ + vₖ − vₖ₋₁,      xₖ₊₁ = W xₖ − α yₖ
    order "atc":  yₖ = W (yₖ₋₁ + vₖ − vₖ₋₁),    xₖ₊₁ = W (xₖ − α yₖ)

Both are exact and published, "cta" (combine, then adapt: `DIGing` on v) for strongly convex
problems, "atc" (adapt, then combine: `ATCGT` on v, two exchanges a step) for non-convex ones.
T is a table of every sample's last gradient, [n, m, d]; it starts at zero where the paper starts
with all gradients at x₀: as unbiased, with more noise in the first pass and no pass to pay for.
A `Minibatch` problem says how many samples are drawn in a step, a finite sum means one.

Source: Xin, Khan, Kar (2020), arXiv 1912.04230, algorithm 1 ("cta"); the same (2020), arXiv
2011.03853 ("atc").
Confidence: third-party code ("atc"; two, of which one refreshes Tᵢₛ at the new x), from memory
("cta").
Departs: the table starts at zero, as above.
Invariants: Σᵢ yᵢ = Σᵢ vᵢ, and the mean of the table.
Theorem in the tests: linear convergence to the solution with a constant stepsize and one sample.
"""

from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp

from jaxdopt._numbers import Nonnegative
from jaxdopt._pytree import pytree, static
from jaxdopt.problems.oracles import finite_sum


@pytree
class State:
    """The state of GT-SAGA."""

    x: jax.Array  # [n, d] estimates
    y: jax.Array  # [n, d] mixed tracker, "cta": W y; its sum is the sum of the last estimates v
    v: jax.Array  # [n, d] gradient estimates last made
    table: jax.Array  # [n, m, d] every sample's last gradient
    mean: jax.Array  # [n, d] the table's mean over an agent's own samples


@pytree
class GTSAGA:
    """vᵢ = ∇fᵢₛ(xᵢ) − Tᵢₛ + mean Tᵢ,  yₖ = W yₖ₋₁ + vₖ − vₖ₋₁,  xₖ₊₁ = W xₖ − α yₖ.

    Args:
        stepsize: α ≥ 0, one for all agents or [n, 1].
        order: whether agents step after they mix, "cta", or before, "atc"; static.
    """

    stepsize: Nonnegative
    order: Literal["cta", "atc"] = static(default="cta")
    needs: ClassVar[set[str]] = {"mixing", "finite sum"}
    vectors: ClassVar[int] = 2

    @property
    def exchanges(self) -> int:
        """One of x and y together, or with "atc" one of each."""
        return 1 if self.order == "cta" else 2

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at x0 [n, d] with an empty table."""
        whole, _ = finite_sum(problem)
        zero = jnp.zeros_like(x0)
        table = jnp.zeros((x0.shape[0], whole.most, x0.shape[1]), x0.dtype)
        return State(x0, zero, zero, table, zero)

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one step."""
        whole, batch = finite_sum(problem)
        drawn = whole.draw(key, batch)  # [n, b]
        me = jnp.arange(whole.n)[:, None]
        new = jax.vmap(whole.grad_at, (None, 1), 1)(state.x, drawn)  # [n, b, d]
        change = new - state.table[me, drawn]
        v = change.mean(axis=1) + state.mean
        again = jnp.tril(drawn[:, :, None] == drawn[:, None, :], -1).any(axis=2)  # drawn before
        once = jnp.where(again[:, :, None], 0, change).sum(axis=1)
        mean = state.mean + once / whole.counts[:, None].astype(v.dtype)
        table = state.table.at[me, drawn].set(new)
        y = state.y + v - state.v
        if self.order == "cta":
            return State(network @ state.x - self.stepsize * y, network @ y, v, table, mean)
        y = network @ y
        return State(network @ (state.x - self.stepsize * y), y, v, table, mean)
