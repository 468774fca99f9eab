"""Checkpoints of a run in a folder, from which it goes on exactly as if it had not stopped.

The state goes through orbax; the records are written once each, in files of some records. Whatever
is there under its final name is whole: it is written under another one and then renamed. A folder
in use is locked, as long as its process lives.

Of several processes that take part in a run, the first one writes the records, and each its own
parts of the state.

==============================  ==================================================================
``run.json``                    whose run it is: fingerprints, versions, settings
``rows-A-B.npz``                records A + 1 to B: metrics and accounts
``state-B/``                    the state after record B, in orbax's format
``.lock``                       held by the run while it goes on
==============================  ==================================================================
"""

import contextlib
import io
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from filelock import BaseFileLock, FileLock, Timeout

from jaxdopt import _processes, _repr
from jaxdopt._checks import require
from jaxdopt.fingerprint import fingerprint

if TYPE_CHECKING:
    from jaxdopt.records import History

T = TypeVar("T")

LOCK = ".lock"
SETTINGS = ("jax_enable_x64", "jax_default_matmul_precision", "jax_threefry_partitionable")


@contextlib.contextmanager
def opened(path: str | os.PathLike[str] | None) -> Iterator[Callable[[Any], "Kept | None"]]:
    """Lend a folder of what is finished of sweeps; it is locked meanwhile.

    Args:
        path: of the folder; it is made if there is none. None keeps nothing.

    Yields:
        A function of a question, all that a sweep depends on, to where its answers are kept.

    Raises:
        ValueError: it is in use, or is a file.
    """
    if path is None:
        yield lambda _: None
        return
    require(not Path(path).is_file(), f"checkpoint is {path!r}; give the name of a folder.")
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    lock = _locked(path)
    try:
        yield lambda question: Kept(folder, fingerprint(question, _settings()))
    finally:
        lock.release()


