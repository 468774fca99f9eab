"""Frozen dataclasses that are JAX pytrees: algorithms, problems, networks and states are such."""

import dataclasses
import functools
import inspect
import math
import numbers
import typing
from collections.abc import Callable
from typing import Annotated, Any, TypeVar, dataclass_transform

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxdopt import roles

T = TypeVar("T")


def static(**options: Any) -> Any:
    """Mark a field as part of the program rather than of its data.

    A static field is hashed and compared, never traced: changing it compiles anew. Use it for what
    changes the program (a count that sets a shape or a loop's length, a choice of form), never for
    numbers. ``options`` go to ``dataclasses.field``.
    """
    return dataclasses.field(metadata={"static": True}, **options)


def field(*, axis: int | None, **options: Any) -> Any:
    """Say of a State's field which axis of its arrays is the agents', or None if it is nobody's.

    Without it a first axis of n is the agents'. Those who sleep keep their rows of it.
    """
    return dataclasses.field(metadata={"axis": axis}, **options)


def is_traced(tree: Any) -> bool:
    """Return whether some leaf has no value yet, as inside jit, vmap or grad."""
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(tree))


def require(condition: Any, message: str) -> None:
    """Raise ``ValueError(message)`` if ``condition`` is false; stay silent for traced values.

    Example:
        >>> require(2 > 1, "never raised")
    """
    if not is_traced(condition) and not condition:
        raise ValueError(message)


@dataclasses.dataclass(frozen=True)
class Number:
    """The annotation of a number field: a scalar, or one number an agent with shape ``[n, 1]``."""

    minimum: float = -math.inf
    maximum: float = math.inf
    above: float = -math.inf
    optional: bool = False  # None is taken, for a default that the method works out itself

    def accept(self, name: str, value: Any) -> Any:
        """Return the value in the form it is stored in, or raise a sentence with the remedy."""
        if value is None and self.optional:
            return None
        if callable(value):
            return value if isinstance(value, Scheduled) else Scheduled.of(value, name, self)
        value = self.form(name, value)
        if not is_traced(value):
            known = np.asarray(value)  # as a JAX array's own methods are traced under jit
            total = float(known.min()) + float(known.max())
            require(math.isfinite(total), f"{name} is {total}; give a finite number.")
            self.require_range(name, value)
        return value

    def form(self, name: str, value: Any) -> Any:
        """Return a real number as a float, or as a floating array of a shape that is accepted."""
        if isinstance(value, bool | np.bool_):
            raise ValueError(f"{name} is {value}, a boolean; give a number.")
        if isinstance(value, numbers.Real):
            return float(value)
        if not isinstance(value, jax.Array | np.ndarray):
            raise ValueError(f"{name} is {value!r}; give a number, an array or a schedule.")
        self._require_shape(name, np.shape(value))
        require(
            not jnp.issubdtype(value.dtype, jnp.complexfloating),
            f"{name} is a complex array; give real numbers.",
        )
        require(value.dtype != bool, f"{name} is a boolean array; give numbers.")
        return value if jnp.issubdtype(value.dtype, jnp.floating) else value.astype(float)

    def require_range(self, name: str, value: Any) -> None:
        """Refuse numbers out of range where they are known; NaN is not."""
        if not is_traced(value):
            least, most = float(np.min(np.asarray(value))), float(np.max(np.asarray(value)))
            remedy = f"give at least {self.minimum:g}"
            require(not least < self.minimum, f"{name} is {least:g}; {remedy}.")
            require(not least <= self.above, f"{name} is {least:g}; give more than {self.above:g}.")
            require(not most > self.maximum, f"{name} is {most:g}; give at most {self.maximum:g}.")

    def _require_shape(self, name: str, shape: tuple[int, ...]) -> None:
        require(
            shape == () or (len(shape) == 2 and shape[1] == 1),
            f"{name} has shape {shape}; give a scalar, one number an agent as an [n, 1] array, "
            f"or sweep with jax.vmap(Method)(values).",
        )


Scalar = Annotated[Any, Number()]
"""A number that can be traced, swept and differentiated, or a schedule of the step."""

Nonnegative = Annotated[Any, Number(minimum=0.0)]
"""A `Scalar` that is at least 0, such as a stepsize."""

