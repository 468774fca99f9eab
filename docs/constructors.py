"""What mkdocstrings has to be told of the library: constructors made of fields, examples."""

import re
from typing import Any

import griffe

PAIR = re.compile(r"^( +)(\w+), (\w+): (.*\n(?:\1 +.*\n)*)", flags=re.MULTILINE)  # a, b: what


class Constructors(griffe.Extension):
    """Give `@pytree` classes and flax modules without constructors one made of their fields."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Say what griffe's reader of docstrings expects: ``Examples:``, and one name an entry."""
        if obj.docstring is not None:
            text = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
            obj.docstring.value = PAIR.sub(r"\1\2: \4\1\3: see `\2`.\n", text)

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Visit all classes, once their bases are known."""
        for module in (pkg, *_modules(pkg)):
            for cls in module.classes.values():
                if not cls.is_alias and _has_fields(cls) and "__init__" not in cls.members:
                    cls.set_member("__init__", _constructor(cls))


def _modules(module: griffe.Module) -> Any:
    for inner in module.modules.values():
        if not inner.is_alias:
            yield inner
            yield from _modules(inner)


def _has_fields(cls: griffe.Class) -> bool:
    pytree = any(str(each.value).rpartition(".")[2] == "pytree" for each in cls.decorators)
    return pytree or [str(base) for base in cls.bases] == ["nn.Module"]


def _constructor(cls: griffe.Class) -> griffe.Function:
    fields: dict[str, griffe.Parameter] = {}
    for owner in (*reversed(cls.mro()), cls):
        for name, field in owner.attributes.items():
            if field.annotation is None or "instance-attribute" not in field.labels:
                continue  # a class variable or a property
            default: Any = field.value
            if str(default).partition("(")[0] in ("static", "field"):
                given = {a.name: a.value for a in default.arguments if hasattr(a, "name")}
                default = given.get("default", given.get("default_factory"))
            fields[name] = griffe.Parameter(
                name,
                annotation=field.annotation,
                kind=griffe.ParameterKind.positional_or_keyword,
                default=default,
            )
    me = griffe.Parameter("self", kind=griffe.ParameterKind.positional_or_keyword)
    return griffe.Function(
        "__init__", parameters=griffe.Parameters(me, *fields.values()), returns="None", parent=cls
    )
