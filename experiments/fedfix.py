"""FedFix and other rules that aggregate before all clients return (arXiv 2206.10189).

Clients of unequal speeds. In the scenario F-80 their visits take times spaced equally from 1 second
to 0.2 (F-x: to 1 − x/100). A server waits for all (FedAvg) or for none (AsyncFedAvg), aggregates at
ticks Δ (FedFix) or as soon as c have returned (FedBuff; clients wait for the buffer, as in this
paper). With dᵢ = 1/(n φᵢ), φᵢ how often i is in an aggregation, expected weights are equal
("unbiased"); with one d for all, here 1/Σφᵢ ("identical"), they are qᵢ ∝ φᵢ. Three parts:

* *limits*: ten quadratics with different Hessians, one local step of a small η: distances from x*
  and from the minimizer x_q of Σᵢ qᵢ fᵢ, root mean squares over the last quarter of a run. FedBuff
  of arXiv 2106.06639 (no client waits, weights 1/√(1 + t)) is beside them.
* *anarchy*: AFA-CD and AFA-CS (arXiv 2108.09875), Kᵢ = 1 ... 5 local steps, clients that come back
  after exponential times, equally often or the rarest a twentieth as often as the quickest.
* *time*: softmax regression of the digits, split by Dirichlet(0.1) over 20 clients, ten local steps
  on minibatches, simulated seconds in F-0 and F-80; *single* has one local step. Stability is the
  loss's standard deviation in the last half of runs that begin at the solution.

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

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import xarray as xr

import jaxdopt as jd
from experiments.claims import Claim, above, below, near
from experiments.measures import exponent
from experiments.panels import Dots, Figure, Lines, LogLog, level, present, slope
from experiments.study import Axis, Part, Program, Results, Study
from jaxdopt.networks.events import durations

PAPER = "arXiv 2206.10189"
CLIENTS, DIMENSION = 10, 5
SCENARIOS, ETAS = (0, 20, 40, 60, 80), (0.02, 0.01, 0.005)
SYNC, ASYNC = "FedAvg", "AsyncFedAvg"
NEVER = "FedBuff 5, never waiting"  # of arXiv 2106.06639
RULES: dict[str, dict[str, Any]] = {SYNC: {"rule": "all"}, ASYNC: {"rule": "each"}}
RULES |= {f"FedFix {tick}": {"every": tick} for tick in (0.2, 0.5, 0.8)}
RULES |= {f"FedBuff {size}": {"buffer": size} for size in (2, 5, 10, 1)}
RULES |= {"FedFix 1": {"every": 1.0}, NEVER: {"buffer": 5, "restart": "at once"}}
TICKS = {"FedFix 0.2": 0.2, "FedFix 0.5": 0.5, "FedFix 0.8": 0.8}
BIASED = (ASYNC, *TICKS, "FedBuff 2", "FedBuff 5")
SAME = (("FedFix 1", SYNC), ("FedBuff 10", SYNC), ("FedBuff 1", ASYNC))  # of ten clients
UNBIASED, IDENTICAL = WEIGHTS = ("unbiased", "identical")
RECORDS = 200
RATES = {"even": np.ones(CLIENTS), "skewed": np.geomspace(1, 1 / 20, CLIENTS)}
WORK = np.array([1, 2, 3, 4, 5, 5, 4, 3, 2, 1])  # Kᵢ of AFA
FEDERATION, BATCH, LOCAL_STEPS = 20, 8, 10
SPLIT = 13  # the first seed of a Dirichlet(0.1) split with more than `BATCH` + 4 samples a client
GRID = tuple(2.0**j for j in range(-8, 3))
TIMED = (SYNC, ASYNC, *TICKS, "FedBuff 5", "FedBuff 10", NEVER)
TARGET, STAYS = 0.9, 5.0  # held-out accuracy, and the seconds for which it has to stay there
STABLE = 0.1  # mean gap of the last half, begun at the solution: accuracies are below 0.9 then
RESOLUTION = 0.5  # seconds between records, or an aggregation if that takes longer
STARTS = ("zero", "solution")
CLOCK = ("scenario", "rule", "start")


def sizes(scenarios, etas, steps, timed, single, horizon, seeds) -> SimpleNamespace:
    """Return how much is run; ``timed`` and ``single`` are rules, scenarios and stepsizes."""
    return SimpleNamespace(**locals())


FEW = (SYNC, ASYNC, "FedFix 0.5")
SINGLE = (FEW, (80,), [4 * eta for eta in GRID])
SCALES = {
    "quick": sizes((0, 80), ETAS[:2], 2400, (FEW, (80,), (2.0**-6, 0.5, 2.0)), None, 30.0, 1),
    "default": sizes(SCENARIOS, ETAS, 6000, (TIMED, (0, 80), GRID), SINGLE, 60.0, 3),
    "full": sizes(SCENARIOS, ETAS, 6000, (TIMED, (0, 80), GRID), SINGLE, 60.0, 10),
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
def quadratics(seed: int = 0) -> Any:
    """Return ten quadratics with different Hessians and minimizers."""
    spread = {"condition_number": 2.0, "curvature_spread": 0.7}
    return jd.problems.quadratic(CLIENTS, DIMENSION, **spread, seed=seed)


def server(state: Any, problem: Any) -> jax.Array:  # noqa: ARG001
    """Return the server's model [d]."""
    return state.server


