"""The study of values: noise by the law, bytes beside 32 bits, bits of a step, replay, queries."""

import numpy as np
import pytest

from experiments import one_byte


@pytest.fixture(scope="module")
def results():
    """One quick run."""
    return one_byte.STUDY.results("quick")


def test_noise_falls_as_one_over_n_with_a_byte_as_well(results):
    found = results["variance"].mean("seed")
    np.testing.assert_allclose(found.measured / found.theory, 1, atol=0.06)
    assert found.theory.sel(code="a byte").values.tolist() == pytest.approx(
        [float(found.theory.sel(code="a byte", n=1)) / n for n in one_byte.MACHINES]
    )


def test_a_step_costs_the_same_bits_for_all_models_and_a_log_is_the_model(results):
    each = results["bits"].each.mean("seed")
    assert set(each.sel(algorithm="JustOneByte").values.tolist()) == {8.0 * one_byte.RING}
    sizes = each.d.values
    np.testing.assert_array_equal(each.sel(algorithm="DSGD"), 32 * sizes)
    np.testing.assert_array_equal(each.sel(algorithm="DSGD, two values"), 32 * sizes)
    joined = results["joiner"]
    assert not joined.difference.values.any()
    assert joined.moved.values.min() > 0.1


def test_what_is_claimed_holds(results):
    verdicts = {c.text: c.judge(results)["verdict"] for c in one_byte.CLAIMS}
    assert set(verdicts.values()) == {"holds"}, verdicts
