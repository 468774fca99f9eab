"""Directed networks: a row-stochastic part to agree with, a column-stochastic one to add up."""

from collections.abc import Callable
from typing import Any, NoReturn

import jax

from jaxdopt import agents
from jaxdopt._pytree import is_traced, pytree, replace, require
from jaxdopt.networks import graphs
from jaxdopt.networks.checks import require_network
from jaxdopt.networks.forms import common_root, operator, require_connected
from jaxdopt.networks.guard import refuse_mixing
from jaxdopt.networks.operator import Keep
from jaxdopt.networks.weights import column_matrix, row_matrix


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
            require_network(part)
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
