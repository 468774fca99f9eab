"""Patterns without a memory: every round is drawn, or follows from its number."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdopt._checks import count, require
from jaxdopt._numbers import Number, evaluate
from jaxdopt._pytree import pytree, replace, static
from jaxdopt._wrapper import wrapped
from jaxdopt.networks.operators.halo import Devices
from jaxdopt.networks.sequences import Varying, own_key
from jaxdopt.networks.server import Server
from jaxdopt.networks.wrapper import Wrapper

# folded into the key before the round, and larger than any round's number
UNIFORM, BERNOULLI, ORDER = 0xF0000F1F, 0xF0000BE2, 0xF00C7C11


class Pattern(Varying):
    """The base of patterns; a subclass defines `_active`, or `_clients` if ``bound`` is a number.

    ``horizon`` is the number of rounds that it knows, or None if there is no limit.
    """

    symmetric = True
    kind = "server"
    cuttable = False  # type: ignore[assignment]
    offers = frozenset({"server", "sum"})
    bound: Any = None  # s, the length of ``clients``; None where rounds have only ``active``
    horizon: Any = None

    def at(self, k: Any, key: jax.Array) -> Server:
        """Return round k's server, with ``active`` [n] and, if few take part, ``clients`` [s]."""
        if self.bound is None:
            return Server(self.n, k=k, active=self._active(k, key))
        clients = self._clients(k, key)
        return Server(self.n, k=k, active=_among(self.n, clients), clients=clients)

    def over(self, devices: Devices) -> Any:
        """Return the pattern for clients that are spread over devices.

        Those who take part are masked if no device then works for more clients than take part in
        a round, and gathered otherwise.
        """
        few = self.bound is None or self.bound * devices.count < self.n
        return self if few else Masked(self)

    def _active(self, k: Any, key: jax.Array) -> jax.Array:
        """Return which clients take part in round k, [n] bool."""
        raise NotImplementedError

    def _clients(self, k: Any, key: jax.Array) -> jax.Array:
        """Return the clients that take part, [s] int, padded with distinct indices n and above."""
        raise NotImplementedError


@pytree
class Masked(Wrapper):
    """A pattern whose rounds have only ``active``, so that every device works for its clients."""

    network: Any

    def at(self, k: Any, key: jax.Array) -> Server:
        """Return round k's server, with ``active`` [n]."""
        return replace(wrapped(self).at(k, key), clients=None)

    def over(self, devices: Devices) -> "Masked":
        """Return the pattern itself."""
        return self


@pytree
class Uniform(Pattern):
    """A uniformly random subset of a given size in every round.

    Args:
        n: the number of clients; static.
        size: how many take part; static.
    """

    n: int = static()
    size: int = static()

    @property
    def bound(self) -> int | None:  # type: ignore[override]
        """The subset's size, or None if it is more than n/2."""
        return self.size if 2 * self.size <= self.n else None

    def _clients(self, k: Any, key: jax.Array) -> jax.Array:
        return self._draw(k, key, self.size)

    def _active(self, k: Any, key: jax.Array) -> jax.Array:
        return ~_among(self.n, self._draw(k, key, self.n - self.size))

    def _draw(self, k: Any, key: jax.Array, size: int) -> jax.Array:
        bits = jax.random.bits(own_key(key, UNIFORM, k), (self.n,), jnp.uint32)
        # 30 random bits read as normal, positive floats, which are in the same order: on CPUs XLA
        # takes the largest floats without sorting, but sorts integers
        rank = jax.lax.bitcast_convert_type((bits >> 2) + jnp.uint32(1 << 23), jnp.float32)
        return jax.lax.top_k(rank, size)[1]


@pytree
class Bernoulli(Pattern):
    """Independent participation, client i with probability pᵢ in every round.

    Args:
        p: pᵢ in [0, 1], [n, 1].
        n: the number of clients; static.
    """

    p: Any
    n: int = static()

    def _active(self, k: Any, key: jax.Array) -> jax.Array:
        drawn = jax.random.uniform(own_key(key, BERNOULLI, k), (self.n,), jnp.float32)
        return drawn < jnp.ravel(evaluate(self.p, k))


