"""Many runs at once: sweeps under one compilation, and comparisons as labelled datasets."""

import functools
import inspect
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from tqdm import tqdm

from jaxdopt import networks as _networks
from jaxdopt._arguments import require_same_key
from jaxdopt._pytree import is_traced, replace, require
from jaxdopt.simulate import Result, run

RESOLUTION = (
    1000  # rounding errors (of the starting value) within which final values count as equal
)


def sweep(function: Callable[..., Any], over: Sequence[str]) -> Callable[..., Any]:
    """Return ``function`` over all combinations of the values of some of its arguments.

    Each named argument gets a first axis on every leaf; the results have one axis a name in front,
    in the order of ``over``. It is a nest of `jax.vmap`s: `run` compiles once for all members. The
    result of a sweep goes on as ``after`` of the same sweep, each member from its own state.

    Args:
        function: `run`, or any function of pytrees.
        over: names of its parameters, such as ("algorithm", "network", "key").

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
    over = (over,) if isinstance(over, str) else tuple(over)
    signature = inspect.signature(function)
    unknown = [name for name in over if name not in signature.parameters]
    require(
        over and not unknown and len(set(over)) == len(over),
        f"over is {over}; name each of some of {', '.join(signature.parameters)} once.",
    )

    @functools.wraps(function)
    def swept(*args: Any, **kwargs: Any) -> Any:
        given = dict(signature.bind(*args, **kwargs).arguments)
        for name, parameter in signature.parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                given |= given.pop(name, {})
        for name in over:
            require(name in given, f"{name} is swept over and not given; give it, stacked.")
            shapes = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(given[name])}
            require(
                len(shapes) == 1 and () not in shapes,
                f"{name} is swept over and its leaves have leading axes "
                f"{sorted(shapes)}; stack the members along one, as jax.vmap(Method)(values) or "
                "jd.networks.stack do.",
            )
        names, values, axes = [*over], [given[name] for name in over], []
        if isinstance(given.get("after"), Result) and "after" not in over:
            after, along = _alongside(given, over)
            names, values, axes = [*names, "after"], [*values, after], [along]
        fixed = {name: value for name, value in given.items() if name not in names}

        def call(*values: Any) -> Any:
            return function(**fixed, **dict(zip(names, values, strict=True)))

        for position in reversed(range(len(over))):
            along = [0 if i == position else None for i in range(len(over))]
            call = jax.vmap(call, (*along, *axes))
        return call(*values)

    return swept


def _alongside(given: dict[str, Any], over: tuple[str, ...]) -> tuple[Result, Any]:
    """Return the result to go on from, and which of its leaves have the sweep's axes.

    The steps have none where all members are at the same one: so they stay known numbers.
    """
    after = given["after"]
    shape = np.shape(after.diverged)
    sizes = tuple(len(jax.tree.leaves(given[name])[0]) for name in over)
    require(
        shape in ((), sizes),
        f"after is a result of shape {shape} and the sweep has {sizes}; go on with the same values "
        "in the same order.",
    )
    if "key" in over and jnp.issubdtype(given["key"].dtype, jax.dtypes.prng_key):
        place = tuple(size if name == "key" else 1 for name, size in zip(over, sizes, strict=True))
        require_same_key(given["key"].reshape(place), after.key)
    if not shape:
        return after, None
    costs, axes = after.costs, dict.fromkeys(after.costs, 0)
    if not is_traced(costs["step"]):
        steps = np.asarray(costs["step"])
        steps = steps.reshape(-1, steps.shape[-1])
        if np.all(steps == steps[0]):
            costs, axes = costs | {"step": steps[0]}, axes | {"step": None}
    return replace(after, costs=costs), Result(0, 0, axes, 0, 0)


def label(result: Result, **coordinates: Any) -> xr.Dataset:
    """Return a result's history as an xarray dataset with a name for every axis.

    Args:
        result: of a `run` or a `sweep`.
        coordinates: the swept axes in order, each with its values (numbers, strings, or anything
            with a length whose positions then count): ``label(curves, stepsize=values, seed=10)``.

    Returns:
        A dataset with one variable a metric or axis over these dimensions and ``step``; metrics of
        other shapes have further dimensions ``<metric>_0``, ...; ``diverged`` has no ``step``.

    Raises:
        ValueError: as many names as axes are needed, and as many values as members.
    """
    history = result.history
    batch = np.shape(result.diverged)
    require(
        len(coordinates) == len(batch),
        f"the result has {len(batch)} swept axes and {len(coordinates)} names were given; name "
        "each, as in label(result, stepsize=values, seed=range(10)).",
    )
    labels = {}
    for (name, values), size in zip(coordinates.items(), batch, strict=True):
        values = np.arange(values) if isinstance(values, int) else np.asarray(values)
        require(
            values.shape == (size,),
            f"{name} has {len(np.atleast_1d(values))} values and the axis {size} members; give one "
            "a member.",
        )
        labels[name] = values
    steps = np.asarray(history.pop("step"))
    labels["step"] = steps.reshape(-1, steps.shape[-1])[0]
    variables = {}
    for name, values in history.items():
        values = np.asarray(values)
        extra = [f"{name}_{i}" for i in range(values.ndim - len(labels))]
        variables[name] = ([*labels, *extra], values)
    variables["diverged"] = (list(coordinates), np.asarray(result.diverged))
    return xr.Dataset(variables, labels)


def compare(
    algorithms: Mapping[str, Any],
    problem: Any,
    networks: Any,
    *,
    over: Mapping[str, Any],
    seeds: int | Iterable[int] = 1,
    steps: int,
    every: int = 1,
    x0: Any = None,
    metrics: dict[str, Any] | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """Run every method on every network for every hyperparameter and seed; label the histories.

    A method compiles once: networks are brought to one form (`jd.networks.stack`), and all values
    of ``over`` and all seeds run as one batch. Seed s is the key ``jax.random.key(s)`` for every
    method, so that all see the same samples.

    Args:
        algorithms: {name: method}; the values of ``over`` replace theirs.
        problem: one problem for all.
        networks: {name: network}, or one network.
        over: {field: values [v]}; several fields make a grid.
        seeds: how many seeds, or which.
        steps: how many steps each run takes.
        every: how many steps a record covers.
        x0: [n, d]; ``problem.start()`` by default.
        metrics: further metrics, as in `run`.
        progress: show a progress bar.

    Returns:
        A dataset over algorithm, network, the fields of ``over``, seed, step; see `label`.

    Raises:
        ValueError: before any work, if a method has no such field, or networks do not fit.
    """
    require(
        isinstance(algorithms, Mapping) and len(algorithms) > 0,
        f"algorithms is {algorithms!r}; give {{name: method}} with at least one.",
    )
    if not isinstance(networks, Mapping):
        networks = {"network": networks}
    require(networks, "networks is empty; give {name: network}.")
    require(over, "over is empty; give the values to try, such as {'stepsize': [0.1, 0.2]}.")
    grid = {field: np.asarray(values, float) for field, values in over.items()}
    for field, values in grid.items():
        require(
            values.ndim == 1 and len(values) > 0 and np.all(np.isfinite(values)),
            f"over[{field!r}] has shape {values.shape}; give a list of finite numbers.",
        )
        for name, method in algorithms.items():
            require(
                field in vars(method),
                f"{name} has no field {field!r} to sweep; it has {', '.join(vars(method))}.",
            )
            for value in values:  # the method's own checks, before any work
                type(method)(**{**vars(method), field: float(value)})
    which = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    require(
        which
        and not isinstance(seeds, bool)
        and all(isinstance(seed, int | np.integer) for seed in which)
        and len(set(which)) == len(which),
        f"seeds is {seeds!r}; give at least one, as a count or as different integers.",
    )
    keys = jax.vmap(jax.random.key)(jnp.asarray(which))
    points = np.array(list(itertools.product(*grid.values())))  # [points, fields]
    for where, network in networks.items():
        require(
            network.n == problem.n,
            f"network {where!r} is for {network.n} agents and the problem for {problem.n}; give "
            "both the same.",
        )
    alike = _in_one_form(networks)
    require(
        x0 is not None or hasattr(problem, "start"),
        f"{type(problem).__name__} has no start(); give x0, an [n, d] array.",
    )
    x0 = problem.start() if x0 is None else x0
    swept = sweep(run, over=("algorithm", "key"))
    shape = tuple(len(values) for values in grid.values())
    cells = []
    with tqdm(total=len(algorithms) * len(networks), disable=not progress, unit="sweep") as bar:
        for name, method in algorithms.items():
            values = dict(zip(grid, jnp.asarray(points.T), strict=True))
            batch = jax.vmap(lambda values, method=method: replace(method, **values))(values)
            row = []
            for where, network in alike.items():
                bar.set_description(f"{name}, {where}")
                result = swept(
                    batch, problem, network, x0, keys, steps=steps, every=every, metrics=metrics
                )
                result = jax.tree.map(
                    lambda leaf: np.asarray(leaf).reshape(shape + leaf.shape[1:]),
                    replace(result, state=None, key=None),
                )
                row.append(label(result, **grid, seed=which))
                bar.update()
            cells.append(xr.concat(row, _index("network", networks)))
    return xr.concat(cells, _index("algorithm", algorithms))


def best(
    dataset: xr.Dataset, metric: str = "gap", *, over: Sequence[str] | None = None
) -> xr.Dataset:
    """Return the dataset at each method's and network's own best hyperparameters.

    Best is the lowest mean over seeds of the last record. Values within 1000 rounding errors of
    the starting value count as equal, and among those the first to get there wins. A member that
    diverged for any seed is never chosen; where all did, the values are NaN.

    Args:
        dataset: from `compare` or `label`.
        metric: the variable to make small.
        over: the dimensions to choose from; by default all but algorithm, network, seed and step.

    Returns:
        The dataset without these dimensions; the values chosen are coordinates of their names.

    Raises:
        ValueError: an unknown metric or dimension.
    """
    _require_variable(dataset, metric)
    require(
        "step" in dataset[metric].dims,
        f"{metric} has no values over steps; name a metric that has.",
    )
    kept = {"algorithm", "network", "seed", "step"}
    dims = [str(d) for d in dataset[metric].dims]
    choices = [d for d in dims if d not in kept] if over is None else [*over]
    require(
        choices and set(choices) <= set(dims),
        f"there is nothing to choose over: {choices} of the dimensions {dims}; name some in over=.",
    )
    values = abs(dataset[metric])
    values = values.where(~dataset["diverged"], np.inf).fillna(np.inf)
    if "seed" in dims:
        values = values.mean("seed")
    last = values.isel(step=-1)
    start = values.isel(step=0)
    floor = RESOLUTION * np.finfo(dataset[metric].dtype).eps * start.where(np.isfinite(start), 0)
    arrival = (values > floor).sum("step") / (values.sizes["step"] + 1)
    score = last.where(last > floor, floor * arrival)
    flat = score.stack(choice=choices)
    winner = flat.fillna(np.inf).argmin("choice")
    chosen = dataset.stack(choice=choices).isel(choice=winner)
    found = np.isfinite(flat.min("choice"))
    coordinates = {
        name: chosen[name].drop_vars(["choice", *choices]).where(found) for name in choices
    }
    chosen = chosen.drop_vars(["choice", *choices])
    flags = chosen["diverged"]
    chosen = chosen.where(found)
    return chosen.assign(diverged=flags).assign_coords(coordinates)


def reach(dataset: xr.Dataset, metric: str, value: float, x: str = "step") -> xr.DataArray:
    """Return the ``x`` at which ``metric`` is first at or below ``value``; NaN where it never is.

    Args:
        dataset: from `compare`, `best` or `label`.
        metric: the variable that falls.
        value: the level to reach.
        x: the axis to read off: "step", "rounds", "epochs", "gradients", "bits", "traffic",
            "seconds".
    """
    _require_variable(dataset, metric)
    _require_variable(dataset, x)
    there = dataset[metric] <= value
    axis = dataset[x].broadcast_like(dataset[metric])
    return axis.isel(step=there.argmax("step")).where(there.any("step")).rename(x)


def _require_variable(dataset: xr.Dataset, name: str) -> None:
    known = [*map(str, dataset.data_vars), "step"]
    require(name in known, f"the dataset has no variable {name!r}; it has {', '.join(known)}.")


def _in_one_form(networks: Mapping[str, Any]) -> dict[str, Any]:
    """Return networks of plain weights in one form, so that one program serves them all."""
    forms = _networks.Dense | _networks.Neighbors | _networks.Circulant | _networks.Complete
    plain = [n for n, net in networks.items() if isinstance(net, forms) and net.kind == "doubly"]
    if not plain:
        return dict(networks)
    stacked = _networks.stack([networks[name] for name in plain])
    members = (jax.tree.map(lambda leaf, i=i: leaf[i], stacked) for i in range(len(plain)))
    return {**networks, **dict(zip(plain, members, strict=True))}


def _index(name: str, members: Mapping[str, Any]) -> Any:
    return xr.DataArray(list(members), dims=name, name=name)
