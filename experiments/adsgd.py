"""ADSGD: agents that never wait, in simulated time (arXiv 2505.10322).

Logistic regression of the digits, odd against even, minibatches of 8, on exponential graphs; the
digits sorted or shuffled over 16 agents. ADSGD, AD-PSGD and R-FAST never wait; DSGD, DGD (which
mixes before it steps, as ADSGD does) and parallel SGD with a server do. Four kinds of times: nearly
equal speeds, one agent ten times slower, every twentieth gradient ten times slower, and messages
slower than gradients, more so from some agents. Each method at its own best stepsize of one grid.
Questions: which method is first at a target in simulated time? How does that time fall as up to 128
agents share the data, with gradients of one digit each? With quadratics and full gradients, do the
stable stepsizes and the limits depend on how long gradients and messages take? ADSGD's limit is
compared with DGD's fixed point, AD-PSGD's with the minimizer of Σᵢ pᵢ fᵢ, pᵢ agent i's share of all
gradients.

Gaps are those of the mean of the agents' estimates. The paper's claims are known from its abstract
and public reviews; its graphs, stepsizes and times are not. It has MNIST and larger networks, which
are not run here; full scale has ten seeds in place of three. A message takes as long with R-FAST's
two vectors as with one.
"""

import functools
import itertools
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
import xarray as xr

import jaxdopt as jd
from experiments.claims import Claim, above, below, near
from experiments.measures import lasting, over, soonest, spread, successive
from experiments.panels import Dots, Figure, Lines, LogLog, level, present
from experiments.study import Part, Program, Results, Study
from jaxdopt.networks.events import durations

AGENTS, L2 = 16, 1e-2
TARGETS = {8: 1e-2, 1: 2e-2}  # gaps to come to, by minibatch
STAYS = 4  # records in a row that have to be at a target
RECORDS = 160
ROUNDS = 480  # of those who wait
GRID = tuple(2.0 ** (j / 2) for j in range(-1, 7))  # α L; R-FAST's is 1 / aᵢᵢ times that
WIDER = tuple(a / 2 for a in GRID)
SLOW = 10.0  # times, what is slow
PAPER = "arXiv 2505.10322"
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
GROWING = (8, 16, 32, 64, 128)  # agents with minibatches of 1: few of them take longer
FINE = tuple(2.0 ** (j / 3) for j in range(-10, 14))  # α L with quadratics; limits at the first
THEORY = ("ADSGD", "AD-PSGD", "R-FAST")
SETTLED = 1e-2  # relative distance from a fixed point that counts as there
FIRST = np.arange(8) == 0
RANDOM = durations.Exponential(np.linspace(0.5, 2, 8))
PATTERNS: dict[str, tuple[Any, Any]] = {
    "equal": (np.ones(8), 0.5),
    **{f"one agent {slow}x": (np.where(FIRST, float(slow), 1.0), 0.5) for slow in (4, 16, 64)},
    "random": (durations.Stragglers(RANDOM, 0.05, SLOW), durations.LogNormal(0.5, 1.0)),
    "messages 4x": (np.ones(8), 3.5),
    "messages 16x": (np.ones(8), 15.5),
}
"""Seconds of gradients and of messages."""
SPEEDS = list(PATTERNS)[:4]
SCALES = {
    "quick": SimpleNamespace(methods=("ADSGD", "DSGD"), times=("slow",), splits=SPLITS[:1],
        grid=GRID[2:5], growing=(), theory=THEORY[:2],
        patterns=("equal", "one agent 4x", "messages 4x"), runs=4_000, seeds=1),
    "default": SimpleNamespace(methods=METHODS, times=TIMES, splits=SPLITS, grid=GRID,
        growing=("ADSGD", "DSGD", "parallel SGD"), theory=THEORY, patterns=PATTERNS, runs=24_000,
        seeds=3),
}  # fmt: skip
SCALES["full"] = SimpleNamespace(**vars(SCALES["default"]) | {"seeds": 10})


