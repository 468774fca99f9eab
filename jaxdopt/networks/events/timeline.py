"""Agents that never wait, in simulated time: when each gradient is ready, and what has arrived.

Agent i's m-th gradient is ready at the sum of its first m compute times: its m-th *completion
event*. The agent then mixes with the newest models that have arrived, sends its new one to all who
hear it, and starts the next gradient at once. Messages may overtake each other; a receiver keeps
the newest.

**Ties.** At equal times messages are delivered before gradients finish, and gradients finish in the
order of the agents' numbers. A message without delay is delivered before the next agent finishes:
agents that finish together, without delays, make a Gauss-Seidel sweep.

**Runs.** The completion events, in order, are cut into the longest runs in which no agent finishes
twice and none reads what was made within the run. So a run is one step of `jd.run`, all its agents
at once, and the result is that of one event after the other. Tables hold only the agents that
finish, never all.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdopt._checks import require
from jaxdopt._leaves import wide_dtype
from jaxdopt._pytree import pytree, replace, static
from jaxdopt.networks.events import durations
from jaxdopt.networks.events.deliveries import Completed, delivered, runs
from jaxdopt.networks.events.schedule import (
    Places,
    Round,
    Schedule,
    length,
    padded,
    simulate,
    stored,
)
from jaxdopt.networks.events.wires import Wires, require_fixed


@pytree
class Moment(Round):
    """One run of a timeline: s agents finish, none of which reads what another makes in it.

    Slot l of the r-th of them hears ``sender[r, l]``, in the version that is ``age[r, l]`` versions
    older than that agent's newest when the run begins.
    """

    agents: jax.Array  # [s] int: which agents finish
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
    def link_count(self) -> jax.Array:
        """The number of directed links that messages are sent over, for an agent that finishes."""
        messages = jnp.sum(jnp.where(self.mask, self.hearers, 0), dtype=int)
        return messages * self.n / self.mask.sum()

    def mix(self, x: jax.Array, heard: jax.Array) -> jax.Array:
        """Return wᵢᵢ xᵢ + Σⱼ wᵢⱼ x̂ⱼ for the agents that finish, [s, d] and [s, slots, d] -> [s, d].

        By differences, which asks that weights sum to 1 and are at consensus exactly zero.
        """
        wide = wide_dtype(x.dtype)
        own, weights = x.astype(wide), self.weights.astype(wide)
        away = heard.astype(wide) - own[:, None]
        return (own + jnp.einsum("rl,rld->rd", weights, away, precision="highest")).astype(x.dtype)


class Completions(NamedTuple):
    """All completion events of a timeline in order, on the host: NumPy arrays, one entry each."""

    time: np.ndarray  # [E] seconds
    agent: np.ndarray  # [E] int
    version: np.ndarray  # [E] int: the one made, 1 and up
    run: np.ndarray  # [E] int
    read: np.ndarray  # [E, slots] int: the version heard of every sender, −1 on the padding


@pytree
class Timeline(Schedule):
    """Which agents finish when, and which versions they read: see `timeline`, which builds it.

    Memory grows with the number of completion events: T · s · (slots + 3) numbers here, and
    V · n · d in the state of a method, with V = ``versions`` the most versions of an agent that are
    still to be read.

    Attributes:
        end: [T] seconds at which every run ends.
        agents: [T, s] int: which agents finish, padded.
        finish: [T, s] seconds at which they do.
        age: [T, s, slots] int: versions by which what they hear is older than the newest.
        sender: [n, slots] int: whom each agent hears, padded with itself.
        weights: [n, slots] wᵢⱼ of row sums, zero on the padding.
        own: [n, 1] wᵢᵢ.
        shares: [n, slots] wᵢⱼ of column sums.
        kept: [n, 1] wᵢᵢ of column sums.
        hearers: [n] int: how many agents hear each one.
        n: the number of agents.
        versions: V.
        symmetric: whether the weights are.
        kind: "doubly", "directed", "row" or "column": what sums to 1.
    """

    end: Any
    agents: Any
    finish: Any
    age: Any
    sender: Any
    weights: Any
    own: Any
    shares: Any
    kept: Any
    hearers: Any
    n: int = static()
    versions: int = static()
    symmetric: bool = static()
    kind: str = static()
    numbers = ("finish", "age")
    nouns = ("agents", "completions", "runs")
    offers = Moment.offers  # type: ignore[assignment]

    def at(self, k: Any, key: Any) -> Moment:
        """Return run k; the key is not used, as all is drawn."""
        who = self.agents[k]
        names = ("sender", "weights", "own", "shares", "kept", "hearers")
        return Moment(
            who,
            age=self.age[k],
            last=self.since(k),
            k=k,
            n=self.n,
            versions=self.versions,
            symmetric=self.symmetric,
            kind=self.kind,
            **{name: getattr(self, name).at[who].get(mode="clip") for name in names},
        )

    def completions(self) -> Completions:
        """Return all completion events in order, on the host."""
        table = np.asarray(self.agents)
        run, place = np.nonzero(table < self.n)
        agent = table[run, place]
        made = Completed(np.asarray(self.finish)[run, place], agent, self.n)
        first = np.searchsorted(run, run)  # where the run of every event begins
        sender = np.asarray(self.sender)[agent]
        read = made.before(sender, first[:, None]) - np.asarray(self.age)[run, place]
        read[sender == agent[:, None]] = -1
        return Completions(made.time, agent, made.version, run, read)

    @classmethod
    def aligned(cls, members: Sequence["Timeline"]) -> list["Timeline"]:
        """Return timelines in tables of one size, as `jd.networks.stack` asks.

        Raises:
            ValueError: their weights sum to 1 in different ways.
        """
        kinds = sorted({f"{t.kind}{' symmetric' * t.symmetric}" for t in members})
        require(
            len(kinds) == 1,
            f"timelines of {' and '.join(kinds)} weights cannot be stacked; run them one by one.",
        )
        slots, versions = (max(f(t) for t in members) for f in (_slots, lambda t: t.versions))

        def one(t: Timeline) -> Timeline:
            more = slots - _slots(t)
            me = jnp.arange(t.n, dtype=jnp.int32)[:, None]
            return replace(
                t,
                age=jnp.pad(t.age, ((0, 0), (0, 0), (0, more))),
                sender=jnp.concatenate([t.sender, jnp.tile(me, (1, more))], axis=1),
                versions=versions,
                **{name: padded(getattr(t, name), more) for name in ("weights", "shares")},
            )

        return super().aligned([one(t) for t in members])

    def _facts(self) -> dict[str, str]:
        return super()._facts() | {"versions": str(self.versions)}


def _slots(timeline: Timeline) -> int:
    return timeline.age.shape[2]


def timeline(
    network: Any,
    *,
    compute: Any = 1.0,
    delay: Any = 0.0,
    steps: int | None = None,
    seconds: float | None = None,
    key: Any = None,
) -> Timeline:
    """Simulate agents that never wait, and return what happens as a network for `jd.run`.

    A step of `jd.run` is a run of completion events, see the module's docstring;
    ``timeline.horizon`` is their number, and histories have them in simulated ``seconds``. The same
    key and times give an agent's m-th gradient the same seconds as in `jd.networks.timed`.

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
        Timeline(agents=4, completions=17, runs=6 of at most 4, seconds=5, versions=1)
    """
    until = length(steps, seconds)
    require_fixed(network, "a timeline")
    n = network.n
    compute, delay = durations.models(compute, delay, n)
    key = jax.random.key(0) if key is None else key
    both = (network.row, network.column) if network.kind == "directed" else (network, network)
    row, column = (part.csr() for part in both)
    wires = Wires(abs(row) + abs(column))

    def cut(time: np.ndarray, agent: np.ndarray) -> tuple[tuple[Completed, np.ndarray], np.ndarray]:
        events = Completed(time, agent, n)
        read = delivered(events, wires, delay, key)
        return (events, read), runs(events, read, wires)

    (events, read), cuts = simulate(compute, n, key, until, cut)
    places, end = Places(cuts), events.time[cuts[1:] - 1]
    agent = events.agent[: places.total]
    sender = wires.senders[agent]
    age = events.before(sender, cuts[places.run][:, None]) - read[: places.total]
    age[sender == agent[:, None]] = 0
    return Timeline(
        stored(end),
        places.indices(agent, n),
        finish=places.table(events.time, end[:, None]),
        age=places.table(age),
        sender=stored(wires.senders),
        weights=stored(wires.entries(row)),
        own=stored(row.diagonal()[:, None]),
        shares=stored(wires.entries(column)),
        kept=stored(column.diagonal()[:, None]),
        hearers=stored(np.bincount(wires.sender, minlength=n)),
        n=n,
        versions=int(age.max(initial=0)) + 1,
        symmetric=network.symmetric,
        kind=network.kind,
    )
