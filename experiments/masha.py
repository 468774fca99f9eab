"""MASHA: compressed messages for games, in both directions (arXiv 2110.03313).

Ten agents share a bilinear game of two players with 20 numbers each, fᵢ(x, y) = xᵀBᵢy + (μ/2)(|x|²
− |y|²) + aᵢᵀx − bᵢᵀy with μ = L/5, whose agents disagree: (1/n) Σᵢ |Fᵢ(z*)|² = |z*|² in units of L.
A message has 4 of 40 coordinates, drawn at random (rand-4) or the largest (top-4). Three questions:

* *notes*: at the stepsizes that theory gives, where does extragradient with compressed operators
  stop, and does MASHA go on? γL = √p / (2C), C² = (q_s/n)(q_d + n − 1), for MASHA1, and √p / (2q)
  for MASHA2, with p = 1/10, q = 10 of a compressed link and 1 of a whole one.
* *tuned*: how many bits up and down does a relative error of 1e-8 cost, each method at its best of
  stepsizes by factors of two? Full exchanges and the first one are counted. The bits are those of
  the first record below it, of one in 20 steps: extragradient, which takes about 64 steps, is
  charged 80. The mean operator has a third of the agents' L: whole extragradient is best at γL = 2.
* *gan*: is it the same in a game that is neither bilinear nor strongly monotone? A generator, the
  mean θ of a Gaussian, against a discriminator σ(φᵀa), f(θ, φ) = E log σ(φᵀa) + E log σ(−φᵀ(θ + ξ))
  − (ρ/2)|φ|², over samples a of agents whose distributions have different means.

Errors are |z − z*| / |z*|. The paper was not at hand: stepsizes and rates are those of its theory
as we know it, and its experiments (adversarial training of ALBERT) are not reproduced. Everything
in float64.
"""

from collections import namedtuple
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

import jaxdopt as jd
from experiments.claims import above, below, claims, near
from experiments.measures import among, exponent, over, soonest, tail
from experiments.panels import Figure, Lines, LogLog, slope
from experiments.study import Part, Program, Results, Study, comparisons
from jaxdopt.compressors import RandomK, TopK

PAPER = "arXiv 2110.03313"
AGENTS, EACH, KEPT, GOAL = 10, 20, 4, 1e-8
CONVEXITY = 0.2  # μ, with L = 1
RHO = 0.1  # of the discriminator
RAND, TOP, Q = RandomK(KEPT), TopK(KEPT), 2 * EACH / KEPT
PLAIN, NAIVE, SPARSE = "ExtraGradient", "ExtraGradient, rand-4", "ExtraGradient, top-4"
BOTH1, BOTH2 = "MASHA1, both ways", "MASHA2, both ways"


def theory(up: float, down: float = 1.0) -> float:
    """Return γL of MASHA1 with E|Q(x)|² ≤ q|x|² up and down: √p / (2C), p = 1/q up."""
    return float(np.sqrt(1 / up) / (2 * np.sqrt(down / AGENTS * (up + AGENTS - 1))))


METHODS: dict[str, Any] = {  # at the stepsizes of theory; those of extragradient are γL = 1/4
    PLAIN: jd.ExtraGradient(1 / 4),
    NAIVE: jd.ExtraGradient(1 / 4, RAND),
    SPARSE: jd.ExtraGradient(1 / 4, TOP),
    "MASHA1": jd.MASHA1(theory(Q), RAND),
    BOTH1: jd.MASHA1(theory(Q, Q), RAND, downlink=RAND),
    "MASHA2": jd.MASHA2(np.sqrt(1 / Q) / (2 * Q), TOP),
    BOTH2: jd.MASHA2(np.sqrt(1 / Q) / (2 * Q), TOP, downlink=TOP),
}
# Methods; steps of notes, tuned and gan; exponents of 2 of stepsizes, and of plateaus'; seeds.
Sizes: Any = namedtuple("Sizes", "methods steps grid plateaus seeds")
FEW, SMALL = (PLAIN, NAIVE, "MASHA1", "MASHA2"), range(-6, -1)
SCALES = {
    "quick": Sizes(FEW, (6000, 1600, 1000), (-3, -2), (), 1),
    "default": Sizes(METHODS, (12_000, 4000, 4000), range(-6, 2), SMALL, 2),
    "full": Sizes(METHODS, (12_000, 8000, 8000), np.arange(-12, 3) / 2, SMALL, 10),
}


def world(sizes: Any, seed: int) -> Any:
    """Return the sizes and the two games, with their equilibria."""
    options = {"strong_convexity": CONVEXITY, "seed": seed}
    norm = float(jnp.linalg.norm(jd.problems.bilinear(AGENTS, EACH, **options).solution))
    bilinear = jd.problems.bilinear(AGENTS, EACH, heterogeneity=norm, **options)
    random = np.random.default_rng(seed)
    means = 0.5 + 0.5 * random.standard_normal((AGENTS, 1, EACH))
    samples = tuple(random.standard_normal((2, AGENTS, 30, EACH)))
    start = (jnp.zeros(EACH), jnp.zeros(EACH))
    gan = jd.problems.Saddle(adversarial, (samples[0] + means, samples[1]), start).solved()
    return SimpleNamespace(sizes=sizes, seed=seed, bilinear=bilinear, gan=gan)


