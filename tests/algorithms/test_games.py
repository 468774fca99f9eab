"""Extragradient and MASHA on games: their loops with noise, their laws, their costs, refusals."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import games

import jaxdopt as jd
from jaxdopt.algorithms.compressed import messages
from jaxdopt.compressors import (
    E3M0,
    Contractive,
    Dither,
    Identity,
    Natural,
    RandomK,
    TopK,
    per_leaf,
)

N, D, STEPS, P = 4, 6, 60, 0.3
KEY = jax.random.key(4)
EVERYONE = np.ones((STEPS, N), bool)
FLEXIBLE = np.random.default_rng(3).random((STEPS, N)) < 0.6


@functools.cache
def game():
    """Players of three numbers each, whose agents disagree."""
    return jd.problems.bilinear(N, 3, strong_convexity=0.2, heterogeneity=2.0, seed=1)


def start(problem=None):
    problem = game() if problem is None else problem
    return np.random.default_rng(5).standard_normal((problem.n, problem.d))


def kept(method):
    """What a state has, by its name in the papers: z, and all about the snapshot."""
    held = ("w", "own", "mean", "age") if hasattr(method, "toss") else ()
    errors = ("e", "rest") if isinstance(method, jd.MASHA2) else ()
    return [("z", "server"), *zip(held + errors, held + errors, strict=True)]


def states(method, problem=None, network=None, key=KEY, steps=STEPS):
    """The state after every step, stacked."""
    problem = game() if problem is None else problem
    network = jd.networks.Server(problem.n) if network is None else network
    metrics = {name: lambda state, _, of=of: getattr(state, of) for name, of in kept(method)}
    options = {"steps": steps, "metrics": metrics, "defaults": ()}
    return jd.run(method, problem, network, start(problem), key, **options).history


def loop(method, reference, active=EVERYONE, **numbers: Any):
    """The NumPy loop, given the method's draws and the noise of its operators."""
    whole, noisy = game(), jd.problems.GaussianNoise(game(), 0.3)
    matrices, *linear = (np.asarray(part)[:, 0] for part in whole.problem.data)

    @jax.jit
    def noise(k, half):
        key = jax.random.fold_in(jax.random.fold_in(KEY, k), half)
        return noisy.grad(whole.start(), key) - whole.grad(whole.start(), key)

    table = np.array([[noise(k, half) for half in range(2)] for k in range(STEPS)])

    def operator(i, z, k, half):
        x, y = z[:3], z[3:]
        of_x = matrices[i] @ y + 0.2 * x + linear[0][i]
        of_y = -matrices[i].T @ x + 0.2 * y + linear[1][i]
        return np.concatenate([of_x, of_y]) + table[k, half, i]

    @jax.jit
    def compress(k, channel, i, v):
        rows = jnp.zeros((N, D)).at[i].set(v)
        return messages.message(method.compressor, jax.random.fold_in(KEY, k), rows, channel)[i]

    if getattr(method, "downlink", None) is not None:

        @jax.jit
        def downlink(v, k):
            key = jax.random.fold_in(KEY, k)
            return messages.message(method.downlink, key, v[None], 1)[0]

        numbers["downlink"] = downlink
    z0 = start().mean(axis=0)
    made = reference(operator, active, z0, lambda k: 0.05, STEPS, compress=compress, **numbers)
    return made, noisy


def tossed(method):
    toss = jax.jit(lambda k: method.toss(jax.random.fold_in(KEY, k)))
    return {"toss": toss, "probability": P, "history": True}


