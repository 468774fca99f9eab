"""BTPP's synthetic experiment: logistic regression with a nonconvex penalty on B-ary trees.

A hundred agents take samples one by one; the stepsize is the same for all methods, 1 / n of it on
trees, and falls after steps 100, 200, .... Everything in float64.

What the paper does not say and is chosen here: Metropolis weights on rings, and the steps at which
the stepsize falls. Not here: CECA-2P, base-(k+1) graphs and OD-EquiDyn, which are in its figure.
"""

from collections import namedtuple
from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any

import networkx as nx
import numpy as np
import xarray as xr

import jaxdopt as jd
from experiments.claims import above, below, claims, near, within_factor
from experiments.measures import over, successive
from experiments.panels import Lines, LogLog, NotRun, present
from experiments.study import Axis, Part, Program, Results, Study, keys

FIGURE = "2404.05454, synthetic figure"
LARGE = ("default", "full")  # scales with a hundred agents
END = 800  # steps
RERUN = {"SGD": 0.0262, "BTPP, B = 2": 0.0296, "BTPP, B = 4": 0.0274, "BTPP, B = 99": 0.0263}
RERUN |= {"STPP exponential": 0.0273, "DSGT exponential": 0.0377}
RERUN |= {"DSGT ring": 0.0924, "DSGD ring": 0.0977}  # by others, in NumPy, from one seed
RINGS = {"SGD": "SGD", "BTPP, B = 2": "BTPP", "DSGT ring": "DSGT", "DSGD ring": "DSGD"}
RINGS |= {"Push-Pull ring": "Push-Pull", "RelaySGD tree": "RelaySGD"}
OTHERS = {"SGD": "SGD", "STPP exponential": "STPP", "DSGT exponential": "DSGT"}
OTHERS |= {"DSGD one-peer": "DSGD", "D2 ring, constant": "D2, ring, constant"}


Sizes: Any = namedtuple("Sizes", "n d samples branchings seeds every names")  # steps a record
SCALES = {
    "quick": Sizes(24, 50, 50, (2,), 2, 50, ("SGD", "BTPP, B = 2", "STPP exponential")),
    "default": Sizes(100, 500, 100, (2, 3, 4, 8, 99), 2, 25, None),
    "full": Sizes(100, 500, 1000, (2, 3, 4, 8, 16, 32, 64, 99), 5, 10, None),
}


def logistic(n: int, d: int, samples: int, seed: int = 0) -> Any:
    """Return logistic regression with the penalty 0.01 Σⱼ xⱼ² / (1 + xⱼ²) and batches of one.

    Features are N(0, I); agent i's labels are 1 with probability sigmoid(hᵀ wᵢ), where wᵢ is
    w ~ N(0, I) plus 0.8 times a random unit vector of its own.
    """
    draw = np.random.default_rng(seed)
    away = draw.standard_normal((n, d))
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    w = draw.standard_normal(d) + 0.8 * away
    features = draw.standard_normal((n, samples, d))
    labels = draw.random((n, samples)) < 1 / (1 + np.exp(-np.einsum("nsd,nd->ns", features, w)))
    problem = jd.problems.nonconvex_logistic_regression(list(features), list(labels), weight=0.01)
    return jd.problems.Minibatch(problem, 1)


