"""The measured edge of stability: the largest stepsize at which a method's step does not expand.

The step is linearized at the solution, in all numbers of the state: J = ∂ step(state) / ∂ state. On
quadratics most methods are linear, so that J is the method, and it is stable if and only if no
eigenvalue of J lies outside of the unit circle. Eigenvalues of 1 are no harm: they belong to sums
that the method keeps, such as Σᵢ dᵢ of a dual variable, and are there at every stepsize.
"""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from jaxdopt._checks import count, require
from jaxdopt._leaves import cast_floats
from jaxdopt._numbers import number
from jaxdopt._pytree import replace
from jaxdopt.schedules import at

SETTLED = 200  # steps after which push-sum weights have their limit and first steps are over
TINY = 1e-9  # of the largest stepsize: with it nothing moves away from the solution meanwhile
GRID = 64  # stepsizes at which the first instability is looked for
DECADES = 4  # that the grid covers
HALVINGS = 40
PRECISION = 1e-10  # relative, of the edge
ROUNDING = 1e-7  # by which the modulus of an eigenvalue 1 may be missed


def edge(
    method: Any, problem: Any, network: Any, *, largest: float | None = None, period: int = 1
) -> float:
    """Return the largest stable stepsize of a method, measured.

    Stepsizes up to ``largest`` are tried on a grid, and the first unstable one and the stable one
    below it are bisected, all in one program, in float64, on the CPU. A problem that is
    no quadratic is linearized at its solution: nearby, the method converges for smaller stepsizes
    and not for larger ones. For a method whose limit is not the solution the two differ by what the
    Hessians change in between.

    Args:
        method: the class; or an instance, whose stepsize is varied while all else stays.
        problem: with full gradients and a known solution.
        network: a network that does not change with time, or one that repeats itself.
        largest: the largest stepsize to try; default: 8 / L with the problem's smoothness.
        period: after how many steps the network repeats itself; their product is then examined.

    Returns:
        The edge, to six digits; 0 if already the smallest stepsize tried, 1e-4 of the largest,
        is unstable, and infinity if all are stable.

    Raises:
        ValueError: the step is random or changes with time, so that no one matrix describes it; the
            solution or the smoothness is not known; the method has no stepsize.

    Example:
        >>> import jaxdopt as jd
        >>> ring = jd.networks.metropolis(jd.graphs.ring(8))
        >>> problem = jd.problems.quadratic(8, 2, curvature_spread=0.0)
        >>> round(jd.theory.edge(jd.DSGD, problem, ring), 6)
        2.0
    """
    method = instance(method)
    name = type(method).__name__
    require(
        getattr(problem, "solution", None) is not None,
        f"the solution of the {type(problem).__name__} is not known, at which {name} is "
        "linearized; give a convex problem, solved: problem.solved().",
    )
    if largest is None:
        smoothness: Any = getattr(problem, "smoothness", None)
        require(
            smoothness is not None,
            f"the {type(problem).__name__} does not know its smoothness; give largest=.",
        )
        largest = 8 / float(smoothness)
    number("largest", largest, above=0.0)
    period = count("period", period)
    horizon = getattr(network, "horizon", None)
    needed = SETTLED + 2 * period
    require(
        horizon is None or horizon >= needed,
        f"the {type(network).__name__} has {horizon} steps and the edge takes {needed}; give a "
        "longer one.",
    )
    with jax.enable_x64(True), jax.default_device(jax.local_devices(backend="cpu")[0]):
        exact = jax.tree.map(np.asarray, (method, problem, network))
        exact = cast_floats(exact, np.float64)
        x0 = exact[1].start(np.asarray(exact[1].solution))
        keys = jax.random.split(jax.random.key(0), 2)
        found, difference = _edge(*exact, x0, keys, np.float64(largest), period)
        require(
            float(difference) < 1e-6,
            f"a step of {name} is another one for another key or time, by {float(difference):.1g}, "
            "so that no one matrix describes it; give full gradients, a network that does not "
            "change or its period, and a method that draws nothing.",
        )
        return float(found)


