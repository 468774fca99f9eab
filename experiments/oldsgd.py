"""OLDSGD: exchanges that overlap with local steps, in simulated time (arXiv 2601.01493).

Sixteen agents, digits 3 against 8, minibatches of 8; logistic regression, and the same with a
penalty that is not convex. DSGD waits for a message at every gradient, local DSGD at every τ-th;
OLDSGD and OSGP never wait for one that takes less than τ gradients. All at their own best stepsize
of one grid, and in time also at their own best τ of 1, 2, 4 and 8.
Questions: whether simulated time follows the paper's formulas; whether overlapping costs gradients
over local DSGD; which method is first at a target for messages that take 0.1 to 16 gradients' time;
and what a label-sorted split changes. A run is one sequence of iterates whatever the delay, so each
is made once, and its seconds are those of the same method on `jd.networks.timed` for every delay.

The paper's claims are known from its abstract and its formulas; its experiments are not known to
us. OSGP sends at every gradient, and so τ times as much as OLDSGD over every link: the table of
claims shows both.
"""

import dataclasses
import functools
import itertools
from collections.abc import Mapping
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
from jaxdopt.costs import cost_of

AGENTS = 16
BATCH = 8
L2 = 1e-2
EVERY = 16  # gradients a record covers
STAYS = 8  # records in a row that have to be at a target
GRID = tuple(2.0 ** (j / 2) for j in range(-12, 3))  # α L
LOCAL = (1, 2, 4, 8)  # τ
DELAYS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)  # of a message, in gradients' time
SHOWN = (1.0, 4.0, 16.0)  # delays of the figure's upper row
WORKED = ((0.5, 1125.0, 1000.0), (4.0, 2000.0, 1000.0), (8.0, 3000.0, 2000.0))
"""Delay, and seconds of 1000 gradients with τ = 4 by the paper's formulas: local DSGD, OLDSGD."""
ALIKE = 1.5  # times the gradients, up to which a method counts as taking as many
PAPER = "arXiv 2601.01493"
FAMILIES = {"DSGD": (6, "-"), "LocalDSGD": (1, "--"), "OLDSGD": (0, "-"), "OSGP": (2, "-.")}
"""Color and line of each."""


@dataclasses.dataclass(frozen=True)
class Case:
    """A problem on a graph, and when it counts as solved."""

    title: str
    graph: str
    partition: str
    convex: bool
    target: float  # of `metric`
    calls: int = 2048  # gradients one after the other in a run

    @property
    def metric(self) -> str:
        """What is to be small."""
        return "gap" if self.convex else "gradient_norm_squared"


CASES = {
    "shuffled": Case("ring, shuffled", "ring", "iid", True, 1e-3),
    "shuffled, precise": Case("ring, shuffled", "ring", "iid", True, 2e-4, 6144),
    "sorted": Case("exponential graph, sorted by label", "exponential", "by_label", True, 2e-2),
    "nonconvex": Case("ring, shuffled, nonconvex", "ring", "iid", False, 2e-4, 6144),
}
FIRST = "shuffled, precise"  # the case of the figure's upper row


@functools.cache
def problem(case: Case) -> Any:
    """Return a case's problem, with minibatches."""
    data = jd.data.digits().only(3, 8)
    make: Any = jd.problems.nonconvex_logistic_regression
    options: dict[str, Any] = {"agents": AGENTS, "partition": case.partition}
    if case.convex:
        make, options["l2"] = jd.problems.logistic_regression, L2
    return jd.problems.Minibatch(make(data.features, data.labels == 8, **options), BATCH)


def network(graph: str) -> Any:
    """Return a graph's Metropolis weights, in one form so that graphs share programs."""
    chosen = {"ring": jd.graphs.ring, "exponential": jd.graphs.exponential}[graph](AGENTS)
    weights = jd.networks.metropolis(chosen).matrix()
    return jd.networks.mixing(weights, form=jd.networks.Dense)


def methods(local: tuple[int, ...] = LOCAL) -> dict[tuple[str, int], Any]:
    """Return the methods by family and τ; local DSGD with τ = 1 is DSGD."""
    made: dict[tuple[str, int], Any] = {("DSGD", 1): jd.DSGD(0.1)}
    for tau in local:
        if tau > 1:
            made["LocalDSGD", tau] = jd.LocalDSGD(0.1, tau)
        made["OLDSGD", tau] = jd.OLDSGD(0.1, tau)
        made["OSGP", tau] = jd.OSGP(0.1, tau)
    return made


