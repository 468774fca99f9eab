"""Theorems on methods, as functions of L, μ, σ, the spectral gap and n: see `of`.

The laws are written with the letters of the papers: α is the method's stepsize, θ its relaxation
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
import inspect
import textwrap
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np

from jaxdopt import algorithms as methods
from jaxdopt import roles
from jaxdopt._checks import require
from jaxdopt._leaves import is_traced
from jaxdopt._numbers import Scheduled
from jaxdopt._pytree import number_fields
from jaxdopt.theory.constants import Constants, require_fixed

Kind = Literal["exact", "sufficient", "order"]
Basis = Literal["theorem", "abstract", "derived", "measured"]


@dataclasses.dataclass(frozen=True)
class Claim:
    """A number that a theorem gives, with its formula and its source.

    ``float(claim)`` is its value, or a sentence that says what is missing.

    Attributes:
        value: the number, or an array where the constants are arrays; None where it is not known.
        formula: how it is computed.
        kind: "exact", if it is necessary and sufficient, or attained, on equal quadratics (all
            agents have the same Hessian); "sufficient", if it is a bound; "order", if it holds up
            to factors that do not depend on what the formula names.
        basis: "theorem", if the source has it and the tests agree; "abstract", if only the source's
            abstract was at hand; "derived", if the proof is in `jaxdopt.theory.theorems` or is the
            line that ``source`` has; "measured", if this library's tests and experiments show it.
        source: authors, year, arXiv number and theorem.
        holds: under which conditions, and what other sources have.
        missing: what is needed for a value, where there is none.
    """

    value: Any
    formula: str
    kind: Kind
    basis: Basis
    source: str
    holds: str = ""
    missing: str = ""

    def __float__(self) -> float:
        require(self.value is not None, f"{self.formula} has no value: it needs {self.missing}.")
        return float(self.value)

    def __repr__(self) -> str:
        value = f"[needs {self.missing}]" if self.value is None else _shown(self.value)
        more = f": {self.holds}" if self.holds else ""
        return f"{value} = {self.formula}\n{self.kind}{more}\n{self.basis}: {self.source}"


@dataclasses.dataclass(frozen=True)
class Theory:
    """What theorems say of a method with a constant stepsize: claims, and None where none is known.

    Attributes:
        method: its name.
        constants: of which the claims are functions.
        stepsize: α below which it converges (inexact methods: to their own limit).
        edge: α above which it diverges where all agents have the same quadratic.
        rate: factor per step of the distance to its limit.
        transient: steps until it is as good as centralized SGD, with stepsizes that fall as 1/k.
        error: squared distance to the solution in the limit, agents' mean.
        decay: exponent of the number of steps, or epochs, in the error where stepsizes fall.
    """

    method: str
    constants: Constants
    stepsize: Any = None
    edge: Any = None
    rate: Any = None
    transient: Any = None
    error: Any = None
    decay: Any = None

    @property
    def claims(self) -> dict[str, Claim]:
        """The claims there are, by name."""
        return {name: claim for name, claim in vars(self).items() if isinstance(claim, Claim)}

    def __repr__(self) -> str:
        claims = (
            textwrap.indent(f"{claim}", " " * 12).replace(" " * 12, f"  {name:<10}", 1)
            for name, claim in self.claims.items()
        )
        return "\n".join([f"{self.method} with {self.constants}", *claims])


@dataclasses.dataclass(frozen=True)
class Law:
    """A claim before its numbers are known: a function of letters, by the names of its arguments.

    Where it does not hold, the function returns NaN.
    """

    formula: str
    function: Callable[..., Any]
    kind: Kind
    basis: Basis
    source: str
    holds: str = ""

    def at(self, letters: Mapping[str, Any]) -> Claim:
        """Return the claim for numbers."""
        value, missing = None, ""
        values = {name: letters[name] for name in inspect.signature(self.function).parameters}
        for name, given in values.items():
            if given is None:
                missing = _NEEDED.get(name, name)
            elif name in ("mu", "least") and np.any(np.asarray(given) == 0):
                missing = f"{_NEEDED[name]}, and it is 0"
        if not missing:
            value = self.function(**values)
            if np.ndim(value) == 0 and np.isnan(value):
                value, missing = None, f"that {self.holds}"
        own = (self.formula, self.kind, self.basis, self.source, self.holds)
        return Claim(value, *own, missing)


@dataclasses.dataclass(frozen=True)
class Laws:
    """All laws of a method, and on which networks they hold: the words of `jaxdopt.roles`."""

    words: frozenset[str]
    stepsize: Law | None = None
    edge: Law | None = None
    rate: Law | None = None
    transient: Law | None = None
    error: Law | None = None
    decay: Law | None = None


_NEEDED = {
    "L": "L, the smoothness of the problem",
    "mu": "μ > 0, a strongly convex F",
    "least": "m > 0, every agent's own strong convexity",
    "sigma": "σ, the noise of the gradients",
    "zeta": "ζ, a problem whose solution is known",
    "gap": "1 − |λ₂| of one W",
    "smallest": "λ_min of one symmetric W",
    "own": "minᵢ wᵢᵢ of one W",
    "delay": "a tree",
    "alpha": "a method with one constant stepsize for all agents",
    "theta": "one constant θ for all agents",
    "C": "an unbiased compressor and a problem of known dimension",
}


def of(method: Any, problem: Any, network: Any = None) -> Theory:
    """Return what theorems say of a method on a problem and a network.

    Args:
        method: an instance, for whose stepsize the rate and the error hold; or the class, which
            leaves them as formulas.
        problem: any; or `Constants`, with which no network is needed, and whose arrays give
            arrays, such as the boundary of a phase diagram.
        network: on which the method runs, fixed in time or a timeline; the centralized baselines
            need none.

    Raises:
        ValueError: there are no theorems on the method here; they do not cover the network, or the
            method's options; the method does not run on the network.

    Example:
        >>> import jaxdopt as jd
        >>> ring = jd.networks.metropolis(jd.graphs.ring(8))
        >>> problem = jd.problems.quadratic(8, 2, curvature_spread=0.0)
        >>> theory = jd.theory.of(jd.EXTRA(0.5), problem, ring)
        >>> theory.stepsize.formula, round(float(theory.stepsize), 3)
        ('2 λ_min(W̃) / L,  W̃ = (I + W)/2', 0.667)
        >>> theory.edge.kind, round(float(theory.edge), 3)
        ('exact', 1.0)
        >>> gaps = np.array([0.1, 0.01])
        >>> jd.theory.of(jd.DSGD, jd.theory.Constants(n=16, gap=gaps)).transient.value
        array([  1600., 160000.])
    """
    whole = isinstance(method, type)
    kind = method if whole else type(method)
    name = getattr(kind, "__name__", str(kind))
    known = ", ".join(sorted(one.__name__ for one in LAWS))
    require(kind in LAWS, f"no theorem on {name} is known here; there are some on {known}.")
    laws = LAWS[kind]
    sample = _sample(kind) if whole else method
    if isinstance(problem, Constants):
        constants, d = problem, None
    else:
        _require_covered(name, laws, sample, problem, network)
        draws = "finite sum" in sample.needs
        constants, d = Constants.of(problem, network, draws=draws), problem.d
    letters = vars(constants) | _options(sample, whole, d)
    claims = {
        field.name: law.at(letters)
        for field in dataclasses.fields(Laws)
        if isinstance(law := getattr(laws, field.name), Law)
    }
    return Theory(name, constants, **claims)


def _sample(kind: type) -> Any:
    """Return an instance of a class, of any stepsize."""
    numbers = number_fields(kind)
    missing = [
        f.name
        for f in dataclasses.fields(kind)
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    others = [name for name in missing if name not in numbers]
    require(
        not others,
        f"what is known of {kind.__name__} depends on its {' and '.join(others)}; give an instance "
        f"in place of the class.",
    )
    return kind(**dict.fromkeys(missing, 1.0))


def _require_covered(name: str, laws: Laws, method: Any, problem: Any, network: Any) -> None:
    alone = laws.words == CENTRAL
    if network is None:
        require(alone, f"the theorems on {name} are about a network; give the one it runs on.")
        return
    if not alone:
        if "timeline" not in laws.words:
            require_fixed(name, network)
        missing = sorted(laws.words - roles.offers(network))
        require(
            not missing,
            f"the theorems on {name} are about networks that offer {' and '.join(missing)}, and "
            f"this {type(network).__name__} does not; give one such as "
            f"{_REMEDIES.get(''.join(missing[:1]), 'jd.networks.metropolis(graph)')}.",
        )
    roles.check(method, network, problem)


def _options(method: Any, whole: bool, d: int | None) -> dict[str, Any]:
    """Return the letters that are the method's own numbers."""
    for name, expected in PLAIN.items():
        given = getattr(method, name, expected)
        require(
            given is expected or (np.ndim(given) == 0 and given == expected),
            f"the theorems on {type(method).__name__} are about {name} = {expected}, and it is "
            f"{given!r}; give it without.",
        )
    compressor: Any = getattr(method, "compressor", None)
    unbiased = hasattr(compressor, "omega") and getattr(compressor, "scaled", True)
    return {
        "alpha": None if whole else _constant(getattr(method, "stepsize", None)),
        "theta": _constant(getattr(method, "relaxation", None)),
        "tau": getattr(method, "local_steps", None),
        "C": 1 + compressor.omega(d) if unbiased and d is not None else None,
    }


