"""Agents that sleep stand still and count nothing; those that are only cut off go on."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdopt as jd
from experiments.catalogue.roles import built

N, D = 8, 3
KEY = jax.random.key(5)
DITHER, TOP = jd.compressors.Dither(bits=4), jd.compressors.TopK(2)
Asleep, Disconnected = jd.networks.Asleep, jd.networks.Disconnected


@functools.cache
def problem(n=N):
    random = np.random.default_rng(0)
    features = random.standard_normal((n, 12, D)) + np.linspace(0, 1, n)[:, None, None]
    labels = features.sum(axis=2) + random.standard_normal((n, 12))
    return jd.problems.least_squares(features, labels, l2=0.1)


@functools.cache
def graph():
    return jd.networks.metropolis(jd.graphs.erdos_renyi(N, 0.4, seed=1))


@functools.cache
def digraph():
    arcs = jd.graphs.directed_ring(N)
    arcs.add_edges_from([(2, 0), (1, 4), (5, 3)])
    return jd.networks.push_pull(arcs)


def start():
    return jnp.asarray(np.random.default_rng(2).standard_normal((N, D)))


def tracked(state):
    return state.y.sum(axis=0) - state.g.sum(axis=0)


def estimated(state):
    return state.y.sum(axis=0) - state.v.sum(axis=0)


def dual(state):
    return state.d.sum(axis=0)


def edges(state):
    return state.duals.sum(axis=(0, 1))


# name: (stepsize in units of 1/L, more options, what stays zero)
EXACT: dict[str, tuple[float, dict[str, Any], Any]] = {
    "GradientTracking": (0.2, {}, tracked),
    "DIGing": (0.1, {}, tracked),
    "ATCGT": (0.2, {}, tracked),
    "EXTRA": (0.5, {}, dual),
    "PGEXTRA": (0.5, {}, dual),
    "ExactDiffusion": (0.5, {}, dual),
    "NIDS": (0.7, {}, dual),
    "LinearizedADMM": (0.5, {}, edges),
    "GTSAGA": (0.05, {}, estimated),
    "GTSVRG": (0.05, {}, estimated),
    "CEDAS": (0.3, {"compressor": DITHER}, dual),
    "LEAD": (0.3, {"compressor": DITHER}, dual),
    "CGT": (0.05, {"compressor": DITHER}, tracked),
    "BEER": (0.05, {"compressor": TOP}, tracked),
    "PushPull": (0.05, {}, tracked),
    "AB": (0.05, {}, tracked),
    "CPP": (0.03, {"compressor": DITHER}, tracked),
}
DIRECTED = ("PushPull", "AB", "CPP", "BCPP")
SLEEPERS = (*EXACT, "OSGP", "DRR", "BCPP")
QUICK = ("GradientTracking", "LinearizedADMM", "GTSAGA", "LEAD", "PushPull", "OSGP", "DRR")


def method(name, L):
    scale, options, _ = EXACT[name]
    return getattr(jd, name)(scale / L, **options)


def network(name):
    return digraph() if name in DIRECTED else graph()


@pytest.mark.slow
@pytest.mark.parametrize("name", EXACT)
def test_exact_methods_stay_exact_and_keep_their_invariants(name):
    """With seven, and three agents of ten awake in a step; in one program."""
    made, world, where = method(name, problem().smoothness), problem(), network(name)

    def final(p):
        asleep, x0 = Asleep(where, p), start()
        result = jd.run(made, world, asleep, x0, KEY, steps=20_000, every=20_000)
        return result.state, result.metrics["distance_squared"], result.metrics["consensus_error"]

    states, distance, consensus = jax.jit(jax.vmap(final))(jnp.array([0.7, 0.3]))
    assert np.all(np.asarray(distance)[:, 1] < 1e-24)
    assert np.all(np.asarray(consensus)[:, 1] < 1e-26)
    zero = EXACT[name][2]
    for i in range(2):
        state = jax.tree.map(lambda leaf, i=i: leaf[i], states)
        scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(state))
        assert np.abs(zero(state)).max() < 1e-12 * N * scale


@pytest.mark.slow
def test_bcpp_is_slow_with_sleepers_and_exact():
    """A broadcast is heard where sender and receiver are awake: a quarter of them at p = 0.5."""
    made, asleep = jd.BCPP(0.2 / problem().smoothness, DITHER), Asleep(digraph(), 0.5)
    result = jd.run(made, problem(), asleep, start(), KEY, steps=80_000, every=20_000)
    assert result.history["distance_squared"][1] > 1e-20  # all awake it is at 1e-30 by then
    assert result.history["distance_squared"][-1] < 1e-24
    assert np.abs(tracked(result.state)).max() < 1e-11


def rows(state, problem):
    return {name: leaf for name, leaf in vars(state).items() if np.ndim(leaf)}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in SLEEPERS]
)
def test_rows_of_sleepers_stay_as_they_were_bit_for_bit(name):
    made = method(name, 20.0) if name in EXACT else built(name)
    where = digraph() if name in (*DIRECTED, "OSGP") else graph()
    asleep, world = Asleep(where, 0.5), problem()

    @jax.jit
    def step(state, k):
        now = asleep.at(k, KEY)
        return made.step(state, world, now, jax.random.fold_in(KEY, k)), now.active

    state = made.init(start(), world, asleep.at(0, KEY), KEY)
    moved = 0
    for k in range(12):
        after, active = step(state, k)
        for old, new in zip(jax.tree.leaves(state), jax.tree.leaves(after), strict=True):
            axis = 1 if new.shape[:2] == (1, N) else 0  # what is in flight has τ = 1 in front
            if new.ndim and new.shape[axis] == N:
                old, new = (np.moveaxis(np.asarray(leaf), axis, 0) for leaf in (old, new))
                assert np.array_equal(new[~np.asarray(active)], old[~np.asarray(active)])
                moved += not np.array_equal(new, old)
        state = after
    assert moved > 0


def test_all_awake_is_the_network_and_nobody_awake_is_a_standstill():
    tracking = jd.GradientTracking(0.01)
    awake, plain, none = (
        jd.run(tracking, problem(), where, start(), KEY, steps=30)
        for where in (Asleep(graph(), 1.0), graph(), Asleep(graph(), 0.0))
    )
    for name, values in plain.history.items():
        np.testing.assert_allclose(awake.history[name], values, rtol=1e-12, err_msg=name)
    assert np.array_equal(none.state.x, start())
    for axis in ("gradients", "epochs", "vectors", "bits", "traffic", "seconds"):
        assert none.history[axis][-1] == 0, axis


def counted(where, made=None, steps=60):
    made = jd.GradientTracking(0.01) if made is None else made
    return jd.run(made, problem(), where, start(), KEY, steps=steps).history


@pytest.mark.slow
def test_sleepers_count_nothing_and_the_disconnected_all():
    asleep, cut, plain = Asleep(graph(), 0.3), Disconnected(graph(), 0.3), graph()
    active = np.asarray(jd.networks.participation.active(asleep, 60, KEY))
    share = np.concatenate([[0], active.mean(axis=1).cumsum()])
    histories = [counted(where) for where in (asleep, cut, plain)]
    for axis in ("gradients", "epochs", "vectors", "bits"):
        full = histories[2][axis]
        np.testing.assert_allclose(histories[0][axis], share * full[1], rtol=1e-6)
        np.testing.assert_allclose(histories[1][axis], full, rtol=1e-6)
    linked = np.asarray(plain.matrix()) * (1 - np.eye(N)) != 0  # traffic: of links that are up
    up = np.array([(linked & np.outer(a, a)).sum() for a in active])
    for history in histories[:2]:
        expected = np.concatenate([[0], up.cumsum()]) * histories[2]["bits"][1]
        np.testing.assert_allclose(history["traffic"], expected, rtol=1e-6)


@pytest.mark.slow
def test_only_the_awake_are_waited_for_and_all_who_compute():
    compute = np.arange(1.0, N + 1)
    active = np.asarray(jd.networks.participation.active(Asleep(graph(), 0.3), 60, KEY))
    slowest = np.where(active, compute, 0).max(axis=1)
    timed = functools.partial(jd.networks.timed, compute=compute)
    asleep, cut = (counted(timed(kind(graph(), 0.3))) for kind in (Asleep, Disconnected))
    np.testing.assert_allclose(np.diff(asleep["seconds"]), slowest, rtol=1e-6)
    np.testing.assert_allclose(np.diff(cut["seconds"]), N, rtol=1e-6)


@pytest.mark.slow
def test_bcpp_counts_each_gradient_once():
    """A gradient is due to everybody who has heard, and taken when next awake."""
    made, asleep = built("BCPP"), Asleep(digraph(), 0.5)
    history = counted(asleep, made, 200)
    state = made.init(start(), problem(), asleep.at(0, KEY), KEY)
    step = jax.jit(made.step)
    taken = 0.0
    for k in range(200):
        now = asleep.at(k, KEY)
        taken += float(jnp.sum(state.changed & now.active)) if k else 0.0
        state = step(state, problem(), now, jax.random.fold_in(KEY, k))
    due = float(state.changed.sum())  # heard, and not yet taken; at first all are due
    asleep_at_first = N - float(jnp.sum(asleep.at(0, KEY).active))
    counted_ = history["gradients"][-1] * N / 12
    np.testing.assert_allclose(counted_, taken - asleep_at_first + due, atol=1e-3)


@pytest.mark.slow
def test_the_disconnected_take_steps_alone():
    """Cut off all the time, agents descend their own objectives."""
    alone = jd.run(jd.DGD(0.01), problem(), Disconnected(graph(), 0.0), start(), KEY, steps=50)
    x = start()
    for _ in range(50):
        x = x - 0.01 * problem().grad(x)
    np.testing.assert_allclose(alone.state.x, x, rtol=1e-12)


def test_sleepers_and_the_disconnected_are_the_same_agents():
    wrapped = (kind(graph(), 0.4) for kind in (Asleep, Disconnected))
    asleep, cut = (where.at(3, KEY) for where in wrapped)
    assert np.array_equal(asleep.matrix(), cut.matrix())
    assert cut.active is None
    assert asleep.active is not None


@pytest.mark.slow
def test_linearized_admm_keeps_its_weights_when_links_fail():
    """Its penalty is that of the whole graph, whatever links are up; cut links were NaN once."""
    made = jd.LinearizedADMM(0.5 / problem().smoothness)
    for where in (
        jd.networks.RandomLinks(graph(), 0.3),
        Disconnected(graph(), 0.3),
        Disconnected(jd.networks.mixing(graph().matrix(), form=jd.networks.Dense), 0.3),
    ):
        result = jd.run(made, problem(), where, start(), KEY, steps=20_000, every=20_000)
        assert result.history["distance_squared"][-1] < 1e-24
        degree = where.at(0, KEY).links.degree
        np.testing.assert_array_equal(degree, graph().links.degree)


@pytest.mark.slow
def test_a_late_waker_of_nids_gets_no_kick():
    """Whoever first wakes in step 5 starts from x0 as if that were the first step of all."""
    pattern = np.ones((6, N), bool)
    pattern[:5, 0] = False
    x0 = jnp.full((N, D), 100.0)
    asleep = Asleep(graph(), pattern)
    made = jd.NIDS(0.1 / problem().smoothness)
    state = made.init(x0, problem(), asleep.at(0, KEY), KEY)
    for k in range(6):
        state = made.step(state, problem(), asleep.at(k, KEY), jax.random.fold_in(KEY, k))
    assert jnp.abs(state.d).max() < 100 / N  # with u = 0 it was of the size of x0 itself


@pytest.mark.parametrize("name", ["GTRR", "EDRR"])
def test_restarts_are_refused_with_sleepers(name):
    restarting = built(name, restart=True)
    with pytest.raises(ValueError, match=f"{name} needs all agents in every round"):
        jd.run(restarting, problem(), Asleep(graph(), 0.5), start(), KEY, steps=1)
    jd.run(built(name), problem(), Asleep(graph(), 0.5), start(), KEY, steps=1)


@jd.pytree
class Own:
    """What a method of one's own carries on, in a notebook."""

    x: jax.Array
    seen: jax.Array


