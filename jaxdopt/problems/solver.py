"""The minimizer of a convex objective, or the root of an operator, on the host, in float64."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy  # whose parts are loaded where they are used

from jaxdopt._leaves import cast_floats

ACCURACY = 1e-9  # of the gradient's norm, relative to where it started (and at least 1)
ITERATIONS = 100  # of Newton's method after SciPy's
PROXIMAL_TARGET = 1e-15  # of the prox-gradient residual, relative to the terms in it
PROXIMAL_ACCURACY = 1e-13  # of the same, to count as a minimizer
PROXIMAL_ITERATIONS = 100_000
PATIENCE = 1000  # iterations without a better residual; later on, as many as there were before


@jax.jit
def _value_and_grad(problem: Any, x: jax.Array) -> Any:
    return jax.value_and_grad(problem.objective)(x)


@jax.jit
def _curvature(problem: Any, x: jax.Array, direction: jax.Array) -> jax.Array:
    return jax.jvp(jax.grad(problem.objective), (x,), (direction,))[1]


def minimize(problem: Any) -> tuple[np.ndarray, float, bool]:
    """Return x*, F(x*) and whether x* is a minimizer, by SciPy's Newton-CG and more Newton steps.

    SciPy's line search compares values of F, which agree to rounding while x still has only half
    its digits. From there full Newton steps follow as long as the gradient's norm falls, which is
    to the accuracy of float64 if there is a minimizer. If there is none, as for separable data
    without a regularizer, the steps stay long however small the gradient is.
    """
    with jax.enable_x64(True):
        exact = cast_floats(jax.tree.map(np.asarray, problem), np.float64)

        def value_and_grad(x: np.ndarray) -> tuple[float, np.ndarray]:
            value, gradient = _value_and_grad(exact, x)
            return float(value), np.asarray(gradient)

        def curvature(x: np.ndarray, direction: np.ndarray) -> np.ndarray:
            return np.asarray(_curvature(exact, x, direction))

        x = np.asarray(exact.origin)
        start = max(1.0, float(np.linalg.norm(value_and_grad(x)[1])))
        x = scipy.optimize.minimize(
            value_and_grad, x, method="Newton-CG", jac=True, hessp=curvature, options={"xtol": 1e-6}
        ).x
        value, gradient = value_and_grad(x)
        for _ in range(ITERATIONS):
            norm = np.linalg.norm(gradient)
            hessian = scipy.sparse.linalg.LinearOperator(
                (len(x), len(x)), partial(curvature, x), dtype=float
            )
            with np.errstate(divide="ignore", invalid="ignore"):  # no curvature: not a number
                direction, _ = scipy.sparse.linalg.cg(hessian, -gradient, rtol=1e-10, maxiter=1000)
            trial = value_and_grad(x + direction)
            if norm <= 1e-16 * start or not np.linalg.norm(trial[1]) < norm:
                break
            x, (value, gradient) = x + direction, trial
        length = np.linalg.norm(direction) / (1 + np.linalg.norm(x))
        small = norm <= ACCURACY * start and length <= np.sqrt(ACCURACY)
        return x, value, bool(small)


def minimize_composite(problem: Any) -> tuple[np.ndarray, float, bool]:
    """Return x*, F(x*) and whether x* is a minimizer, by accelerated proximal gradients.

    The residual is L |y − proxₜ(y − t ∇f(y))|, t = 1/L. The method stops at `PROXIMAL_TARGET`, or
    where the residual no longer falls, which is at the accuracy of float64 if there is a minimizer.
    SciPy has no solver that takes r by its proximal map.
    """
    with jax.enable_x64(True):
        exact = cast_floats(jax.tree.map(np.asarray, problem), np.float64)
        x, value, residual, scale, stalled = map(np.asarray, _accelerated(exact, exact.start()[0]))
        reached = residual <= PROXIMAL_ACCURACY * scale
        found = reached or (stalled and residual <= ACCURACY * max(1.0, scale))
        return x, float(value), bool(found)


@jax.jit
def _accelerated(problem: Any, x: jax.Array) -> Any:
    """FISTA (Beck, Teboulle 2009), restarted where its momentum points uphill.

    The test is the gradient scheme of O'Donoghue and Candès (2015), arXiv 1204.3982.
    """
    smoothness = problem.smoothness
    slope = jax.grad(problem.smooth_objective)
    start = jnp.linalg.norm(slope(x))

    def unfinished(carry: Any) -> jax.Array:
        k, _, _, _, (_, residual, scale, at) = carry
        waiting = k <= jnp.minimum(PROXIMAL_ITERATIONS, 2 * at + PATIENCE)
        return waiting & ~(residual <= PROXIMAL_TARGET * scale)

    def iterate(carry: Any) -> Any:
        k, x, y, momentum, best = carry
        new = problem.prox(y - slope(y) / smoothness, 1 / smoothness)
        residual = smoothness * jnp.linalg.norm(y - new)
        scale = start + smoothness * jnp.linalg.norm(new)
        best = jax.tree.map(
            lambda a, b: jnp.where(residual < best[1], a, b), (new, residual, scale, k), best
        )
        momentum = jnp.where((y - new) @ (new - x) > 0, 1.0, momentum)
        longer = (1 + jnp.sqrt(1 + 4 * momentum**2)) / 2
        return k + 1, new, new + (momentum - 1) / longer * (new - x), longer, best

    first = (x, jnp.inf, 1.0, 0)
    k, _, _, _, best = jax.lax.while_loop(unfinished, iterate, (0, x, x, 1.0, first))
    x, residual, scale, _ = best
    return x, problem.objective(x), residual, scale, k <= PROXIMAL_ITERATIONS


@jax.jit
def _operator(problem: Any, z: jax.Array) -> jax.Array:
    return problem.operator(z)


@jax.jit
def _jacobian(problem: Any, z: jax.Array) -> jax.Array:
    return jax.jacfwd(problem.operator)(z)


def root(problem: Any) -> tuple[np.ndarray, float, bool]:
    """Return z*, |F(z*)| and whether it is a root of ``operator``, by SciPy's hybrid method.

    From there Newton steps follow as long as the norm of F falls. Jacobians are dense.
    """
    with jax.enable_x64(True):
        exact = cast_floats(jax.tree.map(np.asarray, problem), np.float64)

        def operator(z: np.ndarray) -> np.ndarray:
            return np.asarray(_operator(exact, z))

        def jacobian(z: np.ndarray) -> np.ndarray:
            return np.asarray(_jacobian(exact, z))

        z = np.asarray(exact.origin)
        start = max(1.0, float(np.linalg.norm(operator(z))))
        z = scipy.optimize.root(operator, z, jac=jacobian).x
        value = operator(z)
        for _ in range(ITERATIONS):
            direction = -np.linalg.lstsq(jacobian(z), value)[0]
            trial = operator(z + direction)
            if not np.linalg.norm(trial) < np.linalg.norm(value):
                break
            z, value = z + direction, trial
        length = float(np.linalg.norm(value))
        return z, length, length <= ACCURACY * start
