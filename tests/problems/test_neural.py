"""A network against NumPy loops over units and finite differences; it learns the digits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdopt as jd
from jaxdopt.problems.neural import predict

SIZES = (3, 5, 4)


@pytest.fixture(scope="module")
def problem():
    random = np.random.default_rng(0)
    features = [random.standard_normal((m, 2)) for m in SIZES]
    labels = [np.arange(m) % 3 for m in SIZES]
    return jd.problems.mlp(features, labels, hidden=(4, 2), l2=0.1, weights="samples", seed=1)


def forward(params, a):
    """Unit by unit."""
    for depth, layer in enumerate(params):
        W, b = np.asarray(layer["W"]), np.asarray(layer["b"])
        sums = [b[j] + sum(a[i] * W[i, j] for i in range(len(a))) for j in range(len(b))]
        a = sums if depth == len(params) - 1 else [np.tanh(s) for s in sums]
    return np.array(a)


def test_layers_and_starting_weights(problem):
    params = problem.unravel(problem.start()[0])
    shapes = [(layer["W"].shape, layer["b"].shape) for layer in params]
    assert shapes == [((2, 4), (4,)), ((4, 2), (2,)), ((2, 3), (3,))]
    assert problem.d == 12 + 10 + 9
    assert all(not np.any(layer["b"]) for layer in params)
    for layer in params:
        assert 0.3 < np.abs(layer["W"]).max() / np.sqrt(6 / sum(layer["W"].shape)) <= 1
    np.testing.assert_array_equal(problem.start()[0], problem.start()[2])
    other = jd.problems.mlp(np.ones((2, 3, 2), np.float32), np.eye(2, 3), seed=2)
    assert other.start().dtype == jnp.float32
    assert problem.solution is None


def test_the_objective_is_the_loops(problem):
    row = np.asarray(problem.start()[0] + 0.3)
    params = problem.unravel(jnp.asarray(row))
    values = []
    for i, size in enumerate(SIZES):
        features, labels = (np.asarray(leaf[i, :size]) for leaf in problem.data)
        for a, b in zip(features, labels, strict=True):
            scores = forward(params, a)
            values.append(np.log(np.sum(np.exp(scores))) - scores[b])
        np.testing.assert_allclose(predict(params, a), scores, rtol=1e-12)  # of the last
    expected = np.mean(values) + 0.05 * row @ row
    np.testing.assert_allclose(jax.jit(problem.objective)(row), expected, rtol=1e-12)


def test_gradients_are_finite_differences(problem):
    x = jnp.asarray(np.random.default_rng(3).standard_normal((3, problem.d)) / 2)
    v = jnp.asarray(np.random.default_rng(4).standard_normal(problem.d))
    got = jax.jit(problem.grad)(x)
    alone = jax.jit(lambda i, x: problem.take(i[None]).objective(x))
    step = 1e-5
    for i in range(3):
        ahead, behind = (alone(jnp.asarray(i), x[i] + s * v) for s in (step, -step))
        central = (ahead - behind) / (2 * step)
        np.testing.assert_allclose(got[i] @ v, central, rtol=1e-7)


def test_without_hidden_layers_it_is_softmax_regression_with_an_intercept():
    random = np.random.default_rng(5)
    features, labels = random.standard_normal((2, 6, 3)), random.integers(0, 4, (2, 6))
    labels[0, 0] = 3
    network = jd.problems.mlp(features, labels, hidden=(), l2=0.2)
    ones = np.concatenate([features, np.ones((2, 6, 1))], axis=2)
    softmax = jd.problems.softmax_regression(ones, labels, l2=0.2)
    solved = network.solved()
    np.testing.assert_allclose(solved.optimum, softmax.optimum, rtol=1e-12)
    (layer,) = solved.unravel(solved.solution)
    together = np.concatenate([layer["W"], layer["b"][None]])
    np.testing.assert_allclose(together.ravel(), softmax.solution, atol=1e-8)


@pytest.mark.slow
def test_it_learns_the_digits():
    images, digits = jd.data.digits()
    order = np.random.default_rng(0).permutation(len(digits))
    images, digits = images[order].astype(np.float32), digits[order]
    problem = jd.problems.mlp(images[:1400], digits[:1400], agents=4, partition="by_label", l2=1e-4)
    accuracy = jd.metrics.accuracy(images[1400:], digits[1400:], predict=predict)
    result = jd.run(
        jd.DSGD(0.2),
        jd.problems.Minibatch(problem, 16),
        jd.networks.metropolis(jd.graphs.ring(4)),
        problem.start(),
        jax.random.key(0),
        steps=600,
        every=600,
        metrics={"accuracy": accuracy},
    )
    assert result.history["accuracy"][-1] > 0.9
    assert result.history["accuracy"][0] < 0.3
