"""Sweeps: runs for all combinations of some arguments' values, in one compiled program."""

import dataclasses
import functools
import inspect
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from jaxdopt import longrun
from jaxdopt._arguments import require_same_key
from jaxdopt._checks import require
from jaxdopt._leaves import is_traced
from jaxdopt._memory import amount
from jaxdopt._mesh import explicit_mesh, first_axis, on_automatic_axes
from jaxdopt._pytree import replace
from jaxdopt.checkpoints import opened
from jaxdopt.honest import measured
from jaxdopt.networks import sharding
from jaxdopt.pieces import SWEEP, Batch, Layout, brief, devices_of, divided
from jaxdopt.programs import on_each_of
from jaxdopt.results import Result, readable, specs


def sweep(
    function: Callable[..., Any],
    over: str | Sequence[str | tuple[str, ...]] | Mapping[Any, str],
    *,
    memory: float | str | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
    devices: int | Sequence[Any] | None = None,
) -> Callable[..., Any]:
    """Return ``function`` over all combinations of the values of some of its arguments.

    Every leaf of a named argument has a first axis of members; the results have one leading axis
    for each name, in the order of ``over``. The sweep is a nest of `jax.vmap`s, so that `run`
    compiles once for all members.

    A `Result` among the other arguments, such as `run`'s ``after``, has to come from the same
    sweep: every member gets its own part of it. Arguments that it replaces, such as the key, may
    then be left out.

    **Pieces.** A sweep that needs more memory than is free, or than ``memory``, or that may take
    longer than ten seconds on a CPU, goes in pieces of as many members as fit, one after the other,
    all of one program. The numbers are those of one batch, to rounding, in NumPy arrays. An
    exception, of Ctrl-C too, which is answered at once, has what is finished as its ``result``.

    Args:
        function: `run`, or any function of pytrees.
        over: names of its parameters, such as ("algorithm", "network", "key"); or a dict that also
            names the axes, {"algorithm": "stepsize", "key": "seed"}, by which `label` finds them.
            Names in a tuple, (("algorithm", "network"), "key"), go together along one axis: the
            first method on the first network, and so on.
        memory: the bytes that a piece may take, or words such as "4 GiB"; by default what is free.
        checkpoint: a folder that keeps every piece when it is finished, from which the same call
            takes it instead of computing it again. Where an argument, the versions or the library's
            sources are others, the question is another one and is computed anew, beside the first.
        progress: show a bar with the rate and a metric; None: once the sweep takes two seconds.
        devices: JAX's, or how many of them: each computes its share of the members along one axis,
            with a copy of all other arguments. By default the arguments' own.

    Returns:
        A function of the same arguments.

    Raises:
        ValueError: names that are not parameters, or an argument that is not given or not stacked;
            more memory than there is for a single member or for all results, which is estimated
            from shapes before anything is allocated; options to a sweep that is traced; keys of the
            kinds "rbg" and "unsafe_rbg", whose draws under vmap are others than alone.

    Example:
        >>> import jaxdopt as jd
        >>> methods = jax.vmap(jd.DGD)(jnp.array([0.1, 0.2]))
        >>> keys = jax.random.split(jax.random.key(0), 3)
        >>> jd.sweep(jd.run, over=("algorithm", "key"))(
        ...     methods, problem, network, problem.start(), keys, steps=10
        ... ).history["gap"].shape
        (2, 3, 11)
    """
    groups, axes = _groups(function, over)
    room = None if memory is None else amount(memory)
    spread = devices_of(devices)
    named = {"memory": memory, "checkpoint": checkpoint, "devices": devices}
    named = [name for name, value in named.items() if value is not None]
    longrun.Options(progress=progress, checkpoint=checkpoint).check({})

    def named_axes(tree: Any) -> Any:
        return _each(tree, lambda one: replace(readable(one), axes=axes + one.axes))

    @functools.wraps(function)
    def swept(*args: Any, **kwargs: Any) -> Any:
        given = _arguments(function, args, kwargs)
        mesh = explicit_mesh(given)
        if mesh is not None:
            along = tuple(first_axis(given.get(group[0])) for group in groups)
            x = None if any("x0" in group for group in groups) else given.get("x0")
            return on_automatic_axes(
                mesh,
                lambda given: swept(**given),
                given,
                lambda result: specs(result, along, x),
            )
        batch = _measured(_spread(batch_of(given, groups, axes)))
        program = functools.partial(nested, function, groups)
        if is_traced(given) or is_traced(jnp.zeros(())):
            require(
                not named,
                f"{' and '.join(named)} {'is' if len(named) == 1 else 'are'} given to a sweep that "
                "is traced, as in jit or vmap; leave them out there, or sweep outside of it.",
            )
            return named_axes(program(batch.given))
        steps, every = given.get("steps"), given.get("every", 1)
        steps = int(steps) if isinstance(steps, int | np.integer) else 0  # of what is no run
        every = max(int(every), 1) if isinstance(every, int | np.integer) else 1
        records = steps // every
        pieces = divided(batch, program, room=room, steps=steps, records=records, devices=spread)
        if pieces.is_whole and checkpoint is None and not progress:  # no need to wait for it
            return named_axes(program(pieces.spread(batch.given), pieces.layout))
        with opened(checkpoint) as kept_of, bar_of(batch.members, progress) as bar:

            def note(members: int, part: Any) -> None:
                if isinstance(part, Result):
                    bar.set_postfix_str(brief(part.metrics, np.ndim(part.diverged)), refresh=False)
                bar.update(members)

            try:
                result = pieces.results(
                    functools.partial(program, layout=pieces.layout),
                    like=lambda: jax.eval_shape(lambda: program(pieces.first)),
                    kept=kept_of((function, groups, given)),
                    note=note,
                )
            except BaseException as error:
                _tell(error, batch.members, named_axes)
                raise
        return named_axes(result)

    return swept


