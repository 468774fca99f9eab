"""`run`: programs, records, axes, divergence, transformations, objects of one's own."""

import dataclasses
import functools
from typing import Any

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdopt as jd

N, D = 4, 2
KEY = jax.random.key(3)
COMPILED = []


def _listen(event: str, duration: float, **details: Any) -> None:
    program = details.get("fun_name", "")
    if event == "/jax/core/compile/backend_compile_duration" and "simulate" in program:
        COMPILED.append(program)


jax.monitoring.register_event_duration_secs_listener(_listen)  # pyright: ignore[reportArgumentType]


def quadratic(**options: Any):
    given: dict[str, Any] = {"curvature_spread": 0.3}
    return jd.problems.quadratic(N, D, **(given | options))


def ring():
    return jd.networks.metropolis(jd.graphs.ring(N))


def dense(scale=1.0):
    weights = np.eye(N) + scale * (np.asarray(ring().matrix()) - np.eye(N))
    return jd.networks.mixing(weights, form=jd.networks.Dense)


def x_start(seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal((N, D)))


@functools.cache
def logistic(seed=0, l2=0.1):
    random = np.random.default_rng(seed)
    features = random.standard_normal((N, 5, D))
    labels = random.permutation(np.tile([0, 1], 10)).reshape(N, 5)
    return jd.problems.logistic_regression(features, labels, l2=l2)


def run(method=None, problem=None, network=None, x0=None, key=KEY, **options: Any):
    method = jd.DGD(0.1) if method is None else method
    problem = quadratic() if problem is None else problem
    network = ring() if network is None else network
    x0 = x_start() if x0 is None and options.get("state") is None else x0
    given: dict[str, Any] = {"steps": 6}
    return jd.run(method, problem, network, x0, key, **(given | options))


def numpy_dgd(problem, weights, x, stepsizes):
    """DGD on a quadratic, agent by agent."""
    hessians, tilts, solution = (np.asarray(a) for a in (problem.hessians, problem.tilts,
                                                         problem.solution))  # fmt: skip
    rows = [np.asarray(x)]
    for stepsize in stepsizes:
        x = rows[-1]
        new = np.empty_like(x)
        for i in range(len(x)):
            mixed = sum(weights[i, j] * x[j] for j in range(len(x)))
            new[i] = mixed - stepsize * (hessians[i] @ (x[i] - solution) + tilts[i])
        rows.append(new)
    return np.array(rows)


@jd.pytree
class Plain:
    x: Any


@jd.pytree
class Share:
    """A metric with data: the share of coordinates above a level an agent."""

    level: Any  # [n]

    def __call__(self, state, problem):
        return jnp.mean(state.x > self.level[:, None])


class Duck:
    """The smallest problem: gradients of |x - i|^2 / 2 for agent i."""

    n, d = N, D

    def grad(self, x, key):
        return x - jnp.arange(float(N))[:, None]


def test_changed_numbers_compile_nothing():
    problem, shifted = (jd.problems.Minibatch(p, 2) for p in (logistic(0), logistic(1, l2=0.3)))
    changes = [
        {"method": jd.DGD(0.2)},
        {"method": jd.DGD(1)},
        {"method": jd.DGD(np.float32(0.3))},
        {"method": jd.DGD(np.float64(0.3))},
        {"method": jd.DGD(jnp.asarray(0.3))},
        {"network": dense(0.7)},
        {"problem": shifted},
        {"key": jax.random.key(9)},
        {"x0": x_start(4)},
        {"x0": np.asarray(x_start(5))},
        {"start": 17},
    ]
    base: dict[str, Any] = {"method": jd.DGD(0.1), "problem": problem, "network": dense()}
    first = run(**base)
    before = len(COMPILED)
    for change in changes:
        other = run(**(base | change))
        assert len(COMPILED) == before > 0, change
        assert not np.allclose(other.state.x, first.state.x)


def test_changed_schedule_and_metric_numbers_compile_nothing():
    problem, network, x0 = quadratic(), ring(), x_start()

    def go(numerator, level):
        method = jd.DGD(jd.schedules.InverseTime(numerator, offset=3 * numerator))
        return run(method, problem, network, x0, metrics={"share": Share(level)})

    levels = [jnp.full(N, level) for level in (-0.2, 0.2)]
    first = go(0.5, levels[0])
    before = len(COMPILED)
    second = go(0.9, levels[1])
    assert len(COMPILED) == before > 0
    assert not np.allclose(first.state.x, second.state.x)
    assert second.history["share"][0] == np.mean(np.asarray(x0) > 0.2)
    assert first.history["share"][0] == np.mean(np.asarray(x0) > -0.2)


