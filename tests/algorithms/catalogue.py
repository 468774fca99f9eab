"""One row a method: how to build it, what it needs, what it must reach. A new method adds one."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import optax
from reference import (
    asynchronous,
    baselines,
    black_boxes,
    composite,
    compressed,
    directed,
    error_feedback,
    federated,
    games,
    outer_loops,
    reshuffling,
    sketches,
    surrogates,
    trees,
)
from reference import methods as reference

import jaxdopt as jd


def _tracker(state: Any) -> Any:
    return state.y.sum(axis=0) - state.g.sum(axis=0)


def _estimates(state: Any) -> Any:
    return state.y.sum(axis=0) - state.v.sum(axis=0)


def _dual(state: Any) -> Any:
    return state.d.sum(axis=0)


def _pushed(state: Any) -> Any:
    return state.s.sum(axis=0) - state.g.sum(axis=0)


def _weights(state: Any) -> Any:
    return state.w.sum(axis=0) - len(state.w)


def _edges(state: Any) -> Any:
    return state.duals.sum(axis=(0, 1))


# Kinds of networks: "undirected"; "directed", of two parts; "tree"; "trees" down and up; "server",
# some of whose clients take part; "full", a server with all; and those of methods without rounds:
EVENTS = ("timeline", "directed timeline", "pairs", "each", "ticks", "buffer")


@dataclasses.dataclass(frozen=True, eq=False)
class Row:
    """What every test of a method needs to know about it."""

    method: Any  # the class
    reference: Any  # the NumPy loop
    stepsize: float | None  # in units of 1/L: what its theorem allows; None if it has none
    exact: bool | None  # reaches the solution with heterogeneous data and a constant stepsize;
    # None if its agents are to have the same function
    network: str = "undirected"  # or a kind that the comment above names
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # beside the stepsize
    quiet: Mapping[str, Any] | None = None  # options without random numbers, if others
    parent: Mapping[str, Any] | None = None  # options that make it a plain method, if others
    numbers: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # of the loop; see `twin`
    vectors: float = 1  # sent over a link in a step
    scalars: float = 0  # single numbers sent over a link in a step
    told: float = 0  # bits that each agent has told all others in a step
    bits: Callable[[int], float] = lambda d: 32 * d  # of a vector [d] as it is sent
    calls: int = 1  # for a gradient, or a value, in a step, or a local step
    values: bool = False  # asks for values, and for no gradients
    exchanges: int = 1  # rounds of communication in a step
    turns: int = 1  # steps from one exchange to the next
    gossips: bool = True  # uses the network
    weighs: bool = True  # uses its weights, not only its links
    needs: str = ""  # what it says of a network, directed or no tree, that it refuses
    samples: bool = False  # draws its samples from a finite sum itself
    local: bool = False  # asks for gradients where its local steps have led, not only at x
    varies: bool = False  # what it sends depends on a coin
    alike: bool = True  # what agents do does not depend on their numbers
    descends: bool = True  # is a form of gradient descent, at least with one agent
    delays: bool = False  # what agents do takes several steps to reach all
    shrinks: float = 1.0  # its stepsize on a regular graph, where all agree, over the one given
    invariants: tuple[Callable[[Any], Any], ...] = ()  # functions of the state that stay zero

    @property
    def name(self) -> str:
        return self.method.__name__

    @property
    def events(self) -> bool:
        """Whether its steps are events of a simulated clock, and no rounds of all agents."""
        return self.network in EVENTS

    @property
    def first(self) -> bool:
        """Whether it stands for all methods of its kind where the quick tests ask one of each."""
        return self is next(row for row in ROWS if row.kind == self.kind)

    @property
    def kind(self) -> tuple[Any, ...]:
        """What decides on how tests ask."""
        return self.network, self.samples, self.local, self.values, self.chaotic

    @property
    def chaotic(self) -> bool:
        """Whether rounding errors grow: where one is largest it scales a whole dithered message."""
        return isinstance(self.options.get("compressor"), jd.compressors.Dither)

    def make(self, stepsize: Any, options: Mapping[str, Any] | None = None) -> Any:
        """Return the method with a stepsize, and its own options or others."""
        own = {} if self.stepsize is None else {"stepsize": stepsize}
        return self.method(**own, **(self.options if options is None else options))

    def build(self, smoothness: Any, options: Mapping[str, Any] | None = None) -> Any:
        """Return the method with its theorem's stepsize, for L-smooth agents."""
        return self.make((self.stepsize or 0.0) / np.asarray(smoothness), options)

    def twin(self, stepsize: Any) -> Any:
        """Return the method with the loop's numbers, where they are called the same in both."""
        fields = {field.name for field in dataclasses.fields(self.method)}
        shared = {name: value for name, value in self.numbers.items() if name in fields}
        return self.make(stepsize, {**self.options, **shared})


