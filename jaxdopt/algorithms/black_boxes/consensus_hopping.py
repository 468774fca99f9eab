"""Consensus hopping: particles are drawn anew around the point at which they agree.

    vᵢ = Σⱼ xⱼ e^{−α Eⱼ} / Σⱼ e^{−α Eⱼ},   Eⱼ = f(xⱼ);   xᵢ ← vᵢ + σ ξᵢ,   ξᵢ ~ N(0, I)

It is what `CBO` becomes for λ Δt = 1 with noise that does not depend on distances, and the link
between it and stochastic gradient descent: v takes the steps of a gradient flow with noise.

Source: Riedl, Klock, Geldhauser, Fornasier (2023), arXiv 2306.09778.
Confidence: from memory.
Departs: the form on graphs is ours; the first v is of the starts.
Theorem in the tests: for f(x) = a · x, E v − v₋ → −α σ² a with the number of particles, v₋ the
consensus point before: a gradient step of size α σ².
"""

from typing import Any

import jax

from jaxdopt._numbers import Nonnegative
from jaxdopt._pytree import pytree
from jaxdopt.algorithms.black_boxes.swarm import Particles, State, consensus


@pytree
class ConsensusHopping(Particles):
    """xᵢ ← vᵢ + σ ξᵢ,  v the mean of xⱼ weighed by e^{−α f(xⱼ)}, on a graph of i's neighborhood.

    Args:
        noise: σ ≥ 0, in units of x.
        alpha: α ≥ 0: how much better values count, an inverse temperature.
    """

    noise: Nonnegative
    alpha: Nonnegative

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start with particles at x0 [n, d]."""
        return State(x0, x0)

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one step."""
        v = consensus(state.x, problem.value(state.x, key), self.alpha, network)
        return State(v + self.noise * self.normals(key, v), v)
