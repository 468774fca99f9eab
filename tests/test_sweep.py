"""Sweeps, comparisons, and what is read off them."""

import dataclasses
import functools
import itertools
import json
import math
import warnings
from typing import Any

import jax
import jax.monitoring
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr

import jaxdopt as jd
from jaxdopt.pieces import Batch, Pieces

mpl.use("Agg")
import matplotlib.pyplot as plt

N, D = 4, 2


def anything(value) -> Any:
    return value  # of a type that a user gets wrong


KEY = jax.random.key(0)
COMPILED = []


def _listen(event: str, duration: float, **details: Any) -> None:
    if event == "/jax/core/compile/backend_compile_duration":
        COMPILED.append(duration)


jax.monitoring.register_event_duration_secs_listener(_listen)  # pyright: ignore[reportArgumentType]


@functools.cache
def noisy():
    random = np.random.default_rng(0)
    labels = random.permutation(np.tile([0, 1], 10)).reshape(N, 5)
    data = random.standard_normal((N, 5, D))
    return jd.problems.Minibatch(jd.problems.logistic_regression(data, labels, l2=0.1), 2)


def named():
    graphs = {"path": jd.graphs.path(N), "ring": jd.graphs.ring(N), "all": jd.graphs.complete(N)}
    return {name: jd.networks.metropolis(graph) for name, graph in graphs.items()}


def dataset(gap, diverged=None, **axes):
    """Return a labelled dataset around ``gap`` [stepsize, seed, step]."""
    gap = np.asarray(gap, float)
    if diverged is None:
        diverged = ~np.isfinite(gap[..., -1])
    return xr.Dataset(
        {
            "gap": (("stepsize", "seed", "step"), gap),
            "diverged": (("stepsize", "seed"), diverged),
        }
        | {name: ("step", values) for name, values in axes.items()},
        {
            "stepsize": np.arange(1, len(gap) + 1) / 10,
            "seed": np.arange(gap.shape[1]),
            "step": np.arange(gap.shape[2]) * 5,
        },
    )


def test_a_sweep_has_one_axis_a_name_and_members_are_runs():
    problem, graphs = noisy(), list(named().values())[::2]
    stepsizes = jnp.array([0.05, 0.2])
    keys = jax.random.split(KEY, 2)
    swept = jd.sweep(jd.run, over=("algorithm", "network", "key"))(
        jax.vmap(jd.GradientTracking)(stepsizes), problem, jd.networks.stack(graphs),
        problem.start(), keys, steps=6, every=2,
    )  # fmt: skip
    assert swept.history["gap"].shape == (2, 2, 2, 4)
    assert swept.state.x.shape == (2, 2, 2, N, D)
    assert swept.diverged.shape == (2, 2, 2)
    for i in range(2):
        for j in range(2):
            for s in range(2):
                alone = jd.run(jd.GradientTracking(float(stepsizes[i])), problem, graphs[j],
                               problem.start(), keys[s], steps=6, every=2)  # fmt: skip
                for name in ("gap", "consensus_error", "traffic", "rounds"):
                    np.testing.assert_allclose(
                        swept.history[name][i, j, s], alone.history[name], rtol=1e-9, atol=1e-12
                    )


def test_a_function_with_any_keywords_can_be_swept():
    def scaled(x, **options):
        return x * options["by"]

    assert jd.sweep(scaled, over=("x",))(jnp.arange(3.0), by=2.0).tolist() == [0, 2, 4]


def test_a_second_sweep_compiles_nothing():
    problem, networks = noisy(), jd.networks.stack(list(named().values()))
    sweep = jd.sweep(jd.run, over=("algorithm", "network"))
    batches = [jax.vmap(jd.DGD)(jnp.array(values)) for values in ([0.1, 0.2], [0.3, 0.4])]
    keys = jax.random.split(KEY)
    first = sweep(batches[0], problem, networks, problem.start(), keys[0], steps=3)
    before = len(COMPILED)
    second = sweep(batches[1], problem, networks, problem.start(), keys[0], steps=3)
    assert len(COMPILED) == before > 0
    assert not np.allclose(first.history["loss"], second.history["loss"])


def test_the_order_of_over_is_the_order_of_the_axes():
    def function(a, b, c):
        return a["x"] - 10 * b + c

    a, b = {"x": jnp.arange(2.0)}, jnp.arange(3.0)
    expected = np.array([[i - 10 * j + 5 for j in range(3)] for i in range(2)])
    np.testing.assert_array_equal(jd.sweep(function, over=("a", "b"))(a, b, 5), expected)
    np.testing.assert_array_equal(jd.sweep(function, over=("b", "a"))(a, b=b, c=5), expected.T)
    np.testing.assert_array_equal(jd.sweep(function, over="b")(a, b, 5), expected.T)


def test_stack_keeps_the_order_of_its_members():
    members = list(named().values())
    stacked = jd.networks.stack(members)
    for i, member in enumerate(members):
        alone = jax.tree.map(lambda leaf, i=i: leaf[i], stacked)
        np.testing.assert_allclose(alone.matrix(), member.matrix(), atol=1e-15)


@pytest.fixture(scope="module")
def compared():
    return jd.compare(
        {"GT": jd.GradientTracking(9.0), "DGD": jd.DGD(9.0)}, noisy(), named(),
        over={"stepsize": [0.05, 0.2]}, seeds=[3, 11], steps=6, every=2, progress=False,
    )  # fmt: skip


def test_compare_labels_every_axis(compared):
    assert compared["gap"].dims == ("algorithm", "network", "stepsize", "seed", "step")
    assert compared["diverged"].dims == ("algorithm", "network", "stepsize", "seed")
    labels = {name: compared[name].values.tolist() for name in compared.coords}
    assert labels == {
        "algorithm": ["GT", "DGD"],
        "network": ["path", "ring", "all"],
        "stepsize": [0.05, 0.2],
        "seed": [3, 11],
        "step": [0, 2, 4, 6],
    }


