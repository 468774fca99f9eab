"""The fixed links of a network, as tables on the host that a simulation of events reads."""

from typing import Any

import numpy as np
import scipy.sparse as sp

from jaxdopt._checks import require
from jaxdopt._leaves import is_traced
from jaxdopt.networks.events.schedule import ordinals
from jaxdopt.networks.operators.base import Operator
from jaxdopt.networks.parts import Parts


class Wires:
    """The links of a network, receiver after receiver, and the senders in a table.

    Args:
        matrix: with a nonzero entry for every link, receivers as rows; its diagonal is ignored.
    """

    def __init__(self, matrix: sp.csr_array) -> None:
        n = matrix.shape[0]
        links = sp.csr_array(matrix, copy=True)
        links.setdiag(0)
        links.eliminate_zeros()
        links.sort_indices()
        self.degree = np.diff(links.indptr)  # [n]
        self.receiver = np.repeat(np.arange(n), self.degree)  # [links]
        self.sender = links.indices.astype(int)  # [links]
        self.slot = ordinals(self.degree)  # [links]
        self.senders = np.tile(np.arange(n)[:, None], (1, self.degree.max(initial=0)))
        self.senders[self.receiver, self.slot] = self.sender  # [n, slots], or the agent itself

    def entries(self, matrix: sp.csr_array) -> np.ndarray:
        """Return a matrix's entries of all links as a table [n, slots], 0 on the padding."""
        table = np.zeros(self.senders.shape)
        if len(self.sender):
            table[self.receiver, self.slot] = matrix[self.receiver, self.sender]
        return table


def require_fixed(network: Any, what: str) -> None:
    """Refuse a network that has not the same links between agents in every round."""
    plain = isinstance(network, Operator | Parts)
    require(
        plain and not network.varies and network.repetitions == 1 and network.active is None,
        f"{what} needs a network of fixed links between agents and this is a "
        f"{type(network).__name__}; give weights on one graph, such as "
        "jd.networks.metropolis(graph).",
    )
    require(
        not is_traced(network),
        f"{what} is simulated on the host and this network is traced; build it outside jit and "
        "replace its weights inside.",
    )
