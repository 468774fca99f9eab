"""DiLoCo, Streaming DiLoCo and synchronous AdamW: a small transformer on a text, over 8 workers.

A decoder-only transformer learns to predict the next character of the King James Bible (of a
generated text at the scale "quick"). Every worker has an eighth of the windows, at random or book
by book. As in the paper all methods go on from one model, which synchronous steps have trained so
far. They take the same number of local steps, that is of tokens, with Adam's direction and the same
decreasing stepsizes, each at the best of a few largest ones; the loss is that of text held out of
every book.

* *text*: synchronous AdamW, whose gradients are averaged in every step, DiLoCo with K local steps
  from 1 to 500, and Streaming DiLoCo in fragments, its messages of 32 and of 4 bits a number:
  against tokens, against bits, and against simulated seconds at three bandwidths. A gradient takes
  a second; a bandwidth is given in models a second. All three are one run, as the clock changes
  nothing else.

Bits are the mean of up and down over a worker's link; with 4 bits a number only the uplink is
compressed, as the server sends whole numbers. The papers train models of 35 M to 4 B weights for
some 100,000 steps, 24,000 of them before DiLoCo begins; here there are 2,000, half of them before.
"""

import functools
from collections import namedtuple
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr

import jaxdopt as jd
from experiments.claims import above, below, claims, near
from experiments.panels import Figure, Lines, LogLog, present
from experiments.study import Axis, Part, Program, Results, Study

DILOCO, STREAMING = "arXiv 2311.08105", "arXiv 2501.18512"
WORKERS, DELAY, FRAGMENTS = 8, 5, 4
SYNCHRONOUS, STREAM, FOUR = "AdamW, synchronous", "Streaming DiLoCo", "Streaming DiLoCo, 4 bits"
SPLITS = {"iid": "windows at random", "books": "book by book"}
KEPT = ("held out", "gradients", "tokens", "bits", "peak_bits", "seconds", "utilization")
BANDWIDTHS = (10.0, 1.0, 0.1)  # models a second, a gradient being a second
FIRST = 5e-3  # the stepsize of the synchronous steps before
# Width, layers and window of the transformer; samples of a gradient; steps before and after; K of
# DiLoCo; the period of Streaming; records; largest stepsizes; held-out windows; splits.
Sizes: Any = namedtuple(
    "Sizes", "width layers length batch before steps local period records stepsizes held_out splits"
)
COUNTS, BOTH = (1, 10, 50, 500), tuple(SPLITS)
SCALES = {
    "quick": Sizes(16, 1, 16, 2, 200, 200, (20,), 40, 4, (1e-2,), 256, ("iid",)),
    "default": Sizes(32, 2, 32, 4, 1000, 1000, COUNTS, 100, 10, (2e-3, 8e-3), 1024, BOTH),
    "full": Sizes(128, 4, 128, 16, 24_000, 64_000, COUNTS, 100, 50, (1e-3, 3e-3, 1e-2), 4096, BOTH),
}


