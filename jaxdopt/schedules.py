"""Stepsize schedules as callable pytrees: their numbers sweep and differentiate like any other.

Every number field of a method accepts one, or any callable of the step such as an optax schedule.
Methods never see schedules: `run` replaces them at every step by their values, ``at(method, k)``.
A value is what the field accepts: a number in its range, or [n, 1], one for each agent.
"""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxdopt._checks import require
from jaxdopt._leaves import is_traced
from jaxdopt._numbers import Positive, Scalar, evaluate
from jaxdopt._opaque import traceable
from jaxdopt._pytree import pytree, static

M = TypeVar("M")
Schedule = Callable[[Any], Any]
"""A callable of the step: one of this module, of optax, or a function of one's own."""


def at(method: M, k: Any) -> M:
    """Return the method with every schedule replaced by its value at step ``k`` (int or traced).

    Example:
        >>> import jaxdopt as jd
        >>> float(at(jd.DGD(stepsize=InverseTime(1, offset=2)), 3).stepsize)
        0.2...
    """
    return evaluate(method, k)


@pytree
class Constant:
    """αₖ = value.

    Args:
        value: α.
    """

    value: Scalar

    def __call__(self, k: Any) -> Any:
        return self.value


@pytree
class InverseTime:
    """αₖ = numerator / (k + offset); with numerator θ/μ, the schedule of strongly convex theory.

    Args:
        numerator: such as θ/μ.
        offset: > 0.
    """

    numerator: Scalar
    offset: Positive = 1.0

    def __call__(self, k: Any) -> Any:
        return self.numerator / (_time(k) + self.offset)


@pytree
class Polynomial:
    """αₖ = initial / (1 + k / offset)^power; nonconvex theorems have powers 1/2 or 3/4.

    Args:
        initial: α₀.
        power: of the decrease.
        offset: > 0, the step by which αₖ has fallen to α₀ / 2^power.
    """

    initial: Scalar
    power: Scalar = 0.5
    offset: Positive = 1.0

    def __call__(self, k: Any) -> Any:
        return self.initial / (1 + _time(k) / self.offset) ** self.power


@pytree
class PiecewiseConstant:
    """αₖ = values[j] for boundaries[j − 1] ≤ k < boundaries[j]: one more value than boundaries.

    Args:
        values: [j + 1] numbers.
        boundaries: [j] increasing steps.

    Raises:
        ValueError: other lengths, values that are not finite, or boundaries that do not increase.
    """

    values: Any  # [j + 1]
    boundaries: Any  # [j], increasing steps

    def __post_init__(self) -> None:
        """Check the lengths and the order of the boundaries."""
        values, boundaries = np.shape(self.values), np.shape(self.boundaries)
        require(
            len(values) == len(boundaries) == 1 and values[0] == boundaries[0] + 1,
            f"values has shape {values} and boundaries {boundaries}; "
            "give one more value than there are boundaries.",
        )
        if not is_traced(self.values):
            require(
                np.all(np.isfinite(np.asarray(self.values, float))),
                f"values are {np.asarray(self.values).tolist()}; give finite numbers.",
            )
        if not is_traced(self.boundaries):
            require(
                np.all(np.diff(np.asarray(self.boundaries, float)) > 0),
                f"boundaries are {np.asarray(self.boundaries).tolist()}; give increasing steps.",
            )
        object.__setattr__(self, "values", jnp.asarray(self.values, float))
        object.__setattr__(self, "boundaries", jnp.asarray(self.boundaries))

    @property
    def turns(self) -> tuple[int, ...]:
        """The steps at which a new value begins, as far as they are known."""
        return (0,) if is_traced(self.boundaries) else (0, *np.asarray(self.boundaries).tolist())

    def __call__(self, k: Any) -> Any:
        return self.values[jnp.sum(k >= self.boundaries)]


@pytree
class Cosine:
    """αₖ = final + (initial − final) (1 + cos(π min(k / steps, 1))) / 2.

    Args:
        initial: α₀.
        steps: > 0, from which on the value is final.
        final: that value.
    """

    initial: Scalar
    steps: Positive
    final: Scalar = 0.0

    @property
    def turns(self) -> tuple[float, ...]:
        """The first step, and the one from which the value is final, if that is known."""
        known = np.ndim(self.steps) == 0 and not is_traced(self.steps)
        return (0, math.ceil(self.steps)) if known else (0,)

    def __call__(self, k: Any) -> Any:
        progress = jnp.minimum(_time(k) / self.steps, 1.0)
        return self.final + (self.initial - self.final) * (1 + jnp.cos(jnp.pi * progress)) / 2


@pytree
class PerEpoch:
    """αₖ = schedule(⌊k / steps⌋): constant within an epoch of ``steps`` steps.

    All agents have the same epochs. If each has m samples and takes batches of b, give m / b. If
    data are uneven, agents that reshuffle end their passes over them at different steps, which this
    schedule does not follow: take the mean, ``problem.size``, for m.

    Args:
        schedule: a callable of the epoch.
        steps: the number of steps in an epoch.

    Raises:
        ValueError: a count below 1, or a schedule that is not callable.
    """

    schedule: Any
    steps: int = static()

    def __post_init__(self) -> None:
        """Check the count and make a plain function traceable."""
        require(
            isinstance(self.steps, int) and self.steps >= 1,
            f"steps is {self.steps!r}; give the number of steps in an epoch, an integer >= 1.",
        )
        require(
            callable(self.schedule),
            f"schedule is {self.schedule!r}; give a schedule, that is a callable of the epoch.",
        )
        object.__setattr__(self, "schedule", traceable(self.schedule))

    @property
    def turns(self) -> tuple[int, ...]:
        """The first steps of the epochs at which the schedule turns."""
        return tuple(self.steps * epoch for epoch in getattr(self.schedule, "turns", (0,)))

    def __call__(self, k: Any) -> Any:
        return self.schedule(k // self.steps)


def _time(k: Any) -> Any:
    """Return the step as a weakly typed floating number, as a Python number would be."""
    with jax.numpy_dtype_promotion("standard"):
        return 1.0 * k
