"""The study of torchft's published runs: every series to the last digit, and what would not be."""

import pytest

from experiments import torchft


@pytest.fixture(scope="module")
def results():
    """One run; all scales are the same."""
    return torchft.STUDY.results("quick")


def test_all_series_come_out(results):
    judged = [claim.judge(results) for claim in torchft.CLAIMS]
    assert {each["verdict"] for each in judged} == {"holds"}
    assert [len(each["measured"]) for each in judged] == [6, 6, 2, 3]
    assert {value["value"] for each in judged for value in each["measured"]} == {0}
    assert len(torchft.STUDY.figures["torchft"].draw(results).axes) == 6


def test_a_deviation_would_be_seen(results):
    own = results["runs"].sel(delay=1, merge=0.5)
    known = torchft.published(1, 0.5)
    for name, measure in {"weight": torchft.weights_off, "slow": torchft.slow_off}.items():
        moved = own.copy(deep=True)
        moved[name][{"step": 9, "fragment" if name == "weight" else "part": 1}] += 0.25
        assert measure(own, known) == 0
        assert measure(moved, known) == 0.25
