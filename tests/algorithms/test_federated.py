"""Federated methods: against loops over clients, their memories, their limits, their reductions.

A method is two programs, for masks and for few clients whose rows are gathered: fifty rounds on
seven tables of who takes part, of noisy quadratics whose noise may be 0. All is asked of these.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from reference import federated, losses

import jaxdopt as jd
from jaxdopt.algorithms.federated.clients import clipped, participants
from jaxdopt.networks import participation

N, D, K, ROUNDS = 6, 3, 5, 50
KEY = jax.random.key(4)
QUADRATIC = jd.problems.quadratic(N, D, condition_number=3, curvature_spread=0.5)
X0 = np.random.default_rng(1).standard_normal(D)
LONG = 1500  # rounds after which the exact ones are at the solution


@jd.pytree
class Table:
    """A schedule that is one program whatever it says."""

    values: Any  # [k, n, 1]

    def __call__(self, k):
        return self.values[k]


OWN = np.random.default_rng(3).uniform(0.01, 0.1, (ROUNDS, N))  # of every round and client
STEPS = np.array([1, 5, 2, 4, 3, 5])  # own numbers of local steps

# name: (how it is built, its loop, what this takes, who has to come back for it to be exact)
METHODS = {
    "FedAvg": (jd.FedAvg, federated.fed_avg, {}, "nobody"),
    "FedProx": (functools.partial(jd.FedProx, proximal=0.3), federated.fed_prox,
                {"proximal": 0.3}, "nobody"),
    "SCAFFOLD": (jd.SCAFFOLD, federated.scaffold, {}, "all"),
    "MIFA": (jd.MIFA, federated.mifa, {}, "drifts"),
    "FedVARP": (jd.FedVARP, federated.fed_varp, {}, "drifts"),
    "FOCUS": (jd.FOCUS, federated.focus, {}, "all"),
    "FedSUMB": (jd.FedSUMB, federated.fed_sum_b, {}, "all"),
    "FedSUM": (jd.FedSUM, federated.fed_sum, {}, "all"),
    "FedSUMCR": (jd.FedSUMCR, federated.fed_sum_cr, {}, "all"),
    "FedAvgMomentum": (functools.partial(jd.FedAvgMomentum, gradient_weight=0.4),
                       federated.fed_avg_momentum, {"gradient_weight": 0.4}, "nobody"),
    "SCAFFOLDMomentum": (functools.partial(jd.SCAFFOLDMomentum, gradient_weight=0.4),
                         federated.scaffold_momentum, {"gradient_weight": 0.4}, "all"),
}  # fmt: skip
MEMORIES = {  # what the server keeps up, and what of the clients it is the mean of, over n for sums
    "SCAFFOLD": lambda s: (s.c, s.own),
    "SCAFFOLDMomentum": lambda s: (s.c, s.own),
    "MIFA": lambda s: (s.mean, s.updates),
    "FedVARP": lambda s: (s.mean, s.updates),
    "FOCUS": lambda s: (s.y / N, s.h),
    "FedSUMB": lambda s: (s.y, s.h),
    "FedSUM": lambda s: (s.y, s.h),
    "FedSUMCR": lambda s: (s.y, s.h),
}
WEIGHTS = {"equal": np.full(N, 1 / N), "unequal": np.array([1, 8, 2, 1, 3, 5]) / 20}  # pᵢ


@jd.pytree
class Weighed:
    """Quadratics fᵢ whose weights pᵢ differ: ``grad`` answers with n pᵢ ∇fᵢ."""

    quadratic: Any
    shares: Any  # n pᵢ

    @property
    def n(self):
        return self.quadratic.n

    d = D

    def grad(self, x, key=None):
        return self.shares[:, None] * self.quadratic.grad(x)

    def take(self, agents):
        return Weighed(self.quadratic.take(agents), self.shares.at[agents].get(mode="clip"))


def solution(weights):
    """The minimizer of Σᵢ pᵢ fᵢ."""
    p = WEIGHTS[weights]
    hessian = np.einsum("n,nij->ij", p, QUADRATIC.hessians)
    return np.asarray(QUADRATIC.center) - np.linalg.solve(hessian, p @ np.asarray(QUADRATIC.tilts))


@pytest.fixture(autouse=True, scope="module")
def fresh():
    """Forget what was run."""
    yield
    rounds.cache_clear()


@functools.cache
def tables():
    """Seven patterns of who takes part, as [7, LONG, N] booleans; the last few are rarely there."""
    patterns = {
        "full": participation.full(N),
        "uniform": participation.uniform(N, 2),
        "unequal": participation.bernoulli(np.linspace(0.1, 0.9, N)),
        "cyclic": participation.cyclic(N, 3),
        "reshuffled": participation.reshuffled_cyclic(N, 3),
        "rare": participation.rare(N, 10),
        "markov": participation.markov(N, 0.3, 0.2, steps=LONG, key=KEY),
    }
    found = {name: np.array(participation.active(p, LONG, KEY)) for name, p in patterns.items()}
    for there in found.values():
        there[[20, 31, 32]] = False  # rounds without anybody
    assert [name for name, there in found.items() if there.sum(axis=1).max() <= N / 2] == [
        "uniform", "cyclic", "reshuffled",
    ]  # fmt: skip
    return found


FEW = ("uniform", "cyclic", "reshuffled")


def masked(names: Any = None) -> Any:
    there = np.stack([tables()[name] for name in names or tables()])
    return participation.Trace(jnp.asarray(there), N)


def gathered() -> Any:
    traces = [participation.trace(tables()[name]) for name in FEW]
    assert all(trace.bound == 2 for trace in traces)
    return jax.tree.map(lambda *rows: jnp.stack(rows), *traces)


def noisy(sigma, weights="equal"):
    shares = jnp.asarray(N * WEIGHTS[weights])
    return jd.problems.GaussianNoise(Weighed(QUADRATIC, shares), jnp.asarray(sigma))


def values(stepsize):
    return Table(jnp.broadcast_to(jnp.asarray(stepsize), (ROUNDS, N))[:, :, None])


def build(name, stepsize, **more):
    return METHODS[name][0](values(stepsize), local_steps=K, **more)


def servers(state, problem):
    return state.server


@functools.partial(jax.jit, static_argnames="metric")
def fifty(method, problem, networks, states, start, metric=None):
    """Fifty rounds on a stack of networks, recorded one by one."""
    metrics = {"server": servers} | ({} if metric is None else {"memory": metric})
    options = {"steps": ROUNDS, "start": start, "metrics": metrics, "defaults": ()}

    def go(network, state):
        return jd.run(method, problem, network, None, KEY, state=state, **options)

    return jax.vmap(go)(networks, states)


def cold(method, problem, networks):
    """The states at X0, one a network."""
    here = jnp.broadcast_to(jnp.asarray(X0), (N, D))
    state = method.init(here, problem, jd.networks.Server(N), KEY)
    count = jax.tree.leaves(networks)[0].shape[0]
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (count, *leaf.shape)), state)


@functools.cache
def memory(name):
    """A metric: the largest difference of the server's memory from the clients'."""

    def difference(state, problem):
        kept, of_clients = MEMORIES[name](state)
        return jnp.abs(kept - (problem.shares[:, None] * of_clients).mean(axis=-2)).max()

    return difference if name in MEMORIES else None


@functools.cache
def rounds(name, sigma, few=False, weights="equal"):
    """Fifty rounds of a method with own stepsizes, of all clients or of gathered rows."""
    networks, method = gathered() if few else masked(), build(name, OWN)
    problem = noisy(sigma, weights)
    return fifty(method, problem, networks, cold(method, problem, networks), 0, memory(name))


@functools.cache
def noise(few):
    """What is added to gradients in every round and local step, [7 or 3, rounds, K, rows, D]."""
    problem = noisy(1.0)

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(0, None, None))
    @functools.partial(jax.vmap, in_axes=(None, 0, None))
    @functools.partial(jax.vmap, in_axes=(None, None, 0))
    def drawn(network, k, local):
        clients = network.at(k, KEY).clients
        key = jax.random.fold_in(jax.random.fold_in(KEY, k), local)
        theirs = problem if clients is None else problem.take(clients)
        zero = jnp.zeros((theirs.n, D))
        return theirs.grad(zero, key) - theirs.problem.grad(zero)

    return np.asarray(drawn(gathered() if few else masked(), jnp.arange(ROUNDS), jnp.arange(K)))


def oracle(sigma, there, added):
    """The gradients as the loops ask for them; ``added`` [rounds, K, rows, D]."""
    hessians, tilts, center = (np.asarray(getattr(QUADRATIC, name))
                               for name in ("hessians", "tilts", "center"))  # fmt: skip

    def gradient(i, x, k, local):
        few = added.shape[2] < N
        row = np.flatnonzero(there[k]).tolist().index(i) if few else i
        return hessians[i] @ (x - center) + tilts[i] + sigma * added[k, local, row]

    return gradient


@pytest.mark.parametrize(
    "weights", [pytest.param("equal", marks=pytest.mark.slow), "unequal"]
)  # the catalogue asks equal ones
@pytest.mark.parametrize("few", [False, True], ids=["masked", "gathered"])
@pytest.mark.parametrize("name", METHODS)
def test_trajectories_are_those_of_loops(name, few, weights):
    """With noise, an own stepsize for every client and round, and rounds without anybody."""
    got = rounds(name, 0.5, few, weights).history["server"]
    _, loop, numbers, _ = METHODS[name]
    for j, pattern in enumerate(FEW if few else tables()):
        there = tables()[pattern][:ROUNDS]
        gradient = oracle(0.5, there, noise(few)[j])
        numbers = {**numbers, "local_steps": K, "p": WEIGHTS[weights]}
        expected = loop(gradient, there, X0, OWN.__getitem__, ROUNDS, **numbers)
        np.testing.assert_allclose(got[j], expected, rtol=1e-10, atol=1e-10, err_msg=pattern)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("name", MEMORIES)
def test_the_server_knows_the_clients_memories_in_every_round(name, weights):
    for few in (False, True):
        assert rounds(name, 0.5, few, weights).history["memory"].max() < 1e-13


@pytest.mark.parametrize("name", METHODS)
def test_gathered_rows_take_the_same_way_as_masked_ones(name):
    """Without noise, which is drawn for those who take part."""
    at = [list(tables()).index(pattern) for pattern in FEW]
    ours, theirs = (rounds(name, 0.0, few).history["server"] for few in (True, False))
    np.testing.assert_allclose(ours, theirs[at], rtol=1e-12, atol=1e-13)


@functools.cache
def limit(name, stepsize=0.02, weights="equal"):
    """Squared distances from the solution after many rounds without noise, one a pattern."""
    networks, method, problem = masked(), build(name, stepsize), noisy(0.0, weights)
    states = cold(method, problem, networks)
    for start in range(0, LONG, ROUNDS):
        states = fifty(method, problem, networks, states, start, memory(name)).state
    return np.sum((np.asarray(states.server) - solution(weights)) ** 2, axis=1)


@pytest.mark.slow
@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("name", METHODS)
def test_limits_with_several_local_steps_under_seven_patterns(name, weights):
    """Exact; or as biased as FedAvg with everybody; or biased by who takes part."""
    stepsize = {"FOCUS": 0.06 / N, "FedSUMB": 0.06}.get(name, 0.02)
    found, exact = limit(name, stepsize, weights), METHODS[name][3]
    if exact == "all":
        assert found.max() < 1e-20
    elif exact == "drifts":
        np.testing.assert_allclose(found, limit("FedAvg", weights=weights)[0], rtol=1e-8)
    else:
        assert 1e-9 < found[0] < found[1:].min()
        assert found[list(tables()).index("rare")] > 1e-3


def reduced(name, stepsize, sigma=0.0, which=None, **more):
    """The servers' models with one local step, or others if given."""
    networks = masked(which)
    method = METHODS[name][0](values(stepsize), **{"local_steps": 1, **more})
    problem = noisy(sigma)
    return fifty(method, problem, networks, cold(method, problem, networks), 0).history["server"]


