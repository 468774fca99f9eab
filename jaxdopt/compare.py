"""Methods compared on networks, over hyperparameters and seeds, as one labelled dataset."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import operator
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdopt import _repr, checkpoints
from jaxdopt._arguments import require_kinds
from jaxdopt._checks import require
from jaxdopt._memory import amount
from jaxdopt.datasets import DIMENSIONS, about, labelled
from jaxdopt.fingerprint import fingerprint
from jaxdopt.grids import Common, Grid, Stacked, grids_of, named
from jaxdopt.honest import measured
from jaxdopt.longrun import Options
from jaxdopt.pieces import Batch, Layout, Pieces, brief, devices_of, divided, empty, waited_for
from jaxdopt.records import require_scalar
from jaxdopt.results import Result
from jaxdopt.settings import Cell, Setting, cells_of, in_one_form
from jaxdopt.simulate import run
from jaxdopt.sweep import bar_of, listed, nested

if TYPE_CHECKING:
    import xarray as xr

RESERVED = (*DIMENSIONS, "choice", "diverged")
GROUPS = (("algorithm", "own", "point"), ("key",))  # what goes along the axes of a sweep
STRETCHES = 16  # of a sweep that may stop early, at most


def compare(
    algorithms: Mapping[str, Any],
    problem: Any = None,
    networks: Any = None,
    *,
    over: Mapping[str, Any] | None = None,
    seeds: int | Iterable[int] = 1,
    steps: int,
    every: int = 1,
    x0: Any = None,
    metrics: dict[str, Any] | None = None,
    defaults: Sequence[str] | None = None,
    progress: bool | None = None,
    until: Mapping[str, Any] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    memory: float | str | None = None,
    devices: int | Sequence[Any] | None = None,
) -> xr.Dataset:
    """Run every method on every network for every hyperparameter and seed; label the histories.

    A method compiles once: networks are brought to one form (`jd.networks.stack`), and all values
    of ``over`` and all seeds run as one batch. Values that change the program, such as counts,
    compressors and kinds of schedules, run in separate batches. Seed s is the key
    ``jax.random.key(s)`` for every method, so that all use the same samples.

    Every method is traced on every network before the first one runs, so that anything that `run`
    refuses is refused at once. If a later run fails, or Ctrl-C interrupts it, which is answered at
    once, the exception has what is finished as its ``dataset``, in a notebook
    ``sys.last_value.dataset``. Runs that are missing there are NaN.

    Args:
        algorithms: {name: method}; the values of ``over`` replace theirs. A method on a problem or
            a network of its own, such as one that needs a tree or a server, is a `Setting`.
        problem: one problem for all; None if all methods have their own.
        networks: {name: network}, or one network; None if all methods have their own.
        over: {field: values}, the same for all methods, where several fields make a grid; or one
            grid for each method, {name: {field: values}}. Methods without a grid run unchanged.
            Values are a list or an array, or {label: value}. `Points` in place of a grid are values
            that go together, such as random ones. A field is the method's, that of what it wraps,
            or one further within by a dotted name: "compressor.k", "server.decay" of a
            `jd.optimizer`, "network.probability" of a `RandomLinks`; the last words will do where
            they name a single field.
        seeds: the number of seeds, or the seeds.
        steps: the number of steps of each run.
        every: the number of steps from one record to the next.
        x0: [n, d] for all; ``start()`` of each problem by default.
        metrics: additional metrics, as in `run`.
        defaults: which of the default metrics to record, as in `run`; all by default.
        progress: show a bar with the rate and a metric; None: once the call takes two seconds.
        until: {metric: value}, as in `run`: a member stops at the first record in which all these
            metrics are at most their values, and later records repeat this one. A method on a
            network, which is one sweep, ends early once all its members have stopped or diverged;
            this is asked up to 16 times in all.
        checkpoint: a folder that keeps every piece of a sweep when it is finished, and from which
            the same call takes it instead of running it again, as does another call for the same
            method, problem, network, values, seeds, steps, metrics and versions.
        memory: the bytes that may be taken at a time, or words such as "4 GiB", in which a sweep
            goes in pieces, as `sweep` says; by default what is free.
        devices: JAX's, or how many of them, over which the members of a sweep are spread, as
            `sweep` says.

    Returns:
        A dataset over algorithm, network, the fields of ``over``, seed and step; see `label`. If
        methods have different grids, or `Points`, their members lie along one dimension ``choice``,
        with the fields as coordinates over (algorithm, choice), NaN where a method has fewer. Its
        attributes are versions, the device, the time, all methods, what their settings are, steps,
        and the `jaxdopt.fingerprint` of all arguments: two datasets with the same one are
        answers to the same question.

    Raises:
        ValueError: before any work, if a method has no such field, `run` refuses a method, a
            network or a metric, problems have different metrics, or ``memory`` has no room for a
            single member.

    Example:
        >>> import jaxdopt as jd
        >>> dataset = jd.compare(
        ...     {"DGD": jd.DGD(0.1), "CHOCO": jd.CHOCOSGD(0.1, jd.compressors.TopK(2))},
        ...     jd.problems.quadratic(4, 5),
        ...     jd.networks.metropolis(jd.graphs.ring(4)),
        ...     over={
        ...         "DGD": {"stepsize": [0.1, 0.2]},
        ...         "CHOCO": {"consensus_stepsize": [0.1, 0.2, 0.4]},
        ...     },
        ...     steps=10,
        ...     progress=False,
        ... )
        >>> dataset["consensus_stepsize"].values
        array([[nan, nan, nan],
               [0.1, 0.2, 0.4]])
    """
    cells, labels = cells_of(algorithms, problem, networks)
    for cell in cells:
        with named(cell.title):
            require_kinds(cell.method, cell.problem, cell.network)
            require(
                cell.network.n == cell.problem.n,
                f"network{''.join(f' {label!r}' for label in cell.where)} is for {cell.network.n} "
                f"agents and the problem for {cell.problem.n}; give both the same.",
            )
            require(
                x0 is not None or hasattr(cell.problem, "start"),
                f"{type(cell.problem).__name__} has no start(); give x0, an [n, d] array.",
            )
    methods = {cell.name: cell.method for cell in cells}
    own, grids = grids_of(methods, over, {cell.name: cell.network for cell in reversed(cells)})
    which, keys = _keys(seeds)
    arguments = algorithms, problem, networks, over, x0, metrics, defaults, until
    asked = _asked(arguments, which, steps, every)
    starts = {id(cell.problem): cell.problem.start() for cell in cells} if x0 is None else {}
    cells = in_one_form(cells)

    options = Options(progress=progress, until=until, checkpoint=checkpoint)
    room = None if memory is None else amount(memory)
    spread = devices_of(devices)
    recorded = {"every": every, "metrics": metrics, "defaults": defaults}
    rows = steps // every
    later = steps if until is None else math.ceil(rows / STRETCHES) * every
    first = steps - (steps // later - 1) * later

    def simulate(
        given: Mapping[str, Any],
        steps: int = steps,
        after: Any = None,
        layout: Layout | None = None,
    ) -> Result:
        if after is not None:
            given = {**given, "x0": None, "after": after}
        return nested(_member, GROUPS, {**given, **recorded, "steps": steps}, layout)

    def history_of(given: Mapping[str, Any], layout: Layout | None) -> dict[str, Any]:
        result = waited_for(simulate(given, first, layout=layout))
        taken = first
        while taken < steps and not np.all(_ended(result, options.targets)):
            result = waited_for(simulate(given, later, result, layout))
            taken += later
        history = result.history | {"diverged": np.asarray(result.diverged)}
        return history if until is None else _held(history, options.targets, rows, every)

    parts: list[Part] = []
    for cell in cells:  # what run refuses is refused here; JAX keeps what it has traced
        with named(cell.title):
            for stacked in grids[cell.name].programs(cell.network):
                problem = measured(cell.problem, cell.network)
                batch = _batch(stacked, problem, starts.get(id(cell.problem), x0), keys)
                pieces = divided(
                    batch,
                    simulate,
                    room=room,
                    steps=steps,
                    records=rows,
                    devices=spread,
                    title=cell.title,
                )
                result = jax.eval_shape(functools.partial(simulate, pieces.first))
                parts.append(Part(cell, stacked.places, pieces, result))
    _require_labels(parts, grids)
    result = parts[0].result
    options.check(result.metrics)
    for name in options.targets or ():
        require_scalar(name, result.metrics[name].shape[3:])
    how = steps, recorded, options.targets
    done: dict[str, dict[str, xr.Dataset]] = {}

    def dataset() -> xr.Dataset:
        known = _about(methods, algorithms) | asked
        return _assembled(done, labels, grids, own).assign_attrs(known)

    def keep(cell: Cell, found: Mapping[int, dict[str, Any]]) -> None:
        """Put the histories of a cell's parts into the dataset."""
        whole = _gathered([(found[id(part)], part.places) for part in parts if part.cell is cell])
        labelled = _labelled(whole, grids[cell.name], which, own)
        done.setdefault(cell.name, {}).update(dict.fromkeys(cell.labels, labelled))

    total, finished = sum(part.pieces.batch.members for part in parts), 0
    with checkpoints.opened(checkpoint) as kept_of, bar_of(total, progress) as bar:

        def note(members: int, history: Mapping[str, Any]) -> None:
            nonlocal finished
            finished += members
            bar.set_postfix_str(brief(history, np.ndim(history["diverged"])), refresh=False)
            bar.update(members)

        found: dict[int, dict[str, Any]] = {}
        try:
            for cell in cells:
                bar.set_description(cell.title, refresh=False)
                found = {}
                for part in (part for part in parts if part.cell is cell):
                    history = functools.partial(history_of, layout=part.pieces.layout)
                    kept = kept_of((part.pieces.batch.given, how))
                    found[id(part)] = part.pieces.results(
                        history, like=part.names, kept=kept, note=note
                    )
                keep(cell, found)
        except BaseException as error:
            begun = [part for part in parts if part.cell is cell]
            found = _completed(begun, found, error, np.arange(rows + 1) * every)
            if found:
                keep(cell, found)
            error.dataset = dataset() if done else None  # type: ignore[attr-defined]
            error.add_note(
                f"{finished:,} of {total:,} runs of jd.compare are finished; they are kept as this "
                "exception's dataset (in a notebook: import sys; sys.last_value.dataset)."
            )
            raise
    return dataset()