def test_compare_is_run_at_every_label(compared):
    problem = noisy()
    for name, method in (("GT", jd.GradientTracking), ("DGD", jd.DGD)):
        for where in ("path", "all"):
            for seed in (3, 11):
                alone = jd.run(method(0.2), problem, named()[where], problem.start(),
                               jax.random.key(seed), steps=6, every=2).history  # fmt: skip
                cell = compared.sel(algorithm=name, network=where, stepsize=0.2, seed=seed)
                for variable in ("gap", "loss", "consensus_error", "traffic", "bits", "epochs"):
                    np.testing.assert_allclose(
                        cell[variable], alone[variable], rtol=1e-9, atol=1e-12, err_msg=variable
                    )


def test_compare_over_a_grid_of_two_fields_and_one_network():
    problem = jd.problems.quadratic(N, D)
    grid = {"stepsize": [0.1, 0.3, 0.2], "relaxation": [0.5, 1.0]}
    x0 = problem.start(jnp.ones(D))
    result = jd.compare({"D2": jd.ExactDiffusion(1.0)}, problem, named()["path"], over=grid,
                        steps=3, progress=False, x0=x0)  # fmt: skip
    assert result["gap"].dims == (
        "algorithm", "network", "stepsize", "relaxation", "seed", "step",
    )  # fmt: skip
    assert result.sizes["network"] == 1
    for a in grid["stepsize"]:
        for r in grid["relaxation"]:
            alone = jd.run(jd.ExactDiffusion(a, relaxation=r), problem, named()["path"], x0,
                           KEY, steps=3).history["gap"]  # fmt: skip
            cell = result["gap"].sel(stepsize=a, relaxation=r).squeeze()
            np.testing.assert_allclose(cell, alone, rtol=1e-9)


def test_best_of_every_network_and_algorithm_by_the_mean_over_seeds(compared):
    chosen = jd.best(compared, "gap")
    for name in ("GT", "DGD"):
        for where in ("path", "ring", "all"):
            cell = compared["gap"].sel(algorithm=name, network=where)
            means = [np.mean(np.abs(cell.sel(stepsize=a).values[:, -1])) for a in (0.05, 0.2)]
            winner = (0.05, 0.2)[int(np.argmin(means))]
            there = chosen.sel(algorithm=name, network=where)
            assert float(there["stepsize"]) == winner
            np.testing.assert_array_equal(there["gap"], cell.sel(stepsize=winner))
    assert set(chosen["gap"].dims) == {"algorithm", "network", "seed", "step"}


def test_best_never_takes_what_diverged_for_any_seed():
    gap = [
        [[1, 0.5], [1, 0.5]],
        [[1, 1e-9], [1, np.nan]],
        [[1, 0.4], [1, 0.5]],
        [[1, 1e-9], [1, 1e-9]],  # flagged: the state is not finite, though the metric is
    ]
    flags = np.array([[False] * 2, [False, True], [False] * 2, [True, False]])
    chosen = jd.best(dataset(gap, flags))
    assert float(chosen["stepsize"]) == pytest.approx(0.3)
    np.testing.assert_array_equal(chosen["gap"], gap[2])
    assert not chosen["diverged"].any()


def test_best_is_nan_where_all_diverged():
    chosen = jd.best(dataset([[[1.0, np.inf]], [[1.0, np.nan]]]))
    assert np.isnan(chosen["stepsize"])
    assert np.isnan(chosen["gap"]).all()


def test_best_breaks_ties_at_the_floor_by_who_is_first_there():
    eps = np.finfo(float).eps
    late = [[[1.0, 1e-1, 1e-2, 1 * eps]]]  # the smallest, last to arrive
    early = [[[1.0, 900 * eps, 800 * eps, 900 * eps]]]
    later = [[[1.0, 1e-3, 500 * eps, 5 * eps]]]
    above = [[[1.0, 1e-9, 1e-12, 1100 * eps]]]
    chosen = jd.best(dataset(np.concatenate([late, early, later, above])))
    assert float(chosen["stepsize"]) == pytest.approx(0.2)


def test_the_best_of_a_score_is_the_largest():
    late, early = [0.1, 0.2, 0.3, 0.9], [0.1, 0.9, 0.5, 0.9]
    lower, lost, above = [0.1, 1.0, 1.0, 0.8], [0.1, 0.9, 0.9, np.nan], [0.1, 0.9, 0.9, 2.0]
    data = dataset(
        [[late, late], [lower, lower], [early, early], [above, lost], [late, lower]]
    ).rename(gap="accuracy")
    chosen = jd.best(data, "accuracy", largest=True)
    assert float(chosen.stepsize) == pytest.approx(0.3)  # as good as the first, and there before
    np.testing.assert_array_equal(chosen.accuracy, [early, early])
    assert np.isnan(jd.best(data.isel(stepsize=[3]), "accuracy", largest=True).stepsize).all()
    negative = dataset(-np.array([[[1.0, 4.0]], [[1.0, 2.0]]]))
    assert float(jd.best(negative, largest=True).stepsize) == pytest.approx(0.2)
    with pytest.warns(UserWarning, match="best stepsize is at an end of the values tried: 0.3; "):
        jd.best(data.isel(stepsize=[0, 1, 2]), "accuracy", largest=True)


def test_a_score_is_reached_from_below():
    data = dataset([[[0.1, 0.6, 0.4, 0.8]], [[0.1, 0.2, 0.3, np.nan]]])
    assert jd.reach(data, "gap", 0.6, largest=True).values.tolist()[0] == [5.0]
    assert np.isnan(jd.reach(data, "gap", 0.6, largest=True)[1, 0])
    assert float(jd.reach(data, "gap", 0.6)[0, 0]) == 0


