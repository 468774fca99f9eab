"""The worst case: what liars tell over twenty steps, found by gradient ascent through the run.

DSGD on a random 8-regular graph of 20 agents, two of whom lie, with full gradients of the logistic
regression of digits 3 and 8, split by a Dirichlet distribution. ALIE, inner products (FOE) and
Dissensus are each taken at the factor of a grid, of both signs, that most raises the loss of all
honest data at the honest agents' models in the end. The worst case adds an offset a step and
receiver (`jd.attacks.Scripted`), 25,600 numbers, and ascends the same loss by `jax.grad` of
`jd.run`. It starts at the honest mean, with offsets 0 or random ones, and at each of the known
attacks. Rules that select have no slope outside of what they accept, so every step is tried from
the best iterate: each message goes a length along its slope, 1.2 times the last length if that
raised the loss, and half of it if not.

All in float64. The mean has no worst case, as its loss grows with the offsets; its figure says how
far so many evaluations go.
"""

import time
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

import jaxdopt as jd
from experiments.claims import above, below, claims
from experiments.panels import Dots, Figure, Lines
from experiments.study import Part, Program, Results, Study, comparison

A, T = jd.aggregators, jd.attacks
DIGITS, L2, ALPHA = (3, 8), 0.1, 1.0  # α of the Dirichlet distribution
RADIUS = 0.3  # of self-centered clipping, about half of the distance to an honest neighbor
WEISZFELD = 10  # steps, of which each is differentiated
RULES = {
    "mean": lambda _: A.Mean(),
    "NNA": A.NNA,
    "trimmed mean": A.TrimmedMean,
    "geometric median": lambda _: A.GeometricMedian(iterations=WEISZFELD),
    "self-centered clipping": lambda _: A.SelfCenteredClipping(RADIUS),
    "NNM, median": lambda f: A.chain(A.NNM(f), A.Median()),
}
ATTACKS = {"ALIE": T.ALIE(1.0), "FOE": T.InnerProduct(1.0), "Dissensus": T.Dissensus(1.0)}
LENGTH, LONGER, SHORTER = 0.1, 1.2, 0.5  # of the first step of a message, and of later ones
MEANS = {"offsets 0": 0.0, "random offsets": 0.03}  # starts at the mean: standard deviations
FROM_MEAN, FROM_KNOWN, TRUTH = "ascent from the mean", "ascent from known", "no lies"
FACTORS = np.concatenate([-np.logspace(1, -1.5, 15), np.logspace(-1.5, 1, 15)])
SLOPE = 1e-5  # the length of the step of finite differences
SMALL = {"agents": 10, "degree": 4, "liars": 1, "steps": 6, "rules": ("mean", "NNA")}
LARGE = {"agents": 20, "degree": 8, "liars": 2, "steps": 20, "rules": tuple(RULES)}
SCALES = {
    "quick": SMALL | {"evaluations": 40},
    "default": LARGE | {"evaluations": 100},
    "full": LARGE | {"evaluations": 1000},
}


@jd.pytree
class Bent:
    """The honest mean, or what an attack tells in its place, plus offsets.

    Args:
        script: the offsets, `jd.attacks.Scripted`.
        attacks: the attacks, each with its factor.
        shares: of each attack in the lie, [a]; what is left to 1 is the mean's.
    """

    script: Any
    attacks: tuple[Any, ...]
    shares: Any

    def at(self, k: Any, receiver: Any, messages: Any) -> "Bent":
        """Return the attack of step k on one receiver."""
        return jd.replace(self, script=self.script.at(k, receiver, messages))

    def __call__(self, honest: Any, liars: Any = 1, key: Any = None, heard: Any = None) -> Any:
        """Return what one receiver is told [d]."""
        shifted = self.script(honest, liars, key, heard)
        mean = shifted - self.script.lies
        told = jnp.stack([attack(honest, liars, key, heard) for attack in self.attacks])
        return shifted + self.shares @ (told - mean)