def _member(
    algorithm: Any, networks: Common, own: Mapping[str, Any], point: Any, **options: Any
) -> Result:
    """Return the run of a method on the network with its own numbers."""
    del point  # which is there for methods without numbers
    return run(algorithm, network=networks.one(own), **options)


def _batch(stacked: Stacked, problem: Any, x0: Any, keys: jax.Array) -> Batch:
    """Return the arguments of `_member` for points of a grid and seeds."""
    given = {"algorithm": stacked.methods, "networks": stacked.networks, "own": stacked.differing}
    given |= {"point": jnp.arange(len(stacked.places)), "key": keys, "problem": problem, "x0": x0}
    places = {name: (axis,) for axis, group in enumerate(GROUPS) for name in group}
    return Batch(given, places, (len(stacked.places), len(keys)))


def _completed(
    parts: Sequence[Part],
    found: dict[int, dict[str, Any]],
    error: BaseException,
    steps: np.ndarray,
) -> dict[int, dict[str, Any]]:
    """Return the histories of a cell's parts where some are finished; what is missing is NaN."""
    found = dict(found)
    missing = [part for part in parts if id(part) not in found]
    if missing and hasattr(error, "result"):  # the first one is finished in part
        found[id(missing.pop(0))] = error.result  # type: ignore[attr-defined]
    if found:
        like = next(iter(found.values()))
        for part in missing:
            sizes = part.pieces.batch.sizes
            found[id(part)] = {name: empty(sizes, values[0, 0]) for name, values in like.items()}
    for history in found.values():
        history["step"] = np.broadcast_to(steps, history["step"].shape)
    return found


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """Points of a cell's grid that are one program.

    Attributes:
        cell: the method on its network.
        places: of the points in the grid.
        pieces: in which they are computed.
        result: of a piece, in shapes.
    """

    cell: Cell
    places: list[int]
    pieces: Pieces
    result: Result

    def names(self) -> dict[str, Any]:
        """Return a tree of the structure of a history."""
        return dict.fromkeys((*self.result.costs, *self.result.metrics, "diverged"), 0)


