"""Finite sums: any loss over any parameter pytree, even or uneven data."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxdopt import _repr
from jaxdopt import agents as _agents
from jaxdopt._checks import require
from jaxdopt._leaves import cast_floats, is_traced
from jaxdopt._numbers import number
from jaxdopt._opaque import traceable
from jaxdopt._pytree import pytree, replace, static
from jaxdopt.problems import solver
from jaxdopt.problems.gradients import require_gradient, traced
from jaxdopt.problems.layout import Layout
from jaxdopt.problems.padding import padded

Weighting = Literal["agents", "samples"]


@pytree
class FiniteSum:
    """Any loss over any parameter pytree: fᵢ(x) = (1/mᵢ) Σⱼ loss(x, zᵢⱼ) + (l2/2)|x|².

    Args:
        loss: ``loss(params, sample) -> scalar`` for one sample of one agent; a plain function, or a
            callable pytree whose numbers are then traced. If it has ``many(params, samples)``, the
            losses [b] of several, these are taken at once.
        data: a pytree with leaves [n, m, ...], or, for uneven data, with a list of n arrays
            [mᵢ, ...] in each leaf's place, or a list of n pytrees with leaves [mᵢ, ...] (lists
            always mean agents; use tuples and dicts for structure).
        params: the starting parameters, a pytree of floating arrays; it fixes shapes and dtype.
        l2: the regularizer's weight.
        weights: "agents" for pᵢ = 1/n, "samples" for pᵢ = mᵢ/m.
        precision: of matrix products, as `jax.default_matmul_precision` takes it.

    Attributes:
        sizes: [n], the number of samples each agent has.
        size: their mean.
        shares: [n], the weights n pᵢ.
        samples: component gradients an agent pays for one call of `grad`.
        smoothness, strong_convexity: L such that every n pᵢ fᵢ is L-smooth, and μ of F, or None.
        solution, optimum: the minimizer [d] and F there, or None; set by `solved`.

    Raises:
        ValueError: agents without samples, leaves that disagree about n or m, NaN data, integer
            parameters, or a loss that is no floating scalar or does not depend on some parameters.

    Example:
        >>> import jax.numpy as jnp
        >>> def loss(w, sample):
        ...     return 0.5 * (w @ sample["a"] - sample["b"]) ** 2
        >>> data = {"a": jnp.ones((3, 5, 2)), "b": jnp.arange(15.0).reshape(3, 5)}
        >>> problem = FiniteSum(loss, data, jnp.zeros(2))
        >>> problem.n, problem.d, problem.grad(problem.start())[:, 0].round(3).tolist()
        (3, 2, [-2.0, -7.0, -12.0])
    """

    loss: Any
    data: Any  # leaves [n, m, ...], padded with an agent's own samples
    sample_weights: Any  # [n, m]: 1 / mᵢ, zero on the padding; None where all mᵢ are equal
    sizes: Any  # [n] int
    agent_weights: Any  # [n]: n pᵢ
    l2: Any
    origin: Any  # [d]: the starting parameters
    smoothness: Any
    strong_convexity: Any
    solution: Any
    optimum: Any
    agents: Any  # [s] int: the agents chosen by `take`, or None for all
    layout: Layout = static()
    precision: str = static()

    def __init__(
        self,
        loss: Callable[..., Any],
        data: Any,
        params: Any,
        *,
        l2: Any = 0.0,
        weights: Weighting = "agents",
        precision: str = "highest",
    ) -> None:
        require(callable(loss), f"loss is {loss!r}; give a function loss(params, sample).")
        require(
            weights in ("agents", "samples"),
            f"weights is {weights!r}; give 'agents' (every agent counts the same) or 'samples'.",
        )
        l2 = number("l2", l2, minimum=0.0)
        layout = Layout.of(params)
        origin = layout.ravel(params)
        data, sizes = padded(data)
        n, m = len(sizes), int(sizes.max())
        agent_weights = np.ones(n) if weights == "agents" else n * sizes / sizes.sum()
        real = np.arange(m) < sizes[:, None]
        fields = {
            "loss": traceable(loss),
            "data": data,
            "sample_weights": None
            if real.all()
            else jnp.asarray(real / sizes[:, None], origin.dtype),
            "sizes": jnp.asarray(sizes, jnp.int32),
            "agent_weights": jnp.asarray(agent_weights, origin.dtype),
            "l2": l2,
            "origin": origin,
            "smoothness": None,
            "strong_convexity": None,
            "solution": None,
            "optimum": None,
            "agents": None,
            "layout": layout,
            "precision": precision,
        }
        for name, value in fields.items():
            object.__setattr__(self, name, value)
        _require_differentiable_loss(self)

    def _facts(self) -> dict[str, str]:
        counts = self.counts
        each = _repr.brief(counts) if is_traced(counts) else _repr.span(counts)
        known = {
            "smoothness": self.smoothness,
            "strong convexity": self.strong_convexity,
            "optimum": self.optimum,
        }
        return {
            "agents": str(self.n),
            "dimension": str(self.d),
            "samples": f"{each} an agent",
            "loss": _repr.brief(self.loss),
            "l2": _repr.brief(self.l2),
            **{label: _repr.brief(value) for label, value in known.items() if value is not None},
            "memory": _repr.memory(self),
        }

    @property
    def n(self) -> int:
        """The number of agents."""
        return self.sizes.shape[0] if self.agents is None else self.agents.shape[0]

    @property
    def d(self) -> int:
        """The number of parameters."""
        return self.layout.d

    @property
    def leaves(self) -> Layout:
        """The leaves of the parameters, for what is done layer by layer."""
        return self.layout

    @property
    def size(self) -> jax.Array:
        """The mean number of samples an agent has."""
        return self._of(self.sizes).mean(dtype=jnp.result_type(float))

    @property
    def counts(self) -> jax.Array:
        """The number of samples each agent has, [n], of the agents that `take` chose."""
        return self._of(self.sizes)

    @property
    def shares(self) -> jax.Array:
        """The weights n pᵢ, [n], of the agents that `take` chose."""
        return self._of(self.agent_weights)

    @property
    def tokens(self) -> int | None:
        """The number of tokens of a sample, ``loss.tokens``; None where the loss has no such."""
        return getattr(self.loss, "tokens", None)

    @property
    def most(self) -> int:
        """The largest number of samples, to which all agents' data are padded."""
        return jax.tree.leaves(self.data)[0].shape[1]

    @property
    def even(self) -> bool:
        """Whether all agents have the same number of samples; also known while tracing.

        It is false for problems that were padded to one length to be stacked.
        """
        return self.sample_weights is None

    @property
    def samples(self) -> jax.Array:
        """Component gradients an agent pays for one call of `grad`."""
        return self.size

    def grad(self, x: jax.Array, key: Any = None) -> jax.Array:
        """Return every agent's full local gradient n pᵢ ∇fᵢ(xᵢ), [n, d] -> [n, d]."""
        return self._gradient(x, self._of(self.data), self._of(self.sample_weights))

    def grad_at(self, x: jax.Array, indices: jax.Array) -> jax.Array:
        """Return n pᵢ times the mean gradient over chosen samples; ``indices`` is [n] or [n, b]."""
        return self._gradient(x, self._chosen(indices), None)

    def value(self, x: jax.Array, key: Any = None) -> jax.Array:
        """Return n pᵢ fᵢ at every agent's own row, [n, d] -> [n]; or rows, [n, m, d] -> [n, m]."""
        return self._value(x, self._of(self.data), self._of(self.sample_weights))

    def value_at(self, x: jax.Array, indices: jax.Array) -> jax.Array:
        """Return what `value` does over chosen samples, the same at all of an agent's rows."""
        return self._value(x, self._chosen(indices), None)

    def draw(self, key: jax.Array, batch: int) -> jax.Array:
        """Return the indices of samples that agents draw with replacement, [n, batch].

        They are uniform up to a relative bias of mᵢ/2³², and a function of the key.
        """
        sizes = self.counts[:, None].astype(jnp.uint32)
        random = jax.random.bits(key, (self.n, batch), jnp.uint32)
        return high_product(random, sizes).astype(jnp.int32)

    def permutation(self, key: jax.Array) -> jax.Array:
        """Return a random order of every agent's samples, [n, most]; padding comes last."""
        bits = jax.random.bits(key, (self.n, self.most), jnp.uint32) >> 1
        padding = jnp.arange(self.most, dtype=jnp.int32)[None] >= self.counts[:, None]
        return jnp.argsort(jnp.where(padding, jnp.uint32(2**32 - 1), bits), axis=1).astype(
            jnp.int32
        )

    def objective(self, x: jax.Array) -> jax.Array:
        """Return F(x) at one point [d]."""
        with jax.default_matmul_precision(self.precision):
            values = jax.vmap(self._mean_loss, (None, 0, 0))(
                x, self._of(self.data), self._of(self.sample_weights)
            )
        return jnp.mean(self.shares * (values + self.l2 / 2 * jnp.sum(x**2)))

    def start(self, params: Any = None) -> jax.Array:
        """Return x0 [n, d]: ``params`` (default: the problem's) for all agents, or rows of them.

        Raises:
            ValueError: the shapes are not those of the problem's parameters.
        """
        row = self.origin if params is None else self.layout.ravel(params)
        require(
            row.ndim == 1 or row.shape[0] == self.n,
            f"the parameters have {row.shape[0]} rows for {self.n} agents; give one set for all "
            "or one an agent.",
        )
        return jnp.broadcast_to(row, (self.n, self.d))

    def ravel(self, params: Any) -> jax.Array:
        """Return a parameter pytree as a row [d]."""
        return self.layout.ravel(params)

    def unravel(self, row: jax.Array) -> Any:
        """Return the parameter pytree of a row [d]."""
        return self.layout.unravel(row)

    def take(self, agents: jax.Array) -> "FiniteSum":
        """Return the problem of some agents [s]; `grad_at` gathers only the samples it needs.

        The whole problem's solution, optimum and strong convexity are not the part's: they are
        dropped.
        """
        return replace(
            self,
            agents=agents if self.agents is None else self.agents[agents],
            strong_convexity=None,
            solution=None,
            optimum=None,
        )

    def solved(self) -> "FiniteSum":
        """Return the problem with `solution` and `optimum` known, by Newton's method in float64.

        The objective has to be convex and have a minimizer. Do not call this inside jit.

        Raises:
            ValueError: no minimizer was found, as for separable data without l2.
        """
        x, value, found = solver.minimize(self)
        require(
            found,
            f"no minimizer was found, F = {value:.6g} at |x| = {np.linalg.norm(x):.3g}; there may "
            "be none: add l2 > 0, or scale the features.",
        )
        return replace(
            self,
            solution=jnp.asarray(x, self.origin.dtype),
            optimum=jnp.asarray(value, self.origin.dtype),
        )

    def _of(self, tree: Any) -> Any:
        """Return the rows of the agents that `take` chose."""
        return tree if self.agents is None else _agents.take(tree, self.agents)

    def _chosen(self, indices: jax.Array) -> Any:
        """Return chosen samples of every agent, leaves [n, b, ...]."""
        indices = indices.reshape(self.n, -1)
        if self.agents is None:  # agent by agent, so that devices read their own agents' samples
            return jax.vmap(_agents.take)(self.data, indices)
        who = self.agents[:, None]
        return jax.tree.map(lambda leaf: leaf[who, indices], self.data)

    def _value(self, x: jax.Array, data: Any, weights: Any) -> jax.Array:
        points = x.reshape(self.n, -1, self.d)
        with jax.default_matmul_precision(self.precision):
            f = jax.vmap(jax.vmap(self._mean_loss, (0, None, None)))(points, data, weights)
        f = f + self.l2 / 2 * jnp.sum(points**2, axis=-1)
        return (self.shares[:, None] * f).reshape(x.shape[:-1])

    def _gradient(self, x: jax.Array, data: Any, weights: Any) -> jax.Array:
        with jax.default_matmul_precision(self.precision):
            g = jax.vmap(jax.grad(self._mean_loss))(x, data, weights)
        shares = self.shares[:, None]
        return self.layout.map(lambda g, x: shares * (g + self.l2 * x), g, x)

    def _mean_loss(self, x: jax.Array, data: Any, weights: Any) -> jax.Array:
        losses = losses_of(self.loss, self.layout.unravel(x), data)
        return losses.mean() if weights is None else jnp.sum(weights * losses)


