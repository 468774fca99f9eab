"""Many runs at once: sweeps under one compilation, and comparisons as labelled datasets."""

import contextlib
import dataclasses
import datetime
import functools
import inspect
import itertools
import json
import math
import operator
import platform
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from tqdm import tqdm

from jaxdopt import networks as _networks
from jaxdopt._arguments import require_kinds
from jaxdopt._pytree import number, number_fields, replace, require
from jaxdopt.simulate import Result, run

RESOLUTION = (
    1000  # rounding errors (of the starting value) within which final values count as equal
)
DIMENSIONS = ("algorithm", "network", "seed", "step")  # that are no hyperparameters
RESERVED = ("choice", "diverged")
MEMBER = "_member"  # a dimension of all combinations, while `best` chooses


def sweep(
    function: Callable[..., Any], over: str | Sequence[str] | Mapping[str, str]
) -> Callable[..., Any]:
    """Return ``function`` over all combinations of the values of some of its arguments.

    Each named argument gets a first axis on every leaf; the results have one axis a name in front,
    in the order of ``over``. It is a nest of `jax.vmap`s: `run` compiles once for all members.

    Args:
        function: `run`, or any function of pytrees.
        over: names of its parameters, such as ("algorithm", "network", "key"), or these with names
            for their axes, {"algorithm": "stepsize", "key": "seed"}, by which `label` knows them.

    A `Result` among the arguments that is not named, such as `run`'s ``after``, has been swept in
    the same way and goes along: every member gets its own. What it stands for, such as the key,
    may then be left out.

    Raises:
        ValueError: names that are not parameters, or an argument that is not given or not stacked.

    Example:
        >>> import jaxdopt as jd
        >>> methods = jax.vmap(jd.DGD)(jnp.array([0.1, 0.2]))
        >>> keys = jax.random.split(jax.random.key(0), 3)
        >>> jd.sweep(jd.run, over=("algorithm", "key"))(
        ...     methods, problem, network, problem.start(), keys, steps=10
        ... ).history["gap"].shape
        (2, 3, 11)
    """
    over = (over,) if isinstance(over, str) else over
    swept_over = tuple(over)
    signature = inspect.signature(function)
    unknown = [name for name in swept_over if name not in signature.parameters]
    require(
        swept_over and not unknown and len(set(swept_over)) == len(swept_over),
        f"over is {over}; name each of some of {', '.join(signature.parameters)} once.",
    )
    axes = tuple(over.values()) if isinstance(over, Mapping) else (None,) * len(swept_over)
    named = [axis for axis in axes if axis is not None]
    require(
        all(isinstance(axis, str) for axis in named) and len(set(named)) == len(named),
        f"over is {over}; give every axis a name of its own, as in "
        '{"algorithm": "stepsize", "key": "seed"}.',
    )

    @functools.wraps(function)
    def swept(*args: Any, **kwargs: Any) -> Any:
        given = dict(signature.bind(*args, **kwargs).arguments)
        for name, parameter in signature.parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                given |= given.pop(name, {})
        along = [n for n, v in given.items() if isinstance(v, Result) and n not in swept_over]
        for name in along:
            _require_swept_alike(name, given[name], axes)
        for name in swept_over:
            if along and given.get(name) is None:
                continue
            require(name in given, f"{name} is swept over and not given; give it, stacked.")
            shapes = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(given[name])}
            require(
                len(shapes) == 1 and () not in shapes,
                f"{name} is swept over and its leaves have leading axes "
                f"{sorted(shapes)}; stack the members along one, as jax.vmap(Method)(values) or "
                "jd.networks.stack do.",
            )
        given = {name: _renamed(value, lambda _: ()) for name, value in given.items()}
        mapped = [name for name in swept_over if given.get(name) is not None]
        fixed = {name: v for name, v in given.items() if name not in (*mapped, *along)}

        def call(values: dict[str, Any]) -> Any:
            return function(**fixed, **values)

        for own in reversed(swept_over):
            inside = {name: 0 if name in (own, *along) else None for name in (*mapped, *along)}
            call = jax.vmap(call, (inside,))
        result = call({name: given[name] for name in (*mapped, *along)})
        return _renamed(result, lambda inner: axes + inner)

    return swept


