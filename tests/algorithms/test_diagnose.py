"""Where a run is first not finite: the step, the agents, the fields and the line."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import ROWS
from small import KEY, D, N, network_of, uneven

import jaxdopt as jd

RING = jd.networks.metropolis(jd.graphs.ring(4))
PROBLEM = jd.problems.quadratic(4, 2)
SETTING = PROBLEM, RING, PROBLEM.start()
STEPS = 8


def finite(state, problem):
    """Whether all numbers of a state are finite, one by one as recorded."""
    del problem
    floats = [x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.inexact)]
    whole = [jnp.all(jnp.isfinite(leaf)) for leaf in (*floats, state.x)]
    return jnp.all(jnp.array(whole)) & getattr(state, "valid", True)


def first_of(found):
    """The record at which a diagnosis is, None if it is none."""
    return None if found is None else 0 if found.step is None else found.step + 1


@pytest.mark.slow
@pytest.mark.parametrize("row", [row for row in ROWS if row.first], ids=lambda row: row.name)
def test_every_kind_of_method_is_diagnosed_at_the_step_at_which_its_records_end(row):
    problem, network = uneven(float), network_of(row.network)
    method = row.make(1e200)
    setting = method, problem, network, problem.start()
    options = {"defaults": (), "metrics": {"finite": finite}}
    flags = jd.run(*setting, KEY, steps=STEPS, **options).history["finite"]
    found = jd.diagnose(*setting, KEY, steps=STEPS)
    assert first_of(found) == (None if flags.all() else int(np.argmin(flags)))
    if found is not None:
        assert found.before is None or finite(found.before, problem)
        assert not finite(found.after, problem)
        assert {fault.name for fault in found.fields} <= names(found.after) | {"valid"}
        assert str(found).startswith("The state ")


def names(state):
    paths = (jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(state))
    return {path.lstrip(".") for path in paths}


def test_a_method_that_diverges():
    found = jd.diagnose(jd.DGD(5.0), *SETTING, KEY, steps=1000)
    rows = {"x": lambda state, problem: state.x}
    x = jd.run(jd.DGD(5.0), *SETTING, KEY, steps=1000, metrics=rows, defaults=()).history["x"]
    ends = np.flatnonzero(~np.isfinite(x).all(axis=(1, 2)))[0]
    assert found is not None
    assert found.step == ends - 1
    (fault,) = found.fields
    assert fault.name == "x"
    assert fault.of == 4
    assert fault.agents == tuple(np.flatnonzero(~np.isfinite(x[ends]).all(axis=1)))
    assert fault.largest == pytest.approx(np.abs(x[ends - 1]).max(), rel=1e-6)
    assert found.data == ()
    assert found.cause == ""
    again = jd.run(
        jd.DGD(5.0), PROBLEM, RING, key=KEY, state=found.before, start=found.step, steps=1
    )
    np.testing.assert_array_equal(again.state.x, found.after.x)
    assert repr(found).splitlines()[0] == (
        f"The state after step {ends - 1} is the first that is not finite:"
    )
    assert "    x: " in repr(found)
    assert "the largest number before was " in repr(found)
    assert jd.diagnose(jd.DGD(5.0), *SETTING, KEY, steps=int(ends) - 1) is None


def test_a_sample_that_is_nan_is_found_with_its_agent():
    features = np.random.default_rng(0).standard_normal((4, 6, 3))
    problem = jd.problems.FiniteSum(lambda x, a: (a @ x - 1) ** 2, features, jnp.zeros(3))
    features[2, 3, 1] = np.nan
    problem = jd.problems.Minibatch(jd.replace(problem, data=jnp.asarray(features)), 1)
    found = jd.diagnose(jd.GradientTracking(0.01), problem, RING, problem.start(), KEY, steps=100)
    assert found is not None
    faults = {fault.name: fault.agents for fault in (*found.fields, *found.gradient, *found.data)}
    assert faults["g"] == faults["gradient"] == faults["problem.problem.data"] == (2,)
    assert set(faults["x"]) == {1, 2, 3}  # who have heard of it
    assert "problem.problem.data: nan at agent 2" in str(found)


def by_zero(x, target, key):
    return x / jnp.sum(jnp.abs(x - target))


def test_a_gradient_that_divides_by_zero_is_found_with_its_line():
    targets = jnp.ones((4, 2)).at[3].set(0)
    problem = jd.problems.Oracle(by_zero, targets, jnp.ones(2))
    found = jd.diagnose(jd.DGD(0.1), problem, RING, jnp.zeros((4, 2)), KEY, steps=5)
    assert found is not None
    assert found.step == 0
    assert [fault.agents for fault in (*found.fields, *found.gradient)] == [(3,), (3,)]
    assert found.cause.startswith("division by zero, in by_zero (test_diagnose.py:")


def test_a_run_that_starts_from_nan():
    for value in (jnp.nan, -jnp.inf):
        x0 = jnp.ones((4, 2)).at[1, 0].set(value)
        found = jd.diagnose(jd.DGD(0.1), PROBLEM, RING, x0, KEY, steps=5)
        assert found is not None
        assert found.step is None
        assert found.before is None
        assert repr(found.fields[0]) == f"x: {value} at agent 1"
    assert "that the run starts from" in str(found)


def test_results_and_states_are_gone_on_from():
    whole = jd.diagnose(jd.DGD(5.0), *SETTING, KEY, steps=1000)
    assert whole is not None
    assert whole.step is not None
    first = jd.run(jd.DGD(5.0), *SETTING, KEY, steps=10)
    after = jd.diagnose(jd.DGD(5.0), PROBLEM, RING, after=first, steps=1000)
    state = jd.diagnose(
        jd.DGD(5.0), PROBLEM, RING, key=KEY, state=first.state, start=10, steps=1000
    )
    for found in (after, state):
        assert found is not None
        assert found.step == whole.step
        assert found.fields == whole.fields


@pytest.mark.slow
def test_schedules_and_sleepers_are_as_in_a_run():
    """A stepsize that is large from step 30 on, and agents that sleep at random."""
    network = jd.networks.Asleep(RING, 0.5)
    method = jd.DGD(lambda k: jnp.where(k < 30, 0.1, 1e200))
    flags = jd.run(method, PROBLEM, network, SETTING[2], KEY, steps=40, metrics={"f": finite})
    found = jd.diagnose(method, PROBLEM, network, SETTING[2], KEY, steps=40)
    assert first_of(found) == np.argmin(flags.history["f"]) > 30


@pytest.mark.slow
def test_push_sum_weights_that_underflow_are_told(float32):
    links = np.eye(256) + np.roll(np.eye(256), 1, axis=0)
    links[0] = 1
    network = jd.networks.column_stochastic(links.T)
    problem = jd.problems.quadratic(256, 1)
    found = jd.diagnose(jd.SGP(0.0), problem, network, problem.start(), KEY, steps=600)
    assert found is not None
    assert found.fields[0].name == "valid"
    assert "underflowed" in str(found)


def test_infinities_that_were_there_are_no_fault():
    @jd.pytree
    class State:
        x: jax.Array
        best: jax.Array

    class Mine:
        def init(self, x0, problem, network, key):
            return State(x0, jnp.full(len(x0), jnp.inf))

        def step(self, state, problem, network, key):
            x = network @ state.x - 0.1 * problem.grad(state.x, key)
            return State(x, jnp.where(jnp.abs(x[:, 0]) < 1e-3, x[:, 0], state.best))

    assert jd.diagnose(Mine(), *SETTING, KEY, steps=50) is None


def test_refusals_are_those_of_run():
    with pytest.raises(ValueError, match=r"key is None, not a JAX key"):
        jd.diagnose(jd.DGD(0.1), *SETTING, steps=3)
    with pytest.raises(ValueError, match="steps is 0; give"):
        jd.diagnose(jd.DGD(0.1), *SETTING, KEY, steps=0)
    with pytest.raises(ValueError, match="call it outside of jit"):
        jax.jit(lambda x0: jd.diagnose(jd.DGD(0.1), PROBLEM, RING, x0, KEY, steps=3))(SETTING[2])
    with pytest.raises(ValueError, match="EXTRA needs"):
        jd.diagnose(jd.EXTRA(0.1), PROBLEM, jd.networks.Server(4), SETTING[2], KEY, steps=3)
    with pytest.raises(ValueError, match=rf"x0 has|shape \({N}, {D}\)"):
        jd.diagnose(jd.DGD(0.1), PROBLEM, RING, jnp.zeros((N, D)), KEY, steps=3)
