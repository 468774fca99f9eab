"""The loops of the low-communication methods against published series, laws and each other."""

import itertools
import json
import pathlib
from typing import Any

import numpy as np
import optax
import pytest
from reference import asynchronous, federated, methods, outer_loops

TORCHFT = json.loads(
    (pathlib.Path(__file__).parents[1] / "experiments" / "torchft.json").read_text()
)
N, D, H = 5, 6, 4
LEAVES = [(0, 2), (2, 1), (3, 3)]
EXACT = {"rtol": 0, "atol": 1e-13}


def momentum():
    return outer_loops.Nesterov(0.8)


def quadratics(seed=0, noise=0.5):
    """Gradients of unlike quadratics with noise by client, round and inner step, and the start."""
    random = np.random.default_rng(seed)
    curvature = random.uniform(0.5, 1.5, (N, D))
    center = random.standard_normal((N, D))
    errors = noise * random.standard_normal((N, 400, D))

    def gradient(i, x, k, l):  # noqa: E741
        return curvature[i] * (x - center[i]) + errors[i, (k * H + l) % 400]

    return gradient, random.standard_normal(D)


def presence(rounds, seed=1):
    """Who takes part: about two thirds; nobody in round 3."""
    active = np.random.default_rng(seed).random((rounds, N)) < 0.65
    active[3] = False
    return active


def torchft(run, steps, active=None, **numbers):
    s = TORCHFT["settings"]
    active = np.ones((steps, s["replicas"]), bool) if active is None else active
    return outer_loops.streaming_diloco(
        lambda i, x, k, l: np.full(2, s["gradient"]),  # noqa: E741
        active,
        np.full(2, s["start"]),
        lambda k: s["stepsize"],
        steps,
        period=s["period"],
        fragments=s["fragments"],
        leaves=[(0, 1), (1, 1)],
        server_stepsize=s["server_stepsize"],
        delay=run["delay"],
        merge=run["merge"],
        **numbers,
    )


@pytest.mark.parametrize("run", TORCHFT["runs"], ids=lambda r: f"{r['delay']}, {r['merge']}")
def test_torchfts_series(run):
    series = np.array(run["weights"])
    phi, theta = torchft(run, series.shape[1] - 1)
    for i in range(TORCHFT["settings"]["replicas"]):
        np.testing.assert_array_equal(theta[:, i], series.T)
    for step, slow in run["global"].items():
        np.testing.assert_array_equal(phi[int(step)], slow)


def test_torchfts_recovery():
    run = TORCHFT["recovery"]
    survivor, joined = (np.array(run[who]["weights"]).T for who in ("survivor", "replacement"))
    steps, join = len(survivor) - 1, run["join"]
    active = np.ones((steps, 2), bool)
    active[run["crash"] : join - 1, 1] = False
    phi, theta = torchft(run, steps, active, copied={join: [(1, 0)]})
    np.testing.assert_array_equal(theta[:, 0], survivor)
    own = join - run["crash"]  # steps of its own that the replacement throws away
    np.testing.assert_array_equal(theta[join:, 1], joined[own:])
    for step, slow in run["survivor"]["global"].items():
        np.testing.assert_array_equal(phi[int(step)], slow)
    for step, slow in run["replacement"]["global"].items():
        if int(step) >= own:
            np.testing.assert_array_equal(phi[int(step) + join - own], slow)


