"""ByzFL's default benchmark: rules, attacks, liars, heterogeneity; the worst attack in each cell.

Ten honest clients and f = 1 to 4 liars at a server; a share γ of the data is dealt evenly, the rest
sorted by label. Clients send momentum, mᵢ ← .9 mᵢ + .1 gᵢ, of minibatches of 25; the server steps
along a rule of it: clipping at 2, nearest-neighbor mixing, and then the geometric median (its ν =
.1 and 3 steps) or the trimmed mean. Attacks: sign flip, and inner products and ALIE whose strength
a line search of 20 evaluations finds in every step, for each run against its own rule.

A rule and an attack are one program, whose runs are f, γ, seed and stepsize: n is 14, the last 4
lie, and those beyond 10 + f never take part. Each cell has the stepsize that is best on held-out
images under its worst attack; what is shown is the accuracy on other images, at the last step.

Other than in ByzFL: 5000 images of MNIST in place of 60,000, pooled to 7 x 7 pixels, and softmax
regression in place of a convolutional network; minibatches are drawn with replacement, weight decay
is in the clients' gradients, the geometric median starts at the median, ALIE's σ is subtracted, and
the stepsize is the best of a few in place of .1. The full scale has ByzFL's 800 steps and 3 seeds.
"""

import time
from types import SimpleNamespace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import xarray as xr

import jaxdopt as jd
from experiments.claims import above, below, claims
from experiments.panels import Figure, Heat
from experiments.study import Axis, Part, Program, Results, Study, keys
from jaxdopt.algorithms.federated.clients import Central, common, participants
from jaxdopt.networks import participation
from jaxdopt.problems.neural import predict

HONEST, MOST, BATCH, DECAY, PIXELS = 10, 4, 25, 1e-4, 7
GAMMAS = (1.0, 0.66, 0.33, 0.0)
A, T = jd.aggregators, jd.attacks
RULES = {"geometric median": lambda _: A.GeometricMedian(0.1, iterations=3)}
RULES |= {"trimmed mean": A.TrimmedMean}
ATTACKS = {
    "sign flip": lambda _: T.SignFlip(),
    "inner product": lambda rule: T.strongest(T.InnerProduct(), rule, 20),
    "ALIE": lambda rule: T.strongest(T.ALIE(), rule, 20),
}
NO_LIARS, TRUTH = {"mean": lambda _: A.Mean()}, {"none": lambda _: None}
SCALES: dict[str, dict[str, Any]] = {
    "quick": {
        "rules": ("trimmed mean",), "attacks": ("sign flip", "ALIE"), "liars": (1, 4),
        "gammas": (1.0, 0.0), "seeds": 1, "stepsizes": (0.25,), "steps": 100,
    },
    "default": {
        "rules": tuple(RULES), "attacks": tuple(ATTACKS), "liars": (1, 2, 3, 4),
        "gammas": GAMMAS, "seeds": 2, "stepsizes": (0.1, 0.5), "steps": 150,
    },
    "full": {
        "rules": tuple(RULES), "attacks": tuple(ATTACKS), "liars": (1, 2, 3, 4),
        "gammas": GAMMAS, "seeds": 3, "stepsizes": (0.1, 0.25, 0.5), "steps": 800,
    },
}  # fmt: skip


@jd.pytree
class Momenta(Central):
    """The server's x [d], and the clients' momenta m [n, d]."""

    server: Any
    momentum: Any
    n: int = jd.static()


@jd.pytree
class ClientMomentum:
    """mᵢ ← β mᵢ + (1 − β) gᵢ(x), which clients send;  x ← x − α R(m), R the server's rule.

    Args:
        stepsize: α ≥ 0.
        beta: β in [0, 1].
    """

    stepsize: jd.Nonnegative
    beta: jd.Fraction = 0.9
    needs: ClassVar[set[str]] = {"server"}

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> Momenta:  # noqa: ARG002
        """Start at the mean of x0's rows, without momentum."""
        return Momenta(common(x0), jnp.zeros_like(x0), problem.n)

    def step(self, state: Momenta, problem: Any, network: Any, key: jax.Array) -> Momenta:
        """Take one round."""
        clients = participants(problem, network)
        gradients = clients.grad(clients.share(state.server), key)
        sent = self.beta * clients.own(state.momentum) + (1 - self.beta) * gradients
        x = state.server - self.stepsize * clients.mean(sent)
        return Momenta(x, clients.keep(state.momentum, sent), state.n)


