"""Loops of error feedback, games, sketches, black boxes against identities, laws, figures."""

import functools
import itertools

import numpy as np
import pytest
from reference import black_boxes, error_feedback, federated, games, sketches

N, D = 4, 10
EXACT = {"rtol": 0, "atol": 1e-13}
FEEDBACK = {
    "ef14": error_feedback.ef14,
    "ef21": error_feedback.ef21,
    "ef21_sgdm": error_feedback.ef21_sgdm,
    "econtrol": functools.partial(error_feedback.econtrol, eta=0.1),
    "dgc": functools.partial(error_feedback.dgc, momentum=0.5, masking=False),
}
SERVER_MEMORY = {name: FEEDBACK[name] for name in ("ef21", "ef21_sgdm", "econtrol")}


def top(size):
    """The largest coordinates, the first of equal ones."""

    def keep(v):
        kept = np.zeros_like(v)
        largest = np.argsort(-np.abs(v), kind="stable")[:size]
        kept[largest] = v[largest]
        return kept

    return keep


def uplink(compressor):
    return lambda k, channel, i, v: compressor(v)


def downlink(compressor):
    return lambda x, k: compressor(x)


def whole(v):
    return v


def least_squares(n=N, d=D, noise=0.0, seed=0):
    """f_i = |a_i x - b_i|^2 / 2, a_i^2 = i^2 / n, b_i of length falling as 1 / i; L = n."""
    random = np.random.default_rng(seed)
    a = np.arange(1, n + 1) / np.sqrt(n)
    b = random.normal(size=(n, d)) * 20 / np.arange(1, n + 1)[:, None]
    errors = noise * random.normal(size=(n, 97, d))

    def gradient(i, x, k, l):  # noqa: E741
        assert l == 0
        return a[i] * (a[i] * x - b[i]) + errors[i, k % 97]

    return gradient, a @ b / np.sum(a**2)


def presence(steps, seed=1):
    """Who takes part: about half; nobody in round 3."""
    active = np.random.default_rng(seed).random((steps, N)) < 0.5
    active[3] = False
    return active


def everybody(steps, n=N):
    return np.ones((steps, n), bool)


def relative(x, solution):
    return np.sum((x - solution) ** 2, axis=-1) / np.sum(solution**2)


def methods(which):
    return pytest.mark.parametrize("method", which.values(), ids=which.keys())


# Error feedback


@methods({"compressed_sgd": error_feedback.compressed_sgd, **FEEDBACK})
def test_without_compression_a_server_is_sgd_or_sgd_with_momentum(method):
    gradient, _ = least_squares(noise=1.0)
    x = method(gradient, everybody(30), np.ones(D), lambda k: 0.1, 30, compress=uplink(whole))
    y, m = np.ones(D), np.zeros(D)
    for k in range(30):
        g = sum(gradient(i, y, k, 0) for i in range(N)) / N
        if method is FEEDBACK["dgc"]:
            m = 0.5 * m + g
        elif method is error_feedback.ef21_sgdm:
            m = 0.9 * m + 0.1 * g
        else:
            m = g
        y = y - 0.1 * m
        np.testing.assert_allclose(x[k + 1], y, rtol=0, atol=1e-12)


def test_ef14s_virtual_iterate_is_sgd():
    gradient, _ = least_squares(noise=1.0)
    stepsizes = np.linspace(0.05, 0.1, N)
    x, memory = error_feedback.ef14(
        gradient, everybody(50), np.ones(D), lambda k: stepsizes, 50,
        compress=uplink(top(2)), downlink=downlink(top(3)), history=True,
    )  # fmt: skip
    virtual = x - memory["e"].mean(axis=1)
    for k in range(50):
        moves = [stepsizes[i] * gradient(i, memory["public"][k], k, 0) for i in range(N)]
        np.testing.assert_allclose(virtual[k + 1], virtual[k] - np.mean(moves, axis=0), atol=1e-12)


def test_econtrols_errors_are_what_gradients_are_ahead_of_their_estimates():
    gradient, _ = least_squares(noise=1.0)
    active = presence(50)
    _, memory = error_feedback.econtrol(
        gradient, active, np.ones(D), lambda k: 0.02, 50,
        compress=uplink(top(2)), eta=0.1, history=True,
    )  # fmt: skip
    for i in range(N):
        ahead = np.zeros(D)
        for k in range(50):
            if active[k, i]:
                ahead = ahead + gradient(i, memory["public"][k], k, 0) - memory["h"][k + 1, i]
            np.testing.assert_allclose(memory["e"][k + 1, i], ahead, atol=1e-11)


@methods(SERVER_MEMORY)
def test_the_servers_mean_is_that_of_the_clients(method):
    gradient, _ = least_squares(noise=1.0)
    p = np.array([0.1, 0.2, 0.3, 0.4])
    _, memory = method(
        gradient, presence(40), np.ones(D), lambda k: 0.02, 40,
        compress=uplink(top(2)), p=p, history=True,
    )  # fmt: skip
    np.testing.assert_allclose(memory["mean"], np.einsum("i,kij->kj", p, memory["h"]), atol=1e-12)


