"""Composite problems: a smooth problem and a regularizer whose proximal map is known."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdopt._checks import require
from jaxdopt._pytree import pytree, replace
from jaxdopt._wrapper import wrapped
from jaxdopt.problems import solver
from jaxdopt.problems.wrapper import Wrapper


@pytree
class Composite(Wrapper):
    """F(x) = f(x) + r(x), f = Σᵢ pᵢ fᵢ the objective of a smooth problem, r the regularizer.

    Gradients, samples, starts, `smoothness` and everything else that is not defined here are the
    smooth problem's. r counts once, whatever n is: an agent that has a copy of it takes
    ``problem.prox(z, t)`` with its own stepsize t.

    Args:
        problem: the smooth problem, deterministic or stochastic.
        regularizer: from `jd.problems.prox`, or your own pytree with ``r(x)`` at one point [d] and
            ``prox(z, t)`` on rows, and with ``convex = True`` on its class if it is convex.
        solution: a minimizer [d], if you know one; ``solved`` finds it.
        optimum: F there.

    Raises:
        ValueError: the problem has no grad, or has a regularizer already, or this regularizer has
            no prox.

    Example:
        >>> import jaxdopt as jd
        >>> smooth = jd.problems.least_squares(A, b, agents=4)
        >>> lasso = Composite(smooth, jd.problems.prox.L1(100.0)).solved()
        >>> lasso.solution.any().item()
        False
    """

    problem: Any
    regularizer: Any
    solution: Any = None
    optimum: Any = None

    def __post_init__(self) -> None:
        """Check that these are a smooth problem and a regularizer."""
        problem = wrapped(self)
        name = type(problem).__name__
        require(
            getattr(problem, "regularizer", None) is None,
            f"the {name} has a regularizer already; give the sum of the two as one, with its prox.",
        )
        require(
            callable(self.regularizer) and hasattr(self.regularizer, "prox"),
            f"regularizer is {self.regularizer!r}; give one with a prox, such as "
            "jd.problems.prox.L1(0.1).",
        )

    @property
    def smooth_objective(self) -> Any:
        """The smooth part f at one point [d], or None where the problem does not know it."""
        return getattr(wrapped(self), "objective", None)

    @property
    def objective(self) -> Any:
        """F = f + r at one point [d], or None where the problem does not know f."""
        smooth = self.smooth_objective
        return None if smooth is None else lambda x: smooth(x) + self.regularizer(x)

    @property
    def strong_convexity(self) -> Any:
        """The smooth part's μ, which is F's too if r is convex; otherwise None."""
        known = getattr(wrapped(self), "strong_convexity", None)
        return known if _is_convex(self) else None

    def prox(self, z: jax.Array, t: Any) -> jax.Array:
        """Return argmin_u r(u) + |u − z|²/(2t) for every row [..., d]; t a number or [n, 1]."""
        return self.regularizer.prox(z, t)

    def take(self, agents: jax.Array) -> "Composite":
        """Return the problem of some agents [s], with the same regularizer and no solution."""
        return Composite(wrapped(self).take(agents), self.regularizer)

    def solved(self) -> "Composite":
        """Return the problem with `solution` and `optimum` known, by proximal gradients in float64.

        The accelerated iteration ends at a relative prox-gradient residual of 1e-15, or where
        rounding keeps it from falling further. F has to be convex and have a minimizer. Do not call
        this inside jit.

        Raises:
            ValueError: r is not convex, f or its `smoothness` is not known, or no minimizer was
                found.
        """
        require(
            _is_convex(self),
            f"{type(self.regularizer).__name__} is not known to be convex (convex = True), so that "
            "a minimizer could not be told from a stationary point; use the problem unsolved.",
        )
        name = type(wrapped(self)).__name__
        require(
            self.smooth_objective is not None and getattr(self, "smoothness", None) is not None,
            f"the {name}'s objective or smoothness is not known; give it both, for a FiniteSum as "
            "jd.replace(problem, smoothness=L).",
        )
        x, value, found = solver.minimize_composite(self)
        require(
            found,
            f"no minimizer was found, F = {value:.6g} at |x| = {np.linalg.norm(x):.3g}; there may "
            "be none, or the problem is too ill-conditioned: add l2 > 0, or scale the features.",
        )
        dtype = self.start().dtype
        return replace(self, solution=jnp.asarray(x, dtype), optimum=jnp.asarray(value, dtype))


def _is_convex(problem: Composite) -> bool:
    return getattr(problem.regularizer, "convex", False)
