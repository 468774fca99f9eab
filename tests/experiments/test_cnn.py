"""The study of a convolutional network: its data, and that exact methods learn."""

import numpy as np
import pytest

import jaxdopt as jd
from experiments import cnn


@pytest.fixture(scope="module")
def results():
    """One run of a few steps, on images of 7 x 7 pixels."""
    small = cnn.SCALES["quick"] | {"steps": 20, "channels": (4,), "hidden": 8}
    small |= {"methods": ("GradientTracking",)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(cnn.STUDY.scales, "quick", small)
        return cnn.STUDY.results("quick")


def test_images_are_means_of_blocks():
    pixels = np.random.default_rng(0).random((3, 784))
    images, labels = cnn.scaled(jd.data.Dataset(pixels, np.arange(3)), 7)
    blocks = pixels.reshape(3, 28, 28)
    means = np.array([[[blocks[k, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4].mean() for j in range(7)]
                       for i in range(7)] for k in range(3)])  # fmt: skip
    expected = (means - means.mean()) / means.std()
    np.testing.assert_allclose(images, expected.reshape(3, 49), rtol=1e-5, atol=1e-5)
    assert (images.dtype, labels.tolist()) == (np.float32, [0, 1, 2])


@pytest.mark.slow
@pytest.mark.long
def test_agents_and_one_machine_have_the_same_data_and_start(results):
    spread, whole = results.world.spread, results.world.whole
    assert int(spread.problem.sizes.sum()) == int(whole.problem.sizes.sum())
    np.testing.assert_array_equal(spread.start()[0], whole.start()[0])
    assert spread.batch * cnn.AGENTS == whole.batch


@pytest.mark.slow
def test_the_figure_and_the_claims(results):
    accuracies = cnn.with_one(results).accuracy.mean("seed")
    assert float(accuracies.isel(step=0).max()) < 0.25
    assert float(accuracies.isel(step=-1).min()) > float(accuracies.isel(step=0).max())
    assert cnn.CLAIMS[0].judge(results)["verdict"] == "not judged"
    assert len(cnn.STUDY.figures["cnn"].draw(results).axes) == 4
