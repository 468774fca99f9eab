"""P8, P11 and P12: what is bound by memory, in copies of x; wide tables; the largest coordinates.

P8 is asked of GPUs alone: a CPU's caches make a copy of small x much cheaper than of large.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxdopt as jd
from experiments.benchmarks.mixing import mix, passes
from experiments.benchmarks.rows import Row, absent, agree, first_call, on_gpu, timed

ROUNDS = 12
LAUNCH = 60e-6  # seconds that a compressor may take on a GPU besides its passes


@jd.pytree
class Distances:
    """½ |x − bᵢ|², whose gradient is elementwise: a step is nothing but memory."""

    b: jax.Array
    samples = 1

    @property
    def n(self) -> int:
        """The number of agents."""
        return self.b.shape[0]

    @property
    def d(self) -> int:
        """The number of parameters."""
        return self.b.shape[1]

    def grad(self, x: jax.Array, key: jax.Array) -> jax.Array:  # noqa: ARG002
        """Return every agent's gradient at its own row."""
        return x - self.b


def numbers(n: int, d: int) -> jax.Array:
    """Return [n, d] normal numbers in float32."""
    return jax.random.normal(jax.random.key(0), (n, d), jnp.float32)


def copies(
    name: str, what: str, bar: float, program: Callable[[], Any], x: jax.Array, repeats: int
) -> Row:
    """Return the row of a program of `ROUNDS` steps, in the time that a copy of x takes."""
    factor = jnp.float32(0.999)
    _, compiling = first_call(program)
    first_call(lambda: passes(x, factor, ROUNDS))
    mine, copy = timed(program, lambda: passes(x, factor, ROUNDS), repeats=repeats)
    n, d = x.shape
    per = 1e3 / ROUNDS
    return Row(
        name,
        f"{what}, {n:,} x {d:,}: time of a step over a copy's",
        mine * per,
        copy * per,
        mine / copy,
        f"<= {bar:g}",
        mine / copy <= bar,
        compiling,
    )


def memory_bound(sizes: dict[str, tuple[int, int]], repeats: int) -> list[Row]:
    """Return P8 to P8d, for n x d by the rows' names."""
    graphs = {
        "P8": ("mixing on a ring", jd.graphs.ring, 1.25),
        "P8c": ("mixing on a 6-regular graph", lambda n: jd.graphs.regular(n, 6), 4.5),
        "P8d": ("mixing on an exponential graph", jd.graphs.exponential, 8),
    }
    rows = []
    for name, (what, graph, bar) in graphs.items():
        n, d = sizes[name]
        network, x = jd.networks.metropolis(graph(n)), numbers(n, d)

        def program(network: Any = network, x: Any = x) -> Any:
            return mix(network, x, ROUNDS)

        rows.append(copies(name, what, bar, program, x, repeats))
    n, d = sizes["P8b"]
    problem, network = Distances(numbers(n, d)), jd.networks.metropolis(jd.graphs.ring(n))
    method, x0, key = jd.GradientTracking(0.3), jnp.zeros((n, d), jnp.float32), jax.random.key(0)

    def tracking() -> Any:
        return jd.run(
            method, problem, network, x0, key, steps=ROUNDS, every=ROUNDS, defaults=()
        ).state.x

    what = "gradient tracking on a ring, elementwise gradient (3.5 at least)"
    rows.append(copies("P8b", what, 3.9, tracking, problem.b, repeats))
    return rows


def memory_bound_if_gpu(repeats: int) -> list[Row]:
    """Return P8 to P8d, or that there is no GPU."""
    if on_gpu():
        large = (100_000, 10_000)
        sizes = {"P8": large, "P8b": large, "P8c": large, "P8d": (4096, 7850)}
        return memory_bound(sizes, repeats)
    bars = {
        "P8": ("mixing on a ring, in copies of x", "<= 1.25"),
        "P8b": ("gradient tracking on a ring, in copies of x", "<= 3.9"),
        "P8c": ("mixing on a 6-regular graph, in copies of x", "<= 4.5"),
        "P8d": ("mixing on an exponential graph, in copies of x", "<= 8"),
    }
    return [absent(name, what, bar, "needs a GPU") for name, (what, bar) in bars.items()]


