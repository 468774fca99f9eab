"""What a run measures where some agents lie: honest agents' rows, and their part of the problem.

Honest is who never lies in a network's whole pattern, its ``honest`` [n] (see
`jaxdopt.networks.robust`). Metrics get the state with their rows alone, and the problem of these
agents, F(x) = Σ pᵢ fᵢ(x) / Σ pᵢ over honest ones, with its own solution.
"""

import contextlib
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdopt import _wrapper, agents, roles
from jaxdopt._leaves import is_traced
from jaxdopt._pytree import pytree, replace, static
from jaxdopt._wrapper import layers, rewrap, wrapped
from jaxdopt.problems.problem import Part, divides
from jaxdopt.programs import noted, once


@pytree
class Measured(_wrapper.Wrapper):
    """A problem with the part of it that metrics see; it is otherwise the problem itself.

    Args:
        problem: all agents'.
        part: the honest agents'.
    """

    problem: Any
    part: Any
    wraps = "problem"


def measured(problem: Any, network: Any) -> Any:
    """Return a problem with the part that metrics see, or the problem itself if nobody lies.

    The part is solved on the host if the problem is, once for the same object and honest agents;
    not where numbers are traced, and not where there is no minimizer.
    """
    mask = roles.honest(network)
    if mask is None or any(isinstance(layer, Measured) for layer in layers(problem)):
        return problem
    return once(_measured, noted(problem), noted(_agents(np.flatnonzero(mask).tobytes())))


@pytree
class _Agents:
    """Some agents, as an object that is the same whenever they are."""

    numbers: bytes = static()


@functools.lru_cache(maxsize=256)
def _agents(numbers: bytes) -> _Agents:
    return _Agents(numbers)


def told_apart(problem: Any) -> tuple[Any, Any]:
    """Return a problem as methods see it, and as metrics do."""
    return (wrapped(problem), problem.part) if isinstance(problem, Measured) else (problem, problem)


def _measured(problem: Any, those: _Agents) -> Measured:
    agents = np.frombuffer(those.numbers, np.intp)

    def part() -> Any:
        return _weighed(problem.take(agents)) if divides(problem) else Part(problem, agents)

    if is_traced(problem):
        return Measured(problem, part())
    with jax.ensure_compile_time_eval():
        found = part()
        if getattr(problem, "optimum", None) is not None:
            with contextlib.suppress(ValueError):  # of honest data without a minimizer
                found = found.solved()
    return Measured(problem, found)


def _weighed(part: Any) -> Any:
    """Return a part of a problem whose weights pᵢ sum to 1 again, a finite sum's."""
    inner = wrapped(part)
    if inner is not None:
        return rewrap(part, _weighed(inner))
    if not hasattr(part, "agent_weights"):
        return part
    share = jnp.mean(part.shares)
    bound = None if part.smoothness is None else part.smoothness / share
    return replace(part, agent_weights=part.agent_weights / share, smoothness=bound)


def seen(state: Any, network: Any) -> Any:
    """Return a state as metrics see it: honest agents' rows alone, or all of a server's."""
    mask = roles.honest(network)
    if mask is None or agents.copied(state):
        return state
    return roles.rows_of(state, np.flatnonzero(mask), network.n)
