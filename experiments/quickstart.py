"""Quick start: four decentralized methods on real data, each at its own best stepsize.

Logistic regression telling the handwritten digit 3 from 8 (scikit-learn's digits, 8 x 8 pixels),
sorted by label over 16 agents, so that each agent sees only one digit, on a ring, a 4 x 4 grid and
the exponential graph with Metropolis weights. There are two regimes: full gradients, where EXTRA,
exact diffusion and gradient tracking are exact and DGD is not, and minibatches, where all have a
noise floor. Everything is in float64; gaps below 1e-15 are rounding errors of the objective and
drawn at it.
"""

import functools
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
import xarray as xr

import jaxdopt as jd
from experiments.claims import Claim, above, below
from experiments.panels import Figure, Lines, level
from experiments.study import Part, Program, Results, Study, comparisons, derived

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
EXACT = list(METHODS)[1:]
GRAPHS = {
    "ring": jd.graphs.ring(AGENTS),
    "grid": jd.graphs.grid(4, 4),
    "exponential": jd.graphs.exponential(AGENTS),
}
REGIMES = {"full": "full gradients", "minibatch": f"minibatches of {BATCH}"}
SCALES = {
    "quick": SimpleNamespace(stepsizes=4, seeds=2, full=200, minibatch=100),
    "default": SimpleNamespace(stepsizes=16, seeds=10, full=3000, minibatch=2000),
    "full": SimpleNamespace(stepsizes=31, seeds=100, full=6000, minibatch=10_000),
}


def problem(seed: int = 0) -> tuple[Any, Any]:
    """Return the problem, and the accuracy on the fifth of the images that is held out."""
    train, held_out = jd.data.digits().only(*DIGITS).split(held_out=0.2, seed=seed)
    accuracy = jd.metrics.accuracy(held_out.features, held_out.labels == DIGITS[1])
    training = jd.problems.logistic_regression(
        train.features, train.labels == DIGITS[1], agents=AGENTS, l2=L2, partition="by_label"
    )
    return training, accuracy


def world(sizes: Any, seed: int) -> Any:
    """Return the sizes, the seed, the problem, its accuracy and the networks."""
    training, accuracy = problem(seed)
    networks = {name: jd.networks.metropolis(graph) for name, graph in GRAPHS.items()}
    return SimpleNamespace(
        sizes=sizes, seed=seed, problem=training, accuracy=accuracy, networks=networks
    )


def regime(name: str, world: Any, _: Any) -> Mapping[str, Program]:
    """Return a comparison for every method: network, stepsize, seed, step."""
    full = name == "full"
    return comparisons(
        METHODS,
        problem=world.problem if full else jd.problems.Minibatch(world.problem, BATCH),
        networks=world.networks,
        over={"stepsize": jnp.logspace(-2, 1, world.sizes.stepsizes)},
        seeds=range(world.seed, world.seed + (1 if full else world.sizes.seeds)),
        steps=getattr(world.sizes, name),
        every=10,
        metrics={"accuracy": world.accuracy},
    )


def summary(name: str, results: Results) -> xr.Dataset:
    """Return what each method reaches at its best stepsize; rounds only if every seed does."""
    chosen = results[f"{name}, best"]
    last = chosen.isel(step=-1, drop=True).mean("seed")
    rounds = jd.reach(chosen, "gap", TARGET, x="rounds")
    return xr.Dataset(
        {
            "best stepsize": chosen.stepsize,
            "final gap": abs(last.gap),
            "consensus error": last.consensus_error,
            "held-out accuracy": last.accuracy,
            f"rounds to {TARGET:g}": rounds.mean("seed", skipna=False),
        }
    ).drop_vars("stepsize")


def final(regime: str, *methods: str) -> Any:
    """Return the measure of methods' final gaps, a mean over seeds."""

    def measure(results: Results) -> xr.DataArray:
        gap = abs(results[f"{regime}, best"].gap).isel(step=-1, drop=True).mean("seed")
        return gap.sel(algorithm=list(methods)).drop_vars("stepsize", errors="ignore")

    return measure


CLAIMS = [
    Claim(
        "with full gradients, gradient tracking, EXTRA and exact diffusion are exact: gap",
        "known: arXiv 1404.6264, 1607.03218, 1702.05122",
        "0",
        final("full", *EXACT),
        below(TARGET),
        scales=("default", "full"),
    ),
    Claim(
        "DGD with a constant stepsize is not",
        "known: arXiv 1310.7063",
        "> 0",
        final("full", "DGD"),
        above(TARGET),
    ),
    Claim(
        "with minibatches and a constant stepsize, all have a noise floor",
        "known",
        "> 0",
        final("minibatch", *METHODS),
        above(TARGET),
    ),
]


def panel(regime: str, network: str) -> Lines:
    """Return the panel of a regime on a network."""
    gap = jd.networks.metropolis(GRAPHS[network]).spectral_gap
    return Lines(
        data=f"{regime}, best",
        at={"network": network},
        x="rounds" if regime == "full" else "epochs",
        xlabel="rounds" if regime == "full" else "epochs",
        floor=ROUNDING,
        title=f"{network}, spectral gap {gap:.2f}",
        ylabel="" if network != "ring" else f"{REGIMES[regime]}\n{jd.plot.NAMES['gap']}",
        also=[level(ROUNDING, "rounding errors")] if regime == "full" else [],
    )


def heat(regime: str, method: str, ax: Any, results: Results) -> None:
    """Draw final gaps over stepsize and network."""
    dataset = results[regime]
    high = float(dataset.gap.isel(step=0).max()) * 10
    low = max(float(dataset.gap.isel(step=-1).min()), ROUNDING)
    bar = method == list(METHODS)[-1]
    chosen = dataset.sel(algorithm=method)
    jd.plot.heatmap(chosen, ax=ax, vmin=low, vmax=high, colorbar=bar)
    ax.set_title(method, fontsize=7)
    ax.set(ylabel=REGIMES[regime])


FIGURES = {
    "quickstart": Figure(
        [[panel(regime, network) for network in GRAPHS] for regime in REGIMES],
        sharey=True,
        height=2.3,
    ),
    "stepsizes": Figure(
        [[functools.partial(heat, regime, method) for method in METHODS] for regime in REGIMES],
        sharey=True,
        height=1.6,
    ),
}

STUDY = Study(
    name="quickstart",
    paper="Methods of arXiv 1310.7063, 1404.6264, 1607.03218, 1702.05122",
    question="How do DGD, gradient tracking, EXTRA and exact diffusion compare on real data?",
    scales=SCALES,
    world=world,
    parts={name: Part("algorithm", functools.partial(regime, name)) for name in REGIMES}
    | {
        f"{name}, best": derived(lambda done, name=name: jd.best(done[name], "gap"))
        for name in REGIMES
    },
    claims=CLAIMS,
    figures=FIGURES,
    tables={
        name: (f"{title}: means over seeds at the best stepsize", functools.partial(summary, name))
        for name, title in REGIMES.items()
    },
    minutes={"quick": 0.3, "default": 1.2, "full": 30},
    data=lambda world: (
        f"digits {DIGITS[0]} against {DIGITS[1]}: {int(np.sum(world.problem.sizes))} images of "
        f"scikit-learn over {AGENTS} agents by label, {int(np.min(world.problem.sizes))} to "
        f"{int(np.max(world.problem.sizes))} each; L = {float(world.problem.smoothness):.2f}, "
        f"mu = {float(world.problem.strong_convexity):.2g}"
    ),
)
