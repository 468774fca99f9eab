"""Games: the operator of a saddle problem, its equilibrium, its gap, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdopt as jd

N, DX, DY = 3, 2, 4


def f(x, y, sample):
    """Neither quadratic nor separable, strongly convex in x["a"] and concave in y."""
    m, b = sample
    coupled = x["a"] @ m @ y["u"] + b * y["v"].sum() * x["a"].sum()
    own = jnp.sum(jnp.cosh(x["a"])) - jnp.sum(y["u"] ** 2) / 2 - jnp.sum(jnp.cosh(y["v"] - b))
    return coupled + own


def players(seed=0):
    random = np.random.default_rng(seed)
    x = {"a": jnp.asarray(random.standard_normal(DX))}
    y = {"u": jnp.asarray(random.standard_normal(3)), "v": jnp.asarray(random.standard_normal(1))}
    return x, y


def data(sizes=(2, 3, 4)):
    random = np.random.default_rng(1)
    return (
        [random.standard_normal((m, DX, 3)) for m in sizes],
        [random.standard_normal(m) for m in sizes],
    )


operators = jax.jit(lambda game, z, key=None: game.grad(z, key))
at = jax.jit(lambda game, z: game.operator(z))
gap = jax.jit(lambda game, z: game.saddle_gap(z))


@pytest.fixture
def game():
    return jd.problems.Saddle(f, data(), players())


def by_hand(z, samples):
    """Agent by agent and sample by sample, in NumPy."""
    rows = []
    for i, (matrices, numbers) in enumerate(zip(*samples, strict=True)):
        a, u, v = z[i, :DX], z[i, DX : DX + 3], z[i, DX + 3 :]
        total = np.zeros(DX + DY)
        for m, b in zip(matrices, numbers, strict=True):
            of_x = m @ u + b * v.sum() + np.sinh(a)
            of_y = np.concatenate([m.T @ a - u, b * a.sum() - np.sinh(v - b)])
            total += np.concatenate([of_x, -of_y]) / len(numbers)
        rows.append(total)
    return np.array(rows)


def test_the_operator_is_the_gradient_in_x_and_the_negative_one_in_y(game):
    assert (game.n, game.d, game.split) == (N, DX + DY, DX)
    z = np.random.default_rng(2).standard_normal((N, DX + DY))
    np.testing.assert_allclose(operators(game, z), by_hand(z, data()), rtol=1e-12, atol=1e-12)
    one = np.tile(z[0], (N, 1))
    mean = by_hand(one, data()).mean(axis=0)
    np.testing.assert_allclose(at(game, z[0]), mean, rtol=1e-12, atol=1e-12)
    assert jax.tree.all(jax.tree.map(jnp.array_equal, game.unravel(game.start()[1]), players()))


def test_samples_are_drawn_and_chosen_and_agents_taken_as_of_a_sum(game):
    z, key = game.start(players(3)), jax.random.key(0)
    batch = jd.problems.Minibatch(game, 2)
    chosen = np.asarray(batch.indices(key))
    some = tuple([part[c] for part, c in zip(of, chosen, strict=True)] for of in data())
    np.testing.assert_allclose(operators(batch, z, key), by_hand(z, some), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(at(batch, z[0]), at(game, z[0]), rtol=1e-15)
    part = game.take(jnp.array([2, 0]))
    assert isinstance(part, jd.problems.Saddle)
    rows = z[jnp.array([2, 0])]
    np.testing.assert_allclose(operators(part, rows), by_hand(z, data())[[2, 0]], rtol=1e-12)
    noisy = operators(jd.problems.GaussianNoise(game, 0.5), z, key) - operators(game, z)
    assert 0.01 < jnp.mean(jnp.sum(noisy**2, axis=1)) < 1


def test_the_equilibrium_is_a_root_and_the_gap_is_zero_there_and_above_it_elsewhere(game):
    solved = game.solved()
    z = solved.solution
    assert jnp.linalg.norm(at(game, z)) < 1e-13
    assert abs(gap(game, z)) < 1e-13
    x, y = game.start()[0, :DX], game.start()[0, DX:]
    found = gap(game, jnp.concatenate([x, y]))

    def payoff(x, y):
        return game.payoff(jnp.concatenate([x, y]))

    random = np.random.default_rng(0)
    others = jnp.asarray(random.standard_normal((2000, DY))), random.standard_normal((2000, DX))
    best = jax.vmap(lambda other: payoff(x, other))(others[0]).max()
    worst = jax.vmap(lambda other: payoff(other, y))(others[1]).min()
    assert found > best - worst  # of any two answers
    assert found - (best - worst) < 0.3 * found  # and not by much


def test_the_gap_of_a_quadratic_game_is_its_formula():
    """|F(z)|²/(2μ) where both players' Hessians are μ."""
    game = jd.problems.bilinear(4, 3, strong_convexity=0.2, seed=1)
    z = jnp.arange(6.0)
    expected = jnp.sum(at(game, z) ** 2) / 0.4
    np.testing.assert_allclose(gap(game, z), expected, rtol=1e-12)


