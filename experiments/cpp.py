"""CPP and B-CPP: Push-Pull with compressed messages on digraphs (arXiv 2106.07243).

Random unbalanced digraphs; two problems on real data: logistic regression on breast_cancer, sorted
by label over ten agents, and ridge regression on diabetes, sorted by its target over eight. Does
CPP converge linearly and in as many iterations as Push-Pull, at one small λ for all and each at its
own best λ of one grid; how many bits does that save; does B-CPP, where one agent at a time
broadcasts, save more; and what happens without references (α = 0)? Errors are (1/n) Σᵢ |xᵢ − x*|²
in float64, an iteration of B-CPP is n of its ticks, γ and α are the library's defaults, and numbers
are counted with 32 bits.

The listings are reconstructed. CPP's two forms, "atc" (Push-Pull) and "cta" (AB), are both run.
B-CPP may in the paper step along its tracker before it sends a part of it away; here it steps
after, so that a λ counts for less than in CPP and only their own best λ compare the two fairly
(`StepFirst` is the other order). Two more runs ask what costs CPP iterations at 2 bits: the noise,
or the default γ, which is below 1 to be safe. The paper's own experiments are not known to us.
"""

import functools
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

import jaxdopt as jd
from experiments.claims import above, below, claims, near
from experiments.digraphs import networks
from experiments.measures import attained, over, quickest
from experiments.panels import Figure, Lines, LogLog, level
from experiments.study import Axis, Part, Program, Results, Study, comparison, derived
from jaxdopt import compressors
from jaxdopt.algorithms.compressed import messages

PAPER = "arXiv 2106.07243"
L2 = 0.1
TARGET = 1e-8  # of the agents' mean squared error
COMMON = 0.5  # λ L at which all methods are also compared: small enough for all to be alike
GRID = tuple(COMMON * 2.0 ** (j / 2) for j in range(11))  # λ L
DECADES = (1e-4, 1e-8, 1e-12)
"""Errors relative to the start, the slowest mode alone left: `paces` compares their two spans."""
EVEN = 1.5  # pace up to which convergence counts as linear; 1/k² would have a pace of 100
PROBLEMS = ("logistic", "ridge")
RANDOM = {"logistic": 10, "ridge": 5}  # k of random-k: a third, or half, of the coordinates
TRIAL = {"CPP, 4 bits": 146 / 650, "CPP, 2 bits": 105 / 650}
"""The share of Push-Pull's bits to 1e-8 in an earlier NumPy loop of ours: least squares, n = 8,
d = 10 as in ridge, λ = 0.02 / L."""
WHOLE, TWO, BROADCAST = "Push-Pull, 32 bits", "CPP, 2 bits", "B-CPP, 2 bits"
CTA, STALLED, FIRST = "CPP cta, 2 bits", "CPP, 2 bits, no references", "B-CPP step first, 2 bits"
GAMMA, LOUD = "CPP with the gamma of 2 bits, 32 bits", "CPP with gamma 1, 2 bits"
SCALES = {
    "quick": dict(names=["ridge"], grid=GRID[:6:2], iterations=900, seeds=1,
                  titles=[WHOLE, TWO, CTA, BROADCAST, STALLED]),
    "default": dict(names=PROBLEMS, grid=GRID, iterations=1500, seeds=3, titles=None),
    "full": dict(names=PROBLEMS, grid=GRID, iterations=1500, seeds=10, titles=None),
}  # fmt: skip


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
        options: dict[str, Any] = {"agents": 10, "l2": L2, "partition": "by_label"}
        return jd.problems.logistic_regression(*jd.data.breast_cancer(), **options)
    features, labels = jd.data.diabetes()
    parts = np.array_split(np.argsort(labels, kind="stable"), 8)
    features = features / features.std(axis=0)
    return jd.problems.least_squares(features, labels, agents=8, l2=L2, partition=parts)


def methods(name: str) -> dict[str, Any]:
    """Return the methods by family and compressor, "CPP, 2 bits"; Push-Pull comes first."""
    x0 = problem(name).start()
    whole, two = compressors.Identity(), compressors.Dither(bits=2)
    kinds = {"32 bits": whole, "4 bits": compressors.Dither(bits=4), "2 bits": two}
    made: dict[str, Any] = {WHOLE: jd.PushPull(0.1)}
    for title, kind in (kinds | {"random-k": compressors.RandomK(RANDOM[name])}).items():
        method = jd.CPP(0.1, kind)
        alpha = messages.memory(method, x0)
        made[f"CPP, {title}"] = jd.replace(method, alpha=alpha)  # one program with α = 0
        made[f"CPP cta, {title}"] = jd.replace(method, form="cta")
        made[f"B-CPP, {title}"] = jd.BCPP(0.1, kind)
        if title == "2 bits":
            made[STALLED] = jd.replace(method, alpha=0.0)
    gamma, alpha = (float(find(made[TWO], x0)) for find in (messages.tracking, messages.memory))
    made[GAMMA] = jd.CPP(0.1, whole, consensus_stepsize=gamma, alpha=alpha)
    made[LOUD] = jd.CPP(0.1, two, consensus_stepsize=1.0, alpha=alpha)
    return made | {FIRST: StepFirst(0.1, two)}


