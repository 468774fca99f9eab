"""Liars against connectivity: where gossip breaks, on random regular, exponential, clique graphs.

Twenty honest agents with fᵢ(x) = |x − bᵢ|² / 2 run DSGD; half of them has b near u, half near −u,
and the mean of |bᵢ − x*|² is 1, so an agent alone has the error 1 on average. f liars are added,
who know all that a receiver hears and tell each its own lie: ALIE, inner products (FOE) or
Dissensus, at several factors, whichever is worst. A rule knows how many of them any honest agent
hears, as far as that is a minority (self-centered clipping has a radius instead).

On regular and exponential graphs liars are placed at random, or around one agent, the worst place.
In two cliques of ten every honest agent also hears L of the other clique, and all liars. Rules
that drop f messages need a (2f + 1)-robust graph (LeBlanc et al. 2013): of any two groups of agents
one has a member with 2f + 1 neighbors outside of its own group. So degrees are at least 2f + 1, and
L is more than f, as else a rule can drop all bridges; these are the lines in the figure, where
values are drawn as 0.001 to 9. He, Karimireddy and Jaggi (2022) bear a share of liars up to a
constant times γ², the square of the spectral gap of honest agents' weights; see the table.
"""

import itertools
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import xarray as xr

import jaxdopt as jd
from experiments.claims import above, below, claims
from experiments.measures import among
from experiments.panels import Figure, Heat, present
from experiments.study import Axis, Part, Program, Results, Study

A, T = jd.aggregators, jd.attacks
HONEST, D, STEPSIZE = 20, 5, 0.05
RADIUS = 0.3  # of self-centered clipping, below the usual distance 1.4 of two agents alone
CLIPPING = "self-centered clipping"
RULES = {
    "mean": lambda _: A.Mean(),
    "trimmed mean": A.TrimmedMean,
    "NNA": A.NNA,
    CLIPPING: lambda _: A.SelfCenteredClipping(RADIUS),
}
ATTACKS = {"ALIE": T.ALIE(1.0), "FOE": T.InnerProduct(1.0), "Dissensus": T.Dissensus(1.0)}
AROUND, WORST, LOWEST, HIGHEST = "around one agent", 1e6, 1e-3, 9  # errors above it count as it
ROBUST, BOUND = ("trimmed mean", "NNA", CLIPPING), "LeBlanc et al. (2013)"
CLIQUES = "two cliques, L = "
SCALES = {
    "quick": {"liars": (0, 1, 2), "degrees": (4,), "bridges": (1, 3), "seeds": 1, "steps": 120}
    | {"rules": ("mean", "NNA"), "attacks": ("Dissensus",), "factors": (0.0, 4.0)},
    "default": {"liars": range(5), "degrees": (4, 6, 8, 12), "bridges": (1, 2, 3, 4, 6)}
    | {"seeds": 1, "steps": 120, "rules": [*RULES], "attacks": [*ATTACKS]}
    | {"factors": (0.0, 1.0, 4.0)},
    "full": {"liars": range(9), "degrees": (4, 6, 8, 10, 12, 16), "bridges": range(1, 11)}
    | {"seeds": 10, "steps": 200, "rules": [*RULES], "attacks": [*ATTACKS]}
    | {"factors": (0.0, 0.2, 0.5, 1.0, 2.0, 4.0, 10.0)},
}


def world(sizes: Any, seed: int) -> Any:
    """Return the problem, and the cases: {(graph, place, f): adjacency, honest agents first}."""
    made = SimpleNamespace(seed=seed, **sizes)
    made.seats = HONEST + max(made.liars)  # nobody hears those beyond 20 + f
    made.problem, made.cases = problem(made.seats, seed), {}
    for f, number in itertools.product(made.liars, range(made.seeds)):
        for name, graph in random_graphs(HONEST + f, made.degrees, seed + number).items():
            for place in (AROUND, "at random"):
                links = placed(graph, f, place, seed + number)
                made.cases[name, f"{place} {number}", f] = padded(links, made.seats)
    for f, bridges in itertools.product(made.liars, made.bridges):
        made.cases[f"{CLIQUES}{bridges}", "cut 0", f] = padded(cliques(bridges, f), made.seats)
    return made


