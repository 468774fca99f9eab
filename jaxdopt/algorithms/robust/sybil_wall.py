"""SybilWall: neighbors are weighed by how alike their histories are, gossip included (2023).

    zᵢ = xᵢ after τ local gradient steps;  zᵢⱼ = what i is told by its in-neighbor j
    hᵢⱼ ← hᵢⱼ + zᵢⱼ − xⱼ                          histories of direct neighbors
    hᵢₚ ← hₛₚ   for one p a neighbor s          gossip, see below
    wᵢ  = FoolsGold's weights of all hᵢₚ that i knows
    xᵢ⁺ = (zᵢ + Σⱼ wᵢⱼ zᵢⱼ) / (1 + Σⱼ wᵢⱼ)          over direct in-neighbors j

Sybils push in the same direction, and so look alike, also where one agent hears only one of them.
Gossip: in every round each in-neighbor s tells i the history, as of the last round, of one agent p
other than i and not learned from i, drawn with a probability ∝ λ e^{−λ(h−1)}, h the hops that it
has come and λ = 0.8. It replaces one of an earlier round, never one of a direct neighbor. Liars
tell none. On plain weights everyone is honest.

Source: Werthenbach, Pouwelse (2023), arXiv 2306.15044, with FoolsGold's weights (arXiv
1808.04866); the authors' code, whose slips we left out: there the histories amount to the last
model received, and with gossip one's own model gets a distant agent's weight.
Confidence: authors' code.
Theorems in the tests: Sybils with identical histories get weight 0, the more of them the safer.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdopt._checks import Count
from jaxdopt._numbers import Nonnegative
from jaxdopt._pytree import pytree, static
from jaxdopt.aggregators import FoolsGold
from jaxdopt.algorithms.federated.clients import descend, everyone
from jaxdopt.networks.liars import told

RATE = 0.8  # λ
GOSSIP = 0xF0055170  # folded into the key of a step, and larger than any local step's number


@pytree
class State:
    """The state of SybilWall; h[i, p] is what i knows of p."""

    x: jax.Array  # [n, d] estimates
    h: jax.Array  # [n, n, d] histories
    round: jax.Array  # [n, n] int, of which round they are; -1 where there is none
    hops: jax.Array  # [n, n] int, that they have come: 1 of direct neighbors
    teller: jax.Array  # [n, n] int, who told; -1 where it was p itself


@pytree
class SybilWall:
    """xᵢ⁺ = (zᵢ + Σⱼ wᵢⱼ zᵢⱼ) / (1 + Σⱼ wᵢⱼ), w FoolsGold's weights of histories of updates.

    It is a rule with a memory: on `jd.networks.robust` it takes the place of the network's rule.
    The histories need n² d numbers.

    Args:
        stepsize: α ≥ 0 of local steps.
        local_steps: τ ≥ 1, the gradient steps of a round; static.
    """

    stepsize: Nonnegative
    local_steps: Count = static(default=1)
    needs: ClassVar[set[str]] = {"mixing"}
    vectors = 2  # a model and a history

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at x0 [n, d], without histories."""
        n, d = x0.shape
        none = jnp.full((n, n), -1)
        return State(x0, jnp.zeros((n, n, d), x0.dtype), none, jnp.zeros_like(none), none)

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one round."""
        z, *_ = descend(everyone(problem), state.x, self.stepsize, self.local_steps, key)
        heard, near = _by_sender(network, z)
        drawn = _chosen(state, near, network, jax.random.fold_in(key, GOSSIP))
        direct = state.hops == 1
        update = heard - state.x
        h = jnp.where(near[..., None], update + jnp.where(direct[..., None], state.h, 0), state.h)
        kept = state.round, state.hops, state.teller
        new = (network.time, 1, -1)
        kept = [jnp.where(near, value, old) for value, old in zip(new, kept, strict=True)]
        h, *kept = _gossiped(state, drawn, h, *kept)
        trust = jax.vmap(FoolsGold().weights)(h, kept[0] >= 0)
        finite = jnp.all(jnp.isfinite(heard), axis=-1)
        w = jnp.where(near & finite, trust, 0)[..., None]
        x = (z + jnp.sum(w * jnp.where(w > 0, heard, 0), axis=1)) / (1 + jnp.sum(w, axis=1))
        return State(x, h, *kept)


def _by_sender(network: Any, z: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return what every agent is told by every other one [n, n, d], and by whom [n, n]."""
    senders, messages, there = told(network, z)
    me = jnp.arange(len(z))
    named = (senders[:, :, None] == me) & there[:, :, None] & (me[:, None, None] != me)
    slots = jnp.argmax(named, axis=1)  # [n, n], where there is one
    return jnp.take_along_axis(messages, slots[..., None], axis=1), jnp.any(named, axis=1)


def _chosen(state: State, near: jax.Array, network: Any, key: jax.Array) -> jax.Array:
    """Return of whom s tells t, [t, s] int; -1 where of nobody."""
    n = len(near)
    me = jnp.arange(n)
    lying = getattr(network, "liars", None)
    tells = near if lying is None else near & ~lying
    known = (state.round >= 0)[None] & (me[:, None, None] != me)  # [t, s, p], and p is not t
    known &= (state.teller[None] != me[:, None, None]) & tells[..., None]
    logits = jnp.where(known, -RATE * (state.hops[None] - 1), -jnp.inf)
    peers = jax.random.categorical(key, logits, axis=-1)
    return jnp.where(jnp.any(known, axis=-1), peers, -1)


def _gossiped(
    state: State, drawn: jax.Array, h: jax.Array, when: jax.Array, hops: jax.Array, by: jax.Array
) -> tuple[jax.Array, ...]:
    """Return histories, rounds, hops and tellers after gossip: the newest, of the first s."""
    n = len(drawn)
    of = drawn[:, :, None] == jnp.arange(n)  # [t, s, p]
    rounds = jnp.where(of, state.round[None], -1)
    teller = jnp.argmax(rounds, axis=1)  # [t, p]
    newest = jnp.max(rounds, axis=1)
    taken = (newest > when) & (hops != 1)
    agents = jnp.arange(n)[None]
    h = jnp.where(taken[..., None], state.h[teller, agents], h)
    hops = jnp.where(taken, state.hops[teller, agents] + 1, hops)
    return h, jnp.where(taken, newest, when), hops, jnp.where(taken, teller, by)
