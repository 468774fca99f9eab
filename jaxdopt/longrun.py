"""Long runs in chunks: a bar, early stops, callbacks, signals and checkpoints.

A long run is a loop on the host around a compiled loop over some of its records, whose number is
traced; its state goes from one chunk to the next in the same memory. Between chunks, every half
second or so, the host sees what there is. `drive` is that loop; the mathematics are `loop`'s.

Of several processes that take part in a run, each drives its own loop. Before every chunk they
agree on its length and on whether to save, by the first one's clock, and on whether one of them has
got a signal, so that all take the same chunks and stop after the same one.
"""

import dataclasses
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from jaxdopt import _processes, checkpoints
from jaxdopt._checks import require
from jaxdopt._leaves import distinct, is_traced
from jaxdopt._mesh import spread_alike
from jaxdopt._pytree import replace
from jaxdopt.records import STOPPED, Begun, Chunk, History, Reporter

CHUNK = 0.5  # seconds of a chunk: Ctrl-C is answered as soon as one ends
BAR = 2.0  # seconds until a bar is shown
GRACE = 1.0  # seconds for a signal to come that another process has got
GROWTH = 8  # of a chunk's records over those of the one before it

STEP = 1e-5  # seconds of a small step, in which XLA starts its operations
NUMBER = 4e-10  # seconds for each number that a step reads


@dataclasses.dataclass(frozen=True)
class Options:
    """What is asked of a run beside its result: arguments of `jaxdopt.run`."""

    progress: bool | None = None
    checkpoint: Any = None
    checkpoint_every: float = 60.0
    until: Mapping[str, Any] | None = None
    callback: Callable[[dict[str, Any]], Any] | None = None

    def check(self, recorded: Mapping[str, Any]) -> None:
        """Refuse values that make no sense, and targets for metrics that are not recorded."""
        require(
            self.progress is None or isinstance(self.progress, bool),
            f"progress is {self.progress!r}; give True, False, or None for a bar in long runs.",
        )
        require(
            self.checkpoint is None or isinstance(self.checkpoint, str | os.PathLike),
            f"checkpoint is {self.checkpoint!r}; give the name of a folder.",
        )
        seconds = self.checkpoint_every
        require(
            isinstance(seconds, int | float) and not isinstance(seconds, bool) and seconds > 0,
            f"checkpoint_every is {seconds!r}; give seconds, a number above 0.",
        )
        require(
            self.callback is None or callable(self.callback),
            f"callback is {self.callback!r}; give a function of a record, a dict.",
        )
        require(
            self.until is None or (isinstance(self.until, Mapping) and self.until),
            f"until is {self.until!r}; give {{metric: value}}, as in "
            '{"gap": 1e-9}, or {"diverged": True}.',
        )
        for name, value in (self.until or {}).items():
            require(
                name == "diverged" or name in recorded,
                f"until names {name!r}, which is not recorded; name some of "
                f"{', '.join(recorded) or 'the metrics'}, or diverged.",
            )
            number = isinstance(value, int | float | np.number) or (
                isinstance(value, jax.Array | np.ndarray) and value.shape == ()
            )
            require(
                value is True if name == "diverged" else number and not isinstance(value, bool),
                f"until[{name!r}] is {value!r}; give "
                f"{'True' if name == 'diverged' else 'a number'}.",
            )

    @property
    def named(self) -> list[str]:
        """The options that need a loop on the host."""
        given = {
            "progress": self.progress is True,
            "checkpoint": self.checkpoint is not None,
            "until": self.until is not None,
            "callback": self.callback is not None,
        }
        return [name for name, there in given.items() if there]

    @property
    def targets(self) -> dict[str, float] | None:
        """The metrics' values to reach; None if the run never stops early."""
        if self.until is None:
            return None
        return {name: float(value) for name, value in self.until.items() if name != "diverged"}

    @property
    def pause(self) -> float:
        """The seconds of a chunk."""
        return CHUNK if self.checkpoint is None else min(CHUNK, float(self.checkpoint_every))


NO_OPTIONS = Options()


def options_of(recorded: Mapping[str, Any], *given: Any) -> Options:
    """Return the options of a run that records some metrics, checked."""
    if given == DEFAULTS:
        return NO_OPTIONS
    options = Options(*given)
    options.check(recorded)
    return options


