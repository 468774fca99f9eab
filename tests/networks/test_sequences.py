"""Networks that change with time: what every draw keeps; who is up, awake or paired, and when."""

import functools
import itertools
import time
from typing import Any

import chex
import jax
import jax.numpy as jnp
import loops
import networkx as nx
import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxdopt as jd
from jaxdopt import graphs, networks
from jaxdopt.networks import (
    Asleep,
    Chebyshev,
    Circulant,
    Complete,
    Cyclic,
    Dense,
    Disconnected,
    Neighbors,
    Pushes,
    RandomLinks,
    RandomMatching,
    Repeated,
    mixing,
    sequence,
    sequences,
)

KEY = jax.random.key(0)
N = 12
CHORDS = nx.cycle_graph(N)
CHORDS.add_edges_from([(0, 5), (2, 9), (3, 7)])
ARCS = nx.cycle_graph(N, create_using=nx.DiGraph)
ARCS.add_edges_from([(0, 5), (5, 1), (9, 2), (3, 8), (8, 0)])
RING: Any = networks.metropolis(graphs.ring(N))


@functools.cache
def relabeled(directed: bool, seed: int):
    return loops.relabeled(ARCS if directed else CHORDS, np.random.default_rng(seed))


@functools.cache
def table(seed):
    return networks.metropolis(relabeled(False, seed))


@functools.cache
def dense(seed):
    return mixing(loops.metropolis(relabeled(False, seed)), form=Dense)


@functools.cache
def mobile(seed, weights="metropolis"):
    """Return a trace of three graphs, each with some of the links: agents are alone in some."""
    graph = relabeled("stochastic" in weights, seed)
    edges = sorted(graph.edges)
    parts = []
    for part in (edges[:6], edges[5:11], edges[10:]):
        one = nx.empty_graph(N, create_using=type(graph))
        one.add_edges_from(part)
        parts.append(one)
    return sequence(parts, weights=weights)


# name: (network of a graph's seed, a pattern of who is awake, and a probability)
SYMMETRIC = {
    "links of a table": lambda s, p: RandomLinks(table(s), p),
    "links of a dense one": lambda s, p: RandomLinks(dense(s), p),
    "asleep matching": lambda s, p: Asleep(RandomMatching(relabeled(False, s)), p),
    "asleep links of a trace": lambda s, p: Asleep(RandomLinks(mobile(s), p), 0.7),
    "repeated sleep": lambda s, p: Repeated(Disconnected(RING, p), 3),
    "asleep repeated links": lambda s, p: Asleep(Repeated(RandomLinks(table(s), p), 2), 0.6),
    "four deep": lambda s, p: Asleep(
        RandomLinks(Repeated(RandomLinks(RING, p), 2), 0.8), 0.7
    ),
    "asleep Chebyshev": lambda s, p: Asleep(Chebyshev(table(s), 3, radius=0.9), p),
}  # fmt: skip
ONE_SIDED = {
    "row": lambda s, p: RandomLinks(networks.row_stochastic(relabeled(True, s)), p),
    "column": lambda s, p: RandomLinks(networks.column_stochastic(relabeled(True, s)), p),
    "dense column": lambda s, p: Asleep(
        mixing(loops.column_stochastic(relabeled(True, s)), kind="column", form=Dense), p
    ),
    "repeated column": lambda s, p: Repeated(
        Disconnected(RandomLinks(mobile(s, "column_stochastic"), p), 0.7), 2
    ),
    "push-pull": lambda s, p: Asleep(networks.push_pull(relabeled(True, s)), p),
}  # fmt: skip


@loops.jit
def draws(network, ks, key, x):
    """Return W x in several rounds, [rounds, n, d] in both precisions; or of both parts."""

    def one(k):
        now = network.at(k, key)
        if now.kind == "directed":
            return now.row @ x, now.column @ x
        part = now.column if now.kind == "column" else now.row
        return (part @ x,) * 2

    return jax.vmap(one)(ks)


@functools.cache
def values(seed):
    """Return two columns of numbers and one of consensus, in both precisions."""
    x = jnp.concatenate([3 * loops.rows(N, 2, seed=seed), jnp.full((N, 1), np.pi)], axis=1)
    return x, x.astype(jnp.float32)


