"""Which measure of heterogeneity does FedAvg's bias depend on (arXiv 2301.12677)?

The general variance condition is E|gᵢ(x) − ∇fᵢ(x)|² ≤ C (fᵢ(x) − fᵢ*) + σ², and heterogeneity is
σ_f* = F* − (1/n) Σᵢ fᵢ*, without a bound on how much gradients differ. *digits*: softmax
regression, from sorted to shuffled. *measures*: which measure orders the biases of many least
squares problems. *conditions*: the condition with the C and σ² of `jd.problems.general_variance`,
along the digits' iterates and those of *walks*, with one sample a step. Stepsizes are α, and a
client takes Q = 10 local steps a round. All in float64.

The condition and σ_f* are from memory, the paper's experiments are not known to us; the rest is
derived. A limit x with all clients, full gradients and αL ≤ 2 has ∇F(x) =
−(1/nQ) Σᵢ Σₗ (∇fᵢ(yᵢₗ) − ∇fᵢ(x)). Convex fᵢ have gradients that do not grow along local steps, so
|∇F(x)| ≤ αL(Q − 1)/2 · (1/n) Σᵢ |∇fᵢ(x)|, and as |∇fᵢ|² ≤ 2L (fᵢ − fᵢ*)

    |∇F(x)|² ≤ ½ (αL(Q − 1))² L (F(x) − F* + σ_f*).

Clients with one Hessian have no bias. ζ² = mean|∇fᵢ(x*)|² ≤ 2L σ_f* bounds that of quadratics as
well, to first order in α: what σ_f* replaces is a bound on gradients' differences at all x.
"""

import itertools
from functools import cache, partial
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from scipy.stats import spearmanr

import jaxdopt as jd
from experiments import fedavg
from experiments.claims import above, below, claims
from experiments.fedavg import STEADY, SYNTHETIC, histories, regression
from experiments.measures import successive
from experiments.panels import REFERENCE, Figure, Heat, LogLog
from experiments.study import Part, Program, Results, Study

PAPER = "arXiv 2301.12677"
DIGITS_CLIENTS, BATCH, L2 = 20, 10, 1e-2
IMAGES = "1,360 of scikit-learn's handwritten digits, 64 pixels, 20 clients"
DIGITS_STEPS = (0.05, 10)  # α (αL = 0.34) and Q
SHARDS = {"sorted": 1, "2 shards": 2, "4 shards": 4, "shuffled": 0}
MEASURES = {"measure": "σ_f*", "at_solution": "ζ² at x*", "at_start": "ζ² at the start"}
LONG = {"digits": 1000, "measures": 1000, "walks": 800}
SHORT = {"digits": 100, "measures": 400, "walks": 200}
# The ways to deal the digits out; rounds of parts; draws of the many problems.
SCALES = {
    "quick": {"deals": ("sorted", "shuffled"), "rounds": SHORT, "draws": 1},
    "default": {"deals": tuple(SHARDS), "rounds": LONG, "draws": 1},
    "full": {"deals": tuple(SHARDS), "rounds": LONG | {"digits": 4000}, "draws": 4},
}
STEADILY = jd.FedAvg(STEADY[0], local_steps=STEADY[1])


@cache
def digits(seed: int = 0) -> tuple[dict[str, Any], Any]:
    """Return softmax regressions, one for each way to deal the digits out, and their accuracy."""
    train, held_out = jd.data.digits().split(0.2, seed)
    whole = DIGITS_CLIENTS * max(SHARDS.values())
    even = len(train.labels) // whole * whole  # so that F is the same however they are dealt out
    kept, kind = (train.features[:even], train.labels[:even]), jd.problems.softmax_regression
    made = {}
    for name, shards in SHARDS.items():
        partition = jd.partition.by_label(shards) if shards else jd.partition.iid()
        made[name] = kind(*kept, agents=DIGITS_CLIENTS, l2=L2, partition=partition)
    return made, jd.metrics.accuracy(*held_out)


