"""What a run will be, before it is run: roles, sizes, costs, theory, memory and time."""

import dataclasses
import functools
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdopt import _memory, _repr, roles, theory
from jaxdopt import costs as _costs
from jaxdopt._arguments import require_counts, require_key, require_kinds
from jaxdopt._checks import require
from jaxdopt._leaves import cast_floats, is_traced
from jaxdopt._memory import readable
from jaxdopt._opaque import disclose, enclose
from jaxdopt.ledger import dependent
from jaxdopt.schedules import at
from jaxdopt.simulate import run

TRIED = 256  # steps over which costs that vary are averaged
TIMED = 0.2  # seconds of steps that are timed


@dataclasses.dataclass(frozen=True)
class Time:
    """An estimate in seconds, from a few steps that were timed.

    Attributes:
        step: of one step.
        record: of one record of the metrics.
        compilation: of the program.
        total: of the whole call, its compilation among it.
        timed: how many steps were timed.
    """

    step: float
    record: float
    compilation: float
    total: float
    timed: int


@dataclasses.dataclass(frozen=True, eq=False)
class Explanation:
    """What a run will be; see `explain`.

    Attributes:
        title: the method, the problem and the network in a few words.
        needs: what the method needs of the network and the problem, by the words of `jaxdopt.roles`
            and whether it is there.
        refusal: the sentence with which `run` refuses; empty if the method fits.
        n: the number of agents.
        d: the number of parameters; of all leaves together where the estimates are a tree.
        steps: of the run.
        records: of the run, the one of x0 not counted.
        state: shape and dtype of all arrays of the method's state by name.
        costs: what a step adds to every axis of ``history``, the mean of the first steps, at most
            `TRIED`; None where it depends on the state and no step was taken.
        varying: the axes whose costs are not the same in all steps.
        sizes: bytes of the state, of the problem (its data) and of the network.
        gap: 1 − |λ₂| of one W; None where there is none.
        stepsize: the method's own; None for a schedule or where it has none.
        theory: what theorems say, a `jd.theory.Theory`; None where there is none.
        theory_missing: the sentence that says why there is none.
        memory: of the compiled program, in bytes: ``arguments``, ``results``, ``temporary``,
            ``total``.
        free: bytes that are free on the device; None if nobody knows.
        time: an estimate, a `Time`; None if no step was timed.
    """

    title: str
    needs: Mapping[str, bool]
    refusal: str
    n: int
    d: int
    steps: int
    records: int
    state: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    costs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    varying: frozenset[str] = frozenset()
    sizes: Mapping[str, int] = dataclasses.field(default_factory=dict)
    gap: float | None = None
    stepsize: Any = None
    theory: Any = None
    theory_missing: str = ""
    memory: Any = None
    free: float | None = None
    time: Time | None = None

    def _facts(self) -> dict[str, str]:
        have = (f"{word} ({'yes' if there else 'NO'})" for word, there in self.needs.items())
        facts = {"needs": ", ".join(have) or "nothing of a network"}
        if self.refusal:
            return facts | {"refused": self.refusal}
        facts["sizes"] = f"n = {self.n}, d = {self.d}, " + ", ".join(
            f"{name} {readable(size)}" for name, size in self.sizes.items()
        )
        facts["state"] = ", ".join(f"{name} {_shape(leaf)}" for name, leaf in self.state.items())
        facts["a step"] = ", ".join(map(self._cost, self.costs))
        if self.gap is not None:
            facts["spectral gap"] = f"{self.gap:.4g}"
        facts["stepsize"] = "none" if self.stepsize is None else _repr.brief(self.stepsize)
        facts |= self._bounds()
        facts[f"{self.steps:,} steps"] = f"{self.records:,} records"
        if self.memory is not None:
            free = "" if self.free is None else f"; {readable(self.free)} are free"
            parts = ", ".join(
                f"{name} {readable(getattr(self.memory, name))}"
                for name in ("arguments", "results", "temporary")
            )
            facts["memory"] = f"{readable(self.memory.total)} of the program ({parts}){free}"
        facts["time"] = "no step was timed"
        if self.time is not None:
            facts["time"] = (
                f"some {_duration(self.time.total)}: {_duration(self.time.compilation)} of "
                f"compilation, {_duration(self.time.step)} a step and "
                f"{_duration(self.time.record)} a record, by {self.time.timed} steps timed here"
            )
        facts["an agent"] = self._share()
        return facts

    def _share(self) -> str:
        """Return an agent's part of the memory, and of a step's time."""
        sizes = {name: size for name, size in self.sizes.items() if name != "network"}
        if self.memory is not None:
            sizes["temporary"] = self.memory.temporary
        parts = [f"{name} {readable(size / self.n)}" for name, size in sizes.items()]
        if self.time is not None:
            parts.append(f"{_duration(self.time.step / self.n)} a step")
        return ", ".join(parts)

    def _cost(self, name: str) -> str:
        value, about = self.costs[name], "~" * (name in self.varying)
        if value is None:
            return f"{name} by the state"
        return f"{name} {about}{float(value):.6g}" if np.ndim(value) == 0 else f"{name} {value}"

    def _bounds(self) -> dict[str, str]:
        """Return what theorems say of the stepsize."""
        if self.theory is None:
            return {"its bound": self.theory_missing}
        claims = {"its bound": self.theory.stepsize, "its edge": self.theory.edge}
        return {
            name: f"needs {claim.missing}"
            if claim.value is None
            else f"{float(claim.value):.4g} = {claim.formula} ({claim.kind}; {claim.source})"
            for name, claim in claims.items()
            if claim is not None
        }

    def __repr__(self) -> str:
        facts = self._facts()
        width = max(map(len, facts))
        return "\n".join([self.title, *(f"  {name:<{width}}  {facts[name]}" for name in facts)])


