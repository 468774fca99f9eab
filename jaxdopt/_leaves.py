"""What is asked of, and done to, all leaves of a tree: values, memory, dtypes."""

import functools
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

T = TypeVar("T")


def is_traced(tree: Any) -> bool:
    """Return whether some leaf has no value yet, as inside jit, vmap or grad."""
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(tree))


def distinct(tree: T, others: Any = ()) -> T:
    """Return a tree in which no array shares memory with another one, nor with one of ``others``.

    What does is copied, so that all leaves can be donated, as in ``jax.jit(step,
    donate_argnums=0)``. While a program is traced there is no memory yet, and nothing to do.
    """
    if is_traced((tree, others)):
        return tree
    seen = {place for leaf in jax.tree.leaves(others) for place in _places(leaf)}

    def own(leaf: Any) -> Any:
        places = _places(leaf)
        if not seen.isdisjoint(places):
            leaf = jnp.copy(leaf)
            places = _places(leaf)
        seen.update(places)
        return leaf

    return jax.tree.map(own, tree)


def _places(leaf: Any) -> list[int]:
    """Return where in memory an array is, on every device of this process."""
    if not isinstance(leaf, jax.Array) or leaf.size == 0:
        return []
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return [shard.data.unsafe_buffer_pointer() for shard in leaf.addressable_shards]


def wide_dtype(dtype: Any) -> np.dtype:
    """Return the dtype in which numbers of a dtype are added up: float32 at least."""
    known = np.dtype(dtype)
    wide = jnp.issubdtype(known, jnp.inexact) and known.itemsize >= 4
    return known if wide else np.dtype(np.float32)


def cast_floats(tree: T, dtype: Any) -> T:
    """Cast all floating leaves, Python floats among them, to one dtype; leave the rest alone."""
    return jax.tree.map(functools.partial(_cast, dtype=np.dtype(dtype)), tree)


def _cast(leaf: Any, dtype: np.dtype) -> Any:
    if isinstance(leaf, float | np.floating):
        return dtype.type(leaf)
    if isinstance(leaf, np.ndarray | jax.Array) and jnp.issubdtype(leaf.dtype, jnp.floating):
        weak = isinstance(leaf, jax.Array) and leaf.weak_type
        return jax.lax.convert_element_type(leaf, dtype) if weak or leaf.dtype != dtype else leaf
    return leaf
