"""Checks of what users give: one sentence with the value and the remedy."""

from typing import Any

import numpy as np

from jaxdopt._leaves import is_traced


def require(condition: Any, message: str) -> None:
    """Raise ``ValueError(message)`` if ``condition`` is false; stay silent for traced values.

    Example:
        >>> require(2 > 1, "never raised")
    """
    if not is_traced(condition) and not condition:
        raise ValueError(message)


def count(name: str, value: Any, minimum: int = 1, remedy: str = "") -> int:
    """Return an argument that has to be an integer of at least ``minimum``."""
    require(
        isinstance(value, int | np.integer) and not isinstance(value, bool) and value >= minimum,
        f"{name} is {value!r}; give {remedy or f'an integer of at least {minimum}'}.",
    )
    return int(value)
