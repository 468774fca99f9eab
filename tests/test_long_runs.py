"""Long runs: early stops, callbacks, signals, checkpoints, kills; what is refused."""

import functools
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdopt as jd
from jaxdopt import checkpoints, longrun, loop, records

pytestmark = pytest.mark.usefixtures("handled")  # as in a terminal

N, D = 4, 2
KEY = jax.random.key(3)


@functools.cache
def parts():
    problem = jd.problems.quadratic(N, D, curvature_spread=0.3)
    return problem, jd.networks.metropolis(jd.graphs.ring(N)), problem.start() + 1.0


def run(
    method: Any = None,
    problem: Any = None,
    network: Any = None,
    x0: Any = None,
    key: Any = KEY,
    **options: Any,
):
    own, ring, start = parts()
    method = jd.GradientTracking(0.1) if method is None else method
    problem = own if problem is None else problem
    network = ring if network is None else network
    x0 = start if x0 is None and not {"after", "state"} & {*options} else x0
    given: dict[str, Any] = {"steps": 60, "every": 2}
    return jd.run(method, problem, network, x0, key, **(given | options))


def same(a, b):
    """Require all numbers of two results to be equal, bit for bit."""
    for (path, x), y in zip(jax.tree.leaves_with_path(a), jax.tree.leaves(b), strict=True):
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        assert (x.dtype, x.shape) == (y.dtype, y.shape), path
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes(), path


@functools.cache
def whole():
    return run()


@pytest.fixture
def fine(monkeypatch):
    """Chunks of a few records."""
    monkeypatch.setattr(records, "ROWS", 4)


def test_a_run_that_may_take_long_goes_in_chunks(monkeypatch):
    calls, expected = [], whole()
    drive = longrun.drive
    monkeypatch.setattr(longrun, "drive", lambda *a, **o: calls.append(1) or drive(*a, **o))
    assert run().stopped is None
    assert not calls
    monkeypatch.setattr(longrun, "CHUNK", 60 * longrun.STEP)
    same(run(), expected)
    assert len(calls) == 1
    traced = jax.jit(lambda: run().metrics["gap"])()  # none of the arguments is
    inside = jax.jit(lambda key: run(key=key).metrics["gap"])(KEY)
    many = jax.vmap(lambda key: run(key=key).metrics["gap"])(jax.random.split(KEY))
    assert len(calls) == 1
    np.testing.assert_allclose(traced, expected.metrics["gap"], rtol=1e-12)
    assert inside.shape == many.shape[1:] == (31,)


def test_other_lengths_compile_nothing(fine):
    from test_run import COMPILED as SCANS

    compiled = []

    def note(event, *_, **details):
        if event.endswith("backend_compile_duration"):
            compiled.append(details.get("fun_name"))

    run(progress=False, until={"gap": 0.0})
    jax.monitoring.register_event_duration_secs_listener(note)
    scans = len(SCANS)
    for steps in (58, 80, 200):
        run(steps=steps, until={"gap": 0.0})
    assert not [name for name in compiled if name and ("chunk" in name or "begin" in name)]
    assert len(SCANS) == scans


def test_until_stops_at_the_exact_record(fine):
    gaps = whole().history["gap"]
    for target in (gaps[0], gaps[3], (gaps[16] + gaps[17]) / 2, gaps[30]):
        first = int(np.argmax(gaps <= target))
        result = run(until={"gap": target})
        assert result.stopped == "until"
        assert len(result.history["gap"]) == first + 1
        same(result.metrics, jax.tree.map(lambda rows, end=first + 1: rows[:end], whole().metrics))
        assert result.next_step == 2 * first
    never = run(until={"gap": 0.0})
    assert never.stopped is None
    same(never, whole())


@pytest.mark.slow
def test_until_asks_for_all_targets(fine):
    history = whole().history
    targets = {"gap": history["gap"][5], "consensus_error": history["consensus_error"][20]}
    met = (history["gap"] <= targets["gap"]) & (
        history["consensus_error"] <= targets["consensus_error"]
    )
    assert len(run(until=targets).history["gap"]) == np.argmax(met) + 1 > 6


