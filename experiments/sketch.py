"""Linear sketches: what they cost a server and its clients, and what their messages give away.

Five questions about y = R x and Rᵀ y, with R [s, d] of a shared seed:

* *moments*: is E|Rᵀ R x − x|² = c |x|² with the constants of the four sketches?
* *runs*: Sketched SGD with one local step on quadratics of different clients. Which multiples of
  the stepsize 1 / ((1 + c) L) converge, and how many bits does it take, for s from d/8 to d? FedAvg
  has 1 / L. *Random coordinates* are a sketch, too: R is √(d/s) times s rows of the identity.
* *local*: the same with K local steps and multiples of 1 / ((1 + c) L K), L the clients' largest.
  All clients have the same solution, so that no drift hides what the sketch does.
* *leakage*: who knows R and the model looks for a client's sample in its message. The gradient of
  a linear model is a multiple of the sample: least squares of least norm. With R of full rank and
  s < d that is the sample's projection on the rows of R, whose cosine to it is about √(s/d).
* *inversion*: of a network with a hidden layer the sample has fewer coordinates p than the gradient
  has, d: Adam on |R ∇f(x, y) − received|² over sample and label, the best of several starts.

Noise of standard deviation σ times the gradient's length over √d is added to each coordinate of the
gradient, as Sketched SGD does; that of a message is added to R g, and so relative to its length and
√s. Sketches are drawn anew in every draw. Everything in float64.
"""

from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr

import jaxdopt as jd
from experiments.claims import above, below, claims, near, within_factor
from experiments.panels import Against, Figure, Heat, Lines, LogLog, present
from experiments.study import Axis, Part, Program, Results, Study, comparison
from jaxdopt.compressors import SRHT, CountSketch, GaussianSketch, RademacherSketch
from jaxdopt.compressors.sketches import Sketch

PAPER, WHOLE = "arXiv 2210.08371", "FedAvg"
CLIENTS, D, TARGET = 8, 64, 1e-8  # of the runs; the squared distance, relative, to be reached
MOMENT, SAMPLE = 32, (8, 8)  # d of "moments" and "leakage"; inputs and hidden units of the network
MULTIPLES = (0.5, 1.0, 2.0, 4.0, 8.0)  # of the law's stepsize
NOISES = (0.0, 0.1, 0.3, 1.0, 3.0)  # relative to the gradient
SKETCHES: dict[str, Any] = {"Gaussian": GaussianSketch, "Rademacher": RademacherSketch}
SKETCHES |= {"count sketch": CountSketch, "SRHT": SRHT}
SCALES: dict[str, dict[str, Any]] = {
    "quick": {
        "sketches": ("Gaussian", "SRHT"), "draws": 1000, "moments": (8, 32), "sizes": (16,),
        "steps": 1500, "seeds": 2, "local": (4,), "attacks": 200, "leaks": (16, 32), "starts": 4,
        "inversions": 8, "inverted": (4, 32),
    },
    "default": {
        "sketches": tuple(SKETCHES), "draws": 10_000, "moments": (4, 8, 16, 32), "sizes": (16, 64),
        "steps": 3000, "seeds": 4, "local": (4,), "attacks": 1000, "leaks": (8, 16, 24, 32, 48),
        "starts": 4, "inversions": 16, "inverted": (4, 8, 16, 32),
    },
    "full": {
        "sketches": tuple(SKETCHES), "draws": 100_000, "moments": (4, 8, 16, 32),
        "sizes": (8, 16, 32, 64), "steps": 6000, "seeds": 16, "local": (1, 4, 16),
        "attacks": 10_000, "leaks": (8, 16, 24, 32, 40, 48), "starts": 16, "inversions": 200,
        "inverted": (4, 8, 12, 16, 32, 80),
    },
}  # fmt: skip


@jd.pytree
class Coordinates(Sketch):
    """R = √(d/s) times s rows of the identity: the same random coordinates of all clients."""

    size: int = jd.static()

    def encode(self, key: jax.Array, x: jax.Array) -> jax.Array:
        """Return R x of every row, [n, d] -> [n, s]."""
        d = x.shape[1]
        return x[:, jax.random.permutation(key, d)[: self.size]] * np.sqrt(d / self.size)

    def decode(self, key: jax.Array, y: jax.Array, d: int) -> jax.Array:
        """Return Rᵀ y of every row, [n, s] -> [n, d]."""
        return y @ self.encode(key, jnp.eye(d, dtype=y.dtype)).T

    def omega(self, d: int) -> float:
        """Return d/s − 1."""
        return d / self.size - 1


