"""EControl: EF21 whose messages also carry a share of what earlier ones have left out.

    i ∈ Sₖ:  cᵢ = C(η eᵢ + gᵢ(w) − hᵢ),    eᵢ ← eᵢ + gᵢ(w) − hᵢ − cᵢ,    hᵢ ← hᵢ + cᵢ
    H ← H + Σ_{i ∈ Sₖ} pᵢ cᵢ,     x ← x − γ H,     w ← w + C_s(x − w)

From eᵢ = hᵢ = 0. One message builds both memories: eᵢ sums gᵢ − hᵢ, with the new hᵢ. η sets how
strongly the error is fed back; it has to be of the order of δ, C's constant: with δ = 0.1 all η ≤ δ
were stable at every γ tried, 2δ up to γL = 0.1 only, and 4δ nowhere. η = 0 is EF21. Absent clients
keep eᵢ and hᵢ; a round without participants moves x once more along H. Clients' own γ are averaged.

Source: Gao, Islamov, Stich (2023), arXiv 2311.05645.
Confidence: third-party code, from memory (η = Θ(δ)).
Invariant: H is Σᵢ pᵢ hᵢ.
Theorem in the tests: exact with heterogeneous agents; stable for η ≤ δ and not for 4δ; with η = 0
it is `EF21`.
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
    """The state of EControl."""

    server: jax.Array  # [d] x
    public: jax.Array  # [d] w, what clients hold
    mean: jax.Array  # [d] H, the server's mean of the hᵢ
    e: jax.Array  # [n, d] Σ (gᵢ − hᵢ), what has not been sent
    h: jax.Array  # [n, d] what each client's gradient is believed to be
    n: int = static()


@pytree
class EControl:
    """x ← x − γ Σᵢ pᵢ hᵢ,  hᵢ ← hᵢ + C(η eᵢ + gᵢ − hᵢ),  eᵢ the sum of gᵢ − hᵢ.

    Args:
        stepsize: γ ≥ 0, one for all clients or [n, 1].
        compressor: C, contractive, such as ``jd.compressors.TopK(k)``.
        eta: η in [0, 1], of the feedback; δ / 2 by default.
        downlink: C_s, contractive, of what comes back; by default it is whole.
    """

    stepsize: Nonnegative
    compressor: Compressor
    eta: Fraction | None = None
    downlink: Compressor | None = None
    needs: ClassVar[set[str]] = {"server", "sum"}

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at the mean of x0's rows."""
        x, zero = begin(self, x0), jnp.zeros_like(x0)
        return State(x, x, jnp.zeros_like(x), zero, zero, problem.n)

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one round."""
        clients, g = gradients(state, problem, network, key)
        eta = self.compressor.delta(g.shape[1]) / 2 if self.eta is None else self.eta
        e, h = clients.own((state.e, state.h))
        c = message(self.compressor, key, clients.own(eta) * e + g - h)
        mean = state.mean + clients.total(c) / state.n
        x = state.server - mean_stepsize(self, mean) * mean
        public = publish(self, key, x, state.public)
        e, h = clients.keep((state.e, state.h), (e + g - h - c, h + c))
        return State(x, public, mean, e, h, state.n)
