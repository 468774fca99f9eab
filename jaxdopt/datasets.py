"""Results as labelled datasets; the best members of them, and when they reach a level.

xarray is imported where it is needed, as it takes long to load.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import itertools
import json
import math
import platform
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jaxdopt._checks import require
from jaxdopt._numbers import number
from jaxdopt.results import Result
from jaxdopt.sweep import listed

if TYPE_CHECKING:
    import xarray as xr

RESOLUTION = (
    1000  # rounding errors (of the starting value) within which final values count as equal
)
DIMENSIONS = ("algorithm", "network", "seed", "step")  # that are no hyperparameters
KEYS = 1000  # the most that are written into a dataset's attributes
MEMBER = "_member"  # a dimension of all combinations, while `best` chooses


def label(result: Result, **coordinates: Any) -> xr.Dataset:
    """Return a result's history as an xarray dataset with a name for every axis.

    Args:
        result: of a `run` or a `sweep`.
        coordinates: the swept axes, each with its values (numbers, strings, or a count m for 0, 1,
            ..., m − 1): ``label(curves, stepsize=values, seed=10)``. Axes that a `sweep` has named
            are matched by name, all others by order.

    Returns:
        A dataset with a variable for every metric and cost over these dimensions and ``step``.
        Metrics that are arrays have further dimensions ``<metric>_0``, ...; ``diverged`` has no
        ``step``. Its attributes are versions, the device, the time, and the kind and numbers of its
        key, or of the sweep's different keys, up to a thousand.

    Raises:
        ValueError: the names are not those of the axes, or one for each, or an axis has another
            number of members than values are given.
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
            f"the result's axes are {listed(axes)} and the names given {listed(coordinates)}; "
            "give the values of each, as in label(result, stepsize=values, seed=range(10)).",
        )
    missing = [axis for axis in axes if axis is not None and axis not in coordinates]
    require(
        len(coordinates) == len(batch) and not missing,
        f"the result has {len(batch)} swept axes and {len(coordinates)} names were given; name "
        "each, as in label(result, stepsize=values, seed=range(10))"
        f"{f', {listed(missing)} among them' if missing else ''}.",
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
    require(not clash, f"{listed(clash)} is in the history already; name the axis otherwise.")
    return labelled(history, labels).assign_attrs(about() | _keys_of(result.key))


def _keys_of(key: Any) -> dict[str, Any]:
    """Return the kind of keys and the different ones, of which files hold only so many."""
    numbers = np.asarray(jax.random.key_data(key))
    different = np.unique(numbers.reshape(-1, numbers.shape[-1]), axis=0)
    known = {"key_kind": str(jax.random.key_impl(key))}
    return known | ({"keys": json.dumps(different.tolist())} if len(different) <= KEYS else {})


def about() -> dict[str, Any]:
    """Return what a result depends on beside the arguments: versions, precision, device; and when.

    The same arguments and versions give the same numbers on the same kind of device.
    """
    from jaxdopt import __version__

    return {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": jax.devices()[0].device_kind,
        "float64": int(jax.config.jax_enable_x64),  # type: ignore[attr-defined]
        "jaxdopt": __version__,
        "jax": jax.__version__,
        "jaxlib": importlib.metadata.version("jaxlib"),
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def labelled(history: dict[str, Any], labels: dict[str, Any]) -> xr.Dataset:
    """Return arrays by name over the labels and steps as a dataset."""
    import xarray as xr

    steps = np.asarray(history["step"])
    axes = [*labels, "step"]
    variables = {}
    for name, values in history.items():
        values = np.asarray(values)
        extra = [f"{name}_{i}" for i in range(values.ndim - len(axes))]
        variables[name] = ([*axes, *extra][: values.ndim], values)
    del variables["step"]
    return xr.Dataset(variables, {**labels, "step": steps.reshape(-1, steps.shape[-1])[0]})


def best(
    dataset: xr.Dataset,
    metric: str = "gap",
    *,
    over: str | Sequence[str] | None = None,
    largest: bool = False,
) -> xr.Dataset:
    """Return the dataset at the best hyperparameters of each method on each network.

    The best member has the lowest mean over seeds of the last record's absolute value, or the
    highest mean of a score. Absolute values within 1000 rounding errors of the starting value count
    as equal; of equal members the one that gets there first is best. A member that diverged for any
    seed is never chosen; where all did, the values are NaN.

    A warning names best numbers that are the lowest or highest of at least three values tried, as
    better ones may lie beyond.

    Args:
        dataset: from `compare` or `label`.
        metric: the variable to minimize.
        over: the dimensions to choose from; by default all but algorithm, network, seed and step.
        largest: the variable is a score to maximize, such as an accuracy.

    Returns:
        The dataset without these dimensions; the chosen values are coordinates of the same names.

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
    score, late = _scores(dataset[metric], diverged(dataset, metric), largest)
    flat = score.stack({MEMBER: choices})
    least = flat.min(MEMBER)
    winner = late.stack({MEMBER: choices}).where(flat == least, np.inf).argmin(MEMBER)
    chosen = dataset.stack({MEMBER: choices}).isel({MEMBER: winner})
    found = np.isfinite(least)
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


def _scores(
    values: xr.DataArray, lost: xr.DataArray, largest: bool
) -> tuple[xr.DataArray, xr.DataArray]:
    """Return what the best member has least of, and what decides where that is equal.

    Both are of the mean over seeds; the first is infinite where a seed diverged.
    """
    values = -values.astype(float) if largest else abs(values)
    values = values.where(~lost, np.inf).fillna(np.inf)
    if "seed" in values.dims:
        values = values.mean("seed")
    start, last = (values.isel(step=k, drop=True) for k in (0, -1))
    if largest:
        return last.where(np.isfinite(last), np.inf), (values > last).sum("step")
    eps = np.finfo(values.dtype if values.dtype.kind == "f" else float).eps
    floor = RESOLUTION * eps * start.where(np.isfinite(start), 0)
    arrival = (values > floor).sum("step") / (values.sizes["step"] + 1)
    return last.where(last > floor, floor * arrival), 0 * arrival


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


def reach(
    dataset: xr.Dataset, metric: str, value: float, x: str = "step", *, largest: bool = False
) -> xr.DataArray:
    """Return the ``x`` at which ``metric`` is first at or below ``value``; NaN where it never is.

    Args:
        dataset: from `compare`, `best` or `label`.
        metric: the variable that falls.
        value: the level to reach.
        x: the cost to return: "step", "rounds", "epochs", "gradients", "bits", "traffic" or
            "seconds".
        largest: the metric is a score that rises: return where it is first at or above the value.

    Raises:
        ValueError: an unknown metric or axis, or a level that is no number.
    """
    require_dataset(dataset)
    _require_steps(dataset, metric)
    _require_steps(dataset, x)
    level = number("value", value)
    there = dataset[metric] >= level if largest else dataset[metric] <= level
    axis = dataset[x].broadcast_like(dataset[metric])
    first = axis.isel(step=there.argmax("step")).where(there.any("step")).rename(x)
    return first.drop_vars("step", errors="ignore")  # which would be 0 where it never is


def as_dataset(given: Any) -> xr.Dataset:
    """Return a dataset as it is, and a `Result` as one, whose members have numbers."""
    if isinstance(given, Result):
        batch = np.shape(given.diverged)
        axes = [*(None,) * (len(batch) - len(given.axes)), *given.axes]
        names = [axis or ("member" if i == 0 else f"member_{i}") for i, axis in enumerate(axes)]
        given = label(given, **dict(zip(names, map(int, batch), strict=True)))
    require_dataset(given)
    return given


def require_dataset(dataset: Any) -> None:
    """Refuse anything other than a labelled dataset."""
    import xarray as xr

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
    last = dataset[metric].isel(step=-1, drop=True, missing_dims="ignore")
    return last.isnull() | (abs(last) == np.inf)


def _require_steps(dataset: xr.Dataset, name: str) -> None:
    known = [*map(str, dataset.data_vars), "step"]
    require(name in known, f"the dataset has no variable {name!r}; it has {', '.join(known)}.")
    require(
        name in dataset and "step" in dataset[name].dims,
        f"{name} has no values over steps; name a variable that has.",
    )
