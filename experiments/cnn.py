"""A flax network on images: exact methods on sparse graphs against one machine with all data.

Eight agents hold unlike mixes of ten classes, drawn from Dirichlet(0.1, ..., 0.1), and train
`jd.problems.neural.CNN` by minibatches of 16; one machine takes batches of 128 of all data. All
start from the same weights, take as many steps, and their stepsizes fall to 0 along a cosine, from
0.3 (exact diffusion from 0.15: of these two, what left it the higher accuracy, mean over graphs).
What counts is the accuracy of the agents' mean model on held-out images, which one seed and a
thousand images tell to about half a point, and how far agents are apart, (1/n) Σᵢ |xᵢ − x̄|². DSGD
stands beside them; its bias vanishes with the stepsize.

The images are Fashion-MNIST where Debian's package is installed, else 5,000 of MNIST, a fifth of
them held out; pixels are means of blocks. Everything in float32.
"""

from functools import cache, partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import xarray as xr

import jaxdopt as jd
from experiments.claims import above, below, claims
from experiments.panels import Figure, Lines, present
from experiments.study import Part, Program, Results, Study, comparison, comparisons

AGENTS, BATCH, ALPHA = 8, 16, 1.0  # α, of all ten classes together
STEPSIZES = {"ExactDiffusion": 0.15}  # at first; 0.3 for all others
RECORDS = 10
METHODS = {"DSGD": jd.DSGD, "GradientTracking": jd.GradientTracking}
METHODS |= {"ExactDiffusion": jd.ExactDiffusion}
ONE = "one machine"
SCALES = {
    "quick": {"pixels": 7, "channels": (8,), "hidden": 16, "steps": 150, "seeds": 1}
    | {"methods": ("DSGD", "GradientTracking")},
    "default": {"pixels": 14, "channels": (8, 16), "hidden": 32, "steps": 400, "seeds": 1}
    | {"methods": tuple(METHODS)},
    "full": {"pixels": 28, "channels": (16, 32), "hidden": 64, "steps": 2000, "seeds": 5}
    | {"methods": tuple(METHODS)},
}


@cache
def images(seed: int) -> Any:
    """Return what the images are, and (training, held out)."""
    try:
        return "Fashion-MNIST", (jd.data.fashion_mnist(), jd.data.fashion_mnist(train=False))
    except FileNotFoundError:
        return "5,000 images of MNIST", jd.data.mnist().split(0.2, seed)


def scaled(data: Any, pixels: int) -> Any:
    """Return images of ``pixels`` x ``pixels`` of mean 0 and variance 1, and labels."""
    block = 28 // pixels
    means = data.features.reshape(-1, pixels, block, pixels, block).mean((2, 4))
    normal = (means - means.mean()) / means.std()
    return normal.reshape(len(means), -1).astype(np.float32), data.labels.astype(np.int32)


def world(sizes: Any, seed: int) -> Any:
    """Return the sizes, the agents' problem and one machine's, and what all programs share."""
    made = SimpleNamespace(seed=seed, **sizes)
    name, (train, out) = images(seed)
    made.images = f"{name}, {made.pixels} x {made.pixels} pixels"
    data = scaled(train, made.pixels)
    model = jd.problems.neural.CNN(10, channels=made.channels, hidden=made.hidden)
    mixes = jd.partition.balanced_dirichlet(ALPHA, seed)
    spread = jd.problems.flax(model, *data, agents=AGENTS, partition=mixes, seed=seed)
    whole = jd.problems.flax(model, *data, agents=1, seed=seed)
    made.spread = jd.problems.Minibatch(spread, BATCH)
    made.whole = jd.problems.Minibatch(whole, BATCH * AGENTS)
    accuracy = jd.metrics.accuracy(*scaled(out, made.pixels), predict=spread.loss.predict)
    made.shared = {"metrics": {"accuracy": accuracy}, "defaults": ("consensus_error",)}
    made.shared |= {"steps": made.steps, "every": made.steps // RECORDS}
    made.shared |= {"seeds": range(seed, seed + made.seeds)}
    return made


def rate(world: Any, name: str = ONE) -> Any:
    """Return a method's stepsizes, which fall to 0."""
    return jd.schedules.Cosine(STEPSIZES.get(name, 0.3), world.steps)


def alone(world: Any, _: Any) -> dict[None, Program]:
    """Return one machine's run on all data."""
    method, network = jd.GradientDescent(rate(world)), jd.networks.Complete(1)
    return {None: comparison(method, problem=world.whole, networks=network, **world.shared)}


def together(world: Any, _: Any) -> dict[str, Program]:
    """Return every method's runs on both graphs."""
    graphs = {"ring": jd.graphs.ring(AGENTS), "exponential": jd.graphs.exponential(AGENTS)}
    networks = {name: jd.networks.metropolis(graph) for name, graph in graphs.items()}
    methods = {name: METHODS[name](rate(world, name)) for name in world.methods}
    return comparisons(methods, problem=world.spread, networks=networks, **world.shared)


def final(results: Results, part: str) -> xr.DataArray:
    """Return the accuracy at the end, a mean over seeds."""
    return results[part].accuracy.isel(step=-1, drop=True).mean("seed")


def lost(results: Results, name: str) -> xr.DataArray:
    """Return how much lower than one machine's a method's accuracy is, in points."""
    own = present(results["together"], "algorithm", name)
    return 100 * (final(results, "alone") - final(results, "together").sel(algorithm=own))


CLAIMS = claims(
    *(
        (f"points of accuracy that {name} loses to one machine", "expected", "< 1",
         partial(lost, name=name), below(1.0), ("default", "full"))
        for name in ("GradientTracking", "ExactDiffusion")
    ),
    ("accuracy of one machine, in percent", "expected", "> 75",
     lambda results: 100 * final(results, "alone"), above(75.0)),
)  # fmt: skip


def with_one(results: Results) -> xr.Dataset:
    """Return all methods' accuracies, and one machine's beside them on both graphs."""
    found = results["together"]
    one = results["alone"].expand_dims(algorithm=[ONE], network=found.network.values)
    return xr.concat([found, one], "algorithm", join="outer")[["accuracy", "diverged"]]


def panel(graph: str, y: str) -> Lines:
    """Return the panel of a graph and a metric."""
    return Lines(
        data=with_one if y == "accuracy" else "together",
        at={"network": graph},
        y=y,
        x="step",
        logy=y != "accuracy",
        floor=1e-6,
        band=(0.0, 1.0),
        ylabel=y.replace("_", " "),
        title=graph if y == "accuracy" else "",
    )


def table(results: Results) -> xr.Dataset:
    """Return accuracies at the end in percent, by method and graph."""
    return xr.Dataset({"accuracy": 100 * with_one(results).accuracy.isel(step=-1).mean("seed")})


STUDY = Study(
    name="cnn",
    paper="gradient tracking and exact diffusion on a convolutional network of flax",
    question="Do exact methods on sparse graphs train as one machine with all data does?",
    scales=SCALES,
    world=world,
    parts={"alone": Part(None, alone), "together": Part("algorithm", together)},
    claims=CLAIMS,
    figures={
        "cnn": Figure(
            [[panel(graph, y) for graph in ("ring", "exponential")]
             for y in ("accuracy", "consensus_error")],
            sharey=True,
        )
    },
    tables={"accuracy": ("accuracy at the end, in percent", table)},
    minutes={"quick": 0.5, "default": 4, "full": 400},
    data=lambda world: world.images,
)  # fmt: skip
