"""Rules that look at the spectrum of the messages, or at the angles between them."""

from typing import Annotated, Any

import jax
import jax.numpy as jnp

from jaxdopt._checks import Count
from jaxdopt._pytree import pytree, static
from jaxdopt.aggregators.messages import (
    Received,
    Tolerant,
    Weighted,
    Whole,
    equally,
    gram,
    length,
    receive,
    whole,
)


@pytree
class CAF(Tolerant, Weighted):
    """The mean of messages weighted down along the directions in which they vary most.

    From c = 1, while Σ c > m − 2f:  μ = Σᵢ cᵢ xᵢ / Σ c, (λ, v) the largest eigenvalue of
    Σᵢ cᵢ (xᵢ − μ)(xᵢ − μ)ᵀ / Σ c with its eigenvector, tᵢ = ⟨xᵢ − μ, v⟩²,
    cᵢ ← cᵢ (1 − tᵢ / max t), the maximum over cᵢ > 0. The μ of the smallest λ is the result; with
    f = 0 the mean. A message that is not finite has c = 0 from the start.

    Args:
        f: the number of liars, fewer than half of the messages.

    Source: Allouah, Guerraoui, Stephan (2025), arXiv 2505.01874 ("covariance-bound agnostic
    filter"). No κ was found: its guarantee is in terms of the covariance.
    """

    def _weights(self, received: Received, own: Any) -> jax.Array:
        products, dtype = gram(received), received.rows.dtype
        needed = 2 * self._kept(received.count) - received.count  # m − 2f
        start, rounding = received.finite.astype(dtype), 1000 * jnp.finfo(dtype).eps

        def step(carry: Any) -> Any:
            c, smallest, best = carry
            part = c / jnp.sum(c)
            inner = products @ part
            centered = products - inner[:, None] - inner + part @ inner
            root = length(part)
            values, vectors = eigh(root[:, None] * centered * root)
            along = centered @ (root * vectors[:, -1])
            widest = jnp.max(jnp.where(c > 0, jnp.abs(along), 0))
            along = along / jnp.where(widest > 0, widest, 1)
            better = values[-1] < smallest
            best = jnp.where(better, part, best)
            weaker = c * (1 - along**2)
            weaker = jnp.where(weaker > rounding, weaker, 0)  # else equal messages might stay
            return weaker, jnp.minimum(values[-1], smallest), best

        def unless_done(carry: Any, _: Any) -> Any:
            return jax.lax.cond(jnp.sum(carry[0]) > needed, step, lambda same: same, carry), None

        # every step but the last sets the weight of one more message to 0
        carry = start, jnp.asarray(jnp.inf, dtype), start / jnp.maximum(jnp.sum(start), 1)
        return jax.lax.scan(unless_done, carry, length=len(start))[0][2]

    def kappa(self, n: int, f: int) -> None:
        """Return None: its guarantee is in terms of the covariance."""


@pytree
class Flag(Weighted):
    """The mean, projected on the subspace that is nearest to the messages' directions.

    (1/m) Y Yᵀ Σᵢ xᵢ, where Y has the r largest left singular vectors of the columns cᵢ aᵢ,
    aᵢ = xᵢ / |xᵢ|, with c = 1 first and then cᵢ = (|1 − |Yᵀaᵢ|²| + 10⁻⁷)^(−1/4): steps towards the
    least sum of √(1 − |Yᵀaᵢ|²). The subspace does not know signs: flipped messages stay.

    A message that is not finite has weight 0.

    Args:
        rank: r; by default ⌈(m + 1) / 2⌉.
        iterations: the number of singular value decompositions; static.

    Source: Almasi, Mishra, Vahdat Pour, Sastry, Beirami, et al. (2023), arXiv 2302.05865 ("flag
    aggregator"), without its term of differences; there the messages in the last sum have length 1.
    """

    rank: Annotated[Any, Whole(minimum=1)] | None = None
    iterations: Count = static(default=5)
    _centered = False

    def _weights(self, received: Received, own: Any) -> jax.Array:
        n, count = len(received.heard), received.count
        rank = (count + 2) // 2 if self.rank is None else whole(self.rank)
        norms = length(received.squares)
        inverse = jnp.where(norms > 0, 1 / jnp.where(norms > 0, norms, 1), 0)
        cosines = inverse[:, None] * gram(received) * inverse
        weights, held = jnp.ones_like(norms), jnp.zeros_like(cosines)
        for _ in range(self.iterations):
            used = weights  # of the decomposition that held is of
            values, vectors = eigh(weights[:, None] * cosines * weights)
            top = jnp.arange(n) >= n - rank
            held = jnp.where(top, vectors, 0) @ vectors.T
            explained = jnp.sum(jnp.where(top, values * vectors**2, 0), axis=1) / weights**2
            weights = (jnp.abs(1 - explained) + 1e-7) ** -0.25
        return used * (held @ (norms / used)) * inverse / count

    def breakdown(self, n: int) -> int:
        """Return 0: a long message is not cut."""
        return 0

    def kappa(self, n: int, f: int) -> None:
        """Return None: there is none."""