def test_every_picks_rows_of_the_whole_history():
    fine = run(jd.GradientTracking(0.1), steps=12).history
    coarse = run(jd.GradientTracking(0.1), steps=12, every=4).history
    assert coarse.keys() == fine.keys()
    for name, values in coarse.items():  # roots of squares round as x does, in 12 steps
        here, there = np.sqrt(values), np.sqrt(fine[name][::4])
        np.testing.assert_allclose(here, there, rtol=1e-12, atol=1e-14, err_msg=name)


def test_row_zero_is_x0_and_rows_are_numpy_dgd():
    problem, weights = quadratic(), np.asarray(ring().matrix())
    history = run(problem=problem, metrics={"x": lambda s, p: s.x}).history
    expected = numpy_dgd(problem, weights, x_start(), [0.1] * 6)
    np.testing.assert_allclose(history["x"], expected, atol=1e-13)
    means = expected.mean(axis=1)
    spread = ((expected - means[:, None]) ** 2).sum(axis=(1, 2)) / N
    away = means - np.asarray(problem.solution)
    hessian = np.asarray(problem.hessians).mean(axis=0)
    gap = np.einsum("ti,ij,tj->t", away, hessian, away) / 2
    np.testing.assert_allclose(history["consensus_error"], spread, rtol=1e-11)
    np.testing.assert_allclose(history["distance_squared"], (away**2).sum(axis=1), rtol=1e-11)
    np.testing.assert_allclose(history["gap"], gap, rtol=1e-11)
    slopes = ((away @ hessian) ** 2).sum(axis=1)
    np.testing.assert_allclose(history["gradient_norm_squared"], slopes, rtol=1e-11)


def test_metrics_of_any_shape():
    metrics = {
        "scalar": lambda s, p: s.x.sum(),
        "agents": lambda s, p: s.x[:, 0],
        "matrix": lambda s, p: s.x > 0,
        "constant": lambda s, p: 3,
    }
    result = run(metrics=metrics)
    shapes = {name: result.history[name].shape for name in metrics}
    assert shapes == {"scalar": (7,), "agents": (7, N), "matrix": (7, N, D), "constant": (7,)}
    np.testing.assert_array_equal(result.history["agents"][-1], result.state.x[:, 0])
    assert result.history["matrix"].dtype == bool
    assert result.history["constant"].tolist() == [3] * 7


@pytest.mark.parametrize("every", [1, 3])
def test_axes_are_exact(every):
    problem = jd.problems.Minibatch(logistic(), 2)
    network = jd.networks.metropolis(jd.graphs.star(N))  # 2 (n - 1) directed links
    result = run(jd.GradientTracking(0.1), problem, network, steps=6, every=every, start=10)
    steps = np.arange(0, 7, every)
    bits = 2 * D * 32
    expected = {
        "step": 10 + steps,
        "gradients": 2 * steps,
        "rounds": steps,
        "vectors": 2 * steps,
        "bits": bits * steps,
        "traffic": bits * 2 * (N - 1) * steps,
    }
    for name, values in expected.items():
        np.testing.assert_array_equal(result.history[name], values, err_msg=name)
        assert isinstance(result.history[name], np.ndarray)
    np.testing.assert_allclose(result.history["epochs"], 2 * steps / 5, rtol=1e-6)
    assert result.history["step"].dtype.kind == "i"
    assert result.history["bits"].dtype == np.float64


@pytest.mark.parametrize(("steps", "every"), [(6000, 1), (6000, 6000)])
def test_axes_stay_exact_above_the_integers_of_float32(steps, every):
    class Expensive(Duck):
        samples = 4097

    assert 4097 * steps > 2**24
    history = run(problem=Expensive(), steps=steps, every=every).history
    assert history["gradients"][-1] == 4097 * steps
    assert history["bits"][-1] == D * 32 * steps


def test_divergence_is_data_and_touches_no_other_member():
    problem = quadratic()

    def go(stepsize):
        return run(jd.DGD(stepsize), problem, steps=200, every=50)

    batch = jax.vmap(go)(jnp.array([0.1, 1e3, 0.2]))
    assert batch.diverged.tolist() == [False, True, False]
    gap = batch.history["gap"]
    assert not np.isfinite(gap[1, -1])
    assert np.isfinite(gap[1, 0])
    for i, stepsize in ((0, 0.1), (2, 0.2)):
        alone = go(stepsize)
        assert not alone.diverged
        for name in alone.history:
            np.testing.assert_allclose(
                np.broadcast_to(batch.history[name], (3, *alone.history[name].shape))[i],
                alone.history[name],
                rtol=1e-10,
                atol=1e-15,
                err_msg=name,
            )


