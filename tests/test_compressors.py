"""Every compressor keeps the constants it claims, measured over many draws, and its bits."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdopt as jd
from jaxdopt.algorithms.compressed import messages
from jaxdopt.compressors import (
    E3M0,
    SRHT,
    Blocks,
    Contractive,
    CountSketch,
    Dither,
    GaussianSketch,
    Identity,
    Natural,
    RademacherSketch,
    RandomK,
    ScaledSign,
    Sign,
    TopK,
    is_contractive,
    is_unbiased,
    per_leaf,
)

D, DRAWS = 12, 3000
KEY = jax.random.key(3)
UNBIASED = {
    "identity": Identity(),
    "random 1": RandomK(1),
    "random 5": RandomK(5),
    "dither, 2 bits": Dither(bits=2),
    "dither, 1 level": Dither(levels=1),
    "dither, blocks": Dither(bits=2, block=5),
    "dither, euclidean": Dither(levels=3, norm="euclidean"),
    "dither, euclidean, 1 level": Dither(levels=1, norm="euclidean"),
    "natural": Natural(),
    "float": E3M0(),
    "float, blocks": Blocks(E3M0(), 7),
    "random 1, blocks": Blocks(RandomK(1), 4),
    "gaussian sketch": GaussianSketch(5),
    "rademacher sketch": RademacherSketch(3),
    "count sketch": CountSketch(5),
    "srht": SRHT(3),
}
CONTRACTIVE = {
    "identity": Identity(),
    "top 1": TopK(1),
    "top 5": TopK(5),
    "top 50": TopK(50),
    "top 0.3": TopK(density=0.3),
    "random 5": RandomK(5, scaled=False),
    "scaled sign": ScaledSign(),
    "of random 5": Contractive(RandomK(5)),
    "of dither": Contractive(Dither(levels=1)),
    "of natural": Contractive(Natural()),
    "float, nearest": E3M0(nearest=True),
    "of float": Contractive(E3M0()),
    "top 2, blocks": Blocks(TopK(2), 5),
    "of srht": Contractive(SRHT(3)),
}
COMPRESSORS = {
    **{f"unbiased, {name}": c for name, c in UNBIASED.items()},
    **{f"contractive, {name}": c for name, c in CONTRACTIVE.items()},
    "sign": Sign(),
}
VECTORS = {
    "gaussian": np.random.default_rng(0).normal(size=D),
    "heavy tails": np.random.default_rng(1).standard_cauchy(size=D),
    "sparse": np.where(np.arange(D) % 5 == 1, [1.0, -2.0, 0.5] * 4, 0.0),
    "equal": np.where(np.arange(D) % 2, 4 / 3, -4 / 3),
    "one large": np.where(np.arange(D) == 3, 10.0, 4 / 3 / 16),
}
every_compressor = pytest.mark.parametrize("name", COMPRESSORS)


@jax.jit
def compressed(compressor, key, x):
    return compressor(key, x)


@jax.jit
def compressed_apart(compressor, key, x):
    """Compress each row with a key of its own, as sketches draw one matrix for all rows."""
    keys = jax.random.split(key, len(x))
    return jax.vmap(lambda k, row: compressor(k, row[None])[0])(keys, x)


def messages_of(compressor, x, key=KEY):
    """Return what arrives of every row; one shape for nearly all tests, so one program each."""
    return np.asarray(compressed(compressor, key, x))


def draws(compressor, vector):
    """Return many independent messages of one vector, [draws, d]."""
    rows = np.tile(vector, (DRAWS, 1))
    if hasattr(getattr(compressor, "unbiased", compressor), "decode"):
        return np.asarray(compressed_apart(compressor, KEY, rows))
    return messages_of(compressor, rows)


def gaussian(seed):
    return np.random.default_rng(seed).normal(size=(DRAWS, D))


def squared_errors(compressor, vector):
    return np.sum((draws(compressor, vector) - vector) ** 2, axis=1)


def assert_mean(samples, expected):
    """The mean over the first axis is as expected, within six of its standard errors."""
    allowed = 6 * samples.std(axis=0) / np.sqrt(len(samples)) + 1e-12
    assert np.all(np.abs(samples.mean(axis=0) - expected) <= allowed)


@pytest.mark.parametrize("vector", VECTORS)
@pytest.mark.parametrize("name", UNBIASED)
def test_unbiased_compressors_keep_the_mean_and_omega(name, vector):
    compressor, x = UNBIASED[name], VECTORS[vector]
    messages = draws(compressor, x)
    assert_mean(messages, x)
    errors = np.sum((messages - x) ** 2, axis=1)
    allowed = 6 * errors.std() / np.sqrt(DRAWS) + 1e-12
    assert errors.mean() <= compressor.omega(D) * np.sum(x**2) + allowed


@pytest.mark.parametrize("vector", VECTORS)
@pytest.mark.parametrize("name", CONTRACTIVE)
def test_contractive_compressors_keep_delta(name, vector):
    compressor, x = CONTRACTIVE[name], VECTORS[vector]
    errors = squared_errors(compressor, x)
    allowed = 6 * errors.std() / np.sqrt(DRAWS) + 1e-12
    assert errors.mean() <= (1 - compressor.delta(D)) * np.sum(x**2) + allowed


@pytest.mark.parametrize("k", [1, 5, 12, 50])
@pytest.mark.parametrize("vector", VECTORS)
def test_random_coordinates_have_omega_and_delta_with_equality(k, vector):
    x = VECTORS[vector]
    for compressor in (RandomK(k), RandomK(k, scaled=False)):
        factor = compressor.omega(D) if compressor.scaled else 1 - compressor.delta(D)
        errors = squared_errors(compressor, x)
        assert_mean(errors, factor * np.sum(x**2))
        if vector == "equal":  # then it is so in every draw
            np.testing.assert_allclose(errors, factor * np.sum(x**2), rtol=1e-12, atol=1e-12)


def test_random_coordinates_are_drawn_uniformly():
    kept = draws(RandomK(5), np.ones(D)) != 0
    assert np.all(kept.sum(axis=1) == 5)
    assert_mean(kept, 5 / D)
    both = kept[:, :, None] & kept[:, None, :]
    pairs = both.mean(axis=0)[~np.eye(D, dtype=bool)]
    assert np.max(np.abs(pairs - 5 * 4 / (D * (D - 1)))) < 0.03


@pytest.mark.parametrize("vector", VECTORS)
def test_scaled_signs_lose_what_the_one_norm_says(vector):
    x = VECTORS[vector]
    expected = np.sum(x**2) - np.sum(np.abs(x)) ** 2 / D
    zeros = np.sum(x == 0) * np.mean(np.abs(x)) ** 2  # their sign is 0, so they cost nothing
    errors = squared_errors(ScaledSign(), x)
    np.testing.assert_allclose(errors, expected - zeros, rtol=1e-12, atol=1e-12)


def test_the_largest_coordinates_are_kept_and_equal_ones_are_the_worst_case():
    x = VECTORS["heavy tails"]
    kept = draws(TopK(5), x)[0]
    largest = np.sort(np.argsort(-np.abs(x))[:5])
    np.testing.assert_array_equal(np.flatnonzero(kept), largest)
    np.testing.assert_array_equal(kept[largest], x[largest])
    equal = VECTORS["equal"]
    np.testing.assert_allclose(squared_errors(TopK(5), equal), (1 - 5 / D) * np.sum(equal**2))


@pytest.mark.parametrize("exponent", [-3, 0, 5])
def test_natural_compression_has_its_omega_at_four_thirds(exponent):
    x = 4 / 3 * 2.0**exponent * np.where(np.arange(D) % 3, 1, -1)
    messages = draws(Natural(), x)
    assert set(np.unique(np.abs(messages))) == {2.0**exponent, 2.0 ** (exponent + 1)}
    assert_mean((messages - x) ** 2, x**2 / 8)


def test_natural_compression_leaves_powers_of_two_alone():
    x = np.array([1.0, -2.0, 0.25, -(2.0**-30), 2.0**40, 0.0] * 2)
    np.testing.assert_array_equal(draws(Natural(), x), np.tile(x, (DRAWS, 1)))


def neighbors(x):
    """The values of 4-bit floats around |x|, of a row whose largest modulus is 1."""
    grid = np.array([0, *2.0 ** -np.arange(7)])
    return [max(g for g in grid if g <= abs(v)) for v in x], [
        min([g for g in grid if g > abs(v)], default=1.0) for v in x
    ]


def test_floats_of_four_bits_are_the_neighbors_of_what_they_stand_for():
    x = np.array([1.0, -0.75, 0.51, 0.3, -0.25, 0.1, 2.0**-6, 0.01, -0.004, 0.002, 0.0, 0.9])
    (below, above), drawn = neighbors(x), draws(E3M0(), 3 * x) / 3
    assert np.all((np.abs(drawn) == below) | (np.abs(drawn) == above))
    assert np.all(np.sign(drawn) * np.sign(x) >= 0)
    p = (np.abs(x) - below) / np.maximum(np.subtract(above, below), 1e-300)
    assert_mean(np.abs(drawn) == above, np.where(np.equal(above, below), 1, p))
    nearest = np.abs(messages_of(E3M0(nearest=True), np.tile(3 * x, (DRAWS, 1)))[0]) / 3
    np.testing.assert_array_equal(nearest, np.where(p > 0.5, above, below))


@pytest.mark.parametrize("nearest", [False, True])
def test_floats_of_four_bits_have_their_constants_at_the_worst_vectors(nearest):
    """All but one coordinate below the grid, or all in the middle of its neighbors."""
    compressor, d = E3M0(nearest=nearest), 200_000
    said = 1 - compressor.delta(d) if nearest else compressor.omega(d)
    worst = 0.9999999 * 2.0**-7 if nearest else 2.0**-7 / (1 + said)
    x = np.r_[1.0, np.full(d - 1, worst)][None]
    error = np.sum((np.asarray(compressor(KEY, x)) - x) ** 2) / np.sum(x**2)
    np.testing.assert_allclose(error, said, rtol=1e-2)
    x = np.r_[1.0, np.full(999, 2 / 3 if not nearest else 0.75 * (1 - 1e-9))][None]
    error = np.sum((np.asarray(compressor(KEY, x)) - x) ** 2) / np.sum(x**2)
    np.testing.assert_allclose(error, 1 / 9 if nearest else 1 / 8, rtol=0.1)


def test_blocks_are_compressed_alone():
    x = gaussian(8)
    whole = messages_of(Blocks(TopK(2), 5), x)
    for first in range(0, D, 5):
        part = slice(first, first + 5)
        np.testing.assert_array_equal(
            whole[:, part], np.asarray(TopK(2)(KEY, jnp.asarray(x[:, part])))
        )
    np.testing.assert_array_equal(messages_of(Blocks(TopK(2), 50), x), messages_of(TopK(2), x))


@pytest.mark.parametrize("density", [1e-9, 0.07, 0.1, 0.25, 0.999, 1.0])
def test_a_density_keeps_its_share_of_the_coordinates(density):
    """Whether it is known or traced, and at least one; rounding errors of the product aside."""
    x = np.random.default_rng(0).normal(size=(3, 100))
    k = max(1, round(np.ceil(100 * density - 1e-9)))
    known, top = TopK(density=density), np.asarray(TopK(k)(None, jnp.asarray(x)))
    np.testing.assert_array_equal(known(None, jnp.asarray(x)), top)
    np.testing.assert_array_equal(messages_of(known, x), top)
    told = [known.delta(100), known.error(100), known.bits(100)]
    assert told == [TopK(k).delta(100), TopK(k).error(100), TopK(k).bits(100)]
    traced = jax.jit(lambda top: (top.delta(100), top.error(100), top.bits(100)))(known)
    np.testing.assert_allclose(traced, told, rtol=1e-12)


def leaves(*sizes, problem=jd.problems.Oracle):
    """Return a problem whose parameters have leaves of some sizes."""
    params = {f"{i}": jnp.zeros(size) for i, size in enumerate(sizes)}
    return problem(lambda w, own, key: w, jnp.zeros((2, 1)), params)


def test_compressors_say_which_constants_they_have():
    assert all(map(is_unbiased, UNBIASED.values()))
    assert all(map(is_contractive, CONTRACTIVE.values()))
    both = {name for name, c in COMPRESSORS.items() if is_unbiased(c) and is_contractive(c)}
    assert both == {"unbiased, identity", "contractive, identity"}
    assert not is_contractive(Sign())


@pytest.mark.parametrize("compressor", [TopK(density=0.25), RandomK(2)])
@pytest.mark.parametrize("dense", [0, 5, 100])
def test_leaves_are_compressed_alone_and_small_ones_sent_whole(compressor, dense):
    sizes, d = (2, 5, 7), 14
    each = per_leaf(compressor, leaves(*sizes), dense)
    x = np.random.default_rng(0).normal(size=(20, d))
    got, first, bits = messages_of(each, x), 0, 0
    for i, size in enumerate(sizes):
        part, first = slice(first, first + size), first + size
        alone, key = jnp.asarray(x[:, part]), jax.random.fold_in(KEY, i)
        expected = alone if size <= dense else compressed(compressor, key, alone)
        np.testing.assert_array_equal(got[:, part], expected)
        bits += 32 * size if size <= dense else compressor.bits(size)
        assert np.all(each.whole(d)[part] == (size <= dense))
    assert each.bits(d) == bits
    large = [size for size in sizes if size > dense]
    assert is_unbiased(each) == is_unbiased(compressor) == (not is_contractive(each))
    if is_unbiased(compressor):
        assert each.omega(d) == max(map(compressor.omega, large), default=0)
    else:
        assert each.delta(d) == min(map(compressor.delta, large), default=1)
    errors = sum(size * compressor.error(size) for size in large)
    np.testing.assert_allclose(each.error(d), errors / d, atol=1e-15)


def test_the_share_of_all_leaves_is_one_traced_number():
    def kept(density):
        each = per_leaf(TopK(density=density), leaves(2, 7, 3))
        return each.delta(12), each.bits(12), each(KEY, jnp.arange(1.0, 13.0)[None])[0] != 0

    deltas, bits, masks = jax.jit(jax.vmap(kept))(jnp.array([0.1, 0.5, 1.0]))
    np.testing.assert_allclose(deltas, [1 / 7, 1 / 2, 1])
    np.testing.assert_array_equal(masks.sum(axis=1), [3, 1 + 4 + 2, 12])
    assert bits.tolist() == [33 + 35 + 34, 33 + 4 * 35 + 2 * 34, 2 * 33 + 7 * 35 + 3 * 34]


DITHERS = {
    "maximum": Dither(levels=3),
    "bits": Dither(bits=3),
    "euclidean": Dither(levels=3, norm="euclidean"),
    "blocks": Dither(levels=2, block=5),
    "euclidean blocks": Dither(levels=2, norm="euclidean", block=7),
    "one block": Dither(levels=2, block=100),
}


def norms(dither, x):
    """Return the norm of every coordinate's block."""
    order = np.inf if dither.norm == "max" else 2
    block = dither.block or len(x)
    scales = [np.linalg.norm(x[i : i + block], order) for i in range(0, len(x), block)]
    return np.repeat(scales, block)[: len(x)]


