"""Arrays on meshes with explicit axes, as `jax.make_mesh` makes them, get automatic ones.

With explicit axes JAX asks every operation for the sharding of its results, which those on
neighbors' rows do not say. On the same devices with automatic axes, XLA decides; the arrays' shards
stay where they are. So it is in a trace, as in `jax.jit`, in which the devices are not known.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from jaxdopt._leaves import is_traced


def explicit_mesh(tree: Any) -> Mesh | AbstractMesh | None:
    """Return the mesh with explicit axes on which an array of a tree is, or None."""
    for leaf in jax.tree.leaves(tree):
        mesh = _mesh_of(leaf)
        if mesh is not None and AxisType.Explicit in mesh.axis_types:
            return mesh
    return None


def first_axis(tree: Any) -> Any:
    """Return along what of a mesh the first axis of a tree's first array is spread; maybe None."""
    for leaf in jax.tree.leaves(tree):
        sharding = jax.typeof(leaf).sharding if isinstance(leaf, Tracer) else leaf.sharding
        return [*getattr(sharding, "spec", ()), None][0]
    return None


def on_automatic_axes(
    mesh: Mesh | AbstractMesh,
    call: Callable[[Any], Any],
    given: Any,
    specs: Callable[[Any], Any],
) -> Any:
    """Call a function of a tree whose arrays are on ``mesh``, with automatic axes meanwhile.

    In a trace there are no devices to ask where XLA has put what the function returns: ``specs`` of
    it, a tree of `PartitionSpec`s, says where it is to be.
    """
    kinds = {
        name: AxisType.Auto if kind == AxisType.Explicit else kind
        for name, kind in zip(mesh.axis_names, mesh.axis_types, strict=True)
    }
    if isinstance(mesh, Mesh) and not is_traced((given, jnp.zeros(()))):
        automatic = Mesh(mesh.devices, mesh.axis_names, axis_types=tuple(kinds.values()))
        with jax.set_mesh(automatic):
            result = call(_moved(given, mesh, automatic))
        return _moved(result, automatic, mesh)
    explicit = mesh.abstract_mesh

    def leaf(value: Any) -> Any:
        there = _mesh_of(value)
        if there is None or there.abstract_mesh != explicit:
            return value
        return jax.sharding.reshard(value, PartitionSpec(*[None] * value.ndim))

    with jax.sharding.use_abstract_mesh(explicit.update_axis_types(kinds)):
        result = call(jax.tree.map(leaf, given))
    return jax.tree.map(
        lambda value, spec: jax.sharding.reshard(value, NamedSharding(explicit, spec)),
        result,
        specs(result),
    )


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


def _mesh_of(leaf: Any) -> Mesh | AbstractMesh | None:
    if not isinstance(leaf, jax.Array):
        return None
    sharding = jax.typeof(leaf).sharding if isinstance(leaf, Tracer) else leaf.sharding
    mesh = getattr(sharding, "mesh", None)
    return None if mesh is None or mesh.empty else mesh
