"""The study of APD: acceleration as claimed, to the right optimum on unbalanced digraphs."""

import json

import numpy as np
import pytest

from experiments import apd
from experiments.measures import exponent

STUDY = apd.STUDY


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """The folder of one quick run."""
    folder = tmp_path_factory.mktemp("apd")
    STUDY.run("quick", folder, progress=False)
    return folder / "apd"


@pytest.fixture(scope="module")
def results(out):
    """The datasets of that run."""
    return STUDY.results("quick", cache=out / "cache")


def test_exponents_of_the_condition_number(results):
    fixed, best = results["fixed"], results["best"]
    assert fixed.c.item() < best.c.min()  # the safe one is the smallest
    iterations = apd.iterations(results)
    fits = apd.exponents(results)
    assert fits.sizes == {"stepsize": 2, "algorithm": 3, "network": 2}
    np.testing.assert_allclose(fits.sel(algorithm="APD-SC"), 0.55, atol=0.1)
    np.testing.assert_allclose(fits.sel(algorithm=["Push-DIGing", "Push-Pull"]), 1, atol=0.05)
    last = iterations.isel(condition_number=-1)
    assert (last.sel(algorithm="APD-SC") * 2 < last.sel(algorithm="Push-Pull")).all()


def test_the_limit_is_the_uniform_optimum_on_unbalanced_digraphs(results):
    graphs = apd.graphs(results)
    assert (graphs["imbalance of C"] > 2).all()
    assert (graphs["gap of C"] > 0.2).all()
    ends = results["limits"]
    assert (ends.apart.sel(optimum=["weighted by R", "weighted by C"]) > 0.1).all()
    exact = ends.distance.sel(algorithm=list(apd.METHODS))
    assert (exact.sel(optimum="uniform") < 1e-4).all()
    assert (exact.drop_sel(optimum="uniform") > 0.1).all()
    alone = ends.distance.sel(algorithm=apd.ROW)
    assert (alone.sel(optimum="weighted by R") < 1e-5).all()
    assert (alone.sel(optimum="uniform") > 0.1).all()


def test_apd_doubles_the_exponent_without_strong_convexity(results):
    fits = apd.slopes(results)
    assert set(fits.dims) == {"stepsize", "algorithm", "network"}
    np.testing.assert_allclose(fits.sel(algorithm="Push-DIGing"), -0.75, atol=0.06)
    np.testing.assert_allclose(fits.sel(algorithm="APD"), -1.5, atol=0.15)
    np.testing.assert_allclose(apd.slopes(results, "own"), fits, atol=0.05)
    assert not results["convex"].diverged.any()


def test_the_claims_hold_and_all_files_are_there(out):
    claims = json.loads((out / "claims.json").read_text())["claims"]
    verdicts = {each["text"]: each["verdict"] for each in claims}
    assert set(verdicts.values()) == {"holds", "not judged"}
    for text in ("all reach the uniform optimum: distance", "APD: F - F* ~ k^p"):
        assert verdicts[text] == "holds"
    assert all(abs(each["miss"]) <= 1 for each in claims if "κ" in each["text"])
    names = {path.name for path in out.iterdir()}
    assert names == {"apd.png", "apd.pdf", "claims.json", "graphs.csv", "cache"} | {
        f"{part}.nc" for part in STUDY.parts
    }


def test_iterations_are_those_of_the_records(results):
    fixed = results["fixed"]
    here = fixed.isel(c=0, network=0, condition_number=0).sel(algorithm="Push-Pull")
    first = int(np.argmax(here.error.values <= apd.ACCURACY))
    assert here.iterations.item() == here["at"].values[first]
    powers = exponent(None, fixed.iterations.isel(c=0), "condition_number")
    np.testing.assert_array_equal(powers, apd.exponents(results).sel(stepsize="one c"))


def test_perron_vectors_and_the_counterexample():
    network = next(iter(apd.networks(10, 1).values()))
    left, right = apd.perron(network, "row"), apd.perron(network, "column")
    np.testing.assert_allclose(left @ network.row.csr().toarray(), left, atol=1e-12)
    np.testing.assert_allclose(network.column.csr().toarray() @ right, right, atol=1e-12)
    problem = apd.quadratics(10, 4, [10.0])[0]
    np.testing.assert_allclose(apd.displaced(problem, np.full(10, 0.1)), 0, atol=1e-12)
