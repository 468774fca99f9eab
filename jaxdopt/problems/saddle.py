"""Games of two players: saddle points of any function of two parameter pytrees."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdopt import _repr
from jaxdopt._checks import require
from jaxdopt._opaque import traceable
from jaxdopt._pytree import pytree, replace, static
from jaxdopt._wrapper import wrapped
from jaxdopt.problems import solver
from jaxdopt.problems.finite_sum import FiniteSum
from jaxdopt.problems.gradients import traced, zeros
from jaxdopt.problems.layout import Layout
from jaxdopt.problems.padding import padded
from jaxdopt.problems.wrapper import Wrapper

ITERATIONS = 20  # of Newton's method for the gap
LENGTHS = 12  # of each of its steps: 1, 1/2, ...


@pytree
class Payoff:
    """f of both players together, (x, y) and a sample."""

    function: Any

    def __call__(self, players: tuple[Any, Any], sample: Any) -> jax.Array:
        """Return f(x, y, sample)."""
        x, y = players
        return self.function(x, y, sample)


@pytree
class Saddle(Wrapper):
    """min over x, max over y of (1/n) Σᵢ fᵢ(x, y), fᵢ(x, y) = (1/mᵢ) Σⱼ f(x, y, sᵢⱼ).

    z = (x, y) is one row [d] of parameters, and ``grad`` the operator Fᵢ(z) = (∇ₓfᵢ, −∇ᵧfᵢ), whose
    mean F is 0 at the equilibria of a game that is convex in x and concave in y. There is no
    objective to descend: f goes down in x and up in y. Samples, `Minibatch` and `GaussianNoise` are
    as in a `FiniteSum`.

    Args:
        f: ``f(x, y, sample) -> scalar`` for one sample of one agent; a plain function, or a
            callable pytree whose numbers are then traced.
        data: as `FiniteSum` takes it: leaves [n, m, ...], or lists of n arrays [mᵢ, ...].
        params: (x, y), where both players start, each a pytree of floating arrays.

    Attributes:
        problem: the sum of f as a `FiniteSum` over (x, y).
        smoothness: L such that every Fᵢ is L-Lipschitz, or None.
        strong_convexity: μ such that f − (μ/2)|x|² + (μ/2)|y|² is convex in x and concave in y: F
            is then strongly monotone with μ; or None.
        solution: the equilibrium [d], or None; set by `solved`.

    Raises:
        ValueError: params is no pair, f is no floating scalar or fails, some parameters do not
            enter f, and what `FiniteSum` refuses.

    Example:
        >>> import jax.numpy as jnp
        >>> def f(x, y, sample):
        ...     return x @ y + (x @ x - y @ y) / 2 + sample @ x
        >>> game = Saddle(f, jnp.ones((3, 5, 2)), (jnp.zeros(2), jnp.zeros(2)))
        >>> game.solved().solution.round(6).tolist()
        [-0.5, -0.5, -0.5, -0.5]
    """

    problem: Any
    split: int = static()  # how many coordinates x has
    hides = ("objective", "optimum", "loss", "l2", "tokens", "value", "value_at")

    def __init__(self, f: Callable[..., Any], data: Any, params: Any) -> None:
        require(callable(f), f"f is {f!r}; give a function f(x, y, sample).")
        require(
            isinstance(params, tuple | list) and len(params) == 2,
            f"params is a {type(params).__name__}; give the pair (x, y) of both players' starts.",
        )
        x, y = params
        payoff = Payoff(traceable(f))
        _require_payoff(payoff, data, (x, y))
        object.__setattr__(self, "problem", FiniteSum(payoff, data, (x, y)))
        object.__setattr__(self, "split", Layout.of(x).d)

    def _facts(self) -> dict[str, str]:
        facts = self.problem._facts()
        payoff = _repr.brief(self.problem.loss.function)
        dimension = f"{self.d} = {self.split} + {self.d - self.split}"
        hidden = {"dimension": dimension, "payoff": payoff}
        return hidden | {k: v for k, v in facts.items() if k not in ("dimension", "loss", "l2")}

    def grad(self, z: jax.Array, key: Any = None) -> jax.Array:
        """Return every agent's operator (∇ₓfᵢ, −∇ᵧfᵢ) at its own row, [n, d] -> [n, d]."""
        return self._turned(wrapped(self).grad(z, key))

    def grad_at(self, z: jax.Array, indices: jax.Array) -> jax.Array:
        """Return the mean operator over chosen samples; ``indices`` is [n] or [n, b]."""
        return self._turned(wrapped(self).grad_at(z, indices))

    def operator(self, z: jax.Array) -> jax.Array:
        """Return F(z), the mean of the agents' operators at one point, [d] -> [d]."""
        return self._turned(jax.grad(self.payoff)(z))

    def payoff(self, z: jax.Array) -> jax.Array:
        """Return f(x, y), the mean over agents and samples, at one point z = (x, y), [d]."""
        return wrapped(self).objective(z)

    def saddle_gap(self, z: jax.Array) -> jax.Array:
        """Return max f(x, ·) − min f(·, y) at z = (x, y), [d]: at least 0, and 0 at an equilibrium.

        Both are found by `ITERATIONS` Newton steps from z, each as long as is best of 1, 1/2, ...,
        so that what is returned is at most the gap. A game that is quadratic and strongly convex in
        x and concave in y takes one. It is a difference of values of f, and exact to their rounding
        error. The Hessians of both players are formed.
        """
        x, y = z[: self.split], z[self.split :]
        best = _least(lambda y: -self.payoff(jnp.concatenate([x, y])), y)
        worst = _least(lambda x: self.payoff(jnp.concatenate([x, y])), x)
        return -best - worst

    def solved(self) -> "Saddle":
        """Return the game with its equilibrium known, by Newton's method in float64 from the start.

        Do not call this inside jit.

        Raises:
            ValueError: no root of the operator was found.
        """
        z, length, found = solver.root(self)
        require(
            found,
            f"no equilibrium was found, |F| = {length:.3g} at |z| = {np.linalg.norm(z):.3g}; there "
            "may be none: make f strongly convex in x and strongly concave in y, or start nearer.",
        )
        solution = jnp.asarray(z, self.problem.origin.dtype)
        return replace(self, problem=replace(self.problem, solution=solution))

    def _turned(self, slope: jax.Array) -> jax.Array:
        return slope * jnp.where(jnp.arange(self.d) < self.split, 1, -1).astype(slope.dtype)


