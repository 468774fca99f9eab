"""Panels of figures, and figures of panels: one style sheet, one legend, one color a method.

A panel is anything called with (ax, results). The ones here take ``data``, results to what is
drawn. What a scale has not run is left out, and the layout closes up.
"""

import dataclasses
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr

import jaxdopt as jd
from jaxdopt.plot.style import DASHES, MARKERS, PALETTE

WIDTHS = {"column": 3.4, "page": 7.0}
REFERENCE = {"color": "0.25", "linewidth": 0.9, "linestyle": (0, (4, 2)), "zorder": 1.5}
STYLE = "jaxdopt.plot.paper"


class NotRun(KeyError):
    """Raised where a claim or a panel needs a part that the scale leaves out."""


@dataclasses.dataclass(frozen=True)
class Figure:
    """Rows of panels, with one legend for all below them.

    Args:
        rows: the panels; rows may differ in length.
        width: "page" (7 in) or "column" (3.4 in).
        height: of a row, in inches.
        sharex: one horizontal scale for the panels of a column.
        sharey: one vertical scale for the panels of a row.
    """

    rows: Sequence[Sequence[Any]]
    width: Literal["page", "column"] = "page"
    height: float = 2.1
    sharex: bool = False
    sharey: bool = False

    @classmethod
    def of(cls, given: Any) -> "Figure":
        """Return a figure, of rows of panels too."""
        return given if isinstance(given, cls) else cls(given)

    def draw(self, results: Any) -> Any:
        """Return the matplotlib figure; None if no panel has anything to show."""
        import matplotlib.pyplot as plt

        rows = [[panel for panel in row if _has_data(panel, results)] for row in self.rows]
        rows = [row for row in rows if row]
        if not rows:
            return None
        columns = math.lcm(*map(len, rows))
        with plt.style.context(STYLE):
            fig = plt.figure(figsize=(WIDTHS[self.width], self.height * len(rows) + 0.3))
            grid = fig.add_gridspec(len(rows), columns)
            tops: dict[int, Any] = {}
            for i, row in enumerate(rows):
                span, first = columns // len(row), None
                for j, panel in enumerate(row):
                    share = {"sharey": first if self.sharey else None}
                    share["sharex"] = tops.get(j * span) if self.sharex else None
                    ax = fig.add_subplot(grid[i, j * span : (j + 1) * span], **share)
                    panel(ax, results)
                    _name_log_ticks(ax)
                    if first is not None and self.sharey:
                        ax.set_ylabel("")
                        ax.tick_params(labelleft=False)
                    first = first or ax
                    tops.setdefault(j * span, ax)
            _legend_below(fig)
        return fig

    def write(self, results: Any, path: Path) -> list[Path]:
        """Write PNG and PDF and return the files; none if there is nothing to show."""
        import matplotlib.pyplot as plt

        logging.getLogger("fontTools").setLevel(logging.ERROR)  # dates of matplotlib's own fonts
        fig = self.draw(results)
        if fig is None:
            return []
        written = []
        with plt.style.context(STYLE):
            for suffix in (".png", ".pdf"):
                written.append(path.with_suffix(suffix))
                fig.savefig(
                    written[-1], metadata={"CreationDate": None} if suffix == ".pdf" else {}
                )
        plt.close(fig)
        return written


