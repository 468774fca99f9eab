"""The reference of rules, attacks and methods under liars against known figures and theorems."""

import itertools
import math

import numpy as np
import pytest
from reference import robust
from scipy import optimize

pytestmark = pytest.mark.slow
N, F, D = 9, 2, 3
BOUNDED = {  # the rules that survive F liars of N
    "median": robust.median(),
    "trimmed_mean": robust.trimmed_mean(F),
    "geometric_median": robust.geometric_median(),
    "krum": robust.krum(F),
    "multi_krum": robust.multi_krum(F),
    "mda": robust.mda(F),
    "meamed": robust.meamed(F),
    "caf": robust.caf(F),
    "nna": robust.nna(F),
}
FROM_ZERO = {  # the rules that measure from 0, and those that survive a liar only near 0
    "centered_clipping": robust.centered_clipping(1.5, 3),
    "cge": robust.cge(F),
    "flag": robust.flag(),
    "foolsgold": robust.foolsgold(),
}
RULES = {
    "mean": robust.mean(),
    "self_centered_clipping": robust.self_centered_clipping(1.5),
    "adaptive_self_centered_clipping": robust.self_centered_clipping(),
    **BOUNDED,
    **FROM_ZERO,
}
CHAINS = {
    "nnm, trimmed_mean": robust.chain(robust.nnm(F), robust.trimmed_mean(F)),
    "clip, krum": robust.chain(robust.clip(1.0), robust.krum(F)),
    "arc, nnm, median": robust.chain(robust.arc(F), robust.nnm(F), robust.median()),
}


def messages(seed=0, n=N, d=D):
    return np.random.default_rng(seed).normal(size=(n, d)) + 0.5


def each(rules):
    return pytest.mark.parametrize("rule", rules.values(), ids=rules.keys())


# Rules


@each(RULES | CHAINS)
def test_the_order_of_the_messages_does_not_matter(rule):
    rng = np.random.default_rng(1)
    for seed in range(5):
        x, order = messages(seed), rng.permutation(N)
        place = int(np.flatnonzero(order == 4)[0])
        np.testing.assert_allclose(rule(x[order], own=place), rule(x, own=4), atol=1e-12)


@each({name: rule for name, rule in RULES.items() if name not in FROM_ZERO})
def test_a_translation_of_the_messages_translates_the_result(rule):
    shift = np.array([3.0, -7.0, 0.25])
    for seed in range(5):
        x = messages(seed)
        np.testing.assert_allclose(rule(x + shift, own=2), rule(x, own=2) + shift, atol=1e-9)


@each(FROM_ZERO)
def test_some_rules_measure_from_zero(rule):
    x, shift = messages(d=8), np.arange(8.0)
    assert np.abs(rule(x + shift) - rule(x) - shift).max() > 0.05


@each(
    {name: rule for name, rule in RULES.items() if "clipping" not in name}
    | {
        "adaptive_self_centered_clipping": robust.self_centered_clipping(),
        "nnm, krum": robust.chain(robust.nnm(F), robust.krum(F)),
        "arc, mean": robust.chain(robust.arc(F), robust.mean()),
    }
)
def test_a_scale_of_the_messages_scales_the_result(rule):
    x = messages()
    np.testing.assert_allclose(rule(8 * x, own=1), 8 * rule(x, own=1), rtol=1e-6)


@each(RULES | CHAINS)
def test_what_is_not_heard_does_not_exist(rule):
    heard = np.array([True, True, False, True, True, True, False, True, True])
    x = messages()
    x[~heard] = [[np.nan, 0, 1], [1e300, np.inf, 0]]
    np.testing.assert_array_equal(rule(x, heard, own=3), rule(x[heard], own=2))


@pytest.mark.parametrize(
    "rule",
    [
        robust.trimmed_mean(0),
        robust.multi_krum(0),
        robust.mda(0),
        robust.meamed(0),
        robust.caf(0),
        robust.nna(0),
        robust.cge(0),
        robust.chain(robust.nnm(0), robust.krum(0)),
        robust.chain(robust.arc(0), robust.mean()),
        robust.centered_clipping(1e9),
        robust.self_centered_clipping(1e9),
        robust.flag(rank=D),
        robust.chain(robust.bucketing(3), robust.mean()),
    ],
)
def test_without_liars_to_survive_it_is_the_mean(rule):
    x = messages()
    np.testing.assert_allclose(rule(x, own=5), x.mean(0), atol=1e-12)


