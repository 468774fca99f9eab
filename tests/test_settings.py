"""Comparisons of methods with problems and networks of their own."""

import json
from typing import Any

import jax
import numpy as np
import pytest
import xarray as xr

import jaxdopt as jd

N, D = 4, 2
PLAIN = jd.problems.quadratic(N, D, heterogeneity=1.0, curvature_spread=0.0)
OTHER = jd.problems.quadratic(N, D, heterogeneity=3.0, curvature_spread=0.0)
LASSO = jd.problems.Composite(PLAIN, jd.problems.prox.L1(0.1))
GRAPHS = {"ring": jd.graphs.ring(N), "path": jd.graphs.path(N)}
NETWORKS = {name: jd.networks.metropolis(graph) for name, graph in GRAPHS.items()}
TREES = {name: jd.networks.spanning_tree(graph) for name, graph in GRAPHS.items()}
SERVER = jd.networks.Server(N)


def compare(methods, *args, **options) -> xr.Dataset:
    return jd.compare(methods, *args, **({"steps": 4, "every": 2, "progress": False} | options))


def alone(method, problem, network, seed=0) -> Any:
    x0, key = problem.start(), jax.random.key(seed)
    return jd.run(method, problem, network, x0, key, steps=4, every=2).history


def equals(dataset, history, *names) -> None:
    for name in names or ("gap", "consensus_error", "rounds", "traffic"):
        np.testing.assert_allclose(dataset[name], history[name], rtol=1e-9, atol=1e-14)


def test_a_method_runs_on_networks_of_its_own():
    methods = {
        "DSGD": jd.DSGD(0.1),
        "STPP": jd.Setting(jd.STPP(0.05), network=TREES),
        "FedAvg": jd.Setting(jd.FedAvg(0.1, local_steps=2), network=SERVER),
    }
    data = compare(methods, PLAIN, NETWORKS, seeds=[3], over={"stepsize": [0.1, 0.02]})
    assert data.gap.dims == ("algorithm", "network", "stepsize", "seed", "step")
    assert data.algorithm.values.tolist() == list(methods)
    assert data.network.values.tolist() == list(NETWORKS)
    for where in NETWORKS:
        at: Any = {"network": where, "stepsize": 0.02, "seed": 3}
        equals(
            data.sel(algorithm="DSGD", **at), alone(jd.DSGD(0.02), PLAIN, NETWORKS[where], seed=3)
        )
        equals(data.sel(algorithm="STPP", **at), alone(jd.STPP(0.02), PLAIN, TREES[where], seed=3))
        server = jd.FedAvg(0.02, local_steps=2)
        equals(data.sel(algorithm="FedAvg", **at), alone(server, PLAIN, SERVER, seed=3))
    about = json.loads(data.attrs["settings"])
    assert list(about) == ["STPP", "FedAvg"]
    assert list(about["FedAvg"]) == ["network"]
    assert "Server" in about["FedAvg"]["network"]
    assert json.loads(data.attrs["algorithms"])["STPP"].startswith("STPP(stepsize=0.05")


def test_one_network_of_its_own_is_run_once(monkeypatch):
    gathered, calls = jd.compare.__globals__["_gathered"], []

    def counted(*args):
        calls.append(args)
        return gathered(*args)

    monkeypatch.setitem(jd.compare.__globals__, "_gathered", counted)
    methods = {"A": jd.Setting(jd.DSGD(0.1), network=NETWORKS["ring"]), "B": jd.DSGD(0.1)}
    data = compare(methods, PLAIN, NETWORKS)
    assert len(calls) == 3
    first, second = (data.sel(algorithm="A", network=where, drop=True) for where in NETWORKS)
    xr.testing.assert_equal(first, second)


def test_one_network_for_all_beside_networks_of_its_own():
    methods = {"DSGD": jd.DSGD(0.1), "STPP": jd.Setting(jd.STPP(0.05), network=TREES)}
    data = compare(methods, PLAIN, NETWORKS["ring"])
    assert data.network.values.tolist() == list(TREES)
    for where, tree in TREES.items():
        cell = data.sel(network=where, seed=0)
        equals(cell.sel(algorithm="DSGD"), alone(jd.DSGD(0.1), PLAIN, NETWORKS["ring"]))
        equals(cell.sel(algorithm="STPP"), alone(jd.STPP(0.05), PLAIN, tree))


def test_all_may_have_their_own():
    methods = {
        "easy": jd.Setting(jd.DGD(0.1), problem=PLAIN, network=NETWORKS["ring"]),
        "hard": jd.Setting(jd.DGD(0.1), problem=OTHER, network=NETWORKS["path"]),
    }
    data = compare(methods)
    assert data.network.values.tolist() == ["network"]
    cells = data.sel(network="network", seed=0)
    equals(cells.sel(algorithm="easy"), alone(jd.DGD(0.1), PLAIN, NETWORKS["ring"]))
    equals(cells.sel(algorithm="hard"), alone(jd.DGD(0.1), OTHER, NETWORKS["path"]))