@pytest.mark.slow
def test_with_one_local_step_the_sums_are_one_method():
    """FedSUM, FedSUM-B, MIFA, and FOCUS with stepsizes over n: also with noise, all patterns."""
    basic = reduced("FedSUMB", OWN, 0.5)
    assert np.abs(np.diff(basic, axis=1)[:, 20]).max() > 1e-4  # an empty round moves x
    for other in ("FedSUM", "MIFA"):
        np.testing.assert_allclose(reduced(other, OWN, 0.5), basic, rtol=0, atol=1e-13)
    np.testing.assert_allclose(reduced("FOCUS", OWN / N, 0.5), basic, rtol=0, atol=1e-13)


@pytest.mark.slow
def test_with_everybody_in_every_round():
    """Where nobody is ever missing, FedSUM, SCAFFOLD and, but for its start, FedSUM-CR agree."""
    everybody = participation.Trace(jnp.ones((1, ROUNDS, N), bool), N)
    problem = noisy(0.5)

    def go(name, state=None, start=0):
        method = build(name, 0.05)
        states = cold(method, problem, everybody) if state is None else state
        return fifty(method, problem, everybody, states, start)

    sums, reduced = go("FedSUM"), go("FedSUMCR")
    np.testing.assert_allclose(
        go("SCAFFOLD").history["server"], sums.history["server"], rtol=0, atol=1e-13
    )
    np.testing.assert_allclose(
        reduced.history["server"], sums.history["server"], rtol=0, atol=1e-11
    )


