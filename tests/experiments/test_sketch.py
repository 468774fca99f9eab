"""The study of linear sketches: its attacks on what is known, and its claims."""

import numpy as np
import pytest

from experiments import sketch


def test_random_coordinates_are_a_sketch():
    coordinates, key = sketch.Coordinates(3), sketch.jax.random.key(1)
    r = np.asarray(coordinates.encode(key, sketch.jnp.eye(12))).T
    np.testing.assert_allclose(r @ r.T, 4 * np.eye(3), rtol=1e-12)
    np.testing.assert_allclose(coordinates.decode(key, sketch.jnp.eye(3), 12), r, rtol=1e-12)
    assert (coordinates.omega(12), coordinates.bits(12)) == (3.0, 96)


@pytest.fixture(scope="module")
def results():
    """One quick run."""
    return sketch.STUDY.results("quick")


def test_no_claim_is_refuted(results):
    verdicts = {claim.text: claim.judge(results)["verdict"] for claim in sketch.CLAIMS}
    assert set(verdicts.values()) == {"holds", "not judged"}
    assert list(verdicts.values()).count("not judged") == 1


def test_messages_tell_samples_by_least_squares_and_by_descent(results):
    linear = results["leakage"].cosine
    np.testing.assert_allclose(linear.sel(s=32, noise=0), 1, atol=1e-6)
    assert (linear.diff("noise") < 0).all()
    assert (linear.diff("s") > 0).all()
    assert (results["leakage"].message.sel(s=32, sketch="SRHT") > 0.99).all()
    deep = results["inversion"].cosine.sel(s=32)
    assert deep[0] > 0.95 > deep[-1] + 0.3


def test_fewer_bits_by_twice_the_stepsize_of_the_law(results):
    ratio = sketch.relative(results)
    assert (ratio.sel(multiple=2) < ratio.sel(multiple=1)).all()
    assert (ratio.sel(multiple=8) == np.inf).all()