def test_krum_without_liars_is_the_message_nearest_the_mean():
    for seed in range(10):
        x = messages(seed)
        nearest = np.argmin(np.linalg.norm(x - x.mean(0), axis=1))
        np.testing.assert_array_equal(robust.krum(0)(x), x[nearest])


@each(BOUNDED | CHAINS)
def test_one_point_is_itself(rule):
    point = np.array([1.0, -2.0, 4.0])
    np.testing.assert_allclose(rule(np.tile(point, (N, 1))), rule(point[None].repeat(N, 0)))
    if rule in BOUNDED.values():
        np.testing.assert_allclose(rule(np.tile(point, (N, 1))), point, atol=1e-15)


@each(BOUNDED)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_message_that_is_not_finite_is_as_one_that_is_far(rule, bad):
    x = messages()
    x[3], x[7, 1] = bad, bad
    far = x.copy()
    far[3], far[7] = [1e9, 1e9, 1e9], [2e9, 2e9, 2e9]
    result = rule(x)
    assert np.all(np.isfinite(result))
    # two that are far pull a geometric median by their directions, and CAF by half a message
    tolerance = {"geometric_median": 1.0, "caf": 1.0}
    atol = next((tolerance[k] for k in tolerance if BOUNDED[k] is rule), 1e-12)
    np.testing.assert_allclose(result, rule(far), atol=atol)
    assert np.linalg.norm(result - np.delete(x, [3, 7], 0).mean(0)) < 2


@each({"self_centered_clipping": robust.self_centered_clipping(1.5)} | FROM_ZERO)
def test_rules_without_a_breakdown_point_do_not_sum_what_is_not_finite(rule):
    x = messages()
    x[3], x[7, 1] = np.inf, np.nan
    assert np.all(np.isfinite(rule(x)))


def test_a_message_that_is_not_finite_is_counted():
    x = np.array([[0.0], [1.0], [2.0], [np.nan], [10.0]])
    np.testing.assert_array_equal(robust.median()(x), [2.0])
    np.testing.assert_array_equal(robust.trimmed_mean(1)(x), [13.0 / 3])
    np.testing.assert_array_equal(robust.nna(2)(x), [1.0])
    np.testing.assert_array_equal(robust.centered_clipping(100.0)(x), [13.0 / 5])
    mixed, heard = robust.nnm(2)(x)
    np.testing.assert_array_equal(mixed[:, 0], [1.0, 1.0, 1.0, np.nan, 13.0 / 3])
    assert heard.all()
    buckets, _ = robust.bucketing(2)(x)
    np.testing.assert_array_equal(buckets[:, 0], [0.5, np.nan, 10.0])


@each(BOUNDED)
def test_two_liars_move_it_little_however_far_they_are(rule):
    x = messages()
    for size in [1e2, 1e5, 1e8]:
        x[[3, 7]] = size * np.array([[1.0, 2.0, -1.0], [-1.0, 0.5, 1.0]])
        assert np.linalg.norm(rule(x) - np.delete(x, [3, 7], 0).mean(0)) < 2


@pytest.mark.parametrize(
    ("rule", "liars"),
    [
        (robust.mean(), 1),
        (robust.trimmed_mean(F), F + 1),
        (robust.meamed(F), F + 1),
        (robust.mda(F), F + 1),
        (robust.multi_krum(F), F + 1),
        (robust.nna(F), F + 1),
        (robust.median(), 5),
        (robust.geometric_median(), 5),
        (robust.chain(robust.bucketing(2, [0, 6, 1, 7, 2, 8, 3, 4, 5]), robust.median()), 3),
        (robust.chain(robust.nnm(F), robust.mean()), 1),
    ],
)
def test_beyond_the_breakdown_point_liars_drive_it_anywhere(rule, liars):
    x = messages()
    for size in [1e3, 1e6]:
        x[N - liars :] = size
        assert np.linalg.norm(rule(x)) > size / 50


