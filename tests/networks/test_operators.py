"""The operators against NumPy W @ x: dtypes, trees, transformations, drift, links."""

import functools
from typing import Any

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
from jaxdopt.networks import Circulant, Complete, Dense, Neighbors, Pushes, mixing

FORMS = (Dense, Neighbors, Circulant, Complete)
DTYPES = {"bfloat16": 2.0**-8, "float32": 2.0**-24, "float64": 2.0**-53}  # unit roundoffs


def doubly_stochastic(graph, laziness=0.0):
    """Return Metropolis weights of a connected graph in NumPy, by two loops."""
    n = len(graph)
    W = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            if i != j and graph.has_edge(j, i):
                W[i, j] = (1 - laziness) / (1 + max(graph.degree[i], graph.degree[j]))
        W[i, i] = 1 - W[i].sum()
    return W


def circulant(n, weights):
    """Return W with w_{i, i + o} = weights[o], the rest on the diagonal, by loops."""
    W = np.zeros((n, n))
    for i in range(n):
        for offset, weight in weights.items():
            W[i, (i + offset) % n] += weight
        W[i, i] += 1 - W[i].sum()
    return W


def examples():
    """Return W and its operator in each form, symmetric and not."""
    er = doubly_stochastic(graphs.erdos_renyi(9, 0.35, seed=2))
    exponential = circulant(9, {1: 0.3, 2: 0.2, 4: 0.1})
    return {
        "Dense": (er, mixing(er, form=Dense)),
        "Neighbors": (er, mixing(er, form=Neighbors)),
        "Circulant": (W := circulant(9, {1: 0.2, 8: 0.2, 3: 0.1, 6: 0.1}), mixing(W)),
        "Complete": (np.full((9, 9), 1 / 9), Complete(9)),
        "directed Dense": (exponential, mixing(exponential, form=Dense)),
        "directed Neighbors": (exponential, mixing(exponential, form=Neighbors)),
        "directed Circulant": (exponential, mixing(exponential, form=Circulant)),
        "tiers": (star := doubly_stochastic(graphs.star(22)), mixing(star, form=Neighbors)),
    }


EXAMPLES = examples()
every_form = pytest.mark.parametrize("name", EXAMPLES)
undirected = pytest.mark.parametrize("name", [name for name in EXAMPLES if "directed" not in name])


@jax.jit
def apply(network, x):
    return network @ x


@jax.jit
def links_of(network):
    return network.links


@jax.jit
def both(network, x):
    return network @ x, network.laplacian(x)


def rows(n, *shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal((n, *shape)) + 1.0)


def test_the_examples_are_of_their_forms():
    for name, (W, network) in EXAMPLES.items():
        assert type(network).__name__ == {"tiers": "Neighbors"}.get(name, name.split()[-1])
        assert network.symmetric is np.array_equal(W, W.T)
        assert network.n == len(W)
    assert EXAMPLES["tiers"][1].tiers


