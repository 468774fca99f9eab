"""Grids: a method at all combinations of some of its fields' values, stacked into programs."""

import collections
import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxdopt._arguments import require_key
from jaxdopt._checks import require
from jaxdopt._numbers import Number, Scheduled, number
from jaxdopt._opaque import disclose
from jaxdopt._pytree import checked_fields, number_fields, pytree, replace_checked, static
from jaxdopt._wrapper import layers
from jaxdopt.optimizers import Optimizer, optimizer
from jaxdopt.sweep import listed

NETWORK = "network"  # the first word of fields of networks
Path = tuple[str, ...]


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


class Points(dict[str, Any]):
    """Values of fields that go together, in the place of a grid in `compare`'s ``over``.

    The first point has the first value of every field, and so on: hyperparameters that are drawn at
    random, or listed. They lie along one dimension ``choice``, with the fields as coordinates.

    Args:
        fields: {field: values}, as many values of each.

    Example:
        >>> import jax
        >>> import jaxdopt as jd
        >>> first, second = jax.random.split(jax.random.key(0))
        >>> over = jd.Points(
        ...     {
        ...         "stepsize": jd.log_uniform(first, 20, 1e-3, 1.0),
        ...         "consensus_stepsize": jax.random.uniform(second, (20,)),
        ...     }
        ... )
        >>> dataset = jd.compare(
        ...     {"CHOCO": jd.CHOCOSGD(0.1, jd.compressors.TopK(2))},
        ...     jd.problems.quadratic(4, 5),
        ...     jd.networks.metropolis(jd.graphs.ring(4)),
        ...     over=over,
        ...     steps=10,
        ...     progress=False,
        ... )
        >>> dict(dataset["gap"].sizes)
        {'algorithm': 1, 'network': 1, 'choice': 20, 'seed': 1, 'step': 11}
    """

    def __init__(self, fields: Mapping[str, Any]) -> None:
        """Take the values by field."""
        super().__init__(fields)


def log_uniform(key: jax.Array, count: int, least: float, most: float) -> np.ndarray:
    """Return numbers [count] drawn at random, with logarithms uniform between two numbers'.

    Raises:
        ValueError: a key that is none, no positive count, or not 0 < least <= most.

    Example:
        >>> import jax
        >>> log_uniform(jax.random.key(0), 1000, 1e-4, 1.0).shape
        (1000,)
    """
    require_key(key)
    require(
        isinstance(count, int | np.integer) and not isinstance(count, bool) and count > 0,
        f"count is {count!r}; give how many numbers to draw, at least 1.",
    )
    low, high = number("least", least, above=0.0), number("most", most)
    require(low <= high, f"least is {low:g} and most is {high:g}; give the smaller one first.")
    drawn = np.asarray(jax.random.uniform(key, (int(count),)), float)
    return np.exp(np.log(low) + drawn * (np.log(high) - np.log(low))).clip(low, high)


@dataclasses.dataclass(frozen=True)
class Point:
    """A method with some values, and values for fields of its network by their paths."""

    method: Any
    changes: dict[Path, Any]


@pytree
class Common:
    """What objects of one structure have in common: all but the leaves that differ.

    Attributes:
        leaves: of one of them.
        structure: of all.
    """

    leaves: list[Any]
    structure: Any = static()

    @classmethod
    def of(cls, objects: Sequence[Any]) -> tuple["Common", dict[str, Any]]:
        """Return it, and the leaves that differ, stacked, by their places."""
        leaves, structure = jax.tree.flatten(objects[0])
        if all(one is objects[0] for one in objects):
            return cls(leaves, structure), {}
        columns = zip(*map(jax.tree.leaves, objects), strict=True)
        differing = {
            str(place): _stacked(*column)
            for place, column in enumerate(columns)
            if any(leaf is not column[0] for leaf in column)
        }
        return cls(leaves, structure), differing

    def one(self, own: Mapping[str, Any]) -> Any:
        """Return one of the objects, from the leaves that are its own."""
        leaves = [own.get(str(place), leaf) for place, leaf in enumerate(self.leaves)]
        return jax.tree.unflatten(self.structure, leaves)


