"""Push-sum: averaging on directed graphs, with only column-stochastic weights.

    uₖ₊₁ = C uₖ,      wₖ₊₁ = C wₖ,      xₖ = uₖ / wₖ,      u₀ = x₀,  w₀ = 1

Every agent splits what it has among those it can reach. The sums of u and of w are kept, both tend
to the same multiples of the Perron vector of C, and their ratio x to the average of x₀. It takes no
gradients; the problem says only how many agents there are.

Source: Kempe, Dobra, Gehrke (2003), "Gossip-based computation of aggregate information".
Confidence: textbook.
Invariants: Σᵢ uᵢ = Σᵢ x₀ᵢ, Σᵢ wᵢ = n.
Theorem in the tests: linear convergence to the average on any strongly connected graph.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdopt._pytree import pytree
from jaxdopt.algorithms.directed.ratio import Ratio


@pytree
class State(Ratio):
    """The state of push-sum."""

    u: jax.Array  # [n, d] sums; their sum over agents is kept
    w: jax.Array  # [n, 1] weights; their sum is n


@pytree
class PushSum:
    """uₖ₊₁ = C uₖ,  wₖ₊₁ = C wₖ,  xₖ = uₖ / wₖ      (column-stochastic C)."""

    needs: ClassVar[set[str]] = {"push"}
    numbers: ClassVar[int] = 1  # the weight
    gradients: ClassVar[int] = 0

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at x0 [n, d]."""
        return State(x0, jnp.ones_like(x0[:, :1]))

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one step."""
        u, w = network.column @ (state.u, state.w)
        return State(u, w)
