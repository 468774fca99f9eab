"""Measured behavior against what the theorems say."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import PLAIN

import jaxdopt as jd

KEY = jax.random.key(0)
RING = jd.networks.metropolis(jd.graphs.ring(8))  # eigenvalues down to -1/3


def run(method, problem, network: Any = RING, **options):
    options = {"steps": 3000, "every": 100, **options}
    return jd.run(method, problem, network, problem.start(), KEY, **options)


@pytest.fixture(scope="module")
def digits():
    """The issue's case: digits 3 against 8, split by label over a ring of 8."""
    data = jd.data.digits().only(3, 8)
    return jd.problems.logistic_regression(
        data.features, data.labels == 8, agents=8, l2=1e-2, partition="by_label"
    )


@pytest.mark.slow
@pytest.mark.parametrize("row", PLAIN, ids=lambda row: row.name)
def test_exact_methods_reach_the_optimum_on_digits_and_others_do_not(row, digits):
    result = run(
        row.build(digits.smoothness), digits, steps=30_000 if row.samples else 20_000, every=1000
    )
    gap = np.abs(result.history["gap"])
    if row.exact:
        assert gap.min() < 1e-12
        assert result.history["consensus_error"][-1] < 1e-20
    else:
        assert gap.min() > (1e-6 if row.method is jd.CentralizedRR else 1e-4)  # O(α²), not O(α)
        assert (result.history["consensus_error"][-1] > 1e-3) == row.gossips


@pytest.mark.parametrize("fraction", [0.2, 0.7, 1.0])
def test_gradient_descent_contracts_as_nesterov_says(fraction):
    problem = jd.problems.quadratic(4, 3, condition_number=20, curvature_spread=0.5)
    top = float(np.linalg.norm(np.asarray(problem.hessians.mean(axis=0)), 2))
    mu = float(problem.strong_convexity)
    stepsize = fraction * 2 / (top + mu)
    distance = np.sqrt(run(jd.GradientDescent(stepsize), problem, jd.networks.metropolis(
        jd.graphs.ring(4)), steps=100, every=1).history["distance_squared"])  # fmt: skip
    rate = distance[1:] / distance[:-1]
    # x rounds to ε|x*| in every step, which is ever more of the distance
    rounding = 4 * np.finfo(float).eps * np.abs(problem.solution).max() / distance[:-1]
    assert np.all(rate <= 1 - stepsize * mu + rounding)
    assert rate[-1] > 1 - 1.1 * stepsize * mu  # and the bound is tight


def stationary_equation(method, problem, x, stepsize):
    g = problem.grad(x, None)
    if method is jd.DGD:
        return RING.laplacian(x) + stepsize * g
    return x - RING @ (x - stepsize * g)


@pytest.mark.parametrize("method", [jd.DGD, jd.DSGD])
def test_inexact_methods_stop_at_their_own_fixed_point_of_order_stepsize(method):
    problem = jd.problems.quadratic(8, 3, condition_number=5, curvature_spread=0.4)
    errors = []
    for stepsize in (0.08, 0.04, 0.02):
        x = run(method(stepsize), problem, steps=20_000, every=20_000).state.x
        np.testing.assert_allclose(stationary_equation(method, problem, x, stepsize), 0, atol=1e-12)
        errors.append(float(jnp.sqrt(jnp.mean(jnp.sum((x - problem.solution) ** 2, axis=1)))))
    ratios = np.divide(errors[:-1], errors[1:])
    assert np.all((ratios > 1.7) & (ratios < 2.1))


def test_dsgd_stops_a_little_closer_than_dgd():
    problem = jd.problems.quadratic(8, 3, condition_number=5, curvature_spread=0.4)
    xs = [
        run(method(0.04), problem, steps=20_000, every=20_000).state.x
        for method in (jd.DGD, jd.DSGD)
    ]
    errors = [float(jnp.mean(jnp.sum((x - problem.solution) ** 2, axis=1))) for x in xs]
    assert 0.5 * errors[0] < errors[1] < errors[0]


