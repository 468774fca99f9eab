"""The study of two-phase optimizers: measured moments are those of theory."""

import numpy as np
import pytest

from experiments import two_phase


@pytest.fixture(scope="module")
def results():
    """One quick run."""
    return two_phase.STUDY.results("quick")


def test_measured_risks_are_those_of_theory(results):
    for part in ("rates", "workers"):
        ratio = results[part].measured.mean("seed") / results[part].theory
        np.testing.assert_allclose(ratio, 1, atol=0.12)  # 8 seeds of 4,800 steps


def test_equal_rates_are_equal():
    for numbers in two_phase.RATED.values():
        assert two_phase.rated(0.01, **numbers).rate == pytest.approx(0.01, rel=1e-6)


def test_what_is_claimed_holds(results):
    verdicts = [claim.judge(results)["verdict"] for claim in two_phase.CLAIMS]
    assert set(verdicts) == {"holds", "not judged"}
    assert verdicts.count("holds") == 8
    assert len(two_phase.STUDY.figures["two_phase"].draw(results).axes) == 5
