"""Networks with liars against loops: who hears what, and what rules and methods make of it."""

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import loops
import networkx as nx
import numpy as np
import pytest
from reference import robust

import jaxdopt as jd
from jaxdopt import aggregators as A
from jaxdopt import attacks as T
from jaxdopt import networks

KEY = jax.random.key(5)
MODULE = inspect.getmodule(networks.RobustMixing)
CLOSE: dict[str, Any] = {"rtol": 1e-10, "atol": 1e-10}
D = 3


def hub(n):
    """A ring whose agents all hear agent 0, too, who hears more than a table's row has."""
    return nx.wheel_graph(n)


def arcs(graph):
    return np.array([[loops.hears(graph, i, j) for j in graph] for i in graph])


GRAPHS = {
    "ring": lambda: (networks.metropolis(jd.graphs.ring(7)), jd.graphs.ring(7)),
    "regular": lambda: (networks.metropolis(REGULAR), REGULAR),
    "hub": lambda: (networks.metropolis(hub(20)), hub(20)),
    "exponential, directed": lambda: (networks.row_stochastic(ONE_WAY), ONE_WAY),
    "push-pull": lambda: (networks.push_pull(ONE_WAY), ONE_WAY),
    "complete": lambda: (networks.Complete(7), jd.graphs.complete(7)),
    "dense": lambda: (networks.mixing(np.full((7, 7), 1 / 7), form=networks.Dense), ALL),
}
REGULAR = jd.graphs.regular(9, 4, seed=1)
ONE_WAY = jd.graphs.exponential(8, directed=True)
ALL = jd.graphs.complete(7)
PAIRS = {  # a rule with its loop, for neighborhoods of three and more
    "NNA": (A.NNA(1), robust.nna(1)),
    "trimmed mean": (A.TrimmedMean(1), robust.trimmed_mean(1)),
    "median": (A.Median(), robust.median()),
    "self-centered": (A.SelfCenteredClipping(0.6), robust.self_centered_clipping(0.6)),
    "self-centered, adaptive": (A.SelfCenteredClipping(), robust.self_centered_clipping()),
    "NNM, trimmed mean": (
        A.chain(A.NNM(1), A.TrimmedMean(1)),
        robust.chain(robust.nnm(1), robust.trimmed_mean(1)),
    ),
    "NNM, NNA": (A.chain(A.NNM(1), A.NNA(1)), robust.chain(robust.nnm(1), robust.nna(1))),
    "geometric median": (
        A.GeometricMedian(0.1, 6),
        robust.geometric_median(0.1, 6),
    ),
    "CGE": (A.CGE(1), robust.cge(1)),
    "MeaMed": (A.MeaMed(1), robust.meamed(1)),
    "CAF": (A.CAF(1), robust.caf(1)),
    "mean": (A.Mean(), robust.mean()),
}
ATTACKS = {  # an attack with its loop
    "ALIE": (T.ALIE(1.5), robust.alie(1.5)),
    "sign flip": (T.SignFlip(2.0), robust.sign_flip(2.0)),
    "inner product": (T.InnerProduct(0.5), robust.inner_product(0.5)),
    "dissensus": (T.Dissensus(1.3), robust.dissensus(1.3)),
    "constant": (T.Constant(-3.0), robust.constant(-3.0)),
    "NaN": (T.Constant(np.nan), robust.constant(np.nan)),
    "inf": (T.Constant(np.inf), robust.constant(np.inf)),
    "truth": (None, None),
}


def told(attack):
    """An attack as the loops over agents call it."""
    return None if attack is None else lambda k, i, j, honest, f: attack(honest, liars=f)


def spread_out(n, f):
    """Which f of n agents lie: no two next to each other on a ring."""
    return np.isin(np.arange(n), 1 + 3 * np.arange(f))


def expected(rule, x, hears, lying, attack, k=0):
    return robust.robust_mixing(rule, np.asarray(x), hears, lying, told(attack), k)


def product(network, x, k=0):
    return loops.apply(network.at(k, KEY), x)


