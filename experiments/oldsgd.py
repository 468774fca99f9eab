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
seconds has both, that of gradients the bits.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import xarray as xr

import jaxdopt as jd
from experiments.claims import Claim, above, below, near
from experiments.measures import soonest
from experiments.panels import Lines, LogLog, NotRun, level, present
from experiments.study import Part, Program, Results, Study, joined
from jaxdopt.costs import cost_of

AGENTS, BATCH, L2 = 16, 8, 1e-2
EVERY = 16  # gradients a record covers
STAYS = 8  # records in a row that have to be at a target
GRID = tuple(2.0 ** (j / 2) for j in range(-12, 3))  # α L
LOCAL = (1, 2, 4, 8)  # τ
DELAYS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)  # of a message, in gradients' time
WORKED = {0.5: (1125.0, 1000.0), 4.0: (2000.0, 1000.0), 8.0: (3000.0, 2000.0)}
"""By delay, seconds of 1000 gradients with τ = 4 by the formulas: local DSGD, OLDSGD."""
ALIKE = 1.5  # times the gradients, up to which a method counts as taking as many
PAPER = "arXiv 2601.01493"
NORM = "gradient_norm_squared"
FORMULAS = {
    "DSGD": lambda tau, delay: 1 + delay,  # noqa: ARG005
    "LocalDSGD": lambda tau, delay: 1 + delay / tau,
    "OLDSGD": lambda tau, delay: max(1.0, delay / tau),
    "OSGP": lambda tau, delay: max(1.0, delay / tau),  # ours
}
"""The paper's seconds a gradient, for gradients of one second."""
FAMILIES = list(FORMULAS)
SHOWN = ("precise", "shuffled")  # the first of them that is run has its curves drawn


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
    "quick": SimpleNamespace(cases=["shuffled"], local=(4,), grid=GRID[8::2], seeds=1, share=2),
    "default": SimpleNamespace(cases=list(CASES), local=LOCAL, grid=GRID, seeds=3, share=1),
    "full": SimpleNamespace(cases=list(CASES), local=LOCAL, grid=GRID, seeds=10, share=1),
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
    case, sizes = CASES[name], world.sizes
    if name not in sizes.cases:
        return {}
    shared = {
        "problem": problem(case),
        "networks": network(case.graph),
        "over": {"stepsize": jnp.asarray(sizes.grid) / float(problem(case).smoothness)},
        "seeds": range(world.seed, world.seed + sizes.seeds),
        "progress": False,
    }
    found = {}
    for at, method in methods(sizes.local).items():
        taken = getattr(method, "local_steps", 1)  # one after the other
        steps = {"steps": case.calls // sizes.share // taken, "every": EVERY // taken}
        found[at] = Program(
            {"algorithms": {at[0]: method}, **shared, **steps},
            function=jd.compare,
            reduce=partial(by_gradients, case.metric, taken, sizes.grid),
        )
    return found


def by_gradients(metric: str, taken: int, grid: Any, dataset: xr.Dataset) -> xr.Dataset:
    """Return the metric as ``value``, with α L in place of stepsizes and gradients of steps."""
    dataset = dataset[[metric, "bits", "diverged"]].isel(algorithm=0, network=0, drop=True)
    dataset = dataset.rename({metric: "value", "stepsize": "scaled"})
    return dataset.assign_coords(step=dataset.step * taken, scaled=list(grid))


def paces(local: Sequence[int]) -> xr.Dataset:
    """Return simulated seconds a gradient, as `jd.run` counts them, and those by the formulas."""
    small, key, ring = jd.problems.quadratic(AGENTS, 2), jax.random.key(0), network(jd.graphs.ring)
    found = {}
    for (family, tau), method in methods(local).items():
        for delay in DELAYS:
            now = jd.networks.timed(ring, compute=1.0, delay=delay).at(0, key)
            cost = cost_of(method, method.init(small.start(), small, now, key), small, now)
            seconds = float(now.seconds(cost.calls or 1, cost.exchanges, cost.overlap))
            seconds /= getattr(method, "local_steps", 1)
            found[family, tau, delay] = (seconds, FORMULAS[family](tau, delay))
    table = pd.DataFrame(found, index=["seconds", "formula"]).T
    return table.rename_axis(["family", "tau", "delay"]).to_xarray()


def at_best(_: Any, __: Any, done: Results) -> xr.Dataset:
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


def times(_: Any, __: Any, done: Results) -> xr.Dataset:
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
    found = counts.sel(family="OLDSGD", drop=True) / counts.sel(family="LocalDSGD", drop=True)
    if not found.notnull().any():
        raise NotRun("no target is reached")
    return found.dropna("tau")


def gain(case: str, results: Results) -> xr.DataArray:
    """Return the seconds of the faster of DSGD and local DSGD over OLDSGD's, over delays."""
    seconds = of_case("times", case, results).seconds
    waiting = seconds.sel(family=["DSGD", "LocalDSGD"]).min("family")
    return waiting / seconds.sel(family="OLDSGD", drop=True)


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
LATER = ("default", "full")  # one τ, one seed and few stepsizes are not enough
ROWS: list[tuple[Any, ...]] = [
    (MODEL, CLOCK, "0", unlike, below(1e-6)),
    (WORDS, CLOCK, EXAMPLES, worked, near(1, 1e-6)),
    *((c + SAME, ORDER, "1", partial(ratio, c), below(ALIKE), LATER) for c in CASES),
    # equal times are not earlier
    *((c + SOONER, FASTER, "> 1", partial(gain, c), above(1 + 1e-9), LATER) for c in CASES),
]
CLAIMS = [Claim(*row) for row in ROWS]


def at_delay(delay: float, results: Results) -> xr.Dataset:
    """Return ``value`` over ``time`` for messages of this delay, of every family at its best τ."""
    case = next(case for case in SHOWN if case in results)
    here = of_case("times", case, results).sel(delay=delay, drop=True)
    places = {"tau": here.best.astype(int)}
    value = of_case("best", case, results).value.sel(places)
    pace = results["pace"].seconds.sel(delay=delay, drop=True).sel(places)
    return xr.Dataset({"value": value, "time": value.step * pace, "seconds": here.seconds})


def until_there(delay: float, ax: Any, results: Results) -> None:
    """Show the target, every τ, and what happens until those that wait more rarely are there."""
    target = CASES[next(case for case in SHOWN if case in results)].target
    here = at_delay(delay, results).sel(family=FAMILIES[1:])
    ax.set(ylim=(target / 3, 1), xlim=(0, 1.5 * float(here.seconds.fillna(2e3).max())))
    level(target, "target")(ax, results)
    for i, (name, style) in enumerate(jd.plot.styles(FAMILIES[1:]).items()):
        text, place = f"τ = {int(here.tau.sel(family=name))}", (0.97, 0.97 - 0.11 * i)
        ax.text(*place, text, color=style["color"], ha="right", va="top", transform=ax.transAxes)


def over_time(delay: float) -> Lines:
    """Return the panel of the curves for messages of this delay."""
    return Lines(
        data=partial(at_delay, delay),
        y="value",
        x="time",
        xlabel="time, in gradients",
        ylabel=jd.plot.NAMES["gap"] if delay == 0.25 else "",
        title=f"message: {delay:g} gradient{'s' * (delay != 1)}",
        also=[partial(until_there, delay)],
    )


def price(results: Results) -> xr.DataArray:
    """Return the gradients to the target over DSGD's; infinite where it is not reached."""
    best = results["best"]
    counts = best.gradients.fillna(np.inf).where(best.alpha.notnull())
    return counts / counts.sel(family="DSGD", tau=1, drop=True)


def against(x: str, case: str) -> LogLog:
    """Return the panel of the times to a case's target over delays, or of gradients over τ."""
    symbol = {"gap": "gap", NORM: r"$|\nabla F|^2$"}[CASES[case].metric]
    time = {
        "data": lambda results: results["times"].seconds.fillna(np.inf),
        "ticks": (0.1, 1, 4, 16),
        "xlabel": "a message, in gradients",
        "ylabel": "time, in gradients",
    }
    gradients = {
        "data": price,
        "dodge": 1.06,
        "xlabel": "local steps or overlap $\\tau$",
        "ylabel": "gradients over DSGD's",
    }
    title = f"{CASES[case].title}\n{symbol} to {CASES[case].target:g}"
    options: Any = time if x == "delay" else gradients
    return LogLog(x=x, by="family", at={"case": case}, title=title, **options)


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
    world=lambda sizes, seed: SimpleNamespace(sizes=sizes, seed=seed),
    parts={case: Part(("family", "tau"), partial(histories, case)) for case in CASES}
    | {
        "pace": Part(
            None, lambda world, _: {"": Program({"local": world.sizes.local}, function=paces)}
        ),
        "best": Part(None, None, at_best),
        "times": Part(None, None, times),
    },
    claims=CLAIMS,
    figures={
        "oldsgd": [
            [over_time(delay) for delay in (0.25, 1.0, 4.0, 16.0)],
            [against(x, case) for case in ("shuffled", "precise") for x in ("delay", "tau")],
            [against(x, case) for case in ("sorted", "nonconvex") for x in ("delay", "tau")],
        ]
    },
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
