"""Sweeps, comparisons, and what is read off them."""

import functools
from typing import Any

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import jaxdopt as jd

N, D = 4, 2
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


def test_reach_is_a_loop_and_nan_where_never():
    random = np.random.default_rng(0)
    gap = random.exponential(size=(3, 4, 8))
    gap[1, 2] = 9.0
    gap[2, 0, 0] = 0.0
    gap[0, 1, 3:] = np.nan
    rounds = np.arange(8) ** 2
    found = jd.reach(dataset(gap, np.zeros((3, 4), bool), rounds=rounds), "gap", 0.3, x="rounds")
    steps = jd.reach(dataset(gap, np.zeros((3, 4), bool), rounds=rounds), "gap", 0.3)
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
