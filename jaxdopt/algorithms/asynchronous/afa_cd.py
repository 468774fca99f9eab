"""AFA-CD: anarchic federated averaging across devices, where clients do as much as they like.

    S who have come back:   x ← x − η_g Σ_{i ∈ S} pᵢ Gᵢ / Σ_{i ∈ S} pᵢ,      Gᵢ = (1/Kᵢ) Σₗ gᵢ(yᵢₗ)

gᵢ(yᵢₗ) are the gradients that i met in Kᵢ local steps y ← y − η gᵢ(y) from the model that it had
fetched. G is normalized, so that a client that takes more steps does not count for more, and η_g is
a stepsize along a gradient; the paper's mean over its m returns is that with equal pᵢ. A client
that returns more often does count for more: the limit is not the objective's minimizer where
clients are not equally quick, which `AFACS` mends.

The network is a `jd.networks.arrivals`, such as ``buffer=m``; ``calls=`` is there what Kᵢ is here.

Source: Yang, Zhang, Khanduri, Liu (2022), arXiv 2108.09875.
Confidence: summaries (a simulator's documentation, for the structure); open: the division by Kᵢ and
the server's rate.
Property in the tests: with all in S and Kᵢ = 1 it is gradient descent.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

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
    """The state of AFA-CD."""

    server: jax.Array  # [d] the server's model
    sent: jax.Array  # [n, d] the model that every client fetched last
    n: int = static()


@pytree
class AFACD:
    """x⁺ = x − η_g mean_{i ∈ S} Gᵢ,  Gᵢ the mean of the gradients of Kᵢ local steps.

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
    needs: ClassVar[set[str]] = {"returns"}

    def __post_init__(self) -> None:
        """Check the numbers of local steps."""
        require_own_steps(self)

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at the mean of x0's rows."""
        return State(common(x0), jnp.broadcast_to(common(x0), x0.shape), problem.n)

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one aggregation."""
        clients, _, g = visit(
            state, problem, network, self.stepsize, self.local_steps, key, self.own_steps
        )
        new = state.server - self.server_stepsize * clients.mean(g)
        return State(new, network.handed(state.sent, state.server, new), state.n)
