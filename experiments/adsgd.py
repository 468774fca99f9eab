"""ADSGD: agents that never wait, in simulated time (arXiv 2505.10322).

Logistic regression of the digits, odd against even, minibatches of 8, on exponential graphs; the
digits sorted or shuffled over 16 agents. ADSGD, AD-PSGD and R-FAST never wait; DSGD, DGD (which
mixes before it steps, as ADSGD does) and parallel SGD with a server do. Four kinds of times: nearly
equal speeds, one agent ten times slower, every twentieth gradient ten times slower, and messages
slower than gradients, more so from some agents. Each method at its own best stepsize of one grid.
Questions: who is first at a target in simulated time; how that falls as up to 128 agents share the
data; and with quadratics and full gradients, whether the stepsizes that work depend on how slow an
agent, or a message, is, and whether the limit does. AD-PSGD's is compared with the minimizer of
Σᵢ pᵢ fᵢ, pᵢ agent i's share of all gradients.

Gaps are those of the mean of the agents' estimates. The paper's claims are known from its abstract
and public reviews; its graphs, stepsizes and times are not. It has MNIST and larger networks.
"""

import dataclasses
import functools
from collections.abc import Mapping
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

AGENTS = 16
BATCH = 8
L2 = 1e-2
TARGET = 1e-2  # gap
RECORDS = 120
GRID = tuple(2.0 ** (j / 2) for j in range(-8, 11))  # α L
SPLITS = ("sorted", "shuffled")
SLOW = 10.0  # times, what is slow
PAPER = "arXiv 2505.10322"
REVIEWS = f"{PAPER}, public reviews"
METHODS: dict[str, Any] = {
    "ADSGD": jd.ADSGD(0.1),
    "AD-PSGD": jd.ADPSGD(0.1),
    "R-FAST": jd.RFAST(0.1),
    "DSGD": jd.DSGD(0.1),
    "DGD": jd.DGD(0.1),
    "parallel SGD": jd.SGD(0.1),
}
STYLES = {
    "ADSGD": (0, "-"),
    "AD-PSGD": (1, "-"),
    "R-FAST": (2, "-"),
    "DSGD": (3, "--"),
    "DGD": (4, "--"),
    "parallel SGD": (6, ":"),
}
"""Color and line of each; those that never wait have solid lines."""
WAITING = ("DSGD", "DGD", "parallel SGD")
FACTORS = {"agent": (1.0, 4.0, 16.0, 64.0), "messages": (1.0, 4.0, 16.0)}
"""How much slower one agent is, or how long messages take, + 0.5, in `stability` and `limits`."""
FINE = tuple(2.0 ** (j / 4) for j in range(-8, 13))  # α L of `stability`
SMALL = 0.05  # α L at which limits are compared