class TestEveryDraw:
    @given(
        name=st.sampled_from([*SYMMETRIC]),
        seed=st.integers(0, 1),
        key=st.integers(0, 2**31),
        first=st.integers(0, 2**30),
        p=st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]),
    )
    @settings(max_examples=120, deadline=None, derandomize=True)
    def test_keeps_the_mean_and_consensus_of_symmetric_ones(self, name, seed, key, first, p):
        network = SYMMETRIC[name](seed, p)
        found = draws(network, first + jnp.arange(4), jax.random.key(key), values(seed))[0]
        for before, after, unit in zip(values(seed), found, (1e-14, 2e-7), strict=True):
            before, after = (np.asarray(a, np.float64) for a in (before, after))
            scale = np.abs(before).max()
            assert np.abs(after.mean(axis=1) - before.mean(axis=0)).max() < 10 * unit * scale
            assert np.abs(after).max() <= 1.5 * scale
            np.testing.assert_allclose(after[:, :, 2], np.pi, rtol=2 * unit)

    @given(
        name=st.sampled_from([*ONE_SIDED]),
        seed=st.integers(0, 1),
        key=st.integers(0, 2**31),
        first=st.integers(0, 2**30),
        p=st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]),
    )
    @settings(max_examples=60, deadline=None, derandomize=True)
    def test_keeps_the_sum_that_one_sided_ones_have(self, name, seed, key, first, p):
        network = ONE_SIDED[name](seed, p)
        row, column = draws(network, first + jnp.arange(4), jax.random.key(key), values(seed))
        for i, (before, unit) in enumerate(zip(values(seed), (1e-14, 2e-7), strict=True)):
            if network.kind != "row":
                before, after = (np.asarray(a, np.float64) for a in (before, column[i]))
                moved = after.sum(axis=1) - before.sum(axis=0)
                assert np.abs(moved).max() < 10 * unit * np.abs(before).sum()
            if network.kind != "column":
                np.testing.assert_allclose(row[i][:, :, 2], np.pi, rtol=2 * unit)

    def test_the_mean_does_not_drift_in_float32(self):
        """10,000 rounds of failing links, with whole numbers handed around in each."""
        network = RandomLinks(networks.metropolis(graphs.ring(16)), 0.5)

        @jax.jit
        def rounds(x):
            def one(x, k):
                noise = jax.random.randint(jax.random.fold_in(KEY, k), x.shape, -1, 2)
                noise = (noise - jnp.roll(noise, 1, axis=0)).astype(x.dtype)
                return network.at(k, KEY) @ (x + noise), None

            return jax.lax.scan(one, x, jnp.arange(10_000))[0]

        x = loops.rows(16, 4).astype(jnp.float32)
        after = np.asarray(rounds(x), np.float64)
        assert np.ptp(after, axis=0).min() > 1
        moved = after.mean(axis=0) - np.asarray(x, np.float64).mean(axis=0)
        assert np.abs(moved).max() < 5e-5

    @pytest.mark.parametrize("name", ["links of a table", "asleep repeated links", "four deep"])
    def test_flags(self, name):
        network = SYMMETRIC[name](0, 0.5)
        now = loops.at(network, 0, KEY)
        assert network.n == now.n == N
        assert network.kind == now.kind == "doubly"
        products = "epeated" in name or name == "four deep"  # products of different rounds
        assert network.symmetric is now.symmetric is (not products)
        assert network.repetitions == now.repetitions == (2 if products else 1)
        assert network.varies
        assert network.cuttable


@functools.partial(loops.jit, static_argnums=2)
def states(network, key, rounds):
    """Return which links are up in many rounds, [rounds, n, n], and who is awake."""

    def one(k):
        now = network.at(k, key)
        up = now.matrix() * (1 - jnp.eye(now.n)) != 0
        return up, jnp.ones(now.n, bool) if now.active is None else now.active

    return jax.lax.map(one, jnp.arange(rounds), batch_size=256)


def correlations(a, b):
    """Return |correlation| of every column of a with every column of b, both [rounds, ...]."""
    a, b = (np.asarray(v, float).reshape(len(v), -1) for v in (a, b))
    a, b = (v - v.mean(axis=0) for v in (a, b))
    a, b = (v / np.sqrt((v**2).sum(axis=0)) for v in (a, b))
    return np.abs(a.T @ b)


ROUNDS = 4000
BOUND = 4.5 / np.sqrt(ROUNDS)  # of one correlation or relative frequency, by chance 7e-6


def upper(up, graph=CHORDS):
    """Return the states of the links i < j, [rounds, links]."""
    return np.stack([up[:, i, j] for i, j in sorted(map(sorted, graph.edges))], axis=1)


