"""AFA-CS: anarchic federated averaging across silos, with a memory of every client's last return.

    i ∈ S (who have come back):   Tᵢ ← Gᵢ = (1/Kᵢ) Σₗ gᵢ(yᵢₗ),      x ← x − η_g Σⱼ pⱼ Tⱼ

gᵢ(yᵢₗ) are the gradients that i met in Kᵢ local steps y ← y − η gᵢ(y) from the model that it had
fetched. The server steps along all rows of its table T, old ones too, so that it does not matter
how often each client returns: where `AFACD` goes elsewhere, this comes near the objective's
minimizer, up to O(η) of local steps. T starts with zeros, and an aggregation without returns
changes nothing.

The network is a `jd.networks.arrivals`; ``calls=`` is there what Kᵢ is here.

Source: Yang, Zhang, Khanduri, Liu (2022), arXiv 2108.09875.
Confidence: summaries (a simulator's documentation, for the structure); open: the division by Kᵢ,
the server's rate and the table's start.
Invariant: ``total`` = Σⱼ n pⱼ Tⱼ.
Property in the tests: if all return for every aggregation it is `AFACD`; the limit with K = 1 is
the solution.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdopt import agents
from jaxdopt._checks import Count
from jaxdopt._numbers import Nonnegative
from jaxdopt._pytree import pytree, static
from jaxdopt.algorithms.federated.clients import (
    Central,
    Steps,
    common,
    require_own_steps,
    visit,
)


@pytree
class State(Central):
    """The state of AFA-CS."""

    server: jax.Array  # [d] the server's model
    sent: jax.Array  # [n, d] the model that every client fetched last
    table: jax.Array  # [n, d] T: the mean gradient that each returned last
    total: jax.Array  # [d] the sum of the table's rows, n pⱼ Tⱼ
    n: int = static()


@pytree
class AFACS:
    """Tᵢ ← Gᵢ, the mean of the gradients of Kᵢ local steps, i ∈ S;  x⁺ = x − η_g Σⱼ pⱼ Tⱼ.

    Args:
        stepsize: η ≥ 0 of local steps, one for all clients or [n, 1].
        server_stepsize: η_g ≥ 0, along a gradient: of the size of a stepsize, not of 1.
        local_steps: K ≥ 1, the most local steps of a visit; static.
        own_steps: Kᵢ in [1, K], how many each client takes, [n, 1]; by default K.
    """

    stepsize: Nonnegative
    server_stepsize: Nonnegative
    local_steps: Count = static(default=1)
    own_steps: Steps | None = None
    needs: ClassVar[set[str]] = {"returns", "sum"}

    def __post_init__(self) -> None:
        """Check the numbers of local steps."""
        require_own_steps(self)

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at the mean of x0's rows."""
        x = common(x0)
        zero = jnp.zeros_like(x0)
        return State(x, jnp.broadcast_to(x, x0.shape), zero, zero[0], problem.n)

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one aggregation."""
        clients, _, g = visit(
            state, problem, network, self.stepsize, self.local_steps, key, self.own_steps
        )
        table = agents.put(state.table, network.latest, g)
        change = g - clients.own(state.table)
        counted = (network.latest < state.n)[:, None]  # of two returns of a client the last
        total = state.total + jnp.where(counted, clients.weigh(change), 0).sum(axis=0)
        move = jnp.where(clients.number > 0, total / state.n, 0)
        new = state.server - self.server_stepsize * move
        return State(new, network.handed(state.sent, state.server, new), table, total, state.n)
