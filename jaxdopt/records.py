"""Records of a long run: what its chunks leave behind, collected on the host and reported."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdopt import _processes
from jaxdopt._checks import require
from jaxdopt._pytree import pytree, static
from jaxdopt.costs import Axis
from jaxdopt.ledger import Rates

GOES_ON, UNTIL, DIVERGED = range(3)  # what a chunk says of its last record
STOPPED = {UNTIL: "until", DIVERGED: "diverged"}

ROWS = 2**14  # records of a chunk at most,
ROOM = 2**22  # whose memory is at most this many bytes if more than one has room


@pytree
class Begun:
    """A run before its first step.

    Attributes:
        state: the first one.
        first: its metrics by name.
        record: an empty record of the accounts.
        rates: of the accounts.
        diverged: whether the first state is so already.
        own_axes: the axes of costs that the run's parts have declared.
    """

    state: Any
    first: Any
    record: Any
    rates: Rates
    diverged: Any
    own_axes: tuple[tuple[str, Axis, int], ...] = static()

    @property
    def capacity(self) -> int:
        """How many records a chunk may hold."""
        size = sum(leaf.nbytes for leaf in jax.tree.leaves((self.first, self.record)))
        return 2 ** int(np.log2(min(ROWS, max(1, ROOM // max(1, size)))))


@pytree
class Chunk:
    """What some records leave behind: ``taken`` of them, the first rows of the arrays."""

    state: Any
    metrics: Any
    records: Any
    taken: Any
    reached: Any
    diverged: Any


class History:
    """The records of a run, in arrays of the host that grow with them.

    Attributes:
        total: the records of the whole run, beside row 0.
        metrics: rows by name, [rows, ...], of which the first ones are filled.
        records: the accounts; row 0 is empty.
    """

    def __init__(self, begun: Begun, total: int) -> None:
        self.total = total
        self.metrics = {name: np.array(row)[None] for name, row in begun.first.items()}
        self.records = np.array(begun.record)[None]

    def reserve(self, rows: int) -> None:
        """Make room for some rows, and for as many as there are, so that few copies are made."""
        there = len(self.records)
        if rows > there:
            rows = min(max(rows, 2 * there), self.total + 1)

            def larger(values: np.ndarray) -> np.ndarray:
                grown = np.empty((rows, *values.shape[1:]), values.dtype)
                grown[:there] = values
                return grown

            self.metrics = {name: larger(values) for name, values in self.metrics.items()}
            self.records = larger(self.records)

    def write(self, taken: int, more: int, part: Chunk) -> None:
        """Write the records of a chunk behind those that are there."""
        rows = slice(taken + 1, taken + 1 + more)
        self.reserve(rows.stop)
        for name, values in part.metrics.items():
            self.metrics[name][rows] = np.asarray(values)[:more]
        self.records[rows] = np.asarray(part.records)[:more]

    def reached(self, taken: int, targets: dict[str, float] | None, diverged: bool) -> str | None:
        """Return why the run ends with a record, as the compiled loop decides it."""
        if targets is None:
            return None
        for name in targets:
            require_scalar(name, self.metrics[name].shape[1:])
        if diverged:
            return STOPPED[DIVERGED]
        met = [bool(self.metrics[name][taken] <= value) for name, value in targets.items()]
        return STOPPED[UNTIL] if met and all(met) else None

    def brief(self, taken: int, targets: dict[str, float] | None) -> str:
        """Return a metric of a record, for the bar."""
        scalars = [name for name, rows in self.metrics.items() if rows.ndim == 1]
        wanted = [name for name in (*(targets or ()), "gap", "loss", *scalars) if name in scalars]
        return f"{wanted[0]} {self.metrics[wanted[0]][taken]:.3g}" if wanted else ""

    def until(
        self, taken: int, rates: Rates, start: int, every: int
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the metrics and the costs of the first records and of row 0."""
        costs = jax.tree.map(np.asarray, rates).history(self.records[1 : taken + 1], every)
        costs["step"] = np.full(taken + 1, every, np.asarray(start).dtype)
        costs["step"][0] = start
        metrics = {name: rows[: taken + 1] for name, rows in self.metrics.items()}
        return jax.tree.map(jnp.asarray, (metrics, costs))


class Reporter:
    """Calls a callback with records that it has not had.

    Args:
        callback: a function of a record, or None.
        history: where the records are.
        start: the first step's number.
        every: how many steps a record covers.
        reported: how many rows it has had before.
        keeps_failure: whether what it raises waits in ``failure`` until all processes know of it.
    """

    def __init__(
        self,
        callback: Callable[[dict[str, Any]], Any] | None,
        history: History,
        start: int,
        every: int,
        reported: int,
        keeps_failure: bool = False,
    ) -> None:
        self.callback, self.history, self.reported = callback, history, reported
        self.keeps_failure, self.failure = keeps_failure, None
        self.start, self.every = int(start), every

    def report(self, taken: int) -> None:
        """Call it with all rows up to a record."""
        try:
            self._report(taken)
        except Exception as error:
            if not self.keeps_failure:
                raise
            self.failure = error

    def require_success(self) -> None:
        """Raise in all processes if a callback has failed; all have to call it."""
        failed = _processes.agreed(self.failure is not None).any()
        if self.failure is not None:
            raise self.failure
        if failed:
            raise RuntimeError("the callback has failed in the first process.")

    def _report(self, taken: int) -> None:
        if self.callback is None or self.failure is not None or self.reported > taken:
            return
        rows = slice(self.reported, taken + 1)
        columns = {
            name: values[rows].tolist() if values.ndim == 1 else values[rows].copy()
            for name, values in self.history.metrics.items()
        }
        for i, row in enumerate(range(self.reported, taken + 1)):
            self.reported = row + 1
            step = {"step": self.start + row * self.every}
            self.callback(step | {name: column[i] for name, column in columns.items()})


def require_scalar(name: str, shape: tuple[int, ...]) -> None:
    """Refuse a target for a metric that is no single number."""
    require(
        shape == (),
        f"until names {name!r}, of shape {list(shape)}; name a metric that is one number.",
    )
