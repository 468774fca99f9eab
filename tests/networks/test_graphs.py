"""Every graph against its definition, written out here as sets of pairs."""

import itertools
import math

import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
import scipy.sparse as sp

from jaxdopt import graphs
from jaxdopt.networks import connectivity


def links(graph):
    """Return the undirected edges of a graph as a set of frozensets."""
    return {frozenset(edge) for edge in graph.edges}


def arcs(graph):
    return set(graph.edges)


def pairs(n, linked):
    """Return the pairs i < j for which ``linked(i, j)``."""
    return {frozenset(p) for p in itertools.combinations(range(n), 2) if linked(*p)}


def loops_adjacency(graph):
    """Return [n, n] bool, (i, j) true if i hears j, that is for an arc j -> i, by two loops."""
    nodes = list(graph)
    hears = np.zeros((len(nodes), len(nodes)), bool)
    for i, receiver in enumerate(nodes):
        for j, sender in enumerate(nodes):
            hears[i, j] = i != j and graph.has_edge(sender, receiver)
    return hears


def around(n, i, j):
    return min((i - j) % n, (j - i) % n)


def in_grid(columns, i, j):
    return abs(i // columns - j // columns) + abs(i % columns - j % columns) == 1


def in_torus(rows, columns, i, j):
    vertical = around(rows, i // columns, j // columns)
    horizontal = around(columns, i % columns, j % columns)
    return vertical + horizontal == 1


DEFINITIONS = {
    "ring": (graphs.ring(7), lambda i, j: around(7, i, j) == 1),
    "path": (graphs.path(6), lambda i, j: j - i == 1),
    "star": (graphs.star(6), lambda i, j: min(i, j) == 0),
    "complete": (graphs.complete(5), lambda i, j: i != j),
    "grid": (graphs.grid(3, 4), lambda i, j: in_grid(4, i, j)),
    "line grid": (graphs.grid(1, 5), lambda i, j: j - i == 1),
    "torus": (graphs.torus(3, 4), lambda i, j: in_torus(3, 4, i, j)),
    "narrow torus": (graphs.torus(2, 3), lambda i, j: in_torus(2, 3, i, j)),
    "line torus": (graphs.torus(1, 6), lambda i, j: around(6, i, j) == 1),
    "hypercube": (graphs.hypercube(4), lambda i, j: (i ^ j).bit_count() == 1),
    "square": (graphs.hypercube(2), lambda i, j: i + j != 3),
    "point": (graphs.hypercube(0), lambda i, j: False),
    "tree": (graphs.tree(12), lambda i, j: i == (j - 1) // 2),
    "tree of 3": (graphs.tree(11, 3), lambda i, j: j in range(3 * i + 1, 3 * i + 4)),
    "line tree": (graphs.tree(5, 1), lambda i, j: j - i == 1),
    "lattice": (graphs.watts_strogatz(9, 4, 0.0), lambda i, j: around(9, i, j) in (1, 2)),
    "exponential": (graphs.exponential(12), lambda i, j: around(12, i, j) in (1, 2, 4)),
    "exponential 8": (graphs.exponential(8), lambda i, j: around(8, i, j) in (1, 2, 4)),
    "exponential 9": (graphs.exponential(9), lambda i, j: around(9, i, j) in (1, 2, 4)),
}


@pytest.mark.parametrize("name", DEFINITIONS)
def test_has_exactly_the_edges_of_its_definition(name):
    graph, linked = DEFINITIONS[name]
    assert list(graph) == list(range(len(graph)))
    assert not graph.is_directed()
    assert links(graph) == pairs(len(graph), linked)
    assert nx.is_connected(graph)


def test_known_edges_written_out():
    assert links(graphs.ring(4)) == {frozenset(e) for e in [(0, 1), (1, 2), (2, 3), (3, 0)]}
    assert links(graphs.grid(2, 2)) == {frozenset(e) for e in [(0, 1), (0, 2), (1, 3), (2, 3)]}
    assert arcs(graphs.directed_ring(3)) == {(0, 1), (1, 2), (2, 0)}
    assert arcs(graphs.exponential(4, directed=True)) == {
        (0, 1), (1, 2), (2, 3), (3, 0), (0, 2), (1, 3), (2, 0), (3, 1),
    }  # fmt: skip


@pytest.mark.parametrize("n", [3, 4, 5, 8, 9, 16, 17])
def test_directed_exponential_hops_by_all_powers_of_two_below_n(n):
    graph = graphs.exponential(n, directed=True)
    hops = [2**h for h in range(math.floor(math.log2(n - 1)) + 1)]
    assert arcs(graph) == {(i, (i + hop) % n) for hop in hops for i in range(n)}
    assert nx.is_strongly_connected(nx.DiGraph(graph))
    undirected = links(graphs.exponential(n))
    assert undirected == {frozenset(edge) for edge in graph.edges}


FAMILIES = {
    "ring": graphs.ring,
    "directed_ring": graphs.directed_ring,
    "path": graphs.path,
    "star": graphs.star,
    "complete": graphs.complete,
    "grid": lambda n: graphs.grid(n, 1),
    "torus": lambda n: graphs.torus(1, n),
    "exponential": graphs.exponential,
    "directed exponential": lambda n: graphs.exponential(n, directed=True),
    "regular": lambda n: graphs.regular(n, n - 1),
    "erdos_renyi": lambda n: graphs.erdos_renyi(n, 0.5),
    "random_geometric": graphs.random_geometric,
}


@pytest.mark.parametrize("name", FAMILIES)
def test_one_agent_has_no_links_not_even_with_itself(name):
    graph = FAMILIES[name](1)
    assert list(graph) == [0]
    assert graph.number_of_edges() == 0
    assert connectivity.adjacency(graph).toarray().tolist() == [[False]]


@pytest.mark.parametrize("name", FAMILIES)
def test_two_agents_hear_each_other_once(name):
    graph = FAMILIES[name](2)
    assert graph.number_of_edges() == (2 if graph.is_directed() else 1)
    assert connectivity.adjacency(graph).toarray().tolist() == [[False, True], [True, False]]


def test_grid_and_torus_number_row_by_row_and_know_where_to_draw():
    for graph in (graphs.grid(3, 4), graphs.torus(3, 4)):
        positions = nx.get_node_attributes(graph, "pos")
        assert positions == {4 * r + c: (c, -r) for r in range(3) for c in range(4)}


@pytest.mark.parametrize("rows_columns", [(3, 5), (4, 4), (3, 3)])
def test_torus_has_four_neighbors_everywhere(rows_columns):
    assert {d for _, d in graphs.torus(*rows_columns).degree} == {4}


RANDOM = {
    "regular": lambda seed: graphs.regular(20, 3, seed=seed),
    "erdos_renyi": lambda seed: graphs.erdos_renyi(20, 0.2, seed=seed),
    "random_geometric": lambda seed: graphs.random_geometric(20, seed=seed),
    "random_geometric of a radius": lambda seed: graphs.random_geometric(20, 0.4, seed=seed),
}


@pytest.mark.parametrize("name", RANDOM)
def test_random_graphs_are_connected_and_belong_to_their_seed(name):
    draw = RANDOM[name]
    drawn = [draw(seed) for seed in range(6)]
    assert all(nx.is_connected(graph) for graph in drawn)
    assert all(list(graph) == list(range(20)) for graph in drawn)
    assert links(draw(3)) == links(drawn[3])
    assert len({frozenset(links(graph)) for graph in drawn}) == 6


@pytest.mark.parametrize(("n", "degree"), [(6, 2), (8, 3), (9, 4), (10, 9), (2, 1)])
def test_regular_has_its_degree(n, degree):
    graph = graphs.regular(n, degree, seed=1)
    assert [d for _, d in graph.degree] == [degree] * n


def test_erdos_renyi_links_each_pair_with_its_probability():
    n, probability = 60, 0.3
    count = np.mean(
        [graphs.erdos_renyi(n, probability, seed=s).number_of_edges() for s in range(20)]
    )
    every = n * (n - 1) / 2
    error = math.sqrt(every * probability * (1 - probability) / 20)
    assert abs(count - every * probability) < 4 * error
    assert links(graphs.erdos_renyi(5, 1.0)) == pairs(5, lambda i, j: i != j)


@pytest.mark.parametrize("radius", [None, 0.35])
def test_random_geometric_links_the_near_and_only_them(radius):
    n = 25
    graph = graphs.random_geometric(n, radius, seed=2)
    place = nx.get_node_attributes(graph, "pos")
    reach = math.sqrt(2 * math.log(n) / n) if radius is None else radius
    assert links(graph) == pairs(n, lambda i, j: math.dist(place[i], place[j]) <= reach)
    assert all(0 <= coordinate <= 1 for point in place.values() for coordinate in point)


def some_graphs():
    directed = nx.gnp_random_graph(7, 0.4, seed=4, directed=True)
    looped = nx.Graph([(0, 1), (1, 2), (1, 1), (0, 0)])
    multi = nx.MultiDiGraph([(0, 1), (0, 1), (1, 2), (2, 0)])
    weighted = nx.DiGraph()
    weighted.add_nodes_from("cab")  # agent i is the i-th node, whatever its name
    weighted.add_edge("a", "b", weight=0)
    weighted.add_edge("c", "a", weight=-2.5)
    return {
        "ring": graphs.ring(5),
        "directed ring": graphs.directed_ring(4),
        "random directed": directed,
        "self-loops": looped,
        "parallel edges": multi,
        "named nodes, odd weights": weighted,
        "no edges": nx.empty_graph(3),
    }


FORMATS = {
    "networkx": lambda graph: graph,
    "numpy bool": lambda graph: nx.to_numpy_array(graph, weight="") != 0,
    "numpy int": lambda graph: nx.to_numpy_array(graph, weight="").astype(int),
    "numpy float": lambda graph: nx.to_numpy_array(graph, weight="") + 0.7 * np.eye(len(graph)),
    "lists": lambda graph: nx.to_numpy_array(graph, weight="").tolist(),
    "jax": lambda graph: jnp.asarray(nx.to_numpy_array(graph, weight="")),
    "csr_array": lambda graph: sp.csr_array(nx.to_numpy_array(graph, weight="")),
    "csc_array": lambda graph: sp.csc_array(nx.to_numpy_array(graph, weight="")),
    "coo_array": lambda graph: sp.coo_array(nx.to_numpy_array(graph, weight="").astype(int)),
    "csr_matrix": lambda graph: sp.csr_matrix(nx.to_numpy_array(graph, weight="")),
}


@pytest.mark.parametrize("kind", FORMATS)
def test_adjacency_is_the_same_from_every_input(kind):
    for name, graph in some_graphs().items():
        hears = connectivity.adjacency(FORMATS[kind](graph))
        assert hears.dtype == bool
        assert hears.format == "csr"
        assert np.array_equal(hears.toarray(), loops_adjacency(graph)), name
        assert hears.nnz == loops_adjacency(graph).sum(), name  # no explicit zeros


def test_adjacency_says_who_hears_whom():
    assert connectivity.adjacency(nx.DiGraph([(0, 1)])).toarray().tolist() == [
        [False, False],
        [True, False],  # the arc 0 -> 1: agent 1 hears agent 0
    ]
    assert connectivity.adjacency(np.array([[0, 1], [0, 0]])).toarray()[1, 0]


def test_adjacency_drops_stored_zeros_and_leaves_its_input_alone():
    stored = sp.csr_array(([0.0, 1.0, 3.0], ([0, 0, 1], [1, 2, 1])), shape=(3, 3))
    before = stored.copy()
    hears = connectivity.adjacency(stored)
    assert hears.nnz == 1
    assert hears.toarray()[2, 0]
    assert stored.nnz == before.nnz
    assert np.array_equal(stored.toarray(), before.toarray())


def one_sentence(error):
    text = str(error.value)
    return "\n" not in text and text.endswith(".") and len(text) < 300


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: graphs.ring(0), "n is 0; give an integer of at least 1"),
        (lambda: graphs.path(2.0), "n is 2.0; give an integer"),  # type: ignore[arg-type]
        (lambda: graphs.star(True), "n is True; give an integer"),
        (lambda: graphs.grid(3, -1), "columns is -1; give an integer"),
        (lambda: graphs.torus(0, 3), "rows is 0; give an integer"),
        (lambda: graphs.regular(5, 3), r"degree is 3 for n = 5; .*n \* degree even"),
        (lambda: graphs.regular(4, 4), "degree is 4 for n = 4; give an integer below n"),
        (lambda: graphs.regular(4, -1), "degree is -1 for n = 4"),
        (lambda: graphs.regular(6, 0), "all disconnected; raise degree to 3 or more"),
        (lambda: graphs.erdos_renyi(5, 1.5), "probability is 1.5; give one between 0 and 1"),
        (
            lambda: graphs.erdos_renyi(9, 0.0),
            r"disconnected; raise probability above .* 0\.244",
        ),
        (lambda: graphs.random_geometric(9, 0.0), "radius is 0.0; give a positive one"),
        (lambda: graphs.random_geometric(30, 0.01), "all disconnected; raise radius"),
        (lambda: connectivity.adjacency(nx.Graph()), "the graph has no nodes"),
        (
            lambda: connectivity.adjacency(np.ones((2, 3))),
            r"shape \(2, 3\); give a networkx graph or a square",
        ),
        (
            lambda: connectivity.adjacency(np.ones(3)),
            r"shape \(3,\); give a networkx graph or a square",
        ),
        (lambda: connectivity.adjacency(np.array([[0, np.nan], [1, 0]])), "entries that are NaN"),
    ],
)
def test_errors_name_the_number_and_the_remedy(call, match):
    with pytest.raises(ValueError, match=match) as error:
        call()
    assert one_sentence(error)


