"""CEDAS: the rate of centralized SGD with compressed messages (arXiv 2301.05872).

Sixteen agents on a ring, logistic regression of the digits 3 against 8, sorted by label, so that
nearly all agents see one digit only. First with one sample an agent and step and the stepsize
ηₖ = θ / (μ (k + 200)): what error do steps, and bits, buy, each method at its own best θ; and after
how many steps is a method as good as centralized SGD on the same samples, its transient time? Then
with full gradients: which methods are exact although they send 2 bits a coordinate?

Errors are (1/n) Σᵢ |xᵢ − x*|² in float64. γ and α are the library's defaults, which follow from the
compressor's error e on Gaussian vectors, not from the worst case ω: that transients grow as 1 / γ,
and γ falls as C⁻³, is in that default, which was made for stability; a tuned γ would make
CHOCO-SGD's bias smaller, but not remove it. Transients are compared at θ = 2: at θ = 1 errors are
the start's for so long that they hide the network's. The paper's own parameters, problems and sizes
are not known to us; ``--scale full`` goes on until the transients of all compressors are over.
"""

import math
from functools import partial
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

import jaxdopt as jd
from experiments.claims import above, below, claims
from experiments.measures import agents_error, among, exponent, over, spread, successive
from experiments.panels import Figure, Lines, LogLog, level, slope
from experiments.study import Axis, Part, Program, Results, Study, comparisons, keys
from jaxdopt import compressors
from jaxdopt.algorithms.compressed import messages