def instance(method: Any) -> Any:
    """Return a method of some stepsize, from its class or from an instance."""
    if isinstance(method, type):
        try:
            method = method(1.0)
        except TypeError:
            raise ValueError(
                f"{method.__name__} needs more than a stepsize; give an instance, such as "
                f"{method.__name__}(1.0, ...)."
            ) from None
    require(
        hasattr(method, "stepsize") and hasattr(method, "step"),
        f"{method!r} has no stepsize; give a method or its class, such as jd.DSGD.",
    )
    return method


@functools.partial(jax.jit, static_argnums=6)
def _edge(
    method: Any, problem: Any, network: Any, x0: Any, keys: Any, largest: Any, period: int
) -> tuple[jax.Array, jax.Array]:
    """Return the edge, and how much the step's matrix differs for another time and key."""

    def step(stepsize: Any, state: Any, k: Any, key: Any) -> Any:
        now = replace(at(method, k), stepsize=stepsize)
        return now.step(state, problem, network.at(k, key), jax.random.fold_in(key, k))

    def settle(k: Any, state: Any) -> Any:
        return step(TINY * largest, state, k, keys[0])

    tiny = replace(at(method, 0), stepsize=TINY * largest)
    state = tiny.init(x0, problem, network.at(0, keys[0]), keys[0])
    leaves, structure = jax.tree.flatten(jax.lax.fori_loop(0, SETTLED, settle, state))
    moving = [jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves]
    flat, unravel = ravel_pytree(list(itertools.compress(leaves, moving)))
    others = [not moves for moves in moving]  # counters and places
    rest = list(itertools.compress(leaves, others))

    def move(flat: jax.Array, rest: Any, stepsize: Any, k: Any, key: Any) -> tuple[Any, Any]:
        numbers, counters = iter(unravel(flat)), iter(rest)
        state = structure.unflatten([next(numbers if moves else counters) for moves in moving])
        after = jax.tree.leaves(step(stepsize, state, k, key))
        new = ravel_pytree(list(itertools.compress(after, moving)))[0]
        return new, (new, list(itertools.compress(after, others)))

    def matrix(stepsize: Any, start: Any, key: Any) -> jax.Array:
        """Return the product of the step's Jacobians over a period."""

        def one(carry: Any, k: Any) -> tuple[Any, None]:
            total, flat, rest = carry
            jacobian, after = jax.jacfwd(move, has_aux=True)(flat, rest, stepsize, k, key)
            return (jacobian @ total, *after), None

        begin = jnp.eye(flat.size, dtype=flat.dtype), flat, rest
        return jax.lax.scan(one, begin, start + jnp.arange(period))[0][0]

    def unfinished(carry: Any) -> jax.Array:
        i, low, high, _, _ = carry
        apart = jnp.isinf(high) | (high - low > PRECISION * high)
        return (i < GRID + HALVINGS) & apart & ~jnp.isinf(low)

    def advance(carry: Any) -> Any:
        """Try the next stepsize; the first two times one stepsize, at two times with two keys."""
        i, low, high, before, difference = carry
        exponent = -DECADES * (1 - i / (GRID - 1))
        stepsize = jnp.where(jnp.isinf(high), largest * 10.0**exponent, (low + high) / 2)
        stepsize = jnp.where(i < 0, largest / 10, stepsize)
        other = (i == -1).astype(int)
        now = matrix(stepsize, SETTLED + other * period, keys[other])
        change = jnp.abs(now - before).max() / jnp.abs(before).max()
        difference = jnp.where(i == -1, change, difference)
        radius = jnp.abs(jnp.linalg.eigvals(now)).max() ** (1 / period)
        inside, trial = radius <= 1 + ROUNDING, i < 0
        low, high = (
            jnp.where(trial | ~inside, low, stepsize),
            jnp.where(trial | inside, high, jnp.where(i == 0, 0, stepsize)),
        )
        last = (i == GRID - 1) & jnp.isinf(high)
        return i + 1, jnp.where(last, jnp.inf, low), high, now, difference

    zero, infinity = jnp.zeros((), flat.dtype), jnp.full((), jnp.inf, flat.dtype)
    begin = -2, zero, infinity, jnp.eye(flat.size, dtype=flat.dtype), zero
    _, found, _, _, difference = jax.lax.while_loop(unfinished, advance, begin)
    return found, difference
