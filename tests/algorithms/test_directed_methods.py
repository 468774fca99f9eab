"""Directed graphs and trees: what the methods reach there, and how."""

from typing import Any

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxdopt as jd
from jaxdopt.algorithms.directed import coupling

N, D, KEY = 6, 2, jax.random.key(4)
DITHER = jd.compressors.Dither(bits=2)


def digraph(seed, n=N, p=0.4):
    """A strongly connected random digraph, neither regular nor symmetric."""
    random = np.random.default_rng(seed)
    order = random.permutation(n)
    graph = nx.gnp_random_graph(n, p, seed=seed, directed=True)
    nx.add_cycle(graph, order.tolist())
    return graph


def dense(network):
    """The network with dense parts, so that all random graphs share one program."""
    form = jd.networks.Dense
    return jd.networks.Directed(
        jd.networks.mixing(network.row.csr().toarray(), kind="row", form=form),
        jd.networks.mixing(network.column.csr().toarray(), kind="column", form=form),
    )


def heterogeneous(n=N):
    return jd.problems.quadratic(n, D, condition_number=4, heterogeneity=1.0, curvature_spread=0.5)


EXACT = [
    (lambda p, w: jd.PushDIGing(0.1 / p.smoothness), 6000),
    (lambda p, w: jd.PushPull(0.1 / p.smoothness), 6000),
    (lambda p, w: jd.AB(0.1 / p.smoothness), 6000),
    (lambda p, w: jd.APDSC(jd.APDSC.safe_stepsize(p, w)), 20_000),
    (lambda p, w: jd.CPP(0.1 / p.smoothness, DITHER), 6000),
    (lambda p, w: jd.BCPP(0.15 / p.smoothness, DITHER), 40_000),
]
NAMES = ["PushDIGing", "PushPull", "AB", "APDSC", "CPP", "BCPP"]


@pytest.mark.parametrize(("build", "steps"), EXACT, ids=NAMES)
@given(seed=st.integers(0, 10_000))
@settings(max_examples=5, deadline=None, derandomize=True)
@pytest.mark.slow
def test_the_limit_is_the_uniform_optimum_on_any_strongly_connected_digraph(build, steps, seed):
    problem, network = heterogeneous(), dense(jd.networks.push_pull(digraph(seed)))
    result = jd.run(
        build(problem, network), problem, network, problem.start(), KEY, steps=steps, every=steps
    )
    error = result.history["distance_squared"][-1] + result.history["consensus_error"][-1]
    assert error < 1e-18
    perron = np.linalg.matrix_power(np.asarray(network.row.matrix()), 500)[0]
    h, x = np.asarray(problem.hessians), np.asarray(problem.start(problem.solution))
    weighted = np.linalg.solve(  # what plain gradient descent on R would find
        np.einsum("i,ijk", perron, h),
        np.einsum("i,ij", perron, np.einsum("ijk,ik->ij", h, x) - problem.grad(jnp.asarray(x))),
    )
    assert np.sum((weighted - x[0]) ** 2) > 1e-10


def test_push_sum_averages_on_any_digraph():
    network, x0 = jd.networks.column_stochastic(digraph(1)), jnp.arange(2.0 * N).reshape(N, 2)
    result = jd.run(jd.PushSum(), heterogeneous(), network, x0, KEY, steps=400, every=400)
    np.testing.assert_allclose(result.state.x, np.tile(x0.mean(axis=0), (N, 1)), atol=1e-12)
    assert np.ptp(result.state.w) > 0.1  # the weights are needed
    np.testing.assert_allclose(result.state.w.sum(), N, rtol=1e-14)
    assert result.history["gradients"][-1] == 0


def test_the_bias_of_sgp_vanishes_with_the_stepsize():
    problem, network = heterogeneous(), jd.networks.column_stochastic(digraph(2))
    stepsizes = np.array([0.04, 0.02, 0.01]) / float(problem.smoothness)
    results = jd.sweep(jd.run, over=("algorithm",))(
        jax.vmap(jd.SGP)(jnp.asarray(stepsizes)),
        problem, network, problem.start(), KEY, steps=8000, every=8000,
    )  # fmt: skip
    bias = np.sqrt(results.history["distance_squared"][:, -1])
    assert np.all((bias[:-1] / bias[1:] > 1.8) & (bias[:-1] / bias[1:] < 2.2))


@pytest.mark.parametrize("sparse", [True, False])
def test_two_graphs_with_a_common_root_are_enough(sparse):
    """R hears agent 0 only and C tells agent 0 only: neither is strongly connected."""
    star = nx.DiGraph([(0, i) for i in range(1, N)])
    pull, push = star, star.reverse()
    if not sparse:
        pull.add_edge(1, 2)
    problem, network = heterogeneous(), jd.networks.push_pull(pull, push)
    for method in (jd.PushPull(0.05 / problem.smoothness), jd.AB(0.05 / problem.smoothness)):
        result = jd.run(method, problem, network, problem.start(), KEY, steps=5000, every=5000)
        assert result.history["distance_squared"][-1] < 1e-20


