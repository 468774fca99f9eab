"""Deep gradient compression (arXiv 1712.01887): what each part is for, and what masking costs.

*ablation*: a network with one hidden layer on the digits, 8 clients, minibatches of 16. Of each
layer 0.1 % of the coordinates are sent, biases whole; the stepsize is momentum SGD's best one
without compression; DGC is deprived of one part at a time. Warm-up is a schedule of the density:
it falls to 0.1 % by a factor of 1/4 in each of four epochs. Without *momentum correction* clients
accumulate gradients, and the server has the momentum (`GradientDropping`). All in float32.

*bias*: fᵢ(x) = ½ |aᵢ x − bᵢ|², aᵢ² = i²/n, bᵢ ~ N(0, ζ²/i² I), n = 5, d = 60, 5 %, full gradients.
Masking forgets the momentum of coordinates that are sent, so that a client whose coordinates wait
longer weighs more; where clients differ the limit is not the solution, however small the stepsize
is (derived, not in the paper). Without masking |x − x*|² falls as η². All in float64.
"""

from functools import cache, partial
from types import SimpleNamespace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

import jaxdopt as jd
from experiments.claims import above, below, claims, near, within_factor
from experiments.measures import exponent, tail
from experiments.panels import Figure, Lines, LogLog
from experiments.study import Part, Program, Results, Study, comparisons
from jaxdopt.algorithms.compressed.messages import message
from jaxdopt.algorithms.federated.clients import Central, common, participants

PAPER = "arXiv 1712.01887"
CLIENTS, BATCH, MOMENTUM, DENSITY, SMALL = 8, 16, 0.9, 0.001, 64
EPOCH = 12  # steps
PLAIN, WHOLE = "momentum SGD", "DGC"
ZETA, SHARE = 1.0, 0.05
STEPSIZES = (4e-3, 2e-3, 1e-3, 5e-4, 2.5e-4, 1.25e-4)
MASKED = {"masked": True, "unmasked": False}
SCALES = {
    "quick": {"steps": 240, "seeds": 1, "rates": 3, "stepsizes": STEPSIZES[1:4]},
    "default": {"steps": 960, "seeds": 8, "rates": 5, "stepsizes": STEPSIZES},
    "full": {"steps": 2400, "seeds": 16, "rates": 7, "stepsizes": STEPSIZES},
}


@jd.pytree
class Dropped(Central):
    """The state of `GradientDropping`."""

    server: jax.Array
    m: jax.Array = jd.field(axis=None)  # [d] momentum
    v: jax.Array  # [n, d] what has not been sent
    n: int = jd.static()


@jd.pytree
class GradientDropping:
    """vᵢ ← vᵢ + gᵢ, sᵢ = C(vᵢ), vᵢ ← vᵢ − sᵢ;  m ← β m + mean sᵢ,  x ← x − η m, at the server."""

    stepsize: jd.Nonnegative
    compressor: Any
    momentum: jd.Fraction = MOMENTUM
    needs: ClassVar[set[str]] = {"server"}
    downlink: ClassVar[None] = None

    def init(
        self,
        x0: jax.Array,
        problem: Any,
        network: Any,  # noqa: ARG002
        key: jax.Array,  # noqa: ARG002
    ) -> Dropped:
        """Start at the mean of x0's rows."""
        x = common(x0)
        return Dropped(x, jnp.zeros_like(x), jnp.zeros_like(x0), problem.n)

    def step(self, state: Dropped, problem: Any, network: Any, key: jax.Array) -> Dropped:
        """Take one round."""
        clients = participants(problem, network)
        v = clients.own(state.v) + clients.grad(clients.share(state.server), key)
        sent = message(self.compressor, key, v)
        m = self.momentum * state.m + clients.mean(sent)
        return Dropped(
            state.server - self.stepsize * m, m, clients.keep(state.v, v - sent), state.n
        )


def warming(density: float) -> Any:
    """Return densities that fall to ``density`` by the same factor in each of 4 epochs."""
    values = [max(0.25**e, density) for e in range(1, 5)] + [density]
    return jd.schedules.PiecewiseConstant(values, [EPOCH * e for e in range(1, 5)])


