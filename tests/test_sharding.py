"""Agents or seeds over devices: the same numbers, and a ring that talks to neighbors only."""

import os
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.optimized, pytest.mark.slow]

PROGRAM = """
import jax, jax.numpy as jnp, numpy as np, jaxdopt as jd
from jax.sharding import AxisType, NamedSharding, PartitionSpec

problem = jd.problems.quadratic(16, 3, curvature_spread=0.3)
ring = jd.networks.metropolis(jd.graphs.ring(16))
mesh = jax.make_mesh((4,), ("agents",), axis_types=(AxisType.Auto,))
rows = NamedSharding(mesh, PartitionSpec("agents"))

def spread(tree):
    def leaf(value):
        return jax.device_put(value, rows) if value.shape[:1] == (16,) else value

    return jax.tree.map(leaf, tree)

method, x0, key = jd.EXTRA(0.1), problem.start(), jax.random.key(0)
here = jd.run(method, problem, ring, x0, key, steps=20)
there = jd.run(method, spread(problem), ring, spread(x0), key, steps=20)
assert there.state.x.sharding.is_equivalent_to(rows, 2), there.state.x.sharding
np.testing.assert_allclose(here.state.x, there.state.x, rtol=1e-5, atol=1e-6)
mixing = jax.jit(lambda x: ring @ x, out_shardings=rows).lower(spread(x0)).compile().as_text()
assert "collective-permute" in mixing and "all-gather" not in mixing
"""


SEEDS = """
import jax, jax.numpy as jnp, numpy as np, jaxdopt as jd
from jax.sharding import AxisType, PartitionSpec

features = np.random.default_rng(0).standard_normal((24, 3))
labels = (features[:, 0] > 0).astype(int)
problem = jd.problems.logistic_regression(features, labels, agents=6, l2=0.1)
problem = jd.problems.Minibatch(problem, 2)
ring = jd.networks.metropolis(jd.graphs.ring(6))
mesh = jax.make_mesh((2,), ("seeds",), axis_types=(AxisType.Auto,))
keys = jax.random.split(jax.random.key(0), 2)
METHODS = [
    (jd.DSGD(0.1), ring),
    (jd.GradientTracking(0.1), jd.networks.RandomLinks(ring, 0.7)),
    (jd.CHOCOSGD(0.1, jd.compressors.TopK(1)), ring),
    (jd.SCAFFOLD(0.1, local_steps=2), jd.networks.participation.uniform(6, 2)),
]
for method, network in METHODS:
    def one(key):
        half = jd.run(method, problem, network, problem.start(), key, steps=4, every=2)
        result = jd.run(method, problem, network, after=half, steps=2, every=2)
        return result.state.x, result.history

    def several(keys):
        return jax.tree.map(lambda leaf: leaf[None], one(keys[0]))

    spread = PartitionSpec("seeds")
    there = jax.jit(jax.shard_map(several, mesh=mesh, in_specs=spread, out_specs=spread))(keys)
    for i in range(2):
        for a, b in zip(jax.tree.leaves(there), jax.tree.leaves(one(keys[i]))):
            np.testing.assert_allclose(a[i], b, rtol=1e-4, atol=1e-6)
"""


EXPLICIT = """
import jax, jax.numpy as jnp, numpy as np, jaxdopt as jd
from jax.sharding import AxisType, NamedSharding, PartitionSpec

mesh = jax.make_mesh((4,), ("agents",), axis_types=(AxisType.Explicit,))
rows = NamedSharding(mesh, PartitionSpec("agents"))
problem, key = jd.problems.quadratic(8, d=3), jax.random.key(0)
x0 = jax.device_put(problem.start(), rows)
spread = lambda v: jax.device_put(v, rows) if v.shape[:1] == (8,) else v
method = jd.GradientTracking(0.05)
for graph in (jd.graphs.ring(8), jd.graphs.erdos_renyi(8, 0.5), jd.graphs.complete(8)):
    network = jd.networks.metropolis(graph)
    here = jd.run(method, problem, network, problem.start(), key, steps=10)
    for each in (problem, jax.tree.map(spread, problem)):
        there = jd.run(method, each, network, x0, key, steps=10)
        np.testing.assert_allclose(here.state.x, there.state.x, rtol=1e-5, atol=1e-6)
        assert there.state.x.sharding == rows, there.state.x.sharding
        on = jd.run(method, each, network, after=there, steps=10, until={"gap": 0.0})
        whole = jd.run(method, problem, network, problem.start(), key, steps=20)
        np.testing.assert_allclose(on.history["gap"], whole.history["gap"], rtol=1e-4, atol=1e-6)
keys = jax.random.split(key, 4)
noisy = jd.problems.GaussianNoise(problem, 0.1)
several = jd.sweep(jd.run, over="key")
here, there = (
    several(method, noisy, network, problem.start(), some, steps=10)
    for some in (keys, jax.device_put(keys, rows))
)
np.testing.assert_allclose(here.state.x, there.state.x, rtol=1e-5, atol=1e-6)
"""


