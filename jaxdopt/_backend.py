"""What depends on the hardware, decided in one place, when a program is lowered for it.

The branches are traced both and only the one of the backend at hand is compiled, without a
conditional in the program. `jax.default_backend` would be wrong for arrays committed elsewhere.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax

C = TypeVar("C")
Y = TypeVar("Y")


def by_backend(*operands: Any, cpu: Callable[..., Y], gpu: Callable[..., Y]) -> Y:
    """Return ``gpu(*operands)`` in programs for NVIDIA's and AMD's GPUs, else ``cpu(*operands)``.

    Both have to return the same shapes and dtypes. It works under vmap, grad and in loops. In a
    derivative the program for one backend keeps room for what the other's branch would save for
    the backward pass; a branch saves nothing but its operands if it is a `jax.checkpoint`.

    Example:
        >>> import jax.numpy as jnp
        >>> halves = by_backend(jnp.ones(2), cpu=lambda x: x / 2, gpu=lambda x: 0.5 * x)
        >>> halves.tolist()
        [0.5, 0.5]
    """
    return jax.lax.platform_dependent(*operands, default=cpu, cuda=gpu, rocm=gpu)


def scan(body: Callable[[C, Any], tuple[C, Y]], carry: C, xs: Any) -> tuple[C, Y]:
    """Return `jax.lax.scan`, on a GPU with two steps an iteration.

    A loop whose step cannot be written in place, as a stencil cannot, copies its carry once an
    iteration. Of two steps the first writes to other memory and the second back, and there is
    nothing to copy; on a CPU loops of two steps are slower.
    """

    def looped(unroll: int) -> Callable[[C, Any], tuple[C, Y]]:
        return lambda carry, xs: jax.lax.scan(body, carry, xs, unroll=unroll)

    return by_backend(carry, xs, cpu=looped(1), gpu=looped(2))
