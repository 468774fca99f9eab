"""CPP and B-CPP: Push-Pull with compressed messages on digraphs (arXiv 2106.07243).

Random unbalanced digraphs; two problems on real data: logistic regression on breast_cancer, sorted
by label over ten agents, and ridge regression on diabetes, sorted by its target over eight.
Questions: whether CPP converges linearly and in as many iterations as uncompressed Push-Pull, at
one small λ for all and each at its own best λ of one grid; how many bits that saves; whether B-CPP,
where one agent at a time broadcasts, saves more; and what happens without references (α = 0).
Everything in float64; errors are (1/n) Σᵢ |xᵢ − x*|², an iteration of B-CPP is n of its ticks, γ
and α are the library's defaults, and numbers are counted with 32 bits.

CPP's listing is reconstructed: its two forms, "atc" (Push-Pull) and "cta" (AB), are both run. That
of B-CPP is too, with less confidence: who takes a new gradient when, and whether an agent steps
along its tracker before or after it has sent a part of it away, may be otherwise in the paper. Here
it is after, so that a λ counts for less than in CPP: only their own best λ compare the two fairly
(`StepFirst` is the other order). Two further runs ask what costs CPP iterations at 2 bits where it
takes more than Push-Pull: the noise, or the default γ, which is below 1 to be safe.
That B-CPP saves bits over CPP is to be doubted here: the table of claims says where it did. The
paper's own experiments are not known to us.
"""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import xarray as xr

import jaxdopt as jd
from experiments import apd, results
from experiments.tables import number
from jaxdopt import compressors
from jaxdopt.algorithms.compressed import messages

L2 = 0.1
TARGET = 1e-8  # of the agents' mean squared error
COMMON = 0.5  # λ L at which all methods are also compared: small enough for all to be alike
GRID = tuple(COMMON * 2.0 ** (j / 2) for j in range(11))  # λ L
DECADES = (1e-4, 1e-8, 1e-12)
"""Errors relative to the start, the slowest mode alone left: `pace` compares their two spans."""
EVEN = 1.5  # pace up to which convergence counts as linear; 1/k² would have a pace of 100
SHOWN = {
    "Push-Pull": ("32 bits",),
    "CPP": ("32 bits", "4 bits", "2 bits", "random-k", "2 bits, no references"),
    "CPP cta": ("2 bits",),
    "B-CPP": ("2 bits", "random-k"),
}
"""What the figure shows of each family."""
PROBLEMS = {"logistic": "logistic regression, breast_cancer", "ridge": "ridge regression, diabetes"}
RANDOM = {"logistic": 10, "ridge": 5}  # k of random-k: a third, or half, of the coordinates
TRIAL = {"32 bits": (1015, 650.0), "4 bits": (1016, 146.0), "2 bits": (1014, 105.0)}
"""Iterations and kbit a link to 1e-8 of an earlier NumPy loop of ours: least squares, n = 8,
d = 10, λ = 0.02 / L; only the ratios carry over."""
PAPER = "arXiv 2106.07243"
COLORS = {"32 bits": 6, "4 bits": 4, "2 bits": 0, "random-k": 1, "2 bits, no references": 3}
FAMILIES = {"Push-Pull": ":", "CPP": "-", "CPP cta": "--", "B-CPP": "-."}


@jd.pytree
class StepFirst(jd.BCPP):
    """B-CPP whose agents step along their trackers before they send a part of them away."""

    def step(self, state: Any, problem: Any, network: Any, key: jax.Array) -> Any:
        """Take one step."""
        after = super().step(state, problem, network, key)
        g = jd.agents.select(state.changed, problem.grad(state.x, key), state.g)
        me = (jnp.arange(len(g)) == self.broadcaster(key, len(g)))[:, None].astype(g.dtype)
        sent = state.y + g - state.g - after.y
        return jd.replace(after, x=after.x - self.stepsize * me * sent)


@functools.cache
def problem(name: str) -> Any:
    """Return one of the two problems, their data sorted over the agents."""
    if name == "logistic":
        features, labels = jd.data.breast_cancer()
        return jd.problems.logistic_regression(
            features, labels, agents=10, l2=L2, partition="by_label"
        )
    features, labels = jd.data.diabetes()
    features = features / features.std(axis=0)
    parts = np.array_split(np.argsort(labels, kind="stable"), 8)
    return jd.problems.least_squares(features, labels, agents=8, l2=L2, partition=parts)


