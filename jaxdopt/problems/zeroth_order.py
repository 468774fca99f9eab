"""Gradients made of values: differences along random directions.

    v ~ N(0, I) or uniform on the unit sphere,   c = 1 or d, so that E c v vᵀ = I,
    gᵢ = (c/m) Σⱼ (fᵢ(x + r vⱼ) − fᵢ(x − r vⱼ)) / (2 r) vⱼ     "central", 2 m queries,
    gᵢ = (c/m) Σⱼ (fᵢ(x + r vⱼ) − fᵢ(x)) / r vⱼ                "forward", m + 1 queries.

E gᵢ → ∇fᵢ as r → 0; of a quadratic fᵢ central differences have no bias at any r. For m = 1 and
Gaussian directions E|gᵢ|² = (d + 2)|∇fᵢ|², on the sphere d |∇fᵢ|².

Source: Nesterov, Spokoiny (2017), Random gradient-free minimization of convex functions.
"""

from typing import Annotated, Any, ClassVar, Literal

import jax
import jax.numpy as jnp

from jaxdopt._checks import Count, require
from jaxdopt._numbers import Number, number
from jaxdopt._opaque import enclose
from jaxdopt._pytree import pytree, replace, static
from jaxdopt._wrapper import wrapped
from jaxdopt.costs import QUERY_AXES, samples
from jaxdopt.problems.wrapper import Wrapper

DIRECTIONS = 0xD12EC700  # folded into the key, so that directions and samples are independent

Radius = Annotated[Any, Number(above=0.0, shared=True)]
"""How far from x a method asks for values, one number for all agents."""


def normal(key: jax.Array, agent: Any, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """Return the standard normal numbers of an agent in a step, which all can draw by its key."""
    mine = jax.random.fold_in(jax.random.fold_in(key, DIRECTIONS), agent)
    return jax.random.normal(mine, shape, dtype)


@pytree
class ZerothOrder(Wrapper):
    """A problem whose gradients are differences of another one's values along random directions.

    So every method that asks for gradients runs on a black box. All values of an estimate are of
    the same samples. The same key draws the same directions, an agent its own, which are never
    stored. The axis ``queries`` counts the points at which an agent asks for a value, whatever the
    batch; a value of a sample counts as a component gradient. Everything else, objective and facts
    among it, is the wrapped problem's.

    Args:
        problem: one with ``value(x, key)``, such as a `BlackBox` or a `FiniteSum`.
        directions: m; static.
        radius: r > 0: differences of float32 values need 1e-3 or so.
        estimator: "central" or "forward"; static.
        distribution: "gaussian" or "sphere", of directions; static.
        agents: whose directions are drawn, [s] int; set by ``take``.

    Raises:
        ValueError: the problem has no values, or an argument is out of its range.

    Example:
        >>> import jaxdopt as jd
        >>> quadratic = jd.problems.quadratic(agents=4, d=3)
        >>> estimated = jd.problems.ZerothOrder(quadratic, directions=50_000)
        >>> x, key = quadratic.start(), jax.random.key(0)
        >>> error = jnp.linalg.norm(estimated.grad(x, key) - quadratic.grad(x))
        >>> bool(error < 0.02 * jnp.linalg.norm(quadratic.grad(x))), estimated.queries
        (True, 100000)
    """

    problem: Any
    directions: Count = static(default=1)
    radius: Any = 1e-3
    estimator: Literal["central", "forward"] = static(default="central")
    distribution: Literal["gaussian", "sphere"] = static(default="gaussian")
    agents: Any = None  # [s] int: the agents chosen by `take`, or None for all
    hides = ("grad_at", "draw", "indices", "batch", "value", "value_at")
    axes: ClassVar = QUERY_AXES

    def __post_init__(self) -> None:
        """Check the radius, and that there are values."""
        object.__setattr__(self, "radius", number("radius", self.radius, above=0.0))
        name = type(wrapped(self)).__name__
        require(
            hasattr(wrapped(self), "value"),
            f"problem is a {name} without value; give one that can be asked for values, such as a "
            "FiniteSum, a Minibatch or a BlackBox, without GaussianNoise or ZerothOrder.",
        )

    @property
    def queries(self) -> int:
        """The points at which an agent asks for a value in one call of `grad`."""
        return 2 * self.directions if self.estimator == "central" else self.directions + 1

    @property
    def samples(self) -> Any:
        """The values of samples that an agent pays for one call of `grad`."""
        return self.queries * samples(wrapped(self))

    def drawn(self, key: jax.Array, dtype: Any = float) -> jax.Array:
        """Return the directions of all agents, [n, m, d]."""
        agents = jnp.arange(self.n) if self.agents is None else self.agents
        shape = (self.directions, self.d)
        v = jax.vmap(lambda agent: normal(key, agent, shape, dtype))(agents)
        if self.distribution == "sphere":
            v = v / jnp.linalg.norm(v, axis=-1, keepdims=True)
        return v

    def grad(self, x: jax.Array, key: jax.Array) -> jax.Array:
        """Return every agent's estimate at its own row, [n, d] -> [n, d]."""
        v, at, m = self.drawn(key, x.dtype), x[:, None], self.directions
        radius = jnp.asarray(self.radius, x.dtype)
        first = at - radius * v if self.estimator == "central" else at
        f = wrapped(self).value(jnp.concatenate([first, at + radius * v], axis=1), key)
        slopes = (f[:, -m:] - f[:, :-m]) / radius
        factor = self.d if self.distribution == "sphere" else 1
        factor = factor / (2 * m if self.estimator == "central" else m)
        return factor * jnp.einsum("nm,nmd->nd", slopes, v, precision="highest")

    def take(self, agents: jax.Array) -> "ZerothOrder":
        """Return the problem of some agents [s], with their directions."""
        whose = agents if self.agents is None else self.agents[agents]
        return replace(self, problem=enclose(wrapped(self).take(agents)), agents=whose)