class Kept:
    """The finished members of a sweep, in files of some that follow each other.

    Args:
        path: of the folder.
        name: of the sweep, with which the names of its files begin.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        names = (
            re.fullmatch(r"-(\d+)-(\d+)\.npz", each.name.removeprefix(name))
            for each in path.glob(f"{name}-*.npz")
        )
        self.ranges = sorted((int(found[1]), int(found[2])) for found in names if found)

    def write(self, start: int, end: int, leaves: list[np.ndarray]) -> None:
        """Keep what came of the members from ``start`` to ``end``, [end - start, ...] each."""
        arrays = {str(place): values for place, values in enumerate(leaves)}
        _write_arrays(self.path / f"{self.name}-{start}-{end}.npz", arrays)

    def read(self, start: int, end: int) -> list[np.ndarray] | None:
        """Return what came of some members, whatever the pieces were; None if some are missing."""
        parts, at = [], start
        for first, last in self.ranges:
            if first <= at < min(last, end):
                rows = slice(at - first, min(last, end) - first)
                arrays = _read_arrays(self.path / f"{self.name}-{first}-{last}.npz")
                parts.append([arrays[str(place)][rows] for place in range(len(arrays))])
                at = min(last, end)
        if at < end:
            return None
        return parts[0] if len(parts) == 1 else [*map(np.concatenate, zip(*parts, strict=True))]


class Folder:
    """A folder of a run's checkpoints.

    Args:
        path: of the folder; it is made if there is none. It is locked until `close`.
        parts: all that the run's result depends on, but for the number of steps, by name.
        shared: whether several processes take part in the run.

    Raises:
        ValueError: the folder is another run's, in use, or not a run's.
        ImportError: orbax is missing.
    """

    def __init__(
        self, path: str | os.PathLike[str], parts: Mapping[str, Any], *, shared: bool = False
    ) -> None:
        self.path = Path(path).absolute()  # as orbax wants it
        self.saved = -1  # the record of the last state
        self.orbax = _orbax()
        self.shared = shared
        self.lock: BaseFileLock | None = None
        name, about = os.fspath(path), _about(parts)
        try:
            self._once(lambda: self._open(name, about))
            require(
                not shared or _processes.all_see((self.path / "run.json").exists),
                f"the folder {name!r} is not the same for all processes; give one on a file system "
                "that they share.",
            )
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Leave the folder to others."""
        if self.lock is not None:
            self.lock.release()

    def _once(self, function: Callable[[], T]) -> T:
        """Call a function, only in the first of several processes, and return its result in all."""
        return _processes.by_first(function) if self.shared else function()

    def _open(self, name: str, about: dict[str, Any]) -> None:
        """Lock the folder, and make it this run's if it is nobody's."""
        require(
            self.path.is_dir() or not self.path.exists(),
            f"checkpoint is {name!r}, which is a file; give a folder.",
        )
        described = self.path / "run.json"
        there = {each.name for each in self.path.glob("*") if not _unfinished(each)}
        foreign = sorted(there - {LOCK})
        require(
            not foreign or described.exists(),
            f"the folder {name!r} has {', '.join(foreign[:1])!r} and no run.json, so it is no "
            "run's; give an empty folder, or a new one.",
        )
        self.path.mkdir(parents=True, exist_ok=True)
        self.lock = _locked(name)
        if described.exists():
            _require_same(name, json.loads(described.read_text()), about)
        else:
            _write(described, json.dumps(about, indent=1).encode())

    def resume(self, state: Any, history: "History", diverged: Any) -> tuple[Any, int, Any]:
        """Return the last state that was saved, its record, and whether it has diverged.

        The records up to there are put into ``history``. ``state`` is the run's first one; it is
        returned if none was saved. What was not finished is removed.
        """
        saved = self._once(self._last)
        require(
            saved <= history.total,
            f"the folder {self.path.name!r} has {saved} records and this run would have "
            f"{history.total}; give at least as many steps, or another folder.",
        )
        if saved >= 0:
            diverged, state = self._read_state(saved, state, diverged)
            self._read_rows(saved, history)
        self.saved = saved
        self._once(self._tidy)
        return state, max(saved, 0), diverged

    def save(self, taken: int, state: Any, diverged: Any, history: "History") -> None:
        """Save the state after some records, and the records since the last one."""
        if taken == self.saved:
            return
        first = max(self.saved, 0)
        rows = {f"metrics.{n}": v[first + 1 : taken + 1] for n, v in history.metrics.items()}
        rows["records"] = history.records[first + 1 : taken + 1]
        self._once(lambda: _write_arrays(self.path / f"rows-{first}-{taken}.npz", rows))
        tree = [jnp.asarray(diverged), *_filled(state)]
        with self.orbax.Checkpointer(self.orbax.PyTreeCheckpointHandler()) as writer:
            writer.save(self.path / f"state-{taken}", args=self.orbax.args.PyTreeSave(tree))
        self.saved = taken
        self._once(self._tidy)

    def _last(self) -> int:
        """Return the record of the last state that was saved, or -1."""
        return max((record for (record,) in self._numbers(r"state-(\d+)")), default=-1)

    def _read_state(self, record: int, like: Any, diverged: Any) -> tuple[Any, Any]:
        leaves, structure = jax.tree.flatten(like)
        tree = [jnp.asarray(diverged), *_filled(like)]
        shapes = [
            jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding) for leaf in tree
        ]
        with self.orbax.Checkpointer(self.orbax.PyTreeCheckpointHandler()) as reader:
            found = reader.restore(
                self.path / f"state-{record}",
                args=self.orbax.args.PyTreeRestore(
                    item=shapes,
                    restore_args=self.orbax.checkpoint_utils.construct_restore_args(shapes),
                ),
            )
        diverged, *filled = found
        rest = iter(filled)
        leaves = [next(rest) if leaf.size else leaf for leaf in leaves]
        return diverged, jax.tree.unflatten(structure, leaves)

    def _read_rows(self, taken: int, history: "History") -> None:
        ends = {first: end for first, end in self._numbers(r"rows-(\d+)-(\d+)\.npz")}
        history.reserve(taken + 1)
        at = 0
        while at < taken:
            end = ends.get(at, 0)
            require(
                at < end <= taken,
                f"the folder {self.path.name!r} lacks the records after {at}; give a new folder.",
            )
            rows = _read_arrays(self.path / f"rows-{at}-{end}.npz")
            for name, values in history.metrics.items():
                values[at + 1 : end + 1] = rows[f"metrics.{name}"]
            history.records[at + 1 : end + 1] = rows["records"]
            at = end

    def _numbers(self, pattern: str) -> list[tuple[int, ...]]:
        names = (re.fullmatch(pattern, path.name) for path in self.path.iterdir())
        return sorted(tuple(map(int, match.groups())) for match in names if match)

    def _tidy(self) -> None:
        """Remove older states, what comes after the last one, and what was not finished."""
        for (record,) in self._numbers(r"state-(\d+)"):
            if record != self.saved:
                shutil.rmtree(self.path / f"state-{record}")
        for first, end in self._numbers(r"rows-(\d+)-(\d+)\.npz"):
            if end > self.saved:
                (self.path / f"rows-{first}-{end}.npz").unlink()
        for path in filter(_unfinished, [*self.path.iterdir()]):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _locked(path: str | os.PathLike[str]) -> BaseFileLock:
    """Return the lock of a folder, held from here on; refuse a folder that is in use."""
    lock = FileLock(Path(path, LOCK), timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise ValueError(
            f"the folder {os.fspath(path)!r} is in use by another run or comparison; let that one "
            "end, or give another folder."
        ) from None
    return lock


def _orbax() -> Any:
    try:
        import orbax.checkpoint as orbax
    except ImportError as error:
        raise ImportError(
            "checkpoints need orbax; install it with pip install 'jaxdopt[checkpoints]'."
        ) from error
    return orbax


def _about(parts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a run depends on, as fingerprints and in words."""
    from jaxdopt import __version__

    return {
        "versions": {"jaxdopt": __version__, "jax": jax.__version__, "numpy": np.__version__},
        "sources": fingerprint(),
        "settings": _settings(),
        "parts": {
            name: {"is": _repr.line(part), "fingerprint": fingerprint(part)}
            for name, part in parts.items()
        },
    }


def _settings() -> dict[str, Any]:
    return {name: getattr(jax.config, name) for name in SETTINGS}


def _require_same(path: str, there: dict[str, Any], here: dict[str, Any]) -> None:
    """Refuse a folder of another run, and say what is another."""
    remedy = "give the same, or another folder"
    for what in ("versions", "settings"):
        for name, value in here[what].items():
            known = there[what].get(name)
            require(
                value == known,
                f"the run in {path!r} was begun with {name} {known} and this is {value}; {remedy}.",
            )
    require(
        there["sources"] == here["sources"],
        f"the run in {path!r} was begun with other sources of jaxdopt; {remedy}.",
    )
    for name, part in here["parts"].items():
        known = there["parts"][name]
        words = (
            f"{known['is']}, and this one's is {part['is']}"
            if known["is"] != part["is"]
            else f"{part['is']} with other values"
        )
        require(
            known["fingerprint"] == part["fingerprint"],
            f"the {name} of the run in {path!r} is {words}; {remedy}.",
        )


def _filled(state: Any) -> list[Any]:
    """Return the arrays of a state that are not empty, which orbax does not take."""
    return [leaf for leaf in jax.tree.leaves(state) if leaf.size]


def _write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays into a file; those of dtypes that are not NumPy's own, such as bfloat16, too."""
    dtypes = {name: str(values.dtype) for name, values in arrays.items()}
    foreign = {n: v.view(f"V{v.itemsize}") for n, v in arrays.items() if v.dtype.kind == "V"}
    content = io.BytesIO()
    np.savez(content, dtypes=np.array(json.dumps(dtypes)), **{**arrays, **foreign})  # pyright: ignore[reportArgumentType]
    _write(path, content.getvalue())


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        dtypes = json.loads(file["dtypes"].item())
        return {name: file[name].view(jnp.dtype(dtype)) for name, dtype in dtypes.items()}


def _unfinished(path: Path) -> bool:
    """Return whether a file or a folder was still being written."""
    return path.suffix == ".part" or ".orbax-checkpoint-tmp" in path.name


def _write(path: Path, content: bytes) -> None:
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(content)
    os.replace(part, path)
