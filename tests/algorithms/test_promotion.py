"""Nothing is promoted silently: all traces under JAX's strictest settings, in several precisions.

Users who look for a bug in shapes or dtypes of their own forbid implicit promotion, and must not
find the library's instead. The settings act while a program is traced, so that nothing compiles.
"""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import EVENTS, ROWS, VARIANTS
from small import DIGRAPH, KEY, RING, D, N, network_of, uneven

import jaxdopt as jd
from jaxdopt import compressors, networks, problems
from jaxdopt.networks import participation
from jaxdopt.networks.events import durations
from jaxdopt.problems import prox

DTYPES = {"float64": True, "float32": False, "float32 among 64": True, "bfloat16": False}


@contextlib.contextmanager
def strict():
    """Forbid that shapes of different rank, or numbers of different dtype, meet."""
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        yield


@pytest.fixture(
    params=[
        pytest.param(name, marks=() if name == "float32 among 64" else pytest.mark.slow)
        for name in DTYPES
    ]
)
def dtype(request):
    """The dtype of estimates and data: that of the default, and others."""
    with jax.enable_x64(DTYPES[request.param]):
        yield jnp.dtype(request.param.split()[0])


def traced(function, *args):
    """Trace a function of arrays under the strict settings; return the shapes of its results."""
    with strict():
        return jax.eval_shape(lambda given: function(*given), args)


def steps(method, problem, network, key):
    """The start, a step, and its cost: what `jd.run` makes of a method."""
    x = problem.start()
    state = jd.at(method, 0).init(x, problem, network.at(0, key), key)
    now = network.at(jnp.asarray(1), key)
    after = jd.at(method, 1).step(state, problem, now, key)
    cost = jd.costs.cost_of(method, after, problem, now)
    return x, state, after, after.x, cost


def assert_keeps(x0, state, after, x):
    assert jax.tree.structure(state) == jax.tree.structure(after)
    for before, later in zip(*map(jax.tree.leaves, (state, after)), strict=True):
        assert (before.shape, before.dtype) == (later.shape, later.dtype)
    assert (x.shape, x.dtype) == (x0.shape, x0.dtype)


@pytest.mark.parametrize("row", [*ROWS, *VARIANTS], ids=lambda row: row.name)
@pytest.mark.slow
def test_every_method_steps(row, dtype):
    with strict():
        network = network_of(row.network)
        method = row.make(0.1)
        even = row.options.get("restart")  # whose epochs have to end together
        problem = uneven(dtype, (4,) * 6) if even else uneven(dtype)
    for given in (method, jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), method)):
        x0, state, after, x, _ = traced(steps, given, problem, network, KEY)
        assert_keeps(x0, state, after, x)


def test_every_method_of_the_library_is_asked():
    apart = {"SybilWall"}  # test_liars.py
    assert {row.name for row in ROWS} == {*jd.algorithms.__all__} - apart
    assert len({row.name for row in ROWS}) == len(ROWS)


SCHEDULES = {
    "constant": lambda: jd.schedules.Constant(0.1),
    "inverse time": lambda: jd.schedules.InverseTime(0.1, 10.0),
    "polynomial": lambda: jd.schedules.Polynomial(0.1, 10.0, 0.5),
    "pieces": lambda: jd.schedules.PiecewiseConstant([0.3, 0.2, 0.1], [3, 5]),
    "cosine": lambda: jd.schedules.Cosine(0.1, 10),
    "epochs": lambda: jd.schedules.PerEpoch(jd.schedules.Constant(0.1), 3),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_is_a_number(name, dtype):
    with strict():
        schedule = jd.DGD(SCHEDULES[name]())
    for given in (schedule, jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), schedule)):
        number = traced(lambda method, k: jnp.asarray(jd.at(method, k).stepsize), given, 3)
        assert jnp.issubdtype(number.dtype, jnp.floating)


