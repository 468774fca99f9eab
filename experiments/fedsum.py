"""FedSUM and others under arbitrary participation (arXiv 2512.18275).

Clients with different quadratics, five local steps, a constant stepsize. Three questions:

* *patterns*: without noise, which methods reach the solution under which of seven patterns of
  participation, and how far away do the others end?
* *delays*: with noise, how does FedSUM's stationary error grow with how long clients stay away?
  What a client has sent counts in D rounds, D the time between two of its rounds: for small steps
  the noise should be larger by E D² / E D = 1 + 2 τ_mean.
* *speedup*: is its stationary error, times nK, the same for all numbers n of clients and K of local
  steps at the same total step ηK, for three laws of participation?

All methods have the same total step ηK L = 0.1 of a round; FedSUM-B, which takes no local steps,
has it as its stepsize. Errors are |x − x*|, root mean squares over the last tenth of the rounds, as
FedAvg keeps moving where participation is random. Ages are 0 in a round in which a client takes
part (the paper's may be larger by 1), and all clients count as having taken part in round −1.
Everything in float64.

FedSUM's listings are derived from what is published about it and not read in the paper, FedSUM-CR's
with the least confidence; the paper's experiments, with convolutional networks, are not reproduced.
MIFA and FedVARP remove the bias of participation, not the drift of local steps.
"""

from collections import namedtuple
from functools import partial
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import xarray as xr

import jaxdopt as jd
from experiments.claims import above, below, claims, near, within_factor
from experiments.measures import exponent, over, spread, successive, tail
from experiments.panels import Figure, Heat, Lines, LogLog, present, slope
from experiments.study import Axis, Part, Program, Results, Study
from jaxdopt.networks import participation

PAPER = "arXiv 2512.18275"
CLIENTS, DIMENSION, LOCAL_STEPS, TOTAL = 12, 10, 5, 0.1  # the total is ηK L, of a round
EXACT = 1e-9  # |x − x*| up to which a method counts as exact
EVERY = 25  # rounds to a record: odd, to meet all groups of a cycle
DELAYED = (16, 4)  # n and K of the part "delays"
LAWS = {"p = 1": (1.0, 1.0), "p in 0.3 ... 0.9": (0.3, 0.9), "p in 0.05 ... 0.3": (0.05, 0.3)}
METHODS = {
    "FedAvg": jd.FedAvg,
    "MIFA": jd.MIFA,
    "FedVARP": jd.FedVARP,
    "SCAFFOLD": jd.SCAFFOLD,
    "FedSUM-B": jd.FedSUMB,
    "FedSUM": jd.FedSUM,
    "FedSUM-CR": jd.FedSUMCR,
}
FEDSUM = ("FedSUM", "FedSUM-B", "FedSUM-CR")
TITLES = {
    "full": "all clients",
    "uniform": "uniform, 3 of 12",
    "unequal": "probabilities 0.1 to 0.9",
    "cyclic": "cyclic, 4 groups",
    "reshuffled": "reshuffled cyclic",
    "rare": "one client in 1 of 20",
    "markov": "Markov chains",
}
# Methods; groups of "delays"; n and K of "speedup"; rounds without and with noise; seeds.
Sizes: Any = namedtuple("Sizes", "methods groups cases rounds seeds")
GROUPS, CASES = (1, 2, 4, 8, 16), ((4, 1), (16, 1), (64, 1), (16, 4), (16, 16))
SCALES = {
    "quick": Sizes(("FedAvg", "FedSUM", "FedSUM-CR"), (1, 16), ((4, 1), (4, 4)), (3000, 1000), 2),
    "default": Sizes(METHODS, GROUPS, CASES, (5000, 8000), 6),
    "full": Sizes(METHODS, GROUPS, CASES, (5000, 40_000), 8),
}


