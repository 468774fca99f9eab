"""Compiled programs: one for each structure of a call. The last ones are kept, others are freed.

`run`, and with it `sweep` and `compare`, compile one program for each structure of their arguments:
types, static fields, shapes and dtypes, and what the functions among them do. `jax.jit` keeps every
program, and each takes some hundred memory maps, of which Linux gives a process 65,530
(``vm.max_map_count``). Here the last `KEPT` programs are kept. Assign ``jaxdopt.programs.KEPT`` for
more or fewer; it matters where one process goes through more structures than that again and again.

**Functions.** A metric, a schedule or a loss that is written anew, as a lambda in a notebook's cell
or in a loop is, needs no new program if it has the same code, defaults and closed-over values, and
the global names that it reads have the same values. All of these must be of kinds that can be
compared: numbers, strings, tuples, dtypes; JAX arrays (the same array) and NumPy arrays (the same
contents, up to `READ` bytes); modules, functions and classes of JAX, NumPy, Optax, this library and
Python's ``math``; frozen dataclasses, as `pytree` makes them; and functions of which the same
holds. Numbers are compared by type and text: 1, 1.0 and True give three programs. A function that
reads anything else (a list, a dict, an object or a module of one's own) or that assigns to names
outside of itself is known by identity, as under `jax.jit`, because what it reads may change: a
fresh one compiles anew. A number that varies should not be in a closure but in a field of a
`pytree`, where it is traced.

**Memory.** A program is dropped when something dies that it knows by identity: an object that is no
pytree, a function, or an array that a function reads. Arrays above `SMALL` bytes that a function
reads are arguments of the program rather than constants in it, so that it does not keep them.
"""

import collections
import contextlib
import functools
import hashlib
import operator
import sys
import threading
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from jax.core import Tracer
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun
from jax.sharding import Mesh, PartitionSpec

from jaxdopt._leaves import cast_floats, is_traced
from jaxdopt._opaque import Identity
from jaxdopt.fingerprint import reads

T = TypeVar("T")

KEPT = 64  # programs
READ = 2**20  # bytes of a NumPy array that is known by its contents
SMALL = 2**16  # bytes of an array that may be a constant of a program that is kept
LIBRARIES = {"jax", "jaxlib", "numpy", "optax", "jaxdopt", "math", "builtins"}


class Program:
    """A function of pytrees, jitted for each structure of its positional arguments.

    Keyword arguments are static: part of the program, hashed and compared. Functions may be in
    the places of static fields, and objects that are no pytrees in an `Opaque`.

    Args:
        function: to be compiled.
        donates: whether the arrays of its last argument are donated, as with ``donate_argnums`` of
            `jax.jit`.
    """

    def __init__(self, function: Callable[..., Any], *, donates: bool = False) -> None:
        """Wrap a function, as a decorator does."""
        self.function = function
        self.donates = donates
        self.made = 0  # how many programs so far
        functools.update_wrapper(self, function)

    def __call__(self, *args: Any, **static: Any) -> Any:
        """Call the function's program for such arguments, compiled if there is none."""
        parts = [_part(arg) for arg in args]
        mesh = _CALLS.mesh
        key = (self.function, tuple([part.key for part in parts]), tuple(static.items()), mesh)
        jitted = _KEPT.get(key)
        if jitted is None:
            self.made += 1
            owners = [owner for part in parts for owner in part.owners]
            jitted = _KEPT.put(key, _jitted(self.function, static, self.donates, mesh), owners)
        donated = parts.pop().leaves if self.donates else []
        leaves = [leaf for part in parts for leaf in part.leaves]
        lifted = [array for part in parts for array in part.lifted]
        _CALLS.open.append((args, lifted))
        try:
            return jitted(leaves, donated, lifted)
        finally:
            _CALLS.open.pop()


def _jitted(
    function: Callable[..., Any], static: dict[str, Any], donates: bool, mesh: Mesh | None
) -> Callable[..., Any]:
    """Return a function, jitted, of the leaves of the call that is open and its lifted arrays.

    All that belongs to the call is looked up while it is traced, so that the program holds nothing.
    """

    def flat(leaves: list[Any], donated: list[Any], lifted: list[Any]) -> Any:
        args, originals = _CALLS.open[-1]
        structure = jax.tree.structure(args)

        def call(leaves: list[Any]) -> Any:
            return function(*structure.unflatten(leaves), **static)

        def work(leaves: list[Any], lifted: list[Any]) -> Any:
            with on_each_of(None):  # what it calls is on one device already
                return _lifted(call, leaves, lifted, originals) if lifted else call(leaves)

        if mesh is not None:
            every = PartitionSpec()
            work = jax.shard_map(work, mesh=mesh, in_specs=every, out_specs=every, check_vma=False)
        return work(leaves + donated, lifted)

    flat.__name__ = flat.__qualname__ = function.__name__
    return jax.jit(flat, donate_argnums=(1,) if donates else ())


