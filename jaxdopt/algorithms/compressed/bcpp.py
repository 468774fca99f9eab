"""B-CPP: broadcasts of compressed messages, by one agent at a time.

In every step one agent a, drawn uniformly, wakes and broadcasts two messages:

    x̂ = uₐ + Q(xₐ − uₐ),      p = Q(yₐ),      uₐ ← uₐ + α Q(xₐ − uₐ)
    its neighbors:     xᵢ ← xᵢ + γ rᵢₐ (x̂ − xᵢ),      yᵢ ← yᵢ + γ cᵢₐ p
    itself:            yₐ ← yₐ − γ (1 − cₐₐ) p,        xₐ ← xₐ − λ yₐ
    all whose x has changed:      yᵢ ← yᵢ + g(xᵢ) − gᵢ

u₀ = x₀ if all agents start there, else 0. The last line is done at the start of the next step.
Costs are an agent's average: 1/n of a round and 2/n messages a step, and a gradient for every agent
that heard (though all n are computed here). γ and α have safe defaults (`messages.tracking`, at
most 1/2, and `messages.memory`).

Source: Song, Shi, Pu, Yan (2022), arXiv 2106.07243.
Confidence: derived (from the abstract and `CPP`); open: who takes a new gradient when.
Invariant: Σᵢ yᵢ = Σᵢ gᵢ.
Theorem in the tests: linear convergence to the solution with full gradients.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdopt import costs
from jaxdopt._numbers import Fraction, Nonnegative, Positive
from jaxdopt._pytree import pytree, replace
from jaxdopt.agents import select
from jaxdopt.algorithms.compressed import messages
from jaxdopt.compressors import Compressor
from jaxdopt.roles import awake

WAKE = 0xA3A6E  # folded into a step's key for the one who wakes


@pytree
class State:
    """The state of B-CPP."""

    x: jax.Array  # [n, d] estimates
    y: jax.Array  # [n, d] tracker: its sum is the sum of the gradients last taken
    g: jax.Array  # [n, d] gradients last taken
    u: jax.Array  # [n, d] references, which neighbors know
    changed: jax.Array  # [n] bool: whose estimate the last step changed


@pytree
class BCPP:
    """xᵢ⁺ = xᵢ + γ rᵢₐ(x̂ₐ − xᵢ),  y⁺ = y − γ(I − C) eₐ Q(yₐ) + g⁺ − g,  xₐ⁺ = xₐ − λ yₐ⁺.

    Args:
        stepsize: λ ≥ 0, one for all agents or [n, 1].
        compressor: Q, unbiased, such as `Dither`.
        consensus_stepsize: γ > 0 of mixing; by default (1 + e)^(−3/2), at most 1/2, e the
            compressor's ``error(d)``.
        alpha: α in [0, 1], the references' share of a message; by default 0.9 / (1 + e).
    """

    stepsize: Nonnegative
    compressor: Compressor
    consensus_stepsize: Positive | None = None
    alpha: Fraction | None = None
    needs: ClassVar[set[str]] = {"push-pull", "hop"}
    vectors: ClassVar[int] = 2

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at x0 [n, d]."""
        zero = jnp.zeros_like(x0)
        return State(x0, zero, zero, messages.references(x0), jnp.ones(len(x0), bool))

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one step."""
        gamma, alpha = messages.tracking(self, state.x), messages.memory(self, state.x)
        if self.consensus_stepsize is None:
            gamma = min(gamma, 0.5)
        g = select(state.changed, problem.grad(state.x, key), state.g)
        y = state.y + g - state.g
        a = self.broadcaster(key, len(g))
        me = (jnp.arange(len(g)) == a)[:, None].astype(g.dtype)
        q = messages.message(self.compressor, key, state.x - state.u, channel=0)
        p = messages.message(self.compressor, key, y, channel=1)
        heard = (network.row @ me) * (1 - me)  # the weights rᵢₐ of a's neighbors
        heard = jnp.where(heard > 10 * jnp.finfo(g.dtype).eps, heard, 0)  # others: rounding errors
        x = state.x + gamma * heard * ((state.u + q)[a, None] - state.x)
        y = y - gamma * network.column.laplacian(me) * p[a, None]
        return State(
            x - self.stepsize * me * y, y, g, state.u + alpha * me * q, (heard + me)[:, 0] > 0
        )

    def broadcaster(self, key: jax.Array, n: int) -> jax.Array:
        """Return the agent that wakes in the step with this key."""
        return jax.random.randint(jax.random.fold_in(key, WAKE), (), 0, n)

    def cost(self, state: State, problem: Any, network: Any) -> costs.Cost:
        """A gradient for all who heard, and an agent's share of one broadcast of two messages."""
        share, heard, active = 1 / network.n, jnp.mean(state.changed), awake(network)
        if active is not None:  # of those who are awake: sleepers' gradients were counted before
            heard = jnp.sum(state.changed & active) / jnp.maximum(active.sum(), 1)
        cost = costs.counted(self, state, problem, network)
        sent = {name: share * getattr(cost, name) for name in ("exchanges", "vectors", "bits")}
        return replace(cost, gradients=cost.gradients * heard, **sent)