@jd.pytree
class Mine:
    """A user's DGD, which declares nothing."""

    stepsize: float

    def init(self, x0, problem, network, key):
        return Own(x0, jnp.zeros(()))

    def step(self, state, problem, network, key):
        g = problem.grad(state.x, key)
        return Own(network @ state.x - self.stepsize * g, state.seen + 1)


def test_methods_of_ones_own_sleep_too():
    theirs = jd.run(Mine(0.01), problem(), Asleep(graph(), 0.4), start(), KEY, steps=20)
    ours = jd.run(jd.DGD(0.01), problem(), Asleep(graph(), 0.4), start(), KEY, steps=20)
    assert np.array_equal(theirs.state.x, ours.state.x)
    assert theirs.state.seen == 20  # no agent's
    np.testing.assert_allclose(theirs.history["gradients"], ours.history["gradients"])


def test_a_method_of_ones_own_whose_axes_cannot_be_told_apart_is_refused():
    square = jd.problems.quadratic(D, D)
    asleep = Asleep(jd.networks.metropolis(jd.graphs.ring(D)), 0.4)
    with pytest.raises(
        ValueError, match=r"Mine does not say which axis .* n = d = 3; .*axis="
    ) as e:
        jd.run(Mine(0.01), square, asleep, square.start(), KEY, steps=2)
    assert "\n" not in str(e.value)

    @jd.pytree
    class Declared(Mine):
        needs = frozenset({"mixing"})

    result = jd.run(Declared(0.01), square, asleep, square.start(), KEY, steps=2)
    assert not result.diverged