def _least(function: Callable[[jax.Array], jax.Array], start: jax.Array) -> jax.Array:
    """Return the least value of a strongly convex function [d] -> [], by Newton's method."""
    lengths = jnp.append(0.5 ** jnp.arange(LENGTHS), 0).astype(start.dtype)

    def step(at: jax.Array, _: None) -> tuple[jax.Array, None]:
        direction = jnp.linalg.solve(jax.hessian(function)(at), jax.grad(function)(at))
        trials = at - lengths[:, None] * direction
        values = jax.vmap(function)(trials)
        return trials[jnp.argmin(jnp.where(jnp.isfinite(values), values, jnp.inf))], None

    return function(jax.lax.scan(step, start, None, ITERATIONS)[0])


def _require_payoff(payoff: Payoff, data: Any, params: tuple[Any, Any]) -> None:
    """Refuse an f that is no floating scalar, or that some parameters of a player do not enter."""
    layout = Layout.of(params)
    players = layout.unravel(layout.ravel(params))
    sample = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape[2:], leaf.dtype), padded(data)[0]
    )
    _, value = traced("f of one sample", payoff, players, sample)
    kinds = [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(value)]
    require(
        len(kinds) == 1 and kinds[0][0] == () and jnp.issubdtype(kinds[0][1], jnp.floating),
        f"f of one sample has {' and '.join(f'shape {s} and dtype {t}' for s, t in kinds)}; return "
        "a floating scalar, as the mean over samples is taken here.",
    )
    slope, _ = traced("f's gradient", jax.grad(payoff), players, sample)
    for name, size, zero in zip(layout.names, layout.sizes, zeros(slope.jaxpr), strict=True):
        which = ("x", "y")[int(name[1])] + name[3:]
        require(
            not (zero and size),
            f"f does not depend on {which}; give an f(x, y, sample) that both players' parameters "
            "enter, or a FiniteSum for one player.",
        )