def test_beta_one_and_mu_zero_are_the_methods_without():
    for name, plain, option in (
        ("FedAvgMomentum", "FedAvg", {"gradient_weight": 1.0}),
        ("SCAFFOLDMomentum", "SCAFFOLD", {"gradient_weight": 1.0}),
        ("FedProx", "FedAvg", {"proximal": 0.0}),
    ):
        networks, problem = masked(), noisy(0.5)
        method = build(name, OWN.mean(axis=1, keepdims=True), **option)
        states = cold(method, problem, networks)
        got = fifty(method, problem, networks, states, 0, memory(name)).history["server"]
        method = build(plain, OWN.mean(axis=1, keepdims=True))
        states = cold(method, problem, networks)
        expected = fifty(method, problem, networks, states, 0, memory(plain)).history["server"]
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-13)


def test_momentum_takes_its_share_off_the_bias():
    """Without noise and with everybody, |x − x*| is β times FedAvg's."""
    errors = np.sqrt([limit("FedAvg")[0], limit("FedAvgMomentum")[0]])
    np.testing.assert_allclose(errors[1] / errors[0], 0.4, rtol=0.02)


COSTS = {  # vectors down and up, and single numbers, of a client that takes part
    "FedAvg": (2, 0), "FedProx": (2, 0), "SCAFFOLD": (3, 0), "MIFA": (2, 0), "FedVARP": (2, 0),
    "FOCUS": (2, 0), "FedSUMB": (2, 0), "FedSUM": (3, 0), "FedSUMCR": (2, 1),
    "FedAvgMomentum": (3, 0), "SCAFFOLDMomentum": (4, 0),
}  # fmt: skip


