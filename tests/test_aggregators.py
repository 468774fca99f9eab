"""Robust rules: what they keep, what they withstand, and that they are one program for all f."""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdopt as jd
from jaxdopt.aggregators import (
    ARC,
    CAF,
    CGE,
    MDA,
    NNA,
    NNM,
    Bucketing,
    CenteredClipping,
    Clip,
    Flag,
    FoolsGold,
    GeometricMedian,
    Krum,
    MeaMed,
    Mean,
    Median,
    MultiKrum,
    SelfCenteredClipping,
    TrimmedMean,
    chain,
)

pytestmark = pytest.mark.slow  # test_robust_exactness asks of every rule and attack
N, D = 9, 6
KEY = jax.random.key(5)
HUGE = 1e3  # a radius that nothing reaches


class Row(NamedTuple):
    """A rule of f, and what is so of it."""

    make: Callable[[Any], Any]
    translates: bool = True  # R(x + c) = R(x) + c
    scales: bool = True  # R(s x) = s R(x), s > 0
    permutes: bool = True
    of_f: bool = True  # whether it has an f
    own: bool = False  # whether it depends on one's own message


RULES = {
    "mean": Row(lambda f: Mean(), of_f=False),
    "median": Row(lambda f: Median(), of_f=False),
    "trimmed mean": Row(TrimmedMean),
    "geometric median": Row(lambda f: GeometricMedian(), of_f=False),
    "Krum": Row(Krum),
    "Krum, 3 neighbors": Row(lambda f: Krum(f, neighbors=3)),
    "multi-Krum": Row(MultiKrum),
    "multi-Krum, 2": Row(lambda f: MultiKrum(f, select=2)),
    "centered clipping": Row(lambda f: CenteredClipping(0.7, 3), False, False, of_f=False),
    "self-centered clipping": Row(
        lambda f: SelfCenteredClipping(0.9), scales=False, of_f=False, own=True
    ),
    "self-centered, adaptive": Row(lambda f: SelfCenteredClipping(), of_f=False, own=True),
    "MDA": Row(MDA, permutes=False),  # the first of subsets with the same diameter
    "MeaMed": Row(MeaMed),
    "CAF": Row(CAF),
    "NNA": Row(NNA, own=True),
    "CGE": Row(CGE, translates=False),
    "Flag": Row(lambda f: Flag(), translates=False, of_f=False),
    "Flag, rank 1": Row(lambda f: Flag(1, iterations=2), translates=False, of_f=False),
    "FoolsGold": Row(lambda f: FoolsGold(), translates=False, of_f=False),
    "NNM, mean": Row(lambda f: chain(NNM(f), Mean())),
    "NNM, trimmed mean": Row(lambda f: chain(NNM(f), TrimmedMean(f))),
    "NNM, Krum": Row(lambda f: chain(NNM(f), Krum(f))),
    "bucketing, median": Row(lambda f: chain(Bucketing(2), Median()), permutes=False, of_f=False),
    "clip, mean": Row(lambda f: chain(Clip(0.8), Mean()), False, False, of_f=False),
    "ARC, mean": Row(lambda f: chain(ARC(f), Mean()), translates=False),
    "clip, NNM, trimmed mean": Row(
        lambda f: chain(Clip(2.0), NNM(f), TrimmedMean(f)), False, False
    ),
}
every_rule = pytest.mark.parametrize("name", RULES)


FEW = ["median", "Krum", "NNA", "CAF", "NNM, trimmed mean"]
some_rules = pytest.mark.parametrize(
    "name", [n if n in FEW else pytest.param(n, marks=pytest.mark.slow) for n in RULES]
)


TRACED = []  # the rules of which a program was made


@jax.jit
def aggregate(rule, x, heard, own, key):
    TRACED.append(type(rule))
    return rule(x, heard, own, key)


def result(rule, x, heard=None, own=0, key=KEY):
    """Return the aggregate: one program a rule, whatever its f, of nine messages."""
    x = np.asarray(x, float)
    heard = np.ones(len(x), bool) if heard is None else heard
    return np.asarray(aggregate(rule, x, heard, own, key))


def at_once(rule, x, heard=None, own=0):
    """Return the aggregate in a program for this f, and for any number of messages."""
    return np.asarray(jax.jit(lambda x: rule(x, heard, own, KEY))(jnp.asarray(x)))


