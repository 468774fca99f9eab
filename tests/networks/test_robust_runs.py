"""Servers with liars against loops, what is measured among liars, and what is refused."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import loops
import numpy as np
import pytest
from reference import asynchronous, composite, federated, losses, robust

import jaxdopt as jd
from jaxdopt import aggregators as A
from jaxdopt import attacks as T
from jaxdopt import networks
from jaxdopt.honest import measured
from jaxdopt.networks import arrivals, participation
from jaxdopt.networks.events import durations

KEY = jax.random.key(6)
CLOSE: dict[str, Any] = {"rtol": 1e-10, "atol": 1e-10}
N, D, L2, STEPS = 9, 3, 0.1, 8
LYING = np.isin(np.arange(N), [2, 7])


def data():
    random = np.random.default_rng(0)
    sizes = [3, 4, 5, 6, 3, 4, 5, 6, 7]
    features = [random.standard_normal((m, D)) + i / 9 for i, m in enumerate(sizes)]
    return features, [random.standard_normal(m) + i / 3 for i, m in enumerate(sizes)]


FEATURES, LABELS = data()


def ridge(weights: Any = "agents"):
    return jd.problems.least_squares(FEATURES, LABELS, l2=L2, weights=weights)


def gradient(i, x, k, local):
    return losses.least_squares_gradient(x, FEATURES[i], LABELS[i], L2)


@pytest.fixture
def lied_to(monkeypatch):
    """The loops' means become a rule of what clients send, some of whom lie."""

    def install(rule, attack, lying=LYING):
        def aggregate(who, vectors):
            honest = [v for i, v in zip(who, vectors, strict=True) if not lying[i]]
            f = len(vectors) - len(honest)
            lie = attack(np.stack(honest or [np.zeros(D)]), liars=f)
            return rule(
                np.stack([lie if lying[i] else v for i, v in zip(who, vectors, strict=True)])
            )

        monkeypatch.setattr(federated, "mean_over", lambda who, v, p, d: aggregate(who, v))
        monkeypatch.setattr(composite, "mean_of", lambda v, p=None: aggregate(range(len(v)), v))
        monkeypatch.setattr(
            asynchronous,
            "mean_of_returns",
            lambda merged, v, p, n: aggregate([result.client for result, _, _ in merged], v),
        )

    return install


TABLE = [[0, 1, 2], [], [3, 4, 7, 8], [2], [5, 6], [0, 2, 7], [8], [1, 3]]
PATTERNS = {
    "all": (lambda: networks.Server(N), None),
    "few": (lambda: participation.uniform(N, 4), 1),
    "many": (lambda: participation.uniform(N, 6), 1),
    "coins": (lambda: participation.bernoulli(0.2, n=N), None),
    "groups": (lambda: participation.cyclic(N, 2), 1),
    "padded": (lambda: participation.trace(TABLE, n=N), None),
}
METHODS = {
    "FedAvg": (
        jd.FedAvg(0.1, 0.8, 2),
        lambda active, x0: federated.fed_avg(
            gradient, active, x0, lambda k: 0.1, STEPS, 2, server_stepsize=0.8
        ),
    ),
    "FedProx": (
        jd.FedProx(0.1, 0.5, 0.8, 2),
        lambda active, x0: federated.fed_prox(
            gradient, active, x0, lambda k: 0.1, STEPS, 2, server_stepsize=0.8, proximal=0.5
        ),
    ),
    "FedAvgMomentum": (
        jd.FedAvgMomentum(0.1, 0.3, 0.8, 2),
        lambda active, x0: federated.fed_avg_momentum(
            gradient, active, x0, lambda k: 0.1, STEPS, 2, server_stepsize=0.8, gradient_weight=0.3
        ),
    ),
}


