"""Stacked problems run as the separate ones do: other splits, sizes, numbers and facts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdopt as jd
from jaxdopt.problems.linear import logistic_loss

RANDOM = np.random.default_rng(0)
FEATURES = RANDOM.standard_normal((48, 3))
LABELS = FEATURES @ np.ones(3) + RANDOM.standard_normal(48) > 0
NETWORK = jd.networks.metropolis(jd.graphs.ring(4))
KEY = jax.random.key(0)
EVEN = "iid"  # 48 samples over 4 agents


def logistic(partition):
    return jd.problems.logistic_regression(FEATURES, LABELS, agents=4, partition=partition, l2=0.1)


def sampled(partition):
    """The same without facts: nothing to solve."""
    signs = 2.0 * LABELS - 1
    data = jd.partition.split((FEATURES, signs), LABELS, agents=4, partition=partition)
    return jd.problems.FiniteSum(logistic_loss, data, jnp.zeros(3))


def assert_runs_alike(method, members, stacked, **options):
    """A sweep over stacked problems against one run after the other."""
    x0 = members[0].start()
    together = jd.sweep(jd.run, over=("problem",))(method, stacked, NETWORK, x0, KEY, **options)
    for i, member in enumerate(members):
        alone = jd.run(method, member, NETWORK, x0, KEY, **options)
        assert set(together.history) <= set(alone.history)
        for name, values in together.history.items():
            np.testing.assert_allclose(
                values[i], alone.history[name], rtol=1e-12, atol=1e-12, err_msg=name
            )
        np.testing.assert_allclose(together.state.x[i], alone.state.x, atol=1e-12)
    return together


@pytest.mark.slow
def test_splits_of_one_dataset():
    splits = [jd.partition.dirichlet(alpha) for alpha in (0.1, 10.0)]
    members = [logistic(split) for split in splits]
    assert len({member.most for member in members}) == 2
    stacked = jd.stack(members)
    history = assert_runs_alike(jd.DSGD(0.2), members, stacked, steps=12, every=3).history
    assert history["gap"].shape == history["epochs"].shape == (2, 5)
    assert {"loss", "distance_squared"} <= set(history)
    assert_runs_alike(jd.DRR(0.2), members, stacked, steps=12, every=3)  # whatever the padding


@pytest.mark.slow
def test_inside_minibatches_and_noise():
    members = [
        jd.problems.GaussianNoise(jd.problems.Minibatch(sampled(split), 1), sigma)
        for split, sigma in ((jd.partition.dirichlet(1.0), 0.0), (EVEN, 2))
    ]
    assert_runs_alike(jd.DSGD(0.2), members, jd.stack(members), steps=5)


def test_even_sums_of_one_size_stay_without_weights():
    members = [sampled(jd.partition.iid(seed)) for seed in range(2)]
    stacked = jd.stack(members)
    assert stacked.sample_weights is None
    for a, b in zip(jax.tree.leaves(stacked.data), jax.tree.leaves(members[1].data), strict=True):
        np.testing.assert_array_equal(a[1], b)


def test_facts_that_not_all_know_are_dropped():
    known = logistic(EVEN)
    unknown = jd.replace(known, solution=None, optimum=None, smoothness=None)
    stacked = jd.stack([known, unknown])
    assert stacked.solution is None
    assert stacked.optimum is None
    assert stacked.smoothness is None
    np.testing.assert_array_equal(stacked.strong_convexity, [0.1, 0.1])
    wrapped = jd.stack([jd.problems.Minibatch(unknown, 2), jd.problems.Minibatch(known, 2)])
    assert wrapped.problem.solution is None
    assert wrapped.batch == 2


def test_numbers_differ_and_keep_the_dtype():
    single = FEATURES.astype(np.float32)
    members = [
        jd.problems.huber_regression(single, single[:, 0], agents=4, delta=delta, l2=l2)
        for delta, l2 in ((0.1, 1), (1, 0.1))
    ]
    stacked = jd.stack(members)
    np.testing.assert_allclose(stacked.loss.delta, [0.1, 1])
    leaves = jax.tree.leaves(stacked)
    assert {leaf.dtype for leaf in leaves} == {np.dtype(np.float32), np.dtype(np.int32)}
    swept = jd.sweep(jd.run, over=("problem",))(
        jd.DGD(0.1), stacked, NETWORK, members[0].start(), KEY, steps=3
    )
    assert swept.state.x.dtype == jnp.float32


@pytest.mark.slow
def test_chosen_agents_are_gathered():
    who = jnp.array([3, 1, 1, 0])
    members = [sampled(jd.partition.dirichlet(0.3)).take(who), sampled(EVEN)]
    assert_runs_alike(jd.DGD(0.2), members, jd.stack(members), steps=5)


def test_composites_methods_and_quadratics():
    l1 = jd.problems.prox.L1
    composite = [jd.problems.Composite(logistic(EVEN), l1(w)).solved() for w in (0.01, 0.1)]
    open_end = jd.replace(composite[0], solution=None, optimum=None)
    np.testing.assert_allclose(jd.stack(composite).regularizer.weight, [0.01, 0.1])
    assert jd.stack([composite[1], open_end]).solution is None
    methods = jd.stack([jd.DGD(0.1), jd.DGD(2)])
    np.testing.assert_array_equal(methods.stepsize, [0.1, 2])
    members = [jd.problems.quadratic(4, 2, condition_number=c) for c in (1, 10)]
    assert_runs_alike(jd.DGD(0.2), members, jd.stack(members), steps=5)
    keys = jd.stack([jax.random.key(0), jax.random.key(1)])
    assert keys.shape == (2,)
