"""Wrappers: they are what they hold, but for what they define; users' own ones, too."""

import copy
import pickle
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdopt as jd
from jaxdopt._wrapper import layers, rewrap, wrapped
from jaxdopt.problems.oracles import finite_sum
from jaxdopt.problems.problem import divides

KEY = jax.random.key(0)
N = 6
RING = jd.networks.metropolis(jd.graphs.ring(N))


@jd.pytree
class Halved(jd.networks.Wrapper):
    """Users' own: what is heard counts for a share, and the rest stays with the agent."""

    share: jd.Fraction

    @property
    def offers(self):
        return super().offers & {"mixing", "symmetric", "all"}

    def laplacian(self, x):
        return self.share * self.network.laplacian(x)

    def __matmul__(self, x):
        return x - self.laplacian(x)


@jd.pytree
class Shifted(jd.problems.Wrapper):
    """Users' own: a constant in every gradient."""

    shift: Any
    hides = ("grad_at", "draw")

    def grad(self, x, key):
        return self.problem.grad(x, key) + self.shift


@jd.pytree
class Marked(jd.problems.Wrapper):
    """Users' own: the problem itself."""


@pytest.fixture(scope="module")
def sums():
    random = np.random.default_rng(0)
    features, targets = random.standard_normal((5 * N, 2)), random.standard_normal(5 * N)
    return jd.problems.least_squares(features, targets, agents=N, l2=0.1)


def test_a_network_of_ones_own_is_the_one_within_but_for_what_it_defines(sums):
    half = Halved(RING, 0.5)
    assert (half.n, half.symmetric, half.kind, half.varies) == (N, True, "doubly", False)
    assert half.link_count == RING.link_count
    assert half.offers == {"mixing", "symmetric", "all"}
    W = np.asarray(RING.matrix())
    now = half.at(3, KEY)
    assert isinstance(now, Halved)
    assert now.time == 3
    np.testing.assert_allclose(now @ jnp.eye(N), (np.eye(N) + W) / 2, atol=1e-15)
    plain = jd.networks.mixing((np.eye(N) + W) / 2)
    setting = sums.start() + 1.0, KEY
    for network in (half, jd.networks.RandomLinks(half, 1.0), jd.networks.timed(half)):
        got = jd.run(jd.DGD(0.1), sums, network, *setting, steps=5)
        expected = jd.run(jd.DGD(0.1), sums, plain, *setting, steps=5)
        np.testing.assert_allclose(got.state.x, expected.state.x, rtol=1e-12)
    with pytest.raises(ValueError, match=r"PushPull needs a row- and .* this Halved does not"):
        jd.run(jd.PushPull(0.1), sums, half, *setting, steps=1)
    asleep = jd.networks.Asleep(half, 0.5).at(0, KEY)
    assert isinstance(asleep, Halved)
    assert asleep.active.shape == (N,)
    swept = jd.sweep(jd.run, over=("network",))(
        jd.DGD(0.1), sums, jd.networks.stack([half, Halved(RING, 1.0)]), *setting, steps=5
    )
    np.testing.assert_allclose(swept.state.x[0], got.state.x, rtol=1e-12)


def test_a_problem_of_ones_own_is_the_one_within_but_for_what_it_defines(sums):
    shifted = Shifted(sums, 2.0)
    x = sums.start()
    assert (shifted.n, shifted.d, shifted.smoothness) == (N, 2, sums.smoothness)
    assert shifted.objective(x[0]) == sums.objective(x[0])
    np.testing.assert_array_equal(shifted.grad(x, KEY), sums.grad(x, KEY) + 2)
    part = shifted.take(jnp.array([1, 4]))  # what gives another problem is wrapped again
    assert isinstance(part, Shifted)
    np.testing.assert_array_equal(part.grad(x[:2], KEY), shifted.grad(x, KEY)[jnp.array([1, 4])])
    assert shifted.solved().shift == 2.0
    assert not hasattr(shifted, "draw")
    with pytest.raises(ValueError, match="GTSAGA draws its samples itself"):
        jd.run(jd.GTSAGA(0.1), shifted, RING, x, KEY, steps=1)
    together = jd.stack([shifted, Shifted(jd.problems.Minibatch(sums, 2).problem, 3.0)])
    assert together.shift.tolist() == [2.0, 3.0]


def test_samples_are_found_inside_wrappers_of_ones_own(sums):
    inside, batch = finite_sum(Marked(jd.problems.Minibatch(sums, 3)))
    assert isinstance(inside, Marked)
    assert wrapped(inside) is sums
    assert batch == 3
    x = sums.start()
    expected = jd.run(jd.GTSAGA(0.05), jd.problems.Minibatch(sums, 3), RING, x, KEY, steps=4)
    got = jd.run(jd.GTSAGA(0.05), Marked(jd.problems.Minibatch(sums, 3)), RING, x, KEY, steps=4)
    np.testing.assert_array_equal(got.state.x, expected.state.x)


def duck():
    """An object that is no pytree."""
    return types.SimpleNamespace(n=N, d=2, grad=lambda x, key: x - 1.0, smoothness=1.0)


