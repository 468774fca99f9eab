"""Workers that fail: goodput and loss over time, synchronous training against outer loops.

Eight workers train a small network on the digits with AdamW, at stepsizes at which all methods are
about equally fast without failures. Each fails and is repaired at random: two-state chains in ticks
of one second, in which a worker takes a gradient, with an MTBF and a mean repair time of 60 s.
Messages take no time, so that nothing but failures costs any.

* *synchronous*: gradients are averaged in every tick, and nobody goes on while anybody is away.
  Nothing is lost in a failure, and nothing has to be restarted, which favors it.
* *DiLoCo*: rounds of 40 ticks go on with those who are there. Who fails in a round loses it, and
  who is repaired in one waits for the next.
* *Decoupled DiLoCo*: a fragment of the model every 10 ticks, each merged of those who are there,
  once they are half of all. Who fails loses what has not been merged.

Goodput is the share of all workers' time whose gradients have entered the server's model, where a
gradient of which some fragments are merged counts by their share; it is read off the histories of
runs, whose failures are the same for all methods. With availability a and a chance q of failing in
a tick it is expected to be aⁿ, a (1 − q)ᴷ⁻¹ and a (1 − (1 − q)ᴴ) / (q H), the last one if there
always is a quorum; these are derived here. The paper's simulation of failures (arXiv 2604.21428)
is not known to us: its goodput is taken from pages that quote it, and not judged.
"""

from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr

import jaxdopt as jd
from experiments.claims import below, claims, near
from experiments.panels import Against, Figure, Lines, LogLog
from experiments.study import Axis, Part, Program, Results, Study, keys
from jaxdopt.networks import participation

PAPER = "arXiv 2604.21428, secondary pages"
WORKERS, ROUND, FRAGMENTS, REPAIR = 8, 40, 4, 60.0  # ROUND and REPAIR in seconds
ADAMW = optax.chain(optax.scale_by_adam(b2=0.99), optax.add_decayed_weights(1e-4))
METHODS = {  # and the seconds of a step
    "synchronous": (jd.FedAvg(1.0, 1.4e-3, server=ADAMW), 1),
    "DiLoCo": (jd.DiLoCo(1e-3, local_steps=ROUND, local=ADAMW), ROUND),
    "Decoupled DiLoCo": (
        jd.DecoupledDiLoCo(1e-3, period=ROUND, fragments=FRAGMENTS, quorum=4, local=ADAMW),
        1,
    ),
}
SHOWN = (0.1, 3.0, 10.0)  # failures of a worker in 1,000 seconds, in figures of the loss
RATES = (0.1, 0.3, 1.0, 3.0, 10.0)
SCALES = {
    "quick": {"rates": SHOWN, "seconds": 1200, "long": 20_000, "seeds": 2},
    "default": {"rates": RATES, "seconds": 3000, "long": 40_000, "seeds": 8},
    "full": {"rates": RATES, "seconds": 3000, "long": 80_000, "seeds": 32},
}


def chances(rate: Any) -> tuple[Any, Any]:
    """Return the chance q of failing in a tick, and the availability a."""
    q, repaired = 1 - np.exp(-rate / 1000), 1 - np.exp(-1 / REPAIR)
    return q, repaired / (q + repaired)


def failures(rate: float, seconds: int, seed: int) -> np.ndarray:
    """Return who is there in which second, [seconds, n]; of all rates the same random numbers."""
    join, key = 1 - np.exp(-1 / REPAIR), jax.random.key(seed)
    chains = participation.markov(WORKERS, chances(rate)[0], join, steps=seconds, key=key)
    return np.asarray(chains.rows)


def takes_part(name: str, there: np.ndarray) -> Any:
    """Return who takes part in which step of a method."""
    if name == "synchronous":
        return np.broadcast_to(there.all(axis=1, keepdims=True), there.shape)
    if name == "DiLoCo":
        return there.reshape(-1, ROUND, WORKERS).all(axis=1)
    return there


