"""FedSUM and others under arbitrary participation (arXiv 2512.18275).

Twelve clients with different quadratics, five local steps, a constant stepsize, and seven patterns
of participation: full, uniform, unequal probabilities, cyclic, reshuffled cyclic, one rare client,
and Markov chains. Three questions:

* *patterns*: without noise, which methods reach the solution under which pattern, and how far away
  do the others end?
* *delays*: with noise, how does FedSUM's stationary error grow with how long clients stay away? For
  cyclic groups and for uniform subsets of 16 clients. What a client has sent counts in D rounds, D
  the time between two of its rounds, so for small steps the noise should be larger by E D² / E D,
  and that is 1 + 2 τ_mean.
* *speedup*: is its stationary error, times nK, the same for all numbers n of clients and K of local
  steps at the same total step ηK? For three laws of participation.

Everything in float64. All methods have the same total step ηK L = 0.1 of a round; FedSUM-B, which
takes no local steps, has it as its stepsize. Errors are |x − x*|, root mean squares over the last
tenth of the rounds, as FedAvg keeps moving where participation is random. Ages are 0 in a round in
which a client takes part (the paper's convention may be 1: then all are larger by 1), and all
clients count as having taken part in round −1.

FedSUM's listings are derived from what is published about it and not read in the paper, FedSUM-CR's
with the least confidence; the paper's own experiments, with convolutional networks on MNIST, SVHN
and CIFAR-10, are not reproduced. Its claims can be tested: exactness under arbitrary participation,
without bounds on heterogeneity; linear speedup; and a price in delay. MIFA and FedVARP remove the
bias of participation, not the drift of local steps: they end where FedAvg with all clients does.
"""

import functools
from collections.abc import Mapping, Sequence
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
from jaxdopt.networks import participation
from jaxdopt.plot.style import MARKERS

PAPER = "arXiv 2512.18275"
CLIENTS, DIMENSION, LOCAL_STEPS = 12, 10, 5
TOTAL = 0.1  # ηK L, of a round
EXACT = 1e-9  # |x − x*| up to which a method counts as exact
EVERY = 25  # rounds to a record: odd, to meet all groups of a cycle
NOISE = 1.0  # σ of every client's gradient
NOISY = {"d": 5, "condition_number": 5.0, "heterogeneity": 0.5, "curvature_spread": 0.3}
DELAYED = (16, 4)  # n and K of `delays`
GROUPS = (1, 2, 4, 8, 16)
CASES = ((4, 1), (16, 1), (64, 1), (16, 4), (16, 16))  # n and K of `speedup`
LAWS = {"p = 1": (1.0, 1.0), "p in 0.3 ... 0.9": (0.3, 0.9), "p in 0.05 ... 0.3": (0.05, 0.3)}
METHODS = {
    "FedAvg": jd.FedAvg,
    "MIFA": jd.MIFA,
    "FedVARP": jd.FedVARP,
    "SCAFFOLD": jd.SCAFFOLD,
    "FedSUM-B": jd.FedSUMB,
    "FedSUM": jd.FedSUM,
    "FedSUM-CR": jd.FedSUMCR,
}
CORRECTED = ("SCAFFOLD", "FedSUM-B", "FedSUM", "FedSUM-CR")
WIDTHS = {"SCAFFOLD": 5, "FedSUM-B": 3.5, "FedSUM": 2, "FedSUM-CR": 1}  # their curves coincide
QUICK = ("FedAvg", "FedSUM", "FedSUM-CR")
TITLES = {
    "full": "everybody",
    "uniform": "uniform, 3 of 12",
    "unequal": "probabilities 0.1 ... 0.9",
    "cyclic": "cyclic, 4 groups",
    "reshuffled": "reshuffled cyclic",
    "rare": "a client in 1 of 20",
    "markov": "Markov chains",
}


@functools.lru_cache
def problem(seed: int = 0) -> Any:
    """Return twelve quadratics with different Hessians and minimizers, L = 1 for the largest."""
    made = jd.problems.quadratic(
        CLIENTS, DIMENSION, heterogeneity=1.0, curvature_spread=0.5, seed=seed
    )
    return jd.problems.quadratic(
        CLIENTS,
        DIMENSION,
        smoothness=1 / float(made.smoothness),
        heterogeneity=1.0,
        curvature_spread=0.5,
        seed=seed,
    )


