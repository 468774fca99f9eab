"""Trajectories against NumPy loops over agents and neighbors, written from the equations."""

import functools
import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import EVENTS, ROWS, VARIANTS
from reference import losses, trees
from small import clocked

import jaxdopt as jd
from jaxdopt.algorithms.compressed import messages
from jaxdopt.algorithms.federated.sketched_sgd import sketch_key
from jaxdopt.networks import participation
from jaxdopt.networks.events import durations

pytestmark = pytest.mark.optimized

STEPS = 40
N, D = 8, 4
L2 = 0.05
GRAPHS = [jd.graphs.ring(N), jd.graphs.erdos_renyi(N, 0.4, seed=1), jd.graphs.star(N)]
TREES = [[0, 0, 0, 0, 1, 1, 5, 2], [1, 1, 1, 2, 2, 2, 4, 6], [4, 4, 0, 0, 4, 4, 5, 0]]
STEPSIZES = [  # [k, i], of step k and agent i: decreasing, constant, and one an agent
    np.tile(2.0 / (np.arange(STEPS) + 8.0)[:, None], (1, N)),
    np.full((STEPS, N), 0.2),
    np.tile(np.linspace(0.05, 0.3, N), (STEPS, 1)),
]


@jd.pytree
class Table:
    """A schedule that is one program whatever it says."""

    values: Any  # [k, n, 1]

    def __call__(self, k):
        return self.values[k]


@functools.cache
def data(n=N):
    """Uneven, heterogeneous, noisy: agent i's features are shifted and scaled by its number."""
    random = np.random.default_rng(n)
    features = [(1 + i / n) * random.standard_normal((5 + i % 4, D)) + i / 4 for i in range(n)]
    labels = [np.where(f.sum(axis=1) + 3 * random.standard_normal(len(f)) > i, 1.0, -1.0)
              for i, f in enumerate(features)]  # fmt: skip
    return features, labels


@functools.cache
def problem(n=N):
    return jd.problems.logistic_regression(*data(n), l2=L2)


@functools.cache
def parts(kind, which):
    """What the loops take of a network: W, or R and C on a digraph, or parents.

    Of a server who takes part, of clocks all times that gradients [m, n] and messages [m, n, n]
    take, some of which are lost.
    """
    random = np.random.default_rng(which)
    if kind in ("undirected", "timeline", "pairs"):
        weights = np.asarray(jd.networks.metropolis(GRAPHS[which]).matrix())
        return [weights] if kind == "undirected" else [weights, *times(random, kind)]
    if kind == "full":
        return [np.ones((STEPS, N), bool)]
    if kind == "server":
        there = random.random((STEPS, N)) < np.linspace(0.2, 0.9, N)
        there[[5, 6, 20]] = False  # rounds without anybody
        return [there]
    if kind in ("each", "ticks", "buffer"):
        return [*times(random, kind)]
    if kind == "directed timeline":
        return [*parts("directed", which), *times(random, kind)]
    if kind == "directed":
        links = np.eye(N) + np.roll(np.eye(N), 1, axis=0) + (random.random((N, N)) < which / 5)
        pull, push = ((links > 0) * random.uniform(0.5, 1.5, (N, N)) for _ in range(2))
        return [pull / pull.sum(axis=1, keepdims=True), push / push.sum(axis=0)]
    down = np.array(TREES[which])
    if kind == "tree":
        return [down]
    root = int(np.flatnonzero(down == np.arange(N))[0])
    turned = (np.arange(N) - root) % N  # the first of the trees, with this one's root
    return [down, (np.array(TREES[0])[turned] + root) % N]


def times(random, kind):
    """Multiples of a quarter, so that ties are common."""
    work = random.integers(1, 5, (300, N)) / 4
    travel = random.integers(0, 9, (300, N, N)) / 4
    if "timeline" in kind:
        travel[random.random(travel.shape) < 0.3] = np.inf
    if kind == "pairs":  # whoever has met all partners of the network's runs is not done again
        travel[:, np.arange(N), np.arange(N)] = 99
    return work, travel


