"""APD and APD-SC: acceleration on unbalanced digraphs (arXiv 2107.12065).

Ten agents on random strongly connected digraphs, with column-stochastic weights far from doubly
stochastic. How many iterations APD-SC, Push-DIGing and Push-Pull need to a fixed relative accuracy,
all at one stepsize c / L, safe for APD-SC on every graph (half of what is stable with equal
curvatures, `APDSC.safe_stepsize`; it is not tuned), and each at its own best c of one grid; whether
all end at the minimizer of the uniform mean of the agents' functions, quadratics with different
Hessians and tilts; and how fast F − F* falls without strong convexity (curvatures j⁻⁴), where APD
has O(1/k²) and Push-DIGing O(1/k). Everything in float64; errors are (1/n) Σᵢ |xᵢ − x*|².

The paper's own experiments are not known to us; the claims are those of the abstract. The listing
is from a co-author's slides, which leave the constants open; ours are `APDSC`'s.
"""

from collections import namedtuple
from functools import partial
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import xarray as xr

import jaxdopt as jd
from experiments.claims import above, below, claims, near
from experiments.digraphs import imbalance, networks, perron
from experiments.measures import exponent
from experiments.panels import Figure, Lines, LogLog, beside, level
from experiments.study import Axis, Part, Program, Results, Study
from jaxdopt.algorithms.directed import push_pull

ACCURACY, RECORDS = 1e-6, 1000  # of the mean squared error, relative to the start
CURVATURES = 60  # dimensions of the problem that is not strongly convex
WINDOW = (500, 5_000)  # of the fits: later, APD comes to the smallest curvature, 60⁻⁴ L
METHODS = {"APD-SC": jd.APDSC, "Push-DIGing": jd.PushDIGing, "Push-Pull": jd.PushPull}
OPTIMA = ["uniform", "weighted by R", "weighted by C"]  # means; by Perron vectors
ROW = "row-stochastic alone"
OWN = {"own": lambda state, problem: jnp.mean(jax.vmap(problem.objective)(state.x))}
CONVEX = {"APD": jd.APD, "Push-DIGing": jd.PushDIGing}
# Factor, and power of κ/c, of the iterations to run: with a margin over what we measured.
BUDGET = {"APD-SC": (40.0, 0.5), "Push-DIGing": (8.0, 1.0), "Push-Pull": (8.0, 1.0)}
Sizes: Any = namedtuple("Sizes", "agents graphs dimension groups grid convex_grid")
GRID = tuple(2.0 ** (j / 2) for j in range(-3, 5))  # c = γL for the best stepsizes
CONVEX_GRID = tuple(2.0 ** (j / 2) for j in range(-4, 3, 2))
FEW, MANY = [[1e2, 10**2.5]], [[1e2, 10**2.5, 1e3], [10**3.5, 1e4]]  # κ, a list for each program
SCALES = {
    "quick": Sizes(10, 2, 10, FEW, GRID[1:3], CONVEX_GRID[1:2]),
    "default": Sizes(10, 5, 10, MANY, GRID, CONVEX_GRID),
    "full": Sizes(20, 10, 30, MANY, GRID, CONVEX_GRID),
}


@jd.pytree
class RowTracking:
    """x⁺ = R(x − αy),  y⁺ = Ry + g⁺ − g: gradient tracking with row-stochastic weights alone.

    Σᵢ πᵢ yᵢ = Σᵢ πᵢ gᵢ with πR = π, so it minimizes Σᵢ πᵢ fᵢ: what unbalanced weights do.
    """

    stepsize: jd.Nonnegative

    def init(self, x0: jax.Array, *_: Any) -> Any:
        """Start at x0 [n, d]."""
        zero = jnp.zeros_like(x0)
        return push_pull.State(x0, zero, zero)

    def step(self, state: Any, problem: Any, network: Any, key: jax.Array) -> Any:
        """Take one step."""
        g = problem.grad(state.x, key)
        y = state.y + g - state.g
        x, y = network.row @ (state.x - self.stepsize * y, y)
        return type(state)(x, y, g)


def quadratics(n: int, d: int, condition_numbers: Any, seed: int = 0) -> list[Any]:
    """Return problems that differ only in the condition number of F."""
    make = partial(jd.problems.quadratic, n, d, curvature_spread=0.5, seed=seed)
    return [make(condition_number=kappa) for kappa in condition_numbers]


