"""What federated methods share: who takes part in a round, and the clients' local work.

Work follows those who take part: where the network names them (`Server.clients`, at most s of n),
their rows are gathered, computed on as [s, ...] and put back; where it only masks, all n work and
the mask says whose counts. A network without either has full participation.

**Weights.** For F = Σᵢ pᵢ fᵢ (``weights="samples"``: pᵢ = mᵢ/m) clients step along the gradients of
their own fᵢ, and the server weighs what they send, as in McMahan et al. (2017):

    (1/|S|) Σ_{i ∈ S} uᵢ  stands for  Σ_{i ∈ S} pᵢ uᵢ / Σ_{i ∈ S} pᵢ,      the `Clients.mean`,
    (1/n) Σ_{i ∈ S} uᵢ    stands for  Σ_{i ∈ S} pᵢ uᵢ,                     `Clients.total` over n,

in all federated methods; with pᵢ = 1/n they are what they say.
"""

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from jaxdopt import agents
from jaxdopt._checks import require
from jaxdopt._numbers import Number
from jaxdopt._pytree import pytree, static
from jaxdopt.aggregators.messages import shrinking
from jaxdopt.optimizers import OfRow, of_row
from jaxdopt.problems.problem import Part, divides
from jaxdopt.roles import offers

T = TypeVar("T")

Steps = Annotated[Any, Number(minimum=1.0)]
"""How many local steps each client takes, [n, 1]."""

Shared = Annotated[Any, Number(minimum=0.0, shared=True)]
"""A `Nonnegative` number that is the same for all clients."""


@pytree
class Clients:
    """Those who take part in a round; a row [s, ...] each, whose arrays are of the same order."""

    problem: Any  # theirs alone, of s agents
    index: Any  # [s] int: their numbers, n and more on the padding; None for all n in order
    mask: Any  # [s] bool: who really takes part; None for all
    n: int = static()
    shares: Any = None  # [s]: their weights n pᵢ in the objective; None where all are 1
    network: Any = None  # whose rule takes the mean's place, where some lie; else None

    def grad(self, x: jax.Array, key: jax.Array) -> jax.Array:
        """Return the gradient of each one's own fᵢ at its row, [s, d] -> [s, d]."""
        g = self.problem.grad(x, key)
        if self.shares is None:
            return g
        column, leaves = self._column(g.dtype), getattr(self.problem, "leaves", None)
        return g / column if leaves is None else leaves.map(lambda leaf: leaf / column, g)

    def value(self, x: jax.Array, key: jax.Array) -> jax.Array:
        """Return each one's own fᵢ at its row, [s, d] -> [s]; or at rows, [s, m, d] -> [s, m]."""
        f = self.problem.value(x, key)
        if self.shares is None:
            return f
        return f / jnp.asarray(self.shares, f.dtype).reshape(-1, *(1,) * (f.ndim - 1))

    def own(self, values: T) -> T:
        """Return their rows of leaves [n, ...]; single numbers stay as they are."""
        if self.index is None:
            return values
        return jax.tree.map(
            lambda leaf: leaf if jnp.ndim(leaf) == 0 else jnp.asarray(leaf)[self.index], values
        )

    def share(self, value: jax.Array) -> jax.Array:
        """Return the server's [d] as a row for each of them, [s, d]."""
        return jnp.broadcast_to(value, (self.problem.n, *value.shape))

    def keep(self, old: T, rows: T) -> T:
        """Return ``old``, leaves [n, ...], with the rows of those who take part replaced."""
        if self.index is not None:
            return agents.put(old, self.index, rows)
        return rows if self.mask is None else agents.select(self.mask, rows, old)

    def weigh(self, rows: jax.Array) -> jax.Array:
        """Return n pᵢ times each row of [s, d]."""
        return rows if self.shares is None else self._column(rows.dtype) * rows

    def sum(self, rows: jax.Array) -> jax.Array:
        """Return the plain sum over those who take part, [s, d] -> [d]."""
        if self.mask is not None:
            rows = agents.select(self.mask, rows, jnp.zeros_like(rows))
        return rows.sum(axis=0)

    def total(self, rows: jax.Array) -> jax.Array:
        """Return Σ n pᵢ rowᵢ over those who take part, [s, d] -> [d]."""
        return self.sum(self.weigh(rows))

    def mean(self, rows: jax.Array) -> jax.Array:
        """Return Σ pᵢ rowᵢ / Σ pᵢ over those who take part, [s, d] -> [d]; 0 if there are none.

        Where some lie it is the network's rule of these rows, all of the same weight.
        """
        if self.network is not None:
            return self.network.aggregate(rows, self.index, self.mask)
        weight = self.total(jnp.ones((len(rows), 1), rows.dtype))
        return self.total(rows) / jnp.where(self.number > 0, weight, 1)

    @property
    def number(self) -> jax.Array:
        """How many take part."""
        return jnp.asarray(self.n) if self.mask is None else self.mask.sum()

    def _column(self, dtype: Any) -> jax.Array:
        return jnp.asarray(self.shares, dtype)[:, None]


class Central:
    """What the states of federated methods share: one estimate, the server's, for all n clients."""

    server: Any  # [d]
    n: Any

    @property
    def x(self) -> jax.Array:
        """The server's estimate as a row for every client, [n, d]."""
        rows = (*self.server.shape[:-1], self.n, self.server.shape[-1])
        return jnp.broadcast_to(self.server[..., None, :], rows)

    @property
    def estimate(self) -> jax.Array:
        """The server's estimate, [d]."""
        return self.server


