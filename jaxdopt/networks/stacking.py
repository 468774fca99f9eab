"""Networks of one structure stacked along a new first axis, for `jax.vmap` and `sweep`."""

from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp

from jaxdopt._checks import require
from jaxdopt._pytree import replace
from jaxdopt._wrapper import Wrapper, rewrap, wrapped
from jaxdopt.networks.checks import require_network
from jaxdopt.networks.operators.choose import is_sparse
from jaxdopt.networks.operators.circulant import Circulant
from jaxdopt.networks.operators.complete import Complete
from jaxdopt.networks.operators.dense import Dense
from jaxdopt.networks.operators.sparse import UNROLLED, Neighbors, Pushes, off_diagonal, table
from jaxdopt.networks.parts import Parts

SMALL = 512  # agents up to which a stack of sparse networks with hubs is dense


def stack(networks: Sequence[Any]) -> Any:
    """Stack networks of the same n along a new first axis, for `jax.vmap` and `sweep`.

    Members of one structure keep it. Fixed networks of different structures become neighbor tables
    if all are sparse, and `Dense` otherwise, also inside wrappers. Timelines are padded to one size
    and cut to the length of the shortest. A time that `at` has set is dropped.

    Raises:
        ValueError: there are no networks, they have different numbers of agents, or they change
            with time in different ways.
    """
    require(
        isinstance(networks, Iterable) and not hasattr(networks, "nodes"),
        f"networks is a {type(networks).__name__}; give a list of networks.",
    )
    networks = list(networks)
    for network in networks:
        require_network(network)
    members = [_timeless(network) for network in networks]
    require(members, "there are no networks to stack; give at least one.")
    counts = sorted({network.n for network in members})
    require(
        len(counts) == 1,
        f"networks of {' and '.join(map(str, counts))} agents cannot be stacked; "
        "give them the same number of agents.",
    )
    if isinstance(members[0], Complete):  # it has nothing to stack
        members = _same_form(members)
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *_aligned(members))


def _timeless(network: Any) -> Any:
    """Return a network without the time that `at` has set."""
    if isinstance(network, Wrapper):
        network = rewrap(network, _timeless(wrapped(network)))
    if isinstance(network, Parts):
        return replace(network, **{name: _timeless(p) for name, p in network.parts.items()})
    return replace(network, **{name: None for name in ("k", "key") if name in vars(network)})


def _aligned(members: list[Any]) -> list[Any]:
    """Return members of one structure as they are, and others in one form."""
    return _same_form(members) if len({_structure(m) for m in members}) > 1 else members


def _same_form(members: list[Any]) -> list[Any]:
    """Bring fixed networks of different forms to one, and tables of rounds to one size."""
    if hasattr(members[0], "aligned") and len({type(m) for m in members}) == 1:
        return members[0].aligned(members)
    if all(isinstance(m, Parts) and type(m) is type(members[0]) for m in members):
        parts = {name: _aligned([m.parts[name] for m in members]) for name in members[0].parts}
        each = zip(members, zip(*parts.values(), strict=True), strict=True)
        return [replace(m, **dict(zip(parts, own, strict=True))) for m, own in each]
    if isinstance(members[0], Wrapper) and len({type(m) for m in members}) == 1:
        inner = _aligned([wrapped(member) for member in members])
        members = list(map(rewrap, members, inner))
        if len({_structure(member) for member in members}) == 1:
            return members
    names = sorted({type(m).__name__ for m in members})
    require(
        all(isinstance(m, Dense | Neighbors | Circulant | Complete | Pushes) for m in members),
        f"networks of the kinds {', '.join(names)} differ in structure and cannot be stacked; run "
        "them one by one.",
    )
    kinds = sorted({m.kind for m in members})
    require(
        len(kinds) == 1,
        f"networks whose weights are {' and '.join(kinds)} stochastic cannot be stacked; run them "
        "one by one.",
    )
    symmetric, pushes = (all(getattr(m, name) for m in members) for name in ("symmetric", "pushes"))
    if all(isinstance(m, Neighbors | Circulant | Pushes) for m in members):
        n = members[0].n
        parts = [off_diagonal(m.csr()) for m in members]
        given = [sp.csr_array(away.T) for away in parts] if kinds[0] == "column" else []
        heard, hearing = (
            max((int(np.diff(away.indptr).max()) for away in several), default=1) or 1
            for several in (parts, given)
        )
        most = max(heard, hearing)
        if most <= UNROLLED and is_sparse(n, most, n * most):
            tables = [table(away, heard) for away in parts]
            others = [table(away, hearing) for away in given]
            if given:
                both = zip(tables, others, strict=True)
                return [Pushes(*t[:2], *o[:2], pushes=pushes) for t, o in both]
            return [Neighbors(i, w, symmetric=symmetric, kind=kinds[0]) for i, w, _ in tables]
        require(
            n <= SMALL,
            f"networks of {n} agents in which one has more than {UNROLLED} neighbors cannot be "
            "stacked at this size; run them one by one.",
        )
    options = {"symmetric": symmetric, "kind": kinds[0], "pushes": pushes}
    return [Dense(m.matrix(), **options) for m in members]


def _structure(network: Any) -> Any:
    leaves, treedef = jax.tree.flatten(network)
    return treedef, tuple(np.shape(leaf) for leaf in leaves)
