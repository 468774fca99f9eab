"""Directed networks: a row-stochastic part for consensus, a column-stochastic one for sums."""

from typing import Any

from jaxdopt._checks import require
from jaxdopt._leaves import is_traced
from jaxdopt._pytree import pytree
from jaxdopt.networks import connectivity
from jaxdopt.networks.checks import require_network
from jaxdopt.networks.connectivity import common_root, require_connected
from jaxdopt.networks.operators.choose import choose
from jaxdopt.networks.parts import Parts
from jaxdopt.networks.weights import column_matrix, row_matrix


@pytree
class Directed(Parts):
    """A network of two parts: ``network.row`` (R 1 = 1) and ``network.column`` (1ᵀ C = 1ᵀ).

    Push-pull methods mix estimates with R and gradient trackers with C. Build one with `push_pull`,
    or from your own matrices: ``Directed(mixing(R, kind="row"), mixing(C, kind="column"))``.

    Args:
        row: R, a row-stochastic network.
        column: C, a column-stochastic one of the same n.

    Raises:
        ValueError: the parts are of other kinds or of different n, or have no common root, that is
            an agent whose values reach all others through R and that is reached by all through C.
    """

    row: Any
    column: Any

    def __post_init__(self) -> None:
        """Check the kinds of the two parts, and that they have a common root."""
        for name, part in (("row", self.row), ("column", self.column)):
            require_network(part)
            kind = getattr(part, "kind", None)
            require(
                kind in (name, "doubly"),
                f"{name} is a {type(part).__name__} whose weights are {kind} stochastic; give "
                f"jd.networks.{name}_stochastic(graph) or mixing(W, kind='{name}').",
            )
            if isinstance(part, Parts):  # a round of one part
                object.__setattr__(self, name, getattr(part, name))
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

    Args:
        graph: a strongly connected networkx graph or adjacency matrix.
        push: the graph of C, if it is another one (nodes are taken in the order of the first).
            Then neither has to be strongly connected, as long as the two have a common root.

    Raises:
        ValueError: one graph that is not strongly connected, or two without a common root.

    Source: Pu, Shi, Xu, Nedić (2021), "Push-pull gradient methods for distributed optimization in
    networks", arXiv 1810.06653, assumption 2 and section 2.
    """
    both = connectivity.adjacencies([graph] if push is None else [graph, push])
    pulled, pushed = both[0].astype(float), both[-1].astype(float)
    if push is None:
        require_connected(pulled)
    return Directed(choose(row_matrix(pulled), "row"), choose(column_matrix(pushed), "column"))
