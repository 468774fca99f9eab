"""Composite federated methods: NumPy loops, what they converge to, and how noise averages out."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import composite as reference
from reference import federated, losses

import jaxdopt as jd
from jaxdopt.algorithms.federated.fed_nmap import State
from jaxdopt.problems import prox as kinds

N, D, Q = 5, 4, 3
STEPS = 12
KEY = jax.random.key(3)
SERVER = jd.networks.Server(N)
WEIGHT, THETA = 0.4, 1.7
REGULARIZERS = {
    "l1": kinds.L1(WEIGHT),
    "MCP": kinds.MCP(WEIGHT, THETA),
    "group": kinds.GroupL1(WEIGHT, 2),
    "box": kinds.Box(-0.2, 0.3),
}


@jd.pytree
class Table:
    """A schedule that is one program whatever it says."""

    values: Any

    def __call__(self, k):
        return self.values[k]


@jd.pytree
class OneOf:
    """All four regularizers in one program."""

    which: Any
    convex = True

    def __call__(self, x):
        return jax.lax.switch(self.which, list(REGULARIZERS.values()), x)

    def prox(self, z, t):
        branches = [lambda z, r=r: r.prox(z, jnp.asarray(t)) for r in REGULARIZERS.values()]
        return jax.lax.switch(self.which, branches, z)


@jd.pytree
class Uncorrected(jd.FedNMap):
    """FedNMap with its corrections left at zero."""

    def step(self, state, problem, network, key):
        after = super().step(state, problem, network, key)
        return jd.replace(after, d=jnp.zeros_like(after.d))


def one_of(problem, name):
    return jd.problems.Composite(problem, OneOf(jnp.asarray(list(REGULARIZERS).index(name))))


def soft(z, bound):
    return np.sign(z) * np.maximum(np.abs(z) - bound, 0)


def grouped(z, t):
    g = z.reshape(-1, 2)
    length = np.linalg.norm(g, axis=1, keepdims=True)
    return (g * np.maximum(1 - t * WEIGHT / np.maximum(length, 1e-300), 0)).ravel()


def concave(z, t):
    inside = soft(z, t * WEIGHT) / (1 - t / THETA)
    return np.where(np.abs(z) <= THETA * WEIGHT, inside, z)


PROX = {
    "l1": lambda z, t: soft(z, t * WEIGHT),
    "MCP": concave,
    "group": grouped,
    "box": lambda z, t: np.minimum(np.maximum(z, -0.2), 0.3),
}


@functools.cache
def data():
    """Uneven and heterogeneous: client i's labels follow a model of its own."""
    random = np.random.default_rng(1)
    features = [random.standard_normal((6 + i % 3, D)) + i / 5 for i in range(N)]
    truth = np.array([2.0, 0.1, 0.0, -1.0])
    labels = [a @ truth + i * a[:, 1] / 2 + random.standard_normal(len(a)) for i, a in
              enumerate(features)]  # fmt: skip
    return features, labels


@functools.cache
def smooth(name="least squares", weights: Any = "agents"):
    """Strongly convex least squares, or logistic regression with a penalty that is not convex."""
    features, labels = data()
    if name == "least squares":
        return jd.problems.least_squares(features, labels, l2=0.7, weights=weights)
    signs = [np.where(b > np.median(b), 1, -1) for b in labels]
    return jd.problems.nonconvex_logistic_regression(features, signs, weight=0.1)


def shares():
    """The clients' shares of all samples, pᵢ."""
    sizes = np.array([len(f) for f in data()[0]])
    return sizes / sizes.sum()


def gradient(i, x, k=0, l=0):  # noqa: E741
    features, labels = data()
    return losses.least_squares_gradient(x, features[i], labels[i], 0.7)


def start():
    return np.random.default_rng(7).standard_normal(D)


def rows(x):
    return jnp.broadcast_to(jnp.asarray(x), (N, D))


def run(method, problem, steps=STEPS, every=1, key=KEY, network=SERVER, x0=None, **metrics):
    metrics = {"x": lambda state, problem: state.estimate, **metrics}
    x0 = rows(start()) if x0 is None else x0
    return jd.run(method, problem, network, x0, key, steps=steps, every=every, metrics=metrics)


