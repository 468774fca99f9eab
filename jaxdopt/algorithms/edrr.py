"""ED-RR: exact diffusion with random reshuffling.

    gₖ = ∇f_{i,πᵢ(k mod m)}(xᵢₖ),      πᵢ a random order of agent i's samples in every epoch
    x₁ = V (x₀ − α g₀),    xₖ₊₁ = V (2 xₖ − xₖ₋₁ − αₖ gₖ + αₖ₋₁ gₖ₋₁),    V = (1 − θ) I + θ W

in its primal-dual form, the same sequence:

    φₖ = xₖ − αₖ gₖ − dₖ,      xₖ₊₁ = V φₖ,      dₖ₊₁ = dₖ + (I − V) φₖ,      d₀ = 0

The default θ = 1/2 needs nothing of W but symmetry; compare with others on the same matrix (they on
(I + W)/2, or this with θ = 1). The dual goes on over the ends of epochs; ``restart`` sets it to 0.

Source: Huang, Zhou, Pu (2025), arXiv 2306.12037. Listing: reconstructed from the authors' code of
exact diffusion; whether the dual is carried on is not confirmed. With m = 1 it is `ExactDiffusion`.
Invariant: Σᵢ dᵢ = 0. `algorithms.epochs` says what happens with batches and uneven agents.
Theorem in the tests: as for `GTRR`.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdopt._pytree import Fraction, Nonnegative, pytree, replace, static
from jaxdopt.algorithms import epochs
from jaxdopt.algorithms.cost import Cost, gossip


@pytree
class State:
    """What ED-RR carries on."""

    x: jax.Array  # [n, d] estimates
    d: jax.Array  # [n, d] accumulated correction Σ (I − V) φ; sums to zero over agents
    order: jax.Array  # [n, m] int: the epoch's order of every agent's samples, padding last


@pytree
class EDRR:
    """φₖ = xₖ − α gₖ − dₖ,  xₖ₊₁ = V φₖ,  dₖ₊₁ = dₖ + (I − V) φₖ,  gₖ = ∇f_{i,πᵢ(k mod m)}(xᵢₖ)."""

    stepsize: Nonnegative  # α
    relaxation: Fraction = 0.5  # θ: V = (1 − θ) I + θ W
    sampling: epochs.Sampling = static(default="reshuffle")
    restart: bool = static(default=False)
    needs: ClassVar[set[str]] = {"mixing", "symmetric", "finite sum"}

    def __post_init__(self) -> None:
        """Check the sampling."""
        epochs.require_sampling(self.sampling)

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at x0 [n, d]."""
        return State(x0, jnp.zeros_like(x0), epochs.first_order(problem, self.sampling, key))

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one step."""
        g, order = epochs.gradient(problem, network, state.order, self.sampling, key, state.x)
        d = state.d
        if self.restart:
            d = jnp.where(epochs.place(problem, network) == 0, 0, d)
        phi = state.x - self.stepsize * g - d
        away = self.relaxation * network.laplacian(phi)
        return State(phi - away, d + away, order)

    def cost(self, state: State, problem: Any, network: Any) -> Cost:
        """One batch, and one exchange of one vector."""
        return replace(gossip(state, problem), gradients=epochs.batch_size(problem))
