"""The study of deep gradient compression."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdopt as jd
from experiments import dgc
from experiments.study import Results, joined


def test_least_squares_has_its_solution_and_unlike_clients():
    problem = dgc.least_squares(2.0)
    gradients = problem.grad(jnp.broadcast_to(problem.solution, (problem.n, problem.d)))
    np.testing.assert_allclose(gradients.mean(axis=0), 0, atol=1e-12)
    assert jnp.linalg.norm(gradients, axis=1).min() > 1
    np.testing.assert_allclose(problem.hessians[:, 3, 3], np.arange(1, 6) ** 2 / 5)
    assert float(problem.smoothness) == pytest.approx(5)
    assert float(problem.strong_convexity) == pytest.approx(11 / 5)


def test_the_density_falls_in_four_epochs():
    falls = dgc.warming(0.001)
    seen = [float(falls(k)) for k in (0, 11, 12, 24, 36, 48, 900)]
    np.testing.assert_allclose(seen, [0.25, 0.25, 0.0625, 0.015625, 0.00390625, 0.001, 0.001])


def test_gradient_dropping_of_whole_messages_is_momentum_sgd():
    problem, server = dgc.least_squares(1.0), jd.networks.Server(5)
    setting = problem, server, problem.start(), jax.random.key(0)
    one = dgc.GradientDropping(0.01, jd.compressors.Identity())
    two = jd.DGC(0.01, jd.compressors.Identity(), dgc.MOMENTUM, masking=False)
    ends = [jd.run(method, *setting, steps=30).state.server for method in (one, two)]
    np.testing.assert_allclose(*ends, rtol=1e-12)


@pytest.mark.slow
def test_the_bias_of_masking_stays():
    world = SimpleNamespace(seed=0, stepsizes=(2e-3, 5e-4, 1.25e-4))
    found = Results(world, "default")
    programs = dgc.bias(world, None)
    found["bias"] = joined(
        {at: each.run() for at, each in programs.items()}, ("stepsize", "masking")
    )
    for claim in dgc.CLAIMS[2:]:
        judged = claim.judge(found)
        assert judged["verdict"] == "holds", judged