def gaussian(seed, n=N, d=D):
    return np.random.default_rng(seed).normal(size=(n, d)) + 0.5


@every_rule
def test_a_rule_returns_one_vector_and_is_one_program_for_all_f(name):
    row, before = RULES[name], len(TRACED)
    for f in (2, 1, 0):
        found = result(row.make(f), gaussian(f))
        assert found.shape == (D,)
        assert np.all(np.isfinite(found))
    assert len(TRACED) <= before + 1


@some_rules
def test_a_rule_with_known_f_is_that_of_traced_f(name):
    x, make = gaussian(3), RULES[name].make
    np.testing.assert_allclose(at_once(make(2), x), result(make(2), x), rtol=1e-9, atol=1e-12)


@every_rule
def test_order_does_not_matter(name):
    row, x = RULES[name], gaussian(4)
    order = np.random.default_rng(0).permutation(N)
    if row.permutes:
        own = int(np.flatnonzero(order == 2)[0])
        found = result(row.make(2), x[order], own=own)
        np.testing.assert_allclose(found, result(row.make(2), x, own=2), rtol=1e-9, atol=1e-12)
    if not row.own:
        np.testing.assert_array_equal(result(row.make(2), x, own=4), result(row.make(2), x))


@every_rule
def test_translation_and_scale(name):
    row, x, shift = RULES[name], gaussian(5), np.array([3.0, -2.0, 0.5, 1.0, 0.0, -4.0])
    once = result(row.make(2), x)
    moved = result(row.make(2), x + shift) - shift
    assert np.allclose(moved, once, rtol=1e-8, atol=1e-10) == row.translates
    scaled = result(row.make(2), 4 * x) / 4
    atol = 1e-5 if name == "geometric median" else 1e-10  # smoothing is a length
    assert np.allclose(scaled, once, rtol=1e-8, atol=atol) == row.scales


@some_rules
def test_what_is_not_heard_does_not_exist(name):
    make, x = RULES[name].make, gaussian(6)
    heard = np.arange(N) % 4 != 3  # seven of nine
    some = result(make(2), np.where(heard[:, None], x, np.nan), heard)
    np.testing.assert_array_equal(some, result(make(2), np.where(heard[:, None], x, 7e8), heard))
    if name != "bucketing, median":  # other draws
        few = at_once(make(2), x[heard])
        np.testing.assert_allclose(some, few, rtol=1e-8, atol=1e-10)


MEANS = {  # what is the mean where there are no liars, or nothing to clip
    "trimmed mean": TrimmedMean(0),
    "multi-Krum": MultiKrum(0),
    "MDA": MDA(0),
    "MeaMed": MeaMed(0),
    "CAF": CAF(0),
    "NNA": NNA(0),
    "CGE": CGE(0),
    "NNM, mean": chain(NNM(0), Mean()),
    "NNM, trimmed mean": chain(NNM(0), TrimmedMean(0)),
    "NNM, Krum": chain(NNM(0), Krum(0)),
    "ARC, mean": chain(ARC(0), Mean()),
    "clip, mean": chain(Clip(HUGE), Mean()),
    "centered clipping": CenteredClipping(HUGE, 3),
    "self-centered clipping": SelfCenteredClipping(HUGE),
}


@pytest.mark.parametrize("name", MEANS)
def test_without_liars_a_rule_is_the_mean(name):
    x = gaussian(7)
    np.testing.assert_allclose(result(MEANS[name], x), x.mean(axis=0), rtol=1e-9, atol=1e-12)


def test_projecting_on_all_directions_is_the_mean_and_so_are_buckets_of_one():
    x = gaussian(7)
    for rule in (Flag(N), chain(Bucketing(1), Mean()), chain(Bucketing(20), Median())):
        np.testing.assert_allclose(at_once(rule, x), x.mean(axis=0), rtol=1e-9)


def test_coordinates_are_sorted():
    x, heard = gaussian(8), np.arange(N) != 4
    np.testing.assert_allclose(result(Median(), x), np.median(x, axis=0))
    np.testing.assert_allclose(result(Median(), x, heard), np.median(x[heard], axis=0))
    np.testing.assert_allclose(result(TrimmedMean(3), x), np.sort(x, axis=0)[3:-3].mean(axis=0))


