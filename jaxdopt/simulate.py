"""`run`: a method on a problem over a network, as one scan that records every k-th state."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdopt import metrics as _metrics
from jaxdopt._arguments import (
    as_estimates,
    require_agents,
    require_composite,
    require_counts,
    require_horizon,
    require_key,
    require_kinds,
    require_metrics,
    require_numbers,
    strong,
)
from jaxdopt._pytree import (
    cast_floats,
    disclose,
    enclose,
    is_traced,
    pytree,
    require,
    static,
    traceable,
)
from jaxdopt.algorithms.cost import gossip, samples
from jaxdopt.networks.guard import guarded
from jaxdopt.networks.timed import seconds
from jaxdopt.schedules import at


@pytree
class Result:
    """What a run leaves behind; under vmap every leaf has the sweep's axes in front."""

    state: Any  # the last state
    metrics: Any  # {name: [records + 1, ...]}
    costs: Any  # {axis: [records + 1]} increments; `history` sums them up
    diverged: Any  # bool: the last state has values that are not finite
    axes: tuple[str | None, ...] = static(default=())  # names of the innermost swept axes

    @property
    def history(self) -> dict[str, Any]:
        """All records by name, row 0 being x0: the metrics, and the axes to draw them against.

        Axes: ``step``; ``epochs`` (passes over an agent's data), ``gradients`` (component
        gradients an agent), ``rounds`` of communication, ``vectors`` and ``bits`` (over one link
        of an agent), ``traffic`` (bits over all links together), ``seconds`` (simulated: a gradient
        takes one and messages none, unless the network is a `jd.networks.timed` or a
        `jd.networks.timeline`). NumPy arrays, the axes summed in float64; inside a transformation,
        traced ones.
        """

        def total(cost: Any) -> Any:
            if is_traced(cost):
                return jnp.cumsum(cost, axis=-1)
            return np.cumsum(np.asarray(cost, np.float64), axis=-1)

        def on_host(metric: Any) -> Any:
            return metric if is_traced(metric) else np.asarray(metric)

        sums = {name: total(cost) for name, cost in self.costs.items()}
        sums["step"] = sums["step"].astype(int)
        return {**sums, **jax.tree.map(on_host, self.metrics)}


def run(
    algorithm: Any,
    problem: Any,
    network: Any,
    x0: Any,
    key: jax.Array,
    *,
    steps: int,
    every: int = 1,
    metrics: dict[str, Any] | None = None,
    state: Any = None,
    start: Any = 0,
) -> Result:
    """Run a method for ``steps`` steps; record the start and every ``every``-th state.

    It is the loop ``state = at(algorithm, k).step(state, problem, network.at(k, key),
    fold_in(key, k))`` for k = start ... start + steps − 1, from ``algorithm.init``, jitted. It
    compiles once for each structure of its arguments: numbers, weights, data, keys and ``start``
    are traced, so none of them compiles anew (a fresh lambda as a metric does). It goes under
    `jax.vmap`, `jax.grad` and `jax.jit`.

    Args:
        algorithm: a method with ``init``, ``step`` and maybe ``cost``; a method without costs one
            gradient and one exchange of one vector a step.
        problem: with ``n``, ``d`` and ``grad``, and as much more as it knows. Objects that are no
            pytrees will do; what they hold is then part of the program.
        network: with ``n``, ``@`` and ``at``.
        x0: [n, d], usually ``problem.start()``; its dtype is the run's. None with ``state``.
        key: from `jax.random.key`.
        steps: how many steps to take, a multiple of ``every``.
        every: how many steps a record covers.
        metrics: {name: (state, problem) -> array of any shape}, added to `metrics.defaults`.
        state: the state to go on from instead of ``algorithm.init``.
        start: the first step's number; with the ``state`` of a run of that many steps and the same
            key, the run goes on exactly.

    Returns:
        A `Result`; ``result.history["gap"]`` is [steps / every + 1].

    Raises:
        ValueError: counts, shapes, dtypes or keys that do not fit, before any work. Divergence
            raises nothing: the history is then infinite or NaN and ``diverged`` is true.
    """
    require_kinds(algorithm, problem, network, state)
    require_composite(algorithm, problem)
    require_counts(steps, every, start)
    require_horizon(network, start, steps)
    require_key(key)
    require_metrics(metrics)
    if state is None:
        require(x0 is not None, "x0 is None and there is no state; give problem.start().")
        x0 = as_estimates(x0)
    else:
        require(
            x0 is None,
            "both x0 and a state are given; give x0=None to go on from the state.",
        )
    x = x0 if state is None else state.x
    require_agents(problem, network, x)
    require_numbers(algorithm, problem.n)
    dtype = jnp.result_type(*jax.tree.leaves(x))
    known = _metrics.defaults(problem)
    extra = {name: traceable(metric) for name, metric in (metrics or {}).items()}
    clash = sorted(set(extra) & {*known, *AXES, "diverged"})
    require(not clash, f"metric {', '.join(clash)} is recorded already; give yours another name.")
    recorded = {name: traceable(metric) for name, metric in known.items()} | extra
    return _simulate(
        enclose(cast_floats(algorithm, dtype)),
        enclose(problem),
        enclose(cast_floats(network, jnp.promote_types(dtype, jnp.float32))),
        x0,
        key,
        recorded,
        state,
        jnp.asarray(start, int),
        steps=steps,
        every=every,
    )


AXES = ("step", "epochs", "gradients", "rounds", "vectors", "bits", "traffic", "seconds")