def patterns(rounds: int, seed: int = 0) -> dict[str, Any]:
    """Return the seven patterns."""
    n, key = CLIENTS, jax.random.key(seed)
    return {
        "full": participation.full(n),
        "uniform": participation.uniform(n, 3),
        "unequal": participation.bernoulli(np.linspace(0.1, 0.9, n)),
        "cyclic": participation.cyclic(n, 4),
        "reshuffled": participation.reshuffled_cyclic(n, 4),
        "rare": participation.rare(n, 20),
        "markov": participation.markov(n, 0.1, 0.05, steps=rounds, key=key),
    }


def tables(networks: Sequence[Any], rounds: int, seed: int = 0) -> Any:
    """Return patterns as a stack of tables, so that one program serves all of them."""
    key = jax.random.key(seed)
    rows = jnp.stack([participation.active(network, rounds, key) for network in networks])
    return participation.Trace(rows, networks[0].n)


def method(name: str) -> Any:
    """Return a method with the stepsize that all share, as a total over a round."""
    steps = 1 if name == "FedSUM-B" else LOCAL_STEPS
    return METHODS[name](TOTAL / steps, local_steps=LOCAL_STEPS)


def histories(
    names: Sequence[str], rounds: int, seed: int = 0, progress: bool = True
) -> xr.Dataset:
    """Return errors without noise: algorithm, pattern, step; and every pattern's delays."""
    whole, key = problem(seed), jax.random.key(seed)
    networks = patterns(rounds, seed)
    stacked = tables(list(networks.values()), rounds, seed)
    swept = jd.sweep(jd.run, over=("network",))
    parts = []
    for name in tqdm(names, unit="method", disable=not progress):
        run = swept(
            method(name),
            whole,
            stacked,
            whole.start(),
            key,
            steps=rounds,
            every=EVERY,
        )
        parts.append(jd.label(run, pattern=list(networks)))
    index: Any = xr.DataArray(list(names), dims="algorithm", name="algorithm")
    dataset: Any = xr.concat(parts, index)
    delays = [participation.delay_metrics(np.asarray(rows)) for rows in stacked.rows]
    for field in participation.Delays._fields:
        dataset[field] = ("pattern", [getattr(delay, field) for delay in delays])
    dataset["error"] = np.sqrt(dataset.distance_squared)
    return dataset