def test_the_geometric_median_is_the_point_of_least_distance():
    x = gaussian(9)

    def total(z):
        return np.sum(np.linalg.norm(x - z, axis=1))

    found = at_once(GeometricMedian(iterations=300), x)
    around = found + 1e-3 * np.random.default_rng(0).normal(size=(50, D))
    assert total(found) <= min(map(total, around))
    assert total(found) < total(x.mean(axis=0))


LIES = {
    "far": lambda rng, shape: 1e9 * rng.normal(size=shape),
    "near": lambda rng, shape: 3 + rng.normal(size=shape),
    "nan": lambda rng, shape: np.full(shape, np.nan),
    "infinite": lambda rng, shape: np.where(rng.random(shape) < 0.5, np.inf, -np.inf),
    "too large to square": lambda rng, shape: 1e200 * rng.normal(size=shape),
    "one nan": lambda rng, shape: np.where(np.arange(shape[1]) == 1, np.nan, 1.0),
}


@pytest.mark.parametrize("lie", LIES)
@every_rule
def test_up_to_the_breakdown_point_lies_of_any_size_move_a_rule_by_little(name, lie):
    for f in (2, 1, 4):
        if f == 4 and ("neighbors" in name or "self-centered, adaptive" in name):
            continue
        rule = RULES[name].make(f)
        liars = min(int(rule.breakdown(N)), f if RULES[name].of_f else N - 1)
        rng, honest = np.random.default_rng(f), gaussian(f)
        honest[:] = 0.1 * honest + 1
        who = rng.permutation(np.arange(1, N))[:liars]
        honest[who] = LIES[lie](rng, honest[who].shape)
        assert np.linalg.norm(result(rule, honest, own=0) - 1) < 6


DRIVEN = {  # lies, all at one far point, that are enough to move a rule there
    "mean": (Mean(), 1),
    "median": (Median(), 5),
    "geometric median": (GeometricMedian(), 5),
    "trimmed mean": (TrimmedMean(2), 3),
    "MeaMed": (MeaMed(2), 3),
    "MDA": (MDA(2), 3),
    "multi-Krum": (MultiKrum(2), 3),
    "multi-Krum, 2": (MultiKrum(2, select=2), 7),
    "NNA": (NNA(2), 3),
    "CGE": (CGE(2), 3),
    "Krum": (Krum(4), 5),
    "Krum, 3 neighbors": (Krum(3, neighbors=3), 4),
    "CAF": (CAF(4), 5),
    "Flag": (Flag(), 1),
    "NNM, mean": (chain(NNM(2), Mean()), 1),
    "NNM, trimmed mean": (chain(NNM(2), TrimmedMean(2)), 3),
    "bucketing, median": (chain(Bucketing(2), Median()), 5),
    "ARC, mean": (chain(ARC(2), Mean()), 4),
    "self-centered, adaptive": (SelfCenteredClipping(), 2),
}


@pytest.mark.parametrize("name", DRIVEN)
def test_beyond_the_breakdown_point_a_rule_goes_where_it_is_driven(name):
    rule, liars = DRIVEN[name]
    x = gaussian(10)
    x[1 : liars + 1] = 1e9 * np.array([1.0, -2.0, 3.0, 0.0, 1.0, 2.0])
    assert np.linalg.norm(result(rule, x)) > 1e7
    assert liars > rule.breakdown(N)
    if name in MEANS or name in ("mean", "median"):  # what has to take one in
        x[1 : liars + 1] = np.nan
        assert not np.any(np.isfinite(result(rule, x))) or name in ("CAF", "ARC, mean")


BOUNDED = {
    "ARC, trimmed mean": lambda f: chain(ARC(f), TrimmedMean(f)),
    "ARC, median": lambda f: chain(ARC(f), Median()),
    "median": lambda f: Median(),
    "trimmed mean": TrimmedMean,
    "geometric median": lambda f: GeometricMedian(),
    "Krum": Krum,
    "NNM, trimmed mean": lambda f: chain(NNM(f), TrimmedMean(f)),
    "NNM, Krum": lambda f: chain(NNM(f), Krum(f)),
}


def worst(rule, x, f):
    """Return the largest |R − x̄_S|² over the variance of S, of all S of n − f messages."""
    found, most = result(rule, x), 0.0
    for chosen in itertools.combinations(range(len(x)), len(x) - f):
        honest = x[list(chosen)]
        mean = honest.mean(axis=0)
        variance = np.mean(np.sum((honest - mean) ** 2, axis=1))
        most = max(most, np.sum((found - mean) ** 2) / max(variance, 1e-12))
    return most


