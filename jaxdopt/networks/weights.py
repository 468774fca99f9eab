"""Weight schemes: from a graph to mixing weights, on the host."""

from typing import Any

import numpy as np
import scipy.sparse as sp

from jaxdopt._checks import require
from jaxdopt.networks import connectivity
from jaxdopt.networks.connectivity import require_connected
from jaxdopt.networks.operators.choose import Form, choose, is_symmetric, mixing


def metropolis(graph: Any) -> Form:
    """Return Metropolis-Hastings weights, wᵢⱼ = 1 / (1 + max(dᵢ, dⱼ)), wᵢᵢ = 1 − Σⱼ wᵢⱼ.

    ``graph`` is a networkx graph or an adjacency matrix (NumPy, scipy.sparse) of a connected
    undirected graph; a directed one has to be regular (as many arcs in as out, the same for all
    agents), so that W is doubly stochastic.

    Raises:
        ValueError: the graph is disconnected, or directed and not regular.

    Source: Xiao, Boyd, Kim (2007), "Distributed average consensus with least-mean-square deviation"
    """
    return choose(metropolis_matrix(_connected(graph)))  # averages, as wᵢᵢ > 0


def lazy_metropolis(graph: Any) -> Form:
    """Return (I + W) / 2, W the graph's Metropolis-Hastings weights: no negative eigenvalue."""
    return choose(_lazy(metropolis_matrix(_connected(graph))))


def half_degree(graph: Any, *, self_loops: bool = False, lazy: bool = True) -> Form:
    """Return W = (I + V) / 2 with vᵢⱼ = 1 / (2 max(dᵢ, dⱼ)), vᵢᵢ = 1 − Σⱼ vᵢⱼ: doubly lazy weights.

    The code of the random reshuffling papers mixes with (I + V) / 2 in every method. There the
    degrees of rings and exponential graphs count the agent itself, those of grids and Erdos-Renyi
    graphs do not.

    Args:
        graph: a connected undirected networkx graph or adjacency matrix.
        self_loops: whether degrees count the agent itself.
        lazy: give (I + V) / 2; if false, V.

    Raises:
        ValueError: the graph is disconnected or directed.

    Source: the authors' code of Huang, Li, Milzarek, Pu, Qiu (2023), "Distributed random
    reshuffling over networks", arXiv 2112.15287.
    """
    edges = _connected(graph)
    require(is_symmetric(edges), "the graph is directed; these weights need an undirected one.")
    degree = np.maximum(edges.sum(axis=1) + self_loops, 1)
    matrix = _with_diagonal(edges, lambda i, j: 1 / (2 * np.maximum(degree[i], degree[j])))
    return mixing(_lazy(matrix) if lazy else matrix)


def laplacian(graph: Any, step: float | None = None) -> Form:
    """Return W = I − ε L, with L the graph Laplacian and ε the weight of every link.

    Args:
        graph: a connected undirected networkx graph or adjacency matrix.
        step: ε, below 2 / λ_max(L); by default 1 / (1 + largest degree).

    Raises:
        ValueError: the graph is disconnected or directed, or W would not average.

    Source: Xiao, Boyd (2004), "Fast linear iterations for distributed averaging"
    """
    edges = _connected(graph)
    require(is_symmetric(edges), "the graph is directed; Laplacian weights need an undirected one.")
    degree = edges.sum(axis=1)
    epsilon = 1 / (1 + degree.max()) if step is None else step
    require(epsilon > 0, f"step is {step}; give a positive weight for every link.")
    return mixing(sp.eye_array(len(degree)) - epsilon * (sp.diags_array(degree) - edges))


