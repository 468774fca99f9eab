"""Servers with compressed links: their loops, reductions, exactness, stability and bits."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from reference import error_feedback

import jaxdopt as jd
from jaxdopt.algorithms.compressed import messages
from jaxdopt.compressors import Contractive, Identity, RandomK, ScaledSign, TopK, per_leaf
from jaxdopt.networks import participation
from jaxdopt.problems.layout import Layout

KEY = jax.random.key(3)
N, STEPS = 5, 30
SIZES = {"a": 2, "b": 5, "c": 3}
D = sum(SIZES.values())
EXACT: dict[str, Any] = {"rtol": 1e-10, "atol": 1e-10}
TOP = TopK(2)


@functools.cache
def tables():
    """Curvatures and minima of agents, both [n, d]."""
    random = np.random.default_rng(0)
    return random.uniform(0.5, 1.5, (N, D)), 2 * random.standard_normal((N, D))


@functools.cache
def problem(noise=0.0):
    """Separable quadratics of a pytree of leaves, with noise that depends on the key."""
    params = {name: jnp.zeros(size) for name, size in SIZES.items()}
    layout = Layout.of(params)

    def gradient(params, data, key):
        curvature, minimum = data
        slope = curvature * (layout.ravel(params) - minimum)
        return layout.unravel(slope + noise * jax.random.normal(key, (D,)))

    return jd.problems.Oracle(gradient, tuple(map(jnp.asarray, tables())), params)


def solution():
    curvature, minimum = tables()
    return np.sum(curvature * minimum, axis=0) / np.sum(curvature, axis=0)


def start():
    return np.random.default_rng(2).standard_normal((N, D))


def presence():
    """Who is there: by turns, and twice nobody."""
    there = np.random.default_rng(1).random((STEPS, N)) < 0.6
    there[[7, 20]] = False
    return there


def recorded(method, problem=None, network=None, steps=STEPS, **options):
    """A run whose history has all arrays of the state."""
    problem = problem or globals()["problem"](0.5)
    network = network or jd.networks.Server(problem.n)

    def init():
        return method.init(jnp.asarray(start()), problem, network.at(0, KEY), KEY)

    metrics = {
        name: lambda state, _, name=name: getattr(state, name)
        for name in vars(jax.eval_shape(init))
        if name not in ("n", "memory")
    }
    options = {"defaults": (), "metrics": metrics, **options}
    return jd.run(method, problem, network, start(), KEY, steps=steps, **options)


METHODS = {
    "CompressedSGD": (jd.CompressedSGD, error_feedback.compressed_sgd, {}),
    "EF14": (jd.EF14, error_feedback.ef14, {}),
    "EF21": (jd.EF21, error_feedback.ef21, {}),
    "EF21SGDM": (jd.EF21SGDM, error_feedback.ef21_sgdm, {"beta": 0.3}),
    "EControl": (jd.EControl, error_feedback.econtrol, {"eta": 0.2}),
    "DGC": (jd.DGC, error_feedback.dgc, {"momentum": 0.6, "clip": 4.0}),
    "DGC, Nesterov": (jd.DGC, error_feedback.dgc, {"masking": False, "nesterov": True}),
}
MEMORY = ("EF21", "EF21SGDM", "EControl")
LINKS = {
    "whole": lambda: (TOP, None),
    "both ways": lambda: (TOP, TopK(3)),
    "drawn": lambda: (RandomK(3, scaled=False), Contractive(RandomK(4))),
    "leaves": lambda: (per_leaf(TopK(density=0.3), problem(), dense=2), ScaledSign()),
}
QUICK = {"EF14": "drawn", "EF21": "both ways", "EControl": "leaves", "DGC": "leaves"}


@pytest.mark.parametrize(
    ("name", "links"),
    [
        pytest.param(name, links, marks=() if QUICK.get(name) == links else pytest.mark.slow)
        for name in METHODS
        for links in LINKS
    ],
)
def test_all_memories_are_the_loops(name, links):
    """With noise, participation and stepsizes of clients, over all kinds of links."""
    method, loop, numbers = METHODS[name]
    (compressor, downlink), stepsize = LINKS[links](), np.linspace(0.05, 0.2, N)
    noisy, there = problem(0.5), presence()
    more = {"whole": compressor.whole(D)} if links == "leaves" and method is jd.DGC else {}

    @jax.jit
    def slope(x, k):
        key = jax.random.fold_in(jax.random.fold_in(KEY, k), 0)
        return noisy.grad(jnp.broadcast_to(x, (N, D)), key)

    @jax.jit
    def up(v, k):
        rows = jnp.broadcast_to(v, (N, D))
        return messages.message(compressor, jax.random.fold_in(KEY, k), rows)

    @jax.jit
    def down(x, k):
        return messages.message(downlink, jax.random.fold_in(KEY, k), x[None], channel=1)[0]

    _, expected = loop(
        lambda i, x, k, local: np.asarray(slope(x, k))[i],
        there,
        start().mean(axis=0),
        lambda k: stepsize,
        STEPS,
        compress=lambda k, channel, i, v: np.asarray(up(v, k))[i],
        downlink=None if downlink is None else lambda x, k: np.asarray(down(x, k)),
        history=True,
        **numbers,
        **more,
    )
    made = method(jnp.asarray(stepsize)[:, None], compressor, downlink=downlink, **numbers)
    network = participation.Trace(jnp.asarray(there), N)
    found = recorded(made, noisy, network).history
    for memory, values in expected.items():
        np.testing.assert_allclose(found[memory], values, err_msg=memory, **EXACT)


@pytest.mark.parametrize(
    ("method", "plain"),
    [
        pytest.param(jd.CompressedSGD(0.1, Identity()), {}, marks=pytest.mark.slow),
        (jd.EF14(0.1, Identity()), {}),
        (jd.EF21(0.1, Identity()), {}),
        pytest.param(jd.EF21SGDM(0.1, Identity(), beta=1.0), {}, marks=pytest.mark.slow),
        (jd.EControl(0.1, Identity(), downlink=TopK(D)), {}),
        (jd.DGC(0.1, TopK(density=1.0)), {}),
        (jd.DGC(0.1, Identity(), 0.7, masking=False), {"server": optax.trace(0.7)}),
        pytest.param(
            jd.DGC(0.1, Identity(), 0.7, masking=False, nesterov=True),
            {"server": optax.trace(0.7, nesterov=True)},
            marks=pytest.mark.slow,
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_of_whole_messages_they_are_sgd_or_heavy_ball(method, plain):
    """DGC is heavy ball, or Nesterov's, without the mask, and SGD with it."""
    found = [recorded(each).history["server"] for each in (method, jd.FedAvg(0.1, **plain))]
    np.testing.assert_allclose(*found, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    "method", [jd.EF21SGDM(0.1, TOP, beta=1.0), jd.EControl(0.1, TOP, eta=0.0)],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_ef21_is_a_special_case(method):
    network = participation.Trace(jnp.asarray(presence()), N)
    found = [recorded(each, network=network).history for each in (method, jd.EF21(0.1, TOP))]
    for name in ("server", "h", "mean"):
        np.testing.assert_allclose(found[0][name], found[1][name], rtol=1e-12, atol=1e-13)


def test_a_downlink_that_is_odd_is_double_squeeze():
    """The server keeps e and sends C(mean + e): workers step by what they get."""
    run = recorded(jd.EF14(0.1, TOP, downlink=TopK(3)), problem()).history
    curvature, minimum = tables()

    def top(v, k):
        return np.where(np.argsort(np.argsort(-np.abs(v), kind="stable")) < k, v, 0)

    x, e, mine = start().mean(axis=0), np.zeros(D), np.zeros((N, D))
    for k in range(STEPS):
        np.testing.assert_allclose(run["public"][k], x, rtol=1e-11, atol=1e-12)
        unsent = mine + 0.1 * curvature * (x - minimum)
        sent = np.array([top(row, 2) for row in unsent])
        mine, p = unsent - sent, sent.mean(axis=0) + e
        e, x = p - top(p, 3), x - top(p, 3)
        np.testing.assert_allclose(run["public"][k + 1] - run["server"][k + 1], e, atol=1e-12)


def test_what_is_not_sent_is_remembered():
    """Of constant gradients: EF14's x − mean e, EControl's e, and the sum that DGC has sent."""
    slopes = jnp.asarray(np.random.default_rng(4).standard_normal((N, D)))
    flat = jd.problems.Oracle(lambda x, own, key: own, slopes, jnp.zeros(D))
    times = np.arange(STEPS + 1)[:, None, None]
    ef14, econtrol, dgc = (
        recorded(method, flat).history
        for method in (jd.EF14(0.1, TOP), jd.EControl(0.1, TOP, 0.1), jd.DGC(0.1, TOP, 0.5))
    )
    whole = start().mean(axis=0) - 0.1 * (times * slopes).mean(axis=1)
    np.testing.assert_allclose(ef14["server"] - ef14["e"].mean(axis=1), whole, **EXACT)
    sums = times * slopes - np.cumsum(econtrol["h"], axis=0)
    np.testing.assert_allclose(econtrol["e"], sums, **EXACT)
    np.testing.assert_allclose(econtrol["h"].mean(axis=1), econtrol["mean"], **EXACT)
    u = np.concatenate([np.zeros((1, N, D)), 0.5 * dgc["u"][:-1] + slopes])  # before the mask
    sent = np.cumsum(u, axis=0) - dgc["v"]
    np.testing.assert_allclose(
        dgc["server"], start().mean(axis=0) - 0.1 * sent.mean(axis=1), **EXACT
    )


EXACTLY = {
    "EF21": jd.EF21(0.1, TopK(3)),
    "EF21SGDM": jd.EF21SGDM(0.1, TopK(3), beta=0.3),
    "EControl": jd.EControl(0.1, TopK(3)),
}


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("EControl", "two of five, both ways"),
        *(
            pytest.param(name, how, marks=pytest.mark.slow)
            for name in EXACTLY
            for how in ("two of five", "both ways", "two of five, both ways")
            if (name, how) != ("EControl", "two of five, both ways")
        ),
    ],
)
def test_methods_whose_server_remembers_are_exact(name, how):
    """And the absent keep their rows."""
    method = jd.replace(EXACTLY[name], downlink=TopK(3) if "both" in how else None)
    few = participation.uniform(N, 2) if "two" in how else jd.networks.Server(N)
    run = recorded(method, problem(), few, steps=4000, every=1)
    assert np.sum((run.history["server"][-1] - solution()) ** 2) <= 1e-20
    if "two" in how:
        moved = np.any(run.history["h"][1:31] != run.history["h"][:30], axis=2)
        assert np.all(moved.sum(axis=1) == 2)


