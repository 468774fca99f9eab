"""The study of adaptive optimizers at FedAvg's server."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import server_optimizers


@pytest.fixture(scope="module")
def results():
    """One quick run."""
    return server_optimizers.STUDY.results("quick")


def test_published_adam_is_optaxs_but_for_the_start():
    ours, theirs = (
        server_optimizers.published_adam(),
        server_optimizers.SERVERS["FedAdam (optax)"][0],
    )
    x, delta = jnp.zeros(2), jnp.array([1.0, -0.1])
    first, memory = ours.update(delta, ours.init(x))
    m, v = 0.1 * delta, 0.99e-6 + 0.01 * delta**2
    np.testing.assert_allclose(first, m / (jnp.sqrt(v) + 1e-3), rtol=1e-6)
    corrected, other = theirs.update(delta, theirs.init(x))
    np.testing.assert_allclose(corrected, delta / (abs(delta) + 1e-3), rtol=1e-6)
    for _ in range(2000):
        (late, memory), (same, other) = ours.update(delta, memory), theirs.update(delta, other)
    np.testing.assert_allclose(late, same, rtol=1e-6)
    assert isinstance(theirs, optax.GradientTransformation)


def test_verdicts(results):
    verdicts = [claim.judge(results)["verdict"] for claim in server_optimizers.CLAIMS]
    assert verdicts == ["holds", "not judged"]  # the published FedAdam is not in the quick run
    figure = server_optimizers.STUDY.figures["server_optimizers"]
    assert len(figure.draw(results).axes) == 2
