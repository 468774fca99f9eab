"""FedFix and others that aggregate before all are back: bias and time (arXiv 2206.10189).

Clients of unequal speeds. In the scenario F-80 their visits take times spaced equally from 1 second
to 0.2 (F-x: to 1 − x/100). A server waits for all (synchronous FedAvg), for nobody (asynchronous),
aggregates at ticks Δ (FedFix) or as soon as c are back (FedBuff; clients wait for the buffer, as in
this paper). With dᵢ = 1/(n φᵢ), φᵢ how often i is in an aggregation, expected weights are equal;
with one d for all they are qᵢ ∝ φᵢ. Three questions:

* *bias*: ten quadratics with different Hessians, one local step of a small η. How far from x* is
  the limit under both weights, how far from the minimizer of Σᵢ qᵢ fᵢ, and how does that grow with
  the fastest client's speed? Identical weights are 1/Σφᵢ, so that all move at the same pace. FedBuff of
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

What the numbers do not say by themselves: expected weights sum to one in every aggregation whatever
the rule, so with one η a rule that aggregates 41 times a second takes 41 times the synchronous steps
in that second. (FedFix with Δ = 0.5 in F-0 is FedAvg with a server stepsize of 2.) What it may take
at most is a matter of stability: synchronous local steps stop at the client's own minimizer, steps
along old updates of single clients overshoot. The last column of the figure is over η times
aggregations a second for that reason.
"""

import functools
from collections.abc import Sequence
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
STABLE = 0.1  # mean gap of the last half, begun at the solution: accuracies are below 0.9 then
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
    """Return the stepsize to compare all with: the largest that asynchronous FedAvg stands."""
    return float(largest_stable(dataset).sel(rule=ASYNC, scenario=dataset.scenario[-1]))


def largest_stable(dataset: xr.Dataset) -> xr.DataArray:
    """Return the largest stepsize with which, begun at the solution, gaps stay below `STABLE`."""
    stays = stationary(dataset).gap <= STABLE
    return dataset.stepsize.where(stays).max("stepsize")


