"""Graphs as networkx objects, of which agent i is the i-th node; any networkx graph will do."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import networkx as nx
import numpy as np
import scipy.sparse as sp
from scipy.sparse import csgraph

from jaxdopt._checks import count, require
from jaxdopt._leaves import is_traced

ATTEMPTS = 100  # draws of a random graph before giving up on a connected one


def ring(n: int) -> nx.Graph:
    """Return the cycle i - i + 1 mod n."""
    return _clean(nx.cycle_graph(count("n", n)))


def directed_ring(n: int) -> nx.DiGraph:
    """Return the directed cycle i -> i + 1 mod n."""
    return _clean(nx.cycle_graph(count("n", n), create_using=nx.DiGraph))


def path(n: int) -> nx.Graph:
    """Return the path 0 - 1 - ... - n - 1."""
    return nx.path_graph(count("n", n))


def star(n: int) -> nx.Graph:
    """Return the star of n agents with agent 0 at its center."""
    return nx.star_graph(count("n", n) - 1)


def complete(n: int) -> nx.Graph:
    """Return the graph in which all n agents are neighbors."""
    return nx.complete_graph(count("n", n))


def grid(rows: int, columns: int) -> nx.Graph:
    """Return the rows x columns grid, agent r * columns + c in row r and column c."""
    return _integers(nx.grid_2d_graph(count("rows", rows), count("columns", columns)))


def torus(rows: int, columns: int) -> nx.Graph:
    """Return the rows x columns grid whose rows and columns wrap around."""
    return _integers(
        nx.grid_2d_graph(count("rows", rows), count("columns", columns), periodic=True)
    )


def hypercube(dimension: int) -> nx.Graph:
    """Return the hypercube of 2^dimension agents, neighbors if their numbers differ in one bit."""
    n = 2 ** count("dimension", dimension, 0, "an integer of at least 0")
    graph = nx.empty_graph(n)
    bits = [2**h for h in range(dimension)]
    graph.add_edges_from((i, i ^ bit) for bit in bits for i in range(n) if not i & bit)
    return graph


def tree(n: int, branching: int = 2) -> nx.Graph:
    """Return the tree of n agents in which agent i has the children B i + 1 ... B i + B.

    B is the branching. `jd.networks.spanning_tree` makes a network of it, with values going down
    and sums going up.
    """
    branching = count("branching", branching)
    graph = nx.empty_graph(count("n", n))
    graph.add_edges_from(((i - 1) // branching, i) for i in range(1, n))
    return graph


def exponential(n: int, *, directed: bool = False) -> nx.Graph:
    """Return the static exponential graph, i -> i + 2ʰ mod n for h = 0 ... ⌊log₂(n − 1)⌋.

    It is undirected by default, as exact diffusion and EXTRA require, and with ``directed=True`` as
    in Ying et al. (2021), arXiv 2110.13363.
    """
    graph = nx.DiGraph() if directed else nx.Graph()
    graph.add_nodes_from(range(count("n", n)))
    hops = [2**h for h in range((n - 1).bit_length())]
    graph.add_edges_from((i, (i + hop) % n) for hop in hops if hop < n for i in range(n))
    return _clean(graph)


def regular(n: int, degree: int, *, seed: int = 0) -> nx.Graph:
    """Return a connected random graph of n agents with ``degree`` neighbors each, by the seed."""
    count("n", n)
    require(
        isinstance(degree, int | np.integer) and 0 <= degree < n and n * degree % 2 == 0,
        f"degree is {degree} for n = {n}; give an integer below n with n * degree even.",
    )
    return _connected(
        lambda s: nx.random_regular_graph(degree, n, seed=s), seed, "raise degree to 3 or more"
    )


def watts_strogatz(n: int, degree: int, probability: float, *, seed: int = 0) -> nx.Graph:
    """Return a connected small world: a ring of ``degree`` neighbors, each link rewired at random.

    Every link of the n agents is rewired with the given probability, by the seed: 0 leaves the ring
    lattice, 1 is nearly an Erdos-Renyi graph. Source: Watts, Strogatz (1998).
    """
    count("n", n)
    require(
        isinstance(degree, int | np.integer) and 2 <= degree < n and degree % 2 == 0,
        f"degree is {degree} for n = {n}; give an even integer from 2 to n - 1, and n = 3 or more.",
    )
    require(0 <= probability <= 1, f"probability is {probability}; give one between 0 and 1.")
    return _connected(
        lambda s: nx.watts_strogatz_graph(n, degree, probability, seed=s),
        seed,
        "raise degree or lower probability",
    )


def erdos_renyi(n: int, probability: float, *, seed: int = 0) -> nx.Graph:
    """Return a connected Erdos-Renyi graph: each pair is linked with the given probability.

    Disconnected draws (from the seed) are discarded; for a probability above ln(n) / n most are
    connected.
    """
    count("n", n)
    require(0 <= probability <= 1, f"probability is {probability}; give one between 0 and 1.")
    return _connected(
        lambda s: (
            nx.fast_gnp_random_graph(n, probability, seed=s)
            if probability < 1
            else nx.complete_graph(n)
        ),
        seed,
        f"raise probability above ln(n) / n = {math.log(n) / n:.3g}",
    )


def random_geometric(n: int, radius: float | None = None, *, seed: int = 0) -> nx.Graph:
    """Return a connected random geometric graph: points in the unit square, linked within a radius.

    ``radius`` defaults to √(2 ln n / n), for which most draws (from the seed) are connected. The
    points are the nodes' ``pos`` attribute.
    """
    count("n", n)
    radius = math.sqrt(2 * math.log(max(n, 2)) / n) if radius is None else radius
    require(radius > 0, f"radius is {radius}; give a positive one.")
    return _connected(lambda s: nx.random_geometric_graph(n, radius, seed=s), seed, "raise radius")


def adjacencies(graphs: Iterable[Any]) -> list[sp.csr_array]:
    """Return the `adjacency` of several graphs of the same agents, in the first one's node order.

    Raises:
        ValueError: a networkx graph that has as many nodes as the first, but not the same.
    """
    graphs = list(graphs)
    first = next((list(graph) for graph in graphs if isinstance(graph, nx.Graph)), [])
    return [adjacency(graph, first) for graph in graphs]


def adjacency(graph: Any, nodes: Sequence[Any] = ()) -> sp.csr_array:
    """Return the [n, n] boolean adjacency matrix, entry (i, j) true if i hears j, no self-loops.

    ``graph`` is a networkx graph, or an adjacency matrix as a NumPy, JAX or scipy.sparse array
    whose entry (i, j) is the number of edges i -> j; several count as one, and the diagonal is
    ignored. So are the attributes of a networkx graph, weights included. ``nodes`` is the order of
    a networkx graph's nodes, used if it has as many; otherwise the graph's own order is.

    Raises:
        ValueError: an array that is not square, or one of weights, which would be lost.
    """
    if isinstance(graph, nx.Graph):
        require(len(graph) > 0, "the graph has no nodes; give one with at least one agent.")
        order = list(nodes) if len(nodes) == len(graph) else list(graph)
        other = list(set(graph) - set(order))
        require(
            not other,
            f"a graph has the node {other[:1]} and the first graph has not; give all the same.",
        )
        matrix = nx.to_scipy_sparse_array(graph, order, dtype=float, weight="", format="coo")
    else:
        if is_traced(graph):
            raise ValueError("the graph is traced; make a network of it outside of the function.")
        require(
            not hasattr(graph, "at") or isinstance(graph, jax.Array),
            f"the graph is a {type(graph).__name__}, a network; give a networkx graph or a square "
            "adjacency matrix.",
        )
        matrix = graph if sp.issparse(graph) else np.asarray(graph)
        require(
            matrix.ndim == 2 and matrix.shape[0] == matrix.shape[1] > 0,
            f"the graph is an array of shape {matrix.shape}; give a networkx graph or a square "
            "adjacency matrix.",
        )
        matrix = sp.coo_array(matrix)
        require(
            np.all(np.isfinite(matrix.data)),
            "the adjacency matrix has entries that are NaN or infinite; remove them.",
        )
        off = matrix.data[matrix.row != matrix.col]
        others = off[(off < 0) | (off % 1 != 0)]
        require(
            others.size == 0,
            f"the adjacency matrix has the entry {others[:1].tolist()}, which is no number of "
            "edges; give A != 0 for its links alone, or jd.networks.mixing(W) to mix with these "
            "weights.",
        )
    edge = (matrix.row != matrix.col) & (matrix.data != 0)
    hears, heard = matrix.col[edge], matrix.row[edge]
    pattern = sp.csr_array((np.ones(len(hears)), (hears, heard)), shape=matrix.shape)
    pattern.sum_duplicates()
    return pattern.astype(bool)


def is_periodic(pattern: Any) -> bool:
    """Return whether all cycles of a strongly connected pattern share a factor above 1."""
    matrix = sp.coo_array(pattern)
    graph = nx.DiGraph(zip(matrix.row.tolist(), matrix.col.tolist(), strict=True))
    return not nx.is_aperiodic(graph)


def keeps_pushing(weights: sp.csr_array) -> bool:
    """Return whether push-sum weights stay positive on a column-stochastic matrix.

    They do if its graph is strongly connected and its diagonal positive.
    """
    strong = csgraph.connected_components(weights, directed=True, connection="strong")[0] == 1
    return bool(strong and np.all(weights.diagonal() > 0))


def _clean(graph: Any) -> Any:
    graph.remove_edges_from(list(nx.selfloop_edges(graph)))
    return graph


def _integers(graph: nx.Graph) -> nx.Graph:
    positions = {i: (column, -row) for i, (row, column) in enumerate(graph)}
    graph = _clean(nx.convert_node_labels_to_integers(graph))
    nx.set_node_attributes(graph, positions, "pos")
    return graph


def _connected(draw: Callable[[int], nx.Graph], seed: int, remedy: str) -> nx.Graph:
    for attempt in range(ATTEMPTS):
        graph = draw(seed + 1_000_003 * attempt)
        if nx.is_connected(graph):
            return graph
    raise ValueError(f"{ATTEMPTS} draws of the graph were all disconnected; {remedy}.")


def require_connected(pattern: sp.csr_array) -> None:
    """Refuse a pattern in which some agents do not reach each other."""
    count, component = csgraph.connected_components(pattern, directed=True, connection="strong")
    outside = int(np.argmax(component != component[0]))
    require(
        count == 1,
        f"the graph is disconnected: {count} components, and agent {outside} and agent 0 do not "
        "reach each other; add links, or run the components as problems of their own.",
    )


def common_root(heard: sp.csr_array, pushed: sp.csr_array) -> bool:
    """Return whether an agent reaches all others along ``heard``, and is reached along ``pushed``.

    In both patterns ways may lead through other agents.
    """
    return bool(np.any(reaching(heard) & reaching(sp.csr_array(pushed.T))))


def reaching(heard: sp.csr_array) -> np.ndarray:
    """Return [n] bool: the agents whose values reach all others, where j is ``heard`` by i."""
    count, component = csgraph.connected_components(heard, directed=True, connection="strong")
    edges = heard.tocoo()
    hears_others = np.zeros(count, bool)
    outside = component[edges.row] != component[edges.col]
    hears_others[component[edges.row[outside]]] = True
    closed = np.flatnonzero(~hears_others)
    return component == closed[0] if len(closed) == 1 else np.zeros(heard.shape[0], bool)
