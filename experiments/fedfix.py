"""FedFix and other rules that aggregate before all clients return (arXiv 2206.10189), over time.

In the scenario F-80 visits of the clients take times spaced equally from 1 second to 0.2 (F-x: to
1 − x/100). A server waits for all (FedAvg) or for none (AsyncFedAvg), aggregates at ticks Δ
(FedFix) or as soon as c have returned (FedBuff; clients wait for the buffer, as in this paper, and
beside it never, as in arXiv 2106.06639). Expected weights, dᵢ = 1/(n φᵢ), φᵢ how often i is in an
aggregation, are equal; what others lead to is the study `fedbias`. Softmax regression of the
digits, split by Dirichlet(0.1) over 20 clients, ten local steps (*time*) or one (*single*) on
minibatches. Stability is the loss's standard deviation in the last half of runs that begin at the
solution.

What departs from the paper: convex problems and plain local steps in place of networks and
momentum, as in its theory. Stepsizes are compared as one for all and as each rule's own best, as we
do not know how the paper's were chosen; its claims are known from its abstract and authors' code.

Expected weights sum to one in every aggregation, so that with one η a rule that aggregates 41 times
a second takes 41 synchronous steps in that second. Around the solution the loss fluctuates with η
times aggregations a second, whatever the rule, up to a limit of stability, and there rules differ.
"""

import functools
import itertools
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

import jaxdopt as jd
from experiments.claims import above, claims
from experiments.measures import lasting, over
from experiments.panels import Dots, Figure, Lines, LogLog, present
from experiments.study import Part, Program, Results, Study, comparison

PAPER = "arXiv 2206.10189"
SYNC, ASYNC = "FedAvg", "AsyncFedAvg"
NEVER = "FedBuff 5, never waiting"  # of arXiv 2106.06639
TICKS = {"FedFix 0.2": 0.2, "FedFix 0.5": 0.5, "FedFix 0.8": 0.8}
RULES: dict[str, dict[str, Any]] = {
    SYNC: {"rule": "all"},
    ASYNC: {"rule": "each"},
    **{name: {"every": tick} for name, tick in TICKS.items()},
    **{f"FedBuff {size}": {"buffer": size} for size in (2, 5, 10, 1)},
    "FedFix 1": {"every": 1.0},
    NEVER: {"buffer": 5, "restart": "at once"},
}
FEDERATION, BATCH = 20, 8
SPLIT = 13  # the first seed of a Dirichlet(0.1) split with more than `BATCH` + 4 samples a client
TARGET, STAYS = 0.9, 5.0  # held-out accuracy, and the seconds for which it has to stay there
STABLE = 0.1  # mean gap of the last half, begun at the solution: accuracies are below 0.9 then
RESOLUTION = 0.5  # seconds between records, or an aggregation if that takes longer
GRID = tuple(2.0**j for j in range(-8, 3))
FEW = (SYNC, ASYNC, "FedFix 0.5")
TIMED = (SYNC, ASYNC, *TICKS, "FedBuff 5", "FedBuff 10", NEVER)
SINGLE = (FEW, (80,), [4 * eta for eta in GRID])
SCALES = {
    "quick": dict(timed=(FEW, (80,), (2.0**-6, 0.5, 2.0)), single=None, horizon=30.0, seeds=1),
    "default": dict(timed=(TIMED, (0, 80), GRID), single=SINGLE, horizon=60.0, seeds=3),
    "full": dict(timed=(TIMED, (0, 80), GRID), single=SINGLE, horizon=60.0, seeds=10),
}
"""``timed`` and ``single`` are rules, scenarios and stepsizes, ``horizon`` in seconds."""


@functools.cache
def arrivals(rule: str, n: int, percent: float, **until: Any) -> Any:
    """Return the arrivals of clients under a rule, in the scenario F-percent."""
    compute = np.linspace(1.0, 1 - percent / 100, n)
    return jd.networks.arrivals(n, compute=compute, **RULES[rule], **until)


def staleness(network: Any) -> np.ndarray:
    """Return how old all returns of a schedule were, in aggregations."""
    return np.asarray(network.staleness)[np.asarray(network.agents) < network.n]


@functools.cache
def digits() -> tuple[Any, Any]:
    """Return softmax regression of the digits over 20 clients, and its held-out accuracy."""
    train, test = jd.data.digits().split(0.2)
    features, held_out = (np.hstack([f, np.ones((len(f), 1))]) for f in (train[0], test[0]))
    options = {"partition": jd.partition.dirichlet(0.1, seed=SPLIT), "l2": 1e-3}
    problem = jd.problems.softmax_regression(features, train.labels, agents=FEDERATION, **options)
    return problem.solved(), jd.metrics.accuracy(held_out, test.labels)


