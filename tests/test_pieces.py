"""Sweeps in pieces: the numbers of one batch, kept as they come, on one device or on many."""

import functools
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdopt as jd
from jaxdopt import _memory, checkpoints, pieces

pytestmark = pytest.mark.usefixtures("handled")  # as in a terminal

KEYS = jax.random.split(jax.random.key(0), 3)
PROBLEM = jd.problems.GaussianNoise(jd.problems.quadratic(4, 3), 0.1)
RING = jd.networks.metropolis(jd.graphs.ring(4))
METHODS = jax.vmap(jd.DGD)(jnp.linspace(0.01, 0.1, 5))
RUN: dict[str, Any] = {"steps": 4, "every": 2, "defaults": ("gap",)}
OVER = {"algorithm": "stepsize", "key": "seed"}


@functools.partial(jax.jit, static_argnames="steps")
def noisy(algorithm, key, steps=4):
    """Return what looks like a run, and compiles in no time."""
    draws = jax.random.normal(key, (steps + 1, 50)) * algorithm.stepsize
    gap = jnp.sort(draws, axis=1).sum(axis=1)
    costs = {"step": jnp.ones(steps + 1, int).at[0].set(0)}
    return jd.Result(jd.DGD(gap[-1]), {"gap": gap}, costs, jnp.any(gap > 1e9), key)


def swept(over=OVER, keys=KEYS, steps=4, **options):
    return jd.sweep(noisy, over, **options)(METHODS, keys, steps=steps)


def runs(after=None, **options):
    start = None if after is not None else PROBLEM.start()
    return jd.sweep(jd.run, OVER, **options)(
        METHODS, PROBLEM, RING, start, KEYS, after=after, **RUN
    )


@pytest.fixture(scope="module")
def whole():
    return swept()


