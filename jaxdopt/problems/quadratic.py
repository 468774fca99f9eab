"""Quadratics whose condition number, heterogeneity and solution are given in advance."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdopt import _repr
from jaxdopt import agents as _agents
from jaxdopt._checks import count, require
from jaxdopt._numbers import number
from jaxdopt._pytree import pytree, replace
from jaxdopt.problems.layout import Layout


@pytree
class Quadratic:
    """fᵢ(x) = (x − x*)ᵀ Aᵢ (x − x*) / 2 + tᵢᵀ(x − x*) with Σᵢ tᵢ = 0, so that F(x*) = 0 is optimal.

    It is written in x − x*, so that gaps far below the rounding error of F are still exact.

    Args:
        hessians: Aᵢ, [n, d, d].
        tilts: tᵢ, the agents' gradients at x*, [n, d].
        center: x*, [d].
        solution: x*, [d]; None for a part of the agents.
        smoothness: L, the largest eigenvalue of any Aᵢ.
        strong_convexity: μ of F.
    """

    hessians: Any
    tilts: Any
    center: Any
    solution: Any
    smoothness: Any
    strong_convexity: Any

    def _facts(self) -> dict[str, str]:
        return {
            "agents": str(self.n),
            "dimension": str(self.d),
            "smoothness": _repr.brief(self.smoothness),
            "strong convexity": _repr.brief(self.strong_convexity),
            "memory": _repr.memory(self),
        }

    @property
    def n(self) -> int:
        """The number of agents."""
        return self.tilts.shape[0]

    @property
    def d(self) -> int:
        """The number of parameters."""
        return self.tilts.shape[1]

    @property
    def leaves(self) -> Layout:
        """The leaves of the parameters: one, x itself."""
        return Layout.of(jax.ShapeDtypeStruct((self.d,), self.center.dtype))

    @property
    def samples(self) -> int:
        """Component gradients an agent pays for one call of `grad`: 1."""
        return 1

    @property
    def size(self) -> int:
        """The number of samples of an agent: 1, its quadratic."""
        return 1

    @property
    def optimum(self) -> jax.Array | None:
        """F(x*) = 0, or None for a part of the agents."""
        return None if self.solution is None else jnp.zeros((), self.center.dtype)

    def grad(self, x: jax.Array, key: Any = None) -> jax.Array:
        """Return Aᵢ (xᵢ − x*) + tᵢ for every agent, [n, d] -> [n, d]."""
        away = x - self.center[None]
        return jnp.einsum("nij,nj->ni", self.hessians, away, precision="highest") + self.tilts

    def value(self, x: jax.Array, key: Any = None) -> jax.Array:
        """Return fᵢ at every agent's own row, [n, d] -> [n]; or at rows, [n, m, d] -> [n, m]."""
        away = x.reshape(self.n, -1, self.d) - self.center[None, None]
        slopes = jnp.einsum("nij,nmj->nmi", self.hessians, away, precision="highest") / 2
        return jnp.sum(away * (slopes + self.tilts[:, None]), axis=-1).reshape(x.shape[:-1])

    def objective(self, x: jax.Array) -> jax.Array:
        """Return F(x) at one point [d]."""
        away = x - self.center
        mean = self.hessians.mean(axis=0)
        curved = jnp.einsum("i,ij,j->", away, mean, away, precision="highest") / 2
        return curved if self.solution is not None else curved + self.tilts.mean(axis=0) @ away

    def start(self, params: Any = None) -> jax.Array:
        """Return x0 [n, d]: zeros, or ``params`` [d] or [n, d]."""
        row = jnp.zeros(self.d, self.center.dtype) if params is None else jnp.asarray(params)
        require(
            row.shape in ((self.d,), (self.n, self.d)),
            f"the parameters have shape {row.shape}; give ({self.d},) or ({self.n}, {self.d}).",
        )
        return jnp.broadcast_to(row, (self.n, self.d))

    def take(self, agents: jax.Array) -> "Quadratic":
        """Return the problem of some agents [s]."""
        hessians, tilts = _agents.take((self.hessians, self.tilts), agents)
        return replace(self, hessians=hessians, tilts=tilts, solution=None, strong_convexity=None)

    def solved(self) -> "Quadratic":
        """Return the problem written around its own solution, where F is set to 0.

        Do not call this inside jit on a part of the agents.

        Raises:
            ValueError: the mean Hessian of these agents is not positive definite.
        """
        if self.solution is not None:
            return self
        hessians, tilts = (np.asarray(part, np.float64) for part in (self.hessians, self.tilts))
        mean = hessians.mean(axis=0)
        least = float(np.linalg.eigvalsh(mean)[0])
        require(
            least > 0,
            f"the mean Hessian of these {self.n} agents has the eigenvalue {least:.3g}, and F has "
            "no minimizer; take other agents, or their problem unsolved.",
        )
        away = -np.linalg.solve(mean, tilts.mean(axis=0))
        tilts = tilts + hessians @ away
        dtype = self.center.dtype
        solution = jnp.asarray(np.asarray(self.center, np.float64) + away, dtype)
        return replace(
            self,
            tilts=jnp.asarray(tilts - tilts.mean(axis=0), dtype),
            center=solution,
            solution=solution,
            strong_convexity=jnp.asarray(least, dtype),
        )


