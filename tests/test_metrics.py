"""The metrics against NumPy."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdopt as jd

N, D, M = 3, 2, 9
RANDOM = np.random.default_rng(0)
X = RANDOM.standard_normal((N, D))
FEATURES = RANDOM.standard_normal((M, D))
STATE = types.SimpleNamespace(x=jnp.asarray(X))
NETWORK, KEY = jd.networks.metropolis(jd.graphs.complete(N)), jax.random.key(0)
NOTHING = types.SimpleNamespace()


@pytest.mark.parametrize("low", [0, -1])
@pytest.mark.parametrize("each", [False, True])
def test_binary_accuracy(low, each):
    labels = np.where(RANDOM.random(M) < 0.5, 1, low)
    metric = jd.metrics.accuracy(FEATURES, labels, each_agent=each)
    models = X if each else X.mean(axis=0)[None]
    expected = [
        sum((a @ w > 0) == (b == 1) for a, b in zip(FEATURES, labels, strict=True)) / M
        for w in models
    ]
    value = metric(STATE, NOTHING)
    assert value.shape == ((N,) if each else ())
    np.testing.assert_allclose(value, expected if each else expected[0], rtol=1e-6)


@pytest.mark.parametrize("each", [False, True])
def test_accuracy_over_classes_uses_the_problems_parameters(each):
    classes = 4
    labels = np.arange(M) % classes
    problem = jd.problems.softmax_regression(FEATURES, labels, agents=N, l2=0.1)
    rows = RANDOM.standard_normal((N, D * classes))
    state = types.SimpleNamespace(x=jnp.asarray(rows))
    value = jd.metrics.accuracy(FEATURES, labels, each_agent=each)(state, problem)
    models = rows if each else rows.mean(axis=0)[None]
    expected = []
    for row in models:
        w = row.reshape(D, classes)
        expected.append(np.mean([np.argmax(a @ w) == b for a, b in zip(FEATURES, labels,
                                                                       strict=True)]))  # fmt: skip
    np.testing.assert_allclose(value, expected if each else expected[0], rtol=1e-6)


def test_accuracy_of_a_model_of_ones_own():
    labels = (FEATURES[:, 0] > 0.2).astype(int)
    metric = jd.metrics.accuracy(FEATURES, labels, predict=lambda w, a: a[:, 0] - 0.2)
    assert float(metric(STATE, NOTHING)) == 1
    opposite = jd.metrics.accuracy(FEATURES, 1 - labels, predict=lambda w, a: a[:, 0] - 0.2)
    assert float(opposite(STATE, NOTHING)) == 0


@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize("samples", [9, 300])  # of one batch, and of two
def test_held_out_loss(each, samples):
    random = np.random.default_rng(1)
    data = random.standard_normal((samples, D)), random.standard_normal(samples)
    problem = jd.problems.least_squares(FEATURES, FEATURES[:, 0], agents=N, l2=0.1)
    metric = jd.metrics.held_out(problem.loss, data, each_agent=each)
    models = X if each else X.mean(axis=0)[None]
    expected = [np.mean([(a @ w - b) ** 2 / 2 for a, b in zip(*data, strict=True)]) for w in models]
    value = jax.jit(metric)(jd.DGD(0.1).init(jnp.asarray(X), problem, NETWORK, KEY), problem)
    np.testing.assert_allclose(value, expected if each else expected[0], rtol=1e-12)


def test_held_out_data_and_losses_are_checked():
    with pytest.raises(ValueError, match=r"arrays have shapes \[\(3,\), \(4,\)\]"):
        jd.metrics.held_out(lambda w, s: 0.0, (np.zeros(3), np.zeros(4)))
    with pytest.raises(ValueError, match=r"loss is 3; give loss\(params, sample\)"):
        jd.metrics.held_out(3, np.zeros(3))  # type: ignore[arg-type]


def test_accuracy_is_recorded_by_a_run():
    labels = (FEATURES[:, 0] > 0).astype(int)
    problem = jd.problems.logistic_regression(FEATURES, labels, agents=N, l2=0.01)
    metric = jd.metrics.accuracy(FEATURES, labels, each_agent=True)
    network = jd.networks.metropolis(jd.graphs.complete(N))
    result = jd.run(jd.DSGD(0.5), problem, network, problem.start(), jax.random.key(0),
                    steps=100, every=50, metrics={"accuracy": metric})  # fmt: skip
    assert result.history["accuracy"].shape == (3, N)
    expected = [np.mean((FEATURES @ w > 0) == labels) for w in np.asarray(result.state.x)]
    np.testing.assert_allclose(result.history["accuracy"][-1], expected, rtol=1e-6)


def test_the_estimate_is_the_mean_or_the_states_own():
    near = N * np.finfo(float).eps * np.abs(X).max()
    mean = X.mean(axis=0)
    np.testing.assert_allclose(jd.metrics.estimate(STATE), mean, rtol=0, atol=near)
    own = types.SimpleNamespace(x=STATE.x, estimate=STATE.x[1])
    np.testing.assert_array_equal(jd.metrics.estimate(own), X[1])
    none = types.SimpleNamespace(x=STATE.x, estimate=None)
    np.testing.assert_allclose(jd.metrics.estimate(none), mean, rtol=0, atol=near)


@pytest.mark.parametrize("own", [False, True])
def test_values(own):
    problem = jd.problems.quadratic(N, D, curvature_spread=0.4)
    state = types.SimpleNamespace(x=STATE.x, estimate=STATE.x[2]) if own else STATE
    at = X[2] if own else X.mean(axis=0)
    away = at - np.asarray(problem.solution)
    hessians, tilts = np.asarray(problem.hessians), np.asarray(problem.tilts)
    loss = np.mean([away @ h @ away / 2 + t @ away for h, t in zip(hessians, tilts, strict=True)])
    slope = np.mean([h @ away + t for h, t in zip(hessians, tilts, strict=True)], axis=0)
    expected = {
        "loss": loss,
        "gap": loss,
        "distance_squared": away @ away,
        "gradient_norm_squared": slope @ slope,
        "consensus_error": np.mean(((X - X.mean(axis=0)) ** 2).sum(axis=1)),
    }
    known = jd.metrics.defaults(problem)
    assert set(known) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(known[name](state, problem), value, rtol=1e-12, err_msg=name)


FACTS = [
    ({}, {"consensus_error"}),
    ({"objective": sum}, {"consensus_error", "loss", "gradient_norm_squared"}),
    (
        {"objective": sum, "optimum": 0.0, "solution": None},
        {"consensus_error", "loss", "gradient_norm_squared", "gap"},
    ),
    ({"optimum": 0.0}, {"consensus_error"}),
    ({"solution": X[0]}, {"consensus_error", "distance_squared"}),
]


@pytest.mark.parametrize(("facts", "names"), FACTS)
def test_defaults_follow_the_facts(facts, names):
    assert set(jd.metrics.defaults(types.SimpleNamespace(**facts))) == names