def test_reach_is_a_loop_and_nan_where_never():
    random = np.random.default_rng(0)
    gap = random.exponential(size=(3, 4, 8))
    gap[1, 2] = 9.0
    gap[2, 0, 0] = 0.0
    gap[0, 1, 3:] = np.nan
    rounds = np.arange(8) ** 2
    found = jd.reach(dataset(gap, np.zeros((3, 4), bool), rounds=rounds), "gap", 0.3, x="rounds")
    steps = jd.reach(dataset(gap, np.zeros((3, 4), bool), rounds=rounds), "gap", 0.3)
    assert "step" not in found.coords  # where it never is, there is none
    assert "step" not in found.coords  # where it never is, there is none
    for i in range(3):
        for s in range(4):
            first = next((k for k in range(8) if gap[i, s, k] <= 0.3), None)
            if first is None:
                assert np.isnan(found[i, s])
                assert np.isnan(steps[i, s])
            else:
                assert float(found[i, s]) == rounds[first]
                assert float(steps[i, s]) == 5 * first
    assert np.isnan(found[1, 2])
    assert float(found[2, 0]) == 0


def test_label_names_axes_and_keeps_other_shapes():
    problem = noisy()
    result = jd.sweep(jd.run, over=("algorithm", "key"))(
        jax.vmap(jd.DGD)(jnp.array([0.1, 0.2])), problem, named()["ring"], problem.start(),
        jax.random.split(KEY, 3), steps=4, every=2, metrics={"x": lambda s, p: s.x},
    )  # fmt: skip
    labelled = jd.label(result, stepsize=["small", "large"], seed=3)
    assert labelled["x"].dims == ("stepsize", "seed", "step", "x_0", "x_1")
    assert labelled["gap"].dims == ("stepsize", "seed", "step")
    assert labelled["diverged"].dims == ("stepsize", "seed")
    assert labelled["seed"].values.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(
        labelled["x"].sel(stepsize="large", seed=2).isel(step=-1), result.state.x[1, 2]
    )
    alone = jd.run(jd.DGD(0.1), problem, named()["ring"], problem.start(), KEY, steps=4)
    assert jd.label(alone)["gap"].dims == ("step",)


def test_datasets_go_through_files(compared, tmp_path):
    chosen = jd.best(compared, "gap")
    for name, saved in (("all", compared), ("best", chosen)):
        saved.to_netcdf(tmp_path / f"{name}.nc")
        with xr.open_dataset(tmp_path / f"{name}.nc") as again:
            xr.testing.assert_equal(again.load(), saved)
    frame = compared.to_dataframe().reset_index()
    assert len(frame) == 2 * 3 * 2 * 2 * 4
    row = frame[(frame.algorithm == "DGD") & (frame.network == "all") & (frame.stepsize == 0.2)
                & (frame.seed == 11) & (frame.step == 4)]  # fmt: skip
    cell = compared["gap"].sel(algorithm="DGD", network="all", stepsize=0.2, seed=11, step=4)
    assert row["gap"].tolist() == [float(cell)]
    frame.to_csv(tmp_path / "all.csv")
    assert (tmp_path / "all.csv").read_text().count("\n") == len(frame) + 1


@pytest.mark.slow
def test_compare_takes_networks_of_all_kinds_together():
    ring = jd.networks.metropolis(jd.graphs.ring(8))
    networks = {
        "ring": ring,
        "torus": jd.networks.metropolis(jd.graphs.torus(2, 4)),
        "one peer": jd.networks.one_peer_exponential(8),
        "lossy": jd.networks.RandomLinks(ring, 0.5),
        "twice": jd.networks.Repeated(ring, 2),
    }
    problem = jd.problems.quadratic(8, 3)
    methods = {"GT": jd.GradientTracking(0.1)}
    both = jd.compare(
        methods, problem, networks, over={"stepsize": [0.1]}, steps=20, every=10, progress=False
    )
    assert both.network.values.tolist() == list(networks)
    for name, network in networks.items():
        alone = jd.run(
            methods["GT"], problem, network, problem.start(), jax.random.key(0), steps=20, every=10
        )
        mine = both.sel(network=name, algorithm="GT").isel(stepsize=0, seed=0)
        np.testing.assert_allclose(mine["gap"], alone.history["gap"], rtol=1e-9)
    assert both["rounds"].isel(step=-1, algorithm=0, stepsize=0, seed=0).values.tolist() == [
        20, 20, 20, 20, 40,
    ]  # fmt: skip
    small = {"small": jd.networks.metropolis(jd.graphs.ring(7))}
    with pytest.raises(ValueError, match="network 'small' is for 7 agents and the problem for 8"):
        jd.compare(methods, problem, small, over={"stepsize": [0.1]}, steps=20)


def curves_of(keys=3, **over):
    """Return DGD at two stepsizes, and some keys, swept over as ``over`` says."""
    return jd.sweep(jd.run, over=over or ("algorithm", "key"))(
        jax.vmap(jd.DGD)(jnp.array([0.1, 0.2])), noisy(), named()["ring"], noisy().start(),
        jax.random.split(KEY, keys), steps=4, every=2,
    )  # fmt: skip


def test_labels_find_named_axes_by_name():
    plain, result = curves_of(), curves_of(algorithm="stepsize", key="seed")
    assert (plain.axes, result.axes) == ((None, None), ("stepsize", "seed"))
    expected = jd.label(plain, stepsize=[0.1, 0.2], seed=3)
    xr.testing.assert_identical(jd.label(result, seed=np.int64(3), stepsize=[0.1, 0.2]), expected)
    swapped = curves_of(key="seed", algorithm="stepsize")
    assert swapped.axes == ("seed", "stepsize")
    other = jd.label(swapped, stepsize=[0.1, 0.2], seed=3).transpose("stepsize", "seed", ...)
    xr.testing.assert_allclose(other, expected.transpose("stepsize", "seed", ...))


