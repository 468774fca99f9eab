"""The study of failures: goodputs are those expected, and outer loops hold where others stop."""

import numpy as np
import pytest

from experiments import failures


@pytest.fixture(scope="module")
def results():
    """One quick run."""
    return failures.STUDY.results("quick")


def test_who_takes_part():
    there = failures.failures(3.0, 4000, seed=0)
    assert there.shape == (4000, failures.WORKERS)
    q, a = failures.chances(3.0)
    assert there.mean() == pytest.approx(a, abs=0.05)
    assert (there[:-1] & ~there[1:]).sum() / there[:-1].sum() == pytest.approx(q, rel=0.3)
    together = failures.takes_part("synchronous", there)
    np.testing.assert_array_equal(together.any(axis=1), there.all(axis=1))
    np.testing.assert_array_equal(together.all(axis=1), there.all(axis=1))
    rounds = failures.takes_part("DiLoCo", there)
    assert rounds.shape == (100, failures.WORKERS)
    for k in (0, 7, 99):
        own = there[40 * k : 40 * (k + 1)]
        np.testing.assert_array_equal(rounds[k], own.all(axis=0))
    more = failures.failures(10.0, 4000, seed=0)
    assert more.mean() < there.mean()  # the same random numbers


def test_decoupled_goodput_is_that_of_a_loop_over_learners(results):
    seconds = 20_000  # of the quick scale
    there = failures.failures(10.0, seconds, seed=0)
    steps = np.zeros((failures.WORKERS, failures.FRAGMENTS))
    entered, due, before = 0.0, np.zeros(failures.FRAGMENTS, bool), np.zeros(len(steps), bool)
    for s in range(seconds):
        now = there[s]
        steps[now & ~before] = 0
        steps[now] += 1
        for p in range(failures.FRAGMENTS):
            due[p] |= (s + 1) % 40 == 10 * (p + 1) % 40
            if due[p] and now.sum() >= 4:
                entered += steps[now, p].sum() / failures.FRAGMENTS
                steps[now, p], due[p] = 0, False
        before = now
    found = results["goodput"].measured.sel(algorithm="Decoupled DiLoCo", rate=10.0, seed=0)
    assert float(found) == pytest.approx(entered / seconds / failures.WORKERS, rel=1e-9)


def test_what_is_claimed_holds(results):
    verdicts = [claim.judge(results)["verdict"] for claim in failures.CLAIMS]
    assert verdicts.count("holds") == 5
    assert verdicts.count("not judged") == 1  # a figure of pages that quote the paper
    assert len(failures.STUDY.figures["failures"].draw(results).axes) == 5
