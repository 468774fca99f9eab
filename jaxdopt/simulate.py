"""`run`: a method on a problem over a network, as a scan that records every k-th state."""

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdopt import _backend, _repr, checkpoints, longrun, roles
from jaxdopt import costs as _costs
from jaxdopt import metrics as _metrics
from jaxdopt._arguments import (
    as_estimates,
    kind,
    require_after,
    require_agents,
    require_counts,
    require_gradient,
    require_horizon,
    require_key,
    require_kind,
    require_kinds,
    require_metrics,
    require_numbers,
    require_records,
    require_schedules,
    require_span,
    require_state,
    strong,
)
from jaxdopt._checks import require
from jaxdopt._leaves import cast_floats, is_traced
from jaxdopt._memory import require_room
from jaxdopt._mesh import explicit_mesh, on_automatic_axes
from jaxdopt._opaque import disclose, enclose, traceable
from jaxdopt._pytree import pytree, replace, static
from jaxdopt.programs import Program, cast, once
from jaxdopt.schedules import at

_default = functools.cache(traceable)  # of default metrics: the same object at every call


@pytree
class Result:
    """What a run leaves behind; under vmap every leaf has the sweep's axes in front.

    Attributes:
        state: the last state; ``state.x`` is [n, d].
        metrics: recorded values by name, [records + 1, ...].
        costs: what was spent between records, by axis; ``history`` has the totals.
        diverged: whether the last x has values that are not finite, or the state is not ``valid``.
        key: the run's, with which ``after`` goes on.
        axes: names of the innermost swept axes.
        own_axes: the axes of costs that the run's parts have declared.
        stopped: why the run ended before its last step: "until" where its targets are reached,
            "diverged" where it was to stop then, "interrupt" after Ctrl-C; None if it did not.
    """

    state: Any
    metrics: Any
    costs: Any
    diverged: Any
    key: Any
    axes: tuple[str | None, ...] = static(default=())
    own_axes: tuple[tuple[str, _costs.Axis, int], ...] = static(default=())
    stopped: str | None = static(default=None)

    def _facts(self) -> dict[str, str]:
        batch = np.ndim(self.diverged)
        rows = next(iter(self.costs.values())).shape[batch]
        facts = {"steps": _repr.span(self.next_step), "records": str(rows)}
        if batch:
            unnamed = (None,) * (batch - len(self.axes))
            named = zip((*unnamed, *self.axes), np.shape(self.diverged), strict=True)
            facts["swept"] = " x ".join(f"{name or 'members'}[{size}]" for name, size in named)
        facts["diverged"] = _repr.share(self.diverged)
        if self.stopped is not None:
            facts["stopped"] = self.stopped
        for name, rows in self.metrics.items():
            scalar = np.ndim(rows) == batch + 1 and not is_traced(rows)
            facts[name] = _repr.span(np.asarray(rows)[..., -1]) if scalar else _repr.brief(rows)
        return facts | {"memory": _repr.memory(self)}

    @property
    def next_step(self) -> Any:
        """The number of the step that comes next, of all members if they agree."""
        steps = self.costs["step"]
        return jnp.sum(steps, axis=-1) if is_traced(steps) else np.sum(np.asarray(steps), axis=-1)

    @property
    def history(self) -> dict[str, Any]:
        """All records by name, row 0 being x0: the metrics, and the axes to draw them against.

        Axes: ``step``; ``epochs`` (passes over an agent's data), ``gradients`` (component
        gradients an agent), ``rounds`` of communication, ``vectors`` and ``bits`` (over one link
        of an agent), ``traffic`` (bits over all links together), ``seconds`` (simulated: a gradient
        takes one and messages none, unless the network is a `jd.networks.timed` or a
        `jd.networks.timeline`). NumPy arrays, the axes summed in float64; inside a transformation,
        traced ones.
        """
        own = {name: (axis, -1 - ndim) for name, axis, ndim in self.own_axes}
        plain = _costs.Axis(lambda _: None), -1

        def on_host(metric: Any) -> Any:
            return metric if is_traced(metric) else np.asarray(metric)

        totals = {}
        for name, cost in self.costs.items():
            axis, records = own.get(name, plain)
            totals[name] = axis.total(cost, records)
        totals["step"] = totals["step"].astype(int)
        return {**totals, **jax.tree.map(on_host, self.metrics)}


