"""OSGP: stochastic gradient push that does not wait for its messages (overlap).

    hᵢ = uᵢ − α gᵢ(xᵢ),      uᵢ⁺ = cᵢᵢ hᵢ + Σ_{j ≠ i} cᵢⱼ hⱼ (of τ steps ago),
    wᵢ⁺ = cᵢᵢ wᵢ + Σ_{j ≠ i} cᵢⱼ wⱼ (of τ steps ago),      xᵢ = uᵢ / wᵢ,      u₀ = x₀,  w₀ = 1

Messages sent in step k are added at the end of step k + τ, under whose gradients they have
travelled. w says how much of what was sent has arrived, so that x stays an average of models. Every
step sends, and on networks that change with time a message goes where its own step sent it. Not
exact: the bias is O(α) and grows with τ.

Source: Assran, Loizou, Ballas, Rabbat (2019), arXiv 1811.10792, algorithm 2 (τ-OSGP), which waits
for messages at most τ steps old where here all are just as old. Listing: from memory, limits
checked. Invariant: Σᵢ wᵢ and what is in flight of it add up to n, and so does u's mass to Σᵢ x₀ −
α Σ g. Property in the tests: that, and that τ = 0 is `SGP`.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxdopt._pytree import Nonnegative, count, pytree, replace, static
from jaxdopt.algorithms.cost import Cost, gossip
from jaxdopt.algorithms.ratio import Ratio


@pytree
class State(Ratio):
    """What OSGP carries on; the last column of messages is that of the weights."""

    u: jax.Array  # [n, d] weighted estimates
    w: jax.Array  # [n, 1] push-sum weights
    flight: jax.Array  # [τ, n, d + 1] what will arrive at every agent; of step k in row k mod τ


@pytree
class OSGP:
    """H = U − α g(X),  U⁺ = diag(C) H + (C − diag(C)) H of τ steps ago,  X = U / w."""

    stepsize: Nonnegative  # α
    overlap: int = static(default=1)  # τ

    def __post_init__(self) -> None:
        """Check the overlap."""
        count("overlap", self.overlap, minimum=0)

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at x0 [n, d], with nothing in flight."""
        flight = jnp.zeros((self.overlap, len(x0), x0.shape[1] + 1), x0.dtype)
        return State(x0, jnp.ones_like(x0[:, :1]), flight)

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one step."""
        h = state.u - self.stepsize * problem.grad(state.x, key)
        own = jnp.concatenate([h, state.w], axis=1)
        kept = network.column.diagonal.astype(own.dtype)[:, None] * own
        arriving = sent = network.column @ own - kept
        flight = state.flight
        if self.overlap > 0:
            row = network.time % self.overlap
            arriving, flight = flight[row], flight.at[row].set(sent)
        new = kept + arriving
        return State(new[:, :-1], new[:, -1:], flight)

    def cost(self, state: State, problem: Any, network: Any) -> Cost:
        """One gradient, and one exchange of a vector and a number that may take τ steps."""
        return replace(gossip(state, problem, numbers=1), overlap=self.overlap)
