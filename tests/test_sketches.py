"""Linear sketches: one matrix for all rows, second moments with equality, transforms without it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import sketches as loops
from scipy.linalg import hadamard

from jaxdopt.compressors import SRHT, CountSketch, GaussianSketch, RademacherSketch, sketches

KEY = jax.random.key(5)
D, S, DRAWS = 32, 8, 4000
SKETCHES = {
    "gaussian": GaussianSketch(S),
    "rademacher": RademacherSketch(S),
    "count": CountSketch(S),
    "srht": SRHT(S),
}
CONSTANTS = {"gaussian": 33 / 8, "rademacher": 31 / 8, "count": 31 / 8, "srht": 3.0}
every_sketch = pytest.mark.parametrize("name", SKETCHES)


@jax.jit
def sent(sketch, keys, x):
    """What arrives of a vector [d] with many keys."""
    return jax.vmap(lambda key: sketch(key, x[None])[0])(keys)


def matrix(sketch, d, key=KEY):
    """R [s, d], of the images of unit vectors."""
    return np.asarray(jax.jit(sketch.encode)(key, jnp.eye(d))).T


def rows(n=3, d=D, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d))


@pytest.mark.parametrize("d", [D, 20])
@every_sketch
def test_the_mean_is_the_vector_and_omega_its_second_moment(name, d):
    sketch, x = SKETCHES[name], rows(1, d)[0] * np.arange(d) ** 2
    got = np.asarray(sent(sketch, jax.random.split(KEY, DRAWS), x))
    errors = np.sum((got - x) ** 2, axis=1) / np.sum(x**2)
    assert np.all(np.abs(got.mean(axis=0) - x) <= 6 * got.std(axis=0) / np.sqrt(DRAWS))
    assert abs(errors.mean() - sketch.omega(d)) <= 6 * errors.std() / np.sqrt(DRAWS)
    assert errors.std() / np.sqrt(DRAWS) < 0.05 * sketch.omega(d)
    if d == D:
        assert sketch.omega(d) == sketch.error(d) == CONSTANTS[name]
    elif name == "srht":
        assert sketch.omega(d) == 3 * 19 / 31


@pytest.mark.parametrize("d", [D, 21])
@every_sketch
def test_a_sketch_is_one_matrix_and_its_transpose(name, d):
    sketch, x, y = SKETCHES[name], rows(d=d), rows(4, S)
    r = matrix(sketch, d)
    tight = {"rtol": 0, "atol": 1e-12}
    np.testing.assert_allclose(jax.jit(sketch.encode)(KEY, x), x @ r.T, **tight)
    np.testing.assert_allclose(jax.jit(sketch.decode, static_argnums=2)(KEY, y, d), y @ r, **tight)
    np.testing.assert_allclose(jax.jit(sketch.__call__)(KEY, x), x @ r.T @ r, **tight)
    assert np.abs(matrix(sketch, d, jax.random.key(6)) - r).max() > 0.1


def test_entries_are_those_of_the_sketch():
    r = matrix(RademacherSketch(S), D)
    np.testing.assert_array_equal(np.abs(r), 1 / np.sqrt(S))
    assert abs(r.mean()) < 4 / np.sqrt(S * D)
    r = matrix(CountSketch(S), D)
    np.testing.assert_array_equal(np.sum(r != 0, axis=0), 1)
    np.testing.assert_array_equal(np.abs(r).max(axis=0), 1)
    r = matrix(SRHT(S), D)
    np.testing.assert_allclose(np.abs(r), 1 / np.sqrt(S))
    np.testing.assert_allclose(r @ r.T, D / S * np.eye(S), atol=1e-12)


def test_matrices_are_those_of_the_loops_for_what_is_drawn():
    for d in (D, 21):
        sign, kept = SRHT(S)._drawn(KEY, d, jnp.float64)
        expected = loops.srht(np.flatnonzero(kept), np.asarray(sign), d)
        np.testing.assert_allclose(matrix(SRHT(S), d), expected, rtol=0, atol=1e-15)
        bucket, sign = CountSketch(S)._hash(KEY, d, jnp.float64)
        expected = loops.count_sketch(np.asarray(bucket), np.asarray(sign), S)
        np.testing.assert_array_equal(matrix(CountSketch(S), d), expected)


@pytest.mark.parametrize("d", [32, 21, 1])
def test_srht_of_full_size_loses_nothing(d):
    sketch, x = SRHT(32 if d > 1 else 1), rows(d=d)
    np.testing.assert_allclose(sketch(KEY, jnp.asarray(x)), x, rtol=0, atol=1e-14)
    assert sketch.omega(d) == 0


def test_the_size_of_srht_need_not_be_a_power_of_two():
    r = matrix(SRHT(13), 20)
    assert r.shape == (13, 20)
    np.testing.assert_allclose(np.abs(r), 1 / np.sqrt(13))


@pytest.mark.parametrize("d", [1, 2, 16, 128])
def test_the_transform_is_that_of_the_matrix(d):
    x = rows(d=d)
    got = sketches.hadamard(jnp.asarray(x))
    np.testing.assert_allclose(got, x @ hadamard(d), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["gaussian", "rademacher"])
def test_matrices_are_drawn_in_blocks_of_columns(name, monkeypatch):
    monkeypatch.setattr(sketches, "MOST", 5 * S)
    sketch, x = SKETCHES[name], rows(d=23)
    r = matrix(sketch, 23)
    assert len(np.unique(r, axis=1).T) > 15
    np.testing.assert_allclose(sketch(KEY, jnp.asarray(x)), x @ r.T @ r, rtol=0, atol=1e-12)


@every_sketch
def test_sketches_are_of_the_dtype_of_what_they_stand_for(name):
    """And are computed in single precision at least."""

    @jax.jit
    def ways(x):
        y = SKETCHES[name].encode(KEY, x)
        return y, SKETCHES[name].decode(KEY, y, D), SKETCHES[name](KEY, x)

    x = jnp.asarray(rows(), jnp.bfloat16)
    half, single = ways(x), ways(x.astype(jnp.float32))
    assert [part.shape for part in half] == [(3, S), (3, D), (3, D)]
    for part, wide in zip(half, single, strict=True):
        assert (part.dtype, wide.dtype) == (jnp.bfloat16, jnp.float32)
    for i in (0, 2):
        np.testing.assert_array_equal(half[i], single[i].astype(jnp.bfloat16))


@every_sketch
def test_sketches_are_transformed(name):
    """Under vmap over keys and rows, and differentiated: the Jacobian is R."""
    sketch, x = SKETCHES[name], jnp.asarray(rows(2))
    keys = jax.random.split(KEY, 2)
    one = jax.jit(lambda key, row: sketch.encode(key, row[None])[0])
    for key, row, got in zip(keys, x, jax.vmap(one)(keys, x), strict=True):
        np.testing.assert_allclose(got, one(key, row), rtol=1e-12, atol=1e-13)
    slope = jax.jit(jax.jacobian(one, argnums=1))(KEY, x[0])
    np.testing.assert_allclose(slope, matrix(sketch, D), rtol=1e-12, atol=1e-13)
