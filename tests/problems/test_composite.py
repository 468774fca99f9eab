"""Composite problems: solutions against scikit-learn and optimality conditions; metrics."""

import math
import types
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import linear_model

import jaxdopt as jd
from jaxdopt.problems import Composite, Minibatch
from jaxdopt.problems.prox import L1, MCP, Ball, Box, ElasticNet, GroupL1

N, M, D = 4, 40, 6
RANDOM = np.random.default_rng(0)
FEATURES = RANDOM.standard_normal((M, D)) * np.logspace(-0.5, 0.5, D)
TARGETS = FEATURES @ [1.0, 0, 0, -0.5, 0, 0] + 0.3 * RANDOM.standard_normal(M)
KEY = jax.random.key(0)
COMPLETE = jd.networks.metropolis(jd.graphs.complete(N))


def squares(**options):
    return jd.problems.least_squares(FEATURES, TARGETS, agents=N, **options)


def logistic(**options):
    return jd.problems.logistic_regression(FEATURES, TARGETS > 0, agents=N, **options)


def uneven():
    parts = np.split(np.arange(M), [3, 15, 21])
    features, targets = [FEATURES[p] for p in parts], [TARGETS[p] for p in parts]
    return jd.problems.least_squares(features, targets, l2=0.1)


@jax.jit
def smooth_gradient(problem, x):
    return problem.grad(jnp.broadcast_to(x, (problem.n, problem.d)), KEY).mean(axis=0)


def slope(problem, x):
    """The gradient of the smooth part, from the agents' gradients."""
    return np.asarray(smooth_gradient(problem, x))


@jd.pytree
class State:
    x: Any


@jd.pytree
class ProximalGradient:
    """x̄ₖ₊₁ = proxₐ(x̄ₖ − (α/n) Σᵢ ∇fᵢ(x̄ₖ)), centralized."""

    stepsize: jd.Nonnegative

    composite: ClassVar[bool] = True

    def init(self, x0, problem, network, key):
        return State(x0)

    def step(self, state, problem, network, key):
        g = network.mean(problem.grad(state.x, key))
        return State(problem.prox(state.x - self.stepsize * g, self.stepsize))


@pytest.mark.parametrize("weight", [0.01, 0.2])
def test_the_lasso_of_scikit_learn(weight):
    solved = Composite(squares(), L1(weight)).solved()
    model = linear_model.Lasso(alpha=weight, fit_intercept=False, tol=1e-14, max_iter=100_000)
    expected = model.fit(FEATURES, TARGETS).coef_
    np.testing.assert_allclose(solved.solution, expected, atol=1e-9)
    np.testing.assert_array_equal(solved.solution == 0, expected == 0)
    loss = np.mean((FEATURES @ expected - TARGETS) ** 2) / 2 + weight * np.abs(expected).sum()
    np.testing.assert_allclose(solved.optimum, loss, rtol=1e-13)
    assert solved.solution.any()


def test_the_elastic_net_of_scikit_learn():
    solved = Composite(squares(), ElasticNet(0.1, 0.3)).solved()
    model = linear_model.ElasticNet(
        alpha=0.4, l1_ratio=0.25, fit_intercept=False, tol=1e-14, max_iter=100_000
    )
    expected = model.fit(FEATURES, TARGETS).coef_
    np.testing.assert_allclose(solved.solution, expected, atol=1e-9)
    same = Composite(squares(l2=0.3), L1(0.1)).solved()  # half of it in the smooth part
    np.testing.assert_allclose(same.solution, solved.solution, atol=1e-11)
    np.testing.assert_allclose(same.optimum, solved.optimum, rtol=1e-13)


def test_the_sparse_logistic_regression_of_scikit_learn():
    weight = 0.03
    solved = Composite(logistic(), L1(weight)).solved()
    model = linear_model.LogisticRegression(
        l1_ratio=1.0, C=1 / (M * weight), solver="saga", fit_intercept=False, tol=1e-12,
        max_iter=100_000,
    )  # fmt: skip
    expected = model.fit(FEATURES, TARGETS > 0).coef_[0]
    np.testing.assert_allclose(solved.solution, expected, atol=1e-8)
    assert 0 < (np.asarray(solved.solution) == 0).sum() < D


