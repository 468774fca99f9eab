"""Models of time: their laws, who draws what, and how long synchronous rounds take."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdopt as jd
from jaxdopt.networks.events import durations
from jaxdopt.networks.events.draws import drawn

KEY = jax.random.key(7)
N = 6


def draws(model, counts=4000, agents=5, key=KEY):
    """[counts, agents] gradients' times."""
    k, me = (a.ravel() for a in np.indices((counts, agents)))
    return drawn(model, key, k, me, me).reshape(counts, agents)


class TestModels:
    def test_exponential_times_have_their_law_for_every_agent(self):
        means = np.array([0.5, 1.0, 2.0, 4.0, 1.0])
        lasts = draws(durations.Exponential(means)) / means
        for power, moment in ((1, 1.0), (2, 2.0)):
            np.testing.assert_allclose((lasts**power).mean(axis=0), moment, rtol=0.15)
        np.testing.assert_allclose((lasts > 2).mean(), np.exp(-2), rtol=0.05)

    def test_log_normal_times_have_their_mean_and_spread(self):
        lasts = draws(durations.LogNormal(3.0, 0.5))
        np.testing.assert_allclose(lasts.mean(), 3.0, rtol=0.02)
        np.testing.assert_allclose(np.log(lasts).std(), 0.5, rtol=0.02)
        np.testing.assert_array_equal(draws(durations.LogNormal(3.0, 0.0), 3), 3.0)

    def test_stragglers_are_as_many_and_as_slow_as_they_should(self):
        lasts = draws(durations.Stragglers([1.0, 2.0, 1.0, 1.0, 1.0], 0.1, 20.0))
        assert set(np.unique(lasts)) == {1.0, 2.0, 20.0, 40.0}
        np.testing.assert_allclose((lasts >= 20).mean(), 0.1, rtol=0.1)

    def test_bounds_hold_and_what_is_lost_stays_lost(self):
        lasts = draws(durations.Clipped(durations.Lost(durations.Exponential(1.0), 0.3), 0.5, 2.0))
        kept = lasts[np.isfinite(lasts)]
        assert kept.min() == 0.5
        assert kept.max() == 2.0
        np.testing.assert_allclose(np.isinf(lasts).mean(), 0.3, rtol=0.05)

    def test_models_around_others_leave_their_draws_alone_and_draw_apart(self):
        plain = draws(durations.Exponential(1.0))
        twice = durations.Stragglers(
            durations.Stragglers(durations.Exponential(1.0), 0.5, 2.0), 0.5, 3.0
        )
        factors = np.round(draws(twice) / plain)
        share = [(factors == f).mean() for f in (1, 2, 3, 6)]
        np.testing.assert_allclose(share, 0.25, atol=0.02)
        slow = plain[factors > 1]
        np.testing.assert_allclose(slow.mean(), 1.0, rtol=0.05)  # whoever is slow

    def test_a_draw_depends_on_the_count_and_the_agents_alone(self):
        model = durations.LogNormal(1.0, 1.0)
        few, many = draws(model, 10, 3), draws(model, 300, 5)
        np.testing.assert_array_equal(few, many[:10, :3])
        assert len(np.unique(many)) > 0.99 * many.size
        link = [drawn(model, KEY, np.zeros(1, int), *np.array(ij)) for ij in
                ([[1], [2]], [[2], [1]], [[2], [2]])]  # fmt: skip
        assert len(np.unique(link)) == 3  # j to i, i to j, and i's own
        assert not np.any(draws(model, 10, 3, jax.random.key(8)) == few)

    def test_draws_are_the_same_where_they_are_traced_and_in_float32(self):
        model, me = durations.Exponential(2.0), jnp.arange(4)
        here = draws(model, 3, 4)
        there = jax.jit(jax.vmap(lambda k: model.at(k, KEY, me, me)))(jnp.arange(3))
        np.testing.assert_allclose(here, there, rtol=1e-14)
        with jax.enable_x64(False):
            np.testing.assert_allclose(draws(model, 3, 4), here, rtol=1e-5)

    def test_tables_are_read_as_they_are_and_repeat(self):
        table = np.random.default_rng(0).random((3, 5))
        np.testing.assert_array_equal(draws(durations.Table(table), 7), np.tile(table, (3, 1))[:7])
        links = np.random.default_rng(1).random((2, 4, 4))
        got = drawn(durations.Table(links), KEY, *np.array([[0, 1, 2], [3, 2, 1], [0, 1, 2]]))
        np.testing.assert_array_equal(got, [links[0, 3, 0], links[1, 2, 1], links[0, 1, 2]])

    def test_agents_of_a_markov_chain_stay_slow_for_a_while(self):
        make = jax.jit(
            lambda key, slow: durations.markov_modulated(
                key, 4000, 3, slow=slow, slows=0.05, recovers=0.2
            )
        )
        table = np.asarray(make(KEY, 10.0).seconds)
        slow = table == 10.0
        np.testing.assert_allclose(slow.mean(), 0.2, rtol=0.1)  # 0.05 / (0.05 + 0.2)
        np.testing.assert_allclose(slow[1:][~slow[:-1]].mean(), 0.05, rtol=0.1)
        np.testing.assert_allclose((~slow[1:])[slow[:-1]].mean(), 0.2, rtol=0.1)
        assert set(np.unique(table)) == {1.0, 10.0}
        swept = jax.vmap(make)(jax.random.split(KEY, 2), jnp.array([5.0, 10.0]))
        assert swept.seconds.shape == (2, 4000, 3)

    @pytest.mark.parametrize(
        ("make", "sentence"),
        [
            (lambda: durations.Exponential(0.0), "mean is 0; give more than 0"),
            (lambda: durations.Exponential(-1.0), "mean is -1; give more than 0"),
            (lambda: durations.LogNormal(1.0, -0.1), "sigma is -0.1; give at least 0"),
            (lambda: durations.Stragglers("slow", 0.1, 2.0), "model is 'slow'; give a number"),
            (lambda: durations.Stragglers(1.0, 1.5, 2.0), "probability is 1.5; give at most 1"),
            (lambda: durations.Lost(1.0, np.nan), "probability is nan; give at least 0"),
            (lambda: durations.Clipped(1.0, 2.0, 1.0), "least is 2.0 and most 1.0"),
            (lambda: durations.Table(np.ones(3)), r"shape \(3,\); give \[T, n\]"),
            (lambda: durations.Table(-np.ones((3, 2))), "the table is -1; give at least 0"),
            (lambda: durations.Exponential(np.ones((2, 3))), r"mean has shape \(2, 3\)"),
            (lambda: durations.markov_modulated(KEY, 0, 3), "length is 0"),
        ],
    )
    def test_bad_numbers_are_refused(self, make, sentence):
        with pytest.raises(ValueError, match=sentence):
            make()


