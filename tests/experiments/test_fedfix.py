"""The study of FedFix over time: what asynchrony gains, and which stepsizes it stands."""

import numpy as np
import pytest
import xarray as xr

from experiments import fedfix

SYNC, ASYNC = fedfix.SYNC, fedfix.ASYNC


@pytest.fixture(scope="module")
def results():
    """One quick run."""
    return fedfix.STUDY.results("quick")


@pytest.fixture(scope="module")
def clock(results):
    """The digits over time."""
    return results["time"]


def test_asynchrony_is_quick_with_one_stepsize_and_stands_small_ones_only(clock):
    most = fedfix.largest_stable(clock).isel(scenario=0).to_series()
    assert most[ASYNC] < most["FedFix 0.5"] <= most[SYNC]
    gaps = fedfix.halfway(clock).isel(scenario=0).to_series()
    assert gaps[ASYNC] < gaps["FedFix 0.5"] < gaps[SYNC]
    noise = fedfix.stationary(clock)["std"].sel(stepsize=fedfix.together(clock))
    noise = noise.isel(scenario=0).to_series()
    assert noise[ASYNC] > 10 * noise["FedFix 0.5"] > 10 * noise[SYNC]
    first = fedfix.to_target(clock).min("stepsize").isel(scenario=0).to_series()
    assert max(first[SYNC], first["FedFix 0.5"]) < first[ASYNC] < 30


def test_a_target_counts_where_accuracies_stay(clock):
    there = xr.zeros_like(clock.accuracy.isel(stepsize=[0])) + 0.5
    there[{"time": slice(4, 6)}] = 1.0
    there[{"time": slice(20, None)}] = 1.0
    made = clock.isel(stepsize=[0]).assign(accuracy=there)
    np.testing.assert_allclose(fedfix.to_target(made), 20 * fedfix.RESOLUTION)
    late = made.assign(accuracy=there.where(made.time < 12, 0.0))
    assert bool(np.isinf(fedfix.to_target(late)).all())


def test_verdicts(results):
    judged = [claim.judge(results) for claim in fedfix.CLAIMS]
    assert len(judged) >= 7
    for entry in judged:
        if entry["claimed"] != "fast convergence":
            met = entry["verdict"] in ("holds", "not judged")
            assert met or "improves" in entry["claimed"], entry["text"]
    assert sum(entry["verdict"] == "not judged" for entry in judged) == 2
    assert len(fedfix.STUDY.figures["fedfix"].draw(results).axes) == 3
