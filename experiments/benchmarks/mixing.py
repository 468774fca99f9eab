"""P3 and P6: what a mixing costs in passes over the data, against SciPy, and as networks grow."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxdopt as jd
from experiments.benchmarks.rows import Row, agree, first_call, timed
from jaxdopt._backend import scan
from jaxdopt.problems.linear import squared_loss

ROUNDS = 10
D = 7850


@functools.partial(jax.jit, static_argnames="rounds")
def mix(network: Any, x: jax.Array, rounds: int) -> jax.Array:
    """Return x after some rounds of a network, as one scan, as the backend has it best."""
    return scan(lambda x, _: (network @ x, None), x, jnp.arange(rounds))[0]


@functools.partial(jax.jit, static_argnames="rounds")
def passes(x: jax.Array, factor: jax.Array, rounds: int) -> jax.Array:
    """Return x scaled as many times: the least that anything done to x can cost."""
    return jax.lax.scan(lambda x, _: (factor * x, None), x, None, length=rounds)[0]


def mixing(name: str, graph: Any, repeats: int, d: int = D) -> list[Row]:
    """Return both halves of P3 for a graph."""
    network = jd.networks.metropolis(graph)
    x = np.random.default_rng(0).standard_normal((network.n, d)).astype(np.float32)
    ours_x, factor = jnp.asarray(x), jnp.asarray(0.999, jnp.float32)
    network = jax.tree.map(lambda leaf: leaf.astype(jnp.float32) if leaf.dtype == float else leaf,
                           network)  # fmt: skip
    matrix = network.csr().astype(np.float32)

    def ours() -> Any:
        return mix(network, ours_x, ROUNDS)

    def elementwise() -> Any:
        return passes(ours_x, factor, ROUNDS)

    def by_scipy() -> Any:
        y = x
        for _ in range(ROUNDS):
            y = matrix @ y
        return y

    result, compiling = first_call(ours)
    first_call(elementwise)
    agree(result, by_scipy())
    mine, pass_, csr = timed(ours, elementwise, by_scipy, repeats=repeats)
    what = f"{name}, n = {network.n}, d = {d}, float32 ({type(network).__name__})"
    per = 1e3 / ROUNDS
    return [
        Row(
            "P3",
            f"{what}: time of a mixing over an elementwise pass's",
            mine * per,
            pass_ * per,
            mine / pass_,
            "<= 8",
            mine / pass_ <= 8,
            compiling,
        ),
        Row(
            "P3",
            f"{what}: time of a scipy.sparse CSR product over a mixing's",
            mine * per,
            csr * per,
            csr / mine,
            ">= 1.5",
            csr / mine >= 1.5,
            compiling,
        ),
    ]


def growth(repeats: int, sizes: tuple[int, int], d: int = 64) -> list[Row]:
    """Return P6: a step of gradient tracking on a large ring over one on a small ring."""
    steps = 10

    def program(n: int) -> Callable[[], Any]:
        network = jd.networks.metropolis(jd.graphs.ring(n))
        random = np.random.default_rng(0)
        features = random.standard_normal((n, 2, d)).astype(np.float32)
        data = (features, np.ones((n, 2), np.float32))
        problem = jd.problems.FiniteSum(squared_loss, data, jnp.zeros(d, jnp.float32))
        method, x0, key = jd.GradientTracking(0.01), problem.start(), jax.random.key(0)
        return lambda: jd.run(method, problem, network, x0, key, steps=steps, every=steps).state.x

    small, large = map(program, sizes)
    _, compiling = first_call(large)
    first_call(small)
    least, most = timed(small, large, repeats=repeats)
    bar = 1.25 * sizes[1] / sizes[0]
    per = 1e3 / steps
    row = Row(
        "P6",
        f"time of a step with n = {sizes[1]} over n = {sizes[0]} (GradientTracking, ring, d = {d})",
        most * per,
        least * per,
        most / least,
        f"<= {bar:g}",
        most / least <= bar,
        compiling,
    )
    return [row]
