"""Pictures: what is drawn is what NumPy says."""

from typing import Any

import jax
import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr
from cycler import cycler
from matplotlib.axes import Axes

import jaxdopt as jd

mpl.use("Agg")
import matplotlib.pyplot as plt

STEPS = np.arange(0, 60, 10)


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def made(algorithms=2, networks=2, seeds=5, seed=0):
    gap = np.random.default_rng(seed).exponential(size=(algorithms, networks, seeds, len(STEPS)))
    dims = ("algorithm", "network", "seed")
    return xr.Dataset(
        {
            "gap": ((*dims, "step"), gap),
            "rounds": ((*dims, "step"), np.broadcast_to(2 * STEPS, gap.shape)),
            "diverged": (dims, np.zeros(gap.shape[:3], bool)),
        },
        {
            "algorithm": [f"method {i}" for i in range(algorithms)],
            "network": [f"graph {i}" for i in range(networks)],
            "seed": np.arange(seeds),
            "step": STEPS,
        },
    )


def grid(values, stepsizes, diverged=None):
    """Return a dataset of last values [network, stepsize]."""
    values = np.asarray(values, float)
    history = np.stack([np.full_like(values, 7.0), values], axis=-1)
    diverged = ~np.isfinite(values) if diverged is None else diverged
    return xr.Dataset(
        {
            "gap": (("network", "stepsize", "step"), history),
            "diverged": (("network", "stepsize"), diverged),
        },
        {"network": ["ring", "path"][: len(values)], "stepsize": stepsizes, "step": [0, 1]},
    )


def band_of(collection):
    """Return {x: (lowest, highest)} of a filled band."""
    found: dict[float, list[float]] = {}
    for x, y in collection.get_paths()[0].vertices:
        found.setdefault(float(x), []).append(float(y))
    return {x: (min(ys), max(ys)) for x, ys in found.items()}


def legend(ax: Any) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_one_line_a_member_with_its_name():
    ax = jd.plot.curves(made())
    assert isinstance(ax, Axes)
    assert len(ax.lines) == 4
    names = legend(ax)
    assert names == [f"method {i}, graph {j}" for i in range(2) for j in range(2)]
    assert ax.get_xscale() == "linear"
    assert ax.get_yscale() == "log"
    colors = [line.get_color() for line in ax.lines]
    dashes = [line.get_linestyle() for line in ax.lines]
    assert colors[0] == colors[1] != colors[2] == colors[3]
    assert dashes[0] == dashes[2] != dashes[1] == dashes[3]


def test_medians_and_bands_are_quantiles():
    dataset = made(1, 1)
    ax = jd.plot.curves(dataset, x="rounds", band=(0.25, 0.75))
    values = dataset["gap"].values[0, 0]  # five seeds: order statistics 1, 2, 3
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), 2 * STEPS)
    np.testing.assert_allclose(ax.lines[0].get_ydata(), np.quantile(values, 0.5, axis=0))
    low, high = (np.quantile(values, q, axis=0) for q in (0.25, 0.75))
    found = band_of(ax.collections[0])
    for x, a, b in zip(2 * STEPS, low, high, strict=True):
        np.testing.assert_allclose(found[float(x)], (a, b))


def test_diverged_seeds_count_as_infinite():
    dataset = made(1, 2)
    dataset["gap"].values[0, 0, 0, 2:] = np.nan
    dataset["gap"].values[0, 0, 1, 2:] = np.inf
    dataset["gap"].values[0, 1, :3, 3:] = np.nan
    ax = jd.plot.curves(dataset)
    first, second = (line.get_ydata() for line in ax.lines)
    expected = dataset["gap"].values[0, 0, 2:, 2:].max(axis=0)  # third of five
    np.testing.assert_allclose(first[2:], expected)
    assert np.isnan(second[3:]).all()
    assert np.isfinite(second[:3]).all()


def test_a_member_that_diverged_is_named():
    dataset = made(2, 1)
    dataset["gap"].values[1] = np.nan
    dataset["diverged"].values[1] = True
    dataset = dataset.squeeze("network", drop=True)
    assert legend(jd.plot.curves(dataset)) == ["method 0", "method 1 (diverged)"]
    without = dataset.drop_vars("diverged")  # the values say so themselves
    assert legend(jd.plot.curves(without)) == ["method 0", "method 1 (diverged)"]


def test_zeros_are_not_divergence():
    dataset = made(3, 1, seeds=2).squeeze("network", drop=True)
    dataset["gap"].values[0] = 0.0  # as a server's consensus error
    dataset["gap"].values[1] = -1e-18
    dataset["gap"].values[2, :, 3:] = np.nan  # drawn up to where it diverged
    dataset["diverged"].values[2] = True
    assert legend(jd.plot.curves(dataset)) == ["method 0 (0)", "method 1", "method 2"]
    linear = jd.plot.curves(dataset, logy=False)
    assert legend(linear) == ["method 0", "method 1", "method 2"]
    np.testing.assert_array_equal(linear.lines[0].get_ydata(), 0.0)