def _shape(leaf: Any) -> str:
    return f"{leaf.dtype}{list(leaf.shape)}"


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60), ("s", 1), ("ms", 1e-3)):
        if seconds >= 1.5 * size or (unit in ("s", "ms") and seconds >= size):
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} us"


def explain(
    algorithm: Any,
    problem: Any,
    network: Any,
    x0: Any = None,
    key: Any = None,
    *,
    steps: int = 1,
    every: int = 1,
    metrics: dict[str, Any] | None = None,
    defaults: Sequence[str] | None = None,
    timed: bool = True,
) -> Explanation:
    """Return what a run of a method will be, which prints as a table.

    It says what the method needs and whether the network and the problem have it, the sizes of the
    state and the data, what a step costs, what theorems say of the stepsize, and the memory of the
    program. This needs shapes alone: the program is compiled, and nothing of it is allocated or
    run. The time is an estimate from a loop of a few steps, a fifth of a second, which is left out
    where memory does not suffice.

    Args:
        algorithm: the method.
        problem: the problem.
        network: the network.
        x0: [n, d], or its shape as `jax.ShapeDtypeStruct`, with which no step is timed;
            ``problem.start()`` by default.
        key: the run's; ``jax.random.key(0)`` by default.
        steps: of the run.
        every: how many steps a record covers.
        metrics: what is recorded, {name: function of (state, problem)}.
        defaults: which of the default metrics are, by name; all by default.
        timed: whether some steps are timed.

    Returns:
        An `Explanation`. A method that does not fit is no error: the explanation says what is
        missing.

    Raises:
        ValueError: anything else that `run` refuses.

    Example:
        >>> import jaxdopt as jd
        >>> problem = jd.problems.quadratic(8, 2, curvature_spread=0.0)
        >>> ring = jd.networks.metropolis(jd.graphs.ring(8))
        >>> told = jd.explain(jd.EXTRA(0.5), problem, ring, steps=1000, timed=False)
        >>> told.needs, told.costs["rounds"], round(float(told.theory.stepsize), 3)
        ({'mixing': True, 'symmetric': True}, 1.0, 0.667)
    """
    require_kinds(algorithm, problem, network)
    require_counts(steps, every, 0)
    require(
        not is_traced((algorithm, problem, network, x0, key)),
        "explain looks at values, and some are traced; call it outside of jit, vmap and grad.",
    )
    key = jax.random.key(0) if key is None else key
    require_key(key)
    n, title = problem.n, " | ".join(map(_repr.brief, (algorithm, problem, network)))
    needs = _needs(algorithm, problem, network)
    try:
        roles.check(algorithm, network, problem)
    except ValueError as refusal:
        d, records = getattr(problem, "d", None) or 0, steps // every
        return Explanation(title, needs, str(refusal), n, d, steps, records)
    require(
        x0 is not None or hasattr(problem, "start"),
        f"{type(problem).__name__} has no start(); give x0, an [n, d] array.",
    )
    shape = jax.eval_shape(problem.start) if x0 is None else x0
    parts = {"algorithm": algorithm, "problem": problem, "network": network}
    given = {name: enclose(part) for name, part in parts.items()} | {"x0": shape, "key": key}
    recorded = {"metrics": metrics, "defaults": defaults}
    whole = functools.partial(_run, steps=steps, every=every, **recorded)
    of_arrays, shapes = _memory.of_shapes(whole, given)
    state, x = jax.eval_shape(lambda *args: _state_of(of_arrays(*args)), shapes)
    began = time.perf_counter()
    memory = _memory.compiled(whole, given)
    compilation = time.perf_counter() - began
    free = _memory.available(problem)
    needed = 0 if memory is None else memory.results + memory.temporary
    timed = timed and not isinstance(x0, jax.ShapeDtypeStruct) and (free is None or needed <= free)
    if timed:
        given["x0"] = problem.start() if x0 is None else x0
    tried = min(steps, TRIED, getattr(network, "horizon", None) or TRIED)
    dtype = jnp.result_type(*jax.tree.leaves(x))
    costs, varying = _costs_of(given, state, dtype, tried, timed)
    told, missing = _theory(algorithm, problem, network)
    return Explanation(
        title,
        needs,
        "",
        n,
        sum(math.prod(leaf.shape[1:]) for leaf in jax.tree.leaves(x)),
        steps,
        steps // every,
        state=_named(state),
        costs=costs,
        varying=varying,
        sizes={
            name: _memory.bytes_of(value)
            for name, value in (("state", state), ("problem", problem), ("network", network))
        },
        gap=_gap(network),
        stepsize=getattr(algorithm, "stepsize", None),
        theory=told,
        theory_missing=missing,
        memory=memory,
        free=free,
        time=_time(given, recorded, steps, every, tried, compilation) if timed else None,
    )