@pytest.mark.parametrize("until", [{"diverged": True}, {"gap": 1e-9}])
def test_until_stops_where_a_run_diverges(until, fine):
    method = jd.DGD(1e12)
    scan = run(method)
    first = int(np.argmax(~np.isfinite(scan.history["consensus_error"])))
    result = run(method, until=until)
    assert result.stopped == "diverged"
    assert result.diverged
    assert first <= len(result.history["gap"]) <= first + 10 < 31  # x overflows after its square
    assert run(method, until={"diverged": True}, after=result).stopped == "diverged"
    assert "stopped=diverged" in repr(result)


def test_a_run_goes_on_after_its_early_stop(fine):
    first = run(until={"gap": whole().history["gap"][7]})
    rest = run(key=None, after=first, steps=60 - 14, until={"gap": 0.0})
    same(rest, whole())
    assert rest.stopped is None


def test_callbacks_get_all_records_in_order_while_the_next_are_computed(fine):
    seen = []
    metrics = {"x": lambda state, _: state.x}
    result = run(metrics=metrics, callback=seen.append, start=5)
    same(result, run(metrics=metrics, start=5))
    history = result.history
    assert [record["step"] for record in seen] == history["step"].tolist() == [*range(5, 66, 2)]
    assert all(type(record["gap"]) is float for record in seen)
    for name in result.metrics:
        np.testing.assert_array_equal([record[name] for record in seen], history[name])
    more = []
    run(metrics=metrics, key=None, after=result, steps=4, callback=more.append)
    assert [record["step"] for record in more] == [67, 69]  # row 0 has been told


def test_a_callback_that_fails_ends_the_run(fine):
    def callback(record):
        if record["step"] == 20:
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        run(callback=callback)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_nothing_of_the_callers_is_overwritten(fine):
    problem, network, x0 = parts()
    state = jd.GradientTracking(0.1).init(x0, problem, network.at(0, KEY), KEY)
    kept = jax.tree.map(np.array, (state, x0, jax.tree.leaves(problem)))
    first = run(state=state, callback=lambda record: None)
    same(first, run(state=state))
    second = run(key=None, after=first, callback=lambda record: None)
    same(second, run(key=None, after=first))
    for before, now in zip(
        jax.tree.leaves(kept), jax.tree.leaves((state, x0, jax.tree.leaves(problem))), strict=True
    ):
        np.testing.assert_array_equal(before, now)
    assert np.all(np.isfinite(first.state.x))


def test_the_state_is_updated_in_place(monkeypatch, fine):
    chunk, gone = loop.chunk, []

    def noting(*args, **options):
        found = chunk(*args, **options)
        gone.extend(leaf.is_deleted() for leaf in jax.tree.leaves(args[-1]))
        return found

    monkeypatch.setattr(loop, "chunk", noting)
    run(callback=lambda record: None)
    assert len(gone) > 3 * 5
    assert all(gone)


def test_chunks_of_few_fixed_lengths_are_the_scan(monkeypatch, fine):
    monkeypatch.setattr(longrun, "has_cheap_counts", lambda state: False)
    same(run(callback=lambda record: None), whole())
    pace = longrun.Pace(100, 0.5, static=True)
    counts, left = [], 700
    while left:
        counts.append(pace.count(left))
        pace.note(counts[-1], 1e-4)
        left -= counts[-1]
    assert set(counts) == {1, 8, 64}
    assert sum(counts) == 700


def test_chunks_take_as_long_as_they_should():
    pace = longrun.Pace(10_000, 0.5, static=False)
    counts = []
    for _ in range(12):
        counts.append(pace.count(10**6))
        pace.note(counts[-1], 1e-3 * counts[-1] + 5.0 * (len(counts) == 1))  # compiled once
    assert counts[:4] == [1, 1, 8, 64]
    assert counts[-1] == 500


# ---------------------------------------------------------------- signals


def interrupting(at, number=signal.SIGINT):
    """A callback that sends a signal to this process at a step."""

    def callback(record):
        if record["step"] == at:
            os.kill(os.getpid(), number)

    return callback


def test_the_first_interrupt_returns_what_there_is(fine):
    result = run(callback=interrupting(20), steps=4000)
    assert result.stopped == "interrupt"
    rows = len(result.history["gap"])
    assert 11 <= rows <= 11 + 2 * 4
    same(result.metrics, run(steps=2 * (rows - 1)).metrics)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    rest = run(key=None, after=result, steps=4000 - 2 * (rows - 1))
    same(rest, run(steps=4000))


