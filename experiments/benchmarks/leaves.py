"""P18: the largest coordinates of every leaf of a network, and those of the whole row.

``python -m experiments.benchmarks.leaves`` measures it alone.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxdopt as jd
from experiments.benchmarks.rows import Row, first_call, table, timed
from experiments.tables import text

AGENTS, DENSITY, MOST = 8, 0.01, 1.3


def blocks(number: int, width: int) -> dict[str, jax.Array]:
    """Return the parameters of so many blocks of a transformer: 12 leaves each."""
    square, wide = (width, width), (width, 4 * width)
    block: dict[str, Any] = {"q": square, "k": square, "v": square, "out": square}
    block |= {"up": wide, "down": wide[::-1], "up bias": wide[1:], "down bias": (width,)}
    block |= {f"norm {i} {name}": (width,) for i in range(2) for name in ("scale", "bias")}
    return {f"{i} {name}": jnp.zeros(shape) for i in range(number) for name, shape in block.items()}


def per_leaf(number: int, width: int, repeats: int, messages: int = 10) -> list[Row]:
    """Return P18: the top 1 % of every leaf and of the whole row, of 8 agents' vectors."""
    problem = jd.problems.Oracle(
        lambda w, own, _: jax.tree.map(lambda leaf: leaf + own, w),
        jnp.zeros(AGENTS),
        blocks(number, width),
    )
    top, d = jd.compressors.TopK(density=DENSITY), problem.d
    each, key = jd.compressors.per_leaf(top, problem), jax.random.key(0)
    x = jnp.asarray(np.random.default_rng(0).standard_normal((AGENTS, d), np.float32))

    @jax.jit
    def sent(compressor: Any, x: jax.Array) -> jax.Array:
        def one(x: jax.Array, _: None) -> tuple[jax.Array, None]:
            return x + 1e-3 * compressor(key, x), None

        return jax.lax.scan(one, x, None, length=messages)[0]

    result, compiling = first_call(lambda: sent(each, x))
    kept = np.count_nonzero(np.asarray(result) != np.asarray(x), axis=1)
    assert np.all(kept >= sum(np.ceil(size * DENSITY * 0.999) for size in each.sizes))
    mine, whole = timed(lambda: sent(each, x), lambda: sent(top, x), repeats=repeats)
    what = f"top 1 % of each of {len(each.sizes)} leaves, d = {d:,}: time over the whole row's"
    per, ratio = 1e3 / messages, mine / whole
    bar = f"<= {MOST:.1f}"
    return [Row("P18", what, mine * per, whole * per, ratio, bar, ratio <= MOST, compiling)]


if __name__ == "__main__":
    print(text(table(per_leaf(4, 128, repeats=5))))
