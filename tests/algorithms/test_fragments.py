"""Methods that send part of the model: fragments, torchft's published runs, sparse messages."""

import functools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from reference import outer_loops

import jaxdopt as jd
from jaxdopt.algorithms.compressed import messages
from jaxdopt.problems.layout import Layout

KEY = jax.random.key(3)
N, STEPS = 5, 40
EXACT: dict[str, Any] = {"rtol": 1e-10, "atol": 1e-10}
SHAPES = {"a": (2,), "b": (1, 3), "c": (), "d": (4,), "e": (2, 2)}
SIZES = [2, 3, 1, 4, 4]
LEAVES = list(zip(np.cumsum([0, *SIZES[:-1]]).tolist(), SIZES, strict=True))
D = sum(SIZES)
TORCHFT = json.loads(
    (Path(__file__).parents[2] / "experiments" / "torchft.json").read_text(encoding="utf-8")
)


@functools.cache
def tables():
    """Curvatures and minima of agents, both [n, d], and noise that depends on the step."""
    random = np.random.default_rng(0)
    return random.uniform(0.5, 1.5, (N, D)), random.standard_normal((N, D))


@functools.cache
def problem():
    """Separable quadratics of a pytree, whose gradients bend with a cosine."""
    curvature, minimum = tables()
    params = {name: jnp.zeros(shape) for name, shape in SHAPES.items()}
    layout = Layout.of(params)

    def gradient(params, data, key):
        own, least = data
        x = layout.ravel(params)
        return layout.unravel(own * (x - least) + jnp.sin(3 * x) / 2)

    return jd.problems.Oracle(gradient, (jnp.asarray(curvature), jnp.asarray(minimum)), params)


def gradient(i, x, k, l):  # noqa: E741
    curvature, minimum = tables()
    return curvature[i] * (x - minimum[i]) + np.sin(3 * x) / 2


def presence():
    """Who is there: by turns, once nobody, and both ends of a message are missed."""
    there = np.random.default_rng(1).random((STEPS, N)) < 0.7
    there[:6, 0] = True
    there[[7, 8, 19, 30]] = False
    return there


def x_start():
    return np.random.default_rng(2).standard_normal((N, D))


def trajectory(method, there=None, problem=None, x0=None, steps=STEPS, **options):
    """The slow model [steps + 1, d], where the workers are [steps + 1, n, d], and the result."""
    problem = problem or globals()["problem"]()
    network = jd.networks.Server(problem.n)
    if there is not None:
        network = jd.networks.participation.Trace(jnp.asarray(there), problem.n)
    metrics = {"phi": lambda state, problem: state.server, "x": lambda state, problem: state.x}
    x0 = x_start() if x0 is None else x0
    result = jd.run(
        method, problem, network, x0, KEY, steps=steps, metrics=metrics, defaults=(), **options
    )
    return result.history["phi"], result.history["x"], result


def compressing(compressor, d):
    """The loop's compressor: what a row of this method's messages is."""

    @functools.partial(jax.jit, static_argnums=3)
    def message(v, i, k, d):
        rows = jnp.zeros((N, d)).at[i].set(v)
        return messages.message(compressor, jax.random.fold_in(KEY, k), rows)[i]

    return lambda k, channel, i, v: np.asarray(message(v, i, k, d(k)))


