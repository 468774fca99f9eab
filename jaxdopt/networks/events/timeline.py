"""Agents that never wait, in simulated time: who finishes a gradient when, and what has arrived.

No schedule depends on the iterates, so it is simulated first, on the host: agent i's m-th gradient
is ready at the sum of its first m compute times. It then mixes with the newest models that have
arrived, sends its new one to all who hear it, and starts the next gradient at once. Messages may
overtake each other; a receiver keeps the newest.

**Ties.** At equal times messages are delivered before gradients finish, and gradients finish in the
order of the agents' numbers. A message without delay is delivered before the next agent finishes:
agents that finish together, without delays, make a Gauss-Seidel sweep.

**Runs.** The finishes, in order, are cut into the longest runs in which no agent finishes twice and
none reads what was made within the run. So a run is one step of `jd.run`, all its agents at once,
and the result is that of one finish after the other. Tables hold those who finish, never all.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp

from jaxdopt import agents as _agents
from jaxdopt._checks import count, require
from jaxdopt._leaves import is_traced, wide_dtype
from jaxdopt._pytree import pytree, replace, static
from jaxdopt.networks.events import durations
from jaxdopt.networks.operators.base import Operator
from jaxdopt.networks.parts import Parts
from jaxdopt.roles import Missing, Network, lacks

OVERHEAD = 24  # finishes that cost as much as a step does by itself, measured


@pytree
class Moment(Network):
    """One run of a timeline: s agents finish, none of whom reads what another makes in it.

    Slot l of the r-th of them hears ``sender[r, l]``, with the version that was the newest but
    ``age[r, l]`` when the run began. Padded rows have agents n and more, each another one.
    """

    agents: jax.Array  # [s] int: who finishes, padded
    mask: jax.Array  # [s] bool: which are no padding
    sender: jax.Array  # [s, slots] int, padded with the agent itself
    age: jax.Array  # [s, slots] int, in the sender's versions
    weights: jax.Array  # [s, slots]: wᵢⱼ of row sums, zero on the padding
    own: jax.Array  # [s, 1]: wᵢᵢ
    shares: jax.Array  # [s, slots]: wᵢⱼ of column sums, what i is given of j
    kept: jax.Array  # [s, 1]: wᵢᵢ of column sums
    hearers: jax.Array  # [s] int: how many agents hear each of them
    last: jax.Array  # [] seconds since the run before
    k: Any
    n: int = static()
    versions: int = static()  # V: a `DelayLine` of that many is enough
    symmetric: bool = static()
    kind: str = static()
    active = None
    repetitions = 1

    @property
    def offers(self) -> frozenset[str]:  # type: ignore[override]
        """What every run can do; see `jaxdopt.roles`."""
        of = {
            "timeline of mixing": self.kind == "doubly",
            "timeline of symmetric": self.symmetric,
            "timeline of push-pull": self.kind in ("doubly", "directed"),
        }
        return frozenset({"timeline", *(word for word, offered in of.items() if offered)})

    @property
    def time(self) -> Any:
        """The step k."""
        return self.k

    @property
    def share(self) -> jax.Array:
        """The share of agents that finish in this run."""
        return self.mask.sum() / self.n

    @property
    def link_count(self) -> jax.Array:
        """The number of directed links that messages are sent over, for an agent that finishes."""
        messages = jnp.sum(jnp.where(self.mask, self.hearers, 0), dtype=int)
        return messages * self.n / self.mask.sum()

    def rows(self, values: Any) -> Any:
        """Return the rows of those who finish, leaves [n, ...] -> [s, ...]; numbers stay."""
        return jax.tree.map(
            lambda leaf: leaf if jnp.ndim(leaf) == 0 else leaf.at[self.agents].get(mode="clip"),
            jax.tree.map(jnp.asarray, values),
        )

    def mix(self, x: jax.Array, heard: jax.Array) -> jax.Array:
        """Return wᵢᵢ xᵢ + Σⱼ wᵢⱼ x̂ⱼ for those who finish, [s, d] and [s, slots, d] -> [s, d].

        By differences, which asks that weights sum to 1 and are at consensus exactly zero.
        """
        wide = wide_dtype(x.dtype)
        own, weights = x.astype(wide), self.weights.astype(wide)
        away = heard.astype(wide) - own[:, None]
        return (own + jnp.einsum("rl,rld->rd", weights, away, precision="highest")).astype(x.dtype)

    def mean(self, x: Any) -> Any:
        """Return the mean over agents, leaves [n, ...] -> [...]."""
        return _agents.average(x)

    def seconds(self, calls: Any, exchanges: Any, overlap: Any) -> jax.Array:
        """Return the seconds since the run before, whatever the method does."""
        return self.last

    def __matmul__(self, x: Any) -> NoReturn:
        raise Missing(lacks(self, "mixing", "network @ x"))


class Finishes(NamedTuple):
    """All finishes of a timeline in order, on the host: NumPy arrays, one entry a finish."""

    time: np.ndarray  # [E] seconds
    agent: np.ndarray  # [E] int
    version: np.ndarray  # [E] int: the one made, 1 and up
    run: np.ndarray  # [E] int
    read: np.ndarray  # [E, slots] int: the version heard of every sender, −1 on the padding


@pytree
class Timeline(Network):
    """Who finishes when, and which versions they read: see `timeline`, which builds it.

    Memory grows with what finishes: T · s · (slots + 3) numbers here, and V · n · d in the state
    of a method, with V = ``versions`` the most versions of an agent that are still to be read.
    """

    end: Any  # [T] seconds at which every run ends
    agents: Any  # [T, s] int, padded by different indices of n and more
    finish: Any  # [T, s] seconds
    age: Any  # [T, s, slots] int
    sender: Any  # [n, slots] int, padded with the agent itself
    weights: Any  # [n, slots]
    own: Any  # [n, 1]
    shares: Any  # [n, slots]
    kept: Any  # [n, 1]
    hearers: Any  # [n] int
    n: int = static()
    versions: int = static()  # V
    symmetric: bool = static()
    kind: str = static()
    active = None
    repetitions = 1
    varies = True
    k = None

    @property
    def horizon(self) -> int:
        """T, the number of runs: the most steps that `jd.run` can take."""
        return self.agents.shape[-2]

    def at(self, k: Any, key: Any) -> Moment:
        """Return run k; the key is not used, as all is drawn."""
        who = self.agents[k]
        names = ("sender", "weights", "own", "shares", "kept", "hearers")
        rows = {name: getattr(self, name).at[who].get(mode="clip") for name in names}
        last = self.end[k] - jnp.where(k > 0, self.end[jnp.maximum(k - 1, 0)], 0)
        return Moment(
            who,
            who < self.n,
            age=self.age[k],
            last=last,
            k=k,
            n=self.n,
            versions=self.versions,
            symmetric=self.symmetric,
            kind=self.kind,
            **rows,
        )

    def finishes(self) -> Finishes:
        """Return all finishes in order, on the host."""
        table = np.asarray(self.agents)
        run, place = np.nonzero(table < self.n)
        agent = table[run, place]
        made = _Events(np.asarray(self.finish)[run, place], agent, self.n)
        first = np.searchsorted(run, run)  # where every one's run begins
        sender = np.asarray(self.sender)[agent]
        read = made.before(sender, first[:, None]) - np.asarray(self.age)[run, place]
        read[sender == agent[:, None]] = -1
        return Finishes(made.time, agent, made.version, run, read)

    @staticmethod
    def aligned(timelines: Sequence["Timeline"]) -> list["Timeline"]:
        """Return timelines in tables of one size, as `jd.networks.stack` asks: of the shortest T.

        Raises:
            ValueError: their weights sum to 1 in different ways.
        """
        kinds = sorted({f"{t.kind}{' symmetric' * t.symmetric}" for t in timelines})
        require(
            len(kinds) == 1,
            f"timelines of {' and '.join(kinds)} weights cannot be stacked; run them one by one.",
        )
        horizon = min(t.horizon for t in timelines)
        width, slots = (max(t.age.shape[i] for t in timelines) for i in (1, 2))
        versions = max(t.versions for t in timelines)

        def one(t: Timeline) -> Timeline:
            wider, more = width - t.age.shape[1], slots - t.age.shape[2]
            me = jnp.arange(t.n, dtype=jnp.int32)[:, None]
            per_slot = {name: _padded(getattr(t, name), more) for name in ("weights", "shares")}
            return replace(
                t,
                end=t.end[:horizon],
                agents=widened(t.agents[:horizon], wider, t.n + t.age.shape[1]),
                finish=_padded(t.finish[:horizon], wider),
                age=jnp.pad(t.age[:horizon], ((0, 0), (0, wider), (0, more))),
                sender=jnp.concatenate([t.sender, jnp.tile(me, (1, more))], axis=1),
                versions=versions,
                **per_slot,
            )

        return [one(t) for t in timelines]

    def mean(self, x: Any) -> Any:
        """Return the mean over agents, leaves [n, ...] -> [...]."""
        return _agents.average(x)

    offers = Moment.offers  # type: ignore[assignment]
    __matmul__ = Moment.__matmul__
    cuttable = False

    def __repr__(self) -> str:
        if is_traced(self) or np.ndim(self.end) != 1:
            return f"Timeline(n={self.n}, versions={self.versions})"
        total = int(np.sum(np.asarray(self.agents) < self.n))
        return (
            f"Timeline({self.n} agents, {total} finishes in {self.horizon} runs of at most "
            f"{self.agents.shape[1]}, {float(self.end[-1]):.6g} seconds, V = {self.versions})"
        )


def timeline(
    network: Any,
    *,
    compute: Any = 1.0,
    delay: Any = 0.0,
    steps: int | None = None,
    seconds: float | None = None,
    key: Any = None,
) -> Timeline:
    """Simulate agents that never wait, and return what happened as a network for `jd.run`.

    A step of `jd.run` is a run of finishes, see above; ``timeline.horizon`` says how many there
    are, and histories have them in simulated ``seconds``. The same key and times give an agent's
    m-th gradient the same seconds as in `jd.networks.timed`.

    Args:
        network: fixed, with weights of any kind, such as jd.networks.metropolis(graph).
        compute: seconds a gradient, above 0: a number, [n] or a model of `jd.networks.durations`.
            An agent with an infinite one stops.
        delay: seconds a message; an infinite one is lost.
        steps: how many runs to simulate, T; or
        seconds: until when to simulate: all that finishes by then.
        key: of random times; `jax.random.key(0)` by default.

    Raises:
        ValueError: a network that changes with time or has no links between agents; times that
            are not positive; all agents have stopped before the end.

    Example:
        >>> import jaxdopt as jd
        >>> ring = jd.networks.metropolis(jd.graphs.ring(4))
        >>> timeline(ring, compute=[1.0, 1.0, 1.0, 2.5], delay=0.5, seconds=5.0)
        Timeline(4 agents, 17 finishes in 6 runs of at most 4, 5 seconds, V = 1)
    """
    require(
        (steps is None) != (seconds is None),
        f"steps is {steps} and seconds {seconds}; give one of the two.",
    )
    row, column = _parts(network)
    n = network.n
    compute, delay = durations.as_model(compute, "compute"), durations.as_model(delay, "delay")
    for name, model in (("compute", compute), ("delay", delay)):
        durations.require_agents(model, n, name)
    key = jax.random.key(0) if key is None else key
    wires = _Wires(row, column)

    def simulated(until: float) -> tuple[_Events, np.ndarray, bool]:
        time, agent, alive = finishing(compute, n, key, until)
        events = _Events(time, agent, n)
        return events, _read(events, wires, delay, key), alive

    if seconds is not None:
        require(0 < seconds < np.inf, f"seconds is {seconds}; give a positive finite time.")
        events, read, _ = simulated(seconds)
        require(len(events.time), f"nothing finishes within {seconds} seconds; give more.")
        return _tabulated(network, wires, events, read, _cuts(events, read, wires))
    steps = count("steps", steps)
    me = np.arange(n)
    first = durations.drawn(compute, jax.random.fold_in(key, durations.COMPUTE), 0 * me, me, me)
    rate = np.sum(1 / np.maximum(first, 1e-9))
    require(rate > 0, "all compute times are infinite and nobody ever finishes; give others.")
    until = 1.1 * steps / rate
    while True:
        events, read, alive = simulated(until)
        cuts = _cuts(events, read, wires)
        runs = len(cuts) - 1
        if runs > steps or (runs == steps and not alive):  # the last one is as long as it can be
            return _tabulated(network, wires, events, read, cuts[: steps + 1])
        require(alive, f"all agents have stopped after {runs} runs; give steps={runs} or fewer.")
        until *= np.clip(1.2 * steps / max(runs, 1), 1.2, 8)


def finishing(
    compute: Any, n: int, key: jax.Array, until: float
) -> tuple[np.ndarray, np.ndarray, bool]:
    """Return when n agents finish and who, [E] each in order, and whether more will come.

    ``until`` is the last time that counts, and ``compute`` a model of `jd.networks.durations`.
    """
    key = jax.random.fold_in(key, durations.COMPUTE)
    clock, counted, alive, block, more = np.zeros(n), 0, np.arange(n), 16, False
    found, who = [np.zeros(0)], [np.zeros(0, int)]
    while len(alive):
        k = np.repeat(counted + np.arange(block), len(alive))
        me = np.tile(alive, block)
        lasts = durations.drawn(compute, key, k, me, me)
        wrong = np.flatnonzero(~(lasts > 0))
        if len(wrong):
            raise ValueError(
                f"a gradient of agent {me[wrong[0]]} takes {lasts[wrong[0]]} seconds; give compute "
                "times above 0."
            )
        lasts = lasts.reshape(block, -1)
        ready = np.cumsum(np.vstack([clock[alive], lasts]), axis=0)[1:]
        within = ready <= until
        more |= bool(np.any(np.isfinite(ready) & ~within))
        found.append(ready[within])
        who.append(np.broadcast_to(alive, ready.shape)[within])
        clock[alive] = ready[-1]
        alive = alive[within[-1]]
        counted, block = counted + block, min(2 * block, max(_BLOCK // max(len(alive), 1), 1))
    time, agent = np.concatenate(found), np.concatenate(who)
    order = np.lexsort((agent, time))
    return time[order], agent[order], more


_BLOCK = 2**21  # compute times drawn at once


class _Events:
    """Finishes in order, and where in that order every agent's versions were made."""

    def __init__(self, time: np.ndarray, agent: np.ndarray, n: int) -> None:
        self.time, self.agent = time, agent
        self.counts = np.bincount(agent, minlength=n)
        self.offset = np.cumsum(self.counts) - self.counts
        self.place = np.argsort(agent, kind="stable")  # places in order, agent after agent
        self._keys = agent[self.place] * (len(agent) + 1) + self.place

    @property
    def version(self) -> np.ndarray:
        """The version that every finish makes, 1 and up, [E]."""
        version = np.empty(len(self.agent), int)
        version[self.place] = _within(self.counts) + 1
        return version

    def made(self, sender: np.ndarray, version: np.ndarray) -> np.ndarray:
        """Return where versions were made, −1 of the start."""
        if not len(self.place):
            return np.full(np.shape(version), -1)
        index = self.offset[sender] + np.maximum(version, 1) - 1
        return np.where(version > 0, self.place[np.minimum(index, len(self.place) - 1)], -1)

    def before(self, sender: np.ndarray, place: np.ndarray) -> np.ndarray:
        """Return how many versions senders have made before a place in the order."""
        asked = sender * (len(self.agent) + 1) + place
        return np.searchsorted(self._keys, asked) - self.offset[sender]


