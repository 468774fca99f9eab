"""FedFix and other rules that aggregate before all clients return (arXiv 2206.10189), over time.

Clients of unequal speeds. In the scenario F-80 their visits take times spaced equally from 1 second
to 0.2 (F-x: to 1 − x/100). A server waits for all (FedAvg) or for none (AsyncFedAvg), aggregates at
ticks Δ (FedFix) or as soon as c have returned (FedBuff; clients wait for the buffer, as in this
paper). With dᵢ = 1/(n φᵢ), φᵢ how often i is in an aggregation, expected weights are equal. What
other weights lead to is the study `fedbias`. FedBuff of arXiv 2106.06639 (no client waits, weights
1/√(1 + t)) is beside the rules.

Softmax regression of the digits, split by Dirichlet(0.1) over 20 clients, ten local steps (*time*)
or one (*single*) on minibatches, simulated seconds in F-0 and F-80. Stability is the loss's
standard deviation in the last half of runs that begin at the solution.

What departs from the paper: convex problems and plain local steps in place of networks and
momentum, as in its theory. Stepsizes are compared as one for all and as each rule's own best, as we
do not know how the paper's were chosen; its claims are known from its abstract and authors' code.

Expected weights sum to one in every aggregation, so that with one η a rule that aggregates 41 times
a second takes 41 synchronous steps in that second. (FedFix with Δ = 0.5 in F-0 is FedAvg with a
server stepsize of 2.) Around the solution the loss fluctuates with η times aggregations a second,
whatever the rule, up to a limit of stability, and there rules differ.
"""

import functools
import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import xarray as xr

import jaxdopt as jd
from experiments.claims import above, claims
from experiments.panels import Dots, Figure, Lines, LogLog, present
from experiments.study import Part, Program, Results, Study

PAPER = "arXiv 2206.10189"
SYNC, ASYNC = "FedAvg", "AsyncFedAvg"
NEVER = "FedBuff 5, never waiting"  # of arXiv 2106.06639
RULES: dict[str, dict[str, Any]] = {SYNC: {"rule": "all"}, ASYNC: {"rule": "each"}}
RULES |= {f"FedFix {tick}": {"every": tick} for tick in (0.2, 0.5, 0.8)}
RULES |= {f"FedBuff {size}": {"buffer": size} for size in (2, 5, 10, 1)}
RULES |= {"FedFix 1": {"every": 1.0}, NEVER: {"buffer": 5, "restart": "at once"}}
TICKS = {"FedFix 0.2": 0.2, "FedFix 0.5": 0.5, "FedFix 0.8": 0.8}
FEDERATION, BATCH, LOCAL_STEPS = 20, 8, 10
SPLIT = 13  # the first seed of a Dirichlet(0.1) split with more than `BATCH` + 4 samples a client
GRID = tuple(2.0**j for j in range(-8, 3))
TIMED = (SYNC, ASYNC, *TICKS, "FedBuff 5", "FedBuff 10", NEVER)
TARGET, STAYS = 0.9, 5.0  # held-out accuracy, and the seconds for which it has to stay there
STABLE = 0.1  # mean gap of the last half, begun at the solution: accuracies are below 0.9 then
RESOLUTION = 0.5  # seconds between records, or an aggregation if that takes longer
STARTS = ("zero", "solution")
CLOCK = ("scenario", "rule", "start")


def sizes(timed: Any, single: Any, horizon: float, seeds: int) -> SimpleNamespace:
    """Return how much is run; ``timed`` and ``single`` are rules, scenarios and stepsizes."""
    return SimpleNamespace(**locals())


