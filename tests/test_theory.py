"""What theory says against independent formulas, and against what is measured."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdopt as jd
from experiments.catalogue import methods
from jaxdopt.theory import theorems

KEY = jax.random.key(0)
N = 8
RING = jd.networks.metropolis(jd.graphs.ring(N))  # eigenvalues down to -1/3
Constants = jd.theory.Constants


def quadratic(spread, **options):
    return jd.problems.quadratic(N, 2, curvature_spread=spread, **options)


class TestConstants:
    def test_of_quadratics_and_a_ring(self):
        problem = quadratic(0.5, heterogeneity=2.0)
        got = Constants.of(problem, RING)
        hessians = np.asarray(problem.hessians)
        values = np.linalg.eigvalsh(hessians)
        shift = np.roll(np.eye(N), 1, axis=0)
        w = np.sort(np.linalg.eigvalsh((np.eye(N) + shift + shift.T) / 3))
        assert pytest.approx(values.max()) == got.L
        assert got.mu == pytest.approx(np.linalg.eigvalsh(hessians.mean(axis=0)).min())
        assert got.least == pytest.approx(values.min())
        assert got.least < got.mu
        assert (got.n, got.sigma) == (N, 0)
        assert got.zeta == pytest.approx(2.0)
        assert got.smallest == pytest.approx(w[0])
        assert got.gap == pytest.approx(1 - w[-2])
        assert got.own == pytest.approx(1 / 3)

    def test_noise_is_that_of_the_gradients_at_the_solution(self):
        random = np.random.default_rng(0)
        features, labels = random.standard_normal((3, 5, 2)), random.standard_normal((3, 5))
        problem = jd.problems.least_squares(features, labels, l2=0.1)
        x = np.asarray(problem.solution)
        each = (features @ x - labels)[:, :, None] * features + 0.1 * x
        square = np.mean(np.sum((each - each.mean(axis=1, keepdims=True)) ** 2, axis=2))
        got = Constants.of(jd.problems.Minibatch(problem, 4))
        assert got.sigma**2 == pytest.approx(square / 4)
        assert got.zeta**2 == pytest.approx(np.mean(np.sum(each.mean(axis=1) ** 2, axis=1)))
        assert got.least == pytest.approx(0.1)
        assert Constants.of(problem).sigma == 0
        assert Constants.of(problem, draws=True).sigma ** 2 == pytest.approx(square)
        noisy = jd.problems.GaussianNoise(jd.problems.Minibatch(problem, 4), 0.5)
        assert Constants.of(noisy).sigma ** 2 == pytest.approx(square / 4 + 0.25)

    def test_what_is_not_known_stays_none(self):
        got = Constants.of(quadratic(0.5), jd.networks.RandomLinks(RING, 0.5))
        assert got.gap is None
        assert got.smallest is None
        directed = Constants.of(quadratic(0.5), jd.networks.metropolis(jd.graphs.directed_ring(N)))
        assert directed.gap > 0
        assert directed.smallest is None
        assert Constants.of(quadratic(0.5), jd.networks.spanning_tree(jd.graphs.ring(N))).delay == 8


def small(theory):
    return {name: float(claim) for name, claim in theory.claims.items() if claim.value is not None}


ALPHA, C = 0.2, Constants(L=2.0, mu=0.5, least=0.4, sigma=3.0, zeta=1.5, n=16, gap=0.1,
                          smallest=-0.3, own=0.25)  # fmt: skip
QUIET = dataclasses.replace(C, sigma=0.0)
FORMULAS = [
    (jd.GradientDescent(ALPHA), C, {"stepsize": 0.8, "edge": 1.0, "rate": 0.9, "error": 0.225}),
    (jd.SGD(ALPHA), C, {"error": 0.2 * 9 / 8, "decay": -1}),
    (jd.DGD(ALPHA), QUIET, {"stepsize": 0.35, "edge": 0.35, "rate": 0.92, "error": 9.0}),
    (jd.DGD(0.8), QUIET, {"stepsize": 0.35, "edge": 0.35, "rate": 1.9, "error": 144.0}),
    (jd.DSGD(ALPHA), QUIET, {"stepsize": 1.0, "edge": 1.0, "rate": 0.92, "transient": 1600,
                             "error": 9 * 0.81, "decay": -1}),
    (jd.LocalDSGD(ALPHA, 2), C, {"stepsize": 1.0, "edge": 1.0, "rate": 0.92**2}),
    (jd.OLDSGD(ALPHA, 2), C, {"stepsize": (1 - 0.3**0.5) / 2, "edge": (1 - 0.3**0.5) / 2}),
    (jd.EXTRA(ALPHA), QUIET, {"stepsize": 0.35, "edge": (5 - 0.9) / 8, "error": 0}),
    (jd.PGEXTRA(ALPHA), QUIET, {"stepsize": 0.35, "edge": (5 - 0.9) / 8, "error": 0}),
    (jd.NIDS(ALPHA), QUIET, {"stepsize": 1.0, "edge": 1.0, "rate": 0.95**0.5, "error": 0}),
    (jd.ExactDiffusion(ALPHA, 0.25), QUIET, {"stepsize": 1.0, "edge": 1.0, "rate": 0.975**0.5,
                                             "transient": 160, "error": 0, "decay": -1}),
    (jd.ExactDiffusion(ALPHA, 1.0), QUIET, {"edge": 1.0, "transient": 160, "error": 0,
                                            "decay": -1}),
    (jd.LinearizedADMM(ALPHA), QUIET, {"stepsize": 1.0, "error": 0}),
    (jd.GradientTracking(ALPHA), QUIET, {"edge": 1.0, "error": 0}),
    (jd.DIGing(ALPHA), QUIET, {"edge": 0.7**2 / 4, "error": 0}),
    (jd.ATCGT(ALPHA), QUIET, {"edge": 1.0, "error": 0}),
    (jd.ADSGD(ALPHA), C, {"stepsize": 0.5 / 2.4, "rate": 0.92}),
    (jd.ADSGD(0.21), C, {"stepsize": 0.5 / 2.4}),
    (jd.FedAvg(ALPHA, local_steps=3), QUIET, {"stepsize": 1.0, "edge": 1.0, "rate": 0.92**3,
                                              "error": (0.2 * 2 * 2 * 1.5) ** 2}),
    (jd.DRR(ALPHA), C, {"error": 9.0, "decay": -2}),
    (jd.GTRR(ALPHA), C, {"error": 0.04, "decay": -2}),
    (jd.EDRR(ALPHA), C, {"error": 0.04, "decay": -2}),
    (jd.CentralizedRR(ALPHA), C, {"error": 0.04, "decay": -2}),
    (jd.APD(ALPHA), C, {"decay": -2}),
    (jd.APDSC(ALPHA), C, {"rate": 0.5}),
    (jd.STPP(ALPHA), dataclasses.replace(C, delay=2.0), {"stepsize": 1 / 32, "transient": 4096}),
]  # fmt: skip


@pytest.mark.parametrize(("method", "constants", "expected"), FORMULAS, ids=lambda x: str(x)[:20])
def test_values_are_those_of_the_formulas_by_hand(method, constants, expected):
    assert small(jd.theory.of(method, constants)) == pytest.approx(expected)


def test_all_methods_with_laws_are_in_the_table_above():
    names = {type(method).__name__ for method, *_ in FORMULAS} | {"CEDAS"}
    assert names == set(jd.theory.METHODS)


def test_transient_of_cedas_grows_with_the_compressors_variance():
    problem, compressor = quadratic(0.5), jd.compressors.RandomK(1)  # ω = d/k - 1 = 1
    theory = jd.theory.of(jd.CEDAS(0.1, compressor), problem, RING)
    assert float(theory.transient) == pytest.approx(N * 8 / RING.spectral_gap**2)


def test_every_claim_has_a_source_a_kind_and_a_text():
    for kind, laws in theorems.LAWS.items():
        fields = [f.name for f in dataclasses.fields(laws) if f.name != "words"]
        known = [law for name in fields if (law := getattr(laws, name)) is not None]
        assert known, kind
        for law in known:
            assert law.source, kind
            assert law.formula, kind
            assert law.kind in ("exact", "sufficient", "order")
            assert law.basis in ("theorem", "abstract", "derived", "measured")
            if law.basis in ("theorem", "abstract"):
                assert re.search(r"\((19|20)\d\d\)", law.source), law
    text = repr(jd.theory.of(jd.EXTRA(0.1), quadratic(0.5), RING))
    assert "sufficient: the fᵢ are convex\n            theorem: Shi, Ling, Wu, Yin" in text


def test_arrays_of_constants_give_arrays():
    gaps = np.array([0.5, 0.1, 0.01])
    constants = Constants(L=1.0, n=4, gap=gaps, smallest=gaps - 1)
    np.testing.assert_allclose(
        jd.theory.of(jd.DSGD, constants).transient.value, 4 / gaps**2, rtol=1e-12
    )
    np.testing.assert_allclose(jd.theory.of(jd.DGD, constants).stepsize.value, gaps, rtol=1e-12)
    assert "array(3,)" in repr(jd.theory.of(jd.DGD, constants))


def modulus(method, alpha, problem):
    """The largest modulus of the step on x alone, or of NIDS's map less what it keeps."""
    w = np.asarray(RING.matrix())
    h = np.zeros((2 * N, 2 * N))
    for i, hessian in enumerate(np.asarray(problem.hessians)):
        h[2 * i : 2 * i + 2, 2 * i : 2 * i + 2] = hessian
    w, one = np.kron(w, np.eye(2)), np.eye(2 * N)
    if method is jd.DGD:
        step = w - alpha * h
    elif method is jd.DSGD:
        step = w @ (one - alpha * h)
    else:
        v = (one + w) / 2
        step = np.block([[v @ (one - alpha * h), -v], [(one - v) @ (one - alpha * h), v]])
    values = np.linalg.eigvals(step)
    kept = np.abs(values - 1) < 1e-7  # two sums of exact diffusion's d
    assert kept.sum() == (2 if method is jd.ExactDiffusion else 0)
    return np.abs(values[~kept]).max()


