"""When a run diverges: the first step, agents and fields that are not finite, and where from."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import checkify

from jaxdopt import costs, roles
from jaxdopt._arguments import require_after, require_kinds
from jaxdopt._checks import count, require
from jaxdopt._leaves import is_traced
from jaxdopt._opaque import disclose
from jaxdopt._pytree import field, pytree
from jaxdopt._wrapper import Wrapper, wrapped
from jaxdopt.honest import seen
from jaxdopt.results import Result
from jaxdopt.simulate import run

SHOWN = 6  # agents that are listed
HERE = Path(__file__).parent
OTHERS = Path(jax.__file__).parent  # whose lines are no cause


@dataclasses.dataclass(frozen=True)
class Fault:
    """Values of one field that are not finite.

    Attributes:
        name: the field, such as "x" or "problem.features".
        value: "nan", "inf", "-inf" or "nan and inf".
        agents: whose rows have them, in order; none of a field that belongs to no agent.
        of: the number of agents.
        largest: the largest absolute value of the field in the state before; NaN where there is
            none.
    """

    name: str
    value: str
    agents: tuple[int, ...]
    of: int
    largest: float = math.nan

    def __repr__(self) -> str:
        text = f"{self.name}: {self.value}"
        if len(self.agents) == self.of > 1:
            text += f" at all {self.of} agents"
        elif self.agents:
            more = f", ... ({len(self.agents)} of {self.of})" * (len(self.agents) > SHOWN)
            who = ", ".join(map(str, self.agents[:SHOWN]))
            text += f" at agent{'s' * (len(self.agents) > 1)} {who}{more}"
        if not math.isnan(self.largest):
            text += f"; the largest number before was {self.largest:.3g}"
        return text


@dataclasses.dataclass(frozen=True, eq=False)
class Diagnosis:
    """The first state of a run that is not finite; see `diagnose`.

    Attributes:
        step: the number k of the step that led to it; None if the run starts from it.
        fields: what is not finite in it, in the state's order.
        gradient: the same of the problem's gradient at the x before the step, or at x0.
        data: the NaNs of the problem's, the network's and the method's own arrays.
        cause: the operation that made the first NaN, and the line of the program that it is in;
            empty where numbers have become too large, or where it is not found.
        before: the state before the step, with which `run` repeats it: ``state=before, start=step,
            steps=1``; None if there is none.
        after: the first state that is not finite.
    """

    step: int | None
    fields: tuple[Fault, ...]
    gradient: tuple[Fault, ...]
    data: tuple[Fault, ...]
    cause: str
    before: Any
    after: Any

    def __repr__(self) -> str:
        when = "that the run starts from" if self.step is None else f"after step {self.step}"
        lines = [f"The state {when} is the first that is not finite:"]
        lines += [f"    {fault}" for fault in (*self.fields, *self.gradient, *self.data)]
        if self.cause:
            lines.append(f"The first NaN: {self.cause}")
        return "\n".join(lines)


@pytree
class _State(Wrapper):
    """A state, the one before it, whether it is bad, and how many steps it took."""

    inner: Any
    before: Any
    bad: Any = field(axis=None)
    taken: Any = field(axis=None)
    wraps = "inner"


@pytree
class _Watched(Wrapper):
    """A method that stands still from its first state on that is not finite."""

    method: Any
    wraps = "method"

    def init(self, x0: Any, problem: Any, network: Any, key: jax.Array) -> _State:
        state = wrapped(self).init(x0, problem, network, key)
        return _watched(jax.tree.map(jnp.asarray, state), network)

    def step(self, state: _State, problem: Any, network: Any, key: jax.Array) -> _State:
        method = wrapped(self)

        def move(state: _State) -> _State:
            after = method.step(state.inner, problem, network, key)
            if not hasattr(method, "needs"):
                after = roles.freeze(network, state.inner, after)
            bad = _bad(seen(after, network), seen(state.inner, network))
            return _State(after, state.inner, bad, state.taken + 1)

        return jax.lax.cond(state.bad, lambda state: state, move, state)

    def cost(self, state: _State, problem: Any, network: Any) -> costs.Cost:
        return costs.cost_of(wrapped(self), state.inner, problem, network)


def _watched(state: Any, network: Any) -> _State:
    """Return a state to be watched."""
    return _State(state, state, _bad(seen(state, network), None), jnp.asarray(0, int))


def _bad(state: Any, before: Any) -> jax.Array:
    """Return whether some number is NaN, or infinite that was finite before, or all are invalid."""
    leaves = jax.tree.leaves(state)
    olds = [None] * len(leaves) if before is None else jax.tree.leaves(before)
    found = [jnp.any(_wrong(new, old, jnp)) for new, old in zip(leaves, olds, strict=True)]
    x = [~jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(state.x)]
    return jnp.any(jnp.array(found + x)) | ~jnp.asarray(getattr(state, "valid", True))


def _wrong(new: Any, old: Any, library: Any) -> Any:
    """Return which numbers are NaN, or infinite that were finite before."""
    if not jnp.issubdtype(new.dtype, jnp.inexact):
        return library.zeros(np.shape(new), bool)
    nan = library.isnan(new)
    return nan if old is None else nan | (library.isinf(new) & ~library.isinf(old))


def diagnose(
    algorithm: Any,
    problem: Any,
    network: Any,
    x0: Any = None,
    key: Any = None,
    *,
    steps: int,
    after: Result | None = None,
    state: Any = None,
    start: int = 0,
) -> Diagnosis | None:
    """Return where a run's state is first not finite: the step, the agents and the fields.

    The arguments are those of the `run` whose result has ``diverged``. It is run once more, its
    steps one by one in a loop that stands still from the first state on that has a NaN, an infinity
    that was finite before, or push-sum weights that have underflowed; agents that lie are not
    looked at. The step before is then looked into: at the gradient, at what was given, and, by
    `jax.experimental.checkify`, at the operation that made the first NaN.

    It holds two states, records nothing, and costs some seconds of compilation. Of a sweep, give
    the numbers and the key of one member. Rounding differs from the run's, as it may between any
    two programs.

    Args:
        algorithm: the method.
        problem: the problem.
        network: the network.
        x0: [n, d], from which the run started; None with ``after`` or ``state``.
        key: the run's; with ``after`` it may be left out.
        steps: how many steps to look at, at most.
        after: the `Result` to go on from, which has not diverged yet.
        state: the state to start from, in place of x0.
        start: the first step's number.

    Returns:
        A `Diagnosis`, which prints as a few lines; None if all states are finite.

    Raises:
        ValueError: what `run` refuses, or a call inside of jit, vmap or grad.

    Example:
        >>> import jaxdopt as jd
        >>> problem = jd.problems.quadratic(4, 2)
        >>> setting = problem, jd.networks.metropolis(jd.graphs.ring(4)), problem.start()
        >>> found = jd.diagnose(jd.DGD(1e30), *setting, jax.random.key(0), steps=100)
        >>> found.fields[0].name, found.fields[0].agents
        ('x', (0, 1, 2, 3))
    """
    steps = count("steps", steps)
    require(
        not is_traced((algorithm, problem, network, x0, key, state, start)),
        "diagnose looks at values, and some are traced; call it outside of jit, vmap and grad.",
    )
    parts = algorithm, problem, network
    if after is not None:
        require_after(after, x0, key, state, start)
        key = after.key if key is None else key
        state, start = after.state, int(after.next_step)
    options = {"x0": x0, "key": key, "start": start, "steps": steps, "every": steps}
    require_kinds(*parts, state)
    try:
        inner = None if state is None else _watched(jax.tree.map(jnp.asarray, state), network)
        found = run(_Watched(algorithm), *parts[1:], **options, state=inner, defaults=()).state
    except ValueError:  # what run refuses of the method itself it says in that method's name
        jax.eval_shape(lambda: run(*parts, **options, state=state, defaults=()))
        raise
    if not found.bad:
        return None
    before = found.before if found.taken else None
    k = int(start + found.taken) - 1
    mask = roles.honest(network)
    liars = () if mask is None else np.flatnonzero(~mask)
    zeros = jax.tree.map(jnp.zeros_like, found.inner)  # before which all infinities are new
    faults = _faults(found.inner, zeros if before is None else before, problem.n)
    faults = list(_without(liars, faults))
    if not faults:
        faults = [Fault("valid", "false, as push-sum weights have underflowed", (), problem.n)]
    named = {"problem": problem, "network": network, "algorithm": algorithm}
    data = [fault for name in named for fault in _faults(named[name], None, problem.n, name)]
    x = x0 if before is None else before.x
    gradient = [] if x is None else _gradient(problem, x, jax.random.fold_in(key, max(k, start)))
    again: dict[str, Any] = {"key": key, "start": max(k, start), "steps": 1, "defaults": ()}
    again |= {"x0": x0, "state": state} if before is None else {"state": before}
    cause = _cause(lambda: run(*parts, **again).state)
    step = k if found.taken else None
    gradient, data = (tuple(_without(liars, them)) for them in (gradient, data))
    return Diagnosis(step, tuple(faults), gradient, data, cause, before, found.inner)


def _without(liars: Iterable[int], faults: Iterable[Fault]) -> Iterator[Fault]:
    """Yield the faults that are not liars' alone, without them."""
    for fault in faults:
        agents = tuple(agent for agent in fault.agents if agent not in liars)
        if agents or not fault.agents:
            yield dataclasses.replace(fault, agents=agents)


