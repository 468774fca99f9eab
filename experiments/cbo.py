"""Consensus-based optimization of Rastrigin's function (arXiv 2306.09778), on all and on few links.

Particles ask for values, f(x) = Σₖ xₖ² + 10 (1 − cos 2π xₖ), and drift to the mean that is weighed
by e^{−α f}: Δt = 0.02, λ = σ = 1, α = 50, anisotropic noise, 400 steps from N(2, 2²) unless said
otherwise. A run succeeds if its consensus point ends within 0.25 of the global minimum, 0; the next
minimum is 1 away. Three questions:

* *success*: how often, for how many particles, in which dimension and from which start? Gradient
  descent, from the same starts, ends in the minimum in whose basin it begins.
* *graphs*: does it need the mean of all, as in the paper? On a graph a particle hears its
  neighbors alone, and the consensus point is the mean of the particles' own.
* *path*: where do consensus points go on their way?

The settings are those of an independent simulation in NumPy, whose numbers are beside ours; the
paper's own figures have others. Those numbers are shares of 30 to 60 runs, ours of 100, and agree
up to two standard errors of both.
"""

from collections import namedtuple
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

import jaxdopt as jd
from experiments.claims import above, below, claims, near
from experiments.panels import Figure, Lines, LogLog, level, present
from experiments.study import Axis, Part, Program, Results, Study, keys

