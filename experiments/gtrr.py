"""GT-RR and ED-RR: what random reshuffling gains from removing heterogeneity (arXiv 2306.12037).

Logistic regression on real data, split over the agents of a ring and of a grid; component gradients
one at a time, constant stepsizes, the error (1/n) Σᵢ |xᵢ − x*|² at the starts of epochs, float64.

- order: with the data sorted by label, at one small stepsize for all, which method is how close?
- tilt: what does heterogeneity alone cost? To fᵢ a linear term ζ cᵢᵀx is added, Σᵢ cᵢ = 0, which
  changes neither F nor the samples nor their noise; the permutations are the same for all ζ. cᵢ is
  along the eigenvector of λ, the slowest disagreement, and the data are otherwise without
  heterogeneity at x*: (1/n) Σᵢ |∇fᵢ(x*)|² = ζ².
- crossover and bias: up to which stepsize is D-RR (bias α²ζ²/(1−λ)²) better than the methods that
  remove heterogeneity and sample with replacement (noise α σ²/(nμ))?
- gap: how does the error depend on 1 − λ? W becomes I − θ(I − W), with θ times the gap.

All methods mix with the same matrix (I + Metropolis)/2 (exact diffusion and ED-RR by relaxation=1).
DSGT is its ATC form (`jd.ATCGT`), which GT-RR is with one sample an agent. The paper's settings are
not known to us: its claims are tested and no figure reproduced, on breast cancer data over 16
agents or (``--scale full``) digits 0-4 against 5-9 over 50. At the least α a mean is over few
relaxation times 1/(αμ): errors with replacement are good to 10 or 20 % there.
"""

import dataclasses
import math
from functools import cached_property, partial
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pandas as pd
import xarray as xr

import jaxdopt as jd
from experiments.claims import above, below, claims, near, within_factor
from experiments.measures import among, crossing, exponent, spread
from experiments.panels import REFERENCE, Figure, Lines, LogLog, beside
from experiments.study import Axis, Part, Program, Results, Study, derived, keys
from jaxdopt.problems.linear import logistic_loss

METHODS = {
    "centralized RR": jd.CentralizedRR(0.1),
    "GT-RR": jd.GTRR(0.1),
    "ED-RR": jd.EDRR(0.1, relaxation=1.0),
    "D-RR": jd.DRR(0.1),
    "DSGT": jd.ATCGT(0.1),
    "ED": jd.ExactDiffusion(0.1, relaxation=1.0),
    "DSGD": jd.DSGD(0.1),
    "GT-RR, restart": jd.GTRR(0.1, restart=True),
    "ED-RR, restart": jd.EDRR(0.1, relaxation=1.0, restart=True),
}
WITH_REPLACEMENT, NOT_QUICK = ("DSGT", "ED", "DSGD"), ("ED", "DSGD", "ED-RR, restart")
MAIN, NETWORKS = ("GT-RR", "ED-RR", "D-RR", "DSGT", "ED"), ("ring", "grid")
GROUPS = {  # of runs, and their methods
    "order": ("centralized RR", *MAIN, "DSGD"),
    "tilt": (*MAIN, "GT-RR, restart", "ED-RR, restart"),
    "crossover": ("GT-RR", "ED-RR", "DSGT", "ED"),
    "bias": ("D-RR",),
    "gap": MAIN,
}
ERROR = "error  $\\frac{1}{n}\\sum_i |x_i - x^\\star|^2$"
PLACE, PAPER = ("network", "zeta", "stepsize", "laziness"), "arXiv 2306.12037"
TILTS, LAZY = (0, 1, 3, 10, 30, 100), (1, 0.5, 0.25, 0.125, 0.0625)
STEPS, MORE = (tuple(np.geomspace(a, 2e-2, k).tolist()) for a, k in ((7e-4, 6), (1e-4, 8)))
SCALES = {
    "quick": dict(agents=16, samples=12, epochs=300, every=10, seeds=1, small=0.04, smallest=0.01,
        stepsizes=(0.005, 0.015, 0.045), tilts=(0, 10, 100), crossed=(0.1, 1.0),
        laziness=(1, 0.25), without=NOT_QUICK),
    "default": dict(agents=16, samples=35, epochs=700, every=5, seeds=3, small=0.01, smallest=2e-3,
        stepsizes=STEPS, tilts=TILTS, crossed=(0.05, 0.1, 0.2, 1.0), laziness=LAZY, without=()),
    "full": dict(agents=50, samples=35, epochs=8000, every=20, seeds=5, small=5e-3, smallest=1e-3,
        stepsizes=MORE, tilts=TILTS, crossed=(0.02, 0.05, 0.1, 0.2, 1.0), laziness=LAZY,
        without=()),
}  # fmt: skip
"""``samples`` of an agent are the steps of an epoch; ``small`` is the stepsize of "order" and of
"tilt", ``smallest`` that of "gap"; ``tilts`` and ``crossed`` are ζ of "tilt" and of "bias"."""


