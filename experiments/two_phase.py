"""Two-phase optimizers on linear regression (arXiv 2603.26954), against their exact theory.

DiLoCo on a stream of samples: M workers take K steps of SGD, then the server a step of an outer
optimizer. One worker is lookahead, LA; K = 1 and an outer stepsize of 1 is SGD. Workers share 8
samples a step, so that all methods see as many of them. Three questions:

* *curves*, *rates*, *workers*: how large is the noise that is left, at the same rate of the slowest
  second moment, and with more workers? Measured beside `jd.theory.Moments`.
* *modes*: which modes of the Hessian does momentum make faster? Without noise.
* *diagram*: for which outer stepsizes and momenta is a mode stable? 7,200 runs.

The paper's sentences here are those of its abstract, which is all that was read of it. The theory
is derived in `jaxdopt.theory.moments`: it is exact in any dimension, where the paper's is of
the limit of many. Everything in float64, but for the samples.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from scipy.optimize import brentq

import jaxdopt as jd
from experiments.claims import above, below, claims, near
from experiments.panels import Against, Figure, set_ticks
from experiments.study import Axis, Part, Program, Results, Study, keys
from jaxdopt.networks import Server
from jaxdopt.optimizers import nesterov
from jaxdopt.theory import Moments, mode_rate, server_edge

PAPER = "arXiv 2603.26954"
ABSTRACT = f"{PAPER}, abstract"
SPECTRUM = tuple((1 / np.arange(1, 21)).tolist())  # of the samples' covariance
RATES = tuple(np.geomspace(0.002, 0.03, 11).tolist())  # per local step
SAMPLES, EVERY = 8, 16  # a step of all workers; local steps to a record, at least
LA = {"local_steps": 16, "server_stepsize": 0.5}
MOMENTUM = {"local_steps": 16, "server_stepsize": 0.4, "momentum": 0.6}  # 0.4 / (1 − 0.6) = 1
CURVES = {"SGD": {}, "LA": LA, "LA, Nesterov": MOMENTUM}
RATED = {**CURVES}
CURVES["8 workers"] = {"local_steps": 16, "workers": 8}
SHARED = {f"K = {k}": {"local_steps": k} for k in (1, 4, 16)} | {"K = 16, Nesterov": MOMENTUM}
SPEEDS = np.geomspace(2e-4, 0.3, 20)  # ηh of the modes
MODES = {  # outer stepsize and momentum, local momentum, and whether the outer one is Nesterov's
    "SGD": (1.0, 0.0, 0.0, True),
    "LA": (0.7, 0.0, 0.0, True),
    "LA, Nesterov": (0.7, 0.8, 0.0, True),
    "LA, heavy ball": (0.7, 0.8, 0.0, False),
    "Nesterov twice": (0.7, 0.8, 0.5, True),
}
OUTER = {"Nesterov": True, "heavy ball": False}
SCALES = {
    "quick": {"rates": (0.002, 0.008, 0.03), "workers": (1, 8), "steps": 4800, "seeds": 8},
    "default": {"rates": RATES[::2], "workers": (1, 2, 4, 8), "steps": 16_000, "seeds": 16},
    "full": {"rates": RATES, "workers": (1, 2, 4, 8), "steps": 64_000, "seeds": 64},
}


def loop(stepsize: float, workers: int = 1, **numbers: Any) -> Moments:
    """Return the theory of a method whose workers share the samples."""
    return Moments(SPECTRUM, stepsize, workers=workers, batch=SAMPLES // workers, **numbers)


def rated(rate: float, **numbers: Any) -> Moments:
    """Return the method at the stepsize of this rate of the slowest second moment."""
    gain = numbers.get("server_stepsize", 1.0) / (1 - numbers.get("momentum", 0.0))
    first = rate / (2 * gain * min(SPECTRUM))
    root: Any = brentq(lambda eta: loop(eta, **numbers).rate - rate, first / 3, 1.8 * first)
    return loop(root, **numbers)


def gradient(x: jax.Array, _: Any, key: jax.Array, *, batch: int) -> jax.Array:
    """Return a worker's gradient with fresh samples, in the eigenbasis; x* is 0."""
    drawn = jax.random.normal(key, (batch, len(SPECTRUM) + 1), jnp.float32).astype(x.dtype)
    samples = drawn[:, 1:] * np.sqrt(SPECTRUM)
    return samples.T @ (samples @ x - drawn[:, 0]) / batch


