"""FedAvg under the general variance condition (arXiv 2301.12677).

The condition is E|gᵢ(x) − ∇fᵢ(x)|² ≤ C (fᵢ(x) − fᵢ*) + σ², and σ_f* = F* − (1/n) Σᵢ fᵢ* measures
heterogeneity, without a bound on how much gradients differ. Stepsizes are α, and a client takes Q
local steps a round. *bias*: where FedAvg ends with full gradients and constant steps. *rounds*: do
stepsizes a₀ / (1 + c t) remove bias and noise? *participation*: the limits of unequal
probabilities, Q = 1. *digits*: softmax regression, from sorted to shuffled. *measures*: which
measure of heterogeneity orders the biases of many problems. *conditions*: the condition with the C
and σ² of `jd.problems.general_variance`. *servers*: optax optimizers at the server, 5 of 20 clients
a round, sorted digits, each at the server stepsize that is first at a loss.

Synthetic problems are least squares, all smoothness constants at most 1, client i's labels exact
at θ + δ vᵢ: then fᵢ* = 0, and so σ² = 0 for minibatches, and σ_f* grows as δ². All in float64.

The condition and σ_f* are from memory, the paper's experiments are not known to us; the rest is
derived. A limit x with all clients, full gradients and αL ≤ 2 has ∇F(x) =
−(1/nQ) Σᵢ Σₗ (∇fᵢ(yᵢₗ) − ∇fᵢ(x)). Convex fᵢ have gradients that do not grow along local steps, so
|∇F(x)| ≤ αL(Q − 1)/2 · (1/n) Σᵢ |∇fᵢ(x)|, and as |∇fᵢ|² ≤ 2L (fᵢ − fᵢ*)

    |∇F(x)|² ≤ ½ (αL(Q − 1))² L (F(x) − F* + σ_f*).

Clients with one Hessian have no bias. To first order that of quadratics is
½ α(Q − 1) H⁻¹ mean(Hᵢ∇fᵢ(x*)), and ζ² = mean|∇fᵢ(x*)|² ≤ 2L σ_f* bounds it as well: at x* the
gradients' differences are no worse a measure. What σ_f* replaces is a bound on them at all x.

optax's Adam and Yogi are not those of arXiv 2003.00295 (no bias correction, v₀ = τ²; from memory):
it corrects both moments, Adam's v₀ is 0, Yogi's first moment starts at v₀ too; Adagrad's ε is
inside the root. The published Adam's steps are longer by (1 − β₁ᵗ) / (1 − β₂ᵗ)^½ than optax's.
"""

import functools
import itertools
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from scipy.stats import spearmanr

import jaxdopt as jd
from experiments.claims import Claim, above, below, near
from experiments.measures import exponent, flat
from experiments.panels import REFERENCE, Figure, Lines, LogLog, level, present
from experiments.study import Axis, Part, Program, Results, Study
from jaxdopt.networks import Server, participation

PAPER, ADAPTIVE = "arXiv 2301.12677", "arXiv 2003.00295"
CLIENTS, DIMENSION, SAMPLES = 8, 5, 10
SHIFTS = (0.0, 0.1, 1.0)  # δ
STEPSIZES = tuple(0.01 * 2.0**j for j in range(6))  # αL
LINEAR = 0.2  # αL(Q − 1) up to which exponents are fitted
EXACT = 1e-12  # |x − x*| up to which a limit counts as exact
STEADY = (0.05, 10)  # αL and Q of everything else synthetic, and first steps where they decrease
OFFSET = 20.0  # 1/c in rounds
SCHEDULES = ("constant", "decreasing")
FULL, SINGLE = "full gradients", "one sample"
SYNTHETIC = {"one minimizer": (0.0,), "δ = 0.1": (0.1,), "δ = 1": (1.0,)}
SYNTHETIC |= {"δ = 1, noisy labels": (1.0, 0.5, 1.0, 0.3)}  # arguments of `regression`
CHANCES = tuple(np.linspace(0.1, 0.9, CLIENTS))
LAWS = ("uniform", "equal chances", "unequal chances")  # of taking part, half of the clients
DIGITS_CLIENTS, BATCH, PRESENT, L2 = 20, 10, 5, 1e-2
DIGITS_STEPS = (0.05, 10)  # α (αL = 0.34) and Q
SHARDS = {"sorted": 1, "2 shards": 2, "4 shards": 4, "shuffled": 0}
TAU, FIRST, SECOND = 1e-3, 0.9, 0.99  # τ, β₁ and β₂ of Reddi et al., from memory
TARGET = 0.1  # of F − F*, mean over seeds and 50 rounds
ENDS = ("server_stepsize", "rounds", "last gap", "last accuracy")
PLAIN = "FedAvg, plain mean"
MEASURES = {"measure": "σ_f*", "at_solution": "ζ² at x*", "at_start": "ζ² at the start"}
DEALT = ("measures", "digits")


