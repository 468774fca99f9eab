"""The leading axis, on trees whose leaves have several shapes."""

import jax.numpy as jnp
import numpy as np

from jaxdopt import agents

RANDOM = np.random.default_rng(0)
TREE = {
    "a": jnp.asarray(RANDOM.standard_normal((5, 3))),
    "b": (jnp.arange(5.0), jnp.ones((5, 2, 2))),
}


def test_select_takes_whole_rows():
    mask = jnp.array([True, False, True, False, False])
    zeros = {"a": jnp.zeros((5, 3)), "b": (jnp.zeros(5), jnp.zeros((5, 2, 2)))}
    chosen = agents.select(mask, TREE, zeros)
    for i in range(5):
        expected = TREE["a"][i] if mask[i] else jnp.zeros(3)
        np.testing.assert_array_equal(chosen["a"][i], expected)
        assert chosen["b"][0][i] == (i if mask[i] else 0)
        assert chosen["b"][1][i].sum() == (4 if mask[i] else 0)


def test_put_undoes_take_and_drops_the_padding():
    who = jnp.array([3, 0, 5, 6])  # 5 and 6 are padding
    rows = agents.take(TREE, jnp.minimum(who, 4))
    changed = {"a": rows["a"] + 1, "b": rows["b"]}
    back = agents.put(TREE, who, changed)
    difference = np.asarray(back["a"] - TREE["a"])
    np.testing.assert_allclose(difference[[0, 3]], 1)
    np.testing.assert_array_equal(difference[[1, 2, 4]], 0)
    np.testing.assert_array_equal(back["b"][0], TREE["b"][0])


def test_average_and_disagreement():
    x = np.asarray(TREE["a"])
    np.testing.assert_allclose(agents.average(TREE)["a"], [sum(x[:, j]) / 5 for j in range(3)])
    by_hand = sum(((x[i] - x.mean(axis=0)) ** 2).sum() for i in range(5)) / 5
    np.testing.assert_allclose(agents.disagreement(TREE), by_hand + 2.0)  # arange(5) has variance 2
