"""FedAvg under the general variance condition (arXiv 2301.12677).

The condition is E|gᵢ(x) − ∇fᵢ(x)|² ≤ C (fᵢ(x) − fᵢ*) + σ², and σ_f* = F* − (1/n) Σᵢ fᵢ* measures
heterogeneity; no bound on how much gradients differ is needed. Six questions:

* *bias*: with full gradients and a constant stepsize, how far from the solution does FedAvg end,
  over stepsizes α, local steps Q and heterogeneity? And where σ_f* = 0?
* *decreasing*: do stepsizes a₀ / (1 + c t) remove the bias, and with minibatches the noise?
* *participation*: with Q = 1, how do unequal probabilities of participation change the limit?
* *digits*: softmax regression, 20 clients, labels from sorted to shuffled: |∇F|² beside σ_f*.
* *measure*: for many problems, does σ_f* say how large the bias is, and do the gradients'
  differences? And does the condition hold with the C and σ² of `jd.problems.general_variance`?
* *servers*: the sorted digits, 5 of 20 clients a round, optax optimizers at the server, each at its
  own best server stepsize: rounds to a loss.

Synthetic problems are least squares with all smoothness constants at most 1, client i's labels
exact at θ + δ vᵢ: then all fᵢ* = 0, and so σ² = 0 for minibatches, whatever σ_f* (which grows
as δ²). At δ = 0 all clients share their minimizer: σ_f* = 0. Everything in float64.

What is derived here rather than taken from the paper, whose own experiments are not known to us
(its condition and σ_f* are from memory). A limit x of FedAvg with all clients, full gradients and
αL ≤ 2 has ∇F(x) = −(1/nQ) Σᵢ Σₗ (∇fᵢ(yᵢₗ) − ∇fᵢ(x)). Convex fᵢ have gradients that do not grow
along local steps, so |∇F(x)| ≤ αL(Q − 1)/2 · (1/n) Σᵢ |∇fᵢ(x)|, and as |∇fᵢ|² ≤ 2L (fᵢ − fᵢ*)

    |∇F(x)|² ≤ ½ (αL(Q − 1))² L (F(x) − F* + σ_f*).

That is an upper bound: clients with one Hessian have σ_f* > 0 and no bias, and where Hessians
hardly differ, as for shuffled digits, bias is far below it. To first order the bias of quadratics
is ½ α(Q − 1) H⁻¹ mean(Hᵢ∇fᵢ(x*)), and ζ² = mean|∇fᵢ(x*)|² ≤ 2L σ_f* bounds it as well: at x* the
gradients' differences are no worse a measure than σ_f*. What σ_f* replaces is a bound on them at
all x, which does not exist if Hessians differ.

Server optimizers: optax's Adam and Yogi are not those of arXiv 2003.00295, which has no bias
correction and v₀ = τ² (from memory); optax corrects both moments, Adam's v₀ is 0, and Yogi's first
moment starts at v₀ too. Adagrad adds its ε inside the root instead of τ outside. The published
FedAdam is run beside optax's: its steps at one server stepsize are longer by
(1 − β₁ᵗ) / (1 − β₂ᵗ)^½, so that it begins quickly. Rounds to the target differ by a tenth between
sets of seeds, and partial participation makes a noise that no constant server stepsize removes.
"""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
import xarray as xr
from scipy.stats import spearmanr
from tqdm import tqdm

import jaxdopt as jd
from experiments import results
from experiments.tables import number
from jaxdopt.networks import participation
from jaxdopt.plot.style import MARKERS

PAPER, ADAPTIVE = "arXiv 2301.12677", "arXiv 2003.00295"
CLIENTS, DIMENSION, SAMPLES = 8, 5, 10
SHIFTS = (0.0, 0.1, 1.0)  # δ
STEPSIZES = tuple(0.01 * 2.0**j for j in range(6))  # αL
LOCAL_STEPS = (1, 2, 5, 10, 20)
LINEAR = 0.2  # αL(Q − 1) up to which exponents are fitted
EXACT = 1e-12  # |x − x*| up to which a limit counts as exact
STEADY = (0.05, 10)  # αL and Q of everything else synthetic, and first steps where they decrease
OFFSET = 20.0  # 1/c in rounds
SCHEDULES = ("constant", "decreasing")
SYNTHETIC = {
    "one minimizer": (0.0,),
    "δ = 0.1": (0.1,),
    "δ = 1": (1.0,),
    "δ = 1, noisy labels": (1.0, 0.5, 1.0, 0.3),
}
"""Arguments of `regression`; what these problems do with minibatches is looked at."""
CHANCES = tuple(np.linspace(0.1, 0.9, CLIENTS))
LAWS = ("uniform", "equal chances", "unequal chances")  # of taking part, half of the clients

DIGITS_CLIENTS, L2 = 20, 1e-2
DIGITS_STEPS = (0.05, 10)  # α (αL = 0.34) and Q
SHARDS = {"sorted": 1, "2 shards": 2, "4 shards": 4, "shuffled": 0}
BATCH, PRESENT = 10, 5
TAU, FIRST, SECOND = 1e-3, 0.9, 0.99  # τ, β₁ and β₂ of Reddi et al., from memory
TARGET = 0.1  # of F − F*, mean over seeds and 50 rounds
SERVER_GRIDS = {
    "FedAvg": (-1.5, 0.5),
    "FedAvgM": (-2.5, -0.5),
    "FedAdam (optax)": (-3.0, -1.0),
    "FedAdam (published)": (-3.0, -1.0),
    "FedAdagrad": (-2.0, 0.0),
    "FedYogi": (-3.0, -1.0),
}  # log10 of the smallest and the largest server stepsize


