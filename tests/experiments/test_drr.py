"""The experiment of random reshuffling, small: orders in the stepsize, and what they come from."""

import csv

import numpy as np
import pytest
import xarray as xr

from experiments import drr
from experiments.__main__ import main

NAMES = ("Erdos-Renyi", "exponential", "grid")


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """One quick run: its folder."""
    folder = tmp_path_factory.mktemp("drr")
    main(["drr", "--quick", "--out", str(folder)])
    return folder


@pytest.fixture(scope="module")
def constant(out):
    return xr.load_dataset(out / "drr_constant.nc")


def test_the_graphs_have_the_papers_spectra():
    rows = [row[1:] for row in drr.networks_table().itertuples(index=False, name=None)]
    assert rows == [
        ("101", "0.66853", "0.83427"),
        ("56", "0.75000", "0.87500"),
        ("24", "0.91504", "0.95752"),
    ]


def test_tables_datasets_and_figures_are_there(out):
    tables = ("networks", "decreasing", "stationary", "nonconvex", "claims")
    names = {f"drr_{name}.csv" for name in tables}
    names |= {f"drr_{name}.nc" for name in ("decreasing", "constant", "nonconvex")}
    names |= {f"drr_{name}.{kind}" for name in ("errors", "nonconvex") for kind in ("png", "pdf")}
    assert names == {path.name for path in out.iterdir()}
    with (out / "drr_claims.csv").open() as file:
        claims = {row["claim"]: row["holds"] for row in csv.DictReader(file)}
    assert claims["D-RR's error falls as t^-2"] == "yes"
    assert claims["D-RR ends lower on better connected graphs"] == "yes"


def test_the_error_of_drr_falls_as_the_square_of_decreasing_stepsizes(out):
    falling = xr.load_dataset(out / "drr_decreasing.nc")
    slopes = [drr.fitted(falling.error.sel(algorithm="D-RR", network=name)) for name in NAMES]
    assert slopes == pytest.approx([-2, -2, -2], abs=0.15)
    last = drr.ending(falling)
    assert np.all(last.sel(algorithm="D-RR") > 100 * last.sel(algorithm="CRR"))


def test_the_stationary_error_of_drr_is_of_second_order(constant):
    means = drr.stationary(constant).sel(network="Erdos-Renyi")
    power = {
        method: drr.exponent(means.stepsize, means.error.sel(algorithm=method))
        for method in ("D-RR", "DSGD")
    }
    assert power["D-RR"] == pytest.approx(2, abs=0.1)
    assert power["DSGD"] < 1.85  # on its way to 1: samples are a good part of the error
    mean = means.distance_squared.sel(stepsize=1 / 1000)
    assert mean.sel(algorithm="DSGD") > 50 * mean.sel(algorithm="D-RR")


def test_the_agents_disagree_by_what_the_linearization_says(constant):
    source, features, labels = drr.samples(None, quick=True)
    assert "scikit-learn" in source
    problem = drr.jd.problems.logistic_regression(
        features, labels, agents=drr.AGENTS, l2=drr.L2, partition="by_label"
    )
    predicted = drr.disagreement(problem)
    measured = drr.stationary(constant).consensus_error.sel(stepsize=1 / 1000)
    for name in NAMES:
        both = measured.sel(network=name).values * 1000**2
        assert both == pytest.approx(predicted[name], rel=0.04)
    assert predicted["Erdos-Renyi"] < predicted["exponential"] < predicted["grid"] / 10


def test_the_papers_schedule_at_the_papers_number_of_samples():
    schedule = drr.decreasing(drr.SAMPLES)
    assert float(schedule(0)) == pytest.approx(1 / 400)
    assert float(schedule(299 * 750 + 749)) == pytest.approx(1 / (50 * 299 + 400))
    stretched = drr.decreasing(62, stretch=True)
    step = 62 * 1200
    assert float(stretched(step)) == pytest.approx(1 / (50 * step / 750 + 400))
