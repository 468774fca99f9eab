"""Compressed SGD: a server steps along the mean of compressed gradients, and nothing is remembered.

    i ∈ Sₖ:  cᵢ = C(gᵢ(w))
    x ← x − γ Σ_{i ∈ Sₖ} pᵢ cᵢ / Σ_{i ∈ Sₖ} pᵢ,     w ← w + C_s(x − w)

With an unbiased C it is SGD with more noise, (1 + ω) times as large. With a biased one it is the
warning that error feedback answers: where the mean of C(∇fᵢ(x)) is 0 the gradient is not, and it
stalls there whatever γ, or diverges. A round without participants leaves x. Clients' own γ are
averaged.

Source: Khirirat, Feyzmahdavian, Johansson (2018), arXiv 1806.06573 (distributed, unbiased);
Beznosikov, Horváth, Richtárik, Safaryan (2020), arXiv 2002.12410 (biased, and how it diverges).
Confidence: textbook.
Theorem in the tests: with top-k and heterogeneous agents the error does not fall with γ.
"""

from typing import Any, ClassVar

import jax

from jaxdopt._numbers import Nonnegative
from jaxdopt._pytree import pytree, static
from jaxdopt.algorithms.compressed.messages import message
from jaxdopt.algorithms.error_feedback.links import begin, gradients, mean_stepsize, publish
from jaxdopt.algorithms.federated.clients import Central
from jaxdopt.compressors import Compressor


@pytree
class State(Central):
    """The state of compressed SGD."""

    server: jax.Array  # [d] x
    public: jax.Array  # [d] w, what clients hold
    n: int = static()


@pytree
class CompressedSGD:
    """x ← x − γ mean_S C(gᵢ).

    Args:
        stepsize: γ ≥ 0, one for all clients or [n, 1].
        compressor: C, any.
        downlink: C_s, contractive, of what comes back; by default it is whole.
    """

    stepsize: Nonnegative
    compressor: Compressor
    downlink: Compressor | None = None
    needs: ClassVar[set[str]] = {"server"}

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at the mean of x0's rows."""
        x = begin(self, x0, memory="downlink")
        return State(x, x, problem.n)

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one round."""
        clients, g = gradients(state, problem, network, key)
        c = message(self.compressor, key, g)
        x = state.server - mean_stepsize(self, state.server) * clients.mean(c)
        return State(x, publish(self, key, x, state.public), state.n)
