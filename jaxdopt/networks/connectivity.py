"""Who hears whom: adjacency matrices of graphs, and who reaches whom along their edges.

networkx is imported where it is needed, as it takes long to load.
"""

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np
import scipy.sparse as sp

from jaxdopt._checks import require
from jaxdopt._leaves import is_traced


def adjacencies(graphs: Iterable[Any]) -> list[sp.csr_array]:
    """Return the `adjacency` of several graphs of the same agents, in the first one's node order.

    Raises:
        ValueError: a networkx graph that has as many nodes as the first, but not the same.
    """
    import networkx as nx

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
    import networkx as nx

    if isinstance(graph, nx.Graph):
        require(len(graph) > 0, "the graph has no nodes; give one with at least one agent.")
        order = list(nodes) if len(nodes) == len(graph) else list(graph)
        other = list(set(graph) - set(order))
        require(
            not other,
            f"a graph has the node {other[:1]} and the first graph has not; give all the same.",
        )
        matrix = _pattern(graph, order)
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


def _pattern(graph: Any, order: Sequence[Any]) -> sp.coo_array:
    """Return a networkx graph's adjacency matrix; several times as fast as networkx's own."""
    n, links = len(order), vars(graph).get("links")
    if links is not None and order == list(range(n)):  # of `graphs.Graph`
        hears, heard = np.concatenate([links, links[:, ::-1]]).T
    else:
        number = {node: i for i, node in enumerate(order)}
        around = [graph._adj[node] for node in order]
        hears = np.repeat(np.arange(n), np.fromiter(map(len, around), int, n))
        others = itertools.chain.from_iterable(around)
        heard = np.fromiter(map(number.__getitem__, others), int, len(hears))
    return sp.coo_array((np.ones(len(hears)), (hears, heard)), shape=(n, n))


def is_periodic(pattern: Any) -> bool:
    """Return whether all cycles of a strongly connected pattern share a factor above 1."""
    import networkx as nx

    matrix = sp.coo_array(pattern)
    graph = nx.DiGraph(zip(matrix.row.tolist(), matrix.col.tolist(), strict=True))
    return not nx.is_aperiodic(graph)


def keeps_pushing(weights: sp.csr_array) -> bool:
    """Return whether push-sum weights stay positive on a column-stochastic matrix.

    They do if its graph is strongly connected and its diagonal positive.
    """
    strong = sp.csgraph.connected_components(weights, directed=True, connection="strong")[0] == 1
    return bool(strong and np.all(weights.diagonal() > 0))


def require_connected(pattern: sp.csr_array) -> None:
    """Refuse a pattern in which some agents do not reach each other."""
    count, component = sp.csgraph.connected_components(pattern, directed=True, connection="strong")
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
    count, component = sp.csgraph.connected_components(heard, directed=True, connection="strong")
    edges = heard.tocoo()
    hears_others = np.zeros(count, bool)
    outside = component[edges.row] != component[edges.col]
    hears_others[component[edges.row[outside]]] = True
    closed = np.flatnonzero(~hears_others)
    return component == closed[0] if len(closed) == 1 else np.zeros(heard.shape[0], bool)
