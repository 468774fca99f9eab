"""STPP: Push-Pull along spanning trees, estimates down from the root and gradients up to it.

    yᵢₖ = Σ_{j child of i} yⱼₖ₋₁ + gᵢ(xᵢₖ) − gᵢ(xᵢₖ₋₁),      xᵢₖ₊₁ = x_{p(i)ₖ} − γ y_{p(i)ₖ}

from y₀ = g₀, with p(i) the agent's parent; the root is its own parent and its own child, and no
other agent keeps anything. The root's tracker is Σᵢ gᵢ, each as many steps old as the agent is
deep: the root runs gradient descent with delays, and its row is the estimate. The network is a
`jd.networks.Tree`, such as ``spanning_tree(graph)`` of any strongly connected graph. Where agents
may choose whom they talk to, ``bary_tree(n, b)`` has depths of log_b n: STPP on it is BTPP.

The tracker is a sum, not a mean: γ is n times smaller than others' stepsizes. The default is
γ = 1 / (n L maxᵢ(delayᵢ)), delayᵢ the depths of agent i in both trees added up (n on a directed
ring); equal delays D allow n γ L < 2 sin(π / (4D + 2)), and a stepsize fit for shallow trees
diverges on deep ones.

Source: You, Pu (2025), arXiv 2503.16123; BTPP: You, Pu (2024), arXiv 2404.05454.
Confidence: authors' code (of BTPP); open: how the paper chooses trees, `spanning_tree` takes
breadth-first ones.
Invariant: Σᵢ yᵢ = Σᵢ gᵢ.
Theorem in the tests: converges to the solution on a directed ring of 64 with the default stepsize;
the noise floor falls as 1/n at the same n γ.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdopt._checks import require
from jaxdopt._numbers import Nonnegative
from jaxdopt._pytree import pytree


@pytree
class State:
    """The state of STPP."""

    x: jax.Array  # [n, d] estimates
    y: jax.Array  # [n, d] pushed trackers: their sum is the sum of the last gradients
    g: jax.Array  # [n, d] gradients last taken
    root: jax.Array  # [] int

    @property
    def estimate(self) -> jax.Array:
        """The root's estimate, [d]."""
        return self.x[self.root]


@pytree
class STPP:
    """yₖ = C yₖ₋₁ + g(xₖ) − g(xₖ₋₁),  xₖ₊₁ = R(xₖ − γ yₖ)      (R and C of a `networks.Tree`).

    Args:
        stepsize: γ ≥ 0, 1/n of other methods', as y is a sum; by default 1 / (n L maxᵢ delayᵢ).
    """

    stepsize: Nonnegative | None = None
    needs: ClassVar[set[str]] = {"tree", "push-pull"}
    vectors: ClassVar[int] = 2  # x down the tree and y up

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at x0 [n, d]; raise ValueError unless γ is known."""
        require(
            self.stepsize is not None or getattr(problem, "smoothness", None) is not None,
            "the problem does not know its smoothness, from which STPP has its default stepsize; "
            "give STPP(stepsize).",
        )
        zero = jnp.zeros_like(x0)
        return State(x0, zero, zero, network.root)

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one step."""
        stepsize = self.stepsize
        if stepsize is None:
            stepsize = 1 / (network.n * problem.smoothness * network.delay)
        g = problem.grad(state.x, key)
        y = state.y + g - state.g
        x = network.row @ (state.x - stepsize * y)
        return State(x, network.column @ y, g, state.root)