@pytest.mark.parametrize("name", METHODS)
def test_costs_are_those_of_who_takes_part(name):
    vectors, numbers = COSTS[name]
    for few in (False, True):
        history = rounds(name, 0.5, few).history
        for j, pattern in enumerate(FEW if few else tables()):
            there = tables()[pattern][:ROUNDS].sum()
            found = {axis: history[axis][j, -1] for axis in ("rounds", "gradients", "vectors")}
            expected = {"rounds": ROUNDS, "gradients": K * there / N}
            expected["vectors"] = there / N * vectors / 2
            assert found == pytest.approx(expected)
            bits = there * 32 * (vectors * D + numbers)  # both ways, of all clients
            assert history["traffic"][j, -1] == pytest.approx(bits)


def fed_avg(sigma=0.5, stepsize: Any = 0.05, **options):
    """FedAvg's models on all patterns, with other options, and its loop's."""
    method = jd.FedAvg(values(stepsize), **{"local_steps": K, **options})
    problem, networks = noisy(sigma), masked()
    return fifty(method, problem, networks, cold(method, problem, networks), 0).history["server"]


def loop_of_fed_avg(**numbers):
    for j, there in enumerate(tables().values()):
        gradient = oracle(0.5, there[:ROUNDS], noise(False)[j])
        numbers = {"local_steps": K, **numbers}
        yield federated.fed_avg(gradient, there[:ROUNDS], X0, lambda _: 0.05, ROUNDS, **numbers)


