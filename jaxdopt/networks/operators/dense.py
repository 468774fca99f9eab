"""W as a dense array."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp

from jaxdopt import agents
from jaxdopt._checks import require
from jaxdopt._leaves import is_traced
from jaxdopt._pytree import pytree, replace, static
from jaxdopt.networks import connectivity
from jaxdopt.networks.checks import (
    require_real,
    require_sums,
    require_symmetry,
)
from jaxdopt.networks.operators.base import Keep, Links, Operator
from jaxdopt.networks.operators.halo import Devices


@pytree
class Dense(Operator):
    """W as an [n, n] array, for small or dense graphs; a projection keeps the mean exactly.

    Args:
        weights: W, [n, n].
        k: the round's number; set by ``at``.
        active: which agents are awake, [n] bool; by default all.
        symmetric: whether W = Wᵀ; by default as it is; static.
        kind: what sums to 1: "doubly", "row" or "column"; static.
        pushes: whether push-sum weights stay positive; by default as W says; static.
        lasting: whether links are the same in every round; static.
        degree: [n] int: the number of neighbors, where links are cut.
    """

    weights: Any
    k: Any = None
    active: Any = None
    symmetric: bool = static(default=None)
    kind: str = static(default="doubly")
    pushes: bool = static(default=None)
    lasting: bool = static(default=True)
    degree: Any = None

    def __post_init__(self) -> None:
        """Check the shape; find out whether a concrete matrix is symmetric."""
        weights = self.weights if is_traced(self.weights) else np.asarray(self.weights)
        require_real(weights.dtype)
        require(
            np.ndim(weights) == 2 and np.shape(weights)[0] == np.shape(weights)[1],
            f"weights has shape {np.shape(weights)}; give a square matrix.",
        )
        require(
            self.kind in ("doubly", "row", "column"),
            f"kind is {self.kind!r}; give 'doubly', 'row' or 'column'.",
        )
        symmetric = None if is_traced(weights) else np.allclose(weights, weights.T)
        if self.symmetric is None:
            if symmetric is None:
                raise ValueError("weights is traced; say Dense(weights, symmetric=True or False).")
            object.__setattr__(self, "symmetric", symmetric)
        if symmetric is not None:
            require_sums(weights, self.kind)
            require_symmetry(self.symmetric, symmetric)
        if self.pushes is None:
            known = self.kind == "column" and not is_traced(weights)
            lasts = not known or connectivity.keeps_pushing(sp.csr_array(np.asarray(weights)))
            object.__setattr__(self, "pushes", lasts)
        dtype = jnp.result_type(self.weights, float)
        object.__setattr__(self, "weights", jnp.asarray(self.weights, dtype))

    @property
    def n(self) -> int:
        """The number of agents."""
        return self.weights.shape[-1]

    def _pull(self, x: jax.Array) -> jax.Array:
        away = x if self.kind == "column" else x - x.mean(axis=0, keepdims=True)
        mixed = jnp.tensordot(
            self.weights.astype(x.dtype), away, axes=1, precision=jax.lax.Precision.HIGHEST
        )
        pull = mixed - away
        if self.kind == "row":
            return pull
        # what rounding adds to the sum one agent with links bears: shared, it would be rounded away
        bearer = jnp.argmax(jnp.diagonal(self.weights) != 1)
        return agents.select(
            jnp.arange(self.n) == bearer, pull - pull.sum(axis=0, keepdims=True), pull
        )

    def _cut(self, keep: Keep) -> "Dense":
        me = jnp.arange(self.n)
        kept = jnp.where(keep(me[:, None], me[None]) & ~np.eye(self.n, dtype=bool), self.weights, 0)
        own = 1 - kept.sum(axis=0 if self.kind == "column" else 1)
        return replace(self, weights=kept + jnp.diag(own))

    def over(self, devices: Devices) -> "Dense":
        """Return the operator with its rows spread over devices."""
        return replace(self, weights=devices.put(self.weights, -2))

    @property
    def _stacked(self) -> bool:
        return self.weights.ndim != 2

    @property
    def link_count(self) -> jax.Array:
        """The number of directed links with a nonzero weight."""
        return jnp.sum(self._linked)

    @property
    def linked(self) -> bool:  # type: ignore[override]
        """Whether there is a table of `links`, for all rounds."""
        return self.symmetric and self.lasting

    @property
    def links(self) -> Links:
        """Every agent's links, n slots each: slot j of agent i is its link with j."""
        self.require_linked()
        return all_links(self.n, self._linked, self.degree)

    def matrix(self) -> jax.Array:
        """Return W itself."""
        return self.weights

    @property
    def _linked(self) -> jax.Array:
        return (self.weights != 0) & ~np.eye(self.n, dtype=bool)


def all_links(n: int, present: jax.Array, degree: Any = None) -> Links:
    """Return a table of links with n slots an agent, of which those in ``present`` [n, n] exist."""
    senders = jnp.broadcast_to(jnp.arange(n), (n, n))
    degree = present.sum(axis=1) if degree is None else degree
    return Links(senders, senders.T, present, degree)