def test_axes_of_ones_own_come_before_the_named_ones_and_are_labelled_by_position():
    methods, keys = jax.vmap(jd.DGD)(jnp.array([0.1, 0.2])), jax.random.split(KEY, 3)
    seeds = jd.sweep(jd.run, over={"key": "seed"})

    def run(method, network):
        return seeds(method, noisy(), network, noisy().start(), keys, steps=4, every=2)

    ring = named()["ring"]
    own = jax.vmap(run, (0, None))(methods, ring)
    assert own.axes == ("seed",)
    expected = jd.label(curves_of(), stepsize=[0.1, 0.2], seed=3)
    xr.testing.assert_allclose(jd.label(own, seed=3, stepsize=[0.1, 0.2]), expected)
    xr.testing.assert_allclose(jd.label(own, stepsize=[0.1, 0.2], seed=3), expected)
    nested = jd.sweep(run, over={"method": "stepsize"})(methods, ring)
    assert nested.axes == ("stepsize", "seed")
    xr.testing.assert_allclose(jd.label(nested, seed=3, stepsize=[0.1, 0.2]), expected)
    unnamed = jd.sweep(run, over="method")(methods, ring)
    assert unnamed.axes == (None, "seed")
    xr.testing.assert_allclose(jd.label(unnamed, seed=3, stepsize=[0.1, 0.2]), expected)
    with pytest.raises(ValueError, match=r"2 swept axes and 2 names were given; .* seed among"):
        jd.label(own, stepsize=2, key=3)


def test_a_result_goes_along_with_a_sweep():
    first = curves_of(algorithm="stepsize", key="seed")

    def further(algorithm, key=None, *, after, by):
        assert key is None
        return jd.replace(after, diverged=by * algorithm.stepsize + after.metrics["gap"][-1])

    again = jd.sweep(further, over={"algorithm": "stepsize", "key": "seed"})
    methods = jax.vmap(jd.DGD)(jnp.array([0.1, 0.2]))
    result = again(methods, after=first, by=10.0)
    assert result.axes == ("stepsize", "seed")
    np.testing.assert_allclose(
        result.diverged, np.array([[1.0], [2.0]]) + first.history["gap"][..., -1]
    )
    with pytest.raises(
        ValueError, match=r"after is swept over stepsize, seed and .* seed, a; give"
    ):
        jd.sweep(further, over={"key": "seed", "algorithm": "a"})(methods, after=first, by=1.0)
    alone = jax.tree.map(lambda leaf: leaf[0, 0], jd.replace(first, axes=()))
    with pytest.raises(ValueError, match="key is swept over and not given; give it, stacked"):
        again(methods, after=alone, by=1.0)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda r: jd.label(r, stepsize=2, key=3), "axes are stepsize, seed and .* stepsize, key;"),
        (lambda r: jd.label(r, stepsize=2), "axes are stepsize, seed and .* stepsize; give"),
        (lambda r: jd.label(r, stepsize=3, seed=3), "stepsize has 3 values and the axis 2 members"),
        (lambda r: jd.label(jd.replace(r, axes=()), gap=2, seed=3), "gap is in the history alre"),
        (lambda r: jd.label(jd.replace(r, axes=()), step=2, seed=3), "step is in the history alr"),
        (lambda r: jd.label(r.history, a=2), "result is a dict; give the Result of jd.run"),
        (lambda r: jd.best(r), r"dataset is a Result; name its axes with jd.label\(result, ...\)"),
        (lambda r: jd.reach(r, "gap", 1.0), r"dataset is a Result; name its axes with jd.label"),
        (lambda r: jd.plot.heatmap(r.history), r"dataset is a dict; give an xarray.Dataset"),
        (lambda r: curves_of(algorithm="a", key="a"), "give every axis a name of its own"),
        (lambda r: curves_of(algorithm=1), "give every axis a name of its own"),
    ],
)  # fmt: skip
def test_mistakes_with_results_are_told_in_one_sentence(wrong, says):
    with pytest.raises(ValueError, match=says):
        wrong(curves_of(algorithm="stepsize", key="seed"))


PLAIN = jd.problems.quadratic(N, D, heterogeneity=1.0, curvature_spread=0.0)


def compare(*args, **options):
    """Compare in a few steps on a ring of the quadratic problem."""
    networks = {"ring": named()["ring"]}
    given = {"problem": PLAIN, "networks": networks, "steps": 4, "every": 2, "progress": False}
    return jd.compare(*args, **(given | options))


@pytest.mark.parametrize(
    ("seeds", "which"),
    [
        (np.int64(2), [0, 1]),
        (jnp.asarray(2), [0, 1]),
        (range(3, 5), [3, 4]),
        (jnp.arange(2), [0, 1]),
        (np.array([3_000_000_000, 7], np.uint32), [3_000_000_000, 7]),
        ([1_835_504_127, -1], [1_835_504_127, -1]),
    ],
)
@pytest.mark.usefixtures("float32")
def test_a_seed_is_a_key(seeds, which):
    world = jd.problems.Minibatch(
        jd.problems.logistic_regression(np.eye(8, 2), np.arange(8) % 2, agents=N, l2=0.1), 1
    )
    data = compare({"DGD": jd.DGD(0.1)}, problem=world, seeds=seeds)
    assert data.seed.values.tolist() == which
    for seed in which:
        alone = jd.run(jd.DGD(0.1), world, named()["ring"], world.start(), jax.random.key(seed),
                       steps=4, every=2)  # fmt: skip
        np.testing.assert_allclose(
            data.gap.sel(seed=seed).squeeze(), alone.history["gap"], rtol=1e-5
        )


@pytest.mark.usefixtures("float32")
def test_seeds_that_are_one_key_are_refused():
    with pytest.raises(ValueError, match="seeds has 1 and 4294967297, which are the same"):
        compare({"DGD": jd.DGD(0.1)}, seeds=[1, 2**32 + 1])


