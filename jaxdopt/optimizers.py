"""Optax's optimizers with their numbers as leaves: they are swept, and compile nothing anew."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxdopt import _repr
from jaxdopt._checks import require
from jaxdopt._pytree import pytree, static


@pytree
class Optimizer:
    """A transformation of gradients, made by a factory at every use; see `optimizer`.

    Args:
        factory: of ``init`` and ``update``.
        numbers: by name, leaves.
        rest: the other arguments as pairs of names and values; static.
    """

    factory: Callable[..., Any] = static()
    numbers: dict[str, Any]
    rest: tuple[tuple[str, Any], ...] = static(default=())

    def _facts(self) -> dict[str, str]:
        given = {**self.numbers, **dict(self.rest)}
        facts = {name: _repr.brief(value) for name, value in given.items()}
        return {"factory": _repr.brief(self.factory)} | facts

    def init(self, params: Any) -> Any:
        """Return the memory before the first update."""
        return self._done(lambda made: made.init(params))

    def update(self, updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        """Return what takes the place of the gradients ``updates``, and the memory after it."""
        return self._done(lambda made: made.update(updates, state, params))

    def _done(self, work: Callable[[Any], Any]) -> Any:
        """Return what comes of what the factory makes."""
        try:
            return work(self.factory(**self.numbers, **dict(self.rest)))
        except jax.errors.TracerBoolConversionError as error:
            name = _repr.brief(self.factory)
            raise ValueError(
                f"{name} decides by the value of one of {', '.join(self.numbers)} what it does, so "
                f"that no single program is for all of them; give optax.{name}(...) itself."
            ) from error


def optimizer(factory: Callable[..., Any], **numbers: Any) -> Optimizer:
    """Return an Optax transformation whose numbers are leaves: all their values are one program.

    Floats, of Python, NumPy or JAX, are traced, swept and differentiated like a method's own
    numbers. Integers, booleans and all else are static, part of the program: write 0.0 for a number
    that happens to be 0. A plain object such as ``optax.trace(0.9)`` will do as well where nothing
    is swept; every other number in it is then another program.

    Args:
        factory: a function that returns an ``optax.GradientTransformation``, such as
            ``optax.trace``. Of Optax's own, those do not work that ask for more than gradients and
            parameters, as ``optax.polyak_sgd`` does for the value of the loss.
        numbers: its arguments by name.

    Raises:
        ValueError: a factory that is none, or arguments that it refuses.

    Example:
        >>> import jax, optax
        >>> import jax.numpy as jnp
        >>> import jaxdopt as jd
        >>> problem, clients = jd.problems.quadratic(4, 3), jd.networks.Server(4)
        >>> def method(decay):
        ...     return jd.FedAvg(0.1, server=optimizer(optax.trace, decay=decay))
        >>> methods = jax.vmap(method)(jnp.array([0.5, 0.9]))
        >>> sweep = jd.sweep(jd.run, over=("algorithm",))
        >>> key = jax.random.key(0)
        >>> sweep(methods, problem, clients, problem.start(), key, steps=3).history["gap"].shape
        (2, 4)
    """
    require(
        callable(factory),
        f"factory is {_repr.brief(factory)}, no function; give one of Optax, and its arguments by "
        "name, as in jd.optimizer(optax.trace, decay=0.9).",
    )
    try:
        found = factory(**numbers)
    except TypeError as error:
        raise ValueError(
            f"{_repr.brief(factory)} fails with {', '.join(numbers) or 'no arguments'} "
            f"({str(error).rstrip('.')}); give its arguments by name."
        ) from error
    require(
        hasattr(found, "init") and hasattr(found, "update"),
        f"{_repr.brief(factory)} returns {_repr.brief(found)}, which has no init and update; give "
        "an Optax function such as optax.trace.",
    )
    leaves = {name: value for name, value in numbers.items() if _is_number(value)}
    rest = tuple((name, value) for name, value in numbers.items() if name not in leaves)
    return Optimizer(factory, leaves, rest)


def _is_number(value: Any) -> bool:
    """Return whether a value is a leaf: floating, of any kind."""
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        return jax.numpy.issubdtype(value.dtype, jax.numpy.floating)
    return isinstance(value, float)
