"""What `run` accepts: each refusal is one sentence that names the value and the remedy."""

import types
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdopt._checks import count, require
from jaxdopt._leaves import is_traced
from jaxdopt._numbers import Scheduled
from jaxdopt._pytree import number_fields
from jaxdopt._wrapper import layers


def strong(leaf: Any) -> jax.Array:
    if isinstance(leaf, jax.Array) and not leaf.weak_type:
        return leaf
    leaf = jnp.asarray(leaf)
    return jax.lax.convert_element_type(leaf, leaf.dtype)


KINDS = {  # what is asked of each, and an example
    "algorithm": (("init", "step"), "give a method such as jd.DGD(0.1)"),
    "problem": (("n", "grad"), "give an object with n, d and grad(x, key)"),
    "network": (("n", "at"), "give jd.networks.metropolis(graph) or mixing(W)"),
    "state": (("x",), "give the state of a run, result.state"),
}


def require_kind(role: str, value: Any) -> None:
    """Refuse what is not a method, a problem, a network or a state, by what it lacks."""
    needed, remedy = KINDS[role]
    missing = [name for name in needed if not hasattr(value, name)]
    if missing == ["grad"] and hasattr(value, "value"):  # `roles.check` says whose this is
        missing = []
    if not missing and not isinstance(value, type | types.FunctionType):
        return
    name = getattr(value, "__name__", "")
    example = "stepsize=0.1" if role == "algorithm" else "..."
    require(
        not isinstance(value, type),
        f"{role} is the class {name}; give an instance, such as {name}({example}).",
    )
    require(
        not isinstance(value, types.FunctionType),
        f"{role} is the function {name}; call it, and give what {name}(...) returns.",
    )
    if role == "network" and isinstance(value, list | tuple | dict):
        remedy += " (several go through jd.compare, or jd.networks.stack and jd.sweep)"
    raise ValueError(f"{role} is {kind(value)} without {' and '.join(missing)}; {remedy}.")


def require_kinds(algorithm: Any, problem: Any, network: Any, state: Any = None) -> None:
    """Refuse what is not a method, a problem, a network or a state."""
    given = {"algorithm": algorithm, "problem": problem, "network": network}
    for role, value in (given if state is None else given | {"state": state}).items():
        require_kind(role, value)


def kind(value: Any) -> str:
    """Return what a value is, as in "an array" or "a Graph"."""
    name = "array" if _is_array(value) else type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def require_metrics(
    metrics: Any, defaults: Any, known: dict[str, Any], axes: set[str]
) -> dict[str, Any]:
    """Return the metrics to record by name: those of the known that are wanted, and the user's."""
    require(
        metrics is None or isinstance(metrics, dict),
        f"metrics is {metrics!r}; give {{name: function of (state, problem)}}, and name those that "
        "are known in defaults=.",
    )
    for name, metric in (metrics or {}).items():
        require(isinstance(name, str), f"a metric's name is {name!r}; give a string.")
        require(
            callable(metric) and not isinstance(metric, type),
            f"metric {name!r} is {metric!r}; give a function of (state, problem).",
        )
    if defaults is not None:
        require(
            isinstance(defaults, list | tuple) and all(name in [*known] for name in defaults),
            f"defaults is {defaults!r}; name some of {', '.join(known)}, as in "
            f"{(next(iter(known)),)}, or give () for none.",
        )
        known = {name: known[name] for name in defaults}
    clash = sorted(set(metrics or {}) & {*known, *axes})
    require(not clash, f"metric {', '.join(clash)} is recorded already; give yours another name.")
    return known | (metrics or {})


def require_after(after: Any, x0: Any, key: Any, state: Any, start: Any) -> None:
    """Refuse to go on from what is no result, is many, or is contradicted."""
    require(
        all(hasattr(after, name) for name in ("state", "metrics", "costs", "key")),
        f"after is {kind(after)}; give the Result of a run.",
    )
    shape = np.shape(after.diverged)
    require(
        shape == (),
        f"after is a swept result of shape {shape}; go on with the same sweep, "
        "jd.sweep(jd.run, over=...)(..., after=result).",
    )
    require(
        hasattr(after.state, "x") and after.key is not None,
        "after has no state or no key; give the Result as the run returned it.",
    )
    given = [name for name, value in (("x0", x0), ("state", state)) if value is not None]
    given += ["start"] if is_traced(start) or start != 0 else []
    require(
        not given,
        f"after is given and so is {' and '.join(given)}; leave {' and '.join(given)} out, as a "
        "result goes on from its own state and step.",
    )
    if key is not None:
        require_key(key)
        require_same_key(key, after.key)


