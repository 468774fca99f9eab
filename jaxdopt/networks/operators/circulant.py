"""W with the same weights seen from every agent: rings, exponential graphs."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp

from jaxdopt._checks import count, require
from jaxdopt._leaves import is_traced
from jaxdopt._pytree import pytree, replace, static
from jaxdopt.networks import spectra
from jaxdopt.networks.checks import (
    TOLERANCE,
    require_finite,
    require_symmetry,
)
from jaxdopt.networks.operators.base import Keep, Links, Operator
from jaxdopt.networks.operators.halo import Devices, Halo
from jaxdopt.networks.operators.sparse import Neighbors

ROLLED = 2  # offsets up to which rolls are quicker than slices: fusions give up on many rolls

SHIFTS = 64  # offsets up to which a circulant matrix is applied by shifts


@pytree
class Circulant(Operator):
    """W with the same weights seen from every agent, for rings and exponential graphs.

    (W x)ᵢ = xᵢ + Σ_o w_o (x_{i + o mod n} − xᵢ), computed by shifts rather than gathers: if agents
    are spread over devices, shifts become exchanges between neighboring devices.

    Args:
        weights: w_o of each offset, [len(offsets)].
        offsets: o, each in 1 ... n − 1; static.
        n: the number of agents; static.
        k: the round's number; set by ``at``.
        active: which agents are awake, [n] bool; by default all.
        symmetric: whether W = Wᵀ; static.
        lasting: whether links are the same in every round; static.
        halo: the plan by which devices exchange rows; see `jaxdopt.networks.sharded`.
    """

    weights: Any
    offsets: tuple[int, ...] = static()
    n: int = static()
    k: Any = None
    active: Any = None
    symmetric: bool = static(default=True)
    lasting: bool = static(default=True)
    halo: Halo | None = None

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
        if self.halo is not None and len(self.offsets) > ROLLED:
            return self._table._pull(x)
        pull = jnp.zeros_like(x)
        for weight, shifted in zip(self.weights.astype(x.dtype), self._shifted(x), strict=True):
            pull = pull + weight * (shifted - x)
        return pull

    def _shifted(self, x: jax.Array) -> list[jax.Array]:
        """Return x shifted by every offset: rolled, or sliced out of x with a halo."""
        if len(self.offsets) <= ROLLED:
            return [jnp.roll(x, -offset, axis=0) for offset in self.offsets]
        signed = [o if 2 * o <= self.n else o - self.n for o in self.offsets]
        first, last = min(0, *signed), max(0, *signed)
        halo = jnp.concatenate([x[self.n + first :], x, x[:last]])
        return [jax.lax.slice_in_dim(halo, o - first, o - first + self.n) for o in signed]

    def over(self, devices: Devices) -> "Circulant":
        """Return the operator with a plan of the rows that devices exchange."""
        senders = np.broadcast_to(
            _senders(self.n, self.offsets),
            (*np.shape(self.weights)[:-1], self.n, len(self.offsets)),
        )
        return replace(self, halo=devices.halo(self.n, [(np.arange(self.n), senders)]))

    def _cut(self, keep: Keep) -> Neighbors:
        return self._table._cut(keep)

    @property
    def _table(self) -> Neighbors:
        senders = jnp.asarray(_senders(self.n, self.offsets))
        return Neighbors(
            senders,
            jnp.broadcast_to(self.weights, senders.shape),
            k=self.k,
            active=self.active,
            symmetric=self.symmetric,
            lasting=self.lasting,
            halo=self.halo,
        )

    @property
    def link_count(self) -> Any:
        """The number of directed links with a nonzero weight."""
        return self.n * jnp.sum(self.weights != 0)

    @property
    def linked(self) -> bool:  # type: ignore[override]
        """Whether there is a table of `links` for all rounds: every offset has its opposite."""
        opposite = {self.n - offset for offset in self.offsets}
        return self.lasting and opposite == set(self.offsets)

    @property
    def links(self) -> Links:
        """Every agent's links, a slot an offset."""
        self.require_linked()
        sender = jnp.asarray(_senders(self.n, self.offsets))
        reverse = jnp.array([self.offsets.index(self.n - o) for o in self.offsets], int)
        return Links(
            sender,
            jnp.broadcast_to(reverse, sender.shape),
            jnp.ones_like(sender, dtype=bool),
            jnp.full(self.n, len(self.offsets)),
            self.halo,
        )

    @property
    def in_neighbors(self) -> tuple[jax.Array, jax.Array]:
        """Whom every agent hears: senders [n, offsets], and which slots have one."""
        senders = jnp.asarray(_senders(self.n, self.offsets))
        return senders, jnp.broadcast_to(jnp.asarray(self.weights) != 0, senders.shape)

    @property
    def diagonal(self) -> jax.Array:
        """The diagonal of W, [n]: the weight of every agent's own value."""
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


def _senders(n: int, offsets: tuple[int, ...]) -> np.ndarray:
    """Return whom every agent hears, [n, offsets]."""
    return (np.arange(n)[:, None] + np.array([offsets], int)) % n
