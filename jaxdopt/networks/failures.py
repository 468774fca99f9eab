"""Failures: wrappers around a network that take links or agents out of its rounds.

The weight of a cut link is added to the diagonal. So symmetric weights stay doubly stochastic and
keep the mean in every draw, and on networks of two parts row and column sums stay 1.

- `RandomLinks`: links fail independently.
- `Disconnected`: agents lose all their links and compute on alone.
- `Asleep`: agents lose all their links and do not compute: their states do not change.

All are pure functions of the step and the key. Each wrapper folds a constant of its kind and its
depth of nesting into the key, so that its draws are independent of all others.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdopt._checks import require
from jaxdopt._numbers import Fraction, Number, evaluate
from jaxdopt._pytree import pytree
from jaxdopt._wrapper import layers, wrapped
from jaxdopt.networks.operators.base import require_cuttable
from jaxdopt.networks.sequences import Varying, link_bits, own_key
from jaxdopt.networks.wrapper import Wrapper

# folded into the key before the step, and larger than any step's number
LINKS, ASLEEP = 0xF00011E5, 0xF000A51E


class Failing(Varying, Wrapper):
    """The base of wrappers that take links or agents out of a network's rounds."""

    keeps = ("n", "symmetric", "kind", "cuttable", "repetitions")

    @property
    def horizon(self) -> int | None:
        """The number of rounds that both the network and the pattern know; None if unlimited."""
        known = (getattr(part, "horizon", None) for part in vars(self).values())
        return min((horizon for horizon in known if horizon is not None), default=None)

    @property
    def _depth(self) -> int:
        """The number of wrappers, this one included, so that two of a kind draw differently."""
        return len(list(layers(self))) - 1


@pytree
class RandomLinks(Failing):
    """Every link is up with probability p in every round, independently, both directions together.

    Args:
        network: one with symmetric weights, or of row- and column-stochastic parts; it may itself
            change with time.
        probability: p, between 0 and 1; a number or a schedule.

    Raises:
        ValueError: the network's links cannot be cut, or the probability is not one number.
    """

    network: Any
    probability: Fraction

    def __post_init__(self) -> None:
        """Refuse networks whose links cannot be cut."""
        require_cuttable(wrapped(self))
        shape = np.shape(self.probability)
        require(shape == (), f"probability has shape {shape}; give one number for all links.")

    def at(self, k: Any, key: jax.Array) -> Any:
        """Return round k's network."""
        up = _Up(own_key(key, LINKS + self._depth, k), evaluate(self.probability, k))
        return self.network.at(k, key).cut(up)


@pytree
class Disconnected(Failing):
    """Some agents are cut off: all their links are down, and they compute on alone.

    Methods do not notice: an agent that is cut off keeps its own values in the mixing and takes its
    gradient as usual, which counts. `Asleep` is for agents that do not compute either.

    Args:
        network: one with symmetric weights, or of row- and column-stochastic parts; it may itself
            change with time.
        pattern: which agents are connected: one probability for all, or one an agent, [n, 1]; a
            trace [T, n] of booleans, which repeats; or a network whose rounds have ``active``,
            such as a pattern of `jd.networks.participation`.

    Raises:
        ValueError: the network's links cannot be cut, or the pattern is for other agents.
    """

    network: Any
    pattern: Any

    def __post_init__(self) -> None:
        """Check the pattern against the network."""
        require_cuttable(wrapped(self))
        object.__setattr__(self, "pattern", _checked(self.pattern, self.n))

    def at(self, k: Any, key: jax.Array) -> Any:
        """Return round k's network."""
        connected = _drawn(self.pattern, self.n, self._depth, k, key)
        return self.network.at(k, key).cut(_Both(connected))


