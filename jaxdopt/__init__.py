"""jaxdopt: distributed optimization on JAX.

All agents' states live in one pytree, updated by one jit-compiled step function a method; the
network and the problem are pytrees too, so every sweep is a vmap and every run a scan.

    >>> import jax, jaxdopt as jd
    >>> problem = jd.problems.quadratic(agents=8, d=3)
    >>> network = jd.networks.metropolis(jd.graphs.ring(8))
    >>> x0, key = problem.start(), jax.random.key(0)
    >>> result = jd.run(jd.EXTRA(0.3), problem, network, x0, key, steps=100)
    >>> result.history["gap"].shape
    (101,)

Estimates are [n, d], a row for each agent. A method's numbers, such as its stepsize, may be
schedules of the step or one number for each agent, [n, 1]; they can be swept and differentiated.
What is called static is part of the program: another value compiles anew. This is the overview;
``help(jd.EXTRA)`` has a method's arguments, and its module the source and the theorem.

Running:

    run                a method on a problem over a network; returns a Result with its history
    sweep              a function with some of its arguments swept, in one compilation
    compare            methods, networks, fields and seeds in one xarray dataset; a method in a
                       Setting has a problem or networks of its own
    Points             values of fields that go together in a comparison; log_uniform draws them
    best, reach        the best member of a sweep, and when a value is reached
    Call               a call in a file with its result and versions, to be made again from it
    explain            roles, costs, theory, memory and time before a run: an Explanation
    diagnose           the first step, agents and fields that are not finite: a Diagnosis
    label              names for a sweep's axes: its results as an xarray dataset
    metrics, costs     what is recorded, and what a step costs (Cost); an Axis of your own
    plot               curves, heatmaps, networks, timelines
    theory             the stepsizes and rates of theorems, to be held beside what is measured

Problems:

    problems           finite sums (logistic_regression, mlp, flax, your own loss), quadratic,
                       games; around them Minibatch, GaussianNoise, Composite with a `prox`
    data, partition    data sets and texts, and how their samples are split over the agents
    stack              several problems or methods as one, to be swept

Networks:

    graphs             ring, torus, erdos_renyi, ...; any networkx graph or adjacency matrix will do
    networks           weights (metropolis, push_pull, spanning_tree, ...), change and failure
                       (Cyclic, RandomLinks, Asleep, ...), a Server with participation, simulated
                       time (timed, timeline, pairwise, arrivals)
    compressors        what is sent in place of a vector: TopK, Dither, ...
    aggregators        robust rules: Median, Krum, NNM, ...; with attacks: what liars tell

The methods:

    centralized        GradientDescent, SGD, CentralizedRR; around any method Averaged
    mix and descend    DGD, DSGD, LocalDSGD, OLDSGD (biased); among liars MoNNA, SybilWall
    gradient tracking  GradientTracking, DIGing, ATCGT; variance-reduced GTSAGA, GTSVRG, GTVR
    primal-dual        EXTRA, ExactDiffusion, NIDS, PGEXTRA, LinearizedADMM
    reshuffling        DRR, GTRR, EDRR; on trees STPP, RelaySGD
    compressed         CHOCOSGD, DeepSqueeze, BEER, CGT, LEAD, CEDAS; on digraphs CPP, BCPP
    digraphs           PushSum, SGP, OSGP, PushDIGing, PushPull, AB, APD, APDSC
    federated          FedAvg, FedProx, FedAvgMomentum, SCAFFOLD, SCAFFOLDMomentum, FedVARP, MIFA,
                       FOCUS, FedSUM, FedSUMB, FedSUMCR, SketchedSGD; with a regularizer FedMid,
                       FedDualAvg, FedNMap, ZhangHuJohansson
    games              ExtraGradient, MASHA1, MASHA2
    error feedback     CompressedSGD (the warning), EF14, EF21, EF21SGDM, EControl, DGC
    asynchronous       ADSGD, ASBCD, ADPSGD, RFAST; with a server AsyncFedAvg, FedBuff, FedFix,
                       AFACD, AFACS
    low communication  DiLoCo, StreamingDiLoCo, DecoupledDiLoCo, SparseLoCo, EDiT, CO2 (a round
                       late); of returns AsyncDiLoCo, AEDiT; by gossip NoLoCo
    black boxes        FedZO, FZooS, JustOneByte, CBO, ConsensusHopping; others on ZerothOrder

Your own:

    pytree             makes a class with init and step a method; its fields are Scalar,
                       Nonnegative, Positive, Fraction or Count, or `static` or a `field` of state
    schedules, at      stepsizes that change, and a method with their values at a step
    optimizer          Optax's, with numbers that are swept; delayed_nesterov for late updates
    replace, require   a copy with other fields; a check that is silent for traced values
    roles, agents      what methods need of networks; rows of agents in a pytree
    algorithms         the files of all methods
"""

import importlib
from typing import TYPE_CHECKING, Any

from jaxdopt import (
    agents,
    aggregators,
    algorithms,
    attacks,
    compressors,
    costs,
    metrics,
    networks,
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
from jaxdopt.averaging import Averaged
from jaxdopt.call import Call
from jaxdopt.compare import compare
from jaxdopt.costs import Axis, Cost
from jaxdopt.datasets import best, label, reach
from jaxdopt.diagnose import Diagnosis, diagnose
from jaxdopt.explain import Explanation, explain
from jaxdopt.grids import Points, log_uniform
from jaxdopt.optimizers import delayed_nesterov, optimizer
from jaxdopt.problems import data, partition
from jaxdopt.problems.stacking import stack
from jaxdopt.results import Result
from jaxdopt.schedules import at
from jaxdopt.settings import Setting
from jaxdopt.simulate import run
from jaxdopt.sweep import sweep

if TYPE_CHECKING:
    from jaxdopt import plot
    from jaxdopt.networks import graphs

__version__ = "0.1.0"

__all__ = [
    "Averaged",
    "Axis",
    "Call",
    "Cost",
    "Count",
    "Diagnosis",
    "Explanation",
    "Fraction",
    "Nonnegative",
    "Points",
    "Positive",
    "Result",
    "Scalar",
    "Setting",
    "agents",
    "aggregators",
    "algorithms",
    "at",
    "attacks",
    "best",
    "compare",
    "compressors",
    "costs",
    "data",
    "delayed_nesterov",
    "diagnose",
    "explain",
    "field",
    "graphs",
    "label",
    "log_uniform",
    "metrics",
    "networks",
    "optimizer",
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

LATER = {"graphs": "jaxdopt.networks.graphs", "plot": "jaxdopt.plot"}  # on libraries slow to load


def __getattr__(name: str) -> Any:
    """Import a module when it is asked for first."""
    if name not in LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = importlib.import_module(LATER[name])
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *LATER})