def _renamed(tree: Any, names: Callable[[tuple], tuple]) -> Any:
    """Return a tree whose results have other names for their axes, made of those they have."""
    return jax.tree.map(
        lambda node: replace(node, axes=names(node.axes)) if isinstance(node, Result) else node,
        tree,
        is_leaf=lambda node: isinstance(node, Result),
    )


def _require_swept_alike(name: str, result: Result, axes: tuple[str | None, ...]) -> None:
    batch, known = np.shape(result.diverged), result.axes[: len(axes)]
    require(
        len(batch) >= len(axes),
        f"{name} has {len(batch)} swept axes and the sweep {len(axes)}; give the result of the "
        "same sweep, or take jd.run for a single run.",
    )
    require(
        all(None in pair or len(set(pair)) == 1 for pair in zip(known, axes, strict=False)),
        f"{name} is swept over {_names(known)} and the sweep is over {_names(axes)}; give both the "
        "same axes in the same order.",
    )


def label(result: Result, **coordinates: Any) -> xr.Dataset:
    """Return a result's history as an xarray dataset with a name for every axis.

    Args:
        result: of a `run` or a `sweep`.
        coordinates: the swept axes, each with its values (numbers, strings, or a count, for 0, 1,
            ...): ``label(curves, stepsize=values, seed=10)``. Axes that a `sweep` named are found
            by name, all others are in order.

    Returns:
        A dataset with one variable a metric or axis over these dimensions and ``step``; metrics of
        other shapes have further dimensions ``<metric>_0``, ...; ``diverged`` has no ``step``.

    Raises:
        ValueError: as many names as axes are needed, those that are known among them, and as many
            values as members.
    """
    require(
        isinstance(result, Result),
        f"result is a {type(result).__name__}; give the Result of jd.run or of a sweep of it.",
    )
    batch = np.shape(result.diverged)
    axes = (None,) * (len(batch) - len(result.axes)) + result.axes
    if None not in axes:
        require(
            set(coordinates) == set(axes),
            f"the result's axes are {_names(axes)} and the names given {_names(coordinates)}; "
            "give the values of each, as in label(result, stepsize=values, seed=range(10)).",
        )
    missing = [axis for axis in axes if axis is not None and axis not in coordinates]
    require(
        len(coordinates) == len(batch) and not missing,
        f"the result has {len(batch)} swept axes and {len(coordinates)} names were given; name "
        "each, as in label(result, stepsize=values, seed=range(10))"
        f"{f', {_names(missing)} among them' if missing else ''}.",
    )
    unknown = iter([name for name in coordinates if name not in axes])
    labels = {}
    for axis, size in zip(axes, batch, strict=True):
        name = next(unknown) if axis is None else axis
        values = coordinates[name]
        values = np.arange(values) if isinstance(values, int | np.integer) else np.asarray(values)
        require(
            values.shape == (size,),
            f"{name} has {len(np.atleast_1d(values))} values and the axis {size} members; give one "
            "a member.",
        )
        labels[name] = values
    history = result.history | {"diverged": result.diverged}
    clash = sorted(set(labels) & set(history))
    require(not clash, f"{_names(clash)} is in the history already; name the axis otherwise.")
    return _labelled(history, labels)


def _labelled(history: dict[str, Any], labels: dict[str, Any]) -> xr.Dataset:
    """Return arrays by name over the labels and steps as a dataset."""
    steps = np.asarray(history["step"])
    axes = [*labels, "step"]
    variables = {}
    for name, values in history.items():
        values = np.asarray(values)
        extra = [f"{name}_{i}" for i in range(values.ndim - len(axes))]
        variables[name] = ([*axes, *extra][: values.ndim], values)
    del variables["step"]
    return xr.Dataset(variables, {**labels, "step": steps.reshape(-1, steps.shape[-1])[0]})