def test_ties_go_to_the_lower_index():
    x = np.array([[0.0], [1.0], [1.0], [-1.0], [-1.0], [5.0]])
    np.testing.assert_array_equal(robust.nna(2)(x, own=0), [0.25])
    np.testing.assert_array_equal(robust.nna(3)(x, own=0), [2 / 3])
    np.testing.assert_array_equal(robust.mda(2)(x[[3, 4, 0, 1, 2]]), [-2 / 3])
    np.testing.assert_array_equal(robust.krum(0)(x[1:5]), [1.0])
    np.testing.assert_array_equal(robust.cge(3)(x), [2 / 3])
    np.testing.assert_array_equal(robust.meamed(2)(x[:5]), [2 / 3])  # of the median 0


def test_even_numbers_have_a_middle():
    x = np.array([[4.0, -1.0], [1.0, 3.0], [2.0, 8.0], [9.0, 0.0]])
    np.testing.assert_array_equal(robust.median()(x), [3.0, 1.5])
    np.testing.assert_array_equal(robust.meamed(1)(x), [7 / 3, 2 / 3])


def test_the_smallest_norms_are_those_of_finite_messages():
    x = np.array([[np.nan, 0.0], [3.0, 4.0], [0.0, -np.inf], [0.0, 1.0], [1e200, 0.0], [2.0, 0.0]])
    np.testing.assert_allclose(robust.cge(3)(x), [5 / 3, 5 / 3])
    assert robust.squared(x[0]) == robust.squared(x[2]) == robust.squared(x[4]) == math.inf


def test_numbers_of_neighbors_and_of_messages_are_as_given():
    x = np.array([[0.0], [0.1], [4.0], [4.5], [5.0], [9.0]])
    scores = robust.krum_scores(x, range(6), 1)  # four others
    assert scores[3] == pytest.approx(0.5**2 + 0.5**2 + 4.4**2 + 4.5**2)
    np.testing.assert_array_equal(robust.krum(1)(x), [4.0])
    np.testing.assert_array_equal(robust.krum(1, neighbors=1)(x), [0.0])
    assert robust.multi_krum(1, select=2)(x) == pytest.approx(4.25)
    with pytest.raises(ValueError, match="neighbors is 6"):
        robust.krum(1, neighbors=6)(x)
    for rule in [robust.trimmed_mean(3), robust.mda(3), robust.nna(6)]:
        with pytest.raises(ValueError, match="give a smaller f"):
            rule(x)


def test_the_geometric_median_minimizes_the_sum_of_distances():
    x = messages()
    z = robust.geometric_median(1e-9, 2000)(x)
    best = optimize.minimize(
        lambda z: np.linalg.norm(x - z, axis=1).sum(), x.mean(0), method="BFGS", tol=1e-12
    )
    np.testing.assert_allclose(z, best.x, atol=1e-6)
    np.testing.assert_allclose(robust.geometric_median()(x), best.x, atol=1e-3)


def test_centered_clipping_moves_by_the_radius_at_most():
    x = 1e6 * messages()
    for iterations in [1, 2, 5]:
        assert np.linalg.norm(robust.centered_clipping(0.7, iterations)(x)) <= 0.7 * iterations
    x = np.array([[3.0, 4.0], [0.0, 1.0]])
    np.testing.assert_allclose(robust.centered_clipping(2.0)(x), [0.6, 1.3])
    np.testing.assert_allclose(
        robust.self_centered_clipping(2.0)(x, own=1), [1 / 2**0.5, 1 + 0.5**0.5]
    )


def test_the_adaptive_radius_is_the_second_largest_distance():
    x = np.array([[0.0], [1.0], [-2.0], [50.0]])
    np.testing.assert_allclose(robust.self_centered_clipping()(x), [(1 - 2 + 2) / 4])
    x[3] = np.nan
    np.testing.assert_allclose(robust.self_centered_clipping()(x), [(1 - 2) / 4])
    np.testing.assert_allclose(robust.self_centered_clipping()(x[:2]), [0.5])
    np.testing.assert_allclose(robust.self_centered_clipping()(x[:1]), [0.0])


def test_caf_ends_although_one_message_is_far():
    x, count = messages(n=11), []
    x[0] = 1e6
    result = robust.caf(3, count)(x)
    assert count[0] <= 6
    assert np.linalg.norm(result - x[1:].mean(0)) < 1
    np.testing.assert_array_equal(robust.caf(2)(np.ones((5, 2))), [1.0, 1.0])


