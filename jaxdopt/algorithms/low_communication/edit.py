"""EDiT: DiLoCo whose pseudo-gradients are weighed by their norms, layer by layer.

    i ∈ Sₖ:  yᵢ = xₖ,   K times  yᵢ ← yᵢ − η uᵢ,   uᵢ the local optimizer's direction for gᵢ(yᵢ)
    Dᵢ = xₖ − yᵢ,   D⁽ˡ⁾ = clip Σ wᵢ⁽ˡ⁾ Dᵢ⁽ˡ⁾ of every leaf l,   w⁽ˡ⁾ the softmax of −|Dᵢ⁽ˡ⁾|
    m ← μ m + D,   xₖ₊₁ = xₖ − η_o (D + μ m)

Norms that are far above a client's own running mean are outliers, whose weight is 0
(`jaxdopt.algorithms.low_communication.norms` has the formulas). Where all are, the leaf's D is 0.
The softmax depends on the unit of norms: where these are large, the smallest one has all the
weight. Norms and weights, one a leaf, are sent beside the vectors.

Source: Cheng, Chen, Liu, Wu, Xie, Zhang, Zheng, Wang, Tan, Ma (2024), arXiv 2412.07210.
Confidence: authors' code.
Departs: outliers do not enter the running moments, as they do in that code, which also raises the
threshold with the spread of recent ones; the warm-up by synchronous steps is another method's;
pᵢ of the objective multiply the weights.
Property in the tests: with equal norms, and without clip and threshold, it is `DiLoCo`; a spike
does not get through.
"""

from typing import Any, ClassVar

import jax

from jaxdopt._checks import Count
from jaxdopt._numbers import Fraction, Nonnegative, Positive
from jaxdopt._pytree import field, pytree, static
from jaxdopt.algorithms.federated.clients import Central, common, participants
from jaxdopt.algorithms.low_communication.norms import (
    Norms,
    cost_with_norms,
    no_norms,
    weighed,
)
from jaxdopt.algorithms.low_communication.outer import AXES, advance, outer_of, rows_of, work
from jaxdopt.optimizers import Transformation, nesterov


@pytree
class State(Central):
    """The state of EDiT."""

    server: jax.Array  # [d] x
    norms: Norms  # [n, ...] of the workers
    outer: Any = field(axis=None)  # memory of the outer optimizer
    inner: Any  # [n, ...] memories of the workers' optimizers
    n: int = static()


@pytree
class EDiT:
    """x⁺ = x − η_o U(D),  D⁽ˡ⁾ = clip Σ_S softmax(−|Dᵢ⁽ˡ⁾|) Dᵢ⁽ˡ⁾, no outliers, Dᵢ = x − yᵢ.

    Args:
        stepsize: η ≥ 0 of local steps, one for all workers or [n, 1].
        server_stepsize: η_o ≥ 0, of the outer optimizer.
        local_steps: K ≥ 1, the local steps of a round; static.
        clip: c > 0, the largest norm of a leaf's D.
        threshold: z ≥ 0, the standard deviations above the mean from which a norm is an outlier.
        decay: a in [0, 1], of the running moments of a worker's norms.
        warmup: how many norms of a worker are no outliers, whatever they are; 1 at least.
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
    needs: ClassVar[set[str]] = {"server", "sum"}
    axes: ClassVar = AXES
    cost = cost_with_norms

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at the mean of x0's rows; raise ValueError if the problem knows no leaves."""
        x, norms = common(x0), no_norms(self, problem, x0)
        outer = outer_of(self, problem).init(x)
        return State(x, norms, outer, rows_of(self, problem, x0), problem.n)

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one round."""
        clients = participants(problem, network)
        start = clients.share(state.server)
        y, memory = work(self, clients, start, state.inner, key)
        known = clients.own(state.norms)
        update, norms = weighed(self, clients, problem.leaves, known, start - y)
        server, outer = advance(self, clients, state, problem, update)
        norms, inner = clients.keep((state.norms, state.inner), (norms, memory))
        return State(server, norms, outer, inner, state.n)
