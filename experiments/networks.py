"""Choosing a network: what good connectivity gains, and what it does not.

Sixteen agents on twelve graphs with Metropolis weights, whose spectral gaps 1 − |λ₂| lie between
0.01 and 1. Questions: how fast do the agents average, plainly and with Chebyshev polynomials? How
many rounds do decentralized methods need on the digits data (3 against 8, split by label), each at
its own best stepsize, and what happens at other stepsizes? Does it matter which agent holds which
data? What do time-varying networks cost in rounds and in bits? Everything is in float64.

The gap describes the worst case, so the agents are numbered along the eigenvector of λ₂, which puts
the two digits at the two ends of the graph. Shuffled placements serve as the comparison.
"""

import functools
import math
from collections.abc import Mapping
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
from experiments.tables import number, text

AGENTS = 16
DIGITS = (3, 8)
L2 = 0.1
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
UP_AND_AWAKE = {
    "grid 4 x 4, p = 1": (1.0, 1.0),
    "links up, p = 0.7": (0.7, 1.0),
    "links up, p = 0.4": (0.4, 1.0),
    "agents awake, p = 0.7": (1.0, 0.7),
    "agents awake, p = 0.4": (1.0, 0.4),
}
"""The probabilities that a link is up and that an agent is awake."""
SCHEMES = ("averaging", "Chebyshev")
THEORY = {
    "averaging": (-1.0, "log(1/e) / gap"),
    "Chebyshev": (-0.5, "log(1/e) / sqrt(gap)"),
    "DSGD": (-1.0, "bias ~ (stepsize / gap)^2"),
    "GradientTracking": (-1.0, "at most 1 / gap^2, 1 / gap at small stepsizes"),
    "EXTRA": (-0.5, "kappa + 1 / gap, sqrt(kappa / gap) at the best stepsize"),
    "ExactDiffusion": (-0.5, "kappa + 1 / gap, sqrt(kappa / gap) at the best stepsize"),
}
"""The slope of rounds over gap in logarithms that theory predicts at small gaps, and from what."""


def graphs(seed: int = 0) -> dict[str, nx.Graph]:
    """Return the graphs; ``seed`` draws the random ones."""
    half, side = AGENTS // 2, AGENTS // 4
    fixed = {
        "path": jd.graphs.path(AGENTS),
        "binary tree": jd.graphs.tree(AGENTS),
        "grid 2 x 8": jd.graphs.grid(2, half),
        "ring": jd.graphs.ring(AGENTS),
        "grid 4 x 4": jd.graphs.grid(4, side),
        "torus 4 x 4": jd.graphs.torus(4, side),  # it is the hypercube of 16 agents, too
        "exponential": jd.graphs.exponential(AGENTS),
        "complete": jd.graphs.complete(AGENTS),
    }
    random = {
        f"small world, {probability:g}": jd.graphs.watts_strogatz(AGENTS, 4, probability, seed=seed)
        for probability in (0.0, 1.0)
    }
    random |= {f"{d}-regular": jd.graphs.regular(AGENTS, d, seed=seed) for d in (4, 12)}
    return fixed | random


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


def networks(quick: bool = False, seed: int = 0) -> dict[str, Any]:
    """Return the networks by increasing spectral gap, their agents `placed`."""
    made = {
        name: dense(placed(graph))
        for name, graph in graphs(seed).items()
        if name in QUICK or not quick
    }
    return dict(sorted(made.items(), key=lambda item: item[1].spectral_gap))


def shuffled_networks(quick: bool = False, seed: int = 0) -> dict[str, Any]:
    """Return some of the networks, their agents numbered at random."""
    made = graphs(seed)
    return {
        name: dense(placed(made[name], seed)) for name in SHUFFLED if name in QUICK or not quick
    }


def dense(graph: nx.Graph) -> Any:
    """Return Metropolis weights as a dense matrix, so that all networks share one program."""
    weights = jd.networks.metropolis(graph).csr()
    return jd.networks.mixing(weights, form=jd.networks.Dense)