class Worked:
    """A metric that knows whether it was computed, and may fail for methods that track y."""

    def __init__(self, fails: bool = False):
        self.calls, self.fails = 0, fails

    def __call__(self, state, problem):
        def value(x):
            self.calls += 1
            if self.fails and len(x) == 1:
                raise RuntimeError("no more room")
            return np.zeros((), np.float64)

        marked = state.x[:1] if hasattr(state, "y") else state.x
        return jax.pure_callback(
            value, jax.ShapeDtypeStruct((), np.float64), marked, vmap_method="sequential"
        )


TOP, HALF = jd.compressors.TopK(1), jd.compressors.RandomK(1)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"also": jd.CEDAS(0.1, TOP)}, "also, ring: CEDAS has .* a TopK is biased; give"),
        ({"also": jd.DGD}, "also, ring: algorithm is the class DGD; give an instance"),
        ({"also": jd.RelaySGD(0.1)}, "also, ring: .*tree"),
        ({"problem": jd.problems.Minibatch}, "problem is the class Minibatch; give an instance"),
        ({"networks": [named()["ring"]]}, "networks is a list; give {name: network}"),
        ({"networks": jd.graphs.ring(N)}, r"network is a Graph .*give jd.networks.metropolis\(g"),
        ({"networks": {"a": named()["ring"], "b": jd.graphs.ring(N)}}, "method, b: .*a Graph"),
        ({"networks": {}}, "networks is empty; give {name: network}"),
        ({"networks": {0: named()["ring"]}}, r"networks has \[0\] for names; give strings"),
        ({"metrics": {"seed": lambda s, p: 0.0}}, "metric seed is named like a dimension"),
        ({"metrics": {"network": lambda s, p: 0.0}}, "metric network is named like a dimension"),
        ({"metrics": {"choice": lambda s, p: 0.0}}, "metric choice is named like a dimension"),
        ({"metrics": {"stepsize": lambda s, p: 0.0}, "over": {"stepsize": [0.1]}},
         "metric stepsize is named like a field"),
        ({"metrics": {"m": lambda s, p: s.x if hasattr(s, "y") else 0.0},
          "also": jd.GradientTracking(0.1)},
         r"metric 'm' has shape \[\] for method, ring and \[4, 2\] for also, ring; return"),
        ({"steps": 5}, "steps = 5 is not a multiple of every = 2"),
        ({"x0": jnp.zeros(D)}, r"the estimates have shape \(2,\)"),
        ({"over": ["stepsize"]}, r"over is \['stepsize'\]; give {field: values}, or"),
        ({"over": {"stepsize": 0.1}}, "'stepsize'.* is 0.1; give a list of values"),
        ({"over": {"stepsize": "0.1"}}, "'stepsize'.* is '0.1'; give a list of values"),
        ({"over": {"stepsize": np.ones((2, 2))}}, r"'stepsize'.* has shape \(2, 2\); give a list"),
        ({"over": {"stepsize": [0.1, 0.1]}}, "has 0.1 more than once; give every value once"),
        ({"over": {"method": {"stepsize": [0.1]}, "stepsize": [0.2]}},
         "over names the methods method, and stepsize, which are none; give"),
        ({"over": {"consensus_stepsize": [0.1]}, "also": jd.CHOCOSGD(0.1, TOP)},
         "method has no field 'consensus_stepsize' to sweep; .* over={method: {field"),
        ({"over": {"local_steps": [1.0]}, "method": jd.LocalDSGD(0.1)},
         "local_steps is 1.0; give an integer"),
        ({"seeds": [0, 0]}, r"seeds is \[0, 0\]; give at least one, as a count or"),
        ({"seeds": -1}, "seeds is -1; give at least one"),
        ({"seeds": 2.0}, "seeds is 2.0; give at least one"),
        ({"seeds": "12"}, "seeds is '12'; give at least one"),
        ({"seeds": [2**64]}, "takes integers of 64 bits"),
        ({"seeds": jax.random.split(KEY)}, "give at least one, as a count or as different"),
    ],
)  # fmt: skip
def test_everything_is_refused_before_any_work(options, says):
    methods = {"method": options.pop("method", jd.DGD(0.1))}
    methods |= {"also": options.pop("also")} if "also" in options else {}
    worked = Worked()
    metrics = {"worked": worked} | options.pop("metrics", {})
    with pytest.raises(ValueError, match=says):
        compare(methods, metrics=metrics, **options)
    assert worked.calls == 0


def test_what_fails_while_it_is_traced_says_where():
    with pytest.raises(AttributeError, match="no attribute 'y'") as caught:
        compare(
            {"GT": jd.GradientTracking(0.1), "DGD": jd.DGD(0.1)},
            metrics={"y": lambda s, p: s.y[0, 0]},
        )
    assert "in jd.compare: DGD, ring" in caught.value.__notes__


@jd.pytree
class Traced:
    """DGD that counts how often it is traced."""

    stepsize: jd.Nonnegative
    times = 0

    def init(self, x0, problem, network, key):
        return jd.DGD(0.1).init(x0, problem, network, key)

    def step(self, state, problem, network, key):
        Traced.times += 1
        return jd.DGD(self.stepsize).step(state, problem, network, key)


def test_to_be_refused_first_a_method_is_not_traced_twice():
    over = {"stepsize": [0.1, 0.2]}
    keys = jax.random.split(KEY, 1)
    jd.sweep(jd.run, over=("algorithm", "key"))(
        jax.vmap(Traced)(jnp.array([0.1, 0.2])), PLAIN, named()["ring"], PLAIN.start(), keys,
        steps=4, every=2,
    )  # fmt: skip
    alone, Traced.times = Traced.times, 0
    compare({"traced": Traced(0.1)}, over=over, steps=6)
    assert Traced.times == alone