def _run(given: Mapping[str, Any], **options: Any) -> Any:
    return run(**{name: disclose(value) for name, value in given.items()}, **options)


def _state_of(result: Any) -> tuple[Any, Any]:
    return result.state, result.state.x


def _needs(algorithm: Any, problem: Any, network: Any) -> dict[str, bool]:
    """Return the words that a method needs, in the order of `roles`, and whether they are there."""
    have = roles.offers(network)
    if hasattr(problem, "grad_at") and hasattr(problem, "draw"):
        have |= {"finite sum"}
    if hasattr(problem, "value"):
        have |= {"values"}
    needs = getattr(algorithm, "needs", ())
    return {word: word in have for word in (*roles.WORDS, *roles.PROBLEMS) if word in needs}


def _costs_of(
    given: Mapping[str, Any], state: Any, dtype: Any, tried: int, timed: bool
) -> tuple[dict[str, Any], frozenset[str]]:
    """Return what a step costs, the mean over some first steps, and which costs vary.

    Those that depend on the state are a short run's, or None.
    """
    weights = dtype if jnp.finfo(dtype).bits > 16 else jnp.float32
    parts = given["algorithm"], given["problem"], given["network"]
    axes = _costs.axes_of(*map(disclose, parts))

    def of_step(parts: Any, key: Any, state: Any, k: Any) -> dict[str, jax.Array]:
        algorithm, problem, network = map(disclose, parts)
        method = cast_floats(at(algorithm, k), dtype)
        now = cast_floats(network, weights).at(k, key)
        return _costs.increments(axes, method, state, problem, now)

    own = functools.partial(of_step, parts, given["key"])
    varying = dependent(own, state, jax.ShapeDtypeStruct((), int))[1]
    of_state = dependent(lambda state: own(state, 0), state)[1]

    @jax.jit
    def rows(parts: Any, key: Any) -> dict[str, jax.Array]:
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), state)
        return jax.lax.map(lambda k: named(of_step(parts, key, zeros, k)), jnp.arange(tried))

    def named(costs: dict[str, Any]) -> dict[str, Any]:
        return {name: cost for name, cost in costs.items() if name not in of_state}

    found = dict(rows(parts, given["key"]))
    ends = dict.fromkeys(of_state)
    if of_state and timed:
        short = _run(given, steps=tried, every=tried, defaults=()).costs
        ends = {name: np.asarray(short[name])[1] for name in of_state}
    costs = {}
    for name, axis in axes.items():
        largest = axis.over == "maximum"
        if name in found:
            values = np.asarray(found[name], np.float64)
            costs[name] = values.max(axis=0) if largest else values.mean(axis=0)
        elif name in ends:
            end = ends[name]
            costs[name] = end if end is None or largest else np.asarray(end, np.float64) / tried
    return {name: _plain(value) for name, value in costs.items()}, frozenset(varying)


