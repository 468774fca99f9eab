"""FZooS: its loop, its surrogates, and what a round costs."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import black_boxes, surrogates

import jaxdopt as jd
from jaxdopt._pytree import replace
from jaxdopt.algorithms.black_boxes import surrogate
from jaxdopt.algorithms.federated.clients import participants

N, D, STEPS = 3, 2, 4
KEY = jax.random.key(6)
SERVER = jd.networks.Server(N)
SIZES: dict[str, Any] = {
    "memory": 13,
    "active": 2,
    "candidates": 6,
    "initial": 4,
    "refit": 3,
    "features": 20,
}
# a larger jitter than the default, for the condition of the systems is 1 / jitter
METHOD = jd.FZooS(0.3, local_steps=2, lengthscale=1.5, radius=0.4, jitter=1e-3, **SIZES)


def bowl(x, center, key):
    """Different at all agents, and with noise, the same for what is asked at once."""
    return jnp.sum((x - center) ** 2 * jnp.array([1.0, 0.3])) + 0.05 * jax.random.normal(key)


@functools.cache
def problem():
    centers = np.random.default_rng(0).standard_normal((N, D))
    return jd.problems.BlackBox(bowl, jnp.asarray(centers), jnp.ones(D))


@functools.cache
def result():
    metrics = {"server": lambda state, _: state.server}
    return jd.run(METHOD, problem(), SERVER, problem().start(), KEY, steps=STEPS, metrics=metrics)


@functools.cache
def noise(k, local):
    keys = jax.random.split(jax.random.fold_in(jax.random.fold_in(KEY, k), local), N)
    return 0.05 * np.asarray(jax.vmap(jax.random.normal)(keys))


def test_it_is_its_loop():
    """With a ring that is full after a round, noise, and queries of all kinds."""
    centers, state = np.asarray(problem().data), result().state

    def value(i, x, k, local):
        return np.sum((x - centers[i]) ** 2 * np.array([1.0, 0.3])) + noise(k, local)[i]

    def offsets(k, local, count):
        key = jax.random.fold_in(jax.random.fold_in(KEY, k), local)
        return np.asarray(METHOD.offsets(key, count, jnp.zeros((N, D))))

    sizes = {name: size for name, size in SIZES.items() if name != "features"}
    x, counts = surrogates.fzoos(
        value, N, np.ones(D), lambda k: 0.3, STEPS, offsets=offsets,
        frequencies=state.frequencies, phases=state.phases, local_steps=2, lengthscale=1.5,
        radius=0.4, jitter=1e-3, **sizes,
    )  # fmt: skip
    np.testing.assert_allclose(result().history["server"], x, rtol=1e-8, atol=1e-8)
    asked = np.cumsum(counts.mean(axis=1))
    assert result().history["queries"].tolist() == [0, *asked]
    assert np.linalg.norm(x[-1] - centers.mean(axis=0)) < 0.5 * np.linalg.norm(x[0] - x[-1])


def test_what_is_sent():
    history = result().history
    for way in ("bits", "bits_up", "bits_down"):
        assert history[way][-1] == STEPS * 32 * (D + SIZES["features"])
    assert history["rounds"][-1] == STEPS
    alone = replace(METHOD, corrected=False)
    cost = jd.costs.cost_of(alone, result().state, problem(), SERVER)
    assert cost.bits == 32 * D


def known(m, d=D, seed=1):
    random = np.random.default_rng(seed)
    points = random.standard_normal((m, d))
    return points, np.sin(points).sum(axis=1) + 5


def test_the_process_is_the_loops():
    """Of the queries that are there; and the gradient is that of the posterior mean."""
    points, values = known(7)
    present = jnp.asarray([True, False, True, True, False, True, True])
    here = np.flatnonzero(present)
    made = surrogate.fit(jnp.asarray(points), jnp.asarray(values), present, 0.8, 1e-4)
    loop = black_boxes.GaussianProcess(points[here], values[here], 0.8, 1e-4)
    y = np.array([[0.3, -0.2], [1.0, 0.0]])
    expected = [loop.uncertainty(one) for one in y]
    np.testing.assert_allclose(made.uncertainty(jnp.asarray(y)), expected, rtol=1e-9)
    for one in y:
        gradient = made.gradient(jnp.asarray(one))
        np.testing.assert_allclose(gradient, loop.gradient(one), rtol=1e-9)
        slopes = [(loop.mean(one + e) - loop.mean(one - e)) / 2e-5 for e in 1e-5 * np.eye(D)]
        np.testing.assert_allclose(gradient, slopes, rtol=1e-6)


def test_features_are_the_loops_and_their_mean_weights_have_the_mean_slope():
    frequencies, phases = surrogate.draw(KEY, 50, jnp.zeros(D))
    features = surrogate.Features(frequencies, phases, 0.8)
    loop = black_boxes.Features(frequencies, phases, 0.8)
    y, all_there = jnp.asarray([0.3, -0.2]), jnp.ones(6, bool)
    weights = []
    for seed in range(3):
        points, values = known(6, seed=seed)
        weights.append(features.weights(jnp.asarray(points), jnp.asarray(values), all_there, 1e-4))
        low, high = values.min(), values.max()
        expected = (high - low) * loop.weights(points, (values - low) / (high - low), 1e-4)
        np.testing.assert_allclose(weights[-1], expected, rtol=1e-8, atol=1e-10)
        fitted = features(jnp.asarray(points)) @ weights[-1]
        np.testing.assert_allclose(fitted, values - low, atol=2e-2)
    w = jnp.stack(weights)
    slopes = jax.vmap(features.gradient, (None, 0))(y, w)
    np.testing.assert_allclose(slopes[0], loop.gradient(np.asarray(y), weights[0]), rtol=1e-9)
    np.testing.assert_allclose(features.gradient(y, w.mean(0)), slopes.mean(0), rtol=1e-12)
    np.testing.assert_allclose(jax.grad(lambda z: features(z) @ w[0])(y), slopes[0], rtol=1e-10)


@pytest.mark.slow
def test_features_are_the_kernel_on_average():
    frequencies, phases = surrogate.draw(KEY, 40_000, jnp.zeros(D))
    points = jnp.asarray(known(4)[0])
    phi = surrogate.Features(frequencies, phases, 0.7)(points)
    kernel = np.exp(-np.sum((points[:, None] - points) ** 2, axis=-1) / (2 * 0.7**2))
    np.testing.assert_allclose(phi @ phi.T, kernel, atol=4 / np.sqrt(40_000))


@pytest.mark.slow
def test_nothing_is_corrected_where_clients_know_the_same():
    """One step on with the same queries and weights at all, and with their own."""
    state = result().state
    same = {name: jnp.broadcast_to(getattr(state, name)[:1], getattr(state, name).shape)
            for name in ("points", "values", "weights")}  # fmt: skip
    now = SERVER.at(STEPS, KEY)

    @functools.partial(jax.jit, static_argnums=0)
    def server(corrected, state):
        method = replace(METHOD, corrected=corrected)
        return method.step(state, problem(), now, KEY).server

    moved = [[server(corrected, at) for corrected in (True, False)]
             for at in (replace(state, **same), state)]  # fmt: skip
    np.testing.assert_allclose(*moved[0], rtol=1e-12)
    assert np.abs(np.subtract(*moved[1])).max() > 1e-3


@pytest.mark.slow
def test_values_that_are_equal_or_too_precise_for_float32():
    """A flat function has no slope; queries that nearly agree leave the system solvable."""
    points = jnp.asarray(1e-2 * np.random.default_rng(0).standard_normal((60, D)), jnp.float32)
    there = jnp.ones(60, bool)
    flat = surrogate.fit(points, jnp.full(60, 2.0, jnp.float32), there, 1.0, 1e-6)
    assert np.array_equal(flat.gradient(points[0]), np.zeros(D))
    steep = surrogate.fit(points, points.sum(axis=1), there, 1.0, 1e-6)
    assert steep.factor.dtype == jnp.float32
    np.testing.assert_allclose(steep.gradient(points[0]), 1, rtol=0.05)


@pytest.mark.slow
def test_clients_know_their_own_values():
    features = [np.random.default_rng(i).standard_normal((3 + i, D)) for i in range(N)]
    labels = [np.ones(3 + i) for i in range(N)]
    uneven = jd.problems.least_squares(features, labels, weights="samples")
    clients = participants(uneven, SERVER)
    x = jnp.ones((N, D))
    expected = [np.mean((f.sum(axis=1) - 1) ** 2) / 2 for f in features]
    np.testing.assert_allclose(clients.value(x, KEY), expected, rtol=1e-12)
    rows = clients.value(jnp.stack([x, x], axis=1), KEY)
    np.testing.assert_allclose(rows, np.stack([expected, expected], axis=1), rtol=1e-12)


def test_what_cannot_be_chosen_or_remembered_is_refused():
    for size, said in ({"candidates": 2}, "3 are asked"), ({"memory": 3}, "4 queries are asked"):
        ((name, value),) = size.items()
        with pytest.raises(ValueError, match=f"{name} is {value} and {said}.*; give"):
            jd.run(replace(METHOD, **size), problem(), SERVER, problem().start(), KEY, steps=1)
    some = jd.networks.participation.uniform(N, 2)
    with pytest.raises(ValueError, match="FZooS needs all agents in every round"):
        jd.run(METHOD, problem(), some, problem().start(), KEY, steps=1)
