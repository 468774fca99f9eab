"""Averaging: a method whose estimate is the running mean of another method's iterates.

    x̄ₖ = (1 / (k − s + 1)) Σⱼ₌ₛ..ₖ xⱼ   for k ≥ s,      x̄ₖ = xₖ   before,      s = ``start``

Theorems on convex functions bound F at this mean rather than at the last iterate. With a constant
stepsize γ, SGD's last iterate stays at a distance of order √γ from the solution, whereas its mean
comes as near as γ; with stepsizes of order k^(−a), 1/2 < a < 1, the mean's covariance is
asymptotically the smallest possible, Σ/k with Σ independent of the stepsizes.

Source: Ruppert (1988), Cornell technical report 781; Polyak and Juditsky (1992), "Acceleration of
stochastic approximation by averaging"; constant stepsizes: Bach and Moulines (2013), arXiv
1306.2119.
Confidence: textbook.
Theorems in the tests: F(x̄ₖ) − F* ≤ |x₀ − x*|² / (2γ(k + 1)) for gradient descent on a convex F, and
an error of order 1/k of averaged SGD on least squares, where the last iterate's does not decrease.
"""

import dataclasses
import functools
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdopt import agents, costs, roles
from jaxdopt._checks import count, require
from jaxdopt._leaves import distinct, wide_dtype
from jaxdopt._pytree import field, pytree
from jaxdopt._wrapper import Wrapper, wrapped


@dataclasses.dataclass(frozen=True)
class _Step:
    """The check of a step's number, which does not change the program."""

    def accept(self, name: str, value: Any) -> Any:
        """Return an integer, or an array of one."""
        if isinstance(value, jax.Array | np.ndarray) and np.shape(value) == ():
            require(
                jnp.issubdtype(value.dtype, jnp.integer) and value >= 0,
                f"{name} is {value}; give an integer of at least 0.",
            )
            return value
        return count(name, value, 0)


@pytree
class Mean:
    """A mean of many terms, as a compensated sum (Kahan's), in float32 at least."""

    value: Any
    lost: Any  # by rounding

    @classmethod
    def of(cls, x: jax.Array) -> "Mean":
        """Return the mean of one term."""
        wide = x.astype(wide_dtype(x.dtype))
        return cls(wide, jnp.zeros_like(wide))

    def renewed(self, x: jax.Array, terms: jax.Array) -> "Mean":
        """Return the mean with x as the last of so many terms."""
        alone, dtype = Mean.of(x), self.value.dtype
        change = (alone.value - self.value + self.lost) / terms.astype(dtype) - self.lost
        value = self.value + change
        more = Mean(value, (value - self.value) - change)
        return jax.tree.map(functools.partial(jnp.where, terms == 1), alone, more)


@pytree
class Terms:
    """What is averaged of a state, or its means; None where there is no such thing."""

    x: Any = None  # [n, ...]
    estimate: Any = field(axis=None, default=None)  # [d]


@pytree
class State(Wrapper):
    """The state of an averaged method: what it does not define is the wrapped method's state's."""

    inner: Any  # the wrapped method's state
    steps: Any = field(axis=None)  # [] int, taken so far
    means: Any = dataclasses.field(metadata={"axis": None, "rows": 0})  # `Terms`; of sleepers, too
    wraps = "inner"

    @property
    def x(self) -> Any:
        """The mean of every agent's iterates, [n, d]."""
        if self.means.x is None:
            return jnp.broadcast_to(self.estimate[..., None, :], self.inner.x.shape)
        return self._mean("x")

    @property
    def estimate(self) -> Any:
        """The mean of the wrapped state's ``estimate``, [d]; None if it has none."""
        return None if self.means.estimate is None else self._mean("estimate")

    def _mean(self, name: str) -> Any:
        own = getattr(self.inner, name)
        return jax.tree.map(
            lambda x, mean: mean.value.astype(x.dtype), own, getattr(self.means, name)
        )


@pytree
class Averaged(Wrapper):
    """x̄ₖ = (1 / (k − s + 1)) Σⱼ₌ₛ..ₖ xⱼ   for k ≥ s = start,  x̄ₖ = xₖ before: Polyak-Ruppert.

    The wrapped method runs unchanged, with the same random numbers, needs and costs, as averaging
    sends nothing. The state's ``x`` [n, d] are the means, one an agent; metrics see them, and, for
    methods with an ``estimate`` of their own, such as the server's, the mean of that. The wrapped
    method's state is ``state.inner``, so that a metric can record both. Fields of the wrapped
    method can be swept by `jd.compare` as its own: ``over={"stepsize": [0.1, 0.2], "start": [0,
    100]}``.

    The mean is over steps, also those in which an agent sleeps: as its iterate does not change
    then, it can bring its mean up to date on waking. Sums are compensated, so that many steps in
    float32 do not stall.

    Args:
        method: the method whose iterates are averaged.
        start: s, the number of steps before the first iterate of the mean, an integer of at least
            0; at 0 the mean begins with x₀. A number: it can be swept.

    Raises:
        ValueError: this is no method, or start is no such integer.

    Example:
        >>> import jaxdopt as jd
        >>> problem = jd.problems.GaussianNoise(jd.problems.quadratic(4, 2), 1.0)
        >>> setting = problem, jd.networks.metropolis(jd.graphs.ring(4)), problem.start()
        >>> methods = {"last": jd.DSGD(0.1), "mean": jd.Averaged(jd.DSGD(0.1), start=100)}
        >>> gaps = {
        ...     name: jd.run(method, *setting, jax.random.key(0), steps=2000).history["gap"]
        ...     for name, method in methods.items()
        ... }
        >>> bool(gaps["mean"][-1] < gaps["last"][1000:].mean() / 4)
        True
    """

    method: Any
    start: Annotated[Any, _Step()] = 0
    wraps = "method"

    def __post_init__(self) -> None:
        """Refuse what is no method."""
        method = wrapped(self)
        missing = [name for name in ("init", "step") if not hasattr(method, name)]
        require(
            not missing and not isinstance(method, type),
            f"method is {method!r}; give an instance with init and step, such as jd.SGD(0.1).",
        )

    def init(self, x0: Any, problem: Any, network: Any, key: jax.Array) -> State:
        """Start as the wrapped method does; its x is the first mean."""
        inner = wrapped(self).init(x0, problem, network, key)
        state = State(inner, jnp.zeros((), jnp.int32), jax.tree.map(Mean.of, _terms(inner)))
        return distinct(state, (self, x0, problem, network))

    def step(self, state: State, problem: Any, network: Any, key: jax.Array) -> State:
        """Take one step of the wrapped method, and its iterate into the mean."""
        method = wrapped(self)
        inner = method.step(state.inner, problem, network, key)
        if not hasattr(method, "needs"):  # the others' own steps see to it
            inner = roles.freeze(network, state.inner, inner)
        steps = state.steps + 1
        terms = jnp.maximum(steps - self.start, 0) + 1
        means = jax.tree.map(lambda x, mean: mean.renewed(x, terms), _terms(inner), state.means)
        return State(inner, steps, means)

    def cost(self, state: State, problem: Any, network: Any) -> costs.Cost:
        """Return the cost of the wrapped method's step."""
        return costs.cost_of(wrapped(self), state.inner, problem, network)


def _terms(inner: Any) -> Terms:
    """Return what is averaged of a state: its x, and its estimate if it has one.

    Of a server's only the latter, where its clients' x are copies of it.
    """
    own = getattr(inner, "estimate", None)
    return Terms(None if agents.copied(inner) else inner.x, own)
