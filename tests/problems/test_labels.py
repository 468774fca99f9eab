"""Flipped labels: problems made of labels that are flipped before, and all others as they were."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdopt as jd

SIZES, CLASSES = (4, 6, 3, 5), 3
RANDOM = np.random.default_rng(0)
FEATURES = [RANDOM.standard_normal((m, 2)) for m in SIZES]
LABELS = [np.arange(m) % CLASSES for m in SIZES]
LIARS = np.array([False, True, False, True])


def logistic_loss(w, sample):
    return jnp.logaddexp(0, -sample["sign"] * (sample["a"] @ w))


def own(features, labels):
    data = {"a": features, "sign": [1.0 - 2 * (b == 0) for b in labels]}
    return jd.problems.FiniteSum(logistic_loss, data, jnp.zeros(2), l2=0.1)


MAKERS = {
    "logistic": lambda a, b: jd.problems.logistic_regression(a, [y > 0 for y in b], l2=0.1),
    "softmax": lambda a, b: jd.problems.softmax_regression(a, b, l2=0.1, weights="samples"),
    "mlp": lambda a, b: jd.problems.mlp(a, b, hidden=(3,)),
    "own": own,
}


@pytest.mark.parametrize("name", MAKERS)
def test_it_is_the_problem_of_labels_that_are_flipped_before(name):
    two = name in ("logistic", "own")
    labels = [np.minimum(b, 1) for b in LABELS] if two else LABELS
    high = 1 if two else CLASSES - 1
    before = [high - b if lies else b for b, lies in zip(labels, LIARS, strict=True)]
    problem, expected = (MAKERS[name](FEATURES, b) for b in (labels, before))
    options: Any = {"labels": "sign"} if name == "own" else {}
    poisoned = jd.problems.flip_labels(problem, LIARS, **options)
    for a, b in zip(jax.tree.leaves(poisoned.data), jax.tree.leaves(expected.data), strict=True):
        np.testing.assert_array_equal(a, b)  # the padding, too
        assert a.dtype == b.dtype
    x = jnp.asarray(np.random.default_rng(1).standard_normal((4, problem.d)))
    gradients = poisoned.grad(x)
    np.testing.assert_array_equal(gradients, expected.grad(x))
    np.testing.assert_array_equal(gradients[~LIARS], problem.grad(x)[~LIARS])
    assert np.all(np.any(gradients != problem.grad(x), axis=1) == LIARS)
    assert poisoned.solution is None
    assert poisoned.optimum is None
    if name in ("logistic", "softmax"):
        np.testing.assert_allclose(poisoned.smoothness, expected.smoothness, rtol=1e-12)
        np.testing.assert_allclose(poisoned.solved().optimum, expected.optimum, rtol=1e-9)
    twice = jd.problems.flip_labels(poisoned, LIARS, **options)
    np.testing.assert_array_equal(twice.grad(x), problem.grad(x))


def test_the_last_agents_and_those_that_were_taken():
    problem = MAKERS["softmax"](FEATURES, LABELS)
    x = jnp.asarray(np.random.default_rng(2).standard_normal((4, problem.d)))
    last = jd.problems.flip_labels(problem, 2)
    mask = jd.problems.flip_labels(problem, [False, False, True, True])
    np.testing.assert_array_equal(last.data[1], mask.data[1])
    none = jd.problems.flip_labels(problem, 0)
    np.testing.assert_array_equal(none.data[1], problem.data[1])
    who = jnp.array([3, 1])
    np.testing.assert_array_equal(last.take(who).grad(x[who]), last.grad(x)[who])
    part = jd.problems.flip_labels(problem.take(who), np.array([True, False]))
    np.testing.assert_array_equal(part.grad(x[who]), last.grad(x)[who])


def test_wrappers_stay_and_forget_the_solution():
    problem = MAKERS["softmax"](FEATURES, LABELS)
    key, x = jax.random.key(0), problem.start() + 0.3
    flipped = jd.problems.flip_labels(problem, 1)
    batches = jd.problems.flip_labels(jd.problems.Minibatch(problem, 2), 1)
    expected = jd.problems.Minibatch(flipped, 2).grad(x, key)
    np.testing.assert_array_equal(batches.grad(x, key), expected)
    composite = jd.problems.Composite(problem, jd.problems.prox.L1(0.1)).solved()
    poisoned = jd.problems.flip_labels(composite, 1)
    assert composite.solution is not None
    assert poisoned.solution is None
    assert poisoned.optimum is None
    assert poisoned.regularizer is composite.regularizer
    np.testing.assert_array_equal(poisoned.grad(x, key), flipped.grad(x))


def test_more_classes_than_labels_that_occur_and_traced_liars():
    data = (np.ones((2, 3, 1)), np.array([[0, 1, 2], [1, 0, 0]]))

    def loss(w, sample):
        return jax.nn.logsumexp(w * sample[0]) - w[sample[1]]

    problem = jd.problems.FiniteSum(loss, data, jnp.zeros(10))
    ten = jd.problems.flip_labels(problem, 1, classes=10)
    assert ten.data[1].tolist() == [[0, 1, 2], [8, 9, 9]]
    assert jd.problems.flip_labels(problem, 1).data[1].tolist() == [[0, 1, 2], [1, 2, 2]]
    flipped = jax.jit(lambda lies: jd.problems.flip_labels(problem, lies).data[1])
    assert flipped(jnp.array([True, False])).tolist() == [[2, 1, 0], [1, 0, 0]]
    inside = jax.jit(lambda p: jd.problems.flip_labels(p, 1, classes=3).data[1])
    assert inside(problem).tolist() == [[0, 1, 2], [1, 2, 2]]
    data = (data[0], np.array([[1, -1, 1]] * 2))
    signs = jd.problems.FiniteSum(lambda w, z: w @ z[0] * z[1], data, jnp.zeros(1))
    assert jd.problems.flip_labels(signs, 2).data[1].tolist() == [[-1, 1, -1]] * 2
