"""FedAvg's bias under the general variance condition (arXiv 2301.12677): what removes it.

Stepsizes are α, a client takes Q local steps a round, and σ_f* = F* − (1/n) Σᵢ fᵢ* measures
heterogeneity. *bias*: where FedAvg ends with full gradients and constant steps. *rounds*: do
stepsizes a₀ / (1 + c t) remove bias and noise? *participation*: the limits of unequal
probabilities, Q = 1. `experiments.heterogeneity` compares σ_f* with other measures.

The problems are least squares, all smoothness constants at most 1, client i's labels exact at
θ + δ vᵢ: then fᵢ* = 0, and so the minibatches' σ² is 0, and σ_f* grows as δ². All in float64.

The paper's experiments are not known to us; what is claimed here is derived. Clients with one
Hessian have no bias. To first order that of quadratics is ½ α(Q − 1) H⁻¹ mean(Hᵢ∇fᵢ(x*)).
"""

import itertools
from collections.abc import Sequence
from functools import cache, partial
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

import jaxdopt as jd
from experiments.claims import below, claims, near
from experiments.measures import exponent, flat
from experiments.panels import REFERENCE, Figure, Lines, LogLog, level
from experiments.study import Axis, Part, Program, Results, Study
from jaxdopt.networks import Server, participation

CLIENTS, DIMENSION, SAMPLES = 8, 5, 10
SHIFTS = (0.0, 0.1, 1.0)  # δ
STEPSIZES = tuple(0.01 * 2.0**j for j in range(6))  # αL
LOCAL_STEPS = (1, 2, 5, 10, 20)  # Q
LINEAR = 0.2  # αL(Q − 1) up to which exponents are fitted
EXACT = 1e-12  # |x − x*| up to which a limit counts as exact
STEADY = (0.05, 10)  # αL and Q of all parts but the bias', and first steps where they decrease
OFFSET = 20.0  # 1/c in rounds
FULL, SINGLE = "full gradients", "one sample"
SYNTHETIC = {"one minimizer": (0.0,), "δ = 0.1": (0.1,), "δ = 1": (1.0,)}
SYNTHETIC |= {"δ = 1, noisy labels": (1.0, 0.5, 1.0, 0.3)}  # arguments of `regression`
CHANCES = tuple(np.linspace(0.1, 0.9, CLIENTS))
LAWS = ("uniform", "equal chances", "unequal chances")  # of taking part, half of the clients
LONG, SHORT = {"bias": 2500, "rounds": 4000}, {"bias": 1200, "rounds": 1000}
# The grid of biases; rounds of two parts; seeds of rounds and of participation.
SCALES = {
    "quick": {"alphas": STEPSIZES[::2], "steps": (1, 2, 10), "rounds": SHORT, "seeds": (4, 8)},
    "default": {"alphas": STEPSIZES, "steps": LOCAL_STEPS, "rounds": LONG, "seeds": (8, 8)},
    "full": {"alphas": STEPSIZES, "steps": LOCAL_STEPS, "rounds": LONG, "seeds": (32, 32)},
}
SCHEDULED = {"algorithm": ("schedule", ("constant", "decreasing"))}
ESTIMATE = {"x": lambda state, _: state.estimate}


@cache
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


def first_order(problem: Any) -> float:
    """Return |½ H⁻¹ mean(Hᵢ ∇fᵢ(x*))|, the bias over α(Q − 1) for small steps."""
    features = np.asarray(problem.data[0])
    hessians = np.einsum("nmp,nmq->npq", features, features) / features.shape[1]
    tilts = np.asarray(problem.grad(problem.start(problem.solution)))
    turned = np.einsum("npq,nq->np", hessians, tilts).mean(axis=0)
    return float(np.linalg.norm(np.linalg.solve(hessians.mean(axis=0), turned)) / 2)


def sigma_f(problem: Any) -> float:
    """Return σ_f*, 0 where it is so up to rounding."""
    gap = jd.problems.heterogeneity(problem).gap
    return gap if gap > 1e-13 else 0.0


def schedules(initial: float, offset: float, local_steps: int) -> Any:
    """Return FedAvg with the stepsizes a₀ and a₀ / (1 + t / offset), stacked as in `SCHEDULED`."""

    def one(offset: Any) -> Any:
        return jd.FedAvg(jd.schedules.Polynomial(initial, 1.0, offset), local_steps=local_steps)

    return jax.vmap(one)(jnp.array([1e30, offset]))


