"""A sweep over methods and keys in pieces, where there is no room for all members at once."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from jaxdopt._checks import require
from jaxdopt._memory import MARGIN, compiled, readable

FEW = 64  # members of the program of which XLA is asked


class Pieces:
    """Methods times keys in pieces of one shape; the last ones are filled up with their last row.

    Args:
        batch: methods, stacked; one without numbers has no leaves to stack.
        keys: [seeds].
        shape: methods and keys of a piece; all by default.
    """

    def __init__(self, batch: Any, keys: Any, shape: tuple[int, int] | None = None) -> None:
        self.batch, self.keys = batch, keys
        leaves = jax.tree.leaves(batch)
        self.members = len(leaves[0]) if leaves else 1, len(keys)
        self.shape = self.members if shape is None else shape

    @property
    def count(self) -> int:
        """The number of pieces."""
        return math.prod(
            -(-all_ // one) for all_, one in zip(self.members, self.shape, strict=True)
        )

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        """Yield the methods and the keys of every piece, key after key."""
        if self.count == 1:
            yield self.batch, self.keys
            return
        for i in range(0, self.members[0], self.shape[0]):
            for j in range(0, self.members[1], self.shape[1]):
                methods, seeds = (
                    np.minimum(first + np.arange(one), all_ - 1)
                    for first, one, all_ in zip((i, j), self.shape, self.members, strict=True)
                )
                yield jax.tree.map(lambda leaf, at=methods: leaf[at], self.batch), self.keys[seeds]

    def joined(self, parts: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """Return arrays [methods, seeds, ...] by name of all pieces as those of the whole."""
        if self.count == 1:
            return parts[0]
        across = -(-self.members[1] // self.shape[1])
        rows = [parts[i : i + across] for i in range(0, len(parts), across)]

        def whole(name: str) -> np.ndarray:
            values = [np.concatenate([part[name] for part in row], axis=1) for row in rows]
            return np.concatenate(values)[: self.members[0], : self.members[1]]

        return {name: whole(name) for name in parts[0]}

    def within(self, room: float, program: Callable[[Any], Any], title: str) -> "Pieces":
        """Return pieces of which each takes at most so many bytes, by XLA's analysis of a few.

        Args:
            room: bytes.
            program: of (methods, keys).
            title: of the sweep, for errors.

        Raises:
            ValueError: there is no room for one member.
        """
        seeds = min(FEW, self.members[1])
        few = Pieces(self.batch, self.keys, (min(max(FEW // seeds, 1), self.members[0]), seeds))
        analysis = compiled(program, next(iter(few)))
        if analysis is None:
            return self
        needed = analysis.results + analysis.temporary
        each = max(MARGIN[0] * needed / math.prod(few.shape), 1)
        most = int(room / each)
        require(
            most > 0,
            f"a member of {title} takes some {readable(each)} and memory is {readable(room)}; give "
            "more, or record less.",
        )
        if most >= self.members[1]:
            return Pieces(
                self.batch,
                self.keys,
                (min(most // self.members[1], self.members[0]), self.members[1]),
            )
        return Pieces(self.batch, self.keys, (1, most))
