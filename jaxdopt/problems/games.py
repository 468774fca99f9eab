"""Games for two players: bilinear ones whose equilibrium is known, and robust least squares."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdopt._checks import count, require
from jaxdopt._numbers import number
from jaxdopt._pytree import pytree, replace
from jaxdopt.problems.saddle import Saddle
from jaxdopt.problems.samples import as_floating, distribute, read


@pytree
class Bilinear:
    """xᵀBy + (μ/2)(|x|² − |y|²) + aᵀx − bᵀy for a sample (B, a, b)."""

    strong_convexity: Any

    def __call__(self, x: jax.Array, y: jax.Array, sample: Any) -> jax.Array:
        """Return f(x, y) of one sample."""
        coupling, a, b = sample
        return x @ (coupling @ y) + self.strong_convexity / 2 * (x @ x - y @ y) + a @ x - b @ y


def bilinear(
    agents: int,
    d: int,
    *,
    strong_convexity: float = 0.1,
    smoothness: float = 1.0,
    heterogeneity: float = 1.0,
    solution: Any = None,
    seed: int = 0,
) -> Saddle:
    """Return random games fᵢ(x, y) = xᵀBᵢy + (μ/2)(|x|² − |y|²) + aᵢᵀx − bᵢᵀy with x, y in ℝᵈ.

    The operators Fᵢ(z) = (μx + Bᵢy + aᵢ, μy − Bᵢᵀx + bᵢ) turn z and pull it in only by μ. Bᵢ has
    Gaussian entries and the norm that makes Fᵢ L-Lipschitz; the linear terms are such that z* = (x,
    y) is the equilibrium, with (1/n) Σᵢ |Fᵢ(z*)|² = ζ².

    Args:
        agents: n.
        d: the dimension of each player; that of the problem is 2d.
        strong_convexity: μ ≥ 0; with 0 the game is only convex-concave.
        smoothness: L > μ of every Fᵢ.
        heterogeneity: ζ ≥ 0; 0 for one agent.
        solution: z* [2d]; standard normal by default.
        seed: of all random choices.

    Raises:
        ValueError: a number out of its range, or a solution of another shape.
    """
    agents, d = count("agents", agents), count("d", d)
    number("strong_convexity", strong_convexity, minimum=0.0)
    number("smoothness", smoothness, above=strong_convexity)
    number("heterogeneity", heterogeneity, minimum=0.0)
    random = np.random.default_rng(seed)
    center = random.standard_normal(2 * d) if solution is None else np.asarray(solution, float)
    require(center.shape == (2 * d,), f"solution has shape {center.shape}; give ({2 * d},).")
    coupling = random.standard_normal((agents, d, d))
    norms = np.linalg.norm(coupling, ord=2, axis=(1, 2), keepdims=True)
    coupling *= np.sqrt(smoothness**2 - strong_convexity**2) / norms
    away = random.standard_normal((agents, 2 * d))  # Fᵢ(z*)
    away -= away.mean(axis=0)
    length = np.sqrt(np.mean(np.sum(away**2, axis=1)))
    away *= heterogeneity / length if agents > 1 else 0.0
    x, y = center[:d], center[d:]
    a = away[:, :d] - strong_convexity * x - coupling @ y
    b = away[:, d:] - strong_convexity * y + np.einsum("nij,i->nj", coupling, x)
    dtype = jnp.result_type(float)
    data = tuple(jnp.asarray(part[:, None], dtype) for part in (coupling, a, b))
    zero = jnp.zeros(d, dtype)
    game = Saddle(Bilinear(float(strong_convexity)), data, (zero, zero))
    return _known(game, center, smoothness, strong_convexity)


@pytree
class RobustSquares:
    """((a + y)ᵀx − b)²/2 + (λ/2)|x|² − (ρ/2)|y|² for a sample (a, b)."""

    l2: Any
    penalty: Any

    def __call__(self, x: jax.Array, y: jax.Array, sample: Any) -> jax.Array:
        """Return f(x, y) of one sample."""
        a, b = sample
        return ((a + y) @ x - b) ** 2 / 2 + self.l2 / 2 * (x @ x) - self.penalty / 2 * (y @ y)


def robust_least_squares(
    features: Any,
    labels: Any,
    *,
    penalty: float,
    agents: int | None = None,
    partition: Any = None,
    l2: float = 0.0,
) -> Saddle:
    """Return min over x, max over y of the mean of ((a + y)ᵀx − b)²/2 + (λ/2)|x|² − (ρ/2)|y|².

    y is an error of all features that an adversary chooses, at a price. The game is convex in x,
    and concave in y where |x|² ≤ ρ: if the solution that is found is not there, ρ is too small. It
    is not quadratic, and its operator is Lipschitz on bounded sets only: L and μ are not given.

    Args:
        features: [m, p] pooled; [n, m, p] or a list of n arrays [mᵢ, p] already split.
        labels: [m]; [n, m] or a list of n arrays [mᵢ].
        penalty: ρ > 0.
        agents: n, for pooled data.
        partition: how pooled data are split: "iid" by default, or what `jd.partition.split` takes.
        l2: λ ≥ 0.

    Raises:
        ValueError: ρ is too small, there is no equilibrium, and what `least_squares` refuses.
    """
    penalty, l2 = number("penalty", penalty, above=0.0), number("l2", l2, minimum=0.0)
    features, labels = read(features, labels)
    features, labels = distribute(features, labels, agents=agents, partition=partition)
    features, labels = as_floating(features), as_floating(labels)
    zero = jnp.zeros(np.shape(features[0])[-1], np.result_type(features[0]))
    game = Saddle(RobustSquares(l2, penalty), (features, labels), (zero, zero)).solved()
    x = game.solution[: game.split]
    require(
        float(x @ x) < penalty,
        f"penalty is {penalty:g} and the solution has |x|² = {float(x @ x):.3g}, where the game is "
        "not concave in y; give a larger penalty or l2.",
    )
    return game


def _known(game: Saddle, solution: np.ndarray, smoothness: float, convexity: float) -> Saddle:
    dtype = game.problem.origin.dtype
    facts = {"solution": solution, "smoothness": smoothness}
    if convexity > 0:
        facts["strong_convexity"] = convexity
    known = {name: jnp.asarray(value, dtype) for name, value in facts.items()}
    return replace(game, problem=replace(game.problem, **known))
