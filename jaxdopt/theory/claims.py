"""A claim of a theorem, and the law behind it, which waits for numbers."""

import dataclasses
import inspect
import textwrap
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np

from jaxdopt._checks import require
from jaxdopt.theory.constants import Constants

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
            abstract was at hand; "derived", if the proof is in `jaxdopt.theory.laws` or is the
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


def _shown(value: Any) -> str:
    return f"{float(value):.4g}" if np.ndim(value) == 0 else f"array{np.shape(value)}"
