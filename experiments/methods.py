"""Every method of the library, described by itself: `python -m experiments methods` prints them.

What is printed is made from the classes: their signatures, docstrings, needs and costs.
"""

import dataclasses
import inspect
import textwrap
from collections.abc import Iterator
from typing import Any

import jax

import jaxdopt as jd
from experiments import roles
from experiments.listings import Listing, listing

KEY = jax.random.key(0)


@dataclasses.dataclass(frozen=True)
class Entry:
    """What is to be known of a method."""

    name: str
    signature: str  # how it is built
    family: str  # the folder in which its file lies
    needs: tuple[str, ...]  # the words of `jaxdopt.roles`
    sends: str  # in a step
    listing: Listing  # what its docstrings say

    @property
    def iteration(self) -> str:
        """The iteration in one line."""
        return self.listing.iteration

    def __str__(self) -> str:
        told = self.listing
        about = f"{self.family}; needs {', '.join(self.needs)}; sends {self.sends} a step"
        sure = f"{told.confidence}{f'; open: {told.open}' * bool(told.open)}"
        body = [self.iteration, about, f"Source: {told.source}.", f"Confidence: {sure}."]
        body.append(f"Tested: {told.tested}")
        return "\n".join([self.signature, *map(_indented, body)])


def entries() -> Iterator[Entry]:
    """Yield all methods, family by family."""
    for name, method in sorted(roles.METHODS.items(), key=lambda item: item[1].__module__):
        needs = roles.built(name).needs
        yield Entry(
            name,
            f"{name}({', '.join(_arguments(method))})",
            method.__module__.split(".")[2],
            tuple(word for word in (*jd.roles.WORDS, *jd.roles.PROBLEMS) if word in needs),
            _sends(name),
            listing(method),
        )


def _indented(text: str) -> str:
    return textwrap.fill(
        text, 100, initial_indent=" " * 4, subsequent_indent=" " * 8, replace_whitespace=False
    )


def _arguments(method: type) -> Iterator[str]:
    for name, parameter in inspect.signature(method).parameters.items():
        given = parameter.default
        yield name if given is inspect.Parameter.empty else f"{name}={given!r}"


def _sends(name: str) -> str:
    """Return what an agent sends over one of its links, on the first kind of network that fits."""
    method, problem = roles.built(name), roles.problem()
    if hasattr(method, "compressor"):
        method = jd.replace(method, compressor=jd.compressors.Identity())
    kind = next(kind for kind in roles.KINDS if roles.fits(name, kind))
    network = roles.KINDS[kind]().at(0, KEY)
    state = method.init(problem.start(), problem, network, KEY)
    cost = jd.costs.cost_of(method, state, problem, network)
    numbers = float(cost.bits) / 32 - float(cost.vectors) * problem.d
    parts = [_counted(cost.vectors, "vector")]
    parts += [_counted(numbers, "number")] if numbers > 1e-6 else []
    return f"{' and '.join(parts)} in {_counted(cost.exchanges, 'exchange')}"


def _counted(value: Any, what: str) -> str:
    return f"{float(value):.2g} {what}{'' if float(value) == 1 else 's'}"


def run() -> None:
    """Print all methods."""
    print("\n\n".join(map(str, entries())))
    print(f"\nWhat is sent is over one link of an agent, the average of {roles.N} agents.")
