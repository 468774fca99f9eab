"""EDiT, A-EDiT and asynchronous DiLoCo: against NumPy loops on three leaves, on the clock."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from reference import outer_loops

import jaxdopt as jd
from jaxdopt.networks import arrivals, dynamic_calls

N, K, ROUNDS = 4, 5, 16
KEY = jax.random.key(6)
TIMES = [1.0, 1.25, 2.5, 5.5]
ADAM = optax.scale_by_adam()
LEAVES = [(0, 2), (2, 1), (3, 6)]
SERVER = jd.networks.Server(N)
NORMS = {"clip": 0.25, "threshold": 1.0, "decay": 0.3, "warmup": 2}
OPTIMIZERS = {"local": outer_loops.Adam, "server": lambda: outer_loops.Nesterov(0.85)}


def squares(params, sample):
    a, b = sample
    away = a @ params["w"] + params["b"] - b
    return jnp.sum(away**2) / 2 + jnp.sum((params["c"] - b[0]) ** 2)


@functools.cache
def problem(equal=False):
    """Heterogeneous regressions of pairs, in three leaves."""
    random = np.random.default_rng(2)
    features = np.array(random.standard_normal((N, 6, 3)))
    labels = random.standard_normal((N, 6, 2)) + np.arange(N)[:, None, None]
    if equal:
        features, labels = (np.broadcast_to(part[:1], part.shape) for part in (features, labels))
    params = {"b": np.zeros(2), "c": np.zeros(1), "w": np.zeros((3, 2))}
    return jd.problems.FiniteSum(squares, (features, labels), params)


@functools.cache
def of_agents():
    return jax.jit(problem().grad)


def gradient(i, x, *_):
    return np.asarray(of_agents()(jnp.broadcast_to(x, (N, len(x))), KEY))[i]


def start():
    return 0.3 * np.random.default_rng(9).standard_normal(problem().d)


def servers(state, problem):
    return state.server


def run(method, network, steps=ROUNDS, where=None, **more):
    where = problem() if where is None else where
    x0 = jnp.broadcast_to(start(), (N, where.d))
    return jd.run(method, where, network, x0, KEY, steps=steps, metrics={"x": servers}, **more)


def tables():
    return np.tile(np.asarray(TIMES)[:, None], (1, 200))


@functools.cache
def dynamic(**rule):
    """Visits that last about as long as each other's."""
    rule = rule or {"rule": "each"}
    return arrivals(N, compute=TIMES, calls=dynamic_calls(TIMES, K), **rule, steps=ROUNDS)


class TestEDiT:
    def test_trajectories_are_those_of_the_loop(self):
        there = np.random.default_rng(1).random((ROUNDS, N)) < 0.8
        there[5] = False
        method = jd.EDiT(0.02, 0.7, K, local=ADAM, **NORMS)
        loop = functools.partial(outer_loops.edit, leaves=LEAVES, **OPTIMIZERS, **NORMS)
        expected = loop(gradient, there, start(), lambda k: 0.02, ROUNDS, K, 0.7)
        network = jd.networks.participation.Trace(jnp.asarray(there), N)
        found = run(method, network).history
        np.testing.assert_allclose(found["x"], expected, rtol=1e-10, atol=1e-10)
        bits = 32 * (problem().d + len(LEAVES)) * there.mean(axis=1).cumsum()
        for name in ("bits", "bits_up", "bits_down"):
            np.testing.assert_allclose(found[name][1:], bits, rtol=1e-6)

    @pytest.mark.slow
    def test_with_equal_norms_and_nothing_clipped_it_is_diloco(self):
        given = {"local_steps": K, "server": optax.trace(0.85, nesterov=True), "local": ADAM}
        ours = run(jd.EDiT(0.02, 0.8, clip=1e9, **given), SERVER, where=problem(equal=True))
        theirs = run(jd.DiLoCo(0.02, 0.8, **given), SERVER, where=problem(equal=True))
        np.testing.assert_allclose(ours.state.server, theirs.state.server, rtol=1e-12)

    def test_a_spike_is_as_if_its_worker_were_absent(self):
        """Of one round, in which a worker's stepsize is 50 times as large."""
        rounds, spike = 12, 10
        sizes = np.full((rounds, N, 1), 1e-3)
        sizes[spike, 2] *= 50
        table = jnp.asarray(sizes)
        there = np.ones((rounds, N), bool)
        there[spike, 2] = False
        numbers = {"local_steps": 1, "threshold": 6.0, "decay": 0.3, "warmup": 6.0}
        method = jd.EDiT(lambda k: table[k], **numbers)
        absent = jd.networks.participation.Trace(jnp.asarray(there), N)
        x, without = (run(method, network, rounds).history["x"] for network in (SERVER, absent))
        np.testing.assert_allclose(x[spike + 1], without[spike + 1], rtol=1e-12)
        trusting = jd.replace(method, threshold=1e9)
        moved = run(trusting, SERVER, rounds).history["x"][spike + 1] - x[spike + 1]
        assert np.abs(moved).max() > 1e-3

    def test_where_all_are_outliers_the_leaf_stays(self):
        sizes = jnp.where(jnp.arange(8) == 7, 1.0, 1e-3)
        numbers = {"local_steps": 1, "decay": 0.3, "warmup": 4.0, "server": None}
        x = run(jd.EDiT(lambda k: sizes[k], **numbers), SERVER, 8).history["x"]
        assert np.array_equal(x[8], x[7])
        assert np.all(x[7] != x[6])

    def test_what_the_outer_optimizer_gets_is_clipped_leaf_by_leaf(self):
        x = run(jd.EDiT(0.3, 1.0, K, clip=0.01, server=None), SERVER, 2).history["x"]
        norms = problem().leaves.norms(jnp.diff(x, axis=0))
        np.testing.assert_allclose(norms, 0.01, rtol=1e-5)

    def test_a_problem_without_leaves_is_refused(self):
        class Plain:
            n, d = N, 3

            def grad(self, x, key):
                return x

        with pytest.raises(ValueError, match="EDiT works leaf by leaf, and a Plain does not say"):
            jd.run(jd.EDiT(0.1), Plain(), SERVER, jnp.zeros((N, 3)), KEY, steps=1)


