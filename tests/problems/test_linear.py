"""Linear models against NumPy loops over samples: values, gradients, constants, solutions."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.extend import core
from reference import losses

import jaxdopt as jd
from jaxdopt.problems import linear

P, CLASSES = 3, 4
SIZES = {"even": (6, 6, 6, 6), "uneven": (5, 9, 2, 7)}
MODELS = {
    "least_squares": (losses.least_squares_value, losses.least_squares_gradient, P),
    "logistic": (losses.logistic_value, losses.logistic_gradient, P),
    "softmax": (losses.softmax_value, losses.softmax_gradient, P * CLASSES),
}
FACTORIES = {
    "least_squares": jd.problems.least_squares,
    "logistic": jd.problems.logistic_regression,
    "softmax": jd.problems.softmax_regression,
}
every_case = pytest.mark.parametrize(
    ("model", "sizes", "weights", "l2"),
    [
        ("least_squares", "even", "agents", 0.0),
        ("least_squares", "uneven", "samples", 0.3),
        ("logistic", "even", "samples", 0.1),
        ("logistic", "uneven", "agents", 0.1),
        ("logistic", "uneven", "samples", 0.2),
        ("softmax", "even", "agents", 0.2),
        ("softmax", "uneven", "samples", 0.1),
    ],
)


# one program for every structure of a problem, instead of one for every operation
grad: Any = jax.jit(lambda problem, x: problem.grad(x))
grad_at: Any = jax.jit(lambda problem, x, indices: problem.grad_at(x, indices))
slope: Any = jax.jit(lambda problem, x: jax.grad(problem.objective)(x))


def data(model, sizes):
    random = np.random.default_rng(3)
    features = [random.standard_normal((m, P)) + i / 2 for i, m in enumerate(SIZES[sizes])]
    if model == "least_squares":
        return features, [f.sum(axis=1) + i for i, f in enumerate(features)]
    if model == "logistic":
        return features, [np.sign(random.standard_normal(len(f)) + 0.1) for f in features]
    return features, [np.arange(len(f)) % CLASSES for f in features]


def build(model, sizes, weights, l2):
    features, labels = data(model, sizes)
    if sizes == "even":
        features, labels = np.stack(features), np.stack(labels)
    return FACTORIES[model](features, labels, l2=l2, weights=weights)


def points(problem):
    return np.random.default_rng(9).standard_normal((problem.n, problem.d))


def scale(problem, sizes, weights):
    counts = np.array(SIZES[sizes])
    return np.ones(4) if weights == "agents" else 4 * counts / counts.sum()


@every_case
def test_gradients_and_objective(model, sizes, weights, l2):
    value, gradient, d = MODELS[model]
    features, labels = data(model, sizes)
    problem = build(model, sizes, weights, l2)
    assert (problem.n, problem.d) == (4, d)
    x = points(problem)
    share = scale(problem, sizes, weights)
    expected = [share[i] * gradient(x[i], features[i], labels[i], l2) for i in range(4)]
    np.testing.assert_allclose(grad(problem, x), expected, atol=1e-12)
    np.testing.assert_allclose(
        problem.objective(jnp.asarray(x[0])),
        losses.objective(value, x[0], features, labels, l2, weights),
        rtol=1e-12,
    )
    mean = np.asarray(grad(problem, np.broadcast_to(x[0], x.shape))).mean(axis=0)
    np.testing.assert_allclose(mean, slope(problem, x[0]), atol=1e-12)


@every_case
def test_chosen_samples_and_chosen_agents(model, sizes, weights, l2):
    _, gradient, _ = MODELS[model]
    features, labels = data(model, sizes)
    problem = build(model, sizes, weights, l2)
    x, share = points(problem), scale(problem, sizes, weights)
    indices = np.array([[0, 1, 1], [1, 0, 0], [0, 0, 1], [1, 1, 1]])
    expected = [
        share[i] * gradient(x[i], features[i][indices[i]], labels[i][indices[i]], l2)
        for i in range(4)
    ]
    got = np.asarray(grad_at(problem, x, indices))
    np.testing.assert_allclose(got, expected, atol=1e-12)
    one = grad_at(problem, x, indices[:, 0])
    np.testing.assert_allclose(one, grad_at(problem, x, indices[:, :1]))
    whole, who = np.asarray(grad(problem, x)), np.array([2, 0])
    part = problem.take(jnp.asarray(who))
    assert part.n == 2
    np.testing.assert_allclose(grad(part, x[who]), whole[who])
    np.testing.assert_allclose(grad_at(part, x[who], indices[who]), got[who], atol=1e-13)
    again = part.take(jnp.array([1]))
    np.testing.assert_allclose(grad(again, x[:1]), whole[:1])


@every_case
def test_the_solution_is_one(model, sizes, weights, l2):
    value, _, _ = MODELS[model]
    features, labels = data(model, sizes)
    problem = build(model, sizes, weights, l2)
    assert np.linalg.norm(slope(problem, problem.solution)) < 1e-12
    found = scipy.optimize.minimize(
        lambda x: losses.objective(value, x, features, labels, l2, weights), np.zeros(problem.d)
    )
    assert abs(float(problem.optimum) - found.fun) < 1e-9
    assert float(problem.optimum) <= found.fun + 1e-13
    if model == "logistic":
        np.testing.assert_allclose(
            problem.solution, losses.solve_logistic(features, labels, l2, weights), atol=1e-11
        )


@every_case
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), size=st.floats(0.01, 10))
def test_the_constants_are_bounds(model, sizes, weights, l2, seed, size):
    problem = build_once(model, sizes, weights, l2)
    random = np.random.default_rng(seed)
    x, step = random.standard_normal((2, 4, problem.d))
    y = x + size * step
    a, b = (np.asarray(grad(problem, at)) for at in (x, y))
    ratios = np.linalg.norm(a - b, axis=1) / np.linalg.norm(x - y, axis=1)
    assert ratios.max() <= float(problem.smoothness) * (1 + 1e-9)
    inner = np.asarray(slope(problem, x[0]) - slope(problem, y[0])) @ (x[0] - y[0])
    assert inner >= float(problem.strong_convexity) * np.sum((x[0] - y[0]) ** 2) * (1 - 1e-9)


BUILT: dict = {}


def build_once(*case):
    if case not in BUILT:
        BUILT[case] = build(*case)
    return BUILT[case]


def test_smoothness_of_squares_is_attained():
    problem = build("least_squares", "uneven", "samples", 0.3)
    features, _ = data("least_squares", "uneven")
    share = scale(problem, "uneven", "samples")
    tops = [
        s * (np.linalg.eigvalsh(f.T @ f / len(f))[-1] + 0.3)
        for s, f in zip(share, features, strict=True)
    ]
    np.testing.assert_allclose(problem.smoothness, max(tops), rtol=1e-10)


def test_labels_zero_and_one_are_minus_and_plus_one():
    features, labels = data("logistic", "even")
    stacked = np.stack(features), np.stack(labels)
    signs = jd.problems.logistic_regression(*stacked, l2=0.1)
    bits = jd.problems.logistic_regression(stacked[0], stacked[1] > 0, l2=0.1)
    np.testing.assert_array_equal(signs.data[1], bits.data[1])


def huber_value(x, A, b, delta, l2):
    """A loop over samples, written from the definition."""
    total = 0.0
    for a, label in zip(A, b, strict=True):
        r = abs(float(a @ x) - label)
        total += r**2 / 2 if r <= delta else delta * (r - delta / 2)
    return total / len(b) + l2 / 2 * float(x @ x)


@pytest.mark.parametrize(("delta", "l2"), [(1.0, 0.1), (3.0, 0.0)])
def test_huber_regression(delta, l2):
    features, labels = data("least_squares", "uneven")
    problem = jd.problems.huber_regression(features, labels, delta=delta, l2=l2, weights="samples")
    share = scale(problem, "uneven", "samples")

    def objective(x):
        values = [huber_value(x, A, b, delta, l2) for A, b in zip(features, labels, strict=True)]
        return float(np.mean(share * values))

    x = points(problem)
    np.testing.assert_allclose(jax.jit(problem.objective)(x[0]), objective(x[0]), rtol=1e-12)
    residuals = [np.abs(A @ x[i] - labels[i]) for i, A in enumerate(features)]
    assert min(map(np.min, residuals)) < delta < max(map(np.max, residuals))  # both branches
    got = grad(problem, x)
    for i, (A, b) in enumerate(zip(features, labels, strict=True)):
        expected = share[i] * (np.clip(A @ x[i] - b, -delta, delta) @ A / len(b) + l2 * x[i])
        np.testing.assert_allclose(got[i], expected, atol=1e-12)
    norms = [np.linalg.norm(A, 2) ** 2 / len(A) for A in features]
    np.testing.assert_allclose(problem.smoothness, np.max(share * (np.array(norms) + l2)))
    assert float(problem.strong_convexity) == l2
    found = scipy.optimize.minimize(objective, np.zeros(P), options={"gtol": 1e-9})
    assert abs(float(problem.optimum) - found.fun) < 1e-9
    assert np.linalg.norm(slope(problem, problem.solution)) < 1e-9


def test_huber_beyond_all_residuals_is_least_squares():
    features, labels = data("least_squares", "even")
    stacked = np.stack(features), np.stack(labels)
    huber = jd.problems.huber_regression(*stacked, delta=1e3, l2=0.1)
    squares = jd.problems.least_squares(*stacked, l2=0.1)
    np.testing.assert_allclose(huber.solution, squares.solution, atol=1e-10)
    np.testing.assert_allclose(huber.optimum, squares.optimum, rtol=1e-12)


def test_nonconvex_logistic_regression():
    """Against the sum of its parts and finite differences; its curvature has both signs."""
    features, labels = data("logistic", "uneven")
    weight, l2 = 0.7, 0.1
    problem = jd.problems.nonconvex_logistic_regression(features, labels, weight=weight, l2=l2)
    convex = jd.problems.logistic_regression(features, labels, l2=l2)
    x = points(problem)

    def penalty(x):
        return weight * np.sum(x**2 / (1 + x**2), axis=-1)

    np.testing.assert_allclose(
        problem.objective(jnp.asarray(x[0])),
        float(convex.objective(jnp.asarray(x[0]))) + penalty(x[0]),
        rtol=1e-12,
    )
    extra = np.asarray(grad(problem, x)) - np.asarray(grad(convex, x))
    step = 1e-6
    for j in range(P):
        e = step * np.eye(P)[j]
        central = (penalty(x + e) - penalty(x - e)) / (2 * step)
        np.testing.assert_allclose(extra[:, j], central, atol=1e-8)
    np.testing.assert_allclose(problem.smoothness, float(convex.smoothness) + 2 * weight)
    assert problem.solution is None
    assert problem.optimum is None
    assert problem.strong_convexity is None
    heavy = jd.replace(problem, loss=linear.NonconvexLogisticLoss(100.0))
    curvature = jax.jit(jax.vmap(jax.hessian(heavy.objective)))(jnp.array([[0.0] * P, [1.0] * P]))
    values = np.linalg.eigvalsh(np.asarray(curvature))
    assert values[1].min() < 0
    np.testing.assert_allclose(values[0].max(), 200, atol=float(convex.smoothness))


def test_numbers_of_a_loss_are_swept_and_compile_once():
    features, labels = data("logistic", "even")
    stacked = np.stack(features), np.stack(labels)
    problem = jd.problems.nonconvex_logistic_regression(*stacked, weight=0.1)
    huber = jd.problems.huber_regression(*stacked, delta=0.3)
    for one, field in ((problem, "weight"), (huber, "delta")):

        def grad_of(value, one=one, field=field):
            changed = jd.replace(one, loss=jd.replace(one.loss, **{field: value}))
            return changed.grad(one.start() + 1.0)

        grad: Any = jax.jit(grad_of)
        assert not np.allclose(grad(0.1), grad(0.9))
        assert grad._cache_size() == 1
        swept = jax.jit(jax.vmap(grad_of))(jnp.array([0.1, 0.9]))
        np.testing.assert_allclose(swept[1], grad(0.9), atol=1e-14)


def test_separable_data_without_l2_has_no_known_solution():
    features = np.array([[[1.0], [2.0]], [[-1.0], [-2.0]]])
    problem = jd.problems.logistic_regression(features, features[..., 0] > 0)
    assert problem.solution is None
    assert problem.optimum is None
    assert problem.smoothness is not None
    assert "gap" not in jd.metrics.defaults(problem)
    with pytest.raises(ValueError, match="add l2 > 0"):
        problem.solved()


def test_float32_data_stays_float32():
    features, labels = (np.stack(part).astype(np.float32) for part in data("logistic", "even"))
    problem = jd.problems.logistic_regression(features, labels, l2=0.1)
    assert problem.start().dtype == jnp.float32
    assert problem.grad(problem.start()).dtype == jnp.float32
    exact = jd.problems.logistic_regression(features.astype(float), labels, l2=0.1)
    np.testing.assert_allclose(problem.solution, exact.solution, rtol=1e-5)


def primitives(jaxpr):
    """The names of all operations in a program, with the dtypes they return."""
    for equation in jaxpr.eqns:
        yield equation.primitive.name, {str(out.aval.dtype) for out in equation.outvars}
        for inner in core.jaxprs_in_params(equation.params):
            yield from primitives(inner)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("model", MODELS)
def test_a_gradient_is_one_product_each_way(model, sizes):
    """Written for one sample of one agent, compiled for all at once; and without a scatter."""
    problem = build(model, sizes, "samples", 0.1)
    program = jax.make_jaxpr(problem.grad)(problem.start())
    names = [name for name, _ in primitives(program.jaxpr)]
    assert names.count("dot_general") == 2
    assert not any("scatter" in name or name in ("while", "scan") for name in names)
    products = [e for e in program.jaxpr.eqns if e.primitive.name == "dot_general"]
    for product in products:
        assert product.params["precision"] == (jax.lax.Precision.HIGHEST,) * 2


@pytest.mark.parametrize("model", MODELS)
def test_gradients_under_vmap_and_grad(model):
    problem = build_once(model, "uneven", "samples", 0.1)
    random = np.random.default_rng(5)
    xs = jnp.asarray(random.standard_normal((3, 4, problem.d)))
    together = jax.jit(jax.vmap(problem.grad))(xs)
    np.testing.assert_allclose(together, [grad(problem, x) for x in xs], atol=1e-13)
    x, v = xs[0], xs[1]

    @jax.jit
    def along(t):
        return jnp.sum(problem.grad(x + t * v) ** 2)

    step = 1e-5
    central = (along(step) - along(-step)) / (2 * step)
    np.testing.assert_allclose(jax.jit(jax.grad(along))(0.0), central, rtol=1e-7)


def test_slopes_far_out_are_those_of_a_line():
    slope = jax.jit(jax.vmap(jax.grad(linear.softplus)))
    z = jnp.array([-1e4, -40.0, 0.0, 40.0, 1e4])
    np.testing.assert_allclose(slope(z), [0, np.exp(-40), 0.5, 1, 1], rtol=1e-14)
    np.testing.assert_allclose(jax.vmap(linear.softplus)(z), np.logaddexp(0, z), rtol=1e-14)


@pytest.mark.parametrize("model", ["least_squares", "logistic"])
def test_float64_labels_leave_float32_features_in_float32(model):
    features, labels = (np.stack(part) for part in data(model, "even"))
    problem = FACTORIES[model](features.astype(np.float32), labels, l2=0.1)
    program = jax.make_jaxpr(problem.grad)(problem.start())
    used = set().union(*(dtypes for _, dtypes in primitives(program.jaxpr)))
    assert "float64" not in used
    assert "float32" in used


def test_a_new_l2_is_no_new_program():
    problem = build("logistic", "even", "agents", 0.1)
    other = jd.replace(problem, l2=0.7)
    grad: Any = jax.jit(lambda problem, x: problem.grad(x))
    x = problem.start() + 1.0
    difference = grad(other, x) - grad(problem, x)
    np.testing.assert_allclose(difference, 0.6 * np.ones((4, P)), atol=1e-12)
    assert grad._cache_size() == 1