def quantizers(name: str) -> dict[str, Any]:
    """Return the compressors for a problem."""
    return {
        "32 bits": compressors.Identity(),
        "4 bits": compressors.Dither(bits=4),
        "2 bits": compressors.Dither(bits=2),
        "random-k": compressors.RandomK(RANDOM[name]),
    }


def methods(name: str, quick: bool = False) -> dict[str, Any]:
    """Return the methods by family and compressor, "CPP, 2 bits"; Push-Pull comes first."""
    made: dict[str, Any] = {"Push-Pull, 32 bits": jd.PushPull(0.1)}
    for title, compressor in quantizers(name).items():
        if quick and title != "2 bits":
            continue
        method = jd.CPP(0.1, compressor)
        alpha = messages.memory(method, problem(name).start())
        made[f"CPP, {title}"] = jd.replace(method, alpha=alpha)  # one program with α = 0
        made[f"CPP cta, {title}"] = jd.replace(method, form="cta")
        made[f"B-CPP, {title}"] = jd.BCPP(0.1, compressor)
        if title == "2 bits":
            made["CPP, 2 bits, no references"] = jd.replace(method, alpha=0.0)
    if not quick:  # what holds up CPP with 2 bits, its noise or its γ? and B-CPP, its order?
        two, whole = compressors.Dither(bits=2), compressors.Identity()
        gamma, alpha = parameters(made["CPP, 2 bits"], problem(name))
        made["CPP with the gamma of 2 bits, 32 bits"] = jd.CPP(
            0.1, whole, consensus_stepsize=gamma, alpha=alpha
        )
        made["CPP with gamma 1, 2 bits"] = jd.CPP(0.1, two, consensus_stepsize=1.0, alpha=alpha)
        made["B-CPP step first, 2 bits"] = StepFirst(0.1, two)
    return made


