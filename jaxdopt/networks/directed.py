"""Directed networks: a row-stochastic part to agree with, a column-stochastic one to add up."""

from typing import Any

from jaxdopt._checks import require
from jaxdopt._leaves import is_traced
from jaxdopt._pytree import pytree
from jaxdopt.networks import graphs
from jaxdopt.networks.checks import require_network
from jaxdopt.networks.graphs import common_root, require_connected
from jaxdopt.networks.operators.choose import choose
from jaxdopt.networks.parts import Parts
from jaxdopt.networks.weights import column_matrix, row_matrix


@pytree
class Directed(Parts):
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
    return Directed(choose(row_matrix(pulled), "row"), choose(column_matrix(pushed), "column"))
