"""Sweeps in pieces: as many members at a time as there is room for, one after the other.

All pieces are of one shape, so that they are one program; the last ones are filled up with their
last member. What they leave behind goes to the host, and into a folder if there is one, as soon as
each is finished. Members may lie on several devices, each of which computes its own.
"""

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxdopt import longrun
from jaxdopt._checks import require
from jaxdopt._memory import MARGIN, compiled, devices_with, readable, room_for_pieces
from jaxdopt.checkpoints import Kept

FEW = 64  # members of the program of which XLA is asked
LONG, SHORT = 10.0, 5.0  # seconds of a sweep that goes in pieces on a CPU, and of a piece
ENOUGH = 250_000  # numbers that a step of a piece reads, beside which its overhead is small
SWEEP = "sweep"  # the name of a mesh's axis
POLL = 0.05  # seconds between two looks at whether a piece is there


@dataclasses.dataclass(frozen=True)
class Batch:
    """The arguments of a sweep by name.

    Attributes:
        given: all of them.
        places: of those that are swept, which axes of the sweep their leaves have in front.
        sizes: of the sweep's axes.
    """

    given: Mapping[str, Any]
    places: Mapping[str, tuple[int, ...]]
    sizes: tuple[int, ...]

    @property
    def members(self) -> int:
        """The number of all combinations."""
        return math.prod(self.sizes)

    def take(self, rows: Sequence[np.ndarray]) -> dict[str, Any]:
        """Return the arguments of some members: rows of every axis of the sweep."""

        def leaf(value: Any, axes: tuple[int, ...]) -> Any:
            for place, axis in enumerate(axes):
                if not np.array_equal(rows[axis], np.arange(self.sizes[axis])):
                    value = value[(slice(None),) * place + (rows[axis],)]
            return value

        return {
            name: jax.tree.map(functools.partial(leaf, axes=self.places[name]), value)
            if name in self.places
            else value
            for name, value in self.given.items()
        }

    def numbers(self) -> float:
        """Return how many numbers there are for a member."""
        return sum(
            longrun.numbers_in(value)
            / math.prod(self.sizes[axis] for axis in self.places.get(name, ()))
            for name, value in self.given.items()
        )


class Layout(NamedTuple):
    """Devices, each of which has its share of the members along an axis of a sweep."""

    mesh: Mesh
    axis: int