def _lifted(
    call: Callable[..., Any], leaves: list[Any], lifted: list[Any], originals: list[Any]
) -> Any:
    """Call a function that closes over arrays with arguments in their places."""
    jaxpr, shapes = jax.make_jaxpr(call, return_shape=True)(leaves)
    given = {id(original): array for original, array in zip(originals, lifted, strict=True)}
    constants = [given.get(id(constant), constant) for constant in jaxpr.consts]
    results = jaxpr_as_fun(ClosedJaxpr(jaxpr.jaxpr, constants))(*leaves)
    return jax.tree.unflatten(jax.tree.structure(shapes), results)


class _Calls(threading.local):
    """The calls that are open in this thread: their arguments, and the arrays that are lifted."""

    def __init__(self) -> None:
        self.open: list[tuple[Any, list[Any]]] = []
        self.mesh: Mesh | None = None


@contextlib.contextmanager
def on_each_of(mesh: Mesh | None) -> Iterator[None]:
    """Let the programs that are called meanwhile run on every device of a mesh for itself.

    Under `jax.vmap` with the mesh's axis as ``spmd_axis_name`` each device has its share of the
    members, and no two exchange anything, whatever XLA knows of the operations.
    """
    before, _CALLS.mesh = _CALLS.mesh, mesh
    try:
        yield
    finally:
        _CALLS.mesh = before


class _Kept:
    """The programs that were used last, by key; those whose owners have died are dropped."""

    def __init__(self) -> None:
        self.programs: collections.OrderedDict[Any, tuple[Any, list[Any]]]
        self.programs = collections.OrderedDict()
        self.lock = threading.RLock()  # an owner may die anywhere, also while this is locked

    def get(self, key: Any) -> Any:
        with self.lock:
            found = self.programs.get(key)
            if found is None:
                return None
            self.programs.move_to_end(key)
            return found[0]

    def put(self, key: Any, program: Any, owners: list[Any]) -> Any:
        def drop(_: Any) -> None:
            with self.lock:
                self.programs.pop(key, None)

        with self.lock:
            self.programs[key] = program, [weakref.ref(owner, drop) for owner in owners]
            while len(self.programs) > KEPT:
                self.programs.popitem(last=False)
        return program


_CALLS = _Calls()
_KEPT = _Kept()


class _Key:
    """The words of an argument and the types of its leaves, with their hash."""

    __slots__ = ("hash", "words")

    def __init__(self, *words: Any) -> None:
        self.words = words
        self.hash = hash(words)

    def __hash__(self) -> int:
        return self.hash

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, _Key) and self.words == other.words)


class _Part(NamedTuple):
    """An argument of a program: its leaves, and what is to be known of it."""

    leaves: list[Any]
    key: _Key
    owners: list[Any]  # what is known by identity: the program goes with each
    lifted: list[Any]  # large arrays that functions read


_NONE = _Part([], _Key(None), [], [])


class _Known(NamedTuple):
    """What is kept of an object that cannot change, as long as it lives."""

    ref: weakref.ref
    part: _Part
    casts: dict[Any, Any]  # to dtypes
    answers: dict[Any, Any]  # of `once`


_FROZEN: dict[int, _Known] = {}  # by identity


def _known(value: Any) -> _Known | None:
    known = _FROZEN.get(id(value))
    return known if known is not None and known.ref() is value else None


def cast(value: Any, dtype: Any) -> Any:
    """Return an object with all its floating leaves of one dtype, the same one at every call.

    One that may change, such as a dict or an object with traced leaves, is cast anew each time.
    """
    known = _known(value)
    if known is None:
        _part(value)
        known = _known(value)
    if known is None:
        return cast_floats(value, dtype)
    if dtype not in known.casts:
        made = cast_floats(value, dtype)
        if is_traced(made):  # where the call is: a trace is no place to keep its arrays
            return made
        known.casts.clear()  # a second dtype is rare, and its weights may be large
        known.casts[dtype] = made
    return known.casts[dtype]


