"""Methods of a server that does not wait: against the clock's loops, their limits, FedAvg."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import asynchronous, losses

import jaxdopt as jd
from jaxdopt.networks import arrivals
from jaxdopt.networks.events import durations

N, D, L2 = 5, 3, 0.05
T, K = 24, 2
KEY = jax.random.key(4)
RULES: dict[str, tuple[dict[str, Any], Any]] = {
    "each": ({"rule": "each"}, ("each",)),
    "all": ({"rule": "all"}, ("all",)),
    "ticks": ({"every": 1.25}, ("every", 1.25)),
    "buffer": ({"buffer": 3}, ("buffer", 3)),
    "at once": ({"buffer": 3, "restart": "at once"}, ("buffer", 3, "at once")),
}


@jd.pytree
class Table:
    """A schedule that is one program whatever it says."""

    values: Any  # [k, n, 1]

    def __call__(self, k):
        return self.values[k]


STEPSIZES = np.random.default_rng(3).uniform(0.05, 0.3, (T, N))
SCHEDULE = Table(jnp.asarray(STEPSIZES)[:, :, None])
WEIGHTS = np.linspace(0.5, 1.5, N)
OWN = np.array([1, 2, 2, 1, 2])
METHODS = {
    "AsyncFedAvg": jd.AsyncFedAvg(SCHEDULE, 0.7, jnp.asarray(WEIGHTS)[:, None], K),
    "AsyncFedAvg, unbiased": jd.AsyncFedAvg(SCHEDULE, 0.2, local_steps=K),
    "FedBuff": jd.FedBuff(SCHEDULE, 0.7, K),
    "AFACD": jd.AFACD(SCHEDULE, 0.1, K, jnp.asarray(OWN)[:, None]),
    "AFACS": jd.AFACS(SCHEDULE, 0.1, K, jnp.asarray(OWN)[:, None]),
}


@functools.cache
def data():
    random = np.random.default_rng(0)
    features = [
        (1 + i / N) * random.standard_normal((4 + i % 3 + 9 * (i == 4), D)) + i / 4
        for i in range(N)
    ]
    labels = [np.where(f.sum(axis=1) + 2 * random.standard_normal(len(f)) > i / 2, 1.0, -1.0)
              for i, f in enumerate(features)]  # fmt: skip
    return features, labels


@functools.cache
def noisy(weights: Any = "agents"):
    whole = jd.problems.logistic_regression(*data(), l2=L2, weights=weights)
    return jd.problems.Minibatch(whole, 2)


def shares(weights):
    """The weights pᵢ of the clients, whose samples are few for the first and many for the last."""
    sizes = np.array([len(f) for f in data()[0]])
    return np.full(N, 1 / N) if weights == "agents" else sizes / sizes.sum()


def widened(network, ticks=False):
    """The same with tables as wide as those of all rules, so that one program serves them."""
    more = 2 * N - network.bound  # padding has different numbers, n + slot
    padding = jnp.broadcast_to(N + network.bound + jnp.arange(more), (network.horizon, more))

    def wide(table, fill):
        return jnp.concatenate([table, jnp.broadcast_to(fill, padding.shape)], axis=1)

    return jd.replace(
        network,
        agents=wide(network.agents, padding),
        latest=wide(network.latest, padding),
        staleness=wide(network.staleness, 0),
        renewed=wide(network.renewed, True),
        ticks=ticks,
    )


@jax.jit
def sampled(problem, agents):
    """The samples that those who come back draw, [T, K, s, batch]."""

    def one(k, who):
        keys = [jax.random.fold_in(jax.random.fold_in(KEY, k), step) for step in range(K)]
        return jnp.stack([problem.take(who).indices(key) for key in keys])

    return jax.vmap(one)(jnp.arange(T), agents)


def invariant(state, problem):
    """The running sum is the table's, of rows that count by their weights."""
    if not hasattr(state, "total"):
        return jnp.zeros(1)
    shares = getattr(problem, "shares", jnp.ones(N))
    return state.total - jnp.sum(shares[:, None] * state.table, axis=0)


