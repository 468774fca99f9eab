"""CEDAS: the rate of centralized SGD with compressed messages (arXiv 2301.05872).

Sixteen agents on a ring, logistic regression of the digits 3 against 8, sorted by label, so that
nearly all agents see one digit only. First with one sample an agent and step, and the stepsize
ηₖ = θ / (μ (k + 200)): what error do steps, and bits, buy, each method at its own best θ; after how
many steps is a method as good as centralized SGD on the same samples (its transient time), and how
does that grow with the compressor's error? Then with full gradients and a constant stepsize: which
methods are exact although they send 2 bits a coordinate, and which stop at a plateau? Everything in
float64.

The error is (1/n) Σᵢ |xᵢ − x*|². The transient time is the first record after which the error, a
mean over seeds, stays below `CLOSE` times centralized SGD's; the paper bounds its order. γ and α of
all compressed methods are the library's defaults, which follow from the compressor's error e on
Gaussian vectors. The paper's own, its problems and sizes are not known to us; ``scale="full"`` goes
on for longer, until the transients of all compressors are over.

Read with care: transients follow e, not the worst case ω, by which a dither of one level would be
rougher than a quarter of the coordinates. That they grow as 1 / γ, and γ falls as C⁻³, is in the
default of γ, which was made for stability. They are compared at θ = 2, as at θ = 1 all errors are
the start's for so long that they hide the network's. LEAD, for which the paper has no such bound,
is not behind CEDAS here. CHOCO-SGD is held up by DSGD's bias on data sorted by label, which
compression makes larger; a tuned γ would make it smaller, but not remove it.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import xarray as xr
from tqdm import tqdm

import jaxdopt as jd
from experiments import results
from experiments.tables import number
from jaxdopt import compressors
from jaxdopt.algorithms.compressed import messages

AGENTS = 16
DIGITS = (3, 8)
PIXELS = 64
L2 = 0.1  # μ, too
OFFSET = 200.0  # K of the stepsize θ / (μ (k + K))
THETAS = (0.5, 1.0, 2.0)
COMMON = 2.0  # the θ at which transients are compared: ηₖ = 20 / (k + 200)
CLOSE = 1.5  # an error below this many times centralized SGD's counts as close to it
TARGET = 1e-3  # the error up to which bits are counted
EXACT = 1e-20  # the error that exact methods reach with full gradients
FLOOR = 1e-24  # errors below it are drawn at it
ERROR = "error  $\\frac{1}{n}\\sum_i |x_i - x^\\star|^2$"
SGD = "SGD"
UNCOMPRESSED = {SGD: jd.SGD(0.1), "DSGD": jd.DSGD(0.1), "EDAS": jd.ExactDiffusion(0.1)}
"""SGD is centralized; EDAS is exact diffusion with a stepsize that changes."""
TWO_BITS = compressors.Dither(bits=2)
UNBIASED = {
    "dither, 2 bits": TWO_BITS,
    "random 1/2": compressors.RandomK(PIXELS // 2),
    "dither, 1 level": compressors.Dither(levels=1),
    "random 1/4": compressors.RandomK(PIXELS // 4),
}
"""For CEDAS, by increasing error."""
CONTRACTIVE = {"dither, 2 bits": TWO_BITS, "top 1/4": compressors.TopK(PIXELS // 4)}
"""For CHOCO-SGD, which takes biased compressors; their error has to be below 1."""
QUICK = (
    SGD,
    "EDAS",
    "CEDAS, dither, 2 bits",
    "CEDAS, dither, 1 level",
    "CHOCO-SGD, dither, 2 bits",
)
EXACT_METHODS = {
    "GT": jd.GradientTracking(0.1),
    "EDAS": jd.ExactDiffusion(0.1),
    "LEAD": jd.LEAD(0.1, TWO_BITS),
    "CEDAS": jd.CEDAS(0.1, TWO_BITS),
    "BEER": jd.BEER(0.1, compressors.Contractive(TWO_BITS)),
    "C-GT": jd.CGT(0.1, TWO_BITS),
}
INEXACT_METHODS = {
    "CHOCO-SGD": jd.CHOCOSGD(0.1, TWO_BITS),
    "DeepSqueeze": jd.DeepSqueeze(0.1, TWO_BITS),
}


def problem() -> Any:
    """Return the regression with full gradients; agents hold 22 or 23 images, of one digit."""
    data = jd.data.digits().only(*DIGITS)
    return jd.problems.logistic_regression(
        data.features, data.labels == DIGITS[1], agents=AGENTS, l2=L2, partition="by_label"
    )


def network() -> Any:
    """Return the ring with Metropolis weights, 1/3 each."""
    return jd.networks.metropolis(jd.graphs.ring(AGENTS))


def error(state: Any, problem: Any) -> jax.Array:
    """(1/n) Σᵢ |xᵢ − x*|²: the agents' own errors, not their mean's."""
    return jnp.mean(jnp.sum((state.x - problem.solution) ** 2, axis=1))


def methods(quick: bool = False) -> dict[str, Any]:
    """Return the methods with samples, named "method, compressor"."""
    made = {f"CEDAS, {name}": jd.CEDAS(0.1, kind) for name, kind in UNBIASED.items()}
    made |= {
        f"LEAD, {name}": jd.LEAD(0.1, UNBIASED[name]) for name in ("dither, 2 bits", "random 1/4")
    }
    made |= {f"CHOCO-SGD, {name}": jd.CHOCOSGD(0.1, kind) for name, kind in CONTRACTIVE.items()}
    return {name: m for name, m in (UNCOMPRESSED | made).items() if name in QUICK or not quick}


def stochastic(
    members: Mapping[str, Any],
    *,
    steps: int,
    every: int = 50,
    seeds: int = 8,
    thetas: tuple[float, ...] = THETAS,
    seed: int = 0,
    progress: bool = True,
) -> xr.Dataset:
    """Return the histories with one sample an agent and step: algorithm, theta, seed, step.

    The stepsize is θ / (μ (k + `OFFSET`)); a seed is the same samples for every method.
    """
    world = jd.problems.Minibatch(problem(), 1)
    which = list(range(seed, seed + seeds))
    keys = jax.vmap(jax.random.key)(jnp.asarray(which))
    parts = []
    for method in tqdm(members.values(), unit="method", desc="samples", disable=not progress):

        def scheduled(theta: Any, method: Any = method) -> Any:
            stepsize = jd.schedules.InverseTime(theta / L2, OFFSET)
            return type(method)(**{**vars(method), "stepsize": stepsize})

        result = jd.sweep(jd.run, over=("algorithm", "key"))(
            jax.vmap(scheduled)(jnp.asarray(thetas)),
            world,
            network(),
            world.start(),
            keys,
            steps=steps,
            every=every,
            metrics={"error": error},
        )
        part = jd.label(jd.replace(result, state=None), theta=thetas, seed=which)
        parts.append(part[["error", "bits", "diverged"]])
    names: Any = xr.DataArray(list(members), dims="algorithm", name="algorithm")
    return xr.concat(parts, names)


def deterministic(
    members: Mapping[str, Any],
    *,
    steps: int,
    every: int = 25,
    stepsizes: int = 13,
    seed: int = 0,
    progress: bool = True,
) -> xr.Dataset:
    """Return the histories with full gradients: algorithm, (constant) stepsize, step."""
    dataset = jd.compare(
        members,
        problem(),
        network(),
        over={"stepsize": np.logspace(-3, 0, stepsizes)},
        seeds=[seed],
        steps=steps,
        every=every,
        metrics={"error": error},
        progress=progress,
    )
    return dataset[["error", "bits", "diverged"]].isel(network=0, seed=0, drop=True)


def parameters(method: Any) -> tuple[float, float]:
    """Return the γ and α that a compressed method takes by default; NaN where it has none."""
    x = jnp.zeros((AGENTS, PIXELS))
    if not hasattr(method, "compressor"):
        return math.nan, math.nan
    if isinstance(method, jd.CEDAS | jd.LEAD):
        return messages.consensus(method, x), messages.memory(method, x)
    return messages.feedback(method, x), math.nan


def message_bits(method: Any) -> tuple[int, int]:
    """Return the bits of a message, as the histories count them and as a plain code needs them.

    They differ for the dither called b-bit, which has 2^b + 1 symbols.
    """
    if not hasattr(method, "compressor"):
        return compressors.FLOAT * PIXELS, compressors.FLOAT * PIXELS
    compressor = getattr(method.compressor, "unbiased", method.compressor)
    nominal = compressor.bits(PIXELS)
    if isinstance(compressor, compressors.Dither):
        return nominal, compressor.exact_bits(PIXELS)
    return nominal, nominal


def ratios(dataset: xr.Dataset) -> xr.DataArray:
    """Return the errors over centralized SGD's, means over seeds of both."""
    mean = dataset.error.mean("seed")
    return mean / mean.sel(algorithm=SGD)


