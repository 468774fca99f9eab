"""Agents that can be asked for values alone."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxdopt import _repr
from jaxdopt._checks import require
from jaxdopt._opaque import traceable
from jaxdopt._pytree import pytree, static
from jaxdopt.problems.gradients import traced
from jaxdopt.problems.layout import Layout
from jaxdopt.problems.problem import Parametrized, agents_of


@pytree
class BlackBox(Parametrized):
    """Agents of which only values fᵢ(x) are known: simulators, experiments, hyperparameters.

    It has no gradients: methods that need some run on `ZerothOrder` of it.

    Args:
        function: ``function(params, agent_data, key) -> scalar`` for one agent; called under vmap
            over agents, each with its own key, which is the same for all points that it is asked
            for at once.
        data: a pytree with leaves [n, ...], or None with ``agents``.
        params: the starting parameters, a pytree of floating arrays.
        agents: the number of agents, needed only without data.

    Raises:
        ValueError: leaves that disagree about n, or a function that fails or does not return one
            floating number.

    Example:
        >>> def distance(x, center, key):
        ...     return jnp.abs(x - center).sum() + jax.random.normal(key)
        >>> problem = BlackBox(distance, jnp.arange(6.0).reshape(3, 2), jnp.zeros(2))
        >>> key, points = jax.random.key(0), jnp.zeros((3, 5, 2))
        >>> values = problem.value(points, key)
        >>> values.shape, bool(jnp.all(values[:, 0] == problem.value(points[:, 0], key)))
        ((3, 5), True)
    """

    function: Any
    data: Any
    origin: Any  # [d]
    samples: Any  # 1: a value counts as one component gradient
    layout: Layout = static()
    n: int = static()

    def __init__(
        self,
        function: Callable[..., Any],
        data: Any,
        params: Any,
        *,
        agents: int | None = None,
    ) -> None:
        require(callable(function), "function is not callable; give function(params, data, key).")
        data, n = agents_of(data, agents)
        layout = Layout.of(params)
        values = (traceable(function), data, layout.ravel(params), 1.0, layout, n)
        names = ("function", "data", "origin", "samples", "layout", "n")
        for name, value in zip(names, values, strict=True):
            object.__setattr__(self, name, value)
        mine = jax.tree.map(lambda leaf: leaf[0], data), jax.random.key(0)
        _, given = traced("the function", self.function, layout.unravel(self.origin), *mine)
        shape, dtype = (getattr(given, name, None) for name in ("shape", "dtype"))
        require(
            shape == () and jnp.issubdtype(given.dtype, jnp.floating),
            f"the function returns {type(given).__name__} of shape {shape} and dtype {dtype}; "
            "return one floating number.",
        )

    def _facts(self) -> dict[str, str]:
        return {
            "agents": str(self.n),
            "dimension": str(self.d),
            "function": _repr.brief(self.function),
            "memory": _repr.memory(self),
        }

    def value(self, x: jax.Array, key: jax.Array) -> jax.Array:
        """Return fᵢ at every agent's own row, [n, d] -> [n]; or at rows, [n, m, d] -> [n, m]."""

        def answer(row: jax.Array, data: Any, key: jax.Array) -> jax.Array:
            return self.function(self.layout.unravel(row), data, key)

        points = x.reshape(self.n, -1, self.d)
        asked = jax.vmap(jax.vmap(answer, (0, None, None)))
        return asked(points, self.data, jax.random.split(key, self.n)).reshape(x.shape[:-1])
