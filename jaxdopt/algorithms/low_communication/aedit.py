"""A-EDiT: EDiT of clients that nobody waits for, each as many local steps as fit into its time.

    i ∈ Sₖ (who come back):   Dᵢ = sentᵢ − yᵢ,   D⁽ˡ⁾ = clip Σ wᵢ⁽ˡ⁾ Dᵢ⁽ˡ⁾ of every leaf l
    m ← μ m + D,   x⁺ = x − η_o (D + μ m),   sentᵢ ← x⁺

yᵢ is where Kᵢ local steps have led from sentᵢ, the model that i had fetched; weights, outliers and
the clip are those of `EDiT`, of those who return together, with every client's own norms.

The network is a `jd.networks.arrivals`, in the paper at ticks, ``every=`` so many seconds. Its
``calls`` are Kᵢ: with ``calls=jd.networks.dynamic_calls(compute, K)`` visits last about as long as
each other's; with ``calls=1`` the clock has the times of whole visits, of K steps each. Of two
returns of a client in one aggregation both go on from the same memory.

Source: Cheng, Chen, Liu, Wu, Xie, Zhang, Zheng, Wang, Tan, Ma (2024), arXiv 2412.07210.
Confidence: authors' code (of EDiT), summaries (a fixed time in place of a number of steps).
Departs: as `EDiT`, and there a synchronization waits for all, with its steps of unequal number.
Property in the tests: if all return for every aggregation, after as many steps, it is `EDiT`.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdopt import agents
from jaxdopt._checks import Count
from jaxdopt._numbers import Fraction, Nonnegative, Positive
from jaxdopt._pytree import field, pytree, static
from jaxdopt.algorithms.federated.clients import Central, common
from jaxdopt.algorithms.low_communication.norms import (
    Norms,
    cost_with_norms,
    no_norms,
    weighed,
)
from jaxdopt.algorithms.low_communication.outer import (
    AXES,
    advance,
    outer_of,
    require_calls,
    rows_of,
    visit,
)
from jaxdopt.optimizers import Transformation, nesterov


@pytree
class State(Central):
    """The state of A-EDiT."""

    server: jax.Array  # [d] x
    sent: jax.Array  # [n, d] the model that every client fetched last
    norms: Norms  # [n, ...] of the clients
    outer: Any = field(axis=None)  # memory of the outer optimizer
    inner: Any  # [n, ...] memories of the clients' optimizers
    n: int = static()


@pytree
class AEDiT:
    """x⁺ = x − η_o U(D),  D⁽ˡ⁾ = clip Σ_S softmax(−|Dᵢ⁽ˡ⁾|) Dᵢ⁽ˡ⁾, no outliers, Dᵢ = sentᵢ − yᵢ.

    Args:
        stepsize: η ≥ 0 of local steps, one for all clients or [n, 1].
        server_stepsize: η_o ≥ 0, of the outer optimizer.
        local_steps: K ≥ 1, the most local steps of a visit; static.
        clip: c > 0, the largest norm of a leaf's D.
        threshold: z ≥ 0, the standard deviations above the mean from which a norm is an outlier.
        decay: a in [0, 1], of the running moments of a client's norms.
        warmup: how many norms of a client are no outliers, whatever they are; 1 at least.
        server: an optax transformation of D, without a learning rate; by default
            ``optax.trace(0.85, nesterov=True)``.
        local: the same, of local directions, such as ``optax.scale_by_adam()``; by default none.
    """

    stepsize: Nonnegative
    server_stepsize: Nonnegative = 0.8
    local_steps: Count = static(default=128)
    clip: Positive = 10.0
    threshold: Nonnegative = 3.0
    decay: Fraction = 0.02
    warmup: Nonnegative = 100.0
    server: Transformation | None = nesterov(0.85)
    local: Transformation | None = None
    needs: ClassVar[set[str]] = {"returns", "sum"}
    axes: ClassVar = AXES
    cost = cost_with_norms

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at the mean of x0's rows; raise ValueError if leaves or calls do not fit."""
        require_calls(self, network, {1, self.local_steps})
        x, norms = common(x0), no_norms(self, problem, x0)
        outer, inner = outer_of(self, problem).init(x), rows_of(self, problem, x0)
        return State(x, jnp.broadcast_to(x, x0.shape), norms, outer, inner, problem.n)

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one aggregation."""
        clients, away, memory = visit(self, state, problem, network, key)
        known = clients.own(state.norms)
        update, norms = weighed(self, clients, problem.leaves, known, away)
        new, outer = advance(self, clients, state, problem, update)
        sent = network.handed(state.sent, state.server, new)
        norms, inner = agents.put((state.norms, state.inner), network.latest, (norms, memory))
        return State(new, sent, norms, outer, inner, state.n)

    def own_steps(self, network: Any) -> Any:
        """Return Kᵢ, [n, 1], or None if the clock has the times of whole visits."""
        return network.calls[:, None] if network.most == self.local_steps else None
