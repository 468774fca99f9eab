"""Minibatches: unbiased for every agent whatever its size, and a function of the key."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdopt as jd
from jaxdopt.problems.finite_sum import high_product
from jaxdopt.problems.oracles import finite_sum

SIZES = (3, 8, 5)


@pytest.fixture(scope="module", params=["agents", "samples"])
def problem(request):
    return least_squares(request.param)


@pytest.fixture(scope="module")
def uneven():
    return least_squares("samples")


@functools.cache
def least_squares(weights):
    random = np.random.default_rng(1)
    features = [random.standard_normal((m, 2)) for m in SIZES]
    labels = [random.standard_normal(m) for m in SIZES]
    return jd.problems.least_squares(features, labels, l2=0.1, weights=weights)


grads: Any = jax.jit(jax.vmap(lambda problem, x, key: problem.grad(x, key), (None, None, 0)))


def test_unbiased_for_every_agent(problem):
    noisy = jd.problems.Minibatch(problem, 2)
    x = jnp.asarray(np.random.default_rng(2).standard_normal((3, 2)))
    draws = np.asarray(grads(noisy, x, jax.random.split(jax.random.key(0), 20_000)))
    error = draws.std(axis=0) / np.sqrt(len(draws))
    assert np.all(np.abs(draws.mean(axis=0) - problem.grad(x)) < 5 * error)
    one = jd.problems.Minibatch(problem, 1)
    single = np.asarray(grads(one, x, jax.random.split(jax.random.key(1), 20_000)))
    np.testing.assert_allclose(single.var(axis=0) / draws.var(axis=0), 2, rtol=0.1)


def test_every_sample_is_drawn_equally_often_and_none_beyond(problem):
    noisy = jd.problems.Minibatch(problem, 3)
    drawn = np.asarray(jax.jit(jax.vmap(noisy.indices))(jax.random.split(jax.random.key(3), 4000)))
    for i, size in enumerate(SIZES):
        counts = np.bincount(drawn[:, i].ravel(), minlength=size)
        assert len(counts) == size
        expected = 12_000 / size
        assert np.sum((counts - expected) ** 2 / expected) < 30  # chi-squared, at most 7 degrees


def test_the_range_of_a_draw_is_exact():
    """The high word of a 64-bit product, for the extremes and for random words."""
    edges = np.array([0, 1, 2**16 - 1, 2**16, 2**31 - 1, 2**32 - 2, 2**32 - 1], np.uint32)
    words = np.concatenate(
        [edges, np.random.default_rng(0).integers(0, 2**32, 300, dtype=np.uint32)]
    )
    a, b = (part.ravel() for part in np.meshgrid(words, words))
    expected = (a.astype(np.uint64) * b.astype(np.uint64)) >> np.uint64(32)
    np.testing.assert_array_equal(high_product(jnp.asarray(a), jnp.asarray(b)), expected)


def test_draws_of_any_size_without_64_bits(float32):
    """Two billion samples are not stored here, only counted."""
    sizes = jnp.array([1, 1000, 2**31 - 1], jnp.int32)
    problem = jd.problems.FiniteSum(lambda x, a: x @ a, np.ones((3, 1, 2)), jnp.zeros(2))
    drawn = np.asarray(jd.replace(problem, sizes=sizes).draw(jax.random.key(0), 20_000))
    assert drawn.dtype == np.int32
    assert drawn[0].max() == 0
    for row, size in zip(drawn[1:], sizes[1:], strict=True):
        assert 0 <= row.min() < size * 1e-2
        assert size * 0.99 < row.max() < size
        np.testing.assert_allclose(row.mean() / float(size), 0.5, atol=0.01)


def test_a_batch_larger_than_a_client(problem):
    """Draws with replacement: 20 of 3, 8 and 5 samples, uniform and unbiased as ever."""
    noisy = jd.problems.Minibatch(problem, 20)
    assert noisy.samples == 20
    keys = jax.random.split(jax.random.key(9), 4000)
    drawn = np.asarray(jax.jit(jax.vmap(noisy.indices))(keys))
    for i, size in enumerate(SIZES):
        counts = np.bincount(drawn[:, i].ravel(), minlength=size)
        assert len(counts) == size
        np.testing.assert_allclose(counts / drawn[:, i].size, 1 / size, atol=0.01)
    x = jnp.asarray(np.random.default_rng(2).standard_normal((3, 2)))
    many = np.asarray(grads(noisy, x, keys))
    error = many.std(axis=0) / np.sqrt(len(many))
    assert np.all(np.abs(many.mean(axis=0) - problem.grad(x)) < 5 * error)
    network = jd.networks.metropolis(jd.graphs.ring(3))
    run = jd.run(jd.DSGD(0.1), noisy, network, noisy.start(), jax.random.key(0), steps=3)
    assert run.history["gradients"].tolist() == [0, 20, 40, 60]
    np.testing.assert_allclose(run.history["epochs"][-1], 60 / np.mean(SIZES), rtol=1e-6)


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
    assert jax.eval_shape(part.grad, jnp.zeros((1, 2)), jax.random.key(0)).shape == (1, 2)
    assert noisy.solved().batch == 2
    with pytest.raises(AttributeError):
        _ = noisy.nothing_like_it


def test_methods_that_sample_find_the_samples(uneven):
    noisy = jd.problems.Minibatch(uneven, 2)
    assert finite_sum(uneven) == (uneven, 1)
    assert finite_sum(noisy) == (uneven, 2)
    composite = jd.problems.Composite(noisy, jd.problems.prox.L1(0.1))
    inner, batch = finite_sum(composite)
    assert batch == 2
    assert inner.regularizer is composite.regularizer
    x = jnp.ones((3, 2))
    np.testing.assert_array_equal(inner.grad(x, jax.random.key(0)), uneven.grad(x))
    np.testing.assert_array_equal(
        noisy.indices(jax.random.key(2)), inner.draw(jax.random.key(2), 2)
    )


NOISE_KEYS = jax.random.split(jax.random.key(8), 4000)


@pytest.mark.parametrize("d", [1, 3])
def test_noise_has_the_variance_of_the_theorems(d):
    exact = jd.problems.quadratic(4, d)
    noisy = jd.problems.GaussianNoise(exact, 0.7)
    x = jnp.asarray(np.random.default_rng(0).standard_normal((4, d)))
    noise = np.asarray(grads(noisy, x, NOISE_KEYS)) - np.asarray(exact.grad(x))
    squares = np.sum(noise**2, axis=-1)  # [keys, n]
    np.testing.assert_allclose(squares.mean(axis=0), 0.49, rtol=0.1)
    np.testing.assert_allclose(noise.mean(axis=0), 0, atol=5 * 0.7 / np.sqrt(4000))
    flat = noise.reshape(4000, -1)
    correlation = np.corrcoef(flat.T) - np.eye(4 * d)
    assert np.abs(correlation).max() < 5 / np.sqrt(4000)  # agents and coordinates independent


def test_noise_is_of_an_agents_own_gradient_and_weighed_with_it(uneven):
    x = jnp.zeros((3, 2))
    own = least_squares("agents")
    for who in (jnp.arange(3), jnp.array([2, 0])):
        noise, weighed = (
            jd.problems.GaussianNoise(problem, 0.7).take(who).grad(x[: len(who)], NOISE_KEYS[0])
            - problem.take(who).grad(x[: len(who)])
            for problem in (own, uneven)
        )
        share = 3 * np.array(SIZES)[np.asarray(who)] / sum(SIZES)
        np.testing.assert_allclose(weighed, share[:, None] * noise, rtol=1e-12)
        np.testing.assert_allclose(uneven.take(who).shares, share)


def test_noise_is_a_function_of_the_key_alone(uneven):
    noisy = jd.problems.GaussianNoise(uneven, 0.5)
    x, y = jnp.zeros((3, 2)), jnp.ones((3, 2))
    one, two = NOISE_KEYS[:2]
    np.testing.assert_allclose(
        noisy.grad(x, one) - uneven.grad(x), noisy.grad(y, one) - uneven.grad(y), atol=1e-14
    )
    assert not np.allclose(noisy.grad(x, one), noisy.grad(x, two))
    silent = jd.problems.GaussianNoise(uneven, 0)
    np.testing.assert_array_equal(silent.grad(x, one), uneven.grad(x))


def test_noise_on_minibatches_keeps_their_samples(uneven):
    batch = jd.problems.Minibatch(uneven, 2)
    noisy = jd.problems.GaussianNoise(batch, 0.3)
    x = jnp.ones((3, 2))
    drawn, both = (np.asarray(grads(p, x, NOISE_KEYS)) for p in (batch, noisy))
    noise = both - drawn
    assert float(noisy.samples) == 2
    mixed = np.corrcoef(noise[:, :, 0].T, drawn[:, :, 0].T)[:3, 3:]
    assert np.abs(mixed).max() < 5 / np.sqrt(4000)


def test_noise_leaves_the_rest_to_the_problem(uneven):
    noisy = jd.problems.GaussianNoise(uneven, 0.5)
    assert (noisy.n, noisy.d) == (3, 2)
    assert noisy.objective(jnp.zeros(2)) == uneven.objective(jnp.zeros(2))
    assert noisy.solved().optimum == uneven.optimum
    part = noisy.take(jnp.array([2, 0]))
    assert jax.eval_shape(part.grad, jnp.zeros((2, 2)), NOISE_KEYS[0]).shape == (2, 2)
    assert part.sigma == 0.5
    assert not hasattr(noisy, "grad_at")  # chosen samples would come without noise
    assert not hasattr(noisy, "draw")


def test_sigma_is_swept_and_differentiated_and_float32_stays(uneven):
    x, key = jnp.ones((3, 2)), NOISE_KEYS[0]

    def grad(sigma):
        return jd.problems.GaussianNoise(uneven, sigma).grad(x, key)

    sigmas = jnp.array([0.0, 1.0, 2.0])
    exact, one, two = jax.jit(jax.vmap(grad))(sigmas)
    np.testing.assert_allclose(two - exact, 2 * (one - exact), atol=1e-14)
    np.testing.assert_allclose(jax.jit(jax.jacobian(grad))(0.3), one - exact, atol=1e-14)
    single = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), jd.problems.quadratic(2, 3))
    noise = jd.problems.GaussianNoise(single, jnp.asarray(0.5, jnp.float64))
    assert noise.grad(single.start(), key).dtype == jnp.float32


def test_noise_on_an_object_that_is_no_pytree():
    class Duck:
        n, d = 4, 2

        def grad(self, x, key):
            return x - jnp.arange(4.0)[:, None]

    network = jd.networks.metropolis(jd.graphs.complete(4))
    noisy = jd.problems.GaussianNoise(Duck(), 0.0)
    run = jd.run(
        jd.GradientTracking(0.5), noisy, network, jnp.zeros((4, 2)), jax.random.key(0), steps=100
    )
    np.testing.assert_allclose(run.state.x, 1.5, atol=1e-12)