class TestProducts:
    @given(
        form=st.sampled_from(FORMS),
        n=st.sampled_from([3, 6]),
        scale=st.sampled_from([1e-3, 1.0, 1e3]),
        seed=st.integers(0, 2**16),
    )
    @settings(max_examples=24, deadline=None, derandomize=True)
    def test_equal_numpy_on_trees_of_all_dtypes(self, form, n, scale, seed):
        random = np.random.default_rng(seed)
        if form is Complete:
            W = np.full((n, n), 1 / n)
        elif form is Circulant:
            one, two = random.uniform(0.05, 0.3, 2)
            W = circulant(n, {1: one, n - 1: two})
        else:
            graph = nx.random_labeled_tree(n, seed=seed)
            graph.add_edges_from(random.integers(n, size=(n // 2, 2)).tolist())
            graph.remove_edges_from(list(nx.selfloop_edges(graph)))
            W = doubly_stochastic(graph, laziness=random.uniform(0, 0.5))
        network = mixing(W, form=form)

        def leaf(dtype, shape):
            values = scale * (random.standard_normal((n, *shape)) + random.normal())
            return jnp.asarray(values, dtype)

        trailing = [(), (3,), (2, 3)] if n == 3 else [(2, 3), (), (3,)]
        one, two, three = (leaf(*pair) for pair in zip(DTYPES, trailing, strict=True))
        x = {"a": (one, None), "b": [{"inner": two}, three]}
        mixed, pulled = both(network, x)
        assert jax.tree.structure(mixed) == jax.tree.structure(x) == jax.tree.structure(pulled)
        for before, after, away in zip(*map(jax.tree.leaves, (x, mixed, pulled)), strict=True):
            assert before.dtype == after.dtype == away.dtype
            assert before.shape == after.shape == away.shape
            exact = np.asarray(before, np.float64)
            expected = np.einsum("ij,j...->i...", W, exact)
            unit, largest = DTYPES[str(before.dtype)], np.abs(exact).max()
            inner = min(unit, DTYPES["float32"])  # sums run in at least float32
            error = np.abs(np.asarray(after, np.float64) - expected)
            assert error.max() <= unit * np.abs(expected).max() + 16 * inner * largest
            error = np.abs(np.asarray(away, np.float64) - (exact - expected))
            assert error.max() <= unit * np.abs(exact - expected).max() + 16 * inner * largest

    @every_form
    def test_laplacian_sums_to_zero_and_is_zero_at_consensus(self, name):
        W, network = EXAMPLES[name]
        n = len(W)
        x = [(rows(n, 4) + 100).astype(dtype) for dtype in (jnp.float32, jnp.float64)]
        for before, away in zip(x, both(network, x)[1], strict=True):
            total = np.asarray(away, np.float64).sum(axis=0)
            spread = np.abs(np.asarray(before) - np.asarray(before).mean(axis=0)).max()
            assert np.abs(total).max() <= 2 * n * jnp.finfo(before.dtype).eps * spread
        # at consensus differences vanish: no rounding at all, whatever the row sums round to
        same = jnp.broadcast_to(jnp.float32(np.pi), (n, 4)) * jnp.float32([1, 1e-3, 1e3, -7])
        x = [same, same.astype(jnp.float64)]
        mixed, pulled = both(network, x)
        for before, after, away in zip(x, mixed, pulled, strict=True):
            if not isinstance(network, Dense):  # the dense form goes through the mean
                assert np.array_equal(before, after)
                assert not np.any(away)
            np.testing.assert_allclose(before, after, rtol=2e-7)

    @every_form
    def test_integers_are_mixed_as_floats(self, name):
        W, network = EXAMPLES[name]
        x = np.arange(2 * len(W)).reshape(-1, 2)
        mixed = apply(network, jnp.asarray(x, jnp.int32))
        assert jnp.issubdtype(mixed.dtype, jnp.floating)
        near = loops.rounding(W, x.astype(mixed.dtype))
        np.testing.assert_allclose(mixed, W @ x, rtol=0, atol=near)

    def test_float32_weights_with_float64_estimates_and_back(self):
        W, _ = EXAMPLES["Dense"]
        for form in (Dense, Neighbors):
            network = jax.tree.map(
                lambda leaf: leaf.astype(jnp.float32) if leaf.dtype == jnp.float64 else leaf,
                mixing(W, form=form),
            )
            x = rows(9, 2)
            mixed = apply(network, x)
            assert mixed.dtype == jnp.float64
            # float32's weights are off by half a unit, and differences of x by twice its size
            near = float(jnp.finfo(jnp.float32).eps * jnp.abs(x).max())
            np.testing.assert_allclose(mixed, W @ np.asarray(x), rtol=0, atol=near)
            np.testing.assert_allclose(mixed.mean(axis=0), x.mean(axis=0), rtol=1e-14)

    @pytest.mark.usefixtures("float32")
    @every_form
    def test_users_of_float32_get_float32(self, name):
        W, _ = EXAMPLES[name]
        network = mixing(W, form=type(EXAMPLES[name][1]))
        x = np.asarray(np.random.default_rng(0).standard_normal((len(W), 2)), np.float32)
        mixed = apply(network, x)
        assert mixed.dtype == jnp.float32
        np.testing.assert_allclose(mixed, W @ x, rtol=2e-5, atol=1e-6)

    def test_mean_is_a_servers_average(self):
        _, network = EXAMPLES["Neighbors"]
        tree = {"a": rows(9, 2), "b": rows(9, seed=1)}
        mean, near = network.mean(tree), loops.rounding(np.full((9, 9), 1 / 9), tree["a"])
        expected = np.asarray(tree["a"]).mean(axis=0)
        np.testing.assert_allclose(mean["a"], expected, rtol=0, atol=near)
        assert mean["b"].shape == ()


DRIFT = {
    "Circulant": networks.metropolis(graphs.ring(16)),
    "directed Circulant": networks.metropolis(graphs.directed_ring(16)),
    "Neighbors": mixing(doubly_stochastic(graphs.erdos_renyi(16, 0.3)), form=Neighbors),
    "Dense": mixing(doubly_stochastic(graphs.erdos_renyi(16, 0.3)), form=Dense),
    "Complete": Complete(16),
}


@jax.jit
def rounds(network, x, forcing):
    """Return x after 10,000 rounds of gossip with the forcing added in each."""
    return jax.lax.scan(lambda x, _: (network @ x + forcing, None), x, length=10_000)[0]


@jax.jit
def naive_rounds(W, x):
    return jax.lax.scan(lambda x, _: (W @ x, None), x, length=10_000)[0]


class TestDrift:
    """10,000 rounds in float32; x is 3 + noise, so that a drift of a sum is seen."""

    @staticmethod
    def moved(after, before):
        before, after = (np.asarray(a, np.float64).mean(axis=0) for a in (before, after))
        return np.max(np.abs(after - before) / np.abs(before))

    @staticmethod
    def start(n):
        return (rows(n, 6) + 2).astype(jnp.float32)

    @staticmethod
    def forcing(n, size):
        """A disagreement whose float32 entries sum to zero exactly: pairs of opposite agents."""
        half = np.random.default_rng(1).standard_normal((n // 2, 6)).astype(np.float32)
        return jnp.asarray(size * np.concatenate([half, -half[::-1]]), jnp.float32)

    @pytest.mark.parametrize("size", [0.0, 1e-3, 1e-1])
    @pytest.mark.parametrize("name", DRIFT)
    def test_the_mean_stays(self, name, size):
        network = DRIFT[name]
        assert type(network).__name__ == name.split()[-1]
        forcing = self.forcing(16, size)
        assert not np.any(np.asarray(forcing, np.float64).sum(axis=0))
        after = rounds(network, self.start(16), forcing)
        if size:  # the agents do go on disagreeing
            assert np.ptp(np.asarray(after), axis=0).min() > size / 2
        assert self.moved(after, self.start(16)) < (5e-6 if size else 5e-7)

    def test_hubs_in_tiers_keep_it_too(self):
        network = mixing(doubly_stochastic(graphs.star(40)), form=Neighbors)
        after = rounds(network, self.start(40), jnp.zeros((40, 6), jnp.float32))
        assert self.moved(after, self.start(40)) < 1e-6

    def test_a_plain_product_drifts_where_the_operators_do_not(self):
        W = doubly_stochastic(graphs.path(16), laziness=0.5)
        x = self.start(16)
        assert self.moved(naive_rounds(jnp.asarray(W, jnp.float32), x), x) > 2e-5
        for form in (Dense, Neighbors):
            after = rounds(mixing(W, form=form), x, jnp.zeros_like(x))
            assert self.moved(after, x) < 2e-6


class TestTransformations:
    @pytest.mark.parametrize("name", ["Dense", "Neighbors", "Circulant", "Complete"])
    def test_jit_and_eager_agree(self, name):
        W, network = EXAMPLES[name]
        x = rows(network.n, 2)
        near = loops.rounding(W, x)
        np.testing.assert_allclose(network @ x, apply(network, x), rtol=0, atol=near)

    @every_form
    def test_one_program_for_other_weights(self, name):
        W, network = EXAMPLES[name]
        traces = []

        @jax.jit
        def counted(network, x):
            traces.append(1)
            return network @ x

        x = rows(network.n, 2)
        other = network if isinstance(network, Complete) else lazier(network)
        counted(network, x)
        mixed = counted(other, x)
        assert len(traces) == 1
        if other is not network:
            expected = (W @ np.asarray(x) + np.asarray(x)) / 2
            np.testing.assert_allclose(mixed, expected, rtol=0, atol=loops.rounding(W, x))

    @every_form
    def test_vmap_over_weights(self, name):
        W, network = EXAMPLES[name]
        if isinstance(network, Complete):
            pair = [network.at(k, jax.random.key(0)) for k in (0, 1)]
            matrices = [W, W]
        else:
            pair = [network, lazier(network)]
            matrices = [W, (W + np.eye(len(W))) / 2]
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *pair)
        x = rows(network.n, 2)
        both_at_once = jax.jit(jax.vmap(lambda network, x: network @ x, in_axes=(0, None)))
        for mixed, matrix in zip(both_at_once(stacked, x), matrices, strict=True):
            expected, near = matrix @ np.asarray(x), loops.rounding(matrix, x)
            np.testing.assert_allclose(mixed, expected, rtol=0, atol=near)

    @pytest.mark.parametrize("name", [name for name in EXAMPLES if name != "Complete"])
    def test_gradient_in_the_weights_against_differences(self, name):
        _, network = EXAMPLES[name]
        x, probe = rows(network.n, 2), rows(network.n, 2, seed=1)

        @jax.jit
        @jax.value_and_grad
        def function(weights):
            mixed = jd.replace(network, weights=weights) @ x
            return jnp.sum(probe * jnp.sin(mixed))

        random = np.random.default_rng(3)
        direction = jnp.asarray(random.standard_normal(network.weights.shape))
        weights, step = network.weights, 1e-5
        gradient = function(weights)[1]
        ahead, back = (function(weights + sign * step * direction)[0] for sign in (1, -1))
        slope = float((ahead - back) / (2 * step))
        assert float(jnp.vdot(gradient, direction)) == pytest.approx(slope, rel=1e-7)
        assert abs(slope) > 1e-3

    @every_form
    def test_gradient_in_x_is_the_transpose(self, name):
        W, network = EXAMPLES[name]
        x, probe = rows(network.n, 2), rows(network.n, 2, seed=1)
        pulled = jax.jit(jax.grad(lambda x: jnp.vdot(probe, network @ x)))(x)
        np.testing.assert_allclose(pulled, W.T @ np.asarray(probe), rtol=1e-12, atol=1e-13)


def lazier(network):
    """Return (I + W) / 2 by halving what is heard; the dense diagonal too."""
    if isinstance(network, Dense):
        return jd.replace(network, weights=(network.weights + jnp.eye(network.n)) / 2)
    tiers = tuple((a, i, w / 2) for a, i, w in getattr(network, "tiers", ()))
    changes = {"tiers": tiers} if tiers else {}
    return jd.replace(network, weights=network.weights / 2, **changes)


class TestTime:
    @every_form
    def test_at_sets_it_and_changes_nothing_else(self, name):
        _, network = EXAMPLES[name]
        with pytest.raises(ValueError, match=r"pass network\.at\(k, key\) to step"):
            _ = network.time
        now = network.at(7, jax.random.key(0))
        assert now.k == now.time == 7
        assert network.k is None
        for before, after in zip(
            jax.tree.leaves(network), jax.tree.leaves(jd.replace(now, k=None)), strict=True
        ):
            assert before is after

    @every_form
    def test_the_time_may_be_traced(self, name):
        _, network = EXAMPLES[name]
        times = jax.lax.map(lambda k: network.at(k, None).time, jnp.arange(3))
        assert times.tolist() == [0, 1, 2]

    @every_form
    def test_nobody_sleeps_and_both_parts_are_w(self, name):
        _, network = EXAMPLES[name]
        assert network.active is None
        assert network.row is network
        assert network.column is network


class TestDiagonals:
    def test_are_those_of_the_matrices(self):
        links = np.eye(22) + np.roll(np.eye(22), 1, axis=0)
        links[0] = links[:, 0] = 1  # a hub, for tiers
        push = links / links.sum(axis=0)
        pushes = [mixing(push, kind="column", form=form) for form in (Dense, Pushes)]
        for network in [network for _, network in EXAMPLES.values()] + pushes:
            np.testing.assert_allclose(network.diagonal, np.diag(network.matrix()), atol=1e-15)
        assert pushes[1].given_tiers
        np.testing.assert_allclose(networks.Tree([0, 0, 1]).column.diagonal, [1, 0, 0])


class TestLinks:
    @every_form
    def test_count_is_the_number_of_nonzero_weights(self, name):
        W, network = EXAMPLES[name]
        assert int(network.link_count) == np.count_nonzero(W - np.diag(np.diag(W)))
        assert int(jax.jit(lambda network: network.link_count)(network)) == network.link_count

    @pytest.mark.parametrize("name", ["Dense", "Neighbors", "Circulant", "Complete"])
    def test_what_arrives_is_what_the_neighbor_put_in_my_slot(self, name):
        W, network = EXAMPLES[name]
        links = jax.tree.map(np.asarray, links_of(network))
        n, slots = links.sender.shape
        assert links.reverse.shape == links.present.shape == (n, slots)
        assert links.present.dtype == bool
        heard = {
            (i, int(links.sender[i, s])) for i, s in zip(*links.present.nonzero(), strict=True)
        }
        assert heard == {(i, j) for i in range(n) for j in range(n) if i != j and W[i, j] != 0}
        assert len(heard) == links.present.sum()  # no neighbor has two slots
        # every agent writes its own name and its neighbor's into the slot of that neighbor
        message = np.stack(np.broadcast_arrays(np.arange(n)[:, None], links.sender), axis=-1)
        arrived = message[links.sender, links.reverse]
        for i, s in zip(*links.present.nonzero(), strict=True):
            assert arrived[i, s].tolist() == [links.sender[i, s], i]
        assert np.all(links.present[links.sender, links.reverse][links.present])

    @pytest.mark.parametrize("name", ["Dense", "Neighbors", "Circulant", "Complete"])
    def test_links_carry_the_mixing(self, name):
        """W x from edge variables alone: x_i + sum over slots of w (what arrived - x_i)."""
        W, network = EXAMPLES[name]
        links = jax.tree.map(np.asarray, links_of(network))
        x = np.asarray(rows(network.n, 2))
        sent = np.broadcast_to(x[:, None], (*links.sender.shape, 2))
        arrived = sent[links.sender, links.reverse]
        weight = W[np.arange(network.n)[:, None], links.sender] * links.present
        mixed = x + np.sum(weight[:, :, None] * (arrived - x[:, None]), axis=1)
        np.testing.assert_allclose(mixed, W @ np.asarray(x), rtol=1e-13)

    def test_even_ring_offset_opposite_to_itself(self):
        network = mixing(circulant(8, {4: 0.25, 1: 0.1, 7: 0.1}))
        assert isinstance(network, Circulant)
        links = network.links
        message = np.asarray(links.sender)  # to whom each slot speaks
        arrived = message[np.asarray(links.sender), np.asarray(links.reverse)]
        assert np.array_equal(arrived, np.broadcast_to(np.arange(8)[:, None], arrived.shape))

    def test_of_stacked_tables_mark_the_padding(self):
        n = 520
        pair = [networks.metropolis(g) for g in (graphs.ring(n), graphs.torus(20, 26))]
        links = jax.jit(jax.vmap(lambda network: network.links))(networks.stack(pair))
        present = np.asarray(links.present)
        assert present.sum(axis=(1, 2)).tolist() == [2 * n, 4 * n]
        for sender, reverse, here in zip(links.sender, links.reverse, present, strict=True):
            back = np.asarray(sender)[np.asarray(sender), np.asarray(reverse)]
            assert np.array_equal(
                back[here], np.broadcast_to(np.arange(n)[:, None], here.shape)[here]
            )

    @pytest.mark.parametrize(
        "name", ["directed Dense", "directed Neighbors", "directed Circulant", "tiers"]
    )
    def test_refuse_where_they_are_not_tabulated(self, name):
        with pytest.raises(ValueError, match=r"links (need|are tabulated)"):
            _ = EXAMPLES[name][1].links


class TestConstruction:
    def test_dense_finds_out_its_symmetry(self):
        er, exponential = EXAMPLES["Dense"][0], EXAMPLES["directed Dense"][0]
        assert Dense(er).symmetric is True
        assert Dense(exponential).symmetric is False
        with pytest.raises(ValueError, match=r"Dense\(weights, symmetric=True or False\)"):
            jax.jit(lambda W: Dense(W) @ jnp.ones((9, 1)))(er)
        mixed = jax.jit(lambda W, x: Dense(W, symmetric=True) @ x)(er, rows(9, 1))
        np.testing.assert_allclose(mixed, er @ np.asarray(rows(9, 1)), rtol=1e-14)

    def test_dense_refuses_other_shapes(self):
        with pytest.raises(ValueError, match=r"weights has shape \(2, 3\); give a square matrix"):
            Dense(np.ones((2, 3)))

    @every_form
    def test_matrix_is_w(self, name):
        W, network = EXAMPLES[name]
        np.testing.assert_allclose(jax.jit(lambda w: w.matrix())(network), W, atol=1e-15)

    @every_form
    def test_estimates_of_another_number_of_agents_are_refused(self, name):
        network = EXAMPLES[name][1]
        for x in (jnp.ones((5, 2)), jnp.ones((1, network.n)), jnp.ones(())):
            with pytest.raises(ValueError, match=rf"shape .* the network {network.n} agents"):
                _ = network @ x
            with pytest.raises(ValueError, match=r"give \[n, \.\.\.\]"):
                network.laplacian({"leaf": x})

    @pytest.mark.parametrize("form", FORMS)
    def test_works_for_one_agent(self, form):
        network = mixing(np.ones((1, 1)), form=form)
        x = jnp.array([[2.0, -1.0]])
        mixed, pulled = both(network, x)
        assert np.array_equal(mixed, x)
        assert not np.any(pulled)
        assert network.spectral_gap == 1
        assert network.eigenvalues.tolist() == [1]
        assert int(network.link_count) == 0
        if form is not Neighbors:
            assert not np.any(links_of(network).present)

    def test_links_of_one_agent_in_a_table(self):
        assert not np.any(links_of(mixing(np.ones((1, 1)), form=Neighbors)).present)


def test_operators_are_pytrees_with_static_structure():
    for _, network in EXAMPLES.values():
        leaves, treedef = jax.tree.flatten(network)
        again = jax.tree.unflatten(treedef, leaves)
        assert type(again) is type(network)
        assert again.symmetric == network.symmetric
        assert hash(treedef) == hash(jax.tree.structure(again))
        jax.tree.map(lambda _: None, network)
        jax.tree.map(lambda _: "odd", network)
    partial = functools.partial(jax.tree.map, lambda leaf: leaf + 0)
    assert jax.tree.structure(partial(EXAMPLES["tiers"][1])).num_leaves == 5


# Base graphs whose relabelings have tables of one shape: few programs for many cases.
UNDIRECTED = {
    "sparse": nx.Graph([*nx.cycle_graph(24).edges, (0, 7), (3, 15), (3, 20), (9, 11)]),
    "hub": nx.Graph([*nx.star_graph(69).edges, *nx.path_graph(range(1, 30)).edges]),
}
DIRECTED = {
    "sparse": nx.DiGraph([*nx.cycle_graph(24, nx.DiGraph).edges, (0, 7), (7, 3), (3, 20), (9, 3)]),
    "hub": nx.DiGraph(
        [*((i, (i + 1) % 70) for i in range(70)), *((0, i) for i in range(2, 40, 2)),
         *((i, 0) for i in range(3, 65))]
    ),
}  # fmt: skip


def random_weights(graph, kind, random):
    """Return random weights on the links of a graph, negative ones too, by double loops."""
    n = len(graph)
    if kind == "doubly" and graph.is_directed():  # mixtures of permutations (Birkhoff)
        shares = random.dirichlet(np.ones(4))
        order = random.permutation(n)
        W = shares[0] * np.eye(n)
        for share, hop in zip(shares[1:], (1, 3, 7), strict=True):
            for position in range(n):
                W[order[position], order[(position + hop) % n]] += share
        return W
    value = {}
    most = max(len(loops.heard_by(graph, i)) for i in range(n))
    for i in range(n):
        for j in range(n):
            if loops.hears(graph, i, j):
                shared = (min(i, j), max(i, j)) if kind == "doubly" else (i, j)
                bound = 1 / (1 + len(loops.heard_by(graph, i)))
                if kind == "column":
                    bound = 1 / (1 + len(loops.hearers_of(graph, j)))
                value.setdefault(shared, random.uniform(0.1, 1) * bound)
                if kind == "doubly":
                    value[shared] = min(value[shared], 1 / (1 + most))
    return loops.fill(
        graph,
        lambda i, j: value[(min(i, j), max(i, j)) if kind == "doubly" else (i, j)],
        kind,
    )


KINDS = {"doubly": UNDIRECTED, "directed": DIRECTED, "row": DIRECTED, "column": DIRECTED}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.slow
def test_hundreds_of_random_matrices_agree_with_scipy(kind):
    """Products, matrices, links and spectra of every form, on relabeled graphs with own weights."""
    random = np.random.default_rng(len(kind))
    sums = "doubly" if kind == "directed" else kind
    cases = 0
    for name, base in KINDS[kind].items():
        sparse_form = Pushes if kind == "column" else Neighbors
        for case in range(30 if name == "sparse" else 12):
            graph = loops.relabeled(base, random)
            W = random_weights(graph, sums, random)
            exact = sp.csr_array(W)
            n = len(W)
            x = {"a": 3 * random.standard_normal(n), "b": (random.standard_normal((n, 2)) + 1,)}
            narrow = jax.tree.map(lambda leaf: leaf.astype(np.float32), x)
            expected = jax.tree.map(lambda leaf, W=exact: W @ leaf, x)
            values = np.linalg.eigvals(W)
            for form in (sparse_form, Dense):
                given = (W, sp.coo_array(W), jnp.asarray(W))[case % 3]
                network = mixing(given, kind=sums, form=form)
                assert (type(network), network.kind) == (form, sums)
                assert bool(network.symmetric) == (kind == "doubly")
                mixed, pulled, matrix, count = loops.everything(network, (x, narrow))
                for after, away, before, wanted, unit in zip(
                    *map(jax.tree.leaves, (mixed, pulled, (x, narrow), (expected, expected))),
                    (1e-14, 1e-14, 2e-6, 2e-6), strict=True,
                ):  # fmt: skip
                    assert after.dtype == away.dtype == before.dtype
                    scale = 3 * np.abs(before).max()
                    assert np.abs(after - wanted).max() < unit * scale
                    assert np.abs(away - (before - wanted)).max() < unit * scale
                assert np.abs(np.asarray(matrix) - W).max() < 1e-15
                assert np.abs(network.csr() - exact).max() < 1e-15
                assert int(count) == exact.nnz - np.count_nonzero(W.diagonal())
                if case % 3 == 0:
                    assert loops.distance(network.eigenvalues, values) < 1e-6
                    second = np.sort(np.abs(values))[-2]
                    assert network.spectral_gap == pytest.approx(1 - second, abs=1e-7)
                cases += 1
    assert cases == 84


def test_links_hear_and_swap_as_loops():
    graph = loops.relabeled(UNDIRECTED["sparse"], np.random.default_rng(0))
    W = loops.metropolis(graph)
    x = np.asarray(rows(24, 2))
    for form in (Neighbors, Dense):
        links = links_of(mixing(W, form=form))
        sender, present = np.asarray(links.sender), np.asarray(links.present)
        edges = np.asarray(rows(*sender.shape, 2, seed=1))
        heard = np.asarray(jax.jit(lambda links, x: links.hear(x))(links, x))
        swap: Any = jax.jit(lambda links, edges: links.swap(edges))
        swapped = np.asarray(swap(links, edges))
        slot = {(i, sender[i, s]): s for i, s in zip(*present.nonzero(), strict=True)}
        assert len(slot) == 2 * graph.number_of_edges()
        for (i, j), s in slot.items():
            assert np.array_equal(heard[i, s], x[j])
            assert np.array_equal(swapped[i, s], edges[j, slot[j, i]])
        twice = np.asarray(swap(links, swapped))
        assert np.array_equal(twice[present], edges[present])
        assert links.degree.tolist() == [graph.degree[i] for i in range(24)]


def test_a_cut_keeps_who_is_awake():
    awake = jnp.arange(9) % 2 == 0
    for network in (Circulant(jnp.array([0.3, 0.3]), (1, 8), 9), Complete(9), EXAMPLES["Dense"][1]):
        assert network.awake(awake).cut(lambda i, j: i + j > 3).active is awake


@pytest.mark.parametrize("count", [1, 2, 3, 7, 20])
def test_circulants_of_any_number_of_offsets(count):
    random = np.random.default_rng(0)
    offsets = np.append(random.choice(np.arange(2, 40), count - 1, replace=False), 1)
    matrix = np.zeros((40, 40))
    for weight, offset in zip(random.dirichlet(np.ones(count)) / 2, offsets, strict=True):
        matrix += weight * np.roll(np.eye(40), offset, axis=1)
    matrix += np.eye(40) * (1 - matrix[0].sum())
    circulant = networks.mixing(matrix, form=networks.Circulant)
    for shape in ((40,), (40, 3)):
        x = random.standard_normal(shape)
        np.testing.assert_allclose(apply(circulant, x), matrix @ x, atol=1e-14)


def test_a_table_all_of_whose_agents_have_more_neighbors_than_slots():
    table = networks.mixing(
        networks.metropolis(graphs.regular(40, 20)).csr(), form=networks.Neighbors
    )
    matrix, x = (
        np.asarray(jax.jit(lambda w: w.matrix())(table)),
        np.random.default_rng(0).standard_normal((40, 3)),
    )
    assert len(table.tiers[0][0]) == 40
    assert np.all((matrix > 0).sum(axis=1) == 21)
    np.testing.assert_allclose(apply(table, x), matrix @ x, atol=1e-14)

    @jax.jit
    @functools.partial(jax.value_and_grad, allow_int=True)
    def square(tiers):
        return jnp.sum((jd.replace(table, tiers=tiers) @ x) ** 2)

    (_, index, weights), *_ = table.tiers
    value, pulled = square(table.tiers)
    slope, moved = pulled[0][2], np.array(weights)
    moved[3, 1] += 1e-6
    ahead = square(((table.tiers[0][0], index, jnp.asarray(moved)),))[0]
    finite = (ahead - value) / 1e-6
    np.testing.assert_allclose(slope[3, 1], finite, rtol=1e-4)
