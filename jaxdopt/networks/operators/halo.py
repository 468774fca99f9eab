"""Rows that agents hear from other devices: who sends which, planned on the host.

Where agents' rows are spread over the devices of a mesh, the agents of a device hear its own rows
and some of others': its halo. The plan says which rows a device sends to which other one, padded to
the same number for all. If few devices hear each other, as on rings, grids and other graphs whose
agents are numbered along them, it is one permute for every distance between two such devices;
otherwise one all-to-all. If the halo is half of all other rows or more, all rows are gathered.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxdopt._pytree import pytree, static

FEW = 2  # distances that are a permute each, whatever an all-to-all would send


@pytree
class Halo:
    """The plan of an exchange of rows between devices, for a table of neighbors and its tiers.

    Args:
        places: for each table [n, s], where a device finds what its agents hear: among its own
            rows, followed by those that it receives, or among all.
        sent: the rows that devices send, by number within the device: [devices · c] for every
            distance, [devices · devices · c] for an all-to-all, nothing where all are gathered.
        exchange: the distances between devices that hear each other, in the order of ``sent``, or
            "all-to-all" or "all-gather"; static.
        devices: the axes of a mesh over which agents are spread; static.
    """

    places: tuple[Any, ...]
    sent: tuple[Any, ...]
    exchange: tuple[int, ...] | Literal["all-to-all", "all-gather"] = static()
    devices: "Devices" = static()

    @property
    def received(self) -> int:
        """The number of rows that a device receives of others, those that only pad included."""
        count = self.devices.count
        if self.exchange == "all-gather":
            return self.places[0].shape[-2] // count * (count - 1)
        rows = sum(each.shape[-1] for each in self.sent) // count
        return rows // count * (count - 1) if self.exchange == "all-to-all" else rows

    def apply(self, function: Callable[..., Any], x: jax.Array, *rows: Any) -> jax.Array:
        """Return ``function(x, heard, places, *rows)`` of every device's rows, all [n, ...].

        The places are those in ``heard``. The function is static: one of a module, not a closure.
        """
        return _on_devices(self, x, rows, function)

    def take(self, x: jax.Array) -> jax.Array:
        """Return what every slot hears, [n, ...] -> [n, s, ...]."""
        return self.apply(_taken, x)

    def heard(self, x: jax.Array) -> jax.Array:
        """Return a device's rows, followed by those that it hears, or all; on the device."""
        axis, count = self.devices.axis, self.devices.count
        if self.exchange == "all-gather":
            return jax.lax.all_gather(x, axis, tiled=True)
        if self.exchange == "all-to-all":
            rows = x[self.sent[0].reshape(count, -1)]
            received = [jax.lax.all_to_all(rows, axis, 0, 0).reshape(-1, *x.shape[1:])]
        else:
            received = [
                jax.lax.ppermute(x[rows], axis, [(d, (d - by) % count) for d in range(count)])
                for by, rows in zip(self.exchange, self.sent, strict=True)
            ]
        return jnp.concatenate([x, *received])


@functools.partial(jax.jit, static_argnames="function")
def _on_devices(halo: Halo, x: jax.Array, rows: Any, function: Callable[..., Any]) -> jax.Array:
    spec = PartitionSpec(halo.devices.axis)
    return jax.shard_map(
        lambda halo, x, rows: function(x, halo.heard(x), halo.places, *rows),
        mesh=halo.devices.mesh,
        in_specs=spec,
        out_specs=spec,
        axis_names=set(halo.devices.axis),
    )(halo, x, rows)


def _taken(_: jax.Array, heard: jax.Array, places: Any) -> jax.Array:
    return heard[places[0]]


class Devices(NamedTuple):
    """The devices over which agents are spread in blocks of equal length: axes of a mesh."""

    mesh: Mesh
    axis: tuple[str, ...]

    @property
    def count(self) -> int:
        """The number of blocks."""
        return math.prod(self.mesh.shape[name] for name in self.axis)

    def put(self, rows: Any, axis: int = 0) -> jax.Array:
        """Return an array with its agents' ``axis`` spread over the devices."""
        where = PartitionSpec(*(None,) * (axis % np.ndim(rows)), self.axis)
        return jax.device_put(rows, NamedSharding(self.mesh, where))

    def halo(self, n: int, tables: Sequence[tuple[Any, Any]]) -> Halo:
        """Return the plan for tables of (agents [h], whom they hear [..., h, s]).

        All tables have the same leading axes, of rounds: the plan is one for all of them. The rows
        [h] are those of equally many agents of every device.
        """
        block = n // self.count
        heard = [np.asarray(index) for _, index in tables]
        hearers = [np.asarray(agents)[:, None] // block for agents, _ in tables]
        asked = [
            (device * n + index)[device != index // block]
            for device, index in zip(hearers, heard, strict=True)
        ]
        pairs = np.sort(np.concatenate(asked))
        pairs = pairs[np.diff(pairs, prepend=-1) > 0]  # a device and whom it hears, each once
        receiver, sender = np.divmod(pairs, n)
        source = sender // block
        distance = (source - receiver) % self.count
        group = receiver * self.count + source
        number = np.arange(len(group)) - np.searchsorted(group, group)
        widths = np.zeros(self.count, int)
        np.maximum.at(widths, distance, number + 1)
        apart, widest = np.flatnonzero(widths), widths.max()
        permutes = len(apart) <= FEW or 2 * widths.sum() <= (self.count - 1) * widest
        received = widths.sum() if permutes else (self.count - 1) * widest
        if received and 2 * received >= n - block:
            return Halo(
                tuple(self.put(i.astype(np.int32), -2) for i in heard), (), "all-gather", self
            )
        if permutes:
            exchange = tuple(map(int, apart))
            begins = np.cumsum(widths) - widths
            place = block + begins[distance] + number
            sent = [np.zeros((self.count, widths[by]), np.int32) for by in apart]
            for by, rows in zip(apart, sent, strict=True):
                here = distance == by
                rows[source[here], number[here]] = sender[here] % block
        else:
            exchange = "all-to-all"
            place = block + source * widest + number
            sent = [np.zeros((self.count, self.count, widest), np.int32)]
            sent[0][source, receiver, number] = sender % block

        def places(device: np.ndarray, index: np.ndarray) -> np.ndarray:
            own = device == index // block
            found = np.searchsorted(pairs, (device * n + index)[~own])
            there = index % block
            there[~own] = place[found]
            return there.astype(np.int32)

        def in_rounds(rows: np.ndarray) -> np.ndarray:
            return np.broadcast_to(rows.ravel(), (*heard[0].shape[:-2], rows.size))

        return Halo(
            tuple(self.put(places(d, i), -2) for d, i in zip(hearers, heard, strict=True)),
            tuple(self.put(in_rounds(rows), -1) for rows in sent),
            exchange,
            self,
        )