@pytest.mark.parametrize("method", [jd.DGD, jd.DSGD, jd.ExactDiffusion])
@pytest.mark.parametrize("fraction", [0.1, 0.6, 0.95])
def test_rates_bound_the_spectrum_and_are_it_for_equal_quadratics_where_exact(method, fraction):
    for seed, spread in enumerate((0.0, 0.5, 0.95)):
        problem = quadratic(spread, seed=seed)
        alpha = fraction * float(jd.theory.of(method, problem, RING).stepsize)
        rate = jd.theory.of(method(alpha), problem, RING).rate
        measured = modulus(method, alpha, problem)
        assert measured <= float(rate) * (1 + 1e-9)
        assert float(rate) < 1
        if rate.kind == "exact" and spread == 0:
            assert measured == pytest.approx(float(rate), abs=1e-12)


def test_distances_fall_by_the_rate_in_every_step():
    """|x|² + |s|² of exact diffusion, d = U^½ s, as in the proof; its x alone may grow."""
    problem = quadratic(0.8, seed=3)
    method = jd.ExactDiffusion(1.5 / problem.smoothness)
    rate = float(jd.theory.of(method, problem, RING).rate)
    both = {"both": lambda state, problem: jnp.stack([state.x, state.d])}
    history = jd.run(
        method, problem, RING, problem.start(), KEY, steps=3000, every=1, metrics=both
    ).history["both"]
    u = (np.eye(N) - np.asarray(RING.matrix())) / 2
    inverse = np.linalg.pinv(u, rcond=1e-10)  # |s|² = dᵀ U⁺ d
    x, d = (np.moveaxis(np.asarray(history - history[-1]), 1, 0))[:, 1:200]
    squares = np.sum(x**2, axis=(1, 2)) + np.einsum("knj,nm,kmj->k", d, inverse, d)
    assert np.all(squares[1:] <= squares[:-1] * rate**2 * (1 + 1e-9))
    assert squares[-1] < 0.1 * squares[0]


