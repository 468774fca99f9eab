"""What theorems say of methods, and the measured edge of stability beside it.

`of` gives stepsize bounds, rates, transient times and stationary errors as functions of the
`Constants` L, μ, σ, ζ, n and the spectral gap, each with its source, and says whether it is exact,
sufficient or an order. `edge` measures the largest stable stepsize. `co2_factor` and
`noloco_factor` are laws of two numbers that are no stepsizes. `Moments`, `mode_rate` and
`server_edge` are DiLoCo's on linear regression.
"""

from jaxdopt.theory.claims import Claim, Theory
from jaxdopt.theory.constants import Constants
from jaxdopt.theory.edge import edge
from jaxdopt.theory.laws import LAWS
from jaxdopt.theory.moments import Moments, mode_rate, server_edge
from jaxdopt.theory.outer_loops import co2_factor, noloco_factor
from jaxdopt.theory.theorems import of

METHODS = tuple(sorted(method.__name__ for method in LAWS))
"""The names of the methods on which `of` knows a theorem."""

__all__ = [
    "METHODS",
    "Claim",
    "Constants",
    "Moments",
    "Theory",
    "co2_factor",
    "edge",
    "mode_rate",
    "noloco_factor",
    "of",
    "server_edge",
]
