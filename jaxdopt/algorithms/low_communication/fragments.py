"""What methods share that exchange a model in fragments, one after the other.

Leaf l of the parameters is in fragment l mod P. Every fragment has an outer memory of its own.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxdopt import agents
from jaxdopt._checks import require
from jaxdopt._pytree import field, pytree, replace
from jaxdopt.algorithms.federated.clients import Clients, common
from jaxdopt.algorithms.low_communication.outer import outer_of, rows_of, work
from jaxdopt.compressors import FLOAT
from jaxdopt.costs import Cost, counted
from jaxdopt.optimizers import OfRow, of_row
from jaxdopt.problems.layout import leaves_of


@pytree
class Fragmented:
    """What states of methods share whose workers have rows of their own, and a slow model."""

    x: jax.Array  # [n, d] where the workers are
    server: jax.Array = field(axis=None)  # [d] φ
    outer: Any = field(axis=None)  # memories of the outer optimizer, one a fragment
    inner: Any  # [n, ...] memories of the workers' optimizers
    present: jax.Array  # [n] bool, who was there in the last step

    @property
    def estimate(self) -> jax.Array:
        """The slow model φ, [d]."""
        return self.server


def begin(method: Any, problem: Any, x0: jax.Array) -> tuple[Any, Any, Any, Any, Any]:
    """Return the fields of `Fragmented` before the first step: all are at the mean of x0's rows."""
    phi, parts = common(x0), fragments_of(method, problem)
    outer = tuple(part.outer.init(part.select(phi)) for part in parts)
    rows = jnp.broadcast_to(phi, x0.shape)
    return rows, phi, outer, rows_of(method, problem, x0), jnp.zeros(problem.n, bool)


def inner_step(
    method: Any, clients: Clients, state: Fragmented, key: jax.Array
) -> tuple[jax.Array, Any, jax.Array]:
    """Return where an inner step takes those who are there, y [s, d], and ``inner``, ``present``.

    Who was absent in the step before begins at φ.
    """
    before, phi = clients.own(state.present), clients.share(state.server)
    start = agents.select(before, clients.own(state.x), phi)
    y, memory = work(method, clients, start, state.inner, key)
    present = clients.keep(jnp.zeros_like(state.present), jnp.ones_like(before))
    return y, clients.keep(state.inner, memory), present


class Fragment(NamedTuple):
    """A part of the model that is exchanged alone."""

    p: int  # its number
    d: int  # how many coordinates it has
    select: Callable[[jax.Array], jax.Array]  # its coordinates, [..., d] -> [..., d_p]
    put: Callable[[jax.Array, jax.Array], jax.Array]  # rows [..., d] with others in their place
    outer: OfRow  # the outer optimizer, of [d_p]


def fragments_of(method: Any, problem: Any) -> list[Fragment]:
    """Return the P = ``method.fragments`` fragments of the model: leaf l is in fragment l mod P.

    One fragment is the whole model, of which nothing needs to be known.

    Raises:
        ValueError: a problem without leaves, or with fewer than P, unless P = 1.
    """
    if method.fragments == 1:
        whole = outer_of(method, problem)
        return [Fragment(0, problem.d, lambda rows: rows, _other, whole)]
    leaves = leaves_of(problem, type(method).__name__)

    def fragment(p: int, which: tuple[int, ...]) -> Fragment:
        part = leaves.part(which)
        return Fragment(
            p,
            part.d,
            functools.partial(leaves.select, which=which),
            lambda rows, values: leaves.put(rows, which, values),
            of_row(method.server, part),
        )

    return [fragment(p, which) for p, which in enumerate(leaves.fragments(method.fragments))]


def require_turns(method: Any, delay: int = 0) -> None:
    """Refuse a period in which fragments have unequal turns, and a delay of a turn or more."""
    period, fragments = method.period, method.fragments
    require(
        period % fragments == 0,
        f"period is {period} and fragments is {fragments}; give a period that is a multiple of the "
        "fragments.",
    )
    require(
        delay < period // fragments,
        f"delay is {delay}, and a fragment is sent every {period // fragments} steps; give less, "
        "so that one message has arrived before the next is sent.",
    )


def _other(rows: jax.Array, values: jax.Array) -> jax.Array:
    return jnp.broadcast_to(values, rows.shape)


def exchanged(
    method: Any, state: Any, problem: Any, network: Any, which: Any, now: Any, delay: int = 0
) -> Cost:
    """Return the cost of an inner step with an exchange of fragments.

    Args:
        method: with ``fragments``; the next three are those of its ``cost``.
        state: with ``sent``, the share of agents that have sent, if not those who take part now.
        problem: whose model is sent.
        network: the round's.
        which: fragments were exchanged, [P] bool.
        now: whether there was an exchange.
        delay: the steps for which their messages have travelled.
    """
    cost, parts = counted(method, state, problem, network), fragments_of(method, problem)
    which, down = which.astype(jnp.float32), jnp.asarray(cost.vectors, jnp.float32)
    up = jnp.asarray(getattr(state, "sent", down), jnp.float32)
    size = which @ jnp.asarray([part.d for part in parts], jnp.float32)
    bits = which @ jnp.asarray([_bits(method, part.d) for part in parts], jnp.float32)
    return replace(
        cost,
        exchanges=jnp.where(now, cost.exchanges, 0),
        vectors=(up + down) / 2 * size / problem.d,
        bits=(up * bits[0] + down * bits[1]) / 2,
        up=up * bits[0],
        down=down * bits[1],
        hidden=delay,
    )


def _bits(method: Any, d: int) -> tuple[int, int]:
    """Return the bits of d numbers on their way to the server, and on their way back."""
    compressor = getattr(method, "compressor", None)
    return FLOAT * d if compressor is None else compressor.bits(d), FLOAT * d