@pytest.mark.parametrize("merge", [0, 1])
def test_a_failed_commit_is_tried_again(merge):
    """By hand: fragment 0 falls back after step 3, is exchanged after 6, and fragment 1 after 9."""
    phi, theta = torchft({"delay": 0, "merge": merge}, 12, failed={0})
    if merge == 0:
        first = [1, -1, -3, 1, -1, -3, -11, -13, -15, -17, -19, -21, -35]
        second = [1, -1, -3, -5, -7, -9, -11, -13, -15, -35, -37, -39, -41]
    else:
        first = [1, -1, -3, 1, -1, -3, -5, -7, -9, -11, -13, -15, -17]
        second = list(range(1, -24, -2))
    np.testing.assert_array_equal(theta[:, 0], np.transpose([first, second]))
    slow = [1] * 6 + [-11] * 6 + [-35 if merge == 0 else -23]
    np.testing.assert_array_equal(phi, np.transpose([slow, [1] * 9 + [-35] * 4]))


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        (lambda: outer_loops.HeavyBall(0.7), optax.trace(0.7)),
        (lambda: outer_loops.Nesterov(0.7), optax.trace(0.7, nesterov=True)),
        (outer_loops.Adam, optax.scale_by_adam()),
        (
            lambda: outer_loops.Adam(0.8, 0.9, weight_decay=0.1),
            optax.chain(optax.scale_by_adam(0.8, 0.9), optax.add_decayed_weights(0.1)),
        ),
        (lambda: outer_loops.DelayedNesterov(0.7, 1), optax.trace(0.7, nesterov=True)),
    ],
)
def test_optimizers_are_optaxs(mine, theirs):
    random = np.random.default_rng(0)
    x, optimizer = random.standard_normal(D), mine()
    state = theirs.init(x)
    for _ in range(5):
        g = random.standard_normal(D)
        u, state = theirs.update(g, state, x)
        np.testing.assert_allclose(optimizer.update(g, x), u, rtol=1e-12)
        x = x - 0.1 * np.asarray(u)


def test_delayed_nesterov_moves_as_far_as_nesterov_with_the_mean_of_its_gradients():
    random = np.random.default_rng(0)
    delayed, plain = outer_loops.DelayedNesterov(0.7, 3), outer_loops.Nesterov(0.7)
    for _ in range(4):
        g = random.standard_normal((3, D))
        moves = [delayed.update(row, row) for row in g]
        np.testing.assert_allclose(moves[0], g[0] / 3, **EXACT)
        np.testing.assert_allclose(sum(moves), plain.update(g.mean(0), g[0]), **EXACT)


@pytest.mark.parametrize("p", [None, np.arange(1.0, N + 1) / 15], ids=["even", "uneven"])
def test_diloco_without_optimizers_is_fed_avg(p):
    gradient, x0 = quadratics()
    given = (gradient, presence(8), x0, lambda k: 0.1 / (1 + k), 8)
    numbers = {"local_steps": H, "server_stepsize": 0.7, "p": p}
    expected = federated.fed_avg(*given, **numbers)
    np.testing.assert_allclose(outer_loops.diloco(*given, **numbers), expected, **EXACT)
    np.testing.assert_allclose(  # without decay and compression, the error is always nothing
        outer_loops.sparse_loco(*given, lambda k, channel, i, v: v, decay=0.0, **numbers),
        expected,
        **EXACT,
    )


def test_one_step_and_a_plain_server_is_gradient_descent():
    gradient, x0 = quadratics()
    stepsize, everybody = lambda k: 0.1 / (1 + k), np.ones((20, N), bool)
    x = outer_loops.diloco(gradient, everybody, x0, stepsize, 20)
    centralized = methods.gradient_descent(
        lambda i, x, k: gradient(i, x, k, 0), None, np.tile(x0, (N, 1)), stepsize, 20
    )
    np.testing.assert_allclose(x, centralized[:, 0], **EXACT)


def test_memory_is_kept_begun_anew_or_averaged():
    gradient, x0 = quadratics()
    adam = outer_loops.Adam
    seen = {}
    for memory in ("keep", "reset", "average"):
        seen[memory] = outer_loops.diloco(
            gradient, presence(6), x0, lambda k: 0.1, 6, H, local=adam, memory=memory
        )
        assert np.abs(seen[memory][-1] - x0).max() > 0.1
    assert np.abs(seen["keep"] - seen["reset"]).max() > 1e-3
    assert np.abs(seen["keep"] - seen["average"]).max() > 1e-3
    kept, averaged = [
        outer_loops.diloco(
            gradient, np.eye(N, dtype=bool)[[0] * 6], x0, lambda k: 0.1, 6, H, local=adam, memory=m
        )
        for m in ("keep", "average")
    ]
    np.testing.assert_allclose(averaged, kept, **EXACT)


