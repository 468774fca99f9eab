"""Measures of participation: who takes part in which round, and how long clients stay away."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdopt._checks import count, require


def active(network: Any, steps: int, key: jax.Array | None = None) -> jax.Array:
    """Return who takes part in rounds 0 ... steps − 1 of a run with this key, [steps, n] bool.

    Args:
        network: a pattern, or any network whose rounds have ``active``.
        steps: the number of rounds, at most the network's horizon.
        key: the run's key; not needed where nothing is random.

    Raises:
        ValueError: more steps than the network's horizon.
    """
    steps, horizon = count("steps", steps), getattr(network, "horizon", None)
    require(
        horizon is None or steps <= horizon,
        f"the network knows {horizon} rounds and steps is {steps}; give at most {horizon}.",
    )
    return _rounds(network, jax.random.key(0) if key is None else key, steps=steps)


class Delays(NamedTuple):
    """How long clients stay away; returned by `delay_metrics`.

    A client's age is the number of rounds since it last took part: 0 in a round in which it does.
    All clients count as having taken part in round −1. Some papers start at 1: their numbers are
    larger by 1.

    Attributes:
        tau_max: the largest age of any client in any round.
        tau_avg: the mean over rounds of the largest age in the round.
        tau_mean: the mean over rounds and clients.
    """

    tau_max: int
    tau_avg: float
    tau_mean: float


def delay_metrics(rounds: Any, *, steps: int | None = None, key: jax.Array | None = None) -> Delays:
    """Return how long clients stay away, as theorems on partial participation measure it.

    Args:
        rounds: [T, n] booleans; or a network, with ``steps`` and, if it is random, the run's
            ``key``.
        steps: the number of rounds of the network.
        key: the run's key; not needed where nothing is random.

    Raises:
        ValueError: an array of another shape or dtype, or a network without steps.

    Example:
        >>> import jaxdopt as jd
        >>> delay_metrics(jd.networks.participation.cyclic(12, 4), steps=100).tau_max
        3
    """
    if hasattr(rounds, "at") and not hasattr(rounds, "ndim"):
        require(steps is not None, "steps is None; give the number of the network's rounds.")
        rounds = active(rounds, steps, key)  # type: ignore[arg-type]
    there = np.asarray(rounds)
    require(
        there.ndim == 2 and there.dtype == bool and there.size > 0,
        f"the rounds have shape {there.shape} and dtype {there.dtype}; give [T, n] booleans.",
    )
    now = np.arange(len(there))[:, None]
    age = now - np.maximum.accumulate(np.where(there, now, -1), axis=0)
    return Delays(int(age.max()), float(age.max(axis=1).mean()), float(age.mean()))


@functools.partial(jax.jit, static_argnames="steps")
def _rounds(network: Any, key: jax.Array, *, steps: int) -> jax.Array:
    def one(k: jax.Array) -> jax.Array:
        now = getattr(network.at(k, key), "active", None)
        return jnp.ones(network.n, bool) if now is None else now

    return jax.lax.map(one, jnp.arange(steps), batch_size=min(steps, 64))