with_ = functools.partial


def published_adam() -> Any:
    """Return FedAdam's server optimizer without bias correction, from v₀ = τ²."""

    def init(x: jax.Array) -> Any:
        return jnp.zeros_like(x), jnp.full_like(x, TAU**2)

    def update(delta: jax.Array, memory: Any, _: Any = None) -> Any:
        m = FIRST * memory[0] + (1 - FIRST) * delta
        v = SECOND * memory[1] + (1 - SECOND) * delta**2
        return m / (jnp.sqrt(v) + TAU), (m, v)

    return optax.GradientTransformation(init, update)


YOGI = optax.scale_by_yogi(FIRST, SECOND, TAU, initial_accumulator_value=TAU**2)
SERVERS = {  # optimizer, log10 of the lowest server stepsize; the highest is 100 times as large
    "FedAvg": (None, -1.5),
    "FedAvgM": (optax.trace(FIRST), -2.5),
    "FedAdam (optax)": (optax.scale_by_adam(FIRST, SECOND, eps=TAU), -3),
    "FedAdam (published)": (published_adam(), -3),
    "FedAdagrad": (optax.scale_by_rss(TAU**2, eps=TAU**2), -2),
    "FedYogi": (YOGI, -3),
}


def sizes(alphas, steps, rounds, seeds, deals, servers) -> SimpleNamespace:
    """Return how much is run: the grid of biases, then rounds, seeds and members of parts."""
    return SimpleNamespace(**locals())


LONG = {"bias": 2500, "rounds": 4000, "digits": 1000, "measures": 1000, "servers": 400}
SHORT = {"bias": 1200, "rounds": 1000, "digits": 100, "measures": 400, "servers": 200}
GRID, ALL = (STEPSIZES, (1, 2, 5, 10, 20)), (tuple(SHARDS), (tuple(SERVERS), 9))
FEW = (("sorted", "shuffled"), (("FedAvg", "FedAdagrad"), 5))
SCALES = {  # seeds of rounds, participation, measures and servers
    "quick": sizes(STEPSIZES[::2], (1, 2, 10), SHORT, (4, 8, 1, 2), *FEW),
    "default": sizes(*GRID, LONG, (8, 8, 1, 8), *ALL),
    "full": sizes(*GRID, LONG | {"digits": 4000}, (32, 32, 4, 32), *ALL),
}


