"""Methods that ask for values: FedZO and Just One Byte beside loops, their theorems and costs."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
from reference import black_boxes

import jaxdopt as jd
from jaxdopt.compressors import LogByte

N, D, STEPS = 6, 4, 25
SIZES = (5, 7, 4, 6, 5, 8)
KEY = jax.random.key(7)
SERVER = jd.networks.Server(N)
GRAPH = jd.graphs.erdos_renyi(N, 0.5, seed=3)


@functools.cache
def noisy(weights: Any = "agents"):
    """Minibatches of uneven, heterogeneous logistic regressions."""
    random = np.random.default_rng(0)
    features = [random.standard_normal((m, D)) + i / 4 for i, m in enumerate(SIZES)]
    labels = [np.where(f.sum(axis=1) + random.standard_normal(len(f)) > i, 1, -1)
              for i, f in enumerate(features)]  # fmt: skip
    whole = jd.problems.logistic_regression(features, labels, l2=0.1, weights=weights)
    return jd.problems.Minibatch(whole, 2)


@functools.cache
def quadratic(n=N, d=D):
    return jd.problems.quadratic(n, d, heterogeneity=1.0, curvature_spread=0.3)


def x_start():
    return jnp.asarray(np.random.default_rng(5).standard_normal((N, D)))


def values(problem):
    """The value of agent i at x [d] in step k, and local step l if there are any."""
    ask = jax.jit(lambda rows, key: problem.value(rows, key))

    return lambda i, x, k, *local: float(ask(jnp.zeros((N, D)).at[i].set(x), key_of(k, *local))[i])


def key_of(k, *local):
    """The key of step k, or of a local step."""
    key = jax.random.fold_in(KEY, k)
    return jax.random.fold_in(key, *local) if local else key


def estimates(state, problem):
    return state.server


def iterates(method, problem, network, **options):
    more = {"steps": STEPS, "metrics": {"x": estimates}, "defaults": (), **options}
    return jd.run(method, problem, network, x_start(), KEY, **more)


@pytest.mark.parametrize("weights", ["agents", "samples"])
def test_fed_zo_is_its_loop(weights):
    """With minibatches, weights, own stepsizes, rounds without anybody."""
    problem, steps, m, radius = noisy(weights), 6, 3, 0.05
    active = np.random.default_rng(2).random((steps, N)) < np.linspace(0.3, 0.9, N)
    active[3] = False
    rates = np.linspace(0.05, 0.3, N)
    method = jd.FedZO(jnp.asarray(rates)[:, None], local_steps=2, directions=m, radius=radius)
    drawn, shares = jax.jit(method.estimated(problem).drawn), np.asarray(problem.shares)
    value = values(problem)
    expected = black_boxes.fed_zo(
        lambda i, *at: value(i, *at) / shares[i],
        active,
        x_start().mean(axis=0),
        lambda k: rates,
        steps,
        direction=lambda i, k, local: drawn(key_of(k, local))[i],
        local_steps=2,
        radius=radius,
        p=shares / N,
    )
    network = jd.networks.participation.Trace(jnp.asarray(active), N)
    run = iterates(method, problem, network, steps=steps)
    np.testing.assert_allclose(run.history["x"], expected, rtol=1e-10, atol=1e-10)
    asked = 2 * (m + 1) * active.mean(axis=1)
    np.testing.assert_allclose(np.diff(run.history["queries"]), asked, rtol=1e-6)
    np.testing.assert_allclose(run.history["gradients"], 2 * run.history["queries"], rtol=1e-6)
    np.testing.assert_allclose(np.diff(run.history["bits_up"]), 32 * D * active.mean(axis=1))


def test_fed_zo_is_fed_avg_on_estimates():
    """With few clients that are gathered: directions follow the client."""
    network = jd.networks.participation.uniform(N, 2)
    method = jd.FedZO(0.1, local_steps=3, directions=2)
    run = iterates(method, quadratic(), network)
    estimated = method.estimated(quadratic())
    same = iterates(jd.FedAvg(0.1, local_steps=3), estimated, network)
    np.testing.assert_allclose(run.history["x"], same.history["x"], rtol=1e-12)
    for name in ("queries", "gradients", "epochs", "seconds", "rounds", "bits"):
        np.testing.assert_allclose(run.history[name], same.history[name], err_msg=name)
    masks = jnp.stack([
        jnp.isin(jnp.arange(N), network.at(k, KEY).clients) for k in range(STEPS)
    ])  # fmt: skip
    masked = iterates(method, quadratic(), jd.networks.participation.Trace(masks, N))
    np.testing.assert_allclose(run.history["x"], masked.history["x"], rtol=1e-11, atol=1e-12)


def test_fed_zo_with_many_directions_is_fed_avg():
    method = jd.FedZO(0.1, local_steps=2, directions=4000, radius=1e-6)
    x = iterates(method, quadratic(), SERVER, steps=4).state.server
    exact = iterates(jd.FedAvg(0.1, local_steps=2), quadratic(), SERVER, steps=4).state.server
    assert jnp.linalg.norm(x - exact) < 0.05 * jnp.linalg.norm(exact - x_start().mean(axis=0))


@pytest.mark.parametrize("code", [None, LogByte()], ids=["32 bits", "a byte"])
def test_just_one_byte_is_its_loop(code):
    """With minibatches; one scalar an agent and step, and the direction that it belongs to."""
    problem, radius, eta, steps = noisy("samples"), 0.01, 0.2, 8
    method = jd.JustOneByte(eta, radius=radius, code=code)
    draw = jax.jit(lambda key, i: method.direction(key, i, jnp.zeros(D)))
    value = values(problem)
    expected, scalars = black_boxes.just_one_byte(
        lambda i, x, k, _: value(i, x, k),
        np.ones((steps, N), bool),
        x_start().mean(axis=0),
        lambda k: eta,
        steps,
        direction=lambda i, k: draw(key_of(k), i),
        radius=radius,
        code=None if code is None else black_boxes.log_byte,
    )
    run = iterates(method, problem, SERVER, steps=steps, metrics={"x": estimates, "sent": sent_of})
    np.testing.assert_allclose(run.history["x"], expected, rtol=1e-10, atol=1e-10)
    sent = run.history["sent"][1:]
    assert sent.dtype == (np.int8 if code else np.float64)
    np.testing.assert_allclose(code.decode(jnp.asarray(sent)) if code else sent, scalars, rtol=1e-8)


def sent_of(state, problem):
    return state.scalars


def test_in_32_bits_it_is_distributed_spsa():
    """Gradient descent on two-point estimates, with the same directions."""
    run = iterates(jd.JustOneByte(0.1, code=None), quadratic(), SERVER)
    spsa = jd.problems.ZerothOrder(quadratic())
    same = jd.run(jd.GradientDescent(0.1), spsa, SERVER, x_start(), KEY, steps=STEPS)
    np.testing.assert_allclose(run.state.x, same.state.x, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(run.history["queries"], same.history["queries"])


@pytest.mark.parametrize("n", [pytest.param(1, marks=pytest.mark.slow), 4, 16])
def test_the_variance_of_a_step_is_known_exactly(n):
    """(d + 1) Σ |gᵢ|² / n² on quadratics, whatever the radius, so 1/n of one machine's."""
    d, draws = 20, 4000
    problem = jd.problems.quadratic(n, d, heterogeneity=0.0)
    method = jd.JustOneByte(1.0, code=None, radius=0.1)
    state = method.init(problem.start(), problem, jd.networks.Server(n), KEY)
    step = jax.jit(jax.vmap(lambda key: method.step(state, problem, SERVER, key).server))
    moves = np.asarray(step(jax.random.split(KEY, draws)))
    own = np.asarray(problem.grad(problem.start()))
    law = (d + 1) * np.sum(own**2) / n**2
    assert abs(moves.var(axis=0).sum() / law - 1) < 0.06
    mean = -own.mean(axis=0)
    assert np.all(np.abs(moves.mean(axis=0) - mean) < 5 * moves.std(axis=0) / draws**0.5)