def run(
    algorithm: Any,
    problem: Any,
    network: Any,
    x0: Any = None,
    key: Any = None,
    *,
    steps: int,
    every: int = 1,
    metrics: dict[str, Any] | None = None,
    defaults: Sequence[str] | None = None,
    after: Result | None = None,
    state: Any = None,
    start: Any = 0,
    progress: bool | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: float = 60.0,
    until: Mapping[str, Any] | None = None,
    callback: Callable[[dict[str, Any]], Any] | None = None,
) -> Result:
    """Run a method for ``steps`` steps; record the start and every ``every``-th state.

    It is the loop ``state = at(algorithm, k).step(state, problem, network.at(k, key),
    fold_in(key, k))`` for k = start ... start + steps − 1, from ``algorithm.init``, jitted. It
    compiles once for each structure of its arguments: numbers, weights, data, keys and ``start``
    are traced, so none of them compiles anew, nor does a lambda that is written again (what
    compares them, and how many programs are kept, is in `jaxdopt.programs`). It goes under
    `jax.vmap`, `jax.grad` and `jax.jit`.

    Args:
        algorithm: a method with ``init``, ``step`` and maybe ``cost``; a method without costs one
            gradient and one exchange of one vector a step.
        problem: with ``n``, ``d`` and ``grad``, and as much more as it knows. Objects that are no
            pytrees will do; what they hold is then part of the program.
        network: with ``n``, ``@`` and ``at``.
        x0: [n, d], usually ``problem.start()``; its dtype is the run's. None with ``after`` or
            ``state``.
        key: from `jax.random.key`; with ``after`` it may be left out.
        steps: how many steps to take, a multiple of ``every``.
        every: how many steps a record covers.
        metrics: {name: (state, problem) -> array of any shape}, in addition to the defaults.
        defaults: which of `metrics.defaults` to record, by name: all by default, () for none. Most
            cost a pass over all data a record.
        after: the `Result` to go on from, exactly as one longer run would have: from its state, at
            its last step, with its key. The histories are joined. Numbers, such as the stepsize,
            and ``every`` may change; what is recorded may not.
        state: the state to start from instead of ``algorithm.init``, for loops of one's own.
        start: the first step's number.
        progress: show a bar with the rate and a metric; None: once a run takes two seconds.
        checkpoint: a folder, in which the run is saved every ``checkpoint_every`` seconds and at
            its end, and from which the same call goes on exactly; with more ``steps``, it extends
            the run. It needs ``jaxdopt[checkpoints]``.
        checkpoint_every: seconds.
        until: {metric: value}: stop at the first record in which all these metrics are at most
            their values, or x is not finite; {"diverged": True}: only then.
        callback: called with every record, {"step": k, metric: value}, in order, while the next
            ones are computed.

    Returns:
        A `Result`; ``result.history["gap"]`` is [steps / every + 1], preceded by the records of
        ``after``. If ``result.stopped`` is not None, it has fewer records.

    Raises:
        ValueError: counts, shapes, dtypes or keys that do not fit, or more memory than there is,
            before any work; one of the last five arguments given to a run that is traced, as in a
            sweep; a ``checkpoint`` of another run. Divergence raises nothing: the history is then
            infinite or NaN and ``diverged`` is true.

    **Long runs.** A call that may take more than half a second, and one with any of the last five
    arguments, goes in chunks of half a second, the same bit for bit. After the first Ctrl-C it
    returns the records that there are, and ``result.stopped`` is "interrupt"; a second one raises
    `KeyboardInterrupt`. With a ``checkpoint``, SIGTERM saves the run before it takes its course.

    Example:
        >>> import jaxdopt as jd
        >>> problem = jd.problems.quadratic(4, 2)
        >>> setting = jd.DGD(0.1), problem, jd.networks.metropolis(jd.graphs.ring(4))
        >>> first = run(*setting, problem.start(), jax.random.key(0), steps=10, every=5)
        >>> run(*setting, steps=5, every=5, after=first).history["rounds"]
        array([ 0.,  5., 10., 15.])
    """
    mesh = explicit_mesh((x0, state, getattr(after, "state", None)))
    if mesh is not None:
        given = {"algorithm": algorithm, "problem": problem, "network": network, "x0": x0}
        given |= {"key": key, "after": after, "state": state, "start": start}
        options = {"steps": steps, "every": every, "metrics": metrics, "defaults": defaults}
        options |= {"progress": progress, "checkpoint": checkpoint, "until": until}
        options |= {"checkpoint_every": checkpoint_every, "callback": callback}
        return on_automatic_axes(mesh, lambda given: run(**given, **options), given)
    axes, known = once(_fitting, algorithm, problem, network)
    if state is not None:
        require_kind("state", state)
    require_counts(steps, every, start)
    if after is not None:
        require_after(after, x0, key, state, start)
        state, key = after.state, after.key if key is None else key
        start = after.next_step
    require_span(start, steps)
    require_horizon(network, start, steps)
    require_key(key)
    if state is None:
        require(x0 is not None, "x0 is None and there is no state; give problem.start().")
        x0 = as_estimates(x0, problem)
    else:
        require(
            x0 is None,
            "both x0 and a state are given; give x0=None to go on from the state.",
        )
    if is_traced(start):
        start = jnp.asarray(start, int)
    else:  # on the host, where a cast costs no call of the device
        start = jax.dtypes.canonicalize_dtype(int).type(start)
    x = x0 if state is None else state.x
    require_agents(problem, network, x)
    require_schedules(algorithm, start, steps)
    dtype = x.dtype if isinstance(x, jax.Array) else jnp.result_type(*jax.tree.leaves(x))
    weights = dtype if dtype.itemsize > 2 else np.dtype(np.float32)
    known = require_metrics(metrics, defaults, known, axes)
    before = None if after is None else {name: rows[-1] for name, rows in after.metrics.items()}
    setting = (
        enclose(cast(algorithm, dtype)),
        enclose(problem),
        enclose(cast(network, weights)),
        x0,
        key,
        {n: traceable(m) if n in (metrics or ()) else _default(m) for n, m in known.items()},
        state,
        start,
        before,
    )
    lengths = {
        "known_costs": None if after is None else tuple(sorted(after.costs)),
        "steps": steps,
        "every": every,
    }
    options = longrun.options_of(known, progress, checkpoint, checkpoint_every, until, callback)
    numbers = once(longrun.numbers_in, problem, network) + longrun.numbers_in(x)
    given = {"algorithm": algorithm, "problem": problem, "network": network, "x0": x0, "key": key}
    given |= {"state": state, "start": start, "steps": steps, "every": every}
    given |= {"metrics": metrics, "defaults": defaults}
    records = 1 if until is not None else steps // every  # as many as there are until then
    require_room(lambda given: run(**given), given, (x, problem), records=records)
    try:
        if longrun.in_chunks(options, steps, numbers, setting):
            depends_on = {
                "method": algorithm,
                "problem": problem,
                "network": network,
                "start": x0 if state is None else state,
                "key": key,
                "first step": start,
                "every": every,
                "metrics": known,
            }
            result = _run_in_chunks(setting, options, depends_on, **lengths)
        else:
            result = _simulate(*setting, **lengths)
    except roles.Missing as missing:  # of a method that has not said what it needs
        raise ValueError(f"in {type(algorithm).__name__}, {missing}") from missing
    return result if after is None else _joined(after, result)


