"""STPP and BTPP: Push-Pull on spanning trees, against methods for graphs, digraphs and trees.

STPP has breadth-first trees of any strongly connected graph, BTPP a B-ary tree. Quadratics with
Gaussian noise: floors at a constant n γ; transient times with αₖ = 2 / (μ (k + m)), over n on
trees, from a start close to the solution: the first step after which the mean over agents and seeds
of |xᵢ − x*|² stays within twice SGD's; and curves at each method's best constant stepsize. Full
gradients on directed rings: which stepsizes of STPP are stable. On the directed ring, DSGD and DSGT
have the doubly stochastic (I + P) / 2. Everything in float64.

Derived here: STPP's root runs SGD with delays. Its floor is SGD's times (1 + sin αhD) / cos αhD in
a direction of curvature h if all delays are D: 1.5 at a third of the stability limit. The agents
below add the noise of gradient differences: on the directed ring their error is (1 + O(α n²)) times
the root's. DSGT, Push-Pull and AB are stable there up to αh of about (2π / n)³ / 16 only.

Not here: other trees than breadth-first ones (how the paper chooses is not known to us, nor are its
experiments) and the theorems for nonconvex functions, for which there is the study `btpp`.
"""

import functools
import math
from collections import namedtuple
from collections.abc import Callable, Iterable, Sequence
from types import SimpleNamespace
from typing import Any

import networkx as nx
import numpy as np
import pandas as pd
import xarray as xr
from jax import random, vmap

import jaxdopt as jd
from experiments.claims import above, below, claims, near
from experiments.digraphs import dense
from experiments.measures import agents_error, behind, exponent, over, tail
from experiments.panels import REFERENCE, Figure, Heat, Lines, LogLog, level, present
from experiments.study import Axis, Part, Program, Results, Study, keys

DIMENSION, CONDITION, SIGMA = 5, 2.0, 1.0
START = 0.03  # |x₀ − x*| of floors and transients
FLOOR_STEPSIZE = 0.004  # n γ L: a third of the limit on the directed ring of 128
FOREVER = 1e9  # the offset at which a decreasing stepsize is a constant
GRID = np.logspace(-3.5, -0.5, 13)  # of n γ for trees, of α for all others
FACTOR = 2.0  # of centralized SGD's error
MULTIPLES = (0.7, 0.8, 0.9, 0.95, 1.0, 1.05, 1.1, 1.2, 1.3)  # of the stability limit
SHALLOW = "0.5 / (n L)"  # a stepsize for shallow trees
TREES = ("STPP", "BTPP")
ANYWHERE = ("SGD", "BTPP")  # methods to which the graph makes no difference


def doubly_stochastic(graph: nx.Graph) -> Any:
    """Return Metropolis weights; on a directed ring (I + P) / 2."""
    lazy = (np.eye(len(graph)) + nx.to_numpy_array(graph).T) / 2
    weights = lazy if graph.is_directed() else jd.networks.metropolis(graph).csr()
    return jd.networks.mixing(weights, form=jd.networks.Dense)


def trees(graph: nx.Graph, undirected: bool = False) -> Any:
    """Return the graph's spanning trees; only `RelaySGD` asks whether both are the same."""
    return dense(jd.networks.spanning_tree(graph), undirected=undirected)


METHODS: dict[str, tuple[Any, Callable[[nx.Graph], Any]]] = {
    "SGD": (jd.GradientDescent, doubly_stochastic),  # on gradients with noise
    "DSGD": (jd.DSGD, doubly_stochastic),
    "DSGT": (jd.GradientTracking, doubly_stochastic),
    "ED": (jd.ExactDiffusion, doubly_stochastic),
    "RelaySGD": (jd.RelaySGD, functools.partial(trees, undirected=True)),
    "Push-Pull": (jd.PushPull, lambda graph: dense(jd.networks.push_pull(graph))),
    "AB": (jd.AB, lambda graph: dense(jd.networks.push_pull(graph))),
    "STPP": (jd.STPP, trees),
    "BTPP": (jd.STPP, lambda graph: jd.networks.bary_tree(len(graph), 2)),
}
GRAPHS = ("directed ring", "ring", "grid", "exponential", "Erdos-Renyi")
# Of "runs": numbers of agents, more of them for floors only, methods, m, steps, seeds; of "curves":
# agents, stepsizes, steps, seeds; of "stability": numbers of agents, steps; the graphs and methods.
Sizes: Any = namedtuple("Sizes", "runs curves rings graphs methods")
SCALES = {
    "quick": Sizes(((8, 32), (), ("SGD", "STPP"), 200.0, 1800, 4), (8, (0.01, 0.03), 1800, 4),
                   ((16,), 1000), ("directed ring", "exponential"), ("SGD", "DSGT", "STPP")),
    "default": Sizes(((8, 16, 32, 64), (128,), METHODS, 400.0, 6000, 8), (32, GRID, 1500, 4),
                     ((8, 16, 32, 64), 4000), GRAPHS, METHODS),
    "full": Sizes(((8, 16, 32, 64, 128), (), METHODS, 800.0, 102_000, 20), (32, GRID, 4500, 20),
                  ((8, 16, 32, 64, 128), 20_000), GRAPHS, METHODS),
}  # fmt: skip


