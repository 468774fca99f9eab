"""Timelines against an event-by-event simulation, on random times with ties and losses."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import asynchronous

import jaxdopt as jd
from jaxdopt.networks.events import durations
from jaxdopt.networks.events.delay_line import DelayLine

KEY = jax.random.key(1)
N, D, RUNS = 5, 2, 12
GRAPH = np.array(  # a ring with a chord
    [[0, 1, 1, 0, 1], [1, 0, 1, 0, 0], [1, 1, 0, 1, 0], [0, 0, 1, 0, 1], [1, 0, 0, 1, 0]]
)
COUNTS = 70  # rows of the tables: more gradients than any agent takes in these runs


@functools.cache
def network():
    return jd.networks.metropolis(GRAPH)


@functools.cache
def problem():
    return jd.problems.quadratic(agents=N, d=D, curvature_spread=0.5, seed=2)


def x_start():
    return np.random.default_rng(3).standard_normal((N, D))


def loop(compute, delay, events, weights=None, stepsize=0.3, relaxation=0.8):
    """The events of ADSGD from a heap."""
    hessians, tilts, center = map(
        np.asarray, (problem().hessians, problem().tilts, problem().center)
    )

    def gradient(e, i, x):
        return hessians[i] @ (x - center) + tilts[i]

    weights = np.asarray(network().matrix()) if weights is None else weights
    return asynchronous.adsgd(
        gradient,
        weights,
        x_start(),
        stepsize,
        compute.T,
        lambda i, j, m: delay[m, i, j],
        events,
        relaxation,
    )


def simulated(compute, delay, **until):
    return jd.networks.timeline(
        network(), compute=durations.Table(compute), delay=durations.Table(delay), **until
    )


def padded(made, width=N, versions=RUNS + 1):
    """The same timeline in tables of one size, so that one program serves all."""
    runs, own, slots = made.age.shape
    agents = np.tile(2 * N + np.arange(width), (runs, 1))
    finish, age = np.zeros((runs, width)), np.zeros((runs, width, slots), int)
    for table, values in ((agents, made.agents), (finish, made.finish), (age, made.age)):
        table[:, :own] = values
    tables = {"agents": jnp.asarray(agents, jnp.int32), "age": jnp.asarray(age, jnp.int32)}
    return jd.replace(made, finish=jnp.asarray(finish), versions=versions, **tables)


def require_same(made, events):
    """Times, agents and the versions that they read, exactly."""
    finishes = made.completions()
    sender = np.asarray(made.sender)
    assert len(finishes.time) == len(events)
    for e, event in enumerate(events):
        assert (finishes.time[e], finishes.agent[e]) == (event.time, event.agent)
        i = event.agent
        heard = dict(zip(sender[i], finishes.read[e], strict=True))
        heard.pop(i, None)  # padding
        assert heard == event.read, (e, i)
    np.testing.assert_array_equal(
        finishes.version,
        [np.sum(finishes.agent[: e + 1] == i) for e, i in enumerate(finishes.agent)],
    )


def estimates(state, problem):
    return state.x


def trajectory(made, steps=RUNS):
    return jd.run(
        jd.ADSGD(0.3, 0.8),
        problem(),
        made,
        jnp.asarray(x_start()),
        KEY,
        steps=steps,
        metrics={"x": estimates},
    )


@st.composite
def tables(draw):
    """Compute times [COUNTS, N] and delays [COUNTS, N, N] of many kinds."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    compute = {
        "equal": lambda: np.ones((COUNTS, N)),
        "speeds": lambda: np.tile(random.choice([1.0, 2.0, 3.0, 7.0], N), (COUNTS, 1)),
        "ties": lambda: random.integers(1, 4, (COUNTS, N)) / 2,
        "random": lambda: random.exponential(1.0, (COUNTS, N)) + 1e-3,
        "wild": lambda: np.exp(2 * random.standard_normal((COUNTS, N))),
    }[draw(st.sampled_from(["equal", "speeds", "ties", "random", "wild"]))]()
    shape = (COUNTS, N, N)
    delay = {
        "none": lambda: np.zeros(shape),
        "half": lambda: np.full(shape, 0.5),
        "links": lambda: np.tile(random.choice([0.0, 0.5, 1.0, 4.0], (N, N)), (COUNTS, 1, 1)),
        "ties": lambda: random.integers(0, 7, shape) / 2,
        "random": lambda: random.exponential(2.0, shape),
    }[draw(st.sampled_from(["none", "half", "links", "ties", "random"]))]()
    lost = draw(st.sampled_from([0.0, 0.3, 1.0]))
    return compute, np.where(random.random(shape) < lost, np.inf, delay)