@pytest.mark.parametrize(
    ("method", "pattern"),
    [
        ("FedAvg", "padded"),
        pytest.param("FedAvgMomentum", "coins", marks=pytest.mark.slow),
        *(
            pytest.param(method, pattern, marks=pytest.mark.slow)
            for method, pattern in (
                ("FedAvg", "all"),
                ("FedAvg", "few"),
                ("FedProx", "many"),
                ("FedAvgMomentum", "groups"),
                ("FedProx", "padded"),
            )
        ),
    ],
)
def test_a_servers_mean_becomes_the_rule(method, pattern, lied_to):
    """Rounds without participants among them, and objectives with weights, which a rule ignores."""
    (make, f), (method, loop) = PATTERNS[pattern], METHODS[method]
    rule, rule_loop = (A.Median(), robust.median())
    if f is not None:
        rule, rule_loop = A.TrimmedMean(f), robust.trimmed_mean(f)
    lies = networks.robust(make(), rule=rule, attack=T.ALIE(1.5), liars=LYING)
    active = np.asarray(participation.active(make(), STEPS, KEY))
    x0 = np.random.default_rng(2).standard_normal(D)
    found = jd.run(
        method,
        ridge("samples"),
        lies,
        jnp.broadcast_to(jnp.asarray(x0), (N, D)),
        KEY,
        steps=STEPS,
        metrics={"x": lambda state, _: state.server},
        defaults=(),
    )
    lied_to(rule_loop, robust.alie(1.5))
    wanted = loop(active, x0)
    np.testing.assert_allclose(found.metrics["x"], wanted, **CLOSE)
    if pattern == "padded":
        nobody = np.flatnonzero(~active.any(axis=1))
        assert len(nobody)
        assert np.array_equal(found.metrics["x"][nobody], found.metrics["x"][nobody + 1])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["FedMid", "FedDualAvg"])
def test_composite_methods_of_a_server(name, lied_to):
    problem = jd.problems.Composite(ridge(), jd.problems.prox.L1(0.1))
    lies = networks.robust(
        networks.Server(N), rule=A.CAF(2), attack=T.InnerProduct(3.0), liars=LYING
    )
    found = jd.run(
        getattr(jd, name)(0.1, 0.8, 2),
        problem,
        lies,
        problem.start(),
        KEY,
        steps=STEPS,
        metrics={"x": lambda state, _: state.server},
        defaults=(),
    )

    def shrunk(z, t):
        return np.sign(z) * np.maximum(np.abs(z) - 0.1 * t, 0)

    lied_to(robust.caf(2), robust.inner_product(3.0))
    loop = {"FedMid": composite.fed_mid, "FedDualAvg": composite.fed_dual_avg}[name]
    wanted = loop(gradient, shrunk, np.zeros(D), lambda k: 0.1, STEPS, N, 2, 0.8)
    np.testing.assert_allclose(found.metrics["x"], wanted, **CLOSE)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["FedBuff", "AFACD"])
def test_servers_that_do_not_wait(name, lied_to):
    work = np.random.default_rng(3).integers(1, 5, (40, N)) / 4
    work[:, 0] += 2
    clock = arrivals(N, compute=durations.Table(work), buffer=4, steps=STEPS)
    lies = networks.robust(clock, rule=A.TrimmedMean(1), attack=T.SignFlip(2.0), liars=LYING)
    method = jd.FedBuff(0.1, 0.8, 2) if name == "FedBuff" else jd.AFACD(0.1, 0.2, 2)
    found = jd.run(
        method,
        ridge(),
        lies,
        ridge().start(),
        KEY,
        steps=STEPS,
        metrics={"x": lambda state, _: state.server},
        defaults=(),
    )
    lied_to(robust.trimmed_mean(1), robust.sign_flip(2.0))
    end = (np.zeros(D), np.full((STEPS, N), 0.1).__getitem__)
    if name == "FedBuff":
        events = asynchronous.fed_buff(gradient, *end, 0.8, work.T, ("buffer", 4), STEPS, 2)
    else:
        steps = np.full(N, 2)
        events = asynchronous.afa_cd(gradient, *end, 0.2, work.T, ("buffer", 4), STEPS, steps)
    np.testing.assert_allclose(found.metrics["x"][1:], [event.x for event in events], **CLOSE)


def test_padding_and_the_absent_never_enter_an_aggregate():
    """Rows of the absent and of padding are NaN; liars who are absent tell nothing."""
    lies = networks.robust(
        participation.trace([[0, 7, 4], [1, 2, 3, 4]], n=N),
        rule=A.Median(),
        attack=T.Constant(np.inf),
        liars=LYING,
    )
    now = lies.at(0, KEY)
    clients, there = now.clients, now.clients < N
    rows = jnp.where(there[:, None], loops.rows(N, D)[clients % N], jnp.nan)
    found = loops.jit(lambda now, *rows: now.aggregate(*rows))(now, rows, clients, there)
    told = np.asarray(rows)[:3].copy()
    told[np.asarray(clients)[:3] == 7] = np.inf
    np.testing.assert_allclose(found, robust.median()(told), **CLOSE)
    none = loops.jit(lambda now, *rows: now.aggregate(*rows))(
        now, jnp.full_like(rows, jnp.nan), N + jnp.arange(len(rows)), jnp.zeros(len(rows), bool)
    )
    np.testing.assert_array_equal(none, np.zeros(D))


