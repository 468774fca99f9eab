"""Linear models as finite sums: least squares, Huber, logistic and softmax regression.

Labels and features are pooled, [m] and [m, p], with ``agents`` and a ``partition``; or already
split, as [n, m] and [n, m, p], as lists of n arrays or as dicts {agent: array}. Arrays are dense,
of NumPy, JAX or pandas, and strings that spell numbers are accepted. No intercept is added: append
a column of ones for one. The constants L and μ, the solution and the optimum are computed on the
host in float64.

Losses are functions of the scores aᵀx, so that XLA computes the gradients of all agents and samples
by one batched product each way; what is left to make cheap is the derivative of the loss in the
score.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdopt._numbers import number
from jaxdopt._pytree import pytree, replace
from jaxdopt.problems.finite_sum import FiniteSum, Weighting, with_facts
from jaxdopt.problems.samples import (
    as_classes,
    as_signs,
    distribute,
    dtype_of,
    each,
    read,
)

Sample = tuple[jax.Array, jax.Array]  # features [p] and a label


@jax.custom_jvp
def softplus(z: jax.Array) -> jax.Array:
    """log(1 + exp(z)), with the derivative σ(z) at half the price of `jax.nn.softplus`'s."""
    return jax.nn.softplus(z)


softplus.defjvps(lambda tangent, _, z: tangent * jax.nn.sigmoid(z))


def squared_loss(x: jax.Array, sample: Sample) -> jax.Array:
    """(aᵀx − b)² / 2 for a sample (a, b)."""
    a, b = sample
    return (a @ x - b) ** 2 / 2


def logistic_loss(x: jax.Array, sample: Sample) -> jax.Array:
    """log(1 + exp(−b aᵀx)) for a sample (a, b), b = ±1."""
    a, b = sample
    return softplus(-b * (a @ x))


def softmax_loss(x: jax.Array, sample: Sample) -> jax.Array:
    """Log Σ_c exp(aᵀx_c) − aᵀx_b for a sample (a, b), b a class; x is [p, classes]."""
    import optax

    a, b = sample
    chosen = jax.nn.one_hot(b, x.shape[1], dtype=x.dtype)  # a gather's slope would be a scatter
    return optax.losses.softmax_cross_entropy(a @ x, chosen)


@pytree
class HuberLoss:
    """H(aᵀx − b) for a sample (a, b): H(r) = r²/2 up to |r| = δ, then δ|r| − δ²/2."""

    delta: Any

    def __call__(self, x: jax.Array, sample: Sample) -> jax.Array:
        """Return the loss of one sample."""
        import optax

        a, b = sample
        return optax.losses.huber_loss(a @ x, b, delta=self.delta)


@pytree
class NonconvexLogisticLoss:
    """log(1 + exp(−b aᵀx)) + w Σⱼ xⱼ² / (1 + xⱼ²) for a sample (a, b), b = ±1."""

    weight: Any

    def __call__(self, x: jax.Array, sample: Sample) -> jax.Array:
        """Return the loss of one sample."""
        return logistic_loss(x, sample) + self.weight * jnp.sum(x**2 / (1 + x**2))


def least_squares(
    features: Any,
    labels: Any,
    *,
    agents: int | None = None,
    partition: Any = None,
    l2: float = 0.0,
    weights: Weighting = "agents",
) -> FiniteSum:
    """Return fᵢ(x) = (1/mᵢ) Σⱼ (aᵢⱼᵀx − bᵢⱼ)² / 2 + (l2/2)|x|², x [p].

    With ``l2 > 0`` this is ridge regression.

    Args:
        features: [m, p] pooled; [n, m, p] or a list or dict of n arrays [mᵢ, p] already split.
        labels: [m]; [n, m] or a list of n arrays [mᵢ]; they take the features' dtype.
        agents: n, for pooled data.
        partition: "iid" (the default for pooled data), "by_label", `jd.partition.dirichlet(alpha)`,
            or index arrays, in a list or a dict {agent: indices}.
        l2: the regularizer's weight, at least 0.
        weights: "agents" for pᵢ = 1/n, "samples" for pᵢ = mᵢ/m.

    Raises:
        ValueError: shapes that disagree, NaN data, an empty agent.
    """
    features, labels = read(features, labels)
    labels = each(labels, lambda b: b.astype(dtype_of(features)))
    problem = _finite_sum(squared_loss, features, labels, agents, partition, l2, weights)
    return with_facts(problem, *_constants(problem, curvature=1.0, quadratic=True))


