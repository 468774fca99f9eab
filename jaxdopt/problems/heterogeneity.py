"""How much the agents' objectives differ, as the theorems measure it."""

from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdopt._pytree import cast_floats, replace, require
from jaxdopt.problems import solver
from jaxdopt.problems.finite_sum import FiniteSum, gathered
from jaxdopt.problems.oracles import GaussianNoise, Minibatch
from jaxdopt.problems.quadratic import Quadratic


class Heterogeneity(NamedTuple):
    """What `heterogeneity` returns; both are 0 if all agents have the same minimizer.

    Attributes:
        dissimilarity: ζ² = (1/n) Σᵢ |n pᵢ ∇fᵢ(x*)|², of the gradients at the solution.
        gap: Γ = F* − Σᵢ pᵢ fᵢ*, by which the agents would do better alone, each at its own fᵢ*.
    """

    dissimilarity: float
    gap: float


def heterogeneity(problem: Any) -> Heterogeneity:
    """Return how much the agents' objectives differ, for a convex problem whose solution is known.

    Both numbers are of the objective alone, in float64: for stochastic problems they are the
    wrapped problem's. Every agent's own minimum fᵢ* is found by the solver of `FiniteSum.solved`,
    all by one program; do not call this inside jit. ζ² is what keeps DGD with a constant stepsize
    from the solution; Γ is the measure of Li, Huang, Yang, Wang, Zhang (2020), arXiv 1907.02189.

    Args:
        problem: a `FiniteSum` or a `Quadratic`, also with `Minibatch` or `GaussianNoise` around it.

    Raises:
        ValueError: another problem, an unknown solution, or an agent whose own objective has no
            minimizer, as for separable data without l2.

    Example:
        >>> import jaxdopt as jd
        >>> quadratics = jd.problems.quadratic(agents=5, d=3, heterogeneity=2.0)
        >>> round(heterogeneity(quadratics).dissimilarity, 6)
        4.0
    """
    while isinstance(problem, Minibatch | GaussianNoise):
        problem = problem.problem
    name = type(problem).__name__
    require(
        isinstance(problem, FiniteSum | Quadratic),
        f"heterogeneity needs the agents' own minima, which {name} does not know; give a FiniteSum "
        "or a Quadratic.",
    )
    require(
        problem.solution is not None,
        f"the solution of the {name} is not known; give a convex problem, solved: "
        "problem.solved().",
    )
    return _of_quadratics(problem) if isinstance(problem, Quadratic) else _of_sums(problem)


def _of_quadratics(problem: Quadratic) -> Heterogeneity:
    """Return ζ² from the tilts t, and Γ = (1/n) Σᵢ tᵢᵀ Aᵢ⁻¹ tᵢ / 2."""
    hessians, tilts = (np.asarray(part, float) for part in (problem.hessians, problem.tilts))
    least = np.linalg.eigvalsh(hessians)[:, 0]
    require(
        np.all(least > 0),
        f"agent {np.argmin(least)} has no minimizer of its own, with curvature {least.min():.3g}; "
        "give every agent a positive definite Hessian.",
    )
    steps = np.linalg.solve(hessians, tilts[:, :, None])[:, :, 0]
    gap = np.mean(np.sum(tilts * steps, axis=1)) / 2
    return Heterogeneity(float(np.mean(np.sum(tilts**2, axis=1))), float(gap))


def _of_sums(problem: FiniteSum) -> Heterogeneity:
    whole = gathered(problem)
    with jax.enable_x64(True):
        exact = cast_floats(jax.tree.map(np.asarray, whole), np.float64)
        gradients = jax.jit(FiniteSum.grad)(exact, exact.start(exact.unravel(exact.solution)))
        dissimilarity = float(np.mean(np.sum(np.asarray(gradients) ** 2, axis=1)))
        optimum = float(exact.objective(exact.solution))
    least = []
    for i in range(whole.n):
        _, value, found = solver.minimize(_alone(whole, i))
        require(
            found,
            f"agent {i}'s own objective has no minimizer that was found, so that Γ is not known; "
            "add l2 > 0.",
        )
        least.append(value)
    return Heterogeneity(dissimilarity, optimum - float(np.mean(least)))


def _alone(problem: FiniteSum, i: int) -> FiniteSum:
    """Return agent i's problem, whose objective is n pᵢ fᵢ; of one structure for all i."""
    data, sample_weights, sizes, shares = jax.tree.map(
        lambda leaf: leaf[i : i + 1],
        (problem.data, problem.sample_weights, problem.sizes, problem.shares),
    )
    return replace(
        problem,
        data=data,
        sample_weights=sample_weights,
        sizes=sizes,
        shares=shares,
        smoothness=None,
        strong_convexity=None,
        solution=None,
        optimum=None,
    )