@functools.cache
def regression(
    shift: float,
    spread: float = 0.5,
    scale: float = 1.0,
    rest: float = 0.0,
    seed: int = 0,
    aligned: bool = False,
) -> Any:
    """Return least squares of clients with Hessians that differ, the largest smoothness 1.

    Args:
        shift: δ; client i's minimizer is θ + δ vᵢ, |vᵢ| = 1.
        spread: of the Hessians, below 1; 0 for one Hessian.
        scale: |θ|, so that the start is far from the solution.
        rest: what no model explains: fᵢ* = rest² / 2.
        seed: of all random choices.
        aligned: whether Hessians and minimizers differ in one direction, up in half of the clients
            and down in the others, where bias is large for its σ_f*; else at random.
    """
    random, shape = np.random.default_rng(seed), (CLIENTS, DIMENSION, DIMENSION)
    theta, away = random.standard_normal(DIMENSION), random.standard_normal(shape[:2])
    differ = random.standard_normal(shape)
    if aligned:
        away = np.where(np.arange(CLIENTS) % 2, 1, -1)[:, None] * away[0]
        differ = away[:, :, None] * away[0]
    differ = differ + differ.transpose(0, 2, 1)
    differ *= spread / np.linalg.norm(differ, ord=2, axis=(1, 2))[:, None, None]
    root = np.diag(np.logspace(-0.15, 0, DIMENSION))
    hessians = root @ (np.eye(DIMENSION) + differ) @ root
    hessians /= np.linalg.norm(hessians, ord=2, axis=(1, 2)).max()
    basis = np.linalg.qr(random.standard_normal((CLIENTS, SAMPLES, SAMPLES)))[0] * SAMPLES**0.5
    features = basis[:, :, :DIMENSION] @ np.linalg.cholesky(hessians).transpose(0, 2, 1)
    own = scale * theta / np.linalg.norm(theta)
    own = own + shift * away / np.linalg.norm(away, axis=1, keepdims=True)
    labels = np.einsum("nmd,nd->nm", features, own) + rest * basis[:, :, -1]
    return jd.problems.least_squares(features, labels)


@functools.cache
def digits(seed: int = 0) -> tuple[dict[str, Any], Any]:
    """Return softmax regressions, one for each way to deal the digits out, and their accuracy."""
    train, held_out = jd.data.digits().split(0.2, seed)
    whole = DIGITS_CLIENTS * max(SHARDS.values())
    even = len(train.labels) // whole * whole  # so that F is the same however they are dealt out
    made = {
        name: jd.problems.softmax_regression(
            train.features[:even],
            train.labels[:even],
            agents=DIGITS_CLIENTS,
            l2=L2,
            partition=jd.partition.by_label(shards) if shards else jd.partition.iid(),
        )
        for name, shards in SHARDS.items()
    }
    return made, jd.metrics.accuracy(*held_out)


def schedules(initial: float, offset: float, local_steps: int) -> Any:
    """Return FedAvg with the stepsizes a₀ and a₀ / (1 + t / offset), stacked as `SCHEDULES`."""

    def one(offset: Any) -> Any:
        return jd.FedAvg(jd.schedules.Polynomial(initial, 1.0, offset), local_steps=local_steps)

    return jax.vmap(one)(jnp.array([1e30, offset]))


def estimate(state: Any, problem: Any) -> jax.Array:  # noqa: ARG001
    """Return the estimate [d]."""
    return state.estimate


def simulate(
    methods: Any,
    problems: Sequence[Any],
    network: Any,
    rounds: int,
    records: int,
    *,
    key: Any = None,
    over: Sequence[str] = ("problem", "algorithm"),
    inner: str = "",
    **axes: Any,
) -> xr.Dataset:
    """Return labelled histories of a sweep, and of a second one inside over a second axis."""
    run = jd.sweep(jd.run, over=(inner,)) if inner else jd.run
    result = jd.sweep(run, over=over)(
        methods,
        jd.stack(problems),
        network,
        problems[0].start(),
        jax.random.key(0) if key is None else key,
        steps=rounds,
        every=rounds // records,
        metrics={"x": estimate},
    )
    names = ["distance_squared", "gradient_norm_squared", "gap", "x"]
    return jd.label(result, **axes)[names]


def bias(stepsizes: Sequence[float], local_steps: Sequence[int], rounds: int) -> xr.Dataset:
    """Return |x − x*| at the end with full gradients: shift, stepsize, Q.

    Members share a program: all have the most local steps, after their own number they stand still.
    """
    problems = [regression(shift) for shift in SHIFTS]

    def method(a: jax.Array, q: jax.Array) -> Any:
        own = jnp.broadcast_to(q, (CLIENTS, 1))
        return jd.FedAvg(a, local_steps=max(local_steps), own_steps=own)

    over_steps = jax.vmap(jax.vmap(method, (None, 0)), (0, None))
    dataset = simulate(
        over_steps(jnp.array(stepsizes), jnp.array(local_steps)),
        problems,
        jd.networks.Server(CLIENTS),
        rounds,
        1,
        inner="algorithm",
        shift=SHIFTS,
        stepsize=stepsizes,
        Q=local_steps,
    )
    first = xr.DataArray([first_order(problem) for problem in problems], dims="shift")
    measures = xr.DataArray([measure(problem) for problem in problems], dims="shift")
    return xr.Dataset(
        {
            "error": np.sqrt(dataset.distance_squared.isel(step=-1, drop=True)),
            "expected": first * dataset.stepsize * (dataset.Q - 1),
            "measure": measures,
        }
    )


