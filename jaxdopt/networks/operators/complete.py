"""W = 11ᵀ / n, the exact average."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdopt._checks import count
from jaxdopt._pytree import pytree, static
from jaxdopt.networks.operators.base import Keep, Links, Operator
from jaxdopt.networks.operators.dense import Dense, all_links


@pytree
class Complete(Operator):
    """W = 11ᵀ / n, the exact average.

    Args:
        n: the number of agents; static.
        k: the round's number; set by ``at``.
        active: which agents are awake, [n] bool; by default all.
        symmetric: True; static.
        lasting: whether links are the same in every round; static.
    """

    n: int = static()
    k: Any = None
    active: Any = None
    symmetric: bool = static(default=True)
    lasting: bool = static(default=True)

    def __post_init__(self) -> None:
        """Check the number of agents."""
        count("n", self.n)

    def __matmul__(self, x: Any) -> Any:
        return self._map(
            lambda leaf: jnp.broadcast_to(
                leaf[:1] + (leaf - leaf[:1]).mean(axis=0, keepdims=True), leaf.shape
            ),
            x,
        )

    def _pull(self, x: jax.Array) -> jax.Array:
        away = x - x[:1]
        return away.mean(axis=0, keepdims=True) - away

    def _cut(self, keep: Keep) -> Dense:
        whole = Dense(
            self.matrix(), k=self.k, active=self.active, symmetric=True, lasting=self.lasting
        )
        return whole._cut(keep)

    @property
    def link_count(self) -> int:
        """The number of directed links, n (n − 1)."""
        return self.n * (self.n - 1)

    @property
    def linked(self) -> bool:  # type: ignore[override]
        """Whether there is a table of `links`, for all rounds."""
        return self.lasting

    @property
    def links(self) -> Links:
        """Every agent's links, n slots each: slot j of agent i is its link with j."""
        self.require_linked()
        return all_links(self.n, ~jnp.eye(self.n, dtype=bool))

    @property
    def diagonal(self) -> jax.Array:
        """The diagonal of W, [n]: 1 / n."""
        return jnp.full(self.n, 1 / self.n)

    def matrix(self) -> jax.Array:
        """Return W as a dense [n, n] array."""
        return jnp.full((self.n, self.n), 1 / self.n)

    @property
    def eigenvalues(self) -> np.ndarray:
        """The eigenvalues 1, 0, ..., 0."""
        return np.eye(1, self.n)[0]
