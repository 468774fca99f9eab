"""Agents that answer with values alone: Just One Byte (arXiv 2306.10015), FedZO (arXiv 2201.09531).

Separable quadratics of equal agents, curvatures 0.1 to 1, a start at distance 1 in every
coordinate. Just One Byte has the stepsize 1 / (1 + (d + 1)/n), half of what its second moment
allows, and DSGD 1 with gradients and 1 / (d + 2) with two values. Five questions:

* *variance*: is the noise of a step (d + 1) Σ |∇fᵢ|² / n², with a byte as with 32 bits?
* *curves*: does the byte's curve follow that of 32 bits, for 1, 4 and 16 machines, and to where?
* *bits*: what do d parameters cost over a link of a ring, in a step and to 1 % of the first risk?
* *joiner*: is a replayed log the model of those who were there?
* *queries*: of FedZO on five heterogeneous quadratics, beside FedAvg whose gradients would be made
  of d + 1 values, each at its best stepsize.

Everything in float64. The paper's experiments, which fine-tune language models, are not reproduced;
its byte has 16 steps to a factor of e and needs nine bits, ours 8.
"""

from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

import jaxdopt as jd
from experiments.claims import above, below, claims, near, within_factor
from experiments.measures import attained, exponent, over, quickest, tail
from experiments.panels import Figure, Lines, LogLog, slope
from experiments.study import Axis, Part, Program, Results, Study, comparisons, keys
from jaxdopt.compressors import LogByte
from jaxdopt.networks import Server

PAPER, ZEROTH = "arXiv 2306.10015", "arXiv 2201.09531"
CODES: dict[str, Any] = {"32 bits": None, "a byte": LogByte()}
MACHINES, DIMENSION, RING = (1, 4, 16), 20, 16
TARGET = 1e-2  # of the first risk
CLIENTS, SIZE, GOAL = 5, 10, 1e-3  # of "queries": clients, parameters, the gap to reach
METHODS = {
    "FedAvg, K = 5": jd.FedAvg(0.1, local_steps=5),
    "FedZO, K = 5, m = 10": jd.FedZO(0.1, local_steps=5, directions=10),
    "FedZO, K = 1, m = 10": jd.FedZO(0.1, local_steps=1, directions=10),
    "FedZO, K = 1, m = 40": jd.FedZO(0.1, local_steps=1, directions=40),
}
SCALES = {
    "quick": {"draws": 2000, "seeds": 4, "steps": 3000, "sizes": (20, 60, 200), "rounds": 400},
    "default": {
        "draws": 20_000,
        "seeds": 8,
        "steps": 4000,
        "sizes": (20, 50, 100, 200, 500, 1000),
        "rounds": 2000,
    },
}
SCALES["full"] = SCALES["default"] | {"seeds": 16}
GRID = tuple(np.geomspace(0.02, 1.28, 7).tolist())


def curvatures(d: int) -> jax.Array:
    """Return the curvatures of all coordinates."""
    return jnp.geomspace(0.1, 1, d)


def loss(x: jax.Array, center: jax.Array) -> jax.Array:
    """Σ hⱼ (xⱼ − cⱼ)² / 2."""
    return jnp.sum(curvatures(x.size) * (x - center) ** 2) / 2


def world(sizes: Any, seed: int) -> Any:
    """Return the sizes, seeds, and problems of equal agents."""
    made = {
        (n, d): jd.problems.FiniteSum(loss, np.zeros((n, 1, d)), np.ones(d))
        for n, d in [*((n, DIMENSION) for n in MACHINES), *((RING, d) for d in sizes["sizes"])]
    }
    seeds = range(seed, seed + sizes["seeds"])
    return SimpleNamespace(seed=seed, problems=made, over_seeds=Axis("seed", seeds), **sizes)


def risk(state: Any, _: Any) -> jax.Array:
    """Return F − F* over that of the start."""
    x = jd.metrics.estimate(state)
    return curvatures(x.size) @ x**2 / curvatures(x.size).sum()


def safe(n: int, d: int) -> float:
    """Return Just One Byte's stepsize of n machines."""
    return 1 / (1 + (d + 1) / n)


def moves(problem: Any, code: Any, key: jax.Array, draws: int) -> Any:
    """Return the variance of a step of stepsize 1 from the start, and the law's."""
    method, server = jd.JustOneByte(1.0, code=code), Server(problem.n)
    state = method.init(problem.start(), problem, server, key)
    step = jax.vmap(lambda key: method.step(state, problem, server, key).server)
    moved = step(jax.random.split(key, draws))
    squares = jnp.sum(problem.grad(problem.start()) ** 2)
    law = (problem.d + 1) * squares / problem.n**2
    return {"measured": moved.var(axis=0).sum(), "theory": law}