def first_order(problem: Any) -> float:
    """Return |½ H⁻¹ mean(Hᵢ ∇fᵢ(x*))|, the bias over α(Q − 1) for small steps."""
    features = np.asarray(problem.data[0])
    hessians = np.einsum("nmp,nmq->npq", features, features) / features.shape[1]
    tilts = np.asarray(problem.grad(problem.start(problem.solution)))
    turned = np.einsum("npq,nq->np", hessians, tilts).mean(axis=0)
    return float(np.linalg.norm(np.linalg.solve(hessians.mean(axis=0), turned)) / 2)


def measure(problem: Any) -> float:
    """Return σ_f*, 0 where it is so up to rounding."""
    gap = jd.problems.heterogeneity(problem).gap
    return gap if gap > 1e-13 else 0.0


@jax.jit
def dissimilarity(problem: Any, x: jax.Array) -> jax.Array:
    """Return (1/n) Σᵢ |∇fᵢ − ∇F|² at x [d]."""
    gradients = problem.grad(jnp.broadcast_to(x, (problem.n, problem.d)))
    return jnp.mean(jnp.sum((gradients - gradients.mean(axis=0)) ** 2, axis=1))


def over_rounds(rounds: int, seeds: int, seed: int = 0) -> xr.Dataset:
    """Return histories with both schedules: samples, problem, schedule, seed, step."""
    whole, parts = [regression(*case) for case in SYNTHETIC.values()], []
    for problems, keys in ((whole, 1), ([jd.problems.Minibatch(p, 1) for p in whole], seeds)):
        part = simulate(
            schedules(STEADY[0], OFFSET, STEADY[1]),
            problems,
            jd.networks.Server(CLIENTS),
            rounds,
            200,
            key=jax.random.split(jax.random.key(seed), keys),
            over=("problem", "algorithm", "key"),
            problem=list(SYNTHETIC),
            schedule=list(SCHEDULES),
            seed=keys,
        )
        parts.append(part)
    index: Any = xr.DataArray(["full gradients", "one sample"], dims="samples", name="samples")
    both: Any = xr.concat(parts, index, join="outer")
    return both


def unequal(shares: Any, problem: Any) -> np.ndarray:
    """Return the minimizer of Σᵢ qᵢ fᵢ of a least squares problem, [d]."""
    features, labels = map(np.asarray, problem.data)
    hessian = np.einsum("n,nmp,nmq->pq", shares, features, features)
    return np.linalg.solve(hessian, np.einsum("n,nmp,nm->p", shares, features, labels))


def weights(chances: Sequence[float]) -> np.ndarray:
    """Return qᵢ ∝ E[1{i takes part} / number of those who do], of independent clients."""
    shares = []
    for i, p in enumerate(chances):
        others = functools.reduce(
            np.convolve, [[1 - c, c] for j, c in enumerate(chances) if j != i], np.ones(1)
        )
        shares.append(p * np.sum(others / (1 + np.arange(len(others)))))
    return np.array(shares) / np.sum(shares)


