"""Problems, or any pytrees, stacked along a new first axis to be swept over."""

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxdopt._checks import require
from jaxdopt._leaves import cast_floats
from jaxdopt._pytree import replace
from jaxdopt._wrapper import Wrapper, rewrap, wrapped
from jaxdopt.problems.finite_sum import FiniteSum, gathered

T = TypeVar("T")
FACTS = ("smoothness", "strong_convexity", "solution", "optimum")


def stack(members: Sequence[T]) -> T:
    """Return pytrees of one structure as one, every leaf with a new first axis, for `sweep`.

    Finite sums may differ in the number of samples, and be even or uneven: their data are padded to
    the longest. Facts that are not known of every member are dropped. Both also happen inside
    wrappers such as `Minibatch`. Everything else has to agree: n, d, the loss, static fields. For
    networks of different forms use `jd.networks.stack`.

    Raises:
        ValueError: no members, or members that differ in structure, static fields or shapes.

    Example:
        >>> import jaxdopt as jd
        >>> splits = [jd.partition.dirichlet(alpha) for alpha in (0.1, 10.0)]
        >>> problems = jd.stack([
        ...     jd.problems.logistic_regression(A, b > 0, agents=4, l2=0.1, partition=split)
        ...     for split in splits
        ... ])
        >>> curves = jd.sweep(jd.run, over=("problem",))(
        ...     jd.DGD(0.1), problems, network, problem.start(), jax.random.key(0), steps=5
        ... )
        >>> curves.history["gap"].shape
        (2, 6)
    """
    require(
        isinstance(members, Sequence),
        f"members is a {type(members).__name__}; give a list of at least one member.",
    )
    require(len(members) > 0, "members is an empty list; give a list of at least one member.")
    for name in ("n", "d"):
        values = list(dict.fromkeys(getattr(member, name, None) for member in members))
        require(
            len(values) == 1,
            f"the members have {name} = {', '.join(map(str, values))}; give all the same {name}.",
        )
    aligned = _aligned(list(members))
    first = aligned[0]
    treedef = jax.tree.structure(first)
    for i, member in enumerate(aligned):
        require(
            jax.tree.structure(member) == treedef,
            f"members 0 and {i} differ in {_difference(first, member)}; stack members of one "
            "structure.",
        )
    paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(first)[0]]
    columns = zip(*map(jax.tree.leaves, aligned), strict=True)
    leaves = []
    for path, column in zip(paths, columns, strict=True):
        shapes = [np.shape(leaf) for leaf in column]
        require(
            len(set(shapes)) == 1,
            f"the members' {jax.tree_util.keystr(path).lstrip('.') or 'arrays'} have shapes "
            f"{', '.join(map(str, dict.fromkeys(shapes)))}; give all the same.",
        )
        leaves.append(jnp.stack([jnp.asarray(leaf) for leaf in column]))
    return treedef.unflatten(leaves)


def _aligned(members: list[Any]) -> list[Any]:
    """Return members with the same padding and the same known facts."""
    first = members[0]
    if any(
        type(member) is not type(first) or not hasattr(member, "__dict__") for member in members
    ):
        return members
    if isinstance(first, FiniteSum):
        members = _padded_alike(members)
    elif isinstance(first, Wrapper):
        members = list(map(rewrap, members, _aligned([wrapped(member) for member in members])))
    for fact in FACTS:
        if fact in vars(first) and any(vars(member)[fact] is None for member in members):
            members = [replace(member, **{fact: None}) for member in members]
    return members


def _padded_alike(members: list[FiniteSum]) -> list[FiniteSum]:
    """Return finite sums whose data are padded to one length, with numbers of one dtype."""
    members = [gathered(member) for member in members]
    most = max(member.most for member in members)
    even = all(m.most == most and m.sample_weights is None for m in members)
    alike = []
    for member in members:
        if not even:
            place = jnp.arange(most) % member.counts[:, None]  # an agent's own samples again
            who = jnp.arange(member.n)[:, None]
            real = jnp.arange(most) < member.counts[:, None]
            member = replace(
                member,
                data=jax.tree.map(lambda leaf, who=who, place=place: leaf[who, place], member.data),
                sample_weights=real / member.counts[:, None].astype(member.origin.dtype),
            )
        numbers = cast_floats({"l2": member.l2, "loss": member.loss}, member.origin.dtype)
        alike.append(replace(member, **numbers))
    return alike


def _difference(a: Any, b: Any) -> str:
    """Return where two pytrees of different structure differ, as a path of field names."""
    if type(a) is not type(b):
        return f"type, {type(a).__name__} and {type(b).__name__}"
    for field in dataclasses.fields(a) if dataclasses.is_dataclass(a) else ():
        mine, other = getattr(a, field.name), getattr(b, field.name)
        if field.metadata.get("static") and mine != other:
            return field.name
        if jax.tree.structure(mine) != jax.tree.structure(other):
            nested = dataclasses.is_dataclass(mine) and type(mine) is type(other)
            return f"{field.name}.{_difference(mine, other)}" if nested else field.name
    return "structure"
