"""Limits are said beforehand: memory before it is allocated, schedules before they are made."""

import functools
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdopt as jd
from jaxdopt import _memory

KEY = jax.random.key(0)
PROBLEM = jd.problems.quadratic(8, 3)
RING = jd.networks.metropolis(jd.graphs.ring(8))
SETTING = PROBLEM, RING, PROBLEM.start()


def seconds(refused):
    start = time.perf_counter()
    with pytest.raises(ValueError, match="memory"):
        refused()
    return time.perf_counter() - start


def test_a_sweep_beyond_all_memory_is_refused_at_once():
    """20,000 stepsizes, 20,000 seeds and 1,000 steps: terabytes, said before any is allocated."""
    methods = jax.vmap(jd.DGD)(jnp.linspace(0.01, 0.1, 20_000))
    keys = jax.random.split(KEY, 20_000)
    swept = jd.sweep(jd.run, over=("algorithm", "key"))
    names = {"defaults": ("gap",), "steps": 1000}
    says = r"the sweep of 400,000,000 members needs at least \d.*TB .* histories, and .* are free; "
    with pytest.raises(ValueError, match=says + r"record less often.* or sweep over some [\d,]+ "):
        swept(methods, *SETTING, keys, **names)
    assert seconds(lambda: swept(methods, *SETTING, keys, **names)) < 1


def test_a_run_of_too_many_records_is_refused():
    says = "the run needs at least .*, and .* are free; record less often, by every="
    with pytest.raises(ValueError, match=says):
        jd.run(jd.DGD(0.1), *SETTING, KEY, steps=2 * 10**9)
    result = jax.eval_shape(  # and is none of that if it records once
        lambda x0: jd.run(jd.DGD(0.1), PROBLEM, RING, x0, KEY, steps=2 * 10**9, every=10**9),
        SETTING[-1],
    )
    assert result.metrics["gap"].shape == (3,)


def test_a_comparison_is_refused_before_its_first_run(monkeypatch):
    monkeypatch.setattr(_memory, "available", lambda tree: 2e6)
    monkeypatch.setattr(_memory, "SMALL", 1e6)
    grid = {"stepsize": np.linspace(0.1, 0.2, 10).tolist()}
    with pytest.raises(ValueError, match=r"^DGD: the sweep of 100 members needs at least .*MB"):
        jd.compare(
            {"DGD": jd.DGD(0.1)}, PROBLEM, RING, over=grid, seeds=10, steps=1000, progress=False
        )


def test_a_comparison_of_many_values_and_seeds_is_refused_in_seconds():
    """Of 20,000 seeds no program of as many operands is made, and values are counted once."""
    grid = {"stepsize": np.linspace(0.01, 0.1, 5000)}
    compare = functools.partial(jd.compare, {"DGD": jd.DGD(0.1)}, PROBLEM, RING, progress=False)
    assert seconds(lambda: compare(over=grid, seeds=20_000, steps=1000)) < 20


def test_what_lies_between_is_decided_by_the_compiled_program(monkeypatch):
    """The same run is refused or not, as XLA's own analysis is above what is free or below."""
    n, d = 16, 50_000
    wide = jd.problems.Oracle(lambda x, data, key: x, None, jnp.zeros(d), agents=n)
    network = jd.networks.metropolis(jd.graphs.ring(n))
    given: dict[str, Any] = {"algorithm": jd.GradientTracking(0.1), "problem": wide}
    given |= {"network": network, "x0": wide.start(), "key": KEY, "steps": 4, "every": 2}
    need = _memory.traced(lambda given: jd.run(**given), given)
    exact = _memory.compiled(lambda given: jd.run(**given), given)
    assert exact is not None
    state = jax.eval_shape(lambda: jd.run(**given).state)
    assert need.results >= _memory.bytes_of(state)
    assert exact.results == pytest.approx(need.results, abs=1000)
    needed = 1.1 * (exact.results + exact.temporary) + 100e6
    assert need.results < needed
    monkeypatch.setattr(_memory, "SMALL", 0)
    monkeypatch.setattr(_memory, "MARGIN", (1.0, 0.0))
    least = exact.results + exact.temporary
    assert need.results < least <= need.bound, "the bound is one, and something is between"
    for room, fine in ((0.99 * need.results, False), (0.99 * least, False), (1.01 * least, True)):
        monkeypatch.setattr(_memory, "available", lambda tree, room=room: room)
        if fine:
            jd.run(**given)
        else:
            with pytest.raises(ValueError, match=r"the run needs .*; take fewer agents"):
                jd.run(**given)


