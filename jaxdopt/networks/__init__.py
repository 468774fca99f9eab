"""Networks: everything that happens to messages between agents."""

from jaxdopt.networks import participation, times
from jaxdopt.networks.arrivals import Arrivals, arrivals
from jaxdopt.networks.directed import Directed, push_pull
from jaxdopt.networks.failures import Asleep, Disconnected, RandomLinks
from jaxdopt.networks.forms import mixing, stack
from jaxdopt.networks.gossip import Chebyshev, Repeated
from jaxdopt.networks.operator import Links
from jaxdopt.networks.operators import Circulant, Complete, Dense, Server
from jaxdopt.networks.pairs import Pairs, pairwise
from jaxdopt.networks.spectra import contraction
from jaxdopt.networks.tables import Neighbors, Pushes
from jaxdopt.networks.timed import Timed, timed
from jaxdopt.networks.timeline import DelayLine, Timeline, timeline
from jaxdopt.networks.trees import Tree, spanning_tree
from jaxdopt.networks.varying import (
    Cyclic,
    RandomMatching,
    one_peer_exponential,
    trace,
)
from jaxdopt.networks.weights import (
    column_stochastic,
    half_degree,
    laplacian,
    lazy_metropolis,
    metropolis,
    row_stochastic,
)

__all__ = [
    "Arrivals",
    "Asleep",
    "Chebyshev",
    "Circulant",
    "Complete",
    "Cyclic",
    "DelayLine",
    "Dense",
    "Directed",
    "Disconnected",
    "Links",
    "Neighbors",
    "Pairs",
    "Pushes",
    "RandomLinks",
    "RandomMatching",
    "Repeated",
    "Server",
    "Timed",
    "Timeline",
    "Tree",
    "arrivals",
    "column_stochastic",
    "contraction",
    "half_degree",
    "laplacian",
    "lazy_metropolis",
    "metropolis",
    "mixing",
    "one_peer_exponential",
    "pairwise",
    "participation",
    "push_pull",
    "row_stochastic",
    "spanning_tree",
    "stack",
    "timed",
    "timeline",
    "times",
    "trace",
]