def _groups(
    function: Callable[..., Any], over: Any
) -> tuple[tuple[tuple[str, ...], ...], tuple[str | None, ...]]:
    """Return the names that go along each axis of a sweep, and the axes' own names."""
    over = (over,) if isinstance(over, str) else over
    groups = tuple((names,) if isinstance(names, str) else tuple(names) for names in over)
    parameters = inspect.signature(function).parameters
    names = [name for group in groups for name in group]
    require(
        names and all(groups) and set(names) <= set(parameters) and len(set(names)) == len(names),
        f"over is {over}; name each of some of {', '.join(parameters)} once.",
    )
    axes = tuple(over.values()) if isinstance(over, Mapping) else (None,) * len(groups)
    known = [axis for axis in axes if axis is not None]
    require(
        all(isinstance(axis, str) for axis in known) and len(set(known)) == len(known),
        f"over is {over}; give every axis a name of its own, as in "
        '{"algorithm": "stepsize", "key": "seed"}.',
    )
    return groups, axes


def _arguments(function: Callable[..., Any], args: Any, kwargs: Any) -> dict[str, Any]:
    """Return the arguments of a call by name."""
    signature = inspect.signature(function)
    given = dict(signature.bind(*args, **kwargs).arguments)
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            given |= given.pop(name, {})
    return given


def batch_of(
    given: dict[str, Any],
    groups: tuple[tuple[str, ...], ...],
    axes: tuple[str | None, ...],
) -> Batch:
    """Return the arguments of a sweep, checked, with which of its axes each has in front."""
    swept_over = [name for group in groups for name in group]
    along = _along(given, swept_over)
    for name in along:
        _require_swept_alike(name, given[name], groups, axes, given)
    places, sizes = {name: tuple(range(len(groups))) for name in along}, []
    for axis, group in enumerate(groups):
        sizes.append({np.shape(given[name].diverged)[axis]: name for name in along})
        for name in group:
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
            places[name] = (axis,)
            sizes[-1].setdefault(*shapes.pop(), name)
        require(
            len(sizes[-1]) == 1,
            f"{listed(sizes[-1].values())} go along one axis and have {listed(sizes[-1])} members; "
            "give as many of each.",
        )
    given = {name: _each(value, lambda one: replace(one, axes=())) for name, value in given.items()}
    _require_own_draws(given, places)
    return Batch(given, places, tuple(next(iter(size)) for size in sizes))


