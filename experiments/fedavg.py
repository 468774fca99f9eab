"""FedAvg under the general variance condition (arXiv 2301.12677).

The condition is E|gᵢ(x) − ∇fᵢ(x)|² ≤ C (fᵢ(x) − fᵢ*) + σ², and σ_f* = F* − (1/n) Σᵢ fᵢ* measures
heterogeneity; no bound on how much gradients differ is needed. Six questions:

* *bias*: with full gradients and a constant stepsize, how far from the solution does FedAvg end,
  over stepsizes α, local steps Q and heterogeneity? And where σ_f* = 0?
* *decreasing*: do stepsizes a₀ / (1 + c t) remove the bias, and with minibatches the noise?
* *participation*: with Q = 1, what do unequal probabilities of taking part do to the limit?
* *digits*: softmax regression, 20 clients, labels from sorted to shuffled: |∇F|² beside σ_f*.
* *measure*: for many problems, does σ_f* say how large the bias is, and do the gradients'
  differences? And does the condition hold with the C and σ² of `jd.problems.general_variance`?
* *servers*: the sorted digits, 5 of 20 clients a round, optax optimizers at the server, each at its
  own best server stepsize: rounds to a loss.

Synthetic problems are least squares with all smoothness constants at most 1, client i's labels
exact at θ + δ vᵢ: then all fᵢ* = 0, and so σ² = 0 for minibatches, whatever σ_f* (which grows
as δ²). At δ = 0 all clients share their minimizer: σ_f* = 0. Everything in float64.

What is derived here rather than taken from the paper, whose own experiments are not known to us
(its condition and σ_f* are from memory). A limit x of FedAvg with everybody, full gradients and
αL ≤ 2 has ∇F(x) = −(1/nQ) Σᵢ Σₗ (∇fᵢ(yᵢₗ) − ∇fᵢ(x)). Convex fᵢ have gradients that do not grow
along local steps, so |∇F(x)| ≤ αL(Q − 1)/2 · (1/n) Σᵢ |∇fᵢ(x)|, and as |∇fᵢ|² ≤ 2L (fᵢ − fᵢ*)

    |∇F(x)|² ≤ ½ (αL(Q − 1))² L (F(x) − F* + σ_f*).

That is an upper bound: clients with one Hessian have σ_f* > 0 and no bias. To first order the bias
of quadratics is ½ α(Q − 1) H⁻¹ mean(Hᵢ∇fᵢ(x*)), and ζ² = mean|∇fᵢ(x*)|² ≤ 2L σ_f* bounds it as
well: at x* gradients' differences are a measure no worse than σ_f*. What σ_f* replaces is a bound
at all x, and that there is not if Hessians differ.

Server optimizers: optax's Adam and Yogi are not those of arXiv 2003.00295, which has no bias
correction and v₀ = τ² (from memory); optax corrects both moments, Adam's v₀ is 0, and Yogi's first
moment starts at v₀ too. Adagrad adds its ε inside the root instead of τ outside. The published
FedAdam is run beside optax's.
"""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from tqdm import tqdm

import jaxdopt as jd
from experiments import results
from experiments.tables import Table, number
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
CHANCES = tuple(np.linspace(0.1, 0.9, CLIENTS))

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
    shift: float, spread: float = 0.5, scale: float = 1.0, rest: float = 0.0, seed: int = 0
) -> Any:
    """Return least squares of clients with Hessians that differ, the largest smoothness 1.

    Args:
        shift: δ; client i's minimizer is θ + δ vᵢ, |vᵢ| = 1.
        spread: of the Hessians, below 1; 0 for one Hessian.
        scale: |θ|, so that the start is far from the solution.
        rest: what no model explains: fᵢ* = rest² / 2.
        seed: of all random choices.
    """
    random, shape = np.random.default_rng(seed), (CLIENTS, DIMENSION, DIMENSION)
    differ = random.standard_normal(shape)
    differ = differ + differ.transpose(0, 2, 1)
    differ *= spread / np.linalg.norm(differ, ord=2, axis=(1, 2))[:, None, None]
    root = np.diag(np.logspace(-0.15, 0, DIMENSION))
    hessians = root @ (np.eye(DIMENSION) + differ) @ root
    hessians /= np.linalg.norm(hessians, ord=2, axis=(1, 2)).max()
    basis = np.linalg.qr(random.standard_normal((CLIENTS, SAMPLES, SAMPLES)))[0] * SAMPLES**0.5
    features = basis[:, :, :DIMENSION] @ np.linalg.cholesky(hessians).transpose(0, 2, 1)
    theta, away = random.standard_normal(DIMENSION), random.standard_normal(shape[:2])
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


