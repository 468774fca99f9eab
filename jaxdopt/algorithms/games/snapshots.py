"""What MASHA1 and MASHA2 share: a snapshot w, where all know F(w), and what a new one costs."""

import dataclasses
from collections.abc import Callable
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from jaxdopt import costs
from jaxdopt._checks import Called, require
from jaxdopt._numbers import Number
from jaxdopt._pytree import pytree, replace
from jaxdopt.algorithms.federated.clients import Central, Clients, common
from jaxdopt.compressors import is_contractive, is_unbiased

TOSS = 0x7055  # folded into a step's key, so that the coin uses no other draw's key

Probability = Annotated[Any, Number(minimum=0.0, maximum=1.0, shared=True)]
"""The probability of a coin that all agents share, between 0 and 1."""


@dataclasses.dataclass(frozen=True)
class Of(Called):
    """The check of a field for a compressor with a certain constant."""

    knows: Callable[[Any], bool] = is_unbiased
    lacks: str = "is biased"
    other: str = "MASHA2"

    def accept(self, name: str, value: Any) -> Any:
        """Return a compressor that has the constant."""
        compressor = super().accept(name, value)
        require(
            self.knows(compressor),
            f"{name} is {value!r}, which {self.lacks}; give {self.remedy}, or take {self.other}.",
        )
        return compressor


UNBIASED = "one of jd.compressors, such as RandomK(k) or Dither(bits=4)"
CONTRACTING = "one of jd.compressors, such as TopK(k) or Contractive(RandomK(k))"
Unbiased = Annotated[Any, Of("Compressor", UNBIASED, "bits")]
"""A compressor with E C(x) = x."""

Contracting = Annotated[
    Any, Of("Compressor", CONTRACTING, "bits", is_contractive, "has no delta", "MASHA1")
]
"""A compressor with E|C(x) − x|² ≤ (1 − δ) |x|²."""


@pytree
class Snapshot(Central):
    """What states of methods share that know F(w) at a snapshot w."""

    server: jax.Array  # [d] z
    w: jax.Array  # [d] the snapshot
    own: jax.Array  # [n, d] Fᵢ(w)
    mean: jax.Array  # [d] F(w)
    age: jax.Array  # int: steps since the latest full exchange; −1 before the first


def begin(x0: jax.Array) -> tuple[Any, Any, Any, Any, Any]:
    """Return the fields of `Snapshot` before the first step: z is the mean of x0's rows."""
    z = common(x0)
    return z, z, jnp.zeros_like(x0), jnp.zeros_like(z), jnp.full((), -1, jnp.int32)


def renewed(state: Any, clients: Clients, due: jax.Array, key: jax.Array) -> tuple[jax.Array, ...]:
    """Return w, Fᵢ(w), F(w) and the age: new ones at z if that is due, and in the first step."""
    z, due = state.server, due | (state.age < 0)

    def exchange() -> tuple[jax.Array, ...]:
        own = clients.grad(clients.share(z), jax.random.fold_in(key, 0))
        return z, own, clients.mean(own)

    kept = jax.lax.cond(due, exchange, lambda: (state.w, state.own, state.mean))
    return *kept, jnp.where(due, 0, state.age + 1)


def toss(key: jax.Array) -> jax.Array:
    """Return the uniform number that all agents share in the step with this key."""
    return jax.random.uniform(jax.random.fold_in(key, TOSS), (), jnp.float32)


def cost(method: Any, state: Any, problem: Any, network: Any) -> costs.Cost:
    """Return a compressed exchange's cost, and a full one's where the step renewed its snapshot."""
    cost = costs.counted(method, state, problem, network)
    full = jnp.where(state.age == 0, 1, 0)
    whole = full * costs.vector_bits(state.x)
    return replace(
        cost,
        gradients=(1 + full) * cost.gradients,
        exchanges=cost.exchanges + full,
        vectors=cost.vectors + full,
        bits=cost.bits + whole,
        up=cost.up + whole,
        down=cost.down + whole,
    )
