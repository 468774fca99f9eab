"""The numbers of which theorems are functions, read from a problem and a network."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdopt._checks import require
from jaxdopt._leaves import cast_floats
from jaxdopt._numbers import number
from jaxdopt._wrapper import wrapped
from jaxdopt.networks.spectra import DENSE, gap
from jaxdopt.problems.finite_sum import FiniteSum
from jaxdopt.problems.oracles import GaussianNoise, Minibatch, finite_sum
from jaxdopt.problems.quadratic import Quadratic


@dataclasses.dataclass(frozen=True)
class Constants:
    """What theorems depend on, as floats or as NumPy arrays that broadcast; None is unknown.

    Attributes:
        L: every fᵢ is L-smooth: the largest Lᵢ, not that of F.
        mu: μ, such that F is μ-strongly convex; 0 if it is only convex.
        least: an m ≥ 0 such that every fᵢ is m-strongly convex; it is μ at most, and 0 if one agent
            alone cannot determine its own solution.
        sigma: σ, with σ² = (1/n) Σᵢ E|gᵢ − ∇fᵢ|² of the gradients that a step takes, at x* if they
            are of minibatches; 0 for full gradients.
        zeta: ζ, with ζ² = (1/n) Σᵢ |∇fᵢ(x*)|²: how far the agents' data differ.
        n: the number of agents.
        gap: 1 − |λ₂|, λ₂ the eigenvalue of W of largest modulus besides the 1 of the mean.
        smallest: λ_min(W) of a symmetric W.
        own: the smallest weight minᵢ wᵢᵢ that an agent gives itself.
        delay: of a tree, the most rounds from the root to an agent and back.

    Example:
        >>> import jaxdopt as jd
        >>> ring = jd.networks.metropolis(jd.graphs.ring(8))
        >>> problem = jd.problems.quadratic(8, 2, curvature_spread=0.0)
        >>> constants = jd.theory.Constants.of(problem, ring)
        >>> round(constants.gap, 3), round(constants.smallest, 3)
        (0.195, -0.333)
    """

    L: Any = None
    mu: Any = None
    least: Any = None
    sigma: Any = None
    zeta: Any = None
    n: Any = None
    gap: Any = None
    smallest: Any = None
    own: Any = None
    delay: Any = None

    def __post_init__(self) -> None:
        """Check the ranges of the numbers that are given."""
        ranges: dict[str, Any] = {name: {"minimum": 0.0} for name in vars(self)}
        ranges |= {"L": {"above": 0.0}, "n": {"minimum": 1.0}, "delay": {"minimum": 1.0}}
        ranges["gap"] = {"minimum": 0.0, "maximum": 1.0}
        ranges["smallest"] = ranges["own"] = {"minimum": -1.0, "maximum": 1.0}
        for name, value in vars(self).items():
            for one in np.ravel([] if value is None else value):
                number(name, float(one), **ranges[name])

    def __repr__(self) -> str:
        known = {name: value for name, value in vars(self).items() if value is not None}
        shown = (
            f"{name}={value:.3g}" if np.ndim(value) == 0 else f"{name}=array{np.shape(value)}"
            for name, value in known.items()
        )
        return f"Constants({', '.join(shown)})"

    @classmethod
    def of(cls, problem: Any, network: Any = None, *, draws: bool = False) -> "Constants":
        """Return the constants of a problem and a network; what they do not know stays None.

        Computed on the host, W's spectrum up to 2048 agents; do not call this inside jit.

        Args:
            problem: any.
            network: any; None, or one that changes with time, leaves what is W's unknown.
            draws: the method draws one sample a step from a finite sum itself, as `jd.DRR` does.
        """
        known = {"L": _known(problem, "smoothness"), "mu": _known(problem, "strong_convexity")}
        numbers = {**known, "n": int(problem.n), **_of_agents(problem, draws), **_of(network)}
        return cls(**numbers)


def _known(problem: Any, name: str) -> float | None:
    value = getattr(problem, name, None)
    return None if value is None else float(value)


def _of_agents(problem: Any, draws: bool) -> dict[str, Any]:
    """Return the least strong convexity of an agent, the noise and the heterogeneity."""
    plain, noise, batch = problem, 0.0, None
    while not isinstance(plain, Quadratic | FiniteSum) and wrapped(plain) is not None:
        if isinstance(plain, GaussianNoise):
            noise += float(plain.sigma) ** 2
        batch = plain.batch if isinstance(plain, Minibatch) else batch
        plain = wrapped(plain)
    least = None
    if isinstance(plain, Quadratic):
        least = max(float(np.linalg.eigvalsh(np.asarray(plain.hessians, float)).min()), 0.0)
    elif isinstance(plain, FiniteSum) and plain.strong_convexity is not None:
        least = float(plain.l2) * float(np.min(plain.shares))  # of convex losses
    if not isinstance(plain, Quadratic | FiniteSum):
        return {"least": None, "sigma": None, "zeta": None}
    if draws and batch is None:
        batch = finite_sum(problem)[1]
    solution = getattr(problem, "solution", None)
    if solution is None:
        return {"least": least, "sigma": None if batch else np.sqrt(noise), "zeta": None}
    with jax.enable_x64(True):
        exact = cast_floats(jax.tree.map(np.asarray, plain), np.float64)
        x = exact.start(np.asarray(solution, float))
        squares = float(jnp.mean(jnp.sum(exact.grad(x) ** 2, axis=1)))
        if isinstance(plain, FiniteSum):
            noise *= float(np.mean(np.asarray(plain.shares, float) ** 2))
        if batch:
            noise += float(_of_samples(exact, x)) / batch
    return {"least": least, "sigma": float(np.sqrt(noise)), "zeta": float(np.sqrt(squares))}


@jax.jit
def _of_samples(problem: Any, x: jax.Array) -> jax.Array:
    """Return (1/n) Σᵢ E|∇fᵢₛ(x) − ∇fᵢ(x)|² for one sample s drawn by every agent."""
    mean, counts = problem.grad(x), problem.counts

    def one(j: jax.Array) -> jax.Array:
        chosen = jnp.minimum(j, counts - 1)[:, None]
        square = jnp.sum((problem.grad_at(x, chosen) - mean) ** 2, axis=1)
        return jnp.where(j < counts, square / counts, 0)

    return jnp.mean(jnp.sum(jax.lax.map(one, jnp.arange(problem.most)), axis=0))


def _of(network: Any) -> dict[str, Any]:
    """Return what is known of a network's weights."""
    if network is None:
        return {}
    if hasattr(network, "own"):  # a timeline, whose weights are in tables
        return {"own": float(np.min(np.asarray(network.own)))}
    if network.varies or not hasattr(network, "spectral_gap"):
        return {}
    numbers = {"delay": float(network.delay)} if hasattr(network, "delay") else {}
    if not hasattr(network, "eigenvalues") or network.n > DENSE:
        return {"gap": float(np.clip(network.spectral_gap, 0, 1)), **numbers}
    values = network.eigenvalues
    numbers["gap"] = float(np.clip(gap(values), 0, 1))
    if network.symmetric:
        numbers["smallest"] = float(np.clip(np.real(values).min(), -1, 1))
    if hasattr(network, "csr"):
        numbers["own"] = float(np.min(network.csr().diagonal()))
    return numbers


def require_fixed(name: str, network: Any) -> None:
    """Refuse a network that changes with time."""
    require(
        not network.varies,
        f"the theorems on {name} are about one fixed W, and a {type(network).__name__} changes "
        "with time; give a fixed network such as jd.networks.metropolis(graph).",
    )
