"""What is refused when networks are built or changed by hand, and that nothing is under tracing."""

from typing import Any

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest

import jaxdopt as jd
from jaxdopt import networks
from jaxdopt.networks import Circulant, Complete, Dense, Links, Neighbors

N = 40
GRAPH: Any = jd.graphs.ring(6)
RING: Any = networks.metropolis(GRAPH)
TABLE: Any = networks.mixing(
    networks.metropolis(jd.graphs.regular(N, 4, seed=1)).csr(), form=Neighbors
)
HUB: Any = networks.mixing(networks.metropolis(jd.graphs.star(N)).csr(), form=Neighbors)
PUSHES: Any = networks.column_stochastic(jd.graphs.directed_ring(N))
LINKS = RING.links
W = np.asarray(RING.matrix())
LAZY_SHIFT = (np.eye(4) + np.roll(np.eye(4), 1, axis=0)) / 2


def the_first(index, value):
    return index.at[0, 0].set(value)


OPERATORS = {
    "ones": (lambda: Dense(np.ones((4, 4))), "row 0 of W sums to 4; the rows and columns"),
    "a column": (
        lambda: Dense(np.array([[0.5, 0.5], [0.0, 1.0]])),
        "column 0 of W sums to 0.5; the rows and columns",
    ),
    "rows": (lambda: Dense(LAZY_SHIFT * 2, kind="row"), "row 0 of W sums to 2; the rows of a row"),
    "columns": (lambda: Dense(2 * LAZY_SHIFT, kind="column"), "column 0 of W sums to 2"),
    "dense NaN": (lambda: Dense(W * np.nan), "36 entries that are not finite"),
    "complex": (lambda: Dense(W + 0.1j), "W has dtype complex128; give real numbers"),
    "complex mixing": (lambda: networks.mixing(W + 0.1j), "W has dtype complex128; give real"),
    "said to be symmetric": (
        lambda: Dense(LAZY_SHIFT, symmetric=True),
        "symmetric is True and W is not symmetric; give symmetric=False",
    ),
    "replaced ones": (lambda: jd.replace(Dense(W), weights=jnp.ones((6, 6))), "sums to 6"),
    "an agent too many": (
        lambda: Neighbors(the_first(TABLE.index, N), TABLE.weights),
        rf"index has the number \[{N}\]; give numbers from 0 to {N - 1}",
    ),
    "a negative agent": (
        lambda: jd.replace(TABLE, index=the_first(TABLE.index, -1)),
        rf"index has the number \[-1\]; give numbers from 0 to {N - 1}",
    ),
    "numbers that are no integers": (
        lambda: Neighbors(TABLE.index * 1.0, TABLE.weights),
        r"index is an array of float64\[40, 4\]; give integers",
    ),
    "a matrix in a table": (
        lambda: jd.replace(TABLE, weights=TABLE.matrix()),
        r"weights has shape \(40, 40\) and index \(40, 4\); give one weight a slot",
    ),
    "a table's sums": (
        lambda: jd.replace(TABLE, weights=TABLE.weights.at[0].multiply(2)),
        r"column \d+ of W sums to",
    ),
    "a table that is directed": (
        lambda: Neighbors((jnp.arange(N)[:, None] + 1) % N, jnp.full((N, 1), 0.5)),
        "symmetric is True and W is not symmetric",
    ),
    "a table's kind": (
        lambda: jd.replace(TABLE, kind="column"),
        "kind is 'column'; give 'doubly' or 'row', or take Pushes",
    ),
    "a hub": (
        lambda: jd.replace(HUB, tiers=tuple((a + N, i, w) for a, i, w in HUB.tiers)),
        rf"an agent of tiers has the number \[{N}\]",
    ),
    "a hub's weights": (
        lambda: jd.replace(HUB, tiers=tuple((a, i, w[:, 1:]) for a, i, w in HUB.tiers)),
        "weights has shape",
    ),
    "one table of pushes": (
        lambda: jd.replace(PUSHES, weights=PUSHES.weights / 2),
        "index and weights say another W than receivers and given",
    ),
    "receivers": (
        lambda: jd.replace(PUSHES, receivers=PUSHES.receivers + N),
        "receivers has the number",
    ),
    "offset 0": (
        lambda: Circulant(jnp.array([0.2, 0.2]), (0, 1), 6),
        r"offsets is \(0, 1\) and n 6; give different integers from 1 to 5",
    ),
    "offset n": (lambda: Circulant(jnp.array([0.2, 0.2]), (6, 1), 6), "from 1 to 5"),
    "an offset twice": (lambda: Circulant(jnp.array([0.2, 0.2]), (1, 1), 6), "give different"),
    "a weight too few": (
        lambda: Circulant(jnp.array([0.2]), (1, 5), 6),
        r"weights has shape \(1,\) and there are 2 offsets; give one weight an offset",
    ),
    "weights that sum to 2": (
        lambda: Circulant(jnp.array([1.0, 1.0]), (1, 5), 6),
        "the weights sum to 2 and W has an eigenvalue of modulus 3, so that it does not average",
    ),
    "a directed circulant": (
        lambda: Circulant(jnp.array([0.3]), (1,), 6),
        "symmetric is True and W is not symmetric",
    ),
    "a matrix in a circulant": (lambda: jd.replace(RING, weights=W), "there are 2 offsets"),
    "nobody": (lambda: jd.replace(Complete(4), n=0), "n is 0; give an integer of at least 1"),
    "links of different shapes": (
        lambda: Links(LINKS.sender, LINKS.reverse, LINKS.present[0], LINKS.degree),
        r"present \(2,\); give all as \[n, slots\]",
    ),
    "links from nowhere": (
        lambda: jd.replace(LINKS, sender=LINKS.sender + 6),
        "sender has the number",
    ),
    "links that lead elsewhere": (
        lambda: jd.replace(LINKS, reverse=1 - LINKS.reverse),
        "reverse names a slot at the sender that belongs to another agent",
    ),
}


