"""ADSGD: asynchronous decentralized SGD, whose agents never wait.

When agent i's gradient is ready, it mixes with the newest models that have arrived, sends its new
one to all who hear it and starts the next gradient at once; all other agents stay as they are:

    xᵢ ← (1 − θ) xᵢ + θ (wᵢᵢ xᵢ + Σⱼ wᵢⱼ xⱼ[newest arrived] − α gᵢ(xᵢ)),      θ = 1

Neighbors' models are stale, its own model and gradient never. It is `ASBCD` with penalty α and
stepsize θα, so its limit is `DGD`'s fixed point, whatever computation and messages take: only how
fast it gets there depends on them. With equal speeds and messages that arrive in less than a
gradient's time it is `DGD` itself. The mean does not follow the mean gradient: one agent moves at a
time. The network is a `jd.networks.timeline`; a step is a run of completions.

Source: Zhou, Pu (2025), arXiv 2505.10322, algorithm 2.
Confidence: summaries (public reviews of the paper, for update and timing), derived (θ, which covers
its double-stepsize variant).
Theorem in the tests: for μ-strongly convex fᵢ and α ≤ 2 minᵢ wᵢᵢ / (L + μ) it converges for any
bounded delays, as it contracts by 1 − αμ in the largest norm of a block (derived).
"""

from typing import Any, ClassVar

import jax

from jaxdopt import agents
from jaxdopt._numbers import Fraction, Nonnegative
from jaxdopt._pytree import pytree
from jaxdopt.networks.events.delay_line import DelayLine
from jaxdopt.problems.problem import partial_gradients


@pytree
class State:
    """The state of ADSGD."""

    x: jax.Array  # [n, d] estimates
    line: DelayLine  # the last V versions of each, [V, n, d]


@pytree
class ADSGD:
    """xᵢ ← (1 − θ) xᵢ + θ (wᵢᵢ xᵢ + Σⱼ wᵢⱼ xⱼ[newest] − α gᵢ(xᵢ)), for agents that finish.

    Args:
        stepsize: α ≥ 0, one for all agents or [n, 1]; converges up to 2 minᵢ wᵢᵢ / (L + μ).
        relaxation: θ in [0, 1], the step's share of the way to the new model.
    """

    stepsize: Nonnegative
    relaxation: Fraction = 1.0
    needs: ClassVar[set[str]] = {"timeline", "timeline of mixing"}

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at x0 [n, d]."""
        return State(x0, DelayLine.full(x0, network.versions))

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one step: all completions of a run."""
        who = network.agents
        x, stepsize, relaxation = network.rows((state.x, self.stepsize, self.relaxation))
        g = partial_gradients(problem, who, x, key)
        mixed = network.mix(x, state.line.read(network.sender, network.age))
        new = x + relaxation * (mixed - x - stepsize * g)
        return State(agents.put(state.x, who, new), state.line.push(who, new))