def methods(problem: Any, stepsize: Any) -> dict[str, Any]:
    """Return DGC, and what is left without one part of it, by name."""

    def kept(density: Any) -> Any:
        return jd.compressors.per_leaf(jd.compressors.TopK(density=density), problem, dense=SMALL)

    soon, warm = kept(DENSITY), kept(warming(DENSITY))
    return {
        PLAIN: jd.DGC(stepsize, jd.compressors.Identity(), MOMENTUM, masking=False),
        WHOLE: jd.DGC(stepsize, warm, MOMENTUM),
        "without masking": jd.DGC(stepsize, warm, MOMENTUM, masking=False),
        "without warm-up": jd.DGC(stepsize, soon, MOMENTUM),
        "without correction": GradientDropping(stepsize, warm),
        "neither": GradientDropping(stepsize, soon),
    }


@cache
def images(seed: int) -> tuple[Any, Any]:
    """Return the clients' problem and the accuracy on held-out images."""
    train, out = jd.data.digits().split(0.2, seed)
    given = train.features.astype(np.float32), train.labels
    problem = jd.problems.mlp(*given, hidden=(64,), agents=CLIENTS, partition="iid", seed=seed)
    held_out = out.features.astype(np.float32), out.labels
    return problem, jd.metrics.accuracy(*held_out, predict=jd.problems.neural.predict)


def ablation(world: Any, _: Any) -> dict[str, Program]:
    """Return every method at all stepsizes: algorithm, choice, seed."""
    problem, accuracy = images(world.seed)
    rates = np.logspace(-2, 0, world.rates)
    shared = {"problem": jd.problems.Minibatch(problem, BATCH), "every": EPOCH}
    shared |= {"networks": jd.networks.Server(CLIENTS), "steps": world.steps}
    shared |= {"metrics": {"accuracy": accuracy}, "defaults": ("loss",)}
    shared |= {"seeds": range(world.seed, world.seed + world.seeds)}
    return comparisons(methods(problem, 0.1), over={"stepsize": rates}, **shared)


def least_squares(zeta: float, n: int = 5, d: int = 60, seed: int = 0) -> jd.problems.Quadratic:
    """Return fᵢ(x) = ½ |aᵢ x − bᵢ|² with aᵢ² = i²/n and bᵢ ~ N(0, ζ²/i² I), and its solution."""
    i = np.arange(1, n + 1)[:, None]
    a, b = i / np.sqrt(n), np.random.default_rng(seed).standard_normal((n, d)) * zeta / i
    solution = (a * b).sum(axis=0) / (a**2).sum()
    hessians = a[:, :, None] ** 2 * np.eye(d)
    tilts = a * (a * solution - b)
    extremes = a.max() ** 2, np.mean(a**2)
    arrays = map(jnp.asarray, (hessians, tilts, solution, solution, *extremes))
    return jd.problems.Quadratic(*arrays)


