"""Extragradient: a step along the operator at the point to which a step leads.

    z½   = zₖ − γ mean_{Sₖ} C(Fᵢ(zₖ))
    zₖ₊₁ = zₖ − γ mean_{Sₖ} C(Fᵢ(z½))

Fᵢ is what a problem's ``grad`` returns: (∇ₓf, −∇ᵧf) of a `jd.problems.Saddle`, ∇fᵢ of a sum that
is minimized. The same clients take part in both halves, in each of which they send a message and
get the whole mean. Where F only rotates, as that of xᵀy does, descent diverges for every γ and this
converges. With a compressor it is the naive compressed form: C(Fᵢ(z*)) ≠ 0 where agents
differ, and z stops at a distance² proportional to γ; `MASHA1` and `MASHA2` do not.

Source: Korpelevich (1976), Ekonomika i Matematicheskie Metody 12; compressed: the baseline of
Beznosikov, Richtárik, Diskin, Ryabinin, Gasnikov (2021), arXiv 2110.03313.
Confidence: textbook, from memory (the compressed form).
Theorem in the tests: with the identity, γ ≤ 1/(2L) and F strongly monotone it converges linearly,
and with F = (y, −x) each step multiplies |z|² by 1 − γ² + γ⁴; with top-k or random-k it stops.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxdopt._numbers import Nonnegative
from jaxdopt._pytree import pytree, static
from jaxdopt.algorithms.compressed.messages import message
from jaxdopt.algorithms.federated.clients import Central, common, participants
from jaxdopt.compressors import Compressor, Identity


@pytree
class State(Central):
    """The state of extragradient."""

    server: jax.Array  # [d] z
    n: int = static()


@pytree
class ExtraGradient:
    """z½ = zₖ − γ mean C(Fᵢ(zₖ)),  zₖ₊₁ = zₖ − γ mean C(Fᵢ(z½)).

    Args:
        stepsize: γ ≥ 0, at most 1/(2L) for L-Lipschitz Fᵢ; if clients have their own, [n, 1], the
            server takes their mean.
        compressor: C, of what clients send; by default they send it whole.
    """

    stepsize: Nonnegative
    compressor: Compressor = Identity()
    needs: ClassVar[set[str]] = {"server"}
    downlink: ClassVar[None] = None
    vectors: ClassVar[int] = 2
    exchanges: ClassVar[int] = 2
    gradients: ClassVar[int] = 2

    def init(self, x0: jax.Array, problem: Any, network: Any, key: jax.Array) -> State:
        """Start at the mean of x0's rows."""
        return State(common(x0), problem.n)

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one step."""
        clients, z = participants(problem, network), state.server
        stepsize = jnp.mean(self.stepsize, dtype=z.dtype)

        def ahead(at: jax.Array, half: int) -> jax.Array:
            own = clients.grad(clients.share(at), jax.random.fold_in(key, half))
            return z - stepsize * clients.mean(message(self.compressor, key, own, half))

        return State(ahead(ahead(z, 0), 1), state.n)