@pytest.mark.parametrize(
    ("graph", "rule", "attack"),
    [
        ("ring", "NNA", "ALIE"),
        ("regular", "trimmed mean", "dissensus"),
        ("hub", "NNM, trimmed mean", "sign flip"),
        ("exponential, directed", "self-centered", "NaN"),
        pytest.param("push-pull", "CAF", "inf", marks=pytest.mark.slow),
        pytest.param("complete", "NNM, NNA", "inner product", marks=pytest.mark.slow),
        pytest.param("dense", "geometric median", "constant", marks=pytest.mark.slow),
        pytest.param("ring", "mean", "truth", marks=pytest.mark.slow),
        *(
            pytest.param("regular", rule, attack, marks=pytest.mark.slow)
            for rule, attack in zip(PAIRS, (*ATTACKS, *ATTACKS), strict=False)
            if (rule, attack) != ("mean", "NaN")
        ),
        *(
            pytest.param("complete", rule, attack, marks=pytest.mark.slow)
            for rule, attack in (("CGE", "dissensus"), ("self-centered, adaptive", "ALIE"))
        ),
    ],
)
def test_a_product_is_every_agents_rule_of_what_it_is_told(graph, rule, attack):
    network, given = GRAPHS[graph]()
    (rule, rule_loop), (attack, attack_loop) = PAIRS[rule], ATTACKS[attack]
    x, lying = loops.rows(network.n, D, seed=3), spread_out(network.n, 2)
    lies = networks.robust(network, rule=rule, attack=attack, liars=lying)
    with np.errstate(invalid="ignore"):
        wanted = expected(rule_loop, x, arcs(given), lying, attack_loop)
    found = product(lies, x)
    np.testing.assert_allclose(found, wanted, **CLOSE)
    heard = arcs(given) | np.eye(network.n, dtype=bool)
    most = [rule.breakdown(m) for m in heard.sum(axis=1).tolist()]
    safe = ~lying & ((heard & lying).sum(axis=1) <= most)
    assert np.isfinite(found[safe]).all()  # no liar's NaN reaches an honest agent


def test_a_laplacian_is_what_a_product_changes():
    network = networks.robust(networks.Complete(7), rule=A.Mean(), attack=T.SignFlip(), liars=1)
    x = loops.rows(7, D)
    now = network.at(0, KEY)
    change = loops.jit(lambda now, x: now.laplacian(x))(now, x)
    np.testing.assert_allclose(change, x - loops.apply(now, x), atol=1e-14)


SEQUENCES = {
    "one peer": lambda: networks.one_peer_exponential(8),
    "alternating": lambda: networks.sequence([jd.graphs.ring(8), REGULAR8]),
    "random links": lambda: networks.RandomLinks(networks.metropolis(REGULAR8), 0.6),
    "random links, directed": lambda: networks.RandomLinks(networks.push_pull(ONE_WAY), 0.6),
    "asleep": lambda: networks.Asleep(networks.metropolis(REGULAR8), 0.6),
    "disconnected": lambda: networks.Disconnected(networks.metropolis(REGULAR8), 0.6),
    "matching": lambda: networks.RandomMatching(jd.graphs.complete(8)),
    "timed": lambda: networks.timed(networks.metropolis(REGULAR8), compute=1.0, delay=0.5),
}
REGULAR8 = jd.graphs.regular(8, 4, seed=2)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("alternating", marks=pytest.mark.slow),
        "random links",
        "asleep",
        pytest.param("one peer", marks=pytest.mark.slow),
        pytest.param("random links, directed", marks=pytest.mark.slow),
        pytest.param("disconnected", marks=pytest.mark.slow),
        pytest.param("matching", marks=pytest.mark.slow),
        pytest.param("timed", marks=pytest.mark.slow),
    ],
)
def test_in_every_round_agents_hear_that_rounds_neighbors_and_liars(name):
    """A median, which has no f: rounds can leave an agent alone."""
    network = SEQUENCES[name]()
    lying = np.random.default_rng(1).random((4, 8)) < 0.3
    lying[:, 0] = False
    lies = networks.robust(network, rule=A.Median(), attack=T.ALIE(2.0), liars=lying)
    x = loops.rows(8, D, seed=1)
    rounds = loops.jit(
        lambda network: jax.lax.map(
            lambda k: (
                network.at(k, KEY) @ x,
                getattr(network.network.at(k, KEY), "row", network.network.at(k, KEY)).matrix(),
                network.at(k, KEY).liars,
            ),
            jnp.arange(6),
        )
    )
    found, weights, who = map(np.asarray, rounds(lies))
    seen = set()
    for k in range(6):
        assert np.array_equal(who[k], lying[k % 4])
        hears = weights[k] != 0
        seen.add(hears.tobytes())
        wanted = expected(robust.median(), x, hears, lying[k % 4], robust.alie(2.0), k)
        np.testing.assert_allclose(found[k], wanted, **CLOSE)
    assert len(seen) > 1 or name == "timed"


