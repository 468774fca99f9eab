"""Adaptive optimizers at FedAvg's server (arXiv 2003.00295), on the sorted digits.

Softmax regression, every client one digit or two, 5 of 20 clients a round, minibatches, 10 local
steps. The server takes the clients' mean change as a gradient; its optimizers are optax's, each at
the server stepsize that is first at a loss. All in float64.

optax's Adam and Yogi are not those of the paper (no bias correction, v₀ = τ²; from memory): it
corrects both moments, Adam's v₀ is 0, Yogi's first moment starts at v₀ too; Adagrad's ε is inside
the root. The published Adam's steps are longer by (1 − β₁ᵗ) / (1 − β₂ᵗ)^½ than optax's.
"""

from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr

import jaxdopt as jd
from experiments.claims import above, below, claims
from experiments.heterogeneity import BATCH, DIGITS_CLIENTS, DIGITS_STEPS, IMAGES, digits
from experiments.panels import Figure, Lines, LogLog, level, present
from experiments.study import Part, Program, Results, Study
from jaxdopt.networks import participation

PAPER = "arXiv 2003.00295"
PRESENT = 5
TAU, FIRST, SECOND = 1e-3, 0.9, 0.99  # τ, β₁ and β₂ of Reddi et al., from memory
TARGET = 0.1  # of F − F*, mean over seeds and 50 rounds
PLAIN = "FedAvg, plain mean"
ENDS = ("server_stepsize", "rounds", "last gap", "last accuracy")


def published_adam() -> Any:
    """Return FedAdam's server optimizer without bias correction, from v₀ = τ²."""

    def init(x: jax.Array) -> Any:
        return jnp.zeros_like(x), jnp.full_like(x, TAU**2)

    def update(delta: jax.Array, memory: Any, _: Any = None) -> Any:
        m = FIRST * memory[0] + (1 - FIRST) * delta
        v = SECOND * memory[1] + (1 - SECOND) * delta**2
        return m / (jnp.sqrt(v) + TAU), (m, v)

    return optax.GradientTransformation(init, update)


YOGI = optax.scale_by_yogi(FIRST, SECOND, TAU, initial_accumulator_value=TAU**2)
SERVERS = {  # optimizer, log10 of the lowest server stepsize; the highest is 100 times as large
    "FedAvg": (None, -1.5),
    "FedAvgM": (optax.trace(FIRST), -2.5),
    "FedAdam (optax)": (optax.scale_by_adam(FIRST, SECOND, eps=TAU), -3),
    "FedAdam (published)": (published_adam(), -3),
    "FedAdagrad": (optax.scale_by_rss(TAU**2, eps=TAU**2), -2),
    "FedYogi": (YOGI, -3),
}
SCALES = {
    "quick": {"servers": ("FedAvg", "FedAdagrad"), "points": 5, "rounds": 200, "seeds": 2},
    "default": {"servers": tuple(SERVERS), "points": 9, "rounds": 400, "seeds": 8},
    "full": {"servers": tuple(SERVERS), "points": 9, "rounds": 400, "seeds": 32},
}


def servers(world: Any, _: Any) -> dict[str, Program]:
    """Return the sorted digits with minibatches: choice of the server stepsize, seed."""
    (problems, accuracy), found = digits(world.seed), {}
    shared = {"problem": jd.problems.Minibatch(problems["sorted"], BATCH), "progress": False}
    shared |= {"networks": participation.uniform(DIGITS_CLIENTS, PRESENT), "every": 10}
    shared |= {"steps": world.rounds, "metrics": {"accuracy": accuracy}}
    shared |= {"seeds": range(world.seed, world.seed + world.seeds)}
    for name in world.servers:
        optimizer, low = SERVERS[name]
        method = jd.FedAvg(DIGITS_STEPS[0], local_steps=DIGITS_STEPS[1], server=optimizer)
        grid = np.logspace(low, low + 2, world.points)
        own = {"algorithms": {name: method}, "over": {name: {"server_stepsize": grid}}}
        found[name] = Program(shared | own, function=jd.compare, reduce=alone)
    return found