# What is measured


def lying(network, **changes):
    told = {"rule": A.TrimmedMean(2), "attack": T.ALIE(1.0), "liars": LYING}
    return networks.robust(network, **{**told, **changes})


def honest_part(weights="agents"):
    """The honest agents' data, minimizer and objective."""
    features = [f for f, lies in zip(FEATURES, LYING, strict=True) if not lies]
    labels = [b for b, lies in zip(LABELS, LYING, strict=True) if not lies]
    p = losses.agent_weights(labels, weights)
    gram = sum(w * f.T @ f / len(f) for w, f in zip(p, features, strict=True)) + L2 * np.eye(D)
    right = sum(w * f.T @ b / len(b) for w, f, b in zip(p, features, labels, strict=True))

    def value(x):
        return losses.objective(losses.least_squares_value, x, features, labels, L2, weights)

    return np.linalg.solve(gram, right), value


@pytest.fixture
def solving(monkeypatch):
    """How many problems have been solved."""
    kind, calls = type(ridge()), []
    solved = kind.solved

    def counted(self):
        calls.append(self.n)
        return solved(self)

    monkeypatch.setattr(kind, "solved", counted)
    return calls


@pytest.mark.parametrize("weights", ["agents", pytest.param("samples", marks=pytest.mark.slow)])
def test_metrics_are_the_honest_agents_alone_whose_problem_is_solved_once(weights, solving):
    problem = ridge(weights)
    network = lying(networks.Complete(N))
    given = jd.MoNNA(0.2, 0.5), problem, network, problem.start(), KEY
    recorded = {"mean": lambda state, problem: state.x.mean(axis=0), "n": lambda _, p: p.n}
    result = jd.run(*given, steps=6, metrics=recorded)
    solution, value = honest_part(weights)
    wanted = np.array([value(x) for x in result.metrics["mean"]])
    np.testing.assert_allclose(result.history["loss"], wanted, rtol=1e-11)
    np.testing.assert_allclose(result.history["gap"], wanted - value(solution), atol=1e-11)
    away = result.metrics["mean"] - solution
    np.testing.assert_allclose(result.history["distance_squared"], (away**2).sum(axis=1), rtol=1e-8)
    assert (result.metrics["n"] == 7).all()
    assert solving == [N, 7]
    again = jd.run(*given, steps=6, metrics=recorded)
    assert np.array_equal(again.history["gap"], result.history["gap"])
    assert solving == [N, 7]


@pytest.mark.slow
def test_sweeps_over_the_rule_the_attack_and_seeds_solve_the_honest_part_once(solving):
    problem = ridge()
    network = lying(networks.Complete(N))
    over = {"network.rule.f": [0, 2, 3], "network.attack.factor": [0.5, 1.5]}
    method = jd.MoNNA(0.2, 0.5)
    found = jd.compare(
        {"MoNNA": method}, problem, network, over=over, seeds=2, steps=4, progress=False
    )
    assert solving == [N, 7]
    for f in (0, 2, 3):
        one = lying(networks.Complete(N), rule=A.TrimmedMean(f), attack=T.ALIE(1.5))
        alone = jd.run(method, problem, one, problem.start(), jax.random.key(1), steps=4)
        member = found["gap"].sel({"network.rule.f": f, "network.attack.factor": 1.5, "seed": 1})
        np.testing.assert_allclose(np.squeeze(member.values), alone.history["gap"], atol=1e-12)
    keys = jax.random.split(KEY, 3)
    swept = jd.sweep(jd.run, over="key")(
        jd.MoNNA(0.2, 0.5), problem, network, problem.start(), keys, steps=4
    )
    assert swept.history["gap"].shape == (3, 5)
    assert solving == [N, 7, 7]  # once more, as `compare` has a form of its own; others share it