def require_same_key(key: Any, before: Any) -> None:
    """Refuse another key than the one whose stream of random numbers goes on."""
    if is_traced((key, before)):
        return
    same = key.dtype == before.dtype
    if same:
        mine, its = np.broadcast_arrays(*(jax.random.key_data(k) for k in (key, before)))
        same = np.array_equal(mine, its)
    require(
        same,
        "key is another than that of the result; leave it out to go on exactly, or start anew with "
        "state=result.state and start=result.next_step.",
    )


def require_records(before: dict[str, Any], now: Any, costs: Any, costs_now: set[str]) -> None:
    """Refuse to join records of other names or shapes."""
    for what, a, b, remedy in (
        ("metrics", set(before), set(now), "give the same metrics and defaults as before"),
        ("costs", set(costs), costs_now, "take a problem and a network with the same"),
    ):
        lost, new = (", ".join(sorted(names)) for names in (a - b, b - a))
        changes = [f"{names} {is_}" for names, is_ in ((lost, "missing"), (new, "new")) if names]
        require(
            not changes,
            f"this run does not record the same {what} as the result that it follows, with "
            f"{' and '.join(changes)}; {remedy}.",
        )
    for name, row in before.items():
        require(
            np.shape(row) == now[name].shape,
            f"metric {name!r} had shape {np.shape(row)} and has {now[name].shape}; give the same "
            "metric as before.",
        )


def require_state(algorithm: Any, state: Any, fresh: Any) -> None:
    """Refuse another method's state, or one of other shapes; ``fresh`` is what `init` makes."""
    method = type(algorithm).__name__
    require(
        jax.tree.structure(state) == jax.tree.structure(fresh),
        f"the state is {_fields(state)}, and {method} needs {_fields(fresh)}; give the state of a "
        f"run of {method}.",
    )
    wanted = jax.tree.leaves(fresh)
    for (path, a), b in zip(jax.tree.leaves_with_path(state), wanted, strict=True):
        require(
            (a.shape, a.dtype) == (b.shape, b.dtype),
            f"state{jax.tree_util.keystr(path)} is {a.dtype}{list(a.shape)}, and {method} needs "
            f"{b.dtype}{list(b.shape)} here; give the state of a run on the same network.",
        )


def _fields(state: Any) -> str:
    kind = type(state)
    return f"{kind.__module__.rpartition('.')[2]}.{kind.__name__}({', '.join(vars(state))})"


def as_estimates(x0: Any, problem: Any) -> Any:
    """Return x0 as arrays: [n, d], or a tree of leaves [n, ...] for a problem without d."""
    if isinstance(x0, jax.Array) and x0.dtype.kind == "f" and not x0.weak_type:
        return x0
    if isinstance(x0, list):
        try:
            x0 = np.asarray(x0)
        except ValueError as error:
            raise ValueError("x0 is a list of unequal rows; give an [n, d] array.") from error
    remedy = "give an [n, d] array, such as problem.start()"
    remedy = "give it as state=, and no x0" if hasattr(x0, "x") else remedy
    remedy = "give it as after=, and no x0" if hasattr(x0, "costs") else remedy
    flat = getattr(problem, "d", None) is not None
    require(_is_array(x0) or not flat, f"x0 is {kind(x0)}; {remedy}.")

    def leaf(value: Any) -> jax.Array:
        dtype = value.dtype if _is_array(value) else np.asarray(value).dtype
        require(
            jnp.issubdtype(dtype, jnp.floating),
            f"x0 has dtype {dtype}; give floating estimates, such as problem.start().",
        )
        return strong(value)

    return jax.tree.map(leaf, x0)


def require_counts(steps: Any, every: Any, start: Any) -> None:
    count("steps", steps)
    count("every", every)
    require(
        steps % every == 0,
        f"steps = {steps} is not a multiple of every = {every}; "
        f"take {steps // every * every or every} steps, or another every.",
    )
    if type(start) is int and start >= 0:
        return
    array = isinstance(start, jax.Array | np.ndarray | np.generic)
    integer = jnp.issubdtype(start.dtype, jnp.integer) if array else type(start) is int
    require(
        integer and np.shape(start) == (),
        f"start is {start!r}; give the first step's number, an integer of at least 0.",
    )
    require(start >= 0, f"start is {start}; give the first step's number, at least 0.")


def require_span(start: Any, steps: int) -> None:
    """Refuse steps whose numbers are not int32, as keys and tables count in it."""
    first = 0 if is_traced(start) else int(start)
    if first + steps >= 2**31:
        raise ValueError(
            f"the run would end at step {first + steps}; stay below 2**31, or start at 0 with "
            "another key."
        )


