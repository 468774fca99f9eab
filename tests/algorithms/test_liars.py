"""Methods among liars: SybilWall is its loop; every method that fits runs and has slopes."""

import functools

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
from reference import robust

import jaxdopt as jd
from experiments.catalogue import roles
from jaxdopt.algorithms.robust import sybil_wall

KEY = jax.random.key(5)
N, D = 7, 4
GRAPH = jd.graphs.erdos_renyi(N, 0.4, seed=2)
A, T = jd.aggregators, jd.attacks
LYING = np.isin(np.arange(N), [2, 5])


@functools.cache
def problem():
    return jd.problems.quadratic(N, D, seed=1)


def gradient(i, x, *_):
    own = problem()
    return np.asarray(own.hessians[i]) @ (x - np.asarray(own.center)) + np.asarray(own.tilts[i])


def graph(attack=None):
    lie, rule = attack or T.ALIE(1.5), A.TrimmedMean(0)
    return jd.networks.robust(jd.networks.metropolis(GRAPH), rule=rule, attack=lie, liars=LYING)


def server():
    pattern = jd.networks.participation.uniform(N, 5)
    return jd.networks.robust(pattern, rule=A.Median(), attack=T.ALIE(1.5), liars=LYING)


def sybils(network, steps, local_steps):
    """The trajectory, and of whom every agent was told by which neighbor in every round."""
    method = jd.SybilWall(0.1, local_steps=local_steps)
    state = method.init(problem().start() + 0.3, problem(), network.at(0, KEY), KEY)
    step, points, drawn = jax.jit(method.step), [np.asarray(state.x)], []
    for k in range(steps):
        now, key = network.at(k, KEY), jax.random.fold_in(KEY, k)
        _, near = sybil_wall._by_sender(now, state.x)
        gossip = jax.random.fold_in(key, sybil_wall.GOSSIP)
        drawn.append(np.asarray(sybil_wall._chosen(state, near, now, gossip)))
        state = step(state, problem(), now, key)
        points.append(np.asarray(state.x))
    return np.array(points), drawn, state


@pytest.mark.parametrize(
    ("lie", "told"),
    [
        pytest.param(None, None, id="honest", marks=pytest.mark.slow),
        pytest.param(T.ALIE(1.5), robust.alie(1.5), id="ALIE"),
        pytest.param(T.Constant(np.nan), robust.constant(np.nan), id="NaN", marks=pytest.mark.slow),
    ],
)
def test_sybil_wall_is_its_loop(lie, told):
    network = graph(attack=lie) if lie else jd.networks.metropolis(GRAPH)
    got, drawn, _ = sybils(network, 12, 2)

    def choose(k, s, t, peers, probabilities):
        peer = int(drawn[k][t, s])
        assert peer in peers
        return peer

    expected = robust.sybilwall(
        gradient,
        nx.to_numpy_array(GRAPH) > 0,
        got[0],
        lambda k: 0.1,
        12,
        choose,
        local_steps=2,
        attack=told and (lambda k, i, j, honest, f: told(honest, f)),
        liars=LYING if lie else None,
    )
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-10)
    assert np.isfinite(got).all()


@pytest.mark.slow
def test_gossip_draws_near_histories_more_often():
    n = 4
    state = sybil_wall.State(
        jnp.zeros((n, 1)),
        jnp.zeros((n, n, 1)),
        jnp.where(np.eye(n, dtype=bool), -1, 0),
        jnp.array([[0, 1, 2, 3]] * n),
        jnp.full((n, n), -1),
    )
    near = jnp.asarray(~np.eye(n, dtype=bool))
    keys = jax.random.split(KEY, 4000)
    drawn = jax.vmap(lambda key: sybil_wall._chosen(state, near, None, key))(keys)
    of = np.bincount(np.asarray(drawn)[:, 0, 1], minlength=n) / len(keys)  # 1 tells 0
    shares = np.exp(-0.8 * np.arange(3))[1:]  # of 2 and 3; not of 0 or itself
    np.testing.assert_allclose(of, [0, 0, *(shares / shares.sum())], atol=0.03)