def servers(state, problem):
    return state.x[0]


class TestLoops:
    @pytest.mark.parametrize("name", METHODS)
    @settings(max_examples=10, deadline=None, derandomize=True)
    @given(
        rule=st.sampled_from(list(RULES)),
        seed=st.integers(0, 2**16),
        weights=st.sampled_from(["agents", "samples"]),
    )
    @pytest.mark.slow
    def test_under_all_rules(self, name, rule, seed, weights):
        """With minibatches, ties, repeated returns and stepsizes of their own that change."""
        options, spoken = RULES[rule]
        work = np.random.default_rng(seed).integers(1, 5, (400, N)) / 4
        work[:, 0] += 2
        network = widened(arrivals(N, compute=durations.Table(work), steps=T, **options))
        drawn = np.asarray(sampled(noisy(weights), network.agents))
        features, labels = data()
        place = {"k": -1, "row": -1}

        def gradient(i, x, k, step):
            if place["k"] != k:
                place.update(k=k, row=-1)
            place["row"] += step == 0
            chosen = drawn[k, step, place["row"]]
            return losses.logistic_gradient(x, features[i][chosen], labels[i][chosen], L2)

        x0 = np.random.default_rng(1).standard_normal(D)
        start = (gradient, x0, STEPSIZES.__getitem__)
        end, p = (work.T, spoken, T), shares(weights)
        unbiased = p / np.asarray(network.frequency)
        expected = {
            "AsyncFedAvg": lambda: asynchronous.asynchronous_fed_avg(*start, 0.7, WEIGHTS, *end, K),
            "AsyncFedAvg, unbiased": lambda: asynchronous.asynchronous_fed_avg(
                *start, 0.2, unbiased, *end, K
            ),
            "FedBuff": lambda: asynchronous.fed_buff(*start, 0.7, *end, K, p),
            "AFACD": lambda: asynchronous.afa_cd(*start, 0.1, *end, OWN, p),
            "AFACS": lambda: asynchronous.afa_cs(*start, 0.1, *end, OWN, p=p),
        }[name]()
        got = run(METHODS[name], noisy(weights), network, x0)
        np.testing.assert_allclose(
            got.history["x"][1:], [e.x for e in expected], rtol=1e-10, atol=1e-10
        )
        np.testing.assert_allclose(got.history["seconds"][1:], [e.time for e in expected])
        np.testing.assert_allclose(got.history["invariant"], 0, atol=1e-13)
        steps = OWN if name.startswith("AFA") else np.full(N, K)
        taken = np.cumsum([int(sum(steps[i] for i in e.who)) for e in expected])
        np.testing.assert_allclose(got.history["gradients"][1:], 2 * taken / N, rtol=1e-5)
        returns = np.cumsum([len(e.who) for e in expected])
        np.testing.assert_allclose(got.history["vectors"][1:], returns / N, rtol=1e-5)
        np.testing.assert_allclose(got.history["traffic"][1:], returns * 2 * 32 * D, rtol=1e-5)


def run(method, problem, network, x0, steps=T, **options):
    """A run from the same model for all."""
    x0 = jnp.broadcast_to(jnp.asarray(x0), (N, len(x0)))
    metrics = {"x": servers, "invariant": invariant}
    return jd.run(method, problem, network, x0, KEY, steps=steps, metrics=metrics, **options)


