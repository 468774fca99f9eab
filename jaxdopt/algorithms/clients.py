"""Federated methods' part that they share: who takes part in a round, and the clients' local work.

Work follows those who take part: where the network names them (`Server.clients`, at most s of n),
their rows are gathered, computed on as [s, ...] and put back; where it only masks, all n work and
the mask says whose counts. A network without either means everybody.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from jaxdopt import agents
from jaxdopt._pytree import pytree, static

T = TypeVar("T")


@pytree
class Clients:
    """Those who take part in a round; a row [s, ...] each, whose arrays are of the same order."""

    problem: Any  # theirs alone, of s agents
    index: Any  # [s] int: their numbers, n and more on the padding; None for all n in order
    mask: Any  # [s] bool: who really takes part; None for all
    n: int = static()

    def own(self, values: T) -> T:
        """Return their rows of leaves [n, ...]; single numbers stay as they are."""
        if self.index is None:
            return values
        return jax.tree.map(
            lambda leaf: leaf if jnp.ndim(leaf) == 0 else jnp.asarray(leaf)[self.index], values
        )

    def share(self, value: jax.Array) -> jax.Array:
        """Return the server's [d] as a row for each of them, [s, d]."""
        return jnp.broadcast_to(value, (self.problem.n, *value.shape))

    def keep(self, old: T, rows: T) -> T:
        """Return ``old``, leaves [n, ...], with the rows of those who take part replaced."""
        if self.index is not None:
            return agents.put(old, self.index, rows)
        return rows if self.mask is None else agents.select(self.mask, rows, old)

    def total(self, rows: T) -> T:
        """Return the sum over those who take part, leaves [s, ...] -> [...]."""
        if self.mask is not None:
            rows = agents.select(self.mask, rows, jax.tree.map(jnp.zeros_like, rows))
        return jax.tree.map(lambda leaf: leaf.sum(axis=0), rows)

    def mean(self, rows: T) -> T:
        """Return the mean over those who take part, 0 if there are none."""
        number = jnp.maximum(self.number, 1)
        return jax.tree.map(lambda leaf: leaf / number.astype(leaf.dtype), self.total(rows))

    @property
    def number(self) -> jax.Array:
        """How many take part."""
        return jnp.asarray(self.n) if self.mask is None else self.mask.sum()


def participants(problem: Any, network: Any) -> Clients:
    """Return who takes part in this round."""
    index = getattr(network, "clients", None)
    if index is not None:
        return Clients(problem.take(index), index, index < problem.n, problem.n)
    return Clients(problem, None, network.active, problem.n)


def descend(
    clients: Clients,
    start: jax.Array,
    stepsize: Any,
    steps: int,
    key: jax.Array,
    direction: Callable[[jax.Array, jax.Array], jax.Array] = lambda _, g: g,
) -> tuple[jax.Array, jax.Array]:
    """Return where local steps y ← y − η direction(y, gᵢ(y)) lead, and the mean gradient met.

    Args:
        clients: who works.
        start: [s, d], a row each.
        stepsize: η, a number or [n, 1].
        steps: how many, K.
        key: step l's samples come from ``fold_in(key, l)``.
        direction: of (y, g), both [s, d]; the gradient itself by default.

    Returns:
        y_K and (1/K) Σₗ gᵢ(yₗ), both [s, d].
    """
    stepsize = clients.own(stepsize)

    def one(carry: tuple[jax.Array, jax.Array], step: jax.Array) -> tuple[Any, None]:
        y, total = carry
        g = clients.problem.grad(y, jax.random.fold_in(key, step))
        return (y - stepsize * direction(y, g), total + g), None

    (y, total), _ = jax.lax.scan(one, (start, jnp.zeros_like(start)), jnp.arange(steps))
    return y, total / steps
