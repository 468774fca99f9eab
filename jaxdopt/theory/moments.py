"""Exact second moments of outer loops on linear regression, and the laws of their modes.

M workers take K steps of SGD from the server's φ, each with fresh batches of B samples a ~ N(0, H),
b = aᵀx* + σ ε, and the server takes a step of an outer optimizer, as in `jd.DiLoCo`: M = 1 is
lookahead, K = 1 with η_o = 1 is SGD. Let H be diagonal with the eigenvalues h, φ and y distances
to x*, v the momentum, and P = E φ², Q = E φv, V = E v², vectors with an entry an eigenvalue. As
E (aaᵀ) Y (aaᵀ) = 2 H Y H + tr(H Y) H for Gaussian a, an inner step takes E y² to T E y² + c with

    T = diag((1 − η h)² + η² h² / B) + η² h hᵀ / B,    c = η² σ² h / B

Given φ workers are independent, and E y = ρ φ with ρ = (1 − η h)ᴷ, so that Δ = φ − mean yᵢ has

    E Δφ = (1 − ρ) P,   E Δv = (1 − ρ) Q,
    E Δ² = (1 − 2 ρ + (1 − 1/M) ρ²) P + (Tᴷ P + Σₖ Tᵏ c) / M

and v⁺ = μ v + Δ, φ⁺ = φ − η_o (p Δ + q v), where (p, q) = (1 + μ, μ²) with Nesterov's momentum and
(1, μ) with the heavy ball, takes (P, Q, V) to a linear function of them: exactly, in any dimension.

Without noise a mode h has φ⁺ = φ − η_o (p r φ + q v), v⁺ = μ v + r φ with r = 1 − ρ in the place
of ηh. With trace 1 + μ − η_o p r and determinant μ − η_o r (p μ − q) it is stable if and only if

    η_o r < 2 (1 + μ) / (1 + 2 μ)   with Nesterov's momentum,    η_o r < 2 (1 + μ)   else

for 0 ≤ μ < 1, and slow modes, r → 0, are faster by η_o / (1 − μ). All of this is derived here.
"""

import dataclasses
import functools
from typing import Any

import numpy as np

from jaxdopt._checks import count, require