def adversarial(mean: jax.Array, discriminator: jax.Array, sample: Any) -> jax.Array:
    """Return log σ(φᵀa) + log σ(−φᵀ(θ + ξ)) − (ρ/2)|φ|² for a sample (a, ξ)."""
    real, noise = sample
    true, false = real @ discriminator, (mean + noise) @ discriminator
    penalty = RHO / 2 * discriminator @ discriminator
    return jax.nn.log_sigmoid(true) + jax.nn.log_sigmoid(-false) - penalty


def relative(state: Any, problem: Any) -> jax.Array:
    """|z − z*| / |z*|."""
    goal = problem.solution
    return jnp.linalg.norm(state.server - goal) / jnp.linalg.norm(goal)


def runs(methods: Any, game: Any, sizes: Any, steps: int, **options: Any) -> dict[str, Program]:
    """Return the comparison of each method on a game."""
    return comparisons(
        {name: METHODS[name] for name in methods},
        ("error", "bits", "bits_up", "bits_down", "best", "arrival", "square"),
        problem=game,
        networks=jd.networks.Server(AGENTS),
        steps=steps,
        every=steps // 200,
        seeds=range(sizes.seeds),
        metrics={"error": relative},
        defaults=(),
        **options,
    )


def noted(world: Any, _: Any) -> dict[str, Program]:
    """Return the runs at the stepsizes of theory."""
    return runs(world.sizes.methods, world.bilinear, world.sizes, world.sizes.steps[0])


def best(dataset: xr.Dataset) -> xr.Dataset:
    """Return the runs at the stepsize that needs the fewest bits to the goal, or ends nearest."""
    found = soonest(dataset, "error", GOAL, "bits", over="stepsize", records=2)
    return found.assign(best=found.stepsize).drop_vars("stepsize")


def over_grid(game: str, steps: int) -> Any:
    """Return what makes the runs of all methods, each at its best stepsize."""

    def programs(world: Any, _: Any) -> dict[str, Program]:
        sizes, grid = world.sizes, {"stepsize": 2.0 ** np.asarray(world.sizes.grid)}
        asked = sizes.methods, getattr(world, game), sizes, sizes.steps[steps]
        return runs(*asked, over=grid, reduce=best)

    return programs


def plateaus(world: Any, _: Any) -> dict[str, Program]:
    """Return compressed extragradient at stepsizes below 1/4, for as long as each needs."""
    sizes = world.sizes
    grid = {"stepsize": 2.0 ** np.asarray(sizes.plateaus)}

    def late(dataset: xr.Dataset) -> xr.Dataset:
        return dataset.assign(square=tail(dataset.error**2, 0.5))[["square"]]

    methods = (NAIVE, SPARSE) if sizes.plateaus else ()
    return runs(methods, world.bilinear, sizes, sizes.steps[0], over=grid, reduce=late)


def ended(results: Results, *names: str) -> xr.DataArray:
    """Return methods' errors at the end of the runs at the stepsizes of theory."""
    return among(tail(results["notes"].error, 0.01), names).median("seed")


def plateau(results: Results) -> xr.DataArray:
    """Return where compressed extragradient stops, root mean squares over the second half."""
    squares = tail(among(results["notes"].error, (NAIVE, SPARSE)) ** 2, 0.5)
    return np.sqrt(squares.mean("seed"))


def bits(results: Results, way: str) -> xr.DataArray:
    """Return the bits in one direction, or in the mean of both, to the goal at best stepsizes."""
    return jd.reach(results["tuned"], "error", GOAL, way).median("seed")


def spent(results: Results) -> xr.Dataset:
    """Return the bits up and down to the goal, and the best stepsizes."""
    ways = {way: bits(results, way) for way in ("bits_up", "bits_down")}
    return xr.Dataset(ways | {"best": results["tuned"].best})


def rate(results: Results, name: str) -> xr.DataArray:
    """Return −log of a method's mean factor of |z − z*|² a step, over μγ, from 1 down to 1e-8."""
    steps = jd.reach(among(results["notes"], (name,)), "error", 1e-4, "step").median("seed")
    return -2 * np.log(1e-4) / (CONVEXITY * float(METHODS[name].stepsize) * steps)


def stops(results: Results) -> xr.DataArray:
    """Return the squares of plateaus by compressor."""
    square = results["plateau"].square
    names = [name.rpartition(", ")[2] for name in square.algorithm.values]
    return square.assign_coords(algorithm=names).rename(algorithm="compressor")