def edge_of_stability(method, limit):
    """Equal Hessians L I: converges just below the limit, diverges just above."""
    problem = jd.problems.quadratic(8, 1, condition_number=1, smoothness=2.0, curvature_spread=0.0)
    inside = run(method(0.98 * limit / 2.0), problem, steps=4000, every=4000)
    outside = run(method(1.02 * limit / 2.0), problem, steps=40_000, every=40_000)
    assert inside.history["consensus_error"][-1] < 1e2
    spread = outside.history["consensus_error"][-1]
    assert outside.diverged or spread > 1e10
    return inside


def test_dgd_is_stable_up_to_one_plus_the_smallest_eigenvalue():
    edge_of_stability(jd.DGD, 1 + RING.eigenvalues.min())


def test_dsgd_is_stable_as_long_as_gradient_descent_is():
    ring = jd.networks.metropolis(jd.graphs.ring(8))
    problem = jd.problems.quadratic(8, 2, condition_number=3, curvature_spread=0.0)
    result = run(jd.DSGD(1.98 / problem.smoothness), problem, ring)
    assert result.history["consensus_error"][-1] < 1e3


def test_extra_converges_within_its_theorem_and_diverges_beyond_what_is_known():
    """Theorem: α < 2 λ_min(W̃)/L; for equal quadratics the edge is (5 + 3 λ_min(W))/(4 L)."""
    least = float(RING.eigenvalues.min())
    limit = (5 + 3 * least) / 4
    inside = edge_of_stability(jd.EXTRA, limit)
    assert inside.history["gap"][-1] < 1e-20
    assert (1 + least) < limit  # the theorem's interval lies inside


def test_nids_converges_below_two_over_the_smoothness_on_any_network():
    """The path's gap is 0.04 and its λ_min -0.96 with weights that leave the agents nothing."""
    assert edge_of_stability(jd.NIDS, 2.0).history["gap"][-1] < 1e-20
    problem = jd.problems.quadratic(8, 2, condition_number=3, curvature_spread=0.0)
    path = jd.networks.laplacian(jd.graphs.path(8), 0.5)
    assert path.eigenvalues.min() < -0.9
    slow = run(jd.NIDS(1.9 / problem.smoothness), problem, path, steps=6000)
    assert slow.history["gap"][-1] < 1e-20


def test_nids_lets_every_agent_have_the_stepsize_of_its_own_smoothness():
    """Smoothness from 1 to 50: the largest stepsize would be too much for all but one agent."""
    random = np.random.default_rng(0)
    smoothness = np.geomspace(1, 50, 8)[:, None]
    bases = np.linalg.qr(random.standard_normal((8, 6, 3)))[0] * np.sqrt(6)
    features = np.sqrt(smoothness)[:, :, None] * bases
    problem = jd.problems.least_squares(features, random.standard_normal((8, 6)))
    own = jnp.asarray(1.9 / smoothness)
    assert run(jd.NIDS(own), problem, steps=9000).history["distance_squared"][-1] < 1e-24
    assert run(jd.NIDS(own.max()), problem, steps=6000).diverged


@pytest.mark.parametrize("penalty", [0.1, 1.0, 10.0])
def test_linearized_admm_converges_below_two_over_the_smoothness(penalty):
    problem = jd.problems.quadratic(8, 2, condition_number=3, curvature_spread=0.4)
    method = jd.LinearizedADMM(1.9 / problem.smoothness, penalty=penalty)
    result = run(method, problem)
    assert result.history["gap"][-1] < 1e-25
    duals, links = result.state.duals, RING.links
    np.testing.assert_array_equal(duals, -links.swap(duals))  # bit for bit
    g = problem.grad(result.state.x)
    np.testing.assert_allclose(duals.sum(axis=1), -g, atol=1e-11)


def test_linearized_admm_on_links_that_fail_and_not_on_links_that_move():
    problem = jd.problems.quadratic(8, 2, condition_number=3, curvature_spread=0.4)
    method = jd.LinearizedADMM(1.0 / problem.smoothness)
    failing = jd.networks.RandomLinks(RING, 0.7)
    assert run(method, problem, failing, steps=4000).history["gap"][-1] < 1e-20
    moving = jd.networks.Asleep(jd.networks.RandomMatching(jd.graphs.ring(8)), 0.5)
    with pytest.raises(ValueError, match="needs the same links both ways in every round"):
        run(method, problem, moving)


