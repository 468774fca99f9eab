"""Centralized random reshuffling: SGD that sees every sample once before it sees one twice.

    in every epoch:  πᵢ a random order of agent i's mᵢ samples
    x̄ₖ₊₁ = x̄ₖ − (α/n) Σᵢ ∇f_{i,πᵢ(k mod mᵢ)}(x̄ₖ)

Every agent has an order of its own, as in the decentralized methods whose baseline it is,
and an epoch of its own, a pass over its samples. The network is ignored; a schedule by epochs is
`jd.schedules.PerEpoch`.

Source: Mishchenko, Khaled, Richtárik (2020), arXiv 2006.05988; with an order an agent as in Huang,
Li, Milzarek, Pu, Qiu (2023), arXiv 2112.15287.
Confidence: authors' code (of the second).
Departs: takes batches and uneven agents too, as `algorithms.epochs` says.
Theorem in the tests: with a constant stepsize the error falls as α², SGD's as α; on a fixed problem
it falls as α³ where epochs end that all agents share.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdopt._numbers import Nonnegative
from jaxdopt._pytree import pytree, static
from jaxdopt.agents import average
from jaxdopt.algorithms.reshuffling import epochs


@pytree
class State:
    """The state of centralized random reshuffling."""

    x: jax.Array  # [n, d] the estimate, the same in every row after the first step
    passes: epochs.Passes  # every agent's place in its own samples, and their order


@pytree
class CentralizedRR:
    """x̄ₖ₊₁ = x̄ₖ − (α/n) Σᵢ ∇f_{i,πᵢ(k mod mᵢ)}(x̄ₖ)      (centralized).

    Args:
        stepsize: α ≥ 0.
        sampling: how samples are ordered: "reshuffle" draws an order for each pass, "once" one for
            all, "cyclic" takes them as stored; static.
    """

    stepsize: Nonnegative
    sampling: epochs.Sampling = static(default="reshuffle")
    needs: ClassVar[set[str]] = {"all", "finite sum"}

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at x0 [n, d]."""
        return State(x0, epochs.begin(problem, self.sampling, key))

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one step."""
        x = jnp.broadcast_to(average(state.x), state.x.shape)
        g, passes = epochs.gradient(problem, state.passes, self.sampling, key, x)
        return State(jnp.broadcast_to(average(x - self.stepsize * g), x.shape), passes)
