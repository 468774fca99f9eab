"""How long gradients and messages take, in simulated seconds.

A model is a number, an array, one of the classes here, or any pytree with
``at(k, key, receiver, sender)``: the seconds that the sender's k-th gradient takes (then receiver
and sender are the same agent), or its k-th message to the receiver. It is a pure function; random
models hash the key, the count and the two agents, so that the m-th gradient of an agent takes the
same time in every method, synchronous or not, on every network. A model with memory is drawn in
advance, as a `Table`.

Numbers and means are scalars, or arrays [n] or [n, 1] with one number an agent, for messages the
sender's; or, for messages only, [n, n] with receivers as rows. A message that takes forever is
lost, and an agent whose gradient takes forever has stopped.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.random import threefry_2x32
from jax.scipy.special import ndtri

from jaxdopt._checks import count, require
from jaxdopt._leaves import is_traced
from jaxdopt._pytree import pytree

# folded into a run's key, so that times are independent of all else that is drawn from it
COMPUTE, DELAY = 0xF000C0DE, 0xF000DE1A


@pytree
class Fixed:
    """Times that do not change: what a plain number or array becomes.

    Args:
        seconds: at least 0, for all, one an agent, [n] or [n, 1], or one a link, [n, n].
    """

    seconds: Any

    def __post_init__(self) -> None:
        """Check the number."""
        object.__setattr__(self, "seconds", _amount("a time", self.seconds))

    def at(self, k: Any, key: Any, receiver: Any, sender: Any) -> Any:
        """Return the seconds; where there is a single number, that number."""
        return _of(self.seconds, receiver, sender)


@pytree
class Exponential:
    """Independent exponential times, memoryless: the usual model of asynchrony.

    Args:
        mean: above 0, for all or one an agent.
    """

    mean: Any

    def __post_init__(self) -> None:
        """Check the mean."""
        object.__setattr__(self, "mean", _amount("mean", self.mean, positive=True))

    def at(self, k: Any, key: jax.Array, receiver: Any, sender: Any) -> jax.Array:
        """Return the seconds of these draws."""
        return -_of(self.mean, receiver, sender) * jnp.log(_uniform(key, k, receiver, sender))


@pytree
class LogNormal:
    """Independent log-normal times: exp(N(log mean − σ²/2, σ²)), sometimes long and rarely short.

    Args:
        mean: above 0, for all or one an agent.
        sigma: σ of the logarithm; with 0 times are constant.
    """

    mean: Any
    sigma: Any

    def __post_init__(self) -> None:
        """Check both."""
        object.__setattr__(self, "mean", _amount("mean", self.mean, positive=True))
        object.__setattr__(self, "sigma", _amount("sigma", self.sigma))

    def at(self, k: Any, key: jax.Array, receiver: Any, sender: Any) -> jax.Array:
        """Return the seconds of these draws."""
        mean, sigma = (_of(value, receiver, sender) for value in (self.mean, self.sigma))
        normal = ndtri(_uniform(key, k, receiver, sender))
        return mean * jnp.exp(sigma * normal - sigma**2 / 2)


@pytree
class Stragglers:
    """A model's times, but now and then ``factor`` times as long, independently.

    For agents that are always slow give an array of times.

    Args:
        model: of the times that are multiplied.
        probability: of a gradient, or message, that is slow.
        factor: at least 0.
    """

    model: Any
    probability: Any
    factor: Any

    def __post_init__(self) -> None:
        """Check the numbers."""
        object.__setattr__(self, "model", as_model(self.model, "model"))
        object.__setattr__(self, "probability", _amount("probability", self.probability, most=1))
        object.__setattr__(self, "factor", _amount("factor", self.factor))

    def at(self, k: Any, key: jax.Array, receiver: Any, sender: Any) -> jax.Array:
        """Return the seconds of these draws."""
        slow = _coin(self, k, key, receiver, sender)
        return self.model.at(k, key, receiver, sender) * jnp.where(slow, self.factor, 1.0)


@pytree
class Clipped:
    """A model's times, at least ``least`` and at most ``most``, as theory on asynchrony asks.

    Infinite times stay infinite.

    Args:
        model: of the times that are clipped.
        least: the shortest time.
        most: the longest one.
    """

    model: Any
    least: Any
    most: Any

    def __post_init__(self) -> None:
        """Check the bounds."""
        object.__setattr__(self, "model", as_model(self.model, "model"))
        for name in ("least", "most"):
            object.__setattr__(self, name, _amount(name, getattr(self, name)))
        require(
            is_traced((self.least, self.most)) or np.all(self.least <= self.most),
            f"least is {self.least} and most {self.most}; give least <= most.",
        )

    def at(self, k: Any, key: jax.Array, receiver: Any, sender: Any) -> jax.Array:
        """Return the seconds of these draws."""
        seconds = jnp.asarray(self.model.at(k, key, receiver, sender))
        least, most = (_of(value, receiver, sender) for value in (self.least, self.most))
        return jnp.where(jnp.isinf(seconds), seconds, jnp.clip(seconds, least, most))


@pytree
class Lost:
    """A model of messages of which some never arrive.

    Args:
        model: of the messages that arrive.
        probability: of a message that is lost.
    """

    model: Any
    probability: Any

    def __post_init__(self) -> None:
        """Check the model."""
        object.__setattr__(self, "model", as_model(self.model, "model"))
        object.__setattr__(self, "probability", _amount("probability", self.probability, most=1))

    def at(self, k: Any, key: jax.Array, receiver: Any, sender: Any) -> jax.Array:
        """Return the seconds of these draws, infinite where the message is lost."""
        lost = _coin(self, k, key, receiver, sender)
        return jnp.where(lost, jnp.inf, self.model.at(k, key, receiver, sender))


@pytree
class Table:
    """Given times: the k-th gradient or message takes those of row k mod T.

    Args:
        seconds: [T, n], one an agent, for messages the sender's; or [T, n, n], of messages, by
            receiver and sender.
    """

    seconds: Any

    def __post_init__(self) -> None:
        """Check the array."""
        value = self.seconds if is_traced(self.seconds) else np.asarray(self.seconds)
        shape = np.shape(value)
        require(
            len(shape) in (2, 3) and 0 not in shape and (len(shape) == 2 or shape[1] == shape[2]),
            f"the table has shape {shape}; give [T, n], or [T, n, n] of messages.",
        )
        object.__setattr__(self, "seconds", _amount("the table", value, shaped=True))

    def at(self, k: Any, key: Any, receiver: Any, sender: Any) -> Any:
        """Return the seconds in the row."""
        k = k % self.seconds.shape[0]
        who = (sender,) if self.seconds.ndim == 2 else (receiver, sender)
        return self.seconds[(k, *who)]


def markov_modulated(
    key: jax.Array,
    length: int,
    agents: int,
    *,
    fast: Any = 1.0,
    slow: Any = 10.0,
    slows: Any = 0.05,
    recovers: Any = 0.2,
) -> Table:
    """Return times of agents that are fast for a while and slow for a while: Markov chains.

    Each agent has a chain of two states of its own, which starts in the stationary distribution.
    All numbers and the key may be traced, so that the function works under jit and vmap.

    Args:
        key: of all draws; a different one from the run's.
        length: T, the number of gradients after which times repeat.
        agents: n.
        fast: seconds a gradient of fast agents, one number or [n].
        slow: seconds a gradient of slow agents.
        slows: the probability that a fast agent is slow at its next gradient.
        recovers: the probability that a slow agent is fast at its next gradient.
    """
    start, move = jax.random.split(key)
    count("length", length)
    uniform = jax.random.uniform(move, (length, count("agents", agents)))
    total = jnp.maximum(jnp.asarray(slows + recovers), jnp.finfo(float).tiny)
    first = jax.random.uniform(start, (agents,)) < slows / total

    def step(state: jax.Array, u: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jnp.where(state, u >= recovers, u < slows), state

    states = jax.lax.scan(step, first, uniform)[1]
    return Table(jnp.where(states, slow, fast))


def as_model(value: Any, name: str) -> Any:
    """Return a value as a model: as it is, or as a `Fixed` one; an error calls it by its name."""
    if hasattr(value, "at") and not isinstance(value, jax.Array | np.ndarray):
        return value
    return Fixed(_amount(name, value))


def models(compute: Any, delay: Any, n: int) -> tuple[Any, Any]:
    """Return what users give as ``compute`` and ``delay`` of n agents as models of both."""
    made = as_model(compute, "compute"), as_model(delay, "delay")
    for name, model in zip(("compute", "delay"), made, strict=True):
        _require_agents(model, n, name)
    return made


def _require_agents(model: Any, n: int, name: str) -> None:
    """Refuse a model that has numbers for another number of agents than n."""
    for field, value in vars(model).items():
        if hasattr(value, "at") and not isinstance(value, jax.Array | np.ndarray):
            _require_agents(value, n, name)
            continue
        shape = np.shape(value)[1 if isinstance(model, Table) else 0 :]
        if type(model).__module__ == __name__:
            require(
                shape in ((), (n,), (n, 1), (n, n)),
                f"{field} of {name} has shape {np.shape(value)} and the network {n} agents; give "
                f"one number, or [n] = ({n},).",
            )


def forever(model: Any) -> bool:
    """Return whether something may take forever, as far as the model's own numbers tell."""

    def part(leaf: Any) -> bool:
        return isinstance(leaf, Lost) or (not is_traced(leaf) and bool(np.isinf(leaf).any()))

    leaves = jax.tree.leaves(model, is_leaf=lambda leaf: isinstance(leaf, Lost))
    return any(part(leaf) for leaf in leaves)


