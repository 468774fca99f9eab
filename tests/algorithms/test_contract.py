"""What every method of the catalogue promises, asked of one compiled program a row."""

import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import ROWS

import jaxdopt as jd

N, D = 6, 3
SIZES = (5, 7, 4, 6, 5, 8)
KEY = jax.random.key(7)


@pytest.fixture(scope="module", params=ROWS, ids=lambda row: row.name)
def row(request):
    """All that is asked of one method comes before the next, so that tests share its programs."""
    yield request.param
    jax.clear_caches()


@functools.cache
def problems():
    """Three noisy, uneven, heterogeneous logistic regressions of one structure."""
    made = []
    for seed in range(3):
        random = np.random.default_rng(seed)
        features = [random.standard_normal((m, D)) for m in SIZES]
        labels = [np.where(f[:, 0] + i / 3 + random.standard_normal(len(f)) > 1, 1, -1)
                  for i, f in enumerate(features)]  # fmt: skip
        solved = jd.problems.logistic_regression(features, labels, l2=0.1)
        made.append(jd.problems.Minibatch(solved, 3))
    return made


@functools.cache
def networks():
    """Two matrices on one irregular graph, as `Dense`."""
    graph = jd.graphs.erdos_renyi(N, 0.5, seed=3)
    plain, lazy = (f(graph) for f in (jd.networks.metropolis, jd.networks.lazy_metropolis))
    return [jd.networks.mixing(w.matrix(), form=jd.networks.Dense) for w in (plain, lazy)]


def x_start():
    return jnp.asarray(np.random.default_rng(5).standard_normal((N, D)))


def stacked(members):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)


def smooth(row, n=N, m=1, equal=False):
    """A quadratic; for methods that draw samples a sum of m squares an agent, whose facts agree."""
    if not row.samples:
        return jd.problems.quadratic(
            n, D, heterogeneity=0.0 if equal else 1.0, curvature_spread=0.0 if equal else 0.3
        )
    random = np.random.default_rng(2)
    features = np.resize(np.eye(D), (m, D)) + random.standard_normal((1 if equal else n, m, D)) / 2
    labels = random.standard_normal((len(features), m)) + 1
    features, labels = (np.broadcast_to(a, (n, *a.shape[1:])) for a in (features, labels))
    return jd.problems.least_squares(features, labels, l2=0.3)


def run(method, problem, network, key, **options):
    return jd.run(method, problem, network, x_start(), key, **{"steps": 6, "every": 2, **options})


def test_one_program_serves_every_number_and_every_batch(row):
    chex.clear_trace_counter()
    traced = chex.assert_max_traces(run, 2)  # one for the single run, one for the batch
    one = jax.jit(traced)
    methods = [row.build(8.0), row.build(6.0), row.build(5.0)]
    weights = [networks()[0], networks()[1], networks()[0]]
    keys = jax.random.split(KEY, 3)
    members = list(zip(methods, problems(), weights, keys, strict=True))
    singles = [one(*member) for member in members]
    batch = jax.jit(jax.vmap(traced))(*(stacked(part) for part in zip(*members, strict=True)))
    for i, single in enumerate(singles):
        for name, values in single.history.items():
            np.testing.assert_allclose(
                values, batch.history[name][i], rtol=1e-9, atol=1e-12, err_msg=name
            )
        assert not np.allclose(single.history["loss"][-1], singles[i - 1].history["loss"][-1])


def test_init_sends_nothing_takes_no_gradient_and_keeps_x0(row):
    class Silent:
        n, d, symmetric, k, most, sender = N, D, True, None, 8, np.zeros((N, 3), int)

        def __matmul__(self, x):
            raise AssertionError("init must not communicate")

        laplacian = hear = swap = __matmul__
        links = property(lambda self: self)

        def grad(self, x, key):
            raise AssertionError("init must not take gradients")

        grad_at = draw = grad

        def permutation(self, key):
            return np.zeros((N, self.most), int)

    state = row.build(1.0).init(x_start(), Silent(), Silent(), KEY)
    np.testing.assert_array_equal(state.x, x_start())


def test_the_method_is_a_pytree(row):
    method = row.build(2.0)
    leaves, treedef = jax.tree.flatten(method)
    again = jax.tree.unflatten(treedef, leaves)
    assert type(again) is row.method
    assert jax.tree.leaves(again) == leaves
    odd = jax.tree.map(lambda _: "anything", method)
    assert set(jax.tree.leaves(odd)) == {"anything"}
    assert isinstance(row.method(stepsize=1).stepsize, float)


def test_a_loop_written_by_hand_is_the_run(row):
    method, problem, network = row.build(4.0), problems()[0], networks()[0]
    result = run(method, problem, network, KEY)
    step = jax.jit(method.step)
    state = method.init(x_start(), problem, network.at(0, KEY), KEY)
    for k in range(6):
        key = jax.random.fold_in(KEY, k)
        state = step(state, problem, network.at(k, KEY), key)
    chex.assert_trees_all_close(state, result.state, rtol=1e-12, atol=1e-13)


