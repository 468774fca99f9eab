"""One-sided weights, push-pull pairs and trees: double loops, invariants, refusals."""

import itertools
import math
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

import jaxdopt as jd
from jaxdopt import graphs, networks
from jaxdopt.networks import Complete, Dense, Directed, Neighbors, Pushes, Tree, mixing, stack

KEY = jax.random.key(0)


def digraph(n, arcs, seed):
    """Return a strongly connected random digraph: a directed ring and further arcs."""
    random = np.random.default_rng(seed)
    graph = nx.empty_graph(n, create_using=nx.DiGraph)
    graph.add_edges_from((i, (i + 1) % n) for i in range(n))
    graph.add_edges_from((u, v) for u, v in random.integers(n, size=(arcs, 2)).tolist() if u != v)
    return graph


def wheel(n):
    """Return a digraph in which agent 0 hears everybody and half of the agents hear agent 0."""
    graph = digraph(n, 0, 0)
    graph.add_edges_from((i, 0) for i in range(1, n))
    graph.add_edges_from((0, i) for i in range(1, n, 2))
    return graph


DIGRAPHS = {
    "sparse": digraph(24, 10, 1),
    "dense": digraph(9, 40, 2),
    "hub": wheel(70),
    "undirected": graphs.grid(3, 8),
    "two": graphs.path(2),
    "one": graphs.path(1),
}
every_digraph = pytest.mark.parametrize("name", DIGRAPHS)


class TestOneSidedWeights:
    @every_digraph
    def test_are_the_loops(self, name):
        graph = DIGRAPHS[name]
        x = loops.rows(len(graph), 2)
        for kind, axis in (("row", 1), ("column", 0)):
            network = getattr(networks, f"{kind}_stochastic")(graph)
            W = getattr(loops, f"{kind}_stochastic")(graph)
            assert network.kind == kind
            assert network.symmetric is False
            np.testing.assert_allclose(W.sum(axis=axis), 1, atol=1e-14)
            np.testing.assert_allclose(network.csr().toarray(), W, atol=1e-15)
            mixed, pulled, matrix, count = loops.everything(network, x)
            np.testing.assert_allclose(mixed, W @ x, rtol=0, atol=loops.rounding(W, x))
            np.testing.assert_allclose(pulled, x - W @ x, atol=1e-13)
            np.testing.assert_allclose(matrix, W, atol=1e-15)
            assert loops.distance(network.eigenvalues, np.linalg.eigvals(W)) < 1e-7
            assert int(count) == np.count_nonzero(W - np.diag(np.diag(W)))

    @pytest.mark.parametrize(
        ("graph", "row", "column"),
        [
            (DIGRAPHS["sparse"], Neighbors, Pushes),
            (DIGRAPHS["hub"], Neighbors, Pushes),
            (DIGRAPHS["dense"], Dense, Dense),
            (graphs.directed_ring(7), Neighbors, Pushes),
            (graphs.complete(6), Dense, Dense),
        ],
    )
    def test_take_the_form_that_suits(self, graph, row, column):
        assert type(networks.row_stochastic(graph)) is row
        assert type(networks.column_stochastic(graph)) is column

    def test_hubs_on_both_sides_are_in_tiers(self):
        column: Any = networks.column_stochastic(DIGRAPHS["hub"])
        assert len(column.tiers) == 3  # 69 neighbors: 16, 32, 64, 69
        assert len(column.given_tiers) == 2  # 35 hearers: 16, 32, 35
        assert column.index.shape[1] == column.receivers.shape[1] == 16

    def test_limits_are_the_perron_vectors(self):
        graph = DIGRAPHS["dense"]
        x = np.asarray(loops.rows(9, 2))
        for kind in ("row", "column"):
            network = getattr(networks, f"{kind}_stochastic")(graph)
            W = getattr(loops, f"{kind}_stochastic")(graph)
            values, vectors = np.linalg.eig(W.T if kind == "row" else W)
            v = np.real(vectors[:, np.argmin(np.abs(values - 1))])
            v = v / v.sum()
            limit = np.outer(np.ones(9), v @ x) if kind == "row" else np.outer(v, x.sum(axis=0))
            after = jnp.asarray(x)
            for _ in range(400):
                after = loops.apply(network, after)
            np.testing.assert_allclose(after, limit, rtol=1e-12, atol=1e-12)

    def test_the_other_part_is_refused(self):
        row, column = (f(DIGRAPHS["dense"]) for f in (networks.row_stochastic, COLUMN))
        assert row.row is row
        assert column.column is column
        for network, other in ((row, "column"), (column, "row")):
            for now in (network, network.at(0, KEY)):  # a round is no operator, but has its part
                assert not hasattr(now, other)
                match = rf"asks for \.{other} needs .* {now.kind}-stochastic .*networks\.push_pull"
                with pytest.raises(ValueError, match=match) as error:
                    getattr(now, other)
                assert loops.one_sentence(error)
        x = loops.rows(9, 2)
        assert np.array_equal(row.at(0, KEY).row @ x, row @ x)
        assert np.array_equal(column.at(0, KEY).column @ x, column @ x)


