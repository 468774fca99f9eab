"""Networks: everything that happens to messages between agents."""

from jaxdopt.networks.operators import Circulant, Complete, Dense, Links, Neighbors
from jaxdopt.networks.weights import laplacian, lazy_metropolis, metropolis, mixing, stack

__all__ = [
    "Circulant",
    "Complete",
    "Dense",
    "Links",
    "Neighbors",
    "laplacian",
    "lazy_metropolis",
    "metropolis",
    "mixing",
    "stack",
]