def anything(value: Any) -> Any:
    return value  # of a type that a user gets wrong


WANTED = "a Graph is given where a network is wanted; give one with weights, such as jd.networks"
GRAPHS = {
    "Cyclic": (lambda: networks.Cyclic([GRAPH, GRAPH]), WANTED),
    "Cyclic of one": (lambda: networks.Cyclic(RING), "networks is a Circulant; give a list"),
    "Cyclic of a graph": (
        lambda: networks.Cyclic(anything(GRAPH)),
        "networks is a Graph; give a list",
    ),
    "stack": (lambda: networks.stack([RING, GRAPH]), WANTED),
    "Repeated": (lambda: networks.Repeated(GRAPH, 2), WANTED),
    "Chebyshev": (lambda: networks.Chebyshev(GRAPH, 2), WANTED),
    "timed": (lambda: networks.timed(GRAPH), WANTED),
    "timed list": (lambda: networks.timed([RING]), "a list is given where a network is wanted"),
    "pairwise": (lambda: networks.pairwise(GRAPH, steps=3), WANTED),
    "timeline": (lambda: networks.timeline(GRAPH, steps=3), "this is a Graph; give weights on one"),
    "RandomLinks": (lambda: networks.RandomLinks(GRAPH, 0.5), WANTED),
    "Asleep": (lambda: networks.Asleep(GRAPH, 0.5), WANTED),
    "Directed": (lambda: networks.Directed(GRAPH, GRAPH), WANTED),
    "contraction": (lambda: networks.contraction(GRAPH), WANTED),
    "mixing": (lambda: networks.mixing(GRAPH), "W is a Graph; give jd.networks.metropolis"),
    "Tree": (lambda: networks.Tree(GRAPH), "parent is a Graph; give jd.networks.spanning_tree"),
    "metropolis of a network": (
        lambda: networks.metropolis(RING),
        "the graph is a Circulant, a network; give a networkx graph",
    ),
}
KEPT = (
    r"entry \[0\.33\d*\], which is no number of edges; give A != 0 .* or jd\.networks\.mixing\(W\)"
)
SCHEMES = {
    "metropolis": networks.metropolis,
    "lazy_metropolis": networks.lazy_metropolis,
    "fastest_mixing": networks.fastest_mixing,
    "half_degree": networks.half_degree,
    "laplacian": networks.laplacian,
    "row_stochastic": networks.row_stochastic,
    "column_stochastic": networks.column_stochastic,
    "push_pull": networks.push_pull,
    "spanning_tree": networks.spanning_tree,
    "RandomMatching": networks.RandomMatching,
    "trace": lambda graph: networks.sequence([graph, graph]),
}
REFUSED = OPERATORS | GRAPHS | {name: (lambda f=f: f(W), KEPT) for name, f in SCHEMES.items()}


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_in_one_sentence(name):
    build, words = REFUSED[name]
    with pytest.raises(ValueError, match=words) as caught:
        build()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", SCHEMES)
