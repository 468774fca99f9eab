"""Mixing matrices against their formulas as double loops, spectra against numpy.linalg."""

import math
import time
import tracemalloc

import jax
import jax.numpy as jnp
import loops
import networkx as nx
import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg
from scipy.optimize import linear_sum_assignment

from jaxdopt import graphs, networks
from jaxdopt.networks import Circulant, Complete, Dense, Neighbors, mixing, spectra
from jaxdopt.networks.operators import sparse

GRAPHS = {
    "ring": graphs.ring(9),
    "short ring": graphs.ring(4),
    "path": graphs.path(7),
    "star": graphs.star(9),
    "grid": graphs.grid(3, 4),
    "grid of 100": graphs.grid(10, 10),
    "torus": graphs.torus(3, 5),
    "erdos_renyi": graphs.erdos_renyi(10, 0.4, seed=1),
    "random_geometric": graphs.random_geometric(12, seed=3),
    "regular": graphs.regular(10, 3, seed=2),
    "exponential": graphs.exponential(12),
    "complete": graphs.complete(6),
    "two": graphs.path(2),
    "one": graphs.path(1),
    "scale-free": nx.barabasi_albert_graph(60, 2, seed=0),
}
every_graph = pytest.mark.parametrize("name", GRAPHS)


def loops_metropolis(graph):
    n = len(graph)
    degree = {i: sum(1 for j in graph if j != i and graph.has_edge(i, j)) for i in graph}
    W = np.zeros((n, n))
    for i in graph:
        for j in graph:
            if i != j and graph.has_edge(j, i):
                W[i, j] = 1 / (1 + max(degree[i], degree[j]))
    for i in range(n):
        W[i, i] = 1 - sum(W[i, j] for j in range(n) if j != i)
    return W


def loops_lazy(graph):
    W = loops_metropolis(graph)
    for i in range(len(W)):
        for j in range(len(W)):
            W[i, j] = (W[i, j] + (1 if i == j else 0)) / 2
    return W


def loops_laplacian(graph, step=None):
    n = len(graph)
    if step is None:
        step = 1 / (1 + max(sum(1 for j in graph if graph.has_edge(i, j)) for i in graph))
    W = np.zeros((n, n))
    for i in graph:
        for j in graph:
            if i != j and graph.has_edge(i, j):
                W[i, j] = step
                W[i, i] -= step
        W[i, i] += 1
    return W


BUILDERS = {
    "metropolis": (networks.metropolis, loops_metropolis),
    "lazy_metropolis": (networks.lazy_metropolis, loops_lazy),
    "laplacian": (networks.laplacian, loops_laplacian),
}


def links_of(network):
    """Return {(i, j): w_ij} of the links as they are stored, without applying the operator."""
    found = {}
    if isinstance(network, Dense):
        stored = np.asarray(network.weights)
        for i, j in zip(*np.nonzero(stored), strict=True):
            if i != j:
                found[int(i), int(j)] = stored[i, j]
    elif isinstance(network, Circulant):
        for offset, weight in zip(network.offsets, np.asarray(network.weights), strict=True):
            for i in range(network.n):
                found[i, (i + offset) % network.n] = weight
    elif isinstance(network, Neighbors):
        tables = [(np.arange(network.n), network.index, network.weights), *network.tiers]
        for agents, index, table in tables:
            index, table = np.asarray(index), np.asarray(table)
            for row, i in enumerate(np.asarray(agents)):
                for slot in range(index.shape[1]):
                    if table[row, slot] != 0:
                        key = int(i), int(index[row, slot])
                        assert key not in found
                        found[key] = table[row, slot]
    else:
        assert isinstance(network, Complete)
        found = {
            (i, j): 1 / network.n for i in range(network.n) for j in range(network.n) if i != j
        }
    return found


def stored(network):
    """Return W in NumPy from the stored links; what an agent keeps is 1 minus what it hears."""
    W = np.eye(network.n)
    for (i, j), weight in links_of(network).items():
        W[i, j] += weight
        W[i, i] -= weight
    return W


@jax.jit
def apply(network, x):
    return network @ x


@jax.jit
def multiplied(network):
    return network.matrix()


def rows(n, d=3, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d)) + 2.0


