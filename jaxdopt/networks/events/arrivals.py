"""Clients that a server does not wait for, in simulated time: who comes back when.

Every client fetches the server's model, works on it, returns, and fetches again. No schedule
depends on the iterates, so it is simulated first, on the host. A rule says what the server makes of
returns; one aggregation is one step of `jd.run`, and its number is that of the model it finds:
aggregation k turns version k into version k + 1.

**Ties.** Clients that return at the same time do so in the order of their numbers.
"""

import heapq
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxdopt import agents as _agents
from jaxdopt._checks import count, require
from jaxdopt._leaves import is_traced
from jaxdopt._numbers import number
from jaxdopt._pytree import pytree, replace, static
from jaxdopt.networks.events import durations
from jaxdopt.networks.events.timeline import widened
from jaxdopt.networks.participation import Pattern
from jaxdopt.networks.server import Server


@pytree
class Returns(Server):
    """One aggregation: the server's round in which s clients come back, padded as ``clients``."""

    stale: Any = None  # [s] int: versions made since what was fetched
    latest: Any = None  # [s] int: as clients, but padding where one comes back once more here
    renewed: Any = None  # [s] bool: whether it goes on with the new model, or the present one
    frequency: Any = None  # [n]: returns of each an aggregation, in the long run
    last: Any = None  # [] seconds since the aggregation before
    ticks: bool = static(default=False)  # whether aggregations take place at fixed times

    @property
    def offers(self) -> frozenset[str]:  # type: ignore[override]
        """What every round can do; see `jaxdopt.roles`."""
        return frozenset({"returns", "ticks"} if self.ticks else {"returns"})

    @property
    def interval(self) -> jax.Array:
        """Aggregations from a client's return to its next one in the long run, [n, 1]."""
        least = jnp.finfo(self.frequency.dtype).tiny  # of those who never return
        return 1 / jnp.maximum(self.frequency, least)[:, None]

    def fetched(self, sent: jax.Array, server: jax.Array) -> jax.Array:
        """Return the models that those who come back have worked on, [s, d].

        Args:
            sent: [n, d], the model that every client fetched last, before this aggregation.
            server: [d], the present model.
        """
        fresh = (self.stale == 0)[:, None]
        return jnp.where(fresh, server, sent.at[self.clients].get(mode="clip"))

    def handed(self, sent: jax.Array, server: jax.Array, new: jax.Array) -> jax.Array:
        """Return ``sent`` [n, d] after those who come back have fetched a model again.

        Args:
            sent: [n, d], what every client fetched last.
            server: [d], the model before this aggregation.
            new: [d], the one after it.
        """
        return _agents.put(sent, self.latest, jnp.where(self.renewed[:, None], new, server))

    def seconds(self, calls: Any, exchanges: Any, overlap: Any) -> jax.Array:
        """Return the seconds since the aggregation before, whatever the method does."""
        return self.last


@pytree
class Arrivals(Pattern):
    """Who comes back to a server when, and how stale: see `arrivals`, which builds it."""

    end: Any  # [T] seconds at which every aggregation takes place
    agents: Any  # [T, s] int: who comes back, padded by different indices of n and more
    staleness: Any  # [T, s] int
    latest: Any  # [T, s] int
    renewed: Any  # [T, s] bool
    frequency: Any  # [n]
    n: int = static()
    ticks: bool = static(default=False)
    offers = Returns.offers

    @property
    def horizon(self) -> int:  # type: ignore[override]
        """T, the number of aggregations: the most steps that `jd.run` can take."""
        return self.agents.shape[-2]

    @property
    def bound(self) -> int:  # type: ignore[override]
        """s, the most clients that come back for one aggregation."""
        return self.agents.shape[-1]

    def at(self, k: Any, key: Any) -> Returns:
        """Return aggregation k; the key is not used, as all is drawn."""
        who, latest = self.agents[k], self.latest[k]
        there = jnp.zeros(self.n, bool).at[latest].set(True, mode="drop", unique_indices=True)
        return Returns(
            self.n,
            k=k,
            active=there,
            clients=who,
            stale=self.staleness[k],
            latest=latest,
            renewed=self.renewed[k],
            frequency=self.frequency,
            ticks=self.ticks,
            last=self.end[k] - jnp.where(k > 0, self.end[jnp.maximum(k - 1, 0)], 0),
        )

    @staticmethod
    def aligned(members: Sequence["Arrivals"]) -> list["Arrivals"]:
        """Return them in tables of one size, as `jd.networks.stack` asks: of the shortest T."""
        horizon = min(made.horizon for made in members)
        width = max(made.bound for made in members)

        def one(made: Arrivals) -> Arrivals:
            more = width - made.bound
            columns = {
                name: widened(getattr(made, name)[:horizon], more, made.n + made.bound)
                for name in ("agents", "latest")
            } | {
                name: jnp.pad(getattr(made, name)[:horizon], ((0, 0), (0, more)))
                for name in ("staleness", "renewed")
            }
            return replace(made, end=made.end[:horizon], **columns)

        return [one(made) for made in members]

    def __repr__(self) -> str:
        if is_traced(self) or np.ndim(self.end) != 1:
            return f"Arrivals(n={self.n})"
        total, stale = (np.asarray(self.agents) < self.n).sum(), np.asarray(self.staleness).max()
        return (
            f"Arrivals({self.n} clients, {total} returns in {self.horizon} aggregations of at most "
            f"{self.bound}, {float(self.end[-1]):.6g} seconds, staleness <= {stale})"
        )


