"""Algorithms: one method a file, each a pytree of numbers with `init`, `step` and maybe `cost`."""

from jaxdopt.algorithms.atcgt import ATCGT
from jaxdopt.algorithms.centralized_rr import CentralizedRR
from jaxdopt.algorithms.cost import Cost, gossip, samples, vector_bits
from jaxdopt.algorithms.dgd import DGD
from jaxdopt.algorithms.diging import DIGing
from jaxdopt.algorithms.dsgd import DSGD
from jaxdopt.algorithms.exact_diffusion import ExactDiffusion
from jaxdopt.algorithms.extra import EXTRA
from jaxdopt.algorithms.gradient_descent import GradientDescent
from jaxdopt.algorithms.gradient_tracking import GradientTracking
from jaxdopt.algorithms.gt_saga import GTSAGA
from jaxdopt.algorithms.gt_vr import GTVR
from jaxdopt.algorithms.linearized_admm import LinearizedADMM
from jaxdopt.algorithms.nids import NIDS
from jaxdopt.algorithms.pg_extra import PGEXTRA
from jaxdopt.algorithms.sgd import SGD

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
    "GradientDescent",
    "GradientTracking",
    "LinearizedADMM",
    "gossip",
    "samples",
    "vector_bits",
]
