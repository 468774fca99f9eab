"""Outer loops: DiLoCo against its loop, its reductions, and what optimizers are handed."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from reference import outer_loops
from reference.outer_loops import Adam, HeavyBall, Nesterov
from test_federated import (
    FEW,
    KEY,
    OWN,
    QUADRATIC,
    ROUNDS,
    WEIGHTS,
    X0,
    K,
    N,
    cold,
    fifty,
    gathered,
    masked,
    noise,
    noisy,
    oracle,
    tables,
    values,
)

import jaxdopt as jd

ADAM = jd.optimizer(optax.scale_by_adam, b1=0.8, b2=0.95, eps=1e-3)
OPTIONS = {  # of DiLoCo, and of the loop
    "kept": ({"local": ADAM}, {"local": lambda: Adam(0.8, 0.95, 1e-3)}),
    "reset": (
        {"local": optax.trace(0.7), "memory": "reset"},
        {"local": lambda: HeavyBall(0.7), "memory": "reset"},
    ),
    "average": (
        {"local": ADAM, "memory": "average"},
        {"local": lambda: Adam(0.8, 0.95, 1e-3), "memory": "average"},
    ),
}
START = jnp.broadcast_to(jnp.asarray(X0), (N, len(X0)))


@pytest.mark.parametrize("weights", [pytest.param("equal", marks=pytest.mark.slow), "unequal"])
@pytest.mark.parametrize(
    "few", [pytest.param(False, marks=pytest.mark.slow), True], ids=["masked", "gathered"]
)
@pytest.mark.parametrize("name", OPTIONS)
def test_trajectories_are_those_of_the_loop(name, few, weights):
    """With noise, own stepsizes, and rounds without anybody, in which no memory moves."""
    ours, theirs = OPTIONS[name]
    method = jd.DiLoCo(values(OWN), 0.6, local_steps=K, **ours)
    networks, problem = gathered() if few else masked(), noisy(0.5, weights)
    got = fifty(method, problem, networks, cold(method, problem, networks), 0).history["server"]
    for j, pattern in enumerate(FEW if few else tables()):
        there = tables()[pattern][:ROUNDS]
        expected = outer_loops.diloco(
            oracle(0.5, there, noise(few)[j]),
            there,
            X0,
            OWN.__getitem__,
            ROUNDS,
            local_steps=K,
            server_stepsize=0.6,
            server=lambda: Nesterov(0.9),
            p=WEIGHTS[weights],
            **theirs,
        )
        np.testing.assert_allclose(got[j], expected, rtol=1e-10, atol=1e-10, err_msg=pattern)


def last(method, network=None, problem: Any = QUADRATIC, steps=30):
    network = jd.networks.Server(N) if network is None else network
    return jd.run(method, problem, network, problem.start(), KEY, steps=steps).state


class TestReductions:
    def test_one_local_step_without_optimizers_is_gradient_descent(self):
        ours = last(jd.DiLoCo(0.3, 1.0, local_steps=1, server=None)).server
        np.testing.assert_allclose(ours, last(jd.GradientDescent(0.3)).x[0], rtol=1e-13)

    def test_without_an_outer_optimizer_and_memory_it_is_fed_avg(self):
        some = jd.networks.participation.uniform(N, 2)
        local = optax.scale_by_adam()
        ours = jd.DiLoCo(0.05, 0.8, local_steps=4, local=local, server=None, memory="reset")
        theirs = jd.FedAvg(0.05, 0.8, local_steps=4, local=local)
        np.testing.assert_array_equal(last(ours, some).server, last(theirs, some).server)

    def test_a_worker_alone_is_lookahead(self):
        """Optax's, whose fast parameters go on from the slow ones."""
        alone = QUADRATIC.take(jnp.array([0]))
        ours = last(
            jd.DiLoCo(0.1, 0.5, local_steps=5, server=None),
            jd.networks.Server(1),
            alone,
            steps=6,
        )
        tx = optax.lookahead(optax.sgd(0.1), sync_period=5, slow_step_size=0.5)
        params = optax.LookaheadParams.init_synced(jnp.zeros(alone.d))
        memory = tx.init(params)
        for _ in range(30):
            g = alone.grad(params.fast[None])[0]
            updates, memory = tx.update(g, memory, params)
            params = optax.apply_updates(params, updates)
        np.testing.assert_allclose(ours.server, params.slow, rtol=1e-12)