def losses_of(loss: Any, params: Any, samples: Any) -> jax.Array:
    """Return the losses of samples with leaves [b, ...], [b]: all at once where ``loss.many`` can.

    Args:
        loss: ``loss(params, sample)`` of one; it may have ``many(params, samples)`` of several.
        params: the parameters' pytree.
        samples: of one agent.
    """
    many = getattr(loss, "many", None)
    return jax.vmap(loss, (None, 0))(params, samples) if many is None else many(params, samples)


def gathered(problem: FiniteSum) -> FiniteSum:
    """Return the same problem with the rows that `take` chose as its data, and no indices."""
    names = ("data", "sample_weights", "sizes", "agent_weights")
    rows = {name: problem._of(getattr(problem, name)) for name in names}
    return replace(problem, **rows, agents=None)


def high_product(a: jax.Array, b: jax.Array) -> jax.Array:
    """Return ⌊a b / 2³²⌋ for uint32 a and b, exactly and without 64-bit integers.

    It maps random a to a range of b without a division (Lemire 2019, arXiv 1805.10941).
    """
    a_high, a_low, b_high, b_low = a >> 16, a & 0xFFFF, b >> 16, b & 0xFFFF
    upper = a_high * b_low + (a_low * b_low >> 16)
    lower = a_low * b_high + (upper & 0xFFFF)
    return a_high * b_high + (upper >> 16) + (lower >> 16)


