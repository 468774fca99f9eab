"""Methods that are others in a special case are those, step for step, with noise."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdopt as jd

pytestmark = pytest.mark.slow  # the loops of the references know both sides

N, KEY = 6, jax.random.key(2)
RING = jd.networks.metropolis(jd.graphs.ring(N))
IDENTITY = jd.compressors.Identity()
DECREASING = jd.schedules.InverseTime(2.0, offset=20.0)


def estimates(state, problem):
    return state.x


def noisy():
    random = np.random.default_rng(3)
    features = random.standard_normal((N, 7, 3)) + np.arange(N)[:, None, None] / 3
    labels = random.standard_normal((N, 7)) + np.arange(N)[:, None]
    return jd.problems.Minibatch(jd.problems.least_squares(features, labels, l2=0.1), 2)


def path(method, network: Any = RING, problem=None, x0=None, steps=30):
    """All iterates, from a start that agents do not share."""
    problem = noisy() if problem is None else problem
    if x0 is None:
        x0 = jnp.asarray(np.random.default_rng(1).standard_normal((N, 3)))
    result = jd.run(method, problem, network, x0, KEY, steps=steps, metrics={"x": estimates})
    return result.history["x"]


def same(one, other, **options):
    np.testing.assert_allclose(path(one, **options), path(other, **options), atol=1e-11)


@pytest.mark.parametrize(
    ("method", "parent"),
    [
        (jd.CEDAS(DECREASING, IDENTITY), jd.ExactDiffusion(DECREASING)),
        (jd.LEAD(0.02, IDENTITY), jd.NIDS(0.02)),
        (jd.CHOCOSGD(DECREASING, IDENTITY), jd.DSGD(DECREASING)),
        (jd.CHOCOSGD(DECREASING, IDENTITY, order="after"), jd.DGD(DECREASING)),
        (jd.DeepSqueeze(DECREASING, IDENTITY), jd.DSGD(DECREASING)),
        (jd.BEER(DECREASING, IDENTITY), jd.DIGing(DECREASING)),
        (jd.CGT(DECREASING, IDENTITY), jd.DIGing(DECREASING)),
    ],
    ids=lambda method: type(method).__name__,
)
def test_without_compression_it_is_its_parent(method, parent):
    same(method, parent)


def test_cedas_is_lead_on_the_same_random_bits_but_for_leads_first_step():
    """With a constant stepsize LEAD from x₀ goes on as CEDAS from x₀ − η g(x₀)."""
    problem, dither = jd.problems.quadratic(N, 3, heterogeneity=1.0), jd.compressors.Dither(bits=3)
    stepsize = 0.2 / problem.smoothness
    x0 = problem.start() + jnp.arange(float(N))[:, None]
    lead = jd.run(jd.LEAD(stepsize, dither), problem, RING, x0, KEY, steps=1)
    adapted = lead.state.x
    np.testing.assert_allclose(adapted, x0 - stepsize * problem.grad(x0), atol=1e-14)
    on = jd.run(
        jd.LEAD(stepsize, dither), problem, RING, None, KEY, steps=40, state=lead.state, start=1
    )
    cedas = jd.run(jd.CEDAS(stepsize, dither), problem, RING, adapted, KEY, steps=40, start=1)
    np.testing.assert_allclose(on.state.x, cedas.state.x, atol=1e-11)


@pytest.mark.parametrize(
    ("method", "parent"),
    [
        (jd.SGP(DECREASING), jd.DSGD(DECREASING)),
        (jd.PushDIGing(DECREASING), jd.GradientTracking(DECREASING)),
        (jd.PushPull(DECREASING), jd.GradientTracking(DECREASING)),
        (jd.AB(DECREASING), jd.DIGing(DECREASING)),
    ],
    ids=lambda method: type(method).__name__,
)
def test_with_doubly_stochastic_weights_it_is_the_undirected_method(method, parent):
    same(method, parent)


def directed():
    row, column = (
        np.array(weights.csr().toarray())
        for weights in (
            jd.networks.row_stochastic(jd.graphs.exponential(N, directed=True)),
            jd.networks.column_stochastic(jd.graphs.exponential(N, directed=True)),
        )
    )
    row[0, 0], row[0, 1:] = 0.4, row[0, 1:] * 0.6 / row[0, 1:].sum()
    column[0, 0], column[1:, 0] = 0.3, column[1:, 0] * 0.7 / column[1:, 0].sum()
    return jd.networks.Directed(
        jd.networks.mixing(row, kind="row"), jd.networks.mixing(column, kind="column")
    )


@pytest.mark.parametrize(
    ("method", "parent"),
    [
        (jd.CPP(0.02, IDENTITY), jd.PushPull(0.02)),
        (jd.CPP(0.02, IDENTITY, form="cta"), jd.AB(0.02)),
        (jd.APD(0.02, growth=0.0), jd.PushDIGing(0.02)),
    ],
    ids=lambda method: type(method).__name__,
)
def test_on_directed_graphs_it_is_its_parent(method, parent):
    same(method, parent, network=directed())


def test_trees():
    """STPP is Push-Pull on trees."""
    heap = jd.networks.bary_tree(N, 3)
    assert heap.row.parent.tolist() == [0, 0, 0, 0, 1, 1]
    expected = path(jd.PushPull(0.01), network=heap)
    np.testing.assert_array_equal(path(jd.STPP(0.01), network=heap), expected)


def test_reshuffling_on_the_complete_graph_is_centralized():
    """W = 11ᵀ/n and one start: D-RR and centralized RR on the same orders."""
    x0 = jnp.ones((N, 3))
    complete = jd.networks.metropolis(jd.graphs.complete(N))
    same(jd.DRR(DECREASING), jd.CentralizedRR(DECREASING), network=complete, x0=x0)


@pytest.mark.parametrize(
    ("method", "parent"),
    [
        (jd.DRR(DECREASING), jd.DSGD(DECREASING)),
        (jd.GTRR(DECREASING), jd.ATCGT(DECREASING)),
        (jd.EDRR(DECREASING, relaxation=0.7), jd.ExactDiffusion(DECREASING, relaxation=0.7)),
    ],
    ids=lambda method: type(method).__name__,
)
def test_with_one_sample_an_agent_reshuffling_is_its_parent(method, parent):
    whole = noisy().problem
    one = jd.problems.least_squares(whole.data[0][:, :1], whole.data[1][:, :1], l2=0.1)
    same(method, parent, problem=one)


@pytest.mark.parametrize("method", [jd.GTRR, jd.EDRR])
def test_restart_is_a_run_that_begins_anew_in_every_epoch(method):
    """Three epochs of three batches of two, of six samples: the same as three runs in a row."""
    whole = noisy().problem
    even = jd.problems.least_squares(whole.data[0][:, :6], whole.data[1][:, :6], l2=0.1)
    problem, plain = jd.problems.Minibatch(even, 2), method(0.02)
    restarted = path(method(0.02, restart=True), problem=problem, steps=9)
    x, passes = jnp.asarray(restarted[0]), None
    for epoch in range(3):
        state = plain.init(x, problem, RING, KEY)
        if passes is not None:
            state = jd.replace(state, passes=passes)
        run = jd.run(plain, problem, RING, None, KEY, steps=3, state=state, start=3 * epoch)
        x, passes = run.state.x, run.state.passes
        np.testing.assert_allclose(x, restarted[3 * epoch + 3], atol=1e-13)
    assert not np.allclose(x, path(plain, problem=problem, steps=9)[-1])
