"""What EDiT and A-EDiT share: pseudo-gradients weighed by their norms, leaf by leaf.

Of every leaf l each client i keeps the running mean μ and variance v of its norms G = |Dᵢ|, with a
decay a; the first one makes μ = G, v = 0. One is an outlier, and not learned from, if

    G > μ + z √v   once as many as the warm-up are known, and else   μ⁺ = μ + a (G − μ),
                                                             v⁺ = (1 − a) (v + a (G − μ) (G − μ⁺))

Of the others D = Σ pᵢ exp(−Gᵢ) Dᵢ / Σ pᵢ exp(−Gᵢ), a softmax of −G, is clipped to the norm c:
D ← D min(1, c / (|D| + 10⁻⁸)). Where all are outliers it is 0.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxdopt._pytree import pytree, replace
from jaxdopt.algorithms.federated.clients import Clients
from jaxdopt.compressors import FLOAT
from jaxdopt.costs import Cost, counted
from jaxdopt.problems.layout import Layout, leaves_of


@pytree
class Norms:
    """What every client knows of the norms of its pseudo-gradients."""

    mean: jax.Array  # [n, L] μ
    variance: jax.Array  # [n, L] v
    count: jax.Array  # [n, 1] int32: how many there were, outliers too


def no_norms(method: Any, problem: Any, x0: jax.Array) -> Norms:
    """Return what is known in the beginning; raise ValueError if the problem knows no leaves."""
    zero = jnp.zeros_like(leaves_of(problem, type(method).__name__).norms(x0))
    return Norms(zero, zero, jnp.zeros((len(x0), 1), jnp.int32))


def weighed(
    method: Any, clients: Clients, leaves: Layout, norms: Norms, away: jax.Array
) -> tuple[jax.Array, Norms]:
    """Return the pseudo-gradient D [d] of Dᵢ [s, d], and what the clients then know.

    Args:
        method: with ``threshold``, z; ``decay``, a; ``warmup``; and ``clip``, c.
        clients: who takes part, s of them.
        leaves: of a row.
        norms: what they knew before, a row each.
        away: Dᵢ, [s, d].
    """
    G = leaves.norms(away)
    known = norms.count.astype(G.dtype) >= jnp.maximum(method.warmup, 1)
    outlier = known & (norms.mean + method.threshold * jnp.sqrt(norms.variance) < G)
    a = jnp.where(norms.count == 0, 1, method.decay)
    mean = norms.mean + a * (G - norms.mean)
    variance = (1 - a) * (norms.variance + a * (G - norms.mean) * (G - mean))
    learned = Norms(
        jnp.where(outlier, norms.mean, mean),
        jnp.where(outlier, norms.variance, variance),
        norms.count + 1,
    )
    counts = ~outlier if clients.mask is None else ~outlier & clients.mask[:, None]
    least = jnp.min(G, axis=0, keepdims=True, where=counts, initial=jnp.inf)  # none underflows
    trust = jnp.where(counts, jnp.exp(jnp.where(counts, least - G, 0)), 0)
    total = clients.total(trust)
    D = leaves.scale(clients.total(leaves.scale(away, trust)), 1 / jnp.where(total > 0, total, 1))
    return leaves.scale(D, jnp.minimum(1, method.clip / (leaves.norms(D) + 1e-8))), learned


def cost_with_norms(method: Any, state: Any, problem: Any, network: Any) -> Cost:
    """Return the cost of a step in which norms go up and weights come down, one a leaf."""
    cost = counted(method, state, problem, network)
    return replace(cost, bits=cost.bits + cost.vectors * FLOAT * state.norms.mean.shape[1])
