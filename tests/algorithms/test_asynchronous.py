"""ADSGD and ASBCD: limits that no delay moves, synchronous special cases, identities."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import asynchronous, losses

import jaxdopt as jd
from jaxdopt.networks.events import draws, durations

KEY = jax.random.key(0)
N, D = 6, 3


@functools.cache
def ring():
    return jd.networks.metropolis(jd.graphs.ring(N))


@functools.cache
def problem():
    return jd.problems.quadratic(agents=N, d=D, condition_number=4.0, curvature_spread=0.5, seed=1)


def x_start():
    return jnp.asarray(np.random.default_rng(5).standard_normal((N, D)))


def fixed_point(stepsize):
    """The X with (I − W) X + α ∇F(X) = 0, as one linear system."""
    world = problem()
    hessians, tilts = np.asarray(world.hessians), np.asarray(world.tilts)
    away = np.eye(N) - np.asarray(ring().matrix())
    whole = np.kron(away, np.eye(D))
    for i in range(N):
        block = slice(i * D, (i + 1) * D)
        whole[block, block] += stepsize * hessians[i]
    x = np.linalg.solve(whole, -stepsize * tilts.ravel()).reshape(N, D)
    # (I − W) 1 x* = 0, so that gradients A (x − x*) + t leave x − x* as the unknown
    return x + np.asarray(world.center)


def estimates(state, problem):
    return state.x


def run(method, network, steps, every=1):
    metrics = {"x": estimates}
    return jd.run(
        method, problem(), network, x_start(), KEY, steps=steps, every=every, metrics=metrics
    )


def bound():
    """2 minᵢ wᵢᵢ / (L + μ), μ and L those of all agents."""
    values = np.linalg.eigvalsh(np.asarray(problem().hessians))
    return 2 * float(np.diagonal(ring().matrix()).min()) / (values.max() + values.min())


RUNS, WIDTH, VERSIONS = 6000, N, 40
PATTERNS = {
    "synchronous": (1.0, 0.5),
    "no delay": (1.0, 0.0),
    "straggler, 20 times slower": (np.array([20.0, 1, 1, 1, 1, 1]), 0.5),
    "speeds, late and lost messages": (
        np.linspace(0.5, 2.0, N),
        durations.Lost(durations.Exponential(6.0), 0.3),
    ),
    "random": (
        durations.Clipped(durations.LogNormal(1.0, 1.0), 0.2, 8.0),
        durations.Exponential(1.0),
    ),
    "stale by 20 steps of the fastest": (np.array([0.25, 1, 1, 1, 1, 1]), 5.0),
}


@functools.cache
def pattern(name):
    """A timeline in tables of one size, so that all are one program."""
    compute, delay = PATTERNS[name]
    made = jd.networks.timeline(ring(), compute=compute, delay=delay, steps=RUNS, key=KEY)
    _, own, slots = made.age.shape
    agents = np.tile(N + np.arange(WIDTH), (RUNS, 1))
    age = np.zeros((RUNS, WIDTH, slots), int)
    agents[:, :own], age[:, :own] = made.agents, made.age
    assert made.versions <= VERSIONS
    return jd.replace(
        made,
        agents=jnp.asarray(agents, jnp.int32),
        age=jnp.asarray(age, jnp.int32),
        finish=jnp.zeros((RUNS, WIDTH)),
        versions=VERSIONS,
    )


@pytest.mark.slow
class TestLimits:
    @pytest.mark.parametrize("name", PATTERNS)
    @pytest.mark.slow
    def test_it_is_dgds_whatever_the_times_are(self, name):
        """With the stepsize that allows any bounded delays; nothing of it depends on them."""
        stepsize = bound()
        x = run(jd.ADSGD(stepsize), pattern(name), RUNS, every=RUNS).state.x
        np.testing.assert_allclose(x, fixed_point(stepsize), atol=1e-12)
        center = np.asarray(problem().center)
        assert np.abs(fixed_point(stepsize) - center).max() > 0.1  # inexact, as DGD is

    @pytest.mark.slow
    def test_the_step_contracts_in_the_largest_norm_of_a_block(self):
        """After every window in which all have finished on versions of it: by 1 − αμ."""
        stepsize = bound()
        made = pattern("random")
        history = run(jd.ADSGD(stepsize), made, RUNS).history
        away = np.linalg.norm(history["x"] - fixed_point(stepsize), axis=2).max(axis=1)
        mu = np.linalg.eigvalsh(np.asarray(problem().hessians)).min()
        assert np.all(away <= away[0] * (1 + 1e-12))  # never farther than at the start
        finishes, sender = made.completions(), np.asarray(made.sender)
        places = [np.flatnonzero(finishes.agent == i) for i in range(N)]

        def oldest(e):
            """Where the oldest version that finish e read was made."""
            heard = zip(sender[finishes.agent[e]], finishes.read[e], strict=True)
            return min(-1 if v == 0 else places[j][v - 1] for j, v in heard if v >= 0)

        reads = np.array([oldest(e) for e in range(2000)])
        begin, windows = 0, []  # in a window all finish, and from then on read nothing older
        while True:
            late = np.flatnonzero(reads < begin)
            settled = max(begin, late[-1] + 1 if len(late) else 0)
            firsts = [own[own >= settled] for own in places]
            if settled > 1900 or max(own[0] for own in firsts) >= 2000:
                break
            begin = max(own[0] for own in firsts) + 1
            windows.append(finishes.run[begin - 1] + 1)
        assert len(windows) > 20
        for number, run_after in enumerate(windows, start=1):
            assert away[run_after:].max() <= away[0] * (1 - stepsize * mu) ** number * (1 + 1e-9)

    def test_blocks_descend_to_the_penalized_optimum_at_any_pace(self):
        penalty = bound()
        for stepsize in (penalty, penalty / 2):
            x = run(jd.ASBCD(stepsize, penalty), pattern("random"), RUNS, every=RUNS).state.x
            np.testing.assert_allclose(x, fixed_point(penalty), atol=1e-12)


class TestSynchronousTimes:
    def test_with_equal_speeds_and_quick_messages_it_is_dgd(self):
        made = jd.networks.timeline(ring(), compute=2.0, delay=0.7, steps=30)
        asynchronous_, synchronous = run(jd.ADSGD(0.2), made, 30), run(jd.DGD(0.2), ring(), 30)
        np.testing.assert_allclose(asynchronous_.history["x"], synchronous.history["x"], atol=1e-13)
        for name in set(synchronous.history) - {"seconds"}:
            np.testing.assert_allclose(
                asynchronous_.history[name], synchronous.history[name], rtol=1e-6, err_msg=name
            )
        np.testing.assert_array_equal(asynchronous_.history["seconds"], 2.0 * np.arange(31))

    @pytest.mark.parametrize("late", [1, 2])
    def test_with_messages_that_take_rounds_neighbors_are_as_many_rounds_older(self, late):
        made = jd.networks.timeline(ring(), compute=2.0, delay=2.0 * late + 0.5, steps=30)
        weights = np.asarray(ring().matrix())
        own, others = np.diag(np.diag(weights)), weights - np.diag(np.diag(weights))
        x = [np.asarray(x_start())]
        for k in range(30):
            g = np.asarray(problem().grad(jnp.asarray(x[k])))
            x.append(own @ x[k] + others @ x[max(k - late, 0)] - 0.2 * g)
        np.testing.assert_allclose(run(jd.ADSGD(0.2), made, 30).history["x"], x, atol=1e-13)
        assert made.versions == late + 1

    def test_messages_without_delay_make_a_gauss_seidel_sweep(self):
        made = jd.networks.timeline(ring(), compute=1.0, delay=0.0, seconds=10.0)
        weights, x = np.asarray(ring().matrix()), np.asarray(x_start()).copy()
        for _ in range(10):
            for i in range(N):
                g = np.asarray(problem().grad(jnp.asarray(x)))[i]
                x[i] = weights[i] @ x - 0.2 * g
        np.testing.assert_allclose(run(jd.ADSGD(0.2), made, made.horizon).state.x, x, atol=1e-13)


class TestIdentities:
    def test_adsgd_is_block_descent_with_its_stepsize_as_penalty(self):
        for relaxation in (1.0, 0.6):
            a = run(jd.ADSGD(0.2, relaxation), pattern("random"), 100).history["x"]
            b = run(jd.ASBCD(0.2 * relaxation, 0.2), pattern("random"), 100).history["x"]
            np.testing.assert_allclose(a, b, atol=1e-13)

    def test_block_descent_follows_the_heap(self):
        made = pattern("speeds, late and lost messages")
        compute, delay = (
            durations.as_model(m, "m") for m in PATTERNS["speeds, late and lost messages"]
        )
        count = 60
        speeds = np.tile(np.asarray(compute.seconds)[:, None], (1, 400))
        key = jax.random.fold_in(KEY, durations.DELAY)

        def travel(i, j, m):
            return draws.drawn(delay, key, *np.array([[m], [i], [j]]))[0]

        world = problem()
        hessians, tilts, center = map(np.asarray, (world.hessians, world.tilts, world.center))
        events = asynchronous.asbcd(
            lambda e, i, x: hessians[i] @ (x - center) + tilts[i],
            np.asarray(ring().matrix()),
            np.asarray(x_start()),
            0.1,
            0.3,
            speeds,
            travel,
            count,
        )
        history = run(jd.ASBCD(0.1, 0.3), made, 100).history["x"]
        ends = np.cumsum(np.sum(np.asarray(made.agents) < N, axis=1))
        for k, end in enumerate(ends[ends <= count]):
            np.testing.assert_allclose(history[k + 1], events[end - 1].x, atol=1e-12)

    @pytest.mark.slow
    def test_problems_that_cannot_be_taken_apart_are_asked_as_a_whole(self):
        """An oracle has no `take`; and a stepsize may be one an agent."""
        features = np.random.default_rng(2).standard_normal((N, 4, D))
        labels = np.sign(features[..., 0])

        def gradient(x, data, key):
            a, b = data
            return a.T @ (-b * jax.nn.sigmoid(-b * (a @ x))) / 4 + 0.1 * x

        oracle = jd.problems.Oracle(
            gradient, (jnp.asarray(features), jnp.asarray(labels)), jnp.zeros(D)
        )
        whole = jd.problems.logistic_regression(features, labels, l2=0.1)
        stepsize = jnp.linspace(0.1, 0.5, N)[:, None]
        made = jd.networks.timeline(ring(), compute=np.linspace(1, 2, N), delay=0.3, steps=20)
        x, same = (
            jd.run(jd.ADSGD(stepsize), world, made, x_start(), KEY, steps=20).state.x
            for world in (oracle, whole)
        )
        np.testing.assert_allclose(x, same, atol=1e-13)
        speeds = np.tile(np.linspace(1, 2, N)[:, None], (1, 60))
        events = asynchronous.adsgd(
            lambda e, i, x: (
                float(stepsize[i, 0]) * losses.logistic_gradient(x, features[i], labels[i], 0.1)
            ),
            np.asarray(ring().matrix()),
            np.asarray(x_start()),
            1.0,
            speeds,
            lambda i, j, m: 0.3,
            len(made.completions().time),
        )
        np.testing.assert_allclose(x, events[-1].x, atol=1e-12)


class TestAsPrograms:
    @pytest.mark.slow
    def test_stepsizes_and_weights_sweep_as_one_program(self):
        made = pattern("random")
        lazy = jd.replace(made, weights=made.weights / 2, own=(1 + made.own) / 2)
        both = jax.tree.map(lambda *leaves: jnp.stack(leaves), made, lazy)
        stepsizes = jnp.array([0.05, 0.1, 0.2])
        swept = jd.sweep(jd.run, over=("algorithm", "network"))(
            jax.vmap(jd.ADSGD)(stepsizes), problem(), both, x_start(), KEY, steps=50, every=50
        )
        for a, stepsize in enumerate(stepsizes):
            for w, network in enumerate((made, lazy)):
                alone = run(jd.ADSGD(stepsize), network, 50, every=50).state.x
                np.testing.assert_allclose(swept.state.x[a, w], alone, atol=1e-13)
        assert np.abs(swept.state.x[0, 0] - swept.state.x[0, 1]).max() > 1e-3

    @pytest.mark.parametrize("method", [jd.ADSGD, jd.ADPSGD])
    @pytest.mark.slow
    def test_times_sweep_as_one_program(self, method):
        make = jd.networks.timeline if method is jd.ADSGD else jd.networks.pairwise
        star = jd.networks.metropolis(jd.graphs.star(N))  # with more slots, and in wider tables
        members = [
            make(ring(), compute=np.linspace(1, 3, N), delay=4.0, steps=40),
            make(star, compute=1.0, delay=0.5, steps=30),
        ]
        swept = jd.sweep(jd.run, over=("network",))(
            method(0.1), problem(), jd.networks.stack(members), x_start(), KEY, steps=30
        )
        for w, network in enumerate(members):
            alone = run(method(0.1), network, 30)
            np.testing.assert_allclose(swept.state.x[w], alone.state.x, atol=1e-13)
            for name in ("seconds", "gradients", "traffic"):
                got = swept.history[name][w]
                np.testing.assert_allclose(got, alone.history[name], rtol=1e-6)

    def test_slopes_match_finite_differences(self):
        made = pattern("random")

        @jax.jit
        @jax.value_and_grad
        def final(at):
            stepsize, relaxation, weights = at
            network = jd.replace(made, weights=weights)
            method = jd.ADSGD(stepsize, relaxation)
            result = jd.run(method, problem(), network, x_start(), KEY, steps=40, every=40)
            return jnp.sum(result.state.x**2)

        at = (0.2, 0.7, made.weights)
        direction = (1.0, -0.5, jnp.where(made.weights > 0, 0.3, 0.0))
        ahead, behind = (
            final(jax.tree.map(lambda a, b, s=sign: a + s * 1e-6 * b, at, direction))[0]
            for sign in (1, -1)
        )
        slope = sum(jnp.vdot(a, b) for a, b in zip(final(at)[1], direction, strict=True))
        np.testing.assert_allclose(slope, (ahead - behind) / 2e-6, rtol=1e-7)

    def test_a_run_goes_on_exactly_where_another_ended(self):
        made = pattern("random")
        whole = run(jd.ADSGD(0.1), made, 40)
        half = run(jd.ADSGD(0.1), made, 20)
        rest = jd.run(
            jd.ADSGD(0.1), problem(), made, None, KEY, steps=20, state=half.state, start=20
        )
        np.testing.assert_array_equal(rest.state.x, whole.state.x)

    def test_float32_stays_float32(self, float32):
        world = jd.problems.quadratic(agents=N, d=D)
        narrow = jd.networks.metropolis(jd.graphs.ring(N))
        made = jd.networks.timeline(narrow, compute=durations.Exponential(1.0), steps=4)

        def go(x0):
            return jd.run(jd.ADSGD(0.1), world, made, x0, KEY, steps=4)

        result = jax.eval_shape(go, world.start())
        leaves = jax.tree.leaves((result.state, result.metrics, result.costs))
        floats = {leaf.dtype for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)}
        assert floats == {np.dtype(np.float32)}

    @pytest.mark.parametrize("method", [jd.ADSGD(0.1), jd.ASBCD(0.1, 0.1)])
    def test_networks_that_do_not_say_who_finishes_are_refused(self, method):
        with pytest.raises(ValueError, match=r"never wait .* give jd.networks.timeline\(network"):
            jd.run(method, problem(), ring(), x_start(), KEY, steps=2)
        directed = jd.networks.push_pull(jd.graphs.directed_ring(N))
        made = jd.networks.timeline(directed, steps=4)
        with pytest.raises(ValueError, match=r"timeline of (doubly stochastic|symmetric) weights"):
            jd.run(method, problem(), made, x_start(), KEY, steps=2)
