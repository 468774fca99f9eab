"""Participation: who takes part when, how long clients stay away, and what is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdopt as jd
from jaxdopt.networks import participation

N, STEPS = 12, 3000
KEY = jax.random.key(3)
P = np.linspace(0.1, 0.9, N)


@functools.cache
def pattern(name):
    return {
        "full": lambda: participation.full(N),
        "few": lambda: participation.uniform(N, 3),
        "many": lambda: participation.uniform(N, 9),
        "unequal": lambda: participation.bernoulli(P),
        "cyclic": lambda: participation.cyclic(N, 4),
        "uneven groups": lambda: participation.cyclic(N, 5),
        "halves": lambda: participation.cyclic(11, 2),
        "reshuffled": lambda: participation.reshuffled_cyclic(N, 4),
        "rare": lambda: participation.rare(N, 7, client=2),
        "markov": lambda: participation.markov(N, 0.2, 0.1, steps=STEPS, key=KEY),
    }[name]()


PATTERNS = [
    "full", "few", "many", "unequal", "cyclic", "uneven groups", "halves", "reshuffled", "rare",
    "markov",
]  # fmt: skip


@functools.cache
def rounds(name):
    return np.asarray(participation.active(pattern(name), STEPS, KEY))


@functools.cache
def delays(name):
    return participation.delay_metrics(rounds(name))


@pytest.mark.parametrize("name", PATTERNS)
def test_a_round_is_a_server_whose_mask_and_clients_agree(name):
    network = pattern(name)
    now = network.at(5, KEY)
    assert isinstance(now, jd.networks.Server)
    assert (now.n, now.k) == (network.n, 5)
    if name == "full":
        assert now.active is now.clients is None  # which means everybody
        assert rounds(name).all()
        return
    np.testing.assert_array_equal(now.active, rounds(name)[5])
    most = rounds(name).sum(axis=1).max()
    if name in ("few", "cyclic", "uneven groups", "reshuffled"):
        assert network.bound == most == len(now.clients)
        real = np.asarray(now.clients)[np.asarray(now.clients) < network.n]
        assert len(set(np.asarray(now.clients).tolist())) == network.bound
        np.testing.assert_array_equal(np.flatnonzero(now.active), np.sort(real))
    else:
        assert network.bound is now.clients is None
        assert 2 * most > network.n


def test_frequencies():
    deviation = np.sqrt(P * (1 - P) / STEPS)
    assert np.all(np.abs(rounds("unequal").mean(axis=0) - P) < 4 * deviation)
    assert rounds("few").sum(axis=1).tolist() == [3] * STEPS
    assert rounds("many").sum(axis=1).tolist() == [9] * STEPS
    for name, share in (("few", 0.25), ("many", 0.75)):
        assert np.abs(rounds(name).mean(axis=0) - share).max() < 4 * np.sqrt(0.1875 / STEPS)
    together = np.mean(rounds("few")[:, 0] & rounds("few")[:, 1])  # 3 2 / (12 11)
    np.testing.assert_allclose(together, 6 / 132, atol=4 * np.sqrt(0.045 / STEPS))


def test_groups_take_turns():
    assert all(np.flatnonzero(rounds("cyclic")[k]).tolist() == [k, k + 4, k + 8] for k in range(4))
    assert np.flatnonzero(rounds("uneven groups")[3]).tolist() == [3, 8]
    epochs = rounds("reshuffled").reshape(-1, 4, N)
    assert np.all(epochs.sum(axis=1) == 1)  # everybody once an epoch
    orders = {tuple(np.argmax(epoch[:, :4], axis=0)) for epoch in epochs}
    assert len(orders) == 24  # and all orders occur
    np.testing.assert_array_equal(rounds("rare").sum(axis=0), [429 if i == 2 else STEPS
                                                              for i in range(N)])  # fmt: skip


def test_closed_forms_of_delays():
    assert delays("full") == (0, 0.0, 0.0)
    assert delays("cyclic").tau_max == 3
    np.testing.assert_allclose(delays("cyclic").tau_avg, 3, atol=2e-3)  # 2, 1 at the start
    np.testing.assert_allclose(delays("cyclic").tau_mean, 1.5, atol=2e-3)
    assert delays("reshuffled").tau_max == 2 * 4 - 2
    assert delays("rare").tau_max == 7 - 1
    np.testing.assert_allclose(delays("rare").tau_avg, 3, atol=5e-3)


def test_ages_of_uniform_participation_are_geometric():
    now = np.arange(STEPS)[:, None]
    there = rounds("few")
    age = now - np.maximum.accumulate(np.where(there, now, -1), axis=0)
    for a in range(4):
        np.testing.assert_allclose(np.mean(age == a), 0.25 * 0.75**a, atol=0.01)
    np.testing.assert_allclose(delays("few").tau_mean, 3, atol=0.1)


def test_markov_chains_have_their_share_and_memory():
    there = rounds("markov")
    share = 0.1 / 0.3
    # a correlated mean: its variance is larger by (1 + r) / (1 − r), r = 0.7
    assert np.abs(there.mean() - share) < 4 * np.sqrt(share * (1 - share) * 5.7 / there.size)
    away = there - share
    for lag in (1, 2, 3):
        correlation = np.mean(away[lag:] * away[:-lag]) / np.mean(away**2)
        np.testing.assert_allclose(correlation, 0.7**lag, atol=0.03)
    firsts = jax.vmap(lambda key: participation.markov(N, 0.2, 0.1, steps=1, key=key).rows)(
        jax.random.split(KEY, 300)
    )
    np.testing.assert_allclose(firsts.mean(), share, atol=4 * np.sqrt(0.222 / 3600))


def test_probabilities_and_chains_sweep():
    stack = jax.vmap(participation.bernoulli)(jnp.stack([jnp.zeros(N), jnp.ones(N)]))
    there = jax.vmap(lambda network: network.at(3, KEY).active)(stack)
    assert there.sum(axis=1).tolist() == [0, N]
    chains = jax.vmap(
        lambda leave: participation.markov(N, leave, 0.5, steps=400, key=KEY).rows.mean()
    )(jnp.array([0.1, 0.5, 1.0]))
    np.testing.assert_allclose(chains, [5 / 6, 0.5, 1 / 3], atol=0.05)
    one = participation.bernoulli(0.5, n=4)
    assert one.at(0, KEY).active.shape == (4,)


@pytest.mark.slow
def test_who_takes_part_is_independent_of_the_samples():
    """Draws of both kinds over rounds, of one key: their correlation is that of noise."""
    two = jd.problems.FiniteSum(lambda x, z: jnp.sum(x * z), np.ones((N, 2, 1)), np.zeros(1))
    problem = jd.problems.Minibatch(two, 1)
    drawn = jax.vmap(lambda k: problem.indices(jax.random.fold_in(KEY, k))[:, 0])(jnp.arange(STEPS))
    for name in ("few", "unequal", "markov"):
        there, sample = rounds(name) - rounds(name).mean(axis=0), np.asarray(drawn) - 0.5
        correlation = np.mean(there * sample, axis=0) / (there.std(axis=0) * sample.std(axis=0))
        assert np.abs(correlation).max() < 4.5 / np.sqrt(STEPS)
    other = participation.active(participation.uniform(N, 3), 50, jax.random.key(4))
    assert np.any(other != rounds("few")[:50])


def test_traces_are_read_as_they_were_written(tmp_path):
    table = np.random.default_rng(0).random((20, N)) < 0.3
    table[4] = False
    lists = [np.flatnonzero(row).tolist() for row in table]
    np.save(tmp_path / "trace.npy", table)
    np.savetxt(tmp_path / "trace.csv", table.astype(int), fmt="%d", delimiter=",")
    dense = table | (np.arange(N) < 7)
    for given in (table, table.astype(int), table.tolist(), tmp_path / "trace.npy",
                  str(tmp_path / "trace.csv"), dense):  # fmt: skip
        network = participation.trace(given)
        expected = dense if given is dense else table
        np.testing.assert_array_equal(participation.active(network, 20), expected)
        assert (network.bound is None) == (given is dense)
    network = participation.trace(lists, n=N)
    np.testing.assert_array_equal(participation.active(network, 20), table)
    assert network.horizon == 20
    assert network.bound == table.sum(axis=1).max() <= N / 2


def test_runs_end_where_a_trace_does():
    problem = jd.problems.quadratic(4, 2)
    network = participation.trace(np.ones((5, 4), bool))

    def go(**options):
        return jd.run(jd.FedAvg(0.1), problem, network, problem.start(), KEY, **options)

    assert go(steps=5).history["step"][-1] == 5
    for options in ({"steps": 6}, {"steps": 3, "start": 3}):
        with pytest.raises(ValueError, match="knows 5 rounds and the run needs round"):
            go(**options)
    sleepy = jd.networks.Asleep(jd.networks.metropolis(jd.graphs.ring(4)), network)
    with pytest.raises(ValueError, match="knows 5 rounds"):
        jd.run(jd.DGD(0.1), problem, sleepy, problem.start(), KEY, steps=6)
    with pytest.raises(ValueError, match="knows 5 rounds and steps is 6"):
        participation.active(network, 6)


@pytest.mark.slow
def test_asleep_takes_a_pattern():
    network = jd.networks.Asleep(jd.networks.metropolis(jd.graphs.ring(N)), pattern("few"))
    np.testing.assert_array_equal(network.at(7, KEY).active, rounds("few")[7])
    asleep = ~rounds("few")[7]
    x = jnp.arange(float(N))[:, None]
    np.testing.assert_array_equal((network.at(7, KEY) @ x)[asleep], x[asleep])
    awake = jd.networks.Asleep(jd.networks.metropolis(jd.graphs.ring(N)), pattern("full"))
    np.testing.assert_allclose(awake.at(7, KEY) @ x, network.network @ x, atol=1e-15)


def test_methods_that_need_everybody_take_full_participation():
    world = jd.problems.quadratic(N, 2)
    for method in (jd.FedNMap(0.1, 1.0), jd.ZhangHuJohansson(0.1)):
        options = {"x0": world.start(), "problem": world, "key": KEY}
        method.init(network=pattern("full").at(0, KEY), **options)
        with pytest.raises(ValueError, match="needs all agents in every round"):
            method.init(network=pattern("few").at(0, KEY), **options)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: participation.full(0), "n is 0; give an integer"),
        (lambda: participation.uniform(4, 5), "size is 5 and there are 4 clients"),
        (lambda: participation.uniform(4, 0), "size is 0"),
        (lambda: participation.cyclic(4, 5), "groups is 5 and there are 4 clients"),
        (lambda: participation.reshuffled_cyclic(4, 0), "groups is 0"),
        (lambda: participation.rare(4, 0), "every is 0"),
        (lambda: participation.rare(4, 2, client=4), "client is 4 and there are 4"),
        (lambda: participation.bernoulli(0.5), "p has shape .. and n is None"),
        (lambda: participation.bernoulli([0.5, 1.5]), "p is 1.5; give at most 1"),
        (lambda: participation.bernoulli([0.5, -0.5]), "p is -0.5; give at least 0"),
        (lambda: participation.bernoulli([0.5, 0.5], n=3), r"p has shape \(2,\) and n is 3"),
        (lambda: participation.markov(3, 0.0, 0.0, steps=3, key=KEY), "neither leaves nor joins"),
        (lambda: participation.markov(3, 1.5, 0.0, steps=3, key=KEY), "leave is 1.5"),
        (lambda: participation.markov(3, np.ones(2), 0.0, steps=3, key=KEY), "leave has shape"),
        (lambda: participation.trace([[0, 4]], n=4), "round 0 of the trace has client 4"),
        (lambda: participation.trace([[0], [-1]], n=4), "round 1 of the trace has client -1"),
        (lambda: participation.trace([[0.5]], n=4), "has client 0.5"),
        (lambda: participation.trace([[0]]), "n is None and the trace has clients' numbers"),
        (lambda: participation.trace([]), "the trace has no rounds"),
        (lambda: participation.trace(np.ones(3, bool)), r"the trace has shape \(3,\)"),
        (lambda: participation.trace(np.ones((3, 2), bool), n=3), "the trace has shape"),
        (lambda: participation.trace([[True], [True, False]]), "rounds of 1 and 2 clients"),
        (lambda: participation.trace(np.full((3, 2), 2)), "the trace has the value 2"),
        (lambda: participation.trace("no.csv"), "no file that ends in .npy or .csv"),
        (lambda: participation.delay_metrics(participation.full(3)), "steps is None"),
        (lambda: participation.delay_metrics(np.ones((3, 2))), "dtype float64"),
    ],
)  # fmt: skip
def test_bad_input_gets_one_sentence(make, message):
    with pytest.raises(ValueError, match=message):
        make()
