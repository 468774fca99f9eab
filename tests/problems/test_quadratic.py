"""Quadratics have the condition number, the heterogeneity and the solution they were asked for."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxdopt as jd


@settings(max_examples=25, deadline=None)
@given(
    agents=st.integers(2, 7),
    d=st.integers(2, 6),
    condition=st.floats(1, 1e4),
    smoothness=st.floats(0.01, 100),
    zeta=st.floats(0, 50),
    spread=st.floats(0, 0.9),
    seed=st.integers(0, 1000),
)
def test_what_was_asked_for(agents, d, condition, smoothness, zeta, spread, seed):
    wanted = np.arange(1.0, d + 1)
    problem = jd.problems.quadratic(
        agents,
        d,
        condition_number=condition,
        smoothness=smoothness,
        heterogeneity=zeta,
        curvature_spread=spread,
        solution=wanted,
        seed=seed,
    )
    values = np.linalg.eigvalsh(np.asarray(problem.hessians.mean(axis=0)))
    np.testing.assert_allclose(values[-1] / values[0], condition, rtol=1e-6)
    np.testing.assert_allclose(values[-1], smoothness, rtol=1e-9)
    np.testing.assert_allclose(problem.strong_convexity, values[0], rtol=1e-6)
    tops = [np.linalg.eigvalsh(np.asarray(h)) for h in problem.hessians]
    np.testing.assert_allclose(problem.smoothness, max(t[-1] for t in tops), rtol=1e-9)
    assert min(t[0] for t in tops) > 0
    there = np.asarray(problem.grad(problem.start(wanted)))
    np.testing.assert_allclose(np.mean(np.sum(there**2, axis=1)), zeta**2, rtol=1e-9, atol=1e-25)
    np.testing.assert_allclose(there.mean(axis=0), 0, atol=1e-13 * (1 + zeta))
    assert problem.objective(problem.solution) == problem.optimum == 0


def test_gradients_are_the_objectives():
    problem = jd.problems.quadratic(5, 3, curvature_spread=0.5)
    x = jnp.asarray(np.random.default_rng(0).standard_normal(3))
    mean = problem.grad(jnp.broadcast_to(x, (5, 3))).mean(axis=0)
    np.testing.assert_allclose(mean, jax.grad(problem.objective)(x), atol=1e-13)
    part = problem.take(jnp.array([4, 1]))
    rows = jnp.broadcast_to(x, (5, 3))
    np.testing.assert_allclose(part.grad(rows[:2]), problem.grad(rows)[jnp.array([4, 1])])


def test_the_mean_feels_the_network_by_default():
    """DGD's mean is gradient descent's where all Hessians are the same, and only there."""
    network = jd.networks.metropolis(jd.graphs.ring(5))
    options: dict[str, Any]
    for options, same in (({}, False), ({"curvature_spread": 0.0}, True)):
        problem = jd.problems.quadratic(5, 3, **options)
        start = jnp.asarray(np.random.default_rng(1).standard_normal((5, 3)))
        key = jax.random.key(0)
        result = jd.run(jd.DGD(0.3), problem, network, start, key, steps=20)
        x, mean = np.asarray(start).mean(axis=0), np.asarray(problem.hessians).mean(axis=0)
        for _ in range(20):
            x = x - 0.3 * mean @ (x - np.asarray(problem.solution))
        away = np.linalg.norm(np.asarray(result.state.x).mean(axis=0) - x)
        assert (away < 1e-13) if same else (away > 1e-2)


def test_one_agent_has_no_tilt_and_seeds_count():
    assert float(jnp.abs(jd.problems.quadratic(1, 4).tilts).max()) == 0
    same, other = (jd.problems.quadratic(3, 2, seed=s).tilts for s in (0, 1))
    np.testing.assert_array_equal(same, jd.problems.quadratic(3, 2).tilts)
    assert not np.allclose(same, other)
    with pytest.raises(ValueError, match=r"shape \(3,\); give \(4,\) or \(2, 4\)"):
        jd.problems.quadratic(2, 4).start(jnp.ones(3))
