"""Networks that change with time: what they cost in rounds, and what they save in bits.

Gradient tracking on the digits data (3 against 8, split by label over 16 agents), full gradients in
float64, each network at its own best stepsize: a ring and the exponential graph, beside sequences
that take one of its links at a time and random matchings; and a grid of which links fail, or agents
are disconnected, with some probability. How fast a network averages is measured, beside the second
eigenvalue of the mean of its W.
"""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

import jaxdopt as jd
from experiments.claims import below, claims, near
from experiments.networks import AGENTS, DIGITS, ROUNDING, TARGET, dense, placed, problem
from experiments.panels import Figure, Lines, present
from experiments.study import Part, Program, Results, Study, derived

UP_AND_AWAKE = {
    "grid 4 x 4, p = 1": (1.0, 1.0),
    "links up, p = 0.7": (0.7, 1.0),
    "links up, p = 0.4": (0.4, 1.0),
    "agents awake, p = 0.7": (1.0, 0.7),
    "agents awake, p = 0.4": (1.0, 0.4),
}
"""The probabilities that a link is up and that an agent is awake."""
SCALES = {
    "quick": SimpleNamespace(stepsizes=3, seeds=2, steps=600, every_family=2),
    "default": SimpleNamespace(stepsizes=6, seeds=3, steps=2000, every_family=1),
    "full": SimpleNamespace(stepsizes=12, seeds=10, steps=4000, every_family=1),
}


def varying(world: Any, _: Any) -> dict[int, Program]:
    """Return gradient tracking's histories on networks that change with time and on fixed ones."""
    sizes = world.sizes
    shared = {
        "problem": world.problem,
        "over": {"stepsize": jnp.logspace(-1.5, -0.25, sizes.stepsizes)},
        "seeds": range(world.seed, world.seed + sizes.seeds),
        "steps": sizes.steps,
        "every": 10,
        "mixing": world.seed,
    }
    families = enumerate(varying_networks()[sizes.every_family - 1 :: sizes.every_family])
    return {i: Program(shared | {"networks": m}, function=compare_mixing) for i, m in families}


def compare_mixing(networks: Mapping[str, Any], mixing: int, **options: Any) -> xr.Dataset:
    """Return a comparison with ``contraction``, by what factor a round shrinks disagreement."""
    methods = {"GT": jd.GradientTracking(0.1)}
    dataset = jd.compare(methods, networks=networks, progress=False, **options)
    key = jax.random.key(mixing)
    found = [jd.networks.contraction(network, key, rounds=1000) for network in networks.values()]
    return dataset.isel(algorithm=0, drop=True).assign(contraction=("network", found))


