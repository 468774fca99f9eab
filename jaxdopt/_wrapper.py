"""Wrappers: objects that hold another one, change some of what it does, and pass on the rest."""

from collections.abc import Collection, Iterator
from typing import Any, ClassVar, TypeVar

from jaxdopt._opaque import disclose, enclose
from jaxdopt._pytree import pytree, replace

T = TypeVar("T")


@pytree
class Wrapper:
    """What holds another object: attributes that it does not define are those of that object.

    A subclass is a `pytree` that names its field of the wrapped object in ``wraps``; the object may
    itself be no pytree. Its own attributes, and those of its bases, come first. Operators such as
    ``@`` have to be defined, as Python looks for them on the class.

    Class attributes:
        wraps: the name of the field that holds the wrapped object.
        hides: names that are not passed on.
        renews: methods that return a changed object, such as ``take``: their result is wrapped
            again.
        keeps: names that are passed on although a base defines them. Where a base that refuses
            unknown names comes first, as `Network` does, they are all that is passed on.
    """

    wraps: ClassVar[str]
    hides: ClassVar[Collection[str]] = ()
    renews: ClassVar[Collection[str]] = ()
    keeps: ClassVar[Collection[str]] = ()

    def __init_subclass__(cls, **options: Any) -> None:
        """Let names that the class keeps not be those of its bases."""
        super().__init_subclass__(**options)
        for name in set(cls.__dict__.get("keeps", ())) - set(cls.__dict__):
            setattr(cls, name, passed_on(cls.wraps, name))

    def __post_init__(self) -> None:
        """Let what is wrapped be no pytree."""
        object.__setattr__(self, self.wraps, enclose(vars(self)[self.wraps]))

    def __getattr__(self, name: str) -> Any:
        if hasattr(type(self), name):  # a property that has failed: its own error is raised
            return object.__getattribute__(self, name)
        rebuilding = self.wraps not in vars(self)  # by JAX, or by copy
        if rebuilding or name.startswith("__") or name in self.hides:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        found = getattr(wrapped(self), name)
        if name not in self.renews:
            return found
        return lambda *args: rewrap(self, found(*args))


def wrapped(value: Any) -> Any:
    """Return what a wrapper holds, or None if this is no wrapper."""
    return disclose(vars(value)[value.wraps]) if isinstance(value, Wrapper) else None


def rewrap(wrapper: T, content: Any) -> T:
    """Return a wrapper around another object."""
    return replace(wrapper, **{wrapper.wraps: enclose(content)})  # type: ignore[attr-defined]


def layers(value: Any) -> Iterator[Any]:
    """Yield a wrapper, what it holds, what that holds, and so on to the innermost object."""
    while value is not None:
        yield value
        value = wrapped(value)


def passed_on(field: str, name: str) -> property:
    """Return an attribute that is that of the object in a field."""
    return property(
        lambda self: getattr(disclose(getattr(self, field)), name),
        doc=f"The ``{name}`` of what is in ``{field}``.",
    )
