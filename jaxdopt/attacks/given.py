"""Lies that are given or drawn, whatever is honest, or that are offsets from the honest mean."""

from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdopt._checks import require
from jaxdopt._pytree import pytree, replace
from jaxdopt.attacks.messages import Heard, Lie, Strength


@pytree
class Gaussian(Lie):
    """Independent normal numbers with mean 0, one vector a receiver.

    Args:
        sigma: their standard deviation.

    Raises:
        ValueError: no key, when it is called.
    """

    sigma: Strength = 1.0
    strength = "sigma"

    def _lie(self, heard: Heard) -> jax.Array:
        require(heard.key is not None, "key is None, and Gaussian draws its lie; give a key.")
        _, d = heard.messages.shape
        return self.sigma * jax.random.normal(heard.key, (d,), heard.messages.dtype)


class _Value:
    """The check of a lie that is given."""

    kind = "float | Array"

    def accept(self, name: str, value: Any) -> Any:
        """Return a real number, ±∞ and NaN among them, or an array of shape [d]."""
        if isinstance(value, bool) or not isinstance(
            value, int | float | np.number | np.ndarray | jax.Array
        ):
            raise ValueError(f"{name} is {value!r}; give a number or a vector of shape [d].")
        require(np.ndim(value) <= 1, f"{name} has shape {np.shape(value)}; give one vector, [d].")
        return float(value) if isinstance(value, int) else value


@pytree
class Constant(Lie):
    """The same vector, whatever is honest: zeros, ∞, NaN, or a model that liars want.

    Args:
        value: a number for all coordinates, or a vector [d].
    """

    value: Annotated[Any, _Value()]
    broadcasts = True

    def _lie(self, heard: Heard) -> jax.Array:
        shape, (_, d) = np.shape(self.value), heard.messages.shape
        require(
            shape in ((), (d,)),
            f"value has shape {shape}, and messages have {d} numbers; give one number, or as many.",
        )
        return jnp.broadcast_to(jnp.asarray(self.value), (d,))


@pytree
class Scripted(Lie):
    """μ plus an offset that is given for each step and receiver: a lie that can be learned.

    Offsets of 0 are where ascent by ``jax.grad`` starts: rules that select have no slope outside
    of what they accept. ``at(k, receiver)`` is the attack with one offset; a network asks for it.

    Args:
        lies: the offsets [K, n, d], of K steps; or [d], of one step and receiver.

    Raises:
        ValueError: another number of axes.
    """

    lies: Any

    def __post_init__(self) -> None:
        """Check the axes."""
        require(
            np.ndim(self.lies) in (1, 3),
            f"lies has shape {np.shape(self.lies)}; give offsets [K, n, d], of each step and "
            "receiver.",
        )

    def at(self, k: Any, receiver: Any, messages: Any = None) -> "Scripted":
        """Return the attack of step k, the last one from K − 1 on, on one receiver."""
        require(
            np.ndim(self.lies) == 3,
            f"lies has shape {np.shape(self.lies)}, of one step; give offsets [K, n, d].",
        )
        step = jnp.minimum(jnp.asarray(k), np.shape(self.lies)[0] - 1)
        return replace(self, lies=jnp.asarray(self.lies)[step, receiver])

    def _lie(self, heard: Heard) -> jax.Array:
        shape = heard.messages.shape[1:]
        require(
            np.shape(self.lies) == shape,
            f"lies has shape {np.shape(self.lies)}, and a message {shape}; take "
            "attack.at(k, receiver) of offsets [K, n, d].",
        )
        return heard.mean + self.lies