@jax.jit
def dissimilarity(problem: Any, x: jax.Array) -> jax.Array:
    """Return (1/n) Σᵢ |∇fᵢ − ∇F|² at x [d]."""
    gradients = problem.grad(jnp.broadcast_to(x, (problem.n, problem.d)))
    return jnp.mean(jnp.sum((gradients - gradients.mean(axis=0)) ** 2, axis=1))


def measured(problem: Any) -> dict[str, float]:
    """Return σ_f*, ζ² at the solution and at the start, and L."""
    squares = [float(dissimilarity(problem, x)) for x in (problem.solution, problem.origin)]
    own = (fedavg.sigma_f(problem), *squares, float(problem.smoothness))
    return dict(zip((*MEASURES, "L"), own, strict=True))


def many(world: Any) -> list[tuple[Any, ...]]:
    """Return the arguments of many synthetic problems."""
    scales, seeds = ((1.0, 0.0), (10.0, 1.0)), range(world.draws)
    parts = itertools.product((0.0, 0.01, 0.1, 1.0), (0.0, 0.2, 0.9), scales, seeds, (False, True))
    return [(shift, spread, *scale, *rest) for shift, spread, scale, *rest in parts]


def problems(part: str, world: Any) -> list[Any]:
    """Return many synthetic problems, or the digits' partitions."""
    if part == "digits":
        return [digits(world.seed)[0][name] for name in world.deals]
    return [regression(*case) for case in many(world)]


def with_bias(part: str, dim: str, steps: Any, dataset: Any, world: Any, _: Any) -> xr.Dataset:
    """Add measures of heterogeneity, and the bias with constant steps: |∇F|² / (½ (αL(Q − 1))² L).

    ``used`` is its share of its bound F − F* + σ_f*.
    """
    rows = [measured(problem) for problem in problems(part, world)]
    dataset = dataset.assign({name: (dim, [row[name] for row in rows]) for name in rows[0]})
    last = dataset.isel(step=-1, drop=True)
    last = last.sel(schedule="constant", drop=True) if "schedule" in last.dims else last
    unit = (steps[0] * last.L * (steps[1] - 1)) ** 2 * last.L / 2
    bias = last.gradient_norm_squared / unit
    return dataset.assign(bias=bias, used=bias / (last.gap + last.measure))


def dealt(world: Any, _: Any) -> dict[str, Program]:
    """Return the digits with full gradients: partition, schedule."""
    rounds = world.rounds["digits"]
    over = {"problem": ("partition", world.deals)} | fedavg.SCHEDULED
    methods = fedavg.schedules(DIGITS_STEPS[0], rounds / 10, DIGITS_STEPS[1])
    return {"": histories(problems("digits", world), methods, rounds, 50, over)}


def scatter(world: Any, _: Any) -> dict[str, Program]:
    """Return constant steps and full gradients on many problems: case."""
    made, rounds = problems("measures", world), world.rounds["measures"]
    return {"": histories(made, STEADILY, rounds, 1, {"problem": ("case", range(len(made)))})}


def walks(world: Any, _: Any) -> dict[str, Program]:
    """Return constant steps with one sample each: problem."""
    noisy = [jd.problems.Minibatch(regression(*case), 1) for case in SYNTHETIC.values()]
    key = jax.random.split(jax.random.key(world.seed), 1)[0]
    over = {"problem": ("problem", list(SYNTHETIC))}
    return {"": histories(noisy, STEADILY, world.rounds["walks"], 40, over, key=key)}


