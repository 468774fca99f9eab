"""Agents that meet in pairs and never wait, in simulated time: which meet when.

Agent i's m-th meeting takes a gradient and the delay of a message from a neighbor j, drawn anew
every time, all neighbors equally likely. At its end, the *completion event*, the two average,
whatever j is doing, and i begins its next gradient. No schedule depends on the iterates, so it is
simulated first, on the host.

**Ties.** Meetings that end at the same time do so in the order of the agents' numbers.

**Runs.** The completion events, in order, are cut into the longest runs in which no agent is in two
pairs. A run is one step of `jd.run`, and the result is that of one meeting after the other.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdopt._checks import require
from jaxdopt._pytree import pytree, static
from jaxdopt.networks.checks import require_network
from jaxdopt.networks.events import draws, durations
from jaxdopt.networks.events.schedule import (
    Places,
    Round,
    Schedule,
    length,
    ordinals,
    simulate,
    stored,
)
from jaxdopt.networks.events.wires import Wires, require_fixed

PARTNER = 0xF000A17E  # folded into the key, before it draws which neighbors agents meet


@pytree
class Meetings(Round):
    """One run of pairs: s agents finish, and each averages with a partner; no two pairs touch.

    Padded rows have agents n + r and partners n + s + r, all different.
    """

    agents: jax.Array  # [s] int: whose gradient is ready
    partners: jax.Array  # [s] int: the one that each meets
    last: jax.Array  # [] seconds since the run before
    k: Any
    n: int = static()
    symmetric = True
    kind = "doubly"
    offers = frozenset({"pairs"})

    @property
    def link_count(self) -> int:
        """The number of directed links that messages are sent over, for an agent that finishes."""
        return 2 * self.n


@pytree
class Pairs(Schedule):
    """Which agents meet when: see `pairwise`, which builds it.

    Attributes:
        end: [T] seconds at which every run ends.
        agents: [T, s] int: whose gradient is ready, padded.
        partners: [T, s] int: the one that each meets, padded.
        finish: [T, s] seconds at which they meet.
        n: the number of agents.
    """

    end: Any
    agents: Any
    partners: Any
    finish: Any
    n: int = static()
    symmetric = True
    kind = "doubly"
    indices = ("agents", "partners")
    numbers = ("finish",)
    nouns = ("agents", "meetings", "runs")
    offers = Meetings.offers

    def at(self, k: Any, key: Any) -> Meetings:
        """Return run k; the key is not used, as all is drawn."""
        return Meetings(self.agents[k], self.partners[k], self.since(k), k, self.n)


def pairwise(
    network: Any,
    *,
    compute: Any = 1.0,
    delay: Any = 0.0,
    steps: int | None = None,
    seconds: float | None = None,
    key: Any = None,
) -> Pairs:
    """Simulate agents that average with a random neighbor whenever a gradient is ready.

    Args:
        network: fixed, whose links go both ways, such as jd.networks.metropolis(graph); only the
            links matter, not their weights.
        compute: seconds a gradient, above 0: a number, [n] or a model of `jd.networks.durations`.
            An agent with an infinite one stops, but others still meet it.
        delay: seconds that agent i's m-th meeting takes, as the m-th message of its partner to it.
        steps: how many runs to simulate, T; or
        seconds: until when to simulate: all that finishes by then.
        key: of partners and random times; `jax.random.key(0)` by default.

    Raises:
        ValueError: a network that changes with time, or is directed; times that are not positive,
            or infinite delays; all agents have stopped before the end.

    Example:
        >>> import jaxdopt as jd
        >>> ring = jd.networks.metropolis(jd.graphs.ring(4))
        >>> pairwise(ring, compute=[1.0, 1.0, 1.0, 2.5], seconds=5.0)
        Pairs(agents=4, meetings=17, runs=12 of at most 2, seconds=5)
    """
    until = length(steps, seconds)
    key = jax.random.key(0) if key is None else key
    clocks = _clocks(network, compute, delay, key)
    n = network.n

    def cut(time: np.ndarray, agent: np.ndarray) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
        number = np.empty(len(agent), int)
        number[np.argsort(agent, kind="stable")] = ordinals(np.bincount(agent, minlength=n))
        partner = draws.batched(functools.partial(_partners, clocks), number, agent)
        return (time, agent, partner), _cuts(agent, partner, n)

    (time, agent, partner), cuts = simulate(clocks, n, key, until, cut)
    places, end = Places(cuts), time[cuts[1:] - 1]
    return Pairs(
        stored(end),
        places.indices(agent, n),
        places.indices(partner, n + places.shape[1]),
        places.table(time, end[:, None]),
        n,
    )


@pytree
class _Clocks:
    """The model of how long every agent's meetings take, and which neighbor each is with."""

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
        travel = self.delay.at(k, delay, i, self.partner(k, i))
        return jnp.where(work > 0, work + travel, work)  # a wrong one stays wrong, and is found

    def partner(self, k: Any, i: Any) -> jax.Array:
        key = jax.random.fold_in(jax.random.fold_in(self.key, PARTNER), k)
        uniform = jax.random.uniform(jax.random.fold_in(key, i), (), jnp.float32)
        degree = self.degree[i]
        slot = (uniform * degree.astype(uniform.dtype)).astype(degree.dtype)
        return self.neighbors[i, jnp.minimum(slot, degree - 1)]


@jax.jit
def _partners(clocks: _Clocks, k: Any, i: Any) -> jax.Array:
    return jax.vmap(clocks.partner)(k, i)


def _clocks(network: Any, compute: Any, delay: Any, key: jax.Array) -> _Clocks:
    """Return the model of a network's agents, or raise why it has none."""
    require_network(network)
    require_fixed(network, "a schedule of pairs")
    require(
        network.symmetric and network.kind == "doubly" and network.n > 1,
        f"pairs need at least two agents on fixed links that go both ways, and this is a "
        f"{type(network).__name__} of {network.n}; give jd.networks.metropolis(graph).",
    )
    compute, delay = durations.models(compute, delay, network.n)
    require(
        not durations.forever(delay),
        "delay is infinite for some agents, which would wait forever; give finite ones.",
    )
    wires = Wires(network.csr())
    return _Clocks(compute, delay, stored(wires.senders), stored(wires.degree), key)


def _cuts(agent: np.ndarray, partner: np.ndarray, n: int) -> np.ndarray:
    """Return where runs begin, and where the last one ends."""
    busy, run, cuts = [-1] * n, 0, [0]  # the last run that every agent is in
    for place, (i, j) in enumerate(zip(agent.tolist(), partner.tolist(), strict=True)):
        if busy[i] == run or busy[j] == run:
            run += 1
            cuts.append(place)
        busy[i] = busy[j] = run
    return np.array([*cuts, len(agent)] if len(agent) else cuts)
