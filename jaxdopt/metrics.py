"""Metrics: functions ``(state, problem) -> array`` evaluated at every record.

`run` records the user's metrics and the `defaults` that the problem allows, or those named of them.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdopt import agents
from jaxdopt._checks import require
from jaxdopt._numbers import number
from jaxdopt._opaque import traceable
from jaxdopt._pytree import pytree, static
from jaxdopt.problems.finite_sum import losses_of
from jaxdopt.problems.samples import as_numbers

Metric = Callable[[Any, Any], Any]

SAMPLES = 256  # held-out samples whose losses are computed at once


def estimate(state: Any) -> Any:
    """Return the estimate [d]: the state's ``estimate``, or else the agents' mean."""
    own = getattr(state, "estimate", None)
    return agents.average(state.x) if own is None else own


def consensus_error(state: Any, problem: Any) -> jax.Array:
    """(1/n) Σᵢ |xᵢ − x̄|²; 0 where the server has the only estimate, as in federated methods."""
    if agents.copied(state):
        return jnp.zeros((), state.server.dtype)
    return agents.disagreement(state.x)


def loss(state: Any, problem: Any) -> jax.Array:
    """F at the estimate."""
    return problem.objective(estimate(state))


def gradient_norm_squared(state: Any, problem: Any) -> jax.Array:
    """|∇F|² at the estimate."""
    return jnp.sum(jax.grad(problem.objective)(estimate(state)) ** 2)


def prox_gradient_residual(state: Any, problem: Any) -> jax.Array:
    """|x − proxₜ(x − t ∇f(x))|² / t² at the estimate, f the smooth part: 0 where F is stationary.

    t = 1 / (L + ρ): L the problem's ``smoothness``, or 1 where it is not known, and ρ the
    regularizer's ``weak_convexity``, 0 if it is convex. For r = 0 this is |∇F|².
    """
    x = estimate(state)
    smoothness = getattr(problem, "smoothness", None)
    weak_convexity = getattr(problem.regularizer, "weak_convexity", 0.0)
    t = 1 / ((1.0 if smoothness is None else smoothness) + weak_convexity)
    after = problem.prox(x - t * jax.grad(problem.smooth_objective)(x), t)
    return jnp.sum(((x - after) / t) ** 2)


@pytree
class NormalMapResidual:
    """|F(z)|², F the normal map with its λ; see `normal_map_residual`.

    Args:
        prox_stepsize: λ > 0, the method's own.
    """

    prox_stepsize: Any

    def __call__(self, state: Any, problem: Any) -> jax.Array:
        """Return |F(z)|² at the state's z [d]."""
        require(
            hasattr(state, "z"),
            "normal_map_residual needs a method whose state has z, such as FedNMap; take "
            "prox_gradient_residual.",
        )
        z, lam = state.z, jnp.asarray(self.prox_stepsize, state.z.dtype)
        x = problem.prox(z, lam)
        return jnp.sum((jax.grad(problem.smooth_objective)(x) + (z - x) / lam) ** 2)


def normal_map_residual(prox_stepsize: Any) -> NormalMapResidual:
    """Return a metric: |∇f(x) + (z − x)/λ|², x = prox_{λr}(z), f the smooth part.

    It is 0 where x is stationary for f + r, and |x − prox_{λr}(x − λ∇f(x))| / λ is at most its root
    over 1 − λρ for a ρ-weakly convex r.

    Args:
        prox_stepsize: λ, the method's own.

    Raises:
        ValueError: λ is not one number above 0; or, when recorded, the state has no z.
    """
    return NormalMapResidual(number("prox_stepsize", prox_stepsize, above=0.0))


def sparsity(state: Any, problem: Any) -> jax.Array:
    """The share of coordinates that are exactly 0, over all agents' own estimates.

    It is not that of their mean, a coordinate of which is 0 only if it is 0 for all agents. If the
    state has an ``estimate``, it is the share of that.
    """
    own = getattr(state, "estimate", None)
    return jnp.mean((state.x if own is None else own) == 0)


def gap(state: Any, problem: Any) -> jax.Array:
    """F − F* at the estimate; a gap below about 1e-7 F requires float64."""
    return problem.objective(estimate(state)) - problem.optimum


def distance_squared(state: Any, problem: Any) -> jax.Array:
    """|x̄ − x*|² at the estimate x̄; add `consensus_error` for the mean of the agents' own."""
    return jnp.sum((estimate(state) - problem.solution) ** 2)


def residual(state: Any, problem: Any) -> jax.Array:
    """|F(z)|² at the estimate of a game's equilibrium, F its mean operator."""
    return jnp.sum(problem.operator(estimate(state)) ** 2)


def saddle_gap(state: Any, problem: Any) -> jax.Array:
    """Max f(x, ·) − min f(·, y) at the estimate (x, y) of the equilibrium of a game.

    For games that are strongly convex in x and strongly concave in y; of others it may be infinite,
    and what Newton's method finds then means nothing. See `Saddle.saddle_gap`.
    """
    return problem.saddle_gap(estimate(state))