@functools.cache
def regression(shift, spread=0.5, scale=1.0, rest=0.0, seed=0, aligned=False) -> Any:
    """Return least squares of clients with Hessians that differ, the largest smoothness 1.

    Client i's minimizer is θ + shift vᵢ with |vᵢ| = 1, |θ| = scale, and fᵢ* = rest² / 2; ``spread``
    is the Hessians', 0 for one Hessian. If ``aligned``, Hessians and minimizers differ in one
    direction, where bias is large for its σ_f*; else at random.
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
    kept, kind = (train.features[:even], train.labels[:even]), jd.problems.softmax_regression
    made = {}
    for name, shards in SHARDS.items():
        partition = jd.partition.by_label(shards) if shards else jd.partition.iid()
        made[name] = kind(*kept, agents=DIGITS_CLIENTS, l2=L2, partition=partition)
    return made, jd.metrics.accuracy(*held_out)


def first_order(problem: Any) -> float:
    """Return |½ H⁻¹ mean(Hᵢ ∇fᵢ(x*))|, the bias over α(Q − 1) for small steps."""
    features = np.asarray(problem.data[0])
    hessians = np.einsum("nmp,nmq->npq", features, features) / features.shape[1]
    tilts = np.asarray(problem.grad(problem.start(problem.solution)))
    turned = np.einsum("npq,nq->np", hessians, tilts).mean(axis=0)
    return float(np.linalg.norm(np.linalg.solve(hessians.mean(axis=0), turned)) / 2)


@jax.jit
def dissimilarity(problem: Any, x: jax.Array) -> jax.Array:
    """Return (1/n) Σᵢ |∇fᵢ − ∇F|² at x [d]."""
    gradients = problem.grad(jnp.broadcast_to(x, (problem.n, problem.d)))
    return jnp.mean(jnp.sum((gradients - gradients.mean(axis=0)) ** 2, axis=1))


def measured(problem: Any) -> dict[str, float]:
    """Return σ_f*, 0 where it is so up to rounding, ζ² at the solution and at the start, and L."""
    gap, ends = jd.problems.heterogeneity(problem).gap, (problem.solution, problem.origin)
    squares = [float(dissimilarity(problem, x)) for x in ends]
    own = (gap if gap > 1e-13 else 0.0, *squares, float(problem.smoothness))
    return dict(zip((*MEASURES, "L"), own, strict=True))


def with_bias(part: str, dim: str, steps: Any, dataset: Any, world: Any, _: Any) -> xr.Dataset:
    """Add measures of heterogeneity, and the bias with constant steps: |∇F|² / (½ (αL(Q − 1))² L).

    ``used`` is its share of its bound F − F* + σ_f*.
    """
    rows = [measured(problem) for problem in problems(part, world)]
    dataset = dataset.assign({name: (dim, [row[name] for row in rows]) for name in rows[0]})
    last = dataset.isel(step=-1, drop=True)
    last = last.sel(schedule="constant", drop=True) if "schedule" in last.dims else last
    unit = (steps[0] * last.L * (steps[1] - 1)) ** 2 * last.L / 2
    bias = last.gradient_norm_squared / unit
    return dataset.assign(bias=bias, used=bias / (last.gap + last.measure))


def estimate(state: Any, problem: Any) -> jax.Array:  # noqa: ARG001
    """Return the estimate [d]."""
    return state.estimate


def schedules(initial: float, offset: float, local_steps: int) -> Any:
    """Return FedAvg with the stepsizes a₀ and a₀ / (1 + t / offset), stacked as `SCHEDULES`."""

    def one(offset: Any) -> Any:
        return jd.FedAvg(jd.schedules.Polynomial(initial, 1.0, offset), local_steps=local_steps)

    return jax.vmap(one)(jnp.array([1e30, offset]))


def histories(
    problems: Any, methods: Any, rounds: int, records: int, over: Any, **more: Any
) -> Any:
    """Return the program of stacked problems and methods; ``over`` has dimensions and labels."""
    shared = {"algorithm": methods, "problem": jd.stack(problems), "x0": problems[0].start()}
    shared |= {"network": Server(problems[0].n), "key": jax.random.key(0)}
    shared |= {"steps": rounds, "every": rounds // records, "metrics": {"x": estimate}}
    return Program(shared | more, {name: Axis(*axis) for name, axis in over.items()})


SCHEDULED = {"algorithm": ("schedule", SCHEDULES)}


def averaged(problem: Any, stepsize: Any, local_steps: Any, most: int, rounds: int) -> Any:
    """Return a run; all members share a program, and stand still after their own steps."""
    own = jnp.broadcast_to(local_steps, (CLIENTS, 1))
    method = jd.FedAvg(stepsize, local_steps=most, own_steps=own)
    key, x0 = jax.random.key(0), problem.start()
    return jd.run(method, problem, Server(CLIENTS), x0, key, steps=rounds, every=rounds)


def bias(world: Any, _: Any) -> dict[str, Program]:
    """Return full gradients and constant steps: shift, stepsize, Q."""
    swept = {"problem": jd.stack([regression(shift) for shift in SHIFTS])}
    swept |= {"stepsize": jnp.array(world.alphas), "local_steps": jnp.array(world.steps)}
    fixed = {"most": max(world.steps), "rounds": world.rounds["bias"]}
    over = {"problem": Axis("shift", SHIFTS), "stepsize": Axis("stepsize", world.alphas)}
    return {"": Program(swept | fixed, over | {"local_steps": Axis("Q", world.steps)}, averaged)}


def with_theory(dataset: xr.Dataset, *_: Any) -> xr.Dataset:
    """Return |x − x*| at the end, what is expected of it to first order, and σ_f*."""
    problems = [regression(shift) for shift in SHIFTS]
    first = xr.DataArray([first_order(problem) for problem in problems], dims="shift")
    error = np.sqrt(dataset.distance_squared.isel(step=-1, drop=True)).to_dataset(name="error")
    error["measure"] = "shift", [measured(problem)["measure"] for problem in problems]
    return error.assign(expected=first * error.stepsize * (error.Q - 1))


def over_rounds(world: Any, _: Any) -> dict[str, Program]:
    """Return both schedules with full gradients, then with one sample: problem, schedule, seed."""
    whole, keys = [regression(*case) for case in SYNTHETIC.values()], world.seeds[0]
    cases = {FULL: (whole, 1), SINGLE: ([jd.problems.Minibatch(p, 1) for p in whole], keys)}
    over = {"problem": ("problem", list(SYNTHETIC)), **SCHEDULED}
    methods, found = schedules(STEADY[0], OFFSET, STEADY[1]), {}
    for name, (made, n) in cases.items():
        key = jax.random.split(jax.random.key(world.seed), n)
        axes = over | {"key": ("seed", range(n))}
        found[name] = histories(made, methods, world.rounds["rounds"], 200, axes, key=key)
    return found


def taking_part(world: Any, _: Any) -> dict[str, Program]:
    """Return Q = 1 and full gradients: shift, schedule, seed.

    The laws are half of the clients, each with probability 1/2, and each with its own.
    """
    rounds, seeds, problems = 4000, world.seeds[1], [regression(shift) for shift in SHIFTS[::2]]
    drawn = np.random.default_rng(world.seed).random((len(LAWS), seeds, rounds, CLIENTS))
    half = np.sort(drawn[0], axis=-1)[..., CLIENTS // 2 - 1 :][..., :1]
    rows = (drawn[0] <= half, drawn[1] < 0.5, drawn[2] < np.array(CHANCES))
    over = {"problem": ("shift", SHIFTS[::2]), **SCHEDULED, "network": ("seed", range(seeds))}
    methods, found = schedules(STEADY[0] * STEADY[1], OFFSET, 1), {}
    for law, own in zip(LAWS, rows, strict=True):
        network = participation.Trace(jnp.asarray(own), CLIENTS)
        found[law] = histories(problems, methods, rounds, 200, over, network=network)
    return found


def weights(chances: Sequence[float]) -> np.ndarray:
    """Return qᵢ ∝ E[1{i takes part} / number of those who do], of independent clients."""
    there = np.array([some for some in itertools.product((0, 1), repeat=len(chances)) if any(some)])
    odds = np.prod(np.where(there, chances, 1 - np.array(chances)), axis=1)
    shares = odds @ (there / there.sum(axis=1, keepdims=True))
    return shares / shares.sum()


def unequal(problem: Any) -> np.ndarray:
    """Return x_q, the minimizer of Σᵢ qᵢ fᵢ of a least squares problem with unequal chances."""
    features, labels = map(np.asarray, problem.data)
    hessian = np.einsum("n,nmp,nmq->pq", weights(CHANCES), features, features)
    return np.linalg.solve(hessian, np.einsum("n,nmp,nm->p", weights(CHANCES), features, labels))


def with_limits(dataset: xr.Dataset, *_: Any) -> xr.Dataset:
    """Add root mean square distances at the ends of decreasing steps, δ = 1, from x* and x_q."""
    last, ends = dataset.x.sel(shift=1.0, schedule="decreasing", drop=True).isel(step=-1), {}
    points = np.asarray(regression(1.0).solution), unequal(regression(1.0))
    for name, point in zip(("away", "off"), points, strict=True):
        ends[name] = np.sqrt(
            ((last - xr.DataArray(point, dims="x_0")) ** 2).sum("x_0").mean("seed")
        )
    return dataset.assign(ends | {"expected": np.linalg.norm(points[0] - points[1])})


def problems(part: str, world: Any) -> list[Any]:
    """Return many synthetic problems, or the digits' partitions."""
    if part == "digits":
        return [digits(world.seed)[0][name] for name in world.deals]
    return [regression(*case) for case in many(world)]