def _name_log_ticks(ax: Any) -> None:
    """Name at least two ticks of logarithmic axes, and no minor ones, which would overlap."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

    for axis, scale in ((ax.xaxis, ax.get_xscale()), (ax.yaxis, ax.get_yscale())):
        if scale == "log" and not isinstance(axis.get_major_locator(), FixedLocator):
            axis.set_minor_formatter(NullFormatter())
            low, high = sorted(axis.get_view_interval())
            powers = 10.0 ** np.arange(math.floor(math.log10(low)), math.log10(high) + 1)
            if np.sum((powers >= low) & (powers <= high)) < 2:
                for leads in ((1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7)):
                    values = [v for v in np.outer(powers, leads).ravel() if low <= v <= high]
                    if len(values) > 1:
                        break
                axis.set_major_locator(FixedLocator(values))
                axis.set_major_formatter(FuncFormatter(lambda value, _: tick(value)))


def _has_data(panel: Any, results: Any) -> bool:
    """Return whether a panel has something to show; plain functions are drawn on a blank to see."""
    from matplotlib.figure import Figure as Blank

    try:
        if isinstance(panel, Panel):
            panel.selected(results)
        else:
            panel(Blank().subplots(), results)
    except NotRun:
        return False
    return True


def _legend_below(fig: Any) -> None:
    """Give all panels one legend below the figure, each label once; panels' own are kept."""
    entries: dict[str, Any] = {}
    for ax in fig.axes:
        if ax.get_legend() is None:
            for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
                entries.setdefault(label, handle)
    if entries:
        longest = max(map(len, entries))
        columns = max(1, min(len(entries), int(fig.get_figwidth() * 16 / (longest + 6))))
        fig.legend(list(entries.values()), list(entries), loc="outside lower center", ncols=columns)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Panel:
    """What all panels have.

    Args:
        data: results to what is drawn, or the name of a part.
        at: {dimension: label or labels} to select of it; of several labels those that are there.
        title: above the panel, under 25 characters where three share a page.
        xlabel: by default the name of what is drawn.
        ylabel: likewise.
        xlim: limits of the horizontal axis.
        ylim: limits of the vertical axis.
        also: further drawings (ax, results), such as `level` and `slope`.
        legend: "figure" for the common one below, "panel" for one of its own below the panel,
            None for none.
    """

    data: str | Callable[[Any], Any]
    at: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    title: str = ""
    xlabel: str | None = None
    ylabel: str | None = None
    xlim: tuple[float | None, float | None] | None = None
    ylim: tuple[float | None, float | None] | None = None
    also: Sequence[Callable[[Any, Any], Any]] = ()
    legend: Literal["figure", "panel"] | None = "figure"

    def __call__(self, ax: Any, results: Any) -> None:
        """Draw into the Axes."""
        self.draw(ax, self.selected(results))
        for each in self.also:
            each(ax, results)
        given = {name: getattr(self, name) for name in ("xlabel", "ylabel", "xlim", "ylim")}
        ax.set(title=self.title, **{k: v for k, v in given.items() if v is not None})
        if ax.get_legend() is not None:
            ax.get_legend().remove()
        if self.legend == "panel":
            ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.24), ncols=2)
        elif self.legend is None:
            for artist in (*ax.lines, *ax.collections, *ax.containers):
                artist.set_label("_nolegend_")

    def selected(self, results: Any) -> Any:
        """Return what is drawn."""
        data = results[self.data] if isinstance(self.data, str) else self.data(results)
        return data.sel(**{dim: present(data, dim, wanted) for dim, wanted in self.at.items()})

    def draw(self, ax: Any, data: Any) -> None:
        """Draw the data."""
        raise NotImplementedError


def present(data: Any, dim: str, wanted: Any) -> Any:
    """Return those of the wanted labels that ``data`` has; NotRun if it has none of them."""
    known = data[dim].values.tolist()
    several = isinstance(wanted, list | tuple | set)
    found = [label for label in (wanted if several else [wanted]) if label in known]
    if not found:
        raise NotRun(f"{dim} has no {wanted!r} at this scale")
    return found if several else found[0]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lines(Panel):
    """Curves over steps or a cost, as `jd.plot.curves` draws them: medians and bands over seeds.

    Args:
        y: the variable.
        x: the axis.
        logx: logarithmic horizontal axis.
        logy: logarithmic vertical axis.
        floor: smaller values are drawn at this one.
        band: the quantiles over seeds.
        labels: {name in the dataset: text in the legend}.
        split: of two dimensions, name colors and dashes apart: a + b entries in place of a b.
    """

    y: str = "gap"
    x: str = "rounds"
    logx: bool = False
    logy: bool = True
    floor: float | None = None
    band: tuple[float, float] = (0.1, 0.9)
    labels: Mapping[str, str] | None = None
    split: bool = False

    def draw(self, ax: Any, data: Any) -> None:
        """Draw the curves."""
        jd.plot.curves(
            data,
            self.y,
            self.x,
            ax=ax,
            logx=self.logx,
            logy=self.logy,
            floor=self.floor,
            band=self.band,
            labels=self.labels,
        )
        if self.logx:  # markers at equal distances on the page
            for i, line in enumerate(ax.lines):
                line.set_markevery((0.03 * (i % 5), 0.15))
        if self.split:
            _name_apart(ax)