class TestAgainstEventByEvent:
    @settings(max_examples=60, deadline=None, derandomize=True)
    @given(tables())
    def test_runs_do_what_one_finish_after_the_other_does(self, drawn: Any):
        made = simulated(*drawn, steps=RUNS)
        assert made.horizon == RUNS
        compute, delay = drawn
        events = loop(compute, delay, len(made.completions().time))
        require_same(made, events)
        ends = np.cumsum(np.sum(np.asarray(made.agents) < N, axis=1)) - 1
        result = trajectory(padded(made))
        history = result.history
        for k, end in enumerate(ends):
            np.testing.assert_allclose(history["x"][k + 1], events[end].x, atol=1e-10)
            np.testing.assert_allclose(history["seconds"][k + 1], events[end].time, rtol=1e-6)
        np.testing.assert_allclose(history["gradients"][1:], (ends + 1) / N, rtol=1e-6)

    @settings(max_examples=60, deadline=None, derandomize=True)
    @given(tables())
    def test_runs_are_as_long_as_they_can_be(self, drawn):
        """No agent twice, nothing read that was made within; and the next finish breaks one."""
        made = simulated(*drawn, steps=RUNS)
        finishes = made.completions()
        sender = np.asarray(made.sender)
        places = {
            (i, v): e for e, (i, v) in enumerate(zip(finishes.agent, finishes.version, strict=True))
        }

        def fits(e, first):
            i = finishes.agent[e]
            heard = [
                places.get((j, v), -1)
                for j, v in zip(sender[i], finishes.read[e], strict=True)
                if j != i and v > 0
            ]
            return i not in finishes.agent[first:e] and all(p < first for p in heard)

        for run in range(RUNS):
            inside = np.flatnonzero(finishes.run == run)
            assert all(fits(e, inside[0]) for e in inside)
            after = inside[-1] + 1
            if run + 1 < RUNS and len(inside) < made.agents.shape[1]:
                assert not fits(after, inside[0])

    def test_an_agent_that_stops_is_not_waited_for(self):
        compute = np.ones((COUNTS, N))
        compute[3:, 2] = np.inf
        delay = np.full((COUNTS, N, N), 0.5)
        made = simulated(compute, delay, steps=RUNS)
        require_same(made, loop(compute, delay, len(made.completions().time)))
        assert np.sum(made.completions().agent == 2) == 3
        assert made.end[-1] == RUNS
        with pytest.raises(
            ValueError, match="all agents have stopped after 7 of 8 steps; give steps=7 or fewer"
        ):
            jd.networks.timeline(
                network(), compute=durations.Table(np.where(np.arange(9)[:, None] < 7, 1.0, np.inf)
                                               * np.ones(N)), delay=0.5, steps=8,
            )  # fmt: skip

    def test_longer_timelines_begin_as_shorter_ones(self):
        model, late = durations.Exponential(1.0), durations.Lost(durations.Exponential(3.0), 0.2)
        make = functools.partial(
            jd.networks.timeline, network(), compute=model, delay=late, key=KEY
        )
        short, long, until = make(steps=20), make(steps=90), make(seconds=10.0)
        a, b, c = (made.completions() for made in (short, long, until))
        for name in ("time", "agent", "read"):
            got = getattr(a, name)
            np.testing.assert_array_equal(got, getattr(b, name)[: len(got)])
        both = min(len(b.time), len(c.time))
        assert np.all(c.time <= 10.0)
        np.testing.assert_array_equal(b.time[:both], c.time[:both])
        np.testing.assert_array_equal(b.read[:both], c.read[:both])
        other = jd.networks.timeline(network(), compute=model, delay=late, steps=20)
        assert not np.array_equal(other.end, short.end)  # another key

    def test_many_agents_whose_runs_are_cut_narrower(self):
        """Few wide runs among many narrow ones: tables as wide as these would be mostly air."""
        n = 200
        ring = jd.networks.metropolis(jd.graphs.ring(n))
        compute = np.random.default_rng(0).exponential(1.0, (60, n))
        compute[0] = 1.0  # all finish at once, and then never again
        made = jd.networks.timeline(ring, compute=durations.Table(compute), delay=0.2, seconds=12.0)
        assert made.agents.shape[1] < 100
        finishes = made.completions()
        everything = np.cumsum(compute, axis=0)
        np.testing.assert_array_equal(finishes.time, np.sort(everything[everything <= 12.0]))
        first = np.unique(finishes.run, return_index=True)[1]
        for begin, end in zip(first, [*first[1:], len(finishes.run)], strict=True):
            assert len(set(finishes.agent[begin:end])) == end - begin
        for e in range(0, len(finishes.time), 7):  # the newest that has arrived by then
            i = finishes.agent[e]
            for j, version in zip(np.asarray(made.sender)[i], finishes.read[e], strict=True):
                arrived = everything[:, j] + 0.2 <= finishes.time[e]
                assert version == arrived.sum()


