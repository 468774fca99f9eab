"""The study of FedNMap: exact with MCP, no bias, linear speedup, centralized descent's support."""

import numpy as np
import pytest

from experiments import fednmap
from experiments.measures import attained

PLAIN = "FedNMap, no correction"


@pytest.fixture(scope="module")
def results():
    """One quick run."""
    return fednmap.STUDY.results("quick")


@pytest.fixture(scope="module")
def best(results):
    """The methods' histories at their own total steps."""
    return results["best"].sel(regularizer="MCP").isel(seed=0)


def test_fednmap_converges_linearly_and_without_corrections_it_stalls(best):
    error = best.residual.sel(algorithm="FedNMap")
    assert float(error.isel(step=-1)) < 1e-16
    mine = best.sel(algorithm="FedNMap")
    halves = [float(attained(mine, "residual", level)) for level in (1e-8, 1e-12, 1e-16)]
    assert halves[2] - halves[1] == pytest.approx(halves[1] - halves[0], rel=0.2)
    assert float(best.residual.sel(algorithm=PLAIN).isel(step=-1)) > 1e-6
    assert int(best.differ.sel(algorithm="FedNMap").isel(step=-1)) == 0
    assert float(best.zeros.sel(algorithm="FedNMap").isel(step=-1)) > 0.5


def test_rounds_cost_one_vector_each_way(best):
    last = best.isel(step=-1)
    np.testing.assert_allclose(last.vectors, 1000, rtol=1e-5)
    np.testing.assert_allclose(last.rounds, 1000, rtol=1e-5)


def test_noise_averages_over_clients_and_local_steps(results):
    errors = results["speedup"].stationary.mean("seed")
    few, many = float(errors.sel(n=4, Q=1)), float(errors.sel(n=16, Q=4))
    assert errors.nQ.sel(n=[4, 16], Q=[1, 4]).values.tolist() == [[4, 16], [16, 64]]
    assert few / many == pytest.approx(16, rel=0.25)
    quiet = results["noiseless"].residual.sel(total=fednmap.TOTAL)
    half = quiet.sizes["step"] // 2
    assert float(quiet.isel(step=slice(half, None)).mean()) < 1e-3 * many


def test_what_is_claimed_holds(results):
    verdicts = [claim.judge(results)["verdict"] for claim in fednmap.CLAIMS]
    assert verdicts.count("holds") >= 7
    assert set(verdicts) == {"holds", "not judged"}
    found = results["support"].sel(regularizer="MCP", algorithm="FedNMap")
    assert int(found.differ) == 0
    assert int(found["true ones"]) == fednmap.TRUTH == 8