@pytest.mark.slow
def test_networks_with_other_liars_are_compared(solving):
    """Each is measured by its own honest agents."""
    problem, others = ridge(), np.roll(LYING, 1)
    pair = {
        "first": lying(networks.Complete(N)),
        "second": lying(networks.metropolis(jd.graphs.regular(N, 6, seed=0)), liars=others),
    }
    found = jd.compare({"DSGD": jd.DSGD(0.2)}, problem, pair, steps=3, progress=False)
    for name, network in pair.items():
        alone = jd.run(jd.DSGD(0.2), problem, network, problem.start(), jax.random.key(0), steps=3)
        member = np.squeeze(found["gap"].sel(network=name).values)
        np.testing.assert_allclose(member, alone.history["gap"], atol=1e-12)


def poisoned(who):
    """Quadratics, of which the data of some agent are NaN from step 2 on, as its x then is."""
    problem = jd.problems.quadratic(N, D, heterogeneity=1.0)
    tilts = problem.tilts.at[who].set(jnp.nan)
    return jd.replace(problem, tilts=tilts)


def among_nan(who):
    network = lying(networks.Complete(N), rule=A.NNA(2), attack=None)
    return jd.DSGD(0.1), poisoned(who), network, jnp.zeros((N, D)), KEY


def test_a_liars_nan_is_no_divergence_and_an_honest_agents_is():
    options: dict[str, Any] = {"steps": 3, "defaults": ("consensus_error",)}
    fine = jd.run(*among_nan(2), **options, metrics={"x": lambda state, _: state.x})
    assert np.isnan(np.asarray(fine.state.x)[2]).all()
    assert np.isfinite(fine.metrics["x"]).all()
    assert not fine.diverged
    assert jd.run(*among_nan(3), **options, metrics={"x": lambda state, _: state.x}).diverged


@pytest.mark.slow
def test_liars_are_not_diagnosed():
    assert jd.diagnose(*among_nan(2), steps=3) is None
    found = jd.diagnose(*among_nan(3), steps=3)
    assert found is not None
    assert found.step == 0
    assert [fault.agents for fault in found.fields] == [(3,)]


class TestStates:
    """Metrics are given a state of the same kind, with honest agents' rows."""

    problem = jd.problems.quadratic(N, D, heterogeneity=1.0)

    def seen(self, method, metrics, network=None):
        network = lying(networks.Complete(N)) if network is None else network
        options: dict[str, Any] = {"steps": 2, "metrics": metrics, "defaults": ()}
        return jd.run(method, self.problem, network, self.problem.start(), KEY, **options)

    def test_all_of_its_fields_and_whatever_is_made_of_them(self):
        honest = np.flatnonzero(~LYING)
        shapes = {
            "x": lambda state, _: state.x,
            "m": lambda state, _: state.m,
            "jitted": jax.jit(lambda state, _: state.x + state.m),
            "leaves": lambda state, _: sum(jnp.sum(leaf) for leaf in jax.tree.leaves(state)),
        }
        result = self.seen(jd.MoNNA(0.1, 0.5), shapes)
        x, m = np.asarray(result.state.x)[honest], np.asarray(result.state.m)[honest]
        np.testing.assert_array_equal(result.metrics["x"][-1], x)
        np.testing.assert_array_equal(result.metrics["m"][-1], m)
        np.testing.assert_allclose(result.metrics["jitted"][-1], x + m, rtol=1e-14)
        np.testing.assert_allclose(result.metrics["leaves"][-1], x.sum() + m.sum())

    def test_of_an_averaged_method(self):
        shapes = {
            "x": lambda state, _: state.x,
            "inner": lambda state, _: state.inner.x,
            "m": lambda state, _: state.m,
        }
        result = self.seen(jd.Averaged(jd.MoNNA(0.1, 0.5)), shapes)
        honest = np.flatnonzero(~LYING)
        for name, whole in (
            ("x", result.state.x),
            ("inner", result.state.inner.x),
            ("m", result.state.m),
        ):
            np.testing.assert_array_equal(result.metrics[name][-1], np.asarray(whole)[honest])

    @pytest.mark.slow
    def test_of_ones_own_method_whose_estimate_is_made_of_rows(self):
        result = self.seen(Weighing(), {"estimate": lambda state, _: state.estimate})
        honest = ~LYING
        rows = np.asarray(result.state.history)[:, honest]
        np.testing.assert_allclose(
            result.metrics["estimate"][-1], rows.mean(axis=(0, 1)), rtol=1e-12
        )

    @pytest.mark.slow
    def test_of_methods_that_track_compress_and_work_locally(self):
        """All record metrics that are finite, though liars say anything."""
        top = jd.compressors.TopK(1)
        network = lying(networks.Complete(N), attack=T.Constant(np.nan))
        for method in (
            jd.GradientTracking(0.1),
            jd.CHOCOSGD(0.1, top, 0.2),
            jd.DeepSqueeze(0.1, top, 0.2),
            jd.BEER(0.1, top, 0.2),
            jd.LocalDSGD(0.1, local_steps=2),
        ):
            found = jd.run(method, self.problem, network, self.problem.start(), KEY, steps=3)
            assert not found.diverged, method
            assert np.isfinite(found.history["gap"]).all(), method