class TestTables:
    def test_weights_are_those_of_the_network(self):
        graph = jd.graphs.directed_ring(N)
        for made_of in (network(), jd.networks.push_pull(graph, GRAPH)):
            made = jd.networks.timeline(made_of, steps=4)
            for part, table, own in (
                (made_of.row, made.weights, made.own),
                (made_of.column, made.shares, made.kept),
            ):
                dense = np.diag(np.asarray(own)[:, 0])
                np.add.at(
                    dense, (np.arange(N)[:, None], np.asarray(made.sender)), np.asarray(table)
                )
                np.testing.assert_allclose(dense, part.csr().toarray(), atol=1e-15)
            assert made.kind == made_of.kind

    def test_traffic_counts_every_message(self):
        star = jd.networks.metropolis(jd.graphs.star(4))
        made = jd.networks.timeline(star, compute=[1.0, 2.5, 2.5, 7.0], delay=0.1, seconds=8.0)
        whole = jd.problems.quadratic(agents=4, d=3)
        history = jd.run(jd.ADSGD(0.1), whole, made, whole.start(), KEY, steps=made.horizon).history
        counts = [8, 3, 3, 1]
        np.testing.assert_allclose(history["traffic"][-1], 96 * (3 * counts[0] + sum(counts[1:])))
        np.testing.assert_allclose(history["bits"][-1], 96 * sum(counts) / 4, rtol=1e-6)
        np.testing.assert_allclose(history["rounds"][-1], sum(counts) / 4, rtol=1e-6)

    def test_a_delay_line_gives_back_what_was_pushed(self):
        random = np.random.default_rng(0)
        versions, kept = 4, [[row] for row in random.standard_normal((3, 2))]
        line = DelayLine.full(jnp.array([rows[0] for rows in kept]), versions)
        for _ in range(20):
            who = random.permutation(3)[: random.integers(0, 4)]
            rows = random.standard_normal((3, 2))
            line = line.push(jnp.array([*who, 3, 4, 5][:3]), jnp.asarray(rows))
            for i, row in zip(who, rows, strict=False):
                kept[i].append(row)
            for age in range(versions):
                got = line.read(jnp.arange(3), jnp.full(3, age))
                want = [rows[max(len(rows) - 1 - age, 0)] for rows in kept]
                np.testing.assert_array_equal(got, want)

    def test_it_says_what_it_holds(self):
        made = simulated(np.ones((2, N)), np.full((2, N, N), 0.5), seconds=3.0)
        assert repr(made) == (
            "Timeline(agents=5, completions=15, runs=3 of at most 5, seconds=3, versions=1)"
        )


class TestRefusals:
    @pytest.mark.parametrize(
        ("make", "sentence"),
        [
            (lambda go: go(), "steps is None and seconds None; give one"),
            (lambda go: go(steps=3, seconds=2.0), "give one of the two"),
            (lambda go: go(steps=0), "steps is 0"),
            (lambda go: go(seconds=np.inf), "seconds is inf"),
            (lambda go: go(seconds=0.5), "nothing happens within 0.5 seconds; give more"),
            (lambda go: go(steps=3, compute=0.0), "a gradient of agent 0 takes 0.0 seconds"),
            (lambda go: go(steps=3, compute=-1.0), "compute is -1; give at least 0"),
            (lambda go: go(steps=3, compute=np.inf), "all compute times are infinite"),
            (lambda go: go(steps=3, compute=[1.0, 2.0]), r"compute has shape \(2,\)"),
            (lambda go: go(steps=3, delay=durations.Table(np.ones((2, 3)))), "of delay has shape"),
            (lambda go: go(jd.networks.RandomLinks(network(), 0.5), steps=3), "a RandomLinks"),
            (lambda go: go(jd.networks.Server(N), steps=3), "this is a Server"),
            (lambda go: go(jd.networks.Repeated(network(), 2), steps=3), "this is a Repeated"),
            (lambda go: go(jd.networks.timed(network()), steps=3), "this is a Timed"),
        ],
    )  # fmt: skip
    def test_what_cannot_be_simulated(self, make, sentence):
        def go(of=None, **options):
            return jd.networks.timeline(of or network(), **options)

        with pytest.raises(ValueError, match=sentence):
            make(go)

    def test_runs_that_go_on_past_the_horizon(self):
        made = jd.networks.timeline(network(), steps=10)
        with pytest.raises(ValueError, match="knows 10 rounds and the run needs round 0 to 10"):
            trajectory(made, 11)

    def test_methods_that_wait(self):
        made = jd.networks.timeline(network(), steps=10)
        for method in (jd.DGD(0.1), jd.EXTRA(0.1), jd.PushDIGing(0.1), jd.LinearizedADMM(0.1)):
            with pytest.raises(ValueError, match=r"needs .* this Timeline does not offer that"):
                jd.run(method, problem(), made, problem().start(), KEY, steps=5)

    @pytest.mark.parametrize("name", ["csr", "spectral_gap", "row", "laplacian"])
    def test_there_is_no_matrix(self, name):
        made = jd.networks.timeline(network(), steps=2)
        with pytest.raises(ValueError, match="this Timeline does not offer that"):
            getattr(made, name)()
