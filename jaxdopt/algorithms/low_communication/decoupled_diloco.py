"""Decoupled DiLoCo: fragments are merged of those who are there, and nobody waits for the others.

    yᵢ ← yᵢ − η uᵢ,  tᵢₚ ← tᵢₚ + 1,  at the learners i ∈ Sₛ who are there in tick s = 1, 2, ...
    fragment p is due at s ≡ oₚ (mod H), oₚ = (p + 1) H / P, and merged at the first tick from then
    on with |Sₛ| ≥ q, or at the first such that is at least G ticks later:
    Δₚ = Σᵢ wᵢ (φₚ − yᵢₚ) / Σᵢ wᵢ,   φₚ ← φₚ − η_o U(Δₚ),   yᵢₚ ← φₚ,  tᵢₚ ← 0,   all of i ∈ Sₛ

tᵢₚ are learner i's steps since p was merged of it, and wᵢ its tokens times tokens a step: of
batches of one size wᵢ = pᵢ tᵢₚ. Leaf l is in fragment l mod P, and every fragment has an outer
memory of its own. A learner that comes back starts from φ, with t = 0 and the memory that its
optimizer had. A fragment that is due again while it waits is merged once. A step is a tick, and who
is there takes an inner step in it: a learner at half the speed is there in every second one.

Source: Google (2026), arXiv 2604.21428.
Confidence: summaries (weights and fragments, of a collection of optimizers), derived (a grace of G
ticks); open: the rule of the grace window, which others restate in seconds with an early end.
Departs: only learners who are there are merged, so that no update is stale.
Theorem in the tests: with everybody there and no grace it is `StreamingDiLoCo` without delay and
merging; with one fragment `DiLoCo`.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdopt._checks import Count, require
from jaxdopt._numbers import Nonnegative
from jaxdopt._pytree import field, pytree, static
from jaxdopt.algorithms.federated.clients import Shared, participants
from jaxdopt.algorithms.low_communication.fragments import (
    Fragmented,
    begin,
    exchanged,
    fragments_of,
    inner_step,
    require_turns,
)
from jaxdopt.algorithms.low_communication.outer import AXES
from jaxdopt.costs import Cost
from jaxdopt.optimizers import Transformation, nesterov


@pytree
class State(Fragmented):
    """The state of decoupled DiLoCo."""

    steps: jax.Array  # [n, P] t, a learner's steps since a fragment was merged of it
    due: jax.Array = field(axis=None)  # [P] bool, which fragments are to be merged
    waited: jax.Array = field(axis=None)  # [P] ticks since there was a quorum for it; else −1
    merged: jax.Array = field(axis=None)  # [P] bool, which were in the last tick


@pytree
class DecoupledDiLoCo:
    """φₚ ← φₚ − η_o U(Σ wᵢ (φₚ − yᵢₚ) / Σ wᵢ) of those who are there, once they are a quorum.

    Args:
        stepsize: η ≥ 0 of inner steps, one for all learners or [n, 1].
        server_stepsize: η_o ≥ 0, of the outer optimizer.
        period: H, the ticks from one time that a fragment is due to the next, a multiple of P;
            static.
        fragments: P ≥ 1, into which the parameters' leaves are dealt; static.
        quorum: q ≥ 1, how many learners it takes to merge a fragment; static.
        grace: G ≥ 0, how many ticks more are waited for others.
        server: an optax transformation of the pseudo-gradient, without a learning rate; by default
            ``optax.trace(0.9, nesterov=True)``.
        local: the same, of inner directions, such as ``optax.scale_by_adam()``; by default none.
    """

    stepsize: Nonnegative
    server_stepsize: Nonnegative = 0.7
    period: Count = static(default=100)
    fragments: Count = static(default=1)
    quorum: Count = static(default=1)
    grace: Shared = 0.0
    server: Transformation | None = nesterov(0.9)
    local: Transformation | None = None
    needs: ClassVar[set[str]] = {"server", "sum"}
    axes: ClassVar = AXES

    def __post_init__(self) -> None:
        """Check that fragments take equal turns."""
        require_turns(self)

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at the mean of x0's rows."""
        require(
            self.quorum <= problem.n,
            f"quorum is {self.quorum}, and there are {problem.n} learners; give at most as many.",
        )
        start, none = begin(self, problem, x0), jnp.zeros(self.fragments, bool)
        steps = jnp.zeros((problem.n, self.fragments), int)
        return State(*start, steps, none, jnp.full(self.fragments, -1), jnp.zeros_like(none))

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one tick of the clock."""
        clients, parts = participants(problem, network), fragments_of(self, problem)
        y, inner, present = inner_step(self, clients, state, key)
        t = jnp.where(clients.own(state.present)[:, None], clients.own(state.steps), 0) + 1
        offsets = (jnp.arange(len(parts)) + 1) * (self.period // self.fragments)
        due = state.due | ((network.time + 1 - offsets) % self.period == 0)
        enough = clients.number >= self.quorum
        opened = jnp.where(due & enough, 0, -1)
        waited = jnp.where(state.waited < 0, opened, state.waited + 1)
        merged = due & enough & (waited >= self.grace)

        def merge() -> tuple[Any, ...]:
            server, outer, rows = state.server, list(state.outer), y
            for p, part in enumerate(parts):
                w, old = t[:, p, None].astype(y.dtype), (part.select(server), outer[p])
                away = clients.total(w * (old[0][None] - part.select(y))) / clients.total(w)
                along, new = part.outer.update(away, old[1], old[0])
                new = old[0] - self.server_stepsize * along, new
                own, outer[p] = jax.tree.map(lambda a, b, p=p: jnp.where(merged[p], a, b), new, old)
                server = part.put(server, own)
                rows = part.put(rows, jnp.where(merged[p], own, part.select(rows)))
            return server, tuple(outer), rows

        server, outer, y = jax.lax.cond(
            jnp.any(merged), merge, lambda: (state.server, state.outer, y)
        )
        x, steps = clients.keep((state.x, state.steps), (y, jnp.where(merged, 0, t)))
        waited = jnp.where(merged, -1, waited)
        return State(x, server, outer, inner, present, steps, due & ~merged, waited, merged)

    def cost(self, state: State, problem: Any, network: Any) -> Cost:
        """One gradient; the fragments that were merged, to the server and back."""
        return exchanged(self, state, problem, network, state.merged, jnp.any(state.merged))