def gradients_a_step(method: Any) -> int:
    """Return how many gradients an agent takes in a step, one after the other."""
    return getattr(method, "local_steps", 1)


def histories(
    case: Case,
    local: tuple[int, ...],
    grid: tuple[float, ...],
    *,
    calls: int,
    seeds: int,
    seed: int = 0,
    progress: bool = True,
) -> xr.Dataset:
    """Return a case's metric and bits of all methods over α L, seeds and gradients taken."""
    world, wires = problem(case), network(case.graph)
    scale = float(world.smoothness)
    parts: list[Any] = []
    made = methods(local)
    for (family, tau), method in tqdm(made.items(), desc=case.title, disable=not progress):
        taken = gradients_a_step(method)
        part = jd.compare(
            {f"{family} {tau}": method},
            world,
            wires,
            over={"stepsize": jnp.asarray(grid) / scale},
            seeds=range(seed, seed + seeds),
            steps=calls // taken,
            every=EVERY // taken,
            progress=False,
        ).isel(network=0, drop=True)
        parts.append(part.assign_coords(step=part.step * taken))
    dataset: Any = xr.concat(parts, "algorithm")
    dataset = dataset[[case.metric, "bits", "diverged"]].rename(stepsize="scaled", step="calls")
    return dataset.assign_coords(
        scaled=list(grid),
        family=("algorithm", [family for family, _ in made]),
        tau=("algorithm", [tau for _, tau in made]),
    )


def seconds_a_gradient(local: tuple[int, ...], delays: tuple[float, ...]) -> xr.DataArray:
    """Return simulated seconds a gradient, [algorithm, delay], as `jd.run` counts them."""
    small, key, ring = jd.problems.quadratic(AGENTS, 2), jax.random.key(0), network("ring")
    made = methods(local)
    found = np.zeros((len(made), len(delays)))
    for (i, method), (j, delay) in itertools.product(enumerate(made.values()), enumerate(delays)):
        now = jd.networks.timed(ring, compute=1.0, delay=delay).at(0, key)
        state = method.init(small.start(), small, now, key)
        cost = cost_of(method, state, small, now)
        taken = gradients_a_step(method)
        found[i, j] = now.seconds(cost.calls or 1, cost.exchanges, cost.overlap) / taken
    names = [f"{family} {tau}" for family, tau in made]
    return xr.DataArray(found, {"algorithm": names, "delay": list(delays)}, ("algorithm", "delay"))


def formula(family: str, tau: int, delay: float) -> float:
    """Return the paper's seconds a gradient for gradients of one second; OSGP's are ours."""
    if family == "DSGD":
        return 1 + delay
    return 1 + delay / tau if family == "LocalDSGD" else max(1.0, delay / tau)


def arrivals(case: Case, dataset: xr.Dataset) -> xr.DataArray:
    """Return the gradients to the target for every α, NaN if never: the median over seeds.

    A value counts if those of the `STAYS` next records are there too, as large α overshoot.
    """
    there = (dataset[case.metric] <= case.target).astype(float)
    stays = there.rolling(calls=STAYS).min().shift(calls=1 - STAYS).fillna(0) > 0
    first = dataset.calls.isel(calls=stays.argmax("calls"))
    first = first.where(stays.any("calls") & ~dataset.diverged)
    return first.drop_vars("calls").median("seed", skipna=False)


def to_target(case: Case, dataset: xr.Dataset) -> xr.DataArray:
    """Return the gradients that every method takes to the target, at its best α; NaN if never."""
    return arrivals(case, dataset).min("scaled")


def chosen(case: Case, dataset: xr.Dataset) -> xr.Dataset:
    """Return the dataset at every method's best α: the first at the target, else the lowest."""
    last = dataset[case.metric].isel(calls=slice(-STAYS, None)).mean(("calls", "seed"))
    last = last.where(~dataset.diverged.any("seed")).fillna(1e30)
    late = arrivals(case, dataset).fillna(1e9 * (1 + last))
    return dataset.isel(scaled=late.argmin("scaled"))


