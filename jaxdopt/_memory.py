"""How much memory a program will take, and whether there is as much: before it is allocated.

Estimates come from shapes, in three stages, of which ordinary calls see the first one alone:

1. a rough figure, of the arguments' sizes and the number of records, in microseconds: most calls
   need far less than there is;
2. from the traced program, the bytes of its results, which are the least that it needs, and those
   of all values alive at a time, a bound on what it needs before XLA fuses any of them;
3. where the memory lies between these two, XLA's own analysis of the compiled program.

Nothing is allocated in any of them.
"""

import functools
import hashlib
import math
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxdopt import _processes
from jaxdopt._checks import require
from jaxdopt._leaves import is_traced

SMALL = 2**30  # bytes that any machine has: what is roughly below is not looked at
COPIES = 16  # of its arguments that a program holds at most, roughly, in eight bytes a number
RECORD = 512  # bytes of a record of all axes and default metrics, roughly
MARGIN = 1.1, 100e6  # factor and bytes by which XLA's analysis is exceeded


class Need(NamedTuple):
    """The bytes of a program, beside its arguments.

    Attributes:
        results: of what it returns.
        histories: of the records among them.
        bound: of all values alive at a time, if none were fused.
    """

    results: int
    histories: int
    bound: int


class Compiled(NamedTuple):
    """What XLA says of a compiled program, in bytes."""

    arguments: int
    results: int
    temporary: int

    @property
    def total(self) -> int:
        """All that has to be there while it runs."""
        return self.arguments + self.results + self.temporary


_ANALYSES: dict[bytes, Compiled] = {}  # of programs by their text: some hundred bytes each


def readable(size: float) -> str:
    """Return a number of bytes in units of 1000."""
    units = iter(("B", "kB", "MB", "GB", "TB", "PB"))
    unit = next(units)
    while size >= 999.5 and unit != "PB":
        size, unit = size / 1000, next(units)
    return f"{size:.3g} {unit}"


def amount(memory: Any) -> float:
    """Return a number of bytes, or one in words such as "4 GiB", as bytes."""
    if isinstance(memory, str):
        found = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*([kMGT]?)(i?)B\s*", memory)
        size = 0.0
        if found:
            base, power = (1024 if found[3] else 1000), " kMGT".index(found[2] or " ")
            size = float(found[1]) * base**power
    else:
        known = isinstance(memory, int | float | np.number) and not isinstance(memory, bool)
        size = float(memory) if known else 0.0
    require(
        0 < size < math.inf,
        f'memory is {memory!r}; give a number of bytes above 0, or words such as "4 GiB".',
    )
    return size


def bytes_of(tree: Any) -> int:
    """Return the bytes of all arrays in a tree, or of their shapes."""
    return sum(_bytes(leaf) for leaf in jax.tree.leaves(tree) if hasattr(leaf, "dtype"))


def _bytes(leaf: Any) -> int:
    return math.prod(leaf.shape) * leaf.dtype.itemsize


def shapes_of(tree: Any) -> Any:
    """Return a tree with a shape in place of every array, and all else as it is."""

    def leaf(value: Any) -> Any:
        if not isinstance(value, jax.Array | np.ndarray):
            return value
        if isinstance(value, np.ndarray):
            return jax.ShapeDtypeStruct(value.shape, jax.dtypes.canonicalize_dtype(value.dtype))
        spread = value.sharding if value.sharding.num_devices > 1 else None
        weak = getattr(value, "weak_type", False)  # keys have none
        return jax.ShapeDtypeStruct(value.shape, value.dtype, weak_type=weak, sharding=spread)

    return jax.tree.map(leaf, tree)


def of_shapes(program: Callable[[Any], Any], given: Any) -> tuple[Callable[..., Any], list[Any]]:
    """Return a program as a function of the arrays in its argument alone, and their shapes."""
    leaves, structure = jax.tree.flatten(shapes_of(given))
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, jax.ShapeDtypeStruct)]

    def of_arrays(arrays: list[Any]) -> Any:
        filled = list(leaves)
        for place, array in zip(places, arrays, strict=True):
            filled[place] = array
        return program(structure.unflatten(filled))

    return of_arrays, [leaves[place] for place in places]


