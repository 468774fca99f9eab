"""The study of APD: acceleration as claimed, to the right optimum on unbalanced graphs."""

import csv

import numpy as np
import pytest
import xarray as xr

from experiments import apd
from experiments.__main__ import main


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """One quick run."""
    folder = tmp_path_factory.mktemp("apd")
    main(["apd", "--quick", "--out", str(folder)])
    return folder


def _rows(path):
    header, *rows = csv.reader(path.read_text().splitlines())
    return [dict(zip(header, row, strict=True)) for row in rows]


def test_exponents_of_the_condition_number(out):
    counts = xr.load_dataset(out / "apd_iterations.nc")
    assert counts.c[0] < counts.c[1:].min()  # the safe one comes first
    for iterations in (counts.iterations.isel(c=0), apd.fastest(counts.isel(c=slice(1, None)))):
        fits = apd.exponents(iterations)
        assert (abs(fits.sel(algorithm="APD-SC") - 0.55) < 0.1).all()
        for name in ("Push-DIGing", "Push-Pull"):
            assert (abs(fits.sel(algorithm=name) - 1) < 0.05).all()
        last = iterations.isel(condition_number=-1)
        assert (last.sel(algorithm="APD-SC") * 2 < last.sel(algorithm="Push-Pull")).all()


def test_the_limit_is_the_uniform_optimum_on_unbalanced_digraphs(out):
    graphs = _rows(out / "apd_graphs.csv")
    assert all(float(row["imbalance of C"]) > 2 and float(row["gap of C"]) > 0.2 for row in graphs)
    ends = xr.load_dataset(out / "apd_limits.nc")
    assert (ends.apart.sel(optimum=["weighted by R", "weighted by C"]) > 0.1).all()
    exact = ends.distance.sel(algorithm=list(apd.METHODS))
    assert (exact.sel(optimum="uniform") < 1e-4).all()
    assert (exact.drop_sel(optimum="uniform") > 0.1).all()
    alone = ends.distance.sel(algorithm="row-stochastic alone")
    assert (alone.sel(optimum="weighted by R") < 1e-5).all()
    assert (alone.sel(optimum="uniform") > 0.1).all()


def test_apd_doubles_the_exponent_without_strong_convexity(out):
    dataset = xr.load_dataset(out / "apd_convex.nc")
    for chosen in (dataset.isel(c=0), apd.best_convex(dataset)):
        fits = apd.slopes(chosen.gap)
        assert (abs(fits.sel(algorithm="Push-DIGing") + 0.75) < 0.06).all()
        assert (abs(fits.sel(algorithm="APD") + 1.5) < 0.15).all()
        own = apd.slopes(chosen.own)
        np.testing.assert_allclose(own.values, fits.values, atol=0.05)


def test_the_claims_are_met_and_all_files_are_there(out):
    claims = _rows(out / "apd_claims.csv")
    assert len(claims) == 7
    assert {row["met"] for row in claims} == {"yes"}
    names = {path.name for path in out.iterdir()}
    assert {"apd_apd.png", "apd_apd.pdf", "apd_curves.nc", "apd_exponents.csv"} <= names


def test_perron_vectors_and_the_counterexample():
    network = next(iter(apd.networks(10, 1).values()))
    left, right = apd.perron(network, "row"), apd.perron(network, "column")
    np.testing.assert_allclose(left @ network.row.csr().toarray(), left, atol=1e-12)
    np.testing.assert_allclose(network.column.csr().toarray() @ right, right, atol=1e-12)
    problem = apd.quadratics(10, 4, [10.0])[0]
    np.testing.assert_allclose(apd.displaced(problem, np.full(10, 0.1)), 0, atol=1e-12)
