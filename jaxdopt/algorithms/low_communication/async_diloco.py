"""Asynchronous DiLoCo: every return is a step of the outer optimizer, whose momentum is delayed.

    i ∈ Sₖ (who come back):   Δ = Σ_{i ∈ Sₖ} pᵢ (sentᵢ − yᵢ) / Σ_{i ∈ Sₖ} pᵢ,   sentᵢ ← x⁺
    x⁺ = x − η_o u,   u = Δ / n;   at every n-th Δ  m ← β m + Σ Δ / n over n,   u = Δ / n + β m

yᵢ is where Hᵢ local steps have led from sentᵢ, the model that i had fetched; its optimizer goes on
with the memory of its last visit. Stale pseudo-gradients build momentum up where nobody is any
more, so that Nesterov's moves only once in n returns, by their mean. Dynamic local updates take
Hᵢ = ⌊H vᵢ / maxⱼ vⱼ⌋ steps in a visit of a client with the speed vᵢ, so that visits last about as
long as each other's and few are stale.

The network is a `jd.networks.arrivals`, in the paper with ``rule="each"``. Its clock knows how many
gradients a visit takes: ``calls=jd.networks.dynamic_calls(compute, H)``, or ``calls=H`` for as many
by all. Of two returns of a client in one aggregation both go on from the same memory.

Source: Liu, Chhaparia, Douillard, Kale, Rusu, Shen, Szlam, Ranzato (2024), arXiv 2401.09135.
Confidence: authors' code (a notebook, of the plain outer optimizers), summaries (delayed Nesterov
and dynamic updates; they agree with another's implementation).
Theorem in the tests: if all return for every aggregation it is `DiLoCo`.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdopt import agents
from jaxdopt._checks import Count, require
from jaxdopt._numbers import Nonnegative
from jaxdopt._pytree import field, pytree, static
from jaxdopt.algorithms.federated.clients import Central, common, serve
from jaxdopt.algorithms.low_communication.outer import AXES, require_calls, rows_of, visit
from jaxdopt.optimizers import OfRow, Transformation, delayed_nesterov, of_row


@pytree
class State(Central):
    """The state of asynchronous DiLoCo."""

    server: jax.Array  # [d] x
    sent: jax.Array  # [n, d] the model that every client fetched last
    outer: Any = field(axis=None)  # memory of the outer optimizer
    inner: Any  # [n, ...] memories of the clients' optimizers
    n: int = static()


@pytree
class AsyncDiLoCo:
    """x⁺ = x − η_o U(mean_S (sentᵢ − yᵢ)),  yᵢ after Hᵢ local steps from sentᵢ, U with delay.

    Args:
        stepsize: η ≥ 0 of local steps, one for all clients or [n, 1].
        server_stepsize: η_o ≥ 0, of the outer optimizer.
        local_steps: H ≥ 1, the most local steps of a visit; static.
        dynamic: whether clients take as many as the network's ``calls`` says, or all H; static.
        server: an optax transformation of the pseudo-gradient, without a learning rate; by default
            ``jd.delayed_nesterov(0.9, every=n)``. ``optax.identity()`` has no momentum.
        local: the same, of local directions, such as ``optax.scale_by_adam()``; by default none.
    """

    stepsize: Nonnegative
    server_stepsize: Nonnegative = 0.07
    local_steps: Count = static(default=20)
    dynamic: bool = static(default=True)
    server: Transformation | None = None
    local: Transformation | None = None
    needs: ClassVar[set[str]] = {"returns"}
    axes: ClassVar = AXES

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at the mean of x0's rows; raise ValueError if visits do not fit the clock."""
        require_calls(self, network, {self.local_steps} if self.dynamic else {1, self.local_steps})
        require(
            self.dynamic or network.even,
            "dynamic is False and some visits take fewer gradients than others; give "
            f"jd.networks.arrivals(..., calls={self.local_steps}), or dynamic=True.",
        )
        x = common(x0)
        sent = jnp.broadcast_to(x, x0.shape)
        outer = self._outer(problem).init(x)
        return State(x, sent, outer, rows_of(self, problem, x0), problem.n)

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one aggregation."""
        clients, away, memory = visit(self, state, problem, network, key)
        new, outer = serve(
            clients,
            state.server,
            self.server_stepsize,
            clients.mean(away),
            self._outer(problem),
            state.outer,
        )
        sent = network.handed(state.sent, state.server, new)
        inner = agents.put(state.inner, network.latest, memory)
        return State(new, sent, outer, inner, state.n)

    def own_steps(self, network: Any) -> Any:
        """Return Hᵢ, [n, 1], or None if all take H."""
        return network.calls[:, None] if self.dynamic else None

    def _outer(self, problem: Any) -> OfRow:
        server = delayed_nesterov(0.9, problem.n) if self.server is None else self.server
        return of_row(server, getattr(problem, "leaves", None))