METHODS = {
    "FedNMap": (jd.FedNMap, reference.fed_nmap, {"prox_stepsize": 0.4}, {}),
    "FedMid": (jd.FedMid, reference.fed_mid, {}, {}),
    "FedMid, server prox alone": (jd.FedMid, reference.fed_mid, {}, {"client_prox": False}),
    "FedDualAvg": (jd.FedDualAvg, reference.fed_dual_avg, {}, {}),
    "ZhangHuJohansson": (jd.ZhangHuJohansson, reference.zhang_hu_johansson, {}, {}),
}


@pytest.mark.parametrize("weights", ["agents", "samples"])
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.slow
def test_trajectories(name, weights):
    """Minibatches, four regularizers, constant and decreasing stepsizes, in one program."""
    method, loop, numbers, options = METHODS[name]
    features, labels = data()
    p = shares() if weights == "samples" else None
    noisy = jd.problems.Minibatch(smooth(weights=weights), 2)
    in_round = jax.vmap(lambda k, l: noisy.indices(  # noqa: E741
        jax.random.fold_in(jax.random.fold_in(KEY, k), l)), (None, 0))  # fmt: skip
    drawn = np.asarray(jax.vmap(in_round, (0, None))(jnp.arange(STEPS), jnp.arange(Q)))

    def sampled(i, x, k, l):  # noqa: E741
        chosen = drawn[k, l, i]
        return losses.least_squares_gradient(x, features[i][chosen], labels[i][chosen], 0.7)

    for which, kind in enumerate(REGULARIZERS):
        if kind == "MCP" and name == "FedDualAvg":
            continue
        steps = np.full(STEPS, 0.02) if which % 2 else 0.3 / (np.arange(STEPS) + 8.0)
        numbers = numbers | {"server_stepsize": 0.9 + 0.1 * which, "local_steps": Q}
        expected = loop(sampled, PROX[kind], start(), lambda k, s=steps: s[k], STEPS, n=N, p=p,
                        **numbers, **options)  # fmt: skip
        made = method(stepsize=Table(jnp.asarray(steps)), **numbers, **options)
        got = run(made, one_of(noisy, kind)).history["x"]
        np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-10)
        assert np.abs(got[-1] - got[0]).max() > 0.1


@functools.cache
def stationary(name, local_steps):
    """FedNMap's last states with l1 and with MCP; they share a program."""
    world = smooth(name)
    lam = 1 / float(world.smoothness)
    method = jd.FedNMap(lam / (4 * local_steps), lam, local_steps=local_steps)
    residual = jd.metrics.normal_map_residual(lam)
    return {
        kind: run(method, one_of(world, kind), 12_000, 6_000, residual=residual)
        for kind in ("l1", "MCP")
    }


@pytest.mark.parametrize(("name", "local_steps"), [("least squares", 5), ("logistic", 10)])
@pytest.mark.slow
def test_fednmap_finds_stationary_points_and_corrections_sum_to_zero(name, local_steps):
    for result in stationary(name, local_steps).values():
        assert np.sqrt(result.history["residual"][-1]) < 1e-10
        assert np.sqrt(result.history["residual"][0]) > 1e-2
        assert np.sqrt(result.history["prox_gradient_residual"][-1]) < 1e-10
        size = np.abs(result.state.d).max()
        assert size > 0.05  # clients disagree
        assert np.abs(result.state.d.sum(axis=0)).max() < 1e-13 * size


@pytest.mark.parametrize("name", ["FedNMap", "ZhangHuJohansson"])
def test_exactness_and_corrections_with_unequal_weights(name):
    """A client with most samples, and others with few: Σᵢ pᵢ dᵢ = 0 and the minimizer of f + r."""
    random = np.random.default_rng(3)
    sizes = np.array([40, 4, 4, 6, 3])
    features = [random.standard_normal((m, D)) + i / 5 for i, m in enumerate(sizes)]
    labels = [a @ np.array([2.0, 0.1, 0.0, -1.0]) + i * a[:, 1] for i, a in enumerate(features)]
    world = jd.problems.least_squares(features, labels, l2=0.7, weights="samples")
    problem = jd.problems.Composite(world, kinds.L1(WEIGHT)).solved()
    method = {"FedNMap": jd.FedNMap(0.02, 0.3, local_steps=Q),
              "ZhangHuJohansson": jd.ZhangHuJohansson(0.02, local_steps=Q)}[name]  # fmt: skip
    state = run(method, problem, 3000, 3000).state
    np.testing.assert_allclose(state.server, problem.solution, atol=1e-10)
    corrections = np.asarray(state.d if name == "FedNMap" else state.c)
    assert np.abs(corrections.sum(axis=0)).max() > 0.1
    assert np.abs(sizes @ corrections / sizes.sum()).max() < 1e-12