@jd.pytree
class WeighingState:
    """Estimates, and the last two of them, [2, n, d]."""

    x: Any
    history: Any = jd.field(axis=1)

    @property
    def estimate(self):
        return self.history.mean(axis=(0, 1))


@jd.pytree
class Weighing:
    """DSGD whose estimate is the mean of its last two iterates."""

    needs = frozenset({"mixing"})

    def init(self, x0, problem, network, key):
        return WeighingState(x0, jnp.stack([x0, x0]))

    def step(self, state, problem, network, key):
        x = network @ (state.x - 0.1 * problem.grad(state.x, key))
        return WeighingState(x, jnp.stack([state.history[1], x]))


@pytest.mark.slow
def test_the_honest_part_of_other_problems():
    """Minibatches and regularizers are kept, and of what cannot be taken apart no loss is known."""
    network = lying(networks.Complete(N))
    lasso = jd.problems.Composite(ridge(), jd.problems.prox.L1(0.2)).solved()
    from_batches = jd.problems.Minibatch(ridge(), 2)
    for problem in (lasso, from_batches):
        part = honest_of(problem, network)
        assert part.n == 7
        x = jnp.arange(1.0, D + 1)
        _, value = honest_part()
        penalty = 0.2 * np.abs(x).sum() if problem is lasso else 0
        np.testing.assert_allclose(part.objective(x), value(np.asarray(x)) + penalty, rtol=1e-12)
        assert part.optimum is not None
    solution, _ = honest_part()
    np.testing.assert_allclose(honest_of(from_batches, network).solution, solution, rtol=1e-9)
    lasso = honest_of(lasso, network)
    step = lasso.solution - 0.1 * jax.grad(lasso.smooth_objective)(lasso.solution)
    np.testing.assert_allclose(lasso.prox(step, 0.1), lasso.solution, atol=1e-10)
    quadratic = jd.problems.quadratic(N, D, heterogeneity=1.0, curvature_spread=0.5)
    part = honest_of(quadratic, network)
    np.testing.assert_allclose(jax.grad(part.objective)(part.solution), np.zeros(D), atol=1e-12)
    assert abs(part.objective(part.solution) - part.optimum) < 1e-12
    everyone = quadratic.grad(jnp.broadcast_to(part.solution, (N, D)), KEY)
    np.testing.assert_allclose(everyone[~LYING].mean(axis=0), np.zeros(D), atol=1e-12)


def honest_of(problem, network):
    return measured(problem, network).part


@pytest.mark.slow
def test_a_problem_that_is_traced_has_no_gap(solving):
    """Its honest part cannot be solved on the host."""
    network = lying(networks.Complete(N))

    def run(problem):
        result = jd.run(jd.DSGD(0.1), problem, network, problem.start(), KEY, steps=2)
        return result.history

    history = jax.jit(run)(ridge())
    assert "gap" not in history
    assert np.isfinite(history["loss"]).all()
    assert solving == [N]


# Runs that go on, and transformations