PLAIN = [
    Row(jd.GradientDescent, reference.gradient_descent, 1.0, exact=True, gossips=False),
    Row(jd.DGD, reference.dgd, 0.5, exact=False),
    Row(jd.DSGD, reference.dsgd, 0.5, exact=False),
    Row(jd.MoNNA, reference.monna, 0.5, exact=False, parent={"beta": 0.0}),
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
        needs="symmetric",
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
        jd.GTSVRG,
        baselines.gt_svrg,
        0.2,
        exact=True,
        numbers={"period": 7},
        vectors=2,
        samples=True,
        invariants=(_estimates,),
    ),
    Row(
        jd.GTVR,
        baselines.gt_vr,
        0.2,
        exact=True,
        options={"probability": 0.05},
        quiet={"probability": 1.0},
        numbers={"probability": 0.2},
        vectors=2,
        exchanges=2,
        samples=True,
        invariants=(_estimates,),
    ),
    Row(jd.SGD, baselines.sgd, 0.5, exact=False, gossips=False, samples=True),
    Row(
        jd.CentralizedRR, reshuffling.centralized_rr, 0.5, exact=False, gossips=False, samples=True
    ),
]
RESHUFFLING = [
    Row(jd.DRR, reshuffling.d_rr, 0.5, exact=False, samples=True),
    Row(
        jd.GTRR,
        reshuffling.gt_rr,
        0.2,
        exact=False,
        vectors=2,
        exchanges=2,
        samples=True,
        invariants=(_tracker,),
    ),
    Row(
        jd.EDRR,
        reshuffling.ed_rr,
        0.5,
        exact=False,
        samples=True,
        needs="symmetric",
        invariants=(_dual,),
    ),
]


def _compressed(method: Any, loop: Any, stepsize: float, compressor: Any, **more: Any) -> Row:
    """A row of a method that compresses; its loop takes gamma and alpha, no defaults."""
    numbers = {"consensus_stepsize": 0.4} | ({"alpha": 0.5} if hasattr(method, "alpha") else {})
    top = jd.compressors.TopK(2)
    return Row(
        method,
        loop,
        stepsize,
        options={"compressor": compressor},
        quiet={"compressor": top, **numbers},
        parent={"compressor": jd.compressors.Identity()},
        numbers=numbers | more.pop("numbers", {}),
        bits=compressor.bits,
        **more,
    )


DITHER = jd.compressors.Dither(bits=4)
TOP = jd.compressors.TopK(2)

COMPRESSED = [
    _compressed(
        jd.CEDAS,
        compressed.cedas,
        0.5,
        DITHER,
        exact=True,
        needs="symmetric",
        invariants=(_dual,),
    ),
    _compressed(
        jd.LEAD,
        compressed.lead,
        0.5,
        DITHER,
        exact=True,
        needs="symmetric",
        invariants=(_dual,),
    ),
    _compressed(
        jd.CGT,
        compressed.cgt,
        0.1,
        DITHER,
        exact=True,
        vectors=2,
        invariants=(_tracker,),
    ),
    _compressed(
        jd.CHOCOSGD,
        compressed.choco_sgd,
        0.3,
        TOP,
        exact=False,
        numbers={"order": "before"},
    ),
    _compressed(
        jd.BEER,
        compressed.beer,
        0.1,
        TOP,
        exact=True,
        vectors=2,
        invariants=(_tracker,),
    ),
    _compressed(jd.DeepSqueeze, compressed.deep_squeeze, 0.1, TOP, exact=False),
]

