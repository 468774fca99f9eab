"""Trajectories against NumPy loops over agents and neighbors, written from the equations."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import ROWS
from reference import losses

import jaxdopt as jd

STEPS = 40
D = 4
GRAPHS = {
    "ring": jd.graphs.ring(8),
    "erdos_renyi": jd.graphs.erdos_renyi(8, 0.4, seed=1),
    "torus": jd.graphs.torus(3, 3),
}
STEPSIZES = {
    "constant": (0.2, lambda k: 0.2),
    "schedule": (jd.schedules.InverseTime(2.0, offset=8.0), lambda k: 2.0 / (k + 8.0)),
}
L2 = 0.05


@functools.cache
def data(n):
    """Uneven, heterogeneous, noisy: agent i's features are shifted and scaled by its number."""
    random = np.random.default_rng(n)
    features = [(1 + i / n) * random.standard_normal((5 + i % 4, D)) + i / 4 for i in range(n)]
    labels = [np.where(f.sum(axis=1) + 3 * random.standard_normal(len(f)) > i, 1.0, -1.0)
              for i, f in enumerate(features)]  # fmt: skip
    return features, labels


@functools.cache
def problem(n):
    return jd.problems.logistic_regression(*data(n), l2=L2)


def loops(row, graph, stepsize, gradient, **numbers):
    matrix = np.asarray(jd.networks.metropolis(graph).matrix())
    n = len(matrix)
    return row.reference(gradient, matrix, start(n), stepsize, STEPS, **numbers)


def start(n):
    return np.random.default_rng(11).standard_normal((n, D))


def trajectory(method, problem, network, key):
    """All iterates of `run`, recorded by a metric."""
    result = jd.run(
        method, problem, network, start(problem.n), key, steps=STEPS, metrics={"x": estimates}
    )
    return result.history["x"]


def estimates(state, problem):
    return state.x


PLAIN = [row for row in ROWS if not row.samples]
SAMPLING = [row for row in ROWS if row.samples]


@pytest.mark.parametrize(
    ("graph", "schedule"),
    [("ring", "schedule"), ("erdos_renyi", "constant"), ("torus", "schedule")],
)
@pytest.mark.parametrize("row", PLAIN, ids=lambda row: row.name)
def test_full_gradients(row, graph, schedule):
    ours, theirs = STEPSIZES[schedule]
    network = jd.networks.metropolis(GRAPHS[graph])
    features, labels = data(network.n)

    def gradient(i, x, k):
        return losses.logistic_gradient(x, features[i], labels[i], L2)

    expected = loops(row, GRAPHS[graph], theirs, gradient)
    got = trajectory(row.method(ours), problem(network.n), network, jax.random.key(0))
    np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("row", PLAIN, ids=lambda row: row.name)
def test_minibatches_and_per_agent_stepsizes(row):
    graph = GRAPHS["erdos_renyi"]
    form = "Dense" if row.name < "G" else "Neighbors"
    network = jd.networks.mixing(
        jd.networks.metropolis(graph).matrix(), form=getattr(jd.networks, form)
    )
    n = network.n
    features, labels = data(n)
    noisy = jd.problems.Minibatch(problem(n), 2)
    key = jax.random.key(3)
    drawn = [np.asarray(noisy.indices(jax.random.fold_in(key, k))) for k in range(STEPS)]
    steps = np.linspace(0.05, 0.3, n)

    def gradient(i, x, k):
        chosen = drawn[k][i]
        return losses.logistic_gradient(x, features[i][chosen], labels[i][chosen], L2)

    expected = loops(row, graph, lambda k: steps, gradient)
    got = trajectory(row.method(jnp.asarray(steps)[:, None]), noisy, network, key)
    np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("batch", "schedule"), [(1, "schedule"), (3, "constant")])
@pytest.mark.parametrize("row", SAMPLING, ids=lambda row: row.name)
def test_methods_that_draw_their_samples(row, batch, schedule):
    """Uneven agents, 5 to 8 samples: the loops are given the samples that the keys draw."""
    ours, theirs = STEPSIZES[schedule]
    graph = GRAPHS["erdos_renyi"]
    network = jd.networks.metropolis(graph)
    whole, key = problem(network.n), jax.random.key(5)
    features, labels = data(network.n)
    keys = [jax.random.fold_in(key, k) for k in range(STEPS)]
    drawn = [np.asarray(whole.draw(k, batch)) for k in keys]
    assert len({len(set(row)) for samples in drawn for row in samples.tolist()}) == batch  # repeats
    sizes = [len(f) for f in features]
    epoch = max(sizes) // batch

    def component(i, j, x):
        return losses.logistic_gradient(x, features[i][[j]], labels[i][[j]], L2)

    def permutation(e):
        """An agent's epoch: its order, begun again until the largest agent's epoch ends."""
        order = np.asarray(whole.permutation(keys[e * epoch]))
        for own, m in zip(order, sizes, strict=True):
            assert sorted(own[:m]) == list(range(m))
        return np.stack([np.resize(own[:m], 8) for own, m in zip(order, sizes, strict=True)])

    method, numbers = row.method(ours), {"drawn": drawn.__getitem__}
    if row.method is jd.GTSAGA:
        numbers |= {"sizes": sizes}
    elif row.method is jd.GTVR:
        method = row.method(ours, period=7)
        numbers |= {"sizes": sizes, "period": 7}
    elif row.method is jd.CentralizedRR:
        numbers = {"permutation": permutation, "epoch_length": epoch, "batch": batch}
    expected = loops(row, graph, theirs, component, **numbers)
    sampled = whole if batch == 1 else jd.problems.Minibatch(whole, batch)
    got = trajectory(method, sampled, network, key)
    np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-10)