@functools.partial(jax.jit, static_argnames=("steps", "every"))
def _simulate(
    algorithm: Any,
    problem: Any,
    network: Any,
    x0: Any,
    key: jax.Array,
    recorded: dict[str, Any],
    state: Any,
    start: jax.Array,
    *,
    steps: int,
    every: int,
) -> Result:
    algorithm, problem, network = map(disclose, (algorithm, problem, network))

    def in_round(k: jax.Array) -> Any:
        return guarded(network.at(k, key), network)

    def of_step(k: jax.Array) -> tuple[Any, Any]:
        return cast_floats(at(algorithm, k), dtype), in_round(k)

    def one_step(state: Any, k: jax.Array) -> tuple[Any, dict[str, jax.Array]]:
        method, now = of_step(k)
        state = method.step(state, problem, now, jax.random.fold_in(key, k))
        return state, _costs(method, state, problem, now)

    def costs_of(state: Any, k: jax.Array) -> dict[str, jax.Array]:
        method, now = of_step(k)
        return _costs(method, state, problem, now)

    def accumulate(carry: Any, k: jax.Array) -> tuple[Any, None]:
        state, total, lost = carry
        state, costs = one_step(state, k)
        more = jnp.array([costs[name] for name in varying], jnp.float32) - lost  # Kahan's sum
        return (state, total + more, (total + more - total) - more), None

    def record(state: Any, ks: jax.Array) -> tuple[Any, Any]:
        none = jnp.zeros(len(varying), jnp.float32)
        (state, costs, _), _ = jax.lax.scan(accumulate, (state, none, none), ks)
        return state, (measure(state), costs)

    def measure(state: Any) -> dict[str, Any]:
        return {name: _array(name, metric(state, problem)) for name, metric in recorded.items()}

    dtype = jnp.result_type(*jax.tree.leaves(x0 if state is None else state.x))
    if state is None:
        state = at(algorithm, start).init(x0, problem, in_round(start), key)
    state = jax.tree.map(strong, state)
    after, _ = jax.eval_shape(one_step, state, start)
    _require_preserved(state, after)
    varying = _varying(costs_of, state, start)  # the others are added up outside of the loop
    first = measure(state)
    ks = start + jnp.arange(steps).reshape(-1, every)
    state, (rest, costs) = jax.lax.scan(record, state, ks)
    history = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b.astype(a.dtype)]), first, rest)
    costs = jnp.concatenate([jnp.zeros((1, len(varying)), jnp.float32), costs]).T
    increments = dict(zip(varying, costs, strict=True))
    fixed = {name: every * v for name, v in costs_of(state, start).items() if name not in varying}
    rows = (steps // every + 1,)
    increments |= {name: jnp.full(rows, cost).at[0].set(0) for name, cost in fixed.items()}
    increments["step"] = jnp.full(rows, every).at[0].set(start)
    finite = [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(state.x)]
    return Result(state, history, increments, ~jnp.all(jnp.array(finite)))


def _varying(costs: Callable[..., dict[str, jax.Array]], *args: Any) -> list[str]:
    """Return the names of the costs that depend on the arguments."""
    closed, axes = jax.make_jaxpr(costs, return_shape=True)(*args)
    reached = set(closed.jaxpr.invars)
    for equation in closed.jaxpr.eqns:
        if any(not hasattr(v, "val") and v in reached for v in equation.invars):
            reached.update(equation.outvars)
    outs = zip(sorted(axes), closed.jaxpr.outvars, strict=True)
    return [name for name, v in outs if not hasattr(v, "val") and v in reached]


def _costs(method: Any, state: Any, problem: Any, network: Any) -> dict[str, jax.Array]:
    """Return a step's increments of the axes, as float32 scalars."""
    cost = (
        method.cost(state, problem, network) if hasattr(method, "cost") else gossip(state, problem)
    )
    rounds = getattr(network, "repetitions", 1)  # of communication in one exchange
    axes = {
        "gradients": cost.gradients,
        "rounds": cost.exchanges * rounds,
        "vectors": cost.vectors * rounds,
        "bits": cost.bits * rounds,
    }
    links = getattr(cost, "links", None)
    if links is None:
        links = getattr(network, "link_count", None)
    if links is not None:
        axes["traffic"] = jnp.asarray(axes["bits"], jnp.float32) * links
    if hasattr(problem, "size"):
        axes["epochs"] = cost.gradients / problem.size
    calls = getattr(cost, "calls", None)
    calls = cost.gradients / samples(problem) if calls is None else calls
    axes["seconds"] = seconds(network, calls, cost.exchanges, getattr(cost, "overlap", 0))
    return {name: jnp.asarray(axes[name], jnp.float32) for name in sorted(axes)}


def _array(name: str, value: Any) -> jax.Array:
    require(
        jax.tree_util.all_leaves([value]),
        f"metric {name!r} returns a {type(value).__name__}; return one array.",
    )
    return jnp.asarray(value)


def _require_preserved(before: Any, after: Any) -> None:
    old, treedef = jax.tree_util.tree_flatten_with_path(before)
    new, changed = jax.tree.flatten(after)
    require(
        treedef == changed,
        f"step turns a state of structure {treedef} into one of {changed}; return the same fields.",
    )
    for (path, a), b in zip(old, new, strict=True):
        require(
            (a.shape, a.dtype) == (b.shape, b.dtype),
            f"step changes state{jax.tree_util.keystr(path)} from {a.dtype}{list(a.shape)} to "
            f"{b.dtype}{list(b.shape)}; give x0 the dtype of the problem's data, as "
            "problem.start() does, or let step keep shapes and dtypes.",
        )