@functools.cache
def network(kind, which):
    made_of = parts(kind, which)
    if kind in EVENTS:
        *weights, work, travel = made_of
        times: dict[str, Any] = {"compute": durations.Table(work)}
        if not weights:
            return clocked(kind, N, STEPS, **times)
        times["delay"] = durations.Table(travel)
        wires = network("directed", which)
        if len(weights) == 1:
            wires = jd.networks.mixing(*weights, form=jd.networks.Dense)
        return clocked(kind, wires, STEPS, **times)
    if kind == "full":
        return jd.networks.Server(N)
    if kind == "server":
        return participation.Trace(jnp.asarray(made_of[0]), N)
    if kind == "undirected":
        return jd.networks.mixing(*made_of, form=jd.networks.Dense)
    if kind == "directed":
        pull, push = made_of
        return jd.networks.Directed(
            jd.networks.mixing(pull, kind="row", form=jd.networks.Dense),
            jd.networks.mixing(push, kind="column", form=jd.networks.Dense),
        )
    return jd.networks.Tree(*made_of)


def start(n=N):
    return np.random.default_rng(11).standard_normal((n, D))


def estimates(state, problem):
    return state.x


def trajectory(method, problem, network, key, x0=None):
    """All iterates of `run`, recorded by a metric."""
    return history(method, problem, network, key, x0)["x"]


def history(method, problem, network, key, x0=None):
    x0 = start(problem.n) if x0 is None else x0
    options = {"steps": STEPS, "metrics": {"x": estimates}, "defaults": ()}
    return jd.run(method, problem, network, x0, key, **options).history


def assert_costs(row, method, history, share, batch=2):
    """Against the row's: what is sent and taken in every step, by the share that takes part."""
    if row.vectors % 0.5 or row.varies:  # one agent at a time, or by a coin
        return
    sent = row.vectors * row.bits(D) + 32 * row.scalars + row.told * (1 + N) / 2
    calls, turn = (
        row.calls * getattr(method, "local_steps", 1),
        (np.arange(STEPS) + 1) % row.turns == 0,
    )
    expected = {"vectors": turn * share * row.vectors, "bits": turn * share * sent}
    expected["rounds"] = turn * (share if row.events and row.gossips else 1) * row.exchanges
    if row.method is not jd.PushSum and not row.samples:
        expected["gradients"] = share * batch * calls
    for name, step in expected.items():
        counted = np.broadcast_to(step, STEPS).cumsum()
        np.testing.assert_allclose(history[name][1:], counted, rtol=1e-6, err_msg=name)


def loops(row, made_of, stepsize, gradient, x0=None, steps=STEPS, **offered):
    """The loop's iterates, given what it takes of what is offered."""
    known = inspect.signature(row.reference).parameters
    numbers = {name: value for name, value in offered.items() if name in known} | row.numbers
    x0 = start(np.shape(made_of[0])[-1]) if x0 is None else x0
    if row.network in ("server", "full", "each", "ticks", "buffer"):  # one model
        x0 = x0.mean(axis=0)
    return row.reference(gradient, *made_of, x0, stepsize, steps, **numbers)


def randomness(method, key):
    """What a method draws: its messages, and by name what its own functions (key, n) return."""

    @jax.jit
    def compress(k, channel, i, v):
        rows = jnp.zeros((N, D)).at[i].set(v)  # draws depend on keys and shapes alone
        key_k = jax.random.fold_in(key, k)
        return messages.message(method.compressor, key_k, rows, channel)[i]

    def drawn(function, *more):
        return lambda k: np.asarray(function(method, jax.random.fold_in(key, k), *more))

    own = {}
    for name, function in inspect.getmembers(type(method), inspect.isfunction):
        known = list(inspect.signature(function).parameters)
        if known[:2] == ["self", "key"] and known[2:] in ([], ["n"]):
            own[name] = drawn(function, *[N] * len(known[2:]))
    if hasattr(method, "sketch"):
        matrix = jax.jit(lambda key: method.sketch.encode(sketch_key(key), jnp.eye(D)).T)
        own["sketch"] = lambda k: np.asarray(matrix(jax.random.fold_in(key, k)))
    return {"compress": compress, **own}