DIRECTED = [
    Row(
        jd.PushSum,
        directed.push_sum,
        None,
        exact=True,
        network="directed",
        scalars=1,
        invariants=(_weights,),
    ),
    Row(
        jd.SGP,
        directed.sgp,
        0.3,
        exact=False,
        network="directed",
        scalars=1,
        invariants=(_weights,),
    ),
    Row(
        jd.PushDIGing,
        directed.push_diging,
        0.1,
        exact=True,
        network="directed",
        vectors=2,
        scalars=1,
        invariants=(_tracker, _weights),
    ),
    Row(
        jd.PushPull,
        directed.push_pull,
        0.1,
        exact=True,
        network="directed",
        vectors=2,
        invariants=(_tracker,),
    ),
    Row(
        jd.AB,
        directed.ab,
        0.1,
        exact=True,
        network="directed",
        vectors=2,
        invariants=(_tracker,),
    ),
    Row(
        jd.APD,
        directed.apd,
        0.1,
        exact=True,
        network="directed",
        vectors=3,
        scalars=1,
        descends=False,
        invariants=(_pushed, _weights),
    ),
    Row(
        jd.APDSC,
        directed.apd_sc,
        0.1,
        exact=True,
        options={"strong_convexity": 0.1},
        numbers={"mu": 0.1},
        network="directed",
        vectors=3,
        scalars=1,
        descends=False,
        invariants=(_pushed, _weights),
    ),
    _compressed(
        jd.CPP,
        directed.cpp,
        0.1,
        DITHER,
        exact=True,
        network="directed",
        vectors=2,
        invariants=(_tracker,),
    ),
    _compressed(
        jd.BCPP,
        directed.bcpp,
        0.5,
        DITHER,
        exact=True,
        network="directed",
        vectors=2 / 6,
        exchanges=1 / 6,
        alike=False,
        delays=True,
        invariants=(_tracker,),
    ),
]


TREES = [
    Row(
        jd.STPP,
        trees.stpp,
        0.04,
        exact=True,
        network="trees",
        vectors=2,
        needs="needs spanning trees",
        delays=True,
        invariants=(_tracker,),
    ),
    Row(
        jd.RelaySGD,
        trees.relay_sgd,
        0.3,
        exact=True,
        network="tree",
        scalars=1,
        delays=True,
        needs="needs spanning trees",
    ),
]


def _in_flight(state: Any) -> Any:
    return state.w.sum() + state.flight[..., -1].sum() - len(state.w)


@functools.wraps(asynchronous.osgp)
def _osgp(gradient: Any, row: Any, column: Any, x0: Any, stepsize: Any, steps: int, **more: Any):
    return asynchronous.osgp(gradient, column, x0, stepsize, steps, **more)[0]


LOCAL = {"options": {"local_steps": 3}, "parent": {"local_steps": 1}, "local": True}
TWO = {"local_steps": 2}

OVERLAPPING = [
    Row(jd.LocalDSGD, asynchronous.local_dsgd, 0.2, exact=False, numbers=TWO, **LOCAL),
    Row(jd.OLDSGD, asynchronous.oldsgd, 0.1, exact=False, numbers=TWO, **LOCAL),
    Row(
        jd.NoLoCo,
        outer_loops.noloco,
        0.1,
        exact=False,
        options={"local_steps": 3},
        parent={"local_steps": 1, "momentum": 0.0, "server_stepsize": 1.0},
        numbers={**TWO, "server_stepsize": 0.6, "momentum": 0.4, "gamma": 0.9},
        vectors=2,
        local=True,
    ),
    Row(
        jd.OSGP,
        _osgp,
        0.2,
        exact=False,
        network="directed",
        options={"overlap": 2},
        numbers={"overlap": 2},
        scalars=1,
        delays=True,
        invariants=(_in_flight,),
    ),
]