@pytest.mark.parametrize("name", DITHERS)
def test_dithering_has_the_variance_of_random_rounding(name):
    dither, x = DITHERS[name], VECTORS["gaussian"]
    scale, s = norms(dither, x), dither.levels
    p = s * np.abs(x) / scale % 1
    messages = draws(dither, x)
    assert_mean(messages, x)
    assert_mean((messages - x) ** 2, (scale / s) ** 2 * p * (1 - p))
    np.testing.assert_allclose(messages * s / scale, np.round(messages * s / scale), atol=1e-9)


@pytest.mark.parametrize("name", DITHERS)
def test_dithering_is_its_formula(name):
    dither = DITHERS[name]
    rows = gaussian(2)
    rows[2] = 0
    u = np.asarray(jax.random.uniform(KEY, rows.shape, rows.dtype))
    expected = np.zeros((6, D))
    for i, x in enumerate(rows[:6]):
        for j in range(D):
            scale = norms(dither, x)[j]
            if scale > 0:
                level = np.ceil(dither.levels * abs(x[j]) / scale - u[i, j])  # ⌊· + 1 − u⌋
                expected[i, j] = scale / dither.levels * np.sign(x[j]) * level
    np.testing.assert_allclose(messages_of(dither, rows)[:6], expected, rtol=1e-12)