@pytest.mark.slow
def test_the_more_sybils_the_less_they_are_trusted():
    """They pull to a point far away; one alone is trusted as an honest agent is."""
    moved = []
    for count in (1, 2, 4):
        network = jd.networks.robust(
            jd.networks.Complete(N),
            rule=A.Mean(),
            attack=T.Constant(10.0),
            liars=count,
        )
        result = jd.run(
            jd.SybilWall(0.1), problem(), network, problem().start(), KEY, steps=40, every=40
        )
        moved.append(float(result.history["consensus_error"][-1] + result.history["gap"][-1]))
    assert moved[0] > 100 * moved[1] > 0
    assert moved[2] < 1.5 * moved[1] + 1


FIT_MIXING, FIT_SERVER = "liars on a graph", "liars at a server"
FIT = [
    (name, kind)
    for name in roles.METHODS
    for kind in (FIT_MIXING, FIT_SERVER, "liars who return")
    if roles.fits(name, kind)
]
SLOPES = [("GradientTracking", FIT_MIXING), ("CHOCOSGD", FIT_MIXING), ("FedAvg", FIT_SERVER)]


@functools.cache
def batches():
    features = np.random.default_rng(0).standard_normal((roles.N, 6, 3))
    labels = np.where(features[..., 0] > 0, 1.0, -1.0)
    return jd.problems.Minibatch(jd.problems.logistic_regression(features, labels, l2=0.1), 2)


def few_steps(name, kind, attack):
    lying = jd.replace(roles.KINDS[kind](), attack=attack)
    start = batches().start()
    return jd.run(roles.built(name), batches(), lying, start, KEY, steps=4, every=2)


@pytest.mark.parametrize(
    ("name", "kind"),
    [pytest.param(*c, marks=() if c[0] == "ATCGT" else pytest.mark.slow, id=c[0]) for c in FIT],
)
def test_a_method_that_fits_withstands_a_liar_and_is_measured_by_honest_rows(name, kind):
    found = few_steps(name, kind, T.Constant(jnp.nan))  # of one of six, to the median
    assert not found.diverged
    for metric in ("loss", "gap", "consensus_error"):
        assert np.isfinite(found.history[metric]).all(), metric


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), SLOPES, ids=[name for name, _ in SLOPES])
def test_the_strength_of_a_lie_has_the_slope_of_differences(name, kind):
    def loss(factor):
        return few_steps(name, kind, T.ALIE(factor)).history["loss"][-1]

    slope = jax.grad(loss)(0.7)
    assert abs(slope) > 1e-6
    np.testing.assert_allclose(slope, (loss(0.7001) - loss(0.6999)) / 2e-4, rtol=1e-3)


def test_honest_agents_costs_and_one_program_for_all_strengths():
    network, swept = graph(), jd.sweep(jd.run, over=("network", "key"))
    many = jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), network)
    many = jd.replace(many, attack=jax.vmap(T.ALIE)(jnp.array([0.5, 1.0, 2.0])))
    found = swept(
        jd.DSGD(0.1), problem(), many, problem().start(), jax.random.split(KEY, 2), steps=4
    )
    assert found.history["gap"].shape == (3, 2, 5)
    for i, factor in enumerate((0.5, 1.0, 2.0)):
        alone = jd.replace(network, attack=T.ALIE(factor))
        one = jd.run(jd.DSGD(0.1), problem(), alone, problem().start(), KEY, steps=4)
        np.testing.assert_allclose(found.history["gap"][i, 0], one.history["gap"], rtol=1e-9)
    links = sum(2 for i, j in GRAPH.edges if not (LYING[i] or LYING[j]))
    links += sum(1 for i, j in GRAPH.edges if LYING[i] != LYING[j])
    np.testing.assert_allclose(one.history["traffic"], np.arange(5) * 32 * D * links)
    served = jd.run(jd.FedAvg(0.1), problem(), server(), problem().start(), KEY, steps=3)
    there = [np.asarray(server().at(k, KEY).active)[~LYING].mean() for k in range(3)]
    np.testing.assert_allclose(served.history["gradients"][1:], np.cumsum(there), rtol=1e-6)