def present(rounds: int, seeds: int, seed: int = 0) -> xr.Dataset:
    """Return histories with Q = 1 and full gradients: shift, schedule, law, seed, step.

    Participation is drawn here, so that one program serves the three laws: half of the clients,
    each one with probability 1/2, each one with its own. ``limit`` is where unequal chances are
    expected to lead, ``solution`` x*.
    """
    drawn = np.random.default_rng(seed).random((len(LAWS), seeds, rounds, CLIENTS))
    half = np.sort(drawn[0], axis=-1)[..., CLIENTS // 2 - 1 :][..., :1]
    rows = np.stack([drawn[0] <= half, drawn[1] < 0.5, drawn[2] < np.array(CHANCES)])
    shifts = (0.0, 1.0)
    problems = [regression(shift) for shift in shifts]
    dataset = simulate(
        schedules(STEADY[0] * STEADY[1], OFFSET, 1),
        problems,
        participation.Trace(jnp.asarray(rows), CLIENTS),
        rounds,
        200,
        over=("problem", "algorithm", "network"),
        inner="network",
        shift=shifts,
        schedule=list(SCHEDULES),
        law=list(LAWS),
        seed=seeds,
    )
    limits = [unequal(weights(CHANCES), problem) for problem in problems]
    dataset["limit"] = (("shift", "x_0"), np.stack(limits))
    dataset["solution"] = (("shift", "x_0"), np.stack([np.asarray(p.solution) for p in problems]))
    return dataset


def dealt(names: Sequence[str], rounds: int, seed: int = 0) -> xr.Dataset:
    """Return histories on the digits with full gradients: partition, schedule, step."""
    return simulate(
        schedules(DIGITS_STEPS[0], rounds / 10, DIGITS_STEPS[1]),
        [digits(seed)[0][name] for name in names],
        jd.networks.Server(DIGITS_CLIENTS),
        rounds,
        50,
        partition=list(names),
        schedule=list(SCHEDULES),
    )


def scatter(seeds: int, rounds: int) -> xr.Dataset:
    """Return |∇F|² at the end, constant steps and full gradients, of many problems: case."""
    cases = [
        (shift, spread, scale, rest, seed, aligned)
        for shift in (0.0, 0.01, 0.1, 1.0)
        for spread in (0.0, 0.2, 0.9)
        for scale, rest in ((1.0, 0.0), (10.0, 1.0))
        for seed in range(seeds)
        for aligned in (False, True)
    ]
    problems = [regression(*case) for case in cases]
    dataset = simulate(
        jd.FedAvg(STEADY[0], local_steps=STEADY[1]),
        problems,
        jd.networks.Server(CLIENTS),
        rounds,
        1,
        over=("problem",),
        case=len(cases),
    ).isel(step=-1, drop=True)
    values = {
        "measure": [measure(p) for p in problems],
        "at_start": [dissimilarity(p, p.origin) for p in problems],
        "at_solution": [dissimilarity(p, p.solution) for p in problems],
        "spread": [case[1] for case in cases],
    }
    values = {name: ("case", np.array(value)) for name, value in values.items()}
    return dataset[["gradient_norm_squared", "gap"]].assign(values)


@jax.jit
def spread_of(problem: Any, points: jax.Array) -> tuple[jax.Array, ...]:
    """Return clients' variances of one sample's gradient, fᵢ and |∇fᵢ|² at points: [r, n] each."""

    def at(x: jax.Array) -> tuple[jax.Array, ...]:
        rows, numbers = jnp.broadcast_to(x, (problem.n, problem.d)), jnp.arange(problem.most)
        each = jax.lax.map(lambda j: problem.grad_at(rows, jnp.full(problem.n, j)), numbers)
        mean = each.mean(axis=0)
        values = jax.vmap(lambda i: problem.take(i[None]).objective(x))(jnp.arange(problem.n))
        return ((each - mean) ** 2).sum(2).mean(0), values, (mean**2).sum(1)

    return jax.lax.map(at, points)


def condition(problem: Any, batch: int, points: np.ndarray) -> dict[str, float]:
    """Return the condition's numbers, and how much of its bounds is used along points [r, d].

    ``client`` is the largest variance of any client's minibatch gradient over
    C (fᵢ − fᵢ*) + σ², ``mean`` the same of their means, and ``gradients`` is mean|∇fᵢ|² over
    2L (F − F* + σ_f*). Where a bound is 0 up to rounding, nothing is divided.
    """
    own = [
        jd.problems.general_variance(jd.problems.Minibatch(problem.take(jnp.array([i])), batch))
        for i in range(problem.n)
    ]
    least = [client.sigma_squared / client.C for client in own]  # as σᵢ² is Cᵢ fᵢ*
    factor = max(client.C for client in own)
    floor = factor * max(least)  # both as `general_variance` has them for all clients
    variances, values, squares = map(np.asarray, spread_of(problem, jnp.asarray(points)))
    away, smoothness = values - np.array(least), float(problem.smoothness)

    def largest(part: np.ndarray, bound: np.ndarray) -> float:
        return float(np.max(np.where(bound > 1e-20, part / np.maximum(bound, 1e-20), 0)))

    mean, bounds = away.mean(axis=1), factor * away + floor
    return {
        "batch": batch,
        "L": smoothness,
        "C": factor,
        "sigma_squared": floor,
        "measure": max(float(problem.optimum) - float(np.mean(least)), 0.0),
        "at_solution": float(dissimilarity(problem, problem.solution)),
        "at_start": float(dissimilarity(problem, problem.origin)),
        "client": largest(variances / batch, bounds),
        "mean": largest(variances.mean(axis=1) / batch, bounds.mean(axis=1)),
        "gradients": largest(squares.mean(axis=1), 2 * smoothness * mean),
    }


def conditions(walks: xr.Dataset, deals: xr.Dataset, seed: int = 0) -> xr.Dataset:
    """Return the condition's numbers of all problems, along runs with constant steps: problem."""
    noisy = walks.x.sel(samples="one sample", schedule="constant").isel(seed=0)
    smooth = deals.x.sel(schedule="constant").isel(step=slice(None, None, 5))
    found = {
        name: condition(regression(*case), 1, noisy.sel(problem=name).values[:41])
        for name, case in SYNTHETIC.items()
    }
    for name in map(str, deals.partition.values):
        walk = smooth.sel(partition=name).values
        found[f"digits, {name}"] = condition(digits(seed)[0][name], BATCH, walk)
    keys = next(iter(found.values()))
    columns = {key: ("problem", [numbers[key] for numbers in found.values()]) for key in keys}
    return xr.Dataset(columns, {"problem": list(found)})


def digits_ends(deals: xr.Dataset, numbers: xr.Dataset) -> xr.Dataset:
    """Return |∇F|² at the digits' ends, beside the condition's numbers: partition."""
    last = deals.isel(step=-1, drop=True)
    own = numbers.sel(problem=[f"digits, {name}" for name in deals.partition.values])
    own = own.rename(problem="partition").assign_coords(partition=deals.partition)
    squares = last.gradient_norm_squared
    own = own.assign(
        gradient_norm_squared=squares.sel(schedule="constant", drop=True),
        decreasing=squares.sel(schedule="decreasing", drop=True),
        gap=last.gap.sel(schedule="constant", drop=True),
    )
    return own.assign(used=scaled(own, *DIGITS_STEPS, own.L) / (own.gap + own.measure))


def scaled(ends: xr.Dataset, stepsize: float, local_steps: int, smoothness: Any = 1.0) -> Any:
    """Return |∇F|² over ½ (αL(Q − 1))² L, which is at most F − F* + σ_f* where FedAvg ends."""
    squares = ends.gradient_norm_squared
    return squares / ((stepsize * smoothness * (local_steps - 1)) ** 2 * smoothness / 2)


def slope(x: Any, y: Any) -> float:
    """Return the exponent of a power law fitted to y over x."""
    return float(np.polyfit(np.log(np.asarray(x)), np.log(np.asarray(y)), 1)[0])


def exponents(grid: xr.Dataset) -> dict[str, list[float]]:
    """Return exponents of |x − x*|, one a line of the grid, where steps are small."""
    small = grid.error.where((grid.stepsize * (grid.Q - 1) <= LINEAR) & (grid.Q > 1))
    axes = {"stepsize": grid.stepsize, "Q": grid.Q - 1, "shift": grid.measure}
    found = {}
    for along, axis in axes.items():
        lines = small.isel(shift=slice(1, None)).stack(line=[d for d in axes if d != along])
        kept = [lines.isel(line=i).dropna(along) for i in range(lines.sizes["line"])]
        found[along] = [
            slope(axis.sel({along: line[along]}), line) for line in kept if line.size > 1
        ]
    return found


def ends_of(who: xr.Dataset) -> xr.Dataset:
    """Return root mean square distances at the end, from x* and from the limit expected: law."""
    apart = who.sel(shift=1.0, drop=True)
    last = apart.x.sel(schedule="decreasing", drop=True).isel(step=-1, drop=True)

    def distance(x: Any, point: xr.DataArray) -> xr.DataArray:
        return np.sqrt(((x - point) ** 2).sum("x_0"))

    same = who.distance_squared.sel(shift=0.0, schedule="constant", drop=True).isel(
        step=-1, drop=True
    )
    return xr.Dataset(
        {
            "away": np.sqrt((distance(last, apart.solution) ** 2).mean("seed")),
            "off": np.sqrt((distance(last, apart.limit) ** 2).mean("seed")),
            "expected": distance(apart.solution, apart.limit).expand_dims(law=who.law),
            "same": np.sqrt(same.mean("seed")),
        }
    )


def ranks(many: xr.Dataset) -> xr.Dataset:
    """Return Spearman's correlations of the bias with measures, where σ_f* > 0 and Hessians differ.

    A dataset over measure.
    """
    kept = many.isel(case=np.flatnonzero((many.spread > 0) & (many.measure > 0)))
    names = {"measure": "sigma_f*", "at_solution": "zeta^2 at x*", "at_start": "zeta^2 at x0"}
    values = [float(spearmanr(kept.gradient_norm_squared, kept[name])[0]) for name in names]  # type: ignore[arg-type]
    return xr.Dataset({"correlation": ("measure", values)}, {"measure": list(names.values())})


def published_adam() -> Any:
    """Return FedAdam's server optimizer without bias correction, from v₀ = τ²."""

    def init(x: jax.Array) -> Any:
        return jnp.zeros_like(x), jnp.full_like(x, TAU**2)

    def update(delta: jax.Array, memory: Any, _: Any = None) -> Any:
        m = FIRST * memory[0] + (1 - FIRST) * delta
        v = SECOND * memory[1] + (1 - SECOND) * delta**2
        return m / (jnp.sqrt(v) + TAU), (m, v)

    return optax.GradientTransformation(init, update)


def optimizers() -> dict[str, Any]:
    """Return the server optimizers by name."""
    return {
        "FedAvg": None,
        "FedAvgM": optax.trace(FIRST),
        "FedAdam (optax)": optax.scale_by_adam(FIRST, SECOND, eps=TAU),
        "FedAdam (published)": published_adam(),
        "FedAdagrad": optax.scale_by_rss(TAU**2, eps=TAU**2),
        "FedYogi": optax.scale_by_yogi(FIRST, SECOND, TAU, initial_accumulator_value=TAU**2),
    }


def servers(
    names: Sequence[str], points: int, rounds: int, seeds: int, seed: int = 0, progress: bool = True
) -> xr.Dataset:
    """Return histories on the sorted digits with minibatches: algorithm, choice, seed, step."""
    problems, accuracy = digits(seed)
    alpha, q = DIGITS_STEPS
    parts: list[Any] = []
    for name in tqdm(names, unit="optimizer", disable=not progress):
        grid = np.logspace(*SERVER_GRIDS[name], points)
        part = jd.compare(
            {name: jd.FedAvg(alpha, local_steps=q, server=optimizers()[name])},
            jd.problems.Minibatch(problems["sorted"], BATCH),
            participation.uniform(DIGITS_CLIENTS, PRESENT),
            over={"server_stepsize": grid},
            seeds=range(seed, seed + seeds),
            steps=rounds,
            every=10,
            metrics={"accuracy": accuracy},
            progress=False,
        ).isel(network=0, drop=True)
        part = part.rename(server_stepsize="choice").assign_coords(choice=range(points))
        parts.append(part.assign(eta=(("algorithm", "choice"), grid[None])))
    whole: Any = xr.concat(parts, "algorithm")
    return whole[["gap", "accuracy", "eta"]]


def smoothed(values: xr.DataArray) -> xr.DataArray:
    """Return means over seeds and five records, as one record may be low by luck."""
    return values.mean("seed").rolling(step=5).mean()


def to_target(dataset: xr.Dataset) -> xr.DataArray:
    """Return the rounds to the target, NaN where it is not reached: algorithm, choice."""
    return jd.reach(smoothed(dataset.gap).to_dataset(name="gap"), "gap", TARGET)


def own_best(served: xr.Dataset) -> xr.Dataset:
    """Return every optimizer at its own best server stepsize: the first to the target."""
    needed = to_target(served).rename("rounds")
    return served.assign(rounds=needed).isel(choice=needed.fillna(np.inf).argmin("choice"))


def bests(served: xr.Dataset) -> xr.Dataset:
    """Return what `own_best` and the plain mean, FedAvg with server stepsize 1, come to."""
    best = own_best(served)
    plain = served.assign(rounds=to_target(served)).sel(algorithm=["FedAvg"])
    plain = plain.isel(choice=int(np.argmin(abs(np.log(plain.eta[0].values)))))
    plain = plain.assign_coords(algorithm=["FedAvg, plain mean"])
    both: Any = xr.concat([best, plain], "algorithm", coords="minimal", compat="override")
    last = both[["gap", "accuracy"]].isel(step=slice(-5, None)).mean(["seed", "step"])
    return both[["eta", "rounds"]].assign(last)


TITLES = {
    "sigma_squared": "sigma^2",
    "measure": "sigma_f*",
    "at_solution": "zeta^2 at x*",
    "at_start": "zeta^2 at x0",
    "client": "client's variance/bound",
    "mean": "mean variance/bound",
    "gradients": "mean |grad f_i|^2/bound",
    "gradient_norm_squared": "|grad F|^2, constant",
    "decreasing": "|grad F|^2, decreasing",
    "used": "share of the bound",
    "away": "delta = 1, decreasing: |x - x*|",
    "off": "|x - x_q|",
    "expected": "|x_q - x*|",
    "same": "delta = 0, constant: |x - x*|",
    "eta": "server stepsize",
    "rounds": f"rounds to {TARGET:g}",
    "gap": "last F - F*",
    "correlation": "rank correlation",
}


def columns(dataset: xr.Dataset, *names: str) -> pd.DataFrame:
    """Return a table of some variables of a dataset of one dimension, or of all."""
    (dim,) = dataset.dims
    shown = names or tuple(map(str, dataset.data_vars))
    values = [[number(float(value), ".3g") for value in dataset[name]] for name in shown]
    rows = list(zip(map(str, dataset[dim].values), *values, strict=True))
    return pd.DataFrame(rows, columns=(str(dim), *(TITLES.get(name, name) for name in shown)))


def bias_table(grid: xr.Dataset) -> pd.DataFrame:
    """Return |x − x*| over stepsizes and local steps at the largest δ, beside the first order."""
    here = grid.isel(shift=-1)
    errors = {f"aL = {a:g}": here.error.sel(stepsize=a, drop=True) for a in grid.stepsize.values}
    first = (here.error / here.expected).isel(stepsize=0, drop=True).where(here.Q > 1)
    return columns(xr.Dataset(errors | {"first column / theory": first}))


def claims_table(parts: Mapping[str, xr.Dataset]) -> pd.DataFrame:
    """Return the claims beside the measurements, of all datasets by name."""
    rows = []
    grid, far = parts["bias"], np.sqrt(parts["rounds"].distance_squared.mean("seed"))
    ended, ends, many = ends_of(parts["participation"]), parts["ends"], parts["measures"]

    def row(claim: str, source: str, claimed: str, measured: str, met: Any, why: str) -> None:
        rows.append((claim, source, claimed, measured, *(("yes", "-") if met else ("no", why))))

    def at_most(most: float, cases: Mapping[str, Any], source: str, why: str) -> None:
        for claim, values in cases.items():
            value = float(values.max())
            row(claim, source, f"at most {most:g}", f"{value:.1e}", value <= most, why)

    def power(claim: str, source: str, wanted: float, found: list[float], margin: float) -> None:
        met = max(abs(f - wanted) for f in found) <= margin
        measured = " to ".join(dict.fromkeys(f"{f:.2f}" for f in (min(found), max(found))))
        row(f"{claim}: exponent", source, f"{wanted:g}", measured, met, "few rounds, or few seeds")

    small, derived = f"where αL(Q − 1) ≤ {LINEAR:g}", "derived: quadratics, first order in α"
    for name, title in {"stepsize": "α", "Q": "Q − 1", "shift": "σ_f*"}.items():
        wanted = 0.5 if name == "shift" else 1.0
        power(f"|x − x*| over {title}, {small}", derived, wanted, exponents(grid)[name], 0.1)
    zero = many.isel(case=np.flatnonzero(many.measure == 0))
    largest, extent = grid.error.isel(stepsize=-1), f"up to {float(zero.at_start.max()):.2g}"
    one = far.sel(problem="one minimizer", schedule="constant").isel(step=-1)
    exact = {
        "Q = 1: no bias, largest α": largest.sel(Q=1),
        "σ_f* = 0: no bias, largest α, any Q": largest.sel(shift=0.0),
        "σ_f* = σ² = 0: a constant step is exact with one sample too": one.sel(
            samples="one sample"
        ),
        "σ_f* = 0: exact whoever takes part, Q = 1": ended.same,
        f"σ_f* = 0: no |∇F| though gradients differ at x0 by ζ² {extent}": np.sqrt(
            zero.gradient_norm_squared
        ),
    }
    at_most(EXACT, exact, "derived", "too few rounds")
    source = f"convergence: {PAPER}, from memory; rate: derived"
    for samples, wanted, margin in (("full gradients", -1.0, 0.1), ("one sample", -0.5, 0.2)):
        curve = far.sel(samples=samples, schedule="decreasing", problem="δ = 1")
        curve = curve[curve.size // 10 :]
        found = [slope(curve.step + OFFSET, curve)]
        power(f"decreasing steps, {samples}: |x − x*| over rounds", source, wanted, found, margin)
    for law in LAWS:
        limit, here = ("x_q", "off") if law == "unequal chances" else ("x*", "away")
        value, near = (float(ended[name].sel(law=law)) for name in (here, "expected"))
        title, source = (
            f"Q = 1, decreasing steps, {law}: ends at {limit}",
            "derived: E g = Σ qᵢ ∇fᵢ",
        )
        claimed, why = f"within |x_q − x*| / 5 = {near / 5:.1e}", "few seeds, or few rounds"
        row(title, source, claimed, f"{value:.1e}", value <= near / 5, why)
    by_measure, by_bias = ends.sortby("measure"), ends.sortby("gradient_norm_squared")
    orders = [" < ".join(map(str, e.partition.values)) for e in (by_measure, by_bias)]
    title, source = "digits: |∇F|² at the end is ordered as σ_f*", "asked here"
    row(title, source, orders[0], orders[1], orders[0] == orders[1], "σ_f* is a bound only")
    own = many.isel(case=np.flatnonzero(many.measure > 0))
    used = scaled(own, *STEADY) / (own.gap + own.measure)
    bounds = {
        f"|∇F|² / (½ (αL(Q − 1))² L (F − F* + σ_f*)), {share.size} {name}": share
        for name, share in (("least squares", used), ("splits of the digits", ends.used))
    }
    at_most(1.0, bounds, "derived, convex", "not at its end yet")
    found = ranks(many).correlation
    for other, source, why in (
        ("zeta^2 at x0", f"{PAPER}, abstract: no bound on it", "both vary together"),
        ("zeta^2 at x*", "asked here", "ζ² ≤ 2L σ_f* bounds the bias as well, if x* is known"),
    ):
        ours, theirs = (float(found.sel(measure=name)) for name in ("sigma_f*", other))
        title, both = (
            f"bias: higher rank correlation with σ_f* than {other}",
            "{:.2f} against {:.2f}",
        )
        row(title, source, "higher", both.format(ours, theirs), ours > theirs + 0.05, why)
    held = {
        "a client's variance / (C (fᵢ − fᵢ*) + σ²)": parts["conditions"].client,
        "clients' mean variance / (C (F − F* + σ_f*) + σ²)": parts["conditions"]["mean"],
        "mean |∇fᵢ|² / 2L (F − F* + σ_f*)": parts["conditions"].gradients,
    }
    at_most(1.0, held, f"{PAPER}: form from memory, constants derived", "a constant is wrong")
    needed = bests(parts["servers"]).rounds.to_series()
    adaptive = needed[[name for name in needed.index if "Ada" in name or "Yogi" in name]]
    for other in ("FedAvg, plain mean", "FedAvg"):
        most = 0.9 * np.nan_to_num(needed[other], nan=np.inf)  # less may be the seeds'
        late = ", ".join(f"{name} {value:.0f}" for name, value in adaptive.items() if value > most)
        title = f"sorted digits: adaptive servers come to {TARGET:g} earlier than {other}"
        measured = ", ".join(f"{name} {value:.0f}" for name, value in adaptive.items())
        why = f"not {late}; momentum alone, FedAvgM, comes at {needed.get('FedAvgM', np.nan):.0f}"
        row(title, f"{ADAPTIVE}, abstract", f"by {most:.0f} rounds", measured, not late, why)
    if "FedYogi" in needed:
        ours, theirs = needed["FedAdam (published)"], needed["FedAdam (optax)"]
        title, source = "the published FedAdam comes there earlier than optax's", "derived"
        claimed = f"steps at t = 50 longer by {(1 - FIRST**50) / (1 - SECOND**50) ** 0.5:.1f}"
        row(title, source, claimed, f"{ours:.0f} against {theirs:.0f}", ours < theirs, "seeds")
    return pd.DataFrame(
        rows, columns=("claim", "source", "claimed", "measured", "met", "if not, why")
    )


def curves(ax: Any, lines: Mapping[str, Sequence[xr.DataArray]], **axes: Any) -> None:
    """Draw {label: (solid, dashed)} over rounds, a color a label; the dashed may be missing."""
    for color, (label, pair) in zip(jd.plot.PALETTE, lines.items(), strict=False):
        for values, dash in zip(pair, ("-", "--"), strict=False):
            some = values[1:] if axes.get("xscale") == "log" else values
            here = some.clip(min=1e-16)
            ax.plot(here.step, here, dash, color=color, label=label if dash == "-" else None)
    ax.set(yscale="log", xlabel="rounds", **axes)
    ax.legend(fontsize=8)


def bias_panel(grid: xr.Dataset, ax: Any) -> None:
    """Draw |x − x*| at the end over stepsizes, for each number of local steps above 1."""
    line = np.array([grid.stepsize.min(), grid.stepsize.max()])
    for color, marker, q in zip(jd.plot.PALETTE, MARKERS, grid.Q.values[1:], strict=False):
        for shift, face in zip(SHIFTS[1:], ("none", color), strict=True):
            here = grid.sel(shift=shift, Q=q)
            label = f"Q = {q}" if face == color else None
            style = {"color": color, "markerfacecolor": face, "label": label}
            ax.plot(here.stepsize, here.error, marker, **style)
            ax.plot(line, float(here.expected[0]) * line / line[0], ":", color=color, linewidth=1)
    ax.set(xscale="log", yscale="log", xlabel="stepsize, αL", ylabel=r"$|x - x^\star|$ at the end")
    small, large = (f"{float(value):.2g}" for value in grid.measure[1:])
    ax.set_title(rf"$\sigma_f^\star$ = {large}, hollow {small}; dotted: first order")
    ax.legend(fontsize=8)


def measure_panel(many: xr.Dataset, ends: xr.Dataset, ax: Any) -> None:
    """Draw biases over σ_f*, and over the dissimilarity at the start; zeros lie on the axes."""
    low, high, floor, colors = 3e-6, 30.0, 1e-10, jd.plot.PALETTE
    differ, same = (
        many.isel(case=np.flatnonzero(kept)) for kept in (many.spread > 0, many.spread == 0)
    )
    digits_scaled = scaled(ends, *DIGITS_STEPS, ends.L)
    for here, name, marker, color, label in (
        (differ, "at_start", "x", "0.7", "over dissimilarity at the start"),
        (differ, "measure", "o", colors[0], r"over $\sigma_f^\star$"),
        (same, "measure", "s", colors[2], r"one Hessian, over $\sigma_f^\star$"),
    ):
        y = scaled(here, *STEADY).clip(min=floor)
        ax.plot(here[name].clip(min=low), y, marker, color=color, label=label, clip_on=False)
    ax.plot(ends.at_start, digits_scaled, "+", color="0.7", markersize=9)
    ax.plot(
        ends.measure, digits_scaled, "^", color=colors[1], label=r"digits, over $\sigma_f^\star$"
    )
    ax.plot([low, high], [low, high], ":", color="black", linewidth=1, label="bound")
    ax.set(xscale="log", yscale="log", xlim=(low, high), ylim=(floor, high))
    ax.set(
        xlabel=r"$\sigma_f^\star$, or $\frac{1}{n}\sum_i |\nabla f_i - \nabla F|^2$ at the start"
    )
    ax.set_ylabel(r"$|\nabla F|^2$ at the end $/\ \frac{1}{2}(\alpha L(Q-1))^2 L$")
    ax.set_title("bias of many problems; zeros on the axes")
    ax.legend(fontsize=8, loc="upper left")


def figure(parts: Mapping[str, xr.Dataset]) -> Any:
    """Return the figure of six panels, of all datasets by name."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(2, 3, figsize=(15, 8.6), layout="constrained")
    log = {"xscale": "log", "ylabel": r"$|x - x^\star|$"}
    bias_panel(parts["bias"], axes[0, 0])
    far, lines = np.sqrt(parts["rounds"].distance_squared.mean("seed")), {}
    for problem, sign in (("one minimizer", "= 0"), ("δ = 1", "> 0")):
        for samples in map(str, far.samples.values):
            pair = [far.sel(problem=problem, samples=samples, schedule=s) for s in SCHEDULES]
            lines[rf"$\sigma_f^\star$ {sign}, {samples}"] = pair if sign == "> 0" else pair[:1]
    curves(axes[0, 1], lines, title=f"Q = {STEADY[1]}; dashed: decreasing steps", **log)
    who, ends = parts["participation"], parts["ends"]
    far = np.sqrt(who.distance_squared.mean("seed")).sel(shift=1.0, schedule="decreasing")
    level = float(ends_of(who).expected[0])
    style = {"linestyle": ":", "linewidth": 1}
    axes[0, 2].axhline(level, color="black", label=r"$|x_q - x^\star|$, expected", **style)
    title = "Q = 1, decreasing steps, half take part"
    curves(axes[0, 2], {law: [far.sel(law=law)] for law in LAWS}, title=title, **log)
    squares, lines = parts["digits"].gradient_norm_squared, {}
    for name in map(str, squares.partition.values):
        label = rf"{name}, $\sigma_f^\star$ = {float(ends.measure.sel(partition=name)):.2f}"
        lines[label] = [squares.sel(partition=name, schedule=s) for s in SCHEDULES]
    title = f"digits, Q = {DIGITS_STEPS[1]}; dashed: decreasing steps"
    curves(axes[1, 0], lines, ylabel=r"$|\nabla F(x)|^2$", title=title)
    measure_panel(parts["measures"], ends, axes[1, 1])
    best, lines = own_best(parts["servers"]), {}
    for name in map(str, best.algorithm.values):
        here = best.sel(algorithm=name)
        lines[f"{name}, {float(here.eta):.2g}"] = [smoothed(here.gap)]
    axes[1, 2].axhline(TARGET, color="0.6", **style)
    title = f"sorted digits, {PRESENT} of {DIGITS_CLIENTS}; best server stepsizes"
    curves(axes[1, 2], lines, ylabel=r"$F(x) - F^\star$, smoothed", title=title)
    return fig


def run(
    quick: bool, out: Path, seed: int, scale: str = "small", progress: bool = True
) -> list[Path]:
    """Run everything, print the tables and return the files written into ``out``."""
    full = scale == "full" and not quick
    rounds, seeds = (1000, 4) if quick else (4000, 32 if full else 8)
    grid = bias(
        STEPSIZES[::2] if quick else STEPSIZES,
        (1, 2, 10) if quick else LOCAL_STEPS,
        rounds=1200 if quick else 2500,
    )
    names = ("sorted", "shuffled") if quick else tuple(SHARDS)
    walks = over_rounds(rounds, seeds, seed)
    deals = dealt(names, 100 if quick else 4000 if full else 1000, seed)
    numbers = conditions(walks, deals, seed)
    parts = {
        "bias": grid,
        "rounds": walks.drop_vars("x"),
        "participation": present(4000, 32 if full else 8, seed),
        "digits": deals.drop_vars("x"),
        "conditions": numbers,
        "ends": digits_ends(deals, numbers),
        "measures": scatter(4 if full else 1, 400 if quick else 1000),
        "servers": servers(
            ("FedAvg", "FedAdagrad") if quick else tuple(SERVER_GRIDS),
            points=5 if quick else 9,
            rounds=200 if quick else 400,
            seeds=2 if quick else 32 if full else 8,
            seed=seed,
            progress=progress,
        ),
    }
    present_ends, served = ends_of(parts["participation"]), bests(parts["servers"])
    shown = ("measure", "at_solution", "at_start", "gradient_norm_squared", "used", "decreasing")
    title = "C and sigma^2 (derived), sigma_f*, and the largest use of bounds along trajectories"
    tables = {
        "problems": (title, columns(numbers)),
        "bias": (
            "|x - x*| at the end, full gradients, constant steps, delta = 1",
            bias_table(grid),
        ),
        "participation": ("Q = 1: root mean square distances", columns(present_ends)),
        "digits": ("the digits' ends, full gradients", columns(parts["ends"], *shown)),
        "measures": ("which measure orders biases", columns(ranks(parts["measures"]))),
        "servers": ("sorted digits, own best server stepsizes", columns(served)),
        "claims": ("what is claimed and what was measured", claims_table(parts)),
    }
    return results.write(
        "fedavg",
        out,
        command=f"python -m experiments fedavg --seed {seed} --scale {scale}"
        + (" --quick" if quick else ""),
        tables=tables,
        datasets=parts,
        figures={"fedavg": figure(parts)},
    )
