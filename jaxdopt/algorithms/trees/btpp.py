"""BTPP: Push-Pull along a B-ary tree, whatever the network.

    yᵢₖ = Σ_{j child of i} yⱼₖ₋₁ + gᵢ(xᵢₖ) − gᵢ(xᵢₖ₋₁),      xᵢₖ₊₁ = x_{p(i)ₖ} − γ y_{p(i)ₖ}

from y₀ = g₀, with p(i) = ⌊(i − 1) / B⌋ and p(0) = 0: `STPP` on the tree of which agent 0 is the
root, with depths of log_B n. Every agent exchanges with at most B + 1 others; B = n − 1 is a star.
The agents choose whom they talk to, so the network says only how many there are, and costs are
those of the tree's links. γ as for `STPP`: the authors take that of other methods over n.

Source: You, Pu (2024), arXiv 2404.05454. Listing: authors' code. Invariant: Σᵢ yᵢ = Σᵢ gᵢ.
Theorem in the tests: it is `STPP` on that tree.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxdopt import costs
from jaxdopt._checks import count, require
from jaxdopt._numbers import Nonnegative
from jaxdopt._pytree import pytree, replace, static
from jaxdopt.networks import Tree


@pytree
class State:
    """The state of BTPP."""

    x: jax.Array  # [n, d] estimates
    y: jax.Array  # [n, d] pushed trackers: their sum is the sum of the last gradients
    g: jax.Array  # [n, d] gradients last taken
    root: jax.Array  # [] int

    @property
    def estimate(self) -> jax.Array:
        """The root's estimate, [d]."""
        return self.x[self.root]


@pytree
class BTPP:
    """yₖ = C yₖ₋₁ + g(xₖ) − g(xₖ₋₁),  xₖ₊₁ = R(xₖ − γ yₖ),  C = Rᵀ the B-ary tree."""

    stepsize: Nonnegative | None = None  # γ; None: 1 / (n L maxᵢ delayᵢ)
    branching: int = static(default=2)  # B
    needs: ClassVar[set[str]] = {"all"}
    vectors: ClassVar[int] = 2

    def __post_init__(self) -> None:
        """Check the branching."""
        count("branching", self.branching, remedy="the children of an agent, 1 or more")

    def tree(self, n: int) -> Tree:
        """Return the B-ary tree of n agents."""
        return Tree(np.maximum(np.arange(n) - 1, 0) // self.branching)

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at x0 [n, d]; raise ValueError unless γ is known."""
        require(
            self.stepsize is not None or getattr(problem, "smoothness", None) is not None,
            "the problem does not know its smoothness, from which BTPP has its default stepsize; "
            "give BTPP(stepsize).",
        )
        zero = jnp.zeros_like(x0)
        return State(x0, zero, zero, jnp.zeros((), int))

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one step."""
        tree, stepsize = self.tree(network.n), self.stepsize
        if stepsize is None:
            stepsize = 1 / (network.n * problem.smoothness * tree.delay)
        g = problem.grad(state.x, key)
        y = state.y + g - state.g
        return State(tree.row @ (state.x - stepsize * y), tree.column @ y, g, state.root)

    def cost(self, state: State, problem: Any, network: Any) -> costs.Cost:
        """One gradient, and one exchange of two vectors over the n − 1 links of the tree."""
        cost = costs.counted(self, state, problem, network)
        return replace(cost, links=network.n - 1)