def images(seed: int) -> tuple[Any, Any, Any]:
    """Return images for training, for choosing and for judging, each [m, 49], standardized."""
    data = jd.data.mnist()
    side = 28 // PIXELS
    pooled = data.features.reshape(-1, PIXELS, side, PIXELS, side).mean(axis=(2, 4))
    pooled = (pooled - pooled.mean()) / pooled.std()
    features = pooled.reshape(len(pooled), -1).astype(np.float32)
    training, others = jd.data.Dataset(features, data.labels).split(0.3, seed)
    return training, *others.split(2 / 3, seed)


def world(sizes: dict[str, Any], seed: int) -> SimpleNamespace:
    """Return the sizes, the problems by γ, and the metrics."""
    training, choosing, judging = images(seed)
    problems = [dealt(training, gamma, seed) for gamma in sizes["gammas"]]
    metrics = {
        name: jd.metrics.accuracy(data.features, data.labels, predict=predict)
        for name, data in (("chosen by", choosing), ("accuracy", judging))
    }
    return SimpleNamespace(seed=seed, problems=problems, metrics=metrics, **sizes)


def dealt(data: Any, gamma: float, seed: int) -> Any:
    """Return softmax regression of ten honest clients, and of four whose own data do not matter."""
    split = jd.partition.split(
        (data.features, data.labels), data.labels, agents=HONEST,
        partition=jd.partition.gamma_similarity(gamma, seed),
    )  # fmt: skip
    features, labels = (part + part[:MOST] for part in split)
    problem = jd.problems.mlp(features, labels, hidden=(), l2=DECAY)
    return jd.problems.Minibatch(problem, BATCH)


def server(rule: str, attack: str, f: Any) -> Any:
    """Return the server with 10 + f clients of which f lie."""
    own = A.chain(A.Clip(2.0), A.NNM(f), (RULES | NO_LIARS)[rule](f))
    seats = participation.bernoulli(jnp.where(jnp.arange(HONEST + MOST) < HONEST + f, 1.0, 0.0))
    return jd.networks.robust(seats, rule=own, attack=(ATTACKS | TRUTH)[attack](own), liars=MOST)


def timed(over: dict[str, Axis], **arguments: Any) -> xr.Dataset:
    """Return the runs' accuracies, and the seconds that they took together, with compiling."""
    began = time.perf_counter()
    names = {argument: axis.dim for argument, axis in over.items()}
    result = jax.block_until_ready(jd.sweep(jd.run, over=names, progress=False)(**arguments))
    seconds = time.perf_counter() - began
    dataset = jd.label(result, **{axis.dim: list(axis.labels) for axis in over.values()})
    return dataset[["chosen by", "accuracy", "diverged"]].assign(seconds=seconds)


def program(world: Any, rule: str, attack: str, liars: tuple[int, ...]) -> Program:
    """Return the runs of a rule and an attack: stepsize, f, γ, seed."""
    seeds = range(world.seed, world.seed + world.seeds)
    over = {
        "algorithm": Axis("stepsize", world.stepsizes),
        "network": Axis("f", liars),
        "problem": Axis("gamma", world.gammas),
        "key": Axis("seed", seeds),
    }
    arguments = {
        "over": over,
        "algorithm": jax.vmap(ClientMomentum)(jnp.array(world.stepsizes, jnp.float32)),
        "network": jax.vmap(lambda f: server(rule, attack, f))(jnp.array(liars, jnp.float32)),
        "problem": jd.stack(world.problems),
        "x0": world.problems[0].start(),
        "key": keys(seeds),
        "steps": world.steps,
        "every": 50,
        "metrics": world.metrics,
    }
    return Program(arguments, function=timed)


def attacked(world: Any, _: Results) -> dict[tuple[str, str], Program]:
    """Return a program a rule and attack, six in all."""
    return {
        (rule, attack): program(world, rule, attack, world.liars)
        for rule in world.rules
        for attack in world.attacks
    }