class TestSynchronous:
    """Where all return for every aggregation."""

    problem = jd.problems.quadratic(N, D, curvature_spread=0.5)

    def last(self, method, network):
        return run(method, self.problem, network, np.ones(D), steps=T, every=T).state

    @pytest.mark.slow
    def test_all_rules_are_fed_avg(self):
        """FedFix with long ticks, a buffer of all, and the rule that waits."""
        expected = self.last(jd.FedAvg(0.2, 0.7, K), jd.networks.Server(N)).server
        work = np.linspace(1.0, 0.2, N)
        rules: list[Any] = [{"every": 1.0}, {"buffer": N}, {"rule": "all"}]
        networks = [
            widened(arrivals(N, compute=work, steps=T, **options), ticks=True) for options in rules
        ]
        for method, some in (
            (jd.FedFix(0.2, 0.7, K), networks),
            (jd.AsyncFedAvg(0.2, 0.7, local_steps=K), networks[:1]),
            (jd.FedBuff(0.2, 0.7, K), networks[:1]),
        ):
            for network in some:
                np.testing.assert_allclose(self.last(method, network).server, expected, atol=1e-14)

    def test_afa_cs_is_afa_cd(self):
        network = widened(arrivals(N, rule="all", steps=T), ticks=True)
        one, other = (self.last(m(0.2, 0.3, K), network).server for m in (jd.AFACD, jd.AFACS))
        np.testing.assert_allclose(one, other, atol=1e-14)

    def test_afa_of_single_steps_is_gradient_descent(self):
        network = widened(arrivals(N, rule="all", steps=T), ticks=True)
        descent = self.last(jd.GradientDescent(0.3), jd.networks.Server(N))
        np.testing.assert_allclose(self.last(jd.AFACD(0.2, 0.3), network).x, descent.x, atol=1e-13)


class TestLimits:
    """Quick and slow clients whose quadratics differ, all in Hessian and minimizer."""

    problem = jd.problems.quadratic(N, D, condition_number=3.0, curvature_spread=0.7, seed=1)
    work = np.linspace(1.0, 0.2, N)

    def surrogate(self, q):
        """The minimizer of Σᵢ qᵢ fᵢ."""
        p = self.problem
        away = np.linalg.solve(
            np.einsum("n,nij->ij", q, p.hessians), -np.einsum("n,ni->i", q, p.tilts)
        )
        return np.asarray(p.center) + away

    def last(self, method, network, steps):
        start = np.asarray(self.problem.solution)
        state = run(method, self.problem, network, start, steps=steps, every=steps).state
        return np.asarray(state.server)

    @pytest.mark.parametrize(("options", "ticks"), [({"rule": "each"}, False),
                                                    ({"every": 0.5}, True)])  # fmt: skip
    @pytest.mark.slow
    def test_weights_decide_what_is_solved(self, options, ticks):
        """1 / (n φᵢ) solves the problem, equal weights that with quick clients for more."""
        network = widened(arrivals(N, compute=self.work, steps=6000, **options))
        frequency = np.asarray(network.frequency)
        assert np.ptp(frequency) > 0.2
        equal = np.full((N, 1), 1.0 if options.get("rule") else 1 / N)
        unbiased = 1 / (N * frequency[:, None])
        for weights, limit in ((unbiased, np.ones(N) / N), (equal, frequency)):
            method = jd.AsyncFedAvg(0.004, 1.0, jnp.asarray(weights))
            x, goal = self.last(method, network, 6000), self.surrogate(limit)
            away = np.linalg.norm(goal - self.problem.solution)
            assert np.linalg.norm(x - goal) < 0.01
            assert away > 0.3 or limit is not frequency
        np.testing.assert_allclose(self.surrogate(np.ones(N)), self.problem.solution)
        if ticks:  # the network counts them
            default = self.last(jd.FedFix(0.004), jd.replace(network, ticks=True), 6000)
            assert np.linalg.norm(default - self.problem.solution) < 0.01

    def test_defaults_are_the_papers_formulas(self):
        each = arrivals(N, compute=self.work, rule="each", steps=40).at(0, None)
        formula = self.work * np.sum(1 / self.work) / N
        np.testing.assert_allclose(each.interval[:, 0] / N, formula, rtol=1e-12)
        ticks = arrivals(N, compute=self.work, every=0.3, steps=40).at(0, None)
        np.testing.assert_allclose(ticks.interval[:, 0], np.ceil(self.work / 0.3), rtol=1e-12)

    @pytest.mark.slow
    def test_a_table_of_all_clients_solves_the_problem(self):
        network = widened(arrivals(N, compute=self.work, buffer=2, steps=6000))
        exact = self.last(jd.AFACS(0.1, 0.05), network, 6000)
        np.testing.assert_allclose(exact, self.problem.solution, atol=1e-12)
        biased = self.last(jd.AFACD(0.1, 0.05), network, 6000)
        assert np.linalg.norm(biased - self.problem.solution) > 0.3

    def test_a_table_of_clients_with_unequal_weights(self):
        problem = noisy("samples").problem
        network = arrivals(N, compute=self.work, buffer=2, steps=6000)
        x = run(jd.AFACS(0.2, 0.1), problem, network, np.zeros(D), steps=6000, every=6000)
        np.testing.assert_allclose(x.state.server, problem.solution, atol=1e-12)
        equal = noisy().problem.solution
        assert np.linalg.norm(problem.solution - equal) > 0.1


