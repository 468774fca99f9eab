"""What methods, networks, problems and results say of themselves, as text and as a table.

A class gives its facts by label, ``_facts(self) -> {label: text}``; by default they are its fields.
Both `text` and `html` show them. Arrays are shown by dtype and shape, unless they are very small,
so that nothing is printed whole; and nothing fails where arrays are traced, stacked, or replaced by
what JAX puts into their places.
"""

import dataclasses
import functools
import html as _html
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdopt._leaves import is_traced
from jaxdopt._memory import readable
from jaxdopt._numbers import Scheduled
from jaxdopt._opaque import Opaque, disclose

WIDTH = 100  # characters of a line
NESTED = 72  # characters of an object within another one
MEMBERS = 4  # of an array or a container that are shown


def text(self: Any) -> str:
    """Return an object's name and facts in one line if they fit, or else in one line a fact."""
    whole = line(self)
    if len(whole) <= WIDTH:
        return whole
    facts = [f"    {_word(label)}={value}," for label, value in facts_of(self).items()]
    return "\n".join([f"{type(self).__name__}(", *facts, ")"])


def line(value: Any) -> str:
    """Return an object's name and facts in one line."""
    if not _speaks(value):
        return brief(value)
    facts = (f"{_word(label)}={fact}" for label, fact in facts_of(value).items())
    return f"{type(value).__name__}({', '.join(facts)})"


def html(self: Any) -> str | None:
    """Return the same as a small table for notebooks; None where a class has a text of its own."""
    if type(self).__repr__ is not text:
        return None
    name = _html.escape(type(self).__name__)
    rows = "".join(
        f'<tr><td style="text-align:left">{_html.escape(label)}</td>'
        f'<td style="text-align:left">{_html.escape(fact)}</td></tr>'
        for label, fact in facts_of(self).items()
    )
    head = f'<thead><tr><th colspan="2" style="text-align:left">{name}</th></tr></thead>'
    return f"<table>{head}<tbody>{rows}</tbody></table>"


def facts_of(value: Any) -> dict[str, str]:
    """Return an object's facts, or its fields where these cannot be told."""
    own = getattr(type(value), "_facts", None)
    if own is not None:
        try:
            with jax.ensure_compile_time_eval():
                return own(value)
        except Exception:  # JAX may have put anything into the fields, and a repr never fails
            pass
    return fields(value)


def fields(value: Any, *without: str) -> dict[str, str]:
    """Return the fields of an object as facts, except those that are None by default."""
    if hasattr(value, "_fields"):  # a named tuple
        return {name: brief(own) for name, own in zip(value._fields, value, strict=True)}
    found = {}
    for field in dataclasses.fields(value):
        own = vars(value).get(field.name, field.default)
        if field.name not in without and not (own is None and field.default is None):
            found[field.name] = brief(own)
    return found


def brief(value: Any) -> str:
    """Return a value in a few words: numbers as they are, arrays by dtype and shape."""
    try:
        return _brief(value)
    except Exception:  # of an object of the user's, or an array that is deleted
        return type(value).__name__


def _brief(value: Any) -> str:
    value = disclose(value)
    if isinstance(value, Scheduled):
        return _brief(value.schedule)
    if hasattr(type(value), "dtype") and hasattr(type(value), "shape"):
        return _array(value)
    if isinstance(value, jax.tree_util.Partial | functools.partial):
        return _brief(value.func)
    if isinstance(value, types.FunctionType | types.BuiltinFunctionType | type):
        return (
            "lambda" if value.__name__ == "<lambda>" else value.__qualname__.split(".<locals>")[0]
        )
    if isinstance(value, dict):
        return _several("{", [f"{k!r}: {brief(v)}" for k, v in _first(value.items())], value, "}")
    if isinstance(value, tuple) and all(map(callable, value)) and value:  # of optax
        names = {brief(function) for function in value}
        return names.pop() if len(names) == 1 else type(value).__name__
    if _speaks(value) or (isinstance(value, tuple) and hasattr(value, "_fields")):
        facts = [f"{_word(label)}={fact}" for label, fact in facts_of(value).items()]
        return _short(type(value).__name__, facts)
    if isinstance(value, list | tuple):
        ends = "()" if isinstance(value, tuple) else "[]"
        return _several(ends[0], [brief(v) for v in _first(value)], value, ends[1])
    shown = repr(value)
    return shown if len(shown) <= NESTED and " at 0x" not in shown else type(value).__name__


def _array(value: Any) -> str:
    small = value.ndim <= 1 and value.size <= MEMBERS
    key = jnp.issubdtype(value.dtype, jax.dtypes.prng_key)
    if is_traced(value) or key or not small:
        return f"{value.dtype}[{', '.join(map(str, value.shape))}]"
    numbers = [_number(number) for number in np.ravel(value)]
    return f"[{', '.join(numbers)}]" if value.ndim else numbers[0]


def _number(value: Any) -> str:
    floating = np.issubdtype(value.dtype, np.inexact) or value.dtype.kind == "V"  # bfloat16
    return f"{value:.6g}" if floating else str(value)


def span(values: Any) -> str:
    """Return the least and the largest of several numbers, or the one that they are."""
    if is_traced(values) or np.size(values) == 0:
        return brief(values)
    array = np.asarray(values, float)
    known = array[~np.isnan(array)]
    least, most = (f"{end(known):.4g}" if known.size else "nan" for end in (np.min, np.max))
    return least if least == most else f"{least} to {most}"


def share(flags: Any) -> str:
    """Return how many of several flags are set, or whether the one is."""
    if is_traced(flags):
        return brief(flags)
    if np.ndim(flags) == 0:
        return "yes" if flags else "no"
    return f"{np.count_nonzero(flags)} of {np.size(flags)}"


def _speaks(value: Any) -> bool:
    """Return whether an object has facts."""
    return type(value).__repr__ is text and not isinstance(value, Opaque)


def _first(items: Any) -> list[Any]:
    return [item for item, _ in zip(items, range(MEMBERS), strict=False)]


def _several(start: str, shown: list[str], of: Any, end: str) -> str:
    more = [f"... {len(of)} in all"] * (len(of) > len(shown))
    lone = "," * (start == "(" and len(of) == 1)
    return f"{start}{', '.join([*shown, *more])}{lone}{end}"


def _short(name: str, facts: list[str]) -> str:
    """Return as many facts as have room within another object."""
    whole = f"{name}({', '.join(facts)})"
    while len(whole) > NESTED and facts:
        facts = facts[:-1]
        whole = f"{name}({', '.join([*facts, '...'])})"
    return whole


def _word(label: str) -> str:
    return label.replace(" ", "_")


def memory(tree: Any) -> str:
    """Return the memory of all arrays in a tree, in units of 1000 bytes."""
    arrays = {id(leaf): leaf for leaf in jax.tree.leaves(tree) if hasattr(leaf, "nbytes")}
    return readable(sum(leaf.nbytes for leaf in arrays.values()))