def matching_distance(a, b):
    """Return the largest distance between two sets of numbers under their best matching."""
    cost = np.abs(np.asarray(a)[:, None] - np.asarray(b)[None, :])
    i, j = linear_sum_assignment(cost)
    return cost[i, j].max()


def shift(n, hop):
    """Return the permutation matrix with which agent i hears agent i + hop."""
    return sp.csr_array((np.ones(n), (np.arange(n), (np.arange(n) + hop) % n)), shape=(n, n))


class TestFormulas:
    @every_graph
    @pytest.mark.parametrize("builder", BUILDERS)
    def test_the_weights_are_the_loops(self, name, builder):
        build, loops = BUILDERS[builder]
        network, W = build(GRAPHS[name]), loops(GRAPHS[name])
        assert network.n == len(W)
        assert network.k is None
        np.testing.assert_allclose(stored(network), W, atol=1e-15)

    @every_graph
    def test_the_operator_multiplies_by_them(self, name):
        network, W = networks.metropolis(GRAPHS[name]), loops_metropolis(GRAPHS[name])
        x = rows(len(W))
        mixed, near = apply(network, jnp.asarray(x)), loops.rounding(W, x)
        np.testing.assert_allclose(mixed, W @ x, rtol=0, atol=near)
        np.testing.assert_allclose(multiplied(network), W, atol=1e-15)

    @every_graph
    @pytest.mark.parametrize("builder", BUILDERS)
    def test_doubly_stochastic_and_symmetric_bit_for_bit(self, name, builder):
        network = BUILDERS[builder][0](GRAPHS[name])
        assert network.symmetric is True
        W = stored(network)
        np.testing.assert_allclose(W.sum(axis=0), 1, atol=1e-14)
        np.testing.assert_allclose(W.sum(axis=1), 1, atol=1e-14)
        links = links_of(network)
        assert set(links) == {(i, j) for i, j in GRAPHS[name].to_directed().edges if i != j}
        assert all(links[j, i] == weight for (i, j), weight in links.items())

    @every_graph
    def test_spectrum_against_numpy(self, name):
        network = networks.metropolis(GRAPHS[name])
        expected = np.linalg.eigvalsh(loops_metropolis(GRAPHS[name]))
        values = network.eigenvalues
        assert isinstance(values, np.ndarray)
        assert np.isrealobj(values)
        assert np.all(np.diff(np.abs(values)) <= 1e-14)
        np.testing.assert_allclose(np.sort(values), expected, atol=1e-13)
        second = np.sort(np.abs(expected))[::-1][1] if len(expected) > 1 else 0.0
        assert isinstance(network.spectral_gap, float)
        assert network.spectral_gap == pytest.approx(1 - second, abs=1e-13)
        assert 0 < network.spectral_gap <= 1

    @every_graph
    def test_lazy_weights_have_no_negative_eigenvalue(self, name):
        network = networks.lazy_metropolis(GRAPHS[name])
        assert np.linalg.eigvalsh(stored(network)).min() >= -1e-14

    def test_closed_forms(self):
        ring = networks.metropolis(graphs.ring(12))
        expected = [1 / 3 + 2 / 3 * math.cos(2 * math.pi * j / 12) for j in range(12)]
        np.testing.assert_allclose(np.sort(ring.eigenvalues), np.sort(expected), atol=1e-14)
        star = networks.metropolis(graphs.star(10))  # 1 - 1/n on all that the center hears
        assert star.spectral_gap == pytest.approx(1 / 10, abs=1e-14)
        assert networks.metropolis(graphs.complete(7)).spectral_gap == 1

    @pytest.mark.parametrize("step", [0.1, 0.3, 0.49])
    def test_laplacian_with_a_step(self, step):
        graph = graphs.path(5)
        network = networks.laplacian(graph, step)
        np.testing.assert_allclose(stored(network), loops_laplacian(graph, step), atol=1e-15)

    def test_laplacian_averages_at_once_on_the_complete_graph(self):
        network = networks.laplacian(graphs.complete(5), 1 / 5)
        np.testing.assert_allclose(stored(network), np.full((5, 5), 1 / 5), atol=1e-15)
        assert isinstance(network, Complete)

    def test_laplacian_of_the_limit_step(self):
        top = np.linalg.eigvalsh(nx.laplacian_matrix(GRAPHS["erdos_renyi"]).toarray())[-1]
        assert networks.laplacian(GRAPHS["erdos_renyi"], 1.99 / top).spectral_gap > 0
        with pytest.raises(ValueError, match="W does not average"):
            networks.laplacian(GRAPHS["erdos_renyi"], 2.01 / top)


