"""The minimizer of a convex objective, smooth or composite, on the host, in float64."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse.linalg

from jaxdopt._leaves import cast_floats

ACCURACY = 1e-9  # of the gradient's norm, relative to where it started (and at least 1)
ITERATIONS = 100
PROXIMAL_TARGET = 1e-15  # of the prox-gradient residual, relative to the terms it is made of
PROXIMAL_ACCURACY = 1e-13  # of the same, to be counted as a minimizer
PROXIMAL_ITERATIONS = 100_000
PATIENCE = 1000  # iterations without a better residual; later on, as many as there were before


@jax.jit
def _value_and_grad(problem: Any, x: jax.Array) -> Any:
    return jax.value_and_grad(problem.objective)(x)


@jax.jit
def _curvature(problem: Any, x: jax.Array, direction: jax.Array) -> jax.Array:
    return jax.jvp(jax.grad(problem.objective), (x,), (direction,))[1]


def minimize(problem: Any) -> tuple[np.ndarray, float, bool]:
    """Return x*, F(x*) and whether x* is a minimizer, by Newton's method with CG inside.

    Steps are halved until the gradient's norm or the objective falls, and the method stops where
    neither does: at the accuracy of float64 if there is a minimizer. If there is none, as with
    separable data and no regularizer, Newton's steps stay long however small the gradient is.
    """
    with jax.enable_x64(True):
        exact = cast_floats(jax.tree.map(np.asarray, problem), np.float64)
        x = np.asarray(exact.origin)
        value, gradient = map(np.asarray, _value_and_grad(exact, x))
        start = max(1.0, float(np.linalg.norm(gradient)))
        length = np.inf
        for _ in range(ITERATIONS):
            norm = np.linalg.norm(gradient)
            direction = _newton_direction(exact, x, gradient)
            length = np.linalg.norm(direction) / (1 + np.linalg.norm(x))
            if not 1e-16 * start < norm < np.inf:
                break
            step = 1.0
            while step > 1e-6:
                trial = x + step * direction
                trial_value, trial_gradient = map(np.asarray, _value_and_grad(exact, trial))
                enough = value + 1e-4 * step * (direction @ gradient)
                if np.linalg.norm(trial_gradient) < norm or trial_value < enough:
                    break
                step /= 2
            else:
                break
            x, value, gradient = trial, trial_value, trial_gradient
        small = np.linalg.norm(gradient) <= ACCURACY * start and length <= np.sqrt(ACCURACY)
        return x, float(value), bool(small)


def _newton_direction(problem: Any, x: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """Return −H⁻¹ g by conjugate gradients, or −g where that does not descend."""
    hessian = scipy.sparse.linalg.LinearOperator(
        shape=(len(x), len(x)),
        matvec=lambda v: np.asarray(_curvature(problem, x, v.ravel())),
        dtype=float,
    )
    with np.errstate(divide="ignore", invalid="ignore"):  # no curvature: the fallback below
        direction, _ = scipy.sparse.linalg.cg(hessian, -gradient, rtol=1e-10, maxiter=1000)
    return direction if direction @ gradient < 0 else -gradient


def minimize_composite(problem: Any) -> tuple[np.ndarray, float, bool]:
    """Return x*, F(x*) and whether x* is a minimizer, by accelerated proximal gradients.

    The residual is L |y − proxₜ(y − t ∇f(y))|, t = 1/L. The method stops at `PROXIMAL_TARGET`, or
    where the residual no longer falls: at the accuracy of float64 if there is a minimizer.
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
