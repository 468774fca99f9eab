"""Agents over eight devices: the numbers of one, and only what is needed is sent."""

import os
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.optimized, pytest.mark.slow]

NETWORKS = """
import jax, jax.numpy as jnp, numpy as np, networkx as nx, jaxdopt as jd
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jaxdopt.networks.operators.halo import Halo

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_disable_most_optimizations", True)
n, key = 64, jax.random.key(1)
mesh = jax.make_mesh((8,), ("agents",), axis_types=(AxisType.Auto,))
rows = NamedSharding(mesh, PartitionSpec("agents"))
networks, graphs = jd.networks, jd.graphs
mixing = networks.metropolis
grid, torus = graphs.grid(8, 8), graphs.torus(8, 8)
wide = graphs.watts_strogatz(n, 20, 0.02)  # more neighbors than are unrolled, for most agents
hubs = nx.compose(nx.path_graph(n), nx.star_graph(24))  # for one of them
digraph = nx.DiGraph()
digraph.add_nodes_from(range(n))
digraph.add_edges_from((i, (i + o) % n) for i in range(n) for o in (1, 2, 7))
pushed = networks.column_stochastic(nx.compose(digraph, nx.DiGraph(hubs)))
world = graphs.watts_strogatz(n, 4, 0.03)
CASES = {  # how devices exchange rows, by the distances between them
    "ring": (mixing(graphs.ring(n)), (1, 7)),
    "exponential": (mixing(graphs.exponential(n)), "all-gather"),
    "torus": (mixing(torus), (1, 7)),
    "small world": (mixing(world), "all-to-all"),
    "wide": (networks.mixing(mixing(wide).csr(), form=networks.Neighbors), None),
    "hubs": (mixing(hubs), (1, 2, 3, 5, 6, 7)),
    "hubs pushing": (pushed, None),
    "star": (mixing(graphs.star(n)), "all-gather"),
    "pulling": (networks.row_stochastic(digraph), (7,)),
    "two parts": (networks.push_pull(digraph), (7,)),
    "dense": (mixing(graphs.erdos_renyi(n, 0.5)), None),
    "complete": (networks.Complete(n), None),
    "links": (networks.RandomLinks(mixing(graphs.ring(n)), 0.5), (1, 7)),
    "asleep": (networks.Asleep(mixing(world), 0.5), "all-to-all"),
    "disconnected": (networks.Disconnected(mixing(torus), 0.5), (1, 7)),
    "matching": (networks.RandomMatching(torus), (1, 7)),
    "pairs of all": (networks.RandomMatching(graphs.complete(n)), None),
    "repeated": (networks.Repeated(mixing(grid), 3), (1, 7)),
    "Chebyshev": (networks.Chebyshev(mixing(grid), 3), (1, 7)),
    "tree": (networks.spanning_tree(grid), (1, 7)),
    "one peer": (networks.one_peer_exponential(n), None),
    "sequence": (networks.sequence([grid, torus]), (1, 7)),
    "timed": (networks.timed(mixing(torus), compute=1.0, delay=0.1), (1, 7)),
}

def mixed(network, x):
    now = network.at(3, key)
    return [part @ x for part in getattr(now, "parts", {"whole": now}).values()]

x = np.random.default_rng(0).standard_normal((n, 3))
cases = {name: network for name, (network, _) in CASES.items()}
spread = {name: networks.sharded(network, mesh) for name, network in cases.items()}
try:
    networks.sharded(networks.Complete(9), mesh)
except ValueError as error:
    assert "9 agents and 8 devices; give a multiple" in str(error)
else:
    raise AssertionError("9 agents are spread over 8 devices")
is_halo = lambda part: isinstance(part, Halo)
for name, network in spread.items():
    halos = [h for h in jax.tree.leaves(network, is_leaf=is_halo) if is_halo(h)]
    expected = CASES[name][1]
    assert expected is None or {h.exchange for h in halos} == {expected}, (name, halos[0].exchange)
all_ = jax.jit(lambda given, x: {name: mixed(network, x) for name, network in given.items()})
here = all_(cases, x)
there = all_(spread, jax.device_put(x, rows))
for name in cases:
    for a, b in zip(here[name], there[name], strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-13, err_msg=name)
"""


