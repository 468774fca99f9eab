"""The laws of methods, as functions of L, μ, σ, the spectral gap and n, and proofs of ours.

They are written with the letters of the papers: α is the method's stepsize, θ its relaxation
and τ its number of local steps, κ = L/μ; all others are those of `Constants`. What is marked
"derived" is proved here.

**Exact diffusion and NIDS** (α < 2/L, and the rate). Let U = I − V = θ (I − W) and V ≥ 0. From the
second step on both are w = x − α ∇f(x), s⁺ = s + U^½ (w − U^½ s), x⁺ = w − U^½ s⁺, with d = U^½ s;
tildes are distances to the fixed point. Since U^½ w̃ = s̃⁺ − (I − U) s̃,

    |x̃⁺|² = |w̃|² − 2 |s̃⁺|² + 2 ⟨(I − U) s̃, s̃⁺⟩ + ⟨U s̃⁺, s̃⁺⟩ ≤ |w̃|² − |s̃⁺|² + ⟨(I − U) s̃, s̃⟩

as I − U = V ≥ 0. A gradient step contracts, |w̃| ≤ ρ |x̃| with ρ = max(1 − α m, α L − 1), and s stays
in the range of U, so that |x̃|² + |s̃|² falls by max(ρ², 1 − θ (1 − λ₂)). A proximal map in NIDS does
not expand.

**DGD and the like**: W − α H with H the block diagonal of averaged Hessians is symmetric, and lies
between λ_min(W) − α L and 1 − α m. W (I − α H) is no longer than ρ.

**Edges** are those of equal quadratics h x²/2, 0 < h ≤ L, for which every eigenvalue λ of W has a
recursion of its own, z² − b z + c, that is stable if and only if |b| < 1 + c < 2:

    EXTRA                (b, c) = (1 + λ − α h,      (1 + λ)/2 − α h)
    exact diffusion               (v (2 − α h),      v (1 − α h)),      v = 1 − θ (1 − λ)
    DIGing                        (2 λ − α h,        λ² − α h)
    gradient tracking             (2 λ − λ α h,      λ² − λ α h)
    ATC gradient tracking         (2 λ − λ² α h,     λ² − λ² α h)

**Trees.** With delays up to D − 1, and γ n L < 2 sin(π / (4 D − 2)), gradient descent on quadratics
has no eigenvalue e^{iφ}: for φ < π / (2 D − 1) Σᵢ hᵢ cos((kᵢ + ½) φ) is positive, and beyond it
γ Σᵢ hᵢ sin((kᵢ + ½) φ) = 2 sin(φ/2) is out of reach.
"""

import dataclasses
from typing import Any

import numpy as np

from jaxdopt import algorithms as methods
from jaxdopt.theory.claims import Law, Laws


def _contraction(alpha: Any, L: Any, least: Any) -> Any:
    """Return ρ, the factor of a gradient step on L-smooth, m-strongly convex functions."""
    return np.maximum(1 - alpha * least, alpha * L - 1)


def _overlapped(L: Any, smallest: Any, tau: Any) -> Any:
    """Return the α at which λ_min(W) − 1 + (1 − α L)^τ is −1, or where |1 − α L| is 1."""
    root = np.abs(smallest) ** (1 / tau)
    return np.where(smallest < 0, 1 - root, 1 + root if tau % 2 else 2.0) / L


def _diffused(L: Any, smallest: Any, theta: Any, least: float) -> Any:
    """Return 2 / L where the smallest eigenvalue of V is at least ``least``, and NaN elsewhere."""
    return np.where(1 - theta * (1 - smallest) >= least - 1e-9, 2 / L, np.nan)


CENTRAL = frozenset({"central"})
MIXING, SYMMETRIC = frozenset({"mixing"}), frozenset({"mixing", "symmetric"})

