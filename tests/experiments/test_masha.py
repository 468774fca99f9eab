"""The study of MASHA: naive compression of a game's operators stops, differences go on."""

import numpy as np
import pytest

from experiments import masha


@pytest.fixture(scope="module")
def results():
    """One quick run."""
    return masha.STUDY.results("quick")


def test_stepsizes_of_theory_are_those_of_the_notes():
    np.testing.assert_allclose(masha.theory(10), 0.1147, atol=1e-4)
    np.testing.assert_allclose(masha.theory(10, 10), 0.0363, atol=1e-4)
    assert masha.METHODS["MASHA2"].stepsize == pytest.approx(0.0158, abs=1e-4)


def test_what_is_claimed_holds(results):
    verdicts = {c.text: c.judge(results)["verdict"] for c in masha.CLAIMS}
    assert set(verdicts.values()) == {"holds", "not judged"}
    assert list(verdicts.values()).count("holds") >= 4


def test_costs_are_counted_in_both_directions(results):
    """A whole downlink is dense in every step, besides full exchanges, of one in ten on average."""
    last = results["notes"].isel(step=-1, seed=0)
    steps, whole = 6000, 32 * 2 * masha.EACH
    of = last.sel(algorithm="MASHA1")
    full = float(of.bits_down) / whole - steps
    assert abs(full / steps - 0.1) < 0.02
    up = steps * masha.RAND.bits(2 * masha.EACH) + full * whole
    np.testing.assert_allclose(float(of.bits_up), up, rtol=1e-6)
    plain = last.sel(algorithm=masha.PLAIN)
    assert float(plain.bits_up) == float(plain.bits_down) == 2 * steps * whole


def test_the_equilibrium_of_the_generator_is_known(results):
    game = results.world.gan
    assert float(np.abs(game.operator(game.solution)).max()) < 1e-12
    errors = results["gan"].error.isel(seed=0)
    assert float(errors.sel(algorithm=masha.NAIVE).isel(step=-1)) > 10 * float(
        errors.sel(algorithm="MASHA1").isel(step=-1)
    )
