"""Matrix factorization: loops over entries, who is given what, and a matrix found again."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdopt as jd

RANDOM = np.random.default_rng(0)
ROWS = np.array([0, 0, 1, 2, 2, 2, 3, 4])
COLUMNS = np.array([0, 2, 1, 0, 1, 2, 2, 0])
VALUES = RANDOM.standard_normal(8)


def test_objective_and_gradients_are_loops_over_entries():
    parts = [[0, 1, 2], [3, 4, 5, 6], [7]]
    problem = jd.problems.matrix_factorization(
        ROWS, COLUMNS, VALUES, rank=2, partition=parts, l2=0.3, weights="samples"
    )
    assert (problem.n, problem.d) == (3, (5 + 3) * 2)
    shares = 3 * np.array([3, 4, 1]) / 8
    x = RANDOM.standard_normal((3, 16))
    got = jax.jit(problem.grad)(x)
    for i, part in enumerate(parts):
        left, right = x[i][:10].reshape(5, 2), x[i][10:].reshape(3, 2)
        slopes = {"left": 0.3 * left, "right": 0.3 * right}
        for j in part:
            r, c = ROWS[j], COLUMNS[j]
            error = (left[r] @ right[c] - VALUES[j]) / len(part)
            slopes["left"][r] = slopes["left"][r] + error * right[c]
            slopes["right"][c] = slopes["right"][c] + error * left[r]
        expected = shares[i] * np.concatenate([slopes["left"].ravel(), slopes["right"].ravel()])
        np.testing.assert_allclose(got[i], expected, atol=1e-13)
    same = problem.start(problem.unravel(jnp.asarray(x[0])))
    mean = jax.jit(problem.grad)(same).mean(axis=0)
    np.testing.assert_allclose(mean, jax.jit(jax.grad(problem.objective))(x[0]), atol=1e-13)


def test_by_label_gives_every_agent_rows_of_its_own():
    rows, columns = np.divmod(RANDOM.permutation(40), 5)  # 8 rows of 5 entries
    problem = jd.problems.matrix_factorization(
        rows, columns, rows, rank=1, agents=4, partition="by_label"
    )
    held = [set(np.asarray(part)) for part in problem.data[0]]
    assert held == [{0, 1}, {2, 3}, {4, 5}, {6, 7}]


@pytest.mark.slow
def test_a_matrix_of_low_rank_is_found_from_some_of_its_entries():
    left, right = RANDOM.standard_normal((15, 2)), RANDOM.standard_normal((10, 2))
    matrix = left @ right.T
    seen = RANDOM.random(matrix.shape) < 0.7
    rows, columns = np.nonzero(seen)
    problem = jd.problems.matrix_factorization(rows, columns, matrix[seen], rank=2, agents=4)
    result = jd.run(
        jd.GradientTracking(2.0),
        problem,
        jd.networks.metropolis(jd.graphs.ring(4)),
        problem.start(),
        jax.random.key(0),
        steps=4000,
        every=4000,
    )
    found = problem.unravel(result.state.x[0])
    np.testing.assert_allclose(found["left"] @ found["right"].T, matrix, atol=1e-3)
    start = problem.unravel(problem.start()[0])
    assert np.abs(start["left"] @ start["right"].T - matrix).max() > 1