@pytest.mark.parametrize("name", BOUNDED)
def test_kappa_bounds_all_subsets(name):
    rng = np.random.default_rng(1)
    largest = 0.0
    for f in (1, 2, 4):
        rule = BOUNDED[name](f)
        inputs = [rng.normal(size=(N, D)), rng.standard_cauchy(size=(N, D))]
        inputs += [rng.integers(0, 2, size=(N, D)).astype(float) for _ in range(3)]
        inputs += [np.repeat(np.arange(N)[:, None] < f, D, axis=1).astype(float)]
        found = max(worst(rule, x, f) for x in inputs)
        assert found <= rule.kappa(N, f) * (1 + 1e-9)
        largest = max(largest, found / (f / (N - 2 * f)))
    assert largest > 0.3  # the bounds are not empty


def test_no_kappa_is_below_that_of_any_rule():
    for name, row in RULES.items():
        for f in (1, 2, 3):
            kappa = row.make(f).kappa(N, f)
            assert kappa is None or kappa >= f / (N - 2 * f), name
    assert Mean().kappa(9, 1) == np.inf
    assert Mean().kappa(9, 0) == 0
    assert Median().kappa(9, 5) == np.inf
    np.testing.assert_allclose(TrimmedMean(2).kappa(9, 2), 6 * 0.4 * 1.4)
    np.testing.assert_allclose(chain(ARC(2), TrimmedMean(2)).kappa(9, 2), 6 * 0.4 * 1.4 + 0.8)


def test_breakdown_points_of_chains():
    assert chain(NNM(2), Median()).breakdown(9) == 2
    assert chain(Bucketing(2), Median()).breakdown(9) == 2  # of five buckets
    assert chain(Clip(1.0), Mean()).breakdown(9) == 9
    assert chain(ARC(2), Mean()).breakdown(9) == 3
    assert chain(Bucketing(3), NNM(1), TrimmedMean(1)).breakdown(9) == 1
    assert chain(Median()).breakdown(9) == Median().breakdown(9) == 4


# Ties, duplicates


def test_of_messages_that_tie_the_first_are_kept():
    corners = np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]])
    np.testing.assert_array_equal(at_once(Krum(1, neighbors=2), corners), [0, 0])
    np.testing.assert_array_equal(at_once(NNA(2), corners), [0.5, 0])
    np.testing.assert_array_equal(at_once(CGE(1), 2 * corners - 1), [1 / 3, -1 / 3])
    line = np.arange(5.0)[:, None]
    np.testing.assert_array_equal(at_once(MDA(2), line), [1])
    np.testing.assert_array_equal(at_once(MDA(2), line[::-1]), [3])
    np.testing.assert_array_equal(at_once(MeaMed(2), line[[0, 2, 1, 4, 3]]), [2])
    np.testing.assert_array_equal(at_once(MeaMed(1), line[:4]), [1])


@every_rule
def test_equal_messages_are_their_own_aggregate(name):
    if name.startswith(("centered", "clip")):
        return
    x = np.tile([0.3, -0.2, 0.1, 0.0, 1.0, -1.0], (N, 1))
    np.testing.assert_allclose(result(RULES[name].make(2), x), x[0], rtol=1e-12)


@pytest.mark.slow
def test_no_far_message_blinds_the_distances_of_near_ones(float32):
    """Not even as the first of all: the Gram matrix has its origin at an honest message."""
    x = (1e3 + 0.1 * gaussian(11, 9, 40)).astype(np.float32)
    x[3] += 3  # ten times as far as the others from each other
    for rule in (MultiKrum, NNA):
        clean = at_once(rule(1), x[1:])
        x[0] = 1e12
        np.testing.assert_allclose(at_once(rule(2), x, own=1), clean, rtol=1e-6)


# Slopes


@jax.jit
def slope(rule, x, heard, own, key):
    def total(x):
        return jnp.sum(jnp.sin(rule(x, heard, own, key)))

    return jax.value_and_grad(total)(x)


