"""Swarms: their loops, laws of contraction that hold for any values, and what does not matter."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import black_boxes

import jaxdopt as jd
from jaxdopt.algorithms.black_boxes.swarm import consensus

N, D = 7, 3
KEY = jax.random.key(2)
COMPLETE = jd.networks.Complete(N)
GRAPHS = {
    "complete": COMPLETE,
    "complete, as a table": jd.networks.mixing(np.full((N, N), 1 / N), form=jd.networks.Dense),
    "ring": jd.networks.metropolis(jd.graphs.ring(N)),
    "directed": jd.networks.row_stochastic(jd.graphs.exponential(N)),
}


def bumps(x, sample, key):
    """A value with many minima."""
    return jnp.sum(x**2 + 1 - jnp.cos(5 * x)) + sample


def problem(n=N, function=bumps, shift=0.0):
    return jd.problems.BlackBox(function, jnp.full(n, shift), jnp.zeros(D))


def start(n=N, scale=1.0):
    return scale * jnp.asarray(np.random.default_rng(0).standard_normal((n, D)))


def energy(i, x, k):
    return float(np.sum(x**2 + 1 - np.cos(5 * x)))


def drawn(method):
    """What the method draws in step k."""
    return lambda k: method.normals(jax.random.fold_in(KEY, k), start())


ROWS = {"x": lambda state, problem: state.x}


def run(method, network=COMPLETE, problem=None, x0=None, steps=5):
    n = network.n
    problem = globals()["problem"](n) if problem is None else problem
    x0 = start(n) if x0 is None else x0
    return jd.run(method, problem, network, x0, KEY, steps=steps)


def heard(network):
    """Whom every agent hears, by the matrix."""
    matrix = np.asarray(network.row.matrix())
    return [np.flatnonzero(row).tolist() for row in matrix]


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("anisotropic", [True, False])
def test_cbo_is_its_loop(name, anisotropic):
    """With a schedule of steps, on graphs, from values that are not all of the same size."""
    network = GRAPHS[name]
    method = jd.CBO(jd.schedules.InverseTime(1.8, 9.0), 0.8, 0.9, 3.0, anisotropic)
    result = jd.run(method, problem(), network, start(), KEY, steps=8, metrics=ROWS)
    expected = black_boxes.cbo(
        energy, start(), lambda k: 1.8 / (k + 9), 8, normal=drawn(method), drift=0.8, noise=0.9,
        alpha=3.0, anisotropic=anisotropic, neighbors=heard(network),
    )  # fmt: skip
    np.testing.assert_allclose(result.history["x"], expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", GRAPHS)
def test_consensus_hopping_is_its_loop(name):
    network, method = GRAPHS[name], jd.ConsensusHopping(0.3, 3.0)
    result = jd.run(method, problem(), network, start(), KEY, steps=8, metrics=ROWS)
    expected = black_boxes.consensus_hopping(
        energy, start(), 8, normal=drawn(method), noise=0.3, alpha=3.0, neighbors=heard(network)
    )
    np.testing.assert_allclose(result.history["x"], expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", GRAPHS)
def test_without_noise_differences_shrink_exactly(name):
    """Where there is one v, by 1 - drift stepsize whatever the values are; elsewhere all drift."""
    result = run(jd.CBO(0.1, drift=0.7, noise=0.0, alpha=3.0), GRAPHS[name])
    x, x0 = result.state.x, start()
    if name.startswith("complete"):
        np.testing.assert_allclose(x - x[:1], (1 - 0.07) ** 5 * (x0 - x0[:1]), rtol=1e-12)
    else:
        assert np.all(np.ptp(x, axis=0) < np.ptp(x0, axis=0))


@pytest.mark.parametrize("anisotropic", [True, False])
@pytest.mark.parametrize("noise", [1.0, 1.2])
def test_a_step_changes_the_mean_square_distance_as_computed(anisotropic, noise):
    """Flat values of many particles: (1 - drift stepsize)^2 + noise^2 stepsize, d if isotropic."""
    n, steps = 4000, 20
    method = jd.CBO(0.1, noise=noise, anisotropic=anisotropic)
    flat = problem(n, lambda x, sample, key: sample)
    result = run(method, jd.networks.Complete(n), flat, start(n), steps=steps)
    x, x0 = result.state.x, start(n)
    factor = 0.9**2 + 0.1 * noise**2 * (1 if anisotropic else D)
    measured = np.sum(np.var(x, axis=0)) / np.sum(np.var(x0, axis=0))
    assert measured == pytest.approx(factor**steps, rel=0.25)
    assert (measured < 1) == (noise**2 * (1 if anisotropic else D) < 2 - 0.1)


@pytest.mark.parametrize("method", [jd.CBO(0.1), jd.ConsensusHopping(0.0, 50.0)])
def test_particles_that_agree_stand_still(method):
    """Bit for bit, and so does one alone."""
    alone = run(method, jd.networks.Complete(1), steps=3)
    assert np.array_equal(alone.state.x, start(1))
    for network in (COMPLETE, GRAPHS["ring"]):
        together = jnp.broadcast_to(start(1), (N, D))
        result = run(method, network, x0=together, steps=3)
        assert np.array_equal(result.state.x, together)
        assert np.array_equal(result.state.estimate, together[0])


@pytest.mark.parametrize("method", [jd.CBO(0.1), jd.ConsensusHopping(0.2, 50.0)])
@pytest.mark.parametrize("name", ["complete", "ring"])
def test_what_does_not_matter(method, name):
    """What is added to all values, and where the origin is."""
    network = GRAPHS[name]
    plain = run(method, network).state.x
    shifted = run(method, network, problem(shift=1e3)).state.x
    np.testing.assert_allclose(shifted, plain, rtol=1e-9, atol=1e-9)
    moved = problem(function=lambda x, sample, key: bumps(x - 4.0, sample, key))
    np.testing.assert_allclose(run(method, network, moved, start() + 4.0).state.x - 4.0, plain,
                               rtol=1e-9, atol=1e-9)  # fmt: skip


def test_the_complete_graph_has_two_forms():
    """One v for all, and neighborhoods of everyone; values that overflow count nothing."""
    values = jnp.asarray([3e3, 1.0, jnp.inf, 0.9, 1e30, 2.0, -1e3])
    of = functools.partial(consensus, start(), values)
    one, table = (of(0.5, GRAPHS[name]) for name in ("complete", "complete, as a table"))
    np.testing.assert_allclose(one, table, rtol=1e-12)
    np.testing.assert_allclose(one[0], start()[-1], rtol=1e-12)
    assert np.all(np.isfinite(of(1e6, COMPLETE)))


def test_the_consensus_of_hopping_takes_gradient_steps():
    """Of alpha noise^2, exactly so for a linear f and many particles."""
    n, alpha, noise = 20_000, 4.0, 0.2
    slope = jnp.asarray([1.0, -0.5, 0.2])
    linear = problem(n, lambda x, sample, key: x @ slope)
    result = run(jd.ConsensusHopping(noise, alpha), jd.networks.Complete(n), linear,
                 jnp.zeros((n, D)), steps=4)  # fmt: skip
    step = -alpha * noise**2 * slope
    np.testing.assert_allclose(result.state.estimate, 3 * step, atol=0.02)  # the first v is x0


@pytest.mark.slow
def test_numbers_are_swept_in_one_program():
    def final(method):
        return run(method, GRAPHS["ring"]).state.x

    alphas, steps = jnp.asarray([0.0, 5.0, 50.0]), jnp.asarray([0.1, 0.02, 0.1])
    methods = jax.vmap(lambda a, dt: jd.CBO(dt, noise=dt + 0.5, alpha=a))(alphas, steps)
    swept = jax.vmap(final)(methods)
    for i in range(3):
        one = jd.CBO(float(steps[i]), noise=float(steps[i]) + 0.5, alpha=float(alphas[i]))
        np.testing.assert_allclose(swept[i], final(one), rtol=1e-10)


@pytest.mark.slow
def test_a_global_minimum_in_float32():
    n = 100
    network = jd.networks.Complete(n)
    x0 = start(n, 2.0).astype(jnp.float32) + 1
    simple = jd.problems.BlackBox(bumps, jnp.zeros(n, jnp.float32), jnp.zeros(D, jnp.float32))
    result = run(jd.CBO(0.05), network, simple, x0, steps=200)
    assert result.state.x.dtype == jnp.float32
    assert np.linalg.norm(result.state.estimate) < 0.1


def test_what_is_sent_and_asked():
    for method in (jd.CBO(0.1), jd.ConsensusHopping(0.1, 5.0)):
        history = run(method, GRAPHS["ring"], steps=3).history
        assert history["queries"][-1] == 3
        assert history["rounds"][-1] == history["vectors"][-1] == 3
        assert history["bits"][-1] == 3 * 32 * (D + 1)


def test_the_estimate_is_the_mean_start_before_the_first_step():
    state = jd.CBO(0.1).init(start(), problem(), COMPLETE, KEY)
    np.testing.assert_allclose(state.estimate, start().mean(axis=0), rtol=1e-12)


def test_slopes_are_finite_where_particles_agree():
    """The distance that scales isotropic noise is 0 there."""
    together = jnp.broadcast_to(start(1), (N, D))

    @jax.grad
    def slope(x0):
        return run(jd.CBO(0.1, anisotropic=False), GRAPHS["ring"], x0=x0, steps=2).state.x.sum()

    assert np.all(np.isfinite(slope(together)))
