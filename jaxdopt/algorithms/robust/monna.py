"""MoNNA: local momentum, and a robust rule of what neighbors send (Farhadkhani et al. 2023).

    mₖ₊₁ = β mₖ + (1 − β) g(xₖ),       m₀ = 0
    xₖ₊₁ = R (xₖ − α mₖ₊₁)

R is ``network @``, the rule of `jd.networks.robust`: in the paper nearest-neighbor averaging,
``jd.aggregators.NNA(f)``, the mean of the m − f of m messages that are nearest to one's own.
Momentum shrinks the noise behind which a lie can hide. With other rules it is robust DSGD with
momentum, with β = 0 robust DSGD, and with plain weights DSGD with momentum.

Source: Farhadkhani, Guerraoui, Gupta, Hoang, Pinot, Stephan (2023), "Robust collaborative learning
with linear gradient overhead", arXiv 2209.10931, algorithm 1.
Confidence: authors' code.
Theorems in the tests: it is DSGD for β = 0; with the mean, the agents' mean is heavy-ball SGD.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdopt._numbers import Fraction, Nonnegative
from jaxdopt._pytree import pytree


@pytree
class State:
    """The state of MoNNA."""

    x: jax.Array  # [n, d] estimates
    m: jax.Array  # [n, d] momentum


@pytree
class MoNNA:
    """xₖ₊₁ = R (xₖ − α mₖ₊₁) with mₖ₊₁ = β mₖ + (1 − β) g(xₖ): robust DSGD with local momentum.

    Args:
        stepsize: α ≥ 0.
        beta: β in [0, 1), 0.99 in the paper's experiments.
    """

    stepsize: Nonnegative
    beta: Fraction = 0.99
    needs: ClassVar[set[str]] = {"mixing"}

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at x0 [n, d] with m = 0."""
        return State(x0, jnp.zeros_like(x0))

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one step."""
        m = self.beta * state.m + (1 - self.beta) * problem.grad(state.x, key)
        return State(network @ (state.x - self.stepsize * m), m)
