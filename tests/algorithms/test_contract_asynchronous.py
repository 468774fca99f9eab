"""What every asynchronous method promises: one program, a pure step, slopes, precision."""

import functools
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdopt as jd
from jaxdopt.networks.events import durations

N, D, STEPS = 5, 3, 24
KEY = jax.random.key(3)


class Row(NamedTuple):
    """A method, and what it runs on."""

    build: Any  # of the stepsize
    kind: str  # of network
    alone: bool = True  # whether one agent by itself runs gradient descent


ROWS = {
    "ADSGD": Row(lambda a: jd.ADSGD(a, 0.8), "timeline", alone=False),
    "ASBCD": Row(lambda a: jd.ASBCD(a, 0.2), "timeline"),
    "RFAST": Row(jd.RFAST, "timeline", alone=False),
    "ADPSGD": Row(jd.ADPSGD, "pairs", alone=False),
    "AsyncFedAvg": Row(lambda a: jd.AsyncFedAvg(a, local_steps=2), "each"),
    "FedFix": Row(lambda a: jd.FedFix(a, local_steps=2), "ticks", alone=False),
    "FedBuff": Row(lambda a: jd.FedBuff(a, local_steps=2), "buffer"),
    "AFACD": Row(lambda a: jd.AFACD(a, 0.1, local_steps=2), "buffer", alone=False),
    "AFACS": Row(lambda a: jd.AFACS(a, 0.1, local_steps=2), "buffer", alone=False),
}


@pytest.fixture(scope="module", params=list(ROWS))
def row(request):
    """All that is asked of one method comes before the next."""
    yield ROWS[request.param]
    run.cache_clear()
    jax.clear_caches()


@functools.cache
def problems():
    """Two noisy, uneven, heterogeneous logistic regressions of one structure."""
    made = []
    for seed in range(2):
        random = np.random.default_rng(seed)
        features = [random.standard_normal((m, D)) + m / 9 for m in (5, 7, 4, 6, 5)]
        labels = [np.where(f[:, 0] + random.standard_normal(len(f)) > 1, 1, -1) for f in features]
        made.append(jd.problems.Minibatch(jd.problems.logistic_regression(features, labels), 3))
    return made


@functools.cache
def networks(kind, n=N):
    """Two networks of one structure, by the times that are drawn."""
    ring = jd.networks.metropolis(jd.graphs.ring(n) if n > 1 else jd.graphs.complete(n))
    options: dict[str, Any] = {
        "compute": durations.LogNormal(np.linspace(1, 2, n), 0.5),
        "delay": 0.3,
    }
    rules = {"each": {"rule": "each"}, "ticks": {"every": 1.5}, "buffer": {"buffer": min(2, n)}}
    options["steps"] = STEPS
    if kind in rules:
        make = functools.partial(jd.networks.arrivals, n, **rules[kind], **options)
    else:
        maker = jd.networks.timeline if kind == "timeline" else jd.networks.pairwise
        make = functools.partial(maker, ring, **options)
    both = [make(key=jax.random.key(seed)) for seed in range(2)]
    return jd.networks.stack(both), both


def member(row, i):
    """What the i-th of two runs has: all numbers differ, and nothing else."""
    together, _ = networks(row.kind)
    network = jax.tree.map(lambda leaf: leaf[i], together)
    return row.build((0.3, 0.2)[i]), problems()[i], network, jax.random.split(KEY)[i]


def x_start():
    return jnp.asarray(np.random.default_rng(5).standard_normal((N, D)))


TRACES = []


def estimates(state, problem):
    TRACES.append(state)  # while a program is traced, and at no other time
    return state.x


@functools.cache
def run(row, i):
    method, problem, network, key = member(row, i)
    options = {"steps": STEPS, "every": 4, "metrics": {"x": estimates}}
    return jd.run(method, problem, network, x_start(), key, **options)


