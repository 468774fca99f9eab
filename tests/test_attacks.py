"""Attacks: their formulas, what reaches a receiver, and the strengths that hurt a rule most."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

import jaxdopt as jd
from jaxdopt import aggregators
from jaxdopt.attacks import (
    ALIE,
    Constant,
    Dissensus,
    Gaussian,
    InnerProduct,
    Mimic,
    Scripted,
    SignFlip,
    strongest,
)

pytestmark = pytest.mark.slow  # test_robust_exactness asks of every rule and attack
M, D = 7, 4
FACTOR: Any = ALIE.factor  # of the class: its rule
KEY = jax.random.key(2)
ATTACKS = {
    "sign flip": SignFlip(2.0),
    "inner product": InnerProduct(),
    "ALIE": ALIE(),
    "ALIE 3": ALIE(3.0),
    "mimic": Mimic(2),
    "Gaussian": Gaussian(0.5),
    "constant": Constant([1.0, 2.0, 3.0, 4.0] * np.ones(D)),
    "dissensus": Dissensus(1.5),
    "scripted": Scripted(np.arange(D) * 0.1),
    "strongest": strongest(ALIE(), aggregators.TrimmedMean(2), 5),
}
every_attack = pytest.mark.parametrize("name", ATTACKS)


@jax.jit
def attacked(attack, honest, liars, key, heard):
    return attack(honest, liars, key, heard)


def told(attack, honest, liars=2, heard=None, key=KEY):
    """Return the lie: one program an attack."""
    heard = np.ones(len(honest), bool) if heard is None else heard
    return np.asarray(attacked(attack, honest, liars, key, heard))


def gaussian(seed=0, m=M):
    return np.random.default_rng(seed).normal(size=(m, D)) + 1


def test_lies_are_their_formulas():
    x = gaussian()
    mean, spread = x.mean(axis=0), x.std(axis=0, ddof=1)
    z = norm.ppf((9 - 2 - 3) / (9 - 2))  # s = ⌊9 / 2 + 1⌋ − 2 = 3
    expected = {
        "sign flip": -2 * mean,
        "inner product": -0.1 * mean,
        "ALIE": mean - z * spread,
        "ALIE 3": mean - 3 * spread,
        "mimic": x[2],
        "constant": [1, 2, 3, 4],
        "dissensus": x[0] - 1.5 * np.sum(x - x[0], axis=0) / 2,
        "scripted": mean + np.arange(D) * 0.1,
    }
    for name, lie in expected.items():
        np.testing.assert_allclose(told(ATTACKS[name], x), lie, rtol=1e-9, err_msg=name)


@every_attack
def test_what_is_not_heard_does_not_exist(name):
    x = gaussian(1)
    heard = np.arange(M) % 4 != 1
    some = told(ATTACKS[name], np.where(heard[:, None], x, 9e9), heard=heard)
    np.testing.assert_array_equal(
        some, told(ATTACKS[name], np.where(heard[:, None], x, np.nan), heard=heard)
    )
    few = jax.jit(lambda x: ATTACKS[name](x, 2, KEY))(x[heard])
    np.testing.assert_allclose(some, few, rtol=1e-6)


@every_attack
def test_the_number_of_liars_is_traced(name):
    x, attack = gaussian(2), ATTACKS[name]
    swept = jax.jit(jax.vmap(lambda f: attack(x, f, KEY)))(jnp.array([1, 3]))
    for i, f in enumerate((1, 3)):
        np.testing.assert_allclose(swept[i], told(attack, x, f), rtol=1e-9)


def test_factors_of_alie():
    """The two that the papers print, and the class's own name for the rule."""
    np.testing.assert_allclose(FACTOR(25, 5), 0.2533, atol=1e-4)
    np.testing.assert_allclose(FACTOR(50, 12), 0.336, atol=1e-3)
    assert ALIE().factor is None
    assert ALIE(2).factor == 2.0
    assert jax.tree.leaves(ALIE(1.5)) == [1.5]
    for n, f in ((9, 2), (20, 7), (3, 1)):
        s = n // 2 + 1 - f
        np.testing.assert_allclose(FACTOR(n, f), norm.ppf((n - f - s) / (n - f)), atol=1e-9)


def test_one_honest_message_has_no_spread():
    x = gaussian()[:1]
    np.testing.assert_array_equal(told(ALIE(), x, 1), x[0])


def test_gaussian_lies_have_their_deviation_and_follow_the_key():
    attack = Gaussian(3.0)
    x = np.zeros((2, 20_000))
    one, again = (np.asarray(attack(x, 1, KEY)) for _ in range(2))
    np.testing.assert_array_equal(one, again)
    assert abs(one.std() - 3) < 0.1
    assert abs(one.mean()) < 0.15
    assert np.any(one != np.asarray(attack(x, 1, jax.random.key(3))))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 0, 1e30])
def test_constants_may_be_anything(value):
    np.testing.assert_array_equal(told(Constant(value), gaussian()), np.full(D, value, float))