def gap_at_half(dataset: xr.Dataset, eta: float) -> xr.DataArray:
    """Return F − F* after half of the time with one stepsize, from zero."""
    here = dataset.loss.sel(start=STARTS[0], stepsize=eta, drop=True)
    return here.isel(time=here.sizes["time"] // 2, drop=True).mean("seed") - dataset.optimum


def time_table(dataset: xr.Dataset) -> Table:
    """Return seconds to the target and stability, at a rule's own best stepsize and at one."""
    eta, rows = together(dataset), []
    first, best, noise = to_target(dataset), own_best(dataset), stationary(dataset)
    half, most = gap_at_half(dataset, eta), largest_stable(dataset)
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
                    f"{float(most.sel(at)):g}",
                    f"{own:g}",
                    number(float(first.sel(at).sel(stepsize=own)), ".1f"),
                    number(float(mine.gap), ".3f"),
                    number(float(mine["std"]), ".1e"),
                    number(float(half.sel(at)), ".3f"),
                    number(float(same["std"]), ".1e"),
                )
            )
    header = ("scenario", "rule", "aggregations/s", "oldest", "stable to eta", "own best eta")
    times_ = (f"seconds to {TARGET:g}", "gap at the end", "std of loss")
    middle = float(dataset.time[dataset.sizes["time"] // 2])
    return Table((*header, *times_, f"eta {eta:g}: gap at {middle:g} s", "std of loss"), rows)


def claims_table(
    dataset: xr.Dataset, free: xr.Dataset, anarchic: xr.Dataset, clock: xr.Dataset
) -> Table:
    """Return what is claimed beside what was measured."""
    rows = []
    theory, abstract = f"{PAPER}, theory", f"{PAPER}, abstract"

    def row(
        claim: str, source: str, claimed: str, measured: str, met: bool, why: str = "-"
    ) -> None:
        rows.append((claim, source, claimed, measured, *(("yes", "-") if met else ("no", why))))

    for rule, other in SAME:
        gap = float(abs(dataset.x.sel(rule=rule) - dataset.x.sel(rule=other)).max())
        row(
            f"{rule} is {other} FedAvg (10 clients), largest difference of the models",
            "what the rules are",
            "0",
            number(gap, ".0e"),
            gap < 1e-12,
        )
    unfair, last = list(BIASED), dataset.scenario.values[-1]
    small, large = float(dataset.eta[-1]), float(dataset.eta[0])
    whole = dataset.sel(rule=unfair, scenario=last)
    for name, kind, values in (
        ("unbiased weights: |x - x*|", WEIGHTS[0], whole.away),
        ("identical weights: |x - x_q|, x_q the minimizer of sum q_i f_i", WEIGHTS[1], whole.off),
    ):
        here = values.sel(weights=kind)
        power = np.log(here.sel(eta=large) / here.sel(eta=small)) / np.log(large / small)
        row(
            f"{name} vanishes with eta, F-{last}, {len(unfair)} rules: fitted exponents",
            theory,
            "1",
            f"{float(power.min()):.2f} to {float(power.max()):.2f}; at eta {small:g} at most "
            f"{float(here.sel(eta=small).max()):.4f}",
            bool(power.min() > 0.7),
            "where all visits take a few ticks, little but the start is left at small eta",
        )
    ratio = (
        whole.away.sel(eta=small, weights=WEIGHTS[1])
        / whole.away.sel(eta=small, weights=WEIGHTS[0])
    ).values
    row(
        f"identical weights end elsewhere: |x - x*| over that of unbiased ones, F-{last}",
        theory,
        "far above 1",
        f"{ratio.min():.0f} to {ratio.max():.0f}",
        bool(ratio.min() > 10),
        "eta is too large to tell",
    )
    even = dataset.away.sel(rule=unfair, scenario=0, eta=small)
    differ = float(abs(even.sel(weights=WEIGHTS[1]) - even.sel(weights=WEIGHTS[0])).max())
    row(
        "equal speeds, F-0: both weights end at the same place, largest difference",
        "derived",
        "0",
        number(differ, ".0e"),
        differ < 1e-6,
        "clients are not equally often in a buffer",
    )
    paths = dataset.away.sel(weights=WEIGHTS[1], eta=small, rule=unfair)
    falls = [rule for rule in unfair if np.diff(paths.sel(rule=rule)).min() < -5 * small]
    worst = paths.sel(rule=falls[0]) if falls else None
    row(
        "the bias grows as the fastest client gets faster",
        "derived for asynchronous FedAvg: q_i prop. to 1/tau_i",
        f"for all {len(unfair)} rules",
        f"for {len(unfair) - len(falls)}",
        not falls,
        ""
        if worst is None
        else f"{', '.join(falls)}: "
        + ", ".join(f"{float(v):.3f} in F-{f}" for f, v in zip(worst.scenario.values, worst))
        + "; only the ticks of a visit matter, and when nearly all take one again bias shrinks",
    )
    ticks = {rule: RULES[rule]["every"] for rule in unfair if "every" in RULES[rule]}
    oldest = [int(dataset.oldest.sel(rule=rule).max()) for rule in ticks]
    bound = [int(np.ceil(1 / every)) - 1 for every in ticks.values()]
    eager = int(dataset.oldest.sel(rule=ASYNC, scenario=last))
    row(
        f"oldest return of {', '.join(ticks)}",
        "derived: ticks of the longest visit, less one",
        ", ".join(map(str, bound)),
        f"{', '.join(map(str, oldest))} ({ASYNC}: {eager})",
        oldest == bound,
    )
    for arrivals in map(str, anarchic.arrivals.values):
        here = anarchic.away.sel(arrivals=arrivals)
        one, other = (float(here.sel(algorithm=name)) for name in ("AFA-CD", "AFA-CS"))
        row(
            f"AFA-CS comes to x*, AFA-CD does not: |x - x*|, {arrivals} arrivals",
            "arXiv 2108.09875, as summarized",
            "CS far below CD",
            f"CD {one:.3f}, CS {other:.4f}",
            other < one / 10,
        )
    goal = anarchic.sel(arrivals="skewed", algorithm="AFA-CD")
    row(
        "AFA-CD comes near the minimizer of sum q_i f_i: |x - x_q| against |x_q - x*|, skewed",
        "derived",
        "far below",
        f"{float(goal.off):.3f}, {float(goal.predicted):.3f}",
        float(goal.off) < float(goal.predicted) / 3,
        "noise of who comes back",
    )
    time_claims(clock, row, abstract)
    return Table(("claim", "source", "claimed", "measured", "met", "if not, why"), rows)


def listing(values: xr.DataArray, form: str) -> str:
    """Return values over rules as text, the smallest first."""
    order = values.sortby(values)
    return ", ".join(f"{r} {float(order.sel(rule=r)):{form}}" for r in order.rule.values)


def time_claims(dataset: xr.Dataset, row: Any, abstract: str) -> None:
    """Add the claims on time and stability, by ``row``."""
    last, eta = dataset.scenario[-1], together(dataset)
    fair = dataset.sel(rule=[r for r in dataset.rule.values if r != NGUYEN])
    inner = [r for r in fair.rule.values if r not in (SYNC, ASYNC)]
    half = gap_at_half(fair, eta).sel(scenario=last, drop=True)
    middle = float(dataset.time[dataset.sizes["time"] // 2])
    noise, most = stationary(fair), largest_stable(fair).sel(scenario=last, drop=True)
    pace = fair.pace.sel(scenario=last, drop=True)
    best, first = own_best(fair), to_target(fair).min("stepsize")
    own, mine = (values.sel(scenario=last, drop=True) for values in (best, first))
    spread = noise["std"].sel(scenario=last, stepsize=eta, drop=True)
    title = f"F-{int(last)}, all with eta = {eta:g}"
    row(
        f"asynchronous FedAvg is the fastest, synchronous the slowest: gap at {middle:g} s, {title}",
        f"{abstract}: asynchronous FedAvg leads to fast convergence",
        f"{ASYNC} < FedFix < {SYNC}",
        listing(half, ".3f"),
        bool((half.sel(rule=ASYNC) < half.sel(rule=inner)).all())
        and bool((half.sel(rule=inner) < half.sel(rule=SYNC)).all()),
        "too unstable, or too early",
    )
    row(
        f"and the least stable: standard deviation of the loss around x*, {title}",
        f"{abstract}: at the expense of stability",
        f"{ASYNC} > FedFix > {SYNC}",
        listing(spread, ".1e"),
        bool((spread.sel(rule=ASYNC) > spread.sel(rule=inner)).all())
        and bool((spread.sel(rule=inner) > spread.sel(rule=SYNC)).all()),
        "rules that aggregate seldom are hardly apart",
    )
    row(
        f"largest stable stepsize, F-{int(last)}",
        f"{abstract}: FedFix preserves the stability of synchronous aggregation",
        f"{ASYNC} smallest, FedFix near {SYNC}",
        listing(most, "g"),
        bool((most.sel(rule=ASYNC) < most.sel(rule=inner)).all())
        and bool((most.sel(rule=inner) >= most.sel(rule=SYNC)).all()),
        "short ticks merge few clients at a time and give slow ones large weights",
    )
    speed = own * pace
    row(
        f"asynchronous FedAvg is the fastest, each at its own best eta: seconds to {TARGET:g}, "
        f"F-{int(last)}",
        f"{abstract}: fast convergence",
        f"{ASYNC} first",
        listing(mine, ".1f"),
        bool(mine.sel(rule=ASYNC) <= mine.min()),
        "its best eta is "
        f"{float(own.sel(rule=SYNC) / own.sel(rule=ASYNC)):.0f} times smaller than the synchronous "
        f"one, and it aggregates {float(pace.sel(rule=ASYNC) / pace.sel(rule=SYNC)):.0f} times as "
        f"often: eta times aggregations a second are {listing(speed, '.2g')}. Old updates of single "
        "clients with a few classes overshoot where the mean over all does not",
    )
    fix = [r for r in inner if str(r).startswith("FedFix")]
    row(
        f"FedFix improves on both, at its best ticks and each at its own best eta, F-{int(last)}",
        f"{abstract}: improvements over synchronous and asynchronous FedAvg",
        "fewer seconds",
        f"{listing(mine.sel(rule=fix), '.1f')}; {SYNC} {float(mine.sel(rule=SYNC)):.1f}, "
        f"{ASYNC} {float(mine.sel(rule=ASYNC)):.1f}",
        bool(mine.sel(rule=fix).min() < mine.sel(rule=[SYNC, ASYNC]).min()),
        "local steps make up for rare aggregation",
    )
    if dataset.sizes["scenario"] > 1:
        both = first.sel(rule=ASYNC) / first.sel(rule=SYNC)
        early, late = (float(both.sel(scenario=f)) for f in (dataset.scenario[0], last))
        row(
            "unequal speeds are what asynchrony is for: asynchronous over synchronous seconds to "
            f"{TARGET:g}, each at its own best eta",
            "derived",
            f"smaller in F-{int(last)}",
            f"{early:.1f} in F-{int(dataset.scenario[0])}, {late:.1f} in F-{int(last)}",
            late < early,
            "the stable stepsize falls by as much as the number of aggregations grows",
        )


def figure(dataset: xr.Dataset, free: xr.Dataset, anarchic: xr.Dataset, clock: xr.Dataset) -> Any:
    """Return the figure: bias above, time below, stability in the last column."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(2, 4, figsize=(17.5, 8.2), layout="constrained")
    small, last = float(dataset.eta[-1]), dataset.scenario.values[-1]

    def style(rule: Any) -> dict[str, Any]:
        color, line = COLORS[str(rule)]
        return {"color": jd.plot.PALETTE[color], "linestyle": line, "linewidth": 1.7}

    ax = axes[0, 0]
    named = dataset.sel(weights=WEIGHTS[1], eta=small)
    for rule in (*BIASED, NGUYEN):
        here = free.sel(eta=small) if rule == NGUYEN else named.sel(rule=rule)
        look = style(rule)
        ax.plot(here.scenario, here.predicted, label=rule, **look)
        ax.plot(here.scenario, here.away, "o", color=look["color"], markersize=5)
        if rule != NGUYEN:
            fair = dataset.away.sel(rule=rule, weights=WEIGHTS[0], eta=small)
            ax.plot(fair.scenario, fair, "x", color=look["color"], markersize=5)
    ax.set_xticks(dataset.scenario, [f"F-{f}" for f in dataset.scenario.values])
    ax.set(
        xlabel="the fastest client takes x % less time",
        ylabel=r"$|x - x^\star|$",
        title="identical weights: dots, lines by theory;\nunbiased weights: crosses",
    )
    ax.legend(fontsize=8)
    ax = axes[0, 1]
    for rule in (ASYNC, "FedFix 0.2", "FedBuff 5"):
        here, look = dataset.sel(rule=rule, scenario=last), style(rule)
        color = look["color"]
        bias = here.away.sel(weights=WEIGHTS[1])
        ax.plot(here.eta, bias, "s:", color=color, label=f"{rule}, identical: to $x^\\star$")
        fair = here.away.sel(weights=WEIGHTS[0])
        ax.plot(here.eta, fair, "x-", color=color, label=f"{rule}, unbiased: to $x^\\star$")
        off = here.off.sel(weights=WEIGHTS[1])
        ax.plot(here.eta, off, "o--", color=color, label=f"{rule}, identical: to $x_q$")
    ax.set(xscale="log", yscale="log", ylim=(None, 30), xlabel=r"stepsize $\eta$")
    ax.set(
        ylabel="distance at the end", title=rf"limits in F-{last}; $x_q$ minimizes $\sum q_i f_i$"
    )
    ax.set_xticks(dataset.eta.values, [f"{eta:g}" for eta in dataset.eta.values])
    ax.minorticks_off()
    ax.legend(fontsize=7.5, loc="upper left")
    ax = axes[0, 2]
    for i, name in enumerate(map(str, anarchic.algorithm.values)):
        for arrivals, line in (("even", "--"), ("skewed", "-")):
            here = anarchic.sel(algorithm=name, arrivals=arrivals)
            color = jd.plot.PALETTE[(1, 0)[i]]
            path = np.sqrt(here.distance_squared)
            ax.plot(here.step, path, line, color=color, label=f"{name}, {arrivals} arrivals")
    goal = float(anarchic.predicted.sel(arrivals="skewed")[0])
    ax.axhline(goal, color="0.4", linewidth=1, linestyle=":")
    ax.text(
        float(anarchic.step[-1]), goal * 1.1, r"$|x_q - x^\star|$, skewed", ha="right", color="0.3"
    )
    ax.set(yscale="log", xlabel="aggregations", ylabel=r"$|x - x^\star|$", title="anarchic clients")
    ax.legend(fontsize=8)
    time_panels(axes, clock, style)
    return fig


def time_panels(axes: Any, dataset: xr.Dataset, style: Any) -> None:
    """Draw accuracies over time, and what an aggregation rule stands."""
    eta, best, first = together(dataset), own_best(dataset), to_target(dataset)
    noise, last = stationary(dataset), dataset.scenario.values[-1]
    accuracy = dataset.accuracy.sel(start=STARTS[0], drop=True)
    panels = [(f, None) for f in dataset.scenario.values] + [(last, eta)]
    for ax, (percent, given) in zip(axes[1], panels, strict=False):
        for rule in dataset.rule.values:
            own = best.sel(rule=rule, scenario=percent) if given is None else given
            here = accuracy.sel(rule=rule, scenario=percent, stepsize=own)
            label = f"{rule}, η = {float(own):.2g}" if given is None else str(rule)
            ax.plot(here.time, here.median("seed"), label=label, **style(rule))
            low, high = (here.quantile(q, "seed") for q in (0.1, 0.9))
            color = style(rule)["color"]
            ax.fill_between(here.time, low, high, alpha=0.12, linewidth=0, color=color)
        ax.axhline(TARGET, color="0.5", linewidth=1, linestyle=":")
        what = "each at its own best η" if given is None else f"all with η = 1/{1 / given:g}"
        ax.set(title=f"F-{percent}, {what}", xlabel="simulated seconds", ylim=(0, 1))
        ax.set(xlim=(0, float(dataset.time[-1])), ylabel="held-out accuracy")
        ax.legend(fontsize=7.5, loc="lower right")
    for ax in axes[1, len(panels) : 3]:
        ax.set_visible(False)
    upper, lower = axes[0, 3], axes[1, 3]
    for rule in dataset.rule.values:
        at = {"rule": rule, "scenario": last}
        speed = dataset.stepsize * float(dataset.pace.sel(at))
        upper.plot(speed, first.sel(at), marker="o", markersize=4, label=str(rule), **style(rule))
        lower.plot(speed, noise["std"].sel(at), marker="o", markersize=4, **style(rule))
    upper.set(yscale="log", ylabel=f"simulated seconds to accuracy {TARGET:g}")
    upper.set_yticks([5, 10, 20, 40], ["5", "10", "20", "40"])
    upper.minorticks_off()
    upper.legend(fontsize=8)
    lower.set(
        yscale="log", ylim=(1e-6, 10), ylabel="standard deviation of the loss, from the solution"
    )
    upper.set_title(f"F-{last}: time to the target")
    lower.set_title(f"F-{last}: stability")
    for ax in (upper, lower):
        ax.set(xscale="log", xlabel="η times aggregations a second")


def run(
    quick: bool, out: Path, seed: int, scale: str = "small", progress: bool = True
) -> list[Path]:
    """Run everything; print the tables; return the files written into ``out``."""
    full = scale == "full" and not quick
    scenarios, etas = (SCENARIOS[::4], ETAS[:2]) if quick else (SCENARIOS, ETAS)
    steps = 2000 if quick else 4000
    dataset = limits(list(RULES), scenarios, etas, steps, seed)
    free = never_waiting(scenarios, etas, steps, seed)
    anarchic = anarchy(steps, seed)
    clock = timed(
        TIMED[:4:3] + TIMED[1:2] if quick else TIMED,
        scenarios[-1:] if quick else (scenarios[0], scenarios[-1]),
        (2.0**-6, 0.5, 2.0) if quick else GRID,
        horizon=30.0 if quick else 60.0,
        seeds=1 if quick else 10 if full else 3,
        seed=seed,
        progress=progress,
    )
    eta = f"{etas[-1]:g}"
    tables = {
        "bias": (f"limits in F-80 with eta = {eta}", bias_table(dataset, free)),
        "growth": (
            f"|x - x*| with identical weights, eta = {eta} (that of the minimizer of sum q_i f_i)",
            growth_table(dataset, free),
        ),
        "anarchy": ("AFA-CD and AFA-CS, 2 returns an aggregation", anarchy_table(anarchic)),
        "time": (
            "digits: at its own best eta, and at the largest that asynchronous FedAvg stands",
            time_table(clock),
        ),
        "claims": (
            "what is claimed and what was measured",
            claims_table(dataset, free, anarchic, clock),
        ),
    }
    return results.write(
        "fedfix",
        out,
        command=f"python -m experiments fedfix --seed {seed} --scale {scale}"
        + (" --quick" if quick else ""),
        tables=tables,
        datasets={"limits": dataset, "free": free, "anarchy": anarchic, "time": clock},
        figures={"fedfix": figure(dataset, free, anarchic, clock)},
    )
