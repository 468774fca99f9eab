"""Attacks: what liars tell, who know all honest messages and the rule.

``attack(honest, liars=f, key=None, heard=None)`` returns the vector [d] that all f liars tell one
receiver. ``honest`` [m, d] are the honest messages that reach it; those that are not ``heard`` [m]
do not exist. On a graph honest[0] is the receiver's own. μ is the mean of the honest messages, σ
their standard deviation a coordinate, with m − 1.

Strengths (``scale``, ``factor``, ``sigma``) and the number of liars are traced: they can be swept
and differentiated. Attacks have no memory. `strongest` finds the strength that hurts a rule most;
an attack of your own says in ``strength`` which of its fields that is. Labels are
flipped in the problem.

    >>> import jax.numpy as jnp, jaxdopt as jd
    >>> honest = jnp.array([[1.0, 2.0], [3.0, 4.0], [2.0, 3.0]])
    >>> print(jd.attacks.SignFlip(2.0)(honest, liars=1))
    [-4. -6.]
"""

from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri

from jaxdopt._checks import count, require
from jaxdopt._leaves import is_traced, wide_dtype
from jaxdopt._numbers import Number
from jaxdopt._pytree import pytree, replace, static

Strength = Annotated[Any, Number(shared=True)]
"""A number that can be traced, swept and differentiated."""

START = 10.0  # the first step of the line search
SMALLER = 0.8  # later steps, each relative to the last


@pytree
class SignFlip:
    """−s μ.

    Args:
        scale: s.

    Source: Allen-Zhu, Ebrahimianghazani, Li, Alistarh (2021), arXiv 2012.14368, and many others.
    """

    scale: Strength = 1.0
    strength = "scale"

    def __call__(
        self, honest: Any, liars: Any = 1, key: Any = None, heard: Any = None
    ) -> jax.Array:
        """Return what one receiver is told [d]."""
        messages, mask = _messages(honest, heard)
        return _told(-self.scale * _mean(messages, mask), honest)


@pytree
class InnerProduct:
    """−ε μ, as long as ε says: small ones change the sign of a robust aggregate unnoticed.

    Also called "fall of empires" (FOE), with ε of 1 or more.

    Args:
        factor: ε.

    Source: Xie, Koyejo, Gupta (2020), arXiv 1903.03936 ("inner product manipulation").
    """

    factor: Strength = 0.1
    strength = "factor"

    def __call__(
        self, honest: Any, liars: Any = 1, key: Any = None, heard: Any = None
    ) -> jax.Array:
        """Return what one receiver is told [d]."""
        messages, mask = _messages(honest, heard)
        return _told(-self.factor * _mean(messages, mask), honest)


@pytree
class ALIE:
    """μ − z σ: as far from the mean as an honest message might be ("a little is enough").

    Args:
        factor: z; by default ``ALIE.factor(m + f, f)``, in which m honest messages are heard.

    Source: Baruch, Baruch, Goldberg (2019), arXiv 1902.06156.
    """

    factor: Strength | None = None
    strength = "factor"

    def __call__(
        self, honest: Any, liars: Any = 1, key: Any = None, heard: Any = None
    ) -> jax.Array:
        """Return what one receiver is told [d]."""
        messages, mask = _messages(honest, heard)
        m = jnp.sum(mask)
        mean = _mean(messages, mask)
        away = jnp.where(mask[:, None], messages - mean, 0)
        variance = jnp.sum(away**2, axis=0) / jnp.maximum(m - 1, 1)
        spread = jnp.where(variance > 0, jnp.sqrt(jnp.where(variance > 0, variance, 1)), 0)
        z = self.factor
        if z is None:
            known = len(messages) if heard is None else m
            z = jnp.where(m > 1, _quantile(known + liars, liars), 0)
        return _told(mean - z * spread, honest)


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
class Mimic:
    """An honest message, repeated: it is given more weight than others, in rules that see no lie.

    Args:
        target: which of the heard messages, from 0; the last one where there are fewer; static.

    Source: Karimireddy, He, Jaggi (2022), arXiv 2006.09365, with a fixed target; theirs is learned
    in a warm-up.
    """

    target: int = static(default=0)

    def __post_init__(self) -> None:
        """Check the target."""
        count("target", self.target, minimum=0, remedy="the position of an honest message, from 0")

    def __call__(
        self, honest: Any, liars: Any = 1, key: Any = None, heard: Any = None
    ) -> jax.Array:
        """Return what one receiver is told [d]."""
        messages, mask = _messages(honest, heard)
        place = jnp.cumsum(mask) - 1
        return _told(messages[jnp.argmax(place == jnp.minimum(self.target, place[-1]))], honest)