def dealt(world: Any, _: Any) -> dict[str, Program]:
    """Return the digits with full gradients: partition, schedule."""
    rounds, over = world.rounds["digits"], {"problem": ("partition", world.deals), **SCHEDULED}
    methods = schedules(DIGITS_STEPS[0], rounds / 10, DIGITS_STEPS[1])
    return {"": histories(problems("digits", world), methods, rounds, 50, over)}


def many(world: Any) -> list[tuple[Any, ...]]:
    """Return the arguments of many synthetic problems."""
    scales, seeds = ((1.0, 0.0), (10.0, 1.0)), range(world.seeds[2])
    parts = itertools.product((0.0, 0.01, 0.1, 1.0), (0.0, 0.2, 0.9), scales, seeds, (False, True))
    return [(shift, spread, *scale, *rest) for shift, spread, scale, *rest in parts]


def scatter(world: Any, _: Any) -> dict[str, Program]:
    """Return constant steps and full gradients on many problems: case."""
    over = {"problem": ("case", range(len(many(world))))}
    method, rounds = jd.FedAvg(STEADY[0], local_steps=STEADY[1]), world.rounds["measures"]
    return {"": histories(problems("measures", world), method, rounds, 1, over)}


def condition(problem: Any, batch: int, points: np.ndarray) -> dict[str, Any]:
    """Return C and σ² for minibatches, and the largest use of bounds along points [r, d].

    Those are a client's variance over C (fᵢ − fᵢ*) + σ², the same of the means over clients, and
    mean|∇fᵢ|² over 2L (F − F* + σ_f*). Where a bound is 0 up to rounding, nothing is divided.
    """
    noisy = [jd.problems.Minibatch(problem.take(jnp.array([i])), batch) for i in range(problem.n)]
    own = [jd.problems.general_variance(client) for client in noisy]
    least = np.array([client.sigma_squared / client.C for client in own])  # as σᵢ² is Cᵢ fᵢ*
    factor = max(client.C for client in own)
    floor = factor * max(least)  # both as `general_variance` has them for all clients

    @jax.jit
    def at(x: jax.Array) -> tuple[jax.Array, ...]:  # variances of one sample's gradient: [n]
        rows, numbers = jnp.broadcast_to(x, (problem.n, problem.d)), jnp.arange(problem.most)
        each = jax.lax.map(lambda j: problem.grad_at(rows, jnp.full(problem.n, j)), numbers)
        mean = each.mean(axis=0)
        values = jax.vmap(lambda i: problem.take(i[None]).objective(x))(jnp.arange(problem.n))
        return ((each - mean) ** 2).sum(2).mean(0), values, (mean**2).sum(1)

    variances, values, squares = map(np.asarray, jax.lax.map(at, jnp.asarray(points)))
    variances, bounds = variances / batch, factor * (values - least) + floor
    mean = 2 * float(problem.smoothness) * (values - least).mean(axis=1)
    parts = {"client": (variances, bounds), "mean": (variances.mean(axis=1), bounds.mean(axis=1))}
    parts |= {"gradients": (squares.mean(axis=1), mean)}
    used = {
        name: np.max(np.where(bound > 1e-20, part / np.maximum(bound, 1e-20), 0))
        for name, (part, bound) in parts.items()
    }
    return {"C": factor, "sigma_squared": floor, **used}