class TestRandomLinks:
    @pytest.mark.parametrize(("form", "p"), [(Neighbors, 0.3), (Dense, 0.8)])
    def test_every_link_has_its_frequency_and_no_ties_to_others(self, form, p):
        network = RandomLinks(mixing(loops.metropolis(CHORDS), form=form), p)
        up = np.asarray(states(network, KEY, ROUNDS)[0])
        assert np.array_equal(up, up.transpose(0, 2, 1))  # both ways or not at all
        adjacency = nx.to_numpy_array(CHORDS, nodelist=range(N)) > 0
        assert not np.any(up & ~adjacency)
        links = upper(up).astype(float)
        assert links.shape[1] == 15
        deviation = np.sqrt(p * (1 - p))
        assert np.abs(links.mean(axis=0) - p).max() < BOUND * deviation
        chi = ((links.mean(axis=0) - p) ** 2 * ROUNDS / deviation**2).sum()
        assert 3 < chi < 38  # 15 degrees of freedom, 0.1% on either side
        between = correlations(links, links)
        assert between[~np.eye(15, dtype=bool)].max() < BOUND
        assert correlations(links[1:], links[:-1]).max() < BOUND

    def test_the_numbers_of_links_up_are_binomial(self):
        up = upper(np.asarray(states(RandomLinks(table_of(CHORDS), 0.5), KEY, ROUNDS)[0]))
        many = up.sum(axis=1)
        assert abs(many.var() - 15 / 4) < 5 * 15 / 4 * np.sqrt(2 / ROUNDS)

    def test_forms_draw_the_same_links(self):
        """A link's state belongs to its two agents, however the network is stored."""
        W = loops.metropolis(graphs.ring(N))
        drawn = [
            loops.matrices(RandomLinks(mixing(W, form=form), 0.4), 8, KEY) != 0
            for form in (Circulant, Dense)
        ]
        assert np.array_equal(drawn[0], drawn[1])
        star = mixing(loops.metropolis(graphs.star(40)), form=Neighbors)
        assert star.tiers
        hub = [
            loops.matrices(RandomLinks(network, 0.4), 4, KEY) * (1 - np.eye(40)) != 0
            for network in (star, mixing(loops.metropolis(graphs.star(40)), form=Dense))
        ]
        assert np.array_equal(*hub)
        assert 0 < hub[0].sum() < 4 * 78
        W = loops.column_stochastic(ARCS)
        pair = [mixing(W, kind="column", form=form) for form in (Pushes, Dense)]
        one, two = (loops.matrices(RandomLinks(network, 0.4), 8, KEY) for network in pair)
        np.testing.assert_allclose(one, two, atol=1e-15)

    @pytest.mark.parametrize("form", [Neighbors, Dense])
    def test_weights_of_links_that_are_down_go_to_the_diagonal(self, form):
        W = loops.metropolis(CHORDS)
        network = RandomLinks(mixing(W, form=form), 0.5)
        up = np.asarray(states(network, KEY, 6)[0])
        for k, found in enumerate(loops.matrices(network, 6, KEY)):
            expected = loops.cut(W, lambda i, j, k=k: up[k, i, j])
            np.testing.assert_allclose(found, expected, atol=1e-15)
            assert np.array_equal(found, found.T)

    def test_all_links_or_none(self):
        for base in (table_of(CHORDS), dense(0), networks.row_stochastic(ARCS)):
            W = base.csr().toarray()
            all_, none = (loops.matrices(RandomLinks(base, p), 6, KEY) for p in (1, 0))
            np.testing.assert_allclose(all_, np.broadcast_to(W, (6, N, N)), atol=1e-15)
            assert np.array_equal(none, np.broadcast_to(np.eye(N), (6, N, N)))

    def test_the_draw_is_a_function_of_key_and_step(self):
        network = RandomLinks(table_of(CHORDS), 0.5)
        one, again = (loops.matrices(network, 6, KEY) for _ in range(2))
        assert np.array_equal(one, again)
        alone = jax.jit(lambda w, k: w.at(k, KEY).matrix())(network, 2)
        np.testing.assert_allclose(alone, one[2], rtol=0, atol=1e-15)  # other draws differ by links
        assert not np.array_equal(one, loops.matrices(network, 6, jax.random.key(1)))
        assert not np.array_equal(one[0], one[1])
        keys = jax.random.split(KEY, 3)
        at_once = jax.jit(jax.vmap(lambda key: network.at(2, key).matrix()))(keys)
        for key, found in zip(keys, at_once, strict=True):
            np.testing.assert_allclose(found, loops.matrices(network, 6, key)[2], atol=1e-16)

    def test_a_schedule_of_the_probability(self):
        network = RandomLinks(table_of(CHORDS), lambda k: jnp.where(k < 2, 1.0, 0.0))
        W = loops.metropolis(CHORDS)
        for k, found in enumerate(loops.matrices(network, 4, KEY)):
            np.testing.assert_allclose(found, W if k < 2 else np.eye(N), atol=1e-15)

    def test_larger_probabilities_only_add_links(self):
        network = table_of(CHORDS)
        few, many = (loops.matrices(RandomLinks(network, p), 6, KEY) != 0 for p in (0.3, 0.6))
        assert np.all(many[few])
        assert many.sum() > few.sum()


@functools.cache
def table_of(graph):
    return mixing(loops.metropolis(graph), form=Neighbors)


@pytest.mark.slow
def test_what_is_random_is_independent():
    """Links, sleepers, pairs and the samples of the same steps have no correlation."""
    links = upper(np.asarray(states(RandomLinks(table_of(CHORDS), 0.5), KEY, ROUNDS)[0]))
    sleep = np.asarray(states(Asleep(table_of(CHORDS), 0.5), KEY, ROUNDS)[1])
    pairs = upper(np.asarray(states(RandomMatching(CHORDS), KEY, ROUNDS)[0]))
    samples = jax.jit(jax.vmap(lambda k: jax.random.uniform(jax.random.fold_in(KEY, k), (N,))))
    drawn = np.asarray(samples(jnp.arange(ROUNDS)))
    for one, two in itertools.combinations((links, sleep, pairs, drawn), 2):
        assert correlations(one, two).max() < BOUND
    # and none folds the key by a number that a step could have
    from jaxdopt.networks import failures

    assert min(sequences.MATCHING, failures.LINKS, failures.ASLEEP) > 2**31