def _amount(
    name: str, value: Any, positive: bool = False, shaped: bool = False, most: float = np.inf
) -> Any:
    """Return a number or an array of numbers as it is stored, or raise what is wrong with it."""
    if is_traced(value):
        return value
    try:
        array = np.asarray(value, float)
    except (TypeError, ValueError):
        raise ValueError(f"{name} is {value!r}; give a number, an array or a model.") from None
    shape = array.shape
    require(
        shaped or len(shape) < 2 or (len(shape) == 2 and shape[1] in (1, shape[0])),
        f"{name} has shape {shape}; give one number, [n], [n, 1], or [n, n] of messages.",
    )
    least = array.min() if array.size else np.nan
    bound, words = (least > 0, "more than 0") if positive else (least >= 0, "at least 0")
    require(bound, f"{name} is {least:g}; give {words}.")
    require(np.all(array <= most), f"{name} is {array.max():g}; give at most {most:g}.")
    return float(array) if not shape else value if isinstance(value, jax.Array) else array


def _of(value: Any, receiver: Any, sender: Any) -> Any:
    """Return the number that counts: the only one, the sender's, or that of the two agents."""
    shape = np.shape(value)
    if not shape:
        return value
    if len(shape) == 2 and shape[1] > 1:
        return value[receiver, sender]
    return value.reshape(-1)[sender]


def _uniform(key: jax.Array, k: Any, receiver: Any, sender: Any) -> jax.Array:
    """Return numbers in (0, 1), one hash of the key, the count and the two agents each."""
    i, j = jnp.broadcast_arrays(*(jnp.asarray(a, jnp.uint32) for a in (receiver, sender)))
    words = jax.random.key_data(jax.random.fold_in(key, k)).ravel()[:2]
    bits = threefry_2x32(words, jnp.concatenate([i.ravel(), j.ravel()]))[: i.size].reshape(i.shape)
    return ((bits >> 9).astype(float) + 0.5) * 2.0**-23  # exact in float32: the same in float64


def _coin(model: Any, k: Any, key: jax.Array, receiver: Any, sender: Any) -> jax.Array:
    """Return the coins that a model around another one tosses, independent of that one's draws."""
    depth, within = 1, model.model
    while hasattr(within, "model"):
        depth, within = depth + 1, within.model
    uniform = _uniform(jax.random.fold_in(key, depth), k, receiver, sender)
    return uniform < _of(model.probability, receiver, sender)