class Stacked(NamedTuple):
    """Points of one structure: what a program is given of them, and their places in the grid."""

    methods: Any
    networks: Common
    differing: dict[str, Any]  # of the networks
    places: list[int]


@dataclasses.dataclass(frozen=True)
class Grid:
    """A method at all combinations of some fields' values, or at points.

    Attributes:
        method: as it is given.
        fields: the labels of each field's values.
        rows: the labels of every point by field, the last field's running fastest.
        points: the points.
        bounds: the least and the largest number that a field takes.
    """

    method: Any
    fields: dict[str, list[Any]]
    rows: list[tuple[Any, ...]]
    points: list[Point]
    bounds: dict[str, Number]

    def programs(self, network: Any) -> list[Stacked]:
        """Return the points of one structure stacked, on a network: a program to compile each."""
        paths = {path for point in self.points for path in point.changes}
        lacking = [".".join(path) for path in paths - {*places_of(network)}] if paths else []
        require(
            not lacking,
            f"the network has no field {listed(lacking)} to sweep; give networks that all have it.",
        )
        networks = [changed(network, point.changes) for point in self.points]
        alike: dict[Any, list[int]] = {}
        for place, point in enumerate(self.points):
            leaves, structure = jax.tree.flatten((point.method, networks[place] if paths else None))
            alike.setdefault((structure, *map(np.shape, leaves)), []).append(place)
        return [
            Stacked(
                jax.tree.map(_stacked, *(self.points[place].method for place in places)),
                *Common.of([networks[place] for place in places]),
                places,
            )
            for places in alike.values()
        ]

    def labels(self, field: str) -> list[Any]:
        """Return a field's label at every point: the method's own number where it is not swept."""
        if field in self.fields:
            place = list(self.fields).index(field)
            return [row[place] for row in self.rows]
        own = getattr(self.method, field, None)
        return [own if isinstance(own, int | float) else None] * len(self.points)


def _stacked(*leaves: Any) -> jax.Array:
    if any(isinstance(leaf, jax.Array) for leaf in leaves):
        return jnp.stack(leaves)
    return jnp.asarray(np.stack(leaves))


def grids_of(
    algorithms: Mapping[str, Any], over: Any, networks: Mapping[str, Any]
) -> tuple[bool, dict[str, Grid]]:
    """Return whether members lie along one dimension of choices, and the grids by method.

    Args:
        algorithms: by name.
        over: as `compare` takes it.
        networks: one of each method, by its name.
    """
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
        own = over.get(name, {}) if methods else over
        grids[name] = _grid(name, method, own, networks[name])
    return bool(methods) or isinstance(over, Points), grids


def _grid(name: str, method: Any, over: Mapping[str, Any], network: Any) -> Grid:
    """Return a method at all combinations of the values, checked by its constructor."""
    if not over:
        return Grid(method, {}, [()], [Point(method, {})], {})
    together = isinstance(over, Points)
    places, values = {}, {}
    for field, given in over.items():
        place = places[field] = found(name, field, method, network)
        with named(name):
            values[field] = _values(field, given, place.is_number, repeated=together)
    sizes = {field: len(own) for field, own in values.items()}
    require(
        not together or len({*sizes.values()}) == 1,
        f"Points has {', '.join(f'{size} of {field}' for field, size in sizes.items())}; give as "
        "many values of each field.",
    )
    combine = functools.partial(zip, strict=True) if together else itertools.product
    points = []
    with named(name):
        for row in combine(*([value for _, value in own] for own in values.values())):
            changes = {places[field].path: value for field, value in zip(over, row, strict=True)}
            ours = {path: value for path, value in changes.items() if path[0] != NETWORK}
            theirs = {path[1:]: value for path, value in changes.items() if path[0] == NETWORK}
            changed(network, theirs)  # what it refuses is refused here
            points.append(Point(changed(method, ours), theirs))
    labels = {field: [label for label, _ in own] for field, own in values.items()}
    bounds = {field: place.bounds for field, place in places.items() if place.bounds is not None}
    return Grid(method, labels, [*combine(*labels.values())], points, bounds)


