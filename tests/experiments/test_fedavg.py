"""The study of FedAvg's bias and of what removes it."""

import numpy as np
import pytest

from experiments import fedavg


@pytest.fixture(scope="module")
def results():
    """One quick run."""
    return fedavg.STUDY.results("quick")


def test_bias_is_linear_in_the_step_and_in_local_steps_and_zero_without_heterogeneity(results):
    grid, found = results["bias"], fedavg.exponents(results)
    shift = found.member.str.startswith("over shift")
    np.testing.assert_allclose(found[~shift], 1, atol=0.1)
    np.testing.assert_allclose(found[shift], 1, atol=0.1)  # over σ_f*^½
    assert {name.split(",")[0] for name in found.member.values} == {
        "over stepsize",
        "over Q",
        "over shift",
    }
    small = grid.isel(stepsize=1).sel(shift=1.0, Q=2)
    assert float(small.error / small.expected) == pytest.approx(1, abs=0.05)
    large = grid.error.isel(stepsize=-1)
    assert float(large.sel(shift=0.0).max()) < 1e-12
    assert float(large.sel(Q=1).max()) < 1e-12 < 1e-3 < float(large.sel(shift=1.0, Q=2))


def test_decreasing_steps_remove_it_and_samples_cost_nothing_at_a_common_minimizer(results):
    far = np.sqrt(results["rounds"].distance_squared.mean("seed")).isel(step=-1)
    assert float(far.sel(problem="one minimizer", schedule="constant").max()) < 1e-12
    last = far.sel(problem="δ = 1")
    ratio = last.sel(schedule="decreasing") / last.sel(schedule="constant")
    assert float(ratio.sel(samples="full gradients")) < 0.4 > float(ratio.sel(samples="one sample"))


def test_unequal_participation_moves_the_limit_and_uniform_does_not(results):
    who = results["participation"]
    near = float(who.expected) / 5
    assert (who.away < near).values.tolist() == [True, True, False]
    assert (who.off < near).values.tolist() == [False, False, True]
    assert float(fedavg.exact(results).max()) < 1e-12
    same = who.distance_squared.sel(shift=0.0, schedule="constant").isel(step=-1)
    assert float(same.max()) < 1e-24  # one minimizer: whoever takes part


def test_shares_of_participants():
    np.testing.assert_allclose(fedavg.weights([0.3] * 5), 0.2)
    # both, only the first, only the second: 1/2, 1, 0 of the mean are the first's
    one = 0.5 * 0.2 / 2 + 0.5 * 0.8
    two = 0.5 * 0.2 / 2 + 0.5 * 0.2
    np.testing.assert_allclose(fedavg.weights([0.5, 0.2]), np.array([one, two]) / (one + two))


def test_verdicts(results):
    verdicts = [claim.judge(results)["verdict"] for claim in fedavg.CLAIMS]
    assert verdicts == ["not judged", *["holds"] * 4]  # an exponent of two points
    assert len(fedavg.STUDY.figures["fedavg"].draw(results).axes) == 3