def _gradient(problem: Any, x: Any, key: Any) -> list[Fault]:
    """Return what is not finite of a problem's gradient."""
    slopes = problem.grad(x, key)
    return _faults(slopes, jax.tree.map(jnp.zeros_like, slopes), problem.n, "gradient")


def _faults(tree: Any, before: Any, n: int, name: str = "") -> list[Fault]:
    """Return the faults of all leaves, NaN alone where there is nothing before."""
    old = {} if before is None else {path: leaf for path, leaf, _ in _leaves(before, name)}
    found = []
    for path, leaf, axis in _leaves(tree, name):
        earlier = None if before is None else np.asarray(old[path])
        values = np.asarray(leaf)
        wrong = _wrong(values, earlier, np)
        if np.any(wrong):
            known = np.zeros(0) if earlier is None else np.abs(earlier[np.isfinite(earlier)])
            largest = float(known.max()) if known.size and known.max() else math.nan
            kinds = {"nan": np.isnan(values), "inf": values == np.inf, "-inf": values == -np.inf}
            kinds = [kind for kind, there in kinds.items() if np.any(wrong & there)]
            rows = axis is not None and values.ndim > axis and values.shape[axis] == n
            who = wrong.any(axis=tuple(set(range(wrong.ndim)) - {axis})) if rows else np.zeros(0)
            agents = tuple(np.flatnonzero(who).tolist())
            found.append(Fault(path, " and ".join(kinds), agents, n, largest))
    return found