def test_numbers_an_agent(dtype):
    network = network_of("")
    for method in (jd.NIDS, jd.LinearizedADMM, jd.DGD):
        given = method(jnp.full((N, 1), 0.1, dtype))
        x0, state, after, x, _ = traced(steps, given, uneven(dtype), network, KEY)
        assert_keeps(x0, state, after, x)


NETWORKS = {
    "circulant": lambda: networks.metropolis(RING),
    "a long circulant": lambda: networks.metropolis(jd.graphs.exponential(64)),
    "dense": lambda: networks.mixing(networks.metropolis(RING).csr(), form=networks.Dense),
    "neighbors": lambda: networks.metropolis(jd.graphs.path(12)),
    "tiers": lambda: networks.metropolis(jd.graphs.star(80)),
    "complete": lambda: networks.metropolis(jd.graphs.complete(N)),
    "server": lambda: networks.Server(N),
    "row": lambda: networks.row_stochastic(DIGRAPH),
    "column": lambda: networks.column_stochastic(DIGRAPH),
    "pushes": lambda: networks.column_stochastic(jd.graphs.directed_ring(12)),
    "directed": lambda: networks.push_pull(DIGRAPH),
    "tree": lambda: networks.spanning_tree(jd.graphs.tree(20)),
    "trees": lambda: networks.spanning_tree(DIGRAPH),
    "repeated": lambda: networks.Repeated(networks.metropolis(RING), 3),
    "Chebyshev": lambda: networks.Chebyshev(networks.metropolis(RING), 3),
    "cyclic": lambda: networks.one_peer_exponential(N),
    "trace": lambda: networks.sequence([RING, jd.graphs.path(N)], after="hold"),
    "matching": lambda: networks.RandomMatching(RING),
    "complete matching": lambda: networks.RandomMatching(jd.graphs.complete(N)),
    "links": lambda: networks.RandomLinks(networks.metropolis(RING), 0.5),
    "links of a table": lambda: networks.RandomLinks(networks.metropolis(jd.graphs.star(80)), 0.5),
    "asleep": lambda: networks.Asleep(networks.push_pull(DIGRAPH), 0.5),
    "repeated links": lambda: networks.Repeated(
        networks.RandomLinks(networks.metropolis(RING), 0.5), 2
    ),
    "timed": lambda: networks.timed(
        networks.metropolis(jd.graphs.path(12)),
        delay=durations.Clipped(durations.Exponential(1.0), 0, 9),
    ),
    "uniform": lambda: participation.uniform(N, 2),
    "most": lambda: participation.uniform(N, 5),
    "bernoulli": lambda: participation.bernoulli(0.5, n=N),
    "groups": lambda: participation.reshuffled_cyclic(N, 3),
    "rare": lambda: participation.rare(N, 4),
    "markov": lambda: participation.markov(N, 0.5, 0.5, steps=5, key=KEY),
    **{kind: lambda kind=kind: network_of(kind) for kind in EVENTS},
}


@contextlib.contextmanager
def absent():
    """Pass over what a network does not have, and says so."""
    try:
        yield
    except (AttributeError, NotImplementedError, ValueError) as error:
        if "promotion" in str(error):
            raise


def products(network, x, key):
    """Everything that a round's network gives to methods, of what it has."""
    now = network.at(jnp.asarray(1), key)
    found = [now.mean(x)]
    for part in getattr(now, "parts", {"whole": now}).values():
        for name in ("__matmul__", "laplacian"):
            if hasattr(part, name):
                with absent():
                    found.append(getattr(part, name)(x))
        for name in ("link_count", "links", "diagonal"):
            with absent():
                found.append(getattr(part, name))
    own = hasattr(network, "versions") or hasattr(now, "seconds")
    timed = network if own else networks.timed(network)
    if hasattr(timed, "seconds"):
        found.append(timed.at(jnp.asarray(1), key).seconds(1.0, 1, 0))
    return found


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_mixes(name, dtype):
    with strict():
        network = NETWORKS[name]()
    x = jnp.ones((network.n, D), dtype)
    mixed = traced(products, network, x, KEY)
    assert mixed[0].dtype == dtype
    assert network.n in (N, 12, 20, 64, 80)