@dataclasses.dataclass(frozen=True)
class Moments:
    """Second moments of an outer loop around SGD on linear regression, a round at a time.

    Args:
        spectrum: h > 0, the eigenvalues of the samples' covariance.
        stepsize: η, of local steps.
        local_steps: K.
        workers: M.
        server_stepsize: η_o, of the outer optimizer.
        momentum: μ, the outer optimizer's.
        batch: B, of each worker.
        noise: σ, of the labels.

    Raises:
        ValueError: a spectrum that is no row of positive numbers, or less than one of what counts.

    Example:
        >>> one = Moments((1.0, 0.5), 0.1, local_steps=8, server_stepsize=0.5)
        >>> round(one.floor, 4), round(one.rate, 4)
        (0.0184, 0.0451)
    """

    spectrum: tuple[float, ...]
    stepsize: float
    _: dataclasses.KW_ONLY
    local_steps: int = 1
    workers: int = 1
    server_stepsize: float = 1.0
    momentum: float = 0.0
    batch: int = 1
    noise: float = 1.0

    def __post_init__(self) -> None:
        """Check the spectrum and the counts."""
        h = np.asarray(self.spectrum, float)
        require(
            h.ndim == 1 and h.size > 0 and bool(np.all(h > 0)),
            f"spectrum is {self.spectrum}; give positive eigenvalues in a row.",
        )
        for name in ("local_steps", "workers", "batch"):
            count(name, getattr(self, name))

    @functools.cached_property
    def system(self) -> tuple[np.ndarray, np.ndarray]:
        """The matrix [3d, 3d] of a round for (P, Q, V), and what it adds, [3d]; Nesterov's μ."""
        h, d = np.asarray(self.spectrum, float), len(self.spectrum)
        eta, K, M, B = self.stepsize, self.local_steps, self.workers, self.batch
        eta_o, mu, rho = self.server_stepsize, self.momentum, (1 - eta * h) ** K
        T = np.diag((1 - eta * h) ** 2 + eta**2 * h**2 / B) + eta**2 * np.outer(h, h) / B
        power, added = np.eye(d), np.zeros(d)
        for _ in range(K):
            power, added = T @ power, T @ added + eta**2 * self.noise**2 * h / B
        P, Q, V = np.split(np.eye(3 * d), 3)
        with_x, with_v = (1 - rho)[:, None] * P, (1 - rho)[:, None] * Q  # E Δφ, E Δv
        square = (np.diag(1 - 2 * rho + (1 - 1 / M) * rho**2) + power / M) @ P  # E Δ²
        p, q = 1 + mu, mu**2
        matrix = [
            P
            - 2 * eta_o * (p * with_x + q * Q)
            + eta_o**2 * (p**2 * square + 2 * p * q * with_v + q**2 * V),
            mu * Q + with_x - eta_o * (p * square + (p * mu + q) * with_v + q * mu * V),
            mu**2 * V + 2 * mu * with_v + square,
        ]
        return np.vstack(matrix), np.kron([eta_o**2 * p**2, -eta_o * p, 1.0], added / M)

    @property
    def rate(self) -> float:
        """The rate at which second moments approach their limits, per local step; ≤ 0: never."""
        return float(-np.log(np.abs(np.linalg.eigvals(self.system[0])).max()) / self.local_steps)

    @property
    def floor(self) -> float:
        """The stationary excess risk E hᵀφ²/2, infinite if second moments have no limit."""
        matrix, added = self.system
        if self.rate <= 0:
            return np.inf
        return self._risk(np.linalg.solve(np.eye(len(added)) - matrix, added))

    def risks(self, rounds: int, away: Any = 1.0) -> np.ndarray:
        """Return the excess risks E hᵀφ²/2 after 0, 1, ..., rounds.

        Args:
            rounds: how many.
            away: φ − x* at the start, a number or [d].
        """
        matrix, added = self.system
        z = np.zeros(len(added))
        z[: len(self.spectrum)] = np.square(away)
        found = [self._risk(z)]
        for _ in range(rounds):
            z = matrix @ z + added
            found.append(self._risk(z))
        return np.array(found)

    def _risk(self, z: np.ndarray) -> float:
        return float(np.dot(self.spectrum, z[: len(self.spectrum)]) / 2)


def mode_rate(
    speed: Any,
    *,
    local_steps: int = 1,
    server_stepsize: float = 1.0,
    momentum: float = 0.0,
    local_momentum: float = 0.0,
    nesterov: bool = True,
) -> np.ndarray:
    """Return how fast modes decay without noise, per local step, of the outer loop's own matrix.

    Args:
        speed: η h of the modes.
        local_steps: K.
        server_stepsize: η_o.
        momentum: μ of the outer optimizer.
        local_momentum: of the local one, Nesterov's, which lives on between rounds.
        nesterov: whether the outer momentum is Nesterov's or the heavy ball.
    """
    x = np.asarray(speed, float)
    phi, v, w = np.eye(3).reshape(3, 3, *(1,) * x.ndim) * np.ones_like(x)
    y = phi
    for _ in range(local_steps):
        w = local_momentum * w + x * y
        y = y - (x * y + local_momentum * w)
    v = momentum * v + phi - y
    phi = phi - server_stepsize * (phi - y + momentum * v if nesterov else v)
    matrix = np.moveaxis(np.stack([phi, v, w]), (0, 1), (-2, -1))
    return -np.log(np.abs(np.linalg.eigvals(matrix)).max(-1)) / local_steps


def server_edge(momentum: Any, contraction: Any = 1.0, *, nesterov: bool = True) -> Any:
    """Return the largest stable η_o, 2 (1 + μ) / ((1 + 2 μ) r) or, heavy ball, 2 (1 + μ) / r.

    Args:
        momentum: μ in [0, 1), of the outer optimizer.
        contraction: r = 1 − (1 − η h)ᴷ > 0, the largest of all modes.
        nesterov: whether the momentum is Nesterov's or the heavy ball.
    """
    return 2 * (1 + momentum) / ((1 + 2 * momentum if nesterov else 1) * contraction)
