"""Something small of every kind, for tests that ask all methods a quick question."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from catalogue import EVENTS

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
    if kind in EVENTS:
        return small_clock(kind)
    if kind == "directed":
        return networks.push_pull(DIGRAPH)
    if kind in ("tree", "trees"):
        return networks.spanning_tree(RING if kind == "tree" else DIGRAPH)
    if kind == "server":
        return participation.uniform(N, 2)
    if kind == "full":
        return networks.Server(N)
    return networks.metropolis(RING)


def clocked(kind, wires, steps, **times):
    """A network of events: on wires, or of the clients of a server."""
    rules = {"each": {"rule": "each"}, "ticks": {"every": 1.5}}
    if kind in ("each", "ticks", "buffer"):
        rule = rules.get(kind, {"buffer": min(2, wires)})
        return networks.arrivals(wires, **rule, **times, steps=steps)
    make = networks.pairwise if kind == "pairs" else networks.timeline
    return make(wires, **times, steps=steps)


def small_clock(kind):
    times: dict[str, Any] = {"compute": durations.LogNormal(np.linspace(1, 2, N), 0.5)}
    if kind in ("each", "ticks", "buffer"):
        return clocked(kind, N, 8, **times)
    wires = networks.push_pull(DIGRAPH) if "directed" in kind else networks.metropolis(RING)
    return clocked(kind, wires, 8, **times, delay=0.3)