METHOD = jd.CBO(0.02)
STEPS, CLOSE, START = 400, 0.25, 0x5747
LIPSCHITZ = 2 + 40 * np.pi**2
CASES = {  # d, and the mean and the standard deviation of every coordinate of the starts
    "d = 2": (2, 2.0, 2.0),
    "d = 4": (4, 2.0, 2.0),
    "d = 2, from N(3, 1)": (2, 3.0, 1.0),
}
GRAPHS = {
    "complete": jd.graphs.complete,
    "exponential": jd.graphs.exponential,
    "grid": lambda n: jd.graphs.grid(10, n // 10),
    "ring": jd.graphs.ring,
}
# Numbers of particles by case; runs; particles and steps on graphs; runs there; runs of descent.
Sizes: Any = namedtuple("Sizes", "cases runs graphs few descents")
ALL = {"d = 2": (25, 50, 100, 200, 400), "d = 4": (50, 100, 200, 400, 800),
       "d = 2, from N(3, 1)": (50, 100, 200, 400)}  # fmt: skip
SCALES = {
    "quick": Sizes({"d = 2": (25, 200)}, 20, (100, 400), 10, 200),
    "default": Sizes(ALL, 100, (200, 3000), 40, 2000),
    "full": Sizes(ALL, 1000, (200, 10_000), 200, 20_000),
}


def rastrigin(x: jax.Array, *_: Any) -> jax.Array:
    """Return f at one point [d]."""
    return jnp.sum(x**2 + 10 * (1 - jnp.cos(2 * jnp.pi * x)))


def begun(key: jax.Array, n: int, case: str) -> jax.Array:
    """Return a run's starts [n, d]."""
    d, mean, deviation = CASES[case]
    return mean + deviation * jax.random.normal(jax.random.fold_in(key, START), (n, d))


def error(state: Any, _: Any) -> jax.Array:
    """Return the consensus point's distance from the minimum."""
    return jnp.linalg.norm(jd.metrics.estimate(state))


def spread(state: Any, _: Any) -> jax.Array:
    """Return the particles' root mean square distance from their mean."""
    return jnp.sqrt(jnp.sum(jnp.var(state.x, axis=0)))


def swarm(key: jax.Array, network: Any, case: str, steps: int, every: int) -> Any:
    """Return a run of CBO."""
    n, d = network.n, CASES[case][0]
    box = jd.problems.BlackBox(rastrigin, None, jnp.zeros(d), agents=n)
    measured = {"error": error, "spread": spread}
    return jd.run(METHOD, box, network, begun(key, n, case), key, steps=steps, every=every,
                  metrics=measured, defaults=())  # fmt: skip


def descent(key: jax.Array) -> dict[str, jax.Array]:
    """Return where gradient descent ends, as |x|."""
    problem = jd.problems.Oracle(jax.grad(rastrigin), None, jnp.zeros(2), agents=1)
    x0 = begun(key, 1, "d = 2")
    result = jd.run(jd.GradientDescent(1 / LIPSCHITZ), problem, jd.networks.Complete(1), x0, key,
                    steps=STEPS, every=STEPS, metrics={"error": error}, defaults=())  # fmt: skip
    return {"error": result.metrics["error"][-1]}


def path(key: jax.Array, n: int) -> dict[str, jax.Array]:
    """Return the consensus points of a run, [step, 2]."""
    box = jd.problems.BlackBox(rastrigin, None, jnp.zeros(2), agents=n)
    points = {"v": lambda state, _: state.estimate}
    result = jd.run(METHOD, box, jd.networks.Complete(n), begun(key, n, "d = 2"), key, steps=STEPS,
                    every=4, metrics=points, defaults=())  # fmt: skip
    return {"v": result.metrics["v"]}


def runs(seed: int, count: int) -> tuple[Any, dict[str, Axis]]:
    """Return the keys of runs, and what is swept."""
    members = range(seed, seed + count)
    return keys(members), {"key": Axis("seed", members)}


def successes(world: Any, _: Any) -> dict[Any, Program]:
    """Return a sweep over runs for every case and number of particles."""
    key, over = runs(world.seed, world.runs)
    return {
        (case, n): Program({"key": key, "network": jd.networks.Complete(n), "case": case,
                            "steps": STEPS, "every": STEPS}, over, swarm)
        for case, numbers in world.cases.items()
        for n in numbers
    }  # fmt: skip


def on_graphs(world: Any, _: Any) -> dict[str, Program]:
    """Return a sweep over runs for every graph."""
    (n, steps), (key, over) = world.graphs, runs(world.seed, world.few)
    networks = {
        name: jd.networks.Complete(n) if name == "complete" else jd.networks.metropolis(graph(n))
        for name, graph in GRAPHS.items()
    }
    given = {"key": key, "case": "d = 2", "steps": steps, "every": steps // 40}
    return {
        name: Program(given | {"network": network}, over, swarm)
        for name, network in networks.items()
    }


def descents(world: Any, _: Any) -> dict[str, Program]:
    """Return the sweep of gradient descent."""
    key, over = runs(world.seed, world.descents)
    return {"": Program({"key": key}, over, descent)}


def paths(world: Any, _: Any) -> dict[str, Program]:
    """Return the paths of a few runs."""
    key, over = runs(world.seed, 4)
    return {"": Program({"key": key, "n": 200}, over, path)}


def ended(dataset: xr.Dataset, *_: Any) -> xr.Dataset:
    """Return whether runs succeeded, 0 or 1; NaN where a number was not run."""
    last = dataset.isel(step=-1)
    return last.assign(success=(last.error < CLOSE).where(last.error.notnull()).astype(float))


def shares(dataset: xr.Dataset, *_: Any) -> xr.Dataset:
    """Return shares of runs that are at the minimum, and particles' spreads, step by step."""
    spreads = np.exp(np.log(dataset.spread.clip(1e-12)).median("seed"))
    share = (dataset.error < CLOSE).mean("seed")
    return dataset[["queries"]].isel(seed=0, drop=True).assign(success=share, spread=spreads)


def share(case: str, n: int) -> Any:
    """Return the measure of a case's share of successful runs with n particles."""

    def measure(results: Results) -> xr.DataArray:
        found = results["success"].success
        at = {"case": present(found, "case", case), "particles": present(found, "particles", n)}
        return found.sel(at, drop=True).mean("seed")

    return measure


def first(results: Results) -> xr.DataArray:
    """Return the steps after which nine of ten runs are at the minimum, NaN if never."""
    done = results["graphs"].success
    return done.step.where(done >= 0.9).min("step")


PAPER, NUMBERS = "arXiv 2306.09778", "an independent simulation in NumPy"
OURS = "derived: information takes a diameter of steps"
LATER = ("default", "full")
CLAIMS = claims(
    ("200 particles find the global minimum in d = 2: share of runs", PAPER, "9 of 10",
     share("d = 2", 200), above(0.9)),
    ("gradient descent from the same starts does not", NUMBERS, "0.01",
     lambda r: (r["descent"].error < CLOSE).mean("seed"), below(0.05)),
    ("50 particles in d = 2", NUMBERS, "0.75", share("d = 2", 50), near(0.75, 0.16), LATER),
    ("100 particles in d = 2", NUMBERS, "0.98", share("d = 2", 100), near(0.98, 0.06), LATER),
    ("hardly one from N(3, 1), with 200 particles", NUMBERS, "0",
     share("d = 2, from N(3, 1)", 200), below(0.05), LATER),
    ("100 particles in d = 4", NUMBERS, "0.07", share("d = 4", 100), near(0.07, 0.1), LATER),
    ("400 particles in d = 4", NUMBERS, "0.57", share("d = 4", 400), near(0.57, 0.2), LATER),
    ("on the exponential graph they find it, too: share of runs", OURS, "as on all",
     lambda r: r["graphs"].success.sel(graph="exponential").isel(step=-1), above(0.9)),
    ("but later: steps to 9 runs of 10 over those on all links", OURS, "> 1",
     lambda r: first(r).sel(graph="exponential") / first(r).sel(graph="complete"), above(1), LATER),
    ("on the ring particles are still apart in the end: their spread", OURS, "> 0",
     lambda r: r["graphs"].spread.sel(graph="ring").isel(step=-1), above(1e-2)),
)  # fmt: skip


def landscape(ax: Any, results: Results) -> None:
    """Draw f in the plane, and the paths of consensus points."""
    grid = np.linspace(-4.5, 4.5, 300)
    wave = grid**2 + 10 * (1 - np.cos(2 * np.pi * grid))
    ax.contourf(grid, grid, np.sqrt(wave[:, None] + wave), 18, cmap="Greys", alpha=0.6)
    points = results["path"].v
    styles = jd.plot.styles([str(seed) for seed in points.seed.values])
    for seed, style in zip(points.seed.values, styles.values(), strict=True):
        x, y = points.sel(seed=seed).values.T
        ax.plot(x, y, color=style["color"], linewidth=1)
        ax.plot(x[0], y[0], "o", color=style["color"], markersize=4)
    ax.plot(0, 0, "k*", markersize=7)
    ax.set(xlim=(-1.5, 3), ylim=(-1.5, 3), aspect="equal", title="paths of the consensus point",
           xlabel="$x_1$", ylabel="$x_2$")  # fmt: skip
    ax.grid(False)


SHARE = "share of runs at $x^\\star$"
PANELS = [
    [
        landscape,
        LogLog(data=lambda r: r["success"].success, x="particles", by="case", logy=False,
               title=f"after {STEPS} steps", xlabel="particles", ylabel=SHARE,
               ylim=(-0.03, 1.03),
               also=[level(lambda r: float((r["descent"].error < CLOSE).mean()),
                           "gradient descent")]),
    ],
    [
        Lines(data="graphs", y="success", x="step", logy=False, title="on graphs, d = 2",
              ylabel=SHARE, ylim=(-0.03, 1.03)),
        Lines(data="graphs", y="spread", x="step", title="on graphs, d = 2",
              ylabel="spread of the particles", floor=1e-6),
    ],
]  # fmt: skip
STUDY = Study(
    name="cbo",
    paper=f"Riedl, Klock, Geldhauser, Fornasier (2023), Gradient is All You Need?, {PAPER}",
    question="How many particles find the global minimum among many, and do they need all links?",
    scales=SCALES,
    world=lambda sizes, seed: SimpleNamespace(seed=seed, **sizes._asdict()),
    parts={
        "success": Part(("case", "particles"), successes, ended),
        "graphs": Part("graph", on_graphs, shares),
        "descent": Part(None, descents),
        "path": Part(None, paths),
    },
    claims=CLAIMS,
    figures={"cbo": Figure(PANELS, height=2.5)},
    tables={
        "success": ("share of runs", lambda r: r["success"][["success"]].mean("seed")),
        "graphs": (
            "steps to 9 runs of 10, and the particles' spread in the end",
            lambda r: xr.Dataset(
                {"steps": first(r), "spread": r["graphs"].spread.isel(step=-1, drop=True)}
            ),
        ),
    },
    minutes={"quick": 0.5, "default": 4, "full": 40},
    data=lambda _: "none: Rastrigin's function",
)