def histories(made: Any, methods: Any, rounds: int, records: int, over: Any, **more: Any) -> Any:
    """Return the program of stacked problems and methods; ``over`` has dimensions and labels."""
    shared = {"algorithm": methods, "problem": jd.stack(made), "x0": made[0].start()}
    shared |= {"network": Server(made[0].n), "key": jax.random.key(0), "metrics": ESTIMATE}
    shared |= {"steps": rounds, "every": rounds // records}
    return Program(shared | more, {name: Axis(*axis) for name, axis in over.items()})


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
    error["measure"] = "shift", [sigma_f(problem) for problem in problems]
    return error.assign(expected=first * error.stepsize * (error.Q - 1))


def over_rounds(world: Any, _: Any) -> dict[str, Program]:
    """Return both schedules with full gradients, then with one sample: problem, schedule, seed."""
    whole = [regression(*case) for case in SYNTHETIC.values()]
    cases = {FULL: (whole, 1)}
    cases[SINGLE] = ([jd.problems.Minibatch(problem, 1) for problem in whole], world.seeds[0])
    over, found = {"problem": ("problem", list(SYNTHETIC)), **SCHEDULED}, {}
    methods, rounds = schedules(STEADY[0], OFFSET, STEADY[1]), world.rounds["rounds"]
    for name, (made, n) in cases.items():
        key, axes = jax.random.split(jax.random.key(world.seed), n), {"key": ("seed", range(n))}
        found[name] = histories(made, methods, rounds, 200, over | axes, key=key)
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
    methods = schedules(STEADY[0] * STEADY[1], OFFSET, 1)
    tables = [participation.Trace(jnp.asarray(own), CLIENTS) for own in rows]
    run = partial(histories, problems, methods, rounds, 200, over)
    return {law: run(network=table) for law, table in zip(LAWS, tables, strict=True)}


def weights(chances: Sequence[float]) -> np.ndarray:
    """Return qᵢ ∝ E[1{i takes part} / number of those who do], of independent clients."""
    there = np.array([some for some in itertools.product((0, 1), repeat=len(chances)) if any(some)])
    odds = np.prod(np.where(there, chances, 1 - np.array(chances)), axis=1)
    shares = odds @ (there / there.sum(axis=1, keepdims=True))
    return shares / shares.sum()


def with_limits(dataset: xr.Dataset, *_: Any) -> xr.Dataset:
    """Add root mean square distances at the ends of decreasing steps, δ = 1, from x* and x_q.

    x_q is the minimizer of Σᵢ qᵢ fᵢ with unequal chances; ``expected`` is |x_q − x*|.
    """
    problem, q = regression(1.0), weights(CHANCES)
    features, labels = map(np.asarray, problem.data)
    hessian = np.einsum("n,nmp,nmq->pq", q, features, features)
    moved = np.linalg.solve(hessian, np.einsum("n,nmp,nm->p", q, features, labels))
    last = dataset.x.sel(shift=1.0, schedule="decreasing", drop=True).isel(step=-1)
    found = {"expected": np.linalg.norm(np.asarray(problem.solution) - moved)}
    for name, point in {"away": problem.solution, "off": moved}.items():
        squares = ((last - xr.DataArray(np.asarray(point), dims="x_0")) ** 2).sum("x_0")
        found[name] = np.sqrt(squares.mean("seed"))
    return dataset.assign(found)


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
    largest = results["bias"].error.isel(stepsize=-1)
    constant = [results[name].sel(schedule="constant") for name in ("rounds", "participation")]
    walks, who = (np.sqrt(own.distance_squared.isel(step=-1).mean("seed")) for own in constant)
    cases = {
        "Q = 1, largest α": largest.sel(Q=1),
        "σ_f* = 0, largest α": largest.sel(shift=0.0),
        "σ_f* = σ² = 0, one sample": walks.sel(problem="one minimizer", samples=SINGLE),
        "σ_f* = 0, Q = 1, half take part": who.sel(shift=0.0),
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


LIMITS, DECAY = "derived: E g = Σ qᵢ ∇fᵢ", "arXiv 2301.12677, from memory; rate: derived"
ALL, ONE, MORE = partial(decay, FULL), partial(decay, SINGLE), ("default", "full")
CLAIMS = claims(
    ("|x − x*| ∝ α(Q − 1) σ_f*^½: exponents", "derived", "1", exponents, near(1, 0.1), MORE),
    ("no bias where Q = 1 or σ_f* = 0: |x − x*|", "derived", "0", exact, below(EXACT)),
    (f"steps a₀/(1 + ct), {FULL}: exponent", DECAY, "-1", ALL, near(-1, 0.1)),
    (f"steps a₀/(1 + ct), {SINGLE}: exponent", DECAY, "-0.5", ONE, near(-0.5, 0.2)),
    ("Q = 1: to x*, or x_q: distance / |x_q − x*|", LIMITS, "0", astray, below(1 / 5)),
)


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


def over_time(data: Any, y: str, ylabel: str, title: str, *also: Any, **options: Any) -> Lines:
    """Return a panel of curves over rounds."""
    given = {"data": data, "y": y, "ylabel": ylabel, "title": title, "also": also}
    return Lines(x="step", xlabel="rounds", legend="panel", **given | options)


DISTANCE = r"$|x - x^\star|$"
EXPECTED = level(lambda r: float(r["participation"].expected), r"$|x_q - x^\star|$")
PANELS = [[
    LogLog(data=lambda r: r["bias"].error.sel(shift=1.0, drop=True)[:, 1:], x="stepsize", by="Q",
           labels={str(q): f"{q} local steps" for q in LOCAL_STEPS}, legend="panel",
           xlabel=r"stepsize $\alpha L$", ylabel=f"{DISTANCE} at the end", title="bias",
           also=[first_order_lines]),
    over_time(distances, "distance", DISTANCE, "10 local steps", logx=True, floor=1e-16,
              split=True),
    over_time(lambda r: np.sqrt(r["participation"][["distance_squared"]]), "distance_squared",
              DISTANCE, "1 local step, decreasing", EXPECTED, logx=True,
              at={"shift": 1.0, "schedule": "decreasing"},
              labels={law: law.removesuffix(" chances") for law in LAWS}),
]]  # fmt: skip
STUDY = Study(
    name="fedavg",
    paper="FedAvg under the general variance condition (2023), arXiv 2301.12677",
    question="What bias do FedAvg's local steps and unequal participation have, and do decreasing "
    "stepsizes remove it?",
    scales=SCALES,
    world=lambda sizes, seed: SimpleNamespace(seed=seed, **sizes),
    parts={
        "bias": Part(None, bias, with_theory),
        "rounds": Part("samples", over_rounds),
        "participation": Part("law", taking_part, with_limits),
    },
    claims=CLAIMS,
    figures={"fedavg": Figure(PANELS, height=2.7)},
    minutes={"quick": 0.3, "default": 1, "full": 5},
    data=lambda _: f"least squares, {CLIENTS} clients, {SAMPLES} samples each, d = {DIMENSION}",
)
