"""FedFix and others that aggregate before all are back: bias and time (arXiv 2206.10189).

Clients of unequal speeds. In the scenario F-80 their visits take times spaced equally from 1 second
to 0.2 (F-x: to 1 − x/100). A server waits for all (synchronous FedAvg), for nobody (asynchronous),
aggregates at ticks Δ (FedFix) or as soon as c are back (FedBuff; clients wait for the buffer, as in
this paper). With dᵢ = 1/(n φᵢ), φᵢ how often i is in an aggregation, expected weights are equal;
with one d for all they are qᵢ ∝ φᵢ. Three questions:

* *bias*: ten quadratics with different Hessians, one local step of a small η. How far from x* is the
  limit under both weights, how far from the minimizer of Σᵢ qᵢ fᵢ, and how does that grow with the
  fastest client's speed? Identical weights are 1/Σφᵢ, so that all move at the same pace. FedBuff of
  arXiv 2106.06639 (nobody waits, weights 1/√(1 + t)) is measured beside them.
* *anarchy*: AFA-CD and AFA-CS (arXiv 2108.09875), Kᵢ = 1 ... 5 local steps, clients that come back
  after exponential times, equally often or the rarest a twentieth as often as the quickest.
* *time*: softmax regression of the digits, split by Dirichlet(0.1) over 20 clients, ten local steps
  on minibatches; held-out accuracy over simulated seconds in F-0 and F-80. Stability is the loss's
  standard deviation in the last half of runs that begin at the solution, which knows no trend.

Distances are root mean squares over the last quarter of a run. What departs from the paper: convex
problems and plain local steps in place of networks and momentum, as in its theory; stepsizes are
compared both as one for all and as each method's own best, while we don't know how the paper's were
chosen; its claims are known from its abstract and the authors' code.
"""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from tqdm import tqdm

import jaxdopt as jd
from experiments import results
from experiments.tables import Table, number
from jaxdopt.networks import times

PAPER = "arXiv 2206.10189"
CLIENTS, DIMENSION = 10, 5
SCENARIOS = (0, 20, 40, 60, 80)
SYNC, ASYNC = "synchronous", "asynchronous"
RULES: dict[str, dict[str, Any]] = {
    SYNC: {"rule": "all"},
    ASYNC: {"rule": "each"},
    "FedFix 0.2": {"every": 0.2},
    "FedFix 0.5": {"every": 0.5},
    "FedFix 0.8": {"every": 0.8},
    "FedBuff 2": {"buffer": 2},
    "FedBuff 5": {"buffer": 5},
    "FedBuff 10": {"buffer": 10},
    "FedBuff 1": {"buffer": 1},
    "FedFix 1": {"every": 1.0},
}
NGUYEN = "FedBuff 5, never waiting"
SAME = (("FedFix 1", SYNC), ("FedBuff 10", SYNC), ("FedBuff 1", ASYNC))  # of ten clients
BIASED = (ASYNC, "FedFix 0.2", "FedFix 0.5", "FedFix 0.8", "FedBuff 2", "FedBuff 5")
WEIGHTS = ("weight", "identical")
ETAS = (0.02, 0.01, 0.005)
RECORDS = 200

RATES = {"even": np.ones(CLIENTS), "skewed": np.geomspace(1, 1 / 20, CLIENTS)}
ANARCHIC = {"buffer": 2, "stepsize": 1e-3, "server_stepsize": 0.01}
WORK = np.array([1, 2, 3, 4, 5, 5, 4, 3, 2, 1])  # Kᵢ
FEDERATION, BATCH, LOCAL_STEPS, L2 = 20, 8, 10, 1e-3
SPLIT = 13  # the first seed of a Dirichlet(0.1) split with more than `BATCH` samples a client
GRID = tuple(2.0**j for j in range(-8, 3))
TIMED = (SYNC, ASYNC, "FedFix 0.2", "FedFix 0.5", "FedFix 0.8", "FedBuff 5", "FedBuff 10", NGUYEN)
TARGET = 0.9  # held-out accuracy
STAYS = 5.0  # seconds for which it has to stay there
RESOLUTION = 0.5  # seconds between records, or an aggregation if that takes longer
STARTS = ("zero", "solution")
COLORS = {SYNC: (6, "-"), ASYNC: (1, "-"), "FedFix 0.2": (4, "-"), "FedFix 0.5": (0, "-"),
          "FedFix 0.8": (0, "--"), "FedBuff 2": (5, ":"), "FedBuff 5": (2, "-"),
          "FedBuff 10": (2, "--"), NGUYEN: (3, "-.")}  # fmt: skip


