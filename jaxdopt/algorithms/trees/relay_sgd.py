"""RelaySGD: agents of a tree relay sums of models, so that each model reaches all agents.

    uᵢ = xᵢ − α gᵢ,      mᵢⱼ = uᵢ + Σ_{k ≠ j} mₖᵢ (of the last round),      xᵢ⁺ = (uᵢ + Σⱼ mⱼᵢ) / nᵢ

over the neighbors j, k of i in an undirected tree; nᵢ counts the models that the sum holds, by the
same recursion, and is n once the tree's diameter has passed. Each x is then the plain average over
all agents of models as old as they are far. Not exact with noise or unequal stepsizes an agent, but
exact with full gradients, whatever the heterogeneity.

Source: Vogels, He, Koloskova, Karimireddy, Lin, Stich, Jaggi (2021), arXiv 2110.04175, algorithm 1.
Confidence: authors' code (which by default fills in x₀ for models that have not arrived yet where
this file leaves them out, as its option "counts" does: the two differ in the first rounds only).
Departs: messages to the parent and from it are kept in place of one for every link.
Theorem in the tests: converges to the solution with full gradients and a constant stepsize.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdopt import costs
from jaxdopt._numbers import Nonnegative
from jaxdopt._pytree import pytree, replace
from jaxdopt.agents import select


@pytree
class State:
    """What RelaySGD carries on; the last column of messages counts the models in the sum."""

    x: jax.Array  # [n, d] estimates
    up: jax.Array  # [n, d + 1] message that the agent sent to its parent; 0 for the root
    below: jax.Array  # [n, d + 1] sum of the messages that its children sent
    down: jax.Array  # [n, d + 1] message that its parent sent; 0 for the root


@pytree
class RelaySGD:
    """uᵢ = xᵢ − αgᵢ,  mᵢⱼ = uᵢ + Σ_{k ≠ j} mₖᵢ,  xᵢ⁺ = (uᵢ + Σⱼ mⱼᵢ) / nᵢ   (undirected tree).

    Args:
        stepsize: α ≥ 0.
    """

    stepsize: Nonnegative
    needs: ClassVar[set[str]] = {"tree", "both ways"}
    numbers: ClassVar[int] = 1  # how many agents a sum is of

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at x0 [n, d]."""
        none = jnp.zeros((len(x0), x0.shape[1] + 1), x0.dtype)
        return State(x0, none, none, none)

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one step."""
        u = state.x - self.stepsize * problem.grad(state.x, key)
        own = jnp.concatenate([u, jnp.ones_like(u[:, :1])], axis=1)
        root = jnp.arange(len(u), dtype=network.root.dtype) == network.root
        up = select(root, 0 * own, own + state.below)
        down = select(root, 0 * own, network.row @ (own + state.down + state.below) - state.up)
        below = network.column @ up
        total = own + below + down
        return State(total[:, :-1] / total[:, -1:], up, below, down)

    def cost(self, state: State, problem: Any, network: Any) -> costs.Cost:
        """One gradient, and a vector and a number each way over every link of the tree."""
        cost = costs.counted(self, state, problem, network)
        return replace(cost, links=2 * (network.n - 1))
