"""State that is no parameter is noticed; what only looks like it is left alone."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxdopt as jd
from jaxdopt.problems.gradients import zeros

RANDOM = np.random.default_rng(0)
X = jnp.asarray(5 + RANDOM.standard_normal((4, 8, 3)))
Y = jnp.asarray(RANDOM.integers(0, 2, (4, 8)))


class Net(nn.Module):
    """A network whose batch normalization keeps running statistics."""

    @nn.compact
    def __call__(self, x, train=True):
        x = nn.BatchNorm(use_running_average=not train)(nn.Dense(4)(x))
        return nn.Dense(2)(x)


NET = Net()
FLAX = jax.jit(NET.init)(jax.random.key(0), X[0])
OWN = {"params": FLAX["params"], "running": FLAX["batch_stats"]}  # under a name of the user's own


def loss(variables, x, y):
    both = {"params": variables["params"], "batch_stats": variables["running"]}
    scores, _ = NET.apply(both, x, mutable=["batch_stats"])
    return optax.losses.softmax_cross_entropy_with_integer_labels(scores, y).mean()


def plain(params, data, key):
    return jax.grad(loss)(params, *data)


def clipped(params, data, key):
    return optax.clip_by_global_norm(1.0).update(plain(params, data, key), optax.EmptyState())[0]


def checkpointed(params, data, key):
    return jax.grad(jax.checkpoint(loss))(params, *data)


def accumulated(params, data, key):
    """The sum over samples, one by one."""

    def add(total, sample):
        gradient = jax.grad(loss)(params, sample[0][None], sample[1][None])
        return jax.tree.map(jnp.add, total, gradient), None

    return jax.lax.scan(add, jax.tree.map(jnp.zeros_like, params), data)[0]


@pytest.mark.parametrize(
    "gradient",
    [plain, jax.jit(plain), clipped, checkpointed, accumulated],
    ids=["plain", "jitted", "clipped", "checkpointed", "accumulated"],
)
def test_an_oracle_with_state_is_refused(gradient):
    with pytest.raises(ValueError, match=r"\['running'\].*zero; .*close over it, or use GroupNorm"):
        jd.problems.Oracle(gradient, (X, Y), OWN)


def test_batch_statistics_are_refused_also_where_they_have_gradients():
    """In evaluation mode the loss depends on them: they would be trained."""

    def evaluated(variables, sample):
        scores = NET.apply(variables, sample[0], train=False)
        return optax.losses.softmax_cross_entropy_with_integer_labels(scores, sample[1])

    with pytest.raises(ValueError, match=r"\['batch_stats'\].*close over them, or use GroupNorm"):
        jd.problems.FiniteSum(evaluated, (X, Y), FLAX)
    with pytest.raises(ValueError, match=r"\['batch_stats'\].*close over them"):
        jd.problems.Oracle(plain, (X, Y), FLAX)


def test_a_finite_sum_with_state_is_refused():
    def of_sample(variables, sample):
        return loss(variables, sample[0][None], sample[1][None])

    with pytest.raises(ValueError, match=r"the loss does not depend on .*\['running'\]"):
        jd.problems.FiniteSum(of_sample, (X, Y), OWN)


def test_parameters_that_only_look_unused_are_taken():
    """A dead unit, one row of an embedding, a branch not taken, a penalty of weight zero."""

    def of_sample(params, sample):
        x, y = sample
        dead = jax.nn.relu(params["dead"] - 1e9).sum()
        branch = jax.lax.cond(y > 5, lambda: params["branch"].sum(), lambda: 0.0)
        return params["rows"][y].sum() + dead + branch + 0.0 * params["penalty"].sum() + x.sum()

    params = {name: jnp.ones((3, 2)) for name in ("dead", "branch", "rows", "penalty")}
    assert jd.problems.FiniteSum(of_sample, (X, Y), params).d == 24
    jd.problems.Oracle(lambda p, z, k: jax.grad(of_sample)(p, (z[0][0], z[1][0])), (X, Y), params)


def test_an_oracle_of_zeros_is_a_problem_of_consensus():
    problem = jd.problems.Oracle(lambda p, z, k: jnp.zeros_like(p), None, jnp.ones(2), agents=3)
    assert problem.d == 2


def test_normalization_without_state_is_taken():
    class Grouped(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(2)(nn.GroupNorm(num_groups=2)(nn.Dense(4)(x)))

    net = Grouped()
    params = jax.jit(net.init)(jax.random.key(0), X[0])

    def gradient(params, data, key):
        def mean(p):
            scores = net.apply(p, data[0])
            return optax.losses.softmax_cross_entropy_with_integer_labels(scores, data[1]).mean()

        return jax.grad(mean)(params)

    assert jd.problems.Oracle(gradient, (X, Y), params).d == 3 * 4 + 4 + 8 + 8 + 2


def test_zeros_are_told_from_sums_that_start_at_zero():
    def function(x):
        nothing = jnp.zeros_like(x)
        kept, grown = jax.lax.scan(
            lambda c, _: ((c[0], c[1] + x), None), (nothing, nothing), length=3
        )[0]
        return nothing, 2 * nothing + nothing, kept, grown, x

    assert zeros(jax.make_jaxpr(function)(jnp.ones(2)).jaxpr) == [True, True, True, False, False]
