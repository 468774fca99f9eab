"""A fully connected network with tanh units, in plain JAX."""

import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdopt._checks import count, require
from jaxdopt.problems.finite_sum import FiniteSum, Weighting
from jaxdopt.problems.neural.losses import cross_entropy
from jaxdopt.problems.samples import as_classes, distribute, dtype_of, read


def predict(params: Any, features: jax.Array) -> jax.Array:
    """Return the scores [..., classes] that params give features [..., p]; tanh between layers."""
    *inner, last = params
    for layer in inner:
        features = jnp.tanh(features @ layer["W"] + layer["b"])
    return features @ last["W"] + last["b"]


def loss(params: Any, sample: tuple[jax.Array, jax.Array]) -> jax.Array:
    """−log of the probability that the scores of a sample (a, b) give to its class b."""
    a, b = sample
    return cross_entropy(predict(params, a), b)


def mlp(
    features: Any,
    labels: Any,
    *,
    hidden: Sequence[int] = (32,),
    agents: int | None = None,
    partition: Any = None,
    l2: float = 0.0,
    weights: Weighting = "agents",
    seed: int = 0,
) -> FiniteSum:
    """Return the cross-entropy of a fully connected neural network with tanh units, not convex.

    The parameters are a list of layers ``{"W": [inputs, outputs], "b": [outputs]}``. All agents
    start from the same ones: uniform weights after Glorot and Bengio (2010), biases 0. l2 applies
    to all parameters.

    Args:
        features: [m, p] pooled; [n, m, p] or a list of n arrays [mᵢ, p] already split.
        labels: classes 0, 1, 2, ...: [m]; [n, m] or a list of n arrays [mᵢ].
        hidden: the widths of the hidden layers; () is softmax regression with an intercept.
        agents: n, for pooled data.
        partition: how pooled data are split: "iid" by default, "by_label",
            `jd.partition.dirichlet(alpha)`, or index arrays, in a list or a dict {agent: indices}.
        l2: the regularizer's weight, at least 0.
        weights: "agents" for pᵢ = 1/n, "samples" for pᵢ = mᵢ/m.
        seed: of the starting weights.

    Raises:
        ValueError: widths that are not integers of at least 1, labels that are not classes, and
            what `least_squares` refuses.

    Example:
        >>> import jaxdopt as jd
        >>> problem = jd.problems.mlp(A, b > 0, hidden=(8,), agents=4)
        >>> problem.d == (3 * 8 + 8) + (8 * 2 + 2)
        True
        >>> accuracy = jd.metrics.accuracy(A, b > 0, predict=jd.problems.neural.predict)
    """
    require(
        isinstance(hidden, Sequence) and not isinstance(hidden, str),
        f"hidden is {hidden!r}; give the widths of the hidden layers, such as (32,).",
    )
    hidden = [count("hidden width", width) for width in hidden]
    features, labels = read(features, labels)
    labels, classes = as_classes(labels)
    data = distribute(features, labels, agents=agents, partition=partition)
    widths = [np.shape(data[0][0])[-1], *hidden, classes]
    random = np.random.default_rng(seed)
    params = []
    for inputs, outputs in itertools.pairwise(widths):
        bound = np.sqrt(6 / (inputs + outputs))
        layer = {"W": random.uniform(-bound, bound, (inputs, outputs)), "b": np.zeros(outputs)}
        params.append({name: leaf.astype(dtype_of(features)) for name, leaf in layer.items()})
    return FiniteSum(loss, data, params, l2=l2, weights=weights)
