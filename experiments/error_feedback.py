"""What error feedback repairs: compressed links of a server on synthetic least squares.

Five clients with fᵢ(x) = |aᵢ x − bᵢ|² / 2, aᵢ² = i² / n, bᵢ ~ N(0, (20 / i)² I) in 60 dimensions,
which disagree a lot, send the six largest of 60 coordinates, δ = 0.1 (the problem of arXiv
2311.05645). Errors are |x − x*|² / |x*|² of the server's x, from x = 0; L = n, clients' largest.

* *plateaus*: without noise, for stepsizes γ: who is exact, and how does the rest depend on γ?
* *noise*: with noise of E|ξ|² = 20² in every client's gradient.
* *clients*: with the same curvatures 0.2 to 1 for all, σ = 1, from x*: error against n.
* *diagram*: EControl's feedback η against γ, for three δ: where is it stable? For large γ the edge
  falls faster than δ: with δ = 0.05 and γL = 0.4 even δ / 2, the default, is unstable.

Numbers that are called a loop's were measured once with independent NumPy loops, and are no
paper's. The sentences of the papers are those of abstracts and summaries.
"""

from functools import partial
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

import jaxdopt as jd
from experiments.claims import above, below, claims, near, within_factor
from experiments.measures import exponent, over, tail
from experiments.panels import Figure, Heat, Lines, LogLog, beside, slope
from experiments.study import Axis, Part, Program, Results, Study, comparisons, keys
from jaxdopt.compressors import Identity, TopK
from jaxdopt.networks import Server

ECONTROL, LOOP = "2311.05645", "an independent NumPy loop"
CLIENTS, D, K, LENGTH = 5, 60, 6, 20.0
SIGMA, BETA, ETA = 20.0, 0.1, 0.05
NAIVE, EXACT = "CompressedSGD", ("EF21", "EF21-SGDM", "EControl")
METHODS = {
    NAIVE: jd.CompressedSGD(0.1, TopK(K)),
    "EF14": jd.EF14(0.1, TopK(K)),
    "EF21": jd.EF21(0.1, TopK(K)),
    "EF21-SGDM": jd.EF21SGDM(0.1, TopK(K), beta=BETA),
    "EControl": jd.EControl(0.1, TopK(K), eta=ETA),
}
NOISY = {name: method for name, method in METHODS.items() if name != NAIVE}
PARALLEL = {"SGD": jd.CompressedSGD(0.1, Identity()), **NOISY}
GAMMAS = (0.5, 0.2, 0.04, 0.02, 0.01)  # γL
KEPT = (3, 6, 12)  # coordinates, of the diagram
FEEDBACK = tuple((0.0125 * 2.0 ** np.arange(7)).tolist())  # η
PACES = (0.025, 0.05, 0.1, 0.2, 0.4)  # γL, of the diagram
SCALES = {
    "quick": {"gammas": (0.2, 0.04, 0.02), "steps": 6000, "noisy": 3000, "seeds": 1,
              "clients": (1, 16), "kept": (6,), "tried": 1000},
    "default": {"gammas": GAMMAS, "steps": 16_000, "noisy": 6000, "seeds": 4,
                "clients": (1, 4, 16, 64), "kept": KEPT, "tried": 2000},
}  # fmt: skip
SCALES["full"] = SCALES["default"] | {"seeds": 16}
LATER = ("default", "full")


def residual(x: jax.Array, own: Any, _: Any) -> jax.Array:
    """Return a client's gradient of |a x − b|² / 2, a number or one a coordinate."""
    a, b = own
    return a * (a * x - b)


def least_squares(a: Any, b: Any) -> tuple[Any, np.ndarray]:
    """Return the problem of clients' aᵢ [n, 1 or d] and bᵢ [n, d], and its solution."""
    problem = jd.problems.Oracle(residual, (a, b), jnp.zeros(b.shape[1]))
    return problem, np.sum(a * b, axis=0) / np.sum(a**2, axis=0)


def uneven(seed: int) -> tuple[Any, np.ndarray]:
    """Return clients who disagree, and the solution."""
    i = np.arange(1, CLIENTS + 1)[:, None]
    b = np.random.default_rng(seed).normal(size=(CLIENTS, D)) * LENGTH / i
    return least_squares(i / np.sqrt(CLIENTS), b)


def error(state: Any, _: Any, goal: Any, unit: float) -> jax.Array:
    """Return the server's |x − x*|² in some unit."""
    return jnp.sum((state.server - goal) ** 2) / unit