def _run_in_chunks(
    setting: tuple[Any, ...],
    options: longrun.Options,
    depends_on: dict[str, Any],
    *,
    known_costs: tuple[str, ...] | None,
    steps: int,
    every: int,
) -> Result:
    """Return what `_simulate` does, with looks at the run while it goes on."""
    algorithm, problem, network, _, key, recorded, _, start, before = setting
    folder = None
    if options.checkpoint is not None:
        folder = checkpoints.Folder(options.checkpoint, depends_on)
    begun = _begin(*setting, known_costs=known_costs)

    def chunk(state: Any, k: Any, count: Any, fixed_count: int | None) -> longrun.Chunk:
        return _chunk(
            algorithm,
            problem,
            network,
            key,
            recorded,
            k,
            count,
            options.targets,
            state,
            every=every,
            capacity=begun.capacity,
            fixed_count=fixed_count,
        )

    found = longrun.drive(
        begun,
        chunk,
        given=setting,
        start=start,
        steps=steps,
        every=every,
        options=options,
        folder=folder,
        reported_first=before is not None,
    )
    return Result(key=key, **found)


def _fitting(algorithm: Any, problem: Any, network: Any) -> tuple[set[str], dict[str, Any]]:
    """Return the names of what else a run records, and the default metrics, if the parts fit."""
    require_kinds(algorithm, problem, network)
    roles.check(algorithm, network, problem)
    require_numbers(algorithm, problem.n)
    names = {*_costs.axes_of(algorithm, problem, network), "step", "diverged"}
    return names, _metrics.defaults(problem)