def condition(problem: Any, batch: int, points: np.ndarray) -> dict[str, Any]:
    """Return C and σ² for minibatches, and the largest use of bounds along points [r, d].

    Those are a client's variance over C (fᵢ − fᵢ*) + σ², the same of the means over clients, and
    mean|∇fᵢ|² over 2L (F − F* + σ_f*). Where a bound is 0 up to rounding, nothing is divided.
    """
    noisy = [jd.problems.Minibatch(problem.take(jnp.array([i])), batch) for i in range(problem.n)]
    own = [jd.problems.general_variance(client) for client in noisy]
    least = np.array([client.sigma_squared / client.C for client in own])  # as σᵢ² is Cᵢ fᵢ*
    factor = max(client.C for client in own)
    floor = factor * max(least)  # both as `general_variance` has them for all clients

    @jax.jit
    def at(x: jax.Array) -> tuple[jax.Array, ...]:  # variances of one sample's gradient: [n]
        rows, numbers = jnp.broadcast_to(x, (problem.n, problem.d)), jnp.arange(problem.most)
        each = jax.lax.map(lambda j: problem.grad_at(rows, jnp.full(problem.n, j)), numbers)
        mean = each.mean(axis=0)
        values = jax.vmap(lambda i: problem.take(i[None]).objective(x))(jnp.arange(problem.n))
        return ((each - mean) ** 2).sum(2).mean(0), values, (mean**2).sum(1)

    variances, values, squares = map(np.asarray, jax.lax.map(at, jnp.asarray(points)))
    variances, bounds = variances / batch, factor * (values - least) + floor
    mean = 2 * float(problem.smoothness) * (values - least).mean(axis=1)
    parts = {"client": (variances, bounds), "mean": (variances.mean(axis=1), bounds.mean(axis=1))}
    parts |= {"gradients": (squares.mean(axis=1), mean)}
    used = {
        name: np.max(np.where(bound > 1e-20, part / np.maximum(bound, 1e-20), 0))
        for name, (part, bound) in parts.items()
    }
    return {"C": factor, "sigma_squared": floor, **used}


def conditions(world: Any, done: Results) -> dict[str, Program]:
    """Return the condition's numbers of all problems, along runs with constant steps."""
    noisy = done["walks"].x
    smooth = done["digits"].x.sel(schedule="constant").isel(step=slice(None, None, 5))
    cases = {
        name: {"problem": regression(*case), "batch": 1, "points": noisy.sel(problem=name).values}
        for name, case in SYNTHETIC.items()
    }
    for name, problem in zip(world.deals, problems("digits", world), strict=True):
        points = smooth.sel(partition=name).values
        cases[f"digits, {name}"] = {"problem": problem, "batch": BATCH, "points": points}
    return {at: Program(arguments, function=condition) for at, arguments in cases.items()}


def unbiased(results: Results) -> float:
    """Return the largest |∇F| at the end where σ_f* = 0."""
    last = results["measures"].isel(step=-1)
    return float(np.sqrt(last.gradient_norm_squared.where(last.measure == 0)).max())


def bounded(results: Results) -> xr.DataArray:
    """Return the largest share of the bound on |∇F|² that is used, where σ_f* > 0: part."""
    parts = [results[name] for name in ("measures", "digits")]
    used = [own.used.where(own.measure > 0).max() for own in parts]
    return xr.DataArray(used, {"part": ["measures", "digits"]}, "part")


def shares(results: Results) -> xr.DataArray:
    """Return the largest use of the condition's bounds: bound, problem."""
    return results["conditions"][["client", "mean", "gradients"]].to_array("bound")


def differ(results: Results) -> xr.DataArray:
    """Return whether the Hessians of the many problems differ."""
    return xr.DataArray([case[1] > 0 for case in many(results.world)], dims="case")


def ranks(results: Results) -> xr.Dataset:
    """Return Spearman's correlations of biases and measures, if σ_f* > 0 and Hessians differ."""
    found = results["measures"].isel(step=-1)
    kept = found.isel(case=np.flatnonzero(differ(results) & (found.measure > 0)))
    found = [spearmanr(kept.gradient_norm_squared, kept[name])[0] for name in MEASURES]
    return xr.Dataset({"correlation": ("measure", found)}, {"measure": list(MEASURES.values())})


def ahead(other: str, results: Results) -> float:
    """Return by how much σ_f* orders biases better than another measure does."""
    found = ranks(results).correlation
    return float(found.sel(measure="σ_f*") - found.sel(measure=other))