def once(function: Callable[..., T], *parts: Any) -> T:
    """Return a function of several objects, computed once if none of them can change."""
    known = [_known(part) for part in parts]
    if not all(known):
        return function(*parts)
    refs = [each.ref for each in known if each is not None]
    answers = known[0].answers  # type: ignore[union-attr]
    found = answers.get(function)
    if found is None or not all(map(operator.is_, found[0], refs)):
        found = answers[function] = refs, function(*parts)
    return found[1]


def noted(value: Any) -> Any:
    """Return an object, of which `once` and `cast` then know whether it can change."""
    if _known(value) is None:
        _part(value)
    return value


def _part(value: Any) -> _Part:
    """Return an argument's leaves and what is to be known of it."""
    if value is None:
        return _NONE
    if type(value) is dict or isinstance(value, tuple):  # each member is perhaps known
        names = sorted(value) if type(value) is dict else range(len(value))  # in JAX's order
        parts = [_part(value[name]) for name in names]
        key = _Key(type(value), tuple(names), *[part.key for part in parts])
        return _Part(
            [leaf for part in parts for leaf in part.leaves],
            key,
            [owner for part in parts for owner in part.owners],
            [array for part in parts for array in part.lifted],
        )
    known = _known(value)
    if known is not None:
        return known.part
    if isinstance(value, _ARRAYS):
        return _Part([value], _Key(_kind(value)), [], [])
    leaves, structure = jax.tree.flatten(value)
    reader = _Reader()
    words = reader.structure(structure)
    key = _Key(words, tuple([_kind(leaf) for leaf in leaves]))
    part = _Part(leaves, key, reader.owners, reader.lifted)
    if reader.frozen and _is_frozen(value) and all(map(_lasting, leaves)):
        place = id(value)
        ref = weakref.ref(value, lambda _, known=_FROZEN: known.pop(place, None))
        _FROZEN[place] = _Known(ref, part, {}, {})
    return part


def _is_frozen(value: Any) -> bool:
    """Return whether something is a function as JAX holds it, or a frozen dataclass."""
    if type(value) is jax.tree_util.Partial:
        return True
    asked = getattr(type(value), "__dataclass_params__", None)
    return asked is not None and asked.frozen and hasattr(value, "__dict__")


def _lasting(leaf: Any) -> bool:
    concrete = isinstance(leaf, jax.Array) and not isinstance(leaf, Tracer)
    return concrete or isinstance(leaf, float | int | np.generic)


def _kind(leaf: Any) -> Any:
    """Return what JAX traces of a leaf: its type."""
    dtype = getattr(leaf, "dtype", None)
    if dtype is not None and not isinstance(dtype, np.dtype):  # a key, of which JAX asks for long
        return dtype, leaf.shape
    try:
        return jax.typeof(leaf)
    except TypeError:  # no leaf of JAX's, which will say so
        return type(leaf)


class _Unread(Exception):
    """Of something that may change, or of which the values are not known."""


