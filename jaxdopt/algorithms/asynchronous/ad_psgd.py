"""AD-PSGD: workers that never wait, each averaging with one random neighbor at a time.

When worker i's gradient is ready, taken at what x_i was when i began, it meets a neighbor j:

    xᵢ, xⱼ ← (xᵢ + xⱼ) / 2,      xᵢ ← xᵢ − α gᵢ(x̂ᵢ),      x̂ᵢ ← xᵢ

and begins again; others may have averaged with i meanwhile, so that its gradient is stale. The
network is a `jd.networks.pairwise`; a step is a run of meetings none of which touches another.
Code from the authors' institution applies a gradient as soon as it is ready and averages in a
thread of its own, however often: other events, the same mean. Workers count by their speed: with
small α the limit is near the minimizer of Σᵢ pᵢ fᵢ, pᵢ i's share of all gradients, where that of
`ADSGD` is near the objective's.

Source: Lian, Zhang, Zhang, Liu (2018), arXiv 1710.06952, algorithm 1.
Confidence: summaries (a later paper restates it).
Property in the tests: the limit; averaging keeps the mean, so x̄ moves by −(α/n) gᵢ.
"""

from typing import Any, ClassVar

import jax

from jaxdopt._numbers import Nonnegative
from jaxdopt._pytree import pytree
from jaxdopt.agents import put, take
from jaxdopt.problems.problem import partial_gradients


@pytree
class State:
    """The state of AD-PSGD."""

    x: jax.Array  # [n, d] estimates
    read: jax.Array  # [n, d] x̂: each worker's, when it began its gradient


@pytree
class ADPSGD:
    """xᵢ, xⱼ ← (xᵢ + xⱼ) / 2,  then  xᵢ ← xᵢ − α gᵢ(x̂ᵢ), x̂ᵢ ← xᵢ, when i is done, with one j.

    Args:
        stepsize: α ≥ 0, one for all workers or [n, 1].
    """

    stepsize: Nonnegative
    needs: ClassVar[set[str]] = {"pairs"}

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at x0 [n, d]."""
        return State(x0, x0)

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one step: all meetings of a run."""
        i, j = network.agents, network.partners
        own, read, stepsize = network.rows((state.x, state.read, self.stepsize))
        middle = (own + take(state.x, j)) / 2
        new = middle - stepsize * partial_gradients(problem, i, read, key)
        return State(put(put(state.x, j, middle), i, new), put(state.read, i, new))