ALL = SKETCHES | {"random coordinates": Coordinates}


def world(sizes: Any, seed: int) -> Any:
    """Return the sizes, the seed, and quadratics of one solution each, and of one for all."""
    found = SimpleNamespace(seed=seed, **sizes)
    found.apart = jd.problems.quadratic(CLIENTS, D, condition_number=10.0, seed=seed)
    found.alike = jd.problems.quadratic(
        CLIENTS, D, condition_number=10.0, heterogeneity=0.0, seed=seed
    )
    return found


def moments(name: str, sizes: tuple[int, ...], draws: int, seed: int) -> xr.Dataset:
    """Return the mean of |Rᵀ R x − x|² / |x|² over draws, and what it should be, by s."""
    x = jax.random.normal(jax.random.key(seed), (1, MOMENT))
    keys = jax.random.split(jax.random.key(seed + 1), draws)

    def measured(sketch: Any) -> float:
        def one(key: jax.Array) -> jax.Array:
            return jnp.sum((sketch(key, x) - x) ** 2) / jnp.sum(x**2)

        return float(jnp.mean(jax.jit(jax.vmap(one))(keys)))

    made = [SKETCHES[name](size) for size in sizes]
    columns = {"measured": list(map(measured, made)), "theory": [m.omega(MOMENT) for m in made]}
    return xr.Dataset({name: ("s", values) for name, values in columns.items()}, {"s": list(sizes)})


def run(world: Any, problem: Any, method: Any, stepsize: float, seeds: int) -> Program:
    """Return a method's runs with multiples of a stepsize: squared distances, relative."""

    def relative(dataset: xr.Dataset) -> xr.Dataset:
        away = dataset.distance_squared
        return dataset.assign(error=away / away.isel(step=0))

    return comparison(
        method,
        ["error", "bits"],
        axes={"stepsize": Axis("multiple", MULTIPLES)},
        over={"stepsize": stepsize * np.array(MULTIPLES)},
        problem=problem,
        networks=jd.networks.Server(CLIENTS),
        steps=world.steps,
        every=world.steps // 300,
        seeds=[world.seed + i for i in range(seeds)],
        reduce=relative,
    )


def by_law(world: Any, sketch: Any, problem: Any, smoothness: Any, steps: int = 1) -> Program:
    """Return Sketched SGD's runs with multiples of 1 / ((1 + c) L K)."""
    stepsize = 1 / ((1 + sketch.omega(D)) * float(smoothness) * steps)
    method = jd.SketchedSGD(1.0, sketch, local_steps=steps)
    return run(world, problem, method, stepsize, world.seeds)


def runs(world: Any, _: Results) -> dict[tuple[str, int], Program]:
    """Return the runs of FedAvg, and of every sketch of every size."""
    names, problem = (*world.sketches, "random coordinates"), world.apart
    return {(WHOLE, D): run(world, problem, jd.FedAvg(1.0), 1.0, world.seeds)} | {
        (name, size): by_law(world, ALL[name](size), problem, 1.0)
        for name in names
        for size in world.sizes
    }