@pytest.mark.parametrize("memory", [outer_loops.SGD, momentum], ids=["sgd", "nesterov"])
def test_one_fragment_at_once_is_diloco(memory):
    gradient, x0 = quadratics()
    rounds = presence(7)
    rest = {"server_stepsize": 0.6, "local": outer_loops.Adam, "server": memory}
    rest["p"] = np.arange(1.0, N + 1) / 15
    x = outer_loops.diloco(gradient, rounds, x0, lambda k: 0.1, 7, H, **rest)
    phi, theta = outer_loops.streaming_diloco(
        lambda i, x, k, l: gradient(i, x, k // H, k % H),  # noqa: E741
        np.repeat(rounds, H, axis=0), x0, lambda k: 0.1, 7 * H, period=H, leaves=LEAVES, **rest
    )  # fmt: skip
    np.testing.assert_allclose(phi[::H], x, **EXACT)
    for k in range(1, 8):
        np.testing.assert_array_equal(theta[k * H][rounds[k - 1]], phi[[k * H] * N][rounds[k - 1]])


def test_streaming_by_fragments():
    """Each coordinate moves in its fragment's turn alone, and nothing comes back with merge 1."""
    gradient, x0 = quadratics()
    rest = {"period": 12, "fragments": 3, "leaves": LEAVES, "server_stepsize": 0.5}
    given = (gradient, np.ones((40, N), bool), x0, lambda k: 0.05, 40)
    phi, theta = outer_loops.streaming_diloco(*given, delay=2, merge=0.5, server=momentum, **rest)
    moved = np.abs(np.diff(phi, axis=0)) > 0
    for s in range(1, 41):
        for number, (offset, size) in enumerate(LEAVES):
            due = s % 12 == (4 * (number + 1)) % 12
            np.testing.assert_array_equal(moved[s - 1, offset : offset + size], due)
    phi, theta = outer_loops.streaming_diloco(*given, delay=2, merge=1.0, **rest)
    alone = np.tile(x0, (N, 1))
    for k in range(40):
        np.testing.assert_allclose(theta[k], alone, **EXACT)
        alone = alone - 0.05 * np.array([gradient(i, alone[i], k, 0) for i in range(N)])
    for s, number in ((4, 0), (8, 1), (12, 2), (16, 0)):  # what was sent two steps before
        part = slice(LEAVES[number][0], sum(LEAVES[number]))
        sent = phi[s - 1, part] - theta[s - 2].mean(0)[part]
        np.testing.assert_allclose(phi[s, part], phi[s - 1, part] - 0.5 * sent, **EXACT)


def test_what_streaming_sends_is_compressed_by_client_and_fragment():
    gradient, x0 = quadratics()
    sent = {}

    def largest(k, channel, i, v):
        sent[k, i] = np.where(np.abs(v) == np.abs(v).max(), v, 0.0)
        return sent[k, i]

    phi, theta = outer_loops.streaming_diloco(
        gradient, np.ones((8, N), bool), x0, lambda k: 0.1, 8, period=8, fragments=2, delay=1,
        leaves=LEAVES, compress=largest, p=np.arange(1.0, N + 1) / 15,
    )  # fmt: skip
    parts = {2: [0, 1, 3, 4, 5], 6: [2]}  # leaves 0 and 2, leaf 1; after steps 3 and 7
    assert sent.keys() == {(k, i) for k in parts for i in range(N)}
    for k, part in parts.items():
        mean = np.arange(1.0, N + 1) / 15 @ [sent[k, i] for i in range(N)]
        np.testing.assert_allclose(phi[8, part], x0[part] - mean, **EXACT)
        for i in range(N):
            move = x0[part] - theta[k + 1, i, part]
            assert np.abs(sent[k, i]).max() == np.abs(move).max()
            assert np.count_nonzero(sent[k, i]) == 1


def test_a_client_that_returns_starts_from_the_slow_copy():
    gradient, x0 = quadratics()
    active = np.ones((9, N), bool)
    active[2:6, 1] = False
    asked = {}

    def watched(i, x, k, l):  # noqa: E741
        asked[k, i] = x
        return gradient(i, x, k, l)

    phi, theta = outer_loops.streaming_diloco(watched, active, x0, lambda k: 0.1, 9, period=4)
    assert not asked.keys() & {(k, 1) for k in range(2, 6)}
    np.testing.assert_array_equal(theta[2:7, 1], theta[[2] * 5, 1])
    np.testing.assert_array_equal(asked[6, 1], phi[6])


# --- laws -----------------------------------------------------------------------------------------


def test_co2_is_stable_below_its_edge():
    """One mode with gain r: stable iff b + s r / L < 1, whatever clipping does beyond it."""
    eta, curvature, b, s = 0.3, 1.0, 0.5, 1.0
    r = 1 - (1 - eta * curvature) ** H
    everybody = np.ones((400, 1), bool)
    for factor, clip in ((1.1, None), (0.9, None), (0.9, 0.1)):
        x = outer_loops.co2(
            lambda i, x, k, l: curvature * x, everybody, [1.0], lambda k: eta, 400,  # noqa: E741
            local_steps=H, server_stepsize=s, momentum=b, gap=factor * s * r / (1 - b), clip=clip,
        )[:, 0]  # fmt: skip
        roots = np.roots([1, -(1 + b), b + (1 - b) / factor])
        assert (np.abs(roots).max() < 1) == (factor > 1)
        if factor > 1:
            assert np.abs(x[-1]) < 1e-3
        elif clip is None:
            assert np.abs(x[-1]) > 1e3
        else:
            assert 0.1 < np.abs(x[-50:]).max() < 10
    np.testing.assert_array_equal(x[:2], 1.0)


def test_co2_without_momentum_is_delayed_local_sgd():
    gradient, x0 = quadratics()
    rest = {"local_steps": H, "server_stepsize": 0.7, "p": np.arange(1.0, N + 1) / 15}
    active = presence(9)
    given = (gradient, active, x0, lambda k: 0.1, 9)
    x = outer_loops.co2(*given, momentum=0.0, gap=1.0, **rest)
    rounds = np.flatnonzero(active.any(axis=1))
    for before, k in itertools.pairwise(rounds):
        alone = np.zeros((9, N), bool)
        alone[before] = active[before]
        undelayed = outer_loops.diloco(gradient, alone, x[before], lambda k: 0.1, 9, **rest)
        np.testing.assert_allclose(x[k + 1] - x[k], undelayed[-1] - x[before], **EXACT)
    halved = outer_loops.co2(*given, momentum=0.5, **rest)  # 2 s / (1 - b) = 2.8
    by_hand = outer_loops.co2(*given, momentum=0.5, gap=lambda moved, delta: 2.8, **rest)
    np.testing.assert_allclose(halved, by_hand, **EXACT)
    moves = []

    def gap(moved, delta):
        moves.append(moved)
        return 1.0 + np.linalg.norm(delta)

    x = outer_loops.co2(*given, gap=gap, **rest)
    np.testing.assert_allclose(moves[0], x[1] - x[0], **EXACT)
    assert len(moves) == 7  # nothing is pending in the first round, and in one nothing arrives


def pairs(rounds, n, seed=0):
    random, networks = np.random.default_rng(seed), []
    for _ in range(rounds):
        order, w = random.permutation(n), np.zeros((n, n))
        for i, j in order.reshape(-1, 2):
            w[i, i] = w[i, j] = w[j, i] = w[j, j] = 0.5
        networks.append(w)
    return networks


def test_nolocos_mean_does_not_see_gamma():
    n, rounds = 6, 12
    random = np.random.default_rng(3)
    slope = random.standard_normal((n, rounds, D))  # gradients that do not depend on x
    x0 = random.standard_normal((n, D))
    means = []
    for gamma in (0.0, 0.7, None, 1.2):
        phi = outer_loops.noloco(
            lambda i, x, k, l: slope[i, k], pairs(rounds, n), x0, lambda k: 0.1, rounds,  # noqa: E741
            local_steps=2, server_stepsize=0.6, momentum=0.4, gamma=gamma,
        )  # fmt: skip
        means.append(phi.mean(1))
    mean, moving = x0.mean(0), np.zeros(D)
    for k in range(rounds):
        moving = 0.4 * moving - 0.6 * 0.2 * slope[:, k].mean(0)
        mean = mean + moving
        for found in means:
            np.testing.assert_allclose(found[k + 1], mean, **EXACT)


def test_noloco_contracts_below_its_edge():
    """Without gradients, in random pairs of many: iff gamma < 2 (1 - a^2)."""
    n, rounds, a = 32, 60, 0.5
    x0 = np.random.default_rng(0).standard_normal((n, D))
    spread = []
    for gamma in (1.3, 1.7):
        phi = outer_loops.noloco(
            lambda i, x, k, l: 0 * x, pairs(rounds, n), x0, lambda k: 0.1, rounds,  # noqa: E741
            momentum=a, gamma=gamma,
        )  # fmt: skip
        spread.append(np.square(phi[-1] - phi[-1].mean(0)).sum())
    start = np.square(x0 - x0.mean(0)).sum()
    assert spread[0] < 0.1 * start
    assert spread[1] > 10 * start


def test_noloco_in_one_group_is_local_sgd():
    gradient, x0 = quadratics()
    everybody, group = np.ones((6, N), bool), [np.full((N, N), 1 / N)] * 6
    given = (lambda k: 0.1, 6, H)
    phi = outer_loops.noloco(
        gradient, group, np.tile(x0, (N, 1)), *given, server_stepsize=0.8, momentum=0.0, gamma=1.0
    )
    x = outer_loops.diloco(gradient, everybody, x0, *given, server_stepsize=0.8)
    np.testing.assert_allclose(phi, np.repeat(x[:, None], N, 1), **EXACT)


def test_what_sparse_loco_does_not_send_it_remembers():
    """Gradients that do not depend on x, no decay, full presence: nothing is ever lost."""
    slope = np.random.default_rng(0).standard_normal((N, D))
    errors = np.zeros((N, D))

    def largest(k, channel, i, v):
        kept = np.where(np.abs(v) >= np.sort(np.abs(v))[-2], v, 0.0)
        errors[i] = v - kept
        return kept

    x = outer_loops.sparse_loco(
        lambda i, x, k, l: slope[i], np.ones((9, N), bool), np.zeros(D), lambda k: 0.1, 9, largest,  # noqa: E741
        local_steps=3, server_stepsize=0.5, decay=1.0,
    )  # fmt: skip
    total = -0.5 * (9 * 0.3 * slope.mean(0) - errors.mean(0))
    np.testing.assert_allclose(x[-1], total, **EXACT)


# --- Decoupled DiLoCo -----------------------------------------------------------------------------


@pytest.mark.parametrize("fragments", [1, 3])
def test_with_everybody_there_decoupled_is_streaming(fragments):
    gradient, x0 = quadratics()
    everybody = np.ones((40, N), bool)
    given = (gradient, everybody, x0, lambda k: 0.05, 40, 12, fragments)
    rest: dict[str, Any] = {"leaves": LEAVES, "server": momentum, "local": outer_loops.Adam}
    streaming = outer_loops.streaming_diloco(*given, server_stepsize=0.6, **rest)
    decoupled = outer_loops.decoupled_diloco(*given, quorum=N, server_stepsize=0.6, **rest)
    for found, expected in zip(decoupled, streaming, strict=True):
        np.testing.assert_allclose(found, expected, **EXACT)


def test_learners_weigh_as_much_as_they_worked():
    """By hand: learner 1 misses tick 2 and starts anew, so that the weights are 4 and 2."""
    slope, active = np.array([[1.0], [3.0]]), np.ones((5, 2), bool)
    active[1, 1] = False
    phi, theta = outer_loops.decoupled_diloco(
        lambda i, x, k, l: slope[i], active, [0.0], lambda k: 1.0, 5, period=4,  # noqa: E741
    )  # fmt: skip
    np.testing.assert_array_equal(theta[:4, :, 0], [[0, 0], [-1, -3], [-2, -3], [-3, -3]])
    np.testing.assert_allclose(phi[:, 0], [0, 0, 0, 0, -28 / 6, -28 / 6], **EXACT)
    np.testing.assert_allclose(theta[4, :, 0], -28 / 6, **EXACT)
    np.testing.assert_allclose(theta[5, :, 0], [-28 / 6 - 1, -28 / 6 - 3], **EXACT)


@pytest.mark.parametrize(
    ("quorum", "grace", "merged"),
    [
        (1, 0, [4, 8, 12]),
        (1, 1, [5, 9, 13]),
        (2, 0, [6, 8, 13]),  # the quorum comes late, but 8 and 12 keep their turn
        (2, 1, [7, 9, 14]),
        (2, 6, [13]),  # due again at 8 and 12 while it waits: merged once
        (2, 5, [13]),  # at 11 and 12 the quorum is not there
        (3, 0, []),
    ],
)
def test_quorum_and_grace(quorum, grace, merged):
    """Learner 1 of 2 is away in ticks 3 to 5 and 11 to 12."""
    active = np.ones((14, 2), bool)
    active[2:5, 1] = active[10:12, 1] = False
    phi, _ = outer_loops.decoupled_diloco(
        lambda i, x, k, l: np.ones(1), active, [0.0], lambda k: 1.0, 14,  # noqa: E741
        period=4, quorum=quorum, grace=grace,
    )  # fmt: skip
    np.testing.assert_array_equal(np.flatnonzero(np.diff(phi[:, 0])) + 1, merged)


# --- EDiT -----------------------------------------------------------------------------------------


def test_edit_without_penalties_is_diloco():
    """Gradients that do not depend on x, of one norm in each leaf: softmax weighs them alike."""
    slope = np.random.default_rng(0).standard_normal((N, D))
    for offset, size in LEAVES:
        slope[:, offset : offset + size] /= np.linalg.norm(
            slope[:, offset : offset + size], axis=1, keepdims=True
        )
    given = (lambda i, x, k, l: slope[i], presence(8), np.zeros(D), lambda k: 0.1, 8, H)  # noqa: E741
    x = outer_loops.diloco(*given, server_stepsize=0.8, server=momentum)
    penalized = outer_loops.edit(
        *given, server_stepsize=0.8, server=momentum,
        clip=np.inf, threshold=np.inf, warmup=0, leaves=LEAVES,
    )  # fmt: skip
    np.testing.assert_allclose(penalized, x, **EXACT)


def test_edit_weighs_and_clips_leaves():
    """By hand, one step of three clients, whose norms in the first leaf are 5, 1 and 0."""
    slope = np.array([[3.0, 4.0, 0.0], [-1.0, 0.0, 2.0], [0.0, 0.0, -2.0]])
    x = outer_loops.edit(
        lambda i, x, k, l: slope[i], np.ones((1, 3), bool), np.zeros(3), lambda k: 1.0, 1,  # noqa: E741
        clip=0.25, leaves=[(0, 2), (2, 1)],
    )[1]  # fmt: skip
    w = np.exp([-5.0, -1.0, 0.0]) / np.exp([-5.0, -1.0, 0.0]).sum()
    first = w @ slope[:, :2]
    assert np.linalg.norm(first) > 0.25
    np.testing.assert_allclose(x[:2], -first * 0.25 / (np.linalg.norm(first) + 1e-8), **EXACT)
    w = np.exp([0.0, -2.0, -2.0]) / np.exp([0.0, -2.0, -2.0]).sum()
    second = w @ slope[:, 2]  # 0 within the clip
    np.testing.assert_allclose(x[2], -second, **EXACT)


def test_running_norms():
    random = np.random.default_rng(0)
    record, mean, variance = outer_loops.Norms(), 0.0, 0.0
    for count, norm in enumerate(random.uniform(1, 2, 40)):
        assert not record.outlier(norm, threshold=8.0, decay=0.1, warmup=20)
        apart = norm - mean
        mean = norm if count == 0 else 0.9 * mean + 0.1 * norm
        variance = 0.0 if count == 0 else 0.9 * (variance + 0.1 * 0.9 * apart**2)
        np.testing.assert_allclose(np.array(record.mean), mean, rtol=1e-12)
        np.testing.assert_allclose(record.variance, variance, rtol=1e-12)
    before, edge = record.mean, mean + 8.0 * np.sqrt(variance)
    assert record.outlier(edge * (1 + 1e-9), 8.0, 0.1, 20)
    assert record.mean == before
    assert not record.outlier(edge * (1 - 1e-9), 8.0, 0.1, 20)


def test_a_spike_is_as_if_its_client_had_been_away():
    """Small enough that softmax alone would not hide it."""
    gradient, x0 = quadratics()

    def spiked(i, x, k, l):  # noqa: E741
        return gradient(i, x, k, l) + (5.0 if (i, k) in {(1, 14), (3, 17)} else 0.0)

    rest: dict[str, Any] = {"threshold": 5.0, "warmup": 10, "decay": 0.1, "leaves": LEAVES}
    active = np.ones((20, N), bool)
    x = outer_loops.edit(spiked, active, x0, lambda k: 0.1, 20, H, **rest)
    unseen: dict[str, Any] = rest | {"threshold": 1e9}
    hit = outer_loops.edit(spiked, active, x0, lambda k: 0.1, 20, H, **unseen)
    assert np.abs(hit[15] - x[15]).min() > 0.01
    active[14, 1] = active[17, 3] = False
    away = outer_loops.edit(gradient, active, x0, lambda k: 0.1, 20, H, **rest)
    np.testing.assert_array_equal(away, x)


def test_where_all_are_outliers_the_leaf_stays():
    gradient, x0 = quadratics()

    def spiked(i, x, k, l):  # noqa: E741
        return gradient(i, x, k, l) + (np.r_[500.0, np.zeros(D - 1)] if k == 12 else 0.0)

    x = outer_loops.edit(
        spiked, np.ones((13, N), bool), x0, lambda k: 0.1, 13, H,
        warmup=10, threshold=10.0, leaves=LEAVES, decay=0.1,
    )  # fmt: skip
    np.testing.assert_array_equal(x[13, :2], x[12, :2])
    assert np.all(x[13, 2:] != x[12, 2:])


# --- returns --------------------------------------------------------------------------------------


def timing(visits=40, seed=0):
    random = np.random.default_rng(seed)
    return random.uniform(0.5, 1.5, (N, visits)) * np.linspace(0.4, 2.0, N)[:, None]


def models(record):
    return np.array([aggregation.x for aggregation in record])


@pytest.mark.parametrize("local", [outer_loops.SGD, outer_loops.Adam])
def test_when_all_are_waited_for_returns_are_rounds(local):
    gradient, x0 = quadratics()
    p, stepsize, everybody = np.arange(1.0, N + 1) / 15, lambda k: 0.1 / (1 + k), np.ones((7, N))
    rest: dict[str, Any] = {"local": local, "server": momentum}
    late = (gradient, x0, stepsize, 0.7, timing(), ("all",), 7, H)
    now = (gradient, everybody, x0, stepsize, 7, H, 0.7)
    np.testing.assert_allclose(
        models(outer_loops.async_diloco(*late, p=p, **rest)),
        outer_loops.diloco(*now, p=p, **rest)[1:],
        **EXACT,
    )
    rest = rest | {"leaves": LEAVES, "clip": 0.2, "threshold": 1.0, "warmup": 3, "decay": 0.3}
    np.testing.assert_allclose(
        models(outer_loops.aedit(*late, **rest)), outer_loops.edit(*now, **rest)[1:], **EXACT
    )


@pytest.mark.parametrize(
    ("rule", "weight"), [(("each",), 1.0), (("buffer", 2), 0.5), (("buffer", 2, "at once"), 0.5)]
)
def test_async_diloco_without_optimizers_is_asynchronous_fed_avg(rule, weight):
    gradient, x0 = quadratics()
    counts = np.arange(1, N + 1)
    given = (gradient, x0, 0.1, 0.3)
    sgd = outer_loops.SGD
    x = outer_loops.async_diloco(*given, timing(), rule, 20, counts, server=sgd)
    expected = asynchronous.asynchronous_fed_avg(
        *given, np.full(N, weight), timing(), rule, 20, counts
    )
    np.testing.assert_allclose(models(x), models(expected), **EXACT)


def test_a_tick_without_returns_changes_nothing():
    gradient, x0 = quadratics()
    given = (gradient, x0, 0.1, 0.3, timing(200), ("every", 0.15), 30, H)
    for record in (
        outer_loops.async_diloco(*given, server=lambda: outer_loops.DelayedNesterov(0.9, N)),
        outer_loops.aedit(*given, server=momentum, leaves=LEAVES),
    ):
        x, idle = models(record), [not aggregation.who for aggregation in record[1:]]
        np.testing.assert_array_equal(np.all(x[1:] == x[:-1], axis=1), idle)
        assert any(idle)
        assert max(len(aggregation.who) for aggregation in record) > 1


def test_dynamic_steps():
    assert outer_loops.dynamic_steps([1 / 0.58, 1 / 0.75, 1 / 1.51, 1 / 3.33], 20) == [20, 15, 7, 3]
    assert outer_loops.dynamic_steps([1.0, 100.0], 20) == [1, 20]
