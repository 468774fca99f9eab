"""Agents' data in any container, as arrays [n, m, ...] in which shorter agents repeat samples."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdopt._checks import require
from jaxdopt._leaves import is_traced
from jaxdopt.problems.samples import as_numbers


def padded(data: Any) -> tuple[Any, np.ndarray]:
    """Return data with leaves [n, m, ...] and the agents' sizes [n]; check both."""
    leaves, treedef = jax.tree.flatten(_by_leaf(data), is_leaf=lambda leaf: isinstance(leaf, list))
    require(leaves, "data has no leaves; give arrays of shape [n, m, ...].")
    sizes, leaves = None, list(map(_as_leaf, leaves))
    for leaf in leaves:
        if isinstance(leaf, list):
            counts = np.array([len(part) for part in leaf])
        else:
            require(
                np.ndim(leaf) >= 2,
                f"a data leaf has shape {np.shape(leaf)}; give [n, m, ...], or a list of n arrays.",
            )
            counts = np.full(np.shape(leaf)[0], np.shape(leaf)[1])
        require(len(counts) > 0 and counts.min() > 0, _empty(counts))
        sizes = counts if sizes is None else sizes
        require(
            np.array_equal(sizes, counts),
            f"data leaves disagree: agents with {sizes.tolist()[:8]} and with "
            f"{counts.tolist()[:8]} samples; give all leaves the same agents and samples.",
        )
    assert sizes is not None
    most = int(sizes.max())

    def pad(leaf: Any) -> Any:
        if not isinstance(leaf, list):
            return _finite(jnp.asarray(leaf))
        rows = [part[np.arange(most) % len(part)] for part in leaf]
        return _finite(jax.device_put(np.stack(rows)))

    return treedef.unflatten([pad(leaf) for leaf in leaves]), sizes


def _by_leaf(data: Any) -> Any:
    """Return a list of agents' pytrees, one each, as one pytree of lists of agents' arrays."""
    trees = isinstance(data, list) and data and not jax.tree_util.all_leaves(data[:1])
    if not trees or isinstance(data[0], list):
        return data
    structures = [jax.tree.structure(of_agent) for of_agent in data]
    require(
        len(set(structures)) == 1,
        f"the agents' data have structures {structures[0]} and "
        f"{next((s for s in structures if s != structures[0]), None)}; give all the same.",
    )
    return jax.tree.map(lambda *parts: list(parts), *data)


def _as_leaf(leaf: Any) -> Any:
    """Return data as one array [n, m, ...], or as a list of agents' arrays [mᵢ, ...]."""
    if not isinstance(leaf, list):
        return leaf if isinstance(leaf, jax.Array) else as_numbers("a data leaf", leaf, True)
    require(leaf, "data has a list without agents; give one array an agent.")
    parts = [as_numbers(f"the data of agent {i}", part, True) for i, part in enumerate(leaf)]
    shapes = list(dict.fromkeys(part.shape[1:] if part.ndim else None for part in parts))
    require(
        None not in shapes,
        "data has a list of numbers, and lists mean agents; give an array [n, m, ...], or a list "
        "of one array an agent.",
    )
    require(
        len(shapes) == 1,
        f"the agents' samples have shapes {', '.join(map(str, shapes[:3]))}; give all the same.",
    )
    return parts


def _empty(counts: np.ndarray) -> str:
    if len(counts) == 0:
        return "data is for 0 agents; give at least one."
    return (
        f"agent {int(np.argmin(counts))} has no samples; give every agent at least one, with fewer "
        "agents or another partition."
    )


def _finite(leaf: jax.Array) -> jax.Array:
    if not is_traced(leaf) and jnp.issubdtype(leaf.dtype, jnp.floating):
        bad = int(_count_of_bad(leaf))
        require(bad == 0, f"data has {bad} values that are NaN or infinite; remove or impute them.")
    return leaf


@jax.jit
def _count_of_bad(leaf: jax.Array) -> jax.Array:
    return jnp.sum(~jnp.isfinite(leaf))