def risk(state: Any, _: Any) -> jax.Array:
    """Return the server's excess risk."""
    return jnp.asarray(SPECTRUM) @ state.server**2 / 2


def run(at: Moments, key: jax.Array, steps: int, every: int, away: float) -> Any:
    """Return the risks of a run from x* + away, after every so many local steps."""
    K, n, origin = at.local_steps, at.workers, jnp.full(len(SPECTRUM), away)
    problem = jd.problems.Oracle(partial(gradient, batch=at.batch), None, origin, agents=n)
    server = nesterov(at.momentum) if at.momentum else None
    method = jd.DiLoCo(at.stepsize, at.server_stepsize, local_steps=K, server=server)
    options = {"steps": steps // K, "every": every // K, "metrics": {"risk": risk}}
    found = jd.run(method, problem, Server(n), problem.start(), key, **options)
    return {"measured": found.history["risk"]}


def compared(dataset: xr.Dataset, at: Moments, away: float) -> xr.Dataset:
    """Return a run's risks beside theory's: from afar all of them; else the mean, without x*."""
    if not away:
        late = dataset.isel(measured_0=slice(dataset.sizes["measured_0"] // 5, None))
        return late.mean("measured_0").assign(theory=at.floor)
    dataset = dataset.rename(measured_0="step")
    theory = at.risks((dataset.sizes["step"] - 1) * (EVERY // at.local_steps), away)
    dataset = dataset.assign(theory=("step", theory[:: EVERY // at.local_steps]))
    return dataset.assign_coords(step=EVERY * np.arange(dataset.sizes["step"]))


def regression(at: Moments, seeds: range, steps: int, every: int, away: float = 0.0) -> Program:
    """Return the program of `run` over seeds, `compared`."""
    given = {"at": at, "key": keys(seeds), "steps": steps, "every": every, "away": away}
    reduce = partial(compared, at=at, away=away)
    return Program(given, {"key": Axis("seed", seeds)}, run, reduce)


def curves(world: Any, _: Any) -> dict[str, Program]:
    """Return risks over time, from afar."""
    seeds = range(world.seed, world.seed + 8 * world.seeds)
    own = {name: loop(0.3, **numbers) for name, numbers in CURVES.items()}
    return {name: regression(at, seeds, 1600, EVERY, 1.0) for name, at in own.items()}


def stationary(world: Any, methods: dict[Any, Moments]) -> dict[Any, Program]:
    """Return stationary risks of methods."""
    seeds = range(world.seed, world.seed + world.seeds)
    return {at: regression(own, seeds, world.steps, 4 * EVERY) for at, own in methods.items()}


def rates(world: Any, _: Any) -> dict[Any, Program]:
    """Return stationary risks at stepsizes of equal rates."""
    return stationary(world, {(s, r): rated(r, **RATED[s]) for s in RATED for r in world.rates})


def workers(world: Any, _: Any) -> dict[Any, Program]:
    """Return stationary risks of several workers that share the samples."""
    methods = {(s, n): loop(0.3, n, **SHARED[s]) for s in SHARED for n in world.workers}
    return stationary(world, methods)


def quiet(spectrum: Any, rounds: int, **fields: Any) -> jax.Array:
    """Return |φ − x*| of all modes after every round of 8 steps without noise, [rounds + 1, d]."""
    h, key = np.asarray(spectrum, float), jax.random.key(0)
    problem = jd.problems.Quadratic(np.diag(h)[None], 0 * h[None], 0 * h, 0 * h, h.max(), h.min())
    method, x0 = jd.DiLoCo(**fields, local_steps=8), jnp.ones((1, len(h)))
    options = {"steps": rounds, "metrics": {"away": lambda state, _: jnp.abs(state.server)}}
    return jd.run(method, problem, Server(1), x0, key, **options).history["away"]


def momentum(decay: Any, nesterov: bool = True) -> Any:
    """Return a momentum whose number is a leaf."""
    return jd.optimizer(optax.trace, decay=decay, nesterov=nesterov)


def decaying(numbers: Any, nesterov: bool) -> Any:
    """Return the distances of all modes."""
    outer, local = momentum(numbers[1], nesterov), momentum(numbers[2])
    fields = {"stepsize": 1.0, "server_stepsize": numbers[0], "server": outer, "local": local}
    return {"away": quiet(SPEEDS, 1500, **fields)}


def decayed(dataset: xr.Dataset, numbers: Any, nesterov: bool) -> xr.Dataset:
    """Return rates per local step, of two spans before distances underflow, beside theory's."""
    away, found = dataset.away.values, []
    for own in away.T:
        span = np.flatnonzero(own > 1e-150)[-1] // 3
        early, late = ((own[k * span : (k + 1) * span] ** 2).sum() for k in (1, 2))
        found.append(np.log(early / late) / (16 * span))
    names = ("server_stepsize", "momentum", "local_momentum")
    own = dict(zip(names, numbers, strict=True))
    theory = mode_rate(SPEEDS, local_steps=8, nesterov=nesterov, **own)
    both = {"measured": ("speed", found), "theory": ("speed", theory)}
    return xr.Dataset(both, {"speed": SPEEDS})


def modes(world: Any, _: Any) -> dict[str, Program]:  # noqa: ARG001
    """Return the rates of all modes of the `MODES`."""
    found = {}
    for name, (*numbers, kind) in MODES.items():
        own = {"numbers": jnp.array(numbers), "nesterov": kind}
        reduce = partial(decayed, numbers=numbers, nesterov=kind)
        found[name] = Program(own, function=decaying, reduce=reduce)
    return found


def settles(server_stepsize: Any, decay: Any, nesterov: bool) -> Any:
    """Return whether the mode ηh = 0.2 is nearer in the end."""
    fields = {"server_stepsize": server_stepsize, "server": momentum(decay, nesterov)}
    return {"stable": jnp.all(quiet([1.0], 1200, stepsize=0.2, **fields)[900:] < 1)}


def diagram(world: Any, _: Any) -> dict[str, Program]:
    """Return whether a mode is stable, over outer stepsizes and momenta."""
    size = 24 if world.seeds < 10 else 60
    grids = {"server_stepsize": np.linspace(0.05, 4.95, size), "decay": np.linspace(0, 0.96, size)}
    over = {name: Axis(name, grid.tolist()) for name, grid in grids.items()}
    given = {name: jnp.array(grid) for name, grid in grids.items()}
    return {name: Program(given | {"nesterov": yes}, over, settles) for name, yes in OUTER.items()}


def law(dataset: xr.Dataset, name: str) -> Any:
    """Return the largest stable outer stepsize of theory, over momenta."""
    return server_edge(dataset.decay, 1 - 0.8**8, nesterov=OUTER[name])


def misplaced(results: Results) -> xr.DataArray:
    """Return the share of runs on the wrong side of the law."""
    found = results["diagram"]
    edges = xr.concat([law(found, name) for name in OUTER], found.outer)
    return (found.stable != (found.server_stepsize < edges)).mean(("server_stepsize", "decay"))


def agreement(part: str) -> Any:
    """Return the measure of measured over theory, means over seeds and records."""

    def measure(results: Results) -> xr.DataArray:
        ratio = results[part].measured / results[part].theory
        return ratio.mean([dim for dim in ("seed", "step") if dim in ratio.dims])

    return measure


def over(part: str, names: Any, other: str | None = None, **at: int) -> Any:
    """Return the measure of stationary risks over another setting's, or over one worker's."""

    def measure(results: Results) -> xr.DataArray:
        risks = results[part].measured.mean("seed")
        unit = risks.isel(workers=0) if other is None else risks.sel(setting=other, drop=True)
        return (risks / unit).sel(setting=names).isel(at)

    return measure


def gains(results: Results) -> xr.DataArray:
    """Return the slowest mode's rate over SGD's, over η_o / ((1 − μ) (1 − local μ))."""
    slow = results["modes"].measured.isel(speed=0, drop=True)
    expected = [eta / ((1 - mu) * (1 - own)) for eta, mu, own, _ in MODES.values()]
    return slow / slow.sel(setting="SGD", drop=True) / xr.DataArray(expected, dims="setting")


def damped(results: Results) -> float:
    """Return the least rate of modes ηh ≥ 0.1, Nesterov's momentum over the heavy ball."""
    least = results["modes"].measured.sel(speed=slice(0.1, None)).min("speed")
    return float(least.sel(setting="LA, Nesterov") / least.sel(setting="LA, heavy ball"))


def stacked(results: Results) -> float:
    """Return the slowest mode's rate with two momenta over that of LA."""
    slow = results["modes"].measured.isel(speed=0)
    return float(slow.sel(setting="Nesterov twice") / slow.sel(setting="LA"))


CLOSE, ALL = near(1, 0.05), ("default", "full")
CLAIMS = claims(
    ("risks over time: measured over theory", "derived", "1", agreement("curves"), CLOSE),
    ("rates' risks: measured over theory", "derived", "1", agreement("rates"), CLOSE, ALL),
    ("workers' risks: measured over theory", "derived", "1", agreement("workers"), CLOSE, ALL),
    ("modes: measured over theory", "derived", "1", agreement("modes"), CLOSE),
    ("LA: least risk over SGD's at the same rate", ABSTRACT, "beneficial in many scenarios",
     lambda results: over("rates", "LA", "SGD")(results).min(), below(0.92), ALL),
    ("8 workers, K = 1: risk over one's", "derived", "1",
     over("workers", "K = 1", workers=-1), CLOSE, ALL),
    ("8 workers, K > 1: risk over one's", ABSTRACT, "> 1",
     over("workers", ["K = 4", "K = 16"], workers=-1), above(1.1)),
    ("8 workers, K = 16: risk with momentum over without", ABSTRACT, "can be ameliorated",
     over("workers", "K = 16, Nesterov", "K = 16", workers=-1), below(0.9)),
    ("slowest mode: rate with two momenta over LA's", ABSTRACT, "> 1", stacked, above(2)),
    ("slowest mode: gain over η_o / ((1 − μ) (1 − local μ))", "derived", "1", gains, CLOSE),
    ("fast modes: rate of Nesterov's over the heavy ball's", "derived", "> 1", damped, above(2)),
    ("runs on the wrong side of the law", "derived", "0", misplaced, below(0.005)),
)  # fmt: skip


def few_steps(results: Results) -> xr.Dataset:
    """Return the curves at a few steps, whose distances grow."""
    return results["curves"].isel(step=np.unique(np.geomspace(1, 100, 14).astype(int)))


def relative(results: Results) -> xr.Dataset:
    """Return the rates' risks over SGD's in theory."""
    return results["rates"] / results["rates"].theory.sel(setting="SGD", drop=True)


def stability(ax: Any, results: Results) -> None:
    """Draw where runs are stable with none, one or both of the outer optimizers, and the laws."""
    found = results["diagram"]
    count = found.stable.sum("outer").transpose("server_stepsize", "decay")
    ax.pcolormesh(found.decay, found.server_stepsize, count, cmap="Blues", vmin=0, vmax=4)
    for name, dashes in zip(OUTER, ("-", "--"), strict=True):
        ax.plot(found.decay, law(found, name), dashes, color="black", label=f"law, {name}")
    for height, text in ((1.0, "both stable"), (2.5, "Nesterov diverges"), (4.3, "both diverge")):
        ax.text(0.35, height, text, ha="center")
    ax.set(title="stable runs", xlabel="outer momentum", ylabel="outer stepsize", ylim=(0, 5))
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.24), ncols=2)


def panel(data: Any, title: str, xlabel: str, ylabel: str, **more: Any) -> Against:
    """Return a panel with a legend of its own."""
    return Against(data=data, title=title, xlabel=xlabel, ylabel=ylabel, legend="panel", **more)


def counts(ax: Any, results: Results) -> None:
    """Name the numbers of workers."""
    set_ticks(ax.xaxis, results["workers"].workers)


PANELS = [
    [
        panel(few_steps, "lines: theory", "local steps", "excess risk"),
        panel(relative, "at equal rates", "rate per local step", "stationary risk over SGD's"),
        panel("workers", "8 samples a step in all", "workers", "stationary risk", also=[counts]),
    ],
    [
        panel("modes", "modes without noise", "stepsize times eigenvalue", "rate per local step"),
        stability,
    ],
]
STUDY = Study(
    name="two_phase",
    paper=f"Agarwala (2026), high dimensional theory of two-phase optimizers, {PAPER}",
    question="What do an outer loop, its momentum and its workers do to noise and speed?",
    scales=SCALES,
    parts={
        "curves": Part("setting", curves),
        "rates": Part(("setting", "rate"), rates),
        "workers": Part(("setting", "workers"), workers),
        "modes": Part("setting", modes),
        "diagram": Part("outer", diagram),
    },
    claims=CLAIMS,
    figures={"two_phase": Figure(PANELS, height=2.7)},
    minutes={"quick": 0.6, "default": 2.5, "full": 30},
    data=lambda _: "a stream of a linear regression, eigenvalues 1, 1/2, ..., 1/20",
)