def fastest_mixing(graph: Any) -> Form:
    """Return the symmetric weights on a graph's links with the largest spectral gap, 1 − |λ₂|.

    min over w of ρ(W − 11ᵀ/n),  W = I − Σₑ wₑ (eᵢ − eⱼ)(eᵢ − eⱼ)ᵀ over links e = {i, j}; single
    weights may be negative. It is a semidefinite program, solved here by Newton steps on the
    barrier −log det(sI − M) − log det(sI + M), M = W − 11ᵀ/n, to 1e-8 above the least ρ. A step
    costs O(m³) for m links: for hundreds of them.

    Raises:
        ValueError: the graph is disconnected or directed.

    Source: Xiao, Boyd (2004), "Fast linear iterations for distributed averaging"

    Example:
        >>> import jaxdopt as jd
        >>> star = jd.graphs.star(9)
        >>> [float(round(w(star).spectral_gap, 3)) for w in (metropolis, fastest_mixing)]
        [0.111, 0.2]
    """
    edges = _connected(graph)
    require(is_symmetric(edges), "the graph is directed; these weights need an undirected one.")
    links, n = sp.triu(metropolis_matrix(edges), 1).tocoo(), edges.shape[0]
    i, j, weights = links.row, links.col, links.data
    differences = np.eye(n)[:, i] - np.eye(n)[:, j]  # [n, links]

    def deviation(w: np.ndarray) -> np.ndarray:
        return np.eye(n) - 1 / n - (differences * w) @ differences.T

    def radius(w: np.ndarray) -> float:
        return float(np.abs(np.linalg.eigvalsh(deviation(w))).max())

    bound, sharpness = 1.1 * radius(weights) + 0.1, 1.0
    while 2 * n / sharpness > 1e-8:  # how far s can be above the least ρ on the central path
        sharpness *= 10
        decrement = np.inf
        while decrement > 1e-3:
            m = deviation(weights)
            above, below = (
                np.linalg.inv(bound * np.eye(n) - m),
                np.linalg.inv(bound * np.eye(n) + m),
            )
            p, q = (differences.T @ inverse @ differences for inverse in (above, below))
            pp, qq = ((inverse @ differences) ** 2 for inverse in (above, below))
            gradient = np.append(np.diag(q) - np.diag(p), sharpness - np.trace(above + below))
            cross = (pp - qq).sum(axis=0)[:, None]
            corner = np.array([[np.sum(above**2 + below**2)]])
            step = -np.linalg.solve(np.block([[p**2 + q**2, cross], [cross.T, corner]]), gradient)
            decrement = np.sqrt(max(-gradient @ step, 0))
            step /= 1 + decrement  # stays inside, as the barrier is self-concordant
            weights, bound = weights + step[:-1], bound + step[-1]
    return mixing(_with_diagonal(edges, _on_links(n, i, j, weights)))


def row_stochastic(graph: Any) -> Form:
    """Return R with rᵢⱼ = 1 / (1 + dᵢ), dᵢ the number of in-neighbors of i: rows sum to 1.

    R keeps consensus. Its powers converge to the average weighted by its left eigenvector, which is
    not the mean in general.

    Raises:
        ValueError: the graph is not strongly connected.
    """
    return choose(row_matrix(_connected(graph)), "row")


def column_stochastic(graph: Any) -> Form:
    """Return C with cᵢⱼ = 1 / (1 + dⱼ), dⱼ the number of out-neighbors of j: columns sum to 1.

    C keeps the sum over agents but not consensus: Cᵏ x converges to a multiple of its right
    eigenvector.

    Raises:
        ValueError: the graph is not strongly connected.
    """
    return choose(column_matrix(_connected(graph)), "column")


def metropolis_matrix(edges: sp.csr_array) -> sp.csr_array:
    """Return the Metropolis-Hastings matrix of a pattern, connected or not."""
    heard = edges.sum(axis=1)
    require(
        is_symmetric(edges) or (np.ptp(heard) == 0 and np.all(edges.sum(axis=0) == heard)),
        "the graph is directed and not regular, so these weights would not be doubly stochastic; "
        "use jd.networks.push_pull(graph), or give jd.networks.mixing a doubly stochastic matrix.",
    )
    return _with_diagonal(edges, lambda i, j: 1 / (1 + np.maximum(heard[i], heard[j])))


def row_matrix(edges: sp.csr_array) -> sp.csr_array:
    """Return R of `row_stochastic` for a pattern, connected or not."""
    heard = edges.sum(axis=1)
    return _with_diagonal(edges, lambda i, _: 1 / (1 + heard[i]))


def column_matrix(edges: sp.csr_array) -> sp.csr_array:
    """Return C of `column_stochastic` for a pattern, connected or not."""
    return sp.csr_array(row_matrix(sp.csr_array(edges.T)).T)


def _with_diagonal(edges: sp.csr_array, weight: Any) -> sp.csr_array:
    """Return the matrix with ``weight(i, j)`` on the links, whose rows sum to 1."""
    pattern = edges.tocoo()
    values = weight(pattern.row, pattern.col)
    away = sp.csr_array((values, (pattern.row, pattern.col)), shape=edges.shape)
    return sp.csr_array(away + sp.diags_array(1 - away.sum(axis=1)))


def _on_links(n: int, i: np.ndarray, j: np.ndarray, values: np.ndarray) -> Any:
    """Return the function (i, j) -> wᵢⱼ of weights on undirected links."""
    dense = np.zeros((n, n))
    dense[i, j] = dense[j, i] = values
    return lambda a, b: dense[a, b]


def _lazy(matrix: sp.csr_array) -> sp.csr_array:
    return sp.csr_array((sp.eye_array(matrix.shape[0]) + matrix) / 2)


def _connected(graph: Any) -> sp.csr_array:
    edges = connectivity.adjacency(graph).astype(float)
    require_connected(edges)
    return edges


SCHEMES = {
    "metropolis": (metropolis_matrix, "doubly"),
    "lazy_metropolis": (lambda edges: _lazy(metropolis_matrix(edges)), "doubly"),
    "row_stochastic": (row_matrix, "row"),
    "column_stochastic": (column_matrix, "column"),
}
"""Schemes for graphs that need not be connected: name -> (matrix of a pattern, its kind)."""
