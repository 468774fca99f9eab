"""Choosing a network: what good connectivity gains, and what it does not.

Sixteen agents on twelve graphs with Metropolis weights, whose spectral gaps 1 − |λ₂| lie between
0.01 and 1. Questions: how fast do the agents average, plainly and with Chebyshev polynomials? How
many rounds do decentralized methods need on the digits data (3 against 8, split by label), each at
its own best stepsize, and what happens at other stepsizes? Does it matter which agent holds which
data? Everything is in float64; `experiments.varying` has networks that change with time.

The gap describes the worst case, so the agents are numbered along the eigenvector of λ₂, which puts
the two digits at the two ends of the graph. Shuffled placements serve as the comparison.
"""

import math
from functools import partial
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import xarray as xr

import jaxdopt as jd
from experiments.claims import above, claims, near
from experiments.measures import exponent
from experiments.panels import REFERENCE, Figure, LogLog, level, present
from experiments.study import Part, Program, Results, Study, comparisons

AGENTS, DIGITS, L2 = 16, (3, 8), 0.1
AVERAGED = 1e-6  # of the first disagreement |x₀ − x̄₀|
TARGET = 1e-8  # F − F* that exact methods have to reach
COARSE = 3e-2  # and DSGD, which is not exact
ROUNDING = 1e-15  # gaps below it are rounding errors of the objective
SMALL = 0.25  # gaps up to which the network, and not the problem, is what holds methods up
METHODS = {
    "DSGD": jd.DSGD(0.1),
    "GradientTracking": jd.GradientTracking(0.1),
    "EXTRA": jd.EXTRA(0.1),
    "ExactDiffusion": jd.ExactDiffusion(0.1),
}
QUICK = ("grid 2 x 8", "ring", "grid 4 x 4", "exponential", "complete")
SHUFFLED = ("path", "ring", "grid 4 x 4", "exponential")
PICTURES = ("ring", "grid 4 x 4", "4-regular", "exponential")
SCHEMES = ("averaging", "Chebyshev")
SCALES = {
    "quick": SimpleNamespace(graphs=QUICK, stepsizes=jnp.logspace(-1.5, -0.25, 6), steps=900),
    "default": SimpleNamespace(graphs=None, stepsizes=jnp.logspace(-2.5, 0, 11), steps=2400),
    "full": SimpleNamespace(graphs=None, stepsizes=jnp.logspace(-2.5, 0, 21), steps=4800),
}