def _met(metrics: Mapping[str, Any], targets: Mapping[str, float]) -> np.ndarray:
    """Return where all targets are met, [methods, seeds, records]; nowhere if there are none."""
    met = [np.asarray(metrics[name]) <= value for name, value in targets.items()]
    return np.logical_and.reduce(met) if met else np.zeros((1, 1, 1), bool)


def _ended(result: Result, targets: Mapping[str, float] | None) -> Any:
    """Return which members have met their targets or have diverged."""
    if targets is None:
        return False
    return _met(result.metrics, targets).any(axis=-1) | np.asarray(result.diverged)


def _held(
    history: Mapping[str, Any], targets: Mapping[str, float] | None, records: int, every: int
) -> dict[str, Any]:
    """Return a history in which every member stays at its first record that meets the targets."""
    members, there = history["step"].shape[:2], history["step"].shape[2]
    met = np.broadcast_to(_met(history, targets or {}), (*members, there))
    reached = met.any(axis=-1)
    last = np.where(reached, met.argmax(axis=-1), there - 1)
    rows = np.minimum(np.arange(records + 1), last[..., None])

    def hold(values: np.ndarray) -> np.ndarray:
        return np.take_along_axis(values, rows.reshape(rows.shape + (1,) * (values.ndim - 3)), 2)

    held = {name: hold(values) for name, values in history.items() if name != "diverged"}
    held["step"] = np.broadcast_to(np.arange(records + 1) * every, rows.shape)
    return held | {"diverged": history["diverged"] & ~reached}


