"""Asynchronous DiLoCo on mixtures of mixtures of Gaussians: outer momentum, and its remedies.

The toy of the paper's authors: four workers that need 0.58, 0.75, 1.51 and 3.33 seconds a step
classify Gaussian clusters, 20 steps of AdamW a visit. A synchronous server waits for all four and
takes a Nesterov step along their mean; an asynchronous one takes a step for every return. Loss
against all workers' local steps says what staleness costs, loss against simulated seconds what
waiting does. All outer optimizers have the same rates: with Nesterov's momentum the largest that
is best falls by an order under asynchrony, and delayed Nesterov brings it back; dynamic local
updates let all return about equally often.

Their notebook has 128,000 points of 512 numbers and 65,000 hidden units ("full"); here are fewer
("default"), with as many points a number, and AdamW's rate is larger, as narrow networks move less
by the same. It begins AdamW anew in every visit, where ours goes on;
has ReLU for tanh; waits for half a second more before it goes on; gives a worker the part of the
data that has been visited least, where ours keeps its own; and multiplies an asynchronous
pseudo-gradient by ½, so that its rates are twice ours. Its small form, whose clusters a network
separates perfectly, rewards momentum whatever its delay, and is not shown.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr

import jaxdopt as jd
from experiments.claims import above, below, claims, within_factor
from experiments.measures import over
from experiments.panels import Figure, Lines, LogLog
from experiments.study import Part, Program, Results, Study

TIMES = (0.58, 0.75, 1.51, 3.33)  # seconds a local step
WORKERS, H, BATCH = len(TIMES), 20, 32
CLASSES, CLUSTERS, NOISE = 4, 8, 0.5
POINTS, RATE = 40, 0.7  # of the curves; the rate of the synchronous server
DECAY, MOMENTUM = 1e-3, 0.9
VARIANTS: dict[str, tuple[str, str]] = {  # the outer optimizer, and who waits
    "synchronous, Nesterov": ("Nesterov", "all"),
    "asynchronous, Nesterov": ("Nesterov", "each"),
    "synchronous, none": ("none", "all"),
    "asynchronous, none": ("none", "each"),
    "delayed Nesterov": ("delayed", "each"),
    "delayed, dynamic": ("delayed", "dynamic"),
}
SCALES: dict[str, dict[str, Any]] = {
    "quick": {"d": 32, "points": 4000, "hidden": 64, "stepsize": 2e-3, "rounds": 30,
              "rates": (0.07, 0.7), "seeds": 1},
    "default": {"d": 64, "points": 16_000, "hidden": 128, "stepsize": 1e-3, "rounds": 60,
                "rates": (0.02, 0.07, 0.2, 0.7, 1.0), "seeds": 2},
    "full": {"d": 512, "points": 128_000, "hidden": 65_000, "stepsize": 2e-4, "rounds": 400,
             "rates": (0.02, 0.035, 0.07, 0.2, 0.35, 0.7, 1.0), "seeds": 1},
}  # fmt: skip


@functools.cache
def problem(d: int, points: int, hidden: int, seed: int) -> Any:
    """Return a network on the clusters, whose centers are random directions."""
    random = np.random.default_rng(seed)
    centers = random.standard_normal((CLASSES * CLUSTERS, d))
    centers /= np.linalg.norm(centers, axis=1, keepdims=True)
    which = np.repeat(np.arange(len(centers)), points // len(centers))
    x = centers[which] + NOISE * random.standard_normal((len(which), d))
    labels = which // CLUSTERS
    made = jd.problems.mlp(x.astype(np.float32), labels, hidden=(hidden,), agents=WORKERS)
    return jd.problems.Minibatch(made, BATCH)


def clock(waits: str, rounds: int) -> Any:
    """Return the arrivals until all workers have taken as many local steps as in these rounds."""
    total = rounds * WORKERS * H
    calls = jd.networks.dynamic_calls(TIMES, H) if waits == "dynamic" else np.full(WORKERS, H)
    rule: Any = {"rule": "all" if waits == "all" else "each", "calls": calls, "compute": TIMES}
    if waits == "all":
        return jd.networks.arrivals(WORKERS, **rule, steps=rounds)
    returned = np.asarray(jd.networks.arrivals(WORKERS, **rule, steps=total // 2).agents)[:, 0]
    steps = int(np.searchsorted(np.cumsum(calls[returned]), total)) + 1
    return jd.networks.arrivals(WORKERS, **rule, steps=steps)


def outer(name: str) -> Any:
    """Return an outer optimizer; None is the method's own, delayed Nesterov."""
    nesterov = jd.optimizer(optax.trace, decay=MOMENTUM, nesterov=True)
    return {"Nesterov": nesterov, "none": optax.identity(), "delayed": None}[name]