# ---------------------------------------------------------------- fields by name


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a field is: the names of fields on the way, those of a network behind NETWORK."""

    path: Path
    is_number: bool  # traced: its values are one program
    is_scalar: bool  # a number, a count or a choice
    bounds: Number | None = None


def found(name: str, field: str, method: Any, network: Any) -> Place:
    """Return the place of a field of a method, of what is in it, or of its network.

    A field of the method, or of what it wraps, is known by its name, one further within by a dotted
    one, such as "compressor.k"; the last words of it will do where they are those of one place.
    """
    inside = {NETWORK: network, "": method}
    role, _, rest = field.partition(".")
    role, rest = (role, rest) if role == NETWORK and rest else ("", field)
    words = tuple(rest.split("."))
    prefix: Path = ()
    every = {"": places_of(method), NETWORK: places_of(network, (NETWORK,))}
    start: Path = (NETWORK,) if role else ()
    for layer in layers(inside[role]):  # the outermost one that has it
        path = (*start, *prefix, *words)
        if path in every[role]:
            return every[role][path]
        prefix = (*prefix, getattr(layer, "wraps", ""))
    for known in [every[role]] if role else every.values():
        fitting = [place for path, place in known.items() if path[-len(words) :] == words]
        if fitting:
            break
    ours = [".".join(path) for path in every[""]]
    theirs = [".".join(path) for path, place in every[NETWORK].items() if place.is_scalar]
    require(
        len(fitting) > 0,
        f"{name} has no field {field!r} to sweep; it has {listed(ours)}"
        f"{f', and of its network {listed(theirs)}' if theirs else ''}. Methods of other fields "
        "take grids of their own, over={method: {field: values}}.",
    )
    require(
        len(fitting) == 1,
        f"{name} has {len(fitting)} fields {field!r}; name one of "
        f"{', '.join('.'.join(place.path) for place in fitting)}.",
    )
    return fitting[0]


def places_of(value: Any, inside: Path = ()) -> dict[Path, Place]:
    """Return the fields of an object and of what is in it, by their paths."""
    if isinstance(value, Optimizer):
        numbers, rest = [*value.numbers], [name for name, _ in value.rest]
        names = {name: name in numbers for name in (*numbers, *rest)}
        return {(*inside, n): Place((*inside, n), traced, True) for n, traced in names.items()}
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return {}
    checks, numbers = checked_fields(type(value)), number_fields(type(value))
    places, deeper = {}, {}
    for field in dataclasses.fields(value):
        if field.init:
            path, part = (*inside, field.name), _part(value, field.name)
            scalar = field.name in checks or isinstance(part, float)
            traced = not field.metadata.get("static")
            places[path] = Place(path, traced, scalar, numbers.get(field.name))
            deeper |= places_of(part, path)
    return places | deeper


def changed(value: Any, changes: Mapping[Path, Any]) -> Any:
    """Return an object with other values of some fields, in it and in what is in it, checked."""
    own = {path[0]: new for path, new in changes.items() if len(path) == 1}
    deeper: dict[str, dict[Path, Any]] = {}
    for path, new in changes.items():
        if len(path) > 1:
            deeper.setdefault(path[0], {})[path[1:]] = new
    for name, inner in deeper.items():
        own[name] = changed(own.get(name, _part(value, name)), inner)
    if not own:
        return value
    if isinstance(value, Optimizer):
        return optimizer(value.factory, **{**value.numbers, **dict(value.rest), **own})
    if getattr(value, "_by_hand", False):
        return replace_checked(value, **own)
    return dataclasses.replace(value, **own)


def _part(value: Any, name: str) -> Any:
    """Return what is in a field: an object itself, a schedule itself."""
    part = disclose(getattr(value, name))
    return part.schedule if isinstance(part, Scheduled) else part


def _values(field: str, values: Any, numbers: bool, repeated: bool) -> list[tuple[Any, Any]]:
    """Return labels and values: numbers and strings by themselves, others by their text."""
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
        repeated or not twice,
        f"over[{field!r}] has {', '.join(twice)} more than once; give every value once, or "
        "{label: value}.",
    )
    return [*zip(labels, values, strict=True)]


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
