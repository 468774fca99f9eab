"""The steps of a run as XLA sees them: one scan of all records, or a loop over some of them."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdopt import _backend, honest, roles
from jaxdopt import costs as _costs
from jaxdopt._arguments import (
    kind,
    require_gradient,
    require_records,
    require_state,
    require_values,
    strong,
)
from jaxdopt._checks import require
from jaxdopt._leaves import cast_floats
from jaxdopt._opaque import disclose
from jaxdopt.ledger import Ledger
from jaxdopt.programs import Program
from jaxdopt.records import DIVERGED, GOES_ON, UNTIL, Begun, Chunk
from jaxdopt.results import Result
from jaxdopt.schedules import at


class Parts(NamedTuple):
    """What takes a run's steps.

    Attributes:
        algorithm, problem, network: as `enclose` returns them, in the run's dtypes.
        judged: the problem that metrics see, or None if it is the same.
        key: the run's.
        recorded: the metrics by name.
    """

    algorithm: Any
    problem: Any
    network: Any
    key: Any
    recorded: dict[str, Any]
    judged: Any = None


class Beginning(NamedTuple):
    """Where a run begins: at x0 or with a state.

    Attributes:
        x0: [n, d], or None.
        state: the method's, or None.
        start: the first step's number.
        before: the last record of the run that goes on here, or None.
    """

    x0: Any
    state: Any
    start: Any
    before: dict[str, Any] | None


@Program
def simulate(
    parts: Parts,
    beginning: Beginning,
    *,
    known_costs: tuple[str, ...] | None,
    steps: int,
    every: int,
) -> Result:
    """Return the whole run, as one scan."""
    start = beginning.start
    loop = Loop(parts, mesh_axes((parts[:4], beginning[:3])))
    state, first = loop.begin(beginning, known_costs)
    ks = start + jnp.arange(steps).reshape(-1, every)
    state, (rest, records) = jax.lax.scan(loop.record, state, ks)
    history = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b.astype(a.dtype)]), first, rest)
    increments = loop.ledger.rates.history(records, every)
    increments["step"] = jnp.full((steps // every + 1,), every).at[0].set(start)
    ended = loop.diverged(state)
    return Result(state, history, increments, ended, parts.key, own_axes=loop.ledger.read)


@Program
def begin(parts: Parts, beginning: Beginning, *, known_costs: tuple[str, ...] | None) -> Begun:
    """Return what `chunk` goes on from."""
    loop = Loop(parts, set())
    state, first = loop.begin(beginning, known_costs)
    empty = loop.ledger.record(loop.ledger.empty())
    return Begun(
        state, first, empty, loop.ledger.rates, loop.diverged(state), own_axes=loop.ledger.read
    )


@functools.partial(Program, donates=True)
def chunk(
    parts: Parts,
    start: jax.Array,
    count: Any,
    until: dict[str, jax.Array] | None,
    state: Any,
    *,
    every: int,
    capacity: int,
    fixed_count: int | None,
) -> Chunk:
    """Return the state after ``count`` more records from step ``start``, and these records.

    The loop ends before where ``until`` is reached. Of the rows that are returned, ``capacity``,
    the first ones are the records'.
    """
    loop = Loop(parts, set(), _backend.scan)
    loop.account_for(state, start)
    count = count if fixed_count is None else fixed_count

    def go_on(carry: Any) -> jax.Array:
        taken, _, _, reached = carry
        return (taken < count) & (reached == GOES_ON)

    def one_record(carry: Any) -> Any:
        taken, state, rows, _ = carry
        state, row = loop.record(state, start + taken * every + jnp.arange(every))
        rows = jax.tree.map(
            lambda all_, one: jax.lax.dynamic_update_index_in_dim(all_, one, taken, 0), rows, row
        )
        return taken + 1, state, rows, loop.reached(state, row[0], until)

    row = jax.eval_shape(lambda: loop.record(state, start + jnp.arange(every))[1])
    rows = jax.tree.map(lambda leaf: jnp.zeros((capacity, *leaf.shape), leaf.dtype), row)
    none = jnp.zeros((), int), state, rows, jnp.int32(GOES_ON)
    taken, state, (metrics, records), reached = jax.lax.while_loop(
        go_on if until is not None else lambda carry: carry[0] < count, one_record, none
    )
    return Chunk(state, metrics, records, taken, reached, loop.diverged(state))


class Loop:
    """The steps of a run, while it is traced.

    Args:
        parts: what takes the steps.
        axes: those of a mesh, along which the carry varies.
        scan: the loop over the steps of a record, `jax.lax.scan` or what does the same.
    """

    def __init__(
        self, parts: Parts, axes: set[str], scan: Callable[..., Any] = jax.lax.scan
    ) -> None:
        self.algorithm, self.problem, self.network = map(disclose, parts[:3])
        self.judged = self.problem if parts.judged is None else disclose(parts.judged)
        self.key, self.recorded, self.axes, self.scan = parts.key, parts.recorded, axes, scan
        self.counted = _costs.axes_of(self.algorithm, self.problem, self.network)

    def begin(
        self, beginning: Beginning, known_costs: tuple[str, ...] | None
    ) -> tuple[Any, dict[str, Any]]:
        """Return the first state and its record, and refuse what does not fit."""
        x0, state, start, before = beginning
        self.dtype = jnp.result_type(*jax.tree.leaves(x0 if state is None else state.x))

        def initial(x0: Any) -> Any:
            method = at(self.algorithm, start)
            state = method.init(x0, self.problem, self._round(start), self.key)
            return jax.tree.map(strong, state)

        if state is None:
            state = spread(initial(spread(x0, self.axes)), self.axes)
        else:
            state = spread(jax.tree.map(strong, state), self.axes)
            require_state(self.algorithm, state, jax.eval_shape(initial, state.x))
        roles.require_told_apart(self.algorithm, self._round(start), state)
        by_values = "values" in getattr(self.algorithm, "needs", ())
        (require_values if by_values else require_gradient)(self.problem, state.x, self.key)
        _require_preserved(state, jax.eval_shape(self._step, state, start)[0])
        self.account_for(state, start)
        if before is None:
            return state, self._measure(state)
        known = {*self.ledger.shapes, "step"}
        require_records(before, jax.eval_shape(self._measure, state), known_costs, known)
        return state, before

    def account_for(self, state: Any, k: jax.Array) -> None:
        """Find out which costs vary, in a run from a state at step ``k``."""
        self.dtype = jnp.result_type(*jax.tree.leaves(state.x))

        def costs(state: Any, k: jax.Array) -> dict[str, jax.Array]:
            return self._costs(state, *self._of_step(k))

        self.ledger = Ledger(self.counted, costs, state, k)

    def record(self, state: Any, ks: jax.Array) -> tuple[Any, Any]:
        """Return the state after the steps ``ks``, and its record: metrics and accounts."""
        carry = spread((state, self.ledger.empty()), self.axes)
        (state, accounts), _ = self.scan(self._accumulate, carry, ks)
        return state, (self._measure(state), self.ledger.record(accounts))

    def reached(self, state: Any, row: dict[str, Any], until: dict[str, Any] | None) -> jax.Array:
        """Return why the run ends with this record, or `GOES_ON`."""
        if until is None:
            return jnp.int32(GOES_ON)
        met = [row[name] <= value for name, value in until.items()]
        done = jnp.all(jnp.array(met)) if met else False
        reached = jnp.where(done, UNTIL, GOES_ON)
        return jnp.where(self.diverged(state), DIVERGED, reached).astype(jnp.int32)

    def _accumulate(self, carry: Any, k: jax.Array) -> tuple[Any, None]:
        state, accounts = carry
        state, more = self._step(state, k)
        return spread((state, self.ledger.add(accounts, more)), self.axes), None

    def _step(self, state: Any, k: jax.Array) -> tuple[Any, dict[str, jax.Array]]:
        method, now = self._of_step(k)
        after = method.step(state, self.problem, now, jax.random.fold_in(self.key, k))
        if not hasattr(method, "needs"):  # the others' own steps see to it
            after = roles.freeze(now, state, after)
        return after, self._costs(after, method, now)

    def _costs(self, state: Any, method: Any, now: Any) -> dict[str, jax.Array]:
        return _costs.increments(self.counted, method, state, self.problem, now, self.judged)

    def _of_step(self, k: jax.Array) -> tuple[Any, Any]:
        return cast_floats(at(self.algorithm, k), self.dtype), self._round(k)

    def _round(self, k: jax.Array) -> Any:
        return self.network.at(k, self.key)

    def diverged(self, state: Any) -> jax.Array:
        """Return whether honest agents' x has values that are not finite, or it is not valid."""
        return diverged(honest.seen(state, self.network))

    def _measure(self, state: Any) -> dict[str, Any]:
        seen = honest.seen(state, self.network)
        return {
            name: _measured(name, metric, seen, self.judged)
            for name, metric in self.recorded.items()
        }