def arrivals(
    n: int,
    *,
    compute: Any = 1.0,
    delay: Any = 0.0,
    calls: Any = 1,
    rule: Literal["each", "all"] | None = None,
    every: float | None = None,
    buffer: int | None = None,
    restart: Literal["together", "at once"] = "together",
    steps: int | None = None,
    seconds: float | None = None,
    key: Any = None,
) -> Arrivals:
    """Simulate clients that fetch, work and return, and say what the server makes of it.

    A visit takes ``calls`` gradients, one after the other, and a message down and one up. Exactly
    one rule is given:

    - ``rule="each"``: every return is an aggregation of its own (asynchronous).
    - ``rule="all"``: the server waits for all n (synchronous).
    - ``every``: at the ticks dt, 2 dt, ... all who have returned since the last, maybe nobody
      (FedFix).
    - ``buffer``: as soon as c have returned (FedBuff).

    Clients go on when their return has been aggregated, with the new model; with a buffer and
    ``restart="at once"`` when they return, with the model of that moment, and one may be in a
    buffer twice.

    ``frequency`` is how many returns of each client an aggregation holds in the long run, as far as
    the table shows it: by the client's whole visits, those after its last return left out, so that
    it is exact where times are constant (of a buffer that clients wait for, an average).

    Args:
        n: the number of clients.
        compute: seconds a gradient: a number, [n] or a model of `jd.networks.durations`. A client
            with an infinite one never returns.
        delay: seconds a message, of the client that gets or sends it: a number, [n] or a model.
        calls: gradients a visit, the method's local steps; an integer, or one a client as [n]. With
            1, ``compute`` is the time of all local work.
        rule: "each" or "all".
        every: dt, seconds between ticks.
        buffer: c, at most n.
        restart: when clients of a buffer go on.
        steps: how many aggregations to simulate, T; or
        seconds: until when to simulate: all that take place by then.
        key: of random times; `jax.random.key(0)` by default.

    Raises:
        ValueError: none or several rules; times that are not positive; too few clients that return.

    Example:
        >>> arrivals(3, compute=[1.0, 1.5, 4.0], rule="each", seconds=4.0)
        Arrivals(3 clients, 7 returns in 7 aggregations of at most 1, 4 seconds, staleness <= 6)
        >>> arrivals(3, compute=[1.0, 1.5, 4.0], every=2.0, steps=4).frequency.tolist()
        [1.0, 1.0, 0.5]
    """
    n = count("n", n)
    size, every = _rule(n, rule, every, buffer, restart)
    require(
        (steps is None) != (seconds is None),
        f"steps is {steps} and seconds {seconds}; give one of the two.",
    )
    require(
        seconds is None or 0 < seconds < np.inf,
        f"seconds is {seconds}; give a positive finite time.",
    )
    most = None if steps is None else count("steps", steps)
    visits = _Visits(n, compute, delay, calls, jax.random.key(0) if key is None else key)
    at_once = restart == "at once"
    record = []
    for time, returned in _aggregations(visits, size, every, at_once):
        if seconds is not None and time > seconds:
            break
        record.append((time, returned))
        if len(record) == most:
            break
    found = len(record)
    require(
        found > 0,
        f"nothing is aggregated {'' if seconds is None else f'within {seconds} seconds'}, as too "
        "few clients return; give other times, or another rule.",
    )
    require(
        most in (None, found),
        f"after {found} aggregations too few clients return; give steps={found} or fewer.",
    )
    return _tabulated(n, record, size, every is not None, at_once)


def _rule(n: int, rule: Any, every: Any, buffer: Any, restart: Any) -> tuple[int, float | None]:
    """Return how many returns an aggregation waits for, and the seconds between ticks."""
    chosen = {"rule": rule, "every": every, "buffer": buffer}
    given = [f"{name}={value!r}" for name, value in chosen.items() if value is not None]
    require(
        len(given) == 1 and rule in (None, "each", "all"),
        f"the rule is {', '.join(given) or 'not given'}; give one of rule='each', rule='all', "
        "every=<seconds> and buffer=<clients>.",
    )
    require(
        restart == "together" or (restart == "at once" and buffer is not None),
        f"restart is {restart!r}; give 'together', or 'at once' with a buffer.",
    )
    if every is not None:
        return n, float(number("every", every, above=0.0))
    if buffer is not None:
        buffer = count("buffer", buffer)
        require(buffer <= n, f"buffer is {buffer} and there are {n} clients; give at most {n}.")
        return buffer, None
    return (1 if rule == "each" else n), None


