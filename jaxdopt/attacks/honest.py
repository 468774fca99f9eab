"""Lies made from honest messages: their mean and deviation, one of them, the receiver's own."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtri

from jaxdopt._checks import count, require
from jaxdopt._leaves import is_traced
from jaxdopt._pytree import pytree, static
from jaxdopt.attacks.given import Constant
from jaxdopt.attacks.messages import Heard, Lie, Strength


@pytree
class SignFlip(Lie):
    """−s μ.

    Args:
        scale: s.

    Source: Allen-Zhu, Ebrahimianghazani, Li, Alistarh (2021), arXiv 2012.14368, and many others.
    """

    scale: Strength = 1.0
    strength = "scale"
    broadcasts = True

    def _lie(self, heard: Heard) -> jax.Array:
        return -self.scale * heard.mean


@pytree
class InnerProduct(Lie):
    """−ε μ, as long as ε says: small ones change the sign of a robust aggregate unnoticed.

    Also called "fall of empires" (FOE), with ε of 1 or more.

    Args:
        factor: ε.

    Source: Xie, Koyejo, Gupta (2020), arXiv 1903.03936 ("inner product manipulation").
    """

    factor: Strength = 0.1
    strength = "factor"
    broadcasts = True

    def _lie(self, heard: Heard) -> jax.Array:
        return -self.factor * heard.mean


@pytree
class ALIE(Lie):
    """μ − z σ: as far from the mean as an honest message might be ("a little is enough").

    Args:
        factor: z; by default ``ALIE.factor(m + f, f)``, in which m honest messages are heard.

    Source: Baruch, Baruch, Goldberg (2019), arXiv 1902.06156.
    """

    factor: Strength | None = None
    strength = "factor"
    broadcasts = True

    def _lie(self, heard: Heard) -> jax.Array:
        m, mean, f, z = heard.count, heard.mean, heard.liars, self.factor
        away = jnp.where(heard.mask[:, None], heard.messages - mean, 0)
        variance = jnp.sum(away**2, axis=0) / jnp.maximum(m - 1, 1)
        spread = jnp.where(variance > 0, jnp.sqrt(jnp.where(variance > 0, variance, 1)), 0)
        if z is None:
            z = jnp.where(m > 1, _quantile(m + f, f), 0)
        return mean - z * spread


def _quantile(n: Any, f: Any) -> Any:
    """Return z = Φ⁻¹((n − f − s) / (n − f)) with s = ⌊n / 2 + 1⌋ − f, of n agents with f liars.

    s honest agents farther from the mean than the lie, with f liars, are a majority that is for it.

    Args:
        n: the number of agents, liars among them.
        f: the number of liars, fewer than half.

    Raises:
        ValueError: half of the agents lie, or more.
    """
    if not is_traced((n, f)):
        require(
            2 * f < n,
            f"{f} of {n} messages are lies, and ALIE's factor is for fewer than half; give factor.",
        )
    supporters = jnp.floor(n / 2 + 1) - f
    return ndtri((n - f - supporters) / (n - f))


ALIE.factor = staticmethod(_quantile)  # of the class; an object's is its number


@pytree
class Mimic(Lie):
    """An honest message, repeated: it is given more weight than others, in rules that see no lie.

    Args:
        target: which agent of a network, from 0; of an attack that is called itself, which of the
            heard messages, the last one where there are fewer; static.

    Raises:
        ValueError: in a network, no such agent.

    Source: Karimireddy, He, Jaggi (2022), arXiv 2006.09365, with a fixed target; theirs is learned
    in a warm-up.
    """

    target: int = static(default=0)
    broadcasts = True

    def __post_init__(self) -> None:
        """Check the target."""
        count("target", self.target, minimum=0, remedy="the position of an honest message, from 0")

    def at(self, k: Any, receiver: Any, messages: Any) -> Constant:
        """Return what tells the message of the target, whoever hears it, of all agents' [n, d]."""
        n = len(messages)
        require(self.target < n, f"target is {self.target}, of {n} agents; give at most {n - 1}.")
        return Constant(messages[self.target])

    def _lie(self, heard: Heard) -> jax.Array:
        place = jnp.cumsum(heard.mask) - 1
        return heard.messages[jnp.argmax(place == jnp.minimum(self.target, place[-1]))]


@pytree
class Dissensus(Lie):
    """x₀ − ε Σⱼ (xⱼ − x₀) / f, over the honest messages: it drives neighbors apart on a graph.

    The receiver's own message is x₀ = honest[0]. With weights wᵢⱼ it is
    xᵢ − ε Σⱼ wᵢⱼ (xⱼ − xᵢ) / Σₗ wᵢₗ, l the liars: for ε = 1 an average with these weights stays at
    xᵢ. Here weights are equal.

    Args:
        factor: ε.

    Source: He, Karimireddy, Jaggi (2022), arXiv 2202.01545.
    """

    factor: Strength
    strength = "factor"

    def _lie(self, heard: Heard) -> jax.Array:
        own = heard.messages[0]
        apart = jnp.sum(jnp.where(heard.mask[:, None], heard.messages - own, 0), axis=0)
        return own - self.factor * apart / jnp.maximum(heard.liars, 1)
