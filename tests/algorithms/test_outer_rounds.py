"""NoLoCo and CO2: their optimizers against NumPy loops, their laws, clocks and refusals."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from reference import outer_loops

import jaxdopt as jd

N, D, K, ROUNDS = 6, 3, 3, 12
KEY = jax.random.key(4)
ADAM = optax.scale_by_adam()
PAIRS = jd.networks.RandomMatching(jd.graphs.complete(N))


@functools.cache
def quadratic(**more):
    return jd.problems.quadratic(N, D, heterogeneity=2.0, **more)


def gradient(i, x, *_):
    problem = quadratic()
    away = x - np.asarray(problem.solution)
    return np.asarray(problem.hessians)[i] @ away + np.asarray(problem.tilts)[i]


def start():
    return np.random.default_rng(3).standard_normal((N, D))


def estimates(state, problem):
    return state.x


def run(method, problem, network, steps=ROUNDS, x0=None):
    x0 = jnp.asarray(start()) if x0 is None else x0
    return jd.run(method, problem, network, x0, KEY, steps=steps, metrics={"x": estimates})


def share(delta, moved):
    """A gap penalty of both of its arguments."""
    norm = jnp.linalg.norm if isinstance(delta, jax.Array) else np.linalg.norm
    return 1 + norm(delta) + 2 * norm(moved)


class TestNoLoCo:
    def test_optimizers_live_on_as_in_the_loop(self):
        method = jd.NoLoCo(0.1, 0.6, momentum=0.4, gamma=0.9, local_steps=K, local=ADAM)
        ring = jd.networks.metropolis(jd.graphs.ring(N))
        expected = outer_loops.noloco(
            gradient,
            np.asarray(ring.matrix()),
            start(),
            lambda k: 0.1,
            ROUNDS,
            K,
            0.6,
            0.4,
            0.9,
            outer_loops.Adam,
        )
        got = run(method, quadratic(), ring).history["x"]
        np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-10)

    def test_gamma_is_by_default_the_servers_stepsize(self):
        states = [run(jd.NoLoCo(0.1, 0.6, gamma=gamma, local_steps=K), quadratic(), PAIRS).state
                  for gamma in (None, 0.6)]  # fmt: skip
        assert np.array_equal(states[0].x, states[1].x)

    @pytest.mark.parametrize("gamma", [0.0, 1.3])
    def test_the_mean_of_the_outer_steps_does_not_see_weights_and_gamma(self, gamma):
        """δ̄⁺ = α δ̄ + β Δ̄: Δ is what the method adds to φ without momentum and gossip."""
        ring = jd.networks.metropolis(jd.graphs.ring(N))
        method = jd.NoLoCo(0.1, 0.6, momentum=0.4, gamma=gamma, local_steps=K)
        bare = jd.NoLoCo(0.1, 1.0, momentum=0.0, gamma=0.0, local_steps=K)
        before = run(method, quadratic(), ring).state
        after = method.step(before, quadratic(), ring, KEY)
        change = bare.step(before, quadratic(), PAIRS.at(0, KEY), KEY).x - before.x
        expected = 0.4 * before.delta.mean(axis=0) + 0.6 * change.mean(axis=0)
        np.testing.assert_allclose(after.delta.mean(axis=0), expected, atol=1e-14)

    def test_disagreement_of_many_pairs_follows_its_law(self):
        n, rounds = 1000, 12
        pairs, problem = jd.networks.RandomMatching(jd.graphs.complete(n)), quadratic_of(n)
        x0 = jax.random.normal(KEY, (n, 8))
        for gamma in (0.7, 1.35, 1.65):
            method = jd.NoLoCo(0.0, momentum=0.5, gamma=gamma, local_steps=1)
            result = jd.run(method, problem, pairs, x0, KEY, steps=rounds)
            apart = result.history["consensus_error"]
            factor = float(jd.theory.noloco_factor(momentum=0.5, gamma=gamma))
            assert (apart[-1] / apart[-5]) ** (1 / 4) == pytest.approx(factor, rel=0.03)
            assert (factor < 1) == (gamma < 2 * (1 - 0.5**2))


def quadratic_of(n):
    """Equal agents, n of them."""
    return jd.problems.quadratic(n, 8, heterogeneity=0.0, curvature_spread=0.0)


class TestCO2:
    @pytest.mark.parametrize("gap", [None, share])
    def test_optimizers_live_on_as_in_the_loop(self, gap):
        there = np.random.default_rng(5).random((ROUNDS, N)) < 0.6
        there[4] = False
        method = jd.CO2(0.1, 0.8, momentum=0.4, local_steps=K, gap=gap, clip=0.5, local=ADAM)
        numbers = {"local_steps": K, "server_stepsize": 0.8, "momentum": 0.4, "clip": 0.5}
        expected = outer_loops.co2(
            gradient,
            there,
            start().mean(axis=0),
            lambda k: 0.1,
            ROUNDS,
            gap=gap,
            local=outer_loops.Adam,
            **numbers,
        )
        network = jd.networks.participation.Trace(jnp.asarray(there), N)
        got = run(method, quadratic(), network).history["x"]
        np.testing.assert_allclose(got[:, 0], expected, rtol=1e-10, atol=1e-10)

    def test_without_momentum_and_gap_it_is_local_sgd_a_round_late(self):
        server = jd.networks.Server(N)
        x = run(jd.CO2(0.1, 0.8, 0.0, K, gap=1.0), quadratic(), server).history["x"]
        assert np.array_equal(x[1], x[0])
        local = jd.FedAvg(0.1, 0.8, local_steps=K)
        for t in range(1, ROUNDS):
            once = run(local, quadratic(), server, steps=1, x0=jnp.asarray(x[t - 1])).state.x
            np.testing.assert_allclose(x[t + 1] - x[t], once - x[t - 1], atol=1e-14)

    @pytest.mark.parametrize("gap", [0.9, 1.1])
    @pytest.mark.parametrize("stepsize", [0.1, 0.9])
    def test_it_is_stable_where_its_law_says(self, stepsize, gap):
        """β + α r / Λ < 1, in units of the edge; r is that of the largest curvature, and ≈ 1."""
        problem = jd.problems.quadratic(N, D, curvature_spread=0.0, condition_number=1.0)
        gain = 1 - (1 - stepsize * float(problem.smoothness)) ** 10
        gap = gap * 0.8 * gain / (1 - 0.4)
        method = jd.CO2(stepsize, 0.8, momentum=0.4, local_steps=10, gap=gap)
        squares = run(method, problem, jd.networks.Server(N), 300).history["distance_squared"]
        factor = float(jd.theory.co2_factor(gain, momentum=0.4, server_stepsize=0.8, gap=gap))
        measured = (squares[300] / squares[100]) ** (1 / 400)  # of an oscillation
        assert measured == pytest.approx(factor, abs=0.01)
        assert (factor < 1) == (0.4 + 0.8 * gain / gap < 1)
        clipped = jd.replace(method, clip=0.3)
        assert run(clipped, problem, jd.networks.Server(N), 300).history["gap"].max() < 10

    def test_messages_travel_under_the_local_steps(self):
        for delay, lasts in ((1.0, K * 2.0), (5.0, 10.0)):
            network = jd.networks.timed(jd.networks.Server(N), compute=2.0, delay=delay)
            seconds = run(jd.CO2(0.1, local_steps=K), quadratic(), network).history["seconds"]
            assert seconds[-1] == ROUNDS * lasts

    @pytest.mark.parametrize("gap", [0.0, -1.0])
    def test_a_gap_that_is_not_positive_is_refused(self, gap):
        with pytest.raises(ValueError, match=f"gap is {gap:g}; give more than 0"):
            jd.CO2(0.1, gap=gap)

    def test_gaps_are_swept(self):
        methods = jax.vmap(lambda gap: jd.CO2(0.1, local_steps=K, gap=gap))(jnp.array([2.0, 3.0]))
        sweep = jd.sweep(jd.run, over=("algorithm",))
        problem = quadratic()
        found = sweep(methods, problem, jd.networks.Server(N), problem.start(), KEY, steps=5)
        one = run(jd.CO2(0.1, local_steps=K, gap=3.0), problem, jd.networks.Server(N), 5,
                  problem.start())  # fmt: skip
        np.testing.assert_allclose(found.state.x[1], one.state.x, rtol=1e-12)