NESTEROV = "Nesterov (2004), Introductory lectures on convex optimization, theorem 2.1.15"
YUAN = "Yuan, Ling, Yin (2016), arXiv 1310.7063"
EXTRA = "Shi, Ling, Wu, Yin (2015), arXiv 1404.6264"
NIDS = "Li, Shi, Yan (2019), arXiv 1704.07807"
DSGD = "Pu, Olshevsky, Paschalidis (2021), arXiv 1906.02702"
EDAS = "Huang, Pu (2022), arXiv 2105.04851"
DRR = "Huang, Li, Milzarek, Pu, Qiu (2023), arXiv 2112.15287"
GTRR = "Huang, Zhou, Pu (2025), arXiv 2306.12037"
APD = "Song, Shi, Pu, Yan (2024), arXiv 2107.12065"
HERE = "the proof in jaxdopt.theory.laws"
SPECTRUM = "the spectrum of the step on equal quadratics, in jaxdopt.theory.laws"

NOISE = "α σ² / (n μ)"
SUM = "noise of independent steps adds up to α σ² / (n μ (2 − α L)) at most, on quadratics"


def _noise(alpha: Any, sigma: Any, n: Any, mu: Any) -> Any:
    return alpha * sigma**2 / (n * mu)


def _exact(source: str) -> Law:
    """Return the error of methods that are exact with full gradients."""
    return Law(
        "0", lambda sigma: np.where(sigma == 0, 0.0, np.nan), "exact", "theorem", source, "σ = 0"
    )


_floor = Law(
    NOISE, _noise, "order", "derived", SUM, "α is small; the fall with 1/n is in the tests"
)
_sgd = Law("−1", lambda: -1.0, "order", "abstract", DSGD, "F is strongly convex and α ∝ 1/k")
_tracked = Law(
    "−2", lambda: -2.0, "order", "abstract", GTRR, "F is PL and α ∝ 1/T; F − F* over epochs"
)
_shuffled = Law(
    "∝ α²",
    lambda alpha: alpha**2,
    "order",
    "measured",
    "tests/algorithms",
    "measured at the ends of epochs; linear heterogeneity that sums to 0 does not matter",
)