def honest_loss(state: Any, problem: Any) -> jax.Array:
    """F of the honest agents' data at their models, the mean over them."""
    return jnp.mean(jax.vmap(problem.objective)(state.x))


def world(sizes: Any, seed: int) -> Any:
    """Return the problem, the stepsize 1/L, and a network with liars for each rule."""
    made, n = SimpleNamespace(seed=seed, **sizes), sizes["agents"]
    data = jd.data.digits().only(*DIGITS)
    made.problem = jd.problems.logistic_regression(
        data.features,
        data.labels == DIGITS[1],
        agents=n,
        l2=L2,
        partition=jd.partition.dirichlet(ALPHA, seed),
    )
    made.method = jd.DSGD(1 / made.problem.smoothness)
    weights = jd.networks.metropolis(jd.graphs.regular(n, made.degree, seed=seed)).csr()
    made.graph = jd.networks.mixing(weights, form=jd.networks.Neighbors)
    made.run = {"steps": made.steps, "every": made.steps, "defaults": ()}
    made.run |= {"metrics": {"loss": honest_loss}}
    return made


def network(world: Any, rule: str, attack: Any = None) -> Any:
    """Return the graph whose last agents lie, under a rule."""
    options = {"rule": RULES[rule](world.liars), "attack": attack, "liars": world.liars}
    return jd.networks.robust(world.graph, **options)


def scripted(world: Any, rule: str, factors: Any) -> tuple[Any, Any]:
    """Return the shape of offsets, and the loss in the end of offsets and shares."""
    shape = (world.steps, world.problem.n, world.problem.d)
    known = zip(ATTACKS.values(), factors, strict=True)
    attacks = tuple(jd.replace(attack, factor=float(factor)) for attack, factor in known)
    offsets = T.Scripted(jnp.zeros(shape))
    made = network(world, rule, Bent(offsets, attacks, jnp.zeros(len(attacks))))

    def final(lies: jax.Array, shares: jax.Array) -> jax.Array:
        attack = jd.replace(made.attack, script=jd.replace(offsets, lies=lies), shares=shares)
        problem, key = world.problem, jax.random.key(world.seed)
        told = jd.replace(made, attack=attack)
        result = jd.run(world.method, problem, told, problem.start(), key, **world.run)
        return result.history["loss"][-1]

    return shape, final


def ascend(world: Any, rule: str, factors: Any) -> dict[str, Any]:
    """Return the highest loss by start and evaluation, the seconds, and a check of slopes.

    All starts go together.
    """
    shape, final = scripted(world, rule, factors)
    key, attacks = jax.random.key(world.seed), len(ATTACKS)

    def ascent(spread: jax.Array, shares: jax.Array) -> jax.Array:
        def evaluate(best: Any, _: Any) -> Any:
            most, lies, slope, length = best
            norms = jnp.linalg.norm(slope, axis=-1, keepdims=True)
            tried = lies + length * slope / jnp.where(norms > 0, norms, 1)
            value, there = jax.value_and_grad(final)(tried, shares)
            found = value, tried, there, length * LONGER
            other = most, lies, slope, length * SHORTER
            best = jax.tree.map(lambda a, b: jnp.where(value > most, a, b), found, other)
            return best, best[0]

        # the first evaluation is of the start itself, as there is no slope yet
        start = spread * jax.random.normal(key, shape)
        first = jnp.asarray(-jnp.inf), start, jnp.zeros(shape), jnp.asarray(LENGTH / LONGER)
        return jax.lax.scan(evaluate, first, length=world.evaluations)[1]

    starts = jnp.array([*MEANS.values()] + [0.0] * attacks)
    shares = jnp.concatenate([jnp.zeros((len(MEANS), attacks)), jnp.eye(attacks)])
    compiled = jax.jit(jax.vmap(ascent)).lower(starts, shares).compile()
    began = time.perf_counter()
    losses = np.asarray(compiled(starts, shares))
    seconds = time.perf_counter() - began
    return {"loss": losses, "seconds": seconds, "slope": slope_error(shape, final, key)}