def transients(ratio: xr.DataArray) -> xr.DataArray:
    """Return the first recorded step after which ratios stay below `CLOSE`; NaN if none is."""
    backwards = (ratio < CLOSE).isel(step=slice(None, None, -1))
    stays = backwards.cumprod("step").isel(step=slice(None, None, -1)).astype(bool)
    return ratio.step.isel(step=stays.argmax("step")).where(stays.any("step")).drop_vars("step")


def rate(dataset: xr.Dataset, name: str) -> float:
    """Return the slope of log error over log (k + K), for the last three quarters of the steps."""
    mean = dataset.error.sel(algorithm=name, theta=COMMON).mean("seed")
    late = mean.isel(step=slice(mean.sizes["step"] // 4, None))
    return float(np.polyfit(np.log(late.step + OFFSET), np.log(late), 1)[0])


def methods_table(dataset: xr.Dataset, members: Mapping[str, Any]) -> pd.DataFrame:
    """Return what each method reached at its own best θ, and what it sent."""
    best = jd.best(dataset, "error")
    mean, ratio = best.mean("seed"), ratios(best)
    steps, bits = (jd.reach(mean, "error", TARGET, x=x) for x in ("step", "bits"))
    rows = []
    for name, method in members.items():
        nominal, exact = message_bits(method)
        at = {"algorithm": name}
        rows.append(
            (
                name,
                number(float(best.theta.sel(at)), "g"),
                number(float(mean.error.isel(step=-1).sel(at))),
                number(float(ratio.isel(step=-1).sel(at)), ".2f"),
                f"{nominal}",
                f"{exact}",
                number(float(steps.sel(at)), ".0f"),
                number(float(bits.sel(at)) / 1e3, ".0f"),
                number(float(bits.sel(at)) * exact / nominal / 1e3, ".0f"),
            )
        )
    header = ("method", "best theta", "final error", "over SGD's", "bits a message", "exact bits")
    units = (f"steps to {TARGET:g}", f"kbit to {TARGET:g}", "exact kbit")
    return pd.DataFrame(rows, columns=(*header, *units))


def transients_table(dataset: xr.Dataset, members: Mapping[str, Any]) -> pd.DataFrame:
    """Return transient times at the common stepsize and at each method's own best θ."""
    common, own = ratios(dataset.sel(theta=COMMON)), ratios(jd.best(dataset, "error"))
    rows = []
    for name, method in members.items():
        compressor = getattr(method, "compressor", compressors.Identity())
        omega = compressor.omega(PIXELS) if hasattr(compressor, "omega") else math.nan
        gamma, alpha = parameters(method)
        times = [transients(ratio.sel(algorithm=name)) for ratio in (common, own)]
        rows.append(
            (
                name,
                number(omega, ".2f"),
                number(compressor.error(PIXELS), ".2f"),
                number(gamma, ".3f"),
                number(alpha, ".2f"),
                *(number(float(time), ".0f").replace("-", "not reached") for time in times),
                number(float(common.sel(algorithm=name).isel(step=-1)), ".2f"),
            )
        )
    header = ("method", "omega", "e", "gamma", "alpha", f"steps at theta = {COMMON:g}")
    return pd.DataFrame(
        rows, columns=(*header, "at its best theta", f"last ratio, theta = {COMMON:g}")
    )


def exactness_table(dataset: xr.Dataset, members: Mapping[str, Any]) -> pd.DataFrame:
    """Return what each method reaches with full gradients at its best constant stepsize."""
    best = jd.best(dataset, "error")
    bits = jd.reach(best, "error", EXACT, x="bits")
    rows = []
    for name, method in members.items():
        at = {"algorithm": name}
        nominal, exact = message_bits(method)
        sent = float(bits.sel(at)) / 1e3
        rows.append(
            (
                name,
                number(float(best.stepsize.sel(at)), ".2g"),
                number(float(best.error.min("step").sel(at))),
                number(float(jd.reach(best, "error", EXACT).sel(at)), ".0f"),
                number(sent, ".0f"),
                number(sent * exact / nominal, ".0f"),
            )
        )
    header = ("method", "best stepsize", "lowest error", f"steps to {EXACT:g}")
    return pd.DataFrame(rows, columns=(*header, f"kbit to {EXACT:g}", "exact kbit"))


def claims_table(samples: xr.Dataset, full: xr.Dataset, members: Mapping[str, Any]) -> pd.DataFrame:
    """Return what the papers claim beside what came out here."""
    common = ratios(samples.sel(theta=COMMON))
    names = [name for name in members if name.startswith("CEDAS")]
    plain = names[0]
    ratio = {name: common.sel(algorithm=name) for name in members}
    time = {name: float(transients(ratio[name])) for name in members}
    last = int(samples.step[-1])
    early = samples.step.values[len(samples.step) // 8]

    def steps(name: str) -> str:
        return f"{time[name]:.0f}" if time[name] == time[name] else f"> {last}"

    def met(condition: bool) -> str:
        return "yes" if condition else "no"

    def short(name: str) -> str:
        return name.partition(", ")[2]

    reached = [name for name in names if time[name] > 0]
    spread = [time[name] * parameters(members[name])[0] for name in reached]
    order = [time[name] if time[name] == time[name] else math.inf for name in names]
    rival = next(name for name in members if name.startswith("CHOCO"))
    slopes = {name: rate(samples, name) for name in (SGD, plain)}
    mean = jd.best(samples, "error").mean("seed")
    bits = {name: jd.reach(mean, "error", TARGET, x="bits").sel(algorithm=name) for name in members}
    savings = float(bits["EDAS"] / bits[plain])
    lowest = jd.best(full, "error").error.min("step").to_series()
    exact = {name: lowest[name] for name in EXACT_METHODS if name in lowest}
    inexact = {name: lowest[name] for name in INEXACT_METHODS if name in lowest}

    def values(of: Mapping[str, float]) -> str:
        return ", ".join(f"{name} {value:.0e}" for name, value in of.items())

    falls = [f"{float(ratio[n].sel(step=early)):.2f} -> {float(ratio[n][-1]):.2f}" for n in names]
    close = [float(ratio[name][-1]) < CLOSE for name in names]
    rows = [
        (
            "CEDAS has the rate of centralized SGD: error / SGD's -> 1, for every compressor",
            "2301.05872, abstract",
            f"ratio from step {early} to {last}: "
            + "; ".join(f"{short(n)} {fall}" for n, fall in zip(names, falls, strict=True)),
            f"{sum(close)} of {len(close)} below {CLOSE:g}",
        ),
        (
            "the rate is 1 / k, and steeper while a transient lasts",
            "2301.05872, abstract",
            f"slope of log error over log (k + {OFFSET:g}): "
            + ", ".join(f"{name} {slope:.2f}" for name, slope in slopes.items()),
            met(all(slope < -0.7 for slope in slopes.values())),
        ),
        (
            "transients are longer for larger errors of compression",
            "2301.05872, abstract: O(n C^3 / gap^2)",
            "; ".join(f"{short(name)} {steps(name)}" for name in names),
            met(order == sorted(order)),
        ),
        (
            "they grow as C^3, here as 1 / gamma = (1 + e)^3",
            "2301.05872, abstract: O(n C^3 / gap^2)",
            "gamma times steps: "
            + "; ".join(f"{short(n)} {s:.0f}" for n, s in zip(reached, spread, strict=True)),
            met(max(spread) < 2 * min(spread)) if len(spread) > 1 else "-",
        ),
        (
            "exact diffusion without compression has a shorter one",
            "2105.04851, abstract: O(n / gap)",
            f"EDAS {steps('EDAS')}, {plain} {steps(plain)}",
            met(not time["EDAS"] > time[plain]),
        ),
        (
            "CEDAS has the shortest one of compressed methods: before CHOCO-SGD",
            "2301.05872, abstract, for C < O(1 / gap^2)",
            f"{plain} {steps(plain)}, {rival} {steps(rival)}",
            met(not time[plain] >= time[rival]),
        ),
        (
            f"CEDAS sends fewer bits than exact diffusion to an error of {TARGET:g}",
            "2301.05872, abstract",
            f"{savings:.1f} times fewer, of nominal 2 bits",
            met(savings > 1),
        ),
        (
            f"with full gradients these are exact: errors below {EXACT:g}",
            "2301.05872, 2007.00232, 2201.13320, 2103.13748",
            values(exact),
            met(max(exact.values()) < EXACT),
        ),
        (
            "and these stop at a plateau",
            "1902.00340, 1907.07346",
            values(inexact),
            met(min(inexact.values()) > 1e-6),
        ),
    ]
    lead = f"LEAD, {short(plain)}"
    if lead in members:
        draw = abs(time[plain] / time[lead] - 1) < 0.1
        rows.append(
            (
                "and before LEAD",
                "2301.05872, abstract, for C < O(1 / gap^2)",
                f"{plain} {steps(plain)}, {lead} {steps(lead)}",
                "a draw" if draw else met(not time[plain] >= time[lead]),
            )
        )
    return pd.DataFrame(rows, columns=("claim", "source", "measured", "met"))


def main_figure(samples: xr.Dataset, full: xr.Dataset) -> Any:
    """Return errors over steps and bits, ratios to centralized SGD's, and exact methods."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(2, 2, figsize=(12, 8.4), layout="constrained")
    names = [n for n in samples.algorithm.values if ", " not in n or n.endswith("2 bits")]
    best = jd.best(samples, "error").sel(algorithm=names).isel(step=slice(1, None))
    for ax, x in zip(axes[0], ("step", "bits"), strict=True):
        jd.plot.curves(best, y="error", x=x, ax=ax, logx=True)
        ax.set(ylabel=ERROR)
    axes[0, 0].set_title("one sample a step, each method at its own best stepsize")
    axes[0, 1].set_title("the same over bits (nominal)")
    axes[0, 1].get_legend().remove()
    ratios_panel(samples, axes[1, 0])
    exactness_panel(full, axes[1, 1])
    for ax in axes.flat:
        ax.grid(alpha=0.25)
    return fig


def ratios_panel(samples: xr.Dataset, ax: Any) -> None:
    """Draw the errors over centralized SGD's, at one stepsize for all."""
    ratio = ratios(samples.sel(theta=COMMON)).isel(step=slice(1, None))
    shown = [n for n in ratio.algorithm.values if n not in (SGD, "DSGD", "CHOCO-SGD, top 1/4")]
    chosen = ratio.sel(algorithm=shown).to_dataset(name="ratio")
    for i, name in enumerate(shown):
        color = list(UNBIASED).index(name.partition(", ")[2]) if ", " in name else len(UNBIASED)
        ax.plot(
            chosen.step,
            chosen.ratio.sel(algorithm=name),
            color=jd.plot.PALETTE[color],
            linestyle={"LEAD": "--", "CHOCO-SGD": ":"}.get(name.partition(", ")[0], "-"),
            marker="os^DvPX"[i % 7],
            markevery=0.15,
            markersize=5,
            label=name,
        )
    ax.axhline(CLOSE, color="0.6", linewidth=1, label=f"close: {CLOSE:g}")
    ax.set(xscale="log", yscale="log", xlabel="steps", ylabel="error / centralized SGD's error")
    ax.set_ylim(top=10 ** (len(shown) / 4) * float(chosen.ratio.max()))  # room for the legend
    ax.set_title(f"$\\eta_k$ = {COMMON / L2:g} / (k + {OFFSET:g}) for all methods")
    ax.legend(fontsize=8, ncols=2, loc="upper left")


def exactness_panel(full: xr.Dataset, ax: Any) -> None:
    """Draw the errors with full gradients over bits, each method at its own best stepsize."""
    best = jd.best(full, "error").isel(step=slice(1, None))
    colors = (*jd.plot.PALETTE, "0.5")
    for i, name in enumerate(best.algorithm.values):
        here = best.sel(algorithm=name)
        ax.plot(
            here.bits,
            here.error.clip(min=FLOOR),
            color=colors[i],
            linestyle="--" if name in ("GT", "EDAS") else "-",
            marker="os^DvPX*"[i],
            markevery=0.12,
            markersize=5,
            label=f"{name}, 32 bits" if name in ("GT", "EDAS") else name,
        )
    ax.set(xscale="log", yscale="log", xlabel=jd.plot.NAMES["bits"], ylabel=ERROR)
    ax.set_title("full gradients, constant stepsize, 2-bit dither")
    ax.legend(fontsize=8, loc="lower left")


def run(
    quick: bool,
    out: Path,
    seed: int,
    scale: Literal["small", "full"] = "small",
    progress: bool = True,
) -> list[Path]:
    """Run both parts, print the tables and return the files written into ``out``."""
    members = methods(quick)
    steps, every = {"small": (16_000, 50), "full": (400_000, 500)}[scale]
    seeds = 8
    exact, inexact = EXACT_METHODS, INEXACT_METHODS
    thetas, full_steps, stepsizes = THETAS, 8000, 13
    if quick:
        steps, seeds, thetas, full_steps, stepsizes = 2500, 4, (COMMON,), 1600, 7
        exact = {"CEDAS": EXACT_METHODS["CEDAS"]}
        inexact = {"CHOCO-SGD": INEXACT_METHODS["CHOCO-SGD"]}
    samples = stochastic(
        members,
        steps=steps,
        every=every,
        seeds=seeds,
        thetas=thetas,
        seed=seed,
        progress=progress,
    )
    full = deterministic(
        exact | inexact, steps=full_steps, stepsizes=stepsizes, seed=seed, progress=progress
    )
    noisy = f"one sample a step, {steps} steps, mean over {seeds} seeds"
    tables = {
        "methods": (f"each method at its own best theta: {noisy}", methods_table(samples, members)),
        "transients": (
            f"steps until the error stays below {CLOSE:g} times centralized SGD's: {noisy}",
            transients_table(samples, members),
        ),
        "exactness": (
            f"full gradients, best of {stepsizes} constant stepsizes, {full_steps} steps",
            exactness_table(full, exact | inexact),
        ),
        "claims": ("claims and measurements", claims_table(samples, full, members)),
    }
    flags = "".join([" --quick" * quick, f" --scale {scale}" * (scale != "small")])
    return results.write(
        "cedas",
        out,
        command=f"python -m experiments cedas{flags} --seed {seed}",
        tables=tables,
        datasets={"samples": samples, "full_gradients": full},
        figures={"main": main_figure(samples, full), "messages": messages_figure(seed)},
    )


def messages_figure(seed: int = 0) -> Any:
    """Return a picture of one vector, and of what arrives of it after each kind of compression."""
    import matplotlib.pyplot as plt

    d = 24
    x = jax.random.normal(jax.random.key(seed), (1, d))
    shown = {
        "the vector": compressors.Identity(),
        "dither, 2 bits": TWO_BITS,
        "dither, 1 level": compressors.Dither(levels=1),
        "random 1/4": compressors.RandomK(d // 4),
        "top 1/4": compressors.TopK(d // 4),
        "scaled sign": compressors.ScaledSign(),
    }
    fig, axes = plt.subplots(2, 3, figsize=(12, 5), sharex=True, sharey=True, layout="constrained")
    all_at_once = jax.jit(lambda key: [compressor(key, x)[0] for compressor in shown.values()])
    messages = map(np.asarray, all_at_once(jax.random.key(seed + 1)))
    for ax, (name, compressor), arrived in zip(axes.flat, shown.items(), messages, strict=True):
        ax.bar(range(d), x[0], color="0.8", width=0.9)
        ax.plot(arrived, "o", color=jd.plot.PALETTE[0], markersize=4)
        ax.vlines(range(d), 0, arrived, color=jd.plot.PALETTE[0], linewidth=1)
        off = float(jnp.sum((arrived - x[0]) ** 2) / jnp.sum(x**2))
        ax.set_title(f"{name}: {compressor.bits(d)} bits, error {off:.2f}", fontsize=10)
        ax.axhline(0, color="0.3", linewidth=0.6)
        ax.label_outer()
    for ax in axes[1]:
        ax.set_xlabel("coordinate")
    for ax in axes[:, 0]:
        ax.set_ylabel("value")
    return fig