@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        ({"own_steps": STEPS[:, None]}, {"own_steps": STEPS}),
        (
            {"own_steps": STEPS[:, None], "normalized": True},
            {"own_steps": STEPS, "normalized": True},
        ),
        ({"local": optax.trace(0.9)}, {"local_momentum": 0.9}),
        (
            {"server": optax.scale_by_adam(0.8, 0.95, 1e-3), "server_stepsize": 0.1},
            {"server": federated.adam(0.8, 0.95, 1e-3), "server_stepsize": 0.1},
        ),
    ],
    ids=["own numbers of steps", "normalized", "local momentum", "server Adam"],
)
def test_options_of_fed_avg(options, numbers):
    """Rounds without anybody leave the server's optimizer alone."""
    loops = np.stack(list(loop_of_fed_avg(**numbers)))
    np.testing.assert_allclose(fed_avg(**options), loops, rtol=1e-10, atol=1e-10)


def test_published_fed_adam_differs_from_adam():
    """It has no bias correction and begins with v = τ²: its first step is shorter, for large τ."""
    tau = 1e-3
    ours = fed_avg(server=optax.scale_by_adam(0.9, 0.99, tau), server_stepsize=0.1)
    loops = np.stack(
        list(loop_of_fed_avg(server=federated.fed_adam(0.9, 0.99, tau), server_stepsize=0.1))
    )
    update = X0 - fed_avg()[0, 1]  # of the first round, with everybody
    first = 0.1 * update / (np.sqrt(0.01 * update**2 + 0.99 * tau**2) + tau)
    np.testing.assert_allclose(X0 - loops[0, 1], 0.1 * first, rtol=1e-10)
    np.testing.assert_allclose(
        X0 - ours[0, 1], 0.1 * update / (np.abs(update) + tau), rtol=1e-10
    )  # sign(Δ) but for τ: the published first step is nearly as long, by 0.1 / √0.01
    assert np.abs(ours[:, 10] - loops[:, 10]).max() > 1e-2


def settled(method, problem, steps=1200, network=None):
    """The error after full participation, or on another network, without noise."""
    network = jd.networks.Server(problem.n) if network is None else network
    run = jd.run(method, problem, network, problem.start(), KEY, steps=steps, every=steps)
    return float(run.history["distance_squared"][-1]) ** 0.5


def test_bias_of_fed_avg_is_linear_in_the_stepsize_and_grows_with_local_steps():
    for local_steps in (5, 10):
        errors = [settled(jd.FedAvg(a / local_steps, local_steps=local_steps), QUADRATIC)
                  for a in (0.04, 0.02)]  # fmt: skip
        np.testing.assert_allclose(errors[0] / errors[1], 2, rtol=0.1)
    few, many = (np.sqrt(limit(name)[0]) for name in ("FedProx", "FedAvg"))
    assert few < many  # the pull of FedProx makes the drift less


def test_fed_avg_is_exact_for_agents_that_share_a_minimizer_and_for_falling_stepsizes():
    shared = jd.problems.quadratic(N, D, heterogeneity=0.0, curvature_spread=0.5)
    assert jd.problems.heterogeneity(shared).gap == 0
    assert settled(jd.FedAvg(0.1, local_steps=K), shared) < 1e-12
    falling = [settled(jd.FedAvg(jd.schedules.InverseTime(2.0, offset=20), local_steps=K),
                       QUADRATIC, steps) for steps in (200, 2000)]  # fmt: skip
    assert falling[1] < falling[0] / 8


def test_unequal_participation_biases_fed_avg_even_without_drift():
    there = masked(("unequal",))
    method, problem = jd.FedAvg(values(0.05)), noisy(0.0)
    states = cold(method, problem, there)
    for start in range(0, LONG, ROUNDS):
        found = fifty(method, problem, there, states, start)
        states = found.state
    errors = np.sqrt(np.sum((found.history["server"][0] - QUADRATIC.solution) ** 2, axis=1))
    assert errors.mean() > 0.1


@pytest.mark.slow
def test_clients_that_never_come_back_leave_what_they_sent_last():
    """The run goes on; memories stay, and so the limit is not where the others would lead alone."""
    there = tables()["unequal"].copy()
    there[10:, 2] = False
    networks = participation.Trace(jnp.asarray(there)[None], N)
    for name, rows in (("FedSUM", "h"), ("MIFA", "updates"), ("FedSUMCR", "seen")):
        method, problem = build(name, 0.02), noisy(0.0)
        states, kept = cold(method, problem, networks), []
        for start in range(0, 300, ROUNDS):
            states = fifty(method, problem, networks, states, start, memory(name)).state
            kept.append(np.asarray(getattr(states, rows))[0, 2])
        assert np.all(kept == kept[0])
        assert np.abs(kept[0]).max() > 0
        assert np.all(np.isfinite(states.server))
        assert np.sum((states.server - QUADRATIC.solution) ** 2) > 1e-4