COLUMN = networks.column_stochastic


@jd.pytree
class Plain:
    """W as an array that multiplies."""

    weights: jax.Array

    def __matmul__(self, x):
        return jnp.matmul(self.weights, x, precision="highest")


@jax.jit
def forced_rounds(network, x, forcing):
    """Return x after 10,000 rounds, in each of which whole numbers are handed to other agents."""

    def one(x, k):
        noise = jax.random.randint(jax.random.fold_in(forcing, k), x.shape, -1, 2).astype(x.dtype)
        return network @ (x + noise - jnp.roll(noise, 1, axis=0)), None

    return jax.lax.scan(one, x, jnp.arange(10_000))[0]


class TestSumsInFloat32:
    """10,000 rounds with noise that sums to zero exactly: a lost sum would be seen."""

    @pytest.mark.parametrize("form", [Pushes, Dense])
    def test_a_column_stochastic_network_keeps_the_sum(self, form):
        W = loops.column_stochastic(digraph(20, 12, 3))
        network = mixing(W, kind="column", form=form)
        assert np.ptp(W.sum(axis=1)) > 0.5  # the digraph is irregular: consensus is not kept
        x = loops.rows(20, 3).astype(jnp.float32)
        after = np.asarray(forced_rounds(network, x, KEY), np.float64)
        assert np.ptp(after, axis=0).min() > 1
        total, before = after.sum(axis=0), np.asarray(x, np.float64).sum(axis=0)
        assert np.abs(total - before).max() < 2e-5 * np.abs(before).min()
        naive = np.asarray(forced_rounds(Plain(jnp.asarray(W, jnp.float32)), x, KEY), np.float64)
        assert np.abs(naive.sum(axis=0) - before).max() > 5e-5 * np.abs(before).min()

    @pytest.mark.parametrize("graph", [DIGRAPHS["hub"], DIGRAPHS["sparse"]])
    def test_row_stochastic_tables_keep_consensus_to_the_last_bit(self, graph):
        network = networks.row_stochastic(graph)
        x = jnp.full((len(graph), 2), jnp.float32(np.pi))
        assert np.array_equal(loops.apply(network, x), x)


