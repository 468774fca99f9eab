"""Stochastic gradients of a problem: wrappers that leave its objective and its facts alone."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdopt._checks import count, require
from jaxdopt._numbers import number
from jaxdopt._pytree import pytree, static
from jaxdopt._wrapper import rewrap, wrapped
from jaxdopt.problems.wrapper import Wrapper, require_gradients

NOISE = 0x6E  # folded into the key, so that noise and minibatch are independent


@pytree
class Minibatch(Wrapper):
    """The mean gradient over ``batch`` samples an agent, drawn uniformly with replacement.

    It is an unbiased estimate of every agent's own gradient, even if an agent has fewer samples
    than the batch. The same key draws the same samples. Everything else is the wrapped problem's.

    Args:
        problem: one with samples, such as a `FiniteSum`.
        batch: the number of samples that an agent draws for one gradient.

    Raises:
        ValueError: the batch is not a positive integer, or the problem has no samples to draw.

    Example:
        >>> import jaxdopt as jd
        >>> problem = jd.problems.Minibatch(jd.problems.least_squares(A, b, agents=4), 8)
        >>> problem.samples
        8
    """

    problem: Any
    batch: int = static()

    def __post_init__(self) -> None:
        """Check the batch, and that there are samples to draw."""
        count("batch", self.batch)
        _require_samples(self.problem, "Minibatch")

    @property
    def samples(self) -> int:
        """Component gradients an agent pays for one call of `grad`."""
        return self.batch

    def indices(self, key: jax.Array) -> jax.Array:
        """Return the samples that ``key`` draws, [n, batch]."""
        return self.problem.draw(key, self.batch)

    def grad(self, x: jax.Array, key: jax.Array) -> jax.Array:
        """Return every agent's minibatch gradient at its own row, [n, d] -> [n, d]."""
        return self.problem.grad_at(x, self.indices(key))

    def value(self, x: jax.Array, key: jax.Array) -> jax.Array:
        """Return the mean over the same samples at every agent's row or rows, as the problem's."""
        return self.problem.value_at(x, self.indices(key))


@pytree
class GaussianNoise(Wrapper):
    """Gradients with Gaussian noise: ∇fᵢ(x) + (σ/√d) N(0, I_d), independent for every agent.

    So E|noise|² = σ² for every agent, the σ of the theorems. Like that of a minibatch, the noise is
    in ∇fᵢ: where agents have different weights (``weights="samples"``), it is multiplied by n pᵢ as
    ∇fᵢ is. It is independent of the wrapped problem's sampling, and the same key adds the same
    noise at any x. Everything else is the wrapped problem's, except `grad_at`, `draw` and `value`:
    gradients at chosen samples and values would have no noise.

    Args:
        problem: any with ``grad(x, key)``.
        sigma: σ, at least 0; a leaf, so that it can be traced, swept and differentiated.

    Raises:
        ValueError: σ is not one number of at least 0, or the problem has no grad.

    Example:
        >>> import jaxdopt as jd
        >>> quadratic = jd.problems.quadratic(agents=4, d=3)
        >>> noisy = jd.problems.GaussianNoise(quadratic, sigma=0.5)
        >>> x, key = noisy.start(), jax.random.key(0)
        >>> bool(jnp.all(noisy.grad(x, key) != quadratic.grad(x)))
        True
    """

    problem: Any
    sigma: Any
    hides = ("grad_at", "draw", "indices", "batch", "value", "value_at")

    def __post_init__(self) -> None:
        """Check σ, and that there are gradients."""
        require_gradients(wrapped(self))
        object.__setattr__(self, "sigma", number("sigma", self.sigma, minimum=0.0))

    def grad(self, x: jax.Array, key: jax.Array) -> jax.Array:
        """Return every agent's noisy gradient at its own row, [n, d] -> [n, d]."""
        exact = self.problem.grad(x, key)
        noise = jax.random.normal(jax.random.fold_in(key, NOISE), exact.shape, exact.dtype)
        shares = getattr(self, "shares", None)
        if shares is not None:
            noise = jnp.asarray(shares, noise.dtype)[:, None] * noise
        scale = jnp.asarray(self.sigma, exact.dtype) / np.sqrt(exact.shape[1]).astype(exact.dtype)
        return exact + scale * noise


def finite_sum(problem: Any) -> tuple[Any, int]:
    """Return (the problem with full gradients, batch), for methods that draw samples themselves.

    A `Minibatch` is removed, also from inside other wrappers such as `Composite`; a problem without
    one is returned unchanged, with a batch of 1.

    Raises:
        ValueError: the problem has no samples to draw, such as an `Oracle`, a `Quadratic` or one
            with `GaussianNoise`.
    """
    _require_samples(problem, "a method that draws its own samples")
    within = wrapped(problem)
    if within is None:
        return problem, 1
    within, batch = finite_sum(within)
    if isinstance(problem, Minibatch):
        return within, problem.batch
    return rewrap(problem, within), batch


def _require_samples(problem: Any, who: str) -> None:
    require(
        hasattr(problem, "grad_at") and hasattr(problem, "draw"),
        f"{type(problem).__name__} has no samples to draw from; {who} needs a problem with grad_at "
        "and draw, such as FiniteSum.",
    )