def compare(
    algorithms: Mapping[str, Any],
    problem: Any,
    networks: Any,
    *,
    over: Mapping[str, Any] | None = None,
    seeds: int | Iterable[int] = 1,
    steps: int,
    every: int = 1,
    x0: Any = None,
    metrics: dict[str, Any] | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """Run every method on every network for every hyperparameter and seed; label the histories.

    A method compiles once: networks are brought to one form (`jd.networks.stack`), and all values
    of ``over`` and all seeds run as one batch. Values that change the program, such as counts,
    compressors and forms of schedules, make one batch each. Seed s is the key
    ``jax.random.key(s)`` for every method, so that all see the same samples.

    Every method is traced on every network before the first one runs, so that what `run` refuses is
    refused at once. If a later run fails or is interrupted, the exception carries what is finished
    as its ``dataset``; in a notebook that is ``sys.last_value.dataset``.

    Args:
        algorithms: {name: method}; the values of ``over`` replace theirs.
        problem: one problem for all.
        networks: {name: network}, or one network.
        over: {field: values}, the same for all methods; several fields make a grid. Or a grid a
            method, {name: {field: values}}; those not named run as they are, as do all without
            ``over``. Values are a list or an array, or {label: value}.
        seeds: how many seeds, or which.
        steps: how many steps each run takes.
        every: how many steps a record covers.
        x0: [n, d]; ``problem.start()`` by default.
        metrics: further metrics, as in `run`.
        progress: show a progress bar.

    Returns:
        A dataset over algorithm, network, the fields of ``over``, seed, step; see `label`. Grids a
        method lie along one dimension ``choice`` instead, where the fields are coordinates over
        (algorithm, choice), and NaN where a method has fewer. Its attributes are versions, the
        device, the time, and all methods.

    Raises:
        ValueError: before any work, if a method has no such field, or `run` refuses a method, a
            network or a metric.

    Example:
        >>> import jaxdopt as jd
        >>> dataset = jd.compare(
        ...     {"DGD": jd.DGD(0.1), "CHOCO": jd.CHOCOSGD(0.1, jd.compressors.TopK(2))},
        ...     jd.problems.quadratic(4, 5),
        ...     jd.networks.metropolis(jd.graphs.ring(4)),
        ...     over={"DGD": {"stepsize": [0.1, 0.2]}, "CHOCO": {"gamma": [0.1, 0.2, 0.4]}},
        ...     steps=10,
        ...     progress=False,
        ... )
        >>> dataset["gamma"].values
        array([[nan, nan, nan],
               [0.1, 0.2, 0.4]])
    """
    networks = _members("networks", networks)
    algorithms = _members("algorithms", algorithms)
    cells = list(itertools.product(algorithms, networks))
    for name, where in cells:
        with _named(name, where):
            require_kinds(algorithms[name], problem, networks[where], None)
    for where, network in networks.items():
        require(
            network.n == problem.n,
            f"network {where!r} is for {network.n} agents and the problem for {problem.n}; give "
            "both the same.",
        )
    own, grids = _grids(algorithms, over)
    which, keys = _keys(seeds)
    require(
        x0 is not None or hasattr(problem, "start"),
        f"{type(problem).__name__} has no start(); give x0, an [n, d] array.",
    )
    x0 = problem.start() if x0 is None else x0
    alike = _in_one_form(networks)

    def simulate(batch: Any, where: str) -> Result:
        alone = not jax.tree.leaves(batch)  # a method without numbers
        result = sweep(run, over=("key",) if alone else ("algorithm", "key"))(
            batch, problem, alike[where], x0, keys, steps=steps, every=every, metrics=metrics
        )
        return jax.tree.map(lambda leaf: leaf[None], result) if alone else result

    results = []
    for name, where in cells:  # what run refuses is refused here; JAX keeps what it has traced
        with _named(name, where):
            for batch, _ in grids[name].programs:
                result = jax.eval_shape(functools.partial(simulate, batch, where))
                results.append((f"{name}, {where}", result))
    _require_labels(results, grids)
    done: dict[str, dict[str, xr.Dataset]] = {}

    def dataset() -> xr.Dataset:
        return _assembled(done, networks, grids, own).assign_attrs(_about(algorithms, steps))

    try:
        with tqdm(total=len(cells), disable=not progress, unit="sweep") as bar:
            for name, where in cells:
                bar.set_description(f"{name}, {where}")
                parts = [(simulate(batch, where), at) for batch, at in grids[name].programs]
                done.setdefault(name, {})[where] = _gathered(parts, grids[name], which, own)
                bar.update()
    except BaseException as error:
        finished = sum(map(len, done.values()))
        error.dataset = dataset() if done else None  # type: ignore[attr-defined]
        error.add_note(
            f"{finished} of {len(cells)} sweeps of jd.compare are finished; they are kept as this "
            "exception's dataset (in a notebook: import sys; sys.last_value.dataset)."
        )
        raise
    return dataset()


@contextlib.contextmanager
def _named(*names: str) -> Iterator[None]:
    """Say in every error which of many members it is about."""
    try:
        yield
    except Exception as error:
        if type(error) is ValueError:
            error.args = (f"{', '.join(names)}: {error}",)
        else:
            error.add_note(f"in jd.compare: {', '.join(names)}")
        raise


def _members(role: str, members: Any) -> Mapping[str, Any]:
    """Return what is compared by name; a single network is named so."""
    if role == "networks" and not isinstance(members, Mapping | list | tuple | set):
        return {"network": members}
    kind = "network" if role == "networks" else "method"
    shown = "empty" if isinstance(members, Mapping) else f"a {type(members).__name__}"
    require(
        isinstance(members, Mapping) and len(members) > 0,
        f"{role} is {shown}; give {{name: {kind}}} with at least one.",
    )
    unnamed = [name for name in members if not isinstance(name, str)]
    require(not unnamed, f"{role} has {unnamed} for names; give strings.")
    return members


@dataclasses.dataclass(frozen=True)
class _Grid:
    """A method at all combinations of some fields' values."""

    method: Any
    fields: dict[str, dict[Any, Any]]  # {field: {label: value}}
    points: list[Any]  # a method each, the last field's values running fastest

    @functools.cached_property
    def programs(self) -> list[tuple[Any, list[int]]]:
        """The points of one structure stacked, with their places: a program to compile each."""
        alike: dict[Any, list[int]] = {}
        for place, point in enumerate(self.points):
            leaves, structure = jax.tree.flatten(point)
            alike.setdefault((structure, *map(np.shape, leaves)), []).append(place)
        return [
            (jax.tree.map(_stacked, *(self.points[place] for place in places)), places)
            for places in alike.values()
        ]

    def labels(self, field: str) -> list[Any]:
        """Return a field's label at every point: the method's own number where it is not swept."""
        if field in self.fields:
            place = list(self.fields).index(field)
            return [point[place] for point in itertools.product(*self.fields.values())]
        own = getattr(self.method, field, None)
        return [own if isinstance(own, int | float) else None] * len(self.points)


def _stacked(*leaves: Any) -> jax.Array:
    if any(isinstance(leaf, jax.Array) for leaf in leaves):
        return jnp.stack(leaves)
    return jnp.asarray(np.stack(leaves))


def _grids(algorithms: Mapping[str, Any], over: Any) -> tuple[bool, dict[str, _Grid]]:
    """Return whether every method has its own grid, and the grids by method."""
    require(
        over is None or isinstance(over, Mapping),
        f"over is {over!r}; give {{field: values}}, or {{method: {{field: values}}}}.",
    )
    require(
        over is None or len(over) > 0,
        "over is empty; give the values to try, such as {'stepsize': [0.1, 0.2]}, or leave it out.",
    )
    over = {} if over is None else over
    methods = [key for key in over if key in algorithms and isinstance(over[key], Mapping)]
    others = [str(key) for key in over if key not in methods]
    require(
        not (methods and others),
        f"over names the methods {', '.join(methods)}, and {', '.join(others)}, which are none; "
        "give {field: values} for all, or {method: {field: values}}.",
    )
    grids = {}
    for name, method in algorithms.items():
        grids[name] = _grid(name, method, over.get(name, {}) if methods else over)
    return bool(methods), grids


def _grid(name: str, method: Any, over: Mapping[str, Any]) -> _Grid:
    if not over:
        return _Grid(method, {}, [method])
    known = dataclasses.fields(method) if dataclasses.is_dataclass(method) else ()
    known = {field.name: field for field in known if field.init}
    fields = {}
    for field, values in over.items():
        require(
            field in known,
            f"{name} has no field {field!r} to sweep; it has {_names(known)}. Methods of other "
            "fields take grids of their own, over={method: {field: values}}.",
        )
        with _named(name):
            fields[field] = _values(field, values, not known[field].metadata.get("static"))
    combinations = itertools.product(*(values.values() for values in fields.values()))
    with _named(name):
        points = [
            dataclasses.replace(method, **dict(zip(fields, values, strict=True)))
            for values in combinations
        ]
    return _Grid(method, fields, points)


def _values(field: str, values: Any, numbers: bool) -> dict[Any, Any]:
    """Return a field's values by label: numbers and strings by themselves, others by their text."""
    if isinstance(values, np.ndarray | jax.Array):
        require(
            np.ndim(values) == 1,
            f"over[{field!r}] has shape {np.shape(values)}; give a list of values.",
        )
        values = np.asarray(values).tolist()
    require(
        isinstance(values, Iterable) and not isinstance(values, str),
        f"over[{field!r}] is {values!r}; give a list of values.",
    )
    if isinstance(values, Mapping):
        labels, values = [*map(str, values)], [*values.values()]
    else:
        values = [_plain(value) for value in values]
        labels = [v if isinstance(v, int | float | str) else _text(v) for v in values]
        if numbers and not any(isinstance(label, str) for label in labels):
            labels = [*map(float, labels)]
        elif any(isinstance(label, str) for label in labels):
            labels = [*map(str, labels)]
    require(values, f"over[{field!r}] has shape (0,); give at least one value.")
    twice = sorted({str(label) for label in labels if labels.count(label) > 1})
    require(
        not twice,
        f"over[{field!r}] has {', '.join(twice)} more than once; give every value once, or "
        "{label: value}.",
    )
    return dict(zip(labels, values, strict=True))


def _plain(value: Any) -> Any:
    """Return scalars of NumPy and JAX as Python numbers, which can be static fields, too."""
    array = isinstance(value, np.generic | np.ndarray | jax.Array)
    return value.item() if array and np.ndim(value) == 0 else value


def _text(value: Any) -> str:
    """Return a short name of a value: without the fields that have their defaults."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [(f.name, getattr(value, f.name), f.default) for f in dataclasses.fields(value)]
        shown = [f"{name}={_text(own)}" for name, own, default in fields if own is not default]
        return f"{type(value).__name__}({', '.join(shown)})"
    return getattr(value, "__name__", None) or " ".join(repr(_plain(value)).split())


def _keys(seeds: Any) -> tuple[list[int], jax.Array]:
    """Return the seeds and their keys."""
    count = _integer(seeds)
    listed = seeds if isinstance(seeds, Iterable) and count is None else range(count or 0)
    which = [_integer(seed) for seed in listed]
    require(
        len(which) > 0 and None not in which and len(set(which)) == len(which),
        f"seeds is {seeds!r}; give at least one, as a count or as different integers.",
    )
    beyond = [seed for seed in which if not -(2**63) <= seed < 2**63]
    require(not beyond, f"seeds has {beyond}; jax.random.key takes integers of 64 bits.")
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


def _require_labels(results: list[tuple[str, Any]], grids: Mapping[str, _Grid]) -> None:
    """Refuse names that stand for two things in the dataset, and metrics of different shapes."""
    fields = {field for grid in grids.values() for field in grid.fields}
    metrics: dict[str, tuple[Any, str]] = {}
    for cell, result in results:
        clash = sorted(fields & set(result.metrics))
        require(not clash, f"metric {_names(clash)} is named like a field; name it otherwise.")
        clash = sorted(fields & {*DIMENSIONS, *RESERVED, *result.costs})
        require(
            not clash,
            f"field {_names(clash)} is named like a dimension or an axis of the dataset; sweep "
            "over it with jd.sweep, and name it otherwise in jd.label.",
        )
        clash = sorted({*DIMENSIONS, *RESERVED} & {*result.metrics})
        require(not clash, f"metric {_names(clash)} is named like a dimension; name it otherwise.")
        for metric, rows in result.metrics.items():
            shape, there = metrics.setdefault(metric, (rows.shape[3:], cell))
            require(
                rows.shape[3:] == shape,
                f"metric {metric!r} has shape {list(shape)} for {there} and {list(rows.shape[3:])} "
                f"for {cell}; return the same for all.",
            )


def _gathered(
    parts: list[tuple[Result, list[int]]], grid: _Grid, seeds: list[int], own: bool
) -> xr.Dataset:
    """Return the results of a grid's programs as one dataset."""
    order = np.argsort([place for _, places in parts for place in places])
    histories = [part.history | {"diverged": np.asarray(part.diverged)} for part, _ in parts]
    labels = {field: list(values) for field, values in grid.fields.items()}
    labels = {"choice": range(len(order))} if own else labels
    shape = tuple(map(len, labels.values()))
    history = {}
    for name, first in histories[0].items():
        values = np.concatenate([history[name] for history in histories])[order]
        history[name] = values.reshape(shape + first.shape[1:])
    return _labelled(history, labels | {"seed": seeds})


def _assembled(
    done: Mapping[str, Mapping[str, xr.Dataset]],
    networks: Mapping[str, Any],
    grids: Mapping[str, _Grid],
    own: bool,
) -> xr.Dataset:
    """Return the datasets of methods and networks as one; what is missing is NaN."""
    sizes: dict[str, list[Any]] = {"network": list(networks)}
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
        labels = {
            field: _padded([grids[name].labels(field) for name in done], dataset.sizes["choice"])
            for field in swept
        }
        axes = ("algorithm", "choice")
        dataset = dataset.assign_coords({field: (axes, rows) for field, rows in labels.items()})
    for grid in grids.values():
        bounds = number_fields(type(grid.method))
        for field in set(grid.fields) & set(bounds):
            dataset[field].attrs |= {"least": bounds[field].minimum, "most": bounds[field].maximum}
    return dataset


def _padded(rows: list[list[Any]], length: int) -> np.ndarray:
    """Return rows of labels as an array; None and what is missing are NaN, or "" among strings."""
    text = any(isinstance(label, str) for row in rows for label in row)
    rows = [row + [None] * (length - len(row)) for row in rows]
    missing = "" if text else math.nan
    return np.array(
        [[missing if v is None else str(v) if text else v for v in row] for row in rows]
    )


def _about(algorithms: Mapping[str, Any], steps: int) -> dict[str, Any]:
    """Return what is to be known about a dataset later on."""
    from jaxdopt import __version__

    return {
        "algorithms": json.dumps({name: repr(method) for name, method in algorithms.items()}),
        "steps": steps,
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": jax.devices()[0].device_kind,
        "jaxdopt": __version__,
        "jax": jax.__version__,
        "python": platform.python_version(),
    }


def best(
    dataset: xr.Dataset, metric: str = "gap", *, over: str | Sequence[str] | None = None
) -> xr.Dataset:
    """Return the dataset at each method's and network's own best hyperparameters.

    Best is the lowest mean over seeds of the last record. Values within 1000 rounding errors of
    the starting value count as equal, and among those the first to get there wins. A member that
    diverged for any seed is never chosen; where all did, the values are NaN.

    A warning says where the best number is the lowest or the highest of at least three, as better
    ones may lie beyond.

    Args:
        dataset: from `compare` or `label`.
        metric: the variable to make small.
        over: the dimensions to choose from; by default all but algorithm, network, seed and step.

    Returns:
        The dataset without these dimensions; the values chosen are coordinates of their names.

    Raises:
        ValueError: an unknown metric or dimension.
    """
    require_dataset(dataset)
    _require_steps(dataset, metric)
    dims = [str(d) for d in dataset[metric].dims]
    over = [over] if isinstance(over, str) else over
    choices = [d for d in dims if d not in DIMENSIONS] if over is None else [*over]
    require(
        choices and set(choices) <= set(dims) - {"seed", "step"},
        f"there is nothing to choose over: {choices} of the dimensions {dims}; name some in over=.",
    )
    values = abs(dataset[metric])
    values = values.where(~diverged(dataset, metric), np.inf).fillna(np.inf)
    if "seed" in dims:
        values = values.mean("seed")
    last = values.isel(step=-1)
    start = values.isel(step=0)
    eps = np.finfo(values.dtype if values.dtype.kind == "f" else float).eps
    floor = RESOLUTION * eps * start.where(np.isfinite(start), 0)
    arrival = (values > floor).sum("step") / (values.sizes["step"] + 1)
    score = last.where(last > floor, floor * arrival)
    flat = score.stack({MEMBER: choices})
    winner = flat.fillna(np.inf).argmin(MEMBER)
    chosen = dataset.stack({MEMBER: choices}).isel({MEMBER: winner})
    found = np.isfinite(flat.min(MEMBER))
    fields = {
        str(name): dataset[name]
        for name in dataset.coords
        if set(dataset[name].dims) & set(choices) and name != "choice"
    }
    coordinates = {
        name: chosen[name].drop_vars([MEMBER, *choices], errors="ignore") for name in fields
    }
    if not found.all():
        coordinates = {name: values.where(found) for name, values in coordinates.items()}
    for name, values in coordinates.items():
        _warn_at_the_edge(name, fields[name], values, choices)
    chosen = chosen.drop_vars([MEMBER, *choices, *fields], errors="ignore")
    flags = {"diverged": chosen["diverged"]} if "diverged" in chosen else {}
    return chosen.where(found).assign(flags).assign_coords(coordinates)


def _warn_at_the_edge(field: str, tried: Any, chosen: Any, choices: list[str]) -> None:
    """Warn where a number was best at an end of its grid, if there are others between the ends."""
    if tried.dtype.kind != "f":
        return
    along = [d for d in tried.dims if d in choices]
    low, high = tried.min(along), tried.max(along)
    between = ((tried > low) & (tried < high)).any(along)
    low = low.where(low > tried.attrs.get("least", -math.inf))  # nothing lies beyond
    high = high.where(high < tried.attrs.get("most", math.inf))
    edge = between & ((chosen == low) | (chosen == high))
    where = [
        f"{chosen.sel(place).item():.3g}"
        + f" ({', '.join(map(str, place.values()))})" * bool(place)
        for place in (
            dict(zip(edge.dims, labels, strict=True))
            for labels in itertools.product(*(chosen[d].values for d in edge.dims))
        )
        if edge.sel(place)
    ]
    if where:
        warnings.warn(
            f"the best {field} is at an end of the values tried: {', '.join(where)}; better ones "
            "may lie beyond, so try more.",
            stacklevel=3,
        )


def reach(dataset: xr.Dataset, metric: str, value: float, x: str = "step") -> xr.DataArray:
    """Return the ``x`` at which ``metric`` is first at or below ``value``; NaN where it never is.

    Args:
        dataset: from `compare`, `best` or `label`.
        metric: the variable that falls.
        value: the level to reach.
        x: the axis to read off: "step", "rounds", "epochs", "gradients", "bits", "traffic",
            "seconds".

    Raises:
        ValueError: an unknown metric or axis, or a level that is no number.
    """
    require_dataset(dataset)
    _require_steps(dataset, metric)
    _require_steps(dataset, x)
    there = dataset[metric] <= number("value", value)
    axis = dataset[x].broadcast_like(dataset[metric])
    return axis.isel(step=there.argmax("step")).where(there.any("step")).rename(x)


def require_dataset(dataset: Any) -> None:
    """Refuse anything else than a labelled dataset."""
    remedy = "give an xarray.Dataset such as jd.compare's"
    if isinstance(dataset, Result):
        remedy = "name its axes with jd.label(result, ...), such as jd.label(result, seed=10)"
    elif isinstance(dataset, xr.DataArray):
        remedy = "give the whole dataset, or array.to_dataset(name=...)"
    require(isinstance(dataset, xr.Dataset), f"dataset is a {type(dataset).__name__}; {remedy}.")


def diverged(dataset: xr.Dataset, metric: str) -> xr.DataArray:
    """Return which members diverged: the dataset's flag, or else where the last value says so."""
    if "diverged" in dataset:
        return dataset["diverged"].fillna(False).astype(bool)
    values = dataset[metric]
    return ~np.isfinite(values.isel(step=-1, drop=True) if "step" in values.dims else values)


def _require_steps(dataset: xr.Dataset, name: str) -> None:
    known = [*map(str, dataset.data_vars), "step"]
    require(name in known, f"the dataset has no variable {name!r}; it has {', '.join(known)}.")
    require(
        name in dataset and "step" in dataset[name].dims,
        f"{name} has no values over steps; name a variable that has.",
    )


def _names(names: Iterable[Any]) -> str:
    return ", ".join(map(str, names)) or "none"


def _in_one_form(networks: Mapping[str, Any]) -> dict[str, Any]:
    """Return networks of plain weights in one form, so that one program serves them all."""
    forms = _networks.Dense | _networks.Neighbors | _networks.Circulant | _networks.Complete
    plain = [n for n, net in networks.items() if isinstance(net, forms) and net.kind == "doubly"]
    if not plain:
        return dict(networks)
    stacked = _networks.stack([networks[name] for name in plain])
    members = (jax.tree.map(lambda leaf, i=i: leaf[i], stacked) for i in range(len(plain)))
    return {**networks, **dict(zip(plain, members, strict=True))}


def _index(name: str, members: Iterable[str]) -> Any:
    return xr.DataArray(list(members), dims=name, name=name)
