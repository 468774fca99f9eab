"""Linearized ADMM, also known as DLM: a dual variable for every link, a gradient for every step.

    xᵢ⁺ = xᵢ − αᵢ / (1 + 2 αᵢ c dᵢ) (gᵢ(xᵢ) + Σⱼ (λᵢⱼ + 2 c (xᵢ − xⱼ)))
    λᵢⱼ⁺ = λᵢⱼ + c (xᵢ − xⱼ)

over the neighbors j of i, dᵢ their number. 1/α is the weight of the proximal term that replaces
ADMM's minimization (ρ in the paper), c the penalty of a link. λᵢⱼ = −λⱼᵢ is kept at both ends of
the link and never sent. The network's weights do not matter, only its links.

Source: Ling, Shi, Wu, Ribeiro (2015), "DLM: Decentralized linearized alternating direction method
of multipliers", where the agents keep φᵢ = Σⱼ λᵢⱼ.
Confidence: third-party code (but for its one rate for all, where here, as in the paper, an agent's
falls with its links, and for unequal starts).
Departs: λ is updated one step late, which gives the same sequence from equal starts; from unequal
ones the first dual amounts to c (xᵢ − xⱼ) here, and to 0 in that code. Links that are down in a
step are left out of its sums; dᵢ counts them, so that c and the weights of the steps stay the same.
Theorem in the tests: for convex problems it converges for α < 2 / L and any c > 0.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdopt._numbers import Nonnegative, Positive
from jaxdopt._pytree import pytree


@pytree
class State:
    """The state of linearized ADMM."""

    x: jax.Array  # [n, d] estimates
    duals: jax.Array  # [n, s, d] λᵢⱼ for agent i's link in slot s; −λ at the link's other end


@pytree
class LinearizedADMM:
    """xᵢ⁺ = xᵢ − αᵢ/(1 + 2αᵢc dᵢ) (gᵢ + Σⱼ (λᵢⱼ + 2c(xᵢ − xⱼ))),  λᵢⱼ⁺ = λᵢⱼ + c(xᵢ − xⱼ).

    Args:
        stepsize: α ≥ 0, one for all agents or [n, 1]; converges below 2 / L.
        penalty: of disagreement on a link, > 0: c in units of 1 / (2 maxᵢ αᵢ maxᵢ dᵢ).
    """

    stepsize: Nonnegative
    penalty: Positive = 1.0
    needs: ClassVar[set[str]] = {"mixing", "symmetric", "links"}

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at x0 [n, d] without duals."""
        n, slots = network.links.sender.shape
        return State(x0, jnp.zeros((n, slots, *x0.shape[1:]), x0.dtype))

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one step."""
        g = problem.grad(state.x, key)
        links = network.links
        apart = jnp.where(links.present[:, :, None], state.x[:, None] - links.hear(state.x), 0)
        degree = links.degree[:, None].astype(g.dtype)
        largest = jnp.max(jnp.asarray(self.stepsize, g.dtype))
        scale = 2 * largest * jnp.maximum(jnp.max(degree), 1)
        c = self.penalty / (scale + jnp.finfo(g.dtype).tiny)
        direction = g + jnp.sum(state.duals + 2 * c * apart, axis=1)
        x = state.x - self.stepsize / (1 + 2 * self.stepsize * c * degree) * direction
        return State(x, state.duals + c * apart)