@pytest.mark.parametrize(
    ("wide", "code"),
    [(True, LogByte()), (False, None), pytest.param(False, LogByte(), marks=pytest.mark.slow)],
)
def test_a_machine_joins_by_replaying_the_log(wide, code):
    """Bit for bit, from the start or in two parts, with a stepsize that changes."""
    with jax.enable_x64(wide):
        problem = jd.problems.quadratic(N, D, heterogeneity=1.0)
        method = jd.JustOneByte(jd.schedules.InverseTime(0.3, 10.0), code=code)
        options: dict[str, Any] = {"steps": STEPS, "metrics": {"sent": sent_of}}
        run = jd.run(method, problem, SERVER, problem.start(), KEY, **options)
        log, x0 = jnp.asarray(run.history["sent"][1:]), problem.start()[0]
        joined = method.replay(x0, log, KEY)
        np.testing.assert_array_equal(joined, run.state.server)
        before = method.replay(x0, log[:10], KEY)
        later = method.replay(before, log[10:], KEY, start=10)
        np.testing.assert_array_equal(later, run.state.server)
        assert joined.dtype == run.state.x.dtype
        other = method.replay(x0, log, jax.random.key(8))
        assert jnp.linalg.norm(other - joined) > 0.03


def test_on_a_graph_it_is_the_servers_trajectory_and_a_step_is_a_flood():
    method, problem = jd.JustOneByte(0.2), quadratic()
    served = iterates(method, problem, SERVER)
    x = served.history["x"]
    links = 2 * GRAPH.number_of_edges()
    for network, rounds, edges in (
        (jd.networks.metropolis(GRAPH), nx.diameter(GRAPH), links),
        (jd.networks.Complete(N), 1, N * (N - 1)),
    ):
        flooded = iterates(method, problem, network)
        np.testing.assert_array_equal(flooded.history["x"], x)
        last = {name: flooded.history[name][-1] / STEPS for name in flooded.history if name != "x"}
        assert last["rounds"] == rounds
        assert last["bits"] == 8 * N
        assert last["traffic"] == 8 * N * edges
        assert last["queries"] == last["gradients"] == 2
        assert last["vectors"] == 0