@functools.partial(jax.jit, static_argnames="rounds")
def gathered(index: jax.Array, weights: jax.Array, x: jax.Array, rounds: int) -> jax.Array:
    """Return x after some rounds, each one gather of all neighbors and a sum."""

    def one(x: jax.Array, _: None) -> tuple[jax.Array, None]:
        return x + (weights[:, :, None] * (x[index] - x[:, None])).sum(axis=1), None

    return jax.lax.scan(one, x, None, length=rounds)[0]


def wide_table(n: int, slots: int, d: int, repeats: int) -> list[Row]:
    """Return P11: a regular graph of many neighbors, against other ways to mix on it."""
    network = jd.networks.metropolis(jd.graphs.regular(n, slots))
    matrix = network.csr()
    dense = jd.networks.mixing(matrix, form=jd.networks.Dense)
    away = matrix - np.eye(n) * matrix.diagonal()
    table = [np.flatnonzero(row) for row in np.asarray(away)]
    index = jnp.asarray(np.array(table))
    weights = jnp.asarray(np.take_along_axis(np.asarray(away), np.array(table), 1), jnp.float32)
    network, dense = (
        jax.tree.map(lambda a: a.astype(jnp.float32) if a.dtype == float else a, tree)
        for tree in (network, dense)
    )
    x = numbers(n, d)

    def ours() -> Any:
        return mix(network, x, ROUNDS)

    def at_once() -> Any:
        return gathered(index, weights, x, ROUNDS)

    def product() -> Any:
        return mix(dense, x, ROUNDS)

    result, compiling = first_call(ours)
    for way in (at_once, product):
        agree(result, first_call(way)[0])
    mine, *others = timed(ours, at_once, product, repeats=repeats)
    best = min(mine, *others)
    per = 1e3 / ROUNDS
    kind = type(network).__name__
    return [
        Row(
            "P11",
            f"{n} agents of {slots} neighbors, d = {d} ({kind}): time of a mixing over the best of "
            "it, one gather and a sum, a dense product",
            mine * per,
            best * per,
            mine / best,
            "<= 1.5",
            mine / best <= 1.5,
            compiling,
        )
    ]


def largest(n: int, d: int, k: int, repeats: int) -> list[Row]:
    """Return P12: the k largest coordinates, against `jax.lax.top_k` and passes over x."""
    x, factor = numbers(n, d), jnp.float32(0.999)
    compressor = jd.compressors.TopK(k)

    @jax.jit
    def compress(x: jax.Array) -> jax.Array:
        def one(x: jax.Array, _: None) -> tuple[jax.Array, None]:
            return x + 1e-3 * compressor(None, x), None

        return jax.lax.scan(one, x, None, length=ROUNDS)[0]

    @jax.jit
    def threshold(x: jax.Array) -> jax.Array:
        def one(x: jax.Array, _: None) -> tuple[jax.Array, None]:
            modulus = jnp.abs(x)
            least = jax.lax.top_k(modulus, k)[0][:, -1:]
            return x + 1e-3 * jnp.where(modulus >= least, x, 0), None

        return jax.lax.scan(one, x, None, length=ROUNDS)[0]

    result, compiling = first_call(lambda: compress(x))
    agree(result, threshold(x))
    first_call(lambda: passes(x, factor, ROUNDS))
    mine, sorting, pass_ = timed(
        lambda: compress(x),
        lambda: threshold(x),
        lambda: passes(x, factor, ROUNDS),
        repeats=repeats,
    )
    what, per = f"TopK({k}), {n:,} x {d:,}", 1e3 / ROUNDS
    rows = [
        Row(
            "P12",
            f"{what}: its time over jax.lax.top_k's",
            mine * per,
            sorting * per,
            mine / sorting,
            "-" if on_gpu() else "<= 1",
            mine <= sorting,
            compiling,
        )
    ]
    bar, text = "<= 5", f"{what}: its time less 60 us over an elementwise pass's"
    if not on_gpu():
        return [*rows, absent("P12", text, bar, "needs a GPU")]
    ratio = max(0.0, mine - ROUNDS * LAUNCH) / pass_
    return [*rows, Row("P12", text, mine * per, pass_ * per, ratio, bar, ratio <= 5, compiling)]
