"""Several rounds of communication in one exchange: powers and Chebyshev polynomials of W.

``network @ x`` then takes ``repetitions`` rounds, and `run` counts so many. If the network changes
with time, step k uses its rounds k K, ..., k K + K − 1. The operators add up the rounds'
differences, so that the mean is kept as well as in a single round.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxdopt import _repr
from jaxdopt._checks import count, require
from jaxdopt._numbers import number
from jaxdopt._opaque import traceable
from jaxdopt._pytree import pytree, replace, static
from jaxdopt._wrapper import rewrap, wrapped
from jaxdopt.networks import spectra
from jaxdopt.networks.failures import Failing
from jaxdopt.networks.operators.base import Keep, Operator
from jaxdopt.networks.wrapper import Wrapper


class Polynomial(Operator, Wrapper):
    """The base of both: a polynomial of degree K in W, applied by K rounds of the network."""

    repetitions: int
    key: Any
    k: Any
    keeps = ("n", "kind", "varies", "cuttable", "_stacked")

    @property
    def pushes(self) -> bool:  # type: ignore[override]
        """Whether push-sum weights stay positive on the wrapped network."""
        return "push" in self.network.offers

    @property
    def horizon(self) -> int | None:
        """The number of steps for which the wrapped network has rounds; None if unlimited."""
        rounds = getattr(wrapped(self), "horizon", None)
        return None if rounds is None else rounds // self.repetitions

    def _facts(self) -> dict[str, str]:
        return _repr.fields(self)

    @property
    def link_count(self) -> Any:
        """The number of directed links in a round, the mean over the rounds if they differ."""
        if not self.network.varies:
            return self.network.link_count
        rounds = jnp.arange(self.repetitions)
        return jnp.mean(jax.lax.map(lambda r: jnp.asarray(self._round(r).link_count), rounds))

    def _cut(self, keep: Keep) -> Any:
        within = wrapped(self)
        return rewrap(self, _Cut(within, traceable(keep)) if within.varies else within.cut(keep))

    def _round(self, r: Any) -> Any:
        if not self.network.varies:
            return self.network
        require(
            self.k is not None,
            f"a {type(wrapped(self)).__name__} network changes with time; take one step's, "
            "network.at(k, key).",
        )
        now = self.network.at(self.k * self.repetitions + r, self.key)
        return getattr(now, self.kind) if self.kind in ("row", "column") else now


@pytree
class Repeated(Polynomial):
    """Wᴷ: K rounds in one exchange.

    Args:
        network: any network with one matrix; it may change with time.
        repetitions: K ≥ 1; static.
        key: the run's, for a network that changes with time; set by ``at``.
        k: the round's number; set by ``at``.
        active: which agents are awake, [n] bool; by default all.

    Raises:
        ValueError: a count below 1, or a network of two parts, with inactive agents, or that takes
            several rounds an exchange itself.
    """

    network: Any
    repetitions: int = static()
    key: Any = None
    k: Any = None
    active: Any = None

    def __post_init__(self) -> None:
        """Check the number of rounds."""
        _require_rounds(wrapped(self), self.repetitions)

    def at(self, k: Any, key: jax.Array) -> Any:
        """Return step k's network."""
        return self._as_round(replace(self, k=k, key=key if self.varies else None))

    @property
    def symmetric(self) -> bool:
        """Whether Wᴷ is symmetric; a product of different symmetric matrices is not."""
        return self.network.symmetric and not self.network.varies

    @property
    def spectral_gap(self) -> float:
        """1 − |λ₂|ᴷ, λ₂ the second eigenvalue of the wrapped network."""
        if self.network.varies:
            return spectra.gap(self.eigenvalues)
        return 1 - (1 - self.network.spectral_gap) ** self.repetitions

    def _pull(self, x: jax.Array) -> jax.Array:
        def body(r: Any, pull: jax.Array) -> jax.Array:
            return pull - self._round(r).laplacian(x + pull)

        return jax.lax.fori_loop(0, self.repetitions, body, jnp.zeros_like(x))


@pytree
class Chebyshev(Polynomial):
    """T_K(W / λ) / T_K(1 / λ), λ = 1 − gap: the polynomial in W that averages best in K rounds.

    The error falls by 1 / T_K(1/λ) ≈ 2 exp(−K √(2 gap)) instead of (1 − gap)ᴷ. Computed by
    y_{r+1} = y_{r−1} + ω_{r+1} (W y_r − y_{r−1}), ω₁ = 1, ω₂ = 1 / (1 − λ²/2),
    ω_{r+1} = 1 / (1 − λ² ω_r / 4).

    Args:
        network: a fixed network with symmetric weights.
        repetitions: K ≥ 1; static.
        radius: λ, at least the modulus of W's second eigenvalue; computed if not given.
        k: the round's number; set by ``at``.
        active: which agents are awake, [n] bool; by default all.

    Raises:
        ValueError: what `Repeated` refuses, a network that changes with time or is not symmetric,
            or a radius outside [0, 1].

    Source: Golub, Varga (1961), "Chebyshev semi-iterative methods"; for gossip, Scaman, Bach,
    Bubeck, Lee, Massoulié (2017), arXiv 1702.08704, algorithm 2.
    """

    network: Any
    repetitions: int = static()
    radius: Any = None
    k: Any = None
    active: Any = None
    symmetric = True
    key = None

    def __post_init__(self) -> None:
        """Check the network and the number of rounds, and compute a radius that is not given."""
        _require_rounds(wrapped(self), self.repetitions)
        require(
            not self.network.varies and self.network.symmetric,
            "Chebyshev needs one network with a symmetric W; use Repeated for others.",
        )
        radius = 1 - self.network.spectral_gap if self.radius is None else self.radius
        object.__setattr__(self, "radius", number("radius", radius, minimum=0.0, maximum=1.0))

    def _pull(self, x: jax.Array) -> jax.Array:
        square = jnp.asarray(self.radius, x.dtype) ** 2

        def body(_: Any, carry: Any) -> Any:
            before, pull, omega = carry
            omega = 1 / (1 - square * omega / 4)
            moved = pull - self.network.laplacian(x + pull) - before
            return pull, before + omega * moved, omega

        first = -self.network.laplacian(x)
        # with ω₁ = 2 the recursion gives ω₂ = 1 / (1 − λ²/2)
        start = (jnp.zeros_like(x), first, jnp.asarray(2.0, x.dtype))
        return jax.lax.fori_loop(1, self.repetitions, body, start)[1]


@pytree
class _Cut(Failing):
    """A network that changes with time, with links cut in all of its rounds as ``keep`` says."""

    keep: Any

    def at(self, k: Any, key: jax.Array) -> Any:
        """Return round k's network."""
        return self.network.at(k, key).cut(self.keep)


def _require_rounds(network: Any, repetitions: Any) -> None:
    count("repetitions", repetitions)
    require(
        getattr(network, "kind", None) in ("doubly", "row", "column"),
        f"a {type(network).__name__} network has no one matrix to repeat; give one with weights, "
        "such as jd.networks.metropolis(graph).",
    )
    require(
        "all" in network.offers,
        "an agent would have to sleep through all rounds of an exchange; give "
        "Asleep(Repeated(network, repetitions), pattern).",
    )
    rounds = network.repetitions
    require(
        rounds == 1,
        f"the network takes {rounds} rounds an exchange itself; give the one that it wraps, and "
        f"all {rounds} * {repetitions} repetitions.",
    )
