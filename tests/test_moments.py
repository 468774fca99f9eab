"""Second moments of outer loops against sampled NumPy loops, and the laws of their modes."""

from typing import Any

import numpy as np
import pytest

from jaxdopt.theory import Moments, mode_rate, server_edge

SPECTRUM = (1.0, 0.4, 0.1)


def sampled(rounds, replicas, *, K, M, B, eta, eta_o, mu, sigma):
    """Return means of φ², φv and v² after every round, of many replicas of the loop."""
    random, root = np.random.default_rng(0), np.sqrt(SPECTRUM)
    phi, v, found = np.ones((replicas, 3)), np.zeros((replicas, 3)), []
    for _ in range(rounds):
        ends = []
        for _ in range(M):
            y = phi.copy()
            for _ in range(K):
                a = root * random.standard_normal((replicas, B, 3))
                b = sigma * random.standard_normal((replicas, B))
                y -= eta * np.einsum("rbd,rb->rd", a, np.einsum("rbd,rd->rb", a, y) - b) / B
            ends.append(y)
        delta = phi - np.mean(ends, axis=0)
        v = mu * v + delta
        phi = phi - eta_o * (delta + mu * v)
        found.append(np.concatenate([np.mean(w, axis=0) for w in (phi**2, phi * v, v**2)]))
    return np.array(found)


@pytest.mark.parametrize("workers", [1, 3])
def test_moments_are_those_of_sampled_loops(workers):
    numbers: Any = {"local_steps": 2, "workers": workers, "server_stepsize": 0.8, "momentum": 0.5}
    theory = Moments(SPECTRUM, 0.3, **numbers, batch=2, noise=0.7)
    matrix, added = theory.system
    z, expected = np.repeat([1.0, 0.0, 0.0], 3), []
    for _ in range(3):
        z = matrix @ z + added
        expected.append(z)
    found = sampled(3, 40_000, K=2, M=workers, B=2, eta=0.3, eta_o=0.8, mu=0.5, sigma=0.7)
    np.testing.assert_allclose(found, expected, rtol=0.03, atol=2e-3)
    risks = np.concatenate([[0.75], np.array(expected)[:, :3] @ SPECTRUM / 2])
    np.testing.assert_allclose(theory.risks(3), risks, rtol=1e-12)
    assert theory.risks(2000)[-1] == pytest.approx(theory.floor, rel=1e-9)


def test_sgd_of_one_number_is_in_closed_form():
    h, eta, batch, sigma = 0.7, 0.4, 4, 1.3
    one = Moments((h,), eta, batch=batch, noise=sigma)
    kept = (1 - eta * h) ** 2 + 2 * (eta * h) ** 2 / batch
    assert one.rate == pytest.approx(-np.log(kept))
    noise = eta**2 * sigma**2 * h / batch
    assert one.floor == pytest.approx(h / 2 * noise / (1 - kept))
    assert Moments((h,), 3.0, batch=batch).floor == np.inf


def test_workers_of_one_step_are_one_with_all_samples():
    numbers: Any = {"server_stepsize": 0.6, "momentum": 0.5}
    one = Moments(SPECTRUM, 0.3, **numbers, batch=8)
    four = Moments(SPECTRUM, 0.3, **numbers, batch=2, workers=4)
    np.testing.assert_allclose(one.system[0], four.system[0], rtol=1e-12)
    np.testing.assert_allclose(one.system[1], four.system[1], rtol=1e-12)
    more = [
        Moments(SPECTRUM, 0.3, local_steps=4, batch=8 // n, workers=n).floor for n in (1, 2, 4, 8)
    ]
    assert np.all(np.diff(more) > 0)


@pytest.mark.parametrize("nesterov", [True, False])
def test_the_law_is_where_modes_leave_the_unit_circle(nesterov):
    for mu in (0.0, 0.3, 0.9):
        edge = server_edge(mu, 1 - 0.8**5, nesterov=nesterov)
        numbers = {"local_steps": 5, "momentum": mu, "nesterov": nesterov}
        inside = mode_rate(0.2, server_stepsize=0.999 * edge, **numbers)
        beyond = mode_rate(0.2, server_stepsize=1.001 * edge, **numbers)
        assert inside > 0 > beyond


def test_slow_modes_are_faster_by_both_momenta():
    slow = np.array([1e-6, 2e-6])
    numbers: Any = {"local_steps": 4, "server_stepsize": 0.7}
    np.testing.assert_allclose(mode_rate(slow, local_steps=4), slow, rtol=1e-4)
    own = mode_rate(slow, **numbers, momentum=0.8, local_momentum=0.5)
    np.testing.assert_allclose(own / slow, 0.7 / (0.2 * 0.5), rtol=1e-3)


def test_a_spectrum_is_positive():
    with pytest.raises(ValueError, match=r"spectrum is \(1.0, 0.0\); give positive eigenvalues"):
        Moments((1.0, 0.0), 0.1)
    with pytest.raises(ValueError, match="workers"):
        Moments((1.0,), 0.1, workers=0)