NETWORKS = {
    "dense": lambda: jd.networks.metropolis(jd.graphs.star(N)),
    "circulant": lambda: jd.networks.metropolis(jd.graphs.ring(N)),
    "table": lambda: jd.networks.mixing(
        jd.networks.metropolis(jd.graphs.ring(N)).matrix(), form=jd.networks.Neighbors
    ),
    "hub": lambda: jd.networks.mixing(
        jd.networks.metropolis(jd.graphs.star(20)).matrix(), form=jd.networks.Neighbors
    ),
    "pushes": lambda: jd.networks.mixing(
        jd.networks.column_stochastic(jd.graphs.directed_ring(N)).matrix(),
        kind="column",
        form=jd.networks.Pushes,
    ),
    "complete": lambda: jd.networks.Complete(N),
    "directed": lambda: jd.networks.push_pull(jd.graphs.directed_ring(N), jd.graphs.ring(N)),
    "tree": lambda: jd.networks.spanning_tree(jd.graphs.star(N)),
    "asleep": lambda: jd.networks.Asleep(jd.networks.metropolis(jd.graphs.ring(N)), 0.5),
    "repeated": lambda: jd.networks.Repeated(jd.networks.metropolis(jd.graphs.ring(N)), 3),
}


def pairs(now):
    """Who hears whom in a round, as [n, n] booleans."""
    if hasattr(now, "network") and not isinstance(now, jd.networks.Timed):
        return pairs(now.network)
    parts = (now.row, now.column) if now.kind == "directed" else (now,)
    heard = sum((abs(part.csr().toarray()) for part in parts), np.zeros((now.n, now.n)))
    return (heard > 1e-12) & ~np.eye(now.n, dtype=bool)


