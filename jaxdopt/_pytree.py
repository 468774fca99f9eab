"""Frozen dataclasses that are JAX pytrees: algorithms, problems, networks and states are such."""

import dataclasses
import functools
import inspect
import re
import types
import typing
from typing import Any, TypeVar, dataclass_transform

import jax

from jaxdopt import _repr, roles
from jaxdopt._checks import Check, Choice, Count
from jaxdopt._leaves import distinct
from jaxdopt._numbers import Fraction, Nonnegative, Number, Positive, Scalar

T = TypeVar("T")


def static(**options: Any) -> Any:
    """Mark a field as part of the program rather than of its data.

    A static field is hashed and compared, never traced: changing it compiles anew. Use it for what
    changes the program (a count that sets a shape or a loop's length, a choice of form), never for
    numbers. ``options`` go to ``dataclasses.field``.
    """
    return dataclasses.field(metadata={"static": True}, **options)


def field(*, axis: int | None, **options: Any) -> Any:
    """Say of a State's field which axis of its arrays is the agents'; None if there is none.

    Without it a first axis of n is the agents'. Those who sleep keep their rows of it. ``options``
    go to ``dataclasses.field``.
    """
    return dataclasses.field(metadata={"axis": axis}, **options)


@dataclass_transform(frozen_default=True, eq_default=False, field_specifiers=(static, field))
def pytree(cls: type[T]) -> type[T]:
    """Make a class (``cls``) a frozen dataclass whose fields are the leaves of a pytree.

    Fields marked `static` belong to the program; all others are data: traced by jit, batched by
    vmap, differentiated by grad. Annotations are checked when a user constructs the object: numbers
    (``float``, `Scalar`, `Nonnegative`, `Positive`, `Fraction`), in which Python ints become floats
    and any callable of the step is a schedule (resolve it with `at`); `Count`; ``Literal[...]``;
    and ``Annotated[type, check]``, the check any object with ``accept(name, value)``.
    ``Positive | None`` takes None too. A subclass keeps the checks of its bases, which run before
    its own. JAX rebuilds the object without running any check.

    The signature that `help` shows has the names of types; a check's is its attribute ``kind``.

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
    checks = checked_fields(cls)
    if cls.__repr__ is object.__repr__:
        cls._repr_html_ = _repr.html  # type: ignore[attr-defined]
        cls.__repr__ = _repr.text
    cls.__repr__ = cls.__repr__  # the class's own, which a dataclass keeps
    cls._own_check = cls.__dict__.get("__post_init__")  # type: ignore[attr-defined]
    more = [base.__dict__.get("_own_check") for base in reversed(cls.__mro__)]
    more = [check for check in more if check is not None]

    def check(self: Any, changed: Any) -> None:
        for name in checks.keys() & changed:
            asked, optional = checks[name]
            value = getattr(self, name)
            if value is not None or not optional:
                object.__setattr__(self, name, asked.accept(name, value))
        for own in more:
            own(self)

    def __post_init__(self: Any) -> None:
        """Check the fields, and store numbers as floats."""
        check(self, set(checks))

    if checks or more:
        cls.__post_init__ = __post_init__  # type: ignore[attr-defined]
        cls._check_changed = check  # type: ignore[attr-defined]
    if getattr(cls, "needs", None) is not None:
        roles.play(cls, distinct)
    own = cls.__dict__.get("__init__") is not None
    by_hand = own or getattr(cls, "_by_hand", False)  # a constructor that a base has written
    cls._by_hand = by_hand  # type: ignore[attr-defined]
    cls = dataclasses.dataclass(frozen=True, eq=False, init=own or not by_hand)(cls)  # type: ignore[assignment]
    if own or not by_hand:
        cls.__init__.__signature__ = _named(cls, {} if own else checks)  # type: ignore[attr-defined]
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
    """Return a copy of an instance with ``changes`` of fields, checked as when one is constructed.

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
def checked_fields(cls: type) -> dict[str, tuple[Check, bool]]:
    """Return the fields of a class and its bases that are checked: how, and whether None will do.

    A check is in the annotation, ``Annotated[type, check]``; ``float`` is a number, and ``Literal``
    a choice. A static field is no number.
    """
    named = {"Scalar": Scalar, "Nonnegative": Nonnegative, "Positive": Positive}
    named |= {"Fraction": Fraction, "Count": Count, "float": float}
    checks: dict[str, tuple[Check, bool]] = {}
    for base in reversed(cls.__mro__):
        for name, hint in inspect.get_annotations(base).items():
            checks.pop(name, None)  # a subclass may declare it anew
            default = base.__dict__.get(name)
            fields = getattr(base, "__dataclass_fields__", {})
            default = fields.get(name, default) if base is not cls else default
            is_static = isinstance(default, dataclasses.Field) and default.metadata.get("static")
            if isinstance(hint, str):  # known by its last word, as `jd.Scalar` is
                hint = named.get(hint.rpartition(".")[2], hint)
            optional = type(None) in typing.get_args(hint)
            for alternative in typing.get_args(hint) if optional else (hint,):
                for check in _checks_in(alternative):
                    if not (is_static and isinstance(check, Number)):
                        checks[name] = check, optional
    return checks


def _checks_in(hint: Any) -> list[Check]:
    if hint is float:
        return [Number()]
    if typing.get_origin(hint) is typing.Literal:
        return [Choice(typing.get_args(hint))]
    return [extra for extra in getattr(hint, "__metadata__", ()) if isinstance(extra, Check)]


class _Name(str):
    """The name of a type in a signature, shown without quotes."""

    __repr__ = str.__str__


def _named(cls: type, checks: dict[str, tuple[Check, bool]]) -> inspect.Signature:
    """Return the signature of a class's constructor, with ``self``, and types by their names."""
    parameters = []
    for name, parameter in inspect.signature(cls.__init__).parameters.items():
        if parameter.annotation is not inspect.Parameter.empty:
            asked, optional = checks.get(name, (None, False))
            kind = getattr(asked, "kind", None)
            text = f"{kind}{' | None' * optional}" if kind else _type_name(parameter.annotation)
            parameter = parameter.replace(annotation=_Name(text))
        parameters.append(parameter)
    return inspect.Signature(parameters)


def _type_name(hint: Any) -> str:
    """Return how one writes an annotation: short names, ``X | None``, no ``Annotated``."""
    if isinstance(hint, str):
        return hint
    first, *others = typing.get_args(hint) or (None,)
    if typing.get_origin(hint) is typing.Annotated:
        return next((extra.kind for extra in others if hasattr(extra, "kind")), _type_name(first))
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " | ".join(map(_type_name, (first, *others)))
    if hint is type(None):
        return "None"
    short = str if typing.get_origin(hint) else inspect.formatannotation
    return re.sub(r"(?<![\w.'])(?:\w+\.)+(?=\w)", "", short(hint))


@functools.cache
def number_fields(cls: type) -> dict[str, Number]:
    """Return the fields of a class and its bases that hold numbers, with the check of each."""
    found = checked_fields(cls).items()
    return {name: check for name, (check, _) in found if isinstance(check, Number)}
