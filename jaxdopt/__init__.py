"""jaxdopt: distributed optimization on JAX.

All agents' states live in one pytree, updated by one jit-compiled step function a method; the
network and the problem are pytrees too, so every sweep is a vmap and every run a scan.
"""

from jaxdopt import (
    agents,
    algorithms,
    compressors,
    costs,
    metrics,
    networks,
    plot,
    problems,
    roles,
    schedules,
    theory,
)
from jaxdopt._checks import Count, require
from jaxdopt._numbers import Fraction, Nonnegative, Positive, Scalar
from jaxdopt._pytree import field, pytree, static
from jaxdopt._pytree import replace_checked as replace
from jaxdopt.algorithms import *  # noqa: F403
from jaxdopt.compare import compare
from jaxdopt.costs import Axis, Cost
from jaxdopt.datasets import best, label, reach
from jaxdopt.networks import graphs
from jaxdopt.problems import data, partition
from jaxdopt.problems.stacking import stack
from jaxdopt.schedules import at
from jaxdopt.simulate import Result, run
from jaxdopt.sweep import sweep

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
    "theory",
]
__all__ += algorithms.__all__
