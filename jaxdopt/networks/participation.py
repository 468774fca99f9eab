"""Who takes part: patterns of participation, each a network whose rounds are servers.

``pattern.at(k, key)`` is a `Server` with ``active`` [n] (None: everybody), and with ``clients`` [s]
where at most s of the n clients take part and s ≤ n/2, so that work follows them; ``pattern.bound``
is then that s.
All are pure functions of the round and the key, into which each folds a constant of its own before
the round: who takes part and which samples are drawn are independent. What has a memory is a table
of its rounds; it does not repeat, and `run` refuses to go on where it ends (``horizon``).

A pattern is also what `Asleep(network, pattern)` takes.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdopt._checks import count, require
from jaxdopt._leaves import is_traced
from jaxdopt._numbers import Number, evaluate
from jaxdopt._pytree import pytree, static
from jaxdopt.networks.sequences import Varying, own_key
from jaxdopt.networks.server import Server

# folded into the key before the round, and larger than any round's number
UNIFORM, BERNOULLI, ORDER, MARKOV = 0xF0000F1F, 0xF0000BE2, 0xF00C7C11, 0xF0003A2C


class Pattern(Varying):
    """What all patterns share; one gives `_active`, or `_clients` where its ``bound`` is a number.

    It has a ``horizon``, the rounds that it knows, or None if it never ends.
    """

    symmetric = True
    kind = "server"
    cuttable = False  # type: ignore[assignment]
    offers = frozenset({"server"})
    bound: Any = None  # s, of which ``clients`` has as many; None where there are only masks
    horizon: Any = None

    def at(self, k: Any, key: jax.Array) -> Server:
        """Return round k's server, with ``active`` [n] and maybe ``clients`` [s]."""
        if self.bound is None:
            return Server(self.n, k=k, active=self._active(k, key))
        clients = self._clients(k, key)
        return Server(self.n, k=k, active=_among(self.n, clients), clients=clients)

    def _active(self, k: Any, key: jax.Array) -> jax.Array:
        """Return who takes part in round k, [n] bool."""
        raise NotImplementedError

    def _clients(self, k: Any, key: jax.Array) -> jax.Array:
        """Return the numbers of those who take part, [s] int, padded by different ones from n."""
        raise NotImplementedError


@pytree
class Uniform(Pattern):
    """A random subset of one size, every subset as likely as another."""

    n: int = static()
    size: int = static()

    @property
    def bound(self) -> int | None:  # type: ignore[override]
        """The subset's size, unless it is more than half."""
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
    """Every client for itself, client i with probability pᵢ."""

    p: Any  # [n, 1]
    n: int = static()

    def _active(self, k: Any, key: jax.Array) -> jax.Array:
        drawn = jax.random.uniform(own_key(key, BERNOULLI, k), (self.n,), jnp.float32)
        return drawn < jnp.ravel(evaluate(self.p, k))


@pytree
class Groups(Pattern):
    """One of M groups after the other; client i is in group i mod M."""

    n: int = static()
    groups: int = static()
    reshuffled: bool = static()

    @property
    def bound(self) -> int | None:  # type: ignore[override]
        """The largest group's size, unless it is more than half."""
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
    """One client in every so many rounds, all others in every round."""

    n: int = static()
    every: int = static()
    client: int = static()

    def _active(self, k: Any, key: jax.Array) -> jax.Array:
        return (jnp.arange(self.n) != self.client) | (k % self.every == 0)


@pytree
class Trace(Pattern):
    """What is written in a table of rounds, which does not repeat."""

    rows: Any  # [T, n] bool, or [T, s] int with a bound
    n: int = static()
    bound: int | None = static(default=None)

    @property
    def horizon(self) -> int:  # type: ignore[override]
        """The number of rounds."""
        return self.rows.shape[-2]

    def _active(self, k: Any, key: jax.Array) -> jax.Array:
        return self.rows[k]

    _clients = _active


def full(n: int) -> Server:
    """Return full participation of n clients: the server itself, whose ``active`` is None."""
    return Server(count("n", n))


def uniform(n: int, size: int) -> Uniform:
    """Return participation of ``size`` clients, drawn from all n anew in every round."""
    return Uniform(count("n", n), _part("size", size, n, "clients"))


