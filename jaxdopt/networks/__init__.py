"""Networks: who communicates with whom in every round, with what weights, delays and failures."""

from jaxdopt.networks import participation
from jaxdopt.networks.acceleration import Chebyshev, Repeated
from jaxdopt.networks.directed import Directed, push_pull
from jaxdopt.networks.events import durations
from jaxdopt.networks.events.arrivals import arrivals, dynamic_calls
from jaxdopt.networks.events.delay_line import DelayLine
from jaxdopt.networks.events.pairs import Pairs, pairwise
from jaxdopt.networks.events.returns import Arrivals
from jaxdopt.networks.events.timed import Timed, timed
from jaxdopt.networks.events.timeline import Timeline, timeline
from jaxdopt.networks.failures import Asleep, Disconnected, RandomLinks
from jaxdopt.networks.liars import RobustMixing, RobustServer, robust, told
from jaxdopt.networks.operators.base import Links
from jaxdopt.networks.operators.choose import mixing
from jaxdopt.networks.operators.circulant import Circulant
from jaxdopt.networks.operators.complete import Complete
from jaxdopt.networks.operators.dense import Dense
from jaxdopt.networks.operators.sparse import Neighbors, Pushes
from jaxdopt.networks.sequences import Cyclic, RandomMatching, one_peer_exponential, sequence
from jaxdopt.networks.server import Server
from jaxdopt.networks.sharding import sharded
from jaxdopt.networks.spectra import contraction
from jaxdopt.networks.stacking import stack
from jaxdopt.networks.trees import Tree, bary_tree, spanning_tree
from jaxdopt.networks.weights import (
    column_stochastic,
    fastest_mixing,
    half_degree,
    laplacian,
    lazy_metropolis,
    metropolis,
    row_stochastic,
)
from jaxdopt.networks.wrapper import Wrapper

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
    "RobustMixing",
    "RobustServer",
    "Server",
    "Timed",
    "Timeline",
    "Tree",
    "Wrapper",
    "arrivals",
    "bary_tree",
    "column_stochastic",
    "contraction",
    "durations",
    "dynamic_calls",
    "fastest_mixing",
    "half_degree",
    "laplacian",
    "lazy_metropolis",
    "metropolis",
    "mixing",
    "one_peer_exponential",
    "pairwise",
    "participation",
    "push_pull",
    "robust",
    "row_stochastic",
    "sequence",
    "sharded",
    "spanning_tree",
    "stack",
    "timed",
    "timeline",
    "told",
]