def seconds(n: int, percent: float) -> np.ndarray:
    """Return the clients' times of a visit in the scenario F-percent, [n]."""
    return np.linspace(1.0, 1 - percent / 100, n)


@functools.cache
def quadratics(seed: int = 0) -> Any:
    """Return ten quadratics with different Hessians and minimizers."""
    return jd.problems.quadratic(
        CLIENTS, DIMENSION, condition_number=2.0, curvature_spread=0.7, seed=seed
    )


def minimizer(problem: Any, q: np.ndarray) -> np.ndarray:
    """Return the minimizer of Σᵢ qᵢ fᵢ, q [..., n] -> [..., d]."""
    curved = np.einsum("...n,nij->...ij", q, np.asarray(problem.hessians))
    tilted = np.einsum("...n,ni->...i", q, np.asarray(problem.tilts))
    return np.asarray(problem.center) - np.linalg.solve(curved, tilted[..., None])[..., 0]


def widened(network: Any, width: int) -> Any:
    """Return arrivals with tables of one width, so that one program serves all rules."""
    more = network.n + network.bound + jnp.arange(width - network.bound)  # differ, as padding does

    def wide(table: Any, fill: Any) -> Any:
        shape = (len(table), len(more))
        extra = jnp.broadcast_to(jnp.asarray(fill, table.dtype), shape)
        return jnp.concatenate([table, extra], axis=1)

    return jd.replace(
        network,
        agents=wide(network.agents, more),
        latest=wide(network.latest, more),
        staleness=wide(network.staleness, 0),
        renewed=wide(network.renewed, True),
        ticks=False,
    )


def server(state: Any, problem: Any) -> jax.Array:  # noqa: ARG001
    """Return the server's model [d]."""
    return state.server


def staleness(network: Any) -> np.ndarray:
    """Return how old all returns of a schedule were, in aggregations."""
    return np.asarray(network.staleness)[np.asarray(network.agents) < network.n]


def trusted(network: Any) -> np.ndarray:
    """Return the expected weights E Σ 1/(c √(1 + t)) of FedBuff of arXiv 2106.06639, [n]."""
    who, stale = np.asarray(network.agents).ravel(), np.asarray(network.staleness).ravel()
    return np.bincount(who, 1 / np.sqrt(1 + stale), network.n) / len(who)