def run(rows: Any, key: Any, method: Any, problem: Any, **options: Any) -> Any:
    """Return a run with a table of who takes part in which step."""
    network = participation.Trace(rows, WORKERS)
    return jd.run(method, problem, network, problem.start(), key, **options)


def programs(world: Any, problem: Any, seconds: int, reduce: Any, settings: Any) -> dict[Any, Any]:
    """Return the program of every method and rate, over seeds; ``settings`` are of a method."""
    seeds, found = range(world.seed, world.seed + world.seeds), {}
    for name, (method, each) in METHODS.items():
        for rate in world.rates:
            rows = [takes_part(name, failures(rate, seconds, seed)) for seed in seeds]
            given = {"rows": jnp.asarray(np.stack(rows)), "key": keys(seeds), "method": method}
            given |= {"problem": problem, "steps": seconds // each, **settings(name, each)}
            over: Any = {("rows", "key"): Axis("seed", seeds)}
            found[name, rate] = Program(given, over, run, partial(reduce, name=name, rate=rate))
    return found


WORK = {  # of a learner's gradients, which have been merged when
    "there": lambda state, _: state.present,
    "steps": lambda state, _: state.steps.astype(jnp.int16),
    "merged": lambda state, _: state.merged,
}


def goodputs(world: Any, _: Any) -> dict[Any, Program]:
    """Return goodputs of long runs, of four numbers, as failures do not see the problem."""
    parts = [jnp.ones(1) for _ in range(FRAGMENTS)]
    problem = jd.problems.Oracle(lambda x, _, __: x, None, parts, agents=WORKERS)

    def settings(name: str, _: Any) -> Any:
        return {"defaults": (), "metrics": WORK if name == "Decoupled DiLoCo" else {}}

    return programs(world, problem, world.long, goodput, settings)


def goodput(dataset: xr.Dataset, name: str, rate: float) -> xr.Dataset:
    """Return the share of the workers' time whose gradients have entered the model, and expected.

    The history counts the gradients of those who take part. Of decoupled DiLoCo it has each one's
    steps since a fragment was merged of it, which enter the model where it is merged.
    """
    q, a = chances(rate)
    survived = (1 - q) ** np.arange(ROUND)
    if name != "Decoupled DiLoCo":
        seconds = METHODS[name][1] * dataset.step.values[-1]
        found = dataset.gradients.isel(step=-1, drop=True) / seconds
        expected = a**WORKERS if name == "synchronous" else a * survived[-1]
    else:
        there = dataset.there.rename(there_0="steps_0")
        merged = dataset.merged.rename(merged_0="steps_1")
        worked = dataset.steps.where(there, 0).shift(step=1, fill_value=0) + 1
        entered = worked.where(there & merged, 0).isel(step=slice(1, None))
        found, expected = entered.mean(("step", "steps_0", "steps_1")), a * survived.mean()
    return xr.Dataset({"measured": found, "theory": expected})


@cache
def digits() -> tuple[Any, Any]:
    """Return the network's problem in minibatches of 8, and its accuracy on held-out digits."""
    train, held_out = jd.data.digits().split(0.2, 0)
    problem = jd.problems.mlp(train.features, train.labels, hidden=(32,), agents=WORKERS)
    accuracy = jd.metrics.accuracy(*held_out, predict=jd.problems.neural.predict)
    return jd.problems.Minibatch(problem, 8), accuracy


def losses(world: Any, _: Any) -> dict[Any, Program]:
    """Return losses and accuracies over time, of the digits."""
    problem, accuracy = digits()

    def settings(_: str, each: int) -> Any:
        metrics = {"accuracy": accuracy}
        return {"every": ROUND // each, "defaults": ("loss",), "metrics": metrics}

    return programs(world, problem, world.seconds, over_time, settings)


def over_time(dataset: xr.Dataset, name: str, rate: float) -> xr.Dataset:  # noqa: ARG001
    """Return losses and accuracies, with simulated seconds as steps."""
    return dataset[["loss", "accuracy"]].assign_coords(step=METHODS[name][1] * dataset.step)


def gap(name: str) -> Any:
    """Return the measure of a goodput less the expected one."""

    def measure(results: Results) -> xr.DataArray:
        found = results["goodput"].sel(algorithm=name)
        return found.measured.mean("seed") - found.theory

    return measure


def quoted(results: Results) -> float:
    """Return decoupled DiLoCo's goodput where data parallel's is 27 %, between rates."""
    found = results["goodput"].measured.mean("seed")
    ours, theirs = (found.sel(algorithm=name) for name in ("Decoupled DiLoCo", "synchronous"))
    return float(np.interp(-0.27, -theirs, ours))


def last(results: Results, metric: str) -> xr.DataArray:
    """Return what is left at the end, means over seeds and five records."""
    return results["loss"][metric].isel(step=slice(-5, None)).mean(("step", "seed"))


def over_synchronous(results: Results) -> xr.DataArray:
    """Return last losses with the most failures over that of synchronous training."""
    found = last(results, "loss").isel(rate=-1)
    return found.sel(algorithm=list(METHODS)[1:]) / found.sel(algorithm="synchronous")


def lost(results: Results) -> xr.DataArray:
    """Return the accuracies that outer loops lose from the fewest failures to the most."""
    found = last(results, "accuracy").sel(algorithm=list(METHODS)[1:])
    return found.isel(rate=0) - found.isel(rate=-1)


CLAIMS = claims(
    ("goodput, synchronous: less aⁿ", "derived", "0", gap("synchronous"), near(0, 0.03)),
    ("goodput, DiLoCo: less a (1 − q)ᴷ⁻¹", "derived", "0", gap("DiLoCo"), near(0, 0.03)),
    ("goodput, Decoupled DiLoCo: less expected", "derived", "0", gap("Decoupled DiLoCo"),
     near(0, 0.03)),
    ("goodput, Decoupled DiLoCo, where data parallel has 27 %", PAPER, "88 %", quoted,
     near(0.88, 0.1), ()),
    ("most failures: last loss over synchronous", "derived", "< 1", over_synchronous, below(0.5)),
    ("accuracy lost by most failures", "derived", "about 0", lost, below(0.05)),
)  # fmt: skip


def curves(rate: float) -> Lines:
    """Return the panel of losses over time at a rate."""
    return Lines(
        data="loss", at={"rate": rate}, y="loss", x="step", ylim=(1e-3, 3),
        title=f"{rate:g} failures in 1,000 s", xlabel="simulated seconds",
        ylabel="training loss" if rate == SHOWN[0] else "",
    )  # fmt: skip


AXIS = "failures in 1,000 s of a worker"
PANELS = [
    [
        Against(data="goodput", by="algorithm", logy=False, title="lines: expected",
                xlabel=AXIS, ylabel="goodput"),
        LogLog(data=lambda results: results["loss"].loss.isel(step=slice(-5, None)).mean("step"),
               x="rate", ticks=False, title="in the end", xlabel=AXIS, ylabel="training loss"),
    ],
    [curves(rate) for rate in SHOWN],
]  # fmt: skip
STUDY = Study(
    name="failures",
    paper=f"Google (2026), Decoupled DiLoCo, {PAPER}",
    question="What do failures of workers cost synchronous training, and what outer loops?",
    scales=SCALES,
    parts={
        "goodput": Part(("algorithm", "rate"), goodputs),
        "loss": Part(("algorithm", "rate"), losses),
    },
    claims=CLAIMS,
    figures={"failures": Figure(PANELS)},
    minutes={"quick": 0.5, "default": 2, "full": 8},
    data=lambda _: "scikit-learn's digits, dealt out at random to 8 workers",
)
