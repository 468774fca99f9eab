"""The study of FedAvg: its bias, what removes it, and the measure that bounds it."""

import csv

import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray as xr

import jaxdopt as jd
from experiments import fedavg
from experiments.__main__ import main


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """One quick run."""
    folder = tmp_path_factory.mktemp("fedavg")
    main(["fedavg", "--quick", "--out", str(folder)])
    return folder


def test_bias_is_linear_in_the_step_and_in_local_steps_and_zero_without_heterogeneity(out):
    grid = xr.load_dataset(out / "fedavg_bias.nc")
    found = fedavg.exponents(grid)
    np.testing.assert_allclose(found["stepsize"] + found["Q"], 1, atol=0.1)
    np.testing.assert_allclose(found["shift"], 0.5, atol=0.05)
    small = grid.isel(stepsize=1).sel(shift=1.0, Q=2)
    assert float(small.error / small.expected) == pytest.approx(1, abs=0.05)
    large = grid.error.isel(stepsize=-1)
    assert float(large.sel(shift=0.0).max()) < 1e-12
    assert float(large.sel(Q=1).max()) < 1e-12 < 1e-3 < float(large.sel(shift=1.0, Q=2))


def test_decreasing_steps_remove_it_and_samples_cost_nothing_at_a_common_minimizer(out):
    walks = xr.load_dataset(out / "fedavg_rounds.nc")
    far = np.sqrt(walks.distance_squared.mean("seed")).isel(step=-1)
    assert float(far.sel(problem="one minimizer", schedule="constant").max()) < 1e-12
    last = far.sel(problem="δ = 1")
    ratio = last.sel(schedule="decreasing") / last.sel(schedule="constant")
    assert float(ratio.sel(samples="full gradients")) < 0.4 > float(ratio.sel(samples="one sample"))


def test_unequal_participation_moves_the_limit_and_uniform_does_not(out):
    ended = fedavg.ends_of(xr.load_dataset(out / "fedavg_participation.nc")).to_dataframe()
    near = ended.expected / 5
    assert (ended.away < near).tolist() == [True, True, False]
    assert (ended.off < near).tolist() == [False, False, True]
    assert ended.same.max() < 1e-12  # one minimizer: whoever takes part


def test_shares_of_participants():
    np.testing.assert_allclose(fedavg.weights([0.3] * 5), 0.2)
    # both, only the first, only the second: 1/2, 1, 0 of the mean are the first's
    one = 0.5 * 0.2 / 2 + 0.5 * 0.8
    two = 0.5 * 0.2 / 2 + 0.5 * 0.2
    np.testing.assert_allclose(fedavg.weights([0.5, 0.2]), np.array([one, two]) / (one + two))


def test_the_measure_bounds_the_bias_and_the_condition_holds(out):
    many = xr.load_dataset(out / "fedavg_measures.nc")
    scaled = fedavg.scaled(many, *fedavg.STEADY)
    # the gap is F − F*, where F* is σ_f* and up to half the square of a residual of 1
    rounding = 8 * np.finfo(float).eps * (many.measure + 0.5)
    assert bool((scaled <= many.gap + many.measure + rounding).all())
    assert bool((scaled.where(many.measure == 0, 0) < 1e-20).all())
    ranks = fedavg.ranks(many)
    assert float(ranks.correlation[0]) > 0.8 > 0.5 > float(ranks.correlation[2])
    numbers = xr.load_dataset(out / "fedavg_conditions.nc")
    used = numbers[["client", "mean", "gradients"]].to_array()
    assert float(used.max()) <= 1
    assert float(used.sel(problem="δ = 1").min()) > 0.1  # and is not far from what there is
    sorted_by_label = numbers.measure.sel(problem="digits, sorted")
    assert float(sorted_by_label) > 2 * float(numbers.measure.sel(problem="digits, shuffled"))


def test_the_conditions_numbers_are_those_of_the_library(out):
    numbers = xr.load_dataset(out / "fedavg_conditions.nc").sel(problem="δ = 1, noisy labels")
    problem = fedavg.regression(*fedavg.SYNTHETIC["δ = 1, noisy labels"])
    factor, floor = jd.problems.general_variance(jd.problems.Minibatch(problem, 1))
    assert (float(numbers.C), float(numbers.sigma_squared)) == pytest.approx((factor, floor))
    assert float(numbers.measure) == pytest.approx(jd.problems.heterogeneity(problem).gap)


def test_published_adam_is_optaxs_but_for_the_start():
    ours, theirs = fedavg.published_adam(), fedavg.optimizers()["FedAdam (optax)"]
    x, delta = jnp.zeros(2), jnp.array([1.0, -0.1])
    first, memory = ours.update(delta, ours.init(x))
    m, v = 0.1 * delta, 0.99e-6 + 0.01 * delta**2
    np.testing.assert_allclose(first, m / (jnp.sqrt(v) + 1e-3), rtol=1e-6)
    corrected, other = theirs.update(delta, theirs.init(x))
    np.testing.assert_allclose(corrected, delta / (abs(delta) + 1e-3), rtol=1e-6)
    for _ in range(2000):
        (late, memory), (same, other) = ours.update(delta, memory), theirs.update(delta, other)
    np.testing.assert_allclose(late, same, rtol=1e-6)
    assert isinstance(theirs, optax.GradientTransformation)


def test_tables_and_figures(out):
    header, *rows = csv.reader((out / "fedavg_claims.csv").read_text().splitlines())
    assert all(row[-1] != "-" for row in rows if "no" in row)  # what is not met is explained
    missed = [row[0] for row in rows if dict(zip(header, row, strict=True))["met"] == "no"]
    assert missed in ([], [name for name in missed if name.endswith("zeta^2 at x*")])
    names = {path.name for path in out.iterdir()}
    assert {"fedavg_problems.csv", "fedavg_servers.csv", "fedavg_fedavg.pdf"} <= names
