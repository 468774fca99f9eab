"""EF14: error feedback. What a message leaves out is added to the next one.

    i ∈ Sₖ:  aᵢ = eᵢ + γ gᵢ(w),    cᵢ = C(aᵢ),    eᵢ ← aᵢ − cᵢ
    x ← x − Σ_{i ∈ Sₖ} pᵢ cᵢ / Σ_{i ∈ Sₖ} pᵢ,     w ← w + C_s(x − w)

From eᵢ = 0. Memories are in units of x: γ enters with the gradient, as it has to where it changes.
With all clients in every round x − Σᵢ pᵢ eᵢ moves as SGD does that takes its gradients at w.
Where agents differ and γ is constant it ends at an error proportional to γ². A round without
participants leaves x; absent clients keep eᵢ.

Source: Seide, Fu, Droppo, Li, Yu (2014), Interspeech (one bit, 2014); Stich, Cordonnier, Jaggi
(2018), arXiv 1809.07599; Karimireddy, Rebjock, Stich, Jaggi (2019), arXiv 1901.09847.
Confidence: textbook.
Invariant: x − Σᵢ pᵢ eᵢ is where the same gradients lead uncompressed.
Theorem in the tests: the invariant; a plateau proportional to γ².
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdopt._numbers import Nonnegative
from jaxdopt._pytree import pytree, static
from jaxdopt.algorithms.compressed.messages import message
from jaxdopt.algorithms.error_feedback.links import begin, gradients, publish
from jaxdopt.algorithms.federated.clients import Central
from jaxdopt.compressors import Compressor


@pytree
class State(Central):
    """The state of EF14."""

    server: jax.Array  # [d] x
    public: jax.Array  # [d] w, what clients hold
    e: jax.Array  # [n, d] what has not been sent
    n: int = static()


@pytree
class EF14:
    """x ← x − mean_S C(eᵢ + γ gᵢ),  eᵢ the sum of what was not sent.

    Args:
        stepsize: γ ≥ 0, one for all clients or [n, 1].
        compressor: C, contractive, such as ``jd.compressors.TopK(k)``.
        downlink: C_s, contractive, of what comes back; by default it is whole.
    """

    stepsize: Nonnegative
    compressor: Compressor
    downlink: Compressor | None = None
    needs: ClassVar[set[str]] = {"server"}

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at the mean of x0's rows."""
        x = begin(self, x0)
        return State(x, x, jnp.zeros_like(x0), problem.n)

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one round."""
        clients, g = gradients(state, problem, network, key)
        a = clients.own(state.e) + clients.own(self.stepsize) * g
        c = message(self.compressor, key, a)
        x = state.server - clients.mean(c)
        e = clients.keep(state.e, a - c)
        return State(x, publish(self, key, x, state.public), e, state.n)