def test_edges_of_linear_methods_are_the_known_limits():
    problem = quadratic(0.0)
    for method, edge in ((jd.EXTRA, 1.0), (jd.DIGing, 2 / 9)):
        assert jd.theory.edge(method, problem, RING) == pytest.approx(edge, rel=1e-6)
    assert jd.theory.edge(jd.DGD(3.0), problem, RING, largest=0.5) == np.inf
    shift = np.roll(np.eye(N), 1, axis=0)
    heavy = jd.networks.mixing(0.2 * np.eye(N) + 0.4 * (shift + shift.T))
    squared = jd.ExactDiffusion(1.0, relaxation=1.0)  # λ_min = -0.6 < -1/3
    assert jd.theory.edge(squared, problem, heavy) == 0
    theory = jd.theory.of(squared, problem, heavy)
    with pytest.raises(ValueError, match=r"it needs that λ_min\(V\) > −1/3"):
        float(theory.edge)


def test_the_edge_of_a_period_and_of_a_problem_that_is_no_quadratic():
    """Two networks in turns: DSGD is stable below 2/L. Logistic: by the Hessians at x*."""
    problem = quadratic(0.0)
    turns = jd.networks.Cyclic([RING, jd.networks.metropolis(jd.graphs.path(N))])
    assert jd.theory.edge(jd.DSGD, problem, turns, period=2) == pytest.approx(2, rel=1e-6)
    with pytest.raises(ValueError, match="another one for another key or time"):
        jd.theory.edge(jd.DGD, problem, turns)
    random = np.random.default_rng(0)
    features = random.standard_normal((N, 6, 2))
    labels = np.where(random.random((N, 6)) < 0.5, 1, -1)
    logistic = jd.problems.logistic_regression(features, labels, l2=0.1)
    x = np.asarray(logistic.solution)
    p = 1 / (1 + np.exp(-features @ x))
    weighed = features * (p * (1 - p))[:, :, None]
    hessian = np.einsum("nmi,nmj->ij", weighed, features) / (6 * N) + 0.1 * np.eye(2)
    expected = 2 / np.linalg.eigvalsh(hessian).max()
    edge = jd.theory.edge(jd.GradientDescent, logistic, RING, largest=40.0)
    assert edge == pytest.approx(expected, rel=1e-6)


