"""Any flax module, linen or nnx, as a finite sum over its parameters."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdopt._checks import require
from jaxdopt._opaque import traceable
from jaxdopt._pytree import pytree, static
from jaxdopt.problems.finite_sum import FiniteSum, Weighting
from jaxdopt.problems.neural.losses import NextToken, SampleLoss, cross_entropy
from jaxdopt.problems.partition import split
from jaxdopt.problems.samples import as_numbers, each

STATISTICS = "running statistics, which no method updates; use GroupNorm or LayerNorm"
RANDOM = "draws random numbers, such as dropout's, or changes a state of its own"
REMEDY = "make it deterministic, or give its gradients with a key, in jd.problems.Oracle"


@dataclasses.dataclass(frozen=True, eq=False)
class Alike:
    """A hashable stand-in for a module, which may hold lists, equal to those of equal modules."""

    of: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Alike) and type(self.of) is type(other.of) and self.of == other.of

    def __hash__(self) -> int:
        return hash(type(self.of))


@pytree
class Linen:
    """A linen module as a function of its parameters and of features [b, ...]."""

    constants: Any  # its other collections
    module: Alike = static()

    def __call__(self, params: Any, features: Any) -> Any:
        """Return the module's output."""
        return self.module.of.apply({"params": params, **self.constants}, features)


@pytree
class NNX:
    """An nnx module as a function of its parameters and of features [b, ...]."""

    rest: Any  # its other variables
    graph: Any = static()
    structure: Any = static()  # of its state of parameters

    def __call__(self, params: Any, features: Any) -> Any:
        """Return the module's output."""
        from flax import nnx

        state = jax.tree.unflatten(self.structure, jax.tree.leaves(params))
        return nnx.merge(self.graph, state, self.rest)(features)


def flax(
    module: Any,
    features: Any,
    labels: Any,
    *,
    loss: Callable[[Any, Any], Any] = cross_entropy,
    agents: int | None = None,
    partition: Any = None,
    l2: float = 0.0,
    weights: Weighting = "agents",
    seed: int = 0,
) -> FiniteSum:
    """Return the mean loss of a flax module as a problem over its parameters.

    All agents start from the same parameters, those that ``seed`` draws for a linen module, an nnx
    module's own; in float64 if the features are. ``problem.loss.predict(params, features)`` is the
    module, and ``problem.unravel(row)`` its parameters, a dict, for ``module.apply({"params": ...},
    features)`` or ``nnx.update(module, ...)``.

    Args:
        module: an instance, called with features [b, ...] alone.
        features: [m, ...] pooled; [n, m, ...] or a list of n arrays [mᵢ, ...] already split.
        labels: [m, ...]; [n, m, ...] or a list of n arrays.
        loss: ``loss(output, label)`` of one sample, such as one of Optax's; its mean is taken if it
            is no scalar. By default the cross-entropy of scores and integer classes.
        agents: n, for pooled data.
        partition: how pooled data are split, as in `mlp`; "iid" by default.
        l2: the regularizer's weight, at least 0.
        weights: "agents" for pᵢ = 1/n, "samples" for pᵢ = mᵢ/m.
        seed: of a linen module's starting parameters.

    Raises:
        ValueError: what is no flax module, running statistics (as BatchNorm's), random numbers (as
            those of dropout), classes without a score, and what `FiniteSum` refuses.

    Example:
        >>> from flax import linen as nn
        >>> model = nn.Sequential([nn.Dense(8), nn.relu, nn.Dense(2)])
        >>> problem = jd.problems.flax(model, A, (b > 0).astype(int), agents=4)
        >>> problem.n, problem.d == (3 * 8 + 8) + (8 * 2 + 2)
        (4, True)
        >>> accuracy = jd.metrics.accuracy(A, b > 0, predict=problem.loss.predict)
    """
    features, labels = _numbers("features", features), _numbers("labels", labels)
    features, labels = _dealt((features, labels), labels, agents, partition)
    sample = jnp.asarray(features[0][:1])
    predict, params = functional(module, sample, seed)
    if jnp.issubdtype(sample.dtype, jnp.floating):
        params = jax.tree.map(lambda leaf: leaf.astype(jnp.result_type(leaf, sample)), params)
    if loss is cross_entropy:
        _require_classes(labels, jax.eval_shape(predict, params, sample).shape[-1])
    return FiniteSum(
        SampleLoss(predict, traceable(loss)),
        (features, labels),
        params,
        l2=l2,
        weights=weights,
    )


