"""Clients that a server does not wait for, in simulated time: which return when.

Every client fetches the server's model, works on it, returns, and fetches again. No schedule
depends on the iterates, so it is simulated first, on the host. A rule says which returns the server
aggregates; one aggregation is one step of `jd.run`, and its number is that of the model it finds:
aggregation k turns version k into version k + 1.

**Ties.** Clients that return at the same time do so in the order of their numbers.
"""

import heapq
from collections.abc import Iterator
from typing import Any, Literal

import jax
import numpy as np

from jaxdopt._checks import count, require
from jaxdopt._numbers import number
from jaxdopt.networks.events import draws, durations
from jaxdopt.networks.events.returns import Arrivals
from jaxdopt.networks.events.schedule import (
    Places,
    length,
    ordinals,
    recorded,
    stored,
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
    """Simulate clients that fetch, work and return, and a server that aggregates by a rule.

    A visit takes ``calls`` gradients, one after the other, and a message down and one up. Exactly
    one rule is given:

    - ``rule="each"``: every return is an aggregation of its own (asynchronous).
    - ``rule="all"``: the server waits for all n (synchronous).
    - ``every``: at the ticks dt, 2 dt, ... all returns since the last tick, perhaps none (FedFix).
    - ``buffer``: as soon as c have returned (FedBuff).

    Clients go on when their return has been aggregated, with the new model; with a buffer and
    ``restart="at once"`` when they return, with the model of that moment, and one may be in a
    buffer twice.

    ``frequency`` is how many returns of each client an aggregation holds in the long run, estimated
    from the client's visits up to its last return, so that it is exact where times are constant
    (an average, if clients wait for a buffer to fill).

    Args:
        n: the number of clients.
        compute: seconds a gradient: a number, [n] or a model of `jd.networks.durations`. A client
            with an infinite one never returns.
        delay: seconds a message to or from a client: a number, [n] or a model.
        calls: gradients a visit, the method's local steps; an integer, or one a client as [n]. With
            1, ``compute`` is the time of all local work.
        rule: "each" or "all".
        every: dt, seconds between ticks.
        buffer: c, at most n.
        restart: when clients go on whose return is in a buffer.
        steps: how many aggregations to simulate, T; or
        seconds: until when to simulate: all that take place by then.
        key: of random times; `jax.random.key(0)` by default.

    Raises:
        ValueError: none or several rules; times that are not positive; too few clients that return.

    Example:
        >>> arrivals(3, compute=[1.0, 1.5, 4.0], rule="each", seconds=4.0)
        Arrivals(clients=3, returns=7, aggregations=7 of at most 1, seconds=4, staleness=at most 6)
        >>> arrivals(3, compute=[1.0, 1.5, 4.0], every=2.0, steps=4).frequency.tolist()
        [1.0, 1.0, 0.5]
    """
    n = count("n", n)
    size, every = _rule(n, rule, every, buffer, restart)
    until = length(steps, seconds)
    visits = _Visits(n, compute, delay, calls, jax.random.key(0) if key is None else key)
    at_once = restart == "at once"
    rounds = _aggregations(visits, size, every, at_once)
    record = recorded(rounds, until, "too few clients return", "other times, or another rule")
    return _tabulated(n, record, size, every is not None, at_once, visits.calls)


def dynamic_calls(compute: Any, most: int) -> np.ndarray:
    """Return how many gradients clients take in visits that last about as long as each other's.

    These are dynamic local updates: Kᵢ = ⌊K minⱼ tⱼ / tᵢ⌋ of clients that need tᵢ seconds a
    gradient, and at least 1, so that the quickest take K.

    Args:
        compute: tᵢ > 0, [n]; of random times the means.
        most: K ≥ 1.

    Returns:
        Kᵢ, [n] int, for ``arrivals(n, compute=compute, calls=...)``.

    Source: Liu, Chhaparia, Douillard, Kale, Rusu, Shen, Szlam, Ranzato (2024), arXiv 2401.09135.

    Raises:
        ValueError: times that are no [n] positive numbers; K that is no positive integer.

    Example:
        >>> dynamic_calls([0.58, 0.75, 1.51, 3.33], 20).tolist()
        [20, 15, 7, 3]
    """
    times, most = np.asarray(compute, float), count("most", most)
    require(
        times.ndim == 1 and bool(np.all(times > 0)),
        f"compute is {compute!r}; give the positive seconds of a gradient, one a client.",
    )
    steps = np.floor(most * (times.min() / times) * (1 + 1e-12))  # ratios are rounded
    return np.maximum(steps, 1).astype(int)


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
        self.compute, self.delay = durations.models(compute, delay, n)
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
        k, me = np.repeat(begin * calls, calls) + ordinals(calls), np.repeat(who, calls)
        key = jax.random.fold_in(self.key, durations.COMPUTE)
        work = np.add.reduceat(draws.drawn(self.compute, key, k, me, me), at)
        key = jax.random.fold_in(self.key, durations.DELAY)
        k, me = np.concatenate([2 * begin, 2 * begin + 1]), np.concatenate([who, who])
        travel = draws.drawn(self.delay, key, k, me, me).reshape(2, -1).sum(axis=0)
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
    """Yield the time of every aggregation and its returns, while enough clients return."""
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
    n: int,
    record: list[tuple[float, list[Return]]],
    size: int,
    ticks: bool,
    at_once: bool,
    calls: np.ndarray,
) -> Arrivals:
    """Return aggregations as the padded tables of `Arrivals`."""
    lengths = np.array([len(returned) for _, returned in record])
    places = Places(np.concatenate([[0], np.cumsum(lengths)]))
    each = [back for _, returned in record for back in returned]
    client, version = (np.array([back[i] for back in each], int) for i in (0, 1))
    k, after = places.run, n + places.slot
    # where one comes back several times for an aggregation, only the last is its latest
    pair = k * n + client
    last = np.full(len(record) * n, -1)
    last[pair] = np.arange(len(pair))
    latest = np.where(last[pair] == np.arange(len(pair)), client, after)
    renewed = (places.slot == lengths[k] - 1) | (not at_once)
    # where no client waits, returns go by time: size of them are an aggregation
    by_time = not ticks and (size == 1 or at_once)
    when = np.ones(n)
    when[client] = [back[2] for back in each] if by_time else k + 1
    frequency = np.bincount(client, minlength=n) / when
    if by_time:
        frequency = size * frequency / frequency.sum()
    return Arrivals(
        stored(np.array([time for time, _ in record])),
        places.indices(client, n),
        places.table(k - version),
        places.indices(latest, n),
        places.table(renewed, True),
        stored(frequency),
        stored(calls),
        n=n,
        ticks=ticks,
        most=int(calls.max()),
        even=bool(calls.min() == calls.max()),
    )