@functools.cache
def kinds(n):
    arcs = jd.networks.push_pull(jd.graphs.directed_ring(n))
    ring = jd.networks.metropolis(jd.graphs.ring(n))
    return [
        ring, arcs, jd.networks.Server(n), jd.networks.spanning_tree(jd.graphs.ring(n)),
        jd.networks.arrivals(n, every=1.5, steps=2), jd.networks.timeline(ring, steps=2),
        jd.networks.pairwise(ring, steps=2),
    ]  # fmt: skip


@pytest.mark.parametrize("name", jd.algorithms.__all__)
def test_states_say_which_axis_is_the_agents(name):
    """Built for two n: what grows with n does so along the axis that is the agents'."""
    made, shapes = built(name), []
    for n in (5, 7):
        needs = set(made.needs) - {*jd.roles.PROBLEMS}
        fits = next(k for k in kinds(n) if needs <= jd.roles.offers(k))
        world = problem(n)
        states = jax.eval_shape(
            lambda x, fits=fits, world=world: made.init(x, world, fits.at(0, KEY), KEY),
            world.start(),
        )
        shapes.append({field: value for field, value in vars(states).items()})
    declared = {
        f.name: f.metadata.get("axis", 0)
        for f in dataclasses.fields(type(states))  # pyright: ignore[reportPossiblyUnboundVariable]
    }
    for field, axis in declared.items():
        pairs = zip(*(jax.tree.leaves(s[field]) for s in shapes), strict=True)
        for small, large in pairs:
            if np.shape(small) == np.shape(large):  # nobody's: n in front would be taken for theirs
                continue
            grown = [i for i, (a, b) in enumerate(zip(small.shape, large.shape, strict=True))
                     if a != b]  # fmt: skip
            if field == "line":  # of timelines, on which nobody sleeps
                continue
            assert grown[0] == axis, (field, small.shape, large.shape)  # others: of whom they know
            assert {(small.shape[i], large.shape[i]) for i in grown} == {(5, 7)}