def next_token(
    module: Any,
    windows: Any,
    *,
    agents: int | None = None,
    partition: Any = None,
    l2: float = 0.0,
    weights: Weighting = "agents",
    seed: int = 0,
) -> FiniteSum:
    """Return the mean cross-entropy, in nats a token, of a flax module that predicts next tokens.

    A sample is a window of T + 1 tokens, of which T are predicted; ``problem.tokens`` is T. The
    rest is as in `flax`.

    Args:
        module: takes tokens [b, T] and returns scores [b, T, vocabulary] of each next one, as
            `neural.Transformer` does.
        windows: integers [m, T + 1] pooled; [n, m, T + 1] or a list of n arrays [mᵢ, T + 1], such
            as ``text.windows(T)`` of `jd.data.text`. They stay in their dtype.
        agents: n, for pooled windows.
        partition: how pooled windows are split, "iid" by default, or index arrays.
        l2: the regularizer's weight, at least 0.
        weights: "agents" for pᵢ = 1/n, "samples" for pᵢ = mᵢ/m.
        seed: of a linen module's starting parameters.

    Raises:
        ValueError: tokens that are no integers or that have no score, and what `flax` refuses.

    Example:
        >>> text = jd.data.markov_text(books=3)
        >>> model = jd.problems.neural.Transformer(len(text.vocabulary), length=16, width=8)
        >>> problem = jd.problems.next_token(model, text.windows(16), weights="samples")
        >>> problem.n, problem.tokens
        (3, 16)
    """
    windows = _numbers("windows", windows)
    windows = _dealt(windows, windows, agents, partition)
    shape = np.shape(windows[0])
    require(
        len(shape) == 2 and shape[1] >= 2,
        f"the windows of an agent have shape {shape}; give [m, T + 1] for each agent, or agents= "
        "to split pooled ones.",
    )
    sample = windows[0][:1, :-1]
    require(
        np.issubdtype(sample.dtype, np.integer),
        f"windows has dtype {sample.dtype}; give tokens, integers from 0.",
    )
    predict, params = functional(module, sample, seed)
    scores = jax.eval_shape(predict, params, sample).shape
    require(
        scores[:-1] == sample.shape,
        f"the module makes {scores} of tokens {sample.shape}; return scores [b, T, vocabulary].",
    )
    _require_classes(windows, scores[-1])
    loss = NextToken(predict, tokens=shape[1] - 1)
    return FiniteSum(loss, windows, params, l2=l2, weights=weights)


def functional(module: Any, features: Any, seed: int = 0) -> tuple[Callable[..., Any], Any]:
    """Return a flax module as ``predict(params, features)``, and its starting parameters, a dict.

    Args:
        module: of linen or nnx.
        features: [1, ...], for the shapes.
        seed: of a linen module's parameters.

    Raises:
        ValueError: see `flax`.
    """
    from flax import errors, linen, nnx

    name, features = type(module).__name__, jnp.asarray(features)
    require(
        isinstance(module, linen.Module | nnx.Module),
        f"module is {module if isinstance(module, type) else name}; give an instance of a flax "
        "module, linen or nnx, or write the loss of a sample for jd.problems.FiniteSum.",
    )
    if isinstance(module, linen.Module):
        constants = dict(jax.jit(module.init)(jax.random.key(seed), features))
        params = constants.pop("params", {})
        statistics = "batch_stats" in constants
        predict = Linen(constants, Alike(module))
    else:
        graph, own, rest = nnx.split(module, nnx.Param, ...)
        params = nnx.to_pure_dict(own)
        statistics = any(isinstance(value, nnx.BatchStat) for _, value in nnx.to_flat_state(rest))
        predict = NNX(rest, graph, jax.tree.structure(own))
    require(not statistics, f"{name} has {STATISTICS}.")
    try:
        jax.eval_shape(lambda *given: predict(*given), params, features)  # a state is not traced
    except (errors.InvalidRngError, errors.TraceContextError, errors.ModifyScopeVariableError):
        raise ValueError(f"{name} {RANDOM}; {REMEDY}.") from None
    return predict, params


def _numbers(name: str, value: Any) -> Any:
    """Return an array, or a list of one an agent, of numbers in their own dtype."""
    if isinstance(value, list) and value and np.ndim(value[0]) > 0:
        return [as_numbers(f"{name} of agent {i}", part) for i, part in enumerate(value)]
    return value if isinstance(value, jax.Array) else as_numbers(name, value)


def _dealt(data: Any, labels: Any, agents: int | None, partition: Any) -> Any:
    """Return pooled data split over agents, and other data as they are."""
    if agents is None and partition is None:
        return data
    require(
        not isinstance(labels, list),
        "the data is a list of arrays, already split over agents; drop agents and partition.",
    )
    by = labels if np.ndim(labels) == 1 else np.zeros(len(labels), int)
    return split(data, by, agents=agents, partition="iid" if partition is None else partition)


def _require_classes(labels: Any, count: int) -> None:
    """Refuse labels that are no integers, or that the module gives no score."""

    def check(part: Any) -> Any:
        part = np.asarray(part)
        integers = np.issubdtype(part.dtype, np.integer) or part.dtype == bool
        low, high = (part.min(), part.max()) if part.size else (0, 0)
        require(
            integers and low >= 0 and high < count,
            f"the classes are {low} to {high}, of dtype {part.dtype}, and the module has {count} "
            f"scores; give integers from 0 to {count - 1}, or a module with more of them.",
        )
        return part

    each(labels, check)
