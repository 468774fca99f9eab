"""P16: what a product of every robust rule costs, in means, Gram matrices, sorts and mixings.

``python -m experiments.benchmarks.aggregation`` measures it alone.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxdopt as jd
from experiments.benchmarks.accelerators import numbers
from experiments.benchmarks.rows import Row, agree, first_call, table, timed
from experiments.tables import text
from jaxdopt.aggregators.distances import ENUMERATED

FULL = 1024, 10_000  # messages and their numbers: the bars are for these
DEGREE = 8


@jax.jit
def aggregate(rule: Any, x: jax.Array) -> jax.Array:
    """Return what a rule makes of messages x [n, d]."""
    return rule(x, None, 0, jax.random.key(1))


@jax.jit
def mix(network: Any, x: jax.Array) -> jax.Array:
    """Return one product of a network."""
    return network @ x


YARDSTICKS = {
    "a mean": jax.jit(lambda x: jnp.mean(x, axis=0)),
    "x @ x.T": jax.jit(lambda x: jnp.matmul(x, x.T, precision="highest")),
    "a sort": jax.jit(lambda x: jnp.sort(x, axis=0)),
}
SPARSE = "a sparse product"


class Entry(NamedTuple):
    """A product, its yardstick, how many of these it may take, and the same in NumPy."""

    program: Callable[[jax.Array], jax.Array]
    yardstick: str
    most: float | None = None
    by_hand: Callable[[np.ndarray], np.ndarray] | None = None


def rules(f: int) -> dict[str, Entry]:
    """Return every rule of any number of messages, with f liars where it asks."""
    a = jd.aggregators

    def entry(rule: Any, *of: Any) -> Entry:
        return Entry(partial(aggregate, rule), *of)

    return {
        "Mean": entry(a.Mean(), "a mean"),
        "Median": entry(a.Median(), "a sort", 1.6, partial(np.median, axis=0)),
        "TrimmedMean": entry(a.TrimmedMean(f), "a sort", 1.6, partial(trimmed_mean, f)),
        "MeaMed": entry(a.MeaMed(f), "a sort"),
        "GeometricMedian, 50 steps": entry(a.GeometricMedian(), "a mean"),
        "CenteredClipping": entry(a.CenteredClipping(1.0), "a mean"),
        "SelfCenteredClipping": entry(a.SelfCenteredClipping(), "a mean"),
        "NNA": entry(a.NNA(f), "a mean"),
        "CGE": entry(a.CGE(f), "a mean"),
        "Krum": entry(a.Krum(f), "x @ x.T", 3, partial(krum, f)),
        "MultiKrum": entry(a.MultiKrum(f), "x @ x.T"),
        "CAF": entry(a.CAF(f), "x @ x.T"),
        "Flag": entry(a.Flag(), "x @ x.T"),
        "FoolsGold": entry(a.FoolsGold(), "x @ x.T"),
        "NNM and Mean": entry(a.chain(a.NNM(f), a.Mean()), "x @ x.T", 3, partial(mixed_mean, f)),
        "Bucketing and Mean": entry(a.chain(a.Bucketing(2), a.Mean()), "a mean"),
        "Clip and Mean": entry(a.chain(a.Clip(2.0), a.Mean()), "a mean"),
        "ARC and Mean": entry(a.chain(a.ARC(f), a.Mean()), "a mean"),
    }


def trimmed_mean(f: int, x: np.ndarray) -> np.ndarray:
    """Return the mean of each column without its f smallest and f largest numbers."""
    return np.sort(x, axis=0)[f : len(x) - f].mean(axis=0)


def nearest(f: int, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the n − f nearest messages of each, itself first, and their squared distances."""
    squares = np.sum(x**2, axis=1)
    apart = squares[:, None] + squares - 2 * x @ x.T
    np.fill_diagonal(apart, -1)
    near = np.argsort(apart, axis=1)[:, : len(x) - f]
    return near, np.take_along_axis(apart, near, axis=1)


def krum(f: int, x: np.ndarray) -> np.ndarray:
    """Return the message with the least distances from its n − f − 1 nearest others."""
    return x[np.argmin(nearest(f, x)[1].sum(axis=1))]