class TestPushPull:
    @every_digraph
    def test_has_both_parts_of_the_graph(self, name):
        graph = DIGRAPHS[name]
        network = networks.push_pull(graph)
        assert isinstance(network, Directed)
        assert (network.kind, network.symmetric, network.varies) == ("directed", False, False)
        R, C = loops.row_stochastic(graph), loops.column_stochastic(graph)
        np.testing.assert_allclose(network.row.csr().toarray(), R, atol=1e-15)
        np.testing.assert_allclose(network.column.csr().toarray(), C, atol=1e-15)
        assert network.n == len(graph)
        slower = min(network.row.spectral_gap, network.column.spectral_gap)
        assert network.spectral_gap == slower
        x = loops.rows(len(graph), 2)
        np.testing.assert_allclose(network.mean(x), np.asarray(x).mean(axis=0), rtol=1e-14)

    def test_two_graphs_with_a_common_root(self):
        down = nx.DiGraph([(0, 1), (1, 2), (0, 3)])  # values flow from agent 0
        up = nx.DiGraph([(1, 0), (3, 1), (2, 3)])  # sums flow to agent 0
        network = networks.push_pull(down, up)
        assert list(up) != list(down)  # agents are the nodes of the first, in their order
        R = network.row.csr().toarray()
        np.testing.assert_allclose(R, loops.row_stochastic(down), atol=1e-15)
        C = np.zeros((4, 4))
        for j, hearers in {0: [], 1: [0], 2: [3], 3: [1]}.items():
            for i in [j, *hearers]:
                C[i, j] = 1 / (1 + len(hearers))
        np.testing.assert_allclose(network.column.csr().toarray(), C, atol=1e-15)

    def test_two_graphs_name_the_same_agents_whatever_their_order(self):
        one = nx.DiGraph([("a", "b"), ("b", "c"), ("c", "a")])
        two = nx.DiGraph([("c", "a"), ("b", "c"), ("a", "b")])
        assert list(one) != list(two)
        network = networks.push_pull(one, two)
        expected = networks.push_pull(one)
        assert np.array_equal(network.column.matrix(), expected.column.matrix())
        with pytest.raises(
            ValueError, match=r"a graph has the node \['d'\] and the first"
        ) as error:
            networks.push_pull(one, nx.relabel_nodes(two, {"a": "d"}))
        assert loops.one_sentence(error)

    def test_roots_against_reachability(self):
        """With and without a common root, as networkx finds it on 200 pairs of random digraphs."""
        random = np.random.default_rng(0)
        seen = {True: 0, False: 0}
        for _ in range(200):
            pair = []
            for _ in range(2):
                graph = nx.empty_graph(5, create_using=nx.DiGraph)
                arcs = random.integers(5, size=(random.integers(6, 13), 2)).tolist()
                graph.add_edges_from((u, v) for u, v in arcs if u != v)
                pair.append(graph)
            pulled, pushed = pair
            rooted = any(
                len(nx.descendants(pulled, r)) == 4 and len(nx.ancestors(pushed, r)) == 4
                for r in range(5)
            )
            seen[rooted] += 1
            if rooted:
                assert networks.push_pull(pulled, pushed).n == 5
            else:
                with pytest.raises(ValueError, match="the two graphs have no common root"):
                    networks.push_pull(pulled, pushed)
        assert min(seen.values()) > 30

    def test_time_sleep_and_cuts_reach_both_parts(self):
        network = networks.push_pull(DIGRAPHS["sparse"])
        with pytest.raises(ValueError, match="this method needs the time"):
            _ = network.time
        now = network.at(3, KEY)
        assert now.k == now.time == now.row.k == now.column.k == 3
        awake = jnp.arange(24) % 3 > 0
        assert network.active is None
        assert network.awake(awake).active is awake
        cut = network.cut(lambda i, j: awake[i] & awake[j])
        up = np.asarray(awake)
        for part, kind in ((cut.row, "row"), (cut.column, "column")):
            W = getattr(loops, f"{kind}_stochastic")(DIGRAPHS["sparse"])
            expected = loops.cut(W, lambda i, j: up[i] and up[j], kind)
            np.testing.assert_allclose(loops.apply(part, jnp.eye(24)), expected, atol=1e-15)

    def test_parts_that_vary_make_a_network_that_varies(self):
        pair = [DIGRAPHS["dense"], digraph(9, 5, 4)]
        network = Directed(
            networks.Cyclic([networks.row_stochastic(g) for g in pair]),
            networks.Cyclic([networks.column_stochastic(g) for g in pair]),
        )
        assert network.varies
        for k in range(3):
            now = loops.at(network, k, KEY)
            assert isinstance(now, Directed)
            assert not now.varies
            R, C = (f(pair[k % 2]) for f in (loops.row_stochastic, loops.column_stochastic))
            np.testing.assert_allclose(now.row.csr().toarray(), R, atol=1e-15)
            np.testing.assert_allclose(now.column.csr().toarray(), C, atol=1e-15)

    def test_repeated_parts_count_their_rounds(self):
        parts = networks.push_pull(DIGRAPHS["dense"])
        twice = Directed(networks.Repeated(parts.row, 2), networks.Repeated(parts.column, 2))
        assert (parts.repetitions, twice.repetitions) == (1, 2)
        C = loops.column_stochastic(DIGRAPHS["dense"])
        np.testing.assert_allclose(twice.column.matrix(), C @ C, atol=1e-14)
        # its gap is known without a matrix
        assert twice.column.spectral_gap == pytest.approx(
            1 - np.sort(np.abs(np.linalg.eigvals(C @ C)))[-2], abs=1e-10
        )


def depth_to(graph, root):
    """Return the larger of the longest ways from the root to anybody and from anybody to it."""
    down = nx.single_source_shortest_path_length(graph, root)
    up = nx.single_source_shortest_path_length(
        graph.reverse() if graph.is_directed() else graph, root
    )
    assert len(down) == len(up) == len(graph)
    return max(*down.values(), *up.values(), 0)


def tree_matrices(parent, push):
    """Return R, C by loops: everybody takes its parent's value, and gives all to its parent."""
    n = len(parent)
    R, C = np.zeros((n, n)), np.zeros((n, n))
    for i in range(n):
        R[i, parent[i]] = 1
        C[push[i], i] = 1
    return R, C


TREES = {
    "digraph": digraph(10, 12, 5),
    "wheel": wheel(40),
    "star": graphs.star(40),
    "path": graphs.path(9),
    "grid": graphs.grid(3, 5),
    "4-ary": graphs.tree(30, 4),
    "one": graphs.path(1),
}
every_tree = pytest.mark.parametrize("name", TREES)


