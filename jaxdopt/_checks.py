"""Checks of what users give: one sentence with the value and the remedy."""

import dataclasses
from typing import Annotated, Any, Protocol, runtime_checkable

import numpy as np

from jaxdopt._leaves import is_traced


def require(condition: Any, message: str) -> None:
    """Raise ``ValueError(message)`` if ``condition`` is false; stay silent for traced values.

    Example:
        >>> require(2 > 1, "never raised")
    """
    if condition is not True and not is_traced(condition) and not condition:
        raise ValueError(message)


def count(name: str, value: Any, minimum: int = 1, remedy: str = "") -> int:
    """Return an argument that has to be an integer of at least ``minimum``."""
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < minimum:
        remedy = remedy or f"an integer of at least {minimum}"
        raise ValueError(f"{name} is {value!r}; give {remedy}.")
    return int(value)


def who_lies(liars: Any, n: int, *, most: int, rounds: bool = False) -> Any:
    """Return who of n agents lies, [n] bool, of a number, the last ones, or of a mask.

    Args:
        liars: their number, or a mask, which may be traced.
        n: how many agents there are.
        most: how many may lie if they are given as a number.
        rounds: whether a mask may be one of every round, [T, n], too.
    """
    who = f"how many lie, or who, as [{n}] booleans{f' or, of every round, [T, {n}]' * rounds}"
    if is_traced(liars):
        mask = liars
    else:
        try:
            mask = np.asarray(liars)
        except ValueError:  # lists of different lengths
            mask = np.asarray(liars, object)
    if mask.ndim == 0 and mask.dtype != bool:
        number = count("liars", liars, 0, who)
        require(number <= most, f"liars is {number} and there are {n} agents; give at most {most}.")
        return np.arange(n) >= n - number
    fits = mask.ndim in ((1, 2) if rounds else (1,)) and mask.shape[-1] == n and len(mask) > 0
    require(
        mask.dtype == bool and fits,
        f"liars is an array of {mask.dtype}{list(mask.shape)}; give {who}.",
    )
    return mask


@runtime_checkable
class Check(Protocol):
    """What the annotation of a field asks of its value, as ``Annotated[type, check]``.

    Signatures show the check's ``kind``, if it has one, and else the name of the type.
    """

    def accept(self, name: str, value: Any) -> Any:
        """Return the value in the form it is stored in, or raise a sentence with the remedy."""
        ...


@dataclasses.dataclass(frozen=True)
class Integer:
    """The check of a field that sets a shape or the length of a loop."""

    minimum: int = 1

    def accept(self, name: str, value: Any) -> int:
        """Return an integer of at least the minimum."""
        return count(name, value, self.minimum)


@dataclasses.dataclass(frozen=True)
class Choice:
    """The check of a field that is one of a few words, as its ``Literal`` annotation says."""

    words: tuple[Any, ...]

    def accept(self, name: str, value: Any) -> Any:
        """Return one of the words."""
        *first, last = map(repr, self.words)
        known = f"{', '.join(first)} or {last}" if first else last
        require(value in self.words, f"{name} is {value!r}; give {known}.")
        return value


@dataclasses.dataclass(frozen=True)
class Called:
    """The check of a field that is called: an object, no class, that may need another attribute."""

    kind: str
    remedy: str
    attribute: str = "__call__"  # or what it has to have besides

    def accept(self, name: str, value: Any) -> Any:
        """Return what can be called."""
        known = callable(value) and hasattr(value, self.attribute) and not isinstance(value, type)
        require(known, f"{name} is {value!r}; give {self.remedy}.")
        return value


Count = Annotated[int, Integer()]
"""An integer of at least 1, such as a number of local steps; part of the program."""
