"""Workers that meet in pairs and never wait, in simulated time: whose gradient is ready when.

Worker i's m-th round is a gradient and the delay of a message from a neighbor j, drawn anew every
time, all neighbors as likely as another; when it is over the two average, whatever j is doing, and
i begins its next round. No schedule depends on the iterates, so it is simulated first, on the host.

**Ties.** Rounds that end at the same time do so in the order of the workers' numbers.

**Runs.** The ends, in order, are cut into the longest runs in which no worker is in two pairs. A
run is one step of `jd.run`, and the result is that of one meeting after the other.
"""

from collections.abc import Sequence
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp

from jaxdopt import agents as _agents
from jaxdopt._checks import count, require
from jaxdopt._leaves import is_traced
from jaxdopt._pytree import pytree, replace, static
from jaxdopt.networks.checks import require_network
from jaxdopt.networks.events import durations
from jaxdopt.networks.events.timeline import finishing, widened
from jaxdopt.roles import Missing, Network, lacks

PARTNER = 0xF000A17E  # folded into the key, before it draws whom workers meet


@pytree
class Meetings(Network):
    """One run of pairs: s workers are done, and each averages with a partner; no two pairs touch.

    Padded rows have workers n + r and partners n + s + r, each another one.
    """

    agents: jax.Array  # [s] int: whose gradient is ready
    partners: jax.Array  # [s] int: whom each meets
    last: jax.Array  # [] seconds since the run before
    k: Any
    n: int = static()
    symmetric = True
    kind = "doubly"
    active = None
    repetitions = 1

    @property
    def time(self) -> Any:
        """The step k."""
        return self.k

    @property
    def share(self) -> jax.Array:
        """The share of workers whose gradient is ready in this run."""
        return (self.agents < self.n).sum() / self.n

    def rows(self, values: Any) -> Any:
        """Return the rows of those who are done, leaves [n, ...] -> [s, ...]; numbers stay."""
        return jax.tree.map(
            lambda leaf: leaf if jnp.ndim(leaf) == 0 else leaf.at[self.agents].get(mode="clip"),
            jax.tree.map(jnp.asarray, values),
        )

    def mean(self, x: Any) -> Any:
        """Return the mean over agents, leaves [n, ...] -> [...]."""
        return _agents.average(x)

    def seconds(self, calls: Any, exchanges: Any, overlap: Any) -> jax.Array:
        """Return the seconds since the run before, whatever the method does."""
        return self.last

    offers = frozenset({"pairs"})

    def __matmul__(self, x: Any) -> NoReturn:
        raise Missing(lacks(self, "mixing", "network @ x"))


@pytree
class Pairs(Network):
    """Who meets whom when: see `pairwise`, which builds it."""

    end: Any  # [T] seconds at which every run ends
    agents: Any  # [T, s] int, padded
    partners: Any  # [T, s] int, padded
    finish: Any  # [T, s] seconds
    n: int = static()
    symmetric = True
    kind = "doubly"
    active = None
    repetitions = 1
    varies = True
    cuttable = False
    k = None

    @property
    def horizon(self) -> int:
        """T, the number of runs: the most steps that `jd.run` can take."""
        return self.agents.shape[-2]

    def at(self, k: Any, key: Any) -> Meetings:
        """Return run k; the key is not used, as all is drawn."""
        last = self.end[k] - jnp.where(k > 0, self.end[jnp.maximum(k - 1, 0)], 0)
        return Meetings(self.agents[k], self.partners[k], last, k, self.n)

    @staticmethod
    def aligned(members: Sequence["Pairs"]) -> list["Pairs"]:
        """Return them in tables of one size, as `jd.networks.stack` asks: of the shortest T."""
        horizon = min(pairs.horizon for pairs in members)
        width = max(pairs.agents.shape[1] for pairs in members)

        def one(pairs: Pairs) -> Pairs:
            more, n = width - pairs.agents.shape[1], pairs.n
            return replace(
                pairs,
                end=pairs.end[:horizon],
                agents=widened(pairs.agents[:horizon], more, n + 2 * width),
                partners=widened(pairs.partners[:horizon], more, n + 3 * width),
                finish=jnp.pad(pairs.finish[:horizon], ((0, 0), (0, more))),
            )

        return [one(pairs) for pairs in members]

    def mean(self, x: Any) -> Any:
        """Return the mean over agents, leaves [n, ...] -> [...]."""
        return _agents.average(x)

    offers = Meetings.offers
    __matmul__ = Meetings.__matmul__

    def __repr__(self) -> str:
        if is_traced(self) or np.ndim(self.end) != 1:
            return f"Pairs(n={self.n})"
        total = int(np.sum(np.asarray(self.agents) < self.n))
        return (
            f"Pairs({self.n} workers, {total} meetings in {self.horizon} runs of at most "
            f"{self.agents.shape[1]}, {float(self.end[-1]):.6g} seconds)"
        )