def test_flag_finds_the_direction_that_most_messages_share():
    flag, mean = [], []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        truth = np.eye(75)[0]
        x = truth + 0.03 * rng.normal(size=(15, 75))
        x[:5] = rng.normal(size=(5, 75))
        result = robust.flag(rank=1)(x)
        flag.append(result[0] / np.linalg.norm(result))
        mean.append(x.mean(0)[0] / np.linalg.norm(x.mean(0)))
    assert np.mean(flag) > 0.9
    assert np.mean(mean) < 0.5


def test_flags_subspace_is_orthonormal_and_its_objective_decreases():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(12, 6)) + np.array([2.0, 0, 0, 0, 0, 0])
    u = x / np.linalg.norm(x, axis=1, keepdims=True)
    last = math.inf
    for iterations in range(6):
        y = robust.flag_subspace(x, range(12), 3, iterations)
        np.testing.assert_allclose(y.T @ y, np.eye(3), atol=1e-12)
        shares = np.sum((u @ y) ** 2, axis=1)
        assert np.all((shares >= 0) & (shares <= 1 + 1e-12))
        objective = np.sum(np.sqrt(np.abs(1 - shares)))
        assert objective <= last + 1e-9
        last = objective


def test_flag_does_not_see_signs():
    x = messages(n=10, d=6) + 3.0
    x[7:] = -x[:7].mean(0)
    y = robust.flag_subspace(x, range(10), 1, 5)
    shares = (x / np.linalg.norm(x, axis=1, keepdims=True) @ y)[:, 0] ** 2
    assert shares[7:].min() > 0.999
    assert shares[7:].min() > shares[:7].mean()


def test_foolsgold_weights_are_those_of_its_authors_tests():
    np.testing.assert_array_equal(
        robust.foolsgold_weights([[0, 1], [1, 0], [1, -1]]), [1.0, 0.0, 0.0]
    )
    np.testing.assert_array_equal(robust.foolsgold_weights([[0, 1], [1, 0], [0, -1]]), [1.0] * 3)


def test_foolsgold_pardons_what_is_less_similar_than_its_likeness():
    angles = np.radians([0.0, 50.0, 120.0])
    near, far = np.cos(np.radians([50.0, 70.0]))  # of the first two, and of the last two
    pardoned = far * (far + 1e-5) / (near + 1e-5)
    share = (1 - near) / (1 - pardoned)
    weight = np.log(share / (1 - share)) + 0.5
    assert 0.2 < weight < 0.3  # .67 without
    h = np.stack([np.cos(angles), np.sin(angles)], axis=1) * [[3.0], [1.0], [0.2]]
    np.testing.assert_allclose(robust.foolsgold_weights(h), [weight, weight, 1.0], atol=1e-12)


def test_foolsgold_gives_copies_nothing():
    x = messages(n=7, d=20)
    x[4:] = x[4]
    weights = robust.foolsgold_weights(x)
    np.testing.assert_array_equal(weights[4:], 0.0)
    assert weights[:4].min() > 0.5
    np.testing.assert_array_equal(robust.foolsgold_weights(np.ones((4, 3))), 0.0)
    np.testing.assert_array_equal(robust.foolsgold()(np.ones((4, 3))), 1.0)
    x[0, 3] = np.nan
    assert robust.foolsgold_weights(x)[0] == 0
    heard = np.array([True] * 5 + [False] * 2)  # one of the copies
    assert robust.foolsgold_weights(x, heard)[4] > 0.5
    assert not robust.foolsgold_weights(x, heard)[5:].any()


# What goes before a rule


def test_adaptive_clipping_shortens_the_largest_to_the_next_norm():
    x = np.array([[1.0], [-5.0], [2.0], [3.0], [-4.0]])
    clipped, _ = robust.arc(1)(x)  # k = floor(2 / 5 * 4) = 1
    np.testing.assert_allclose(clipped[:, 0], [1, -4, 2, 3, -4])
    clipped, _ = robust.arc(2)(x)  # k = floor(4 / 5 * 3) = 2
    np.testing.assert_allclose(clipped[:, 0], [1, -3, 2, 3, -3])
    for n, f in itertools.product(range(1, 30), range(10)):
        if f < n:  # the floor of a quotient of integers, whatever the rounding of floats
            x = np.arange(1.0, n + 1)[:, None]
            changed = np.sum(robust.arc(f)(x)[0] != x)
            assert changed == math.floor(2 * f * (n - f) / n + 1e-9)


