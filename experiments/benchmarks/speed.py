"""P1, P2, P4, P5: the engine against hand-written JAX and NumPy, sweeps, compilations."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxdopt as jd
from experiments.benchmarks.rows import Row, agree, first_call, timed

STEPSIZE = 0.1
DIMENSION, SAMPLES, L2 = 64, 100, 1e-2


def data(n: int, dtype: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return features [n, m, d] and labels ±1 [n, m] of a synthetic logistic regression."""
    random = np.random.default_rng(0)
    features = random.standard_normal((n, SAMPLES, DIMENSION)).astype(dtype)
    labels = np.sign(features @ random.standard_normal(DIMENSION) + random.standard_normal((n, 1)))
    return features, labels.astype(dtype)


def problem_of(n: int, dtype: Any) -> Any:
    """Return the problem as the library states it, without facts (nothing to solve)."""
    from jaxdopt.problems.linear import logistic_loss

    features, labels = data(n, dtype)
    return jd.problems.FiniteSum(
        logistic_loss, (features, labels), jnp.zeros(DIMENSION, dtype), l2=L2
    )


def hand_written(method: str, steps: int) -> Callable[..., Any]:
    """Return what an expert would write for one method on a ring: jit(scan(vmap(gradient))).

    The gradient is by hand: `jax.grad` of `jax.nn.softplus` takes up to twice as long.
    """

    def gradient(x: Any, a: Any, b: Any) -> Any:
        slopes = -b * jax.nn.sigmoid(-b * (a @ x))
        return slopes @ a / len(b) + L2 * x

    gradients = jax.vmap(gradient)

    def mix(x: Any) -> Any:
        return (x + jnp.roll(x, 1, axis=0) + jnp.roll(x, -1, axis=0)) / 3

    def dgd(carry: Any, a: Any, b: Any, step: Any) -> Any:
        (x,) = carry
        return (mix(x) - step * gradients(x, a, b),)

    def tracking(carry: Any, a: Any, b: Any, step: Any) -> Any:
        x, y, old = carry
        g = gradients(x, a, b)
        y = y + g - old
        return mix(x - step * y), mix(y), g

    one, fields = {"DGD": (dgd, 1), "GradientTracking": (tracking, 3)}[method]

    @jax.jit
    def program(x: Any, a: Any, b: Any, step: Any) -> Any:
        carry = (x, *(jnp.zeros_like(x) for _ in range(fields - 1)))
        carry, _ = jax.lax.scan(lambda c, _: (one(c, a, b, step), None), carry, None, length=steps)
        return carry[0]

    return program


def numpy_loop(method: str, x: Any, a: Any, b: Any, step: float, steps: int) -> np.ndarray:
    """Return the same recursion in NumPy, vectorized over agents by hand."""

    def gradients(x: np.ndarray) -> np.ndarray:
        margins = b * np.matmul(a, x[:, :, None])[:, :, 0]
        weights = -b / (1 + np.exp(margins)) / b.dtype.type(b.shape[1])
        return np.matmul(weights[:, None, :], a)[:, 0] + b.dtype.type(L2) * x

    def mix(x: np.ndarray) -> np.ndarray:
        return (x + np.roll(x, 1, axis=0) + np.roll(x, -1, axis=0)) / b.dtype.type(3)

    step = b.dtype.type(step)
    if method == "DGD":
        for _ in range(steps):
            x = mix(x) - step * gradients(x)
        return x
    y = old = np.zeros_like(x)
    for _ in range(steps):
        g = gradients(x)
        y = y + g - old
        x, y, old = mix(x - step * y), mix(y), g
    return x


