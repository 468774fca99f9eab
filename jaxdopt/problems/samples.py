"""Reading users' samples: pooled, split, or one array an agent, in any container and dtype."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import scipy.sparse

from jaxdopt._checks import require
from jaxdopt._leaves import is_traced
from jaxdopt.problems.partition import in_order, is_missing, split


def read(features: Any, labels: Any) -> tuple[Any, Any]:
    """Return floating features and numeric labels, both as arrays or lists of one array an agent.

    Pooled or evenly split data are arrays (of NumPy, JAX, pandas or anything that NumPy reads) or
    lists of rows. Agents' arrays come in a list, a tuple, an object array or a dict {agent: array}.
    Strings that spell numbers are read as numbers, and a column of labels, [m, 1], as [m].

    Raises:
        ValueError: data that are no array of real numbers, are sparse, or have labels missing.
    """
    if isinstance(features, Mapping):
        require(
            isinstance(labels, Mapping) and set(labels) == set(features),
            "features is a dict of agents and labels is not, or is for other agents; give both as "
            "dicts with the same keys.",
        )
        labels = in_order({agent: labels[agent] for agent in features})
        features = in_order(features)
        _require_depth(features)
    features = as_floating(_arrays("features", features, depth=2))
    pooled = not isinstance(features, list) and features.ndim == 2
    shape = np.shape(features[0]) if isinstance(features, list) else features.shape
    require(
        isinstance(features, list) or (features.ndim in (2, 3) and len(features) > 0),
        f"features has shape {shape}; give [m, p] pooled, or [n, m, p] split.",
    )
    labels = _arrays("labels", labels, depth=2 if pooled else 1)
    axes = 1 if pooled or isinstance(labels, list) else 2
    return features, each(labels, lambda b: _labels(b, axes, shape))


def _require_depth(parts: Any) -> None:
    depth = min(map(_depth, parts), default=0)
    require(
        depth >= 2,
        f"features is a dict whose values have {depth} dimensions; give {{agent: features [m, p]}}"
        ", or an array [m, p].",
    )


def _arrays(name: str, value: Any, depth: int) -> Any:
    """Return one array, or a list of arrays if the value holds some of ``depth`` or more axes."""
    if isinstance(value, Mapping):
        value = in_order(value)
    if isinstance(value, np.ndarray) and value.dtype == object and value.ndim == 1:
        value = value.tolist()
    if isinstance(value, list | tuple) and any(_depth(part) >= depth for part in value):
        return [as_numbers(f"{name} of agent {i}", part) for i, part in enumerate(value)]
    return as_numbers(name, value)


def _depth(value: Any) -> int:
    """Return the number of axes, also of ragged lists."""
    if isinstance(value, list | tuple):
        return 1 + (_depth(value[0]) if value else 0)
    return getattr(value, "ndim", 0)


def _labels(labels: np.ndarray, axes: int, shape: tuple[int, ...]) -> np.ndarray:
    """Return labels with so many axes, dropping a last axis of length one; refuse other shapes."""
    if labels.ndim == axes + 1 and labels.shape[-1] == 1:
        labels = labels[..., 0]
    require(
        labels.ndim >= axes or axes == 1,
        f"features is split over agents, as {shape}, and labels has shape {labels.shape}; give "
        "labels [n, m], or features [m, p], as features.reshape(len(features), -1) of images.",
    )
    require(
        labels.ndim == axes,
        f"labels has shape {labels.shape}; give one label a sample, [m], such as labels.argmax(-1) "
        "for classes in one-hot form.",
    )
    if jnp.issubdtype(labels.dtype, jnp.floating):
        missing = int(np.isnan(labels.astype(float)).sum())
        require(missing == 0, f"labels has {missing} values that are NaN; drop those samples.")
    return labels


def as_numbers(name: str, value: Any, may_be_complex: bool = False) -> np.ndarray:
    """Return an array of numbers with its own dtype; strings and objects become floats.

    Raises:
        ValueError: sparse, masked, ragged, missing or complex values, or no numbers.
    """
    require(
        not is_traced(value),
        f"{name} is traced; build the problem outside of transformations such as jit and vmap.",
    )
    if scipy.sparse.issparse(value):
        megabytes = math.prod(value.shape) * value.dtype.itemsize / 2**20
        raise ValueError(
            f"{name} is a sparse {type(value).__name__} of shape {value.shape}; give a dense array,"
            f" .toarray() ({megabytes:.3g} MB)."
        )
    masked = int(np.ma.count_masked(value)) if isinstance(value, np.ma.MaskedArray) else 0
    require(masked == 0, f"{name} has {masked} masked values; remove or impute them.")
    try:
        array = np.asarray(value)
    except Exception as error:  # ragged lists, tensors of other libraries on their devices
        raise ValueError(
            f"{name} is a {type(value).__name__} that NumPy cannot read as one array; give arrays, "
            "all rows of one length."
        ) from error
    if jnp.issubdtype(array.dtype, jnp.floating):
        return array.astype(float) if array.dtype.itemsize > 8 else array  # JAX has no longdouble
    if array.dtype.kind in "OUST":
        return _parsed(name, array)
    require(
        array.dtype.kind in ("biuc" if may_be_complex else "biu"),
        f"{name} has dtype {array.dtype}; give real numbers"
        f"{', such as real and imaginary parts' if array.dtype.kind == 'c' else ''}.",
    )
    return array


def _parsed(name: str, array: np.ndarray) -> np.ndarray:
    """Return strings and objects as floats, or name the first of them that is no number."""
    try:
        return array.astype(float)
    except (TypeError, ValueError):
        bad = next(value for value in array.ravel().tolist() if not _is_number(value))
    require(
        not is_missing(bad),
        f"{name} has missing values ({bad!r}); drop those samples, or impute them.",
    )
    codes = (
        "np.unique(labels, return_inverse=True)[1]" if "labels" in name else "one column a class"
    )
    raise ValueError(f"{name} has the value {str(bad)[:40]!r}; give numbers, such as {codes}.")


def _is_number(value: Any) -> bool:
    try:
        return float(value) is not None
    except (TypeError, ValueError):
        return False


def distribute(features: Any, labels: Any, *, agents: int | None, partition: Any) -> Any:
    """Return (features, labels) as `FiniteSum` takes them: split, or else pooled and split here.

    Args:
        features: [m, p] pooled; [n, m, p] or a list of n arrays [mᵢ, p] already split.
        labels: [m]; [n, m] or a list of n arrays [mᵢ].
        agents: n, for pooled data.
        partition: how pooled data are split, what `split` takes; None for "iid".

    Raises:
        ValueError: data that are neither pooled nor split, or arguments that do not apply to them.
    """
    split_already = isinstance(features, list) or features.ndim == 3
    if not split_already:
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
    for i, part in enumerate(features):
        require(
            np.ndim(part) == 2,
            f"the features of agent {i} have shape {np.shape(part)}; give [m, p] for each agent.",
        )
    return features, labels


def as_classes(labels: Any) -> tuple[Any, int]:
    """Return labels as int32 classes, and how many there are; refuse all but integers from 0."""
    values = _values(labels)
    require(
        all(float(v).is_integer() and v >= 0 for v in values),
        f"labels have the values {_list(values)}; give integer classes 0, 1, 2, ...",
    )
    return each(labels, lambda b: b.astype(np.int32)), int(max(values)) + 1


def as_signs(labels: Any, dtype: Any) -> Any:
    """Return labels 0/1 or -1/+1 as -1/+1."""
    values = _values(labels)
    require(
        set(values) <= {0, 1} or set(values) <= {-1, 1},
        f"labels have the values {_list(values)}; give 0/1 or -1/+1, or use softmax_regression.",
    )
    return each(labels, lambda b: np.where(b > 0, 1, -1).astype(dtype))


def as_floating(features: Any) -> Any:
    """Return an array, or a list of arrays, whose dtype is floating: their own if it is."""
    return each(features, lambda a: a if jnp.issubdtype(a.dtype, jnp.floating) else a.astype(float))


def dtype_of(features: Any) -> Any:
    """Return the dtype of features, an array or a list of arrays."""
    return np.result_type(*(features if isinstance(features, list) else [features]))


def each(values: Any, convert: Callable[[np.ndarray], np.ndarray]) -> Any:
    """Return what a conversion makes of an array, or of every array in a list."""
    return [convert(value) for value in values] if isinstance(values, list) else convert(values)


def _values(labels: Any) -> np.ndarray:
    parts = labels if isinstance(labels, list) else [labels]
    return np.unique(np.concatenate([np.ravel(part).astype(float) for part in parts]))


def _list(values: np.ndarray) -> str:
    shown = ", ".join(f"{v:g}" for v in values[:5])
    return shown + (", ..." if len(values) > 5 else "")
