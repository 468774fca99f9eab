"""Pictures of labelled results: curves over steps, and heat maps of the last values."""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxdopt._checks import require
from jaxdopt.datasets import as_dataset, diverged
from jaxdopt.plot.style import DASHES, NAMES, pyplot, styles


def curves(
    dataset: Any,
    y: str = "gap",
    x: str = "step",
    *,
    ax: Any = None,
    seeds: str = "seed",
    band: tuple[float, float] = (0.1, 0.9),
    logx: bool = False,
    logy: bool = True,
    floor: float | None = None,
    labels: Mapping[str, str] | None = None,
) -> Any:
    """Draw one line per member of a dataset, the median over seeds, with a band of quantiles.

    Colors and markers distinguish the first dimension of more than one member, dashes the second.
    Methods have their own, the same in all figures (see `styles`).
    Where a member has no point to draw, the legend adds "(diverged)" if it diverged, and "(0)" if
    all its values are 0 on a logarithmic axis.

    Args:
        dataset: from `jd.compare`, `jd.best` or `jd.label`, of which to select the part to draw; or
            a `Result`, whose members have their numbers in place of names.
        y: the variable to draw.
        x: any axis of the histories: "step", "rounds", "epochs", "gradients", "bits", "traffic".
        ax: the Axes to draw in; default: those of a new figure.
        seeds: the dimension over which the median and the band are taken.
        band: the two quantiles that bound the band.
        logx: logarithmic horizontal axis.
        logy: logarithmic vertical axis; values that are not positive are omitted, unless a floor
            is given.
        floor: smaller values, such as gaps that are rounding errors, are drawn at this value.
        labels: {name in the dataset: text in the legend}.

    Returns:
        The Axes.

    Raises:
        ValueError: an unknown variable, or more than two dimensions to distinguish.
    """
    plt = pyplot()
    dataset = as_dataset(dataset)
    _require_known(dataset, y, x)
    for name in (y, x):
        require(
            "step" in dataset[name].dims,
            f"{name} has no values over steps, so there is no curve to draw; use heatmap.",
        )
    dims = [d for d in dataset[y].dims if d not in (seeds, "step")]
    groups = [d for d in dims if dataset.sizes[d] > 1] or dims[:1]
    dataset = dataset.squeeze([d for d in dims if d not in groups])
    require(
        len(groups) <= 2,
        f"{y} has the dimensions {', '.join(map(str, groups))} to distinguish and lines can show "
        "two; select with dataset.sel(...) or choose with jd.best.",
    )
    ax = plt.subplots()[1] if ax is None else ax
    groups.sort(key=lambda d: d != "algorithm")
    sizes = [range(dataset.sizes[d]) for d in groups]
    firsts = [str(name) for name in dataset[groups[0]].values] if groups else [""]
    looks = styles(firsts, dashes=len(groups) < 2)
    for member in itertools.product(*sizes):
        chosen = dataset.isel(dict(zip(groups, member, strict=True)))
        across = _median(chosen[x], seeds)
        values = chosen[y] if floor is None else chosen[y].clip(min=floor)
        values = values.where(values > 0) if logy else values
        first, second = (*member, 0, 0)[:2]
        style = looks[firsts[first]]
        if len(groups) > 1:
            style = style | {"linestyle": DASHES[second % len(DASHES)]}
        name = ", ".join(_member_name(str(d), chosen[d].item(), labels) for d in groups)
        middle = _median(values, seeds)
        if not np.any(np.isfinite(middle)):
            if diverged(chosen, y).any():
                name += " (diverged)"
            elif _is_absent(chosen):
                continue
            elif (chosen[y] == 0).all():
                name += " (0)"
        every = max(len(across) // 8, 1)
        offset = (first * every // len(firsts)) % every
        ax.plot(across, middle, label=name or None, markevery=(offset, every), **style)
        if seeds in values.dims and values.sizes[seeds] > 1:
            low, high = (_quantile(values, q, seeds) for q in band)
            ax.fill_between(across, low, high, color=style["color"], alpha=0.2, linewidth=0)
    if logy:
        ax.set_yscale("log")
    if logx:
        ax.set_xscale("log")
    ax.set_xlabel(NAMES.get(x, x))
    ax.set_ylabel(NAMES.get(y, y))
    if groups:
        ax.legend()
    return ax


def slope(
    ax: Any,
    exponent: Any = None,
    *,
    rate: Any = None,
    through: tuple[float, float],
    end: float | None = None,
    label: str | None = None,
) -> Any:
    """Draw the slope that a theorem predicts, as a thin gray line beside the curves.

    The line is y = y₀ (x/x₀)^p, straight on two logarithmic axes, or y = y₀ ρ^(x − x₀), straight
    where only the vertical axis is logarithmic. The limits of the axes stay as they are. Squared
    distances fall by the square of a distance's rate.

    Args:
        ax: the Axes to draw in, after the curves.
        exponent: p, such as ``theory.decay`` of `jd.theory.of`; or
        rate: ρ > 0, such as ``theory.rate``.
        through: (x₀, y₀), where the line begins.
        end: the x where it ends; default: the end of the horizontal axis.
        label: text at the beginning of the line; default: "slope −2" or "rate 0.98".

    Returns:
        The Axes.

    Raises:
        ValueError: not exactly one of exponent and rate, a rate or a coordinate that is not
            positive, or an axis on which the line would not be straight.

    Example:
        >>> import jaxdopt as jd
        >>> method = jd.GradientDescent(0.1)
        >>> result = jd.run(
        ...     method, problem, network, problem.start(), jax.random.key(0), steps=100, every=10
        ... )
        >>> ax = jd.plot.curves(result, "distance_squared")
        >>> rate = float(jd.theory.of(method, problem).rate)
        >>> ax = jd.plot.slope(ax, rate=rate**2, through=(0, 1.0))
    """
    require(
        (exponent is None) != (rate is None),
        f"exponent is {exponent} and rate is {rate}; give exactly one.",
    )
    x0, y0 = through
    scales = ax.get_xscale(), ax.get_yscale()
    wanted = ("linear" if exponent is None else "log", "log")
    require(
        scales == wanted,
        f"the axes are {scales[0]} and {scales[1]}, on which this is no straight line; give "
        f"{'a rate on linear and log' if exponent is None else 'an exponent on log and log'} axes.",
    )
    require(
        y0 > 0 and (exponent is None or x0 > 0),
        f"through is ({x0}, {y0}); give a point that logarithmic axes have.",
    )
    limits = ax.get_xlim(), ax.get_ylim()
    last = max(limits[0]) if end is None else end
    require(last > x0, f"the line would go from {x0} to {last}; give a through or an end inside.")
    if exponent is None:
        factor = float(rate)
        require(factor > 0, f"rate is {factor:g}; give more than 0.")
        x, own = np.linspace(x0, last), f"rate {factor:.3g}"
        logs = (x - x0) * np.log(factor)
    else:
        power = float(exponent)
        x, own = np.geomspace(x0, last), f"slope {power:.3g}".replace("-", "−")
        logs = power * np.log(x / x0)
    style = {"color": "0.4", "linestyle": (0, (4, 2)), "linewidth": 1.0, "marker": ""}
    ax.plot(x, y0 * np.exp(logs), label="_slope", **style)
    ax.annotate(
        own if label is None else label,
        (x[len(x) // 8], y0 * np.exp(logs[len(x) // 8])),
        xytext=(2, 2),
        textcoords="offset points",
        fontsize="small",
        color=style["color"],
    )
    ax.set(xlim=limits[0], ylim=limits[1])
    return ax


def heatmap(
    dataset: Any,
    y: str = "gap",
    *,
    x: str | None = None,
    by: str | None = None,
    ax: Any = None,
    seeds: str = "seed",
    colorbar: bool = True,
    vmin: float | None = None,
    vmax: float | None = None,
) -> Any:
    """Draw the last record of ``y`` over two dimensions, colors on a logarithmic scale.

    The value is the median over seeds. Members that diverged for any seed are hatched; values
    below the scale, such as gaps that are rounding errors, have its lowest color.

    Args:
        dataset: from `jd.compare` or `jd.label`, with ``x`` and ``by`` its only dimensions of more
            than one member; or a `Result`, whose members have their numbers in place of values.
        y: the variable to draw.
        x: the horizontal dimension, on a logarithmic scale if its values span more than a decade;
            the values of methods with grids of their own may lie along ``choice``. By default
            "stepsize" or, if there is none, the last dimension.
        by: the vertical dimension; by default "network", or the other dimension.
        ax: the Axes to draw in; default: those of a new figure.
        seeds: the dimension to take the median over.
        colorbar: draw one beside the Axes.
        vmin: the value of the lowest color.
        vmax: the value of the highest color.

    Returns:
        The Axes.

    Raises:
        ValueError: an unknown variable, or a number of dimensions other than two.
    """
    plt = pyplot()
    from matplotlib.colors import ListedColormap, LogNorm

    dataset = as_dataset(dataset)
    _require_known(dataset, y)
    x, by = _axes(dataset, y, x, by, seeds)
    dataset = _by_value(_by_value(dataset, x), by)
    single = {d: 0 for d in dataset[y].dims if d not in (x, by, "step") and dataset.sizes[d] == 1}
    dataset = dataset.isel(single)
    values = dataset[y].isel(step=-1) if "step" in dataset[y].dims else dataset[y]
    lost = diverged(dataset, y)
    if seeds in values.dims:
        values = values.median(seeds)
    if seeds in lost.dims:
        lost = lost.any(seeds)
    require(
        set(values.dims) == {x, by},
        f"{y} has the dimensions {', '.join(map(str, values.dims))} and a heat map shows "
        f"{x} and {by}; name two with x= and by=, and select the others with dataset.sel(...).",
    )
    lost = lost.transpose(by, x).values
    values = values.transpose(by, x).values
    positive = values[~lost & np.isfinite(values) & (values > 0)]
    limits = (positive.min(), positive.max()) if len(positive) else (0.1, 1.0)
    low = limits[0] if vmin is None else vmin
    high = max(limits[1] if vmax is None else vmax, low * 1.001)
    shown = np.where(lost, np.nan, np.maximum(values, low))
    ax = plt.subplots()[1] if ax is None else ax
    edges = [_edges(axis, dataset[name].values) for axis, name in ((ax.xaxis, x), (ax.yaxis, by))]
    mesh = ax.pcolormesh(*edges, shown, cmap="cividis", norm=LogNorm(low, high))
    if lost.any():
        ax.pcolor(
            *edges,
            np.ma.masked_where(~lost, np.zeros(shown.shape)),
            cmap=ListedColormap(["white"]),
            hatch="///",
            edgecolor="0.6",
            linewidth=0,
        )
    if colorbar:
        ax.figure.colorbar(mesh, ax=ax, label=NAMES.get(y, y))
    ax.set_xlabel(NAMES.get(x, x))
    ax.set_ylabel(NAMES.get(by, by))
    return ax


def _axes(dataset: Any, y: str, x: str | None, by: str | None, seeds: str) -> tuple[str, str]:
    """Return the dimensions of a heat map, those that are not given as its docstring says."""
    dims = [str(d) for d in dataset[y].dims if d not in (seeds, "step")]
    dims.sort(key=lambda d: (dataset.sizes[d] > 1, d != "network"))  # the best for x is last
    if x is None:
        along = by != "stepsize" and "stepsize" in dataset.coords and dataset["stepsize"].ndim == 1
        x = "stepsize" if along else next((d for d in reversed(dims) if d != by), "stepsize")
    if by is None:
        own = dataset[x].dims if x in dataset.coords else ()
        others = [d for d in dims if d != x and d not in own]
        wide = [d for d in others if dataset.sizes[d] > 1] or others
        by = "network" if "network" in wide else next(reversed(wide), "network")
    return x, by


def _edges(axis: Any, ticks: np.ndarray) -> np.ndarray:
    """Return cell borders around the ticks; label the axis by names, or scale it by the numbers."""
    numeric = np.issubdtype(ticks.dtype, np.number) and len(ticks) > 1
    if not numeric or np.any(np.diff(ticks) <= 0):
        axis.set_ticks(np.arange(len(ticks)), [_value_name(tick) for tick in ticks])
        return np.arange(len(ticks) + 1) - 0.5
    log = ticks[0] > 0 and ticks[-1] / ticks[0] > 10
    if log:
        axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    places = np.log(ticks) if log else ticks.astype(float)
    middle = (places[1:] + places[:-1]) / 2
    borders = np.concatenate([[2 * places[0] - middle[0]], middle, [2 * places[-1] - middle[-1]]])
    return np.exp(borders) if log else borders


def _by_value(dataset: Any, name: str) -> Any:
    """Return the dataset along a coordinate that has been along another dimension."""
    if name in dataset.dims or name not in dataset.coords or dataset[name].ndim != 1:
        return dataset
    own = dataset[name]
    return dataset.isel({own.dims[0]: own.notnull().values}).swap_dims({own.dims[0]: name})


def _is_absent(member: Any) -> bool:
    """Return whether a member has no values at all, as if another method has more choices."""
    return all(v.isnull().all() for name, v in member.data_vars.items() if name != "diverged")


def _median(values: Any, dim: str) -> np.ndarray:
    return _quantile(values, 0.5, dim)


def _quantile(values: Any, q: float, dim: str) -> np.ndarray:
    """Return a quantile over seeds, NaN where a member has none: diverged seeds count as +inf."""
    if dim not in values.dims:
        return np.asarray(values)
    array = np.sort(values.transpose(dim, ...).values.astype(float), axis=0)
    empty = np.isnan(array).all(axis=0)
    with np.errstate(invalid="ignore"):
        result = np.quantile(np.nan_to_num(array, nan=np.inf), q, axis=0, method="nearest")
    return np.where(empty | ~np.isfinite(result), np.nan, result)


def _require_known(dataset: Any, *names: str) -> None:
    known = [*map(str, dataset.data_vars), *map(str, dataset.coords)]
    for name in names:
        unknown = name in ("gap", "distance_squared")
        where = ", which needs a known solution (give l2 > 0, or call solved())" * unknown
        require(name in known, f"the dataset has no {name!r}{where}; it has {', '.join(known)}.")


def _member_name(dim: str, value: Any, labels: Mapping[str, str] | None) -> str:
    """Return what a legend calls a member: numbers say what they are."""
    own = _value_name(value)
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    return (labels or {}).get(own, f"{dim} = {own}" if numeric else own)


def _value_name(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
