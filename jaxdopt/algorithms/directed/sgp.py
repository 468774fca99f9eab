"""SGP: stochastic gradient push, DSGD on directed graphs with push-sum weights.

    uₖ₊₁ = C (uₖ − α g(xₖ)),      wₖ₊₁ = C wₖ,      xₖ = uₖ / wₖ,      u₀ = x₀,  w₀ = 1

Not exact, as `DSGD`; but, weights or not, the agents approach the minimizer of the plain average
and not of the Perron-weighted one.

Source: Nedić, Olshevsky (2016), arXiv 1406.2075; Assran, Loizou, Ballas, Rabbat (2019), arXiv
1811.10792, algorithm 1.
Confidence: paper (both).
Invariant: Σᵢ wᵢ = n.
Theorem in the tests: with a doubly stochastic C it is `DSGD`; the bias vanishes as O(α).
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdopt._numbers import Nonnegative
from jaxdopt._pytree import pytree
from jaxdopt.algorithms.directed.ratio import Ratio


@pytree
class State(Ratio):
    """The state of SGP."""

    u: jax.Array  # [n, d] weighted estimates
    w: jax.Array  # [n, 1] push-sum weights; their sum is n


@pytree
class SGP:
    """uₖ₊₁ = C(uₖ − α g(xₖ)),  wₖ₊₁ = C wₖ,  xₖ = uₖ / wₖ      (column-stochastic C).

    Args:
        stepsize: α ≥ 0.
    """

    stepsize: Nonnegative
    needs: ClassVar[set[str]] = {"push"}
    numbers: ClassVar[int] = 1  # the weight

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at x0 [n, d]."""
        return State(x0, jnp.ones_like(x0[:, :1]))

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one step."""
        g = problem.grad(state.x, key)
        u, w = network.column @ (state.u - self.stepsize * g, state.w)
        return State(u, w)
