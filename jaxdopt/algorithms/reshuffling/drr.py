"""D-RR: decentralized random reshuffling, DSGD whose agents go through their samples in epochs.

    in every epoch:  πᵢ a random order of agent i's mᵢ samples
    xₖ₊₁ = W (xₖ − α gₖ),      gₖ = ∇f_{i,πᵢ(k mod mᵢ)}(xᵢₖ)

An exchange a step. An agent's epoch is a pass over its own samples; the papers have m of them for
all, measure at the starts of epochs (k a multiple of m: give ``every`` accordingly) and let α
change there, as `jd.schedules.PerEpoch` does. With W = 11ᵀ/n and equal starts it is
`CentralizedRR` with the same orders, with one sample an agent it is `DSGD`.

Source: Huang, Li, Milzarek, Pu, Qiu (2023), arXiv 2112.15287, algorithm 1.
Confidence: authors' code (whose W is (I + `half_degree` weights)/2).
Departs: takes batches and uneven agents too, as `algorithms.epochs` says.
Theorem in the tests: with a constant stepsize the error falls as α², DSGD's as α.
"""

from typing import Any, ClassVar

import jax

from jaxdopt._numbers import Nonnegative
from jaxdopt._pytree import pytree, static
from jaxdopt.algorithms.reshuffling import epochs


@pytree
class State:
    """The state of D-RR."""

    x: jax.Array  # [n, d] estimates
    passes: epochs.Passes  # every agent's place in its own samples, and their order


@pytree
class DRR:
    """xₖ₊₁ = W(xₖ − α gₖ),  gₖ = ∇f_{i,πᵢ(k mod mᵢ)}(xᵢₖ)      (any doubly stochastic W).

    Args:
        stepsize: α ≥ 0.
        sampling: how samples are ordered: "reshuffle" draws an order for each pass, "once" one for
            all, "cyclic" takes them as stored; static.
    """

    stepsize: Nonnegative
    sampling: epochs.Sampling = static(default="reshuffle")
    needs: ClassVar[set[str]] = {"mixing", "finite sum"}

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at x0 [n, d]."""
        return State(x0, epochs.begin(problem, self.sampling, key))

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one step."""
        g, passes = epochs.gradient(problem, state.passes, self.sampling, key, state.x)
        return State(network @ (state.x - self.stepsize * g), passes)
