"""Samples as users bring them: pooled, split, or in lists of uneven arrays, of any dtype."""

from collections.abc import Callable
from typing import Any

import numpy as np

from jaxdopt._pytree import require
from jaxdopt.problems.partition import split


def distribute(features: Any, labels: Any, *, agents: int | None, partition: Any) -> Any:
    """Return (features, labels) as `FiniteSum` takes them: split, or else pooled and split here.

    Args:
        features: [m, p] pooled; [n, m, p] or a list of n arrays [mᵢ, p] already split.
        labels: [m]; [n, m] or a list of n arrays [mᵢ].
        agents: n, for pooled data.
        partition: as in `split`, or None for "iid"; for pooled data.

    Raises:
        ValueError: neither pooled nor split, or arguments that are for the other of the two.
    """
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
        partition = "iid" if partition is None else partition
        return split((features, labels), labels, agents=agents, partition=partition)
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
    return features, labels


def as_classes(labels: Any) -> tuple[Any, int]:
    """Return labels as int32 classes, and how many there are; refuse all but integers from 0."""
    values = _values(labels)
    require(
        all(float(v).is_integer() and v >= 0 for v in values),
        f"labels have the values {_list(values)}; give integer classes 0, 1, 2, ...",
    )
    return each(labels, lambda b: np.asarray(b).astype(np.int32)), int(max(values)) + 1


def as_signs(labels: Any, dtype: Any) -> Any:
    """Return labels 0/1 or -1/+1 as -1/+1."""
    values = _values(labels)
    require(
        set(values) <= {0, 1} or set(values) <= {-1, 1},
        f"labels have the values {_list(values)}; give 0/1 or -1/+1, or use softmax_regression.",
    )
    return each(labels, lambda b: np.where(np.asarray(b) > 0, 1, -1).astype(dtype))


def as_floating(values: Any) -> Any:
    """Return an array, or a list of arrays, whose dtype is floating: their own if it is."""

    def convert(value: Any) -> np.ndarray:
        value = np.asarray(value)
        return value if np.issubdtype(value.dtype, np.floating) else value.astype(float)

    return each(values, convert)


def dtype_of(features: Any) -> Any:
    """Return the dtype of features, an array or a list of arrays."""
    return np.result_type(*(features if isinstance(features, list) else [features]))


def _is_ragged(values: Any) -> bool:
    """Return whether these are arrays in a list; a list of numbers is an array."""
    return isinstance(values, list) and len(values) > 0 and np.ndim(values[0]) > 0


def each(values: Any, convert: Callable[[Any], np.ndarray]) -> Any:
    """Return what a conversion makes of an array, or of every array in a list."""
    if _is_ragged(values):
        return [convert(value) for value in values]
    return convert(values)


def _values(labels: Any) -> np.ndarray:
    parts = labels if _is_ragged(labels) else [labels]
    return np.unique(np.concatenate([np.ravel(np.asarray(part)) for part in parts]))


def _list(values: np.ndarray) -> str:
    shown = ", ".join(f"{v:g}" for v in values[:5])
    return shown + (", ..." if len(values) > 5 else "")
