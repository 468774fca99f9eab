"""APD: accelerated gradient tracking on directed graphs, with only column-stochastic weights.

    sₖ = C sₖ₋₁ + g(xₖ) − g(xₖ₋₁),      wₖ₊₁ = C wₖ,      xₖ = uₖ / wₖ
    yₖ₊₁ = C (uₖ − γ sₖ),      zₖ₊₁ = C (zₖ − αₖ γ sₖ),      uₖ₊₁ = (1 − τₖ₊₁) yₖ₊₁ + τₖ₊₁ zₖ₊₁
    αₖ = 1 + ω k,      τₖ = 1 / (4 αₖ)

from u₀ = z₀ = x₀, w₀ = 1, s₀ = g(x₀): linear coupling of short steps y and ever longer ones z, for
convex problems with full gradients (noise adds up in z). Theory has ω ≤ 1/20; larger ones are often
faster. With ω = 0 it is `PushDIGing`. `APDSC` is for strongly convex problems.

The network limits γ, the more so the longer the steps are: too large a γ does well for thousands of
steps and diverges later, in exact arithmetic too. On the directed ring of 16 the limit is 2.5e-4/L,
19 times below Push-DIGing's, and 2.6e-4/L goes from 4e-8 after 10,000 steps to 8 after 50,000.
`APD.safe_stepsize` returns half of what is stable in the long run (`algorithms.coupling`).

Source: Song, Shi, Pu, Yan (2024), arXiv 2107.12065.
Confidence: authors' slides (a co-author's); open: the start, which is ours.
Departs: y, of which only this step's u is made, is not kept.
Invariants: Σᵢ sᵢ = Σᵢ gᵢ, Σᵢ wᵢ = n.
Theorem in the tests: F − F* = O(1/k²), where Push-DIGing has O(1/k).
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdopt._numbers import Nonnegative
from jaxdopt._pytree import pytree
from jaxdopt.algorithms.directed import coupling
from jaxdopt.algorithms.directed.ratio import Ratio


@pytree
class State(Ratio):
    """The state of APD."""

    u: jax.Array  # [n, d] weighted estimates
    z: jax.Array  # [n, d] weighted sequence of the long steps
    w: jax.Array  # [n, 1] push-sum weights; their sum is n
    s: jax.Array  # [n, d] mixed tracker C s: its sum is the sum of the last gradients
    g: jax.Array  # [n, d] gradients last taken


@pytree
class APD:
    """yₖ₊₁ = C(uₖ − γ sₖ),  zₖ₊₁ = C(zₖ − αₖγ sₖ),  uₖ₊₁ = (1 − τ) yₖ₊₁ + τ zₖ₊₁,  x = u / w.

    Args:
        stepsize: γ ≥ 0; stable up to a limit of the network's: see ``safe_stepsize``.
        growth: ω ≥ 0, by which long steps grow, αₖ = 1 + ω k; at most 1/20 in theory.
    """

    stepsize: Nonnegative
    growth: Nonnegative = 0.05
    needs: ClassVar[set[str]] = {"push"}
    vectors: ClassVar[int] = 3
    numbers: ClassVar[int] = 1  # the weight

    @staticmethod
    def safe_stepsize(problem: Any, network: Any) -> float:
        """Return half of the γ at which equal quadratics diverge in the end, on the host."""
        return coupling.safe_stepsize("APD", problem, network, 0.0)

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at x0 [n, d]."""
        zero = jnp.zeros_like(x0)
        return State(x0, x0, jnp.ones_like(x0[:, :1]), zero, zero)

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one step."""
        alpha, after = (1 + self.growth * (network.time + i) for i in (0, 1))
        g = problem.grad(state.x, key)
        s = state.s + g - state.g
        short, long = state.u - self.stepsize * s, state.z - alpha * self.stepsize * s
        y, z, w, s = network.column @ (short, long, state.w, s)
        return State(y + (z - y) / (4 * after), z, w, s, g)