@pytest.mark.parametrize("weights", ["agents", "samples"])
@pytest.mark.parametrize("name", ["FedAvg", "FedSUM"])
@pytest.mark.slow
def test_minibatches_of_uneven_clients(name, weights):
    """Of those gathered, only the samples that they draw: against the loop, with 4 to 7 samples."""
    random = np.random.default_rng(2)
    features = [random.standard_normal((4 + i % 4, D)) + i / 4 for i in range(N)]
    labels = [np.where(f.sum(axis=1) + random.standard_normal(len(f)) > i / 2, 1.0, -1.0)
              for i, f in enumerate(features)]  # fmt: skip
    whole = jd.problems.logistic_regression(features, labels, l2=0.1, weights=weights)
    sizes = np.array([len(f) for f in features])
    p = None if weights == "agents" else sizes / sizes.sum()
    problem = jd.problems.Minibatch(whole, 2)
    table = tables()["uniform"][:30]
    drawn = {}
    for k in range(30):
        who = np.flatnonzero(table[k])
        padded = jnp.asarray([*who, *range(N, N + 2 - len(who))])
        for local in range(2):
            key = jax.random.fold_in(jax.random.fold_in(KEY, k), local)
            for i, samples in zip(who, problem.take(padded).indices(key), strict=False):
                drawn[k, local, i] = np.asarray(samples)

    def gradient(i, x, k, local):
        chosen = drawn[k, local, i]
        return losses.logistic_gradient(x, features[i][chosen], labels[i][chosen], 0.1)

    expected = METHODS[name][1](gradient, table, X0, lambda _: 0.1, 30, local_steps=2, p=p)
    got = jd.run(
        METHODS[name][0](0.1, local_steps=2),
        problem,
        participation.trace(table),
        problem.start(jnp.asarray(X0)),
        KEY,
        steps=30,
        metrics={"server": servers},
    )
    np.testing.assert_allclose(got.history["server"], expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("stepsize", "local_steps"), [(0.3, 1), (0.02, 5), (0.3, 5)])
@pytest.mark.slow
def test_a_client_with_nearly_all_samples(stepsize, local_steps):
    """All 20 clients share a stepsize that suits each; the server weighs them by their samples."""
    random = np.random.default_rng(0)
    sizes = [400] + [4] * 19
    features = [random.normal(size=(m, 5)) for m in sizes]
    truth = random.normal(size=5)
    labels = [a @ (truth + 0.5 * (i > 0) * random.normal(size=5)) for i, a in enumerate(features)]
    problem = jd.problems.least_squares(features, labels, weights="samples")
    everybody = np.ones((60, 20), bool)

    def gradient(i, x, k, local):
        return losses.least_squares_gradient(x, features[i], labels[i], 0.0)

    p = np.array(sizes) / 476
    expected = federated.fed_avg(
        gradient, everybody, np.zeros(5), lambda _: stepsize, 60, local_steps, p=p
    )
    run = jd.run(
        jd.FedAvg(stepsize, local_steps=local_steps), problem, participation.full(20),
        problem.start(), KEY, steps=60, metrics={"server": servers},
    )  # fmt: skip
    np.testing.assert_allclose(run.history["server"], expected, rtol=1e-10, atol=1e-10)
    biased = {(0.3, 1): 0.0, (0.02, 5): 3.76e-5, (0.3, 5): 8.32e-4}[stepsize, local_steps]
    assert run.history["gap"][-1] == pytest.approx(biased, rel=1e-2, abs=1e-12)