def _keys(seeds: Any) -> tuple[list[int], jax.Array]:
    """Return the seeds and their keys."""
    count = _integer(seeds)
    given = seeds if isinstance(seeds, Iterable) and count is None else range(count or 0)
    integers = [_integer(seed) for seed in given]
    which = [seed for seed in integers if seed is not None]
    require(
        len(which) > 0 and len(set(which)) == len(integers),
        f"seeds is {seeds!r}; give at least one, as a count or as different integers.",
    )
    beyond = [seed for seed in which if not -(2**63) <= seed < 2**63]
    require(not beyond, f"seeds has {beyond}; jax.random.key takes integers of 64 bits.")
    if min(which) >= 0 and max(which) < 2**31:
        keys = jax.vmap(jax.random.key)(jnp.asarray(which, jnp.int32))
    else:  # beyond 32 bits only a Python integer says the same with and without jax_enable_x64
        keys = jnp.stack([jax.random.key(seed) for seed in which])
    known: dict[bytes, int] = {}
    for seed, data in zip(which, np.asarray(jax.random.key_data(keys)), strict=True):
        other = known.setdefault(data.tobytes(), seed)
        require(
            other == seed,
            f"seeds has {other} and {seed}, which are the same jax.random.key, of 32 bits unless "
            "jax_enable_x64 is set; give integers that differ in them.",
        )
    return which, keys


def _integer(value: Any) -> int | None:
    """Return any integer of Python, NumPy or JAX as Python's; None for all else."""
    try:
        return None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        return None


def _require_labels(parts: Sequence[Part], grids: Mapping[str, Grid]) -> None:
    """Refuse names that stand for two things in the dataset, and metrics of different shapes."""
    fields = {field for grid in grids.values() for field in grid.fields}
    metrics: dict[str, tuple[Any, str]] = {}
    first = parts[0]
    for part in parts:
        cell, result = part.cell.title, part.result
        clash = sorted(fields & set(result.metrics))
        require(not clash, f"metric {listed(clash)} is named like a field; name it otherwise.")
        clash = sorted(fields & {*RESERVED, *result.costs})
        require(
            not clash,
            f"field {listed(clash)} is named like a dimension or an axis of the dataset; sweep "
            "over it with jd.sweep, and name it otherwise in jd.label.",
        )
        missing = {*first.result.metrics} ^ {*result.metrics}
        require(
            not missing,
            f"{first.cell.title} and {cell} do not have the same metrics: only one of them has "
            f"{listed(sorted(missing))}; name in defaults= what both have.",
        )
        clash = sorted({*RESERVED} & {*result.metrics})
        require(not clash, f"metric {listed(clash)} is named like a dimension; name it otherwise.")
        for metric, rows in result.metrics.items():
            shape, there = metrics.setdefault(metric, (rows.shape[3:], cell))
            require(
                rows.shape[3:] == shape,
                f"metric {metric!r} has shape {list(shape)} for {there} and {list(rows.shape[3:])} "
                f"for {cell}; return the same for all.",
            )