def _spread(batch: Batch) -> Batch:
    """Return the arguments with the network of agents that are spread as those of the first x."""
    for name in ("x0", "state", "after"):
        value = batch.given.get(name)
        value = getattr(value, "state", value)
        for x in jax.tree.leaves(getattr(value, "x", value))[:1]:
            spread = sharding.along(x, len(batch.places.get(name, ())))
            if spread is not None and hasattr(batch.given.get("network"), "n"):
                network = spread(batch.given["network"])
                return dataclasses.replace(batch, given={**batch.given, "network": network})
    return batch


def _measured(batch: Batch) -> Batch:
    """Return the arguments with the part of the problem that metrics see, where some agents lie."""
    problem, network = batch.given.get("problem"), batch.given.get("network")
    if problem is None or network is None or "problem" in batch.places:
        return batch
    problem = measured(problem, network)
    return dataclasses.replace(batch, given={**batch.given, "problem": problem})


def _along(given: Mapping[str, Any], swept_over: Iterable[str]) -> list[str]:
    """Return the names of results of a sweep, of which every member gets its own part."""
    results = [name for name, value in given.items() if isinstance(value, Result)]
    return [n for n in results if n not in swept_over and np.ndim(given[n].diverged) > 0]


def nested(
    function: Callable[..., Any],
    groups: Sequence[Sequence[str]],
    given: Mapping[str, Any],
    layout: Layout | None = None,
) -> Any:
    """Return a function's values at all combinations of its arguments' members.

    Args:
        function: of arguments by name.
        groups: the names of those that go along each axis.
        given: all arguments.
        layout: along which axis they are on several devices, if along any.
    """
    swept_over = [name for group in groups for name in group]
    given, mapping = dict(given), {}  # of what goes along: which leaves have the sweep's axes
    for name in _along(given, swept_over):
        given[name], mapping[name] = _alongside(given[name], len(groups))
    mapped = [name for name in swept_over if given.get(name) is not None]
    fixed = {name: value for name, value in given.items() if name not in (*mapped, *mapping)}

    def call(values: dict[str, Any]) -> Any:
        return function(**fixed, **values)

    for axis, group in reversed([*enumerate(groups)]):
        inside = {name: 0 if name in group else None for name in mapped} | mapping
        over = SWEEP if layout is not None and layout.axis == axis else None
        call = jax.vmap(call, (inside,), spmd_axis_name=over)
    with on_each_of(None if layout is None else layout.mesh):
        return call({name: given[name] for name in (*mapped, *mapping)})


def bar_of(members: int, progress: bool | None) -> tqdm:
    """Return a bar of so many runs; None shows it once they take two seconds."""
    return tqdm(
        total=members,
        unit="run",
        unit_scale=members >= 10_000,
        delay=longrun.BAR if progress is None else 0,
        disable=progress is False,
    )


def _tell(error: BaseException, members: int, named_axes: Callable[[Any], Any]) -> None:
    """Say with an exception what is finished."""
    finished = getattr(error, "finished", 0)
    if finished:
        result = named_axes(error.result)  # type: ignore[attr-defined]
        if isinstance(result, Result) and isinstance(error, KeyboardInterrupt):
            result = replace(result, stopped="interrupt")
        error.result = result  # type: ignore[attr-defined]
        error.add_note(
            f"{finished:,} of {members:,} members of jd.sweep are finished; they are kept as this "
            "exception's result (in a notebook: import sys; sys.last_value.result)."
        )


def _require_own_draws(given: Mapping[str, Any], swept: Iterable[str]) -> None:
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
    groups: Sequence[Sequence[str]],
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
    for group, size in zip(groups, batch, strict=False):
        for parameter in group:
            for leaf in jax.tree.leaves(given.get(parameter))[:1]:
                require(
                    len(leaf) == size,
                    f"{name} has {size} members along {parameter} and {len(leaf)} are given; go on "
                    "with the same values in the same order.",
                )
    if given.get("key") is not None and name == "after" and any("key" in own for own in groups):
        place = [size if "key" in own else 1 for own, size in zip(groups, batch, strict=False)]
        require_same_key(given["key"].reshape(place), result.key)


def listed(names: Iterable[Any]) -> str:
    """Return names as a part of a sentence."""
    return ", ".join(map(str, names)) or "none"