def drawn_for_values(method, problem, key):
    """What a method that asks for values draws: directions, noise, points and features."""

    def tabulated(draw, *more):
        """Of all steps and local steps, [k, l, ...], the key of the step itself if there are none.

        Local steps have keys of their own, and the last two are those of a round's ends.
        """

        def one(k, l):  # noqa: E741
            key_k = jax.random.fold_in(key, k)
            return draw(jax.random.fold_in(key_k, l) if local else key_k, *more)

        local = getattr(method, "local_steps", 0)
        numbers = jnp.arange(STEPS), jnp.arange(local + 2 if local else 1)
        return np.asarray(jax.jit(jax.vmap(jax.vmap(one, (None, 0)), (0, None)))(*numbers))

    rows, found = jnp.zeros((N, D)), {}
    if isinstance(method, jd.FedZO):
        v = tabulated(method.estimated(problem).drawn)
        found["direction"] = lambda i, k, local: v[k, local, i]
    elif isinstance(method, jd.JustOneByte):
        every = jax.vmap(method.direction, (None, 0, None))
        z = tabulated(every, jnp.arange(N), rows[0])
        found["direction"] = lambda i, k: z[k, 0, i]
    elif isinstance(method, jd.FZooS):
        sizes = {method.initial, method.candidates}
        points = {m: tabulated(lambda key, m=m: method.offsets(key, m, rows)) for m in sizes}
        found["offsets"] = lambda k, local, count: points[count][k, local]
        state = method.init(rows, problem, jd.networks.Server(N), key)
        found |= {"frequencies": state.frequencies, "phases": state.phases}
    else:
        noise = tabulated(method.normals, rows)
        found["normal"] = lambda k: noise[k, 0]
    return found


CASES = [(row, which) for row in ROWS for which in range(3)] + [(row, 1) for row in VARIANTS]
ASKING = [case for case in CASES if case[0].values]
PLAIN = [case for case in CASES if not (case[0].samples or case[0].events or case[0].values)]
SAMPLING = [case for case in CASES if case[0].samples and case[1] > 0]


def quickest(cases):
    """One network a method, and the others if slow."""
    return [pytest.param(*case, marks=() if case[1] == 1 else pytest.mark.slow) for case in cases]


def name(value):
    return getattr(value, "name", None)


@pytest.mark.parametrize(("row", "which"), quickest(PLAIN), ids=name)
def test_methods_that_ask_for_gradients(row, which):
    """With minibatches, on three networks with three kinds of stepsizes, in one program."""
    features, labels = data()
    drawn = samples(2 if row.local else None)

    def gradient(i, x, k, *local):
        chosen = drawn[(k, *local, i)]
        return losses.logistic_gradient(x, features[i][chosen], labels[i][chosen], L2)

    compare(row, which, gradient, randomness)


@pytest.mark.parametrize(("row", "which"), quickest(ASKING), ids=name)
def test_methods_that_ask_for_values(row, which):
    """As above: a value is that of the step's or the local step's samples."""
    features, labels = data()
    drawn = samples(4 if row.local else None)

    def value(i, x, k, local=0):
        chosen = drawn[(k, local, i) if row.local else (k, i)]
        return losses.logistic_value(x, features[i][chosen], labels[i][chosen], L2)

    compare(row, which, value, functools.partial(drawn_for_values, problem=problem()))


def compare(row, which, asked, draws):
    """A method and its loop, given what it asks for and what the method draws."""
    noisy, key = jd.problems.Minibatch(problem(), 2), jax.random.key(3)
    stepsizes = STEPSIZES[which][:, :, None]
    if row.network == "full":  # which takes one stepsize for all
        stepsizes = stepsizes.mean(axis=(1, 2))
    method = row.twin(Table(jnp.asarray(stepsizes)))
    made_of = parts(row.network, which)
    given = draws(method, key=key)
    expected = loops(row, made_of, lambda k: stepsizes[k].squeeze(), asked, **given)
    found = history(method, noisy, network(row.network, which), key)
    got, there = found["x"], made_of[0] if row.network == "server" else np.ones((1, N), bool)
    assert_costs(row, method, found, np.resize(there.mean(axis=1), STEPS))
    if expected.ndim == 2:
        expected = np.broadcast_to(expected[:, None], got.shape)
    np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-10)


@functools.cache
def samples(local_steps):
    """What is drawn in a step, [k, i, batch], or in its local steps, [k, local, i, batch]."""
    noisy, key = jd.problems.Minibatch(problem(), 2), jax.random.key(3)

    def step(k):
        key_k = jax.random.fold_in(key, k)
        if local_steps is None:
            return noisy.indices(key_k)
        return jax.vmap(lambda l: noisy.indices(jax.random.fold_in(key_k, l)))(  # noqa: E741
            jnp.arange(local_steps)
        )

    return np.asarray(jax.jit(jax.vmap(step))(jnp.arange(STEPS)))


