"""A ring buffer of every agent's last versions."""

import jax
import jax.numpy as jnp

from jaxdopt import agents as _agents
from jaxdopt._pytree import pytree


@pytree
class DelayLine:
    """The last V versions of every agent's row: a ring buffer, in which steps read and write rows.

    Attributes:
        rows: [V, n, d] the versions.
        head: [n] int: where every agent's newest version is.

    Example:
        >>> line = DelayLine.full(jnp.zeros((3, 1)), 2).push(jnp.array([2]), jnp.ones((1, 1)))
        >>> line.read(jnp.array([2, 2]), jnp.array([0, 1]))[:, 0].tolist()
        [1.0, 0.0]
    """

    rows: jax.Array
    head: jax.Array

    @classmethod
    def full(cls, x: jax.Array, versions: int) -> "DelayLine":
        """Return a line of ``versions`` V that are all x [n, d]."""
        rows = jnp.broadcast_to(x, (versions, *x.shape))
        return cls(rows, jnp.zeros(x.shape[0], jnp.int32))

    def push(self, agents: jax.Array, rows: jax.Array) -> "DelayLine":
        """Return the line with a new version [s, d] of some agents [s]; n and more are padding."""
        head = (self.head.at[agents].get(mode="clip") + 1) % self.rows.shape[0]
        newest = self.rows.at[head, agents].set(rows, mode="drop", unique_indices=True)
        return DelayLine(newest, _agents.put(self.head, agents, head))

    def read(self, senders: jax.Array, age: jax.Array) -> jax.Array:
        """Return versions, [...] -> [..., d]: age 0 is the newest, at most V − 1."""
        return self.rows[(self.head[senders] - age) % self.rows.shape[0], senders]