class TestAsleep:
    BASES = (
        RING,
        table_of(CHORDS),
        dense(0),
        mixing(loops.metropolis(graphs.star(N)), form=Neighbors),
        Complete(N),
        networks.row_stochastic(ARCS),
        mixing(loops.column_stochastic(ARCS), kind="column", form=Pushes),
        mixing(loops.column_stochastic(ARCS), kind="column", form=Dense),
    )
    PATTERN = np.random.default_rng(0).random((3, N)) < 0.6

    @pytest.mark.parametrize("base", BASES, ids=lambda b: f"{type(b).__name__} {b.kind}")
    def test_sleepers_keep_their_value_and_give_their_weight_back(self, base):
        network = Asleep(base, self.PATTERN)
        W = base.csr().toarray()
        x = 5 * loops.rows(N, 2)
        mixed = draws(network, jnp.arange(5), KEY, {"x": (x, x.astype(jnp.float32), 0 * x)})[0]["x"]
        found = loops.matrices(network, 5, KEY)
        for k in range(5):
            awake = self.PATTERN[k % 3]  # a trace starts over
            expected = loops.cut(W, lambda i, j, a=awake: a[i] and a[j], base.kind)
            np.testing.assert_allclose(found[k], expected, atol=1e-15)
            np.testing.assert_allclose(mixed[0][k], expected @ x, rtol=1e-13)
            for before, after in zip((x, x.astype(jnp.float32), 0 * x), mixed, strict=True):
                assert np.array_equal(np.asarray(after[k])[~awake], np.asarray(before)[~awake])
            if base.symmetric:
                assert np.array_equal(found[k], found[k].T)

    def test_all_awake_is_the_network_itself(self):
        for base in self.BASES:
            found = loops.matrices(Asleep(base, self.PATTERN | True), 5, KEY)
            W = base.csr().toarray()
            np.testing.assert_allclose(found, np.broadcast_to(W, found.shape), atol=1e-15)
        now = loops.at(Asleep(RING, 1), 0, KEY)
        assert np.all(now.active)
        assert int(now.link_count) == int(RING.link_count)
        assert not np.any(loops.at(Asleep(RING, 0.0), 0, KEY).active)

    def test_each_agent_has_its_own_probability(self):
        p = np.linspace(0, 1, N)
        for given_ in (jnp.asarray(p[:, None]), p[:, None]):
            awake = np.asarray(states(Asleep(RING, given_), KEY, ROUNDS)[1], float)
            deviation = np.sqrt(p * (1 - p))
            assert np.all(np.abs(awake.mean(axis=0) - p) <= BOUND * deviation)
        inner = awake[:, 1:-1]
        assert correlations(inner, inner)[~np.eye(N - 2, dtype=bool)].max() < BOUND
        assert correlations(inner[1:], inner[:-1]).max() < BOUND

    def test_another_networks_agents(self):
        other = Asleep(networks.metropolis(graphs.star(N)), 0.5)
        network = Asleep(RandomLinks(RING, 0.7), other)
        for k in range(3):
            assert np.array_equal(loops.at(network, k, KEY).active, loops.at(other, k, KEY).active)
        with pytest.raises(ValueError, match="in the pattern, a Circulant, no agent ever sleeps"):
            loops.at(Asleep(RING, RING), 0, KEY)

    def test_awake_in_both_of_two_patterns(self):
        one, two = self.PATTERN, self.PATTERN[::-1]
        now = loops.at(Asleep(Asleep(RING, one), two), 0, KEY)
        assert np.array_equal(now.active, one[0] & two[0])
        both: Any = one[0] & two[0]
        expected = loops.cut(RING.csr().toarray(), lambda i, j: both[i] and both[j])
        np.testing.assert_allclose(now.matrix(), expected, atol=1e-15)

    def test_links_that_are_down_are_not_present(self):
        for base in (RING, table_of(CHORDS), dense(0)):
            network = loops.at(Asleep(base, self.PATTERN), 0, KEY)
            links = jax.tree.map(np.asarray, loops.links(network))
            awake = self.PATTERN[0]
            W = base.csr().toarray()
            present = {
                (int(i), int(links.sender[i, s]))
                for i, s in zip(*links.present.nonzero(), strict=True)
            }
            assert present == {
                (i, j) for i, j in itertools.permutations(range(N), 2)
                if W[i, j] != 0 and awake[i] and awake[j]
            }  # fmt: skip
            assert len(present) == int(network.link_count)
            # the slots are those of the network whose links are all up
            full = jax.tree.map(np.asarray, loops.links(base))
            assert np.array_equal(full.sender, links.sender)
            assert np.array_equal(full.reverse, links.reverse)

    def test_a_schedule_of_the_probability(self):
        network = Asleep(RING, lambda k: jnp.where(k == 1, 1.0, 0.0))
        assert [int(loops.at(network, k, KEY).active.sum()) for k in range(3)] == [0, N, 0]


class TestRandomMatching:
    @staticmethod
    def partners(graph, rounds=ROUNDS):
        up = np.asarray(states(RandomMatching(graph), KEY, rounds)[0])
        assert np.array_equal(up, up.transpose(0, 2, 1))
        assert up.sum(axis=2).max() <= 1  # nobody is in two pairs
        return up

    @pytest.mark.parametrize("graph", [CHORDS, graphs.star(9)])
    def test_is_a_matching_along_the_links(self, graph):
        up = self.partners(graph, 200)
        adjacency = np.greater(nx.to_numpy_array(graph, nodelist=range(len(graph))), 0)
        assert not np.any(up & ~adjacency)
        assert np.all(np.any(up, axis=0)[adjacency])  # every link has its turn
        assert np.all(up.any(axis=(1, 2)))  # the largest number of all makes a pair
        now = loops.at(RandomMatching(graph), 0, KEY)
        W = now.csr().toarray()
        assert np.array_equal(W, W.T)
        paired = up[0].any(axis=1)
        assert np.array_equal(np.diag(W), np.where(paired, 0.5, 1))
        assert int(now.link_count) == paired.sum()
        assert not np.any(np.isin(W, (0, 0.5, 1)) == 0)

    @pytest.mark.parametrize("n", [1, 7, 8])
    def test_pairs_everybody_on_the_complete_graph(self, n):
        up = self.partners(graphs.complete(n), 500)
        assert np.all(up.sum(axis=(1, 2)) == n - n % 2)
        if n == 7:
            alone = (~up.any(axis=2)).mean(axis=0)
            assert np.abs(alone - 1 / 7).max() < 4.5 * np.sqrt(6 / 49 / 500)

    def test_frequencies_of_all_pairs_are_equal(self):
        up = self.partners(graphs.complete(7))
        share = upper(up, graphs.complete(7)).mean(axis=0)
        assert np.abs(share - 1 / 7).max() < BOUND * np.sqrt(6 / 49)
        # on a ring a link wins if it is the largest of three
        share = upper(self.partners(graphs.ring(8)), graphs.ring(8)).mean(axis=0)
        assert np.abs(share - 1 / 3).max() < BOUND * np.sqrt(2 / 9)

    def test_rounds_are_independent(self):
        links = upper(self.partners(CHORDS))
        assert correlations(links[1:], links[:-1]).max() < BOUND

    def test_averages_in_the_end(self):
        network = RandomMatching(graphs.ring(8))
        gossip = jax.jit(
            lambda x: jax.lax.fori_loop(0, 500, lambda k, x: network.at(k, KEY) @ x, x)
        )
        x = loops.rows(8, 1)
        np.testing.assert_allclose(gossip(x), np.full((8, 1), np.mean(x)), rtol=1e-9)


