"""Operators whose matrix is dense, or the same seen from every agent, or the average; servers."""

from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp

from jaxdopt import agents
from jaxdopt._pytree import count, is_traced, pytree, replace, require, static
from jaxdopt.networks import graphs, spectra
from jaxdopt.networks.checks import (
    TOLERANCE,
    require_finite,
    require_real,
    require_sums,
    require_symmetry,
)
from jaxdopt.networks.operator import Keep, Links, Operator
from jaxdopt.networks.tables import Neighbors
from jaxdopt.roles import Missing, Network, lacks

ROLLED = 2  # offsets up to which rolls are quicker than slices: fusions give up on many rolls
SHIFTS = 64  # offsets up to which a circulant matrix is applied by shifts


@pytree
class Dense(Operator):
    """W as an [n, n] array, for small or dense graphs; the mean is kept by projection."""

    weights: Any  # [n, n]
    k: Any = None
    active: Any = None
    symmetric: bool = static(default=None)
    kind: str = static(default="doubly")  # what sums to 1: "doubly", "row" or "column"
    pushes: bool = static(default=None)  # whether push-sum weights stay above 0
    lasting: bool = static(default=True)  # whether links are the same in every round
    degree: Any = None  # [n] int: the number of neighbors, where links are cut

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
            lasts = not known or graphs.keeps_pushing(sp.csr_array(np.asarray(weights)))
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
        kept = jnp.where(
            keep(me[:, None], me[None]) & ~jnp.eye(self.n, dtype=bool), self.weights, 0
        )
        own = 1 - kept.sum(axis=0 if self.kind == "column" else 1)
        return replace(self, weights=kept + jnp.diag(own))

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
        return _all_links(self.n, self._linked, self.degree)

    def matrix(self) -> jax.Array:
        """Return W itself."""
        return self.weights

    @property
    def _linked(self) -> jax.Array:
        return (self.weights != 0) & ~jnp.eye(self.n, dtype=bool)


@pytree
class Circulant(Operator):
    """W with the same weights seen from every agent, for rings and exponential graphs.

    (W x)ᵢ = xᵢ + Σ_o w_o (x_{i + o mod n} − xᵢ). Shifts, and not gathers: over devices they become
    exchanges with neighbors.
    """

    weights: Any  # [len(offsets)]
    offsets: tuple[int, ...] = static()  # each in 1 ... n − 1
    n: int = static()
    k: Any = None
    active: Any = None
    symmetric: bool = static(default=True)
    lasting: bool = static(default=True)  # whether links are the same in every round

    def __post_init__(self) -> None:
        """Check offsets, and that the weights average."""
        n = count("n", self.n)
        offsets = tuple(self.offsets)
        object.__setattr__(self, "offsets", offsets)
        require(
            len(set(offsets)) == len(offsets)
            and all(isinstance(o, int | np.integer) and 1 <= o < n for o in offsets),
            f"offsets is {offsets} and n {n}; give different integers from 1 to {n - 1}.",
        )
        require(
            np.shape(self.weights)[-1:] == (len(offsets),),
            f"weights has shape {np.shape(self.weights)} and there are {len(offsets)} offsets; "
            "give one weight an offset, as the rest stays with the agent.",
        )
        if is_traced(self.weights) or self._stacked:
            return
        known = np.asarray(self.weights, float)
        require_finite(known)
        opposite = dict(zip(offsets, known, strict=True))
        even = all(np.isclose(opposite.get(n - o, 0), w) for o, w in opposite.items())
        require_symmetry(self.symmetric, even)
        if known.sum() > 1 or known.min(initial=0) < 0:  # otherwise all averages are convex
            radius = np.abs(self.eigenvalues).max()
            require(
                radius <= 1 + TOLERANCE,
                f"the weights sum to {known.sum():.6g} and W has an eigenvalue of modulus "
                f"{radius:.6g}, so that it does not average; give smaller weights.",
            )

    @property
    def _stacked(self) -> bool:
        return np.ndim(self.weights) != 1

    def _pull(self, x: jax.Array) -> jax.Array:
        pull = jnp.zeros_like(x)
        for weight, shifted in zip(self.weights.astype(x.dtype), self._shifted(x), strict=True):
            pull = pull + weight * (shifted - x)
        return pull

    def _shifted(self, x: jax.Array) -> list[jax.Array]:
        """Return x as it is seen at every offset: by rolls, or cut out of x with a halo."""
        if len(self.offsets) <= ROLLED:
            return [jnp.roll(x, -offset, axis=0) for offset in self.offsets]
        signed = [o if 2 * o <= self.n else o - self.n for o in self.offsets]
        first, last = min(0, *signed), max(0, *signed)
        halo = jnp.concatenate([x[self.n + first :], x, x[:last]])
        return [jax.lax.slice_in_dim(halo, o - first, o - first + self.n) for o in signed]

    def _cut(self, keep: Keep) -> Neighbors:
        senders = self._senders
        weights = jnp.broadcast_to(self.weights, senders.shape)
        table = Neighbors(
            senders,
            weights,
            k=self.k,
            active=self.active,
            symmetric=self.symmetric,
            lasting=self.lasting,
        )
        return table._cut(keep)

    @property
    def _senders(self) -> jax.Array:
        return (jnp.arange(self.n)[:, None] + jnp.array([self.offsets], int)) % self.n

    @property
    def link_count(self) -> Any:
        """The number of directed links with a nonzero weight."""
        return self.n * jnp.sum(self.weights != 0)

    @property
    def linked(self) -> bool:  # type: ignore[override]
        """Whether there is a table of `links`, for all rounds: every offset has an opposite."""
        opposite = {self.n - offset for offset in self.offsets}
        return self.lasting and opposite == set(self.offsets)

    @property
    def links(self) -> Links:
        """Every agent's links, a slot an offset."""
        self.require_linked()
        sender = self._senders
        reverse = jnp.array([self.offsets.index(self.n - o) for o in self.offsets], int)
        return Links(
            sender,
            jnp.broadcast_to(reverse, sender.shape),
            jnp.ones_like(sender, dtype=bool),
            jnp.full(self.n, len(self.offsets)),
        )

    @property
    def diagonal(self) -> jax.Array:
        """What every agent keeps of its own, [n]."""
        return jnp.full(self.n, 1 - jnp.sum(self.weights))

    def csr(self) -> sp.csr_array:
        """Return W as a scipy.sparse matrix, on the host."""
        return self._cut(lambda i, j: i != j).csr()

    @property
    def eigenvalues(self) -> np.ndarray:
        """All n eigenvalues of W by decreasing modulus: 1 + Σ_o w_o (e^{2πi o j / n} − 1)."""
        angles = 2j * np.pi * np.outer(np.arange(self.n), self.offsets) / self.n
        values = 1 + (np.exp(angles) - 1) @ np.asarray(self.weights, float)
        return spectra.by_modulus(np.real(values) if self.symmetric else values)