def _gathered(parts: list[tuple[dict[str, Any], list[int]]]) -> dict[str, Any]:
    """Return the histories of a grid's programs as one, in the order of the grid's points."""
    order = np.argsort([place for _, places in parts for place in places])
    names = parts[0][0]
    return {name: np.concatenate([history[name] for history, _ in parts])[order] for name in names}


def _labelled(history: dict[str, Any], grid: Grid, seeds: list[int], own: bool) -> xr.Dataset:
    """Return a history of all points of a grid as a dataset."""
    labels = {"choice": range(len(grid.points))} if own else grid.fields
    shape = tuple(map(len, labels.values()))
    shaped = {name: values.reshape(shape + values.shape[1:]) for name, values in history.items()}
    return labelled(shaped, labels | {"seed": seeds})


def _assembled(
    done: Mapping[str, Mapping[str, xr.Dataset]],
    labels: list[str],
    grids: Mapping[str, Grid],
    own: bool,
) -> xr.Dataset:
    """Return the datasets of methods and networks as one; what is missing is NaN."""
    import xarray as xr

    sizes: dict[str, list[Any]] = {"network": labels}
    if own:
        sizes["choice"] = list(range(max(len(grid.points) for grid in grids.values())))
    rows = [
        xr.concat(list(row.values()), _index("network", row)).reindex(
            sizes, fill_value={"diverged": False}
        )
        for row in done.values()
    ]
    dataset = xr.concat(rows, _index("algorithm", done))
    if own:
        swept = {field: None for grid in grids.values() for field in grid.fields}
        values = {
            field: _padded([grids[name].labels(field) for name in done], dataset.sizes["choice"])
            for field in swept
        }
        axes = ("algorithm", "choice")
        dataset = dataset.assign_coords({field: (axes, rows) for field, rows in values.items()})
    for grid in grids.values():
        for field, bounds in grid.bounds.items():
            dataset[field].attrs |= {"least": bounds.minimum, "most": bounds.maximum}
    return dataset


def _padded(rows: list[list[Any]], length: int) -> np.ndarray:
    """Return rows of labels as an array; None and what is missing are NaN, or "" among strings."""
    text = any(isinstance(label, str) for row in rows for label in row)
    rows = [row + [None] * (length - len(row)) for row in rows]
    missing = "" if text else math.nan
    return np.array(
        [[missing if v is None else str(v) if text else v for v in row] for row in rows]
    )


def _about(methods: Mapping[str, Any], algorithms: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is to be known about a dataset later on."""
    settings = {
        name: {
            role: _repr.line(getattr(member, role))
            for role in ("problem", "network")
            if getattr(member, role) is not None
        }
        for name, member in algorithms.items()
        if isinstance(member, Setting)
    }
    return {
        "algorithms": json.dumps({name: _repr.line(method) for name, method in methods.items()}),
        "settings": json.dumps(settings),
    } | about()


def _asked(arguments: Any, seeds: list[int], steps: int, every: int) -> dict[str, Any]:
    """Return the question that a comparison answers, and its fingerprint where all can be read."""
    asked = {"steps": steps, "every": every}
    try:
        return asked | {"fingerprint": fingerprint(arguments, seeds, *asked.values())}
    except (ValueError, TypeError, OSError):  # objects or code that cannot be read
        return asked


def _index(name: str, members: Iterable[str]) -> Any:
    import xarray as xr

    return xr.DataArray(list(members), dims=name, name=name)
