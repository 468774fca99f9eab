"""The rounds of a server that does not wait: who returns for which aggregation, how stale."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdopt import agents as _agents
from jaxdopt._pytree import pytree, replace, static
from jaxdopt.networks.events.schedule import (
    Round,
    Schedule,
)
from jaxdopt.networks.participation import Pattern
from jaxdopt.networks.server import Server


@pytree
class Returns(Round, Server):
    """One aggregation: the server's round in which s clients return, padded as ``clients``."""

    stale: Any = None  # [s] int: versions made since what was fetched
    latest: Any = None  # [s] int: as clients, but padding where one returns again here
    renewed: Any = None  # [s] bool: whether it goes on with the new model, or the present one
    frequency: Any = None  # [n]: returns of each an aggregation, in the long run
    calls: Any = None  # [n] int: gradients of a visit of each
    last: Any = None  # [] seconds since the aggregation before
    ticks: bool = static(default=False)  # whether aggregations take place at fixed times
    most: int = static(default=1)  # gradients of the longest visit
    even: bool = static(default=True)  # whether all visits take as many

    @property
    def offers(self) -> frozenset[str]:  # type: ignore[override]
        """What every round can do; see `jaxdopt.roles`."""
        return frozenset({"returns", "sum", "ticks"} if self.ticks else {"returns", "sum"})

    @property
    def agents(self) -> jax.Array:  # type: ignore[override]
        """The clients that return, [s]."""
        return self.clients

    @property
    def interval(self) -> jax.Array:
        """Aggregations from a client's return to its next one in the long run, [n, 1]."""
        least = jnp.finfo(self.frequency.dtype).tiny  # of clients that never return
        return 1 / jnp.maximum(self.frequency, least)[:, None]

    def fetched(self, sent: jax.Array, server: jax.Array) -> jax.Array:
        """Return the models that the returning clients have worked on, [s, d].

        Args:
            sent: [n, d], the model that every client fetched last, before this aggregation.
            server: [d], the present model.
        """
        fresh = (self.stale == 0)[:, None]
        return jnp.where(fresh, server, sent.at[self.clients].get(mode="clip"))

    def handed(self, sent: jax.Array, server: jax.Array, new: jax.Array) -> jax.Array:
        """Return ``sent`` [n, d] after the returning clients have fetched a model again.

        Args:
            sent: [n, d], what every client fetched last.
            server: [d], the model before this aggregation.
            new: [d], the one after it.
        """
        return _agents.put(sent, self.latest, jnp.where(self.renewed[:, None], new, server))


@pytree
class Arrivals(Schedule, Pattern):
    """Which clients return when, with how stale models: see `arrivals`, which builds it.

    Attributes:
        end: [T] seconds at which every aggregation takes place.
        agents: [T, s] int: the clients that return, padded.
        staleness: [T, s] int: versions made since what each had fetched.
        latest: [T, s] int: as ``agents``, but padding where a client returns again in the same
            round.
        renewed: [T, s] bool: whether it goes on with the new model, or the present one.
        frequency: [n]: returns of each client an aggregation, in the long run.
        calls: [n] int: gradients of a visit of each client.
        n: the number of clients.
        ticks: whether aggregations take place at fixed times.
        most: gradients of the longest visit.
        even: whether all visits take as many.
    """

    end: Any
    agents: Any
    staleness: Any
    latest: Any
    renewed: Any
    frequency: Any
    calls: Any
    n: int = static()
    ticks: bool = static(default=False)
    most: int = static(default=1)
    even: bool = static(default=True)
    indices = ("agents", "latest")
    numbers = ("staleness", "renewed")
    nouns = ("clients", "returns", "aggregations")
    offers = Returns.offers  # type: ignore[assignment]

    @property
    def bound(self) -> int:  # type: ignore[override]
        """s, the most clients that return for one aggregation."""
        return self.agents.shape[-1]

    def at(self, k: Any, key: Any) -> Returns:
        """Return aggregation k; the key is not used, as all is drawn."""
        latest = self.latest[k]
        there = jnp.zeros(self.n, bool).at[latest].set(True, mode="drop", unique_indices=True)
        return Returns(
            self.n,
            k=k,
            active=there,
            clients=self.agents[k],
            stale=self.staleness[k],
            latest=latest,
            renewed=self.renewed[k],
            frequency=self.frequency,
            calls=self.calls,
            last=self.since(k),
            ticks=self.ticks,
            most=self.most,
            even=self.even,
        )

    @classmethod
    def aligned(cls, members: Sequence[Any]) -> list[Any]:
        """Return schedules in tables of one size, with what is true of the visits of all."""
        most = max(member.most for member in members)
        even = all(member.even and member.most == most for member in members)
        return [replace(member, most=most, even=even) for member in super().aligned(members)]

    def _facts(self) -> dict[str, str]:
        return super()._facts() | {"staleness": f"at most {np.asarray(self.staleness).max()}"}