@pytest.mark.slow
def test_fed_fix_is_asynchronous_fed_avg_on_ticks():
    """Also where clients' weights differ."""
    network = arrivals(N, compute=np.linspace(1.0, 0.2, N), every=0.3, steps=T)
    one, other = (
        run(method, noisy("samples"), network, np.ones(D)).history["x"]
        for method in (jd.FedFix(0.2, 0.7, K), jd.AsyncFedAvg(0.2, 0.7, local_steps=K))
    )
    assert np.abs(one[-1] - one[0]).max() > 0.1
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-13)


@pytest.mark.parametrize("rule", ["each", "buffer", "at once"])
@pytest.mark.slow
def test_problems_that_cannot_be_divided(rule):
    """Who comes back has models of its own, of which a buffer may hold two of a client."""
    whole = noisy("samples").problem

    class Plain:
        n, d, shares = N, D, whole.shares

        def grad(self, x, key):
            return whole.grad(x)

    network = arrivals(N, compute=np.linspace(2.0, 0.2, N), steps=T, **RULES[rule][0])
    agents = np.asarray(network.agents)
    twice = [len(set(row)) < len(row) for row in np.where(agents < N, agents, -1)]
    assert any(twice) == (rule == "at once")
    one, other = (
        run(METHODS["AFACS"], problem, network, np.ones(D)).history for problem in (whole, Plain())
    )
    np.testing.assert_allclose(one["x"], other["x"], rtol=1e-12)
    np.testing.assert_allclose(one["vectors"], other["vectors"])


class TestRefusals:
    problem = jd.problems.quadratic(N, D)

    def refused(self, method, network, sentence, steps=3, problem=problem):
        with pytest.raises(ValueError, match=sentence):
            jd.run(method, problem, network, problem.start(), KEY, steps=steps)

    @pytest.mark.parametrize(
        "method", [jd.AsyncFedAvg(0.1), jd.FedBuff(0.1), jd.AFACD(0.1, 0.1), jd.AFACS(0.1, 0.1)]
    )
    def test_of_servers_that_wait(self, method):
        name = type(method).__name__
        self.refused(method, jd.networks.Server(N), f"{name} needs the times at which clients")

    def test_of_ticks_that_are_none(self):
        network = arrivals(N, rule="each", steps=3)
        self.refused(
            jd.FedFix(0.1), network, "FedFix needs a server that aggregates at fixed ticks"
        )

    def test_of_longer_runs_and_other_clients(self):
        network = arrivals(N, rule="each", steps=3)
        self.refused(jd.FedBuff(0.1), network, "the network knows 3 rounds", steps=4)
        fewer = jd.problems.quadratic(N - 1, D)
        self.refused(jd.FedBuff(0.1), network, "has 4 agents and the network 5", problem=fewer)

    def test_of_counts(self):
        with pytest.raises(ValueError, match=r"own_steps is .* give at most local_steps = 2"):
            jd.AFACS(0.1, 0.1, 2, jnp.array([[3.0]]))
        with pytest.raises(ValueError, match="local_steps is 0; give"):
            jd.AsyncFedAvg(0.1, local_steps=0)