WRAPPERS = {
    "Minibatch": lambda problem: jd.problems.Minibatch(problem, 2),
    "GaussianNoise": lambda problem: jd.problems.GaussianNoise(problem, 0.0),
    "Composite": lambda problem: jd.problems.Composite(problem, jd.problems.prox.L1(0.0)),
    "Shifted": lambda problem: Shifted(problem, 0.0),
}


@pytest.mark.parametrize("name", ["GaussianNoise", "Composite", "Shifted"])
def test_what_is_wrapped_may_be_no_pytree(name):
    inside = duck()
    problem = WRAPPERS[name](inside)
    assert wrapped(problem) is inside
    assert problem.smoothness == 1.0
    assert not divides(problem)
    setting = RING, jnp.zeros((N, 2)), KEY
    np.testing.assert_allclose(
        jd.run(jd.PGEXTRA(0.5), problem, *setting, steps=60).state.x, 1.0, atol=1e-9
    )


def test_a_network_that_is_no_pytree_is_timed():
    network = type("Mean", (), {"n": N, "at": lambda self, k, key: self, "symmetric": True,
        "__matmul__": lambda self, x: jnp.broadcast_to(x.mean(axis=0), x.shape)})()  # fmt: skip
    problem = jd.problems.quadratic(N, 2)
    timed = jd.networks.timed(network, compute=2.0)
    assert timed.offers == {"mixing", "all"}
    run = jd.run(jd.DGD(0.1), problem, timed, problem.start(), KEY, steps=2)
    assert run.history["seconds"].tolist() == [0, 2, 4]


@pytest.mark.parametrize("name", WRAPPERS)
def test_wrappers_are_rebuilt_and_copied(name, sums):
    problem = WRAPPERS[name](sums)
    leaves, treedef = jax.tree.flatten(problem)
    assert type(treedef.unflatten([object()] * len(leaves))) is type(problem)
    empty = object.__new__(type(problem))  # as copy and pickle begin
    with pytest.raises(AttributeError, match=f"{name!r} object has no attribute 'n'"):
        _ = empty.n
    assert copy.deepcopy(problem).n == N
    assert pickle.loads(pickle.dumps(problem.problem.shares)).shape == (N,)
    with pytest.raises(AttributeError):
        _ = problem.__array_interface__
    assert list(map(type, layers(problem))) == [type(problem), type(sums)]
    assert wrapped(rewrap(problem, duck())).n == N
    with pytest.raises(ValueError, match="problem is a str without grad"):
        WRAPPERS[name]("data")


def test_an_error_inside_a_property_is_its_own(sums):
    """It is not taken for a missing attribute, to be answered by what is wrapped."""

    @jd.pytree
    class Broken(jd.problems.Wrapper):
        @property
        def smoothness(self):
            return self.problem.misspelled

    with pytest.raises(AttributeError, match="misspelled"):
        _ = Broken(sums).smoothness


def test_rounds_of_wrapped_networks_end_where_those_of_the_network_do():
    there = jd.networks.Disconnected(RING, jd.networks.participation.trace(np.ones((7, N), bool)))
    repeated = jd.networks.Repeated(there, 3)
    assert (there.horizon, repeated.horizon) == (7, 2)
    assert jd.networks.timed(repeated).horizon == 2
    assert jd.networks.Repeated(RING, 3).horizon is None
    problem = jd.problems.quadratic(N, 2)
    setting = jd.DGD(0.1), problem, repeated, problem.start(), KEY
    jd.run(*setting, steps=2)
    with pytest.raises(ValueError, match="knows 2 rounds"):
        jd.run(*setting, steps=3)


def test_times_are_asked_for_outside_of_what_hides_them():
    problem, timed = jd.problems.quadratic(N, 2), jd.networks.timed(RING, compute=2.0)
    for network in (jd.networks.Repeated(jd.networks.RandomLinks(timed, 0.5), 2),
                    jd.networks.Chebyshev(timed, 2)):  # fmt: skip
        with pytest.raises(ValueError, match="timed is inside a"):
            jd.run(jd.DGD(0.1), problem, network, problem.start(), KEY, steps=1)
    run = jd.run(
        jd.DGD(0.1), problem, jd.networks.RandomLinks(timed, 0.5), problem.start(), KEY, steps=1
    )
    assert run.history["seconds"].tolist() == [0, 2]
    for network in (jd.networks.RandomLinks(timed, 0.5), jd.networks.pairwise(RING, steps=3),
                    jd.networks.arrivals(N, rule="each", steps=3)):  # fmt: skip
        with pytest.raises(ValueError, match="has times of its own"):
            jd.networks.timed(network)


@pytest.mark.slow
def test_wrapped_networks_of_other_forms_are_stacked():
    star = jd.networks.metropolis(jd.graphs.star(N))
    together = jd.networks.stack([jd.networks.RandomLinks(w, 0.5) for w in (RING, star)])
    for i, alone in enumerate((RING, star)):
        now = jax.tree.map(lambda leaf, i=i: leaf[i], together).at(2, KEY)
        expected = jd.networks.RandomLinks(alone, 0.5).at(2, KEY)
        np.testing.assert_allclose(now.matrix(), expected.matrix(), atol=1e-15)
    patterns = (0.5, np.ones((2, N), bool))
    with pytest.raises(ValueError, match="differ in structure"):
        jd.networks.stack([jd.networks.Asleep(RING, pattern) for pattern in patterns])