_, END, START = MEASURES.values()
BOUNDS = f"{PAPER}: form from memory, constants derived"
NO_BOUND = f"{PAPER}, abstract: no bound on it"
USED = "|∇F|² / (½ (αL(Q − 1))² L (F − F* + σ_f*))"
MORE = "σ_f* orders biases, more than"
CLAIMS = claims(
    ("no bias where σ_f* = 0: |∇F|", "derived", "0", unbiased, below(fedavg.EXACT)),
    ("digits: |∇F|² grows with σ_f*, factors", "asked here", "> 1",
     lambda r: successive(r["digits"].sel(schedule="constant").isel(step=-1).sortby("measure")
                          .gradient_norm_squared, "partition").min(), above(1)),
    (USED, "derived", "≤ 1", bounded, below(1)),
    (f"{MORE} {START}", NO_BOUND, "> 0", partial(ahead, START), above(0.05)),
    (f"{MORE} {END}", "asked here", "> 0", partial(ahead, END), above(0.05)),
    ("variances, |∇fᵢ|²: shares of the condition's bounds", BOUNDS, "≤ 1", shares, below(1)),
)  # fmt: skip


def clouds(name: str, results: Results) -> xr.DataArray:
    """Return biases over one measure of heterogeneity, zeros at the edges: kind, case."""
    many, deals = results["measures"], results["digits"].rename(partition="case")
    kinds = {"Hessians differ": many.where(differ(results))}
    kinds |= {"one Hessian": many.where(~differ(results))}
    kinds |= {"digits": deals.assign_coords(case=range(deals.sizes["case"]))}
    index: Any = xr.DataArray(list(kinds), dims="kind", name="kind")
    both = [own.bias.assign_coords({name: own[name].clip(min=3e-6)}) for own in kinds.values()]
    return xr.concat(both, index, join="outer").clip(min=1e-10)


BOUND = ([3e-6, 1], [3e-6, 1])  # of the bias at σ_f*, but for F − F*
TITLES = {"measure": "Q = 10 local steps", "at_start": "zeros lie at the edges"}
NORM = r"$|\nabla F|^2\ /\ \frac{1}{2}(\alpha L(Q-1))^2 L$"
CLOUDS = [
    LogLog(data=partial(clouds, name), x=name, by="kind", joined=False, hollow=("one Hessian",),
           xlabel=label.replace("σ_f*", r"$\sigma_f^\star$").replace("x*", r"$x^\star$"),
           ticks=False, ylabel=NORM, title=TITLES.get(name, ""), also=[
               lambda ax, _: ax.plot(*BOUND, label=r"bound $\sigma_f^\star$", **REFERENCE)
           ] * (name == "measure"))
    for name, label in MEASURES.items()
]  # fmt: skip
ON_DIGITS = fedavg.over_time(
    "digits", "gradient_norm_squared", r"$|\nabla F(x)|^2$", "digits, 10 local steps", split=True
)
BARS = {"client": "variance", "mean": "mean variance", "gradients": r"mean $|\nabla f_i|^2$"}
SHARES = Heat(data=shares, x="bound", y="problem", form=".2f", limits=(0, 1), log=False,
              labels=BARS, title="largest shares of bounds")  # fmt: skip
STUDY = Study(
    name="heterogeneity",
    paper=f"FedAvg under the general variance condition (2023), {PAPER}",
    question="Is σ_f* the measure of heterogeneity that FedAvg's bias depends on?",
    scales=SCALES,
    world=lambda sizes, seed: SimpleNamespace(seed=seed, **sizes),
    parts={
        "digits": Part(None, dealt, partial(with_bias, "digits", "partition", DIGITS_STEPS)),
        "measures": Part(None, scatter, partial(with_bias, "measures", "case", STEADY)),
        "walks": Part(None, walks),
        "conditions": Part("problem", conditions),
    },
    claims=CLAIMS,
    figures={
        "heterogeneity": Figure([CLOUDS], height=2.4, sharey=True),
        "conditions": Figure([[ON_DIGITS, SHARES]], height=2.7),
    },
    tables={
        "conditions": ("constants, largest use of bounds", lambda r: r["conditions"]),
        "measures": ("which measure orders biases", ranks),
    },
    minutes={"quick": 0.3, "default": 1.5, "full": 8},
    data=lambda _: f"least squares; {IMAGES}",
)
