"""What users bring as data: whatever holds the same numbers gives the same problem."""

from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pandas as pd
import pytest

import jaxdopt as jd

RANDOM = np.random.default_rng(0)
A, B = RANDOM.standard_normal((40, 3)), RANDOM.integers(0, 2, 40)
PARTS = [slice(0, 10), slice(10, 15), slice(15, 40)]
CLIENTS: Any = ([A[part] for part in PARTS], [B[part] for part in PARTS])
logistic: Any = jd.problems.logistic_regression
softmax: Any = jd.problems.softmax_regression


def objects(arrays):
    """An object array of arrays, as np.load gives them."""
    made = np.empty(len(arrays), object)
    made[:] = arrays
    return made


def same(one, other):
    """Whether two problems have the same data and facts."""
    a, b = jax.tree.leaves(one), jax.tree.leaves(other)
    return all(np.array_equal(np.asarray(x), np.asarray(y)) for x, y in zip(a, b, strict=True))


LABELS = {
    "strings": B.astype(str),
    "bytes": B.astype("S"),
    "objects": B.astype(str).astype(object),
    "numbers in objects": B.astype(object),
    "Series": pd.Series(B),
    "Series of strings": pd.Series(B.astype(str)),
    "categories": pd.Series(B.astype(str), dtype="category"),
    "nullable": pd.Series(B).astype("Int64"),
    "list": B.tolist(),
    "column": B[:, None],
    "column in a frame": pd.DataFrame({"label": B}),
    "column of lists": B[:, None].tolist(),
    "booleans": B.astype(bool),
    "floats": B.astype(float),
    "JAX": jnp.asarray(B),
}
FEATURES = {
    "frame": pd.DataFrame(A),
    "lists": A.tolist(),
    "tuples": tuple(map(tuple, A.tolist())),
    "JAX": jnp.asarray(A),
    "objects": A.astype(object),
    "strings": pd.DataFrame(A).map(repr),
}
SPLITS = {
    "tuples": (tuple(CLIENTS[0]), tuple(CLIENTS[1])),
    "frames": ([pd.DataFrame(a) for a in CLIENTS[0]], [pd.Series(b) for b in CLIENTS[1]]),
    "object arrays": (objects(CLIENTS[0]), objects(CLIENTS[1])),
    "lists of lists": ([a.tolist() for a in CLIENTS[0]], [b.tolist() for b in CLIENTS[1]]),
    "columns": (CLIENTS[0], [b[:, None] for b in CLIENTS[1]]),
    "strings": (CLIENTS[0], [b.astype(str) for b in CLIENTS[1]]),
    "dicts": (
        dict(zip("abc", CLIENTS[0], strict=True)),
        {name: CLIENTS[1]["abc".index(name)] for name in "cab"},
    ),
    "numbered dicts": (
        {i: CLIENTS[0][i] for i in (2, 0, 1)},
        {i: CLIENTS[1][i] for i in (0, 1, 2)},
    ),
}


@pytest.mark.parametrize("name", LABELS)
def test_labels_of_any_kind(name):
    for model in (logistic, softmax, jd.problems.least_squares):
        plain = model(A, B, agents=4, l2=0.1)
        assert same(model(A, LABELS[name], agents=4, l2=0.1), plain)


@pytest.mark.parametrize("name", FEATURES)
def test_features_of_any_kind(name):
    assert same(logistic(FEATURES[name], B, agents=4, l2=0.1), logistic(A, B, agents=4, l2=0.1))


@pytest.mark.parametrize("name", SPLITS)
def test_clients_in_any_container(name):
    plain = logistic(*CLIENTS, l2=0.1)
    assert plain.sizes.tolist() == [10, 5, 25]
    assert same(logistic(*SPLITS[name], l2=0.1), plain)


def test_ten_is_a_class_above_two_when_it_is_written_out():
    """Sorted as strings it would come first."""
    classes = np.array(["10", "2"])[B]
    problem = softmax(A, classes, agents=2, l2=0.1, partition=[np.arange(20), np.arange(20, 40)])
    assert problem.unravel(problem.start()[0]).shape == (3, 11)
    np.testing.assert_array_equal(np.ravel(problem.data[1]), np.where(B, 2, 10))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32])
def test_floating_features_keep_their_dtype(dtype):
    problem = logistic(A.astype(dtype), B, agents=4, l2=0.1)
    assert problem.start().dtype == problem.data[1].dtype == dtype
    exact = logistic(A.astype(dtype).astype(float), B, agents=4, l2=0.1)
    np.testing.assert_allclose(
        float(problem.optimum), float(exact.optimum), rtol=float(jnp.finfo(dtype).eps)
    )


@pytest.mark.parametrize("dtype", [np.uint8, bool, np.longdouble])
def test_other_numbers_become_float64(dtype):
    pixels = RANDOM.integers(0, 256, (40, 3)).astype(dtype)
    problem = logistic(pixels, B, agents=4, l2=0.1)
    assert same(problem, logistic(pixels.astype(float), B, agents=4, l2=0.1))


def test_hundreds_of_clients():
    features, labels = np.split(np.tile(A, (5, 1)), 200), np.split(np.tile(B, 5), 200)
    assert logistic(features, labels, l2=0.1).n == 200


def test_a_finite_sum_takes_one_pytree_a_client():
    def loss(w, sample):
        return (sample["x"] @ w - sample["y"]) ** 2

    together = {"x": CLIENTS[0], "y": [b.astype(float) for b in CLIENTS[1]]}
    apart = [{"x": a, "y": b.astype(float)} for a, b in zip(*CLIENTS, strict=True)]
    a, b = (jd.problems.FiniteSum(loss, data, jnp.zeros(3)) for data in (together, apart))
    assert same(a.data, b.data)
    assert b.sizes.tolist() == [10, 5, 25]


def test_complex_samples_of_a_real_loss():
    """Phase retrieval: nothing of the samples is lost."""
    z = RANDOM.standard_normal((4, 6, 3)) + 1j * RANDOM.standard_normal((4, 6, 3))
    problem = jd.problems.FiniteSum(lambda w, a: jnp.abs(a @ w) ** 2, z, jnp.zeros(3))
    w = jnp.asarray(RANDOM.standard_normal(3))
    np.testing.assert_allclose(problem.objective(w), np.mean(np.abs(z @ w) ** 2))


def test_accuracy_reads_labels_as_problems_do():
    ours = jd.metrics.accuracy(pd.DataFrame(A), B.astype(str)[:, None])
    assert same(ours, jd.metrics.accuracy(A, B.astype(float)))