@pytree
class Groups(Pattern):
    """M groups that take turns; client i is in group i mod M.

    Args:
        n: the number of clients; static.
        groups: M; static.
        reshuffled: whether the order of the groups is drawn anew for every epoch of M rounds;
            static.
    """

    n: int = static()
    groups: int = static()
    reshuffled: bool = static()

    @property
    def bound(self) -> int | None:  # type: ignore[override]
        """The largest group's size, or None if it is more than n/2."""
        size = -(-self.n // self.groups)
        return size if 2 * size <= self.n else None

    def _clients(self, k: Any, key: jax.Array) -> jax.Array:
        return self._group(k, key) + self.groups * jnp.arange(self.bound)

    def _active(self, k: Any, key: jax.Array) -> jax.Array:
        return jnp.arange(self.n) % self.groups == self._group(k, key)

    def _group(self, k: Any, key: jax.Array) -> jax.Array:
        place = k % self.groups
        if not self.reshuffled:
            return place
        order = jax.random.permutation(own_key(key, ORDER, k // self.groups), self.groups)
        return order[place]


@pytree
class Rare(Pattern):
    """One client takes part in one of every so many rounds, all others in every round.

    Args:
        n: the number of clients; static.
        every: the rounds in one of which the client takes part; static.
        client: its number; static.
    """

    n: int = static()
    every: int = static()
    client: int = static()

    def _active(self, k: Any, key: jax.Array) -> jax.Array:
        return (jnp.arange(self.n) != self.client) | (k % self.every == 0)


def full(n: int) -> Server:
    """Return full participation of n clients: the server itself, whose ``active`` is None."""
    return Server(count("n", n))


def uniform(n: int, size: int) -> Uniform:
    """Return participation of ``size`` of the n clients, drawn anew in every round."""
    return Uniform(count("n", n), _at_most("size", size, n, "clients"))


def bernoulli(p: Any, *, n: int | None = None) -> Bernoulli:
    """Return independent participation, client i with probability pᵢ; rounds may be empty.

    Args:
        p: [n] probabilities, or with ``n`` one for all, which may be a schedule of the round. It is
            traced and can be swept.
        n: the number of clients, required with a single p.

    Raises:
        ValueError: a probability outside [0, 1], another shape, or a single p without n.
    """
    p = np.asarray(p, float) if isinstance(p, list | tuple) else p
    shape = np.shape(p)
    require(
        n is not None if shape == () else len(shape) == 1 and n in (None, *shape) and shape[0] > 0,
        f"p has shape {shape} and n is {n}; give [n] probabilities, or one and n=.",
    )
    clients = count("n", n) if shape == () else shape[0]
    value = p if shape == () else jnp.asarray(p)[:, None]
    return Bernoulli(Number(minimum=0.0, maximum=1.0).accept("p", value), clients)


def cyclic(n: int, groups: int) -> Groups:
    """Return M ``groups`` of n clients that take turns: in round k those with i mod M = k mod M."""
    return Groups(count("n", n), _at_most("groups", groups, n, "groups"), False)


def reshuffled_cyclic(n: int, groups: int) -> Groups:
    """Return M ``groups`` of n clients that take turns, in an order drawn anew every M rounds."""
    return Groups(count("n", n), _at_most("groups", groups, n, "groups"), True)


def rare(n: int, every: int, client: int = 0) -> Rare:
    """Return participation of one client in rounds 0, p, 2p, ... and of all others in all rounds.

    Args:
        n: the number of clients.
        every: p, the number of rounds of which the rare client takes part in one.
        client: the rare client's index.
    """
    client, n = count("client", client, 0), count("n", n)
    require(client < n, f"client is {client} and there are {n}; give a number below {n}.")
    return Rare(n, count("every", every), client)


def _among(n: int, clients: jax.Array) -> jax.Array:
    """Return the mask [n] of clients [s], their padding left out."""
    return jnp.zeros(n, bool).at[clients].set(True, mode="drop", unique_indices=True)


def _at_most(name: str, value: Any, n: int, what: str) -> int:
    value = count(name, value)
    require(value <= n, f"{name} is {value} and there are {n} clients; give at most {n} {what}.")
    return value