def _federated(method: Any, loop: Any, stepsize: float, exact: bool, **more: Any) -> Row:
    """A row of a server's clients, with several local steps where the method takes them."""
    numbers = {"server_stepsize": 0.9, **TWO, **more.pop("numbers", {})}
    return Row(
        method,
        loop,
        stepsize,
        exact=exact,
        network="server",
        gossips=False,
        numbers=numbers,
        **{**LOCAL, **more},
    )


def _memories(state: Any) -> Any:
    return state.h.mean(axis=0) - state.y


def _variates(state: Any) -> Any:
    return state.own.mean(axis=0) - state.c


def _updates(state: Any) -> Any:
    return state.updates.mean(axis=0) - state.mean


def _sums(state: Any) -> Any:
    return state.h.sum(axis=0) - state.y


def _composite(method: Any, loop: Any, stepsize: float, exact: bool, **more: Any) -> Row:
    """A row of all clients in every round, here without a regularizer."""
    options = more.pop("options", {})

    @functools.wraps(loop)
    def smooth(gradient: Any, there: Any, x0: Any, stepsize: Any, steps: int, **numbers: Any):
        n = np.shape(there)[1]
        return loop(gradient, lambda z, t: z, x0, stepsize, steps, n=n, **numbers)

    return Row(
        method,
        smooth,
        stepsize,
        numbers={"server_stepsize": 0.9, **TWO, **options},
        exact=exact,
        network="full",
        gossips=False,
        options={**options, "local_steps": 3},
        parent={**options, "local_steps": 1},
        local=True,
        **more,
    )


def _corrections(state: Any) -> Any:
    return (state.d if hasattr(state, "d") else state.c).sum(axis=0)


NO_OPTIMIZER = {"server": None}  # tests/algorithms/test_outer_loops.py has them


def _outer(method: Any, loop: Any, stepsize: float, **more: Any) -> Row:
    """A row of an outer loop without optimizers; its parent averages after a local step."""
    options = {**NO_OPTIMIZER, **more.pop("options", {})}
    more.setdefault("parent", {**options, "local_steps": 1, "server_stepsize": 1.0})
    return _federated(
        method, loop, stepsize, exact=False, options={**options, "local_steps": 3}, **more
    )


def _workers(loop: Any) -> Any:
    """A loop that returns the slow model and where the workers are: the latter."""

    @functools.wraps(loop)
    def run(*given: Any, **numbers: Any) -> Any:
        return loop(*given, **numbers)[1]

    return run


FEDERATED = [
    _federated(jd.FedAvg, federated.fed_avg, 0.1, exact=False),
    _outer(jd.DiLoCo, outer_loops.diloco, 0.1),
    _federated(
        jd.CO2,
        outer_loops.co2,
        0.1,
        exact=False,
        numbers={"momentum": 0.4, "gap": 3.0, "clip": 0.2},
        descends=False,  # or a round late
    ),
    _outer(
        jd.EDiT,
        outer_loops.edit,
        0.1,
        numbers={"clip": 0.3, "threshold": 1.0, "decay": 0.2, "warmup": 3},
        scalars=1,  # of the only leaf
    ),
    _federated(jd.FedProx, federated.fed_prox, 0.1, exact=False, numbers={"proximal": 0.3}),
    _federated(
        jd.SCAFFOLD, federated.scaffold, 0.1, exact=True, vectors=1.5, invariants=(_variates,)
    ),
    _federated(jd.MIFA, federated.mifa, 0.2, exact=False, invariants=(_updates,)),
    _federated(jd.FedVARP, federated.fed_varp, 0.2, exact=False, invariants=(_updates,)),
    _federated(jd.FOCUS, federated.focus, 0.01, exact=True, shrinks=6.0, invariants=(_sums,)),
    _federated(jd.FedSUMB, federated.fed_sum_b, 0.1, exact=True, invariants=(_memories,)),
    _federated(
        jd.FedSUM, federated.fed_sum, 0.05, exact=True, vectors=1.5, invariants=(_memories,)
    ),
    _federated(
        jd.FedSUMCR, federated.fed_sum_cr, 0.05, exact=True, scalars=0.5, invariants=(_memories,)
    ),
    _federated(
        jd.FedAvgMomentum,
        federated.fed_avg_momentum,
        0.1,
        exact=False,
        numbers={"gradient_weight": 0.4},
        vectors=1.5,
        descends=False,
    ),
    _federated(
        jd.SCAFFOLDMomentum,
        federated.scaffold_momentum,
        0.1,
        exact=True,
        numbers={"gradient_weight": 0.4},
        vectors=2,
        descends=False,
        invariants=(_variates,),
    ),
]