def histories(
    name: str,
    network: Any,
    grid: tuple[float, ...],
    *,
    iterations: int,
    seeds: int,
    seed: int = 0,
    quick: bool = False,
    progress: bool = True,
) -> xr.Dataset:
    """Return errors, rounds and bits of all methods over λ L, seeds and iterations."""
    world = problem(name)
    n, smoothness = world.n, float(world.smoothness)
    parts: list[Any] = []
    chosen = methods(name, quick)
    for ticks in (1, n):  # of one iteration
        members = {
            title: (method, world, network)
            for title, method in chosen.items()
            if isinstance(method, jd.BCPP) == (ticks == n)
        }
        dataset = results.compare(
            members,
            progress=progress,
            over={"stepsize": jnp.asarray(grid) / smoothness},
            seeds=range(seed, seed + seeds),
            steps=ticks * iterations,
            every=ticks * 5,
        )
        parts.append(dataset.assign_coords(step=dataset.step // ticks))
    dataset: Any = xr.concat(parts, "algorithm").sel(algorithm=list(chosen))
    error = dataset.distance_squared + dataset.consensus_error
    dataset = dataset[["gap", "rounds", "bits", "traffic", "diverged"]].assign(error=error)
    return dataset.rename(stepsize="scaled").assign_coords(scaled=list(grid))


def reached(dataset: xr.Dataset, x: str = "step") -> xr.DataArray:
    """Return the ``x`` at which every λ and seed comes to `TARGET`, NaN unless it stays there."""
    stays = dataset.error.isel(step=-1, drop=True) <= TARGET
    return jd.reach(dataset, "error", TARGET, x=x).where(stays)


def own_best(dataset: xr.Dataset) -> xr.Dataset:
    """Return the dataset at every method's own λ: the first to `TARGET`, in the mean over seeds.

    Methods that do not reach it are shown where their last error is smallest.
    """
    rank = reached(dataset).mean("seed", skipna=False)
    last = (
        dataset.error.isel(step=-1, drop=True).where(~dataset.diverged).mean("seed", skipna=False)
    )
    late = 1e9 * (1 + last / (1 + last))  # later than all that reach it
    chosen = rank.fillna(late).fillna(np.inf).argmin("scaled")
    return dataset.isel(scaled=chosen)


def pace(error: xr.DataArray) -> tuple[float, float]:
    """Return the iterations of the last span of `DECADES` over the first, and the factor of both.

    1 is linear convergence, more slows down. The factor is that by which the median over seeds
    falls in an iteration.
    """
    values = (error / error.isel(step=0)).median("seed")
    there = [values <= level for level in DECADES]
    if not all(bool(t.any()) for t in there):
        return np.nan, np.nan
    first, middle, last = (int(values.step[int(t.argmax("step"))]) for t in there)
    return (last - middle) / (middle - first), (DECADES[2] / DECADES[0]) ** (1 / (last - first))


def message_bits(method: Any, d: int) -> int:
    """Return the bits of one message."""
    compressor = getattr(method, "compressor", compressors.Identity())
    return compressor.bits(d)


def parameters(method: Any, world: Any) -> tuple[float, float]:
    """Return γ and α as the method uses them; NaN if it has none."""
    if isinstance(method, jd.PushPull):
        return np.nan, np.nan
    x = world.start()
    gamma = float(messages.tracking(method, x))
    if isinstance(method, jd.BCPP) and method.consensus_stepsize is None:
        gamma = min(gamma, 0.5)
    return gamma, float(messages.memory(method, x))


def summary(name: str, dataset: xr.Dataset) -> pd.DataFrame:
    """Return iterations and bits to `TARGET` of every method at the common and at its own λ."""
    world, made = problem(name), dict(methods(name))
    best = own_best(dataset)
    rows = []
    for title in map(str, dataset.algorithm.values):
        here, at = best.sel(algorithm=title), dataset.sel(algorithm=title, scaled=COMMON)
        counts = {
            (i, x): float(reached(part, x).mean("seed", skipna=False))
            for i, part in enumerate((at, here))
            for x in ("step", "bits", "traffic")
        }
        even, rate = pace(here.error)
        gamma, alpha = parameters(made[title], world)
        rows.append(
            (
                title,
                str(message_bits(made[title], world.d)),
                number(gamma, ".2f"),
                number(alpha, ".2f"),
                number(counts[0, "step"], ".0f"),
                number(counts[0, "bits"] / 1e3, ".1f"),
                number(float(here.scaled), ".3g"),
                number(counts[1, "step"], ".0f"),
                number(counts[1, "bits"] / 1e3, ".1f"),
                number(counts[1, "traffic"] / 1e6, ".2f"),
                number(rate, ".4f"),
                number(even, ".2f"),
                number(float(here.error.isel(step=-1).mean("seed")), ".0e"),
            )
        )
    common = (f"iterations, lambda L = {COMMON:g}", "kbit a link")
    best_header = ("best lambda L", "iterations", "kbit a link", "Mbit in all", "factor", "pace")
    header = ("method", "bits a message", "gamma", "alpha", *common, *best_header, "last error")
    return pd.DataFrame(rows, columns=header)


def trial_table(datasets: Mapping[str, xr.Dataset]) -> pd.DataFrame:
    """Return iterations and kbit of CPP over those without compression, beside `TRIAL`'s."""
    rows = []
    for title, (steps, kbit) in TRIAL.items():
        cells = [f"{steps}", f"{kbit:g}", f"{kbit / TRIAL['32 bits'][1]:.3f}"]
        for dataset in datasets.values():
            at = dataset.sel(scaled=COMMON)
            if f"CPP, {title}" not in dataset.algorithm:
                cells += ["-", "-", "-"]
                continue
            here, whole = at.sel(algorithm=f"CPP, {title}"), at.sel(algorithm="Push-Pull, 32 bits")
            bits, base = (float(reached(part, "bits").mean()) for part in (here, whole))
            cells += [
                number(float(reached(here).mean()), ".0f"),
                number(bits / 1e3, ".0f"),
                number(bits / base, ".3f"),
            ]
        rows.append((title, *cells))
    columns = ("iterations", "kbit", "share")
    names = [f"{name}: {column}" for name in ("trial", *datasets) for column in columns]
    return pd.DataFrame(rows, columns=("CPP with", *names))


def claims_table(datasets: Mapping[str, xr.Dataset]) -> pd.DataFrame:
    """Return the paper's claims beside the measurements on every problem."""
    rows = []
    abstract, recalled = f"{PAPER}, abstract", f"{PAPER}, its figures as we recall them"
    whole, four, two, broadcast = (
        "Push-Pull, 32 bits",
        "CPP, 4 bits",
        "CPP, 2 bits",
        "B-CPP, 2 bits",
    )
    weak = "the default gamma, below 1, allows smaller lambda only; see CPP with gamma 1"
    sent = "B-CPP as listed here steps after it has sent: the same lambda counts for less"
    doubt = "B-CPP is reconstructed, its gamma not tuned; doubtful"

    def row(
        claim: str, source: str, claimed: str, measured: str, met: bool, note: str = "-"
    ) -> None:
        rows.append((claim, source, claimed, measured, *(("yes", "-") if met else ("no", note))))

    for name, dataset in datasets.items():
        best, at = own_best(dataset), dataset.sel(scaled=COMMON)
        titles = list(map(str, dataset.algorithm.values))

        def over(part: xr.Dataset, a: str, b: str, x: str) -> float:
            means = (reached(part.sel(algorithm=t), x).mean("seed", skipna=False) for t in (a, b))
            first, second = map(float, means)
            return first / second

        for family in ("CPP", "B-CPP"):
            paces = [
                pace(best.sel(algorithm=title).error)[0]
                for title in titles
                if title.startswith(family) and "no references" not in title
            ]
            row(
                f"{name}: {family} converges linearly, {len(paces)} compressors and forms",
                abstract,
                "pace 1",
                f"{min(paces):.2f} to {max(paces):.2f}",
                max(paces) <= EVEN,
                "slows down",
            )
        for title in (four, two):
            if title not in titles:
                continue
            for part, where, most in ((at, "common", 1.1), (best, "own best", 1.25)):
                ratio = over(part, title, whole, "step")
                row(
                    f"{name}: {title} takes Push-Pull's iterations, {where} lambda",
                    recalled,
                    "ratio 1",
                    f"{ratio:.2f}",
                    ratio <= most,
                    weak,
                )
        for title, why in (
            ("CPP with gamma 1, 2 bits", "so the gamma costs iterations, not the noise: near 1"),
            ("CPP with the gamma of 2 bits, 32 bits", "so it does without noise: as 2 bits"),
        ):
            if title in titles:
                ratio, two_bits = (over(best, t, whole, "step") for t in (title, two))
                near = two_bits if "32" in title else 1.0
                row(
                    f"{name}: {title} over Push-Pull in iterations, own best lambda",
                    why,
                    f"ratio {near:.2f}",
                    f"{ratio:.2f}",
                    abs(ratio / near - 1) <= 0.25,
                    "the gamma is not all",
                )
        for part, where in ((at, "common"), (best, "own best")):
            ratio = over(part, whole, two, "bits")
            row(
                f"{name}: Push-Pull's bits over those of {two}, {where} lambda",
                abstract,
                "above 1",
                f"{ratio:.1f}",
                ratio > 1,
            )
        for part, where, note in ((at, "common", sent), (best, "own best", doubt)):
            ratio = over(part, two, broadcast, "bits")
            row(
                f"{name}: those of {two} over those of {broadcast}, {where} lambda",
                abstract,
                "above 1",
                f"{ratio:.2f}",
                ratio > 1,
                note,
            )
        first = "B-CPP step first, 2 bits"
        if first in titles:
            for part, where in ((at, "common"), (best, "own best")):
                ratio = over(part, two, first, "bits")
                row(
                    f"{name}: those of {two} over those of {first}, {where} lambda",
                    "the other order",
                    "above 1",
                    f"{ratio:.2f}",
                    ratio > 1,
                    "close to 1 means that the order is why it was not" if part is at else doubt,
                )
        ratio = over(at, "CPP cta, 2 bits", two, "step")
        row(
            f"{name}: the forms cta and atc take the same iterations, common lambda",
            "to first order in lambda they are one",
            "ratio 1",
            f"{ratio:.2f}",
            abs(ratio - 1) <= 0.1,
        )
        last = best.error.isel(step=-1).sel(algorithm=f"{two}, no references").mean("seed")
        row(
            f"{name}: without references CPP stalls",
            "why it has references",
            f"above {TARGET:g}",
            f"{float(last):.0e}",
            not float(last) <= TARGET,
        )
    return pd.DataFrame(
        rows, columns=("claim", "source", "claimed", "measured", "met", "if not, why")
    )


def figure(datasets: Mapping[str, xr.Dataset]) -> Any:
    """Return errors over iterations and over bits, and iterations over λ; a row a problem."""
    import matplotlib.pyplot as plt
    from matplotlib.lines import Line2D
    from matplotlib.ticker import NullFormatter

    fig, axes = plt.subplots(
        len(datasets), 3, figsize=(13, 3.9 * len(datasets)), layout="constrained", squeeze=False
    )
    for row, (name, dataset) in zip(axes, datasets.items(), strict=True):
        best = own_best(dataset)
        ends = []
        for title in map(str, dataset.algorithm.values):
            family, compressor = title.split(", ", 1)
            if compressor not in SHOWN.get(family, ()):
                continue
            style: dict[str, Any] = {
                "color": jd.plot.PALETTE[COLORS[compressor]],
                "linestyle": FAMILIES[family],
                "linewidth": 2.5 if family == "Push-Pull" else 1.4,
            }
            here = best.sel(algorithm=title)
            middle = here.error.median("seed").clip(min=1e-13)
            stop = int((middle > 1e-13).sum("step")) + 1
            for ax, x in ((row[0], here.step), (row[1], here.bits.mean("seed") / 1e3)):
                ax.plot(x[:stop], middle[:stop], **style)
            counts = reached(dataset.sel(algorithm=title)).mean("seed", skipna=False)
            ends.append(float(reached(here).max()))
            row[2].plot(counts.scaled, counts, marker="o", markersize=3, **style)
        row[0].set(xlabel="iterations (n ticks of B-CPP)", title=PROBLEMS[name])
        row[0].set_xlim(0, 1.3 * np.nanmax(ends))
        row[1].set(xlabel="kbit sent over a link", xscale="log", title="each at its own best λ")
        row[1].set_xlim(1, None)
        for ax in row[:2]:
            ax.axhline(TARGET, color="0.6", linewidth=1, linestyle=":")
            ax.set(yscale="log", ylim=(1e-13, 10))
            ax.set_ylabel(r"$\frac{1}{n}\sum_i |x_i - x^\star|^2$")
        row[2].set(
            xlabel=r"stepsize  $\lambda L$",
            ylabel=f"iterations to {TARGET:g}",
            xscale="log",
            yscale="log",
            title="up to the largest λ that works",
        )
        ticks = [scaled for scaled in dataset.scaled.values if np.log2(scaled) % 1 < 1e-9]
        row[2].set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        row[2].xaxis.set_minor_formatter(NullFormatter())
    present = {tuple(str(t).split(", ", 1)) for d in datasets.values() for t in d.algorithm.values}
    families = [f for f in FAMILIES if f in {family for family, _ in present}]
    colors = [c for c in COLORS if c in {compressor for _, compressor in present}]
    handles = [
        Line2D([], [], color="0.3", ls=FAMILIES[f], lw=2.5 if "Push" in f else 1.4)
        for f in families
    ]
    handles += [Line2D([], [], color=jd.plot.PALETTE[COLORS[c]], linewidth=3) for c in colors]
    fig.legend(handles, [*families, *colors], loc="outside lower center", ncols=len(handles))
    return fig


def run(
    quick: bool, out: Path, seed: int, scale: str = "small", progress: bool = True
) -> list[Path]:
    """Run everything, print the tables and return the files written into ``out``."""
    full = scale == "full" and not quick
    names = ["ridge"] if quick else list(PROBLEMS)
    grid = GRID[::2][:3] if quick else GRID
    datasets = {}
    for name in names:
        network = next(iter(apd.networks(problem(name).n, 1, seed).values()))
        datasets[name] = histories(
            name,
            network,
            grid,
            iterations=900 if quick else 1500,
            seeds=1 if quick else 10 if full else 3,
            seed=seed,
            quick=quick,
            progress=progress,
        )
    tables = {
        name: (
            f"{PROBLEMS[name]}: iterations and bits to an error of {TARGET:g}",
            summary(name, dataset),
        )
        for name, dataset in datasets.items()
    }
    tables["trial"] = (
        f"iterations and kbit to {TARGET:g} at lambda L = {COMMON:g}, and the share of "
        "Push-Pull's, beside an earlier trial of ours at lambda L = 0.02",
        trial_table(datasets),
    )
    tables["claims"] = ("what the paper claims and what was measured", claims_table(datasets))
    return results.write(
        "cpp",
        out,
        command=f"python -m experiments cpp --seed {seed} --scale {scale}"
        + (" --quick" if quick else ""),
        tables=tables,
        datasets=datasets,
        figures={"cpp": figure(datasets)},
    )
