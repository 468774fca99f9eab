"""ADSGD: agents that never wait, in simulated time (arXiv 2505.10322).

Logistic regression of the digits, odd against even, on exponential graphs. ADSGD, AD-PSGD and
R-FAST never wait; DSGD, DGD (which mixes before it steps, as ADSGD does) and parallel SGD with a
server do. Which method is first at a target in simulated time, each at its own best stepsize of one
grid, for four kinds of times and two splits of the data? How does that time fall as up to 128
agents share the data, with gradients of one digit each? And with quadratics (`experiments.delays`),
do stable stepsizes and limits depend on how long gradients and messages take?

Gaps are those of the mean of the agents' estimates. The paper's claims are known from its abstract
and public reviews; its graphs, stepsizes and times are not. It has MNIST and larger networks, which
are not run here. A message takes as long with R-FAST's two vectors as with one.
"""

import functools
import itertools
from functools import partial
from typing import Any

import jax
import numpy as np
import xarray as xr

import jaxdopt as jd
from experiments import delays
from experiments.claims import above, below, claims, near
from experiments.measures import lasting, over, soonest, spread, successive
from experiments.panels import Dots, Figure, Lines, LogLog, level, present
from experiments.study import Axis, Part, Program, Results, Study, comparison
from jaxdopt.networks.events import durations

PAPER = "arXiv 2505.10322"
AGENTS, L2 = 16, 1e-2
TARGETS = {8: 1e-2, 1: 2e-2}  # gaps to come to, by minibatch
STAYS, RECORDS = 4, 160  # records in a row that have to be at a target, and all records
ROUNDS = 480  # of those who wait
GRID = tuple(2.0 ** (j / 2) for j in range(-1, 7))  # α L; R-FAST's is 1 / aᵢᵢ times that
SLOW = 10.0  # times, what is slow
METHODS = {
    "ADSGD": (jd.ADSGD(0.1), "timeline"),
    "AD-PSGD": (jd.ADPSGD(0.1), "pairs"),
    "R-FAST": (jd.RFAST(0.1), "timeline"),
    "DSGD": (jd.DSGD(0.1), "rounds"),
    "DGD": (jd.DGD(0.1), "rounds"),
    "parallel SGD": (jd.SGD(0.1), "server"),
}
"""Each with the kind of network it runs on."""
TIMES: dict[str, tuple[str, float, dict[str, Any]]] = {
    "even": ("nearly equal speeds", 400.0, {}),
    "slow": ("one agent 10 times slower", 800.0, {"slow": SLOW}),
    "stragglers": ("one gradient in 20 slow", 800.0, {"straggling": 0.05}),
    "messages": ("slow messages: 0.5 to 5", 1600.0, {"messages": (0.5, 5.0)}),
}
"""Titles, the seconds until when those who never wait run, and what `lasts` gets."""
SPLITS = ("sorted", "shuffled")
SCALES = {
    "quick": dict(methods=("ADSGD", "DSGD"), times=("slow",), splits=SPLITS[:1], grid=GRID[2:5],
        growing=(), theory=list(delays.THEORY)[:2],
        patterns=("equal", "one agent 4x", "messages 4x"), runs=4_000, seeds=1),
    "default": dict(methods=METHODS, times=TIMES, splits=SPLITS, grid=GRID,
        growing=("ADSGD", "DSGD", "parallel SGD"), theory=delays.THEORY,
        patterns=delays.PATTERNS, runs=24_000, seeds=3),
}  # fmt: skip
SCALES["full"] = SCALES["default"] | {"seeds": 10}


@functools.cache
def problem(split: str, n: int, batch: int) -> Any:
    """Return the digits' problem."""
    features, digits = jd.data.digits()
    order = np.argsort(digits, kind="stable")
    if split == "shuffled":
        order = np.random.default_rng(0).permutation(len(digits))
    options = {"agents": n, "l2": L2, "partition": np.array_split(order, n)}
    whole = jd.problems.logistic_regression(features, digits % 2, **options)
    return jd.problems.Minibatch(whole, batch)