@pytest.mark.slow
def test_runs_go_on_and_are_kept(tmp_path):
    """With liars that change: as one longer run, from a result and from a checkpoint."""
    rounds = np.random.default_rng(3).random((3, N)) < 0.2
    rounds[:, 0] = False
    network = lying(networks.Complete(N), rule=A.Median(), attack=T.Gaussian(1.0), liars=rounds)
    given = jd.MoNNA(0.1, 0.9), ridge(), network
    whole = jd.run(*given, ridge().start(), KEY, steps=8)
    first = jd.run(*given, ridge().start(), KEY, steps=4)
    second = jd.run(*given, after=first, steps=4)
    np.testing.assert_array_equal(second.state.x, whole.state.x)
    np.testing.assert_array_equal(second.history["gap"], whole.history["gap"])
    problem = ridge()
    jd.run(*given, problem.start(), KEY, steps=4, checkpoint=tmp_path / "run", progress=False)
    kept = jd.run(
        *given, problem.start(), KEY, steps=8, checkpoint=tmp_path / "run", progress=False
    )
    np.testing.assert_allclose(kept.state.x, whole.state.x, rtol=1e-12)
    level = float(whole.history["gap"][3])
    until = jd.run(*given, problem.start(), KEY, steps=100, until={"gap": level}, progress=False)
    assert until.stopped == "until"
    other = lying(networks.Complete(N), rule=A.Median(), attack=T.Gaussian(1.0))
    with pytest.raises(ValueError, match="network"):
        jd.run(
            *given[:2],
            other,
            problem.start(),
            KEY,
            steps=8,
            checkpoint=tmp_path / "run",
            progress=False,
        )


@pytest.mark.slow
def test_runs_are_differentiated_by_what_liars_say():
    """The slope in the strength of an attack, through rule and run, against differences."""
    problem = jd.problems.quadratic(N, D, heterogeneity=1.0)

    def loss(factor):
        network = lying(networks.Complete(N), attack=T.ALIE(factor))
        result = jd.run(
            jd.MoNNA(0.2, 0.5), problem, network, problem.start(), KEY, steps=4, defaults=("loss",)
        )
        return result.history["loss"][-1]

    slope, alone = loops.jit(jax.grad(loss))(0.7), loops.jit(loss)
    difference = (alone(0.7 + 1e-5) - alone(0.7 - 1e-5)) / 2e-5
    np.testing.assert_allclose(slope, difference, rtol=1e-6)
    assert abs(slope) > 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_slopes_are_finite_among_lies_that_are_not(value):
    problem = jd.problems.quadratic(N, D, heterogeneity=1.0)

    def loss(stepsize):
        network = lying(networks.Complete(N), attack=T.Constant(value))
        method = jd.MoNNA(stepsize, 0.5)
        result = jd.run(method, problem, network, problem.start(), KEY, steps=3)
        return result.history["loss"][-1]

    assert np.isfinite(loops.jit(jax.grad(loss))(0.2))


@pytest.mark.slow
def test_a_strength_and_an_f_under_vmap_are_those_alone():
    x = loops.rows(N, D)

    def mixed(f, factor):
        rule, attack = A.TrimmedMean(f), T.ALIE(factor)
        return lying(networks.Complete(N), rule=rule, attack=attack).at(0, KEY) @ x

    together = loops.jit(jax.vmap(mixed))(jnp.array([1, 3]), jnp.array([0.5, 1.5]))
    for row, f, factor in zip(together, (1, 3), (0.5, 1.5), strict=True):
        np.testing.assert_allclose(row, loops.jit(mixed)(f, factor), rtol=1e-12)


@pytest.mark.slow
def test_in_single_precision_all_stays_so(float32):
    problem = jd.problems.quadratic(N, D, heterogeneity=1.0)
    network = lying(networks.Complete(N), rule=A.chain(A.NNM(2), A.NNA(2)))
    result = jd.run(jd.MoNNA(0.1), problem, network, problem.start(), KEY, steps=3)
    assert result.state.x.dtype == result.state.m.dtype == jnp.float32
    assert np.isfinite(result.history["gap"]).all()


def test_liars_are_explained():
    found = jd.explain(jd.MoNNA(0.1), ridge(), lying(networks.Complete(N)), timed=False)
    assert not found.refusal
    assert found.gap is None
    refused = jd.explain(jd.EXTRA(0.1), ridge(), lying(networks.Complete(N)), timed=False)
    assert "EXTRA needs a symmetric W" in refused.refusal


# What is refused


