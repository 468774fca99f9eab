"""ByzFL's grid: a step is the loop's for every f, cells are chosen by their worst attack."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from reference import robust

from experiments import byzfl
from experiments.study import Results


@pytest.fixture(scope="module")
def world():
    """The quick sizes, with fewer steps."""
    sizes = byzfl.SCALES["quick"] | {"steps": 50, "attacks": ("sign flip",)}
    return byzfl.STUDY.world(sizes, 0)


def test_images_are_split_and_dealt(world):
    parts = byzfl.images(0)
    assert [len(part.labels) for part in parts] == [3500, 500, 1000]
    rows = [row.tobytes() for part in parts for row in part.features]
    assert len(set(rows)) > 4990  # a few images pool to the same pixels
    alike, sorted_ = (problem.problem for problem in world.problems)
    for problem in (alike, sorted_):
        features, labels = map(np.asarray, problem.data)
        assert features.shape == (14, 350, 49)
        np.testing.assert_array_equal(features[10:], features[:4])
        assert np.bincount(labels[:10].ravel()).tolist() == [350] * 10
    assert np.all(np.asarray(sorted_.data[1])[:10] == np.arange(10)[:, None])
    assert len(np.unique(np.asarray(alike.data[1])[0])) == 10


@pytest.mark.parametrize("rule", byzfl.RULES)
def test_a_step_is_the_loops_for_every_number_of_liars(rule, world):
    problem, method = world.problems[1], byzfl.ClientMomentum(0.5)
    last = {
        "trimmed mean": robust.trimmed_mean,
        "geometric median": lambda _: robust.geometric_median(0.1, 3),
    }

    @jax.jit
    def stepped(f, keys):
        network = byzfl.server(rule, "sign flip", f)
        state = method.init(problem.start(), problem, network.at(0, keys[0]), keys[0])
        for k in range(3):
            state = method.step(state, problem, network.at(k, keys[k]), keys[k])
        return state.estimate

    keys = jax.random.split(jax.random.key(1), 3)
    for f in (1, 4):
        x, momentum = np.zeros(problem.d), np.zeros((10 + f, problem.d))
        x += np.asarray(problem.start()[0])
        own = robust.chain(robust.clip(2.0), robust.nnm(f), last[rule](f))
        for key in keys:
            rows = jnp.broadcast_to(jnp.asarray(x, jnp.float32), (14, problem.d))
            gradients = np.asarray(problem.grad(rows, key), float)[: 10 + f]
            momentum = 0.9 * momentum + 0.1 * gradients
            sent = momentum.copy()
            sent[10:] = robust.sign_flip()(momentum[:10], f)
            x = x - 0.5 * own(sent)
        np.testing.assert_allclose(stepped(jnp.float32(f), keys), x, atol=2e-5)


def test_the_programs_accuracies_fall_with_liars_that_differ(world):
    results = Results(world, "quick")
    parts = {at: program.run() for at, program in byzfl.attacked(world, results).items()}
    (dataset,) = parts.values()
    assert dict(dataset.accuracy.sizes) == {"stepsize": 1, "f": 2, "gamma": 2, "seed": 1, "step": 2}
    assert not dataset.diverged.any()
    assert dataset.seconds > 0
    last = dataset.accuracy.isel(step=-1, seed=0, stepsize=0)
    assert (last.sel(gamma=1.0) > 0.7).all()
    assert last.sel(gamma=0.0, f=4) < last.sel(gamma=0.0, f=1) - 0.1


def test_a_cell_has_the_stepsize_that_is_best_under_its_worst_attack():
    dims = ("rule", "attack", "stepsize", "f", "gamma", "seed", "step")
    guide = np.zeros((1, 2, 2, 1, 1, 2, 1))
    guide[0, :, :, 0, 0, :, 0] = np.array([[0.9, 0.6], [0.2, 0.5]])[:, :, None]
    guide[0, 0, 0, 0, 0, 1] = np.nan  # a run that diverged counts as 0
    shown = np.arange(8.0).reshape(1, 2, 2, 1, 1, 2, 1)
    coords = {"rule": ["R"], "attack": ["A", "B"], "stepsize": [0.1, 0.5], "f": [1], "gamma": [0.0]}
    made = xr.Dataset({"chosen by": (dims, guide), "accuracy": (dims, shown)}, coords)
    found = byzfl.chosen(made).accuracy.squeeze()
    assert found.stepsize == 0.5  # min(.6, .5) is more than min(.45, .2)
    assert found.values.tolist() == [2.5, 6.5]  # means over seeds
    results = Results(None, "quick")
    results["attacked"] = made.assign(
        seconds=(("rule", "attack"), [[1.0, 2.0]]), diverged=xr.zeros_like(made.accuracy)
    )
    assert byzfl.worst(results).squeeze() == 2.5
    table = byzfl.seconds(results)
    assert table.seconds.tolist() == [1.0, 2.0, 3.0]
    assert table.attack.tolist() == ["A", "B", ""]
