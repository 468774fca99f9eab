"""The minimizer of a smooth convex objective, on the host, in float64."""

from typing import Any

import jax
import numpy as np
import scipy.sparse.linalg

from jaxdopt._pytree import cast_floats

ACCURACY = 1e-9  # of the gradient's norm, relative to where it started (and at least 1)
ITERATIONS = 100


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
