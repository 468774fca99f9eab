"""Dissimilarity and gap against formulas by hand, normal equations and SciPy's minima."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from reference import losses

import jaxdopt as jd
from jaxdopt.problems import general_variance, heterogeneity, solver
from jaxdopt.problems.heterogeneity import _alone

SIZES = (5, 9, 4)
L2 = 0.2


def uneven(seed=0):
    random = np.random.default_rng(seed)
    features = [random.standard_normal((m, 2)) + i for i, m in enumerate(SIZES)]
    return features, [f.sum(axis=1) + i**2 for i, f in enumerate(features)]


def shares(weights):
    return np.ones(3) if weights == "agents" else 3 * np.array(SIZES) / sum(SIZES)


def expected(value, gradient, features, labels, solution, minima, weights):
    """Both numbers from one agent's value and gradient, written as in the definition."""
    share = shares(weights)
    slopes = [gradient(solution, A, b, L2) for A, b in zip(features, labels, strict=True)]
    zeta = np.mean([np.sum((s * g) ** 2) for s, g in zip(share, slopes, strict=True)])
    here = [value(solution, A, b, L2) for A, b in zip(features, labels, strict=True)]
    return zeta, np.mean(share * (np.array(here) - minima))


def test_two_parabolas_by_hand():
    """(x − 1)²/2 and 3(x + 1/3)²/2, up to constants: x* = 0, slopes ∓1, Γ = (1/2 + 1/6)/2."""
    parabolas = jd.replace(
        jd.problems.quadratic(2, 1),
        hessians=jnp.array([[[1.0]], [[3.0]]]),
        tilts=jnp.array([[-1.0], [1.0]]),
    )
    found = heterogeneity(parabolas)
    np.testing.assert_allclose(found, (1.0, 1 / 3), rtol=1e-14)
    assert found.dissimilarity == found[0]
    assert found.gap == found[1]


def test_quadratics_have_what_they_were_asked_for():
    problem = jd.problems.quadratic(5, 3, heterogeneity=2.0, curvature_spread=0.5)
    found = heterogeneity(problem)
    np.testing.assert_allclose(found.dissimilarity, 4.0, rtol=1e-12)
    own = [
        scipy.optimize.minimize(
            lambda x, i=i: (x @ problem.hessians[i] @ x) / 2 + problem.tilts[i] @ x, np.zeros(3)
        ).fun
        for i in range(5)
    ]
    np.testing.assert_allclose(found.gap, -np.mean(own), rtol=1e-6)
    np.testing.assert_allclose(
        heterogeneity(jd.problems.quadratic(4, 2, heterogeneity=0)), 0, atol=1e-25
    )


@pytest.mark.parametrize("weights", ["agents", "samples"])
def test_least_squares_against_normal_equations(weights):
    features, labels = uneven()
    problem = jd.problems.least_squares(features, labels, l2=L2, weights=weights)
    hessians = [A.T @ A / len(A) + L2 * np.eye(2) for A in features]
    sides = [A.T @ b / len(A) for A, b in zip(features, labels, strict=True)]
    share = shares(weights)[:, None]
    solution = np.linalg.solve(
        np.sum(share[:, :, None] * hessians, axis=0), np.sum(share * sides, axis=0)
    )
    minima = [
        losses.least_squares_value(np.linalg.solve(H, c), A, b, L2)
        for H, c, A, b in zip(hessians, sides, features, labels, strict=True)
    ]
    value, gradient = losses.least_squares_value, losses.least_squares_gradient
    by_hand = expected(value, gradient, features, labels, solution, minima, weights)
    np.testing.assert_allclose(heterogeneity(problem), by_hand, rtol=1e-10)
    noisy = jd.problems.GaussianNoise(jd.problems.Minibatch(problem, 2), 0.5)
    assert heterogeneity(noisy) == heterogeneity(problem)


@pytest.mark.slow
def test_logistic_regression_against_scipy_and_one_program_for_all_agents():
    features, targets = uneven(1)
    labels = [np.sign(t - np.median(t) + 0.1) for t in targets]
    problem = jd.problems.logistic_regression(features, labels, l2=L2)
    minima = [
        scipy.optimize.minimize(
            losses.logistic_value, np.zeros(2), (A, b, L2), options={"gtol": 1e-9}
        ).fun
        for A, b in zip(features, labels, strict=True)
    ]
    value, gradient = losses.logistic_value, losses.logistic_gradient
    solution = losses.solve_logistic(features, labels, L2, "agents")
    by_hand = expected(value, gradient, features, labels, solution, minima, "agents")
    compiled: Any = solver._value_and_grad
    before = compiled._cache_size()
    found = heterogeneity(problem)
    assert compiled._cache_size() == before + 1
    np.testing.assert_allclose(found, by_hand, rtol=1e-8)
    pair = problem.take(jnp.array([2, 0])).solved()
    alone = jd.problems.logistic_regression(
        [features[2], features[0]], [labels[2], labels[0]], l2=L2
    )
    np.testing.assert_allclose(heterogeneity(pair), heterogeneity(alone), rtol=1e-9)