def test_of_coordinates_that_tie_the_first_are_kept():
    x = jnp.array([[1.0, -1, 1, 1, -1], [3, 2, -2, 2, 1], [0, 0, 0, 0, 0], [0, 0, 5, 0, 0]])
    kept = messages_of(TopK(3), x)
    np.testing.assert_array_equal(
        kept, [[1, -1, 1, 0, 0], [3, 2, -2, 0, 0], [0, 0, 0, 0, 0], [0, 0, 5, 0, 0]]
    )


@every_compressor
def test_nothing_comes_of_nothing(name):
    zero = np.zeros((DRAWS, D))
    np.testing.assert_array_equal(messages_of(COMPRESSORS[name], zero), zero)


@every_compressor
def test_scaling_a_vector_scales_its_message(name):
    compressor = COMPRESSORS[name]
    x = gaussian(1)
    once, scaled = messages_of(compressor, x), messages_of(compressor, 4 * x)
    np.testing.assert_allclose(scaled, once if name == "sign" else 4 * once, rtol=1e-12)
    if "natural" not in name and name != "sign":  # natural compression has a grid of its own
        smaller = messages_of(compressor, 0.3 * x)
        np.testing.assert_allclose(smaller, 0.3 * once, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(messages_of(compressor, -x), -once, rtol=1e-12)


@every_compressor
def test_one_coordinate_in_single_precision(name):
    compressor = SRHT(1) if "srht" in name else COMPRESSORS[name]
    x = np.array([[1.5], [-0.3], [0.0]], np.float32)
    message = messages_of(compressor, x)
    assert message.shape == (3, 1)
    assert message.dtype == np.float32
    assert np.all(np.isfinite(message))
    assert np.all(np.sign(message) == np.sign(x))
    assert compressor.bits(1) > 0
    exact = compressor.omega if is_unbiased(compressor) else lambda d: 1.0
    if "random 5" not in name and exact(1) == 0:
        np.testing.assert_allclose(message, x, rtol=1e-6)


@every_compressor
def test_the_key_is_the_only_chance_and_the_input_is_left_alone(name):
    compressor = COMPRESSORS[name]
    x = gaussian(4)
    before = x.copy()
    one, again = messages_of(compressor, x), messages_of(compressor, x)
    other = messages_of(compressor, x, jax.random.key(4))
    np.testing.assert_array_equal(x, before)
    np.testing.assert_array_equal(one, again)
    assert one.dtype == x.dtype
    chance = not any(word in name for word in ("identity", "top", "sign", "nearest"))
    assert np.any(one != other) == chance


@every_compressor
def test_rows_are_compressed_alone_and_with_chances_of_their_own(name):
    compressor = COMPRESSORS[name]
    x = gaussian(5)
    changed = x.copy()
    changed[1::2] = 7 * changed[1::2] ** 3
    one, two = messages_of(compressor, x), messages_of(compressor, changed)
    np.testing.assert_array_equal(one[::2], two[::2])
    same = draws(compressor, x[0])
    chance = not any(word in name for word in ("identity", "top", "sign", "nearest"))
    assert (len(np.unique(same, axis=0)) > 1) == chance


@pytest.mark.parametrize("name", ["random 5", "dither, 2 bits", "natural"])
def test_errors_of_agents_are_uncorrelated(name):
    x = VECTORS["gaussian"]
    errors = draws(UNBIASED[name], x) - x
    products = np.sum(errors[::2] * errors[1::2], axis=1)
    assert_mean(products, 0)


BITS = [
    (Identity(), 64, 2048),
    (TopK(16), 64, 16 * (32 + 6)),
    (TopK(16), 65, 16 * (32 + 7)),
    (TopK(16), 10, 10 * (32 + 4)),
    (TopK(density=0.25), 65, 17 * (32 + 7)),
    (RandomK(16), 64, 17 * 32),
    (RandomK(16, shared_seed=False), 64, 16 * (32 + 6)),
    (RandomK(16), 10, 11 * 32),
    (Dither(bits=2), 64, 2 * 64 + 32),
    (Dither(bits=2, block=16), 64, 2 * 64 + 4 * 32),
    (Dither(bits=2, block=16), 65, 2 * 65 + 5 * 32),
    (Dither(levels=2), 64, 3 * 64 + 32),
    (Dither(levels=1), 64, 2 * 64 + 32),
    (Dither(levels=3, block=512), 64, 3 * 64 + 32),
    (Sign(), 64, 64),
    (ScaledSign(), 64, 64 + 32),
    (Natural(), 64, 9 * 64),
    (Contractive(Dither(bits=2)), 64, 2 * 64 + 32),
    (E3M0(), 64, 4 * 64 + 32),
    (Blocks(E3M0(), 16), 65, 4 * 65 + 5 * 32),
    (Blocks(TopK(2), 16), 65, 4 * 2 * (32 + 4) + 32),
    (Blocks(TopK(2), 16), 10, 2 * (32 + 4)),
    (GaussianSketch(16), 64, 16 * 32),
    (RademacherSketch(16), 64, 16 * 32),
    (CountSketch(16), 64, 16 * 32),
    (SRHT(17), 20, 17 * 32),
]


@pytest.mark.parametrize(("compressor", "d", "bits"), BITS)
def test_bits(compressor, d, bits):
    assert compressor.bits(d) == bits


def test_dithers_of_bits_have_a_nominal_and_an_exact_count():
    two = Dither(bits=2)
    assert two.levels == 2
    assert (two.bits(64), two.exact_bits(64)) == (160, 224)
    assert Dither(levels=2).bits(64) == Dither(levels=2).exact_bits(64) == 224
    symbols = np.unique(draws(two, np.linspace(-1, 1, D)))
    assert len(symbols) == 2**2 + 1


GAUSSIAN = {
    "random": RandomK(5),
    "random, unscaled": RandomK(5, scaled=False),
    "dither, 2 bits": Dither(bits=2),
    "dither, 1 level": Dither(levels=1),
    "dither, blocks": Dither(bits=2, block=20),
    "euclidean": Dither(levels=3, norm="euclidean"),
    "euclidean, 1 level": Dither(levels=1, norm="euclidean"),
    "scaled sign": ScaledSign(),
    "natural": Natural(),
    "of dither": Contractive(Dither(bits=2)),
    "of random": Contractive(RandomK(5)),
    "float": E3M0(),
    "float, nearest": E3M0(nearest=True),
    "float, blocks": Blocks(E3M0(), 20),
    "gaussian sketch": GaussianSketch(5),
    "rademacher sketch": RademacherSketch(5),
    "count sketch": CountSketch(5),
    "srht": SRHT(5),
}


def gaussian_error(compressor, d):
    """Return E|C(x) − x|² / |x|² for Gaussian x, measured."""
    x = np.random.default_rng(d).normal(size=(DRAWS if d == D else 100, d))
    errors = np.sum((messages_of(compressor, x) - x) ** 2, axis=1)
    return np.mean(errors / np.sum(x**2, axis=1))


@pytest.mark.parametrize("d", [D, 400])
@pytest.mark.parametrize("name", GAUSSIAN)
def test_the_error_on_gaussian_vectors_is_about_what_is_said(name, d):
    compressor = GAUSSIAN[name]
    measured = gaussian_error(compressor, d)
    assert measured / 2 <= compressor.error(d) + 1e-12
    assert compressor.error(d) <= 2 * measured + 1e-12


@pytest.mark.parametrize("k", [1, 5])
def test_the_error_of_top_k_is_no_more_than_what_is_said(k):
    assert gaussian_error(TopK(k), D) <= TopK(k).error(D)


@pytest.mark.parametrize("omega", [Dither(bits=2), RandomK(3), Natural()])
def test_contractive_divides_by_one_plus_omega(omega):
    made, x = Contractive(omega), gaussian(6)
    back = messages_of(made, x) * (1 + omega.omega(D))
    np.testing.assert_allclose(back, messages_of(omega, x), rtol=1e-12)
    assert made.delta(D) == 1 / (1 + omega.omega(D))


def step(method):
    problem = jd.problems.quadratic(4, d=6)
    network = jd.networks.metropolis(jd.graphs.ring(4))
    state = method.init(problem.start(), problem, network, KEY)
    return jax.jit(lambda state: method.step(state, problem, network, KEY))(state)


HALF: Any = 0.5
UNKNOWN: Any = "l1"
REFUSED = {
    "no coordinate": (lambda: TopK(0), "k is 0"),
    "no density": (lambda: TopK(density=0), "density is 0; give more than 0"),
    "a density above 1": (lambda: TopK(density=1.5), r"density is 1\.5; give at most 1"),
    "neither k nor density": (lambda: TopK(), r"k is None and density None; .*TopK\(10\)"),
    "k and density": (lambda: TopK(2, density=0.1), r"k is 2 and density 0\.1; give one"),
    "densities of agents": (lambda: TopK(density=np.ones((3, 1))), "one number for all agents"),
    "leaves of no problem": (
        lambda: per_leaf(TopK(1), Identity()),
        "needs the leaves .* a Identity does not say",
    ),
    "leaves of another problem": (
        lambda: per_leaf(TopK(1), leaves(2, 3))(KEY, jnp.zeros((2, 6))),
        "leaves have 5 coordinates together and the row 6",
    ),
    "negative dense": (lambda: per_leaf(TopK(1), leaves(2, 3), -1), "dense is -1"),
    "half a coordinate": (lambda: RandomK(HALF), r"k is 0\.5"),
    "a boolean": (lambda: TopK(True), "k is True"),
    "no bits": (lambda: Dither(), "give one of them"),
    "bits and levels": (lambda: Dither(bits=2, levels=3), "give one of them"),
    "zero bits": (lambda: Dither(bits=0), "bits is 0"),
    "all bits": (lambda: Dither(bits=32), "at most 24"),
    "zero levels": (lambda: Dither(levels=0), "levels is 0"),
    "another norm": (lambda: Dither(bits=2, norm=UNKNOWN), "'euclidean'"),
    "empty blocks": (lambda: Dither(bits=2, block=0), "block is 0"),
    "omega of the nearest": (lambda: E3M0(nearest=True).omega(6), "see delta"),
    "delta of random floats": (lambda: E3M0().delta(6), "nearest=True"),
    "contractive of biased blocks": (lambda: Contractive(Blocks(TopK(3), 9)), "not unbiased"),
    "an empty sketch": (lambda: CountSketch(0), "size is 0"),
    "half a number": (lambda: GaussianSketch(HALF), r"size is 0\.5"),
    "more than the padded vector": (lambda: SRHT(9).omega(6), "padded to 8; give no more"),
    "more than the vector sent": (
        lambda: SRHT(9)(KEY, jnp.ones((2, 6))),
        "padded to 8; give no more",
    ),
    "empty blocks of another": (lambda: Blocks(TopK(3), 0), "size is 0"),
    "omega of a biased one": (lambda: RandomK(3, scaled=False).omega(6), "see delta"),
    "delta of an unbiased one": (lambda: RandomK(3).delta(6), "Contractive"),
    "contractive of top": (lambda: Contractive(TopK(3)), "not unbiased"),
    "contractive of a biased one": (lambda: Contractive(RandomK(3, scaled=False)), "not unbiased"),
    "contractive of sign": (lambda: Contractive(Sign()), "not unbiased"),
    "a class": (lambda: jd.CEDAS(0.1, TopK), "Dither"),
    "no compressor": (lambda: jd.LEAD(0.1, 0.5), "compressor is 0.5"),
    "biased, CEDAS": (lambda: step(jd.CEDAS(0.1, TopK(3))), "biased; give consensus_stepsize"),
    "biased, LEAD": (lambda: step(jd.LEAD(0.1, ScaledSign())), "biased; give consensus_stepsize"),
    "unscaled, CEDAS": (lambda: step(jd.CEDAS(0.1, RandomK(3, scaled=False))), "is biased; give"),
    "sign without gamma": (lambda: step(jd.CHOCOSGD(0.1, Sign())), "give both"),
    "not contractive": (lambda: step(jd.CHOCOSGD(0.1, RandomK(2))), "Contractive of it"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_makes_no_sense_is_refused_with_a_remedy(name):
    make, sentence = REFUSED[name]
    with pytest.raises(ValueError, match=sentence):
        make()


def test_biased_compressors_are_taken_with_a_gamma():
    for method in (
        jd.CEDAS(0.1, TopK(3), consensus_stepsize=0.1, alpha=0.5),
        jd.CHOCOSGD(0.1, Sign(), consensus_stepsize=0.01),
    ):
        assert np.all(np.isfinite(step(method).x))


def test_the_default_parameters_are_those_of_no_compression_without_one():
    x = jnp.zeros((4, 6))
    method = jd.CEDAS(0.1, Identity())
    assert messages.consensus(method, x) == 1
    assert messages.tracking(jd.CGT(0.1, Identity()), x) == 1
    assert messages.feedback(jd.CHOCOSGD(0.1, Identity()), x) == 1
    assert messages.memory(method, x) == 0.9
    rough = jd.CEDAS(0.1, RandomK(3))
    assert messages.consensus(rough, x) == 1 / 8
    assert messages.memory(rough, x) == 0.45


PRECISIONS = (jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64)
SHAPES = np.array([[1.0, -1, 1, 1], [1, 1e-3, -0.3, 0.9], [0, 0, -1, 0], [0.01, 1, 0.5, -0.5]])


def scales(dtype):
    """From below the smallest normal number to the largest number."""
    known = jnp.finfo(dtype)
    least, most = float(known.smallest_subnormal), float(known.max)
    return [least, 3 * least, float(known.tiny), most**-0.75, most**-0.5, 1.0, most**0.5, most]


def keeps_scale(compressor):
    """Whether no coordinate of a message is larger than the largest of the vector."""
    inner = getattr(compressor, "unbiased", compressor)
    inner = getattr(inner, "compressor", inner)  # of blocks
    known = getattr(inner, "norm", "max") == "max" and not getattr(inner, "scaled", False)
    return known and not hasattr(inner, "decode")


@pytest.mark.parametrize("dtype", PRECISIONS, ids=lambda dtype: dtype.__name__)
@every_compressor
@pytest.mark.slow
def test_messages_are_finite_and_no_larger_than_the_vector_in_any_precision(name, dtype):
    compressor = COMPRESSORS[name]
    send = jax.jit(compressor.__call__)
    for scale in scales(dtype):
        x = jnp.asarray(SHAPES * scale, dtype)
        got = np.asarray(send(KEY, x), np.float64)
        exact = np.asarray(x, np.float64)
        assert np.all(np.isfinite(got)), scale
        largest = np.abs(exact).max(axis=1, keepdims=True)
        if name == "sign":
            continue
        if isinstance(getattr(compressor, "unbiased", compressor), Natural):
            assert np.all(np.abs(got) / 2 <= np.abs(exact)), scale
        elif keeps_scale(compressor):
            rounding = 1 + 4 * float(jnp.finfo(dtype).eps) * isinstance(compressor, ScaledSign)
            assert np.all(np.abs(got) / rounding <= largest), scale


@pytest.mark.parametrize("dtype", PRECISIONS, ids=lambda dtype: dtype.__name__)
@pytest.mark.parametrize("norm", ["max", "euclidean"])
def test_dithering_is_unbiased_in_every_precision(norm, dtype):
    """Also with more levels than the precision has numbers, and at scales without normal ones."""
    tiny = float(jnp.finfo(dtype).tiny)
    for levels in (1, 3, 2**20):
        compressor = Dither(levels=levels, norm=norm)
        for scale in (tiny / 16 if dtype == jnp.float16 else tiny**0.7, 1.0, tiny**-0.5):
            x = jnp.asarray(np.tile(VECTORS["gaussian"], (DRAWS, 1)) * scale, dtype)
            got = np.asarray(compressor(KEY, x), np.float64) / scale
            exact = np.asarray(x, np.float64)[0] / scale
            step = float(jnp.finfo(dtype).eps) * np.abs(exact).max()
            grain = float(jnp.finfo(dtype).smallest_subnormal) / scale  # of the numbers there
            allowed = 6 * got.std(axis=0) / np.sqrt(DRAWS) + 4 * step + grain + 1e-12
            assert np.all(np.abs(got.mean(axis=0) - exact) <= allowed)


@every_compressor
@pytest.mark.slow
def test_slopes_are_finite_at_zero_and_where_squares_vanish(name):
    compressor = COMPRESSORS[name]
    for dtype in (jnp.float32, jnp.float16):
        for scale in (0.0, float(jnp.finfo(dtype).tiny), 1.0):
            x = jnp.asarray(SHAPES * scale, dtype).at[2].set(0)
            slope = jax.grad(lambda x: jnp.sum(compressor(KEY, x).astype(jnp.float32)))(x)
            assert np.all(np.isfinite(np.asarray(slope, float)))


@pytest.mark.parametrize("norm", ["max", "euclidean"])
@pytest.mark.slow
def test_the_slope_of_dithering_is_that_of_its_scale(norm):
    """The levels are constant almost everywhere: C(x) = |x| sign(x) r / s with r drawn."""
    dither, x = Dither(levels=3, norm=norm), jnp.asarray(gaussian(4)[:2])
    order = np.inf if norm == "max" else 2
    scale = np.linalg.norm(x, order, axis=1, keepdims=True)
    drawn = np.asarray(dither(KEY, x)) / scale
    slope = jax.grad(lambda x: jnp.sum(dither(KEY, x)))(x)
    away = x / scale if norm == "euclidean" else np.where(np.abs(x) == scale, np.sign(x), 0)
    np.testing.assert_allclose(slope, drawn.sum(axis=1, keepdims=True) * away, atol=1e-12)


def test_what_is_not_finite_stays_so():
    """A run that diverges has to be noticed."""
    x = jnp.ones((3, 4)).at[0, 1].set(jnp.nan).at[1, 1].set(jnp.inf)
    for compressor in COMPRESSORS.values():
        if not isinstance(compressor, TopK | RandomK | Contractive | Sign | ScaledSign | Blocks):
            got = compressor(KEY, x)
            assert not np.all(np.isfinite(got[0]))
            assert not np.all(np.isfinite(got[1]))
            assert np.all(np.isfinite(got[2]))


@pytest.mark.parametrize("method", ["BEER", "CGT"])
@pytest.mark.slow
def test_runs_with_dithering_end_near_the_solution_in_float16(method):
    random = np.random.default_rng(0)
    features = random.normal(size=(4, 20, 3))
    labels = features @ np.array([1.0, -2.0, 0.5])

    def loss(x, sample):
        return (x @ sample[0] - sample[1]) ** 2 / 2

    compressor = Dither(bits=2) if method == "CGT" else Contractive(Dither(bits=2))
    algorithm = getattr(jd, method)(0.05, compressor)
    for dtype, bound in ((jnp.bfloat16, 2e-2), (jnp.float16, 3e-4)):
        data = (jnp.asarray(features, dtype), jnp.asarray(labels, dtype))
        problem = jd.problems.FiniteSum(loss, data, jnp.zeros(3, dtype))
        network = jd.networks.metropolis(jd.graphs.ring(4))
        result = jd.run(algorithm, problem, network, problem.start(), KEY, steps=1000, every=500)
        assert not result.diverged
        assert result.history["loss"][-1] < bound