def made(dtype, name):
    """A problem of uneven agents, by the name of what it is made of."""
    random = np.random.default_rng(0)
    sizes = [4, 5, 6, 7, 5, 4]
    features = [random.standard_normal((m, D)).astype(dtype) for m in sizes]
    labels = [(f[:, 0] > 0).astype(dtype) for f in features]
    penalties = {
        "l1": prox.L1(0.1),
        "elastic net": prox.ElasticNet(0.1, 0.1),
        "group": prox.GroupL1(0.1, D),
        "mcp": prox.MCP(0.1, 3.0),
        "box": prox.Box([-1.0, -2.0, 0.0], np.inf),
        "ball": prox.Ball(1.0, np.ones(D)),
    }
    smooth = problems.least_squares(features, labels, l2=0.1)
    if name in penalties:
        return problems.Composite(smooth, penalties[name])
    return {
        "least squares": lambda: smooth,
        "weighted": lambda: problems.least_squares(features, labels, weights="samples"),
        "huber": lambda: problems.huber_regression(features, labels, delta=0.5),
        "logistic": lambda: problems.logistic_regression(features, labels, l2=0.1),
        "nonconvex": lambda: problems.nonconvex_logistic_regression(features, labels),
        "softmax": lambda: problems.softmax_regression(features, labels, l2=0.1),
        "mlp": lambda: problems.mlp(features, labels, hidden=(4,)),
        "minibatch": lambda: problems.Minibatch(smooth, 2),
        "noise": lambda: problems.GaussianNoise(smooth, 0.1),
        "quadratic": lambda: problems.quadratic(N, D),
        "factorization": lambda: problems.matrix_factorization(
            np.arange(12) % 4, np.arange(12) % 3, np.ones(12), rank=2, agents=N
        ),
    }[name]()


def answers(problem, x, key):
    """Everything that methods ask a problem for."""
    whole = [problem.grad(x, key)]
    part = problem.take(jnp.array([0, 2]))
    whole += [part.grad(x[:2], key)]
    if hasattr(problem, "grad_at"):
        whole += [problem.grad_at(x, problem.draw(key, 2)), problem.permutation(key)]
    if hasattr(problem, "prox"):
        whole += [problem.prox(x, 0.1), problem.prox(x, jnp.full((len(x), 1), 0.1, x.dtype))]
    if hasattr(problem, "value"):
        whole += [problem.value(x, key), problem.value(x[:, None], key)]
    return [*whole, problem.objective(x[0])]


PROBLEMS = [
    "least squares",
    "weighted",
    "huber",
    "logistic",
    "nonconvex",
    "softmax",
    "mlp",
    "minibatch",
    "noise",
    "quadratic",
    "factorization",
    "l1",
    "elastic net",
    "group",
    "mcp",
    "box",
    "ball",
]


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("wide", [True, False], ids=["float64", "float32"])
@pytest.mark.slow
def test_every_problem_answers(name, wide):
    with jax.enable_x64(wide):
        with strict():
            problem = made("float64" if wide else "float32", name)
        found = traced(answers, problem, problem.start(), KEY)
    assert found[0].shape == (N, problem.d)
    assert found[0].dtype == problem.start().dtype


COMPRESSORS = {
    "identity": compressors.Identity(),
    "top": compressors.TopK(2),
    "top of a share": compressors.TopK(density=0.5),
    "random": compressors.RandomK(2),
    "dither": compressors.Dither(bits=2),
    "euclidean": compressors.Dither(levels=3, norm="euclidean", block=2),
    "sign": compressors.Sign(),
    "scaled sign": compressors.ScaledSign(),
    "natural": compressors.Natural(),
    "contractive": compressors.Contractive(compressors.RandomK(2)),
}


@pytest.mark.parametrize("name", COMPRESSORS)
def test_every_compressor_keeps_the_dtype(name, dtype):
    for given in (dtype, jnp.float16):
        x = jnp.ones((N, D), given)
        assert traced(COMPRESSORS[name], KEY, x).dtype == given
