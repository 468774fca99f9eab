"""Sweeps: runs for all combinations of some arguments' values, in one compiled program."""

import functools
import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdopt._arguments import require_same_key
from jaxdopt._checks import require
from jaxdopt._leaves import is_traced
from jaxdopt._memory import require_room
from jaxdopt._mesh import explicit_mesh, first_axis, on_automatic_axes
from jaxdopt._pytree import replace
from jaxdopt.networks import sharding
from jaxdopt.results import Result, readable, specs


def sweep(
    function: Callable[..., Any], over: str | Sequence[str] | Mapping[str, str]
) -> Callable[..., Any]:
    """Return ``function`` over all combinations of the values of some of its arguments.

    Every leaf of a named argument has a first axis of members; the results have one leading axis
    for each name, in the order of ``over``. The sweep is a nest of `jax.vmap`s, so that `run`
    compiles once for all members.

    A `Result` among the other arguments, such as `run`'s ``after``, has to come from the same
    sweep: every member gets its own part of it. Arguments that it replaces, such as the key, may
    then be left out.

    Args:
        function: `run`, or any function of pytrees.
        over: names of its parameters, such as ("algorithm", "network", "key"); or a dict that also
            names the axes, {"algorithm": "stepsize", "key": "seed"}, by which `label` finds them.

    Returns:
        A function of the same arguments.

    Raises:
        ValueError: names that are not parameters, or an argument that is not given or not stacked;
            more memory than there is, which is estimated from shapes before anything is allocated;
            keys of the kinds "rbg" and "unsafe_rbg", whose draws under vmap are others than alone.

    Example:
        >>> import jaxdopt as jd
        >>> methods = jax.vmap(jd.DGD)(jnp.array([0.1, 0.2]))
        >>> keys = jax.random.split(jax.random.key(0), 3)
        >>> jd.sweep(jd.run, over=("algorithm", "key"))(
        ...     methods, problem, network, problem.start(), keys, steps=10
        ... ).history["gap"].shape
        (2, 3, 11)
    """
    over = (over,) if isinstance(over, str) else over
    swept_over = tuple(over)
    signature = inspect.signature(function)
    unknown = [name for name in swept_over if name not in signature.parameters]
    require(
        swept_over and not unknown and len(set(swept_over)) == len(swept_over),
        f"over is {over}; name each of some of {', '.join(signature.parameters)} once.",
    )
    axes = tuple(over.values()) if isinstance(over, Mapping) else (None,) * len(swept_over)
    named = [axis for axis in axes if axis is not None]
    require(
        all(isinstance(axis, str) for axis in named) and len(set(named)) == len(named),
        f"over is {over}; give every axis a name of its own, as in "
        '{"algorithm": "stepsize", "key": "seed"}.',
    )

    @functools.wraps(function)
    def swept(*args: Any, **kwargs: Any) -> Any:
        given = dict(signature.bind(*args, **kwargs).arguments)
        for name, parameter in signature.parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                given |= given.pop(name, {})
        mesh = explicit_mesh(given)
        if mesh is not None:
            along = tuple(first_axis(given.get(name)) for name in swept_over)
            x = None if "x0" in swept_over else given.get("x0")
            return on_automatic_axes(
                mesh,
                lambda given: swept(**given),
                given,
                lambda result: specs(result, along, x),
            )
        results = [n for n, v in given.items() if isinstance(v, Result) and n not in swept_over]
        along = [name for name in results if np.ndim(given[name].diverged) > 0]
        for name in along:
            _require_swept_alike(name, given[name], swept_over, axes, given)
        for name in swept_over:
            if along and given.get(name) is None:
                continue
            require(name in given, f"{name} is swept over and not given; give it, stacked.")
            shapes = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(given[name])}
            require(
                len(shapes) == 1 and () not in shapes,
                f"{name} is swept over and its leaves have leading axes "
                f"{sorted(shapes)}; stack the members along one, as jax.vmap(Method)(values) or "
                "jd.networks.stack do.",
            )
        given = {
            name: _each(value, lambda one: replace(one, axes=())) for name, value in given.items()
        }
        mapping = {}  # of what goes along: which leaves have the sweep's axes
        for name in along:
            given[name], mapping[name] = _alongside(given[name], len(axes))
        mapped = [name for name in swept_over if given.get(name) is not None]
        given = _spread(given, mapped, len(axes) if along else 0)

        def program(given: dict[str, Any]) -> Any:
            fixed = {name: v for name, v in given.items() if name not in (*mapped, *along)}

            def call(values: dict[str, Any]) -> Any:
                return function(**fixed, **values)

            for own in reversed(swept_over):
                inside = {name: 0 if name == own else None for name in mapped} | mapping
                call = jax.vmap(call, (inside,))
            return call({name: given[name] for name in (*mapped, *along)})

        _require_own_draws(given, (*mapped, *along))
        _require_room(program, given, mapped)
        result = _each(program(given), readable)
        return _each(result, lambda one: replace(one, axes=axes + one.axes))

    return swept


