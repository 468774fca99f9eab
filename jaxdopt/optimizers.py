"""Optax's optimizers inside methods: their numbers as leaves, and rows of agents in their hands.

A method takes a transformation without a learning rate, a field `Transformation`. Its numbers are
swept where `optimizer` has made it. `of_row` hands it one agent's row [d] as the pytree that the
problem's parameters are: layer-wise rules (Muon, LAMB, masked weight decay) see real shapes.
"""

import contextlib
import functools
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdopt import _repr
from jaxdopt._checks import count, require
from jaxdopt._leaves import is_traced
from jaxdopt._opaque import Identity, Opaque, disclose, enclose
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


def _nesterov(decay: Any) -> Any:
    import optax

    return optax.trace(decay, nesterov=True)


def nesterov(decay: float) -> Optimizer:
    """Return ``optax.trace(decay, nesterov=True)``, m ← g + β m and the direction g + β m.

    The decay β is a leaf, and Optax is loaded when it is needed.
    """
    return Optimizer(_nesterov, {"decay": decay})


def delayed_nesterov(decay: Any, every: int) -> Any:
    """Return delayed Nesterov momentum, an Optax transformation for asynchronous servers.

        u = g / N;   on every N-th call  m ← β m + Σ g / N over these N,   u ← g / N + β m

    The momentum thus moves once in N updates, by their mean, and not with every stale one.

    Args:
        decay: β, of the momentum.
        every: N ≥ 1, such as the number of workers.

    Source: Liu, Chhaparia, Douillard, Kale, Rusu, Shen, Szlam, Ranzato (2024), arXiv 2401.09135.

    Raises:
        ValueError: N is not a positive integer.

    Example:
        >>> import jax.numpy as jnp
        >>> outer = delayed_nesterov(0.5, every=2)
        >>> memory, moves = outer.init(jnp.zeros(())), []
        >>> for g in (2.0, 4.0, 2.0, 4.0):
        ...     u, memory = outer.update(jnp.asarray(g), memory)
        ...     moves.append(float(u))
        >>> moves  # m is 3, and later 4.5
        [1.0, 3.5, 1.0, 4.25]
    """
    import optax

    every = count("every", every)

    def init(params: Any) -> _Delayed:
        zero = jax.tree.map(jnp.zeros_like, params)
        return _Delayed(jnp.zeros((), jnp.int32), zero, zero)

    def update(updates: Any, memory: _Delayed, params: Any = None) -> tuple[Any, _Delayed]:  # noqa: ARG001
        calls = (memory.calls + 1) % every
        last = calls == 0
        each = jax.tree.map(lambda g: g / every, updates)
        total = jax.tree.map(jnp.add, memory.total, each)
        momentum = jax.tree.map(
            lambda m, s: jnp.where(last, decay * m + s, m), memory.momentum, total
        )
        along = jax.tree.map(lambda g, m: jnp.where(last, g + decay * m, g), each, momentum)
        total = jax.tree.map(lambda s: jnp.where(last, 0, s), total)
        return along, _Delayed(calls, total, momentum)

    return optax.GradientTransformation(init, update)


class _Delayed(NamedTuple):
    """The memory of `delayed_nesterov`."""

    calls: jax.Array  # [] int32, modulo N
    total: Any  # of the updates since the momentum moved, over N
    momentum: Any


def _is_number(value: Any) -> bool:
    """Return whether a value is a leaf: floating, of any kind."""
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        return jax.numpy.issubdtype(value.dtype, jax.numpy.floating)
    return isinstance(value, float)


class _Descends:
    """The check of an optimizer: an optax transformation that does not turn gradients around."""

    kind = "optax.GradientTransformation"

    def accept(self, name: str, value: Any) -> Any:
        """Return the transformation, a pytree; with a learning rate it would point downhill."""
        remedy = "give an optax transformation without a learning rate, such as"
        require(hasattr(value, "update"), f"{name} is {value!r}; {remedy} optax.trace(0.9).")
        try:
            turns = not is_traced(value) and _turns(disclose(value))
        except jax.errors.ConcretizationTypeError as error:
            raise ValueError(
                f"{name} has a number in it that is swept or traced, which Optax's own objects do "
                "not show; give jd.optimizer(optax.trace, decay=...), whose numbers are leaves."
            ) from error
        except TypeError as error:
            raise ValueError(
                f"{name} cannot do with gradients and parameters alone ({error}), as "
                f"optax.polyak_sgd, which asks for the loss's value; {remedy} optax.trace(0.9)."
            ) from error
        require(
            not turns,
            f"{name} turns gradients around, as optax.adam(learning_rate) does, and the method "
            f"would ascend; {remedy} optax.scale_by_adam().",
        )
        return Opaque(Identity(value)) if isinstance(value, tuple) else enclose(value)


Transformation = Annotated[Any, _Descends()]
"""An optax transformation without a learning rate, or a `jd.optimizer`."""


@functools.lru_cache(maxsize=64)
def _turns(optimizer: Any) -> bool:
    """Return whether a gradient of 1 becomes negative, as far as this can be told of one number.

    An optimizer of matrices is asked for one; others that ask for a certain pytree are not known.
    """
    for shape in ((1,), (1, 1)):
        with jax.ensure_compile_time_eval(), contextlib.suppress(ValueError, KeyError):
            gradient = jnp.ones(shape)
            along, _ = optimizer.update(gradient, optimizer.init(gradient), gradient)
            return bool(jnp.ravel(along)[0] < 0)
    return False


class OfRow(NamedTuple):
    """An optimizer of rows [d], as Optax's own are of pytrees."""

    init: Callable[[jax.Array], Any]
    update: Callable[..., tuple[jax.Array, Any]]


def of_row(optimizer: Any, leaves: Any) -> OfRow:
    """Return an Optax transformation as one of a row [d] of parameters.

    Args:
        optimizer: of pytrees, or None: directions then stay as they are.
        leaves: the layout of the row, as a problem's ``leaves``; None if it is one vector.
    """
    if optimizer is None:
        return OfRow(lambda row: None, lambda updates, memory, row: (updates, memory))  # noqa: ARG005
    if leaves is None:
        return OfRow(optimizer.init, optimizer.update)

    def update(updates: jax.Array, memory: Any, row: jax.Array) -> tuple[jax.Array, Any]:
        along, memory = optimizer.update(leaves.unravel(updates), memory, leaves.unravel(row))
        return leaves.ravel(along), memory

    return OfRow(lambda row: optimizer.init(leaves.unravel(row)), update)
