"""The experiment of random reshuffling, small: orders in the stepsize, and what they come from."""

import json

import numpy as np
import pytest

from experiments import drr
from experiments.claims import Claim
from experiments.measures import exponent, tail

STUDY, NAMES = drr.STUDY, list(drr.GRAPHS)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """The folder of one quick run."""
    folder = tmp_path_factory.mktemp("drr")
    STUDY.run("quick", folder, progress=False)
    return folder / "drr"


@pytest.fixture(scope="module")
def results(out):
    """The datasets of that run."""
    return STUDY.results("quick", cache=out / "cache")


def claim(text: str) -> Claim:
    """Return the claim of this text."""
    return next(claim for claim in STUDY.claims if claim.text == text)


def test_the_graphs_have_the_papers_spectra(results):
    rows = drr.graphs(results).values.tolist()
    assert [row[:2] for row in rows] == [["Erdos-Renyi", 101], ["exponential", 56], ["grid", 24]]
    spectra = [[0.66853, 0.83427], [0.75, 0.875], [0.91504, 0.95752]]
    np.testing.assert_allclose([row[2:] for row in rows], spectra, atol=5e-6)


def test_tables_datasets_and_figures_are_there(out):
    names = {"networks.csv", "claims.json", "drr.png", "drr.pdf", "cache"}
    names |= {f"{part}.nc" for part in ("decreasing", "constant", "nonconvex")}
    assert names == {path.name for path in out.iterdir()}
    claims = json.loads((out / "claims.json").read_text())["claims"]
    verdicts = {each["text"]: each["verdict"] for each in claims}
    assert verdicts["D-RR: error ~ t^p"] == "holds"
    assert verdicts["D-RR's error over the next better connected graph's"] == "holds"
    assert verdicts["D-RR's end over the paper's"] == "not judged"


def test_the_error_of_drr_falls_as_the_square_of_decreasing_stepsizes(results):
    slopes = drr.slopes("D-RR", "error", results).sel(network=NAMES)
    assert slopes.values.tolist() == pytest.approx([-2, -2, -2], abs=0.15)
    last = drr.ending(results)
    assert np.all(last.sel(algorithm="D-RR") > 100 * last.sel(algorithm="CRR"))


def test_the_stationary_error_of_drr_is_of_second_order(results):
    means = drr.stationary(results).sel(network="Erdos-Renyi")
    power = exponent(None, means.error, "stepsize")
    assert power.sel(algorithm="D-RR").item() == pytest.approx(2, abs=0.1)
    assert power.sel(algorithm="DSGD") < 1.85  # on its way to 1: samples are a good part of it
    mean = means.distance_squared.sel(stepsize=1 / 1000)
    assert mean.sel(algorithm="DSGD") > 50 * mean.sel(algorithm="D-RR")


def test_the_agents_disagree_by_what_the_linearization_says(results):
    assert "scikit-learn" in results.world.images[0]
    predicted = results.world.disagreement.sel(network=NAMES).values
    measured = drr.stationary(results).consensus_error.sel(stepsize=1 / 1000, network=NAMES)
    both = measured.transpose("algorithm", "network").values * 1000**2
    np.testing.assert_allclose(both, np.tile(predicted, (2, 1)), rtol=0.04)
    assert predicted[0] < predicted[1] < predicted[2] / 10
    assert claim("stationary disagreement over predicted").judge(results)["verdict"] == "holds"


def test_the_papers_schedule_at_the_papers_number_of_samples():
    schedule = drr.decreasing(drr.SAMPLES)
    assert float(schedule(0)) == pytest.approx(1 / 400)
    assert float(schedule(299 * 750 + 749)) == pytest.approx(1 / (50 * 299 + 400))
    stretched = drr.decreasing(62, stretch=True)
    step = 62 * 1200
    assert float(stretched(step)) == pytest.approx(1 / (50 * step / 750 + 400))


def test_with_the_papers_images_the_two_schedules_are_one():
    steps = np.array([0, 749, 750, 299 * 750 + 749])
    own, stretched = (drr.decreasing(drr.SAMPLES, stretch=flag) for flag in (False, True))
    np.testing.assert_array_equal([own(t) for t in steps], [stretched(t) for t in steps])


def test_finals_are_compared_with_the_papers_where_its_stepsizes_are_run(results):
    paper = type(results)(results.world, "default")
    paper.update(results)
    paper["published"] = results["decreasing"].assign(
        error=drr.PUBLISHED.broadcast_like(results["decreasing"].error)
    )
    for name in drr.METHODS:
        assert claim(f"{name}'s end over the paper's").judge(paper)["verdict"] == "holds"
    last = tail(paper["published"].error, 0.02).mean("seed")
    np.testing.assert_array_equal(drr.ending(paper), last)
