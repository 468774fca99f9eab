"""Directed networks: a row-stochastic part to agree with, a column-stochastic one to add up."""

from collections.abc import Callable
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
from scipy.sparse import csgraph

from jaxdopt import agents
from jaxdopt._pytree import is_traced, pytree, replace, require
from jaxdopt.agents import select
from jaxdopt.networks import graphs
from jaxdopt.networks.forms import common_root, operator, require_connected, table
from jaxdopt.networks.guard import refuse_mixing
from jaxdopt.networks.operator import Keep, Operator
from jaxdopt.networks.tables import add
from jaxdopt.networks.weights import column_matrix, row_matrix

SEARCH = 2**22  # agents times roots tried for the least deep spanning tree


class TwoParts:
    """What networks with a row- and a column-stochastic part share."""

    row: Any
    column: Any
    symmetric = False
    kind = "directed"

    @property
    def n(self) -> int:
        """The number of agents."""
        return self.row.n

    @property
    def varies(self) -> bool:
        """Whether one of the parts changes with time."""
        return self.row.varies or self.column.varies

    @property
    def repetitions(self) -> int:
        """The rounds of communication that one exchange takes, of the part that takes more."""
        return max(self.row.repetitions, self.column.repetitions)

    @property
    def k(self) -> Any:
        """The step k, or None where `at` has not set it."""
        return self.row.k

    @property
    def time(self) -> Any:
        """The step k; raises ValueError where `at` has not set it."""
        return self.row.time

    @property
    def active(self) -> Any:
        """Who is awake, [n] bool, or None for everybody."""
        return self.row.active

    @property
    def link_count(self) -> Any:
        """The number of directed links of the row-stochastic part."""
        return self.row.link_count

    @property
    def spectral_gap(self) -> float:
        """1 − |λ₂| of the part that mixes more slowly."""
        return min(self.row.spectral_gap, self.column.spectral_gap)

    def __matmul__(self, x: Any) -> NoReturn:
        refuse_mixing()

    laplacian = __matmul__

    def mean(self, x: Any) -> Any:
        """Return the mean over agents, leaves [n, ...] -> [...]."""
        return agents.average(x)

    def at(self, k: Any, key: jax.Array) -> Any:
        """Return round k's network."""
        return self._each(lambda part: part.at(k, key))

    @property
    def cuttable(self) -> bool:
        """Whether links of both parts can be cut."""
        return self.row.cuttable and self.column.cuttable

    def cut(self, keep: Keep) -> Any:
        """Return the network with only the links that ``keep``, as those of its parts do."""
        return self._each(lambda part: part.cut(keep))

    def awake(self, active: jax.Array) -> Any:
        """Return the network with the agents where ``active`` [n] is true awake."""
        return self._each(lambda part: part.awake(active))

    def _each(self, change: Callable[[Any], Any]) -> Any:
        return replace(self, row=change(self.row), column=change(self.column))


@pytree
class Directed(TwoParts):
    """A network of two parts: ``network.row`` (R 1 = 1) and ``network.column`` (1ᵀ C = 1ᵀ).

    Push-pull methods mix estimates with R and gradient trackers with C. Build it with `push_pull`,
    or from matrices of your own: ``Directed(mixing(R, kind="row"), mixing(C, kind="column"))``.

    Raises:
        ValueError: parts of other kinds or of different n, or without a common root: an agent that
            is heard by all through R and hears all through C.
    """

    row: Any
    column: Any

    def __post_init__(self) -> None:
        """Check what the two parts are, and that they have a root in common."""
        for name, part in (("row", self.row), ("column", self.column)):
            kind = getattr(part, "kind", None)
            require(
                kind in (name, "doubly"),
                f"{name} is a {type(part).__name__} whose weights are {kind} stochastic; give "
                f"jd.networks.{name}_stochastic(graph) or mixing(W, kind='{name}').",
            )
        require(
            self.row.n == self.column.n,
            f"row is for {self.row.n} agents and column for {self.column.n}; give both the same.",
        )
        if not (self.varies or is_traced((self.row, self.column))):
            require(
                common_root(self.row.csr(), self.column.csr()),
                "the two graphs have no common root: no agent is heard by all others through row "
                "and hears all others through column; add links.",
            )