def variances(world: Any, _: Any) -> dict[Any, Program]:
    """Return the variances of all numbers of machines, with both codes."""
    shared = {"key": keys(world.over_seeds.labels), "draws": world.draws}
    return {
        (name, n): Program(
            {"problem": world.problems[n, DIMENSION], "code": code, **shared},
            {"key": world.over_seeds},
            moves,
        )
        for name, code in CODES.items()
        for n in MACHINES
    }


def descent(world: Any, problem: Any, method: Any, network: Any, steps: int, every: int) -> Program:
    """Return the program of risks over seeds."""
    shared = {"x0": world.problems[problem.n, problem.d].start(), "steps": steps}
    shared |= {"every": every, "metrics": {"risk": risk}, "defaults": ()}
    given = {"algorithm": method, "problem": problem, "network": network}
    given["key"] = keys(world.over_seeds.labels)
    return Program(given | shared, {"key": world.over_seeds})


def curves(world: Any, _: Any) -> dict[Any, Program]:
    """Return risks over steps of all numbers of machines, with both codes."""
    found = {}
    for n in MACHINES:
        for name, code in CODES.items():
            method, problem = jd.JustOneByte(safe(n, DIMENSION), code=code), world.problems[n, 20]
            found[f"n = {n}", name] = descent(world, problem, method, Server(n), world.steps, 10)
    return found