def alone(dataset: xr.Dataset) -> xr.Dataset:
    """Return gaps and accuracies of one method on one network."""
    return dataset[["gap", "accuracy"]].isel(algorithm=0, network=0, drop=True)


def with_rounds(dataset: xr.Dataset, *_: Any) -> xr.Dataset:
    """Add F − F* as means over seeds and five records, as one may be low by luck, and rounds."""
    last = dataset.isel(step=slice(-5, None)).mean(["seed", "step"])
    dataset = dataset.assign({"last gap": last.gap, "last accuracy": last.accuracy})
    dataset = dataset.assign(smooth=dataset.gap.mean("seed").rolling(step=5).mean())
    return dataset.assign(rounds=jd.reach(dataset, "smooth", TARGET).fillna(np.inf))


def bests(results: Results) -> xr.Dataset:
    """Return every optimizer at the server stepsize that is first at the target; and the mean."""
    served = results["servers"]
    plain = served.sel(algorithm=["FedAvg"]).assign_coords(algorithm=[PLAIN])
    plain = plain.isel(choice=int(abs(np.log(plain.server_stepsize.values[0])).argmin()))
    both: Any = [served.isel(choice=served.rounds.argmin("choice")), plain]
    return xr.concat(both, "algorithm").reset_coords("server_stepsize").drop_vars("choice")


def sooner(results: Results) -> xr.DataArray:
    """Return adaptive servers' rounds to the target over FedAvg's: than, algorithm."""
    needed, others = bests(results).rounds, ["FedAvg", PLAIN]
    own = needed.sel(algorithm=[a for a in needed.algorithm.values if "Ada" in a or "Yogi" in a])
    return own / needed.sel(algorithm=others).rename(algorithm="than")


def earlier(results: Results) -> float:
    """Return how many rounds the published FedAdam is ahead of optax's."""
    needed = bests(results).rounds
    names = [present(needed, "algorithm", f"FedAdam ({which})") for which in ("optax", "published")]
    return float(needed.sel(algorithm=names[0]) - needed.sel(algorithm=names[1]))


CLAIMS = claims(
    ("adaptive servers: rounds over FedAvg's", f"{PAPER}, abstract", "< 1", sooner, below(0.9)),
    ("published FedAdam: rounds before optax's", "derived", "> 0", earlier, above(10)),
)


def smooth(results: Results) -> xr.Dataset:
    """Return F − F* of every optimizer at its own best server stepsize."""
    return bests(results)[["smooth"]].drop_sel(algorithm=PLAIN)


PANELS = [
    Lines(
        data=smooth,
        y="smooth",
        x="step",
        xlabel="rounds",
        ylabel=r"$F(x) - F^\star$",
        title="best server stepsizes",
        also=[level(TARGET, "target")],
    ),
    LogLog(
        data=lambda results: results["servers"].rounds,
        x="server_stepsize",
        ticks=(1e-3, 1e-2, 1e-1, 1.0),
        xlabel="server stepsize",
        ylabel="rounds to the target",
        title="all server stepsizes",
    ),
]
STUDY = Study(
    name="server_optimizers",
    paper=f"adaptive federated optimization (2020), {PAPER}",
    question="Do adaptive optimizers at FedAvg's server need fewer rounds than averaging?",
    scales=SCALES,
    world=lambda sizes, seed: SimpleNamespace(seed=seed, **sizes),
    parts={"servers": Part("algorithm", servers, with_rounds)},
    claims=CLAIMS,
    figures={"server_optimizers": Figure([PANELS], height=2.4)},
    tables={"servers": ("sorted digits", lambda results: bests(results)[[*ENDS]])},
    minutes={"quick": 0.2, "default": 1.5, "full": 6},
    data=lambda _: f"{IMAGES}, sorted",
)
