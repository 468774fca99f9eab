"""The study of heterogeneity's measures: the one that bounds FedAvg's bias, and the condition."""

import numpy as np
import pytest

import jaxdopt as jd
from experiments import fedavg, heterogeneity


@pytest.fixture(scope="module")
def results():
    """One quick run."""
    return heterogeneity.STUDY.results("quick")


def test_the_measure_bounds_the_bias_and_the_condition_holds(results):
    many = results["measures"].isel(step=-1)
    # the gap is F − F*, where F* is σ_f* and up to half the square of a residual of 1
    rounding = 8 * np.finfo(float).eps * (many.measure + 0.5)
    assert bool((many.bias <= many.gap + many.measure + rounding).all())
    assert bool((many.bias.where(many.measure == 0, 0) < 1e-20).all())
    assert heterogeneity.unbiased(results) < 1e-12
    ranks = heterogeneity.ranks(results)
    assert float(ranks.correlation[0]) > 0.8 > 0.5 > float(ranks.correlation[2])
    used = results["conditions"][["client", "mean", "gradients"]].to_array()
    assert float(used.max()) <= 1
    assert float(used.sel(problem="δ = 1").min()) > 0.1  # and is not far from what there is
    measure = results["digits"].measure
    assert float(measure.sel(partition="sorted")) > 2 * float(measure.sel(partition="shuffled"))


def test_the_conditions_numbers_are_those_of_the_library(results):
    numbers = results["conditions"].sel(problem="δ = 1, noisy labels")
    problem = fedavg.regression(*fedavg.SYNTHETIC["δ = 1, noisy labels"])
    factor, floor = jd.problems.general_variance(jd.problems.Minibatch(problem, 1))
    assert (float(numbers.C), float(numbers.sigma_squared)) == pytest.approx((factor, floor))
    measured = heterogeneity.measured(problem)["measure"]
    assert measured == pytest.approx(jd.problems.heterogeneity(problem).gap)


def test_verdicts(results):
    verdicts = {claim.text: claim.judge(results)["verdict"] for claim in heterogeneity.CLAIMS}
    missed = [text for text, verdict in verdicts.items() if verdict != "holds"]
    assert missed in ([], [text for text in missed if text.endswith("ζ² at x*")])
    for name, figure in heterogeneity.STUDY.figures.items():
        assert len(figure.draw(results).axes) == {"heterogeneity": 3, "conditions": 2}[name]