def _up_and_down(d: int) -> float:
    """The bits of a dithered message up, and of a whole one down."""
    return (DITHER.bits(d) + 32 * d) / 2


LOW_COMMUNICATION = [
    Row(
        jd.StreamingDiLoCo,
        _workers(outer_loops.streaming_diloco),
        0.1,
        exact=False,
        options={**NO_OPTIMIZER, "period": 2, "delay": 0, "compressor": DITHER},
        quiet={**NO_OPTIMIZER, "period": 4, "delay": 1, "compressor": TOP},
        parent={**NO_OPTIMIZER, "period": 1, "delay": 0, "merge": 0.0, "server_stepsize": 1.0},
        numbers={"period": 2, "delay": 0, "merge": 0.3, "server_stepsize": 0.9},
        network="server",
        gossips=False,
        turns=2,
        local=True,
        delays=True,
        bits=_up_and_down,
    ),
    Row(
        jd.DecoupledDiLoCo,
        _workers(outer_loops.decoupled_diloco),
        0.4,
        exact=False,
        options={**NO_OPTIMIZER, "period": 2},
        parent={**NO_OPTIMIZER, "period": 1, "server_stepsize": 1.0},
        numbers={"period": 2, "quorum": 3, "server_stepsize": 0.9},
        network="full",
        gossips=False,
        turns=2,
        local=True,
        delays=True,
    ),
    _federated(
        jd.SparseLoCo,
        outer_loops.sparse_loco,
        0.1,
        exact=False,
        options={"compressor": DITHER, "local_steps": 3},
        quiet={"compressor": TOP, "local_steps": 3},
        parent={"compressor": jd.compressors.Identity(), "local_steps": 1, "decay": 0.0},
        numbers={"decay": 0.8},
        bits=_up_and_down,
    ),
]


def _messages_mean(state: Any) -> Any:
    return state.h.mean(axis=0) - state.mean


def _feedback(method: Any, loop: Any, stepsize: float, exact: bool, **more: Any) -> Row:
    """A row of a server whose clients send the largest coordinates; its parent sends all."""
    options = more.pop("options", {})
    return Row(
        method,
        loop,
        stepsize,
        exact=exact,
        options={"compressor": TOP, **options},
        parent={"compressor": jd.compressors.Identity(), **options},
        network="server",
        gossips=False,
        local=True,
        bits=lambda d: (TOP.bits(d) + 32 * d) / 2,
        **more,
    )


FEEDBACK = [
    _feedback(jd.CompressedSGD, error_feedback.compressed_sgd, 0.2, exact=False),
    _feedback(jd.EF14, error_feedback.ef14, 0.1, exact=False),
    _feedback(jd.EF21, error_feedback.ef21, 0.1, exact=True, invariants=(_messages_mean,)),
    _feedback(
        jd.EF21SGDM,
        error_feedback.ef21_sgdm,
        0.1,
        exact=True,
        numbers={"beta": 0.3},
        invariants=(_messages_mean,),
        descends=False,
    ),
    _feedback(
        jd.EControl,
        error_feedback.econtrol,
        0.1,
        exact=True,
        numbers={"eta": 0.2},
        invariants=(_messages_mean,),
    ),
    _feedback(
        jd.DGC,
        error_feedback.dgc,
        0.02,
        exact=False,
        numbers={"momentum": 0.6, "clip": 0.9, "nesterov": True},
    ),
]


