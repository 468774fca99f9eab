"""GT-RR and ED-RR: what random reshuffling gains from removing heterogeneity (arXiv 2306.12037).

Logistic regression on real data, split over the agents of a ring and of a grid; component gradients
one at a time, constant stepsizes, the error (1/n) Σᵢ |xᵢ − x*|² at the starts of epochs. Questions:

- order: with the data sorted by label, at one small stepsize for all, who is how close?
- tilt: what does heterogeneity alone cost? To fᵢ a linear term ζ cᵢᵀx is added, Σᵢ cᵢ = 0, which
  changes neither F nor the samples nor their noise; the permutations are the same for all ζ.
- crossover: up to which stepsize is D-RR (bias α²ζ²/(1−λ)²) better than the methods that remove
  heterogeneity and sample with replacement (noise α σ²/(nμ))?
- gap: how does the error depend on the spectral gap 1 − λ? W becomes I − θ(I − W), which has the
  same eigenvectors and θ times the gap.

All methods mix with the same matrix (I + Metropolis)/2 (exact diffusion and ED-RR by relaxation=1).
DSGT is its ATC form (`jd.ATCGT`), which GT-RR is with one sample an agent. cᵢ = vᵢu, v along the
eigenvector of λ and u a random direction: the slowest disagreement, which the bounds are for. Where
it is added the data are shuffled, and what is left of their own heterogeneity at x* is taken out,
so that (1/n) Σᵢ |∇fᵢ(x*)|² = ζ² exactly. Everything in float64.

The paper's settings are not known to us, so its figures are not reproduced, but its claims tested:
on breast cancer data over 16 agents, or (``scale="full"``) the digits 0-4 against 5-9 over 50. The
nonconvex rate is not tested. How to read the results:

- The bounds' exponents in 1/(1−λ) are upper ones. GT-RR and ED-RR stay below 1, GT-RR the more the
  smaller the gap: noise that is slower than an epoch cancels, and where 1/(1−λ) is longer than an
  epoch there is no more of it to come. D-RR's 3 is its bound's; the bias has 2 and leaves it only
  where α is no longer small against 1 − λ.
- DSGT's and ED's exponents in α are a little above 1, as part of their error is α²σ²/(1−λ).
- A stationary error is a mean over few relaxation times 1/(αμ) at the smallest stepsizes: that of
  methods that sample with replacement is good to 10 or 20 % there, and so are crossovers.
- Restarts hurt ED-RR less than GT-RR. Without heterogeneity (ζ = 0) they do not hurt, and D-RR
  itself is as good as GT-RR.
"""

import dataclasses
import functools
import itertools
import math
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
from jaxdopt.problems.linear import logistic_loss

L2 = 0.2
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
WITH_REPLACEMENT = ("DSGT", "ED", "DSGD")
MAIN = ("GT-RR", "ED-RR", "D-RR", "DSGT", "ED")
WHO = {
    "order": ("centralized RR", *MAIN, "DSGD"),
    "tilt": (*MAIN, "GT-RR, restart", "ED-RR, restart"),
    "crossover": ("GT-RR", "ED-RR", "DSGT", "ED"),
    "bias": ("D-RR",),
    "gap": MAIN,
}
"""The methods of each part."""
AXES = {
    "order": ("network",),
    "tilt": ("zeta",),
    "crossover": ("network", "stepsize"),
    "bias": ("network", "zeta", "stepsize"),
    "gap": ("network", "laziness"),
}
"""What each part sweeps over; ζ = 1 where it is not among them."""


@dataclasses.dataclass(frozen=True)
class Scale:
    """Sizes, and the values that the parts sweep over."""

    agents: int
    samples: int  # an agent, and so the steps of an epoch
    epochs: int
    every: int  # epochs between two records
    seeds: int
    small: float  # the stepsize of the orders and of the tilts
    smallest: float  # and that of the gaps
    stepsizes: tuple[float, ...]
    tilts: tuple[float, ...]
    crossed: tuple[float, ...]  # the tilts of the crossovers
    laziness: tuple[float, ...]
    networks: tuple[str, ...] = ("ring", "grid")
    left_out: tuple[str, ...] = ()  # methods


