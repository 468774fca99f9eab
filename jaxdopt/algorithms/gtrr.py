"""GT-RR: gradient tracking with random reshuffling.

    gₖ = ∇f_{i,πᵢ(k mod m)}(xᵢₖ),      πᵢ a random order of agent i's samples in every epoch
    yₖ = W (yₖ₋₁ + gₖ − gₖ₋₁),      xₖ₊₁ = W (xₖ − α yₖ)

The tracker goes on over the ends of epochs. ``restart`` forgets it there, yₖ = W gₖ at the first
step of each epoch, which lets the agents' heterogeneity in again once an epoch: worse in all our
measurements, but perhaps what is published.

Source: Huang, Zhou, Pu (2025), arXiv 2306.12037. Listing: reconstructed from the authors' code of
gradient tracking and the paper's definitions. Third party's code has the same order and start and
forgets the tracker once in n passes: whether it is carried on in the paper is not confirmed.
Departs: starts from y₀ = W g₀ rather than g₀ (as `ATCGT`, which it is with m = 1).
Invariant: Σᵢ yᵢ = Σᵢ gᵢ. `algorithms.epochs` says what happens with batches and uneven agents.
Theorem in the tests: with a constant stepsize the error does not depend on heterogeneity that is
linear and sums to zero, as D-RR's does.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdopt._pytree import Nonnegative, pytree, static
from jaxdopt.algorithms import epochs
from jaxdopt.algorithms.cost import Cost, vector_bits


@pytree
class State:
    """What GT-RR carries on."""

    x: jax.Array  # [n, d] estimates
    y: jax.Array  # [n, d] tracker: its sum is the sum of the last gradients
    g: jax.Array  # [n, d] component gradients last taken
    order: jax.Array  # [n, m] int: the epoch's order of every agent's samples, padding last


@pytree
class GTRR:
    """yₖ = W(yₖ₋₁ + gₖ − gₖ₋₁),  xₖ₊₁ = W(xₖ − α yₖ),  gₖ = ∇f_{i,πᵢ(k mod m)}(xᵢₖ)."""

    stepsize: Nonnegative  # α
    sampling: epochs.Sampling = static(default="reshuffle")
    restart: bool = static(default=False)
    needs: ClassVar[set[str]] = {"mixing", "finite sum"}

    def __post_init__(self) -> None:
        """Check the sampling."""
        epochs.require_sampling(self.sampling)

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at x0 [n, d]."""
        zero = jnp.zeros_like(x0)
        return State(x0, zero, zero, epochs.first_order(problem, self.sampling, key))

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one step."""
        g, order = epochs.gradient(problem, network, state.order, self.sampling, key, state.x)
        before = state.y - state.g
        if self.restart:
            before = jnp.where(epochs.place(problem, network) == 0, 0, before)
        y = network @ (before + g)
        return State(network @ (state.x - self.stepsize * y), y, g, order)

    def cost(self, state: State, problem: Any, network: Any) -> Cost:
        """One batch, and two exchanges of one vector each."""
        return Cost(epochs.batch_size(problem), 2, 2, 2 * vector_bits(state.x))