def best_of(family: str, dataset: xr.Dataset, values: xr.DataArray) -> xr.DataArray:
    """Return the smallest value of a family over τ."""
    return values.isel(algorithm=np.flatnonzero(dataset.family.values == family)).min("algorithm")


def times(case: Case, dataset: xr.Dataset, pace: xr.DataArray) -> xr.DataArray:
    """Return seconds to the target, [algorithm, delay]."""
    return to_target(case, dataset) * pace


def time_table(datasets: Mapping[str, xr.Dataset], pace: xr.DataArray) -> pd.DataFrame:
    """Return seconds to the target of all families at their best τ, over delays."""
    rows = []
    for key, dataset in datasets.items():
        case = CASES[key]
        for delay in pace.delay.values:
            lasts = times(case, dataset, pace).sel(delay=delay)
            cells = []
            for family in FAMILIES:
                mine = lasts.isel(algorithm=np.flatnonzero(dataset.family.values == family))
                if not bool(mine.notnull().any()):
                    cells.append("-")
                    continue
                at = int(mine.argmin("algorithm"))
                cells.append(f"{float(mine[at]):.0f} ({int(mine.tau[at])})")
            rows.append((key, f"{delay:g}", *cells))
    return pd.DataFrame(
        rows, columns=("case", "delay", *(f"{family} (tau)" for family in FAMILIES))
    )


def gradient_table(datasets: Mapping[str, xr.Dataset]) -> pd.DataFrame:
    """Return gradients and kbit a link to the target, and the best α L, of every method."""
    rows = []
    for key, dataset in datasets.items():
        case = CASES[key]
        counts, best = to_target(case, dataset), chosen(case, dataset)
        for i, name in enumerate(map(str, dataset.algorithm.values)):
            count = float(counts.isel(algorithm=i))
            each = float(dataset.bits.isel(algorithm=i, scaled=0, seed=0, calls=-1)) / float(
                dataset.calls[-1]
            )
            last = float(best[case.metric].isel(algorithm=i, calls=-1).median())
            rows.append(
                (
                    key,
                    name,
                    f"{float(best.scaled.isel(algorithm=i)):.3g}",
                    number(count, ".0f"),
                    number(count * each / 1e3, ".0f"),
                    f"{last:.1e}",
                )
            )
    header = ("case", "method and tau", "best alpha L", "gradients", "kbit a link", "last value")
    return pd.DataFrame(rows, columns=header)


