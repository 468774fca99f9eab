"""SparseLoCo: sparse pseudo-gradients, whose error feedback takes the outer momentum's place.

    i ∈ Sₖ:  yᵢ = φₖ,   K times  yᵢ ← yᵢ − η uᵢ,   uᵢ the local optimizer's direction for gᵢ(yᵢ)
    eᵢ ← β eᵢ + φₖ − yᵢ,    vᵢ = C(eᵢ),    eᵢ ← eᵢ − vᵢ
    φₖ₊₁ = φₖ − η_o Σ_{i ∈ Sₖ} pᵢ vᵢ / Σ_{i ∈ Sₖ} pᵢ

A coordinate that is not sent waits in eᵢ, and β < 1 forgets what has waited for long. C(e) goes up,
and the model comes back whole. The paper takes the k largest coordinates of each chunk of the
parameters and 2 bits for their values: ``Blocks(TopK(k), size)`` has the chunks, of the row of all
parameters. A worker that is absent keeps its eᵢ and the optimizer's memory.

Source: Sarfi, Thérien, Lidin, Belilovsky (2025), arXiv 2508.15706.
Confidence: summaries (a collection of optimizers), from memory (chunks).
Departs: messages are added by a server, where the paper gathers all at every worker.
Theorem in the tests: with β = 0 and without compression it is `FedAvg`.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdopt._checks import Count
from jaxdopt._numbers import Fraction, Nonnegative
from jaxdopt._pytree import pytree, static
from jaxdopt.algorithms.compressed.messages import message
from jaxdopt.algorithms.federated.clients import Central, common, participants
from jaxdopt.algorithms.low_communication.outer import AXES, rows_of, work
from jaxdopt.compressors import Compressor
from jaxdopt.optimizers import Transformation


@pytree
class State(Central):
    """The state of SparseLoCo."""

    server: jax.Array  # [d] φ
    e: jax.Array  # [n, d] what has not been sent
    inner: Any  # [n, ...] memories of the workers' optimizers
    n: int = static()


@pytree
class SparseLoCo:
    """φ⁺ = φ − η_o mean_S C(eᵢ),  eᵢ the decaying sum of pseudo-gradients that was not sent.

    Args:
        stepsize: η ≥ 0 of local steps, one for all workers or [n, 1].
        compressor: C, such as ``jd.compressors.Blocks(jd.compressors.TopK(64), 4096)``.
        server_stepsize: η_o ≥ 0, on the mean message.
        decay: β in [0, 1], of what has not been sent.
        local_steps: K ≥ 1, the local steps of a round; static.
        local: an optax transformation of local directions, without a learning rate, such as
            ``optax.scale_by_adam()``, whose memory is kept; by default none.
    """

    stepsize: Nonnegative
    compressor: Compressor
    server_stepsize: Nonnegative = 1.0
    decay: Fraction = 0.95
    local_steps: Count = static(default=30)
    local: Transformation | None = None
    needs: ClassVar[set[str]] = {"server"}
    downlink: ClassVar[None] = None
    axes: ClassVar = AXES

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at the mean of x0's rows."""
        return State(common(x0), jnp.zeros_like(x0), rows_of(self, problem, x0), problem.n)

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one round."""
        clients = participants(problem, network)
        start = clients.share(state.server)
        y, memory = work(self, clients, start, state.inner, key)
        e = self.decay * clients.own(state.e) + start - y
        sent = message(self.compressor, key, e)
        return State(
            state.server - self.server_stepsize * clients.mean(sent),
            clients.keep(state.e, e - sent),
            clients.keep(state.inner, memory),
            state.n,
        )