def problem(n: int, seed: int) -> Any:
    """Return |x − bᵢ|² / 2 of honest agents in two groups; b = 0 for the others, and x* = 0."""
    draws = np.random.default_rng(seed).normal(size=(HONEST, D)) / np.sqrt(2 * D)
    draws -= draws.mean(axis=0)
    draws[:, 0] += np.where(np.arange(HONEST) < HONEST // 2, 1, -1) / np.sqrt(2)
    own = np.zeros((n, D))
    own[:HONEST] = draws / np.sqrt(np.mean(np.sum(draws**2, axis=1)))
    zero, hessians = jnp.zeros(D), jnp.broadcast_to(jnp.eye(D), (n, D, D))
    return jd.problems.Quadratic(hessians, -jnp.asarray(own), zero, zero, 1.0, 1.0)


def random_graphs(n: int, degrees: Any, seed: int) -> dict[str, Any]:
    """Return the graphs in which liars are any of the agents."""
    made = {f"{d}-regular": jd.graphs.regular(n, d, seed=seed) for d in degrees}
    return made | {"exponential": jd.graphs.exponential(n)}


def placed(graph: nx.Graph, f: int, place: str, seed: int) -> np.ndarray:
    """Return the adjacency with f liars last: neighbors of one agent, or drawn; others shuffled."""
    links, draws = nx.to_numpy_array(graph) > 0, np.random.default_rng(seed)
    order = draws.permutation(len(links))
    if place == AROUND:
        first = order[0]
        order = order[np.argsort(links[first][order], kind="stable")]
    honest, liars = order[: len(links) - f], order[len(links) - f :]
    order = np.concatenate([draws.permutation(honest), liars])
    return links[np.ix_(order, order)]


def cliques(bridges: int, f: int) -> np.ndarray:
    """Return two cliques, agents with ``bridges`` links to the other, and f liars with all."""
    half = HONEST // 2
    links = np.kron(np.eye(2), np.ones((half, half))) > 0
    for i, j in itertools.product(range(half), range(bridges)):
        links[i, half + (i + j) % half] = links[half + (i + j) % half, i] = True
    whole = np.ones((HONEST + f, HONEST + f), bool)
    whole[:HONEST, :HONEST] = links
    return whole & ~np.eye(HONEST + f, dtype=bool)


def padded(links: np.ndarray, seats: int) -> np.ndarray:
    """Return an adjacency with further agents, who hear the honest ones, and whom nobody hears."""
    more = seats - len(links)
    links = np.pad(links, (0, more))
    links[seats - more :, :HONEST] = True
    return links


def dense(links: np.ndarray) -> np.ndarray:
    """Return equal weights, which only name the links here."""
    weights = links + np.eye(len(links))
    return weights / weights.sum(axis=1, keepdims=True)


def told(links: np.ndarray) -> tuple[int, int]:
    """Return the most liars that an honest agent hears, and the largest f that a rule can take."""
    return int(links[:HONEST, HONEST:].sum(axis=1).max()), int(links.sum(axis=1).min()) // 2


def gossip(setting: Any, rule: str, weights: Any, f: Any, factor: Any, options: Any) -> Any:
    """Return a run on a graph, with a rule for f liars and the attack at a factor."""
    algorithm, problem, network, x0, key = setting
    graph = jd.replace(network.network, weights=weights)
    attack = jd.replace(network.attack, factor=factor)
    network = jd.replace(network, network=graph, rule=RULES[rule](f), attack=attack)
    return jd.run(algorithm, problem, network, x0, key, **options)


def runs(world: Any, _: Any) -> dict[Any, Program]:
    """Return a program for every rule and attack: all graphs, places, numbers, factors at once."""
    liars, found = np.arange(world.seats) >= HONEST, {}
    weights = jnp.stack([dense(links) for links in world.cases.values()])
    graph = jd.networks.Dense(weights[0], kind="row")
    some = jnp.array([min(told(links)) for links in world.cases.values()])
    options = {"steps": world.steps, "every": world.steps, "defaults": ()}
    options |= {"metrics": {"error": farthest, "apart": apart}}
    for rule, name in itertools.product(world.rules, world.attacks):
        network = jd.networks.robust(graph, rule=A.Mean(), attack=ATTACKS[name], liars=liars)
        setting = jd.DSGD(STEPSIZE), world.problem, network, world.problem.start()
        arguments = {"setting": (*setting, jax.random.key(world.seed)), "rule": rule}
        arguments |= {"weights": weights, "f": some, "factor": jnp.array(world.factors)}
        over: Any = {("weights", "f"): Axis("case", range(len(some)))}
        over |= {"factor": Axis("factor", list(world.factors))}
        reduce = unfolded(list(world.cases))
        found[rule, name] = Program(arguments | {"options": options}, over, gossip, reduce)
    return found


def farthest(state: Any, problem: Any) -> jax.Array:
    """Return |xᵢ − x*|² of the honest agent that is farthest off, x* of the honest."""
    return jnp.max(jnp.sum((state.x - problem.solution) ** 2, axis=1))


def apart(state: Any, problem: Any) -> jax.Array:
    """Return |x̄ − x̄'|² of the two halves of honest agents, over that of their data."""
    own = state.x.reshape(2, HONEST // 2, D).mean(axis=1)
    data = problem.tilts.reshape(2, HONEST // 2, D).mean(axis=1)
    return jnp.sum((own[0] - own[1]) ** 2) / jnp.sum((data[0] - data[1]) ** 2)


def unfolded(cases: Any) -> Any:
    """Return a function of a dataset by case, to one by graph, place and f."""

    def reduce(dataset: xr.Dataset) -> xr.Dataset:
        last = dataset[["error", "apart"]].isel(step=-1, drop=True)
        last = last.where(last < WORST, WORST).drop_vars("case")
        columns = zip(("graph", "place", "f"), zip(*cases, strict=True), strict=True)
        last = last.assign_coords({name: ("case", list(column)) for name, column in columns})
        return last.set_index(case=("graph", "place", "f")).unstack("case")

    return reduce


def worst(metric: str, *dims: str) -> Any:
    """Return a measure: the largest value of a metric over attacks, factors and further dims."""
    return lambda results: results["runs"][metric].max(("attack", "factor", *dims))


def names(world: Any, within: bool) -> list[str]:
    """Return the graphs in order: the cliques, or the others."""
    known = dict.fromkeys(name for name, _, _ in world.cases)
    return [name for name in known if (CLIQUES in name) == within]


def bearable(world: Any, name: str, f: int) -> bool:
    """Return whether the graph can be (2f + 1)-robust, by its bridges or by its least degree."""
    if CLIQUES in name:
        return int(name.removeprefix(CLIQUES)) > f
    return int(world.cases[name, f"{AROUND} 0", f].sum(axis=1).min()) >= 2 * f + 1


def side(within: bool, metric: str, inside: bool, rules: Any = ROBUST) -> Any:
    """Return a metric of robust rules, by rule, graph and f: on one side of the line.

    A measure; it has no values where the scale has no such cases.
    """

    def measure(results: Results) -> xr.DataArray:
        world, graphs = results.world, names(results.world, within)
        found = worst(metric, "place")(results).sel(graph=graphs)
        found = among(found, rules, "rule")
        sides = [[bearable(world, name, f) == inside for f in found.f.values] for name in graphs]
        here = xr.DataArray(sides, dims=("graph", "f"), coords={"graph": graphs, "f": found.f})
        left = found.where(here & (found.f > 0)).rename("value").to_series().dropna()
        cases = [", ".join(map(str, case)) for case in left.index]
        return xr.DataArray(left.values, {"case": cases}, "case")

    return measure


def line(within: bool) -> Any:
    """Return a drawing of the line below which a graph bears f liars."""

    def draw(ax: Any, results: Any) -> None:
        world, columns = results.world, names(results.world, within)
        ends = [sum(bearable(world, name, f) for f in world.liars) - 0.5 for name in columns]
        at = np.arange(len(columns) + 1) - 0.5
        ax.step(at, [*ends, ends[-1]], where="post", color="C3", label="(2f + 1)-robust above")

    return draw


def heat(within: bool, metric: str, rule: str) -> Heat:
    """Return a panel of one rule: the number of liars over the graphs."""

    def data(results: Results) -> xr.DataArray:
        found = worst(metric, "place")(results).sel(graph=names(results.world, within))
        return found.clip(LOWEST, HIGHEST)

    labels = {f"{CLIQUES}{n}": f"{n}" for n in range(HONEST)}
    labels |= {f"{n}-regular": f"{n}" for n in range(HONEST)} | {"exponential": "exp."}
    xlabel = "links to the other clique" if within else "degree"
    shared = {"x": "graph", "y": "f", "form": ".1g", "limits": (0.01, HIGHEST), "labels": labels}
    ylabel = "liars; |x̄ − x̄'|², relative" if within else "liars; largest |x − x*|²"
    shared |= {"xlabel": xlabel, "ylabel": ylabel if rule == "mean" else ""}
    shared |= {"title": "" if within else rule}
    return Heat(data=data, at={"rule": rule}, also=[line(within)], **shared)


CLAIMS = claims(
    ("one liar drives the mean anywhere, on every graph: error", "arXiv 1703.02757, lemma 1", "∞",
     lambda r: worst("error", "place")(r).sel(rule="mean", f=1, drop=True), above(10)),
    ("trimmed mean: error where degrees are at least 2f + 1", BOUND, "bounded",
     side(False, "error", True, ["trimmed mean"]), below(0.5)),
    ("for NNA these degrees are not enough: the largest error", "derived", "> 1",
     lambda r: side(False, "error", True, ["NNA"])(r).max(), above(1), ("default", "full")),
    ("two cliques with f ≥ L stay as far apart as alone: |x̄ − x̄'|², relative", BOUND, "1",
     side(True, "apart", False), above(0.5)),
    ("two cliques with f < L come together", BOUND, "0", side(True, "apart", True), below(0.5)),
)  # fmt: skip


def shares(results: Results) -> xr.Dataset:
    """Return γ of honest agents' weights, and the most liars that clipping bears: by cliques.

    It bears them if the cliques are at most half as far apart as alone, |x̄ − x̄'|² ≤ 1/4, relative;
    a share is that of the messages an honest agent hears.
    """
    graphs, rows = names(results.world, True), {}
    near = worst("apart", "place")(results).sel(rule=present(results["runs"], "rule", CLIPPING))
    for name in graphs:
        links = results.world.cases[name, "cut 0", 0][:HONEST, :HONEST]
        gap = jd.networks.mixing(dense(links)).spectral_gap
        kept = near.sel(graph=name) <= 0.25
        f = int(near.f.where(kept, 0).max())
        rows[name] = [gap**2, f, f / (f + 1 + links.sum(axis=1).max())]
    columns = zip(
        ("γ²", "liars borne", "their share"), zip(*rows.values(), strict=True), strict=True
    )
    return xr.Dataset(
        {name: ("graph", list(column)) for name, column in columns}, {"graph": graphs}
    )


STUDY = Study(
    name="gossip",
    paper="He, Karimireddy, Jaggi (arXiv 2202.01545); LeBlanc et al. (2013); MoNNA (2209.10931)",
    question="How many liars does gossip bear, on graphs of which connectivity?",
    scales=SCALES,
    world=world,
    parts={"runs": Part(("rule", "attack"), runs)},
    claims=CLAIMS,
    figures={
        "gossip": Figure(
            [
                [heat(within, metric, rule) for rule in RULES]
                for within, metric in ((False, "error"), (True, "apart"))
            ]
        )
    },
    tables={"shares": ("two cliques: γ² beside what clipping bears", shares)},
    minutes={"quick": 0.5, "default": 5, "full": 40},
)