def pairwise(
    network: Any,
    *,
    compute: Any = 1.0,
    delay: Any = 0.0,
    steps: int | None = None,
    seconds: float | None = None,
    key: Any = None,
) -> Pairs:
    """Simulate workers that average with a random neighbor whenever a gradient is ready.

    Args:
        network: fixed, whose links go both ways, such as jd.networks.metropolis(graph); only the
            links matter, not their weights.
        compute: seconds a gradient, above 0: a number, [n] or a model of `jd.networks.durations`. A
            worker with an infinite one stops, but others still meet it.
        delay: seconds that worker i's m-th meeting takes, as the m-th message of its partner to it.
        steps: how many runs to simulate, T; or
        seconds: until when to simulate: all that is done by then.
        key: of partners and random times; `jax.random.key(0)` by default.

    Raises:
        ValueError: a network that changes with time, or is directed; times that are not positive,
            or infinite delays; all workers have stopped before the end.

    Example:
        >>> import jaxdopt as jd
        >>> ring = jd.networks.metropolis(jd.graphs.ring(4))
        >>> pairwise(ring, compute=[1.0, 1.0, 1.0, 2.5], seconds=5.0)
        Pairs(4 workers, 17 meetings in 12 runs of at most 2, 5 seconds)
    """
    require(
        (steps is None) != (seconds is None),
        f"steps is {steps} and seconds {seconds}; give one of the two.",
    )
    key = jax.random.key(0) if key is None else key
    require_network(network)
    rounds = _rounds(network, compute, delay, key)

    def simulated(until: float) -> tuple[tuple[np.ndarray, ...], np.ndarray, bool]:
        time, agent, alive = finishing(rounds, network.n, key, until)
        order = np.argsort(agent, kind="stable")
        counts = np.bincount(agent, minlength=network.n)
        number = np.empty(len(agent), int)
        number[order] = np.arange(len(agent)) - np.repeat(np.cumsum(counts) - counts, counts)
        partner = rounds.met(number, agent)
        return (time, agent, partner), _cuts(agent, partner, network.n), alive

    if seconds is not None:
        require(0 < seconds < np.inf, f"seconds is {seconds}; give a positive finite time.")
        events, cuts, _ = simulated(seconds)
        require(len(cuts) > 1, f"nothing is ready within {seconds} seconds; give more.")
        return _tabulated(network.n, events, cuts)
    steps = count("steps", steps)
    me = np.arange(network.n)
    first = durations.drawn(rounds, key, 0 * me, me, me)
    rate = np.sum(1 / np.maximum(first, 1e-9))
    require(rate > 0, "all compute times are infinite and nobody is ever done; give others.")
    until = 1.5 * steps / rate
    while True:
        events, cuts, alive = simulated(until)
        runs = len(cuts) - 1
        if runs > steps or (runs == steps and not alive):  # the last one is as long as it can be
            return _tabulated(network.n, events, cuts[: steps + 1])
        require(alive, f"all workers have stopped after {runs} runs; give steps={runs} or fewer.")
        until *= np.clip(1.2 * steps / max(runs, 1), 1.2, 8)


