"""jaxdopt: distributed optimization on JAX.

All agents' states live in one pytree, updated by one jit-compiled step function a method; the
network and the problem are pytrees too, so every sweep is a vmap and every run a scan.
"""

from jaxdopt import agents, algorithms, metrics, networks, plot, problems, schedules
from jaxdopt._pytree import (
    Fraction,
    Nonnegative,
    Positive,
    Scalar,
    pytree,
    replace,
    require,
    static,
)
from jaxdopt.algorithms import (
    ATCGT,
    DGD,
    DSGD,
    EXTRA,
    GTSAGA,
    GTVR,
    NIDS,
    PGEXTRA,
    SGD,
    CentralizedRR,
    Cost,
    DIGing,
    ExactDiffusion,
    GradientDescent,
    GradientTracking,
    LinearizedADMM,
)
from jaxdopt.networks import graphs
from jaxdopt.problems import data, partition
from jaxdopt.problems.stacking import stack
from jaxdopt.schedules import at
from jaxdopt.simulate import Result, run
from jaxdopt.sweep import best, compare, label, reach, sweep

__version__ = "0.1.0"

__all__ = [
    "ATCGT",
    "DGD",
    "DSGD",
    "EXTRA",
    "GTSAGA",
    "GTVR",
    "NIDS",
    "PGEXTRA",
    "SGD",
    "CentralizedRR",
    "Cost",
    "DIGing",
    "ExactDiffusion",
    "Fraction",
    "GradientDescent",
    "GradientTracking",
    "LinearizedADMM",
    "Nonnegative",
    "Positive",
    "Result",
    "Scalar",
    "agents",
    "algorithms",
    "at",
    "best",
    "compare",
    "data",
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
    "run",
    "schedules",
    "stack",
    "static",
    "sweep",
]