class TestReturns:
    @pytest.mark.parametrize(
        "rule",
        [{"rule": "each"}, pytest.param({"every": 5.5}, marks=pytest.mark.slow)],
        ids=["each", "every"],
    )
    @pytest.mark.parametrize("name", ["AsyncDiLoCo", "AEDiT"])
    def test_trajectories_are_those_of_the_loop(self, name, rule):
        """Steps of unequal number, local memories, delayed momentum; ticks without returns."""
        calls = outer_loops.dynamic_steps([1 / t for t in TIMES], K)
        network, spoken = dynamic(**rule), ("each",) if "rule" in rule else ("every", 5.5)
        work = tables() * np.asarray(calls)[:, None]
        if name == "AEDiT":
            method = jd.AEDiT(0.02, 0.3, K, local=ADAM, **NORMS)
            loop = functools.partial(outer_loops.aedit, leaves=LEAVES, **OPTIMIZERS, **NORMS)
        else:
            method = jd.AsyncDiLoCo(0.02, 0.3, K, local=ADAM)
            loop = functools.partial(outer_loops.async_diloco, local=outer_loops.Adam)
        made = loop(gradient, start(), lambda k: 0.02, 0.3, work, spoken, ROUNDS, calls)
        found = run(method, network).history
        np.testing.assert_allclose(found["x"][1:], [one.x for one in made], rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(found["seconds"][1:], [one.time for one in made], rtol=1e-6)
        taken = [sum(calls[i] for i in one.who) * 6 / N for one in made]
        np.testing.assert_allclose(found["gradients"][1:], np.cumsum(taken), rtol=1e-6)

    def test_if_all_return_they_are_the_methods_that_wait(self):
        wait = arrivals(N, compute=TIMES, calls=K, rule="all", steps=ROUNDS)
        given = {"local_steps": K, "local": ADAM}
        nesterov = {**given, "server": optax.trace(0.9, nesterov=True)}
        pairs = [
            (
                jd.AsyncDiLoCo(0.02, 0.7, dynamic=False, **nesterov),
                jd.DiLoCo(0.02, **nesterov),
            ),
            (jd.AEDiT(0.02, **given, **NORMS), jd.EDiT(0.02, **given, **NORMS)),
        ]
        for ours, theirs in pairs:
            x, expected = (run(ours, wait).history["x"], run(theirs, SERVER).history["x"])
            np.testing.assert_allclose(x, expected, rtol=1e-12)

    @pytest.mark.parametrize(
        ("calls", "options", "sentence"),
        [
            (1, {}, "local_steps is 5 and the longest visit takes 1 of them"),
            (7, {}, "the longest visit takes 7"),
            (7, {"dynamic": False}, "the longest visit takes 7"),
            ([5, 3, 2, 1], {"dynamic": False}, "dynamic is False and some visits take fewer"),
        ],
    )
    def test_steps_that_are_not_the_clocks_are_refused(self, calls, options, sentence):
        network = arrivals(N, calls=calls, rule="each", steps=4)
        method = jd.AsyncDiLoCo(0.1, local_steps=K, **options)
        stacked = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], method)
        sweep = jd.sweep(jd.run, over=("algorithm",))
        x0 = problem().start()
        for call, made in ((jd.run, method), (sweep, stacked)):
            with pytest.raises(ValueError, match=sentence):
                call(made, problem(), network, x0, KEY, steps=2)

    @pytest.mark.slow
    def test_clocks_of_other_speeds_are_one_sweep(self):
        x0, method = problem().start(), jd.AsyncDiLoCo(0.02, local_steps=K)
        clocks = [arrivals(N, compute=times, calls=dynamic_calls(times, K), rule="each", steps=8)
                  for times in (TIMES, np.ones(N))]  # fmt: skip
        sweep = jd.sweep(jd.run, over=("network",))
        found = sweep(method, problem(), jd.networks.stack(clocks), x0, KEY, steps=8)
        for i, clock in enumerate(clocks):
            one = jd.run(method, problem(), clock, x0, KEY, steps=8)
            np.testing.assert_allclose(found.state.server[i], one.state.server, rtol=1e-12)

    def test_two_returns_in_one_aggregation_go_on_from_the_last(self):
        """A quick client is in a buffer twice: its memory is that of its last return."""
        buffer = {"buffer": 4, "restart": "at once"}
        network = arrivals(N, compute=[1.0, 9.0, 9.0, 9.0], calls=K, **buffer, steps=3)
        assert np.all(np.asarray(network.agents)[0] == 0)
        method = jd.AsyncDiLoCo(0.02, local_steps=K, local=ADAM)
        state = run(method, network, 1).state
        assert state.inner.count.tolist() == [K, 0, 0, 0]

    @pytest.mark.parametrize("compute", [[1.0, 0.0], [[1.0]], 2.0])
    def test_times_that_are_none_are_refused(self, compute):
        with pytest.raises(ValueError, match="give the positive seconds of a gradient"):
            dynamic_calls(compute, 4)