def diverged(state: Any) -> jax.Array:
    """Return whether x has values that are not finite, or the state is not ``valid``."""
    finite = [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(state.x)]
    sound = jnp.all(jnp.array(finite)) & getattr(state, "valid", True)
    return ~sound


def mesh_axes(tree: Any) -> set[str]:
    """Return the axes of a mesh along which some array varies: none outside of `jax.shard_map`."""
    arrays = [leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.Array)]
    return {axis for leaf in arrays for axis in _axes(leaf)}


def spread(tree: Any, axes: set[str]) -> Any:
    """Let all leaves vary along the same axes of a mesh.

    Under `jax.shard_map` a loop needs it, and so does a gradient: with respect to an x that is the
    same on all devices it would be the sum of theirs.
    """

    def leaf(value: Any) -> Any:
        missing = sorted(axes - set(_axes(value)))
        return jax.lax.pcast(value, tuple(missing), to="varying") if missing else value

    return jax.tree.map(leaf, tree) if axes else tree


def _axes(leaf: Any) -> Any:
    manual = jax.typeof(leaf).manual_axis_type
    return () if manual is None else manual.varying


def _measured(name: str, metric: Callable[..., Any], state: Any, problem: Any) -> jax.Array:
    try:
        value = metric(state, problem)
    except Exception as error:
        error.add_note(f"In metric {name!r}: it is traced, so write it in jax.numpy.")
        raise
    dtype = np.result_type(type(value)) if np.isscalar(value) else getattr(value, "dtype", None)
    numeric = dtype is not None and any(
        jnp.issubdtype(dtype, kind) for kind in (jnp.number, jnp.bool_)
    )
    require(numeric, f"metric {name!r} returns {kind(value)}; return one array of numbers.")
    return jnp.asarray(value)


def _require_preserved(before: Any, after: Any) -> None:
    old, treedef = jax.tree_util.tree_flatten_with_path(before)
    new, changed = jax.tree.flatten(after)
    require(
        treedef == changed,
        f"step turns a state of structure {treedef} into one of {changed}; return the same fields.",
    )
    for (path, a), b in zip(old, new, strict=True):
        require(
            (a.shape, a.dtype) == (b.shape, b.dtype),
            f"step changes state{jax.tree_util.keystr(path)} from {a.dtype}{list(a.shape)} to "
            f"{b.dtype}{list(b.shape)}; give x0 the dtype of the problem's data, as "
            "problem.start() does, or let step keep shapes and dtypes.",
        )
