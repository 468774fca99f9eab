"""Mixing matrices as operators: ``network @ x`` is W x on any pytree with a leading agent axis.

All four compute x + Σⱼ wᵢⱼ (xⱼ − xᵢ) rather than Σⱼ wᵢⱼ xⱼ, in float32 at least: at consensus the
difference is exactly zero, and where wᵢⱼ and wⱼᵢ are equal bit for bit what flows from i to j is
minus what flows from j to i, so that the mean does not drift in float32. ``laplacian(x)`` is
(I − W) x by the same differences: primal-dual methods accumulate it, and its sum has to stay zero.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg

from jaxdopt import agents
from jaxdopt._pytree import is_traced, pytree, replace, require, static

T = TypeVar("T")

UNROLLED = 16  # neighbor slots an operator unrolls; an agent's further neighbors go to tiers
DENSE_SPECTRUM = 2048  # agents up to which the spectrum is computed from the dense matrix


@pytree
class Links:
    """The directed links of a network: slot s of agent i hears ``sender[i, s]``.

    An edge variable m is [n, s, ...], slot s of row i belonging to i's link with that neighbor;
    what arrives at every slot is ``m[sender, reverse]``.
    """

    sender: jax.Array  # [n, s] int
    reverse: jax.Array  # [n, s] int: the slot at the sender that belongs to agent i
    present: jax.Array  # [n, s] bool: false where a slot is padding


class _Operator:
    """What the four operators share: a fixed, doubly stochastic W with nobody asleep."""

    n: Any  # the number of agents
    k: Any  # the step, once `at` has set it
    symmetric: bool

    def _pull(self, x: jax.Array) -> jax.Array:
        """Return (W − I) x for an array [n, ...] of at least float32."""
        raise NotImplementedError

    def __matmul__(self, x: T) -> T:
        return self._map(lambda leaf: leaf + self._pull(leaf), x)

    def laplacian(self, x: T) -> T:
        """Return (I − W) x, whose sum over agents is zero up to the rounding of the differences."""
        return self._map(lambda leaf: -self._pull(leaf), x)

    def mean(self, x: T) -> T:
        """Return the mean over agents, leaves [n, ...] -> [...]."""
        return agents.average(x)

    def at(self, k: Any, key: jax.Array) -> Any:
        """Return round k's network: this one, with the time set."""
        return replace(self, k=k)

    @property
    def time(self) -> Any:
        """The step k; raises ValueError where `at` has not set it."""
        if self.k is None:
            raise ValueError(
                "this method needs the time and the network has none; "
                "pass network.at(k, key) to step."
            )
        return self.k

    @property
    def row(self) -> Any:
        """The row-stochastic part: W itself."""
        return self

    @property
    def column(self) -> Any:
        """The column-stochastic part: W itself."""
        return self

    @property
    def active(self) -> None:
        """Who is awake, [n] bool, or None for everybody."""
        return None

    @property
    def link_count(self) -> Any:
        """The number of directed links with a nonzero weight."""
        raise NotImplementedError

    def matrix(self) -> jax.Array:
        """Return W as a dense [n, n] array."""
        return self @ jnp.eye(self.n)

    @property
    def eigenvalues(self) -> np.ndarray:
        """All n eigenvalues of W by decreasing modulus, computed on the host; complex if needed."""
        matrix = np.asarray(self.matrix(), float)
        values = np.linalg.eigvalsh(matrix) if self.symmetric else np.linalg.eigvals(matrix)
        return _by_modulus(values)

    @property
    def spectral_gap(self) -> float:
        """1 − |λ₂|, λ₂ the largest eigenvalue of W in modulus but for the one of the mean."""
        values = self.eigenvalues
        others = np.delete(values, np.argmin(np.abs(values - 1)))
        return float(1 - np.abs(others).max(initial=0))

    @property
    def _stacked(self) -> bool:
        """Whether this is a stack of networks rather than one."""
        return False

    def _map(self, apply: Callable[[jax.Array], jax.Array], x: T) -> T:
        require(
            not self._stacked,
            "this is a stack of networks; take one, or sweep over them with "
            'jd.sweep(jd.run, over=("network",)).',
        )

        def leaf(value: Any) -> jax.Array:
            value = jnp.asarray(value)
            require(
                value.shape[:1] == (self.n,),
                f"a leaf has shape {value.shape} and the network {self.n} agents; give [n, ...].",
            )
            wide = jnp.promote_types(value.dtype, jnp.float32)
            narrow = value.dtype if jnp.issubdtype(value.dtype, jnp.floating) else wide
            return apply(value.astype(wide)).astype(narrow)

        return jax.tree.map(leaf, x)


