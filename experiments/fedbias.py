"""Where federated rules end if quick clients return more often: weights and FedFix, AFA, FedBuff.

Clients and rules are those of the study `fedfix` (arXiv 2206.10189): visits take times from 1
second to 1 − x/100 in the scenario F-x, and φᵢ is how often client i is in an aggregation. With
dᵢ = 1/(n φᵢ) expected weights are equal ("unbiased"); with one d for all, here 1/Σφᵢ ("identical"),
they are qᵢ ∝ φᵢ. Two parts:

* *limits*: ten quadratics with different Hessians, one local step of a small η: distances from x*
  and from the minimizer x_q of Σᵢ qᵢ fᵢ, root mean squares over the last quarter of a run. FedBuff
  of arXiv 2106.06639 (no client waits, weights 1/√(1 + t)) is beside them.
* *anarchy*: AFA-CD and AFA-CS (arXiv 2108.09875), Kᵢ = 1 ... 5 local steps, clients that come back
  after exponential times, equally often or the rarest a twentieth as often as the quickest.
"""

import functools
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import xarray as xr

import jaxdopt as jd
from experiments.claims import above, below, claims, near
from experiments.fedfix import ASYNC, NEVER, PAPER, RULES, SYNC, TICKS, arrivals, staleness
from experiments.measures import exponent, over
from experiments.panels import Figure, Lines, LogLog, level, slope
from experiments.study import Axis, Part, Program, Results, Study
from jaxdopt.networks.events import durations

CLIENTS, DIMENSION = 10, 5
SCENARIOS, ETAS = (0, 20, 40, 60, 80), (0.02, 0.01, 0.005)
BIASED = (ASYNC, *TICKS, "FedBuff 2", "FedBuff 5")
SAME = (("FedFix 1", SYNC), ("FedBuff 10", SYNC), ("FedBuff 1", ASYNC))  # of ten clients
UNBIASED, IDENTICAL = WEIGHTS = ("unbiased", "identical")
RECORDS = 200
RATES = {"even": np.ones(CLIENTS), "skewed": np.geomspace(1, 1 / 20, CLIENTS)}
WORK = np.array([1, 2, 3, 4, 5, 5, 4, 3, 2, 1])  # Kᵢ of AFA
SCALES = {
    "quick": SimpleNamespace(scenarios=(0, 80), etas=ETAS[:2], steps=2400),
    "default": SimpleNamespace(scenarios=SCENARIOS, etas=ETAS, steps=6000),
}
SCALES["full"] = SCALES["default"]


@functools.cache
def quadratics(seed: int = 0) -> Any:
    """Return ten quadratics with different Hessians and minimizers."""
    spread = {"condition_number": 2.0, "curvature_spread": 0.7}
    return jd.problems.quadratic(CLIENTS, DIMENSION, **spread, seed=seed)


MODEL = {"x": lambda state, _: state.server}