def test_one_agent_with_a_stepsize_is_enough_for_cpp():
    problem, network = heterogeneous(), jd.networks.push_pull(digraph(3))
    own = jnp.zeros((N, 1)).at[2].set(0.1 / problem.smoothness)
    method = jd.CPP(own, DITHER)
    result = jd.run(method, problem, network, problem.start(), KEY, steps=20_000, every=20_000)
    assert result.history["distance_squared"][-1] < 1e-16


def iterations(method, problems, network, steps, level=1e-8):
    """Steps until |x̄ − x*|² has fallen to ``level`` of its start, for problems of one structure."""
    counts = []
    for problem in problems:
        result = jd.run(
            method(problem), problem, network, problem.start(), KEY, steps=steps, every=20
        )
        distance = result.history["distance_squared"]
        assert distance[-1] < level * distance[0]
        counts.append(20 * int(np.argmax(distance < level * distance[0])))
    return counts


@pytest.mark.slow
def test_acceleration_takes_the_square_root_of_the_condition_number():
    """Fitted exponents of steps over κ at a fixed γ L: 0.5 for APD-SC, 1 for Push-DIGing."""
    network = jd.networks.push_pull(digraph(5, p=0.7))
    assert network.column.spectral_gap > 0.2
    kappas = (400, 4_000)
    problems = [
        jd.problems.quadratic(N, D, condition_number=kappa, curvature_spread=0.0)
        for kappa in kappas
    ]
    c = jd.APDSC.safe_stepsize(problems[0], network) * problems[0].smoothness
    fast = iterations(lambda p: jd.APDSC(c / p.smoothness), problems, network, 20_000)
    plain = iterations(lambda p: jd.PushDIGing(c / p.smoothness), problems, network, 120_000)
    accelerated, exponent = (
        np.log(b / a) / np.log(kappas[1] / kappas[0]) for a, b in (fast, plain)
    )
    assert 0.4 < accelerated < 0.6
    assert 0.85 < exponent < 1.1


LIMITED = {  # from a gap of 0.02, and one of 0.4 with weights down to 0.07, to uniform averaging
    "ring of 4": jd.graphs.directed_ring(4),
    "ring of 8": jd.graphs.directed_ring(8),
    "ring with links back": nx.DiGraph(
        [(i, (i + 1) % 8) for i in range(8)] + [(i, 0) for i in range(2, 7)]
    ),
    "random": digraph(5),
    "dense random": digraph(5, p=0.7),
    "exponential": jd.graphs.exponential(8, directed=True),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LIMITED)
def test_the_safe_stepsize_is_half_of_the_largest_that_works(name):
    """With equal curvatures; with unequal ones it works, too."""
    network, n = dense(jd.networks.push_pull(LIMITED[name])), len(LIMITED[name])
    factors = jnp.asarray([1.0, 1.8, 2.2])
    for spread in (0.0, 0.9):
        problem = jd.problems.quadratic(
            n, D, condition_number=30, curvature_spread=spread, heterogeneity=1.0, seed=1
        )
        safe = jd.APDSC.safe_stepsize(problem, network)
        history = jd.sweep(jd.run, over=("algorithm",))(
            jax.vmap(jd.APDSC)(safe * factors), problem, network, problem.start(), KEY,
            steps=20_000, every=20_000,
        ).history  # fmt: skip
        error = history["distance_squared"] + history["consensus_error"]
        fell = np.nan_to_num(error[:, -1] / error[:, 0], nan=np.inf)
        assert fell[0] < 1e-20
        if spread == 0:
            assert fell[1] < 1e-10
            assert fell[2] > 1e3


def ring_in_long_double(gamma, steps, every, n=16):
    """APD on the directed ring with weights 1/2, fᵢ = |x|²/2 + tᵢ x, in extended precision."""
    x = np.zeros((n, 1), np.longdouble)
    tilts = np.random.default_rng(0).standard_normal((n, 1)).astype(np.longdouble)
    tilts -= tilts.mean()
    half, omega, gamma = np.longdouble(0.5), np.longdouble(1) / 20, np.longdouble(gamma)
    z, s, g = x, 0 * x, 0 * x
    errors = []
    for k in range(steps):
        now = x + tilts
        s, g = s + now - g, now
        y, z, s = (
            half * (v + np.roll(v, 1, axis=0))
            for v in (x - gamma * s, z - (1 + omega * k) * gamma * s, s)
        )
        x = y + (z - y) / (4 * (1 + omega * (k + 1)))
        if (k + 1) % every == 0:
            errors.append(float((x**2).mean()))
    return tilts, errors


