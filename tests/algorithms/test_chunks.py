"""A run in chunks is the run in one scan, bit for bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import ROWS
from small import KEY, network_of, uneven

import jaxdopt as jd
from jaxdopt import networks, records

METHODS = {row.name: row for row in ROWS}
QUICK = ("GradientTracking", "FedAvg")
SAMPLE = (
    "ADSGD",
    *("CHOCOSGD", "LEAD", "CEDAS", "BEER", "DRR", "GTSAGA", "LinearizedADMM", "PushSum", "OSGP"),
    *("CPP", "RelaySGD", "SCAFFOLD", "FedSUMCR", "ADPSGD", "RFAST", "AFACD", "FedBuff"),
)


def bits(tree):
    """All leaves of a tree with their paths, as bytes."""

    def raw(leaf):
        key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(leaf) if key else leaf)

    return {
        jax.tree_util.keystr(path): (type(leaf), leaf.shape, str(leaf.dtype), raw(leaf).tobytes())
        for path, leaf in jax.tree.leaves_with_path(tree)
    }


def require_equal(setting, **options):
    """Ask a run in one scan and the same in chunks of at most 3 records."""
    whole = jd.run(*setting, **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "ROWS", 3)
        seen = []
        parts = jd.run(*setting, **options, callback=seen.append)
    assert bits(parts) == bits(whole)
    assert jax.tree.structure(parts) == jax.tree.structure(whole)
    history = whole.history
    assert [record["step"] for record in seen] == history["step"].tolist()
    for name in whole.metrics:
        np.testing.assert_array_equal([record[name] for record in seen], history[name])


@pytest.mark.parametrize(
    "name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SAMPLE)]
)
def test_chunks_are_the_scan(name):
    row = METHODS[name]
    problem = uneven("float64")
    setting = row.make(0.05), problem, network_of(row.network), problem.start() + 1.0, KEY
    require_equal(setting, steps=8, every=1 if name in QUICK else 2)


NETWORKS = {
    "cut links": lambda ring: networks.RandomLinks(ring, 0.7),
    "sleepers": lambda ring: networks.Asleep(ring, networks.participation.bernoulli(0.6, n=6)),
    "in turn": lambda ring: networks.Cyclic([ring, networks.metropolis(jd.graphs.complete(6))]),
    "timed": lambda ring: networks.timed(ring, delay=0.5),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_chunks_on_networks_that_change_are_the_scan(name):
    problem = uneven("float64")
    network = NETWORKS[name](networks.metropolis(jd.graphs.ring(6)))
    method = jd.GradientTracking(jd.schedules.InverseTime(0.3, 8.0))
    metrics = {"x": lambda state, _: state.x, "active": lambda state, _: state.x[:, 0] > 0}
    require_equal(
        (method, problem, network, problem.start() + 1.0, KEY),
        steps=12, every=3, start=5, metrics=metrics,
    )  # fmt: skip