@pytest.mark.parametrize("build", [logistic, uneven])
def test_optimality_conditions(build):
    problem = build()
    tight = 1e-11

    x = np.asarray(Composite(problem, L1(0.05)).solved().solution)
    pull = -slope(problem, x)
    np.testing.assert_allclose(pull[x != 0], 0.05 * np.sign(x[x != 0]), rtol=0, atol=tight)
    assert np.all(np.abs(pull) <= 0.05 + tight)

    x = np.asarray(Composite(problem, GroupL1(0.1, 2)).solved().solution)
    for group, pull in zip(x.reshape(-1, 2), -slope(problem, x).reshape(-1, 2), strict=True):
        if group.any():
            direction = group / np.linalg.norm(group)
            np.testing.assert_allclose(pull, 0.1 * direction, rtol=0, atol=tight)
        else:
            assert np.linalg.norm(pull) <= 0.1 + tight

    x = np.asarray(Composite(problem, Box(-0.1, math.inf)).solved().solution)
    assert np.all(x >= -0.1)
    np.testing.assert_allclose(slope(problem, x)[x > -0.1], 0, atol=tight)
    assert np.all(slope(problem, x) >= -tight)
    assert np.any(x == -0.1)

    x = np.asarray(Composite(problem, Ball(0.2)).solved().solution)
    pull = -slope(problem, x)
    np.testing.assert_allclose(np.linalg.norm(x), 0.2, rtol=1e-13)
    np.testing.assert_allclose(pull, np.linalg.norm(pull) * x / 0.2, atol=tight)


def test_without_weight_it_is_the_smooth_solution():
    problem = squares()
    solved = Composite(problem, L1(0.0)).solved()
    np.testing.assert_allclose(solved.solution, problem.solution, atol=1e-11)
    np.testing.assert_allclose(solved.optimum, problem.optimum, rtol=1e-13)
    quadratic = jd.problems.quadratic(N, D, condition_number=1e4)
    solved = Composite(quadratic, Ball(1e3)).solved()
    np.testing.assert_allclose(solved.solution, quadratic.solution, atol=1e-8)


def test_a_solution_at_the_start_of_a_problem_of_rounding_errors():
    problem = jd.problems.quadratic(N, D, solution=np.zeros(D))
    for regularizer in (L1(0.1), Box(-1, 1), Ball(1)):
        solved = Composite(problem, regularizer).solved()
        np.testing.assert_allclose(solved.solution, 0, atol=1e-14)


@pytest.mark.usefixtures("float32")
def test_float32_problems_are_solved_in_float64():
    problem = Composite(jd.problems.least_squares(FEATURES, TARGETS, agents=N), L1(0.2)).solved()
    assert problem.solution.dtype == problem.optimum.dtype == jnp.float32
    model = linear_model.Lasso(alpha=0.2, fit_intercept=False, tol=1e-14, max_iter=100_000)
    expected = model.fit(FEATURES, TARGETS).coef_
    np.testing.assert_allclose(problem.solution, expected, atol=1e-6)
    run = jd.run(ProximalGradient(0.1), problem, COMPLETE, problem.start(), KEY, steps=2)
    assert run.state.x.dtype == run.history["prox_gradient_residual"].dtype == jnp.float32


def test_the_smooth_problems_answers_and_facts():
    smooth = uneven()
    problem = Composite(smooth, L1(0.2))
    x = jnp.asarray(RANDOM.standard_normal((N, D)))
    np.testing.assert_array_equal(problem.grad(x, KEY), smooth.grad(x))
    chosen = jnp.zeros((N, 1), int)
    np.testing.assert_array_equal(problem.grad_at(x, chosen), smooth.grad_at(x, chosen))
    assert (problem.n, problem.d, problem.samples) == (N, D, smooth.samples)
    assert problem.smoothness is smooth.smoothness
    assert problem.strong_convexity is smooth.strong_convexity
    np.testing.assert_array_equal(problem.sizes, smooth.sizes)
    np.testing.assert_array_equal(problem.start(), smooth.start())
    np.testing.assert_allclose(
        problem.objective(x[0]), smooth.objective(x[0]) + 0.2 * abs(x[0]).sum()
    )
    np.testing.assert_allclose(problem.smooth_objective(x[0]), smooth.objective(x[0]), rtol=1e-15)
    np.testing.assert_array_equal(problem.prox(x, 0.5), L1(0.2).prox(x, 0.5))
    with pytest.raises(AttributeError):
        _ = problem.nothing_like_it