def world(sizes: Any, seed: int) -> Any:
    """Return the sizes, the problem of each split, and the loss of what is held out."""
    found = SimpleNamespace(seed=seed, **sizes._asdict())
    quick = found.width < 32
    text = jd.data.markov_text(books=WORKERS, characters=8000) if quick else jd.data.bible()
    train, test = text.split(0.05)
    model = jd.problems.neural.Transformer(
        len(text.vocabulary), length=found.length, width=found.width, heads=2, layers=found.layers
    )
    order = np.random.default_rng(seed)
    pooled = order.permutation(np.concatenate(train.windows(found.length)))
    pooled = pooled[: len(pooled) // WORKERS * WORKERS]
    splits = {
        "iid": pooled.reshape(WORKERS, -1, found.length + 1),
        "books": train.joined(WORKERS).windows(found.length),
    }
    problems = {
        name: jd.problems.next_token(model, splits[name], seed=seed) for name in found.splits
    }
    out = order.permutation(np.concatenate(test.windows(found.length)))[: found.held_out]
    found.loss = jd.metrics.held_out(problems["iid"].loss, out)
    found.problems = {
        name: jd.problems.Minibatch(problem, found.batch) for name, problem in problems.items()
    }
    found.d = problems["iid"].d
    found.name = "generated text" if quick else "King James Bible"
    return found


def started(world: Any, _: Any) -> dict[str, Program]:
    """Return the one program that trains the model from which all methods go on."""
    problem = world.problems["iid"]
    arguments = {"problem": problem, "x0": problem.start(), "steps": world.before}
    return {"": Program(arguments | {"key": jax.random.key(world.seed)}, function=synchronous)}


def synchronous(problem: Any, x0: jax.Array, key: jax.Array, steps: int) -> dict[str, jax.Array]:
    """Return the model [d] after steps of AdamW on the mean gradient, with a warm-up."""
    rising = optax.warmup_constant_schedule(0.0, 1.0, steps // 10)
    adam = optax.chain(optax.scale_by_adam(b2=0.95), optax.scale_by_schedule(rising))
    method, network = jd.FedAvg(1.0, FIRST, server=adam), jd.networks.Server(WORKERS)
    end = jd.run(method, problem, network, x0, key, steps=steps, every=steps, defaults=())
    return {"model": end.state.server}


def methods(world: Any) -> dict[str, tuple[Any, int, float]]:
    """Return how a method is built of its largest stepsize, its local steps a step, its speed.

    Stepsizes rise for a twentieth of the run and fall along a cosine to a tenth. The speed is what
    an outer optimizer multiplies small steps by, η_o / (1 − μ): local stepsizes are divided by it.
    """
    steps = world.steps
    falling = optax.warmup_cosine_decay_schedule(0.0, 1.0, steps // 20, steps, 0.1)
    adam = optax.chain(optax.scale_by_adam(b2=0.95), optax.scale_by_schedule(falling))
    stream = functools.partial(
        jd.StreamingDiLoCo, period=world.period, fragments=FRAGMENTS, delay=DELAY, local=adam
    )
    low = jd.compressors.E3M0()
    found: dict[str, tuple[Any, int, float]] = {
        SYNCHRONOUS: (lambda rate: jd.FedAvg(1.0, rate, server=adam), 1, 1.0)
    }
    for count in world.local:
        build = functools.partial(jd.DiLoCo, local_steps=count, local=adam)
        found[f"DiLoCo, K = {count}"] = build, count, 7.0
    found[STREAM] = stream, 1, 4.0
    found[FOUR] = functools.partial(stream, compressor=low), 1, 4.0
    return found


def trained(world: Any, done: Results) -> dict[tuple[str, str], Program]:
    """Return every method's run on every split it is asked on: stepsize, bandwidth."""
    found = {}
    for split, problem in world.problems.items():
        for name, (build, count, speed) in methods(world).items():
            if split == "books" and not 10 <= count <= 50 and name != SYNCHRONOUS:
                continue
            rounds, rates = world.steps // count, np.asarray(world.stepsizes) / speed
            arguments = {
                "algorithm": jax.vmap(build)(jnp.asarray(rates)),
                "problem": problem,
                "x0": jnp.broadcast_to(done["start"].model.values, (WORKERS, world.d)),
                "key": jax.random.key(world.seed + 1),
                "steps": rounds,
                "every": max(1, rounds // world.records),
                "metrics": {"held out": world.loss},
                "bandwidths": jnp.asarray(BANDWIDTHS) * 32 * world.d,
            }
            over = {"algorithm": Axis("stepsize", rates.tolist())}
            found[split, name] = Program(arguments, over, clocked, by_step)
    return found


def clocked(algorithm: Any, bandwidths: jax.Array, **arguments: Any) -> dict[str, jax.Array]:
    """Return one run's history, whose seconds are those at several bandwidths."""

    def run(bandwidth: jax.Array) -> Any:
        network = jd.networks.timed(jd.networks.Server(WORKERS), bandwidth=bandwidth)
        return jd.run(algorithm, network=network, defaults=(), **arguments).history

    history = jax.vmap(run)(bandwidths)
    return {name: history[name] for name in KEPT if name in history}


def by_step(dataset: xr.Dataset) -> xr.Dataset:
    """Return the losses and axes over the samples of a worker, which all methods take."""
    named = {
        name: of.rename({f"{name}_0": "bandwidth", f"{name}_1": "step"})
        for name, of in dataset.items()
    }
    samples = named["gradients"].isel(stepsize=0, bandwidth=0).values.round().astype(int)
    return xr.Dataset(named).assign_coords(step=samples, bandwidth=list(BANDWIDTHS))


def ended(results: Results) -> xr.DataArray:
    """Return the losses at the end of each run, infinite where it diverged: ..., stepsize."""
    held = results["text"]["held out"].isel(bandwidth=0, step=-1, drop=True)
    return held.fillna(np.inf)


def bests(results: Results) -> xr.Dataset:
    """Return every method at the stepsize that ends lowest, on every split."""
    found = results["text"].isel(stepsize=ended(results).argmin("stepsize"))
    return found.assign(thousands=found.tokens / 1000)


def final(results: Results, split: str = "iid") -> xr.DataArray:
    """Return the losses at the end at the best stepsizes, by algorithm."""
    least = ended(results).min("stepsize")
    return least.sel(split=present(least, "split", split))


def excess(results: Results, names: Any, than: str, split: str = "iid") -> xr.DataArray:
    """Return by how many nats methods end above another one."""
    found = final(results, split)
    return found.sel(algorithm=present(found, "algorithm", names)) - found.sel(
        algorithm=present(found, "algorithm", than)
    )


def spent(results: Results, name: str, axis: str, bandwidth: float = BANDWIDTHS[-1]) -> float:
    """Return what a method has spent at its end on an axis."""
    axis_of = bests(results)[axis].isel(split=0).sel(bandwidth=bandwidth)
    return float(axis_of.sel(algorithm=present(axis_of, "algorithm", name)).max())


def frequent(results: Results, most: int = 50) -> list[str]:
    """Return DiLoCo with at most so many local steps, and more than one."""
    return [f"DiLoCo, K = {count}" for count in results.world.local if 1 < count <= most]


def loss_of_fragments(results: Results, split: str = "iid") -> xr.DataArray:
    """Return by how many nats Streaming ends above the DiLoCo that communicates as often."""
    period = results.world.period
    nearest = min(results.world.local, key=lambda count: abs(np.log(count / period)))
    return excess(results, [STREAM], f"DiLoCo, K = {nearest}", split)


def bits_by_theory(results: Results) -> xr.DataArray:
    """Return K times DiLoCo's bits over those of synchronous AdamW, by K."""
    whole = spent(results, SYNCHRONOUS, "bits")
    counts = results.world.local
    found = [spent(results, f"DiLoCo, K = {k}", "bits") * k / whole for k in counts]
    return xr.DataArray(found, {"K": list(counts)})


def sooner(results: Results) -> float:
    """Return synchronous AdamW's seconds over DiLoCo's for all tokens, at the lowest bandwidth."""
    name = frequent(results)[-1]
    return spent(results, SYNCHRONOUS, "seconds") / spent(results, name, "seconds")


def heterogeneous(results: Results) -> xr.DataArray:
    """Return by how many nats DiLoCo ends higher where each worker has other books."""
    names = frequent(results)
    books = final(results, "books")
    return (books - final(results)).sel(algorithm=present(books, "algorithm", names))


LATER = ("default", "full")
CLAIMS = claims(
    ("DiLoCo with 10 to 50 local steps is as good as synchronous AdamW: nats above it at the end",
     f"{DILOCO}, abstract (with 500 steps)", "0 or less",
     lambda r: excess(r, frequent(r), SYNCHRONOUS), below(0.05), LATER),
    ("so it is with 500 local steps, here 2 rounds", f"{DILOCO}, abstract", "0 or less",
     lambda r: excess(r, ["DiLoCo, K = 500"], SYNCHRONOUS), below(0.05), ("full",)),
    ("it sends 1/K of the bits: K times its bits over AdamW's", "derived", "1",
     bits_by_theory, near(1, 0.05), LATER),
    ("other books for each worker do not matter to it: nats above the end on equal workers",
     f"{DILOCO}, abstract", "robust", heterogeneous, below(0.05), LATER),
    ("fragments cost nothing: nats of Streaming above DiLoCo", f"{STREAMING}, abstract", "0",
     loss_of_fragments, below(0.05), LATER),
    ("nor do messages of 4 bits: nats above those of 32", f"{STREAMING}, abstract", "0",
     lambda r: excess(r, [FOUR], STREAM), below(0.03), LATER),
    (f"the most bits of a step fall to those of a fragment, of {FRAGMENTS}",
     f"{STREAMING}, abstract", f"1/{FRAGMENTS} or a little more",
     lambda r: spent(r, STREAM, "peak_bits") / (32 * r.world.d), below(0.5)),
    ("at a bandwidth of a tenth of a model a second DiLoCo is sooner: seconds of AdamW over its",
     "derived: 21 K / (K + 20)", "15 (K = 50)", sooner, above(10), LATER),
)  # fmt: skip


def recorded(results: Results) -> xr.Dataset:
    """Return the bests on windows at random that have all records: no rounds are longer."""
    found = bests(results).sel(split="iid")
    whole = found["held out"].isel(bandwidth=0).notnull().all("step")
    return found.isel(algorithm=np.flatnonzero(whole))


def curves(x: str, title: str, **options: Any) -> Lines:
    """Return the panel of the losses on windows at random over an axis."""
    at = {"bandwidth": options.pop("bandwidth", BANDWIDTHS[-1])}
    shown: dict[str, Any] = {"ylabel": "held-out loss (nats)", "logy": False}
    return Lines(data=recorded, at=at, y="held out", x=x, title=title, **shown | options)


def by_local_steps(results: Results) -> xr.DataArray:
    """Return DiLoCo's losses at the end over K, by split."""
    least = ended(results).min("stepsize")
    counts = list(results.world.local)
    names = [f"DiLoCo, K = {count}" for count in counts]
    found = least.sel(algorithm=names).assign_coords(algorithm=counts).rename(algorithm="K")
    found = found.where(np.isfinite(found))  # not all are run book by book
    return found.assign_coords(split=[SPLITS[name] for name in found.split.values])


def synchronous_level(ax: Any, results: Results) -> None:
    """Draw where synchronous AdamW ends on windows at random."""
    ax.axhline(float(final(results).sel(algorithm=SYNCHRONOUS)), color="0.25", ls="--", lw=0.9)


SECONDS = [
    curves(
        "seconds",
        f"{rate:g} model{'s' * (rate != 1)} a second",
        bandwidth=rate,
        logx=True,
        xlabel="seconds",
    )
    for rate in BANDWIDTHS
]
PANELS = [
    [
        curves("thousands", "equal tokens", xlabel="thousand tokens, all workers"),
        curves("bits", "bits", logx=True, xlabel="bits sent per link"),
        LogLog(data=by_local_steps, x="K", by="split", logy=False, xlabel="local steps K",
               ylabel="loss at the end", title="DiLoCo (dashes: AdamW)", legend="panel",
               also=[synchronous_level]),
    ],
    SECONDS,
]  # fmt: skip
ENDS = ("loss", "bits", "seconds", "utilization")


def table(results: Results) -> xr.Dataset:
    """Return the ends of all methods at the lowest bandwidth: loss, bits, seconds, utilization."""
    ends = bests(results).isel(bandwidth=-1, step=-1, drop=True)
    ends = ends.rename({"held out": "loss"})[
        [name for name in ENDS if name in ends or name == "loss"]
    ]
    return ends.reset_coords("stepsize")


STUDY = Study(
    name="diloco",
    paper=f"DiLoCo (2023), {DILOCO}; Streaming DiLoCo (2025), {STREAMING}",
    question="What does a small transformer lose if its workers average seldom, or in fragments?",
    scales=SCALES,
    world=world,
    parts={"start": Part(None, started), "text": Part(("split", "algorithm"), trained)},
    claims=CLAIMS,
    figures={"diloco": Figure(PANELS, height=2.4)},
    tables={"ends": ("the ends, at the lowest bandwidth", table)},
    minutes={"quick": 0.7, "default": 6, "full": 3000},
    data=lambda world: f"{world.name}, {WORKERS} workers, a transformer of {world.d:,} weights",
)