def local(stepsize: float, steps: int) -> dict[str, Any]:
    """Return AdamW with a cosine, in fields of methods."""
    adamw = optax.chain(optax.scale_by_adam(), optax.add_decayed_weights(DECAY))
    return {"stepsize": jd.schedules.Cosine(stepsize, steps), "local_steps": H, "local": adamw}


def histories(
    optimizer: str, waits: str, rates: Any, seeds: Any, rounds: int, stepsize: float, **sizes: Any
) -> xr.Dataset:
    """Return loss and seconds over all workers' local steps, the outer rate and the seed."""
    clocked, task = clock(waits, rounds), problem(**sizes)
    steps = clocked.horizon
    every = max(steps // POINTS, 1)
    given = {"dynamic": waits == "dynamic", "server": outer(optimizer), **local(stepsize, steps)}
    methods = jax.vmap(lambda rate: jd.AsyncDiLoCo(server_stepsize=rate, **given))(
        jnp.array(rates, jnp.float32)
    )
    sweep = jd.sweep(jd.run, over=("algorithm", "key"), progress=False)
    keys = jax.vmap(jax.random.key)(jnp.array(seeds))
    taken = steps // every * every
    result = sweep(methods, task, clocked, task.start(), keys, steps=taken, every=every,
                   defaults=("loss",))  # fmt: skip
    at = np.linspace(0, 1, POINTS + 1) * rounds * WORKERS * H
    done = result.history["gradients"][0, 0] * WORKERS / BATCH
    loss = np.apply_along_axis(lambda one: np.interp(at, done, one), -1, result.history["loss"])
    seconds = np.interp(at, done, result.history["seconds"][0, 0])
    return xr.Dataset(
        {"loss": (("rate", "seed", "local"), loss), "seconds": ("local", seconds)},
        {"rate": list(rates), "seed": list(seeds), "local": at},
    )


def waited(rates: Any, rounds: int, stepsize: float, **sizes: Any) -> xr.Dataset:
    """Return how far a server that waits for all is from DiLoCo, relatively, in a few rounds."""
    few, task = min(rounds, 10), problem(**sizes)
    given = {"server": outer("Nesterov"), "server_stepsize": max(rates), **local(stepsize, few)}
    where, key = clock("all", few), jax.random.key(0)
    ours = jd.run(jd.AsyncDiLoCo(dynamic=False, **given), task, where, task.start(), key, steps=few)
    server = jd.networks.Server(WORKERS)
    theirs = jd.run(jd.DiLoCo(**given), task, server, task.start(), key, steps=few)
    off = jnp.abs(ours.state.server - theirs.state.server).max()
    return xr.Dataset({"off": off / jnp.abs(theirs.state.server).max()})


def programs(world: Any, _: Results) -> dict[str, Program]:
    """Return the histories of each variant."""
    return {
        name: Program(shared(world) | {
            "optimizer": optimizer, "waits": waits,
            "seeds": range(world.seed, world.seed + world.seeds),
        }, function=histories)
        for name, (optimizer, waits) in VARIANTS.items()
    }  # fmt: skip


def shared(world: Any) -> dict[str, Any]:
    """Return the arguments that all programs have."""
    names = ("d", "points", "hidden", "stepsize", "rounds", "rates", "seed")
    return {name: getattr(world, name) for name in names}


def mean(results: Results) -> xr.DataArray:
    """Return the mean loss along the local steps, of all seeds; infinite where a run diverged."""
    loss = results["runs"].loss.mean(("local", "seed"), skipna=False)
    return loss.fillna(np.inf)


def at_rate(rate: float, one: str, other: str, results: Results) -> xr.DataArray:
    """Return a variant's mean loss over another's at an outer rate."""
    return over(mean(results).sel(rate=rate, drop=True), [one], other, "variant")


def best_rate(results: Results) -> xr.DataArray:
    """Return the best rate of Nesterov's momentum, asynchronous over synchronous."""
    best = mean(results).idxmin("rate")
    return over(best, ["asynchronous, Nesterov"], "synchronous, Nesterov", "variant")


def sooner(results: Results) -> float:
    """Return the seconds until nine tenths of the loss's fall, waiting over the remedy's."""
    runs = results["runs"].sel(rate=RATE).mean("seed")
    waiting = runs.sel(variant="synchronous, Nesterov")
    level = float(0.1 * waiting.loss[0] + 0.9 * waiting.loss.min())

    def when(name: str) -> float:
        own = runs.sel(variant=name)
        last = np.flatnonzero(own.loss.values > level)[-1]  # at which it is above
        return float(own.seconds[min(last + 1, POINTS)])

    return when("synchronous, Nesterov") / when("delayed, dynamic")


PAPER, NOTEBOOK = "2401.09135, abstract", "its authors' notebook"
BIG = ("default", "full")
CLAIMS = claims(
    ("a server that waits for all is the synchronous one: relative difference", NOTEBOOK,
     "the same losses", lambda r: r["waited"].off, below(1e-5)),
    ("asynchronous training with momentum takes more local steps, at the synchronous rate: mean "
     "loss over the synchronous", PAPER, "> 1",
     lambda r: at_rate(RATE, "asynchronous, Nesterov", "synchronous, Nesterov", r), above(1), BIG),
    ("and without momentum fewer: mean loss over the synchronous", NOTEBOOK, "< 1",
     lambda r: at_rate(RATE, "asynchronous, none", "synchronous, none", r), below(1)),
    ("momentum's best rate falls tenfold: asynchronous over synchronous", NOTEBOOK, "0.07 / 0.7",
     best_rate, within_factor(0.1, 3), BIG),
    ("delayed Nesterov mends it: mean loss over that of Nesterov, asynchronous", PAPER, "< 1",
     lambda r: at_rate(RATE, "delayed Nesterov", "asynchronous, Nesterov", r), below(1), BIG),
    ("with dynamic local updates it matches synchronous training per local step: mean loss over "
     "the synchronous", PAPER, "1",
     lambda r: at_rate(RATE, "delayed, dynamic", "synchronous, Nesterov", r), below(1.02), BIG),
    ("and surpasses it in wall clock time: seconds to 0.9 of the fall, the synchronous over its "
     "own", PAPER, "> 1", sooner, above(1)),
)  # fmt: skip


def curves(results: Results, over_seconds: bool = False) -> xr.Dataset:
    """Return the losses at the synchronous rate, over local steps or seconds."""
    runs = results["runs"].sel(rate=RATE).rename(local="step")
    return runs if over_seconds else runs.drop_vars("seconds")


LOSS: Any = {"y": "loss", "logy": False, "ylim": (1.19, 1.5)}
FIGURES = {
    "async_diloco": Figure([[
        Lines(data=curves, x="step", xlabel="local steps of all workers", ylabel="loss  $F(x)$",
              title=f"outer rate {RATE:g}", **LOSS),
        Lines(data=functools.partial(curves, over_seconds=True), x="seconds", ylabel="",
              xlabel="simulated seconds", title="the same in time", **LOSS),
        LogLog(data=lambda r: r["runs"].loss.mean("local"), x="rate", by="variant", logy=False,
               xlabel="outer rate", ylabel="mean over local steps", ylim=(1.21, 1.5),
               title="how large may it be?"),
    ]], height=2.6),
}  # fmt: skip
STUDY = Study(
    name="async_diloco",
    paper="Liu, Chhaparia, Douillard, Kale, Rusu, Shen, Szlam, Ranzato (2024), asynchronous "
    "local-SGD, arXiv 2401.09135",
    question="What does asynchrony do to outer momentum, and do its remedies help?",
    scales=SCALES,
    parts={
        "waited": Part(None, lambda world, _: {"": Program(shared(world), function=waited)}),
        "runs": Part("variant", programs),
    },
    claims=CLAIMS,
    figures=FIGURES,
    minutes={"quick": 0.8, "default": 4, "full": 600},
    data=lambda world: f"{world.points} points in {CLASSES} x {CLUSTERS} clusters",
)