def push_pull(graph: Any, push: Any = None) -> Directed:
    """Return R of `row_stochastic` and C of `column_stochastic` on a directed graph.

    ``push`` is another graph for C, if the two differ (its nodes are taken in the order of the
    first); then neither has to be strongly connected, as long as they have a common root.

    Raises:
        ValueError: the graph is not strongly connected; two graphs have no common root.

    Source: Pu, Shi, Xu, Nedić (2021), "Push-pull gradient methods for distributed optimization in
    networks", arXiv 1810.06653, assumption 2 and section 2.
    """
    both = graphs.adjacencies([graph] if push is None else [graph, push])
    pulled, pushed = both[0].astype(float), both[-1].astype(float)
    if push is None:
        require_connected(pulled)
    return Directed(operator(row_matrix(pulled), "row"), operator(column_matrix(pushed), "column"))


@pytree
class FromParent(Operator):
    """A tree as a row-stochastic matrix: everybody takes its parent's value, the root its own."""

    parent: Any  # [n] int; the root is its own parent
    k: Any = None
    kind = "row"
    symmetric = cuttable = False  # type: ignore[assignment]

    @property
    def n(self) -> int:
        """The number of agents."""
        return self.parent.shape[-1]

    @property
    def _stacked(self) -> bool:
        return self.parent.ndim != 1

    def __matmul__(self, x: Any) -> Any:
        return self._map(lambda leaf: leaf[self.parent], x)

    def _pull(self, x: jax.Array) -> jax.Array:
        return x[self.parent] - x

    @property
    def link_count(self) -> int:
        """The number of directed links, n − 1."""
        return self.n - 1

    @property
    def spectral_gap(self) -> float:
        """1: but for the root's, all eigenvalues are 0."""
        return 1.0

    def csr(self) -> sp.csr_array:
        """Return the matrix as a scipy.sparse one, on the host."""
        me = np.arange(self.n)
        return sp.csr_array((np.ones(self.n), (me, np.asarray(self.parent))), shape=(self.n,) * 2)


@pytree
class ToParent(Operator):
    """A tree as a column-stochastic matrix: all is given to the parent, and kept by the root."""

    parent: Any  # [n] int; the root is its own parent
    children: Any  # [n, s] int, padded with the agent itself
    present: Any  # [n, s]: 1, or 0 on the padding
    tiers: Any  # of (agents [h], children [h, s], present [h, s]), for agents with many children
    k: Any = None
    kind = "column"
    symmetric = cuttable = False  # type: ignore[assignment]

    @property
    def n(self) -> int:
        """The number of agents."""
        return self.parent.shape[-1]

    @property
    def _stacked(self) -> bool:
        return self.parent.ndim != 1

    def __matmul__(self, x: Any) -> Any:
        def apply(leaf: jax.Array) -> jax.Array:
            root = self.parent == jnp.arange(self.n)
            own = select(root, leaf, jnp.zeros_like(leaf))
            return add(own, (self.children, self.present), self.tiers, lambda _, i: leaf[i])

        return self._map(apply, x)

    def _pull(self, x: jax.Array) -> jax.Array:
        return (self @ x) - x

    link_count = FromParent.link_count
    spectral_gap = FromParent.spectral_gap

    def csr(self) -> sp.csr_array:
        """Return the matrix as a scipy.sparse one, on the host."""
        me = np.arange(self.n)
        return sp.csr_array((np.ones(self.n), (np.asarray(self.parent), me)), shape=(self.n,) * 2)