class TestHalfDegree:
    """The weights of the random reshuffling papers' code, and the spectra that it has."""

    @every_graph
    @pytest.mark.parametrize("self_loops", [False, True])
    def test_are_the_loops(self, name, self_loops):
        if name == "one" and not self_loops:
            assert networks.half_degree(GRAPHS[name]).n == 1
            return
        for lazy in (True, False):
            network = networks.half_degree(GRAPHS[name], self_loops=self_loops, lazy=lazy)
            W = loops.half_degree(GRAPHS[name], self_loops, lazy)
            assert network.symmetric is True
            np.testing.assert_allclose(network.csr().toarray(), W, atol=1e-15)
            assert np.linalg.eigvalsh(W).min() > (-1e-14 if lazy else -1)

    @pytest.mark.parametrize(
        ("graph", "self_loops", "second", "edges"),
        [
            (graphs.grid(4, 4), False, 0.95752, 24),
            (graphs.exponential(16), True, 0.87500, 56),
            (graphs.ring(16), True, 0.98731, 16),
            (graphs.ring(50), True, 0.998686, 50),
            (graphs.ring(100), True, 0.999671, 100),
        ],
    )
    def test_spectra_of_the_authors(self, graph, self_loops, second, edges):
        assert graph.number_of_edges() == edges
        network = networks.half_degree(graph, self_loops=self_loops)
        digits = 6 if edges in (50, 100) else 5
        assert 1 - network.spectral_gap == pytest.approx(second, abs=0.51 * 10.0**-digits)
        if self_loops:  # V itself: λ₂ of (I + V) / 2 is (1 + λ₂) / 2
            plain = networks.half_degree(graph, self_loops=True, lazy=False)
            values = np.sort(plain.eigenvalues)
            assert values[-2] == pytest.approx(2 * (1 - network.spectral_gap) - 1, abs=1e-12)

    def test_spectrum_of_the_authors_random_graph(self):
        graph = nx.erdos_renyi_graph(16, 0.8, seed=123)  # as after random.seed(123)
        if graph.number_of_edges() != 101:
            pytest.skip("another networkx draws another graph")
        assert 1 - networks.half_degree(graph).spectral_gap == pytest.approx(0.83427, abs=5.1e-6)


class TestDirected:
    @pytest.mark.parametrize("n", [3, 4, 7])
    def test_ring_hears_its_predecessor(self, n):
        network = networks.metropolis(graphs.directed_ring(n))
        W = np.zeros((n, n))
        for i in range(n):
            W[i, i] = W[i, (i - 1) % n] = 1 / 2
        np.testing.assert_allclose(stored(network), W, atol=1e-15)
        assert network.symmetric is False
        assert matching_distance(network.eigenvalues, np.linalg.eigvals(W)) < 1e-14
        assert network.spectral_gap == pytest.approx(1 - math.cos(math.pi / n), abs=1e-14)

    @pytest.mark.parametrize("form", [Circulant, Neighbors, Dense])
    def test_exponential_weights_of_ying(self, form):
        n, hops = 10, [1, 2, 4, 8]
        W = np.zeros((n, n))
        for i in range(n):
            W[i, i] = 1 / 5
            for hop in hops:
                W[(i + hop) % n, i] = 1 / 5  # i sends to i + hop
        built = networks.metropolis(graphs.exponential(n, directed=True))
        np.testing.assert_allclose(stored(built), W, atol=1e-15)
        network = mixing(W, form=form)
        assert network.symmetric is False
        x = rows(n)
        np.testing.assert_allclose(apply(network, jnp.asarray(x)), W @ x, rtol=1e-14)
        values = np.linalg.eigvals(W)
        assert matching_distance(network.eigenvalues, values) < 1e-13
        assert np.all(np.diff(np.abs(network.eigenvalues)) <= 1e-13)
        assert network.spectral_gap == pytest.approx(1 - np.sort(np.abs(values))[-2], abs=1e-13)

    def test_an_irregular_one_is_refused(self):
        graph = nx.DiGraph([(0, 1), (1, 2), (2, 0), (0, 2)])
        with pytest.raises(ValueError, match="directed and not regular"):
            networks.metropolis(graph)

    def test_laplacian_is_refused(self):
        with pytest.raises(ValueError, match="Laplacian weights need an undirected one"):
            networks.laplacian(graphs.directed_ring(4))

    def test_a_matrix_given_as_an_array_keeps_its_direction(self):
        arcs = np.roll(np.eye(5), 1, axis=1)  # an edge i -> i + 1
        x = np.arange(5.0)[:, None]
        mixed = networks.metropolis(arcs) @ jnp.asarray(x)
        np.testing.assert_allclose(mixed[:, 0], [(i + (i - 1) % 5) / 2 for i in range(5)])