def test_dissensus_of_one_keeps_an_average_where_the_receiver_is():
    x, f = gaussian(3), 2
    lie = told(Dissensus(1.0), x, f)
    np.testing.assert_allclose((x.sum(axis=0) + f * lie) / (M + f), x[0], rtol=1e-9)


def test_mimic_counts_the_messages_that_are_heard():
    x = gaussian(4)
    heard = np.array([True, False, True, False, True, False, False])
    for target, row in ((0, 0), (1, 2), (2, 4), (6, 4)):
        np.testing.assert_array_equal(told(Mimic(target), x, heard=heard), x[row])


def test_a_script_has_a_lie_for_each_step_and_receiver():
    lies = np.random.default_rng(0).normal(size=(3, 5, D))
    attack, x = Scripted(lies), gaussian(5)
    at = jax.jit(lambda k, receiver: attack.at(k, receiver)(x))
    for k, row in ((0, 0), (2, 2), (7, 2)):
        np.testing.assert_allclose(at(k, 4), x.mean(axis=0) + lies[row, 4], rtol=1e-12)
    every = jax.vmap(lambda receiver: attack.at(1, receiver)(x))(jnp.arange(5))
    np.testing.assert_allclose(every, x.mean(axis=0) + lies[1], rtol=1e-12)


def test_in_a_network_one_agent_is_copied_to_all_also_where_it_is_no_neighbor():
    x, messages = gaussian(4), gaussian(5)
    at = jax.jit(lambda receiver: Mimic(2).at(0, receiver, messages)(x, 2, KEY))
    for receiver in (0, 6):
        np.testing.assert_array_equal(at(receiver), messages[2])
    half = jnp.asarray(x, jnp.bfloat16)
    assert Mimic(2).at(0, 1, half)(half, 2).dtype == jnp.bfloat16


@every_attack
def test_an_attack_that_broadcasts_depends_on_the_set_of_messages_alone(name):
    script = Scripted(np.random.default_rng(0).normal(size=(1, 2, D)))
    attack, x, messages = {**ATTACKS, "scripted": script}[name], gaussian(10), gaussian(11)

    def lie(receiver, x, key):
        at = getattr(attack, "at", None)
        return told(at(0, receiver, messages) if at else attack, x, key=key)

    one, other = lie(0, x, KEY), lie(1, x[::-1], jax.random.key(3))
    assert np.allclose(one, other, rtol=1e-9) == attack.broadcasts


def test_the_strongest_is_told_to_all_if_its_rule_looks_at_none_of_them():
    for attack, rule, expected in (
        (ALIE(), aggregators.Median(), True),
        (Gaussian(), aggregators.Median(), False),
        (ALIE(), aggregators.NNA(1), False),
        (ALIE(), aggregators.chain(aggregators.NNM(1), aggregators.NNA(1)), False),
        (ALIE(), aggregators.chain(aggregators.Bucketing(2), aggregators.Median()), False),
        (ALIE(), aggregators.chain(aggregators.NNM(1), aggregators.Median()), True),
    ):
        assert strongest(attack, rule).broadcasts is expected, (attack, rule)


def test_the_strongest_of_a_step_is_that_of_its_attack():
    @jd.pytree
    class Late:
        """An inner product that grows with the steps."""

        factor: jd.Scalar = 1.0
        growth: jd.Scalar = 1.0
        strength = "factor"

        def at(self, k, receiver, messages):
            return jd.replace(self, growth=1.0 + k)

        def __call__(self, honest, liars=1, key=None, heard=None):
            return InnerProduct(self.factor * self.growth)(honest, liars, key, heard)

    x, attack = gaussian(12), strongest(Late(), aggregators.Mean(), 3)
    np.testing.assert_allclose(attack(x, 1), -30 * x.mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(attack.at(3, 0, x)(x, 1), -120 * x.mean(axis=0), rtol=1e-9)
    assert strongest(ALIE(), aggregators.Mean()).at(3, 0, x).attack.factor is None


@pytest.mark.slow
def test_lies_of_single_precision_stay_so(float32):
    x = gaussian().astype(np.float32)
    for name, attack in ATTACKS.items():
        assert jax.eval_shape(lambda x, a=attack: a(x, 2, KEY), x).dtype == np.float32, name
    half = jnp.asarray(x, jnp.bfloat16)
    assert ALIE()(half, 2).dtype == jnp.bfloat16


# The strongest


@jax.jit
def moved(rule, attack, x):
    """Return |R − μ|² under an attack of two liars."""
    lie = jnp.tile(attack(x, 2, KEY), (2, 1))
    return jnp.sum((rule(jnp.concatenate([x, lie])) - x.mean(axis=0)) ** 2)


SEARCHED = {"trimmed mean": aggregators.TrimmedMean(2), "Krum": aggregators.Krum(2)}


@pytest.mark.parametrize("name", SEARCHED)
@pytest.mark.slow
def test_the_strongest_attack_is_nearly_that_of_a_fine_grid(name):
    rule, x = SEARCHED[name], gaussian(6)
    found = moved(rule, strongest(ALIE(), rule, 16), x)
    grid = [moved(rule, ALIE(float(z)), x) for z in np.linspace(0, 12, 60)]
    assert found >= 0.7 * max(grid)
    assert found > 1.2 * moved(rule, ALIE(), x)


def test_a_mean_has_no_strongest_attack_and_every_step_doubles():
    x, rule = gaussian(7), aggregators.Mean()
    for evaluations, expected in ((1, 0), (2, 10), (3, 30), (5, 150)):
        attack = strongest(ALIE(), rule, evaluations)
        assert attack.search(x, 2, KEY) == expected


@pytest.mark.parametrize("best", [3.0, 14.0, 41.0])
def test_the_search_nears_the_maximum_from_both_sides_and_never_goes_below_zero(best):
    @jd.pytree
    class Peak:
        """Moves most where the lie's first number is about the best."""

        def __call__(self, x, heard=None, own=0, key=None):
            lie = x[-1, 0]
            return x[0] * 0 + jnp.where(lie >= 0, jnp.exp(-((lie - best) ** 2) / 200), 99.0)

    @jd.pytree
    class Number:
        """Tells its strength."""

        size: jd.Scalar = 0.0
        strength = "size"

        def __call__(self, honest, liars=1, key=None, heard=None):
            return honest[0] * 0 + self.size

    attack = strongest(Number(), Peak(), 40)
    found = float(jax.jit(lambda x: attack.search(x, 1))(np.zeros((3, 2))))
    assert abs(found - best) < 0.2


@every_attack
def test_lies_have_finite_slopes_in_messages_and_strengths(name):
    attack = ATTACKS[name]

    def total(attack, x):
        return jnp.sum(attack(x, 2, KEY) ** 2)

    slopes = jax.jit(jax.grad(total, argnums=(0, 1)))
    for x in (gaussian(8), np.ones((M, D))):
        assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(slopes(attack, x)))
    if name in ("sign flip", "inner product", "ALIE 3", "dissensus", "scripted"):
        first = jax.tree.leaves(slopes(attack, gaussian(8))[0])
        assert np.any(first[0] != 0)