def test_a_second_interrupt_raises(fine):
    def callback(record):
        if record["step"] in (20, 22):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(callback=callback, steps=4000)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.slow
def test_other_threads_leave_signals_alone(fine):
    found = []

    def work():
        found.append(run(callback=lambda record: found.append(signal.getsignal(signal.SIGINT))))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert set(found[:-1]) == {signal.default_int_handler}
    same(found[-1], whole())


def test_signals_that_are_ignored_stay_ignored(fine):
    old = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert run(callback=interrupting(20)).stopped is None
    finally:
        signal.signal(signal.SIGINT, old)


def test_sigterm_saves_and_goes_on_to_its_handler(tmp_path, fine):
    came = []
    old = signal.signal(signal.SIGTERM, lambda *_: came.append(1))
    try:
        result = run(
            checkpoint=tmp_path / "run", callback=interrupting(20, signal.SIGTERM), steps=4000
        )
    finally:
        signal.signal(signal.SIGTERM, old)
    assert came == [1]
    assert result.stopped == "interrupt"
    same(run(checkpoint=tmp_path / "run", steps=4000), run(steps=4000))


PLAIN = """
import signal, jax, jaxdopt as jd
signal.signal(signal.SIGINT, signal.default_int_handler)
problem = jd.problems.quadratic(4, 2)
network = jd.networks.metropolis(jd.graphs.ring(4))
result = jd.run(jd.DGD(0.1), problem, network, problem.start(), jax.random.key(0), steps=10**9,
                every=1000)
print(result.stopped, len(result.history["gap"]))
"""


@pytest.mark.slow
def test_a_plain_long_run_shows_a_bar_and_answers_an_interrupt():
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, "-c", PLAIN], **pipes)
    shown = b""
    while b"gap" not in shown:
        shown += process.stderr.read1()  # pyright: ignore[reportAttributeAccessIssue, reportOptionalMemberAccess]
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    begin = time.monotonic()
    printed, _ = process.communicate(timeout=60)
    assert time.monotonic() - begin < 10  # a chunk of half a second, and Python's end
    stopped, rows = printed.split()
    assert stopped == b"interrupt"
    assert 1 < int(rows) < 10**6
    assert b"step/s" in shown


@pytest.mark.slow
def test_sigterm_ends_a_process_that_has_saved_its_run(tmp_path):
    process = start(tmp_path / "run", 2_000_000)
    wait_for(lambda: last_state(tmp_path / "run") > 0)
    process.terminate()
    told = [line.split() for line in process.communicate()[0].splitlines()]
    assert process.returncode == -signal.SIGTERM
    assert last_state(tmp_path / "run") == int(told[-1][1]) > 0


# ---------------------------------------------------------------- checkpoints


def test_a_call_goes_on_where_it_was_stopped(tmp_path, fine):
    folder = tmp_path / "run"
    first = run(checkpoint=folder, callback=interrupting(20), checkpoint_every=1e-3)
    assert first.stopped == "interrupt"
    seen = []
    same(run(checkpoint=folder, callback=seen.append), whole())
    assert seen[0]["step"] == first.next_step + 2
    again = run(checkpoint=folder, callback=pytest.fail)  # takes no step
    same(again, whole())
    same(run(checkpoint=folder, steps=90), run(steps=90))  # is extended
    assert len([*folder.glob("state-*")]) == 1
    ends = sorted(tuple(map(int, re.findall(r"\d+", path.name))) for path in folder.glob("rows-*"))
    assert len(ends) > 2
    assert [start for start, _ in ends] == [0, *(end for _, end in ends[:-1])]
    with pytest.raises(ValueError, match=r"'run' has 45 records .* have 30; give at least as many"):
        run(checkpoint=folder)


def test_a_run_that_was_stopped_by_its_target_is_kept(tmp_path, fine):
    target = {"gap": whole().history["gap"][7]}
    first = run(checkpoint=tmp_path, until=target)
    same(run(checkpoint=tmp_path, until=target, callback=pytest.fail), first)
    same(run(checkpoint=tmp_path), whole())


