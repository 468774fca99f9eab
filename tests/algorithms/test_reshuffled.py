"""Random reshuffling over networks: orders, means, and what stationary errors depend on."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdopt as jd
from jaxdopt.algorithms.reshuffling import epochs

N, M, KEY = 8, 6, jax.random.key(9)
RING = jd.networks.lazy_metropolis(jd.graphs.ring(N))


def tilted(zeta):
    """Least squares whose local gradients are shifted by ζ cᵢ, Σᵢ cᵢ = 0: the labels carry it."""
    random = np.random.default_rng(5)
    features = random.standard_normal((N, M, 3))
    labels = random.standard_normal((N, M))
    shift = random.standard_normal((N, 3))
    shift -= shift.mean(axis=0)

    def loss(x, sample):
        row, label, tilt = sample
        return 0.5 * (row @ x - label) ** 2 + tilt @ x

    tilts = np.broadcast_to(zeta * shift[:, None], (N, M, 3))
    data = tuple(jnp.asarray(a) for a in (features, labels, tilts))
    return jd.problems.FiniteSum(loss, data, jnp.zeros(3)).solved()


@pytest.fixture(scope="module")
def problems():
    """Three tilts of one structure, so that they share programs."""
    return {zeta: tilted(zeta) for zeta in (0.0, 10.0, 100.0)}


def stationary(method, problem, epochs=800, seeds=2):
    """Mean of (1/n) Σ |xᵢ − x*|² at the starts of epochs, from x*, the first half left out."""
    history = jd.sweep(jd.run, over=("key",))(
        method, problem, RING, problem.start(problem.solution), jax.random.split(KEY, seeds),
        steps=epochs * M, every=M,
    ).history  # fmt: skip
    return (history["distance_squared"] + history["consensus_error"])[:, epochs // 2 :].mean()


@pytest.mark.parametrize("method", [jd.GTRR, jd.EDRR])
@pytest.mark.slow
def test_a_linear_tilt_does_not_matter_where_the_heterogeneity_is_tracked(method, problems):
    """With carry the stationary error is flat in ζ; D-RR's grows as ζ², and restart's grows."""
    plain, some, much = (stationary(method(0.01), p) for p in problems.values())
    assert some == pytest.approx(plain, rel=0.01)
    assert much == pytest.approx(plain, rel=0.01)
    restarted = [stationary(method(0.01, restart=True), p) for p in problems.values()]
    assert restarted[2] > 30 * restarted[1] > 30 * restarted[0]
    some, much = (stationary(jd.DRR(0.01), problems[zeta]) for zeta in (10.0, 100.0))
    assert much / some == pytest.approx(100, rel=0.1)


@pytest.mark.slow
def test_the_error_falls_with_the_square_of_the_stepsize_and_dsgds_with_the_stepsize(problems):
    problem = problems[0.0]
    stepsizes = jnp.array([0.02, 0.01, 0.005])
    keys = jax.random.split(KEY, 6)

    def errors(method, world):
        history = jd.sweep(jd.run, over=("algorithm", "key"))(
            jax.vmap(method)(stepsizes), world, RING, problem.start(problem.solution), keys,
            steps=1000 * M, every=M,
        ).history  # fmt: skip
        return history["distance_squared"][:, :, 400:].mean(axis=(1, 2))

    dsgd = errors(jd.DSGD, jd.problems.Minibatch(problem, 1))
    assert np.all((dsgd[:-1] / dsgd[1:] > 1.6) & (dsgd[:-1] / dsgd[1:] < 2.6))
    for method in (jd.DRR, jd.GTRR, jd.EDRR):
        error = errors(method, problem)
        assert np.all(error[:-1] / error[1:] > 3.0)
        assert np.all(error[1:] < dsgd[1:] / 5)


@pytest.mark.parametrize(
    "method", [jd.DRR, *(pytest.param(m, marks=pytest.mark.slow) for m in (jd.GTRR, jd.EDRR))]
)
def test_every_sample_once_an_epoch_in_orders_of_their_own(method, problems):
    """And the mean follows the mean component gradient: x̄⁺ = x̄ − α mean g."""
    problem = problems[10.0]
    metrics = {"x": lambda s, p: s.x, "order": lambda s, p: s.passes.order}
    rule = method(0.01)
    history = jd.run(
        rule, problem, RING, problem.start(), KEY, steps=3 * M, metrics=metrics
    ).history
    orders = history["order"][M::M]  # as they stand at the ends of epochs
    for epoch in orders:
        assert all(sorted(own) == list(range(M)) for own in epoch.tolist())
    assert len({tuple(own) for epoch in orders for own in epoch.tolist()}) > 2 * N
    for k in range(3 * M):
        x = jnp.asarray(history["x"][k])
        g = problem.grad_at(x, jnp.asarray(orders[k // M][:, k % M]))
        expected = (x - 0.01 * g).mean(axis=0)
        np.testing.assert_allclose(history["x"][k + 1].mean(axis=0), expected, atol=1e-13)


SIZES = {
    "even": ([12] * N, 1),
    "nearly even": ([11, 12] * (N // 2), 1),
    "uneven": ([3, 12, 5, 7, 10, 4, 8, 12], 1),
    "even, with leftovers": ([12] * N, 5),
    "uneven, with leftovers": ([3, 12, 5, 7, 10, 4, 8, 12], 3),
}


def batches(problem, batch):
    return problem if batch == 1 else jd.problems.Minibatch(problem, batch)


def taken(problem, steps, sampling: Any = "reshuffle", key=KEY):
    """How often an agent has taken each sample after each step, [steps, n, m].

    Gradients say which samples they are of: the j-th sample's is the j-th unit vector.
    """

    def step(carry, k):
        passes, seen = carry
        x = jnp.zeros((problem.n, problem.d))
        g, passes = epochs.gradient(problem, passes, sampling, jax.random.fold_in(key, k), x)
        seen = seen + epochs.batch_size(problem) * g
        return (passes, seen), seen

    start = (epochs.begin(problem, sampling, key), jnp.zeros((problem.n, problem.d)))
    return np.round(jax.lax.scan(step, start, jnp.arange(steps))[1], 6)


def told(sizes):
    rows = [np.eye(max(sizes))[:m] for m in sizes]
    return jd.problems.FiniteSum(lambda x, row: row @ x, rows, jnp.zeros(max(sizes)))


@pytest.mark.parametrize("sampling", ["reshuffle", "once", "cyclic"])
@pytest.mark.parametrize("case", SIZES)
@pytest.mark.slow
def test_agents_end_their_own_passes_and_nothing_is_left_out(case, sampling):
    """After t samples an agent has taken each of its m ⌊t/m⌋ times, t mod m of them once more."""
    sizes, batch = SIZES[case]
    seen = taken(batches(told(sizes), batch), 40, sampling)
    for k, i in np.ndindex(40, N):
        whole, more = divmod((k + 1) * batch, sizes[i])
        own = seen[k, i, : sizes[i]]
        assert sorted(own) == [whole] * (sizes[i] - more) + [whole + 1] * more
        assert np.all(seen[k, i, sizes[i] :] == 0)  # padding is no sample


def test_orders_are_uniform_and_independent_of_those_before():
    """Two passes of 3 samples in 36 pairs of orders, by 4,000 agents: a chi-squared statistic."""
    n = 4_000
    problem = told([3] * n)
    seen = taken(problem, 6)
    steps = np.diff(seen, axis=0, prepend=0).argmax(axis=2)  # [6, n]: the sample of each step
    places = (steps * 3 ** np.arange(6)[:, None]).sum(axis=0)
    counts = np.unique(places, return_counts=True)[1]
    assert len(counts) == 36
    assert ((counts - n / 36) ** 2 / (n / 36)).sum() < 75  # 35 degrees; beyond with 1 in 10,000


@pytest.mark.slow
@pytest.mark.parametrize("case", SIZES)
def test_the_exponent_of_the_stepsize_where_data_are_uneven(case):
    """|x̄ − x*|² ~ α³ where all agents' passes end together (even data), and α² otherwise.

    With independent samples it is α, and so it is if a pass leaves out samples, or takes some
    twice, as when agents go by the epochs of the largest of them or by whole batches.
    """
    sizes, batch = SIZES[case]
    random = np.random.default_rng(5)
    features = [random.standard_normal((m, 3)) + i / N for i, m in enumerate(sizes)]
    labels = [random.standard_normal(m) for m in sizes]
    problem = jd.problems.least_squares(features, labels, l2=0.1)
    stepsizes = np.array([0.02, 0.01, 0.005]) * N / float(problem.smoothness)
    history = jd.sweep(jd.run, over=("algorithm", "key"))(
        jax.vmap(jd.CentralizedRR)(jnp.asarray(stepsizes)), batches(problem, batch), RING,
        problem.start(problem.solution), jax.random.split(KEY, 6), steps=3600,
        every=12 if case == "even" else 5,
    ).history  # fmt: skip
    distance = history["distance_squared"]
    errors = distance[:, :, distance.shape[2] // 3 :].mean(axis=(1, 2))
    exponent = np.polyfit(np.log(stepsizes), np.log(errors), 1)[0]
    assert exponent > (2.8 if case == "even" else 1.8)


@pytest.mark.slow
def test_stepsizes_by_epochs():
    """α changes where an epoch begins, and nowhere else."""
    problem = tilted(1.0)
    schedule = jd.schedules.PerEpoch(jd.schedules.InverseTime(0.1, offset=5.0), M)
    run: Any = {"steps": 2 * M, "every": M}
    whole = jd.run(jd.DRR(schedule), problem, RING, problem.start(), KEY, **run)
    first = jd.run(jd.DRR(0.1 / 5), problem, RING, problem.start(), KEY, steps=M)
    second = jd.run(jd.DRR(0.1 / 6), problem, RING, None, KEY, steps=M, state=first.state, start=M)
    np.testing.assert_allclose(whole.state.x, second.state.x, atol=1e-14)


def test_reshuffling_refuses_what_it_cannot_do():
    problem = jd.problems.quadratic(N, 2)
    for method in (jd.DRR, jd.GTRR, jd.EDRR):
        with pytest.raises(ValueError, match="give 'reshuffle', 'once' or 'cyclic'"):
            method(0.1, sampling="random")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="Quadratic has no samples to draw from"):
            jd.run(method(0.1), problem, RING, problem.start(), KEY, steps=1)
    directed = jd.networks.metropolis(jd.graphs.directed_ring(N))
    world = tilted(0.0)
    with pytest.raises(ValueError, match="EDRR needs a symmetric W"):
        jd.run(jd.EDRR(0.1), world, directed, world.start(), KEY, steps=1)


@pytest.mark.parametrize("method", [jd.GTRR, jd.EDRR])
@pytest.mark.parametrize(
    ("case", "have"),
    [("uneven", "uneven data"), ("even, with leftovers", "12 samples each for batches of 5")],
)
def test_restart_needs_epochs_that_end_together(method, case, have):
    sizes, batch = SIZES[case]
    problem = batches(told(sizes), batch)
    sentence = f"restart is True and agents have {have}.*, a multiple of the batch, or restart=Fals"
    with pytest.raises(ValueError, match=sentence):
        method(0.1, restart=True).init(problem.start(), problem, RING, KEY)
    with pytest.raises(ValueError, match=sentence):
        jd.run(method(0.1, restart=True), problem, RING, problem.start(), KEY, steps=1)