def final(dataset: xr.Dataset) -> xr.DataArray:
    """Return errors over the last tenth of the rounds, root mean squares."""
    last = dataset.distance_squared.isel(step=slice(-(dataset.sizes["step"] // 10), None))
    return np.sqrt(last.mean("step"))


def noisy(n: int, seed: int = 0) -> Any:
    """Return noisy quadratics of n clients, L about 1."""
    return jd.problems.GaussianNoise(jd.problems.quadratic(n, **NOISY, seed=seed), NOISE)


def stationary(
    networks: Any, n: int, local_steps: int, rounds: int, seeds: int, seed: int = 0
) -> np.ndarray:
    """Return FedSUM's E|∇F|², an array [networks, seeds], from the solution on."""
    noise = noisy(n, seed)
    run = jd.sweep(jd.run, over=("network", "key"))(
        jd.FedSUM(TOTAL / local_steps, local_steps=local_steps),
        noise,
        networks,
        noise.start(noise.solution),
        jax.random.split(jax.random.key(seed), seeds),
        steps=rounds,
        every=rounds // 200,
    )
    squares = run.history["gradient_norm_squared"]
    return squares[:, :, squares.shape[2] // 5 :].mean(axis=2)


def delays(groups: Sequence[int], rounds: int, seeds: int, seed: int = 0) -> xr.Dataset:
    """Return stationary errors over delays: law, groups (the share 1/groups takes part), seed."""
    n, local_steps = DELAYED
    networks = [participation.cyclic(n, m) for m in groups]
    networks += [participation.uniform(n, n // m) for m in groups]
    stacked = tables(networks, rounds, seed)
    errors = stationary(stacked, n, local_steps, rounds, seeds, seed)
    ages = [participation.delay_metrics(np.asarray(rows)) for rows in stacked.rows]
    shape = (2, len(groups))
    return xr.Dataset(
        {
            "error": (("law", "groups", "seed"), errors.reshape(*shape, seeds)),
            **{
                field: (("law", "groups"), np.reshape([getattr(a, field) for a in ages], shape))
                for field in participation.Delays._fields
            },
        },
        {"law": ["cyclic", "uniform"], "groups": list(groups)},
    )


def speedup(
    cases: Sequence[tuple[int, int]], rounds: int, seeds: int, seed: int = 0, progress: bool = True
) -> xr.Dataset:
    """Return stationary errors over n and K: case, law, seed."""
    errors = []
    for n, local_steps in tqdm(cases, unit="case", disable=not progress):
        chances = np.stack([np.linspace(*bounds, n) for bounds in LAWS.values()])
        networks = jax.vmap(participation.bernoulli)(jnp.asarray(chances))
        errors.append(stationary(networks, n, local_steps, rounds, seeds, seed))
    return xr.Dataset(
        {
            "error": (("case", "law", "seed"), np.stack(errors)),
            "n": ("case", [n for n, _ in cases]),
            "K": ("case", [k for _, k in cases]),
        },
        {"law": list(LAWS)},
    )


def slope(x: Any, y: Any) -> float:
    """Return the exponent of a power law fitted to y over x."""
    return float(np.polyfit(np.log(np.asarray(x)), np.log(np.asarray(y)), 1)[0])


def errors_table(dataset: xr.Dataset) -> pd.DataFrame:
    """Return the final errors, a pattern a row, with the delays."""
    errors, names = final(dataset), list(map(str, dataset.algorithm.values))
    rows = []
    for pattern in map(str, dataset.pattern.values):
        here = dataset.sel(pattern=pattern)
        rows.append(
            (
                TITLES[pattern],
                *(number(float(errors.sel(pattern=pattern, algorithm=a)), ".1e") for a in names),
                f"{int(here.tau_max)}",
                f"{float(here.tau_avg):.2f}",
                f"{float(here.tau_mean):.2f}",
            )
        )
    return pd.DataFrame(rows, columns=("pattern", *names, "tau_max", "tau_avg", "tau_mean"))


def delays_table(dataset: xr.Dataset) -> pd.DataFrame:
    """Return stationary errors over delays."""
    rows = []
    for law in map(str, dataset.law.values):
        for groups in dataset.groups.values:
            here = dataset.sel(law=law, groups=groups)
            rows.append(
                (
                    law,
                    f"1/{groups}",
                    f"{int(here.tau_max)}",
                    f"{float(here.tau_avg):.2f}",
                    f"{float(here.tau_mean):.2f}",
                    number(float(here.error.mean())),
                    number(float(here.error.std()) / np.sqrt(dataset.sizes["seed"]), ".1e"),
                    f"{float(here.error.mean() / dataset.error.sel(law=law)[0].mean()):.2f}",
                    f"{1 + 2 * float(here.tau_mean):.2f}",
                )
            )
    header = (
        "law",
        "share",
        "tau_max",
        "tau_avg",
        "tau_mean",
        "E|grad F|^2",
        "standard error",
        "over everybody's",
        "1 + 2 tau_mean",
    )
    return pd.DataFrame(rows, columns=header)


def speedup_table(dataset: xr.Dataset) -> pd.DataFrame:
    """Return stationary errors times nK."""
    scaled = dataset.error.mean("seed") * dataset.n * dataset.K
    rows = [
        (str(int(n)), str(int(k)), *(f"{float(v):.3f}" for v in scaled.isel(case=i)))
        for i, (n, k) in enumerate(zip(dataset.n, dataset.K, strict=True))
    ]
    return pd.DataFrame(rows, columns=("n", "K", *(f"E|grad F|^2 nK, {law}" for law in LAWS)))


def vectors_to(dataset: xr.Dataset, value: float) -> xr.DataArray:
    """Return the vectors over a link until the error is at most ``value``."""
    return jd.reach(dataset, "error", value, x="vectors")


def claims_table(dataset: xr.Dataset, aged: xr.Dataset, sped: xr.Dataset) -> pd.DataFrame:
    """Return what the paper claims, or other papers, beside what was measured."""
    rows = []

    def row(claim: str, source: str, claimed: str, measured: str, met: bool, why: str) -> None:
        rows.append((claim, source, claimed, measured, *(("yes", "-") if met else ("no", why))))

    errors, names = final(dataset), list(map(str, dataset.algorithm.values))
    for name in names:
        if name in CORRECTED:
            worst = float(errors.sel(algorithm=name).max())
            source = "arXiv 1910.06378" if name == "SCAFFOLD" else f"{PAPER}, abstract"
            row(
                f"{name} reaches the solution under all patterns",
                source,
                f"at most {EXACT:g}",
                number(worst, ".1e"),
                worst < EXACT,
                "slow where clients stay away for long: more rounds are needed",
            )
    average = errors.sel(algorithm="FedAvg")
    row(
        "FedAvg does not, under any pattern",
        "derived: drift of local steps",
        "above 1e-4",
        number(float(average.min()), ".1e"),
        float(average.min()) > 1e-4,
        "heterogeneity too small",
    )
    for name in ("MIFA", "FedVARP"):
        if name in names:
            away = errors.sel(algorithm=name) / average.sel(pattern="full") - 1
            worst = float(abs(away).max())
            row(
                f"{name} ends where FedAvg with everybody does",
                "derived: who takes part is taken out, drift is not",
                "ratio 1",
                f"1 within {worst:.1e}",
                worst < 1e-3,
                "not there yet",
            )
    ratios = vectors_to(dataset, 1e-6)
    ratio = ratios.sel(algorithm="FedSUM-CR") / ratios.sel(algorithm="FedSUM")
    row(
        "FedSUM-CR's vectors over FedSUM's, to 1e-6",
        "2 of 3 vectors are sent",
        "0.67",
        f"{float(ratio.min()):.2f} to {float(ratio.max()):.2f}",
        bool(abs(ratio - 2 / 3).max() < 0.1),
        "its estimate of y is older, and costs or saves rounds",
    )
    scaled = (sped.error.mean("seed") * sped.n * sped.K).transpose("law", "case")
    for law in map(str, sped.law.values):
        here = scaled.sel(law=law)
        spread = float(here.max() / here.min())
        row(
            f"linear speedup in n and K, {law}: largest E|grad F|^2 nK over the smallest",
            f"{PAPER}, as summarized",
            "1",
            f"{spread:.2f}",
            spread < 1.4,
            "few rounds against how long clients stay away",
        )
    for law in map(str, aged.law.values):
        here = aged.sel(law=law).error.mean("seed")
        grows = bool(np.all(np.diff(here.values) > 0))
        ages = 1 + 2 * aged.tau_mean.sel(law=law)
        power = slope(ages, here)
        row(
            f"the stationary error grows with the delay, {law}",
            f"{PAPER}, abstract: constants of tau_max and tau_avg",
            "grows",
            f"by {float(here[-1] / here[0]):.1f}",
            grows,
            "within the errors of sampling",
        )
        row(
            f"and as 1 + 2 tau_mean, {law}: fitted exponent",
            "derived, for small steps",
            "1",
            f"{power:.2f}",
            abs(power - 1) < 0.1,
            "the step is not small against the longest delays: 1 + tau_max times 0.1",
        )
    return pd.DataFrame(
        rows, columns=("claim", "source", "claimed", "measured", "met", "if not, why")
    )


def figure(dataset: xr.Dataset, aged: xr.Dataset, sped: xr.Dataset) -> Any:
    """Return the figure: final errors, curves under two patterns, delays, speedup, vectors."""
    import matplotlib.pyplot as plt
    from matplotlib.colors import LogNorm

    fig, axes = plt.subplots(2, 3, figsize=(15, 8.6), layout="constrained")
    names, kinds = map(list, (map(str, dataset.algorithm.values), map(str, dataset.pattern.values)))
    colors = {name: jd.plot.PALETTE[i] for i, name in enumerate(METHODS)}
    errors = final(dataset).transpose("pattern", "algorithm").values
    ax = axes[0, 0]
    ax.imshow(
        np.maximum(errors, 1e-14), norm=LogNorm(1e-14, 10), cmap="Blues", aspect="auto", alpha=0.7
    )
    for i, j in np.ndindex(*errors.shape):
        ax.text(j, i, f"{errors[i, j]:.0e}", ha="center", va="center", fontsize=8)
    ax.set_xticks(range(len(names)), names, rotation=30, ha="right")
    ax.set_yticks(range(len(kinds)), [TITLES[kind] for kind in kinds])
    ax.set_title(r"$|x - x^\star|$ at the end, without noise")
    ax.tick_params(length=0)
    for ax, pattern in ((axes[0, 1], "unequal"), (axes[0, 2], "markov")):
        for i, name in enumerate(names):
            here = dataset.error.sel(algorithm=name, pattern=pattern).clip(min=1e-14)
            every = max(len(here) // 8, 1)
            ax.plot(
                here.step,
                here,
                color=colors[name],
                linewidth=WIDTHS.get(name, 1.5),
                marker=MARKERS[i],
                markevery=(i * every // 7, every),
                markersize=4,
                label=name,
            )
        ax.set(xlabel="rounds", ylabel=r"$|x - x^\star|$", yscale="log", ylim=(1e-14, 30))
        ax.set_title(TITLES[pattern])
    axes[0, 1].legend(fontsize=8)
    ax = axes[1, 0]
    for i, name in enumerate(names):
        if name in CORRECTED:
            here = dataset.sel(algorithm=name, pattern="uniform")
            every = max(here.sizes["step"] // 8, 1)
            ax.plot(
                here.vectors,
                here.error.clip(min=1e-14),
                color=colors[name],
                linewidth=WIDTHS.get(name, 1.5),
                marker=MARKERS[i],
                markevery=(i * every // 7, every),
                markersize=4,
                label=name,
            )
    ax.set(yscale="log", ylim=(1e-14, 30), ylabel=r"$|x - x^\star|$")
    ax.set(xlabel="vectors over a link, mean of both ways", title=TITLES["uniform"])
    ax.legend(fontsize=8)
    ax = axes[1, 1]
    for i, law in enumerate(map(str, aged.law.values)):
        here = aged.sel(law=law)
        ax.errorbar(
            1 + 2 * here.tau_mean,
            here.error.mean("seed"),
            here.error.std("seed") / np.sqrt(here.sizes["seed"]),
            color=jd.plot.PALETTE[i],
            marker=MARKERS[i],
            capsize=2,
            label=law,
        )
    ages = np.array([1.0, 1 + 2 * float(aged.tau_mean.max())])
    whole = float(aged.error.isel(groups=0).mean())
    label = r"$\propto 1 + 2\tau_{\mathrm{mean}}$"
    ax.plot(ages, whole * ages, "--", color="black", linewidth=1, label=label, zorder=3)
    ax.set(xscale="log", yscale="log", xlabel=r"$1 + 2\tau_{\mathrm{mean}}$")
    ax.set_ylabel(r"stationary $E|\nabla F(x)|^2$")
    ax.set_title(f"FedSUM with noise, n = {DELAYED[0]}, K = {DELAYED[1]}")
    ax.legend()
    ax = axes[1, 2]
    product = (sped.n * sped.K).values
    for i, law in enumerate(map(str, sped.law.values)):
        here = sped.error.sel(law=law)
        color = jd.plot.PALETTE[i]
        level = float(np.exp(np.log(here.mean("seed") * product).mean()))
        line = np.array([product.min(), product.max()])
        ax.plot(line, level / line, color=color, linewidth=1, alpha=0.6)
        for local_steps, marker in zip(np.unique(sped.K), MARKERS, strict=False):
            chosen = (local_steps == sped.K).values
            label = f"K = {local_steps}" if i == 0 else None
            ax.plot(
                product[chosen],
                here.mean("seed")[chosen],
                marker,
                color=color,
                label=label,
                markersize=6,
                markerfacecolor="none" if local_steps > 1 else color,
            )
        ax.text(line[0] * 1.2, level / line[0], law, color=color, fontsize=9, va="bottom")
    ax.set(xscale="log", yscale="log", xlabel="nK", title="FedSUM with noise; lines: 1 / (nK)")
    ax.set_ylabel(r"stationary $E|\nabla F(x)|^2$")
    ax.legend()
    return fig


def run(
    quick: bool, out: Path, seed: int, scale: str = "small", progress: bool = True
) -> list[Path]:
    """Run everything, print the tables and return the files written into ``out``."""
    full = scale == "full" and not quick
    dataset = histories(
        QUICK if quick else list(METHODS),
        rounds=3000 if quick else 5000,
        seed=seed,
        progress=progress,
    )
    rounds, seeds = (1000, 2) if quick else (40_000, 8) if full else (8000, 6)
    aged = delays(GROUPS[::4] if quick else GROUPS, rounds, seeds, seed)
    cases: Mapping[bool, Any] = {True: ((4, 1), (4, 4)), False: CASES}
    sped = speedup(cases[quick], rounds, seeds, seed, progress)
    title = "|x - x*| over the last tenth of the rounds, without noise, and delays"
    return results.write(
        "fedsum",
        out,
        command=f"python -m experiments fedsum --seed {seed} --scale {scale}"
        + (" --quick" if quick else ""),
        tables={
            "errors": (title, errors_table(dataset)),
            "delays": ("FedSUM's stationary errors over delays", delays_table(aged)),
            "speedup": ("FedSUM's stationary errors over n and K", speedup_table(sped)),
            "claims": (
                "what is claimed and what was measured",
                claims_table(dataset, aged, sped),
            ),
        },
        datasets={"patterns": dataset, "delays": aged, "speedup": sped},
        figures={"fedsum": figure(dataset, aged, sped)},
    )
