"""ASBCD: asynchronous stochastic block coordinate descent on the penalized problem.

    L(x) = Σᵢ fᵢ(xᵢ) + (1/2p) xᵀ((I − W) ⊗ I) x,      x = (x₁, ..., xₙ)

An agent that finishes takes a step along its block's gradient, at its own fresh block and the
newest blocks of others that have arrived:

    xᵢ ← xᵢ − α (gᵢ(xᵢ) + (1/p) Σⱼ (I − W)ᵢⱼ x̂ⱼ),      x̂ᵢ = xᵢ

The penalty p is fixed, and with it the limit, the minimizer of L; α only sets the pace. With p = α
it is `ADSGD`, as stepsize θα and penalty α are ADSGD's α and θ. The network is a
`jd.networks.timeline`; a step is a run of completions.

Source: Zhou, Pu (2025), arXiv 2505.10322, algorithm 1 on their augmented function.
Confidence: summaries (public reviews of the paper), derived (the penalty as an argument of its
own).
Theorem in the tests: the limit solves (I − W) X + p ∇F(X) = 0 whatever the times are.
"""

from typing import Any, ClassVar

import jax

from jaxdopt import agents
from jaxdopt._numbers import Nonnegative, Positive
from jaxdopt._pytree import pytree
from jaxdopt.networks.events.delay_line import DelayLine
from jaxdopt.problems.problem import partial_gradients


@pytree
class State:
    """The state of ASBCD."""

    x: jax.Array  # [n, d] estimates, a block each
    line: DelayLine  # the last V versions of each, [V, n, d]


@pytree
class ASBCD:
    """xᵢ ← xᵢ − α (gᵢ(xᵢ) + (1/p) Σⱼ (I − W)ᵢⱼ x̂ⱼ) for agents that finish.

    Args:
        stepsize: α ≥ 0, one for all agents or [n, 1]; it sets the pace, not the limit.
        penalty: p > 0: disagreement weighs 1/p, so that a small p brings agents together.
    """

    stepsize: Nonnegative
    penalty: Positive
    needs: ClassVar[set[str]] = {"timeline", "timeline of symmetric"}

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at x0 [n, d]."""
        return State(x0, DelayLine.full(x0, network.versions))

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one step: all completions of a run."""
        who = network.agents
        x, stepsize, penalty = network.rows((state.x, self.stepsize, self.penalty))
        away = x - network.mix(x, state.line.read(network.sender, network.age))
        new = x - stepsize * (partial_gradients(problem, who, x, key) + away / penalty)
        return State(agents.put(state.x, who, new), state.line.push(who, new))