@dataclasses.dataclass(frozen=True)
class Pieces:
    """A sweep that is divided.

    Attributes:
        batch: its arguments.
        shape: the members of a piece along every axis; all of the axes behind the first one that
            is divided, so that members are taken in their order, the last axis running fastest.
        devices: over which the members of a piece are spread, if over any.
    """

    batch: Batch
    shape: tuple[int, ...]
    devices: tuple[Any, ...] = ()

    @classmethod
    def of(cls, batch: Batch, most: int, devices: tuple[Any, ...] = ()) -> "Pieces":
        """Return pieces of at most so many members, as even as can be."""
        shape, room = [], max(most, 1)
        for size in reversed(batch.sizes):
            rows = min(size, room)
            shape.append(math.ceil(size / math.ceil(size / rows)))
            room = room // size if rows == size else 1
        return cls(batch, tuple(reversed(shape)), devices)

    @property
    def count(self) -> int:
        """The number of pieces."""
        pairs = zip(self.batch.sizes, self.shape, strict=True)
        return math.prod(-(-all_ // one) for all_, one in pairs)

    @property
    def layout(self) -> Layout | None:
        """The devices and the axis along which members are spread; None if there are none."""
        if not self.devices:
            return None
        return Layout(
            Mesh(np.array(self.devices), (SWEEP,), axis_types=(AxisType.Auto,)), self.split
        )

    @property
    def split(self) -> int:
        """The axis along which as many members as there are devices fit best."""
        fits = [size / self._filled(size) for size in self.shape]
        return max(range(len(fits)), key=lambda axis: (fits[axis], self.shape[axis]))

    @property
    def first(self) -> dict[str, Any]:
        """The arguments of the first piece."""
        return self.batch.take(next(iter(self))[1])

    @property
    def is_whole(self) -> bool:
        """Whether all members are computed at once, and none twice."""
        return self.count == 1 and [len(rows) for rows in next(iter(self))[1]] == [*self.shape]

    def __iter__(self) -> Iterator[tuple[tuple[int, ...], list[np.ndarray]]]:
        """Yield the first place of every piece along all axes, and its rows of each."""
        sizes = self.batch.sizes
        steps = [range(0, all_, one) for all_, one in zip(sizes, self.shape, strict=True)]
        lengths = list(self.shape)
        lengths[self.split] = self._filled(lengths[self.split])
        for place in np.ndindex(*map(len, steps)):
            begin = tuple(step[i] for step, i in zip(steps, place, strict=True))
            yield (
                begin,
                [
                    np.minimum(one + np.arange(length), all_ - 1)
                    for one, length, all_ in zip(begin, lengths, sizes, strict=True)
                ],
            )

    def _filled(self, size: int) -> int:
        """Return a size as a multiple of the number of devices."""
        count = max(len(self.devices), 1)
        return -(-size // count) * count

    def spread(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return arguments with the members on the devices, and a copy of all else on each."""
        layout = self.layout
        if layout is None:
            return dict(given)

        def put(value: Any, name: str) -> Any:
            axes = self.batch.places.get(name, ())
            parts = [SWEEP if axis == layout.axis else None for axis in axes]
            sharding = NamedSharding(layout.mesh, PartitionSpec(*parts))
            array = isinstance(value, jax.Array | np.ndarray)
            return jax.device_put(value, sharding) if array else value

        return {
            name: jax.tree.map(functools.partial(put, name=name), value)
            for name, value in given.items()
        }

    def results(
        self,
        work: Callable[[dict[str, Any]], Any],
        *,
        like: Callable[[], Any],
        kept: Kept | None = None,
        note: Callable[[int, Any], Any],
    ) -> Any:
        """Return what ``work`` makes of all members, as if it had had them at once.

        Args:
            work: of the arguments of a piece; a tree of arrays with the sweep's axes in front.
            like: returns such a tree, of arrays or their shapes.
            kept: what is finished already; more is put there.
            note: called with how many members are new, and what came of them.

        Returns:
            Arrays of the host, unless all members are computed at once.

        Raises:
            Exception: what ``work`` does. If some pieces are finished, its ``result`` has them, the
                others NaN, or 0 in arrays of integers, and its ``finished`` says how many members.
        """
        fixed = {n: v for n, v in self.batch.given.items() if n not in self.batch.places}
        fixed = self.spread(fixed)

        def computed(rows: list[np.ndarray]) -> Any:
            taken = self.batch.take(rows)
            own = self.spread({name: taken[name] for name in self.batch.places})
            return waited_for(work(fixed | own))

        if self.is_whole and kept is None:
            part = computed(next(iter(self))[1])
            note(self.batch.members, part)
            return part
        require(
            jax.process_count() == 1,
            "a sweep in pieces, or kept in a folder, is for one process and this is one of "
            f"{jax.process_count()}; sweep over fewer members, a multiple of the devices.",
        )
        kinds, structure = jax.tree.flatten(like())
        whole: list[np.ndarray] = []
        finished = 0
        try:
            for begin, rows in self:
                valid = [
                    min(one, all_ - at)
                    for one, all_, at in zip(self.shape, self.batch.sizes, begin, strict=True)
                ]
                start = int(np.ravel_multi_index(begin, self.batch.sizes))
                end = start + math.prod(valid)
                flat = None if kept is None else kept.read(start, end)
                if flat is None:
                    block = tuple(map(slice, valid))
                    flat = [
                        values[block].reshape(-1, *values.shape[len(valid) :])
                        for values in map(_on_host, jax.tree.leaves(computed(rows)))
                    ]
                    if kept is not None:
                        kept.write(start, end, flat)
                whole = whole or [empty((self.batch.members,), values[0]) for values in flat]
                for values, part in zip(whole, flat, strict=True):
                    values[start:end] = part
                finished += end - start
                note(end - start, structure.unflatten(flat))
                del flat, part, values  # or two pieces would be there at a time
        except BaseException as error:
            if finished:
                error.result = self._shaped(whole, kinds, structure)  # type: ignore[attr-defined]
            error.finished = finished  # type: ignore[attr-defined]
            raise
        return self._shaped(whole, kinds, structure)

    def _shaped(self, whole: list[np.ndarray], kinds: list[Any], structure: Any) -> Any:
        def leaf(values: np.ndarray, kind: Any) -> Any:
            shaped = values.reshape(*self.batch.sizes, *values.shape[1:])
            if jnp.issubdtype(getattr(kind, "dtype", float), jax.dtypes.prng_key):
                return jax.random.wrap_key_data(
                    jnp.asarray(shaped), impl=jax.random.key_impl(jnp.empty((), kind.dtype))
                )
            return shaped

        return structure.unflatten(map(leaf, whole, kinds))


def divided(
    batch: Batch,
    program: Callable[[dict[str, Any]], Any],
    *,
    room: float | None,
    steps: int = 0,
    records: int = 0,
    devices: tuple[Any, ...] = (),
    title: str = "the sweep",
) -> Pieces:
    """Return a sweep in pieces, so that there is room for each.

    They take some seconds at most, as far as that is known before, if the steps' overhead allows.

    Args:
        batch: the arguments.
        program: what is computed of those of a piece.
        room: the bytes that a piece may take; None for what is free.
        steps: of every member, if it is a run.
        records: of every member, too.
        devices: over which members are spread.
        title: for errors.

    Raises:
        ValueError: there is no room for one member, or for the results of all.
    """
    most = batch.members
    numbers = max(batch.numbers(), 1)
    expected = longrun.expected_seconds(steps, int(numbers * batch.members))
    alone = jax.process_count() == 1  # several would have to agree on pieces
    if expected > LONG and alone and _on_cpus(batch.given, devices):
        fitting = (SHORT / steps - longrun.STEP) / (longrun.NUMBER * numbers)
        most = min(most, max(int(max(fitting, ENOUGH / numbers)), 1) * max(len(devices), 1))
    fixed = {name: value for name, value in batch.given.items() if name not in batch.places}
    free = room_for_pieces(program, batch.given, fixed, records=records, members=batch.members)
    room = free if room is None else room
    if room is not None:
        few = Pieces.of(batch, min(FEW, most))
        analysis = compiled(program, few.first)
        if analysis is not None:
            needed = analysis.results + analysis.temporary
            each = max(MARGIN[0] * needed / math.prod(few.shape), 1)
            require(
                each <= room,
                f"a member of {title} takes some {readable(each)} and memory is "
                f"{readable(room)}; give more, or record less.",
            )
            most = min(most, int(room / each))
    return Pieces.of(batch, most, devices)


def devices_of(given: int | Sequence[Any] | None) -> tuple[Any, ...]:
    """Return devices: some of JAX's, or the first so many of them; none for the default one."""
    if given is None:
        return ()
    there = jax.devices()
    count = isinstance(given, int) and not isinstance(given, bool)
    known = isinstance(given, list | tuple) and all(isinstance(d, jax.Device) for d in given)
    require(
        count or known,
        f"devices is {given!r}; give a list of JAX's, such as jax.devices(), or a number of them.",
    )
    require(
        not isinstance(given, int) or 1 <= given <= len(there),
        f"devices is {given} and JAX has {len(there)}; give 1 to {len(there)}.",
    )
    found: tuple[Any, ...] = tuple(there[:given] if isinstance(given, int) else given)
    require(
        found and len(set(found)) == len(found),
        f"devices is {given!r}; give at least one, each of them once.",
    )
    return found


def waited_for(tree: Any) -> Any:
    """Return a tree when its arrays are there; a signal is answered meanwhile."""
    began = time.monotonic()
    for leaf in jax.tree.leaves(tree):
        if isinstance(leaf, jax.Array):
            if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
                leaf = jax.random.key_data(leaf)
            while not leaf.is_ready():  # pyright: ignore[reportAttributeAccessIssue]
                time.sleep(min(POLL, (time.monotonic() - began) / 50))  # 2 % late at most
    return tree


def brief(metrics: Mapping[str, Any], axes: int) -> str:
    """Return a metric's last value, the median of all members, for a bar."""
    scalars = [name for name, rows in metrics.items() if np.ndim(rows) == axes + 1]
    name = next((name for name in ("gap", "loss", *scalars) if name in scalars), None)
    if name is None:
        return ""
    last = np.asarray(metrics[name])[..., -1]
    finite = last[np.isfinite(last)]
    return f"median {name} {np.median(finite):.3g}" if len(finite) else ""


def _on_cpus(tree: Any, devices: Sequence[Any]) -> bool:
    return all(device.platform == "cpu" for device in devices or devices_with(tree))


def _on_host(leaf: Any) -> np.ndarray:
    keys = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if keys else leaf)


def empty(sizes: tuple[int, ...], one: np.ndarray) -> np.ndarray:
    """Return an array for some members like that of one, NaN where there can be."""
    missing = math.nan if jnp.issubdtype(one.dtype, jnp.inexact) else 0
    return np.full((*sizes, *one.shape), missing, one.dtype)
