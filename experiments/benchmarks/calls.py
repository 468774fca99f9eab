"""P13: what a call costs besides its program; and optax's own loop."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxdopt as jd
from experiments.benchmarks import speed
from experiments.benchmarks.rows import Row, agree, first_call, timed

BAR_MS = 0.1


def call(repeats: int) -> list[Row]:
    """Return P13: a call of one step minus its own compiled program, called with flat arrays."""
    n = 16
    network = jd.networks.metropolis(jd.graphs.ring(n))
    problem = speed.problem_of(n, np.float32)
    settings = jd.GradientTracking(0.1), problem, network, problem.start(), jax.random.key(0)
    given, structure = jax.tree.flatten(settings)
    leaves = [jnp.asarray(leaf) for leaf in given]

    def run(*settings: Any) -> Any:
        return jd.run(*settings, steps=1, every=1).state.x

    def program(*leaves: Any) -> Any:
        return jax.tree.leaves(jd.run(*jax.tree.unflatten(structure, leaves), steps=1, every=1))

    result, compiling = first_call(lambda: run(*settings))
    flat = jax.jit(program).lower(*leaves).compile()
    assert any(np.array_equal(result, leaf) for leaf in flat(*leaves) if leaf.shape == result.shape)
    whole, own = timed(lambda: run(*settings), lambda: flat(*leaves), repeats=100 * repeats)
    extra = (whole - own) * 1e3
    what = (
        f"one step of GradientTracking, n = {n}: ms of a jd.run besides its program's, called flat"
    )
    met = extra <= BAR_MS
    return [Row("P13", what, whole * 1e3, own * 1e3, extra, f"<= {BAR_MS} ms", met, compiling)]


def optax_loop(n: int, steps: int, repeats: int) -> list[Row]:
    """Return a peer: DGD as a scan with optax's descent, which its documentation would have."""
    dtype = np.float32
    problem, optimizer = speed.problem_of(n, dtype), optax.sgd(speed.STEPSIZE)
    network = jd.networks.metropolis(jd.graphs.ring(n))
    features, labels = (jnp.asarray(part) for part in speed.data(n, dtype))

    def loss(x: Any, a: Any, b: Any) -> Any:
        return jax.nn.softplus(-b * (a @ x)).mean() + speed.L2 / 2 * x @ x

    @jax.jit
    def loop(x: Any, a: Any, b: Any) -> Any:
        def one(carry: Any, _: None) -> tuple[Any, None]:
            x, state = carry
            slopes = jax.vmap(jax.grad(loss))(x, a, b)
            updates, state = optimizer.update(slopes, state)
            mixed = (x + jnp.roll(x, 1, axis=0) + jnp.roll(x, -1, axis=0)) / 3
            return (optax.apply_updates(mixed, updates), state), None

        return jax.lax.scan(one, (x, optimizer.init(x)), None, length=steps)[0][0]

    settings = jd.DGD(speed.STEPSIZE), problem, network, problem.start(), jax.random.key(0)

    def ours() -> Any:
        return jd.run(*settings, steps=steps, every=steps).state.x

    def theirs() -> Any:
        return loop(problem.start(), features, labels)

    result, compiling = first_call(ours)
    agree(result, theirs())
    mine, other = timed(ours, theirs, repeats=repeats)
    per = 1e3 / steps
    what = f"DGD, n = {n}, float32: time of a scan with optax.sgd {optax.__version__} over jd.run's"
    return [Row("peer", what, mine * per, other * per, other / mine, "-", True, compiling)]