def huber_regression(
    features: Any,
    labels: Any,
    *,
    delta: float = 1.0,
    agents: int | None = None,
    partition: Any = None,
    l2: float = 0.0,
    weights: Weighting = "agents",
) -> FiniteSum:
    """Return fᵢ(x) = (1/mᵢ) Σⱼ H(aᵢⱼᵀx − bᵢⱼ) + (l2/2)|x|², x [p], robust to wild labels.

    H(r) = r²/2 up to |r| = δ and δ|r| − δ²/2 beyond.

    Args:
        features: [m, p] pooled; [n, m, p] or a list or dict of n arrays [mᵢ, p] already split.
        labels: [m]; [n, m] or a list of n arrays [mᵢ]; they take the features' dtype.
        delta: δ > 0; a leaf of the problem, so that a new one compiles nothing anew.
        agents: n, for pooled data.
        partition: how pooled data are split: "iid" by default, "by_label",
            `jd.partition.dirichlet(alpha)`, or index arrays, in a list or a dict {agent: indices}.
        l2: the regularizer's weight, at least 0.
        weights: "agents" for pᵢ = 1/n, "samples" for pᵢ = mᵢ/m.

    Raises:
        ValueError: also for a δ that is not above 0.

    Example:
        >>> import jaxdopt as jd
        >>> problem = jd.problems.huber_regression(A, b, delta=0.5, agents=4)
        >>> jnp.abs(jax.grad(problem.objective)(problem.solution)).max().item() < 1e-9
        True
    """
    loss = HuberLoss(number("delta", delta, above=0.0))
    features, labels = read(features, labels)
    labels = each(labels, lambda b: b.astype(dtype_of(features)))
    problem = _finite_sum(loss, features, labels, agents, partition, l2, weights)
    return with_facts(problem, *_constants(problem, curvature=1.0))


def logistic_regression(
    features: Any,
    labels: Any,
    *,
    agents: int | None = None,
    partition: Any = None,
    l2: float = 0.0,
    weights: Weighting = "agents",
) -> FiniteSum:
    """Return fᵢ(x) = (1/mᵢ) Σⱼ log(1 + exp(−bᵢⱼ aᵢⱼᵀx)) + (l2/2)|x|², x [p].

    Args:
        features: [m, p] pooled; [n, m, p] or a list or dict of n arrays [mᵢ, p] already split.
        labels: 0/1 or -1/+1, [m]; [n, m] or a list of n arrays [mᵢ].
        agents: n, for pooled data.
        partition: how pooled data are split: "iid" by default, "by_label",
            `jd.partition.dirichlet(alpha)`, or index arrays, in a list or a dict {agent: indices}.
        l2: the regularizer's weight, at least 0.
        weights: "agents" for pᵢ = 1/n, "samples" for pᵢ = mᵢ/m.

    Raises:
        ValueError: also for labels of other than these two values.
    """
    features, labels = read(features, labels)
    signs = as_signs(labels, dtype_of(features))
    problem = _finite_sum(logistic_loss, features, signs, agents, partition, l2, weights)
    return with_facts(problem, *_constants(problem, curvature=0.25))