def test_all_leaves_are_one_message():
    """Judged together: with leaves apart, others would be the longest of each."""
    x = loops.rows(7, 5, seed=8)
    tree = {"a": x[:, :2], "b": (x[:, 2:4].reshape(7, 1, 2), x[:, 4].astype(jnp.float32))}
    x = x.at[:, 4].set(tree["b"][1])
    lies = networks.robust(networks.Complete(7), rule=A.CGE(2), attack=T.SignFlip(2.0), liars=2)
    found = product(lies, tree)
    whole = product(lies, x)
    np.testing.assert_allclose(found["a"], whole[:, :2], rtol=1e-14)
    np.testing.assert_allclose(found["b"][0].reshape(7, 2), whole[:, 2:4], rtol=1e-14)
    np.testing.assert_allclose(found["b"][1], whole[:, 4], rtol=1e-6)
    assert found["b"][1].dtype == jnp.float32
    assert found["a"].dtype == x.dtype
    wanted = expected(robust.cge(2), x, arcs(ALL), np.arange(7) > 4, robust.sign_flip(2.0))
    np.testing.assert_allclose(whole, wanted, **CLOSE)


@pytest.mark.slow
@pytest.mark.parametrize("attack", [T.Dissensus(1.0), T.Gaussian(1.0)])
def test_receivers_in_batches_get_what_all_at_once_do(attack, monkeypatch):
    lies = networks.robust(
        networks.metropolis(REGULAR), rule=A.NNA(1), attack=attack, liars=2, hears=4
    )
    x = loops.rows(9, D)
    once = product(lies, x)
    monkeypatch.setattr(MODULE, "TOGETHER", 5 * D * 4)  # four of nine at a time
    batches = loops.jit(lambda x: lies.at(0, KEY) @ x)(x)
    np.testing.assert_allclose(batches, once, rtol=1e-13)


@jd.pytree
class Aside:
    """All honest messages' mean and a vector: the same for all who hear the same."""

    broadcasts = True

    def __call__(self, honest, liars=1, key: Any = None, heard: Any = None):
        mean = jnp.sum(jnp.where(heard[:, None], honest, 0), axis=0) / jnp.sum(heard)
        return mean + jnp.arange(1.0, D + 1)


@pytest.mark.parametrize(
    "rule", ["NNA", *(pytest.param(r, marks=pytest.mark.slow) for r in ("CAF", "NNM, NNA"))]
)
def test_where_all_hear_the_same_it_is_computed_once(rule):
    """A complete graph's own path, and the table of the same matrix."""
    rule, rule_loop = PAIRS[rule]
    x, told = loops.rows(7, D, seed=2), {"rule": rule, "attack": Aside(), "liars": 2}
    shared = networks.robust(networks.Complete(7), **told)
    table = networks.robust(GRAPHS["dense"]()[0], **told)
    assert shared.at(0, KEY)._is_shared
    assert not table.at(0, KEY)._is_shared
    assert not networks.robust(networks.Complete(7), **told, hears=5)._is_shared
    np.testing.assert_allclose(product(shared, x), product(table, x), **CLOSE)

    def aside(honest, liars=1, key=None, heard=None):
        return robust.honest_mean(honest, None) + np.arange(1.0, D + 1)

    wanted = expected(rule_loop, x, arcs(ALL), np.arange(7) > 4, aside)
    np.testing.assert_allclose(product(shared, x), wanted, **CLOSE)