def test_equal_agents_do_not_differ():
    features, labels = np.ones((1, 4, 2)) * np.arange(1.0, 5)[:, None], np.arange(4.0)[None]
    problem = jd.problems.huber_regression(
        np.repeat(features, 3, axis=0), np.repeat(labels, 3, axis=0), l2=0.1
    )
    np.testing.assert_allclose(heterogeneity(problem), 0, atol=1e-13)


@pytest.mark.slow
def test_it_grows_as_a_dirichlet_split_concentrates():
    random = np.random.default_rng(0)
    classes = np.arange(300) % 2
    features = random.standard_normal((300, 2)) + 2 * classes[:, None]
    found = np.array(
        [
            heterogeneity(
                jd.problems.logistic_regression(
                    features, classes, agents=5, l2=0.1, partition=jd.partition.dirichlet(alpha)
                )
            )
            for alpha in (0.3, 100.0)
        ]
    )
    assert np.all(found > 0)
    assert np.all(found[0] > 10 * found[1])


def test_float32_problems_are_measured_in_float64(float32):
    features, labels = uneven()
    problem = jd.problems.least_squares(features, labels, l2=L2)
    assert problem.solution.dtype == jnp.float32
    assert heterogeneity(problem).gap > 0


@pytest.mark.parametrize("kind", ["least_squares", "logistic_regression"])
@pytest.mark.parametrize("weights", ["agents", "samples"])
def test_the_general_variance_condition_holds_everywhere(kind, weights):
    """E|gᵢ − ∇fᵢ|² over all samples, by hand, at points near and far."""
    features, labels = uneven()
    if kind == "logistic_regression":
        labels = [np.where(b > np.median(b), 1.0, -1.0) for b in labels]
    problem = getattr(jd.problems, kind)(features, labels, l2=L2, weights=weights)
    found = general_variance(jd.problems.Minibatch(problem, 2))
    least = np.array([solver.minimize(_alone(problem, i))[1] for i in range(3)])
    value, gradient = {
        "least_squares": (losses.least_squares_value, losses.least_squares_gradient),
        "logistic_regression": (losses.logistic_value, losses.logistic_gradient),
    }[kind]
    random, ratios = np.random.default_rng(4), []
    points = [problem.solution + scale * random.standard_normal(2)
              for scale in np.geomspace(1e-3, 30, 60)]  # fmt: skip
    for x in (np.asarray(point) for point in points):
        for i, (a, b) in enumerate(zip(features, labels, strict=True)):
            share = shares(weights)[i]
            each = [share * gradient(x, a[[j]], b[[j]], L2) for j in range(len(b))]
            variance = np.mean(np.sum((each - np.mean(each, axis=0)) ** 2, axis=1)) / 2
            bound = found.C * (share * value(x, a, b, L2) - least[i]) + found.sigma_squared
            ratios.append(variance / bound)
    assert 0.01 < max(ratios) <= 1


@pytest.mark.slow
def test_gradients_are_bounded_by_the_gap_and_its_excess():
    """(1/n) Σ |∇fᵢ(x)|² ≤ 2L (f(x) − f* + Γ), and nearly so somewhere."""
    problem = jd.problems.least_squares(*uneven(), l2=L2)
    excess, ratios = heterogeneity(problem).gap, []
    random = np.random.default_rng(4)
    for scale in np.geomspace(1e-3, 30, 60):
        x = problem.solution + scale * jnp.asarray(random.standard_normal(2))
        slopes = problem.grad(jnp.broadcast_to(x, (3, 2)))
        over = problem.objective(x) - problem.optimum + excess
        ratios.append(jnp.mean(jnp.sum(slopes**2, axis=1)) / (2 * problem.smoothness * over))
    assert 0.3 < max(ratios) <= 1


def test_variances_of_other_problems():
    """Full gradients have none, noise its own; ℓ of the library's losses; what is refused."""
    features, labels = uneven()
    ridge = jd.problems.least_squares(features, labels, l2=L2)
    assert general_variance(ridge) == (0, 0)
    assert general_variance(jd.problems.GaussianNoise(ridge, 2.0)) == (0, 4)
    weighed = jd.problems.least_squares(features, labels, l2=L2, weights="samples")
    found = general_variance(jd.problems.GaussianNoise(weighed, 2.0))
    assert found == (0, pytest.approx(4 * shares("samples").max() ** 2))
    batch = jd.problems.Minibatch(ridge, 2)
    noisy = general_variance(jd.problems.GaussianNoise(batch, 2.0))
    assert noisy.sigma_squared == general_variance(batch).sigma_squared + 4
    largest = max(np.sum(f**2, axis=1).max() for f in features)
    assert pytest.approx(largest + L2) == general_variance(batch).C
    huber = jd.problems.huber_regression(features, labels, l2=L2)
    assert pytest.approx(2 * (largest + L2)) == general_variance(jd.problems.Minibatch(huber, 1)).C

    def loss(x, sample):
        return (sample[0] @ x - sample[1]) ** 2 / 2

    own = jd.problems.Minibatch(jd.problems.FiniteSum(loss, (features, labels), np.zeros(2)), 2)
    with pytest.raises(ValueError, match="the smoothness of this loss is not known"):
        general_variance(own)
    assert general_variance(own, smoothness=3.0).C == 3.0
    with pytest.raises(ValueError, match="about samples, which a Quadratic has not"):
        general_variance(jd.problems.quadratic(2, 2))
