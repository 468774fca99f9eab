"""STPP and BTPP: Push-Pull on spanning trees, against methods for graphs, digraphs and trees.

You, Pu (2025), arXiv 2503.16123 (STPP: breadth-first trees of any strongly connected graph), and
You, Pu (2024), arXiv 2404.05454 (BTPP: a B-ary tree). Four questions:

* *floors*: at a fixed n γ, is the noise floor times n the same for 8 agents and for 128?
* *transients*: after how many steps are the agents as good as centralized SGD's iterate? With
  stepsizes αₖ = 2 / (μ (k + m)), the same for all methods (γₖ = αₖ / n on trees), it is the first
  step after which the mean over agents and seeds of |xᵢ − x*|² stays within twice SGD's. The agents
  start close to the solution, where noise soon takes over from the start. Every agent's own model
  counts: that of their mean is as good as SGD's from the beginning for nearly all methods.
* *curves*: each method at its own best constant stepsize of one grid; γ = α / n on trees.
* *synthetic*: the experiment of BTPP's paper, logistic regression with a nonconvex penalty.

What the numbers do not say by themselves:

* On the directed ring STPP's root is soon as good as SGD and the other agents are later: what they
  hear on the way down are partial sums of gradient differences, whose noise adds up along the path,
  so that their error is (1 + O(α n²)) times the root's.
* The same root runs SGD with delays, and its floor is that of SGD times (1 + sin αhD) / cos αhD in
  a direction of curvature h if all delays are D. At a third of the stability limit that is 1.5: the
  speedup is linear at stepsizes well below the limit, which falls as 1 / depth.
* DSGT, Push-Pull and AB diverge on larger directed rings with the common stepsizes. With the
  eigenvalue λ = (1 + exp(2πi / n)) / 2 their modes have (z − λ)² = −λ αh (z − 1), stable up to
  αh of about (2π / n)³ / 16 only, where a real λ allows αh < 1 − λ.
* RelaySGD averages models as old as they are far, so that its effective stepsize is smaller by
  about one plus the mean distance. With the common stepsizes it is late by that; its own best ones
  are larger than others' by as much.
* The estimates of BTPP's and STPP's theorems are the root's, and those of others the agents' mean.

The first three have quadratics with heterogeneous Hessians and minimizers and Gaussian noise, on
five graphs. On the directed ring, DSGD and DSGT have the doubly stochastic (I + P) / 2, and methods
that need an undirected graph are left out. Then the *stability* of STPP's stepsize, whose limit is
set by the trees' depths. Everything in float64.

Not here: other trees than breadth-first ones (how the paper chooses is not known to us), the
theorems for nonconvex functions, whose transient times are O(n) for BTPP and up to O(n⁷) for STPP,
and CECA-2P, base-(k+1) graphs and OD-EquiDyn, which BTPP's paper has in its figure. STPP's own
experiments are not known to us beyond the abstract. The synthetic experiment's weights on ring and
grid are Metropolis', and the stepsize falls after steps 100, 200, ...: the paper does not say.
"""

import functools
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pandas as pd
import xarray as xr
from tqdm import tqdm

import jaxdopt as jd
from experiments.results import write
from experiments.tables import number

GRAPHS = ("directed ring", "ring", "grid", "exponential", "Erdos-Renyi")
QUICK_GRAPHS = ("directed ring", "exponential")
SIZES = (8, 16, 32, 64)
DIMENSION, CONDITION, HETEROGENEITY, SIGMA = 5, 2.0, 3.0, 1.0
START = 0.03  # |x₀ − x*| of floors and transients
FLOOR_STEPSIZE = 0.004  # n γ L: a third of the limit on the directed ring of 128
BURN_IN = 0.5  # the share of the steps that floors leave out
FOREVER = 1e9  # the offset at which a decreasing stepsize is a constant
GRID = np.logspace(-3.5, -0.5, 13)  # of n γ for trees, of α for all others
FACTOR = 2.0  # of centralized SGD's error
COLORS = {
    "SGD": "#000000",
    "DSGD": "#D55E00",
    "DSGT": "#009E73",
    "ED": "#CC79A7",
    "RelaySGD": "#56B4E9",
    "Push-Pull": "#E69F00",
    "AB": "#999999",
    "STPP": "#0072B2",
    "BTPP": "#0072B2",
}
LOOKS = {"SGD": ("--", ""), "BTPP": (":", "s"), "AB": ("-", "v"), "RelaySGD": ("-", "D")}
UNDIRECTED = ("ED", "RelaySGD")
ANYWHERE = ("SGD", "BTPP")  # methods to which the graph makes no difference
TREES = ("STPP", "BTPP")
MISSING = "not in a quick run"

SYNTHETIC_STEPS = 800
TIMES = (0, 50, 100, 200, 400, 800)
BRANCHINGS = (2, 3, 4, 8, 16, 32, 64, 99)
REFERENCE = {
    "SGD": (0.4015, 0.141, 0.123, 0.0736, 0.0343, 0.0262),
    "BTPP, B = 2": (0.4015, 0.189, 0.191, 0.0810, 0.0370, 0.0296),
    "BTPP, B = 4": (math.nan, 0.172, 0.162, 0.0783, 0.0349, 0.0274),
    "BTPP, B = 99": (math.nan, 0.148, 0.131, 0.0745, 0.0342, 0.0263),
    "STPP exponential": (math.nan, 0.173, 0.159, 0.0790, 0.0350, 0.0273),
    "DSGT exponential": (math.nan, 0.184, 0.158, 0.0810, 0.0438, 0.0377),
    "DSGT ring": (math.nan, 0.218, 0.170, 0.1175, 0.0957, 0.0924),
    "DSGD ring": (math.nan, 0.222, 0.169, 0.122, 0.101, 0.0977),
}
"""|∇F| at `TIMES` (the last at 799): another re-run, in NumPy, one seed, 400 samples an agent."""