def compared(methods: Any, problem: Any, goal: Any, unit: float, **options: Any) -> Any:
    """Return the comparison of methods by their servers' errors."""
    metrics = {"error": partial(error, goal=jnp.asarray(goal), unit=unit)}
    options |= {"problem": problem, "networks": Server(problem.n), "metrics": metrics}
    return comparisons(methods, ["error", "bits_up", "diverged"], **options)


def plateaus(world: Any, _: Any) -> Any:
    """Return runs without noise: γL."""
    problem, goal = uneven(world.seed)
    paces = {"stepsize": np.asarray(world.gammas) / CLIENTS}
    steps = {"steps": world.steps, "every": world.steps // 400, "seeds": [world.seed]}
    return compared(METHODS, problem, goal, float(goal @ goal), over=paces, **steps)


def by_pace(dataset: xr.Dataset, *_: Any) -> xr.Dataset:
    """Name stepsizes by γL."""
    gammas = np.round(dataset.stepsize.values * CLIENTS, 6)
    return dataset.rename(stepsize="gamma").assign_coords(gamma=gammas).isel(seed=0, drop=True)


def noise(world: Any, _: Any) -> Any:
    """Return noisy runs at γL = 0.02: seed."""
    problem, goal = uneven(world.seed)
    noisy = jd.problems.GaussianNoise(problem, SIGMA)
    slow = {name: jd.replace(method, stepsize=0.02 / CLIENTS) for name, method in NOISY.items()}
    steps = {"steps": world.noisy, "every": world.noisy // 300}
    seeds = range(world.seed, world.seed + world.seeds)
    return compared(slow, noisy, goal, float(goal @ goal), seeds=seeds, **steps)


def ending(
    method: Any, problem: Any, goal: jax.Array, key: jax.Array, steps: int
) -> dict[str, jax.Array]:
    """Return the mean error of the last third of a run from the solution."""
    options = {"steps": steps, "every": steps // 300, "defaults": ()}
    options |= {"metrics": {"error": partial(error, goal=goal, unit=1.0)}}
    x0 = jnp.broadcast_to(goal, (problem.n, D))
    history = jd.run(method, problem, Server(problem.n), x0, key, **options).history
    return {"error": history["error"][-100:].mean()}


def clients(world: Any, _: Any) -> Any:
    """Return noisy runs of different numbers of clients, γ = 0.005: method, n; seed."""
    seeds, found = range(world.seed, world.seed + world.seeds), {}
    for n in world.clients:
        a = np.broadcast_to(np.sqrt(np.linspace(0.2, 1, D)), (n, D))
        minima = np.random.default_rng(world.seed).normal(size=(n, D))
        problem, goal = least_squares(a, a * minima)
        shared = {"problem": jd.problems.GaussianNoise(problem, 1.0), "goal": jnp.asarray(goal)}
        shared |= {"key": keys(seeds), "steps": world.noisy}
        for name, method in PARALLEL.items():
            given = shared | {"method": jd.replace(method, stepsize=0.005)}
            found[name, n] = Program(given, {"key": Axis("seed", seeds)}, ending)
    return found


def tried(eta: jax.Array, gamma: jax.Array, problem: Any, goal: Any, k: int, steps: int) -> Any:
    """Return EControl's error after some steps, at most 1e6, without noise."""
    method = jd.EControl(gamma / CLIENTS, TopK(k), eta)
    x0, network, key = problem.start(), Server(CLIENTS), jax.random.key(0)
    options = {"steps": steps, "every": steps, "defaults": ()}
    server = jd.run(method, problem, network, x0, key, **options).state.server
    off = jnp.sum((server - goal) ** 2) / jnp.sum(goal**2)
    return {"error": jnp.where(off < 1e6, off, 1e6)}


def diagram(world: Any, _: Any) -> Any:
    """Return EControl's errors: δ; η, γL."""
    problem, goal = uneven(world.seed)
    axes = {"eta": Axis("eta", FEEDBACK), "gamma": Axis("gamma", PACES)}
    shared = {"eta": jnp.asarray(FEEDBACK), "gamma": jnp.asarray(PACES), "problem": problem}
    shared |= {"goal": jnp.asarray(goal), "steps": world.tried}
    return {k / D: Program(shared | {"k": k}, axes, tried) for k in world.kept}


def last(results: Results) -> xr.DataArray:
    """Return the last errors without noise."""
    return results["plateaus"].error.isel(step=-1, drop=True)


def levels(results: Results, name: str) -> xr.DataArray:
    """Return a method's plateaus without noise, means of the last tenth of a run."""
    return tail(results["plateaus"].error.sel(algorithm=name, drop=True))


def of_loop(measured: xr.DataArray, dim: str, known: dict[Any, float]) -> xr.DataArray:
    """Return measured values over those of the loop, of members that are there."""
    there = [each for each in measured[dim].values.tolist() if each in known]
    return measured.sel({dim: there}) / xr.DataArray([known[at] for at in there], dims=dim)


def floors(results: Results) -> xr.DataArray:
    """Return the errors with noise, means of the last third of a run and over seeds."""
    return tail(results["noise"].error, 1 / 3).mean("seed")


def crowded(results: Results) -> xr.DataArray:
    """Return the errors of one and of 64 clients over the loop's."""
    return results["clients"].error.mean("seed") / CROWD


def speedup(results: Results) -> xr.DataArray:
    """Return exponents of the errors over n."""
    return exponent(results["clients"].n, results["clients"].error.mean("seed"), "n")


def stable(results: Results) -> xr.DataArray:
    """Return where EControl has come closer than its start."""
    return results["diagram"].error < 0.1


def share(results: Results, times: float, gammas: Any) -> xr.DataArray:
    """Return the share of stable runs with δ = 0.1 and η = times δ."""
    here = stable(results).sel(delta=0.1, gamma=list(gammas), drop=True)
    return here.sel(eta=0.1 * times, method="nearest", drop=True).mean("gamma")


def largest(results: Results) -> xr.DataArray:
    """Return the largest η up to which EControl is stable: δ, γL."""
    steady = stable(results).cumprod("eta").astype(bool)
    return steady.eta.where(steady).max("eta")


FLOORS = {"EF14": 5.3e-4, "EF21": 2.25e-3, "EF21-SGDM": 3.0e-4, "EControl": 5.4e-4}
CROWD = xr.DataArray(
    [[5.0e-3, 8.1e-5], [5.0e-3, 1.2e-4], [4.4e-2, 6.3e-4], [6.7e-3, 1.1e-4]],
    {"algorithm": ["SGD", "EF14", "EF21", "EControl"], "n": [1, 64]},
    ("algorithm", "n"),
)
CLAIMS = claims(
    ("without feedback it stalls whatever the stepsize: error over the loop's at two", LOOP,
     "0.380 at gamma L = 0.5, 0.398 at 0.02",
     lambda r: of_loop(levels(r, NAIVE), "gamma", {0.5: 0.380, 0.02: 0.398}),
     within_factor(1, 1.02)),
    ("EF14's plateau over the loop's at three stepsizes", LOOP,
     "9.6e-4, 2.4e-4, 6.0e-5 at gamma L = 0.04, 0.02, 0.01",
     lambda r: of_loop(levels(r, "EF14"), "gamma", {0.04: 9.6e-4, 0.02: 2.4e-4, 0.01: 6.0e-5}),
     within_factor(1, 1.05)),
    ("it is proportional to gamma^2: exponent", "derived", "2",
     lambda r: exponent(levels(r, "EF14").gamma, levels(r, "EF14").where(lambda e: e.gamma < 0.1),
                        "gamma"), near(2, 0.1)),
    ("with a memory at the server they are exact: error at gamma L = 0.2",
     f"2106.05203, 2305.15155, {ECONTROL}", "4e-31 (EF21), 7e-31 (EControl), the loop's",
     lambda r: last(r).sel(algorithm=list(EXACT), gamma=0.2, drop=True), below(1e-28)),
    ("with noise: floors over the loop's", LOOP, "5.3e-4, 2.25e-3, 3.0e-4, 5.4e-4",
     lambda r: of_loop(floors(r), "algorithm", FLOORS), within_factor(1, 1.15), LATER),
    ("EF21's is the highest: times EControl's", f"{ECONTROL}, as summarized", "> 1",
     lambda r: over(floors(r), "EF21", "EControl"), above(2)),
    ("EControl's is about EF14's: ratio", f"{ECONTROL}, as summarized", "about 1",
     lambda r: over(floors(r), "EControl", "EF14"), within_factor(1, 1.3)),
    ("EControl's error falls as 1 / n: exponent", f"{ECONTROL}, abstract: linear speedup", "-1",
     lambda r: speedup(r).sel(algorithm="EControl", drop=True), near(-1, 0.1)),
    ("and about so does that of the others: exponent", LOOP, "-1", speedup, near(-1, 0.25)),
    ("errors over the loop's, one client and 64", LOOP, "5.0e-3 to 8.1e-5 (SGD) and others",
     crowded, within_factor(1, 1.25), LATER),
    ("EControl is stable for eta <= delta up to gamma L = 0.4: share of runs", LOOP, "1",
     lambda r: share(r, 1, PACES), above(1)),
    ("for 2 delta up to gamma L = 0.1", LOOP, "1", lambda r: share(r, 2, PACES[:3]), above(1)),
    ("and not from 0.2", LOOP, "0", lambda r: share(r, 2, PACES[3:]), below(0)),
    ("for 4 delta nowhere", LOOP, "0", lambda r: share(r, 4, PACES), below(0)),
    ("eta has to be of the order of delta: the largest stable one's exponent, gamma L <= 0.05",
     f"{ECONTROL}, from memory", "1",
     lambda r: exponent(r["diagram"].delta, largest(r).sel(gamma=list(PACES[:2])), "delta"),
     near(1, 0.35), LATER),
)  # fmt: skip

ERROR = r"error  $|x - x^\star|^2 / |x^\star|^2$"
LAW = r"$\eta = \delta$"


def law(ax: Any, _: Any) -> None:
    """Draw η = δ = 0.1 between the rows of the diagram."""
    ax.axhline(FEEDBACK.index(0.1) + 0.5, color="black", linewidth=1, label=LAW)


PANELS = [
    [
        Lines(data=lambda r: r["plateaus"].sel(gamma=0.2), y="error", x="step", floor=1e-32,
              xlabel="rounds", ylabel=ERROR, title=r"no noise, $\gamma L = 0.2$",
              xlim=(0, 1600)),
        LogLog(data=lambda r: tail(r["plateaus"].error).sel(algorithm=[NAIVE, "EF14"])
               .where(lambda e: e.gamma < 0.3), x="gamma", xlabel=r"$\gamma L$", ylabel=ERROR,
               title="plateaus", also=[beside("EF14", 2, r"$\propto \gamma^2$")]),
        Lines(data="noise", y="error", x="step", xlabel="rounds", ylabel=ERROR,
              title=r"noise, $\gamma L = 0.02$"),
    ],
    [
        LogLog(data=lambda r: r["clients"].error, x="n", xlabel="clients $n$",
               ylabel=r"error  $|x - x^\star|^2$", title="speedup",
               also=[slope(-1, r"$\propto 1 / n$")]),
        Heat(data=lambda r: r["diagram"].error.sel(delta=0.1), x="gamma", y="eta", form="",
             limits=(1e-12, 1.0), xlabel=r"$\gamma L$", ylabel=r"$\eta$", cmap="Blues_r",
             title=r"EControl, $\delta = 0.1$", also=[law]),
        LogLog(data=lambda r: largest(r).rename("eta"), x="delta", by="gamma", xlabel=r"$\delta$",
               ylabel=r"largest stable $\eta$", dodge=1.03, title=r"$\eta = \Theta(\delta)$",
               also=[slope(1, r"$\propto \delta$")], legend="panel",
               labels={str(pace): rf"$\gamma L = {pace}$" for pace in PACES}),
    ],
]  # fmt: skip


def ends(results: Results) -> xr.Dataset:
    """Return the plateaus of all methods and stepsizes."""
    return tail(results["plateaus"].error).to_dataset("gamma")


STUDY = Study(
    name="error_feedback",
    paper=f"Gao, Islamov, Stich (2023), EControl, arXiv {ECONTROL}",
    question="What do memories of what was not sent repair, and how strong may the feedback be?",
    scales=SCALES,
    world=lambda sizes, seed: SimpleNamespace(seed=seed, **sizes),
    parts={
        "plateaus": Part("algorithm", plateaus, by_pace),
        "noise": Part("algorithm", noise),
        "clients": Part(("algorithm", "n"), clients),
        "diagram": Part("delta", diagram),
    },
    claims=CLAIMS,
    figures={"error_feedback": Figure(PANELS, height=2.6)},
    tables={
        "plateaus": ("errors without noise, the last tenth of a run", ends),
        "clients": ("errors with noise", lambda r: r["clients"].mean("seed")),
        "diagram": ("largest stable eta", lambda r: largest(r).to_dataset("gamma")),
    },
    minutes={"quick": 0.5, "default": 3, "full": 8},
    data=lambda _: f"least squares of {CLIENTS} clients in {D} dimensions",
)
