"""Matrices of weights as double loops over networkx graphs, and what tests do with matrices.

Entry (i, j) is what i puts on what it hears from j; an arc u -> v means that v hears u.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
from scipy.optimize import linear_sum_assignment

# programs of tests run once: what costs is compiling them
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def hears(graph: Any, i: int, j: int) -> bool:
    return i != j and graph.has_edge(j, i)


def heard_by(graph: Any, i: int) -> list[int]:
    """Return whom agent i hears."""
    return [j for j in graph if hears(graph, i, j)]


def hearers_of(graph: Any, j: int) -> list[int]:
    """Return who hears agent j."""
    return [i for i in graph if hears(graph, i, j)]


def fill(graph: Any, weight: Any, kind: str = "doubly") -> np.ndarray:
    """Return W with ``weight(i, j)`` on the links and on the diagonal what is left to 1."""
    n = len(graph)
    W = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            if hears(graph, i, j):
                W[i, j] = weight(i, j)
    for i in range(n):
        W[i, i] = 1 - (W[:, i] if kind == "column" else W[i]).sum()
    return W


def metropolis(graph: Any) -> np.ndarray:
    degree = [len(heard_by(graph, i)) for i in range(len(graph))]
    return fill(graph, lambda i, j: 1 / (1 + max(degree[i], degree[j])))


def lazy_metropolis(graph: Any) -> np.ndarray:
    return (np.eye(len(graph)) + metropolis(graph)) / 2


def row_stochastic(graph: Any) -> np.ndarray:
    return fill(graph, lambda i, j: 1 / (1 + len(heard_by(graph, i))), "row")


def column_stochastic(graph: Any) -> np.ndarray:
    return fill(graph, lambda i, j: 1 / (1 + len(hearers_of(graph, j))), "column")


def half_degree(graph: Any, self_loops: bool = False, lazy: bool = True) -> np.ndarray:
    degree = [len(heard_by(graph, i)) + self_loops for i in range(len(graph))]
    V = fill(graph, lambda i, j: 1 / (2 * max(degree[i], degree[j])))
    return (np.eye(len(V)) + V) / 2 if lazy else V


SCHEMES = {
    "metropolis": metropolis,
    "lazy_metropolis": lazy_metropolis,
    "row_stochastic": row_stochastic,
    "column_stochastic": column_stochastic,
}


def cut(W: np.ndarray, keep: Any, kind: str = "doubly") -> np.ndarray:
    """Return W without the links that ``keep(receiver, sender)`` does not."""
    n = len(W)
    kept = np.zeros_like(W)
    for i in range(n):
        for j in range(n):
            if i != j and keep(i, j):
                kept[i, j] = W[i, j]
    for i in range(n):
        kept[i, i] = 1 - (kept[:, i] if kind == "column" else kept[i]).sum()
    return kept


def relabeled(graph: Any, random: np.random.Generator) -> Any:
    """Return the graph with its agents in another order: other links, tables of the same shape."""
    order = random.permutation(len(graph)).tolist()
    new = nx.empty_graph(len(graph), create_using=type(graph))
    new.add_edges_from((order[u], order[v]) for u, v in graph.edges if u != v)
    return new


def distance(a: Any, b: Any) -> float:
    """Return the largest distance between two sets of numbers under their best matching."""
    cost = np.abs(np.asarray(a)[:, None] - np.asarray(b)[None, :])
    i, j = linear_sum_assignment(cost)
    return float(cost[i, j].max())


def rounding(W: np.ndarray, x: Any) -> float:
    """Return what W x may differ by in another order of its sums, two of them around W's own."""
    terms, eps = np.count_nonzero(W, axis=1).max() + 2, np.finfo(np.asarray(x).dtype).eps
    return float(terms * eps * (np.abs(W) @ np.abs(x)).max())


def rows(n: int, *shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal((n, *shape)) + 2.0)


@jit
def apply(network: Any, x: Any) -> Any:
    return network @ x


@jit
def everything(network: Any, x: Any) -> Any:
    """Return W x, (I - W) x, W and the number of links."""
    return network @ x, network.laplacian(x), network.matrix(), network.link_count


@jit
def links(network: Any) -> Any:
    return network.links


@jit
def at(network: Any, k: Any, key: Any) -> Any:
    """Return a round's network, in one program instead of one for every operation."""
    return network.at(k, key)


@jit
def dense(network: Any, ks: Any, key: Any) -> Any:
    """Return W of several rounds, [rounds, n, n]."""
    return jax.lax.map(lambda k: network.at(k, key).matrix(), ks)


def matrices(network: Any, rounds: int, key: Any) -> np.ndarray:
    """Return W of the first rounds as they multiply, [rounds, n, n]."""
    return np.asarray(dense(network, jnp.arange(rounds), key))


def one_sentence(error: Any) -> bool:
    text = str(error.value)
    return "\n" not in text and text.endswith(".") and len(text) <= 240