Positive = Annotated[Any, Number(above=0.0)]
"""A `Scalar` above 0, such as an offset that something is divided by."""

Fraction = Annotated[Any, Number(minimum=0.0, maximum=1.0)]
"""A `Scalar` between 0 and 1, such as a relaxation or a probability."""


@dataclass_transform(frozen_default=True, eq_default=False, field_specifiers=(static, field))
def pytree(cls: type[T]) -> type[T]:
    """Make a class a frozen dataclass whose fields are the leaves of a pytree.

    Fields marked `static` belong to the program; all others are data: traced by jit, batched by
    vmap, differentiated by grad. Number fields (annotated ``float``, `Scalar`,
    `Nonnegative` or `Fraction`) are
    checked when a user constructs the object, Python ints in them become floats, and any callable
    of the step is accepted as a schedule (resolve it with `at`); ``Positive | None`` takes None
    too. A subclass keeps the checks of its bases, which run before its own. JAX rebuilds the object
    without running any check.

    A method, that is a class with ``init`` and ``step``, that says what it ``needs`` is checked
    against the network and the problem by ``init``, and its ``step`` leaves those who sleep as
    they were: see `jaxdopt.roles`.

    Example:
        >>> import jax
        >>> @pytree
        ... class Damped:
        ...     stepsize: Nonnegative
        ...     rounds: int = static(default=1)
        >>> jax.tree.leaves(Damped(stepsize=1))
        [1.0]
    """
    checks = number_fields(cls)
    cls._own_check = cls.__dict__.get("__post_init__")  # type: ignore[attr-defined]
    more = [base.__dict__.get("_own_check") for base in reversed(cls.__mro__)]
    more = [check for check in more if check is not None]

    def check(self: Any, changed: Any) -> None:
        for name in checks.keys() & changed:
            object.__setattr__(self, name, checks[name].accept(name, getattr(self, name)))
        for own in more:
            own(self)

    if checks or more:
        cls.__post_init__ = lambda self: check(self, set(checks))  # type: ignore[attr-defined]
        cls._check_changed = check  # type: ignore[attr-defined]
    if getattr(cls, "needs", None) is not None:
        roles.play(cls, distinct)
    own = cls.__dict__.get("__init__") is not None
    by_hand = own or getattr(cls, "_by_hand", False)  # a constructor that a base has written
    cls._by_hand = by_hand  # type: ignore[attr-defined]
    cls = dataclasses.dataclass(frozen=True, eq=False, init=own or not by_hand)(cls)  # type: ignore[assignment]
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]
    data = tuple(f.name for f in fields if not f.metadata.get("static"))
    program = tuple(f.name for f in fields if f.metadata.get("static"))

    def flatten_with_keys(self: Any) -> tuple[Any, Any]:
        return (
            [(jax.tree_util.GetAttrKey(name), getattr(self, name)) for name in data],
            tuple(getattr(self, name) for name in program),
        )

    def flatten(self: Any) -> tuple[Any, Any]:
        return [getattr(self, name) for name in data], tuple(getattr(self, n) for n in program)

    def unflatten(static_values: Any, children: Any) -> Any:
        self = object.__new__(cls)
        for name, value in zip(data, children, strict=True):
            object.__setattr__(self, name, value)
        for name, value in zip(program, static_values, strict=True):
            object.__setattr__(self, name, value)
        return self

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
    return cls


def replace_checked(instance: T, **changes: Any) -> T:
    """Return a copy with some fields changed, checked as when a user constructs one.

    Numbers are checked and stored as the constructor does, and what the class itself asks of its
    fields is asked of all of them together. Nothing is checked of traced values.

    Example:
        >>> import jaxdopt as jd
        >>> jd.replace(jd.DGD(0.1), stepsize=1).stepsize
        1.0

    Raises:
        ValueError: a field that there is not, or a value that the constructor refuses.
    """
    new = replace(instance, **changes)
    if hasattr(type(new), "_check_changed"):
        type(new)._check_changed(new, set(changes))  # type: ignore[attr-defined]
    return new