def _snapshots(method: Any, loop: Any, stepsize: float, compressor: Any) -> Row:
    """A row of a method with full exchanges beside compressed ones, here in every step."""
    always = {"compressor": compressor, "probability": 1.0}
    return Row(
        method,
        loop,
        stepsize,
        exact=True,
        network="full",
        options=always,
        quiet={**always, "compressor": jd.compressors.Identity()},
        numbers={"probability": 0.2},
        vectors=2,
        exchanges=2,
        bits=lambda d: (compressor.bits(d) + 3 * 32 * d) / 4,
        gossips=False,
        local=True,
        varies=True,
        descends=False,
    )


GAMES = [
    Row(
        jd.ExtraGradient,
        games.extra_gradient,
        0.3,
        exact=False,
        network="server",
        vectors=2,
        calls=2,
        exchanges=2,
        gossips=False,
        local=True,
        descends=False,
    ),
    _snapshots(jd.MASHA1, games.masha1, 0.2, jd.compressors.RandomK(2)),
    _snapshots(jd.MASHA2, games.masha2, 0.1, TOP),
]


@jd.pytree
class Whole:
    """The sketch that sends every vector as it is."""

    def encode(self, key: Any, x: Any) -> Any:
        return x

    def decode(self, key: Any, y: Any, d: int) -> Any:
        return y

    def __call__(self, key: Any, x: Any) -> Any:
        return x

    def bits(self, d: int) -> int:
        return 32 * d


SIGNS = jd.compressors.RademacherSketch(3)
SKETCHED = [
    _federated(
        jd.SketchedSGD,
        sketches.sketched_sgd,
        0.05,
        exact=False,
        options={"sketch": SIGNS, "local_steps": 3},
        quiet={"sketch": Whole(), "local_steps": 3},
        parent={"sketch": Whole(), "local_steps": 1},
        numbers={"clip": 0.3},
        bits=SIGNS.bits,
    )
]
COMPOSITE = [
    _composite(
        jd.FedNMap,
        composite.fed_nmap,
        0.1,
        exact=True,
        options={"prox_stepsize": 10.0},
        invariants=(_corrections,),
    ),
    _composite(jd.FedMid, composite.fed_mid, 0.4, exact=False),
    _composite(jd.FedDualAvg, composite.fed_dual_avg, 0.4, exact=False),
    _composite(
        jd.ZhangHuJohansson,
        composite.zhang_hu_johansson,
        0.1,
        exact=True,
        invariants=(_corrections,),
    ),
]


def _clocked(loop: Any) -> Any:
    """A loop over events: its iterates [events + 1, n, d] from tables of times [m, n]."""

    @functools.wraps(loop)
    def run(gradient: Any, *given: Any, **numbers: Any) -> Any:
        *weights, work, travel, x0, stepsize, events = given
        late = lambda i, j, m: travel[m, i, j]  # noqa: E731
        clock = {"compute": work.T, "delay": late, "events": events}
        made = loop(gradient, *weights, x0, stepsize=stepsize(0), **clock, **numbers)
        return np.array([x0, *(event.x for event in made)])

    return run


@functools.wraps(asynchronous.ad_psgd)
def _pairs(gradient: Any, weights: Any, *given: Any, partner: Any, **numbers: Any) -> Any:
    return _clocked(asynchronous.ad_psgd)(gradient, *given, partner=partner, **numbers)


def _returning(loop: Any, spoken: tuple, **fixed: Any) -> Any:
    """A loop of a server that does not wait, with its rule in the loop's words."""

    @functools.wraps(loop)
    def run(gradient: Any, work: Any, travel: Any, x0: Any, stepsize: Any, steps: int, **more: Any):
        clock = {"compute": work.T, "rule": spoken, "aggregations": steps}
        made = loop(gradient, x0, stepsize, **clock, **fixed, **more)
        return np.array([x0, *(aggregation.x for aggregation in made)])

    return run


def _total(state: Any) -> Any:
    return state.total - state.table.sum(axis=0)


def _timeline(method: Any, loop: Any, stepsize: float, network: str = "timeline", **more: Any):
    """A row of agents that do not wait for each other."""
    needs = (
        "needs the meetings of pairs of agents"
        if network == "pairs"
        else "needs a timeline of agents"
    )
    more = {"exact": False, "needs": needs, "local": True, "delays": True, **more}
    return Row(method, loop, stepsize, network=network, **more)