def test_a_degree_that_is_no_integer_is_refused():
    with pytest.raises(ValueError, match=r"degree is 2\.5"):
        graphs.regular(8, 2.5)  # type: ignore[arg-type]


@pytest.mark.parametrize("probability", [0.1, 1.0])
def test_watts_strogatz_rewires_each_link_with_its_probability(probability):
    n, degree = 300, 6
    graph = graphs.watts_strogatz(n, degree, probability, seed=3)
    assert nx.is_connected(graph)
    assert graph.number_of_edges() == n * degree // 2
    assert links(graph) == links(graphs.watts_strogatz(n, degree, probability, seed=3))
    assert links(graph) != links(graphs.watts_strogatz(n, degree, probability, seed=4))
    moved = sum(around(n, *edge) > 3 for edge in graph.edges) / 900
    assert abs(moved - probability) < 4 * math.sqrt(probability * (1 - probability) / 900) + 0.03


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: graphs.hypercube(-1), "dimension is -1; give an integer of at least 0"),
        (lambda: graphs.hypercube(2.0), "dimension is 2.0; give an integer"),  # type: ignore[arg-type]
        (lambda: graphs.tree(0), "n is 0; give an integer of at least 1"),
        (lambda: graphs.tree(3, 0), "branching is 0; give an integer of at least 1"),
        (lambda: graphs.watts_strogatz(9, 3, 0.1), "degree is 3 for n = 9; give an even integer"),
        (lambda: graphs.watts_strogatz(9, 10, 0.1), "degree is 10 for n = 9; give an even"),
        (lambda: graphs.watts_strogatz(1, 2, 0.1), "degree is 2 for n = 1; .* n = 3 or more"),
        (lambda: graphs.watts_strogatz(2, 2, 0.1), "degree is 2 for n = 2; .* n = 3 or more"),
        (lambda: graphs.watts_strogatz(9, 4, 1.1), "probability is 1.1; give one between 0 and 1"),
        (lambda: graphs.watts_strogatz(9, 4, math.nan), "probability is nan; give one between"),
    ],
)  # fmt: skip
def test_errors_of_the_newer_graphs(call, match):
    with pytest.raises(ValueError, match=match) as error:
        call()
    assert one_sentence(error)


