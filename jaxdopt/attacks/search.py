"""The strength of an attack that hurts a rule most."""

from typing import Annotated, Any

import jax
import jax.numpy as jnp

from jaxdopt._checks import Called, count, require
from jaxdopt._leaves import is_traced
from jaxdopt._pytree import pytree, replace, static
from jaxdopt.attacks.messages import Attack, heard_messages, mean_of

START = 10.0  # the first step of the line search
SMALLER = 0.8  # later steps, each relative to the last


@pytree
class Strongest:
    """An attack at the strength that moves a rule farthest; `strongest` makes it.

    Args:
        attack: the attack, whose own strength does not matter.
        rule: the rule that it is against.
        evaluations: how many strengths are tried; static.
    """

    attack: Attack
    rule: Annotated[Any, Called("Aggregator", "one of jd.aggregators, such as TrimmedMean(f)")]
    evaluations: int = static(default=16)

    def __post_init__(self) -> None:
        """Check that there is something to search for."""
        count("evaluations", self.evaluations)
        require(
            hasattr(self.attack, "strength"),
            f"{self.attack!r} has no strength to search for; give SignFlip(), InnerProduct(), "
            "ALIE(), Gaussian() or Dissensus(1).",
        )

    def __call__(
        self, honest: Any, liars: Any = 1, key: Any = None, heard: Any = None
    ) -> jax.Array:
        """Return what one receiver is told [d]."""
        return self._at(self.search(honest, liars, key, heard))(honest, liars, key, heard)

    @property
    def broadcasts(self) -> bool:
        """Whether the attack does, and the rule neither has a pivot nor draws."""
        differs = getattr(self.rule, "pivot", False) or getattr(self.rule, "_scatters", False)
        return getattr(self.attack, "broadcasts", False) and not differs

    def at(self, k: Any, receiver: Any, messages: Any) -> "Strongest":
        """Return the search with the attack of step k on one receiver."""
        at = getattr(self.attack, "at", None)
        return self if at is None else replace(self, attack=at(k, receiver, messages))

    def search(self, honest: Any, liars: Any = 1, key: Any = None, heard: Any = None) -> jax.Array:
        """Return the strength that was found."""
        messages, mask = heard_messages(jax.lax.stop_gradient(honest), heard)
        mean, f = mean_of(messages, mask), liars
        most = len(messages) if is_traced(f) else int(f)  # rows for lies
        arrive = jnp.concatenate([mask, jnp.arange(most) < f])

        def moved(strength: Any) -> jax.Array:
            lie = self._at(strength)(messages, liars, key, heard)
            told = jnp.broadcast_to(lie, (most, *lie.shape))
            result = self.rule(jnp.concatenate([messages, told]), arrive, 0, key)
            return jnp.sum((result - mean) ** 2)

        def step(_: Any, carry: Any) -> Any:
            best, value, tried, size, growing = carry
            # from a strength that is at least the best, a step back; else one forward
            back = tried - size / 2.0 ** jnp.ceil(jnp.log2(jnp.maximum(size / tried, 1)))
            shrunk = jnp.where(tried < best, tried + size, back)
            tried = jnp.where(growing, best + size, shrunk)
            found = moved(tried)
            better = found > value
            growing = growing & better
            size = jnp.where(growing, 2 * size, SMALLER * size)
            return (
                jnp.where(better, tried, best),
                jnp.where(better, found, value),
                tried,
                size,
                growing,
            )

        zero = jnp.zeros((), messages.dtype)
        carry = zero, moved(zero), zero + 1, zero + START, jnp.asarray(True)
        return jax.lax.stop_gradient(jax.lax.fori_loop(1, self.evaluations, step, carry)[0])

    def _at(self, strength: Any) -> Any:
        return replace(self.attack, **{self.attack.strength: strength})


def strongest(attack: Any, rule: Any, evaluations: int = 16) -> Strongest:
    """Return the attack with the strength that maximizes |R(x, lies) − μ|², found in every call.

    The line search starts at 0 with steps of 10, which double until one does not improve; from
    there it goes back and forth around the best strength with steps that shrink by 0.8, and never
    below 0.

    Args:
        attack: one with a strength, such as ALIE(); its own strength does not matter.
        rule: the rule that it is against, with as many lies as there are liars; rules with a pivot
            are those of honest[0].
        evaluations: how many strengths are tried, 0 among them.

    Raises:
        ValueError: an attack without a strength.

    Source: the line search of Farhadkhani, Guerraoui, Gupta, Hoang, Pinot, Stephan (2023), arXiv
    2209.10931, with the steps of ByzFL.
    """
    return Strongest(attack, rule, evaluations)