@pytree
class Gaussian:
    """Independent normal numbers with mean 0, one vector a receiver.

    Args:
        sigma: their standard deviation.

    Raises:
        ValueError: no key, when it is called.
    """

    sigma: Strength = 1.0
    strength = "sigma"

    def __call__(
        self, honest: Any, liars: Any = 1, key: Any = None, heard: Any = None
    ) -> jax.Array:
        """Return what one receiver is told [d]."""
        require(key is not None, "key is None, and Gaussian draws its lie; give a key.")
        messages, _ = _messages(honest, heard)
        drawn = jax.random.normal(key, messages.shape[1:], messages.dtype)
        return _told(self.sigma * drawn, honest)


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
class Constant:
    """The same vector, whatever is honest: zeros, ∞, NaN, or a model that liars want.

    Args:
        value: a number for all coordinates, or a vector [d].
    """

    value: Annotated[Any, _Value()]

    def __call__(
        self, honest: Any, liars: Any = 1, key: Any = None, heard: Any = None
    ) -> jax.Array:
        """Return what one receiver is told [d]."""
        messages, _ = _messages(honest, heard)
        shape = np.shape(self.value)
        require(
            shape in ((), messages.shape[1:]),
            f"value has shape {shape}, and messages have {messages.shape[1]} numbers; give one "
            "number, or as many.",
        )
        return _told(jnp.broadcast_to(jnp.asarray(self.value), messages.shape[1:]), honest)


@pytree
class Dissensus:
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

    def __call__(
        self, honest: Any, liars: Any = 1, key: Any = None, heard: Any = None
    ) -> jax.Array:
        """Return what one receiver is told [d]."""
        messages, mask = _messages(honest, heard)
        apart = jnp.sum(jnp.where(mask[:, None], messages - messages[0], 0), axis=0)
        return _told(messages[0] - self.factor * apart / jnp.maximum(liars, 1), honest)


@pytree
class Scripted:
    """μ plus an offset that is given for each step and receiver: a lie that can be learned.

    Offsets of 0 are where ascent by ``jax.grad`` starts: rules that select have no slope outside
    of what they accept. ``at(k, receiver)`` is the attack with one offset; a network calls it.

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

    def at(self, k: Any, receiver: Any) -> "Scripted":
        """Return the attack of step k, the last one from K − 1 on, on one receiver."""
        require(
            np.ndim(self.lies) == 3,
            f"lies has shape {np.shape(self.lies)}, of one step; give offsets [K, n, d].",
        )
        step = jnp.minimum(jnp.asarray(k), np.shape(self.lies)[0] - 1)
        return replace(self, lies=jnp.asarray(self.lies)[step, receiver])

    def __call__(
        self, honest: Any, liars: Any = 1, key: Any = None, heard: Any = None
    ) -> jax.Array:
        """Return what one receiver is told [d]."""
        messages, mask = _messages(honest, heard)
        require(
            np.shape(self.lies) == messages.shape[1:],
            f"lies has shape {np.shape(self.lies)}, and a message {messages.shape[1:]}; take "
            "attack.at(k, receiver) of offsets [K, n, d].",
        )
        return _told(_mean(messages, mask) + self.lies, honest)


class _Rule:
    """The check of the rule that an attack is optimized against."""

    kind = "Aggregator"

    def accept(self, name: str, value: Any) -> Any:
        """Return what can be called."""
        require(
            callable(value) and not isinstance(value, type),
            f"{name} is {value!r}; give one of jd.aggregators, such as TrimmedMean(f).",
        )
        return value


@pytree
class Strongest:
    """An attack at the strength that moves a rule farthest; `strongest` makes it.

    Args:
        attack: the attack, whose own strength does not matter.
        rule: the rule that it is against.
        evaluations: how many strengths are tried; static.
    """

    attack: Any
    rule: Annotated[Any, _Rule()]
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

    def search(self, honest: Any, liars: Any = 1, key: Any = None, heard: Any = None) -> jax.Array:
        """Return the strength that was found."""
        messages, mask = _messages(jax.lax.stop_gradient(honest), heard)
        mean, f = _mean(messages, mask), liars
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


def _messages(honest: Any, heard: Any) -> tuple[jax.Array, jax.Array]:
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


def _mean(messages: jax.Array, mask: jax.Array) -> jax.Array:
    return jnp.sum(messages, axis=0) / jnp.maximum(jnp.sum(mask), 1).astype(messages.dtype)


def _told(lie: jax.Array, honest: Any) -> jax.Array:
    dtype = jnp.asarray(honest).dtype
    return lie.astype(dtype) if jnp.issubdtype(dtype, jnp.floating) else lie