def claims_table(datasets: Mapping[str, xr.Dataset], pace: xr.DataArray) -> pd.DataFrame:
    """Return the claims beside the measurements."""
    rows = []

    def row(
        claim: str, source: str, claimed: str, measured: str, met: bool | None, note: str = "-"
    ) -> None:
        verdict = "-" if met is None else "yes" if met else "no"
        rows.append((claim, source, claimed, measured, verdict, "-" if met else note))

    made = next(iter(datasets.values()))
    off = [
        abs(float(pace.sel(algorithm=name, delay=delay)) / formula(family, int(tau), delay) - 1)
        for name, family, tau in zip(
            made.algorithm.values, made.family.values, made.tau.values, strict=True
        )
        for delay in pace.delay.values
    ]
    row(
        "simulated seconds are T (tc + tm), T tc + (T/tau) tm and (T/tau) max(tau tc, tm)",
        f"{PAPER}, wall-clock model",
        "equal",
        f"off by at most {max(off):.0e}, {len(off)} methods and delays",
        max(off) < 1e-6,
        "float32 sums",
    )
    for delay, local, overlapped in WORKED:
        got = [
            1000 * float(pace.sel(algorithm=f"{name} 4", delay=delay))
            for name in ("LocalDSGD", "OLDSGD")
        ]
        row(
            f"1000 gradients with tau = 4, delay {delay:g}: seconds of local DSGD and OLDSGD",
            "its formulas",
            f"{local:g}, {overlapped:g}",
            f"{got[0]:g}, {got[1]:g}",
            bool(np.allclose(got, (local, overlapped), rtol=1e-6)),
        )
    for key, dataset in datasets.items():
        case = CASES[key]
        counts, best = to_target(case, dataset), chosen(case, dataset)
        ratios = {}
        for tau in sorted({int(t) for t in dataset.tau.values} - {1}):
            names = [f"{family} {tau}" for family in ("OLDSGD", "LocalDSGD")]
            one, other = (float(counts.sel(algorithm=name)) for name in names)
            alphas = [float(best.scaled.sel(algorithm=name)) for name in names]
            if one == one and other == other:
                ratios[tau] = one / other
            row(
                f"{key}: OLDSGD takes local DSGD's gradients, tau = {tau}",
                f"{PAPER}, abstract: the same iteration complexity",
                "ratio 1",
                f"{ratios[tau]:.2f}" if tau in ratios else "target not reached",
                ratios[tau] <= ALIKE if tau in ratios else None,
                f"the order is the same, alpha is not: its best alpha L is {alphas[0]:.2g}, local "
                f"DSGD's {alphas[1]:.2g}; late mixing costs stability and bias",
            )
        lasts = times(case, dataset, pace)
        by = {family: best_of(family, dataset, lasts) for family in FAMILIES}
        waiting = xr.concat([by["DSGD"], by["LocalDSGD"]], "family").min("family")
        gain = (waiting / by["OLDSGD"]).dropna("delay")
        ahead = gain.delay.values[gain.values > 1]
        most = gain.isel(delay=int(gain.argmax("delay"))) if gain.size else gain
        row(
            f"{key}: OLDSGD is at the target before DSGD and local DSGD, all at their best tau",
            f"{PAPER}, abstract: faster under several levels of delay",
            "at all delays",
            f"at {', '.join(f'{delay:g}' for delay in ahead) or 'none'}; gain "
            f"{number(float(gain.min()), '.2f')} to {number(float(gain.max()), '.2f')}, the most "
            f"at {float(most.delay):g}"
            if gain.size
            else "target not reached",
            len(ahead) == pace.delay.size,
            "what can be hidden is at most half of the time and little where messages are quick; "
            "it takes "
            + ", ".join(f"{r:.1f} (tau = {t})" for t, r in ratios.items())
            + " times local DSGD's gradients",
        )
        slow = float(pace.delay.values[-1])
        behind = float(by["OSGP"].sel(delay=slow)) / float(by["OLDSGD"].sel(delay=slow))
        row(
            f"{key}: OSGP's seconds over OLDSGD's, delay {slow:g}",
            "ours: OSGP sends at every gradient",
            "-",
            number(behind, ".2f"),
            None,
        )
    return pd.DataFrame(rows, columns=("claim", "source", "claimed", "measured", "met", "why not"))