@functools.cache
def centralized(kind, weight=1.0):
    """The end of proximal gradient descent on f + weight r; MCP's ρ is below f's μ."""
    assert float(smooth().strong_convexity) > 1 / THETA
    a = 0.9 / float(smooth().smoothness)
    steps = 1500
    return reference.proximal_gradient(
        gradient, lambda z, t: PROX[kind](z, weight * t), start(), lambda k: a, steps, n=N
    )[-1]


@pytest.mark.parametrize("kind", ["l1", "MCP"])
@pytest.mark.slow
def test_fednmap_ends_where_centralized_proximal_gradient_does(kind):
    x = np.asarray(stationary("least squares", 5)[kind].state.server)
    solution = centralized(kind)
    np.testing.assert_allclose(x, solution, atol=1e-10)
    np.testing.assert_array_equal(x == 0, solution == 0)
    assert 0 < np.sum(x == 0) < D
    assert np.abs(centralized("l1") - centralized("MCP")).max() > 1e-2


def test_with_one_local_step_fednmap_is_centralized_normal_map_descent():
    lam, a = 0.3, 0.05
    for kind in ("l1", "MCP"):
        expected = reference.normal_map_descent(
            gradient, PROX[kind], start(), lambda k: a, STEPS, n=N, prox_stepsize=lam
        )
        got = run(jd.FedNMap(a, lam), one_of(smooth(), kind)).history["x"]
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)


def test_without_a_regularizer_fednmap_is_scaffold():
    active = np.ones((STEPS, N), bool)
    expected = federated.scaffold(
        gradient, active, start(), lambda k: 0.03, STEPS, local_steps=Q, server_stepsize=0.9
    )
    method = jd.FedNMap(0.03, prox_stepsize=2.0, server_stepsize=0.9, local_steps=Q)
    got = run(method, smooth()).history["x"]
    np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-11)


def test_the_normal_map_bounds_the_prox_gradient_residual():
    """|x − prox(x − λ∇f(x))| / λ ≤ |F(z)| / (1 − λρ), x = prox(z), at random points."""
    lam = 0.5
    metric = jd.metrics.normal_map_residual(lam)
    zs = 2 * np.random.default_rng(0).standard_normal((2000, D))
    for kind, rho in (("l1", 0.0), ("MCP", 1 / THETA)):
        problem = jd.problems.Composite(smooth(), REGULARIZERS[kind])

        def both(z, problem=problem):
            state = State(z, z, rows(z), N)
            x = problem.prox(z, lam)
            away = x - problem.prox(x - lam * jax.grad(problem.smooth_objective)(x), lam)
            return metric(state, problem), jnp.sum(away**2) / lam**2

        squared, residual = jax.jit(jax.vmap(both))(zs)
        ratio = np.sqrt(residual / squared) * (1 - lam * rho)
        assert ratio.max() <= 1 + 1e-12
        assert np.all(ratio > 0)
        if kind == "l1":
            assert ratio.max() > 0.99


def distances(method, steps, to):
    """How far from a point a method stops, at a stepsize and half of it."""
    far, lasso = [], jd.problems.Composite(smooth(), kinds.L1(WEIGHT))
    for stepsize in (0.002, 0.001):
        made = jd.replace(method, stepsize=stepsize)
        x = run(made, lasso, steps, steps).state.server
        far.append(float(np.linalg.norm(x - to)))
    return *far, np.asarray(x)


@pytest.mark.slow
def test_biases():
    """Q = 3: what drift and double shrinkage leave, and that corrections remove it."""
    once, twice = centralized("l1"), centralized("l1", 2.0)
    assert np.linalg.norm(once - twice) > 0.2
    first, half, x = distances(jd.FedMid(1.0, local_steps=Q), 8000, twice)
    assert first == pytest.approx(2 * half, rel=0.1)
    assert 0 < half < 1e-2
    np.testing.assert_array_equal(x == 0, twice == 0)
    for method in (
        jd.FedMid(1.0, local_steps=Q, client_prox=False),
        jd.FedDualAvg(1.0, local_steps=Q),
        Uncorrected(1.0, 0.2, local_steps=Q),
    ):
        first, half, x = distances(method, 8000, once)
        assert first == pytest.approx(2 * half, rel=0.1)
        assert 1e-4 < half < 1e-2
        np.testing.assert_array_equal(x == 0, once == 0)
    exact = distances(jd.ZhangHuJohansson(1.0, local_steps=Q), 8000, once)
    assert max(exact[:2]) < 1e-10
    np.testing.assert_array_equal(exact[2] == 0, once == 0)


