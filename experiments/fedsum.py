"""FedSUM and others under arbitrary participation (arXiv 2512.18275).

Twelve clients with different quadratics, five local steps, a constant stepsize, and seven patterns
of participation: full, uniform, unequal probabilities, cyclic, reshuffled cyclic, one rare client,
and Markov chains. Three questions:

* *patterns*: without noise, which methods reach the solution under which pattern, and how far away
  do the others end?
* *delays*: with noise, how does FedSUM's stationary error grow with how long clients stay away? For
  cyclic groups and for uniform subsets of 16 clients. What a client has sent counts in D rounds, D
  the time between two of its rounds, so for small steps the noise should be larger by E D² / E D,
  and that is 1 + 2 τ_mean.
* *speedup*: is its stationary error, times nK, the same for all numbers n of clients and K of local
  steps at the same total step ηK? For three laws of participation.

Everything in float64. All methods have the same total step ηK L = 0.1 of a round; FedSUM-B, which
takes no local steps, has it as its stepsize. Errors are |x − x*|, root mean squares over the last
tenth of the rounds, as FedAvg keeps moving where participation is random. Ages are 0 in a round in
which a client takes part (the paper's convention may be 1: then all are larger by 1), and all
clients count as having taken part in round −1.

FedSUM's listings are derived from what is published about it and not read in the paper, FedSUM-CR's
with the least confidence; the paper's own experiments, with convolutional networks on MNIST, SVHN
and CIFAR-10, are not reproduced. Its claims can be tested: exactness under arbitrary participation,
without bounds on heterogeneity; linear speedup; and a price in delay. MIFA and FedVARP remove the
bias of participation, not the drift of local steps: they end where FedAvg with all clients does.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import xarray as xr

import jaxdopt as jd
from experiments.claims import Claim, above, below, near, within_factor
from experiments.measures import exponent, over, spread
from experiments.panels import Figure, Heat, Lines, LogLog, present, slope
from experiments.study import Axis, Part, Program, Results, Study
from jaxdopt.networks import participation

PAPER = "arXiv 2512.18275"
CLIENTS, DIMENSION, LOCAL_STEPS, TOTAL = 12, 10, 5, 0.1  # the total is ηK L, of a round
EXACT = 1e-9  # |x − x*| up to which a method counts as exact
EVERY = 25  # rounds to a record: odd, to meet all groups of a cycle
NOISE = 1.0  # σ of every client's gradient
NOISY = {"d": 5, "condition_number": 5.0, "heterogeneity": 0.5, "curvature_spread": 0.3}
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
CORRECTED = ["SCAFFOLD", "FedSUM-B", "FedSUM", "FedSUM-CR"]
TITLES = {
    "full": "all clients",
    "uniform": "uniform, 3 of 12",
    "unequal": "probabilities 0.1 to 0.9",
    "cyclic": "cyclic, 4 groups",
    "reshuffled": "reshuffled cyclic",
    "rare": "one client in 1 of 20",
    "markov": "Markov chains",
}
QUADRATICS = {"heterogeneity": 1.0, "curvature_spread": 0.5}
DISTANCE = "distance  $|x - x^\\star|$"


def sizes(methods: Any, groups: Any, cases: Any, rounds: Any, seeds: int) -> Any:
    """Return how much is run: delays, pairs of n and K, rounds without and with noise."""
    return SimpleNamespace(**locals())


CASES = ((4, 1), (16, 1), (64, 1), (16, 4), (16, 16))
GROUPS = (1, 2, 4, 8, 16)
SCALES = {
    "quick": sizes(("FedAvg", "FedSUM", "FedSUM-CR"), (1, 16), ((4, 1), (4, 4)), (3000, 1000), 2),
    "default": sizes(METHODS, GROUPS, CASES, (5000, 8000), 6),
    "full": sizes(METHODS, GROUPS, CASES, (5000, 40_000), 8),
}


@dataclasses.dataclass(frozen=True)
class World:
    """The sizes and the seed, and the problems."""

    sizes: Any
    seed: int

    @functools.cached_property
    def problem(self) -> Any:
        """Twelve quadratics with different Hessians and minimizers, L = 1 for the largest."""
        make = functools.partial(
            jd.problems.quadratic, CLIENTS, DIMENSION, **QUADRATICS, seed=self.seed
        )
        return make(smoothness=1 / float(make().smoothness))

    def noisy(self, n: int) -> Any:
        """Return noisy quadratics of n clients, L about 1."""
        return jd.problems.GaussianNoise(jd.problems.quadratic(n, **NOISY, seed=self.seed), NOISE)

    @functools.cached_property
    def patterns(self) -> tuple[Any, list[str]]:
        """The seven patterns, stacked, and their names."""
        n, rounds, key = CLIENTS, self.sizes.rounds[0], jax.random.key(self.seed)
        made = {
            "full": participation.full(n),
            "uniform": participation.uniform(n, 3),
            "unequal": participation.bernoulli(np.linspace(0.1, 0.9, n)),
            "cyclic": participation.cyclic(n, 4),
            "reshuffled": participation.reshuffled_cyclic(n, 4),
            "rare": participation.rare(n, 20),
            "markov": participation.markov(n, 0.1, 0.05, steps=rounds, key=key),
        }
        return traces(list(made.values()), rounds, self.seed), list(made)

    @functools.cached_property
    def groups(self) -> tuple[Any, list[tuple[str, int]]]:
        """Cyclic groups and uniform subsets of 16 clients, stacked, and their labels."""
        n = DELAYED[0]
        made = {("cyclic", m): participation.cyclic(n, m) for m in self.sizes.groups}
        made |= {("uniform", m): participation.uniform(n, n // m) for m in self.sizes.groups}
        return traces(list(made.values()), self.sizes.rounds[1], self.seed), list(made)


def traces(networks: Sequence[Any], rounds: int, seed: int = 0) -> Any:
    """Return patterns as a stack of tables, so that one program serves all of them."""
    key = jax.random.key(seed)
    rows = jnp.stack([participation.active(network, rounds, key) for network in networks])
    return participation.Trace(rows, networks[0].n)


def with_delays(dataset: xr.Dataset, dim: str, stacked: Any) -> xr.Dataset:
    """Add every pattern's tau_max, tau_avg and tau_mean along ``dim``."""
    delays = [participation.delay_metrics(np.asarray(rows)) for rows in stacked.rows]
    return dataset.assign(
        {name: (dim, [getattr(d, name) for d in delays]) for name in participation.Delays._fields}
    )


