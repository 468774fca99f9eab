"""Random digraphs whose weights are far from doubly stochastic, for studies of directed methods."""

from typing import Any

import jax.numpy as jnp
import networkx as nx
import numpy as np

import jaxdopt as jd

GAP = 0.2  # smallest spectral gap of a graph that is taken
IMBALANCE = 2.0  # smallest ratio of the largest to the smallest entry of the Perron vectors


def digraph(n: int, seed: int) -> nx.DiGraph:
    """Return a directed ring in random order with 0 to n / 2 further arcs out of every agent."""
    random = np.random.default_rng(seed)
    graph = nx.DiGraph()
    graph.add_nodes_from(range(n))
    order = random.permutation(n).tolist()
    graph.add_edges_from(zip(order, order[1:] + order[:1], strict=True))
    for agent in range(n):
        others = [i for i in range(n) if i != agent]
        heard_by = random.choice(others, size=random.integers(0, n // 2 + 1), replace=False)
        graph.add_edges_from((agent, int(other)) for other in heard_by)
    return graph


def networks(n: int, count: int, seed: int = 0) -> dict[str, Any]:
    """Return the first random digraphs with gaps and imbalances as large as `GAP`, `IMBALANCE`."""
    made: dict[str, Any] = {}
    draw = 1000 * seed
    while len(made) < count:
        network = dense(jd.networks.push_pull(digraph(n, draw)))
        skewed = min(imbalance(perron(network, part)) for part in ("row", "column"))
        if network.spectral_gap >= GAP and skewed >= IMBALANCE:
            made[f"digraph {len(made) + 1}"] = network
        draw += 1
    return made


def dense(network: Any, **fields: Any) -> Any:
    """Return a network's two parts as dense matrices: one form, and so one program, for all."""
    for name in ("row", "column"):
        part = getattr(network, name)
        matrix = jnp.asarray(part.csr().toarray())
        fields[name] = jd.networks.Dense(matrix, symmetric=False, kind=part.kind)
    return jd.replace(network, **fields)


def perron(network: Any, part: str) -> np.ndarray:
    """Return the Perron vector, summing to 1: the left one of R, or the right one of C."""
    limit = np.linalg.matrix_power(getattr(network, part).csr().toarray(), 2**12)
    return limit[0] if part == "row" else limit[:, 0]


def imbalance(weights: np.ndarray) -> float:
    """Return the largest weight over the smallest; 1 if the matrix is doubly stochastic."""
    return float(weights.max() / weights.min())
