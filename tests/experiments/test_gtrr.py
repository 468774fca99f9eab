"""GT-RR's and ED-RR's experiment, small: what it measures is what theory says."""

import csv

import numpy as np
import pytest
import xarray as xr

from experiments import gtrr
from experiments.__main__ import main

SIZE = gtrr.SCALES["quick"]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """One quick run: its folder, and the datasets by part."""
    out = tmp_path_factory.mktemp("gtrr")
    main(["gtrr", "--quick", "--out", str(out)])
    return out, {part: xr.load_dataset(out / f"gtrr_{part}.nc") for part in gtrr.AXES}


def test_tables_figures_and_datasets_are_written(results):
    out, datasets = results
    names = {path.name for path in out.iterdir()}
    tables = {f"gtrr_{name}.csv" for name in (*gtrr.AXES, "crossovers", "claims")}
    pictures = ("summary", "order", "stepsizes")
    figures = {f"gtrr_{name}.{kind}" for name in pictures for kind in ("png", "pdf")}
    assert tables | figures <= names
    assert all("gtrr --quick" in dataset.command for dataset in datasets.values())
    assert all(np.isfinite(dataset.error).all() for dataset in datasets.values())


def test_at_a_small_stepsize_the_methods_are_in_order(results):
    errors = gtrr.stationary(results[1]["order"])
    for name in SIZE.networks:
        e = {str(a): float(errors.sel(network=name, algorithm=a)) for a in errors.algorithm.values}
        assert 10 * e["centralized RR"] < e["GT-RR"]
        assert 1.5 * e["GT-RR"] < e["ED-RR"]
        assert 1.5 * e["ED-RR"] < min(e["D-RR"], e["DSGT"])


def test_the_tilt_changes_neither_the_objective_nor_the_solution():
    whole = gtrr.problem(SIZE, "shuffled")
    case = gtrr.case(SIZE, "tilt", {"zeta": 10.0})
    x = np.asarray(whole.solution)
    gradients = np.asarray(case.problem.grad(case.x0))
    np.testing.assert_allclose(gradients, 10 * gtrr.directions("ring", whole), atol=1e-9)
    assert np.mean(np.sum(gradients**2, axis=1)) == pytest.approx(100)
    for point in (x, x + 1):
        assert float(case.problem.objective(point)) == pytest.approx(float(whole.objective(point)))


def test_carried_corrections_forget_the_tilt_and_restarted_ones_do_not(results):
    errors = gtrr.stationary(results[1]["tilt"])
    for name in ("GT-RR", "ED-RR", "DSGT"):
        here = errors.sel(algorithm=name).values
        np.testing.assert_allclose(here, here[0], rtol=1e-2)
    for name in ("D-RR", "GT-RR, restart"):
        here = errors.sel(algorithm=name, zeta=[10, 100])
        assert gtrr.slope(here.zeta, here) == pytest.approx(2, abs=0.05)


def test_the_bias_of_d_rr_is_the_closed_form(results):
    errors = gtrr.stationary(results[1]["bias"]).sel(algorithm="D-RR", zeta=1.0)
    stepsize = SIZE.stepsizes[0]
    gap = gtrr.spectral_gap("grid", SIZE.agents)
    bias = (stepsize * (1 - gap) / gap) ** 2
    assert float(errors.sel(network="grid", stepsize=stepsize)) == pytest.approx(bias, rel=0.1)


def test_d_rr_crosses_where_it_should(results):
    crossed = gtrr.crossovers(results[1], SIZE)
    here = crossed.sel(network="grid", zeta=0.1)
    assert here.inside.all()
    ratio = here.stepsize / here.precise
    assert 0.6 < ratio.min() <= ratio.max() < 1.7


def test_reshuffled_errors_fall_as_the_square_of_the_stepsize(results):
    errors = gtrr.stationary(results[1]["crossover"])
    for name, power in (("GT-RR", 2), ("ED-RR", 2), ("DSGT", 1)):
        for network in SIZE.networks:
            here = errors.sel(algorithm=name, network=network)
            assert gtrr.slope(here.stepsize, here) == pytest.approx(power, abs=0.3)


def test_the_gap_costs_d_rr_more(results):
    errors = gtrr.stationary(results[1]["gap"])
    fit = {
        str(name): gtrr.slope(1 / errors.spectral_gap.sel(network="grid"), here)
        for name in errors.algorithm.values
        for here in [errors.sel(algorithm=name, network="grid")]
    }
    assert fit["D-RR"] == pytest.approx(2, abs=0.2)
    assert 0 < fit["GT-RR"] < 1
    assert 0 < fit["ED-RR"] < 1


def test_the_claims_are_what_the_datasets_say(results):
    out, datasets = results
    rows = list(csv.DictReader((out / "gtrr_claims.csv").read_text().splitlines()))
    row = next(row for row in rows if row["claim"].startswith("ED-RR, grid: error ~ alpha"))
    here = gtrr.stationary(datasets["crossover"]).sel(algorithm="ED-RR", network="grid")
    assert row["measured"] == f"{gtrr.slope(here.stepsize, here):.2f}"
    assert row["met"] == "yes"