def test_what_is_finished_is_kept():
    methods = {"DGD": jd.DGD(0.1), "GT": jd.GradientTracking(0.1)}
    over = {"stepsize": [0.1, 0.2]}
    with pytest.raises(jax.errors.JaxRuntimeError, match="no more room") as caught:
        compare(methods, over=over, metrics={"zero": Worked(fails=True)})
    kept = caught.value.dataset  # type: ignore[attr-defined]
    expected = compare({"DGD": jd.DGD(0.1)}, over=over, metrics={"zero": Worked()})
    xr.testing.assert_allclose(kept, expected)
    assert any("2 of 4 runs of jd.compare are finished" in n for n in caught.value.__notes__)


@pytest.mark.parametrize("after", [0, 1, 4])
def test_an_interruption_keeps_whole_sweeps(after, monkeypatch):
    results, calls = Pieces.results, []

    def interrupted(self, *args, **options):
        if len(calls) == after:
            raise KeyboardInterrupt
        calls.append(args)
        return results(self, *args, **options)

    monkeypatch.setattr(Pieces, "results", interrupted)
    methods = {"DGD": jd.DGD(0.1), "GT": jd.GradientTracking(0.1)}
    over = {"GT": {"stepsize": [0.1, 0.2, 0.3]}, "DGD": {"stepsize": [0.1, 0.2]}}
    with pytest.raises(KeyboardInterrupt) as caught:
        compare(methods, networks=named(), over=over)
    kept: Any = caught.value.dataset  # type: ignore[attr-defined]
    monkeypatch.setattr(Pieces, "results", results)
    if after == 0:
        assert kept is None
        return
    whole = compare(methods, networks=named(), over=over)
    assert kept.algorithm.values.tolist() == ["DGD", "GT"][: 1 + (after > 3)]
    assert kept.network.values.tolist() == list(named())
    done = [(name, where) for name in methods for where in named()][:after]
    for name in kept.algorithm.values:
        for where in named():
            cell = kept.sel(algorithm=name, network=where)
            if (name, where) in done:
                xr.testing.assert_allclose(cell, whole.sel(algorithm=name, network=where))
            else:
                assert cell.gap.isnull().all()
                assert not cell.diverged.any()
    assert jd.best(kept).gap.notnull().sum() == after * 3


def test_methods_have_grids_of_their_own():
    methods = {"GT": jd.GradientTracking(0.3), "CHOCO": jd.CHOCOSGD(0.1, TOP), "DGD": jd.DGD(0.25)}
    over = {
        "GT": {"stepsize": [0.3, 0.1]},
        "CHOCO": {"stepsize": [0.2, 0.1], "consensus_stepsize": [0.5, 0.2]},
    }
    data = compare(methods, networks=named(), over=over, seeds=2)
    assert data.gap.dims == ("algorithm", "network", "choice", "seed", "step")
    expected = {
        "GT": [(0.3, None), (0.1, None)],
        "CHOCO": [(0.2, 0.5), (0.2, 0.2), (0.1, 0.5), (0.1, 0.2)],
        "DGD": [(0.25, None)],
    }
    for name, points in expected.items():
        for choice in range(4):
            cell = data.sel(algorithm=name, choice=choice)
            found = (float(cell.stepsize), float(cell.consensus_stepsize))
            if choice >= len(points):
                assert np.isnan(found).all()
                assert cell.gap.isnull().all()
                assert not cell.diverged.any()
                continue
            np.testing.assert_array_equal(found, np.array(points[choice], float))
            stepsize, gamma = points[choice]
            changes = {"stepsize": stepsize} | (
                {} if gamma is None else {"consensus_stepsize": gamma}
            )
            method = dataclasses.replace(methods[name], **changes)
            alone = jd.run(method, PLAIN, named()["path"], PLAIN.start(), jax.random.key(1),
                           steps=4, every=2)  # fmt: skip
            np.testing.assert_allclose(cell.gap.sel(network="path", seed=1), alone.history["gap"])
    chosen = jd.best(data)
    assert set(chosen.gap.dims) == {"algorithm", "network", "seed", "step"}
    assert chosen.stepsize.dims == chosen.consensus_stepsize.dims == ("algorithm", "network")
    assert np.isnan(chosen.consensus_stepsize.sel(algorithm=["GT", "DGD"])).all()
    for name, where in itertools.product(methods, named()):
        finals = abs(data.gap.sel(algorithm=name, network=where).isel(step=-1)).mean("seed")
        own = chosen.sel(algorithm=name, network=where)
        assert float(abs(own.gap.isel(step=-1)).mean()) == float(finals.min())
        assert float(own.stepsize) == expected[name][int(np.nanargmin(finals.values))][0]


@pytest.mark.slow
def test_grids_of_their_own_go_through_files_and_into_pictures(tmp_path):
    methods = {
        "GT": jd.GradientTracking(0.3),
        "CHOCO": jd.CHOCOSGD(0.1, TOP, consensus_stepsize=0.3),
    }
    over = {
        "GT": {"stepsize": [0.2, 0.1]},
        "CHOCO": {"compressor": [TOP, HALF, jd.compressors.TopK(2)]},
    }
    data = compare(methods, over=over)
    labels = [["", "", ""], ["TopK(k=1)", "RandomK(k=1)", "TopK(k=2)"]]
    assert data.compressor.values.tolist() == labels
    for dataset in (data, jd.best(data)):
        dataset.to_netcdf(tmp_path / "own.nc")
        with xr.open_dataset(tmp_path / "own.nc") as again:
            xr.testing.assert_identical(again.load(), dataset)
    ax = jd.plot.curves(data.squeeze("network"))
    assert len(ax.lines) == 2 + 3
    plt.close(ax.figure)