class TestChoice:
    @pytest.mark.parametrize(
        ("graph", "form"),
        [
            (graphs.ring(16), Circulant),
            (graphs.directed_ring(16), Circulant),
            (graphs.exponential(64), Circulant),
            (graphs.grid(10, 10), Neighbors),
            (graphs.torus(5, 8), Neighbors),
            (graphs.path(20), Neighbors),
            (graphs.regular(100, 6), Neighbors),
            (graphs.star(200), Neighbors),
            (graphs.complete(12), Complete),
            (graphs.path(2), Complete),
            (graphs.path(1), Complete),
            (graphs.star(5), Dense),
            (graphs.erdos_renyi(10, 0.5), Dense),
            (graphs.erdos_renyi(60, 0.6), Dense),
        ],
    )
    def test_follows_the_structure(self, graph, form):
        network = networks.metropolis(graph)
        assert type(network) is form
        np.testing.assert_allclose(stored(network), loops_metropolis(graph), atol=1e-15)

    @pytest.mark.parametrize(
        ("name", "feasible"),
        [
            ("ring", {Dense, Neighbors, Circulant}),
            ("exponential", {Dense, Neighbors, Circulant}),
            ("complete", {Dense, Neighbors, Circulant, Complete}),
            ("one", {Dense, Neighbors, Circulant, Complete}),
            ("two", {Dense, Neighbors, Circulant, Complete}),
            ("path", {Dense, Neighbors}),
            ("erdos_renyi", {Dense, Neighbors}),
            ("scale-free", {Dense, Neighbors}),
        ],
    )
    @pytest.mark.parametrize("form", [Dense, Neighbors, Circulant, Complete])
    def test_form_overrides_it(self, name, feasible, form):
        W = loops_metropolis(GRAPHS[name])
        if form not in feasible:
            with pytest.raises(ValueError, match="use another form than"):
                mixing(W, form=form)
            return
        network = mixing(W, form=form)
        assert type(network) is form
        x = rows(len(W))
        np.testing.assert_allclose(apply(network, jnp.asarray(x)), W @ x, rtol=1e-14, atol=1e-14)
        assert network.symmetric is True
        if name == "complete":
            np.testing.assert_allclose(network.eigenvalues, np.eye(len(W))[0], atol=1e-13)

    @pytest.mark.parametrize("graph", [graphs.star(200), nx.barabasi_albert_graph(120, 3, seed=1)])
    def test_hubs_in_tiers_equal_the_dense_matrix(self, graph):
        W = loops_metropolis(graph)
        table = mixing(W, form=Neighbors)
        assert isinstance(table, Neighbors)
        assert table.index.shape[1] == sparse.UNROLLED
        assert len(table.tiers) >= 1
        dense = mixing(W, form=Dense)
        x = jnp.asarray(rows(len(W)))
        mixed, near = apply(table, x), loops.rounding(W, x)
        np.testing.assert_allclose(mixed, apply(dense, x), rtol=0, atol=near)
        np.testing.assert_allclose(mixed, W @ np.asarray(x), rtol=0, atol=near)
        assert int(table.link_count) == int(dense.link_count) == 2 * graph.number_of_edges()


