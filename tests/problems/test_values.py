"""Values: their slopes are the gradients, one sample for all points; differences and queries."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import black_boxes

import jaxdopt as jd

N, D = 3, 4
SIZES = (3, 8, 5)
KEY = jax.random.key(4)
RING = jd.networks.metropolis(jd.graphs.ring(N))


@functools.cache
def data():
    random = np.random.default_rng(1)
    features = [random.standard_normal((m, D)) for m in SIZES]
    return features, [np.where(f[:, 0] > 0.3 * i, 1, 0) for i, f in enumerate(features)]


@functools.cache
def sums(weights: Any = "samples"):
    return jd.problems.logistic_regression(*data(), l2=0.1, weights=weights)


@functools.cache
def quadratic():
    return jd.problems.quadratic(N, D, heterogeneity=1.0, curvature_spread=0.4)


def mean_square(x, sample, key):
    """A value that depends on a dictionary, the agent's sample and the key."""
    noise = jax.random.normal(key)
    return jnp.sum(jnp.square(x["a"] - sample)) + x["b"].sum() * noise + noise


@functools.cache
def box():
    start = {"a": jnp.zeros(2), "b": jnp.ones((1, 2))}
    return jd.problems.BlackBox(mean_square, jnp.arange(2.0 * N).reshape(N, 2), start)


PROBLEMS = {
    "finite sum": sums,
    "equal weights": lambda: sums("agents"),
    "softmax": lambda: jd.problems.softmax_regression(*data(), l2=0.1),
    "mlp, losses at once": lambda: jd.problems.mlp(*data(), hidden=(2,)),
    "minibatch": lambda: jd.problems.Minibatch(sums(), 2),
    "quadratic": quadratic,
    "composite": lambda: jd.problems.Composite(sums(), jd.problems.prox.L1(0.1)),
    "part": lambda: jd.problems.Minibatch(sums(), 2).take(jnp.array([2, 0])),
    "part of a quadratic": lambda: quadratic().take(jnp.array([2, 0])),
}


def start(problem, shape=()):
    random = np.random.default_rng(2)
    return jnp.asarray(random.standard_normal((problem.n, *shape, problem.d)))


