"""The study of FedNMap: exact with MCP, no bias, linear speedup, centralized descent's support."""

import csv

import numpy as np
import pytest
import xarray as xr

from experiments import fednmap
from experiments.__main__ import main

PLAIN = "FedNMap, no correction"


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """One quick run."""
    folder = tmp_path_factory.mktemp("fednmap")
    main(["fednmap", "--quick", "--out", str(folder)])
    return folder


@pytest.fixture(scope="module")
def best(out):
    """The methods' histories at their own total steps."""
    return fednmap.own_best(xr.load_dataset(out / "fednmap_MCP.nc"))


def rows(path):
    header, *body = csv.reader(path.read_text().splitlines())
    return [dict(zip(header, row, strict=True)) for row in body]


def test_fednmap_converges_linearly_and_without_corrections_it_stalls(best):
    error = best.residual.sel(algorithm="FedNMap")
    assert float(error.isel(step=-1)) < 1e-16
    levels = (1e-8, 1e-12, 1e-16)
    halves = [float(fednmap.rounds(best, level).sel(algorithm="FedNMap")) for level in levels]
    assert halves[2] - halves[1] == pytest.approx(halves[1] - halves[0], rel=0.2)
    assert float(best.residual.sel(algorithm=PLAIN).isel(step=-1)) > 1e-6
    assert bool(best.same_support.sel(algorithm="FedNMap").isel(step=-1))
    assert float(best.zeros.sel(algorithm="FedNMap").isel(step=-1)) > 0.5


def test_rounds_cost_one_vector_each_way(best):
    last = best.isel(step=-1)
    np.testing.assert_allclose(last.vectors, 1000, rtol=1e-5)
    np.testing.assert_allclose(last.rounds, 1000, rtol=1e-5)


def test_noise_averages_over_clients_and_local_steps(out):
    noise = xr.load_dataset(out / "fednmap_speedup.nc")
    floors = fednmap.floors(noise).sel(total=fednmap.NOISY_TOTAL)
    few, many = float(floors[1]), float(floors[2])
    assert noise["product"].values.tolist() == [0, 4, 64]
    assert few / many == pytest.approx(16, rel=0.25)
    assert float(floors[0]) < 1e-3 * many


def test_tables_and_figures(out):
    claims = {row["claim"]: row["met"] for row in rows(out / "fednmap_claims.csv")}
    assert len(claims) >= 7
    assert set(claims.values()) == {"yes"}
    found = {row["method"]: row for row in rows(out / "fednmap_support.csv")}
    assert found["FedNMap"]["its support"] == "yes"
    assert found["FedNMap"]["true ones"] == "8 of 8"
    names = {path.name for path in out.iterdir()}
    assert {"fednmap_fednmap.png", "fednmap_fednmap.pdf", "fednmap_rounds.csv"} <= names
