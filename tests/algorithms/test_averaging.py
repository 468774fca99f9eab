"""Running means of iterates: exact, and of any method, which runs as it does alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import ROWS
from small import KEY, D, N, network_of, uneven

import jaxdopt as jd
from jaxdopt import averaging, loop

STEPS, START = 8, 3
RING = jd.networks.metropolis(jd.graphs.ring(N))


def own(state, problem):
    return state.inner.x


def own_estimate(state, problem):
    return jd.metrics.estimate(state.inner)


def means(state, problem):
    return state.x


def mean_estimate(state, problem):
    return jd.metrics.estimate(state)


ALL = {"own": own, "own_estimate": own_estimate, "mean": means, "mean_estimate": mean_estimate}


def expected(rows, start):
    """The rows themselves, and from ``start`` on the means of the rows since then."""
    terms = np.arange(1, len(rows) - start + 1).reshape(-1, *[1] * (rows.ndim - 1))
    return np.concatenate([rows[:start], np.cumsum(rows[start:], axis=0) / terms])


@functools.cache
def made(name):
    row = next(row for row in ROWS if row.name == name)
    return row.make(0.05), network_of(row.network)


def run(method, network, problem=None, steps=STEPS, metrics=None, **options):
    problem = uneven(np.float64) if problem is None else problem
    x0 = problem.start() + jnp.arange(float(N))[:, None] / N
    return jd.run(method, problem, network, x0, KEY, steps=steps, metrics=metrics, **options)


def quickest(names, *quick):
    """Some of the methods, and the others if slow."""
    return [pytest.param(n, marks=() if n in quick else pytest.mark.slow) for n in names]


@pytest.mark.parametrize("name", quickest([row.name for row in ROWS], "SCAFFOLD", "ADSGD", "STPP"))
def test_the_mean_of_every_method(name):
    method, network = made(name)
    history = run(jd.Averaged(method, START), network, metrics=ALL, defaults=()).history
    assert np.abs(history["own"][-1] - history["own"][0]).max() > 1e-3
    for of in ("", "_estimate"):
        wanted = expected(history[f"own{of}"], START)
        np.testing.assert_allclose(history[f"mean{of}"], wanted, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("name", quickest(["CEDAS", "GTVR", "FedAvg", "ADSGD"], "CEDAS"))
def test_the_method_itself_runs_as_it_does_alone(name):
    """Bit for bit, at the same costs."""
    method, network = made(name)
    alone, averaged = run(method, network), run(jd.Averaged(method), network)
    same = jax.tree.map(np.array_equal, alone.state, averaged.state.inner)
    assert all(jax.tree.leaves(same))
    for axis in jd.costs.AXES.keys() & alone.history.keys():
        np.testing.assert_array_equal(alone.history[axis], averaged.history[axis])


def test_a_server_keeps_one_mean():
    """And not one a client; metrics know that there is one estimate."""
    method, network = made("FedAvg")
    result = run(jd.Averaged(method, START), network)
    assert [leaf.shape for leaf in jax.tree.leaves(result.state.means)] == [(D,), (D,)]
    assert result.state.x.shape == (N, D)
    assert np.all(result.history["consensus_error"] == 0)
    problem = uneven(np.float64)
    np.testing.assert_allclose(
        result.history["loss"][-1], problem.objective(result.state.estimate), rtol=1e-14
    )


def test_start_and_stepsize_are_numbers_and_sweep_together():
    """One program for all, each member as its own run."""
    problem = uneven(np.float64)
    starts, stepsizes = [0, 2, 100], [0.05, 0.1]
    dataset = jd.compare(
        {"mean": jd.Averaged(jd.SGD(1.0))},
        problem,
        RING,
        over={"stepsize": stepsizes, "start": starts},
        metrics={"x": means},
        steps=STEPS,
        progress=False,
    )
    for stepsize in stepsizes:
        for start in starts:
            single = jd.run(
                jd.Averaged(jd.SGD(stepsize), start),
                *(problem, RING, problem.start(), KEY),
                steps=STEPS,
                metrics={"x": means},
            )
            member = dataset["x"].sel(stepsize=stepsize, start=start, algorithm="mean")
            np.testing.assert_allclose(member.values.squeeze(), single.history["x"], rtol=1e-12)
    assert dataset["stepsize"].attrs["least"] == 0


def test_start_compiles_nothing():
    before = loop.simulate.made
    for start in (1, 5):
        run(jd.Averaged(jd.SGD(0.1), start), RING)
    assert loop.simulate.made == before + 1


@pytest.mark.slow
def test_a_result_goes_on_and_schedules_are_the_wrapped_methods():
    method = jd.Averaged(jd.DSGD(jd.schedules.InverseTime(1.0, 4.0)), START)
    whole = run(method, RING, metrics=ALL)
    first = run(method, RING, metrics=ALL, steps=2)
    joined = jd.run(method, uneven(np.float64), RING, steps=STEPS - 2, after=first, metrics=ALL)
    for name in ALL:
        np.testing.assert_array_equal(whole.history[name], joined.history[name])
    single = run(jd.DSGD(jd.schedules.InverseTime(1.0, 4.0)), RING, metrics={"x": means})
    np.testing.assert_array_equal(whole.history["own"], single.history["x"])
    with pytest.raises(ValueError, match=r"the schedule's stepsize at step 7 is -3"):
        run(jd.Averaged(jd.DSGD(lambda k: 4.0 - k)), RING)


def test_sleeping_agents_iterates_are_in_the_mean():
    """The mean is over steps; the iterates of those who sleep do not change."""
    for method in (jd.GradientTracking(0.1), Undeclared(0.1)):
        history = run(jd.Averaged(method), jd.networks.Asleep(RING, 0.5), metrics=ALL).history
        still = np.all(history["own"][1:] == history["own"][:-1], axis=2)
        assert 0.2 < still.mean() < 0.8
        np.testing.assert_allclose(history["mean"], expected(history["own"], 0), rtol=1e-13)


class Undeclared:
    """A user's method: no pytree, says nothing of what it needs."""

    def __init__(self, stepsize):
        self.stepsize = stepsize

    def init(self, x0, problem, network, key):
        return UndeclaredState(x0)

    def step(self, state, problem, network, key):
        return UndeclaredState(network @ state.x - self.stepsize * problem.grad(state.x, key))