@pytest.mark.parametrize("row", [row for row in ROWS if row.events], ids=name)
def test_methods_whose_steps_are_events(row):
    """With minibatches, ties, messages that overtake or are lost, on an irregular graph."""
    features, labels = data()
    noisy, key = jd.problems.Minibatch(problem(), 2), jax.random.key(3)
    where = network(row.network, 1)
    served = "local_steps" in row.options  # in an aggregation of those who come back
    there = np.asarray(where.agents) < N
    step, place = np.nonzero(there)  # of every event

    @jax.jit
    def drawn(agents):
        def one(k, who):
            key_k, taken = jax.random.fold_in(key, k), noisy.take(who)
            if not served:
                return taken.indices(key_k)[None]
            keys = [jax.random.fold_in(key_k, local) for local in range(2)]
            return jnp.stack([taken.indices(key) for key in keys])

        return jax.vmap(one)(jnp.arange(STEPS), agents)

    chosen, asked = np.asarray(drawn(where.agents)), [-1]

    def gradient(*given):
        if served:
            i, x, k, local = given
            asked[0] += local == 0
            mine = chosen[k, local, place[asked[0]]]
            assert step[asked[0]] == k
        else:
            e, i, x = given
            mine = chosen[step[e], 0, place[e]]
        return losses.logistic_gradient(x, features[i][mine], labels[i][mine], L2)

    partners = np.asarray(getattr(where, "partners", where.agents))
    met = [partners[step, place][np.asarray(where.agents)[step, place] == i] for i in range(N)]
    offered: dict[str, Any] = {"partner": lambda i, m: met[i][m] if m < len(met[i]) else i}
    if served:
        offered = {"weights": 1 / N / np.asarray(where.frequency)}
    stepsizes = STEPSIZES[1] if served else np.full((STEPS, N), 0.1)
    expected = loops(
        row,
        parts(row.network, 1),
        (lambda k: stepsizes[k]) if served else (lambda k: 0.1),
        gradient,
        steps=STEPS if served else len(step),
        **offered,
    )
    method = row.twin(Table(jnp.asarray(stepsizes)[:, :, None]) if served else 0.1)
    found = history(method, noisy, where, key)
    assert_costs(row, method, found, there.mean(axis=1) * there.shape[1] / N)
    got = found["x"]
    if served:
        expected = np.broadcast_to(expected[:, None], got.shape)
    else:
        expected = expected[np.concatenate([[0], np.cumsum(there.sum(axis=1))])]
    np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-10)
    assert np.abs(got[-1] - got[0]).max() > 0.1


@pytest.mark.parametrize("method", [jd.CEDAS, jd.LEAD, jd.CGT, jd.CPP, jd.BCPP])
def test_references_start_at_a_common_start(method):
    """And not at 0: neighbors know it."""
    row = next(row for row in ROWS if row.method is method)
    features, labels = data()
    key, x0 = jax.random.key(3), np.tile(start()[0], (N, 1))

    def gradient(i, x, k):
        return losses.logistic_gradient(x, features[i], labels[i], L2)

    made = row.twin(0.2)
    expected = loops(
        row, parts(row.network, 1), lambda k: 0.2, gradient, x0=x0, **randomness(made, key)
    )
    got = trajectory(made, problem(), network(row.network, 1), key, x0)
    np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("row", "which"), quickest(SAMPLING), ids=name)
def test_methods_that_draw_their_samples(row, which):
    """Uneven agents, 5 to 8 samples: the loops are given the random numbers that the keys draw."""
    (features, labels), whole = data(), problem()
    if row.options.get("restart"):  # which needs epochs that end together
        features, labels = [f[:5] for f in features], [label[:5] for label in labels]
        whole = jd.problems.logistic_regression(features, labels, l2=L2)
    key, batch = jax.random.key(5), 1 if which == 1 else 3
    keys = [jax.random.fold_in(key, k) for k in range(STEPS)]
    drawn = [np.asarray(whole.draw(k, batch)) for k in keys]
    assert len({len(set(row)) for samples in drawn for row in samples.tolist()}) == batch  # repeats
    sizes = [len(f) for f in features]
    method = row.twin(Table(jnp.asarray(STEPSIZES[which])[:, :, None]))

    def component(i, j, x):
        return losses.logistic_gradient(x, features[i][[j]], labels[i][[j]], L2)

    def random(k):
        return jax.random.bits(keys[k], (N, batch), jnp.uint32)

    sampling = getattr(method, "sampling", "none")
    orders = whole.permutation(key) if sampling == "once" else np.tile(np.arange(8), (N, 1))
    orders = [own[:m].tolist() for own, m in zip(orders, sizes, strict=True)]
    for own in orders:
        assert sorted(own) == list(range(len(own)))
    offered = {"drawn": drawn.__getitem__, "sizes": sizes, "batch": batch, "orders": orders}
    offered |= {"random": random if sampling == "reshuffle" else None}
    offered |= randomness(method, key)
    made_of = parts(row.network, which)
    expected = loops(row, made_of, STEPSIZES[which].__getitem__, component, **offered)
    sampled = whole if batch == 1 else jd.problems.Minibatch(whole, batch)
    got = trajectory(method, sampled, network(row.network, which), key)
    np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("order", "exchanges"), [("cta", 1), ("atc", 2)])
