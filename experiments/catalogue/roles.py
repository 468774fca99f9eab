"""Which method runs on which kind of network: `python -m experiments roles` prints the table.

A method runs where the network offers what it needs (`jaxdopt.roles`); everywhere else `run`,
`sweep`, `compare` and a bare ``init`` refuse it in one sentence, before any work.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import networkx as nx
import numpy as np

import jaxdopt as jd
from jaxdopt import networks
from jaxdopt._pytree import number_fields

N = 6
SPARSE = ("CompressedSGD", "DGC", "EControl", "EF14", "EF21", "EF21SGDM", "MASHA2", "SparseLoCo")
OPTIONS: dict[str, dict[str, Any]] = {
    "AsyncDiLoCo": {"dynamic": False},  # visits are alike
    **{name: {"compressor": jd.compressors.TopK(1)} for name in SPARSE},  # nothing is drawn
    "SketchedSGD": {"sketch": jd.compressors.CountSketch(2)},
}
METHODS: dict[str, type] = {name: getattr(jd, name) for name in jd.algorithms.__all__}


def built(name: str, **options: Any) -> Any:
    """Return a method with the numbers that it cannot be built without, or with a compressor."""
    method: Any = METHODS[name]
    numbers, missing = number_fields(method), dataclasses.MISSING
    needed = {
        f.name: 0.05 if f.name in numbers else jd.compressors.Dither(bits=4)
        for f in dataclasses.fields(method)
        if f.default is missing and f.default_factory is missing
    }
    return method(**needed | OPTIONS.get(name, {}) | options)


def _graph() -> Any:
    return jd.graphs.erdos_renyi(N, 0.5, seed=3)


def _digraph() -> Any:
    graph = jd.graphs.directed_ring(N)
    graph.add_edges_from([(2, 0), (1, 4)])
    return graph


def _out_tree() -> Any:
    return nx.DiGraph([(0, 1), (0, 2), (1, 3), (1, 4), (2, 5)])


def _in_tree() -> Any:
    return _out_tree().reverse()


def _lying(network: Any) -> Any:
    rule, attack = jd.aggregators.Median(), jd.attacks.ALIE(1.0)
    return networks.robust(network, rule=rule, attack=attack, liars=1)


ring, taking = jd.graphs.ring, networks.participation
KINDS: dict[str, Callable[[], Any]] = {
    "ring": lambda: networks.metropolis(ring(N)),
    "graph": lambda: networks.metropolis(_graph()),
    "complete": lambda: networks.Complete(N),
    "directed ring": lambda: networks.metropolis(jd.graphs.directed_ring(N)),
    "one-peer exponential": lambda: networks.one_peer_exponential(N),
    "random matching": lambda: networks.RandomMatching(_graph()),
    "trace of graphs": lambda: networks.sequence([ring(N), _graph()]),
    "rows": lambda: networks.row_stochastic(_digraph()),
    "columns": lambda: networks.column_stochastic(_digraph()),
    "trace of columns": lambda: networks.sequence(
        [_digraph(), jd.graphs.directed_ring(N)], weights="column_stochastic"
    ),
    "push-pull": lambda: networks.push_pull(_digraph()),
    "push-pull of trees": lambda: networks.push_pull(_out_tree(), _in_tree()),
    "tree": lambda: networks.spanning_tree(ring(N)),
    "trees down and up": lambda: networks.spanning_tree(_digraph()),
    "server": lambda: networks.Server(N),
    "participation, few": lambda: taking.uniform(N, 2),
    "participation, many": lambda: taking.bernoulli(0.8, n=N),
    "arrivals": lambda: networks.arrivals(N, rule="each", steps=10),
    "arrivals at ticks": lambda: networks.arrivals(N, every=1.5, steps=10),
    "timeline": lambda: networks.timeline(networks.metropolis(ring(N)), steps=10),
    "timeline of push-pull": lambda: networks.timeline(networks.push_pull(_digraph()), steps=10),
    "pairs": lambda: networks.pairwise(networks.metropolis(ring(N)), steps=10),
    "timed": lambda: networks.timed(networks.metropolis(_graph()), compute=2.0),
    "timed participation": lambda: networks.timed(taking.uniform(N, 2), compute=2.0),
    "random links": lambda: networks.RandomLinks(networks.metropolis(_graph()), 0.7),
    "random links of columns": lambda: networks.RandomLinks(KINDS["columns"](), 0.7),
    "disconnected": lambda: networks.Disconnected(networks.metropolis(_graph()), 0.7),
    "disconnected push-pull": lambda: networks.Disconnected(networks.push_pull(_digraph()), 0.7),
    "asleep": lambda: networks.Asleep(networks.metropolis(_graph()), 0.7),
    "asleep push-pull": lambda: networks.Asleep(networks.push_pull(_digraph()), 0.7),
    "asleep repeated": lambda: networks.Asleep(
        networks.Repeated(networks.metropolis(_graph()), 2), 0.7
    ),
    "liars on a graph": lambda: _lying(networks.metropolis(_graph())),
    "liars at a server": lambda: _lying(taking.bernoulli(0.8, n=N)),
    "liars who return": lambda: _lying(networks.arrivals(N, buffer=3, steps=10)),
    "repeated": lambda: networks.Repeated(networks.metropolis(_graph()), 2),
    "repeated columns": lambda: networks.Repeated(networks.column_stochastic(_digraph()), 2),
    "repeated random links": lambda: networks.Repeated(
        networks.RandomLinks(networks.metropolis(_graph()), 0.7), 2
    ),
    "Chebyshev": lambda: networks.Chebyshev(networks.metropolis(_graph()), 2),
}
"""A network of every kind, of N agents."""


@functools.cache
def problem() -> Any:
    """Return a finite sum that every method runs on, small and heterogeneous."""
    random = np.random.default_rng(0)
    features = random.standard_normal((N, 4, 2)) + np.linspace(0, 1, N)[:, None, None]
    return jd.problems.least_squares(features, features.sum(axis=2) + 1, l2=0.1)


@functools.cache
def network(kind: str) -> Any:
    """Return the network of a kind, built once."""
    return KINDS[kind]()


def fits(name: str, kind: str) -> bool:
    """Return whether a method runs on a kind of network."""
    try:
        jd.roles.check(built(name), network(kind), problem())
    except ValueError:
        return False
    return True


def table() -> str:
    """Return the table, methods down and kinds across, in Markdown."""
    kinds = {kind: jd.roles.offers(network(kind)) for kind in KINDS}
    lines = ["| | needs | " + " | ".join(map(str, range(1, len(kinds) + 1))) + " |"]
    lines += ["|---" * (len(kinds) + 2) + "|"]
    runs = 0
    for name in METHODS:
        fit = [fits(name, kind) for kind in kinds]
        runs += sum(fit)
        needs = ", ".join(word for word in jd.roles.WORDS if word in built(name).needs)
        cells = " | ".join("x" if fine else " " for fine in fit)
        lines.append(f"| {name} | {needs} | {cells} |")
    lines += ["", *(f"{i}. {kind}: {', '.join(w for w in jd.roles.WORDS if w in words)}"
                    for i, (kind, words) in enumerate(kinds.items(), 1))]  # fmt: skip
    total = len(METHODS) * len(kinds)
    lines += ["", f"{len(METHODS)} methods x {len(kinds)} kinds: {runs} run, {total - runs} do not"]
    return "\n".join(lines)


def run() -> None:
    """Print the table."""
    print(table())