def common(x0: jax.Array) -> jax.Array:
    """Return the mean of x0's rows, [n, d] -> [d], exactly where they are equal."""
    return x0[0] + agents.average(x0 - x0[:1])


def participants(problem: Any, network: Any) -> Clients:
    """Return who takes part in this round."""
    index = getattr(network, "clients", None)
    if index is not None and divides(problem):
        theirs, mask = problem.take(index), index < problem.n
    elif hasattr(network, "stale"):  # of those who come back each has a model of its own
        theirs, mask = Part(problem, index), index < problem.n
    else:
        theirs, index, mask = problem, None, getattr(network, "active", None)
    rule = None if "sum" in offers(network) else network
    return Clients(theirs, index, mask, problem.n, getattr(theirs, "shares", None), rule)


def everyone(problem: Any) -> Clients:
    """Return all agents of a problem, each of which works from a row of its own."""
    return Clients(problem, None, None, problem.n)


def clipped(rows: jax.Array, most: Any) -> jax.Array:
    """Return rows [s, d] min(1, most / |row|), ``most`` a number or [s, 1]; None clips nothing.

    A row of zeros stays as it is, and has a slope: that of the identity.
    """
    if most is None:
        return rows
    return rows * shrinking(jnp.sum(rows**2, axis=1, keepdims=True), most)


def require_own_steps(method: Any) -> None:
    """Refuse a method's ``own_steps`` above its ``local_steps``."""
    own = method.own_steps
    require(
        own is None or callable(own) or jnp.max(own) <= method.local_steps,
        f"own_steps is {own}; give at most local_steps = {method.local_steps}.",
    )


class Work(NamedTuple):
    """What local steps of s clients have led to."""

    y: jax.Array  # [s, d] where they ended
    mean: jax.Array  # [s, d] the mean of the gradients they met
    memory: Any  # of their optimizers, a row each


def descend(
    clients: Clients,
    start: jax.Array,
    stepsize: Any,
    steps: int,
    key: jax.Array,
    direction: Callable[[jax.Array, jax.Array], jax.Array] = lambda _, g: g,
    *,
    own_steps: Any = None,
    optimizer: Any = None,
    memory: Any = None,
) -> Work:
    """Return where local steps y ← y − η direction(y, gᵢ(y)) lead, and the mean gradient met.

    Args:
        clients: who works; gᵢ is of each one's own fᵢ where they know their ``shares``.
        start: [s, d], a row each.
        stepsize: η, a number or [n, 1].
        steps: how many, K.
        key: step l's samples come from ``fold_in(key, l)``.
        direction: of (y, g), both [s, d]; the gradient itself by default.
        own_steps: Kᵢ ≤ K, [n, 1], after which a client stands still; K by default.
        optimizer: an optax transformation of one client's directions.
        memory: what it remembers, a row of each client; it is begun anew by default.
    """
    stepsize, own_steps = clients.own(stepsize), clients.own(own_steps)
    leaves = getattr(clients.problem, "leaves", None)
    local = of_row(optimizer, leaves)
    split = (lambda rows: [rows]) if leaves is None else leaves.split
    if memory is None:
        memory = jax.vmap(local.init)(start)

    def one(carry: tuple[Any, ...], step: jax.Array) -> tuple[Any, None]:
        parts, total, memory = carry
        y = jnp.concatenate(parts, axis=-1)
        g = clients.grad(y, jax.random.fold_in(key, step))
        along, new = jax.vmap(local.update)(direction(y, g), memory, y)
        if own_steps is not None:
            working = step < own_steps[:, 0]
            g, along = (agents.select(working, rows, jnp.zeros_like(rows)) for rows in (g, along))
            new = agents.select(working, new, memory)
        parts = [y - stepsize * u for y, u in zip(parts, split(along), strict=True)]
        return (parts, total + g, new), None

    (parts, total, memory), _ = jax.lax.scan(
        one, (split(start), jnp.zeros_like(start), memory), jnp.arange(steps)
    )
    y = jnp.concatenate(parts, axis=-1)
    return Work(y, total / (steps if own_steps is None else own_steps), memory)


def serve(
    clients: Clients, server: jax.Array, stepsize: Any, update: jax.Array, outer: OfRow, memory: Any
) -> tuple[jax.Array, Any]:
    """Return the server's model after a step, x − η_g u, and its optimizer's memory.

    u is the direction of the optimizer for ``update``, [d]. Without participants nothing moves.
    """
    along, new = outer.update(update, memory, server)
    along, memory = jax.tree.map(
        lambda after, before: jnp.where(clients.number > 0, after, before),
        (along, new),
        (jnp.zeros_like(along), memory),
    )
    return server - stepsize * along, memory


def visit(
    state: Any,
    problem: Any,
    network: Any,
    stepsize: Any,
    steps: int,
    key: jax.Array,
    own_steps: Any = None,
) -> tuple[Clients, jax.Array, jax.Array]:
    """Return who comes back to a server that does not wait, and what each has done meanwhile.

    Args:
        state: with ``server`` [d], and ``sent`` [n, d], the model that every client fetched last.
        problem: whose gradients are taken.
        network: the round of a `jd.networks.arrivals`.
        stepsize: as in `descend`, and so are ``steps``, ``key`` and ``own_steps``.
        steps: how many local steps.
        key: of the samples.
        own_steps: of each client.

    Returns:
        The clients, how far local steps took them from what they had fetched, and the mean gradient
        they met, both [s, d].
    """
    clients = participants(problem, network)
    start = network.fetched(state.sent, state.server)
    work = descend(clients, start, stepsize, steps, key, own_steps=own_steps)
    return clients, work.y - start, work.mean
