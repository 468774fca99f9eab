"""STPP's and BTPP's experiment, small: floors, transient times, stability, messages."""

import csv
import math

import numpy as np
import pytest
import xarray as xr

import jaxdopt as jd
from experiments import stpp
from experiments.__main__ import main


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """One quick run: the folder."""
    out = tmp_path_factory.mktemp("stpp")
    main(["stpp", "--quick", "--out", str(out)])
    return out


def rows(path):
    header, *lines = csv.reader(path.read_text().splitlines())
    return [dict(zip(header, line, strict=True)) for line in lines]


@pytest.fixture(scope="module")
def runs(results):
    """Histories with noise."""
    return xr.load_dataset(results / "stpp_runs.nc")


@pytest.fixture(scope="module")
def tried(results):
    """Histories of constant stepsizes, each method's best."""
    return stpp.best(xr.load_dataset(results / "stpp_curves.nc"))


def test_it_writes_tables_datasets_and_figures(results):
    names = {path.name for path in results.iterdir()}
    figures = ("floors", "transients", "curves", "synthetic", "main")
    assert {f"stpp_{name}.{kind}" for name in figures for kind in ("png", "pdf")} <= names
    claims = rows(results / "stpp_claims.csv")
    assert all(row["source"] and row["measured"] and "nan" not in row["measured"] for row in claims)


def test_the_floor_times_n_is_that_of_centralized_sgd(runs):
    found = stpp.floors(runs)
    ratio = found.floor.sel(algorithm="STPP") / found.floor.sel(algorithm="SGD")
    assert np.allclose(ratio.sel(network="exponential"), 1, atol=0.1)
    assert 1 < ratio.sel(network="directed ring", n=32) < 1.5  # as a delay of 31 predicts: 1.1
    assert np.allclose(found.floor.sel(algorithm="SGD") / found.theory, 1, atol=0.3)
    assert stpp.exponent(found.floor.sel(algorithm="STPP", network="exponential")) < -0.8


def test_deep_trees_take_longer_to_be_as_good_as_sgd(runs):
    found = stpp.transients(runs)
    ring = found.steps.sel(algorithm="STPP", network="directed ring")
    assert ring.sel(n=32) > ring.sel(n=8)
    assert (found.steps.sel(network="exponential") == 0).all()
    assert found.ratio.sel(algorithm="STPP", network="directed ring", n=32) > 1.2


def test_stpp_beats_gradient_tracking_on_the_directed_ring_only(tried):
    last = tried.error.isel(step=-1)
    deep, shallow = (
        float(here.sel(algorithm="DSGT") / here.sel(algorithm="STPP"))
        for here in (last.sel(network="directed ring"), last.sel(network="exponential"))
    )
    assert deep > 1.5
    assert shallow == pytest.approx(1, abs=0.3)


def test_trees_send_two_vectors_over_each_of_their_links(tried):
    sent = tried.sent.isel(step=-1, seed=0) / tried.step[-1]
    assert np.all(sent.sel(algorithm="STPP") == 2 * (8 - 1))
    assert sent.sel(algorithm="DSGT", network="exponential") == 2 * 8 * 5  # 5 neighbors


def test_the_default_stepsize_is_stable_where_that_of_shallow_trees_is_not(results):
    found = xr.load_dataset(results / "stpp_stability.nc").sel(n=16)
    assert found.growth.sel(stepsize="default") < 1e-9
    assert found.growth.sel(stepsize="0.5 / (n L)") > 1e3
    assert 0.9 <= found.limit <= 1.2


def test_btpp_is_later_than_sgd_and_as_good_in_the_end(results):
    values = stpp.norms(xr.load_dataset(results / "stpp_synthetic.nc"))
    sgd, btpp = (values.sel(algorithm=name) for name in ("SGD", "BTPP, B = 2"))
    assert btpp.sel(step=50) > 1.1 * sgd.sel(step=50)
    assert btpp.sel(step=800) == pytest.approx(float(sgd.sel(step=800)), rel=0.1)


def test_dense_trees_are_the_trees():
    graph = stpp.graphs(16, ["grid"])["grid"]
    tree, dense = jd.networks.spanning_tree(graph), stpp.trees(graph)
    for part in ("row", "column"):
        own, other = (getattr(network, part).csr().toarray() for network in (tree, dense))
        assert np.array_equal(own, other)
    assert (int(dense.root), float(dense.delay)) == (int(tree.root), float(tree.delay))
    assert dense.row.link_count == tree.row.link_count == 15


def test_transient_times_of_made_up_curves():
    step = np.arange(0, 1001, 10)
    sgd = 1 / (1 + step)
    shape = ("algorithm", "network", "n", "kind", "seed", "step")
    late = np.where(step <= 200, 5 * sgd, sgd)
    never = 3 * sgd
    curves = np.stack([sgd, late, never])[:, None, None, None, None]
    names = {"algorithm": ["SGD", "late", "never"], "network": ["any"], "n": [8], "step": step}
    dataset = xr.Dataset(
        {"agents_error": (shape, curves), "distance_squared": (shape, curves)},
        names | {"kind": ["decreasing"], "seed": [0]},
    )
    found = stpp.transients(dataset).steps.isel(network=0, n=0)
    assert 180 <= found.sel(algorithm="late") <= 260
    assert math.isinf(found.sel(algorithm="never"))