def quadratic(
    agents: int,
    d: int,
    *,
    condition_number: float = 10.0,
    smoothness: float = 1.0,
    heterogeneity: float = 1.0,
    curvature_spread: float = 0.5,
    solution: Any = None,
    seed: int = 0,
) -> Quadratic:
    """Return random quadratics of given condition number, heterogeneity and solution.

    The mean Hessian A has eigenvalues spaced evenly in the logarithm from L / κ to L in a random
    basis; agent i has Aᵢ = A^½ (I + s Sᵢ) A^½ with Σᵢ Sᵢ = 0 and |Sᵢ| ≤ 1, so F keeps A exactly.

    Args:
        agents: n.
        d: the dimension.
        condition_number: κ ≥ 1 of F.
        smoothness: L, the largest eigenvalue of A.
        heterogeneity: ζ, with (1/n) Σᵢ |∇fᵢ(x*)|² = ζ² by a zero-sum tilt.
        curvature_spread: s in [0, 1). With 0 all agents have the same Hessian: the mean of their
            gradients is then ∇F at the mean of their estimates, however far apart these are, and
            the mean of a decentralized method does not depend on the network.
        solution: x* [d]; standard normal by default.
        seed: of all random choices.

    Raises:
        ValueError: a number out of its range, or a solution of another shape.
    """
    agents, d = count("agents", agents), count("d", d)
    number("condition_number", condition_number, minimum=1.0)
    number("smoothness", smoothness, above=0.0)
    number("heterogeneity", heterogeneity, minimum=0.0)
    require(0 <= curvature_spread < 1, f"curvature_spread is {curvature_spread}; give [0, 1).")
    random = np.random.default_rng(seed)
    center = random.standard_normal(d) if solution is None else np.asarray(solution, float)
    require(center.shape == (d,), f"solution has shape {center.shape}; give ({d},).")
    values = smoothness * np.logspace(-np.log10(condition_number), 0, d)
    values[-1] = smoothness
    basis = np.linalg.qr(random.standard_normal((d, d)))[0]
    root = basis * np.sqrt(values) @ basis.T
    spread = random.standard_normal((agents, d, d))
    spread = spread + spread.transpose(0, 2, 1)
    spread -= spread.mean(axis=0)
    spread *= curvature_spread / max(np.linalg.norm(spread, ord=2, axis=(1, 2)).max(), 1e-300)
    hessians = root @ (np.eye(d) + spread) @ root
    tilts = random.standard_normal((agents, d))
    tilts -= tilts.mean(axis=0)
    length = np.sqrt(np.mean(np.sum(tilts**2, axis=1)))
    tilts *= heterogeneity / length if agents > 1 else 0.0
    dtype = jnp.result_type(float)
    return Quadratic(
        jnp.asarray(hessians, dtype),
        jnp.asarray(tilts, dtype),
        jnp.asarray(center, dtype),
        jnp.asarray(center, dtype),
        jnp.asarray(np.linalg.norm(hessians, ord=2, axis=(1, 2)).max(), dtype),
        jnp.asarray(values[0], dtype),
    )