SCHEDULES = {
    "inverse": (jd.schedules.InverseTime(0.4, offset=2), lambda k: 0.4 / (k + 2)),
    "polynomial": (
        jd.schedules.Polynomial(0.3, power=0.75, offset=4),
        lambda k: 0.3 / (1 + k / 4) ** 0.75,
    ),
    "piecewise": (
        jd.schedules.PiecewiseConstant([0.3, 0.1, 0.02], [2, 5]),
        lambda k: 0.3 if k < 2 else 0.1 if k < 5 else 0.02,
    ),
    "optax": (optax.exponential_decay(0.5, 3, 0.7), lambda k: 0.5 * 0.7 ** (k / 3)),
    "function": (lambda k: 0.2 / (1 + k % 2), lambda k: 0.2 / (1 + k % 2)),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_run_as_a_loop_in_numpy(name):
    schedule, value = SCHEDULES[name]
    problem, start = quadratic(), 1
    x = run(jd.DGD(schedule), problem, steps=7, start=start).state.x
    stepsizes = [value(start + k) for k in range(7)]
    expected = numpy_dgd(problem, np.asarray(ring().matrix()), x_start(), stepsizes)[-1]
    np.testing.assert_allclose(x, expected, rtol=1e-6 if name == "optax" else 1e-12)


def test_one_stepsize_an_agent():
    problem, each = quadratic(), np.array([[0.1], [0.2], [0.0], [0.3]])
    x = run(jd.DGD(jnp.asarray(each)), problem, steps=1).state.x
    apart = [numpy_dgd(problem, np.asarray(ring().matrix()), x_start(), [a])[-1][i]
             for i, a in enumerate(each[:, 0])]  # fmt: skip
    np.testing.assert_allclose(x, apart, atol=1e-13)


def test_vmap_is_a_loop_and_jit_changes_nothing():
    problem = jd.problems.Minibatch(logistic(), 2)
    keys = jax.random.split(KEY, 3)

    def go(key):
        return run(jd.GradientTracking(0.2), problem, key=key, steps=20, every=5)

    batch = jax.vmap(go)(keys)
    jitted, rounds = jax.jit(lambda key: [go(key).history[name] for name in ("loss", "rounds")])(
        keys[1]
    )
    for i in range(3):
        alone = go(keys[i])
        np.testing.assert_allclose(batch.state.x[i], alone.state.x, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(batch.history["gap"][i], alone.history["gap"], atol=1e-10)
    np.testing.assert_allclose(jitted, go(keys[1]).history["loss"], rtol=1e-10)
    assert rounds.tolist() == [0, 5, 10, 15, 20]


def test_gradient_with_respect_to_x0_is_the_closed_form():
    problem, stepsize, steps = quadratic(), 0.3, 9
    hessian = np.asarray(problem.hessians).mean(axis=0)

    def final(x0):
        method = jd.GradientDescent(stepsize)
        return run(method, problem, x0=x0, steps=steps, every=3).history["gap"][-1]

    contraction = np.linalg.matrix_power(np.eye(D) - stepsize * hessian, steps)
    away = np.asarray(x_start()).mean(axis=0) - np.asarray(problem.solution)
    expected = np.tile(contraction @ hessian @ contraction @ away / N, (N, 1))
    np.testing.assert_allclose(jax.grad(final)(x_start()), expected, rtol=1e-10)


def test_the_smallest_problem_has_few_records():
    result = run(problem=Duck(), steps=2)
    assert set(result.history) == {
        "step", "gradients", "rounds", "vectors", "bits", "traffic", "seconds", "consensus_error",
    }  # fmt: skip
    x, weights = np.asarray(x_start()), np.asarray(ring().matrix())
    for _ in range(2):
        x = weights @ x - 0.1 * (x - np.arange(N)[:, None])
    np.testing.assert_allclose(result.state.x, x, atol=1e-14)


def test_a_parameter_tree_runs_with_a_method_made_for_trees():
    class Trees:
        n = N

        def grad(self, x, key):
            return jax.tree.map(lambda leaf: 2 * leaf, x)

    @jd.pytree
    class TreeDSGD:
        stepsize: jd.Nonnegative

        def init(self, x0, problem, network, key):
            return Plain(x0)

        def step(self, state, problem, network, key):
            g = problem.grad(state.x, key)
            return Plain(network @ jax.tree.map(lambda x, g: x - self.stepsize * g, state.x, g))

    x0 = {"w": jnp.arange(24.0).reshape(N, 3, 2), "b": jnp.arange(4.0)}
    result = run(TreeDSGD(0.1), Trees(), x0=x0, steps=3)
    power = np.linalg.matrix_power(np.asarray(ring().matrix()), 3) * 0.8**3
    np.testing.assert_allclose(result.state.x["b"], power @ np.arange(4.0), atol=1e-13)
    w = np.tensordot(power, np.asarray(x0["w"]), axes=1)
    np.testing.assert_allclose(result.state.x["w"], w, atol=1e-13)
    spread = ((w - w.mean(axis=0)) ** 2).sum() / N
    b = power @ np.arange(4.0)
    spread += ((b - b.mean()) ** 2).sum() / N
    np.testing.assert_allclose(result.history["consensus_error"][-1], spread, rtol=1e-12)
    assert result.history["bits"][-1] == 3 * 32 * 7


@jd.pytree
class Watching:
    """A state with integers, booleans and an estimate of its own."""

    x: Any
    drawn: Any  # [n] int
    awake: Any  # [n] bool
    steps: Any  # int

    @property
    def estimate(self):
        return self.x[0]


@jd.pytree
class Watcher:
    """A method that looks which sample is drawn and who is awake, and has no cost."""

    def init(self, x0, problem, network, key):
        return Watching(x0, jnp.zeros(N, jnp.int32), jnp.zeros(N, bool), 0)

    def step(self, state, problem, network, key):
        drawn = problem.indices(key)[:, 0]
        return Watching(state.x, drawn, network.active, state.steps + 1)


@jd.pytree
class Unlinked:
    """A network of one's own that mixes and does not count its links."""

    n = N

    def __matmul__(self, x):
        return x

    def at(self, k, key):
        return self


@jd.pytree
class Sleepy:
    """A network whose agents are awake by a coin; ``constant`` None forgets the fold."""

    active: Any = None
    constant: Any = jd.static(default=None)
    n = N
    offers = frozenset({"server"})  # who takes part is the method's business: nothing is frozen

    def __matmul__(self, x):
        return x

    def at(self, k, key):
        key = key if self.constant is None else jax.random.fold_in(key, self.constant)
        awake = jax.random.uniform(jax.random.fold_in(key, k), (N, 1), jnp.float32)[:, 0] < 0.5
        return jd.replace(self, active=awake)


@pytest.mark.parametrize("constant", [None, 0x6E6574])
def test_awake_agents_and_drawn_samples_are_independent(constant):
    samples = 10
    data = np.ones((N, samples, D))
    problem = jd.problems.Minibatch(
        jd.problems.FiniteSum(lambda w, z: w @ z, data, jnp.zeros(D)), 1
    )
    watched = {"drawn": lambda s, p: s.drawn, "awake": lambda s, p: s.awake}
    rounds = 4000
    history = run(Watcher(), problem, Sleepy(constant=constant), steps=rounds, metrics=watched)
    drawn, awake = (history.history[name][1:] for name in watched)
    assert drawn.shape == awake.shape == (rounds, N)
    assert abs(awake.mean() - 0.5) < 5 / np.sqrt(rounds * N)
    bound = 5 / np.sqrt(rounds)
    table = np.corrcoef(np.concatenate([drawn, awake], axis=1).T)
    if constant is None:  # the test would see it: the same uniform numbers
        assert np.all(np.diag(table[:N, N:]) < -0.8)
    else:
        assert np.abs(table - np.eye(2 * N)).max() < bound
        later = np.corrcoef(np.concatenate([drawn[1:], awake[:-1]], axis=1).T)[:N, N:]
        assert np.abs(later).max() < bound


def test_integer_and_boolean_leaves_and_an_estimate_of_the_states_own():
    problem = jd.problems.Minibatch(logistic(), 2)
    result = run(Watcher(), problem, Sleepy(constant=1), steps=5)
    assert int(result.state.steps) == 5
    assert result.state.awake.dtype == bool
    assert result.state.drawn.dtype == np.int32
    value = float(problem.objective(x_start()[0]))
    np.testing.assert_allclose(result.history["loss"], [value] * 6, rtol=1e-12)
    assert result.history["rounds"].tolist() == [0, 1, 2, 3, 4, 5]  # without cost: one exchange
    assert result.history["gradients"].tolist() == [0, 2, 4, 6, 8, 10]
    assert "traffic" not in result.history


def test_an_ordinary_class_will_do_as_a_method():
    @dataclasses.dataclass
    class Shrink:
        factor: float

        def init(self, x0, problem, network, key):
            return Plain(x0)

        def step(self, state, problem, network, key):
            return Plain(self.factor * state.x)

    x = run(Shrink(0.5), steps=3).state.x
    np.testing.assert_allclose(x, np.asarray(x_start()) / 8, rtol=1e-15)


def test_float64_data_runs_in_float32(float32):
    random = np.random.default_rng(0)
    features, labels = random.standard_normal((20, D)), np.tile([0, 1], 10)
    assert features.dtype == np.float64
    problem = jd.problems.logistic_regression(features, labels, agents=N, l2=0.1)
    result = jd.run(jd.DGD(0.1), problem, ring(), problem.start(), KEY, steps=3)
    assert result.state.x.dtype == np.float32
    assert {result.history[name].dtype for name in ("loss", "gap")} == {np.dtype(np.float32)}
    assert result.history["traffic"].dtype == np.float64


def on_a_timeline():
    network = jd.networks.timeline(
        ring(), compute=jd.networks.durations.Exponential(1.0), steps=60, key=KEY
    )
    return jd.ADSGD(0.1), jd.problems.Minibatch(logistic(), 2), network


SETTINGS: dict[str, Any] = {
    "schedule and links that fail": lambda: (
        jd.GradientTracking(jd.schedules.InverseTime(1.0, offset=4)),
        jd.problems.Minibatch(logistic(), 2),
        jd.networks.RandomLinks(ring(), 0.7),
    ),
    "one peer, one exchange after the other": lambda: (
        jd.DGD(0.1),
        quadratic(),
        jd.networks.one_peer_exponential(N),
    ),
    "participation": lambda: (
        jd.SCAFFOLD(0.05, local_steps=2),
        jd.problems.Minibatch(logistic(), 2),
        jd.networks.participation.uniform(N, 2),
    ),
    "simulated time": lambda: (
        jd.DSGD(0.1),
        jd.problems.Minibatch(logistic(), 2),
        jd.networks.timed(ring(), compute=jd.networks.durations.Exponential(1.0)),
    ),
    "timeline": on_a_timeline,
}


QUICK = ("schedule and links that fail",)


@pytest.mark.parametrize(
    "name", [*QUICK, *(pytest.param(n, marks=pytest.mark.slow) for n in SETTINGS if n not in QUICK)]
)
def test_results_that_go_on_are_one_run(name):
    setting = dict(zip(("algorithm", "problem", "network"), SETTINGS[name](), strict=True))
    whole = jd.run(**setting, x0=x_start(), key=KEY, steps=24, every=2)
    result = jd.run(**setting, x0=x_start(), key=KEY, steps=12, every=2)
    for steps in (4, 8):
        result = jd.run(**setting, after=result, steps=steps, every=2)
    assert result.next_step == 24
    assert result.history.keys() == whole.history.keys()
    for axis, values in whole.history.items():
        np.testing.assert_array_equal(result.history[axis], values, err_msg=axis)
        assert result.history[axis].dtype == values.dtype
    jax.tree.map(np.testing.assert_array_equal, result.state, whole.state)


def test_a_result_goes_on_up_to_the_horizon_of_its_network():
    method, problem, network = on_a_timeline()
    result = jd.run(method, problem, network, x_start(), KEY, steps=network.horizon - 1)
    result = jd.run(method, problem, network, after=result, steps=1)
    with pytest.raises(ValueError, match=f"knows {network.horizon} rounds"):
        jd.run(method, problem, network, after=result, steps=1)


def test_a_result_goes_on_with_other_numbers_and_another_every():
    problem, weights = quadratic(), np.asarray(ring().matrix())
    first = run(jd.DGD(0.3), problem, steps=4, every=2)
    result = jd.run(jd.DGD(0.1), problem, ring(), after=first, key=KEY, steps=3)
    expected = numpy_dgd(problem, weights, x_start(), [0.3] * 4 + [0.1] * 3)
    away = expected.mean(axis=1) - np.asarray(problem.solution)
    rows = [0, 2, 4, 5, 6, 7]
    np.testing.assert_allclose(result.state.x, expected[-1], atol=1e-13)
    assert result.history["step"].tolist() == result.history["rounds"].tolist() == rows
    np.testing.assert_allclose(
        result.history["distance_squared"], (away**2).sum(axis=1)[rows], rtol=1e-11
    )


def test_going_on_compiles_once_whatever_the_length_so_far():
    result = run(steps=5)
    result = jd.run(jd.DGD(0.1), quadratic(), ring(), after=result, steps=5)
    before = len(COMPILED)
    for stepsize in (0.1, 0.2, 0.3):
        result = jd.run(jd.DGD(stepsize), quadratic(), ring(), after=result, steps=5)
    assert len(COMPILED) == before > 0
    assert result.history["step"].tolist() == list(range(26))


def test_costs_of_parts_add_up_exactly_in_float32(float32):
    class Expensive(Duck):
        samples = 4097

    given: Any = {"steps": 2000, "every": 1000}
    result = jd.run(jd.DGD(0.1), Expensive(), ring(), jnp.zeros((N, D)), KEY, **given)
    for _ in range(2):
        result = jd.run(jd.DGD(0.1), Expensive(), ring(), after=result, **given)
    assert 4097 * 6000 > 2**24
    assert result.history["gradients"].tolist() == [4097000.0 * i for i in range(7)]


@pytest.mark.slow
def test_sweeps_go_on_member_by_member():
    problem, network = jd.problems.Minibatch(logistic(), 2), jd.networks.RandomLinks(ring(), 0.7)
    methods = jax.vmap(jd.GradientTracking)(jnp.array([0.1, 0.2]))
    keys = jax.random.split(KEY, 3)
    sweep = jd.sweep(jd.run, over=("algorithm", "key"))
    whole = sweep(methods, problem, network, x_start(), keys, steps=8, every=2)
    half = sweep(methods, problem, network, x_start(), keys, steps=4, every=2)
    result = sweep(methods, problem, network, key=keys, after=half, steps=4, every=2)
    assert result.history.keys() == whole.history.keys()
    for axis, values in whole.history.items():
        np.testing.assert_array_equal(result.history[axis], values, err_msg=axis)
    jax.tree.map(np.testing.assert_array_equal, result.state, whole.state)
    for j in range(2):  # one member on its own
        member = jax.tree.map(lambda leaf, j=j: leaf[j, 1], half)
        alone = jd.run(jd.GradientTracking(0.1 + 0.1 * j), problem, network, after=member,
                       steps=4, every=2)  # fmt: skip
        np.testing.assert_allclose(alone.history["gap"], whole.history["gap"][j, 1], atol=1e-12)
    with pytest.raises(ValueError, match="after has 3 members along key and 2 are given"):
        sweep(methods, problem, network, key=keys[:2], after=half, steps=4)
    with pytest.raises(ValueError, match="key is another than that of the result"):
        sweep(methods, problem, network, key=keys[::-1], after=half, steps=4)
    with pytest.raises(ValueError, match=r"shape \(2, 3\); go on with the same sweep"):
        jd.run(jd.DGD(0.1), problem, network, after=half, steps=4)


def test_one_result_goes_on_at_many_stepsizes():
    first = run(steps=4)
    methods = jax.vmap(jd.DGD)(jnp.array([0.1, 0.2]))
    fan = jd.sweep(jd.run, over="algorithm")(methods, quadratic(), ring(), after=first, steps=3)
    assert fan.history["step"].tolist() == [list(range(8))] * 2
    for j, stepsize in enumerate((0.1, 0.2)):
        alone = jd.run(jd.DGD(stepsize), quadratic(), ring(), after=first, steps=3)
        np.testing.assert_allclose(fan.history["gap"][j], alone.history["gap"], rtol=1e-12)


def test_results_go_on_inside_of_jit_and_vmap():
    problem = jd.problems.Minibatch(logistic(), 2)

    def both(key):
        first = run(problem=problem, key=key, steps=3)
        return jd.run(jd.DGD(0.1), problem, ring(), after=first, steps=3)

    keys = jax.random.split(KEY, 2)
    batch = jax.jit(jax.vmap(both))(keys)
    for i in range(2):
        whole = run(problem=problem, key=keys[i], steps=6)
        for axis, values in whole.history.items():
            np.testing.assert_allclose(batch.history[axis][i], values, rtol=1e-12, err_msg=axis)


def other_metric(state, problem):
    return state.x.sum()


AFTER = {
    "x0 too": (lambda r: {"after": r, "x0": x_start()}, "so is x0; leave x0 out"),
    "state too": (lambda r: {"after": r, "state": r.state}, "so is state; leave state out"),
    "start too": (lambda r: {"after": r, "start": 6}, "so is start; leave start out"),
    "another key": (
        lambda r: {"after": r, "key": jax.random.key(9)},
        r"another than that of the result; leave it out .*start=result\.next_step",
    ),
    "another kind of key": (
        lambda r: {"after": r, "key": jax.random.key(3, impl="rbg")},
        "key is another",
    ),
    "key an int": (lambda r: {"after": r, "key": 0}, "key is 0, not a JAX key"),
    "a state": (lambda r: {"after": r.state}, "after is a State; give the Result"),
    "a list": (lambda r: {"after": [r]}, "after is a list; give the Result"),
    "without state": (
        lambda r: {"after": jd.replace(r, state=None)},
        "no state or no key; give the Result as the run returned it",
    ),
    "a metric more": (
        lambda r: {"after": r, "metrics": {"mine": other_metric}},
        "same metrics .* with mine new; give the same metrics and defaults",
    ),
    "metrics less": (
        lambda r: {"after": r, "defaults": ("gap", "loss")},
        "consensus_error, distance_squared, gradient_norm_squared missing; give the same",
    ),
    "axes less": (
        lambda r: {"after": r, "network": Unlinked()},
        "same costs .* with traffic missing; take a problem and a network",
    ),
    "another method's": (
        lambda r: {"after": r, "algorithm": jd.EXTRA(0.1)},
        r"dgd\.State\(x\), and EXTRA needs extra\.State\(x, d\); give the state of a run of EXTRA",
    ),
    "too many steps": (lambda r: {"after": r, "steps": 2**31 - 6}, r"end at step 2147483648; stay"),
}


@pytest.mark.parametrize("name", AFTER)
def test_what_cannot_go_on_is_refused_before_any_work(name):
    changes, says = AFTER[name]
    given = {"algorithm": jd.DGD(0.1), "problem": quadratic(), "network": ring(), "steps": 6}
    with pytest.raises(ValueError, match=says):
        jd.run(**(given | changes(run())))


def test_a_metric_of_another_shape_does_not_go_on():
    first = run(metrics={"mine": lambda s, p: s.x})
    with pytest.raises(ValueError, match=r"'mine' had shape \(4, 2\) and has \(4,\); give"):
        jd.run(jd.DGD(0.1), quadratic(), ring(), after=first, steps=2,
               metrics={"mine": lambda s, p: s.x[:, 0]})  # fmt: skip


def test_the_state_of_the_same_method_on_other_links_is_refused():
    method, complete = jd.LinearizedADMM(0.1), jd.networks.metropolis(jd.graphs.complete(N))
    first = run(method)
    with pytest.raises(ValueError, match=r"state\.duals is .*and LinearizedADMM needs .*network"):
        jd.run(method, quadratic(), complete, None, KEY, steps=2, state=first.state)


@pytest.mark.parametrize(("steps", "start"), [(4, 2**31), (3, 2**31 - 3), (3_000_000_000, 0)])
@pytest.mark.parametrize("kind", [int, np.int64, jnp.asarray])
def test_step_numbers_that_would_wrap_are_refused(steps, start, kind):
    with pytest.raises(ValueError, match=f"end at step {start + steps}; stay below"):
        run(steps=steps, start=kind(start))
    last = run(steps=3, start=kind(2**31 - 4))
    assert last.history["step"].tolist() == list(range(2**31 - 4, 2**31))


def test_start_may_be_the_largest_in_float32(float32):
    with pytest.raises(ValueError, match="end at step 2147483649; stay below"):
        jd.run(jd.DGD(0.1), quadratic(), ring(), jnp.zeros((N, D)), KEY, steps=2,
               start=jnp.int32(2**31 - 1))  # fmt: skip


def ring_with_links_back(n):
    """Every agent sends to the next one and to agent 0; agent i has weight n 2^-(i + 1) or so."""
    links = np.eye(n) + np.roll(np.eye(n), 1, axis=0)
    links[0] = 1
    return jd.networks.column_stochastic(links.T)


@pytest.mark.slow
def test_push_sum_weights_that_underflow_are_noticed(float32):
    for n, holds in ((48, True), (256, False)):
        network, x0 = ring_with_links_back(n), jax.random.normal(KEY, (n, D))
        result = jd.run(jd.PushSum(), jd.problems.quadratic(n, D), network, x0, KEY,
                        steps=2000, every=2000)  # fmt: skip
        error = float(jnp.abs(result.state.x - x0.mean(axis=0)).max())
        assert np.isfinite(error)
        assert (error < 1e-4) == holds
        assert bool(result.diverged) != holds
    with jax.enable_x64(True):  # whose range is wide enough
        result = jd.run(jd.PushSum(), jd.problems.quadratic(n, D), network,
                        x0.astype(jnp.float64), KEY, steps=2000, every=2000)  # fmt: skip
        assert float(result.state.w.min()) < 1e-70
        np.testing.assert_allclose(result.state.x, np.tile(np.mean(x0, axis=0, dtype=float),
                                                           (n, 1)), atol=1e-8)  # fmt: skip
        assert not result.diverged


def test_default_metrics_can_be_chosen():
    everything = run().history
    some = run(defaults=("gap", "loss"), metrics={"mine": other_metric}).history
    metrics = ["consensus_error", "distance_squared", "gap", "gradient_norm_squared", "loss"]
    assert set(some) == set(everything) - set(metrics) | {"gap", "loss", "mine"}
    for name in ("gap", "loss", "rounds"):
        np.testing.assert_array_equal(some[name], everything[name])
    assert not set(run(defaults=()).history) & set(metrics)
    own = run(defaults=("gap",), metrics={"loss": other_metric}).history  # its name is free
    np.testing.assert_allclose(own["loss"][0], x_start().sum(), rtol=1e-14)


def test_a_default_that_is_switched_off_costs_nothing():
    calls = []

    @jd.pytree
    class Watched:
        n, d, optimum = N, D, 0.0

        def grad(self, x, key):
            return x

        def objective(self, x):
            calls.append(x)  # while a program is traced
            return x @ x

    run(problem=Watched(), defaults=("consensus_error",))
    assert not calls
    run(problem=Watched(), defaults=("loss",))
    assert calls


def ragged():
    return [[0.0] * D] * (N - 1) + [[0.0]]


METRIC = {
    "a string": lambda s, p: "x",
    "None": lambda s, p: None,
    "a dictionary": lambda s, p: {"b": s.x},
    "a state": lambda s, p: s,
    "a list": lambda s, p: [s.x, s.x],
    "an array of strings": lambda s, p: np.array(["x"]),
    "a key": lambda s, p: KEY,
}


@pytest.mark.parametrize("name", METRIC)
def test_metrics_return_arrays_of_numbers(name):
    with pytest.raises(ValueError, match=r"metric 'mine' returns an? .*; return one array of num"):
        run(metrics={"mine": METRIC[name]})


def test_an_error_inside_of_a_metric_names_the_metric():
    with pytest.raises(AttributeError, match="nothing") as caught:
        run(metrics={"mine": lambda s, p: s.nothing})
    assert any("metric 'mine'" in note for note in caught.value.__notes__)


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "problem a class": ({"problem": jd.problems.Quadratic}, "problem is the class Quadratic; give"),
    "problem a function": ({"problem": jd.problems.quadratic}, "function quadratic; call it"),
    "network a class": ({"network": jd.networks.Dense}, "network is the class Dense; give an inst"),
    "network a function": ({"network": jd.networks.metropolis}, "function metropolis; call it"),
    "networks": ({"network": [ring(), ring()]}, r"a list .*jd\.compare, or jd\.networks\.stack"),
    "network by name": ({"network": {"ring": ring()}}, r"a dict .*jd\.compare"),
    "matrix as network": ({"network": np.eye(N)}, r"network is an array .*mixing\(W\)"),
    "result as state": ({"state": run(steps=1)}, r"state is a Result .*result\.state"),
    "array as state": ({"state": np.zeros((N, D))}, r"state is an array .*result\.state"),
    "result as x0": ({"x0": run(steps=1)}, "x0 is a Result; give it as after="),
    "state as x0": ({"x0": run(steps=1).state}, "x0 is a State; give it as state="),
    "x0 a string": ({"x0": "zeros"}, r"x0 is a str; give an \[n, d\] array"),
    "x0 a number": ({"x0": 0.0}, r"x0 is a float; give an \[n, d\] array"),
    "x0 a tree": ({"x0": {"w": np.zeros((N, D))}}, r"x0 is a dict; give an \[n, d\] array"),
    "x0 not called": ({"x0": quadratic().start}, r"x0 is a method; .*problem\.start\(\)"),
    "x0 ragged": ({"x0": ragged()}, r"x0 is a list of unequal rows; give an \[n, d\] array"),
    "x0 of objects": ({"x0": np.full((N, D), None)}, "x0 has dtype object; give floating"),
    "start a string": ({"start": "3"}, "start is '3'; give the first step's number"),
    "start None": ({"start": None}, "start is None; give"),
    "start a boolean": ({"start": True}, "start is True; give"),
    "start an array": ({"start": np.array([3])}, r"start is array\(\[3\]\); give"),
    "metric without name": ({"metrics": {3: other_metric}}, "name is 3; give a string"),
    "metric a class": ({"metrics": {"a": jd.metrics.Accuracy}}, "class.*; give a function"),
    "metrics by name": ({"metrics": ["gap"]}, r"metrics is \['gap'\]; .*defaults="),
    "defaults a string": ({"defaults": "gap"}, r"defaults is 'gap'; name some of cons.*loss"),
    "defaults unknown": ({"defaults": ["los"]}, r"defaults is \['los'\]; name some of .*loss"),
    "defaults a dictionary": ({"defaults": {"gap": 1}}, "defaults is .*; name some of"),
    "defaults no names": ({"defaults": [["gap"]]}, "defaults is .*; name some of"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_one_sentence_before_any_work(name):
    changes, says = MISTAKES[name]
    before = len(COMPILED)
    with pytest.raises(ValueError, match=says):
        run(**changes)
    assert len(COMPILED) == before


@pytest.mark.parametrize("x64", [False, True])
def test_run_and_its_metrics_promote_nothing_implicitly(x64):
    """Also the costs, the joined history and the accuracy, with float64 features in float32."""

    @jd.pytree
    class Halving:
        def init(self, x0, problem, network, key):
            return Plain(x0)

        def step(self, state, problem, network, key):
            return Plain(state.x / 2)

    with jax.enable_x64(x64):
        features, labels = np.random.default_rng(0).standard_normal((6, D)), np.arange(6) % 2
        metrics = {"accuracy": jd.metrics.accuracy(features, labels)}
        names = ("gap", "loss", "distance_squared", "gradient_norm_squared")
        given: dict[str, Any] = {"metrics": metrics, "defaults": names, "steps": 2}
        problem, x0 = quadratic(), jnp.ones((N, D), float)
        with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
            first = jd.run(Halving(), problem, ring(), x0, KEY, **given)
            history = jd.run(Halving(), problem, ring(), after=first, **given).history
        assert history["traffic"].tolist() == [2 * N * 32 * D * k for k in range(5)]
