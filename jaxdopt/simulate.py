"""`run`: a method on a problem over a network, as a scan that records every k-th state."""

import contextlib
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdopt import checkpoints, longrun, loop, roles
from jaxdopt import costs as _costs
from jaxdopt import metrics as _metrics
from jaxdopt._arguments import (
    as_estimates,
    require_after,
    require_agents,
    require_counts,
    require_horizon,
    require_key,
    require_kind,
    require_kinds,
    require_metrics,
    require_numbers,
    require_schedules,
    require_span,
)
from jaxdopt._checks import require
from jaxdopt._leaves import is_traced
from jaxdopt._memory import require_room
from jaxdopt._mesh import explicit_mesh, on_automatic_axes
from jaxdopt._opaque import enclose, traceable
from jaxdopt._processes import spans
from jaxdopt.honest import measured, told_apart
from jaxdopt.loop import Beginning, Parts
from jaxdopt.networks import sharding
from jaxdopt.programs import cast, once
from jaxdopt.records import Chunk
from jaxdopt.results import Result, joined, readable, specs

_default = functools.cache(traceable)  # of default metrics: the same object at every call


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
            ones are computed; of several processes in the first one.

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
    begun = getattr(after, "state", None) if state is None else state
    x = x0 if begun is None else getattr(begun, "x", None)
    told = x, key if is_traced(key) else None  # JAX takes long to say where keys are
    mesh = explicit_mesh(told) or once(explicit_mesh, problem)
    if mesh is not None:
        given = {"algorithm": algorithm, "problem": problem, "network": network, "x0": x0}
        given |= {"key": key, "after": after, "state": state, "start": start}
        options = {"steps": steps, "every": every, "metrics": metrics, "defaults": defaults}
        options |= {"progress": progress, "checkpoint": checkpoint, "until": until}
        options |= {"checkpoint_every": checkpoint_every, "callback": callback}
        return on_automatic_axes(
            mesh,
            lambda given: run(**given, **options),
            given,
            lambda result: specs(result, (), x),
        )
    problem, judged = told_apart(measured(problem, network))
    axes, known = once(_fitting, algorithm, problem, network, judged)
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
    mixing = cast(network, weights)
    spread = sharding.along(jax.tree.leaves(x)[0])
    if spread is not None:
        mixing = cast(once(spread, network), weights)
    parts = Parts(
        enclose(cast(algorithm, dtype)),
        enclose(problem),
        enclose(mixing),
        key,
        {n: traceable(m) if n in (metrics or ()) else _default(m) for n, m in known.items()},
        None if judged is problem else enclose(judged),
    )
    before = None if after is None else {name: rows[-1] for name, rows in after.metrics.items()}
    beginning = Beginning(x0, state, start, before)
    known_costs = None if after is None else tuple(sorted(after.costs))
    lengths = {"known_costs": known_costs, "steps": steps, "every": every}
    options = longrun.options_of(known, progress, checkpoint, checkpoint_every, until, callback)
    numbers = once(longrun.numbers_in, problem, network) + longrun.numbers_in(x)
    given = {"algorithm": algorithm, "problem": problem, "network": network, "x0": x0, "key": key}
    given |= {"state": state, "start": start, "steps": steps, "every": every}
    given |= {"metrics": metrics, "defaults": defaults}
    records = 1 if until is not None else steps // every  # as many as there are until then
    require_room(lambda given: run(**given), given, (x, problem), records=records)
    try:
        if longrun.in_chunks(options, steps, numbers, (parts, beginning)):
            folder = None
            if checkpoint is not None:
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
                shared = spans((parts, beginning))
                folder = checkpoints.Folder(checkpoint, depends_on, shared=shared)
            with contextlib.nullcontext() if folder is None else contextlib.closing(folder):
                result = _in_chunks(parts, beginning, options, folder, **lengths)
        else:
            result = readable(loop.simulate(parts, beginning, **lengths))
    except roles.Missing as missing:  # of a method that has not said what it needs
        raise ValueError(f"in {type(algorithm).__name__}, {missing}") from missing
    return result if after is None else joined(after, result)


def _in_chunks(
    parts: Parts,
    beginning: Beginning,
    options: longrun.Options,
    folder: checkpoints.Folder | None,
    *,
    known_costs: tuple[str, ...] | None,
    steps: int,
    every: int,
) -> Result:
    """Return what `loop.simulate` does, with looks at the run while it goes on."""
    begun = loop.begin(parts, beginning, known_costs=known_costs)
    lengths = {"every": every, "capacity": begun.capacity}

    def chunk(state: Any, k: Any, count: Any, fixed_count: int | None) -> Chunk:
        more = {"fixed_count": fixed_count, **lengths}
        return loop.chunk(parts, k, count, options.targets, state, **more)

    found = longrun.drive(
        begun,
        chunk,
        given=(parts, beginning),
        start=beginning.start,
        steps=steps,
        every=every,
        options=options,
        folder=folder,
        reported_first=beginning.before is not None,
    )
    return Result(key=parts.key, **found)


def _fitting(
    algorithm: Any, problem: Any, network: Any, judged: Any
) -> tuple[set[str], dict[str, Any]]:
    """Return the names of what else a run records, and the default metrics, if the parts fit."""
    require_kinds(algorithm, problem, network)
    roles.check(algorithm, network, problem)
    require_numbers(algorithm, problem.n)
    names = {*_costs.axes_of(algorithm, problem, network), "step", "diverged"}
    return names, _metrics.defaults(judged)
