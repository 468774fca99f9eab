"""EF21: every client sends the compressed change of its gradient estimate.

    i ∈ Sₖ:  cᵢ = C(gᵢ(w) − hᵢ),    hᵢ ← hᵢ + cᵢ
    H ← H + Σ_{i ∈ Sₖ} pᵢ cᵢ,     x ← x − γ H,     w ← w + C_s(x − w)

From hᵢ = 0, so that the first messages are the paper's g⁰ = C(∇fᵢ(x₀)). The server knows H =
Σ pᵢ hᵢ of all n clients, also of the absent, which keep hᵢ: H moves by the plain sum over those who
take part, never by their mean. A round without participants moves x once more along H. Clients' own
γ are averaged. Compressed both ways it is EF21-P with EF21; EF21-BC differs.

Source: Richtárik, Sokolov, Fatkhullin (2021), arXiv 2106.05203.
Confidence: third-party code (as a subclass of EF21-SGDM).
Invariant: H is Σᵢ pᵢ hᵢ.
Theorem in the tests: exact with heterogeneous agents, top-k both ways and few participants.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdopt._numbers import Nonnegative
from jaxdopt._pytree import pytree, static
from jaxdopt.algorithms.compressed.messages import message
from jaxdopt.algorithms.error_feedback.links import begin, gradients, mean_stepsize, publish
from jaxdopt.algorithms.federated.clients import Central
from jaxdopt.compressors import Compressor


@pytree
class State(Central):
    """The state of EF21."""

    server: jax.Array  # [d] x
    public: jax.Array  # [d] w, what clients hold
    mean: jax.Array  # [d] H, the server's mean of the hᵢ
    h: jax.Array  # [n, d] what each client's gradient is believed to be
    n: int = static()


@pytree
class EF21:
    """x ← x − γ Σᵢ pᵢ hᵢ,  hᵢ ← hᵢ + C(gᵢ − hᵢ).

    Args:
        stepsize: γ ≥ 0, one for all clients or [n, 1].
        compressor: C, contractive, such as ``jd.compressors.TopK(k)``.
        downlink: C_s, contractive, of what comes back; by default it is whole.
    """

    stepsize: Nonnegative
    compressor: Compressor
    downlink: Compressor | None = None
    needs: ClassVar[set[str]] = {"server", "sum"}

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at the mean of x0's rows."""
        x = begin(self, x0)
        return State(x, x, jnp.zeros_like(x), jnp.zeros_like(x0), problem.n)

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one round."""
        clients, g = gradients(state, problem, network, key)
        h = clients.own(state.h)
        c = message(self.compressor, key, g - h)
        mean = state.mean + clients.total(c) / state.n
        x = state.server - mean_stepsize(self, mean) * mean
        public = publish(self, key, x, state.public)
        return State(x, public, mean, clients.keep(state.h, h + c), state.n)