@pytree
class FoolsGold(Weighted):
    """The mean of messages weighted down by their similarity to others: against Sybils.

    With cosines sᵢⱼ, sᵢᵢ = 0, and mᵢ = maxⱼ sᵢⱼ + 10⁻⁵: where mᵢ < mⱼ, sᵢⱼ ← sᵢⱼ mᵢ / mⱼ
    ("pardoning"); aᵢ = 1 − maxⱼ sᵢⱼ in [0, 1], divided by the largest;
    wᵢ = ln(aᵢ / (1 − aᵢ)) + 1/2 in [0, 1].
    The result is Σᵢ wᵢ xᵢ / Σᵢ wᵢ, and the mean where all weights are 0.

    A message that is not finite has weight 0. ``weights`` are the w themselves; they are meant for
    histories of updates, [n, d], not for models, which are all similar.

    Source: Fung, Yoon, Beschastnikh (2020), arXiv 1808.04866; Werthenbach, Pouwelse (2023),
    arXiv 2306.15044 (SybilWall).
    """

    _centered = False

    def _weights(self, received: Received, own: Any) -> jax.Array:
        weights = _trust(received)
        total = jnp.sum(weights)
        equal = equally(received.heard, received.count, weights)
        return jnp.where(total > 0, weights / jnp.where(total > 0, total, 1), equal)

    def weights(self, x: Any, heard: Any = None, own: Any = 0) -> jax.Array:
        """Return the w [n] of histories x [n, d], before they are divided by their sum."""
        return _trust(receive(x, heard, centered=False))

    def breakdown(self, n: int) -> int:
        """Return 0: a message like no other has weight 1, however long."""
        return 0

    def kappa(self, n: int, f: int) -> None:
        """Return None: there is none."""


def _trust(received: Received) -> jax.Array:
    """Return FoolsGold's weights."""
    norms = length(received.squares)
    inverse = jnp.where(norms > 0, 1 / jnp.where(norms > 0, norms, 1), 0)
    others = received.finite & received.finite[:, None] & ~jnp.eye(len(norms), dtype=bool)
    cosines = jnp.where(others, inverse[:, None] * gram(received) * inverse, 0)
    most = jnp.max(cosines, axis=1) + 1e-5
    cosines = jnp.where(most[:, None] < most, cosines * (most[:, None] / most), cosines)
    alone = jnp.clip(1 - jnp.max(cosines, axis=1), 0, 1)
    alone = jnp.where(received.finite, alone, 0)
    largest = jnp.max(alone)
    alone = alone / jnp.where(largest > 0, largest, 1)
    alone = jnp.clip(alone, 0.3, 0.7)  # where the next line is between 0 and 1, and finite
    return jnp.where(received.finite, jnp.clip(jnp.log(alone / (1 - alone)) + 0.5, 0, 1), 0)


@jax.custom_jvp
def eigh(a: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return eigenvalues and eigenvectors of a symmetric matrix, with slopes that are finite.

    Within a multiple eigenvalue vectors can turn freely, and have the slope 0 here.
    """
    values, vectors = jnp.linalg.eigh(a)
    return values, vectors


@eigh.defjvp
def _eigh_slope(primals: Any, tangents: Any) -> Any:
    (a,), (da,) = primals, tangents
    values, vectors = eigh(a)
    turned = vectors.T @ ((da + da.T) / 2) @ vectors
    gaps = values[None, :] - values[:, None]
    equal = jnp.abs(gaps) <= 16 * jnp.finfo(a.dtype).eps * jnp.max(jnp.abs(values)) * len(a)
    turning = jnp.where(equal, 0, 1 / jnp.where(equal, 1, gaps)) * turned
    return (values, vectors), (jnp.diagonal(turned), vectors @ turning)