def test_a_continued_run_is_the_whole_run(row):
    method, problem, network = row.build(4.0), problems()[0], networks()[0]
    whole = run(method, problem, network, KEY)
    state, losses = method.init(x_start(), problem, network.at(0, KEY), KEY), []
    for start in (0, 2, 4):
        part = jd.run(
            method, problem, network, None, KEY, steps=2, every=2, state=state, start=start
        )
        assert part.history["step"].tolist() == [start, start + 2]
        losses.append(part.history["loss"].tolist())
        state = part.state
    chex.assert_trees_all_equal(state, whole.state)
    assert [before for before, _ in losses] == whole.history["loss"][:3].tolist()
    assert [after for _, after in losses] == whole.history["loss"][1:].tolist()


def test_costs_are_what_a_step_really_does(row):
    """Count the calls; every mixed or differenced leaf is a vector sent."""
    batch = 1 if row.samples else 3
    problem = jd.problems.Minibatch(problems()[0].problem, batch)
    calls = {"gradients": 0, "vectors": 0, "links": int(networks()[0].link_count)}

    class Counting:
        n, d, samples = N, D, problem.samples

        def grad(self, x, key):
            full = row.samples  # it asks for the full gradient where it asks for a gradient
            calls["gradients"] += problem.size if full else problem.samples
            return problem.problem.grad(x) if full else problem.grad(x, key)

        def grad_at(self, x, indices):
            calls["gradients"] += np.size(indices) // N
            return problem.grad_at(x, indices)

        def __getattr__(self, name):
            return getattr(problem.problem, name)

    class Wire:
        n, symmetric = N, True

        def __init__(self, k):
            self.k = self.time = k

        def __matmul__(self, x):
            calls["vectors"] += len(jax.tree.leaves(x))
            return networks()[0] @ x

        def laplacian(self, x):
            calls["vectors"] += len(jax.tree.leaves(x))
            return networks()[0].laplacian(x)

        @property
        def links(self):
            return Overheard(*jax.tree.leaves(networks()[0].links))

    class Overheard(jd.networks.Links):
        def hear(self, x):
            calls["vectors"] += 1
            return super().hear(x)

        def swap(self, edges):
            calls["vectors"] += 1
            return super().swap(edges)

    method = row.build(4.0)
    history = run(method, problem, networks()[0], KEY).history

    def two_steps(key):
        state = method.init(x_start(), Counting(), Wire(None), key)
        for k in range(2):
            state = method.step(state, Counting(), Wire(k), jax.random.fold_in(key, k))

    if row.samples:  # branches that are not taken must not count
        with jax.disable_jit():
            two_steps(KEY)
    else:
        jax.eval_shape(two_steps, KEY)
    np.testing.assert_allclose(history["gradients"][1], calls["gradients"], rtol=1e-6)
    if not row.samples:
        assert history["gradients"].tolist() == [calls["gradients"] * k for k in (0, 1, 2, 3)]
    if row.gossips:
        assert calls["vectors"] == 2 * row.vectors
    else:
        assert calls["vectors"] == 0  # the centralized yardstick counts as one exchange
    assert history["rounds"].tolist() == [row.exchanges * k for k in (0, 2, 4, 6)]
    assert history["vectors"].tolist() == [row.vectors * k for k in (0, 2, 4, 6)]
    assert history["bits"][-1] == 6 * row.vectors * D * 64
    assert history["traffic"][-1] == 6 * row.vectors * D * 64 * calls["links"]
    epochs = history["gradients"][-1] / np.mean(SIZES)
    np.testing.assert_allclose(history["epochs"][-1], epochs, rtol=1e-6)


def test_invariants_hold_with_noise_and_any_start(row):
    result = run(row.build(4.0), problems()[1], networks()[0], KEY, steps=500, every=500)
    scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(result.state))
    for invariant in row.invariants:
        np.testing.assert_allclose(invariant(result.state), 0, atol=1e-11 * N * scale)


def test_exact_methods_stay_at_the_solution_and_others_leave_it(row):
    problem = smooth(row, m=4)
    x0 = problem.start(problem.solution)
    network = networks()[0]
    result = jd.run(
        row.build(problem.smoothness), problem, network, x0, KEY, steps=3000, every=3000
    )
    error = float(result.history["distance_squared"][-1] + result.history["consensus_error"][-1])
    assert error < 1e-22 if row.exact else error > 1e-4


def test_on_the_complete_graph_with_equal_data_it_is_gradient_descent(row):
    problem = smooth(row, equal=True)
    start = problem.start(jnp.arange(1.0, D + 1))
    stepsize = 0.4 / problem.smoothness
    complete = jd.networks.metropolis(jd.graphs.complete(N))
    method = row.method(stepsize / row.shrinks)
    ours = jd.run(method, problem, complete, start, KEY, steps=20)
    central = jd.run(jd.GradientDescent(stepsize), problem, complete, start, KEY, steps=20)
    np.testing.assert_allclose(ours.state.x, central.state.x, atol=1e-13)