SPARSE = {
    "csr_array": sp.csr_array,
    "csc_array": sp.csc_array,
    "coo_array": sp.coo_array,
    "csr_matrix": sp.csr_matrix,
}
INPUTS = {"numpy": np.asarray, "lists": lambda W: W.tolist(), "jax": jnp.asarray, **SPARSE}


class TestInputs:
    @pytest.mark.parametrize("kind", INPUTS)
    @pytest.mark.parametrize("name", ["ring", "erdos_renyi", "grid of 100", "complete"])
    def test_matrices_of_every_kind(self, kind, name):
        W = loops_metropolis(GRAPHS[name])
        given = INPUTS[kind](W)
        network = mixing(given)
        np.testing.assert_allclose(stored(network), W, atol=1e-15)
        assert type(network) is type(networks.metropolis(GRAPHS[name]))
        if kind in SPARSE:  # the caller's matrix is left alone
            assert np.array_equal(given.toarray(), W)

    @pytest.mark.parametrize("kind", ["numpy", "jax", "csr_array"])
    def test_float32_matrices_still_average_exactly(self, kind):
        W = loops_metropolis(GRAPHS["erdos_renyi"]).astype(np.float32)
        for form in (Dense, Neighbors):
            network = mixing(INPUTS[kind](W), form=form)
            x = np.full((10, 2), 3.0)
            assert np.array_equal(apply(network, jnp.asarray(x)), x)
            x = rows(10)
            mixed = np.asarray(apply(network, jnp.asarray(x)))
            near = loops.rounding(np.full((10, 10), 1 / 10), x)
            np.testing.assert_allclose(mixed.mean(axis=0), x.mean(axis=0), rtol=0, atol=near)

    def test_duplicate_entries_are_summed(self):
        entries = ([0.25, 0.25, 0.5, 0.5, 0.5], ([0, 0, 0, 1, 1], [0, 0, 1, 0, 1]))
        assert np.allclose(stored(mixing(sp.coo_array(entries, shape=(2, 2)))), 0.5)

    def test_nearly_symmetric_ones_become_symmetric(self):
        W = loops_metropolis(GRAPHS["path"])
        for form in (Dense, Neighbors):
            noisy = W * (1 + 1e-9 * np.random.default_rng(0).standard_normal(W.shape))
            network = mixing(noisy, form=form)
            assert network.symmetric is True
            links = links_of(network)
            assert all(links[j, i] == weight for (i, j), weight in links.items())

    def test_negative_weights_that_contract_are_accepted(self):
        W = loops_laplacian(GRAPHS["path"], 0.52)
        assert W.min() < 0
        assert np.sort(np.abs(np.linalg.eigvalsh(W)))[-2] < 1
        np.testing.assert_allclose(stored(mixing(W)), W, atol=1e-15)

    @pytest.mark.parametrize("n", [9, 601, 5001])
    def test_an_odd_cycle_without_a_diagonal_is_accepted(self, n):
        W = (shift(n, 1) + shift(n, -1)) / 2
        assert mixing(W).spectral_gap == pytest.approx(1 - math.cos(math.pi / n), rel=1e-6)


def one_sentence(error):
    text = str(error.value)
    return "\n" not in text and text.endswith(".") and len(text) < 300