def same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for first, second in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert first.dtype == second.dtype
        keys = jnp.issubdtype(first.dtype, jax.dtypes.prng_key)
        if keys:
            first, second = jax.random.key_data(first), jax.random.key_data(second)
        np.testing.assert_allclose(first, second, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_pieces_are_the_whole_and_go_on():
    whole = runs()
    found = runs(memory="5 kB")
    assert isinstance(found.metrics["gap"], np.ndarray), "on the host, for want of room"
    same(found, whole)
    further = runs(found, memory="5 kB")
    same(further, runs(whole))
    assert further.history["step"][0, 0].tolist() == [0, 2, 4, 6, 8]
    data = jd.label(runs(memory="5 kB"), stepsize=METHODS.stepsize, seed=3)
    np.testing.assert_allclose(data["gap"], whole.history["gap"], rtol=1e-9)


def test_arguments_of_one_axis_go_together():
    keys = jax.random.split(jax.random.key(1), 5)
    over = {("algorithm", "key"): "member"}
    product = swept(keys=keys).metrics["gap"]
    for memory in (None, "10 kB"):
        found = swept(over, keys, memory=memory)
        assert found.axes == ("member",)
        np.testing.assert_allclose(found.metrics["gap"], product[np.arange(5), np.arange(5)])
    says = "algorithm, key go along one axis and have 5, 3 members; give as many of each"
    with pytest.raises(ValueError, match=says):
        swept(over)


def computed(monkeypatch):
    """Return a list that grows with every piece that is computed."""
    found, wait = [], pieces.waited_for
    monkeypatch.setattr(pieces, "waited_for", lambda tree: found.append(1) or wait(tree))
    return found


def test_what_is_finished_is_not_computed_again(tmp_path, monkeypatch, whole):
    calls = computed(monkeypatch)
    same(swept(checkpoint=tmp_path, memory="5 kB"), whole)
    there, count = sorted(tmp_path.glob("*.npz")), len(calls)
    assert count == len(there) > 3
    same(swept(checkpoint=tmp_path, memory="5 kB"), whole)
    same(swept(checkpoint=tmp_path), whole)  # whatever its pieces are
    assert len(calls) == count
    there[2].unlink()
    same(swept(checkpoint=tmp_path, memory="5 kB"), whole)
    assert len(calls) == count + 1
    longer = swept(checkpoint=tmp_path, steps=6)  # another question is another sweep's
    assert len(calls) == count + 2
    assert longer.metrics["gap"].shape == (5, 3, 7)
    same(swept(checkpoint=tmp_path, memory="5 kB"), whole)
    assert len(calls) == count + 2


def test_an_interruption_keeps_what_is_finished(tmp_path, monkeypatch, whole):
    write = checkpoints.Kept.write

    def interrupted(self, start, end, leaves):
        write(self, start, end, leaves)
        if start >= 3:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(checkpoints.Kept, "write", interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:
        swept(checkpoint=tmp_path, memory="5 kB")
    monkeypatch.undo()
    kept: Any = getattr(caught.value, "result", None)
    assert kept.stopped == "interrupt"
    assert kept.axes == ("stepsize", "seed")
    gap = kept.metrics["gap"].reshape(15, 5)
    finished = np.isfinite(gap).all(axis=1)
    assert 3 <= finished.sum() < 15
    expected = whole.metrics["gap"].reshape(15, 5)[finished]
    np.testing.assert_allclose(gap[finished], expected, rtol=1e-9)
    assert f"{finished.sum()} of 15 members" in caught.value.__notes__[-1]
    calls = computed(monkeypatch)
    same(swept(checkpoint=tmp_path, memory="5 kB"), whole)
    assert len(calls) < len([*tmp_path.glob("*.npz")])


def test_an_interrupted_comparison_keeps_runs(monkeypatch):
    results, interrupts = pieces.Pieces.results, [1]

    def interrupted(self, work, *, note, **options):
        def noted(members, part):
            note(members, part)
            if interrupts.pop():
                raise KeyboardInterrupt

        return results(self, work, note=noted, **options)

    def compare():
        return jd.compare(
            {"GT": jd.GradientTracking(0.1)}, PROBLEM, RING, seeds=3, memory="5 kB",
            over={"stepsize": [0.1, 0.2, 0.3]}, **RUN,
        )  # fmt: skip

    monkeypatch.setattr(pieces.Pieces, "results", interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:
        compare()
    kept: Any = getattr(caught.value, "dataset", None)
    monkeypatch.undo()
    whole = compare()
    finished = kept["gap"].notnull().all("step")
    assert 1 <= finished.sum() < 9
    assert kept["step"].equals(whole["step"])
    assert kept["gap"].where(finished).equals(whole["gap"].where(finished))
    assert f"{int(finished.sum())} of 9 runs" in caught.value.__notes__[-1]


def test_a_long_sweep_on_a_cpu_goes_in_pieces(monkeypatch, whole, capfd):
    calls = computed(monkeypatch)
    same(swept(), whole)
    assert not calls, "a short one is not even waited for"
    for name, value in {"LONG": 1e-9, "SHORT": 1e-9, "ENOUGH": 20}.items():
        monkeypatch.setattr(pieces, name, value)
    same(swept(progress=True), whole)
    assert 1 < len(calls) < 15
    shown = capfd.readouterr().err
    assert "15/15" in shown
    assert "run/s" in shown
    assert "median gap" in shown


def test_a_sweep_without_room_goes_in_pieces(monkeypatch, whole):
    """What is free decides unless a number is given; the results have to find room at least."""
    given = {"algorithm": METHODS, "key": KEYS}
    need = _memory.traced(lambda given: jd.sweep(noisy, OVER)(**given), given)
    assert need.bound > 3 * need.results
    monkeypatch.setattr(_memory, "SMALL", 0)
    monkeypatch.setattr(_memory, "COPIES", 1000)
    calls = computed(monkeypatch)
    for room, pieced in ((1.01 * need.bound, False), (0.99 * need.bound, True)):
        monkeypatch.setattr(_memory, "available", lambda tree, room=room: room)
        same(swept(), whole)
        assert (len(calls) > 1) == pieced
    monkeypatch.setattr(_memory, "available", lambda tree: need.results + 10)
    with pytest.raises(ValueError, match=r"a member of the sweep takes some .* memory is 5 B"):
        swept()
    monkeypatch.setattr(_memory, "available", lambda tree: need.results / 2)
    with pytest.raises(ValueError, match="the sweep of 15 members needs at least"):
        swept()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"memory": "much"}, "memory is 'much'; give a number of bytes above 0"),
        ({"memory": 10}, "a member of the sweep takes some .* memory is 10 B; give more"),
        ({"devices": 1000}, "devices is 1000 and JAX has [0-9]+; give 1 to"),
        ({"devices": "all"}, r"devices is 'all'; give a list of JAX's, such as jax.devices\(\)"),
        ({"devices": []}, r"devices is \[\]; give at least one, each of them once"),
        ({"progress": 3}, "progress is 3; give True, False, or None"),
        ({"checkpoint": 3}, "checkpoint is 3; give the name of a folder"),
        ({"over": "x"}, "over is .*; name each of some of algorithm, key"),
        ({"over": ("key", ("key", "steps"))}, "over is .*; name each of some of algorithm"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(options, says):
    with pytest.raises(ValueError, match=says):
        swept(**options)


def test_options_of_a_traced_sweep_are_refused():
    for options in ({"memory": 1e9}, {"devices": 1}, {"checkpoint": "x"}):
        says = f"{next(iter(options))} is given to a sweep that is traced, as in jit or vmap"
        with pytest.raises(ValueError, match=says):
            jax.jit(lambda options=options: swept(**options).metrics["gap"])()
    assert jax.eval_shape(swept).metrics["gap"].shape == (5, 3, 5)


def test_one_device_is_a_list_of_devices(whole):
    found = swept(devices=1)
    same(found, whole)
    assert found.diverged.devices() == {jax.devices()[0]}
    same(swept(devices=jax.devices()[:1], memory="5 kB"), whole)


@pytest.mark.slow
def test_ctrl_c_is_answered_at_once():
    options = {"seeds": 20, "steps": 30_000, "every": 3_000, "progress": False}
    setting = {"GT": jd.GradientTracking(0.1)}, PROBLEM, RING
    began = time.monotonic()
    jd.compare(*setting, **options)
    jd.compare(*setting, **options)
    long = time.monotonic() - began
    interrupts: list[float] = []

    def interrupt():
        interrupts.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    threading.Timer(0.3, interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        jd.compare(*setting, **options)
    assert time.monotonic() - interrupts[0] < min(0.5, long / 4)


def process(source, **environment):
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(source)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )


KILLED = """
    import sys, jax, jax.numpy as jnp, jaxdopt as jd

    problem, ring = jd.problems.quadratic(4, 3), jd.networks.metropolis(jd.graphs.ring(4))
    methods = jax.vmap(jd.GradientTracking)(jnp.linspace(0.01, 0.1, 40))
    keys = jax.random.split(jax.random.key(0), 10)
    options = {"memory": "20 kB", "checkpoint": sys.argv[1]} if len(sys.argv) > 1 else {}
    print("begun", flush=True)
    result = jd.sweep(jd.run, over=("algorithm", "key"), **options)(
        methods, problem, ring, problem.start(), keys, steps=20_000, every=5_000
    )
    print(float(result.history["gap"].sum()), flush=True)
"""


@pytest.mark.slow
def test_a_sweep_that_is_killed_loses_no_piece(tmp_path):
    """A process that is killed again and again ends like one that was not, and repeats nothing."""
    command = [sys.executable, "-c", textwrap.dedent(KILLED)]
    cache = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "xla")}
    cache["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

    def begun(*folder):
        started: Any = subprocess.Popen(
            [*command, *folder],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | cache,
        )
        assert started.stdout is not None
        assert started.stdout.readline() == "begun\n"
        return started

    known: dict[str, int] = {}
    random = np.random.default_rng(0)
    kills = 0
    one: Any = None
    while True:
        one = begun(str(tmp_path))
        patience = time.monotonic() + 60
        target = len(known) + int(random.integers(1, 4))
        while one.poll() is None and len([*tmp_path.glob("*.npz")]) < target:
            assert time.monotonic() < patience
            time.sleep(random.uniform(0, 0.02))
        if kills == 3 or one.poll() is not None:
            break
        one.kill()
        kills += 1
        one.communicate()
        there = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.npz")}
        assert known.items() <= there.items(), "what is finished stays as it was"
        known = there
    found = one.communicate()[0]
    there = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.npz")}
    assert known.items() <= there.items()
    assert kills >= 3
    assert float(found) == pytest.approx(float(begun().communicate()[0]), rel=1e-5)


DEVICES = """
    import collections, re, sys
    import jax, jax.numpy as jnp, numpy as np, jaxdopt as jd
    from jaxdopt.pieces import Pieces

    sweeps = sys.modules["jaxdopt.sweep"]
    assert len(jax.devices()) == 8
    features = np.random.default_rng(0).standard_normal((24, 3))
    data = jd.problems.logistic_regression(features, features[:, 0] > 0, agents=6, l2=0.1)
    sampled = jd.problems.Minibatch(data, 2)
    ring = jd.networks.metropolis(jd.graphs.ring(6))
    cases = {
        "links": (jd.DSGD(0.1), sampled, jd.networks.RandomLinks(ring, 0.7)),
        "participation": (
            jd.SCAFFOLD(0.1, local_steps=2), sampled, jd.networks.participation.uniform(6, 2)
        ),
    }
    over, groups = ("algorithm", "key"), (("algorithm",), ("key",))
    options = {"steps": 6, "every": 3}
    words = r"(all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)"
    for name, (method, problem, network) in cases.items():
        methods = jax.vmap(lambda a: jd.replace(method, stepsize=a))(jnp.linspace(0.01, 0.1, 3))
        keys = jax.random.split(jax.random.key(0), 16)
        setting = methods, problem, network, problem.start(), keys
        one = jd.sweep(jd.run, over)(*setting, **options)
        given = dict(zip(("algorithm", "problem", "network", "x0", "key"), setting))
        batch = sweeps.batch_of(given, groups, (None, None))
        pieces = Pieces.of(batch, batch.members, tuple(jax.devices()))

        def program(given):
            return sweeps.nested(jd.run, groups, given | options, pieces.layout)

        spread = pieces.spread(given)
        compiled = jax.jit(program).lower(spread).compile()
        many, text = compiled(spread), compiled.as_text()
        for key, value in one.history.items():
            np.testing.assert_allclose(value, many.history[key], rtol=1e-5, atol=1e-6)
        assert len(many.state.x.devices()) == 8, "each has its share"
        assert many.state.x.addressable_shards[0].data.shape[:2] == (3, 2)
        assert "while" in text
        print(name, dict(collections.Counter(re.findall(words, text))))
    further = [  # from shares that stay where they are
        jd.sweep(jd.run, over, devices=devices)(
            methods, problem, network, after=result, **options
        ).history["gap"]
        for devices, result in ((None, one), (8, many))
    ]
    np.testing.assert_allclose(*further, rtol=1e-4, atol=1e-6)
    compared = [  # 3 and 5 members, filled up to 8
        jd.compare(
            {"GT": jd.DGD(0.1), "mean": jd.PushSum()}, data, ring, steps=2, seeds=5,
            over={"GT": {"stepsize": [0.1, 0.2, 0.3]}}, **more,
        )
        for more in ({}, {"devices": jax.devices()})
    ]
    for other in compared[1:]:
        for name in other:
            np.testing.assert_allclose(compared[0][name], other[name], rtol=1e-5, atol=1e-6)
"""


@pytest.mark.slow
@pytest.mark.optimized
def test_members_lie_on_many_devices():
    """Eight devices compute what one does, and exchange nothing."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    out, err = process(DEVICES, XLA_FLAGS=flags, JAX_PLATFORMS="cpu").communicate()
    lines = out.splitlines()
    assert len(lines) == 2, err
    assert all(line.endswith(" {}") for line in lines), out