@functools.cache
def uneven(agents=5, d=60, length=20.0):
    """fᵢ = |aᵢ x − bᵢ|² / 2, aᵢ² = i² / n, bᵢ of length falling as 1 / i; L = n."""
    i = np.arange(1, agents + 1)[:, None]
    b = np.random.default_rng(0).normal(size=(agents, d)) * length / i
    a = i / np.sqrt(agents)
    made = jd.problems.Oracle(
        lambda x, own, key: own[0] * (own[0] * x - own[1]), (a, b), jnp.zeros(d)
    )
    return made, np.sum(a * b, axis=0) / np.sum(a**2)


def tail(method, gammas, length, steps):
    """The mean relative error of the last quarter of some steps, for every γL."""
    made, goal = uneven(length=length)
    off = {"off": lambda state, problem: jnp.sum((state.server - goal) ** 2) / np.sum(goal**2)}

    def errors(gamma):
        options = {"steps": steps, "every": steps // 400, "metrics": off, "defaults": ()}
        server, x0 = jd.networks.Server(5), jnp.zeros((5, 60))
        return jd.run(method(gamma / 5), made, server, x0, KEY, **options).history["off"]

    return np.asarray(jax.jit(jax.vmap(errors))(jnp.asarray(gammas)))[:, -100:].mean(axis=1)


@pytest.mark.slow
@pytest.mark.long
def test_without_server_memory_there_is_a_plateau():
    """Without any it does not fall with γ, with EF14's it falls as γ²."""
    naive = tail(lambda g: jd.CompressedSGD(g, TopK(6)), [0.5, 0.02], 20.0, 8000)
    np.testing.assert_allclose(naive, [0.380, 0.398], rtol=0.01)
    feedback = tail(lambda g: jd.EF14(g, TopK(6)), [0.04, 0.02], 20.0, 8000)
    np.testing.assert_allclose(feedback, [9.6e-4, 2.4e-4], rtol=0.02)


@pytest.mark.slow
def test_the_feedback_of_econtrol_has_to_be_of_the_order_of_delta():
    """δ = 0.1: stable for η ≤ δ at γL = 0.4, and for 4δ even at 0.05 not."""
    pairs = np.array([[0.4, 0.1], [0.4, 0.05], [0.05, 0.4], [0.4, 0.4]])

    def method(pair):
        return jd.EControl(pair[0], TopK(6), 5 * pair[1])

    reached = tail(method, pairs, 20.0, 1200)
    assert np.all(reached[:2] < 1e-6)
    assert not np.any(reached[2:] < 1.0)


def test_the_feedback_is_half_of_delta_by_default():
    by_default = recorded(jd.EControl(0.1, TopK(3)), problem()).state
    given = recorded(jd.EControl(0.1, TopK(3), 0.15), problem()).state
    np.testing.assert_allclose(by_default.server, given.server, rtol=1e-14)


@pytest.mark.parametrize("masking", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_masking_spares_leaves_that_are_sent_whole(masking):
    """They have heavy ball, as without compression, whatever others do."""
    sparse = per_leaf(TopK(1), problem(), dense=3)
    dense = sparse.whole(D)
    found = recorded(jd.DGC(0.05, sparse, 0.8, masking=masking)).history["server"]
    ball = recorded(jd.FedAvg(0.05, server=optax.trace(0.8))).history["server"]
    assert dense.sum() == 5
    np.testing.assert_allclose(found[:, dense], ball[:, dense], rtol=1e-11, atol=1e-12)
    assert np.abs(found - ball)[-1, ~dense].min() > 1e-3


@pytest.mark.slow
@pytest.mark.long
def test_masking_leaves_a_bias_that_does_not_fall_with_the_stepsize():
    """The notes' numbers, of γ = 2e-3 and 5e-4."""
    gammas, errors = [0.01, 0.0025], {}
    for masking in (True, False):
        method = functools.partial(jd.DGC, compressor=TopK(3), masking=masking)
        errors[masking] = tail(method, gammas, 1.0, 20_000)
    np.testing.assert_allclose(errors[True], [3.15e-2, 2.54e-2], rtol=0.05)
    np.testing.assert_allclose(errors[False], [2.69e-2, 1.60e-3], rtol=0.05)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("name", EXACTLY)
def test_memories_do_not_drift_in_float32(name, float32):
    """100,000 noisy steps: the server's mean is still that of its clients'."""
    noisy, few = problem(0.5), participation.uniform(N, 3)
    run = jd.run(EXACTLY[name], noisy, few, jnp.asarray(start(), jnp.float32), KEY,
                 steps=100_000, every=100_000, defaults=())  # fmt: skip
    state = run.state
    assert state.h.dtype == jnp.float32
    size = float(np.sqrt(np.mean(np.square(state.h))))
    assert np.max(np.abs(state.h.mean(axis=0) - state.mean)) < 1e-3 * size


def test_bits_go_up_and_down():
    """Of those who take part, by both links' compressors; dense where there is none."""
    few, steps = participation.uniform(N, 2), 10
    leaves = per_leaf(TopK(density=0.3), problem(), dense=2)
    up = 2 * 32 + 2 * (32 + 3) + 1 * (32 + 2)
    down, share = 3 * (32 + 4), np.arange(steps + 1) * 2 / N
    method = jd.EF14(0.1, leaves, TopK(3))
    history = recorded(method, network=few, steps=steps, metrics={}).history
    np.testing.assert_allclose(history["bits_up"], share * up, rtol=1e-6)
    np.testing.assert_allclose(history["bits_down"], share * down, rtol=1e-6)
    np.testing.assert_allclose(history["bits"], share * (up + down) / 2, rtol=1e-6)
    whole = recorded(jd.EF14(0.1, TOP), steps=1, metrics={}).history
    assert (whole["bits_up"][-1], whole["bits_down"][-1]) == (2 * (32 + 4), 32 * D)


def test_a_warm_up_is_a_schedule_of_the_density():
    warm = jd.schedules.PiecewiseConstant([1.0, 0.3, 0.1], [4, 8])
    history = recorded(jd.DGC(0.05, TopK(density=warm)), steps=12).history
    sent = np.diff(history["bits_up"])
    np.testing.assert_allclose(sent, np.repeat([D, 3, 1], 4) * (32 + 4), rtol=1e-6)
    first = recorded(jd.DGC(0.05, TopK(density=1.0)), steps=4).history["server"]
    np.testing.assert_allclose(history["server"][:5], first, rtol=1e-13)
    with pytest.raises(ValueError, match=r"density at step 34 is 1\.37; give at most 1"):
        recorded(jd.DGC(0.05, TopK(density=lambda k: k * 0.04 + 0.01)), steps=35)


@pytest.mark.slow
def test_densities_are_swept():
    swept = jd.compare(
        {"EControl": jd.EControl(0.1, TopK(density=0.5))}, problem(), jd.networks.Server(N),
        over={"compressor.density": [0.1, 0.3, 1.0]}, steps=10, progress=False, defaults=(),
    )  # fmt: skip
    sent = swept.bits_up.isel(step=-1, seed=0, drop=True).squeeze()
    np.testing.assert_allclose(sent, 10 * np.array([1, 3, D]) * (32 + 4), rtol=1e-6)