@pytest.mark.slow
def test_measured_edges_are_the_exact_ones_and_never_below_a_bound():
    rows = {row.name: row for row in methods.stability()}
    assert len(rows) == 16
    for name, row in rows.items():
        if row.edge is not None:
            assert row.equal == pytest.approx(float(row.edge), rel=1e-6), name
            assert row.unequal > float(row.edge), name
        if row.bound is not None:
            assert min(row.equal, row.unequal) >= float(row.bound) * (1 - 1e-6), name
        assert name in str(row)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_bounds_hold_on_random_graphs_with_very_unequal_hessians(seed):
    network = jd.networks.metropolis(jd.graphs.erdos_renyi(6, 0.5, seed=seed))
    problem = jd.problems.quadratic(
        6, 3, condition_number=100, curvature_spread=(0.5, 0.9, 0.99)[seed], seed=seed
    )
    for name in ("DGD", "DSGD", "EXTRA", "NIDS", "ExactDiffusion", "LinearizedADMM"):
        method = getattr(jd, name)
        bound = jd.theory.of(method, problem, network).stepsize
        assert jd.theory.edge(method, problem, network) >= float(bound) * (1 - 1e-6), name


CASES = {
    "no theorem": (
        lambda: jd.theory.of(jd.BEER, quadratic(0.0), RING),
        "no theorem on BEER is known here; there are some on ADSGD, APD, ",
    ),
    "no method": (lambda: jd.theory.of("DGD", C), "no theorem on str is known here"),
    "compressor": (lambda: jd.theory.of(jd.CEDAS, C), "depends on its compressor; give an inst"),
    "no network": (
        lambda: jd.theory.of(jd.DGD, quadratic(0.0)),
        "the theorems on DGD are about a network; give the one it runs on",
    ),
    "changing": (
        lambda: jd.theory.of(jd.DGD, quadratic(0.0), jd.networks.RandomLinks(RING, 0.5)),
        "about one fixed W, and a RandomLinks changes with time; give a fixed",
    ),
    "not symmetric": (
        lambda: jd.theory.of(
            jd.DGD, quadratic(0.0), jd.networks.metropolis(jd.graphs.directed_ring(N))
        ),
        "about networks that offer symmetric, and this Circulant does not; give one",
    ),
    "no timeline": (
        lambda: jd.theory.of(jd.ADSGD, quadratic(0.0), RING),
        r"this Circulant does not; give one such as jd.networks.timeline\(",
    ),
    "server stepsize": (
        lambda: jd.theory.of(jd.FedAvg(0.1, server_stepsize=0.5), C),
        "the theorems on FedAvg are about server_stepsize = 1.0, and it is 0.5",
    ),
    "mu is 0": (
        lambda: float(jd.theory.of(jd.GradientDescent(0.1), Constants(L=1.0, mu=0.0)).rate),
        "it needs μ > 0, a strongly convex F, and it is 0",
    ),
    "class": (
        lambda: float(jd.theory.of(jd.DGD, C).rate),
        "it needs a method with one constant stepsize for all agents",
    ),
    "schedule": (
        lambda: float(jd.theory.of(jd.DGD(jd.schedules.InverseTime(1.0)), C).rate),
        "it needs a method with one constant stepsize for all agents",
    ),
    "range": (lambda: Constants(gap=2.0), "gap is 2; give at most 1"),
    "random step": (
        lambda: jd.theory.edge(
            jd.DSGD,
            jd.problems.Minibatch(
                jd.problems.least_squares(np.eye(4).reshape(2, 2, 4), np.ones((2, 2)), l2=0.1), 1
            ),
            jd.networks.Complete(2),
        ),
        "a step of DSGD is another one for another key or time",
    ),
    "no stepsize": (lambda: jd.theory.edge("DGD", quadratic(0.0), RING), "'DGD' has no stepsize"),
    "more than a stepsize": (
        lambda: jd.theory.edge(jd.CEDAS, quadratic(0.0), RING),
        "CEDAS needs more than a stepsize; give an instance",
    ),
    "no solution": (
        lambda: jd.theory.edge(
            jd.DGD,
            jd.problems.logistic_regression(np.ones((2, 1, 2)), np.ones((2, 1))),
            jd.networks.Complete(2),
        ),
        "the solution of the FiniteSum is not known, at which DGD is linearized",
    ),
    "too short": (
        lambda: jd.theory.edge(
            jd.ADSGD, quadratic(0.0), jd.networks.timeline(RING, steps=10)
        ),
        "the Timeline has 10 steps and the edge takes 202; give a longer one",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_bad_input_gets_one_sentence(case):
    make, message = CASES[case]
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert str(error.value).count("\n") == 0
