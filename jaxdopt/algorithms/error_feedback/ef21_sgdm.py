"""EF21-SGDM: EF21 on each client's running mean of its stochastic gradients.

    i ∈ Sₖ:  vᵢ ← (1 − β) vᵢ + β gᵢ(w),    cᵢ = C(vᵢ − hᵢ),    hᵢ ← hᵢ + cᵢ
    H ← H + Σ_{i ∈ Sₖ} pᵢ cᵢ,     x ← x − γ H,     w ← w + C_s(x − w)

From vᵢ = hᵢ = 0, where the paper starts at a first gradient. EF21 compresses differences of noisy
gradients, which never become small; those of vᵢ do, with β. Who is absent keeps vᵢ and hᵢ, and a
round without participants moves x once more along H. Clients' own γ are averaged.

Source: Fatkhullin, Tyurin, Richtárik (2023), arXiv 2305.15155.
Confidence: third-party code.
Invariant: H is Σᵢ pᵢ hᵢ.
Theorem in the tests: β = 1 is `EF21`; exact without noise; a lower floor with it.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdopt._numbers import Fraction, Nonnegative
from jaxdopt._pytree import pytree, static
from jaxdopt.algorithms.compressed.messages import message
from jaxdopt.algorithms.error_feedback.links import begin, gradients, mean_stepsize, publish
from jaxdopt.algorithms.federated.clients import Central
from jaxdopt.compressors import Compressor


@pytree
class State(Central):
    """The state of EF21-SGDM."""

    server: jax.Array  # [d] x
    public: jax.Array  # [d] w, what clients hold
    mean: jax.Array  # [d] H, the server's mean of the hᵢ
    v: jax.Array  # [n, d] each client's running mean of gradients
    h: jax.Array  # [n, d] what the server believes that it is
    n: int = static()


@pytree
class EF21SGDM:
    """x ← x − γ Σᵢ pᵢ hᵢ,  hᵢ ← hᵢ + C(vᵢ − hᵢ),  vᵢ ← (1 − β) vᵢ + β gᵢ.

    Args:
        stepsize: γ ≥ 0, one for all clients or [n, 1].
        compressor: C, contractive, such as ``jd.compressors.TopK(k)``.
        beta: β in [0, 1], the weight of the newest gradient.
        downlink: C_s, contractive, of what comes back; by default it is whole.
    """

    stepsize: Nonnegative
    compressor: Compressor
    beta: Fraction = 0.1
    downlink: Compressor | None = None
    needs: ClassVar[set[str]] = {"server", "sum"}

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at the mean of x0's rows."""
        x, zero = begin(self, x0), jnp.zeros_like(x0)
        return State(x, x, jnp.zeros_like(x), zero, zero, problem.n)

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one round."""
        clients, g = gradients(state, problem, network, key)
        v, h = clients.own((state.v, state.h))
        v = (1 - clients.own(self.beta)) * v + clients.own(self.beta) * g
        c = message(self.compressor, key, v - h)
        mean = state.mean + clients.total(c) / state.n
        x = state.server - mean_stepsize(self, mean) * mean
        public = publish(self, key, x, state.public)
        v, h = clients.keep((state.v, state.h), (v, h + c))
        return State(x, public, mean, v, h, state.n)