def conditions(world: Any, done: Results) -> dict[str, Program]:
    """Return the condition's numbers of all problems, along runs with constant steps."""
    noisy = done["rounds"].x.sel(samples=SINGLE, schedule="constant").isel(seed=0)
    smooth = done["digits"].x.sel(schedule="constant").isel(step=slice(None, None, 5))
    found = {}
    for name, case in SYNTHETIC.items():
        found[name] = (regression(*case), 1, noisy.sel(problem=name).values[:41])
    for name, problem in zip(world.deals, problems("digits", world), strict=True):
        found[f"digits, {name}"] = (problem, BATCH, smooth.sel(partition=name).values)
    names = ("problem", "batch", "points")
    cases: dict[str, Any] = {at: dict(zip(names, case, strict=True)) for at, case in found.items()}
    return {at: Program(arguments, function=condition) for at, arguments in cases.items()}


def servers(world: Any, _: Any) -> dict[str, Program]:
    """Return the sorted digits with minibatches: choice of the server stepsize, seed."""
    (problems, accuracy), (names, points), found = digits(world.seed), world.servers, {}
    shared = {"problem": jd.problems.Minibatch(problems["sorted"], BATCH), "progress": False}
    shared |= {"networks": participation.uniform(DIGITS_CLIENTS, PRESENT), "every": 10}
    shared |= {"steps": world.rounds["servers"], "metrics": {"accuracy": accuracy}}
    shared |= {"seeds": range(world.seed, world.seed + world.seeds[3])}
    for name in names:
        optimizer, low = SERVERS[name]
        method = jd.FedAvg(DIGITS_STEPS[0], local_steps=DIGITS_STEPS[1], server=optimizer)
        grid = np.logspace(low, low + 2, points)
        own = {"algorithms": {name: method}, "over": {name: {"server_stepsize": grid}}}
        found[name] = Program(shared | own, function=jd.compare, reduce=alone)
    return found


def alone(dataset: xr.Dataset) -> xr.Dataset:
    """Return gaps and accuracies of one method on one network."""
    return dataset[["gap", "accuracy"]].isel(algorithm=0, network=0, drop=True)


def with_rounds(dataset: xr.Dataset, *_: Any) -> xr.Dataset:
    """Add F − F* as means over seeds and five records, as one may be low by luck, and rounds."""
    last = dataset.isel(step=slice(-5, None)).mean(["seed", "step"])
    dataset = dataset.assign({"last gap": last.gap, "last accuracy": last.accuracy})
    dataset = dataset.assign(smooth=dataset.gap.mean("seed").rolling(step=5).mean())
    return dataset.assign(rounds=jd.reach(dataset, "smooth", TARGET).fillna(np.inf))


