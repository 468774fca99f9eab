"""Every method of the library, described by itself: `python -m experiments methods` prints them.

What is printed is made from the classes: their signatures, docstrings, needs and costs. Then come
their largest stable stepsizes (`stability`): what `jd.theory` knows beside what is measured.
"""

import dataclasses
import inspect
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import jax

import jaxdopt as jd
from experiments.catalogue import roles
from experiments.catalogue.listings import Listing, listing

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
    if "compressor" in vars(method):
        method = jd.replace(method, compressor=jd.compressors.Identity())
    if hasattr(method, "code"):
        method = jd.replace(method, code=None)
    kind = next(kind for kind in roles.KINDS if roles.fits(name, kind))
    network = roles.network(kind).at(0, KEY)
    state = method.init(problem.start(), problem, network, KEY)
    cost = jd.costs.cost_of(method, state, problem, network)
    numbers = float(cost.bits) / 32 - float(cost.vectors) * problem.d
    parts = [_counted(cost.vectors, "vector")] if float(cost.vectors) else []
    parts += [_counted(numbers, "number")] if numbers > 1e-6 else []
    return f"{' and '.join(parts)} in {_counted(cost.exchanges, 'exchange')}"


def _counted(value: Any, what: str) -> str:
    return f"{float(value):.2g} {what}{'' if float(value) == 1 else 's'}"


AGENTS = 8
RING = jd.networks.metropolis(jd.graphs.ring(AGENTS))
LOCAL_STEPS = 3
SETTINGS: dict[type, Callable[[], tuple[Any, Any]]] = {
    jd.FedAvg: lambda: (jd.FedAvg(1.0, local_steps=LOCAL_STEPS), jd.networks.Server(AGENTS)),
    jd.LocalDSGD: lambda: (jd.LocalDSGD(1.0, local_steps=LOCAL_STEPS), RING),
    jd.OLDSGD: lambda: (jd.OLDSGD(1.0, local_steps=LOCAL_STEPS), RING),
    jd.STPP: lambda: (jd.STPP(1.0), jd.networks.spanning_tree(jd.graphs.ring(AGENTS))),
    jd.ADSGD: lambda: (jd.ADSGD(1.0), jd.networks.timeline(RING, delay=0.5, steps=256)),
}
"""The methods that need more than a stepsize, or another network than the ring."""


def reference(curvature_spread: float) -> Any:
    """Return the problem on which stability is measured: heterogeneous quadratics of two numbers.

    κ = 10 and ζ = 1; with a curvature_spread of 0 all agents have the same Hessian.
    """
    return jd.problems.quadratic(AGENTS, 2, curvature_spread=curvature_spread)


@dataclasses.dataclass(frozen=True)
class Stability:
    """A method's largest stepsizes in units of 1/L, of theory and measured, on `reference`."""

    name: str
    bound: Any  # a claim or None: α below which it converges
    edge: Any  # a claim or None: α above which it diverges on equal quadratics
    equal: float  # measured where all agents have the same Hessian
    unequal: float  # measured where they have not

    def __str__(self) -> str:
        numbers = (self.bound, self.edge, self.equal, self.unequal)
        cells = ("-" if x is None else f"{float(x):.4f}" for x in numbers)
        formula = next(c.formula for c in (self.bound, self.edge) if c is not None)
        return f"{self.name:<18}" + "".join(f"{cell:>10}" for cell in cells) + f"   {formula}"


def stability() -> Iterator[Stability]:
    """Yield bound and measured edge of every method whose theorems have a stepsize."""
    problems = {spread: reference(spread) for spread in (0.0, 0.5)}
    for name in jd.theory.METHODS:
        kind = roles.METHODS[name]
        method, network = SETTINGS.get(kind, lambda kind=kind: (roles.built(kind.__name__), RING))()
        if not jd.roles.offers(network) >= method.needs:
            continue
        theory = jd.theory.of(method, problems[0.0], network)  # whose L is 1
        if theory.stepsize is None and theory.edge is None:
            continue
        edges = (
            jd.theory.edge(method, problem, network) * float(problem.smoothness)
            for problem in problems.values()
        )
        yield Stability(name, theory.stepsize, theory.edge, *edges)


def run() -> None:
    """Print all methods."""
    print("\n\n".join(map(str, entries())))
    print(f"\nWhat is sent is over one link of an agent, the average of {roles.N} agents.")
    print(
        f"\nLargest stable stepsizes, times L, on quadratics of {AGENTS} agents with Metropolis "
        "weights on a ring:\nbound (sufficient) and edge (equal Hessians) of theory, edges "
        "measured with equal and unequal Hessians\n"
    )
    heads = ("bound", "edge", "equal", "unequal")
    print(f"{'':<18}" + "".join(f"{head:>10}" for head in heads) + "   bound, or else edge")
    print("\n".join(map(str, stability())))