@pytest.mark.slow
def test_apd_diverges_late_by_its_method_and_not_by_rounding():
    """At 2.8e-4 / L, above the limit of the directed ring; at the safe stepsize it does not."""
    network = jd.networks.push_pull(jd.graphs.directed_ring(16))
    tilts, exact = ring_in_long_double(2.8e-4, 30_000, 10_000)
    problem = jd.problems.quadratic(16, 1, solution=np.zeros(1), curvature_spread=0.0)
    problem = jd.replace(problem, tilts=jnp.asarray(tilts, float))
    safe = jd.APD.safe_stepsize(problem, network)
    assert 2.4e-4 < 2 * safe < 2.5e-4
    history = jd.sweep(jd.run, over=("algorithm",))(
        jax.vmap(jd.APD)(jnp.asarray([2.8e-4, 1.9 * safe, safe])),
        problem, network, problem.start(), KEY, steps=30_000, every=10_000,
    ).history  # fmt: skip
    error = history["distance_squared"] + history["consensus_error"]
    np.testing.assert_allclose(error[0, 1:], exact, rtol=1e-6)
    assert exact[0] < 1e-3 < 1e3 < exact[-1]
    assert (error[1:, -1] < 1e-6).all()


def test_a_bound_replaces_the_spectrum_on_large_networks(monkeypatch):
    network, problem = jd.networks.push_pull(digraph(5, n=12, p=0.3)), heterogeneous(12)
    exact = jd.APD.safe_stepsize(problem, network)
    monkeypatch.setattr(coupling, "EXACT", 0)
    assert exact / 2.5 < jd.APD.safe_stepsize(problem, network) <= exact
    uniform = jd.networks.metropolis(jd.graphs.ring(12))
    bound = jd.APD.safe_stepsize(problem, uniform)
    monkeypatch.undo()
    assert bound == jd.APD.safe_stepsize(problem, uniform)


@pytest.mark.slow
def test_apd_falls_faster_than_push_diging_on_convex_problems():
    """Spectrum j⁻⁴, no strong convexity to speak of: slopes of log(F − F*) over log k."""
    scales = np.arange(1, 31.0) ** -2.0
    features = np.tile(np.diag(scales) * np.sqrt(30), (N, 1, 1))
    labels = features @ np.ones(30) + np.random.default_rng(0).standard_normal((N, 30)) / 10
    problem, network = (
        jd.problems.least_squares(features, labels - (labels - labels.mean(axis=0)).mean(axis=0)),
        jd.networks.push_pull(digraph(5, p=0.7)),
    )
    slopes = []
    for method in (jd.PushDIGing, jd.APD):
        result = jd.run(
            method(0.05 / problem.smoothness), problem, network, problem.start(), KEY,
            steps=16_000, every=80,
        )  # fmt: skip
        k, gap = result.history["step"][20:], result.history["gap"][20:]
        slopes.append(np.polyfit(np.log(k), np.log(np.abs(gap)), 1)[0])
    assert slopes[0] > -1.1
    assert slopes[1] < 1.6 * slopes[0]


def test_stpps_default_stepsize_converges_on_the_directed_ring_of_64_and_a_naive_one_does_not():
    """Delays of n steps: 1 / (n L n) works where 0.5 / (n L), fine on shallow trees, diverges."""
    problem = jd.problems.quadratic(64, D, condition_number=2, curvature_spread=0.0)
    deep = jd.networks.spanning_tree(jd.graphs.directed_ring(64))
    assert float(deep.delay) == 64
    run: Any = {"steps": 9_000, "every": 9_000}
    result = jd.run(jd.STPP(), problem, deep, problem.start(), KEY, **run)
    assert result.history["distance_squared"][-1] + result.history["consensus_error"][-1] < 1e-24
    naive = jd.STPP(0.5 / (64 * problem.smoothness))
    result = jd.run(naive, problem, deep, problem.start(), KEY, **run)
    assert result.diverged or result.history["distance_squared"][-1] > 1e10
    flat = jd.networks.spanning_tree(jd.graphs.exponential(64))
    result = jd.run(naive, problem, flat, problem.start(), KEY, **run)
    assert result.history["distance_squared"][-1] < 1e-24