PAPER = "2301.05872, abstract"
AGENTS, PIXELS, DIGITS = 16, 64, (3, 8)
L2 = 0.1  # μ, too
OFFSET = 200.0  # K of the stepsize θ / (μ (k + K))
COMMON = 2.0  # the θ at which transients are compared: ηₖ = 20 / (k + 200)
CLOSE = 1.5  # an error below this many times centralized SGD's counts as close to it
TARGET = 1e-3  # the error up to which bits are counted
EXACT = 1e-20  # the error that exact methods reach with full gradients
SGD, PLAIN, RIVAL = "SGD", "CEDAS, dither, 2 bits", "CHOCO-SGD, dither, 2 bits"
LEAD = "LEAD, dither, 2 bits"
TWO_BITS, QUARTER = compressors.Dither(bits=2), compressors.RandomK(PIXELS // 4)
UNBIASED = {
    "dither, 2 bits": TWO_BITS,
    "random 1/2": compressors.RandomK(PIXELS // 2),
    "dither, 1 level": compressors.Dither(levels=1),
    "random 1/4": QUARTER,
}
"""By increasing error."""
METHODS = {
    SGD: jd.SGD(0.1),
    "DSGD": jd.DSGD(0.1),
    "EDAS": jd.ExactDiffusion(0.1),
    **{f"CEDAS, {name}": jd.CEDAS(0.1, kind) for name, kind in UNBIASED.items()},
    LEAD: jd.LEAD(0.1, TWO_BITS),
    "LEAD, random 1/4": jd.LEAD(0.1, QUARTER),
    RIVAL: jd.CHOCOSGD(0.1, TWO_BITS),
    "CHOCO-SGD, top 1/4": jd.CHOCOSGD(0.1, compressors.TopK(PIXELS // 4)),
}
"""With one sample a step; SGD is centralized, EDAS exact diffusion with a changing stepsize."""
CEDAS = [f"CEDAS, {name}" for name in UNBIASED]
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
FULL = EXACT_METHODS | INEXACT_METHODS
KEPT = ["error", "bits", "diverged"]
ALL = {"methods": METHODS, "full": FULL, "thetas": (0.5, 1.0, 2.0), "seeds": 8}
SCALES = {
    "quick": dict(methods=(SGD, "EDAS", PLAIN, "CEDAS, dither, 1 level", RIVAL), steps=2500,
        every=50, thetas=(COMMON,), seeds=4, full=("CEDAS", "CHOCO-SGD"), constant=(1600, 7)),
    "default": ALL | {"steps": 16_000, "every": 50, "constant": (8000, 13)},
    "full": ALL | {"steps": 400_000, "every": 500, "constant": (8000, 13)},
}  # fmt: skip
"""``constant``: steps and stepsizes with full gradients."""


def world(sizes: Any, seed: int) -> Any:
    """Return the sizes, the seed, the ring with Metropolis weights, 1/3 each, and the problem.

    Agents hold 22 or 23 images, of one digit.
    """
    data = jd.data.digits().only(*DIGITS)
    problem = jd.problems.logistic_regression(
        data.features, data.labels == DIGITS[1], agents=AGENTS, l2=L2, partition="by_label"
    )
    ring = jd.networks.metropolis(jd.graphs.ring(AGENTS))
    return SimpleNamespace(seed=seed, problem=problem, network=ring, **sizes)


def scheduled(theta: Any, method: Any) -> Any:
    """Return a method with the stepsize θ / (μ (k + K))."""
    return jd.replace(method, stepsize=jd.schedules.InverseTime(theta / L2, OFFSET))


def samples(world: Any, _: Any) -> dict[str, Program]:
    """Return the runs with one sample an agent and step: θ, seed (the same samples for all)."""
    sampled, thetas = jd.problems.Minibatch(world.problem, 1), jnp.asarray(world.thetas)
    seeds = range(world.seed, world.seed + world.seeds)
    axes = {"algorithm": Axis("theta", world.thetas), "key": Axis("seed", seeds)}
    shared = {"problem": sampled, "network": world.network, "x0": sampled.start()}
    shared |= {"key": keys(seeds), "steps": world.steps, "every": world.every}
    shared |= {"metrics": {"error": agents_error}}
    found = {}
    for name in world.methods:
        methods = jax.vmap(partial(scheduled, method=METHODS[name]))(thetas)
        found[name] = Program(shared | {"algorithm": methods}, axes, reduce=lambda d: d[KEPT])
    return found


def full(world: Any, _: Any) -> dict[str, Program]:
    """Return the runs with full gradients: constant stepsize."""
    return comparisons(
        {name: FULL[name] for name in world.full},
        KEPT,
        problem=world.problem,
        networks=world.network,
        over={"stepsize": np.logspace(-3, 0, world.constant[1])},
        steps=world.constant[0],
        every=25,
        seeds=[world.seed],
        metrics={"error": agents_error},
    )


def parameters(method: Any) -> tuple[float, float]:
    """Return the γ and α that a compressed method takes by default; NaN where it has none."""
    x = jnp.zeros((AGENTS, PIXELS))
    if isinstance(method, jd.CEDAS | jd.LEAD):
        return messages.consensus(method, x), messages.memory(method, x)
    return messages.feedback(method, x) if hasattr(method, "compressor") else math.nan, math.nan


def message_bits(method: Any) -> tuple[int, int]:
    """Return the bits of a message, as the histories count them and as a plain code needs them.

    They differ for the dither called b-bit, which has 2^b + 1 symbols.
    """
    compressor: Any = getattr(method, "compressor", compressors.Identity())
    compressor = getattr(compressor, "unbiased", compressor)
    dither, nominal = isinstance(compressor, compressors.Dither), compressor.bits(PIXELS)
    return nominal, compressor.exact_bits(PIXELS) if dither else nominal


def described(dataset: xr.Dataset, *_: Any) -> xr.Dataset:
    """Add the compressors' ω and e, γ, α, and the share that a plain code sends more."""
    rows = []
    for name in dataset.algorithm.values:
        method = (METHODS | FULL)[str(name)]
        compressor = getattr(method, "compressor", compressors.Identity())
        omega = compressor.omega(PIXELS) if hasattr(compressor, "omega") else math.nan
        nominal, exact = message_bits(method)
        e, values = compressor.error(PIXELS), parameters(method)
        rows.append((omega, e, *values, nominal, exact / nominal))
    names = ("omega", "e", "gamma", "alpha", "message_bits", "code")
    columns = zip(names, np.array(rows, float).T, strict=True)
    return dataset.assign({name: ("algorithm", values) for name, values in columns})


def ratios(dataset: xr.Dataset) -> xr.DataArray:
    """Return the errors over centralized SGD's, means over seeds of both."""
    mean = dataset.error.mean("seed")
    return mean / mean.sel(algorithm=SGD, drop=True)


def transients(ratio: xr.DataArray) -> xr.DataArray:
    """Return the first recorded step after which ratios stay below `CLOSE`; NaN if none is."""
    backwards = (ratio < CLOSE).isel(step=slice(None, None, -1))
    stays = backwards.cumprod("step").isel(step=slice(None, None, -1)).astype(bool)
    return ratio.step.isel(step=stays.argmax("step")).where(stays.any("step")).drop_vars("step")


def common(results: Results) -> xr.DataArray:
    """Return the ratios at the stepsize that all methods have."""
    return ratios(results["samples"].sel(theta=COMMON, drop=True))


def times(results: Results) -> xr.DataArray:
    """Return transient times at the common stepsize: at least a record, at most the whole run."""
    ratio = common(results)
    return transients(ratio).fillna(int(ratio.step[-1])).clip(min=int(ratio.step[1]))


def rate(dataset: xr.Dataset, *names: str) -> xr.DataArray:
    """Return the slope of log error over log (k + K), for the last three quarters of the steps."""
    mean = dataset.error.sel(algorithm=list(names), theta=COMMON).mean("seed")
    late = mean.isel(step=slice(mean.sizes["step"] // 4, None))
    return exponent(late.step + OFFSET, late, "step")


def best(results: Results) -> xr.Dataset:
    """Return the errors with samples at each method's own best θ, means over seeds."""
    return jd.best(results["samples"], "error").mean("seed")


def savings(results: Results) -> xr.DataArray:
    """Return exact diffusion's bits to the target over CEDAS', nominal and of a plain code."""
    bits = jd.reach(best(results), "error", TARGET, x="bits")
    code = xr.DataArray([1.0, float(results["samples"].code.sel(algorithm=PLAIN))], dims="code")
    sent = bits.sel(algorithm=PLAIN, drop=True) * code.assign_coords(code=["nominal", "exact"])
    return bits.sel(algorithm="EDAS", drop=True) / sent


def lowest(names: Any, results: Results) -> xr.DataArray:
    """Return methods' lowest errors with full gradients."""
    least = jd.best(results["full"], "error").error.min("step")
    return among(least, names).drop_vars("stepsize")


AT_LEAST, LESS = f"{PAPER}: O(n C^3 / gap^2)", f"{PAPER}, for C < O(1 / gap^2)"
EXACTLY, PLATEAU = "2301.05872, 2007.00232, 2201.13320, 2103.13748", "1902.00340, 1907.07346"
CLAIMS = claims(
    ("CEDAS has the rate of centralized SGD with every compressor: error / SGD's at the end", PAPER,
     "1", lambda r: among(common(r), CEDAS).isel(step=-1, drop=True), below(CLOSE), ("full",)),
    ("the rate is 1 / k, and steeper while a transient lasts: slope of the error", PAPER, "-1",
     lambda r: rate(r["samples"], SGD, PLAIN), below(-0.7)),
    ("transients are longer for larger errors of compression: time over the one before", AT_LEAST,
     ">= 1", lambda r: successive(among(times(r), CEDAS), "algorithm"), above(1)),
    ("they grow as C^3, here as 1 / gamma = (1 + e)^3: largest gamma times steps over least",
     AT_LEAST, "1",
     lambda r: spread(among(transients(common(r)) * r["samples"].gamma, CEDAS)), below(2),
     ("default", "full")),
    ("exact diffusion without compression has a shorter one: EDAS' over CEDAS', 2 bits",
     "2105.04851, abstract: O(n / gap)", "< 1", lambda r: over(times(r), "EDAS", PLAIN), below(1)),
    ("CEDAS has the shortest one of compressed methods: over CHOCO-SGD's, 2 bits", LESS, "< 1",
     lambda r: over(times(r), PLAIN, RIVAL), below(1)),
    ("and none has a shorter one: over LEAD's, 2 bits", LESS, "<= 1",
     lambda r: over(times(r), PLAIN, LEAD), below(1)),
    (f"CEDAS sends fewer bits than exact diffusion to an error of {TARGET:g}: times fewer", PAPER,
     "> 1", savings, above(1)),
    ("with full gradients these are exact: lowest error", EXACTLY, "0",
     partial(lowest, EXACT_METHODS), below(EXACT)),
    ("and these stop at a plateau: lowest error", PLATEAU, "> 0", partial(lowest, INEXACT_METHODS),
     above(1e-6)),
)  # fmt: skip


def by_gamma(results: Results) -> xr.DataArray:
    """Return CEDAS' and LEAD's transient times over 1 / γ; infinite where they are not over."""
    steps = transients(common(results)).fillna(math.inf).rename("transient")
    steps = steps.assign_coords(rough=1 / results["samples"].gamma)
    names = [str(name) for name in steps.algorithm.values if name.startswith(("CEDAS", "LEAD"))]
    family = ("algorithm", [name.split(",")[0] for name in names])
    steps = steps.sel(algorithm=names).assign_coords(method=family)
    whole = steps.set_index(algorithm=["method", "rough"]).unstack("algorithm")
    return whole.rename(method="algorithm")


def methods_table(results: Results) -> xr.Dataset:
    """Return what each method reached at its own best θ, what it sent, and its transients."""
    dataset, own = results["samples"], best(results)
    kbit = jd.reach(own, "error", TARGET, x="bits") / 1e3
    chosen = jd.best(dataset, "error")
    columns = {
        "best theta": own.theta,
        "final error": own.error.isel(step=-1, drop=True),
        "over SGD's": ratios(chosen).isel(step=-1, drop=True),
        f"kbit to {TARGET:g}": kbit,
        "of a plain code": kbit * dataset.code,
        **dataset[["omega", "e", "gamma", "alpha"]],
        f"transient, theta = {COMMON:g}": transients(common(results)),
        "at the best theta": transients(ratios(chosen)),
    }
    return xr.Dataset(columns).drop_vars("theta")


def message(name: str, compressor: Any, ax: Any, results: Results) -> None:
    """Draw one vector, and what arrives of it after compression."""
    d, blue = 24, jd.plot.PALETTE[0]
    x = jax.random.normal(jax.random.key(results.world.seed), (1, d))
    arrived = compressor(jax.random.key(results.world.seed + 1), x)[0]
    off = float(jnp.sum((arrived - x[0]) ** 2) / jnp.sum(x**2))
    ax.bar(range(d), x[0], color="0.8", width=0.9, label="vector")
    ax.vlines(range(d), 0, arrived, color=blue, linewidth=1)
    ax.plot(arrived, "o", color=blue, markersize=3, label="what arrives")
    ax.axhline(0, color="0.3", linewidth=0.6)
    ax.set_title(f"{name}\n{compressor.bits(d)} bits, error {off:.2f}")
    ax.set(xlabel="coordinate", ylabel="value")


ERROR = "error  $\\frac{1}{n}\\sum_i |x_i - x^\\star|^2$"
SHOWN = [SGD, "DSGD", "EDAS", PLAIN, LEAD, RIVAL]
CURVES: Any = {"y": "error", "logx": True, "at": {"algorithm": SHOWN}}
CURVES |= {"data": lambda r: jd.best(r["samples"], "error").isel(step=slice(1, None))}
CURVES |= {"labels": {k: k.split(",")[0] for k in SHOWN}, "title": "one sample a step"}
PANELS = [
    [
        Lines(x="step", ylabel=ERROR, **CURVES),
        Lines(x="bits", ylabel="", **CURVES),
        Lines(data=lambda r: jd.best(r["full"], "error").isel(step=slice(1, None)), y="error",
              x="bits", logx=True, floor=1e-24, ylabel="", title="full gradients"),
    ],
    [
        Lines(data=lambda r: common(r)[..., 1:].to_dataset(name="ratio"), y="ratio",
              at={"algorithm": ["EDAS", *CEDAS, LEAD]}, x="step", logx=True,
              ylabel="error / centralized SGD's", also=[level(CLOSE, f"close: {CLOSE:g}")],
              title=f"$\\eta_k$ = {COMMON / L2:g} / (k + {OFFSET:g})", legend="panel"),
        LogLog(data=by_gamma, x="rough", dodge=1.1, title="transients", legend="panel",
               xlabel="$1 / \\gamma = (1 + e)^3$", ylabel="transient time, steps",
               also=[slope(1, "$\\propto 1 / \\gamma$")]),
    ],
]  # fmt: skip
PICTURED = [
    {"vector": compressors.Identity()} | {k: v for k, v in UNBIASED.items() if "dither" in k},
    {"random 1/4": compressors.RandomK(6), "top 1/4": compressors.TopK(6),
     "scaled sign": compressors.ScaledSign()},
]  # fmt: skip
PICTURES = [[partial(message, *each) for each in row.items()] for row in PICTURED]
STUDY = Study(
    name="cedas",
    paper="CEDAS (2023), arXiv 2301.05872",
    question="Does CEDAS have centralized SGD's rate with compressed messages, and from when on?",
    scales=SCALES,
    world=world,
    parts={
        "samples": Part("algorithm", samples, described),
        "full": Part("algorithm", full, lambda d, *_: described(d.isel(seed=0, drop=True))),
    },
    claims=CLAIMS,
    figures={
        "cedas": Figure(PANELS, height=2.4),
        "messages": Figure(PICTURES, height=1.6, sharex=True, sharey=True),
    },
    tables={"methods": ("one sample a step, each method at its own best theta", methods_table)},
    minutes={"quick": 1.5, "default": 15, "full": 300},
    data=lambda world: (
        f"scikit-learn's digits {DIGITS[0]} and {DIGITS[1]}, 8 x 8 pixels, sorted by label over "
        f"{world.problem.n} agents"
    ),
)