def _spread(given: dict[str, Any], mapped: Sequence[str], depth: int) -> dict[str, Any]:
    """Return the arguments with the network of agents that are spread as those of the first state.

    A result has ``depth`` axes of the sweep in front.
    """
    places = {"x0": int("x0" in mapped), "state": int("state" in mapped), "after": depth}
    for name, axis in places.items():
        value = given.get(name)
        value = getattr(value, "state", value)
        for x in jax.tree.leaves(getattr(value, "x", value))[:1]:
            spread = sharding.along(x, axis)
            if spread is not None and hasattr(given.get("network"), "n"):
                return given | {"network": spread(given["network"])}
    return given


def _require_own_draws(given: dict[str, Any], swept: Iterable[str]) -> None:
    """Refuse keys whose draws under vmap are others than one by one."""
    for name in swept:
        for leaf in jax.tree.leaves(given[name]):
            array = isinstance(leaf, jax.Array)
            keys = array and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
            kind = str(jax.random.key_impl(leaf)) if keys else ""
            require(
                "rbg" not in kind,
                f"{name} has keys of the kind {kind!r}, whose draws under vmap are others than in "
                'a run of each; make them with jax.random.key(0, impl="threefry2x32"), or run one '
                "after the other.",
            )


def _require_room(
    program: Callable[[dict[str, Any]], Any], given: dict[str, Any], mapped: Sequence[str]
) -> None:
    """Refuse sweeps that need more memory than there is."""
    sizes = [len(leaf) for name in mapped for leaf in jax.tree.leaves(given[name])[:1]]
    steps, every = given.get("steps"), given.get("every", 1)
    records = 0  # of what is no run, or is refused by it
    if isinstance(steps, int | np.integer) and isinstance(every, int | np.integer):
        records = int(steps) // max(int(every), 1)
    require_room(
        program,
        given,
        {name: value for name, value in given.items() if name not in mapped},
        records=records,
        members=math.prod(sizes),
    )


def _each(tree: Any, change: Callable[[Result], Result]) -> Any:
    """Return a tree in which all results are changed."""
    return jax.tree.map(
        lambda node: change(node) if isinstance(node, Result) else node,
        tree,
        is_leaf=lambda node: isinstance(node, Result),
    )


def _alongside(result: Result, depth: int) -> tuple[Result, Any]:
    """Return a swept result, and which of its leaves have the sweep's axes.

    The steps have none if all members are at the same one, so that they stay concrete numbers.
    """
    steps = result.costs["step"]
    mapped = dict.fromkeys(result.costs, 0)
    if not is_traced(steps):
        members = np.asarray(steps).reshape(-1, *np.shape(steps)[depth:])
        if np.all(members == members[0]):
            result = replace(result, costs=result.costs | {"step": members[0]})
            mapped |= {"step": None}
    return result, Result(0, 0, mapped, 0, 0)


def _require_swept_alike(
    name: str,
    result: Result,
    over: tuple[str, ...],
    axes: tuple[str | None, ...],
    given: dict[str, Any],
) -> None:
    batch, known = np.shape(result.diverged), result.axes[: len(axes)]
    require(
        len(batch) >= len(axes),
        f"{name} has {len(batch)} swept axes and the sweep {len(axes)}; give the result of the "
        "same sweep, or take jd.run for a single run.",
    )
    require(
        all(None in pair or len(set(pair)) == 1 for pair in zip(known, axes, strict=False)),
        f"{name} is swept over {listed(known)} and the sweep is over {listed(axes)}; give both the "
        "same axes in the same order.",
    )
    for parameter, size in zip(over, batch, strict=False):
        for leaf in jax.tree.leaves(given.get(parameter))[:1]:
            require(
                len(leaf) == size,
                f"{name} has {size} members along {parameter} and {len(leaf)} are given; go on "
                "with the same values in the same order.",
            )
    if "key" in over and given.get("key") is not None and name == "after":
        place = [
            size if parameter == "key" else 1 for parameter, size in zip(over, batch, strict=False)
        ]
        require_same_key(given["key"].reshape(place), result.key)


def listed(names: Iterable[Any]) -> str:
    """Return names as a part of a sentence."""
    return ", ".join(map(str, names)) or "none"
