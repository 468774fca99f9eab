"""The study of liars on graphs: places, cliques, seats that nobody hears; where gossip breaks."""

import jax
import numpy as np
import pytest

import jaxdopt as jd
from experiments import gossip


@pytest.fixture(scope="module")
def results():
    """One quick run."""
    return gossip.STUDY.results("quick")


def test_liars_stand_around_one_agent_or_in_the_cut():
    graph = jd.graphs.regular(23, 6, seed=1)
    links = gossip.placed(graph, 3, gossip.AROUND, 0)
    assert links[:20, 20:].sum(axis=1).max() == 3
    assert (links.sum(axis=1) == 6).all()
    links = gossip.cliques(4, 3)
    assert (links == links.T).all()
    assert (links[:20, 20:]).all()
    assert (links[:10, :10].sum(axis=1) == 9).all()
    assert (links[:10, 10:20].sum(axis=1) == 4).all()
    assert (links[10:20, :10].sum(axis=1) == 4).all()
    assert gossip.told(gossip.padded(links, 26)) == (3, 8)


def test_verdicts(results):
    verdicts = [claim.judge(results)["verdict"] for claim in gossip.CLAIMS]
    assert set(verdicts) <= {"holds", "not judged"}
    assert verdicts[0] == "holds"
    assert len(gossip.STUDY.figures["gossip"].draw(results).axes) == 4


def test_seats_that_nobody_hears_do_not_matter(results):
    world = results.world
    name, place, f = "4-regular", f"{gossip.AROUND} 0", 1
    links = world.cases[name, place, f][:21, :21]
    graph = jd.networks.Dense(gossip.dense(links), kind="row")
    attack = jd.attacks.Dissensus(4.0)
    network = jd.networks.robust(graph, rule=jd.aggregators.NNA(1), attack=attack, liars=1)
    problem = gossip.problem(21, world.seed)
    method, key = jd.DSGD(gossip.STEPSIZE), jax.random.key(0)
    options = {"steps": world.steps, "every": world.steps, "metrics": {"error": gossip.farthest}}
    alone = jd.run(method, problem, network, problem.start(), key, defaults=(), **options)
    at = {"rule": "NNA", "attack": "Dissensus", "graph": name, "place": place, "f": f}
    found = results["runs"].error.sel(**at, factor=4.0)
    np.testing.assert_allclose(found, alone.history["error"][-1], rtol=1e-9)