@some_rules
def test_slopes_are_those_of_differences_and_finite_where_messages_are_equal(name):
    rule, heard, own = RULES[name].make(2), np.arange(N) != 7, 0
    for degenerate in (np.ones((N, D)), np.zeros((N, D)), np.repeat(gaussian(1, 3), 3, axis=0)):
        assert np.all(np.isfinite(slope(rule, degenerate, heard, own, KEY)[1])), name
    x = gaussian(12)
    lied = x.copy()
    lied[5] = np.nan
    if name not in ("mean", "NNM, mean"):
        assert np.all(np.isfinite(slope(rule, lied, heard, own, KEY)[1]))
    value, found = slope(rule, x, heard, own, KEY)
    assert np.all(found[7] == 0)
    direction, h = gaussian(13), 1e-6
    up, down = (slope(rule, x + s * direction, heard, own, KEY)[0] for s in (h, -h))
    expected = float(up - down) / (2 * h)
    np.testing.assert_allclose(np.sum(found * direction), expected, rtol=1e-4, atol=1e-6)
    assert np.isfinite(value)


@pytest.mark.parametrize(
    ("rule", "field"),
    [
        (Clip(0.8), "radius"),
        (CenteredClipping(0.7), "radius"),
        (SelfCenteredClipping(0.7), "radius"),
    ],
)
@pytest.mark.slow
def test_radii_have_slopes(rule, field):
    rule = chain(rule, Mean()) if isinstance(rule, Clip) else rule
    slopes = jax.grad(lambda rule: jnp.sum(rule(jnp.asarray(gaussian(1))) ** 2))(rule)
    (found,) = jax.tree.leaves(slopes)
    assert np.isfinite(found)
    assert found != 0


# Forms


def test_f_and_receivers_are_swept():
    x = jnp.asarray(gaussian(14))
    rules = jax.vmap(TrimmedMean)(jnp.arange(4.0))
    swept = jax.jit(jax.vmap(lambda rule: rule(x)))(rules)
    for f in range(4):
        np.testing.assert_allclose(swept[f], result(TrimmedMean(f), x), rtol=1e-12)
    own = jax.jit(jax.vmap(lambda i: NNA(3)(x, None, i)))(jnp.arange(N))
    for i in range(N):
        np.testing.assert_allclose(own[i], result(NNA(3), x, own=i), rtol=1e-9)


@some_rules
def test_padded_neighborhoods_are_mapped_over(name):
    rule, x = RULES[name].make(1), gaussian(18, 4 * N).reshape(4, N, D)
    heard = np.arange(N) < np.array([9, 5, 3, 7])[:, None]
    x = np.where(heard[:, :, None], x, np.nan)
    mapped = jax.jit(jax.vmap(lambda x, heard: rule(x, heard, 0, KEY)))(x, heard)
    for i in range(4):
        np.testing.assert_allclose(mapped[i], result(rule, x[i], heard[i]), rtol=1e-8, atol=1e-10)


def shapes(jaxpr):
    """Yield the shapes of all results in a jaxpr and those within it."""
    for equation in jaxpr.eqns:
        yield from (v.aval.shape for v in equation.outvars)
        for inner in jax.tree.leaves(
            equation.params, is_leaf=lambda p: hasattr(p, "jaxpr") or hasattr(p, "eqns")
        ):
            if hasattr(inner, "jaxpr") or hasattr(inner, "eqns"):
                yield from shapes(getattr(inner, "jaxpr", inner))


@pytest.mark.parametrize("name", [n for n in RULES if n not in ("MDA", "bucketing, median")])
def test_all_receivers_of_the_same_messages_never_need_n_times_n_times_d(name):
    n, d = 40, 200
    rule, x = RULES[name].make(2), jnp.zeros((n, d))

    def every(x):
        return jax.vmap(lambda i: rule(x, None, i, KEY))(jnp.arange(n))

    largest = max(np.prod(s, dtype=int) for s in shapes(jax.make_jaxpr(every)(x).jaxpr))
    assert largest < n * n * d


@pytest.mark.slow
@every_rule
def test_single_precision(name, float32):
    x = gaussian(15).astype(np.float32)
    found = at_once(RULES[name].make(2), x)
    assert found.dtype == np.float32
    with jax.enable_x64(True):
        exact = result(RULES[name].make(2), x)
    tolerance = 2e-2 if "Flag" in name else 2e-5
    np.testing.assert_allclose(found, exact, rtol=tolerance, atol=tolerance)


