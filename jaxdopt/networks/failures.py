"""Links and agents that fail: wrappers around a network whose every round lacks some of them.

Cut links give their weight back to the diagonal: symmetric weights stay doubly stochastic and keep
the mean in every single draw, and row and column sums stay 1 on networks of parts.

- `RandomLinks`: links fail, each for itself.
- `Disconnected`: agents lose all their links, and go on computing alone.
- `Asleep`: agents lose all their links, and do not compute either: their states stand still.

All are pure functions of the step and the key, into which each folds a constant of its own and how
many wrappers there are inside: what one draws is independent of all else.
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
    """What wrappers share of whose rounds links or agents are missing."""

    keeps = ("n", "symmetric", "kind", "cuttable", "repetitions")

    @property
    def horizon(self) -> int | None:
        """The rounds that the network and what fails in it know, or None if neither ends."""
        known = (getattr(part, "horizon", None) for part in vars(self).values())
        return min((horizon for horizon in known if horizon is not None), default=None)

    @property
    def _depth(self) -> int:
        """The number of wrappers, this one included, so that two of a kind draw differently."""
        return len(list(layers(self))) - 1


@pytree
class RandomLinks(Failing):
    """Every link is up with probability p in every round, independently; both ways or not at all.

    Args:
        network: with symmetric weights, or of parts; it may itself change with time.
        probability: p, between 0 and 1.
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
    """Some agents are cut off: all their links are down, and they go on computing alone.

    Methods do not notice: whoever is cut off mixes with nobody and takes its gradient all the same,
    which counts as any other. `Asleep` is for agents that do not compute either.

    Args:
        network: with symmetric weights, or of parts; it may itself change with time.
        pattern: who is connected: a probability for all or one an agent, [n, 1]; a trace [T, n] of
            booleans, which repeats; or a network whose rounds have ``active``, such as a pattern
            of `jd.networks.participation`.
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
    """Some agents sleep: all their links are down, and their states stand still, bit for bit.

    Who sleeps takes no gradient, sends nothing and counts nothing: gradients, vectors and bits of a
    step are those of the share that is awake. Rows of public copies and references stay as they
    are as well, and get on waking what they have missed. ``active`` says who is awake. On the same
    key the same agents sleep here and are cut off in `Disconnected`.

    Methods that are exact stay exact, with their invariants; no theorem says so for most of them.
    Push-sum methods step by α / w, and w is small where agents have slept for long: they need
    stepsizes that are the smaller the more agents sleep. All n are computed, and the mask decides.

    Args:
        network: with symmetric weights, or of parts; it may itself change with time.
        pattern: who is awake, as in `Disconnected`.
    """

    network: Any
    pattern: Any

    def __post_init__(self) -> None:
        """Check the pattern against the network."""
        require_cuttable(wrapped(self))
        object.__setattr__(self, "pattern", _checked(self.pattern, self.n))

    @property
    def offers(self) -> frozenset[str]:  # type: ignore[override]
        """What every round can do; some agents are absent."""
        return self.network.offers - {"all"}

    def at(self, k: Any, key: jax.Array) -> Any:
        """Return round k's network, its ``active`` set."""
        awake = _drawn(self.pattern, self.n, self._depth, k, key)
        now = self.network.at(k, key)
        awake = awake if now.active is None else awake & now.active
        return now.cut(_Both(awake)).awake(awake)


@pytree
class _Up:
    """Whether a link is up, drawn from its two agents."""

    key: Any
    probability: Any

    def __call__(self, i: jax.Array, j: jax.Array) -> jax.Array:
        drawn = (link_bits(self.key, i, j) >> 8).astype(jnp.result_type(self.probability))
        return drawn * 2.0**-24 < self.probability


@pytree
class _Both:
    """Whether both agents of a link are there."""

    there: Any  # [n] bool

    def __call__(self, i: jax.Array, j: jax.Array) -> jax.Array:
        return self.there[i] & self.there[j]


def _checked(pattern: Any, n: int) -> Any:
    """Return a pattern of n agents as it is stored, or raise what is wrong with it."""
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
            f"the pattern has shape {np.shape(pattern)}; give who is awake in every round as "
            f"[T, {n}] booleans.",
        )
        return jnp.asarray(pattern)
    shape = np.shape(pattern)
    require(
        shape in ((), (n, 1)),
        f"the pattern has shape {shape}; give one probability, one an agent as ({n}, 1), "
        f"or who is awake in every round as [T, {n}] booleans.",
    )
    return Number(minimum=0.0, maximum=1.0).accept("pattern", pattern)


def _drawn(pattern: Any, n: int, depth: int, k: Any, key: jax.Array) -> jax.Array:
    """Return whom a pattern has in round k, [n] bool."""
    if hasattr(pattern, "active"):
        now = pattern.at(k, key)
        require(
            now.active is not None or "server" in now.offers,
            f"in the pattern, a {type(pattern).__name__}, nobody ever sleeps; give a network whose "
            "rounds have active, such as Asleep.",
        )
        return jnp.ones(n, bool) if now.active is None else now.active
    pattern = jnp.asarray(evaluate(pattern, k))
    if pattern.dtype == bool:
        return pattern[k % pattern.shape[0]]
    drawn = jax.random.uniform(own_key(key, ASLEEP + depth, k), (n,), jnp.float32)
    return drawn < jnp.ravel(pattern)
