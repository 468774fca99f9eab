"""APD and APD-SC: acceleration on unbalanced digraphs (arXiv 2107.12065).

Ten agents on random strongly connected digraphs whose column-stochastic weights are far from
doubly stochastic. Questions: how many iterations APD-SC, Push-DIGing and Push-Pull need to a fixed
relative accuracy at condition numbers 1e2 to 1e4, all at one stepsize c / L that is safe for APD-SC
on every graph, and each at its own best c of one grid; whether all end at the minimizer of the
uniform mean of the agents' functions, and not of one weighted by a Perron vector; and how fast
F − F* falls without strong convexity (curvatures j⁻⁴), where APD has O(1/k²) and Push-DIGing
O(1/k). Everything in float64; errors are (1/n) Σᵢ |xᵢ − x*|² over agents, relative to the start.

The safe c is the library's (`APDSC.safe_stepsize` where nothing is known of μ), half of what is
stable with equal curvatures, the smallest over the graphs. It is not tuned here.

The agents are quadratics with different Hessians (`SPREAD`) and tilts, their mean known exactly.
`RowTracking` is the counterexample: tracking with row-stochastic weights alone.

Not known to us: the paper's own experiments. Its listing is taken from a co-author's slides, which
leave the constants open; ours are `APDSC`'s. The claims are those of the abstract.
"""

import functools
from collections.abc import Mapping, Sequence
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
from experiments import results
from experiments.tables import number
from jaxdopt.algorithms.directed import push_pull

GAP = 0.2  # smallest spectral gap of a graph that is taken
IMBALANCE = 2.0  # smallest ratio of the largest to the smallest entry of the Perron vectors
SPREAD = 0.5  # of the agents' Hessians around their mean
ACCURACY = 1e-6  # of the agents' mean squared error, relative to the start
GRID = tuple(2.0 ** (j / 2) for j in range(-3, 5))  # c = γL for the best stepsizes
CONVEX_GRID = tuple(2.0 ** (j / 2) for j in range(-4, 3, 2))
CURVATURES = 60  # dimensions of the problem that is not strongly convex
WINDOW = (500, 5_000)
"""Iterations over which slopes of F − F* are fitted: after 5,000, APD at the largest c comes to the
smallest curvature, 60⁻⁴ L, and F − F* falls faster, as of a strongly convex function."""
METHODS = {"APD-SC": jd.APDSC, "Push-DIGing": jd.PushDIGing, "Push-Pull": jd.PushPull}
CONVEX = {"APD": jd.APD, "Push-DIGing": jd.PushDIGing}
POWERS = {"APD-SC": 0.5, "Push-DIGing": 1.0, "Push-Pull": 1.0}
CONVEX_POWERS = {"APD": -1.5, "Push-DIGing": -0.75}
VECTORS = {"APD-SC": 3, "Push-DIGing": 2, "Push-Pull": 2}  # sent over a link in an iteration
BUDGET = {"APD-SC": 40.0, "Push-DIGing": 8.0, "Push-Pull": 8.0}
"""Iterations to run over (κ/c) to the power of the method: with a margin over what we measured."""
AT = {"fixed": "one c for all", "best": "own best c"}
PAPER = "arXiv 2107.12065"


@jd.pytree
class RowTracking:
    """x⁺ = R(x − αy),  y⁺ = Ry + g⁺ − g: gradient tracking with row-stochastic weights alone.

    Σᵢ πᵢ yᵢ = Σᵢ πᵢ gᵢ with πR = π, so it minimizes Σᵢ πᵢ fᵢ: what unbalanced weights do.
    """

    stepsize: jd.Nonnegative

    def init(self, x0: jax.Array, *_: Any) -> Any:
        """Start at x0 [n, d]."""
        zero = jnp.zeros_like(x0)
        return push_pull.State(x0, zero, zero)

    def step(self, state: Any, problem: Any, network: Any, key: jax.Array) -> Any:
        """Take one step."""
        g = problem.grad(state.x, key)
        y = state.y + g - state.g
        x, y = network.row @ (state.x - self.stepsize * y, y)
        return type(state)(x, y, g)