def test_the_diameter_is_that_of_the_graph():
    for graph in (jd.graphs.ring(7), jd.graphs.erdos_renyi(7, 0.4, seed=1), jd.graphs.star(7)):
        links = jd.networks.metropolis(graph).links
        assert int(jax.jit(lambda links: links.diameter())(links)) == nx.diameter(graph)
    cut = jd.networks.RandomLinks(jd.networks.metropolis(jd.graphs.ring(7)), 0.0).at(0, KEY)
    assert int(cut.links.diameter()) == 0


def test_bits_do_not_depend_on_the_dimension():
    for d in (3, 100):
        x = jnp.zeros((N, d))
        for code, bits in ((LogByte(), 8), (None, 32)):
            method = jd.JustOneByte(0.1, code=code)
            state = method.init(x, quadratic(), SERVER, KEY)
            cost = method.cost(state, quadratic(), SERVER)
            assert (cost.up, cost.down) == (bits, N * bits)


def test_queries_are_the_calls_that_are_made():
    asked = []

    def value(x, sample, key):
        jax.debug.callback(lambda one: asked.append(one), x[0])
        return jnp.sum((x - sample) ** 2)

    problem = jd.problems.BlackBox(value, jnp.arange(float(N)), jnp.ones(D))
    local = jd.FedZO(0.1, local_steps=2, directions=3)
    for method, queries in ((jd.JustOneByte(0.1), 10), (local, 40)):
        asked.clear()
        run = jd.run(method, problem, SERVER, problem.start(), KEY, steps=5)
        jax.effects_barrier()
        assert len(asked) == N * run.history["queries"][-1]
        assert run.history["queries"][-1] == queries


METHODS = [jd.JustOneByte, jd.FedZO]


@pytest.mark.parametrize("kind", [jd.JustOneByte, pytest.param(jd.FedZO, marks=pytest.mark.slow)])
def test_numbers_sweep_in_one_program(kind):
    traces = []

    def traced(state, problem):
        traces.append(state)
        return state.x

    problem, network = noisy(), SERVER

    def last(rate, radius, key):
        options: dict[str, Any] = {"steps": 4, "metrics": {"x": traced}, "defaults": ()}
        method = kind(rate, radius=radius)
        return jd.run(method, problem, network, x_start(), key, **options).state.x

    singles = [last(0.1, 1e-2, KEY), last(0.2, 1e-3, KEY)]
    before = len(traces)
    last(0.3, 0.3, jax.random.key(1))
    assert len(traces) == before
    numbers = jnp.array([0.1, 0.2]), jnp.array([1e-2, 1e-3])
    together = jax.jit(jax.vmap(last, (0, 0, None)))(*numbers, KEY)
    np.testing.assert_allclose(together, singles, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("kind", METHODS)
def test_init_asks_for_nothing_and_starts_at_the_mean(kind):
    class Silent:
        n, d = N, D

        def value(self, x, key):
            raise AssertionError("init must not ask")

    state = kind(0.1).init(x_start(), Silent(), SERVER, KEY)
    np.testing.assert_allclose(state.x, np.tile(x_start().mean(axis=0), (N, 1)), atol=1e-15)


@pytest.mark.parametrize("kind", METHODS)
def test_float32_stays_float32(kind, float32):
    problem = jd.problems.quadratic(N, D)

    def go(problem, x0):
        result = jd.run(kind(0.1), problem, SERVER, x0, KEY, steps=4)
        return result.state, result.metrics, result.costs, result.state.x

    leaves = jax.tree.leaves(jax.eval_shape(go, problem, problem.start()))
    floats = {leaf.dtype for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)}
    assert floats == {np.dtype(np.float32)}


