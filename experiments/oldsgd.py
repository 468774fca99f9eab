"""OLDSGD: exchanges that overlap with local steps, in simulated time (arXiv 2601.01493).

Sixteen agents, digits 3 against 8, minibatches of 8; logistic regression, and the same with a
penalty that is not convex. DSGD waits for a message at every gradient, local DSGD at every τ-th;
OLDSGD and OSGP never wait for one that takes less than τ gradients. All at their own best stepsize
of one grid, and in time also at their own best τ of 1, 2, 4 and 8. Does simulated time follow the
paper's formulas? Does overlapping cost gradients over local DSGD? Which method is first at a target
for messages that take 0.1 to 16 gradients' time, and what does a split by label change? Iterates do
not depend on the delay: each run is made once, with the seconds of `jd.networks.timed` a delay.

The paper's claims are known from its abstract and its formulas; its experiments are not known to
us. OSGP sends at every gradient, and so τ times as much as OLDSGD over every link: the table of
seconds has both, that of gradients the bits.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import xarray as xr

import jaxdopt as jd
from experiments.claims import above, below, claims, near
from experiments.measures import over, soonest
from experiments.panels import Lines, LogLog, level, present
from experiments.study import Axis, Part, Program, Results, Study, comparison, derived, joined
from jaxdopt.costs import cost_of

PAPER = "arXiv 2601.01493"
AGENTS, BATCH, L2 = 16, 8, 1e-2
EVERY, STAYS = 16, 8  # gradients a record covers; records in a row that have to be at a target
GRID = tuple(2.0 ** (j / 2) for j in range(-12, 3))  # α L
LOCAL = (1, 2, 4, 8)  # τ
DELAYS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)  # of a message, in gradients' time
WORKED = {0.5: (1125.0, 1000.0), 4.0: (2000.0, 1000.0), 8.0: (3000.0, 2000.0)}
"""By delay, seconds of 1000 gradients with τ = 4 by the formulas: local DSGD, OLDSGD."""
NORM = "gradient_norm_squared"
FORMULAS = {
    "DSGD": lambda _, delay: 1 + delay,
    "LocalDSGD": lambda tau, delay: 1 + delay / tau,
    "OLDSGD": lambda tau, delay: max(1.0, delay / tau),
    "OSGP": lambda tau, delay: max(1.0, delay / tau),  # ours
}
"""The paper's seconds a gradient, for gradients of one second."""
FAMILIES = list(FORMULAS)


@dataclasses.dataclass(frozen=True)
class Case:
    """A problem on a graph, and when it counts as solved."""

    title: str
    graph: Callable[[int], Any]
    partition: str
    metric: str  # what is to be small
    target: float
    calls: int = 2048  # gradients one after the other in a run


CASES = {
    "shuffled": Case("ring, shuffled", jd.graphs.ring, "iid", "gap", 1e-3),
    "precise": Case("ring, shuffled", jd.graphs.ring, "iid", "gap", 2e-4, 6144),
    "sorted": Case("exponential, by label", jd.graphs.exponential, "by_label", "gap", 2e-2),
    "nonconvex": Case("ring, nonconvex", jd.graphs.ring, "iid", NORM, 2e-4, 6144),
}
SCALES = {
    "quick": dict(cases=["shuffled"], local=(4,), grid=GRID[8::2], seeds=1, share=2),
    "default": dict(cases=list(CASES), local=LOCAL, grid=GRID, seeds=3, share=1),
    "full": dict(cases=list(CASES), local=LOCAL, grid=GRID, seeds=10, share=1),
}
"""One in ``share`` of all gradients is taken."""


@functools.cache
def problem(case: Case) -> Any:
    """Return a case's problem, with minibatches."""
    data = jd.data.digits().only(3, 8)
    make: Any = jd.problems.nonconvex_logistic_regression
    options: dict[str, Any] = {"agents": AGENTS, "partition": case.partition}
    if case.metric == "gap":
        make, options["l2"] = jd.problems.logistic_regression, L2
    return jd.problems.Minibatch(make(data.features, data.labels == 8, **options), BATCH)


def network(graph: Callable[[int], Any]) -> Any:
    """Return a graph's Metropolis weights, in one form so that graphs share programs."""
    weights = jd.networks.metropolis(graph(AGENTS)).matrix()
    return jd.networks.mixing(weights, form=jd.networks.Dense)


def methods(local: Sequence[int]) -> dict[tuple[str, int], Any]:
    """Return the methods by family and τ; local DSGD with τ = 1 is DSGD."""
    made: dict[tuple[str, int], Any] = {("DSGD", 1): jd.DSGD(0.1)}
    made |= {("LocalDSGD", tau): jd.LocalDSGD(0.1, tau) for tau in local if tau > 1}
    made |= {("OLDSGD", tau): jd.OLDSGD(0.1, tau) for tau in local}
    return made | {("OSGP", tau): jd.OSGP(0.1, tau) for tau in local}


