"""One row a method: how to build it, what it needs, what it must reach. A new method adds one."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from reference import methods as reference

import jaxdopt as jd


def _tracker(state: Any) -> Any:
    return state.y.sum(axis=0) - state.g.sum(axis=0)


def _dual(state: Any) -> Any:
    return state.d.sum(axis=0)


@dataclasses.dataclass(frozen=True)
class Row:
    """What every test of a method needs to know about it."""

    method: Any  # the class
    reference: Callable[..., Any]  # the NumPy loop
    stepsize: float  # in units of 1/L: what its theorem allows on a lazy network
    exact: bool  # reaches the solution with heterogeneous data and a constant stepsize
    vectors: int = 1  # sent over a link in a step
    gossips: bool = True  # uses the network
    symmetric: bool = False  # needs a symmetric W
    invariants: tuple[Callable[[Any], Any], ...] = ()  # functions of the state that stay zero

    @property
    def name(self) -> str:
        return self.method.__name__

    def build(self, smoothness: Any) -> Any:
        """Return the method with its theorem's stepsize, for L-smooth agents."""
        return self.method(self.stepsize / jnp.asarray(smoothness))


ROWS = [
    Row(jd.GradientDescent, reference.gradient_descent, 1.0, exact=True, gossips=False),
    Row(jd.DGD, reference.dgd, 0.5, exact=False),
    Row(jd.DSGD, reference.dsgd, 0.5, exact=False),
    Row(
        jd.GradientTracking,
        reference.gradient_tracking,
        0.3,
        exact=True,
        vectors=2,
        invariants=(_tracker,),
    ),
    Row(jd.EXTRA, reference.extra, 0.6, exact=True, symmetric=True, invariants=(_dual,)),
    Row(
        jd.ExactDiffusion,
        reference.exact_diffusion,
        1.0,
        exact=True,
        symmetric=True,
        invariants=(_dual,),
    ),
]