def figure(datasets: Mapping[str, xr.Dataset], pace: xr.DataArray) -> Any:
    """Return curves over simulated time, and time to the target over the delay."""
    import matplotlib.pyplot as plt
    from matplotlib.lines import Line2D
    from matplotlib.ticker import LogFormatterSciNotation, MaxNLocator, NullLocator

    columns = max(len(datasets), len(SHOWN) + 1)
    fig, axes = plt.subplots(
        2, columns, figsize=(4.1 * columns, 7.6), layout="constrained", squeeze=False
    )
    key = FIRST if FIRST in datasets else next(iter(datasets))
    case, dataset = CASES[key], datasets[key]
    best, lasts = chosen(case, dataset), times(CASES[key], dataset, pace)

    def style(family: str) -> dict[str, Any]:
        color, line = FAMILIES[family]
        return {"color": jd.plot.PALETTE[color], "linestyle": line, "linewidth": 1.8}

    ends = {delay: [] for delay in SHOWN}
    for ax, delay in zip(axes[0], SHOWN, strict=False):
        nearest = float(pace.delay.sel(delay=delay, method="nearest"))
        for family in FAMILIES:
            which = np.flatnonzero(dataset.family.values == family)
            mine = lasts.isel(algorithm=which).sel(delay=nearest)
            at = which[int(mine.fillna(1e30).argmin("algorithm"))]
            name, tau = dataset.algorithm.values[at], int(dataset.tau[at])
            here = best[case.metric].isel(algorithm=at)
            x = dataset.calls * float(pace.sel(algorithm=name, delay=nearest))
            label = family if family == "DSGD" else f"{family}, τ = {tau}"
            ax.plot(x, here.median("seed"), label=label, **style(family))
            low, high = (here.quantile(q, "seed") for q in (0.1, 0.9))
            ax.fill_between(x, low, high, alpha=0.15, linewidth=0, color=style(family)["color"])
            if family != "DSGD":
                ends[delay].append(float(mine.min()))
        ax.axhline(case.target, color="0.6", linewidth=1, linestyle=":")
        first = [end for end in ends[delay] if end == end]
        ax.set(
            yscale="log",
            xlim=(0, 1.5 * max(first, default=case.calls)),
            ylim=(case.target / 3, 1),
            xlabel="simulated time, in gradients",
            ylabel=jd.plot.NAMES[case.metric] if ax is axes[0][0] else "",
            title=f"{case.title}: a message takes {nearest:g}",
        )
        ax.xaxis.set_major_locator(MaxNLocator(5))
        ax.legend(fontsize=8)
    ax = axes[0][len(SHOWN)]
    marks = dict(zip(CASES, "osD^", strict=True))
    for other, values in datasets.items():
        counts = to_target(CASES[other], values)
        one = float(counts.sel(algorithm="DSGD 1"))
        for family in ("LocalDSGD", "OLDSGD", "OSGP"):
            which = np.flatnonzero(values.family.values == family)
            color, line = FAMILIES[family]
            ax.plot(
                values.tau.values[which],
                counts.values[which] / one,
                marker=marks[other],
                markersize=5,
                color=jd.plot.PALETTE[color],
                linestyle=line,
                linewidth=1.2,
            )
    ax.set(
        xscale="log",
        yscale="log",
        xlabel="local steps, or steps of overlap  τ",
        ylabel="gradients to the target over DSGD's",
        title="what rare and late exchanges cost",
    )
    ticks = sorted(set(dataset.tau.values.tolist()))
    ax.set_xticks(ticks, [str(tick) for tick in ticks])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.legend(
        [Line2D([], [], marker=marks[o], color="0.4", linestyle="") for o in datasets],
        list(datasets),
        fontsize=8,
    )
    for ax, (other, values) in zip(axes[1], datasets.items(), strict=False):
        lasts = times(CASES[other], values, pace)
        for family in FAMILIES:
            ax.plot(
                pace.delay,
                best_of(family, values, lasts),
                label=family,
                marker="o",
                markersize=3,
                **style(family),
            )
        ax.set(
            xscale="log",
            yscale="log",
            xlabel="time of a message, in gradients",
            title=f"{CASES[other].title}: to {CASES[other].target:g}",
            ylabel="simulated time to the target" if ax is axes[1][0] else "",
        )
        ax.set_xticks([0.1, 1, 4, 16], ["0.1", "1", "4", "16"])
        ax.xaxis.set_minor_locator(NullLocator())
        ax.yaxis.set_minor_formatter(LogFormatterSciNotation(minor_thresholds=(2, 0.5)))
    for ax in axes[1][len(datasets) :]:
        ax.set_visible(False)
    axes[1][0].legend(title="each at its best τ and α", fontsize=8)
    return fig


def run(
    quick: bool, out: Path, seed: int, scale: str = "small", progress: bool = True
) -> list[Path]:
    """Run everything, print the tables and return the files written into ``out``."""
    full = scale == "full" and not quick
    names = ["shuffled"] if quick else list(CASES)
    local = (4,) if quick else LOCAL
    grid = GRID[8::2] if quick else GRID
    datasets = {
        name: histories(
            CASES[name],
            local,
            grid,
            calls=CASES[name].calls // (2 if quick else 1),
            seeds=1 if quick else 10 if full else 3,
            seed=seed,
            progress=progress,
        )
        for name in names
    }
    pace = seconds_a_gradient(local, DELAYS)
    tables = {
        "seconds": (
            "simulated time to the target, in gradients, and the best tau",
            time_table(datasets, pace),
        ),
        "gradients": ("what every method takes to the target", gradient_table(datasets)),
        "claims": (
            "what the paper claims and what was measured",
            claims_table(datasets, pace),
        ),
    }
    return results.write(
        "oldsgd",
        out,
        command=f"python -m experiments oldsgd --seed {seed} --scale {scale}"
        + (" --quick" if quick else ""),
        tables=tables,
        datasets={name.replace(", ", "_"): dataset for name, dataset in datasets.items()},
        figures={"oldsgd": figure(datasets, pace)},
    )
