"""NoLoCo: DiLoCo without a server, whose outer step is averaged by gossip.

    yᵢ = φᵢ,   K times  yᵢ ← yᵢ − η uᵢ,   uᵢ the local optimizer's direction for gᵢ(yᵢ)
    Δᵢ = yᵢ − φᵢ,   δ⁺ = α δ + β W Δ − γ (I − W) φ,   φ⁺ = φ + δ⁺

α is the momentum, β the server's stepsize, and γ pulls the slow copies φᵢ together. In the paper W
averages random pairs, `jd.networks.RandomMatching`, so that nobody waits for more than one other;
any doubly stochastic weights will do. Both φ and Δ are sent. Local optimizers keep their memories.

Of n → ∞ agents in pairs, with Δ = 0, disagreement vanishes in the mean square iff
0 < γ < 2 (1 − α²) (`jd.theory.noloco_factor`).

Source: Kolehmainen, Blagoev, Donaghy, Ersoy, Nies (2025), arXiv 2506.10911.
Confidence: authors' code (of pairs with γ = β), derived (W, and the law).
Theorem in the tests: δ̄⁺ = α δ̄ + β Δ̄ whatever W and γ are; the law of pairs.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdopt._checks import Count
from jaxdopt._numbers import Fraction, Nonnegative
from jaxdopt._pytree import pytree, static
from jaxdopt.algorithms.federated.clients import everyone
from jaxdopt.algorithms.low_communication.outer import AXES, rows_of, work
from jaxdopt.optimizers import Transformation


@pytree
class State:
    """The state of NoLoCo."""

    x: jax.Array  # [n, d] φ, the slow copies
    delta: jax.Array  # [n, d] δ, their last steps
    inner: Any  # [n, ...] memories of the agents' optimizers


@pytree
class NoLoCo:
    """δ⁺ = α δ + β W Δ − γ (I − W) φ,  φ⁺ = φ + δ⁺,  Δᵢ what K local steps from φᵢ have changed.

    Args:
        stepsize: η ≥ 0 of local steps, one for all agents or [n, 1].
        server_stepsize: β ≥ 0, on the averaged Δ.
        momentum: α in [0, 1].
        gamma: γ ≥ 0, on the disagreement of φ; by default β.
        local_steps: K ≥ 1, the local steps of a round; static.
        local: an optax transformation of local directions, without a learning rate, such as
            ``optax.scale_by_adam()``; by default none.
    """

    stepsize: Nonnegative
    server_stepsize: Nonnegative = 0.7
    momentum: Fraction = 0.5
    gamma: Nonnegative | None = None
    local_steps: Count = static(default=50)
    local: Transformation | None = None
    needs: ClassVar[set[str]] = {"mixing"}
    vectors: ClassVar[int] = 2  # φ and Δ
    axes: ClassVar = AXES

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at x0 [n, d]."""
        return State(x0, jnp.zeros_like(x0), rows_of(self, problem, x0))

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one round."""
        y, memory = work(self, everyone(problem), state.x, state.inner, key)
        gamma = self.server_stepsize if self.gamma is None else self.gamma
        delta = (
            self.momentum * state.delta
            + self.server_stepsize * (network @ (y - state.x))
            - gamma * network.laplacian(state.x)
        )
        return State(state.x + delta, delta, memory)