def test_buckets_are_filled_in_the_given_order():
    x = np.arange(7.0)[:, None]
    heard = np.array([1, 1, 0, 1, 1, 1, 1], dtype=bool)
    buckets, there = robust.bucketing(4, [6, 2, 0, 5, 1, 3, 4])(x, heard)
    np.testing.assert_array_equal(buckets[:, 0], [3.0, 3.5])
    assert there.all()


# The theory


def inputs(repeats=3):
    """Yield messages of several kinds: normal, two-valued, two of them far, two clusters."""
    rng = np.random.default_rng(0)
    for _ in range(repeats):
        yield rng.normal(size=(N, D))
        yield rng.integers(0, 2, size=(N, D)).astype(float)
        x = rng.normal(size=(N, D))
        x[:F] += rng.normal(size=D) * 10 ** rng.uniform(0, 3)
        yield x
        yield rng.integers(0, 2, size=(N, 1)) + 0.05 * rng.normal(size=(N, D))


def test_robustness_coefficients_are_within_their_bounds():
    for name in ["trimmed_mean", "krum", "geometric_median", "median"]:
        rule, bound = BOUNDED[name], robust.kappa(name, N, F)
        mixed = robust.chain(robust.nnm(F), rule)
        for x in inputs():
            assert robust.coefficient(rule(x), x, F) <= bound
            assert robust.coefficient(mixed(x), x, F) <= robust.kappa_nnm(bound, N, F)
    assert [round(robust.kappa(name, N, F), 1) for name in ["trimmed_mean", "krum", "median"]] == [
        3.4,
        8.4,
        7.8,
    ]


@each(BOUNDED)
def test_two_values_attain_the_lower_bound(rule):
    # the n - f zeros may all be honest, so that R must be 0; and the f ones may be honest, too
    x = np.zeros((N, 1))
    x[:F] = 1
    if rule is not BOUNDED["geometric_median"]:  # smoothed: 3e-7 off
        assert robust.coefficient(rule(x, own=N - 1), x, F) == pytest.approx(F / (N - 2 * F))
    assert np.abs(rule(x, own=N - 1)) < 1e-6


def test_the_mean_has_no_coefficient():
    x = np.zeros((N, 1))
    x[0] = 1.0
    assert robust.coefficient(robust.mean()(x), x, F) == math.inf


# Attacks


@pytest.mark.parametrize(("n", "f", "z"), [(25, 5, 0.253), (50, 12, 0.336), (3, 1, 0.0)])
def test_alies_factor(n, f, z):
    assert robust.alie_factor(n, f) == pytest.approx(z, abs=5e-4)


def test_attacks_are_their_formulas():
    h = np.array([[1.0, 2.0], [3.0, 6.0], [5.0, -2.0], [np.nan, 9.0]])
    heard = [True, True, True, False]

    def lie(attack):
        return attack(h, liars=2, heard=heard)

    np.testing.assert_allclose(lie(robust.sign_flip(2.0)), [-6.0, -4.0])
    np.testing.assert_allclose(lie(robust.inner_product()), [-0.3, -0.2])
    np.testing.assert_allclose(lie(robust.alie(1.5)), [3 - 1.5 * 2, 2 - 1.5 * 4])
    z = robust.alie_factor(5, 2)
    np.testing.assert_allclose(lie(robust.alie()), [3 - 2 * z, 2 - 4 * z])
    np.testing.assert_allclose(lie(robust.mimic(1)), [3.0, 6.0])
    np.testing.assert_allclose(lie(robust.gaussian([1.0, -1.0], 3.0)), [3.0, -3.0])
    np.testing.assert_allclose(lie(robust.constant(np.inf)), [np.inf, np.inf])
    np.testing.assert_allclose(lie(robust.scripted([1.0, -1.0])), [4.0, 1.0])
    np.testing.assert_allclose(lie(robust.dissensus(1.0)), [1.0 - 3.0, 2.0])
    np.testing.assert_allclose(robust.alie()(h[:1], liars=1), h[0])