@pytest.mark.slow
def test_a_run_that_goes_on_from_another_is_kept(tmp_path, fine):
    first = run(steps=20)
    stopped = run(key=None, after=first, steps=40, checkpoint=tmp_path, callback=interrupting(34))
    assert stopped.stopped == "interrupt"
    same(run(key=None, after=first, steps=40, checkpoint=tmp_path), whole())


@jd.pytree
class Odd:
    """A state with a key, a bfloat16, a count, and an array without elements."""

    x: Any
    key: Any
    half: Any
    count: Any
    nothing: Any


@jd.pytree
class OddMethod:
    def init(self, x0, problem, network, key):
        return Odd(x0, key, jnp.zeros(3, jnp.bfloat16), jnp.zeros((), int), jnp.zeros((N, 0)))

    def step(self, state, problem, network, key):
        half = (state.half + jax.random.normal(key, (3,))).astype(jnp.bfloat16)
        return Odd(0.9 * (network @ state.x), key, half, state.count + 1, state.nothing)


@pytest.mark.slow
def test_any_kind_of_array_is_kept(tmp_path, fine):
    metrics = {"half": lambda s, _: s.half, "count": lambda s, _: s.count, "x": lambda s, _: s.x}
    options: dict[str, Any] = {"metrics": metrics, "steps": 40}
    run(OddMethod(), checkpoint=tmp_path, callback=interrupting(20), **options)
    same(run(OddMethod(), checkpoint=tmp_path, **options), run(OddMethod(), **options))


def test_what_was_not_finished_is_removed_and_never_read(tmp_path, fine):
    run(checkpoint=tmp_path, steps=20)
    for name in ("rows-10-13.npz", "rows-10-13.part", "run.json.part"):
        (tmp_path / name).write_bytes(b"cut off")
    (tmp_path / "state-13.orbax-checkpoint-tmp").mkdir()
    same(run(checkpoint=tmp_path), whole())
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {".lock", "run.json", "rows-0-10.npz", "rows-10-30.npz", "state-30"}


def test_a_folder_in_use_is_refused(tmp_path, fine):
    refused = []

    def callback(record):
        if record["step"] == 20:
            with pytest.raises(ValueError, match="run' is in use by another run or comparison; l"):
                run(checkpoint=tmp_path / "run")
            refused.append(1)

    same(run(checkpoint=tmp_path / "run", callback=callback), whole())
    assert refused
    with pytest.raises(ValueError, match="the method of the run"):
        run(jd.DGD(0.1), checkpoint=tmp_path / "run")
    same(run(checkpoint=tmp_path / "run"), whole())  # it is free after all of these


@pytest.mark.slow
def test_a_folder_of_a_comparison_in_use_is_refused(tmp_path):
    refused = pytest.raises(ValueError, match="cells' is in use by another run or comparison; let")
    with checkpoints.opened(tmp_path / "cells"), refused:
        compare(checkpoint=tmp_path / "cells")
    compare(checkpoint=tmp_path / "cells")
    with checkpoints.opened(tmp_path / "cells"):  # it is free again
        pass


def other(state, problem):
    return state.x.sum()


CHANGES = {
    "method": ({"method": jd.GradientTracking(0.2)}, r"the method of .* GradientTracking\(step"),
    "problem": (
        {"problem": jd.problems.quadratic(N, D, seed=5, curvature_spread=0.3)},
        r"the problem of .* is Quad.*, and this one's is Quad.*; give the same, or another",
    ),
    "network": (
        {"network": jd.networks.lazy_metropolis(jd.graphs.ring(N))},
        "the network of the run",
    ),
    "start": ({"x0": np.zeros((N, D))}, "the start of the run in .* with other values"),
    "dtype": (
        {"x0": np.ones((N, D), np.float32)},
        r"the start .* is float64\[4, 2\], and this one's is float32\[4, 2\]",
    ),
    "key": ({"key": jax.random.key(4)}, "the key of the run"),
    "first step": ({"start": 3}, "the first step of the run in .* is 0, and this one's is 3"),
    "every": ({"every": 3}, "the every of the run in .* is 2, and this one's is 3"),
    "metrics": ({"metrics": {"mine": other}}, "the metrics of the run"),
}


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kept") / "run"
    run(checkpoint=folder, steps=6)
    return folder


