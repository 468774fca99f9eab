"""Centralized random reshuffling: SGD that sees every sample once before it sees one twice.

    in every epoch:  πᵢ a random order of agent i's samples
    x̄ₖ₊₁ = x̄ₖ − (α/n) Σᵢ ∇f_{i,πᵢ(l)}(x̄ₖ),      l = k mod m

Every agent has an order of its own, as in the decentralized methods that it is the yardstick of. A
`Minibatch` problem says how many samples a step takes, b of m; what is left over by the last whole
batch is left out of the epoch, in another order each time. An agent with fewer samples than the
largest goes through its order again until the epoch ends. The network is ignored; a schedule by
epochs is `jd.schedules.PerEpoch`.

Source: Mishchenko, Khaled, Richtárik (2020), arXiv 2006.05988; with an order an agent as in Huang,
Li, Milzarek, Pu, Qiu (2023), arXiv 2112.15287. Listing: authors' code.
Theorem in the tests: with a constant stepsize the error at the ends of epochs falls as α², SGD's
as α.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxdopt._pytree import Nonnegative, pytree, replace, require, static
from jaxdopt.agents import average
from jaxdopt.algorithms.cost import Cost, gossip
from jaxdopt.problems.oracles import finite_sum


@pytree
class State:
    """What centralized random reshuffling carries on."""

    x: jax.Array  # [n, d] the estimate, the same in every row after the first step
    order: jax.Array  # [n, m] int: the epoch's order of every agent's samples, padding last


@pytree
class CentralizedRR:
    """x̄ₖ₊₁ = x̄ₖ − (α/n) Σᵢ ∇f_{i,πᵢ(k mod m)}(x̄ₖ)      (centralized)."""

    stepsize: Nonnegative  # α
    sampling: Literal["reshuffle", "once", "cyclic"] = static(default="reshuffle")

    def __post_init__(self) -> None:
        """Check the sampling."""
        require(
            self.sampling in ("reshuffle", "once", "cyclic"),
            f"sampling is {self.sampling!r}; give 'reshuffle' (a new order in every epoch), 'once' "
            "(one random order) or 'cyclic' (the data's own).",
        )

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at x0 [n, d]; raise ValueError unless the problem is a finite sum."""
        whole, _ = finite_sum(problem)
        own = jnp.broadcast_to(jnp.arange(whole.most, dtype=jnp.int32), (whole.n, whole.most))
        return State(x0, own if self.sampling == "cyclic" else whole.permutation(key))

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one step."""
        whole, batch = finite_sum(problem)
        step = network.time % (whole.most // batch)
        order = state.order
        if self.sampling == "reshuffle":
            order = jax.lax.cond(step == 0, lambda: whole.permutation(key), lambda: state.order)
        place = (step * batch + jnp.arange(batch)) % whole.counts[:, None]
        x = jnp.broadcast_to(average(state.x), state.x.shape)
        g = whole.grad_at(x, jnp.take_along_axis(order, place, axis=1))
        return State(jnp.broadcast_to(average(x - self.stepsize * g), x.shape), order)

    def cost(self, state: State, problem: Any, network: Any) -> Cost:
        """One batch, and one exchange of one vector, as if with a server."""
        return replace(gossip(state, problem), gradients=finite_sum(problem)[1])