def graphs(seed: int = 0) -> dict[str, nx.Graph]:
    """Return the graphs; ``seed`` draws the random ones."""
    n, made = AGENTS, jd.graphs
    fixed = {
        "path": made.path(n),
        "binary tree": made.tree(n),
        "grid 2 x 8": made.grid(2, n // 2),
        "ring": made.ring(n),
        "grid 4 x 4": made.grid(4, n // 4),
        "torus 4 x 4": made.torus(4, n // 4),  # it is the hypercube of 16 agents, too
        "exponential": made.exponential(n),
        "complete": made.complete(n),
    }
    small = {f"small world, {p:g}": made.watts_strogatz(n, 4, p, seed=seed) for p in (0.0, 1.0)}
    return fixed | small | {f"{d}-regular": made.regular(n, d, seed=seed) for d in (4, 12)}


def placed(graph: nx.Graph, seed: int | None = None) -> nx.Graph:
    """Return the graph with its agents numbered along W's second eigenvector, or at random.

    With data split by label the first half of the agents holds one digit. Along the eigenvector,
    that half is one end of the graph; ``seed`` shuffles instead.
    """
    if seed is None:
        weights = jd.networks.metropolis(graph).csr().toarray()
        order = np.argsort(np.linalg.eigh(weights)[1][:, -2].round(9), kind="stable")
    else:
        order = np.random.default_rng(seed).permutation(len(graph))
    nodes = list(graph)
    numbered = nx.Graph()
    numbered.add_nodes_from((nodes[i], graph.nodes[nodes[i]]) for i in order)
    numbered.add_edges_from(graph.edges)
    return numbered


def dense(graph: nx.Graph) -> Any:
    """Return Metropolis weights as a dense matrix, so that all networks share one program."""
    return jd.networks.mixing(jd.networks.metropolis(graph).csr(), form=jd.networks.Dense)


def problem() -> Any:
    """Return the regression, split by label, so that nearly all agents see only one digit."""
    data = jd.data.digits().only(*DIGITS)
    return jd.problems.logistic_regression(
        data.features, data.labels == DIGITS[1], agents=AGENTS, l2=L2, partition="by_label"
    )


def world(sizes: Any, seed: int) -> Any:
    """Return the problem and the networks: by increasing gap, numbered along λ₂ or at random."""
    made = {name: g for name, g in graphs(seed).items() if name in (sizes.graphs or (name,))}
    along = {name: dense(placed(graph)) for name, graph in made.items()}
    by_gap = dict(sorted(along.items(), key=lambda item: item[1].spectral_gap))
    shuffled = {name: dense(placed(made[name], seed)) for name in SHUFFLED if name in made}
    found = {"problem": problem(), "networks": by_gap, "shuffled": shuffled}
    return SimpleNamespace(sizes=sizes, seed=seed, **found)


def averaging(_: Any, world: Any, __: Any) -> xr.Dataset:
    """Return the rounds to `AVERAGED`, plainly and with polynomials of ⌈1/√gap⌉ exchanges."""
    x0 = np.asarray(jax.random.normal(jax.random.key(world.seed), (AGENTS, 64)))
    found = []
    for network in world.networks.values():
        repetitions = math.ceil(1 / math.sqrt(network.spectral_gap) - 1e-6)
        polynomial = jd.networks.Chebyshev(network, repetitions)
        found.append([steps_of(network, x0), repetitions * steps_of(polynomial, x0)])
    labels = {"network": list(world.networks), "algorithm": list(SCHEMES)}
    rounds = xr.DataArray(np.array(found, float), labels, ("network", "algorithm"))
    return with_gaps(rounds.to_dataset(name="rounds"), world)


def steps_of(operator: Any, x0: np.ndarray) -> int:
    """Return the steps x ← W x to `AVERAGED`, of an operator W."""
    matrix, away, steps = np.asarray(operator @ jnp.eye(AGENTS)), x0 - x0.mean(axis=0), 0
    enough = AVERAGED * np.linalg.norm(away)
    while np.linalg.norm(away) > enough:
        away, steps = matrix @ away, steps + 1
    return steps


def optimization(members: str, methods: Any, world: Any, _: Any) -> dict[str, Program]:
    """Return the histories of the methods on the networks at all stepsizes, full gradients."""
    return comparisons(
        {name: METHODS[name] for name in methods or METHODS},
        ["gap", "consensus_error", "rounds", "diverged"],
        problem=world.problem,
        networks=getattr(world, members),
        over={"stepsize": world.sizes.stepsizes},
        seeds=[world.seed],
        steps=world.sizes.steps,
        every=5,
    )


def with_gaps(dataset: xr.Dataset, world: Any, _: Any = None) -> xr.Dataset:
    """Return the dataset with its networks' spectral gaps as a coordinate."""
    gaps = [world.networks[name].spectral_gap for name in dataset.network.values]
    return dataset.assign_coords(spectral_gap=("network", gaps))


def rounds_to(dataset: xr.Dataset, target: float) -> xr.DataArray:
    """Return rounds to F − F* ≤ ``target`` at each method's and network's best stepsize.

    Best is the first to get there, among the stepsizes that are still there at the end.
    """
    stays = dataset.gap.isel(step=-1) <= target
    return jd.reach(dataset, "gap", target, x="rounds").where(stays).min("stepsize").mean("seed")


def rounds(results: Results) -> xr.DataArray:
    """Return the rounds of all schemes and methods, [algorithm, network]; NaN if not reached."""
    rows = [results["averaging"].rounds.transpose("algorithm", "network")]
    for name in METHODS:
        own = results["optimization"].sel(algorithm=[name])
        rows.append(rounds_to(own, COARSE if name == "DSGD" else TARGET))
    return xr.concat(rows, "algorithm", coords="minimal", compat="override").rename("rounds")


def fitted(name: str) -> Any:
    """Return the measure of the slope of log rounds over log gap, at small gaps."""

    def measure(results: Results) -> xr.DataArray:
        here = rounds(results).sel(algorithm=[name])
        return exponent(here.spectral_gap, here.where(here.spectral_gap < SMALL), "network")

    return measure


def placement(target: float, results: Results) -> xr.DataArray:
    """Return gradient tracking's rounds with the digits at two ends of a ring, over shuffled."""
    both = [rounds_to(results[name], target) for name in ("optimization", "shuffled")]
    at = {"algorithm": "GradientTracking", "network": "ring"}
    slow, shuffled = (each.sel(at, drop=True) for each in both)
    return slow / shuffled


LATER = ("default", "full")
CLAIMS = claims(
    ("averaging: rounds ~ gap^p", "theory: log(1/e) / gap", "-1",
     fitted("averaging"), near(-1, 0.1)),
    ("Chebyshev: rounds ~ gap^p", "theory: log(1/e) / √gap", "-1/2",
     fitted("Chebyshev"), near(-0.5, 0.1)),
    ("gradient tracking at its best stepsize: rounds ~ gap^p",
     "theory: at most 1 / gap², 1 / gap at small stepsizes", "-1",
     fitted("GradientTracking"), near(-1, 0.3)),
    ("exact diffusion at its best stepsize: rounds ~ gap^p",
     "theory: κ + 1 / gap, √(κ / gap) at the best stepsize", "-1/2",
     fitted("ExactDiffusion"), near(-0.5, 0.2)),
    ("EXTRA, too", "theory, likewise", "-1/2", fitted("EXTRA"), near(-0.5, 0.2), LATER),
    ("on the ring, shuffled agents are quicker to a rough accuracy: factor in rounds",
     "measured here", "> 3", partial(placement, COARSE), above(3)),
    ("and no quicker to a fine one: factor in rounds", "theory: the gap is the rate in the end",
     "1", partial(placement, TARGET), near(1, 0.2)),
)  # fmt: skip


def draw_graph(name: str, ax: Any, results: Results) -> None:
    """Draw a graph with its weights, each agent labelled with its most frequent digit."""
    made = graphs(results.world.seed)[name]
    network = dense(placed(made))
    where = nx.get_node_attributes(made, "pos") or nx.circular_layout(made)
    points = np.array([where[node] for node in placed(made)])
    digits = [str(DIGITS[2 * i >= AGENTS]) for i in range(AGENTS)]
    jd.plot.graph(network, ax=ax, positions=points, labels=digits)
    ax.set_title(f"{name}, gap {network.spectral_gap:.2f}")


def draw_spectra(ax: Any, results: Results) -> None:
    """Draw the spectra of four graphs."""
    made = graphs(results.world.seed)
    jd.plot.spectrum({name: dense(placed(made[name])) for name in PICTURES}, ax=ax)


def guide(scale: float, power: float, label: str, dashes: str) -> Any:
    """Return a drawing of scale · gap^power from the smallest gap to 1."""

    def draw(ax: Any, results: Results) -> None:
        gap = np.array([float(results["averaging"].spectral_gap.min()), 1.0])
        ax.plot(gap, scale * gap**power, label=label, **REFERENCE | {"linestyle": dashes})

    return draw


def draw_stepsizes(name: str, ax: Any, results: Results) -> None:
    """Draw F − F* after 500 rounds over stepsize and spectral gap."""
    early = results["optimization"].sel(step=slice(None, 500)).swap_dims(network="spectral_gap")
    high = float(early.gap.isel(step=0).max())
    last = name == list(METHODS)[-1]
    chosen = early.sel(algorithm=present(early, "algorithm", name))
    jd.plot.heatmap(chosen, by="spectral_gap", ax=ax, vmin=1e-12, vmax=high, colorbar=last)
    ax.set(title=name, ylabel=GAP)


GAP = r"spectral gap  $1 - |\lambda_2|$"
OVER_GAP = {"x": "spectral_gap", "ticks": False, "joined": False, "xlabel": GAP, "legend": "panel"}
LOG = -math.log(AVERAGED)
GUIDES = [
    guide(LOG, -1, r"$\log(1/\epsilon) / \mathrm{gap}$", "-"),
    guide(1.28 * LOG, -0.5, r"$1.28\,\log(1/\epsilon) / \sqrt{\mathrm{gap}}$", "--"),
]
BEST = {"algorithm": "GradientTracking", "network": "complete"}
SCALING = [
    LogLog(data=lambda r: rounds(r).sel(algorithm=list(SCHEMES)), also=GUIDES,
           title=rf"averaging to $\epsilon$ = {AVERAGED:g}", **OVER_GAP),
    LogLog(data=lambda r: rounds(r).sel(algorithm=list(METHODS)),
           also=[level(lambda r: float(rounds(r).sel(BEST)), "centralized")],
           title=f"gap {TARGET:g} (DSGD: {COARSE:g}), best stepsizes", **OVER_GAP),
]  # fmt: skip
STUDY = Study(
    name="networks",
    paper="Gossip, Chebyshev acceleration, and the methods of the quick start",
    question="How many rounds does good connectivity save, at which stepsizes?",
    scales=SCALES,
    world=world,
    parts={
        "averaging": Part(None, None, averaging),
        "optimization": Part("algorithm", partial(optimization, "networks", None), with_gaps),
        "shuffled": Part(
            "algorithm", partial(optimization, "shuffled", ["DSGD", "GradientTracking"])
        ),
    },
    claims=CLAIMS,
    figures={
        "graphs": Figure([[partial(draw_graph, name) for name in PICTURES]], height=1.9),
        "spectra": Figure([[draw_spectra]], width="column", height=2.4),
        "scaling": Figure([SCALING], height=2.7),
        "stepsizes": Figure([[partial(draw_stepsizes, name) for name in METHODS]], sharey=True),
    },
    tables={
        "rounds": (
            "rounds to a relative disagreement, or a gap",
            lambda r: rounds(r).to_dataset("algorithm").reset_coords(),
        )
    },
    minutes={"quick": 0.7, "default": 3, "full": 20},
    data=lambda world: (
        f"digits {DIGITS[0]} against {DIGITS[1]} of scikit-learn over {AGENTS} agents by label, "
        f"{world.problem.d} features"
    ),
)
