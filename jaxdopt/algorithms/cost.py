"""What a step costs, in the units in which papers draw their horizontal axes."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxdopt._pytree import pytree


@pytree
class Cost:
    """The cost of one step, an agent's unless said otherwise.

    ``gradients`` counts component gradients, ``exchanges`` rounds of communication, ``vectors``
    the vectors and ``bits`` the bits that an agent sends over one of its links.
    """

    gradients: Any
    exchanges: Any
    vectors: Any
    bits: Any


def samples(problem: Any) -> Any:
    """Return the component gradients that one gradient of the problem costs an agent."""
    return getattr(problem, "samples", 1)


def vector_bits(x: jax.Array) -> int:
    """Return the bits of one agent's row of ``x`` [n, d]."""
    return x[0].size * jnp.finfo(x.dtype).bits


def gossip(state: Any, problem: Any, vectors: int = 1) -> Cost:
    """Return the cost of one gradient and one exchange of ``vectors`` vectors."""
    x = jax.tree.leaves(state.x)
    return Cost(samples(problem), 1, vectors, vectors * sum(vector_bits(leaf) for leaf in x))
