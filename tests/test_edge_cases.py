"""Examples that once failed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdopt as jd

FEATURES = np.random.default_rng(0).standard_normal((12, 2))
LABELS = np.random.default_rng(1).standard_normal(12)
KEY = jax.random.key(0)


def test_a_partition_may_be_an_index_table():
    table = np.arange(12).reshape(3, 4)[::-1]
    problem = jd.problems.least_squares(FEATURES, LABELS, partition=table)
    np.testing.assert_array_equal(problem.data[1], LABELS[table])


def test_an_empty_partition_is_not_iid():
    with pytest.raises(ValueError, match="partition"):
        jd.problems.least_squares(FEATURES, LABELS, agents=3, partition=[])


@pytest.mark.parametrize(
    "partition",
    [
        lambda labels, agents: [[0, 1]],  # one agent of three
        lambda labels, agents: [[0, 1]] * agents,  # every sample three times
        lambda labels, agents: [[0, 1], [2], [99]],  # IndexError
    ],
    ids=["other n", "overlapping", "out of range"],
)
def test_partitions_of_ones_own_are_checked_as_index_arrays_are(partition):
    with pytest.raises(ValueError, match=r"partition|agent"):
        jd.problems.least_squares(FEATURES, LABELS, agents=3, partition=partition)


def test_the_objective_of_some_quadratics_is_the_mean_of_theirs():
    part = jd.problems.quadratic(4, 3).take(jnp.array([0, 1]))
    x = jnp.ones(3)
    mean = part.grad(jnp.broadcast_to(x, (2, 3))).mean(axis=0)
    np.testing.assert_allclose(jax.grad(part.objective)(x), mean, rtol=1e-12)


def test_an_oracles_data_without_an_axis_of_agents():
    with pytest.raises(ValueError, match="first axis"):
        jd.problems.Oracle(lambda x, data, key: x, 3.0, jnp.zeros(2))


def test_an_oracles_agents_may_be_a_numpy_integer():
    count: int = np.int64(3)  # type: ignore[assignment]
    assert jd.problems.Oracle(lambda x, data, key: x, None, jnp.zeros(2), agents=count).n == 3


def test_l2_is_no_schedule():
    def loss(x, sample):
        return x @ sample

    with pytest.raises(ValueError, match="l2 is"):
        jd.problems.FiniteSum(loss, FEATURES.reshape(3, 4, 2), jnp.zeros(2), l2=lambda k: 0.1)


@pytest.mark.parametrize("make", [lambda: jd.schedules.Cosine(0.1, steps=0)])
def test_schedules_that_divide_by_zero_are_refused(make):
    with pytest.raises(ValueError, match="steps is 0"):
        make()


def test_a_schedule_of_schedules():
    schedule = jd.schedules.Polynomial(initial=jd.schedules.InverseTime(1.0), power=0.5)
    assert float(jd.at(jd.DGD(schedule), 3).stepsize) == pytest.approx(0.25 / 2)


def test_checks_survive_an_annotation_that_cannot_be_resolved():
    scope: dict = {}
    source = (
        "from __future__ import annotations\n"
        "import jaxdopt as jd\n"
        "@jd.pytree\n"
        "class Method:\n"
        "    stepsize: jd.Nonnegative\n"
        "    memory: OnlyForTheTypeChecker = None\n"
    )
    exec(source, scope)
    assert isinstance(scope["Method"](1).stepsize, float)
    with pytest.raises(ValueError, match="stepsize is -1"):
        scope["Method"](-1)


def test_a_stack_of_exact_averages_sweeps():
    networks = jd.networks.stack([jd.networks.metropolis(jd.graphs.complete(4))] * 2)
    problem = jd.problems.quadratic(4, 2)
    swept = jd.sweep(jd.run, over=("network",))
    result = swept(jd.DGD(0.1), problem, networks, problem.start(), KEY, steps=3)
    assert result.history["gap"].shape == (2, 4)


def test_the_consensus_error_has_the_dtype_of_the_estimates():
    assert jd.agents.disagreement(jnp.ones((3, 2), jnp.float32)).dtype == jnp.float32