class TestCyclic:
    NETWORKS = (RING, table_of(CHORDS), networks.metropolis(graphs.star(N)), Complete(N))

    @pytest.mark.parametrize(
        ("after", "order"), [("repeat", [0, 1, 2, 3, 0, 1, 2]), ("hold", [0, 1, 2, 3, 3, 3, 3])]
    )
    def test_takes_one_after_the_other(self, after, order):
        network = Cyclic(self.NETWORKS, after=after)
        assert (network.n, network.symmetric, network.kind) == (N, True, "doubly")
        expected = [self.NETWORKS[i].csr().toarray() for i in order]
        np.testing.assert_allclose(loops.matrices(network, 7, KEY), expected, atol=1e-15)
        assert loops.at(network, 5, KEY).time == 5

    def test_of_one_structure_keeps_it(self):
        assert isinstance(
            Cyclic([RING, networks.lazy_metropolis(graphs.ring(N))]).networks, Circulant
        )
        assert isinstance(loops.at(Cyclic([RING]), 3, KEY), Circulant)

    def test_one_directed_round_makes_it_directed(self):
        network = Cyclic([RING, networks.metropolis(graphs.directed_ring(N))])
        assert not network.symmetric
        assert not network.cuttable
        with pytest.raises(ValueError, match="links of this Cyclic cannot be cut"):
            RandomLinks(network, 0.5)

    def test_of_push_pulls(self):
        pair = [relabeled(True, s) for s in (0, 1)]
        network = Cyclic([networks.push_pull(g) for g in pair])
        assert (network.kind, network.symmetric, network.cuttable) == ("directed", False, True)
        for k in range(3):
            now = loops.at(network, k, KEY)
            assert now.time == k
            for part, build in (
                (now.row, loops.row_stochastic),
                (now.column, loops.column_stochastic),
            ):
                np.testing.assert_allclose(part.csr().toarray(), build(pair[k % 2]), atol=1e-15)
        asleep = loops.at(Asleep(network, 0.5), 0, KEY)
        assert np.array_equal(asleep.active, asleep.column.active)

    def test_of_trees_has_nothing_to_cut(self):
        network = Cyclic([networks.spanning_tree(graphs.ring(6), r) for r in (0, 2)])
        assert [int(loops.at(network, k, KEY).root) for k in range(3)] == [0, 2, 0]
        with pytest.raises(ValueError, match="links of this Cyclic cannot be cut"):
            Asleep(network, 0.5)


class TestTrace:
    @pytest.mark.parametrize("weights", loops.SCHEMES)
    def test_every_round_has_the_weights_of_its_graph(self, weights):
        """Thirty random graphs, most of them disconnected, whose union is connected."""
        random = np.random.default_rng(1)
        directed = "stochastic" in weights
        several = [
            nx.gnp_random_graph(9, 0.1, seed=int(s), directed=directed)
            for s in random.integers(2**31, size=30)
        ]
        connected = nx.is_strongly_connected if directed else nx.is_connected
        assert sum(map(connected, several)) < 10
        assert any(min(dict(g.degree).values()) == 0 for g in several)
        network = sequence(several, weights=weights)
        expected = np.stack([loops.SCHEMES[weights](g) for g in several])
        found = loops.matrices(network, 31, KEY)
        np.testing.assert_allclose(found[:30], expected, atol=1e-15)
        assert np.array_equal(found[30], found[0])
        arrays = np.stack([nx.to_numpy_array(g, nodelist=range(9)) for g in several])
        again = sequence(arrays, weights=weights, after="hold")
        np.testing.assert_allclose(loops.matrices(again, 31, KEY)[30], expected[29], atol=1e-15)
        alone = np.array([[g.degree[i] == 0 for i in range(9)] for g in several])
        x = loops.rows(9, 2)
        after = np.asarray(draws(network, jnp.arange(30), KEY, x)[0])
        assert alone.sum() > 20
        assert np.array_equal(after[alone], np.broadcast_to(x, after.shape)[alone])

    def test_agents_are_the_first_graphs_nodes(self):
        one, two = nx.Graph([("a", "b"), ("b", "c")]), nx.Graph([("c", "a"), ("b", "a")])
        assert [*one] != [*two]
        found = loops.matrices(sequence([one, two]), 2, KEY)
        two_ordered = nx.Graph([(0, 2), (0, 1)])
        ordered = nx.empty_graph(3)
        ordered.add_edges_from(two_ordered.edges)
        np.testing.assert_allclose(found[1], loops.metropolis(ordered), atol=1e-15)

    def test_averages_over_the_union(self):
        network = mobile(0)
        for k in range(3):
            assert not nx.is_connected(nx.from_scipy_sparse_array(loops.at(network, k, KEY).csr()))
        assert 0 < networks.contraction(network, KEY) < 0.99