def histories(name: str, world: Any, _: Any) -> dict[Any, Program]:
    """Return a case's programs: what is to be small, over α L, seeds and gradients taken."""
    case, found = CASES[name], {}
    count, training = case.calls // world.share, problem(case)
    grid, steps = Axis("scaled", world.grid), Axis("step", range(0, count + 1, EVERY))
    for at, method in methods(world.local).items() if name in world.cases else ():
        taken = getattr(method, "local_steps", 1)  # one after the other
        found[at] = comparison(
            method,
            ("value", "bits", "diverged"),
            axes={"stepsize": grid, "step": steps},
            reduce=lambda dataset, metric=case.metric: dataset.rename({metric: "value"}),
            problem=training,
            networks=network(case.graph),
            over={"stepsize": jnp.asarray(world.grid) / float(training.smoothness)},
            seeds=range(world.seed, world.seed + world.seeds),
            steps=count // taken,
            every=EVERY // taken,
        )
    return found


def paces(local: Sequence[int]) -> xr.Dataset:
    """Return simulated seconds a gradient, as `jd.run` counts them, and those by the formulas."""
    small, key, ring = jd.problems.quadratic(AGENTS, 2), jax.random.key(0), network(jd.graphs.ring)
    rows = {}
    for ((family, tau), method), delay in itertools.product(methods(local).items(), DELAYS):
        now = jd.networks.timed(ring, compute=1.0, delay=delay).at(0, key)
        cost = cost_of(method, method.init(small.start(), small, now, key), small, now)
        seconds = float(now.seconds(cost.calls or 1, cost.exchanges, cost.overlap))
        seconds /= getattr(method, "local_steps", 1)
        rows[family, tau, delay] = (seconds, FORMULAS[family](tau, delay))
    table = pd.DataFrame(rows, index=["seconds", "formula"]).T
    return table.rename_axis(["family", "tau", "delay"]).to_xarray()


def at_best(done: Results) -> xr.Dataset:
    """Return ``value`` at all methods' best ``alpha``, ``gradients`` and ``kbit`` to targets."""
    found = {}
    for name in (name for name in CASES if name in done):
        best = soonest(done[name], "value", CASES[name].target, over="scaled", records=STAYS)
        best = best.reset_coords("scaled")
        last = best.isel(step=-1, drop=True)
        gradients = best.arrival.median("seed", skipna=False)
        found[name] = best[["value"]].assign(
            alpha=best.scaled.where(best.value.isel(step=0, seed=0, drop=True).notnull()),
            gradients=gradients,
            kbit=gradients * last.bits.isel(seed=0, drop=True) / int(best.step[-1]) / 1e3,
            last=last.value.median("seed"),
        )
    return joined(found, "case")


def times(done: Results) -> xr.Dataset:
    """Return the seconds to the target over delays, of every family at its ``best`` τ."""
    best = done["best"]
    lasts = best.gradients * done["pace"].seconds
    late = lasts.fillna(1e9 * (1 + best["last"])).fillna(np.inf)  # else the lowest at the end
    return xr.Dataset({"seconds": lasts.min("tau"), "best": late.idxmin("tau")})


def of_case(part: str, case: str, results: Results) -> xr.Dataset:
    """Return a case of a part."""
    return results[part].sel(case=present(results[part], "case", case), drop=True)


def worked(results: Results) -> xr.DataArray:
    """Return the seconds of 1000 gradients with τ = 4 over those of the formulas."""
    places = {"delay": list(WORKED), "family": ["LocalDSGD", "OLDSGD"]}
    pace = results["pace"].seconds.sel(tau=4, drop=True).sel(places)
    return 1000 * pace / xr.DataArray(list(WORKED.values()), places, tuple(places))


def ratio(case: str, results: Results) -> xr.DataArray:
    """Return OLDSGD's gradients to the target over local DSGD's, for every τ where both arrive."""
    counts = of_case("best", case, results).gradients
    return over(counts, "OLDSGD", "LocalDSGD", "family").dropna("tau")


def gain(case: str, results: Results) -> xr.DataArray:
    """Return the seconds of the faster of DSGD and local DSGD over OLDSGD's, over delays."""
    seconds = of_case("times", case, results).seconds
    return over(seconds, ["DSGD", "LocalDSGD"], "OLDSGD", "family").min("family")


def unlike(results: Results) -> xr.DataArray:
    """Return the largest relative difference of seconds from the formulas, over delays."""
    return abs(results["pace"].seconds / results["pace"].formula - 1).max(("family", "tau"))


CLOCK, EXAMPLES = f"{PAPER}, wall-clock model", "1125, 1000; 2000, 1000; 3000, 2000"
ORDER = f"{PAPER}, abstract: the same iteration complexity"
FASTER = f"{PAPER}, abstract: faster under several levels of delay"
MODEL = "seconds are T (tc + tm), T tc + (T/τ) tm, (T/τ) max(τ tc, tm): relative error"
WORDS = "seconds of local DSGD and OLDSGD over the formulas', 1000 gradients, τ = 4"
SAME = ": OLDSGD's gradients to the target over local DSGD's, for every τ"
SOONER = ": seconds of the faster of DSGD and local DSGD over OLDSGD's, best τ"
ALIKE, LATER = below(1.5), ("default", "full")  # quick: one τ, one seed and few stepsizes
EARLIER = above(1 + 1e-9)  # equal times are not earlier
CLAIMS = claims(
    (MODEL, CLOCK, "0", unlike, below(1e-6)),
    (WORDS, CLOCK, EXAMPLES, worked, near(1, 1e-6)),
    *((case + SAME, ORDER, "1", partial(ratio, case), ALIKE, LATER) for case in CASES),
    *((case + SOONER, FASTER, "> 1", partial(gain, case), EARLIER, LATER) for case in CASES),
)