def problem() -> Any:
    """Return the regression, split by label, so that nearly all agents see only one digit."""
    data = jd.data.digits().only(*DIGITS)
    return jd.problems.logistic_regression(
        data.features, data.labels == DIGITS[1], agents=AGENTS, l2=L2, partition="by_label"
    )


def averaging(members: Mapping[str, Any], seed: int = 0, progress: bool = True) -> xr.Dataset:
    """Return the rounds to `AVERAGED` of W x, and of Chebyshev(W, ⌈1/√gap⌉) x, from a random x."""
    x0 = jax.random.normal(jax.random.key(seed), (AGENTS, 64))
    gaps = spectral_gaps(members)
    exchanges = math.ceil(-math.log(AVERAGED) / min(gaps))
    rounds, repetitions = np.full((2, 2, len(gaps)), np.nan)
    bar = tqdm(members.values(), unit="network", desc="averaging", disable=not progress)
    for i, network in enumerate(bar):
        repetitions[:, i] = 1, math.ceil(1 / math.sqrt(gaps[i]) - 1e-6)
        polynomial = jd.networks.Chebyshev(network, int(repetitions[1, i]))
        for j, operator in enumerate((network, polynomial)):
            there = np.asarray(_disagreements(operator, x0, exchanges)) <= AVERAGED
            rounds[j, i] = (there.argmax() + 1) * repetitions[j, i]
    coordinates = {"algorithm": list(SCHEMES), "network": list(members)}
    variables = {
        name: (list(coordinates), values)
        for name, values in (("rounds", rounds), ("repetitions", repetitions))
    }
    return with_gaps(xr.Dataset(variables, coordinates), members)


@functools.partial(jax.jit, static_argnums=2)
def _disagreements(network: Any, x0: jax.Array, exchanges: int) -> jax.Array:
    """Return |x − x̄| after 1, 2, ... exchanges, relative to that of x0."""

    def exchange(x: jax.Array, _: Any) -> tuple[jax.Array, jax.Array]:
        x = network @ x
        return x, jnp.sqrt(jd.agents.disagreement(x) / jd.agents.disagreement(x0))

    return jax.lax.scan(exchange, x0, None, length=exchanges)[1]


def optimization(
    members: Mapping[str, Any],
    methods: Mapping[str, Any] | None = None,
    *,
    quick: bool = False,
    seed: int = 0,
    progress: bool = True,
) -> xr.Dataset:
    """Return the histories of the methods on the networks at all stepsizes, full gradients."""
    dataset = jd.compare(
        METHODS if methods is None else methods,
        problem(),
        members,
        over={"stepsize": jnp.logspace(-1.5, -0.25, 6) if quick else jnp.logspace(-2.5, 0, 11)},
        seeds=[seed],
        steps=900 if quick else 2400,
        every=5,
        progress=progress,
    )
    return with_gaps(dataset[["gap", "consensus_error", "rounds", "diverged"]], members)


def varying(quick: bool = False, seed: int = 0, progress: bool = True) -> xr.Dataset:
    """Return gradient tracking's histories on networks that change with time and on fixed ones.

    With ``contraction``, by what factor a round shrinks disagreement as measured, and ``mean``,
    the |λ₂| of the rounds' mean W.
    """
    families = varying_networks()[1::2] if quick else varying_networks()
    key, radii = jax.random.key(seed), mean_radii()
    parts: list[xr.Dataset] = []
    world = problem()
    for members in tqdm(families, unit="family", desc="networks in time", disable=not progress):
        dataset = jd.compare(
            {"GradientTracking": METHODS["GradientTracking"]},
            world,
            members,
            over={"stepsize": jnp.logspace(-1.5, -0.25, 3 if quick else 6)},
            seeds=range(seed, seed + (2 if quick else 3)),
            steps=600 if quick else 2000,
            every=10,
            progress=False,
        )
        measures = {
            "contraction": [jd.networks.contraction(n, key, rounds=1000) for n in members.values()],
            "mean": [radii[name] for name in members],
        }
        parts.append(dataset.assign({k: ("network", v) for k, v in measures.items()}))
    return xr.concat(parts, "network")


