"""The problem's contract, and its two simplest forms: oracles, and gradients that the user takes.

The objective is F(x) = Σᵢ pᵢ fᵢ(x), with fᵢ the mean over agent i's samples plus (l2/2)|x|², and
pᵢ = 1/n, or mᵢ/m with ``weights="samples"``. ``grad`` returns n pᵢ ∇fᵢ, so that the plain mean over
agents is always ∇F and decentralized methods need not know the weights. A server knows them: from
the ``shares`` n pᵢ its clients recover ∇fᵢ, along which they step, and it weighs what they send.
`Composite` adds a regularizer r(x), which is not part of the gradients: methods use its `prox`.

``value`` returns n pᵢ fᵢ likewise, at one point of every agent or at several of the same samples.

The smallest problem is any object with ``n``, ``d`` and ``grad(x, key)``, or ``value(x, key)`` for
methods that ask for values; without ``shares`` all agents have the same weight.
"""

from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxdopt import _repr
from jaxdopt._checks import require
from jaxdopt._opaque import traceable
from jaxdopt._pytree import pytree, static
from jaxdopt._wrapper import layers
from jaxdopt.problems.gradients import require_gradient
from jaxdopt.problems.layout import Layout
from jaxdopt.problems.samples import as_numbers


class Problem(Protocol):
    """What every problem has; `run` also uses the objective and known facts where there are any."""

    @property
    def n(self) -> int:
        """The number of agents."""
        ...

    @property
    def d(self) -> int:
        """The number of parameters."""
        ...

    def grad(self, x: jax.Array, key: jax.Array) -> jax.Array:
        """Return every agent's gradient at its own row, [n, d] -> [n, d].

        The same key draws the same samples.
        """
        ...


class Parametrized:
    """What problems share whose agents answer questions about a pytree of parameters."""

    origin: Any  # [d]
    layout: Any
    n: Any

    @property
    def d(self) -> int:
        """The number of parameters."""
        return self.layout.d

    @property
    def leaves(self) -> Layout:
        """The leaves of the parameters, for what is done layer by layer."""
        return self.layout

    def start(self, params: Any = None) -> jax.Array:
        """Return x0 [n, d]: the same parameters for all agents, or rows of them."""
        row = self.origin if params is None else self.layout.ravel(params)
        return jnp.broadcast_to(row, (self.n, self.d))

    def ravel(self, params: Any) -> jax.Array:
        """Return a parameter pytree as a row [d]."""
        return self.layout.ravel(params)

    def unravel(self, row: jax.Array) -> Any:
        """Return the parameter pytree of a row [d]."""
        return self.layout.unravel(row)


@pytree
class Oracle(Parametrized):
    """Agents of which only gradients are known: simulators, streams, neural networks with dropout.

    Args:
        gradient: ``gradient(params, agent_data, key) -> gradient`` for one agent, of the shape of
            ``params``; called under vmap over agents, each with its own key.
        data: a pytree with leaves [n, ...], or None with ``agents``.
        params: the starting parameters, a pytree of floating arrays.
        agents: the number of agents, needed only without data.

    Raises:
        ValueError: leaves that disagree about n, or a gradient that fails, has other shapes than
            the parameters, or is identically zero for some of them.
    """

    gradient: Any
    data: Any
    origin: Any  # [d]
    samples: Any  # 1: a call of the oracle counts as one component gradient
    layout: Layout = static()
    n: int = static()

    def __init__(
        self,
        gradient: Callable[..., Any],
        data: Any,
        params: Any,
        *,
        agents: int | None = None,
    ) -> None:
        require(callable(gradient), "gradient is not callable; give gradient(params, data, key).")
        data, n = agents_of(data, agents)
        layout = Layout.of(params)
        values = (traceable(gradient), data, layout.ravel(params), 1.0, layout, n)
        names = ("gradient", "data", "origin", "samples", "layout", "n")
        for name, value in zip(names, values, strict=True):
            object.__setattr__(self, name, value)
        params = layout.unravel(self.origin)
        mine = jax.tree.map(lambda leaf: leaf[0], data), jax.random.key(0)
        require_gradient("the oracle", self.gradient, layout, params, *mine, may_vanish=True)

    def _facts(self) -> dict[str, str]:
        return {
            "agents": str(self.n),
            "dimension": str(self.d),
            "gradient": _repr.brief(self.gradient),
            "memory": _repr.memory(self),
        }

    def grad(self, x: jax.Array, key: jax.Array) -> jax.Array:
        """Return every agent's answer at its own row, [n, d] -> [n, d]."""

        def answer(row: jax.Array, data: Any, key: jax.Array) -> jax.Array:
            return self.layout.ravel(self.gradient(self.layout.unravel(row), data, key))

        return jax.vmap(answer)(x, self.data, jax.random.split(key, self.n))