def test_a_game_has_its_own_metrics_and_no_objective(game):
    known = jd.metrics.defaults(game)
    assert list(known) == ["consensus_error", "residual"]
    assert not any(hasattr(game, name) for name in ("objective", "loss", "optimum", "value"))
    bilinear = jd.problems.bilinear(4, 3)
    setting = bilinear, jd.networks.Server(4), bilinear.start(), jax.random.key(0)
    history = jd.run(jd.ExtraGradient(0.3), *setting, steps=40, every=20).history
    z = bilinear.start()[0]
    np.testing.assert_allclose(history["residual"][0], jnp.sum(at(bilinear, z) ** 2))
    np.testing.assert_allclose(history["saddle_gap"][0], gap(bilinear, z))
    assert (history["saddle_gap"][1:] < history["saddle_gap"][:-1]).all()
    with pytest.raises(ValueError, match=r"defaults is .*name some of consensus_error, residual"):
        jd.run(jd.ExtraGradient(0.3), *setting, steps=1, defaults=("gap",))


def test_a_games_values_are_no_oracle_of_its_operator(game):
    with pytest.raises(ValueError, match="problem is a Saddle without value; give one"):
        jd.problems.ZerothOrder(game)


def test_bilinear_games_have_the_constants_that_they_say():
    mu, smoothness, zeta = 0.3, 2.0, 5.0
    game = jd.problems.bilinear(
        4, 3, strong_convexity=mu, smoothness=smoothness, heterogeneity=zeta, seed=2
    )
    z = game.solution
    np.testing.assert_allclose(at(game, z), 0, atol=1e-14)
    np.testing.assert_allclose(game.solved().solution, z, rtol=1e-12)
    own = operators(game, jnp.tile(z, (4, 1)))
    np.testing.assert_allclose(jnp.mean(jnp.sum(own**2, axis=1)), zeta**2, rtol=1e-12)
    for jacobian in jax.jacfwd(lambda z: operators(game, jnp.tile(z, (4, 1))))(z):
        np.testing.assert_allclose(np.linalg.norm(jacobian, 2), smoothness, rtol=1e-12)
        np.testing.assert_allclose(jacobian + jacobian.T, 2 * mu * np.eye(6), atol=1e-13)
    monotone = jd.problems.bilinear(4, 3, strong_convexity=0.0)
    assert monotone.strong_convexity is None
    assert "saddle_gap" not in jd.metrics.defaults(monotone)


def test_robust_least_squares_is_an_equilibrium_whose_adversary_costs_something():
    random = np.random.default_rng(0)
    features = random.standard_normal((40, 5))
    labels = features @ np.ones(5) + random.standard_normal(40)
    game = jd.problems.robust_least_squares(features, labels, agents=4, penalty=8.0, l2=0.1)
    x, y = game.solution[:5], game.solution[5:]
    errors = (features + y) @ x - labels
    np.testing.assert_allclose(errors.mean() * x, 8.0 * y, atol=1e-12)
    slope = ((features + y) * errors[:, None]).mean(axis=0) + 0.1 * x
    np.testing.assert_allclose(slope, 0, atol=1e-12)
    nearer = jd.problems.robust_least_squares(features, labels, agents=4, penalty=1e9, l2=0.1)
    plain = jd.problems.least_squares(features, labels, agents=4, l2=0.1).solution
    np.testing.assert_allclose(nearer.solution[:5], plain, rtol=1e-7)
    features, labels = features - features.mean(axis=0), labels - labels.mean()
    with pytest.raises(ValueError, match=r"penalty is 0\.5 and the solution has .* larger penalty"):
        jd.problems.robust_least_squares(features, labels, agents=4, penalty=0.5, l2=0.1)


def test_games_stack_and_trace_their_numbers():
    games = [
        jd.problems.bilinear(3, 2, seed=seed, strong_convexity=(1 + seed) / 3) for seed in (0, 1)
    ]
    together = jd.stack(games)
    z = jnp.ones((3, 4))
    found = jax.vmap(lambda game: operators(game, z))(together)
    for game, rows in zip(games, found, strict=True):
        np.testing.assert_allclose(rows, operators(game, z), rtol=1e-14)


REFUSED = {
    "f is 3; give a function": (3, (jnp.zeros(2), jnp.zeros(2))),
    "params is a tuple; give the pair": (lambda x, y, s: x @ y, (jnp.zeros(2),) * 3),
    "params is a ArrayImpl; give the pair": (lambda x, y, s: x @ y, jnp.zeros(2)),
    r"f of one sample has shape \(2,\) and dtype float64; return a floating scalar": (
        lambda x, y, s: x * y,
        (jnp.zeros(2), jnp.zeros(2)),
    ),
    "f does not depend on y; give an f": (lambda x, y, s: x @ x, (jnp.zeros(2), jnp.zeros(2))),
    r"f does not depend on x\['w'\]": (
        lambda x, y, s: x["v"] * y,
        ({"v": jnp.zeros(()), "w": jnp.zeros(3)}, jnp.zeros(())),
    ),
    "f of one sample fails": (lambda x, y, s: x @ y, (jnp.zeros(2), jnp.zeros(3))),
    "parameter leaf .* has dtype int": (lambda x, y, s: x @ y, (jnp.zeros(2), jnp.zeros(2, int))),
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_what_is_no_game_is_refused(sentence):
    function, params = REFUSED[sentence]
    with pytest.raises(ValueError, match=sentence):
        jd.problems.Saddle(function, jnp.ones((3, 2, 2)), params)


def test_a_game_without_equilibrium_says_so():
    def f(x, y, sample):
        return jnp.exp(x) + sample * x - y**2

    game = jd.problems.Saddle(f, jnp.ones((2, 1)), (jnp.ones(()), jnp.ones(())))
    with pytest.raises(ValueError, match=r"no equilibrium was found, \|F\| = .*start nearer"):
        game.solved()
