"""Torchft's published runs of Streaming DiLoCo, number by number (arXiv 2501.18512).

Torchft is a library for clusters; among its tests is one of a model of two weights, each a fragment
of its own, whose gradient is always 2. Two replicas start at 1, with rates 1 inside and 2 outside,
and exchange each fragment every 6 steps. What the weights are before every step is published, for
delays of 0 and 1 steps and merging factors α of 0, 1/2 and 1, twelve series, and so are the slow
copies at each exchange, and a run in which a replica crashes. The other one waits then for a new
one, which copies its weights: the survivor's series is as if nothing had happened, and so is the
new one's, once it has joined. (Where nobody is waited for, a worker of ours that comes back starts
from the slow copy.)

No run in which a commit fails is published. The rule is in the code: the fragment falls back to its
slow copy, and is tried again when the next one's turn would have been. The series of the first
commit's failure are by hand. `StreamingDiLoCo` takes failures as ``success``, here a schedule that
is 0 in one step.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

import jaxdopt as jd
from experiments.claims import below, claims
from experiments.panels import Figure
from experiments.study import SCALES, Axis, Part, Program, Results, Study
from jaxdopt.plot.style import PALETTE

KNOWN = json.loads(Path(__file__).with_name("torchft.json").read_text(encoding="utf-8"))
SETTINGS, CRASH = KNOWN["settings"], KNOWN["recovery"]
DELAYS, MERGES = (0, 1), (0.0, 0.5, 1.0)
TURN = SETTINGS["period"] // SETTINGS["fragments"]  # steps from one exchange to the next
FAILED = {  # α: both weights before every step, and both slow copies, if the first commit fails
    0.0: (
        [1, -1, -3, 1, -1, -3, -11, -13, -15, -17, -19, -21, -35],
        [1, -1, -3, -5, -7, -9, -11, -13, -15, -35, -37, -39, -41],
        [*[1] * 6, *[-11] * 6, -35],
        [*[1] * 9, *[-35] * 4],
    ),
    0.5: (
        [1, -1, -3, 1, -1, -3, -8, -10, -12, -14, -16, -18, -24.5],
        [1, -1, -3, -5, -7, -9, -11, -13, -15, -26, -28, -30, -32],
        [*[1] * 6, *[-11] * 6, -29],
        [*[1] * 9, *[-35] * 4],
    ),
    1.0: (
        [1, -1, -3, 1, -1, -3, -5, -7, -9, -11, -13, -15, -17],
        [1, -1, -3, -5, -7, -9, -11, -13, -15, -17, -19, -21, -23],
        [*[1] * 6, *[-11] * 6, -23],
        [*[1] * 9, *[-35] * 4],
    ),
}


def problem() -> Any:
    """Return the model of two weights, whose gradient is 2 everywhere."""
    start = {f"weight {p}": jnp.full(1, SETTINGS["start"], float) for p in range(2)}

    def gradient(weights: Any, data: Any, key: Any) -> Any:  # noqa: ARG001
        return jax.tree.map(lambda w: jnp.full_like(w, SETTINGS["gradient"]), weights)

    return jd.problems.Oracle(gradient, None, start, agents=SETTINGS["replicas"])


def program(delay: int, merges: Sequence[float], steps: int, success: Any = 1.0) -> Program:
    """Return where the replicas and their slow copy are before every step, over α."""

    def method(merge: Any) -> Any:
        rates = SETTINGS["stepsize"], SETTINGS["server_stepsize"]
        turns = SETTINGS["period"], SETTINGS["fragments"], delay
        return jd.StreamingDiLoCo(*rates, *turns, merge, server=None, success=success)

    made = problem()
    arguments = {
        "algorithm": jax.vmap(method)(jnp.asarray(merges)),
        "problem": made,
        "network": jd.networks.Server(made.n),
        "x0": made.start(),
        "key": jax.random.key(0),
        "steps": steps,
        "metrics": {"weight": lambda s, _: s.x, "slow": lambda s, _: s.server[None]},
        "defaults": (),
    }
    names = {"weight_0": "replica", "weight_1": "fragment", "slow_0": "copy", "slow_1": "part"}
    return Program(
        arguments,
        {"algorithm": Axis("merge", merges)},
        reduce=lambda dataset: dataset[["weight", "slow"]].rename(names),
    )


def fails(k: Any) -> Any:
    """Return the probability that an exchange of step k succeeds: the first one does not."""
    return jnp.where(k == TURN - 1, 0.0, 1.0)


def published(delay: float, merge: float) -> Any:
    """Return what is published of a run: weights [fragment, step], and slow copies by step."""
    return next(r for r in KNOWN["runs"] if (r["delay"], r["merge"]) == (delay, merge))


def each(measure: Callable[[xr.Dataset, Any], Any]) -> Callable[[Results], xr.DataArray]:
    """Return a measure of every run and what is published of it, over delay and α."""
    over = {"delay": list(DELAYS), "merge": list(MERGES)}

    def measured(results: Results) -> xr.DataArray:
        own = results["runs"]
        return xr.DataArray(
            [[measure(own.sel(delay=d, merge=m), published(d, m)) for m in MERGES] for d in DELAYS],
            over,
            [*over],
        )

    return measured


def weights_off(own: xr.Dataset, known: Any) -> float:
    """Return the largest deviation of both replicas' weights."""
    theirs = np.transpose(known["weights"])
    return np.abs(own.weight.values[: len(theirs)] - theirs[:, None]).max()