@pytest.mark.parametrize(
    "rule", [A.TrimmedMean(2), pytest.param(A.MultiKrum(2), marks=pytest.mark.slow)]
)
def test_on_a_complete_graph_honest_agents_have_the_servers_aggregate(rule):
    told = {"rule": rule, "attack": T.ALIE(1.0), "liars": 2}
    x = loops.rows(7, D)
    graph = networks.robust(networks.Complete(7), **told)
    server = networks.robust(networks.Server(7), **told)
    aggregate = loops.jit(lambda now, x: now.mean(x))(server.at(0, KEY), x)
    np.testing.assert_allclose(product(graph, x)[:5], np.tile(aggregate, (5, 1)), **CLOSE)


@jd.pytree
class Spy:
    """A rule that tells how many messages it hears, the sum of their squares, and of the first."""

    def __call__(self, x, heard: Any = None, own=0, key=None):
        x = jnp.where(heard[:, None], x, 0)
        return jnp.stack([jnp.sum(heard), jnp.sum(x[:, 0]), x[own, 0]]).astype(x.dtype)

    def breakdown(self, n):
        return n


def test_those_heard_are_oneself_all_liars_and_a_draw_of_the_others():
    """Agent j sends 2ʲ, so that a sum tells who was heard; over many rounds all equally often."""
    n, hears, rounds = 9, 4, 3000
    lies = networks.robust(networks.Complete(n), rule=Spy(), attack=None, liars=2, hears=hears)
    x = jnp.broadcast_to(2.0 ** jnp.arange(n)[:, None], (n, D))
    found = loops.jit(lambda: jax.lax.map(lambda k: lies.at(k, KEY) @ x, jnp.arange(rounds)))()
    found = np.asarray(found).astype(int)
    assert (found[..., 0] == hears).all()
    assert (found[..., 2] == 2 ** np.arange(n)).all()
    heard = (found[..., 1, None] >> np.arange(n)) & 1  # [rounds, receivers, senders]
    assert heard[:, np.arange(n), np.arange(n)].all()
    assert heard[:, :, 7:].all()
    assert (heard.sum(axis=2) == hears).all()
    others = ~np.eye(n, dtype=bool)[:7, :7]
    shares = heard[:, :7, :7].mean(axis=0)[others]  # one of six
    assert np.abs(shares - 1 / 6).max() < 5 * np.sqrt(1 / 6 * 5 / 6 / rounds)
    assert not np.array_equal(heard[0], heard[1])
    honest = heard[:, :2, 2:7].argmax(axis=2)
    together = (honest[:, 0] == honest[:, 1]).mean()  # receivers draw for themselves
    assert together < 0.5


@jd.pytree
class Relays:
    """A lie that is a draw of the key, twice."""

    broadcasts = False

    def __call__(self, honest, liars=1, key: Any = None, heard: Any = None):
        return jnp.broadcast_to(jax.random.normal(key, ()), honest.shape[1:])


def test_lies_are_drawn_anew_for_every_receiver_and_round():
    lies = networks.robust(networks.Complete(6), rule=Spy(), attack=Relays(), liars=2)
    x = jnp.zeros((6, D))
    found = loops.jit(lambda: jax.lax.map(lambda k: lies.at(k, KEY) @ x, jnp.arange(500)))()
    drawn = np.asarray(found)[:, :4, 1] / 2  # both liars tell a receiver the same
    assert len(np.unique(drawn.round(12))) == drawn.size
    assert abs(drawn.mean()) < 5 / np.sqrt(drawn.size)
    assert abs(drawn.std() - 1) < 5 / np.sqrt(2 * drawn.size)
    assert np.array_equal(np.asarray(found)[:, 4:, 1], np.zeros((500, 2)))  # liars hear the truth


