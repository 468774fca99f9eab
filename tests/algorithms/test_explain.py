"""What is told of a run beforehand is what the run then is."""

import re
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import ROWS
from small import KEY, N, network_of, uneven

import jaxdopt as jd
from jaxdopt import _memory

STEPS = 6
QUICK = ("GTSVRG",)  # whose costs depend on its state
RING = jd.networks.metropolis(jd.graphs.ring(8))
PROBLEM = jd.problems.quadratic(8, 3)


def marked(row):
    return pytest.param(row, id=row.name, marks=[pytest.mark.slow] * (row.name not in QUICK))


@pytest.mark.parametrize("row", [marked(row) for row in ROWS])
def test_costs_sizes_and_roles_are_those_of_the_run(row, monkeypatch):
    if row.name not in QUICK:  # compiling every program twice takes too long
        monkeypatch.setattr(_memory, "compiled", lambda program, given: None)
    problem, network = uneven(float), network_of(row.network)
    setting = row.build(5.0), problem, network
    result = jd.run(*setting, problem.start(), KEY, steps=STEPS, every=2, defaults=())
    told = jd.explain(*setting, key=KEY, steps=STEPS, every=2, defaults=(), timed=False)
    assert told.refusal == ""
    assert all(told.needs.values())
    assert set(told.needs) == set(setting[0].needs)
    history, spent = result.history, set()
    axes = jd.costs.axes_of(*setting)
    times = {name: STEPS if axis.over == "sum" else 1 for name, axis in axes.items()}
    for name, cost in told.costs.items():
        if cost is not None:
            spent.add(name)
            np.testing.assert_allclose(
                times[name] * cost, history[name][-1], rtol=1e-6, err_msg=name
            )
            if name not in told.varying and axes[name].over == "sum":
                np.testing.assert_allclose(2 * cost, np.diff(history[name]), rtol=1e-6)
    assert set(told.costs) == set(history) - {"step"}
    if set(told.costs) != spent:  # what depends on the state is that of a few steps
        told = jd.explain(*setting, key=KEY, steps=STEPS, every=2, defaults=())
        for name in set(told.costs) - spent:
            np.testing.assert_allclose(times[name] * told.costs[name], history[name][-1], rtol=1e-6)
    assert told.sizes["state"] == _memory.bytes_of(result.state)
    assert [(leaf.shape, leaf.dtype) for leaf in told.state.values()] == [
        (leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(result.state)
    ]
    assert (told.n, told.steps, told.records) == (N, STEPS, 3)
    text = repr(told)
    assert "\n  a step " in text
    assert all(name in text for name in told.state)


def test_a_method_that_does_not_fit_is_explained():
    told = jd.explain(jd.EXTRA(0.1), PROBLEM, jd.networks.Server(8), steps=10)
    assert told.needs == {"mixing": False, "symmetric": False}
    with pytest.raises(ValueError, match="EXTRA needs") as refused:
        jd.run(jd.EXTRA(0.1), PROBLEM, jd.networks.Server(8), PROBLEM.start(), KEY, steps=10)
    assert told.refusal == str(refused.value)
    assert told.refusal in repr(told)
    assert "mixing (NO)" in repr(told)
    drawn = jd.explain(jd.DRR(0.1), PROBLEM, RING)
    assert drawn.needs["finite sum"] is False


def test_theory_and_spectral_gap_stand_beside_the_stepsize():
    told = jd.explain(jd.EXTRA(0.5), PROBLEM, RING, steps=10, timed=False)
    theory = jd.theory.of(jd.EXTRA(0.5), PROBLEM, RING)
    assert float(told.theory.stepsize) == float(theory.stepsize)
    assert told.gap == pytest.approx(RING.spectral_gap)
    assert told.stepsize == 0.5
    assert re.search(rf"its bound +{float(theory.stepsize):.4g} = ", repr(told))
    schedule = jd.explain(jd.CHOCOSGD(lambda k: 0.1, jd.compressors.TopK(2)), PROBLEM,
                          jd.networks.RandomLinks(RING, 0.5), timed=False)  # fmt: skip
    assert schedule.gap is None
    assert schedule.theory is None
    assert "no theorem on CHOCOSGD is known here" in repr(schedule)


def test_memory_is_that_of_shapes_alone():
    """Of what no machine has and is never allocated, and exactly what comes back."""
    told = jd.explain(jd.DGD(0.1), PROBLEM, RING, steps=2 * 10**9)
    assert told.memory.results > 1e10
    assert told.free is None or told.memory.results > told.free
    assert told.time is None
    assert "no step was timed" in repr(told)
    part = re.search(r"an agent +state 24 B, problem (.*), temporary (.*)", repr(told))
    own = told.sizes["problem"] / 8, told.memory.temporary / 8
    assert part
    assert part.groups() == tuple(map(_memory.readable, own))
    shape = jax.ShapeDtypeStruct((8, 3), jnp.float64)
    small = jd.explain(jd.DGD(0.1), PROBLEM, RING, shape, steps=100)
    result = jd.run(jd.DGD(0.1), PROBLEM, RING, PROBLEM.start(), KEY, steps=100)
    assert small.time is None
    assert small.state["x"].shape == (8, 3)
    assert small.memory.results == pytest.approx(_memory.bytes_of(result), abs=200)


@pytest.mark.slow
def test_time_is_an_estimate_of_steps_that_were_timed():
    told = jd.explain(jd.DGD(0.1), PROBLEM, RING, steps=10**6, every=1000)
    time: Any = told.time
    assert 0 < time.step < 1e-2
    assert time.record >= 0
    assert 1 <= time.timed <= 10**6
    assert time.total == pytest.approx(
        time.compilation + 10**6 * time.step + 1001 * time.record, rel=1e-9
    )
    assert f"by {time.timed} steps timed here" in repr(told)
    assert re.search(r"an agent .* [mu]?s a step$", repr(told))


@pytest.mark.slow
def test_networks_with_a_horizon_are_timed_within_it():
    network = jd.networks.timeline(RING, steps=5)
    told = jd.explain(jd.ADSGD(0.1), PROBLEM, network, steps=5)
    assert told.time is not None
    assert told.time.timed <= 5
    with pytest.raises(ValueError, match="knows 5 rounds"):
        jd.explain(jd.ADSGD(0.1), PROBLEM, network, steps=6)


def test_methods_and_problems_of_ones_own():
    class Mine:
        axes: ClassVar = {"queries": jd.Axis(lambda step: jnp.ones(2), over="maximum")}

        def init(self, x0, problem, network, key):
            return jd.DGD(0.1).init(x0, problem, network, key)

        def step(self, state, problem, network, key):
            return jd.DGD(0.1).step(state, problem, network, key)

    class Problem:
        n, d = 8, 3

        def grad(self, x, key):
            return x

    told = jd.explain(Mine(), Problem(), RING, jnp.ones((8, 3)), steps=3, timed=False)
    assert told.needs == {}
    assert told.costs["rounds"] == 1
    np.testing.assert_array_equal(told.costs["queries"], [1, 1])
    assert "nothing of a network" in repr(told)


def test_what_run_refuses_is_refused():
    with pytest.raises(ValueError, match=r"steps = 3 is not a multiple"):
        jd.explain(jd.DGD(0.1), PROBLEM, RING, steps=3, every=2)
    with pytest.raises(ValueError, match=r"the problem has 4 agents"):
        jd.explain(jd.DGD(0.1), jd.problems.quadratic(4, 3), RING)
    with pytest.raises(ValueError, match="call it outside of jit"):
        jax.jit(lambda x0: jd.explain(jd.DGD(0.1), PROBLEM, RING, x0).n)(PROBLEM.start())
