"""Cross-entropies: of scores, of a sample, of the next tokens."""

from typing import Any

import jax
import jax.numpy as jnp

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
        features, label = sample
        return jnp.mean(self.loss(self.predict(params, features[None])[0], label))


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
        return jnp.mean(cross_entropy(self.predict(params, window[None, :-1])[0], window[1:]))