def bias(
    shifts: Sequence[float], stepsizes: Sequence[float], local_steps: Sequence[int], rounds: int
) -> xr.Dataset:
    """Return |x − x*| at the end with full gradients: shift, stepsize, local steps.

    Members share a program: all have the most local steps, after their own number they stand still.
    """
    problems = jd.stack([regression(shift) for shift in shifts])
    grid = np.stack(np.meshgrid(stepsizes, local_steps, indexing="ij"), axis=-1).reshape(-1, 2)
    own = jnp.asarray(grid[:, 1], int)[:, None, None] * jnp.ones((1, CLIENTS, 1), int)
    methods = jax.vmap(
        lambda a, q: jd.FedAvg(a, local_steps=max(local_steps), own_steps=q),
    )(jnp.asarray(grid[:, 0]), own)
    ended = jd.sweep(jd.run, over=("problem", "algorithm"))(
        methods,
        problems,
        jd.networks.Server(CLIENTS),
        regression(0.0).start(),
        jax.random.key(0),
        steps=rounds,
        every=rounds // 10,
    )
    squares = ended.history["distance_squared"]
    shape = (len(shifts), len(stepsizes), len(local_steps))
    dims = ("shift", "stepsize", "Q")
    expected = np.zeros(shape)
    for i, shift in enumerate(shifts):
        first = first_order(regression(shift))
        expected[i] = first * np.outer(stepsizes, np.array(local_steps) - 1)
    return xr.Dataset(
        {
            "error": (dims, np.sqrt(squares[..., -1]).reshape(shape)),
            "before": (dims, np.sqrt(squares[..., -2]).reshape(shape)),
            "expected": (dims, expected),
            "measure": ("shift", [measure(regression(shift)) for shift in shifts]),
        },
        {"shift": list(shifts), "stepsize": list(stepsizes), "Q": list(local_steps)},
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


def dissimilarity(problem: Any, x: jax.Array) -> float:
    """Return (1/n) Σᵢ |∇fᵢ − ∇F|² at rows x [n, d]."""
    gradients = np.asarray(problem.grad(x))
    return float(np.mean(np.sum((gradients - gradients.mean(axis=0)) ** 2, axis=1)))


def over_rounds(rounds: int, seeds: int, seed: int = 0) -> xr.Dataset:
    """Return histories with constant and decreasing steps: samples, shift, schedule, seed, step."""
    (alpha, q), shifts = STEADY, (0.0, 1.0)
    parts = []
    for batch, keys in ((0, 1), (1, seeds)):
        whole = [regression(shift) for shift in shifts]
        noisy = [jd.problems.Minibatch(p, batch) for p in whole] if batch else whole
        run = jd.sweep(jd.run, over=("problem", "algorithm", "key"))(
            schedules(alpha, OFFSET, q),
            jd.stack(noisy),
            jd.networks.Server(CLIENTS),
            noisy[0].start(),
            jax.random.split(jax.random.key(seed), keys),
            steps=rounds,
            every=rounds // 200,
            metrics={"x": estimate},
        )
        part = jd.label(run, shift=list(shifts), schedule=list(SCHEDULES), seed=keys)
        parts.append(part[["distance_squared", "x"]])
    index: Any = xr.DataArray(["full", "one sample"], dims="samples", name="samples")
    whole: Any = xr.concat(parts, index, join="outer")
    return whole


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


def patterns() -> dict[str, Any]:
    """Return who takes part, under three laws with half of the clients on average."""
    return {
        "uniform": participation.uniform(CLIENTS, CLIENTS // 2),
        "equal chances": participation.bernoulli(0.5, n=CLIENTS),
        "unequal chances": participation.bernoulli(CHANCES),
    }


def present(rounds: int, seeds: int, seed: int = 0) -> xr.Dataset:
    """Return histories with one local step, full gradients: shift, schedule, law, seed, step.

    ``limit`` is where unequal chances are expected to lead, ``solution`` x*.
    """
    alpha, shifts, laws = STEADY[0] * STEADY[1], (0.0, 1.0), patterns()
    problems = [regression(shift) for shift in shifts]
    keys = jax.random.split(jax.random.key(seed), seeds)
    rows = [[participation.active(law, rounds, key) for key in keys] for law in laws.values()]
    table = participation.Table(jnp.stack([jnp.stack(row) for row in rows]), CLIENTS)
    over_seeds = jd.sweep(jd.run, over=("network",))
    run = jd.sweep(over_seeds, over=("problem", "algorithm", "network"))(
        schedules(alpha, OFFSET, 1),
        jd.stack(problems),
        table,
        problems[0].start(),
        keys[0],
        steps=rounds,
        every=rounds // 200,
        metrics={"x": estimate},
    )
    axes = {"shift": list(shifts), "schedule": list(SCHEDULES), "law": list(laws), "seed": seeds}
    dataset = jd.label(run, **axes)[["distance_squared", "x"]]
    limits = [unequal(weights(CHANCES), problem) for problem in problems]
    dataset["limit"] = (("shift", "x_0"), np.stack(limits))
    dataset["solution"] = (("shift", "x_0"), np.stack([np.asarray(p.solution) for p in problems]))
    return dataset


def dealt(names: Sequence[str], rounds: int, seed: int = 0) -> xr.Dataset:
    """Return histories on the digits with full gradients: partition, schedule, step."""
    problems, _ = digits(seed)
    alpha, q = DIGITS_STEPS
    run = jd.sweep(jd.run, over=("problem", "algorithm"))(
        schedules(alpha, rounds / 10, q),
        jd.stack([problems[name] for name in names]),
        jd.networks.Server(DIGITS_CLIENTS),
        problems[names[0]].start(),
        jax.random.key(seed),
        steps=rounds,
        every=rounds // 50,
        metrics={"x": estimate},
    )
    dataset = jd.label(run, partition=list(names), schedule=list(SCHEDULES))
    dataset["measure"] = ("partition", [measure(problems[name]) for name in names])
    return dataset[["gradient_norm_squared", "gap", "measure", "x"]]


def scatter(seeds: int, rounds: int) -> xr.Dataset:
    """Return |∇F|² at the end, constant steps and full gradients, of many problems: case."""
    cases = [
        (shift, spread, scale, rest, seed)
        for shift in (0.0, 0.01, 0.1, 1.0)
        for spread in (0.0, 0.2, 0.5, 0.9)
        for scale, rest in ((1.0, 0.0), (10.0, 1.0))
        for seed in range(seeds)
    ]
    problems = [regression(*case) for case in cases]
    alpha, q = STEADY
    run = jd.sweep(jd.run, over=("problem",))(
        jd.FedAvg(alpha, local_steps=q),
        jd.stack(problems),
        jd.networks.Server(CLIENTS),
        problems[0].start(),
        jax.random.key(0),
        steps=rounds,
        every=rounds,
    )
    ended = {name: run.history[name][:, -1] for name in ("gradient_norm_squared", "gap")}
    values = {
        "bias": ended["gradient_norm_squared"],
        "gap": ended["gap"],
        "measure": [measure(problem) for problem in problems],
        "at_start": [dissimilarity(problem, problem.start()) for problem in problems],
        "at_solution": [
            dissimilarity(problem, problem.start(problem.solution)) for problem in problems
        ],
        "smoothness": [float(problem.smoothness) for problem in problems],
        "spread": [case[1] for case in cases],
        "shift": [case[0] for case in cases],
    }
    return xr.Dataset({name: ("case", np.asarray(value)) for name, value in values.items()})


@jax.jit
def spread_of(problem: Any, x: jax.Array) -> tuple[jax.Array, ...]:
    """Return clients' variances of one sample's gradient, fᵢ(x) and |∇fᵢ(x)|², each [n]."""
    rows = jnp.broadcast_to(x, (problem.n, problem.d))
    numbers = jnp.arange(problem.most)
    each = jax.lax.map(lambda j: problem.grad_at(rows, jnp.full(problem.n, j)), numbers)
    mean = each.mean(axis=0)
    variance = jnp.mean(jnp.sum((each - mean) ** 2, axis=2), axis=0)
    values = jax.vmap(lambda i: problem.take(i[None]).objective(x))(jnp.arange(problem.n))
    return variance, values, jnp.sum(mean**2, axis=1)


def condition(problem: Any, batch: int, points: np.ndarray) -> xr.Dataset:
    """Return how much of its bounds a problem uses along a trajectory [records, d]: step.

    ``client`` is the largest variance of any client's minibatch gradient over
    C (fᵢ − fᵢ*) + σ², ``mean`` the same of their means, and ``gradients`` is mean|∇fᵢ|² over
    2L (F − F* + σ_f*). Where a bound is 0 up to rounding, nothing is divided.
    """
    factor, floor = jd.problems.general_variance(jd.problems.Minibatch(problem, batch))
    least = [float(problem.take(jnp.array([i])).solved().optimum) for i in range(problem.n)]
    variances, values, squares = map(
        np.asarray, jax.lax.map(lambda x: spread_of(problem, x), jnp.asarray(points))
    )
    away = values - np.array(least)
    bounds = factor * away + floor

    def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
        return np.where(whole > 1e-20, part / np.maximum(whole, 1e-20), 0)

    smooth = 2 * float(problem.smoothness) * away.mean(axis=1)
    variances = variances / batch
    return xr.Dataset(
        {
            "client": ("step", ratio(variances, bounds).max(axis=1)),
            "mean": ("step", ratio(variances.mean(axis=1), bounds.mean(axis=1))),
            "gradients": ("step", ratio(squares.mean(axis=1), smooth)),
            "C": factor,
            "sigma_squared": floor,
            "L": float(problem.smoothness),
            "measure": measure(problem),
            "by_hand": float(problem.optimum) - float(np.mean(least)),
            "at_start": dissimilarity(problem, problem.start()),
            "at_solution": dissimilarity(problem, problem.start(problem.unravel(problem.solution))),
        }
    )


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
    return whole[["gap", "accuracy", "eta", "diverged"]]


def smoothed(values: xr.DataArray) -> xr.DataArray:
    """Return means over seeds and five records, as one record may be low by luck."""
    return values.mean("seed").rolling(step=5).mean()


def to_target(dataset: xr.Dataset) -> xr.DataArray:
    """Return the rounds to the target, NaN where it is not reached: algorithm, choice."""
    return jd.reach(smoothed(dataset.gap).to_dataset(name="gap"), "gap", TARGET)


def own_best(dataset: xr.Dataset) -> xr.Dataset:
    """Return every optimizer at its own best server stepsize: the first to the target.

    Those that do not come there are shown where their last gap is smallest.
    """
    last = smoothed(dataset.gap).isel(step=-1, drop=True)
    needed = to_target(dataset).rename("rounds")
    best: Any = needed.fillna(1e9 * (1 + last / (1 + last))).fillna(np.inf).argmin("choice")
    return dataset.assign(rounds=needed).isel(choice=best)
