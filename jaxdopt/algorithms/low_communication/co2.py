"""CO2: DiLoCo whose exchange travels under the next round's local steps, tamed by a gap penalty.

    i ∈ Sₜ:  yᵢ = xₜ,   K times  yᵢ ← yᵢ − η uᵢ,      Δₜ = xₜ − Σ_{i ∈ Sₜ} pᵢ yᵢ / Σ_{i ∈ Sₜ} pᵢ
    mₜ = clip(β mₜ₋₁ + Δₜ₋₁ / Λₜ, ±c),   xₜ₊₁ = xₜ − α mₜ

What is exchanged in round t is the pseudo-gradient of the round before, so that a round takes
max(K t_c, t_m) in place of K t_c + t_m. The first one moves nothing, nor does one without workers,
and what is in flight then waits. Λ, which the paper takes from the gap between workers and the mean
of a round before, is a number, or any function of xₜ − xₜ₋₁ and Δₜ₋₁.

On a quadratic of curvature λ, where K plain local steps have the gain r = 1 − (1 − η λ)^K, it is
stable iff β + α r / Λ < 1 (`jd.theory.co2_factor`), with the default Λ = 2 α / (1 − β) for all
η < 2 / L. Where it is not, the clip turns divergence into a bounded cycle.

Source: Sun, Qin, Sun, Li, Li, Shen, Qiao, Zhong (2024), arXiv 2401.16265.
Confidence: paper (the round), authors' code (β, α, K); open: the paper's Λₜ, which no source has.
Theorem in the tests: that edge; with β = 0 and Λ = 1 it is local SGD a round late.
"""

import dataclasses
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdopt._checks import Count
from jaxdopt._numbers import Fraction, Nonnegative, Number, Positive
from jaxdopt._opaque import traceable
from jaxdopt._pytree import pytree, static
from jaxdopt.algorithms.federated.clients import Central, common, participants
from jaxdopt.algorithms.low_communication.outer import AXES, rows_of, work
from jaxdopt.optimizers import Transformation


@dataclasses.dataclass(frozen=True)
class _Gap(Number):
    """A positive number, or a function of (xₜ − xₜ₋₁, Δₜ₋₁) in place of a schedule."""

    above: float = 0.0
    kind: ClassVar[str] = "float | Callable"

    def accept(self, name: str, value: Any) -> Any:
        """Return the number, or the function as part of the program."""
        return traceable(value) if callable(value) else super().accept(name, value)


@pytree
class State(Central):
    """The state of CO2."""

    server: jax.Array  # [d] x
    moved: jax.Array  # [d] xₜ − xₜ₋₁
    momentum: jax.Array  # [d] m
    flight: jax.Array  # [d] Δₜ₋₁, under way
    inner: Any  # [n, ...] memories of the workers' optimizers
    n: int = static()


@pytree
class CO2:
    """mₜ = clip(β mₜ₋₁ + Δₜ₋₁ / Λₜ, ±c),  xₜ₊₁ = xₜ − α mₜ,  Δₜ = xₜ − mean_S yᵢ after K steps.

    Args:
        stepsize: η ≥ 0 of local steps, one for all workers or [n, 1].
        server_stepsize: α ≥ 0, of the outer step.
        momentum: β in [0, 1], of the outer step.
        local_steps: K ≥ 1, the local steps of a round; static.
        gap: Λ > 0, a number or a function (moved, delta) -> number of xₜ − xₜ₋₁ and Δₜ₋₁, both [d],
            of which delta is 0 in the first round; by default 2 α / (1 − β).
        clip: c > 0, of the entries of m; by default they are not clipped.
        local: an optax transformation of local directions, without a learning rate, such as
            ``optax.scale_by_adam()``; by default none.
    """

    stepsize: Nonnegative
    server_stepsize: Nonnegative = 1.0
    momentum: Fraction = 0.5
    local_steps: Count = static(default=48)
    gap: Annotated[Any, _Gap()] | None = None
    clip: Positive | None = None
    local: Transformation | None = None
    needs: ClassVar[set[str]] = {"server"}
    overlap: ClassVar[int] = 1
    axes: ClassVar = AXES

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at the mean of x0's rows."""
        x = common(x0)
        zero = jnp.zeros_like(x)
        return State(x, zero, zero, zero, rows_of(self, problem, x0), problem.n)

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one round."""
        clients = participants(problem, network)
        start = clients.share(state.server)
        y, memory = work(self, clients, start, state.inner, key)
        arrived = jnp.where(state.flight == 0, 0, state.flight / self._gap(state))
        m = self.momentum * state.momentum + arrived
        if self.clip is not None:
            m = jnp.clip(m, -self.clip, self.clip)
        moved = -self.server_stepsize * m
        outer = state.server + moved, moved, m, clients.mean(start - y)
        before = state.server, state.moved, state.momentum, state.flight
        server, moved, m, flight = jax.tree.map(
            lambda new, old: jnp.where(clients.number > 0, new, old), outer, before
        )
        return State(server, moved, m, flight, clients.keep(state.inner, memory), state.n)

    def _gap(self, state: State) -> Any:
        if self.gap is None:
            return 2 * self.server_stepsize / (1 - self.momentum)
        return self.gap(state.moved, state.flight) if callable(self.gap) else self.gap
