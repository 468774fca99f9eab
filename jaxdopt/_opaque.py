"""What is no pytree, on its way into a program: static, known by identity."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np


def traceable(function: Callable[..., Any]) -> Any:
    """Return a callable that may be a leaf's place: a pytree stays, a function becomes static."""
    if jax.tree_util.all_leaves([function]):
        return jax.tree_util.Partial(function)
    return function


@functools.partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=["value"])
@dataclasses.dataclass(frozen=True, eq=False)
class Opaque:
    """An object that is no pytree, in a pytree: static, known by identity, with its attributes."""

    value: Any

    @property
    def content(self) -> Any:
        """The object itself."""
        return self.value.of

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "value" not in vars(self):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self.content, name)


@dataclasses.dataclass(frozen=True, eq=False)
class Identity:
    """A hashable stand-in for any object, equal to other stand-ins for the same one."""

    of: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Identity) and self.of is other.of

    def __hash__(self) -> int:
        return id(self.of)


def enclose(value: Any) -> Any:
    """Return pytrees as they are, and anything else as `Opaque`; `disclose` undoes it."""
    array = isinstance(value, jax.Array | np.ndarray | float | int)
    is_leaf = jax.tree_util.all_leaves([value]) and not array
    return Opaque(Identity(value)) if is_leaf else value


def disclose(value: Any) -> Any:
    """Return what `enclose` was given."""
    return value.content if isinstance(value, Opaque) else value