def varying_networks() -> list[dict[str, Any]]:
    """Return networks that change and fixed ones, a dictionary for each program to compile."""
    grid = dense(placed(jd.graphs.grid(4, AGENTS // 4)))
    return [
        {
            "ring": dense(jd.graphs.ring(AGENTS)),
            "exponential": dense(jd.graphs.exponential(AGENTS, directed=True)),
        },
        {"one-peer exponential": jd.networks.one_peer_exponential(AGENTS)},
        {"random matching": jd.networks.RandomMatching(jd.graphs.complete(AGENTS))},
        {
            name: jd.networks.RandomLinks(jd.networks.Disconnected(grid, awake), up)
            for name, (up, awake) in UP_AND_AWAKE.items()
        },
    ]


def mean_radii() -> dict[str, float]:
    """Return the |λ₂| of the mean over rounds of each varying network's W, in closed form."""
    eye, ones = np.eye(AGENTS), np.ones((AGENTS, AGENTS))
    ring = dense(jd.graphs.ring(AGENTS))
    exponential = dense(jd.graphs.exponential(AGENTS, directed=True))
    grid = dense(placed(jd.graphs.grid(4, AGENTS // 4))).csr().toarray()
    hops = [np.roll(eye, 2**h, axis=1) for h in range((AGENTS - 1).bit_length())]
    means = {
        "ring": ring.csr().toarray(),
        "exponential": exponential.csr().toarray(),
        "one-peer exponential": (eye + np.mean(hops, axis=0)) / 2,
        "random matching": eye / 2 + (ones - eye) / (2 * (AGENTS - 1)),
    }
    for name, (up, awake) in UP_AND_AWAKE.items():
        means[name] = eye + up * awake**2 * (grid - eye)
    return {name: float(np.sort(np.abs(np.linalg.eigvals(w)))[-2]) for name, w in means.items()}


def spectral_gaps(members: Mapping[str, Any]) -> list[float]:
    """Return the networks' spectral gaps."""
    return [network.spectral_gap for network in members.values()]


def with_gaps(dataset: xr.Dataset, members: Mapping[str, Any]) -> xr.Dataset:
    """Return the dataset with its networks' spectral gaps as a coordinate."""
    return dataset.assign_coords(spectral_gap=("network", spectral_gaps(members)))


def rounds_to(dataset: xr.Dataset, target: float) -> xr.DataArray:
    """Return rounds to F − F* ≤ ``target`` at each method's and network's best stepsize.

    Best is the first to get there, among the stepsizes that are still there at the end.
    """
    stays = dataset.gap.isel(step=-1) <= target
    return jd.reach(dataset, "gap", target, x="rounds").where(stays).min("stepsize").mean("seed")


def measured(averaged: xr.Dataset, optimized: xr.Dataset) -> xr.DataArray:
    """Return the rounds of all schemes and methods, [algorithm, network]; NaN if not reached."""
    target = {name: COARSE if name == "DSGD" else TARGET for name in METHODS}
    rows = [averaged.rounds.sel(algorithm=name, drop=True) for name in SCHEMES]
    rows += [
        rounds_to(optimized.sel(algorithm=[name]), target[name]).isel(algorithm=0, drop=True)
        for name in METHODS
    ]
    names = xr.DataArray([*SCHEMES, *METHODS], dims="algorithm", name="algorithm")
    values = [row.drop_vars("spectral_gap") for row in rows]
    joined = xr.concat(values, names).rename("rounds")
    return joined.assign_coords(spectral_gap=averaged.spectral_gap)


def slope(rounds: xr.DataArray, low: float, high: float) -> float:
    """Return the slope of log rounds over log gap, least squares, for low ≤ gap < high."""
    gap = rounds.spectral_gap.values
    chosen = (gap >= low) & (gap < high) & np.isfinite(rounds.values)
    if chosen.sum() < 3:
        return math.nan
    return float(np.polyfit(np.log(gap[chosen]), np.log(rounds.values[chosen]), 1)[0])


def rounds_table(rounds: xr.DataArray, members: Mapping[str, Any]) -> pd.DataFrame:
    """Return the table of rounds, with a line per network and a column per scheme or method."""
    rows = []
    for name in rounds.network.values:
        network = members[str(name)]
        here = rounds.sel(network=name)
        rows.append(
            (
                str(name),
                number(network.spectral_gap, ".4f"),
                number(network.link_count / network.n, ".1f"),
                *(number(float(value), ".0f") for value in here.values),
            )
        )
    header = [f"{name} {COARSE if name == 'DSGD' else TARGET:g}" for name in METHODS]
    return pd.DataFrame(rows, columns=("network", "gap", "degree", *SCHEMES, *header))


def slopes_table(rounds: xr.DataArray) -> pd.DataFrame:
    """Return fitted slopes beside what theory says: at small gaps, and at large ones."""
    rows = []
    for name in map(str, rounds.algorithm.values):
        theory, why = THEORY[name]
        here = rounds.sel(algorithm=name)
        fits = [slope(here, *span) for span in ((0, SMALL), (SMALL, 0.99))]
        rows.append((name, f"{theory:g}", *(number(fit, ".2f") for fit in fits), why))
    header = ("rounds of", "theory", f"fit, gap < {SMALL:g}", f"fit, gap > {SMALL:g}", "theory is")
    return pd.DataFrame(rows, columns=header)


def placement_table(slow: xr.Dataset, shuffled: xr.Dataset) -> pd.DataFrame:
    """Return rounds with the digits at the two ends of the graph, and with the digits mixed."""
    rows = []
    for algorithm in shuffled.algorithm.values:
        for network in shuffled.network.values:
            at = {"algorithm": algorithm, "network": network}
            counts = [
                number(float(rounds_to(dataset, target).sel(at)), ".0f")
                for target in (COARSE, TARGET)
                for dataset in (slow, shuffled)
            ]
            rows.append((str(algorithm), str(network), *counts))
    names = [
        f"{where}, {target:g}" for target in (COARSE, TARGET) for where in ("ends", "shuffled")
    ]
    return pd.DataFrame(rows, columns=("method", "network", *names))


def varying_table(dataset: xr.Dataset) -> pd.DataFrame:
    """Return how fast time-varying networks mix, and what they cost gradient tracking."""
    best = jd.best(dataset.isel(algorithm=0), "gap")
    bits = best.traffic.isel(step=-1) / best.bits.isel(step=-1)
    reached = {x: jd.reach(best, "gap", TARGET, x=x).mean("seed") for x in ("rounds", "traffic")}
    rows = []
    for name in best.network.values:
        here = best.sel(network=name)
        rows.append(
            (
                str(name),
                number(float(bits.sel(network=name).mean()), ".1f"),
                number(float(here["mean"]), ".3f"),
                number(float(here.contraction), ".3f"),
                number(float(here.stepsize), ".2g"),
                number(float(reached["rounds"].sel(network=name)), ".0f"),
                number(float(reached["traffic"].sel(network=name)) / 1e6, ".1f"),
            )
        )
    return pd.DataFrame(
        rows,
        columns=(
            "network",
            "links a round",
            "|λ₂| of mean W",
            "contraction",
            "best stepsize",
            f"rounds to {TARGET:g}",
            "Mbit",
        ),
    )


def graphs_figure(seed: int = 0) -> Any:
    """Return four graphs with their weights, each agent labelled with its most frequent digit."""
    import matplotlib.pyplot as plt

    made = graphs(seed)
    fig, axes = plt.subplots(1, len(PICTURES), figsize=(14, 4), layout="constrained")
    digits = [str(DIGITS[2 * i >= AGENTS]) for i in range(AGENTS)]
    for ax, name in zip(axes, PICTURES, strict=True):
        graph = placed(made[name])
        network = dense(graph)
        own = nx.get_node_attributes(graph, "pos")
        where = own or nx.circular_layout(made[name])
        points = np.array([where[node] for node in graph])
        jd.plot.graph(network, ax=ax, positions=points, labels=digits)
        ax.set_title(f"{name}, gap {network.spectral_gap:.2f}")
    return fig


def spectra_figure(seed: int = 0) -> Any:
    """Return the spectra of the four graphs, and two of the matrices."""
    import matplotlib.pyplot as plt

    members = networks(seed=seed)
    fig, axes = plt.subplots(1, 3, figsize=(14, 4.2), layout="constrained")
    jd.plot.spectrum({name: members[name] for name in PICTURES}, ax=axes[0])
    for ax, name in zip(axes[1:], ("path", "exponential"), strict=True):
        jd.plot.matrix(members[name], ax=ax)
        ax.set_title(name)
    return fig


def scaling_figure(rounds: xr.DataArray) -> Any:
    """Return rounds over spectral gap: averaging on the left, methods on the right, with guides."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, 2, figsize=(12, 4.8), layout="constrained")
    gap = np.array([rounds.spectral_gap.min(), 1.0])
    digits = -math.log(AVERAGED)
    guides = (
        (digits / gap, "$\\log(1/\\epsilon) / \\mathrm{gap}$", "-"),
        (1.28 * digits / np.sqrt(gap), "$1.28\\,\\log(1/\\epsilon) / \\sqrt{\\mathrm{gap}}$", "--"),
    )
    for values, label, dashes in guides:
        axes[0].plot(gap, values, color="0.6", linewidth=1, linestyle=dashes, label=label)
    plain, chebyshev = (rounds.sel(algorithm=name) for name in SCHEMES)
    axes[0].plot(plain.spectral_gap, plain, "o", color=jd.plot.PALETTE[0], label="$x^+ = Wx$")
    text = "Chebyshev, $K = \\lceil 1/\\sqrt{\\mathrm{gap}} \\rceil$"
    axes[0].plot(plain.spectral_gap, chebyshev, "s", color=jd.plot.PALETTE[1], label=text)
    axes[0].set_title(f"averaging to $\\epsilon$ = {AVERAGED:g}")
    for i, name in enumerate(METHODS):
        here = rounds.sel(algorithm=name)
        target = COARSE if name == "DSGD" else TARGET
        axes[1].plot(
            here.spectral_gap,
            here,
            "osD^"[i],
            color=jd.plot.PALETTE[i],
            markerfacecolor="none" if name in ("DSGD", "EXTRA") else None,
            label=f"{name} to {target:g}",
        )
    floor = float(rounds.sel(algorithm="GradientTracking").isel(network=-1))
    for power, name, dashes in ((-1, "GradientTracking", "-"), (-0.5, "ExactDiffusion", "--")):
        here = rounds.sel(algorithm=name)
        i = int(np.flatnonzero(np.isfinite(here.values))[0])
        x = np.array([float(here.spectral_gap[i]), 1.0])
        y = float(here[i]) * (x / x[0]) ** power
        text = "slope $-1$" if power == -1 else "slope $-1/2$"
        axes[1].plot(x, y, color="0.6", linewidth=1, linestyle=dashes, label=text)
    axes[1].axhline(floor, color="0.6", linewidth=1, linestyle=":", label="centralized")
    axes[1].set_title(f"digits {DIGITS[0]} against {DIGITS[1]}, best of all stepsizes")
    for ax in axes:
        ax.set(xscale="log", yscale="log", ylabel=jd.plot.NAMES["rounds"])
        ax.set_xlabel("spectral gap  $1 - |\\lambda_2|$")
        ax.legend(fontsize=8)
    return fig


def stepsizes_figure(optimized: xr.Dataset, rounds: int = 500) -> Any:
    """Return F − F* after some rounds over stepsize and spectral gap, with a panel per method."""
    import matplotlib.pyplot as plt

    early = optimized.sel(step=slice(None, rounds)).swap_dims(network="spectral_gap")
    fig, axes = plt.subplots(
        1, len(METHODS), figsize=(14, 3.8), sharex=True, sharey=True, layout="constrained"
    )
    high = float(early.gap.isel(step=0).max())
    for ax, name in zip(axes, METHODS, strict=True):
        jd.plot.heatmap(
            early.sel(algorithm=name),
            by="spectral_gap",
            ax=ax,
            vmin=1e-12,
            vmax=high,
            colorbar=ax is axes[-1],
        )
        ax.set_ylabel("spectral gap  $1 - |\\lambda_2|$")
        ax.set_title(f"{name}, {int(early.step[-1])} rounds")
        ax.label_outer()
    return fig


def varying_figure(dataset: xr.Dataset) -> Any:
    """Return gradient tracking's gap over rounds and over traffic, on time-varying networks."""
    import matplotlib.pyplot as plt

    best = jd.best(dataset.isel(algorithm=0), "gap")
    names = [str(name) for name in best.network.values]
    rows = [[n for n in names if ("p = " in n) == failing] for failing in (False, True)]
    fig, axes = plt.subplots(2, 2, figsize=(12, 7.5), sharey=True, layout="constrained")
    for row, members in zip(axes, rows, strict=True):
        for ax, x in zip(row, ("rounds", "traffic"), strict=True):
            chosen = best.sel(network=members)
            jd.plot.curves(chosen, y="gap", x=x, ax=ax, floor=ROUNDING)
            ends = jd.reach(chosen, "gap", 10 * ROUNDING, x=x).fillna(chosen[x].isel(step=-1))
            ax.set_xlim(0, 1.05 * float(ends.max()))
        row[1].get_legend().remove()
        row[1].set_ylabel("")
    return fig


def run(quick: bool, out: Path, seed: int, progress: bool = True) -> list[Path]:
    """Run everything, print the tables and return the files written into ``out``."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    out.mkdir(parents=True, exist_ok=True)
    members = networks(quick, seed)
    averaged = averaging(members, seed, progress)
    optimized = optimization(members, quick=quick, seed=seed, progress=progress)
    methods = {name: METHODS[name] for name in ("DSGD", "GradientTracking")}
    shuffled = optimization(
        shuffled_networks(quick, seed), methods, quick=quick, seed=seed, progress=progress
    )
    changing = varying(quick, seed, progress)
    rounds = measured(averaged, optimized)
    tables = {
        "rounds": ("rounds to a relative disagreement, or a gap", rounds_table(rounds, members)),
        "slopes": ("slopes of log rounds over log gap", slopes_table(rounds)),
        "placement": (
            "rounds where each digit has an end of the graph, and where agents are shuffled",
            placement_table(optimized, shuffled),
        ),
        "varying": ("gradient tracking on networks that change", varying_table(changing)),
    }
    datasets = {
        "averaging": averaged,
        "optimization": optimized,
        "shuffled": shuffled,
        "varying": changing,
    }
    figures = {
        "graphs": graphs_figure(seed),
        "spectra": spectra_figure(seed),
        "scaling": scaling_figure(rounds),
        "stepsizes": stepsizes_figure(optimized),
        "varying": varying_figure(changing),
    }
    written = []
    for name, (title, table) in tables.items():
        print(f"\n{title}\n\n{text(table)}")
        written.append(out / f"networks_{name}.csv")
        table.to_csv(written[-1], index=False)
    for name, dataset in datasets.items():
        written.append(out / f"networks_{name}.nc")
        dataset.to_netcdf(written[-1])
    for name, fig in figures.items():
        for suffix in ("png", "pdf"):
            written.append(out / f"networks_{name}.{suffix}")
            fig.savefig(written[-1], dpi=160)
        plt.close(fig)
    print()
    return written
