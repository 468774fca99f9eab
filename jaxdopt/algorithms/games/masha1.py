"""MASHA1: extragradient from snapshots, whose messages are unbiased differences.

    with probability p, all together, and in the first step:  w = zₖ,  send Fᵢ(w), get F(w), whole
    z̄ = (1 − p) zₖ + p w,      z½ = z̄ − γ F(w)
    q = Q_s(mean Qᵢ(Fᵢ(z½) − Fᵢ(w))),      zₖ₊₁ = z½ − γ q

Qᵢ compresses what device i sends, Q_s what the server broadcasts (without a downlink it comes back
whole). Both are unbiased. The messages vanish where z and w meet, so that no plateau is left. With
p = 1/(1 + ω) a full exchange costs on average as much as the compressed ones of random-k. By
default (p from the device's compressor) the identity gives p = 1 and `ExtraGradient`.

Source: Beznosikov, Richtárik, Diskin, Ryabinin, Gasnikov (2021), arXiv 2110.03313, algorithm 1; the
scheme without compression: Alacaoglu, Malitsky (2021), arXiv 2102.08352.
Confidence: from memory (no text or code of it was at hand; its rates hold here).
Departs: no prox. The snapshot is renewed at the start of a step, which is the same sequence as the
listing's w = zₖ₊₁ at the end of one; the paper may take zₖ there, at the same rate.
Theorem in the tests: linear convergence for γ ≤ √p / (2 C), C² = (q_s/n)(q_d + n − 1) L² with q =
1 + ω of the server's and the device's compressor; the number of full exchanges is binomial.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdopt._pytree import pytree, static
from jaxdopt.algorithms.compressed.messages import message
from jaxdopt.algorithms.federated.clients import Shared, participants
from jaxdopt.algorithms.games import snapshots


@pytree
class State(snapshots.Snapshot):
    """The state of MASHA1."""

    n: int = static()


@pytree
class MASHA1:
    """z½ = (1 − p) zₖ + p w − γ F(w),  zₖ₊₁ = z½ − γ Q_s(mean Qᵢ(Fᵢ(z½) − Fᵢ(w))).

    Args:
        stepsize: γ ≥ 0.
        compressor: Qᵢ, unbiased, of what devices send.
        downlink: Q_s, unbiased, of what the server sends; by default it sends it whole.
        probability: p in [0, 1], of a full exchange in a step; by default 1 / (1 + ω) of Qᵢ.
    """

    stepsize: Shared
    compressor: snapshots.Unbiased
    downlink: snapshots.Unbiased | None = None
    probability: snapshots.Probability | None = None
    needs: ClassVar[set[str]] = {"server", "sum", "all"}
    cost = snapshots.cost

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at the mean of x0's rows."""
        return State(*snapshots.begin(x0), problem.n)

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one step."""
        clients, z, p = participants(problem, network), state.server, self.probability
        p = jnp.asarray(1 / (1 + self.compressor.omega(len(z))) if p is None else p, z.dtype)
        due = self.toss(key) < p.astype(jnp.float32)
        w, own, mean, age = snapshots.renewed(state, clients, due, key)
        half = z + p * (w - z) - self.stepsize * mean
        there = clients.grad(clients.share(half), jax.random.fold_in(key, 1))
        q = clients.mean(message(self.compressor, key, there - own))
        if self.downlink is not None:
            q = message(self.downlink, key, q[None], 1)[0]
        return State(half - self.stepsize * q, w, own, mean, age, state.n)

    def toss(self, key: jax.Array) -> jax.Array:
        """Return the uniform number that all agents share in the step with this key."""
        return snapshots.toss(key)
