"""P13: what a call costs besides its program."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxdopt as jd
from experiments.benchmarks import speed
from experiments.benchmarks.rows import Row, first_call, timed

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
