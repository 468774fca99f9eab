"""FedFix and other rules that aggregate before all clients return (arXiv 2206.10189).

Clients of unequal speeds. In the scenario F-80 their visits take times spaced equally from 1 second
to 0.2 (F-x: to 1 − x/100). A server waits for all (synchronous FedAvg) or for none (asynchronous),
aggregates at ticks Δ (FedFix) or as soon as c have returned (FedBuff; clients wait for the buffer,
as in this paper). With dᵢ = 1/(n φᵢ), φᵢ how often i is in an aggregation, expected weights are
equal; with one d for all they are qᵢ ∝ φᵢ. Three questions:

* *bias*: ten quadratics with different Hessians, one local step of a small η. How far from x* do
  both weights lead, how far from the minimizer x_q of Σᵢ qᵢ fᵢ, and how does that grow with the
  fastest client's speed? Identical weights are 1/Σφᵢ, so that all move at the same pace. FedBuff
  of arXiv 2106.06639 (no client waits, weights 1/√(1 + t)) is measured beside them.
* *anarchy*: AFA-CD and AFA-CS (arXiv 2108.09875), Kᵢ = 1 ... 5 local steps, clients that come back
  after exponential times, equally often or the rarest a twentieth as often as the quickest.
* *time*: softmax regression of the digits, split by Dirichlet(0.1) over 20 clients, ten local steps
  on minibatches; held-out accuracy over simulated seconds in F-0 and F-80. Stability is the loss's
  standard deviation in the last half of runs that begin at the solution, which knows no trend
  but a biased rule's, to its own limit.

Distances are root mean squares over the last quarter of a run. What departs from the paper: convex
problems and plain local steps in place of networks and momentum, as in its theory. Stepsizes are
compared both as one for all and as each rule's own best, as we do not know how the paper's were
chosen; its claims are known from its abstract and the authors' code.

What the numbers do not say by themselves: expected weights sum to one in every aggregation,
whatever the rule, so that with one η a rule that aggregates 41 times a second takes 41 synchronous
steps in that second. (FedFix with Δ = 0.5 in F-0 is FedAvg with a server stepsize of 2.) Around the
solution the loss fluctuates with η times aggregations a second, whatever the rule, up to a limit of
stability, and there rules differ: ten synchronous local steps can be long, as they stop at a
client's own minimizer, while steps along old updates of single clients overshoot. With one local
step instead of ten, synchronous FedAvg has no such advantage, and asynchronous FedAvg is first.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import xarray as xr
from tqdm import tqdm

import jaxdopt as jd
from experiments import results
from experiments.tables import number
from jaxdopt.networks.events import durations

PAPER = "arXiv 2206.10189"
CLIENTS, DIMENSION = 10, 5
SCENARIOS = (0, 20, 40, 60, 80)
SYNC, ASYNC = "synchronous", "asynchronous"
NEVER = "FedBuff 5, never waiting"  # of arXiv 2106.06639
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
    NEVER: {"buffer": 5, "restart": "at once"},
}
BIASED = (ASYNC, "FedFix 0.2", "FedFix 0.5", "FedFix 0.8", "FedBuff 2", "FedBuff 5")
SAME = (("FedFix 1", SYNC), ("FedBuff 10", SYNC), ("FedBuff 1", ASYNC))  # of ten clients
UNBIASED, IDENTICAL = WEIGHTS = ("unbiased", "identical")
ETAS = (0.02, 0.01, 0.005)
RECORDS = 200

RATES = {"even": np.ones(CLIENTS), "skewed": np.geomspace(1, 1 / 20, CLIENTS)}
WORK = np.array([1, 2, 3, 4, 5, 5, 4, 3, 2, 1])  # Kᵢ of AFA

FEDERATION, BATCH, LOCAL_STEPS = 20, 8, 10
SPLIT = 13  # the first seed of a Dirichlet(0.1) split with more than `BATCH` + 4 samples a client
GRID = tuple(2.0**j for j in range(-8, 3))
TIMED = (SYNC, ASYNC, "FedFix 0.2", "FedFix 0.5", "FedFix 0.8", "FedBuff 5", "FedBuff 10", NEVER)
TARGET, STAYS = 0.9, 5.0  # held-out accuracy, and the seconds for which it has to stay there
STABLE = 0.1  # mean gap of the last half, begun at the solution: accuracies are below 0.9 then
RESOLUTION = 0.5  # seconds between records, or an aggregation if that takes longer
STARTS = ("zero", "solution")
STYLES = {
    SYNC: (6, "-"),
    ASYNC: (1, "-"),
    "FedFix 0.2": (4, "-"),
    "FedFix 0.5": (0, "-"),
    "FedFix 0.8": (0, "--"),
    "FedBuff 2": (5, "-"),
    "FedBuff 5": (2, "-"),
    "FedBuff 10": (2, "--"),
    NEVER: (3, "-."),
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
    return jd.problems.quadratic(
        CLIENTS, DIMENSION, condition_number=2.0, curvature_spread=0.7, seed=seed
    )


def server(state: Any, problem: Any) -> jax.Array:  # noqa: ARG001
    """Return the server's model [d]."""
    return state.server


