"""Eigenvalues of mixing matrices, on the host, and measured contraction of any network."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp

from jaxdopt._checks import count
from jaxdopt.networks.checks import require_network

DENSE = 2048  # agents up to which the spectrum is computed from the dense matrix


def eigenvalues(matrix: np.ndarray, symmetric: bool) -> np.ndarray:
    """Return all eigenvalues of a dense [n, n] matrix by decreasing modulus."""
    return by_modulus(np.linalg.eigvalsh(matrix) if symmetric else np.linalg.eigvals(matrix))


def by_modulus(values: np.ndarray) -> np.ndarray:
    """Return values sorted by decreasing modulus."""
    return values[np.argsort(-np.abs(values), kind="stable")]


def gap(values: np.ndarray) -> float:
    """Return 1 − |λ₂| from all eigenvalues, one of which is 1 and left out."""
    others = np.delete(values, np.argmin(np.abs(values - 1)))
    return float(1 - np.abs(others).max(initial=0))


def sparse_gap(matrix: sp.csr_array, symmetric: bool) -> float:
    """Return 1 − |λ₂| of a sparse W by Lanczos or Arnoldi iteration on W − 11ᵀ / n.

    With W 1 = 1 or 1ᵀ W = 1ᵀ this removes the eigenvalue 1 and keeps all others (Brauer 1952).
    """
    n = matrix.shape[0]
    away = sp.linalg.LinearOperator(
        shape=matrix.shape, matvec=lambda v: matrix @ v - v.mean(), dtype=float
    )
    solve = sp.linalg.eigsh if symmetric else sp.linalg.eigs
    start = np.cos(np.arange(n) ** 1.5)  # fixed, and not orthogonal to any smooth eigenvector
    try:
        value = solve(away, k=1, which="LM", v0=start, return_eigenvectors=False, ncv=min(n, 64))
    except sp.linalg.ArpackNoConvergence:
        raise ValueError(
            f"the spectral gap of this network of {n} agents did not converge, as it is tiny; "
            "compute it in closed form, or for a smaller network of the kind."
        ) from None
    return float(1 - np.abs(value[0]))


def contraction(network: Any, key: jax.Array | None = None, *, rounds: int = 500) -> float:
    """Return the measured factor by which a round of a network shrinks the disagreement.

    It is (|x_T − x̄_T| / |x₀ − x̄₀|)^{1/T} over T rounds from a random x₀ [n, 1], rescaled after each
    round. For one symmetric W it tends to |λ₂| = 1 − gap, and it takes the place of |λ₂| for
    networks that change with time. It is 0 if all agents agree exactly after some round.

    Args:
        network: any network with ``row`` or ``column``; of two parts, the row-stochastic one.
        key: from `jax.random.key`: random networks and x₀ are drawn from it.
        rounds: T.

    Raises:
        ValueError: this is no network, or T is not a positive integer.
    """
    require_network(network)
    count("rounds", rounds)
    key = jax.random.key(0) if key is None else key
    return float(_contraction(network, key, rounds))


@functools.partial(jax.jit, static_argnums=2)
def _contraction(network: Any, key: jax.Array, rounds: int) -> jax.Array:
    def shrink(x: jax.Array, k: jax.Array) -> tuple[jax.Array, jax.Array]:
        now = network.at(k, key)
        after = (now.column if now.kind == "column" else now.row) @ x
        after = after - after.mean(axis=0, keepdims=True)
        norm = jnp.linalg.norm(after)
        norm = jnp.where(norm > 100 * jnp.finfo(x.dtype).eps, norm, 0)
        return jnp.where(norm > 0, after / norm, 0), jnp.log(norm)

    x = jax.random.normal(key, (network.n, 1))
    x = x - x.mean(axis=0, keepdims=True)
    logs = jax.lax.scan(shrink, x / jnp.linalg.norm(x), jnp.arange(rounds))[1]
    return jnp.exp(logs.mean())
