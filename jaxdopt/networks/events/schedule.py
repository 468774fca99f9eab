"""Schedules of events: what timelines, pairs and arrivals share, and how to write another one.

No schedule depends on the iterates, so it is simulated before the run, on the host: events in
simulated time, cut into rounds, each of which is one step of `jd.run`. A new schedule states only
its event loop and its tables, in three parts:

1. **A round**, a pytree on `Round`: what its methods read of one step, and which words of
   `jaxdopt.roles` it ``offers``.
2. **A schedule**, a pytree on `Schedule`: the tables of all rounds, [T, s, ...], and
   ``at(k, key)``, which makes round k of their k-th rows; and what its rounds offer. ``indices``
   and ``numbers`` name the tables, ``nouns`` says what they count. The horizon, stacking, `repr`
   and refusals follow.
3. **A function** that simulates one. Where agents have events at their own pace, whatever the
   others do (timelines, pairs; Poisson clocks, with exponential times), `simulate` draws the
   times, and the function adds what else happens in an event and where rounds begin. Where an event
   decides what follows it (arrivals; tokens on a walk), a generator yields the rounds and
   `recorded` takes as many as are asked for. `Places` makes the tables.

Rounds differ in their number of events, and tables are padded to the largest, s: with agents'
numbers from n on, all different in a row, so that reading clips them and writing drops them.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, NoReturn, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxdopt import agents as _agents
from jaxdopt._checks import count, require
from jaxdopt._leaves import is_traced
from jaxdopt._memory import require_free
from jaxdopt._pytree import replace
from jaxdopt.networks.events import draws, durations
from jaxdopt.roles import Missing, Network, lacks

T = TypeVar("T")
Length = tuple[int | None, float | None]  # steps or seconds, the other one None


class Events(Network):
    """What a schedule and its rounds share: only some agents act at a time; there is no ``@``."""

    n: Any  # the number of agents
    active: Any = None
    repetitions = 1

    def __matmul__(self, x: Any) -> NoReturn:
        raise Missing(lacks(self, "mixing", "network @ x"))

    def mean(self, x: Any) -> Any:
        """Return the mean over agents, leaves [n, ...] -> [...]."""
        return _agents.average(x)


class Round(Events):
    """One step of a schedule: the events of s agents, some of them padding."""

    agents: Any  # [s] int: whose events they are
    last: Any  # [] seconds since the round before
    k: Any  # the step

    @property
    def time(self) -> Any:
        """The step k."""
        return self.k

    @property
    def mask(self) -> jax.Array:
        """Which events are no padding, [s] bool."""
        return self.agents < self.n

    @property
    def share(self) -> jax.Array:
        """The number of events in this round over the number of agents."""
        return self.mask.sum() / self.n

    def rows(self, values: Any) -> Any:
        """Return the rows of the agents with an event, leaves [n, ...] -> [s, ...].

        Leaves that are single numbers stay as they are.
        """
        return jax.tree.map(
            lambda leaf: leaf if jnp.ndim(leaf) == 0 else leaf.at[self.agents].get(mode="clip"),
            jax.tree.map(jnp.asarray, values),
        )

    def seconds(self, *_: Any) -> jax.Array:
        """Return the seconds since the round before, whatever the method does."""
        return self.last


class Schedule(Events):
    """All rounds, in tables; a subclass names these, and makes rounds of them in ``at(k, key)``."""

    end: Any  # [T] seconds at which every round ends
    agents: Any  # [T, s] int: whose events they are
    indices: ClassVar[tuple[str, ...]] = ("agents",)  # tables [T, s] of agents' numbers
    numbers: ClassVar[tuple[str, ...]] = ()  # tables [T, s, ...] of all else
    nouns: ClassVar[tuple[str, str, str]] = ("agents", "events", "rounds")
    varies = True
    cuttable: Any = False
    k: Any = None

    @property
    def horizon(self) -> int:
        """T, the number of rounds: the most steps that `jd.run` can take."""
        return self.agents.shape[-2]

    def since(self, k: Any) -> jax.Array:
        """Return the seconds from the end of round k − 1 to that of round k."""
        return self.end[k] - jnp.where(k > 0, self.end[jnp.maximum(k - 1, 0)], 0)

    @classmethod
    def aligned(cls, members: Sequence[Any]) -> list[Any]:
        """Return schedules in tables of one size, of the shortest T, for `jd.networks.stack`."""
        horizon = min(member.horizon for member in members)
        width = max(member.agents.shape[1] for member in members)

        def one(member: Any) -> Any:
            more = width - member.agents.shape[1]
            tables = {"end": member.end[:horizon]}
            # beyond the padding that is there already, and different from table to table
            for first, name in enumerate(cls.indices, len(cls.indices)):
                table = getattr(member, name)[:horizon]
                padding = member.n + first * width + jnp.arange(more, dtype=table.dtype)
                tables[name] = jnp.concatenate([table, jnp.tile(padding, (horizon, 1))], axis=1)
            for name in cls.numbers:
                tables[name] = padded(getattr(member, name)[:horizon], more)
            return replace(member, **tables)

        return [one(member) for member in members]

    def _facts(self) -> dict[str, str]:
        who, what, rounds = self.nouns
        if is_traced(self) or np.ndim(self.end) != 1:
            return {who: str(self.n)}
        return {
            who: str(self.n),
            what: str(int(np.sum(np.asarray(self.agents) < self.n))),
            rounds: f"{self.horizon} of at most {self.agents.shape[1]}",
            "seconds": f"{float(self.end[-1]):.6g}",
        }


def length(steps: int | None, seconds: float | None) -> Length:
    """Return how long to simulate: a number of rounds, or a time.

    Raises:
        ValueError: none or both are given, no positive integer, or no positive finite time.
    """
    require(
        (steps is None) != (seconds is None),
        f"steps is {steps} and seconds {seconds}; give one of the two.",
    )
    require(
        seconds is None or 0 < seconds < np.inf,
        f"seconds is {seconds}; give a positive finite time.",
    )
    return None if steps is None else count("steps", steps), seconds


def simulate(
    clocks: Any,
    n: int,
    key: jax.Array,
    until: Length,
    rounds: Callable[[np.ndarray, np.ndarray], tuple[T, np.ndarray]],
) -> tuple[T, np.ndarray]:
    """Return the events of agents that go at their own pace, and where rounds begin.

    Args:
        clocks: a model of `jd.networks.durations`: the seconds from an agent's event to its next.
        n: the number of agents.
        key: of the times.
        until: how long.
        rounds: what to make of events at times [E], in order, of agents [E]: anything, and the
            cuts [T + 1], the places at which rounds begin and that at which the last one ends.

    Raises:
        ValueError: times that are not positive; nothing happens, or not for as long as asked for.
    """
    steps, end = until
    events = end * _rate(clocks, n, key) if end is not None else steps or 0
    _require_room("events", events, until, _EVENT)
    if steps is None:
        time, agent, _ = _events(clocks, n, key, end)
        found, cuts = rounds(time, agent)
        _require_events(len(cuts) - 1, end)
        return found, cuts
    me = np.arange(n)
    first = draws.drawn(clocks, jax.random.fold_in(key, durations.COMPUTE), 0 * me, me, me)
    rate = np.sum(1 / np.maximum(first, 1e-9))
    require(rate > 0, "all compute times are infinite and no agent ever finishes; give others.")
    end = 1.1 * steps / rate
    while True:
        time, agent, alive = _events(clocks, n, key, end)
        found, cuts = rounds(time, agent)
        made = len(cuts) - 1
        if made > steps or (made == steps and not alive):  # the last one is as long as it can be
            return found, cuts[: steps + 1]
        if not alive:
            _require_steps(made, steps, "all agents have stopped", "other times")
        end *= np.clip(1.2 * steps / max(made, 1), 1.2, 8)


def recorded(
    rounds: Iterable[tuple[float, T]], until: Length, stopped: str, remedy: str = "other times"
) -> list[tuple[float, T]]:
    """Return as many rounds of a generator, each with the time at which it ends, as asked for.

    Where there are too few, ``stopped`` says why, such as "all agents have stopped", and ``remedy``
    what else to give.

    Raises:
        ValueError: nothing happens, or not for as long as asked for.
    """
    steps, end = until
    record = []
    for time, what in rounds:
        if end is not None and time > end:
            break
        record.append((time, what))
        if len(record) == _TRIED:
            expected = len(record) * end / max(time, 1e-9) if end is not None else steps or 0
            _require_room("aggregations", expected, until, _AGGREGATION)
        if len(record) == steps:
            break
    if steps is None:
        _require_events(len(record), end)
    else:
        _require_steps(len(record), steps, stopped, remedy)
    return record


def _require_events(rounds: int, seconds: Any) -> None:
    require(rounds, f"nothing happens within {seconds} seconds; give more, or other times.")


def _require_steps(rounds: int, steps: int, stopped: str, remedy: str) -> None:
    remedy = f"steps={rounds} or fewer, or {remedy}" if rounds else remedy
    require(rounds == steps, f"{stopped} after {rounds} of {steps} steps; give {remedy}.")


def _events(clocks: Any, n: int, key: jax.Array, end: Any) -> tuple[np.ndarray, np.ndarray, bool]:
    """Return events until ``end``, times and agents [E] in order, and whether more follow."""
    key = jax.random.fold_in(key, durations.COMPUTE)
    clock, counted, alive, block, more = np.zeros(n), 0, np.arange(n), _FIRST, False
    found, who = [np.zeros(0)], [np.zeros(0, int)]
    while len(alive):
        k = np.repeat(counted + np.arange(block), len(alive))
        me = np.tile(alive, block)
        lasts = draws.drawn(clocks, key, k, me, me)
        wrong = np.flatnonzero(~(lasts > 0))
        if len(wrong):
            raise ValueError(
                f"a gradient of agent {me[wrong[0]]} takes {lasts[wrong[0]]} seconds; give compute "
                "times above 0."
            )
        lasts = lasts.reshape(block, -1)
        ready = np.cumsum(np.vstack([clock[alive], lasts]), axis=0)[1:]
        within = ready <= end
        more |= bool(np.any(np.isfinite(ready) & ~within))
        found.append(ready[within])
        who.append(np.broadcast_to(alive, ready.shape)[within])
        clock[alive] = ready[-1]
        alive = alive[within[-1]]
        counted, block = counted + block, min(2 * block, max(_BLOCK // max(len(alive), 1), 1))
    time, agent = np.concatenate(found), np.concatenate(who)
    order = np.lexsort((agent, time))
    return time[order], agent[order], more


def _rate(clocks: Any, n: int, key: jax.Array) -> float:
    """Return the events a second of all agents, by their first ones."""
    k, me = np.repeat(np.arange(_FIRST), n), np.tile(np.arange(n), _FIRST)
    lasts = draws.drawn(clocks, jax.random.fold_in(key, durations.COMPUTE), k, me, me)
    means = lasts.reshape(_FIRST, n).mean(axis=0)
    return float(np.sum(1 / means[means > 0]))


def _require_room(what: str, number: float, until: Length, each: int) -> None:
    """Refuse more events than there is memory for, each of which takes some bytes."""
    steps, seconds = until
    given = f"{seconds:g} seconds" if steps is None else f"{steps} steps"
    require_free(f"a schedule of {given}, some {number:.2g} {what},", each * number, "give fewer")


_BLOCK = 2**21  # times drawn at once
_FIRST = 16  # of an agent, drawn at first
_TRIED = 4096  # aggregations after which their number is estimated
_EVENT, _AGGREGATION = 150, 500  # bytes of one while schedules are made, measured


class Places:
    """Where events belong in tables [T, s], T rounds of at most s events, by the cuts [T + 1]."""

    def __init__(self, cuts: np.ndarray) -> None:
        lengths = np.diff(cuts)
        self.total = int(cuts[-1])
        self.shape = len(lengths), max(int(lengths.max()), 1)
        self.run, self.slot = np.repeat(np.arange(len(lengths)), lengths), ordinals(lengths)

    def indices(self, values: np.ndarray, first: int) -> jax.Array:
        """Return a table of agents' numbers, padded by different ones from ``first`` on."""
        return self.table(values, np.arange(first, first + self.shape[1]))

    def table(self, values: np.ndarray, padding: Any = 0) -> jax.Array:
        """Return a table [T, s, ...] of all events' values [E, ...], padded."""
        shape = (*self.shape, *values.shape[1:])
        table = np.array(np.broadcast_to(np.asarray(padding, values.dtype), shape))
        table[self.run, self.slot] = values[: self.total]
        return stored(table)


def stored(values: Any) -> jax.Array:
    """Return an array as tables have it: integers in 32 bits, floats in JAX's default."""
    kinds = {"b": bool, "i": np.int32, "f": float}
    dtype = jax.dtypes.canonicalize_dtype(kinds[values.dtype.kind])
    return jax.device_put(np.array(values, dtype))  # compiles nothing; a copy, as it may be shared


def padded(table: jax.Array, more: int) -> jax.Array:
    """Return a table with ``more`` columns of zeros."""
    return jnp.pad(table, ((0, 0), (0, more)) + ((0, 0),) * (table.ndim - 2))


def ordinals(counts: np.ndarray) -> np.ndarray:
    """Return 0 ... c − 1 for every c of ``counts``, one after the other."""
    return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