def test_half_precision_is_summed_in_single():
    x = jnp.asarray(np.full((500, 1), 1.0), jnp.bfloat16)
    for rule in (Mean(), TrimmedMean(3), NNA(3), CenteredClipping(4.0)):
        found = at_once(rule, x)
        assert found.dtype == jnp.bfloat16
        np.testing.assert_array_equal(found.astype(float), [1.0])


def test_similar_histories_lose_their_weight():
    """The unit tests of SybilWall's authors, and identical Sybils."""
    of = jax.jit(FoolsGold().weights)
    np.testing.assert_allclose(of(np.array([[0.0, 1], [1, 0], [1, -1]])), [1, 0, 0])
    np.testing.assert_allclose(of(np.array([[0.0, 1], [1, 0], [0, -1]])), [1, 1, 1])
    np.testing.assert_allclose(of(np.array([[0.0, 1], [1, 0], [1, 0], [1, 0]])), [1, 0, 0, 0])
    np.testing.assert_allclose(of(np.array([[0.0, 1], [1, np.nan]])), [1, 0])


def test_the_flag_keeps_the_messages_direction_and_is_blind_to_signs():
    """Five of fifteen are Gaussian: the cosine to the truth is far above the mean's."""
    rng = np.random.default_rng(2)
    truth = rng.normal(size=50)
    x = truth + 0.5 * rng.normal(size=(15, 50))
    x[:5] = 20 * rng.normal(size=(5, 50))

    def cosine(found, other=truth):
        return np.dot(found, other) / np.linalg.norm(found) / np.linalg.norm(other)

    flag = at_once(Flag(1), x)
    assert cosine(flag) > 0.9 > 0.6 > cosine(x.mean(axis=0))
    x[:5] = -x[5:].mean(axis=0)
    flipped = at_once(Flag(1), x)
    np.testing.assert_allclose(cosine(flipped), cosine(x.mean(axis=0)), atol=0.02)


def test_weights_say_who_is_kept():
    x = jnp.asarray([[0.0], [0.1], [9.0], [0.2], [np.nan]])
    heard = jnp.array([True, True, True, False, True])
    expected = {NNA(2): [0.5, 0.5, 0, 0, 0], Krum(1): [0, 1, 0, 0, 0], MDA(1): [1 / 3] * 3 + [0, 0]}
    for rule, weights in expected.items():
        found = jax.jit(lambda rule: rule.weights(x, heard))(rule)
        np.testing.assert_allclose(found, weights, rtol=1e-12)


