"""What attacks share: the honest messages that are heard, their mean, and what is told."""

from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdopt._checks import Called, require
from jaxdopt._leaves import wide_dtype
from jaxdopt._numbers import Number

Strength = Annotated[Any, Number(shared=True)]
"""A number that can be traced, swept and differentiated."""

Attack = Annotated[Any, Called("Attack", "one of jd.attacks, such as ALIE()")]
"""An attack of `jaxdopt.attacks`, or an object of your own with its call."""


def heard_messages(honest: Any, heard: Any) -> tuple[jax.Array, jax.Array]:
    """Return the honest messages in at least float32, 0 where not heard, and the mask of heard."""
    honest = jnp.asarray(honest)
    require(honest.ndim == 2, f"honest has shape {honest.shape}; give one message a row, [m, d].")
    honest = honest.astype(wide_dtype(honest.dtype))
    if heard is None:
        return honest, jnp.ones(len(honest), bool)
    require(
        np.shape(heard) == (len(honest),),
        f"heard has shape {np.shape(heard)}; give one truth value a message, [{len(honest)}].",
    )
    mask = jnp.asarray(heard, bool)
    return jnp.where(mask[:, None], honest, 0), mask


def mean_of(messages: jax.Array, mask: jax.Array) -> jax.Array:
    """Return the mean of the messages of a mask, which are 0 where it is false."""
    return jnp.sum(messages, axis=0) / jnp.maximum(jnp.sum(mask), 1).astype(messages.dtype)


class Heard(NamedTuple):
    """What a lie is made of: the honest messages that one receiver hears."""

    messages: jax.Array  # [m, d], 0 where not heard
    mask: jax.Array  # [m]
    count: Any  # of those heard; an int where it is known
    mean: jax.Array  # [d]
    liars: Any  # how many tell the lie
    key: Any  # of what is drawn, or None


class Lie:
    """The base of attacks; a subclass defines ``_lie``, of what is `Heard`."""

    broadcasts = False  # whether receivers who hear the same are told the same

    def __call__(
        self, honest: Any, liars: Any = 1, key: Any = None, heard: Any = None
    ) -> jax.Array:
        """Return what one receiver is told [d], in the dtype of the honest messages."""
        messages, mask = heard_messages(honest, heard)
        count = len(messages) if heard is None else jnp.sum(mask)
        lie = self._lie(Heard(messages, mask, count, mean_of(messages, mask), liars, key))
        dtype = jnp.asarray(honest).dtype
        return lie.astype(dtype) if jnp.issubdtype(dtype, jnp.floating) else lie

    def _lie(self, heard: Heard) -> jax.Array:
        """Return the lie [d], in at least float32."""
        raise NotImplementedError
