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

import dataclasses
import functools
from collections.abc import Callable, Iterable
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

AGENTS = 16
L2 = 1e-2
STAYS = 4  # records in a row that have to be at a target
RECORDS = 160
ROUNDS = 480  # of those who wait
GRID = tuple(2.0 ** (j / 2) for j in range(-1, 7))  # α L; R-FAST's is 1 / aᵢᵢ times that
SPLITS = ("sorted", "shuffled")
Grid = tuple[float, ...]
Names = Iterable[str]
SLOW = 10.0  # times, what is slow
PAPER = "arXiv 2505.10322"
REVIEWS = f"{PAPER}, public reviews"
METHODS: dict[str, tuple[Any, str, int, str]] = {
    "ADSGD": (jd.ADSGD(0.1), "timeline", 0, "-"),
    "AD-PSGD": (jd.ADPSGD(0.1), "pairs", 1, "-"),
    "R-FAST": (jd.RFAST(0.1), "timeline", 2, "-"),
    "DSGD": (jd.DSGD(0.1), "rounds", 3, "--"),
    "DGD": (jd.DGD(0.1), "rounds", 4, "--"),
    "parallel SGD": (jd.SGD(0.1), "server", 6, ":"),
}
"""Each with the kind of network it runs on, its color and line: solid, who never wait."""