@pytest.mark.parametrize("network", ["ring", pytest.param("Server", marks=pytest.mark.slow)])
def test_the_bound_of_traced_values_is_above_what_xla_needs(network):
    features = np.random.default_rng(0).standard_normal((8, 50, 30))
    problem = jd.problems.logistic_regression(features, features[..., 0] > 0, l2=0.1)
    method, net = (jd.EXTRA(0.1), RING) if network == "ring" else (
        jd.FedAvg(0.1, local_steps=3), jd.networks.Server(8))  # fmt: skip
    swept = jd.sweep(jd.run, over="key")
    given = {"algorithm": method, "problem": problem, "network": net, "x0": problem.start()}
    given |= {"key": jax.random.split(KEY, 20)}
    program = functools.partial(_swept, swept)
    need, exact = _memory.traced(program, given), _memory.compiled(program, given)
    assert exact is not None
    assert need.results <= exact.results + 1000
    assert exact.temporary <= need.bound


def _swept(swept, given):
    return swept(**given, steps=10)


def test_ordinary_calls_do_not_look_at_memory(monkeypatch):
    def looked(tree):
        raise AssertionError("an ordinary call looked at what is free")

    monkeypatch.setattr(_memory, "available", looked)
    jd.run(jd.DGD(0.1), *SETTING, KEY, steps=10)
    jd.sweep(jd.run, over="key")(jd.DGD(0.1), *SETTING, jax.random.split(KEY, 3), steps=10)


def test_what_is_free_is_a_number_of_this_machine():
    free = _memory.available()
    assert free is not None
    assert 1e6 < free < 1e15
    assert _memory.readable(999) == "999 B"
    assert _memory.readable(999_900) == "1 MB"


@pytest.mark.parametrize(
    "make",
    [
        lambda: jd.networks.timeline(RING, seconds=1e9),
        lambda: jd.networks.timeline(RING, steps=2 * 10**9),
        lambda: jd.networks.pairwise(RING, seconds=1e9),
        lambda: jd.networks.arrivals(8, rule="each", seconds=1e9),
        lambda: jd.networks.arrivals(8, every=1.0, steps=2 * 10**9),
    ],
)
def test_schedules_of_1e9_seconds_or_steps_are_refused(make):
    with pytest.raises(ValueError, match=r"^a schedule of .* takes some .* are free; give fewer"):
        make()


def test_seconds_as_such_are_no_limit():
    network = jd.networks.timeline(RING, compute=1e8, seconds=1e9)
    assert network.horizon == 80
    assert float(network.end[-1]) == 1e9


@pytest.mark.parametrize("impl", ["rbg", "unsafe_rbg"])
def test_keys_whose_draws_depend_on_the_batch_are_refused_in_sweeps(impl):
    key = jax.random.key(0, impl=impl)
    keys = jax.random.split(key, 3)
    swept = jd.sweep(jd.run, over="key")
    with pytest.raises(ValueError, match=r"key has keys of the kind .*; make them with"):
        swept(jd.DGD(0.1), *SETTING, keys, steps=3)
    alone = jd.run(jd.DGD(0.1), *SETTING, key, steps=3)
    methods = jax.vmap(jd.DGD)(jnp.array([0.1, 0.2]))
    both = jd.sweep(jd.run, over="algorithm")(methods, *SETTING, key, steps=3)
    np.testing.assert_allclose(both.state.x[0], alone.state.x, rtol=1e-12)
    with pytest.raises(ValueError, match="after has keys of the kind"):
        jd.sweep(jd.run, over="algorithm")(methods, PROBLEM, RING, after=both, steps=3)