def test_several_graphs_are_in_the_order_of_the_first():
    one, two = nx.Graph([("a", "b"), ("b", "c")]), nx.Graph([("c", "b"), ("c", "a")])
    patterns = [p.toarray() for p in connectivity.adjacencies([one, two])]
    assert patterns[0].tolist() == [[0, 1, 0], [1, 0, 1], [0, 1, 0]]
    assert patterns[1].tolist() == [[0, 0, 1], [0, 0, 1], [1, 1, 0]]
    arrays = [p.toarray() for p in connectivity.adjacencies(np.stack(patterns))]
    assert np.array_equal(arrays, patterns)
    with pytest.raises(ValueError, match=r"a graph has the node \['d'\] and the first") as error:
        connectivity.adjacencies([one, nx.relabel_nodes(two, {"a": "d"})])
    assert one_sentence(error)


@pytest.fixture(scope="module")
def graph():
    return graphs.regular(10_002, 5, seed=3)


class TestDrawnByArrays:
    """Large regular graphs are drawn by array operations, and known by their links alone."""

    def test_it_is_regular_simple_and_connected(self, graph):
        assert isinstance(graph, nx.Graph)
        assert set(dict(graph.degree).values()) == {5}
        assert graph.number_of_edges() == 10_002 * 5 // 2
        assert nx.number_of_selfloops(graph) == 0
        assert nx.is_connected(graph)

    def test_the_seed_says_which(self, graph):
        again, other = (graphs.regular(10_002, 5, seed=seed) for seed in (3, 4))
        assert links(again) == links(graph) != links(other)

    def test_no_network_needs_the_dictionaries(self, monkeypatch):
        drawn = graphs.regular(10_002, 6)
        monkeypatch.setattr(drawn, "add_edges_from", None)
        found = connectivity.adjacency(drawn)
        monkeypatch.undo()
        assert np.all(found.sum(axis=0) == 6)
        drawn.remove_edge(*next(iter(drawn.edges)))  # the links are forgotten
        assert connectivity.adjacency(drawn).sum() == 10_002 * 6 - 2
        assert connectivity.adjacency(drawn.copy()).sum() == 10_002 * 6 - 2

    def test_an_order_of_the_nodes_is_kept(self):
        drawn = graphs.complete(4)
        turned = connectivity.adjacency(drawn, [3, 2, 1, 0])
        assert np.array_equal(turned.toarray(), ~np.eye(4, dtype=bool))

    def test_small_graphs_are_networkx_s(self):
        expected = nx.random_regular_graph(3, 20, seed=5)
        assert links(graphs.regular(20, 3, seed=5)) == links(expected)

    def test_dense_pairings_have_no_double_links(self):
        for seed in range(5):
            found = graphs._paired(60, 14, seed)
            assert len({frozenset(pair) for pair in found.tolist()}) == 60 * 7
            assert np.array_equal(np.bincount(found.ravel()), np.full(60, 14))


@pytest.mark.parametrize("kind", [nx.Graph, nx.DiGraph, nx.MultiGraph, nx.MultiDiGraph])
def test_the_pattern_is_networkx_s(kind):
    random = np.random.default_rng(0)
    graph = kind([(f"v{i}", f"v{j}") for i, j in random.integers(0, 9, (30, 2))])
    order = sorted(graph)
    expected = nx.to_numpy_array(graph, order).T > 0
    np.fill_diagonal(expected, False)
    assert np.array_equal(connectivity.adjacency(graph, order).toarray(), expected)
