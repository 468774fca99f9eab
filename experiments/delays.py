"""Methods that never wait, on quadratics: which stepsizes work, and where the iterates settle.

Eight agents on the exponential graph take full gradients. Their times follow patterns, from equal
ones to one agent 64 times slower, random times, and messages that take up to 16 gradients' time.
ADSGD's limit is to be compared with DGD's fixed point, AD-PSGD's with the minimizer of Σᵢ pᵢ fᵢ,
pᵢ agent i's share of all gradients.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
import xarray as xr

import jaxdopt as jd
from jaxdopt.networks.events import durations

FINE = tuple(2.0 ** (j / 3) for j in range(-10, 14))  # α L with quadratics; limits at the first
THEORY = {"ADSGD": jd.ADSGD, "AD-PSGD": jd.ADPSGD, "R-FAST": jd.RFAST}
SETTLED = 1e-2  # relative distance from a fixed point that counts as there
FIRST = np.arange(8) == 0
RANDOM = durations.Exponential(np.linspace(0.5, 2, 8))
PATTERNS: dict[str, tuple[Any, Any]] = {
    "equal": (np.ones(8), 0.5),
    **{f"one agent {slow}x": (np.where(FIRST, float(slow), 1.0), 0.5) for slow in (4, 16, 64)},
    "random": (durations.Stragglers(RANDOM, 0.05, 10.0), durations.LogNormal(0.5, 1.0)),
    "messages 4x": (np.ones(8), 3.5),
    "messages 16x": (np.ones(8), 15.5),
}
"""Seconds of gradients and of messages."""
SPEEDS = list(PATTERNS)[:4]


@functools.cache
def network(n: int) -> Any:
    """Return the weights on the exponential graph."""
    return jd.networks.metropolis(jd.graphs.exponential(n))


@functools.cache
def quadratics() -> Any:
    """Return heterogeneous quadratics, whose limits are known."""
    return jd.problems.quadratic(agents=8, d=6, heterogeneity=0.3, curvature_spread=0.5, seed=4)


def settled(name: str, kinds: Sequence[str], runs: int) -> xr.Dataset:
    """Return, over patterns, the ``largest`` α L that works, and limits at the least.

    It works if the error at the end is not above what it was at the start and after half of the
    run, and that of all smaller ones neither. ``distance`` is how far the mean estimate is from the
    solution, averaged over the last quarter; ``off`` how far all estimates end from DGD's fixed
    point, as a part of that one's distance; ``predicted`` the distance of the minimizer of
    Σᵢ pᵢ fᵢ with AD-PSGD's pᵢ.
    """
    world = quadratics()
    point = away() + np.asarray(world.solution)
    make = jd.networks.pairwise if name == "AD-PSGD" else jd.networks.timeline
    pairs = [PATTERNS[kind] for kind in kinds]
    made = [make(network(world.n), compute=c, delay=d, steps=runs) for c, d in pairs]
    result = jd.sweep(jd.run, over=("algorithm", "network"))(
        jax.vmap(THEORY[name])(jnp.array(FINE) / world.smoothness),
        world,
        jd.networks.stack(made),
        world.start() + world.solution + 1.0,
        jax.random.key(0),
        steps=runs,
        every=runs // 400,
        metrics={"mean": lambda state, _: state.x.mean(axis=0)},
    )
    history = result.history
    error = history["distance_squared"] + history["consensus_error"]
    works = error[..., -1] <= np.maximum(error[..., 0], error[..., 200])  # not where it is NaN
    count = np.cumprod(works, axis=0).sum(axis=0)
    mean = history["mean"][0, :, -100:].mean(axis=1)
    ends = np.linalg.norm(result.state.x[0] - point, axis=(1, 2))
    found = {
        "largest": np.where(count > 0, np.take(FINE, count - 1), np.nan),
        "distance": np.linalg.norm(mean - world.solution, axis=1),
        "off": ends / np.linalg.norm(point - world.solution),
    }
    if name == "AD-PSGD":
        found["predicted"] = np.array([weighted_minimizer(each) for each in made])
    return xr.Dataset({key: ("pattern", v) for key, v in found.items()}, {"pattern": list(kinds)})


def weighted_minimizer(pairs: Any) -> float:
    """Return the distance from the solution of the minimizer of Σᵢ pᵢ fᵢ, pᵢ the share of i's."""
    world, agents = quadratics(), np.asarray(pairs.agents)
    share = np.bincount(agents[agents < world.n], minlength=world.n)
    hessian = np.tensordot(share, np.asarray(world.hessians), 1)
    return float(np.linalg.norm(np.linalg.solve(hessian, share @ np.asarray(world.tilts))))


@functools.cache
def away() -> np.ndarray:
    """Return DGD's fixed point at the least α, (I − W) X + α ∇F(X) = 0, less x*."""
    world = quadratics()
    n, d, stepsize = world.n, world.d, FINE[0] / float(world.smoothness)
    system = np.kron(np.eye(n) - np.asarray(network(n).matrix(), float), np.eye(d))
    system += stepsize * scipy.linalg.block_diag(*np.asarray(world.hessians))
    return np.linalg.solve(system, -stepsize * np.asarray(world.tilts).ravel()).reshape(n, d)


def safe_stepsize() -> float:
    """Return α L that works for ADSGD whatever the delays: α = 2 minᵢ wᵢᵢ / (L + minᵢ μᵢ)."""
    world = quadratics()
    timeline = jd.networks.timeline(network(world.n), compute=1.0, delay=0.0, steps=world.n)
    bound = jd.theory.of(jd.ADSGD(0.1), world, timeline).stepsize
    return float(bound) * float(world.smoothness)
