"""Networks of a row-stochastic part, a column-stochastic part, or both, in place of one matrix.

Methods mix estimates with ``network.row`` (R 1 = 1), and quantities whose sum has to be kept with
``network.column`` (1ᵀ C = 1ᵀ). A matrix of which only the rows or only the columns sum to 1 gives a
network of one part.
"""

from collections.abc import Callable
from typing import Any, NoReturn

import jax
import numpy as np
import scipy.sparse as sp

from jaxdopt import _repr, agents
from jaxdopt._pytree import pytree, replace
from jaxdopt.roles import Missing, Network, lacks


class Parts(Network):
    """The base of networks of parts; a subclass has ``row``, ``column`` or both as fields."""

    symmetric = False
    kind = "directed"

    @property
    def parts(self) -> dict[str, Any]:
        """The parts by name."""
        return {name: part for name, part in vars(self).items() if name in ("row", "column")}

    def _facts(self) -> dict[str, str]:
        return {"agents": str(self.n)} | _repr.fields(self)

    @property
    def _first(self) -> Any:
        return next(iter(self.parts.values()))

    @property
    def offers(self) -> frozenset[str]:  # type: ignore[override]
        """What every round can do; see `jaxdopt.roles`."""
        offered = {name: part.offers for name, part in self.parts.items()}
        own = {"row": "pull", "column": "push"}
        words = {own[name] for name, part in offered.items() if own[name] in part}
        words |= frozenset.intersection(*offered.values()) & {"hop", "all"}
        return frozenset(words | {"push-pull"} if len(offered) == 2 else words)

    @property
    def n(self) -> int:
        """The number of agents."""
        return self._first.n

    @property
    def varies(self) -> bool:
        """Whether one of the parts changes with time."""
        return any(part.varies for part in self.parts.values())

    @property
    def repetitions(self) -> int:
        """The rounds of communication that one exchange takes, the larger number of the parts'."""
        return max(part.repetitions for part in self.parts.values())

    @property
    def k(self) -> Any:
        """The step k, or None where `at` has not set it."""
        return self._first.k

    @property
    def time(self) -> Any:
        """The step k; raises ValueError where `at` has not set it."""
        return self._first.time

    @property
    def active(self) -> Any:
        """Which agents are awake, [n] bool, or None for all."""
        return self._first.active

    @property
    def link_count(self) -> Any:
        """The number of directed links, of the row-stochastic part if there are two."""
        return self._first.link_count

    @property
    def spectral_gap(self) -> float:
        """1 − |λ₂| of the part that mixes more slowly."""
        return min(part.spectral_gap for part in self.parts.values())

    def __matmul__(self, x: Any) -> NoReturn:
        raise Missing(lacks(self, "mixing", "network @ x"))

    def mean(self, x: Any) -> Any:
        """Return the mean over agents, leaves [n, ...] -> [...]."""
        return agents.average(x)

    def at(self, k: Any, key: jax.Array) -> Any:
        """Return round k's network."""
        rounds = {name: getattr(part.at(k, key), name) for name, part in self.parts.items()}
        return replace(self, **rounds)

    @property
    def cuttable(self) -> bool:
        """Whether links of all parts can be cut."""
        return all(part.cuttable for part in self.parts.values())

    def cut(self, keep: Callable[[jax.Array, jax.Array], jax.Array]) -> Any:
        """Return the network with links cut in all its parts, see `Operator.cut`."""
        return self._each(lambda part: part.cut(keep))

    def awake(self, active: jax.Array) -> Any:
        """Return the network with the agents where ``active`` [n] is true awake."""
        return self._each(lambda part: part.awake(active))

    def _each(self, change: Callable[[Any], Any]) -> Any:
        return replace(self, **{name: change(part) for name, part in self.parts.items()})


class OnePart(Parts):
    """The base of networks of one part: the part has a matrix, but there is no ``network @ x``."""

    @property
    def kind(self) -> str:  # type: ignore[override]
        """What sums to 1: "row" or "column"."""
        return self._first.kind

    def matrix(self) -> jax.Array:
        """Return the part as a dense [n, n] array."""
        return self._first.matrix()

    def csr(self) -> sp.csr_array:
        """Return the part as a scipy.sparse matrix, on the host."""
        return self._first.csr()

    @property
    def eigenvalues(self) -> np.ndarray:
        """All n eigenvalues of the part, by decreasing modulus."""
        return self._first.eigenvalues


@pytree
class RowOnly(OnePart):
    """A round of row-stochastic weights: ``network.row``, and no other part."""

    row: Any


@pytree
class ColumnOnly(OnePart):
    """A round of column-stochastic weights: ``network.column``, and no other part."""

    column: Any
