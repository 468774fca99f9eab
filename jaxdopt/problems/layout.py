"""Layouts: from a user's parameter pytree to the flat rows that methods work on, and back.

A row [d] is the pytree's leaves one after the other. What papers do layer by layer is done with a
layout, which a problem has as ``problem.leaves``: norms [..., L] of L leaves, factors for each, the
coordinates of some, fragments.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdopt import agents as _agents
from jaxdopt._checks import require


@dataclasses.dataclass(frozen=True)
class Layout:
    """The leaves of a parameter pytree: hashable, so that it can be part of a program.

    Attributes:
        treedef: the structure.
        shapes: of every leaf.
        dtypes: of every leaf.

    Raises:
        ValueError: a leaf is not floating, or there is none.

    Example:
        >>> leaves = Layout.of({"b": jnp.zeros(2), "w": jnp.zeros((2, 3))})
        >>> leaves.names, leaves.sizes, leaves.offsets
        (["['b']", "['w']"], (2, 6), (0, 2))
        >>> leaves.map(jnp.add, jnp.ones((5, 8)), jnp.ones(8)).shape
        (5, 8)
        >>> leaves.norms(jnp.ones((5, 8))).shape, leaves.fragments(2)
        ((5, 2), ((0,), (1,)))
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
    def sizes(self) -> tuple[int, ...]:
        """The number of parameters of every leaf."""
        return tuple(math.prod(shape) for shape in self.shapes)

    @property
    def offsets(self) -> tuple[int, ...]:
        """Where in a row every leaf begins."""
        return tuple(itertools.accumulate(self.sizes, initial=0))[:-1]

    @property
    def d(self) -> int:
        """The number of parameters."""
        return sum(self.sizes)

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
        return self.treedef.unflatten(
            [part.reshape(shape) for part, shape in zip(self.split(row), self.shapes, strict=True)]
        )

    def split(self, rows: jax.Array) -> list[jax.Array]:
        """Return the coordinates [..., size] of every leaf, of rows [..., d]."""
        return jnp.split(rows, self.offsets[1:], axis=-1) if len(self.shapes) > 1 else [rows]

    def map(self, function: Callable[..., jax.Array], *rows: jax.Array) -> jax.Array:
        """Return an elementwise function of rows [..., d], leaf by leaf.

        It is ``function(*rows)``. Where the rows have been joined of leaves, and are taken apart
        afterwards, a compiler sees through this and does neither.
        """
        parts = zip(*(self.split(row) for row in rows), strict=True)
        return jnp.concatenate([function(*leaves) for leaves in parts], axis=-1)

    def norms(self, rows: jax.Array) -> jax.Array:
        """Return the Euclidean norm of every leaf, [..., d] -> [..., L]; its slope at 0 is 0."""
        return jnp.concatenate([_agents.norms(leaf) for leaf in self.split(rows)], axis=-1)

    def scale(self, rows: jax.Array, factors: jax.Array) -> jax.Array:
        """Return every leaf times its factor, [..., d] and [..., L] -> [..., d]."""
        parts = [part * factors[..., i, None] for i, part in enumerate(self.split(rows))]
        return jnp.concatenate(parts, axis=-1)

    def select(self, rows: jax.Array, which: Sequence[int]) -> jax.Array:
        """Return the coordinates of some leaves in the order of rows, [..., d] -> [..., d']."""
        parts = self.split(rows)
        return jnp.concatenate([parts[i] for i in sorted(which)], axis=-1)

    def put(self, rows: jax.Array, which: Sequence[int], values: jax.Array) -> jax.Array:
        """Return rows [..., d] with the coordinates that `select` returns replaced by others."""
        parts = self.split(rows)
        for i, value in zip(sorted(which), self.part(which).split(values), strict=True):
            parts[i] = jnp.broadcast_to(value, parts[i].shape)
        return jnp.concatenate(parts, axis=-1)

    def part(self, which: Sequence[int]) -> "Layout":
        """Return the layout of some leaves alone, in a pytree that has None for all others."""
        kept = [i if i in which else None for i in range(len(self.shapes))]
        treedef = jax.tree.structure(self.treedef.unflatten(kept))
        here = sorted(which)
        shapes, dtypes = (tuple(of[i] for i in here) for of in (self.shapes, self.dtypes))
        return Layout(treedef, shapes, dtypes)

    def fragments(self, number: int) -> tuple[tuple[int, ...], ...]:
        """Return P fragments of strided leaves: leaf l is in fragment l mod P.

        Raises:
            ValueError: there are fewer leaves than fragments.
        """
        count = len(self.shapes)
        require(
            number <= count,
            f"fragments is {number}, and the parameters have {count} "
            f"{'leaf' if count == 1 else 'leaves'}; give at most {count}.",
        )
        return tuple(tuple(range(p, count, number)) for p in range(number))


def leaves_of(problem: Any, who: str) -> Layout:
    """Return the leaves of a problem's parameters, which ``who`` cannot do without.

    Raises:
        ValueError: the problem has none.
    """
    leaves = getattr(problem, "leaves", None)
    require(
        leaves is not None,
        f"{who} works leaf by leaf, and a {type(problem).__name__} does not say what the leaves of "
        "its parameters are; give a jd.problems.FiniteSum or Oracle of a parameter pytree.",
    )
    return leaves  # type: ignore[return-value]