def test_the_mean_of_the_saga_table_is_kept(order, exchanges):
    wires, whole = network("undirected", 1), problem()
    sampled = jd.problems.Minibatch(whole, 3)
    method = jd.GTSAGA(0.2, order)
    run = jd.run(method, sampled, wires, start(), jax.random.key(1), steps=400)
    assert run.history["rounds"][-1] == 400 * exchanges
    assert run.history["vectors"][-1] == 800
    sums = [run.state.table[i, : len(f)].mean(axis=0) for i, f in enumerate(data()[0])]
    np.testing.assert_allclose(run.state.mean, sums, atol=1e-13)
    assert np.all(run.state.table[4, 5:] == 0)  # agent 4 has five samples; padding is not drawn


def test_an_order_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="order is 'before'; give 'cta'"):
        jd.GTSAGA(0.2, "before")  # type: ignore[arg-type]


@pytest.mark.parametrize("method", [jd.NIDS, jd.PGEXTRA])
def test_composite_methods(method):
    """With l1, and an own stepsize for every agent where the method allows it."""
    row = next(row for row in ROWS if row.method is method)
    features, labels = data()
    lasso = jd.problems.Composite(problem(), jd.problems.prox.L1(0.3))
    steps = np.linspace(0.05, 0.3, N)

    def gradient(i, x, k):
        return losses.logistic_gradient(x, features[i], labels[i], L2)

    def prox(z, t):
        return np.sign(z) * np.maximum(np.abs(z) - 0.3 * t, 0)

    expected = loops(row, parts("undirected", 1), lambda k: steps, gradient, prox=prox)
    got = trajectory(
        method(jnp.asarray(steps)[:, None]), lasso, network("undirected", 1), jax.random.key(0)
    )
    np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-10)
    assert np.any(got[-1] == 0)


@pytest.mark.parametrize("branching", [1, 2, 3, N - 1])
@pytest.mark.slow
def test_stpp_on_the_b_ary_tree_is_btpp(branching):
    """With minibatches and a schedule; and its traffic is what goes over the tree's edges."""
    features, labels = data()
    noisy, key = jd.problems.Minibatch(problem(), 2), jax.random.key(3)
    drawn = [np.asarray(noisy.indices(jax.random.fold_in(key, k))) for k in range(STEPS)]

    def gradient(i, x, k):
        chosen = drawn[k][i]
        return losses.logistic_gradient(x, features[i][chosen], labels[i][chosen], L2)

    parent, stepsizes = trees.heap_parent(N, branching), STEPSIZES[0] / N
    expected = trees.stpp(gradient, parent, parent, start(), stepsizes.__getitem__, STEPS)
    tree = jd.networks.bary_tree(N, branching)
    assert np.array_equal(tree.row.parent, parent)
    method, metrics = jd.STPP(Table(jnp.asarray(stepsizes)[:, :, None])), {"x": estimates}
    result = jd.run(method, noisy, tree, start(), key, steps=STEPS, metrics=metrics)
    np.testing.assert_allclose(result.history["x"], expected, rtol=1e-10, atol=1e-10)
    below = [i for i in range(N) if parent[i] != i]  # each hears an x and gives a y
    vectors = len([parent[i] for i in below]) + len(below)
    assert result.history["traffic"][-1] == STEPS * 32 * D * vectors


def test_a_transposed_matrix_would_be_noticed():
    """On a directed ring W and its transpose differ, and the loops tell them apart."""
    row = next(row for row in ROWS if row.method is jd.GradientTracking)
    graph = jd.graphs.directed_ring(5)
    directed = jd.networks.metropolis(graph)
    features, labels = data(5)

    def gradient(i, x, k):
        return losses.logistic_gradient(x, features[i], labels[i], L2)

    got = trajectory(row.method(0.2), problem(5), directed, jax.random.key(0))
    matrix = np.zeros((5, 5))
    for i in range(5):
        matrix[i, i] = matrix[i, (i - 1) % 5] = 0.5  # agent i hears agent i - 1
    expected = row.reference(gradient, matrix, start(5), lambda k: 0.2, STEPS)
    np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-10)
    wrong = row.reference(gradient, matrix.T, start(5), lambda k: 0.2, STEPS)
    assert np.abs(got - wrong).max() > 1e-2
