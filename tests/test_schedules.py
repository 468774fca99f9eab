"""Schedules against their formulas, alone and in a method's number field."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdopt as jd
from jaxdopt._arguments import require_schedules

CASES = {
    "constant": (jd.schedules.Constant(0.3), lambda k: 0.3),
    "inverse time": (jd.schedules.InverseTime(2.0, offset=5.0), lambda k: 2 / (k + 5)),
    "polynomial": (
        jd.schedules.Polynomial(0.5, power=0.75, offset=10.0),
        lambda k: 0.5 / (1 + k / 10) ** 0.75,
    ),
    "piecewise": (
        jd.schedules.PiecewiseConstant([1.0, 0.1, 0.01], [3, 7]),
        lambda k: 1.0 if k < 3 else 0.1 if k < 7 else 0.01,
    ),
    "cosine": (
        jd.schedules.Cosine(1.0, steps=20, final=0.1),
        lambda k: 0.1 + 0.9 * (1 + math.cos(math.pi * min(k / 20, 1))) / 2,
    ),
    "per epoch": (
        jd.schedules.PerEpoch(jd.schedules.InverseTime(1.0), 4),
        lambda k: 1 / (k // 4 + 1),
    ),
    "per epoch of a function": (
        jd.schedules.PerEpoch(lambda t: 0.5**t, 3),
        lambda k: 0.5 ** (k // 3),
    ),
    "optax": (optax.exponential_decay(0.2, 5, 0.5), lambda k: 0.2 * 0.5 ** (k / 5)),
    "a function": (lambda k: 1 / (k + 2) ** 2, lambda k: 1 / (k + 2) ** 2),
}


@pytest.mark.parametrize("name", CASES)
def test_values_by_formula_in_a_method(name):
    schedule, formula = CASES[name]
    method = jd.DGD(stepsize=schedule)
    steps = [0, 1, 2, 3, 6, 7, 8, 19, 20, 50]
    got = [float(jd.at(method, k).stepsize) for k in steps]
    np.testing.assert_allclose(got, [formula(k) for k in steps], rtol=1e-6)
    traced = jax.jit(jax.vmap(lambda k: jd.at(method, k).stepsize))(jnp.asarray(steps))
    np.testing.assert_allclose(jnp.broadcast_to(traced, len(steps)), got, rtol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_a_run_with_a_schedule_is_the_loop_with_its_values(name):
    schedule, formula = CASES[name]
    problem = jd.problems.quadratic(4, 2)
    network = jd.networks.metropolis(jd.graphs.ring(4))
    key = jax.random.key(0)
    result = jd.run(jd.GradientTracking(schedule), problem, network, problem.start(), key, steps=9)
    state = jd.GradientTracking(0.1).init(problem.start(), problem, network, key)
    for k in range(9):
        state = jd.GradientTracking(formula(k)).step(state, problem, network, key)
    np.testing.assert_allclose(result.state.x, state.x, rtol=1e-6)


def test_schedules_sweep_and_differentiate():
    problem = jd.problems.quadratic(4, 2)
    network = jd.networks.metropolis(jd.graphs.ring(4))

    def final(numerator):
        method = jd.DSGD(jd.schedules.InverseTime(numerator, offset=4.0))
        key = jax.random.key(0)
        return jd.run(method, problem, network, problem.start(), key, steps=10).history["gap"][-1]

    values = jnp.array([0.5, 1.0, 2.0])
    np.testing.assert_allclose(jax.vmap(final)(values), [final(v) for v in values], rtol=1e-10)
    slope = (final(1.0 + 1e-6) - final(1.0 - 1e-6)) / 2e-6
    np.testing.assert_allclose(jax.grad(final)(1.0), slope, rtol=1e-6)
    methods = jax.vmap(lambda a: jd.DSGD(jd.schedules.Polynomial(a)))(values)
    assert jax.vmap(lambda m: jd.at(m, 3).stepsize)(methods).shape == (3,)


def test_a_schedule_counts_from_the_start_of_a_continued_run():
    problem = jd.problems.quadratic(4, 2)
    network = jd.networks.metropolis(jd.graphs.ring(4))
    method, key = jd.EXTRA(jd.schedules.InverseTime(2.0, offset=8.0)), jax.random.key(0)
    whole = jd.run(method, problem, network, problem.start(), key, steps=10)
    half = jd.run(method, problem, network, problem.start(), key, steps=5)
    rest = jd.run(method, problem, network, None, key, steps=5, state=half.state, start=5)
    np.testing.assert_array_equal(rest.state.x, whole.state.x)


def test_schedules_for_each_agent_and_from_later_steps_on():
    """[n, 1] is a number's shape; 1/k is infinite at step 0 only."""
    each = jd.DGD(lambda k: jnp.array([[0.1], [0.2]]) / (k + 1))
    np.testing.assert_allclose(jd.at(each, 1).stepsize, [[0.05], [0.1]])
    later = jd.DGD(lambda k: 1 / k)
    require_schedules(later, 1, 100)
    assert float(jd.at(later, 4).stepsize) == 0.25
    require_schedules(jd.DGD(lambda k: 0.1 - 0.01 * k), 0, 10)


def test_schedules_with_unknown_numbers_are_not_judged():
    """Negative members of a sweep: they are traced."""
    values = jnp.array([1.0, -1.0])
    swept = jax.vmap(lambda a: jd.at(jd.DGD(jd.schedules.InverseTime(a)), 1).stepsize)(values)
    np.testing.assert_allclose(swept, [0.5, -0.5])


def test_a_schedule_that_nobody_evaluated_says_so():
    problem = jd.problems.quadratic(4, 2)
    network = jd.networks.metropolis(jd.graphs.ring(4))
    method = jd.DGD(lambda k: 0.1)
    state = method.init(problem.start(), problem, network, jax.random.key(0))
    with pytest.raises(ValueError, match=r"call step on jd.at\(method, k\)"):
        method.step(state, problem, network, jax.random.key(0))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: jd.schedules.PiecewiseConstant([1.0], [2]), "one more value"),
        (lambda: jd.schedules.PiecewiseConstant([1.0, 2.0, 3.0], [5, 2]), "increasing"),
        (lambda: jd.schedules.PerEpoch(jd.schedules.Constant(1.0), 0), "steps is 0"),
        (lambda: jd.schedules.PerEpoch(0.1, 5), "schedule is 0.1"),
        (lambda: jd.schedules.Constant("x"), "value is 'x'"),
    ],
)
def test_schedules_refuse_nonsense(make, words):
    with pytest.raises(ValueError, match=words):
        make()