def bests(results: Results) -> xr.Dataset:
    """Return every optimizer at the server stepsize that is first at the target; and the mean."""
    served = results["servers"]
    plain = served.sel(algorithm=["FedAvg"]).assign_coords(algorithm=[PLAIN])
    plain = plain.isel(choice=int(abs(np.log(plain.server_stepsize.values[0])).argmin()))
    both: Any = [served.isel(choice=served.rounds.argmin("choice")), plain]
    return xr.concat(both, "algorithm").reset_coords("server_stepsize").drop_vars("choice")


def exponents(results: Results) -> xr.DataArray:
    """Return exponents of |x − x*| over α, Q − 1 and σ_f*^½, one a line of the grid."""
    grid, found = results["bias"], list[Any]()
    small = grid.error.where((grid.stepsize * (grid.Q - 1) <= LINEAR) & (grid.Q > 1))[1:]
    axes = {"stepsize": grid.stepsize, "Q": grid.Q - 1, "shift": np.sqrt(grid.measure)}
    for along, x in axes.items():
        own = flat(exponent(x, small, along))
        found.append(own.assign_coords(member=[f"over {along}, {at}" for at in own.member.values]))
    lines: Any = xr.concat(found, "member")
    return lines


def exact(results: Results) -> xr.DataArray:
    """Return the largest distances where there should be no bias: case."""
    largest, many = results["bias"].error.isel(stepsize=-1), results["measures"]
    constant = [results[name].sel(schedule="constant") for name in ("rounds", "participation")]
    walks, who = (np.sqrt(own.distance_squared.isel(step=-1).mean("seed")) for own in constant)
    cases = {
        "Q = 1, largest α": largest.sel(Q=1),
        "σ_f* = 0, largest α": largest.sel(shift=0.0),
        "σ_f* = σ² = 0, one sample": walks.sel(problem="one minimizer", samples=SINGLE),
        "σ_f* = 0, Q = 1, half take part": who.sel(shift=0.0),
        "σ_f* = 0, |∇F|": np.sqrt(many.gradient_norm_squared.where(many.measure == 0)[..., -1]),
    }
    return xr.DataArray([own.max() for own in cases.values()], {"case": list(cases)}, "case")