class TestTimedRounds:
    @pytest.mark.parametrize("name", NETWORKS)
    def test_a_round_waits_for_its_slowest_agent_and_its_slowest_link(self, name):
        network = NETWORKS[name]()
        n = network.n
        random = np.random.default_rng(1)
        compute, delay = random.random((4, n)), random.random((4, n, n))
        wrapped = jd.networks.timed(
            network, compute=durations.Table(compute), delay=durations.Table(delay)
        )
        for k in (0, 3):
            now, plain = wrapped.at(k, KEY), network.at(k, KEY)
            up = pairs(plain)
            awake = np.ones(n, bool) if plain.active is None else np.asarray(plain.active)
            work = compute[k][awake].max(initial=0)
            travel = delay[k][up].max(initial=0) * network.repetitions
            np.testing.assert_allclose(now.seconds(2, 3, 0), 2 * work + 3 * travel, rtol=1e-6)
            expected = max(2 * work, 3 * travel / 4)
            np.testing.assert_allclose(now.seconds(2, 3, 4), expected, rtol=1e-6)

    def test_a_servers_client_waits_for_a_message_down_and_one_up(self):
        compute, delay = np.arange(1.0, 6.0), np.array([9.0, 0.0, 0.5, 0.0, 0.0])
        server = jd.networks.timed(jd.networks.Server(5), compute=compute, delay=delay)
        assert server.at(0, KEY).seconds(1, 1, 0) == 2 * 9 + 1
        assert server.at(0, KEY).seconds(10, 1, 0) == 50
        some = server.at(0, KEY).awake(jnp.array([False, True, True, False, False]))
        assert some.seconds(4, 1, 0) == 4 * 3 + 2 * 0.5

    def test_only_those_who_take_part_are_waited_for(self):
        pattern = jd.networks.participation.Uniform(8, 2)
        assert pattern.bound == 2  # the server names its clients
        compute = np.arange(1.0, 9.0)
        wrapped = jd.networks.timed(pattern, compute=compute)
        for k in range(4):
            now = wrapped.at(k, KEY)
            slowest = compute[np.asarray(now.active)].max()
            assert now.seconds(3, 1, 0) == 3 * slowest
            assert now.seconds(np.full((8, 1), 3), 1, 0) == 3 * slowest

    def test_by_default_a_gradient_takes_a_second_and_a_message_none(self):
        problem = jd.problems.quadratic(agents=N, d=2)
        ring = jd.networks.metropolis(jd.graphs.ring(N))
        for method, each in ((jd.DGD(0.1), 1), (jd.LocalDSGD(0.1, local_steps=3), 3)):
            history = jd.run(method, problem, ring, problem.start(), KEY, steps=4).history
            np.testing.assert_array_equal(history["seconds"], each * np.arange(5))
        overlapped = jd.OLDSGD(0.1, local_steps=3)
        slow = jd.networks.timed(ring, delay=5.0)
        for method, each in ((jd.LocalDSGD(0.1, local_steps=3), 8), (overlapped, 5)):
            history = jd.run(method, problem, slow, problem.start(), KEY, steps=4).history
            np.testing.assert_array_equal(history["seconds"], each * np.arange(5))

    def test_a_timed_network_does_what_the_network_does(self):
        problem = jd.problems.quadratic(agents=N, d=2)
        sleepy = jd.networks.Asleep(jd.networks.metropolis(jd.graphs.ring(N)), 0.7)
        model = durations.Stragglers(durations.Exponential(np.ones(N)), 0.2, 5.0)
        wrapped = jd.networks.timed(sleepy, compute=model, delay=durations.Exponential(0.1))
        runs = [
            jd.run(jd.DSGD(0.1), problem, network, problem.start(), KEY, steps=6)
            for network in (sleepy, wrapped)
        ]
        for name in set(runs[0].history) - {"seconds"}:  # two programs, which may round apart
            np.testing.assert_allclose(runs[0].history[name], runs[1].history[name], rtol=1e-13)
        assert np.all(np.diff(runs[1].history["seconds"]) > 0)
        assert (wrapped.kind, wrapped.symmetric, wrapped.varies) == ("doubly", True, True)
        assert wrapped.horizon is None

    def test_a_timed_network_may_be_put_to_sleep(self):
        compute = np.arange(1.0, N + 1)
        ring = jd.networks.timed(jd.networks.metropolis(jd.graphs.ring(N)), compute=compute)
        now = jd.networks.Asleep(ring, 0.5).at(1, KEY)
        assert 0 < np.asarray(now.active).sum() < N
        assert now.seconds(1, 1, 0) == compute[np.asarray(now.active)].max()

    @pytest.mark.slow
    def test_rounds_and_timelines_draw_the_same_times(self):
        ring = jd.networks.metropolis(jd.graphs.ring(N))
        model = durations.Stragglers(durations.LogNormal(np.linspace(1, 2, N), 0.5), 0.2, 5.0)
        made = jd.networks.timeline(ring, compute=model, delay=0.1, seconds=12.0, key=KEY)
        finishes = made.completions()
        wrapped = jd.networks.timed(ring, compute=model)
        lasts = [np.diff(finishes.time[finishes.agent == i], prepend=0) for i in range(N)]
        for k in range(min(map(len, lasts))):
            expected = max(own[k] for own in lasts)
            np.testing.assert_allclose(wrapped.at(k, KEY).seconds(1, 1, 0), expected, rtol=1e-6)

    def test_what_cannot_be_timed_is_refused(self):
        ring = jd.networks.metropolis(jd.graphs.ring(N))
        timed = jd.networks.timed
        line = jd.networks.timeline(ring, steps=3)
        back = jd.networks.arrivals(N, rule="each", steps=3)
        cases = [
            (lambda: timed(ring, compute=np.inf), "compute is infinite .*RandomLinks"),
            (
                lambda: timed(ring, delay=durations.Clipped(durations.Lost(1.0, 0.1), 0, 2)),
                "delay is inf",
            ),
            (lambda: timed(ring, compute=[1.0, 2.0]), r"seconds of compute has shape \(2,\)"),
            (
                lambda: timed(ring, delay=durations.Exponential(np.ones(5))),
                "mean of delay has shape",
            ),
            (lambda: timed(timed(ring), compute=2.0), "has times of its own"),
            (lambda: timed(line), "Timeline has times of its own"),
            (lambda: timed(jd.networks.pairwise(ring, steps=3)), "Pairs has times of its own"),
            (lambda: timed(back), "Arrivals has times of its own"),
            (lambda: timed(ring).seconds(1, 1, 0), "drawn round by round"),
        ]
        for make, sentence in cases:
            with pytest.raises(ValueError, match=sentence):
                make()
        problem = jd.problems.quadratic(agents=N, d=2)
        inside = jd.networks.Repeated(timed(ring, compute=2.0), 2)
        with pytest.raises(ValueError, match="inside a Repeated"):
            jd.run(jd.DGD(0.1), problem, inside, problem.start(), KEY, steps=2)