def test_the_root_of_stpp_runs_delayed_gradient_descent():
    """Its tracker is Σᵢ gᵢ as many steps ago as the agent is deep; its children have its x."""
    parent = np.array([1, 1, 1, 0, 3, 2])
    push = np.array([2, 1, 1, 2, 0, 4])
    tree = jd.networks.Tree(parent, push)
    depth = np.array([2, 0, 1, 2, 3, 4])
    assert not tree.undirected
    assert float(tree.delay) == 6
    problem = heterogeneous()
    method = jd.STPP(0.02 / problem.smoothness)
    x0 = jnp.asarray(np.random.default_rng(0).standard_normal((N, D)))
    metrics = {"x": lambda s, p: s.x, "y": lambda s, p: s.y, "g": lambda s, p: s.g}
    history = jd.run(method, problem, tree, x0, KEY, steps=40, metrics=metrics).history
    for k in range(1, 40):  # y is pushed already: the root's lacks the next step's g⁺ − g
        g = history["g"][1:]  # g[k] is taken at x_k
        tracker = sum(g[k - depth[i]][i] for i in range(N) if k >= depth[i])
        ours = history["y"][k][1] + g[k][1] - g[k - 1][1]
        np.testing.assert_allclose(ours, tracker, atol=1e-13)
        for child in (0, 2):
            np.testing.assert_allclose(history["x"][k][child], history["x"][k][1], atol=0)


def test_trees_with_different_roots_do_not_reach_the_solution():
    with pytest.raises(ValueError, match="give two trees of the same agents and the same root"):
        jd.networks.Tree(np.array([0, 0, 0]), np.array([1, 1, 1]))


@pytest.mark.slow
@pytest.mark.parametrize(
    "tree",
    [lambda n: jd.networks.spanning_tree(jd.graphs.exponential(n)),
     lambda n: jd.networks.bary_tree(n, 3)],
    ids=["breadth-first", "3-ary"],
)  # fmt: skip
def test_the_noise_floor_of_trees_falls_as_one_over_n(tree):
    """E|x_root − x*|² times n at the same n γ, 24 seeds."""
    floors = []
    for n in (4, 16):
        problem = jd.problems.quadratic(n, D, condition_number=2, curvature_spread=0.0)
        problem = jd.problems.GaussianNoise(problem, 0.3)
        distance = jd.sweep(jd.run, over=("key",))(
            jd.STPP(0.02 / n), problem, tree(n), problem.start(problem.solution),
            jax.random.split(KEY, 24), steps=1500, every=10,
        ).history["distance_squared"]  # fmt: skip
        floors.append(n * distance[:, 30:].mean())
    assert 0.8 < floors[0] / floors[1] < 1.25


def test_relay_sgd_is_exact_with_full_gradients_and_counts_all_models():
    problem = heterogeneous()
    tree = jd.networks.spanning_tree(jd.graphs.path(N), root=1)
    method = jd.RelaySGD(0.1 / problem.smoothness)
    result = jd.run(method, problem, tree, problem.start(), KEY, steps=4000, every=4000)
    assert result.history["distance_squared"][-1] + result.history["consensus_error"][-1] < 1e-22
    state = result.state
    counts = 1 + state.below[:, -1] + state.down[:, -1]
    np.testing.assert_array_equal(counts, N)
    ring = jd.networks.spanning_tree(jd.graphs.directed_ring(N))
    with pytest.raises(ValueError, match="RelaySGD needs one tree for both directions"):
        jd.run(method, problem, ring, problem.start(), KEY, steps=1)


def test_methods_for_directed_graphs_say_what_they_miss():
    problem, tree = heterogeneous(), jd.networks.spanning_tree(jd.graphs.ring(N))
    metropolis = jd.networks.metropolis(jd.graphs.ring(N))
    unknown = jd.problems.Oracle(lambda p, a, k: p, jnp.ones((N, 1)), jnp.zeros(D))

    def attempt(method, problem, network):
        jd.run(method, problem, network, problem.start(), KEY, steps=1)

    with pytest.raises(ValueError, match="STPP needs spanning trees and this Circulant"):
        attempt(jd.STPP(0.1), problem, metropolis)
    with pytest.raises(ValueError, match="does not know its smoothness, from which STPP"):
        attempt(jd.STPP(), unknown, tree)
    with pytest.raises(ValueError, match="does not know its strong convexity; give APDSC"):
        attempt(jd.APDSC(0.1), unknown, metropolis)
    with pytest.raises(ValueError, match="give APDSC a stepsize of your own"):
        jd.APDSC.safe_stepsize(unknown, metropolis)
    with pytest.raises(ValueError, match="give APD a stepsize of your own"):
        jd.APD.safe_stepsize(unknown, metropolis)
    with pytest.raises(ValueError, match="PushPull needs a row- and a column-stochastic part"):
        attempt(jd.PushPull(0.1), problem, jd.networks.row_stochastic(digraph(0)))
    with pytest.raises(ValueError, match="form is 'adapt'; give 'atc'"):
        jd.CPP(0.1, DITHER, form="adapt")  # type: ignore[arg-type]