def slope_error(shape: Any, final: Any, key: jax.Array) -> Any:
    """Return by how much the gradient misses a finite difference in a random direction, relative.

    At small random offsets: at 0 all liars tell the same, where rules that select are not smooth.
    """
    at, along = jax.random.normal(key, (2, *shape))
    along = along / jnp.linalg.norm(along)
    points = jnp.stack([1e-3 * at + sign * SLOPE * along for sign in (1, 0, -1)])
    both = jax.jit(jax.vmap(jax.value_and_grad(final), (0, None)))
    values, slopes = both(points, jnp.zeros(len(ATTACKS)))
    found = (values[0] - values[2]) / (2 * SLOPE)
    return jnp.abs(found / jnp.vdot(slopes[1], along) - 1)


def ascents(world: Any, done: Results) -> dict[str, Program]:
    """Return the ascent against every rule."""
    losses = done["known"].loss.drop_sel(attack=TRUTH).dropna("factor")
    best = losses.idxmax("factor").sel(attack=[*ATTACKS])

    def labelled(dataset: xr.Dataset) -> xr.Dataset:
        dataset = dataset.rename(loss_0="start", loss_1="step")
        labels = {"start": [*MEANS, *ATTACKS], "step": np.arange(1, world.evaluations + 1)}
        return dataset.assign_coords(labels)

    factors = {rule: best.sel(rule=rule).values for rule in world.rules}
    return {
        rule: Program(
            {"world": world, "rule": rule, "factors": factors[rule]}, {}, ascend, labelled
        )
        for rule in world.rules
    }


def known(world: Any, _: Any) -> dict[Any, Program]:
    """Return each attack against every rule, over the grid of factors; and no attack."""
    shared = {"problem": world.problem, "seeds": [world.seed], "reduce": last, **world.run}
    found = {}
    for rule in world.rules:
        for name, attack in ATTACKS.items():
            lies = {"network.attack.factor": FACTORS}
            options = {"networks": network(world, rule, attack), "over": lies}
            found[rule, name] = comparison(world.method, ["loss"], **options, **shared)
        options = {"networks": network(world, rule)}
        found[rule, TRUTH] = comparison(world.method, ["loss"], **options, **shared)
    return found


def last(dataset: xr.Dataset) -> xr.Dataset:
    """Return the loss at the end, by factor."""
    dataset = dataset[["loss"]].isel(step=-1, seed=0, drop=True)
    grid = "network.attack.factor"
    if grid in dataset.dims:
        return dataset.rename({grid: "factor"}).assign_coords(factor=FACTORS)
    return dataset.expand_dims(factor=[0.0])


def worst(results: Results) -> xr.DataArray:
    """Return the highest final loss of every attack, by rule."""
    grid = results["known"].loss.max("factor")
    found = results["ascents"].loss.isel(step=-1, drop=True)
    means = found.sel(start=[*MEANS]).max("start").expand_dims(attack=[FROM_MEAN])
    others = found.sel(start=[*ATTACKS]).max("start").expand_dims(attack=[FROM_KNOWN])
    joined: Any = xr.concat([grid, means, others], "attack", coords="minimal")
    return joined


def added(results: Results) -> xr.DataArray:
    """Return how much loss lies add, over the loss without them: by rule and attack."""
    found = worst(results)
    return (found / found.sel(attack=TRUTH, drop=True) - 1).drop_sel(attack=TRUTH)


def robust_rules(values: xr.DataArray) -> xr.DataArray:
    """Return the values of all rules but the mean."""
    return values.drop_sel(rule="mean")