def test_what_is_true_of_the_smooth_problem_only_is_not_kept():
    smooth = squares(l2=0.1)
    assert smooth.solution is not None
    problem = Composite(smooth, L1(0.2))
    assert problem.solution is problem.optimum is None
    assert Composite(smooth, MCP(0.2, 3.0)).strong_convexity is None
    solved = problem.solved()
    part = solved.take(jnp.array([0, 2]))
    assert part.solution is part.optimum is part.strong_convexity is None
    assert (part.n, part.regularizer) == (2, problem.regularizer)
    x = jnp.ones((2, D))
    np.testing.assert_array_equal(part.grad(x), smooth.take(jnp.array([0, 2])).grad(x))


@pytest.mark.parametrize("outer", [pytest.param(False, marks=pytest.mark.slow), True])
def test_minibatches_inside_and_outside(outer):
    smooth, regularizer = squares(), L1(0.2)
    noisy = (
        Minibatch(Composite(smooth, regularizer), 3)
        if outer
        else Composite(Minibatch(smooth, 3), regularizer)
    )
    x = jnp.asarray(RANDOM.standard_normal((N, D)))
    np.testing.assert_array_equal(noisy.grad(x, KEY), Minibatch(smooth, 3).grad(x, KEY))
    assert noisy.samples == 3
    exact = Composite(smooth, regularizer).solved()
    assert noisy.objective(x[0]) == exact.objective(x[0])
    assert noisy.solution is noisy.optimum is None
    solved = noisy.solved()
    np.testing.assert_array_equal(solved.solution, exact.solution)
    assert solved.optimum == exact.optimum
    assert solved.take(jnp.array([1])).solution is None
    run = jd.run(
        ProximalGradient(0.05), solved, COMPLETE, solved.start(), KEY, steps=200, every=100
    )
    assert 0 < run.history["gap"][-1] < run.history["gap"][0] / 10
    np.testing.assert_allclose(run.history["epochs"][-1], 200 * 3 / (M / N), rtol=1e-6)


def test_a_run_records_the_composite_metrics():
    problem = Composite(squares(), L1(0.2)).solved()
    run = jd.run(
        ProximalGradient(1 / problem.smoothness), problem, COMPLETE, problem.start(), KEY,
        steps=2000, every=1000, metrics={"sparsity": jd.metrics.sparsity},
    )  # fmt: skip
    history = run.history
    assert "gradient_norm_squared" not in history
    assert abs(history["gap"][-1]) < 1e-14
    assert history["distance_squared"][-1] < 1e-24
    assert history["prox_gradient_residual"][0] > 1e-2
    assert history["prox_gradient_residual"][-1] < 1e-24
    zeros = np.mean(np.asarray(problem.solution) == 0)
    np.testing.assert_allclose(history["sparsity"][[0, -1]], [1, zeros], rtol=1e-6)


def test_the_residual():
    residual = jax.jit(jd.metrics.prox_gradient_residual)
    x = RANDOM.standard_normal(D)
    state = State(jnp.stack([x - 1, x + 1]))
    smooth = squares()
    unknown = jd.replace(smooth, smoothness=None)
    for problem, regularizer, t in (
        (smooth, L1(0.2), 1 / smooth.smoothness),
        (smooth, MCP(0.2, 0.01), 1 / (smooth.smoothness + 100)),  # 1/L would be too long a step
        (unknown, L1(0.2), 1.0),
    ):
        after = regularizer.prox(jnp.asarray(x - t * slope(smooth, x)), t)
        expected = np.sum(np.square(x - after)) / t**2
        got = residual(state, Composite(problem, regularizer))
        np.testing.assert_allclose(got, expected, rtol=1e-10)
    got = residual(state, Composite(smooth, L1(0.0)))
    np.testing.assert_allclose(got, np.sum(slope(smooth, x) ** 2), rtol=1e-10)