def test_dual_averaging_with_one_local_step_is_exact():
    x = run(jd.FedDualAvg(0.05), one_of(smooth(), "l1"), 3000, 3000).state.server
    np.testing.assert_allclose(x, centralized("l1"), atol=1e-10)


@pytest.mark.slow
def test_linear_speedup_in_clients_and_local_steps():
    """E|F|² nQ is the same at a fixed total step; stepsizes and seeds are one program."""
    lam, floors = 0.5, {}
    for n, local_steps in ((4, 1), (16, 1), (4, 4)):
        quadratic = jd.problems.quadratic(n, D, condition_number=5, curvature_spread=0.0)
        noisy = jd.problems.Composite(
            jd.problems.GaussianNoise(quadratic, 1.0), kinds.MCP(0.1, 10.0)
        )
        methods = jax.vmap(lambda a, q=local_steps: jd.FedNMap(a, lam, local_steps=q))(
            jnp.array([0.02, 0.04]) / local_steps
        )
        result = jd.sweep(jd.run, over=("algorithm", "key"))(
            methods, noisy, jd.networks.Server(n), noisy.start(),
            jax.random.split(KEY, 8), steps=1600, every=16,
            metrics={"residual": jd.metrics.normal_map_residual(lam)},
        )  # fmt: skip
        assert result.state.x.shape == (2, 8, n, D)
        settled = np.asarray(result.history["residual"])[:, :, 30:]
        floors[n, local_steps] = settled.mean(axis=(1, 2)) * n * local_steps
    values = np.array(list(floors.values()))
    np.testing.assert_allclose(values / values.mean(axis=0), 1, atol=0.15)
    np.testing.assert_allclose(values[:, 1] / values[:, 0], 2, rtol=0.25)


PARTIAL = [jd.FedMid(0.05, local_steps=Q), jd.FedDualAvg(0.05, local_steps=Q)]


@pytest.mark.parametrize("method", PARTIAL, ids=lambda m: type(m).__name__)
def test_a_round_of_some_clients_is_a_round_of_their_problem(method):
    problem = jd.problems.Composite(smooth(weights="samples"), kinds.L1(WEIGHT))
    here = np.array([1, 3])
    mask = jnp.zeros(N, bool).at[here].set(True)
    state = method.init(problem.start() + 1.0, problem, SERVER, KEY)
    step = jax.jit(method.step)
    server = jd.replace(SERVER, active=mask)
    masked = step(state, problem, server, KEY)
    gathered = step(
        state, problem, jd.replace(server, clients=jnp.array([1, N + 1, 3])), KEY
    )  # one of them is padding
    two = jd.networks.Server(2)
    alone = step(jd.replace(state, n=2), problem.take(jnp.asarray(here)), two, KEY)
    for other in (masked, gathered):
        np.testing.assert_allclose(other.estimate, alone.estimate, rtol=1e-13)
    nobody = step(state, problem, jd.replace(SERVER, active=jnp.zeros(N, bool)), KEY)
    jax.tree.map(np.testing.assert_array_equal, nobody, state)
    whole, part = (
        jd.costs.cost_of(method, state, problem, network) for network in (SERVER, server)
    )
    assert (whole.vectors, whole.bits, whole.calls, whole.exchanges) == (1, 32 * D, Q, 1)
    assert whole.gradients == pytest.approx(Q * float(problem.samples))
    assert part.vectors == pytest.approx(0.4)
    assert part.bits == pytest.approx(0.4 * 32 * D)
    assert part.gradients == pytest.approx(0.4 * Q * float(problem.samples))
    assert part.calls == Q


