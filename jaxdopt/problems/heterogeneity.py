"""How much the agents' objectives differ, and their samples, as the theorems measure it."""

from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdopt._checks import require
from jaxdopt._leaves import cast_floats
from jaxdopt._numbers import number
from jaxdopt._pytree import replace
from jaxdopt._wrapper import wrapped
from jaxdopt.problems import solver
from jaxdopt.problems.finite_sum import FiniteSum, gathered
from jaxdopt.problems.linear import (
    HuberLoss,
    NonconvexLogisticLoss,
    logistic_loss,
    softmax_loss,
    squared_loss,
)
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

    Both numbers are of the objective alone, in float64: for stochastic problems, of the wrapped
    problem. Every agent's own minimum fᵢ* is found by the solver of `FiniteSum.solved`,
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
        problem = wrapped(problem)
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


class GeneralVariance(NamedTuple):
    """What `general_variance` returns.

    Attributes:
        C: the factor of fᵢ − fᵢ*.
        sigma_squared: σ², what is left at an agent's own minimizer.
    """

    C: float
    sigma_squared: float


def general_variance(problem: Any, *, smoothness: float | None = None) -> GeneralVariance:
    """Return C and σ² with E|gᵢ(x) − ∇fᵢ(x)|² ≤ C (fᵢ(x) − fᵢ*) + σ² for all x and agents.

    This is the condition of Huang, Li, Pu (2023), arXiv 2301.12677, here for the objectives n pᵢ fᵢ
    whose gradients peers are given. Finite sums have it without any further assumption. A
    component l ≥ 0 that is ℓ-smooth has |∇l|² ≤ 2ℓ l, since it is nonnegative one gradient step
    further too. So the mean over b samples drawn with replacement has a variance of at most
    (1/b) meanⱼ |∇lᵢⱼ|² ≤ (2ℓ/b) fᵢ = C (fᵢ − fᵢ*) + C fᵢ* with C = 2ℓ/b, and σ² = C maxᵢ fᵢ*.
    Around it, `GaussianNoise` adds (maxᵢ n pᵢ)² times its own σ²; full gradients have C = 0.

    Args:
        problem: a `FiniteSum` of convex losses of at least 0, as those of linear models are, with
            `Minibatch` or `GaussianNoise` around it.
        smoothness: ℓ, such that every sample's n pᵢ (loss + (l2/2)|x|²) is ℓ-smooth; known for
            linear models.

    Raises:
        ValueError: another problem, an unknown ℓ, or an agent whose own objective has no minimizer.

    Example:
        >>> import jaxdopt as jd
        >>> ridge = jd.problems.least_squares(A, b, agents=4, l2=0.1)
        >>> whole = general_variance(jd.problems.Minibatch(ridge, 1))
        >>> half = general_variance(jd.problems.Minibatch(ridge, 2))
        >>> round(whole.C / half.C, 6), general_variance(ridge).C
        (2.0, 0.0)
    """
    batch, noise = None, 0.0
    while isinstance(problem, Minibatch | GaussianNoise):
        if isinstance(problem, Minibatch):
            batch = problem.batch
        else:
            noise += float(problem.sigma) ** 2
        problem = wrapped(problem)
    require(
        isinstance(problem, FiniteSum),
        f"general_variance is about samples, which a {type(problem).__name__} has not; give a "
        "FiniteSum with Minibatch around it.",
    )
    noise *= float(np.max(np.asarray(problem.shares))) ** 2
    if batch is None:
        return GeneralVariance(0.0, noise)
    whole = gathered(problem)
    if smoothness is None:
        smoothness = _component_smoothness(whole)
    factor = 2 * number("smoothness", smoothness, minimum=0.0) / batch
    return GeneralVariance(factor, factor * max(_own_minima(whole)) + noise)


def _component_smoothness(problem: FiniteSum) -> float:
    """Return the largest n pᵢ (c |aᵢⱼ|² + penalty + l2) of a linear model, c as for its L."""
    loss = getattr(problem.loss, "func", problem.loss)
    known: dict[Any, float] = {squared_loss: 1.0, logistic_loss: 0.25, softmax_loss: 0.5}
    curvature, penalty = known.get(loss), 0.0
    if isinstance(loss, HuberLoss):
        curvature = 1.0
    elif isinstance(loss, NonconvexLogisticLoss):
        curvature, penalty = 0.25, 2 * float(loss.weight)
    require(
        curvature is not None,
        "the smoothness of this loss is not known; give that of its worst sample, smoothness=.",
    )
    squares = np.sum(np.asarray(problem.data[0], float) ** 2, axis=2).max(axis=1)
    shares = np.asarray(problem.shares, float)
    return float(np.max(shares * (curvature * squares + penalty + float(problem.l2))))  # type: ignore


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
    return Heterogeneity(dissimilarity, optimum - float(np.mean(_own_minima(whole))))


def _own_minima(problem: FiniteSum) -> list[float]:
    """Return every agent's n pᵢ fᵢ*, of a problem whose agents are not chosen by `take`."""
    least = []
    for i in range(problem.n):
        _, value, found = solver.minimize(_alone(problem, i))
        require(
            found,
            f"agent {i}'s own objective has no minimizer that was found, so that Γ is not known; "
            "add l2 > 0.",
        )
        least.append(value)
    return least


def _alone(problem: FiniteSum, i: int) -> FiniteSum:
    """Return agent i's problem, whose objective is n pᵢ fᵢ; of one structure for all i."""
    data, sample_weights, sizes, agent_weights = jax.tree.map(
        lambda leaf: leaf[i : i + 1],
        (problem.data, problem.sample_weights, problem.sizes, problem.agent_weights),
    )
    return replace(
        problem,
        data=data,
        sample_weights=sample_weights,
        sizes=sizes,
        agent_weights=agent_weights,
        smoothness=None,
        strong_convexity=None,
        solution=None,
        optimum=None,
    )
