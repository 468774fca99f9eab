"""ED-RR: exact diffusion with random reshuffling.

    gₖ = ∇f_{i,πᵢ(k mod mᵢ)}(xᵢₖ),      πᵢ a random order of agent i's mᵢ samples in every epoch
    x₁ = V (x₀ − α g₀),    xₖ₊₁ = V (2 xₖ − xₖ₋₁ − αₖ gₖ + αₖ₋₁ gₖ₋₁),    V = (1 − θ) I + θ W

in its primal-dual form, the same sequence:

    φₖ = xₖ − αₖ gₖ − dₖ,      xₖ₊₁ = V φₖ,      dₖ₊₁ = dₖ + (I − V) φₖ,      d₀ = 0

The default θ = 1/2 needs nothing of W but symmetry; compare with others on the same matrix (they on
(I + W)/2, or this with θ = 1). An agent's epoch is a pass over its own samples, and the dual goes
on over its end. ``restart`` sets it to 0 there, for all agents in the same step, or Σᵢ dᵢ = 0
breaks: it needs even data and a batch that divides m.

Source: Huang, Zhou, Pu (2025), arXiv 2306.12037.
Confidence: derived (from the authors' code of exact diffusion); open: whether the dual is carried
on over the end of an epoch.
Departs: takes batches and uneven agents too, as `algorithms.epochs` says.
Invariant: Σᵢ dᵢ = 0.
Theorem in the tests: with a constant stepsize the error does not depend on heterogeneity that is
linear and sums to zero, as D-RR's does. With one sample an agent it is `ExactDiffusion`.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxdopt._numbers import Fraction, Nonnegative
from jaxdopt._pytree import pytree, static
from jaxdopt.algorithms.reshuffling import epochs


@pytree
class State:
    """The state of ED-RR."""

    x: jax.Array  # [n, d] estimates
    d: jax.Array  # [n, d] accumulated correction Σ (I − V) φ; sums to zero over agents
    passes: epochs.Passes  # every agent's place in its own samples, and their order


@pytree
class EDRR:
    """φₖ = xₖ − α gₖ − dₖ, xₖ₊₁ = V φₖ, dₖ₊₁ = dₖ + (I − V) φₖ, gₖ = ∇f_{i,πᵢ(k mod mᵢ)}(xᵢₖ).

    Args:
        stepsize: α ≥ 0.
        relaxation: θ in [0, 1]: V = (1 − θ) I + θ W; 1/2 suits every symmetric W.
        sampling: how samples are ordered: "reshuffle" draws an order for each pass, "once" one for
            all, "cyclic" takes them as stored; static.
        restart: whether the dual is set to 0 at the end of each epoch; static.
    """

    stepsize: Nonnegative
    relaxation: Fraction = 0.5
    sampling: epochs.Sampling = static(default="reshuffle")
    restart: bool = static(default=False)

    @property
    def needs(self) -> set[str]:
        """A symmetric W and samples; all restart together."""
        return {"mixing", "symmetric", "finite sum"} | ({"all"} if self.restart else set())

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at x0 [n, d]; with ``restart`` raise ValueError unless all epochs end together."""
        if self.restart:
            epochs.require_common(problem)
        return State(x0, jnp.zeros_like(x0), epochs.begin(problem, self.sampling, key))

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one step."""
        g, passes = epochs.gradient(problem, state.passes, self.sampling, key, state.x)
        d = state.d
        if self.restart:
            d = jnp.where(state.passes.place[:, None] == 0, 0, d)
        phi = state.x - self.stepsize * g - d
        away = self.relaxation * network.laplacian(phi)
        return State(phi - away, d + away, passes)