@pytest.mark.slow
def test_buckets_are_means_of_what_is_heard():
    """With one message a bucket it is the rule; with all in one bucket the mean of all."""
    x, told = loops.rows(9, D), {"attack": T.SignFlip(), "liars": 2}
    network = networks.metropolis(REGULAR)
    plain = networks.robust(network, rule=A.Median(), **told)
    ones = networks.robust(network, rule=A.chain(A.Bucketing(1), A.Median()), **told)
    np.testing.assert_allclose(product(ones, x), product(plain, x), **CLOSE)
    mean = networks.robust(network, rule=A.Mean(), **told)
    five = networks.robust(network, rule=A.chain(A.Bucketing(5), A.Median()), **told)
    np.testing.assert_allclose(product(five, x), product(mean, x), **CLOSE)
    pairs = networks.robust(network, rule=A.chain(A.Bucketing(2), A.Median()), **told)
    first, second = product(pairs, x), product(pairs, x, 1)
    assert not np.allclose(first, second)  # other buckets in every round
    np.testing.assert_array_equal(first, product(pairs, x))


# Whole runs


def slopes(n):
    random = np.random.default_rng(7)
    return random.uniform(0.5, 2.0, (n, D)), random.normal(size=(n, D))


def oracle(n):
    """Quadratics as an oracle: no objective is known, and agents cannot be taken apart."""
    data = dict(zip("ac", map(jnp.asarray, slopes(n)), strict=True))
    return jd.problems.Oracle(lambda x, own, key: own["a"] * (x - own["c"]), data, jnp.zeros(D))


@pytest.mark.parametrize(
    ("graph", "rule", "attack", "beta"),
    [
        ("regular", "NNA", "ALIE", 0.9),
        pytest.param(
            "exponential, directed", "NNM, trimmed mean", "NaN", None, marks=pytest.mark.slow
        ),
        pytest.param("hub", "self-centered, adaptive", "dissensus", 0.0, marks=pytest.mark.slow),
        pytest.param("complete", "NNA", "sign flip", 0.9, marks=pytest.mark.slow),
        pytest.param("ring", "trimmed mean", "inf", None, marks=pytest.mark.slow),
    ],
)
def test_runs_are_the_loops(graph, rule, attack, beta):
    network, given = GRAPHS[graph]()
    (rule, rule_loop), (attack, attack_loop) = PAIRS[rule], ATTACKS[attack]
    n, steps, (a, c) = network.n, 8, slopes(network.n)
    lying = np.zeros((3, n), bool)
    lying[0, 1] = lying[2, 1] = lying[1, 4] = True
    lies = networks.robust(network, rule=rule, attack=attack, liars=lying)
    x0 = loops.rows(n, D, seed=4)
    method = jd.DSGD(0.2) if beta is None else jd.MoNNA(0.2, beta)
    result = jd.run(
        method, oracle(n), lies, x0, KEY, steps=steps, metrics={"x": lambda state, _: state.x}
    )
    assert set(result.metrics) == {"x", "consensus_error"}  # of an oracle no loss is known
    who = lying[np.arange(steps) % 3]
    with np.errstate(invalid="ignore"):
        wanted = robust.robust_dsgd(
            lambda i, x, k: a[i] * (x - c[i]),
            arcs(given),
            x0,
            lambda k: 0.2,
            steps,
            rule_loop,
            told(attack_loop),
            who,
            beta or 0.0,
        )
    np.testing.assert_allclose(result.state.x, wanted[-1], **CLOSE)
    honest = ~lying.any(axis=0)
    np.testing.assert_allclose(result.metrics["x"], wanted[:, honest], **CLOSE)
    apart = wanted[:, honest] - wanted[:, honest].mean(axis=1, keepdims=True)
    np.testing.assert_allclose(
        result.history["consensus_error"], (apart**2).sum(axis=2).mean(axis=1), **CLOSE
    )
    assert not result.diverged


def told_by(lies, x, rounds):
    """What honest agents make of it where the rule is the mean of everything."""
    run = loops.jit(lambda lies: jax.lax.map(lambda k: lies.at(k, KEY) @ x, jnp.arange(rounds)))
    return np.asarray(run(lies))