def graphs(n: int, names: Iterable[str] = GRAPHS, seed: int = 0) -> dict[str, nx.Graph]:
    """Return the graphs of n agents; the random one has a mean degree of about 2 ln n."""
    rows = max(r for r in range(1, math.isqrt(n) + 1) if n % r == 0)
    made = {
        "directed ring": jd.graphs.directed_ring(n),
        "ring": jd.graphs.ring(n),
        "grid": jd.graphs.grid(rows, n // rows),
        "exponential": jd.graphs.exponential(n),
        "Erdos-Renyi": jd.graphs.erdos_renyi(n, 2 * math.log(n) / n, seed=seed),
    }
    return {name: made[name] for name in names}


def quadratic(n: int, spread: float, seed: int) -> Any:
    """Return n agents' quadratics; mean Hessian and solution are the same for any n."""
    options = {"condition_number": CONDITION, "heterogeneity": 3.0, "curvature_spread": spread}
    return jd.problems.quadratic(n, DIMENSION, **options, seed=seed)


def program(world: Any, name: str, n: int, steps: int, seeds: int, x0: float, **given: Any) -> Any:
    """Return a method's program over stepsize, network and seed, on quadratics with noise.

    ``given`` has a dimension with {label: (a, m)} of the stepsizes a / (k + m), over n on trees.
    Agents start at ``x0`` beyond the solution, or at 0 if it is 0.
    """
    ((dim, stepsizes),) = given.items()
    kind, network = METHODS[name]
    names, alike = world.sizes.graphs, world.sizes.graphs if name in ANYWHERE else ()
    made = graphs(n, names[:1] if alike else names, world.seed)
    if name in ("ED", "RelaySGD"):
        made = {where: graph for where, graph in made.items() if not graph.is_directed()}
    problem = jd.problems.GaussianNoise(quadratic(n, 0.5, world.seed), SIGMA)
    numerators, offsets = np.array(list(stepsizes.values())).T
    schedules = vmap(jd.schedules.InverseTime)(numerators / (n if name in TREES else 1), offsets)
    which = range(world.seed, world.seed + seeds)
    arguments = {
        "algorithm": vmap(kind)(schedules),
        "problem": problem,
        "network": jd.networks.stack([network(graph) for graph in made.values()]),
        "x0": problem.start(problem.solution + x0 if x0 else None),
        "key": keys(which),
        "steps": steps,
        "every": max(steps // 150, 1),
        "metrics": {"agents_error": agents_error},
    }
    axes = {"algorithm": Axis(dim, list(stepsizes)), "network": Axis("network", list(made))}
    axes["key"] = Axis("seed", which)
    return Program(arguments, axes, reduce=functools.partial(reduced, alike=alike))


def reduced(dataset: xr.Dataset, alike: Sequence[str]) -> xr.Dataset:
    """Return a few variables, ``sent`` the vectors over all links, once for each alike network."""
    sent = (dataset.traffic / dataset.bits * dataset.vectors).fillna(0.0)
    names = ["agents_error", "gradient_norm_squared", "sent", "diverged"]
    dataset = dataset.assign(sent=sent)[names].reset_coords(drop=True)
    same = dataset.isel(network=[0] * len(alike)).assign_coords(network=list(alike))
    return same if alike else dataset


def runs(world: Any, _: Results) -> dict[Any, Program]:
    """Return decreasing stepsizes, and a constant one for SGD, STPP and BTPP."""
    some, larger, methods, offset, steps, seeds = world.sizes.runs
    constant = {"constant": (FLOOR_STEPSIZE * FOREVER, FOREVER)}
    decreasing = {"decreasing": (2 * CONDITION, offset)}
    floored = ("SGD", *TREES)
    jobs = {(n, m): decreasing | (constant if m in floored else {}) for n in some for m in methods}
    jobs |= {(n, m): constant for n in larger for m in floored}
    options = {"steps": steps, "seeds": seeds, "x0": START / math.sqrt(DIMENSION)}
    return {(n, m): program(world, m, n, kind=job, **options) for (n, m), job in jobs.items()}


def curves(world: Any, _: Results) -> dict[Any, Program]:
    """Return histories from x₀ = 0 with constant stepsizes α, which is n γ for trees."""
    n, values, steps, seeds = world.sizes.curves
    rates = {float(value): (value * FOREVER, FOREVER) for value in values}
    options: Any = {"steps": steps, "seeds": seeds, "x0": 0.0, "stepsize": rates}
    return {name: program(world, name, n, **options) for name in world.sizes.methods}


def smoothed(dataset: xr.Dataset, world: Any, _: Results) -> xr.Dataset:
    """Return each method's best stepsize by ``error``: agents_error over 10 records and seeds."""
    error = dataset.agents_error.mean("seed", skipna=False).rolling(step=10, min_periods=1).mean()
    dataset = dataset.assign(error=error, diverged=dataset.diverged.any("seed"))
    return jd.best(dataset.sel(network=list(world.sizes.graphs)), "error")


def measured(dataset: xr.Dataset, world: Any, _: Results) -> xr.Dataset:
    """Add the floors of |∇F|² at the estimate (the root's, or the mean), theory's, and transients.

    ``theory`` [n] is SGD's; ``delayed`` [n] with one delay of n − 1, about the directed ring's.
    """
    dataset = dataset.sel(network=list(world.sizes.graphs))
    names = present(dataset, "algorithm", ["SGD", *TREES])
    constant = dataset.gradient_norm_squared.sel(kind="constant", algorithm=names, drop=True)
    h = xr.DataArray(np.logspace(-math.log10(CONDITION), 0, DIMENSION), dims="h")
    n, a = dataset.n, FLOOR_STEPSIZE
    sgd = h * a * SIGMA**2 / (n * DIMENSION * (2 - a * h))
    late = (a * h * (n - 1)).where(lambda angle: angle < np.pi / 2)
    delayed = (sgd * (1 + np.sin(late)) / np.cos(late)).sum("h", skipna=False)
    found = {"floor": tail(constant, 0.5), "theory": sgd.sum("h"), "delayed": delayed}
    return dataset.assign(found).assign(transients(dataset))


def transients(runs: xr.Dataset) -> xr.Dataset:
    """Return transient times over algorithm, network and n, and the last ratios to SGD's errors.

    Infinite where the steps were not enough, 0 where none is needed, NaN where a method does not
    run.
    """
    errors = runs[["agents_error"]].sel(kind="decreasing", drop=True).isel(step=slice(1, None))
    errors = errors.dropna("n", how="all")
    missing = errors.agents_error.isnull().all(["seed", "step"]).drop_sel(algorithm="SGD")
    times, ratio = (each.agents_error for each in behind(errors, "SGD", FACTOR))
    return xr.Dataset({"transient": times, "ratio": ratio}).where(~missing)


def rings(world: Any, _: Results) -> dict[int, Program]:
    """Return the program of each directed ring."""
    (some, steps), seed = world.sizes.rings, world.seed
    return {n: Program({"n": n, "steps": steps, "seed": seed}, function=stability) for n in some}


def stability(n: int, steps: int, seed: int) -> xr.Dataset:
    """Return how STPP's errors grow or fall on the directed ring, with full gradients.

    Stepsizes are its default, one for shallow trees, and multiples of the limit of equal delays
    D = n − 1, 2 sin(π / (2 (2 D + 1))) / (n L). ``growth`` is |x − x*| at the root at the end, over
    that at the start; ``limit`` the largest of the multiples at which it still fell.
    """
    problem = quadratic(n, 0.0, seed)
    network = jd.networks.spanning_tree(jd.graphs.directed_ring(n))
    longest = 2 * math.sin(math.pi / (2 * (2 * (n - 1) + 1)))
    rates = np.concatenate([[0.5], longest * np.array(MULTIPLES)]) / (n * float(problem.smoothness))
    shared = (problem, network, problem.start(), random.key(seed))
    run = functools.partial(jd.run, steps=steps, every=max(steps // 10, 1))
    default = run(jd.STPP(), *shared).history["distance_squared"]
    others = jd.sweep(run, over="algorithm")(vmap(jd.STPP)(rates), *shared)
    errors = np.vstack([default, others.history["distance_squared"]])
    growth = np.sqrt(errors[:, -1] / errors[:, 0])
    growth = np.where(np.isfinite(growth), growth, np.inf)
    falls = np.nan_to_num(errors[2:, -1], nan=np.inf) < errors[2:, errors.shape[1] // 2]
    limit = np.max(MULTIPLES, where=falls, initial=0.0)
    rules = ["default", SHALLOW, *(f"{m:g}" for m in MULTIPLES)]
    return xr.Dataset({"growth": ("rule", growth), "limit": limit}, {"rule": rules})


def exponents(values: xr.DataArray, *names: str) -> xr.DataArray:
    """Return exponents over n, by method and network."""
    values = values.sel(algorithm=present(values, "algorithm", list(names)))
    return exponent(values.n, values, "n")


def times(results: Results) -> xr.DataArray:
    """Return transient times, at least the first record's step."""
    runs = results["runs"]
    return runs.transient.clip(min=int(runs.step[1])).dropna("n", how="all")


def vectors(results: Results) -> xr.DataArray:
    """Return the vectors that trees send in an iteration over 2 (n − 1)."""
    sent = results["curves"].sent.sel(network="exponential").isel(step=-1).mean("seed")
    sent = sent.sel(algorithm=present(sent, "algorithm", TREES)).reset_coords(drop=True)
    return sent / (int(results["curves"].step[-1]) * 2 * (results.world.sizes.curves[0] - 1))


DEEP, RIVALS = "directed ring", ("DSGD", "DSGT", "Push-Pull", "AB")
STPP, BTPP = "2503.16123, abstract", "2404.05454"
BOTH, MANY = f"{BTPP}; {STPP}", ("default", "full")  # scales with more than two numbers of agents
CLAIMS = claims(
    ("linear speedup: exponent of the noise floor over n", BOTH, "-1",
     lambda r: exponents(r["runs"].floor.mean("seed"), *TREES), near(-1, 0.2), MANY),
    ("BTPP's transient time is O(1) if strongly convex, up to logarithms: exponent over n",
     BTPP, "0", lambda r: exponents(times(r), "BTPP"), below(0.2), MANY),
    ("STPP's transient time is O(n^3) at most if strongly convex: exponent over n",
     STPP, "<= 3", lambda r: exponents(times(r), "STPP"), below(3), MANY),
    ("STPP beats DSGT and its like on the directed ring: others' last errors over STPP's",
     STPP, "> 1", lambda r: over(r["curves"].error.isel(step=-1).sel(network=DEEP), RIVALS, "STPP"),
     above(1)),
    ("2 (n - 1) vectors are sent in an iteration: share of them", BOTH, "1",
     vectors, near(1, 1e-9)),
    ("STPP's default stepsize is stable on deep trees: growth of errors", "derived", "< 1",
     lambda r: r["stability"].growth.sel(rule="default"), below(1)),
    (f"{SHALLOW}, which is stable on shallow trees, is not: growth on the largest ring",
     "derived", "> 1", lambda r: r["stability"].growth.sel(rule=SHALLOW)[-1], above(1)),
    ("the largest stable stepsize over that of equal delays n - 1", "derived", "1",
     lambda r: r["stability"].limit, near(1, 0.2)),
)  # fmt: skip


def floor_members(results: Results) -> xr.DataArray:
    """Return n times the floors of SGD, BTPP, and STPP on three graphs; the others' are alike."""
    floor = results["runs"].floor * results["runs"].n
    places = {name: (name, floor.network.values[0]) for name in ANYWHERE}
    places |= {f"STPP, {where}": ("STPP", where) for where in SHOWN[:3]}
    parts = {
        member: floor.sel(algorithm=name, network=where).reset_coords(drop=True)
        for member, (name, where) in places.items()
        if name in floor.algorithm and where in floor.network
    }
    whole: Any = xr.concat(list(parts.values()), pd.Index(list(parts), name="member"))
    return whole


def theory(ax: Any, results: Results) -> None:
    """Draw n times the floors that theory gives SGD, without and with a delay."""
    n, runs = results["runs"].n, results["runs"]
    ax.plot(n, n * runs.theory, label="SGD, theory", **REFERENCE | {"linestyle": "--"})
    label = "SGD, delay $n - 1$, theory"
    ax.plot(n, n * runs.delayed, label=label, **REFERENCE | {"linestyle": ":"})
    ax.ticklabel_format(axis="y", scilimits=(0, 0), useMathText=True)


def transients_panel(where: str, **options: Any) -> LogLog:
    """Return the panel of one graph's transient times over n."""
    end = level(lambda r: int(r["runs"].step[-1]), "end of the runs", color="0.7", linestyle="-")
    options = {"title": where, "ylabel": "transient time, steps"} | options
    at = {"network": where, "algorithm": list(METHODS)}
    return LogLog(data=times, at=at, x="n", xlabel=AGENTS, dodge=1.04, also=[end], **options)


def curves_panel(where: str, **options: Any) -> Lines:
    """Return the panel of one graph's errors at the best stepsizes."""
    own = ("Push-Pull", "AB") if where == "directed ring" else ("ED", "RelaySGD")
    at = {"network": where, "algorithm": ["SGD", "DSGD", "DSGT", *own, *TREES]}
    error = "error  $\\frac{1}{n}\\sum_i |x_i - x^\\star|^2$"
    options = {"title": where, "ylabel": error} | options
    return Lines(data="curves", at=at, y="error", x="step", **options)


AGENTS = "agents  $n$"
SHOWN = ("directed ring", "exponential", "ring", "grid", "Erdos-Renyi")
ROWS = (SHOWN[:3], SHOWN[3:])
FIGURES = {
    "stpp": Figure([
        [
            LogLog(data=floor_members, x="n", by="member", logy=False, dodge=1.03, ylim=(0, None),
                   xlabel=AGENTS, ylabel="$n\\,\\mathrm{E}|\\nabla F|^2$ at the root",
                   also=[theory], title=f"noise floor, $n \\gamma L$ = {FLOOR_STEPSIZE:g}"),
            Heat(data=lambda r: np.log10(r["stability"].growth).clip(-99, 99), x="rule", y="n",
                 form=".0f", log=False, limits=(-12, 12), cmap="RdBu_r", ylabel=AGENTS,
                 title="directed rings: $\\log_{10}$(last error / first)",
                 labels={SHALLOW: "$0.5/(nL)$"},
                 xlabel="$\\gamma$, or multiple of $2 \\sin(\\pi / (4n - 2)) / (nL)$"),
        ],
        [
            transients_panel("directed ring", title="directed ring: transients"),
            curves_panel("directed ring", title="directed ring: errors"),
            curves_panel("exponential", title="exponential: errors", ylabel=""),
        ],
    ], height=2.5),
    "transients": Figure([list(map(transients_panel, row)) for row in ROWS], sharey=True),
    "curves": Figure([list(map(curves_panel, row)) for row in ROWS], sharey=True),
}  # fmt: skip
STUDY = Study(
    name="stpp",
    paper="You, Pu (2025), STPP, arXiv 2503.16123; You, Pu (2024), BTPP, arXiv 2404.05454",
    question="Is Push-Pull on spanning trees as good as centralized SGD, and how soon?",
    scales=SCALES,
    world=lambda sizes, seed: SimpleNamespace(sizes=sizes, seed=seed),
    parts={
        "runs": Part(("n", "algorithm"), runs, measured),
        "curves": Part("algorithm", curves, smoothed),
        "stability": Part("n", rings),
    },
    claims=CLAIMS,
    figures=FIGURES,
    tables={
        "transients": (
            "transient times in steps; inf: not reached",
            lambda r: r["runs"].transient.to_series().dropna().unstack("n").reset_index(),
        )
    },
    minutes={"quick": 1, "default": 7, "full": 90},
    data=lambda _: f"quadratics of {DIMENSION} dimensions with Gaussian noise",
)