def lasts(n: int, slow: float = 1.0, straggling: float = 0.0, messages: Any = (0.2, 0.2)) -> Any:
    """Return how long gradients and messages last: ``slow`` is one agent, ``straggling`` a chance.

    The messages of the first and of the last agent have these means.
    """
    gradients = durations.LogNormal(np.where(np.arange(n) == n // 3, slow, 1.0), 0.3)
    delay = durations.LogNormal(np.linspace(messages[0], messages[1], n), 0.5)
    return {"compute": durations.Stragglers(gradients, straggling, SLOW), "delay": delay}


@functools.cache
def clock(family: str, kind: str, n: int, seconds: float, seed: int) -> Any:
    """Return the network on which a method runs in simulated time."""
    models, weights = lasts(n, **TIMES[kind][2]), delays.network(n)
    if family in ("rounds", "server"):
        return jd.networks.timed(weights if family == "rounds" else jd.networks.Server(n), **models)
    make = jd.networks.pairwise if family == "pairs" else jd.networks.timeline
    return make(weights, **models, seconds=seconds, key=jax.random.key(seed))


def kept(name: str) -> float:
    """Return what an agent keeps of its tracker in a step, aᵢᵢ; 1 without one."""
    return float(delays.network(AGENTS).matrix()[0, 0]) if name == "R-FAST" else 1.0


def history(
    world: Any, grid: Any, name: str, kind: str, split: str, n: int, batch: int, seconds: float
) -> Program:
    """Return gap and axes of one method over α L, seeds and records."""
    training, (method, family) = problem(split, n, batch), METHODS[name]
    network = clock(family, kind, n, seconds, world.seed)
    every = (getattr(network, "horizon", None) or ROUNDS) // RECORDS
    return comparison(
        method,
        ("gap", "seconds", "gradients", "bits", "diverged"),
        axes={"stepsize": Axis("scaled", grid), "step": Axis("step", range(RECORDS + 1))},
        problem=training,
        networks=network,
        over={"stepsize": np.array(grid) / kept(name) / training.smoothness},
        seeds=range(world.seed, world.seed + world.seeds),
        steps=RECORDS * every,
        every=every,
    )


def races(world: Any, _: Any) -> dict[Any, Program]:
    """Return all methods' programs over kinds of times and splits of the data."""
    places = itertools.product(world.methods, world.times, world.splits)
    return {at: history(world, world.grid, *at, AGENTS, 8, TIMES[at[1]][1]) for at in places}


def growth(world: Any, _: Any) -> dict[Any, Program]:
    """Return programs over the number of agents, with stragglers; few agents take longer."""
    case, grid = ("stragglers", "shuffled"), [a / 2 for a in GRID]
    return {
        (n, name): history(world, grid, name, *case, n, 1, max(400.0, 16_000.0 / n))
        for n in (8, 16, 32, 64, 128)
        for name in world.growing
    }


def at_best(batch: int, dataset: xr.Dataset, *_: Any) -> xr.Dataset:
    """Return all methods at their best α: first to come to the target and stay, else lowest.

    With every seed's seconds to the target as ``arrival``, NaN if never; their median ``late``, and
    that of gradients, ``calls``; ``alpha``, the best α L, and ``edge``, whether it is the grid's.
    """
    target = TARGETS[batch]
    best = soonest(dataset, "gap", target, "seconds", over="scaled", records=STAYS)
    calls = lasting(best, "gap", target, "gradients", records=STAYS) / batch
    shares = xr.DataArray([kept(str(name)) for name in best.algorithm.values], dims="algorithm")
    return best.assign(
        late=best.arrival.median("seed", skipna=False),
        calls=calls.median("seed", skipna=False),
        alpha=best.scaled / shares,
        edge=best.scaled.isin(dataset.scaled[[0, -1]]),
    ).drop_vars("scaled")


def theory(world: Any, _: Any) -> dict[Any, Program]:
    """Return a program a method for the stepsizes that work and the limits, with quadratics."""
    sizes = {"kinds": tuple(world.patterns), "runs": world.runs}
    return {name: Program({"name": name} | sizes, function=delays.settled) for name in world.theory}


def lateness(name: str, results: Results) -> xr.DataArray:
    """Return a method's seconds to the target over ADSGD's, infinite if it does not get there."""
    late = results["times"].late
    return over(late.where(late.notnull() | (late.algorithm == "ADSGD"), np.inf), name, "ADSGD")


def whatever_speeds(name: str, results: Results) -> xr.DataArray:
    """Return the largest stepsize that works over the smallest, over how slow an agent is."""
    found = results["theory"].largest.fillna(0)
    found = found.sel(algorithm=present(found, "algorithm", name))
    return spread(found.sel(pattern=present(found, "pattern", delays.SPEEDS)), "pattern")


def pulled(results: Results) -> xr.DataArray:
    """Return the distance of AD-PSGD's limit over that of the minimizer of Σᵢ pᵢ fᵢ."""
    found = results["theory"].sel(algorithm="AD-PSGD", drop=True)
    return (found.distance / found.predicted).where(found.predicted > delays.SETTLED, drop=True)


def bits(results: Results) -> xr.DataArray:
    """Return R-FAST's bits a gradient over ADSGD's."""
    last = results["times"].isel(times=0, split=0, seed=0, step=-1)
    return over(last.bits / last.gradients, "R-FAST", "ADSGD")


REVIEWS, LATER = f"{PAPER}, public reviews", ("default", "full")
FASTER, ONCE = f"{REVIEWS}: faster in wall-clock time", f"{REVIEWS}: in one panel"
HALF, MANY = f"{REVIEWS}: half the communication", f"{REVIEWS}: scales up to 128 agents"
EQUAL = "derived: with equal speeds and quick messages it is DGD"
SPEEDS = {"ADSGD": f"{PAPER}, abstract: independent of computation delays"}
SPEEDS |= {"AD-PSGD": "ours", "R-FAST": "ours"}
BOUND = "derived: a contraction for any bounded delays"
BLOCKS = f"{PAPER}, abstract: block descent; derived: on a penalized problem"
PULL = "derived: its mean moves by -(α / n) gᵢ"
ADSGD = {"algorithm": "ADSGD"}
LATE = "'s seconds to the gap over ADSGD's"
SPEED = ": largest α that works as one agent slows down, most over least"
CLAIMS = claims(
    *((name + LATE, FASTER, "≥ 1", partial(lateness, name), above(1), LATER)
      for name in ("AD-PSGD", "R-FAST", "DSGD", "DGD")),
    ("parallel SGD" + LATE + ", the largest", ONCE, "≥ 1",
     lambda r: lateness("parallel SGD", r).max(), above(1)),
    ("ADSGD's gradients over DGD's, even times", EQUAL, "1",
     lambda r: over(r["times"].calls, "ADSGD", "DGD").sel(times="even"), near(1, 0.3), LATER),
    ("R-FAST's bits a gradient over ADSGD's", HALF, "2", bits, near(2, 2e-3)),
    ("ADSGD's seconds over those of half the agents", MANY, "< 1",
     lambda r: successive(r["growth"].late.sel(ADSGD, drop=True), "agents"), below(1 - 1e-9)),
    *((name + SPEED, source, "1", partial(whatever_speeds, name), below(1.01))
      for name, source in SPEEDS.items()),
    ("ADSGD: largest α over 2 min wᵢᵢ / (L + min μᵢ)", BOUND, "≥ 1",
     lambda r: r["theory"].largest.sel(ADSGD, drop=True) / delays.safe_stepsize(), above(1)),
    ("ADSGD: relative distance from DGD's limit", BLOCKS, "0",
     lambda r: r["theory"].off.sel(ADSGD, drop=True), below(delays.SETTLED)),
    ("AD-PSGD: limit's distance over that of argmin Σ pᵢ fᵢ", PULL, "1", pulled, near(1, 0.05)),
)  # fmt: skip


def smooth(results: Results) -> xr.Dataset:
    """Return the gaps as means of as many records as have to be at the target."""
    times = results["times"]
    return times.assign(gap=times.gap.rolling(step=STAYS, min_periods=1).mean())


def fixed(ax: Any, results: Results) -> None:
    """Draw how far DGD's fixed point and the minimizers of Σᵢ pᵢ fᵢ are from the solution."""
    away = np.linalg.norm(delays.away().mean(axis=0))
    level(away, "DGD's fixed point", linestyle="-.")(ax, results)
    far = results["theory"].predicted.sel(algorithm="AD-PSGD")
    places = np.arange(far.size) + 0.15  # beside AD-PSGD's
    ax.plot(places, far, "k_", markersize=9, label="minimizer of $\\Sigma\\, p_i f_i$")


TO = {batch: f"seconds to a gap of {target:g}" for batch, target in TARGETS.items()}
SAFE = level(lambda _: delays.safe_stepsize(), "ADSGD's bound for any delays", linestyle=":")
PATTERN = {"x": "pattern", "rotation": 40}
CURVES = {
    kind: Lines(data=smooth, at={"times": kind, "split": "sorted"}, x="seconds", xlim=(0, until),
                ylim=(5e-4, 1), title=title, also=[level(TARGETS[8], "target")])
    for kind, (title, until, _) in TIMES.items()
}  # fmt: skip
ARRIVALS = [
    Dots(data=lambda r: r["times"].arrival.fillna(np.inf), at={"split": split}, x="times",
         rotation=25, ylabel=TO[8], title=f"{AGENTS} agents, {split} digits")
    for split in SPLITS
]  # fmt: skip
FIGURE = [
    [CURVES["slow"], *ARRIVALS],
    [CURVES["even"], CURVES["stragglers"], CURVES["messages"]],
    [
        LogLog(data=lambda r: r["growth"].arrival.fillna(np.inf), x="agents", xlabel="agents",
               ylabel=TO[1], title="batches of 1, stragglers"),
        Dots(data=lambda r: r["theory"].largest, ylabel=r"largest stable $\alpha L$",
             title="quadratics", also=[SAFE], **PATTERN),
        Dots(data=lambda r: r["theory"].distance.sel(algorithm=list(delays.THEORY)[:2]),
             ylabel=r"limit's distance  $|\bar x - x^\star|$", also=[fixed],
             title=rf"quadratics, $\alpha L = {delays.FINE[0]:.2g}$", **PATTERN),
    ],
]  # fmt: skip
TAKEN = ["late", "calls", "alpha", "edge"]
STUDY = Study(
    name="adsgd",
    paper="ADSGD (2025), arXiv 2505.10322",
    question="What do agents that never wait gain in time, and what do their delays change?",
    scales=SCALES,
    parts={
        "times": Part(("algorithm", "times", "split"), races, partial(at_best, 8)),
        "growth": Part(("agents", "algorithm"), growth, partial(at_best, 1)),
        "theory": Part("algorithm", theory),
    },
    claims=CLAIMS,
    figures={"adsgd": Figure(FIGURE, height=2.3)},
    tables={
        "times": (TO[8], lambda results: results["times"][TAKEN]),
        "growth": (TO[1], lambda results: results["growth"][TAKEN]),
        "theory": ("stepsizes that work, and limits", lambda results: results["theory"]),
    },
    minutes={"quick": 0.4, "default": 6, "full": 18},
    data=lambda _: (
        f"digits, odd against even: 1,797 images of scikit-learn, 64 features, {AGENTS} agents"
    ),
)