def replace(instance: T, **changes: Any) -> T:
    """Return a copy with some fields changed, unchecked: for values that the library has made."""
    new = object.__new__(type(instance))
    for name, value in vars(instance).items():
        object.__setattr__(new, name, value)
    for name, value in changes.items():
        if name not in vars(instance):
            known = ", ".join(vars(instance))
            raise ValueError(f"{type(instance).__name__} has no field {name!r}; it has {known}.")
        object.__setattr__(new, name, value)
    return new


@functools.cache  # first asked by `pytree`, before defaults take the places of fields
def number_fields(cls: type) -> dict[str, Number]:
    """Return the fields of a class and its bases that hold numbers, with the check of each."""
    named = {"Scalar": Scalar, "Nonnegative": Nonnegative, "Positive": Positive}
    named |= {"Fraction": Fraction, "float": float}
    checks: dict[str, Number] = {}
    for base in reversed(cls.__mro__):
        for name, hint in inspect.get_annotations(base).items():
            checks.pop(name, None)  # a subclass may declare it anew
            default = base.__dict__.get(name)
            fields = getattr(base, "__dataclass_fields__", {})
            default = fields.get(name, default) if base is not cls else default
            if isinstance(default, dataclasses.Field) and default.metadata.get("static"):
                continue
            if isinstance(hint, str):  # known by its last word, as `jd.Scalar` is
                hint = named.get(hint.rpartition(".")[2], hint)
            alternatives = typing.get_args(hint) if type(None) in typing.get_args(hint) else (hint,)
            optional = len(alternatives) > 1
            for alternative in alternatives:
                if alternative is float:
                    checks[name] = Number(optional=optional)
                for extra in getattr(alternative, "__metadata__", ()):
                    if isinstance(extra, Number):
                        checks[name] = dataclasses.replace(extra, optional=optional)
    return checks


@pytree
class Scheduled:
    """A number field's schedule: any callable of the step, waiting for `at` to evaluate it.

    Its values are checked as the field's own are wherever they are known.
    """

    schedule: Any  # a callable pytree, or a plain function as jax.tree_util.Partial
    name: str = static()  # of the field
    number: Number = static()

    @classmethod
    def of(cls, schedule: Callable[..., Any], name: str, number: Number) -> "Scheduled":
        """Wrap a callable; plain functions become static, callable pytrees keep their leaves.

        It is tried at the first step, and where a schedule says that it ``turns``. It may be
        infinite there, as 1/k is at 0, which a run from step 1 on never sees.
        """
        scheduled = cls(traceable(schedule), name, number)
        for step in getattr(schedule, "turns", (0,)):
            where = f"the schedule's {name} at step {step}"
            number.require_range(where, number.form(where, scheduled._value(jnp.asarray(step))))
        return scheduled

    def __call__(self, step: Any) -> Any:
        return self.number.accept(f"the schedule's {self.name}", self._value(step))

    def require_along(self, steps: np.ndarray) -> None:
        """Refuse values out of the field's range at some of many steps [k]."""
        values = jax.vmap(lambda k: jnp.asarray(self(k)))(jnp.asarray(steps))
        if not is_traced(values):
            rows = np.asarray(values).reshape(len(steps), -1)
            for i in (int(rows.min(axis=1).argmin()), int(rows.max(axis=1).argmax())):
                where = f"the schedule's {self.name} at step {steps[i]}"
                self.number.accept(where, rows[i][:, None])

    def _value(self, step: Any) -> Any:
        try:
            value = evaluate(self.schedule, step)(step)
        except Exception as error:  # the user's own code can raise anything
            first = str(error).strip().partition("\n")[0].rstrip(".")[:80]
            raise ValueError(
                f"the schedule's {self.name} fails ({type(error).__name__}: {first}); give a "
                "function of the step that JAX can trace, such as jd.schedules.InverseTime(1)."
            ) from error
        require(
            not callable(value),
            f"the schedule's {self.name} is {value!r}; give a function of the step that returns a "
            "number.",
        )
        return value

    def __jax_array__(self) -> Any:
        raise ValueError(
            "a number field holds a schedule, which has no value before a step is known; "
            "call step on jd.at(method, k)."
        )