@pytree
class Tree(TwoParts):
    """Spanning trees: values go down from the root, sums go up to it.

    ``network.row @ x`` gives everybody its parent's value (the root keeps its own), and
    ``network.column @ y`` gives everybody the sum of its children's (the root keeps its own too, so
    that all ends there). Build it with `spanning_tree`, or from parents of your own.

    Args:
        parent: [n] int, whom every agent hears; the root is its own parent.
        push: [n] int, to whom every agent gives, if that is another tree of the same root.

    Raises:
        ValueError: parents that do not lead to one root.

    Source: You, Pu (2024), "B-ary tree push-pull method", arXiv 2404.05454; You, Pu (2025),
    "Distributed learning over arbitrary topology", arXiv 2503.16123.
    """

    row: Any
    column: Any

    def __init__(self, parent: Any, push: Any = None) -> None:
        down = _parents(parent, "parent")
        up = down if push is None else _parents(push, "push")
        roots = [int(np.flatnonzero(p == np.arange(len(p)))[0]) for p in (down, up)]
        require(
            len(down) == len(up) and roots[0] == roots[1],
            f"parent has {len(down)} agents and root {roots[0]}, push {len(up)} and root "
            f"{roots[1]}; give two trees of the same agents and the same root.",
        )
        n = len(up)
        me = np.arange(n)
        below = me != up
        edges = sp.csr_array((np.ones(below.sum()), (up[below], me[below])), shape=(n, n))
        object.__setattr__(self, "row", FromParent(jnp.asarray(down)))
        object.__setattr__(self, "column", ToParent(jnp.asarray(up), *table(edges)))

    @property
    def root(self) -> jax.Array:
        """The root's index."""
        return jnp.argmax(self.row.parent == jnp.arange(self.n))

    @property
    def depth(self) -> int:
        """The number of rounds a value needs between the root and the farthest agent."""
        return max(_depth(np.asarray(part.parent)) for part in (self.row, self.column))


def spanning_tree(graph: Any, root: int | None = None) -> Tree:
    """Return breadth-first spanning trees of a graph; on a directed one, one down and one up.

    Args:
        graph: a strongly connected networkx graph or adjacency matrix.
        root: their root; by default an agent from which the deeper of the two trees is least deep
            (among some spread evenly, if there are more than 2048).

    Raises:
        ValueError: the graph is not strongly connected, or the root is not one of its agents.
    """
    heard = graphs.adjacency(graph).astype(float)
    require_connected(heard)
    n = heard.shape[0]
    if root is None:
        tried = np.unique(np.linspace(0, n - 1, min(n, max(SEARCH // n, 8))).astype(int))
        away = [
            csgraph.dijkstra(g, indices=tried, unweighted=True).max(axis=1)
            for g in (heard, sp.csr_array(heard.T))
        ]
        root = int(tried[np.argmin(np.maximum(*away))])
    require(
        isinstance(root, int | np.integer) and 0 <= root < n,
        f"root is {root!r}; give one of the agents 0 to {n - 1}.",
    )
    # csgraph follows entries (i, j) from i to j, and entry (i, j) of `heard` carries j's to i
    down, up = (
        csgraph.breadth_first_order(g, root, return_predecessors=True)[1]
        for g in (sp.csr_array(heard.T), heard)
    )
    down[root] = up[root] = root
    return Tree(down, None if np.array_equal(down, up) else up)


def _parents(parent: Any, name: str) -> np.ndarray:
    """Return parents as integers, or raise why they are not those of one tree."""
    array = np.asarray(parent)
    require(
        array.ndim == 1 and len(array) > 0 and np.issubdtype(array.dtype, np.integer),
        f"{name} is an array of {array.dtype}{list(array.shape)}; give every agent's parent, [n] "
        "integers.",
    )
    outside = array[(array < 0) | (array >= len(array))]
    require(
        len(outside) == 0,
        f"{name} names agent {outside[:1]}; give agents 0 to {len(array) - 1}.",
    )
    roots = np.flatnonzero(array == np.arange(len(array)))
    require(
        len(roots) == 1,
        f"{name} has {len(roots)} roots {roots[:5].tolist()}; give exactly one agent that is its "
        "own parent.",
    )
    lost = np.flatnonzero(_ancestors(array)[0] != roots[0])
    require(
        len(lost) == 0,
        f"{name} has a cycle: agent {lost[:1]} never gets to the root {roots[0]}; give a tree.",
    )
    return array.astype(np.int32)


def _ancestors(parent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where every agent gets to after n steps up or more, and its depth, by doubling."""
    depth = (parent != np.arange(len(parent))).astype(int)
    for _ in range(len(parent).bit_length()):
        depth = depth + depth[parent]
        parent = parent[parent]
    return parent, depth


def _depth(parent: np.ndarray) -> int:
    return int(_ancestors(parent)[1].max())
