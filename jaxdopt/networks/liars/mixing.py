"""Graphs some of whose agents lie: every agent's robust rule of what it hears."""

from collections.abc import Callable
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from jaxdopt import _selection
from jaxdopt._checks import require
from jaxdopt._pytree import pytree, static
from jaxdopt._wrapper import wrapped
from jaxdopt.networks.liars.base import HEARS, LIES, RULE, Robust, as_messages
from jaxdopt.networks.operators.complete import Complete
from jaxdopt.roles import Missing, lacks

TOGETHER = 1_500_000  # numbers that are gathered for a batch of receivers: a CPU's caches
LEAST = 6  # receivers of a batch; where fewer have room, four times as many numbers


@pytree
class RobustMixing(Robust):
    """A graph with liars: ``network @ x`` is every agent's rule of what it hears.

    `robust` makes it. Its rows sum to 1 and depend on x: there is no matrix, and no sum is kept.
    Two products of one round draw the same numbers.

    Args:
        network: who hears whom; its weights do not matter.
        rule: of `jaxdopt.aggregators`; slot 0 is the agent's own message.
        attack: of `jaxdopt.attacks`, or None: liars tell the truth.
        liars: who lies, [n] bool, or [T, n], which repeats.
        key: of the round's draws; set by ``at``.
        never: which agents never lie, as hexadecimal digits, by default as ``liars`` says; static.
        hears: how many messages an agent hears, its own included; static.
    """

    hears: int | None = static(default=None)
    offers = frozenset({"mixing"})  # type: ignore[assignment]

    def __matmul__(self, x: Any) -> Any:
        rows, restored = as_messages(x, self.n)
        return restored(self._mixed(rows))

    def laplacian(self, x: Any) -> Any:
        """Return x − network @ x, whose sum over agents is not zero."""
        return jax.tree.map(jnp.subtract, x, self @ x)

    def mean(self, x: Any) -> NoReturn:
        """Raise `Missing`: a mean of all agents would be that of liars, too."""
        raise Missing(lacks(self, "all", "network.mean"))

    def told(self, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Return what every agent hears of x [n, d]; see `jaxdopt.networks.told`."""
        return self._of_each(x, _heard)

    @property
    def link_count(self) -> Any:
        """The number of directed links from honest senders that carry a message."""
        senders, present = self._in_neighbors
        heard = present & jnp.asarray(self.honest)[senders]
        if self.hears is None:
            return jnp.sum(heard)
        most = jnp.sum(present, axis=1)
        lying = jnp.sum(present & self.liars[senders], axis=1)
        return jnp.sum(jnp.maximum(jnp.minimum(self.hears - 1, most) - lying, 0))

    @property
    def _in_neighbors(self) -> tuple[jax.Array, jax.Array]:
        return wrapped(self).row.in_neighbors

    @property
    def _is_shared(self) -> bool:
        """Whether all honest agents hear the same, and what they draw does not matter."""
        everyone = type(wrapped(self)) is Complete and wrapped(self).active is None
        told_alike = self.attack is None or getattr(self.attack, "broadcasts", False)
        alike = told_alike and not getattr(self.rule, "_scatters", False)
        return everyone and alike and self.hears is None

    def _mixed(self, rows: jax.Array) -> jax.Array:
        require(
            self.liars.ndim == 1,
            "liars change with the round, and the network has none; pass network.at(k, key).",
        )
        if self._is_shared:
            return self._shared(rows)

        def aggregate(i: Any, _: Any, there: jax.Array, messages: jax.Array) -> jax.Array:
            return self.rule(messages, there, 0, self.draws(RULE, i))

        return self._of_each(rows, aggregate)

    def _shared(self, rows: jax.Array) -> jax.Array:
        """Return the aggregates where all hear the same: rules with a pivot have one each."""

        def all_of(messages: jax.Array, who: Any) -> jax.Array:
            by_each = jax.vmap(lambda i: self.rule(messages, None, i, self.draws(RULE)))
            return by_each(jnp.asarray(who))

        everyone = np.arange(self.n)
        if self.attack is None or self.honest.all():
            return all_of(rows, everyone)
        attack = self.on(0, lambda: rows)
        lie = attack(rows, jnp.sum(self.liars), self.draws(LIES), ~self.liars)
        told = jnp.where(self.liars[:, None], lie, rows)
        place = self.n + np.cumsum(~self.honest) - 1  # of those who may lie, behind all
        both = [all_of(told, everyone), all_of(rows, np.flatnonzero(~self.honest))]
        return jnp.concatenate(both)[jnp.where(self.liars, place, everyone)]

    def _of_each(self, rows: jax.Array, function: Callable[..., Any]) -> Any:
        """Return a function of every receiver: its number, whom it hears, which slots, messages."""
        senders, present = self._in_neighbors
        size = rows[0].size * (senders.shape[1] + 1)
        together = TOGETHER // max(size, 1)
        if together < LEAST:
            together = max(4 * TOGETHER // size, 1)

        def receive(its: tuple[jax.Array, ...]) -> Any:
            return function(its[0], *self._received(rows, *its))

        each = jnp.arange(self.n), senders, present
        if together >= self.n:
            return jax.vmap(receive)(each)
        return jax.lax.map(receive, each, batch_size=together)

    def _received(
        self, rows: jax.Array, i: jax.Array, senders: jax.Array, present: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Return whom agent i hears, itself first, which slots are heard, and the messages."""
        slots = jnp.concatenate([i[None], senders])
        there = jnp.concatenate([jnp.ones(1, bool), present])
        messages, lying = rows[slots], self.liars[slots] & there
        liars = jnp.sum(lying[1:])
        if self.attack is not None:
            attack = self.on(i, lambda: rows)
            lie = attack(messages, liars, self.draws(LIES, i), there & ~lying)
            deceived = lying & ~self.liars[i]
            messages = jnp.where(deceived[:, None], lie.astype(messages.dtype), messages)
        if self.hears is not None:
            require(
                self.key is not None,
                "hears draws who is heard, and the network has no round; pass network.at(k, key).",
            )
            others = (there & ~lying).at[0].set(False)
            draws = jax.random.bits(self.draws(HEARS, i), others.shape, jnp.uint32)
            rank = jnp.where(others, draws >> 1 | jnp.uint32(1), 0)
            wanted = jnp.maximum(self.hears - 1 - liars, 0)
            chosen = _selection.largest(rank[None], wanted)[0] & others
            there = jnp.where(others, chosen, there)
        return slots, there, messages


def told(network: Any, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return what every agent hears of x [n, d] in a round, for rules that are a method's own.

    Args:
        network: a graph's round, with liars or without.
        x: the agents' messages, [n, d].

    Returns:
        The senders [n, s], the messages [n, s, d], and which slots have one [n, s]; slot 0 is the
        agent itself.
    """
    if hasattr(network, "told"):
        return network.told(x)
    senders, present = network.row.in_neighbors
    itself = jnp.arange(network.n)[:, None]
    slots = jnp.concatenate([itself, senders], axis=1)
    there = jnp.concatenate([jnp.ones_like(itself, dtype=bool), present], axis=1)
    return slots, x[slots], there


def _heard(*received: Any) -> tuple[Any, Any, Any]:
    _, slots, there, messages = received
    return slots, messages, there