class TestWrappers:
    """Clients step along gᵢ of their own fᵢ, and are weighed, whatever is around a problem."""

    def made(self, wrapper, weights):
        random = np.random.default_rng(0)
        sizes = (20, 3, 5, 4)
        features = [random.normal(size=(m, 2)) for m in sizes]
        labels = [random.normal(size=m) for m in sizes]
        return wrapper(jd.problems.least_squares(features, labels, l2=0.1, weights=weights))

    @pytest.mark.parametrize(
        "wrapper",
        [
            lambda problem: problem,
            lambda problem: jd.problems.Minibatch(problem, 2),
            lambda problem: jd.problems.GaussianNoise(jd.problems.Minibatch(problem, 2), 0.7),
            lambda problem: jd.problems.Composite(
                jd.problems.GaussianNoise(problem, 0.7), jd.problems.prox.L1(0.1)
            ),
        ],
        ids=["none", "minibatch", "noise", "composite"],
    )
    def test_gradients_and_means(self, wrapper):
        own, weighed = (self.made(wrapper, weights) for weights in ("agents", "samples"))
        p = np.array([20, 3, 5, 4]) / 32
        here = np.array([2, 0])
        server = jd.networks.Server(4)
        for network, rows in (
            (server, np.arange(4)),
            (jd.replace(server, clients=jnp.array([2, 0, 4])), here),  # one is padding
        ):
            one, other = participants(own, network), participants(weighed, network)
            x = jnp.asarray(np.random.default_rng(1).normal(size=(one.problem.n, 2)))
            g = np.asarray(one.grad(x, KEY))
            np.testing.assert_allclose(other.grad(x, KEY), g, rtol=1e-12)
            if network is server:  # what peers are given has the same mean, noise and all
                mean = np.mean(weighed.grad(x, KEY), axis=0)
                np.testing.assert_allclose(other.total(jnp.asarray(g)) / 4, mean, rtol=1e-12)
            g = g[: len(rows)]
            np.testing.assert_allclose(other.mean(g_of(other, g)), p[rows] @ g / p[rows].sum())
            np.testing.assert_allclose(other.total(g_of(other, g)), 4 * p[rows] @ g)
        part = participants(weighed.take(jnp.asarray(here)), jd.networks.Server(2))
        np.testing.assert_allclose(part.shares, 4 * p[here])

    def test_peers_are_given_weighed_gradients(self):
        """A first step of local DSGD and OLDSGD moves the mean along ∇F, as FedAvg's does."""
        problem = self.made(lambda problem: problem, "samples")
        x0 = problem.start(jnp.array([1.0, -2.0]))
        first, *others = (
            jd.run(method(0.05), problem, network, x0, KEY, steps=1).state.x
            for method, network in (
                (jd.GradientDescent, jd.networks.Complete(4)),
                (jd.FedAvg, jd.networks.Server(4)),
                (jd.LocalDSGD, jd.networks.Complete(4)),
                (jd.OLDSGD, jd.networks.Complete(4)),
            )
        )
        for x in others:
            np.testing.assert_allclose(x.mean(axis=0), first[0], rtol=1e-12)


def g_of(clients, rows):
    """Rows of all that are computed, with NaN where nobody is."""
    padded = np.full((clients.problem.n, rows.shape[1]), np.nan)
    padded[: len(rows)] = rows
    return jnp.asarray(padded)


def test_mifa_that_waits_for_all_at_first():
    """The authors' main form is their MIFA(0), which ours is, where all are in round 0."""
    there = tables()["unequal"][:ROUNDS].copy()
    for first in (False, True):
        there[0] |= first
        gradient = oracle(0.0, there, noise(False)[0])
        cold, waits = (
            federated.mifa(gradient, there, X0, lambda _: 0.05, ROUNDS, K, waits=w)
            for w in (False, True)
        )
        assert np.array_equal(cold, waits) == first
    network = participation.trace(there)
    run = jd.run(jd.MIFA(0.05, local_steps=K), QUADRATIC, network, QUADRATIC.start(jnp.asarray(X0)),
                 KEY, steps=ROUNDS, metrics={"server": servers})  # fmt: skip
    np.testing.assert_allclose(run.history["server"], waits, rtol=1e-10, atol=1e-10)


def test_stepsizes_and_seeds_sweep():
    world = jd.problems.GaussianNoise(QUADRATIC, 0.1)
    dataset = jd.compare(
        {"FedSUM": jd.FedSUM(0.1, local_steps=2)},
        world,
        participation.uniform(N, 2),
        over={"stepsize": [0.02, 0.1]},
        seeds=2,
        steps=40,
        every=10,
        progress=False,
    )
    assert dataset["gap"].shape == (1, 1, 2, 2, 5)
    assert np.all(dataset["consensus_error"] == 0)
    assert len(np.unique(dataset["gap"][..., -1])) == 4
    single = jd.run(
        jd.FedSUM(0.1, local_steps=2), world, participation.uniform(N, 2),
        QUADRATIC.start(), jax.random.key(1), steps=40, every=10,
    )  # fmt: skip
    chosen = dataset["gap"].sel(stepsize=0.1, seed=1).squeeze()
    np.testing.assert_allclose(chosen, single.history["gap"], rtol=1e-9)