def nonconvex_logistic_regression(
    features: Any,
    labels: Any,
    *,
    weight: float = 0.1,
    agents: int | None = None,
    partition: Any = None,
    l2: float = 0.0,
    weights: Weighting = "agents",
) -> FiniteSum:
    """Return logistic regression with the penalty w Σⱼ xⱼ² / (1 + xⱼ²), which is not convex.

    Its curvature is between −w/2 and 2w, so that L is logistic regression's plus 2w. Neither μ nor
    a solution is known or looked for; judge runs by `gradient_norm_squared`. Used
    by Huang, Li, Milzarek, Pu, Qiu (2021), arXiv 2112.15287, and many.

    Args:
        features: [m, p] pooled; [n, m, p] or a list or dict of n arrays [mᵢ, p] already split.
        labels: 0/1 or -1/+1, [m]; [n, m] or a list of n arrays [mᵢ].
        weight: w, at least 0; a leaf of the problem, so that a new one compiles nothing anew.
        agents: n, for pooled data.
        partition: how pooled data are split: "iid" by default, "by_label",
            `jd.partition.dirichlet(alpha)`, or index arrays, in a list or a dict {agent: indices}.
        l2: the regularizer's weight, at least 0.
        weights: "agents" for pᵢ = 1/n, "samples" for pᵢ = mᵢ/m.

    Raises:
        ValueError: also for a negative weight.
    """
    loss = NonconvexLogisticLoss(number("weight", weight, minimum=0.0))
    features, labels = read(features, labels)
    signs = as_signs(labels, dtype_of(features))
    problem = _finite_sum(loss, features, signs, agents, partition, l2, weights)
    smoothness, _ = _constants(problem, curvature=0.25, penalty=2 * loss.weight)
    return replace(problem, smoothness=jnp.asarray(smoothness, problem.origin.dtype))


def softmax_regression(
    features: Any,
    labels: Any,
    *,
    agents: int | None = None,
    partition: Any = None,
    l2: float = 0.0,
    weights: Weighting = "agents",
) -> FiniteSum:
    """Return the cross-entropy of a linear model, x [p, classes], labels 0 ... classes − 1.

    Without l2 the solution is not unique.

    Args:
        features: [m, p] pooled; [n, m, p] or a list or dict of n arrays [mᵢ, p] already split.
        labels: integers from 0, [m]; [n, m] or a list of n arrays [mᵢ].
        agents: n, for pooled data.
        partition: how pooled data are split: "iid" by default, "by_label",
            `jd.partition.dirichlet(alpha)`, or index arrays, in a list or a dict {agent: indices}.
        l2: the regularizer's weight, at least 0.
        weights: "agents" for pᵢ = 1/n, "samples" for pᵢ = mᵢ/m.

    Raises:
        ValueError: also for labels that are not integers from 0.
    """
    features, labels = read(features, labels)
    labels, classes = as_classes(labels)
    problem = _finite_sum(
        softmax_loss, features, labels, agents, partition, l2, weights, (classes,)
    )
    return with_facts(problem, *_constants(problem, curvature=0.5))


def _finite_sum(
    loss: Callable[..., Any],
    features: Any,
    labels: Any,
    agents: int | None,
    partition: Any,
    l2: float,
    weights: Weighting,
    outputs: tuple[int, ...] = (),
) -> FiniteSum:
    """Return the finite sum of a loss over x [p, *outputs], the data split over agents."""
    data = distribute(features, labels, agents=agents, partition=partition)
    width = np.shape(data[0][0])[-1]
    params = np.zeros((width, *outputs), dtype_of(features))
    return FiniteSum(loss, data, params, l2=l2, weights=weights)


def _constants(
    problem: FiniteSum, curvature: float, *, penalty: float = 0.0, quadratic: bool = False
) -> tuple[float, float]:
    """Return L = maxᵢ n pᵢ (c λ_max(Aᵢᵀ Aᵢ / mᵢ) + penalty + l2) and μ of F, l2 or more.

    c bounds the second derivative of the score's loss, and is it where that is ``quadratic``.
    """
    l2 = float(problem.l2)
    features = np.asarray(problem.data[0], float)
    shares = np.asarray(problem.shares, float)[:, None]
    sizes = np.asarray(problem.sizes)[:, None]
    weights = shares * (np.arange(features.shape[1]) < sizes) / sizes
    weighted = np.sqrt(weights)[:, :, None] * features
    top = np.linalg.norm(weighted, ord=2, axis=(1, 2)) ** 2
    smallest = 0.0
    if quadratic:
        pooled = np.einsum("nmp,nmq->pq", weighted, weighted) / len(weights)
        smallest = max(float(np.linalg.eigvalsh(pooled)[0]), 0.0)
    return float(np.max(curvature * top + shares[:, 0] * (penalty + l2))), smallest + l2