@pytree
class Dense(_Operator):
    """W as an [n, n] array, for small or dense graphs; the mean is kept by projection."""

    weights: Any  # [n, n], doubly stochastic
    k: Any = None
    symmetric: bool = static(default=None)

    def __post_init__(self) -> None:
        """Check the shape; find out whether a concrete matrix is symmetric."""
        weights = self.weights
        require(
            np.ndim(weights) == 2 and np.shape(weights)[0] == np.shape(weights)[1],
            f"weights has shape {np.shape(weights)}; give a square matrix.",
        )
        if self.symmetric is None:
            if is_traced(weights):
                raise ValueError("weights is traced; say Dense(weights, symmetric=True or False).")
            object.__setattr__(self, "symmetric", bool(np.allclose(weights, np.transpose(weights))))
        object.__setattr__(self, "weights", jnp.asarray(weights, jnp.result_type(weights, float)))

    @property
    def n(self) -> int:
        """The number of agents."""
        return self.weights.shape[-1]

    def _pull(self, x: jax.Array) -> jax.Array:
        away = x - x.mean(axis=0)
        mixed = jnp.tensordot(
            self.weights.astype(x.dtype), away, axes=1, precision=jax.lax.Precision.HIGHEST
        )
        pull = mixed - away
        return pull - pull.mean(axis=0)

    @property
    def _stacked(self) -> bool:
        return self.weights.ndim != 2

    @property
    def link_count(self) -> jax.Array:
        """The number of directed links with a nonzero weight."""
        return jnp.sum(self._linked)

    @property
    def links(self) -> Links:
        """Every agent's links, n slots each: slot j of agent i is its link with j."""
        require(self.symmetric, "links need every neighbor to hear back; this W is directed.")
        return _all_links(self.n, self._linked)

    def matrix(self) -> jax.Array:
        """Return W itself."""
        return self.weights

    @property
    def _linked(self) -> jax.Array:
        return (self.weights != 0) & ~jnp.eye(self.n, dtype=bool)


@pytree
class Neighbors(_Operator):
    """W as a padded table of neighbors, for sparse graphs of any size.

    The first 16 slots are unrolled over all agents; agents with more neighbors have the rest in
    tiers of doubling width, so that a star or a heavy-tailed graph costs no more than its edges.
    """

    index: Any  # [n, s] int: the neighbors of agent i, padded with i itself
    weights: Any  # [n, s], zero on the padding
    tiers: Any = ()  # of (agents [h], index [h, s], weights [h, s])
    k: Any = None
    symmetric: bool = static(default=True)

    @property
    def n(self) -> int:
        """The number of agents."""
        return self.index.shape[-2]

    @property
    def _stacked(self) -> bool:
        return self.index.ndim != 2

    def _pull(self, x: jax.Array) -> jax.Array:
        def weighted(weights: jax.Array, difference: jax.Array) -> jax.Array:
            trailing = (1,) * (difference.ndim - weights.ndim)
            return weights.astype(x.dtype).reshape(weights.shape + trailing) * difference

        pull = jnp.zeros_like(x)
        for s in range(self.index.shape[1]):
            pull = pull + weighted(self.weights[:, s], x[self.index[:, s]] - x)
        for hubs, index, weights in self.tiers:
            more = weighted(weights, x[index] - x[hubs][:, None]).sum(axis=1)
            pull = pull.at[hubs].add(more, unique_indices=True, indices_are_sorted=True)
        return pull

    @property
    def link_count(self) -> Any:
        """The number of directed links with a nonzero weight."""
        tables = [self.weights, *(weights for _, _, weights in self.tiers)]
        return sum(jnp.sum(weights != 0) for weights in tables)

    @property
    def links(self) -> Links:
        """Every agent's links, a slot a neighbor; ValueError if an agent has more than 16."""
        require(
            not self.tiers and self.symmetric,
            f"links are tabulated for symmetric weights and at most {UNROLLED} neighbors an agent; "
            "use jd.networks.mixing(W, form=jd.networks.Dense).",
        )
        me = jnp.arange(self.n)[:, None]
        reverse = jnp.argmax(self.index[self.index] == me[:, :, None], axis=-1)
        return Links(self.index, reverse, self.index != me)

    @property
    def spectral_gap(self) -> float:
        """1 − |λ₂|; by Lanczos or Arnoldi iteration for more than 2048 agents."""
        if self.n <= DENSE_SPECTRUM:
            return super().spectral_gap
        return sparse_gap(self._csr(), self.symmetric)

    def _csr(self) -> sp.csr_array:
        me = np.arange(self.n)
        tables = [(me, self.index, self.weights), *self.tiers]
        rows = [np.repeat(np.asarray(a), i.shape[1]) for a, i, _ in tables]
        columns = [np.asarray(i).ravel() for _, i, _ in tables]
        values = [np.asarray(w, float).ravel() for _, _, w in tables]
        away = sp.csr_array(
            (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))),
            shape=(self.n, self.n),
        )
        return sp.csr_array(away + sp.diags_array(1 - away.sum(axis=1)))