def noiseless(world: World, _: Any) -> dict[str, Program]:
    """Return every method's run under all patterns, without noise."""
    networks, names = world.patterns
    shared = {
        "problem": world.problem,
        "network": networks,
        "x0": world.problem.start(),
        "key": jax.random.key(world.seed),
        "steps": world.sizes.rounds[0],
        "every": EVERY,
    }
    found = {}
    for name in world.sizes.methods:
        stepsize = TOTAL / (1 if name == "FedSUM-B" else LOCAL_STEPS)
        method = METHODS[name](stepsize, local_steps=LOCAL_STEPS)
        found[name] = Program(shared | {"algorithm": method}, {"network": Axis("pattern", names)})
    return found


def with_errors(dataset: xr.Dataset, world: World, _: Any) -> xr.Dataset:
    """Add |x − x*|, and the patterns' delays."""
    dataset = with_delays(dataset, "pattern", world.patterns[0])
    return dataset.assign(error=np.sqrt(dataset.distance_squared))


def stationary(world: World, networks: Any, labels: Axis, n: int, local_steps: int) -> Program:
    """Return FedSUM's E|∇F|² on every network, from the solution on: network, seed."""
    problem, rounds, seeds = world.noisy(n), world.sizes.rounds[1], world.sizes.seeds
    return Program(
        {
            "algorithm": jd.FedSUM(TOTAL / local_steps, local_steps=local_steps),
            "problem": problem,
            "network": networks,
            "x0": problem.start(problem.solution),
            "key": jax.random.split(jax.random.key(world.seed), seeds),
            "steps": rounds,
            "every": rounds // 200,
        },
        {"network": labels, "key": Axis("seed", range(seeds))},
        reduce=lambda dataset: (
            dataset[["gradient_norm_squared"]]
            .rename(gradient_norm_squared="error")
            .isel(step=slice(dataset.sizes["step"] // 5, None))
            .mean("step")
        ),
    )


def delayed(world: World, _: Any) -> dict[str, Program]:
    """Return the one program of all delays."""
    stacked, members = world.groups
    return {"": stationary(world, stacked, Axis("member", range(len(members))), *DELAYED)}


def by_law(dataset: xr.Dataset, world: World, _: Any) -> xr.Dataset:
    """Return the errors and the delays over law and groups (1/groups of the clients take part)."""
    stacked, members = world.groups
    dataset = with_delays(dataset, "member", stacked)
    index = pd.MultiIndex.from_tuples(members, names=["law", "groups"])
    dataset = dataset.assign_coords(xr.Coordinates.from_pandas_multiindex(index, "member"))
    dataset = dataset.unstack("member")
    return dataset.assign_coords(age=1 + 2 * dataset.tau_mean)


def speedup(world: World, _: Any) -> dict[str, Program]:
    """Return a program for each pair of n and K, over the laws of participation."""
    found = {}
    for n, local_steps in world.sizes.cases:
        chances = np.stack([np.linspace(*bounds, n) for bounds in LAWS.values()])
        networks = jax.vmap(participation.bernoulli)(jnp.asarray(chances))
        found[f"{n} x {local_steps}"] = stationary(
            world, networks, Axis("law", list(LAWS)), n, local_steps
        )
    return found


def with_sizes(dataset: xr.Dataset, world: World, _: Any) -> xr.Dataset:
    """Add n, K and the error times nK."""
    n, local_steps = np.array(world.sizes.cases).T
    dataset = dataset.assign_coords(
        n=("case", n), K=("case", local_steps), samples=("case", n * local_steps)
    )
    return dataset.assign(scaled=dataset.error.mean("seed") * dataset.samples)


def final(dataset: xr.Dataset) -> xr.DataArray:
    """Return errors over the last tenth of the rounds, root mean squares."""
    last = dataset.distance_squared.isel(step=slice(-(dataset.sizes["step"] // 10), None))
    return np.sqrt(last.mean("step"))


def ended(*names: str) -> Callable[[Results], xr.DataArray]:
    """Return the measure of methods' final errors by pattern."""

    def measure(results: Results) -> xr.DataArray:
        errors = final(results["patterns"])
        return errors.sel(algorithm=present(errors, "algorithm", names))

    return measure


def over_average(results: Results) -> xr.DataArray:
    """Return MIFA's and FedVARP's final errors over FedAvg's with all clients."""
    average = final(results["patterns"]).sel(algorithm="FedAvg", pattern="full", drop=True)
    return ended("MIFA", "FedVARP")(results) / average


def growth(results: Results) -> xr.DataArray:
    """Return the smallest factor by which the error grows from one delay to the next, by law."""
    error = results["delays"].error.mean("seed")
    return (error.shift(groups=-1) / error).min("groups")


CLAIMS = [
    Claim(
        "FedSUM, -B and -CR reach the solution under all patterns: |x − x*|",
        f"{PAPER}, abstract",
        "0",
        ended("FedSUM", "FedSUM-B", "FedSUM-CR"),
        below(EXACT),
    ),
    Claim("so does SCAFFOLD", "arXiv 1910.06378", "0", ended("SCAFFOLD"), below(EXACT)),
    Claim(
        "FedAvg does not, under any pattern",
        "derived: drift of local steps",
        "> 0",
        ended("FedAvg"),
        above(1e-4),
    ),
    Claim(
        "MIFA and FedVARP end where FedAvg with all clients does: ratio of errors",
        "derived: participation is corrected, drift is not",
        "1",
        over_average,
        near(1, 1e-3),
    ),
    Claim(
        "FedSUM-CR's vectors over FedSUM's, to 1e-6",
        "derived: 2 of 3 vectors are sent",
        "2/3",
        lambda r: over(jd.reach(r["patterns"], "error", 1e-6, "vectors"), "FedSUM-CR", "FedSUM"),
        near(2 / 3, 0.1),
    ),
    Claim(
        "linear speedup in n and K: largest E|∇F|² nK over the smallest",
        f"{PAPER}, as summarized",
        "1",
        lambda results: spread(results["speedup"].scaled, "case"),
        within_factor(1, 1.4),
        scales=("default", "full"),
    ),
    Claim(
        "the stationary error grows with the delay: factor to the next longer one",
        f"{PAPER}, abstract: constants of tau_max and tau_avg",
        "> 1",
        growth,
        above(1),
    ),
    Claim(
        "and as 1 + 2 tau_mean: fitted exponent",
        "derived, for small steps",
        "1",
        lambda results: exponent(
            results["delays"].age, results["delays"].error.mean("seed"), "groups"
        ),
        near(1, 0.1),
        scales=("default", "full"),
    ),
]


def curves_under(
    pattern: str, methods: Any = tuple(METHODS), ylabel: str = DISTANCE, **options: Any
) -> Lines:
    """Return the panel of the errors under one pattern."""
    return Lines(
        data="patterns",
        at={"pattern": pattern, "algorithm": methods},
        y="error",
        floor=1e-14,
        title=TITLES[pattern],
        ylim=(1e-14, 30),
        ylabel=ylabel,
        **options,
    )


AGED: dict[str, Any] = {"x": "age", "ticks": False, "xlabel": "$1 + 2\\tau_{\\mathrm{mean}}$"}
NOISE_PANEL: dict[str, Any] = {
    "by": "law",
    "ylabel": "stationary $E|\\nabla F(x)|^2$",
    "legend": "panel",
}
PANELS = [
    [
        Heat(
            data=lambda results: final(results["patterns"]).clip(min=1e-14),
            x="algorithm",
            y="pattern",
            limits=(1e-14, 10),
            labels=TITLES,
            title="$|x - x^\\star|$ at the end",
        ),
        curves_under("unequal"),
        curves_under("markov", ylabel=""),
    ],
    [
        curves_under("uniform", CORRECTED, x="vectors"),
        LogLog(
            data=lambda results: results["delays"].error,
            also=[slope(1, "$\\propto 1 + 2\\tau_{\\mathrm{mean}}$")],
            title="n = {}, K = {}".format(*DELAYED),
            **AGED | NOISE_PANEL,
        ),
        LogLog(
            data=lambda results: results["speedup"].error.sortby("samples"),
            x="samples",
            xlabel="nK",
            also=[slope(-1, "$\\propto 1 / (nK)$")],
            title="speedup",
            **NOISE_PANEL,
        ),
    ],
]


STUDY = Study(
    name="fedsum",
    paper="FedSUM (2025), arXiv 2512.18275",
    question="Is FedSUM exact under arbitrary participation, and what do delays cost it?",
    scales=SCALES,
    world=World,
    parts={
        "patterns": Part("algorithm", noiseless, with_errors),
        "delays": Part(None, delayed, by_law),
        "speedup": Part("case", speedup, with_sizes),
    },
    claims=CLAIMS,
    figures={"fedsum": Figure(PANELS, height=2.6)},
    tables={
        "errors": ("|x - x*|", lambda results: final(results["patterns"]).to_dataset("algorithm")),
        "delays": ("stationary errors", lambda results: results["delays"].mean("seed")),
        "speedup": ("stationary E|∇F|² nK", lambda results: results["speedup"][["scaled"]]),
    },
    minutes={"quick": 0.5, "default": 4, "full": 15},
)
