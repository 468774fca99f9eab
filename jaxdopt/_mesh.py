"""Arrays on meshes with explicit axes, as `jax.make_mesh` makes them, get automatic ones.

With explicit axes JAX asks every operation for the sharding of its results, which those on
neighbors' rows do not say. On the same devices with automatic axes, XLA decides; the arrays' shards
stay where they are.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec


def explicit_mesh(tree: Any) -> Mesh | None:
    """Return the mesh with explicit axes on which an array of a tree is, or None."""
    for leaf in jax.tree.leaves(tree):
        mesh = _mesh_of(leaf)
        if mesh is not None and AxisType.Explicit in mesh.axis_types:
            return mesh
    return None


def on_automatic_axes(mesh: Mesh, call: Callable[[Any], Any], given: Any) -> Any:
    """Call a function of a tree whose arrays are on ``mesh``, with automatic axes meanwhile."""
    kinds = (AxisType.Auto,) * len(mesh.axis_names)
    automatic = Mesh(mesh.devices, mesh.axis_names, axis_types=kinds)
    with jax.set_mesh(automatic):
        result = call(_moved(given, mesh, automatic))
    return _moved(result, automatic, mesh)


def _moved(tree: Any, source: Mesh, target: Mesh) -> Any:
    """Return a tree with its arrays on one mesh put on another one of the same devices."""

    def leaf(value: Any) -> Any:
        if _mesh_of(value) != source:
            return value
        sharding = NamedSharding(target, value.sharding.spec)
        if not jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            return jax.device_put(value, sharding)
        numbers = jax.device_put(jax.random.key_data(value), sharding)
        return jax.random.wrap_key_data(numbers, impl=jax.random.key_impl(value))

    return jax.tree.map(leaf, tree)


def put(value: Any, sharding: Any) -> Any:
    """Return an array, or an array of keys, on devices of which some may be other processes'."""
    return jax.jit(_same, out_shardings=sharding)(value)


def _same(value: Any) -> Any:
    return value


def spread_alike(tree: Any, x: Any) -> Any:
    """Return a tree in which the arrays that have x's agents' axis are spread over it as x is.

    What a program makes of constants, such as zeros, is on every device in full.
    """
    x = jax.tree.leaves(x)[0]
    spec = x.sharding.spec if isinstance(x.sharding, NamedSharding) else ()
    if not spec or spec[0] is None or x.is_fully_replicated:
        return tree
    rows = NamedSharding(x.sharding.mesh, PartitionSpec(spec[0]))

    def leaf(value: Any) -> Any:
        alike = value.shape[:1] == x.shape[:1] and value.is_fully_replicated
        return put(value, rows) if alike else value

    return jax.tree.map(leaf, tree)


def _mesh_of(leaf: Any) -> Mesh | None:
    concrete = isinstance(leaf, jax.Array) and not isinstance(leaf, Tracer)
    mesh = getattr(leaf.sharding, "mesh", None) if concrete else None
    return mesh if isinstance(mesh, Mesh) else None
