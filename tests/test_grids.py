"""Fields by name at any depth, values that go together, and values drawn at random."""

import itertools
import warnings
from typing import Any

import jax
import numpy as np
import optax
import pytest

import jaxdopt as jd
from jaxdopt.grids import found, grids_of

KEY = jax.random.key(0)
PROBLEM = jd.problems.quadratic(4, 3)
RING = jd.networks.metropolis(jd.graphs.ring(4))
LINKS = jd.networks.RandomLinks(RING, 0.7)
CHOCO = jd.CHOCOSGD(0.1, jd.compressors.TopK(2))
SERVER = jd.FedAvg(0.1, server=jd.optimizer(optax.trace, decay=0.9, nesterov=False))
SLOWER = jd.Averaged(jd.DGD(jd.schedules.InverseTime(1.0, 2.0)))
ASLEEP = jd.networks.Asleep(LINKS, jd.networks.participation.Bernoulli(0.5, 4))


@pytest.mark.parametrize(
    ("method", "network", "name", "path"),
    [
        (CHOCO, RING, "compressor.k", "compressor.k"),
        (CHOCO, RING, "k", "compressor.k"),
        (CHOCO, LINKS, "network.probability", "network.probability"),
        (CHOCO, LINKS, "probability", "network.probability"),
        (CHOCO, ASLEEP, "network.probability", "network.network.probability"),
        (CHOCO, ASLEEP, "p", "network.pattern.p"),
        (SERVER, RING, "decay", "server.decay"),
        (SERVER, RING, "server.nesterov", "server.nesterov"),
        (SLOWER, RING, "stepsize", "method.stepsize"),
        (SLOWER, RING, "offset", "method.stepsize.offset"),
        (SLOWER, RING, "stepsize.offset", "method.stepsize.offset"),
        (SLOWER, RING, "start", "start"),
    ],
)
def test_fields_are_found_by_name(method, network, name, path):
    assert ".".join(found("it", name, method, network).path) == path


@pytest.mark.parametrize(
    ("method", "network", "over", "says"),
    [
        (CHOCO, LINKS, {"rate": [1]}, "'rate' to sweep; it has .*compressor.k, .*and of its "
         "network network.probability. Methods of other"),
        (CHOCO, LINKS, {"network.rate": [1]}, "no field 'network.rate' to sweep; it has stepsize"),
        (jd.CHOCOSGD(0.1, jd.compressors.Contractive(jd.compressors.RandomK(1))), RING,
         {"stepsize": [0.1], "k": [0]}, "k is 0; give"),
        (CHOCO, LINKS, {"probability": [0.1, 1.5]}, "it: probability is 1.5; give at most 1"),
        (SERVER, RING, {"decay": ["much"]}, "it: "),
        (CHOCO, RING, jd.Points({"stepsize": [1, 2], "k": [1]}),
         "has 2 of stepsize, 1 of k; give as many"),
        (CHOCO, jd.networks.Asleep(ASLEEP, jd.networks.participation.Bernoulli(0.5, 4)),
         {"p": [0.1]}, "it has 2 fields 'p'; name one of network\\.(network\\.)?pattern.p, "),
    ],
)  # fmt: skip
def test_other_names_and_values_are_refused(method, network, over, says):
    with pytest.raises(ValueError, match=says):
        grids_of({"it": method}, over, {"it": network})


def test_points_are_stacked_with_what_differs():
    over: Any = {"probability": [0.2, 0.5], "stepsize": [0.1, 0.3], "k": [1, 2]}
    own, grids = grids_of({"it": CHOCO}, over, {"it": LINKS})
    assert not own
    programs = grids["it"].programs(LINKS)
    assert [stacked.places for stacked in programs] == [[0, 2, 4, 6], [1, 3, 5, 7]]
    for k, stacked in zip(over["k"], programs, strict=True):
        assert stacked.methods.compressor.k == k
        np.testing.assert_allclose(stacked.methods.stepsize, [0.1, 0.3] * 2)
        (probabilities,) = stacked.differing.values()  # the weights are there once
        np.testing.assert_allclose(probabilities, [0.2, 0.2, 0.5, 0.5])
        member = stacked.networks.one({name: v[3] for name, v in stacked.differing.items()})
        assert member.probability == 0.5
        assert member.network.offsets == RING.offsets
    with pytest.raises(ValueError, match="the network has no field probability to sweep"):
        grids["it"].programs(RING)


def test_numbers_are_drawn_log_uniformly():
    drawn = jd.log_uniform(KEY, 4000, 1e-4, 1.0)
    assert drawn.min() >= 1e-4
    assert drawn.max() <= 1.0
    shares = np.histogram(np.log10(drawn), bins=4, range=(-4, 0))[0] / 4000
    np.testing.assert_allclose(shares, 0.25, atol=0.03)
    np.testing.assert_array_equal(drawn, jd.log_uniform(KEY, 4000, 1e-4, 1.0))
    assert set(jd.log_uniform(KEY, 3, 0.5, 0.5)) == {0.5}
    wrong: Any
    for wrong, says in (
        ((KEY, 0, 1, 2), "count is 0; give how many"),
        ((KEY, 2, 0, 2), "least is 0; give more than 0"),
        ((KEY, 2, 3, 2), "least is 3 and most is 2; give the smaller one first"),
        ((3, 2, 1, 2), "key is 3, not a JAX key"),
    ):
        with pytest.raises(ValueError, match=says):
            jd.log_uniform(*wrong)


@pytest.mark.slow
def test_members_are_runs_with_these_numbers():
    options: dict[str, Any] = {"steps": 4, "every": 2}

    def alone(method, network):
        x0, key = PROBLEM.start(), jax.random.key(0)
        return jd.run(method, PROBLEM, network, x0, key, **options).history["gap"]

    over: Any = {"network.probability": [0.2, 0.9], "compressor.k": [1, 3]}
    data = jd.compare({"CHOCO": CHOCO}, PROBLEM, LINKS, over=over, **options)
    assert data["network.probability"].attrs == {"least": 0.0, "most": 1.0}
    for p, k in itertools.product(*over.values()):
        method = jd.CHOCOSGD(0.1, jd.compressors.TopK(k))
        cell = data["gap"].sel({"network.probability": p, "compressor.k": k}).squeeze()
        expected = alone(method, jd.networks.RandomLinks(RING, p))
        np.testing.assert_allclose(cell, expected, rtol=1e-9)
    points = jd.Points({"stepsize": [0.1, 0.1, 0.3], "decay": [0.5, 0.9, 0.5]})
    server = jd.networks.Server(4)
    data = jd.compare({"F": SERVER}, PROBLEM, server, over=points, **options)
    assert data["gap"].sizes["choice"] == 3
    for choice, (a, b) in enumerate(zip(*points.values(), strict=True)):
        cell = data.isel(choice=choice, algorithm=0)
        assert (float(cell["stepsize"]), float(cell["decay"])) == (a, b)
        method = jd.FedAvg(a, server=jd.optimizer(optax.trace, decay=b, nesterov=False))
        np.testing.assert_allclose(cell["gap"].squeeze(), alone(method, server), rtol=1e-9)
    best = np.argmin(data["gap"].isel(step=-1).values)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the largest of three stepsizes
        assert float(jd.best(data)["decay"].squeeze()) == points["decay"][best]