def single(method: str, n: int, steps: int, repeats: int, dtype: Any) -> list[Row]:
    """Return P1 and P2 for one method and one number of agents."""
    problem = problem_of(n, dtype)
    features, labels = data(n, dtype)
    network = jd.networks.metropolis(jd.graphs.ring(n))
    algorithm = getattr(jd, method)(STEPSIZE)
    x0, key = problem.start(), jax.random.key(0)
    a, b, step = jnp.asarray(features), jnp.asarray(labels), jnp.asarray(STEPSIZE, dtype)
    program = hand_written(method, steps)
    zeros = np.zeros((n, DIMENSION), dtype)

    def ours() -> Any:
        return jd.run(algorithm, problem, network, x0, key, steps=steps, every=steps).state.x

    def theirs() -> Any:
        return program(x0, a, b, step)

    def by_numpy() -> Any:
        return numpy_loop(method, zeros, features, labels, STEPSIZE, steps)

    result, compiling = first_call(ours)
    agree(result, theirs())
    agree(result, by_numpy())
    mine, hand, loop = timed(ours, theirs, by_numpy, repeats=repeats)
    name = f"{method}, n = {n}, {np.dtype(dtype).name}"
    per_step = 1e3 / steps
    return [
        Row(
            "P1",
            f"{name}: time of jd.run over the hand-written scan's",
            mine * per_step,
            hand * per_step,
            mine / hand,
            "<= 1.10",
            mine / hand <= 1.10,
            compiling,
        ),
        Row(
            "P2",
            f"{name}: time of hand-vectorized NumPy over jd.run's",
            mine * per_step,
            loop * per_step,
            loop / mine,
            ">= 3",
            loop / mine >= 3,
            compiling,
        ),
    ]


def sweeping(steps: int, repeats: int) -> list[Row]:
    """Return P4: 64 runs as one vmapped sweep against one after the other."""
    n, dtype = 16, np.float32
    problem = problem_of(n, dtype)
    network = jd.networks.metropolis(jd.graphs.ring(n))
    stepsizes = np.logspace(-2, -0.5, 8)
    methods = jax.vmap(jd.GradientTracking)(jnp.asarray(stepsizes, dtype))
    keys = jax.random.split(jax.random.key(0), 8)
    x0 = problem.start()
    swept = jd.sweep(jd.run, over=("algorithm", "key"))

    def together() -> Any:
        return swept(methods, problem, network, x0, keys, steps=steps, every=steps).state.x

    def apart() -> Any:
        return [
            jd.run(
                jd.GradientTracking(float(a)), problem, network, x0, key, steps=steps, every=steps
            ).state.x
            for a in stepsizes
            for key in keys
        ]

    result, compiling = first_call(together)
    for i, member in enumerate(apart()):
        agree(result[i // 8, i % 8], member)
    whole, parts = timed(together, apart, repeats=repeats)
    bar = 20 if jax.default_backend() == "gpu" else 6
    row = Row(
        "P4",
        "64 runs one after the other over the same 64 as one sweep (GradientTracking, n = 16)",
        whole * 1e3 / steps,
        parts * 1e3 / steps,
        parts / whole,
        f">= {bar}",
        parts / whole >= bar,
        compiling,
    )
    return [row]


def compilations() -> list[Row]:
    """Return P5: programs compiled when only numbers change."""
    problem = problem_of(16, np.float32)
    x0 = problem.start()
    ring = jd.networks.metropolis(jd.graphs.ring(16))
    lazy = jd.networks.lazy_metropolis(jd.graphs.ring(16))
    other = jd.replace(problem, l2=0.5)

    def go(stepsize: Any, problem: Any, network: Any, seed: int, start: int) -> Any:
        method = jd.ExactDiffusion(stepsize)
        key = jax.random.key(seed)
        return jd.run(method, problem, network, x0, key, steps=20, start=start)

    counted: list[str] = []

    def count(event: str, duration: float, **_: str | int) -> None:
        if event.endswith("backend_compile_duration") and duration > 0:
            counted.append(event)

    jax.block_until_ready([go(0.1, problem, ring, 0, 0), go(1, other, lazy, 1, 7)])
    jax.monitoring.register_event_duration_secs_listener(count)  # type: ignore[arg-type]
    for stepsize in (0.1, 0.2, 1, np.float32(0.3)):
        for network in (ring, lazy):
            for what in (problem, other):
                jax.block_until_ready(go(stepsize, what, network, 3, 5))
    row = Row(
        "P5",
        "programs compiled as stepsize, weights, l2, seed and start change, 16 runs",
        float("nan"),
        float("nan"),
        len(counted),
        "= 0",
        not counted,
        float("nan"),
    )
    return [row]