@methods(FEEDBACK)
def test_who_is_absent_keeps_its_memories(method):
    gradient, _ = least_squares(noise=1.0)
    active = presence(30)
    x, memory = method(
        gradient, active, np.ones(D), lambda k: 0.02, 30, compress=uplink(top(2)), history=True
    )
    for name, rows in memory.items():
        if rows.ndim == 3:
            moved = np.abs(np.diff(rows, axis=0)).max(axis=2) > 0
            assert not moved[~active].any(), name
            assert moved[active].any(), name
    if "mean" in memory:  # in round 3, of nobody, x moves along the server's memory or stays
        np.testing.assert_allclose(x[4], x[3] - 0.02 * memory["mean"][3], **EXACT)
    else:
        np.testing.assert_array_equal(x[4], x[3])


def test_some_of_the_clients_are_a_mean_of_their_messages_or_a_share_of_all():
    gradient, _ = least_squares()
    active = np.array([[True, False, True, False]])
    g = [gradient(i, np.ones(D), 0, 0) for i in (0, 2)]
    for method, divisor in [
        (error_feedback.compressed_sgd, 2), (error_feedback.ef14, 2), (FEEDBACK["dgc"], 2),
        (error_feedback.ef21, N), (FEEDBACK["econtrol"], N),
    ]:  # fmt: skip
        x = method(gradient, active, np.ones(D), lambda k: 0.5, 1, compress=uplink(top(3)))
        sent = top(3)(g[0]) + top(3)(g[1])
        np.testing.assert_allclose(x[1], 1 - 0.5 * sent / divisor, **EXACT)


def test_a_downlink_is_the_servers_own_error_feedback():
    """An odd one: w is EF14's model where x is that without compression."""
    gradient, _ = least_squares(noise=1.0)
    arguments = np.ones(D), lambda k: 0.05, 40
    _, memory = error_feedback.compressed_sgd(
        gradient, everybody(40), *arguments,
        compress=uplink(whole), downlink=downlink(top(2)), history=True,
    )  # fmt: skip
    x = error_feedback.ef14(
        lambda i, x, k, l: sum(gradient(j, x, k, l) for j in range(N)) / N,  # noqa: E741
        everybody(40, 1), *arguments, compress=uplink(top(2)),
    )  # fmt: skip
    np.testing.assert_allclose(memory["public"], x, atol=1e-12)


@methods(SERVER_MEMORY)
def test_memory_at_the_server_is_exact_with_some_clients_and_both_links_compressed(method):
    gradient, solution = least_squares()
    active = np.random.default_rng(2).random((2500, N)).argsort(axis=1) < 2
    x = method(
        gradient, active, np.zeros(D), lambda k: 0.04 / N, 2500,
        compress=uplink(top(3)), downlink=downlink(top(3)),
    )  # fmt: skip
    assert relative(x[-1], solution) < 1e-20