DEFAULTS = tuple(field.default for field in dataclasses.fields(Options))


def in_chunks(options: Options, steps: int, numbers: int, setting: Any) -> bool:
    """Return whether a run goes in chunks: if an option asks for it, or if it may take long.

    How long is estimated from the steps and from how many ``numbers`` a step may read. Options are
    refused where the call or something in ``setting`` is traced.
    """
    named = options.named
    if not named and expected_seconds(steps, numbers) < CHUNK:
        return False
    traced = is_traced((setting, options.until)) or is_traced(jnp.zeros(()))
    names = f"{' and '.join(named)} {'is' if len(named) == 1 else 'are'} given"
    require(
        not (named and traced),
        f"{names} to a run that is traced, as in jit, vmap or a sweep; leave "
        f"{'it' if len(named) == 1 else 'them'} out there, or call run outside of it.",
    )
    if traced or not _processes.spans(setting):
        return not traced
    absent = {*range(jax.process_count())} - _processes.processes_of(setting)
    require(
        not (named and absent),
        f"{names} to a run over several processes, but not over number {min(absent, default=0)}; "
        "put x0 on a mesh of the devices of all processes, or of one.",
    )
    return not absent


def numbers_in(*parts: Any) -> int:
    """Return how many numbers there are in some trees."""
    return sum([getattr(leaf, "size", 1) for leaf in jax.tree.leaves(parts)])


def expected_seconds(steps: int, numbers: int) -> float:
    """Return about how long steps take on a CPU that read so many numbers once each.

    It is the estimate of an order of magnitude.
    """
    return steps * (STEP + NUMBER * numbers)