def _constant(value: Any) -> Any:
    """Return a number as a float, and None for a schedule or one number an agent."""
    if value is None or isinstance(value, Scheduled) or np.ndim(value) > 0:
        return None
    require(not is_traced(value), "the stepsize is traced; call jd.theory.of outside jit.")
    return float(value)


def _shown(value: Any) -> str:
    return f"{float(value):.4g}" if np.ndim(value) == 0 else f"array{np.shape(value)}"


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
_REMEDIES = {
    "timeline": "jd.networks.timeline(jd.networks.metropolis(graph), steps=...)",
    "server": "jd.networks.Server(n), with all clients in every round",
    "all": "jd.networks.Server(n), with all clients in every round",
    "push": "jd.networks.column_stochastic(graph)",
    "tree": "jd.networks.spanning_tree(graph)",
}
PLAIN = {  # options of FedAvg without which its local steps are plain gradient descent
    "server_stepsize": 1.0,
    "own_steps": None,
    "local": None,
    "server": None,
    "restart": False,
}

NESTEROV = "Nesterov (2004), Introductory lectures on convex optimization, theorem 2.1.15"
YUAN = "Yuan, Ling, Yin (2016), arXiv 1310.7063"
EXTRA = "Shi, Ling, Wu, Yin (2015), arXiv 1404.6264"
NIDS = "Li, Shi, Yan (2019), arXiv 1704.07807"
DSGD = "Pu, Olshevsky, Paschalidis (2021), arXiv 1906.02702"
EDAS = "Huang, Pu (2022), arXiv 2105.04851"
DRR = "Huang, Li, Milzarek, Pu, Qiu (2023), arXiv 2112.15287"
GTRR = "Huang, Zhou, Pu (2025), arXiv 2306.12037"
APD = "Song, Shi, Pu, Yan (2024), arXiv 2107.12065"
HERE = "the proof in jaxdopt.theory.theorems"
SPECTRUM = "the spectrum of the step on equal quadratics, in jaxdopt.theory.theorems"

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
            "measured", "gradient descent with delays, in jaxdopt.theory.theorems",
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