@pytest.mark.parametrize("n", [2, 8])
def test_one_peer_exponential_averages_in_log2_n_rounds(n):
    network = networks.one_peer_exponential(n)
    rounds = int(np.log2(n))
    assert network.length == rounds
    found = loops.matrices(network, rounds + 1, KEY)
    product = np.linalg.multi_dot([*found[:rounds][::-1], np.eye(n)])
    np.testing.assert_allclose(product, np.full((n, n), 1 / n), atol=1e-15)
    assert np.array_equal(found[rounds], found[0])
    if n == 8:
        assert networks.contraction(network, KEY, rounds=20) == 0


@pytest.mark.parametrize("n", [6, 8])
def test_one_peer_exponential_is_the_papers(n):
    """wᵢⱼ = 1/2 if log₂(j − i mod n) = k mod ⌈log₂ n⌉ or i = j (Ying et al., 2021, equation 7)."""
    period = int(np.ceil(np.log2(n)))
    for k, found in enumerate(loops.matrices(networks.one_peer_exponential(n), period + 1, KEY)):
        W = np.zeros((n, n))
        for i, j in itertools.product(range(n), repeat=2):
            if i == j or (j - i) % n == 2 ** (k % period):
                W[i, j] = 1 / 2
        assert np.array_equal(found, W)


def test_one_peer_exponential_of_one_agent():
    assert loops.matrices(networks.one_peer_exponential(1), 2, KEY).tolist() == [[[1]], [[1]]]


PYTREES = {
    "matching": RandomMatching(CHORDS),
    "matching of all": RandomMatching(graphs.complete(5)),
    "links": RandomLinks(RING, 0.5),
    "asleep": Asleep(table_of(CHORDS), 0.5),
    "asleep trace": Asleep(RING, np.ones((2, N), bool)),
    "cyclic": Cyclic([RING, table_of(CHORDS)]),
    "one peer": networks.one_peer_exponential(6),
    "nested": Asleep(Repeated(RandomLinks(RING, 0.5), 2), 0.7),
    "Chebyshev": Asleep(Chebyshev(RING, 2), Asleep(RING, 0.5)),
}


class TestTransformations:
    @pytest.mark.parametrize(
        "name",
        [pytest.param(n, marks=() if n == "nested" else pytest.mark.slow) for n in PYTREES],
    )
    def test_pytrees_before_and_after_at(self, name):
        network = PYTREES[name]
        for one in (network, loops.at(network, 3, KEY)):
            leaves, treedef = jax.tree.flatten(one)
            again = jax.tree.unflatten(treedef, leaves)
            assert type(again) is type(one)
            assert again.n == network.n
            assert again.symmetric == one.symmetric
            assert hash(treedef) == hash(jax.tree.structure(again))
            jax.tree.map(lambda _: None, one)
            jax.tree.map(lambda _: "odd", one)
        # a round is an argument of a jitted step like any other network
        x = loops.rows(network.n, 1)
        after = loops.apply(loops.at(network, 3, KEY), x)
        inside = jax.jit(lambda w, k: w.at(k, KEY) @ x)(network, 3)
        np.testing.assert_allclose(after, inside, rtol=1e-14)

    def test_scan_over_traced_rounds_compiles_once(self):
        @jax.jit
        @chex.assert_max_traces(n=1)
        def rounds(network, x, key, first):
            return jax.lax.scan(
                lambda x, k: (network.at(k, key) @ x, None), x, first + jnp.arange(3)
            )[0]

        x = loops.rows(N, 1)
        for p, seed, first in ((0.5, 0, 0), (0.2, 1, 7), (1.0, 2, 3)):
            network, key = Asleep(RandomLinks(RING, p), 0.7), jax.random.key(seed)
            expected = np.asarray(x)
            for k in range(first, first + 3):
                expected = loops.dense(network, jnp.asarray([k]), key)[0] @ expected
            np.testing.assert_allclose(rounds(network, x, key, first), expected, rtol=1e-13)

    def test_vmap_over_probabilities_and_weights(self):
        ps = jnp.array([0.0, 0.4, 1.0])
        x = loops.rows(N, 2)
        batch = jax.vmap(lambda p: RandomLinks(RING, p))(ps)
        mixed = jax.jit(jax.vmap(lambda w: w.at(2, KEY) @ x))(batch)
        stacked = networks.stack([RandomLinks(RING, float(p)) for p in ps])
        again = jax.jit(jax.vmap(lambda w: w.at(2, KEY) @ x))(stacked)
        assert np.array_equal(mixed, again)
        for p, found in zip(ps, mixed, strict=True):
            W = loops.matrices(RandomLinks(RING, float(p)), 3, KEY)[2]
            np.testing.assert_allclose(found, W @ x, rtol=1e-13)

    def test_gradient_in_weights_against_differences(self):
        ring, x = RING, loops.rows(N, 2)
        probe = loops.rows(N, 2, seed=1)

        @jax.jit
        @jax.value_and_grad
        def function(weights):
            network = Asleep(RandomLinks(jd.replace(ring, weights=weights), 0.8), 0.8)
            return jnp.sum(probe * jnp.sin(network.at(1, KEY) @ x))

        gradient = function(ring.weights)[1]
        for s in range(2):
            step = jnp.zeros(2).at[s].set(1e-6)
            slope = (function(ring.weights + step)[0] - function(ring.weights - step)[0]) / 2e-6
            assert float(gradient[s]) == pytest.approx(float(slope), rel=1e-6)
            assert abs(slope) > 1e-3

    def test_sweep_over_stacked_networks_equals_single_runs(self):
        members = [Asleep(RandomLinks(RING, p), 0.8) for p in (0.3, 0.9)]
        problem = jd.problems.quadratic(N, 2)
        arguments = problem, problem.start(), KEY
        swept = jd.sweep(jd.run, over=("network",))(
            jd.DGD(0.1), problem, networks.stack(members), *arguments[1:], steps=6, every=3
        )
        for i, member in enumerate(members):
            single = jd.run(jd.DGD(0.1), problem, member, *arguments[1:], steps=6, every=3)
            for name, values in single.history.items():
                np.testing.assert_allclose(
                    np.broadcast_to(swept.history[name], (2, 3))[i], values, rtol=1e-12
                )
        assert swept.history["traffic"][0, -1] < swept.history["traffic"][1, -1]

    def test_compare_takes_them(self):
        dataset = jd.compare(
            {"DGD": jd.DGD(0.1)}, jd.problems.quadratic(N, 2),
            {"half": RandomLinks(RING, 0.5), "most": RandomLinks(RING, 0.9)},
            over={"stepsize": [0.1]}, steps=2, progress=False,
        )  # fmt: skip
        assert dataset.sizes["network"] == 2

    @pytest.mark.slow
    def test_users_of_float32_get_the_same_draws(self, request):
        drawn = states(Asleep(RandomLinks(RING, 0.5), 0.7), KEY, 20)
        request.getfixturevalue("float32")
        ring: Any = networks.metropolis(graphs.ring(N))
        assert ring.weights.dtype == jnp.float32
        network = Asleep(RandomLinks(ring, 0.5), 0.7)
        mixed = jax.jit(lambda w, x: w.at(1, KEY) @ x)(network, np.ones((N, 1), np.float32))
        assert mixed.dtype == jnp.float32
        for wide, narrow in zip(drawn, states(network, KEY, 20), strict=True):
            assert np.array_equal(wide, narrow)