class _Wires:
    """All links of a network, the receivers in order, and the same as tables with a slot a link."""

    def __init__(self, row: sp.csr_array, column: sp.csr_array) -> None:
        n = row.shape[0]
        both = sp.csr_array(abs(row) + abs(column))
        both.setdiag(0)
        both.eliminate_zeros()
        both.sort_indices()
        degree = np.diff(both.indptr)
        self.receiver, self.from_ = np.repeat(np.arange(n), degree), both.indices.astype(int)
        self.slot = _within(degree)
        at = (self.receiver, self.slot)
        self.sender = np.tile(np.arange(n)[:, None], (1, degree.max(initial=0)))
        self.sender[at] = self.from_
        self.weights, self.shares = np.zeros(self.sender.shape), np.zeros(self.sender.shape)
        for table, part in ((self.weights, row), (self.shares, column)):
            table[at] = part[self.receiver, self.from_] if len(self.slot) else 0
        self.own, self.kept = row.diagonal()[:, None], column.diagonal()[:, None]
        self.hearers = np.bincount(self.from_, minlength=n)


def _read(events: _Events, wires: _Wires, delay: Any, key: jax.Array) -> np.ndarray:
    """Return the version that every finish hears of every sender, [E, slots]."""
    total = len(events.time)
    sent = events.counts[wires.from_]  # messages over every link
    link = np.repeat(np.arange(len(sent)), sent)
    number = _within(sent)
    place = events.place[events.offset[wires.from_][link] + number]
    travel = durations.drawn(
        delay,
        jax.random.fold_in(key, durations.DELAY),
        number,
        wires.receiver[link],
        wires.from_[link],
    )
    wrong = np.flatnonzero(~(travel >= 0))
    if len(wrong):
        raise ValueError(f"a message takes {travel[wrong[0]]} seconds; give delays of at least 0.")
    # delivered before what finishes at that time, but not before it was made
    seen = np.maximum(place + 1, np.searchsorted(events.time, events.time[place] + travel))
    # the first place at which this message or a newer one is there; links one after the other
    seen = link * (total + 1) + np.minimum(seen, total)
    seen = np.minimum.accumulate(seen[::-1])[::-1]
    asking = events.counts[wires.receiver]
    link = np.repeat(np.arange(len(asking)), asking)
    place = events.place[events.offset[wires.receiver][link] + _within(asking)]
    newest = np.searchsorted(seen, link * (total + 1) + place, side="right")
    read = np.zeros((total, wires.sender.shape[1]), int)
    read[place, wires.slot[link]] = newest - (np.cumsum(sent) - sent)[link]
    return read