def fixed() -> dict[str, Any]:
    """Return the networks that do not change: ring and exponential graph, and the grid."""
    return {
        "ring": dense(jd.graphs.ring(AGENTS)),
        "exponential": dense(jd.graphs.exponential(AGENTS, directed=True)),
        "grid": dense(placed(jd.graphs.grid(4, AGENTS // 4))),
    }


def varying_networks() -> list[dict[str, Any]]:
    """Return networks that change and fixed ones, a dictionary for each program to compile."""
    some, net = fixed(), jd.networks
    grid = some.pop("grid")
    odds = UP_AND_AWAKE.items()
    return [
        some,
        {"one-peer exponential": net.one_peer_exponential(AGENTS)},
        {"random matching": net.RandomMatching(jd.graphs.complete(AGENTS))},
        {name: net.RandomLinks(net.Disconnected(grid, awake), up) for name, (up, awake) in odds},
    ]


def with_means(dataset: xr.Dataset, *_: Any) -> xr.Dataset:
    """Add ``mean``, |λ₂| of the rounds' mean W, in closed form."""
    eye, ones = np.eye(AGENTS), np.ones((AGENTS, AGENTS))
    means = {name: network.csr().toarray() for name, network in fixed().items()}
    hops = [np.roll(eye, 2**h, axis=1) for h in range((AGENTS - 1).bit_length())]
    means["one-peer exponential"] = (eye + np.mean(hops, axis=0)) / 2
    means["random matching"] = eye / 2 + (ones - eye) / (2 * (AGENTS - 1))
    for name, (up, awake) in UP_AND_AWAKE.items():
        means[name] = eye + up * awake**2 * (means["grid"] - eye)
    radii = [np.sort(np.abs(np.linalg.eigvals(means[n])))[-2] for n in dataset.network.values]
    return dataset.assign(mean=("network", radii))


def failing(results: Results) -> xr.Dataset:
    """Return links a round, 1 − contraction and 1 − |λ₂|: their shares of the grid's, over p."""
    dataset = results["varying"].isel(stepsize=0, seed=0, step=-1, drop=True)
    dataset = dataset.sel(network=present(dataset, "network", list(UP_AND_AWAKE)))
    dataset["links"] = dataset.traffic / dataset.bits
    found = dataset[["links"]].assign(gap=1 - dataset.contraction, mean=1 - dataset["mean"])
    shares = [up * awake**2 for up, awake in (UP_AND_AWAKE[n] for n in dataset.network.values)]
    found = found.reset_coords(drop=True) / xr.DataArray(shares, dims="network")
    return found / found.isel(network=0, drop=True)


def varying_table(results: Results) -> xr.Dataset:
    """Return how fast time-varying networks mix, and what they cost gradient tracking."""
    best = results["best"]
    bits, rounds = (jd.reach(best, "gap", TARGET, x=x).mean("seed") for x in ("traffic", "rounds"))
    found = {"|λ₂| of mean W": best["mean"], "contraction": best.contraction}
    found |= {"best stepsize": best.stepsize, f"rounds to {TARGET:g}": rounds, "Mbit": bits / 1e6}
    return xr.Dataset(found).drop_vars("stepsize")


CLAIMS = claims(
    ("failing links cost 1 − |λ₂| of the mean W, as many as are down",
     "derived: E W = I + p (W − I)", "p", lambda r: failing(r)["mean"], near(1, 0.02)),
    ("so does the measured contraction", "derived", "p", lambda r: failing(r).gap, near(1, 0.1)),
    ("and as many bits are saved", "derived", "p", lambda r: failing(r).links, near(1, 0.05)),
    ("the one-peer exponential graph averages exactly: contraction", "arXiv 2110.13363", "0",
     lambda r: r["varying"].contraction.sel(network="one-peer exponential"), below(1e-9)),
)  # fmt: skip


def changing(fails: bool, x: str) -> Lines:
    """Return the panel of gradient tracking's gap on networks that change, or whose links fail."""

    def data(results: Results) -> xr.Dataset:
        best = results["best"]
        return best.sel(network=[name for name in best.network.values if ("p = " in name) == fails])

    own: Any = {"legend": "panel"} if x == "rounds" else {"legend": None, "ylabel": ""}
    title = "failing links" if fails else "sequences"
    return Lines(data=data, x=x, floor=ROUNDING, title=title, **own)


PANELS = [[changing(fails, x) for x in ("rounds", "traffic")] for fails in (False, True)]
STUDY = Study(
    name="varying",
    paper="One-peer exponential graphs (arXiv 2110.13363), random matchings, failing links",
    question="What do networks that change with time cost in rounds, and save in bits?",
    scales=SCALES,
    world=lambda sizes, seed: SimpleNamespace(sizes=sizes, seed=seed, problem=problem()),
    parts={
        "varying": Part("network", varying, with_means),
        "best": derived(lambda done: jd.best(done["varying"], "gap")),
    },
    claims=CLAIMS,
    figures={"varying": Figure(PANELS, height=2.6)},
    tables={"varying": ("gradient tracking on networks that change", varying_table)},
    minutes={"quick": 0.4, "default": 2, "full": 10},
    data=lambda world: (
        f"digits {DIGITS[0]} against {DIGITS[1]} of scikit-learn over {AGENTS} agents by label, "
        f"{world.problem.d} features"
    ),
)
