"""Linear models as finite sums: least squares, logistic and softmax regression.

Labels and features come pooled, [m] and [m, p], with ``agents`` and a ``partition``, or already
split, as [n, m] and [n, m, p] or as lists of n arrays. There is no hidden intercept: append a
column of ones for one. The constants L and μ, the solution and the optimum are computed on the
host in float64.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdopt._pytree import require
from jaxdopt.problems.finite_sum import FiniteSum, Weighting, with_facts
from jaxdopt.problems.partition import split


def squared_loss(x: jax.Array, sample: tuple[jax.Array, jax.Array]) -> jax.Array:
    """(aᵀx − b)² / 2 for a sample (a, b)."""
    a, b = sample
    return (a @ x - b) ** 2 / 2


def logistic_loss(x: jax.Array, sample: tuple[jax.Array, jax.Array]) -> jax.Array:
    """log(1 + exp(−b aᵀx)) for a sample (a, b), b = ±1."""
    a, b = sample
    return jax.nn.softplus(-b * (a @ x))


def softmax_loss(x: jax.Array, sample: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Log Σ_c exp(aᵀx_c) − aᵀx_b for a sample (a, b), b a class; x is [p, classes]."""
    a, b = sample
    return optax.losses.softmax_cross_entropy_with_integer_labels(a @ x, b)


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

    Args:
        features: [m, p] pooled; [n, m, p] or a list of n arrays [mᵢ, p] already split.
        labels: [m]; [n, m] or a list of n arrays [mᵢ].
        agents: n, for pooled data.
        partition: "iid" (the default for pooled data), "by_label", `jd.partition.dirichlet(alpha)`,
            or a list of index arrays.
        l2: the regularizer's weight, at least 0.
        weights: "agents" for pᵢ = 1/n, "samples" for pᵢ = mᵢ/m.

    Raises:
        ValueError: shapes that disagree, NaN data, an empty agent.
    """
    features, labels = _floating(features), _floating(labels)
    return _linear(
        squared_loss, 1.0, (features, labels), labels, agents, partition, l2, weights, ()
    )


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

    Labels are 0/1 or -1/+1; all else is as in `least_squares`.

    Raises:
        ValueError: also for labels of other than these two values.
    """
    values = _values(labels)
    require(
        set(values) <= {0, 1} or set(values) <= {-1, 1},
        f"labels have the values {_list(values)}; give 0/1 or -1/+1, or use softmax_regression.",
    )
    signs = _each(labels, lambda b: np.where(np.asarray(b) > 0, 1.0, -1.0))
    features = _floating(features)
    return _linear(
        logistic_loss, 0.25, (features, signs), signs, agents, partition, l2, weights, ()
    )


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

    All else is as in `least_squares`. Without l2 the solution is not unique.

    Raises:
        ValueError: also for labels that are not integers from 0.
    """
    values = _values(labels)
    require(
        all(float(v).is_integer() and v >= 0 for v in values),
        f"labels have the values {_list(values)}; give integer classes 0, 1, 2, ...",
    )
    classes = int(max(values)) + 1
    labels = _each(labels, lambda b: np.asarray(b).astype(np.int32))
    return _linear(
        softmax_loss,
        0.5,
        (_floating(features), labels),
        labels,
        agents,
        partition,
        l2,
        weights,
        (classes,),
    )


def _linear(
    loss: Callable[..., Any],
    curvature: float,
    data: tuple[Any, Any],
    labels: Any,
    agents: int | None,
    partition: Any,
    l2: float,
    weights: Weighting,
    outputs: tuple[int, ...],
) -> FiniteSum:
    """Split the data, build the finite sum and compute its facts; curvature bounds loss''."""
    features = data[0]
    dimensions = np.ndim(features[0]) if len(features) > 0 else 0
    require(
        dimensions in (1, 2),
        f"there are {len(features)} rows of features, of {dimensions} dimensions each; give "
        "[m, p] pooled, or [n, m, p] split.",
    )
    if not isinstance(features, list) and features.ndim == 2:
        require(
            len(features) == len(labels),
            f"there are {len(features)} rows of features and {len(labels)} labels; give one label "
            "a row.",
        )
        require(
            agents is not None or partition is not None,
            "the data is pooled; say over how many agents to split it, agents=.",
        )
        data = split(
            data, labels, agents=agents, partition="iid" if partition is None else partition
        )
    else:
        require(
            partition is None,
            "the data is already split over agents; drop partition, or give pooled data [m, p].",
        )
        require(
            agents in (None, len(features)),
            f"agents is {agents} and the data is for {len(features)}; drop agents.",
        )
        shape = np.shape(features[0])
        require(
            len(shape) == 2,
            f"an agent's features have shape {shape}; give [m, p] for each agent.",
        )
    width = np.shape(data[0][0])[1]
    dtype = jnp.asarray(data[0][0]).dtype
    problem = FiniteSum(loss, data, jnp.zeros((width, *outputs), dtype), l2=l2, weights=weights)
    smooth, convex = _constants(problem, curvature, strongly=loss is squared_loss)
    return with_facts(problem, smooth, convex)


def _constants(problem: FiniteSum, curvature: float, strongly: bool) -> tuple[float, float]:
    """Return L = maxᵢ n pᵢ (c λ_max(Aᵢᵀ Aᵢ / mᵢ) + l2) and μ of F (l2, or more for squares)."""
    l2 = float(problem.l2)
    features = np.asarray(problem.data[0], float)
    shares = np.asarray(problem.shares, float)[:, None]
    sizes = np.asarray(problem.sizes)[:, None]
    weights = shares * (np.arange(features.shape[1]) < sizes) / sizes
    weighted = np.sqrt(weights)[:, :, None] * features
    top = np.linalg.norm(weighted, ord=2, axis=(1, 2)) ** 2
    smallest = 0.0
    if strongly:
        pooled = np.einsum("nmp,nmq->pq", weighted, weighted) / len(weights)
        smallest = max(float(np.linalg.eigvalsh(pooled)[0]), 0.0)
    return float(np.max(curvature * top + shares[:, 0] * l2)), smallest + l2


def _floating(values: Any) -> Any:
    def convert(value: Any) -> np.ndarray:
        value = np.asarray(value)
        return value if np.issubdtype(value.dtype, np.floating) else value.astype(float)

    return _each(values, convert)


def _is_ragged(values: Any) -> bool:
    """Return whether these are arrays in a list; a list of numbers is an array."""
    return isinstance(values, list) and len(values) > 0 and np.ndim(values[0]) > 0


def _each(values: Any, convert: Callable[[Any], np.ndarray]) -> Any:
    if _is_ragged(values):
        return [convert(value) for value in values]
    return convert(values)


def _values(labels: Any) -> np.ndarray:
    parts = labels if _is_ragged(labels) else [labels]
    return np.unique(np.concatenate([np.ravel(np.asarray(part)) for part in parts]))


def _list(values: np.ndarray) -> str:
    shown = ", ".join(f"{v:g}" for v in values[:5])
    return shown + (", ..." if len(values) > 5 else "")
