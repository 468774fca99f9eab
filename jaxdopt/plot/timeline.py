"""Pictures of simulated time: when agents compute, and how stale the models are that they mix."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxdopt._checks import require
from jaxdopt._leaves import is_traced
from jaxdopt.networks.events.timeline import Completions, Timeline
from jaxdopt.plot.style import NAMES, cycle, pyplot

MOST = 12  # agents drawn by default
FINISHES = 4  # per agent, about as many as are drawn by default
HEIGHT = 0.44  # of a bar; agents are 1 apart
PALEST = 0.82  # of the colormap, whose yellow does not show on white


def timeline(
    timeline: Any,
    *,
    agents: Sequence[int] | None = None,
    until: float | None = None,
    ax: Any = None,
) -> Any:
    """Draw the gradients of agents that never wait as bars, and the models they mix as arrows.

    An arrow leads from the completion event that made a model to the one that mixes it; its color
    says how many newer models the sender had made by then. Starting models have no arrow.

    Args:
        timeline: a `jd.networks.timeline` that extends beyond ``until``; later completion events
            are unknown.
        agents: the agents to draw, from the top; default: all, or the first 12.
        until: the last second to draw; default: about four gradients per agent.
        ax: the Axes to draw in, ideally of a figure with layout="constrained"; default: new ones.

    Returns:
        The Axes.

    Raises:
        ValueError: not a timeline, agents that do not exist or that are repeated, or a time before
            the first completion event.

    Example:
        >>> import jaxdopt as jd
        >>> ring = jd.networks.metropolis(jd.graphs.ring(4))
        >>> made = jd.networks.timeline(ring, compute=[1.0, 1.0, 1.0, 3.0], delay=0.5, seconds=20)
        >>> ax = jd.plot.timeline(made, until=8)
    """
    plt = pyplot()
    from matplotlib.collections import PolyCollection
    from matplotlib.colors import BoundaryNorm, ListedColormap

    require(
        isinstance(timeline, Timeline) and not is_traced(timeline) and np.ndim(timeline.end) == 1,
        f"timeline is a {type(timeline).__name__}; give one jd.networks.timeline(network, ...).",
    )
    shown = np.arange(min(timeline.n, MOST)) if agents is None else np.asarray(agents)
    require(
        shown.ndim == 1 and len(shown) > 0 and np.issubdtype(shown.dtype, np.integer),
        f"agents is {agents!r}; give a list of agents' numbers.",
    )
    require(
        len(set(shown.tolist())) == len(shown) and np.all((shown >= 0) & (shown < timeline.n)),
        f"agents is {shown.tolist()}; give different ones of 0 to {timeline.n - 1}.",
    )
    completions = timeline.completions()
    when = completions.time[np.isin(completions.agent, shown)]
    require(len(when), f"none of the agents {shown.tolist()} ever finishes; draw others.")
    if until is None:
        until = float(when[min(FINISHES * len(shown), len(when)) - 1])
    require(
        until >= when[0], f"until is {until} and the first completion at {when[0]:g}; give more."
    )

    ax = plt.subplots(layout="constrained")[1] if ax is None else ax
    row = np.full(timeline.n, -1)
    row[shown] = np.arange(len(shown))
    ink = plt.rcParams["text.color"]
    for parity, opacity in ((0, 0.12), (1, 0.26)):  # neighboring bars differ
        bars = PolyCollection(_bars(completions, row, until, parity), closed=True, facecolors=ink)
        bars.set(alpha=opacity, linewidths=0, zorder=1)
        ax.add_collection(bars, autolim=False)
    start, end, stale = _arrows(timeline, completions, row, until)
    if len(stale):
        most = max(int(stale.max()), 1)
        levels = np.arange(most + 2) - 0.5
        many = len(levels) > 256
        arrows = ax.quiver(
            *start.T,
            *(end - start).T,
            stale,
            cmap=ListedColormap(plt.get_cmap("plasma")(np.linspace(0, PALEST, 256))),
            norm=None if many else BoundaryNorm(levels, 256),
            angles="xy",
            scale_units="xy",
            scale=1,
            units="dots",
            width=max(plt.rcParams["lines.linewidth"] * 0.6, 0.6) * ax.figure.dpi / 72,
            headwidth=5,
            headlength=6,
            headaxislength=5,
            zorder=3,
        )
        bar = ax.figure.colorbar(arrows, ax=ax, ticks=np.arange(0, most + 1, -(-most // 8)))
        bar.set_label("newer models made by the sender")
        bar.minorticks_off()
    drawn = (row[completions.agent] >= 0) & (completions.time <= until)
    rows = row[completions.agent[drawn]]
    lines = {"colors": cycle(plt)[0], "zorder": 2}
    ax.vlines(completions.time[drawn], rows - HEIGHT / 2, rows + HEIGHT / 2, **lines)
    ax.set_xlim(0, until)
    ax.set_ylim(len(shown) - 0.5, -0.5)
    ax.set_yticks(np.arange(len(shown)), [f"agent {agent}" for agent in shown])
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel(NAMES["seconds"])
    return ax


def _bars(completions: Completions, row: np.ndarray, until: float, parity: int) -> list[np.ndarray]:
    """Return the corners of every other gradient in each row, from the first or the second on."""
    corners = []
    for agent in np.flatnonzero(row >= 0):
        ends = completions.time[completions.agent == agent]
        begins = np.concatenate([[0.0], ends[:-1]])
        top, bottom = row[agent] - HEIGHT / 2, row[agent] + HEIGHT / 2
        for begin, end in list(zip(begins, ends, strict=True))[parity::2]:
            if begin < until:
                left, right = begin, min(end, until)
                corners.append(
                    np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
                )
    return corners


def _arrows(
    timeline: Timeline, completions: Completions, row: np.ndarray, until: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the starts and ends of mixed messages, [m, 2] each, and their staleness [m]."""
    sender = np.asarray(timeline.sender)
    time = [completions.time[completions.agent == agent] for agent in range(timeline.n)]
    found: list[tuple[Any, ...]] = []
    for e in np.flatnonzero((completions.time <= until) & (row[completions.agent] >= 0)):
        i, now = completions.agent[e], completions.time[e]
        for j, version in zip(sender[i], completions.read[e], strict=True):
            if j != i and version > 0 and row[j] >= 0:
                newer = max(int(np.searchsorted(time[j], now)) - version, 0)
                side = np.sign(row[i] - row[j]) * HEIGHT / 2  # from bar to bar, not over them
                start = (time[j][version - 1], row[j] + side)
                found.append((start, (now, row[i] - side), newer))
    found.sort(key=lambda arrow: arrow[2])  # the stalest are drawn last
    starts, ends, stale = zip(*found, strict=True) if found else ((), (), ())
    return np.array(starts), np.array(ends), np.array(stale, int)