def _name_apart(ax: Any) -> None:
    """Name colors by what stands before the last comma of labels, and dashes by what follows."""
    seen: dict[str, Any] = {}
    lines = [line for line in ax.lines if not str(line.get_label()).startswith("_")]
    for line in lines:
        first, _, second = str(line.get_label()).rpartition(", ")
        line.set_label("_nolegend_" if first in seen else first)
        seen[first] = seen.setdefault(second, line)
    for name in dict.fromkeys(str(line.get_label()) for line in lines):
        seen.pop(name, None)
    for name, line in seen.items():
        ax.plot([], [], color="0.4", linestyle=line.get_linestyle(), label=name)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogLog(Panel):
    """An array over a number, on logarithmic scales: means over seeds with standard errors.

    Infinite values, such as times to a target that was not reached, are hollow triangles at the
    upper edge and joined by no line.

    Args:
        x: the dimension or coordinate of the horizontal axis.
        by: the dimension that colors and markers distinguish; a second one has dashes.
        seeds: the dimension of the means.
        ticks: ticks at the values of x, or at these.
        labels: {member: text in the legend}.
        logx: logarithmic horizontal axis.
        logy: logarithmic vertical axis.
        joined: draw lines from point to point.
        dodge: the factor from one member's x to the next one's, so that equal points are all seen.
        hollow: members with hollow markers, which do not hide others'.
    """

    x: str
    by: str | tuple[str, ...] = "algorithm"
    seeds: str = "seed"
    ticks: bool | Sequence[float] = True
    labels: Mapping[str, str] | None = None
    logx: bool = True
    logy: bool = True
    joined: bool = True
    dodge: float = 1.0
    hollow: Sequence[str] = ()

    def selected(self, results: Any) -> Any:
        """Return what is drawn; NotRun if that is a single x, which shows nothing."""
        data = super().selected(results)
        x = data[self.x].broadcast_like(data).where(data.notnull())
        if np.unique(x.values[x.notnull().values]).size < 2:
            raise NotRun(f"there is one {self.x}, or none, at this scale")
        return data

    def draw(self, ax: Any, data: xr.DataArray) -> None:
        """Draw the members."""
        by = (self.by,) if isinstance(self.by, str) else self.by
        by = tuple(dim for dim in by if dim in data.dims)
        lost: list[tuple[Any, str]] = []
        ax.set(xscale="log" if self.logx else "linear", yscale="log" if self.logy else "linear")
        drawn = list(members(data, by, self.labels))
        for i, (at, own, style) in enumerate(drawn):
            style = style if self.joined else style | {"linestyle": ""}
            style = style | ({"markerfacecolor": "none"} if at in self.hollow else {})
            x = own[self.x]
            mean, errors = _mean(own, self.seeds)
            x = x.mean(self.seeds) if self.seeds in x.dims else x
            x = x * self.dodge ** (i - (len(drawn) - 1) / 2)
            shown = np.isfinite(mean.values)
            if shown.any():
                ax.errorbar(
                    x.values,
                    mean.where(shown),
                    None if errors is None else errors,
                    label=at,
                    **style,
                )
            lost += [(value, style["color"]) for value in x.values[np.isinf(mean.values)]]
        _not_reached(ax, lost)
        if self.ticks:
            values = np.unique(data[self.x].values[np.isfinite(data[self.x].values)])
            set_ticks(ax.xaxis, values if self.ticks is True else self.ticks)
        ax.set_xlabel(jd.plot.NAMES.get(self.x, self.x))
        ax.set_ylabel(jd.plot.NAMES.get(str(data.name), str(data.name or "")))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Against(Panel):
    """What is measured as markers, means over seeds with standard errors, and theory as lines.

    The data have both, ``measured`` and ``theory``, over one dimension besides.

    Args:
        by: the dimension that colors and markers distinguish.
        seeds: the dimension of the means.
        logx: logarithmic horizontal axis.
        logy: logarithmic vertical axis.
    """

    by: str = "setting"
    seeds: str = "seed"
    logx: bool = True
    logy: bool = True

    def draw(self, ax: Any, data: xr.Dataset) -> None:
        """Draw the members."""
        ax.set(xscale="log" if self.logx else "linear", yscale="log" if self.logy else "linear")
        for name, theory, style in members(data.theory, (self.by,)):
            x = theory[theory.dims[0]]
            dots, errors = _mean(data.measured.sel({self.by: name}), self.seeds)
            ax.plot(x, theory, color=style["color"], linewidth=1)
            ax.errorbar(x, dots, errors, label=name, **style | {"linestyle": ""})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dots(Panel):
    """An array over categories: a dot a member, means over seeds with standard errors.

    Args:
        x: the dimension of the categories.
        by: the dimension that colors and markers distinguish.
        seeds: the dimension of the means.
        logy: logarithmic vertical axis.
        labels: {member or category: text}.
        rotation: of the categories' names, in degrees.
    """

    x: str
    by: str = "algorithm"
    seeds: str = "seed"
    logy: bool = True
    labels: Mapping[str, str] | None = None
    rotation: float = 0

    def draw(self, ax: Any, data: xr.DataArray) -> None:
        """Draw the dots, members side by side within each category."""
        labels = self.labels or {}
        ax.set_yscale("log" if self.logy else "linear")
        names = [str(value) for value in data[self.x].values]
        drawn = list(members(data, (self.by,) if self.by in data.dims else (), self.labels))
        lost: list[tuple[Any, str]] = []
        for i, (at, own, style) in enumerate(drawn):
            mean, errors = _mean(own, self.seeds)
            places = np.arange(len(names)) + 0.6 * ((i + 0.5) / len(drawn) - 0.5)
            style = style | {"linestyle": ""}
            shown = mean.where(np.isfinite(mean))
            ax.errorbar(places, shown, None if errors is None else errors, label=at, **style)
            lost += [(place, style["color"]) for place in places[np.isinf(mean.values)]]
        _not_reached(ax, lost)
        ax.set_xticks(
            range(len(names)),
            [labels.get(name, name) for name in names],
            rotation=self.rotation,
            ha="right" if self.rotation else "center",
        )
        ax.set_xlim(-0.5, len(names) - 0.5)
        ax.set_ylabel(jd.plot.NAMES.get(str(data.name), str(data.name or "")))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Heat(Panel):
    """An array over two dimensions, as colors with the numbers written in them.

    Args:
        x: the horizontal dimension.
        y: the vertical dimension.
        form: of the numbers; "" for none.
        limits: the values of the lowest and the highest color.
        log: logarithmic colors.
        labels: {member: text}.
        cmap: the colormap.
    """

    x: str
    y: str
    form: str = ".0e"
    limits: tuple[float, float] | None = None
    log: bool = True
    labels: Mapping[str, str] | None = None
    cmap: str = "Blues"

    def selected(self, results: Any) -> Any:
        """Return what is drawn; NotRun if that is a single cell, which shows nothing."""
        data = super().selected(results)
        if data.size < 2:
            raise NotRun(f"there is one {self.x} and one {self.y} at this scale")
        return data

    def draw(self, ax: Any, data: xr.DataArray) -> None:
        """Draw the cells."""
        from matplotlib import colormaps
        from matplotlib.colors import LogNorm, Normalize

        labels = self.labels or {}
        values = data.transpose(self.y, self.x).values.astype(float)
        good = values[np.isfinite(values) & ((values > 0) | (not self.log))]
        low, high = self.limits or (good.min(), good.max())
        norm = (LogNorm if self.log else Normalize)(low, max(high, low * 1.001), clip=True)
        cmap = colormaps[self.cmap]
        ax.imshow(np.where(np.isfinite(values), np.maximum(values, low), np.nan), norm=norm,
                  cmap=cmap, aspect="auto")  # fmt: skip
        for i, j in np.ndindex(*values.shape if self.form else (0, 0)):
            dark = np.isfinite(values[i, j]) and sum(cmap(norm(values[i, j]))[:3]) < 1.5
            written = f"{values[i, j]:{self.form}}" if np.isfinite(values[i, j]) else "–"
            color = "white" if dark else "black"
            ax.text(j, i, written, ha="center", va="center", fontsize=6, color=color)
        for axis, dim in ((ax.xaxis, self.x), (ax.yaxis, self.y)):
            names = [str(value) for value in data[dim].values]
            axis.set_ticks(range(len(names)), [labels.get(name, name) for name in names])
        ax.tick_params(axis="x", rotation=30, length=0)
        ax.tick_params(axis="y", length=0)
        for tick in ax.get_xticklabels():
            tick.set_ha("right")
        ax.grid(False)
        ax.spines[:].set_visible(False)