def decay(samples: str, results: Results) -> xr.DataArray:
    """Return the exponent of |x − x*| over rounds with decreasing steps."""
    walk = results["rounds"].sel(samples=samples, schedule="decreasing", problem="δ = 1")
    far = np.sqrt(walk.distance_squared.mean("seed"))
    far = far[far.size // 10 :]
    return exponent(far.step + OFFSET, far, "step")


def astray(results: Results) -> xr.DataArray:
    """Return distances over |x_q − x*|: from x_q where chances are unequal, else from x*."""
    who = results["participation"]
    return xr.where(who.law == LAWS[-1], who.off, who.away) / who.expected


def ordered(results: Results) -> float:
    """Return the smallest factor of the digits' |∇F|² from one partition to the next by σ_f*."""
    last = results["digits"].sel(schedule="constant").isel(step=-1).sortby("measure")
    squares = last.gradient_norm_squared.values
    return (squares[1:] / squares[:-1]).min()


def bounded(results: Results) -> xr.DataArray:
    """Return the largest share of the bound on |∇F|² that is used, where σ_f* > 0: part."""
    parts = {name: results[name].used.where(results[name].measure > 0) for name in DEALT}
    return xr.DataArray([own.max() for own in parts.values()], {"part": list(parts)}, "part")


def shares(results: Results) -> xr.DataArray:
    """Return the largest use of the condition's bounds: bound, problem."""
    return results["conditions"][["client", "mean", "gradients"]].to_array("bound")


def differ(results: Results) -> xr.DataArray:
    """Return whether the Hessians of the many problems differ."""
    return xr.DataArray([case[1] > 0 for case in many(results.world)], dims="case")


def ranks(results: Results) -> xr.Dataset:
    """Return Spearman's correlations of biases and measures, if σ_f* > 0 and Hessians differ."""
    found = results["measures"].isel(step=-1)
    kept = found.isel(case=np.flatnonzero(differ(results) & (found.measure > 0)))
    found = [spearmanr(kept.gradient_norm_squared, kept[name])[0] for name in MEASURES]
    return xr.Dataset({"correlation": ("measure", found)}, {"measure": list(MEASURES.values())})


def ahead(other: str, results: Results) -> float:
    """Return by how much σ_f* orders biases better than another measure does."""
    found = ranks(results).correlation
    return float(found.sel(measure="σ_f*") - found.sel(measure=other))


def sooner(results: Results) -> xr.DataArray:
    """Return adaptive servers' rounds to the target over FedAvg's: than, algorithm."""
    needed, others = bests(results).rounds, ["FedAvg", PLAIN]
    own = needed.sel(algorithm=[a for a in needed.algorithm.values if "Ada" in a or "Yogi" in a])
    return own / needed.sel(algorithm=others).rename(algorithm="than")


def earlier(results: Results) -> float:
    """Return how many rounds the published FedAdam is ahead of optax's."""
    needed = bests(results).rounds
    names = [present(needed, "algorithm", f"FedAdam ({which})") for which in ("optax", "published")]
    return float(needed.sel(algorithm=names[0]) - needed.sel(algorithm=names[1]))


LIMITS, (END, START) = "derived: E g = Σ qᵢ ∇fᵢ", list(MEASURES.values())[1:]
MORE, DECAY = ("default", "full"), f"{PAPER}, from memory; rate: derived"
BOUNDS = f"{PAPER}: form from memory, constants derived"
NO_BOUND = f"{PAPER}, abstract: no bound on it"
CLAIMS = [
    Claim("|x − x*| ∝ α(Q − 1) σ_f*^½: exponents", "derived", "1", exponents, near(1, 0.1), MORE),
    Claim("no bias where Q = 1 or σ_f* = 0: |x − x*|", "derived", "0", exact, below(EXACT)),
    Claim(f"steps a₀/(1 + ct), {FULL}: exponent", DECAY, "-1", with_(decay, FULL), near(-1, 0.1)),
    Claim(
        f"steps a₀/(1 + ct), {SINGLE}: exponent",
        DECAY,
        "-0.5",
        with_(decay, SINGLE),
        near(-0.5, 0.2),
    ),
    Claim("Q = 1: to x*, or x_q: distance / |x_q − x*|", LIMITS, "0", astray, below(1 / 5)),
    Claim("digits: |∇F|² grows with σ_f*, factors", "asked here", "> 1", ordered, above(1)),
    Claim("|∇F|² / (½ (αL(Q − 1))² L (F − F* + σ_f*))", "derived", "≤ 1", bounded, below(1)),
    Claim(
        f"σ_f* orders biases, more than {START}", NO_BOUND, "> 0", with_(ahead, START), above(0.05)
    ),
    Claim(
        f"σ_f* orders biases, more than {END}", "asked here", "> 0", with_(ahead, END), above(0.05)
    ),
    Claim("variances, |∇fᵢ|²: shares of the condition's bounds", BOUNDS, "≤ 1", shares, below(1)),
    Claim(
        "adaptive servers: rounds over FedAvg's", f"{ADAPTIVE}, abstract", "< 1", sooner, below(0.9)
    ),
    Claim("published FedAdam: rounds before optax's", "derived", "> 0", earlier, above(10)),
]


def first_order_lines(ax: Any, results: Results) -> None:
    """Draw what is expected of the bias to first order in α."""
    for i, (_, own) in enumerate(results["bias"].expected.sel(shift=1.0)[:, 1:].groupby("Q")):
        ax.plot(own.stepsize, own.squeeze(), label="" if i else "first order", **REFERENCE)


def distances(results: Results) -> xr.Dataset:
    """Return |x − x*| at Q = 10: case, schedule, seed, step."""
    squares = results["rounds"].distance_squared
    squares = squares.fillna(squares.isel(seed=0, drop=True))  # full gradients have one seed
    one = squares.sel(problem="one minimizer", samples=SINGLE, drop=True)
    both = squares.sel(problem="δ = 1", drop=True).rename(samples="case")
    one = one.where(one.schedule == "constant").expand_dims(case=[r"$\sigma_f^\star=0$"])
    far: Any = xr.concat([both, one], "case") ** 0.5
    return far.to_dataset(name="distance").assign(diverged=False)


def laws(results: Results) -> xr.Dataset:
    """Return |x − x*| of the three laws of participation, with decreasing steps."""
    who = results["participation"].sel(shift=1.0, schedule="decreasing")
    return np.sqrt(who.distance_squared).to_dataset(name="distance")


def smooth(results: Results) -> xr.Dataset:
    """Return F − F* of every optimizer at its own best server stepsize."""
    return bests(results)[["smooth"]].drop_sel(algorithm=PLAIN)


def clouds(name: str, results: Results) -> xr.DataArray:
    """Return biases over one measure of heterogeneity, zeros at the edges: kind, case."""
    many, deals = results["measures"], results["digits"].rename(partition="case")
    kinds = {"Hessians differ": many.where(differ(results))}
    kinds |= {"one Hessian": many.where(~differ(results))}
    kinds |= {"digits": deals.assign_coords(case=range(deals.sizes["case"]))}
    index: Any = xr.DataArray(list(kinds), dims="kind", name="kind")
    both = [own.bias.assign_coords({name: own[name].clip(min=3e-6)}) for own in kinds.values()]
    return xr.concat(both, index, join="outer").clip(min=1e-10)


def bound(ax: Any, _: Any) -> None:
    """Draw the bound of the bias at σ_f*, but for F − F*."""
    ax.plot([3e-6, 1], [3e-6, 1], label=r"bound $\sigma_f^\star$", **REFERENCE)


def over_time(data: Any, y: str, ylabel: str, title: str, *also: Any, **options: Any) -> Lines:
    """Return a panel of curves over rounds."""
    given = {"data": data, "y": y, "ylabel": ylabel, "title": title, "also": also}
    return Lines(x="step", xlabel="rounds", legend="panel", **given | options)


DISTANCE, LIMIT = r"$|x - x^\star|$", r"$|x_q - x^\star|$"
SQUARES = ("gradient_norm_squared", r"$|\nabla F(x)|^2$")
EXPECTED = level(lambda results: float(results["participation"].expected), LIMIT)
SHORT_LAWS = {law: law.removesuffix(" chances") for law in LAWS}
PANELS = [
    [
        LogLog(
            data=lambda results: results["bias"].error.sel(shift=1.0, drop=True)[:, 1:],
            x="stepsize",
            by="Q",
            labels={str(q): f"{q} local steps" for q in GRID[1]},
            legend="panel",
            xlabel=r"stepsize $\alpha L$",
            ylabel=f"{DISTANCE} at the end",
            title="bias",
            also=[first_order_lines],
        ),
        over_time(
            distances, "distance", DISTANCE, "10 local steps", logx=True, floor=1e-16, split=True
        ),
        over_time(
            laws,
            "distance",
            DISTANCE,
            "1 local step, decreasing",
            EXPECTED,
            logx=True,
            labels=SHORT_LAWS,
        ),
    ],
    [
        over_time("digits", *SQUARES, "digits, 10 local steps", split=True),
        over_time(
            smooth,
            "smooth",
            r"$F(x) - F^\star$",
            "sorted digits, 5 of 20 clients",
            level(TARGET, "target"),
        ),
    ],
]
CLOUDS = [
    LogLog(
        data=with_(clouds, name),
        x=name,
        by="kind",
        joined=False,
        ticks=False,
        xlabel=title,
        ylabel=r"$|\nabla F|^2\ /\ \frac{1}{2}(\alpha L(Q-1))^2 L$",
        also=[bound] * (name == "measure"),
        title={"measure": "Q = 10 local steps", "at_start": "zeros lie at the edges"}.get(name, ""),
    )
    for name, title in MEASURES.items()
]
STUDY = Study(
    name="fedavg",
    paper=f"the general variance condition (2023), {PAPER}; adaptive servers (2020), {ADAPTIVE}",
    question="What bias do FedAvg's local steps have, and is σ_f* what it depends on?",
    scales=SCALES,
    world=lambda sizes, seed: SimpleNamespace(seed=seed, **vars(sizes)),
    parts={
        "bias": Part(None, bias, with_theory),
        "rounds": Part("samples", over_rounds),
        "participation": Part("law", taking_part, with_limits),
        "digits": Part(None, dealt, with_(with_bias, "digits", "partition", DIGITS_STEPS)),
        "measures": Part(None, scatter, with_(with_bias, "measures", "case", STEADY)),
        "conditions": Part("problem", conditions),
        "servers": Part("algorithm", servers, with_rounds),
    },
    claims=CLAIMS,
    figures={
        "fedavg": Figure(PANELS, height=2.7),
        "measures": Figure([CLOUDS], height=2.4, sharey=True),
    },
    tables={
        "conditions": ("constants, largest use of bounds", lambda results: results["conditions"]),
        "measures": ("which measure orders biases", ranks),
        "servers": ("sorted digits", lambda results: bests(results)[[*ENDS]]),
    },
    minutes={"quick": 0.8, "default": 4, "full": 20},
    data=lambda _: (
        "least squares; 1,360 of scikit-learn's handwritten digits, 64 pixels, 20 clients"
    ),
)