def shapes(jaxpr):
    """Return the largest number of elements of any value in a program, inner ones too."""
    sizes = [v.aval.size for e in jaxpr.eqns for v in e.outvars if hasattr(v.aval, "size")]
    for equation in jaxpr.eqns:
        for value in jax.tree.leaves(equation.params, is_leaf=lambda p: hasattr(p, "eqns")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                sizes.append(shapes(inner))
    return max(sizes, default=0)


@pytest.mark.slow
class TestLarge:
    N = 100_000

    @functools.cached_property
    def regular(self):
        """Return a random 6-regular pattern: three random cycles."""
        random = np.random.default_rng(0)
        pattern = sp.coo_array((self.N, self.N))
        for _ in range(3):
            order = random.permutation(self.N)
            pattern = pattern + sp.coo_array(
                (np.ones(self.N), (order, np.roll(order, 1))), shape=(self.N, self.N)
            )
        return pattern + pattern.T

    @pytest.mark.parametrize("name", ["ring", "regular"])
    def test_rounds_of_many_agents_have_no_square_arrays(self, name):
        began = time.process_time()
        graph = graphs.ring(self.N) if name == "ring" else self.regular
        base = networks.metropolis(graph)
        network = Asleep(RandomLinks(base, 0.9), 0.9)
        x = jnp.asarray(np.random.default_rng(0).standard_normal((self.N, 2)))

        def rounds(network, x):
            def one(k, x):
                return network.at(k, KEY) @ x

            return jax.lax.fori_loop(0, 3, one, x)

        assert shapes(jax.make_jaxpr(rounds)(network, x).jaxpr) < 50 * self.N
        after = jax.jit(rounds)(network, x)
        np.testing.assert_allclose(after.mean(axis=0), x.mean(axis=0), atol=1e-14)
        now = loops.at(network, 0, KEY)
        share = int(now.link_count) / int(base.link_count)
        assert share == pytest.approx(0.9**3, abs=0.01)
        assert time.process_time() - began < 20

    def test_one_peer_exponential_of_many_agents(self):
        began = time.process_time()
        network = networks.one_peer_exponential(2**15)
        x = jnp.arange(2.0**15)[:, None]
        average = jax.jit(lambda w, x: jax.lax.fori_loop(0, 15, lambda k, x: w.at(k, KEY) @ x, x))
        np.testing.assert_allclose(average(network, x), np.full((2**15, 1), (2**15 - 1) / 2))
        assert time.process_time() - began < 20


BAD: dict[str, tuple] = {
    "directed links": (
        lambda: RandomLinks(networks.metropolis(graphs.directed_ring(5)), 0.5),
        "links of this Circulant cannot be cut, .* give a graph's symmetric weights, or jd.net",
    ),
    "links of a tree": (
        lambda: RandomLinks(networks.spanning_tree(graphs.ring(5)), 0.5),
        "links of this Tree cannot be cut",
    ),
    "links of no network": (lambda: RandomLinks(np.eye(3), 0.5), "a ndarray is given where"),
    "links above 1": (lambda: RandomLinks(RING, 1.5), "probability is 1.5; give at most 1"),
    "links below 0": (lambda: RandomLinks(RING, -0.5), "probability is -0.5; give at least 0"),
    "links NaN": (lambda: RandomLinks(RING, np.nan), "probability is nan; give a finite number"),
    "links true": (lambda: RandomLinks(RING, True), "probability is True, a boolean; give"),
    "links an agent": (
        lambda: RandomLinks(RING, np.full((N, 1), 0.5)),
        r"probability has shape \(12, 1\); give one number for all links",
    ),
    "sleep above 1": (lambda: Asleep(RING, 2), "pattern is 2; give at most 1"),
    "sleep of a directed ring": (
        lambda: Asleep(networks.metropolis(graphs.directed_ring(5)), 0.5),
        "links of this Circulant cannot be cut",
    ),
    "sleep of other agents": (
        lambda: Asleep(RING, np.full((5, 1), 0.5)), r"the pattern has shape \(5, 1\); give one"
    ),
    "sleep in a row": (
        lambda: Asleep(RING, np.full(N, 0.5)), r"shape \(12,\); give one probability, .* as \(12, 1"
    ),
    "a trace of integers": (
        lambda: Asleep(RING, np.ones((3, N), int)), r"shape \(3, 12\); .* as \[T, 12\] booleans"
    ),
    "a trace of other agents": (
        lambda: Asleep(RING, np.ones((3, 5), bool)), r"the pattern has shape \(3, 5\); give which"
    ),
    "a trace without rounds": (
        lambda: Asleep(RING, np.ones((0, N), bool)), r"shape \(0, 12\); give which agents"
    ),
    "a trace that is a row": (
        lambda: Asleep(RING, np.ones(N, bool)), r"shape \(12,\); give which agents are awake"
    ),
    "another network of other agents": (
        lambda: Asleep(RING, Asleep(networks.metropolis(graphs.ring(5)), 0.5)),
        "the pattern is for 5 agents and the network has 12",
    ),
    "matching of a digraph": (
        lambda: RandomMatching(graphs.directed_ring(4)), "the graph is directed; random matching"
    ),
    "matching of pieces": (lambda: RandomMatching(np.eye(4)), "the graph is disconnected"),
    "cyclic of none": (lambda: Cyclic([]), "there are no networks to stack; give at least one"),
    "cyclic of several n": (
        lambda: Cyclic([Complete(3), Complete(4)]), "networks of 3 and 4 agents cannot be stacked"
    ),
    "cyclic of servers and rings": (
        lambda: Cyclic([networks.Server(N), RING]), "kinds Circulant, Server differ in structure"
    ),
    "cyclic after": (lambda: Cyclic([RING], after="stop"), "after is 'stop'; give 'repeat' to"),  # type: ignore[arg-type]
    "trace of none": (lambda: sequence([]), "the trace has no graphs; give at least one"),
    "trace of several n": (
        lambda: sequence([graphs.ring(3), graphs.ring(4)]), "the trace has graphs of 3 and 4 agents"
    ),
    "trace of other agents": (
        lambda: sequence([nx.Graph([("a", "b")]), nx.Graph([("a", "c")])]),
        r"a graph has the node \['c'\] and the first graph has not; give all the same",
    ),
    "trace of pieces": (
        lambda: sequence([np.eye(4), np.eye(4)]), "the graph is disconnected: 4 components"
    ),
    "trace weights": (
        lambda: sequence([graphs.ring(4)], weights="half_degree"),
        "weights is 'half_degree'; give one of 'metropolis'",
    ),
    "one peer of none": (lambda: networks.one_peer_exponential(0), "n is 0; give an integer"),
    "a product before at": (
        lambda: RandomLinks(RING, 0.5) @ jnp.ones((N, 1)),
        r"a RandomLinks network changes with time; take one round's, network\.at\(k, key\)",
    ),
    "a gap before at": (
        lambda: Cyclic([RING]).spectral_gap, r"no one spectral gap; measure 1 - jd\.networks\.contr"
    ),
    "a link count before at": (
        lambda: Asleep(RING, 0.5).link_count, "an? Asleep network changes with time"
    ),
    "stacks of other structures": (
        lambda: networks.stack([RandomLinks(RING, 0.5), RING]),
        "kinds Circulant, RandomLinks differ in structure",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_mistakes_are_told_in_one_sentence(name):
    call, match = BAD[name]
    with pytest.raises(ValueError, match=match) as error:
        call()
    assert loops.one_sentence(error), str(error.value)


def test_the_same_kind_within_itself_draws_anew():
    ring = networks.metropolis(graphs.ring(40))
    links = networks.RandomLinks(networks.RandomLinks(ring, 0.5), 0.5)
    asleep = networks.Asleep(networks.Asleep(ring, 0.5), 0.5)
    keys = jax.random.split(jax.random.key(3), 100)
    up = jax.jit(jax.vmap(lambda key: links.at(0, key).link_count))(keys).mean() / 80
    awake = jax.jit(jax.vmap(lambda key: asleep.at(0, key).active))(keys).mean()
    assert abs(up - 0.25) < 0.02
    assert abs(awake - 0.25) < 0.02
