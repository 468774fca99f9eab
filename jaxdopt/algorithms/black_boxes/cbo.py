"""CBO, consensus-based optimization: particles drift to where values are low, and diffuse.

    vᵢ = Σⱼ xⱼ e^{−α Eⱼ} / Σⱼ e^{−α Eⱼ},   Eⱼ = f(xⱼ)
    xᵢ ← xᵢ − λ Δt (xᵢ − vᵢ) + σ √Δt Dᵢ ξᵢ,   ξᵢ ~ N(0, I)

Dᵢ is diag |xᵢ − vᵢ| coordinate by coordinate (anisotropic) or |xᵢ − vᵢ| I, of the distance before
the drift. On the complete graph there is one v for all, as in the paper; on a graph j are i and its
in-neighbors. A particle sends its position and its value. All agents are to have the same f: values
of different functions do not compare.

Source: Riedl, Klock, Geldhauser, Fornasier (2023), arXiv 2306.09778; anisotropic noise:
Carrillo, Jin, Li, Zhu (2021), arXiv 1909.09249.
Confidence: authors' code (whose script takes the distance after the drift; the paper's equation and
CBXpy before it).
Departs: the form on graphs is ours.
Theorem in the tests: with σ = 0 on the complete graph xᵢ − xⱼ shrinks by 1 − λ Δt a step whatever f
is; with f constant, E|x − v|² grows by (1 − λ Δt)² + σ² Δt a step, d σ² if isotropic, so that
particles meet for σ² < 2 λ or d σ² < 2 λ and small Δt; a particle alone stands still.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxdopt import agents
from jaxdopt._numbers import Nonnegative
from jaxdopt._pytree import pytree, static
from jaxdopt.algorithms.black_boxes.swarm import Particles, State, consensus


@pytree
class CBO(Particles):
    """xᵢ ← xᵢ − λ Δt (xᵢ − vᵢ) + σ √Δt |xᵢ − vᵢ| ξᵢ,  v the mean of xⱼ weighed by e^{−α f(xⱼ)}.

    Args:
        stepsize: Δt ≥ 0.
        drift: λ ≥ 0.
        noise: σ ≥ 0.
        alpha: α ≥ 0: how much better values count, an inverse temperature.
        anisotropic: whether every coordinate has noise of its own distance, which bears any d;
            static.
    """

    stepsize: Nonnegative
    drift: Nonnegative = 1.0
    noise: Nonnegative = 1.0
    alpha: Nonnegative = 50.0
    anisotropic: bool = static(default=True)

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start with particles at x0 [n, d], different ones: those that agree never move."""
        return State(x0, x0)

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one step."""
        x = state.x
        v = consensus(x, problem.value(x, key), self.alpha, network)
        away = x - v
        spread = jnp.abs(away) if self.anisotropic else agents.norms(away)
        diffusion = self.noise * jnp.sqrt(self.stepsize) * spread * self.normals(key, x)
        return State(x - self.drift * self.stepsize * away + diffusion, v)