def _arrivals(method: Any, loop: Any, stepsize: float, network: str, **more: Any) -> Row:
    """A row of clients that a server does not wait for."""
    spoken = {"each": ("each",), "ticks": ("every", 1.5), "buffer": ("buffer", 2)}[network]
    options = {"local_steps": 2, **more.pop("options", {})}
    more = {"exact": False, "parent": {**options, "local_steps": 1}, **more}
    more["numbers"] = {"server_stepsize": 0.7, "local_steps": 2, **more.get("numbers", {})}
    fixed = more.pop("fixed", {})
    return Row(
        method,
        _returning(loop, spoken, **fixed),
        stepsize,
        network=network,
        needs="needs the times at which clients return",
        options=options,
        gossips=False,
        local=True,
        delays=True,
        **more,
    )


ALONE = {"local_steps": 1, "server_stepsize": 1.0}
DIRECT = {"server_stepsize": 0.1}
ASYNCHRONOUS = [
    _timeline(
        jd.ADSGD,
        _clocked(asynchronous.adsgd),
        0.3,
        options={"relaxation": 0.8},
        parent={"relaxation": 1.0},
        numbers={"relaxation": 0.8},
    ),
    _timeline(
        jd.ASBCD,
        _clocked(asynchronous.asbcd),
        0.2,
        options={"penalty": 0.5},
        numbers={"penalty": 0.5},
    ),
    _timeline(
        jd.RFAST,
        _clocked(asynchronous.r_fast),
        0.6,
        "directed timeline",
        exact=True,
        vectors=2,
        descends=False,
    ),
    _timeline(jd.ADPSGD, _pairs, 0.2, "pairs", alike=False, descends=False, weighs=False),
    _arrivals(jd.AsyncFedAvg, asynchronous.asynchronous_fed_avg, 0.1, "each"),
    _arrivals(jd.FedFix, asynchronous.asynchronous_fed_avg, 0.1, "ticks", descends=False),
    _arrivals(
        jd.AsyncDiLoCo,
        outer_loops.async_diloco,
        0.1,
        "each",
        options={"dynamic": False},
        parent={**ALONE, "dynamic": False, "server": optax.identity()},
    ),
    _arrivals(
        jd.AEDiT,
        outer_loops.aedit,
        0.1,
        "buffer",
        options=NO_OPTIMIZER,
        parent={**NO_OPTIMIZER, **ALONE},
        numbers={"clip": 0.3, "threshold": 1.0, "decay": 0.2, "warmup": 3},
        scalars=1,
    ),
    _arrivals(jd.FedBuff, asynchronous.fed_buff, 0.1, "buffer"),
    _arrivals(jd.AFACD, asynchronous.afa_cd, 0.1, "buffer", options=DIRECT, descends=False),
    _arrivals(
        jd.AFACS,
        asynchronous.afa_cs,
        0.1,
        "buffer",
        exact=True,
        options={**DIRECT, "local_steps": 1},
        descends=False,
        invariants=(_total,),
    ),
]


def _swarm(loop: Any) -> Any:
    """A loop of particles: whom they hear are those whose weight in W is not 0."""

    @functools.wraps(loop)
    def run(value: Any, weights: Any, *given: Any, **numbers: Any) -> Any:
        heard = [np.flatnonzero(row).tolist() for row in np.asarray(weights)]
        if loop is black_boxes.consensus_hopping:  # which has no stepsize
            x0, _, steps = given
            given = x0, steps
        return loop(value, *given, neighbors=heard, **numbers)

    return run


@functools.wraps(black_boxes.just_one_byte)
def _one_byte(*given: Any, **numbers: Any) -> Any:
    return black_boxes.just_one_byte(*given, code=black_boxes.log_byte, **numbers)[0]


@functools.wraps(surrogates.fzoos)
def _surrogates(value: Any, there: Any, *given: Any, **numbers: Any) -> Any:
    return surrogates.fzoos(value, np.shape(there)[1], *given, **numbers)[0]