LAWS: dict[type, Laws] = {
    methods.GradientDescent: Laws(
        CENTRAL,
        stepsize=Law(
            "2 / (L + μ)", lambda L, mu: 2 / (L + mu), "sufficient", "theorem", NESTEROV,
            "F is strongly convex; below 2 / L it converges more slowly, also if only convex",
        ),
        edge=Law("2 / L", lambda L: 2 / L, "exact", "derived", SPECTRUM),
        rate=Law(
            "max(1 − α μ, α L − 1)", lambda alpha, L, mu: _contraction(alpha, L, mu), "exact",
            "theorem", NESTEROV, "α < 2 / L",
        ),
        error=_floor,
    ),
    methods.SGD: Laws(CENTRAL, error=_floor, decay=_sgd),
    methods.CentralizedRR: Laws(
        CENTRAL,
        error=Law(
            "∝ α²", lambda alpha: alpha**2, "order", "theorem",
            "Mishchenko, Khaled, Richtárik (2020), arXiv 2006.05988, theorem 1",
            "measured at the ends of epochs; on a fixed problem often α³",
        ),
        decay=Law("−2", lambda: -2.0, "order", "abstract", DRR,
                  "F is strongly convex and α ∝ 1/T; over epochs"),
    ),
    methods.DGD: Laws(
        SYMMETRIC,
        stepsize=Law(
            "(1 + λ_min(W)) / L", lambda L, smallest: (1 + smallest) / L, "sufficient", "theorem",
            f"{YUAN}, theorem 1", "the fᵢ are convex",
        ),
        edge=Law(
            "(1 + λ_min(W)) / L", lambda L, smallest: (1 + smallest) / L, "exact", "derived",
            SPECTRUM,
        ),
        rate=Law(
            "max(1 − α m, α L − λ_min(W)),  m = minᵢ μᵢ",
            lambda alpha, L, least, smallest: np.maximum(1 - alpha * least, alpha * L - smallest),
            "exact", "derived", HERE, "the limit is its own",
        ),
        error=Law(
            "α² ζ² / (1 − λ)² + α σ² / (n μ)",
            lambda alpha, sigma, zeta, n, gap, mu: (alpha * zeta / gap) ** 2
            + _noise(alpha, sigma, n, mu),
            "order", "theorem", YUAN, "factors of L / μ in the first term do not count",
        ),
    ),
    methods.DSGD: Laws(
        MIXING,
        stepsize=Law("2 / L", lambda L: 2 / L, "sufficient", "derived", HERE, "the fᵢ are convex"),
        edge=Law("2 / L", lambda L: 2 / L, "exact", "derived", SPECTRUM),
        rate=Law(
            "max(1 − α m, α L − 1),  m = minᵢ μᵢ", _contraction, "exact", "derived", HERE,
            "α < 2 / L, and the limit is its own",
        ),
        transient=Law(
            "n / (1 − λ)²", lambda n, gap: n / gap**2, "order", "abstract", DSGD,
            "F is strongly convex, and attained there; n³ / (1 − λ)⁴ if it is only convex "
            "(Yuan, Alghunaim, Huang, 2021, arXiv 2105.08023)",
        ),
        error=Law(
            "α² λ² ζ² / (1 − λ)² + α σ² / (n μ)",
            lambda alpha, sigma, zeta, n, gap, mu: (alpha * (1 - gap) * zeta / gap) ** 2
            + _noise(alpha, sigma, n, mu),
            "order", "derived",
            "(I − W) X = −α W ∇F(X) in the limit, and 1/n of the noise as in the tests",
            "factors of L / μ in the first term do not count",
        ),
        decay=_sgd,
    ),
    methods.LocalDSGD: Laws(
        MIXING,
        stepsize=Law("2 / L", lambda L: 2 / L, "sufficient", "derived", HERE, "the fᵢ are convex"),
        edge=Law("2 / L", lambda L: 2 / L, "exact", "derived", SPECTRUM),
        rate=Law(
            "max(1 − α m, α L − 1)^τ,  m = minᵢ μᵢ",
            lambda alpha, L, least, tau: _contraction(alpha, L, least) ** tau,
            "exact", "derived", HERE, "α < 2 / L, and the limit is its own; per round",
        ),
    ),
    methods.OLDSGD: Laws(
        SYMMETRIC,
        stepsize=Law(
            "(1 − (−λ_min(W))^{1/τ}) / L,  if λ_min(W) < 0", _overlapped, "sufficient", "derived",
            "W − I + Πₗ (I − α Hᵢ) is symmetric on quadratics", "the fᵢ are convex quadratics",
        ),
        edge=Law(
            "1 − (1 − α L)^τ = 1 + λ_min(W)", _overlapped, "exact", "derived", SPECTRUM,
        ),
    ),
    methods.EXTRA: Laws(
        SYMMETRIC,
        stepsize=Law(
            "2 λ_min(W̃) / L,  W̃ = (I + W)/2", lambda L, smallest: (1 + smallest) / L,
            "sufficient", "theorem", f"{EXTRA}, theorem 3.3", "the fᵢ are convex",
        ),
        edge=Law(
            "(5 + 3 λ_min(W)) / (4 L)", lambda L, smallest: (5 + 3 * smallest) / (4 * L),
            "exact", "derived", SPECTRUM,
        ),
        error=_exact(EXTRA),
    ),
    methods.PGEXTRA: Laws(
        SYMMETRIC,
        stepsize=Law(
            "2 λ_min(W̃) / L,  W̃ = (I + W)/2", lambda L, smallest: (1 + smallest) / L,
            "sufficient", "theorem", "Shi, Ling, Wu, Yin (2015), arXiv 1506.02308, theorem 1",
            "the fᵢ and r are convex",
        ),
        edge=Law(
            "(5 + 3 λ_min(W)) / (4 L)", lambda L, smallest: (5 + 3 * smallest) / (4 * L),
            "exact", "derived", SPECTRUM, "without a regularizer",
        ),
        error=_exact("Shi, Ling, Wu, Yin (2015), arXiv 1506.02308"),
    ),
    methods.NIDS: Laws(
        SYMMETRIC,
        stepsize=Law(
            "2 / L", lambda L: 2 / L, "sufficient", "theorem", f"{NIDS}, theorem 1",
            "the fᵢ and r are convex; with one α an agent, αᵢ < 2 / Lᵢ is enough",
        ),
        edge=Law("2 / L", lambda L: 2 / L, "exact", "derived", SPECTRUM),
        rate=Law(
            "max(1 − α m, α L − 1, (1 − (1 − λ)/2)^½),  m = minᵢ μᵢ",
            lambda alpha, L, least, gap: np.maximum(
                _contraction(alpha, L, least), np.sqrt(1 - gap / 2)
            ),
            "sufficient", "derived", f"{HERE}, in the norm of (x, s)", "α < 2 / L",
        ),
        error=_floor,
    ),
    methods.ExactDiffusion: Laws(
        SYMMETRIC,
        stepsize=Law(
            "2 / L", lambda L, smallest, theta: _diffused(L, smallest, theta, 0.0), "sufficient",
            "derived", HERE, "V = (1 − θ) I + θ W has no negative eigenvalue",
        ),
        edge=Law(
            "2 / L", lambda L, smallest, theta: _diffused(L, smallest, theta, -1 / 3), "exact",
            "derived", SPECTRUM, "λ_min(V) > −1/3",
        ),
        rate=Law(
            "max(1 − α m, α L − 1, (1 − θ (1 − λ))^½),  m = minᵢ μᵢ",
            lambda alpha, L, least, gap, smallest, theta: np.maximum(
                _contraction(alpha, L, least), np.sqrt(1 - theta * gap)
            ) + 0 * _diffused(L, smallest, theta, 0.0),
            "sufficient", "derived", f"{HERE}, in the norm of (x, s)",
            "V = (1 − θ) I + θ W has no negative eigenvalue",
        ),
        transient=Law(
            "n / (1 − λ)", lambda n, gap: n / gap, "order", "abstract", EDAS,
            "F is strongly convex; n³ / (1 − λ)² if only convex (Yuan, Alghunaim, Huang, 2021, "
            "arXiv 2105.08023)",
        ),
        error=_floor,
        decay=dataclasses.replace(_sgd, source=EDAS),
    ),
    methods.LinearizedADMM: Laws(
        SYMMETRIC,
        stepsize=Law(
            "2 / L", lambda L: 2 / L, "sufficient", "theorem",
            "Ling, Shi, Wu, Ribeiro (2015), DLM, IEEE TSP 63(15)",
            "the fᵢ are convex, with any penalty c > 0",
        ),
        error=_exact("Ling, Shi, Wu, Ribeiro (2015), DLM, IEEE TSP 63(15)"),
    ),
    methods.GradientTracking: Laws(
        MIXING,
        edge=Law(
            "min(2, (1 − λ_min²) / |λ_min|) / L,  or 2 / L if λ_min(W) ≥ 0",
            lambda L, smallest: np.where(
                smallest < 0, np.minimum(2, (1 - smallest**2) / np.maximum(-smallest, 1e-12)), 2
            ) / L,
            "exact", "derived", SPECTRUM, "W symmetric",
        ),
        error=_floor,
    ),
    methods.DIGing: Laws(
        MIXING,
        edge=Law(
            "(1 + λ_min(W))² / (2 L)", lambda L, smallest: (1 + smallest) ** 2 / (2 * L), "exact",
            "derived", SPECTRUM, "W symmetric",
        ),
        error=_exact("Nedić, Olshevsky, Shi (2017), arXiv 1607.03218"),
    ),
    methods.ATCGT: Laws(
        MIXING,
        edge=Law(
            "min(2, (1 + λ_min)² / (2 λ_min²)) / L,  or 2 / L if λ_min(W) ≥ 0",
            lambda L, smallest: np.where(
                smallest < 0,
                np.minimum(2, (1 + smallest) ** 2 / (2 * np.maximum(-smallest, 1e-12) ** 2)),
                2,
            ) / L,
            "exact", "derived", SPECTRUM, "W symmetric",
        ),
        error=_exact("Xu, Zhu, Soh, Xie (2015), Aug-DGM"),
    ),
    methods.ADSGD: Laws(
        frozenset({"timeline", "timeline of mixing"}),
        stepsize=Law(
            "2 minᵢ wᵢᵢ / (L + m),  m = minᵢ μᵢ", lambda L, least, own: 2 * own / (L + least),
            "sufficient", "derived",
            "|wᵢᵢ − α h| ≤ wᵢᵢ − α m, and the weights of the others sum to 1 − wᵢᵢ",
            "the fᵢ are strongly convex and wᵢⱼ ≥ 0, with any bounded delays",
        ),
        rate=Law(
            "1 − α m,  m = minᵢ μᵢ",
            lambda alpha, L, least, own: np.where(
                alpha <= 2 * own / (L + least) * (1 + 1e-9), 1 - alpha * least, np.nan
            ),
            "sufficient", "derived",
            "|wᵢᵢ − α h| ≤ wᵢᵢ − α m, and the weights of the others sum to 1 − wᵢᵢ",
            "α ≤ 2 minᵢ wᵢᵢ / (L + m); in the largest norm of a block, per window in which all "
            "agents finish on versions of it",
        ),
    ),
    methods.CEDAS: Laws(
        SYMMETRIC,
        transient=Law(
            "n C³ / (1 − λ)²,  C = 1 + ω", lambda n, gap, C: n * C**3 / gap**2, "order", "abstract",
            "Huang, Pu (2023), arXiv 2301.05872",
            "F is strongly convex; n³ C⁶ / (1 − λ)⁴ if nonconvex; the abstract calls C a parameter "
            "of the compression, and with C = ω there would be no transient for ω → 0",
        ),
        decay=dataclasses.replace(_sgd, source="Huang, Pu (2023), arXiv 2301.05872"),
    ),
    methods.DRR: Laws(
        MIXING,
        error=Law(
            "α² ζ² / (1 − λ)²", lambda alpha, zeta, gap: (alpha * zeta / gap) ** 2, "order",
            "measured", "tests/algorithms, and experiments gtrr",
            "measured at the ends of epochs",
        ),
        decay=Law(
            "−2", lambda: -2.0, "order", "abstract", DRR,
            "F is strongly convex and α ∝ 1/T; over epochs; −2/3 of |∇F|² if nonconvex",
        ),
    ),
    methods.GTRR: Laws(MIXING, error=_shuffled, decay=_tracked),
    methods.EDRR: Laws(SYMMETRIC, error=_shuffled, decay=_tracked),
    methods.FedAvg: Laws(
        frozenset({"server", "all"}),
        stepsize=Law(
            "2 / L", lambda L: 2 / L, "sufficient", "derived",
            "every client's local steps are contractions, and so is their mean",
            "the fᵢ are convex",
        ),
        edge=Law("2 / L", lambda L: 2 / L, "exact", "derived", SPECTRUM),
        rate=Law(
            "max(1 − η m, η L − 1)^K,  m = minᵢ μᵢ",
            lambda alpha, L, least, tau: _contraction(alpha, L, least) ** tau,
            "exact", "derived",
            "every client's local steps are contractions, and so is their mean",
            "η < 2 / L, and the limit is its own; per round",
        ),
        error=Law(
            "(η (K − 1) L ζ / (2 μ))²",
            lambda alpha, tau, L, zeta, mu, sigma: np.where(
                sigma == 0, (alpha * (tau - 1) * L * zeta / (2 * mu)) ** 2, np.nan
            ),
            "order", "derived",
            "to first order μ |x − x*| ≤ η (K − 1) |Σᵢ Hᵢ ∇fᵢ(x*)| / (2 n)", "σ = 0",
        ),
    ),
    methods.APD: Laws(
        frozenset({"push"}),
        decay=Law("−2", lambda: -2.0, "order", "abstract", APD,
                  "F is convex; F − F* with a constant γ"),
    ),
    methods.APDSC: Laws(
        frozenset({"push"}),
        rate=Law(
            "1 − (μ / L)^½", lambda L, mu: 1 - np.sqrt(mu / L), "order", "abstract", APD,
            "γ is that of APDSC.safe_stepsize; (μ / L)^½ has a factor that depends on C",
        ),
    ),
    methods.STPP: Laws(
        frozenset({"tree"}),
        stepsize=Law(
            "2 sin(π / (4 D − 2)) / (n L),  D = network.delay",
            lambda L, n, delay: 2 * np.sin(np.pi / (4 * delay - 2)) / (n * L), "sufficient",
            "measured", "gradient descent with delays, in jaxdopt.theory.laws",
            "the fᵢ are convex quadratics; the proof leaves out the trackers' way along the tree, "
            "and the bound was below the measured edge on all trees tried",
        ),
        transient=Law(
            "n³", lambda n: np.asarray(n, float) ** 3, "order", "abstract",
            "You, Pu (2025), arXiv 2503.16123",
            "F is strongly convex; at most, but for logarithms, and 1 on bary_tree (You, Pu, 2024, "
            "arXiv 2404.05454)",
        ),
    ),
}  # fmt: skip
"""The laws, by method."""