def test_one_program_serves_every_number_and_every_batch(row):
    singles = [run(row, 0)]
    TRACES.clear()
    singles.append(run(row, 1))
    assert not TRACES

    def from_start(method, problem, network, key):
        options = {"steps": STEPS, "every": 4, "metrics": {"x": estimates}}
        return jd.run(method, problem, network, x_start(), key, **options).history

    members = zip(member(row, 0), member(row, 1), strict=True)
    together = [jax.tree.map(lambda *leaves: jnp.stack(leaves), *pair) for pair in members]
    batch = jax.jit(jax.vmap(from_start))(*together)
    for i, single in enumerate(singles):
        for name, values in single.history.items():
            rtol = 1e-6 if values.dtype != batch[name].dtype else 1e-9  # costs add up in float32
            np.testing.assert_allclose(values, batch[name][i], rtol, 1e-12, err_msg=name)
    assert not np.allclose(singles[0].history["x"][-1], singles[1].history["x"][-1])


def test_padding_of_stacked_tables_changes_nothing(row):
    stacked, each = networks(row.kind)
    if all(made.agents.shape == stacked.agents.shape[1:] for made in each):
        pytest.skip("tables that have one size by themselves")
    for i, alone in enumerate(each):
        method, problem, _, key = member(row, i)
        x = jd.run(method, problem, alone, x_start(), key, steps=STEPS).state.x
        np.testing.assert_allclose(x, run(row, i).state.x, rtol=1e-12, atol=1e-13)


def test_the_bare_step_in_a_loop_is_the_run_and_its_continuation(row):
    method, problem, network, key = member(row, 0)
    before = x_start() + 0
    state = jax.jit(method.init)(x_start(), problem, network.at(0, key), key)
    np.testing.assert_array_equal(x_start(), before)

    @jax.jit
    def step(k, state):
        return method.step(state, problem, network.at(k, key), jax.random.fold_in(key, k))

    half = jax.lax.fori_loop(0, STEPS // 2, step, state)
    rest = jax.lax.fori_loop(STEPS // 2, STEPS, step, half)
    chex.assert_trees_all_close(rest, run(row, 0).state, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(half.x, run(row, 0).history["x"][3], rtol=1e-11, atol=1e-12)


def test_slopes_match_finite_differences(row):
    _, problem, network, key = member(row, 0)

    @jax.jit
    @jax.value_and_grad
    def final(stepsize):
        method = row.build(stepsize)
        return jd.run(method, problem, network, x_start(), key, steps=8, every=8).history["loss"][
            -1
        ]

    slope = (final(0.3 + 1e-5)[0] - final(0.3 - 1e-5)[0]) / 2e-5
    assert abs(slope) > 1e-4
    np.testing.assert_allclose(final(0.3)[1], slope, rtol=1e-6)


def test_float32_stays_float32(row, float32):
    world = jd.problems.quadratic(N, D)
    network = networks.__wrapped__(row.kind)[1][0]

    def go(x0):
        return jd.run(row.build(0.1), world, network, x0, KEY, steps=4)

    result = jax.eval_shape(go, world.start())
    leaves = jax.tree.leaves((result.state, result.metrics, result.costs))
    floats = {leaf.dtype for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)}
    assert floats == {np.dtype(np.float32)}


def test_one_agent_alone_runs_gradient_descent(row):
    if not row.alone:
        pytest.skip(
            "relaxed, a step later, in pairs, by ticks, or with a stepsize of the server's own"
        )
    world = jd.problems.quadratic(1, D)
    network = networks(row.kind, 1)[1][0]
    result = jd.run(row.build(0.2), world, network, world.start() + 1, KEY, steps=STEPS)
    calls = round(float(result.history["gradients"][-1]))
    x = world.start()[0] + 1
    for _ in range(calls):
        x = x - 0.2 * (world.hessians[0] @ (x - world.center) + world.tilts[0])
    assert calls >= STEPS / 2
    np.testing.assert_allclose(result.state.x[0], x, rtol=1e-12, atol=1e-14)
