"""The picture of a timeline: bars, finishes and arrows are those of its tables."""

from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.quiver import Quiver

import jaxdopt as jd

mpl.use("Agg")
import matplotlib.pyplot as plt


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def made(compute=(1.0, 1.5, 4.0, 1.0), delay=0.25, seconds=20.0):
    ring = jd.networks.metropolis(jd.graphs.ring(4))
    return jd.networks.timeline(ring, compute=compute, delay=delay, seconds=seconds)


def parts(ax: Any) -> tuple[Any, Any, Any]:
    """Bars as (row, begin, end), finishes as (time, row), arrows as (from, to) and staleness."""
    quiver = next((c for c in ax.collections if isinstance(c, Quiver)), None)
    bars, finishes = [], []
    for collection in ax.collections:
        if isinstance(collection, LineCollection):
            finishes += [(s[0, 0], s[:, 1].mean()) for s in collection.get_segments()]
        elif isinstance(collection, PolyCollection) and collection is not quiver:
            for path in collection.get_paths():
                corners = np.asarray(path.vertices)
                (left, low), (right, high) = corners.min(axis=0), corners.max(axis=0)
                bars.append((round((low + high) / 2), left, right))
    arrows = []
    if quiver is not None:
        heads = quiver.XY + np.stack([quiver.U, quiver.V], axis=1)
        arrows = list(
            zip(np.asarray(quiver.XY), heads, np.asarray(quiver.get_array()), strict=True)
        )
    return sorted(bars), sorted(finishes), arrows


def test_bars_are_the_gradients_and_end_where_agents_finish():
    bars, finishes, _ = parts(jd.plot.timeline(made(), until=8.5))
    expected = []
    for agent, lasts in enumerate((1.0, 1.5, 4.0, 1.0)):
        begins = np.arange(0, 8.5, lasts)
        expected += [(agent, begin, min(begin + lasts, 8.5)) for begin in begins]
    np.testing.assert_allclose(bars, sorted(expected))
    ends = sorted((end, row) for row, _, end in expected if end < 8.5)
    np.testing.assert_allclose(finishes, ends)


def test_arrows_go_from_where_a_model_was_made_to_where_it_is_mixed():
    compute, delay = (1.0, 1.5, 4.0, 1.0), 1.25
    ax = jd.plot.timeline(made(delay=delay), until=8.5)
    expected = []
    for i in range(4):
        for time in np.arange(compute[i], 8.5, compute[i]):
            for j in ((i + 1) % 4, (i - 1) % 4):
                arrived = int((time - delay) // compute[j])
                if arrived > 0:
                    before = int(np.ceil(time / compute[j])) - 1
                    newer = max(before - arrived, 0)
                    expected.append((arrived * compute[j], j, time, i, newer))
    got = [
        (start[0], round(start[1]), end[0], round(end[1]), stale)
        for start, end, stale in parts(ax)[2]
    ]
    np.testing.assert_allclose(sorted(got), sorted(expected))
    assert {stale for *_, stale in expected} == {0, 1}
    (bar,) = [other for other in ax.figure.axes if other is not ax]
    assert bar.get_yticks().tolist() == [0, 1]


def test_agents_are_drawn_from_the_top_as_they_are_named():
    ax = jd.plot.timeline(made(), agents=[2, 0, 1], until=5.0)
    assert [text.get_text() for text in ax.get_yticklabels()] == ["agent 2", "agent 0", "agent 1"]
    bars, _, arrows = parts(ax)
    assert [bar for bar in bars if bar[0] == 0] == [(0, 0.0, 4.0), (0, 4.0, 5.0)]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]
    assert {(round(s[1]), round(e[1])) for s, e, _ in arrows} <= {(0, 2), (2, 0), (1, 2), (2, 1)}
    assert ax.get_xlabel() == "simulated seconds"
    assert ax.get_xlim() == (0, 5.0)


def test_it_draws_where_it_is_told_and_something_by_default():
    _, ax = plt.subplots()
    assert jd.plot.timeline(made(), ax=ax) is ax
    assert 3 < ax.get_xlim()[1] < 8
    quiet = jd.plot.timeline(made(delay=np.inf))
    assert parts(quiet)[2] == []
    assert quiet.figure.axes == [quiet]  # no arrows, and no colors to explain


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"agents": []}, r"agents is \[\]; give a list"),
        ({"agents": [0, 0]}, r"agents is \[0, 0\]; give different ones of 0 to 3"),
        ({"agents": [4]}, r"agents is \[4\]"),
        ({"until": 0.5}, "until is 0.5 and the first completion at 1"),
    ],
)
def test_what_cannot_be_drawn_is_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        jd.plot.timeline(made(), **options)


def test_other_networks_are_refused():
    with pytest.raises(ValueError, match=r"timeline is a Circulant; give one jd.networks.timeline"):
        jd.plot.timeline(jd.networks.metropolis(jd.graphs.ring(4)))
    stopped = made(compute=(1.0, np.inf, 1.0, 1.0))
    with pytest.raises(ValueError, match=r"none of the agents \[1\] ever finishes"):
        jd.plot.timeline(stopped, agents=[1])