def test_a_comparisons_exact_zeros_are_named_so():
    """A centralized method has no consensus error."""
    data = jd.compare(
        {"DGD": jd.DGD(0.1), "GD": jd.GradientDescent(0.1)},
        jd.problems.quadratic(8, d=3, heterogeneity=1.0),
        jd.networks.metropolis(jd.graphs.ring(8)),
        over={"stepsize": [0.1]}, steps=10, progress=False,
    )  # fmt: skip
    ax = jd.plot.curves(jd.best(data, "gap").squeeze("network"), y="consensus_error")
    assert legend(ax) == ["DGD", "GD (0)"]


def test_what_never_ran_is_not_drawn():
    dataset = made(2, 2)
    for name in ("gap", "rounds"):
        dataset[name] = dataset[name].astype(float)
        dataset[name].values[1, 1] = np.nan
    ax = jd.plot.curves(dataset, x="rounds")
    assert legend(ax) == ["method 0, graph 0", "method 0, graph 1", "method 1, graph 0"]
    dataset["diverged"] = dataset["diverged"].where(dataset.rounds.notnull().any("step"))
    assert legend(jd.plot.curves(dataset, x="rounds")) == legend(ax)


def test_the_floor_and_what_is_not_positive():
    dataset = made(1, 1, seeds=1)
    dataset["gap"].values[0, 0, 0] = [1.0, 1e-3, 1e-20, 0.0, -1e-18, 1e-2]
    plain = jd.plot.curves(dataset).lines[0].get_ydata()
    np.testing.assert_array_equal(np.isnan(plain), [False, False, False, True, True, False])
    floored = jd.plot.curves(dataset, floor=1e-16).lines[0].get_ydata()
    np.testing.assert_allclose(floored, [1, 1e-3, 1e-16, 1e-16, 1e-16, 1e-2])
    linear = jd.plot.curves(dataset, logy=False, logx=True)
    np.testing.assert_allclose(linear.lines[0].get_ydata(), [1, 1e-3, 1e-20, 0, -1e-18, 1e-2])
    assert (linear.get_xscale(), linear.get_yscale()) == ("log", "linear")


def test_one_method_on_three_networks_has_three_colors():
    """What has one member distinguishes nothing."""
    ax = jd.plot.curves(made(1, 3))
    assert legend(ax) == ["graph 0", "graph 1", "graph 2"]
    assert len({line.get_color() for line in ax.lines}) == 3
    assert legend(jd.plot.curves(made(1, 1))) == ["method 0"]


def test_a_method_has_its_color_and_marker_in_every_figure():
    names = ["GT", "mine", "DSGD"]
    looks = jd.plot.styles(names)
    whole = made(3, 1).assign_coords(algorithm=names)
    for part in (whole, whole.isel(algorithm=[2, 0]), whole.transpose("network", ...)):
        lines = jd.plot.curves(part).lines
        for line, name in zip(lines, part.algorithm.values, strict=True):
            look = looks[name]
            assert (line.get_color(), line.get_marker()) == (look["color"], look["marker"])
    both = made(3, 2).assign_coords(algorithm=names).transpose("network", ...)
    lines = jd.plot.curves(both).lines  # methods by color in either order, networks by dashes
    assert [line.get_color() for line in lines[::2]] == [looks[name]["color"] for name in names]
    restart = made(2, 2).assign_coords(algorithm=["GT-RR", "GT-RR, restart"])
    found = {(line.get_color(), line.get_linestyle()) for line in jd.plot.curves(restart).lines}
    assert len(found) == 4


def test_numbers_in_the_legend_say_what_they_are():
    dataset = made(1, 2).assign_coords(network=[0.05, 0.5]).rename(network="gamma")
    assert legend(jd.plot.curves(dataset)) == ["gamma = 0.05", "gamma = 0.5"]
    assert legend(jd.plot.curves(dataset, labels={"0.05": "low"})) == ["low", "gamma = 0.5"]


def test_a_result_is_drawn_with_numbers_for_names():
    problem = jd.problems.quadratic(4, 2)
    setting = problem, jd.networks.metropolis(jd.graphs.ring(4)), problem.start()
    single = jd.run(jd.DGD(0.1), *setting, jax.random.key(0), steps=3)
    (line,) = jd.plot.curves(single).lines
    np.testing.assert_allclose(line.get_ydata(), single.history["gap"])
    methods = jax.vmap(jd.DGD)(np.array([0.1, 0.2]))
    for over, names in (
        ({"algorithm": "stepsize"}, ["stepsize = 0", "stepsize = 1"]),
        (("algorithm",), ["member = 0", "member = 1"]),
    ):
        swept = jd.sweep(jd.run, over=over)(methods, *setting, jax.random.key(0), steps=3)
        assert legend(jd.plot.curves(swept)) == names


