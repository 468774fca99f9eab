"""Stochastic gradients of a problem: wrappers that leave its objective and its facts alone."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdopt._pytree import is_traced, pytree, require, static


@pytree
class Minibatch:
    """The mean gradient over ``batch`` samples an agent, drawn uniformly with replacement.

    Unbiased for every agent's own gradient whatever its size; the same key draws the same samples.
    Everything else is the wrapped problem's.

    Raises:
        ValueError: the batch is not a positive integer, or larger than the smallest agent's data.

    Example:
        >>> import jaxdopt as jd
        >>> problem = jd.problems.Minibatch(jd.problems.least_squares(A, b, agents=4), 8)
        >>> problem.samples
        8
    """

    problem: Any
    batch: int = static()

    def __post_init__(self) -> None:
        """Check the batch size against the data."""
        require(
            isinstance(self.batch, int | np.integer)
            and not isinstance(self.batch, bool)
            and self.batch >= 1,
            f"batch is {self.batch!r}; give the number of samples an agent, an integer >= 1.",
        )
        require(
            hasattr(self.problem, "grad_at"),
            f"{type(self.problem).__name__} has no samples to draw from; Minibatch needs a "
            "problem with grad_at, such as FiniteSum.",
        )
        sizes = self.problem.sizes
        if not is_traced(sizes):
            least = int(np.min(sizes))
            require(
                self.batch <= least,
                f"batch is {self.batch} and an agent has {least} samples; give at most {least}, or "
                "use the problem itself for full gradients.",
            )

    @property
    def samples(self) -> int:
        """Component gradients an agent pays for one call of `grad`."""
        return self.batch

    def indices(self, key: jax.Array) -> jax.Array:
        """Return the samples that ``key`` draws, [n, batch]."""
        sizes = self.problem._of(self.problem.sizes)[:, None]
        uniform = jax.random.uniform(key, (self.problem.n, self.batch), jnp.float32)
        return (uniform * sizes).astype(jnp.int32)  # never reaches sizes: u ≤ 1 − 2⁻²³

    def grad(self, x: jax.Array, key: jax.Array) -> jax.Array:
        """Return every agent's minibatch gradient at its own row, [n, d] -> [n, d]."""
        return self.problem.grad_at(x, self.indices(key))

    def take(self, agents: jax.Array) -> "Minibatch":
        """Return the problem of some agents [s]."""
        return Minibatch(self.problem.take(agents), self.batch)

    def solved(self) -> "Minibatch":
        """Return the problem with `solution` and `optimum` known."""
        return Minibatch(self.problem.solved(), self.batch)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "problem" not in vars(self):
            raise AttributeError(name)
        return getattr(self.problem, name)