def local(world: Any, _: Results) -> dict[tuple[str, int], Program]:
    """Return runs of several local steps, of every sketch with s = d/4."""
    problem = world.alike
    return {
        (name, steps): by_law(world, ALL[name](D // 4), problem, problem.smoothness, steps)
        for name in world.sketches
        for steps in world.local
    }


def cosine(x: jax.Array, y: jax.Array) -> jax.Array:
    """Return the cosine of the angle between two vectors."""
    return x @ y / jnp.maximum(jnp.linalg.norm(x) * jnp.linalg.norm(y), 1e-30)


def leakage(name: str, sizes: Any, draws: int, seed: int) -> xr.Dataset:
    """Return mean cosines of samples and least-squares solutions, by s and noise.

    There are ``noise`` of the gradient, and ``message``, 10 % noise of the message alone.
    """

    def attack(sketch: Any, noise: Any, message: Any, key: jax.Array) -> jax.Array:
        keys = jax.random.split(key, 4)
        sample = jax.random.normal(keys[0], (MOMENT,))
        unit = sample / jnp.linalg.norm(sample)  # the gradient of a linear model, but for a factor
        away = noise / np.sqrt(MOMENT) * jax.random.normal(keys[1], (MOMENT,))
        r = sketch.encode(keys[2], jnp.eye(MOMENT)).T
        y = r @ (unit + away)
        scale = message * jnp.linalg.norm(y) / np.sqrt(len(y))
        y = y + scale * jax.random.normal(keys[3], y.shape)
        found = jnp.linalg.solve(r.T @ r + 1e-10 * jnp.eye(MOMENT), r.T @ y)
        return jnp.abs(cosine(found, sample))

    keys, values = jax.random.split(jax.random.key(seed), draws), []
    noises = jnp.array([*NOISES, 0.0]), jnp.array([0.0 for _ in NOISES] + [0.1])
    for size in sizes:
        of_key = jax.vmap(jax.tree_util.Partial(attack, SKETCHES[name](size)), (None, None, 0))
        values.append(np.mean(jax.jit(jax.vmap(of_key, (0, 0, None)))(*noises, keys), axis=1))
    found, coords = np.array(values), {"s": list(sizes), "noise": list(NOISES)}
    return xr.Dataset({"cosine": (("s", "noise"), found[:, :-1]), "message": ("s", found[:, -1])},
                      coords)  # fmt: skip


def inversion(sizes: Any, draws: int, starts: int, seed: int) -> xr.Dataset:
    """Return mean cosines of a network's samples and those that Adam finds, by s and noise."""
    inputs, hidden = SAMPLE

    def loss(model: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
        first, bias, last = jnp.split(model, [inputs * hidden, (inputs + 1) * hidden])
        made = last @ jnp.tanh(first.reshape(hidden, inputs) @ x + bias)
        return (made - y) ** 2 / 2

    d = (inputs + 2) * hidden
    optimizer = optax.adam(optax.cosine_decay_schedule(0.1, 1500))

    def attack(sketch: Any, noise: Any, key: jax.Array) -> jax.Array:
        keys = jax.random.split(key, 5)
        model = jax.random.normal(keys[0], (d,)) / np.sqrt(inputs)
        sample = jax.random.normal(keys[1], (inputs + 1,))  # and its label, the last
        gradient = jax.grad(loss)
        g = gradient(model, sample[:-1], sample[-1])
        away = jnp.linalg.norm(g) / np.sqrt(d) * jax.random.normal(keys[2], (d,))
        r = sketch.encode(keys[3], jnp.eye(d)).T
        received = r @ (g + noise * away)

        def misfit(guess: jax.Array) -> jax.Array:
            wrong = r @ gradient(model, guess[:-1], guess[-1]) - received
            return jnp.sum(wrong**2) / jnp.sum(received**2)

        def step(carry: Any, _: Any) -> Any:
            guess, memory = carry
            update, memory = optimizer.update(jax.grad(misfit)(guess), memory)
            return (guess + update, memory), None

        def descend(guess: jax.Array) -> Any:
            end, _ = jax.lax.scan(step, (guess, optimizer.init(guess)), length=1500)
            return end[0], misfit(end[0])

        ends, misfits = jax.vmap(descend)(jax.random.normal(keys[4], (starts, inputs + 1)))
        return cosine(ends[jnp.argmin(misfits)][:-1], sample[:-1])

    keys, values = jax.random.split(jax.random.key(seed), draws), []
    for size in sizes:
        of_key = jax.vmap(jax.tree_util.Partial(attack, GaussianSketch(size)), (None, 0))
        values.append(
            np.mean(jax.jit(jax.vmap(of_key, (0, None)))(jnp.array(NOISES), keys), axis=1)
        )
    coords = {"s": list(sizes), "noise": list(NOISES)}
    return xr.Dataset({"cosine": (("s", "noise"), np.array(values))}, coords)


def each(world: Any, function: Any, sizes: tuple[int, ...], draws: int) -> dict[str, Program]:
    """Return a function's program for every sketch."""
    given = {"sizes": sizes, "draws": draws, "seed": world.seed}
    return {name: Program(given | {"name": name}, function=function) for name in world.sketches}


def leaks(world: Any, _: Results) -> dict[str, Program]:
    """Return least squares' attack on Gaussian sketches of all sizes, and on others of two."""
    gaussian = each(world, leakage, world.leaks, world.attacks)["Gaussian"]
    return each(world, leakage, (MOMENT // 2, MOMENT), world.attacks) | {"Gaussian": gaussian}


def quarter(results: Results) -> xr.Dataset:
    """Return FedAvg's runs, and the sketches' with s = d/4."""
    found = results["runs"]
    names = [name for name in found.sketch.values.tolist() if name != WHOLE]
    rows = found.sel(sketch=[WHOLE], size=D), found.sel(sketch=names, size=D // 4)
    return xr.concat([row.drop_vars("size") for row in rows], "sketch")


def sent(dataset: xr.Dataset) -> xr.DataArray:
    """Return the bits to the target, means over seeds; infinite where one did not reach it."""
    return jd.reach(dataset, "error", TARGET, "bits").fillna(np.inf).mean("seed")


def relative(results: Results) -> xr.DataArray:
    """Return the bits of sketches with s = d/4 over those of FedAvg with 1 / L."""
    found = sent(quarter(results))
    ratio = found / found.sel(sketch=WHOLE, multiple=1, drop=True)
    return ratio.drop_sel(sketch=WHOLE)


def predicted(results: Results) -> xr.DataArray:
    """Return the same bits over (1 + c) s/d, with the law's stepsize."""
    found = relative(results).sel(multiple=1)
    return found / [(1 + ALL[name](D // 4).omega(D)) / 4 for name in found.sketch.values]


def last(results: Results, part: str, multiple: float) -> xr.DataArray:
    """Return the sketches' errors at the end, by seed."""
    found = quarter(results) if part == "runs" else results[part].sel(steps=4)
    found = found.error.sel(multiple=multiple).isel(step=-1).fillna(np.inf)
    return found.drop_sel(sketch=WHOLE, errors="ignore")


def leaked(s: int, names: Any = ("Gaussian", "Rademacher", "SRHT"), noise: Any = 0.0) -> Any:
    """Return the measure of least squares' mean cosines."""

    def measure(results: Results) -> xr.DataArray:
        found = results["leakage"].cosine
        return found.sel(sketch=present(found, "sketch", list(names)), s=s, noise=noise)

    return measure


def inverted(s: int, noise: float) -> Any:
    """Return the measure of Adam's mean cosine."""
    return lambda results: results["inversion"].cosine.sel(s=s, noise=noise)


LATER = ("default", "full")
CLAIMS = claims(
    ("E|RᵀRx − x|² / |x|² over c; at d = 32, s = 8 c is 4.125, 3.875, 3.875, 3", "derived", "1",
     lambda r: (r["moments"].measured / r["moments"].theory.where(r["moments"].theory > 0))
     .sel(s=8), near(1, 0.1)),
    ("all sketches reach the solution with 1 / ((1 + c) L): |x − x*|², relative",
     "derived", "0", lambda r: last(r, "runs", 1.0), below(1e-16)),
    ("and with 1 / ((1 + c) L K) and 4 local steps, where clients have one solution", "derived",
     "0", lambda r: last(r, "local", 1.0), below(1e-16)),
    ("8 times these stepsizes diverge", "derived: order of the stepsize", "> 1",
     lambda r: last(r, "runs", 8.0), above(1)),
    ("bits to 1e-8 with the law's stepsize, s = d/4, over FedAvg's with 1 / L, over (1 + c) s/d",
     "derived", "1", predicted, within_factor(1, 1.25)),
    ("bits with the best multiple of it, over FedAvg's best", f"{PAPER}, abstract", "< 1",
     lambda r: relative(r).min("multiple"), below(1)),
    ("least squares finds a linear model's sample from s = d numbers: cosine",
     f"{PAPER}: leakage", "1.00", leaked(MOMENT), near(1, 1e-3)),
    ("and from s = d/2: √(1/2) on average", "derived; 0.69 in one draw", "0.71",
     leaked(MOMENT // 2), near(np.sqrt(0.5), 0.03)),
    ("10 % noise on the message of a Gaussian sketch, s = d", "one draw", "0.83",
     lambda r: r["leakage"].message.sel(sketch="Gaussian", s=MOMENT), near(0.83, 0.27)),
    ("noise σ of the gradient, s = d: cosine times √(1 + σ²)", "derived", "1",
     lambda r: leaked(MOMENT, noise=list(NOISES))(r) * np.sqrt(1 + r["leakage"].noise ** 2),
     near(1, 0.1)),
    ("a count sketch of s = d has empty buckets: cosine √(1 − (1 − 1/s)^d)", "derived", "0.80",
     leaked(MOMENT, ["count sketch"]), near(0.8, 0.05), LATER),
    ("Adam finds a network's sample of 8 inputs from 32 of 80 numbers: cosine",
     f"{PAPER}: leakage", "1", inverted(32, 0.0), above(0.9)),
    ("but not from 4", "derived: fewer than the sample has", "< 1", inverted(4, 0.0), below(0.7)),
    ("noise as large as the gradient stops it: cosine", f"{PAPER}: noise", "< 1",
     inverted(32, 1.0), below(0.6)),
)  # fmt: skip


def cosines(data: Any, title: str) -> Heat:
    """Return a panel of cosines over s and noise."""
    return Heat(data=data, x="s", y="noise", form=".2f", log=False, limits=(0.0, 1.0), title=title,
                xlabel="numbers sent, s", ylabel="noise over gradient")  # fmt: skip


def cost(data: Any, title: str) -> LogLog:
    """Return a panel of the bits to the target over multiples of the law's stepsize."""
    xlabel, ylabel = "stepsize times $(1 + c) L K$", "bits to $10^{-8}$, per client"
    return LogLog(data=data, x="multiple", by="sketch", title=title, xlabel=xlabel, ylabel=ylabel)


PANELS = [
    [
        Lines(data=lambda r: quarter(r).sel(multiple=1.0), y="error", x="bits", floor=1e-20,
              xlim=(0, 6e5), ylim=(1e-20, 3), title="s = d/4, the law's stepsize",
              ylabel="$|x - x^\\star|^2$, relative"),
        cost(lambda r: sent(quarter(r)), "s = d/4, K = 1"),
        cost(lambda r: sent(r["local"]).sel(steps=4), "s = d/4, K = 4"),
    ],
    [
        Against(data="moments", by="sketch", xlabel="numbers sent, s", title="d = 32",
                ylim=(0.5, 12), ylabel="$E|R^T R x - x|^2 / |x|^2$"),
        cosines(lambda r: r["leakage"].cosine.sel(sketch="Gaussian"), "cosine: linear, d = 32"),
        cosines(lambda r: r["inversion"].cosine, "cosine: network, d = 80"),
    ],
]  # fmt: skip
STUDY = Study(
    name="sketch",
    paper=f"Song, Wang, Yu, Zhang (2022), {PAPER}",
    question="What do linear sketches save, by which stepsize, and what do their messages tell?",
    scales=SCALES,
    world=world,
    parts={
        "moments": Part("sketch", lambda w, _: each(w, moments, w.moments, w.draws)),
        "runs": Part(("sketch", "size"), runs),
        "local": Part(("sketch", "steps"), local),
        "leakage": Part("sketch", leaks),
        "inversion": Part(None, lambda w, _: {"": Program(
            {"sizes": w.inverted, "draws": w.inversions, "starts": w.starts, "seed": w.seed},
            function=inversion)}),
    },
    claims=CLAIMS,
    figures={"sketch": Figure(PANELS, height=2.4)},
    tables={
        "moments": ("E|RᵀRx − x|² / |x|²", lambda r: r["moments"]),
        "bits": ("bits to 1e-8 over FedAvg's, s = d/4", lambda r: relative(r).to_dataset("sketch")),
    },
    minutes={"quick": 1.5, "default": 6, "full": 40},
)  # fmt: skip