def test_without_a_solution_it_is_said_why_there_is_no_gap():
    with pytest.raises(ValueError, match=r"no 'gap', which needs a known solution \(give l2 > 0"):
        jd.plot.curves(made().rename(gap="loss"))


def test_labels_own_axes_and_own_colors():
    own = plt.subplots()[1]
    with mpl.rc_context({"axes.prop_cycle": cycler(color=["red", "lime"])}):
        labels = {"method 0": "first", "graph 1": "second"}
        ax = jd.plot.curves(made(), ax=own, labels=labels)
    assert ax is own
    names = legend(ax)
    assert names == ["first, graph 0", "first, second", "method 1, graph 0", "method 1, second"]
    assert [line.get_color() for line in ax.lines] == ["red", "red", "lime", "lime"]
    default = jd.plot.curves(made()).lines[0].get_color()
    assert default == jd.plot.PALETTE[0]


def test_a_heatmap_shows_every_cell_on_a_logarithmic_axis():
    stepsizes = np.logspace(-3, 0, 4)
    values = np.array([[1, 0.1, 1e-3, 2.0], [3, 0.3, 1e-2, 4.0]])
    ax = jd.plot.heatmap(grid(values, stepsizes))
    assert isinstance(ax, Axes)
    assert len(ax.collections) == 1
    mesh: Any = ax.collections[0]
    np.testing.assert_allclose(mesh.get_array().reshape(2, 4), values)
    assert ax.get_xscale() == "log"
    assert [text.get_text() for text in ax.get_yticklabels()] == ["ring", "path"]
    edges = mesh.get_coordinates()[0, :, 0]  # type: ignore[attr-defined]
    np.testing.assert_allclose(edges, np.logspace(-3.5, 0.5, 5))
    narrow = jd.plot.heatmap(grid(values, [0.1, 0.2, 0.3, 0.4]), colorbar=False)
    assert narrow.get_xscale() == "linear"
    assert len(narrow.figure.axes) == 1


def test_a_heatmap_hatches_what_diverged_and_clips_below():
    values = np.array([[1.0, 1e-12, np.nan], [1e-4, 0.0, 1e-3]])
    flags = np.array([[False, False, True], [False, False, True]])
    ax = jd.plot.heatmap(grid(values, [0.1, 0.2, 0.3], flags), vmin=1e-6, vmax=10)
    mesh, hatched = ax.collections
    shown = np.ma.filled(mesh.get_array(), np.nan).reshape(2, 3)
    np.testing.assert_allclose(shown, [[1, 1e-6, np.nan], [1e-4, 1e-6, np.nan]])
    assert mesh.get_clim() == (1e-6, 10)
    assert hatched.get_hatch() == "///"
    assert len(hatched.get_paths()) == 2
    boxes = [path.get_extents() for path in hatched.get_paths()]
    inside = [(b.x0 < 0.3 < b.x1, b.y0 < row < b.y1) for row, b in enumerate(boxes)]
    assert inside == [(True, True), (True, True)]


def test_a_heatmap_shows_what_has_more_than_one_member():
    values = [[1, 0.1, 1e-3, 2.0], [3, 0.3, 1e-2, 4.0]]
    plain = grid(values, [0.1, 0.2, 0.3, 0.4])
    for dataset, labels in (
        (plain.expand_dims(algorithm=["GT"]), ["ring", "path"]),
        (plain.rename(network="algorithm").expand_dims(network=["ring"]), ["ring", "path"]),
        (plain.rename(stepsize="gamma").transpose("gamma", ...), None),
    ):
        ax = jd.plot.heatmap(dataset)
        mesh: Any = ax.collections[0]
        shown = mesh.get_array().reshape(2, -1)
        if labels is None:  # gamma is the other one
            assert (ax.get_xlabel(), ax.get_ylabel()) == ("gamma", "network")
        else:
            assert [text.get_text() for text in ax.get_yticklabels()] == labels
        np.testing.assert_allclose(shown, values)
    turned = jd.plot.heatmap(plain, by="stepsize")
    assert [text.get_text() for text in turned.get_xticklabels()] == ["ring", "path"]
    (row,) = jd.plot.heatmap(plain.isel(network=[1])).collections
    np.testing.assert_allclose(np.ravel(row.get_array()), values[1])