class TestOptimizers:
    """They are handed the parameters' pytree, inside vmap."""

    A = np.random.default_rng(0).standard_normal((40, 5))
    PROBLEM = jd.problems.mlp(A, A[:, 0] > 0, hidden=(3,), agents=4)
    SERVER = jd.networks.Server(4)

    def after(self, local, server=None, steps=3):
        method = jd.DiLoCo(0.05, local_steps=4, local=local, server=server, server_stepsize=1.0)
        return last(method, self.SERVER, self.PROBLEM, steps)

    @pytest.mark.parametrize(
        "make",
        [
            lambda: optax.chain(optax.scale_by_adam(), optax.scale_by_trust_ratio()),
            pytest.param(
                lambda: optax.chain(optax.contrib.muon(1.0), optax.scale(-1.0)),
                marks=pytest.mark.slow,
            ),
            pytest.param(
                lambda: optax.masked(optax.add_decayed_weights(0.1), only_matrices),
                marks=pytest.mark.slow,
            ),
        ],
        ids=["LAMB", "Muon", "masked decay"],
    )
    def test_layerwise_rules_see_real_shapes(self, make):
        state = self.after(make(), steps=1)
        local, problem = make(), self.PROBLEM
        expected = []
        for i in range(problem.n):
            params = problem.unravel(problem.start()[i])
            memory = local.init(params)
            for _ in range(4):
                rows = jnp.broadcast_to(problem.ravel(params), (problem.n, problem.d))
                g = problem.unravel(problem.grad(rows)[i])
                along, memory = local.update(g, memory, params)
                params = jax.tree.map(lambda x, u: x - 0.05 * u, params, along)
            expected.append(problem.ravel(params))
        np.testing.assert_allclose(state.server, np.mean(expected, axis=0), rtol=1e-10, atol=1e-12)

    def test_memories_live_on_as_rows(self):
        state = self.after(optax.scale_by_adam())
        np.testing.assert_array_equal(state.inner.count, np.full(4, 12))
        assert {leaf.shape[1:] for leaf in jax.tree.leaves(state.inner.mu)} == {
            *self.PROBLEM.leaves.shapes
        }

    def test_averaging_leaves_counts_alone(self):
        method = jd.DiLoCo(0.05, local_steps=4, local=optax.scale_by_adam(), memory="average")
        inner = last(method, jd.networks.participation.uniform(4, 2), self.PROBLEM, 3).inner
        assert inner.count.dtype == jnp.int32
        assert inner.count.sum() == 3 * 2 * 4

    def test_their_numbers_sweep(self):
        def method(b1, decay):
            return jd.DiLoCo(
                0.05,
                local_steps=2,
                local=jd.optimizer(optax.scale_by_adam, b1=b1),
                server=jd.optimizer(optax.trace, decay=decay, nesterov=True),
            )

        numbers = jnp.array([0.5, 0.9]), jnp.array([0.0, 0.8])
        run = functools.partial(jd.run, steps=4, every=4)
        setting = self.PROBLEM, self.SERVER, self.PROBLEM.start(), KEY
        swept = jd.sweep(run, over=("algorithm",))(jax.vmap(method)(*numbers), *setting)
        for i, pair in enumerate(zip(*numbers, strict=True)):
            alone = run(method(*map(float, pair)), *setting).history["loss"]
            np.testing.assert_allclose(swept.history["loss"][i], alone, rtol=1e-12)


def only_matrices(params):
    return jax.tree.map(lambda leaf: leaf.ndim == 2, params)


class TestCosts:
    def test_a_round_is_a_vector_up_and_down_whatever_the_local_steps(self):
        problem, some = QUADRATIC, jd.networks.participation.uniform(N, 2)
        for network, share in ((jd.networks.Server(N), 1), (some, 2 / N)):
            run = jd.run(
                jd.DiLoCo(0.1, local_steps=7), problem, network, problem.start(), KEY, steps=5
            )
            found = {name: run.history[name][-1] for name in ("gradients", "bits", "peak_bits")}
            bits = share * 32 * problem.d
            assert found == pytest.approx(
                {"gradients": 35 * share, "bits": 5 * bits, "peak_bits": bits}
            )
            for way in ("bits_up", "bits_down"):
                np.testing.assert_allclose(run.history[way], run.history["bits"])

    def test_the_clock_knows_bandwidths(self):
        """A round is K gradients, a message down and one up; a participant's, however few."""
        problem, some = QUADRATIC, jd.networks.participation.uniform(N, 2)
        for network, share in ((jd.networks.Server(N), 1), (some, 2 / N)):
            slow = jd.networks.timed(network, compute=2.0, delay=0.5, bandwidth=16.0 * problem.d)
            method = jd.DiLoCo(0.1, local_steps=3)
            run = jd.run(method, problem, slow, problem.start(), KEY, steps=4)
            each = 3 * 2.0 + 2 * (0.5 + 32 / 16)
            np.testing.assert_allclose(run.history["seconds"], each * np.arange(5))
            np.testing.assert_allclose(run.history["utilization"][1:], share * 6 / each)
            assert run.history["utilization"][0] == 1


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: jd.DiLoCo(0.1, local=optax.adam(0.1)), "local turns gradients around"),
        (lambda: jd.DiLoCo(0.1, server=optax.sgd(0.1)), "server turns gradients around"),
        (lambda: jd.DiLoCo(0.1, memory="keeps"), "memory is 'keeps'"),  # type: ignore[arg-type]
        (lambda: jd.DiLoCo(0.1, local_steps=0), "local_steps is 0; give an integer"),
        (
            lambda: last(jd.DiLoCo(0.1), jd.networks.metropolis(jd.graphs.ring(N))),
            "DiLoCo needs a server with clients",
        ),
    ],
)
def test_refusals(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