@pytest.mark.parametrize("name", PROBLEMS)
def test_slopes_of_values_are_the_gradients(name):
    """Each agent's of its own, with the same samples and weights."""
    problem = PROBLEMS[name]()
    x = start(problem)

    @jax.jit
    def both(problem, x):
        return jax.grad(lambda x: problem.value(x, KEY).sum())(x), problem.grad(x, KEY)

    np.testing.assert_allclose(*both(problem, x), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", [*PROBLEMS, "black box"])
def test_many_points_have_the_same_samples(name):
    problem = box() if name == "black box" else PROBLEMS[name]()
    points = start(problem, (4,))
    value = jax.jit(lambda problem, x: problem.value(x, KEY))
    values, alone = value(problem, points), [value(problem, points[:, j]) for j in range(4)]
    assert values.shape == (problem.n, 4)
    np.testing.assert_allclose(values, np.stack(alone, axis=1), rtol=1e-13)


@pytest.mark.parametrize("weights", ["agents", "samples"])
def test_the_mean_of_values_is_the_objective(weights):
    problem, x = sums(weights), start(sums())[:1]
    mean = problem.value(jnp.broadcast_to(x, (N, D))).mean()
    np.testing.assert_allclose(mean, problem.objective(x[0]), rtol=1e-13)
    for i, m in enumerate(SIZES):  # each is the plain mean over its samples
        a, b = data()[0][i], 2 * data()[1][i] - 1
        own = np.log1p(np.exp(-b * (a @ np.asarray(x[0])))).mean() + 0.05 * np.sum(x[0] ** 2)
        share = N * m / sum(SIZES) if weights == "samples" else 1
        value = problem.value(jnp.broadcast_to(x, (N, D)))[i]
        np.testing.assert_allclose(value, share * own, rtol=1e-12)


def test_a_black_box_is_its_function():
    problem = box()
    x = start(problem)
    keys = jax.random.split(KEY, N)
    expected = [
        mean_square({"a": row[:2], "b": row[2:].reshape(1, 2)}, problem.data[i], keys[i])
        for i, row in enumerate(x)
    ]
    np.testing.assert_allclose(problem.value(x, KEY), expected, rtol=1e-13)
    assert not hasattr(problem, "grad")
    assert problem.start().tolist() == [[0, 0, 1, 1]] * N
    assert problem.unravel(problem.start()[0])["b"].shape == (1, 2)
    alone = jd.problems.BlackBox(lambda x, sample, key: x.sum(), None, jnp.ones(2), agents=5)
    assert alone.value(alone.start(), KEY).tolist() == [2.0] * 5
    assert "function" in repr(alone)


def loop(problem, v, x, key, radius, estimator, factor):
    """The estimates, agent by agent."""
    ahead, back = (
        np.stack([problem.value(x + sign * radius * v[:, j], key) for j in range(v.shape[1])])
        for sign in (1, -1)
    )
    if estimator == "central":
        return [black_boxes.central(ahead[:, i], back[:, i], v[i], radius, factor)
                for i in range(len(v))]  # fmt: skip
    here = np.asarray(problem.value(x, key))
    return [black_boxes.forward(ahead[:, i], here[i], v[i], radius, factor) for i in range(len(v))]


@pytest.mark.parametrize("estimator", ["central", "forward"])
@pytest.mark.parametrize("distribution", ["gaussian", "sphere"])
def test_estimates_are_differences_along_directions(estimator, distribution):
    within = jd.problems.Minibatch(sums(), 2)
    problem = jd.problems.ZerothOrder(within, 3, 0.01, estimator, distribution)
    x, v = start(problem), np.asarray(problem.drawn(KEY))
    sphere = distribution == "sphere"
    expected = loop(within, v, np.asarray(x), KEY, 0.01, estimator, D if sphere else 1)
    np.testing.assert_allclose(problem.grad(x, KEY), expected, rtol=1e-10, atol=1e-12)
    lengths = np.linalg.norm(v, axis=-1)
    assert np.allclose(lengths, 1) == sphere
    assert problem.queries == (6 if estimator == "central" else 4)
    assert problem.samples == 2 * problem.queries


@pytest.mark.parametrize("estimator", ["central", "forward"])
@pytest.mark.parametrize(("distribution", "second"), [("gaussian", D + 2), ("sphere", D)])
def test_estimates_have_the_gradient_as_mean_and_the_known_second_moment(
    estimator, distribution, second
):
    """With a small radius on a quadratic, for every agent; E|g|² = (d + 2)|∇f|² or d |∇f|²."""
    problem = jd.problems.ZerothOrder(quadratic(), 1, 1e-5, estimator, distribution)
    x, draws = start(problem), 20_000
    drawn = jax.jit(jax.vmap(problem.grad, (None, 0)))(x, jax.random.split(KEY, draws))
    drawn, exact = np.asarray(drawn), np.asarray(quadratic().grad(x))
    assert np.all(np.abs(drawn.mean(axis=0) - exact) < 5 * drawn.std(axis=0) / draws**0.5 + 1e-4)
    ratio = np.sum(drawn**2, axis=2).mean(axis=0) / np.sum(exact**2, axis=1)
    np.testing.assert_allclose(ratio, second, rtol=0.05)


def test_central_differences_of_quadratics_have_no_bias_of_the_radius():
    x = start(quadratic())
    small, large = (jd.problems.ZerothOrder(quadratic(), 2, r).grad(x, KEY) for r in (1e-3, 10.0))
    np.testing.assert_allclose(small, large, rtol=1e-9)


def test_directions_belong_to_the_key_and_the_agent():
    """Another agent, another key: other directions; some agents alone have their own."""
    problem = jd.problems.ZerothOrder(sums(), 2)
    v = problem.drawn(KEY)
    correlation = np.corrcoef(v.reshape(2 * N, D))[np.triu_indices(2 * N, 1)]
    assert np.abs(correlation).max() < 0.99
    assert jnp.all(problem.drawn(jax.random.key(5)) != v)
    part = problem.take(jnp.array([2, 0]))
    np.testing.assert_array_equal(part.drawn(KEY), v[jnp.array([2, 0])])
    np.testing.assert_array_equal(part.take(jnp.array([1])).drawn(KEY), v[:1])
    x = start(problem)
    whole = problem.grad(x, KEY)
    np.testing.assert_allclose(part.grad(x[jnp.array([2, 0])], KEY), whole[jnp.array([2, 0])])
    keys = jax.random.split(KEY, N)  # which black boxes' agents have
    assert jnp.all(jax.random.normal(keys[1], (2, D)) != v[1])


def test_every_gradient_method_runs_on_a_black_box():
    """A decentralized two-point baseline, whose values are those of a finite sum."""
    within = jd.problems.quadratic(N, D, heterogeneity=0.5)

    def value(x, part, key):
        hessian, tilt = part
        away = x - within.center
        return away @ hessian @ away / 2 + tilt @ away

    plain = jd.problems.BlackBox(value, (within.hessians, within.tilts), jnp.zeros(D))
    options: dict[str, Any] = {"steps": 30, "metrics": {"x": lambda state, _: state.x}}
    runs = [
        jd.run(jd.DSGD(0.1), jd.problems.ZerothOrder(p, 4), RING, p.start(), KEY, **options)
        for p in (plain, within)
    ]
    np.testing.assert_allclose(runs[0].history["x"], runs[1].history["x"], rtol=1e-9, atol=1e-10)
    assert "gap" in runs[1].history  # facts and objective are those of the problem within
    assert runs[0].history["queries"][-1] == runs[1].history["queries"][-1] == 240
    tracked = jd.problems.ZerothOrder(within, 10)
    found = jd.run(jd.GradientTracking(0.1), tracked, RING, within.start() + 3, KEY, steps=150)
    assert found.history["gap"][-1] < 0.05 * found.history["gap"][0]


@pytest.mark.parametrize(
    ("method", "network", "expected"),
    [
        pytest.param(jd.LocalDSGD(0.1, local_steps=3), RING, 18.0, marks=pytest.mark.slow),
        (jd.FedAvg(0.1, local_steps=3), jd.networks.participation.uniform(N, 1), 6.0),
        (jd.DSGD(0.1), jd.networks.Asleep(RING, 0.5), None),
    ],
)
def test_queries_are_counted_for_the_average_agent(method, network, expected):
    """Times local steps and the share that takes part; passes over data count all values."""
    problem = jd.problems.ZerothOrder(jd.problems.Minibatch(sums(), 2), 3)
    run = jd.run(method, problem, network, problem.start(), KEY, steps=8)
    queries = run.history["queries"]
    if expected is not None:
        np.testing.assert_allclose(np.diff(queries), expected)
    np.testing.assert_allclose(run.history["gradients"], 2 * queries)
    if expected is None:
        assert set(np.round(np.diff(queries) / 2).astype(int)) <= {0, 1, 2, 3}


def test_queries_are_the_calls_that_are_made():
    asked, orders = [], jd.problems.ZerothOrder

    def value(x, sample, key):
        jax.debug.callback(lambda one: asked.append(one), x[0])
        return jnp.sum(x**2)

    plain = jd.problems.BlackBox(value, jnp.zeros(N), jnp.ones(D))
    for problem, each in ((orders(plain, 2), 4), (orders(plain, 2, estimator="forward"), 3)):
        asked.clear()
        run = jd.run(jd.DSGD(0.1), problem, RING, problem.start(), KEY, steps=5)
        jax.effects_barrier()
        assert run.history["queries"][-1] == 5 * each
        assert len(asked) == 5 * each * N


@pytest.mark.slow
def test_a_radius_and_a_stepsize_are_swept_in_one_program():
    traces = []

    def traced(state, problem):
        traces.append(state)
        return state.x

    def last(radius, rate):
        problem = jd.problems.ZerothOrder(box(), radius=radius)
        options: dict[str, Any] = {"steps": 4, "metrics": {"x": traced}, "defaults": ()}
        return jd.run(jd.DSGD(rate), problem, RING, problem.start(), KEY, **options).state.x

    single = last(0.2, 0.1)
    before = len(traces)
    last(0.1, 0.3)
    assert len(traces) == before
    sweep = jax.vmap(jax.vmap(last, (None, 0)), (0, None))
    together = jax.jit(sweep)(jnp.array([1e-3, 0.2]), jnp.array([0.05, 0.1, 0.2]))
    np.testing.assert_allclose(together[1, 1], single, rtol=1e-10)


def test_float32_stays_float32(float32):
    plain = jd.problems.BlackBox(lambda x, a, key: jnp.sum((x - a) ** 2), jnp.ones(N), jnp.zeros(D))
    for problem in (plain, jd.problems.quadratic(N, D)):
        estimated = jd.problems.ZerothOrder(problem, 500)
        x = jnp.asarray(np.random.default_rng(0).standard_normal((N, D)), jnp.float32)
        found = estimated.grad(x, KEY)
        assert found.dtype == problem.value(x, KEY).dtype == jnp.float32
        exact = 2 * (x - 1) if isinstance(problem, jd.problems.BlackBox) else problem.grad(x)
        assert jnp.linalg.norm(found - exact) < 0.3 * jnp.linalg.norm(exact)


def refused(sentence, make, *given, **options):
    with pytest.raises(ValueError, match=sentence):
        make(*given, **options)


def test_what_does_not_fit_is_refused_in_one_sentence():
    order, plain = jd.problems.ZerothOrder, box()
    noisy = jd.problems.GaussianNoise(sums(), 0.1)
    assert not hasattr(noisy, "value")
    refused("a GaussianNoise without value; give one that can be asked", order, noisy)
    refused("a ZerothOrder without value; give", order, order(sums()))
    refused("an? Given without value; give", order, jd.problems.Given(jnp.ones((N, D))))
    refused("radius is 0; give more than 0", order, sums(), radius=0.0)
    refused(r"radius has shape \(3, 1\); give one number", order, sums(), radius=np.ones((3, 1)))
    refused("directions is 0; give an integer of at least 1", order, sums(), directions=0)
    refused("estimator is 'both'; give 'central' or 'forward'", order, sums(), estimator="both")
    refused("BlackBox without grad; give jd.problems.ZerothOrder of it", jd.problems.GaussianNoise,
            plain, 0.1)  # fmt: skip
    refused("has no samples to draw", jd.problems.Minibatch, plain, 2)
    make: Any = jd.problems.BlackBox
    refused("function is not callable", make, 3.0, None, jnp.ones(2), agents=2)
    refused("returns .* shape \\(2,\\) .*return one floating number", make, lambda x, a, key: x,
            None, jnp.ones(2), agents=2)  # fmt: skip
    refused("dtype int.*return one floating", make, lambda x, a, key: jnp.argmax(x), None,
            jnp.ones(2), agents=2)  # fmt: skip
    refused("the function fails", make, lambda x, a: x.sum(), None, jnp.ones(2), agents=2)
    refused("agents= where there is no data", make, lambda x, a, key: x.sum(), None, jnp.ones(2))


def test_methods_are_refused_both_ways():
    """Before any work, by run, a bare init and explain."""
    plain, given = box(), jd.problems.Given(jnp.ones((N, D)))
    sentence = r"DSGD asks for gradients and a BlackBox has values alone; give jd.problems.Zeroth"
    setting = RING, plain.start(), KEY
    refused(sentence, jd.run, jd.DSGD(0.1), plain, *setting, steps=2)
    refused(sentence, jd.DSGD(0.1).init, plain.start(), plain, RING, KEY)
    sampling = "SGD draws its samples itself"
    refused(sampling, jd.run, jd.SGD(0.1), jd.problems.ZerothOrder(sums()), *setting, steps=2)
    server = jd.networks.Server(N)
    for method in (jd.FedZO(0.1), jd.JustOneByte(0.1)):
        name = type(method).__name__
        for problem in (given, jd.problems.GaussianNoise(sums(), 0.1)):
            kind = type(problem).__name__
            sentence = f"{name} asks for values and a {kind} has none; give a finite sum"
            refused(sentence, jd.run, method, problem, server, jnp.ones((N, D)), KEY, steps=2)
            refused(sentence, method.init, jnp.ones((N, D)), problem, server, KEY)
    explained = jd.explain(jd.DSGD(0.1), plain, *setting, timed=False)
    assert "asks for gradients" in explained.refusal
    assert jd.explain(jd.FedZO(0.1), plain, server, timed=False).needs["values"] is True

    class Rows:
        n, d = N, D

        def value(self, x, key):
            return x

    sentence = r"value of the Rows has shape \(3, 4\) .*return one floating number an agent"
    refused(sentence, jd.run, jd.FedZO(0.1), Rows(), server, jnp.ones((N, D)), KEY, steps=2)