RING = networks.metropolis(jd.graphs.ring(6))
STAR = networks.metropolis(jd.graphs.star(6))
TM = A.TrimmedMean(1)
BAD = {
    "f too large": (
        lambda: networks.robust(RING, rule=A.TrimmedMean(2)),
        "agent 0 hears 3 messages, its own included: f of TrimmedMean is 2, of 3 messages; "
        "give at most 1",
    ),
    "f too large for the leaves": (lambda: networks.robust(STAR, rule=TM), "agent 1 hears 2"),
    "f too large for a server": (
        lambda: networks.robust(networks.Server(6), rule=A.TrimmedMean(3)),
        "the server hears 6 messages: f of",
    ),
    "f too large for few": (
        lambda: networks.robust(participation.uniform(6, 2), rule=TM),
        "the server hears 2 messages",
    ),
    "f too large for groups": (
        lambda: networks.robust(participation.cyclic(6, 3), rule=TM),
        "the server hears 2 messages",
    ),
    "f too large for a buffer": (
        lambda: networks.robust(arrivals(6, buffer=2, steps=3), rule=TM),
        "the server hears 2 messages",
    ),
    "f too large for those heard": (
        lambda: networks.robust(RING, rule=TM, liars=1, hears=2),
        "agent 0 hears 2 messages",
    ),
    "hears fewer than lie": (
        lambda: networks.robust(networks.Complete(6), rule=A.Median(), liars=3, hears=3),
        "hears is 3, and agent 0 hears 3 liars beside itself; give at least 4",
    ),
    "hears nothing": (lambda: networks.robust(RING, rule=TM, hears=0), "hears is 0; give"),
    "a server hears": (
        lambda: networks.robust(networks.Server(6), rule=TM, hears=3),
        "hears is 3, and a server hears all; leave it out",
    ),
    "all lie": (lambda: networks.robust(RING, rule=TM, liars=6), "give at most 5"),
    "all in turn": (
        lambda: networks.robust(RING, rule=TM, liars=np.arange(6) < np.array([[3], [6]])),
        "all 6 agents lie in some round",
    ),
    "fewer than none": (lambda: networks.robust(RING, rule=TM, liars=-1), "liars is -1; give"),
    "half a liar": (lambda: networks.robust(RING, rule=TM, liars=1.5), "liars is 1.5; give"),
    "who, as numbers": (
        lambda: networks.robust(RING, rule=TM, liars=[0, 5]),
        "liars is an array of int64[2]; give how many lie, or who, as [6] booleans",
    ),
    "whether": (lambda: networks.robust(RING, rule=TM, liars=True), "liars is an array of bool[]"),
    "too few who": (lambda: networks.robust(RING, rule=TM, liars=[True]), "bool[1]; give how many"),
    "uneven who": (
        lambda: networks.robust(RING, rule=TM, liars=[[True], [True, False]]),
        "liars is an array of object",
    ),
    "traced liars": (
        lambda: jax.jit(lambda who: networks.robust(RING, rule=TM, liars=who))(np.ones(6, bool)),
        "liars is traced",
    ),
    "a graph": (
        lambda: networks.robust(jd.graphs.ring(6), rule=TM),
        "a Graph is given where a network is wanted",
    ),
    "a timeline": (
        lambda: networks.robust(networks.timeline(RING, steps=4), rule=TM),
        "a Timeline is neither a graph's network",
    ),
    "pairs": (
        lambda: networks.robust(networks.pairwise(RING, steps=4), rule=TM),
        "a Pairs is neither a graph's network",
    ),
    "a tree": (
        lambda: networks.robust(networks.spanning_tree(jd.graphs.ring(6)), rule=TM),
        "a Tree is neither a graph's network",
    ),
    "rounds repeated": (
        lambda: networks.robust(networks.Repeated(RING, 2), rule=TM),
        "a Repeated is neither a graph's network",
    ),
    "liars twice": (
        lambda: networks.robust(networks.robust(networks.Server(6), rule=TM), rule=TM),
        "the RobustServer has liars already; give the network that it is around",
    ),
    "liars repeated": (
        lambda: networks.Repeated(networks.robust(RING, rule=TM), 2),
        "a RobustMixing network has no one matrix",
    ),
    "liars accelerated": (
        lambda: networks.Chebyshev(networks.robust(RING, rule=TM), 2),
        "a RobustMixing network has no one matrix",
    ),
    "links of liars": (
        lambda: networks.RandomLinks(networks.robust(RING, rule=TM), 0.5),
        "links of this RobustMixing cannot be cut",
    ),
    "no rule": (lambda: networks.robust(RING, rule="median"), "rule is 'median'; give one of"),
    "a preparation": (lambda: networks.robust(RING, rule=A.NNM(1)), "rule is NNM(f=1.0); give"),
    "no attack": (lambda: networks.robust(RING, rule=TM, attack="ALIE"), "attack is 'ALIE'; give"),
    "a rule that attacks": (
        lambda: networks.robust(RING, rule=TM, attack=A.Median()),
        "attack is Median(), a rule; give one of jd.attacks",
    ),
    "a pivot at a server": (
        lambda: networks.robust(networks.Server(6), rule=A.NNA(1)),
        "NNA(f=1.0) needs one's own message, which a server has not; give another rule",
    ),
    "a pivot in a chain": (
        lambda: networks.robust(networks.Server(6), rule=A.chain(A.NNM(1), A.NNA(1))),
        "one's own message, which a server has not",
    ),
    "a mean of all": (
        lambda: networks.robust(RING, rule=TM).mean(jnp.ones((6, D))),
        "network.mean needs all agents",
    ),
    "a server that mixes": (
        lambda: networks.robust(networks.Server(6), rule=TM) @ jnp.ones((6, D)),
        "network @ x needs doubly stochastic weights",
    ),
    "a draw without a round": (
        lambda: networks.robust(RING, rule=TM, hears=3) @ jnp.ones((6, D)),
        "hears draws who is heard, and the network has no round; pass network.at(k, key)",
    ),
    "liars without a round": (
        lambda: networks.robust(RING, rule=TM, liars=np.eye(6, dtype=bool)[:2]) @ jnp.ones((6, D)),
        "liars change with the round, and the network has none; pass network.at(k, key)",
    ),
    "rows": (
        lambda: networks.robust(RING, rule=TM).at(0, KEY) @ jnp.ones((5, D)),
        "a leaf has shape (5, 3) and the network 6 agents; give [n, ...]",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence(name):
    make, sentence = BAD[name]
    with pytest.raises(ValueError, match=re.escape(sentence)) as error:
        make()
    assert loops.one_sentence(error), str(error.value)


@pytest.mark.parametrize(
    "attribute", ["row", "column", "links", "matrix", "csr", "spectral_gap", "eigenvalues"]
)
def test_there_are_no_weights_to_ask_for(attribute):
    for network in (RING, networks.Server(6)):
        assert not hasattr(networks.robust(network, rule=TM), attribute)


@pytest.mark.parametrize(
    ("method", "network", "word"),
    [
        (jd.EXTRA(0.1), RING, "a symmetric W"),
        (jd.NIDS(0.1), RING, "a symmetric W"),
        (jd.LinearizedADMM(1.0), RING, "a symmetric W"),
        (jd.GradientDescent(0.1), RING, "all agents in every round"),
        (jd.PushPull(0.1), RING, "a row- and a column-stochastic part"),
        (jd.FedAvg(0.1), RING, "a server"),
        (jd.SCAFFOLD(0.1), networks.Server(6), "the plain sum of what clients send"),
        (jd.MIFA(0.1), networks.Server(6), "the plain sum of what clients send"),
        (jd.FedVARP(0.1), networks.Server(6), "the plain sum of what clients send"),
        (jd.FedNMap(0.1, 0.1), networks.Server(6), "all agents in every round"),
        (jd.GradientDescent(0.1), networks.Server(6), "all agents in every round"),
        (jd.DSGD(0.1), networks.Server(6), "doubly stochastic weights"),
    ],
)
def test_methods_that_liars_would_break_are_refused(method, network, word):
    problem = jd.problems.quadratic(6, D)
    with pytest.raises(ValueError, match=f"{type(method).__name__} needs {word}"):
        jd.run(method, problem, networks.robust(network, rule=TM), problem.start(), KEY, steps=1)


@pytest.mark.slow
def test_agents_that_are_alone_keep_their_own():
    """One agent, and agents whom no link reaches: a rule without an f hears one message."""
    alone = networks.robust(networks.Complete(1), rule=A.Median(), attack=T.SignFlip())
    x = loops.rows(1, D)
    np.testing.assert_array_equal(loops.apply(alone.at(0, KEY), x), x)
    apart = networks.robust(
        networks.RandomLinks(networks.metropolis(jd.graphs.ring(4)), 0.0),
        rule=A.Median(),
        attack=T.SignFlip(),
        liars=2,
    )
    x = loops.rows(4, D)
    np.testing.assert_array_equal(loops.apply(apart.at(0, KEY), x), x)