def links(world: Any, _: Any) -> dict[Any, Program]:
    """Return risks on a ring of methods of values and gradients, for all sizes of models."""
    ring, found = jd.networks.metropolis(jd.graphs.ring(RING)), {}
    for d in world.sizes:
        plain, fast = world.problems[RING, d], safe(RING, d)
        estimated = jd.problems.ZerothOrder(plain)
        for name, problem, method, steps in (
            ("JustOneByte", plain, jd.JustOneByte(fast), 30 / fast),
            ("DSGD", plain, jd.DSGD(1.0), 100),
            ("DSGD, two values", estimated, jd.DSGD(1 / (d + 2)), 30 * (d + 2)),
        ):
            every = -(-int(steps) // 100)  # 100 records
            program = descent(world, problem, method, ring, 100 * every, every)
            found[name, d] = Program(program.arguments, program.over, reduce=needed)
    return found


def needed(dataset: xr.Dataset) -> xr.Dataset:
    """Return bits over a link in a step, and to the target."""
    last = dataset.isel(step=-1)
    each = (last.bits / last.step).drop_vars("step")
    return xr.Dataset({"each": each, "all": attained(dataset, "risk", TARGET, "bits")})


def join(problem: Any, key: jax.Array, steps: int) -> Any:
    """Return how far a replayed log leads from the model of those who wrote it, and sizes."""
    method = jd.JustOneByte(safe(problem.n, problem.d))
    told = {"steps": steps, "metrics": {"sent": lambda state, _: state.scalars}, "defaults": ()}
    run = jd.run(method, problem, Server(problem.n), problem.start(), key, **told)
    log = jnp.asarray(run.history["sent"][1:])
    joined = method.replay(problem.start()[0], log, key)
    return {
        "difference": jnp.abs(joined - run.state.server).max(),
        "moved": jnp.abs(joined - 1).max(),
        "log": log.nbytes,
        "model": 4 * problem.d,
    }


def joiner(world: Any, _: Any) -> dict[Any, Program]:
    """Return a joiner of the smallest and the largest model."""
    key = jax.random.key(world.seed)
    return {
        d: Program({"problem": world.problems[RING, d], "key": key, "steps": 300}, function=join)
        for d in world.sizes[:: len(world.sizes) - 1]
    }


def rounds(world: Any, _: Any) -> dict[Any, Program]:
    """Return FedZO's and FedAvg's gaps over stepsizes and seeds."""
    problem = jd.problems.quadratic(
        CLIENTS, SIZE, heterogeneity=0.3, curvature_spread=0.3, seed=world.seed
    )
    shared = {"problem": problem, "networks": Server(CLIENTS), "seeds": world.over_seeds.labels}
    shared |= {"steps": world.rounds, "every": world.rounds // 200}
    keep = ("gap", "queries", "gradients", "diverged")
    return comparisons(METHODS, keep, over={"stepsize": GRID}, **shared)


def asked(dataset: xr.Dataset, *_: Any) -> xr.Dataset:
    """Count a gradient of FedAvg as d + 1 values."""
    return dataset.assign(queries=dataset.queries.fillna((SIZE + 1) * dataset.gradients))


def cheapest(results: Results) -> xr.DataArray:
    """Return every method's queries of a client to the goal, at the best stepsize."""
    means = results["queries"][["gap", "queries"]].mean("seed")
    return attained(means, "gap", GOAL, "queries").min("stepsize")


def floors(results: Results) -> xr.DataArray:
    """Return the mean gaps of the last tenth of the rounds, where nothing diverged."""
    return tail(results["queries"].gap.mean("seed"))


def bytes_over(results: Results) -> xr.DataArray:
    """Return the byte's risk over that of 32 bits where the latter is 1 %, medians over seeds."""
    found = results["curves"].risk.median("seed")
    exact = found.sel(code="32 bits", drop=True)
    place = (exact <= TARGET).argmax("step")
    return (found.sel(code="a byte", drop=True) / exact).isel(step=place)


def slowed(results: Results) -> xr.DataArray:
    """Return the exponent of Just One Byte's bits to the target over those of its steps."""
    bits = results["bits"]["all"].sel(algorithm="JustOneByte").mean("seed")
    return exponent(1 + (bits.d + 1) / RING, bits, "d")


def least(results: Results) -> xr.DataArray:
    """Return the byte's last risks over the risk of a gradient of its smallest number."""
    last = tail(results["curves"].risk.sel(code="a byte")).median("seed")
    return last / np.exp(-2 * 63 / 8)


VALUES = ("JustOneByte", "DSGD, two values")
CLAIMS = claims(
    ("variance of a step over (d + 1) Σ |∇fᵢ|² / n²", "derived, exact on quadratics", "1",
     lambda r: (r["variance"].measured / r["variance"].theory).mean("seed"), near(1, 0.05)),
    ("a byte's risk over 32 bits', where the latter is 1 %", f"{PAPER}: no loss of quality", "1",
     bytes_over, within_factor(1, 1.25)),
    ("a byte's last risk over the square of its smallest number", "derived: it is not contractive",
     "bounded", least, below(1)),
    ("bits over a link in a step: exponent of d", f"{PAPER}: a byte a gradient", "0",
     lambda r: exponent(None, r["bits"].each.sel(algorithm="JustOneByte").mean("seed"), "d"),
     near(0, 1e-6)),
    ("and of DSGD's", "32 d", "1",
     lambda r: exponent(None, r["bits"].each.sel(algorithm="DSGD").mean("seed"), "d"),
     near(1, 1e-6)),
    ("bits over a link to 1 %: exponent of 1 + (d + 1)/n, which slows the steps", "derived", "1",
     slowed, near(1, 0.15)),
    ("bits to 1 %: DSGD of two values over Just One Byte, least over d", "derived", "> n = 16",
     lambda r: over(r["bits"]["all"].mean("seed"), *VALUES[::-1]).min(), above(16)),
    ("largest difference of a replayed model", "exact", "0", lambda r: r["joiner"].difference,
     below(0)),
    ("FedZO's last gap over FedAvg's drift, K = 5, least over stepsizes",
     "derived: drift and noise", "≥ 1",
     lambda r: over(floors(r), "FedZO, K = 5, m = 10", "FedAvg, K = 5").min(), above(0.9)),
)  # fmt: skip
PANELS = [
    [
        LogLog(data=lambda r: r["variance"].measured, x="n", by="code", dodge=1.1,
               title="noise of a step", xlabel="machines n", ylabel="variance",
               also=[slope(-1, "$\\propto 1/n$")], legend="panel"),
        Lines(data="curves", y="risk", x="step", logx=True, floor=1e-12, split=True,
              title="d = 20", ylabel="risk over the first", legend="panel"),
    ],
    [
        LogLog(data=lambda r: r["bits"].each, x="d", by="algorithm", xlabel="parameters d",
               ylabel="bits over a link in a step", title="ring of 16", legend="panel"),
        LogLog(data=lambda r: r["bits"]["all"], x="d", by="algorithm", xlabel="parameters d",
               ylabel="bits over a link to 1 %", also=[slope(1, "$\\propto d$")], legend="panel"),
    ],
    [
        Lines(data=lambda r: quickest(r["queries"], "gap", GOAL, "stepsize"), x="queries",
              logx=True, title="FedZO, d = 10, 5 clients", ylabel="gap", legend="panel"),
    ],
]  # fmt: skip
STUDY = Study(
    name="one_byte",
    paper=f"Zelikman et al. (2023), Just One Byte (per gradient), {PAPER}; FedZO, {ZEROTH}",
    question="What do machines have to send that ask for values alone, and how often do they ask?",
    scales=SCALES,
    world=world,
    parts={
        "variance": Part(("code", "n"), variances),
        "curves": Part(("machines", "code"), curves),
        "bits": Part(("algorithm", "d"), links),
        "joiner": Part("d", joiner),
        "queries": Part("algorithm", rounds, asked),
    },
    claims=CLAIMS,
    figures={"one_byte": Figure(PANELS, height=2.5)},
    tables={
        "variance": ("variance of a step", lambda r: r["variance"].mean("seed")),
        "bits": ("bits over a link", lambda r: r["bits"].mean("seed")),
        "joiner": ("replayed logs", lambda r: r["joiner"]),
        "queries": ("queries of a client to a gap of 1e-3",
                    lambda r: cheapest(r).to_dataset(name="queries")),
    },
    minutes={"quick": 1, "default": 15, "full": 30},
)  # fmt: skip