@pytree
class _Rounds:
    """How long every worker's rounds take, as a model of `times`, and whom it meets in each."""

    compute: Any
    delay: Any
    neighbors: Any  # [n, slots] int
    degree: Any  # [n] int
    key: Any

    def at(self, k: Any, _: Any, i: Any, j: Any) -> jax.Array:
        compute, delay = (
            jax.random.fold_in(self.key, constant)
            for constant in (durations.COMPUTE, durations.DELAY)
        )
        work = self.compute.at(k, compute, i, i)
        return jnp.where(
            work > 0, work + self.delay.at(k, delay, i, self.partner(k, i)), work
        )  # so that a wrong one is found

    def partner(self, k: Any, i: Any) -> jax.Array:
        key = jax.random.fold_in(jax.random.fold_in(self.key, PARTNER), k)
        uniform = jax.random.uniform(jax.random.fold_in(key, i), (), jnp.float32)
        degree = self.degree[i]
        slot = (uniform * degree.astype(uniform.dtype)).astype(degree.dtype)
        return self.neighbors[i, jnp.minimum(slot, degree - 1)]

    def met(self, k: np.ndarray, i: np.ndarray) -> np.ndarray:
        """Return the partners of many rounds, on the host."""
        size = len(k)
        padding = max(1 << max(size - 1, 0).bit_length(), 256) - size
        padded = (np.pad(a, (0, padding)).astype(np.int32) for a in (k, i))
        return np.asarray(_met(self, *padded))[:size]


@jax.jit
def _met(rounds: _Rounds, k: Any, i: Any) -> jax.Array:
    return jax.vmap(rounds.partner)(k, i)


def _rounds(network: Any, compute: Any, delay: Any, key: jax.Array) -> _Rounds:
    """Return the model of a network's workers, or raise why it has none."""
    plain = not getattr(network, "varies", True) and getattr(network, "repetitions", 1) == 1
    require(
        plain and network.symmetric and network.kind == "doubly" and network.n > 1,
        f"pairs need at least two agents on fixed links that go both ways, and this is a "
        f"{type(network).__name__} of {network.n}; give jd.networks.metropolis(graph).",
    )
    compute, delay = durations.as_model(compute, "compute"), durations.as_model(delay, "delay")
    for name, model in (("compute", compute), ("delay", delay)):
        durations.require_agents(model, network.n, name)
    require(
        not durations.forever(delay),
        "delay is infinite for some, and a worker would wait for ever; give finite ones.",
    )
    links = sp.csr_array(network.csr())
    links.setdiag(0)
    links.eliminate_zeros()
    degree = np.diff(links.indptr)
    slot = np.arange(links.nnz) - np.repeat(links.indptr[:-1], degree)
    neighbors = np.zeros((network.n, degree.max()), np.int32)
    neighbors[np.repeat(np.arange(network.n), degree), slot] = links.indices
    return _Rounds(compute, delay, jnp.asarray(neighbors), jnp.asarray(degree, jnp.int32), key)


def _cuts(agent: np.ndarray, partner: np.ndarray, n: int) -> np.ndarray:
    """Return where runs begin, and where the last one ends."""
    busy, run, cuts = [-1] * n, 0, [0]
    for place, pair in enumerate(zip(agent.tolist(), partner.tolist(), strict=True)):
        if any(busy[i] == run for i in pair):
            run += 1
            cuts.append(place)
        for i in pair:
            busy[i] = run
    return np.array([*cuts, len(agent)] if len(agent) else cuts)


def _tabulated(n: int, events: tuple[np.ndarray, ...], cuts: np.ndarray) -> Pairs:
    """Return runs as the padded tables of `Pairs`."""
    time, agent, partner = events
    total, lengths = int(cuts[-1]), np.diff(cuts)
    width, runs = int(lengths.max()), len(lengths)
    at = np.repeat(np.arange(runs), lengths), np.arange(total) - np.repeat(cuts[:-1], lengths)
    end = time[cuts[1:] - 1]
    agents, partners = (np.tile(n + first + np.arange(width), (runs, 1)) for first in (0, width))
    finish = np.tile(end[:, None], (1, width))
    for table, values in ((agents, agent), (partners, partner), (finish, time)):
        table[at] = values[:total]
    return Pairs(
        jnp.asarray(end, float),
        jnp.asarray(agents, jnp.int32),
        jnp.asarray(partners, jnp.int32),
        jnp.asarray(finish, float),
        n,
    )