SCALES = {
    "quick": Scale(
        agents=16,
        samples=12,
        epochs=300,
        every=10,
        seeds=1,
        small=0.04,
        smallest=0.01,
        stepsizes=(0.005, 0.015, 0.045),
        tilts=(0, 10, 100),
        crossed=(0.1, 1.0),
        laziness=(1, 0.25),
        left_out=("ED", "DSGD", "ED-RR, restart"),
    ),
    "small": Scale(
        agents=16,
        samples=35,
        epochs=700,
        every=5,
        seeds=3,
        small=0.01,
        smallest=0.002,
        stepsizes=tuple(np.geomspace(7e-4, 2e-2, 6).tolist()),
        tilts=(0, 1, 3, 10, 30, 100),
        crossed=(0.05, 0.1, 0.2, 1.0),
        laziness=(1, 0.5, 0.25, 0.125, 0.0625),
    ),
    "full": Scale(
        agents=50,
        samples=35,
        epochs=8000,
        every=20,
        seeds=5,
        small=0.005,
        smallest=0.001,
        stepsizes=tuple(np.geomspace(1e-4, 2e-2, 8).tolist()),
        tilts=(0, 1, 3, 10, 30, 100),
        crossed=(0.02, 0.05, 0.1, 0.2, 1.0),
        laziness=(1, 0.5, 0.25, 0.125, 0.0625),
    ),
}


@jd.pytree
class Case:
    """One run's problem, its start, its network and its stepsize; all leaves can be swept."""

    problem: Any
    x0: Any  # [n, d]
    network: Any
    stepsize: Any


