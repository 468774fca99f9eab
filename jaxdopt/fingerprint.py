"""What a computation depends on, as a short text: two that agree give the same result.

A result that is kept in a file is the answer to a question; its fingerprint says which one.
`fingerprint` reads values, not addresses: leaves of pytrees bit by bit, the structure by the names
of types and fields, functions by their code and by what they close over or name of their own
module. What users cannot change by an argument counts, too: the sources of this library, and the
versions of JAX and NumPy.
"""

import dataclasses
import dis
import functools
import hashlib
import inspect
import sys
import sysconfig
import types
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxdopt import _processes
from jaxdopt._checks import require

LENGTH = 16  # hexadecimal digits, 64 bits: by chance two of a million agree with 3e-8
PLAIN = (
    type(None),
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    np.dtype,
    np.generic,
    range,
    Path,
    type(...),
)
VALUES = (*PLAIN, tuple, list, dict, set, frozenset, np.ndarray, jax.Array)


def fingerprint(*objects: Any) -> str:
    """Return `LENGTH` hexadecimal digits of everything that the objects are made of.

    Args:
        objects: numbers, arrays, keys, strings, containers, dataclasses and other pytrees (methods,
            problems, networks), functions and classes, in any nesting.

    Arrays over several processes are gathered, some rows at a time, so that all of these have to
    call it; the result is the same as in one process.

    Raises:
        ValueError: something is traced, or is of a type of which the values are not known.

    Example:
        >>> import jaxdopt as jd
        >>> fingerprint(jd.DGD(0.1)) == fingerprint(jd.DGD(0.1)) != fingerprint(jd.DGD(0.2))
        True
    """
    reader = _Reader()
    reader.read(_library())
    reader.read(objects)
    return reader.digest.hexdigest()[:LENGTH]


@functools.cache
def _library() -> tuple[str, ...]:
    """Return the versions and the sources that all results depend on."""
    root = Path(__file__).parent
    sources = (path.read_text() for path in sorted(root.rglob("*.py")))
    return (jax.__version__, np.__version__, *sources)


@functools.cache
def _installed(module: str) -> bool:
    """Return whether a module is this library's, Python's or an installed one, and no user's."""
    path = getattr(sys.modules.get(module), "__file__", None)
    if path is None:
        return module != "__main__"
    roots = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    return any(Path(root) in Path(path).parents for root in (*roots, Path(__file__).parent))


class Reads(NamedTuple):
    """What a function, and those within it, take from beyond: see `reads`."""

    names: frozenset[str]  # of its module
    imports: frozenset[str]  # modules
    writes: bool  # whether it changes a variable of its module or of a function around it


@functools.lru_cache(4096)
def reads(code: types.CodeType) -> Reads:
    """Return what the code of a function reads that is not its own."""
    names, imports, writes = set[str](), set[str](), False
    for step in dis.get_instructions(code):
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"):
            names.add(step.argval)
        elif step.opname == "IMPORT_NAME":
            imports.add(step.argval)
        own = step.opname == "STORE_DEREF" and step.argval not in code.co_freevars
        writes |= not own and step.opname in ("STORE_DEREF", "STORE_GLOBAL")
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            its = reads(inner)
            names, imports, writes = names | its.names, imports | its.imports, writes | its.writes
    return Reads(frozenset(names), frozenset(imports), writes)