def agents_of(data: Any, agents: int | None) -> tuple[Any, int]:
    """Return agents' data with leaves [n, ...], or None, and n."""
    data = jax.tree.map(_as_data, data)
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(data)]
    counts = {shape[0] if shape else None for shape in shapes} or {agents}
    n = next(iter(counts))
    require(
        len(counts) == 1 and isinstance(n, int | np.integer) and n > 0,
        f"the data's leaves have shapes {shapes}; give every leaf the same number of agents as "
        "its first axis, or agents= where there is no data.",
    )
    n = int(n)  # type: ignore[arg-type]
    require(agents in (None, n), f"agents is {agents}, and the data is for {n}; drop agents.")
    return data, n


def _as_data(leaf: Any) -> Any:
    return leaf if isinstance(leaf, jax.Array) else as_numbers("a data leaf", leaf, True)


@pytree
class Given:
    """Gradients [n, d] that the user has computed at ``state.x``, for one step of a method.

    Args:
        gradients: one row for each agent.

    Raises:
        ValueError: this is no array [n, d] of floating numbers.
    """

    gradients: Any

    def __post_init__(self) -> None:
        """Check that there is one row of numbers an agent."""
        gradients = self.gradients
        if not isinstance(gradients, jax.Array):
            gradients = as_numbers("gradients", gradients)
            object.__setattr__(self, "gradients", gradients)
        require(
            gradients.ndim == 2 and jnp.issubdtype(gradients.dtype, jnp.floating),
            f"gradients has shape {gradients.shape} and dtype {gradients.dtype}; give floating "
            "numbers [n, d], one row an agent.",
        )

    @property
    def n(self) -> int:
        """The number of agents."""
        return self.gradients.shape[0]

    @property
    def d(self) -> int:
        """The number of parameters."""
        return self.gradients.shape[1]

    def grad(self, x: jax.Array, key: Any = None) -> jax.Array:
        """Return the given gradients."""
        require(
            np.shape(x) == np.shape(self.gradients),
            f"the gradients have shape {np.shape(self.gradients)} and the estimates "
            f"{np.shape(x)}; give one gradient row an agent.",
        )
        return self.gradients


def proximal(problem: Any, z: jax.Array, t: Any) -> jax.Array:
    """Return proxₜᵣ(z) with the problem's regularizer r, or z itself where it has none."""
    return problem.prox(z, t) if hasattr(problem, "prox") else z


def divides(problem: Any) -> bool:
    """Return whether a problem, and all that it wraps, has ``take``, the problem of some agents."""
    return all(hasattr(layer, "take") for layer in layers(problem))


@pytree
class Part:
    """Some agents [s] of a problem without ``take``, each at its own row.

    An agent may occur twice. For every row the gradients of all n agents are computed and one kept.
    """

    problem: Any
    agents: Any  # [s] int; n and beyond are padding

    @property
    def n(self) -> int:
        """The number of agents, s."""
        return self.agents.shape[0]

    @property
    def shares(self) -> Any:
        """The weights n pᵢ of these agents, [s], or None."""
        shares = getattr(self.problem, "shares", None)
        return None if shares is None else jnp.asarray(shares).at[self.agents].get(mode="clip")

    @property
    def leaves(self) -> Any:
        """The leaves of the parameters, or None."""
        return getattr(self.problem, "leaves", None)

    def grad(self, x: jax.Array, key: Any) -> jax.Array:
        """Return the agents' gradients at their own rows, [s, d] -> [s, d]."""

        def one(agent: jax.Array, row: jax.Array) -> jax.Array:
            rows = jnp.broadcast_to(row, (self.problem.n, *row.shape))
            return self.problem.grad(rows, key).at[agent].get(mode="clip")

        return jax.vmap(one)(self.agents, x)


def partial_gradients(problem: Any, agents: jax.Array, x: jax.Array, key: Any) -> jax.Array:
    """Return the gradients of some agents [s] at their rows x, [s, d] -> [s, d].

    With ``take`` only their work is done. Indices n and above are padding, of arbitrary rows.
    """
    if divides(problem):
        return problem.take(agents).grad(x, key)
    rows = jnp.zeros((problem.n, *x.shape[1:]), x.dtype)
    rows = rows.at[agents].set(x, mode="drop", unique_indices=True)
    return problem.grad(rows, key).at[agents].get(mode="clip")
