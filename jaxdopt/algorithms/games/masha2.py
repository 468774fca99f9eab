"""MASHA2: extragradient from snapshots, with error feedback at the devices and at the server.

    with probability p, all together, and in the first step:  w = zₖ,  send Fᵢ(w), get F(w), whole
    z̄ = (1 − p) zₖ + p w,      z½ = z̄ − γ F(w)
    cᵢ = C(γ Fᵢ(z½) − γ Fᵢ(w) + eᵢ),      eᵢ ← γ Fᵢ(z½) − γ Fᵢ(w) + eᵢ − cᵢ
    q = C_s(mean cᵢ + e),      e ← mean cᵢ + e − q,      zₖ₊₁ = z½ − q

C compresses what devices send, C_s what the server broadcasts (without a downlink it comes back
whole, and e stays 0). Both may be biased, such as top-k. By default p = δ of the device's
compressor; with the identity it is `ExtraGradient`.

Source: Beznosikov, Richtárik, Diskin, Ryabinin, Gasnikov (2021), arXiv 2110.03313, algorithm 2.
Confidence: from memory (no text or code of it was at hand; its rates hold here).
Departs: as `MASHA1`, but for the prox, which the paper's does not have either.
Invariant: Σ (γ Fᵢ(z½) − γ Fᵢ(w)) = Σ cᵢ + eᵢ over all steps, and Σ mean cᵢ = Σ q + e.
Theorem in the tests: linear convergence with γ = √p δ δ_s / (2L), up to a constant; 16 times this
converges, too, in our runs.
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
    """The state of MASHA2."""

    e: jax.Array  # [n, d] what the devices have not sent
    rest: jax.Array  # [d] what the server has not sent, the e of the server
    n: int = static()


@pytree
class MASHA2:
    """z½ = (1 − p) zₖ + p w − γ F(w),  zₖ₊₁ = z½ − C_s(e + mean C(eᵢ + γ Fᵢ(z½) − γ Fᵢ(w))).

    Args:
        stepsize: γ ≥ 0.
        compressor: C, contractive, of what devices send.
        downlink: C_s, contractive, of what the server sends; by default it sends it whole.
        probability: p in [0, 1], of a full exchange in a step; by default δ of C.
    """

    stepsize: Shared
    compressor: snapshots.Contracting
    downlink: snapshots.Contracting | None = None
    probability: snapshots.Probability | None = None
    needs: ClassVar[set[str]] = {"server", "sum", "all"}
    cost = snapshots.cost

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at the mean of x0's rows."""
        e, rest = jnp.zeros_like(x0), jnp.zeros_like(x0[0])
        return State(*snapshots.begin(x0), e, rest, problem.n)

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one step."""
        clients, z, p = participants(problem, network), state.server, self.probability
        p = jnp.asarray(self.compressor.delta(len(z)) if p is None else p, z.dtype)
        due = self.toss(key) < p.astype(jnp.float32)
        w, own, mean, age = snapshots.renewed(state, clients, due, key)
        half = z + p * (w - z) - self.stepsize * mean
        there = clients.grad(clients.share(half), jax.random.fold_in(key, 1))
        unsent = self.stepsize * (there - own) + state.e
        c = message(self.compressor, key, unsent)
        q = total = clients.mean(c) + state.rest
        if self.downlink is not None:
            q = message(self.downlink, key, total[None], 1)[0]
        return State(half - q, w, own, mean, age, unsent - c, total - q, state.n)

    def toss(self, key: jax.Array) -> jax.Array:
        """Return the uniform number that all agents share in the step with this key."""
        return snapshots.toss(key)