def require_horizon(network: Any, start: Any, steps: int) -> None:
    """Refuse to go on where a network's table of rounds ends; JAX would repeat its last one."""
    horizon = getattr(network, "horizon", None)
    if horizon is None:
        return
    require(
        start + steps <= horizon,
        f"the network knows {horizon} rounds and the run needs round {start} to "
        f"{start + steps - 1}; make it longer, or take fewer steps.",
    )


def require_key(key: Any) -> None:
    if not (isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)):
        raise ValueError(
            f"key is {described(key)}, not a JAX key; make one with jax.random.key(0)."
        )
    require(
        key.shape == (),
        f"key has shape {key.shape}; give one key, or sweep over keys with "
        'jd.sweep(jd.run, over=("key",)).',
    )


def described(value: Any) -> str:
    if isinstance(value, jax.Array | np.ndarray):
        return f"an array of {value.dtype}{list(value.shape)}"
    return repr(value)


def require_agents(problem: Any, network: Any, x: Any) -> None:
    require(
        problem.n == network.n,
        f"the problem has {problem.n} agents and the network {network.n}; give both the same.",
    )
    d = getattr(problem, "d", None)
    flat = isinstance(x, jax.Array | np.ndarray) and d is not None
    for leaf in jax.tree.leaves(x):
        wanted = (problem.n, d) if flat else (problem.n, *np.shape(leaf)[1:])
        if np.shape(leaf) != wanted:
            raise ValueError(
                f"the estimates have shape {np.shape(leaf)} and the problem needs {wanted}; start "
                "from problem.start()."
            )


def require_numbers(algorithm: Any, n: int) -> None:
    """Refuse number fields whose shape is neither a scalar's nor one row an agent's."""
    for name, value in _numbers(algorithm):
        shape = np.shape(value) if _is_array(value) else ()
        require(
            shape in ((), (n, 1)),
            f"{name} has shape {shape}; give a scalar or [n, 1] = ({n}, 1), or sweep over it with "
            'jd.sweep(jd.run, over=("algorithm", ...)).',
        )


def require_schedules(algorithm: Any, start: Any, steps: int) -> None:
    """Refuse schedules that leave their fields' ranges within a run: known at up to 256 steps."""
    scheduled = [value for _, value in _numbers(algorithm) if isinstance(value, Scheduled)]
    if scheduled and not is_traced(start):
        tried = int(start) + np.linspace(0, steps - 1, 256).astype(int)
        for value in scheduled:
            value.require_along(tried)


def _numbers(algorithm: Any) -> Iterator[tuple[str, Any]]:
    """Yield the number fields of a method, what it wraps and their compressors, with values."""
    parts = list(layers(algorithm))
    for part in parts:
        parts += [own for own in vars(part).values() if hasattr(own, "bits")]
        for name in number_fields(type(part)):
            yield name, getattr(part, name)


def require_gradient(problem: Any, x: Any, key: Any) -> None:
    """Refuse a problem whose gradient has other shapes than the estimates: JAX would broadcast it.

    It traces the gradient once, so that its place is where the run is traced, too.
    """
    given = jax.eval_shape(problem.grad, x, key)
    name = type(problem).__name__
    require(
        jax.tree.structure(given) == jax.tree.structure(x),
        f"grad of the {name} returns a {type(given).__name__}; return gradients as x is given.",
    )
    for gradient, leaf in zip(jax.tree.leaves(given), jax.tree.leaves(x), strict=True):
        require(
            gradient.shape == np.shape(leaf),
            f"grad of the {name} has shape {gradient.shape} for x of shape {np.shape(leaf)}; "
            "return one gradient row an agent.",
        )
        require(
            jnp.issubdtype(gradient.dtype, jnp.floating),
            f"grad of the {name} has dtype {gradient.dtype}; return floating numbers.",
        )


def require_values(problem: Any, x: Any, key: Any) -> None:
    """Refuse a problem that does not return one floating value an agent."""
    given = jax.eval_shape(problem.value, x, key)
    shape, dtype = (getattr(given, name, None) for name in ("shape", "dtype"))
    require(
        shape == np.shape(x)[:1] and jnp.issubdtype(given.dtype, jnp.floating),
        f"value of the {type(problem).__name__} has shape {shape} and dtype {dtype} for x of shape "
        f"{np.shape(x)}; return one floating number an agent.",
    )


def _is_array(value: Any) -> bool:
    return isinstance(value, jax.Array | np.ndarray)