def over_known(which: str) -> Any:
    """Return what an ascent adds over what the worst known attack adds, by rule: a measure."""

    def measure(results: Results) -> xr.DataArray:
        found = robust_rules(added(results))
        return found.sel(attack=which, drop=True) / found.sel(attack=[*ATTACKS]).max("attack")

    return measure


def over_mean(results: Results) -> xr.DataArray:
    """Return the most loss that lies add under each rule, over what ascent adds to the mean's."""
    found = added(results)
    return robust_rules(found).max("attack") / found.sel(rule="mean", attack=FROM_MEAN, drop=True)


def selected(results: Results) -> float:
    """Return the steepest slope that NNA has at lies it does not accept."""
    world = results.world
    none = np.zeros(len(ATTACKS))
    shape, final = scripted(world, "NNA", none)
    far = 1e3 * jax.random.normal(jax.random.key(world.seed), shape)
    return float(jnp.max(jnp.abs(jax.jit(jax.grad(final))(far, jnp.asarray(none)))))


CLAIMS = claims(
    ("the gradient through the run is that of finite differences: relative error",
     "derived", "0", lambda r: r["ascents"].slope, below(1e-3)),
    ("NNA has no slope at lies that it does not accept", "derived", "0", selected, below(0.0)),
    ("under the mean lies drive the loss anywhere: relative to it, ascent from the mean adds",
     "arXiv 1703.02757, lemma 1", "∞",
     lambda r: added(r).sel(rule="mean", attack=FROM_MEAN, drop=True), above(2.0)),
    ("under a robust rule the worst lies add a small part of what they add under the mean",
     "arXiv 2209.10931", "bounded", over_mean, below(0.2)),
    ("ascent from the mean adds more than ALIE, FOE and Dissensus at their best: ratio",
     "derived", "> 1", over_known(FROM_MEAN), above(1.0), ("default", "full")),
    ("ascent from these attacks adds more than they do: ratio", "derived", "> 1",
     over_known(FROM_KNOWN), above(1.02), ("default", "full")),
)  # fmt: skip


def history(results: Results) -> xr.Dataset:
    """Return the loss that the best iterate so far adds, of the best start at the mean."""
    losses = results["ascents"].loss.sel(start=[*MEANS]).max("start")
    best = losses / worst(results).sel(attack=TRUTH, drop=True) - 1
    return best.rename(rule="algorithm").to_dataset(name="added")


def table(results: Results) -> Any:
    """Return the losses by attack, and what the ascent took."""
    losses = worst(results).to_dataset("attack")
    found = results["ascents"]
    count = found.loss.isel(rule=0).size
    return losses.assign(evaluations=("rule", [count] * found.sizes["rule"]), s=found.seconds)


PANELS = [
    Dots(
        data=lambda results: robust_rules(added(results)),
        x="rule",
        by="attack",
        logy=False,
        ylim=(0, None),
        rotation=20,
        ylabel="loss added by lies, relative",
        title="at the best factor, or by ascent",
    ),
    Lines(
        data=history,
        y="added",
        x="step",
        xlabel="evaluations",
        ylabel="",
        ylim=(3e-3, 3),
        legend="panel",
        title="ascent from the mean: best so far",
    ),
]
STUDY = Study(
    name="adversary",
    paper="ALIE (arXiv 1902.06156), FOE (1903.03936), Dissensus (2202.01545), and ascent",
    question="How much harm can liars do, beyond the known attacks?",
    scales=SCALES,
    world=world,
    parts={"known": Part(("rule", "attack"), known), "ascents": Part("rule", ascents)},
    claims=CLAIMS,
    figures={"adversary": Figure([PANELS], height=2.8)},
    tables={"losses": ("honest loss after the last step", table)},
    minutes={"quick": 0.5, "default": 5, "full": 40},
    data=lambda world: (
        f"digits {DIGITS[0]} against {DIGITS[1]} of scikit-learn over {world.agents} agents, "
        f"Dirichlet({ALPHA:g}), {world.problem.d} features"
    ),
)
