"""FZooS: clients descend along surrogates' slopes, and correct them by shared random features.

    yᵢ = x,   K times, t = 0, 1, ...:
      yᵢ ← yᵢ − η (∇mᵢ(yᵢ) + (∇(φ·w)(yᵢ) − ∇(φ·wᵢ)(yᵢ)) / (t + 1)),   w the mean of wᵢ,
      ask for fᵢ(yᵢ), and where ∇mᵢ is least certain among points drawn from yᵢ ± r
    x ← mean yᵢ;   ask where ∇mᵢ is least certain among points drawn from x ± mean |x − yⱼ| / 2,
      and fit wᵢ to all that is remembered, φ·wᵢ ≈ fᵢ

mᵢ is the posterior mean of a Gaussian process after the client's last queries, a few that it has
begun with, drawn from x ± r, among them; φ the same random features at all clients, whose weights
are what they tell each other of fᵢ (`jaxdopt.algorithms.black_boxes.surrogate`). A step of K local
ones asks K (1 + active) + refit times. All clients take part in all rounds: y and wᵢ go up, x and w
down.

Source: Shu, Lin, Dai, Low (2023), arXiv 2308.04077.
Confidence: authors' code.
Departs: where the code has the 150 nearest queries, a Matérn kernel and Adam, these are the last
ones, a squared exponential and a plain step; it also takes back a round after which F is larger.
Uncertainties are those before yᵢ's own value, so that all values of a local step are asked at once.
Theorem in the tests: ∇(φ·w) is the mean of all ∇(φ·wᵢ), so that where clients know the same nothing
is corrected; where their functions differ, the error without the correction is FedAvg's drift.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdopt import agents
from jaxdopt._checks import Count, require
from jaxdopt._numbers import Nonnegative, Positive
from jaxdopt._pytree import field, pytree, static
from jaxdopt.algorithms.black_boxes import surrogate
from jaxdopt.algorithms.federated.clients import Central, Clients, common, participants
from jaxdopt.compressors import FLOAT
from jaxdopt.costs import LINK_AXES, QUERY_AXES, Cost, samples, vector_bits
from jaxdopt.problems.zeroth_order import Radius

DRAWN = 0xF2005  # folded into the key, so that candidates and the values' samples are independent


@pytree
class State(Central):
    """The state of FZooS."""

    server: jax.Array  # [d] the server's model
    points: jax.Array  # [n, memory, d] the last queries, the newest in the end
    values: jax.Array  # [n, memory]
    weights: jax.Array  # [n, features] wᵢ
    frequencies: jax.Array = field(axis=None)  # [features, d] of φ
    phases: jax.Array = field(axis=None)  # [features]
    count: jax.Array  # queries of each client so far
    asked: jax.Array  # of them in the last round
    n: int = static()


@pytree
class FZooS:
    """yᵢ ← yᵢ − η (∇mᵢ + (∇(φ·w) − ∇(φ·wᵢ)) / (t + 1)),  x ← mean yᵢ,  of values at few points.

    Args:
        stepsize: η ≥ 0 of local steps, one for all clients or [n, 1].
        local_steps: K ≥ 1, the local steps of a client in a round; static.
        features: M ≥ 1, of φ; static.
        lengthscale: ℓ > 0, over which functions vary, in units of x.
        memory: how many queries a client remembers; static.
        active: how many it asks beside yᵢ in a local step; static.
        candidates: among how many points drawn; static.
        initial: how many it begins with; static.
        refit: how many it asks at a round's end; static.
        radius: r > 0, of the box from which points are drawn.
        jitter: ε > 0, the variance of errors of scaled values.
        corrected: whether clients tell each other their weights; static.
    """

    stepsize: Nonnegative
    local_steps: Count = static(default=1)
    features: Count = static(default=2000)
    lengthscale: Positive = 1.0
    memory: Count = static(default=120)
    active: Count = static(default=4)
    candidates: Count = static(default=60)
    initial: Count = static(default=10)
    refit: Count = static(default=10)
    radius: Radius = 0.05
    jitter: Positive = 1e-6
    corrected: bool = static(default=True)
    needs: ClassVar[set[str]] = {"server", "all", "values"}
    axes: ClassVar = {**LINK_AXES, **QUERY_AXES}

    def offsets(self, key: jax.Array, count: int, like: jax.Array) -> jax.Array:
        """Return points in the box −1 ... 1 for the clients' y [n, d], [n, count, d]."""
        shape = (len(like), count, like.shape[1])
        return jax.random.uniform(jax.random.fold_in(key, DRAWN), shape, like.dtype, -1, 1)

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at the mean of x0's rows, with φ drawn and nothing asked."""
        x, n = common(x0), len(x0)
        points = jnp.zeros((n, self.memory, x.size), x.dtype)
        weights = jnp.zeros((n, self.features), x.dtype)
        drawn = surrogate.draw(key, self.features, x)
        none = jnp.zeros((), jnp.int32)
        return State(x, points, points[:, :, 0], weights, *drawn, none, none, n)

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one round."""
        clients, steps = participants(problem, network), self.local_steps
        features = surrogate.Features(state.frequencies, state.phases, self.lengthscale)
        x = clients.share(state.server)
        differences = clients.share(clients.mean(state.weights)) - state.weights
        ends, first = jax.random.fold_in(key, steps), jax.random.fold_in(key, steps + 1)

        def begin(known: Queries) -> Queries:
            around = x[:, None] + self.radius * self.offsets(first, self.initial, x)
            return known.ask(around, clients, first)

        def local(carry: tuple[jax.Array, Queries], t: jax.Array) -> tuple[Any, None]:
            y, known = carry
            step_key = jax.random.fold_in(key, t)
            process = known.process(self.lengthscale, self.jitter)
            direction = jax.vmap(surrogate.Process.gradient)(process, y)
            if self.corrected:
                direction += jax.vmap(features.gradient)(y, differences) / (t + 1).astype(y.dtype)
            y = y - self.stepsize * direction
            around = y[:, None] + self.radius * self.offsets(step_key, self.candidates, y)
            chosen = _least_known(process, around, self.active)
            return (y, known.ask(jnp.concatenate([y[:, None], chosen], 1), clients, step_key)), None

        known = Queries(state.points, state.values, state.count)
        known = jax.lax.cond(state.count == 0, begin, lambda known: known, known)
        (y, known), _ = jax.lax.scan(local, (x, known), jnp.arange(steps))
        server = state.server + clients.mean(y - x)
        center = clients.share(server)
        reach = clients.mean(agents.norms(center - y))[0] / 2
        around = center[:, None] + reach * self.offsets(ends, self.candidates, y)
        process = known.process(self.lengthscale, self.jitter)
        known = known.ask(_least_known(process, around, self.refit), clients, ends)
        of_each = jax.vmap(features.weights, (0, 0, None, None))
        weights = of_each(known.points, known.values, known.present, self.jitter)
        drawn = state.frequencies, state.phases
        counts = known.count, known.count - state.count
        return State(server, known.points, known.values, weights, *drawn, *counts, state.n)

    def cost(self, state: State, problem: Any, network: Any) -> Cost:
        """Count the queries, and y and wᵢ up, x and w down."""
        bits = vector_bits(state.x) + FLOAT * self.features * self.corrected
        return Cost(samples(problem) * state.asked, 1, 1, bits, calls=state.asked)


@pytree
class Queries:
    """What the clients remember."""

    points: jax.Array  # [n, memory, d], the newest in the end
    values: jax.Array  # [n, memory]
    count: jax.Array  # so far

    @property
    def present(self) -> jax.Array:
        """Where there is a query, [memory] bool."""
        memory = self.values.shape[1]
        return jnp.arange(memory, dtype=jnp.int32) >= memory - self.count

    def ask(self, points: jax.Array, clients: Clients, key: jax.Array) -> "Queries":
        """Return them after values of the same samples at points [n, m, d]."""
        m, memory = points.shape[1], self.values.shape[1]
        require(m <= memory, f"memory is {memory} and {m} queries are asked at once; give {m}.")
        parts = (self.points, points), (self.values, clients.value(points, key))
        last = (jnp.concatenate([old[:, m:], new], axis=1) for old, new in parts)
        kept, values = last
        return Queries(kept, values, self.count + m)

    def process(self, lengthscale: Any, jitter: Any) -> surrogate.Process:
        """Return every client's posterior, all fields with a first axis of clients."""

        def one(points: jax.Array, values: jax.Array) -> surrogate.Process:
            return surrogate.fit(points, values, self.present, lengthscale, jitter)

        return jax.vmap(one)(self.points, self.values)


def _least_known(process: surrogate.Process, around: jax.Array, count: int) -> jax.Array:
    """Return those of the points [n, candidates, d] whose slopes are least known, [n, count, d]."""
    drawn = around.shape[1]
    require(count <= drawn, f"candidates is {drawn} and {count} are asked; give at least {count}.")

    def one(process: surrogate.Process, around: jax.Array) -> jax.Array:
        return around[jax.lax.top_k(process.uncertainty(around), count)[1]]

    return jax.vmap(one)(process, around)
