"""Two flax modules of common design, without running statistics or randomness."""

import inspect
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn


class CNN(nn.Module):
    """A small convolutional network: (3x3 convolution, GroupNorm, ReLU, 2x2 pooling)*, two layers.

    It takes images [b, h, w, c], or rows of pixels [b, p] that are gray squares, as those of
    `jd.data.mnist`, and returns scores [b, classes].

    Args:
        classes: the number of scores.
        channels: of the convolutions, multiples of ``groups``.
        hidden: units of the fully connected layer.
        groups: of channels that are normalized together.

    Source: Y. Wu and K. He, Group normalization, ECCV 2018, arXiv 1803.08494, for what stands in
    batch normalization's place where clients differ (Hsieh and others 2020, arXiv 1910.00189).

    Example:
        >>> images = jnp.zeros((5, 64))
        >>> model = jd.problems.neural.CNN(10, channels=(4, 8), hidden=16)
        >>> model.init_with_output(jax.random.key(0), images)[0].shape
        (5, 10)
    """

    classes: int = 10
    channels: Sequence[int] = (16, 32)
    hidden: int = 64
    groups: int = 4

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Return scores [b, classes]."""
        x = _squares(images) if images.ndim == 2 else images
        for width in self.channels:
            x = nn.relu(nn.GroupNorm(self.groups)(nn.Conv(width, (3, 3))(x)))
            x = nn.max_pool(x, (2, 2), (2, 2))
        x = nn.relu(nn.Dense(self.hidden)(x.reshape(len(x), -1)))
        return nn.Dense(self.classes)(x)


def _squares(rows: jax.Array) -> jax.Array:
    """Return rows of pixels [b, p] as gray images [b, √p, √p, 1]."""
    side = round(rows.shape[1] ** 0.5)
    if side * side != rows.shape[1]:
        raise ValueError(
            f"the images are rows of {rows.shape[1]} pixels, no square; give images [b, h, w, c]."
        )
    return rows.reshape(-1, side, side, 1)


class Transformer(nn.Module):
    """A decoder-only transformer: learned positions, causal attention, GELU, LayerNorm first.

    It takes tokens [b, T], T ≤ ``length``, and returns scores [b, T, vocabulary] of each next one.
    A block is x ← x + attention(LayerNorm(x)), x ← x + W₂ GELU(W₁ LayerNorm(x)), with four times
    the width inside.

    Args:
        vocabulary: the number of tokens.
        length: the longest window that it can read.
        width: of the residual stream, a multiple of ``heads``.
        heads: of the attention.
        layers: the number of blocks.
        tied: whether scores are products with the embeddings, or with weights of their own.

    Source: A. Radford and others, Language models are unsupervised multitask learners (GPT-2),
    2019; tied weights: O. Press and L. Wolf, EACL 2017, arXiv 1608.05859.

    Example:
        >>> model = jd.problems.neural.Transformer(20, length=16, width=8, heads=2)
        >>> model.init_with_output(jax.random.key(0), jnp.zeros((5, 16), int))[0].shape
        (5, 16, 20)
    """

    vocabulary: int
    length: int
    width: int = 64
    heads: int = 4
    layers: int = 2
    tied: bool = True

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Return the scores of each next token, [b, T, vocabulary]."""
        small = nn.initializers.normal(0.02)
        embedding = self.param("embedding", small, (self.vocabulary, self.width))
        positions = self.param("positions", small, (self.length, self.width))
        # a product, as the gradient of rows that are looked up would be scattered
        x = jax.nn.one_hot(tokens, self.vocabulary, dtype=embedding.dtype) @ embedding
        x = x + positions[: tokens.shape[-1]]
        for _ in range(self.layers):
            x = Block(self.heads)(x)
        x = nn.LayerNorm()(x)
        return x @ embedding.T if self.tied else nn.Dense(self.vocabulary, use_bias=False)(x)


class Block(nn.Module):
    """A block of the transformer.

    Args:
        heads: of the attention.
    """

    heads: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Return the residual stream [b, T, width] after this block."""
        width = x.shape[-1]
        queries, keys, values = (
            nn.DenseGeneral((self.heads, width // self.heads), name=name)(normal)
            for normal in (nn.LayerNorm()(x),)
            for name in ("queries", "keys", "values")
        )
        heard = causal_attention(queries, keys, values)
        x = x + nn.DenseGeneral(width, axis=(-2, -1))(heard)
        inner = nn.gelu(nn.Dense(4 * width)(nn.LayerNorm()(x)))
        return x + nn.Dense(width)(inner)


def causal_attention(queries: jax.Array, keys: jax.Array, values: jax.Array) -> jax.Array:
    """Return softmax(Q Kᵀ / √c) V over each token and those before it, all [b, T, heads, c]."""
    products = jnp.einsum("bthc,bshc->bhts", queries, keys) / queries.shape[-1] ** 0.5
    before = jnp.tril(jnp.ones(products.shape[-2:], bool))
    weights = nn.softmax(jnp.where(before, products, -jnp.inf))
    return jnp.einsum("bhts,bshc->bthc", weights, values)


for _module in (CNN, Transformer):  # flax adds ``parent`` and ``name``, which nobody gives
    _own = inspect.signature(_module).parameters
    _shown = [_own[name] for name in _own if name not in ("parent", "name")]
    setattr(_module, "__signature__", inspect.Signature(_shown))  # noqa: B010