@pytest.mark.slow
def test_problems_of_other_sizes_and_other_costs():
    """Ten agents of one sample each beside four: an axis that only one problem has is NaN."""
    samples = np.random.default_rng(0).standard_normal((10, D))
    fine = jd.problems.logistic_regression(samples, np.arange(10) % 2, agents=10, l2=0.1)
    methods = {
        "exact": jd.Setting(jd.DGD(0.1), network=NETWORKS["ring"], problem=PLAIN),
        "samples": jd.Setting(jd.DGD(0.1), network=jd.networks.Complete(10), problem=fine),
    }
    data = compare(methods)
    names = set(alone(jd.DGD(0.1), PLAIN, NETWORKS["ring"]))
    more = set(alone(jd.DGD(0.1), fine, jd.networks.Complete(10)))
    cells = data.sel(network="network", seed=0)
    equals(cells.sel(algorithm="exact"), alone(jd.DGD(0.1), PLAIN, NETWORKS["ring"]))
    equals(cells.sel(algorithm="samples"), alone(jd.DGD(0.1), fine, jd.networks.Complete(10)))
    for name in names ^ more:
        lacking = "exact" if name in more else "samples"
        assert cells[name].sel(algorithm=lacking).isnull().all()


def test_grids_and_best_of_settings():
    methods = {
        "DSGD": jd.DSGD(0.1),
        "FedAvg": jd.Setting(jd.FedAvg(0.1), network=SERVER),
    }
    over = {"DSGD": {"stepsize": [0.1, 0.2]}, "FedAvg": {"local_steps": [1, 2]}}
    data = compare(methods, PLAIN, NETWORKS, over=over)
    chosen = jd.best(data)
    assert chosen.gap.notnull().all()
    for where in NETWORKS:
        local = int(chosen.local_steps.sel(algorithm="FedAvg", network=where))
        history = alone(jd.FedAvg(0.1, local_steps=local), PLAIN, SERVER)
        equals(chosen.sel(algorithm="FedAvg", network=where, seed=0), history)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: compare({"DSGD": jd.DSGD(0.1)}, PLAIN),
         r"DSGD has no network of its own and the comparison gives none; give one to either"),
        (lambda: compare({"DSGD": jd.DSGD(0.1)}, networks=NETWORKS), "DSGD has no problem of its"),
        (lambda: compare({"S": jd.Setting(jd.STPP(0.1), network={"a": TREES["ring"]})},
                         PLAIN, NETWORKS),
         "the network of S is named a and networks ring, path; give both the same names, or one"),
        (lambda: compare({"S": jd.Setting(jd.STPP(0.1), network=[TREES["ring"]])}, PLAIN, NETWORKS),
         "the network of S is a list; give {name: network} with at least one"),
        (lambda: compare({"S": jd.Setting(jd.STPP(0.1))}, PLAIN, NETWORKS), "S, ring: STPP.*tree"),
        (lambda: compare({"S": jd.Setting(jd.DSGD(0.1), network=SERVER)}, PLAIN, NETWORKS),
         "S: DSGD.*Server"),
        (lambda: compare({"S": jd.Setting(jd.DSGD(0.1), network=jd.networks.Complete(7))},
                         PLAIN, NETWORKS),
         "S: network is for 7 agents and the problem for 4; give both the same"),
        (lambda: compare({"S": jd.Setting(jd.DSGD(0.1), problem=jd.DSGD(0.1))}, PLAIN, NETWORKS),
         "S, ring: problem is a DSGD without n and grad"),
        (lambda: compare({"S": jd.Setting(jd.DSGD)}, PLAIN, NETWORKS), "algorithm is the class"),
        (lambda: compare({"S": jd.Setting(jd.Setting(jd.DSGD(0.1)))}, PLAIN, NETWORKS),
         "algorithm is a Setting without init and step"),
        (lambda: compare({"A": jd.DSGD(0.1), "B": jd.Setting(jd.PGEXTRA(0.1), problem=LASSO)},
                         PLAIN, NETWORKS),
         "A, ring and B, ring do not have the same metrics: only one of them has .*prox_gradient"),
    ],
)  # fmt: skip
def test_mistakes_with_settings_are_told_before_any_work(call, says, monkeypatch):
    monkeypatch.setitem(jd.compare.__globals__, "_gathered", None)
    with pytest.raises(ValueError, match=says):
        call()


def test_the_same_metrics_of_different_problems():
    methods = {"A": jd.DSGD(0.1), "B": jd.Setting(jd.PGEXTRA(0.1), problem=LASSO)}
    data = compare(methods, PLAIN, NETWORKS["ring"], defaults=("consensus_error",))
    found = data.isel(network=0, seed=0).sel(algorithm="B")
    equals(found, alone(jd.PGEXTRA(0.1), LASSO, NETWORKS["ring"]), "consensus_error")