@jd.pytree
class UndeclaredState:
    x: jax.Array


def test_means_in_low_precision_do_not_stall():
    """With 16 bits the mean is kept in 32; a plain sum in 32 bits would be off by 1e-4 here."""
    random = np.random.default_rng(0)
    terms = (1 + random.standard_normal((50_000, 1)) / 100).astype(np.float32)
    terms[:200] += 100

    def add(mean, pair):
        return mean.renewed(*pair), None

    mean = averaging.Mean.of(jnp.asarray(terms[0]))
    counts = jnp.arange(2, len(terms) + 1)
    last, _ = jax.jit(lambda m, *pairs: jax.lax.scan(add, m, pairs))(
        mean, jnp.asarray(terms[1:]), counts
    )
    assert last.value.dtype == jnp.float32
    np.testing.assert_allclose(last.value, terms.astype(np.float64).mean(axis=0), rtol=2e-7)
    half = averaging.Mean.of(jnp.ones(1, jnp.float16))
    assert half.value.dtype == jnp.float32


def test_gradients_pass_through_the_mean():
    problem = uneven(np.float64)
    hidden = problem.problem  # all samples: no noise

    def final(stepsize):
        method = jd.Averaged(jd.DGD(stepsize))
        result = jd.run(method, hidden, RING, problem.start(), KEY, steps=5, defaults=())
        return jnp.sum(result.state.x**2)

    slope = (final(0.1 + 1e-6) - final(0.1 - 1e-6)) / 2e-6
    np.testing.assert_allclose(jax.jit(jax.grad(final))(0.1), slope, rtol=1e-7)


@pytest.mark.parametrize("start", [-1, 0.5, True, "10", np.array(-2), np.array(1.0)])
def test_starts_that_are_no_step_are_refused(start):
    with pytest.raises(ValueError, match=r"start is .*; give an integer of at least 0"):
        jd.Averaged(jd.SGD(0.1), start)


def test_what_is_no_method_is_refused():
    with pytest.raises(ValueError, match=r"method is .*SGD.*; give an instance"):
        jd.Averaged(jd.SGD)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"method is 0\.1; give an instance with init and step"):
        jd.Averaged(0.1)
    with pytest.raises(ValueError, match="needs doubly stochastic weights in every round"):
        run(jd.Averaged(jd.DSGD(0.1)), jd.networks.Server(N))
    with pytest.raises(ValueError, match=r"stepsize has shape \(3, 1\)"):
        run(jd.Averaged(jd.SGD(np.full((3, 1), 0.1))), RING)
    with pytest.raises(
        ValueError, match=r"has no field 'gamma' to sweep; it has method, start, method\.stepsize"
    ):
        jd.compare({"a": jd.Averaged(jd.SGD(0.1))}, uneven(float), RING, over={"gamma": [1]},
                   steps=1, progress=False)  # fmt: skip