def traced(program: Callable[[Any], Any], given: Any) -> Need:
    """Return what a program of one argument needs, as it is traced."""
    of_arrays, shapes = of_shapes(program, given)
    closed, out = jax.make_jaxpr(of_arrays, return_shape=True)(shapes)
    records = {name: getattr(out, name, None) for name in ("metrics", "costs")}
    return Need(bytes_of(out), bytes_of(records), _alive(closed.jaxpr))


def compiled(program: Callable[[Any], Any], given: Any) -> Compiled | None:
    """Return what XLA says that a program of one argument needs; None if it says nothing."""
    of_arrays, shapes = of_shapes(program, given)
    lowered = jax.jit(of_arrays).lower(shapes)
    known = hashlib.sha256(lowered.as_text().encode()).digest()
    if known not in _ANALYSES:
        analysis: Any = lowered.compile().memory_analysis()
        if analysis is None:
            return None
        results = analysis.output_size_in_bytes - analysis.alias_size_in_bytes
        sizes = analysis.argument_size_in_bytes, results, analysis.temp_size_in_bytes
        _ANALYSES[known] = Compiled(*sizes)
    return _ANALYSES[known]


def _alive(jaxpr: Any) -> int:
    """Return the most bytes of values alive at a time, those of the arguments not counted."""
    last = {}  # the place at which every value is used last
    for place, equation in enumerate(jaxpr.eqns):
        last |= dict.fromkeys((v for v in equation.invars if not hasattr(v, "val")), place)
    last |= dict.fromkeys((v for v in jaxpr.outvars if not hasattr(v, "val")), len(jaxpr.eqns))
    now, most, made = 0, 0, {}
    for place, equation in enumerate(jaxpr.eqns):
        sizes = {v: _bytes(v.aval) for v in equation.outvars if hasattr(v.aval, "dtype")}
        inner = max((_alive(one) for one in _within(equation.params.values())), default=0)
        made |= sizes
        now += sum(sizes.values())
        most = max(most, now + inner)
        ending = {v for v in equation.invars if not hasattr(v, "val")} | set(sizes)
        now -= sum(made.pop(v, 0) for v in ending if last.get(v, place) == place)
    return most


def _within(values: Any) -> Any:
    """Yield the programs among the parameters of an operation."""
    for value in values:
        if isinstance(value, tuple | list):
            yield from _within(value)
        elif hasattr(value, "eqns"):
            yield getattr(value, "jaxpr", value)


def available(tree: Any = ()) -> float | None:
    """Return the bytes that are free on the devices of a tree's arrays; None if nobody knows.

    They are those of JAX's default device where no array is on any. If the arrays are over several
    processes, all of these have to call it.
    """
    free = _available_here(tree)
    if not _processes.spans(tree):
        return free
    on_cpu = jax.local_devices()[0].platform == "cpu"
    return _processes.least_room(free, shared=on_cpu)


def _available_here(tree: Any) -> float | None:
    free = 0.0
    for device in devices_with(tree):
        stats = device.memory_stats() if device.platform != "cpu" else None
        if not stats or "bytes_limit" not in stats:
            return _of_host() if device.platform == "cpu" else None
        free += stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    return free


def devices_with(tree: Any) -> set[Any]:
    """Return the devices here of a tree's arrays; JAX's default one where no array is on any."""
    arrays = [leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.Array)]
    devices = {device for array in arrays for device in array.sharding.addressable_devices}
    default = jax.config.jax_default_device  # type: ignore[attr-defined]
    own = default if isinstance(default, jax.Device) else jax.local_devices()[0]
    return devices or {own}


def _is_on_host(tree: Any) -> bool:
    return all(device.platform == "cpu" for device in devices_with(tree))