def defaults(problem: Any) -> dict[str, Metric]:
    """Return the metrics that can be computed from what is known of a problem, by name.

    Always ``consensus_error``; with an objective, ``loss`` and ``gradient_norm_squared``, or
    ``prox_gradient_residual`` instead if there is a regularizer; with an optimum, ``gap``; with a
    solution, ``distance_squared``. A game has no objective: its are ``residual`` and, where its
    strong convexity is known, ``saddle_gap``.
    """
    known: dict[str, Metric] = {"consensus_error": consensus_error}
    regularizer = getattr(problem, "regularizer", None)
    if getattr(problem, "operator", None) is not None and regularizer is None:
        known["residual"] = residual
        if getattr(problem, "strong_convexity", None) is not None:
            known["saddle_gap"] = saddle_gap
    if getattr(problem, "objective", None) is not None:
        known["loss"] = loss
        if regularizer is None:
            known["gradient_norm_squared"] = gradient_norm_squared
        else:
            known["prox_gradient_residual"] = prox_gradient_residual
        if getattr(problem, "optimum", None) is not None:
            known["gap"] = gap
    if getattr(problem, "solution", None) is not None:
        known["distance_squared"] = distance_squared
    return known


@pytree
class Accuracy:
    """The share of held-out samples that a model classifies correctly; see `accuracy`.

    Args:
        features: [m, ...] held-out samples.
        labels: [m].
        predict: ``predict(params, features) -> scores`` [m] or [m, classes].
        each_agent: whether it is measured of every agent's model; static.
    """

    features: Any
    labels: Any
    predict: Any
    each_agent: bool = static()

    def __call__(self, state: Any, problem: Any) -> jax.Array:
        """Return the accuracy of the mean model, or [n] of every agent's own."""

        def of(row: jax.Array) -> jax.Array:
            unravel = getattr(problem, "unravel", lambda row: row)
            scores = self.predict(unravel(row), self.features)
            if scores.ndim == 1:
                return jnp.mean((scores > 0) == (self.labels > 0))
            return jnp.mean(scores.argmax(axis=-1).astype(self.labels.dtype) == self.labels)

        return jax.vmap(of)(state.x) if self.each_agent else of(estimate(state))


def accuracy(
    features: Any,
    labels: Any,
    *,
    predict: Callable[[Any, Any], Any] | None = None,
    each_agent: bool = False,
) -> Accuracy:
    """Return a metric: accuracy on held-out data, between 0 and 1.

    Args:
        features: [m, ...], one sample a row.
        labels: [m]; 0/1 or -1/+1 where a model gives one score, classes where it gives several.
        predict: ``predict(params, features) -> scores`` [m] or [m, classes]; by default the linear
            model ``features @ params``.
        each_agent: return the accuracy of every agent's model, [n], instead of the mean model's.

    Raises:
        ValueError: there is not one label for each row.
    """
    features, labels = (
        value if isinstance(value, jax.Array) else jnp.asarray(as_numbers(name, value))
        for name, value in (("features", features), ("labels", labels))
    )
    labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    require(
        np.ndim(labels) == 1 and len(features) == len(labels) > 0,
        f"features has shape {features.shape} and labels {labels.shape}; give one label a row.",
    )
    return Accuracy(features, labels, traceable(predict or _linear), each_agent)


def _linear(params: Any, features: Any) -> Any:
    return features.astype(params.dtype) @ params


@pytree
class HeldOut:
    """The mean loss of held-out samples; see `held_out`.

    Args:
        loss: ``loss(params, sample)``, of one sample.
        data: a pytree of arrays [m, ...].
        each_agent: whether it is measured of every agent's model; static.
    """

    loss: Any
    data: Any
    each_agent: bool = static()

    def __call__(self, state: Any, problem: Any) -> jax.Array:
        """Return the mean loss of the mean model, or [n] of every agent's own."""

        def of(row: jax.Array) -> jax.Array:
            params = getattr(problem, "unravel", lambda row: row)(row)
            m = len(jax.tree.leaves(self.data)[0])
            size = min(m, SAMPLES)
            even = m - m % size

            def total(samples: Any) -> jax.Array:
                return losses_of(self.loss, params, samples).sum()

            parts = jax.tree.map(
                lambda leaf: leaf[:even].reshape(-1, size, *leaf.shape[1:]), self.data
            )
            rest = jax.tree.map(lambda leaf: leaf[even:], self.data)
            sums = jax.lax.map(total, parts).sum()
            return (sums if even == m else sums + total(rest)) / m

        return jax.lax.map(of, state.x) if self.each_agent else of(estimate(state))


def held_out(loss: Callable[[Any, Any], Any], data: Any, *, each_agent: bool = False) -> HeldOut:
    """Return a metric: the mean loss (1/m) Σⱼ loss(x, zⱼ) of held-out samples, without l2.

    Of a model of next tokens it is in nats a token, and its exponential the perplexity.

    Args:
        loss: ``loss(params, sample)`` of one sample, such as a problem's own, ``problem.loss``.
        data: a pytree of arrays [m, ...], of the form of one agent's data.
        each_agent: return the loss of every agent's model, [n], instead of the mean model's.

    Raises:
        ValueError: arrays of no or of different numbers of samples, or a loss that is not callable.

    Example:
        >>> metric = jd.metrics.held_out(lambda w, s: (s["a"] @ w - s["b"]) ** 2, {"a": A, "b": b})
        >>> result = jd.run(
        ...     jd.DGD(0.1),
        ...     problem,
        ...     network,
        ...     problem.start(),
        ...     jax.random.key(0),
        ...     steps=9,
        ...     metrics={"held out": metric},
        ... )
        >>> result.history["held out"].shape
        (10,)
    """
    require(callable(loss), f"loss is {loss!r}; give loss(params, sample), such as problem.loss.")
    data = jax.tree.map(jnp.asarray, data)
    shapes = [leaf.shape for leaf in jax.tree.leaves(data)]
    require(
        len({shape[:1] for shape in shapes}) == 1 and shapes[0][:1] > (0,),
        f"the held-out arrays have shapes {shapes}; give all the same number of samples, [m, ...].",
    )
    return HeldOut(traceable(loss), data, each_agent)
