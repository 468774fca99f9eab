"""Deep gradient compression: momentum is taken at the clients, before what is sent is chosen.

    i ∈ Sₖ:  gᵢ ← gᵢ min(1, c / (√n |gᵢ|))                        if clipped
             uᵢ ← m uᵢ + gᵢ,           vᵢ ← vᵢ + uᵢ               or, after Nesterov,
             uᵢ ← m (uᵢ + gᵢ),         vᵢ ← vᵢ + uᵢ + gᵢ
             cᵢ = C(vᵢ),    vᵢ ← vᵢ − cᵢ,    uᵢ ← 0 where cᵢ ≠ 0  if masked
    x ← x − γ Σ_{i ∈ Sₖ} pᵢ cᵢ / Σ_{i ∈ Sₖ} pᵢ,     w ← w + C_s(x − w)

From uᵢ = vᵢ = 0. Momentum of what is sent would forget what waits; that of gradients does not. The
mask stops the momentum of coordinates whose news are stale, and so discards some of it: where
agents differ the limit is biased, and not less for a smaller γ; without the mask it is O(γ²), as
EF14's. Leaves that `per_leaf` sends whole are not masked, and have SGD with momentum. The paper
warms up, a schedule of ``TopK(density=)``. A round without participants leaves x; absent clients
keep uᵢ and vᵢ. Clients' own γ are averaged.

Source: Lin, Han, Mao, Wang, Dally (2018), arXiv 1712.01887.
Confidence: authors' code.
Departs: the threshold c / √n is the paper's; the code clips leaves by a norm over all workers.
Invariant: the sum of what a client sent is Σ uᵢ − vᵢ.
Theorem in the tests: of whole messages it is heavy ball without the mask, and SGD with it; its bias
with it, and none without, as γ falls.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdopt._numbers import Fraction, Nonnegative, Positive
from jaxdopt._pytree import pytree, static
from jaxdopt.algorithms.compressed.messages import message
from jaxdopt.algorithms.error_feedback.links import begin, gradients, mean_stepsize, publish
from jaxdopt.algorithms.federated.clients import Central, clipped
from jaxdopt.compressors import Compressor


@pytree
class State(Central):
    """The state of deep gradient compression."""

    server: jax.Array  # [d] x
    public: jax.Array  # [d] w, what clients hold
    u: jax.Array  # [n, d] momentum
    v: jax.Array  # [n, d] what has not been sent
    n: int = static()


@pytree
class DGC:
    """x ← x − γ mean_S C(vᵢ),  vᵢ the sum of momentum that was not sent.

    Args:
        stepsize: γ ≥ 0, one for all clients or [n, 1].
        compressor: C, contractive, such as ``jd.compressors.TopK(density=0.001)``.
        momentum: m in [0, 1].
        clip: c > 0, the most that the sum of all clients' gradients is to have, as a norm of the
            whole vector; by default gradients are not clipped.
        masking: whether momentum starts anew in the coordinates that are sent; static.
        nesterov: whether it is Nesterov's; static.
        downlink: C_s, contractive, of what comes back; by default it is whole.
    """

    stepsize: Nonnegative
    compressor: Compressor
    momentum: Fraction = 0.9
    clip: Positive | None = None
    masking: bool = static(default=True)
    nesterov: bool = static(default=False)
    downlink: Compressor | None = None
    needs: ClassVar[set[str]] = {"server"}

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at the mean of x0's rows."""
        x, zero = begin(self, x0), jnp.zeros_like(x0)
        return State(x, x, zero, zero, problem.n)

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one round."""
        clients, g = gradients(state, problem, network, key)
        u, v, m = clients.own((state.u, state.v, self.momentum))
        if self.clip is not None:
            g = clipped(g, clients.own(self.clip) / state.n**0.5)
        u = m * (u + g) if self.nesterov else m * u + g
        v = v + u + g if self.nesterov else v + u
        c = message(self.compressor, key, v)
        if self.masking:
            spared = hasattr(self.compressor, "whole") and self.compressor.whole(g.shape[1])
            u = jnp.where((c == 0) | spared, u, 0)
        x = state.server - mean_stepsize(self, state.server) * clients.mean(c)
        public = publish(self, key, x, state.public)
        u, v = clients.keep((state.u, state.v), (u, v - c))
        return State(x, public, u, v, state.n)
