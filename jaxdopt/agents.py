"""The leading axis: every leaf of a tree of agents' values has shape ``[n, ...]``."""

import functools
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from jaxdopt._wrapper import layers

T = TypeVar("T")


def select(mask: jax.Array, new: T, old: T) -> T:
    """Take ``new`` for the agents where ``mask`` [n] is true and ``old`` for the others.

    Example:
        >>> select(jnp.array([True, False]), jnp.ones((2, 1)), jnp.zeros((2, 1)))[:, 0].tolist()
        [1.0, 0.0]
    """

    def leaf(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.where(mask.reshape(mask.shape + (1,) * (a.ndim - 1)), a, b)

    return jax.tree.map(leaf, new, old)


def take(tree: T, agents: jax.Array) -> T:
    """Gather a tree's rows of some agents: leaves [n, ...] -> [s, ...] for ``agents`` [s]."""
    return jax.tree.map(lambda leaf: leaf[agents], tree)


def put(tree: T, agents: jax.Array, rows: T) -> T:
    """Write rows back into a tree, where `take` read them; indices n and above are dropped.

    ``agents`` [s] must not name an agent twice, as the rows are written in no order.
    """

    def leaf(a: jax.Array, r: jax.Array) -> jax.Array:
        return a.at[agents].set(r, mode="drop", unique_indices=True)

    return jax.tree.map(leaf, tree, rows)


def average(tree: T) -> T:
    """Return a tree's mean over agents, (1/n) Σᵢ xᵢ: leaves [n, ...] -> [...]."""
    return jax.tree.map(lambda leaf: leaf.mean(axis=0), tree)


def disagreement(tree: Any) -> jax.Array:
    """Return (1/n) Σᵢ |xᵢ − x̄|², summed over a tree's leaves: the consensus error."""
    squares = (
        jnp.sum((leaf - leaf.mean(axis=0, keepdims=True)) ** 2) / leaf.shape[0]
        for leaf in jax.tree.leaves(tree)
    )
    return functools.reduce(jnp.add, squares)


def norms(rows: jax.Array) -> jax.Array:
    """Return the Euclidean norms of rows, [..., d] -> [..., 1]; their slopes at 0 are 0."""
    squares = jnp.sum(rows**2, axis=-1, keepdims=True)
    return jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1)), squares)


def copied(state: Any) -> bool:
    """Return whether the x of a method's state are copies of one estimate, its server's."""
    *_, inner = layers(state)
    derived = isinstance(getattr(type(inner), "x", None), property)
    return derived and getattr(inner, "server", None) is not None