@dataclasses.dataclass(frozen=True)
class Times:
    """How long gradients and messages take."""

    title: str
    seconds: float  # until when those who never wait run
    slow: bool = False  # one agent, always
    straggling: float = 0.0  # probability of a gradient that is slow
    least: float = 0.2  # mean of a message of the first agent, and
    most: float = 0.2  # of the last

    def model(self, n: int) -> dict[str, Any]:
        """Return the models of gradients and messages."""
        means = np.where(np.arange(n) == n // 3, SLOW if self.slow else 1.0, 1.0)
        gradients = durations.Stragglers(durations.LogNormal(means, 0.3), self.straggling, SLOW)
        messages = durations.LogNormal(np.linspace(self.least, self.most, n), 0.5)
        return {"compute": gradients, "delay": messages}


TIMES = {
    "even": Times("nearly equal speeds", 400.0),
    "slow": Times("one agent 10 times slower", 800.0, slow=True),
    "stragglers": Times("one gradient in 20 is 10 times slower", 800.0, straggling=0.05),
    "messages": Times("messages take 0.5 to 5 gradients", 1600.0, least=0.5, most=5.0),
}


@dataclasses.dataclass(frozen=True)
class Race:
    """How many agents share which data, with what minibatches, and the gap to come to."""

    split: str
    n: int = AGENTS
    batch: int = 8
    target: float = 1e-2


GROWING = {n: Race("shuffled", n, batch=1, target=2e-2) for n in (8, 16, 32, 64, 128)}
"""With small minibatches, for noise to be what takes time; and few agents take longer."""


@functools.cache
def problem(race: Race) -> Any:
    """Return the digits' problem."""
    features, digits = jd.data.digits()
    order = np.argsort(digits, kind="stable")
    if race.split == "shuffled":
        order = np.random.default_rng(0).permutation(len(digits))
    parts = np.array_split(order, race.n)
    made: Any = jd.problems.logistic_regression
    whole = made(features, digits % 2, agents=race.n, l2=L2, partition=parts)
    return jd.problems.Minibatch(whole, race.batch)


@functools.cache
def network(n: int = AGENTS) -> Any:
    """Return the weights on the exponential graph."""
    return jd.networks.metropolis(jd.graphs.exponential(n))


@functools.cache
def clock(family: str, kind: str, n: int, seconds: float, seed: int) -> Any:
    """Return the network on which a method runs in simulated time."""
    lasts, weights = TIMES[kind].model(n), network(n)
    if family in ("rounds", "server"):
        return jd.networks.timed(weights if family == "rounds" else jd.networks.Server(n), **lasts)
    make = jd.networks.pairwise if family == "pairs" else jd.networks.timeline
    return make(weights, **lasts, seconds=seconds, key=jax.random.key(seed))


def histories(
    name: str, kind: str, race: Race, grid: Grid, *, seconds: float = 0.0, seeds: int, seed: int
) -> xr.Dataset:
    """Return gap and axes of one method over α L, seeds and records."""
    world, (method, family, *_) = problem(race), METHODS[name]
    wires = clock(family, kind, race.n, seconds or TIMES[kind].seconds, seed)
    every = (getattr(wires, "horizon", None) or ROUNDS) // RECORDS
    scaled = np.array(grid)
    if name == "R-FAST":  # an agent keeps but aᵢᵢ of its tracker
        scaled = scaled / network(race.n).matrix()[0, 0]
    dataset = jd.compare(
        {name: method},
        world,
        wires,
        over={"stepsize": scaled / world.smoothness},
        seeds=range(seed, seed + seeds),
        steps=RECORDS * every,
        every=every,
        progress=False,
    ).isel(network=0, algorithm=0, drop=True)
    dataset = dataset[["gap", "seconds", "gradients", "bits", "diverged"]]
    dataset = dataset.rename(step="record", stepsize="scaled")
    return dataset.assign_coords(record=np.arange(RECORDS + 1), scaled=scaled)


def own_best(dataset: xr.Dataset, race: Race) -> xr.Dataset:
    """Return a method at its best α: first to come to the target and stay, or else lowest.

    With ``arrival`` and ``calls``, the median seconds and gradients to the target over seeds, NaN
    if never; ``alpha``, the best α L; and ``edge``, whether that is at the grid's.
    """
    there = (dataset.gap <= race.target).astype(float).rolling(record=STAYS).min()
    there = there.shift(record=1 - STAYS).fillna(0) > 0
    first = dataset[["seconds", "gradients"]].isel(record=there.argmax("record"))
    first = first.where(there.any("record")).drop_vars("record").median("seed", skipna=False)
    last = dataset.gap.isel(record=slice(-STAYS, None)).mean(("record", "seed"))
    last = last.where(~dataset.diverged.any("seed")).fillna(1e9)
    which = int(first.seconds.fillna(1e9 * (1 + last)).argmin("scaled"))
    found = {
        "arrival": first.seconds[which],
        "calls": first.gradients[which] / race.batch,
        "alpha": float(dataset.scaled[which]),
        "edge": which in (0, dataset.sizes["scaled"] - 1),
    }
    return dataset.isel(scaled=which).drop_vars("scaled").assign(found)


def along(
    dim: str, values: Iterable[Any], make: Callable[[Any], xr.Dataset], progress: bool = False
) -> xr.Dataset:
    """Return ``make`` of all values, labelled."""
    values = list(values)
    parts = [make(value) for value in tqdm(values, desc=dim, disable=not progress)]
    return xr.concat(parts, xr.DataArray(values, dims=dim, name=dim))


def races(
    names: Names, kinds: Names, splits: Names, grid: Grid, progress: bool, **options: Any
) -> xr.Dataset:
    """Return all methods at their best α over kinds of times and splits of the data."""

    def one(name: str, kind: str, split: str) -> xr.Dataset:
        return own_best(histories(name, kind, Race(split), grid, **options), Race(split))

    def method(name: str) -> xr.Dataset:
        return along("times", kinds, lambda k: along("split", splits, lambda s: one(name, k, s)))

    return along("algorithm", names, method, progress)


def growth(names: Names, grid: Grid, progress: bool, **options: Any) -> xr.Dataset:
    """Return seconds to the target over the number of agents, with stragglers."""

    def one(name: str, n: int) -> xr.Dataset:
        race, seconds = GROWING[n], max(400.0, 16_000.0 / n)
        made = histories(name, "stragglers", race, grid, seconds=seconds, **options)
        return own_best(made, race)[["arrival", "calls", "alpha", "edge"]]

    def size(n: int) -> xr.Dataset:
        return along("algorithm", names, lambda name: one(name, n))

    return along("agents", GROWING, size, progress)


FINE = tuple(2.0 ** (j / 3) for j in range(-10, 14))  # α L with quadratics; limits at the first
THEORY = ("ADSGD", "AD-PSGD", "R-FAST")
LIMITS = THEORY[:2]
SETTLED = 1e-2  # relative distance from a fixed point that counts as there


def one_slow(factor: float) -> np.ndarray:
    """Return the seconds of all agents' gradients, the first's ``factor``."""
    return np.where(np.arange(8) == 0, factor, 1.0)


RANDOM = durations.Exponential(np.linspace(0.5, 2, 8))
PATTERNS: dict[str, tuple[Any, Any]] = {
    "equal": (one_slow(1.0), 0.5),
    "one agent 4x": (one_slow(4.0), 0.5),
    "one agent 16x": (one_slow(16.0), 0.5),
    "one agent 64x": (one_slow(64.0), 0.5),
    "random": (durations.Stragglers(RANDOM, 0.05, SLOW), durations.LogNormal(0.5, 1.0)),
    "messages 4x": (one_slow(1.0), 3.5),
    "messages 16x": (one_slow(1.0), 15.5),
}
"""Seconds of gradients and of messages."""


@functools.cache
def quadratics() -> Any:
    """Return heterogeneous quadratics, whose limits are known."""
    return jd.problems.quadratic(agents=8, d=6, heterogeneity=0.3, curvature_spread=0.5, seed=4)


def mean_estimate(state: Any, _: Any) -> jax.Array:
    """Return the mean of the agents' estimates, [d]."""
    return state.x.mean(axis=0)


def theory(names: Names, kinds: Names, runs: int) -> xr.Dataset:
    """Return, over algorithms and patterns, the largest α L that works, and limits at the least.

    It works if the error at the end is not above what it was at the start and after half of the
    run, and that of all smaller ones neither. ``distance`` is how far the mean estimate is from the
    solution, averaged over the last quarter; ``off`` how far all estimates end from DGD's fixed
    point, as a part of that one's distance; ``predicted`` the distance of the minimizer of
    Σᵢ pᵢ fᵢ with AD-PSGD's pᵢ.
    """
    world, kinds, point = quadratics(), list(kinds), fixed_point()
    x0 = world.start() + world.solution + 1.0

    def one(name: str) -> xr.Dataset:
        make = jd.networks.pairwise if name == "AD-PSGD" else jd.networks.timeline
        pairs = [PATTERNS[kind] for kind in kinds]
        made = [make(network(world.n), compute=c, delay=d, steps=runs) for c, d in pairs]
        result = jd.sweep(jd.run, over=("algorithm", "network"))(
            jax.vmap(type(METHODS[name][0]))(jnp.array(FINE) / world.smoothness),
            world,
            jd.networks.stack(made),
            x0,
            jax.random.key(0),
            steps=runs,
            every=runs // 400,
            metrics={"mean": mean_estimate},
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
        return xr.Dataset({key: ("pattern", v) for key, v in found.items()}, {"pattern": kinds})

    return along("algorithm", names, one)


def weighted_minimizer(pairs: Any) -> float:
    """Return the distance from the solution of the minimizer of Σᵢ pᵢ fᵢ, pᵢ the share of i's."""
    world, agents = quadratics(), np.asarray(pairs.agents)
    share = np.bincount(agents[agents < world.n], minlength=world.n)
    hessian = np.tensordot(share, np.asarray(world.hessians), 1)
    return float(np.linalg.norm(np.linalg.solve(hessian, share @ np.asarray(world.tilts))))


@functools.cache
def fixed_point() -> np.ndarray:
    """Return DGD's fixed point at the least α, (I − W) X + α ∇F(X) = 0, [n, d]."""
    world = quadratics()
    n, d, stepsize = world.n, world.d, FINE[0] / float(world.smoothness)
    system = np.kron(np.eye(n) - np.asarray(network(n).matrix(), float), np.eye(d))
    for i, hessian in enumerate(np.asarray(world.hessians)):
        system[i * d : (i + 1) * d, i * d : (i + 1) * d] += stepsize * hessian
    away = np.linalg.solve(system, -stepsize * np.asarray(world.tilts).ravel())
    return away.reshape(n, d) + np.asarray(world.solution)


def safe_stepsize() -> float:
    """Return α L that works for ADSGD whatever the delays: α = 2 minᵢ wᵢᵢ / (L + μ)."""
    world = quadratics()
    curvatures = np.linalg.eigvalsh(np.asarray(world.hessians))
    own = np.diagonal(np.asarray(network(world.n).matrix())).min()
    return float(2 * own / (curvatures.max() + curvatures.min()) * world.smoothness)


def seconds_table(dataset: xr.Dataset, dims: tuple[str, ...]) -> pd.DataFrame:
    """Return seconds, gradients and best α L of all methods, starred at the grid's edge."""
    cases = dataset[["arrival", "calls", "alpha", "edge"]].stack(case=dims)
    rows, names = [], list(cases.algorithm.values)
    for i, case in enumerate(cases.case.values):
        row = list(map(str, case))
        for name in names:
            cell = cases.sel(algorithm=name).isel(case=i)
            seconds, calls = (number(float(cell[key]), ".0f") for key in ("arrival", "calls"))
            row.append(f"{seconds} ({calls}, {float(cell.alpha):.3g}{'*' * bool(cell.edge)})")
        rows.append(row)
    return pd.DataFrame(rows, columns=(*dims, *names))


def theory_table(found: xr.Dataset) -> pd.DataFrame:
    """Return the largest stepsizes that work, and how far limits are from the solution."""
    rows, names = [], list(found.algorithm.values)
    for kind in found.pattern.values:
        here = found.sel(pattern=kind)
        largest = [number(float(v), ".2f") for v in here.largest]
        ends = [here.distance.sel(algorithm=name) for name in LIMITS]
        ends.append(here.predicted.sel(algorithm="AD-PSGD"))
        rows.append((kind, *largest, *(f"{float(v):.2e}" for v in ends)))
    header = ["times", *(f"largest alpha L, {name}" for name in names)]
    header += [*(f"limit, {name}" for name in LIMITS), "minimizer of sum p_i f_i"]
    return pd.DataFrame(rows, columns=header)


def claims_table(dataset: xr.Dataset, grown: xr.Dataset | None, found: xr.Dataset) -> pd.DataFrame:
    """Return the claims beside the measurements."""
    rows = []

    def row(
        claim: str, source: str, claimed: str, measured: str, met: bool, note: str = "-"
    ) -> None:
        verdict = "yes" if met else "no"
        rows.append((claim, source, claimed, measured, verdict, "-" if met else note))

    cells = dataset.arrival.stack(case=("times", "split"))
    for name in dataset.algorithm.values[1:]:
        ratio = cells.sel(algorithm=name).fillna(np.inf) / cells.sel(algorithm="ADSGD")
        first, server = (ratio >= 1).values, name == "parallel SGD"
        late = [", ".join(case) for case in ratio.case.values[~first]]
        row(
            f"ADSGD comes to the gap no later than {name}",
            f"{REVIEWS}: {'in one panel' if server else 'faster in wall-clock time'}",
            "somewhere" if server else "always",
            f"{first.sum()} of {first.size}, {name}'s seconds over ADSGD's {float(ratio.min()):.2f}"
            f" to {float(ratio.max()):.2f}" + f"; not {'; '.join(late)}" * bool(late),
            bool(first.any() if server else first.all()),
            NOTES.get(name, "waiting costs little where all are nearly as fast"),
        )
    if "DGD" in dataset.algorithm:
        calls = dataset.calls.sel(times="even")
        ratio = (calls.sel(algorithm="ADSGD") / calls.sel(algorithm="DGD")).values
        row(
            "nearly equal speeds: ADSGD's gradients over DGD's",
            "derived: with equal speeds and quick messages it is DGD",
            "ratio 1",
            ", ".join(f"{r:.2f} ({split})" for r, split in zip(ratio, SPLITS, strict=True)),
            bool(np.all(np.abs(ratio - 1) < 0.3)),
            "speeds are not quite equal",
        )
        last = dataset.isel(times=0, split=0, seed=0, record=-1)
        sent = (last.bits / last.gradients).to_series()
        row(
            "bits a gradient, R-FAST's over ADSGD's",
            f"{REVIEWS}: half the communication an iteration",
            "ratio 2",
            f"{sent['R-FAST'] / sent['ADSGD']:.2f}",
            bool(np.isclose(sent["R-FAST"], 2 * sent["ADSGD"], rtol=1e-3)),
        )
    if grown is not None:
        by = {name: grown.arrival.sel(algorithm=name).values for name in grown.algorithm.values}
        texts = [f"{name} {', '.join(number(t, '.0f') for t in by[name])}" for name in by]
        row(
            f"more agents are sooner there: {', '.join(map(str, grown.agents.values))}",
            f"{REVIEWS}: scales up to 128 agents",
            "ADSGD's seconds fall",
            "; ".join(texts),
            bool(np.all(np.diff(by["ADSGD"]) < 0)),
            "the noise falls, but the stepsize is bounded",
        )
    slow = [kind for kind in found.pattern.values if kind.startswith(("equal", "one"))]
    for name in found.algorithm.values:
        steps = found.largest.sel(algorithm=name, pattern=slow).values
        ratio = steps.max() / steps.min()
        row(
            f"{name}: the largest stepsize that works is the same however slow an agent is",
            f"{PAPER}, abstract: independent of computation delays" if name == "ADSGD" else "ours",
            "ratio 1",
            f"{ratio:.2f}: alpha L {steps.min():.2f} to {steps.max():.2f}",
            bool(ratio < 1.01),
            "gradients in its trackers are as old as the slowest agent's",
        )
    least = float(found.largest.sel(algorithm="ADSGD").min())
    row(
        "ADSGD: alpha = 2 min w_ii / (L + mu) works with all times",
        "derived: a contraction for any bounded delays",
        f"largest alpha L >= {safe_stepsize():.3f}",
        f"at least {least:.3f}",
        least >= safe_stepsize(),
    )
    off = float(found.off.sel(algorithm="ADSGD").max())
    row(
        "ADSGD: times do not move the limit, which is DGD's fixed point",
        f"{PAPER}, abstract: block descent; derived: on a penalized problem",
        "relative distance 0",
        f"at most {off:.1e}",
        off < SETTLED,
        "some have not settled yet",
    )
    uneven = found.sel(algorithm="AD-PSGD")
    ratio = (uneven.distance / uneven.predicted).values[uneven.predicted > SETTLED]
    row(
        "AD-PSGD: the limit is the minimizer of sum p_i f_i, p_i the share of i's gradients",
        "derived: its mean moves by -(alpha / n) g_i",
        "ratio 1 of the distances",
        f"{ratio.min():.3f} to {ratio.max():.3f}",
        bool(np.all(np.abs(ratio - 1) < 0.05)),
        "the stepsize's own bias, and fluctuations of who finishes",
    )
    return pd.DataFrame(
        rows, columns=("claim", "source", "claimed", "measured", "met", "if not, why")
    )


NOTES = {
    "AD-PSGD": "with shuffled data it has no bias from speeds; neighbors move a slow agent's model "
    "on, while ADSGD's stands still, and is mixed by others, until its gradient is ready",
    "R-FAST": "tracking has no bias, so that with sorted data larger stepsizes come to the gap; "
    "its grid goes 1 / a_ii times as far",
    "DSGD": "mixing after the step has less bias with sorted data than mixing before it: DSGD "
    "takes fewer gradients than DGD, ADSGD no fewer, and that can outweigh waiting",
}


def figure(dataset: xr.Dataset, grown: xr.Dataset | None, found: xr.Dataset) -> Any:
    """Return curves over time; times over agents; stepsizes and limits over times."""
    import matplotlib.pyplot as plt
    from matplotlib.lines import Line2D
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    kinds, split = list(map(str, dataset.times.values)), str(dataset.split.values[0])
    names, patterns = list(map(str, dataset.algorithm.values)), list(found.pattern.values)
    fig, axes = plt.subplots(2, 4, figsize=(16, 8), layout="constrained")
    (arrivals, scaling, largest, limits), place = axes[1], np.arange(len(patterns))

    for ax in axes[1]:
        ax.set(yscale="log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter(FuncFormatter("{:g}".format))
        ax.yaxis.set_minor_formatter(NullFormatter())
        ax.grid(axis="y", color="0.92")

    def style(name: str) -> dict[str, Any]:
        _, _, color, line = METHODS[name]
        return {"color": jd.plot.PALETTE[color], "linestyle": line, "linewidth": 1.7}

    for ax, kind in zip(axes[0], kinds, strict=False):
        for name in names:
            here = dataset.sel(split=split, times=kind, algorithm=name).median("seed")
            smooth = here.gap.rolling(record=STAYS, min_periods=1).mean()
            ax.plot(here.seconds, smooth, **style(name))
        last = float(dataset.seconds.sel(times=kind, split=split, algorithm="ADSGD").max())
        ax.axhline(Race(split).target, color="0.6", linewidth=1, linestyle=":")
        ax.set(yscale="log", xlim=(0, last), ylim=(5e-4, 1))
        ax.set(title=TIMES[kind].title, xlabel=jd.plot.NAMES["seconds"])
    axes[0][0].set_ylabel(f"{jd.plot.NAMES['gap']}, {split} digits")
    fills = dict(zip(map(str, dataset.split.values), ("full", "none"), strict=False))
    for m, name in enumerate(names):
        for where, fill in fills.items():
            x = np.arange(len(kinds)) + 0.12 * (m - (len(names) - 1) / 2)
            arrival = dataset.arrival.sel(algorithm=name, split=where)
            arrivals.plot(x, arrival, "o", color=style(name)["color"], fillstyle=fill)
    arrivals.set_xticks(np.arange(len(kinds)), kinds)
    arrivals.set(ylabel=f"seconds to a gap of {Race(split).target:g}", title=f"{AGENTS} agents")
    marks = [Line2D([], [], marker="o", ls="", color="0.4", fillstyle=f) for f in fills.values()]
    arrivals.legend(marks, fills, fontsize=8)
    if grown is not None:
        for name in map(str, grown.algorithm.values):
            scaling.plot(grown.agents, grown.arrival.sel(algorithm=name), marker="o", **style(name))
        scaling.set(xscale="log", ylim=(100, 1000), title="stragglers, minibatches of 1")
        scaling.set(xlabel="agents", ylabel=f"seconds to a gap of {GROWING[8].target:g}")
        scaling.set_xticks(grown.agents.values, list(map(str, grown.agents.values)))
        scaling.xaxis.set_minor_locator(NullLocator())
    for name in map(str, found.algorithm.values):
        here, color = found.sel(algorithm=name), style(name)["color"]
        largest.plot(place, here.largest, "o-", color=color, linewidth=0.8)
        if name in LIMITS:
            limits.plot(place, here.distance, "o-", color=color, linewidth=0.8)
    line = largest.axhline(safe_stepsize(), color=jd.plot.PALETTE[0], linewidth=1, linestyle=":")
    largest.legend([line], [r"$2\,\min w_{ii}/(L+\mu)$: ADSGD, any delays"], fontsize=8)
    largest.set(ylabel=r"largest stepsize that works,  $\alpha L$", title="quadratics")
    predicted = found.predicted.sel(algorithm="AD-PSGD")
    limits.plot(place, predicted, "k_", markersize=16, label=r"minimizer of $\sum p_i f_i$")
    own = float(np.linalg.norm(fixed_point().mean(axis=0) - np.asarray(quadratics().solution)))
    limits.axhline(own, color="0.4", linewidth=1, linestyle=":", label="DGD's fixed point")
    limits.set(ylabel=r"limit's distance  $\|\bar x - x^\star\|$", ylim=(own / 3, 1))
    limits.set(title=rf"quadratics, $\alpha L = {FINE[0]:.2g}$")
    limits.legend(fontsize=8)
    for ax in (largest, limits):
        ax.set_xticks(place, patterns, rotation=40, ha="right")
    for ax in (*axes[0][len(kinds) :], *([scaling] if grown is None else [])):
        ax.set_visible(False)
    shown = list(dict.fromkeys([*names, *map(str, found.algorithm.values)]))
    handles = [Line2D([], [], **style(name)) for name in shown]
    fig.legend(handles, shown, loc="outside lower center", ncols=len(shown))
    return fig


def run(
    quick: bool, out: Path, seed: int, scale: str = "small", progress: bool = True
) -> list[Path]:
    """Run everything, print the tables and return the files written into ``out``."""
    options = {"seeds": 1 if quick else 10 if scale == "full" else 3, "seed": seed}
    grown = None
    if quick:
        dataset = races(["ADSGD", "DSGD"], ["slow"], SPLITS[:1], GRID[2:5], progress, **options)
        found = theory(LIMITS, ("equal", "one agent 4x", "messages 4x"), 4_000)
    else:
        dataset = races(METHODS, TIMES, SPLITS, GRID, progress, **options)
        wider = tuple(a / 2 for a in GRID)
        grown = growth(("ADSGD", "DSGD", "parallel SGD"), wider, progress, **options)
        found = theory(THEORY, PATTERNS, 24_000)
    what = "simulated seconds (gradients an agent, best alpha L) to a gap of"
    claims = claims_table(dataset, grown, found)
    tables = {
        "times": (f"{what} {Race('').target:g}", seconds_table(dataset, ("split", "times"))),
        "theory": ("stepsizes that work, and limits, with quadratics", theory_table(found)),
        "claims": ("what the paper claims and what was measured", claims),
    }
    datasets = {"times": dataset, "theory": found}
    if grown is not None:
        title = f"{what} {GROWING[8].target:g}, minibatches of 1"
        tables["growth"], datasets["growth"] = (title, seconds_table(grown, ("agents",))), grown
    return results.write(
        "adsgd",
        out,
        command=f"python -m experiments adsgd --seed {seed} --scale {scale}"
        + (" --quick" if quick else ""),
        tables=tables,
        datasets=datasets,
        figures={"adsgd": figure(dataset, grown, found)},
    )