def drive(
    begun: Begun,
    chunk: Callable[..., Chunk],
    *,
    given: Any,
    start: int,
    steps: int,
    every: int,
    options: Options,
    folder: "checkpoints.Folder | None",
    reported_first: bool,
) -> dict[str, Any]:
    """Take the steps of a run, chunk after chunk, and return what a `Result` is made of.

    Args:
        begun: the run's beginning.
        chunk: ``(state, step, count, fixed_count) -> Chunk``; it may write into the state's memory.
        given: what the caller owns, into whose memory nothing is written.
        start: the first step's number.
        steps: how many to take.
        every: how many steps a record covers.
        options: what is asked beside the result.
        folder: where checkpoints are, if anywhere.
        reported_first: whether the callback has had row 0 before, from a run that goes on here.
    """
    together = _processes.spans(begun)
    speaks = not together or _processes.is_first()
    begun = replace(
        begun,
        first=_processes.local(begun.first),
        record=_processes.local(begun.record),
        rates=_processes.local(begun.rates),
    )
    history = History(begun, steps // every)
    state, taken, diverged = begun.state, 0, begun.diverged
    if folder is not None:
        state, taken, diverged = folder.resume(state, history, diverged)
    state = distinct(spread_alike(state, state.x), (given, begun.first, begun.rates))
    reporter = Reporter(
        options.callback if speaks else None,
        history,
        start,
        every,
        taken + (taken > 0 or reported_first),
        keeps_failure=together,
    )
    pace = Pace(begun.capacity, options.pause, static=not has_cheap_counts(state))
    first = np.asarray(start).dtype.type
    stopped = history.reached(taken, options.targets, bool(diverged))
    saved = time.monotonic()
    numbers = [signal.SIGINT, *[signal.SIGTERM] * (folder is not None)]
    with (
        Signals(numbers) as signals,
        tqdm(
            total=steps,
            initial=taken * every,
            unit="step",
            unit_scale=steps >= 10_000,
            delay=BAR if options.progress is None else 0,
            disable=options.progress is False or not speaks,
        ) as bar,
    ):
        while taken < history.total and stopped is None:
            turn = Turn(
                pace.count(history.total - taken),
                folder is not None and time.monotonic() - saved >= options.checkpoint_every,
                (signals.received or 0) if reporter.failure is None else FAILED,
            )
            turn = turn.agreed() if together else turn
            if turn.ends:
                break
            if folder is not None and turn.saves:
                reporter.report(taken)
                folder.save(taken, state, diverged, history)
                saved = time.monotonic()
            count = turn.count
            begin = time.monotonic()
            fixed = count if pace.static else None
            part = chunk(state, first(start + taken * every), first(count), fixed)
            state, diverged = part.state, part.diverged
            part = _processes.gathered(replace(part, state=None))
            reporter.report(taken)  # of the records before, while this chunk is computed
            more = int(part.taken)
            history.write(taken, more, part)
            stopped = STOPPED.get(int(part.reached))
            pace.note(count, time.monotonic() - begin)
            taken += more
            bar.set_postfix_str(history.brief(taken, options.targets), refresh=False)
            bar.update(more * every)
        reporter.report(taken)
        if together:
            reporter.require_success()
        if folder is not None:
            folder.save(taken, state, diverged, history)
        ends = 0
        if together:
            ends = Turn(0, False, signals.received or 0).agreed().ends
        if ends:
            signals.wait(ends, GRACE)
            _processes.wait_for_all("end")  # the others fail when the first one is gone
    if signal.SIGTERM in (ends, signals.received):
        signal.raise_signal(signal.SIGTERM)  # to whom it was for
    if stopped is None and taken < history.total:
        stopped = "interrupt"
    metrics, costs = history.until(taken, begun.rates, start, every)
    return {
        "state": state,
        "metrics": metrics,
        "costs": costs,
        "diverged": jnp.asarray(_processes.local(diverged)),
        "own_axes": begun.own_axes,
        "stopped": stopped,
    }


class Turn(NamedTuple):
    """What comes next in a run.

    Attributes:
        count: the records of the next chunk.
        saves: whether a checkpoint is due before.
        ends: the number of the signal with which the run ends here, or `FAILED`, or 0.
    """

    count: int
    saves: bool
    ends: int

    def agreed(self) -> "Turn":
        """Return what all processes do, by the clock of the first one; all have to call it."""
        said = _processes.agreed(*map(int, self))
        return Turn(int(said[0, 0]), bool(said[0, 1]), int(said[:, 2].max()))


FAILED = 1000  # above all signals


def has_cheap_counts(state: Any) -> bool:
    """Return whether a loop of so many passes as a variable says is as quick as any other."""
    return {device.platform for device in jax.tree.leaves(state)[0].devices()} == {"cpu"}


class Pace:
    """How many records the next chunk has, so that it takes some ``seconds``.

    Args:
        capacity: how many it may have.
        seconds: how long it shall take.
        static: whether each number is another program, as on a GPU, where a loop of so many
            passes as a variable says is asked on the host after each one. There are few then.
    """

    def __init__(self, capacity: int, seconds: float, static: bool) -> None:
        self.capacity, self.seconds, self.static = capacity, seconds, static
        self.wanted = 1
        self.compiled: set[int | None] = set()

    def count(self, left: int) -> int:
        """Return the records of the next chunk, where some are left."""
        count = min(self.wanted, left, self.capacity)
        return GROWTH ** int(np.log(count + 0.5) / np.log(GROWTH)) if self.static else count

    def note(self, count: int, seconds: float) -> None:
        """Learn how long a chunk took, but for those that had to be compiled."""
        program = count if self.static else None
        if program in self.compiled:
            fitting = int(count * self.seconds / max(seconds, 1e-9))
            self.wanted = max(1, min(fitting, GROWTH * count))
        self.compiled.add(program)


class Signals:
    """Notes the first signal that comes, in the main thread; the next one finds the old handler.

    Args:
        numbers: of the signals. Those that are ignored stay ignored.
    """

    def __init__(self, numbers: Sequence[int]) -> None:
        self.numbers = numbers
        self.old: dict[int, Any] = {}
        self.received: int | None = None

    def __enter__(self) -> "Signals":
        if threading.current_thread() is threading.main_thread():
            for number in self.numbers:
                old = signal.getsignal(number)
                if old not in (None, signal.SIG_IGN):
                    self.old[number] = old
                    signal.signal(number, self._note)
        return self

    def _note(self, number: int, frame: Any) -> None:  # noqa: ARG002
        self.received = number
        signal.signal(number, self.old.pop(number))

    def wait(self, number: int, seconds: float) -> None:
        """Wait a while for a signal that another process has got."""
        end = time.monotonic() + seconds
        while number in self.old and time.monotonic() < end:
            time.sleep(0.01)

    def __exit__(self, *_: Any) -> None:
        for number, old in self.old.items():
            signal.signal(number, old)