def _of_host() -> float | None:
    """Return the free memory of this machine, or of the container that this process is in."""
    found = []
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        known = dict(line.split(":") for line in lines)
        found.append(float(known["MemAvailable"].split()[0]) * 1024)
    except (OSError, KeyError, ValueError):
        try:
            found.append(float(os.sysconf("SC_PHYS_PAGES")) * os.sysconf("SC_PAGE_SIZE"))
        except (AttributeError, OSError, ValueError):
            return None
    for folder, limit, used, cache in (
        ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
        ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes",
         "total_inactive_file"),
    ):  # fmt: skip
        try:
            numbers = dict(
                line.split() for line in Path(folder, "memory.stat").read_text().splitlines()
            )
            taken = float(Path(folder, used).read_text()) - float(numbers.get(cache, 0))
            found.append(float(Path(folder, limit).read_text()) - taken)
        except (OSError, ValueError):  # no such group, or one without a limit, "max"
            continue
    return max(min(found), 0.0)


def require_free(what: str, needed: float, remedy: str) -> None:
    """Refuse to allocate more bytes on the host than are free."""
    if needed >= SMALL:
        room = _of_host()
        require(
            room is None or needed <= room,
            f"{what} takes some {readable(needed)} of memory and {readable(room or 0)} are free; "
            f"{remedy}.",
        )


def require_room(
    program: Callable[[Any], Any], given: Mapping[str, Any], large: Any, *, records: int
) -> None:
    """Refuse a run that needs more memory than is free.

    Args:
        program: a function of ``given`` that returns its `Result`.
        given: the arguments by name.
        large: those whose numbers the rough figure is of.
        records: of the run.

    Raises:
        ValueError: it needs more.
    """
    room = _room(given, large, records, 1)
    if room is None:
        return
    need = traced(program, given)
    say = functools.partial(_sentence, room=room, need=need, members=1)
    require(need.results <= room, say(need.results, "at least "))
    if need.bound > room:
        analysis = compiled(program, given)
        if analysis is not None:
            needed = MARGIN[0] * (analysis.results + analysis.temporary) + MARGIN[1]
            require(needed <= room, say(needed, "some "))


def room_for_pieces(
    program: Callable[[Any], Any],
    given: Mapping[str, Any],
    large: Any,
    *,
    records: int,
    members: int,
) -> float | None:
    """Return the bytes in which a sweep has to be computed piece by piece; None if all may fit.

    Args:
        program: a function of ``given`` that returns the results of all members.
        given: the arguments by name.
        large: those whose numbers the rough figure is of, for one member.
        records: of one member.
        members: of the sweep.

    Raises:
        ValueError: the host has no room for the results.
    """
    room = _room(given, large, records, members)
    if room is None:
        return None
    need = traced(program, given)
    host = room if _is_on_host(given) else _of_host()
    if host is not None:
        say = functools.partial(_sentence, room=host, need=need, members=members)
        require(need.results <= host, say(need.results, "at least "))
    if need.bound <= room:
        return None
    return (room - need.results if _is_on_host(given) else room) / 2


def _room(given: Any, large: Any, records: int, members: int) -> float | None:
    """Return the bytes that are free if a call may need as many, by the rough figure."""
    numbers = sum(getattr(leaf, "size", 1) for leaf in jax.tree.leaves(large))
    rough = members * (COPIES * 8 * numbers + RECORD * records)
    if rough < SMALL or is_traced(given):
        return None
    room = available(given)
    return None if room is None or rough < room / 2 else room


def _sentence(needed: float, how: str, *, room: float, need: Need, members: int) -> str:
    remedies = []
    if need.histories > needed / 2:
        remedies = ["record less often, by every=, or less, by defaults="]
    if members > 1:
        fewer = max(int(members * room / needed / 2), 1)
        remedies.append(f"sweep over some {fewer:,} members at a time")
    elif not remedies:
        remedies = ["take fewer agents or parameters, a shorter dtype, or more devices"]
    who = f"the sweep of {members:,} members" if members > 1 else "the run"
    return (
        f"{who} needs {how}{readable(needed)} of memory, {readable(need.histories)} of it for "
        f"histories, and {readable(room)} are free; {', or '.join(remedies)}."
    )