@pytest.mark.parametrize("seed", [1, 3, 5, 7])
def test_filtering_by_covariance_is_its_loop_where_two_messages_are_equal(seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(N, D)) + 0.3
    x[1], x[2] = 50 * x[1], x[3]
    f, c, least, best = 4, np.ones(N), np.inf, x.mean(axis=0)
    while c.sum() > N - 2 * f:
        mean = c @ x / c.sum()
        values, vectors = np.linalg.eigh((x - mean).T * c @ (x - mean) / c.sum())
        if values[-1] < least:
            least, best = values[-1], mean
        along = ((x - mean) @ vectors[:, -1]) ** 2
        c = c * (1 - along / along[c > 0].max())
        c[c < 1e-12] = 0
    np.testing.assert_allclose(result(CAF(f), x), best, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("f", [1, 3])
def test_the_smallest_diameter_is_that_of_all_subsets(f):
    x = gaussian(19)

    def diameter(chosen):
        return max(np.sum((x[i] - x[j]) ** 2) for i in chosen for j in chosen)

    best = min(itertools.combinations(range(N), N - f), key=diameter)
    np.testing.assert_allclose(result(MDA(f), x), x[list(best)].mean(axis=0), rtol=1e-9)


def test_preparations_are_their_formulas():
    x = gaussian(16)
    mixed, heard = jax.jit(NNM(3).before)(x)
    assert heard is None
    for i in range(N):
        near = np.argsort(np.linalg.norm(x - x[i], axis=1), kind="stable")[: N - 3]
        np.testing.assert_allclose(mixed[i], x[near].mean(axis=0), rtol=1e-9)
    norms = np.linalg.norm(x, axis=1)
    clipped, _ = jax.jit(ARC(2).before)(x)
    level = np.sort(norms)[N - 1 - 3]  # ⌊2 · 2 · 7 / 9⌋ = 3 are clipped
    np.testing.assert_allclose(clipped, x * np.minimum(1, level / norms)[:, None], rtol=1e-9)
    present = np.arange(N) != 2
    bucketed = jax.jit(Bucketing(3).before)
    means, buckets = bucketed(x, present, KEY)
    np.testing.assert_array_equal(buckets, [True, True, True])
    total = 3 * means[0] + 3 * means[1] + 2 * means[2]
    np.testing.assert_allclose(total, x[present].sum(axis=0), rtol=1e-9)
    other, _ = bucketed(x, present, jax.random.key(6))
    assert np.any(other != means)


def test_non_finite_messages_stay_so_until_they_are_rejected():
    x = gaussian(17)
    x[4] = np.inf
    for preparation in (NNM(1), ARC(0)):
        prepared = np.asarray(jax.jit(preparation.before)(x)[0])
        np.testing.assert_array_equal(np.isfinite(prepared[:, 0]), np.arange(N) != 4)
    for preparation in (Clip(1.0), ARC(1)):
        np.testing.assert_array_equal(jax.jit(preparation.before)(x)[0][4], 0)


X = np.zeros((6, 2))
REFUSED = {
    "half an f": (lambda: TrimmedMean(1.5), r"f is 1\.5; give a whole number"),
    "a negative f": (lambda: Krum(-1), "f is -1; give at least 0"),
    "f a rule each": (lambda: NNM(np.zeros((4, 1))), "one number for all agents"),
    "a negative radius": (lambda: Clip(-1.0), "radius is -1; give at least 0"),
    "no smoothing": (lambda: GeometricMedian(smoothing=0.0), "smoothing is 0; give more than 0"),
    "no iterations": (lambda: CenteredClipping(1.0, iterations=0), "iterations is 0"),
    "no bucket": (lambda: Bucketing(0), "size is 0"),
    "half lie": (lambda: TrimmedMean(3)(X), "f of TrimmedMean is 3, of 6 messages; give at most 2"),
    "half of those heard": (
        lambda: Krum(2)(X, np.arange(6) < 4),
        "f of Krum is 2, of 4 messages; give at most 1",
    ),
    "all others lie": (lambda: NNA(6)(X), "f of NNA is 6, of 6 messages; give at most 5"),
    "in a chain": (lambda: chain(NNM(3), Mean())(X), "f of NNM is 3"),
    "breakdown": (lambda: MDA(3).breakdown(6), "f of MDA is 3, of 6 messages"),
    "too many subsets": (lambda: MDA(1)(np.zeros((17, 2))), "subsets of 17 messages; give at most"),
    "neighbors": (lambda: Krum(1, neighbors=6)(X), "neighbors is 6, of 6 messages; give at most 5"),
    "select": (lambda: MultiKrum(1, select=7)(X), "select is 7, of 6 messages; give at most 6"),
    "no messages": (lambda: Mean()(X[0]), r"x has shape \(2,\); give one message a row"),
    "heard of others": (lambda: Mean()(X, np.ones(4, bool)), r"heard has shape \(4,\)"),
    "nobody": (lambda: Mean()(X, np.zeros(6, bool)), "no message is heard"),
    "no key": (lambda: chain(Bucketing(2), Mean())(X), "Bucketing draws the buckets; give a key"),
    "no rule": (lambda: chain(NNM(1), Clip(1.0)), r"rule is Clip.*; give one of jd\.aggregators"),
    "a rule too early": (lambda: chain(Mean(), Mean()), r"Mean\(\) in a chain is not for messages"),
    "nothing": (lambda: chain(), "a chain of nothing has no rule"),
    "own in a bucket": (lambda: chain(Bucketing(2), NNA(1)), "needs one's own message"),
    "own in a chain in a bucket": (
        lambda: chain(Bucketing(2), chain(NNM(1), NNA(1))),
        "needs one's own message",
    ),
    "a class": (lambda: chain(NNM(1), Mean), "rule is .*; give one of"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_is_refused_with_its_value_and_a_remedy(name):
    call, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        call()


def test_every_public_rule_is_in_the_table():
    used = set()
    for row in RULES.values():
        rule = row.make(1)
        parts = [rule, *getattr(rule, "preparations", ()), getattr(rule, "rule", None)]
        used |= {type(part).__name__ for part in parts}
    assert set(jd.aggregators.__all__) - {"chain", "Aggregator"} <= used