def _cuts(events: _Events, read: np.ndarray, wires: _Wires) -> np.ndarray:
    """Return where runs begin, and where the last one ends."""
    total = len(events.time)
    if not total:
        return np.zeros(1, int)
    heard = events.made(wires.sender[events.agent], read).max(axis=1, initial=-1)
    before = events.made(events.agent, events.version - 1)
    latest = np.maximum.accumulate(np.maximum(heard, before))  # has to lie before the run
    longest = np.searchsorted(latest, np.arange(total)).tolist()

    def cut(width: int) -> list[int]:
        begin, cuts = 0, [0]
        while begin < total:
            begin = min(longest[begin], begin + width)
            cuts.append(begin)
        return cuts

    best = cut(total)
    width = int(np.diff(best).max())
    cost = len(best) * (width + OVERHEAD)
    # all runs are padded to the widest: where few are wide, cutting these makes the tables smaller
    for power in reversed(range((width - 1).bit_length())):
        if total * (1 + OVERHEAD / 2**power) >= cost:
            break
        narrower = cut(2**power)
        if len(narrower) * (2**power + OVERHEAD) < cost:
            best, cost = narrower, len(narrower) * (2**power + OVERHEAD)
    return np.array(best)


def _tabulated(
    network: Any, wires: _Wires, events: _Events, read: np.ndarray, cuts: np.ndarray
) -> Timeline:
    """Return runs as the padded tables of a `Timeline`."""
    n, total = network.n, int(cuts[-1])
    lengths = np.diff(cuts)
    run, place = np.repeat(np.arange(len(lengths)), lengths), _within(lengths)
    width = int(lengths.max())
    who = events.agent[:total]
    agents = np.tile(n + np.arange(width), (len(lengths), 1))
    agents[run, place] = who
    finish = np.tile(events.time[cuts[1:] - 1][:, None], (1, width))
    finish[run, place] = events.time[:total]
    sender = wires.sender[who]
    age = events.before(sender, cuts[run][:, None]) - read[:total]
    age[sender == who[:, None]] = 0
    ages = np.zeros((*agents.shape, sender.shape[1]), int)
    ages[run, place] = age
    integers = {"agents": agents, "age": ages, "sender": wires.sender, "hearers": wires.hearers}
    floats = {
        "end": events.time[cuts[1:] - 1],
        "finish": finish,
        **{name: getattr(wires, name) for name in ("weights", "own", "shares", "kept")},
    }
    return Timeline(
        **{name: jnp.asarray(value, jnp.int32) for name, value in integers.items()},
        **{name: jnp.asarray(value, float) for name, value in floats.items()},
        n=n,
        versions=int(age.max(initial=0)) + 1,
        symmetric=network.symmetric,
        kind=network.kind,
    )