@pytest.mark.parametrize("method", [jd.NIDS, pytest.param(jd.PGEXTRA, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "regularizer", [jd.problems.prox.L1(0.2), jd.problems.prox.Box(-0.1, 0.3)], ids=["l1", "box"]
)
def test_composite_methods_reach_the_solution_and_its_support(method, regularizer):
    random = np.random.default_rng(3)
    features = random.standard_normal((8, 10, 5)) + np.arange(8)[:, None, None] / 8
    labels = features @ np.array([1.0, 0.0, -0.5, 0.0, 0.2]) + random.standard_normal((8, 10))
    smooth = jd.problems.least_squares(features, labels)
    problem = jd.problems.Composite(smooth, regularizer).solved()
    bound = np.isin(problem.solution, [-0.1, 0.0, 0.3])
    assert bound.any()
    result = run(method(0.6 / problem.smoothness), problem)
    assert result.history["distance_squared"][-1] + result.history["consensus_error"][-1] < 1e-24
    assert np.all(np.where(bound, result.state.x == problem.solution, True))


def test_smooth_methods_refuse_a_regularizer():
    smooth = jd.problems.least_squares(np.ones((8, 3, 2)), np.ones((8, 3)), l2=0.1)
    problem = jd.problems.Composite(smooth, jd.problems.prox.L1(0.1))
    with pytest.raises(ValueError, match="EXTRA ignores the regularizer L1; take a composite"):
        run(jd.EXTRA(0.1), problem)


@pytest.fixture(scope="module")
def noisy_sum():
    random = np.random.default_rng(5)
    features = random.standard_normal((8, 12, 3)) + np.arange(8)[:, None, None] / 8
    return jd.problems.least_squares(features, random.standard_normal((8, 12)), l2=0.1)


def stationary_errors(method, problem, stepsizes, epochs):
    """Mean squared distances at the ends of epochs, the first half left out, over eight seeds."""
    every, methods = problem.most, jax.vmap(method)(jnp.asarray(stepsizes))
    keys = jax.random.split(KEY, 8)
    x0, steps = problem.start(problem.solution), epochs * every
    results = jd.sweep(jd.run, over=("algorithm", "key"))(
        methods, problem, RING, x0, keys, steps=steps, every=every
    )
    distance = results.history["distance_squared"]
    return distance[:, :, epochs // 2 :].mean(axis=(1, 2))


@pytest.mark.slow
def test_reshuffling_falls_with_the_square_of_the_stepsize_and_sgd_with_the_stepsize(noisy_sum):
    """Halving α takes SGD's error to a half and reshuffling's to a quarter at least.

    The theorem bounds the error of reshuffling by O(α²) (arXiv 2006.05988, theorem 1); on a fixed
    problem without its worst case it falls faster still.
    """
    stepsizes = np.array([0.04, 0.02, 0.01]) / float(noisy_sum.smoothness) * 8
    sgd = stationary_errors(jd.SGD, noisy_sum, stepsizes, 400)
    reshuffled = stationary_errors(jd.CentralizedRR, noisy_sum, stepsizes, 400)
    assert np.all((sgd[:-1] / sgd[1:] > 1.6) & (sgd[:-1] / sgd[1:] < 2.6))
    assert np.all(reshuffled[:-1] / reshuffled[1:] > 3.5)
    assert np.all(reshuffled[1:] < sgd[1:] / 15)


@pytest.mark.slow
@pytest.mark.parametrize(
    "method", [jd.GTSAGA, functools.partial(jd.GTSAGA, order="atc"), jd.GTSVRG, jd.GTVR]
)
def test_variance_reduction_converges_linearly_where_gradient_tracking_has_a_floor(
    method, noisy_sum
):
    stepsize = 0.1 / noisy_sum.smoothness
    reduced = run(method(stepsize), noisy_sum, steps=6000, every=20).history["gap"]
    one = jd.problems.Minibatch(noisy_sum, 1)
    floor = run(jd.GradientTracking(stepsize), one, steps=6000, every=500).history["gap"]
    assert floor[-4:].min() > 1e-6
    assert reduced[-1] < 1e-15
    first, second, third = (int(np.argmax(reduced < level)) for level in (1e-4, 1e-8, 1e-12))
    assert 0 < third - second < 1.5 * (second - first)


@pytest.mark.slow
def test_gt_vr_is_stationary_in_the_limit_where_f_is_not_convex():
    """At a constant stepsize, and where gradient tracking of single samples has a floor."""
    random = np.random.default_rng(2)
    features = random.standard_normal((8, 12, 3)) + np.arange(8)[:, None, None] / 8
    labels = np.where(features.sum(axis=2) + 2 * random.standard_normal((8, 12)) > 0, 1, -1)
    problem = jd.problems.nonconvex_logistic_regression(features, labels, weight=0.1)

    def squares(method, problem):
        x0 = problem.start(jnp.full(problem.d, 3.0))
        result = jd.run(method, problem, RING, x0, KEY, steps=8000, every=100)
        return result.history["gradient_norm_squared"]

    assert squares(jd.GTVR(0.1), problem)[-1] < 1e-25
    one = jd.problems.Minibatch(problem, 1)
    assert squares(jd.GradientTracking(0.1), one)[-10:].min() > 1e-6


@pytest.mark.slow
def test_gt_vr_with_a_snapshot_in_every_step_is_atc_gradient_tracking(noisy_sum):
    """And for smaller p, one an agent, the passes counted are those of the tosses."""
    problem = jd.problems.Minibatch(noisy_sum, 3)
    options = {"steps": 50, "every": 1, "metrics": {"x": lambda state, problem: state.x}}
    full = run(jd.ATCGT(0.01), noisy_sum, **options).history["x"]
    every = run(jd.GTVR(0.01, probability=1.0), problem, **options).history
    np.testing.assert_allclose(every["x"], full, atol=1e-13)
    assert every["gradients"][-1] == 50 * (2 * 3 + 12)
    p = np.linspace(0, 0.7, 8)
    method = jd.GTVR(0.01, probability=p[:, None])
    for network in (RING, jd.networks.Asleep(RING, 0.5)):
        expected, waiting = [0.0], np.ones(8, bool)
        for k in range(50):
            key = jax.random.fold_in(KEY, k)
            active = getattr(network.at(k, KEY), "active", None)
            active = np.ones(8, bool) if active is None else np.asarray(active)
            due = active & (waiting | (np.asarray(method.toss(key, 8)) < p))
            waiting &= ~active  # an agent's first step begins with a snapshot
            expected.append((active.sum() * 2 * 3 + due.sum() * 12) / 8)
        got = run(method, problem, network, **options).history["gradients"]
        np.testing.assert_allclose(got, np.cumsum(expected), rtol=1e-6)


def test_exact_diffusion_on_w_itself_needs_eigenvalues_above_minus_a_third():
    """Weights 0.4 on the ring of 8 give λ_min = -0.6: D² diverges there, (I + W)/2 does not."""
    problem = jd.problems.quadratic(8, 2)
    stepsize = 0.5 / problem.smoothness
    shift = np.roll(np.eye(8), 1, axis=0)
    heavy = jd.networks.mixing(0.2 * np.eye(8) + 0.4 * (shift + shift.T))
    assert heavy.eigenvalues.min() == pytest.approx(-0.6)
    assert run(jd.ExactDiffusion(stepsize), problem, heavy).history["gap"][-1] < 1e-25
    d2 = run(jd.ExactDiffusion(stepsize, relaxation=1.0), problem, heavy)
    assert d2.diverged or d2.history["consensus_error"][-1] > 1e10
    lazy = jd.networks.lazy_metropolis(jd.graphs.ring(8))
    there = run(jd.ExactDiffusion(stepsize, relaxation=1.0), problem, lazy)
    assert there.history["gap"][-1] < 1e-25


@pytest.mark.parametrize("form", ["all hear all", "ring"])
def test_the_mean_of_monna_with_the_mean_is_heavy_ball_sgd(form, noisy_sum):
    """x̄ₖ₊₁ = x̄ₖ − α (1 − β) ḡ(xₖ) + β (x̄ₖ − x̄ₖ₋₁), also with plain weights and with noise."""
    complete = jd.networks.robust(jd.networks.Complete(8), rule=jd.aggregators.Mean())
    network, beta, steps = RING if form == "ring" else complete, 0.9, 30
    heterogeneous = jd.problems.quadratic(8, 3, heterogeneity=3.0)
    for problem in (heterogeneous, jd.problems.Minibatch(noisy_sum, 1)):
        a, x0 = 0.3 / float(problem.smoothness), problem.start() + np.arange(8.0)[:, None]
        options = {"steps": steps, "every": 1, "metrics": {"x": lambda state, problem: state.x}}
        x = jd.run(jd.MoNNA(a, beta=beta), problem, network, x0, KEY, **options).history["x"]
        keys = jax.vmap(functools.partial(jax.random.fold_in, KEY))(jnp.arange(steps))
        g = np.mean(jax.vmap(problem.grad)(jnp.asarray(x[:-1]), keys), axis=1)
        means = [np.mean(x0, axis=0)] * 2
        for k in range(steps):
            before, now = means[-2:]
            means.append(now - a * (1 - beta) * g[k] + beta * (now - before))
        np.testing.assert_allclose(np.mean(x, axis=1), means[1:], atol=1e-12)
        apart = np.abs(x[1:] - np.mean(x[1:], axis=1, keepdims=True)).max()
        assert (apart < 1e-12) == (form != "ring")


@pytest.mark.slow
@pytest.mark.parametrize("method", [jd.DSGD, jd.GradientTracking, jd.ExactDiffusion])
def test_the_noise_floor_falls_as_one_over_n(method):
    """Least squares with minibatches of one, same data everywhere, 64 seeds, complete graph."""
    random = np.random.default_rng(0)
    a = random.standard_normal((40, 2))
    b = a @ np.ones(2) + random.standard_normal(40)
    keys = jax.random.split(KEY, 64)
    floors = []
    for n in (2, 8, 32):
        problem = jd.problems.Minibatch(
            jd.problems.least_squares(np.tile(a, (n, 1, 1)), np.tile(b, (n, 1))), 1
        )
        network = jd.networks.metropolis(jd.graphs.complete(n))
        curves = jd.sweep(jd.run, over=("key",))(
            method(0.02), problem, network, problem.start(), keys, steps=1500, every=10
        ).history["distance_squared"]
        floors.append(curves[:, -75:].mean())
    scaled = np.array(floors) * [2, 8, 32]
    assert scaled.max() / scaled.min() < 1.25


@pytest.mark.slow
@pytest.mark.optimized
@pytest.mark.parametrize("method", [jd.EXTRA, jd.ExactDiffusion, jd.GradientTracking])
@pytest.mark.parametrize("form", ["Circulant", "Dense", "Neighbors"])
def test_float32_does_not_drift_with_noise(method, form, float32):
    """Sums of duals and trackers stay rounding errors over 20,000 noisy heterogeneous steps."""
    n = 12
    random = np.random.default_rng(0)
    a = random.standard_normal((n, 20, 3)) + np.arange(n)[:, None, None] / 6
    b = a @ np.ones(3) + np.arange(n)[:, None] + random.standard_normal((n, 20))
    problem = jd.problems.Minibatch(jd.problems.least_squares(a, b), 2)
    network = jd.networks.mixing(
        jd.networks.metropolis(jd.graphs.ring(n)).matrix(), form=getattr(jd.networks, form)
    )
    stepsize = 0.05 / problem.smoothness
    result = jd.run(
        method(stepsize), problem, network, problem.start(), KEY, steps=20_000, every=10
    )
    state = result.state
    assert state.x.dtype == jnp.float32
    total = state.d if hasattr(state, "d") else state.y - state.g
    size = float(jnp.abs(state.d if hasattr(state, "d") else state.g).max())
    assert float(jnp.abs(total.mean(axis=0)).max()) < 1e-5 * max(size, 1.0)
    tail = result.history["distance_squared"][-500:].mean()
    assert tail < 0.05