METHODS = """
import jax, jax.numpy as jnp, numpy as np, jaxdopt as jd
from unittest import mock
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jaxdopt.networks.operators.halo import Halo

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_disable_most_optimizations", True)
n, key = 32, jax.random.key(0)
mesh = jax.make_mesh((2, 4), ("a", "b"), axis_types=(AxisType.Auto,) * 2)
rows = NamedSharding(mesh, PartitionSpec(("a", "b")))
torus = jd.networks.metropolis(jd.graphs.torus(8, 4))
problem = jd.problems.quadratic(n, d=3)
x0 = jnp.asarray(np.random.default_rng(0).standard_normal((n, 3)))
spread = lambda tree: jax.tree.map(
    lambda leaf: jax.device_put(leaf, rows) if leaf.shape[:1] == (n,) else leaf, tree
)
digraph = jd.graphs.exponential(n, directed=True)
CASES = [
    (jd.GradientTracking(0.05), jd.networks.Asleep(torus, 0.7)),
    (jd.PushPull(0.02), jd.networks.push_pull(digraph)),
    (jd.CHOCOSGD(0.05, jd.compressors.TopK(2)), torus),
    (jd.LinearizedADMM(0.05), torus),
    (jd.FedAvg(0.05, local_steps=2), jd.networks.Server(n)),
    (jd.SCAFFOLD(0.05, local_steps=2), jd.networks.participation.uniform(n, 8)),
    (jd.ADSGD(0.02), jd.networks.timeline(torus, compute=1.0, delay=0.5, steps=20)),
]
for method, network in CASES:
    here, there = (
        jd.run(method, each, network, x, key, steps=10, defaults=("gap",))
        for each, x in ((problem, x0), (spread(problem), spread(x0)))
    )
    for a, b in zip(jax.tree.leaves(here.state), jax.tree.leaves(there.state), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12, err_msg=repr(method))
    for name, values in here.history.items():
        np.testing.assert_allclose(values, there.history[name], rtol=1e-8, atol=1e-12, err_msg=name)
keys = jax.random.split(key, 2)
noisy = jd.problems.GaussianNoise(problem, 0.1)
methods = jax.vmap(jd.DSGD)(jnp.array([0.05, 0.1]))
with mock.patch.object(Halo, "apply", autospec=True, side_effect=Halo.apply) as exchanged:
    several = jd.sweep(jd.run, over=("algorithm", "key"))
    options = {"steps": 5, "defaults": ()}
    here = several(methods, noisy, torus, x0, keys, **options)
    assert not exchanged.called
    there = several(methods, noisy, torus, spread(x0), keys, **options)
    assert exchanged.called
    exchanged.reset_mock()
    on = several(methods, noisy, torus, after=there, **options)
    assert exchanged.called
whole = several(methods, noisy, torus, x0, keys, steps=10, defaults=())
np.testing.assert_allclose(here.state.x, there.state.x, rtol=0, atol=1e-12)
np.testing.assert_allclose(whole.state.x, on.state.x, rtol=0, atol=1e-12)
slope = lambda network, x: jax.grad(
    lambda stepsize: jd.run(
        jd.DSGD(stepsize), problem, network, x, key, steps=3, defaults=()
    ).state.x.sum()
)(0.05)
np.testing.assert_allclose(slope(torus, x0), slope(torus, spread(x0)), rtol=1e-12)
"""


COUNTED = """
import jax, jax.numpy as jnp, jaxdopt as jd
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from experiments.benchmarks import scaling
from experiments.benchmarks.collectives import counted

n, d, steps = 256, 16, 10
row = 4 * d  # bytes
mesh = jax.make_mesh((8,), ("agents",), axis_types=(AxisType.Auto,))
rows = NamedSharding(mesh, PartitionSpec("agents"))
spread = lambda tree: jax.tree.map(
    lambda leaf: jax.device_put(leaf, rows) if jnp.shape(leaf)[:1] == (n,) else leaf, tree
)
quadratic = spread(jd.problems.quadratic(n, d=d))
features = jax.random.normal(jax.random.key(0), (4 * n, d))
least_squares = jd.problems.least_squares(features, features[:, 0], agents=n)
few = spread(jd.problems.Minibatch(least_squares, 2))
x0 = jax.device_put(jnp.zeros((n, d)), rows)
networks, graphs = jd.networks, jd.graphs
ring, torus = (networks.metropolis(g) for g in (graphs.ring(n), graphs.torus(n // 16, 16)))
world = networks.metropolis(graphs.watts_strogatz(n, 4, 0.02))
permute, reduce = "collective-permute", "all-reduce"
CASES = [  # collectives of a step by kind: how many, and the rows that they bring at most
    (jd.DSGD(0.1), ring, {permute: (2, 2)}),
    (jd.GradientTracking(0.1), ring, {permute: (4, 4)}),
    (jd.CHOCOSGD(0.1, jd.compressors.TopK(2)), ring, {permute: (2, 2)}),
    (jd.DSGD(0.1), torus, {permute: (2, 32)}),
    (jd.DSGD(0.1), networks.Disconnected(torus, 0.5), {permute: (2, 32)}),
    (jd.DSGD(0.1), world, {"all-to-all": (1, 48)}),
    (jd.DSGD(0.1), networks.Complete(n), {reduce: (3, 3)}),
    (jd.FedAvg(0.1, local_steps=2), networks.Server(n), {reduce: (1, 1)}),
    (jd.FedAvg(0.1), networks.participation.uniform(n, n // 8), {reduce: (2, 2)}),
]
CASES = [(quadratic, *case) for case in CASES]
CASES.append((few, jd.DSGD(0.1), ring, {permute: (2, 2)}))
for problem, method, network, expected in CASES:
    network = networks.sharded(network, mesh)
    run = lambda problem, network, x0: jd.run(
        method, problem, network, x0, jax.random.key(0), steps=steps, every=steps, defaults=()
    ).state
    found = counted(jax.jit(run).lower(problem, network, x0).compile().as_text())
    case = type(method).__name__, type(network).__name__, found
    assert set(found) <= set(expected) | {reduce}, case
    for kind, (number, most) in expected.items():
        assert steps * number <= found[kind].number <= (steps + 2) * number, (kind, case)
        assert found[kind].bytes <= (steps + 3) * most * row, (kind, case)  # a few in init
point = scaling.point("ring", jd.DSGD(0.1), lambda n: networks.metropolis(graphs.ring(n)), 8, 4)
assert point.agents == 32 and point.collectives == {permute: [2, 2 * 4 * scaling.DIMENSION]}
"""


def run(program):
    flags = "--xla_force_host_platform_device_count=8"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)


def test_networks_over_eight_devices_are_those_on_one():
    run(NETWORKS)


def test_runs_over_eight_devices_are_those_on_one():
    run(METHODS)


def test_devices_send_what_others_need():
    """Permutes of boundary rows, halos, and reductions: nothing gathers x where it need not."""
    run(COUNTED)
