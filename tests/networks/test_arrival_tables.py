"""Clients' arrivals against an event-by-event clock: rules, ties, staleness, frequencies."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import asynchronous

import jaxdopt as jd
from jaxdopt.networks import arrivals
from jaxdopt.networks.events import durations

F80 = np.linspace(1.0, 0.2, 5)
RULES = {
    "each": ({"rule": "each"}, ("each",)),
    "all": ({"rule": "all"}, ("all",)),
    "ticks": ({"every": 0.75}, ("every", 0.75)),
    "long ticks": ({"every": 8.0}, ("every", 8.0)),
    "buffer": ({"buffer": 3}, ("buffer", 3)),
    "buffer of one": ({"buffer": 1}, ("each",)),
    "at once": ({"buffer": 3, "restart": "at once"}, ("buffer", 3, "at once")),
}


def table(network):
    """[(time, [(client, staleness), ...])] as the tables have it."""
    return [
        (float(end), [(int(i), int(t)) for i, t in zip(who, stale, strict=True) if i < network.n])
        for end, who, stale in zip(network.end, network.agents, network.staleness, strict=True)
    ]


class TestTables:
    @given(
        name=st.sampled_from(list(RULES)),
        n=st.integers(3, 5),
        calls=st.integers(1, 2),
        slow=st.sampled_from([0, 1, 30]),
        seed=st.integers(0, 2**16),
    )
    @settings(max_examples=60, deadline=None, derandomize=True)
    def test_equal_the_clock(self, name, n, calls, slow, seed):
        """With times in quarters of a second, so that many are the same and sums are exact."""
        random, T = np.random.default_rng(seed), 12
        work = random.integers(1, 5, (400, n)) / 4
        work[:, 0] += slow
        travel = random.integers(0, 3, (400, n)) / 4
        options, rule = RULES[name]
        network = arrivals(
            n,
            compute=durations.Table(work),
            delay=durations.Table(travel),
            calls=calls,
            steps=T,
            **options,
        )
        visit = work[: 200 * calls].reshape(200, calls, n).sum(axis=1)
        visit = (visit + travel.reshape(200, 2, n).sum(axis=1)).T
        expected = [
            (time, [(r.client, k - r.fetched) for r in returned])
            for k, (time, returned) in enumerate(asynchronous.arrivals(visit, rule, T))
        ]
        assert table(network) == expected
        for who, latest in zip(np.asarray(network.agents), np.asarray(network.latest), strict=True):
            there = [i for i in who.tolist() if i < n]
            assert len(set(latest.tolist())) == len(latest)  # padding included
            last = [i if i not in there[k + 1 :] else None for k, i in enumerate(there)]
            assert [i if i < n else None for i in latest[: len(there)].tolist()] == last
            assert np.all(latest[len(there) :] >= n)
        fresh = [[i == len(r) - 1 or name != "at once" for i in range(len(r))] for _, r in expected]
        for row, want in zip(np.asarray(network.renewed), fresh, strict=True):
            assert row[: len(want)].tolist() == want

    def test_a_longer_table_begins_as_a_shorter_one(self):
        model = durations.Exponential(F80)
        short, long = (arrivals(5, compute=model, rule="each", steps=T) for T in (20, 90))
        assert table(long)[:20] == table(short)
        other = arrivals(5, compute=model, rule="each", steps=20, key=jax.random.key(1))
        assert table(other) != table(short)

    def test_seconds_end_where_they_say(self):
        network = arrivals(3, compute=[1.0, 0.5, 0.25], rule="each", seconds=3.0)
        assert network.horizon == 3 + 6 + 12
        assert "clients=3, returns=21, aggregations=21 of at most 1, seconds=3" in repr(network)

    def test_clients_that_never_return_are_not_waited_for(self):
        times = [1.0, np.inf, 0.5]
        each, ticks = arrivals(3, compute=times, rule="each", steps=30), arrivals(
            3, compute=times, every=0.75, steps=30
        )  # fmt: skip
        for network in (each, ticks):
            assert {i for _, who in table(network) for i, _ in who} == {0, 2}
            assert network.frequency[1] == 0
            assert np.isfinite(network.at(0, None).interval).all()
        np.testing.assert_allclose(each.frequency, [1 / 3, 0, 2 / 3], rtol=1e-12)

    def test_active_is_the_mask_of_clients(self):
        network = arrivals(5, compute=F80, every=0.5, steps=8)
        masks = jd.networks.participation.active(network, 8)
        for mask, (_, who) in zip(masks, table(network), strict=True):
            assert np.flatnonzero(mask).tolist() == sorted(i for i, _ in who)


class TestFrequencies:
    """Exact for constant times, whenever the table ends."""

    @pytest.mark.parametrize("steps", [29, 64])
    def test_of_single_returns_are_the_speeds(self, steps):
        network = arrivals(5, compute=F80, rule="each", steps=steps)
        expected = (1 / F80) / np.sum(1 / F80)
        np.testing.assert_allclose(network.frequency, expected, rtol=1e-12)
        at_once = arrivals(5, compute=F80, buffer=4, restart="at once", steps=steps)
        np.testing.assert_allclose(at_once.frequency, 4 * expected, rtol=1e-12)

    @pytest.mark.parametrize("dt", [0.2, 0.3, 0.5, 0.8, 1.0])
    def test_of_ticks_are_those_that_a_visit_takes(self, dt):
        network = arrivals(5, compute=F80, every=dt, steps=31)
        np.testing.assert_allclose(network.frequency, 1 / np.ceil(F80 / dt - 1e-9), rtol=1e-12)

    def test_of_all_are_one(self):
        assert arrivals(5, compute=F80, rule="all", steps=3).frequency.tolist() == [1] * 5

    @pytest.mark.slow
    def test_of_random_times_follow_their_means(self):
        model = durations.Exponential(F80)
        network = arrivals(5, compute=model, calls=2, rule="each", steps=20_000)
        np.testing.assert_allclose(
            network.frequency, (1 / F80) / np.sum(1 / F80), rtol=0.06
        )  # 1 / √(2 · 1600 visits) is 2 %
        buffers = arrivals(5, compute=model, buffer=2, steps=3_000)
        shares = np.bincount(np.asarray(buffers.agents).ravel(), minlength=5) / 3_000
        np.testing.assert_allclose(buffers.frequency, shares, rtol=0.01)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "the rule is not given; give one of"),
        ({"rule": "each", "every": 1.0}, r"the rule is rule='each', every=1\.0; give one of"),
        ({"rule": "some"}, "the rule is rule='some'; give one of"),
        ({"rule": "each", "restart": "at once"}, "restart is 'at once'; give 'together'"),
        ({"buffer": 4}, "buffer is 4 and there are 3 clients; give at most 3"),
        ({"every": 0.0}, "every is 0; give more than 0"),
        ({"rule": "each", "calls": 0}, "calls is 0; give the local steps of a visit"),
        ({"rule": "each", "calls": [1, 2]}, r"calls is \[1, 2\]; give"),
        ({"rule": "each", "compute": 0.0}, r"a visit of client 0 takes 0\.0 seconds of work"),
        ({"rule": "each", "compute": [1.0, 2.0]}, "compute has shape"),
        ({"rule": "each", "seconds": 3.0}, r"steps is 5 and seconds 3\.0; give one of the two"),
        (
            {"rule": "all", "compute": [1.0, np.inf, 1.0]},
            "too few clients return after 0 of 5 steps; give other times, or another rule",
        ),
    ],
)
def test_bad_input_is_refused_with_a_sentence(options, sentence):
    sentence = sentence.replace("compute has shape", "of compute has shape")
    with pytest.raises(ValueError, match=sentence):
        arrivals(3, **{"steps": 5, **options})


def test_clients_that_stop_end_the_table():
    work = durations.Table(np.array([[1.0, 1.0], [1.0, np.inf]]))
    with pytest.raises(
        ValueError, match="too few clients return after 1 of 4 steps; give steps=1 or fewer"
    ):
        arrivals(2, compute=work, rule="all", steps=4)
