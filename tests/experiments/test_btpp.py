"""BTPP's synthetic experiment, small."""

import pytest

from experiments import btpp
from experiments.panels import Figure


@pytest.fixture(scope="module")
def results():
    """One quick run."""
    return btpp.STUDY.results("quick")


def test_it_is_later_than_sgd_and_as_good_in_the_end(results):
    values = results["histories"].norm
    sgd, tree = (values.sel(algorithm=name) for name in ("SGD", "BTPP, B = 2"))
    assert tree.sel(step=50) > 1.1 * sgd.sel(step=50)
    assert tree.sel(step=800) == pytest.approx(float(sgd.sel(step=800)), rel=0.1)


def test_one_claim_is_judged_and_holds(results):
    verdicts = [claim.judge(results)["verdict"] for claim in btpp.CLAIMS]
    assert verdicts == ["holds", "not judged", "not judged", "not judged"]


def test_the_figure_leaves_out_what_is_not_run(results):
    figure = btpp.STUDY.figures["btpp"]
    drawn = Figure.of(figure).draw(results)
    assert [ax.get_title() for ax in drawn.axes] == ["$\\Theta(1)$ neighbors", "exponential graphs"]