@pytest.mark.parametrize("name", METHODS)
def test_float32_stays_float32(name, float32):
    quadratic = jd.problems.quadratic(N, D)
    for network in (participation.uniform(N, 2), participation.bernoulli(0.5, n=N)):
        method = METHODS[name][0](jnp.full((N, 1), 0.1), local_steps=2)
        start = quadratic.start()
        run = jax.eval_shape(
            lambda method, network=network, start=start: jd.run(
                method, quadratic, network, start, KEY, steps=2
            ),
            method,
        )
        leaves = jax.tree.leaves((run.state, run.metrics, run.costs))
        floats = {leaf.dtype for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)}
        assert floats == {np.dtype(np.float32)}


@pytest.mark.parametrize("name", ["FedAvg", "FedSUMCR"])
def test_one_client_that_comes_and_goes(name):
    alone = jd.problems.quadratic(1, D, condition_number=2)
    network = participation.bernoulli([0.5])
    assert settled(METHODS[name][0](0.1, local_steps=2), alone, 600, network) < 1e-10


def test_problems_that_cannot_be_divided_are_masked():
    """Their clients are as if all worked, and the others' work is not used."""

    class Plain:
        n, d = N, D

        def grad(self, x, key):
            return QUADRATIC.grad(x)

    start = QUADRATIC.start()
    network = participation.uniform(N, 2)
    noisy = jd.problems.GaussianNoise(Plain(), 0.0)
    got = jd.run(jd.FedAvg(0.1), noisy, network, start, KEY, steps=10).state.x
    expected = jd.run(jd.FedAvg(0.1), QUADRATIC, network, start, KEY, steps=10).state.x
    np.testing.assert_allclose(got, expected, rtol=1e-13)


def test_clipping_shortens_the_rows_that_are_too_long():
    rows = jnp.array([[3.0, -4.0], [0.3, 0.4], [0.0, 0.0]])
    np.testing.assert_allclose(clipped(rows, 2.0), [[1.2, -1.6], [0.3, 0.4], [0, 0]], rtol=1e-15)
    own = clipped(rows, jnp.array([[10.0], [0.1], [0.1]]))  # each client's
    np.testing.assert_allclose(own, [[3, -4], [0.06, 0.08], [0, 0]], rtol=1e-15)
    assert clipped(rows, None) is rows


@pytest.mark.parametrize("most", [0.5, 2.0, np.inf])
def test_clipping_has_the_slope_of_the_identity_at_zero(most):
    slope = jax.jacobian(lambda g: clipped(g[None], most)[0])(jnp.zeros(2))
    np.testing.assert_array_equal(slope, np.eye(2))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: jd.FedAvg(0.1, local_steps=0), "local_steps is 0; give an integer"),
        (lambda: jd.FedSUM(0.1, local_steps=-1), "local_steps is -1"),
        (lambda: jd.SCAFFOLD(-0.1), "stepsize is -0.1"),
        (lambda: jd.FedAvg(0.1, own_steps=np.full((3, 1), 2)), "give at most local_steps = 1"),
        (lambda: jd.FedAvg(0.1, own_steps=np.zeros((3, 1))), "own_steps is 0; give at least 1"),
        (lambda: jd.FedAvg(0.1, own_steps=np.ones(3)), r"own_steps has shape \(3,\)"),
        (lambda: jd.FedAvg(0.1, server=0.9), "server is 0.9; give an optax transformation"),
        (lambda: jd.FedAvg(0.1, server=optax.adam(0.1)), "server turns gradients around"),
        (lambda: jd.FedAvg(0.1, local=optax.sgd(0.1, 0.9)), "local turns gradients around"),
        (
            lambda: jd.FedAvgMomentum(0.1, gradient_weight=1.5),
            "gradient_weight is 1.5; give at most 1",
        ),
        (lambda: jd.FedProx(0.1, proximal=-1), "proximal is -1"),
    ],
)
def test_bad_input_gets_one_sentence(make, message):
    with pytest.raises(ValueError, match=message):
        make()