def test_dissensus_of_factor_one_stops_plain_averaging():
    h = messages(n=5)
    lie = robust.dissensus(1.0)(h, liars=2)
    np.testing.assert_allclose(np.concatenate([h, [lie, lie]]).mean(0), h[0])


def test_the_line_search_finds_the_factor_that_a_rule_accepts():
    asked = []
    best = robust.line_search(lambda s: asked.append(s) or (s if s <= 60 else -s), evaluations=7)
    assert best == pytest.approx(55.6)
    np.testing.assert_allclose(asked, [0, 10, 30, 70, 62, 55.6, 76.08])
    target = robust.line_search(lambda s: s if s <= 3.7 else -s, evaluations=40)
    assert 3.6 < target <= 3.7
    h, rule = messages(n=8), robust.krum(2)
    best = robust.strongest(robust.alie, rule, evaluations=20)(h, liars=2)
    z = (h.mean(0) - best) / h.std(0, ddof=1)
    np.testing.assert_allclose(z, z[0])

    def moved(z):
        told = np.concatenate([h, np.tile(robust.alie(z)(h), (2, 1))])
        return np.linalg.norm(rule(told) - h.mean(0))

    assert moved(z[0]) >= max(moved(z) for z in [0.0, 10.0, 20.0])


# Methods


def quadratic(centers, noise=0.0, seed=0):
    rng = np.random.default_rng(seed)
    return lambda i, x, k, local=0: x - centers[i] + noise * rng.normal(size=len(x))


def test_one_round_of_nearest_neighbor_averaging_reduces_the_variance():
    # (alpha, lambda)-reduction for n >= 11 f: alpha = 9.88 f / (n - f), lambda = 9 f / (n - f)
    n, f = 26, 2
    rng = np.random.default_rng(0)
    for size in [0.5, 3.0, 30.0]:
        z = rng.normal(size=(n, 4))
        lying = np.arange(n) >= n - f
        hears = np.ones((n, n), dtype=bool)
        for i in range(n - f):
            hears[i, : n - f] = False
            others = [j for j in range(n - f) if j != i]
            hears[i, rng.choice(others, n - 2 * f - 1, replace=False)] = True
        shift = size * rng.normal(size=(n, 4))

        def attack(k, i, j, honest, f, shift=shift):
            return honest[0] + shift[i]

        mixed = robust.robust_mixing(robust.nna(f), z, hears, lying, attack, 0)[: n - f]
        before, after = z[: n - f].var(0).sum(), mixed.var(0).sum()
        assert after <= 9.88 * f / (n - f) * before
        moved = np.sum((mixed.mean(0) - z[: n - f].mean(0)) ** 2)
        assert moved <= 9 * f / (n - f) * before


def test_monna_without_liars_is_averaging_of_momentum_steps():
    n, beta, a = 5, 0.9, 0.1
    centers = messages(n=n)
    x = robust.monna(
        quadratic(centers), np.ones((n, n)), np.zeros((n, D)), lambda k: a, 30, 0, beta
    )
    w, m = np.zeros(D), np.zeros(D)
    for k in range(30):
        m = beta * m + (1 - beta) * (w - centers.mean(0))
        w = w - a * m
        np.testing.assert_allclose(x[k + 1], np.tile(w, (n, 1)), atol=1e-12)


def test_on_a_complete_graph_all_honest_agents_make_the_same_of_one_lie():
    n = 8
    z, lying = messages(n=n), np.arange(n) >= 6
    for rule in [
        robust.trimmed_mean(2),
        robust.mda(2),
        robust.chain(robust.nnm(2), robust.median()),
    ]:
        mixed = robust.robust_mixing(
            rule, z, np.ones((n, n)), lying, lambda k, i, j, honest, f: honest.mean(0) - 2.0, 0
        )
        told = z.copy()
        told[6:] = z[:6].mean(0) - 2.0
        np.testing.assert_allclose(mixed[:6], np.tile(rule(told), (6, 1)), atol=1e-12)
        np.testing.assert_allclose(mixed[6:], np.tile(rule(z), (2, 1)), atol=1e-12)  # the truth