def histories(world: Any, _: Any) -> dict[tuple[str, str], Program]:
    """Return errors and costs for each problem and method: over λ L, seeds and iterations."""
    made = {name: methods(name) for name in world.names}
    titles = world.titles or made[world.names[0]]
    return {(name, at): history(world, name, made[name][at]) for name in made for at in titles}


def history(world: Any, name: str, method: Any) -> Program:
    """Return a method's errors and costs."""
    made = problem(name)
    ticks = made.n if isinstance(method, jd.BCPP) else 1  # of one iteration

    def reduce(dataset: xr.Dataset) -> xr.Dataset:
        error = dataset.distance_squared + dataset.consensus_error
        return dataset.assign(error=error).assign_coords(step=dataset.step // ticks)

    return comparison(
        method,
        ("error", "gap", "rounds", "bits", "traffic", "diverged"),
        axes={"stepsize": Axis("scaled", world.grid)},
        reduce=reduce,
        problem=made,
        networks=networks(made.n, 1, world.seed)["digraph 1"],
        over={"stepsize": jnp.asarray(world.grid) / float(made.smoothness)},
        seeds=range(world.seed, world.seed + world.seeds),
        steps=ticks * world.iterations,
        every=ticks * 5,
    )


def counts(dataset: xr.Dataset, x: str = "step") -> xr.DataArray:
    """Return the ``x`` to `TARGET`, in the mean over seeds; NaN unless all stay there."""
    return attained(dataset, "error", TARGET, x).mean("seed", skipna=False)


def ratio(part: str, one: Any, other: str, x: str) -> Callable[[Results], xr.DataArray]:
    """Return the measure of what one method takes over what another one does, by problem."""
    return lambda results: over(counts(results[part], x), one, other)


def paces(best: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    """Return the iterations of the last span of `DECADES` over the first, and the factor of both.

    1 is linear convergence, more slows down. The factor is that by which the median over seeds
    falls in an iteration.
    """
    falls = best.error / best.error.isel(step=0, drop=True)
    falls = falls.median("seed").to_dataset(name="error")
    first, middle, last = (jd.reach(falls, "error", value) for value in DECADES)
    factor = (DECADES[2] / DECADES[0]) ** (1 / (last - first))
    return (last - middle) / (middle - first), factor


def linear(family: str, results: Results) -> xr.DataArray:
    """Return the paces of a family, at the best λ."""
    pace = paces(results["best"])[0]
    names = [str(name) for name in pace.algorithm.values if name != STALLED]
    return pace.sel(algorithm=[name for name in names if name.startswith(family)])


def trial(results: Results) -> xr.DataArray:
    """Return the share of Push-Pull's bits on ridge at the common λ, over `TRIAL`'s."""
    share = ratio("common", list(TRIAL), WHOLE, "bits")(results).sel(problem="ridge")
    return share / [TRIAL[str(name)] for name in share.algorithm.values]


def stalled(results: Results) -> xr.DataArray:
    """Return the last error without references."""
    return results["best"].error.isel(step=-1, drop=True).sel(algorithm=STALLED).mean("seed")


ABSTRACT, RECALLED = f"{PAPER}, abstract", f"{PAPER}, its figures as we recall them"
FEW, MANY, OTHER = ["CPP, 4 bits", TWO], ("default", "full"), "the other order"
REFERENCES, FORMS = "derived: why it has references", "derived: to first order in λ they are one"
CLAIMS = claims(
    ("CPP converges linearly, all compressors and forms: pace", ABSTRACT, "1",
     partial(linear, "CPP"), below(EVEN)),
    ("B-CPP converges linearly: pace", ABSTRACT, "1", partial(linear, "B-CPP"), below(EVEN)),
    ("CPP takes Push-Pull's iterations at the common λ: ratio", RECALLED, "1",
     ratio("common", FEW, WHOLE, "step"), below(1.1)),
    ("CPP takes Push-Pull's iterations at its own best λ: ratio", RECALLED, "1",
     ratio("best", FEW, WHOLE, "step"), below(1.25)),
    ("2 bits with γ = 1 take Push-Pull's iterations at their best λ: ratio", "derived", "1",
     ratio("best", LOUD, WHOLE, "step"), near(1, 0.25), MANY),
    ("32 bits with the γ of 2 bits take the iterations of 2 bits: ratio", "derived", "1",
     ratio("best", GAMMA, TWO, "step"), near(1, 0.25), MANY),
    ("Push-Pull's bits over those of CPP, 2 bits, at the common λ", ABSTRACT, "> 1",
     ratio("common", WHOLE, TWO, "bits"), above(1)),
    ("Push-Pull's bits over those of CPP, 2 bits, at their own best λ", ABSTRACT, "> 1",
     ratio("best", WHOLE, TWO, "bits"), above(1)),
    ("CPP's bits over those of B-CPP, 2 bits each, at the common λ", ABSTRACT, "> 1",
     ratio("common", TWO, BROADCAST, "bits"), above(1)),
    ("CPP's bits over those of B-CPP, 2 bits each, at their own best λ", ABSTRACT, "> 1",
     ratio("best", TWO, BROADCAST, "bits"), above(1)),
    ("CPP's bits over those of B-CPP that steps first, at the common λ", OTHER, "> 1",
     ratio("common", TWO, FIRST, "bits"), above(1), MANY),
    ("CPP's bits over those of B-CPP that steps first, at their own best λ", OTHER, "> 1",
     ratio("best", TWO, FIRST, "bits"), above(1), MANY),
    ("the forms cta and atc take the same iterations at the common λ: ratio", FORMS, "1",
     ratio("common", CTA, TWO, "step"), near(1, 0.1)),
    ("without references CPP stalls: error", REFERENCES, "> 0", stalled, above(TARGET)),
    ("CPP's share of Push-Pull's bits on ridge is that of an earlier NumPy loop: ratio",
     "measured: 0.225 and 0.162 for 4 and 2 bits", "1", trial, near(1, 0.05)),
)  # fmt: skip
ERROR = r"$\frac{1}{n}\sum_i |x_i - x^\star|^2$"


def panels(name: str) -> list[Any]:
    """Return the panels of a problem: errors over iterations and bits, iterations over λ."""
    shown = [WHOLE, TWO, CTA, STALLED, "CPP, random-k", BROADCAST]
    at: Any = {"at": {"problem": name, "algorithm": shown}}
    curves = at | {"data": lambda r: r["best"].sel(step=slice(None, 800)), "y": "error"}
    curves |= {"ylim": (1e-13, 10), "also": [level(TARGET)]}
    return [
        Lines(x="step", xlabel="iterations", ylabel=ERROR, title=f"{name}, best λ each", **curves),
        Lines(x="bits", logx=True, ylabel="", xlim=(1e3, None), title=name, **curves),
        LogLog(data=lambda r: counts(r["runs"]), x="scaled", xlabel=r"$\lambda L$",
               ylabel=f"iterations to {TARGET:g}", title=name, **at),
    ]  # fmt: skip


def summary(results: Results) -> xr.Dataset:
    """Return iterations and bits to `TARGET` of every method at the common and at its own λ."""
    at, best = results["common"], results["best"]
    pace, factor = paces(best)
    columns = {
        f"iterations, λL = {COMMON:g}": counts(at),
        "kbit a link": counts(at, "bits") / 1e3,
        "best λL": best.scaled,
        "iterations": counts(best),
        "kbit a link ": counts(best, "bits") / 1e3,
        "Mbit in all": counts(best, "traffic") / 1e6,
        "factor": factor,
        "pace": pace,
        "last error": best.error.isel(step=-1, drop=True).mean("seed"),
    }
    return xr.Dataset(columns).drop_vars("scaled")


def data(world: Any) -> str:
    """Return what the problems' data are."""
    text = "{}: {} samples of {} features over {} agents"
    made = [(name, problem(name)) for name in world.names]
    return "; ".join(text.format(name, int(np.sum(p.sizes)), p.d, p.n) for name, p in made)


STUDY = Study(
    name="cpp",
    paper="Song, Shi, Pu and Yan (2022), CPP and B-CPP, arXiv 2106.07243",
    question="Is compressed Push-Pull linear in as many iterations, and what bits does it save?",
    scales=SCALES,
    parts={
        "runs": Part(("problem", "algorithm"), histories),
        "common": derived(lambda done: done["runs"].sel(scaled=COMMON, drop=True)),
        "best": derived(lambda done: quickest(done["runs"], "error", TARGET, "scaled")),
    },
    claims=CLAIMS,
    figures={"cpp": Figure([panels(name) for name in PROBLEMS], height=2.3)},
    tables={"methods": (f"iterations and bits to an error of {TARGET:g}", summary)},
    minutes={"quick": 0.3, "default": 4, "full": 10},
    data=data,
)
