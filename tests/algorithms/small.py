"""Something small of every kind, for tests that ask all methods a quick question."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxdopt as jd
from jaxdopt import networks
from jaxdopt.networks import participation
from jaxdopt.networks.events import durations

N, D, BATCH = 6, 3, 2
KEY = jax.random.key(0)
RING = jd.graphs.ring(N)
DIGRAPH = jd.graphs.exponential(N, directed=True)


def uneven(dtype, sizes=(4, 5, 6, 7, 5, 4)):
    """Least squares on agents with different numbers of samples."""
    random = np.random.default_rng(0)
    features = [random.standard_normal((m, D)).astype(dtype) for m in sizes]
    labels = [random.standard_normal(m).astype(dtype) for m in sizes]
    params = jnp.zeros(D, dtype)
    problem = jd.problems.FiniteSum(squared, (features, labels), params, l2=0.1)
    known = jd.replace(problem, strong_convexity=jnp.ones((), dtype))
    return jd.problems.Minibatch(known, BATCH)


def squared(x, sample):
    a, b = sample
    return (a @ x - b) ** 2 / 2


def network_of(kind):
    """A network as users build it, of one of the catalogue's kinds."""
    if kind == "directed":
        return networks.push_pull(DIGRAPH)
    if kind in ("tree", "trees"):
        return networks.spanning_tree(RING if kind == "tree" else DIGRAPH)
    if kind == "server":
        return participation.uniform(N, 2)
    if kind == "full":
        return networks.Server(N)
    return networks.metropolis(RING)


TIMES: dict[str, Any] = {"compute": durations.LogNormal(np.linspace(1, 2, N), 0.5), "delay": 0.3}
EVENTS = {
    "timeline": lambda: networks.timeline(networks.metropolis(RING), **TIMES, steps=8),
    "directed timeline": lambda: networks.timeline(networks.push_pull(DIGRAPH), **TIMES, steps=8),
    "pairs": lambda: networks.pairwise(networks.metropolis(RING), **TIMES, steps=8),
    "arrivals": lambda: networks.arrivals(N, rule="each", **TIMES, steps=8),
    "ticks": lambda: networks.arrivals(N, every=1.5, **TIMES, steps=8),
    "buffer": lambda: networks.arrivals(N, buffer=2, **TIMES, steps=8),
}
ASYNCHRONOUS = {
    "ADSGD": (lambda a: jd.ADSGD(a, 0.8), "timeline"),
    "ASBCD": (lambda a: jd.ASBCD(a, 0.2), "timeline"),
    "RFAST": (jd.RFAST, "directed timeline"),
    "ADPSGD": (jd.ADPSGD, "pairs"),
    "AsyncFedAvg": (lambda a: jd.AsyncFedAvg(a, local_steps=2), "arrivals"),
    "FedFix": (lambda a: jd.FedFix(a, local_steps=2), "ticks"),
    "FedBuff": (lambda a: jd.FedBuff(a, local_steps=2), "buffer"),
    "AFACD": (lambda a: jd.AFACD(a, 0.1, local_steps=2), "buffer"),
    "AFACS": (lambda a: jd.AFACS(a, 0.1, local_steps=2), "buffer"),
}
