"""The study of the worst case: slopes, starts at the known attacks, steps that only go up."""

import numpy as np
import pytest

from experiments import adversary


@pytest.fixture(scope="module")
def results():
    """One quick run."""
    return adversary.STUDY.results("quick")


def test_verdicts(results):
    verdicts = [claim.judge(results)["verdict"] for claim in adversary.CLAIMS]
    assert verdicts[:4] == ["holds"] * 4
    assert verdicts[4:] == ["not judged"] * 2
    assert len(adversary.STUDY.figures["adversary"].draw(results).axes) == 2


def test_the_gradient_through_the_run_is_that_of_finite_differences(results):
    assert results["ascents"].slope.max() < 1e-6


def test_ascent_starts_at_the_known_attacks_and_never_goes_down(results):
    losses, known = results["ascents"].loss, results["known"].loss.max("factor")
    attacks = [*adversary.ATTACKS]
    first = losses.sel(start=attacks).isel(step=0)
    np.testing.assert_allclose(first, known.sel(attack=attacks, rule=losses.rule), rtol=1e-10)
    assert (losses.diff("step") >= 0).all()
    assert (losses.isel(step=-1) > losses.isel(step=0)).all()