def flat(n: int, seed: int = 0) -> Any:
    """Return quadratics whose mean Hessian has the eigenvalues j⁻⁴, and x* as far along each."""
    random = np.random.default_rng(seed)
    spread = quadratics(n, CURVATURES, [1], seed)[0]
    basis = np.linalg.qr(random.standard_normal((CURVATURES, CURVATURES)))[0]
    root = basis * np.arange(1, CURVATURES + 1) ** -2.0 @ basis.T
    hessians = root @ np.asarray(spread.hessians) @ root
    solution = jnp.asarray(basis @ random.choice([-1.0, 1.0], CURVATURES))
    smooth = jnp.asarray(np.linalg.norm(hessians, ord=2, axis=(1, 2)).max())
    curved = {"hessians": jnp.asarray(hessians), "smoothness": smooth, "strong_convexity": None}
    return jd.replace(spread, center=solution, solution=solution, **curved)


def displaced(problem: Any, weights: np.ndarray) -> np.ndarray:
    """Return x* minus the minimizer of Σᵢ wᵢ fᵢ."""
    hessian = np.einsum("i,ijk->jk", weights, np.asarray(problem.hessians))
    return np.linalg.solve(hessian, weights @ np.asarray(problem.tilts))


def world(sizes: Any, seed: int) -> Any:
    """Return the sizes, the seed, the digraphs, and the c = γL that is safe on all, for any κ."""
    made = networks(sizes.agents, sizes.graphs, seed)
    unit = jd.problems.quadratic(sizes.agents, 1, curvature_spread=0.0)
    unit = jd.replace(unit, smoothness=1.0, strong_convexity=None)
    c = min(jd.APDSC.safe_stepsize(unit, network) for network in made.values())
    return SimpleNamespace(sizes=sizes, seed=seed, members=made, c=c)


def program(world: Any, kind: Any, grid: Any, group: Any, every: int, records: int) -> Program:
    """Return the errors of a method at every c, condition number and digraph."""
    problems = quadratics(world.sizes.agents, world.sizes.dimension, group, world.seed)
    arguments = {"kind": kind, "c": jnp.asarray(grid), "problem": jd.stack(problems)}
    arguments |= {"network": jd.networks.stack([*world.members.values()])}
    arguments |= {"steps": records * every, "every": every}
    over = {"c": Axis("c", list(grid)), "problem": Axis("condition_number", list(group))}
    over["network"] = Axis("network", list(world.members))
    return Program(arguments, over, relative, partial(counted, every, len(grid) == 1))


@partial(jax.jit, static_argnames=("kind", "steps", "every"))
def relative(c: Any, problem: Any, network: Any, kind: Any, steps: int, every: int) -> Any:
    """Return the agents' errors relative to the start, by record, and their mean at the end."""
    method, key = kind(c / problem.smoothness), jax.random.key(0)
    result = jd.run(method, problem, network, problem.start(), key, steps=steps, every=every)
    error = result.history["distance_squared"] + result.history["consensus_error"]
    return {"error": error / error[0], "end": jd.agents.average(result.state.x)}


def counted(every: int, curves: bool, dataset: xr.Dataset) -> xr.Dataset:
    """Add the iterations to `ACCURACY`, NaN if it is not reached, and those of the records."""
    dataset = dataset.rename(error_0="step", end_0="coordinate")
    there = dataset.error <= ACCURACY
    first = there.argmax("step").where(there.isel(step=-1)) * float(every)
    at = every * np.arange(dataset.sizes["step"])
    at = xr.DataArray(at, dims="step").expand_dims(condition_number=dataset.condition_number)
    kept = ["iterations", "error", "at", "end"] if curves else ["iterations"]
    return dataset.assign(iterations=first, at=at)[kept]


def conditioned(at_one: bool, world: Any, _: Any) -> dict[tuple[str, float], Program]:
    """Return the programs at the safe c, or at those of the grid; κ of one group share one."""
    grid, found = ((world.c,) if at_one else world.sizes.grid), {}
    for name, kind in METHODS.items():
        for group in world.sizes.groups:
            (factor, power), largest = BUDGET[name], max(group) / min(grid)
            every = max(1, round(factor * largest**power / RECORDS))
            found[name, max(group)] = program(world, kind, grid, group, every, RECORDS)
    return found


