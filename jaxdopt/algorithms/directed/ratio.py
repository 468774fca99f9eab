"""Push-sum's estimates: ratios x = u / w, which mean nothing once the weights w underflow."""

import jax
import jax.numpy as jnp


class Ratio:
    """What the states of push-sum methods share: fields u [n, d] and w [n, 1], and x = u / w.

    On a network that gives some agent a tiny share, such as n = 256 agents in a directed ring where
    each has a link back to the first, w tends to 2⁻ⁿ: below the range of float32, although x is
    finite.
    """

    u: jax.Array
    w: jax.Array

    @property
    def x(self) -> jax.Array:
        """The estimates u / w, [n, d]."""
        return self.u / self.w

    @property
    def valid(self) -> jax.Array:
        """Whether all weights are so large that what they are summed of has not underflowed."""
        tiny, eps = (float(getattr(jnp.finfo(self.w.dtype), name)) for name in ("tiny", "eps"))
        return jnp.all(self.w >= min(tiny / eps, eps))  # eps: float16 underflows gradually
