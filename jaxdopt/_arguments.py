"""What `run` accepts: each refusal is one sentence that names the value and the remedy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdopt._pytree import count, number_fields, require


def strong(leaf: Any) -> jax.Array:
    leaf = jnp.asarray(leaf)
    return jax.lax.convert_element_type(leaf, leaf.dtype)


def require_kinds(algorithm: Any, problem: Any, network: Any, state: Any) -> None:
    """Refuse what is not a method, a problem, a network or a state, by what it lacks."""
    name = getattr(algorithm, "__name__", "Method")
    require(
        not isinstance(algorithm, type),
        f"algorithm is the class {name}; give an instance, such as {name}(stepsize=0.1).",
    )
    for role, value, needed, remedy in (
        ("algorithm", algorithm, ("init", "step"), "give a method such as jd.DGD(0.1)"),
        ("problem", problem, ("n", "grad"), "give an object with n, d and grad(x, key)"),
        ("network", network, ("n", "at"), "give jd.networks.metropolis(graph) or mixing(W)"),
        ("state", state, ("x",), "give the state of a run, result.state"),
    ):
        require(
            not isinstance(value, type),
            f"{role} is the class {getattr(value, '__name__', '')}; {remedy}.",
        )
        missing = [name for name in needed if not hasattr(value, name)]
        require(
            not missing or (role == "state" and value is None),
            f"{role} is a {type(value).__name__} without {' and '.join(missing)}; {remedy}.",
        )


def require_composite(algorithm: Any, problem: Any) -> None:
    """Refuse a method that would leave out the problem's regularizer without a word."""
    regularizer = getattr(problem, "regularizer", None)
    require(
        regularizer is None or getattr(algorithm, "composite", False),
        f"{type(algorithm).__name__} ignores the regularizer {type(regularizer).__name__}; take a "
        "composite method such as PGEXTRA or NIDS, or the problem without it.",
    )


def require_metrics(metrics: Any) -> None:
    require(
        metrics is None or isinstance(metrics, dict),
        f"metrics is {metrics!r}; give {{name: function of (state, problem)}}.",
    )
    for name, metric in (metrics or {}).items():
        require(
            callable(metric),
            f"metric {name!r} is {metric!r}; give a function of (state, problem).",
        )


def as_estimates(x0: Any) -> Any:
    def leaf(value: Any) -> jax.Array:
        value = jnp.asarray(value)
        require(
            jnp.issubdtype(value.dtype, jnp.floating),
            f"x0 has dtype {value.dtype}; give floating estimates, such as problem.start().",
        )
        return strong(value)

    return leaf(x0) if isinstance(x0, list) else jax.tree.map(leaf, x0)


def require_counts(steps: Any, every: Any, start: Any) -> None:
    count("steps", steps)
    count("every", every)
    require(
        steps % every == 0,
        f"steps = {steps} is not a multiple of every = {every}; "
        f"take {steps // every * every or every} steps, or another every.",
    )
    require(
        np.shape(start) == () and jnp.issubdtype(jnp.result_type(start), jnp.integer),
        f"start is {start!r}; give the first step's number, an integer of at least 0.",
    )
    require(start >= 0, f"start is {start}; give the first step's number, at least 0.")


def require_horizon(network: Any, start: Any, steps: int) -> None:
    """Refuse to go on where a network's table of rounds ends; JAX would repeat its last one."""
    horizon = getattr(network, "horizon", None)
    require(
        horizon is None or start + steps <= horizon,
        f"the network knows {horizon} rounds and the run needs round {start} to "
        f"{start + steps - 1}; make it longer, or take fewer steps.",
    )


def require_key(key: Any) -> None:
    require(
        isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key),
        f"key is {_described(key)}, not a JAX key; make one with jax.random.key(0).",
    )
    require(
        key.shape == (),
        f"key has shape {key.shape}; give one key, or sweep over keys with "
        'jd.sweep(jd.run, over=("key",)).',
    )


def _described(value: Any) -> str:
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
        require(
            np.shape(leaf) == wanted,
            f"the estimates have shape {np.shape(leaf)} and the problem needs {wanted}; start "
            "from problem.start().",
        )


def require_numbers(algorithm: Any, n: int) -> None:
    """Refuse number fields whose shape is neither a scalar's nor one row an agent's."""
    for name in number_fields(type(algorithm)):
        shape = np.shape(value) if _is_array(value := getattr(algorithm, name)) else ()
        require(
            shape in ((), (n, 1)),
            f"{name} has shape {shape}; give a scalar or [n, 1] = ({n}, 1), or sweep over it with "
            'jd.sweep(jd.run, over=("algorithm", ...)).',
        )


def _is_array(value: Any) -> bool:
    return isinstance(value, jax.Array | np.ndarray)