def law(results: Results) -> xr.DataArray:
    """Return the exponents of the squares of plateaus over the stepsize."""
    square = results["plateau"].square.mean("seed")
    return exponent(square.stepsize, square, "stepsize")


def generated(results: Results) -> xr.DataArray:
    """Return the errors at the end of the game of a generator."""
    return tail(results["gan"].error, 0.01).median("seed")


THEORY, DERIVED = f"{PAPER}: linear convergence", "derived: C(Fᵢ(z*)) is not 0"
LATER = ("default", "full")
CLAIMS = claims(
    ("naively compressed extragradient stops at γL = 1/4: |z − z*| / |z*|, rand-4", DERIVED, ".85",
     lambda r: among(plateau(r), (NAIVE,)), near(0.85, 0.1)),
    ("and with top-4 farther away", DERIVED, "> .85",
     lambda r: among(plateau(r), (SPARSE,)), above(0.85)),
    ("the square of its plateau is proportional to γ (rand-4): exponent", "derived, for small γ",
     "1", lambda r: among(law(r), (NAIVE,)), near(1, 0.15), LATER),
    ("MASHA1 goes on to rounding errors", THEORY, "0", lambda r: ended(r, "MASHA1"), below(1e-13)),
    ("and with both links compressed", THEORY, "0", lambda r: ended(r, BOTH1), below(1e-12), LATER),
    ("MASHA2 goes on at the stepsize of theory, both ways, too", THEORY, "0",
     lambda r: ended(r, "MASHA2", BOTH2), below(1e-7), LATER),
    ("MASHA1's rate is at least that of theory: −log of the factor of |z − z*|² over μγ",
     THEORY, "1/2", lambda r: rate(r, "MASHA1"), above(0.5)),
    ("and MASHA2's", THEORY, "1/2", lambda r: rate(r, "MASHA2"), above(0.5)),
    ("at best stepsizes MASHA1 sends fewer bits up to 1e-8 than extragradient does: ratio", PAPER,
     "< 1", lambda r: over(bits(r, "bits_up"), "MASHA1", PLAIN), below(1), LATER),
    ("and MASHA2", PAPER, "< 1",
     lambda r: over(bits(r, "bits_up"), "MASHA2", PLAIN), below(1), LATER),
    ("both ways it sends fewer down than with a whole downlink: MASHA2's ratio", PAPER, "< 1",
     lambda r: over(bits(r, "bits_down"), BOTH2, "MASHA2"), below(1), LATER),
    ("in the game of a generator MASHA1 and MASHA2 go on", THEORY, "0",
     lambda r: among(generated(r), ("MASHA1", "MASHA2")), below(1e-6), LATER),
    ("where compressed extragradient stops", DERIVED, "> 0",
     lambda r: among(generated(r), (NAIVE, SPARSE)), above(1e-3), LATER),
)  # fmt: skip


def curves(part: str, x: str, title: str) -> Lines:
    """Return the panel of errors against bits in one direction."""
    label = {"bits_up": "bits from an agent", "bits_down": "bits to an agent"}[x]
    shown = {"ylabel": "error  $|z - z^\\star| / |z^\\star|$", "ylim": (1e-15, 10), "floor": 1e-15}
    return Lines(data=part, y="error", x=x, title=title, xlabel=label, logx=True, **shown)


PANELS = [
    [curves("notes", way, "stepsizes of theory") for way in ("bits_up", "bits_down")],
    [curves("tuned", way, "best stepsizes") for way in ("bits_up", "bits_down")],
    [
        curves("gan", "bits_up", "a generator's game"),
        LogLog(data=stops, x="stepsize", by="compressor", xlabel=r"$\gamma L$",
               ticks=(0.02, 0.05, 0.1, 0.2), also=[slope(1, r"$\propto \gamma$")], legend="panel",
               ylabel=r"plateau  $|z - z^\star|^2 / |z^\star|^2$", title="ExtraGradient stops"),
    ],
]  # fmt: skip
STUDY = Study(
    name="masha",
    paper=f"Beznosikov, Richtárik, Diskin, Ryabinin, Gasnikov (2021), {PAPER}",
    question="What do games cost in bits up and down, where naive compression stops?",
    scales=SCALES,
    world=world,
    parts={
        "notes": Part("algorithm", noted),
        "tuned": Part("algorithm", over_grid("bilinear", 1)),
        "plateau": Part("algorithm", plateaus),
        "gan": Part("algorithm", over_grid("gan", 2)),
    },
    claims=CLAIMS,
    figures={"masha": Figure(PANELS, height=2.3)},
    tables={
        "plateaus": (
            "|z - z*| / |z*| of compressed extragradient",
            lambda r: plateau(r).to_dataset(name="plateau"),
        ),
        "bits": ("bits to 1e-8 at best stepsizes", spent),
    },
    minutes={"quick": 0.5, "default": 4, "full": 30},
)  # fmt: skip
