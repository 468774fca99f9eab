"""jaxdopt: distributed optimization on JAX.

All agents' states live in one pytree, updated by one jit-compiled step function a method; the
network and the problem are pytrees too, so every sweep is a vmap and every run a scan.
"""

import importlib
from typing import TYPE_CHECKING, Any

from jaxdopt import (
    agents,
    algorithms,
    compressors,
    costs,
    metrics,
    networks,
    problems,
    roles,
    schedules,
)
from jaxdopt._checks import Count, require
from jaxdopt._numbers import Fraction, Nonnegative, Positive, Scalar
from jaxdopt._pytree import field, pytree, static
from jaxdopt._pytree import replace_checked as replace
from jaxdopt.algorithms import *  # noqa: F403
from jaxdopt.compare import compare
from jaxdopt.costs import Axis, Cost
from jaxdopt.datasets import best, label, reach
from jaxdopt.problems import data, partition
from jaxdopt.problems.stacking import stack
from jaxdopt.schedules import at
from jaxdopt.settings import Setting
from jaxdopt.simulate import Result, run
from jaxdopt.sweep import sweep

if TYPE_CHECKING:
    from jaxdopt import plot
    from jaxdopt.networks import graphs

__version__ = "0.1.0"

__all__ = [
    "Axis",
    "Cost",
    "Count",
    "Fraction",
    "Nonnegative",
    "Positive",
    "Result",
    "Scalar",
    "Setting",
    "agents",
    "algorithms",
    "at",
    "best",
    "compare",
    "compressors",
    "costs",
    "data",
    "field",
    "graphs",
    "label",
    "metrics",
    "networks",
    "partition",
    "plot",
    "problems",
    "pytree",
    "reach",
    "replace",
    "require",
    "roles",
    "run",
    "schedules",
    "stack",
    "static",
    "sweep",
]
__all__ += algorithms.__all__

LATER = {"graphs": "jaxdopt.networks.graphs", "plot": "jaxdopt.plot"}  # on libraries slow to load


def __getattr__(name: str) -> Any:
    """Import a module when it is asked for first."""
    if name not in LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = importlib.import_module(LATER[name])
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *LATER})