def limits(
    rules: Sequence[str], scenarios: Sequence[int], etas: Sequence[float], steps: int, seed: int = 0
) -> xr.Dataset:
    """Return servers' models over rule, scenario, weights, η and step; q and staleness."""
    problem, key = quadratics(seed), jax.random.key(seed)
    options = {"steps": steps, "every": steps // RECORDS, "metrics": {"x": server}}
    cells = [(rule, percent) for rule in rules for percent in scenarios]
    made = [
        jd.networks.arrivals(CLIENTS, compute=seconds(CLIENTS, f), steps=steps, **RULES[rule])
        for rule, f in cells
    ]
    often = np.stack([np.asarray(network.frequency) for network in made])  # φ [cells, n]
    naive = np.broadcast_to(1 / often.sum(axis=1, keepdims=True), often.shape)
    weights = np.stack([1 / (CLIENTS * often), naive], axis=1)  # [cells, 2, n]

    def one(network: Any, d: Any, eta: Any) -> Any:
        method = jd.AsyncFedAvg(eta, weights=d[:, None])
        return jd.run(method, problem, network, problem.start(), key, **options).metrics["x"]

    over = jax.vmap(jax.vmap(one, (None, None, 0)), (None, 0, None))
    over = jax.vmap(over, (0, 0, None))
    stacked = jd.networks.stack([widened(network, CLIENTS) for network in made])
    x = np.asarray(over(stacked, jnp.asarray(weights), jnp.asarray(etas)))
    shape = (len(rules), len(scenarios))
    dims, old = ("rule", "scenario"), [staleness(network) for network in made]
    variables = {
        "x": ((*dims, "weights", "eta", "step", "d"), x.reshape(*shape, *x.shape[1:])),
        "q": ((*dims, "weights", "client"), (often[:, None] * weights).reshape(*shape, 2, -1)),
        "oldest": (dims, np.reshape([t.max() for t in old], shape)),
        "age": (dims, np.reshape([t.mean() for t in old], shape)),
    }
    coordinates = {"rule": list(rules), "scenario": list(scenarios), "weights": list(WEIGHTS)}
    record = np.arange(RECORDS + 1) * (steps // RECORDS)
    dataset = xr.Dataset(variables, {**coordinates, "eta": list(etas), "step": record})
    return with_distances(dataset, problem)


def with_distances(dataset: xr.Dataset, problem: Any) -> xr.Dataset:
    """Add the surrogate's distance from x*, and the last models' from both."""
    goal = xr.DataArray(minimizer(problem, dataset.q.values), dims=(*dataset.q.dims[:-1], "d"))
    solution = xr.DataArray(np.asarray(problem.solution), dims="d")
    last = dataset.x.isel(step=slice(-(RECORDS // 4), None))

    def rms(point: xr.DataArray) -> xr.DataArray:
        return np.sqrt(((last - point) ** 2).sum("d").mean("step"))

    predicted = np.sqrt(((goal - solution) ** 2).sum("d"))
    return dataset.assign(predicted=predicted, away=rms(solution), off=rms(goal))


def never_waiting(
    scenarios: Sequence[int], etas: Sequence[float], steps: int, seed: int = 0
) -> xr.Dataset:
    """Return the same of `jd.FedBuff` with clients that do not wait for the buffer.

    Its server stepsize is 1/Σqᵢ, so that it moves at the others' pace.
    """
    problem, key = quadratics(seed), jax.random.key(seed)
    made = [
        jd.networks.arrivals(
            CLIENTS, compute=seconds(CLIENTS, f), buffer=5, restart="at once", steps=steps
        )
        for f in scenarios
    ]
    q = np.stack([trusted(network) for network in made])
    options = {"steps": steps, "every": steps // RECORDS, "metrics": {"x": server}}

    def one(network: Any, pace: Any, eta: Any) -> Any:
        method = jd.FedBuff(eta, pace)
        return jd.run(method, problem, network, problem.start(), key, **options).metrics["x"]

    over = jax.vmap(jax.vmap(one, (None, None, 0)), (0, 0, None))
    x = over(jd.networks.stack(made), jnp.asarray(1 / q.sum(axis=1)), jnp.asarray(etas))
    old = [staleness(network) for network in made]
    dataset = xr.Dataset(
        {
            "x": (("scenario", "eta", "step", "d"), np.asarray(x)),
            "q": (("scenario", "client"), q / q.sum(axis=1, keepdims=True)),
            "oldest": ("scenario", [t.max() for t in old]),
            "age": ("scenario", [t.mean() for t in old]),
        },
        {"scenario": list(scenarios), "eta": list(etas)},
    )
    return with_distances(dataset, problem)


def anarchy(steps: int, seed: int = 0) -> xr.Dataset:
    """Return AFA-CD's and AFA-CS's distances over arrivals (even, skewed), algorithm and step."""
    problem, key = quadratics(seed), jax.random.key(seed)
    made = [
        jd.networks.arrivals(
            CLIENTS,
            compute=times.Exponential(1 / rate),
            buffer=ANARCHIC["buffer"],
            restart="at once",
            steps=steps,
            key=key,
        )
        for rate in RATES.values()
    ]
    stacked = jd.networks.stack(made)
    names = {"AFA-CD": jd.AFACD, "AFA-CS": jd.AFACS}
    eta, along = ANARCHIC["stepsize"], ANARCHIC["server_stepsize"]
    parts = [
        jd.label(
            jd.sweep(jd.run, over="network")(
                kind(eta, along, int(WORK.max()), jnp.asarray(WORK)[:, None]),
                problem,
                stacked,
                problem.start(),
                key,
                steps=steps,
                every=steps // RECORDS,
                metrics={"x": server},
            ),
            arrivals=list(RATES),
        )
        for kind in names.values()
    ]
    index: Any = xr.DataArray(list(names), dims="algorithm", name="algorithm")
    dataset: Any = xr.concat(parts, index)
    dataset = dataset[["x", "distance_squared"]].rename(x_0="d")
    dataset["q"] = (("arrivals", "client"), np.stack([np.asarray(m.frequency) for m in made]) / 2)
    dataset["oldest"] = ("arrivals", [staleness(network).max() for network in made])
    return with_distances(dataset, problem)


@functools.cache
def digits() -> tuple[Any, Any]:
    """Return softmax regression of the digits over 20 clients, and its held-out accuracy."""
    train, test = jd.data.digits().split(0.2)
    features, held_out = (np.hstack([f, np.ones((len(f), 1))]) for f in (train[0], test[0]))
    problem = jd.problems.softmax_regression(
        features,
        train.labels,
        agents=FEDERATION,
        partition=jd.partition.dirichlet(0.1, seed=SPLIT),
        l2=L2,
    ).solved()
    return problem, jd.metrics.accuracy(held_out, test.labels)


def timed(
    names: Sequence[str],
    scenarios: Sequence[int],
    grid: Sequence[float],
    *,
    horizon: float,
    seeds: int,
    seed: int = 0,
    progress: bool = True,
) -> xr.Dataset:
    """Return loss and accuracy: scenario, rule, start, stepsize, seed, time in seconds.

    What is known at a time is the last record of the server until then.
    """
    problem, accuracy = digits()
    noisy = jd.problems.Minibatch(problem, BATCH)
    clock = np.arange(0, horizon + RESOLUTION / 2, RESOLUTION)
    cells = [(percent, name) for percent in scenarios for name in names]
    found = []
    for percent, name in tqdm(cells, unit="method", disable=not progress):
        at_once = name == NGUYEN
        rule = {"buffer": 5, "restart": "at once"} if at_once else RULES[name]
        network = jd.networks.arrivals(
            FEDERATION, compute=seconds(FEDERATION, percent), seconds=horizon, **rule
        )
        pace = network.horizon / horizon
        every = max(1, round(pace * RESOLUTION))
        kind = jd.FedBuff if at_once else jd.FedFix if "every" in rule else jd.AsyncFedAvg
        both = []
        for point in (problem.start(), problem.start(problem.unravel(problem.solution))):
            part = jd.compare(
                {name: kind(0.1, local_steps=LOCAL_STEPS)},
                noisy,
                network,
                over={"stepsize": grid},
                seeds=range(seed, seed + seeds),
                steps=network.horizon // every * every,
                every=every,
                x0=point,
                metrics={"accuracy": accuracy},
                progress=False,
            ).isel(algorithm=0, network=0, drop=True)
            now = part.seconds.isel(stepsize=0, seed=0).values
            at = np.searchsorted(now, clock + 1e-3, side="right") - 1
            part = part[["loss", "accuracy"]].isel(step=at).rename(step="time")
            both.append(part.assign_coords(time=clock))
        whole: Any = xr.concat(both, xr.DataArray(list(STARTS), dims="start", name="start"))
        found.append(whole.assign(pace=pace, oldest=int(staleness(network).max())))
    rows = [
        xr.concat(found[i : i + len(names)], xr.DataArray(list(names), dims="rule", name="rule"))
        for i in range(0, len(cells), len(names))
    ]
    index: Any = xr.DataArray(list(scenarios), dims="scenario", name="scenario")
    dataset: Any = xr.concat(rows, index)
    return dataset.assign(optimum=float(problem.optimum))


def to_target(dataset: xr.Dataset) -> xr.DataArray:
    """Return seconds until the accuracy is `TARGET` and stays there, NaN if never.

    Over scenario, rule and stepsize; the median over seeds.
    """
    window = round(STAYS / RESOLUTION)
    there = (dataset.accuracy.sel(start=STARTS[0]) >= TARGET).astype(float)
    stays = there.rolling(time=window).min().shift(time=1 - window).fillna(0) > 0
    first = dataset.time.isel(time=stays.argmax("time")).where(stays.any("time"))
    return first.drop_vars(("time", "start"), errors="ignore").median("seed", skipna=False)


def own_best(dataset: xr.Dataset) -> xr.DataArray:
    """Return the stepsize with which a rule is first at the target, else ends lowest."""
    last = dataset.loss.sel(start=STARTS[0], drop=True).isel(time=-1, drop=True).mean("seed")
    late = 1e9 * (1 + last.fillna(np.inf).clip(max=1e6))
    return dataset.stepsize.isel(stepsize=to_target(dataset).fillna(late).argmin("stepsize"))


def stationary(dataset: xr.Dataset) -> xr.Dataset:
    """Return the gap and the loss's standard deviation in the last half, begun at the solution."""
    loss = dataset.loss.sel(start=STARTS[1], drop=True)
    last = loss.isel(time=slice(dataset.sizes["time"] // 2, None))
    spread = np.sqrt(last.var("time").mean("seed"))
    return xr.Dataset({"gap": last.mean(("time", "seed")) - dataset.optimum, "std": spread})


def bias_table(dataset: xr.Dataset, free: xr.Dataset) -> Table:
    """Return the limits in the last scenario at the smallest η, and how old returns are."""
    eta, percent = dataset.eta.values[-1], dataset.scenario.values[-1]
    whole, rows = dataset.sel(eta=eta, scenario=percent), []
    for rule in map(str, dataset.rule.values):
        here = whole.sel(rule=rule)
        q = here.q.sel(weights=WEIGHTS[1])
        rows.append(
            (
                rule,
                *(number(float(here.away.sel(weights=kind)), ".4f") for kind in WEIGHTS),
                *(
                    number(float(here[v].sel(weights=WEIGHTS[1])), ".4f")
                    for v in ("predicted", "off")
                ),
                f"{float(q.max() / q.min()):.2f}",
                f"{int(here.oldest)}",
                f"{float(here.age):.2f}",
            )
        )
    here = free.sel(eta=eta, scenario=percent)
    values = (number(float(here[v]), ".4f") for v in ("away", "predicted", "off"))
    ratio = float(here.q.max() / here.q.min())
    rows.append(
        (NGUYEN, "-", *values, f"{ratio:.2f}", f"{int(here.oldest)}", f"{float(here.age):.2f}")
    )
    header = ("rule", "weight: |x - x*|", "identical: |x - x*|", "surrogate: |x_q - x*|")
    return Table((*header, "identical: |x - x_q|", "q max/min", "oldest return", "mean age"), rows)


def growth_table(dataset: xr.Dataset, free: xr.Dataset) -> Table:
    """Return |x − x*| with identical weights over scenarios, measured and by the surrogate."""
    eta, rows = dataset.eta.values[-1], []
    here = dataset.sel(eta=eta, weights=WEIGHTS[1])
    parts = {rule: here.sel(rule=rule) for rule in BIASED} | {NGUYEN: free.sel(eta=eta)}
    for rule, part in parts.items():
        cells = zip(part.away.values, part.predicted.values, strict=True)
        rows.append((rule, *(f"{away:.3f} ({goal:.3f})" for away, goal in cells)))
    return Table(("rule", *(f"F-{percent}" for percent in dataset.scenario.values)), rows)


def anarchy_table(dataset: xr.Dataset) -> Table:
    """Return where AFA-CD and AFA-CS end."""
    rows = []
    for arrivals in map(str, dataset.arrivals.values):
        for name in map(str, dataset.algorithm.values):
            here = dataset.sel(arrivals=arrivals, algorithm=name)
            values = (number(float(here[v]), ".4f") for v in ("away", "off", "predicted"))
            rows.append((arrivals, name, *values, str(int(here.oldest))))
    return Table(("arrivals", "method", "|x - x*|", "|x - x_q|", "|x_q - x*|", "oldest"), rows)


def together(dataset: xr.Dataset) -> float:
    """Return asynchronous FedAvg's own best stepsize in the last scenario, to compare all with."""
    return float(own_best(dataset).sel(rule=ASYNC, scenario=dataset.scenario[-1]))


def gap_at_half(dataset: xr.Dataset, eta: float) -> xr.DataArray:
    """Return F − F* after half of the time with one stepsize, from zero."""
    here = dataset.loss.sel(start=STARTS[0], stepsize=eta, drop=True)
    return here.isel(time=here.sizes["time"] // 2, drop=True).mean("seed") - dataset.optimum


def time_table(dataset: xr.Dataset) -> Table:
    """Return seconds to the target and stability, at a rule's own best stepsize and at one."""
    eta, rows = together(dataset), []
    first, best, noise = to_target(dataset), own_best(dataset), stationary(dataset)
    half = gap_at_half(dataset, eta)
    for percent in dataset.scenario.values:
        for rule in map(str, dataset.rule.values):
            at = {"scenario": percent, "rule": rule}
            own = float(best.sel(at))
            mine, same = (noise.sel(at).sel(stepsize=e) for e in (own, eta))
            rows.append(
                (
                    f"F-{percent}",
                    rule,
                    f"{float(dataset.pace.sel(at)):.1f}",
                    str(int(dataset.oldest.sel(at))),
                    f"{own:g}",
                    number(float(first.sel(at).sel(stepsize=own)), ".1f"),
                    number(float(mine.gap), ".3f"),
                    number(float(mine["std"]), ".4f"),
                    number(float(half.sel(at)), ".3f"),
                    number(float(same["std"]), ".4f"),
                )
            )
    header = ("scenario", "rule", "aggregations/s", "oldest", "own best eta")
    times_ = (f"seconds to {TARGET:g}", "gap at the end", "std of loss")
    middle = float(dataset.time[dataset.sizes["time"] // 2])
    return Table((*header, *times_, f"eta {eta:g}: gap at {middle:g} s", "std of loss"), rows)