class _Reader:
    """Feeds a digest; functions and classes are read once, and nothing within itself."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        self.open: set[int] = set()
        self.known: dict[int, Any] = {}  # functions and classes that have been read

    def say(self, *words: Any) -> None:
        for word in words:
            text = str(word).encode()
            self.digest.update(b"%d:" % len(text) + text)

    def read(self, value: Any) -> None:
        """Read a value, of any kind."""
        if id(value) in self.open or id(value) in self.known:
            self.say("as before", getattr(value, "__qualname__", ""))
            return
        if isinstance(value, types.FunctionType | type):
            self.known[id(value)] = value
        self.open.add(id(value))
        try:
            self._read(value)
        finally:
            self.open.discard(id(value))

    def _read(self, value: Any) -> None:
        require(
            not isinstance(value, Tracer),
            "a traced array has no values to read; take fingerprints outside of jit, vmap and "
            "grad.",
        )
        self.say(type(value).__module__, type(value).__qualname__)
        if isinstance(value, PLAIN):
            self.say(repr(value))
        elif isinstance(value, jax.Array | np.ndarray):
            self.array(value)
        elif isinstance(value, dict | types.MappingProxyType):
            self.items(value)
        elif isinstance(value, set | frozenset):
            self.say(*sorted(fingerprint(item) for item in value))
        elif isinstance(value, tuple | list):
            self.say(len(value))
            for item in value:
                self.read(item)
        elif isinstance(value, jax.tree_util.PyTreeDef):  # its text may hold addresses
            self.read((value.node_data(), value.children()))
        elif isinstance(value, inspect.Signature):
            self.read([(own.name, own.default) for own in value.parameters.values()])
        elif isinstance(value, functools.partial):
            self.read((value.func, value.args, value.keywords))
        elif isinstance(value, types.ModuleType):
            self.say(value.__name__, getattr(value, "__version__", ""))
            if not _installed(value.__name__):
                self.say(inspect.getsource(value))
        elif isinstance(value, type):
            self.kind(value)
        elif isinstance(value, types.MethodType):
            self.read((value.__self__, value.__func__))
        elif isinstance(value, types.FunctionType):
            self.function(value)
        elif callable(getattr(value, "__wrapped__", None)):  # jitted
            self.read(value.__wrapped__)
        elif isinstance(value, types.BuiltinFunctionType | np.ufunc):
            self.say(getattr(value, "__module__", ""), value.__name__)
        else:
            self.object(value)

    def array(self, value: Any) -> None:
        if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            self.say(jax.random.key_impl(value))
            value = jax.random.key_data(value)
        self.say(value.dtype, value.shape)
        if value.dtype == object:
            self.read(value.tolist())
            return
        for rows in _processes.blocks(value):
            self.digest.update(np.ascontiguousarray(rows).tobytes())

    def items(self, value: Any) -> None:
        """Read a mapping; the order of its keys does not matter."""
        self.say(len(value))
        for key in sorted(value, key=repr):
            self.read(key)
            self.read(value[key])

    def function(self, value: types.FunctionType) -> None:
        """Read a function: its code, its defaults, and the values of the names that it uses."""
        self.say(value.__module__, value.__qualname__)
        if _installed(value.__module__) and not value.__closure__:
            return
        self.code(value.__code__)
        self.read((value.__defaults__, value.__kwdefaults__))
        self.items(inspect.getclosurevars(value).nonlocals)
        known = value.__globals__
        self.items({name: known[name] for name in reads(value.__code__).names if name in known})

    def code(self, code: types.CodeType) -> None:
        self.say(code.co_name, code.co_code.hex(), *code.co_names, *code.co_varnames)
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                self.code(constant)
            else:
                self.read(constant)

    def kind(self, value: type) -> None:
        """Read a class: by its name if it is this library's or installed, else by its members."""
        self.say(value.__module__, value.__qualname__)
        if _installed(value.__module__):
            return
        for base in value.__mro__[1:-1]:
            self.read(base)
        for name, member in sorted(vars(value).items()):
            inner = (getattr(member, within, None) for within in ("fget", "func", "__func__"))
            member = next((found for found in inner if found is not None), member)
            own = isinstance(member, VALUES) and not name.startswith("__")
            if own or isinstance(member, types.FunctionType):
                self.say(name)
                self.read(member)

    def object(self, value: Any) -> None:
        """Read an object by its class and its own values."""
        self.read(type(value))
        if dataclasses.is_dataclass(value):
            own = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        else:
            require(
                hasattr(value, "__dict__"),
                f"a {type(value).__name__} does not show its values, so that no result can be "
                "kept for it; give a dataclass, a container or an object with attributes.",
            )
            own = vars(value)
        self.items(own)
