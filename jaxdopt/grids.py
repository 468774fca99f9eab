"""Grids: a method at all combinations of some of its fields' values, stacked into programs."""

import collections
import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdopt._checks import require
from jaxdopt._wrapper import layers, wrapped
from jaxdopt.sweep import listed


@contextlib.contextmanager
def named(*names: str) -> Iterator[None]:
    """Say in every error which of many members it is about."""
    try:
        yield
    except Exception as error:
        if type(error) is ValueError:
            error.args = (f"{', '.join(names)}: {error}",)
        else:
            error.add_note(f"in jd.compare: {', '.join(names)}")
        raise


@dataclasses.dataclass(frozen=True)
class Grid:
    """A method at all combinations of some fields' values."""

    method: Any
    fields: dict[str, dict[Any, Any]]  # {field: {label: value}}
    points: list[Any]  # a method each, the last field's values running fastest

    @functools.cached_property
    def programs(self) -> list[tuple[Any, list[int]]]:
        """The points of one structure stacked, with their places: a program to compile each."""
        alike: dict[Any, list[int]] = {}
        for place, point in enumerate(self.points):
            leaves, structure = jax.tree.flatten(point)
            alike.setdefault((structure, *map(np.shape, leaves)), []).append(place)
        return [
            (jax.tree.map(_stacked, *(self.points[place] for place in places)), places)
            for places in alike.values()
        ]

    def labels(self, field: str) -> list[Any]:
        """Return a field's label at every point: the method's own number where it is not swept."""
        if field in self.fields:
            place = list(self.fields).index(field)
            return [point[place] for point in itertools.product(*self.fields.values())]
        own = getattr(self.method, field, None)
        return [own if isinstance(own, int | float) else None] * len(self.points)


def _stacked(*leaves: Any) -> jax.Array:
    if any(isinstance(leaf, jax.Array) for leaf in leaves):
        return jnp.stack(leaves)
    return jnp.asarray(np.stack(leaves))


def grids_of(algorithms: Mapping[str, Any], over: Any) -> tuple[bool, dict[str, Grid]]:
    """Return whether every method has its own grid, and the grids by method."""
    require(
        over is None or isinstance(over, Mapping),
        f"over is {over!r}; give {{field: values}}, or {{method: {{field: values}}}}.",
    )
    require(
        over is None or len(over) > 0,
        "over is empty; give the values to try, such as {'stepsize': [0.1, 0.2]}, or leave it out.",
    )
    over = {} if over is None else over
    methods = [key for key in over if key in algorithms and isinstance(over[key], Mapping)]
    others = [str(key) for key in over if key not in methods]
    require(
        not (methods and others),
        f"over names the methods {', '.join(methods)}, and {', '.join(others)}, which are none; "
        "give {field: values} for all, or {method: {field: values}}.",
    )
    grids = {}
    for name, method in algorithms.items():
        grids[name] = _grid(name, method, over.get(name, {}) if methods else over)
    return bool(methods), grids


def _grid(name: str, method: Any, over: Mapping[str, Any]) -> Grid:
    """Return a method at all combinations of the values, checked by its constructor."""
    if not over:
        return Grid(method, {}, [method])
    known = {name: field for name, field in fields_of(method).items() if field.init}
    fields = {}
    for field, values in over.items():
        require(
            field in known,
            f"{name} has no field {field!r} to sweep; it has {listed(known)}. Methods of other "
            "fields take grids of their own, over={method: {field: values}}.",
        )
        with named(name):
            fields[field] = _values(field, values, not known[field].metadata.get("static"))
    combinations = itertools.product(*(values.values() for values in fields.values()))
    with named(name):
        points: list[Any] = [
            _with(method, dict(zip(fields, values, strict=True))) for values in combinations
        ]
    return Grid(method, fields, points)


def fields_of(method: Any) -> dict[str, Any]:
    """Return the dataclass fields of a method and of what it wraps, none if it is no dataclass."""
    found: dict[str, Any] = {}
    for layer in layers(method):
        own = dataclasses.fields(layer) if dataclasses.is_dataclass(layer) else ()
        found = {field.name: field for field in own} | found
    return found


def _with(method: Any, values: dict[str, Any]) -> Any:
    """Return a method with other values of some fields, its own or those of what it wraps."""
    own = {field.name for field in dataclasses.fields(method)}
    changes = {name: value for name, value in values.items() if name in own}
    rest = {name: value for name, value in values.items() if name not in own}
    if rest:
        changes[method.wraps] = _with(changes.get(method.wraps, wrapped(method)), rest)
    return dataclasses.replace(method, **changes)


def _values(field: str, values: Any, numbers: bool) -> dict[Any, Any]:
    """Return a field's values by label: numbers and strings by themselves, others by their text."""
    if isinstance(values, np.ndarray | jax.Array):
        require(
            np.ndim(values) == 1,
            f"over[{field!r}] has shape {np.shape(values)}; give a list of values.",
        )
        values = np.asarray(values).tolist()
    require(
        isinstance(values, Iterable) and not isinstance(values, str),
        f"over[{field!r}] is {values!r}; give a list of values.",
    )
    labels: list[Any]
    if isinstance(values, Mapping):
        labels, values = [*map(str, values)], [*values.values()]
    else:
        values = [_plain(value) for value in values]
        labels = [v if isinstance(v, int | float | str) else _text(v) for v in values]
        if numbers and not any(isinstance(label, str) for label in labels):
            labels = [*map(float, labels)]
        elif any(isinstance(label, str) for label in labels):
            labels = [*map(str, labels)]
    require(values, f"over[{field!r}] has shape (0,); give at least one value.")
    twice = sorted(str(label) for label, times in collections.Counter(labels).items() if times > 1)
    require(
        not twice,
        f"over[{field!r}] has {', '.join(twice)} more than once; give every value once, or "
        "{label: value}.",
    )
    return dict(zip(labels, values, strict=True))


def _plain(value: Any) -> Any:
    """Return scalars of NumPy and JAX as Python numbers, which can be static fields, too."""
    array = isinstance(value, np.generic | np.ndarray | jax.Array)
    return value.item() if array and np.ndim(value) == 0 else value


def _text(value: Any) -> str:
    """Return a short name of a value: without the fields that have their defaults."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [(f.name, getattr(value, f.name), f.default) for f in dataclasses.fields(value)]
        shown = [f"{name}={_text(own)}" for name, own, default in fields if own is not default]
        return f"{type(value).__name__}({', '.join(shown)})"
    return getattr(value, "__name__", None) or " ".join(repr(_plain(value)).split())