def digraph(n: int, seed: int) -> nx.DiGraph:
    """Return a directed ring in random order with 0 to n / 2 further arcs out of every agent."""
    random = np.random.default_rng(seed)
    graph = nx.DiGraph()
    graph.add_nodes_from(range(n))
    order = random.permutation(n).tolist()
    graph.add_edges_from(zip(order, order[1:] + order[:1], strict=True))
    for agent in range(n):
        others = [i for i in range(n) if i != agent]
        heard_by = random.choice(others, size=random.integers(0, n // 2 + 1), replace=False)
        graph.add_edges_from((agent, int(other)) for other in heard_by)
    return graph


def networks(n: int, count: int, seed: int = 0) -> dict[str, Any]:
    """Return the first random digraphs with gaps and imbalances as large as `GAP`, `IMBALANCE`."""
    made: dict[str, Any] = {}
    draw = 1000 * seed
    while len(made) < count:
        network = dense(digraph(n, draw))
        skewed = min(imbalance(perron(network, part)) for part in ("row", "column"))
        if network.spectral_gap >= GAP and skewed >= IMBALANCE:
            made[f"digraph {len(made) + 1}"] = network
        draw += 1
    return made


def dense(graph: nx.DiGraph) -> Any:
    """Return R and C of a digraph as dense matrices, so that all share one program."""
    parts = jd.networks.push_pull(graph)
    row, column = (
        jd.networks.mixing(part.csr(), kind=part.kind, form=jd.networks.Dense)
        for part in (parts.row, parts.column)
    )
    return jd.networks.Directed(row, column)


def perron(network: Any, part: str) -> np.ndarray:
    """Return the Perron vector, summing to 1: the left one of R, or the right one of C."""
    limit = np.linalg.matrix_power(getattr(network, part).csr().toarray(), 2**12)
    return limit[0] if part == "row" else limit[:, 0]


def imbalance(weights: np.ndarray) -> float:
    """Return the largest weight over the smallest; 1 if the matrix is doubly stochastic."""
    return float(weights.max() / weights.min())


def quadratics(n: int, d: int, condition_numbers: Sequence[float], seed: int = 0) -> list[Any]:
    """Return problems that differ only in the condition number of F."""
    return [
        jd.problems.quadratic(n, d, condition_number=kappa, curvature_spread=SPREAD, seed=seed)
        for kappa in condition_numbers
    ]


def flat(n: int, seed: int = 0) -> Any:
    """Return quadratics whose mean Hessian has the eigenvalues j⁻⁴, and x* as far along each."""
    random = np.random.default_rng(seed)
    spread = jd.problems.quadratic(
        n, CURVATURES, condition_number=1, curvature_spread=SPREAD, seed=seed
    )
    basis = np.linalg.qr(random.standard_normal((CURVATURES, CURVATURES)))[0]
    root = basis * np.arange(1, CURVATURES + 1) ** -2.0 @ basis.T
    hessians = root @ np.asarray(spread.hessians) @ root
    solution = jnp.asarray(basis @ random.choice([-1.0, 1.0], CURVATURES))
    return jd.replace(
        spread,
        hessians=jnp.asarray(hessians),
        center=solution,
        solution=solution,
        smoothness=jnp.asarray(np.linalg.norm(hessians, ord=2, axis=(1, 2)).max()),
        strong_convexity=None,
    )


def safe(members: Mapping[str, Any]) -> float:
    """Return the c = γL that is safe on all of the networks for every condition number."""
    unit = jd.replace(
        jd.problems.quadratic(next(iter(members.values())).n, 1, curvature_spread=0.0),
        smoothness=1.0,
        strong_convexity=None,
    )
    return min(jd.APDSC.safe_stepsize(unit, network) for network in members.values())


@functools.partial(jax.jit, static_argnames=("kind", "steps", "every"))
def _runs(kind: Any, c: Any, problems: Any, network: Any, *, steps: int, every: int) -> Any:
    """Return the relative errors [c, problem, network, records], and the last estimates' mean."""

    def one(c: Any, problem: Any, network: Any) -> Any:
        method, key = kind(c / problem.smoothness), jax.random.key(0)
        result = jd.run(method, problem, network, problem.start(), key, steps=steps, every=every)
        error = result.history["distance_squared"] + result.history["consensus_error"]
        return error / error[0], jd.agents.average(result.state.x)

    return jd.sweep(one, over=("c", "problem", "network"))(c, problems, network)


def conditioned(
    members: Mapping[str, Any],
    groups: Sequence[Sequence[float]],
    grid: Sequence[float],
    *,
    d: int,
    seed: int = 0,
    records: int = 1000,
    progress: bool = True,
) -> tuple[xr.Dataset, xr.Dataset, xr.DataArray]:
    """Return iterations to `ACCURACY` at every c; the curves of the largest condition number; ends.

    The condition numbers of one group share a program and its number of steps, which is enough for
    the largest one at the smallest c. NaN: not reached, or not kept. The ends are the agents' mean
    at the smallest condition number and c, [algorithm, network, d].
    """
    stacked, n = jd.networks.stack(list(members.values())), next(iter(members.values())).n
    counts: list[Any] = []
    curves: list[xr.Dataset] = []
    ends: list[xr.DataArray] = []
    bar = tqdm(total=len(METHODS) * len(groups), unit="program", disable=not progress)
    for name, kind in METHODS.items():
        reached: list[Any] = []
        for group in groups:
            bar.set_description(f"{name}, condition number {max(group):.3g}")
            problems = jd.stack(quadratics(n, d, group, seed))
            scale = (max(group) / min(grid)) ** POWERS[name]
            every = max(1, round(BUDGET[name] * scale / records))
            errors, last = _runs(
                kind, jnp.asarray(grid), problems, stacked, steps=records * every, every=every
            )
            if group is groups[0]:
                ends.append(xr.DataArray(last[0, 0], dims=["network", "coordinate"]))
            errors = np.asarray(errors)
            there = errors <= ACCURACY
            first = np.where(there[..., -1], there.argmax(-1) * float(every), np.nan)
            coordinates: dict[str, list[Any]] = {
                "c": list(grid),
                "condition_number": list(group),
                "network": list(members),
            }
            reached.append(xr.DataArray(first, coordinates, list(coordinates)))
            bar.update()
        counts.append(xr.concat(reached, "condition_number"))
        largest = xr.DataArray(
            errors[:, -1],
            {"c": list(grid), "network": list(members)},
            ["c", "network", "record"],
        )
        steps = xr.DataArray(every * np.arange(records + 1), dims="record")
        curves.append(xr.Dataset({"error": largest, "iterations": steps}))
    bar.close()
    index = xr.DataArray(list(METHODS), dims="algorithm", name="algorithm")
    return (
        xr.Dataset({"iterations": xr.concat(counts, index)}),
        xr.concat(curves, index),
        xr.concat(ends, index),
    )


def limits(
    members: Mapping[str, Any], ends: xr.DataArray, c: float, *, kappa: float, seed: int = 0
) -> xr.Dataset:
    """Return the distances of where the methods ended to three optima on every network.

    Those of F, of the agents' functions weighted by the left Perron vector of R, and by the right
    one of C; relative to |x₀ − x*|. `RowTracking` is run for comparison.
    """
    n, d = next(iter(members.values())).n, ends.sizes["coordinate"]
    problem = quadratics(n, d, [kappa], seed)[0]
    solution = np.asarray(problem.solution)
    optima = np.array(
        [
            [solution - displaced(problem, weights) for weights in three]
            for three in (
                (np.full(n, 1 / n), perron(network, "row"), perron(network, "column"))
                for network in members.values()
            )
        ]
    )  # [network, optimum, d]
    steps = round(2 * BUDGET["Push-Pull"] * kappa / c)
    _, last = _runs(
        RowTracking,
        jnp.asarray([c]),
        jd.stack([problem]),
        jd.networks.stack(list(members.values())),
        steps=steps,
        every=steps,
    )
    reached = np.concatenate([ends.values, np.asarray(last)[0]])
    away = np.linalg.norm(reached[:, :, None] - optima, axis=-1) / np.linalg.norm(solution)
    coordinates = {
        "algorithm": [*ends.algorithm.values, "row-stochastic alone"],
        "network": list(members),
        "optimum": ["uniform", "weighted by R", "weighted by C"],
    }
    apart = np.linalg.norm(optima - solution, axis=-1) / np.linalg.norm(solution)
    return xr.Dataset(
        {"distance": (list(coordinates), away), "apart": (["network", "optimum"], apart)},
        coordinates,
    )


def displaced(problem: Any, weights: np.ndarray) -> np.ndarray:
    """Return x* minus the minimizer of Σᵢ wᵢ fᵢ."""
    hessian = np.einsum("i,ijk->jk", weights, np.asarray(problem.hessians))
    return np.linalg.solve(hessian, weights @ np.asarray(problem.tilts))


@functools.partial(jax.jit, static_argnames=("kind", "steps", "every"))
def _gaps(kind: Any, c: Any, problem: Any, network: Any, *, steps: int, every: int) -> Any:
    """Return F − F* [c, network, records] of the agents' mean, and the mean of the agents' own."""

    def one(c: Any, network: Any) -> Any:
        history = jd.run(
            kind(c / problem.smoothness),
            problem,
            network,
            problem.start(),
            jax.random.key(0),
            steps=steps,
            every=every,
            metrics={"own": _own},
        ).history
        return history["gap"], history["own"]

    return jd.sweep(one, over=("c", "network"))(c, network)


def _own(state: Any, problem: Any) -> jax.Array:
    return jnp.mean(jax.vmap(problem.objective)(state.x))


def convex(
    members: Mapping[str, Any],
    grid: Sequence[float],
    *,
    steps: int,
    seed: int = 0,
    records: int = 1000,
) -> xr.Dataset:
    """Return F − F* of APD and Push-DIGing on the problem that is not strongly convex."""
    stacked = jd.networks.stack(list(members.values()))
    problem = flat(next(iter(members.values())).n, seed)
    parts = []
    for kind in CONVEX.values():
        gap, own = _gaps(
            kind, jnp.asarray(grid), problem, stacked, steps=steps, every=steps // records
        )
        dims = ["c", "network", "step"]
        parts.append(xr.Dataset({"gap": (dims, np.asarray(gap)), "own": (dims, np.asarray(own))}))
    coordinates = {
        "c": list(grid),
        "network": list(members),
        "step": steps // records * np.arange(records + 1),
    }
    index = xr.DataArray(list(CONVEX), dims="algorithm", name="algorithm")
    dataset = xr.concat(parts, index).assign_coords(coordinates)
    return dataset.assign(diverged=~np.isfinite(dataset.gap).all("step") | growing(dataset.gap))


def growing(gap: xr.DataArray) -> xr.DataArray:
    """Return whether the last F − F* is above the first: a divergence that is not infinite yet."""
    return gap.isel(step=-1) > gap.isel(step=0)


def fastest(counts: xr.Dataset) -> xr.DataArray:
    """Return the iterations at the best c of the grid for each method, problem and network."""
    return counts.iterations.min("c")


def exponents(iterations: xr.DataArray) -> xr.DataArray:
    """Return the slopes of log iterations over log condition number, by method and network."""
    logs: Any = np.log(iterations)
    logs = logs.assign_coords(condition_number=np.log(iterations.condition_number.values))
    fit = logs.polyfit("condition_number", 1, skipna=False)
    return fit.polyfit_coefficients.sel(degree=1, drop=True)


def slopes(gap: xr.DataArray) -> xr.DataArray:
    """Return the slopes of log (F − F*) over log iterations in the `WINDOW`."""
    chosen = gap.sel(step=slice(*WINDOW))
    positive = chosen.where(chosen > 0)
    logs: Any = np.log(positive)
    logs = logs.assign_coords(step=np.log(chosen.step.values))
    return logs.polyfit("step", 1, skipna=False).polyfit_coefficients.sel(degree=1, drop=True)


def best_convex(dataset: xr.Dataset) -> xr.Dataset:
    """Return the curves at each method's and network's own best c, the lowest last F − F*."""
    return jd.best(dataset, "gap", over=["c"])


def span(values: xr.DataArray, form: str = ".2f") -> str:
    """Return median [smallest, largest] over networks."""
    if not bool(values.notnull().all()):
        return "-"
    low, middle, high = (float(values.quantile(q)) for q in (0.0, 0.5, 1.0))
    return f"{middle:{form}} [{low:{form}}, {high:{form}}]"


def graphs_table(members: Mapping[str, Any], best: xr.Dataset) -> pd.DataFrame:
    """Return facts about the digraphs, and the largest c of the grid at which methods converge."""
    stable = best.iterations.notnull().all("condition_number")
    largest = best.c.where(stable).max("c")
    rows = []
    for name, network in members.items():
        rows.append(
            (
                name,
                str(int(network.link_count)),
                number(network.column.spectral_gap, ".2f"),
                number(network.row.spectral_gap, ".2f"),
                number(imbalance(perron(network, "column")), ".1f"),
                number(imbalance(perron(network, "row")), ".1f"),
                number(safe({name: network}), ".3f"),
                *(
                    number(float(largest.sel(algorithm=method, network=name)), ".2f")
                    for method in METHODS
                ),
            )
        )
    header = ("graph", "links", "gap of C", "gap of R", "imbalance of C", "imbalance of R")
    return pd.DataFrame(rows, columns=(*header, "safe c", *(f"c {name}" for name in METHODS)))


def exponents_table(fixed: xr.DataArray, best: xr.Dataset) -> pd.DataFrame:
    """Return iterations, medians over the networks, and fitted exponents beside the expected."""
    rows = []
    at_last = best.iterations.isel(condition_number=-1)
    own = at_last.fillna(np.inf).idxmin("c")
    one = xr.full_like(own, float(fixed.c))
    for mode, iterations, c in (("fixed", fixed, one), ("best", fastest(best), own)):
        fits, tail = exponents(iterations), exponents(iterations.isel(condition_number=[-2, -1]))
        for name in METHODS:
            here = iterations.sel(algorithm=name)
            last = here.isel(condition_number=-1).median("network")
            rows.append(
                (
                    AT[mode],
                    name,
                    *(number(float(v), ".0f") for v in here.median("network", skipna=False)),
                    f"{POWERS[name]:g}",
                    span(fits.sel(algorithm=name)),
                    span(tail.sel(algorithm=name)),
                    span(c.sel(algorithm=name)),
                    number(float(last) * VECTORS[name], ".3g"),
                )
            )
    kappas = [f"kappa {kappa:.3g}" for kappa in fixed.condition_number.values]
    header = ("stepsize", "method", *kappas, "expected", "exponent", "of the last two")
    return pd.DataFrame(rows, columns=(*header, "c at the last", "vectors at the last"))


def limits_table(dataset: xr.Dataset) -> pd.DataFrame:
    """Return the largest distance over networks of each method's limit to the three optima."""
    rows = [
        (
            str(name),
            *(number(float(v)) for v in dataset.distance.sel(algorithm=name).max("network")),
        )
        for name in dataset.algorithm.values
    ]
    rows.append(
        ("(uniform optimum, smallest)", *(number(float(v)) for v in dataset.apart.min("network")))
    )
    return pd.DataFrame(rows, columns=("relative distance of", *map(str, dataset.optimum.values)))


def convex_table(dataset: xr.Dataset) -> pd.DataFrame:
    """Return the fitted slopes of F − F* at the one safe c, and at each method's own best."""
    rows = []
    for mode, chosen in (("fixed", dataset.isel(c=0)), ("best", best_convex(dataset))):
        for name in CONVEX:
            here = chosen.sel(algorithm=name)
            rows.append(
                (
                    AT[mode],
                    name,
                    span(here.c.broadcast_like(here.diverged)),
                    f"{CONVEX_POWERS[name]:g}",
                    span(slopes(here.gap)),
                    span(slopes(here.own)),
                    span(here.gap.isel(step=-1), ".1e"),
                )
            )
    header = ("stepsize", "method", "c", "expected", "slope, mean estimate", "slope, agents' own")
    return pd.DataFrame(rows, columns=(*header, "last F - F*"))


def claims_table(
    fixed: xr.DataArray,
    best: xr.Dataset,
    ends: xr.Dataset,
    flat_runs: xr.Dataset,
) -> pd.DataFrame:
    """Return the paper's claims beside the measurements here."""
    at_one, at_best = exponents(fixed), exponents(fastest(best))

    def power(fits: xr.DataArray, name: str) -> float:
        return float(fits.sel(algorithm=name).median("network"))

    def ratio(chosen: xr.Dataset) -> float:
        fits = slopes(chosen.gap).median("network")
        return float(fits.sel(algorithm="APD") / fits.sel(algorithm="Push-DIGing"))

    apd, push = (
        float(slopes(best_convex(flat_runs).gap).sel(algorithm=name).median("network"))
        for name in CONVEX
    )
    exact = ends.distance.sel(algorithm=list(METHODS), optimum="uniform").max()
    weighted = ends.distance.sel(algorithm="row-stochastic alone", optimum="uniform").min()
    abstract = f"{PAPER}, abstract"
    derived = "from its rates, on curvatures j^-4"

    def row(claim: str, source: str, claimed: str, measured: str, met: bool) -> tuple[str, ...]:
        return claim, source, claimed, measured, "yes" if met else "no"

    rows = [
        row(
            "APD-SC: log(1/e) sqrt(L/mu) iterations, one c",
            abstract,
            "exponent 0.5",
            f"{power(at_one, 'APD-SC'):.2f}",
            abs(power(at_one, "APD-SC") - 0.5) <= 0.1,
        ),
        row(
            "APD-SC, own best c",
            abstract,
            "exponent 0.5",
            f"{power(at_best, 'APD-SC'):.2f}",
            abs(power(at_best, "APD-SC") - 0.5) <= 0.1,
        ),
    ]
    for name in ("Push-DIGing", "Push-Pull"):
        values = power(at_one, name), power(at_best, name)
        rows.append(
            row(
                f"{name} is not accelerated: one c, own best c",
                "gradient descent's rate",
                "exponent 1",
                ", ".join(f"{value:.2f}" for value in values),
                all(abs(value - 1) <= 0.1 for value in values),
            )
        )
    rows += [
        row(
            "all reach the uniform optimum on unbalanced digraphs",
            abstract,
            "exact",
            f"relative distance {float(exact):.1e} (row-stochastic alone: {float(weighted):.1e})",
            float(exact) < 1e-4 < float(weighted),
        ),
        row(
            "APD: F - F* falls like 1/k^2, Push-DIGing's like 1/k: twice the exponent, one c",
            f"{abstract}; {derived}",
            "ratio 2",
            f"{ratio(flat_runs.isel(c=0)):.2f}",
            abs(ratio(flat_runs.isel(c=0)) - 2) <= 0.4,
        ),
        row(
            "the same, own best c",
            f"{abstract}; {derived}",
            "slopes -1.5, -0.75",
            f"{apd:.2f}, {push:.2f}",
            abs(apd + 1.5) <= 0.3 and abs(push + 0.75) <= 0.15,
        ),
    ]
    return pd.DataFrame(rows, columns=("claim", "source", "claimed", "measured", "met"))


def figure(
    fixed: xr.DataArray,
    best: xr.Dataset,
    curves: xr.Dataset,
    flat_runs: xr.Dataset,
) -> Any:
    """Return errors at the largest condition number, scaling at one c and the best, and F − F*."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(2, 2, figsize=(11, 8), layout="constrained")
    kappa = float(fixed.condition_number[-1])
    c = float(curves.c[0])
    for i, name in enumerate(METHODS):
        here = curves.isel(c=0).sel(algorithm=name)
        dashes = "--" if name == "Push-Pull" else "-"  # it lies on Push-DIGing's
        band(axes[0, 0], here.iterations, here.error, i, name, linestyle=dashes)
    axes[0, 0].axhline(ACCURACY, color="0.6", linewidth=1, linestyle=":")
    axes[0, 0].set(
        xlabel="iterations",
        ylabel=r"relative error  $\frac{1}{n}\sum_i |x_i - x^\star|^2$",
        title=rf"$\kappa$ = {kappa:g}, all at $\gamma$ = {c:.3f} / L",
        xscale="log",
        yscale="log",
        ylim=(1e-7, 2),
    )
    axes[0, 0].set_xlim(10, None)
    for ax, iterations, title in (
        (axes[0, 1], fixed, rf"all at $\gamma$ = {c:.3f} / L"),
        (axes[1, 0], fastest(best), "each at its own best of one grid"),
    ):
        for i, name in enumerate(METHODS):
            here = iterations.sel(algorithm=name)
            fit = float(exponents(here).median())
            middle = here.median("network")
            ax.plot(
                here.condition_number,
                middle,
                color=jd.plot.PALETTE[i],
                marker="os^"[i],
                fillstyle="none" if name == "Push-Pull" else "full",
                label=f"{name}, exponent {fit:.2f}",
            )
            ax.fill_between(
                here.condition_number,
                here.min("network"),
                here.max("network"),
                color=jd.plot.PALETTE[i],
                alpha=0.2,
                linewidth=0,
            )
        x = here.condition_number.values
        for i, (power, name) in enumerate(((0.5, "APD-SC"), (1.0, "Push-DIGing"))):
            start = float(iterations.sel(algorithm=name).isel(condition_number=0).median())
            ax.plot(
                x,
                start * 0.6 * (x / x[0]) ** power,
                color="0.6",
                linewidth=1,
                linestyle=("--", ":")[i],
                label=rf"slope {power:g}",
            )
        ax.set(
            xlabel=r"condition number  $\kappa$ of F",
            ylabel=f"iterations to {ACCURACY:g}",
            title=title,
            xscale="log",
            yscale="log",
        )
    for i, name in enumerate(CONVEX):
        for mode, chosen in (("fixed", flat_runs.isel(c=0)), ("best", best_convex(flat_runs))):
            here = chosen.sel(algorithm=name)
            fit = float(slopes(here.gap).median())
            label = f"{name}, {AT[mode]}: slope {fit:.2f}"
            dashes = "-" if mode == "best" else "--"
            band(axes[1, 1], here.step, here.gap, i, label, linestyle=dashes)
    axes[1, 1].axvspan(*WINDOW, color="0.93", zorder=0, label="window of the fits")
    axes[1, 1].set(
        xlabel="iterations",
        ylabel=jd.plot.NAMES["gap"],
        title=rf"not strongly convex: curvatures $j^{{-4}}$, d = {CURVATURES}",
        xscale="log",
        yscale="log",
    )
    for ax in axes.flat:
        ax.legend(fontsize=8, loc="lower left" if ax in (axes[0, 0], axes[1, 1]) else "upper left")
    return fig


def band(ax: Any, x: Any, y: xr.DataArray, i: int, label: str, **style: Any) -> None:
    """Draw the median over networks in a band from the smallest to the largest."""
    chosen = x.values > 0
    x, y = x.values[chosen], y.isel({y.dims[-1]: chosen})
    color = jd.plot.PALETTE[i]
    ax.plot(x, y.median("network"), color=color, label=label, **style)
    ax.fill_between(x, y.min("network"), y.max("network"), color=color, alpha=0.2, linewidth=0)


def run(
    quick: bool, out: Path, seed: int, scale: str = "small", progress: bool = True
) -> list[Path]:
    """Run everything, print the tables and return the files written into ``out``."""
    full = scale == "full" and not quick
    n, count, d = (20, 10, 30) if full else (10, 2 if quick else 5, 10)
    groups = [[1e2, 10**2.5]] if quick else [[1e2, 10**2.5, 1e3], [10**3.5, 1e4]]
    members = networks(n, count, seed)
    c = safe(members)
    options = {"d": d, "seed": seed, "progress": progress}
    grid = GRID[1:3] if quick else GRID
    stages = ((c,), grid)  # the safe c needs the most steps
    parts = [conditioned(members, groups, stage, **options) for stage in stages]
    counts = xr.concat([part[0] for part in parts], "c")
    fixed, best = counts.iterations.isel(c=0), counts.isel(c=slice(1, None))
    _, curves, last = parts[0]
    ends = limits(members, last, c, kappa=groups[0][0], seed=seed)
    convex_grid = (c, *(CONVEX_GRID[1:2] if quick else CONVEX_GRID))
    flat_runs = convex(members, convex_grid, steps=WINDOW[1], seed=seed)
    tables = {
        "graphs": (
            "the digraphs; last columns: the largest c of the grid at which a method converges",
            graphs_table(members, best),
        ),
        "exponents": (
            f"iterations to a relative error of {ACCURACY:g} and exponents of the condition "
            f"number, median [range] over {count} digraphs; one c = {c:.3f}",
            exponents_table(fixed, best),
        ),
        "limits": (
            "largest relative distance over digraphs to the optima of F and of weighted means",
            limits_table(ends),
        ),
        "convex": (
            f"slopes of F - F* over iterations {WINDOW[0]} to {WINDOW[1]}, median [range]",
            convex_table(flat_runs),
        ),
        "claims": (
            "what the paper claims and what was measured",
            claims_table(fixed, best, ends, flat_runs),
        ),
    }
    return results.write(
        "apd",
        out,
        command=f"python -m experiments apd --seed {seed} --scale {scale}"
        + (" --quick" if quick else ""),
        tables=tables,
        datasets={
            "iterations": counts,
            "curves": curves,
            "limits": ends,
            "convex": flat_runs,
        },
        figures={"apd": figure(fixed, best, curves, flat_runs)},
    )
