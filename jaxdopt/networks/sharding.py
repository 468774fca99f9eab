"""Networks of agents that are spread over the devices of a mesh."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
from jax.sharding import AxisType, Mesh, NamedSharding

from jaxdopt._checks import require
from jaxdopt._leaves import is_traced
from jaxdopt.networks.checks import require_network
from jaxdopt.networks.operators.halo import Devices

T = TypeVar("T")


def sharded(network: T, mesh: Mesh, axis: str | Sequence[str] | None = None) -> T:
    """Return a network for agents that are spread over devices: who sends which rows is planned.

    A device then receives only the rows that its agents hear of other devices' agents, where XLA
    alone would gather all rows for a table of neighbors. All are still gathered for dense matrices,
    and for tables whose agents hear half of all other devices' rows or more; averages are
    reductions.

    `run` and `sweep` do this by themselves if they are given x0 or a state whose rows are spread
    over a mesh; it is for programs of your own, such as a `jax.jit` around `run`. Devices hold
    blocks of agents of consecutive numbers, so that those who hear each other should have numbers
    that are close to each other.

    Args:
        network: any network, also wrapped, of several parts, or that changes with time.
        mesh: of devices, from `jax.make_mesh`.
        axis: the mesh's axis along which agents are spread, or several; by default all.

    Raises:
        ValueError: the mesh has no such axis, the devices' number does not divide n, or the
            network is traced.

    Example:
        >>> import jaxdopt as jd
        >>> mesh = jax.make_mesh((1,), ("agents",))
        >>> ring = jd.networks.sharded(jd.networks.metropolis(jd.graphs.ring(4)), mesh)
        >>> (ring @ jax.numpy.ones((4, 1)))[:, 0].tolist()
        [1.0, 1.0, 1.0, 1.0]
    """
    require_network(network)
    names = tuple(mesh.axis_names) if axis is None else (axis,) if isinstance(axis, str) else axis
    unknown = [name for name in names if name not in mesh.axis_names]
    require(
        not unknown and len(names) > 0,
        f"axis is {axis!r} and the mesh has {tuple(mesh.axis_names)}; give one of these.",
    )
    require(
        not is_traced(network),
        "the network is traced, and its numbers say which rows devices exchange; call sharded "
        "before the transformation.",
    )
    automatic = Mesh(
        mesh.devices, mesh.axis_names, axis_types=(AxisType.Auto,) * len(mesh.axis_names)
    )
    devices = Devices(automatic, tuple(names))
    require(
        network.n % devices.count == 0,  # type: ignore[attr-defined]
        f"there are {network.n} agents and {devices.count} devices; "  # type: ignore[attr-defined]
        "give a multiple of the devices' number.",
    )
    return jax.tree.map(
        lambda part: part.over(devices) if _spreads(part) else part, network, is_leaf=_spreads
    )


def along(x: Any, axis: int = 0) -> Callable[[T], T] | None:
    """Return what makes networks those of agents that are spread as an ``axis`` of x is.

    It is the same function for all arrays that are spread alike, and None if x is on one device.
    """
    where = x.sharding if isinstance(x, jax.Array) and not is_traced(x) else None
    if isinstance(where, NamedSharding) and len(where.spec) > axis and where.spec[axis] is not None:
        return _along(where.mesh, where.spec[axis])  # type: ignore[arg-type]
    return None


@functools.cache
def _along(mesh: Mesh, axis: str | tuple[str, ...]) -> Callable[[T], T] | None:
    def of(network: T) -> T:
        return network if is_traced(network) else sharded(network, mesh, axis)

    names = axis if isinstance(axis, tuple) else (axis,)
    return of if Devices(mesh, names).count > 1 else None


def _spreads(part: Any) -> bool:
    return hasattr(type(part), "over")