def mixed_mean(f: int, x: np.ndarray) -> np.ndarray:
    """Return the mean over messages of the mean of the n − f nearest messages."""
    near, _ = nearest(f, x)
    return np.bincount(near.ravel(), minlength=len(x)) / near.size @ x


def gossip(network: Any, f: int, liars: int) -> Entry:
    """Return `NNA` on a graph, where the last agents attack each honest neighbor by ALIE(1)."""
    rule, attack = jd.aggregators.NNA(f), jd.attacks.ALIE(1.0)
    robust = jd.networks.robust(network, rule=rule, attack=attack, liars=liars)
    by_hand = partial(nearest_neighbors, network, f, liars)
    return Entry(partial(mix, robust.at(0, jax.random.key(0))), SPARSE, 12, by_hand)


def nearest_neighbors(network: Any, f: int, liars: int, x: np.ndarray) -> np.ndarray:
    """Return the mean of what every agent hears, without the f messages farthest from its own."""
    n, away, result = len(x), network.csr(), []
    for i in range(n):
        others = away.indices[away.indptr[i] : away.indptr[i + 1]]
        senders = np.array([i, *others[others != i]])
        heard, lies = x[senders], senders >= n - liars
        if i < n - liars and lies.any():
            honest = heard[~lies]
            heard[lies] = honest.mean(axis=0) - honest.std(axis=0, ddof=1)
        near = np.argsort(np.sum((heard - x[i]) ** 2, axis=1), kind="stable")
        result.append(heard[near[: len(heard) - f]].mean(axis=0))
    return np.array(result)


def measured(
    entries: dict[str, Entry], network: Any, d: int, repeats: int, *, full: bool
) -> list[Row]:
    """Return rows of products of n agents' messages, each beside four that one knows."""
    n = network.n
    x = numbers(n, d)
    yardsticks = YARDSTICKS | {SPARSE: partial(mix, network)}
    programs = yardsticks | {name: entry.program for name, entry in entries.items()}
    compiling = {}
    for name, program in programs.items():
        result, compiling[name] = first_call(partial(program, x))
        if name in entries and (by_hand := entries[name].by_hand):
            agree(result, by_hand(np.asarray(x)))
    barred = [name for name in programs if name in yardsticks or entries[name].most]
    others = [name for name in programs if name not in barred]  # some of which take seconds
    seconds = {}
    for names, times in ((barred, repeats), (others, min(repeats, 2))):
        runs = [partial(programs[name], x) for name in names]
        seconds |= zip(names, timed(*runs, repeats=times), strict=True)

    def row(name: str, entry: Entry) -> Row:
        ours, ratios = seconds[name], {own: seconds[name] / seconds[own] for own in yardsticks}
        ratio = ratios.pop(entry.yardstick)
        others = ", ".join(f"{own}'s {value:.3g}" for own, value in ratios.items())
        what = f"{name}, {n:,} x {d:,}: time over {entry.yardstick}'s (over {others})"
        bar = f"<= {entry.most:g}" if entry.most and full else "-"
        met = bar == "-" or ratio <= entry.most
        theirs = seconds[entry.yardstick]
        return Row("P16", what, ours * 1e3, theirs * 1e3, ratio, bar, met, compiling[name])

    return [row(name, entry) for name, entry in entries.items()]


def regular(n: int) -> Any:
    """Return a network on a random regular graph, in float32."""
    network = jd.networks.metropolis(jd.graphs.regular(n, DEGREE))
    return jax.tree.map(lambda a: a.astype(jnp.float32) if a.dtype == float else a, network)


def aggregation(n: int, d: int, repeats: int) -> list[Row]:
    """Return P16: all rules, an eighth of n messages lies; `MDA` of as many as it takes."""
    full, many, few = (n, d) == FULL, regular(n), regular(ENUMERATED)
    entries = rules(n // 8)
    for liars in (0, n // 8):
        name = f"NNA of {DEGREE + 1} messages each, {liars} liars"
        entries[name] = gossip(many, 2, liars)
    mda = {"MDA": Entry(partial(aggregate, jd.aggregators.MDA(ENUMERATED // 8)), "x @ x.T")}
    return [
        *measured(entries, many, d, repeats, full=full),
        *measured(mda, few, d, repeats, full=full),
    ]


if __name__ == "__main__":
    print(text(table(aggregation(*FULL, repeats=5))))