def tilted_loss(x: jax.Array, sample: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
    """log(1 + exp(−b aᵀx)) + cᵀx for a sample (a, b, c); c is the same for all of an agent's."""
    a, b, c = sample
    return logistic_loss(x, (a, b)) + c @ x


def tilted(whole: Any, tilts: Any) -> Any:
    """Return the problem with tilts [n, d] added, which sum to zero: the same F, x* and noise."""
    a, b, c = whole.data
    return jd.replace(whole, data=(a, b, c + tilts[:, None]))


def mixing(name: str, agents: int, laziness: float = 1.0) -> Any:
    """Return I − θ(I − W), W = (I + Metropolis)/2 of the ring or of the grid, θ the laziness."""
    side = next(s for s in range(math.isqrt(agents), 0, -1) if agents % s == 0)
    graph = jd.graphs.ring(agents) if name == "ring" else jd.graphs.grid(side, agents // side)
    away = np.eye(agents) - jd.networks.metropolis(graph).csr().toarray()
    return jd.networks.mixing(np.eye(agents) - laziness / 2 * away, form=jd.networks.Dense)


def directions(name: str, whole: Any) -> np.ndarray:
    """Return c [n, d], along the eigenvector of λ, with Σᵢ cᵢ = 0 and (1/n) Σᵢ |cᵢ|² = 1."""
    slow = np.linalg.eigh(mixing(name, whole.n).csr().toarray())[1][:, -2]
    along = np.random.default_rng(0).standard_normal(whole.d)
    return np.outer(slow - slow.mean(), along / np.linalg.norm(along)) * math.sqrt(whole.n)


@dataclasses.dataclass(frozen=True)
class World:
    """The sizes and the seed, the problems, and the cases of all runs."""

    sizes: Any
    seed: int

    @cached_property
    def problems(self) -> tuple[Any, Any]:
        """Logistic regression, sorted by label, and shuffled without heterogeneity at x*."""
        agents, count = self.sizes.agents, self.sizes.agents * self.sizes.samples
        data = jd.data.breast_cancer() if agents <= 16 else jd.data.digits()
        labels = data.labels if agents <= 16 else data.labels >= 5
        rows = np.column_stack([data.features, np.ones(len(labels))])
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        chosen = np.random.default_rng(self.seed).permutation(len(labels))[:count]
        rows, signs = rows[chosen], np.where(labels[chosen], 1.0, -1.0)

        def split(how: Any) -> Any:
            both = jd.partition.split((rows, signs), signs, agents=agents, partition=how)
            a, b = map(np.stack, both)
            zero = np.zeros_like(a)
            return jd.problems.FiniteSum(tilted_loss, (a, b, zero), zero[0, 0], l2=0.2).solved()

        shuffled = split(jd.partition.iid(self.seed))
        own = np.asarray(jax.jit(shuffled.grad)(shuffled.start(shuffled.solution)))
        return split("by_label"), tilted(shuffled, own.mean(0) - own)

    @cached_property
    def facts(self) -> tuple[float, float, float]:
        """σ² of component gradients within agents at x*, μ, and tr(H⁻¹S): H = ∇²F, tr S = σ²."""
        whole = self.problems[1]
        each = jax.vmap(jax.vmap(jax.grad(logistic_loss), (None, 0)), (None, 0))
        gradients = np.asarray(each(whole.solution, whole.data[:2]))  # [n, m, d]
        away = (gradients - gradients.mean(1, keepdims=True)).reshape(-1, whole.d)
        covariance = away.T @ away / len(away)
        hessian = np.asarray(jax.hessian(whole.objective)(whole.solution))
        noise = np.linalg.solve(hessian, covariance)
        return np.trace(covariance), np.linalg.eigvalsh(hessian)[0], np.trace(noise)

    @cached_property
    def points(self) -> pd.DataFrame:
        """All runs: a row with the group, the network, ζ, α, and θ of each."""
        size, small, alphas, names = self.sizes, self.sizes.small, self.sizes.stepsizes, NETWORKS
        rows: list[tuple[Any, ...]] = [("order", name, np.nan, small, 1.0) for name in names]
        rows += [("tilt", "ring", zeta, small, 1.0) for zeta in size.tilts]
        rows += [("crossover", name, 1.0, alpha, 1.0) for name in names for alpha in alphas]
        pairs = [(zeta, alpha) for zeta in size.crossed for alpha in alphas]
        rows += [("bias", name, *pair, 1.0) for name in names for pair in pairs]
        rows += [("gap", name, 1.0, size.smallest, t) for name in names for t in size.laziness]
        frame = pd.DataFrame(rows, columns=["group", *PLACE])
        laws = (mixing(at.network, size.agents, at.laziness) for at in frame.itertuples())
        return frame.assign(inverse_gap=[1 / law.spectral_gap for law in laws])

    def case(self, at: Any) -> dict[str, Any]:
        """Return the problem, the start, the network and the stepsize of a row of `points`."""
        by_label, shuffled = self.problems
        network = mixing(at.network, self.sizes.agents, at.laziness)  # one form, one program
        case = {"network": network, "stepsize": at.stepsize}
        if at.group == "order":
            return case | {"problem": by_label, "x0": by_label.start()}
        whole = tilted(shuffled, at.zeta * directions(at.network, shuffled))
        return case | {"problem": whole, "x0": whole.start(whole.solution)}


def simulate(case: Any, key: jax.Array, method: Any, sampled: bool, **options: Any) -> Any:
    """Run a method on a case; methods that sample with replacement get minibatches of one."""
    problem = jd.problems.Minibatch(case["problem"], 1) if sampled else case["problem"]
    method = jd.replace(method, stepsize=case["stepsize"])
    return jd.run(method, problem, case["network"], case["x0"], key, **options)


def programs(world: World, _: Any) -> dict[str, Program]:
    """Return a program for each method, which runs its cases in all groups."""
    size, seeds = world.sizes, range(world.seed, world.seed + world.sizes.seeds)
    cases = [world.case(at) for at in world.points.itertuples()]
    options = {"steps": size.epochs * size.samples, "every": size.every * size.samples}
    found = {}
    for name in (name for name in METHODS if name not in size.without):
        mine = [i for i, group in enumerate(world.points.group) if name in GROUPS[group]]
        own = jax.tree.map(lambda *of: np.stack(of), *[cases[i] for i in mine])  # on the host
        arguments = {"case": own, "key": keys(seeds), "method": METHODS[name]}
        arguments |= {"sampled": name in WITH_REPLACEMENT} | options
        over = {"case": Axis("case", mine), "key": Axis("seed", seeds)}
        found[name] = Program(arguments, over, simulate, agents_error)
    return found


def agents_error(dataset: xr.Dataset) -> xr.Dataset:
    """Return (1/n) Σᵢ |xᵢ − x*|² alone."""
    return (dataset.distance_squared + dataset.consensus_error).to_dataset(name="error")


def of_group(group: str, done: Results) -> xr.Dataset:
    """Return a group's errors: algorithm, what it sweeps over, seed, step."""
    points = done.world.points[done.world.points.group == group]
    index = pd.MultiIndex.from_frame(points[[p for p in PLACE if points[p].nunique() > 1]])
    own = done["runs"].sel(case=points.index.values).dropna("algorithm", how="all")
    own = own.assign_coords(inverse_gap=("case", points.inverse_gap.values))
    own = own.assign_coords(xr.Coordinates.from_pandas_multiindex(index, "case"))
    return own.unstack("case").assign_coords(epochs=own.step // done.world.sizes.samples)


def stationary(results: Results, group: str, *names: str) -> xr.DataArray:
    """Return mean errors over the second half of the epochs, and over seeds, of some methods."""
    errors = results[group].error
    errors = errors.sel(step=slice(int(errors.step[-1]) // 2, None)).mean(["step", "seed"])
    return among(errors, names) if names else errors


def crossovers(results: Results) -> xr.Dataset:
    """Return the stepsizes where D-RR's error is DSGT's and ED's, and predictions of them.

    ``order`` is (1−λ)²σ²/(nμζ²); the bias (αζλ/(1−λ))² is the noise α tr(H⁻¹S)/(2n) at ``precise``.
    DSGT's and ED's errors are those at ζ = 1: they do not depend on ζ. NaN: beyond those run.
    """
    biased = stationary(results, "bias").isel(algorithm=0, drop=True)
    found = crossing(biased / stationary(results, "crossover", "DSGT", "ED"), "stepsize")
    (variance, mu, trace), n = results.world.facts, results.world.sizes.agents
    gap = xr.DataArray([mixing(name, n).spectral_gap for name in NETWORKS], dims="network")
    gap = gap.assign_coords(network=list(NETWORKS))
    order = gap**2 * variance / (n * mu * found.zeta**2)
    precise = (gap / (1 - gap)) ** 2 * trace / (2 * n * found.zeta**2)
    return xr.Dataset({"stepsize": found, "order": order, "precise": precise})


def over_order(results: Results) -> xr.DataArray:
    """Return the crossovers that are among the stepsizes run over their predicted order."""
    return crossovers(results).pipe(lambda x: x.stepsize / x.order).stack(at=[...]).dropna("at")


def ladder(results: Results) -> xr.DataArray:
    """Return errors over those of the next worse method: CRR, GT-RR, ED-RR, best of the others."""
    first = stationary(results, "order", "centralized RR", "GT-RR", "ED-RR")
    best = stationary(results, "order", "D-RR", "DSGT", "ED").min("algorithm")
    errors = xr.concat([first, best.expand_dims(algorithm=["others"])], "algorithm")
    return (errors / errors.shift(algorithm=-1)).isel(algorithm=slice(-1))


def over_zeta(names: Any, results: Results) -> xr.DataArray:
    """Return the largest error over ζ, relative to the smallest, less 1."""
    return spread(stationary(results, "tilt", *names), "zeta") - 1


def power(by: tuple[str, str], names: Any, results: Results) -> xr.DataArray:
    """Return the exponent of a group's errors in x: in ζ, in the three smallest α, in 1/(1−λ)."""
    at: Any = {"bias": {"stepsize": slice(3), "zeta": -1}, "crossover": {"stepsize": slice(3)}}
    (group, x), dims = by, {"inverse_gap": "laziness"}
    errors = stationary(results, group, *names).isel(at.get(group, {}), drop=True)
    return exponent(errors[x], errors, dims.get(x, x))


FAST = f"{PAPER}, abstract: O(1/((1-λ) m T²)) with α ~ 1/(mT)"
THIRD = f"{PAPER}'s comparison, from memory: O(1/((1-λ)³ m T²))"
NOISE = "textbook: noise α σ²/(nμ), and α²σ²/(1-λ)"
BIAS, DRR = "derived: bias α²ζ²/(1-λ)²", "arXiv 2112.15287, abstract: O(1/T²)"
ORDER, TEN, ONE = "derived, as an order", within_factor(1, 10), ("D-RR",)
RATE, OWN_RATE, GAP = ("crossover", "stepsize"), ("bias", "stepsize"), ("gap", "inverse_gap")
AGAIN, RR = ("GT-RR, restart", "ED-RR, restart"), ("GT-RR", "ED-RR")
WR, MANY = ("DSGT", "ED"), ("default", "full")  # quick: two points, or too large stepsizes
CLAIMS = claims(
    ("CRR < GT-RR ≤ ED-RR < others: error over the next's", PAPER, "< 1", ladder, below(1.05)),
    ("GT-RR, ED-RR: no dependence on ζ", "derived", "0", partial(over_zeta, RR), below(0.01)),
    ("restarted, they depend on ζ", "derived", "> 0", partial(over_zeta, AGAIN), above(0.01)),
    ("D-RR beats DSGT, ED: largest α over (1-λ)²σ²/(nμζ²)", ORDER, "1", over_order, TEN),
    ("D-RR: error ~ ζ^p", BIAS, "2", partial(power, ("tilt", "zeta"), ONE), near(2, 0.1), MANY),
    ("GT-RR, ED-RR: error ~ α^p", FAST, "2", partial(power, RATE, RR), near(2, 0.2)),
    ("D-RR: error ~ α^p", DRR, "2", partial(power, OWN_RATE, ONE), near(2, 0.2), MANY),
    ("DSGT, ED: error ~ α^p", NOISE, "1", partial(power, RATE, WR), near(1, 0.2)),
    ("GT-RR, ED-RR: error ~ (1-λ)^-p", FAST, "≤ 1", partial(power, GAP, RR), below(1.1), MANY),
    ("D-RR: error ~ (1-λ)^-p", THIRD, "≤ 3", partial(power, GAP, ONE), below(3.1), MANY),
    ("D-RR: error ~ (1-λ)^-p", BIAS, "2", partial(power, GAP, ONE), near(2, 0.2), MANY),
    ("DSGT, ED: error ~ (1-λ)^-p", NOISE, "≤ 1", partial(power, GAP, WR), below(1.1), MANY),
)


def stepsizes(network: str, ax: Any, results: Results) -> None:
    """Draw errors over the stepsize on one network: of D-RR for every ζ."""
    others = stationary(results, "crossover").sel(network=network)
    biased = stationary(results, "bias").sel(network=network).isel(algorithm=0, drop=True)
    names = [f"D-RR, {zeta:g}" for zeta in biased.zeta.values]
    members = biased.rename(zeta="algorithm").assign_coords(algorithm=names)
    whole, title = xr.concat([others, members], "algorithm"), f"{network}, tilted by $\\zeta$"
    options = {"x": "stepsize", "ticks": False, "labels": dict.fromkeys(names, "D-RR")}
    LogLog(data=lambda _: whole, title=title, ylabel=ERROR, hollow=["ED"], **options)(ax, results)
    for own in biased.transpose("zeta", ...):
        end, place = (own.stepsize[-1], own[-1]), {"xytext": (4, 0), "textcoords": "offset points"}
        ax.annotate(f"$\\zeta$ = {float(own.zeta):g}", end, fontsize=6, va="center", **place)
    for at in crossovers(results).precise.sel(network=network).values:
        if others.stepsize[0] < at < others.stepsize[-1]:
            ax.axvline(at, label="crossover, predicted", **REFERENCE | {"linestyle": ":"})


def from_zero(ax: Any, results: Results) -> None:
    """Let the axis of ζ begin at 0."""
    tilts = results.world.sizes.tilts
    ax.set_xscale("symlog", linthresh=1, linscale=0.5)
    ax.set_xticks(tilts, [f"{zeta:g}" for zeta in tilts])


PANELS = [
    [
        *(Lines(data="order", at={"network": name}, y="error", x="epochs", ylabel=ERROR,
                xlabel="epochs", title=f"{name}, sorted by label")
          for name in NETWORKS),
        LogLog(data=lambda r: stationary(r, "tilt"), x="zeta", hollow=["ED"],
               also=[beside("D-RR", 2, "$\\propto \\zeta^2$"), from_zero],
               xlabel="heterogeneity  $\\zeta$", title="ring, tilted by $\\zeta$"),
    ],
    [
        *(partial(stepsizes, network) for network in NETWORKS),
        LogLog(data=lambda r: stationary(r, "gap").sel(network=list(NETWORKS)), x="inverse_gap",
               hollow=["ED, ring", "ED, grid"], by=("algorithm", "network"), ticks=False,
               xlabel="$1/(1-\\lambda)$", title="$\\zeta$ = 1 (grid dashed)", legend=None),
    ],
]  # fmt: skip
STUDY = Study(
    name="gtrr",
    paper="Huang, Zhou, Pu (2025), GT-RR and ED-RR, arXiv 2306.12037",
    question="What does random reshuffling gain from removing the agents' heterogeneity?",
    scales=SCALES,
    world=lambda sizes, seed: World(SimpleNamespace(**sizes), seed),
    parts={"runs": Part("algorithm", programs)}
    | {group: derived(partial(of_group, group)) for group in GROUPS},
    claims=CLAIMS,
    figures={"gtrr": Figure(PANELS, height=2.3)},
    tables={"crossovers": ("where D-RR's error is another's, and predictions", crossovers)},
    minutes={"quick": 0.5, "default": 4, "full": 120},
    data=lambda world: (
        f"{world.sizes.agents} agents with {world.sizes.samples} samples each; shuffled, at x*: "
        f"σ² = {world.facts[0]:.3g}, μ = {world.facts[1]:.3g}"
    ),
)
