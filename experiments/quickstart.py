"""Quick start: four decentralized methods on real data, each at its own best stepsize.

Logistic regression telling the handwritten digit 3 from 8 (scikit-learn's digits, 8 x 8 pixels),
sorted by label over 16 agents, so that each agent sees only one digit, on a ring, a 4 x 4 grid and
the exponential graph with Metropolis weights. There are two regimes: full gradients, where EXTRA,
exact diffusion and gradient tracking are exact and DGD is not, and minibatches, where all have a
noise floor. Everything is in float64.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import xarray as xr

import jaxdopt as jd
from experiments.tables import number, text

AGENTS = 16
DIGITS = (3, 8)
L2 = 1e-2
BATCH = 4
TARGET = 1e-6
ROUNDING = 1e-15  # gaps below it are rounding errors of the objective
METHODS = {
    "DGD": jd.DGD(0.1),
    "GradientTracking": jd.GradientTracking(0.1),
    "EXTRA": jd.EXTRA(0.1),
    "ExactDiffusion": jd.ExactDiffusion(0.1),
}
NETWORKS = {
    "ring": jd.graphs.ring(AGENTS),
    "grid": jd.graphs.grid(4, 4),
    "exponential": jd.graphs.exponential(AGENTS),
}
REGIMES = {"full": "full gradients", "minibatch": f"minibatches of {BATCH}"}


def problem(seed: int = 0) -> tuple[Any, Any]:
    """Return the problem, and the accuracy on the fifth of the images that is held out."""
    train, held_out = jd.data.digits().only(*DIGITS).split(held_out=0.2, seed=seed)
    accuracy = jd.metrics.accuracy(held_out.features, held_out.labels == DIGITS[1])
    training = jd.problems.logistic_regression(
        train.features, train.labels == DIGITS[1], agents=AGENTS, l2=L2, partition="by_label"
    )
    return training, accuracy


def curves(quick: bool = False, seed: int = 0, progress: bool = True) -> dict[str, xr.Dataset]:
    """Return all histories of both regimes: algorithm, network, stepsize, seed, step."""
    full, accuracy = problem(seed)
    minibatch = jd.problems.Minibatch(full, BATCH)
    networks = {name: jd.networks.metropolis(graph) for name, graph in NETWORKS.items()}
    stepsizes = jnp.logspace(-2, 1, 4 if quick else 16)

    def compare(problem: Any, seeds: int, steps: int, every: int) -> xr.Dataset:
        return jd.compare(
            METHODS,
            problem,
            networks,
            over={"stepsize": stepsizes},
            seeds=range(seed, seed + seeds),
            steps=steps,
            every=every,
            metrics={"accuracy": accuracy},
            progress=progress,
        )

    return {
        "full": compare(full, 1, 200 if quick else 3000, 10),
        "minibatch": compare(minibatch, 2 if quick else 10, 100 if quick else 2000, 10),
    }


def summary(best: xr.Dataset) -> pd.DataFrame:
    """Return the table of one regime: what each method reaches at its best stepsize."""
    last = best.isel(step=-1).mean("seed")
    rounds = jd.reach(best, "gap", TARGET, x="rounds").mean("seed")  # "-" unless every seed does
    reached = jd.reach(best, "gap", TARGET).notnull().all("seed")
    rows = []
    for network in best.network.values:
        for algorithm in best.algorithm.values:
            at = {"algorithm": algorithm, "network": network}
            end = last.sel(at)
            rows.append(
                (
                    str(network),
                    str(algorithm),
                    number(float(best.stepsize.sel(at)), ".3g"),
                    number(float(end.gap)) if end.gap > ROUNDING else f"< {ROUNDING:g}",
                    number(float(end.consensus_error)),
                    number(float(end.accuracy), ".1%"),
                    number(float(rounds.where(reached).sel(at)), ".0f"),
                )
            )
    return pd.DataFrame(
        rows,
        columns=(
            "network",
            "method",
            "best stepsize",
            "final gap",
            "consensus error",
            "held-out accuracy",
            f"rounds to {TARGET:g}",
        ),
    )


def figure(datasets: dict[str, xr.Dataset]) -> Any:
    """Return the convergence figure, with a row per regime and a panel per network."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(2, 3, figsize=(11, 6.4), sharey="row", layout="constrained")
    for row, (regime, x) in zip(axes, (("full", "rounds"), ("minibatch", "epochs")), strict=True):
        best = jd.best(datasets[regime], "gap")
        for ax, network in zip(row, NETWORKS, strict=True):
            jd.plot.curves(best.sel(network=network), y="gap", x=x, ax=ax, floor=ROUNDING)
            gap = jd.networks.metropolis(NETWORKS[network]).spectral_gap
            ax.set_title(f"{network}, spectral gap {gap:.2f}: {REGIMES[regime]}", fontsize=10)
            if ax is not row[0]:
                ax.set_ylabel("")
            if ax is not row[-1]:
                ax.get_legend().remove()
    return fig


def stepsize_figure(datasets: dict[str, xr.Dataset]) -> Any:
    """Return final gaps over stepsize and network, with a row per regime, a panel per method."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(
        2, len(METHODS), figsize=(12, 4.6), sharex=True, sharey=True, layout="constrained"
    )
    for row, (regime, dataset) in zip(axes, datasets.items(), strict=True):
        high = float(dataset.gap.isel(step=0).max()) * 10
        low = max(float(dataset.gap.isel(step=-1).min()), ROUNDING)
        for ax, method in zip(row, METHODS, strict=True):
            chosen = dataset.sel(algorithm=method)
            jd.plot.heatmap(chosen, ax=ax, vmin=low, vmax=high, colorbar=ax is row[-1])
            ax.set_title(f"{method}: {REGIMES[regime]}", fontsize=10)
            ax.label_outer()
    return fig


def run(quick: bool, out: Path, seed: int, progress: bool = True) -> list[Path]:
    """Run both regimes, print the tables and return the files written into ``out``."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    out.mkdir(parents=True, exist_ok=True)
    training, _ = problem(seed)
    sizes = np.asarray(training.sizes)
    print(
        f"digits {DIGITS[0]} against {DIGITS[1]}: {sizes.sum()} images over {AGENTS} agents by "
        f"label, {sizes.min()} to {sizes.max()} each; L = {float(training.smoothness):.2f}, "
        f"mu = {float(training.strong_convexity):.2g}; backend {jax.default_backend()}"
    )
    datasets = curves(quick, seed, progress)
    written = []
    for regime, dataset in datasets.items():
        table = summary(jd.best(dataset, "gap"))
        print(
            f"\n{REGIMES[regime]}, {dataset.sizes['seed']} seed(s), "
            f"{int(dataset.step[-1])} steps, mean over seeds\n\n{text(table)}"
        )
        written.append(out / f"quickstart_{regime}.csv")
        table.to_csv(written[-1], index=False)
        path = out / f"quickstart_{regime}.nc"
        dataset.to_netcdf(path)
        written.append(path)
    for name, draw in (("quickstart", figure), ("quickstart_stepsizes", stepsize_figure)):
        fig = draw(datasets)
        for suffix in ("png", "pdf"):
            path = out / f"{name}.{suffix}"
            fig.savefig(path, dpi=160)
            written.append(path)
        plt.close(fig)
    print()
    return written
