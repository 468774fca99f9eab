"""What a step costs, in the units in which papers draw their horizontal axes."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxdopt._pytree import pytree
from jaxdopt.compressors import FLOAT


@pytree
class Cost:
    """The cost of one step, an agent's unless said otherwise.

    ``gradients`` counts component gradients, ``exchanges`` rounds of communication, ``vectors``
    the vectors and ``bits`` the bits that an agent sends over one of its links. ``links`` is how
    many directed links they take, where these are not the network's. Where only some take part,
    all are the average agent's.

    Simulated time asks two things more. ``calls`` is how often an agent that takes part calls for a
    gradient, one call after the other; None for ``gradients`` over the problem's `samples`. And
    messages of a step may travel while the gradients of this and the ``overlap`` − 1 steps that
    follow are taken; 0 if they are waited for.
    """

    gradients: Any
    exchanges: Any
    vectors: Any
    bits: Any
    links: Any = None
    calls: Any = None
    overlap: Any = 0


def samples(problem: Any) -> Any:
    """Return the component gradients that one gradient of the problem costs an agent."""
    return getattr(problem, "samples", 1)


def vector_bits(x: jax.Array) -> int:
    """Return the bits of one agent's row of ``x`` [n, d]: 32 a number, as what is sent is.

    A simulation in float64 counts the same, and compares with compressed messages; one in 16 bits
    sends 16.
    """
    return x[0].size * min(FLOAT, jnp.finfo(x.dtype).bits)


def gossip(state: Any, problem: Any, vectors: int = 1, numbers: int = 0) -> Cost:
    """Return the cost of one gradient and one exchange of vectors, and of single numbers."""
    x = jax.tree.leaves(state.x)
    bits = vectors * sum(vector_bits(leaf) for leaf in x) + numbers * FLOAT
    return Cost(samples(problem), 1, vectors, bits)


def messages(state: Any, problem: Any, compressor: Any, number: int = 1) -> Cost:
    """Return the cost of one gradient and one exchange of ``number`` compressed messages."""
    return Cost(samples(problem), 1, number, number * compressor.bits(state.x.shape[1]))
