"""The study of CPP: linear like Push-Pull, in fewer bits; it stalls without its references."""

import csv

import numpy as np
import pytest
import xarray as xr

from experiments import cpp
from experiments.__main__ import main

WHOLE, TWO, BROADCAST = "Push-Pull, 32 bits", "CPP, 2 bits", "B-CPP, 2 bits"


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """One quick run."""
    folder = tmp_path_factory.mktemp("cpp")
    main(["cpp", "--quick", "--out", str(folder)])
    return folder


@pytest.fixture(scope="module")
def dataset(out):
    """Its histories."""
    return xr.load_dataset(out / "cpp_ridge.nc")


def test_all_but_cpp_without_references_converge_linearly(dataset):
    best = cpp.own_best(dataset)
    for title in (WHOLE, TWO, "CPP cta, 2 bits", BROADCAST):
        even, factor = cpp.pace(best.error.sel(algorithm=title))
        assert 0.5 < even < 1.5, title
        assert 0.9 < factor < 0.985, title
    stalled = best.error.sel(algorithm="CPP, 2 bits, no references").isel(step=-1)
    assert float(stalled.mean()) > 1e4 * cpp.TARGET


def test_cpp_takes_the_iterations_of_push_pull_and_a_sixth_of_its_bits(dataset):
    at = dataset.sel(scaled=cpp.COMMON)
    steps = cpp.reached(at).mean("seed").sel(algorithm=[TWO, "CPP cta, 2 bits"])
    whole = float(cpp.reached(at).mean("seed").sel(algorithm=WHOLE))
    np.testing.assert_allclose(steps / whole, 1, atol=0.05)
    bits = cpp.reached(at, "bits").mean("seed")
    share = float(bits.sel(algorithm=TWO) / bits.sel(algorithm=WHOLE))
    assert share == pytest.approx(52 / 320, rel=0.05)  # 2 d + 32 over 32 d, d = 10
    links = cpp.reached(at, "traffic").mean("seed") / bits
    assert np.unique(links.dropna("algorithm")).size == 1


def test_an_iteration_of_bcpp_is_n_ticks_and_costs_what_one_of_cpp_costs(dataset):
    last = dataset.isel(step=-1, scaled=0, seed=0)
    assert int(last.step) == 900
    two, broadcast = (last.sel(algorithm=title) for title in (TWO, BROADCAST))
    for axis in ("rounds", "bits", "traffic"):
        assert float(broadcast[axis]) == pytest.approx(float(two[axis]), rel=1e-5)


def test_tables_and_figures(out):
    header, *rows = csv.reader((out / "cpp_claims.csv").read_text().splitlines())
    met = {row[0]: dict(zip(header, row, strict=True))["met"] for row in rows}
    assert met["ridge: CPP converges linearly, 2 compressors and forms"] == "yes"
    assert met["ridge: Push-Pull's bits over those of CPP, 2 bits, own best lambda"] == "yes"
    assert met["ridge: without references CPP stalls"] == "yes"
    _, *trial = csv.reader((out / "cpp_trial.csv").read_text().splitlines())
    assert float(trial[2][3]) == pytest.approx(float(trial[2][6]), rel=0.05)  # shares of 2 bits
    names = {path.name for path in out.iterdir()}
    assert {"cpp_ridge.csv", "cpp_cpp.png", "cpp_cpp.pdf"} <= names