def tilted_loss(x: jax.Array, sample: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
    """log(1 + exp(−b aᵀx)) + cᵀx for a sample (a, b, c); c is the same for all of an agent's."""
    a, b, c = sample
    return logistic_loss(x, (a, b)) + c @ x


@functools.lru_cache
def problem(size: Scale, partition: str, seed: int = 0) -> Any:
    """Return logistic regression with unit rows and a column of ones, tilts all zero.

    ``partition`` is "sorted" (by label) or "shuffled"; every agent has as many samples.
    """
    if size.agents <= 16:
        data = jd.data.breast_cancer()
        labels = data.labels
    else:
        data = jd.data.digits()
        labels = data.labels >= 5
    rows = np.column_stack([data.features, np.ones(len(labels))])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    chosen = np.random.default_rng(seed).permutation(len(labels))[: size.agents * size.samples]
    rows, signs = rows[chosen], np.where(labels[chosen], 1.0, -1.0)
    how = "by_label" if partition == "sorted" else jd.partition.iid(seed)
    a, b = jd.partition.split((rows, signs), signs, agents=size.agents, partition=how)
    a, b = np.stack(a), np.stack(b)
    return jd.problems.FiniteSum(
        tilted_loss, (a, b, np.zeros_like(a)), np.zeros(a.shape[-1]), l2=L2
    ).solved()


def tilted(whole: Any, tilts: np.ndarray) -> Any:
    """Return the problem with the tilts [n, d], which sum to zero: the same F, x* and noise."""
    a, b, _ = whole.data
    return jd.replace(whole, data=(a, b, np.broadcast_to(tilts[:, None], a.shape)))


def matrix(name: str, agents: int, laziness: float = 1.0) -> np.ndarray:
    """Return I − θ(I − W), W = (I + Metropolis)/2 of the ring or of the grid, θ the laziness."""
    side = next(s for s in range(math.isqrt(agents), 0, -1) if agents % s == 0)
    graph = jd.graphs.ring(agents) if name == "ring" else jd.graphs.grid(side, agents // side)
    metropolis = jd.networks.metropolis(graph).csr().toarray()
    return np.eye(agents) - laziness / 2 * (np.eye(agents) - metropolis)


def network(name: str, agents: int, laziness: float = 1.0) -> Any:
    """Return the network of `matrix`; all have one form, so that one program serves them."""
    return jd.networks.mixing(matrix(name, agents, laziness), form=jd.networks.Dense)


def spectral_gap(name: str, agents: int, laziness: float = 1.0) -> float:
    """Return 1 − λ."""
    return 1 - float(np.linalg.eigvalsh(matrix(name, agents, laziness))[-2])


def directions(name: str, whole: Any, seed: int = 0) -> np.ndarray:
    """Return c [n, d], along the eigenvector of λ, with Σᵢ cᵢ = 0 and (1/n) Σᵢ |cᵢ|² = 1."""
    slow = np.linalg.eigh(matrix(name, whole.n))[1][:, -2]
    along = np.random.default_rng(seed).standard_normal(whole.d)
    return np.outer(slow - slow.mean(), along / np.linalg.norm(along)) * math.sqrt(whole.n)


@functools.lru_cache
def own_tilts(size: Scale, seed: int = 0) -> np.ndarray:
    """Return the gradients of the shuffled problem's agents at x*, [n, d], which sum to zero."""
    whole = problem(size, "shuffled", seed)
    own = np.asarray(jax.jit(whole.grad)(whole.start(whole.solution)))
    return own - own.mean(0)


def case(size: Scale, part: str, at: Mapping[str, Any], seed: int = 0) -> Case:
    """Return the case of a part at one of the points that it sweeps over."""
    name = at.get("network", "ring")
    stepsize = np.float64(at.get("stepsize", size.smallest if part == "gap" else size.small))
    mixing = network(name, size.agents, at.get("laziness", 1.0))
    if part == "order":
        whole = problem(size, "sorted", seed)
        return Case(whole, whole.start(), mixing, stepsize)
    whole = problem(size, "shuffled", seed)
    tilts = at.get("zeta", 1.0) * directions(name, whole, seed) - own_tilts(size, seed)
    return Case(tilted(whole, tilts), whole.start(whole.solution), mixing, stepsize)


def stacked(cases: Sequence[Case]) -> Case:
    """Return the cases as one, to be swept over; on the host, as each may be large."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *cases)


def simulate(
    case: Case, key: jax.Array, method: Any, *, replacement: bool, steps: int, every: int
) -> Any:
    """Run a method on a case; methods that sample with replacement get minibatches of one."""
    whole = jd.problems.Minibatch(case.problem, 1) if replacement else case.problem
    method = jd.replace(method, stepsize=case.stepsize)
    return jd.run(method, whole, case.network, case.x0, key, steps=steps, every=every)


def points(size: Scale, part: str) -> dict[str, Sequence[Any]]:
    """Return the coordinates of a part."""
    values = {
        "network": size.networks,
        "zeta": size.tilts if part == "tilt" else size.crossed,
        "stepsize": size.stepsizes,
        "laziness": size.laziness,
    }
    return {axis: values[axis] for axis in AXES[part]}


def measure(
    size: Scale,
    parts: Sequence[str] = tuple(AXES),
    methods: Sequence[str] = tuple(METHODS),
    *,
    seed: int = 0,
    progress: bool = True,
) -> dict[str, xr.Dataset]:
    """Return each part's errors: algorithm, what it sweeps over, seed, epoch.

    One program a method runs all cases of all parts.
    """
    grids = {part: points(size, part) for part in parts}
    flat = {
        part: [
            case(size, part, dict(zip(grid, point, strict=True)), seed)
            for point in itertools.product(*grid.values())
        ]
        for part, grid in grids.items()
    }
    keys = jax.vmap(jax.random.key)(jnp.arange(seed, seed + size.seeds))
    found: dict[str, list[xr.DataArray]] = {part: [] for part in parts}
    chosen = [name for part in parts for name in WHO[part]]
    chosen = [name for name in methods if name in chosen and name not in size.left_out]
    for name in tqdm(chosen, unit="method", disable=not progress):
        mine = [part for part in parts if name in WHO[part]]
        result = jd.sweep(simulate, over=("case", "key"))(
            stacked([member for part in mine for member in flat[part]]),
            keys,
            METHODS[name],
            replacement=name in WITH_REPLACEMENT,
            steps=size.epochs * size.samples,
            every=size.every * size.samples,
        )
        history = result.history
        errors = history["distance_squared"] + history["consensus_error"]
        for part in mine:
            now, errors = np.split(errors, [len(flat[part])])
            shape = [len(values) for values in grids[part].values()]
            found[part].append(
                xr.DataArray(
                    now.reshape(*shape, *now.shape[1:]),
                    {
                        **{axis: list(values) for axis, values in grids[part].items()},
                        "seed": range(seed, seed + size.seeds),
                        "epoch": np.arange(0, size.epochs + 1, size.every),
                    },
                    [*grids[part], "seed", "epoch"],
                    name="error",
                ).expand_dims(algorithm=[name])
            )
    datasets = {part: xr.concat(rows, "algorithm").to_dataset() for part, rows in found.items()}
    if "gap" in datasets:
        gaps = [
            [spectral_gap(name, size.agents, theta) for theta in size.laziness]
            for name in size.networks
        ]
        datasets["gap"] = datasets["gap"].assign_coords(spectral_gap=(AXES["gap"], gaps))
    return datasets


def stationary(dataset: xr.Dataset) -> xr.DataArray:
    """Return the mean error over the second half of the epochs, and over seeds."""
    last = dataset.error.sel(epoch=slice(int(dataset.epoch[-1]) // 2, None))
    return last.mean(["epoch", "seed"])


@functools.lru_cache
def facts(size: Scale, seed: int = 0) -> dict[str, float]:
    """Return what the predictions need of the shuffled problem.

    ``variance`` σ² of component gradients within the agents at x*, ``mu``, and tr(H⁻¹S), where H is
    the Hessian of F there and S the covariance, of trace σ².
    """
    whole = problem(size, "shuffled", seed)
    a, b, _ = map(np.asarray, whole.data)
    wrong = 1 / (1 + np.exp(b * (a @ np.asarray(whole.solution))))
    gradients = (-b * wrong)[..., None] * a
    away = (gradients - gradients.mean(1, keepdims=True)).reshape(-1, whole.d)
    rows = a.reshape(-1, whole.d)
    curvature = (wrong * (1 - wrong)).reshape(-1, 1)
    covariance = away.T @ away / len(away)
    hessian = rows.T @ (curvature * rows) / len(rows) + L2 * np.eye(whole.d)
    return {
        "variance": float(np.trace(covariance)),
        "mu": float(np.linalg.eigvalsh(hessian)[0]),
        "trace": float(np.trace(np.linalg.solve(hessian, covariance))),
    }


def predicted_crossover(size: Scale, name: str, zeta: float, seed: int = 0) -> tuple[float, float]:
    """Return the stepsize where D-RR's bias is the others' noise: its order, and more precisely.

    The order is (1−λ)²σ²/(nμζ²). More precisely, at small α the bias is (αζλ/(1−λ))², as v is an
    eigenvector, and the noise α tr(H⁻¹S)/(2n).
    """
    about, gap = facts(size, seed), spectral_gap(name, size.agents)
    order = gap**2 * about["variance"] / (size.agents * about["mu"] * zeta**2)
    precise = (gap / (1 - gap)) ** 2 * about["trace"] / (2 * size.agents * zeta**2)
    return order, precise


def crossover(biased: xr.DataArray, other: xr.DataArray) -> tuple[float, bool]:
    """Return the stepsize at which D-RR's error is another's, and whether it is between those run.

    Linear in logarithms between the two neighbors, or beyond the last two.
    """
    x = np.log(biased.stepsize.values)
    ratio = np.log(biased.values / other.values)
    signs = np.flatnonzero(np.diff(np.sign(ratio)))
    i = int(signs[0]) if len(signs) else (0 if ratio[0] > 0 else len(x) - 2)
    found = x[i] - ratio[i] * (x[i + 1] - x[i]) / (ratio[i + 1] - ratio[i])
    return float(np.exp(found)), len(signs) > 0


def crossovers(datasets: Mapping[str, xr.Dataset], size: Scale, seed: int = 0) -> xr.Dataset:
    """Return the stepsizes where D-RR's error is DSGT's and ED's: algorithm, network, zeta.

    The errors of DSGT and of ED are those at ζ = 1, as they depend on ζ no more than GT-RR's do.
    """
    biased = stationary(datasets["bias"]).sel(algorithm="D-RR")
    others = stationary(datasets["crossover"])
    names = [name for name in ("DSGT", "ED") if name in others.algorithm]
    shape = (len(names), biased.sizes["network"], biased.sizes["zeta"])
    found, inside = np.zeros(shape), np.zeros(shape, bool)
    order, precise = np.zeros(shape[1:]), np.zeros(shape[1:])
    for j, name in enumerate(biased.network.values):
        for k, zeta in enumerate(biased.zeta.values):
            order[j, k], precise[j, k] = predicted_crossover(size, str(name), float(zeta), seed)
            for i, other in enumerate(names):
                found[i, j, k], inside[i, j, k] = crossover(
                    biased.sel(network=name, zeta=zeta), others.sel(network=name, algorithm=other)
                )
    axes = ("algorithm", "network", "zeta")
    return xr.Dataset(
        {
            "stepsize": (axes, found),
            "inside": (axes, inside),
            "order": (axes[1:], order),
            "precise": (axes[1:], precise),
        },
        {"algorithm": names, "network": biased.network, "zeta": biased.zeta},
    )


def slope(x: Any, y: Any) -> float:
    """Return the slope of log y over log x, least squares."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def errors_table(dataset: xr.Dataset) -> pd.DataFrame:
    """Return stationary errors: a line a point of the sweep, a column a method."""
    errors = stationary(dataset)
    axes = [str(axis) for axis in errors.dims if axis != "algorithm"]
    rows = []
    for point in itertools.product(*(errors[axis].values for axis in axes)):
        here = errors.sel(dict(zip(axes, point, strict=True)))
        texts = [value if isinstance(value, str) else f"{value:.3g}" for value in point]
        if "spectral_gap" in errors.coords:
            texts.append(f"{float(here.spectral_gap):.2g}")
        rows.append((*map(str, texts), *(number(float(value)) for value in here.values)))
    header = [*axes, *(["spectral gap"] if "spectral_gap" in errors.coords else [])]
    return pd.DataFrame(rows, columns=(*header, *errors.algorithm.values))


def crossover_table(crossed: xr.Dataset) -> pd.DataFrame:
    """Return where D-RR's error is DSGT's and ED's, beside what is predicted."""
    rows = []
    for name, zeta in itertools.product(crossed.network.values, crossed.zeta.values):
        here = crossed.sel(network=name, zeta=zeta)
        found = [
            f"{float(value):.2g}" + ("" if inside else " (extrapolated)")
            for value, inside in zip(here.stepsize.values, here.inside.values, strict=True)
        ]
        predicted = [f"{float(value):.2g}" for value in (here.precise, here.order)]
        rows.append((str(name), f"{zeta:g}", *found, *predicted))
    return pd.DataFrame(
        rows,
        columns=(
            "network",
            "zeta",
            *(f"D-RR = {other}" for other in crossed.algorithm.values),
            "(gap/lambda)^2 tr(H^-1 S)/(2 n zeta^2)",
            "gap^2 sigma^2/(n mu zeta^2)",
        ),
    )


RATES = {
    "GT-RR": (2, "O(1/((1-lambda) m T^2)): abstract, alpha ~ 1/(m T)"),
    "ED-RR": (2, "O(1/((1-lambda) m T^2)): abstract, alpha ~ 1/(m T)"),
    "D-RR": (2, "O(1/T^2): abstract of 2112.15287"),
    "DSGT": (1, "noise alpha sigma^2/(n mu): textbook"),
    "ED": (1, "noise alpha sigma^2/(n mu): textbook"),
}
"""The exponent of the stationary error in the stepsize, and from what."""
GAPS = {
    "GT-RR": (1, "at most, O(1/((1-lambda) m T^2)): abstract"),
    "ED-RR": (1, "at most, O(1/((1-lambda) m T^2)): abstract"),
    "D-RR": (3, "at most, O(1/((1-lambda)^3 m T^2)): the paper's comparison, from memory"),
    "DSGT": (1, "at most: alpha sigma^2/(n mu) without, alpha^2 sigma^2/(1-lambda) with it"),
    "ED": (1, "at most: alpha sigma^2/(n mu) without, alpha^2 sigma^2/(1-lambda) with it"),
}
"""The exponent of the stationary error in 1/(1−λ), and from what."""


def yes(met: Any) -> str:
    """Return a verdict."""
    return "yes" if met else "no"


def claims_table(datasets: Mapping[str, xr.Dataset], size: Scale, seed: int = 0) -> pd.DataFrame:
    """Return the claims beside the measurements."""
    rows = []
    errors = stationary(datasets["order"])
    for name in errors.network.values:
        e = {str(a): float(errors.sel(network=name, algorithm=a)) for a in errors.algorithm.values}
        best = min((a for a in ("D-RR", "DSGT", "ED") if a in e), key=e.__getitem__)
        ladder = ("centralized RR", "GT-RR", "ED-RR", best)
        met = all(e[a] <= 1.05 * e[b] for a, b in itertools.pairwise(ladder))
        rows.append(
            (
                f"{name}, small stepsize: CRR < GT-RR <= ED-RR < min(D-RR, DSGT, ED)",
                "paper's theorems",
                "in order, to 5 %",
                ", ".join(f"{a} {e[a]:.1e}" for a in ladder),
                yes(met),
            )
        )
    errors = stationary(datasets["tilt"])
    for name in ("GT-RR", "ED-RR"):
        here = errors.sel(algorithm=name)
        spread = float(here.max() / here.min()) - 1
        claim = f"{name}: error does not depend on zeta = 0 ... {errors.zeta.max():g}"
        rows.append((claim, "derived", "0, to 1 %", f"{spread:.1e}", yes(spread <= 0.01)))
    large = errors.sel(zeta=errors.zeta >= 1)
    fit = slope(large.zeta, large.sel(algorithm="D-RR"))
    rows.append(("D-RR: error ~ zeta^2", "derived", "2", f"{fit:.2f}", yes(abs(fit - 2) < 0.1)))
    for name in ("GT-RR, restart", "ED-RR, restart"):
        if name not in errors.algorithm:
            continue
        here = errors.sel(algorithm=name)
        growth = float(here.isel(zeta=-1) / here.isel(zeta=0))
        claim = f"{name}: error grows from zeta = 0 to {errors.zeta.max():g}"
        rows.append((claim, "derived", "> 1 times", f"{growth:.2g} times", yes(growth > 1.01)))
    crossed = crossovers(datasets, size, seed)
    ratios = (crossed.stepsize / crossed.order).where(crossed.inside)
    rows.append(
        (
            "D-RR beats DSGT and ED below alpha ~ (1-lambda)^2 sigma^2/(n mu zeta^2)",
            "derived",
            "1 times, as an order",
            f"{float(ratios.min()):.2f} to {float(ratios.max()):.2f} times",
            yes(ratios.min() > 0.1 and ratios.max() < 10),
        )
    )
    errors = xr.concat(
        [
            stationary(datasets["crossover"]),
            stationary(datasets["bias"]).isel(zeta=-1, drop=True),
        ],
        "algorithm",
    )
    lowest = errors.isel(stepsize=slice(0, 3))
    for name, (exponent, source) in RATES.items():
        for where in errors.network.values if name in errors.algorithm else ():
            fit = slope(lowest.stepsize, lowest.sel(algorithm=name, network=where))
            claim = f"{name}, {where}: error ~ alpha^p, three smallest alpha"
            met = yes(abs(fit - exponent) < 0.2)
            rows.append((claim, source, f"p = {exponent}", f"{fit:.2f}", met))
    errors = stationary(datasets["gap"])
    for name, (exponent, source) in GAPS.items():
        for where in errors.network.values if name in errors.algorithm else ():
            here = errors.sel(algorithm=name, network=where)
            fit = slope(1 / here.spectral_gap, here)
            claim = f"{name}, {where}: error ~ (1/(1-lambda))^p"
            met = yes(fit < exponent + 0.1)
            rows.append((claim, source, f"p <= {exponent}", f"{fit:.2f}", met))
            if name == "D-RR":
                derived = "derived: bias alpha^2 zeta^2/(1-lambda)^2"
                rows.append((claim, derived, "p = 2", f"{fit:.2f}", yes(abs(fit - 2) < 0.2)))
    return pd.DataFrame(rows, columns=("claim", "source", "claimed", "measured", "met"))


COLORS: dict[str, str] = dict(zip((*MAIN, "DSGD", "centralized RR"), jd.plot.PALETTE, strict=True))
MARKS: dict[str, str] = dict(zip((*MAIN, "DSGD", "centralized RR"), "osD^vPX", strict=True))
ERROR = "error  $\\frac{1}{n}\\sum_i |x_i - x^\\star|^2$"


def line(ax: Any, name: str, x: Any, y: Any, **options: Any) -> None:
    """Draw a method's line, in its color everywhere; restarted methods are dashed."""
    method = name.split(",")[0]
    style = {"color": COLORS[method], "marker": MARKS[method], "markersize": 5, "label": name}
    if "restart" in name:
        style |= {"linestyle": "--", "markerfacecolor": "none"}
    ax.plot(x, y, **(style | options))


def draw_order(ax: Any, dataset: xr.Dataset, name: str, size: Scale) -> None:
    """Draw the errors over epochs on one network."""
    ends = stationary(dataset).sel(network=name)
    middle = dataset.error.sel(network=name).mean("seed")
    floor = ends.min()
    for i, method in enumerate(dataset.algorithm.values):
        every = max(len(middle.epoch) // 8, 1)
        marks = (i * every // 8, every)
        line(ax, str(method), middle.epoch, middle.sel(algorithm=method), markevery=marks)
    start = float(middle.isel(epoch=0).max())
    ax.set(yscale="log", xlabel=jd.plot.NAMES["epochs"], ylabel=ERROR)
    ax.set_ylim(float(floor) / 20, 3 * start)
    gap = spectral_gap(name, size.agents)
    text = f"sorted by label, {name} of {size.agents}, gap {gap:.3f}"
    ax.set_title(f"{text}, $\\alpha$ = {size.small:g}", fontsize=10)
    ax.legend(fontsize=8, ncols=2)


def draw_tilt(ax: Any, dataset: xr.Dataset, size: Scale) -> None:
    """Draw the stationary errors over the tilt."""
    errors = stationary(dataset)
    for name in errors.algorithm.values:
        line(ax, str(name), errors.zeta, errors.sel(algorithm=name))
    x = np.array([float(errors.zeta[-1]) / 30, float(errors.zeta[-1])])
    last = float(errors.sel(algorithm="D-RR").isel(zeta=-1))
    ax.plot(x, 3 * last * (x / x[1]) ** 2, color="0.6", linewidth=1, label="$\\zeta^2$")
    ax.set_xscale("symlog", linthresh=1, linscale=0.5)
    ax.set_xlim(-0.1, 1.4 * x[1])
    ax.set(yscale="log", xlabel="heterogeneity  $\\zeta$", ylabel=ERROR)
    ax.set_title(f"shuffled and tilted, ring, $\\alpha$ = {size.small:g}", fontsize=10)
    ax.legend(fontsize=8)


def draw_crossover(
    ax: Any, datasets: Mapping[str, xr.Dataset], name: str, size: Scale, seed: int = 0
) -> None:
    """Draw the errors over the stepsize, and where D-RR's cross those of DSGT and ED."""
    others = stationary(datasets["crossover"]).sel(network=name)
    biased = stationary(datasets["bias"]).sel(network=name, algorithm="D-RR")
    crossed = crossovers(datasets, size, seed).sel(network=name)
    for method in others.algorithm.values:
        line(ax, str(method), others.stepsize, others.sel(algorithm=method))
    for i, zeta in enumerate(biased.zeta.values):
        here = biased.sel(zeta=zeta)
        line(ax, "D-RR", here.stepsize, here, label=None if i else "D-RR")
        where = (float(here.stepsize[-1]), float(here[-1]))
        ax.annotate(f"  $\\zeta$ = {zeta:g}", where, fontsize=8, va="center", color=COLORS["D-RR"])
        for method in crossed.algorithm.values:
            at = crossed.sel(algorithm=method, zeta=zeta)
            if at.inside:
                x = np.log([others.stepsize.values, others.sel(algorithm=method).values])
                height = np.exp(np.interp(np.log(at.stepsize), *x))
                style = {"s": 110, "facecolors": "none", "edgecolors": "k", "zorder": 5}
                ax.scatter([at.stepsize], [height], **style)
        if others.stepsize[0] < crossed.precise.sel(zeta=zeta) < others.stepsize[-1]:
            predicted = float(crossed.precise.sel(zeta=zeta))
            ax.axvline(predicted, color="0.6", linewidth=1, linestyle="--")
    ax.scatter([], [], s=110, facecolors="none", edgecolors="k", label="crossover")
    ax.plot([], [], color="0.6", linewidth=1, linestyle="--", label="crossover, predicted")
    ax.set(xscale="log", yscale="log", xlabel=jd.plot.NAMES["stepsize"], ylabel=ERROR)
    ax.set_xlim(right=2.5 * float(others.stepsize[-1]))
    ax.set_ylim(top=100 * float(biased.max()))  # for the legend
    gap = spectral_gap(name, size.agents)
    ax.set_title(f"shuffled and tilted, {name}, gap {gap:.3f}", fontsize=10)
    ax.legend(fontsize=8, ncols=2, loc="upper left", framealpha=1)


def draw_gap(ax: Any, dataset: xr.Dataset, size: Scale) -> None:
    """Draw the stationary errors over the spectral gap: full markers the ring, empty the grid."""
    from matplotlib.ticker import NullFormatter

    errors = stationary(dataset)
    for name, where in itertools.product(errors.algorithm.values, errors.network.values):
        here = errors.sel(algorithm=name, network=where)
        first = where == errors.network.values[0]
        style = {} if first else {"markerfacecolor": "none", "linestyle": ":"}
        label = str(name) if first else None
        line(ax, str(name), 1 / here.spectral_gap, here, **(style | {"label": label}))
    here = errors.sel(algorithm="D-RR").isel(network=0)
    x = 1 / here.spectral_gap.values
    ax.plot(x, 3 * here.values[0] * (x / x[0]) ** 2, color="0.6", linewidth=1, label="slope 2")
    ax.set(xscale="log", yscale="log", xlabel="inverse spectral gap  $1/(1-\\lambda)$")
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_ylabel(ERROR)
    names = " and ".join(
        f"{where} ({dashes})"
        for where, dashes in zip(errors.network.values, ("solid", "dotted"), strict=False)
    )
    text = f"{names}, $\\zeta$ = 1, $\\alpha$ = {size.smallest:g}"
    ax.set_title(text, fontsize=10)
    ax.legend(fontsize=8, ncols=2, loc="upper left", framealpha=1)


def order_figure(datasets: Mapping[str, xr.Dataset], size: Scale) -> Any:
    """Return the errors over epochs, a panel a network."""
    import matplotlib.pyplot as plt

    names = [str(name) for name in datasets["order"].network.values]
    fig, axes = plt.subplots(
        1, len(names), figsize=(5.6 * len(names), 4.2), sharey=True, layout="constrained"
    )
    for ax, name in zip(np.atleast_1d(axes), names, strict=True):
        draw_order(ax, datasets["order"], name, size)
    return fig


def crossover_figure(datasets: Mapping[str, xr.Dataset], size: Scale, seed: int = 0) -> Any:
    """Return the errors over stepsizes, a panel a network."""
    import matplotlib.pyplot as plt

    names = [str(name) for name in datasets["bias"].network.values]
    fig, axes = plt.subplots(
        1, len(names), figsize=(5.6 * len(names), 4.4), sharey=True, layout="constrained"
    )
    for ax, name in zip(np.atleast_1d(axes), names, strict=True):
        draw_crossover(ax, datasets, name, size, seed)
    return fig


def summary_figure(datasets: Mapping[str, xr.Dataset], size: Scale, seed: int = 0) -> Any:
    """Return one panel of each part."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(2, 2, figsize=(11, 8), layout="constrained")
    draw_order(axes[0, 0], datasets["order"], size.networks[0], size)
    draw_tilt(axes[0, 1], datasets["tilt"], size)
    draw_crossover(axes[1, 0], datasets, size.networks[-1], size, seed)
    draw_gap(axes[1, 1], datasets["gap"], size)
    return fig


def run(
    quick: bool, out: Path, seed: int, scale: str = "small", progress: bool = True
) -> list[Path]:
    """Run all parts, print the tables and return the files written into ``out``."""
    size = SCALES["quick" if quick else scale]
    about = facts(size, seed)
    print(
        f"{size.agents} agents with {size.samples} samples each; at x*, shuffled: "
        f"sigma^2 = {about['variance']:.3g}, mu = {about['mu']:.3g}; backend "
        f"{jax.default_backend()}"
    )
    datasets = measure(size, seed=seed, progress=progress)
    command = "python -m experiments gtrr" + (" --quick" if quick else f" --scale {scale}")
    return results.write(
        "gtrr",
        out,
        command=command + f" --seed {seed}",
        tables={
            **{
                part: (f"{part}: mean error over the second half of the epochs", errors_table(data))
                for part, data in datasets.items()
            },
            "crossovers": (
                "stepsizes where D-RR's error is that of DSGT and of ED, and predictions",
                crossover_table(crossovers(datasets, size, seed)),
            ),
            "claims": ("claims", claims_table(datasets, size, seed)),
        },
        datasets=datasets,
        figures={
            "summary": summary_figure(datasets, size, seed),
            "order": order_figure(datasets, size),
            "stepsizes": crossover_figure(datasets, size, seed),
        },
    )
