"""One row a method: how to build it, what it needs, what it must reach. A new method adds one."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from reference import baselines
from reference import methods as reference

import jaxdopt as jd


def _tracker(state: Any) -> Any:
    return state.y.sum(axis=0) - state.g.sum(axis=0)


def _estimates(state: Any) -> Any:
    return state.y.sum(axis=0) - state.v.sum(axis=0)


def _dual(state: Any) -> Any:
    return state.d.sum(axis=0)


def _edges(state: Any) -> Any:
    return state.duals.sum(axis=(0, 1))


@dataclasses.dataclass(frozen=True)
class Row:
    """What every test of a method needs to know about it."""

    method: Any  # the class
    reference: Callable[..., Any]  # the NumPy loop
    stepsize: float  # in units of 1/L: what its theorem allows on a lazy network
    exact: bool  # reaches the solution with heterogeneous data and a constant stepsize
    vectors: int = 1  # sent over a link in a step
    exchanges: int = 1  # rounds of communication in a step
    gossips: bool = True  # uses the network
    weighs: bool = True  # uses its weights, not only its links
    needs: str = ""  # what it says of a directed W, if it refuses that
    samples: bool = False  # draws its samples from a finite sum itself
    shrinks: float = 1.0  # its stepsize on a regular graph, where all agree, over the one given
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
    Row(jd.DIGing, baselines.diging, 0.2, exact=True, vectors=2, invariants=(_tracker,)),
    Row(
        jd.ATCGT,
        baselines.atc_gradient_tracking,
        0.3,
        exact=True,
        vectors=2,
        exchanges=2,
        invariants=(_tracker,),
    ),
    Row(jd.EXTRA, reference.extra, 0.6, exact=True, needs="symmetric", invariants=(_dual,)),
    Row(jd.PGEXTRA, baselines.pg_extra, 0.6, exact=True, needs="symmetric", invariants=(_dual,)),
    Row(
        jd.ExactDiffusion,
        reference.exact_diffusion,
        1.0,
        exact=True,
        needs="symmetric",
        invariants=(_dual,),
    ),
    Row(jd.NIDS, baselines.nids, 1.0, exact=True, needs="symmetric", invariants=(_dual,)),
    Row(
        jd.LinearizedADMM,
        baselines.linearized_admm,
        1.0,
        exact=True,
        weighs=False,
        needs="hear back",
        shrinks=0.5,
        invariants=(_edges,),
    ),
    Row(
        jd.GTSAGA,
        baselines.gt_saga,
        0.2,
        exact=True,
        vectors=2,
        samples=True,
        invariants=(_estimates,),
    ),
    Row(
        jd.GTVR,
        baselines.gt_svrg,
        0.2,
        exact=True,
        vectors=2,
        samples=True,
        invariants=(_estimates,),
    ),
    Row(jd.SGD, baselines.sgd, 0.5, exact=False, gossips=False, samples=True),
    Row(jd.CentralizedRR, baselines.centralized_rr, 0.5, exact=False, gossips=False, samples=True),
]
