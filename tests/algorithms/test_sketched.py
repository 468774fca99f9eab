"""Sketched SGD: clipped and noisy local steps, reductions, its stepsize, its solution, its bits."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import losses, sketches

import jaxdopt as jd
from jaxdopt.algorithms.federated.sketched_sgd import sketch_key
from jaxdopt.compressors import SRHT, CountSketch, GaussianSketch, RademacherSketch
from jaxdopt.networks import participation

N, D, STEPS = 6, 8, 25
KEY = jax.random.key(2)
SKETCHES: dict[str, Any] = {
    "gaussian": GaussianSketch(3),
    "rademacher": RademacherSketch(3),
    "count": CountSketch(3),
    "srht": SRHT(3),
}
MASKS = np.random.default_rng(4).random((STEPS, N)) < 0.5
MASKS[[3, 9]] = False  # nobody is there
NETWORKS = {
    "masks": participation.Trace(jnp.asarray(MASKS), N),
    "few": participation.uniform(N, 2),  # whose rows are gathered
}


def quickest(name):
    """One sketch, and the others if slow."""
    return [pytest.param(n, marks=() if n == name else pytest.mark.slow) for n in SKETCHES]


def data():
    """Uneven and heterogeneous."""
    random = np.random.default_rng(0)
    features = [random.standard_normal((4 + i, D)) + i / 4 for i in range(N)]
    return features, [np.sign(f.sum(axis=1) + random.standard_normal(len(f))) for f in features]


def start(d=D):
    return jnp.tile(np.random.default_rng(1).standard_normal(d), (N, 1))


def servers(method, problem, network, steps=STEPS, **options):
    """The server's model after every round, [steps + 1, d]."""
    recorded = {"metrics": {"x": lambda state, _: state.server}, "defaults": ()}
    return jd.run(method, problem, network, start(), KEY, steps=steps, **recorded | options)


@pytest.mark.parametrize(
    ("name", "network"),
    [("count", "masks"), pytest.param("srht", "few", marks=pytest.mark.slow)],
)
def test_clipped_noisy_local_steps_of_clients_of_different_weights(name, network):
    """Against the loop, which is given matrices and noise by client, round and local step."""
    features, labels = data()
    problem = jd.problems.logistic_regression(features, labels, l2=0.1, weights="samples")
    sizes = np.array([len(f) for f in features])
    stepsize = np.linspace(0.1, 0.6, N)
    numbers: dict[str, Any] = {"local_steps": 2, "server_stepsize": 0.8, "clip": 0.4}
    method = jd.SketchedSGD(stepsize[:, None], SKETCHES[name], noise=0.3, **numbers)

    @jax.jit
    def drawn(k):
        key = jax.random.fold_in(KEY, k)
        r = method.sketch.encode(sketch_key(key), jnp.eye(D)).T
        keys = jax.vmap(lambda local: jax.random.fold_in(key, local))(jnp.arange(2))
        like = jnp.zeros((N, D))
        return r, 0.3 * jax.vmap(lambda key: method.noises(key, jnp.arange(N), like))(keys)

    matrices, noise = map(np.asarray, jax.vmap(drawn)(jnp.arange(STEPS)))
    there = np.asarray(participation.active(NETWORKS[network], STEPS, KEY))
    expected = sketches.sketched_sgd(
        lambda i, x, k, local: losses.logistic_gradient(x, features[i], labels[i], 0.1),
        there,
        np.asarray(start()[0]),
        lambda k: stepsize,
        STEPS,
        sketch=lambda k: matrices[k],
        noise=lambda i, k, local: noise[k, local, i],
        p=sizes / sizes.sum(),
        **numbers,
    )
    got = servers(method, problem, NETWORKS[network]).history
    np.testing.assert_allclose(got["x"], expected, rtol=1e-10, atol=1e-10)
    sent = 32 * 3 * there.mean(axis=1).cumsum()
    for axis in ("bits", "bits_up", "bits_down"):
        np.testing.assert_allclose(got[axis][1:], sent, rtol=1e-6)