@pytree
class Asleep(Failing):
    """Some agents are asleep: their links are down, and their states do not change, bit for bit.

    A sleeping agent takes no gradient and sends nothing: the gradients, vectors and bits of a step
    are multiplied by the share of agents that are awake. Its public copies and references do not
    change either; on waking it receives what it has missed. A round's ``active`` [n] says which
    agents are awake. With the same key and pattern, the agents asleep here are those that
    `Disconnected` cuts off.

    In our tests exact methods stay exact and keep their invariants; for most of them no theorem
    says so. Push-sum methods step by α / w, and w is small for agents that have slept for long:
    the more agents sleep, the smaller a stepsize they need. The step is computed for all n agents
    and then masked.

    Args:
        network: one with symmetric weights, or of row- and column-stochastic parts; it may itself
            change with time.
        pattern: which agents are awake, such as `jd.networks.participation.uniform(n, size)`.

    Raises:
        ValueError: the network's links cannot be cut, or the pattern is for other agents.
    """

    network: Any
    pattern: Any

    def __post_init__(self) -> None:
        """Check the pattern against the network."""
        require_cuttable(wrapped(self))
        object.__setattr__(self, "pattern", _checked(self.pattern, self.n))

    @property
    def offers(self) -> frozenset[str]:  # type: ignore[override]
        """What every round can do: what the wrapped network's can, but not with all agents."""
        return self.network.offers - {"all"}

    def at(self, k: Any, key: jax.Array) -> Any:
        """Return round k's network, its ``active`` set."""
        awake = _drawn(self.pattern, self.n, self._depth, k, key)
        now = self.network.at(k, key)
        awake = awake if now.active is None else awake & now.active
        return now.cut(_Both(awake)).awake(awake)


@pytree
class _Up:
    """Whether a link is up: drawn from the key and the link's two agents."""

    key: Any
    probability: Any

    def __call__(self, i: jax.Array, j: jax.Array) -> jax.Array:
        drawn = (link_bits(self.key, i, j) >> 8).astype(jnp.result_type(self.probability))
        return drawn * 2.0**-24 < self.probability


@pytree
class _Both:
    """Whether both agents of a link take part."""

    there: Any  # [n] bool

    def __call__(self, i: jax.Array, j: jax.Array) -> jax.Array:
        return self.there[i] & self.there[j]


def _checked(pattern: Any, n: int) -> Any:
    """Return a pattern for n agents as it is stored, or refuse it."""
    if hasattr(pattern, "active"):
        require(
            pattern.n == n,
            f"the pattern is for {pattern.n} agents and the network has {n}; give both the same.",
        )
        return pattern
    if isinstance(pattern, list | tuple):
        pattern = np.asarray(pattern)
    if np.issubdtype(getattr(pattern, "dtype", float), np.bool_):
        require(
            np.ndim(pattern) == 2 and pattern.shape[1] == n and len(pattern) > 0,
            f"the pattern has shape {np.shape(pattern)}; give which agents are awake in every "
            f"round as [T, {n}] booleans.",
        )
        return jnp.asarray(pattern)
    shape = np.shape(pattern)
    require(
        shape in ((), (n, 1)),
        f"the pattern has shape {shape}; give one probability, one an agent as ({n}, 1), "
        f"or which agents are awake in every round as [T, {n}] booleans.",
    )
    return Number(minimum=0.0, maximum=1.0).accept("pattern", pattern)


def _drawn(pattern: Any, n: int, depth: int, k: Any, key: jax.Array) -> jax.Array:
    """Return which agents take part in round k by a pattern, [n] bool."""
    if hasattr(pattern, "active"):
        now = pattern.at(k, key)
        require(
            now.active is not None or "server" in now.offers,
            f"in the pattern, a {type(pattern).__name__}, no agent ever sleeps; give a network "
            "whose rounds have active, such as Asleep.",
        )
        return jnp.ones(n, bool) if now.active is None else now.active
    pattern = jnp.asarray(evaluate(pattern, k))
    if pattern.dtype == bool:
        return pattern[k % pattern.shape[0]]
    drawn = jax.random.uniform(own_key(key, ASLEEP + depth, k), (n,), jnp.float32)
    return drawn < jnp.ravel(pattern)
