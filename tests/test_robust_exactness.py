"""Rules and attacks against loops that were written from the same equations, and share no code."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import robust
from test_aggregators import D, N, at_once, result

import jaxdopt as jd
from jaxdopt import aggregators as A
from jaxdopt import attacks as T

RULES = {  # a rule of f, and its loop
    "mean": (lambda f: A.Mean(), lambda f: robust.mean()),
    "median": (lambda f: A.Median(), lambda f: robust.median()),
    "trimmed mean": (A.TrimmedMean, robust.trimmed_mean),
    "geometric median": (lambda f: A.GeometricMedian(), lambda f: robust.geometric_median()),
    "smoothed": (lambda f: A.GeometricMedian(0.3, 4), lambda f: robust.geometric_median(0.3, 4)),
    "Krum": (A.Krum, robust.krum),
    "Krum, 3 neighbors": (lambda f: A.Krum(f, neighbors=3), lambda f: robust.krum(f, 3)),
    "multi-Krum": (A.MultiKrum, robust.multi_krum),
    "multi-Krum, 2": (lambda f: A.MultiKrum(f, select=2), lambda f: robust.multi_krum(f, 2)),
    "centered clipping": (
        lambda f: A.CenteredClipping(0.7, 3),
        lambda f: robust.centered_clipping(0.7, 3),
    ),
    "self-centered": (
        lambda f: A.SelfCenteredClipping(0.9),
        lambda f: robust.self_centered_clipping(0.9),
    ),
    "self-centered, adaptive": (
        lambda f: A.SelfCenteredClipping(),
        lambda f: robust.self_centered_clipping(),
    ),
    "MDA": (A.MDA, robust.mda),
    "MeaMed": (A.MeaMed, robust.meamed),
    "CAF": (A.CAF, robust.caf),
    "NNA": (A.NNA, robust.nna),
    "CGE": (A.CGE, robust.cge),
    "Flag": (lambda f: A.Flag(), lambda f: robust.flag(None, 4)),  # and a first decomposition
    "Flag, rank 1": (lambda f: A.Flag(1, iterations=2), lambda f: robust.flag(1, 1)),
    "FoolsGold": (lambda f: A.FoolsGold(), lambda f: robust.foolsgold()),
    "NNM, mean": (
        lambda f: A.chain(A.NNM(f), A.Mean()),
        lambda f: robust.chain(robust.nnm(f), robust.mean()),
    ),
    "NNM, Krum": (
        lambda f: A.chain(A.NNM(f), A.Krum(f)),
        lambda f: robust.chain(robust.nnm(f), robust.krum(f)),
    ),
    "clip, mean": (
        lambda f: A.chain(A.Clip(0.8), A.Mean()),
        lambda f: robust.chain(robust.clip(0.8), robust.mean()),
    ),
    "ARC, trimmed mean": (
        lambda f: A.chain(A.ARC(f), A.TrimmedMean(f)),
        lambda f: robust.chain(robust.arc(f), robust.trimmed_mean(f)),
    ),
    "clip, NNM, trimmed mean": (
        lambda f: A.chain(A.Clip(2.0), A.NNM(f), A.TrimmedMean(f)),
        lambda f: robust.chain(robust.clip(2.0), robust.nnm(f), robust.trimmed_mean(f)),
    ),
}
CLOSE: dict[str, Any] = {"rtol": 1e-10, "atol": 1e-11}
HEARD = np.array([1, 1, 0, 1, 1, 1, 0, 1, 1], bool)
every_rule = pytest.mark.parametrize("name", RULES)


def messages(seed):
    """Nine messages, some far, one twice."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(N, D)) + 0.5
    x[4] *= 30
    x[7] = x[1]
    return x


@every_rule
@pytest.mark.parametrize("f", [2, *(pytest.param(f, marks=pytest.mark.slow) for f in (0, 1))])
def test_a_rule_is_its_loop(name, f):
    ours, loop = (make(f) for make in RULES[name])
    for seed, own in ((0, 0), (1, 5)):
        x = messages(10 * f + seed)
        np.testing.assert_allclose(result(ours, x, own=own), loop(x, own=own), **CLOSE)
    x = messages(50 + f)
    np.testing.assert_allclose(result(ours, x, HEARD, 1), loop(x, HEARD, 1), **CLOSE)


