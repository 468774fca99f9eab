"""AD-PSGD and R-FAST, and who meets whom: against the event-by-event clock, limits, lost mass."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import asynchronous, losses

import jaxdopt as jd
from jaxdopt.networks.events import durations

N, D, L2 = 5, 3, 0.05
T = 24
KEY = jax.random.key(6)
GRAPH = jd.networks.metropolis(jd.graphs.erdos_renyi(N, 0.6, seed=2))
ALPHA = 0.2


@functools.cache
def data():
    random = np.random.default_rng(0)
    features = [(1 + i / N) * random.standard_normal((4 + i % 3, D)) + i / 4 for i in range(N)]
    labels = [np.where(f.sum(axis=1) + 2 * random.standard_normal(len(f)) > i / 2, 1.0, -1.0)
              for i, f in enumerate(features)]  # fmt: skip
    return features, labels


@functools.cache
def noisy():
    return jd.problems.Minibatch(jd.problems.logistic_regression(*data(), l2=L2), 2)


@jax.jit
def sampled(problem, agents):
    """The samples that those who are done draw, [T, s, batch]."""
    return jax.vmap(lambda k, who: problem.take(who).indices(jax.random.fold_in(KEY, k)))(
        jnp.arange(T), agents
    )


def gradient(agents):
    """The gradient of event e, whose samples are those of its place in its run."""
    drawn = np.asarray(sampled(noisy(), agents))
    run, place = np.nonzero(np.asarray(agents) < N)
    features, labels = data()

    def of(e, i, x):
        chosen = drawn[run[e], place[e]]
        return losses.logistic_gradient(x, features[i][chosen], labels[i][chosen], L2)

    return of, run


def ends(run, events):
    """The events with which runs end."""
    last = [e for e in range(len(run)) if e + 1 == len(run) or run[e + 1] != run[e]]
    return [events[e] for e in last]


def start():
    return np.random.default_rng(1).standard_normal((N, D))


def estimates(state, problem):
    return state.x


def followed(method, network, problem=None, **metrics):
    metrics = {"x": estimates, **metrics}
    problem = noisy() if problem is None else problem
    return jd.run(method, problem, network, jnp.asarray(start()), KEY, steps=T, metrics=metrics)


class TestPairs:
    @staticmethod
    def meetings(network):
        """(time, worker, partner) in order."""
        run, place = np.nonzero(np.asarray(network.agents) < network.n)
        tables = (network.finish, network.agents, network.partners)
        return list(zip(*(np.asarray(t)[run, place].tolist() for t in tables), strict=True))

    @settings(max_examples=8, deadline=None, derandomize=True)
    @given(seed=st.integers(0, 2**16), messages=st.booleans())
    @pytest.mark.slow
    def test_ad_psgd_equals_the_clock(self, seed, messages):
        """With ties, minibatches and padding, one program for all."""
        random = np.random.default_rng(seed)
        work = random.integers(1, 5, (200, N)) / 4
        travel = messages * random.integers(0, 3, (200, N, N)) / 4
        network = jd.networks.pairwise(
            GRAPH,
            compute=durations.Table(work),
            delay=durations.Table(travel),
            steps=T,
            key=jax.random.key(seed),
        )
        wide = 3 - network.agents.shape[1]  # of five workers at most two pairs
        network = jd.replace(
            network,
            agents=jnp.pad(network.agents, ((0, 0), (0, wide)), constant_values=8 * N),
            partners=jnp.pad(network.partners, ((0, 0), (0, wide)), constant_values=9 * N),
        ) if wide == 1 else network  # fmt: skip
        met = [[p for _, i, p in self.meetings(network) if i == worker] for worker in range(N)]
        links = np.asarray(GRAPH.matrix())
        assert all(links[i, p] > 0 and p != i for i in range(N) for p in met[i])
        of, run = gradient(network.agents)
        expected = asynchronous.ad_psgd(
            of,
            start(),
            ALPHA,
            work.T,
            lambda i, j, m: travel[m, i, j] if m < len(met[i]) else 99.0,
            lambda i, m: met[i][m] if m < len(met[i]) else i,
            len(run),
        )
        assert [(e.time, e.agent) for e in expected] == [m[:2] for m in self.meetings(network)]
        got = followed(jd.ADPSGD(ALPHA), network)
        expected = ends(run, expected)
        np.testing.assert_allclose(
            got.history["x"][1:], [e.x for e in expected], rtol=1e-10, atol=1e-10
        )
        np.testing.assert_allclose(got.history["seconds"][1:], [e.time for e in expected])
        done = np.searchsorted(run, np.arange(T), side="right")
        np.testing.assert_allclose(got.history["gradients"][1:], 2 * done / N, rtol=1e-5)
        np.testing.assert_allclose(got.history["traffic"][1:], 2 * 32 * D * done, rtol=1e-5)

    def test_runs_are_as_long_as_pairs_do_not_touch(self):
        network = jd.networks.pairwise(
            jd.networks.metropolis(jd.graphs.ring(8)), compute=durations.Exponential(1.0), steps=60
        )
        before: set[int] = set()
        for who, partner in zip(network.agents, network.partners, strict=True):
            pairs = [{int(i), int(j)} for i, j in zip(who, partner, strict=True) if i < 8]
            here = set.union(*pairs)
            assert len(here) == 2 * len(pairs)
            assert not before or before & pairs[0]
            before = here
            assert len({*who.tolist(), *partner.tolist()}) == 2 * len(who)  # padding included

    def test_partners_are_all_neighbors_alike(self):
        network = jd.networks.pairwise(GRAPH, seconds=4000.0)
        meetings = np.array(self.meetings(network), int)[:, 1:]
        links = np.asarray(GRAPH.matrix()) * (1 - np.eye(N)) > 0
        counts = np.zeros((N, N))
        np.add.at(counts, tuple(meetings.T), 1)
        expected = links / links.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(counts / counts.sum(axis=1, keepdims=True), expected, atol=0.04)
        assert np.all(counts.sum(axis=1) == 4000)

    def test_quick_workers_count_for_more(self):
        """The limit is near the minimizer of Σ pᵢ fᵢ, pᵢ the share of gradients."""
        work = np.linspace(1.0, 0.2, N)
        network = jd.networks.pairwise(GRAPH, compute=work, steps=8000)
        problem = jd.problems.quadratic(N, D, condition_number=3.0, curvature_spread=0.5)
        run = jd.run(
            jd.ADPSGD(0.005), problem, network, problem.start(), KEY, steps=8000, every=8000
        )
        share = (1 / work) / np.sum(1 / work)
        away = np.linalg.solve(
            np.einsum("n,nij->ij", share, problem.hessians),
            -np.einsum("n,ni->i", share, problem.tilts),
        )
        x = run.state.x.mean(axis=0) - problem.center
        assert np.linalg.norm(away) > 0.3
        assert np.linalg.norm(x - away) < 0.1 * np.linalg.norm(away)

    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            ({}, "steps is None and seconds None; give one of the two"),
            ({"steps": 3, "delay": np.inf}, "delay is infinite for some"),
            ({"steps": 3, "compute": np.inf}, "all compute times are infinite"),
            ({"steps": 3, "compute": 0.0}, r"takes 0\.0 seconds; give compute times above 0"),
            ({"seconds": 0.5}, r"nothing happens within 0\.5 seconds; give more"),
        ],
    )
    def test_bad_times_are_refused(self, options, sentence):
        with pytest.raises(ValueError, match=sentence):
            jd.networks.pairwise(GRAPH, **options)

    def test_other_networks_are_refused(self):
        directed = jd.networks.metropolis(jd.graphs.directed_ring(N))
        with pytest.raises(ValueError, match="pairs need at least two agents on fixed links that"):
            jd.networks.pairwise(directed, steps=3)
        problem = jd.problems.quadratic(N, D)
        with pytest.raises(ValueError, match="ADPSGD needs the meetings of pairs of agents"):
            jd.run(jd.ADPSGD(0.1), problem, GRAPH, problem.start(), KEY, steps=3)
        pairs = jd.networks.pairwise(GRAPH, steps=3)
        with pytest.raises(ValueError, match=r"DGD needs doubly stochastic weights .* this Pairs"):
            jd.run(jd.DGD(0.1), problem, pairs, problem.start(), KEY, steps=3)
        with pytest.raises(ValueError, match="this Pairs does not offer that"):
            _ = pairs.spectral_gap


def lost(network, columns):
    """A metric: what the invariant of R-FAST says is 0, with sums in float64."""
    shares = jnp.asarray(columns)

    def metric(state, problem):
        r = state.line.rows[state.line.head, jnp.arange(N), D:]
        sender, kept = network.sender, shares[jnp.arange(N)[:, None], network.sender]
        flight = kept[..., None] * (r[sender] - state.taken)
        return state.z.sum(axis=0) + flight.sum(axis=(0, 1)) - state.g.sum(axis=0)

    return metric


class TestRFAST:
    @pytest.mark.parametrize("directed", [False, True])
    def test_equals_the_clock(self, directed):
        """With lost messages, others that overtake, ties, minibatches."""
        random = np.random.default_rng(8)
        work = random.integers(1, 5, (200, N)) / 4
        travel = random.integers(0, 9, (200, N, N)) / 4
        travel[random.random(travel.shape) < 0.3] = np.inf
        links = jd.graphs.erdos_renyi(N, 0.6, seed=2)
        wires = jd.networks.push_pull(links) if directed else GRAPH
        row, column = (np.asarray(part.matrix()) for part in (wires.row, wires.column))
        network = jd.networks.timeline(
            wires, compute=durations.Table(work), delay=durations.Table(travel), steps=T
        )
        of, run = gradient(network.agents)
        expected = asynchronous.r_fast(
            of, row, column, start(), ALPHA, work.T, lambda i, j, m: travel[m, i, j], len(run)
        )
        off = column * (1 - np.eye(N))
        got = followed(jd.RFAST(ALPHA), network, lost=lost(network, off))
        np.testing.assert_allclose(
            got.history["x"][1:], [e.x for e in ends(run, expected)], rtol=1e-10, atol=1e-10
        )
        np.testing.assert_allclose(got.history["lost"], 0, atol=1e-12)

    def test_is_exact_whatever_is_late_or_lost(self):
        """Speeds from 1 to 5, delays up to three gradients and 30 % of all messages lost."""
        problem = jd.problems.quadratic(N, D, condition_number=3.0, curvature_spread=0.5)
        network = jd.networks.timeline(
            GRAPH,
            compute=np.linspace(1.0, 0.2, N),
            delay=durations.Lost(durations.Exponential(0.6), 0.3),
            steps=6000,
        )
        run = jd.run(jd.RFAST(0.2), problem, network, problem.start(), KEY, steps=6000, every=600)
        errors = run.history["distance_squared"] + run.history["consensus_error"]
        assert errors[-1] < 1e-20

    def test_one_sided_weights_are_refused(self):
        problem = jd.problems.quadratic(N, D)
        rows = jd.networks.timeline(jd.networks.row_stochastic(jd.graphs.directed_ring(N)), steps=3)
        for network, sentence in (
            (
                rows,
                "whose rows and columns sum to 1 and this row-stochastic Timeline",
            ),
            (GRAPH, "RFAST needs a timeline of agents that never wait"),
        ):
            with pytest.raises(ValueError, match=sentence):
                jd.run(jd.RFAST(0.1), problem, network, problem.start(), KEY, steps=3)