def ends(
    rules: Sequence[str],
    weights: str,
    scenarios: Sequence[int],
    etas: Sequence[float],
    steps: int,
    seed: int = 0,
) -> xr.Dataset:
    """Return servers' models over rule, scenario, η and step; q, and how old returns are."""
    problem, key = quadratics(seed), jax.random.key(seed)
    made = [
        arrivals(rule, CLIENTS, percent, steps=steps) for rule in rules for percent in scenarios
    ]
    often = np.stack([np.asarray(network.frequency) for network in made])  # φ [cells, n]
    if NEVER in rules:  # E Σ 1/(c √(1 + t)) of each, and a server stepsize that makes their sum 1
        share = [np.bincount(m.agents.ravel(), 1 / np.sqrt(1 + m.staleness.ravel())) for m in made]
        q = np.stack(share) / made[0].agents.size
        methods = jax.vmap(lambda pace: jd.FedBuff(0.1, pace))(jnp.asarray(1 / q.sum(axis=1)))
    else:
        d = 1 / (CLIENTS * often) if weights == UNBIASED else 1 / often.sum(axis=1, keepdims=True)
        q = often * d
        columns = jnp.asarray(np.broadcast_to(d, q.shape)[..., None])
        methods = jax.vmap(lambda d: jd.AsyncFedAvg(0.1, weights=d))(columns)

    def one(method: Any, network: Any, eta: Any) -> Any:
        method = jd.replace(method, stepsize=eta)
        options = {"steps": steps, "every": steps // RECORDS, "metrics": {"x": server}}
        return jd.run(method, problem, network, problem.start(), key, **options).metrics["x"]

    stacked = jd.networks.stack([jd.replace(network, ticks=False) for network in made])
    x = jax.vmap(jax.vmap(one, (None, None, 0)), (0, 0, None))(methods, stacked, jnp.asarray(etas))
    shape, dims = (len(rules), len(scenarios)), ("rule", "scenario")
    variables = {
        "x": ((*dims, "eta", "step", "d"), np.reshape(x, shape + x.shape[1:])),
        "q": ((*dims, "client"), np.reshape(q, (*shape, CLIENTS))),
        "oldest": (dims, np.reshape([staleness(network).max() for network in made], shape)),
        "age": (dims, np.reshape([staleness(network).mean() for network in made], shape)),
    }
    coordinates = {"rule": list(rules), "scenario": list(scenarios), "eta": list(etas)}
    return xr.Dataset(variables, coordinates).expand_dims(weights=[weights])


def limits(
    scenarios: Sequence[int], etas: Sequence[float], steps: int, seed: int = 0
) -> xr.Dataset:
    """Return `ends` of all rules and weights; `NEVER` has weights of its own, "identical"."""
    rules, options = list(RULES)[:-1], (scenarios, etas, steps, seed)
    both: Any = xr.concat([ends(rules, kind, *options) for kind in WEIGHTS], "weights")
    whole: Any = xr.concat([both, ends([NEVER], IDENTICAL, *options)], "rule", join="outer")
    return with_distances(whole, quadratics(seed))


def with_distances(dataset: xr.Dataset, problem: Any) -> xr.Dataset:
    """Add |x_q − x*| (predicted), and the last models' distances from x* (away) and x_q (off)."""
    q = dataset.q.transpose(..., "client").values
    curved = np.einsum("...n,nij->...ij", q, np.asarray(problem.hessians))
    tilted = np.einsum("...n,ni->...i", q, np.asarray(problem.tilts))
    shift = -np.linalg.solve(curved, tilted[..., None])[..., 0]  # of Σᵢ qᵢ fᵢ's minimizer from x*
    dims = [d for d in dataset.q.dims if d != "client"]
    goal = xr.DataArray(shift, dims=(*dims, "d"))
    last = dataset.x.isel(step=slice(-(RECORDS // 4), None))
    last = last - xr.DataArray(np.asarray(problem.solution), dims="d")

    def length(vector: Any) -> Any:
        return np.sqrt((vector**2).sum("d", skipna=False))

    def rms(vector: Any) -> Any:
        return np.sqrt((length(vector) ** 2).mean("step"))

    return dataset.assign(predicted=length(goal), away=rms(last), off=rms(last - goal))


def anarchy(steps: int, seed: int = 0) -> xr.Dataset:
    """Return AFA-CD's and AFA-CS's distances over arrivals (even, skewed), algorithm and step."""
    problem, key = quadratics(seed), jax.random.key(seed)
    draws = np.random.default_rng(seed).exponential(size=(2 * steps, CLIENTS))
    options: dict[str, Any] = {"buffer": 2, "restart": "at once", "steps": steps}
    made = [
        jd.networks.arrivals(CLIENTS, compute=durations.Table(draws / rate), **options)
        for rate in RATES.values()
    ]
    swept, stacked = jd.sweep(jd.run, over="network"), jd.networks.stack(made)
    options = {"steps": steps, "every": steps // RECORDS, "metrics": {"x": server}}
    parts = []
    for kind in (jd.AFACD, jd.AFACS):
        method = kind(1e-3, 0.01, int(WORK.max()), jnp.asarray(WORK)[:, None])
        run = swept(method, problem, stacked, problem.start(), key, **options)
        parts.append(jd.label(run, arrivals=list(RATES))[["x", "distance_squared"]])
    index: Any = xr.DataArray(["AFA-CD", "AFA-CS"], dims="algorithm", name="algorithm")
    dataset: Any = xr.concat(parts, index).rename(x_0="d")
    dataset["q"] = ("arrivals", "client"), np.stack([np.asarray(m.frequency) for m in made])
    dataset["oldest"] = "arrivals", [staleness(network).max() for network in made]
    return with_distances(dataset, problem)


@functools.cache
def digits() -> tuple[Any, Any]:
    """Return softmax regression of the digits over 20 clients, and its held-out accuracy."""
    train, test = jd.data.digits().split(0.2)
    features, held_out = (np.hstack([f, np.ones((len(f), 1))]) for f in (train[0], test[0]))
    split = jd.partition.dirichlet(0.1, seed=SPLIT)
    problem = jd.problems.softmax_regression(
        features, train.labels, agents=FEDERATION, partition=split, l2=1e-3
    )
    return problem.solved(), jd.metrics.accuracy(held_out, test.labels)


def timed(
    names: Sequence[str],
    scenarios: Sequence[int],
    grid: Sequence[float],
    *,
    horizon: float,
    seeds: int,
    seed: int = 0,
    local_steps: int = LOCAL_STEPS,
    progress: bool = True,
) -> xr.Dataset:
    """Return loss and accuracy: scenario, rule, start, stepsize, seed, time in seconds.

    What is known at a time is the last record of the server until then.
    """
    problem, accuracy = digits()
    noisy = jd.problems.Minibatch(problem, BATCH)
    points = (problem.start(), problem.start(problem.unravel(problem.solution)))
    clock = np.arange(0, horizon + RESOLUTION / 2, RESOLUTION)
    cells = [(percent, name) for percent in scenarios for name in names]
    found = []
    for percent, name in tqdm(cells, unit="rule", disable=not progress):
        network = arrivals(name, FEDERATION, percent, seconds=horizon)
        ticks = "every" in RULES[name]
        kind = jd.FedBuff if name == NEVER else jd.FedFix if ticks else jd.AsyncFedAvg
        every = max(1, round(network.horizon / horizon * RESOLUTION))
        options: dict[str, Any] = {
            "over": {"stepsize": grid},
            "seeds": range(seed, seed + seeds),
            "steps": network.horizon // every * every,
            "every": every,
            "metrics": {"accuracy": accuracy},
            "progress": False,
        }
        both = []
        for x0 in points:
            method = {name: kind(0.1, local_steps=local_steps)}
            part = jd.compare(method, noisy, network, x0=x0, **options)
            part = part.isel(algorithm=0, network=0, drop=True)
            now = part.seconds.isel(stepsize=0, seed=0).values
            at = np.searchsorted(now, clock + 1e-3, side="right") - 1
            part = part[["loss", "accuracy"]].isel(step=at).rename(step="time")
            both.append(part.assign_coords(time=clock))
        whole: Any = xr.concat(both, xr.DataArray(list(STARTS), dims="start", name="start"))
        facts = {"pace": network.horizon / horizon, "oldest": int(staleness(network).max())}
        whole = whole.assign(facts).expand_dims(scenario=[percent], rule=[name])
        found.append(whole)
    dataset: Any = xr.combine_by_coords(found, combine_attrs="drop_conflicts")
    return dataset.reindex(rule=list(names)).assign(optimum=float(problem.optimum))


def to_target(dataset: xr.Dataset) -> xr.DataArray:
    """Return seconds until the accuracy is at `TARGET` and stays, NaN if never: the median seed."""
    window = round(STAYS / RESOLUTION)
    there = (dataset.accuracy.sel(start=STARTS[0], drop=True) >= TARGET).astype(float)
    stays = there.rolling(time=window).min().shift(time=1 - window).fillna(0) > 0
    first = dataset.time.isel(time=stays.argmax("time")).where(stays.any("time"))
    return first.drop_vars("time").median("seed", skipna=False)


def own_best(dataset: xr.Dataset) -> xr.DataArray:
    """Return the stepsize with which a rule is first at the target, else ends lowest."""
    last = dataset.loss.sel(start=STARTS[0], drop=True).isel(time=-1, drop=True).mean("seed")
    late = 1e9 * (1 + last.fillna(np.inf).clip(max=1e6))
    return dataset.stepsize.isel(stepsize=to_target(dataset).fillna(late).argmin("stepsize"))


def stationary(dataset: xr.Dataset) -> xr.Dataset:
    """Return the gap and the loss's standard deviation in the last half, begun at the solution."""
    last = dataset.loss.sel(start=STARTS[1], drop=True)
    last = last.isel(time=slice(dataset.sizes["time"] // 2, None))
    spread = np.sqrt(last.var("time").mean("seed"))
    return xr.Dataset({"gap": last.mean(("time", "seed")) - dataset.optimum, "std": spread})


def largest_stable(dataset: xr.Dataset) -> xr.DataArray:
    """Return the largest stepsize with which, begun at the solution, gaps stay below `STABLE`."""
    return dataset.stepsize.where(stationary(dataset).gap <= STABLE).max("stepsize")


def together(dataset: xr.Dataset) -> float:
    """Return the stepsize to compare all with: the largest that asynchronous FedAvg stands."""
    return float(largest_stable(dataset).sel(rule=ASYNC).isel(scenario=-1))


def halfway(dataset: xr.Dataset) -> xr.DataArray:
    """Return F − F* after half of the time with the stepsize `together`, begun at zero."""
    here = dataset.loss.sel(start=STARTS[0], stepsize=together(dataset), drop=True)
    return here.isel(time=here.sizes["time"] // 2, drop=True).mean("seed") - dataset.optimum


def bias_table(dataset: xr.Dataset) -> pd.DataFrame:
    """Return limits with the smallest η in the last scenario, over rules."""
    rows = []
    for rule in map(str, dataset.rule.values):
        here = dataset.sel(rule=rule).isel(eta=-1, scenario=-1)
        fair, naive = (here.sel(weights=kind) for kind in WEIGHTS)
        values = (fair.away, naive.away, naive.predicted, naive.off)
        q = naive.q.values
        rows.append(
            (
                rule,
                *(number(float(value), ".4f") for value in values),
                f"{q.max() / q.min():.2f}",
                f"{float(naive.oldest):.0f}",
                f"{float(naive.age):.2f}",
            )
        )
    header = ("rule", "unbiased |x - x*|", "identical |x - x*|", "|x_q - x*|", "|x - x_q|")
    return pd.DataFrame(rows, columns=(*header, "q max/min", "oldest", "mean age"))


def growth_table(dataset: xr.Dataset) -> pd.DataFrame:
    """Return |x − x*| with identical weights and the smallest η over scenarios, and |x_q − x*|."""
    rows = []
    for rule in (*BIASED, NEVER):
        here = dataset.sel(rule=rule, weights=IDENTICAL).isel(eta=-1)
        pairs = zip(here.away.values, here.predicted.values, strict=True)
        rows.append((rule, *(f"{away:.3f} ({goal:.3f})" for away, goal in pairs)))
    return pd.DataFrame(
        rows, columns=("rule", *(f"F-{percent}" for percent in dataset.scenario.values))
    )


def time_table(dataset: xr.Dataset) -> pd.DataFrame:
    """Return seconds to the target and stability, at a rule's own best stepsize and at one."""
    rows, eta = [], together(dataset)
    best, most, noise = own_best(dataset), largest_stable(dataset), stationary(dataset)
    first, half = to_target(dataset), halfway(dataset)
    for percent in dataset.scenario.values:
        for rule in map(str, dataset.rule.values):
            at = {"scenario": percent, "rule": rule}
            own, same = ({**at, "stepsize": e} for e in (float(best.sel(at)), eta))
            cells = (
                (dataset.pace.sel(at), ".1f"),
                (dataset.oldest.sel(at), ".0f"),
                (most.sel(at), "g"),
                (best.sel(at), "g"),
                (first.sel(own), ".1f"),
                (noise.gap.sel(own), ".3f"),
                (noise["std"].sel(own), ".1e"),
                (half.sel(at), ".3f"),
                (noise["std"].sel(same), ".1e"),
            )
            texts = (number(float(value), form) for value, form in cells)
            rows.append((f"F-{percent}", rule, *texts))
    header = ("scenario", "rule", "aggregations/s", "oldest", "stable to eta", "own best eta")
    middle = float(dataset.time[dataset.sizes["time"] // 2])
    own = (f"seconds to {TARGET:g}", "gap around x*", "std")
    return pd.DataFrame(rows, columns=(*header, *own, f"eta {eta:g}: gap at {middle:g} s", "std"))


def entry(
    claim: str, source: str, claimed: str, measured: str, met: bool, why: str = "-"
) -> tuple[str, ...]:
    """Return a row of the table of claims."""
    return claim, source, claimed, measured, *(("yes", "-") if met else ("no", why))


def listing(values: xr.DataArray, form: str) -> str:
    """Return values over rules as text, the smallest first."""
    ordered = values.sortby(values)
    return ", ".join(
        f"{r} {float(v):{form}}" for r, v in zip(ordered.rule.values, ordered, strict=True)
    )


def bias_claims(dataset: xr.Dataset) -> list[tuple[str, ...]]:
    """Return what is claimed of limits beside what was measured."""
    theory, last = f"{PAPER}, authors' code; derived", dataset.scenario.values[-1]
    rows = []
    for rule, other in SAME:
        apart = float(abs(dataset.x.sel(rule=rule) - dataset.x.sel(rule=other)).max())
        claim = f"{rule} is {other} FedAvg, of 10 clients: largest difference of the models"
        rows.append(entry(claim, "what the rules are", "0", number(apart, ".0e"), apart < 1e-12))
    eta = dataset.eta.values
    unfair = dataset.sel(rule=list(BIASED))
    far = unfair.sel(scenario=last)
    for name, value in (
        ("unbiased weights: |x - x*|", far.away.sel(weights=UNBIASED)),
        ("identical weights: |x - x_q|", far.off.sel(weights=IDENTICAL)),
    ):
        power = np.log(value[{"eta": 0}] / value[{"eta": -1}]) / np.log(eta[0] / eta[-1])
        claim = f"{name} vanishes with eta, F-{last}, {len(BIASED)} rules: fitted exponents"
        most = f"at eta {eta[-1]:g} at most {float(value[{'eta': -1}].max()):.4f}"
        measured = f"{float(power.min()):.2f} to {float(power.max()):.2f}; {most}"
        why = "buffers' frequencies in a finite table differ from those in the long run"
        rows.append(entry(claim, theory, "1", measured, bool(abs(power - 1).max() < 0.35), why))
    small = unfair.away.sel(eta=eta[-1])
    ratio = (small.sel(weights=IDENTICAL) / small.sel(weights=UNBIASED)).sel(scenario=last)
    claim = f"identical weights end elsewhere: their |x - x*| over the unbiased ones', F-{last}"
    measured = f"{float(ratio.min()):.0f} to {float(ratio.max()):.0f}"
    rows.append(entry(claim, theory, "far above 1", measured, bool(ratio.min() > 10), "large eta"))
    even = small.sel(scenario=0)
    apart = float(abs(even.sel(weights=IDENTICAL) - even.sel(weights=UNBIASED)).max())
    claim = "equal speeds, F-0: both weights end at the same distance, largest difference"
    why = "clients are not equally often in a buffer"
    rows.append(entry(claim, "derived", "0 up to 1e-3", number(apart, ".0e"), apart < 1e-3, why))
    paths = small.sel(weights=IDENTICAL)
    falls = [r for r in BIASED if paths.sel(rule=r).diff("scenario").min() < -eta[-1]]
    why = "; ".join(
        f"{r}: " + ", ".join(f"{float(v):.3f} in F-{int(v.scenario)}" for v in paths.sel(rule=r))
        for r in falls
    )
    q = unfair.q.sel(weights=IDENTICAL, rule=falls)
    often = ", ".join(map(str, (q > 1.01 * q.min("client")).sum("client").values.ravel()))
    why += f". Only the ticks of a visit count: {often} of {CLIENTS} clients have a larger q; how "
    why += "far their gradients at x* cancel is a matter of the instance"
    claim = "the bias grows as the fastest client gets faster"
    source = "derived for asynchronous FedAvg: q_i prop. to 1/tau_i"
    claimed, measured = f"for all {len(BIASED)} rules", f"for {len(BIASED) - len(falls)}"
    rows.append(entry(claim, source, claimed, measured, not falls, why))
    every = {r: RULES[r]["every"] for r in BIASED if "every" in RULES[r]}
    bound = [int(np.ceil(1 / tick)) - 1 for tick in every.values()]
    oldest = dataset.oldest.sel(weights=IDENTICAL)
    found = [int(oldest.sel(rule=r).max()) for r in every]
    claim, source = f"oldest return of {', '.join(every)}", "derived: ticks of a visit, less one"
    measured = f"{', '.join(map(str, found))} ({ASYNC} {int(oldest.sel(rule=ASYNC).max())})"
    rows.append(entry(claim, source, ", ".join(map(str, bound)), measured, found == bound))
    return rows


def anarchy_claims(dataset: xr.Dataset) -> list[tuple[str, ...]]:
    """Return what is claimed of AFA beside what was measured."""
    rows = []
    for kind in map(str, dataset.arrivals.values):
        one, other = (dataset.sel(arrivals=kind, algorithm=a) for a in ("AFA-CD", "AFA-CS"))
        claim = f"AFA-CS comes to x*, AFA-CD does not: |x - x*|, {kind} arrivals"
        measured = f"CD {float(one.away):.4f}, CS {float(other.away):.4f}"
        met = bool(other.away < one.away / 10)
        rows.append(entry(claim, "arXiv 2108.09875, from memory", "CS far below", measured, met))
    claim = "AFA-CD comes near x_q: |x - x_q| against |x_q - x*|, skewed arrivals"
    measured = f"{float(one.off):.3f}, {float(one.predicted):.3f}"
    met = bool(one.off < one.predicted / 3)
    rows.append(entry(claim, "derived", "far below", measured, met, "noise of who comes back"))
    return rows


def time_claims(dataset: xr.Dataset, single: xr.Dataset | None) -> list[tuple[str, ...]]:
    """Return what is claimed of time and stability beside what was measured.

    ``single`` is the same with one local step.
    """
    percent, eta = int(dataset.scenario[-1]), together(dataset)
    fair = dataset.sel(rule=[rule for rule in dataset.rule.values if rule != NEVER])
    ends = [fair.rule.isin([name]) for name in (ASYNC, SYNC)]
    first = to_target(fair).min("stepsize")
    here, mine = fair.isel(scenario=[-1]), first.isel(scenario=-1)
    half, most = (f(here).isel(scenario=0) for f in (halfway, largest_stable))
    spread = stationary(here)["std"].sel(stepsize=eta).isel(scenario=0)

    def between(values: xr.DataArray) -> bool:
        """Tell whether all others are above asynchronous FedAvg and below the synchronous one."""
        low, high = (float(values.where(end).max()) for end in ends)
        others = values.where(~(ends[0] | ends[1]), drop=True)
        return bool((low < others).all() and (others < high).all())

    where, middle = f"F-{percent}, all with eta {eta:g}", float(dataset.time[-1]) / 2
    rows = []

    def row(claim: str, source: str, claimed: str, measured: str, met: bool, why: str) -> None:
        rows.append(entry(claim, f"{PAPER}, abstract: {source}", claimed, measured, met, why))

    claim = f"asynchronous FedAvg is the fastest: gap after {middle:g} s, {where}"
    claimed, why = f"{ASYNC} < FedFix < {SYNC}", "buffers and ticks order aggregations otherwise"
    row(claim, "fast convergence", claimed, listing(half, ".3f"), between(half), why)
    claim = f"and the least stable: standard deviation of the loss around x*, {where}"
    claimed, why = f"{ASYNC} > FedFix > {SYNC}", "rules that aggregate seldom are hardly apart"
    row(
        claim,
        "at the expense of stability",
        claimed,
        listing(spread, ".1e"),
        between(1 / spread),
        why,
    )
    met = bool(most.where(~ends[0]).min() >= most.where(ends[1]).max())
    source, why = "FedFix keeps synchronous stability", "short ticks merge few clients at a time"
    claim, claimed = f"largest stable stepsize, F-{percent}", f"{ASYNC} < FedFix = {SYNC}"
    row(claim, source, claimed, listing(most, "g"), met, why)
    own, pace = own_best(here).isel(scenario=0), here.pace.isel(scenario=0)
    smaller = float(own.sel(rule=SYNC) / own.sel(rule=ASYNC))
    oftener = float(pace.sel(rule=ASYNC) / pace.sel(rule=SYNC))
    claim = f"asynchronous FedAvg is the fastest, each with its best eta: seconds to {TARGET:g}"
    why = (
        f"it aggregates {oftener:.0f} times as often, and its best eta is {smaller:.0f} times "
        f"smaller: eta times aggregations a second are {listing(own * pace, '.2g')}. Ten local "
        "steps can be long where all clients' are averaged, and overshoot where they are old"
    )
    met = bool(mine.sel(rule=ASYNC) <= mine.min())
    row(claim, "fast convergence", f"{ASYNC} first", listing(mine, ".1f"), met, why)
    if single is not None:
        alone = to_target(single).min("stepsize").isel(scenario=-1)
        claim, measured = (
            f"the same with one local step instead of {LOCAL_STEPS}",
            listing(alone, ".1f"),
        )
        met = bool(alone.sel(rule=ASYNC) <= alone.min())
        row(claim, "fast convergence", f"{ASYNC} first", measured, met, "old updates overshoot")
    fix = [rule for rule in fair.rule.values if rule.startswith("FedFix")]
    gain = float(mine.sel(rule=[SYNC, ASYNC]).min() / mine.sel(rule=fix).min())
    claim = f"FedFix improves on both, at its best ticks and each with its best eta, F-{percent}"
    measured = f"{gain:.2f}; {listing(mine.sel(rule=[SYNC, ASYNC, *fix]), '.1f')}"
    why = "the first and the second are as close as the grid's factor of 2 and a round can tell"
    row(claim, "improvements over both", "above 1.1 times as fast", measured, gain > 1.1, why)
    if fair.sizes["scenario"] > 1:
        late = first.sel(rule=ASYNC) / first.sel(rule=SYNC)
        claim = "unequal speeds are what asynchrony is for: its seconds over synchronous ones"
        measured = ", ".join(f"{float(v):.1f} in F-{int(v.scenario)}" for v in late)
        met = bool(late[-1] < late[0])
        rows.append(entry(claim, "derived", f"less in F-{percent}", measured, met, "unstable"))
    return rows


def fraction(eta: float) -> str:
    """Return a power of two as text."""
    return f"{eta:g}" if eta >= 1 else f"1/{1 / eta:g}"


def figure(dataset: xr.Dataset, anarchic: xr.Dataset, clock: xr.Dataset) -> Any:
    """Return the figure: bias, anarchic clients and stability above, accuracy over time below."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(2, 3, figsize=(14.5, 8.6), layout="constrained")
    percents = dataset.scenario.values

    def style(rule: Any) -> dict[str, Any]:
        color, line = STYLES[str(rule)]
        return {"color": jd.plot.PALETTE[color], "linestyle": line, "linewidth": 1.7}

    ax = axes[0, 0]
    for rule in (*BIASED, NEVER):
        fair, naive = (dataset.sel(rule=rule, weights=kind).isel(eta=-1) for kind in WEIGHTS)
        color = style(rule)["color"]
        ax.plot(percents, naive.predicted, label=rule, **style(rule))
        ax.plot(percents, naive.away, "o", color=color, markersize=5)
        ax.plot(percents, fair.away, "x", color=color, markersize=5)
    ax.set_xticks(percents, [f"F-{percent}" for percent in percents])
    ax.set(
        xlabel="F-x: the fastest client takes x % less time than the slowest",
        ylabel=r"$|x - x^\star|$",
    )
    title = r"dots: identical weights, lines: $|x_q - x^\star|$, crosses: unbiased"
    ax.set_title(title, fontsize=10.5)
    ax.legend(fontsize=8)
    ax = axes[0, 1]
    for color, name in zip((1, 0), anarchic.algorithm.values, strict=True):
        for kind, line in zip(anarchic.arrivals.values, ("--", "-"), strict=True):
            path = np.sqrt(anarchic.distance_squared.sel(algorithm=name, arrivals=kind))
            color_ = jd.plot.PALETTE[color]
            ax.plot(path.step, path, line, color=color_, label=f"{name}, {kind} arrivals")
    goal = float(anarchic.predicted.sel(arrivals="skewed"))
    ax.axhline(goal, color="0.4", linewidth=1, linestyle=":", label=r"$|x_q - x^\star|$, skewed")
    ax.set(yscale="log", xlabel="aggregations", ylabel=r"$|x - x^\star|$", title="anarchic clients")
    ax.legend(fontsize=8, loc="lower right", bbox_to_anchor=(1, 0.1))
    ax, noise, last = axes[0, 2], stationary(clock), clock.scenario.values[-1]
    for rule in clock.rule.values:
        here = noise["std"].sel(rule=rule, scenario=last)
        speed = clock.stepsize * float(clock.pace.sel(rule=rule, scenario=last))
        ax.plot(speed, here, marker="o", markersize=4, label=rule, **style(rule))
    ax.set(xscale="log", yscale="log", xlabel="η times aggregations a second")
    ax.set(ylabel="standard deviation of the loss", title=rf"digits, F-{last}: around $x^\star$")
    ax.legend(fontsize=8)
    eta, best = together(clock), own_best(clock)
    accuracy = clock.accuracy.sel(start=STARTS[0], drop=True)
    panels = [(percent, None) for percent in clock.scenario.values] + [(last, eta)]
    for ax, (percent, given) in zip(axes[1], panels, strict=False):
        for rule in clock.rule.values:
            own = best.sel(rule=rule, scenario=percent) if given is None else given
            here = accuracy.sel(rule=rule, scenario=percent, stepsize=own)
            label = f"{rule}, η = {fraction(float(own))}" if given is None else rule
            ax.plot(clock.time, here.median("seed"), label=label, **style(rule))
            low, high = (here.quantile(q, "seed") for q in (0.1, 0.9))
            color = style(rule)["color"]
            ax.fill_between(clock.time, low, high, alpha=0.12, linewidth=0, color=color)
        ax.axhline(TARGET, color="0.5", linewidth=1, linestyle=":")
        what = (
            "each with its own best η"
            if given is None
            else f"the same, all with η = {fraction(given)}"
        )
        ax.set(title=f"digits, F-{percent}: {what}", xlabel="simulated seconds", ylim=(0, 1))
        ax.set(xlim=(RESOLUTION, float(clock.time[-1])), xscale="log", ylabel="held-out accuracy")
        ax.set_xticks([1, 2, 5, 10, 20, 50], ["1", "2", "5", "10", "20", "50"])
        if given is None:
            ax.legend(fontsize=8, loc="lower right")
    for ax in axes[1, len(panels) :]:
        ax.set_visible(False)
    return fig


def run(
    quick: bool, out: Path, seed: int, scale: str = "small", progress: bool = True
) -> list[Path]:
    """Run everything, print the tables and return the files written into ``out``."""
    full = scale == "full" and not quick
    scenarios, etas = (SCENARIOS[::4], ETAS[:2]) if quick else (SCENARIOS, ETAS)
    steps = 2400 if quick else 6000
    dataset, anarchic = limits(scenarios, etas, steps, seed), anarchy(steps, seed)
    clock = timed(
        (SYNC, ASYNC, "FedFix 0.5") if quick else TIMED,
        scenarios[-1:] if quick else (scenarios[0], scenarios[-1]),
        (2.0**-6, 0.5, 2.0) if quick else GRID,
        horizon=30.0 if quick else 60.0,
        seeds=1 if quick else 10 if full else 3,
        seed=seed,
        progress=progress,
    )
    single = None
    if not quick:
        grid = [4 * eta for eta in GRID]
        options: dict[str, Any] = {"horizon": 60.0, "seeds": clock.sizes["seed"], "seed": seed}
        options |= {"local_steps": 1, "progress": progress}
        single = timed((SYNC, ASYNC, "FedFix 0.5"), scenarios[-1:], grid, **options)
    small = f"eta = {etas[-1]:g}"
    header = ("claim", "source", "claimed", "measured", "met", "if not, why")
    claims = bias_claims(dataset) + anarchy_claims(anarchic) + time_claims(clock, single)
    tables = {
        "bias": (f"limits in F-80, {small}", bias_table(dataset)),
        "growth": (f"identical weights' |x - x*| (|x_q - x*|), {small}", growth_table(dataset)),
        "time": ("digits: own best eta, and the largest for asynchrony", time_table(clock)),
        "claims": ("what is claimed and what was measured", pd.DataFrame(claims, columns=header)),
    }
    return results.write(
        "fedfix",
        out,
        command=f"python -m experiments fedfix --seed {seed} --scale {scale}"
        + (" --quick" if quick else ""),
        tables=tables,
        datasets={"limits": dataset, "anarchy": anarchic, "time": clock}
        | ({} if single is None else {"single": single}),
        figures={"fedfix": figure(dataset, anarchic, clock)},
    )
