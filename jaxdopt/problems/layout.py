"""Layouts: from a user's parameter pytree to the flat rows that methods work on, and back."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True)
class Layout:
    """The shapes of a parameter pytree: hashable, so that it can be part of a program.

    Raises:
        ValueError: a leaf is not floating, or there is none.
    """

    treedef: Any
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[Any, ...]

    @classmethod
    def of(cls, params: Any) -> "Layout":
        """Return the layout of ``params``; raise ValueError unless all leaves are floating."""
        paths, treedef = jax.tree_util.tree_flatten_with_path(params)
        for path, leaf in paths:
            dtype = jnp.result_type(leaf)
            if not jnp.issubdtype(dtype, jnp.floating):
                name = jax.tree_util.keystr(path) or "params"
                raise ValueError(
                    f"parameter leaf {name} has dtype {dtype}; parameters are optimized, so make "
                    "it floating, or close over it in the loss."
                )
            if "['batch_stats']" in jax.tree_util.keystr(path):  # flax's name for them
                raise ValueError(
                    f"parameter leaf {jax.tree_util.keystr(path)} holds batch statistics, which no "
                    "method updates; close over them, or use GroupNorm or LayerNorm."
                )
        if not paths:
            raise ValueError("params has no leaves; give at least one floating array.")
        leaves = [leaf for _, leaf in paths]
        return cls(
            treedef,
            tuple(np.shape(leaf) for leaf in leaves),
            tuple(np.dtype(jnp.result_type(leaf)) for leaf in leaves),
        )

    @property
    def names(self) -> list[str]:
        """The leaves' paths, such as ['w'] or .bias."""
        numbered = self.treedef.unflatten(range(len(self.shapes)))
        paths, _ = jax.tree_util.tree_flatten_with_path(numbered)
        return [jax.tree_util.keystr(path) or "params" for path, _ in paths]

    @property
    def d(self) -> int:
        """The number of parameters."""
        return sum(math.prod(shape) for shape in self.shapes)

    def ravel(self, params: Any) -> jax.Array:
        """Return the parameters as one row [d], or rows [n, d] if every leaf has an extra axis."""
        leaves, treedef = jax.tree.flatten(params)
        shapes = [np.shape(leaf) for leaf in leaves]
        lead = shapes[0][: max(len(shapes[0]) - len(self.shapes[0]), 0)] if shapes else ()
        if treedef != self.treedef or shapes != [lead + shape for shape in self.shapes]:
            raise ValueError(
                f"the parameters have leaves of shapes {shapes}; this problem's are "
                f"{list(self.shapes)}, with at most a leading axis of agents more."
            )
        return jnp.concatenate([jnp.reshape(leaf, (*lead, -1)) for leaf in leaves], axis=-1)

    def unravel(self, row: jax.Array) -> Any:
        """Return the parameter pytree of one row [d]; its leaves have the row's dtype."""
        if len(self.shapes) == 1:
            return self.treedef.unflatten([row.reshape(self.shapes[0])])
        ends = np.cumsum([math.prod(shape) for shape in self.shapes])[:-1]
        parts = jnp.split(row, ends)
        return self.treedef.unflatten(
            [part.reshape(shape) for part, shape in zip(parts, self.shapes, strict=True)]
        )