class _Reader:
    """Puts what is static into words that are hashed and compared, and hold nothing large."""

    def __init__(self) -> None:
        self.owners: list[Any] = []
        self.lifted: list[Any] = []
        self.frozen = True  # whether the words will be the same as long as the object lives
        self.open: list[Any] = []  # functions that are being read

    def structure(self, tree: Any) -> Any:
        """Return the words of a tree's nodes."""
        node = tree.node_data()
        if node is None:
            return None
        kind, own = node
        children = tree.children()
        if kind is jax.tree_util.Partial:  # whose keywords are a dict that does not change
            keywords = children.pop()
            own = (own, *keywords.node_data()[1])
            children += keywords.children()
        elif kind in _LISTS:
            self.frozen = False
        own = None if own is None else self.static(own)
        return (kind, own, *[self.structure(child) for child in children])

    def static(self, value: Any) -> Any:
        """Return the words of a static value: by what it says, or else by identity."""
        kind = type(value)
        if kind in _PLAIN:
            return (kind, value)
        if kind is float or kind is complex:
            return (kind, repr(value))
        if kind is _SHIM and hasattr(value, "fun"):
            return (kind, self.static(value.fun))
        if isinstance(value, tuple | list):  # a list: the keys of a dict
            return (kind, *[self.static(item) for item in value])
        if kind is Identity and isinstance(value.of, tuple):  # of Optax
            return self.static(value.of)
        if kind is types.FunctionType and _of_a_library(value):
            return value.__code__
        if isinstance(value, type) or _in_library(value):
            return value
        if isinstance(value, jax.tree_util.PyTreeDef):
            return self.structure(value)
        value = value.of if kind is Identity else value
        before = len(self.owners), len(self.lifted)
        try:
            return self.read(value)
        except _Unread:
            del self.owners[before[0] :], self.lifted[before[1] :]
        if isinstance(value, types.MethodType):
            return (kind, self.identity(value.__self__), self.static(value.__func__))
        same = kind is Identity or type(value).__eq__ is object.__eq__
        return self.identity(value) if same else value

    def identity(self, value: Any) -> Any:
        """Return the words of an object that is known by identity."""
        try:
            weakref.ref(value)
        except TypeError:
            return Identity(value)
        self.owners.append(value)
        self.frozen = False  # as what is kept of frozen objects must not keep others
        return ("at", id(value))

    def read(self, value: Any) -> Any:
        """Return the words of a value that cannot change, or of what it has now."""
        kind = type(value)
        if kind in _PLAIN:
            return (kind, value)
        if kind is float or kind is complex:
            return (kind, repr(value))
        if isinstance(value, np.dtype):
            return value
        if isinstance(value, np.generic):
            return (kind, value.tobytes())
        if isinstance(value, tuple):
            return (kind, *[self.read(item) for item in value])
        if kind is types.FunctionType:
            return self.function(value)
        if isinstance(value, types.ModuleType):
            if value.__name__.partition(".")[0] in LIBRARIES:
                return value
        elif isinstance(value, jax.Array):
            if not isinstance(value, Tracer):
                if value.nbytes > SMALL:
                    self.lifted.append(value)
                return self.identity(value)
        elif isinstance(value, np.ndarray):
            if value.nbytes <= READ and not value.dtype.hasobject:
                self.frozen = False
                return (kind, value.dtype, value.shape, hashlib.sha256(value.tobytes()).digest())
        elif isinstance(value, functools.partial):
            return (kind, self.read(value.func), self.read(value.args), self.items(value.keywords))
        elif isinstance(value, types.MethodType):
            return (kind, self.read(value.__self__), self.read(value.__func__))
        elif _in_library(value):
            return value
        elif kind is _JITTED:  # which knows what it has traced by identity, too
            return self.identity(value)
        elif _is_frozen(value):
            own = vars(value)
            return (kind, self.items({f: own[f] for f in kind.__dataclass_fields__ if f in own}))
        raise _Unread(value)

    def items(self, values: Any) -> Any:
        return tuple([(name, self.read(own)) for name, own in sorted((values or {}).items())])

    def function(self, value: types.FunctionType) -> Any:
        """Return the words of a function: its code, and the values of all names that it reads."""
        if _of_a_library(value):
            return value.__code__
        if value in self.open:
            return ("itself", self.open.index(value))
        if vars(value).keys() - {"__wrapped__"}:
            raise _Unread(value)
        read = reads(value.__code__)
        unknown = {name.partition(".")[0] for name in read.imports} - LIBRARIES
        if not _named(value) and (unknown or read.writes):
            raise _Unread(value)
        self.frozen = False
        self.open.append(value)
        try:
            cells = [self.cell(cell) for cell in value.__closure__ or ()]
            own = (self.read(value.__defaults__), self.items(value.__kwdefaults__))
            scope = {} if _named(value) else value.__globals__
            known = {name: scope[name] for name in read.names if name in scope}
            return (value.__code__, *own, *cells, self.items(known))
        finally:
            self.open.pop()

    def cell(self, cell: Any) -> Any:
        try:
            content = cell.cell_contents
        except ValueError:
            return "empty"
        return self.read(content)


_ARRAYS = jax.Array, np.generic
_PLAIN = {type(None), bool, int, str, bytes, type(...), range}
_LISTS = {dict, list, collections.OrderedDict, collections.defaultdict}
_SHIM = type(jax.tree_util.Partial(functools.partial(len)).func)  # JAX's, around a partial
_JITTED = type(jax.jit(lambda: None))


def _named(value: types.FunctionType) -> bool:
    """Return whether a function is written in a library: the names that it reads do not change."""
    return str(value.__globals__.get("__name__")).partition(".")[0] in LIBRARIES


def _of_a_library(value: types.FunctionType) -> bool:
    """Return whether a function is a library's own, and says nothing beyond its code."""
    return (
        value.__closure__ is None
        and value.__defaults__ is None
        and value.__kwdefaults__ is None
        and _named(value)
    )


def _in_library(value: Any) -> bool:
    """Return whether an object is found in a library under its name: it lives as long as that."""
    home, name = getattr(value, "__module__", None), getattr(value, "__name__", None)
    if not isinstance(home, str) or home.partition(".")[0] not in LIBRARIES or name is None:
        return False
    return getattr(sys.modules.get(home), name, None) is value
