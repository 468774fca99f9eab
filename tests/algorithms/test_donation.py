"""Every method's start can be donated to its first step: no two of its arrays share memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from catalogue import ROWS
from small import KEY, network_of, uneven

from jaxdopt._leaves import distinct

pytestmark = pytest.mark.slow

METHODS = {row.name: (row.make, row.network) for row in ROWS}


def places(tree):
    """Where in memory the arrays of a tree are."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.Array) and leaf.size]
    return [leaf.unsafe_buffer_pointer() for leaf in leaves]


def begun(name):
    """A method's start, and what it has been made of."""
    build, kind = METHODS[name]
    method, problem, network = build(0.1), uneven("float64"), network_of(kind)
    x0 = problem.start() + 1.0
    given = x0, problem, network, KEY
    return method.init(x0, problem, network.at(0, KEY), KEY), given


@pytest.mark.parametrize("name", METHODS)
def test_a_start_has_memory_of_its_own(name):
    state, given = begun(name)
    own = places(state)
    assert len(set(own)) == len(own)
    assert not set(own) & {leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(given[:3])
                           if isinstance(leaf, jax.Array)}  # fmt: skip


@pytest.mark.parametrize("name", ["GradientTracking", "FedSUMCR", "RFAST"])
def test_a_donated_start_leaves_the_rest_alone(name):
    build, _ = METHODS[name]
    state, (x0, problem, network, key) = begun(name)
    method = build(0.1)

    def step(state):
        return method.step(state, problem, network.at(0, key), key)

    expected = jax.jit(step)(state)
    got = jax.jit(step, donate_argnums=0)(state)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))
    jax.tree.map(np.testing.assert_array_equal, got, expected)
    assert np.all(np.isfinite(x0))
    assert np.all(np.isfinite(problem.start()))
    assert jax.tree.leaves(network.at(1, key))


def test_only_what_is_shared_is_copied():
    a, b = jnp.ones(3), jnp.zeros(3)
    one, same, other, number = distinct((a, a, b, 1.0), b)
    assert one is a
    assert same is not a
    assert other is not b
    assert number == 1.0
    np.testing.assert_array_equal(same, a)
    first, second = distinct((KEY, KEY))
    assert first is KEY
    assert second is not KEY


def test_nothing_is_copied_while_a_program_is_traced():
    def twice(x):
        return distinct((x, x), x)

    assert not jax.make_jaxpr(twice)(jnp.ones(3)).eqns
    jax.vmap(twice)(jnp.ones(3))
    jax.grad(lambda x: sum(twice(x)))(1.0)


def test_a_sharded_array_stays_so():
    spec = jax.sharding.NamedSharding(jax.make_mesh((1,), ("agents",)), jax.P("agents"))
    x = jax.device_put(jnp.ones(4), spec)
    _, copy = distinct((x, x))
    assert copy.sharding == spec
