"""Centralized random reshuffling: SGD that sees every sample once before it sees one twice.

    in every epoch:  πᵢ a random order of agent i's samples
    x̄ₖ₊₁ = x̄ₖ − (α/n) Σᵢ ∇f_{i,πᵢ(l)}(x̄ₖ),      l = k mod m

Every agent has an order of its own, as in the decentralized methods that it is the yardstick of;
`algorithms.epochs` says what happens with batches and uneven agents. The network is ignored; a
schedule by epochs is `jd.schedules.PerEpoch`.

Source: Mishchenko, Khaled, Richtárik (2020), arXiv 2006.05988; with an order an agent as in Huang,
Li, Milzarek, Pu, Qiu (2023), arXiv 2112.15287. Listing: authors' code.
Theorem in the tests: with a constant stepsize the error at the ends of epochs falls as α², SGD's
as α.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdopt._pytree import Nonnegative, pytree, replace, static
from jaxdopt.agents import average
from jaxdopt.algorithms import epochs
from jaxdopt.algorithms.cost import Cost, gossip


@pytree
class State:
    """What centralized random reshuffling carries on."""

    x: jax.Array  # [n, d] the estimate, the same in every row after the first step
    order: jax.Array  # [n, m] int: the epoch's order of every agent's samples, padding last


@pytree
class CentralizedRR:
    """x̄ₖ₊₁ = x̄ₖ − (α/n) Σᵢ ∇f_{i,πᵢ(k mod m)}(x̄ₖ)      (centralized)."""

    stepsize: Nonnegative  # α
    sampling: epochs.Sampling = static(default="reshuffle")
    needs: ClassVar[set[str]] = {"all", "finite sum"}

    def __post_init__(self) -> None:
        """Check the sampling."""
        epochs.require_sampling(self.sampling)

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at x0 [n, d]."""
        return State(x0, epochs.first_order(problem, self.sampling, key))

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one step."""
        x = jnp.broadcast_to(average(state.x), state.x.shape)
        g, order = epochs.gradient(problem, network, state.order, self.sampling, key, x)
        return State(jnp.broadcast_to(average(x - self.stepsize * g), x.shape), order)

    def cost(self, state: State, problem: Any, network: Any) -> Cost:
        """One batch, and one exchange of one vector, as if with a server."""
        return replace(gossip(state, problem), gradients=epochs.batch_size(problem))
