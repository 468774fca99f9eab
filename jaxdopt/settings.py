"""Settings: what `compare` runs, each method with the problem and the networks it runs on."""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any

import jax

from jaxdopt import _repr
from jaxdopt import networks as _networks
from jaxdopt._checks import require
from jaxdopt.sweep import listed

ONLY = "network"  # the label of a network that nobody has named


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Setting:
    """A method on a problem or a network of its own, as a member of `compare`.

    What is left out is what the comparison gives to all methods. The histories of a method on one
    network of its own are those under every network's name; the method runs once.

    Args:
        method: the method.
        problem: its problem, which has to have the metrics of the others.
        network: its network, or {name: network} for the same names as the comparison's networks.

    Example:
        >>> import jaxdopt as jd
        >>> graph = jd.graphs.ring(4)
        >>> methods = {
        ...     "DSGD": jd.DSGD(0.1),
        ...     "STPP": jd.Setting(jd.STPP(0.05), network=jd.networks.spanning_tree(graph)),
        ... }
        >>> problem, ring = jd.problems.quadratic(4, 2), jd.networks.metropolis(graph)
        >>> dataset = jd.compare(methods, problem, ring, steps=10, progress=False)
        >>> dict(dataset["gap"].sizes)
        {'algorithm': 2, 'network': 1, 'seed': 1, 'step': 11}
    """

    method: Any
    _: dataclasses.KW_ONLY
    problem: Any = None
    network: Any = None
    __repr__ = _repr.text
    _repr_html_ = _repr.html


@dataclasses.dataclass(frozen=True, eq=False)
class Cell:
    """A method on a problem and one network, whose histories are those under some labels."""

    name: str  # the method's
    method: Any
    problem: Any
    network: Any
    labels: list[str]
    where: tuple[str, ...]  # the network's name, if it has one

    @property
    def title(self) -> str:
        """What the cell is called in messages."""
        return ", ".join((self.name, *self.where))


def cells_of(algorithms: Any, problem: Any, networks: Any) -> tuple[list[Cell], list[str]]:
    """Return what is to be run, method by method, and the labels of networks."""
    members = {
        name: member if isinstance(member, Setting) else Setting(member)
        for name, member in _named("algorithms", "method", algorithms).items()
    }
    shared = {"problem": problem, "network": networks}
    for name, member in members.items():
        for role in shared:
            require(
                shared[role] is not None or getattr(member, role) is not None,
                f"{name} has no {role} of its own and the comparison gives none; give one to "
                f"either, as in jd.Setting(method, {role}=...).",
            )
    several = {"networks": networks}
    several |= {f"the network of {name}": member.network for name, member in members.items()}
    several = {
        role: _named(role, "network", given)
        for role, given in several.items()
        if isinstance(given, Mapping | list | tuple | set)
    }
    first = next(iter(several), "")
    labels = list(several.get(first, {ONLY: None}))
    for role, given in several.items():
        require(
            set(given) == set(labels),
            f"{role} is named {listed(given)} and {first} {listed(labels)}; give both the same "
            "names, or one network in place of one of them.",
        )
    cells = []
    for name, member in members.items():
        own = shared["problem"] if member.problem is None else member.problem
        network = shared["network"] if member.network is None else member.network
        if isinstance(network, Mapping):
            places = [(network[label], [label], (label,)) for label in labels]
        else:
            places = [(network, labels, ())]
        cells += [Cell(name, member.method, own, *place) for place in places]
    return cells, labels


def in_one_form(cells: list[Cell]) -> list[Cell]:
    """Return the cells with the networks of every method in one form, for one program."""
    known: dict[tuple[int, ...], list[Any]] = {}
    result = []
    for _, group in itertools.groupby(cells, key=lambda cell: cell.name):
        members = list(group)
        given = [cell.network for cell in members]
        key = tuple(map(id, given))
        if key not in known:
            known[key] = _in_one_form(given)
        for cell, network in zip(members, known[key], strict=True):
            result.append(dataclasses.replace(cell, network=network))
    return result


def _in_one_form(given: list[Any]) -> list[Any]:
    """Return networks with those of plain doubly stochastic weights in one form."""
    forms = _networks.Dense | _networks.Neighbors | _networks.Circulant | _networks.Complete
    plain = [i for i, net in enumerate(given) if isinstance(net, forms) and net.kind == "doubly"]
    result = list(given)
    if plain:
        stacked = _networks.stack([given[i] for i in plain])
        for member, i in enumerate(plain):
            result[i] = jax.tree.map(lambda leaf, member=member: leaf[member], stacked)
    return result


def _named(role: str, kind: str, members: Any) -> dict[str, Any]:
    """Return what is compared by name."""
    shown = "empty" if isinstance(members, Mapping) else f"a {type(members).__name__}"
    require(
        isinstance(members, Mapping) and len(members) > 0,
        f"{role} is {shown}; give {{name: {kind}}} with at least one.",
    )
    members = dict(members)
    unnamed = [name for name in members if not isinstance(name, str)]
    require(not unnamed, f"{role} has {unnamed} for names; give strings.")
    return members