def test_ascent_finds_offsets_that_hurt_more_than_none():
    """From 0, where a rule that selects still has a slope; the best iterate is kept."""
    x, rule = jnp.asarray(gaussian(9)), aggregators.TrimmedMean(2)

    def harm(lies):
        lie = Scripted(lies)(x, 2)
        found = rule(jnp.concatenate([x, jnp.tile(lie, (2, 1))]))
        return jnp.sum((found - x.mean(axis=0)) ** 2)

    slope = jax.jit(jax.value_and_grad(harm))
    lies = jnp.zeros(D)
    start, best = float(slope(lies)[0]), 0.0
    for _ in range(30):
        value, up = slope(lies)
        best, lies = max(best, float(value)), lies + 0.5 * up / (jnp.linalg.norm(up) + 1e-9)
    assert best > 2 * start


X = np.zeros((4, 3))
REFUSED = {
    "half lie": (lambda: ALIE()(X, 4), "4 of 8 messages are lies, .*; give factor"),
    "half in factor": (lambda: FACTOR(8, 4), "4 of 8"),
    "no key": (lambda: Gaussian()(X, 1), "Gaussian draws its lie; give a key"),
    "one message": (lambda: SignFlip()(X[0]), r"honest has shape \(3,\); give one message a row"),
    "heard of others": (lambda: SignFlip()(X, 1, None, np.ones(3, bool)), r"heard has shape \(3,"),
    "a target before the first": (lambda: Mimic(-1), "target is -1; give the position"),
    "a target beyond the last": (
        lambda: Mimic(4).at(0, 1, X),
        "target is 4, of 4 agents; give at most 3",
    ),
    "a matrix": (lambda: Constant(X), r"value has shape \(4, 3\); give one vector"),
    "a word": (lambda: Constant("inf"), "value is 'inf'; give a number or a vector"),
    "a longer vector": (lambda: Constant(np.ones(4))(X), "give one number, or as many"),
    "an infinite scale": (lambda: SignFlip(np.inf), "scale is inf; give a finite number"),
    "a scale each": (lambda: SignFlip(np.ones((3, 1))), "one number for all agents"),
    "a script of two axes": (lambda: Scripted(X), r"lies has shape \(4, 3\); give offsets"),
    "a whole script": (lambda: Scripted(np.zeros((2, 4, 3)))(X), "take attack.at"),
    "one step's script": (lambda: Scripted(np.zeros(3)).at(0, 1), "of one step; give offsets"),
    "nothing to search": (
        lambda: strongest(Mimic(), aggregators.Mean()),
        r"Mimic.* has no strength to search for; give SignFlip\(\)",
    ),
    "an attack's class": (
        lambda: strongest(ALIE, aggregators.Mean()),
        r"attack is <class .*ALIE'>; give one of jd\.attacks, such as ALIE\(\)",
    ),
    "no rule": (lambda: strongest(ALIE(), 3), "rule is 3; give one of jd.aggregators"),
    "no evaluation": (lambda: strongest(ALIE(), aggregators.Mean(), 0), "evaluations is 0"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_is_refused_with_its_value_and_a_remedy(name):
    call, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        call()
