"""What devices send each other, counted in compiled programs."""

import collections
import math
import re
from collections.abc import Callable
from typing import NamedTuple

KINDS = ("all-gather", "all-reduce", "all-to-all", "collective-permute", "reduce-scatter")
BYTES = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "f16": 2, "bf16": 2}
BYTES |= {"s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8}


class Collectives(NamedTuple):
    """How many of a kind, and the bytes of what they bring to a device, its own part included."""

    number: float
    bytes: float


def per_step(program: Callable[[int], str], steps: int = 20) -> dict[str, Collectives]:
    """Return the collectives of one step by kind, of a compiled program of so many steps as text.

    They are those by which programs of ``steps`` and of twice as many differ.
    """
    short, long = (counted(program(length)) for length in (steps, 2 * steps))
    found = {}
    for kind, all_ in long.items():
        number, size = (b - a for a, b in zip(short.get(kind, (0, 0)), all_, strict=True))
        if number:
            found[kind] = Collectives(number / steps, size / steps)
    return found


def counted(text: str) -> dict[str, Collectives]:
    """Return the collectives of a compiled program by kind, those in loops once a turn.

    Raises:
        ValueError: a loop's number of turns is not known before it runs.
    """
    computations: dict[str, list[str]] = {}
    entry = name = ""
    for line in text.splitlines():
        begins = re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\{\s*$", line)
        if begins:
            name = begins[2]
            computations[name] = []
            entry = name if begins[1] else entry
        elif name:
            computations[name].append(line)
    found: collections.Counter[tuple[str, int]] = collections.Counter()
    _count(computations, entry, 1, found)
    kinds = sorted({kind for kind, _ in found})
    return {
        kind: Collectives(
            sum(times for (other, _), times in found.items() if other == kind),
            sum(size * times for (other, size), times in found.items() if other == kind),
        )
        for kind in kinds
    }


def _count(
    computations: dict[str, list[str]],
    name: str,
    times: int,
    found: collections.Counter[tuple[str, int]],
) -> None:
    for line in computations[name]:
        operation = re.search(r"= (.*?) ([a-z\-]+)\(", line)
        if operation is None:
            continue
        kind = operation[2].removesuffix("-start")
        if kind in KINDS:
            found[kind, _size(operation[1], starts=kind not in (operation[2], "all-reduce"))] += (
                times
            )
        turns = 1
        if kind == "while":
            known = re.search(r'known_trip_count":\{"n":"(\d+)"', line)
            inside = re.findall(r"body=%?([\w.\-]+)", line)
            if known is None and any(kind in "".join(computations[inside[0]]) for kind in KINDS):
                raise ValueError(
                    "a loop's number of turns is not known before it runs; give a program of scans."
                )
            turns = int(known[1]) if known else 1
        else:
            branches = re.findall(r"branch_computations=\{(.*?)\}", line)
            inside = re.findall(r"(?:to_apply|calls)=%?([\w.\-]+)", line)
            inside += [each.strip(" %") for branch in branches for each in branch.split(",")]
        for other in inside:
            _count(computations, other, times * turns, found)


def _size(shapes: str, starts: bool) -> int:
    """Return the bytes of arrays as XLA writes their types, f32[2,3] and so on.

    What only starts a collective has its operands in front of its results.
    """
    arrays = re.findall(r"(\w+)\[([\d,]*)\]", shapes)
    if starts:
        arrays = [each for each in arrays if each[1]]
        arrays = arrays[len(arrays) // 2 :]
    return sum(
        BYTES[dtype] * math.prod(int(length) for length in lengths.split(",") if length)
        for dtype, lengths in arrays
        if dtype in BYTES
    )
