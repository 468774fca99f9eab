"""What steps cost: class variables, and axes that a method, a network or a problem adds."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdopt as jd
from jaxdopt.ledger import Ledger

N, D, STEPS = 5, 3, 12
KEY = jax.random.key(3)
ORDERS = np.array([1.5, 2.0, 4.0, 8.0, 32.0])  # of Rényi divergences
NOISE = np.array([0.5, 1.0, 2.0, 4.0])  # sigma, in turn


def problem():
    return jd.problems.quadratic(N, D)


def run(method, network=None, made=None, **options):
    made = problem() if made is None else made
    network = jd.networks.metropolis(jd.graphs.ring(N)) if network is None else network
    setting: dict[str, Any] = {"steps": STEPS, "every": 3, **options}
    if "after" not in options:
        setting |= {"x0": made.start(), "key": KEY}
    return jd.run(method, made, network, **setting)


def sigma(k):
    return jnp.asarray(NOISE)[jnp.asarray(k) % len(NOISE)]


def divergences(step):
    """Of Gaussian noise: order / (2 sigma²) for every order, which add up over steps."""
    return jnp.asarray(ORDERS) / (2 * sigma(step.network.time) ** 2)


def epsilon(sums):
    """Of the summed divergences the best bound at delta = 1e-5; it does not add up."""
    return (sums + np.log(1e5) / (ORDERS - 1)).min(axis=-1)


@jd.pytree
class Private:
    """DSGD that counts what its noise gives away."""

    stepsize: jd.Nonnegative
    needs: ClassVar[set[str]] = {"mixing"}
    axes: ClassVar[dict[str, jd.Axis]] = {"epsilon": jd.Axis(divergences, read=epsilon)}

    def init(self, x0, problem, network, key):
        return jd.DSGD(self.stepsize).init(x0, problem, network, key)

    def step(self, state, problem, network, key):
        return jd.DSGD(self.stepsize).step(state, problem, network, key)


@jd.pytree
class Asked:
    """A problem that counts function values: two a coordinate."""

    problem: Any
    axes: ClassVar[dict[str, jd.Axis]] = {
        "queries": jd.Axis(lambda step: 2 * step.problem.d * step.cost.gradients)
    }

    def __getattr__(self, name):
        if name.startswith("__") or "problem" not in vars(self):
            raise AttributeError(name)
        return getattr(self.problem, name)


@jd.pytree
class Congested:
    """A network that remembers the most bits that its links ever carried together in a step."""

    network: Any
    axes: ClassVar[dict[str, jd.Axis]] = {
        "peak_bits": jd.Axis(lambda step: step.cost.bits * step.network.link_count, over="maximum")
    }

    def at(self, k, key):
        return self.network.at(k, key)

    def __getattr__(self, name):
        if name.startswith("__") or "network" not in vars(self):
            raise AttributeError(name)
        return getattr(self.network, name)


def congested():
    """Links that fail, so that the largest round is not the last."""
    return Congested(jd.networks.RandomLinks(jd.networks.metropolis(jd.graphs.complete(N)), 0.5))


def expected(every=3, steps=STEPS):
    """The three axes in a plain loop over steps."""
    network, queries, peak, sums = congested(), 0.0, 0.0, np.zeros(len(ORDERS))
    rows = [(0.0, 0.0, epsilon(sums))]
    for k in range(steps):
        links = int(np.asarray(network.at(k, KEY).link_count))
        queries += 2 * D
        peak = max(peak, 32.0 * D * links)
        sums = sums + ORDERS / (2 * NOISE[k % len(NOISE)] ** 2)
        if (k + 1) % every == 0:
            rows.append((queries, peak, epsilon(sums)))
    return dict(zip(("queries", "peak_bits", "epsilon"), np.array(rows).T, strict=True))


def assert_as_expected(history, want):
    for name, rows in want.items():
        np.testing.assert_allclose(history[name], rows, rtol=1e-6, err_msg=name)


class TestAxes:
    def test_a_sum_a_maximum_and_one_that_is_not_additive(self):
        history = run(Private(0.1), congested(), Asked(problem())).history
        assert_as_expected(history, expected())
        assert len(np.unique(np.diff(history["peak_bits"]))) > 1  # the test can tell it from a sum
        assert history["peak_bits"][-1] < history["traffic"][-1]
        assert not np.allclose(history["epsilon"][-1], STEPS * history["epsilon"][1])

    def test_a_run_goes_on(self):
        setting = congested(), Asked(problem())
        first = run(Private(0.1), *setting, steps=STEPS // 2)
        whole = run(Private(0.1), *setting, steps=STEPS // 2, after=first)
        assert_as_expected(whole.history, expected())

    def test_sweeps_have_them_in_front(self):
        swept = jd.sweep(jd.run, over={"algorithm": "stepsize", "key": "seed"})
        methods = jax.vmap(Private)(jnp.array([0.1, 0.2]))
        keys = jnp.stack([KEY, jax.random.key(9), KEY])
        made = Asked(problem())
        result = swept(methods, made, congested(), made.start(), keys, steps=STEPS, every=3)
        history = result.history
        assert history["epsilon"].shape == history["peak_bits"].shape == (2, 3, STEPS // 3 + 1)
        for row in (history[name][1, 2] for name in ("queries", "peak_bits", "epsilon")):
            assert row.shape == (STEPS // 3 + 1,)
        got = {name: rows[1, 2] for name, rows in history.items() if name in expected()}
        assert_as_expected(got, expected())
        assert not np.allclose(history["peak_bits"][0, 0], history["peak_bits"][0, 1])

    def test_inside_of_a_program(self):
        made = Asked(problem())

        @jax.jit
        def last(stepsize):
            history = run(Private(stepsize), congested(), made).history
            return {name: history[name] for name in ("queries", "peak_bits", "epsilon")}

        assert_as_expected(last(0.1), expected())

    def test_methods_without_an_axis_are_compared_with_those_that_have_it(self):
        dataset = jd.compare(
            {"private": Private(0.1), "plain": jd.DSGD(0.1)}, problem(),
            jd.networks.metropolis(jd.graphs.ring(N)), steps=4, seeds=[0],
        )  # fmt: skip
        row = dataset.epsilon.squeeze()
        assert np.isfinite(row.sel(algorithm="private")).all()
        assert np.isnan(row.sel(algorithm="plain")).all()

    @pytest.mark.parametrize(
        ("axes", "sentence"),
        [
            ({"bits": jd.Axis(lambda step: 1)}, "'bits' of Taken is there already"),
            ({"step": jd.Axis(lambda step: 1)}, "'step' of Taken is there already"),
            ({"queries": lambda step: 1}, r"'queries' of Taken is .*give jd.Axis\(increment\)"),
        ],
    )
    def test_bad_axes_are_refused_before_any_work(self, axes, sentence):
        taken = type("Taken", (jd.DGD,), {"axes": axes})
        with pytest.raises(ValueError, match=sentence):
            run(taken(0.1))

    def test_an_axis_adds_up_or_is_a_maximum(self):
        with pytest.raises(ValueError, match="over is 'mean'; give 'sum' or 'maximum'"):
            jd.Axis(lambda step: 1, over="mean")  # type: ignore[arg-type]


def carried(method, network):
    """How many numbers go round the loop beside the state, and a step's costs."""
    made = problem()
    axes = jd.costs.axes_of(method, made, network)

    def costs(state, k):
        return jd.costs.increments(axes, method, state, made, network.at(k, KEY))

    state = method.init(made.start(), made, network.at(0, KEY), KEY)
    ledger = Ledger(axes, costs, state, jnp.asarray(0))
    return {name: [*names] for name, names in ledger.moving.items()}