@every_rule
@pytest.mark.parametrize(
    "bad", [np.nan, *(pytest.param(b, marks=pytest.mark.slow) for b in (np.inf, -np.inf))]
)
def test_messages_that_are_not_finite(name, bad):
    if name in ("mean", "clip, mean", "NNM, mean"):
        pytest.skip("no breakdown point")
    ours, loop = (make(2) for make in RULES[name])
    x = messages(3)
    x[2, 1] = bad
    if name != "self-centered, adaptive":  # it withstands one
        x[8] = np.inf
    expected = loop(x, own=1)
    assert np.all(np.isfinite(expected))
    np.testing.assert_allclose(result(ours, x, own=1), expected, **CLOSE)


@pytest.mark.slow
@every_rule
def test_f_at_its_limit(name):
    if "3 neighbors" in name:
        pytest.skip("three neighbors are f's limit")
    x = messages(4)
    ours, loop = (make(4) for make in RULES[name])
    np.testing.assert_allclose(result(ours, x, own=3), loop(x, own=3), **CLOSE)


def test_buckets_in_the_order_of_a_permutation():
    x, key = messages(5), jax.random.key(2)
    draws = jax.random.bits(jax.random.fold_in(key, 0), (N,), jnp.uint32) >> 1
    order = np.argsort(np.where(HEARD, draws, 2**31), kind="stable")
    loop = robust.chain(robust.bucketing(2, order), robust.median())
    ours = A.chain(A.Bucketing(2), A.Median())
    np.testing.assert_allclose(result(ours, x, HEARD, key=key), loop(x, HEARD), **CLOSE)


def test_fools_gold_weights_and_krum_of_few():
    h = messages(6)
    np.testing.assert_allclose(
        A.FoolsGold().weights(h, HEARD), robust.foolsgold_weights(h, HEARD), **CLOSE
    )
    np.testing.assert_allclose(at_once(A.Krum(1), h[:3]), robust.krum(1)(h[:3]), **CLOSE)


ATTACKS = {
    "sign flip": (T.SignFlip(1.7), robust.sign_flip(1.7)),
    "inner product": (T.InnerProduct(0.3), robust.inner_product(0.3)),
    "ALIE": (T.ALIE(), robust.alie()),
    "ALIE, 2": (T.ALIE(2.0), robust.alie(2.0)),
    "constant": (T.Constant(3.0), robust.constant(3.0)),
    "dissensus": (T.Dissensus(1.5), robust.dissensus(1.5)),
    "mimic": (T.Mimic(1), robust.mimic(1)),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_its_loop(name):
    ours, loop = ATTACKS[name]
    honest = messages(7)
    for heard in (None, HEARD):
        found = ours(jnp.asarray(honest), liars=2, heard=heard)
        np.testing.assert_allclose(found, loop(honest, 2, heard=heard), **CLOSE)
    factor: Any = jd.attacks.ALIE.factor  # of the class, a function
    assert factor(25, 5) == pytest.approx(robust.alie_factor(25, 5), abs=1e-12)


def test_what_is_drawn_or_scripted():
    honest, key = messages(8), jax.random.key(4)
    draw = jax.random.normal(key, (D,))
    found = T.Gaussian(0.7)(jnp.asarray(honest), 2, key, HEARD)
    np.testing.assert_allclose(found, robust.gaussian(draw, 0.7)(honest, 2), **CLOSE)
    lies = np.random.default_rng(9).normal(size=(3, N, D))
    found = T.Scripted(lies).at(1, 4)(jnp.asarray(honest), 2, None, HEARD)
    np.testing.assert_allclose(found, robust.scripted(lies[1, 4])(honest, heard=HEARD), **CLOSE)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["trimmed mean", "median", "Krum"])
def test_the_search_finds_no_weaker_attack_than_its_one_sided_loop(name):
    ours, loop = (make(2) for make in RULES[name])
    honest = np.random.default_rng(2).normal(size=(7, 4))

    def moved(strength):
        told = np.tile(robust.alie(strength)(honest, 2), (2, 1))
        return robust.squared(loop(np.concatenate([honest, told])) - honest.mean(axis=0))

    found = float(T.strongest(T.ALIE(), ours).search(jnp.asarray(honest), 2))
    assert moved(found) >= moved(robust.line_search(moved, 16)) * (1 - 1e-12)
    assert moved(found) > 0