def test_liars_stop_the_mean_and_not_the_others():
    n, f, steps = 7, 2, 25
    centers = np.ones((n, D)) + 0.1 * messages(n=n)
    centers[n - f :] = 0.0
    lying = np.arange(n) >= n - f
    target = centers[: n - f].mean(0)

    def run(rule, attack):
        x = robust.robust_dsgd(
            quadratic(centers),
            np.ones((n, n)),
            np.zeros((n, D)),
            lambda k: 0.5,
            steps,
            rule,
            attack,
            lying,
            0.9,
        )
        return np.linalg.norm(x[-1, : n - f] - target, axis=1).max()

    def far(k, i, j, honest, f):
        return honest[0] + (1e6 if i % 2 else -1e6)

    def nan(k, i, j, honest, f):
        return np.full(D, np.nan)

    assert run(robust.mean(), far) > 1e5
    assert np.isnan(run(robust.mean(), nan))
    for rule in [robust.nna(f), robust.trimmed_mean(f), robust.krum(f), robust.caf(f)]:
        assert run(rule, far) < 0.5
        assert run(rule, nan) < 0.5


def test_momentum_helps_against_a_little_is_enough():
    n, f = 16, 3
    lying = np.arange(n) >= n - f

    def attack(k, i, j, honest, f):
        return robust.alie(1.5)(honest, f)

    def error(beta):
        x = robust.monna(
            quadratic(np.zeros((n, 1)), 3.0, seed=2),
            np.ones((n, n)),
            np.zeros((n, 1)),
            lambda k: 0.1,
            50,
            f,
            beta,
            attack,
            lying,
        )
        return np.mean(x[25:, : n - f] ** 2)

    assert error(0.95) < error(0.0) / 2


def test_who_lies_and_who_hears_may_change_with_the_round():
    n = 4
    hears = np.zeros((2, n, n), dtype=bool)
    hears[0, 0, 1], hears[1, 0, 2] = True, True
    liars = np.array([[0, 1, 0, 0], [0, 0, 0, 1]], dtype=bool)
    asked = []

    def attack(k, i, j, honest, f):
        asked.append((k, i, j, len(honest), f))
        return honest[0] + 4.0

    x0 = np.arange(4.0)[:, None]
    x = robust.robust_dsgd(
        lambda i, x, k: 0 * x, hears, x0, lambda k: 0.0, 2, robust.mean(), attack, liars
    )
    assert asked == [(0, 0, 1, 1, 1)]
    np.testing.assert_array_equal(x[:, :, 0], [[0, 1, 2, 3], [2, 1, 2, 3], [2, 1, 2, 3]])


# SybilWall


def first(k, s, t, peers, probabilities):
    return peers[0]


def path(n):
    return np.eye(n, k=1) + np.eye(n, k=-1)


def test_histories_travel_with_the_nearest_preferred():
    asked, stores = [], []

    def last(k, s, t, peers, probabilities):
        asked.append((k, s, t, tuple(peers), tuple(np.round(probabilities, 6))))
        return peers[-1]

    rng = np.random.default_rng(0)
    g = rng.normal(size=(10, 4, D))
    robust.sybilwall(
        lambda i, x, k, local: g[k, i],
        path(4),
        np.zeros((4, D)),
        lambda k: 0.1,
        4,
        last,
        stores=stores,
    )
    # round 0: nothing is kept yet; then 1 tells 0 of 2, and, once it knows, 2 tells 1 of 3
    assert [set(one) for one in stores[0]] == [{1}, {0, 2}, {1, 3}, {2}]
    assert [set(one) for one in stores[1]] == [{1, 2}, {0, 2, 3}, {0, 1, 3}, {1, 2}]
    assert set(stores[2][0]) == {1, 2, 3}
    assert stores[2][0][3][:3] == (0, 3, 1)  # of round 0, three hops away, told by 1
    assert stores[2][0][2][:3] == (0, 2, 1)
    near, far = 1.0, math.exp(-0.8)
    shares = tuple(np.round(np.array([near, far]) / (near + far), 6))
    assert (2, 1, 0, (2, 3), shares) in asked
    assert not any(t in peers for _, _, t, peers, _ in asked)  # nobody is told of itself
    assert not any(k == 2 and s == 1 and t == 2 and 3 in p for k, s, t, p, _ in asked)