def alone(world: Any, _: Any) -> dict[str, Program]:
    """Return the program of the counterexample, at the smallest condition number."""
    kappa = world.sizes.groups[0][0]
    steps = round(2 * BUDGET["Push-Pull"][0] * kappa / world.c)
    return {ROW: program(world, RowTracking, (world.c,), [kappa], steps, 1)}


def limits(dataset: xr.Dataset, world: Any, done: Results) -> xr.Dataset:
    """Return methods' distances to the optima of F and of means weighted by Perron vectors."""
    n, kappa = world.sizes.agents, world.sizes.groups[0][0]
    problem = quadratics(n, world.sizes.dimension, [kappa], world.seed)[0]
    solution, optima = np.asarray(problem.solution), []
    for network in world.members.values():
        weights = (np.full(n, 1 / n), perron(network, "row"), perron(network, "column"))
        optima.append([solution - displaced(problem, each) for each in weights])
    places = {"network": list(world.members), "optimum": OPTIMA}
    where = xr.DataArray(optima, places, [*places, "coordinate"])
    ends = [each.end.sel(condition_number=kappa) for each in (done["fixed"], dataset)]
    ends = xr.concat(ends, "algorithm").isel(c=0, drop=True)
    size, square = np.linalg.norm(solution), lambda away: (away**2).sum("coordinate")
    apart = np.sqrt(square(where - xr.DataArray(solution, dims="coordinate"))) / size
    return xr.Dataset({"distance": np.sqrt(square(ends - where)) / size, "apart": apart})