TWO_PAIRS = np.kron(np.eye(2), np.ones((2, 2)))


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: mixing(np.ones(3) / 3), r"W has shape \(3,\); give a square"),
        (lambda: mixing(np.ones((2, 3)) / 3), r"W has shape \(2, 3\); give a square"),
        (lambda: mixing(np.zeros((0, 0))), r"W has shape \(0, 0\); give a square"),
        (lambda: mixing(np.full((2, 2), np.nan)), "W has 4 entries that are not finite"),
        (lambda: mixing(sp.csr_array([[np.inf, 0], [0, 1.0]])), "W has 1 entries that are not"),
        (lambda: mixing([[0.5, 0.5], [0.43, 0.5]]), "row 1 of W sums to 0.93; "),
        (lambda: mixing([[0.5, 0.5], [0.2, 0.8]]), "column 0 of W sums to 0.7; |column 1 of W "),
        (lambda: mixing(np.eye(3)), "the graph is disconnected: 3 components, and agent 1 and"),
        (lambda: mixing(TWO_PAIRS / 2), "2 components, and agent 2 and agent 0 do not reach"),
        (lambda: mixing([[0, 1], [1, 0]]), r"W does not average: .* modulus 1; use \(I \+ W\) / 2"),
        (lambda: mixing(shift(5, 1)), "W does not average: .* modulus 1; "),
        (lambda: mixing((shift(600, 1) + shift(600, -1)) / 2), "W does not average: .* modulus 1"),
        (lambda: mixing(np.full((2, 2), 0.5), form=int), "form is <class 'int'>; give Dense"),  # type: ignore[arg-type]
        (lambda: networks.metropolis(TWO_PAIRS), "the graph is disconnected: 2 components"),
        (lambda: networks.laplacian(TWO_PAIRS), "the graph is disconnected: 2 components"),
        (lambda: networks.metropolis(nx.DiGraph([(0, 1), (1, 2)])), "disconnected: 3 components"),
        (lambda: networks.laplacian(graphs.ring(4), 0), "step is 0; give a positive weight"),
        (lambda: networks.laplacian(graphs.ring(4), -0.1), "step is -0.1; give a positive"),
        (lambda: networks.laplacian(graphs.complete(4), 0.7), "W does not average: .* modulus 1.8"),
        (lambda: networks.stack([]), "there are no networks to stack; give at least one"),
        (lambda: networks.stack([Complete(3), Complete(2)]), "networks of 2 and 3 agents cannot"),
    ],
)  # fmt: skip
def test_errors_name_the_number_and_the_remedy(call, match):
    with pytest.raises(ValueError, match=match) as error:
        call()
    assert one_sentence(error)


def test_the_modulus_that_is_reported_is_the_one_that_is_too_large():
    W = np.array([[-0.5, 1.5], [1.5, -0.5]])  # eigenvalues 1 and -2
    with pytest.raises(ValueError, match=r"modulus 2; "):
        mixing(W)


def members(stacked, count):
    return [jax.tree.map(lambda leaf, i=i: leaf[i], stacked) for i in range(count)]


def assert_same_members(originals, stacked):
    """Compare every member with its original under vmap and one by one."""
    x = jnp.asarray(rows(originals[0].n))
    mixed = jax.jit(jax.vmap(lambda network: network @ x))(stacked)
    pulled = jax.jit(jax.vmap(lambda network: network.laplacian(x)))(stacked)
    singles = members(stacked, len(originals))
    for i, (single, original) in enumerate(zip(singles, originals, strict=True)):
        W = stored(original)
        np.testing.assert_allclose(mixed[i], W @ x, rtol=1e-13)
        np.testing.assert_allclose(pulled[i], x - W @ x, rtol=1e-11, atol=1e-13)
        assert single.n == original.n
        np.testing.assert_allclose(stored(single), W, atol=1e-15)