def _leaves(tree: Any, name: str, axis: int | None = 0) -> Iterator[tuple[str, Any, int | None]]:
    """Yield the numbers of a tree by name, with the axis that is the agents' as the fields say."""
    tree = disclose(tree)
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        for own in dataclasses.fields(tree):
            if not own.metadata.get("static"):
                inner = f"{name}.{own.name}".lstrip(".")
                yield from _leaves(vars(tree)[own.name], inner, own.metadata.get("axis", axis))
        return
    for path, leaf in jax.tree.leaves_with_path(tree):
        if jnp.issubdtype(getattr(leaf, "dtype", None) or type(leaf), np.inexact):
            yield f"{name}{jax.tree_util.keystr(path)}", leaf, axis


def _cause(program: Callable[[], Any]) -> str:
    """Return the operation that makes the first NaN in a program, and its line."""
    try:
        error, _ = jax.jit(checkify.checkify(program, errors=checkify.float_checks))()
        found = error.get_exception()
    except Exception:  # of what checkify cannot look into, such as a user's own primitive
        return ""
    if found is None:
        return ""
    frames = [
        frame
        for frame in getattr(getattr(found, "traceback_info", None), "frames", ())
        if OTHERS not in Path(frame.file_name).parents
    ]
    own = [frame for frame in frames if HERE not in Path(frame.file_name).parents]
    what = str(found).partition("\n")[0].rstrip(".")
    for frame in (own or frames)[:1]:
        what += f", in {frame.function_name} ({Path(frame.file_name).name}:{frame.line_num})"
    return what