class _Visits:
    """How long every client's m-th visit takes, drawn in blocks."""

    def __init__(self, n: int, compute: Any, delay: Any, calls: Any, key: jax.Array) -> None:
        self.compute, self.delay = (
            durations.as_model(compute, "compute"),
            durations.as_model(delay, "delay"),
        )
        for name, model in (("compute", self.compute), ("delay", self.delay)):
            durations.require_agents(model, n, name)
        numbers = np.asarray(calls)
        require(
            numbers.shape in ((), (n,), (n, 1))
            and np.issubdtype(numbers.dtype, np.integer)
            and numbers.min() >= 1,
            f"calls is {calls!r}; give the local steps of a visit, an integer or one a client.",
        )
        self.calls = np.broadcast_to(numbers.reshape(-1), n).astype(int)
        self.n, self.key = n, key
        self.table = np.zeros((0, n))
        self.made = np.zeros(n, int)

    def next(self, client: int) -> float:
        """Return the seconds of the client's next visit."""
        visit = self.made[client]
        if visit >= len(self.table):
            self.table = np.vstack([self.table, self._block(len(self.table), max(visit, 16))])
        self.made[client] += 1
        return float(self.table[visit, client])

    def _block(self, first: int, visits: int) -> np.ndarray:
        begin = np.repeat(np.arange(first, first + visits), self.n)  # row after row
        who, calls = np.tile(np.arange(self.n), visits), np.tile(self.calls, visits)
        at = np.cumsum(calls) - calls
        inner = np.arange(calls.sum()) - np.repeat(at, calls)
        k, me = np.repeat(begin * calls, calls) + inner, np.repeat(who, calls)
        key = jax.random.fold_in(self.key, durations.COMPUTE)
        work = np.add.reduceat(durations.drawn(self.compute, key, k, me, me), at)
        key = jax.random.fold_in(self.key, durations.DELAY)
        k, me = np.concatenate([2 * begin, 2 * begin + 1]), np.concatenate([who, who])
        travel = durations.drawn(self.delay, key, k, me, me).reshape(2, -1).sum(axis=0)
        wrong = np.flatnonzero(~((work > 0) & (travel >= 0)))
        if len(wrong):
            raise ValueError(
                f"a visit of client {who[wrong[0]]} takes {work[wrong[0]]} seconds of work and "
                f"{travel[wrong[0]]} of messages; give compute times above 0 and delays of at "
                "least 0."
            )
        return (work + travel).reshape(visits, self.n)


Return = tuple[int, int, float]  # the client, the version that it had fetched, and the time


def _aggregations(
    visits: _Visits, size: int, every: float | None, at_once: bool
) -> Iterator[tuple[float, list[Return]]]:
    """Yield the time of every aggregation and who came back for it, while enough return."""
    heap: list[tuple[float, int]] = []
    fetched = [0] * visits.n

    def restart(client: int, now: float, version: int) -> None:
        fetched[client] = version
        then = now + visits.next(client)
        if then < np.inf:
            heapq.heappush(heap, (then, client))

    for client in range(visits.n):
        restart(client, 0.0, 0)
    version = 0
    while heap:
        returned: list[Return] = []
        time = np.inf if every is None else (version + 1) * every
        late = time * (1 + 1e-12)  # a tick is the sum of visits but for rounding
        while heap and heap[0][0] <= late and (every is not None or len(returned) < size):
            now, client = heapq.heappop(heap)
            returned.append((client, fetched[client], now))
            if every is None and len(returned) == size:
                time = now
            elif at_once:
                restart(client, now, version)
        if time == np.inf:
            return
        yield time, returned
        version += 1
        for client, *_ in returned[-1:] if at_once else returned:
            restart(client, time, version)


def _tabulated(
    n: int, record: list[tuple[float, list[Return]]], size: int, ticks: bool, at_once: bool
) -> Arrivals:
    """Return aggregations as the padded tables of `Arrivals`."""
    by_time = not ticks and (size == 1 or at_once)
    steps, width = len(record), max(1, *(len(returned) for _, returned in record))
    agents = np.tile(n + np.arange(width), (steps, 1))
    latest, stale = agents.copy(), np.zeros_like(agents)
    renewed = np.ones(agents.shape, bool)
    counts, when = np.zeros(n), np.ones(n)
    for k, (_, returned) in enumerate(record):
        for slot, (client, version, now) in enumerate(returned):
            agents[k, slot], stale[k, slot] = client, k - version
            counts[client] += 1
            when[client] = now if by_time else k + 1
        for client, slot in {client: slot for slot, (client, *_) in enumerate(returned)}.items():
            latest[k, slot] = client
        if at_once:
            renewed[k, : len(returned) - 1] = False
    # where nobody waits, returns go by time: size of them are an aggregation
    frequency = counts / when
    if by_time:
        frequency = size * frequency / frequency.sum()
    integers = {"agents": agents, "staleness": stale, "latest": latest}
    floats = {"end": [time for time, _ in record], "frequency": frequency}
    return Arrivals(
        **{name: jnp.asarray(value, jnp.int32) for name, value in integers.items()},
        **{name: jnp.asarray(value, float) for name, value in floats.items()},
        renewed=jnp.asarray(renewed),
        n=n,
        ticks=ticks,
    )