def at_delay(delay: float, results: Results) -> xr.Dataset:
    """Return ``value`` over ``time`` for messages of this delay, of every family at its best τ."""
    case = present(results["best"], "case", ["precise", "shuffled"])[0]  # the first that is run
    here = of_case("times", case, results).sel(delay=delay, drop=True)
    places = {"tau": here.best.astype(int)}
    value = of_case("best", case, results).value.sel(places)
    pace = results["pace"].seconds.sel(delay=delay, drop=True).sel(places)
    whole = xr.Dataset({"value": value, "time": value.step * pace, "seconds": here.seconds})
    return whole.assign_attrs(target=CASES[case].target)


def until_there(delay: float, ax: Any, results: Results) -> None:
    """Show the target, every τ, and what happens until those that wait more rarely are there."""
    here = at_delay(delay, results).sel(family=FAMILIES[1:])
    ax.set(ylim=(here.target / 3, 1), xlim=(0, 1.5 * float(here.seconds.fillna(2e3).max())))
    level(here.target, "target")(ax, results)
    for i, (name, style) in enumerate(jd.plot.styles(FAMILIES[1:]).items()):
        text, place = f"τ = {int(here.tau.sel(family=name))}", (0.97, 0.97 - 0.11 * i)
        ax.text(*place, text, color=style["color"], ha="right", va="top", transform=ax.transAxes)


def price(results: Results) -> xr.DataArray:
    """Return the gradients to the target over DSGD's; infinite where it is not reached."""
    best = results["best"]
    counts = best.gradients.fillna(np.inf).where(best.alpha.notnull())
    return counts / counts.sel(family="DSGD", tau=1, drop=True)


def against(name: str) -> list[LogLog]:
    """Return the panels of a case: time to the target over delays, gradients to it over τ."""
    case = CASES[name]
    symbol = {"gap": "gap", NORM: r"$|\nabla F|^2$"}[case.metric]
    shared: Any = {"at": {"case": name}, "title": f"{case.title}\n{symbol} to {case.target:g}"}
    return [
        LogLog(data=lambda r: r["times"].seconds.fillna(np.inf), x="delay", by="family",
               ticks=(0.1, 1, 4, 16), xlabel="a message, in gradients",
               ylabel="time, in gradients", **shared),
        LogLog(data=price, x="tau", by="family", dodge=1.06,
               xlabel="local steps or overlap $\\tau$", ylabel="gradients over DSGD's", **shared),
    ]  # fmt: skip


TIME: Any = {"y": "value", "x": "time", "xlabel": "time, in gradients"}
CURVES = [
    Lines(data=partial(at_delay, delay), ylabel=jd.plot.NAMES["gap"] if delay == 0.25 else "",
          title=f"message: {delay:g} gradient{'s' * (delay != 1)}",
          also=[partial(until_there, delay)], **TIME)
    for delay in (0.25, 1.0, 4.0, 16.0)
]  # fmt: skip
ROWS = [against("shuffled") + against("precise"), against("sorted") + against("nonconvex")]


def seconds_table(results: Results) -> xr.Dataset:
    """Return the seconds to the target and the best τ, a column a family."""
    found = results["times"]
    taus = {f"τ, {name}": found.best.sel(family=name, drop=True) for name in FAMILIES[1:]}
    seconds = found.seconds.to_dataset("family")
    return seconds.assign(taus | {"OSGP / OLDSGD": seconds.OSGP / seconds.OLDSGD})


STUDY = Study(
    name="oldsgd",
    paper="OLDSGD (2026), arXiv 2601.01493",
    question="When does it pay to let exchanges overlap with local steps?",
    scales=SCALES,
    parts={case: Part(("family", "tau"), partial(histories, case)) for case in CASES}
    | {
        "pace": Part(None, lambda world, _: {"": Program({"local": world.local}, function=paces)}),
        "best": derived(at_best),
        "times": derived(times),
    },
    claims=CLAIMS,
    figures={"oldsgd": [CURVES, *ROWS]},
    tables={
        "seconds": ("simulated time to the target, in gradients, and the best τ", seconds_table),
        "gradients": (
            "what every method takes to the target, and the best α L",
            lambda results: results["best"].drop_vars("value").drop_dims(("seed", "step")),
        ),
    },
    minutes={"quick": 0.4, "default": 6, "full": 15},
    data=lambda _: (
        f"digits 3 against 8: {int(np.sum(problem(CASES['shuffled']).sizes))} images of "
        f"scikit-learn over {AGENTS} agents, minibatches of {BATCH}"
    ),
)
