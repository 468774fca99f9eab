"""Problems around another problem."""

from typing import Any

from jaxdopt import _wrapper
from jaxdopt._checks import require
from jaxdopt._pytree import pytree
from jaxdopt._wrapper import wrapped


@pytree
class Wrapper(_wrapper.Wrapper):
    """A problem around another one, whose attributes it has but for those that it defines.

    Subclass it for wrappers of your own; ``hides`` names what the wrapper has not. The problem of
    some agents (``take``) and the one with known solution (``solved``) are wrapped again.

    Args:
        problem: the wrapped problem, any object with ``grad(x, key)`` or ``value(x, key)``.

    Raises:
        ValueError: the problem has neither.

    Example:
        >>> import jaxdopt as jd
        >>> @jd.pytree
        ... class Clipped(jd.problems.Wrapper):
        ...     bound: jd.Positive
        ...     hides = ("grad_at", "draw")  # would be gradients that are not clipped
        ...     def grad(self, x, key):
        ...         return jnp.clip(self.problem.grad(x, key), -self.bound, self.bound)
        >>> clipped = Clipped(jd.problems.quadratic(agents=4, d=3), bound=0.1)
        >>> clipped.n, float(jnp.abs(clipped.grad(clipped.start() + 9.0, jax.random.key(0))).max())
        (4, 0.1)
    """

    problem: Any
    wraps = "problem"
    renews = ("take", "solved")

    def __post_init__(self) -> None:
        """Refuse what is no problem."""
        if not hasattr(wrapped(self), "value"):
            require_gradients(wrapped(self))


def require_gradients(problem: Any) -> None:
    """Refuse what has no gradients."""
    remedy = "an object with n, d and grad(x, key)"
    if hasattr(problem, "value"):
        remedy = "jd.problems.ZerothOrder of it, whose gradients are made of values"
    name = type(problem).__name__
    require(hasattr(problem, "grad"), f"problem is a {name} without grad; give {remedy}.")