@pytree
class Complete(Operator):
    """W = 11ᵀ / n, the exact average."""

    n: int = static()
    k: Any = None
    active: Any = None
    symmetric: bool = static(default=True)
    lasting: bool = static(default=True)  # whether links are the same in every round

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
        return _all_links(self.n, ~jnp.eye(self.n, dtype=bool))

    @property
    def diagonal(self) -> jax.Array:
        """What every agent keeps of its own, 1 / n: [n]."""
        return jnp.full(self.n, 1 / self.n)

    def matrix(self) -> jax.Array:
        """Return W as a dense [n, n] array."""
        return jnp.full((self.n, self.n), 1 / self.n)

    @property
    def eigenvalues(self) -> np.ndarray:
        """The eigenvalues 1, 0, ..., 0."""
        return np.eye(1, self.n)[0]


@pytree
class Server(Network):
    """A server and n clients, over one link up and one down for every client.

    Clients do not hear each other: there is no ``@``, and the server's average is `mean`. In a
    round where only some take part, ``active`` says who. ``clients`` [s] names the same ones where
    they are few, so that work follows them: padded to s by different indices of n and more.
    """

    n: int = static()
    k: Any = None
    active: Any = None
    clients: Any = None
    symmetric = True
    kind = "server"
    cuttable = varies = False
    repetitions = 1

    def __post_init__(self) -> None:
        """Check the number of clients."""
        count("n", self.n)

    @property
    def offers(self) -> frozenset[str]:  # type: ignore[override]
        """What every round can do; see `jaxdopt.roles`."""
        everybody = self.active is None and self.clients is None
        return frozenset({"server", "all"} if everybody else {"server"})

    def __matmul__(self, x: Any) -> NoReturn:
        raise Missing(lacks(self, "mixing", "network @ x"))

    mean = Operator.mean
    awake = Operator.awake
    time = Operator.time

    def at(self, k: Any, key: jax.Array) -> Any:
        """Return round k's network: this one, with the time set."""
        return replace(self, k=k)

    @property
    def link_count(self) -> int:
        """The number of directed links: 2 n, all with the server."""
        return 2 * self.n


def _all_links(n: int, present: jax.Array, degree: Any = None) -> Links:
    senders = jnp.broadcast_to(jnp.arange(n), (n, n))
    degree = present.sum(axis=1) if degree is None else degree
    return Links(senders, senders.T, present, degree)
