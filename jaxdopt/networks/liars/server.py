"""Servers some of whose clients lie: the mean of what they send becomes a robust rule."""

from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from jaxdopt._pytree import pytree
from jaxdopt._wrapper import wrapped
from jaxdopt.networks.liars.base import LIES, RULE, Robust, as_messages
from jaxdopt.roles import Missing, lacks, offers


@pytree
class RobustServer(Robust):
    """A server some of whose clients lie: the mean of their messages becomes a rule.

    `robust` makes it. Methods that add messages up instead need the word "sum", which it lacks.

    Args:
        network: a server, or a pattern of participation.
        rule: of `jaxdopt.aggregators`, without a pivot.
        attack: of `jaxdopt.attacks`, or None: liars tell the truth.
        liars: who lies, [n] bool, or [T, n], which repeats.
        key: of the round's draws; set by ``at``.
        never: which agents never lie, as hexadecimal digits, by default as ``liars`` says; static.
    """

    @property
    def offers(self) -> frozenset[str]:  # type: ignore[override]
        """What every round can do; see `jaxdopt.roles`."""
        return offers(wrapped(self)) & {"server", "returns", "ticks"}

    def __matmul__(self, x: Any) -> NoReturn:
        raise Missing(lacks(self, "mixing", "network @ x"))

    def mean(self, x: Any) -> Any:
        """Return the rule's aggregate of all clients, leaves [n, ...] -> [...]."""
        rows, restored = as_messages(x, self.n)
        mixed = restored(self.aggregate(rows)[None])
        return jax.tree.map(lambda leaf: leaf[0], mixed)

    def aggregate(self, rows: jax.Array, clients: Any = None, taking_part: Any = None) -> jax.Array:
        """Return the rule's aggregate [d] of messages [s, d]; 0 if there are none.

        Args:
            rows: a message a row.
            clients: whose they are, [s] int, n and above on the padding; by default all in order.
            taking_part: [s] bool, which of them there are; by default all.
        """
        there = jnp.ones(len(rows), bool) if taking_part is None else taking_part
        if clients is None:
            lying = self.liars & there
        else:
            lying = self.liars.at[clients].get(mode="fill", fill_value=False) & there
        told = rows
        if self.attack is not None:
            honest = there & ~lying

            def messages() -> jax.Array:  # of those who are absent: what an honest client sends
                one = jnp.broadcast_to(rows[jnp.argmax(honest)], (self.n, rows.shape[1]))
                if clients is None:
                    return jnp.where(there[:, None], rows, one)
                return one.at[jnp.where(there, clients, self.n)].set(rows, mode="drop")

            attack = self.on(0, messages)
            lie = attack(rows, jnp.sum(lying), self.draws(LIES), honest)
            told = jnp.where(lying[:, None], lie.astype(rows.dtype), rows)
        heard = None if taking_part is None else there
        result = self.rule(told, heard, 0, self.draws(RULE))
        return result if heard is None else jnp.where(jnp.any(there), result, 0)

    @property
    def link_count(self) -> int:
        """The number of directed links of the agents that never lie: two each."""
        return 2 * int(np.sum(self.honest))