def _not_reached(ax: Any, lost: Iterable[tuple[Any, str]]) -> None:
    """Mark places, each with its color, by hollow triangles at the upper edge."""
    style = {"transform": ax.get_xaxis_transform(), "markerfacecolor": "none", "clip_on": False}
    for i, (place, color) in enumerate(lost):
        ax.plot(place, 1.0, "^", color=color, label=None if i else "not reached", **style)


def members(
    data: xr.DataArray, by: Sequence[str], labels: Mapping[str, str] | None = None
) -> Iterable[tuple[str, xr.DataArray, dict[str, Any]]]:
    """Yield (label, array, style) of every member along ``by`` that has values."""
    labels = labels or {}
    sizes = [data.sizes[dim] for dim in by]
    styles = jd.plot.styles(map(str, data[by[0]].values), dashes=len(by) < 2) if by else {}
    for place in np.ndindex(*sizes):
        own = data.isel(dict(zip(by, place, strict=True)))
        if own.isnull().all():
            continue
        names = [str(data[dim].values[i]) for dim, i in zip(by, place, strict=True)]
        shown = [
            f"{dim} = {name}" if np.issubdtype(data[dim].dtype, np.number) else name
            for dim, name in zip(by, names, strict=True)
        ]
        style = dict(styles[names[0]]) if by else {"color": PALETTE[0], "marker": MARKERS[0]}
        if len(place) > 1:
            style["linestyle"] = DASHES[place[1] % len(DASHES)]
        yield ", ".join(map(labels.get, names, shown)), own, style


