"""The study of CPP: linear like Push-Pull, in fewer bits; it stalls without its references."""

import numpy as np
import pytest

from experiments import cpp
from experiments.cpp import BROADCAST, STALLED, TWO, WHOLE


@pytest.fixture(scope="module")
def results():
    """One quick run."""
    return cpp.STUDY.results("quick")


def test_all_but_cpp_without_references_converge_linearly(results):
    best = results["best"].sel(problem="ridge")
    pace, factor = cpp.paces(best)
    for title in (WHOLE, TWO, "CPP cta, 2 bits", BROADCAST):
        assert 0.5 < float(pace.sel(algorithm=title)) < 1.5, title
        assert 0.9 < float(factor.sel(algorithm=title)) < 0.985, title
    stalled = best.error.sel(algorithm=STALLED).isel(step=-1)
    assert float(stalled.mean()) > 1e4 * cpp.TARGET


def test_cpp_takes_the_iterations_of_push_pull_and_a_sixth_of_its_bits(results):
    at = results["common"].sel(problem="ridge")
    steps = cpp.counts(at).sel(algorithm=[TWO, "CPP cta, 2 bits"])
    np.testing.assert_allclose(steps / float(cpp.counts(at).sel(algorithm=WHOLE)), 1, atol=0.05)
    bits = cpp.counts(at, "bits")
    share = float(bits.sel(algorithm=TWO) / bits.sel(algorithm=WHOLE))
    assert share == pytest.approx(52 / 320, rel=0.05)  # 2 d + 32 over 32 d, d = 10
    assert share == pytest.approx(cpp.TRIAL[TWO], rel=0.05)
    links = cpp.counts(at, "traffic") / bits
    assert np.unique(links.dropna("algorithm")).size == 1


def test_an_iteration_of_bcpp_is_n_ticks_and_costs_what_one_of_cpp_costs(results):
    last = results["runs"].sel(problem="ridge").isel(step=-1, scaled=0, seed=0)
    assert int(last.step) == 900
    two, broadcast = (last.sel(algorithm=title) for title in (TWO, BROADCAST))
    for axis in ("rounds", "bits", "traffic"):
        assert float(broadcast[axis]) == pytest.approx(float(two[axis]), rel=1e-5)


def test_what_is_claimed(results):
    entries = {claim.text: claim.judge(results) for claim in cpp.CLAIMS}
    for text in (
        "CPP converges linearly, all compressors and forms: pace",
        "Push-Pull's bits over those of CPP, 2 bits, at their own best λ",
        "without references CPP stalls: error",
    ):
        assert entries[text]["verdict"] == "holds", text
    assert len(entries) == len(cpp.CLAIMS)
    pace = entries["CPP converges linearly, all compressors and forms: pace"]["measured"]
    assert [each["where"]["algorithm"] for each in pace] == [TWO, "CPP cta, 2 bits"]