def _joined(before: Result, after: Result) -> Result:
    """Return one result of two runs; the second one's row 0 is the first one's last."""

    def join(a: Any, b: Any) -> Any:  # on the host, as every length would be another program
        if is_traced((a, b)):
            return jnp.concatenate([a, b[1:]])
        return np.concatenate([np.asarray(a), np.asarray(b)[1:]])

    metrics, costs = (
        jax.tree.map(join, getattr(before, name), getattr(after, name))
        for name in ("metrics", "costs")
    )
    return replace(after, metrics=metrics, costs=costs)


@Program
def _simulate(
    algorithm: Any,
    problem: Any,
    network: Any,
    x0: Any,
    key: jax.Array,
    recorded: dict[str, Any],
    state: Any,
    start: jax.Array,
    before: dict[str, Any] | None,
    *,
    known_costs: tuple[str, ...] | None,
    steps: int,
    every: int,
) -> Result:
    """Return the whole run, as one scan."""
    axes = mesh_axes((algorithm, problem, network, x0, state, key, start))
    loop = _Loop(algorithm, problem, network, key, recorded, axes)
    state, first = loop.begin(x0, state, start, before, known_costs)
    ks = start + jnp.arange(steps).reshape(-1, every)
    state, (rest, records) = jax.lax.scan(loop.record, state, ks)
    history = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b.astype(a.dtype)]), first, rest)
    increments = loop.ledger.rates.history(records, every)
    increments["step"] = jnp.full((steps // every + 1,), every).at[0].set(start)
    return Result(state, history, increments, diverged(state), key, own_axes=loop.ledger.read)


@Program
def _begin(
    algorithm: Any,
    problem: Any,
    network: Any,
    x0: Any,
    key: jax.Array,
    recorded: dict[str, Any],
    state: Any,
    start: jax.Array,
    before: dict[str, Any] | None,
    *,
    known_costs: tuple[str, ...] | None,
) -> longrun.Begun:
    """Return what `_chunk` goes on from."""
    loop = _Loop(algorithm, problem, network, key, recorded, set())
    state, first = loop.begin(x0, state, start, before, known_costs)
    empty = loop.ledger.record(loop.ledger.empty())
    return longrun.Begun(
        state, first, empty, loop.ledger.rates, diverged(state), own_axes=loop.ledger.read
    )


@functools.partial(Program, donates=True)
def _chunk(
    algorithm: Any,
    problem: Any,
    network: Any,
    key: jax.Array,
    recorded: dict[str, Any],
    start: jax.Array,
    count: Any,
    until: dict[str, jax.Array] | None,
    state: Any,
    *,
    every: int,
    capacity: int,
    fixed_count: int | None,
) -> longrun.Chunk:
    """Return the state after ``count`` more records from step ``start``, and these records.

    The loop ends before where ``until`` is reached. Of the rows that are returned, ``capacity``,
    the first ones are the records'.
    """
    loop = _Loop(algorithm, problem, network, key, recorded, set(), _backend.scan)
    loop.account_for(state, start)
    count = count if fixed_count is None else fixed_count

    def go_on(carry: Any) -> jax.Array:
        taken, _, _, reached = carry
        return (taken < count) & (reached == longrun.GOES_ON)

    def one_record(carry: Any) -> Any:
        taken, state, rows, _ = carry
        state, row = loop.record(state, start + taken * every + jnp.arange(every))
        rows = jax.tree.map(
            lambda all_, one: jax.lax.dynamic_update_index_in_dim(all_, one, taken, 0), rows, row
        )
        return taken + 1, state, rows, loop.reached(state, row[0], until)

    row = jax.eval_shape(lambda: loop.record(state, start + jnp.arange(every))[1])
    rows = jax.tree.map(lambda leaf: jnp.zeros((capacity, *leaf.shape), leaf.dtype), row)
    none = jnp.zeros((), int), state, rows, jnp.int32(longrun.GOES_ON)
    taken, state, (metrics, records), reached = jax.lax.while_loop(
        go_on if until is not None else lambda carry: carry[0] < count, one_record, none
    )
    return longrun.Chunk(state, metrics, records, taken, reached, diverged(state))


class _Loop:
    """The mathematics of a run, while it is traced: of a scan of all records, or of some of them.

    Args:
        algorithm, problem, network: as `enclose` returns them, in the run's dtypes.
        key: the run's.
        recorded: the metrics by name.
        axes: those of a mesh, along which the carry varies.
        scan: the loop over the steps of a record, `jax.lax.scan` or what does the same.
    """

    def __init__(
        self,
        algorithm: Any,
        problem: Any,
        network: Any,
        key: jax.Array,
        recorded: dict[str, Any],
        axes: set[str],
        scan: Callable[..., Any] = jax.lax.scan,
    ) -> None:
        self.algorithm, self.problem, self.network = map(disclose, (algorithm, problem, network))
        self.key, self.recorded, self.axes, self.scan = key, recorded, axes, scan
        self.counted = _costs.axes_of(self.algorithm, self.problem, self.network)

    def begin(
        self,
        x0: Any,
        state: Any,
        start: jax.Array,
        before: dict[str, Any] | None,
        known_costs: tuple[str, ...] | None,
    ) -> tuple[Any, dict[str, Any]]:
        """Return the first state and its record, and refuse what does not fit."""
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
        require_gradient(self.problem, state.x, self.key)
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

        self.ledger = _costs.Ledger(self.counted, costs, state, k)

    def record(self, state: Any, ks: jax.Array) -> tuple[Any, Any]:
        """Return the state after the steps ``ks``, and its record: metrics and accounts."""
        carry = spread((state, self.ledger.empty()), self.axes)
        (state, accounts), _ = self.scan(self._accumulate, carry, ks)
        return state, (self._measure(state), self.ledger.record(accounts))

    def reached(self, state: Any, row: dict[str, Any], until: dict[str, Any] | None) -> jax.Array:
        """Return why the run ends with this record, or `longrun.GOES_ON`."""
        if until is None:
            return jnp.int32(longrun.GOES_ON)
        met = [row[name] <= value for name, value in until.items()]
        done = jnp.all(jnp.array(met)) if met else False
        reached = jnp.where(done, longrun.UNTIL, longrun.GOES_ON)
        return jnp.where(diverged(state), longrun.DIVERGED, reached).astype(jnp.int32)

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
        return _costs.increments(self.counted, method, state, self.problem, now)

    def _of_step(self, k: jax.Array) -> tuple[Any, Any]:
        return cast_floats(at(self.algorithm, k), self.dtype), self._round(k)

    def _round(self, k: jax.Array) -> Any:
        return self.network.at(k, self.key)

    def _measure(self, state: Any) -> dict[str, Any]:
        return {
            name: _measured(name, metric, state, self.problem)
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