def _mean(values: xr.DataArray, seeds: str) -> tuple[xr.DataArray, Any]:
    """Return the mean over seeds and its standard error; infinite if any seed's value is."""
    if seeds not in values.dims:
        return values, None
    mean = values.mean(seeds)
    if values.sizes[seeds] < 2:
        return mean, None
    finite = values.where(np.isfinite(values))
    return mean, finite.std(seeds, ddof=1) / np.sqrt(values.sizes[seeds])


def set_ticks(axis: Any, values: Any) -> None:
    """Set an axis' ticks at the values, and no others; at most eight of them are named."""
    values = np.asarray(values)
    named = values[:: math.ceil(len(values) / 8)]
    axis.set_ticks(named, [tick(value) for value in named])
    axis.set_ticks([], minor=True)


def tick(value: float) -> str:
    """Return a tick's text: 1e4 and more as powers of ten where they are, small ones too."""
    if value > 0 and (value >= 1e4 or value < 1e-2):
        power = math.floor(math.log10(value) + 1e-9)
        lead = value / 10.0**power
        if abs(lead - 1) < 1e-6:
            return rf"$10^{{{power}}}$"
        return f"{value:.2g}" if value < 1 else rf"${lead:.2g}\!\cdot\!10^{{{power}}}$"
    return f"{value:.4g}"


def level(value: Any, label: str | None = None, **style: Any) -> Callable[[Any, Any], Any]:
    """Return a drawing of a horizontal line at a value, or at ``value(results)``."""

    def draw(ax: Any, results: Any) -> None:
        ax.axhline(value(results) if callable(value) else value, label=label, **REFERENCE | style)

    return draw


def slope(exponent: float, label: str, **style: Any) -> Callable[[Any, Any], Any]:
    """Return a drawing of y ~ x^exponent through the middle of what the Axes shows."""

    def draw(ax: Any, results: Any) -> None:  # noqa: ARG001
        drawn = [line for line in ax.lines if line.get_transform() == ax.transData]
        points = [np.column_stack(line.get_data()).astype(float) for line in drawn]
        points = [p[np.isfinite(p).all(axis=1) & (p > 0).all(axis=1)] for p in points]
        u = np.log(np.concatenate(points))
        ends = np.array([u[:, 0].min(), u[:, 0].max()])
        if ends[0] == ends[1]:
            return
        through = u.mean(axis=0)
        line = np.exp(through[1] + exponent * (ends - through[0]))
        ax.plot(np.exp(ends), line, label=label, **REFERENCE | style)

    return draw


def beside(
    member: str, exponent: float, label: str, factor: float = 2.0, **style: Any
) -> Callable[[Any, Any], Any]:
    """Return a drawing of y ~ x^exponent at ``factor`` times the last point of a member's curve."""

    def draw(ax: Any, results: Any) -> None:  # noqa: ARG001
        drawn = dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
        line = drawn[member]
        x, y = np.asarray(getattr(line, "lines", [line])[0].get_data(), float)
        x, y = (values[np.isfinite(x * y) & (x > 0)] for values in (x, y))
        ax.plot(x, factor * y[-1] * (x / x[-1]) ** exponent, label=label, **REFERENCE | style)

    return draw