def test_costs():
    for method in (jd.FedNMap(0.01, 0.4, local_steps=Q), jd.ZhangHuJohansson(0.01, local_steps=Q)):
        noisy = jd.problems.Composite(jd.problems.Minibatch(smooth(), 2), kinds.L1(WEIGHT))
        history = run(method, noisy, 10).history
        assert history["gradients"][-1] == 10 * Q * 2
        assert history["rounds"][-1] == history["vectors"][-1] == 10
        assert history["traffic"][-1] == 10 * 2 * N * 32 * D
        np.testing.assert_array_equal(history["consensus_error"], 0)


@pytest.mark.slow
@pytest.mark.optimized
def test_float32_keeps_the_corrections_sum_at_zero(float32):
    """Sums of differences over ηQ, as the listing has them, drift to 0.1 and more here."""
    features, labels = ([np.asarray(part, np.float32) for part in parts] for parts in data())
    world = jd.problems.least_squares(features, labels, l2=0.7)
    problem = jd.problems.Composite(world, kinds.L1(WEIGHT))
    lam = 1 / float(world.smoothness)
    method = jd.FedNMap(0.002 * lam, lam, local_steps=Q)
    result = run(
        method, problem, 20_000, 10_000, x0=problem.start() + 1,
        residual=jd.metrics.normal_map_residual(lam),
    )  # fmt: skip
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(result.state))
    assert np.abs(result.state.d.sum(axis=0)).max() < 2e-6 * np.abs(result.state.d).max()
    assert result.history["residual"].dtype == np.float32
    assert result.history["residual"][-1] < 1e-5
    np.testing.assert_allclose(result.state.server, centralized("l1"), atol=1e-3)


def test_numbers_compile_nothing_anew():
    traced, counts = [], []

    def metric(state, problem):
        traced.append(1)
        return state.estimate[0]

    problem = jd.problems.Composite(smooth(), kinds.MCP(WEIGHT, THETA))
    for a, lam, server in ((0.01, 0.4, 1.0), (0.02, 0.5, 0.5)):
        method = jd.FedNMap(a, lam, server_stepsize=server, local_steps=2)
        jd.run(method, problem, SERVER, problem.start(), KEY, steps=4, metrics={"first": metric})
        counts.append(len(traced))
    assert counts[0] == counts[1] > 0


def test_bad_input():
    l1 = jd.problems.Composite(smooth(), kinds.L1(WEIGHT))
    mcp = jd.problems.Composite(smooth(), kinds.MCP(WEIGHT, THETA))
    x0 = l1.start()
    methods: list[Any] = [jd.FedNMap, jd.FedMid, jd.FedDualAvg, jd.ZhangHuJohansson]
    for method in methods:
        numbers: dict[str, Any] = {"prox_stepsize": 0.1} if method is jd.FedNMap else {}
        wrongs: list[Any] = [0, 1.5, True]
        for wrong in wrongs:
            with pytest.raises(ValueError, match=r"local_steps is .*; give an integer"):
                method(stepsize=0.1, local_steps=wrong, **numbers)
        with pytest.raises(ValueError, match="stepsize is -1; give at least 0"):
            method(stepsize=-1, **numbers)
        with pytest.raises(
            ValueError, match=r"stepsize has shape \(5, 1\); give one number for all"
        ):
            method(stepsize=jnp.full((N, 1), 0.1), **numbers)
    with pytest.raises(ValueError, match="prox_stepsize is 0; give more than 0"):
        jd.FedNMap(0.1, 0)
    with pytest.raises(
        ValueError, match=r"prox_stepsize is 1.7 and .*weakly convex; give one below"
    ):
        jd.FedNMap(0.1, THETA).init(x0, mcp, SERVER, KEY)
    assert run(jd.FedNMap(0.1, THETA), mcp, 2).diverged
    with pytest.raises(ValueError, match=r"MCP is not known to be convex .*; take FedNMap"):
        run(jd.FedDualAvg(0.1), mcp)
    asleep = jd.replace(SERVER, active=jnp.ones(N, bool).at[0].set(False))
    for method in (jd.FedNMap(0.1, 0.1), jd.ZhangHuJohansson(0.1)):
        with pytest.raises(ValueError, match=r"needs all agents in every round .*Server\(n\)"):
            run(method, l1, network=asleep)
    with pytest.raises(ValueError, match="prox_stepsize is 0; give more than 0"):
        jd.metrics.normal_map_residual(0)
    with pytest.raises(ValueError, match="needs a method whose state has z"):
        run(jd.FedMid(0.1), l1, residual=jd.metrics.normal_map_residual(0.1))
