"""Number fields: what they take, how they are stored, and schedules in their place."""

import dataclasses
import functools
import math
import numbers
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxdopt._checks import require
from jaxdopt._leaves import is_traced
from jaxdopt._opaque import traceable

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Number:
    """The annotation of a number field: a scalar, or one number an agent with shape ``[n, 1]``."""

    minimum: float = -math.inf
    maximum: float = math.inf
    above: float = -math.inf
    shared: bool = False  # one for all agents
    kind: ClassVar[str] = "float | Schedule"  # in signatures

    def accept(self, name: str, value: Any) -> Any:
        """Return the value in the form it is stored in, or raise a sentence with the remedy."""
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
            shape == () or (len(shape) == 2 and shape[1] == 1 and not self.shared),
            f"{name} has shape {shape}; give "
            f"{'one' if self.shared else 'a scalar, one number an agent as an [n, 1] array'}"
            f"{' number for all agents' * self.shared}, or sweep with jax.vmap(Method)(values).",
        )


Scalar = Annotated[Any, Number()]
"""A number that can be traced, swept and differentiated, or a schedule of the step."""

Nonnegative = Annotated[Any, Number(minimum=0.0)]
"""A `Scalar` that is at least 0, such as a stepsize."""

Positive = Annotated[Any, Number(above=0.0)]
"""A `Scalar` above 0, such as an offset that something is divided by."""

Fraction = Annotated[Any, Number(minimum=0.0, maximum=1.0)]
"""A `Scalar` between 0 and 1, such as a relaxation or a probability."""


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["schedule"], meta_fields=["name", "number"]
)
@dataclasses.dataclass(frozen=True, eq=False)
class Scheduled:
    """A number field's schedule: any callable of the step, waiting for `at` to evaluate it.

    Its values are checked as the field's own are wherever they are known.
    """

    schedule: Any  # a callable pytree, or a plain function as jax.tree_util.Partial
    name: str  # of the field
    number: Number

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
                self.number.accept(where, np.asarray(values)[i])

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