def test_gradient_descents_mean_on_a_convex_function():
    """F(x̄ₖ) − F* ≤ |x₀ − x*|² / (2γ(k + 1)) with γ = 1/L, where F is not strongly convex."""
    random = np.random.default_rng(1)
    features, targets = random.standard_normal((N, 1, 12)), random.standard_normal((N, 1))
    problem = jd.problems.least_squares(features, targets).solved()  # 6 samples, 12 parameters
    top = np.linalg.norm(features[:, 0], 2) ** 2 / N
    x0 = problem.start() + 1.0
    result = jd.run(jd.Averaged(jd.GradientDescent(1 / top)), problem, RING, x0, KEY, steps=300)
    nearest = x0[0] - np.linalg.pinv(features[:, 0]) @ (features[:, 0] @ x0[0] - targets[:, 0])
    bound = top * np.sum((x0[0] - nearest) ** 2) / 2 / (np.arange(301) + 1)
    gap = result.history["gap"]
    assert np.all(gap <= bound)
    assert gap[-1] > 1e-4 * bound[-1]


@pytest.mark.slow
def test_the_error_of_averaged_sgd_is_of_order_one_over_k():
    """Additive noise of covariance C and a constant γ on a quadratic, whose mean is known exactly.

    x̄ − x* = Σᵢ Mⁱ (x₀ − x*) / (k + 1) − H⁻¹ Σⱼ (I − M^(k−j)) ξⱼ / (k + 1),  M = I − γH,

    so that E F(x̄) − F* tends to tr(H⁻¹C) / 2k for any γ; the last iterate's tends to a constant.
    """
    quadratic = jd.problems.quadratic(N, D, condition_number=5, curvature_spread=0.5)
    problem, stepsize, steps = jd.problems.GaussianNoise(quadratic, 3.0), 0.3, 800
    h = np.asarray(quadratic.hessians).mean(axis=0)
    powers = [np.eye(D)]
    for _ in range(steps):
        powers.append(powers[-1] @ (np.eye(D) - stepsize * h))
    started = np.sum(powers, axis=0) @ (quadratic.start()[0] - quadratic.solution) / (steps + 1)
    inverse, per_step = np.linalg.inv(h), 9.0 / D / N  # C = per_step I
    noisy = sum(np.trace((np.eye(D) - m) @ inverse @ (np.eye(D) - m)) for m in powers[1:])
    exact = started @ h @ started / 2 + per_step * noisy / (steps + 1) ** 2 / 2
    np.testing.assert_allclose(exact, per_step * np.trace(inverse) / 2 / steps, rtol=0.05)

    keys = jax.random.split(KEY, 300)
    means, last = (
        jd.sweep(jd.run, over="key")(
            *(method, problem, RING, quadratic.start(), keys),
            steps=steps,
            every=steps,
            defaults=("gap",),
        ).history["gap"][:, -1]
        for method in (jd.Averaged(jd.GradientDescent(stepsize)), jd.GradientDescent(stepsize))
    )
    error = means.std() / len(keys) ** 0.5
    assert abs(means.mean() - exact) < 4 * error
    assert error < 0.1 * exact
    stays = per_step * stepsize * np.trace(np.linalg.inv(2 * np.eye(D) - stepsize * h)) / 2
    np.testing.assert_allclose(last.mean(), stays, rtol=0.2)
    assert means.mean() < last.mean() / 20


@pytest.mark.slow
def test_the_mean_of_sgd_beats_its_last_iterate():
    """On least squares that no x fits, samples drawn one at a time; the start is left out."""
    problem = uneven(np.float64).problem
    keys = jax.random.split(KEY, 20)
    setting = problem.solved(), RING, problem.start(), keys
    gaps = [
        jd.sweep(jd.run, over="key")(method, *setting, steps=3000, every=1500).history["gap"]
        for method in (jd.SGD(0.05), jd.Averaged(jd.SGD(0.05), 200))
    ]
    last, mean = (gap.mean(axis=0) for gap in gaps)
    assert mean[-1] < last[-1] / 10
    assert 0.3 < mean[-1] / mean[1] < 0.7
