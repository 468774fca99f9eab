"""APD-SC: accelerated gradient tracking on directed graphs for strongly convex problems.

    sₖ = C sₖ₋₁ + g(xₖ) − g(xₖ₋₁),      wₖ₊₁ = C wₖ,      xₖ = uₖ / wₖ
    yₖ₊₁ = C (uₖ − γ sₖ),      zₖ₊₁ = C ((1 − β) zₖ + β uₖ − α γ sₖ)
    uₖ₊₁ = (1 − τ) yₖ₊₁ + τ zₖ₊₁,      α = 1 / √(γ μ),      β = √(γ μ),      τ = 1 / (4 α)

from u₀ = z₀ = x₀, w₀ = 1, s₀ = g(x₀). μ is the problem's unless given. The network limits γ:
`APDSC.safe_stepsize` returns half of what is stable with equal curvatures L, from the spectrum of
the step (`algorithms.coupling`): 0.3 / L to 0.9 / L on the random digraphs that we tried, where all
up to 1.9 times that converged, but 1.2e-4 / L (κ = ∞) on the directed ring of 16.

Source: Song, Shi, Pu, Yan (2024), arXiv 2107.12065.
Confidence: authors' slides (a co-author's, which give orders of magnitude for α, β and γ); open:
the constants and the start, which are ours.
Invariants: Σᵢ sᵢ = Σᵢ gᵢ, Σᵢ wᵢ = n.
Theorem in the tests: linear convergence in √(L/μ) log(1/ε) steps, where Push-DIGing takes L/μ.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdopt._checks import require
from jaxdopt._numbers import Nonnegative, Positive
from jaxdopt._pytree import pytree
from jaxdopt.algorithms.directed import coupling
from jaxdopt.algorithms.directed.ratio import Ratio


@pytree
class State(Ratio):
    """The state of APD-SC."""

    u: jax.Array  # [n, d] weighted estimates
    z: jax.Array  # [n, d] weighted sequence of the long steps
    w: jax.Array  # [n, 1] push-sum weights; their sum is n
    s: jax.Array  # [n, d] mixed tracker C s: its sum is the sum of the last gradients
    g: jax.Array  # [n, d] gradients last taken


@pytree
class APDSC:
    """yₖ₊₁ = C(uₖ − γ sₖ),  zₖ₊₁ = C((1 − β) zₖ + β uₖ − αγ sₖ),  uₖ₊₁ = (1 − τ) yₖ₊₁ + τ zₖ₊₁.

    Args:
        stepsize: γ ≥ 0; stable up to a limit of the network's: see ``safe_stepsize``.
        strong_convexity: μ > 0; by default the problem's.
    """

    stepsize: Nonnegative
    strong_convexity: Positive | None = None
    needs: ClassVar[set[str]] = {"push"}
    vectors: ClassVar[int] = 3
    numbers: ClassVar[int] = 1  # the weight

    @staticmethod
    def safe_stepsize(problem: Any, network: Any) -> float:
        """Return half of the γ at which equal quadratics diverge on the network, on the host."""
        mu = getattr(problem, "strong_convexity", None)
        return coupling.safe_stepsize("APDSC", problem, network, 0.0 if mu is None else float(mu))

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at x0 [n, d]; raise ValueError unless μ is known."""
        require(
            self.strong_convexity is not None
            or getattr(problem, "strong_convexity", None) is not None,
            "the problem does not know its strong convexity; give APDSC(stepsize, "
            "strong_convexity=...), or take APD.",
        )
        zero = jnp.zeros_like(x0)
        return State(x0, x0, jnp.ones_like(x0[:, :1]), zero, zero)

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one step."""
        own = self.strong_convexity
        mu = problem.strong_convexity if own is None else own
        beta = jnp.sqrt(self.stepsize * mu)
        g = problem.grad(state.x, key)
        s = state.s + g - state.g
        short = state.u - self.stepsize * s
        long = state.z + beta * (state.u - state.z) - jnp.sqrt(self.stepsize / mu) * s
        y, z, w, s = network.column @ (short, long, state.w, s)
        return State(y + beta / 4 * (z - y), z, w, s, g)