def test_plateaus():
    """Naive compression stalls, EF14's error falls as the square of the stepsize."""
    gradient, solution = least_squares()

    def tail(method, stepsize, steps):  # the stepsize in units of 1 / L
        x = method(
            gradient, everybody(steps), np.zeros(D), lambda k: stepsize / N, steps,
            compress=uplink(top(1)),
        )  # fmt: skip
        return relative(x[-steps // 2 :], solution).mean()

    naive = [tail(error_feedback.compressed_sgd, *where) for where in ((0.08, 1000), (0.04, 2000))]
    assert min(naive) > 0.2
    ef14 = [tail(error_feedback.ef14, *where) for where in ((0.08, 1000), (0.04, 2000))]
    assert 3.5 < ef14[0] / ef14[1] < 4.5
    assert ef14[1] < 0.01


def test_econtrols_eta_is_of_the_order_of_delta():
    gradient, solution = least_squares()
    errors = {}
    for eta in (0.05, 0.1, 0.4):
        x = error_feedback.econtrol(
            gradient, everybody(1500), np.zeros(D), lambda k: 0.2 / N, 1500,
            compress=uplink(top(1)), eta=eta,
        )  # fmt: skip
        errors[eta] = relative(x[-1], solution)
    assert errors[0.05] < 1e-20
    assert errors[0.1] < 1e-20
    assert errors[0.4] > 1e3


FIGURES = [  # stepsize in units of 1 / L, rounds, relative squared error of the last half
    (error_feedback.compressed_sgd, {}, 0.5, 2000, 0.380),
    (error_feedback.compressed_sgd, {}, 0.02, 8000, 0.398),
    (error_feedback.ef14, {}, 0.04, 4000, 9.6e-4),
    (error_feedback.ef14, {}, 0.02, 8000, 2.4e-4),
    (error_feedback.ef14, {}, 0.01, 16000, 6.0e-5),
    (error_feedback.ef21, {}, 0.2, 6000, 4e-31),
    (error_feedback.econtrol, {"eta": 0.05}, 0.2, 6000, 7e-31),
]


@pytest.mark.slow
@pytest.mark.parametrize(("method", "numbers", "stepsize", "rounds", "figure"), FIGURES)
def test_figures_of_the_synthetic_least_squares(method, numbers, stepsize, rounds, figure):
    gradient, solution = least_squares(n=5, d=60)
    x = method(
        gradient, everybody(rounds, 5), np.zeros(60), lambda k: stepsize / 5, rounds,
        compress=uplink(top(6)), **numbers,
    )  # fmt: skip
    error = relative(x[-rounds // 2 :], solution).mean()
    assert error < 1e-29 if figure < 1e-29 else abs(error / figure - 1) < 0.02


# Deep gradient compression


@pytest.mark.parametrize("nesterov", [False, True])
def test_dgc_of_full_density_is_momentum_sgd_unless_momentum_is_masked(nesterov):
    gradient, _ = least_squares(noise=1.0)
    given = everybody(30), np.ones(D), lambda k: 0.05, 30

    def dgc(**numbers):
        return error_feedback.dgc(
            gradient, *given, compress=uplink(whole), momentum=0.8, nesterov=nesterov, **numbers
        )

    y, m, expected = np.ones(D), np.zeros(D), [np.ones(D)]
    for k in range(30):
        g = sum(gradient(i, y, k, 0) for i in range(N)) / N
        m = 0.8 * m + g
        y = y - 0.05 * (g + 0.8 * m if nesterov else m)
        expected.append(y)
    np.testing.assert_allclose(dgc(masking=False), expected, atol=1e-12)
    np.testing.assert_allclose(dgc(whole=np.ones(D, bool)), expected, atol=1e-12)
    share = 1.8 if nesterov else 1.0  # of the gradient in what is left of the momentum
    plain = federated.fed_avg(gradient, given[0], given[1], lambda k: 0.05 * share, 30)
    np.testing.assert_allclose(dgc(), plain, atol=1e-12)


def test_dgc_sends_all_of_the_velocities_in_the_end():
    gradient, _ = least_squares(noise=1.0)
    active = everybody(40)
    x, memory = error_feedback.dgc(
        gradient, active, np.ones(D), lambda k: 0.05, 40,
        compress=uplink(top(1)), masking=False, history=True,
    )  # fmt: skip
    owed = memory["u"].cumsum(axis=0) - memory["v"]
    np.testing.assert_allclose(x, 1 - 0.05 * owed.mean(axis=1), atol=1e-11)
    assert np.abs(memory["v"][-1]).max() > 1


def test_dgc_masks_what_is_sent_but_for_what_is_always_sent():
    gradient, _ = least_squares(noise=1.0)
    always = np.arange(D) < 3

    def compressor(v):
        return np.where(always, v, top(2)(np.where(always, 0, v)))

    x, memory = error_feedback.dgc(
        gradient, everybody(20), np.ones(D), lambda k: 0.05, 20,
        compress=uplink(compressor), whole=always, history=True,
    )  # fmt: skip
    u, v = memory["u"], memory["v"]
    sent = np.abs(v[1:]) == 0
    np.testing.assert_array_equal(sent.sum(axis=2), 5)
    np.testing.assert_array_equal(u[1:] == 0, sent & ~always)
    m = np.zeros(3)
    for k in range(20):  # momentum SGD on the averaged gradient in these coordinates
        g = np.mean([gradient(i, x[k], k, 0) for i in range(N)], axis=0)
        m = 0.9 * m + g[:3]
        np.testing.assert_allclose(x[k + 1, :3], x[k, :3] - 0.05 * m, atol=1e-12)


def test_dgc_clips_gradients_of_clients_to_a_share_of_the_threshold():
    gradient, _ = least_squares()
    x = error_feedback.dgc(
        gradient, everybody(1), np.ones(D), lambda k: 1.0, 1, compress=uplink(whole), clip=3.0
    )
    clipped = [gradient(i, np.ones(D), 0, 0) for i in range(N)]
    clipped = [g * min(1, 1.5 / np.linalg.norm(g)) for g in clipped]
    np.testing.assert_allclose(x[1], 1 - np.mean(clipped, axis=0), **EXACT)


@pytest.mark.slow
def test_masking_leaves_a_bias_that_a_smaller_stepsize_does_not_repair():
    gradient, solution = least_squares()
    tails = {}
    for masking in (True, False):
        for stepsize, steps in ((4e-3, 800), (1e-3, 2400)):
            x = error_feedback.dgc(
                gradient, everybody(steps), np.zeros(D), lambda k, a=stepsize: a, steps,
                compress=uplink(top(1)), masking=masking,
            )  # fmt: skip
            tails[masking, stepsize] = relative(x[-steps // 3 :], solution).mean()
    assert 0.5 < tails[True, 4e-3] / tails[True, 1e-3] < 2
    assert tails[False, 4e-3] / tails[False, 1e-3] > 8


# Games


def bilinear(n=N, d=D, noise=0.0, seed=0):
    """F_i = A_i z + c_i of |x|^2 / 2 + x'B_i y - |y|^2 / 2 and linear terms, and where F = 0."""
    random = np.random.default_rng(seed)
    b = random.normal(size=(n, d // 2, d // 2)) / np.sqrt(d / 2)
    eye = np.broadcast_to(np.eye(d // 2), b.shape)
    a, c = np.block([[eye, b], [-b.transpose(0, 2, 1), eye]]), random.normal(size=(n, d))
    errors = noise * random.normal(size=(n, 97, 2, d))
    return (
        lambda i, z, k, l: a[i] @ z + c[i] + errors[i, k % 97, l],  # noqa: E741
        np.linalg.solve(a.mean(axis=0), -c.mean(axis=0)),
        a.mean(axis=0),
    )


def tosses(k):
    return np.random.default_rng(k).random()


def rand(size, seed):
    """Coordinates drawn at random, scaled to be unbiased, the same ones in a second call."""

    def compress(k, channel, i, v):
        drawn = np.random.default_rng([seed, k, channel, i]).choice(len(v), size, replace=False)
        kept = np.zeros_like(v)
        kept[drawn] = v[drawn] * len(v) / size
        return kept

    return compress


MASHA = {"masha1": games.masha1, "masha2": games.masha2}


def test_the_extragradient_of_a_linear_game_is_a_polynomial_of_its_operator():
    operator, solution, a = bilinear()
    z = games.extra_gradient(
        operator, everybody(40), np.ones(D), lambda k: 0.2, 40, compress=uplink(whole)
    )
    step = np.eye(D) - 0.2 * a + 0.04 * a @ a
    for k in range(41):
        expected = np.linalg.matrix_power(step, k) @ (1 - solution)
        np.testing.assert_allclose(z[k] - solution, expected, atol=1e-12)


def test_the_extragradient_asks_those_who_are_there_twice():
    operator, _, _ = bilinear(noise=1.0)
    active, asked, sent = presence(10), [], []

    def heard(i, z, k, l):  # noqa: E741
        asked.append((k, l, i))
        return operator(i, z, k, l)

    def compress(k, channel, i, v):
        sent.append((k, channel, i))
        return rand(3, seed=0)(k, channel, i, v)

    z = games.extra_gradient(heard, active, np.ones(D), lambda k: 0.2, 10, compress=compress)
    wanted = [(k, l, i) for k in range(10) for l in (0, 1) for i in np.flatnonzero(active[k])]  # noqa: E741
    assert sorted(asked) == sorted(sent) == wanted
    np.testing.assert_array_equal(z[4], z[3])


@methods(MASHA)
def test_masha_uncompressed_and_always_renewed_is_the_extragradient(method):
    operator, _, _ = bilinear(noise=1.0)
    given = operator, everybody(30), np.ones(D), lambda k: 0.2 / (1 + k / 9), 30
    expected = games.extra_gradient(*given, compress=uplink(whole))
    z = method(*given, compress=uplink(whole), toss=tosses, probability=1.0)
    np.testing.assert_allclose(z, expected, atol=1e-12)


@methods(MASHA)
@pytest.mark.parametrize("both", [False, True])
def test_the_solution_of_a_heterogeneous_game_is_a_fixed_point(method, both):
    """What is compressed is a difference, which vanishes there."""
    operator, solution, _ = bilinear()
    z = method(
        operator, everybody(30), solution, lambda k: 0.1, 30, compress=uplink(top(2)),
        downlink=downlink(top(2)) if both else None, toss=tosses, probability=0.2,
    )  # fmt: skip
    np.testing.assert_allclose(z, np.broadcast_to(solution, z.shape), atol=1e-13)


@methods(MASHA)
@pytest.mark.parametrize("both", [False, True])
def test_masha_is_exact_where_naive_compression_has_a_plateau(method, both):
    operator, solution, _ = bilinear()
    if method is games.masha1:
        up, back = rand(3, seed=0), rand(3, seed=1)
        down, stepsize = lambda x, k: back(k, 1, 0, x), 0.1 if both else 0.2
    else:
        up, down, stepsize = uplink(top(3)), downlink(top(3)), 0.2
    given = operator, everybody(400), np.zeros(D), lambda k: stepsize, 400
    naive = games.extra_gradient(operator, everybody(150), *given[2:4], 150, compress=up)
    assert relative(naive[-50:], solution).mean() > 0.01
    numbers = {"downlink": down if both else None, "toss": tosses, "probability": 0.3}
    assert relative(method(*given, compress=up, **numbers)[-1], solution) < 1e-12


def test_masha2s_memories_telescope():
    """Nothing is lost: z would have moved by the whole differences but for the memories."""
    operator, _, _ = bilinear(noise=1.0)
    p = np.array([0.1, 0.2, 0.3, 0.4])
    z, memory = games.masha2(
        operator, everybody(50), np.ones(D), lambda k: 0.05, 50, compress=uplink(top(2)),
        downlink=downlink(top(3)), toss=tosses, probability=0.2, p=p, history=True,
    )  # fmt: skip
    held = np.einsum("i,kij->kj", p, memory["e"]) + memory["server"]
    assert np.abs(held[-1]).max() > 0.01
    virtual = z - held
    for k in range(50):
        w, mean = memory["w"][k], memory["mean"][k]
        half = 0.8 * z[k] + 0.2 * w - 0.05 * mean
        difference = sum(p[i] * operator(i, half, k, 1) for i in range(N)) - mean
        expected = half - held[k] - 0.05 * difference
        np.testing.assert_allclose(virtual[k + 1], expected, atol=1e-12)


@methods(MASHA)
def test_masha_renews_its_snapshot_at_the_start_of_a_step(method):
    operator, _, _ = bilinear(noise=1.0)
    z, held = method(
        operator, everybody(60), np.ones(D), lambda k: 0.05, 60, compress=uplink(top(5)),
        toss=tosses, probability=0.2, history=True,
    )  # fmt: skip
    renewed = np.array([k == 0 or tosses(k) < 0.2 for k in range(60)])
    np.testing.assert_array_equal(held["renewed"], renewed)
    assert tosses(0) > 0.2  # the first is forced
    for k in range(60):
        last = max(j for j in range(k + 1) if renewed[j])
        np.testing.assert_array_equal(held["w"][k], z[last])
        for i in range(N):
            np.testing.assert_array_equal(held["own"][k, i], operator(i, z[last], last, 0))


def test_masha_refuses_partial_participation():
    operator, _, _ = bilinear()
    with pytest.raises(ValueError, match="no partial participation"):
        games.masha1(
            operator, presence(10), np.ones(D), lambda k: 0.1, 10, compress=uplink(whole),
            toss=tosses, probability=0.5,
        )  # fmt: skip


# Sketches


def every_gaussian(size, d):
    """Nodes and weights of a quadrature that is exact for polynomials of degree 5 in each entry."""
    for choice in itertools.product(
        [(-np.sqrt(3), 1 / 6), (0, 2 / 3), (np.sqrt(3), 1 / 6)], repeat=size * d
    ):
        nodes, shares = np.array(choice).T
        yield sketches.gaussian(nodes.reshape(size, d)), np.prod(shares)


def signs(length):
    return itertools.product([1, -1], repeat=length)


def every_rademacher(size, d):
    for drawn in signs(size * d):
        yield sketches.rademacher(np.reshape(drawn, (size, d))), 2.0 ** -(size * d)


def every_count_sketch(size, d):
    for buckets in itertools.product(range(size), repeat=d):
        for drawn in signs(d):
            yield sketches.count_sketch(buckets, drawn, size), (2.0 * size) ** -d


def every_srht(size, d):
    choices = list(itertools.combinations(range(8 if d > 4 else 4), size))
    for rows in choices:
        for drawn in signs(d):
            yield sketches.srht(rows, drawn, d), 2.0**-d / len(choices)


@pytest.mark.parametrize(
    ("every", "size", "d", "constant"),
    [
        (every_gaussian, 2, 3, 4 / 2),
        (every_rademacher, 2, 4, 3 / 2),
        (every_count_sketch, 2, 4, 3 / 2),
        (every_count_sketch, 3, 3, 2 / 3),
        (every_srht, 2, 4, 4 / 2 - 1),
        (every_srht, 1, 3, (4 / 1 - 1) * 2 / 3),
        (every_srht, 3, 5, (8 / 3 - 1) * 4 / 7),
    ],
)
def test_sketches_are_unbiased_with_known_second_moments(every, size, d, constant):
    """In expectation over all draws, exactly: E R'R = I, E (R'R - I)^2 = c I."""
    mean, square, mass = np.zeros((d, d)), np.zeros((d, d)), 0.0
    for r, share in every(size, d):
        assert r.shape == (size, d)
        error = r.T @ r - np.eye(d)
        mean, square, mass = mean + share * error, square + share * error @ error, mass + share
    np.testing.assert_allclose(mass, 1, atol=1e-12)
    np.testing.assert_allclose(mean, 0, atol=1e-12)
    np.testing.assert_allclose(square, constant * np.eye(d), atol=1e-12)


def test_a_hadamard_transform_of_all_rows_is_orthogonal():
    np.testing.assert_allclose(sketches.hadamard(2), np.array([[1, 1], [1, -1]]) / np.sqrt(2))
    h = sketches.hadamard(16)
    np.testing.assert_allclose(h @ h, np.eye(16), atol=1e-14)
    np.testing.assert_allclose(h[1, :4], [0.25, -0.25, 0.25, -0.25])
    random = np.random.default_rng(0)
    r = sketches.srht(random.permutation(16), random.choice([-1, 1], 16), D)
    np.testing.assert_allclose(r.T @ r, np.eye(D), atol=1e-14)


def local_quadratics(noise=1.0, seed=0):
    random = np.random.default_rng(seed)
    a, b = random.uniform(0.5, 1.5, (N, D)), random.normal(size=(N, D))
    errors = noise * random.normal(size=(N, 97, 3, D))
    return (
        lambda i, x, k, l: a[i] * (x - b[i]) + errors[i, k % 97, l],  # noqa: E741
        np.sum(a * b, axis=0) / np.sum(a, axis=0),
    )


def test_an_orthogonal_sketch_is_fed_avg():
    gradient, _ = local_quadratics()
    given = gradient, presence(20), np.ones(D), lambda k: np.linspace(0.05, 0.2, N), 20
    numbers = {"local_steps": 3, "server_stepsize": 0.7, "p": np.array([0.1, 0.2, 0.3, 0.4])}
    random = np.random.default_rng(0)
    r = [sketches.srht(random.permutation(16), random.choice([-1, 1], 16), D) for _ in range(20)]
    x = sketches.sketched_sgd(*given, sketch=lambda k: r[k], **numbers)
    np.testing.assert_allclose(x, federated.fed_avg(*given, **numbers), atol=1e-12)


def test_sketched_gradient_descent_is_exact():
    gradient, solution = local_quadratics(noise=0.0)
    random = np.random.default_rng(1)
    normals = random.normal(size=(400, 3, D))
    x = sketches.sketched_sgd(
        gradient, everybody(400), np.zeros(D), lambda k: 0.15, 400,
        sketch=lambda k: sketches.gaussian(normals[k]),
    )  # fmt: skip
    assert relative(x[-1], solution) < 1e-16


def test_a_sketching_client_clips_its_gradient_before_it_adds_noise():
    gradient, _ = local_quadratics()
    x = sketches.sketched_sgd(
        gradient, everybody(1), np.ones(D), lambda k: 0.5, 1, sketch=lambda k: np.eye(D),
        clip=0.3, noise=lambda i, k, l: np.full(D, i + 1.0),  # noqa: E741
    )  # fmt: skip
    g = [gradient(i, np.ones(D), 0, 0) for i in range(N)]
    steps = [0.3 * g[i] / np.linalg.norm(g[i]) + i + 1 for i in range(N)]
    np.testing.assert_allclose(x[1], 1 - 0.5 * np.mean(steps, axis=0), atol=1e-13)


# Black boxes


def values(noise=1.0, seed=0):
    """The f_i whose gradients are those of local_quadratics, noise and all."""
    gradient, _ = local_quadratics(noise, seed)

    def value(i, x, k, l):  # noqa: E741
        slope = gradient(i, np.zeros(D), k, l)
        curvature = gradient(i, np.ones(D), k, l) - slope
        return 0.5 * np.sum(curvature * x**2) + slope @ x

    return value, gradient


def test_estimates_are_unbiased():
    """Over directions that have the moments of normal ones, and of the sphere, to degree 3."""
    value, gradient = values()
    x, g = np.ones(D), gradient(0, np.ones(D), 2, 1)
    axes = np.concatenate([np.eye(D), -np.eye(D)])  # E v = 0, E v v' = I / d, E v v v = 0
    for directions, factor in ((np.sqrt(D) * axes, 1), (axes, D)):
        forth, back = ([value(0, x + r * v, 2, 1) for v in directions] for r in (0.1, -0.1))
        found = black_boxes.central(forth, back, directions, 0.1, factor)
        np.testing.assert_allclose(found, g, atol=1e-12)
        found = black_boxes.forward(forth, value(0, x, 2, 1), directions, 0.1, factor)
        np.testing.assert_allclose(found, g, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("distribution", ["gaussian", "sphere"])
def test_estimates_of_random_directions_are_unbiased(distribution):
    value, gradient = values()
    directions = np.random.default_rng(4).normal(size=(20_000, D))
    if distribution == "sphere":
        directions = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    x, factor = np.ones(D), D if distribution == "sphere" else 1
    forth, back = ([value(1, x + r * v, 0, 0) for v in directions] for r in (1e-3, -1e-3))
    g = gradient(1, x, 0, 0)
    deviation = np.linalg.norm(g) * np.sqrt(D / 20_000)
    for found in (
        black_boxes.central(forth, back, directions, 1e-3, factor),
        black_boxes.forward(forth, value(1, x, 0, 0), directions, 1e-3, factor),
    ):
        assert np.linalg.norm(found - g) < 3 * deviation


def test_fed_zo_of_all_axes_forth_and_back_is_fed_avg():
    value, gradient = values()
    axes = np.concatenate([np.eye(D), -np.eye(D)])
    given = presence(20), np.ones(D), lambda k: np.linspace(0.05, 0.2, N), 20
    numbers = {"local_steps": 3, "p": np.array([0.1, 0.2, 0.3, 0.4])}
    x = black_boxes.fed_zo(value, *given, direction=lambda i, k, l: axes, radius=0.1, **numbers)  # noqa: E741
    np.testing.assert_allclose(x, federated.fed_avg(gradient, *given, **numbers), atol=1e-11)


def test_fed_zos_values_of_an_estimate_have_one_sample():
    """All m + 1 of them: of one client, round and local step."""
    value, _ = values()
    asked, points = [], []

    def heard(i, x, k, l):  # noqa: E741
        asked.append((i, k, l))
        points.append(x)
        return value(i, x, k, l)

    def direction(i, k, l):  # noqa: E741
        drawn = np.random.default_rng([i, k, l]).normal(size=(2, D))
        return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)

    active = presence(5)
    x = black_boxes.fed_zo(
        heard, active, np.ones(D), lambda k: 0.05, 5, direction=direction, local_steps=2
    )
    wanted = [(i, k, l) for k in range(5) for i in np.flatnonzero(active[k]) for l in (0, 1)]  # noqa: E741
    assert asked == [who for who in wanted for _ in range(3)]
    near, far, here = np.array(points).reshape(-1, 3, D).swapaxes(0, 1)
    np.testing.assert_allclose(np.linalg.norm([near - here, far - here], axis=2), 1e-3, rtol=1e-9)
    np.testing.assert_array_equal(x[4], x[3])


def normal_directions(i, k):
    return np.random.default_rng([i, k]).normal(size=D)


@pytest.mark.parametrize("code", [None, black_boxes.log_byte])
def test_just_one_byte_is_a_log_of_scalars(code):
    """Who replays it has the same model; of 32 bits, it is the two-point method."""
    value, gradient = values()
    active = presence(30)
    given = active, lambda k: 0.02 / (1 + k / 9), normal_directions, np.array([0.1, 0.2, 0.3, 0.4])
    x, scalars = black_boxes.just_one_byte(
        value, active, np.ones(D), given[1], 30, direction=normal_directions, code=code, p=given[3]
    )
    np.testing.assert_array_equal(black_boxes.replay(np.ones(D), scalars, *given), x)
    assert not scalars[~active].any()
    for k in range(30):
        move, mass = np.zeros(D), 0.0
        for i in np.flatnonzero(active[k]):
            z = normal_directions(i, k)
            g = gradient(i, x[k], k, 0) @ z
            np.testing.assert_allclose(scalars[k, i], code(g) if code else g, atol=1e-7)
            move, mass = move + given[3][i] * scalars[k, i] * z, mass + given[3][i]
        expected = x[k] - given[1](k) * move / mass if mass else x[k]
        np.testing.assert_allclose(x[k + 1], expected, atol=1e-13)


@pytest.mark.slow
def test_the_variance_of_just_one_byte_falls_as_one_over_the_agents():
    """(d + 1) sum_i |g_i|^2 / n^2, over directions."""
    value, gradient = values()
    for n in (1, N):
        moves = []
        for draw in range(3000):
            x, _ = black_boxes.just_one_byte(
                lambda i, x, k, l: value(i, x, 0, 0), everybody(1, n), np.ones(D), lambda k: 1.0, 1,  # noqa: E741
                direction=lambda i, k, draw=draw: normal_directions(i, draw),
            )  # fmt: skip
            moves.append(1 - x[1])
        g = [gradient(i, np.ones(D), 0, 0) for i in range(n)]
        variance = np.mean(np.sum((np.array(moves) - np.mean(g, axis=0)) ** 2, axis=1))
        assert abs(variance * n**2 / ((D + 1) * np.sum(np.square(g))) - 1) < 0.1


def test_a_byte():
    """255 symbols, each of which stands for itself, and a bounded relative error in range."""
    read = [black_boxes.decode(symbol) for symbol in range(255)]
    assert [black_boxes.encode(g) for g in read] == list(range(255))
    assert len(set(read)) == 255
    np.testing.assert_allclose(np.max(read), np.exp(63 / 8))
    for g in np.geomspace(np.exp(-63.49 / 8), np.exp(63.49 / 8), 3001):
        assert abs(black_boxes.log_byte(g) / g - 1) < 0.0646
        assert black_boxes.log_byte(-g) == -black_boxes.log_byte(g)
    assert black_boxes.log_byte(0.0) == 0
    assert black_boxes.log_byte(1e9) == np.exp(63 / 8)
    assert black_boxes.log_byte(-1e-9) == -np.exp(-63 / 8)


def rastrigin(i, x, k):
    return np.sum(x**2 - 10 * np.cos(2 * np.pi * x) + 10)


def normals(n, d, seed=0):
    return lambda k: np.random.default_rng([seed, k]).normal(size=(n, d))


def test_particles_without_noise_approach_each_other_at_the_rate_of_the_drift():
    x0 = np.random.default_rng(0).normal(size=(6, 2))
    x = black_boxes.cbo(rastrigin, x0, lambda k: 0.1, 20, normal=normals(6, 2), noise=0.0, drift=2)
    apart = x[:, :, None] - x[:, None]
    np.testing.assert_allclose(apart[1:], 0.8 * apart[:-1], atol=1e-13)


@pytest.mark.parametrize("anisotropic", [True, False])
def test_the_noise_of_a_particle_is_its_distance_from_the_consensus(anisotropic):
    x0, xi = np.random.default_rng(0).normal(size=(6, 2)), normals(6, 2)
    x = black_boxes.cbo(
        rastrigin, x0, lambda k: 0.04, 1, normal=xi, drift=3, noise=0.5, alpha=0.1,
        anisotropic=anisotropic,
    )  # fmt: skip
    weights = np.exp(-0.1 * np.array([rastrigin(i, x0[i], 0) for i in range(6)]))
    away = x0 - weights @ x0 / weights.sum()
    distance = np.abs(away) if anisotropic else np.linalg.norm(away, axis=1, keepdims=True)
    np.testing.assert_allclose(x[1], x0 - 0.12 * away + 0.1 * distance * xi(0), atol=1e-14)


def test_swarms_do_not_see_where_they_are_nor_a_shift_of_energies():
    x0 = np.random.default_rng(0).normal(size=(6, 2))
    for swarm in (
        lambda f, x: black_boxes.cbo(f, x, lambda k: 0.1, 20, normal=normals(6, 2)),
        lambda f, x: black_boxes.consensus_hopping(
            f, x, 20, normal=normals(6, 2), noise=0.3, alpha=50.0
        ),
    ):
        found = swarm(rastrigin, x0)
        raised = swarm(lambda i, x, k: rastrigin(i, x, k) + 64, x0)
        moved = swarm(lambda i, x, k: rastrigin(i, x - 8, k), x0 + 8)
        np.testing.assert_allclose(raised, found, atol=1e-9)
        np.testing.assert_allclose(moved - 8, found, atol=1e-9)
    alone = black_boxes.cbo(rastrigin, x0[:1], lambda k: 0.1, 5, normal=normals(1, 2))
    np.testing.assert_array_equal(alone, np.broadcast_to(x0[:1], alone.shape))


def test_particles_on_a_graph_hear_their_neighbors():
    x0 = np.random.default_rng(0).normal(size=(6, 2))

    def swarm(size, neighbors=None):
        return black_boxes.cbo(
            rastrigin, x0[:size], lambda k: 0.1, 20,
            normal=lambda k: normals(6, 2)(k)[:size], neighbors=neighbors,
        )  # fmt: skip

    everybody_else = [[j for j in range(6) if j != i] for i in range(6)]
    np.testing.assert_array_equal(swarm(6, everybody_else), swarm(6))
    pairs = swarm(6, [[1], [0], [], [4], [3], []])
    np.testing.assert_array_equal(pairs[-1, [2, 5]], x0[[2, 5]])
    np.testing.assert_array_equal(pairs[:, :2], swarm(2))


def test_a_swarm_finds_the_global_minimum():
    x0 = 2 + 2 * np.random.default_rng(3).normal(size=(100, 2))
    x = black_boxes.cbo(rastrigin, x0, lambda k: 0.05, 120, normal=normals(100, 2), alpha=50.0)
    assert np.abs(x[-1].mean(axis=0)).max() < 0.2


def differences(function, y, step=1e-5):
    return np.array(
        [(function(y + e) - function(y - e)) / (2 * step) for e in step * np.eye(len(y))]
    )


def queries(count=30, d=3, seed=0):
    points = np.random.default_rng(seed).uniform(-0.5, 0.5, (count, d))
    return points, [np.sum(z**2) + 2 * z[0] * z[1] - z[2] + 7 for z in points]


def test_a_process_interpolates_and_knows_its_gradient():
    points, found = queries()
    process, y = black_boxes.GaussianProcess(points, found), np.array([0.1, -0.2, 0.3])
    missed = found - np.array([process.mean(z) for z in points])
    owed = 1e-6 * process.range * process.coefficients  # by the jitter
    np.testing.assert_allclose(missed, owed, atol=1e-9)
    assert np.abs(missed).max() < 1e-3
    np.testing.assert_allclose(process.gradient(y), differences(process.mean, y), atol=1e-8)
    np.testing.assert_allclose(process.gradient(y), [-0.2, -0.2, -0.4], atol=0.05)
    doubled = black_boxes.GaussianProcess(points, np.multiply(2, found) - 5)
    np.testing.assert_allclose(doubled.gradient(y), 2 * process.gradient(y), rtol=1e-8)
    same = black_boxes.GaussianProcess(points, np.ones(30))
    assert not same.gradient(y).any()


def test_a_process_is_uncertain_where_it_has_not_asked():
    points, found = queries(6)
    process = black_boxes.GaussianProcess(points, found, lengthscale=0.7, jitter=1e-3)
    y, step = np.array([0.1, -0.2, 0.3]), 1e-3

    def covariance(a, b):
        prior = np.exp(-np.sum((a - b) ** 2) / (2 * 0.7**2))
        return prior - process.covariances(a) @ process.inverse @ process.covariances(b)

    trace = sum(
        covariance(y + e, y + e) - 2 * covariance(y + e, y - e) + covariance(y - e, y - e)
        for e in step * np.eye(3)
    )
    np.testing.assert_allclose(process.uncertainty(y), trace / (2 * step) ** 2, rtol=1e-4)
    more = np.vstack([points, y + 0.1 * np.eye(3), y - 0.1 * np.eye(3)])
    asked = black_boxes.GaussianProcess(more, np.zeros(len(more)), lengthscale=0.7, jitter=1e-3)
    assert asked.uncertainty(y) < process.uncertainty(y) / 2
    np.testing.assert_allclose(process.uncertainty(y + 50), 3 / 0.7**2)


def test_random_features_are_the_process_in_finite_dimension():
    random = np.random.default_rng(1)
    features = black_boxes.Features(
        random.normal(size=(20_000, 3)), random.uniform(0, 2 * np.pi, 20_000), lengthscale=0.7
    )
    points, found = queries(8)
    for a, b in itertools.product(points[:4], points[4:]):
        assert abs(features(a) @ features(b) - np.exp(-np.sum((a - b) ** 2) / 0.98)) < 0.03
    y = np.array([0.1, -0.2, 0.3])
    own = features.weights(points, found, ridge=0.1)
    process = black_boxes.GaussianProcess(points, found, lengthscale=0.7, jitter=0.1)
    scaled = features.weights(points, (found - process.least) / process.range, ridge=0.1)
    np.testing.assert_allclose(
        process.range * features.gradient(y, scaled), process.gradient(y), atol=0.05
    )
    np.testing.assert_allclose(
        features.gradient(y, own), differences(lambda z: features(z) @ own, y), atol=1e-7
    )


def test_weights_are_those_of_ridge_regression_and_average():
    random = np.random.default_rng(1)
    features = black_boxes.Features(random.normal(size=(40, 3)), random.uniform(0, 2 * np.pi, 40))
    y, w = np.array([0.1, -0.2, 0.3]), []
    for seed in (0, 1):
        points, found = queries(12, seed=seed)
        phi = np.array([features(z) for z in points])
        w.append(features.weights(points, found, ridge=0.01))
        np.testing.assert_allclose(
            w[-1], np.linalg.solve(phi.T @ phi + 0.01 * np.eye(40), phi.T @ found), atol=1e-9
        )
    mean = features.gradient(y, (w[0] + w[1]) / 2)
    np.testing.assert_allclose(mean, (features.gradient(y, w[0]) + features.gradient(y, w[1])) / 2)
    process = black_boxes.GaussianProcess(*queries())
    alike = black_boxes.corrected(process, features, w[0], w[0], y, 0)
    np.testing.assert_array_equal(alike, process.gradient(y))
    third = black_boxes.corrected(process, features, w[0], np.mean(w, axis=0), y, 2)
    expected = process.gradient(y) + (mean - features.gradient(y, w[0])) / 3
    np.testing.assert_allclose(third, expected, atol=1e-12)