TRANSFORMED = """
import jax, jax.numpy as jnp, numpy as np, jaxdopt as jd
from jax.sharding import NamedSharding, PartitionSpec

jax.config.update("jax_disable_most_optimizations", True)
mesh = jax.make_mesh((4,), ("agents",))
rows = NamedSharding(mesh, PartitionSpec("agents"))
spread = lambda v: jax.device_put(v, rows) if v.shape[:1] == (8,) else v
problem, key = jd.problems.quadratic(8, d=3), jax.random.key(0)
x0, keys = spread(problem.start()), jax.random.split(key, 4)
method, network = jd.GradientTracking(0.05), jd.networks.metropolis(jd.graphs.ring(8))
noisy, several = jd.problems.GaussianNoise(problem, 0.1), jd.sweep(jd.run, over="key")
gap = lambda x, problem: jd.run(method, problem, network, x, key, steps=10).metrics["gap"][-1]
spread_problem = jax.tree.map(spread, problem)
both = lambda x, problem: (
    jax.value_and_grad(gap)(x, problem),
    jax.vmap(gap, (0, None))(jnp.stack([x, 2 * x]), problem),
    several(method, noisy, network, x, keys, steps=10).state,
)
here, there = jax.jit(both)(problem.start(), problem), jax.jit(both)(x0, spread_problem)
for a, b in zip(jax.tree.leaves(here), jax.tree.leaves(there), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
assert there[0][1].sharding.is_equivalent_to(rows, 2), there[0][1].sharding
assert there[2].x.sharding.spec[:2] == (None, "agents"), there[2].x.sharding
twice = jax.jit(lambda x: jd.run(
    method, problem, network, after=jd.run(method, problem, network, x, key, steps=5), steps=5))
np.testing.assert_allclose(twice(x0).metrics["gap"][-1], here[0][0], rtol=1e-5)
with jax.set_mesh(mesh):  # as JAX asks for of explicit axes outside of a jit
    np.testing.assert_allclose(jax.grad(gap)(x0, problem), here[0][1], rtol=1e-5, atol=1e-6)
"""


MODELS = """
import jax, jax.numpy as jnp, numpy as np, jaxdopt as jd
from jax.sharding import AxisType, NamedSharding, PartitionSpec

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_disable_most_optimizations", True)
mesh = jax.make_mesh((4, 2), ("clients", "model"), axis_types=(AxisType.Auto,) * 2)
both = NamedSharding(mesh, PartitionSpec("clients", "model"))
rows = NamedSharding(mesh, PartitionSpec("clients"))
windows = np.stack([part[:4] for part in jd.data.markov_text(books=8, characters=400).windows(8)])
model = jd.problems.neural.Transformer(16, length=8, width=8, heads=2, layers=1)
problem = jd.problems.Minibatch(jd.problems.next_token(model, windows), 2)
x0, key = problem.start().astype(float), jax.random.key(0)

def spread(leaf):
    return jax.device_put(leaf, rows) if np.shape(leaf)[:1] == (8,) else leaf

for method, network in [
    (jd.FedAvg(0.5, local_steps=3), jd.networks.Server(8)),
    (jd.GradientTracking(0.5), jd.networks.metropolis(jd.graphs.ring(8))),
]:
    options = {"steps": 4, "every": 4, "defaults": ("loss",)}
    here = jd.run(method, problem, network, x0, key, **options)
    assert float(np.abs(jax.tree.leaves(here.state)[0] - np.asarray(x0)).max()) > 1e-3
    there = jd.run(
        method, jax.tree.map(spread, problem), network, jax.device_put(x0, both), key, **options
    )
    np.testing.assert_allclose(here.history["loss"], there.history["loss"], rtol=1e-10)
    for a, b in zip(jax.tree.leaves(here.state), jax.tree.leaves(there.state), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)
        held = {shard.data.nbytes for shard in b.addressable_shards}
        assert held == {b.nbytes // (8 if b.ndim == 2 else 2)}, (type(method), b.shape, held)
"""


def run_on(devices, program):
    flags = f"--xla_force_host_platform_device_count={devices}"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)


def test_agents_over_four_devices():
    run_on(4, PROGRAM)


@pytest.mark.slow
def test_seeds_over_two_devices():
    """Under shard_map all that a loop carries varies alike, and gradients are each device's own."""
    run_on(2, SEEDS)


def test_explicit_axes_are_taken_with_automatic_ones():
    run_on(4, EXPLICIT)


def test_explicit_axes_within_transformations():
    run_on(4, TRANSFORMED)


@pytest.mark.long
def test_clients_over_one_axis_and_their_models_over_another():
    run_on(8, MODELS)