@functools.cache
def problem(split: str, n: int, batch: int) -> Any:
    """Return the digits' problem."""
    features, digits = jd.data.digits()
    order = np.argsort(digits, kind="stable")
    if split == "shuffled":
        order = np.random.default_rng(0).permutation(len(digits))
    parts = np.array_split(order, n)
    made: Any = jd.problems.logistic_regression
    whole = made(features, digits % 2, agents=n, l2=L2, partition=parts)
    return jd.problems.Minibatch(whole, batch)


@functools.cache
def network(n: int = AGENTS) -> Any:
    """Return the weights on the exponential graph."""
    return jd.networks.metropolis(jd.graphs.exponential(n))


def lasts(n: int, slow: float = 1.0, straggling: float = 0.0, messages: Any = (0.2, 0.2)) -> Any:
    """Return how long gradients and messages last: ``slow`` is one agent, ``straggling`` a chance.

    The messages of the first and of the last agent have these means.
    """
    means = np.where(np.arange(n) == n // 3, slow, 1.0)
    gradients = durations.Stragglers(durations.LogNormal(means, 0.3), straggling, SLOW)
    return {"compute": gradients, "delay": durations.LogNormal(np.linspace(*messages, n), 0.5)}


@functools.cache
def clock(family: str, kind: str, n: int, seconds: float, seed: int) -> Any:
    """Return the network on which a method runs in simulated time."""
    models, weights = lasts(n, **TIMES[kind][2]), network(n)
    if family in ("rounds", "server"):
        return jd.networks.timed(weights if family == "rounds" else jd.networks.Server(n), **models)
    make = jd.networks.pairwise if family == "pairs" else jd.networks.timeline
    return make(weights, **models, seconds=seconds, key=jax.random.key(seed))


def kept(name: str) -> float:
    """Return what an agent keeps of its tracker in a step, aᵢᵢ; 1 without one."""
    return float(network().matrix()[0, 0]) if name == "R-FAST" else 1.0


def histories(
    world: Any, grid: Any, name: str, kind: str, split: str, n: int, batch: int, seconds: float
) -> Program:
    """Return gap and axes of one method over α L, seeds and records."""
    training, (method, family) = problem(split, n, batch), METHODS[name]
    wires = clock(family, kind, n, seconds, world.seed)
    every = (getattr(wires, "horizon", None) or ROUNDS) // RECORDS

    def by_record(dataset: xr.Dataset) -> xr.Dataset:
        dataset = dataset[["gap", "seconds", "gradients", "bits", "diverged"]]
        dataset = dataset.isel(network=0, algorithm=0, drop=True).rename(stepsize="scaled")
        return dataset.assign_coords(step=np.arange(RECORDS + 1), scaled=list(grid))

    arguments = {
        "algorithms": {name: method},
        "problem": training,
        "networks": wires,
        "over": {"stepsize": np.array(grid) / kept(name) / training.smoothness},
        "seeds": range(world.seed, world.seed + world.sizes.seeds),
        "steps": RECORDS * every,
        "every": every,
        "progress": False,
    }
    return Program(arguments, function=jd.compare, reduce=by_record)


def races(world: Any, _: Any) -> dict[Any, Program]:
    """Return all methods' programs over kinds of times and splits of the data."""
    sizes = world.sizes
    return {
        at: histories(world, sizes.grid, *at, AGENTS, 8, TIMES[at[1]][1])
        for at in itertools.product(sizes.methods, sizes.times, sizes.splits)
    }


def growth(world: Any, _: Any) -> dict[Any, Program]:
    """Return programs over the number of agents, with stragglers."""
    case = ("stragglers", "shuffled")
    return {
        (n, name): histories(world, WIDER, name, *case, n, 1, max(400.0, 16_000.0 / n))
        for n, name in itertools.product(GROWING, world.sizes.growing)
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
    return best.drop_vars("scaled").assign(
        late=best.arrival.median("seed", skipna=False),
        calls=calls.median("seed", skipna=False),
        alpha=best.scaled / shares,
        edge=best.scaled.isin(dataset.scaled[[0, -1]]),
    )


def theory(world: Any, _: Any) -> dict[Any, Program]:
    """Return a program a method for the stepsizes that work and the limits, with quadratics."""
    sizes = {"kinds": tuple(world.sizes.patterns), "runs": world.sizes.runs}
    return {name: Program({"name": name, **sizes}, function=settled) for name in world.sizes.theory}


@functools.cache
def quadratics() -> Any:
    """Return heterogeneous quadratics, whose limits are known."""
    return jd.problems.quadratic(agents=8, d=6, heterogeneity=0.3, curvature_spread=0.5, seed=4)


def settled(name: str, kinds: Sequence[str], runs: int) -> xr.Dataset:
    """Return, over patterns, the ``largest`` α L that works, and limits at the least.

    It works if the error at the end is not above what it was at the start and after half of the
    run, and that of all smaller ones neither. ``distance`` is how far the mean estimate is from the
    solution, averaged over the last quarter; ``off`` how far all estimates end from DGD's fixed
    point, as a part of that one's distance; ``predicted`` the distance of the minimizer of
    Σᵢ pᵢ fᵢ with AD-PSGD's pᵢ.
    """
    world = quadratics()
    point = away() + np.asarray(world.solution)
    make = jd.networks.pairwise if name == "AD-PSGD" else jd.networks.timeline
    pairs = [PATTERNS[kind] for kind in kinds]
    made = [make(network(world.n), compute=c, delay=d, steps=runs) for c, d in pairs]
    result = jd.sweep(jd.run, over=("algorithm", "network"))(
        jax.vmap(type(METHODS[name][0]))(jnp.array(FINE) / world.smoothness),
        world,
        jd.networks.stack(made),
        world.start() + world.solution + 1.0,
        jax.random.key(0),
        steps=runs,
        every=runs // 400,
        metrics={"mean": lambda state, _: state.x.mean(axis=0)},
    )
    history = result.history
    error = history["distance_squared"] + history["consensus_error"]
    works = error[..., -1] <= np.maximum(error[..., 0], error[..., 200])  # not where it is NaN
    count = np.cumprod(works, axis=0).sum(axis=0)
    mean = history["mean"][0, :, -100:].mean(axis=1)
    ends = np.linalg.norm(result.state.x[0] - point, axis=(1, 2))
    found = {
        "largest": np.where(count > 0, np.take(FINE, count - 1), np.nan),
        "distance": np.linalg.norm(mean - world.solution, axis=1),
        "off": ends / np.linalg.norm(point - world.solution),
    }
    if name == "AD-PSGD":
        found["predicted"] = np.array([weighted_minimizer(each) for each in made])
    return xr.Dataset({key: ("pattern", v) for key, v in found.items()}, {"pattern": list(kinds)})


def weighted_minimizer(pairs: Any) -> float:
    """Return the distance from the solution of the minimizer of Σᵢ pᵢ fᵢ, pᵢ the share of i's."""
    world, agents = quadratics(), np.asarray(pairs.agents)
    share = np.bincount(agents[agents < world.n], minlength=world.n)
    hessian = np.tensordot(share, np.asarray(world.hessians), 1)
    return float(np.linalg.norm(np.linalg.solve(hessian, share @ np.asarray(world.tilts))))


@functools.cache
def away() -> np.ndarray:
    """Return DGD's fixed point at the least α, (I − W) X + α ∇F(X) = 0, less x*."""
    world = quadratics()
    n, d, stepsize = world.n, world.d, FINE[0] / float(world.smoothness)
    system = np.kron(np.eye(n) - np.asarray(network(n).matrix(), float), np.eye(d))
    system += stepsize * scipy.linalg.block_diag(*np.asarray(world.hessians))
    return np.linalg.solve(system, -stepsize * np.asarray(world.tilts).ravel()).reshape(n, d)


def safe_stepsize() -> float:
    """Return α L that works for ADSGD whatever the delays: α = 2 minᵢ wᵢᵢ / (L + minᵢ μᵢ)."""
    world = quadratics()
    timeline = jd.networks.timeline(network(world.n), compute=1.0, delay=0.0, steps=world.n)
    bound = jd.theory.of(jd.ADSGD(0.1), world, timeline).stepsize
    return float(bound) * float(world.smoothness)


def lateness(name: str, results: Results) -> xr.DataArray:
    """Return a method's seconds to the target over ADSGD's, infinite if it does not get there."""
    late = results["times"].late
    return over(late.where(late.notnull() | (late.algorithm == "ADSGD"), np.inf), name, "ADSGD")


def whatever_speeds(name: str, results: Results) -> xr.DataArray:
    """Return the largest stepsize that works over the smallest, over how slow an agent is."""
    found = results["theory"].largest.fillna(0)
    found = found.sel(algorithm=present(found, "algorithm", name))
    return spread(found.sel(pattern=present(found, "pattern", SPEEDS)), "pattern")


REVIEWS, LATER = f"{PAPER}, public reviews", ("default", "full")
CLAIMS = [
    *(
        Claim(
            f"ADSGD comes to the gap no later than {name}: its seconds over ADSGD's",
            f"{REVIEWS}: faster in wall-clock time",
            "at least 1, always",
            functools.partial(lateness, name),
            above(1),
            LATER,
        )
        for name in ("AD-PSGD", "R-FAST", "DSGD", "DGD")
    ),
    Claim(
        "ADSGD comes to the gap no later than parallel SGD somewhere: most of its seconds over",
        f"{REVIEWS}: in one panel",
        "at least 1, once",
        lambda results: lateness("parallel SGD", results).max(),
        above(1),
    ),
    Claim(
        "with nearly equal speeds and quick messages it is DGD: its gradients over DGD's",
        "derived",
        "1",
        lambda results: over(results["times"].calls, "ADSGD", "DGD").sel(times="even"),
        near(1, 0.3),
        LATER,
    ),
    Claim(
        "bits a gradient, R-FAST's over ADSGD's",
        f"{REVIEWS}: half the communication an iteration",
        "2",
        lambda r: over((r["times"].bits / r["times"].gradients)[:, 0, 0, 0, -1], "R-FAST", "ADSGD"),
        near(2, 2e-3),
    ),
    Claim(
        "more agents are sooner there: ADSGD's seconds over those with half as many",
        f"{REVIEWS}: scales up to 128 agents",
        "< 1",
        lambda r: successive(r["growth"].late.sel(algorithm="ADSGD", drop=True), "agents"),
        below(1 - 1e-9),
    ),
    *(
        Claim(
            f"{name}: the largest stepsize is the same however slow an agent is: ratio",
            f"{PAPER}, abstract: independent of computation delays" if name == "ADSGD" else "ours",
            "1",
            functools.partial(whatever_speeds, name),
            below(1.01),
        )
        for name in THEORY
    ),
    Claim(
        "ADSGD: α = 2 min wᵢᵢ / (L + min μᵢ) works with all times: the largest α over it",
        "derived: a contraction for any bounded delays",
        "at least 1",
        lambda r: r["theory"].largest.sel(algorithm="ADSGD", drop=True) / safe_stepsize(),
        above(1),
    ),
    Claim(
        "ADSGD: times do not move the limit, DGD's fixed point: relative distance",
        f"{PAPER}, abstract: block descent; derived: on a penalized problem",
        "0",
        lambda results: results["theory"].off.sel(algorithm="ADSGD", drop=True),
        below(SETTLED),
    ),
    Claim(
        "AD-PSGD: the limit minimizes Σ pᵢ fᵢ, pᵢ the shares of gradients: distance over its",
        "derived: its mean moves by -(α / n) gᵢ",
        "1",
        lambda r: (r["theory"].distance / r["theory"].predicted).where(
            r["theory"].predicted > SETTLED, drop=True
        ),
        near(1, 0.05),
    ),
]


def smooth(results: Results) -> xr.Dataset:
    """Return the races with gaps averaged over as many records as have to be at a target."""
    gap = results["times"].gap.rolling(step=STAYS, min_periods=1).mean()
    return results["times"].assign(gap=gap)


def curves(kind: str) -> Lines:
    """Return the panel of the gaps with one kind of times, sorted digits."""
    title, seconds, _ = TIMES[kind]
    return Lines(
        data=smooth,
        at={"times": kind, "split": "sorted"},
        x="seconds",
        xlim=(0, seconds),
        ylim=(5e-4, 1),
        title=title,
        also=[level(TARGETS[8], "target")],
    )


def arrivals(split: str) -> Dots:
    """Return the panel of the times to the target."""
    return Dots(
        data=lambda results: results["times"].arrival.fillna(np.inf),
        at={"split": split},
        x="times",
        ylabel=f"seconds to a gap of {TARGETS[8]:g}",
        title=f"{AGENTS} agents, {split} digits",
    )


def minimizers(ax: Any, results: Results) -> None:
    """Draw how far the minimizers of Σᵢ pᵢ fᵢ are from the solution, beside AD-PSGD's limits."""
    far = results["theory"].predicted.sel(algorithm="AD-PSGD")
    places = np.arange(far.size) + 0.15
    ax.plot(places, far, "k_", markersize=9, label="minimizer of $\\Sigma\\, p_i f_i$")


FIGURE = [
    [curves("slow"), arrivals("sorted"), arrivals("shuffled")],
    [curves("even"), curves("stragglers"), curves("messages")],
    [
        LogLog(
            data=lambda results: results["growth"].arrival.fillna(np.inf),
            x="agents",
            xlabel="agents",
            ylabel=f"seconds to a gap of {TARGETS[1]:g}",
            title="stragglers, batches of 1",
        ),
        Dots(
            data=lambda results: results["theory"].largest,
            x="pattern",
            rotation=40,
            ylabel=r"largest stable $\alpha L$",
            title="quadratics",
            also=[level(lambda _: safe_stepsize(), "ADSGD's bound for any delays", linestyle=":")],
        ),
        Dots(
            data=lambda results: results["theory"].distance.sel(algorithm=list(THEORY[:2])),
            x="pattern",
            rotation=40,
            ylabel=r"limit's distance  $|\bar x - x^\star|$",
            title=rf"quadratics, $\alpha L = {FINE[0]:.2g}$",
            also=[
                level(
                    lambda _: np.linalg.norm(away().mean(axis=0)),
                    "DGD's fixed point",
                    linestyle="-.",
                ),
                minimizers,
            ],
        ),
    ],
]


def table(part: str, results: Results) -> xr.Dataset:
    """Return what methods take to the target, and at which α L, with whether it is the grid's."""
    return results[part][["late", "calls", "alpha", "edge"]]


STUDY = Study(
    name="adsgd",
    paper="ADSGD (2025), arXiv 2505.10322",
    question="What do agents that never wait gain in time, and what do their delays change?",
    scales=SCALES,
    world=lambda sizes, seed: SimpleNamespace(sizes=sizes, seed=seed),
    parts={
        "times": Part(("algorithm", "times", "split"), races, functools.partial(at_best, 8)),
        "growth": Part(("agents", "algorithm"), growth, functools.partial(at_best, 1)),
        "theory": Part("algorithm", theory),
    },
    claims=CLAIMS,
    figures={"adsgd": Figure(FIGURE, height=2.3)},
    tables={
        "times": (f"seconds to a gap of {TARGETS[8]:g}", functools.partial(table, "times")),
        "growth": (f"seconds to a gap of {TARGETS[1]:g}", functools.partial(table, "growth")),
        "theory": ("stepsizes that work, and limits", lambda results: results["theory"]),
    },
    minutes={"quick": 0.4, "default": 6, "full": 18},
    data=lambda _: (
        f"digits, odd against even: 1,797 images of scikit-learn, 64 features, {AGENTS} agents"
    ),
)
