"""Streaming DiLoCo: fragments of the model are exchanged one after the other, under local steps.

    yᵢ ← yᵢ − η uᵢ,   uᵢ worker i's own optimizer's direction for gᵢ(yᵢ);   s inner steps are done
    s ≡ oₚ − τ (mod H):   Δₚ = mean_i C(φₚ − yᵢₚ) begins to travel,           oₚ = (p + 1) H / P
    s ≡ oₚ (mod H):       φₚ ← φₚ − η_o U(Δₚ),   yᵢₚ ← α yᵢₚ + (1 − α) φₚ,   the present yᵢₚ

Leaf l of the parameters is in fragment l mod P, and every fragment has an outer memory of its own.
So one fragment is exchanged every H/P steps, and its message has τ < H/P steps to arrive. A step is
an inner step of all workers. One that was absent comes back with y = φ and the memory that it had;
a mean of nobody is not exchanged. An exchange that fails is no update: φₚ and its memory stay, the
workers' yᵢₚ fall back to φₚ, and the same fragment is tried again H/P steps later. With P = 1,
τ = 0 and α = 0 it is `DiLoCo`; with α = 1 workers never hear of each other.

Source: Douillard, Donchev, Rush, Kale, Charles, Garrett, Teston, Lacey, McIlroy, Shen, Ramé, Szlam,
Ranzato, Barham (2025), arXiv 2501.18512; failures: torchft's ``local_sgd``.
Confidence: third-party code (torchft's, whose published runs it repeats exactly), from memory (the
paper's defaults).
Departs: the paper counts τ from the sending, as we do from the arrival: the same with other oₚ.
Theorem in the tests: with one fragment, without delay and merging it is `DiLoCo`.
"""

import functools
from collections.abc import Callable
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdopt._checks import Count, Integer
from jaxdopt._numbers import Fraction, Nonnegative
from jaxdopt._pytree import field, pytree, static
from jaxdopt.algorithms.compressed.messages import message
from jaxdopt.algorithms.federated.clients import participants
from jaxdopt.algorithms.low_communication.fragments import (
    Fragment,
    Fragmented,
    begin,
    exchanged,
    fragments_of,
    inner_step,
    require_turns,
)
from jaxdopt.algorithms.low_communication.outer import AXES
from jaxdopt.compressors import Compressor
from jaxdopt.costs import Cost
from jaxdopt.optimizers import Transformation, nesterov

COMMIT = 0xC0117000  # folded into the key of a step: whether an exchange succeeds


@pytree
class State(Fragmented):
    """The state of streaming DiLoCo."""

    pending: jax.Array = field(axis=None)  # [d] the Δₚ that travels
    sent: jax.Array  # [] the share of workers that have sent theirs
    failures: jax.Array  # [] how many exchanges have failed
    arrived: jax.Array = field(axis=None)  # [P] bool, which fragment did in the last step


@pytree
class StreamingDiLoCo:
    """φₚ ← φₚ − η_o U(mean (φₚ − yₚ)) every H steps, one fragment p after the other, τ steps late.

    Args:
        stepsize: η ≥ 0 of inner steps, one for all workers or [n, 1].
        server_stepsize: η_o ≥ 0, of the outer optimizer.
        period: H, the inner steps between two exchanges of a fragment, a multiple of P; static.
        fragments: P ≥ 1, into which the parameters' leaves are dealt; static.
        delay: τ < H / P, the inner steps under which a message travels; static.
        merge: α in [0, 1], the weight of the worker's own value where a fragment arrives.
        local: an optax transformation of inner directions, without a learning rate, such as
            ``optax.scale_by_adam()``; by default none.
        server: the same, of the pseudo-gradient; by default ``optax.trace(0.9, nesterov=True)``.
        compressor: C, of what a worker sends; what comes back is whole.
        success: the probability that an exchange succeeds, a number or a schedule of steps.
    """

    stepsize: Nonnegative
    server_stepsize: Nonnegative = 0.4
    period: Count = static(default=100)
    fragments: Count = static(default=1)
    delay: Annotated[int, Integer(0)] = static(default=1)
    merge: Fraction = 0.5
    local: Transformation | None = None
    server: Transformation | None = nesterov(0.9)
    compressor: Compressor | None = None
    success: Fraction = 1.0
    needs: ClassVar[set[str]] = {"server"}
    axes: ClassVar = AXES

    def __post_init__(self) -> None:
        """Check that fragments take equal turns, and that messages arrive before the next one."""
        require_turns(self, self.delay)

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at the mean of x0's rows."""
        start = begin(self, problem, x0)
        none = jnp.zeros_like(start[1]), jnp.asarray(0.0), jnp.asarray(0)
        return State(*start, *none, jnp.zeros(self.fragments, bool))

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one inner step, and exchange the fragment whose turn it is."""
        clients, parts = participants(problem, network), fragments_of(self, problem)
        y, inner, present = inner_step(self, clients, state, key)
        phi = clients.share(state.server)
        done, turn = network.time + 1, self.period // self.fragments
        share = jnp.asarray(clients.number / problem.n, state.sent.dtype)
        p = ((done + self.delay) // turn - 1 - state.failures) % self.fragments

        def message_of(part: Fragment) -> jax.Array:
            delta = part.select(phi) - part.select(y)
            if self.compressor is not None:
                delta = message(self.compressor, key, delta)
            return part.put(state.pending, clients.mean(delta))

        pending, sent = jax.lax.cond(
            (done + self.delay) % turn == 0,
            lambda: (_switch(p, message_of, parts), share),
            lambda: (state.pending, state.sent),
        )
        there = sent > 0
        chance = jax.random.uniform(jax.random.fold_in(key, COMMIT), dtype=jnp.float32)
        succeeds = there & (chance < jnp.asarray(self.success, jnp.float32))

        def update_of(part: Fragment) -> tuple[Any, ...]:
            old = part.select(state.server), state.outer[part.p]
            along, new = part.outer.update(part.select(pending), old[1], old[0])
            new = old[0] - self.server_stepsize * along, new
            own, outer = jax.tree.map(lambda a, b: jnp.where(succeeds, a, b), new, old)
            memories = (*state.outer[: part.p], outer, *state.outer[part.p + 1 :])
            mine = part.put(jnp.zeros(problem.d, bool), jnp.ones(part.d, bool))
            return part.put(state.server, own), memories, mine

        def arrived() -> tuple[Any, ...]:
            server, outer, mine = _switch(p, update_of, parts)
            alpha = jnp.where(succeeds, self.merge, 0).astype(y.dtype)
            merged = jnp.where((mine & there)[None], alpha * y + (1 - alpha) * server[None], y)
            failures = state.failures + (there & ~succeeds).astype(state.failures.dtype)
            return merged, server, outer, failures, there & (jnp.arange(len(parts)) == p)

        none = jnp.zeros_like(state.arrived)
        y, server, outer, failures, which = jax.lax.cond(
            done % turn == 0,
            arrived,
            lambda: (y, state.server, state.outer, state.failures, none),
        )
        x = clients.keep(state.x, y)
        return State(x, server, outer, inner, present, pending, sent, failures, which)

    def cost(self, state: State, problem: Any, network: Any) -> Cost:
        """One gradient; a fragment to the server and back where one has arrived."""
        now = (network.time + 1) % (self.period // self.fragments) == 0
        return exchanged(self, state, problem, network, state.arrived, now, self.delay)


def _switch(p: jax.Array, branch: Callable[[Fragment], Any], parts: list[Fragment]) -> Any:
    """Return what a branch makes of fragment p."""
    return jax.lax.switch(p, [functools.partial(branch, part) for part in parts])