def convex(world: Any, _: Any) -> dict[str, Program]:
    """Return the programs of the problem that is not strongly convex."""
    problem, grid = flat(world.sizes.agents, world.seed), (world.c, *world.sizes.convex_grid)
    shared = {"problem": problem, "network": jd.networks.stack([*world.members.values()])}
    shared |= {"x0": problem.start(), "key": jax.random.key(0), "metrics": OWN}
    shared |= {"steps": WINDOW[1], "every": WINDOW[1] // RECORDS}
    over = {"algorithm": Axis("c", grid), "network": Axis("network", list(world.members))}
    found = {}
    for name, kind in CONVEX.items():
        methods = jax.vmap(kind)(jnp.asarray(grid) / problem.smoothness)
        found[name] = Program(shared | {"algorithm": methods}, over, jd.run, growing)
    return found


def growing(dataset: xr.Dataset) -> xr.Dataset:
    """Return F − F*, and whether it ends above its start: a divergence not infinite yet."""
    lost = ~(dataset.gap.isel(step=-1) <= dataset.gap.isel(step=0))
    return dataset[["gap", "own"]].assign(diverged=dataset.diverged | lost)


AT = pd.Index(["one c", "own best c"], name="stepsize")


def iterations(results: Results) -> Any:
    """Return the iterations to `ACCURACY`, at the one safe c, and at each member's best."""
    both = [results["fixed"].iterations.isel(c=0, drop=True), results["best"].iterations.min("c")]
    return xr.concat(both, AT)


def exponents(results: Results) -> xr.DataArray:
    """Return the exponents of the condition number in the iterations."""
    return exponent(None, iterations(results), "condition_number")


def gaps(results: Results) -> xr.Dataset:
    """Return F − F* at the one safe c, and at each member's best, the lowest at the end."""
    runs = results["convex"]
    both = [runs.isel(c=0), jd.best(runs, "gap", over=["c"])]
    return xr.concat([each.drop_vars("c") for each in both], AT)


def slopes(results: Results, of: str = "gap") -> xr.DataArray:
    """Return the slopes in the `WINDOW`: of the mean estimate's F − F*, or of the agents' own."""
    return exponent(None, gaps(results)[of].sel(step=slice(*WINDOW)), "step")


def middle(measure: Any, name: str, results: Results) -> xr.DataArray:
    """Return a method's median over digraphs, at both choices of c."""
    return measure(results).sel(algorithm=name).median("network")


def apart(results: Results, *names: str) -> xr.DataArray:
    """Return methods' distances from the uniform optimum."""
    return results["limits"].distance.sel(algorithm=list(names), optimum="uniform")


def graphs(results: Results) -> pd.DataFrame:
    """Return facts about the digraphs, and the largest c of the grid at which methods converge."""
    best, members = results["best"].iterations, results.world.members.values()
    largest = best.c.where(best.notnull().all("condition_number")).max("c")
    rows = {"graph": list(results.world.members), "links": [int(g.link_count) for g in members]}
    for of, part in (("C", "column"), ("R", "row")):
        rows[f"gap of {of}"] = [getattr(g, part).spectral_gap for g in members]
        rows[f"imbalance of {of}"] = [imbalance(perron(g, part)) for g in members]
    return pd.DataFrame(rows | {f"c {name}": largest.sel(algorithm=name) for name in METHODS})


DERIVED = "from the abstract's rates, on curvatures j⁻⁴"
ABSTRACT, LATER = "arXiv 2107.12065, abstract", ("default", "full")  # quick: two points
SC, PD, PP = (partial(middle, exponents, name) for name in METHODS)
FAST, SLOW = (partial(middle, slopes, name) for name in CONVEX)
CLAIMS = claims(
    ("APD-SC: iterations ~ κ^p", ABSTRACT, "p = 0.5", SC, near(0.5, 0.1), LATER),
    ("Push-DIGing: iterations ~ κ^p", "gradient descent", "p = 1", PD, near(1, 0.1), LATER),
    ("Push-Pull: iterations ~ κ^p", "gradient descent", "p = 1", PP, near(1, 0.1), LATER),
    ("all reach the uniform optimum: distance", ABSTRACT, "0",
     lambda r: apart(r, *METHODS), below(1e-4)),
    ("row-stochastic weights alone do not", "derived", "> 0", lambda r: apart(r, ROW), above(1e-4)),
    ("APD's slope of F - F* over Push-DIGing's", DERIVED, "2",
     lambda r: (FAST(r) / SLOW(r))[0], near(2, 0.4)),  # at the one safe c
    ("APD: F - F* ~ k^p", DERIVED, "p = -1.5", FAST, near(-1.5, 0.3)),
    ("Push-DIGing: F - F* ~ k^p", DERIVED, "p = -0.75", SLOW, near(-0.75, 0.15)),
)  # fmt: skip


SLOPES = [beside("APD-SC", 0.5, "slopes ½, 1", 0.6), beside("Push-DIGing", 1, "slopes ½, 1", 0.6)]
SCALING = {"x": "condition_number", "seeds": "network", "hollow": ["Push-Pull"], "also": SLOPES}
SCALING |= {"xlabel": "condition number  $\\kappa$", "ylabel": "iterations to $10^{-6}$"}
SHADE = {"color": "0.93", "zorder": 0}
CURVES = {"logx": True, "band": (0, 1), "xlabel": "iterations", "xlim": (5, None)}
ROWS = [
    [
        Lines(data=lambda r: r["fixed"].isel(condition_number=-1, c=0).rename(network="seed"),
              y="error", x="at", ylabel="relative error", ylim=(1e-7, 2),
              also=[level(ACCURACY, "accuracy", color="0.6")],
              title="largest $\\kappa$, one c for all", **CURVES),
        LogLog(data=iterations, at={"stepsize": "one c"}, title="one c for all", **SCALING),
    ],
    [
        LogLog(data=iterations, at={"stepsize": "own best c"}, title="own best c", **SCALING),
        Lines(data=lambda r: gaps(r).rename(network="seed"), x="step",
              also=[lambda ax, _: ax.axvspan(*WINDOW, label="window of the fits", **SHADE)],
              title="not strongly convex", **CURVES),
    ],
]  # fmt: skip
DATA = "quadratics, {} agents, {} digraphs, {} dimensions; one c = {:.3f}"

STUDY = Study(
    name="apd",
    paper="Song, Shi, Pu, Yan (2024), APD, arXiv 2107.12065",
    question="Are APD and APD-SC accelerated, and exact, on unbalanced digraphs?",
    scales=SCALES,
    world=world,
    parts={
        "fixed": Part(("algorithm", "condition_number"), partial(conditioned, True)),
        "best": Part(("algorithm", "condition_number"), partial(conditioned, False)),
        "limits": Part("algorithm", alone, limits),
        "convex": Part("algorithm", convex),
    },
    claims=CLAIMS,
    figures={"apd": Figure(ROWS, height=2.4)},
    tables={"graphs": ("the digraphs, and the largest stable c of the grid", graphs)},
    minutes={"quick": 0.3, "default": 4, "full": 30},
    data=lambda world: DATA.format(*world.sizes[:3], world.c),
)