def graphs(n: int, names: Iterable[str] = GRAPHS, seed: int = 0) -> dict[str, nx.Graph]:
    """Return the graphs of n agents; the random one has a mean degree of about 2 ln n."""
    rows = max(r for r in range(1, math.isqrt(n) + 1) if n % r == 0)
    made: dict[str, Callable[[], nx.Graph]] = {
        "directed ring": lambda: jd.graphs.directed_ring(n),
        "ring": lambda: jd.graphs.ring(n),
        "grid": lambda: jd.graphs.grid(rows, n // rows),
        "exponential": lambda: jd.graphs.exponential(n),
        "Erdos-Renyi": lambda: jd.graphs.erdos_renyi(n, 2 * math.log(n) / n, seed=seed),
    }
    return {name: made[name]() for name in names}


def doubly_stochastic(graph: nx.Graph) -> Any:
    """Return Metropolis weights; on a directed ring (I + P) / 2."""
    if not graph.is_directed():
        weights = jd.networks.metropolis(graph).csr()
    else:
        weights = (np.eye(len(graph)) + nx.to_numpy_array(graph).T) / 2
    return jd.networks.mixing(weights, form=jd.networks.Dense)


def directed(graph: nx.Graph) -> Any:
    """Return R and C of `push_pull` as dense matrices."""
    return _dense(jd.networks.push_pull(graph))


def trees(graph: nx.Graph, undirected: bool = False) -> Any:
    """Return the graph's spanning trees as dense matrices: one form, and so one program, for all.

    Whether pull and push tree are the same is part of the form too; only `RelaySGD` asks.
    """
    return jd.replace(_dense(jd.networks.spanning_tree(graph)), undirected=undirected)


def _dense(network: Any) -> Any:
    def dense(part: Any) -> Any:
        matrix = jnp.asarray(part.csr().toarray())
        return jd.networks.Dense(matrix, symmetric=False, kind=part.kind)

    return jd.replace(network, row=dense(network.row), column=dense(network.column))


METHODS: dict[str, tuple[Any, Callable[[nx.Graph], Any]]] = {
    "SGD": (jd.GradientDescent, doubly_stochastic),
    "DSGD": (jd.DSGD, doubly_stochastic),
    "DSGT": (jd.GradientTracking, doubly_stochastic),
    "ED": (jd.ExactDiffusion, doubly_stochastic),
    "RelaySGD": (jd.RelaySGD, functools.partial(trees, undirected=True)),
    "Push-Pull": (jd.PushPull, directed),
    "AB": (jd.AB, directed),
    "STPP": (jd.STPP, trees),
    "BTPP": (jd.STPP, lambda graph: jd.networks.bary_tree(len(graph), 2)),
}
"""The classes, and what networks they need; SGD is gradient descent on gradients with noise."""


def quadratics(n: int, seed: int = 0) -> Any:
    """Return n agents' quadratics with noise; mean Hessian and solution are the same for any n."""
    problem = jd.problems.quadratic(
        n,
        DIMENSION,
        condition_number=CONDITION,
        heterogeneity=HETEROGENEITY,
        curvature_spread=0.5,
        seed=seed,
    )
    return jd.problems.GaussianNoise(problem, SIGMA)


def agents_error(state: Any, problem: Any) -> jax.Array:
    """(1/n) Σᵢ |xᵢ − x*|²."""
    return jnp.mean(jnp.sum((state.x - problem.solution) ** 2, axis=1))


def histories(
    name: str,
    made: Mapping[str, nx.Graph],
    stepsizes: Any,
    values: Mapping[str, Any],
    *,
    n: int,
    x0: Any = 0.0,
    seeds: Iterable[int],
    seed: int = 0,
    **options: Any,
) -> xr.Dataset:
    """Return a method's histories over stepsize, network and seed: one program for all graphs.

    Args:
        name: of `METHODS`; one that cannot run on some of the graphs is run on the others.
        made: the graphs.
        stepsizes: numbers or schedules, stacked [v].
        values: {coordinate: names [v]} of the stepsizes.
        n: the number of agents.
        x0: where they start from, relative to the solution if it is not 0.
        seeds: the runs'.
        seed: the problem's.
        options: of `jd.run`.
    """
    kind, network = METHODS[name]
    if name in ANYWHERE:
        made = dict(list(made.items())[:1])
    elif name in UNDIRECTED:
        made = {where: graph for where, graph in made.items() if not graph.is_directed()}
    problem = quadratics(n, seed)
    start = problem.start(problem.solution + x0 if x0 else None)
    result = jd.sweep(jd.run, over=("algorithm", "network", "key"))(
        jax.vmap(kind)(stepsizes),
        problem,
        jd.networks.stack([network(graph) for graph in made.values()]),
        start,
        jax.vmap(jax.random.key)(jnp.asarray(list(seeds))),
        metrics={"agents_error": agents_error},
        **options,
    )
    where = ["any"] if name in ANYWHERE else list(made)
    return jd.label(result, **values, network=where, seed=list(seeds))


def joined(parts: Mapping[str, xr.Dataset]) -> xr.Dataset:
    """Return the methods' datasets as one; SGD and BTPP are the same on every network."""
    known = {where: None for part in parts.values() for where in part.network.values}
    networks = [where for where in known if where != "any"]
    alike = []
    for name, part in parts.items():
        if name in ANYWHERE:
            part = xr.concat([part.isel(network=0, drop=True)] * len(networks), "network")
            part = part.assign_coords(network=networks)
        alike.append(part.assign(diverged=part.diverged.astype(float)))
    names = xr.DataArray(list(parts), dims="algorithm", name="algorithm")
    whole: Any = xr.concat(alike, names, join="outer", data_vars="all")
    return whole.sel(network=networks)


def noisy_runs(
    sizes: Iterable[int],
    larger: Iterable[int] = (),
    *,
    names: Iterable[str] = GRAPHS,
    methods: Iterable[str] = tuple(METHODS),
    seeds: int = 8,
    steps: int = 6000,
    offset: float = 400.0,
    seed: int = 0,
    progress: bool = True,
) -> xr.Dataset:
    """Return histories of decreasing stepsizes, and of a constant one for SGD, STPP and BTPP.

    Args:
        sizes: numbers of agents.
        larger: more of them, for the constant stepsize only.
        names: of the graphs.
        methods: of `METHODS`.
        seeds: how many.
        steps: of each run.
        offset: m of the decreasing stepsizes 2 / (μ (k + m)).
        seed: of problems, graphs and runs.
        progress: show a bar.

    Returns:
        A dataset over algorithm, n, kind ("decreasing", "constant"), network, seed, step.
    """
    both = {
        "decreasing": (2 * CONDITION, offset),
        "constant": (FLOOR_STEPSIZE * FOREVER, FOREVER),
    }
    jobs = [(n, name, list(both)) for n in sizes for name in methods]
    jobs = [
        (n, name, kinds if name in ("SGD", *TREES) else ["decreasing"]) for n, name, kinds in jobs
    ]
    jobs += [(n, name, ["constant"]) for n in larger for name in ("SGD", *TREES)]
    parts: dict[str, list[xr.Dataset]] = {}
    for n, name, kinds in tqdm(jobs, unit="method", disable=not progress):
        numerators, offsets = np.array([both[kind] for kind in kinds]).T
        part = histories(
            name,
            graphs(n, names, seed),
            _inverse_time(numerators / _share(name, n), offsets),
            {"kind": kinds},
            n=n,
            x0=START / math.sqrt(DIMENSION),
            seeds=range(seed, seed + seeds),
            seed=seed,
            steps=steps,
            every=max(steps // 150, 1),
        )
        parts.setdefault(name, []).append(part.expand_dims(n=[n]))
    each = {name: xr.concat(of, "n", join="outer", data_vars="all") for name, of in parts.items()}
    return joined(each).assign_attrs(offset=offset, constant=FLOOR_STEPSIZE)


def _inverse_time(numerators: np.ndarray, offsets: np.ndarray) -> Any:
    """Return schedules, stacked: one structure for all, so that programs can be shared."""
    return jax.vmap(jd.schedules.InverseTime)(jnp.asarray(numerators), jnp.asarray(offsets))


def _share(name: str, n: int) -> int:
    """Return n for methods on trees, whose trackers are sums and not means, and 1 for others."""
    return n if name in TREES else 1


def floors(runs: xr.Dataset) -> xr.Dataset:
    """Return the floors of |∇F|² at the estimate (the root's, or the mean) with the constant.

    Returns:
        ``floor`` over algorithm, network and n: the mean over the later steps and over seeds;
        ``error``, its standard error by seeds; ``theory`` [n] of SGD; ``delayed`` [n], the same
        with one delay of n − 1 for all gradients, about what the directed ring has.
    """
    present = [name for name in ("SGD", *TREES) if name in runs.algorithm]
    constant = runs.sel(kind="constant", algorithm=present).drop_vars("kind")
    late = constant.isel(step=slice(int(BURN_IN * constant.sizes["step"]), None))
    each = late.gradient_norm_squared.mean("step")
    h = np.logspace(-math.log10(CONDITION), 0, DIMENSION)
    n = runs.n.values[:, None]
    a = FLOOR_STEPSIZE
    sgd = h * a * SIGMA**2 / (n * DIMENSION * (2 - a * h))
    late_by = a * h * (n - 1)
    delayed = np.where(late_by < np.pi / 2, (1 + np.sin(late_by)) / np.cos(late_by), np.nan)
    return xr.Dataset(
        {
            "floor": each.mean("seed"),
            "error": each.std("seed", ddof=1) / math.sqrt(runs.sizes["seed"]),
            "theory": ("n", sgd.sum(axis=1)),
            "delayed": ("n", (sgd * delayed).sum(axis=1)),
        }
    )


def transients(runs: xr.Dataset) -> xr.Dataset:
    """Return transient times: after them, the error stays within twice centralized SGD's.

    Errors are means over seeds and over windows of a tenth of a decade of steps.

    Returns:
        ``steps`` over algorithm, network and n: infinite where they were not enough, NaN where the
        method does not run; ``ratio``, the last window's; ``estimate_steps`` and
        ``estimate_ratio``, the same for the distance of the agents' mean (of the root on trees).
    """
    decreasing = runs.sel(kind="decreasing").drop_vars("kind").isel(step=slice(1, None))
    decreasing = decreasing.dropna("n", how="all", subset=["agents_error"])
    windows = np.floor(10 * np.log10(decreasing.step.values))
    data = decreasing[["agents_error", "distance_squared"]]
    missing = data.agents_error.isnull().all(["seed", "step"])
    bad = ~np.isfinite(data) | (data > 1e12)
    data = data.where(~bad, 1e12).mean("seed")
    means = data.assign_coords(window=("step", windows)).groupby("window").mean()
    last = xr.DataArray(decreasing.step.values, dims="step").assign_coords(window=("step", windows))
    last = last.groupby("window").max()
    ratios = (means / means.sel(algorithm="SGD")).drop_sel(algorithm="SGD")
    steps, at_the_estimate = (
        _after(ratios[name] > FACTOR, last) for name in ("agents_error", "distance_squared")
    )
    return xr.Dataset(
        {
            "steps": steps,
            "estimate_steps": at_the_estimate,
            "ratio": ratios.agents_error.isel(window=-1, drop=True),
            "estimate_ratio": ratios.distance_squared.isel(window=-1, drop=True),
        }
    ).where(~missing.drop_sel(algorithm="SGD"))


def _after(above: xr.DataArray, last: xr.DataArray) -> xr.DataArray:
    """Return the last step of the last window above; infinite if that is the end, 0 if none is."""
    steps = last.where(above).max("window").fillna(0.0)
    return steps.where(~above.isel(window=-1, drop=True), math.inf)


def exponent(values: xr.DataArray) -> float:
    """Return the slope of log values over log n, least squares; NaN with fewer than two."""
    values = values.where(np.isfinite(values) & (values > 0)).dropna("n")
    if len(values) < 2:
        return math.nan
    return float(np.polyfit(np.log(values.n), np.log(values), 1)[0])


def curves(
    n: int,
    *,
    names: Iterable[str] = GRAPHS,
    methods: Iterable[str] = tuple(METHODS),
    stepsizes: Any = GRID,
    seeds: int = 4,
    steps: int = 1500,
    seed: int = 0,
    progress: bool = True,
) -> xr.Dataset:
    """Return histories from x₀ = 0 with constant stepsizes α, which is n γ for trees.

    ``sent`` counts the vectors sent over all links.
    """
    values = np.asarray(stepsizes)
    forever = np.full(len(values), FOREVER)
    parts = {
        name: histories(
            name,
            graphs(n, names, seed),
            _inverse_time(values * FOREVER / _share(name, n), forever),
            {"stepsize": values},
            n=n,
            seeds=range(seed, seed + seeds),
            seed=seed,
            steps=steps,
            every=max(steps // 150, 1),
        )
        for name in tqdm(methods, unit="method", disable=not progress)
    }
    dataset = joined(parts)
    sent = (dataset.traffic / dataset.bits * dataset.vectors).fillna(0.0)
    return dataset.assign(sent=sent).assign_attrs(agents=n)


def best(dataset: xr.Dataset) -> xr.Dataset:
    """Return each method's curves at its own best stepsize: the lowest mean of the last 10 records.

    The smoothed error is ``error``: (1/n) Σᵢ |xᵢ − x*|² over 10 records and all seeds.
    """
    error = dataset.agents_error.mean("seed", skipna=False)
    error = error.rolling(step=10, min_periods=1).mean()
    diverged = (dataset.diverged > 0).any("seed")
    return jd.best(dataset.assign(diverged=diverged, error=error), "error")


def stability(sizes: Iterable[int], *, steps: int = 4000, seed: int = 0) -> xr.Dataset:
    """Return how STPP's errors grow or fall on directed rings, with full gradients.

    Stepsizes are its default, γ = 0.5 / (n L) (fit for shallow trees), and multiples of the limit
    that equal delays D = n − 1 have, 2 sin(π / (2 (2 D + 1))) / (n L).

    Returns:
        ``growth`` over n and stepsize: |x − x*| at the root at the end, over that at the start;
        ``limit`` over n: the largest of the multiples at which it still fell.
    """
    multiples = np.array([0.7, 0.8, 0.9, 0.95, 1.0, 1.05, 1.1, 1.2, 1.3])
    growths, limits = [], []
    for n in sizes:
        problem = jd.problems.quadratic(
            n,
            DIMENSION,
            condition_number=CONDITION,
            heterogeneity=HETEROGENEITY,
            curvature_spread=0.0,
            seed=seed,
        )
        network = jd.networks.spanning_tree(jd.graphs.directed_ring(n))
        longest = 2 * math.sin(math.pi / (2 * (2 * (n - 1) + 1)))
        gammas = np.concatenate([[0.5], longest * multiples]) / (n * float(problem.smoothness))
        options: dict[str, Any] = {"steps": steps, "every": max(steps // 10, 1)}
        key = jax.random.key(seed)
        default = jd.run(jd.STPP(), problem, network, problem.start(), key, **options)
        others = jd.sweep(jd.run, over="algorithm")(
            jax.vmap(jd.STPP)(gammas), problem, network, problem.start(), key, **options
        )
        errors = np.vstack(
            [default.history["distance_squared"], others.history["distance_squared"]]
        )
        ratio = np.sqrt(errors[:, -1] / errors[:, 0])
        falls = np.nan_to_num(errors[2:, -1], nan=np.inf) < errors[2:, errors.shape[1] // 2]
        growths.append(np.where(np.isfinite(ratio), ratio, np.inf))
        limits.append(multiples[falls].max(initial=math.nan if not falls.any() else 0.0))
    names = ["default", "0.5 / (n L)", *(f"{m:g} of the limit" for m in multiples)]
    return xr.Dataset(
        {"growth": (("n", "stepsize"), np.array(growths)), "limit": ("n", np.array(limits))},
        {"n": list(sizes), "stepsize": names},
    )


def synthetic_problem(n: int, d: int, samples: int, seed: int = 0) -> Any:
    """Return logistic regression with the penalty 0.01 Σⱼ xⱼ² / (1 + xⱼ²) and batches of one.

    Features are N(0, I); agent i's labels are 1 with probability sigmoid(hᵀ wᵢ), where wᵢ is
    w ~ N(0, I) plus 0.8 times a random unit vector of its own.
    """
    random = np.random.default_rng(seed)
    away = random.standard_normal((n, d))
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    w = random.standard_normal(d) + 0.8 * away
    features = random.standard_normal((n, samples, d))
    chances = 1 / (1 + np.exp(-np.einsum("nsd,nd->ns", features, w)))
    labels = random.random((n, samples)) < chances
    problem = jd.problems.nonconvex_logistic_regression(list(features), list(labels), weight=0.01)
    return jd.problems.Minibatch(problem, 1)


def synthetic_methods(n: int, branchings: Iterable[int]) -> dict[str, tuple[Any, Any]]:
    """Return BTPP's methods and networks: 0.7 for all, 0.7 / n on trees, times 0.4 each 100."""

    def steps(share: float = 1.0) -> Any:
        values = 0.7 / share * 0.4 ** np.arange(SYNTHETIC_STEPS // 100)
        return jd.schedules.PiecewiseConstant(values, np.arange(100, SYNTHETIC_STEPS, 100))

    ring, one_way = jd.graphs.ring(n), nx.to_numpy_array(jd.graphs.directed_ring(n))
    metropolis = jd.networks.metropolis
    exponential = jd.graphs.exponential(n, directed=True)
    hears = jd.networks.row_stochastic(exponential).csr()  # regular: doubly stochastic
    pull, push = ((np.eye(n) + p) / 2 for p in (one_way.T, one_way))
    both_ways = jd.networks.Directed(
        jd.networks.mixing(pull, kind="row"), jd.networks.mixing(push, kind="column")
    )
    btpp = {f"BTPP, B = {b}": (jd.STPP(steps(n)), jd.networks.bary_tree(n, b)) for b in branchings}
    return {
        "SGD": (jd.SGD(steps()), metropolis(ring)),
        **btpp,
        "STPP exponential": (jd.STPP(steps(n)), jd.networks.spanning_tree(exponential)),
        "DSGT exponential": (jd.GradientTracking(steps()), jd.networks.mixing(hears)),
        "DSGT ring": (jd.GradientTracking(steps()), metropolis(ring)),
        "DSGD ring": (jd.DSGD(steps()), metropolis(ring)),
        "DSGD one-peer": (jd.DSGD(steps()), jd.networks.one_peer_exponential(n)),
        "Push-Pull ring": (jd.PushPull(steps()), both_ways),
        "D2 ring, constant": (jd.ExactDiffusion(0.7), metropolis(ring)),
        "RelaySGD tree": (jd.RelaySGD(steps()), jd.networks.spanning_tree(jd.graphs.tree(n), 0)),
    }


def synthetic(
    n: int,
    d: int,
    samples: int,
    branchings: Iterable[int],
    *,
    methods: Iterable[str] | None = None,
    seeds: int = 2,
    every: int = 25,
    seed: int = 0,
    progress: bool = True,
) -> xr.Dataset:
    """Return histories of BTPP's synthetic experiment over algorithm, seed and step."""
    entries = synthetic_methods(n, branchings)
    if methods is not None:
        entries = {name: entries[name] for name in methods}
    problem = synthetic_problem(n, d, samples, seed)
    parts = []
    for method, network in tqdm(entries.values(), unit="method", disable=not progress):
        keys = jax.vmap(jax.random.key)(jnp.arange(seed, seed + seeds))
        result = jd.sweep(jd.run, over="key")(
            method, problem, network, problem.start(), keys, steps=SYNTHETIC_STEPS, every=every
        )
        parts.append(jd.label(result, seed=range(seed, seed + seeds)))
    names = xr.DataArray(list(entries), dims="algorithm", name="algorithm")
    sizes = {"agents": n, "parameters": d, "samples": samples}
    return xr.concat(parts, names, join="outer", data_vars="all").assign_attrs(sizes)


def floors_table(found: xr.Dataset) -> pd.DataFrame:
    """Return n E|∇F|² by n, and the slope of the floor over n in logarithms; -1 is 1 / n."""
    n = found.n
    rows = []

    def row(name: str, floor: xr.DataArray, error: xr.DataArray | None = None) -> None:
        cells = [number(float(value), ".2e") for value in (floor * n).values]
        if error is not None:
            share = (error / floor).values
            cells = [f"{cell} ({e:.0%})" for cell, e in zip(cells, share, strict=True)]
        rows.append((name, *cells, number(exponent(floor), ".2f")))

    row("SGD, theory", found.theory)
    row("one delay of n - 1, theory", found.delayed)
    for name in (name for name in ANYWHERE if name in found.algorithm):
        here = found.sel(algorithm=name).isel(network=0)
        row(name, here.floor, here.error)
    for where in found.network.values:
        here = found.sel(algorithm="STPP", network=where)
        row(f"STPP, {where}", here.floor, here.error)
    header = ("n times floor of |∇F|² (standard error)", *(f"n = {m}" for m in n.values), "slope")
    return pd.DataFrame(rows, columns=header)


def transients_table(found: xr.Dataset, of: str = "") -> pd.DataFrame:
    """Return transient times by n, their fitted exponents, and the last ratios to SGD.

    ``of`` is "estimate_" for those of the estimate, and nothing for those of all agents.
    """
    rows = []
    n = [int(m) for m in found.n.values]
    for where in found.network.values:
        for name in found.algorithm.values:
            if name in ANYWHERE and where != found.network.values[0]:
                continue
            here = found.sel(algorithm=name, network=where)
            steps = here[f"{of}steps"]
            if bool(steps.isnull().all()):
                continue
            rows.append(
                (
                    "any" if name in ANYWHERE else str(where),
                    str(name),
                    *(_steps(float(value)) for value in steps.values),
                    number(_fitted(steps), ".1f"),
                    "diverged" if (last := float(here[f"{of}ratio"][-1])) > 1e6 else f"{last:.3g}",
                )
            )
    at_the_end = f"n = {n[-1]}: error / SGD's at the end"
    header = ("graph", "method", *(f"n = {m}" for m in n), "exponent", at_the_end)
    return pd.DataFrame(rows, columns=header)


def _fitted(steps: xr.DataArray) -> float:
    """Return the exponent of transient times, if three or more are known and not 0."""
    known = np.isfinite(steps) & (steps > 0)
    return exponent(steps) if int(known.sum()) >= 3 else math.nan


def _steps(value: float) -> str:
    if math.isinf(value):
        return "not reached"
    return "at once" if value == 0 else number(value, ".0f")


def curves_table(chosen: xr.Dataset) -> pd.DataFrame:
    """Return the last errors at the best stepsizes, and steps and vectors to twice SGD's."""
    error = chosen.error.isel(step=-1)
    target = FACTOR * float(error.sel(algorithm="SGD").isel(network=0))
    sent = chosen.sent.mean("seed")
    rows = []
    for where in chosen.network.values:
        for name in chosen.algorithm.values:
            here = chosen.sel(algorithm=name, network=where)
            if not np.isfinite(here.error[0]) or (name == "SGD" and where != chosen.network[0]):
                continue
            there = (here.error <= target).values
            first = int(there.argmax()) if there.any() else -1
            steps = float(here.step[first]) if there.any() else math.nan
            vectors = float(sent.sel(algorithm=name, network=where)[first])
            rows.append(
                (
                    "any" if name in ANYWHERE else str(where),
                    str(name),
                    number(float(here.stepsize), ".2g"),
                    number(float(error.sel(algorithm=name, network=where)), ".2e"),
                    number(steps, ".0f"),
                    number(vectors if there.any() and name != "SGD" else math.nan, ".0f"),
                )
            )
    columns = ("best stepsize", "last error", f"steps to {target:.1e}", "vectors sent by all")
    return pd.DataFrame(rows, columns=("graph", "method", *columns))


def stability_table(found: xr.Dataset) -> pd.DataFrame:
    """Return STPP's measured and predicted limits, and what two fixed rules do."""
    rows = []
    for n in found.n.values:
        here = found.sel(n=n)
        limit = 2 * math.sin(math.pi / (2 * (2 * (int(n) - 1) + 1)))
        rows.append(
            (
                str(n),
                number(limit, ".4f"),
                number(float(here.limit), ".2f"),
                number(float(here.growth.sel(stepsize="default")), ".1e"),
                number(float(here.growth.sel(stepsize="0.5 / (n L)")), ".1e"),
            )
        )
    header = ("n", "limit of n γ L", "still falls at, times limit")
    return pd.DataFrame(rows, columns=(*header, "error ratio, default", "error ratio, 0.5 / (n L)"))


def norms(dataset: xr.Dataset) -> xr.DataArray:
    """Return |∇F|, the root of the mean square over seeds."""
    return np.sqrt(dataset.gradient_norm_squared.mean("seed"))


def synthetic_table(dataset: xr.Dataset) -> pd.DataFrame:
    """Return |∇F| over steps; in brackets what another re-run has, where there is one."""
    values = norms(dataset).sel(step=list(TIMES))
    rows = []
    for name in map(str, dataset.algorithm.values):
        other = REFERENCE.get(name, (math.nan,) * len(TIMES))
        cells = [
            number(float(value), ".4f") + (f" ({of:.4g})" if of == of else "")
            for value, of in zip(values.sel(algorithm=name).values, other, strict=True)
        ]
        rows.append((name, *cells))
    return pd.DataFrame(rows, columns=("|∇F| after steps", *map(str, TIMES)))


def claims_table(
    floor: xr.Dataset,
    transient: xr.Dataset,
    chosen: xr.Dataset,
    example: xr.Dataset,
    stable: xr.Dataset,
) -> pd.DataFrame:
    """Return what the papers claim beside what was measured."""
    stpp, btpp = "arXiv 2503.16123, abstract", "arXiv 2404.05454"

    def slope(name: str) -> str:
        if name not in floor.algorithm:
            return MISSING
        slopes = [exponent(floor.floor.sel(algorithm=name, network=w)) for w in floor.network]
        return f"slope of the floor over n {min(slopes):.2f} to {max(slopes):.2f} (1 / n: -1)"

    def times(name: str) -> str:
        if name not in transient.algorithm:
            return MISSING
        of = transient.steps.sel(algorithm=name)
        where = [of.network[0]] if name in ANYWHERE else of.network
        texts = [
            f"{'any' if name in ANYWHERE else w.item()} "
            + ", ".join(_steps(float(v)) for v in of.sel(network=w).values)
            for w in where
        ]
        return f"n = {', '.join(map(str, of.n.values))}: " + "; ".join(texts)

    last = norms(example).isel(step=-1)
    early = norms(example).sel(step=50)
    trees = [str(name) for name in example.algorithm.values if str(name).startswith("BTPP")]
    smallest = f"BTPP, B = {min(BRANCHINGS)}"
    ratios = ", ".join(f"{float(early.sel(algorithm=name)):.3f}" for name in trees)
    ring = chosen.error.isel(step=-1).sel(network="directed ring").dropna("algorithm")
    ring = ", ".join(
        f"{name} {float(value):.1e}"
        for name, value in zip(ring.algorithm.values, ring, strict=True)
    )
    least = [
        name
        for name in map(str, example.algorithm.values)
        if name.startswith(("DSGD", "DSGT ring", "Push-Pull", "D2", "RelaySGD"))
    ]
    others = ", ".join(f"{name} {float(last.sel(algorithm=name)):.3f}" for name in least)
    vectors = chosen.sent.mean("seed").isel(step=-1) / int(chosen.step[-1])
    n = int(chosen.attrs["agents"])
    vectors = vectors.sel(network="exponential")
    sent = ", ".join(
        f"{name} {float(vectors.sel(algorithm=name)):.0f}"
        for name in ("STPP", "BTPP", "DSGT")
        if name in chosen.algorithm
    )
    deepest = int(stable.n.values[-1])
    growth = stable.growth.sel(n=deepest)
    rows = [
        ("BTPP has linear speedup", btpp, slope("BTPP")),
        ("STPP has linear speedup on any topology", stpp, slope("STPP")),
        (
            "BTPP's transient time is O(1) if strongly convex, up to logarithms",
            btpp,
            times("BTPP"),
        ),
        ("STPP's transient time is O(n^3) at most if strongly convex", stpp, times("STPP")),
        (
            "BTPP is close to centralized SGD",
            f"{btpp}, synthetic figure",
            f"|∇F| at the end: {smallest} {float(last.sel(algorithm=smallest)):.4f}, "
            f"SGD {float(last.sel(algorithm='SGD')):.4f}",
        ),
        (
            "and best among methods with Θ(1) neighbors",
            f"{btpp}, synthetic figure",
            f"{smallest} {float(last.sel(algorithm=smallest)):.3f}"
            + (f"; {others}" if others else ""),
        ),
        (
            "a larger B is faster",
            f"{btpp}, second synthetic figure",
            f"|∇F| after 50 steps, {', '.join(name[6:] for name in trees)}: {ratios}",
        ),
        (
            "STPP beats DSGT and its like on the directed ring",
            stpp,
            f"last errors at the best stepsizes, n = {n}: {ring}",
        ),
        (
            "2 (n - 1) vectors are sent in an iteration",
            f"{btpp}; {stpp}",
            f"2 (n - 1) = {2 * (n - 1)}, exponential graph: {sent}",
        ),
        (
            "0.5 / (n L) is a stable stepsize",
            "not the paper's; from shallow trees",
            f"directed ring of {deepest}: error times "
            f"{float(growth.sel(stepsize='0.5 / (n L)')):.0e}; the default: "
            f"{float(growth.sel(stepsize='default')):.0e}",
        ),
    ]
    return pd.DataFrame(rows, columns=("claim", "source", "measured"))


def _draw(ax: Any, name: str, x: Any, y: Any, marker: bool = True, **options: Any) -> None:
    dashes, shape = LOOKS.get(name, ("-", "o"))
    options = {"color": COLORS[name], "linestyle": dashes, "label": name} | options
    ax.plot(x, y, marker=(shape or "o") if marker else "", markersize=4, linewidth=1.4, **options)


def draw_floors(ax: Any, found: xr.Dataset) -> None:
    """Draw n times the noise floor over n."""
    n = found.n.values
    ax.plot(n, n * found.theory, "k--", linewidth=1, label="SGD, theory")
    ax.plot(n, n * found.delayed, "k:", linewidth=1, label="one delay of $n - 1$, theory")
    colors = (*jd.plot.PALETTE[1:6], "#999999")
    entries = [("BTPP", found.network.values[0], COLORS["BTPP"], "s")]
    entries = entries if "BTPP" in found.algorithm else []
    for where, color, shape in zip(found.network.values, colors, "ov^DP", strict=False):
        entries.append(("STPP", where, color, shape))
    for i, (name, where, color, shape) in enumerate(entries):
        here = found.sel(algorithm=name, network=where)
        label = name if name == "BTPP" else f"STPP, {where}"
        shift = 1.02 ** (i - 2)  # so that bars do not hide each other
        ax.errorbar(
            n * shift,
            n * here.floor,
            n * here.error,
            color=color,
            marker=shape,
            markersize=4,
            linewidth=1.2,
            capsize=2,
            label=label,
        )
    top = 1.1 * float(np.nanmax((found.floor + found.error) * found.n))
    ax.set(xscale="log", ylim=(0, top), xlabel="agents  $n$", xticks=n)
    ax.set_xticks(n, [str(m) for m in n])
    ax.set_xticks([], minor=True)
    ax.ticklabel_format(axis="y", scilimits=(0, 0), useMathText=True)
    ax.set_ylabel("$n\\,\\mathrm{E}|\\nabla F|^2$ at the root")
    ax.set_title(f"noise floor, $n \\gamma L$ = {FLOOR_STEPSIZE:g}")
    ax.legend(fontsize=7, ncols=2, loc="lower left")


def floors_figure(found: xr.Dataset, stable: xr.Dataset) -> Any:
    """Return the floors, and growth over stepsize on directed rings."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, 2, figsize=(11, 4.4), layout="constrained")
    draw_floors(axes[0], found)
    names = [str(name) for name in stable.stepsize.values if "limit" in str(name)]
    multiples = [float(name.split()[0]) for name in names]
    for i, n in enumerate(stable.n.values):
        growth = stable.growth.sel(n=n, stepsize=names).clip(1e-15, 1e15)
        look = {"color": jd.plot.PALETTE[i], "marker": "osD^v"[i % 5], "markersize": 4}
        axes[1].plot(multiples, growth, label=f"n = {n}", **look)
    axes[1].axvline(1, color="0.6", linewidth=1, linestyle=":")
    axes[1].axhline(1, color="0.6", linewidth=1, linestyle=":")
    axes[1].set(yscale="log", ylabel="$|x_{root} - x^\\star|$, last over first")
    axes[1].set_xlabel("$n \\gamma L$ over  $2 \\sin(\\pi / (2 (2 D + 1)))$,  $D = n - 1$")
    axes[1].set_title("STPP on directed rings, full gradients")
    axes[1].legend(fontsize=8)
    return fig


def draw_transients(ax: Any, found: xr.Dataset, where: str, horizon: float, first: float) -> None:
    """Draw one graph's transient times over n, those not reached above the line."""
    n = found.n.values
    here = found.sel(network=where)
    for i, name in enumerate(map(str, found.algorithm.values)):
        steps = here.steps.sel(algorithm=name).values
        if np.isnan(steps).all():
            continue
        shift = 1.03 ** (i - 3.5)
        reached = np.where(np.isfinite(steps), np.maximum(steps, first), np.nan)
        lost = np.where(np.isinf(steps), horizon * 1.6, np.nan)
        _draw(ax, name, n * shift, np.where(np.isinf(steps), lost, reached))
        shape = LOOKS.get(name, ("-", "o"))[1] or "o"
        ax.plot(n * shift, lost, shape, color=COLORS[name], markerfacecolor="white", markersize=6)
    ax.axhline(horizon, color="0.6", linewidth=1, linestyle=":")
    ax.set(xscale="log", yscale="log", ylim=(first / 1.4, 2.4 * horizon), title=where)
    ax.set_xticks(n, [str(m) for m in n])
    ax.set_xticks([], minor=True)
    ax.set_xlabel("agents  $n$")


def transients_figure(found: xr.Dataset, horizon: float, first: float) -> Any:
    """Return transient times over n, a panel a graph."""
    import matplotlib.pyplot as plt

    names = [str(name) for name in found.network.values]
    fig, axes = plt.subplots(
        1, len(names), figsize=(2.9 * len(names), 3.9), sharey=True, layout="constrained"
    )
    for ax, where in zip(axes, names, strict=True):
        draw_transients(ax, found, where, horizon, first)
    axes[0].set_ylabel("transient time, steps (hollow: not reached)")
    _legend_below(fig, axes)
    return fig


def draw_curves(ax: Any, chosen: xr.Dataset, where: str) -> None:
    """Draw one graph's curves at the best stepsizes."""
    for name in map(str, chosen.algorithm.values):
        here = chosen.sel(algorithm=name, network=where)
        if np.isfinite(here.error[0]):
            _draw(ax, name, here.step, here.error, marker=False)
    ax.set(yscale="log", xlabel="steps", title=where)


def curves_figure(chosen: xr.Dataset) -> Any:
    """Return errors over steps at each method's best stepsize, a panel a graph."""
    import matplotlib.pyplot as plt

    names = [str(name) for name in chosen.network.values]
    fig, axes = plt.subplots(
        1, len(names), figsize=(2.9 * len(names), 3.9), sharey=True, layout="constrained"
    )
    for ax, where in zip(axes, names, strict=True):
        draw_curves(ax, chosen, where)
    axes[0].set_ylabel("$\\frac{1}{n}\\sum_i |x_i - x^\\star|^2$, mean over seeds")
    _legend_below(fig, axes)
    return fig


def _legend_below(fig: Any, axes: Any) -> None:
    handles = {}
    for ax in np.ravel(axes):
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    order = [name for name in COLORS if name in handles]
    fig.legend([handles[name] for name in order], order, loc="outside lower center", ncols=9)


def draw_synthetic(ax: Any, dataset: xr.Dataset) -> None:
    """Draw |∇F| over steps of all methods but the larger B."""
    values = norms(dataset)
    kinds = {name.split()[0].strip(","): name for name in COLORS} | {"D2": "ED"}
    seen: dict[str, int] = {}
    for name in map(str, dataset.algorithm.values):
        if name.startswith("BTPP") and name != f"BTPP, B = {min(BRANCHINGS)}":
            continue
        kind = kinds[name.split()[0].strip(",")]
        dashes = ("-", "--", ":")[seen.get(kind, 0)]
        dashes = LOOKS[kind][0] if kind in ("SGD", "BTPP") else dashes
        seen[kind] = seen.get(kind, 0) + 1
        here = values.sel(algorithm=name)
        _draw(ax, kind, here.step, here, marker=False, label=name, linestyle=dashes)
    ax.set(yscale="log", xlabel="steps", ylabel="$|\\nabla F|$")
    ticks = [0.02, 0.03, 0.05, 0.1, 0.2, 0.4]
    ax.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.set_yticks([], minor=True)
    sizes = dataset.attrs
    ax.set_title(f"logistic regression, n = {sizes['agents']}, d = {sizes['parameters']}")
    ax.legend(fontsize=7)


def synthetic_figure(dataset: xr.Dataset) -> Any:
    """Return |∇F| over steps: all methods, and BTPP's branchings."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, 2, figsize=(11, 4.6), sharey=True, layout="constrained")
    draw_synthetic(axes[0], dataset)
    values = norms(dataset)
    names = [str(name) for name in dataset.algorithm.values if str(name).startswith("BTPP")]
    colors = plt.get_cmap("viridis")(np.linspace(0, 0.9, len(names)))
    for name, color in zip(names, colors, strict=True):
        axes[1].plot(dataset.step, values.sel(algorithm=name), color=color, label=name)
    axes[1].plot(dataset.step, values.sel(algorithm="SGD"), "k--", label="SGD")
    axes[1].set(xlabel="steps", title="BTPP by branching")
    axes[1].legend(fontsize=8)
    return fig


def trees_figure() -> Any:
    """Return four graphs and the spanning trees that STPP has on them."""
    import matplotlib.pyplot as plt
    from matplotlib.lines import Line2D

    made = {
        "directed ring": jd.graphs.directed_ring(12),
        "grid": jd.graphs.grid(4, 4),
        "directed exponential": jd.graphs.exponential(16, directed=True),
        "Erdos-Renyi": jd.graphs.erdos_renyi(16, 0.25),
    }
    fig, axes = plt.subplots(1, len(made), figsize=(14, 4), layout="constrained")
    for ax, (name, graph) in zip(axes, made.items(), strict=True):
        draw_trees(ax, graph)
        tree = jd.networks.spanning_tree(graph)
        ax.set_title(f"{name}: there and back in {tree.delay:g}", fontsize=10)
    handles = [
        Line2D([], [], color=color, linewidth=2) for color in (COLORS["STPP"], COLORS["DSGD"])
    ]
    texts = ["estimates, down from the root", "gradients, up to it"]
    fig.legend(handles, texts, loc="outside lower center", ncols=2)
    return fig


def draw_trees(ax: Any, graph: nx.Graph) -> None:
    """Draw a graph, its pull tree and its push tree; agents show the delay of their gradients."""
    tree = jd.networks.spanning_tree(graph)
    nodes = list(graph)
    regular = len({degree for _, degree in nx.degree(graph)}) == 1
    arranged = nx.circular_layout(graph) if regular else nx.kamada_kawai_layout(graph)
    places = nx.get_node_attributes(graph, "pos") or arranged
    down, up = (np.asarray(part.parent) for part in (tree.row, tree.column))
    root = int(tree.root)
    nx.draw_networkx_edges(nx.Graph(graph), places, ax=ax, edge_color="0.85")
    pulls = [(nodes[p], nodes[i]) for i, p in enumerate(down) if i != root]
    pushes = [(nodes[i], nodes[p]) for i, p in enumerate(up) if i != root]
    other = -0.12 if graph.is_directed() else 0.12  # on digraphs both may go the same way
    for links, color, bend in ((pulls, COLORS["STPP"], 0.12), (pushes, COLORS["DSGD"], other)):
        nx.draw_networkx_edges(
            nx.DiGraph(links),
            places,
            ax=ax,
            edgelist=links,
            edge_color=color,
            connectionstyle=f"arc3,rad={bend}",
            arrowsize=9,
            width=1.6,
            node_size=260,
        )
    delays = [_depth(down, i) + _depth(up, i) for i in range(len(nodes))]
    shades = ["#FFE9A8" if i == root else "white" for i in range(len(nodes))]
    nx.draw_networkx_nodes(graph, places, ax=ax, node_color=shades, edgecolors="0.3", node_size=260)
    texts = {nodes[i]: str(delay) for i, delay in enumerate(delays)}
    nx.draw_networkx_labels(graph, places, texts, ax=ax, font_size=8)
    ax.set_axis_off()
    ax.margins(0.08)


def _depth(parent: np.ndarray, i: int) -> int:
    return 0 if parent[i] == i else 1 + _depth(parent, int(parent[i]))


def main_figure(
    found: xr.Dataset, chosen: xr.Dataset, transient: xr.Dataset, horizon: float, first: float
) -> Any:
    """Return the figure in short: floors, and two graphs' curves and transient times."""
    import matplotlib.pyplot as plt

    names = [str(name) for name in chosen.network.values[:2]]
    fig, axes = plt.subplots(2, 2, figsize=(10, 7.6), layout="constrained")
    draw_floors(axes[0, 0], found)
    draw_transients(axes[0, 1], transient, names[0], horizon, first)
    axes[0, 1].set_title(f"{names[0]}, steps until as good as SGD")
    axes[0, 1].set_ylabel("steps (hollow: not reached)")
    for ax, where in zip(axes[1], names, strict=True):
        draw_curves(ax, chosen, where)
        ax.set_title(f"{where}, n = {chosen.attrs['agents']}, best stepsizes")
    low, high = zip(*(ax.get_ylim() for ax in axes[1]), strict=True)
    for ax in axes[1]:
        ax.set_ylim(min(low), max(high))
    axes[1, 0].set_ylabel("$\\frac{1}{n}\\sum_i |x_i - x^\\star|^2$, mean over seeds")
    _legend_below(fig, axes[1])
    return fig


def run(
    quick: bool, out: Path, seed: int, scale: str = "small", progress: bool = True
) -> list[Path]:
    """Run everything, print the tables and return the files written into ``out``."""
    full = scale == "full" and not quick
    common: dict[str, Any] = {"seed": seed, "progress": progress}
    if quick:  # sizes and counts such that programs are shared
        small: dict[str, Any] = {"names": QUICK_GRAPHS, "seeds": 4, "steps": 1800}
        runs = noisy_runs((8, 32), methods=("SGD", "STPP"), offset=200.0, **small, **common)
        methods = ("SGD", "DSGT", "STPP")
        tried = curves(8, methods=methods, stepsizes=(0.01, 0.03), **small, **common)
        stable = stability((16,), steps=1000, seed=seed)
        few = ("SGD", "BTPP, B = 2")
        example = synthetic(24, 50, 50, (2,), methods=few, every=50, **common)
    elif full:
        runs = noisy_runs((*SIZES, 128), seeds=20, steps=102_000, offset=800.0, **common)
        tried = curves(32, seeds=20, steps=4500, **common)
        stable = stability((*SIZES, 128), steps=20_000, seed=seed)
        example = synthetic(100, 500, 1000, BRANCHINGS, seeds=5, every=10, **common)
    else:
        runs = noisy_runs(SIZES, (128,), **common)
        tried = curves(32, **common)
        stable = stability(SIZES, seed=seed)
        example = synthetic(100, 500, 100, (2, 3, 4, 8, 99), **common)
    found, transient = floors(runs), transients(runs)
    chosen = best(tried)
    agents = chosen.attrs["agents"]
    horizon = float(runs.step[-1])
    first = float(runs.step[1])
    tables = {
        "floors": (
            f"noise floors, n γ L = {FLOOR_STEPSIZE:g}, quadratics with noise",
            floors_table(found),
        ),
        "transients": (
            f"transient times in steps, of {horizon:.0f}; stepsizes 2 / (μ (k + "
            f"{runs.attrs['offset']:.0f}))",
            transients_table(transient),
        ),
        "transients_of_estimates": (
            "the same for the root on trees, and the agents' mean elsewhere",
            transients_table(transient, "estimate_"),
        ),
        "curves": (f"each method at its own best stepsize, n = {agents}", curves_table(chosen)),
        "stability": ("STPP on directed rings, full gradients", stability_table(stable)),
        "synthetic": ("BTPP's synthetic experiment", synthetic_table(example)),
        "claims": ("claims", claims_table(found, transient, chosen, example, stable)),
    }
    datasets = {
        "runs": runs[["agents_error", "distance_squared", "gradient_norm_squared"]],
        "curves": tried[["agents_error", "distance_squared", "sent", "diverged"]],
        "stability": stable,
        "synthetic": example,
    }
    figures = {
        "floors": floors_figure(found, stable),
        "transients": transients_figure(transient, horizon, first),
        "curves": curves_figure(chosen),
        "synthetic": synthetic_figure(example),
        **({} if quick else {"trees": trees_figure()}),
        "main": main_figure(found, chosen, transient, horizon, first),
    }
    options = " --quick" if quick else f" --scale {scale}"
    command = f"python -m experiments stpp{options} --seed {seed}"
    return write("stpp", out, command=command, tables=tables, datasets=datasets, figures=figures)
