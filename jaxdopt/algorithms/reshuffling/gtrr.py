"""GT-RR: gradient tracking with random reshuffling.

    gₖ = ∇f_{i,πᵢ(k mod mᵢ)}(xᵢₖ),      πᵢ a random order of agent i's mᵢ samples in every epoch
    yₖ = W (yₖ₋₁ + gₖ − gₖ₋₁),      xₖ₊₁ = W (xₖ − α yₖ)

An agent's epoch is a pass over its own samples, and the tracker goes on over its end. ``restart``
forgets it there, yₖ = W gₖ at the first step of each epoch, which lets the agents' heterogeneity in
again once an epoch: worse in all our measurements, but perhaps what is published. All agents have
to do so in the same step, or Σᵢ yᵢ = Σᵢ gᵢ breaks: it needs even data and a batch that divides m.

Source: Huang, Zhou, Pu (2025), arXiv 2306.12037.
Confidence: derived (from the authors' code of gradient tracking and the paper's definitions),
third-party code (the same order and start; it forgets the tracker once in n passes); open: whether
the tracker is carried on over the end of an epoch.
Departs: starts from y₀ = W g₀ rather than g₀ (as `ATCGT`, which it is with one sample an agent);
takes batches and uneven agents too, as `algorithms.epochs` says.
Invariant: Σᵢ yᵢ = Σᵢ gᵢ.
Theorem in the tests: with a constant stepsize the error does not depend on heterogeneity that is
linear and sums to zero, as D-RR's does.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdopt._numbers import Nonnegative
from jaxdopt._pytree import pytree, static
from jaxdopt.algorithms.reshuffling import epochs


@pytree
class State:
    """The state of GT-RR."""

    x: jax.Array  # [n, d] estimates
    y: jax.Array  # [n, d] tracker: its sum is the sum of the last gradients
    g: jax.Array  # [n, d] component gradients last taken
    passes: epochs.Passes  # every agent's place in its own samples, and their order


@pytree
class GTRR:
    """yₖ = W(yₖ₋₁ + gₖ − gₖ₋₁),  xₖ₊₁ = W(xₖ − α yₖ),  gₖ = ∇f_{i,πᵢ(k mod mᵢ)}(xᵢₖ).

    Args:
        stepsize: α ≥ 0, one for all agents or [n, 1].
        sampling: how samples are ordered: "reshuffle" draws an order for each pass, "once" one for
            all, "cyclic" takes them as stored; static.
        restart: whether the tracker forgets at the start of each epoch; static.
    """

    stepsize: Nonnegative
    sampling: epochs.Sampling = static(default="reshuffle")
    restart: bool = static(default=False)
    vectors: ClassVar[int] = 2
    exchanges: ClassVar[int] = 2

    @property
    def needs(self) -> set[str]:
        """A doubly stochastic W and samples; all restart together."""
        return {"mixing", "finite sum"} | ({"all"} if self.restart else set())

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at x0 [n, d]; with ``restart`` raise ValueError unless all epochs end together."""
        if self.restart:
            epochs.require_common(problem)
        zero = jnp.zeros_like(x0)
        return State(x0, zero, zero, epochs.begin(problem, self.sampling, key))

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one step."""
        g, passes = epochs.gradient(problem, state.passes, self.sampling, key, state.x)
        before = state.y - state.g
        if self.restart:
            before = jnp.where(state.passes.place[:, None] == 0, 0, before)
        y = network @ (before + g)
        return State(network @ (state.x - self.stepsize * y), y, g, passes)
