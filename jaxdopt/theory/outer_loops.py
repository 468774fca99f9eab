"""The laws of outer loops, in two numbers each: where `jd.CO2` and `jd.NoLoCo` are stable.

Both are spectral radii of linear recursions, below 1 if and only if the method contracts.

**CO2** on quadratics λ x²/2, of which K local steps with stepsize η take the share
r = 1 − (1 − η λ)^K away: xₜ₊₁ − xₜ = β (xₜ − xₜ₋₁) − (α r / Λ) xₜ₋₁, so that
z² − (1 + β) z + β + α r / Λ = 0, whose roots lie in the unit circle iff 0 < α r / Λ < 1 − β.

**NoLoCo** with Δ = 0 and n → ∞ agents that meet in random pairs, so that partners are independent.
With φ, δ as distances to their means, e = (φᵢ − φⱼ) / 2 has E|e|² = E⟨e, φᵢ⟩ = E|φ|² / 2 and
E⟨e, δᵢ⟩ = E⟨φ, δ⟩ / 2. Hence s = (E|φ|², E⟨φ, δ⟩, E|δ|²) follows from δ⁺ = α δ − γ e, φ⁺ = φ + δ⁺:

    s₃⁺ = γ² s₁ / 2 − α γ s₂ + α² s₃,   s₂⁺ = α s₂ − γ s₁ / 2 + s₃⁺,   s₁⁺ = s₁ + 2 s₂⁺ − s₃⁺

The recursion keeps moments moments, so that its radius is an eigenvalue. Where it is 1, s₃ = 2 s₂
and γ s₁ = 2 (1 + α) s₂, or γ = 0; then γ s₂ = 2 (1 − α²) s₂. Between the two it contracts.
"""

from typing import Any

import numpy as np


def co2_factor(gain: Any, *, momentum: Any, server_stepsize: Any, gap: Any) -> np.ndarray:
    """Return the factor per round of the distance to the solution of `jd.CO2` on a quadratic.

    Args:
        gain: r in [0, 2), what K local steps take away, 1 − (1 − η λ)^K.
        momentum: β.
        server_stepsize: α.
        gap: Λ.

    Returns:
        The largest |z| with z² − (1 + β) z + β + α r / Λ = 0, of the arguments' shape; it is below
        1 iff 0 < α r / Λ < 1 − β.

    Example:
        >>> co2_factor(1.0, momentum=0.5, server_stepsize=1.0, gap=[1.9, 2.1]).round(4).tolist()
        [1.0131, 0.988]
    """
    beta, step = np.asarray(momentum), server_stepsize * np.asarray(gain) / np.asarray(gap)
    discriminant = (1 - beta) ** 2 - 4 * step
    real = (1 + beta + np.sqrt(np.maximum(discriminant, 0))) / 2
    return np.where(discriminant < 0, np.sqrt(beta + step), real)


def noloco_factor(*, momentum: Any, gamma: Any) -> np.ndarray:
    """Return the factor per round of the squared disagreement of `jd.NoLoCo` in many random pairs.

    Args:
        momentum: α.
        gamma: γ.

    Returns:
        The spectral radius of the second moments' recursion with Δ = 0 and n → ∞, of the arguments'
        shape; it is below 1 iff 0 < γ < 2 (1 − α²).

    Example:
        >>> noloco_factor(momentum=0.5, gamma=[0.7, 1.5]).round(4).tolist()
        [0.7001, 1.0]
    """
    alpha, gamma = np.broadcast_arrays(np.asarray(momentum, float), np.asarray(gamma, float))
    zero = np.zeros_like(alpha)
    third = np.stack([gamma**2 / 2, -alpha * gamma, alpha**2], axis=-1)
    second = np.stack([-gamma / 2, alpha, zero], axis=-1) + third
    first = np.stack([zero + 1, zero, zero], axis=-1) + 2 * second - third
    moments = np.stack([first, second, third], axis=-2)
    return np.abs(np.linalg.eigvals(moments)).max(axis=-1)