def timed(world: Any, cases: Any, local_steps: int) -> dict[Any, Program]:
    """Return loss and accuracy by stepsize, seed and time, of rules, scenarios and starts."""
    (problem, accuracy), (rules, scenarios, grid), found = digits(), cases or ((), (), ()), {}
    starts = {"zero": problem.start(), "solution": problem.start(problem.unravel(problem.solution))}
    for percent, rule, start in itertools.product(scenarios, rules, starts):
        network = arrivals(rule, FEDERATION, percent, seconds=world.horizon)
        ticks = jd.FedFix if "every" in RULES[rule] else jd.AsyncFedAvg
        method = (jd.FedBuff if rule == NEVER else ticks)(0.1, local_steps=local_steps)
        facts = {"pace": network.horizon / world.horizon, "oldest": int(staleness(network).max())}
        every = max(1, round(facts["pace"] * RESOLUTION))
        found[percent, rule, start] = comparison(
            method,
            ("loss", "accuracy", *facts),
            reduce=partial(on_clock, world.horizon, facts),
            problem=jd.problems.Minibatch(problem, BATCH),
            networks=network,
            over={"stepsize": grid},
            seeds=range(world.seed, world.seed + world.seeds),
            x0=starts[start],
            metrics={"accuracy": accuracy},
            steps=network.horizon // every * every,
            every=every,
        )
    return found


def on_clock(horizon: float, facts: Any, dataset: xr.Dataset) -> xr.Dataset:
    """Return the last records of the server until every time, and facts."""
    now = dataset.seconds.isel(stepsize=0, seed=0).values
    clock = np.arange(0, horizon + RESOLUTION / 2, RESOLUTION)
    at = np.searchsorted(now, clock + 1e-3, side="right") - 1
    return dataset.isel(step=at).rename(step="time").assign_coords(time=clock).assign(facts)


def gaps(dataset: xr.Dataset, start: str) -> xr.DataArray:
    """Return F − F* over time of runs from a start."""
    return dataset.loss.sel(start=start, drop=True) - float(digits()[0].optimum)


def to_target(dataset: xr.Dataset) -> xr.DataArray:
    """Return seconds until the accuracy is at `TARGET` and stays, inf if never: the median seed."""
    below = -dataset[["accuracy"]].sel(start="zero", drop=True).rename(time="step")
    first = lasting(below, "accuracy", -TARGET, records=round(STAYS / RESOLUTION))
    return first.fillna(np.inf).median("seed").rename("seconds")


def own_best(dataset: xr.Dataset) -> xr.DataArray:
    """Return the stepsize with which a rule is first at the target, else ends lowest."""
    last = gaps(dataset, "zero").isel(time=-1, drop=True).mean("seed")
    late, first = 1e9 * (1 + last.fillna(np.inf).clip(max=1e6)), to_target(dataset)
    return dataset.stepsize.isel(stepsize=first.where(first < np.inf, late).argmin("stepsize"))


