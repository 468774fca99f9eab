"""Accounts of a loop: what its steps cost, kept so that little goes round with it.

Costs that are the same in all steps, which the traced program says, are multiplied after the loop.
The others are summed up, or their largest kept, in float32.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdopt._leaves import is_traced
from jaxdopt._pytree import pytree, static
from jaxdopt.costs import AXES, Axis


class Ledger:
    """How a loop keeps its accounts: what varies goes round with it, the rest is added up after it.

    Sums are compensated (Kahan's), as float32 would lose small increments to large totals.

    Args:
        axes: by name.
        costs: a function of ``args`` that returns the increments by name.
        args: what it is called with, of which it may ignore some.
    """

    def __init__(self, axes: Mapping[str, Axis], costs: Callable[..., Any], *args: Any) -> None:
        """Find out which of the costs, a function of ``args``, depend on them."""
        shapes, moving = dependent(costs, *args)
        self.axes = axes
        self.shapes = {name: leaf.shape for name, leaf in shapes.items()}
        self.moving = {
            over: [name for name in sorted(moving) if axes[name].over == over]
            for over in ("sum", "maximum")
        }
        self.fixed = costs(*args)  # of which only what does not move is used

    def empty(self) -> Any:
        """Return the accounts before the first step: sums, what rounding lost of them, maxima."""
        sums, maxima = (
            jnp.zeros(sum(int(np.prod(self.shapes[name])) for name in names), jnp.float32)
            for names in self.moving.values()
        )
        return sums, sums, maxima

    def add(self, accounts: Any, costs: dict[str, jax.Array]) -> Any:
        """Return the accounts after one more step."""
        total, lost, maxima = accounts
        more, largest = (self._flat(costs, names) for names in self.moving.values())
        more = more - lost
        return total + more, (total + more - total) - more, jnp.maximum(maxima, largest)

    def record(self, accounts: Any) -> Any:
        """Return what of the accounts is recorded."""
        total, _, maxima = accounts
        return jnp.concatenate([total, maxima]) if maxima.size else total

    @property
    def rates(self) -> "Rates":
        """What is needed of the accounts once the loop is over."""
        moving = [name for names in self.moving.values() for name in names]
        fixed = {name: self.fixed[name] for name in sorted(self.shapes.keys() - {*moving})}
        return Rates(
            fixed,
            tuple((name, self.shapes[name]) for name in moving),
            tuple(name for name in fixed if self.axes[name].over == "sum"),
        )

    @property
    def read(self) -> tuple[tuple[str, Axis, int], ...]:
        """The axes beside those of every run, with their increments' numbers of dimensions."""
        return tuple(
            (name, self.axes[name], len(shape))
            for name, shape in sorted(self.shapes.items())
            if name not in AXES
        )

    def _flat(self, costs: dict[str, jax.Array], names: list[str]) -> jax.Array:
        if all(self.shapes[name] == () for name in names):
            return jnp.array([costs[name] for name in names], jnp.float32)
        return jnp.concatenate([jnp.ravel(costs[name]) for name in names])


@pytree
class Rates:
    """How the increments of all axes are read off the records of a `Ledger`.

    Attributes:
        fixed: what every step adds to the axes that do not vary, by name.
        moving: names and shapes of those that vary, as they lie in a record.
        sums: which of the fixed ones add up over the steps of a record.
    """

    fixed: Any
    moving: tuple[tuple[str, tuple[int, ...]], ...] = static()
    sums: tuple[str, ...] = static()

    def history(self, records: Any, every: int) -> dict[str, Any]:
        """Return the increments of all axes by name, [records + 1, ...], of records [records, ...].

        They are traced as the records are, or NumPy arrays.
        """
        xp = jnp if is_traced((self.fixed, records)) else np
        rows = len(records) + 1
        columns = xp.concatenate([xp.zeros((1, records.shape[1]), np.float32), records]).T
        found, at = {}, 0
        for name, shape in self.moving:
            size = int(np.prod(shape))
            found[name] = (
                columns[at] if shape == () else columns[at : at + size].T.reshape(rows, *shape)
            )
            at += size
        for name, each in self.fixed.items():
            of_record = each * (every if name in self.sums else 1)
            later = xp.broadcast_to(of_record, (rows - 1, *of_record.shape))
            found[name] = xp.concatenate([xp.zeros((1, *of_record.shape), np.float32), later])
        return found


def dependent(costs: Callable[..., Any], *args: Any) -> tuple[dict[str, Any], set[str]]:
    """Return the shapes of the costs, and the names of those that depend on the arguments.

    Args:
        costs: a function of ``args`` that returns them by name.
        args: arrays or their shapes.
    """
    closed, shapes = jax.make_jaxpr(costs, return_shape=True)(*args)
    reached = set(closed.jaxpr.invars)
    for equation in closed.jaxpr.eqns:
        if any(not hasattr(v, "val") and v in reached for v in equation.invars):
            reached.update(equation.outvars)
    outs = zip(sorted(shapes), closed.jaxpr.outvars, strict=True)
    return shapes, {name for name, v in outs if not hasattr(v, "val") and v in reached}
