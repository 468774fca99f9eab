"""FedAvg: local gradient steps at some clients, then the mean of their models.

    i ∈ Sₖ:  yᵢ = xₖ,   Kᵢ times  yᵢ ← yᵢ − η gᵢ(yᵢ)
    xₖ₊₁ = xₖ − η_g Δ,   Δ = Σ_{i ∈ Sₖ} pᵢ (xₖ − yᵢ) / Σ_{i ∈ Sₖ} pᵢ

gᵢ is the gradient of the client's own fᵢ, and pᵢ its weight in the objective: 1/n, or its share of
all samples (``weights="samples"``), and then the new model is the paper's Σ mᵢ yᵢ / Σ mᵢ (η_g = 1).
A step is a round; one without participants changes nothing. ``local`` and ``server`` put an optax
transformation in place of a local direction (begun anew in every round) or of Δ: FedAvgM is
``server=optax.trace(0.9)``; with ``optax.scale_by_adam`` it is FedAdam but for the bias correction
and v₀ = 0, where the published one has none and v₀ = τ². With unequal Kᵢ the limit is another,
unless the updates are multiplied by K/Kᵢ (``normalized``, as FedNova).

Source: McMahan, Moore, Ramage, Hampson, Agüera y Arcas (2017), arXiv 1602.05629; server optimizers:
Reddi et al. (2021), arXiv 2003.00295; analysis without a heterogeneity condition: Huang, Li, Pu
(2023), arXiv 2301.12677.
Confidence: textbook, from memory (FedAdam's v₀ = τ²).
Theorem in the tests: with a constant η the bias is linear in η and grows with K, and it is 0 if f*
= Σᵢ pᵢ fᵢ*; with unequal probabilities of taking part it stays for any η and K. With full
participation and K = 1 it is gradient descent on F.
"""

from typing import Any, ClassVar

import jax

from jaxdopt._checks import Count
from jaxdopt._numbers import Nonnegative
from jaxdopt._pytree import field, pytree, static
from jaxdopt.algorithms.federated.clients import (
    Central,
    Steps,
    common,
    descend,
    participants,
    require_own_steps,
    serve,
)
from jaxdopt.optimizers import Transformation, of_row


@pytree
class State(Central):
    """The state of FedAvg."""

    server: jax.Array  # [d] the server's model
    memory: Any = field(axis=None)  # of the server's optimizer
    n: int = static()


@pytree
class FedAvg:
    """xₖ₊₁ = xₖ − η_g mean_{Sₖ} (xₖ − yᵢ),  yᵢ after K local steps yᵢ ← yᵢ − η gᵢ(yᵢ).

    Args:
        stepsize: η ≥ 0 of local steps, one for all clients or [n, 1].
        server_stepsize: η_g ≥ 0, on the clients' mean update; 1 averages their models.
        local_steps: K ≥ 1, the most local steps of a client in a round; static.
        own_steps: Kᵢ in [1, K], how many each client takes, [n, 1]; by default K.
        normalized: whether updates are multiplied by K/Kᵢ, as FedNova's; static.
        local: an optax transformation of local directions, without a learning rate; by default
            none. With `jd.optimizer` its numbers are swept.
        server: the same, of the mean update Δ, such as ``optax.trace(0.9)``.
    """

    stepsize: Nonnegative
    server_stepsize: Nonnegative = 1.0
    local_steps: Count = static(default=1)
    own_steps: Steps | None = None
    normalized: bool = static(default=False)
    local: Transformation | None = None
    server: Transformation | None = None
    needs: ClassVar[set[str]] = {"server"}

    def __post_init__(self) -> None:
        """Check how many local steps each client takes."""
        require_own_steps(self)

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at the mean of x0's rows."""
        x = common(x0)
        outer = of_row(self.server, getattr(problem, "leaves", None))
        return State(x, outer.init(x), problem.n)

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one round."""
        clients = participants(problem, network)
        start = clients.share(state.server)
        y, *_ = descend(
            clients,
            start,
            self.stepsize,
            self.local_steps,
            key,
            own_steps=self.own_steps,
            optimizer=self.local,
        )
        away = start - y
        if self.normalized and self.own_steps is not None:
            away = away * (self.local_steps / clients.own(self.own_steps))
        outer = of_row(self.server, getattr(problem, "leaves", None))
        server, memory = serve(
            clients, state.server, self.server_stepsize, clients.mean(away), outer, state.memory
        )
        return State(server, memory, state.n)