def stationary(dataset: xr.Dataset) -> xr.Dataset:
    """Return the gap and the loss's standard deviation in the last half, begun at the solution."""
    last = gaps(dataset, "solution").isel(time=slice(dataset.sizes["time"] // 2, None))
    spread = np.sqrt(last.var("time").mean("seed"))
    return xr.Dataset({"gap": last.mean(("time", "seed")), "std": spread})


def largest_stable(dataset: xr.Dataset) -> xr.DataArray:
    """Return the largest stepsize with which, begun at the solution, gaps stay below `STABLE`."""
    return dataset.stepsize.where(stationary(dataset).gap <= STABLE).max("stepsize")


def together(dataset: xr.Dataset) -> float:
    """Return the stepsize to compare all with: the largest that asynchronous FedAvg stands."""
    return float(largest_stable(dataset).sel(rule=ASYNC).isel(scenario=-1))


def halfway(dataset: xr.Dataset) -> xr.DataArray:
    """Return F − F* after half of the time with the stepsize `together`, begun at zero."""
    here = gaps(dataset, "zero").sel(stepsize=together(dataset), drop=True)
    return here.isel(time=here.sizes["time"] // 2, drop=True).mean("seed")


def waiting(results: Results, part: str = "time") -> xr.Dataset:
    """Return the last scenario, of all rules but `NEVER`."""
    return results[part].drop_sel(rule=NEVER, errors="ignore").isel(scenario=[-1])


def between(low: str, values: xr.DataArray, high: str) -> xr.DataArray:
    """Return factors above 1 where values lie between those of two rules, the smaller of both."""
    others = values.drop_sel(rule=[SYNC, ASYNC])
    above, below = others / values.sel(rule=low), values.sel(rule=high) / others
    return above.where(above < below, below)


def unstable(results: Results) -> xr.DataArray:
    """Return factors between standard deviations of the loss, all with one stepsize."""
    clock = waiting(results)
    spread = stationary(clock)["std"].sel(stepsize=together(clock), drop=True)
    return between(SYNC, spread, ASYNC)


def stable(results: Results) -> xr.DataArray:
    """Return the largest stable stepsizes of all but AsyncFedAvg over the synchronous one."""
    most = largest_stable(waiting(results))
    return most.drop_sel(rule=ASYNC) / most.sel(rule=SYNC, drop=True)


def quickest(results: Results, part: str = "time") -> xr.DataArray:
    """Return the seconds to the target of rules that wait, each with its own best η."""
    return to_target(waiting(results, part)).min("stepsize")


def later(part: str, results: Results) -> xr.DataArray:
    """Return other rules' seconds to the target over AsyncFedAvg's, each with its own best η."""
    first = quickest(results, part)
    return first.drop_sel(rule=ASYNC) / first.sel(rule=ASYNC, drop=True)


def gain(results: Results) -> float:
    """Return how many times as fast FedFix is as both others, each with its own best η."""
    first = quickest(results)
    fix = [rule for rule in first.rule.values if rule in TICKS]
    return float(first.sel(rule=[SYNC, ASYNC]).min() / first.sel(rule=fix).min())


def relief(results: Results) -> float:
    """Return by what factor AsyncFedAvg's seconds over FedAvg's fall from F-0 to F-80."""
    late = over(to_target(results["time"]).min("stepsize"), ASYNC, SYNC, "rule")
    return float(late.sel(scenario=present(late, "scenario", 0)) / late.sel(scenario=80))


ABSTRACT, FAST = f"{PAPER}, abstract", "fast convergence"
FASTEST = "AsyncFedAvg is the fastest at its best η: others' seconds / its"
CLAIMS = claims(
    ("one η, gaps: AsyncFedAvg < others < FedAvg, factor", ABSTRACT, FAST,
     lambda r: between(ASYNC, halfway(waiting(r)), SYNC), above(1)),
    ("one η, std: FedAvg < others < AsyncFedAvg", ABSTRACT, "less stable", unstable, above(1)),
    ("largest stable η over FedAvg's: the others", ABSTRACT, "as stable as FedAvg", stable,
     above(1)),
    (FASTEST, ABSTRACT, FAST, partial(later, "time"), above(1)),
    (f"{FASTEST}, one local step", ABSTRACT, FAST, partial(later, "single"), above(1)),
    ("FedFix over both, each with its best η", ABSTRACT, "improves on both", gain, above(1.1)),
    ("AsyncFedAvg's seconds / FedAvg's: F-0 over F-80", "derived", "> 1", relief, above(1)),
)  # fmt: skip


def noise(results: Results) -> xr.DataArray:
    """Return the loss's standard deviation over η times aggregations a second: rule."""
    clock = results["time"].isel(scenario=-1, drop=True)
    return stationary(clock)["std"].assign_coords(speed=clock.stepsize * clock.pace[..., 0])


def paths(results: Results) -> xr.Dataset:
    """Return F − F* over time in F-80, all with one η."""
    here = gaps(results["time"].isel(scenario=-1, drop=True), "zero")
    here = here.sel(stepsize=together(results["time"]), drop=True)
    return here.rename(time="step").to_dataset(name="gap")


def seconds(results: Results) -> xr.DataArray:
    """Return the seconds to the target, each with its own best η: scenario, rule."""
    first = to_target(results["time"]).min("stepsize").rename("seconds")
    return first.assign_coords(scenario=[f"F-{percent}" for percent in first.scenario.values])


def time_table(results: Results) -> xr.Dataset:
    """Return seconds to the target and stability at a rule's own best η: scenario, rule."""
    clock, first = results["time"], to_target(results["time"])
    best = own_best(clock).drop_vars("stepsize")
    columns = {
        "best η": best,
        "stable to η": largest_stable(clock),
        "std": stationary(clock)["std"].sel(stepsize=best).drop_vars("stepsize"),
        "aggregations/s": clock.pace[..., 0].drop_vars("start"),
        f"seconds to {TARGET:g}": first.min("stepsize"),
    }
    return xr.Dataset(columns)


SHOWN: Any = {"rule": (SYNC, ASYNC, "FedFix 0.2", "FedFix 0.5", "FedBuff 5", NEVER)}
PANELS = [
    LogLog(data=noise, x="speed", by="rule", at=SHOWN, ticks=False, title="F-80, around $x^\\star$",
           xlabel="η times aggregations a second", ylabel="standard deviation of F"),
    Lines(data=paths, x="step", at=SHOWN, logx=True, title="F-80: one η for all",
          xlabel="simulated seconds", ylabel=r"$F(x) - F^\star$"),
    Dots(data=seconds, x="scenario", by="rule", at=SHOWN, logy=False, title="own best η",
         ylabel=f"seconds to accuracy {TARGET:g}"),
]  # fmt: skip
CLOCK = ("scenario", "rule", "start")
STUDY = Study(
    name="fedfix",
    paper=f"FedFix: Fraboni, Vidal, Kameni, Lorenzi (2022), {PAPER}",
    question="How much sooner is a server at its target that does not wait for all clients?",
    scales=SCALES,
    parts={
        "time": Part(CLOCK, lambda world, _: timed(world, world.timed, 10)),
        "single": Part(CLOCK, lambda world, _: timed(world, world.single, 1)),
    },
    claims=CLAIMS,
    figures={"fedfix": Figure([PANELS], height=2.7)},
    tables={"time": ("own best η", time_table)},
    minutes={"quick": 0.7, "default": 6, "full": 20},
    data=lambda _: "scikit-learn's handwritten digits, 64 pixels, 20 clients, Dirichlet(0.1)",
)