def test_fields_that_change_the_program_are_swept_as_one_program_a_value():
    world = jd.problems.quadratic(N, D)
    server, over = jd.networks.Server(N), {"stepsize": [0.1, 0.2], "local_steps": [1, 5]}
    before = len(COMPILED)
    data = compare({"F": jd.FedAvg(0.1)}, problem=world, networks=server, over=over)
    compiled = len(COMPILED) - before
    assert data.local_steps.values.tolist() == [1, 5]
    assert data.local_steps.dtype.kind == "i"
    for stepsize, local_steps in itertools.product(*over.values()):
        method = jd.FedAvg(stepsize, local_steps=local_steps)
        alone = jd.run(method, world, server, world.start(), KEY, steps=4, every=2)
        cell = data.sel(stepsize=stepsize, local_steps=local_steps).squeeze()
        np.testing.assert_allclose(cell.gap, alone.history["gap"], rtol=1e-9)
    before = len(COMPILED)
    over = {"stepsize": [0.3, 0.4], "local_steps": np.array([5, 1])}
    compare({"F": jd.FedAvg(0.1)}, problem=world, networks=server, over=over)
    assert len(COMPILED) == before
    assert compiled >= 2
    assert jd.best(data).local_steps.item() in (1, 5)


def test_schedules_compressors_and_rows_of_numbers_are_swept():
    rows = np.array([[0.1], [0.2], [0.1], [0.2]])

    def halving(k):
        return 0.2 / 2**k

    inverse = [jd.schedules.InverseTime(a, 2.0) for a in (0.2, 0.4)]
    data = compare({"DGD": jd.DGD(0.1)}, over={"stepsize": [0.1, *inverse, halving]})
    assert data.stepsize.values.tolist() == [
        "0.1", "InverseTime(numerator=0.2, offset=2.0)", "InverseTime(numerator=0.4, offset=2.0)",
        "halving",
    ]  # fmt: skip
    named_ones = compare({"DGD": jd.DGD(0.1)}, over={"stepsize": {"rows": rows, "half": halving}})
    assert named_ones.stepsize.values.tolist() == ["rows", "half"]
    for dataset, label, stepsize in (
        (data, "0.1", 0.1),
        (data, "InverseTime(numerator=0.4, offset=2.0)", inverse[1]),
        (data, "halving", halving),
        (named_ones, "rows", rows),
        (named_ones, "half", halving),
    ):
        alone = jd.run(jd.DGD(stepsize), PLAIN, named()["ring"], PLAIN.start(), KEY,
                       steps=4, every=2)  # fmt: skip
        cell = dataset.gap.sel(stepsize=label).squeeze()
        np.testing.assert_allclose(cell, alone.history["gap"], rtol=1e-9)
    methods = {"CHOCO": jd.CHOCOSGD(0.1, TOP, consensus_stepsize=0.3)}
    over = {"compressor": {"top": TOP, "random": HALF}, "consensus_stepsize": [0.2, 0.4]}
    both = compare(methods, over=over)
    assert both.compressor.values.tolist() == ["top", "random"]
    method = jd.CHOCOSGD(0.1, HALF, consensus_stepsize=0.4)
    alone = jd.run(method, PLAIN, named()["ring"], PLAIN.start(), KEY,
                   steps=4, every=2)  # fmt: skip
    cell = both.gap.sel(compressor="random", consensus_stepsize=0.4).squeeze()
    np.testing.assert_allclose(cell, alone.history["gap"], rtol=1e-9)


def test_without_values_to_try_methods_run_as_they_are():
    methods = {"average": jd.PushSum(), "GT": jd.GradientTracking(0.2)}
    data = compare(methods, networks=named(), seeds=2)
    assert data.gap.dims == ("algorithm", "network", "seed", "step")
    for name, method in methods.items():
        alone = jd.run(method, PLAIN, named()["all"], PLAIN.start(), KEY, steps=4, every=2)
        cell = data.gap.sel(algorithm=name, network="all", seed=0)
        np.testing.assert_allclose(cell, alone.history["gap"], rtol=1e-9, atol=1e-15)
    with pytest.raises(ValueError, match="nothing to choose over"):
        jd.best(data)


def test_the_dataset_says_what_it_is_of():
    data = compare(
        {"GT": jd.GradientTracking(0.5), "D": jd.DGD(0.1)}, over={"stepsize": [0.1, 0.2]}
    )
    assert json.loads(data.attrs["algorithms"]) == {
        "GT": repr(jd.GradientTracking(0.5)), "D": "DGD(stepsize=0.1)",
    }  # fmt: skip
    assert {name: data.attrs[name] for name in ("steps", "jaxdopt", "jax")} == {
        "steps": 4, "jaxdopt": jd.__version__, "jax": jax.__version__,
    }  # fmt: skip
    assert data.attrs["device"] == jax.devices()[0].device_kind
    assert {"python", "time"} <= set(data.attrs)
    assert jd.best(data).attrs == data.attrs