@pytest.mark.parametrize("delay", [0, 3])
@pytest.mark.parametrize("fragments", [1, 3])
def test_streaming_diloco_is_its_loop(fragments, delay):
    """With optimizers that remember, dithered messages, absent workers, stepsizes of agents."""
    there, stepsize = presence(), np.linspace(0.05, 0.2, N)
    sizes = [sum(SIZES[p::fragments]) for p in range(fragments)]
    turn = 12 // fragments
    dither = jd.compressors.Dither(bits=3)
    expected = outer_loops.streaming_diloco(
        gradient, there, x_start().mean(0), lambda k: stepsize, STEPS, 12, fragments,
        delay=delay, merge=0.3, server_stepsize=0.6, leaves=LEAVES, local=outer_loops.Adam,
        server=lambda: outer_loops.Nesterov(0.8),
        compress=compressing(dither, lambda k: sizes[((k + 1 + delay) // turn - 1) % fragments]),
    )  # fmt: skip
    method = jd.StreamingDiLoCo(
        jnp.asarray(stepsize)[:, None], 0.6, 12, fragments, delay, 0.3,
        optax.scale_by_adam(), optax.trace(0.8, nesterov=True), dither,
    )  # fmt: skip
    phi, x, _ = trajectory(method, there)
    np.testing.assert_allclose(phi, expected[0], **EXACT)
    np.testing.assert_allclose(x, expected[1], **EXACT)


@pytest.mark.parametrize("fragments", [1, 3])
def test_an_exchange_that_fails_is_tried_again(fragments):
    failed, turn = (1, 2, 5), 12 // fragments

    def success(k):
        exchange = (k + 1) // turn - 1
        return jnp.where(jnp.any(exchange == jnp.asarray(failed)), 0.0, 1.0)

    everybody = np.ones((STEPS, N), bool)
    rest = {"merge": 0.3, "server_stepsize": 0.6, "delay": 1}
    expected = outer_loops.streaming_diloco(
        gradient, everybody, x_start().mean(0), lambda k: 0.1, STEPS, 12, fragments,
        leaves=LEAVES, server=lambda: outer_loops.Nesterov(0.9), failed=failed, **rest,
    )  # fmt: skip
    method = jd.StreamingDiLoCo(0.1, period=12, fragments=fragments, success=success, **rest)
    phi, x, result = trajectory(method)
    np.testing.assert_allclose(phi, expected[0], **EXACT)
    np.testing.assert_allclose(x, expected[1], **EXACT)
    assert result.state.failures == sum(exchange < STEPS // turn for exchange in failed)


def test_failures_are_as_frequent_as_is_said():
    method = jd.StreamingDiLoCo(0.1, period=1, delay=0, success=0.7)
    _, _, result = trajectory(method, steps=2000, every=2000)
    assert abs(int(result.state.failures) - 600) < 5 * np.sqrt(2000 * 0.3 * 0.7)


@functools.cache
def constant():
    """Torchft's model: two weights, whose gradient is 2."""
    start = {"first": jnp.ones(1), "second": jnp.ones(1)}
    slope = TORCHFT["settings"]["gradient"]
    return jd.problems.Oracle(
        lambda params, data, key: jax.tree.map(lambda a: slope * jnp.ones_like(a), params),
        None, start, agents=TORCHFT["settings"]["replicas"],
    )  # fmt: skip


@pytest.mark.parametrize("run", TORCHFT["runs"], ids=lambda r: f"{r['delay']}, {r['merge']}")
def test_torchfts_published_runs_come_out(run):
    settings, series = TORCHFT["settings"], np.transpose(run["weights"])
    method = jd.StreamingDiLoCo(
        settings["stepsize"], settings["server_stepsize"], settings["period"],
        settings["fragments"], run["delay"], run["merge"], server=None,
    )  # fmt: skip
    phi, x, _ = trajectory(method, problem=constant(), x0=constant().start(), steps=len(series) - 1)
    np.testing.assert_array_equal(x, np.repeat(series[:, None], 2, axis=1))
    for step, slow in run["global"].items():
        np.testing.assert_array_equal(phi[int(step)], slow)


def test_streaming_one_fragment_at_once_is_diloco():
    """With Adam inside, and to the last bit."""
    optimizers = {"local": optax.scale_by_adam(), "server": optax.trace(0.8)}
    streaming = jd.StreamingDiLoCo(0.1, 0.6, 4, 1, delay=0, merge=0.0, **optimizers)
    rounds = jd.DiLoCo(0.1, 0.6, 4, **optimizers)
    phi, x, result = trajectory(streaming)
    expected, _, whole = trajectory(rounds, steps=STEPS // 4)
    np.testing.assert_array_equal(phi[::4], expected)
    np.testing.assert_array_equal(x[::4], np.repeat(expected[:, None], N, axis=1))
    for name in ("bits", "bits_up", "bits_down", "peak_bits", "rounds", "gradients"):
        assert result.history[name][-1] == whole.history[name][-1], name


@pytest.mark.parametrize("delay", [0, 3])
def test_workers_that_merge_nothing_never_hear_of_each_other(delay):
    method = jd.StreamingDiLoCo(0.1, 0.6, 12, 3, delay, merge=1.0)
    phi, x, _ = trajectory(method)
    alone = x_start().mean(0) * np.ones((N, 1))
    for k in range(STEPS):
        np.testing.assert_allclose(x[k], alone, **EXACT)
        alone = alone - 0.1 * np.array([gradient(i, alone[i], k, 0) for i in range(N)])
    assert np.abs(phi[-1] - phi[0]).max() > 0.1


def test_fragments_lower_the_peak_and_leave_the_sum():
    """A fragment's bits are counted where it arrives."""
    compressor = jd.compressors.E3M0()
    whole, parts = (
        trajectory(jd.StreamingDiLoCo(0.1, 0.6, 12, p, 2, compressor=compressor), steps=36)[2]
        for p in (1, 3)
    )
    sizes = [sum(SIZES[p::3]) for p in range(3)]
    assert whole.history["bits_down"][-1] == parts.history["bits_down"][-1] == 3 * 32 * D
    assert parts.history["bits_up"][-1] == 3 * (4 * D + 3 * 32)
    arrivals = np.diff(parts.history["bits_down"])
    np.testing.assert_array_equal(np.flatnonzero(arrivals), np.arange(3, 36, 4))
    np.testing.assert_array_equal(arrivals[3::4], 32 * np.array(3 * sizes))
    assert parts.history["peak_bits"][-1] == max(16 * d + 2 * d + 16 for d in sizes)
    assert whole.history["peak_bits"][-1] == 18 * D + 16
    np.testing.assert_allclose(parts.history["vectors"][-1], 3, rtol=1e-6)
    assert parts.history["rounds"][-1] == 9
    assert jd.costs.cost_of(jd.StreamingDiLoCo(0.1), whole.state, problem(),
                            jd.networks.Server(N, k=0)).hidden == 1  # fmt: skip


def test_bits_are_of_those_who_sent_and_of_those_who_hear():
    there = np.ones((8, N), bool)
    there[2, :2] = there[3, :4] = there[6] = False  # at the sendings after steps 3 and 7, and hence
    method = jd.StreamingDiLoCo(0.1, period=4, delay=1)
    _, _, result = trajectory(method, there, steps=8)
    np.testing.assert_allclose(result.history["bits_up"][-1], 3 / N * 32 * D, rtol=1e-6)
    np.testing.assert_allclose(result.history["bits_down"][-1], 1 / N * 32 * D, rtol=1e-6)
    assert result.history["rounds"][-1] == 2  # the second of them without messages


def test_numbers_are_one_program():
    methods = jax.vmap(lambda a, s, m, p: jd.StreamingDiLoCo(a, s, 12, 3, merge=m, success=p))
    grid = [jnp.asarray(v) for v in ([0.1, 0.2], [0.5, 0.7], [0.0, 0.5], [1.0, 0.5])]
    sweep = jd.sweep(jd.run, over=("algorithm",))
    given = (problem(), jd.networks.Server(N), jnp.asarray(x_start()), KEY)
    swept = sweep(methods(*grid), *given, steps=STEPS)
    for i, (a, s, m, p) in enumerate(zip(*grid, strict=True)):
        alone = jd.run(jd.StreamingDiLoCo(a, s, 12, 3, merge=m, success=p), *given, steps=STEPS)
        np.testing.assert_allclose(swept.state.server[i], alone.state.server, **EXACT)


QUORUMS = [(1, 0), (3, 0), (3, 2), (4, 5)]


@pytest.mark.parametrize(("quorum", "grace"), QUORUMS)
@pytest.mark.parametrize("fragments", [1, 3])
def test_decoupled_diloco_is_its_loop(fragments, quorum, grace):
    """With optimizers that remember, learners who come and go, and stepsizes of agents."""
    there, stepsize = presence(), np.linspace(0.05, 0.2, N)
    expected = outer_loops.decoupled_diloco(
        gradient, there, x_start().mean(0), lambda k: stepsize, STEPS, 6, fragments,
        quorum, grace, 0.6, LEAVES, outer_loops.Adam, lambda: outer_loops.Nesterov(0.8),
    )  # fmt: skip
    method = jd.DecoupledDiLoCo(
        jnp.asarray(stepsize)[:, None], 0.6, 6, fragments, quorum, grace,
        optax.trace(0.8, nesterov=True), optax.scale_by_adam(),
    )  # fmt: skip
    phi, x, _ = trajectory(method, there)
    np.testing.assert_allclose(phi, expected[0], **EXACT)
    np.testing.assert_allclose(x, expected[1], **EXACT)


@pytest.mark.parametrize("fragments", [1, 3])
def test_decoupled_with_everybody_there_is_streaming(fragments):
    decoupled = jd.DecoupledDiLoCo(0.1, 0.6, 6, fragments, quorum=N)
    streaming = jd.StreamingDiLoCo(0.1, 0.6, 6, fragments, delay=0, merge=0.0)
    phi, x, result = trajectory(decoupled)
    expected, rows, whole = trajectory(streaming)
    np.testing.assert_allclose(phi, expected, **EXACT)
    np.testing.assert_allclose(x, rows, **EXACT)
    for name in ("bits", "bits_up", "bits_down", "peak_bits", "rounds", "vectors", "gradients"):
        np.testing.assert_allclose(result.history[name], whole.history[name], err_msg=name)


def test_learners_weigh_as_much_as_they_have_worked():
    """Of two with constant slopes 1 and 3, of which one is there in every second tick."""
    slopes = jnp.asarray([[1.0], [3.0]])
    flat = jd.problems.Oracle(lambda x, own, key: own, slopes, jnp.zeros(1))
    there = np.array([[True, True], [True, False], [True, True], [True, True]])
    method = jd.DecoupledDiLoCo(1.0, 1.0, 4, server=None)
    phi, _, result = trajectory(method, there, flat, jnp.zeros((2, 1)), steps=4)
    assert phi[-1, 0] == -(4 * 4 + 2 * 6) / 6  # the second started anew
    assert result.history["bits"][-1] == 32


def test_fragments_are_merged_by_whoever_is_there_and_cost_what_they_are():
    """Both fragments wait for a quorum of all, and are merged in one tick."""
    there = np.ones((12, N), bool)
    there[2:7, 0] = False
    method = jd.DecoupledDiLoCo(0.1, period=4, fragments=2, quorum=N)
    _, _, result = trajectory(method, there, steps=12)
    sizes = np.array([sum(SIZES[p::2]) for p in range(2)])
    bits = np.diff(result.history["bits"])
    expected = np.zeros(12)
    expected[[1, 7, 9, 11]] = 32 * np.array([sizes[0], D, sizes[0], sizes[1]])
    np.testing.assert_allclose(bits, expected)
    np.testing.assert_array_equal(np.diff(result.history["rounds"]), expected > 0)
    assert result.history["peak_bits"][-1] == 32 * D


REFUSED = {
    "a period of unequal turns": ({"period": 10, "fragments": 3}, "multiple of the fragments"),
    "a message too late": ({"period": 12, "fragments": 3, "delay": 4}, "give less"),
    "a negative delay": ({"delay": -1}, "delay is -1"),
    "an optimizer that ascends": ({"server": optax.sgd(0.1)}, "turns gradients around"),
    "a merge beyond 1": ({"merge": 1.5}, r"merge is 1\.5"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused(case):
    options, sentence = REFUSED[case]
    with pytest.raises(ValueError, match=sentence):
        jd.StreamingDiLoCo(0.1, **options)


def test_a_quorum_of_more_than_there_are_is_refused():
    method = jd.DecoupledDiLoCo(0.1, quorum=6)
    with pytest.raises(ValueError, match=r"quorum is 6, and there are 5 learners"):
        method.init(jnp.asarray(x_start()), problem(), jd.networks.Server(N), KEY)
    with pytest.raises(ValueError, match="multiple of the fragments"):
        jd.DecoupledDiLoCo(0.1, period=10, fragments=3)


def test_more_fragments_than_leaves_or_none_at_all_are_refused():
    network = jd.networks.Server(N)
    method = jd.StreamingDiLoCo(0.1, period=12, fragments=6)
    with pytest.raises(ValueError, match="fragments is 6, and the parameters have 5 leaves"):
        method.init(jnp.asarray(x_start()), problem(), network, KEY)

    class Bare:
        n, d = N, D
        grad = staticmethod(lambda x, key: x)

    with pytest.raises(ValueError, match="what the leaves of its parameters are"):
        method.init(jnp.asarray(x_start()), Bare(), network, KEY)
    jd.StreamingDiLoCo(0.1).init(jnp.asarray(x_start()), Bare(), network, KEY)


@pytest.mark.parametrize("compressor", [jd.compressors.Dither(bits=3), jd.compressors.TopK(3)])
def test_sparse_loco_is_its_loop(compressor):
    there, stepsize = presence()[:20], np.linspace(0.05, 0.2, N)
    expected = outer_loops.sparse_loco(
        gradient, there, x_start().mean(0), lambda k: stepsize, 20,
        compressing(compressor, lambda k: D), 3, 0.7, 0.8, outer_loops.Adam,
    )  # fmt: skip
    method = jd.SparseLoCo(
        jnp.asarray(stepsize)[:, None], compressor, 0.7, 0.8, 3, optax.scale_by_adam()
    )
    phi, _, result = trajectory(method, there, steps=20)
    np.testing.assert_allclose(phi, expected, **EXACT)
    share = there.mean()
    np.testing.assert_allclose(result.history["bits_up"][-1], 20 * share * compressor.bits(D))
    np.testing.assert_allclose(result.history["bits_down"][-1], 20 * share * 32 * D)


def test_sparse_loco_of_whole_messages_is_fed_avg():
    there = presence()[:20]
    sparse = jd.SparseLoCo(0.1, jd.compressors.Identity(), 0.7, decay=0.0, local_steps=3)
    phi, _, _ = trajectory(sparse, there, steps=20)
    expected, _, _ = trajectory(jd.FedAvg(0.1, 0.7, 3), there, steps=20)
    np.testing.assert_allclose(phi, expected, rtol=1e-12, atol=1e-13)


def test_what_sparse_loco_has_not_sent_is_what_is_missing():
    """Without decay φ − η_o mean e moves as with whole messages, of constant gradients."""
    slopes = jnp.asarray(np.random.default_rng(4).standard_normal((N, D)))
    flat = jd.problems.Oracle(lambda x, own, key: own, slopes, jnp.zeros(D))
    method = jd.SparseLoCo(0.1, jd.compressors.Blocks(jd.compressors.TopK(1), 6), 0.5, 1.0, 3)
    phi, _, result = trajectory(method, problem=flat, x0=jnp.zeros((N, D)), steps=20)
    whole = phi[-1] - 0.5 * np.asarray(result.state.e).mean(0)
    np.testing.assert_allclose(whole, -0.5 * 20 * 0.3 * np.asarray(slopes).mean(0), **EXACT)


def test_workers_with_models_of_their_own_disagree():
    """Where a server's clients have copies of its one estimate, they cannot."""
    network = jd.networks.Server(N)
    for method, apart in (
        (jd.StreamingDiLoCo(0.1, period=4), True),
        (jd.DecoupledDiLoCo(0.1, period=4), True),
        (jd.DiLoCo(0.1, local_steps=3), False),
    ):
        for each in (method, jd.Averaged(method)):
            run = jd.run(each, problem(), network, jnp.asarray(x_start()), KEY, steps=3)
            assert (run.history["consensus_error"][-1] > 1e-6) == apart
