"""Compressed methods: exact or not at nominal two bits, with the parameters that they choose."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdopt as jd

KEY = jax.random.key(6)
DITHER = jd.compressors.Dither(bits=2)
RING = jd.networks.metropolis(jd.graphs.ring(8))


@pytest.fixture(scope="module")
def digits():
    """Digits 3 against 8, split by label over a ring of 8; d = 64."""
    data = jd.data.digits().only(3, 8)
    return jd.problems.logistic_regression(
        data.features, data.labels == 8, agents=8, l2=0.1, partition="by_label"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "fraction"),
    [(jd.CEDAS, 0.8), (jd.LEAD, 0.8), (jd.BEER, 0.3), (jd.CGT, 0.3), (jd.CPP, 0.3)],
)
def test_exact_methods_reach_the_optimum_at_two_bits_with_default_parameters(
    method, fraction, digits
):
    method = method(fraction / digits.smoothness, DITHER)
    result = jd.run(method, digits, RING, digits.start(), KEY, steps=8000, every=2000)
    assert abs(result.history["gap"][-1]) < 1e-12
    assert result.history["distance_squared"][-1] < 1e-10
    assert result.history["consensus_error"][-1] < 1e-10
    messages = 2 if method.__class__ in (jd.BEER, jd.CGT, jd.CPP) else 1
    assert result.history["bits"][-1] == 8000 * messages * (2 * 64 + 32)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "compressor"),
    [
        (jd.LEAD, jd.compressors.Dither(levels=1)),
        (jd.CEDAS, jd.compressors.RandomK(4)),
        (jd.CGT, jd.compressors.RandomK(4)),
        (jd.CGT, jd.compressors.TopK(3)),
        (jd.BEER, jd.compressors.TopK(3)),
        (jd.BEER, jd.compressors.ScaledSign()),
        (jd.BEER, jd.compressors.Contractive(jd.compressors.RandomK(4))),
        (jd.CPP, jd.compressors.Natural()),
        (jd.CPP, jd.compressors.RandomK(2)),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, type) else value.__name__,
)
def test_other_compressors(method, compressor):
    problem = jd.problems.quadratic(8, 8, condition_number=5, heterogeneity=1.0)
    method = method(0.2 / problem.smoothness, compressor)
    result = jd.run(method, problem, RING, problem.start(), KEY, steps=8000, every=8000)
    assert result.history["distance_squared"][-1] + result.history["consensus_error"][-1] < 1e-10


@pytest.mark.parametrize("method", [jd.CHOCOSGD, jd.DeepSqueeze])
def test_inexact_methods_stop_at_a_bias_of_the_order_of_the_stepsize(method):
    problem = jd.problems.quadratic(8, 8, condition_number=5, heterogeneity=1.0)
    stepsizes = np.array([0.1, 0.05, 0.025]) / float(problem.smoothness)
    methods = jax.vmap(lambda a: method(a, jd.compressors.TopK(4)))(jnp.asarray(stepsizes))
    history = jd.sweep(jd.run, over=("algorithm",))(
        methods, problem, RING, problem.start(), KEY, steps=4000, every=200
    ).history
    error = np.sqrt((history["distance_squared"] + history["consensus_error"])[:, 10:].mean(axis=1))
    ratios = error[:-1] / error[1:]
    assert error.min() > 1e-3
    assert np.all((ratios > 1.3) & (ratios < 2.3))


@pytest.mark.parametrize("method", [jd.CEDAS, jd.LEAD, jd.CHOCOSGD, jd.DeepSqueeze])
def test_compression_does_not_touch_the_mean(method):
    """x̄⁺ = x̄ − α ḡ to rounding, in every step."""
    problem = jd.problems.GaussianNoise(jd.problems.quadratic(8, 5, heterogeneity=1.0), 1.0)
    rule = method(0.05, DITHER)
    metrics = {"x": lambda s, p: s.x}
    x = jd.run(rule, problem, RING, problem.start(), KEY, steps=30, metrics=metrics).history["x"]
    for k in range(30):
        g = problem.grad(jnp.asarray(x[k]), jax.random.fold_in(KEY, k))
        expected = (x[k] - 0.05 * g).mean(axis=0)
        np.testing.assert_allclose(x[k + 1].mean(axis=0), expected, atol=1e-14)


@pytest.mark.parametrize("method", [jd.CEDAS, jd.LEAD, jd.CGT, jd.CPP, jd.BCPP])
@pytest.mark.slow
def test_a_common_start_is_not_sent(method):
    """All is as from 0, moved by the start: messages carry differences only."""
    away = 1000.0 * np.ones(5)
    found = []
    for start in (np.zeros(5), away):
        problem = jd.problems.quadratic(8, 5, heterogeneity=1.0, solution=start - 1)
        x0 = problem.start(start)
        state = jd.run(method(0.05, DITHER), problem, RING, x0, KEY, steps=40).state
        found.append(state.x - start)
    np.testing.assert_allclose(*found, rtol=1e-8, atol=1e-9)
    assert np.abs(found[0]).max() > 0.1


@pytest.mark.parametrize("compressor", [jd.compressors.TopK(1), jd.compressors.RandomK(2, False)])
def test_choco_gossip_reaches_consensus_linearly_with_any_contraction(compressor):
    """Stepsize 0: the error falls by a factor in equal numbers of rounds, the mean stays."""
    problem = jd.problems.quadratic(8, 10)
    x0 = jnp.asarray(np.random.default_rng(0).standard_normal((8, 10)))
    result = jd.run(jd.CHOCOSGD(0.0, compressor), problem, RING, x0, KEY, steps=600, every=100)
    error = result.history["consensus_error"]
    factors = error[1:] / error[:-1]
    assert error[-1] > 1e-25
    assert np.all((factors[1:] < 0.5) & (factors[1:] > 0.2 * factors[1:].mean()))
    np.testing.assert_allclose(result.state.x.mean(axis=0), x0.mean(axis=0), atol=1e-13)


def test_both_counts_of_bits_in_a_history():
    """Two bits nominal are five symbols, three bits; the same messages, s = 2."""
    problem = jd.problems.quadratic(8, 10)
    counted = []
    for dither in (DITHER, jd.compressors.Dither(levels=2)):
        method = jd.LEAD(0.1, dither)
        run = jd.run(method, problem, RING, problem.start(), KEY, steps=4)
        counted.append((run.history["bits"][-1], run.history["traffic"][-1], run.state.x))
    assert counted[0][:2] == (4 * (2 * 10 + 32), 16 * 4 * (2 * 10 + 32))
    assert counted[1][:2] == (4 * (3 * 10 + 32), 16 * 4 * (3 * 10 + 32))
    np.testing.assert_array_equal(counted[0][2], counted[1][2])
    assert DITHER.exact_bits(10) == 3 * 10 + 32


@pytest.mark.optimized
@pytest.mark.slow
@pytest.mark.parametrize("method", [jd.CEDAS, jd.LEAD, jd.EDRR])
def test_float32_does_not_drift_over_100_000_noisy_steps(method, float32):
    """Neither the sum of the duals nor the time average of the mean."""
    n = 12
    random = np.random.default_rng(0)
    a = random.standard_normal((n, 20, 3)) + np.arange(n)[:, None, None] / 6
    b = a @ np.ones(3) + np.arange(n)[:, None] + random.standard_normal((n, 20))
    problem = jd.problems.Minibatch(jd.problems.least_squares(a, b), 2)
    network = jd.networks.metropolis(jd.graphs.ring(n))
    stepsize = 0.02 / problem.smoothness
    rule = method(stepsize) if method is jd.EDRR else method(stepsize, DITHER)
    result = jd.run(
        rule, problem, network, problem.start(), KEY, steps=100_000, every=100,
        metrics={"mean": lambda s, p: s.x.mean(axis=0)},
    )  # fmt: skip
    assert result.state.x.dtype == jnp.float32
    d = np.asarray(result.state.d, float)
    assert np.abs(d.sum(axis=0)).max() < 1e-4 * np.abs(d).max()
    means = result.history["mean"].astype(float) - np.asarray(problem.solution, float)
    early, late = means[100:500], means[600:]
    spread = means[100:].std(axis=0) / np.sqrt(20)  # of averages of some 20 independent ones
    assert np.all(np.abs(late.mean(axis=0) - early.mean(axis=0)) < 4 * spread)
    bias = 5e-4  # reshuffling has one, O(α²)
    assert np.all(np.abs(late.mean(axis=0)) < 4 * spread + bias)
