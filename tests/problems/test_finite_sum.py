"""Any loss over any parameter pytree: layouts, flax and optax, oracles, gradients of one's own."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from reference import losses

import jaxdopt as jd

RANDOM = np.random.default_rng(0)
FEATURES, TARGETS = RANDOM.standard_normal((4, 6, 3)), RANDOM.standard_normal((4, 6))


def nested_loss(params, sample):
    """Least squares in an awkward parametrization: w = tree of three leaves."""
    weights = jnp.concatenate([params["a"].ravel(), params["b"][1]])
    return (weights @ sample["x"] - sample["y"]) ** 2 / 2 + 0.0 * params["b"][0].sum()


PARAMS = {"a": jnp.ones((2, 1)), "b": (jnp.zeros(()), jnp.full(1, 2.0))}


def nested():
    return jd.problems.FiniteSum(nested_loss, {"x": FEATURES, "y": TARGETS}, PARAMS)


def test_rows_and_pytrees():
    problem = nested()
    row = problem.start()[2]
    np.testing.assert_array_equal(row, [1.0, 1.0, 0.0, 2.0])
    again = problem.unravel(row)
    assert jax.tree.structure(again) == jax.tree.structure(PARAMS)
    jax.tree.map(np.testing.assert_array_equal, again, PARAMS)
    np.testing.assert_array_equal(problem.ravel(again), row)
    per_agent = jax.tree.map(lambda leaf: jnp.stack([leaf + i for i in range(4)]), PARAMS)
    np.testing.assert_array_equal(problem.start(per_agent)[3], row + 3)


def test_gradients_in_the_layout_of_the_parameters():
    problem = nested()
    x = RANDOM.standard_normal((4, 4))
    got = np.asarray(jax.jit(problem.grad)(x))
    for i in range(4):
        weights = x[i][[0, 1, 3]]
        expected = losses.least_squares_gradient(weights, FEATURES[i], TARGETS[i], 0.0)
        np.testing.assert_allclose(got[i][[0, 1, 3]], expected, atol=1e-12)
        assert got[i][2] == 0


@pytest.mark.slow
def test_a_flax_model_with_an_optax_loss_learns():
    model = nn.Dense(3)
    images, digits = jd.data.digits().only(0, 1, 2)
    data = images[:520].reshape(4, 130, 64), digits[:520].reshape(4, 130)

    def loss(params, sample):
        image, digit = sample
        scores = model.apply(params, image)
        return optax.losses.softmax_cross_entropy_with_integer_labels(scores, digit)

    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros(64))
    problem = jd.problems.FiniteSum(loss, data, params, l2=1e-3)
    accuracy = jd.metrics.accuracy(images[520:], digits[520:], predict=model.apply)
    network = jd.networks.metropolis(jd.graphs.ring(4))
    result = jd.run(
        jd.GradientTracking(0.5),
        jd.problems.Minibatch(problem, 16),
        network,
        problem.start(),
        jax.random.key(1),
        steps=200,
        every=100,
        metrics={"accuracy": accuracy},
    )
    assert problem.d == 64 * 3 + 3
    assert result.history["accuracy"][-1] == 1.0
    solved = problem.solved()
    slope = jax.jit(jax.grad(solved.objective))(solved.solution)
    assert float(jnp.linalg.norm(slope)) < 1e-7  # flax parameters are float32


def test_the_oracle_gives_every_agent_its_own_key_and_data():
    def gradient(params, data, key):
        return {"w": params["w"] * data + jax.random.normal(key, (2,))}

    problem = jd.problems.Oracle(gradient, jnp.arange(3.0), {"w": jnp.ones(2)})
    assert (problem.n, problem.d) == (3, 2)
    key = jax.random.key(5)
    grad = jax.jit(problem.grad)
    noise = np.asarray(grad(problem.start(), key)) - np.arange(3.0)[:, None]
    expected = [jax.random.normal(k, (2,)) for k in jax.random.split(key, 3)]
    np.testing.assert_allclose(noise, expected)
    np.testing.assert_array_equal(grad(problem.start(), key), grad(problem.start(), key))
    assert not np.allclose(noise[0], noise[1])


def test_an_oracle_without_data_counts_its_agents():
    problem = jd.problems.Oracle(lambda x, _, key: x - 1.0, None, jnp.zeros(2), agents=5)
    network = jd.networks.metropolis(jd.graphs.ring(5))
    result = jd.run(jd.DSGD(0.5), problem, network, problem.start(), jax.random.key(0), steps=60)
    np.testing.assert_allclose(result.state.x, 1.0, atol=1e-12)
    assert result.history["gradients"][-1] == 60
    assert set(result.history) >= {"consensus_error", "rounds"}
    assert "loss" not in result.history


def test_given_gradients_are_returned_and_checked():
    problem = jd.problems.Given(jnp.ones((3, 2)))
    assert (problem.n, problem.d) == (3, 2)
    np.testing.assert_array_equal(problem.grad(jnp.zeros((3, 2))), np.ones((3, 2)))
    with pytest.raises(ValueError, match=r"shape \(3, 2\) and the estimates \(4, 2\)"):
        problem.grad(jnp.zeros((4, 2)))


def test_the_smallest_problem_is_a_duck():
    class Duck:
        n, d = 4, 2

        def grad(self, x, key):
            return x - jnp.arange(4.0)[:, None]

    network = jd.networks.metropolis(jd.graphs.complete(4))
    x0 = jnp.zeros((4, 2))
    result = jd.run(jd.GradientTracking(0.5), Duck(), network, x0, jax.random.key(0), steps=100)
    np.testing.assert_allclose(result.state.x, 1.5, atol=1e-12)


def test_problems_batch_over_data():
    """Vmap over data: stacked problems of one shape run as one program."""
    members = [
        jd.problems.least_squares(RANDOM.standard_normal((4, 6, 2)), TARGETS) for _ in range(3)
    ]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
    network = jd.networks.metropolis(jd.graphs.ring(4))
    key, x0 = jax.random.key(0), members[0].start()
    swept = jd.sweep(jd.run, over=("problem",))
    together = swept(jd.EXTRA(0.05), stacked, network, x0, key, steps=20)
    for i, member in enumerate(members):
        alone = jd.run(jd.EXTRA(0.05), member, network, x0, key, steps=20)
        np.testing.assert_allclose(together.history["gap"][i], alone.history["gap"], atol=1e-12)