FEW = {"memory": 13, "active": 2, "candidates": 5, "initial": 4, "refit": 3}
WELL = {"lengthscale": 1.5, "radius": 0.4, "jitter": 0.1}  # conditioned
VALUES: dict[str, Any] = {"values": True, "exact": False, "descends": False}
BLACK_BOXES = [
    Row(
        jd.FedZO,
        black_boxes.fed_zo,
        0.02,
        network="server",
        gossips=False,
        options={"local_steps": 3, "directions": 2, "radius": 0.1},
        numbers={"local_steps": 2, "radius": 0.1},
        calls=3,
        local=True,
        alike=False,
        **VALUES,
    ),
    Row(
        jd.JustOneByte,
        _one_byte,
        0.02,
        network="full",
        gossips=False,
        quiet={"code": None},
        numbers={"radius": 0.1},
        vectors=0,
        told=8,
        calls=2,
        alike=False,
        **VALUES,
    ),
    Row(
        jd.FZooS,
        _surrogates,
        0.1,
        network="full",
        gossips=False,
        options={"local_steps": 2, "features": 20, **FEW, **WELL},
        quiet={**WELL, "features": 20, "active": 1, "candidates": 1, "initial": 1, "refit": 1},
        numbers={"local_steps": 2, **FEW, **WELL},
        bits=lambda d: 32 * (d + 20),
        local=True,
        alike=False,
        varies=True,
        **VALUES,
    ),
    Row(
        jd.CBO,
        _swarm(black_boxes.cbo),
        0.4,
        options={"alpha": 2.0},
        quiet={"alpha": 2.0, "noise": 0.0},
        numbers={"drift": 0.8, "noise": 0.9, "alpha": 3.0},
        scalars=1,
        weighs=False,
        **{**VALUES, "exact": None},
    ),
    Row(
        jd.ConsensusHopping,
        _swarm(black_boxes.consensus_hopping),
        None,
        options={"noise": 0.3, "alpha": 2.0},
        quiet={"noise": 0.0, "alpha": 2.0},
        numbers={"noise": 0.3, "alpha": 3.0},
        scalars=1,
        weighs=False,
        **VALUES,
    ),
]
ROWS = [
    *(PLAIN + RESHUFFLING + COMPRESSED + DIRECTED + TREES + OVERLAPPING),
    *(FEDERATED + LOW_COMMUNICATION + FEEDBACK + GAMES + SKETCHED + COMPOSITE + BLACK_BOXES),
    *ASYNCHRONOUS,
]


def _variant(method: Any, options: Mapping[str, Any], **numbers: Any) -> Row:
    """The method's row with other options, whose loop takes them as these numbers."""
    row = next(row for row in ROWS if row.method is method)
    return dataclasses.replace(
        row, options={**row.options, **options}, numbers={**row.numbers, **numbers}
    )


VARIANTS = [  # asked for their trajectories only
    _variant(jd.DGC, {"masking": False}, masking=False, clip=None, nesterov=False),
    _variant(jd.LinearizedADMM, {"penalty": 0.1}, penalty=0.1),
    _variant(jd.LinearizedADMM, {"penalty": 10.0}, penalty=10.0),
    _variant(jd.ExactDiffusion, {"relaxation": 0.3}, theta=0.3),
    _variant(jd.ExactDiffusion, {"relaxation": 1.0}, theta=1.0),
    _variant(jd.CentralizedRR, {"sampling": "once"}),
    _variant(jd.CentralizedRR, {"sampling": "cyclic"}),
    _variant(jd.DRR, {"sampling": "once"}),
    _variant(jd.GTRR, {"restart": True}, carry=False),
    _variant(jd.EDRR, {"restart": True, "relaxation": 1.0}, carry=False, theta=1.0),
    _variant(jd.GTSAGA, {"order": "atc"}, order="atc"),
    _variant(jd.CHOCOSGD, {"order": "after"}, order="after"),
    _variant(jd.CPP, {"form": "cta"}, form="cta"),
    _variant(jd.APD, {"growth": 0.2}, growth=0.2),
    _variant(jd.APDSC, {"strong_convexity": None}, mu=0.05),  # the problem's
]