class TestStack:
    mixed = (
        networks.metropolis(graphs.ring(16)),
        networks.metropolis(graphs.grid(4, 4)),
        networks.metropolis(graphs.erdos_renyi(16, 0.4, seed=1)),
        networks.metropolis(graphs.complete(16)),
    )

    @pytest.mark.slow
    def test_mixed_forms_become_dense(self):
        assert [type(m) for m in self.mixed] == [Circulant, Neighbors, Dense, Complete]
        stacked = networks.stack(self.mixed)
        assert isinstance(stacked, Dense)
        assert stacked.weights.shape == (4, 16, 16)
        assert stacked.symmetric is True
        assert_same_members(self.mixed, stacked)

    def test_mixed_forms_keep_their_links(self):
        stacked = networks.stack(self.mixed)
        counts = jax.vmap(lambda network: network.link_count)(stacked)
        assert counts.tolist() == [int(m.link_count) for m in self.mixed]

    def test_mixed_forms_stay_symmetric_bit_for_bit(self):
        for member in networks.stack(self.mixed).weights:
            assert np.array_equal(member, member.T)

    def test_a_directed_member_makes_the_stack_not_symmetric(self):
        pair = [networks.metropolis(g) for g in (graphs.directed_ring(8), graphs.grid(2, 4))]
        stacked = networks.stack(pair)
        assert stacked.symmetric is False
        assert_same_members(pair, stacked)

    @pytest.mark.parametrize(
        "graph", [graphs.ring(16), graphs.grid(4, 4), graphs.erdos_renyi(16, 0.4), graphs.star(30)]
    )
    def test_members_of_one_structure_keep_it(self, graph):
        pair = [networks.metropolis(graph), networks.lazy_metropolis(graph)]
        stacked = networks.stack(pair)
        assert type(stacked) is type(pair[0])
        assert_same_members(pair, stacked)
        counts = jax.vmap(lambda network: network.link_count)(stacked)
        assert counts.tolist() == [2 * graph.number_of_edges()] * 2

    def test_the_exact_average_stacks_with_itself(self):
        assert networks.stack([Complete(4), Complete(4)]).n == 4

    @pytest.mark.slow
    def test_large_sparse_forms_share_a_table(self):
        n = 600
        large = [
            networks.metropolis(graphs.ring(n)),
            networks.metropolis(graphs.grid(20, 30)),
            networks.lazy_metropolis(graphs.regular(n, 6)),
            networks.metropolis(graphs.exponential(n, directed=True)),
        ]
        assert [type(m) for m in large] == [Circulant, Neighbors, Neighbors, Circulant]
        stacked = networks.stack(large)
        assert isinstance(stacked, Neighbors)
        assert stacked.weights.shape == (4, n, 10)
        assert stacked.symmetric is False
        assert_same_members(large, stacked)
        counts = jax.vmap(lambda network: network.link_count)(stacked)
        assert counts.tolist() == [int(m.link_count) for m in large]
        for single, original in zip(members(stacked, 4), large, strict=True):
            assert links_of(single) == pytest.approx(links_of(original), rel=1e-15)

    def test_large_hubs_are_refused_with_a_remedy(self):
        pair = [networks.metropolis(graphs.star(600)), networks.metropolis(graphs.ring(600))]
        with pytest.raises(ValueError, match=r"more than 16 neighbors .* run them one by one"):
            networks.stack(pair)

    def test_a_time_that_is_set_is_dropped(self):
        ring = networks.metropolis(graphs.ring(6))
        stacked = networks.stack([ring, ring.at(3, jax.random.key(0))])
        assert stacked.k is None
        assert_same_members([ring, ring], stacked)

    @pytest.mark.parametrize("graph", [graphs.ring(16), graphs.grid(4, 4), graphs.star(8)])
    def test_a_stack_knows_its_n_and_does_not_mix(self, graph):
        network = networks.metropolis(graph)
        stacked = networks.stack([network] * 3)
        assert stacked.n == network.n
        with pytest.raises(ValueError, match="this is a stack of networks; take one") as error:
            _ = stacked @ jnp.ones((network.n, 2))
        assert one_sentence(error)


