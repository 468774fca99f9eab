"""Algorithms: one method a file, each a pytree of numbers with `init`, `step` and maybe `cost`."""

from jaxdopt.algorithms.cost import Cost, gossip, samples, vector_bits
from jaxdopt.algorithms.dgd import DGD
from jaxdopt.algorithms.dsgd import DSGD
from jaxdopt.algorithms.exact_diffusion import ExactDiffusion
from jaxdopt.algorithms.extra import EXTRA
from jaxdopt.algorithms.gradient_descent import GradientDescent
from jaxdopt.algorithms.gradient_tracking import GradientTracking

__all__ = [
    "DGD",
    "DSGD",
    "EXTRA",
    "Cost",
    "ExactDiffusion",
    "GradientDescent",
    "GradientTracking",
    "gossip",
    "samples",
    "vector_bits",
]
