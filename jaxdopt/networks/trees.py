"""Spanning trees as networks: values go down from the root, sums go up to it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp

from jaxdopt import _repr
from jaxdopt._checks import count, require
from jaxdopt._pytree import pytree, replace, static
from jaxdopt.agents import select
from jaxdopt.networks import connectivity
from jaxdopt.networks.connectivity import require_connected
from jaxdopt.networks.operators.base import Operator
from jaxdopt.networks.operators.halo import Devices, Halo
from jaxdopt.networks.operators.sparse import add, spread, summed, table
from jaxdopt.networks.parts import Parts

SEARCH = 2**22  # agents times roots tried for the least deep spanning tree


@pytree
class FromParent(Operator):
    """A tree as a row-stochastic matrix: agents take their parent's value, the root its own."""

    parent: Any  # [n] int; the root is its own parent
    k: Any = None
    halo: Halo | None = None  # the plan by which devices exchange rows
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
        return self._map(self._parents_rows, x)

    def _pull(self, x: jax.Array) -> jax.Array:
        return self._parents_rows(x) - x

    def _parents_rows(self, x: jax.Array) -> jax.Array:
        return x[self.parent] if self.halo is None else self.halo.take(x)[:, 0]

    def over(self, devices: Devices) -> "FromParent":
        """Return the tree for agents that are spread over devices."""
        parents = np.asarray(self.parent)[..., None]
        return replace(self, halo=devices.halo(self.n, [(np.arange(self.n), parents)]))

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
    """A tree as a column-stochastic matrix: agents give all to their parent, but the root."""

    parent: Any  # [n] int; the root is its own parent
    children: Any  # [n, s] int, padded with the agent itself
    present: Any  # [n, s]: 1, or 0 on the padding
    tiers: Any  # of (agents [h], children [h, s], present [h, s]), for agents with many children
    k: Any = None
    halo: Halo | None = None  # the plan by which devices exchange rows
    kind = "column"
    symmetric = cuttable = pushes = False  # type: ignore[assignment]

    @property
    def n(self) -> int:
        """The number of agents."""
        return self.parent.shape[-1]

    @property
    def _stacked(self) -> bool:
        return self.parent.ndim != 1

    def __matmul__(self, x: Any) -> Any:
        def apply(leaf: jax.Array) -> jax.Array:
            root = self.parent == jnp.arange(self.n, dtype=self.parent.dtype)
            own = select(root, leaf, jnp.zeros_like(leaf))
            if self.halo is not None:
                heard = self.children, self.present, self.tiers
                return own + self.halo.apply(summed, leaf, heard)
            return add(own, (self.children, self.present), self.tiers, lambda _, i: leaf[i])

        return self._map(apply, x)

    def _pull(self, x: jax.Array) -> jax.Array:
        return (self @ x) - x

    def over(self, devices: Devices) -> "ToParent":
        """Return the tree for agents that are spread over devices."""
        heard = self.children, self.present, self.tiers
        ((children, present, tiers),), halo = spread(devices, heard)
        return replace(self, children=children, present=present, tiers=tiers, halo=halo)

    link_count = FromParent.link_count
    spectral_gap = FromParent.spectral_gap

    def csr(self) -> sp.csr_array:
        """Return the matrix as a scipy.sparse one, on the host."""
        me = np.arange(self.n)
        return sp.csr_array((np.ones(self.n), (np.asarray(self.parent), me)), shape=(self.n,) * 2)