def test_best_warns_at_an_end_of_the_numbers_tried():
    gap = np.array([[[1.0, value]] for value in (0.4, 0.3, 0.2, 0.1)])
    with pytest.warns(UserWarning, match="best stepsize is at an end of the values tried: 0.4; "):
        jd.best(dataset(gap))
    with pytest.warns(UserWarning, match="best stepsize is at an end of the values tried: 0.1; "):
        jd.best(dataset(gap[::-1]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        jd.best(dataset(gap[[0, 3, 2]]))  # inside
        jd.best(dataset(gap[:2]))  # two ends and nothing between
        jd.best(dataset(np.full_like(gap, np.nan)))  # all diverged
        data = compare(
            {"D2": jd.ExactDiffusion(0.1)}, over={"relaxation": [0.2, 0.5, 1.0]}, steps=40
        )
        assert jd.best(data).relaxation == 1.0  # nothing lies beyond
    over = {"D": {"stepsize": [0.01, 0.02, 0.03]}, "GT": {"stepsize": [0.03, 5.0, 9.0]}}
    data = compare({"D": jd.DGD(0.1), "GT": jd.GradientTracking(0.1)}, over=over, steps=40)
    with pytest.warns(UserWarning, match=r"tried: 0.03 \(D, ring\), 0.03 \(GT, ring\); better"):
        jd.best(data)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda d: jd.best(d.gap), "dataset is a DataArray; give the whole dataset, or"),
        (lambda d: jd.best(anything({})), "dataset is a dict; give an xarray.Dataset"),
        (lambda d: jd.best(d, "diverged"), "diverged has no values over steps; name a variable"),
        (lambda d: jd.best(d, over="seed"), r"nothing to choose over: \['seed'\]"),
        (lambda d: jd.best(d, over="step"), r"nothing to choose over: \['step'\]"),
        (lambda d: jd.reach(d.gap, "gap", 1), "dataset is a DataArray; give the whole"),
        (lambda d: jd.reach(d, "diverged", 1), "diverged has no values over steps"),
        (lambda d: jd.reach(d, "gap", 1, x="diverged"), "diverged has no values over steps"),
        (lambda d: jd.reach(d, "gap", anything("small")), "value is 'small'; give a number"),
        (lambda d: jd.plot.curves(d.gap), "dataset is a DataArray; give the whole"),
        (lambda d: jd.plot.curves(d, "gasp"), "the dataset has no 'gasp'; it has .*gap"),
        (lambda d: jd.plot.curves(d, x="diverged"), "diverged has no values over steps"),
        (lambda d: jd.plot.curves(d, x="stepsize"), "stepsize has no values over steps"),
        (lambda d: jd.plot.heatmap(d, "gasp"), "the dataset has no 'gasp'; it has .*gap"),
        (lambda d: jd.plot.heatmap(d, x="steps"), "gap has the dimensions stepsize and a heat"),
    ],
)
def test_mistakes_with_datasets_are_told_in_one_sentence(wrong, says):
    with pytest.raises(ValueError, match=says):
        wrong(dataset([[[1.0, 0.1]], [[1.0, 0.2]]]))


def test_best_takes_integers_and_datasets_without_flags():
    data = dataset([[[9, 3]], [[9, 1]], [[9, 2]]]).drop_vars("diverged")
    data["gap"] = data.gap.astype(int)
    chosen = jd.best(data)
    assert float(chosen.stepsize) == pytest.approx(0.2)
    assert chosen.gap.values.tolist() == [[9, 1]]
    data["gap"] = data.gap.astype(float).where(data.stepsize != 0.2)
    assert float(jd.best(data).stepsize) == pytest.approx(0.3)


class TestPieces:
    """Comparisons within a memory go in pieces, of which the results are those of one batch."""

    METHODS = {"DGD": jd.DGD(0.1), "GT": jd.GradientTracking(0.1)}  # noqa: RUF012
    GRID = {"stepsize": np.linspace(0.01, 0.1, 5)}  # noqa: RUF012

    def compared(self, **options):
        problem = jd.problems.GaussianNoise(jd.problems.quadratic(4, 3), 0.1)
        ring = jd.networks.metropolis(jd.graphs.ring(4))
        shared = {"over": self.GRID, "seeds": 3, "steps": 20, "every": 5, "progress": False}
        return jd.compare(self.METHODS, problem, ring, **shared | options)

    @pytest.mark.parametrize(
        "memory", [pytest.param("4 kB", marks=pytest.mark.slow), 12_000.0, "1 MiB"]
    )
    def test_they_are_the_whole(self, memory):
        whole, pieces = self.compared(), self.compared(memory=memory)
        for name in whole:
            np.testing.assert_allclose(whole[name], pieces[name], rtol=1e-9, atol=1e-12)

    @pytest.mark.parametrize("most", [1, 2, 3, 4, 7, 8, 12, 24, 100])
    @pytest.mark.parametrize("devices", [(), (None, None), (None,) * 5])
    def test_of_any_shape(self, most, devices):
        """Every member is in one piece, in order; what fills pieces up is left out."""
        batch = Batch({"a": jnp.arange(2.0), "b": jnp.arange(3.0), "c": jnp.arange(4.0)},
                      {"a": (0,), "b": (1,), "c": (2,)}, (2, 3, 4))  # fmt: skip
        pieces = Pieces.of(batch, most, devices)
        assert math.prod(pieces.shape) <= most
        assert pieces.count == len(list(pieces))
        taken = []

        def work(given):
            taken.append(tuple(map(len, given.values())))
            a, b, c = np.ix_(*map(np.asarray, given.values()))
            return {"y": 100.0 * a + 10 * b + c}

        object.__setattr__(pieces, "spread", dict)
        noted = []
        found = pieces.results(work, like=lambda: {"y": 0}, note=lambda m, _: noted.append(m))
        expected = 100 * np.arange(2)[:, None, None] + 10 * np.arange(3)[:, None] + np.arange(4.0)
        np.testing.assert_array_equal(found["y"], expected)
        assert len({*taken}) == 1, "one program"
        assert len(taken) == pieces.count
        assert sum(noted) == 24
        if devices:
            assert taken[0][pieces.split] % len(devices) == 0

    def test_finished_pieces_are_kept(self, tmp_path):
        first = self.compared(memory="4 kB", checkpoint=tmp_path)
        files = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.npz")}
        assert len(files) > len(self.METHODS)
        again = self.compared(memory="4 kB", checkpoint=tmp_path)
        assert files == {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.npz")}
        assert first.drop_attrs().equals(again.drop_attrs())

    @pytest.mark.parametrize(
        ("memory", "words"),
        [
            (10, "a member of DGD takes some .* and memory is 10 B; give more, or record less"),
            ("ten", "memory is 'ten'; give a number of bytes above 0, or words such as \"4 GiB\""),
            (-1, "memory is -1; give a number of bytes"),
        ],
    )
    def test_what_cannot_be_is_refused(self, memory, words):
        with pytest.raises(ValueError, match=words):
            self.compared(memory=memory)
