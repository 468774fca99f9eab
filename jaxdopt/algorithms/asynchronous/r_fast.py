"""R-FAST: asynchronous gradient tracking whose messages may be late, overtake each other, get lost.

When agent i is done, it takes the newest (vⱼ, ρᵢⱼ) that have arrived of each j that it hears, and

    vᵢ = xᵢ − α zᵢ,      xᵢ ← wᵢᵢ vᵢ + Σⱼ wᵢⱼ vⱼ,      g⁺ = gᵢ(xᵢ)
    ẑ = zᵢ + g⁺ − gᵢ + Σⱼ (ρᵢⱼ − ρ̃ᵢⱼ),      ρ̃ᵢⱼ ← ρᵢⱼ,      gᵢ ← g⁺
    zᵢ ← aᵢᵢ ẑ,      ρⱼᵢ ← ρⱼᵢ + aⱼᵢ ẑ,      and sends (vᵢ, ρⱼᵢ) to every j that hears it

from z = g = ρ = 0. ρⱼᵢ is all that i has ever given to j, so that what is lost comes with the next
message. W has rows and A columns that sum to 1, or both are a doubly stochastic W. The network is a
`jd.networks.timeline`; a step is a run of completions. As A stays the same, ρⱼᵢ = aⱼᵢ rᵢ with rᵢ
the sum of i's ẑ, which is kept in its place; in float32 long runs with noise lose digits of it.

Source: Zhu, Tian, Huang, Xu, He (2024), arXiv 2307.11617, algorithm 1.
Confidence: from memory (the abstract, and the earlier ASY-SONATA, arXiv 1803.10359, have the same
running sums); open: that x is mixed of neighbors' v, and the gradient taken at the point just
mixed, as in Push-Pull.
Invariant: Σᵢ zᵢ + Σᵢⱼ (ρᵢⱼ − ρ̃ᵢⱼ) = Σᵢ gᵢ.
Property in the tests: exact with full gradients, a constant stepsize, unequal speeds and lost
messages.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdopt._numbers import Nonnegative
from jaxdopt._pytree import pytree
from jaxdopt.agents import put
from jaxdopt.networks.events.delay_line import DelayLine
from jaxdopt.problems.problem import partial_gradients


@pytree
class State:
    """The state of R-FAST."""

    x: jax.Array  # [n, d] estimates
    z: jax.Array  # [n, d] trackers
    g: jax.Array  # [n, d] gradients last taken
    line: DelayLine  # the last V versions of each agent's (v, r), [V, n, 2 d]
    taken: jax.Array  # [n, slots, d] r̃: the sums of neighbors that are in the tracker by now


@pytree
class RFAST:
    """xᵢ ← Σⱼ wᵢⱼ vⱼ,  ẑ = zᵢ + g⁺ − gᵢ + Σⱼ aᵢⱼ (rⱼ − r̃ᵢⱼ),  zᵢ ← aᵢᵢ ẑ,  rᵢ ← rᵢ + ẑ.

    Args:
        stepsize: α ≥ 0, one for all agents or [n, 1].
    """

    stepsize: Nonnegative
    needs: ClassVar[set[str]] = {"timeline", "timeline of push-pull"}
    vectors: ClassVar[int] = 2

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at x0 [n, d]."""
        zero = jnp.zeros_like(x0)
        line = DelayLine.full(jnp.concatenate([x0, zero], axis=1), network.versions)
        slots = network.sender.shape[1]
        return State(x0, zero, zero, line, jnp.zeros((len(x0), slots, x0.shape[1]), x0.dtype))

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one step: all completions of a run."""
        who, d = network.agents, state.x.shape[1]
        x, z, g, taken, stepsize = network.rows(
            (state.x, state.z, state.g, state.taken, self.stepsize)
        )
        heard = state.line.read(network.sender, network.age)
        v = x - stepsize * z
        x = network.mix(v, heard[..., :d])
        new = partial_gradients(problem, who, x, key)
        given = network.shares.astype(x.dtype)[..., None] * (heard[..., d:] - taken)
        whole = z + new - g + given.sum(axis=1)
        r = state.line.read(who, jnp.zeros_like(who))[:, d:] + whole
        return State(
            put(state.x, who, x),
            put(state.z, who, network.kept.astype(x.dtype) * whole),
            put(state.g, who, new),
            state.line.push(who, jnp.concatenate([v, r], axis=1)),
            put(state.taken, who, heard[..., d:]),
        )
