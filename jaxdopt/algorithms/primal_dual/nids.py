"""NIDS: exact diffusion with an unmixed first step, a proximal map and a stepsize for every agent.

    z₁ = x₀ − α g(x₀),      zₖ₊₁ = zₖ − xₖ + W̃ (2 xₖ − xₖ₋₁ − α g(xₖ) + α g(xₖ₋₁)),
    xₖ = prox_{αr}(zₖ),      W̃ = I − α (I − W) / (2 maxᵢ αᵢ)

in its primal-dual form, the same sequence, with uₖ = xₖ − α g(xₖ):

    dₖ₊₁ = dₖ + (I − W̃)(uₖ + xₖ − uₖ₋₁),      zₖ₊₁ = uₖ − dₖ₊₁,      d₁ = 0

With one α for all agents W̃ = (I + W)/2. With one an agent, shape [n, 1], each has to satisfy only
αᵢ < 2 / Lᵢ with its own Lᵢ, and none depends on the network; Σᵢ dᵢ / αᵢ = 0 (if the ratios between
agents change with a schedule, the limit is no longer the solution). r is the problem's regularizer
(`jd.problems.Composite`); without one the prox is the identity.

Source: Li, Shi, Yan (2019), arXiv 1704.07807, algorithm 1, with c = 1 / (2 maxᵢ αᵢ), which every
symmetric W allows.
Confidence: paper (decent-bench's code agrees).
Theorem in the tests: converges for α < 2 / L, whatever the network (theorem 1).
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdopt._numbers import Nonnegative
from jaxdopt._pytree import pytree
from jaxdopt.problems.problem import proximal


@pytree
class State:
    """The state of NIDS."""

    x: jax.Array  # [n, d] estimates
    d: jax.Array  # [n, d] accumulated disagreement; sums to zero over agents if they share α
    u: jax.Array  # [n, d] what the last gradient step led to, x − α g; x₀ before there is one
    begun: jax.Array  # [] 0 before the first step, which does not mix, and 1 after it


@pytree
class NIDS:
    """uₖ = xₖ − α gₖ,  dₖ₊₁ = dₖ + (I − W̃)(uₖ + xₖ − uₖ₋₁),  xₖ₊₁ = prox(uₖ − dₖ₊₁), W = Wᵀ.

    Args:
        stepsize: α ≥ 0, one for all agents or [n, 1]; each has to be below its own 2 / Lᵢ only.
    """

    stepsize: Nonnegative
    composite: ClassVar[bool] = True
    needs: ClassVar[set[str]] = {"mixing", "symmetric"}

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at x0 [n, d]."""
        return State(x0, jnp.zeros_like(x0), x0, jnp.zeros((), x0.dtype))

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one step."""
        g = problem.grad(state.x, key)
        u = state.x - self.stepsize * g
        largest = jnp.max(jnp.asarray(self.stepsize, g.dtype))
        share = self.stepsize / (2 * largest + jnp.finfo(g.dtype).tiny)
        d = state.d + state.begun * share * network.laplacian(u + state.x - state.u)
        x = proximal(problem, u - d, self.stepsize)
        return State(x, d, u, jnp.ones_like(state.begun))