@pytree
class Tree(Parts):
    """Spanning trees: values go down from the root, sums go up to it.

    ``network.row @ x`` gives every agent its parent's value (the root keeps its own), and
    ``network.column @ y`` gives every agent the sum of its children's values (the root adds its
    own, so that in the end it holds the sum of all). Build one with `spanning_tree`, or from your
    own parents.

    Args:
        parent: [n] int, every agent's parent, from which it takes values; the root is its own.
        push: [n] int, every agent's parent in the tree along which sums go up, if that is another
            tree with the same root.

    Raises:
        ValueError: parents that do not lead to one root.

    Attributes:
        root: the root's index.
        delay: the most rounds from the root to an agent and back: the maximum over agents of the
            sum of their depths in both trees, at least 1.
        undirected: whether values go down and sums up the same links.

    Source: You, Pu (2024), "B-ary tree push-pull method", arXiv 2404.05454; You, Pu (2025),
    "Distributed learning over arbitrary topology", arXiv 2503.16123.
    """

    row: Any
    column: Any
    root: Any
    delay: Any
    undirected: bool = static()

    def _facts(self) -> dict[str, str]:
        return {
            "agents": str(self.n),
            **{name: _repr.brief(getattr(self, name)) for name in ("root", "delay", "undirected")},
            "memory": _repr.memory(self),
        }

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
        depths = [_ancestors(parent)[1] for parent in (down, up)]
        for name, value in (
            ("row", FromParent(jnp.asarray(down))),
            ("column", ToParent(jnp.asarray(up), *table(edges))),
            ("root", jnp.asarray(roots[0], jnp.int32)),
            ("delay", float(max(1, np.max(depths[0] + depths[1])))),
            ("undirected", bool(np.array_equal(down, up))),
        ):
            object.__setattr__(self, name, value)

    @property
    def offers(self) -> frozenset[str]:  # type: ignore[override]
        """What every round can do; see `jaxdopt.roles`."""
        words = {"tree", "push-pull", "hop", "all"}
        return frozenset(words | {"both ways"} if self.undirected else words)

    @property
    def depth(self) -> int:
        """The number of rounds that a value takes between the root and the farthest agent."""
        return max(_depth(np.asarray(part.parent)) for part in (self.row, self.column))


def bary_tree(n: int, branching: int) -> Tree:
    """Return the b-ary tree of n agents: the parent of agent i is (i − 1) // b, and 0 is the root.

    Every agent exchanges messages with at most b + 1 others, and the depth is about log_b n; b = 1
    is a path, b ≥ n − 1 a star. `STPP` on this tree is BTPP.

    Args:
        n: the number of agents.
        branching: b, the most children that an agent has.

    Raises:
        ValueError: n or branching is not an integer of at least 1.

    Source: You, Pu (2024), "B-ary tree push-pull method", arXiv 2404.05454.

    Example:
        >>> bary_tree(6, 2).row.parent.tolist()
        [0, 0, 0, 1, 1, 2]
    """
    count("n", n, remedy="the number of agents, 1 or more")
    count("branching", branching, remedy="the most children that an agent has, 1 or more")
    return Tree(np.maximum(np.arange(n) - 1, 0) // branching)


def spanning_tree(graph: Any, root: int | None = None) -> Tree:
    """Return breadth-first spanning trees of a graph: one, or one down and one up if directed.

    Args:
        graph: a strongly connected networkx graph or adjacency matrix.
        root: the root; by default an agent for which the deeper of the two trees is as shallow as
            possible (of evenly spaced candidates, if there are more than 2048 agents).

    Raises:
        ValueError: the graph is not strongly connected, or the root is not one of its agents.
    """
    heard = connectivity.adjacency(graph).astype(float)
    require_connected(heard)
    n = heard.shape[0]
    if root is None:
        tried = np.unique(np.linspace(0, n - 1, min(n, max(SEARCH // n, 8))).astype(int))
        away = [
            sp.csgraph.dijkstra(g, indices=tried, unweighted=True).max(axis=1)
            for g in (heard, sp.csr_array(heard.T))
        ]
        root = int(tried[np.argmin(np.maximum(*away))])
    require(
        isinstance(root, int | np.integer) and 0 <= root < n,
        f"root is {root!r}; give one of the agents 0 to {n - 1}.",
    )
    # csgraph follows entries (i, j) from i to j, and entry (i, j) of `heard` carries j's to i
    down, up = (
        sp.csgraph.breadth_first_order(g, root, return_predecessors=True)[1]
        for g in (sp.csr_array(heard.T), heard)
    )
    down[root] = up[root] = root
    return Tree(down, None if np.array_equal(down, up) else up)


def _parents(parent: Any, name: str) -> np.ndarray:
    """Return parents as integers, or raise why they are not those of one tree."""
    require(
        not hasattr(parent, "nodes"),
        f"{name} is a {type(parent).__name__}; give jd.networks.spanning_tree(graph), or every "
        "agent's parent, [n] integers.",
    )
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
    """Return every agent's ancestor n or more steps up, and its depth, by pointer doubling."""
    depth = (parent != np.arange(len(parent))).astype(int)
    for _ in range(len(parent).bit_length()):
        depth = depth + depth[parent]
        parent = parent[parent]
    return parent, depth


def _depth(parent: np.ndarray) -> int:
    return int(_ancestors(parent)[1].max())