class TestLarge:
    @pytest.mark.parametrize(
        ("graph", "form", "links"),
        [
            (lambda: graphs.ring(20_000), Circulant, 40_000),
            (lambda: graphs.regular(20_000, 6, seed=1), Neighbors, 120_000),
        ],
        ids=["ring", "6-regular"],
    )
    @pytest.mark.slow
    def test_builds_in_sparse_memory_and_time(self, graph, form, links):
        large = graph()
        tracemalloc.start()
        began = time.process_time()
        network = networks.metropolis(large)
        seconds = time.process_time() - began
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert seconds < 5
        assert peak < 200e6  # a dense matrix has 3.2 GB
        assert type(network) is form
        assert int(network.link_count) == links
        gap = network.spectral_gap
        if form is Circulant:
            assert gap == pytest.approx(2 / 3 * (1 - math.cos(2 * math.pi / 20_000)), rel=1e-6)
        else:  # Friedman: |λ₂(A)| ≤ 2√5 + ε for almost every 6-regular graph; Alon, Boppana
            top = 1 - gap
            assert (1 + 1.9 * math.sqrt(5)) / 7 < top < (1 + 2.1 * math.sqrt(5)) / 7

    def test_lanczos_on_a_torus_against_the_closed_form(self):
        network = networks.metropolis(graphs.torus(45, 50))
        assert isinstance(network, Neighbors)
        assert network.n > spectra.DENSE
        second = 1 - 2 / 5 * (1 - math.cos(2 * math.pi / 50))
        assert network.spectral_gap == pytest.approx(1 - second, rel=1e-8)

    def test_lanczos_where_the_gap_is_tiny(self):
        network = networks.metropolis(graphs.path(2100))
        second = 1 - 2 / 3 * (1 - math.cos(math.pi / 2100))
        assert network.spectral_gap == pytest.approx(1 - second, rel=1e-6)

    def test_a_negative_eigenvalue_of_the_largest_modulus(self, monkeypatch):
        monkeypatch.setattr(spectra, "DENSE", 10)
        graph = graphs.torus(4, 10)
        network = networks.laplacian(graph, 0.24)  # λ_min = 1 - 8 * 0.24 = -0.92
        assert isinstance(network, Neighbors)
        assert network.spectral_gap == pytest.approx(0.08, abs=1e-12)

    def test_arnoldi_on_a_directed_graph(self, monkeypatch):
        monkeypatch.setattr(spectra, "DENSE", 10)
        W = loops_metropolis(graphs.exponential(50, directed=True))
        network = mixing(W, form=Neighbors)
        second = np.sort(np.abs(np.linalg.eigvals(W)))[-2]
        assert network.spectral_gap == pytest.approx(1 - second, abs=1e-10)

    def test_arnoldi_that_does_not_converge_says_so(self, monkeypatch):
        def impatient(*args, **options):
            return scipy_eigs(*args, **{**options, "maxiter": 2})

        scipy_eigs = scipy.sparse.linalg.eigs
        monkeypatch.setattr(scipy.sparse.linalg, "eigs", impatient)
        monkeypatch.setattr(spectra, "DENSE", 10)
        network = mixing((shift(201, 1) + shift(201, 2)) / 2, form=Neighbors)
        with pytest.raises(ValueError, match="spectral gap of this network of 201 agents") as error:
            _ = network.spectral_gap
        assert one_sentence(error)


class TestFastestMixing:
    @pytest.mark.parametrize(
        "graph", [graphs.ring(10), graphs.hypercube(3), graphs.star(9)], ids=str
    )
    def test_it_is_the_best_common_weight_where_all_links_are_alike(self, graph):
        """ρ = (λₙ − λ₂) / (λₙ + λ₂) of the Laplacian if a symmetry exchanges any two links."""
        values = np.linalg.eigvalsh(nx.laplacian_matrix(graph).toarray().astype(float))
        best = (values[-1] - values[1]) / (values[-1] + values[1])
        assert 1 - networks.fastest_mixing(graph).spectral_gap == pytest.approx(best, abs=2e-8)

    def test_it_averages_at_once_where_all_are_linked(self):
        np.testing.assert_allclose(
            networks.fastest_mixing(graphs.complete(6)).matrix(), 1 / 6, atol=1e-7
        )

    def test_no_other_weights_on_the_links_mix_faster(self):
        graph, random = graphs.erdos_renyi(14, 0.3, seed=2), np.random.default_rng(0)
        W = np.asarray(networks.fastest_mixing(graph).matrix())
        assert np.all((W == 0) | (nx.to_numpy_array(graph) > 0) | np.eye(14, dtype=bool))
        rho = np.abs(np.linalg.eigvalsh(W - 1 / 14)).max()
        others = [
            networks.metropolis(graph),
            networks.laplacian(graph),
            networks.half_degree(graph),
        ]
        assert all(1 - other.spectral_gap > rho for other in others)
        for size in (1e-1, 1e-2, 1e-3, 1e-4):  # rho is convex in the weights: locally is globally
            for _ in range(20):
                moved = W.copy()
                for i, j in graph.edges:
                    change = size * random.standard_normal()
                    moved[[i, j, i, j], [j, i, i, j]] += change * np.array([1, 1, -1, -1])
                assert np.abs(np.linalg.eigvalsh(moved - 1 / 14)).max() > rho - 2e-8

    @pytest.mark.parametrize("n", [1, 2])
    def test_the_smallest(self, n):
        assert networks.fastest_mixing(graphs.path(n)).spectral_gap == pytest.approx(1, abs=1e-7)

    def test_a_digraph_is_refused(self):
        with pytest.raises(ValueError, match="the graph is directed; these weights need"):
            networks.fastest_mixing(graphs.directed_ring(5))