def limit(pair: Any, eta: Any, problem: Any, key: Any, steps: int) -> jd.Result:
    """Return the run of a method on its network."""
    options = {"steps": steps, "every": steps // RECORDS, "metrics": {"x": server}}
    method = jd.replace(pair[0], stepsize=eta)
    return jd.run(method, problem, pair[1], problem.start(), key, **options)


def weighed(rules: Any, kind: str, world: Any) -> tuple[Any, Any, np.ndarray]:
    """Return rules' methods and networks, and q [cells, n]: in all scenarios."""
    cells = [(rule, percent) for rule in rules for percent in world.scenarios]
    made = [arrivals(rule, CLIENTS, percent, steps=world.steps) for rule, percent in cells]
    often = np.stack([np.asarray(network.frequency) for network in made])  # φ [cells, n]
    if NEVER in rules:  # E Σ 1/(c √(1 + t)) of each, and a server stepsize that makes their sum 1
        share = [np.bincount(m.agents.ravel(), 1 / np.sqrt(1 + m.staleness.ravel())) for m in made]
        q = np.stack(share) / made[0].agents.size
        return jax.vmap(lambda pace: jd.FedBuff(0.1, pace))(jnp.asarray(1 / q.sum(axis=1))), made, q
    d = 1 / (CLIENTS * often) if kind == UNBIASED else 1 / often.sum(axis=1, keepdims=True)
    columns = jnp.asarray(np.broadcast_to(d, often.shape)[..., None])
    return jax.vmap(lambda d: jd.AsyncFedAvg(0.1, weights=d))(columns), made, often * d


GROUPS = {(kind, "waiting"): list(RULES)[:-1] for kind in WEIGHTS} | {(IDENTICAL, NEVER): [NEVER]}


def facts(dim: str, networks: Any, q: Any) -> Any:
    """Return what keeps models, q, and how old returns are, of networks along a dimension."""
    old = [staleness(network) for network in networks]
    found = {"q": ((dim, "client"), q), "oldest": (dim, [ages.max() for ages in old])}
    found |= {"age": (dim, [ages.mean() for ages in old])}
    return lambda dataset: dataset[["x", "distance_squared"]].rename(x_0="d").assign(found)


def ending(world: Any, _: Any) -> dict[Any, Program]:
    """Return servers' models of all rules in all scenarios (cell) and η, by weights."""
    shared = {"problem": quadratics(world.seed), "key": jax.random.key(world.seed)}
    shared |= {"eta": jnp.asarray(world.etas), "steps": world.steps}
    eta, found = Axis("eta", world.etas), {}
    for (kind, group), rules in GROUPS.items():
        methods, made, q = weighed(rules, kind, world)
        stacked = jd.networks.stack([jd.replace(network, ticks=False) for network in made])
        first = list(RULES).index(rules[0]) * len(world.scenarios)
        over = {"pair": Axis("cell", range(first, first + len(made))), "eta": eta}
        pairs = shared | {"pair": (methods, stacked)}
        found[kind, group] = Program(pairs, over, limit, facts("cell", made, q))
    return found


def with_rules(dataset: xr.Dataset, world: Any, _: Any) -> xr.Dataset:
    """Return models, q, ages and distances over weights, rule, scenario and η."""
    index = pd.MultiIndex.from_product([list(RULES), world.scenarios], names=["rule", "scenario"])
    cells = xr.Coordinates.from_pandas_multiindex(index, "cell")
    dataset = dataset.max("group").assign_coords(cells).unstack("cell").sel(rule=list(RULES))
    return with_distances(dataset, world, _)


def with_distances(dataset: xr.Dataset, world: Any, _: Any) -> xr.Dataset:
    """Add |x_q − x*| (predicted), and the last models' distances from x* (away) and x_q (off)."""
    q, problem = dataset.q.transpose(..., "client"), quadratics(world.seed)
    curved = np.einsum("...n,nij->...ij", q.values, np.asarray(problem.hessians))
    tilted = np.einsum("...n,ni->...i", q.values, np.asarray(problem.tilts))
    shift = -np.linalg.solve(curved, tilted[..., None])[..., 0]  # of Σᵢ qᵢ fᵢ's minimizer from x*
    goal = xr.DataArray(shift, dims=(*q.dims[:-1], "d"))
    last = dataset.x.isel(step=slice(-(RECORDS // 4), None))
    last = last - xr.DataArray(np.asarray(problem.solution), dims="d")

    def squares(vector: Any) -> Any:
        return (vector**2).sum("d", skipna=False)

    found = {"away": last, "off": last - goal}
    found = {name: np.sqrt(squares(vector).mean("step")) for name, vector in found.items()}
    return dataset.assign(found | {"predicted": np.sqrt(squares(goal))})


def anarchic(world: Any, _: Any) -> dict[str, Program]:
    """Return AFA-CD and AFA-CS for both kinds of arrivals."""
    draws = np.random.default_rng(world.seed).exponential(size=(2 * world.steps, CLIENTS))
    options: dict[str, Any] = {"buffer": 2, "restart": "at once", "steps": world.steps}
    times = [durations.Table(draws / rate) for rate in RATES.values()]
    made = [jd.networks.arrivals(CLIENTS, compute=time, **options) for time in times]
    problem, q = quadratics(world.seed), np.stack([np.asarray(m.frequency) for m in made])
    shared = {"problem": problem, "network": jd.networks.stack(made), "x0": problem.start()}
    shared |= {"key": jax.random.key(world.seed), "metrics": {"x": server}}
    shared |= {"steps": world.steps, "every": world.steps // RECORDS}
    own, found = (1e-3, 0.01, int(WORK.max()), jnp.asarray(WORK)[:, None]), {}
    for name, kind in {"AFA-CD": jd.AFACD, "AFA-CS": jd.AFACS}.items():
        over, arguments = (
            {"network": Axis("arrivals", list(RATES))},
            shared | {"algorithm": kind(*own)},
        )
        found[name] = Program(arguments, over, reduce=facts("arrivals", made, q))
    return found


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


def waiting(results: Results, part: str = "time") -> xr.Dataset:
    """Return the digits in the last scenario, of all rules but `NEVER`."""
    return results[part].drop_sel(rule=NEVER, errors="ignore").isel(scenario=[-1])


def between(low: xr.DataArray, values: xr.DataArray, high: xr.DataArray) -> xr.DataArray:
    """Return factors above 1 where values lie between two others, the smaller of both, by rule."""
    others = values.drop_sel(rule=[SYNC, ASYNC])
    return xr.where(others / low < high / others, others / low, high / others)


def apart(results: Results) -> xr.DataArray:
    """Return the largest difference of the models of rules that are the same: pair."""
    x = results["limits"].x
    found = [abs(x.sel(rule=a, drop=True) - x.sel(rule=b, drop=True)).max() for a, b in SAME]
    return xr.DataArray(found, {"pair": [f"{a}, {b}" for a, b in SAME]}, "pair")


def orders(results: Results) -> xr.DataArray:
    """Return exponents of distances over η, from its largest to its smallest value."""
    far = results["limits"].sel(rule=list(BIASED), scenario=80, drop=True).isel(eta=[0, -1])
    both = (far.away.sel(weights=UNBIASED), far.off.sel(weights=IDENTICAL))
    return xr.concat([exponent(own.eta, own, "eta") for own in both], "weights")


def away(results: Results, **at: Any) -> xr.DataArray:
    """Return |x − x*| with the smallest η."""
    far = results["limits"].away.isel(eta=-1, drop=True)
    return far.sel(rule=list(BIASED), **at).drop_vars([*at])


def other(results: Results) -> xr.DataArray:
    """Return the bias of identical weights over that of unbiased ones, in F-80."""
    far = away(results, scenario=80)
    return far.sel(weights=IDENTICAL, drop=True) / far.sel(weights=UNBIASED, drop=True)


def even(results: Results) -> xr.DataArray:
    """Return how different the biases of both weights are in F-0."""
    return abs(away(results, scenario=0).diff("weights")[0])


def growth(results: Results) -> xr.DataArray:
    """Return the smallest change of the bias from a scenario to the next, in units of η."""
    change = away(results, weights=IDENTICAL).diff("scenario").min("scenario")
    return change / float(results["limits"].eta[-1])


def silo(results: Results) -> xr.DataArray:
    """Return AFA-CS's distance from x* over AFA-CD's."""
    return results["anarchy"].away[1] / results["anarchy"].away[0]


def device(results: Results) -> xr.DataArray:
    """Return AFA-CD's distance from x_q over |x_q − x*|."""
    here = results["anarchy"].isel(algorithm=0).sel(arrivals="skewed", drop=True)
    return here.off / here.predicted


def ages(results: Results) -> xr.DataArray:
    """Return how much older the oldest return of FedFix is than the ticks of a visit, less one."""
    oldest = results["limits"].oldest.sel(rule=list(TICKS)).max("scenario")
    return oldest - xr.DataArray([np.ceil(1 / tick) - 1 for tick in TICKS.values()], dims="rule")


def at_once(results: Results) -> xr.DataArray:
    """Return factors between gaps after half of the time, all with one stepsize."""
    half = halfway(waiting(results))
    return between(half.sel(rule=ASYNC), half, half.sel(rule=SYNC))


def unstable(results: Results) -> xr.DataArray:
    """Return factors between standard deviations of the loss, all with one stepsize."""
    clock = waiting(results)
    spread = stationary(clock)["std"].sel(stepsize=together(clock), drop=True)
    return between(spread.sel(rule=SYNC), spread, spread.sel(rule=ASYNC))


def stable(results: Results) -> xr.DataArray:
    """Return the largest stable stepsizes of all but AsyncFedAvg over the synchronous one."""
    most = largest_stable(waiting(results))
    return most.drop_sel(rule=ASYNC) / most.sel(rule=SYNC, drop=True)


def later(part: str, results: Results) -> xr.DataArray:
    """Return other rules' seconds to the target over AsyncFedAvg's, each with its own best η."""
    first = to_target(waiting(results, part)).min("stepsize")
    return first.drop_sel(rule=ASYNC) / first.sel(rule=ASYNC, drop=True)


def gain(results: Results) -> float:
    """Return how many times as fast FedFix is as both others, each with its own best η."""
    first = to_target(waiting(results)).min("stepsize")
    fix = [rule for rule in first.rule.values if rule in TICKS]
    return float(first.sel(rule=[SYNC, ASYNC]).min() / first.sel(rule=fix).min())


def relief(results: Results) -> float:
    """Return by what factor AsyncFedAvg's seconds over FedAvg's fall from F-0 to F-80."""
    first = to_target(results["time"]).min("stepsize")
    late = first.sel(rule=ASYNC) / first.sel(rule=SYNC)
    return float(late.sel(scenario=present(late, "scenario", 0)) / late.sel(scenario=80))


with_ = functools.partial
THEORY, MORE = f"{PAPER}, authors' code; derived", ("default", "full")
ABSTRACT, AFA = f"{PAPER}, abstract", "arXiv 2108.09875, from memory"
FASTEST = "AsyncFedAvg is the fastest at its best η: others' seconds / its"
FAST, RATE = "fast convergence", "derived: q_i ∝ 1/τ_i"
CLAIMS = [
    Claim(
        "FedFix 1, FedBuff 10 are FedAvg, FedBuff 1 AsyncFedAvg", "rules", "0", apart, below(1e-12)
    ),
    Claim(
        "F-80: unbiased |x − x*|, identical |x − x_q| ∝ η, exponent",
        THEORY,
        "1",
        orders,
        near(1, 0.35),
        MORE,
    ),
    Claim("identical weights' |x − x*| over unbiased ones', F-80", THEORY, "> 1", other, above(10)),
    Claim("F-0: both weights end equally far: difference", "derived", "0", even, below(1e-3)),
    Claim("bias grows as clients get faster: change / η", RATE, "> 0", growth, above(-1)),
    Claim("FedFix's oldest return, less ticks but one", "derived", "0", ages, near(0, 0.5)),
    Claim("AFA-CS comes to x*: its |x − x*| over AFA-CD's", AFA, "far below 1", silo, below(0.1)),
    Claim("AFA-CD: |x − x_q| / |x_q − x*|, skewed", "derived", "far below 1", device, below(1 / 3)),
    Claim("one η, gaps: AsyncFedAvg < others < FedAvg, factor", ABSTRACT, FAST, at_once, above(1)),
    Claim("one η, std: FedAvg < others < AsyncFedAvg", ABSTRACT, "less stable", unstable, above(1)),
    Claim(
        "largest stable η over FedAvg's: the others",
        ABSTRACT,
        "as stable as FedAvg",
        stable,
        above(1),
    ),
    Claim(FASTEST, ABSTRACT, FAST, with_(later, "time"), above(1)),
    Claim(f"{FASTEST}, one local step", ABSTRACT, FAST, with_(later, "single"), above(1)),
    Claim("FedFix over both, each with its best η", ABSTRACT, "improves on both", gain, above(1.1)),
    Claim("AsyncFedAvg's seconds / FedAvg's: F-0 over F-80", "derived", "> 1", relief, above(1)),
]
BIASES = (ASYNC, *list(TICKS)[1:], "FedBuff 2", "FedBuff 5", NEVER)  # FedFix 0.2 is on top
SHOWN = (SYNC, ASYNC, "FedFix 0.2", "FedFix 0.5", "FedBuff 5", NEVER)
DISTANCE = r"$|x - x^\star|$"


def expected(ax: Any, results: Results) -> None:
    """Mark |x_q − x*| of identical weights."""
    own = results["limits"].predicted.sel(rule=list(BIASES), weights=IDENTICAL)
    x, marks = np.broadcast_arrays(own.scenario, own.transpose("rule", "scenario"))
    label = r"$|x_q - x^\star|$, expected"
    ax.plot(x.ravel(), marks.ravel(), "+", color="black", label=label, zorder=4)


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


BIAS: dict[str, Any] = {"by": "rule", "ylabel": DISTANCE, "at": {"rule": BIASES}}
TIMED_RULES: dict[str, Any] = {"at": {"rule": SHOWN}}
FAR = r"$|x_q - x^\star|$, skewed"
PANELS = [
    [
        LogLog(
            data=lambda r: r["limits"].away.sel(weights=IDENTICAL).isel(eta=-1),
            x="scenario",
            xlabel="fastest client's time saved (%)",
            logx=False,
            logy=False,
            also=[expected],
            title="identical weights",
            **BIAS,
        ),
        LogLog(
            data=lambda r: r["limits"].away.sel(weights=UNBIASED, scenario=80),
            x="eta",
            xlabel="stepsize η",
            also=[slope(1, "∝ η")],
            title="unbiased weights, F-80",
            **BIAS,
        ),
        Lines(
            data=lambda r: np.sqrt(r["anarchy"][["distance_squared"]]),
            y="distance_squared",
            x="step",
            split=True,
            legend="panel",
            xlabel="aggregations",
            ylabel=DISTANCE,
            title="anarchic clients",
            also=[level(lambda r: float(r["anarchy"].predicted[0].sel(arrivals="skewed")), FAR)],
        ),
    ],
    [
        LogLog(
            data=noise,
            x="speed",
            by="rule",
            ticks=False,
            xlabel="η times aggregations a second",
            ylabel="standard deviation of F",
            title="digits, F-80, around $x^\\star$",
            **TIMED_RULES,
        ),
        Lines(
            data=paths,
            x="step",
            logx=True,
            xlabel="simulated seconds",
            ylabel=r"$F(x) - F^\star$",
            title="digits, F-80: one η for all",
            **TIMED_RULES,
        ),
        Dots(
            data=seconds,
            x="scenario",
            by="rule",
            logy=False,
            ylabel=f"seconds to accuracy {TARGET:g}",
            title="digits: own best η",
            **TIMED_RULES,
        ),
    ],
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


ENDS = ["away", "predicted", "off", "age", "oldest"]
STUDY = Study(
    name="fedfix",
    paper=f"FedFix: Fraboni, Vidal, Kameni, Lorenzi (2022), {PAPER}",
    question="When a server does not wait for all clients, where does it end, and how soon?",
    scales=SCALES,
    world=lambda sizes, seed: SimpleNamespace(seed=seed, **vars(sizes)),
    parts={
        "limits": Part(("weights", "group"), ending, with_rules),
        "anarchy": Part("algorithm", anarchic, with_distances),
        "time": Part(CLOCK, lambda world, _: timed(world, world.timed, LOCAL_STEPS)),
        "single": Part(CLOCK, lambda world, _: timed(world, world.single, 1)),
    },
    claims=CLAIMS,
    figures={"fedfix": Figure(PANELS, height=2.7)},
    tables={
        "limits": (
            "limits in F-80, smallest η",
            lambda r: r["limits"][ENDS].isel(eta=-1).sel(scenario=80, drop=True),
        ),
        "time": ("digits, own best η", time_table),
    },
    minutes={"quick": 1, "default": 8, "full": 25},
    data=lambda _: (
        "quadratics; scikit-learn's handwritten digits, 64 pixels, 20 clients, Dirichlet(0.1)"
    ),
)