def slow_off(own: xr.Dataset, known: Any, shift: int = 0, first: int = 0) -> float:
    """Return the largest deviation of the slow copies from step ``first``, of a clock that lags."""
    kept = [(int(k), slow) for k, slow in known["global"].items() if int(k) >= first]
    return max(np.abs(own.slow.sel(step=k + shift).values - slow).max() for k, slow in kept)


def recovery(results: Results) -> xr.DataArray:
    """Return how far the survivor, and the replacement since it has joined, are from our run."""
    own, shift = results["recovery"].isel(merge=0), CRASH["join"] - TURN
    survivor, new = CRASH["survivor"], CRASH["replacement"]
    joined = np.transpose(new["weights"])[TURN:]
    late = np.abs(own.weight.values[CRASH["join"] :, 1] - joined).max()
    found = [
        max(weights_off(own.isel(replica=[0]), survivor), slow_off(own, survivor)),
        max(late, slow_off(own, new, shift, TURN)),
    ]
    return xr.DataArray(found, {"replica": ["survivor", "replacement"]}, "replica")


def retried(results: Results) -> xr.DataArray:
    """Return the largest deviation from what follows by hand, over α."""
    own, found = results["failed"], []
    for merge, (first, second, *slow) in FAILED.items():
        run = own.sel(merge=merge)
        weights = np.abs(run.weight.values - np.transpose([first, second])[:, None]).max()
        found.append(max(weights, np.abs(run.slow.values - np.transpose(slow)[:, None]).max()))
    return xr.DataArray(found, {"merge": list(FAILED)}, "merge")


SOURCE = "torchft, diloco_regression_test"
CLAIMS = claims(
    ("weights of both replicas before all steps: deviation", SOURCE, "0",
     each(weights_off), below(0)),
    ("slow copies at each exchange: deviation", SOURCE, "0", each(slow_off), below(0)),
    ("a crash and its recovery: deviation", SOURCE, "0", recovery, below(0)),
    ("a failed commit is tried again: deviation", "torchft's local_sgd, by hand", "0",
     retried, below(0)),
)  # fmt: skip


def panel(part: str, fragment: int, title: str, known: Callable[[float], Any], **at: Any) -> Any:
    """Return a panel of a weight over steps, ours as lines and what is known as rings."""

    def draw(ax: Any, results: Results) -> None:
        own = results[part].weight.sel(**at).isel(replica=0, fragment=fragment)
        for color, merge in zip(PALETTE, MERGES, strict=False):
            line = own.sel(merge=merge)
            ax.plot(
                line.step, line, color=color, marker="", label=f"StreamingDiLoCo, α = {merge:g}"
            )
            theirs = known(merge)[fragment]
            ax.plot(theirs, "o", color=color, markerfacecolor="none", markersize=4, linestyle="")
        label = "torchft, published; first commit fails: by hand"
        ax.plot([], [], "o", color="0.4", markerfacecolor="none", markersize=4, label=label)
        ax.set(title=title, xlabel="inner steps", ylabel=f"weight {fragment}")
        ax.set_xticks(range(0, own.step.size, TURN))

    return draw


def row(fragment: int) -> list[Any]:
    """Return the panels of a fragment's weight."""
    known = {delay: lambda merge, d=delay: published(d, merge)["weights"] for delay in DELAYS}
    return [
        *(panel("runs", fragment, f"delay {d}", known[d], delay=d) for d in DELAYS),
        panel("failed", fragment, "first commit fails", FAILED.__getitem__),
    ]


LAST = max(len(run["weights"][0]) for run in KNOWN["runs"]) - 1
AFTER = len(CRASH["survivor"]["weights"][0]) - 1
STUDY = Study(
    name="torchft",
    paper="Streaming DiLoCo (2025), arXiv 2501.18512, as torchft's tests have it",
    question="Does Streaming DiLoCo repeat the runs that torchft has published, to the last digit?",
    scales={scale: {} for scale in SCALES},
    parts={
        "runs": Part("delay", lambda *_: {d: program(d, MERGES, LAST) for d in DELAYS}),
        "recovery": Part(None, lambda *_: {None: program(0, MERGES[:1], AFTER)}),
        "failed": Part(None, lambda *_: {None: program(0, MERGES, 4 * TURN, fails)}),
    },
    claims=CLAIMS,
    figures={"torchft": Figure([row(0), row(1)], height=2.3)},
    minutes=dict.fromkeys(SCALES, 0.4),
    data=lambda _: "two weights with a constant gradient; " + KNOWN["source"],
)
