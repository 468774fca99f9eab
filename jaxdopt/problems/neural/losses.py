"""Cross-entropies: of scores, of a sample, of the next tokens.

Losses of flax modules have ``many``, the losses [b] of a batch, as a module takes one. Mapped over
samples, each a batch of one, the products of a small transformer take four times as long on a CPU.
"""

from typing import Any

import jax

from jaxdopt._pytree import pytree, static


def cross_entropy(scores: jax.Array, classes: jax.Array) -> jax.Array:
    """−log of the probabilities [...] that scores [..., c] give to integer classes [...]."""
    import optax

    chosen = jax.nn.one_hot(classes, scores.shape[-1], dtype=scores.dtype)
    return optax.losses.softmax_cross_entropy(scores, chosen)


@pytree
class SampleLoss:
    """The loss of one sample (features, label) of a module: the mean of what ``loss`` returns.

    Args:
        predict: ``predict(params, features [b, ...])``, the module.
        loss: ``loss(output, label)``.
    """

    predict: Any
    loss: Any

    def __call__(self, params: Any, sample: tuple[jax.Array, jax.Array]) -> jax.Array:
        """Return the loss; the module sees a batch of one."""
        return self.many(params, jax.tree.map(lambda leaf: leaf[None], sample))[0]

    def many(self, params: Any, samples: tuple[jax.Array, jax.Array]) -> jax.Array:
        """Return the losses of a batch, [b], as the module computes them at once."""
        features, labels = samples
        losses = jax.vmap(self.loss)(self.predict(params, features), labels)
        return losses.reshape(len(losses), -1).mean(axis=1)


@pytree
class NextToken:
    """The mean cross-entropy of each token of a window [T + 1], given all before it in the window.

    Args:
        predict: ``predict(params, tokens [b, T]) -> scores [b, T, vocabulary]``.
        tokens: T.
    """

    predict: Any
    tokens: int = static()

    def __call__(self, params: Any, window: jax.Array) -> jax.Array:
        """Return the mean over T tokens, in nats."""
        return self.many(params, window[None])[0]

    def many(self, params: Any, windows: jax.Array) -> jax.Array:
        """Return the losses of a batch of windows, [b]."""
        scores = self.predict(params, windows[:, :-1])
        return cross_entropy(scores, windows[:, 1:]).mean(axis=1)