def test_what_does_not_vary_stays_out_of_the_loop():
    ring = jd.networks.metropolis(jd.graphs.ring(N))
    assert carried(jd.GradientTracking(0.1), ring) == {"sum": [], "maximum": []}
    failing = jd.networks.RandomLinks(ring, 0.5)
    assert carried(jd.GradientTracking(0.1), failing) == {"sum": ["traffic"], "maximum": []}
    assert carried(Private(0.1), congested()) == {
        "sum": ["epsilon", "traffic"],
        "maximum": ["peak_bits"],
    }


class TestClassVariables:
    def test_a_method_of_ones_own_without_any_counts_a_gradient_and_a_vector(self):
        class Own:
            def init(self, x0, problem, network, key):
                return jd.DGD(0.1).init(x0, problem, network, key)

            def step(self, state, problem, network, key):
                return jd.DGD(0.1).step(state, problem, network, key)

        history = run(Own(), steps=3, every=3).history
        assert history["gradients"][-1] == history["rounds"][-1] == history["vectors"][-1] == 3
        assert history["bits"][-1] == 3 * 32 * D
        assert history["traffic"][-1] == 3 * 32 * D * 2 * N

    def test_they_are_read_as_they_stand(self):
        @jd.pytree
        class Own(Private):
            compressor: jd.compressors.Compressor = dataclasses.field(  # type: ignore[assignment]
                default=jd.compressors.TopK(2)
            )
            axes: ClassVar[dict[str, jd.Axis]] = {}
            vectors: ClassVar[int] = 3
            numbers: ClassVar[int] = 2
            exchanges: ClassVar[int] = 4
            gradients: ClassVar[int] = 5
            local_steps: jd.Count = jd.static(default=7)
            overlap: ClassVar[int] = 1

        method = Own(0.1)
        made = jd.problems.Minibatch(
            jd.problems.least_squares(np.ones((N, 6, D)), np.ones((N, 6)), l2=0.1), 2
        )
        history = run(method, made=made, steps=1, every=1).history
        got = {name: history[name][-1] for name in ("gradients", "rounds", "vectors", "bits")}
        bits = 3 * method.compressor.bits(D) + 2 * 32
        assert got == {"gradients": 5 * 7 * 2, "rounds": 4, "vectors": 3, "bits": bits}
        assert history["seconds"][-1] == 35