@pytest.mark.parametrize("network", [pytest.param("masks", marks=pytest.mark.slow), "few"])
def test_with_an_orthogonal_matrix_it_is_fed_avg(network):
    problem = jd.problems.logistic_regression(*data(), l2=0.1)
    numbers = {"local_steps": 3, "server_stepsize": 0.7}
    sketched = servers(jd.SketchedSGD(0.3, SRHT(D), **numbers), problem, NETWORKS[network])
    plain = servers(jd.FedAvg(0.3, **numbers), problem, NETWORKS[network])
    np.testing.assert_allclose(sketched.history["x"], plain.history["x"], rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", quickest("srht"))
def test_one_local_step_reaches_the_solution_by_the_law_of_its_stepsize(name):
    """With K = 1 and full gradients of different clients, η = 1 / ((1 + ω) L)."""
    sketch = SKETCHES[name]
    problem = jd.problems.quadratic(N, D, condition_number=4, heterogeneity=1.0)
    method = jd.SketchedSGD(1 / ((1 + sketch.omega(D)) * problem.smoothness), sketch)
    run = servers(method, problem, jd.networks.Server(N), 1500, every=1500)
    away = np.sum((run.history["x"] - problem.solution) ** 2, axis=1)
    assert away[-1] < 1e-24 * away[0]


@pytest.mark.parametrize("name", quickest("gaussian"))
def test_the_best_stepsize_is_one_over_one_plus_omega(name):
    """Of |x − b|² / 2 a step is worth 1 − 2η + (1 + ω) η²: at best ω / (1 + ω)."""
    sketch = SKETCHES[name]
    problem = jd.problems.quadratic(N, D, condition_number=1.0, curvature_spread=0.0)
    x0, network, eta = start(), jd.networks.Server(N), 1 / (1 + sketch.omega(D))
    away = np.sum((x0[0] - problem.solution) ** 2)

    @jax.jit
    @jax.vmap
    def after(key):
        method = jd.SketchedSGD(eta / problem.smoothness, sketch)
        state = method.init(x0, problem, network, key)
        x = method.step(state, problem, network, key).server
        return jnp.sum((x - problem.solution) ** 2) / away

    found = np.asarray(after(jax.random.split(KEY, 4000)))
    assert abs(found.mean() - (1 - eta)) <= 6 * found.std() / np.sqrt(len(found))


def test_noise_is_that_of_every_client_and_local_step():
    """Without gradients the server moves by the mean of n K independent draws."""
    problem = jd.problems.Oracle(lambda x, _, key: 0 * x, None, jnp.zeros(D), agents=N)
    network, x0 = jd.networks.Server(N), start()

    @jax.jit
    @jax.vmap
    def move(key):
        method = jd.SketchedSGD(0.5, SRHT(D), local_steps=4, noise=3.0)
        state = method.init(x0, problem, network, key)
        return method.step(state, problem, network, key).server - x0[0]

    found = np.asarray(move(jax.random.split(KEY, 2000)))
    np.testing.assert_allclose(found.var(), 0.5**2 * 3.0**2 * 4 / N, rtol=0.05)
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=0.15)


def test_a_robust_server_takes_the_rule_of_sketches():
    """All send the same sketch but for a liar, whom the median leaves out."""
    problem = jd.problems.quadratic(N, D, condition_number=3, heterogeneity=0.0)
    network = jd.networks.robust(
        jd.networks.Server(N),
        rule=jd.aggregators.Median(),
        attack=jd.attacks.SignFlip(10.0),
        liars=1,
    )
    method = jd.SketchedSGD(0.3 / problem.smoothness, SKETCHES["count"])
    x = servers(method, problem, network, 400, every=400).history["x"]
    assert np.sum((x[-1] - problem.solution) ** 2) < 1e-12


@pytest.mark.parametrize("given", [jd.compressors.TopK(3), CountSketch, 3])
def test_what_is_no_sketch_is_refused(given):
    with pytest.raises(ValueError, match=r"sketch is .*; give one of jd\.compressors, such as"):
        jd.SketchedSGD(0.1, given)


def test_sketches_of_more_than_the_padded_vector_are_refused():
    problem = jd.problems.quadratic(N, D)
    with pytest.raises(ValueError, match="size is 9 and a vector of 8 is padded to 8; give no"):
        servers(jd.SketchedSGD(0.1, SRHT(9)), problem, jd.networks.Server(N))