def limit(pair: Any, eta: Any, problem: Any, key: Any, steps: int) -> jd.Result:
    """Return the run of a method on its network."""
    options = {"steps": steps, "every": steps // RECORDS, "metrics": MODEL}
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
        axes = {"pair": Axis("cell", range(first, first + len(made))), "eta": eta}
        pairs = shared | {"pair": (methods, stacked)}
        found[kind, group] = Program(pairs, axes, limit, facts("cell", made, q))
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

    def size(vector: Any) -> Any:
        square = (vector**2).sum("d", skipna=False)
        return np.sqrt(square.mean("step") if "step" in square.dims else square)

    return dataset.assign(away=size(last), off=size(last - goal), predicted=size(goal))


def anarchic(world: Any, _: Any) -> dict[str, Program]:
    """Return AFA-CD and AFA-CS for both kinds of arrivals."""
    draws = np.random.default_rng(world.seed).exponential(size=(2 * world.steps, CLIENTS))
    options: dict[str, Any] = {"buffer": 2, "restart": "at once", "steps": world.steps}
    times = [durations.Table(draws / rate) for rate in RATES.values()]
    made = [jd.networks.arrivals(CLIENTS, compute=time, **options) for time in times]
    problem, q = quadratics(world.seed), np.stack([np.asarray(m.frequency) for m in made])
    shared = {"problem": problem, "network": jd.networks.stack(made), "x0": problem.start()}
    shared |= {"key": jax.random.key(world.seed), "metrics": MODEL}
    shared |= {"steps": world.steps, "every": world.steps // RECORDS}
    axes = {"network": Axis("arrivals", list(RATES))}
    own = (1e-3, 0.01, int(WORK.max()), jnp.asarray(WORK)[:, None])
    methods = {"AFA-CD": jd.AFACD(*own), "AFA-CS": jd.AFACS(*own)}
    keep = facts("arrivals", made, q)
    return {n: Program(shared | {"algorithm": m}, axes, reduce=keep) for n, m in methods.items()}


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
    return over(away(results, scenario=80), IDENTICAL, UNBIASED, "weights")


def growth(results: Results) -> xr.DataArray:
    """Return the smallest change of the bias from a scenario to the next, in units of η."""
    change = away(results, weights=IDENTICAL).diff("scenario").min("scenario")
    return change / float(results["limits"].eta[-1])


def device(results: Results) -> xr.DataArray:
    """Return AFA-CD's distance from x_q over |x_q − x*|."""
    here = results["anarchy"].sel(algorithm="AFA-CD", arrivals="skewed", drop=True)
    return here.off / here.predicted


def ages(results: Results) -> xr.DataArray:
    """Return how much older the oldest return of FedFix is than the ticks of a visit, less one."""
    oldest = results["limits"].oldest.sel(rule=list(TICKS)).max("scenario")
    return oldest - xr.DataArray([np.ceil(1 / tick) - 1 for tick in TICKS.values()], dims="rule")


THEORY = f"{PAPER}, authors' code; derived"
RATE, AFA, MORE = "derived: q_i ∝ 1/τ_i", "arXiv 2108.09875, from memory", ("default", "full")
CLAIMS = claims(
    ("FedFix 1, FedBuff 10 are FedAvg, FedBuff 1 AsyncFedAvg", "rules", "0", apart, below(1e-12)),
    ("F-80: unbiased |x − x*|, identical |x − x_q| ∝ η, exponent", THEORY, "1",
     orders, near(1, 0.35), MORE),
    ("identical weights' |x − x*| over unbiased ones', F-80", THEORY, "> 1", other, above(10)),
    ("F-0: both weights end equally far: difference", "derived", "0",
     lambda r: abs(away(r, scenario=0).diff("weights")[0]), below(1e-3)),
    ("bias grows as clients get faster: change / η", RATE, "> 0", growth, above(-1)),
    ("FedFix's oldest return, less ticks but one", "derived", "0", ages, near(0, 0.5)),
    ("AFA-CS comes to x*: its |x − x*| over AFA-CD's", AFA, "far below 1",
     lambda r: over(r["anarchy"].away, "AFA-CS", "AFA-CD"), below(0.1)),
    ("AFA-CD: |x − x_q| / |x_q − x*|, skewed", "derived", "far below 1", device, below(1 / 3)),
)  # fmt: skip
SHOWN = (ASYNC, *list(TICKS)[1:], "FedBuff 2", "FedBuff 5", NEVER)  # FedFix 0.2 is on top
DISTANCE = r"$|x - x^\star|$"


def expected(ax: Any, results: Results) -> None:
    """Mark |x_q − x*| of identical weights."""
    own = results["limits"].predicted.sel(rule=list(SHOWN), weights=IDENTICAL)
    x, marks = np.broadcast_arrays(own.scenario, own.transpose("rule", "scenario"))
    label = r"$|x_q - x^\star|$, expected"
    ax.plot(x.ravel(), marks.ravel(), "+", color="black", label=label, zorder=4)


FAR = level(lambda r: float(r["anarchy"].predicted[0].sel(arrivals="skewed")),
            r"$|x_q - x^\star|$, skewed", linestyle=":")  # fmt: skip
BIAS = {"by": "rule", "ylabel": DISTANCE, "at": {"rule": SHOWN}}
PANELS = [[
    LogLog(data=lambda r: r["limits"].away.sel(weights=IDENTICAL).isel(eta=-1), x="scenario",
           xlabel="fastest client's time saved (%)", logx=False, logy=False, also=[expected],
           title="identical weights", **BIAS),
    LogLog(data=lambda r: r["limits"].away.sel(weights=UNBIASED, scenario=80), x="eta",
           xlabel="stepsize η", also=[slope(1, "∝ η")], title="unbiased weights, F-80", **BIAS),
    Lines(data=lambda r: np.sqrt(r["anarchy"][["distance_squared"]]), y="distance_squared",
          x="step", split=True, xlabel="aggregations", ylabel=DISTANCE, title="anarchic clients",
          also=[FAR]),
]]  # fmt: skip
ENDS = ["away", "predicted", "off", "age", "oldest"]
STUDY = Study(
    name="fedbias",
    paper=f"Fraboni et al. (2022), FedFix, {PAPER}; Yang et al. (2022), AFA, arXiv 2108.09875",
    question="If quick clients return more often, where does a server end that does not wait?",
    scales=SCALES,
    world=lambda sizes, seed: SimpleNamespace(seed=seed, **vars(sizes)),
    parts={
        "limits": Part(("weights", "group"), ending, with_rules),
        "anarchy": Part("algorithm", anarchic, with_distances),
    },
    claims=CLAIMS,
    figures={"fedbias": Figure(PANELS, height=3.0)},
    tables={
        "limits": (
            "limits in F-80, smallest η",
            lambda r: r["limits"][ENDS].isel(eta=-1).sel(scenario=80, drop=True),
        )
    },
    minutes={"quick": 0.3, "default": 2, "full": 2},
    data=lambda _: f"quadratics of {CLIENTS} clients in {DIMENSION} dimensions",
)