@pytest.mark.parametrize("complete", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_mimic_tells_the_message_of_one_agent_heard_or_not(complete):
    network = networks.Complete(9) if complete else networks.metropolis(jd.graphs.ring(9))
    hears = ~np.eye(9, dtype=bool) if complete else arcs(jd.graphs.ring(9))
    x, lying = loops.rows(9, D), spread_out(9, 2)
    lies = networks.robust(network, rule=A.Mean(), attack=T.Mimic(6), liars=lying)
    wanted = robust.robust_mixing(
        robust.mean(), np.asarray(x), hears, lying, lambda k, i, j, honest, f: np.asarray(x[6]), 0
    )
    np.testing.assert_allclose(product(lies, x), wanted, **CLOSE)
    strangers = networks.robust(network, rule=A.Mean(), attack=T.Mimic(9), liars=lying)
    with pytest.raises(ValueError, match="target is 9, of 9 agents; give at most 8"):
        product(strangers, x)


def test_a_script_tells_its_offset_of_the_step_and_receiver():
    """The last one from then on; a run's steps are the script's."""
    offsets = np.random.default_rng(2).normal(size=(3, 7, D))
    network = networks.metropolis(jd.graphs.ring(7))
    lies = networks.robust(
        network, rule=A.Mean(), attack=T.Scripted(jnp.asarray(offsets)), liars=spread_out(7, 2)
    )
    x, who, hears = loops.rows(7, D), spread_out(7, 2), arcs(jd.graphs.ring(7))
    found = told_by(lies, x, 5)

    def attack(k, i, j, honest, f):
        return robust.scripted(offsets[min(k, 2), i])(honest, liars=f)

    for k in range(5):
        wanted = robust.robust_mixing(robust.mean(), np.asarray(x), hears, who, attack, k)
        np.testing.assert_allclose(found[k], wanted, **CLOSE)


@pytest.mark.slow
def test_the_strongest_is_searched_for_each_receiver():
    rule, network = A.TrimmedMean(1), networks.metropolis(REGULAR)
    lies = networks.robust(
        network, rule=rule, attack=T.strongest(T.ALIE(), rule), liars=spread_out(9, 1)
    )
    x = loops.rows(9, D)
    loop = robust.strongest(robust.alie, robust.trimmed_mean(1))
    wanted = expected(robust.trimmed_mean(1), x, arcs(REGULAR), spread_out(9, 1), loop)
    np.testing.assert_allclose(product(lies, x), wanted, rtol=1e-8, atol=1e-8)


def test_gaussian_lies_are_normal_and_one_a_receiver():
    lies = networks.robust(networks.Complete(6), rule=A.Mean(), attack=T.Gaussian(3.0), liars=3)
    found = told_by(lies, jnp.zeros((6, D)), 800)
    assert np.array_equal(found[:, 3:], np.zeros((800, 3, D)))
    drawn = found[:, :3] * 2 / 3  # half of the messages are lies, the same one three times
    assert len(np.unique(drawn.round(12))) == drawn.size
    assert abs(drawn.mean()) < 5 / np.sqrt(drawn.size)
    assert abs(drawn.std() - 1) < 5 / np.sqrt(2 * drawn.size)


def test_links_are_those_from_honest_agents_that_are_heard():
    """Seven honest agents of nine hear one honest one beside two liars, and liars two."""
    some = networks.robust(networks.Complete(9), rule=A.Median(), liars=2, hears=4)
    assert some.at(0, KEY).link_count == 7 * 1 + 2 * 2
    every = networks.robust(networks.Complete(9), rule=A.Median(), liars=2)
    assert every.at(0, KEY).link_count == 7 * 6 + 2 * 7
    changing = networks.RandomLinks(networks.Complete(9), 1.0)  # hears is not checked beforehand
    few = networks.robust(changing, rule=A.Median(), liars=3, hears=2)
    assert few.at(0, KEY).link_count == 0
