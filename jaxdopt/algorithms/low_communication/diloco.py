"""DiLoCo: many steps of a local optimizer that lives on, then a step of an outer one.

    i ∈ Sₖ:  yᵢ = φₖ,   K times  yᵢ ← yᵢ − η uᵢ,   uᵢ the local optimizer's direction for gᵢ(yᵢ)
    Δ = φₖ − Σ_{i ∈ Sₖ} pᵢ yᵢ / Σ_{i ∈ Sₖ} pᵢ,   m ← μ m + Δ,   φₖ₊₁ = φₖ − η_o (Δ + μ m)

The outer optimizer, here Nesterov's momentum, may be any other. Between rounds a worker's optimizer
keeps its memory, as in the paper, or begins anew, as in `FedAvg`, or goes on with the mean of the
memories (floating ones; counts stay). A step is a round; one without workers changes nothing, a
worker that comes back starts from φ with the memory that it had. Without both optimizers it is
`FedAvg`, which the literature on language models calls local SGD; with n = 1 it is Lookahead with
momentum.

Source: Douillard, Feng, Rusu, Chhaparia, Donchev, Kuncoro, Ranzato, Szlam, Shen (2023), arXiv
2311.08105; averaged memories: Iacob, Sani, Safaryan, Giampouras, Horváth, Jovanović, Kurmanji,
Aleksandrov, Shen, Qiu, Lane (2025), arXiv 2505.22549 (there every few rounds).
Confidence: authors' code (of others: torchft's and Gensyn's).
Theorem in the tests: with K = 1, no optimizers and η_o = 1 it is gradient descent.
"""

from typing import Any, ClassVar, Literal

import jax

from jaxdopt._checks import Count
from jaxdopt._numbers import Nonnegative
from jaxdopt._pytree import field, pytree, static
from jaxdopt.algorithms.federated.clients import Central, common, participants
from jaxdopt.algorithms.low_communication.outer import (
    AXES,
    advance,
    averaged,
    outer_of,
    rows_of,
    work,
)
from jaxdopt.optimizers import Transformation, nesterov


@pytree
class State(Central):
    """The state of DiLoCo."""

    server: jax.Array  # [d] φ
    outer: Any = field(axis=None)  # memory of the outer optimizer
    inner: Any  # [n, ...] memories of the workers' optimizers
    n: int = static()


@pytree
class DiLoCo:
    """φ⁺ = φ − η_o U(φ − mean_S yᵢ),  yᵢ after K steps of a local optimizer from φ.

    Args:
        stepsize: η ≥ 0 of local steps, one for all workers or [n, 1].
        server_stepsize: η_o ≥ 0, of the outer optimizer.
        local_steps: K ≥ 1, the local steps of a round; static.
        local: an optax transformation of local directions, without a learning rate, such as
            ``optax.scale_by_adam()``; by default none.
        server: the same, of the pseudo-gradient; by default ``optax.trace(0.9, nesterov=True)``.
        memory: what becomes of the local optimizers' memories between rounds: "keep", "reset" or
            "average"; static.
    """

    stepsize: Nonnegative
    server_stepsize: Nonnegative = 0.7
    local_steps: Count = static(default=500)
    local: Transformation | None = None
    server: Transformation | None = nesterov(0.9)
    memory: Literal["keep", "reset", "average"] = static(default="keep")
    needs: ClassVar[set[str]] = {"server"}
    axes: ClassVar = AXES

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at the mean of x0's rows."""
        x = common(x0)
        inner = None if self.memory == "reset" else rows_of(self, problem, x0)
        return State(x, outer_of(self, problem).init(x), inner, problem.n)

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one round."""
        clients = participants(problem, network)
        start = clients.share(state.server)
        y, memory = work(self, clients, start, state.inner, key)
        server, outer = advance(self, clients, state, problem, clients.mean(start - y))
        if self.memory == "reset":
            return State(server, outer, None, state.n)
        if self.memory == "average":
            memory = averaged(clients, memory)
        return State(server, outer, clients.keep(state.inner, memory), state.n)
