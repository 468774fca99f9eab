"""Minibatches: unbiased for every agent whatever its size, and a function of the key."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdopt as jd

SIZES = (3, 8, 5)


@pytest.fixture(scope="module", params=["agents", "samples"])
def problem(request):
    random = np.random.default_rng(1)
    features = [random.standard_normal((m, 2)) for m in SIZES]
    labels = [random.standard_normal(m) for m in SIZES]
    return jd.problems.least_squares(features, labels, l2=0.1, weights=request.param)


def test_unbiased_for_every_agent(problem):
    noisy = jd.problems.Minibatch(problem, 2)
    x = jnp.asarray(np.random.default_rng(2).standard_normal((3, 2)))
    draws = jax.vmap(lambda key: noisy.grad(x, key))(jax.random.split(jax.random.key(0), 20_000))
    error = draws.std(axis=0) / np.sqrt(len(draws))
    assert np.all(np.abs(draws.mean(axis=0) - problem.grad(x)) < 5 * error)
    one = jd.problems.Minibatch(problem, 1)
    single = jax.vmap(lambda key: one.grad(x, key))(jax.random.split(jax.random.key(1), 20_000))
    np.testing.assert_allclose(single.var(axis=0) / draws.var(axis=0), 2, rtol=0.1)


def test_every_sample_is_drawn_equally_often_and_none_beyond(problem):
    noisy = jd.problems.Minibatch(problem, 3)
    drawn = jax.vmap(noisy.indices)(jax.random.split(jax.random.key(3), 4000))
    for i, size in enumerate(SIZES):
        counts = np.bincount(np.asarray(drawn[:, i]).ravel(), minlength=size)
        assert len(counts) == size
        expected = 12_000 / size
        assert np.sum((counts - expected) ** 2 / expected) < 30  # chi-squared, at most 7 degrees


def test_one_key_one_sample(problem):
    noisy = jd.problems.Minibatch(problem, 2)
    x, y = jnp.zeros((3, 2)), jnp.ones((3, 2))
    key = jax.random.key(4)
    chosen = noisy.indices(key)
    difference = noisy.grad(x, key) - noisy.grad(y, key)
    np.testing.assert_allclose(difference, problem.grad_at(x, chosen) - problem.grad_at(y, chosen))
    assert not np.array_equal(chosen, noisy.indices(jax.random.key(5)))
    rows = np.asarray(noisy.indices(jax.random.key(6)))
    assert len({tuple(row) for row in rows}) > 1  # agents draw independently


def test_everything_else_is_the_wrapped_problems(problem):
    noisy = jd.problems.Minibatch(problem, 2)
    assert (noisy.n, noisy.d, noisy.samples) == (3, 2, 2)
    assert float(noisy.size) == pytest.approx(np.mean(SIZES))
    assert noisy.objective(jnp.zeros(2)) == problem.objective(jnp.zeros(2))
    assert noisy.optimum is problem.optimum
    part = noisy.take(jnp.array([1]))
    assert part.n == 1
    assert part.grad(jnp.zeros((1, 2)), jax.random.key(0)).shape == (1, 2)
    assert noisy.solved().batch == 2
    with pytest.raises(AttributeError):
        _ = noisy.nothing_like_it
