"""The study of FedFix: what weights solve, who returns how late, and what asynchrony can take."""

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
def limits(results):
    """Where rules end on quadratics."""
    return results["limits"]


@pytest.fixture(scope="module")
def clock(results):
    """The digits over time."""
    return results["time"]


def test_weights_decide_what_is_solved(limits):
    ends = limits.sel(rule=list(fedfix.BIASED), scenario=80)
    fair, naive = (ends.sel(weights=kind) for kind in ("unbiased", "identical"))
    assert float(naive.predicted.min()) > 0.1
    np.testing.assert_allclose(naive.away.isel(eta=-1), naive.predicted, rtol=0.05)
    np.testing.assert_allclose(fair.predicted, 0, atol=1e-12)
    for distance in (fair.away, naive.off):  # linear in the stepsize
        assert float(distance.max()) < 0.04
        ratio = distance.isel(eta=0) / distance.isel(eta=-1)
        np.testing.assert_allclose(ratio, limits.eta[0] / limits.eta[-1], rtol=0.25)
    never = limits.sel(rule=fedfix.NEVER, scenario=80, weights="identical")
    assert float(never.off.max()) < 0.03 * float(never.away.min())


def test_clients_equally_quick_have_no_bias(limits):
    ends = limits.away.sel(rule=list(fedfix.BIASED), scenario=0)
    np.testing.assert_allclose(ends[{"weights": 0}], ends[{"weights": 1}], atol=1e-3)
    assert float(ends.max()) < 0.04


def test_rules_that_are_the_same(limits):
    for rule, other in fedfix.SAME:
        np.testing.assert_array_equal(limits.x.sel(rule=rule), limits.x.sel(rule=other))
    apart = abs(limits.x.sel(rule="FedFix 0.5") - limits.x.sel(rule=SYNC))
    assert float(apart.max()) > 1e-2


def test_how_often_and_how_late_clients_return(limits):
    here = limits.sel(scenario=80, weights="identical")
    quick = 1 / np.linspace(1.0, 0.2, fedfix.CLIENTS)
    np.testing.assert_allclose(here.q.sel(rule=ASYNC), quick / quick.sum(), rtol=5e-3)
    ticks = np.ceil(np.linspace(1.0, 0.2, fedfix.CLIENTS) / 0.2 - 1e-9)
    np.testing.assert_allclose(here.q.sel(rule="FedFix 0.2"), 1 / ticks / (1 / ticks).sum())
    oldest = here.oldest.to_series()
    assert (oldest["FedFix 0.2"], oldest["FedFix 0.5"], oldest[SYNC]) == (4, 1, 0)
    assert oldest[ASYNC] > 20


def test_a_table_of_all_clients_makes_up_for_skewed_arrivals(results):
    ends = results["anarchy"].sel(arrivals="skewed")
    device, silo = ends.away.sel(algorithm="AFA-CD"), ends.away.sel(algorithm="AFA-CS")
    assert float(silo) < 1e-3 < 0.3 < float(device)
    assert float(ends.off.sel(algorithm="AFA-CD")) < float(ends.predicted.max()) / 3


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
    assert len(judged) >= 15  # one of them of three pairs of rules, one of both weights
    for entry in judged:
        if entry["claimed"] != "fast convergence":
            met = entry["verdict"] in ("holds", "not judged")
            assert met or "improves" in entry["claimed"], entry["text"]
    assert sum(entry["verdict"] == "not judged" for entry in judged) == 3
    assert len(fedfix.STUDY.figures["fedfix"].draw(results).axes) == 6