def _plain(value: Any) -> Any:
    return float(value) if value is not None and np.ndim(value) == 0 else value


def _named(state: Any) -> dict[str, Any]:
    """Return the arrays of a state by name."""
    leaves = jax.tree.leaves_with_path(state)
    return {jax.tree_util.keystr(path).lstrip("."): leaf for path, leaf in leaves}


def _gap(network: Any) -> float | None:
    """Return the spectral gap of one W, None where there is none."""
    gap = None if getattr(network, "varies", True) else getattr(network, "spectral_gap", None)
    return None if gap is None else float(gap)


def _theory(algorithm: Any, problem: Any, network: Any) -> tuple[Any, str]:
    """Return what theorems say, or why they say nothing."""
    name = type(algorithm).__name__
    if name not in theory.METHODS:
        return None, f"no theorem on {name} is known here"
    if _memory.bytes_of(problem) > _memory.SMALL:  # they take some passes over all data
        return None, "jd.theory.of(method, problem, network) computes the bounds"
    try:
        return theory.of(algorithm, problem, network), ""
    except ValueError as error:
        return None, str(error).rstrip(".")


def _time(
    given: Mapping[str, Any],
    recorded: Mapping[str, Any],
    steps: int,
    every: int,
    span: int,
    compilation: float,
) -> Time:
    """Return an estimate of a run's time, from a loop over some of its steps."""
    step, count = _seconds_a_step(given, {"defaults": ()}, steps, span)
    both, _ = _seconds_a_step(given, recorded, steps, span)
    record = max(both - step, 0.0)
    total = compilation + steps * step + (steps // every + 1) * record
    return Time(step, record, compilation, total, count)


def _seconds_a_step(
    given: Mapping[str, Any], recorded: Mapping[str, Any], steps: int, span: int
) -> tuple[float, int]:
    """Return the seconds of a step that is recorded, and how many steps were timed.

    One program for all lengths, as the number of steps is traced; what a call takes without any
    step is subtracted.
    """

    @jax.jit
    def loop(given: Mapping[str, Any], count: Any) -> Any:
        def body(i: Any, carry: Any) -> Any:
            parts = {**given, "x0": None, "state": carry[0], "start": i % span}
            return last(_run(parts, steps=1, **recorded))

        return jax.lax.fori_loop(0, count, body, last(_run(given, steps=1, **recorded)))

    def last(result: Any) -> Any:
        return result.state, {name: rows[-1] for name, rows in result.metrics.items()}

    def seconds(count: int) -> float:
        began = time.perf_counter()
        jax.block_until_ready(loop(given, np.int32(count)))
        return time.perf_counter() - began

    seconds(0)
    empty, count = min(seconds(0), seconds(0)), 1
    taken = seconds(count) - empty
    while taken < TIMED and count < steps:
        count = min(steps, 2 * count if taken <= 0 else max(2 * count, int(TIMED / taken * count)))
        count = min(count, 2**30)
        taken = seconds(count) - empty
    return max(taken, 0.0) / count, count