def test_a_heatmap_of_a_result_has_numbers_for_values():
    problem = jd.problems.quadratic(4, 2)
    rings = jd.networks.metropolis(jd.graphs.ring(4)), jd.networks.metropolis(jd.graphs.path(4))
    named = {"network": "network", "algorithm": "stepsize"}
    for over, x in ((("network", "algorithm"), "member_1"), (named, "stepsize  $\\alpha$")):
        swept = jd.sweep(jd.run, over=over)(
            jax.vmap(jd.DGD)(np.array([0.1, 0.2, 0.3])), problem, jd.networks.stack(rings),
            problem.start(), jax.random.key(0), steps=3,
        )  # fmt: skip
        ax = jd.plot.heatmap(swept)
        assert ax.get_xlabel() == x
        shown = np.reshape(ax.collections[0].get_array(), (2, 3))
        np.testing.assert_allclose(shown, swept.history["gap"][..., -1])


def test_a_heatmap_takes_the_median_over_seeds():
    values = np.array([[[1.0, 5.0, 2.0], [1.0, 1e-3, 1e-2]]])  # [network, stepsize, seed]
    flags = np.array([[[False] * 3, [False, True, False]]])
    dataset = xr.Dataset(
        {
            "gap": (("network", "stepsize", "seed", "step"), values[..., None]),
            "diverged": (("network", "stepsize", "seed"), flags),
        },
        {"network": ["ring"], "stepsize": [0.1, 0.2], "seed": [0, 1, 2], "step": [9]},
    )
    ax = jd.plot.heatmap(dataset)
    shown = np.ma.filled(ax.collections[0].get_array(), np.nan).ravel()
    np.testing.assert_allclose(shown, [2.0, np.nan])
    assert len(ax.collections[1].get_paths()) == 1


def test_a_heatmap_where_all_diverged():
    ax = jd.plot.heatmap(grid([[np.nan, np.inf]], [0.1, 0.2]))
    assert len(ax.collections[1].get_paths()) == 2


def test_a_heatmap_of_a_methods_own_stepsizes():
    data = jd.compare(
        {"DGD": jd.DGD(0.1), "GT": jd.GradientTracking(0.1)},
        jd.problems.quadratic(8, d=3, heterogeneity=1.0),
        {"ring": jd.networks.metropolis(jd.graphs.ring(8))},
        over={"DGD": {"stepsize": [0.1, 0.2, 0.3]}, "GT": {"stepsize": [0.01, 0.02]}},
        steps=4, progress=False,
    )  # fmt: skip
    ax = jd.plot.heatmap(data.sel(algorithm="GT"))
    mesh: Any = ax.collections[0]
    last = data.gap.sel(algorithm="GT").isel(step=-1, seed=0, choice=slice(2))
    np.testing.assert_allclose(np.ravel(mesh.get_array()), np.ravel(last))
    edges = mesh.get_coordinates()[0, :, 0]
    np.testing.assert_allclose(edges, [0.005, 0.015, 0.025])


class TestSlope:
    def test_is_a_power_on_two_logarithmic_axes(self):
        ax = jd.plot.curves(made().sel(network="graph 0"), x="rounds", logx=True)
        limits = ax.get_xlim(), ax.get_ylim()
        decay = jd.theory.of(jd.DRR, jd.theory.Constants()).decay
        assert jd.plot.slope(ax, decay, through=(20, 0.5)) is ax
        x, y = ax.lines[-1].get_data()
        np.testing.assert_allclose(y, 0.5 * (np.asarray(x) / 20) ** -2)
        assert x[-1] == pytest.approx(limits[0][1])
        assert (ax.get_xlim(), ax.get_ylim()) == limits
        assert ax.texts[-1].get_text() == "slope −2"
        assert len(ax.get_legend().get_texts()) == 2  # the methods alone

    def test_is_a_geometric_sequence_on_a_linear_one(self):
        ax = jd.plot.curves(made().sel(network="graph 0"))
        jd.plot.slope(ax, rate=0.9, through=(10, 0.5), end=40, label="theory")
        x, y = ax.lines[-1].get_data()
        np.testing.assert_allclose(y, 0.5 * 0.9 ** (np.asarray(x) - 10))
        assert (x[-1], ax.texts[-1].get_text()) == (40, "theory")

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"exponent": -1.0, "rate": 0.9, "through": (10, 1)}, "give exactly one"),
            ({"exponent": -1.0, "through": (10, 1)}, "the axes are linear and log, on which"),
            ({"rate": 0.9, "through": (10, 0)}, "give a point that logarithmic axes have"),
            ({"rate": -0.9, "through": (10, 1)}, "rate is -0.9; give more than 0"),
            ({"rate": 0.9, "through": (100, 1)}, "the line would go from 100 to"),
        ],
    )
    def test_refuses_lines_that_are_not_straight(self, options, message):
        ax = jd.plot.curves(made().sel(network="graph 0"))
        with pytest.raises(ValueError, match=message):
            jd.plot.slope(ax, **options)
