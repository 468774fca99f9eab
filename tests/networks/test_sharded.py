"""Networks of agents over devices; ``tests/test_devices.py`` has several devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxdopt as jd

MESH = jax.make_mesh((1,), ("agents",))
STAR = jd.networks.metropolis(jd.graphs.star(20))
TABLE = jd.networks.mixing(STAR.csr(), form=jd.networks.Neighbors)  # with a tier for the hub


def test_a_plan_for_one_device_exchanges_nothing():
    spread = jd.networks.sharded(TABLE, MESH)
    x = jnp.asarray(np.random.default_rng(0).standard_normal((20, 2)), jnp.float32)
    assert (spread.halo.exchange, spread.halo.received) == ((), 0)
    assert "devices=1 (each receives 0 rows)" in repr(spread)
    np.testing.assert_array_equal(spread @ x, TABLE @ x)


def test_what_cannot_be_spread_is_refused():
    with pytest.raises(ValueError, match="axis is 'rows' and the mesh has"):
        jd.networks.sharded(TABLE, MESH, "rows")
    with pytest.raises(ValueError, match="the network is traced"):
        jax.jit(lambda network: jd.networks.sharded(network, MESH) @ jnp.ones((20, 1)))(TABLE)
    with pytest.raises(ValueError, match="where a network is wanted"):
        jd.networks.sharded(jd.graphs.star(20), MESH)