def _parts(network: Any) -> tuple[sp.csr_array, sp.csr_array]:
    """Return the row- and the column-stochastic weights of a network that a timeline can have."""
    name = type(network).__name__
    plain = isinstance(network, Operator | Parts)
    require(
        plain and not network.varies and network.repetitions == 1 and network.active is None,
        f"a timeline needs a network of fixed links between agents and this is a {name}; give "
        "weights on one graph, such as jd.networks.metropolis(graph).",
    )
    require(
        not is_traced(network),
        "a timeline is simulated on the host and this network is traced; build it outside jit and "
        "replace its weights inside.",
    )
    two = network.kind == "directed"
    both = (network.row, network.column) if two else (network, network)
    row, column = (part.csr() for part in both)
    return row, column


def widened(agents: jax.Array, more: int, first: int) -> jax.Array:
    """Return a table [T, s] with ``more`` columns of padding, the indices from ``first`` on."""
    padding = jnp.arange(first, first + more, dtype=agents.dtype)
    return jnp.concatenate([agents, jnp.tile(padding, (len(agents), 1))], axis=1)


def _padded(table: jax.Array, more: int) -> jax.Array:
    return jnp.pad(table, ((0, 0), (0, more)))


def _within(counts: np.ndarray) -> np.ndarray:
    """Return 0 ... c − 1 for every c of ``counts``, one after the other."""
    return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