def methods(n: int, branchings: Iterable[int]) -> dict[str, tuple[Any, Any]]:
    """Return methods and networks: 0.7 for all, 0.7 / n on trees, times 0.4 each 100."""
    values, at = 0.7 * 0.4 ** np.arange(END // 100), np.arange(100, END, 100)
    own, share = (jd.schedules.PiecewiseConstant(values / by, at) for by in (1, n))
    one_way, eye = nx.to_numpy_array(jd.graphs.directed_ring(n)), np.eye(n)
    mixing, spanning_tree = jd.networks.mixing, jd.networks.spanning_tree
    ring = jd.networks.metropolis(jd.graphs.ring(n))
    exponential = jd.graphs.exponential(n, directed=True)
    hears = mixing(jd.networks.row_stochastic(exponential).csr())  # regular: doubly stochastic
    pull = mixing((eye + one_way.T) / 2, kind="row")
    both = jd.networks.Directed(pull, mixing((eye + one_way) / 2, kind="column"))
    btpp = {f"BTPP, B = {b}": (jd.STPP(share), jd.networks.bary_tree(n, b)) for b in branchings}
    return {
        "SGD": (jd.SGD(own), ring),
        **btpp,
        "STPP exponential": (jd.STPP(share), spanning_tree(exponential)),
        "DSGT exponential": (jd.GradientTracking(own), hears),
        "DSGT ring": (jd.GradientTracking(own), ring),
        "DSGD ring": (jd.DSGD(own), ring),
        "DSGD one-peer": (jd.DSGD(own), jd.networks.one_peer_exponential(n)),
        "Push-Pull ring": (jd.PushPull(own), both),
        "D2 ring, constant": (jd.ExactDiffusion(0.7), ring),
        "RelaySGD tree": (jd.RelaySGD(own), spanning_tree(jd.graphs.tree(n), 0)),
    }


def histories(world: Any, _: Results) -> dict[str, Program]:
    """Return every method's program over seeds."""
    size, which = world.sizes, range(world.seed, world.seed + world.sizes.seeds)
    problem = logistic(size.n, size.d, size.samples, world.seed)
    shared = {"problem": problem, "x0": problem.start(), "key": keys(which)}
    shared |= {"steps": END, "every": size.every}
    found = {}
    for name, (method, network) in methods(size.n, size.branchings).items():
        if name in (size.names or (name,)):
            arguments = shared | {"algorithm": method, "network": network}
            found[name] = Program(arguments, {"key": Axis("seed", which)}, reduce=norms)
    return found


def norms(dataset: xr.Dataset) -> xr.Dataset:
    """Return |∇F|, the root of the mean square over seeds."""
    square = dataset.gradient_norm_squared.mean("seed")
    return np.sqrt(square).reset_coords(drop=True).to_dataset(name="norm")


def last(results: Results) -> xr.DataArray:
    """Return |∇F| at the end, by method."""
    return results["histories"].norm.sel(step=END, drop=True)


def by_branching(results: Results) -> xr.DataArray:
    """Return BTPP's |∇F| after 50 steps over B."""
    norm = results["histories"].norm.sel(step=50)
    values = [b for b in range(2, 100) if f"BTPP, B = {b}" in norm.algorithm]
    norm = norm.sel(algorithm=[f"BTPP, B = {b}" for b in values]).rename(algorithm="B")
    if len(values) < 2:
        raise NotRun("a single B at this scale")
    return norm.assign_coords(B=values).expand_dims(algorithm=["BTPP"])


def rerun(results: Results) -> xr.DataArray:
    """Return the last |∇F| over those of another run."""
    found = last(results)
    names = present(found, "algorithm", list(RERUN))
    return found.sel(algorithm=names) / [RERUN[name] for name in names]


B2, RIVALS = "BTPP, B = 2", [*list(RINGS)[2:], *list(OTHERS)[3:]]
CLAIMS = claims(
    ("BTPP is close to centralized SGD: |∇F| of SGD at the end over BTPP's", FIGURE, "1",
     lambda r: over(last(r), "SGD", B2), near(1, 0.1)),
    ("and best among methods with Θ(1) neighbors: others' |∇F| at the end over BTPP's", FIGURE,
     "> 1", lambda r: over(last(r), RIVALS, B2), above(1)),
    ("a larger B is faster: |∇F| after 50 steps over that of the next smaller B", FIGURE, "< 1",
     lambda r: successive(by_branching(r), "B")[0], below(1)),
    ("|∇F| at the end over that of others' run in NumPy", "a re-run, 400 samples an agent", "1",
     rerun, within_factor(1, 1.2), LARGE),
)  # fmt: skip
NORM = "$|\\nabla F|$"


def curves(members: Mapping[str, str], **options: Any) -> Lines:
    """Return the panel of some methods."""
    at = {"algorithm": list(members)}
    return Lines(data="histories", at=at, y="norm", x="step", labels=members, **options)


PANELS = [[
    curves(RINGS, title="$\\Theta(1)$ neighbors", ylabel=NORM),
    curves(OTHERS, title="exponential graphs", ylabel=""),
    LogLog(data=by_branching, x="B", logy=False, xlabel="branching  $B$",
           ylabel=f"{NORM} after 50 steps", title="BTPP by branching"),
]]  # fmt: skip
STUDY = Study(
    name="btpp",
    paper="You, Pu (2024), BTPP, arXiv 2404.05454",
    question="Is Push-Pull on B-ary trees, of few neighbors each, as good as centralized SGD?",
    scales=SCALES,
    world=lambda sizes, seed: SimpleNamespace(sizes=sizes, seed=seed),
    parts={"histories": Part("algorithm", histories)},
    claims=CLAIMS,
    figures={"btpp": PANELS},
    minutes={"quick": 0.5, "default": 2, "full": 40},
    data=lambda world: (
        f"synthetic: {world.sizes.n} agents with {world.sizes.samples} samples of {world.sizes.d} "
        "features each"
    ),
)