@dataclasses.dataclass(frozen=True)
class Times:
    """How long gradients and messages take: all of one structure, so that they share programs."""

    title: str
    slow: bool = False  # one agent, always
    spread: float = 0.3  # σ of log-normal gradients
    straggling: float = 0.0  # probability of a gradient that is slow
    least: float = 0.2  # mean of a message of the first agent, and
    most: float = 0.2  # of the last

    def compute(self, n: int) -> Any:
        """Return the model of gradients."""
        means = np.where(np.arange(n) == n // 3, SLOW if self.slow else 1.0, 1.0)
        return times.Stragglers(times.LogNormal(means, self.spread), self.straggling, SLOW)

    def delay(self, n: int) -> Any:
        """Return the model of messages."""
        return times.LogNormal(np.linspace(self.least, self.most, n), 0.5)


TIMES = {
    "even": Times("nearly equal speeds"),
    "slow": Times("one agent 10 times slower", slow=True),
    "stragglers": Times("one gradient in 20 is 10 times slower", straggling=0.05),
    "messages": Times("messages take 0.5 to 5 gradients", least=0.5, most=5.0),
}


@functools.cache
def problem(split: str, n: int = AGENTS) -> Any:
    """Return the problem of n agents, with minibatches."""
    features, digits = jd.data.digits()
    order = np.argsort(digits, kind="stable")
    if split == "shuffled":
        order = np.random.default_rng(0).permutation(len(digits))
    whole = jd.problems.logistic_regression(
        features, digits % 2, agents=n, l2=L2, partition=np.array_split(order, n)
    )
    return jd.problems.Minibatch(whole, BATCH)


@functools.cache
def network(n: int = AGENTS) -> Any:
    """Return the weights on the exponential graph."""
    return jd.networks.metropolis(jd.graphs.exponential(n))


@functools.cache
def clock(family: str, kind: str, n: int, seconds: float, seed: int) -> Any:
    """Return the network on which a method runs in simulated time."""
    weights, model = network(n), TIMES[kind]
    lasts = {"compute": model.compute(n), "delay": model.delay(n)}
    if family == "waiting":
        return jd.networks.timed(weights, **lasts)
    if family == "server":
        return jd.networks.timed(jd.networks.Server(n), **lasts)
    make = jd.networks.pairwise if family == "pairs" else jd.networks.timeline
    return make(weights, **lasts, seconds=seconds, key=jax.random.key(seed))


def family_of(name: str) -> str:
    """Return the kind of network that a method runs on."""
    if name == "parallel SGD":
        return "server"
    return "waiting" if name in WAITING else "pairs" if name == "AD-PSGD" else "timeline"


def histories(
    name: str,
    kind: str,
    split: str,
    grid: tuple[float, ...],
    *,
    n: int = AGENTS,
    seconds: float,
    rounds: int,
    seeds: int,
    seed: int,
) -> xr.Dataset:
    """Return gap and seconds of one method over α L, seeds and records."""
    world = problem(split, n)
    wires = clock(family_of(name), kind, n, seconds, seed)
    horizon = getattr(wires, "horizon", None) or rounds
    every = max(horizon // RECORDS, 1)
    dataset = jd.compare(
        {name: METHODS[name]},
        world,
        wires,
        over={"stepsize": jnp.asarray(grid) / world.smoothness},
        seeds=range(seed, seed + seeds),
        steps=min(horizon // every, RECORDS) * every,
        every=every,
        progress=False,
    )
    dataset = dataset.isel(network=0, drop=True)[["gap", "seconds", "gradients", "diverged"]]
    dataset = dataset.rename(step="record", stepsize="scaled")
    return dataset.assign_coords(record=np.arange(dataset.sizes["record"]), scaled=list(grid))


def own_best(dataset: xr.Dataset) -> xr.Dataset:
    """Return every method at its best α: first at the target, or else lowest at the end.

    With the coordinates ``scaled`` and ``arrival``, the median seconds to the target over seeds.
    """
    there = dataset.gap <= TARGET
    first = dataset.seconds.isel(record=there.argmax("record"))
    arrival = first.where(there.any("record")).median("seed", skipna=False)
    last = dataset.gap.isel(record=slice(-5, None)).mean(("record", "seed"))
    last = last.where(~dataset.diverged.any("seed")).fillna(1e9)
    which = arrival.fillna(1e9 * (1 + last)).argmin("scaled")
    chosen = dataset.isel(scaled=which)
    return chosen.assign_coords(arrival=arrival.isel(scaled=which))


def races(
    kinds: list[str],
    splits: tuple[str, ...],
    names: list[str],
    grid: tuple[float, ...],
    progress: bool,
    **options: Any,
) -> xr.Dataset:
    """Return all methods at their best α over kinds of times and splits of the data."""
    bar = tqdm(total=len(kinds) * len(names) * len(splits), disable=not progress, unit="sweep")
    parts = []
    for name in names:
        for kind in kinds:
            for split in splits:
                bar.set_description(f"{name}, {kind}, {split}")
                best = own_best(histories(name, kind, split, grid, **options))
                parts.append(best.expand_dims(times=[kind], split=[split]))
                bar.update()
    bar.close()
    return xr.combine_by_coords(
        [part.reset_coords(["scaled", "arrival"]) for part in parts], join="outer"
    ).sel(algorithm=names, times=kinds, split=list(splits))  # type: ignore[union-attr]


def growth(
    sizes: tuple[int, ...],
    names: list[str],
    grid: tuple[float, ...],
    progress: bool,
    **options: Any,
) -> xr.Dataset:
    """Return seconds to the target over the number of agents, with stragglers, data shuffled."""
    parts = []
    for n in tqdm(sizes, unit="size", disable=not progress):
        for name in names:
            best = own_best(histories(name, "stragglers", "shuffled", grid, n=n, **options))
            parts.append(best[["gap", "diverged"]].isel(record=[-1]).expand_dims(agents=[n]))
    parts = [part.reset_coords(["scaled", "arrival"]).drop_vars("record") for part in parts]
    return xr.combine_by_coords(parts).sel(algorithm=names)  # type: ignore[return-value]


@functools.cache
def quadratics() -> Any:
    """Return heterogeneous quadratics of 8 agents, whose limits are known."""
    return jd.problems.quadratic(agents=8, d=6, heterogeneity=0.3, curvature_spread=0.5, seed=4)


def clocks(name: str, what: str, factors: tuple[float, ...], runs: int) -> list[Any]:
    """Return timelines with one slow agent, or with slow messages."""
    make = jd.networks.pairwise if name == "AD-PSGD" else jd.networks.timeline
    made = []
    for factor in factors:
        compute = np.where(np.arange(8) == 0, factor if what == "agent" else 1.0, 1.0)
        delay = 0.5 if what == "agent" else factor - 0.5
        made.append(make(network(8), compute=compute, delay=delay, steps=runs))
    return made


def stability(names: list[str], factors: Mapping[str, tuple[float, ...]], runs: int) -> xr.Dataset:
    """Return the largest α L that works on quadratics, [algorithm, factor] of ``factors``' names.

    It works if the error at the end is below what it was at the start or after half of the run.
    """
    world = quadratics()
    stepsizes = jnp.array(FINE) / world.smoothness
    x0 = world.start() + world.solution + 1.0

    def largest(name: str, what: str, some: tuple[float, ...]) -> list[float]:
        result = jd.sweep(jd.run, over=("algorithm", "network"))(
            jax.vmap(type(METHODS[name]))(stepsizes),
            world,
            jd.networks.stack(clocks(name, what, some, runs)),
            x0,
            jax.random.key(0),
            steps=runs,
            every=runs // 2,
        )
        history = result.history
        error = history["distance_squared"] + history["consensus_error"]
        works = np.isfinite(error[..., 2]) & (error[..., 2] <= error[..., :2].max(axis=-1))
        first = np.where(works.all(axis=0), len(FINE), np.argmin(works, axis=0))  # that does not
        return [FINE[k - 1] if k else np.nan for k in first]

    parts = {
        what: xr.DataArray(
            [largest(name, what, some) for name in names],
            {"algorithm": names, "factor": list(some)},
            ("algorithm", "factor"),
        )
        for what, some in factors.items()
    }
    return xr.Dataset(parts)


def average(state: Any, _: Any) -> jax.Array:
    """Return the mean of the agents' estimates, [d]."""
    return state.x.mean(axis=0)


def limits(factors: tuple[float, ...], runs: int) -> xr.Dataset:
    """Return how far the mean estimate ends from the solution, over how slow one agent is.

    At a small α, averaged over the last quarter of the run; ``predicted`` is the same for the
    minimizer of Σᵢ pᵢ fᵢ, with AD-PSGD's pᵢ.
    """
    world, names = quadratics(), ["ADSGD", "AD-PSGD"]
    hessians, tilts, center = map(np.asarray, (world.hessians, world.tilts, world.solution))
    found, predicted = [], []
    for name in names:
        members = clocks(name, "agent", factors, runs)
        result = jd.sweep(jd.run, over=("network",))(
            type(METHODS[name])(SMALL / float(world.smoothness)),
            world,
            jd.networks.stack(members),
            world.start(),
            jax.random.key(0),
            steps=runs,
            every=runs // 400,
            metrics={"mean": average},
        )
        last = result.history["mean"][:, -100:].mean(axis=1)
        found.append(np.linalg.norm(last - center, axis=1))
    for made in clocks("AD-PSGD", "agent", factors, runs):
        agents = np.asarray(made.agents)
        share = np.bincount(agents[agents < 8], minlength=8)[:, None, None]
        x = np.linalg.solve((share * hessians).sum(0), -(share[..., 0] * tilts).sum(0))
        predicted.append(np.linalg.norm(x))
    data = {"distance": (("algorithm", "factor"), found), "predicted": ("factor", predicted)}
    return xr.Dataset(data, {"algorithm": names, "factor": list(factors)})


def fixed_point_distance() -> float:
    """Return the distance of the mean of DGD's fixed point to the solution, at the small α."""
    world = quadratics()
    hessians, tilts = np.asarray(world.hessians), np.asarray(world.tilts)
    stepsize, n, d = SMALL / float(world.smoothness), world.n, world.d
    system = np.kron(np.eye(n) - np.asarray(network(n).matrix(), float), np.eye(d))
    for i in range(n):
        block = slice(i * d, (i + 1) * d)
        system[block, block] += stepsize * hessians[i]
    away = np.linalg.solve(system, -stepsize * tilts.ravel()).reshape(n, d)
    return float(np.linalg.norm(away.mean(axis=0)))


def bounds() -> tuple[float, float]:
    """Return α L that works for ADSGD whatever the delays, and DGD's largest, by theory."""
    world, matrix = quadratics(), np.asarray(network(8).matrix(), float)
    curvatures = np.linalg.eigvalsh(np.asarray(world.hessians))
    smoothness, least = float(world.smoothness), float(np.linalg.eigvalsh(matrix)[0])
    safe = 2 * np.diagonal(matrix).min() / (curvatures.max() + curvatures.min())
    return safe * smoothness, (1 + least) / curvatures.max() * smoothness


def time_table(dataset: xr.Dataset) -> Table:
    """Return seconds and gradients to the target, and the best α L, of every method."""
    rows = []
    for split in dataset.split.values:
        for kind in dataset.times.values:
            for name in dataset.algorithm.values:
                here = dataset.sel(split=split, times=kind, algorithm=name)
                there = (here.gap <= TARGET).any("record")
                first = here.gradients.isel(record=(here.gap <= TARGET).argmax("record"))
                calls = first.where(there).median("seed", skipna=False) / BATCH
                rows.append(
                    (
                        split,
                        TIMES[kind].title,
                        name,
                        f"{float(here.scaled):.3g}",
                        number(float(here.arrival), ".0f"),
                        number(float(calls), ".0f"),
                        f"{float(here.gap.isel(record=-1).median()):.1e}",
                    )
                )
    header = ("split", "times", "method", "best alpha L", "seconds", "gradients", "last gap")
    return Table(header, rows)


def growth_table(dataset: xr.Dataset) -> Table:
    """Return seconds to the target over the number of agents."""
    rows = [
        (str(n), *(number(float(v), ".0f") for v in dataset.arrival.sel(agents=n)))
        for n in dataset.agents.values
    ]
    return Table(("agents", *map(str, dataset.algorithm.values)), rows)


def theory_table(largest: xr.Dataset, ends: xr.Dataset) -> Table:
    """Return the largest stepsizes that work and the distances of the limits."""
    rows = []
    for what in largest:
        for name in largest.algorithm.values:
            for factor in FACTORS[str(what)]:
                if factor in largest.factor:
                    value = float(largest[what].sel(algorithm=name, factor=factor))
                    rows.append(
                        (f"largest alpha L, slow {what}", name, f"{factor:g}", f"{value:.3g}")
                    )
    for name in ends.algorithm.values:
        for factor in ends.factor.values:
            value = float(ends.distance.sel(algorithm=name, factor=factor))
            rows.append(("distance of the limit", name, f"{factor:g}", f"{value:.3e}"))
    for factor in ends.factor.values:
        value = float(ends.predicted.sel(factor=factor))
        title = "distance of the minimizer of sum p_i f_i"
        rows.append((title, "AD-PSGD's p", f"{factor:g}", f"{value:.3e}"))
    return Table(("what", "method", "slow by", "value"), rows)


def claims_table(
    dataset: xr.Dataset, grown: xr.Dataset | None, largest: xr.Dataset, ends: xr.Dataset
) -> Table:
    """Return what is claimed beside what was measured."""
    rows = []

    def row(claim: str, source: str, claimed: str, measured: str, met: bool, note: str) -> None:
        rows.append(
            (claim, source, claimed, measured, "yes" if met else "no", "-" if met else note)
        )

    before_server = []
    for split in dataset.split.values:
        for kind in dataset.times.values:
            arrival = dataset.arrival.sel(split=split, times=kind).fillna(np.inf)
            own = float(arrival.sel(algorithm="ADSGD"))
            others = arrival.drop_sel(algorithm="ADSGD")
            best = others.isel(algorithm=int(others.argmin("algorithm")))
            name, least = str(best.algorithm.values), float(best)
            if float(others.sel(algorithm="parallel SGD")) > own:
                before_server.append(f"{kind}, {split}")
            row(
                f"{TIMES[kind].title}, {split}: ADSGD is first at a gap of {TARGET:g}",
                f"{REVIEWS}: faster in wall-clock time than all baselines",
                "first",
                f"{own:.0f} s, best other {name} {least:.0f} s",
                own < least,
                NOTES[name],
            )
    row(
        "ADSGD is before parallel SGD",
        f"{REVIEWS}: in one panel",
        "somewhere",
        f"{len(before_server)} of {dataset.sizes['split'] * dataset.sizes['times']}: "
        + "; ".join(before_server),
        len(before_server) > 0,
        "-",
    )
    if grown is not None:
        arrival = grown.arrival.sel(algorithm="ADSGD").values
        row(
            f"more agents are faster with the same data, {grown.agents.values[0]} to "
            f"{grown.agents.values[-1]}",
            f"{REVIEWS}: scales up to 128 agents",
            "seconds fall",
            " > ".join(number(float(a), ".0f") for a in arrival),
            bool(np.all(np.diff(arrival) < 0)),
            "beyond some number, noise is no longer what costs time but mixing and bias are",
        )
    steps = largest.agent.sel(algorithm="ADSGD").values
    row(
        f"the largest stepsize does not depend on how slow an agent is, up to {FACTORS['agent'][-1]:g}",
        f"{PAPER}, abstract: independent of computation delays",
        "ratio 1",
        f"{steps.max() / steps.min():.2f}",
        bool(steps.max() / steps.min() < 1.01),
        "-",
    )
    every = np.concatenate(
        [largest[what].sel(algorithm="ADSGD").dropna("factor") for what in largest]
    )
    row(
        "alpha <= 2 min w_ii / (L + mu) works for all these delays",
        "derived: a contraction for any bounded delays",
        f"alpha L >= {bounds()[0]:.2f}",
        f"the largest is at least {every.min():.2f}",
        bool(every.min() >= bounds()[0]),
        "-",
    )
    distance, point = ends.distance.sel(algorithm="ADSGD").values, fixed_point_distance()
    row(
        "speeds do not move ADSGD's limit, DGD's fixed point",
        f"{PAPER}: block descent on a penalized problem",
        f"{point:.3e} from the solution",
        f"{distance.min():.3e} to {distance.max():.3e}",
        bool(np.allclose(distance, point, rtol=0.05)),
        "the slowest has not settled yet",
    )
    uneven = ends.isel(factor=slice(1, None))
    ratio = (uneven.distance.sel(algorithm="AD-PSGD") / uneven.predicted).values
    row(
        "AD-PSGD tends to the minimizer of sum p_i f_i, p_i the share of i's gradients",
        "derived from its mean's recursion",
        "ratio 1 of the distances",
        f"{ratio.min():.3f} to {ratio.max():.3f}",
        bool(np.all(np.abs(ratio - 1) < 0.05)),
        "bias and noise of its own",
    )
    return Table(("claim", "source", "claimed", "measured", "met", "if not, why"), rows)


NOTES = {
    "parallel SGD": "all average exactly, and nobody is much slower than others",
    "DSGD": "nobody is much slower than others: a round costs no more than a gradient",
    "DGD": "nobody is much slower than others: a round costs no more than a gradient",
    "AD-PSGD": "it weighs agents by speed, which is no bias where all have alike data, and averages "
    "two whole models at a time",
    "R-FAST": "tracking removes the bias that holds ADSGD up",
}


def figure(
    dataset: xr.Dataset, grown: xr.Dataset | None, largest: xr.Dataset, ends: xr.Dataset
) -> Any:
    """Return curves over time, and times, stepsizes and limits over what makes some slow."""
    import matplotlib.pyplot as plt
    from matplotlib.lines import Line2D

    kinds, split = list(map(str, dataset.times.values)), str(dataset.split.values[0])
    fig, axes = plt.subplots(2, 4, figsize=(16, 7.6), layout="constrained")

    def style(name: str) -> dict[str, Any]:
        color, line = STYLES[name]
        return {"color": jd.plot.PALETTE[color], "linestyle": line, "linewidth": 1.7}

    names = list(map(str, dataset.algorithm.values))
    for ax, kind in zip(axes[0], kinds, strict=False):
        for name in names:
            here = dataset.sel(split=split, times=kind, algorithm=name)
            x, gap = here.seconds.median("seed"), here.gap
            ax.plot(x, gap.median("seed"), **style(name))
            low, high = (gap.quantile(q, "seed") for q in (0.1, 0.9))
            ax.fill_between(x, low, high, color=style(name)["color"], alpha=0.15, linewidth=0)
        ends_at = dataset.seconds.sel(split=split, times=kind, algorithm="ADSGD").max()
        ax.axhline(TARGET, color="0.6", linewidth=1, linestyle=":")
        ax.set(yscale="log", xlim=(0, float(ends_at)), ylim=(1e-3, 0.5))
        ax.set(title=f"{TIMES[kind].title}, {split}", xlabel=jd.plot.NAMES["seconds"])
    axes[0][0].set_ylabel(jd.plot.NAMES["gap"])
    ax = axes[1][0]
    for m, name in enumerate(names):
        for where, fill in (("sorted", "full"), ("shuffled", "none")):
            if where in dataset.split.values:
                arrival = dataset.arrival.sel(algorithm=name, split=where)
                place = np.arange(len(kinds)) + 0.12 * (m - (len(names) - 1) / 2)
                color = style(name)["color"]
                ax.plot(place, arrival, "o", color=color, fillstyle=fill, markersize=6)
    ax.set_xticks(np.arange(len(kinds)), [kind.replace(" ", "\n") for kind in kinds])
    ax.set(yscale="log", ylabel=f"seconds to a gap of {TARGET:g}", title="16 agents")
    marks = [
        Line2D([], [], marker="o", linestyle="", color="0.4", fillstyle=fill)
        for fill in ("full", "none")
    ]
    ax.legend(marks, ["sorted", "shuffled"], fontsize=8)
    ax.grid(axis="y", color="0.9")
    ax = axes[1][1]
    if grown is not None:
        for name in map(str, grown.algorithm.values):
            ax.plot(grown.agents, grown.arrival.sel(algorithm=name), marker="o", **style(name))
    ax.set(xscale="log", yscale="log", xlabel="agents", title="stragglers, shuffled")
    sizes = [] if grown is None else list(grown.agents.values)
    ax.set_xticks(sizes, list(map(str, sizes)))
    ax.minorticks_off()
    ax.set_ylabel(f"seconds to a gap of {TARGET:g}")
    ax = axes[1][2]
    for what, mark in (("agent", "o"), ("messages", "^")):
        for name in map(str, largest.algorithm.values):
            values = largest[what].sel(algorithm=name).dropna("factor")
            line = {**style(name), "linestyle": "-" if what == "agent" else ":"}
            ax.plot(values.factor, values, marker=mark, markersize=5, **line)
    safe = bounds()[0]
    ax.axhline(safe, color=jd.plot.PALETTE[0], linewidth=1, linestyle=(0, (1, 3)))
    ax.text(1.1, safe * 0.93, "theory, ADSGD, any delays", fontsize=8, va="top", color="0.3")
    ax.set(
        xscale="log", yscale="log", xlabel="times slower", ylabel=r"largest stepsize  $\alpha L$"
    )
    ax.set(title="quadratics: what stepsizes work")
    ax.legend(
        [Line2D([], [], marker=m, color="0.4", ls=ls) for m, ls in (("o", "-"), ("^", ":"))],
        ["one agent", "messages"],
        fontsize=8,
    )
    ax = axes[1][3]
    for name in map(str, ends.algorithm.values):
        ax.plot(ends.factor, ends.distance.sel(algorithm=name), marker="o", **style(name))
    ax.plot(ends.factor[1:], ends.predicted[1:], "k_", markersize=16, markeredgewidth=1.5)
    ax.axhline(fixed_point_distance(), color="0.6", linewidth=1, linestyle=":")
    ax.set(xscale="log", yscale="log", xlabel="times that one agent is slower", title="limits")
    ax.set_ylabel(r"$|\bar x - x^\star|$")
    ax.legend(
        [
            Line2D([], [], marker="_", linestyle="", color="k", markersize=14),
            Line2D([], [], linestyle=":", color="0.6"),
        ],
        [r"minimizer of $\sum p_i f_i$", "DGD's fixed point"],
        fontsize=8,
    )
    for ax in axes[1][2:]:
        ax.set_xticks(FACTORS["agent"], [f"{factor:g}" for factor in FACTORS["agent"]])
        ax.minorticks_off()
    handles = [Line2D([], [], **style(name)) for name in names]
    fig.legend(handles, names, loc="outside lower center", ncols=len(names))
    return fig


def run(
    quick: bool, out: Path, seed: int, scale: str = "small", progress: bool = True
) -> list[Path]:
    """Run everything; print the tables; return the files written into ``out``."""
    full = scale == "full" and not quick
    grid = GRID[4::4] if quick else GRID
    options: dict[str, Any] = {"seconds": 150.0, "rounds": 120, "seeds": 1, "seed": seed}
    if not quick:
        options = {"seconds": 800.0, "rounds": 480, "seeds": 10 if full else 3, "seed": seed}
    names = ["ADSGD", "DSGD", "parallel SGD"] if quick else list(METHODS)
    dataset = races(
        ["slow"] if quick else list(TIMES),
        SPLITS[:1] if quick else SPLITS,
        names,
        grid,
        progress,
        **options,
    )
    grown = None
    if not quick:
        compared = ["ADSGD", "DSGD", "parallel SGD"]
        grown = growth((8, 16, 32, 64, 128), compared, grid, progress, **options)
    factors = {what: some[:2] if quick else some for what, some in FACTORS.items()}
    without_waiting = [name for name in names if name not in WAITING]
    largest = stability(without_waiting, factors, 400 if quick else 4000)
    ends = limits(factors["agent"], 8000 if quick else 32_000)
    tables = {
        "times": (f"simulated seconds to a gap of {TARGET:g}", time_table(dataset)),
        "theory": ("stepsizes that work, and limits, on quadratics", theory_table(largest, ends)),
        "claims": (
            "what the paper claims and what was measured",
            claims_table(dataset, grown, largest, ends),
        ),
    }
    datasets = {"times": dataset, "stepsizes": largest, "limits": ends}
    if grown is not None:
        tables["growth"] = (f"seconds to {TARGET:g} over agents", growth_table(grown))
        datasets["growth"] = grown
    return results.write(
        "adsgd",
        out,
        command=f"python -m experiments adsgd --seed {seed} --scale {scale}"
        + (" --quick" if quick else ""),
        tables=tables,
        datasets=datasets,
        figures={"adsgd": figure(dataset, grown, largest, ends)},
    )