def close(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


def quick(first, *others):
    """The first, and the others if slow."""
    return [first, *(pytest.param(other, marks=pytest.mark.slow) for other in others)]


@pytest.mark.parametrize("compressor", quick(RandomK(2), TopK(2), Identity()), ids=repr)
def test_extragradient_is_its_loop_with_noise_and_absent_clients(compressor):
    method = jd.ExtraGradient(0.05, compressor)
    expected, noisy = loop(method, games.extra_gradient, FLEXIBLE)
    served = jd.networks.participation.Trace(jnp.asarray(FLEXIBLE), N)
    close(states(method, noisy, served)["z"], expected)


@pytest.mark.parametrize("downlink", quick(RandomK(3), None), ids=repr)
def test_masha1_is_its_loop_with_noise(downlink):
    method = jd.MASHA1(0.05, Dither(bits=3), downlink, P)
    (expected, held), noisy = loop(method, games.masha1, **tossed(method))
    found = states(method, noisy)
    close(found["z"], expected)
    for name in ("w", "own", "mean"):
        close(found[name][1:], held[name])
    assert np.array_equal(found["age"][1:] == 0, held["renewed"])
    assert 5 < held["renewed"].sum() < 40


@pytest.mark.parametrize("downlink", quick(TopK(2), None), ids=repr)
def test_masha2_is_its_loop_with_noise_and_nothing_is_lost(downlink):
    """What was not sent is in the errors: the sum of all changes is that of all due ones."""
    method = jd.MASHA2(0.05, TopK(1), downlink, P)
    (expected, held), noisy = loop(method, games.masha2, **tossed(method))
    found = states(method, noisy)
    close(found["z"], expected)
    for name, its in (("e", "e"), ("rest", "server")):
        close(found[name], held[its])
    assert (np.abs(found["rest"]).max() > 0) == (downlink is not None)
    exact = states(method)
    z, w, mean = exact["z"], exact["w"][1:], exact["mean"][1:]
    half = z[:-1] + P * (w - z[:-1]) - 0.05 * mean
    F = np.asarray(jax.vmap(game().operator)(half)) - mean
    unsent = exact["e"][-1].mean(axis=0) + exact["rest"][-1]
    close((half - z[1:]).sum(axis=0) + unsent, 0.05 * F.sum(axis=0))


@pytest.mark.parametrize("method", [jd.MASHA1, jd.MASHA2])
def test_with_the_identity_it_is_extragradient(method):
    """By default, as its probability is 1 then."""
    plain = states(jd.ExtraGradient(0.3), jd.problems.GaussianNoise(game(), 0.0))["z"]
    np.testing.assert_allclose(states(method(0.3, Identity()))["z"], plain, rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    "method", [jd.MASHA1(0.1, RandomK(2), RandomK(2)), jd.MASHA2(0.1, TopK(1), TopK(2))], ids=repr
)
def test_the_equilibrium_is_a_fixed_point(method):
    problem = game()
    setting = problem, jd.networks.Server(N), problem.start(problem.unravel(problem.solution))
    end = jd.run(method, *setting, KEY, steps=200, defaults=()).state
    np.testing.assert_allclose(end.server, problem.solution, rtol=0, atol=1e-14)


def test_where_the_operator_only_turns_it_contracts_by_what_theory_says():
    """|z|² by 1 − γ² + γ⁴ a step, and descent expands it by 1 + γ²."""
    turning = jd.problems.Saddle(lambda x, y, s: s * x * y, jnp.ones((2, 1)), (1.0, 1.0))
    gamma, x0 = 0.5, turning.start()
    for method, factor in (
        (jd.ExtraGradient(gamma), 1 - gamma**2 + gamma**4),
        (jd.FedAvg(gamma), 1 + gamma**2),
    ):
        options = {"steps": 10, "metrics": {"z": lambda state, _: state.server}, "defaults": ()}
        z = jd.run(method, turning, jd.networks.Server(2), x0, KEY, **options).history["z"]
        squares = np.sum(z**2, axis=1)
        np.testing.assert_allclose(squares[1:] / squares[:-1], factor, rtol=1e-12)


@pytest.mark.parametrize("method", quick(jd.MASHA1, jd.MASHA2))
def test_a_step_costs_a_compressed_exchange_and_a_full_one_where_it_was_tossed(method):
    """And the number of the latter is binomial, besides the first."""
    compressor = RandomK(2) if method is jd.MASHA1 else TopK(2)
    made, steps = method(0.02, compressor, probability=P), 400
    options = {"steps": steps, "metrics": {"age": lambda state, _: state.age}, "defaults": ()}
    history = jd.run(made, game(), jd.networks.Server(N), start(), KEY, **options).history
    full = history["age"] == 0
    full[0] = False
    assert full[1]
    tosses = [float(made.toss(jax.random.fold_in(KEY, k))) for k in range(20)]
    assert np.array_equal(full[1:21], [k == 0 or toss < P for k, toss in enumerate(tosses)])
    assert abs(full[2:].mean() - P) < 3 * np.sqrt(P * (1 - P) / steps)
    count, k = np.cumsum(full), np.arange(steps + 1)
    sent = compressor.bits(D)
    np.testing.assert_allclose(history["bits_up"], k * sent + 32 * D * count, rtol=1e-6)
    np.testing.assert_allclose(history["bits_down"], 32 * D * (k + count), rtol=1e-6)
    for name in ("gradients", "rounds", "vectors"):
        np.testing.assert_allclose(history[name], k + count, rtol=1e-6)
    both = jd.replace(made, downlink=compressor)
    down = jd.run(both, game(), jd.networks.Server(N), start(), KEY, steps=20, defaults=())
    down = down.history["bits_down"]
    np.testing.assert_allclose(down, (k * sent + 32 * D * count)[:21], rtol=1e-6)


@pytest.mark.slow
def test_messages_of_operators_stop_at_a_plateau_and_those_of_differences_do_not():
    """Ten agents, 40 coordinates, 4 of them sent: the square of the plateau falls with γ."""
    problem = jd.problems.bilinear(10, 20, strong_convexity=0.2, heterogeneity=5.0)
    norm, few, most = float(jnp.sum(problem.solution**2)), RandomK(4), TopK(4)

    def error(method, steps):
        options = {"steps": steps, "every": steps // 40, "defaults": ("distance_squared",)}
        setting = problem, jd.networks.Server(10), problem.start(), KEY
        found = jd.run(method, *setting, **options).history["distance_squared"] / norm
        return np.sqrt([found[20:].mean(), found[-1]])

    plateau = error(jd.ExtraGradient(1 / 4, few), 2000)[0]
    assert 0.8 < plateau < 0.9
    assert 0.35 < error(jd.ExtraGradient(1 / 16, few), 8000)[0] / plateau < 0.7  # a half
    assert error(jd.MASHA1(0.115, few), 6000)[1] < 1e-14
    assert error(jd.MASHA2(16 * 0.0158, most), 1600)[1] < 1e-13


REFUSED = {
    r"compressor is TopK\(k=2\), which is biased; give .*RandomK\(k\).*, or take MASHA2": (
        lambda: jd.MASHA1(0.1, TopK(2))
    ),
    r"downlink is RandomK\(k=2, scaled=False.*, which is biased": (
        lambda: jd.MASHA1(0.1, RandomK(2), RandomK(2, scaled=False))
    ),
    r"compressor is RandomK\(k=2.*, which has no delta; give .*TopK\(k\).*, or take MASHA1": (
        lambda: jd.MASHA2(0.1, RandomK(2))
    ),
    r"downlink is Natural\(\), which has no delta": lambda: jd.MASHA2(0.1, TopK(2), Natural()),
    r"probability is 2; give at most 1": lambda: jd.MASHA1(0.1, RandomK(2), probability=2.0),
    r"probability has shape \(4, 1\); give one number": (
        lambda: jd.MASHA1(0.1, RandomK(2), probability=np.full((4, 1), 0.5))
    ),
    r"MASHA1 needs all agents in every round and this participation\..* does not offer that": (
        lambda: states(jd.MASHA1(0.1, RandomK(2)), network=jd.networks.participation.uniform(N, 2))
    ),
    r"MASHA2 needs a server with clients": (
        lambda: states(jd.MASHA2(0.1, TopK(2)), network=jd.networks.Complete(N))
    ),
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_what_does_not_fit_is_refused_in_a_sentence(sentence):
    with pytest.raises(ValueError, match=sentence):
        REFUSED[sentence]()


@pytest.mark.parametrize(
    "compressor",
    [
        Contractive(RandomK(2)),
        RandomK(2, scaled=False),
        E3M0(nearest=True),
        per_leaf(TopK(1), jd.problems.mlp(np.eye(4), [0, 1] * 2, agents=2, hidden=(2,))),
    ],
)
def test_what_has_a_delta_is_taken(compressor):
    assert jd.MASHA2(0.1, compressor).compressor is compressor


def test_a_scheduled_density_is_taken():
    found = states(jd.MASHA2(0.01, TopK(density=lambda k: 0.5 + 0 * k)), steps=9)
    expected = states(jd.MASHA2(0.01, TopK(3)), steps=9)
    np.testing.assert_allclose(found["z"], expected["z"], rtol=1e-13)