@pytest.mark.parametrize("name", CHANGES)
def test_a_folder_of_another_run_is_refused(name, kept):
    changes, says = CHANGES[name]
    with pytest.raises(ValueError, match=says):
        run(checkpoint=kept, **({"steps": 6} | changes))


@pytest.mark.parametrize(
    ("place", "says"),
    [
        (("versions", "jax"), f"begun with jax 0.1 and this is {jax.__version__}; give"),
        (("versions", "jaxdopt"), "begun with jaxdopt 0.1 and this"),
        (("settings", "jax_enable_x64"), "begun with jax_enable_x64 0.1 and this is True"),
        (("sources",), "begun with other sources of jaxdopt"),
    ],
)
def test_a_folder_of_another_version_is_refused(place, says, kept):
    described = kept / "run.json"
    old = described.read_text()
    about = json.loads(old)
    *path, last = place
    functools.reduce(dict.__getitem__, path, about)[last] = "0.1"
    described.write_text(json.dumps(about))
    try:
        with pytest.raises(ValueError, match=says):
            run(checkpoint=kept, steps=6)
    finally:
        described.write_text(old)


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match=r"has 'thesis.tex' and no run.json, so it is no run's"):
        run(checkpoint=tmp_path)
    with pytest.raises(ValueError, match=r"thesis\.tex', which is a file; give a folder"):
        run(checkpoint=str(tmp_path / "thesis.tex"))


@pytest.mark.slow
def test_records_that_are_lost_are_noticed(tmp_path, fine):
    run(checkpoint=tmp_path, callback=interrupting(20))
    run(checkpoint=tmp_path)
    (tmp_path / "rows-0-").with_name(min(p.name for p in tmp_path.glob("rows-0-*"))).unlink()
    with pytest.raises(ValueError, match="lacks the records after 0; give a new folder"):
        run(checkpoint=tmp_path)


def test_orbax_is_asked_for_where_it_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "orbax.checkpoint", None)
    with pytest.raises(ImportError, match=r"pip install 'jaxdopt\[checkpoints\]'"):
        run(checkpoint=tmp_path / "run")
    assert not (tmp_path / "run").exists()


KILLED = """
import sys, time, jax, jaxdopt as jd
from jaxdopt import checkpoints, longrun, records
jax.config.update("jax_enable_x64", True)
folder, steps, rows = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
records.ROWS = rows
problem = jd.problems.quadratic(4, 2, curvature_spread=0.3)
network = jd.networks.RandomLinks(jd.networks.metropolis(jd.graphs.ring(4)), 0.7)
setting = jd.GradientTracking(0.01), problem, network, problem.start() + 1.0, jax.random.key(3)
kept = {} if folder.endswith("none") else {"checkpoint": folder, "checkpoint_every": 0.1}

def tell(record):
    print("told", record["step"] // 50, time.monotonic())

result = jd.run(*setting, steps=steps, every=50, progress=False, callback=tell, **kept)
print(result.stopped, result.state.x.tolist(),
      result.history["gap"].tolist(), result.history["bits"].tolist())
"""