def chosen(dataset: xr.Dataset) -> xr.Dataset:
    """Return the last accuracies, means over seeds, at each cell's stepsize."""
    last = dataset.isel(step=-1, drop=True)[["chosen by", "accuracy"]].fillna(0.0).mean("seed")
    guide = last["chosen by"]
    guide = guide.min("attack") if "attack" in guide.dims else guide
    return last[["accuracy"]].isel(stepsize=guide.argmax("stepsize"))


def worst(results: Results) -> xr.DataArray:
    """Return the accuracy under the worst attack, by rule, f and γ."""
    return chosen(results["attacked"]).accuracy.min("attack").reset_coords(drop=True)


def best_rule(results: Results) -> xr.DataArray:
    """Return the accuracy of the rule that is better in a cell, under its worst attack."""
    return worst(results).max("rule")


def without_liars(results: Results) -> xr.DataArray:
    """Return the accuracy of ten clients, none of which lies, by γ."""
    return chosen(results["alone"]).accuracy.isel(f=0, drop=True).reset_coords(drop=True)


def seconds(results: Results) -> pd.DataFrame:
    """Return each program's runs and seconds."""
    table = results["attacked"].seconds.to_dataframe().reset_index()
    sizes = results["attacked"].diverged.isel(rule=0, attack=0).size
    table["runs"] = sizes
    table["seconds"] = table.seconds.round(1)
    total = {"rule": "all", "attack": "", "runs": table.runs.sum(), "seconds": table.seconds.sum()}
    return pd.concat([table, pd.DataFrame([total])])[["rule", "attack", "runs", "seconds"]]


ORDER = "2302.01772: errors of the order κ ζ²"
CLAIMS = claims(
    ("alike clients: accuracy lost to the worst attack", ORDER, "little",
     lambda r: without_liars(r).sel(gamma=1.0) - best_rule(r).sel(gamma=1.0), below(0.05)),
    ("more liars cost more: accuracy with f = 1 less that with f = 4, γ = 0", ORDER, "> 0",
     lambda r: worst(r).sel(gamma=0.0, f=1) - worst(r).sel(gamma=0.0, f=4), above(0)),
    ("heterogeneity costs more: accuracy at γ = 1 less that at γ = 0, f = 4", ORDER, "> 0",
     lambda r: worst(r).sel(gamma=1.0, f=4) - worst(r).sel(gamma=0.0, f=4), above(0)),
)  # fmt: skip


def heat(title: str, of: Any, **at: str) -> Heat:
    """Return a heat map of accuracies, f by γ."""
    return Heat(data=of, at=at, x="gamma", y="f", form=".2f", log=False, limits=(0.0, 1.0),
                title=title, xlabel="similarity  $\\gamma$", ylabel="liars  $f$")  # fmt: skip


def at_chosen(results: Results) -> xr.DataArray:
    """Return the accuracies at the cells' stepsizes, by rule, attack, f and γ."""
    return chosen(results["attacked"]).accuracy


FIGURES = {
    "byzfl": Figure([[heat(f"{rule}, worst attack", worst, rule=rule) for rule in RULES]]),
    "attacks": Figure(
        [[heat(f"{rule}, {at}", at_chosen, rule=rule, attack=at) for at in ATTACKS]
         for rule in RULES]
    ),
}  # fmt: skip
STUDY = Study(
    name="byzfl",
    paper="González, Guerraoui, Pinot, Rizk, Stephan, Taïani (2025), ByzFL, arXiv 2505.24802",
    question="What accuracy is left under the worst attack, by liars and heterogeneity?",
    scales=SCALES,
    world=world,
    parts={
        "alone": Part(None, lambda world, _: {"": program(world, "mean", "none", (0,))}),
        "attacked": Part(("rule", "attack"), attacked),
    },
    claims=CLAIMS,
    figures=FIGURES,
    tables={"seconds": ("seconds of each program, compiling included", seconds)},
    minutes={"quick": 1, "default": 6, "full": 80},
    data=lambda _: f"MNIST, 5000 images pooled to {PIXELS} x {PIXELS} pixels",
)