def evaluate(tree: T, step: Any) -> T:
    """Replace every schedule in a tree by its value at a step."""
    return jax.tree.map(
        lambda leaf: leaf(step) if isinstance(leaf, Scheduled) else leaf,
        tree,
        is_leaf=lambda leaf: isinstance(leaf, Scheduled),
    )


def number(name: str, value: Any, **bounds: float) -> Any:
    """Return an argument that has to be one number, checked as a number field is."""
    require(not callable(value), f"{name} is {value!r}; give a number.")
    require(np.ndim(value) == 0, f"{name} has shape {np.shape(value)}; give one number.")
    return dataclasses.replace(Number(), **bounds).accept(name, value)


def count(name: str, value: Any, minimum: int = 1, remedy: str = "") -> int:
    """Return an argument that has to be an integer of at least ``minimum``."""
    require(
        isinstance(value, int | np.integer) and not isinstance(value, bool) and value >= minimum,
        f"{name} is {value!r}; give {remedy or f'an integer of at least {minimum}'}.",
    )
    return int(value)


def traceable(function: Callable[..., Any]) -> Any:
    """Return a callable that may be a leaf's place: a pytree stays, a function becomes static."""
    if jax.tree_util.all_leaves([function]):
        return jax.tree_util.Partial(function)
    return function


@pytree
class Opaque:
    """An object that is no pytree, on its way into a program: static, known by identity."""

    value: Any = static()

    @property
    def content(self) -> Any:
        """The object itself."""
        return self.value.of


@dataclasses.dataclass(frozen=True, eq=False)
class _Identity:
    """A hashable stand-in for any object, equal to other stand-ins for the same one."""

    of: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identity) and self.of is other.of

    def __hash__(self) -> int:
        return id(self.of)


def enclose(value: Any) -> Any:
    """Return pytrees as they are, and anything else as `Opaque`; `disclose` undoes it."""
    array = isinstance(value, jax.Array | np.ndarray | float | int)
    is_leaf = jax.tree_util.all_leaves([value]) and not array
    return Opaque(_Identity(value)) if is_leaf else value


def disclose(value: Any) -> Any:
    """Return what `enclose` was given."""
    return value.content if isinstance(value, Opaque) else value


def distinct(tree: T, others: Any = ()) -> T:
    """Return a tree in which no array shares memory with another one, nor with one of ``others``.

    What does is copied, so that all leaves can be donated, as in ``jax.jit(step,
    donate_argnums=0)``. While a program is traced there is no memory yet, and nothing to do.
    """
    if is_traced((tree, others)):
        return tree
    seen = {place for leaf in jax.tree.leaves(others) for place in _places(leaf)}

    def own(leaf: Any) -> Any:
        places = _places(leaf)
        if not seen.isdisjoint(places):
            leaf = jnp.copy(leaf)
            places = _places(leaf)
        seen.update(places)
        return leaf

    return jax.tree.map(own, tree)


def _places(leaf: Any) -> list[int]:
    """Return where in memory an array is, on every device of this process."""
    if not isinstance(leaf, jax.Array) or leaf.size == 0:
        return []
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return [shard.data.unsafe_buffer_pointer() for shard in leaf.addressable_shards]


def wide_dtype(dtype: Any) -> np.dtype:
    """Return the dtype in which numbers of a dtype are added up: float32 at least."""
    known = np.dtype(dtype)
    wide = jnp.issubdtype(known, jnp.inexact) and known.itemsize >= 4
    return known if wide else np.dtype(np.float32)


def cast_floats(tree: T, dtype: Any) -> T:
    """Cast all floating leaves, Python floats among them, to one dtype; leave the rest alone."""
    return jax.tree.map(functools.partial(_cast, dtype=np.dtype(dtype)), tree)


def _cast(leaf: Any, dtype: np.dtype) -> Any:
    if isinstance(leaf, float | np.floating):
        return np.asarray(leaf, dtype)
    if isinstance(leaf, np.ndarray | jax.Array) and jnp.issubdtype(leaf.dtype, jnp.floating):
        weak = isinstance(leaf, jax.Array) and leaf.weak_type
        return jax.lax.convert_element_type(leaf, dtype) if weak or leaf.dtype != dtype else leaf
    return leaf