def start(folder, steps, rows=64):
    command = [sys.executable, "-c", KILLED, str(folder), str(steps), str(rows)]
    programs = {
        "JAX_COMPILATION_CACHE_DIR": str(folder.parent / "programs"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | programs)


def last_state(folder):
    records = [int(path.name[6:]) for path in folder.glob("state-*") if path.name[6:].isdigit()]
    return max(records, default=0)


def wait_for(condition, seconds=120.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.long
def test_twenty_kills_lose_no_more_than_an_interval(tmp_path):
    """SIGKILL at random moments: the run goes on from a state that is at most an interval old."""
    chance = random.Random(0)
    folder, steps = tmp_path / "run", 2_000_000
    reached = 0
    for _ in range(20):
        process, before = start(folder, steps), reached
        wait_for(lambda p=process, k=before: last_state(folder) > k or p.poll() is not None)
        time.sleep(chance.uniform(0.0, 0.5))
        process.send_signal(signal.SIGKILL)
        told = [line.split() for line in process.communicate()[0].splitlines()]
        reached = last_state(folder)
        assert reached > before
        records = [(int(line[1]), float(line[2])) for line in told if len(line) == 3]
        assert records[0][0] == before + (before > 0)  # what was saved is not computed again
        lost = [moment for record, moment in records if record > reached]
        if lost:  # an interval, a chunk, and what a busy machine adds to it
            assert lost[-1] - lost[0] < 0.1 + 0.1 + 0.5
    steps = 50 * (reached + 100)
    resumed, alone = start(folder, steps), start(tmp_path / "none", steps)
    assert resumed.communicate()[0].splitlines()[-1] == alone.communicate()[0].splitlines()[-1]


# ---------------------------------------------------------------- comparisons


def compare(**options: Any):
    problem, network, x0 = parts()
    given: dict[str, Any] = {"steps": 40, "every": 2, "seeds": 2, "progress": False, "x0": x0}
    methods = {"DGD": jd.DGD(0.1), "GT": jd.GradientTracking(0.1)}
    return jd.compare(methods, problem, network, **(given | options))


@pytest.mark.slow
def test_members_of_a_comparison_stop_at_their_targets():
    swept = {"stepsize": [0.1, 0.3, 1e200]}
    full = compare(over=swept)
    target = float(full["gap"].sel(algorithm="GT", stepsize=0.1).isel(step=13, seed=0, network=0))
    dataset = compare(over=swept, until={"gap": target})
    assert dataset.sizes == full.sizes
    stopped = 0
    for place in np.ndindex(*full["diverged"].shape):
        at = dict(zip(full["diverged"].dims, place, strict=True))
        one, other = full.isel(at), dataset.isel(at)
        met = one["gap"].values <= target
        last = int(np.argmax(met)) if met.any() else len(met) - 1
        stopped += last < len(met) - 1
        rows = np.minimum(np.arange(len(met)), last)
        if one["diverged"] and not met.any():
            assert bool(other["diverged"])
            continue  # the rest of it is as it was when all others had stopped
        assert not bool(other["diverged"])
        for name in ("gap", "consensus_error", "rounds", "bits"):
            np.testing.assert_array_equal(other[name].values, one[name].values[rows], err_msg=name)
    assert stopped > 2
    assert not full["diverged"].all()
    assert full["diverged"].any()
    assert jd.best(dataset, "gap").sizes["algorithm"] == 2


def test_methods_without_numbers_stop_at_their_targets():
    problem, network, _ = parts()
    x0 = jnp.arange(8.0).reshape(N, D)
    setting: Any = ({"average": jd.PushSum()}, problem, network)
    options: dict[str, Any] = {"x0": x0, "steps": 20, "progress": False, "defaults": ()}
    options["metrics"] = {"spread": lambda state, _: jnp.ptp(state.x)}
    spread = jd.compare(*setting, **options)["spread"].values.squeeze()
    found = jd.compare(*setting, **options, until={"spread": spread[7]})["spread"].values.squeeze()
    np.testing.assert_array_equal(found, spread[np.minimum(np.arange(21), 7)])


@pytest.mark.slow
def test_a_comparison_ends_early(monkeypatch):
    module, taken = sys.modules["jaxdopt.compare"], []
    run_once = module.run  # pyright: ignore[reportAttributeAccessIssue]

    @functools.wraps(run_once)
    def counting(*args, **options):
        taken.append(options["steps"])
        return run_once(*args, **options)

    monkeypatch.setattr(module, "run", counting)
    gaps = compare()["gap"]
    taken.clear()
    target = float(gaps.isel(step=5).max())
    compare(until={"gap": target})
    assert taken[:2] == [40, 40]  # what is refused is refused before
    assert {*taken[2:]} == {4}
    assert 3 * 2 <= len(taken[2:]) < 10 * 2


@pytest.mark.slow
def test_finished_cells_of_a_comparison_are_not_run_again(tmp_path, monkeypatch):
    folder = tmp_path / "cells"
    first = compare(checkpoint=folder)
    assert len([*folder.glob("*.npz")]) == 2
    monkeypatch.setattr(checkpoints, "_write_arrays", pytest.fail)
    again = compare(checkpoint=folder)
    assert again.equals(first)
    assert again.equals(compare())
    monkeypatch.undo()
    compare(checkpoint=folder, seeds=3)
    assert len([*folder.glob("*.npz")]) == 4


def test_a_comparison_that_is_interrupted_keeps_what_is_finished(tmp_path, monkeypatch):
    read, parts = checkpoints.Kept.read, []

    def interrupted(self, start, end):
        if len(parts) == 1:
            os.kill(os.getpid(), signal.SIGINT)
        parts.append(1)
        return read(self, start, end)

    monkeypatch.setattr(checkpoints.Kept, "read", interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:
        compare(checkpoint=tmp_path)
    dataset: Any = getattr(caught.value, "dataset", None)
    assert dataset["algorithm"].values.tolist() == ["DGD"]
    assert len([*tmp_path.glob("*.npz")]) == 1
    monkeypatch.undo()
    assert compare(checkpoint=tmp_path).equals(compare())


def test_what_a_comparison_cannot_keep_or_reach_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"file'.; give the name of a folder"):
        compare(checkpoint=tmp_path / "file")
    with pytest.raises(ValueError, match="until names 'gpa', which is not recorded; name some of"):
        compare(until={"gpa": 1.0})
    with pytest.raises(ValueError, match=r"until names 'x', of shape \[4, 2\]"):
        compare(until={"x": 1.0}, metrics={"x": lambda state, _: state.x})


# ---------------------------------------------------------------- refusals

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "progress": ({"progress": 3}, "progress is 3; give True, False, or None"),
    "checkpoint": ({"checkpoint": 3}, "checkpoint is 3; give the name of a folder"),
    "seconds": (
        {"checkpoint": "x", "checkpoint_every": 0},
        "checkpoint_every is 0; give seconds, a number above 0",
    ),
    "callback": ({"callback": 3}, "callback is 3; give a function of a record"),
    "until": ({"until": 1e-9}, r"until is 1e-09; give \{metric: value\}"),
    "until nothing": ({"until": {}}, r"until is \{\}; give"),
    "until unknown": ({"until": {"gpa": 1}}, "until names 'gpa', which is not recorded; name some"),
    "until no number": ({"until": {"gap": "low"}}, r"until\['gap'\] is 'low'; give a number"),
    "until diverged": ({"until": {"diverged": 3}}, r"until\['diverged'\] is 3; give True"),
    "until many": (
        {"until": {"x": 1.0}, "metrics": {"x": lambda state, _: state.x}},
        r"until names 'x', of shape \[4, 2\]; name a metric that is one number",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_options_that_make_no_sense_are_refused(name):
    options, says = REFUSED[name]
    with pytest.raises(ValueError, match=says):
        run(**options)


@pytest.mark.parametrize(
    "options",
    [{"until": {"gap": 0.1}}, {"callback": print}, {"progress": True}, {"checkpoint": "folder"}],
    ids=lambda options: next(iter(options)),
)
def test_options_of_traced_runs_are_refused(options):
    says = f"{next(iter(options))} is given to a run that is traced, as in jit, vmap or a sweep"
    for call in (
        lambda: jax.jit(lambda: run(**options).state.x)(),
        lambda: jax.vmap(lambda key: run(key=key, **options).state.x)(jax.random.split(KEY)),
        lambda: jax.grad(lambda x: run(x0=x, **options).metrics["gap"][-1])(parts()[2]),
    ):
        with pytest.raises(ValueError, match=says):
            call()
    problem, network, x0 = parts()
    with pytest.raises(ValueError, match=says):
        jd.sweep(jd.run, over="key")(
            jd.DGD(0.1), problem, network, x0, jax.random.split(KEY), steps=2, **options
        )


def test_a_bar_shows_rate_and_metric(capfd, fine):
    run(progress=True)
    shown = capfd.readouterr().err
    assert f"gap {whole().history['gap'][-1]:.3g}" in shown
    assert "60/60" in shown
    assert "step/s" in shown
    run(progress=False, callback=lambda record: None)
    run(callback=lambda record: None)  # a short run has none unless it is asked for
    assert capfd.readouterr().err == ""


@pytest.mark.slow
def test_a_bar_comes_after_two_seconds(capfd, fine, monkeypatch):
    monkeypatch.setattr(longrun, "BAR", 0.2)
    run(callback=lambda record: time.sleep(0.02))
    assert "gap" in capfd.readouterr().err