def test_the_mean_of_the_saga_table_is_kept():
    network, whole = jd.networks.metropolis(GRAPHS["erdos_renyi"]), problem(8)
    sampled = jd.problems.Minibatch(whole, 3)
    run = jd.run(jd.GTSAGA(0.2), sampled, network, start(8), jax.random.key(1), steps=400)
    sums = [run.state.table[i, : len(f)].mean(axis=0) for i, f in enumerate(data(8)[0])]
    np.testing.assert_allclose(run.state.mean, sums, atol=1e-13)
    assert np.all(run.state.table[4, 5:] == 0)  # agent 4 has five samples; padding is not drawn


@pytest.mark.parametrize("sampling", ["once", "cyclic"])
def test_one_order_for_all_epochs(sampling):
    row = next(row for row in ROWS if row.method is jd.CentralizedRR)
    network, whole, key = jd.networks.metropolis(GRAPHS["ring"]), problem(8), jax.random.key(5)
    features, labels = data(8)
    order = (
        np.asarray(whole.permutation(key)) if sampling == "once" else np.tile(np.arange(8), (8, 1))
    )
    order = np.stack([np.resize(own[: len(f)], 8) for own, f in zip(order, features, strict=True)])

    def component(i, j, x):
        return losses.logistic_gradient(x, features[i][[j]], labels[i][[j]], L2)

    numbers = {"permutation": lambda e: order, "epoch_length": 8}
    expected = loops(row, GRAPHS["ring"], lambda k: 0.2, component, **numbers)
    got = trajectory(jd.CentralizedRR(0.2, sampling=sampling), whole, network, key)
    np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("method", [jd.NIDS, jd.PGEXTRA])
def test_composite_methods(method):
    """With l1, and an own stepsize for every agent where the method allows it."""
    row = next(row for row in ROWS if row.method is method)
    graph = GRAPHS["erdos_renyi"]
    network = jd.networks.metropolis(graph)
    features, labels = data(8)
    lasso = jd.problems.Composite(problem(8), jd.problems.prox.L1(0.3))
    steps = np.linspace(0.05, 0.3, 8)

    def gradient(i, x, k):
        return losses.logistic_gradient(x, features[i], labels[i], L2)

    def prox(z, t):
        return np.sign(z) * np.maximum(np.abs(z) - 0.3 * t, 0)

    expected = loops(row, graph, lambda k: steps, gradient, prox=prox)
    got = trajectory(method(jnp.asarray(steps)[:, None]), lasso, network, jax.random.key(0))
    np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-10)
    assert np.any(got[-1] == 0)


@pytest.mark.parametrize("penalty", [0.1, 10.0])
def test_linearized_admm_with_other_penalties(penalty):
    row = next(row for row in ROWS if row.method is jd.LinearizedADMM)
    graph = GRAPHS["erdos_renyi"]
    network = jd.networks.metropolis(graph)
    features, labels = data(8)

    def gradient(i, x, k):
        return losses.logistic_gradient(x, features[i], labels[i], L2)

    expected = loops(row, graph, lambda k: 0.2, gradient, penalty=penalty)
    method = jd.LinearizedADMM(0.2, penalty=penalty)
    got = trajectory(method, problem(8), network, jax.random.key(0))
    np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("theta", [0.3, 1.0])
def test_exact_diffusion_on_other_matrices(theta):
    row = next(row for row in ROWS if row.method is jd.ExactDiffusion)
    graph = GRAPHS["erdos_renyi"]
    network = jd.networks.metropolis(graph)
    features, labels = data(network.n)

    def gradient(i, x, k):
        return losses.logistic_gradient(x, features[i], labels[i], L2)

    expected = loops(row, graph, lambda k: 0.2, gradient, theta=theta)
    method = jd.ExactDiffusion(0.2, relaxation=theta)
    got = trajectory(method, problem(network.n), network, jax.random.key(0))
    np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-10)


def test_a_transposed_matrix_would_be_noticed():
    """On a directed ring W and its transpose differ, and the loops tell them apart."""
    row = next(row for row in ROWS if row.method is jd.GradientTracking)
    graph = jd.graphs.directed_ring(5)
    network = jd.networks.metropolis(graph)
    features, labels = data(5)

    def gradient(i, x, k):
        return losses.logistic_gradient(x, features[i], labels[i], L2)

    got = trajectory(row.method(0.2), problem(5), network, jax.random.key(0))
    matrix = np.zeros((5, 5))
    for i in range(5):
        matrix[i, i] = matrix[i, (i - 1) % 5] = 0.5  # agent i hears agent i - 1
    expected = row.reference(gradient, matrix, start(5), lambda k: 0.2, STEPS)
    np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-10)
    wrong = row.reference(gradient, matrix.T, start(5), lambda k: 0.2, STEPS)
    assert np.abs(got - wrong).max() > 1e-2
