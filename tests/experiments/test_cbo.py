"""The study of swarms: how many runs find the global minimum, and on which graphs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import cbo


def test_rastrigin_has_its_global_minimum_at_0_and_others_near_whole_numbers():
    slope = jax.grad(cbo.rastrigin)
    assert cbo.rastrigin(jnp.zeros(2)) == 0
    np.testing.assert_allclose(slope(jnp.zeros(2)), 0, atol=1e-12)
    near = jnp.array([0.995, 0.0])
    assert slope(near - 0.01)[0] < 0 < slope(near + 0.01)[0]
    curvature = jax.hessian(cbo.rastrigin)(jnp.zeros(2))
    np.testing.assert_allclose(curvature, cbo.LIPSCHITZ * np.eye(2), atol=1e-9)


@pytest.mark.slow
def test_what_is_claimed_holds():
    results = cbo.STUDY.results("quick")
    verdicts = {claim.text: claim.judge(results)["verdict"] for claim in cbo.CLAIMS}
    assert set(verdicts.values()) == {"holds", "not judged"}
    found = results["success"].success.mean("seed")
    assert float(found.sel(particles=25).max()) < float(found.sel(particles=200).max())
    # the basin of 0 is |x| < 0.5 in each coordinate, of N(2, 2²)
    inside = np.mean(
        np.all(np.abs(2 + 2 * np.random.default_rng(0).standard_normal((10**6, 2))) < 0.5, 1)
    )
    descents = results["descent"].error < cbo.CLOSE
    assert float(descents.mean()) == pytest.approx(inside, abs=3 * np.sqrt(inside / descents.size))
