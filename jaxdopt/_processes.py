"""Runs over several processes, as `jax.distributed.initialize` connects them.

Every process makes the same calls, and an array over the devices of several of them has only some
of its parts in each. Here such arrays are gathered, and what depends on a clock, a signal or a file
is decided once for all. Except for `are_several` and `spans`, all processes have to call these
functions together, as they wait for each other.
"""

import json
import socket
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec

from jaxdopt._mesh import put

T = TypeVar("T")

BLOCK = 2**26  # bytes of an array that are gathered at a time where it is only read through


def is_first() -> bool:
    """Return whether this process decides, prints and writes for all."""
    return jax.process_index() == 0


def spans(tree: Any) -> bool:
    """Return whether an array of a tree has parts that this process cannot read."""
    return jax.process_count() > 1 and any(map(_is_elsewhere, jax.tree.leaves(tree)))


def _is_elsewhere(leaf: Any) -> bool:
    concrete = isinstance(leaf, jax.Array) and not isinstance(leaf, Tracer)
    return concrete and not leaf.is_fully_addressable


def processes_of(tree: Any) -> set[int]:
    """Return the numbers of the processes on whose devices a tree's arrays are."""
    arrays = [leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.Array)]
    return {device.process_index for leaf in arrays for device in leaf.sharding.device_set}


def gathered(tree: T) -> T:
    """Return a tree whose arrays can be read in every process."""

    def leaf(value: Any) -> Any:
        if not _is_elsewhere(value) or value.is_fully_replicated:
            return value
        return put(value, NamedSharding(value.sharding.mesh, PartitionSpec()))

    return jax.tree.map(leaf, tree) if spans(tree) else tree


def local(tree: T) -> T:
    """Return a tree whose arrays each process has for itself."""

    def leaf(value: Any) -> Any:
        if not _is_elsewhere(value):
            return value
        if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            numbers = leaf(jax.random.key_data(value))
            return jax.random.wrap_key_data(numbers, impl=jax.random.key_impl(value))
        return jnp.asarray(np.asarray(value))

    return jax.tree.map(leaf, gathered(tree)) if spans(tree) else tree


def blocks(array: Any) -> Iterator[np.ndarray]:
    """Yield the rows of an array, some at a time."""
    if not _is_elsewhere(array) or array.is_fully_replicated or array.nbytes <= BLOCK:
        yield np.asarray(gathered(array))
        return
    rows = max(BLOCK * len(array) // array.nbytes, 1)
    for first in range(0, len(array), rows):
        yield np.asarray(gathered(array[first : first + rows]))


def agreed(*numbers: int) -> np.ndarray:
    """Return the numbers that all processes say, a row each."""
    return multihost_utils.process_allgather(np.array(numbers, np.int32)).reshape(-1, len(numbers))


def by_first(function: Callable[[], T]) -> T:
    """Return in all processes what a function returns in the first one, where alone it is called.

    It returns something that JSON can hold. If it fails, all processes fail.
    """
    said: dict[str, Any] = {}
    failure = None
    if is_first():
        try:
            said = {"value": function()}
        except Exception as error:
            failure = error
            said = {"error": str(error), "refused": isinstance(error, ValueError)}
    said = json.loads(_told(json.dumps(said).encode()))
    if failure is not None:
        raise failure
    if "error" in said:
        kind = ValueError if said["refused"] else RuntimeError
        raise kind(said["error"])
    return said["value"]


def _told(words: bytes) -> bytes:
    """Return the first process's words."""
    length = int(agreed(len(words))[0, 0])
    room = np.zeros(max(1024, 2 ** (length - 1).bit_length()), np.uint8)  # few programs
    if is_first():
        room[:length] = np.frombuffer(words, np.uint8)
    return np.asarray(multihost_utils.broadcast_one_to_all(room))[:length].tobytes()


def all_see(there: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Return whether something comes to be seen by all processes, as a file that one has made."""
    end = time.monotonic() + seconds
    while not (seen := there()) and time.monotonic() < end:
        time.sleep(0.05)
    return bool(agreed(seen).all())


def least_room(free: float | None, shared: bool) -> float | None:
    """Return how much memory all processes have together if each has what the poorest one has.

    Args:
        free: bytes in this process; None if nobody knows.
        shared: whether processes on the same machine share it.
    """
    machine = zlib.crc32(socket.gethostname().encode()) >> 1
    said = agreed(-1 if free is None else int(free / 2**20), machine)
    if said[:, 0].min() < 0:
        return None
    there = [(said[:, 1] == each).sum() if shared else 1 for each in said[:, 1]]
    return float((said[:, 0] / there).min() * 2**20 * len(said))


def wait_for_all(what: str) -> None:
    """Return once all processes are here."""
    multihost_utils.sync_global_devices(f"jaxdopt {what}")