def world(sizes: Any, seed: int) -> Any:
    """Return the sizes, the seed, the problem without noise, patterns, and groups for delays.

    The problem has different Hessians and minimizers, and L = 1 for the largest. Groups are cyclic,
    or uniform subsets of the same size.
    """
    spread = {"heterogeneity": 1.0, "curvature_spread": 0.5, "seed": seed}
    make = partial(jd.problems.quadratic, CLIENTS, DIMENSION, **spread)
    problem = make(smoothness=1 / float(make().smoothness))
    found = SimpleNamespace(sizes=sizes, seed=seed, problem=problem)
    n, rounds = CLIENTS, sizes.rounds
    patterns = {
        "full": participation.full(n),
        "uniform": participation.uniform(n, 3),
        "unequal": participation.bernoulli(np.linspace(0.1, 0.9, n)),
        "cyclic": participation.cyclic(n, 4),
        "reshuffled": participation.reshuffled_cyclic(n, 4),
        "rare": participation.rare(n, 20),
        "markov": participation.markov(n, 0.1, 0.05, steps=rounds[0], key=jax.random.key(seed)),
    }
    n = DELAYED[0]
    groups = {("cyclic", m): participation.cyclic(n, m) for m in sizes.groups}
    groups |= {("uniform", m): participation.uniform(n, n // m) for m in sizes.groups}
    found.patterns = traces(patterns, rounds[0], seed)
    found.groups = traces(groups, rounds[1], seed)
    return found


def traces(networks: dict[Any, Any], rounds: int, seed: int) -> tuple[Any, list[Any]]:
    """Return networks as a stack of tables, so that one program serves all, and their names."""
    key, some = jax.random.key(seed), list(networks.values())
    rows = jnp.stack([participation.active(network, rounds, key) for network in some])
    return participation.Trace(rows, some[0].n), list(networks)


def noiseless(world: Any, _: Any) -> dict[str, Program]:
    """Return every method's run under all patterns, without noise."""
    networks, names = world.patterns
    shared = {"network": networks, "problem": world.problem, "x0": world.problem.start()}
    shared |= {"key": jax.random.key(world.seed), "steps": world.sizes.rounds[0], "every": EVERY}
    over, found = {"network": Axis("pattern", names)}, {}
    for name in world.sizes.methods:
        stepsize = TOTAL / (1 if name == "FedSUM-B" else LOCAL_STEPS)
        method = METHODS[name](stepsize, local_steps=LOCAL_STEPS)
        found[name] = Program(shared | {"algorithm": method}, over)
    return found


def stationary(world: Any, networks: Any, labels: Axis, n: int, local_steps: int) -> Program:
    """Return FedSUM's E|∇F|² on every network, from the solution on: network, seed."""
    spread = {"condition_number": 5.0, "heterogeneity": 0.5, "curvature_spread": 0.3}
    problem = jd.problems.quadratic(n, d=5, **spread, seed=world.seed)  # L is about 1
    problem, rounds = jd.problems.GaussianNoise(problem, 1.0), world.sizes.rounds[1]
    seeds = range(world.sizes.seeds)
    arguments = {
        "algorithm": jd.FedSUM(TOTAL / local_steps, local_steps=local_steps),
        "problem": problem,
        "network": networks,
        "x0": problem.start(problem.solution),
        "key": jax.random.split(jax.random.key(world.seed), len(seeds)),
        "steps": rounds,
        "every": rounds // 200,
    }

    def late(dataset: xr.Dataset) -> xr.Dataset:
        error = dataset.gradient_norm_squared.isel(step=slice(dataset.sizes["step"] // 5, None))
        return error.mean("step").to_dataset(name="error")

    return Program(arguments, {"network": labels, "key": Axis("seed", seeds)}, reduce=late)


def delayed(world: Any, _: Any) -> dict[str, Program]:
    """Return the one program of all delays."""
    networks, members = world.groups
    return {"": stationary(world, networks, Axis("member", range(len(members))), *DELAYED)}


def by_law(dataset: xr.Dataset, world: Any, _: Any) -> xr.Dataset:
    """Return the errors and the delays over law and groups (1/groups of the clients take part)."""
    networks, members = world.groups
    delays = [participation.delay_metrics(np.asarray(rows)) for rows in networks.rows]
    columns = zip(participation.Delays._fields, zip(*delays, strict=True), strict=True)
    dataset = dataset.assign({name: ("member", list(values)) for name, values in columns})
    index = pd.MultiIndex.from_tuples(members, names=["law", "groups"])
    dataset = dataset.assign_coords(xr.Coordinates.from_pandas_multiindex(index, "member"))
    dataset = dataset.unstack("member")
    return dataset.assign_coords(age=1 + 2 * dataset.tau_mean)


def speedup(world: Any, _: Any) -> dict[str, Program]:
    """Return a program for each pair of n and K, over the laws of participation."""
    found = {}
    for n, local_steps in world.sizes.cases:
        chances = np.stack([np.linspace(*bounds, n) for bounds in LAWS.values()])
        networks = jax.vmap(participation.bernoulli)(jnp.asarray(chances))
        labels = Axis("law", list(LAWS))
        found[f"{n} x {local_steps}"] = stationary(world, networks, labels, n, local_steps)
    return found


def with_sizes(dataset: xr.Dataset, world: Any, _: Any) -> xr.Dataset:
    """Add n, K and the error times nK."""
    n, local_steps = np.array(world.sizes.cases).T
    sizes = {"n": ("case", n), "K": ("case", local_steps), "samples": ("case", n * local_steps)}
    dataset = dataset.assign_coords(sizes)
    return dataset.assign(scaled=dataset.error.mean("seed") * dataset.samples)


def final(dataset: xr.Dataset) -> xr.DataArray:
    """Return errors over the last tenth of the rounds, root mean squares."""
    return np.sqrt(tail(dataset.distance_squared))


def ended(results: Results, *names: str) -> xr.DataArray:
    """Return methods' final errors by pattern."""
    errors = final(results["patterns"])
    return errors.sel(algorithm=present(errors, "algorithm", names))


def noise(results: Results) -> xr.DataArray:
    """Return the stationary errors of all delays, means over seeds."""
    return results["delays"].error.mean("seed")


SUM, LATER = f"{PAPER}, abstract", ("default", "full")
CLAIMS = claims(
    ("FedSUM, -B and -CR reach the solution under all patterns: |x − x*|", SUM, "0",
     lambda r: ended(r, *FEDSUM), below(EXACT)),
    ("so does SCAFFOLD", "arXiv 1910.06378", "0", lambda r: ended(r, "SCAFFOLD"), below(EXACT)),
    ("FedAvg does not, under any pattern", "derived: drift of local steps", "> 0",
     lambda r: ended(r, "FedAvg"), above(1e-4)),
    ("MIFA and FedVARP end where FedAvg with all clients does: ratio of errors",
     "derived: participation is corrected, drift is not", "1",
     lambda r: ended(r, "MIFA", "FedVARP") / ended(r, "FedAvg").sel(pattern="full")[0],
     near(1, 1e-3)),
    ("FedSUM-CR's vectors over FedSUM's, to 1e-6", "derived: 2 of 3 vectors are sent", "2/3",
     lambda r: over(jd.reach(r["patterns"], "error", 1e-6, "vectors"), "FedSUM-CR", "FedSUM"),
     near(2 / 3, 0.1)),
    ("linear speedup in n and K: largest E|∇F|² nK over the smallest", f"{PAPER}, as summarized",
     "1", lambda r: spread(r["speedup"].scaled, "case"), within_factor(1, 1.4), LATER),
    ("the stationary error grows with the delay: factor to the next longer one",
     f"{SUM}: constants of tau_max and tau_avg", "> 1",
     lambda r: successive(noise(r), "groups").min("groups"), above(1)),
    ("and as 1 + 2 tau_mean: fitted exponent", "derived, for small steps", "1",
     lambda r: exponent(r["delays"].age, noise(r), "groups"), near(1, 0.1), LATER),
)  # fmt: skip


def curves(pattern: str, methods: Any = tuple(METHODS), **options: Any) -> Lines:
    """Return the panel of the errors under one pattern."""
    at = {"pattern": pattern, "algorithm": methods}
    shown = {"ylabel": "distance  $|x - x^\\star|$", "ylim": (1e-14, 30), "floor": 1e-14}
    return Lines(data="patterns", at=at, y="error", title=TITLES[pattern], **shown | options)


MEAN_AGE = "1 + 2\\tau_{\\mathrm{mean}}"
BY_LAW: Any = {"by": "law", "ylabel": "stationary $E|\\nabla F(x)|^2$", "legend": "panel"}
PANELS = [
    [
        Heat(data=lambda r: final(r["patterns"]).clip(min=1e-14), x="algorithm", y="pattern",
             limits=(1e-14, 10), labels=TITLES, title="$|x - x^\\star|$ at the end"),
        curves("unequal"),
    ],
    [curves("markov"), curves("uniform", ("SCAFFOLD", *FEDSUM), x="vectors")],
    [
        LogLog(data=lambda r: r["delays"].error, x="age", ticks=False, xlabel=f"${MEAN_AGE}$",
               also=[slope(1, f"$\\propto {MEAN_AGE}$")],
               title="n = {}, K = {}".format(*DELAYED), **BY_LAW),
        LogLog(data=lambda r: r["speedup"].error.sortby("samples"), x="samples", xlabel="nK",
               also=[slope(-1, "$\\propto 1 / (nK)$")], title="speedup", **BY_LAW),
    ],
]  # fmt: skip
STUDY = Study(
    name="fedsum",
    paper=f"FedSUM (2025), {PAPER}",
    question="Is FedSUM exact under arbitrary participation, and what do delays cost it?",
    scales=SCALES,
    world=world,
    parts={
        "patterns": Part(
            "algorithm", noiseless, lambda d, *_: d.assign(error=np.sqrt(d.distance_squared))
        ),
        "delays": Part(None, delayed, by_law),
        "speedup": Part("case", speedup, with_sizes),
    },
    claims=CLAIMS,
    figures={"fedsum": Figure(PANELS, height=2.4)},
    tables={
        "errors": ("|x - x*|", lambda r: final(r["patterns"]).to_dataset("algorithm")),
        "delays": ("stationary errors", lambda r: r["delays"].mean("seed")),
        "speedup": ("stationary E|∇F|² nK", lambda r: r["speedup"][["scaled"]]),
    },
    minutes={"quick": 0.5, "default": 4, "full": 15},
)
