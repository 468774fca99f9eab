"""GT-RR's and ED-RR's experiment, small: what it measures is what theory says."""

from types import SimpleNamespace

import numpy as np
import pytest

from experiments import gtrr
from experiments.measures import exponent
from experiments.study import Results

STUDY = gtrr.STUDY
SIZES = SimpleNamespace(**STUDY.scales["quick"])


@pytest.fixture(scope="module")
def results():
    """One quick run."""
    return STUDY.results("quick")


def test_each_group_of_runs_has_its_own_errors(results):
    for group, methods in gtrr.GROUPS.items():
        errors = results[group].error
        assert set(errors.algorithm.values) == set(methods) - set(gtrr.NOT_QUICK)
        assert errors.sizes["step"] == SIZES.epochs // SIZES.every + 1
        assert np.isfinite(errors).all()
    assert list(results["bias"].error.sizes.items())[1:] == [
        ("seed", 1), ("step", 31), ("network", 2), ("zeta", 2), ("stepsize", 3),
    ]  # fmt: skip


def test_at_a_small_stepsize_the_methods_are_in_order(results):
    errors = gtrr.stationary(results, "order")
    for name in gtrr.NETWORKS:
        e = {str(a): float(errors.sel(network=name, algorithm=a)) for a in errors.algorithm.values}
        assert 10 * e["centralized RR"] < e["GT-RR"]
        assert 1.5 * e["GT-RR"] < e["ED-RR"]
        assert 1.5 * e["ED-RR"] < min(e["D-RR"], e["DSGT"])


def test_the_tilt_changes_neither_the_objective_nor_the_solution(results):
    world = results.world
    whole = world.problems[1]
    points = world.points[(world.points.group == "tilt") & (world.points.zeta == 10)]
    case = world.case(next(points.itertuples()))
    x = np.asarray(whole.solution)
    gradients = np.asarray(case["problem"].grad(case["x0"]))
    np.testing.assert_allclose(gradients, 10 * gtrr.directions("ring", whole), atol=1e-9)
    assert np.mean(np.sum(gradients**2, axis=1)) == pytest.approx(100)
    for point in (x, x + 1):
        expected = pytest.approx(float(whole.objective(point)))
        assert float(case["problem"].objective(point)) == expected


def test_carried_corrections_forget_the_tilt_and_restarted_ones_do_not(results):
    errors = gtrr.stationary(results, "tilt")
    for name in ("GT-RR", "ED-RR", "DSGT"):
        here = errors.sel(algorithm=name).values
        np.testing.assert_allclose(here, here[0], rtol=1e-2)
    powers = exponent(errors.zeta, errors.sel(algorithm=["D-RR", "GT-RR, restart"]), "zeta")
    np.testing.assert_allclose(powers, 2, atol=0.05)


def test_the_bias_of_d_rr_is_the_closed_form(results):
    stepsize = SIZES.stepsizes[0]
    errors = gtrr.stationary(results, "bias", "D-RR").sel(zeta=1.0, stepsize=stepsize)
    gap = gtrr.mixing("grid", SIZES.agents).spectral_gap
    bias = (stepsize * (1 - gap) / gap) ** 2
    assert errors.sel(network="grid").item() == pytest.approx(bias, rel=0.1)


def test_d_rr_crosses_where_it_should(results):
    crossed = gtrr.crossovers(results)
    here = crossed.sel(network="grid", zeta=0.1)
    assert here.stepsize.notnull().all()
    assert crossed.stepsize.sel(zeta=1.0).isnull().all()  # below all stepsizes
    ratio = here.stepsize / here.precise
    assert 0.6 < ratio.min() <= ratio.max() < 1.7


def test_reshuffled_errors_fall_as_the_square_of_the_stepsize(results):
    errors = gtrr.stationary(results, "crossover", "GT-RR", "ED-RR", "DSGT")
    powers = exponent(errors.stepsize, errors, "stepsize").transpose("network", "algorithm")
    np.testing.assert_allclose(powers, [[2, 2, 1]] * 2, atol=0.3)


def test_the_gap_costs_d_rr_more(results):
    errors = gtrr.stationary(results, "gap").sel(network="grid")
    fit = exponent(errors.inverse_gap, errors, "laziness")
    assert fit.sel(algorithm="D-RR").item() == pytest.approx(2, abs=0.2)
    assert 0 < fit.sel(algorithm="GT-RR") < 1
    assert 0 < fit.sel(algorithm="ED-RR") < 1


def test_the_claims_are_what_the_datasets_say(results):
    verdicts = [claim.judge(results) for claim in STUDY.claims]
    assert {each["verdict"] for each in verdicts} == {"holds", "not judged"}
    row = next(each for each in verdicts if each["text"] == "GT-RR, ED-RR: error ~ α^p")
    measured = {tuple(each["where"].values()): each["value"] for each in row["measured"]}
    here = gtrr.stationary(results, "crossover", "ED-RR").sel(network="grid")
    fit = exponent(here.stepsize, here, "stepsize").item()
    assert measured["ED-RR", "grid"] == pytest.approx(fit, rel=1e-12)
    assert row["verdict"] == "holds"


def test_a_crossover_that_no_stepsize_shows_is_not_judged(results):
    far = Results(results.world, "quick")
    far.update(results, bias=results["bias"].sel(zeta=[1.0]))
    claim = next(claim for claim in STUDY.claims if claim.measure is gtrr.over_order)
    assert claim.judge(far)["verdict"] == "not judged"
    assert claim.judge(results)["verdict"] == "holds"
