"""The study of where federated rules end: what weights solve, and who returns how late."""

import numpy as np
import pytest

from experiments import fedbias

SYNC, ASYNC = fedbias.SYNC, fedbias.ASYNC


@pytest.fixture(scope="module")
def results():
    """One quick run."""
    return fedbias.STUDY.results("quick")


@pytest.fixture(scope="module")
def limits(results):
    """Where rules end on quadratics."""
    return results["limits"]


def test_weights_decide_what_is_solved(limits):
    ends = limits.sel(rule=list(fedbias.BIASED), scenario=80)
    fair, naive = (ends.sel(weights=kind) for kind in ("unbiased", "identical"))
    assert float(naive.predicted.min()) > 0.1
    np.testing.assert_allclose(naive.away.isel(eta=-1), naive.predicted, rtol=0.05)
    np.testing.assert_allclose(fair.predicted, 0, atol=1e-12)
    for distance in (fair.away, naive.off):  # linear in the stepsize
        assert float(distance.max()) < 0.04
        ratio = distance.isel(eta=0) / distance.isel(eta=-1)
        np.testing.assert_allclose(ratio, limits.eta[0] / limits.eta[-1], rtol=0.25)
    never = limits.sel(rule=fedbias.NEVER, scenario=80, weights="identical")
    assert float(never.off.max()) < 0.03 * float(never.away.min())


def test_clients_equally_quick_have_no_bias(limits):
    ends = limits.away.sel(rule=list(fedbias.BIASED), scenario=0)
    np.testing.assert_allclose(ends[{"weights": 0}], ends[{"weights": 1}], atol=1e-3)
    assert float(ends.max()) < 0.04


def test_rules_that_are_the_same(limits):
    for rule, other in fedbias.SAME:
        np.testing.assert_array_equal(limits.x.sel(rule=rule), limits.x.sel(rule=other))
    apart = abs(limits.x.sel(rule="FedFix 0.5") - limits.x.sel(rule=SYNC))
    assert float(apart.max()) > 1e-2


def test_how_often_and_how_late_clients_return(limits):
    here = limits.sel(scenario=80, weights="identical")
    quick = 1 / np.linspace(1.0, 0.2, fedbias.CLIENTS)
    np.testing.assert_allclose(here.q.sel(rule=ASYNC), quick / quick.sum(), rtol=5e-3)
    ticks = np.ceil(np.linspace(1.0, 0.2, fedbias.CLIENTS) / 0.2 - 1e-9)
    np.testing.assert_allclose(here.q.sel(rule="FedFix 0.2"), 1 / ticks / (1 / ticks).sum())
    oldest = here.oldest.to_series()
    assert (oldest["FedFix 0.2"], oldest["FedFix 0.5"], oldest[SYNC]) == (4, 1, 0)
    assert oldest[ASYNC] > 20


def test_a_table_of_all_clients_makes_up_for_skewed_arrivals(results):
    ends = results["anarchy"].sel(arrivals="skewed")
    device, silo = ends.away.sel(algorithm="AFA-CD"), ends.away.sel(algorithm="AFA-CS")
    assert float(silo) < 1e-3 < 0.3 < float(device)
    assert float(ends.off.sel(algorithm="AFA-CD")) < float(ends.predicted.max()) / 3


def test_verdicts(results):
    judged = [claim.judge(results)["verdict"] for claim in fedbias.CLAIMS]
    assert len(judged) >= 8  # one of them of three pairs of rules, one of both weights
    assert set(judged) == {"holds", "not judged"}
    assert judged.count("not judged") == 1
    assert len(fedbias.STUDY.figures["fedbias"].draw(results).axes) == 3
