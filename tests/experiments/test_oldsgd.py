"""The study of OLDSGD: seconds by the formulas; what hiding messages gains and costs."""

import csv

import numpy as np
import pytest
import xarray as xr

from experiments import oldsgd
from experiments.__main__ import main

CASE = oldsgd.CASES["shuffled"]


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """One quick run."""
    folder = tmp_path_factory.mktemp("oldsgd")
    main(["oldsgd", "--quick", "--out", str(folder)])
    return folder


@pytest.fixture(scope="module")
def dataset(out):
    """Its histories."""
    return xr.load_dataset(out / "oldsgd_shuffled.nc")


def test_all_come_to_the_target_and_overlap_costs_gradients(dataset):
    counts = oldsgd.to_target(CASE, dataset).to_series()
    assert counts.notna().all()
    assert counts["DSGD 1"] <= counts["LocalDSGD 4"] * 1.3 <= counts["OLDSGD 4"] * 1.3
    best = oldsgd.chosen(CASE, dataset).scaled.to_series()
    assert best["OLDSGD 4"] < best["LocalDSGD 4"]  # stable for smaller stepsizes only


def test_hidden_messages_halve_a_round_where_they_take_as_long_as_its_gradients(dataset):
    pace = oldsgd.seconds_a_gradient((4,), (0.1, 4.0))
    np.testing.assert_allclose(pace.sel(delay=4.0), [5, 2, 1, 1], rtol=1e-6)
    lasts = oldsgd.times(CASE, dataset, pace).sel(delay=4.0).to_series()
    assert max(lasts["OLDSGD 4"], lasts["LocalDSGD 4"]) < lasts["DSGD 1"] / 2


def test_a_target_counts_where_values_stay():
    values = np.array([[1.0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]]).T
    made = xr.Dataset(
        {"gap": (("calls", "seed"), values), "diverged": ("seed", [False])},
        {"calls": 16 * np.arange(16)},
    )
    assert float(oldsgd.arrivals(CASE, made)) == 48  # not 16, where it leaves again
    assert np.isnan(float(oldsgd.arrivals(CASE, made.isel(calls=slice(0, 9)))))


def test_tables_and_figures(out):
    header, *rows = csv.reader((out / "oldsgd_claims.csv").read_text().splitlines())
    met = {row[0]: dict(zip(header, row, strict=True))["met"] for row in rows}
    assert met["1000 gradients with tau = 4, delay 4: seconds of local DSGD and OLDSGD"] == "yes"
    assert all(row[-1] != "-" for row in rows if "no" in row)  # what is not met is explained
    names = {path.name for path in out.iterdir()}
    assert {"oldsgd_seconds.csv", "oldsgd_gradients.csv", "oldsgd_oldsgd.pdf"} <= names
