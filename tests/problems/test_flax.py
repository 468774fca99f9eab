"""Flax modules as finite sums, against NumPy loops; what is refused; windows of tokens."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx

import jaxdopt as jd
from jaxdopt.fingerprint import fingerprint
from jaxdopt.problems import neural

RANDOM = np.random.default_rng(0)
SIZES = (3, 5, 4)
FEATURES = [RANDOM.standard_normal((m, 2)) for m in SIZES]
LABELS = [np.arange(m) % 3 for m in SIZES]
MODEL = nn.Sequential([nn.Dense(4), nn.tanh, nn.Dense(3)])
OPTIONS = {"l2": 0.1, "weights": "samples"}


class Layers(nnx.Module):
    def __init__(self, rngs):
        self.layers = nnx.List([nnx.Linear(2, 4, rngs=rngs), nnx.Linear(4, 3, rngs=rngs)])
        self.scale = nnx.Variable(jnp.array(1.0))  # a constant
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return self.layers[1](self.dropout(jnp.tanh(self.layers[0](x)))) * self.scale


class Normalized(nnx.Module):
    def __init__(self, rngs):
        self.norm = nnx.BatchNorm(2, rngs=rngs)

    def __call__(self, x):
        return self.norm(x)


class Noisy(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dropout(0.5, deterministic=False)(nn.Dense(3)(x))


class Counting(nn.Module):
    @nn.compact
    def __call__(self, x):
        count = self.variable("counts", "calls", lambda: jnp.zeros(()))
        count.value += 1
        return nn.Dense(3)(x)


def evaluated(rngs):
    module = Layers(rngs)
    module.eval()  # no dropout
    return module


def doubled(params):
    """Return parameters in float64, moved away from zeros and ones."""
    random = np.random.default_rng(1)
    return jax.tree.map(
        lambda leaf: np.asarray(leaf, float) + 0.3 * random.standard_normal(leaf.shape), params
    )


def test_a_linen_module_is_the_loops():
    problem = jd.problems.flax(MODEL, FEATURES, LABELS, **OPTIONS)
    assert (problem.n, problem.d, problem.origin.dtype) == (3, 12 + 15, jnp.float64)
    assert problem.tokens is None
    row = np.asarray(problem.origin) + 0.3
    first, last = (problem.unravel(jnp.asarray(row))[f"layers_{i}"] for i in (0, 2))
    values = []
    for features, labels in zip(FEATURES, LABELS, strict=True):
        for a, b in zip(features, labels, strict=True):
            scores = np.tanh(a @ first["kernel"] + first["bias"]) @ last["kernel"] + last["bias"]
            values.append(math.log(np.exp(scores).sum()) - scores[b])
    expected = np.mean(values) + 0.05 * row @ row
    np.testing.assert_allclose(jax.jit(problem.objective)(row), expected, rtol=1e-12)


def test_linen_and_nnx_are_the_same():
    module = evaluated(nnx.Rngs(0))
    one = jd.problems.flax(module, FEATURES, LABELS, **OPTIONS)
    two = jd.problems.flax(MODEL, FEATURES, LABELS, **OPTIONS)
    x = jnp.asarray(RANDOM.standard_normal((3, one.d)))
    names = {0: "layers_0", 1: "layers_2"}
    renamed = [one.unravel(row)["layers"] for row in x]
    rows = [two.ravel({names[i]: layer for i, layer in layers.items()}) for layers in renamed]
    grads = jax.jit(one.grad)(x), jax.jit(two.grad)(jnp.stack(rows))
    np.testing.assert_allclose(*grads, rtol=1e-12)
    nnx.update(module, one.unravel(x[0]))  # trained parameters go back
    scores = one.loss.predict(one.unravel(x[0]), FEATURES[0])
    np.testing.assert_allclose(module(FEATURES[0]), scores, rtol=1e-12)


def test_pooled_data_are_split_and_images_keep_their_shape():
    images, labels = RANDOM.random((12, 4, 4, 1), np.float32), np.arange(12) % 3
    model = neural.CNN(3, channels=(4,), hidden=4)
    problem = jd.problems.flax(model, images, labels, agents=4, partition="by_label")
    assert (problem.data[0].shape, problem.origin.dtype) == ((4, 3, 4, 4, 1), jnp.float32)
    np.testing.assert_array_equal(problem.data[1], np.repeat(np.arange(3), 4).reshape(4, 3))
    params = problem.unravel(problem.origin)
    predict = jax.jit(problem.loss.predict)
    flat, square = (predict(params, x) for x in (images.reshape(12, 16), images))
    np.testing.assert_array_equal(flat, square)
    assert square.shape == (12, 3)
    other = jd.problems.flax(model, images, labels, agents=4, seed=1)
    assert not np.array_equal(problem.origin, other.origin)


def test_a_loss_that_is_no_scalar_is_averaged():
    targets = RANDOM.standard_normal((2, 4, 3))
    features = RANDOM.standard_normal((2, 4, 2))
    problem = jd.problems.flax(MODEL, features, targets, loss=optax.losses.squared_error)
    params = problem.unravel(problem.origin)
    outputs = np.asarray(problem.loss.predict(params, features.reshape(8, 2)))
    expected = np.mean((outputs - targets.reshape(8, 3)) ** 2)
    np.testing.assert_allclose(jax.jit(problem.objective)(problem.origin), expected, rtol=1e-12)


def test_the_convolutional_network_is_the_loops():
    model = neural.CNN(3, channels=(4, 4), hidden=5, groups=2)
    image = RANDOM.standard_normal((1, 4, 4, 1))
    params = doubled(jax.jit(model.init)(jax.random.key(0), image)["params"])
    got = jax.jit(model.apply)({"params": params}, image)
    params, x = jax.tree.map(np.asarray, params), image[0]
    for i in range(2):
        conv, norm = params[f"Conv_{i}"], params[f"GroupNorm_{i}"]
        h, w, _ = x.shape
        padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
        y = np.zeros((h, w, 4))
        for r in range(h):
            for c in range(w):
                patch = padded[r : r + 3, c : c + 3]
                y[r, c] = np.einsum("ijk,ijkl->l", patch, conv["kernel"]) + conv["bias"]
        for group in ([0, 1], [2, 3]):
            part = y[..., group]
            y[..., group] = (part - part.mean()) / np.sqrt(part.var() + 1e-6)
        y = np.maximum(y * norm["scale"] + norm["bias"], 0)
        x = np.array([[y[2 * r : 2 * r + 2, 2 * c : 2 * c + 2].max((0, 1)) for c in range(w // 2)]
                      for r in range(h // 2)])  # fmt: skip
    first, last = params["Dense_0"], params["Dense_1"]
    x = np.maximum(x.ravel() @ first["kernel"] + first["bias"], 0)
    np.testing.assert_allclose(got[0], x @ last["kernel"] + last["bias"], rtol=1e-10)


def normal(x, params):
    deviation = np.sqrt(x.var() + 1e-6)
    return (x - x.mean()) / deviation * params["scale"] + params["bias"]


@pytest.mark.parametrize("tied", [True, False])
def test_the_transformer_is_the_loops(tied):
    model = neural.Transformer(7, length=6, width=4, heads=2, layers=2, tied=tied)
    tokens = np.array([[3, 1, 6, 0, 3]])
    params = doubled(jax.jit(model.init)(jax.random.key(0), tokens)["params"])
    got = jax.jit(model.apply)({"params": params}, tokens)[0]
    params = jax.tree.map(np.asarray, params)
    x = [params["embedding"][t] + params["positions"][i] for i, t in enumerate(tokens[0])]
    for block in (params["Block_0"], params["Block_1"]):
        seen = [normal(row, block["LayerNorm_0"]) for row in x]
        q, k, v = (
            [
                np.einsum("i,ihd->hd", row, block[name]["kernel"]) + block[name]["bias"]
                for row in seen
            ]
            for name in ("queries", "keys", "values")
        )
        added = []
        for t in range(len(x)):
            out = np.array(block["DenseGeneral_0"]["bias"])
            for h in range(2):
                weights = np.exp([q[t][h] @ k[s][h] / np.sqrt(2) for s in range(t + 1)])
                heard = sum(w * v[s][h] for s, w in enumerate(weights / weights.sum()))
                out = out + heard @ block["DenseGeneral_0"]["kernel"][h]
            added.append(out)
        x = [row + more for row, more in zip(x, added, strict=True)]
        for t, row in enumerate(x):
            dense, back = block["Dense_0"], block["Dense_1"]
            z = normal(row, block["LayerNorm_1"]) @ dense["kernel"] + dense["bias"]
            z = z / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3)))
            x[t] = row + z @ back["kernel"] + back["bias"]
    head = params["embedding"].T if tied else params["Dense_0"]["kernel"]
    expected = [normal(row, params["LayerNorm_0"]) @ head for row in x]
    np.testing.assert_allclose(got, expected, rtol=1e-10)


TEXT = jd.data.markov_text(books=3, characters=60)
SMALL = neural.Transformer(16, length=8, width=4, heads=2, layers=1)


def test_next_tokens_of_windows():
    problem = jd.problems.next_token(SMALL, TEXT.windows(8), weights="samples")
    windows = TEXT.windows(8)
    assert problem.data.dtype == np.uint8
    assert np.asarray(problem.sizes).tolist() == [len(part) for part in windows]
    assert jd.problems.Minibatch(problem, 2).tokens == 8
    params = problem.unravel(problem.origin)
    joined, values = np.concatenate(windows), []
    all_scores = np.asarray(jax.jit(problem.loss.predict)(params, joined[:, :-1]), float)
    for window, scores in zip(joined, all_scores, strict=True):
        chosen = scores[np.arange(8), window[1:]]
        values.append(np.mean(np.log(np.exp(scores).sum(axis=1)) - chosen))
    value = jax.jit(problem.objective)(problem.origin)
    np.testing.assert_allclose(value, np.mean(values), rtol=1e-6)
    pooled = jd.problems.next_token(SMALL, np.concatenate(windows), agents=2)
    assert (pooled.n, pooled.tokens) == (2, 8)


def test_gradients_are_finite_differences():
    windows = np.stack([part[:2] for part in TEXT.windows(8)])
    problem = jd.problems.next_token(SMALL, windows)
    x = jnp.asarray(0.3 * RANDOM.standard_normal((3, problem.d)))
    v = jnp.asarray(RANDOM.standard_normal(problem.d))
    got = jax.jit(problem.grad)(x)
    alone = jax.jit(lambda i, row: problem.take(i[None]).objective(row))
    for i in range(3):
        ahead, behind = (alone(jnp.asarray(i), x[i] + s * v) for s in (1e-5, -1e-5))
        np.testing.assert_allclose(got[i] @ v, (ahead - behind) / 2e-5, rtol=1e-6)


@pytest.mark.parametrize(
    ("module", "sentence"),
    [
        (nn.Sequential([nn.BatchNorm(use_running_average=False), nn.Dense(3)]), "running statis"),
        (lambda: Normalized(nnx.Rngs(0)), "Normalized has running statistics.*GroupNorm"),
        (Noisy(), "Noisy draws random numbers.*Oracle"),
        (lambda: Layers(nnx.Rngs(0)), "Layers draws random numbers, such as dropout's.*Oracle"),
        (Counting(), "Counting draws random numbers.*or changes a state of its own"),
        (Noisy, "module is .*Noisy.*give an instance"),
        (jnp.tanh, "give an instance of a flax module, linen or nnx"),
        (nn.Dense(2), r"classes are 0 to 2, of dtype int64, and the module has 2 scores"),
    ],
)
def test_what_is_no_sum_of_losses_is_refused(module, sentence):
    module = module() if type(module).__name__ == "function" else module
    with pytest.raises(ValueError, match=sentence) as refused:
        jd.problems.flax(module, FEATURES, LABELS)
    assert str(refused.value).count(". ") == 0


@pytest.mark.parametrize(
    ("windows", "sentence"),
    [
        (np.full((2, 3, 9), 16), "classes are 16 to 16, .* the module has 16 scores"),
        (np.zeros((2, 3, 9)), "has dtype float64; give tokens"),
        (np.zeros((3, 9), int), r"have shape \(9,\); give \[m, T \+ 1\]"),
    ],
)
def test_windows_that_do_not_fit_are_refused(windows, sentence):
    with pytest.raises(ValueError, match=sentence):
        jd.problems.next_token(SMALL, windows)


def test_a_module_without_scores_of_tokens_is_refused():
    embedding = nn.Sequential([nn.Embed(16, 4), lambda x: x.mean(axis=1)])
    with pytest.raises(ValueError, match=r"makes \(1, 4\) of tokens \(1, 8\)"):
        jd.problems.next_token(embedding, np.zeros((2, 3, 9), int))


def test_other_images_are_refused():
    with pytest.raises(ValueError, match="rows of 63 pixels, no square"):
        neural.CNN().init(jax.random.key(0), jnp.zeros((2, 63)))
    assert not hasattr(neural, "RNN")


def test_fingerprints_are_of_modules_and_data():
    def of(seed=0, hidden=4):
        model = nn.Sequential([nn.Dense(hidden), nn.relu, nn.Dense(3)])
        return fingerprint(jd.problems.flax(model, FEATURES, LABELS, seed=seed))

    assert of() == of()
    assert len({of(), of(seed=1), of(hidden=5)}) == 3


@pytest.mark.parametrize("make", [lambda: MODEL.clone(), lambda: evaluated(nnx.Rngs(3))])
def test_problems_of_equal_modules_are_stacked(make):
    problems = [jd.problems.flax(make(), features, LABELS, seed=0) for features in (FEATURES, [
        2 * part for part in FEATURES])]  # fmt: skip
    x = jnp.asarray(RANDOM.standard_normal(problems[0].d))
    together = jax.jit(jax.vmap(lambda problem: problem.objective(x)))(jd.stack(problems))
    own = [jax.jit(problem.objective)(x) for problem in problems]
    np.testing.assert_allclose(together, own, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("network", ["ring", "server"])
def test_it_learns_the_text(network):
    train, test = TEXT_OF_BOOKS.split(0.1)
    model = neural.Transformer(16, length=16, width=16, heads=2, layers=1)
    problem = jd.problems.next_token(model, train.windows(16), weights="samples")
    held = jd.metrics.held_out(problem.loss, np.concatenate(test.windows(16)))
    sides = {
        "ring": (jd.GradientTracking(0.3), jd.networks.metropolis(jd.graphs.ring(4))),
        "server": (jd.FedAvg(0.3, local_steps=4), jd.networks.Server(4)),
    }
    method, graph = sides[network]
    result = jd.run(
        method,
        jd.problems.Minibatch(problem, 8),
        graph,
        problem.start(),
        jax.random.key(0),
        steps=200,
        every=200,
        metrics={"held out": held},
        defaults=(),
    )
    first, last = result.history["held out"]
    assert first == pytest.approx(math.log(16), abs=0.1)
    assert last < 0.9 * first


TEXT_OF_BOOKS = jd.data.markov_text(books=4, characters=1000)
