"""The base of event schedules: a new one states its event loop and its tables, and nothing else."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdopt as jd
from jaxdopt.networks.events import durations
from jaxdopt.networks.events.schedule import (
    Places,
    Round,
    Schedule,
    length,
    recorded,
    simulate,
    stored,
)

N = 5
KEY = jax.random.key(2)


@jd.pytree
class Visit(Round):
    """A token is at one agent."""

    agents: Any
    last: Any
    k: Any
    n: int = jd.static()
    offers = frozenset({"token"})


@jd.pytree
class Walk(Schedule):
    """A token on a random walk, or Poisson clocks."""

    end: Any
    agents: Any
    n: int = jd.static()
    nouns = ("agents", "visits", "rounds")
    offers = Visit.offers

    def at(self, k: Any, key: Any) -> Visit:
        return Visit(self.agents[k], self.since(k), k, self.n)


def walk(steps=None, seconds=None, compute: Any = 1.0, seed=0, stops=None):
    """Where an event decides what follows it: a token on a ring."""
    until = length(steps, seconds)
    model = durations.as_model(compute, "compute")

    def visits():
        random, here, now = np.random.default_rng(seed), 0, 0.0
        while stops is None or now < stops:
            now += float(model.at(0, KEY, here, here))
            yield now, here
            here = (here + random.choice([-1, 1])) % N

    record = recorded(visits(), until, "the token is lost")
    end, at = (np.array(column) for column in zip(*record, strict=True))
    places = Places(np.arange(len(at) + 1))
    return Walk(stored(end), places.indices(at, N), N)


def poisson(steps=None, seconds=None, rate: Any = 1.0, key=KEY, width=3):
    """Where agents go at their own pace: the next three events are a round."""

    def cut(time, agent):
        cuts = np.append(np.arange(0, len(time), width), len(time))
        return (time, agent), np.unique(cuts)

    clocks = durations.Exponential(1 / rate)
    (time, agent), cuts = simulate(clocks, N, key, length(steps, seconds), cut)
    return Walk(stored(time[cuts[1:] - 1]), Places(cuts).indices(agent, N), N)


def counts(network, steps):
    def step(x, k):
        now = network.at(k, KEY)
        return x.at[now.agents].add(1.0, mode="drop"), (now.seconds(1, 1, 0), now.share)

    return jax.lax.scan(step, jnp.zeros(N), jnp.arange(steps))


def test_a_token_walks_in_simulated_time():
    compute = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    made = walk(steps=40, compute=compute)
    at = np.asarray(made.agents)[:, 0]
    assert made.horizon == 40
    assert set(np.abs(np.diff(at)).tolist()) <= {1, N - 1}
    x, (seconds, share) = counts(made, 40)
    np.testing.assert_array_equal(x, np.bincount(at, minlength=N))
    np.testing.assert_allclose(seconds, compute[at])
    np.testing.assert_allclose(share, 1 / N)
    assert repr(walk(steps=3)) == "Walk(agents=5, visits=3, rounds=3 of at most 1, seconds=3)"
    assert walk(seconds=7.5).horizon == 7


def test_poisson_clocks_ring_at_their_rates():
    rate = np.array([1.0, 1.0, 2.0, 2.0, 4.0])
    made = poisson(seconds=400.0, rate=rate)
    x, (seconds, _) = counts(made, made.horizon)
    np.testing.assert_allclose(x / 400, rate, rtol=0.15)  # 3 / √400
    np.testing.assert_allclose(np.cumsum(seconds), made.end)
    assert made.end[-1] <= 400.0
    short, long = poisson(steps=9, rate=rate), poisson(steps=30, rate=rate)
    np.testing.assert_array_equal(short.agents, long.agents[:9])
    np.testing.assert_array_equal(short.end, made.end[:9])


def test_padding_is_neither_read_nor_written():
    made = Walk(jnp.array([1.0]), Places(np.array([0, 2])).indices(np.array([1, 3]), N), N)
    empty = Places(np.array([0, 2, 2])).indices(np.array([1, 3]), N)
    assert empty.tolist() == [[1, 3], [5, 6]]
    table = Places(np.array([0, 2, 3])).table(np.array([0.5, 1.5, 2.5]), -1.0)
    assert table.tolist() == [[0.5, 1.5], [2.5, -1.0]]
    now = made.at(0, KEY)
    rows, number = now.rows((jnp.arange(N)[:, None] * 10, 0.3))
    assert (rows[:, 0].tolist(), float(number)) == ([10, 30], 0.3)
    assert float(now.share) == pytest.approx(2 / N)


def test_stacks_have_one_size_and_the_shortest_horizon():
    wide, narrow = poisson(steps=9), poisson(steps=6, width=2, key=jax.random.key(3))
    stacked = jd.networks.stack([wide, narrow])
    assert stacked.agents.shape == (2, 6, 3)
    assert all(len(set(row)) == 3 for row in np.asarray(stacked.agents[1]).tolist())
    for i, alone in enumerate((wide, narrow)):
        member = jax.tree.map(lambda leaf, i=i: leaf[i], stacked)
        for got, want in zip(
            jax.tree.leaves(counts(member, 6)), jax.tree.leaves(counts(alone, 6)), strict=True
        ):
            np.testing.assert_allclose(got, want)
    assert repr(stacked) == "Walk(agents=5)"


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (walk, "steps is None and seconds None; give one of the two"),
        (lambda: walk(steps=3, seconds=1.0), "steps is 3 and seconds 1.0; give one of the two"),
        (lambda: walk(steps=0), "steps is 0; give an integer of at least 1"),
        (lambda: poisson(seconds=-1.0), "seconds is -1.0; give a positive finite time"),
        (lambda: walk(seconds=0.5), "nothing happens within 0.5 seconds; give more, or other"),
        (lambda: poisson(seconds=1e-9), "nothing happens within 1e-09 seconds; give more"),
        (
            lambda: walk(steps=9, stops=4.0),
            "the token is lost after 4 of 9 steps; give steps=4 or fewer, or other times",
        ),
        (
            lambda: walk(steps=9, stops=0.0),
            "the token is lost after 0 of 9 steps; give other times",
        ),
    ],
)
def test_lengths_that_cannot_be_are_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


@pytest.mark.parametrize(
    "make",
    [
        functools.partial(walk, steps=3),
        lambda: jd.networks.timeline(jd.networks.metropolis(jd.graphs.ring(N)), steps=3),
        lambda: jd.networks.pairwise(jd.networks.metropolis(jd.graphs.ring(N)), steps=3),
        lambda: jd.networks.arrivals(N, rule="each", steps=3),
    ],
    ids=["walk", "timeline", "pairs", "arrivals"],
)
def test_no_schedule_nor_round_mixes_or_can_be_cut(make):
    made = make()
    for network in (made, made.at(0, KEY)):
        with pytest.raises(ValueError, match=r"network @ x needs doubly stochastic weights"):
            _ = network @ jnp.zeros((N, 1))
        assert not network.offers & {"mixing", "pull", "push"}
    with pytest.raises(ValueError, match=r"links of this .* cannot be cut"):
        jd.networks.RandomLinks(made, 0.5)
    with pytest.raises(ValueError, match="has times of its own"):
        jd.networks.timed(made)
    np.testing.assert_allclose(made.mean(jnp.arange(2.0 * N).reshape(N, 2)), [4.0, 5.0])


def test_a_meeting_sends_a_message_each_way():
    made = jd.networks.pairwise(jd.networks.metropolis(jd.graphs.ring(N)), steps=3)
    assert made.at(0, KEY).link_count == 2 * N