def bias(world: Any, _: Any) -> dict[float, Program]:
    """Return full gradients on least squares from 0: stepsize, masking."""
    problem = least_squares(ZETA)
    x0 = jnp.zeros((problem.n, problem.d))
    found = {}
    for stepsize in world.stepsizes:
        compressor = jd.compressors.TopK(density=SHARE)
        members = [jd.DGC(stepsize, compressor, MOMENTUM, masking=m) for m in MASKED.values()]
        steps = round(6 / stepsize)
        for name, method in zip(MASKED, members, strict=True):
            found[stepsize, name] = Program(
                {"algorithm": method, "problem": problem, "network": jd.networks.Server(problem.n)}
                | {"x0": x0, "key": jax.random.key(world.seed), "steps": steps}
                | {"every": max(steps // 300, 1), "defaults": ("distance_squared",)},
                reduce=lambda dataset: tail(dataset.distance_squared, 0.3).to_dataset(name="error"),
            )
    return found


def ends(results: Results) -> xr.Dataset:
    """Return the last loss and accuracy, means over seeds and five records, and bits up."""
    found = results["ablation"]
    last = found[["loss", "accuracy"]].isel(step=slice(-5, None)).mean(["seed", "step"])
    return last.assign(bits_up=found.bits_up.isel(step=-1, seed=0, drop=True))


def tuned(results: Results, dataset: xr.Dataset) -> xr.Dataset:
    """Return all methods at the stepsize that is best for momentum SGD."""
    loss = ends(results).loss.sel(algorithm=PLAIN)
    return dataset.sel(stepsize=float(loss.idxmin("stepsize")))


def lost(results: Results) -> float:
    """Return the points of accuracy that DGC loses to momentum SGD."""
    accuracy = tuned(results, ends(results)).accuracy
    return float(100 * (accuracy.sel(algorithm=PLAIN) - accuracy.sel(algorithm=WHOLE)))


def deprived(results: Results) -> xr.DataArray:
    """Return the points of accuracy that are lost without one part of DGC."""
    accuracy = tuned(results, ends(results)).accuracy
    return 100 * (accuracy.sel(algorithm=WHOLE) - accuracy.drop_sel(algorithm=[PLAIN, WHOLE]))


def errors(results: Results, masking: str) -> xr.DataArray:
    """Return |x − x*|² / |x*|², by stepsizes."""
    problem = least_squares(ZETA)
    return results["bias"].error.sel(masking=masking) / float(np.sum(problem.solution**2))


def over_notes(results: Results, masking: str) -> xr.DataArray:
    """Return errors over those of an independent loop at two stepsizes."""
    found = errors(results, masking).sel(stepsize=[2e-3, 5e-4])
    return found / np.array(LOOP[masking])


def stays(results: Results) -> float:
    """Return the masked error at the smallest stepsize over that at four times as much."""
    found = errors(results, "masked")
    least = float(found.stepsize.min())
    return float(found.sel(stepsize=least) / found.sel(stepsize=4 * least))


LOOP = {"masked": (3.15e-2, 2.54e-2), "unmasked": (2.69e-2, 1.60e-3)}
CLAIMS = claims(
    ("points of accuracy that DGC loses", f"{PAPER}, abstract", "0", lost, below(1.0),
     ("default", "full")),
    ("points of accuracy lost without a part of it", f"{PAPER}, section 3", "> 0", deprived,
     above(0.0), ("default", "full")),
    ("masking's bias stays: error at a quarter of the stepsize", "derived", "1", stays,
     near(1.0, 0.06), ("default", "full")),
    ("error without masking ~ stepsize^p", "derived", "2",
     lambda results: exponent(None, errors(results, "unmasked"), "stepsize"),
     near(2.0, 0.1)),
    *(
        (f"error, {masking}, over a loop's", "an independent loop", "1",
         partial(over_notes, masking=masking), within_factor(1.0, 1.05))
        for masking in MASKED
    ),
)  # fmt: skip


def curves(results: Results) -> xr.Dataset:
    """Return the ablation's curves at momentum SGD's stepsize."""
    return tuned(results, results["ablation"])


def relative(results: Results) -> xr.DataArray:
    """Return the errors of both forms."""
    found = [errors(results, masking) for masking in MASKED]
    return xr.concat(found, "masking").rename("error")


PANELS = [
    Lines(data=curves, y="loss", x="step", xlabel="steps", ylabel=r"$F(x)$", title="99.9 % sparse"),
    Lines(
        data=curves,
        y="accuracy",
        x="bits_up",
        logx=True,
        logy=False,
        xlim=(5e4, None),
        ylim=(0.5, 1.0),
        xlabel="bits up, a client",
        title="against bits",
    ),
    LogLog(
        data=relative,
        by="masking",
        ticks=(2e-4, 1e-3, 4e-3),
        x="stepsize",
        legend="panel",
        xlabel=r"stepsize $\eta$",
        ylabel=r"$|x - x^\star|^2 / |x^\star|^2$",
        title="unlike clients",
    ),
]
STUDY = Study(
    name="dgc",
    paper=f"Lin, Han, Mao, Wang, Dally, deep gradient compression (2018), {PAPER}",
    question="What are momentum correction, masking and warm-up for, and what does masking cost?",
    scales=SCALES,
    world=lambda sizes, seed: SimpleNamespace(seed=seed, **sizes),
    parts={
        "ablation": Part("algorithm", ablation),
        "bias": Part(("stepsize", "masking"), bias),
    },
    claims=CLAIMS,
    figures={"dgc": Figure([PANELS], height=2.4)},
    tables={
        "ablation": ("at momentum SGD's stepsize", lambda results: tuned(results, ends(results))),
        "bias": ("least squares", lambda results: relative(results).to_dataset()),
    },
    minutes={"quick": 0.5, "default": 4, "full": 30},
    data=lambda _: "1,437 of scikit-learn's handwritten digits, 64 pixels, 8 clients; synthetic",
)