@pytest.mark.slow
def test_bytes_follow_32_bits_and_both_descend():
    runs = [
        jd.run(jd.JustOneByte(0.05, code=code), quadratic(), SERVER, x_start() + 2, KEY, steps=400)
        for code in (None, LogByte())
    ]
    gaps = [run.history["gap"] for run in runs]
    assert gaps[0][-1] < 0.02 * gaps[0][0]
    np.testing.assert_allclose(np.log(gaps[1][:100]), np.log(gaps[0][:100]), atol=0.35)


class TestBytes:
    def test_it_is_the_loop(self):
        random = np.random.default_rng(0)
        g = np.exp(random.uniform(-12, 12, 300)) * random.choice([-1, 1], 300)
        expected = [*map(black_boxes.log_byte, g)]
        np.testing.assert_allclose(LogByte()(KEY, jnp.asarray(g)[None])[0], expected, rtol=1e-13)

    def test_every_symbol_is_read_as_it_was_written(self):
        symbols = jnp.arange(-127, 128).astype(jnp.int8)
        for dtype in (jnp.float64, jnp.float32):
            numbers = LogByte().decode(symbols, dtype)
            assert numbers.dtype == dtype
            np.testing.assert_array_equal(LogByte().encode(numbers), symbols)
        assert len(np.unique(numbers)) == 255

    @pytest.mark.parametrize("steps", [8.0, 4.0, 16.0])
    def test_the_error_in_range_is_bounded(self, steps):
        code = LogByte(steps)
        low, high = np.exp(-63 / steps), np.exp(63 / steps)
        g = np.geomspace(low, high, 20_001) * np.resize([1, -1], 20_001)
        error = np.abs(np.asarray(code(KEY, jnp.asarray(g)[None]))[0] / g - 1)
        bound = np.exp(1 / (2 * steps)) - 1
        assert bound * 0.99 < error.max() <= bound * (1 + 1e-9)
        np.testing.assert_allclose(np.mean(error**2), code.error(1), rtol=0.05)

    def test_zero_small_large_and_what_is_no_number(self):
        g = jnp.array([0.0, 1e-9, -1e-9, 1e9, -jnp.inf, jnp.nan])
        assert LogByte().encode(g).tolist() == [0, 1, -1, 127, -127, -128]
        read = np.asarray(LogByte()(KEY, g[None])[0])
        ends = np.exp([-63 / 8, 63 / 8])
        np.testing.assert_allclose(read, [0, ends[0], -ends[0], ends[1], -ends[1], np.nan])

    def test_it_is_a_compressor_of_rows(self):
        method = jd.CHOCOSGD(0.05, LogByte(), consensus_stepsize=0.5)
        ring = jd.networks.metropolis(jd.graphs.ring(N))
        run = jd.run(method, quadratic(), ring, x_start(), KEY, steps=300)
        assert run.history["bits"][-1] == 300 * 8 * D
        assert run.history["gap"][-1] < 0.1 * run.history["gap"][0]
        assert not jd.compressors.is_unbiased(LogByte())

    def test_more_than_a_byte_is_refused(self):
        with pytest.raises(ValueError, match="top is 64; give at most 63, as a byte has 256"):
            LogByte(top=64)
        with pytest.raises(ValueError, match="steps is 0; give more than 0"):
            LogByte(steps=0)
        with pytest.raises(
            ValueError, match=r"code is 8; give jd.compressors.LogByte\(\), or None"
        ):
            jd.JustOneByte(0.1, code=8)


def test_divergence_is_seen_through_the_byte():
    """What is not a number has a symbol of its own."""
    problem = jd.problems.BlackBox(lambda x, a, key: jnp.log(-jnp.sum(x**2)), None, jnp.ones(D),
                                   agents=N)  # fmt: skip
    run = jd.run(jd.JustOneByte(0.1), problem, SERVER, problem.start(), KEY, steps=2)
    assert bool(run.diverged)


def test_who_is_absent_is_refused_and_own_radii_too():
    problem = quadratic()
    partly = jd.networks.participation.uniform(N, 2)
    with pytest.raises(ValueError, match="JustOneByte needs all agents in every round"):
        jd.run(jd.JustOneByte(0.1), problem, partly, x_start(), KEY, steps=2)
    rows = jd.networks.row_stochastic(jd.graphs.directed_ring(N))
    with pytest.raises(ValueError, match="JustOneByte needs a server, or links over which"):
        jd.run(jd.JustOneByte(0.1), problem, rows, x_start(), KEY, steps=2)
    for make in (jd.JustOneByte, jd.FedZO):
        with pytest.raises(ValueError, match=r"radius has shape \(6, 1\); give one number for all"):
            make(0.1, radius=np.ones((N, 1)))
