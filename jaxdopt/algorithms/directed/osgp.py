"""OSGP: stochastic gradient push whose messages travel under the gradients (overlap).

    order "atc":  hᵢ = uᵢ − α gᵢ(xᵢ),      uᵢ⁺ = cᵢᵢ hᵢ + Σ_{j ≠ i} cᵢⱼ hⱼ (of τ steps ago)
    order "cta":  every τ-th step sends cⱼᵢ uᵢ to all j ≠ i and keeps cᵢᵢ uᵢ;  uᵢ ← uᵢ − α gᵢ(xᵢ)
                  in each step;  the τ-th step from there ends by adding what was sent

and w likewise without gradients; xᵢ = uᵢ / wᵢ, u₀ = x₀, w₀ = 1. w says how much of what was sent
has arrived, so that x stays an average of models.

"atc" (adapt, then combine) sends in every step and adds messages of step k at the end of step
k + τ. "cta" (combine, then adapt) is the authors' code: one exchange at a time, and gradients are
subtracted in full from what was kept. Messages there may take fewer steps than τ, here all take as
many. With τ = 1 it is U⁺ = C U − α G: SGP in the other order, without staleness. τ steps take
max(τ t_c, t_m) in both, and "atc" sends τ times as much. Not exact: the bias is O(α), in a test for
τ = 1, 2, 3 that of `SGP` times 1.6, 2.3, 2.9 ("atc") or 2.1, 4.1, 6.1 ("cta" when messages are in,
and more between); the largest stepsize of "cta" is half of that of "atc" there. On networks that
change with time a message goes where its own step sent it.

Source: Assran, Loizou, Ballas, Rabbat (2019), arXiv 1811.10792, algorithm 2 (τ-OSGP).
Confidence: authors' code ("cta", whose ``synch_freq`` is τ − 1), from memory ("atc"); open: which
order the paper prints.
Invariant: Σᵢ wᵢ and what is in flight of it add up to n, and so does u's mass to Σᵢ x₀ − α Σ g.
Property in the tests: that; that "atc" with τ = 0 is `SGP`; the biases.
"""

from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp

from jaxdopt import costs
from jaxdopt._checks import count
from jaxdopt._numbers import Nonnegative
from jaxdopt._pytree import field, pytree, replace, static
from jaxdopt.algorithms.directed.ratio import Ratio


@pytree
class State(Ratio):
    """What OSGP carries on; the last column of messages is that of the weights."""

    u: jax.Array  # [n, d] weighted estimates
    w: jax.Array  # [n, 1] push-sum weights
    # [τ or 1, n, d + 1] what will arrive at every agent; "atc": step k's in k mod τ
    flight: jax.Array = field(axis=1)


@pytree
class OSGP:
    """H = U − αG,  U⁺ = diag(C) H + (C − diag(C)) H of τ steps ago; "cta", τ = 1: U⁺ = CU − αG.

    Args:
        stepsize: α ≥ 0.
        overlap: τ, the steps under whose gradients a message travels: at least 0 ("atc") or 1
            ("cta"); static.
        order: whether agents step before they mix, "atc", or after, "cta"; static.
    """

    stepsize: Nonnegative
    overlap: int = static(default=1)
    order: Literal["atc", "cta"] = static(default="atc")
    numbers: ClassVar[int] = 1  # the weight

    def __post_init__(self) -> None:
        """Check the overlap."""
        count("overlap", self.overlap, minimum=0 if self.order == "atc" else 1)

    @property
    def needs(self) -> set[str]:
        """Columns that sum to 1; no agent may sleep when the one exchange of "cta" arrives."""
        waits = self.order == "cta" and self.overlap > 1
        return {"push", "all"} if waits else {"push"}

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at x0 [n, d], with nothing in flight."""
        rows = self.overlap if self.order == "atc" else 1
        flight = jnp.zeros((rows, len(x0), x0.shape[1] + 1), x0.dtype)
        return State(x0, jnp.ones_like(x0[:, :1]), flight)

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one step."""
        own = jnp.concatenate([state.u, state.w], axis=1)
        move = jnp.pad(self.stepsize * problem.grad(state.x, key), ((0, 0), (0, 1)))
        if self.order == "atc":
            own = own - move
        kept = network.column.diagonal.astype(own.dtype)[:, None] * own
        arriving = sent = network.column @ own - kept
        flight = state.flight
        if self.order == "cta":
            place = network.time % self.overlap
            kept = jnp.where(place == 0, kept, own) - move
            sent = jnp.where(place == 0, sent, flight[0])
            ends = place == self.overlap - 1
            arriving, flight = jnp.where(ends, sent, 0), jnp.where(ends, 0, sent)[None]
        elif self.overlap > 0:
            row = network.time % self.overlap
            arriving, flight = flight[row], flight.at[row].set(sent)
        new = kept + arriving
        return State(new[:, :-1], new[:, -1:], flight)

    def cost(self, state: State, problem: Any, network: Any) -> costs.Cost:
        """One gradient, and an exchange of a vector and a number, every τ-th step's in "cta"."""
        cost = costs.counted(self, state, problem, network)
        if self.order == "atc":
            return cost
        share = 1 / self.overlap  # of the exchange that travels under τ gradients, each step's
        return replace(cost, exchanges=share, vectors=share, bits=share * cost.bits, overlap=1)