def test_zeros_and_ones_are_links_and_a_graphs_attributes_are_not_looked_at(name):
    karate = nx.karate_club_graph()
    plain = nx.to_numpy_array(karate, weight="")
    pairs = [SCHEMES[name](graph) for graph in (karate, plain, plain.astype(bool))]
    first, *others = (jax.tree.leaves(made) for made in pairs)
    for leaves in others:
        jax.tree.map(np.testing.assert_array_equal, first, leaves)


def test_mixing_of_a_traced_matrix_says_what_to_use():
    x = jnp.arange(6.0)[:, None]
    with pytest.raises(ValueError, match=r"W is traced.* Dense\(W, symmetric=.* jd\.replace"):
        jax.jit(lambda W: networks.mixing(W) @ x)(W)
    with pytest.raises(ValueError, match="the graph is traced; make a network of it outside"):
        jax.jit(lambda A: networks.metropolis(A) @ x)(W != 0)
    dense = jax.jit(lambda W: Dense(W, symmetric=True) @ x)(W)
    changed = jax.jit(lambda weights: jd.replace(RING, weights=weights) @ x)(RING.weights)
    np.testing.assert_allclose(dense, W @ np.asarray(x), rtol=1e-12)
    np.testing.assert_allclose(changed, W @ np.asarray(x), rtol=1e-12)


def test_shapes_are_checked_of_traced_weights_and_numbers_are_not():
    x = jnp.ones((N, 1))
    several = jnp.stack([TABLE.weights, 2 * TABLE.weights])
    jax.vmap(lambda weights: jd.replace(TABLE, weights=weights) @ x)(several)
    with pytest.raises(ValueError, match="give one weight a slot"):
        jax.vmap(lambda weights: jd.replace(TABLE, weights=weights) @ x)(TABLE.matrix()[None])


@pytest.mark.parametrize("network", [RING, TABLE, HUB, PUSHES, Dense(W), Complete(4)])
def test_checks_trace_nothing(network):
    def rebuilt(leaves):
        made = jax.tree.unflatten(jax.tree.structure(network), leaves)
        return jax.tree.leaves(jd.replace(made, **vars(made)))

    assert not jax.make_jaxpr(rebuilt)(jax.tree.leaves(network)).eqns


def test_weights_that_are_right_pass_in_every_precision():
    for dtype in (jnp.float32, jnp.float64):
        for network in (TABLE, HUB, PUSHES, RING, Dense(W)):
            leaves = {name: value for name, value in vars(network).items() if value is not None}
            cast = jax.tree.map(
                lambda leaf: leaf.astype(dtype) if leaf.dtype == jnp.float64 else leaf,  # noqa: B023
                network,
            )
            kept = jd.replace(cast, **{name: getattr(cast, name) for name in leaves})
            np.testing.assert_allclose(kept.matrix(), network.matrix(), atol=1e-6)
    negative = Circulant(jnp.array([0.4, 0.4, -0.05, -0.05]), (1, 5, 2, 4), 6)
    assert np.abs(negative.eigenvalues).max() <= 1 + 1e-12
