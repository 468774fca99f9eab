"""Calls as data: what was asked, what came out and where, in one file, to be asked again from it.

The file is NumPy's ``.npz``: all arrays, and one text that says in JSON how the objects are made of
them. Objects are stored by the names of their classes and their attributes, functions by name, so
that a file is no pickle; but it can name any function that is installed: open those that you trust.
"""

import functools
import importlib
import inspect
import json
import os
import sys
import tempfile
import types
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxdopt import _processes, _repr
from jaxdopt._checks import require
from jaxdopt.datasets import about

FORMAT = 1
PLAIN = (type(None), bool, int, float, str)
VERSIONS = ("jaxdopt", "jax", "jaxlib", "numpy", "device", "float64")  # that decide on the numbers


class Call:
    """A call of `jd.run`, `jd.compare` or another function by name, which can be kept in a file.

    ``call()`` makes it, every time anew. ``call.save(path, result)`` writes the call, the result,
    versions and the device; `Call.load` reads them, in another process as well. A sweep has no
    name: take `jd.compare`, or a function of your own module that makes it.

    Args:
        function: found in its module by its name.
        arguments: its arguments in their order.
        named: its arguments by name.

    Raises:
        ValueError: arguments that the function does not take. Where it is saved: something that has
            no name to be found by, such as a lambda or what ``__main__`` defines.

    Example:
        >>> import jaxdopt as jd
        >>> problem = jd.problems.quadratic(4, 2)
        >>> ring = jd.networks.metropolis(jd.graphs.ring(4))
        >>> key = jax.random.key(0)
        >>> call = jd.Call(jd.run, jd.DGD(0.1), problem, ring, problem.start(), key, steps=10)
        >>> folder = tempfile.TemporaryDirectory()
        >>> path = call.save(f"{folder.name}/dgd.npz", call())
        >>> again, result, made = jd.Call.load(path)
        >>> bool((again().state.x == result.state.x).all()), made["jax"] == jax.__version__
        (True, True)
        >>> folder.cleanup()
    """

    def __init__(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> None:
        """Bind the arguments."""
        self.function = function
        try:
            bound = inspect.signature(function).bind(*arguments, **named)
        except TypeError as error:
            raise ValueError(
                f"{function.__name__} is called with arguments that it does not take: {error}."
            ) from error
        self.arguments, self.named = bound.args, bound.kwargs

    def __repr__(self) -> str:
        shown = [_repr.brief(value) for value in self.arguments]
        shown += [f"{name}={_repr.brief(value)}" for name, value in self.named.items()]
        return f"Call({', '.join([self.function.__name__, *shown])})"

    def __call__(self) -> Any:
        """Make the call."""
        return self.function(*self.arguments, **self.named)

    def save(self, path: str | os.PathLike[str], result: Any = None) -> Path:
        """Write the call, its result, versions and device into a file, and return its path.

        The file is there as a whole or not at all. What is spread over several processes is
        gathered; all of them have to call this, and each writes the same file.

        Args:
            path: of the file; ".npz" is added where it has no suffix.
            result: what the call returned: a `Result`, a dataset, or any pytree.
        """
        writer = _Writer()
        told = {
            "format": FORMAT,
            "about": about(),
            "call": writer.write((self.function, self.arguments, self.named)),
            "result": writer.write(result),
        }
        path = Path(path)
        path = path if path.suffix else path.with_suffix(".npz")
        arrays = {f"array_{i}": array for i, array in enumerate(writer.arrays)}
        handle, partial = tempfile.mkstemp(dir=path.parent, prefix=path.name)
        try:
            with os.fdopen(handle, "wb") as file:
                np.savez(file, allow_pickle=False, call=np.array(json.dumps(told)), **arrays)
            os.replace(partial, path)
        except BaseException:
            os.unlink(partial)
            raise
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> tuple["Call", Any, dict[str, Any]]:
        """Return the call of a file, its result, and what it was made with.

        A warning says which versions, device or precision are others now.

        Args:
            path: of the file.

        Raises:
            ValueError: this is no file of a call, or it names what is not there any more.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                told = json.loads(str(file["call"]))
                arrays = [file[f"array_{i}"] for i in range(len(file.files) - 1)]
        except (KeyError, ValueError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path} is no file of a call; give one of jd.Call.save.") from error
        require(
            told.get("format") == FORMAT,
            f"{path} is of format {told.get('format')} and {FORMAT} is known; update jaxdopt.",
        )
        made, now = told["about"], about()
        others = [f"{name} {made[name]} (now {now[name]})" for name in VERSIONS
                  if made[name] != now[name]]  # fmt: skip
        if others:
            warnings.warn(
                f"{path} was made with {', '.join(others)}; results may differ.", stacklevel=2
            )
        reader = _Reader(arrays)
        function, arguments, named = reader.read(told["call"])
        return cls(function, *arguments, **named), reader.read(told["result"]), made


def _found(name: str) -> Any:
    """Return what has a name, "module:qualified name"."""
    module, _, path = name.partition(":")
    try:
        return functools.reduce(getattr, path.split("."), importlib.import_module(module))
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"{path} of {module} is not there any more; install what the file was made with."
        ) from error


def _name(value: Any) -> str:
    """Return the name by which something is found."""
    module, path = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    here = sys.modules.get(module or "")
    found = here
    for part in (path or "").split("."):
        found = getattr(found, part, None)
    require(
        module != "__main__" and path is not None and found is value,
        f"{path or type(value).__name__} of {module} is not found by its name, so that no file can "
        "hold it; define it in a module, at its top.",
    )
    return f"{module}:{path}"


class _Writer:
    """Objects as JSON, their arrays aside."""

    def __init__(self) -> None:
        self.arrays: list[np.ndarray] = []

    def write(self, value: Any) -> Any:
        require(
            not isinstance(value, Tracer),
            "a traced array has no values to save; save outside of jit, vmap and grad.",
        )
        if type(value) in PLAIN:
            return value
        if isinstance(value, np.ndarray | np.generic | jax.Array):
            return self.array(value)
        if type(value) in (list, tuple, set, frozenset):
            items = sorted(value, key=repr) if isinstance(value, set | frozenset) else value
            return {"kind": type(value).__name__, "items": [self.write(item) for item in items]}
        if type(value) is dict:
            items = [[self.write(name), self.write(item)] for name, item in value.items()]
            return {"kind": "dict", "items": items}
        if isinstance(value, tuple):
            items = [self.write(item) for item in value]
            return {"kind": "named", "class": _name(type(value)), "items": items}
        if isinstance(value, functools.partial):
            parts = [self.write(part) for part in (value.func, value.args, value.keywords)]
            return {"kind": "partial", "class": _name(type(value)), "items": parts}
        if isinstance(value, np.dtype):
            return {"kind": "dtype", "name": value.name}
        if isinstance(value, jax.tree_util.PyTreeDef):
            places = value.unflatten(list(range(value.num_leaves)))
            return {"kind": "structure", "of": self.write(places)}
        if isinstance(value, types.MethodType):
            return {"kind": "method", "name": value.__name__, "of": self.write(value.__self__)}
        if hasattr(value, "__qualname__"):
            return {"kind": "name", "name": _name(value)}
        if hasattr(value, "to_dict") and type(value).__module__.startswith("xarray."):
            return {"kind": "dataset", "of": self.write(value.to_dict(data="array"))}
        require(
            hasattr(value, "__dict__"),
            f"a {type(value).__name__} does not show its values, so that no file can hold it.",
        )
        own = [[name, self.write(item)] for name, item in vars(value).items()]
        return {"kind": "object", "class": _name(type(value)), "items": own}

    def array(self, value: Any) -> dict[str, Any]:
        told = {"kind": "numpy" if isinstance(value, np.ndarray) else "jax", "at": len(self.arrays)}
        if isinstance(value, np.generic):
            told["kind"] = "scalar"
        elif isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
            told |= {"kind": "key", "of": str(jax.random.key_impl(value))}
            value = jax.random.key_data(value)
        elif isinstance(value, jax.Array) and value.weak_type and value.ndim == 0:
            told["kind"] = "weak"
        host = np.asarray(_processes.gathered(value))
        if host.dtype == object:
            return {"kind": "objects", "of": self.write(host.tolist())}
        if host.dtype.kind == "V":  # bfloat16 and the like, which NumPy's files do not know
            told["dtype"] = host.dtype.name
            host = host.view(f"u{host.dtype.itemsize}")
        self.arrays.append(host)
        return told


class _Reader:
    """Objects from JSON and arrays."""

    def __init__(self, arrays: list[np.ndarray]) -> None:
        self.arrays = arrays

    def read(self, told: Any) -> Any:
        if not isinstance(told, dict):
            return told
        return getattr(self, "_" + told["kind"])(told)

    def _items(self, told: Any) -> list[Any]:
        return [self.read(item) for item in told["items"]]

    def _list(self, told: Any) -> Any:
        return self._items(told)

    def _tuple(self, told: Any) -> Any:
        return tuple(self._items(told))

    def _set(self, told: Any) -> Any:
        return set(self._items(told))

    def _frozenset(self, told: Any) -> Any:
        return frozenset(self._items(told))

    def _dict(self, told: Any) -> Any:
        return {self.read(name): self.read(item) for name, item in told["items"]}

    def _named(self, told: Any) -> Any:
        return _found(told["class"])(*self._items(told))

    def _partial(self, told: Any) -> Any:
        function, arguments, named = self._items(told)
        return _found(told["class"])(function, *arguments, **named)

    def _dtype(self, told: Any) -> Any:
        return jnp.dtype(told["name"])

    def _structure(self, told: Any) -> Any:
        return jax.tree.structure(self.read(told["of"]))

    def _method(self, told: Any) -> Any:
        return getattr(self.read(told["of"]), told["name"])

    def _name(self, told: Any) -> Any:
        return _found(told["name"])

    def _dataset(self, told: Any) -> Any:
        return _found("xarray:Dataset").from_dict(self.read(told["of"]))

    def _objects(self, told: Any) -> Any:
        return np.array(self.read(told["of"]), dtype=object)

    def _object(self, told: Any) -> Any:
        kind = _found(told["class"])
        made = object.__new__(kind)
        for name, item in told["items"]:
            object.__setattr__(made, name, self.read(item))
        return made

    def _host(self, told: Any) -> np.ndarray:
        host = self.arrays[told["at"]]
        return host.view(jnp.dtype(told["dtype"])) if "dtype" in told else host

    _numpy = _host

    def _scalar(self, told: Any) -> Any:
        return self._host(told)[()]

    def _jax(self, told: Any) -> Any:
        return jax.device_put(self._host(told))

    def _weak(self, told: Any) -> Any:
        return jnp.asarray(self._host(told).item())

    def _key(self, told: Any) -> Any:
        return jax.random.wrap_key_data(self._jax(told), impl=told["of"])
