"""The study of FedSUM: exact whoever takes part; noise that falls with nK and grows with age."""

import csv

import numpy as np
import pytest
import xarray as xr

from experiments import fedsum
from experiments.__main__ import main


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """One quick run."""
    folder = tmp_path_factory.mktemp("fedsum")
    main(["fedsum", "--quick", "--out", str(folder)])
    return folder


def test_exactness_under_seven_patterns(out):
    errors = fedsum.final(xr.load_dataset(out / "fedsum_patterns.nc"))
    assert errors.sizes["pattern"] == 7
    assert float(errors.sel(algorithm=["FedSUM", "FedSUM-CR"]).max()) < fedsum.EXACT
    average = errors.sel(algorithm="FedAvg")
    assert float(average.min()) == float(average.sel(pattern="full")) > 1e-3
    assert float(average.max()) > 0.5


def test_noise_falls_with_clients_and_steps_and_grows_with_age(out):
    sped = xr.load_dataset(out / "fedsum_speedup.nc")
    scaled = (sped.error.mean("seed") * sped.n * sped.K).transpose("law", "case")
    np.testing.assert_allclose(scaled[:, 1] / scaled[:, 0], 1, atol=0.35)
    # independent clients: E D² / E D = 2/p − 1, of each
    ages = [np.mean(2 / np.linspace(*bounds, 4)) - 1 for bounds in fedsum.LAWS.values()]
    np.testing.assert_allclose(scaled.mean("case") / scaled[0].mean(), ages, rtol=0.35)
    aged = xr.load_dataset(out / "fedsum_delays.nc")
    assert aged.tau_max.sel(law="cyclic").values.tolist() == [0, 15]
    ratio = aged.error.mean("seed").isel(groups=-1) / aged.error.mean("seed").isel(groups=0)
    np.testing.assert_allclose(ratio, 1 + 2 * aged.tau_mean.isel(groups=-1), rtol=0.4)


def test_tables_and_figures(out):
    header, *rows = csv.reader((out / "fedsum_claims.csv").read_text().splitlines())
    met = {row[0]: dict(zip(header, row, strict=True))["met"] for row in rows}
    for claim in (
        "FedSUM reaches the solution under all patterns",
        "FedAvg does not, under any pattern",
        "FedSUM-CR's vectors over FedSUM's, to 1e-6",
        "the stationary error grows with the delay, uniform",
    ):
        assert met[claim] == "yes", claim
    names = {path.name for path in out.iterdir()}
    assert {"fedsum_errors.csv", "fedsum_fedsum.png", "fedsum_fedsum.pdf"} <= names