def with_facts(problem: FiniteSum, smoothness: float, strong_convexity: float) -> FiniteSum:
    """Return a convex problem with its constants, and its solution where there is one."""
    dtype = problem.origin.dtype
    problem = replace(
        problem,
        smoothness=jnp.asarray(smoothness, dtype),
        strong_convexity=jnp.asarray(strong_convexity, dtype),
    )
    try:
        return problem.solved()
    except ValueError:  # separable data without l2: the facts stay None
        return problem


def _require_differentiable_loss(problem: FiniteSum) -> None:
    """Refuse a loss that is no floating scalar, or that some parameters do not enter."""
    params = problem.layout.unravel(cast_floats(problem.origin, problem.origin.dtype))
    sample = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape[2:], leaf.dtype), problem.data
    )
    _, value = traced("the loss of one sample", problem.loss, params, sample)
    shape = getattr(value, "shape", value)
    require(
        shape == (),
        f"the loss of one sample has shape {shape}; return a scalar, as FiniteSum takes the mean "
        "over samples itself.",
    )
    require(
        jnp.issubdtype(value.dtype, jnp.floating),
        f"the loss of one sample has dtype {value.dtype}; return a floating number, as others have "
        "no gradient.",
    )
    require_gradient("the loss", jax.grad(problem.loss), problem.layout, params, sample)
