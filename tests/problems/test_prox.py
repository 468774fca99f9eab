"""Proximal maps against brute force, and what theory says about them."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdopt.problems import prox
from jaxdopt.problems.prox import L1, MCP, Ball, Box, ElasticNet, GroupL1

D = 6
CENTER = np.array([0.5, -1.0, 0.0, 2.0, 0.0, 0.3])
LOW, HIGH = np.full(D, -0.5), np.array([0.0, 0.5, 1.0, math.inf, 0.2, 0.3])


def mcp(u, weight, theta):
    inside = weight * np.abs(u) - u**2 / (2 * theta)
    return np.where(np.abs(u) <= theta * weight, inside, theta * weight**2 / 2).sum(axis=-1)


def indicator(inside):
    return np.where(inside, 0.0, np.inf)


# Every regularizer with its value at rows u [..., d], in NumPy.
CASES: dict[str, Any] = {
    "L1": (L1(0.7), lambda u: 0.7 * np.abs(u).sum(axis=-1)),
    "ElasticNet": (
        ElasticNet(0.4, 1.5),
        lambda u: 0.4 * np.abs(u).sum(axis=-1) + 0.75 * (u**2).sum(axis=-1),
    ),
    "GroupL1": (
        GroupL1(0.9, 3),
        lambda u: 0.9 * (np.linalg.norm(u[..., :3], axis=-1) + np.linalg.norm(u[..., 3:], axis=-1)),
    ),
    "MCP": (MCP(0.6, 2.5), functools.partial(mcp, weight=0.6, theta=2.5)),
    "Box": (Box(-0.3, 1.2), lambda u: indicator(((u >= -0.3) & (u <= 1.2)).all(axis=-1))),
    "Box of vectors": (Box(LOW, HIGH), lambda u: indicator(((u >= LOW) & (u <= HIGH)).all(-1))),
    "Ball": (Ball(1.5), lambda u: indicator(np.linalg.norm(u, axis=-1) <= 1.5 * (1 + 1e-12))),
    "Ball off 0": (
        Ball(0.8, CENTER),
        lambda u: indicator(np.linalg.norm(u - CENTER, axis=-1) <= 0.8 * (1 + 1e-12)),
    ),
}
SEPARABLE = ["L1", "ElasticNet", "MCP", "Box"]
CONVEX = [name for name, (regularizer, _) in CASES.items() if regularizer.convex]
POINTS = np.concatenate(
    [np.random.default_rng(0).standard_normal((12, D)) * 2, np.zeros((1, D)), CENTER[None]]
)


@jax.jit
def apply(regularizer, z, t):
    return regularizer.prox(z, t)


@functools.cache
def compiled(name):
    return jax.jit(CASES[name][0].prox)


@pytest.mark.parametrize("name", CASES)
def test_values(name):
    regularizer, value = CASES[name]
    points = np.concatenate([POINTS, compiled(name)(POINTS, 0.5)])
    np.testing.assert_allclose(jax.jit(jax.vmap(regularizer))(points), value(points), rtol=1e-12)


def test_groups_are_not_scaled():
    assert GroupL1(1, 4)(jnp.array([3.0, 4.0, 0.0, 0.0])) == 5


@pytest.mark.parametrize("t", [0.3, 2.0])
@pytest.mark.parametrize("name", SEPARABLE)
def test_the_separable_ones_against_grids(name, t):
    regularizer, value = CASES[name]
    for z in np.linspace(-4, 4, 33):
        best, width = 0.0, 5.0
        for _ in range(3):
            u = best + np.linspace(-width, width, 4001)
            best = u[np.argmin(value(u[:, None]) + (u - z) ** 2 / (2 * t))]
            width /= 1000
        got = apply(regularizer, np.array([z]), t)[0]
        np.testing.assert_allclose(got, best, atol=1e-7)


@pytest.mark.parametrize("t", [0.2, 1.4])
@pytest.mark.parametrize("name", CASES)
def test_no_other_point_is_better(name, t):
    _, value = CASES[name]
    random = np.random.default_rng(1)
    for z in POINTS:
        u = np.asarray(compiled(name)(z, t))
        away = random.standard_normal((2000, D)) * 10 ** random.uniform(-6, 1, (2000, 1))
        away *= random.random((2000, D)) < random.random((2000, 1))  # some in few coordinates
        others = np.concatenate([u + away, u + away * (u != 0), z[None], np.zeros((1, D))])
        least = value(u) + ((u - z) ** 2).sum() / (2 * t)
        assert np.all(value(others) + ((others - z) ** 2).sum(axis=-1) / (2 * t) >= least - 1e-12)


@pytest.mark.parametrize("t", [0.4, 1.0])
def test_optimality_of_the_groups(t):
    for z in POINTS:
        u = np.asarray(compiled("GroupL1")(z, t)).reshape(2, 3)
        for group, pull in zip(u, (z.reshape(2, 3) - u) / t, strict=True):
            if group.any():
                np.testing.assert_allclose(pull, 0.9 * group / np.linalg.norm(group), rtol=1e-12)
            else:
                assert np.linalg.norm(pull) <= 0.9


VECTORS = st.lists(st.floats(-5, 5), min_size=D, max_size=D).map(np.array)


@pytest.mark.parametrize("name", CONVEX)
@settings(max_examples=50, deadline=None, derandomize=True)
@given(x=VECTORS, y=VECTORS, t=st.floats(0.01, 10))
def test_convex_ones_are_firmly_nonexpansive(name, x, y, t):
    p, q = np.asarray(compiled(name)(x, t)), np.asarray(compiled(name)(y, t))
    assert (p - q) @ (p - q) <= (p - q) @ (x - y) + 1e-12


@settings(max_examples=50, deadline=None, derandomize=True)
@given(x=VECTORS, y=VECTORS, t=st.floats(0.01, 2))
def test_the_mcp_stretches_as_its_weak_convexity_allows(x, y, t):
    regularizer = CASES["MCP"][0]
    p, q = np.asarray(compiled("MCP")(x, t)), np.asarray(compiled("MCP")(y, t))
    most = np.linalg.norm(x - y) / (1 - t * regularizer.weak_convexity)
    assert np.linalg.norm(p - q) <= most + 1e-12


@pytest.mark.parametrize("name", CASES)
def test_rows_are_problems_of_their_own(name):
    steps = np.linspace(0.1, 2, len(POINTS))[:, None]
    each = [compiled(name)(z, t) for z, t in zip(POINTS, steps[:, 0], strict=True)]
    np.testing.assert_allclose(compiled(name)(POINTS, steps), each, rtol=1e-13, atol=1e-15)
    deep = compiled(name)(np.stack([POINTS, POINTS]), 1.1)
    np.testing.assert_allclose(deep[1], compiled(name)(POINTS, 1.1), rtol=1e-13, atol=1e-15)


def test_exactly_zero_within_the_threshold():
    z = jnp.array([0.3, -0.3, 0.29999, 1e-100, 0.0, -0.31])
    for regularizer in (L1(0.6), ElasticNet(0.6, 2.0), MCP(0.6, 3.0), GroupL1(0.6, 1)):
        assert (np.asarray(apply(regularizer, z, 0.5)) != 0).tolist() == [False] * 5 + [True]
    groups = apply(GroupL1(1.0, 3), jnp.array([0.5, -0.5, 0.5, 0.6, -0.6, 0.6]), 1.0)
    assert (np.asarray(groups) != 0).tolist() == [False] * 3 + [True] * 3
    np.testing.assert_array_equal(apply(GroupL1(0.0, 1), z, 0.5), z)


def test_weights_are_traced_and_swept():
    weights = jnp.array([0.1, 0.5, 2.0])
    z = jnp.asarray(POINTS)
    swept = jax.jit(jax.vmap(L1.prox, (0, None, None)))(jax.vmap(L1)(weights), z, 0.5)
    for w, got in zip(weights, swept, strict=True):
        np.testing.assert_allclose(got, apply(L1(w), z, 0.5), rtol=1e-13)
    radii = jax.vmap(Ball)(weights)
    swept = jax.jit(jax.vmap(Ball.__call__, (0, None)))(radii, jnp.full(D, 0.3))
    np.testing.assert_array_equal(swept, [math.inf, math.inf, 0.0])


@pytest.mark.parametrize("name", CASES)
def test_derivatives_are_those_of_differences_and_finite_at_kinks(name):
    regularizer, _ = CASES[name]

    def total(r, z, t):
        return jnp.sum(r.prox(z, t) ** 2) + r(z)

    z = np.stack([np.zeros(D), CENTER, POINTS[3]])
    slopes = jax.jit(jax.vmap(jax.grad(total, (0, 1, 2)), (None, 0, None)))(regularizer, z, 0.5)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))
    away = 1e-6 * POINTS[4]
    derivative = jax.jit(lambda z: jax.jvp(compiled(name), (z, 0.5), (away, 0.0))[1])(POINTS[3])
    change = compiled(name)(POINTS[3] + away, 0.5) - compiled(name)(POINTS[3] - away, 0.5)
    np.testing.assert_allclose(change / 2, derivative, rtol=1e-6, atol=1e-13)


def in_float32(name):
    regularizer, _ = CASES[name]
    z = jnp.asarray(POINTS, jnp.float32)
    u, rows, value = jax.jit(
        lambda z, t: (regularizer.prox(z, 0.5), regularizer.prox(z, t), regularizer(z[0]))
    )(z, np.full((len(z), 1), 0.5))
    assert u.dtype == rows.dtype == value.dtype == jnp.float32
    np.testing.assert_allclose(u, compiled(name)(POINTS, 0.5), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(u, rows, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.usefixtures("float32")
def test_float32(name):
    in_float32(name)


@pytest.mark.usefixtures("float32")
def test_points_of_numpy():
    regularizer: Any
    for regularizer in (L1(0.1), Box(-1, 1)):
        point = regularizer.prox(POINTS[0], 0.5)
        assert point.dtype == jnp.float32
        assert np.isfinite(regularizer(np.asarray(point, np.float64)))


@pytest.mark.parametrize("name", CASES)
def test_float32_rows_where_float64_is_on(name):
    in_float32(name)


@jax.jit
def projected(regularizer, z):
    """The values of projections, of their mean, of that of equal ones, and of a point outside."""
    inside = regularizer.prox(z, 1.0)
    mean, same = inside.mean(axis=0), jnp.broadcast_to(inside[0], inside.shape).mean(axis=0)
    return jax.vmap(regularizer)(inside), regularizer(mean), regularizer(same), regularizer(z[0])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_projections_count_as_inside_and_so_do_their_means(dtype):
    random = np.random.default_rng(2)
    directions = random.standard_normal((300, 500))
    for scale in (1e-3, 1.0, 1e4):
        center = random.standard_normal(500) * scale
        for regularizer in (
            Box(-scale / 3, scale / 7),
            Box(center - scale, center + scale),
            Box(0, math.inf),
            Ball(scale / 3),
            Ball(scale / 3, center),
            Ball(0.0, center),
        ):
            *inside, outside = projected(regularizer, jnp.asarray(3 * scale * directions, dtype))
            assert not any(np.any(value) for value in inside)
            assert np.isinf(outside)


def test_a_step_too_long_for_the_mcp():
    z = jnp.array([0.1, 1.0, 9.0])
    for t in (2.0, 3, np.array([[0.1], [2.0]])):
        with pytest.raises(
            ValueError, match="MCP has a prox for t < theta only, so take a shorter"
        ):
            MCP(1, 2).prox(z, t)
    assert np.isnan(apply(MCP(1, 2), z, 2.0)).tolist() == [True, True, False]


BAD: Any = [
    (lambda: L1(-1), "weight is -1; give at least 0."),
    (lambda: L1(np.ones((3, 1))), "weight has shape \\(3, 1\\); give one number."),
    (lambda: L1(lambda k: 1.0), "weight is <function .*; give a number."),
    (lambda: L1("much"), "weight is 'much'; give a number"),
    (lambda: ElasticNet(0.1, math.inf), "l2 is inf; give a finite number."),
    (lambda: GroupL1(0.1, 0), "size is 0; give an integer of at least 1."),
    (lambda: GroupL1(0.1, True), "size is True; give an integer"),
    (lambda: GroupL1(0.1, 4)(jnp.zeros(D)), "groups have 4 coordinates and x has 6; give a size"),
    (lambda: GroupL1(0.1, 4).prox(jnp.zeros((2, D)), 1.0), "groups have 4 coordinates and x has 6"),
    (lambda: MCP(0.1, 0), "theta is 0; give more than 0."),
    (lambda: Box(1, 0), "low is 1.0 and high 0.0; give low <= high."),
    (lambda: Box(LOW, LOW - 1), "give low <= high."),
    (lambda: Box(math.nan, 0), "low has NaN; give numbers."),
    (lambda: Box(0, np.ones((2, D))), "high has shape \\(2, 6\\); give a number, or one a coord"),
    (lambda: Ball(-1), "radius is -1; give at least 0."),
    (lambda: Ball(1, np.ones((2, D))), "center has shape \\(2, 6\\); give a number, or one a"),
]


@pytest.mark.parametrize("does, says", BAD)  # noqa: PT006
def test_bad_input(does, says):
    with pytest.raises(ValueError, match=says):
        does()


def test_integers_are_no_new_program():
    for built in (L1(1), ElasticNet(1, 2), GroupL1(1, 3), MCP(1, 2), Box(0, 1), Ball(1, 0)):
        assert all(isinstance(leaf, float) for leaf in jax.tree.leaves(built))


def test_every_regularizer_says_what_it_is():
    for cls in (L1, ElasticNet, GroupL1, MCP, Box, Ball):
        assert getattr(prox, cls.__name__) is cls
        assert cls.convex is (cls is not MCP)
    assert MCP(1.0, 4.0).weak_convexity == 0.25
