"""Stable stepsizes of `APD` and `APDSC`, from the spectrum of their step on quadratics.

Where fᵢ(x) = L x²/2 and the push-sum weights are at their limit, C w = w, a step of `APDSC` is a
linear map of u, ζ = β z and p = s − g, and `APD`'s tends to the same with β = 0 as its steps grow:

    s = p + L u / w,      ζ⁺ = C ((1 − β) ζ + β² u − γ s),      u⁺ = (1 − β/4) C (u − γ s) + ζ⁺/4,
    p⁺ = C s − L u / w,      β = √(γ μ)

A long step, 1/β times γ, enters u by β/4 of it: β cancels, and disagreement is amplified by about
γ L / gap³ however small β is. The limit of γ is therefore the network's, and of the order of gap³.
"""

from typing import Any

import numpy as np

from jaxdopt._checks import require

EXACT = 64  # agents up to which the whole map is examined rather than bounded
ROUNDING = 1e-7  # by which the largest modulus, 1 where the map is stable, may be missed


def safe_stepsize(name: str, problem: Any, network: Any, strong_convexity: float) -> float:
    """Return half of the γ above which the map has eigenvalues outside of the unit circle.

    Unequal curvatures up to L took off a third at most in what we tried. Computed on the host, in
    O(n³); beyond `EXACT` agents every w counts as the smallest, which is safe.

    Raises:
        ValueError: the problem does not know its smoothness.
    """
    require(
        getattr(problem, "smoothness", None) is not None,
        f"the problem does not know its smoothness; give {name} a stepsize of your own.",
    )
    smoothness = float(problem.smoothness)
    column = network.column.csr().toarray()
    column /= column.sum(axis=0)  # float32's rounding would count as growth
    n = len(column)
    w = np.maximum(np.linalg.solve(np.eye(n) - column + 1 / n, np.ones(n)), 1e-12)
    curvature = np.diag(1 / w)
    if n > EXACT:
        values = network.column.eigenvalues
        column, curvature = (values / np.abs(values[0]))[:, None, None], np.array([[1 / w.min()]])

    def stable(c: float) -> bool:
        beta = np.sqrt(c * strong_convexity / smoothness)
        return _modulus(column, curvature, c, beta) < 1 + ROUNDING

    c = 4.0
    while not stable(c):
        c /= 2
    for step in 2.0 ** np.array([1 / 2, 1 / 4, 1 / 8, 1 / 16]):  # between c and 2 c
        c *= step if stable(c * step) else 1
    return float(c / (2 * smoothness))


def _modulus(column: np.ndarray, curvature: np.ndarray, c: float, beta: float) -> float:
    """Return the largest modulus of the map's eigenvalues at γ L = c, for C or each of its own."""
    one = np.eye(column.shape[-1])
    zero = np.zeros_like(column)
    long = [column @ (beta**2 * one - c * curvature), (1 - beta) * column, -c * column]
    short = [column @ (one - c * curvature), zero, -c * column]
    u = [(1 - beta / 4) * s + z / 4 for s, z in zip(short, long, strict=True)]
    rows = u, long, [(column - one) @ curvature, zero, column]
    step = np.concatenate([np.concatenate(row, axis=-1) for row in rows], axis=-2)
    return float(np.abs(np.linalg.eigvals(step)).max())