def test_a_direct_history_is_the_sum_of_the_updates_since_the_start():
    x0, points = messages(n=4), []

    def gradient(i, x, k, local):
        if i == 0:
            points.append(x)
        return x - 1.0

    for history in ["updates", "sent"]:
        points.clear()
        stores = []
        robust.sybilwall(
            gradient, path(4), x0, lambda k: 0.1, 5, first, 2, history=history, stores=stores
        )
        before, sent = np.array(points[::2]), 1 + 0.9 * (np.array(points[1::2]) - 1)
        for k in range(5):
            when, distance, teller, h = stores[k][1][0]
            assert (when, distance, teller) == (k, 1, None)
            updates = np.sum((sent - before)[: k + 1], axis=0)
            np.testing.assert_allclose(
                h, updates if history == "updates" else sent[k] - x0[0], atol=1e-12
            )


def test_a_direct_history_is_never_replaced_by_one_told():
    hears = np.zeros((4, 3, 3), dtype=bool)
    hears[0, 0, 1] = True  # 0 hears 1 once, and of it from 2 later on
    hears[:, 2, 1], hears[1:, 0, 2] = True, True
    asked, stores = [], []

    def choose(k, s, t, peers, probabilities):
        asked.append((k, s, t, tuple(peers)))
        return peers[0]

    robust.sybilwall(
        lambda i, x, k, local: np.ones(2) + i,
        hears,
        np.zeros((3, 2)),
        lambda k: 0.1,
        4,
        choose,
        stores=stores,
    )
    assert (3, 2, 0, (1,)) in asked
    assert stores[3][0][1][:3] == (0, 1, None)
    assert stores[3][2][1][:3] == (3, 1, None)


def test_agents_that_differ_are_averaged_and_copies_are_left_out():
    # a star: the updates of agents 1 to 3 are orthogonal, those of 4 and 5 the same
    n = 6
    g = np.zeros((n, 5))
    for i in range(4):
        g[i, i] = 1.0
    g[4:, 4] = 1.0
    star = np.zeros((n, n))
    star[0, 1:], star[1:, 0] = 1, 1
    x = robust.sybilwall(
        lambda i, x, k, local: g[i], star, np.zeros((n, 5)), lambda k: 1.0, 1, first
    )
    np.testing.assert_allclose(x[1, 0], -g[:4].mean(0), atol=1e-12)
    np.testing.assert_allclose(x[1, 4], -(g[0] + g[4]) / 2, atol=1e-12)


def test_a_sybil_that_is_not_a_neighbor_gives_its_copy_away():
    # Sybils at both ends of a path tell 1 and n - 2 the same; 1 is told of the other one by 2
    n = 5
    lying = np.array([True, False, False, False, True])
    rng = np.random.default_rng(4)
    g = rng.normal(size=(n, 30))

    def attack(k, i, j, honest, f):
        return np.full(30, 3.0 * (k + 1))

    def of_liars(k, s, t, peers, probabilities):
        return next((p for p in peers if lying[p]), peers[0])

    stores = []
    x = robust.sybilwall(
        lambda i, x, k, local: g[i],
        path(n),
        np.zeros((n, 30)),
        lambda k: 0.1,
        4,
        of_liars,
        attack=attack,
        liars=lying,
        stores=stores,
    )
    z = x[:-1] - 0.1 * g
    # in round 1 agent 1 does not know of the other Sybil, and in round 2 it does
    assert 4 not in stores[1][1]
    assert stores[2][1][4][:3] == (0, 3, 2)
    lie = np.full(30, 6.0)
    np.testing.assert_allclose(x[2, 1], (z[1, 1] + lie + z[1, 2]) / 3, atol=1e-12)
    np.testing.assert_allclose(x[3, 1], (z[2, 1] + z[2, 2]) / 2, atol=1e-12)


def test_a_sybil_that_is_not_finite_is_left_out():
    lying = np.array([False, False, True])
    g = np.eye(3)
    x = robust.sybilwall(
        lambda i, x, k, local: g[i],
        1 - np.eye(3),
        np.zeros((3, 3)),
        lambda k: 1.0,
        3,
        first,
        attack=lambda k, i, j, honest, f: np.full(3, np.nan),
        liars=lying,
    )
    assert np.all(np.isfinite(x[:, :2]))
    np.testing.assert_allclose(x[1, 0], -(g[0] + g[1]) / 2)
