"""Graphs as networkx objects, of which agent i is the i-th node; any networkx graph will do."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import networkx as nx
import numpy as np
import scipy.sparse as sp

from jaxdopt._checks import count, require

ATTEMPTS = 100  # draws of a random graph before giving up on a connected one
MANY = 10_000  # agents from which on random regular graphs are drawn by array operations


class Graph(nx.Graph):
    """A graph known by its links alone, [m, 2], until networkx's dictionaries are asked for.

    These take minutes and gigabytes for a million agents, and no network needs them: see
    `jaxdopt.networks.connectivity.adjacency`. Once they are there the links are forgotten, as
    whoever has the dictionaries may change them.

    Args:
        n: the number of agents, 0 ... n - 1.
        links: [m, 2] int: each link once, no loops; None for none.
        attributes: of the graph, as networkx takes them.
    """

    def __init__(self, n: int = 0, links: Any = None, **attributes: Any) -> None:
        super().__init__(**attributes)
        vars(self)["_node"].update((i, {}) for i in range(n))
        self.links = links

    @property
    def _adj(self) -> dict[Any, Any]:  # type: ignore[override]
        links, known = vars(self).pop("links", None), vars(self)["_adj"]
        if links is not None:
            known.update((node, {}) for node in vars(self)["_node"])
            self.add_edges_from(links.tolist())
        return known

    @_adj.setter
    def _adj(self, value: dict[Any, Any]) -> None:
        nx.Graph.__dict__["_adj"].__set__(self, value)


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
    return Graph(count("n", n), np.stack(np.triu_indices(n, 1), axis=1))


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
    """Return a connected random graph of n agents with ``degree`` neighbors each, by the seed.

    It is networkx's up to 10,000 agents, or where the degree is above n / 4. Larger ones are drawn
    as a random pairing of n · degree ends, in which loops and double links are switched with random
    other links until there are none (a million agents of degree 6 in seconds).
    """
    count("n", n)
    require(
        isinstance(degree, int | np.integer) and 0 <= degree < n and n * degree % 2 == 0,
        f"degree is {degree} for n = {n}; give an integer below n with n * degree even.",
    )
    remedy = "raise degree to 3 or more"
    if n <= MANY or 4 * degree > n:
        return _connected(lambda s: nx.random_regular_graph(degree, n, seed=s), seed, remedy)
    links = _connected(lambda s: _paired(n, degree, s), seed, remedy, partial(_joins, n))
    return Graph(n, links)


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


def _clean(graph: Any) -> Any:
    graph.remove_edges_from(list(nx.selfloop_edges(graph)))
    return graph


def _integers(graph: nx.Graph) -> nx.Graph:
    positions = {i: (column, -row) for i, (row, column) in enumerate(graph)}
    graph = _clean(nx.convert_node_labels_to_integers(graph))
    nx.set_node_attributes(graph, positions, "pos")
    return graph


def _connected(
    draw: Callable[[int], Any],
    seed: int,
    remedy: str,
    joins: Callable[[Any], Any] = nx.is_connected,
) -> Any:
    for attempt in range(ATTEMPTS):
        graph = draw(seed + 1_000_003 * attempt)
        if joins(graph):
            return graph
    raise ValueError(f"{ATTEMPTS} draws of the graph were all disconnected; {remedy}.")


def _paired(n: int, degree: int, seed: int) -> np.ndarray:
    """Return the links [n degree / 2, 2] of a random regular graph: a pairing of all ends."""
    random = np.random.default_rng(seed)
    links = random.permutation(np.repeat(np.arange(n), degree)).reshape(-1, 2)
    while True:
        low, high = links.min(axis=1), links.max(axis=1)
        _, first = np.unique(low * n + high, return_index=True)
        bad = np.ones(len(links), bool)
        bad[first] = False
        bad = np.flatnonzero(bad | (low == high))  # double links but one, and loops
        if not bad.size:
            return links
        others = random.choice(len(links), bad.size, replace=False)
        apart = ~np.isin(others, bad)  # switch a - b, c - d to a - d, c - b, each link once
        links[bad[apart], 1], links[others[apart], 1] = (
            links[others[apart], 1],
            links[bad[apart], 1],
        )


def _joins(n: int, links: np.ndarray) -> bool:
    """Return whether links [m, 2] connect n agents."""
    pattern = sp.coo_array((np.ones(len(links), bool), links.T), shape=(n, n))
    return sp.csgraph.connected_components(pattern, directed=False)[0] == 1