@pytree
class Circulant(_Operator):
    """W with the same weights seen from every agent: rolls, for rings and exponential graphs.

    (W x)ᵢ = xᵢ + Σ_o w_o (x_{i + o mod n} − xᵢ).
    """

    weights: Any  # [len(offsets)]
    offsets: tuple[int, ...] = static()  # each in 1 ... n − 1
    n: int = static()
    k: Any = None
    symmetric: bool = static(default=True)

    @property
    def _stacked(self) -> bool:
        return np.ndim(self.weights) != 1

    def _pull(self, x: jax.Array) -> jax.Array:
        weights = self.weights.astype(x.dtype)
        pull = jnp.zeros_like(x)
        for s, offset in enumerate(self.offsets):
            pull = pull + weights[s] * (jnp.roll(x, -offset, axis=0) - x)
        return pull

    @property
    def link_count(self) -> Any:
        """The number of directed links with a nonzero weight."""
        return self.n * jnp.sum(self.weights != 0)

    @property
    def links(self) -> Links:
        """Every agent's links, a slot an offset; ValueError if some offset has no opposite."""
        opposite = [self.n - offset for offset in self.offsets]
        require(
            set(opposite) == set(self.offsets),
            "links need every neighbor to hear back; this circulant network is directed.",
        )
        me = jnp.arange(self.n)[:, None]
        sender = (me + jnp.array(self.offsets, int)) % self.n
        reverse = jnp.array([self.offsets.index(o) for o in opposite], int)
        return Links(
            sender, jnp.broadcast_to(reverse, sender.shape), jnp.ones_like(sender, dtype=bool)
        )

    @property
    def eigenvalues(self) -> np.ndarray:
        """All n eigenvalues of W by decreasing modulus: 1 + Σ_o w_o (e^{2πi o j / n} − 1)."""
        angles = 2j * np.pi * np.outer(np.arange(self.n), self.offsets) / self.n
        values = 1 + (np.exp(angles) - 1) @ np.asarray(self.weights, float)
        return _by_modulus(np.real(values) if self.symmetric else values)


@pytree
class Complete(_Operator):
    """W = 11ᵀ / n, the exact average."""

    n: int = static()
    k: Any = None
    symmetric: bool = static(default=True)

    def __matmul__(self, x: T) -> T:
        return self._map(
            lambda leaf: jnp.broadcast_to(leaf[0] + (leaf - leaf[0]).mean(axis=0), leaf.shape), x
        )

    def _pull(self, x: jax.Array) -> jax.Array:
        away = x - x[0]
        return away.mean(axis=0) - away

    @property
    def link_count(self) -> int:
        """The number of directed links, n (n − 1)."""
        return self.n * (self.n - 1)

    @property
    def links(self) -> Links:
        """Every agent's links, n slots each: slot j of agent i is its link with j."""
        return _all_links(self.n, ~jnp.eye(self.n, dtype=bool))

    def matrix(self) -> jax.Array:
        """Return W as a dense [n, n] array."""
        return jnp.full((self.n, self.n), 1 / self.n)

    @property
    def eigenvalues(self) -> np.ndarray:
        """The eigenvalues 1, 0, ..., 0."""
        return np.eye(1, self.n)[0]


def _all_links(n: int, present: jax.Array) -> Links:
    senders = jnp.broadcast_to(jnp.arange(n), (n, n))
    return Links(senders, senders.T, present)


def _by_modulus(values: np.ndarray) -> np.ndarray:
    return values[np.argsort(-np.abs(values), kind="stable")]


def sparse_gap(matrix: sp.csr_array, symmetric: bool) -> float:
    """Return 1 − |λ₂| of a sparse W by Lanczos or Arnoldi iteration on W − 11ᵀ / n."""
    n = matrix.shape[0]
    away = scipy.sparse.linalg.LinearOperator(
        shape=matrix.shape, matvec=lambda v: matrix @ v - v.mean(), dtype=float
    )
    solve = scipy.sparse.linalg.eigsh if symmetric else scipy.sparse.linalg.eigs
    start = np.cos(np.arange(n) ** 1.5)  # fixed, and not orthogonal to any smooth eigenvector
    try:
        value = solve(away, k=1, which="LM", v0=start, return_eigenvectors=False, ncv=min(n, 64))
    except scipy.sparse.linalg.ArpackNoConvergence:
        raise ValueError(
            f"the spectral gap of this network of {n} agents did not converge, as it is tiny; "
            "compute it in closed form, or for a smaller network of the kind."
        ) from None
    return float(1 - np.abs(value[0]))
