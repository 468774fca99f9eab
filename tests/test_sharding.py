"""Agents spread over devices: the same numbers, and a ring that talks to its neighbors only."""

import os
import subprocess
import sys

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


def test_agents_over_four_devices():
    flags = "--xla_force_host_platform_device_count=4"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", PROGRAM], check=True, env=environment)