def test_relabelling_the_agents_commutes_with_a_run(row):
    problem = smooth(row)
    matrix = np.asarray(networks()[0].matrix())
    order = np.array([3, 1, 5, 0, 4, 2])
    form = jd.networks.Neighbors if row.weighs else jd.networks.Dense
    plain = jd.networks.mixing(matrix, form=form)
    permuted = jd.networks.mixing(matrix[np.ix_(order, order)], form=form)
    method = row.build(problem.smoothness)
    here = jd.run(method, problem, plain, x_start(), KEY, steps=10).state
    there = jd.run(
        method, problem.take(jnp.asarray(order)), permuted, x_start()[order], KEY, steps=10
    ).state
    if not row.weighs:  # variables of links come in the order of the neighbors
        here, there = here.x, there.x
    elif np.shape(getattr(here, "begun", np.zeros(N))) == ():  # what is no agent's
        here, there = (jd.replace(state, begun=None) for state in (here, there))
    here = jd.agents.take(here, jnp.asarray(order))
    chex.assert_trees_all_close(here, there, rtol=1e-11, atol=1e-12)


def test_gradients_through_twenty_steps_match_finite_differences(row):
    """With respect to the stepsize and to every weight, in a random direction."""
    problem = problems()[0]
    form = jd.networks.Dense if row.name < "G" else jd.networks.Neighbors
    network: Any = jd.networks.mixing(networks()[0].matrix(), form=form)

    def final_gap(stepsize, weights):
        method = jd.replace(row.build(4.0), stepsize=stepsize)
        there = jd.replace(network, weights=weights)
        return run(method, problem, there, KEY, steps=20, every=20).history["gap"][-1]

    at = (jnp.asarray(0.1), network.weights)
    direction = (1.0, np.random.default_rng(0).standard_normal(network.weights.shape))
    direction[1][network.weights == 0] = 0  # no new links
    slopes = jax.grad(final_gap, argnums=(0, 1))(*at)
    small = 1e-5
    shifted = [final_gap(*(a + s * small * b for a, b in zip(at, direction, strict=True)))
               for s in (1, -1)]  # fmt: skip
    expected = (shifted[0] - shifted[1]) / (2 * small)
    analytic = sum(jnp.vdot(a, b) for a, b in zip(slopes, direction, strict=True))
    np.testing.assert_allclose(analytic, expected, rtol=1e-6)
    assert np.all(np.isfinite(slopes[1]))
    assert (np.abs(slopes[1]).max() > 0) == (row.gossips and row.weighs)


def test_a_directed_network_is_refused_where_the_theory_needs_symmetry(row):
    problem = smooth(row, m=2)
    directed = jd.networks.metropolis(jd.graphs.directed_ring(N))
    method = row.build(10 * problem.smoothness)  # complex eigenvalues want a smaller step
    if row.needs:
        with pytest.raises(ValueError, match=row.needs):
            jd.run(method, problem, directed, problem.start(), KEY, steps=1)
    else:
        result = jd.run(method, problem, directed, problem.start(), KEY, steps=20_000, every=20_000)
        # an objective summed over samples has no gaps below its rounding
        error = result.history["distance_squared" if row.samples else "gap"][-1]
        assert (float(error) < 1e-20) == row.exact


def test_one_agent_alone_runs_gradient_descent(row):
    problem = smooth(row, n=1)
    alone = jd.networks.metropolis(jd.graphs.ring(1))
    stepsize = 0.5 / problem.smoothness
    ours = jd.run(row.method(stepsize), problem, alone, problem.start(), KEY, steps=30)
    central = jd.run(jd.GradientDescent(stepsize), problem, alone, problem.start(), KEY, steps=30)
    np.testing.assert_allclose(ours.state.x, central.state.x, atol=1e-13)


def test_gradients_of_your_own_take_one_step(row):
    network, x0 = networks()[0], x_start()
    problem = problems()[0].problem  # full gradients
    given = jd.problems.Given(problem.grad(x0, KEY))
    method = row.build(4.0)
    if row.samples:
        with pytest.raises(ValueError, match="no samples to draw from"):
            method.init(x0, given, network, KEY)
        return
    state = method.init(x0, problem, network, KEY)
    if not row.gossips:
        state = jd.replace(state, x=jnp.broadcast_to(x0.mean(axis=0), x0.shape))
        given = jd.problems.Given(problem.grad(state.x, KEY))
    ours = method.step(state, given, network, KEY)
    chex.assert_trees_all_close(ours, method.step(state, problem, network, KEY), atol=1e-13)


def test_float32_stays_float32(row, float32):
    problem = smooth(row)
    network = jd.networks.metropolis(jd.graphs.ring(N))
    result = jd.run(row.build(problem.smoothness), problem, network, problem.start(), KEY, steps=4)
    leaves = [leaf for name, leaf in vars(result.state).items() if name != "order"]
    assert {leaf.dtype for leaf in leaves} == {np.dtype(np.float32)}
    assert result.history["loss"].dtype == np.float32
    assert result.history["bits"].dtype == np.float64