def test_sparsity_is_the_agents_own():
    x = jnp.array([[0.0, 0.0, 1.0, 2.0], [0.0, 1.0, 0.0, 0.0]])
    state = types.SimpleNamespace(x=x)
    assert jd.metrics.sparsity(state, None) == 5 / 8
    state = types.SimpleNamespace(x=x, estimate=x[1])
    assert jd.metrics.sparsity(state, None) == 3 / 4


def test_an_oracle_has_no_objective():
    oracle = jd.problems.Oracle(lambda x, data, key: x - data, jnp.eye(N, D), jnp.ones(D))
    problem = Composite(oracle, L1(0.1))
    assert problem.objective is problem.smooth_objective is None
    run = jd.run(ProximalGradient(0.5), problem, COMPLETE, problem.start(), KEY, steps=100)
    assert set(run.history) & {"loss", "prox_gradient_residual", "consensus_error"} == {
        "consensus_error"
    }
    np.testing.assert_allclose(run.state.x[0], L1(0.1).prox(jnp.eye(N, D).mean(axis=0), 1.0))
    with pytest.raises(ValueError, match="the Oracle's objective or smoothness is not known"):
        problem.solved()


def test_a_problem_that_is_no_pytree():
    smooth = squares()
    names = ("n", "d", "grad", "objective", "smoothness", "start")
    plain = types.SimpleNamespace(**{name: getattr(smooth, name) for name in names})
    solved, expected = (Composite(problem, L1(0.2)).solved() for problem in (plain, smooth))
    np.testing.assert_allclose(solved.solution, expected.solution, atol=1e-13)
    runs = [
        jd.run(ProximalGradient(0.1), problem, COMPLETE, smooth.start(), KEY, steps=10)
        for problem in (solved, expected)
    ]
    np.testing.assert_allclose(runs[0].history["gap"], runs[1].history["gap"], atol=1e-13)


def test_methods_that_ignore_the_regularizer_are_refused():
    problem = Composite(squares(), L1(0.1))
    says = "DGD ignores the regularizer L1; take a composite method such as PGEXTRA or NIDS, or the"
    for given in (problem, Minibatch(problem, 2)):
        with pytest.raises(ValueError, match=says):
            jd.run(jd.DGD(0.1), given, COMPLETE, problem.start(), KEY, steps=1)
    jd.run(jd.DGD(0.1), problem.problem, COMPLETE, problem.start(), KEY, steps=1)


def test_solved_refuses_what_it_cannot_solve():
    with pytest.raises(ValueError, match="MCP is not known to be convex"):
        Composite(squares(), MCP(0.1, 3.0)).solved()
    with pytest.raises(ValueError, match=r"FiniteSum's objective or smoothness .* jd\.replace"):
        Composite(jd.replace(squares(), smoothness=None), L1(0.1)).solved()
    separable = jd.problems.logistic_regression(np.eye(4), [0, 1, 1, 0], agents=2)
    with pytest.raises(ValueError, match=r"no minimizer was found, F = .* add l2 > 0"):
        Composite(separable, L1(0.0)).solved()
    assert Composite(separable, L1(0.01)).solved().optimum > 0


def test_what_is_no_composite_problem_is_refused():
    smooth: Any = squares()
    with pytest.raises(ValueError, match="the Composite has a regularizer already"):
        Composite(Composite(smooth, L1(0.1)), Box(0, 1))
    with pytest.raises(ValueError, match="the Minibatch has a regularizer already"):
        Composite(Minibatch(Composite(smooth, L1(0.1)), 2), Box(0, 1))
    with pytest.raises(ValueError, match=r"regularizer is 0.1; give one with a prox"):
        Composite(smooth, 0.1)
    with pytest.raises(ValueError, match="problem is a SimpleNamespace without grad"):
        Composite(types.SimpleNamespace(n=N), L1(0.1))


def test_a_weight_is_no_new_program():
    smooth = squares()
    traces = []

    @jax.jit
    def value(problem, x):
        traces.append(0)
        return problem.objective(x)

    for weight in (0.1, 0.2, 1):
        value(Composite(smooth, L1(weight)), jnp.ones(D))
    assert len(traces) == 1
    weights = jnp.array([0.1, 0.3])
    values = jax.vmap(lambda w: Composite(smooth, L1(w)).objective(jnp.ones(D)))(weights)
    np.testing.assert_allclose(values, smooth.objective(jnp.ones(D)) + D * weights)