class TestTrees:
    @every_tree
    def test_follow_the_graph_and_are_least_deep(self, name):
        graph = TREES[name]
        n = len(graph)
        tree = networks.spanning_tree(graph)
        parent, push = np.asarray(tree.row.parent), np.asarray(tree.column.parent)
        root = int(tree.root)
        assert parent[root] == push[root] == root
        for i in range(n):
            if i != root:
                assert loops.hears(graph, i, parent[i])  # values come down
                assert loops.hears(graph, push[i], i)  # sums go up
        depths = [depth_to(graph, r) for r in range(n)]
        assert tree.depth == depths[root] == min(depths)
        assert (tree.n, tree.link_count, tree.spectral_gap) == (n, n - 1, 1)

    @pytest.mark.parametrize("branching", [1, 2, 3, 20])
    @pytest.mark.parametrize("n", [1, 2, 8, 21])
    def test_b_ary_ones_are_filled_row_by_row(self, n, branching):
        tree = networks.bary_tree(n, branching)
        parent = [0] + [(i - 1) // branching for i in range(1, n)]
        depth = [0] * n
        for i in range(1, n):
            depth[i] = depth[parent[i]] + 1
        assert np.array_equal(tree.row.parent, parent)
        assert np.array_equal(tree.column.parent, parent)
        assert tree.undirected
        assert (int(tree.root), tree.depth, tree.link_count) == (0, max(depth), n - 1)
        assert tree.delay == max(1, 2 * max(depth))
        children = np.bincount(parent[1:], minlength=n)
        full = np.flatnonzero(children)[:-1]  # all parents but the last have as many as they may
        assert np.all(children[full] == branching)
        assert children.max() <= branching

    @every_tree
    def test_multiply_as_the_loops(self, name):
        tree = networks.spanning_tree(TREES[name])
        R, C = tree_matrices(np.asarray(tree.row.parent), np.asarray(tree.column.parent))
        x = loops.rows(tree.n, 3)
        np.testing.assert_allclose(loops.apply(tree.row, x), R @ x, rtol=0)
        mixed, near = loops.apply(tree.column, x), loops.rounding(C, x)
        np.testing.assert_allclose(mixed, C @ x, rtol=0, atol=near)
        for part, W in ((tree.row, R), (tree.column, C)):
            assert np.array_equal(part.csr().toarray(), W)
            _, pulled, matrix, count = loops.everything(part, x)
            assert np.array_equal(matrix, W)
            np.testing.assert_allclose(pulled, x - W @ x, atol=1e-14)
            assert count == np.count_nonzero(W - np.diag(np.diag(W)))
            assert loops.distance(part.eigenvalues, np.eye(1, tree.n)[0]) < 1e-6
        # after as many rounds as it is deep all have the root's value, and the root all of the sum
        down, up = x, x
        for _ in range(tree.depth):
            down, up = loops.apply(tree.row, down), loops.apply(tree.column, up)
        root = int(tree.root)
        assert np.array_equal(down, np.broadcast_to(np.asarray(x)[root], x.shape))
        np.testing.assert_allclose(np.asarray(up)[root], np.asarray(x).sum(axis=0), rtol=1e-14)
        assert np.abs(np.delete(np.asarray(up), root, axis=0)).max(initial=0) == 0

    @pytest.mark.parametrize("root", range(10))
    def test_every_agent_can_be_the_root(self, root):
        tree = networks.spanning_tree(TREES["digraph"], root)
        assert tree.root == root
        assert tree.depth == depth_to(TREES["digraph"], root)

    def test_a_hub_has_its_children_in_tiers(self):
        tree = networks.spanning_tree(graphs.star(40))
        assert tree.root == 0
        assert tree.column.children.shape == (40, 16)
        assert [h.tolist() for h, *_ in tree.column.tiers] == [[0], [0]]
        x = loops.rows(40, 2)
        total = np.asarray(loops.apply(tree.column, x))
        np.testing.assert_allclose(total[0], np.asarray(x).sum(axis=0), rtol=1e-14)
        assert not np.any(total[1:])

    def test_own_parents(self):
        parent, push = [2, 0, 2, 0, 3], [2, 2, 2, 4, 1]
        one, two = Tree(parent), Tree(parent, push)
        assert one.root == two.root == 2
        assert (one.depth, two.depth) == (3, 3)
        x = loops.rows(5, 2)
        for tree, p in ((one, parent), (two, push)):
            R, C = tree_matrices(parent, p)
            np.testing.assert_allclose(loops.apply(tree.row, x), R @ x)
            np.testing.assert_allclose(loops.apply(tree.column, x), C @ x)

    def test_the_depth_of_a_long_path(self):
        n = 3000
        tree = Tree(np.maximum(np.arange(n) - 1, 0))
        assert tree.depth == n - 1
        assert networks.spanning_tree(graphs.path(2500)).depth == pytest.approx(1250, abs=2)

    def test_time_is_set_on_both_parts(self):
        tree = networks.spanning_tree(graphs.tree(7))
        now = jax.jit(lambda tree, k: tree.at(k, KEY))(tree, 4)
        assert isinstance(now, Tree)
        assert now.time == 4
        assert now.column.k == 4

    def test_trees_of_one_shape_stack(self):
        trees = [networks.spanning_tree(graphs.ring(8), r) for r in (0, 3)]
        stacked = stack(trees)
        x = loops.rows(8, 2)
        mixed = jax.jit(jax.vmap(lambda t: (t.row @ x, t.column @ x)))(stacked)
        for i, tree in enumerate(trees):
            R, C = tree_matrices(np.asarray(tree.row.parent), np.asarray(tree.column.parent))
            assert np.array_equal(mixed[0][i], R @ x)
            np.testing.assert_allclose(mixed[1][i], C @ x, rtol=0, atol=loops.rounding(C, x))
        assert stacked.n == 8
        with pytest.raises(ValueError, match="this is a stack of networks"):
            _ = stacked.row @ x


NETWORKS = {
    "row": networks.row_stochastic(DIGRAPHS["dense"]),
    "column": networks.column_stochastic(DIGRAPHS["dense"]),
    "push-pull": networks.push_pull(DIGRAPHS["dense"]),
    "tree": networks.spanning_tree(DIGRAPHS["dense"]),
    "cyclic rows": networks.sequence([DIGRAPHS["dense"]], weights="row_stochastic"),
    "failing columns": networks.RandomLinks(networks.column_stochastic(DIGRAPHS["dense"]), 0.5),
    "sleeping push-pull": networks.Asleep(networks.push_pull(DIGRAPHS["dense"]), 0.5),
    "repeated rows": networks.Repeated(networks.row_stochastic(DIGRAPHS["dense"]), 2),
}


class TestRuns:
    @pytest.mark.parametrize("name", NETWORKS)
    def test_refuse_methods_that_need_both_sums(self, name):
        problem = jd.problems.quadratic(9, 2)
        with pytest.raises(ValueError, match="DGD needs doubly stochastic weights") as error:
            jd.run(jd.DGD(0.1), problem, NETWORKS[name], problem.start(), KEY, steps=1)
        assert loops.one_sentence(error)

    @pytest.mark.parametrize("name", ["column", "tree", "failing columns", "cyclic rows"])
    def test_allow_methods_that_take_the_mean(self, name):
        problem = jd.problems.quadratic(9, 2)
        result = jd.run(
            jd.GradientDescent(0.1), problem, NETWORKS[name], problem.start(), KEY, steps=4
        )
        plain = jd.run(jd.GradientDescent(0.1), problem, Complete(9), problem.start(), KEY, steps=4)
        np.testing.assert_allclose(result.history["gap"], plain.history["gap"], rtol=1e-12)

    def test_push_pull_itself_goes_through(self):
        """AB with R and C: gradient tracking on a digraph finds the optimum (Pu et al., 2021)."""

        @jd.pytree
        class State:
            x: jax.Array
            y: jax.Array
            g: jax.Array

        @jd.pytree
        class AB:
            stepsize: float

            def init(self, x0, problem, network, key):
                return State(x0, jnp.zeros_like(x0), jnp.zeros_like(x0))

            def step(self, state, problem, network, key):
                g = problem.grad(state.x, key)
                y = network.column @ state.y + g - state.g
                return State(network.row @ (state.x - self.stepsize * y), y, g)

        problem = jd.problems.quadratic(9, 2)
        for network in (NETWORKS["push-pull"], NETWORKS["tree"]):
            result = jd.run(
                AB(0.02), problem, network, problem.start(), KEY, steps=4000, every=1000
            )
            assert result.history["consensus_error"][-1] < 1e-9
            distance = result.history["distance_squared"]
            assert distance[-1] < 1e-6 * distance[0]
            assert result.history["traffic"][-1] == 4000 * 64 * int(network.link_count)

    def test_rounds_refuse_products_by_hand_too(self):
        for network in (NETWORKS["push-pull"], NETWORKS["tree"]):
            for call in (lambda w: w @ jnp.ones((9, 1)), lambda w: w.laplacian(jnp.ones((9, 1)))):
                with pytest.raises(ValueError, match="needs doubly stochastic weights"):
                    call(network)


class TestStacks:
    def test_push_pulls_of_other_graphs(self):
        graphs_ = [digraph(24, arcs, arcs) for arcs in (4, 9, 20)]
        members = [networks.push_pull(g) for g in graphs_]
        widths = {(m.row.index.shape, m.column.receivers.shape) for m in members}
        assert len(widths) == 3
        stacked = stack(members)
        assert isinstance(stacked, Directed)
        assert stacked.n == 24
        x = loops.rows(24, 2)
        mixed = jax.jit(jax.vmap(lambda w: (w.row @ x, w.column @ x)))(stacked)
        for i, g in enumerate(graphs_):
            np.testing.assert_allclose(mixed[0][i], loops.row_stochastic(g) @ x, rtol=1e-13)
            np.testing.assert_allclose(mixed[1][i], loops.column_stochastic(g) @ x, rtol=1e-13)

    @pytest.mark.slow
    def test_pushes_of_other_widths(self):
        members = [networks.column_stochastic(digraph(24, a, a)) for a in (2, 12)]
        hub = networks.column_stochastic(DIGRAPHS["hub"])
        stacked = stack(members)
        assert isinstance(stacked, Pushes)
        x = loops.rows(24, 2)
        mixed = loops.jit(jax.vmap(lambda w: w @ x))(stacked)
        for i, one in enumerate(members):
            single = jax.tree.map(lambda leaf, i=i: leaf[i], stacked)
            np.testing.assert_allclose(mixed[i], one.csr() @ x, rtol=1e-13)
            np.testing.assert_allclose(single.csr().toarray(), one.csr().toarray(), atol=1e-15)
        both = stack([hub, networks.column_stochastic(digraph(70, 9, 0))])
        assert isinstance(both, Dense)  # a hub, and few agents
        np.testing.assert_allclose(both.weights[0], hub.csr().toarray(), atol=1e-15)

    def test_other_kinds_are_refused(self):
        row, column = NETWORKS["row"], NETWORKS["column"]
        with pytest.raises(
            ValueError, match="column and row stochastic cannot be stacked"
        ) as error:
            stack([row, column])
        assert loops.one_sentence(error)
        with pytest.raises(ValueError, match="kinds Dense, Directed differ in structure") as error:
            stack([row, NETWORKS["push-pull"]])
        assert loops.one_sentence(error)

    def test_servers_have_nothing_to_stack(self):
        assert stack([networks.Server(4)]).n == 4
        dataset = jd.compare(
            {"GD": jd.GradientDescent(0.1)}, jd.problems.quadratic(4, 2), networks.Server(4),
            over={"stepsize": [0.1]}, steps=2, progress=False,
        )  # fmt: skip
        assert dataset["gap"].shape == (1, 1, 1, 1, 3)

    def test_the_time_of_every_part_is_dropped(self):
        network = networks.push_pull(DIGRAPHS["sparse"])
        stacked = stack([network, network.at(3, KEY)])
        assert stacked.k is None
        assert stacked.column.k is None


class TestServer:
    def test_averages_over_a_link_up_and_one_down(self):
        server = networks.Server(6)
        x = loops.rows(6, 2)
        np.testing.assert_allclose(server.mean(x), np.asarray(x).mean(axis=0), rtol=1e-15)
        assert (server.link_count, server.symmetric, server.at(3, KEY).time) == (12, True, 3)

    def test_is_no_complete_graph(self):
        """Its clients do not hear each other: what mixes is refused."""
        server = networks.Server(6)
        for name in ("laplacian", "row", "column", "links", "matrix", "spectral_gap"):
            assert not hasattr(server, name)
        with pytest.raises(ValueError, match=r"needs doubly stochastic weights .* this Server"):
            _ = server @ loops.rows(6, 2)

    def test_has_neither_links_nor_weights_to_give_back(self):
        server = networks.Server(6)
        assert not server.cuttable
        with pytest.raises(ValueError, match="the same links both ways in every round"):
            _ = server.links
        with pytest.raises(ValueError, match="links of this Server cannot be cut"):
            networks.Asleep(server, 0.5)


class TestTransformations:
    @pytest.mark.parametrize("name", [n for n in NETWORKS if n != "repeated rows"])
    def test_pytrees(self, name):
        network = NETWORKS[name]
        leaves, treedef = jax.tree.flatten(network)
        again = jax.tree.unflatten(treedef, leaves)
        assert type(again) is type(network)
        assert again.n == network.n
        assert hash(treedef) == hash(jax.tree.structure(again))
        jax.tree.map(lambda _: None, network)
        jax.tree.map(lambda _: "odd", network)

    @pytest.mark.parametrize("form", [Pushes, Dense])
    def test_gradient_in_x_is_the_transpose(self, form):
        W = loops.column_stochastic(DIGRAPHS["sparse"])
        network = mixing(W, kind="column", form=form)
        x, probe = loops.rows(24, 2), loops.rows(24, 2, seed=1)
        pulled = jax.jit(jax.grad(lambda x: jnp.vdot(probe, network @ x)))(x)
        # the dense form takes the sum's rounding off all: its derivative is W's but for a zero
        np.testing.assert_allclose(pulled, W.T @ np.asarray(probe), rtol=1e-12, atol=1e-13)

    def test_gradient_of_both_parts_weights_against_differences(self):
        network = networks.push_pull(DIGRAPHS["sparse"])
        x, probe = loops.rows(24, 2), loops.rows(24, 2, seed=1)
        weights, structure = jax.tree.flatten(network)
        floating = [jnp.issubdtype(w.dtype, jnp.floating) for w in weights]

        @jax.jit
        @jax.value_and_grad
        def function(numbers):
            it = iter(numbers)
            leaves = [next(it) if f else w for w, f in zip(weights, floating, strict=True)]
            now = jax.tree.unflatten(structure, leaves)
            return jnp.sum(probe * jnp.sin(now.row @ (now.column @ x)))

        numbers = [w for w, f in zip(weights, floating, strict=True) if f]
        random = np.random.default_rng(0)
        direction = [jnp.asarray(random.standard_normal(w.shape)) for w in numbers]
        gradient = function(numbers)[1]
        ahead, back = (
            function([w + s * 1e-5 * d for w, d in zip(numbers, direction, strict=True)])[0]
            for s in (1, -1)
        )
        slope = float(ahead - back) / 2e-5
        found = sum(float(jnp.vdot(g, d)) for g, d in zip(gradient, direction, strict=True))
        assert found == pytest.approx(slope, rel=1e-6)
        assert abs(slope) > 1e-3

    def test_one_program_for_all_rounds(self):
        network = networks.push_pull(DIGRAPHS["dense"])

        @jax.jit
        @chex.assert_max_traces(n=1)
        def step(network, k, x):
            now = network.at(k, KEY)
            return now.row @ x + now.column @ x + now.time

        x = loops.rows(9, 1)
        for k in range(3):
            np.testing.assert_allclose(step(network, k, x) - k, step(network, 0, x), rtol=1e-14)


@pytest.mark.slow
class TestLarge:
    def test_a_column_stochastic_network_of_many_agents(self):
        n = 100_000
        random = np.random.default_rng(0)
        me, order = np.arange(n), random.permutation(n)
        senders = np.concatenate([me, me, order, me])
        receivers = np.concatenate([(me + 1) % n, (me + 17) % n, np.roll(order, 1), me // 7])
        edges = sp.coo_array((np.ones(4 * n), (senders, receivers)), shape=(n, n))
        began = time.process_time()
        network = networks.column_stochastic(edges)
        assert isinstance(network, Pushes)
        x = jnp.asarray(random.standard_normal((n, 1)))
        after = loops.apply(network, x)
        assert time.process_time() - began < 20
        assert float(after.sum()) == pytest.approx(float(x.sum()), abs=1e-9)
        assert loops.apply(network, jnp.ones((n, 1))).min() < 0.9
        pattern = network.csr()
        assert pattern.nnz == int(network.link_count) + n
        np.testing.assert_allclose(after, pattern @ np.asarray(x), atol=1e-13)


BAD: dict[str, tuple] = {
    "own parents in a cycle": (lambda: Tree([0, 2, 1]), r"parent has a cycle: agent \[1\] never"),
    "two roots": (lambda: Tree([0, 1, 0]), r"parent has 2 roots \[0, 1\]; give exactly one"),
    "no root": (lambda: Tree([1, 0]), r"parent has 0 roots"),
    "parent outside": (lambda: Tree([0, 5]), r"parent names agent \[5\]; give agents 0 to 1"),
    "negative parent": (lambda: Tree([0, -1]), r"parent names agent \[-1\]; give agents 0 to 1"),
    "parents that are floats": (lambda: Tree([0.0, 0.0]), r"array of float64\[2\]; give every"),
    "no parents": (lambda: Tree(np.zeros(0, int)), r"array of int64\[0\]; give every agent's"),
    "push of another root": (lambda: Tree([0, 0], [1, 1]), r"root 0, push 2 and root 1; give two"),
    "push of another n": (lambda: Tree([0, 0], [0, 0, 0]), "parent has 2 agents .* push 3"),
    "push in a cycle": (lambda: Tree([0, 0, 0], [0, 2, 1]), "push has a cycle"),
    "root outside": (lambda: networks.spanning_tree(graphs.ring(4), 4), "root is 4; give one of"),
    "root a float": (lambda: networks.spanning_tree(graphs.ring(4), 1.0), "root is 1.0; give one"),  # type: ignore[arg-type]
    "b-ary tree of nobody": (lambda: networks.bary_tree(0, 2), "n is 0; give the number of agents"),
    "b-ary tree without branches": (
        lambda: networks.bary_tree(4, 0), "branching is 0; give the most children that an agent has"
    ),
    "b-ary tree of half a branch": (
        lambda: networks.bary_tree(4, 1.5), "branching is 1.5; give the most"  # type: ignore[arg-type]
    ),
    "tree of pieces": (lambda: networks.spanning_tree(np.eye(3)), "the graph is disconnected"),
    "push_pull of a path": (
        lambda: networks.push_pull(nx.DiGraph([(0, 1), (1, 2)])), "the graph is disconnected: 3"
    ),
    "row_stochastic of a path": (
        lambda: networks.row_stochastic(nx.DiGraph([(0, 1)])), "the graph is disconnected: 2"
    ),
    "parts the wrong way round": (
        lambda: Directed(NETWORKS["column"], NETWORKS["row"]),
        "row is a Dense whose weights are column stochastic; give jd.networks.row_stochastic",
    ),
    "a part that is an array": (
        lambda: Directed(np.eye(3), np.eye(3)), "a ndarray is given where a network is wanted"
    ),
    "a part with two parts": (
        lambda: Directed(NETWORKS["push-pull"], NETWORKS["column"]), "row is a Directed whose"
    ),
    "parts of different n": (
        lambda: Directed(NETWORKS["row"], networks.column_stochastic(graphs.ring(5))),
        "row is for 9 agents and column for 5; give both the same",
    ),
    "rows that do not sum to 1": (
        lambda: mixing([[0.5, 0.4], [0.5, 0.5]], kind="row"),
        "row 0 of W sums to 0.9; the rows of a row-stochastic matrix sum to 1, as .*row_stochastic",
    ),
    "columns that do not sum to 1": (
        lambda: mixing([[0.5, 0.5], [0.5, 0.4]], kind="column"),
        "column 1 of W sums to 0.9; the columns of a column-stochastic",
    ),
    "nobody heard by all": (
        lambda: mixing(np.eye(3), kind="row"), "disconnected: no agent is heard by all others"
    ),
    "nobody hears all": (
        lambda: mixing(np.eye(3), kind="column"), "disconnected: no agent hears all others"
    ),
    "kind unknown": (lambda: mixing(np.eye(2), kind="rows"), "kind is 'rows'; give 'doubly', "),  # type: ignore[arg-type]
    "kind unhashable": (lambda: mixing(np.eye(2), kind=["row"]), r"kind is \['row'\]; give"),  # type: ignore[arg-type]
    "dense of a kind": (lambda: Dense(np.eye(2), kind="rows"), "kind is 'rows'; give 'doubly'"),
    "neighbors of a column": (
        lambda: mixing(loops.column_stochastic(DIGRAPHS["dense"]), kind="column", form=Neighbors),
        "the matrix is column-stochastic; use the form Pushes",
    ),
    "pushes of rows": (
        lambda: mixing(loops.row_stochastic(DIGRAPHS["dense"]), kind="row", form=Pushes),
        "Pushes is for column-stochastic weights; use Neighbors",
    ),
    "circulant of rows": (
        lambda: mixing(loops.row_stochastic(graphs.ring(8)), kind="row", form=networks.Circulant),
        "Circulant is for doubly stochastic weights and kind is 'row'; use Dense",
    ),
    "periodic rows": (
        lambda: mixing(np.roll(np.eye(4), 1, axis=1), kind="row"), "W does not average: .*modulus 1"
    ),
    "a cut of a directed doubly stochastic one": (
        lambda: networks.metropolis(graphs.directed_ring(5)).cut(lambda i, j: i < j),
        "links of this Circulant cannot be cut, as nothing would keep the sums",
    ),
    "a tree's cut": (
        lambda: networks.spanning_tree(graphs.ring(5)).cut(lambda i, j: i < j),
        "links of this FromParent cannot be cut",
    ),
    "half_degree of a digraph": (
        lambda: networks.half_degree(graphs.directed_ring(4)), "the graph is directed; these "
    ),
    "a server of nobody": (lambda: networks.Server(0), "n is 0; give an integer of at least 1"),
    "complete of nobody": (lambda: Complete(0), "n is 0; give an integer of at least 1"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_mistakes_are_told_in_one_sentence(name):
    call, match = BAD[name]
    with pytest.raises(ValueError, match=match) as error:
        call()
    assert loops.one_sentence(error), str(error.value)


def test_contraction_of_directed_networks_is_the_second_eigenvalue():
    for network, W in (
        (NETWORKS["row"], loops.row_stochastic(DIGRAPHS["dense"])),
        (NETWORKS["column"], loops.column_stochastic(DIGRAPHS["dense"])),
        (NETWORKS["push-pull"], loops.row_stochastic(DIGRAPHS["dense"])),
    ):
        second = np.sort(np.abs(np.linalg.eigvals(W)))[-2]
        assert networks.contraction(network, KEY) == pytest.approx(second, rel=0.01)
    assert networks.contraction(NETWORKS["tree"], KEY) == 0  # all have the root's value
    assert networks.contraction(networks.Complete(5)) == 0


def test_every_agent_hears_along_the_arcs():
    """Whatever the scheme, a unit vector at u reaches v in one round if and only if u -> v."""
    graph: Any = nx.DiGraph([(0, 1), (1, 2), (2, 0), (0, 3), (3, 0)])
    for build in (networks.row_stochastic, networks.column_stochastic):
        W = np.asarray(build(graph).matrix())
        for u, v in itertools.permutations(range(4), 2):
            assert (W[v, u] != 0) == graph.has_edge(u, v)
    assert math.isclose(networks.row_stochastic(graph).matrix()[0, 2], 1 / 3)
    assert math.isclose(networks.column_stochastic(graph).matrix()[1, 0], 1 / 3)