FEW = (SYNC, ASYNC, "FedFix 0.5")
SINGLE = (FEW, (80,), [4 * eta for eta in GRID])
SCALES = {
    "quick": sizes((FEW, (80,), (2.0**-6, 0.5, 2.0)), None, 30.0, 1),
    "default": sizes((TIMED, (0, 80), GRID), SINGLE, 60.0, 3),
    "full": sizes((TIMED, (0, 80), GRID), SINGLE, 60.0, 10),
}


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
    shared = {"problem": jd.problems.Minibatch(problem, BATCH), "over": {"stepsize": grid}}
    shared |= {"seeds": range(world.seed, world.seed + world.seeds), "progress": False}
    starts = (problem.start(), problem.start(problem.unravel(problem.solution)))
    for percent, rule in itertools.product(scenarios, rules):
        network = arrivals(rule, FEDERATION, percent, seconds=world.horizon)
        ticks = jd.FedFix if "every" in RULES[rule] else jd.AsyncFedAvg
        method = (jd.FedBuff if rule == NEVER else ticks)(0.1, local_steps=local_steps)
        every = max(1, round(network.horizon / world.horizon * RESOLUTION))
        own = {"algorithms": {rule: method}, "networks": network, "every": every}
        own |= {"steps": network.horizon // every * every, "metrics": {"accuracy": accuracy}}
        pace, oldest = network.horizon / world.horizon, int(staleness(network).max())
        reduce = functools.partial(on_clock, world.horizon, pace=pace, oldest=oldest)
        for name, x0 in zip(STARTS, starts, strict=True):
            program = Program(shared | own | {"x0": x0}, function=jd.compare, reduce=reduce)
            found[percent, rule, name] = program
    return found


def on_clock(horizon: float, dataset: xr.Dataset, **facts: Any) -> xr.Dataset:
    """Return the last records of the server until every time, and facts."""
    dataset = dataset.isel(algorithm=0, network=0, drop=True)
    now = dataset.seconds.isel(stepsize=0, seed=0).values
    clock = np.arange(0, horizon + RESOLUTION / 2, RESOLUTION)
    at = np.searchsorted(now, clock + 1e-3, side="right") - 1
    dataset = dataset[["loss", "accuracy"]].isel(step=at).rename(step="time")
    return dataset.assign_coords(time=clock).assign(facts)


def gaps(dataset: xr.Dataset, start: str) -> xr.DataArray:
    """Return F − F* over time of runs from a start."""
    return dataset.loss.sel(start=start, drop=True) - float(digits()[0].optimum)


def to_target(dataset: xr.Dataset) -> xr.DataArray:
    """Return seconds until the accuracy is at `TARGET` and stays, inf if never: the median seed."""
    window = round(STAYS / RESOLUTION)
    there = (dataset.accuracy.sel(start=STARTS[0], drop=True) >= TARGET).astype(float)
    stays = there.rolling(time=window).min().shift(time=1 - window).fillna(0) > 0
    first = dataset.time.isel(time=stays.argmax("time")).where(stays.any("time"), np.inf)
    return first.drop_vars("time").median("seed").rename("seconds")


def own_best(dataset: xr.Dataset) -> xr.DataArray:
    """Return the stepsize with which a rule is first at the target, else ends lowest."""
    last = gaps(dataset, STARTS[0]).isel(time=-1, drop=True).mean("seed")
    late, first = 1e9 * (1 + last.fillna(np.inf).clip(max=1e6)), to_target(dataset)
    return dataset.stepsize.isel(stepsize=first.where(first < np.inf, late).argmin("stepsize"))


def stationary(dataset: xr.Dataset) -> xr.Dataset:
    """Return the gap and the loss's standard deviation in the last half, begun at the solution."""
    last = gaps(dataset, STARTS[1]).isel(time=slice(dataset.sizes["time"] // 2, None))
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
    here = gaps(dataset, STARTS[0]).sel(stepsize=together(dataset), drop=True)
    return here.isel(time=here.sizes["time"] // 2, drop=True).mean("seed")


def waiting(dataset: xr.Dataset) -> xr.Dataset:
    """Return the last scenario, of all rules but `NEVER`."""
    return dataset.drop_sel(rule=NEVER, errors="ignore").isel(scenario=[-1])


def between(low: xr.DataArray, values: xr.DataArray, high: xr.DataArray) -> xr.DataArray:
    """Return factors above 1 where values lie between two others, the smaller of both, by rule."""
    others = values.drop_sel(rule=[SYNC, ASYNC])
    return xr.where(others / low < high / others, others / low, high / others)


def at_once(results: Results) -> xr.DataArray:
    """Return factors between gaps after half of the time, all with one stepsize."""
    half = halfway(waiting(results["time"]))
    return between(half.sel(rule=ASYNC), half, half.sel(rule=SYNC))


def unstable(results: Results) -> xr.DataArray:
    """Return factors between standard deviations of the loss, all with one stepsize."""
    clock = waiting(results["time"])
    spread = stationary(clock)["std"].sel(stepsize=together(clock), drop=True)
    return between(spread.sel(rule=SYNC), spread, spread.sel(rule=ASYNC))


def stable(results: Results) -> xr.DataArray:
    """Return the largest stable stepsizes of all but AsyncFedAvg over the synchronous one."""
    most = largest_stable(waiting(results["time"]))
    return most.drop_sel(rule=ASYNC) / most.sel(rule=SYNC, drop=True)


def later(dataset: xr.Dataset) -> xr.DataArray:
    """Return other rules' seconds to the target over AsyncFedAvg's, each with its own best η."""
    first = to_target(waiting(dataset)).min("stepsize")
    return first.drop_sel(rule=ASYNC) / first.sel(rule=ASYNC, drop=True)


def gain(results: Results) -> float:
    """Return how many times as fast FedFix is as both others, each with its own best η."""
    first = to_target(waiting(results["time"])).min("stepsize")
    fix = [rule for rule in first.rule.values if rule in TICKS]
    return float(first.sel(rule=[SYNC, ASYNC]).min() / first.sel(rule=fix).min())


def relief(results: Results) -> float:
    """Return by what factor AsyncFedAvg's seconds over FedAvg's fall from F-0 to F-80."""
    first = to_target(results["time"]).min("stepsize")
    late = first.sel(rule=ASYNC) / first.sel(rule=SYNC)
    return float(late.sel(scenario=present(late, "scenario", 0)) / late.sel(scenario=80))


ABSTRACT, FAST = f"{PAPER}, abstract", "fast convergence"
FASTEST = "AsyncFedAvg is the fastest at its best η: others' seconds / its"
CLAIMS = claims(
    ("one η, gaps: AsyncFedAvg < others < FedAvg, factor", ABSTRACT, FAST, at_once, above(1)),
    ("one η, std: FedAvg < others < AsyncFedAvg", ABSTRACT, "less stable", unstable, above(1)),
    (
        "largest stable η over FedAvg's: the others",
        ABSTRACT,
        "as stable as FedAvg",
        stable,
        above(1),
    ),
    (FASTEST, ABSTRACT, FAST, lambda r: later(r["time"]), above(1)),
    (f"{FASTEST}, one local step", ABSTRACT, FAST, lambda r: later(r["single"]), above(1)),
    ("FedFix over both, each with its best η", ABSTRACT, "improves on both", gain, above(1.1)),
    ("AsyncFedAvg's seconds / FedAvg's: F-0 over F-80", "derived", "> 1", relief, above(1)),
)
SHOWN = (SYNC, ASYNC, "FedFix 0.2", "FedFix 0.5", "FedBuff 5", NEVER)


def noise(results: Results) -> xr.DataArray:
    """Return the loss's standard deviation over η times aggregations a second: rule."""
    clock = results["time"].isel(scenario=-1, drop=True)
    return stationary(clock)["std"].assign_coords(speed=clock.stepsize * clock.pace[..., 0])


def paths(results: Results) -> xr.Dataset:
    """Return F − F* over time in F-80, all with one η."""
    here = gaps(results["time"].isel(scenario=-1, drop=True), STARTS[0])
    here = here.sel(stepsize=together(results["time"]), drop=True)
    return here.rename(time="step").to_dataset(name="gap")


def seconds(results: Results) -> xr.DataArray:
    """Return the seconds to the target, each with its own best η: scenario, rule."""
    first = to_target(results["time"]).min("stepsize").rename("seconds")
    return first.assign_coords(scenario=[f"F-{percent}" for percent in first.scenario.values])


RULED: dict[str, Any] = {"by": "rule", "at": {"rule": SHOWN}}
PANELS = [
    [
        LogLog(
            data=noise,
            x="speed",
            ticks=False,
            xlabel="η times aggregations a second",
            ylabel="standard deviation of F",
            title="F-80, around $x^\\star$",
            **RULED,
        ),
        Lines(
            data=paths,
            x="step",
            at={"rule": SHOWN},
            logx=True,
            xlabel="simulated seconds",
            ylabel=r"$F(x) - F^\star$",
            title="F-80: one η for all",
        ),
        Dots(
            data=seconds,
            x="scenario",
            logy=False,
            ylabel=f"seconds to accuracy {TARGET:g}",
            title="own best η",
            **RULED,
        ),
    ]
]


def time_table(results: Results) -> xr.Dataset:
    """Return seconds to the target and stability at a rule's own best η: scenario, rule."""
    clock, first = results["time"], to_target(results["time"])
    best, std = own_best(clock).drop_vars("stepsize"), stationary(clock)["std"]
    found = {"best η": best, "stable to η": largest_stable(clock), "std": std.sel(stepsize=best)}
    found |= {"aggregations/s": clock.pace[..., 0], f"seconds to {TARGET:g}": first.min("stepsize")}
    return xr.Dataset(
        {name: own.drop_vars(["stepsize", "start"], errors="ignore") for name, own in found.items()}
    )


STUDY = Study(
    name="fedfix",
    paper=f"FedFix: Fraboni, Vidal, Kameni, Lorenzi (2022), {PAPER}",
    question="How much sooner is a server at its target that does not wait for all clients?",
    scales=SCALES,
    world=lambda sizes, seed: SimpleNamespace(seed=seed, **vars(sizes)),
    parts={
        "time": Part(CLOCK, lambda world, _: timed(world, world.timed, LOCAL_STEPS)),
        "single": Part(CLOCK, lambda world, _: timed(world, world.single, 1)),
    },
    claims=CLAIMS,
    figures={"fedfix": Figure(PANELS, height=2.7)},
    tables={"time": ("own best η", time_table)},
    minutes={"quick": 0.7, "default": 6, "full": 20},
    data=lambda _: "scikit-learn's handwritten digits, 64 pixels, 20 clients, Dirichlet(0.1)",
)