def bernoulli(p: Any, *, n: int | None = None) -> Bernoulli:
    """Return independent participation, client i with probability pᵢ; rounds may be empty.

    Args:
        p: [n] probabilities, or one for all (or a schedule of the round) with ``n``; traced, so
            that it sweeps.
        n: the number of clients, needed for one p.

    Raises:
        ValueError: a probability outside [0, 1], another shape, or no n where it is needed.
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
    """Return M groups that take turns: in round k the clients with i mod M = k mod M."""
    return Groups(count("n", n), _part("groups", groups, n, "groups"), False)


def reshuffled_cyclic(n: int, groups: int) -> Groups:
    """Return M groups that take turns, in an order drawn anew for every epoch of M rounds."""
    return Groups(count("n", n), _part("groups", groups, n, "groups"), True)


def rare(n: int, every: int, client: int = 0) -> Rare:
    """Return participation of one client in rounds 0, p, 2p, ... and of all others in all rounds.

    Args:
        n: the number of clients.
        every: p, of which the rare one takes part in one round.
        client: its number.
    """
    client, n = count("client", client, 0), count("n", n)
    require(client < n, f"client is {client} and there are {n}; give a number below {n}.")
    return Rare(n, count("every", every), client)


def markov(n: int, leave: Any, join: Any, *, steps: int, key: jax.Array) -> Trace:
    """Return participation with a memory: who is there leaves, and who is not joins, at random.

    Every client has a two-state chain of its own that starts from its stationary law: it is active
    in a share join / (join + leave) of the rounds, with autocorrelation (1 − leave − join)ᵗ. The
    rounds are drawn here, from this key rather than the run's; traced, so that they sweep.

    Args:
        n: the number of clients.
        leave: the probability that an active client is not active in the next round; or [n].
        join: the probability that one who is not will be; or [n].
        steps: the number of rounds, the horizon.
        key: from `jax.random.key`.

    Raises:
        ValueError: a probability outside [0, 1], or both 0, where nothing says who is active.
    """
    n, steps = count("n", n), count("steps", steps)
    for name, value in (("leave", leave), ("join", join)):
        require(
            np.shape(value) in ((), (n,)),
            f"{name} has shape {np.shape(value)}; give one probability, or one a client as ({n},).",
        )
    leave, join = (jnp.broadcast_to(jnp.asarray(v, jnp.float32), (n,)) for v in (leave, join))
    for name, value in (("leave", leave), ("join", join)):
        Number(minimum=0.0, maximum=1.0).accept(name, value[:, None])
    require(
        is_traced((leave, join)) or bool(jnp.all(leave + join > 0)),
        "a client neither leaves nor joins, so that its share of the rounds is not known; give "
        "leave + join > 0.",
    )
    drawn = jax.random.uniform(jax.random.fold_in(key, MARKOV), (steps, n), jnp.float32)

    def follow(active: jax.Array, drawn: jax.Array) -> tuple[jax.Array, jax.Array]:
        active = jnp.where(active, drawn >= leave, drawn < join)
        return active, active

    first = drawn[0] < join / (join + leave)
    _, rest = jax.lax.scan(follow, first, drawn[1:])
    return Trace(jnp.concatenate([first[None], rest]), n)


def trace(rounds: Any, *, n: int | None = None) -> Trace:
    """Return participation as it was recorded; it does not repeat.

    Args:
        rounds: [T, n] booleans (or zeros and ones); or a list of T lists of clients' numbers, with
            ``n``; or the path of a .npy or .csv file that holds such an array, a round a row.
        n: the number of clients, needed for lists of numbers.

    Raises:
        ValueError: an empty trace, a wrong shape, or a number that is no client's.
    """
    if isinstance(rounds, str | Path):
        rounds = _read(Path(rounds))
    if not hasattr(rounds, "ndim"):
        rounds = _mask(rounds, n)
    shape = np.shape(rounds)
    require(
        len(shape) == 2 and min(shape) > 0 and n in (None, shape[1]),
        f"the trace has shape {shape} and n is {n}; give who takes part as [T, n] booleans, with "
        "at least one round and one client.",
    )
    if is_traced(rounds):
        return Trace(rounds.astype(bool), shape[1])
    table = np.asarray(rounds)
    odd = table[(table != 0) & (table != 1)]
    require(
        odd.size == 0,
        f"the trace has the value {odd.flat[0] if odd.size else 0}; give booleans, or zeros and "
        "ones.",
    )
    table, clients = table.astype(bool), shape[1]
    most = max(int(table.sum(axis=1).max()), 1)
    if 2 * most > clients:
        return Trace(jnp.asarray(table), clients)
    rows = np.tile(clients + np.arange(most), (len(table), 1))
    for row, who in zip(rows, table, strict=True):
        row[: who.sum()] = np.flatnonzero(who)
    return Trace(jnp.asarray(rows, jnp.int32), clients, most)


def active(network: Any, steps: int, key: jax.Array | None = None) -> jax.Array:
    """Return who takes part in rounds 0 ... steps − 1, [steps, n] bool, as a run with this key.

    Args:
        network: a pattern, or any network whose rounds have ``active``.
        steps: how many rounds, at most the network's horizon.
        key: the run's; not needed where nothing is random.
    """
    steps, horizon = count("steps", steps), getattr(network, "horizon", None)
    require(
        horizon is None or steps <= horizon,
        f"the network knows {horizon} rounds and steps is {steps}; give at most {horizon}.",
    )
    return _rounds(network, jax.random.key(0) if key is None else key, steps=steps)


class Delays(NamedTuple):
    """What `delay_metrics` returns; ages are 0 for those who take part now.

    A client's age is the number of rounds since it last took part, all having done so in round −1.
    Some papers count 1 in a round where it takes part: then everything is larger by 1.

    Attributes:
        tau_max: the largest age of any client in any round.
        tau_avg: the mean over rounds of the largest age.
        tau_mean: the mean over rounds and clients.
    """

    tau_max: int
    tau_avg: float
    tau_mean: float


def delay_metrics(rounds: Any, *, steps: int | None = None, key: jax.Array | None = None) -> Delays:
    """Return how long clients stay away, by which theorems on participation measure patterns.

    Args:
        rounds: [T, n] booleans, or a network with ``steps`` and, if random, the run's ``key``.
        steps: how many rounds of the network.
        key: see `active`.

    Example:
        >>> delay_metrics(cyclic(12, 4), steps=100).tau_max
        3
    """
    if hasattr(rounds, "at") and not hasattr(rounds, "ndim"):
        require(steps is not None, "steps is None; give the number of the network's rounds.")
        rounds = active(rounds, steps, key)  # type: ignore[arg-type]
    there = np.asarray(rounds)
    require(
        there.ndim == 2 and there.dtype == bool and there.size > 0,
        f"the rounds have shape {there.shape} and dtype {there.dtype}; give [T, n] booleans.",
    )
    now = np.arange(len(there))[:, None]
    age = now - np.maximum.accumulate(np.where(there, now, -1), axis=0)
    return Delays(int(age.max()), float(age.max(axis=1).mean()), float(age.mean()))


@functools.partial(jax.jit, static_argnames="steps")
def _rounds(network: Any, key: jax.Array, *, steps: int) -> jax.Array:
    def one(k: jax.Array) -> jax.Array:
        now = getattr(network.at(k, key), "active", None)
        return jnp.ones(network.n, bool) if now is None else now

    return jax.lax.map(one, jnp.arange(steps), batch_size=min(steps, 64))


def _among(n: int, clients: jax.Array) -> jax.Array:
    """Return the mask [n] of clients [s], their padding left out."""
    return jnp.zeros(n, bool).at[clients].set(True, mode="drop", unique_indices=True)


def _part(name: str, value: Any, n: int, what: str) -> int:
    value = count(name, value)
    require(value <= n, f"{name} is {value} and there are {n} clients; give at most {n} {what}.")
    return value


def _mask(rounds: Sequence[Any], n: int | None) -> np.ndarray:
    """Return lists of clients' numbers, or of booleans, as a table [T, n]."""
    rows = [np.atleast_1d(np.asarray(row)) for row in rounds]
    require(rows, "the trace has no rounds; give at least one.")
    if all(row.dtype == bool for row in rows):
        lengths = {len(row) for row in rows}
        require(
            len(lengths) == 1,
            f"the trace has rounds of {' and '.join(map(str, sorted(lengths)))} clients; give all "
            "the same.",
        )
        return np.stack(rows)
    require(n is not None, "n is None and the trace has clients' numbers; say how many there are.")
    table = np.zeros((len(rows), count("n", n)), bool)
    for k, row in enumerate(rows):
        odd = [i for i in row.tolist() if i != int(i) or not 0 <= i < table.shape[1]]
        require(
            not odd,
            f"round {k} of the trace has client {odd[0] if odd else 0} and there are {n}; give "
            f"integers from 0 to {table.shape[1] - 1}.",
        )
        table[k, row.astype(int)] = True
    return table


def _read(path: Path) -> np.ndarray:
    require(
        path.suffix in (".npy", ".csv") and path.exists(),
        f"the trace {str(path)!r} is no file that ends in .npy or .csv; give one with a round a "
        "row.",
    )
    if path.suffix == ".npy":
        return np.load(path)
    return np.loadtxt(path, delimiter=",", ndmin=2)
