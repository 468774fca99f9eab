"""Checks of gradients by tracing them once: their shapes, and leaves that are always zero."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from jaxdopt._checks import require
from jaxdopt.problems.layout import Layout

STATE = "state such as batch statistics has no gradient: close over it, or use GroupNorm"
SHAPES = ("broadcast_in_dim", "convert_element_type", "reshape", "squeeze", "transpose", "copy")
HOMOGENEOUS = (*SHAPES, "neg", "reduce_sum", "mul", "div")  # 0 if the operand is; either of two
ADDITIVE = ("add", "sub", "add_any", "select_n")  # 0 if all operands are


def traced(name: str, function: Callable[..., Any], *args: Any) -> tuple[Any, Any]:
    """Return a function's jaxpr and the shapes it returns; say with what arguments it fails."""
    try:
        return jax.make_jaxpr(function, return_shape=True)(*args)
    except Exception as error:  # the user's own code can raise anything
        shapes = [", ".join(str(np.shape(x)) for x in jax.tree.leaves(a)) for a in args[:2]]
        first = str(error).strip().partition("\n")[0].rstrip(".")[:80]
        raise ValueError(
            f"{name} fails ({type(error).__name__}: {first}); it is called with params of shapes "
            f"{shapes[0][:40]} and data of shapes {shapes[1][:40]}."
        ) from error


def require_gradient(
    name: str, gradient: Callable[..., Any], layout: Layout, *args: Any, may_vanish: bool = False
) -> None:
    """Refuse a gradient of other shapes than the parameters', or that is identically zero.

    A leaf whose gradient is always zero is no parameter: methods would mix and send it for nothing.
    A gradient that ``may_vanish`` is accepted if all its leaves are zero.
    """
    closed, given = traced(f"{name}'s gradient", gradient, *args)
    leaves, treedef = jax.tree.flatten(given)
    shapes = tuple(leaf.shape for leaf in leaves)
    require(
        treedef == layout.treedef and shapes == layout.shapes,
        f"{name} gives one agent's parameters of shapes {', '.join(map(str, layout.shapes))[:60]} "
        f"a gradient of shapes {', '.join(map(str, shapes))[:60]}; return the parameters' own tree "
        "and shapes.",
    )
    for leaf in leaves:
        require(
            jnp.issubdtype(leaf.dtype, jnp.floating),
            f"{name} gives a gradient of dtype {leaf.dtype}; return floating numbers.",
        )
    sized = [i for i, leaf in enumerate(leaves) if leaf.size]
    zero = zeros(closed.jaxpr)
    if may_vanish and all(zero[i] for i in sized):
        return
    for i in sized:
        require(
            not zero[i],
            f"{name} does not depend on parameter leaf {layout.names[i]}, whose gradient is always "
            f"zero; {STATE}, LayerNorm or the like.",
        )


def zeros(jaxpr: Any, known: Any = ()) -> list[bool]:
    """Return which outputs are zeros that depend on nothing, as gradients of unused inputs are.

    Products with a user's zero, as in ``0.0 * penalty``, are not counted.
    """
    found = set(known)
    for equation in jaxpr.eqns:
        operands = [v for v in equation.invars if not isinstance(v, Literal)]
        kind = equation.primitive.name
        if kind in ("jit", "pjit"):
            inner = equation.params["jaxpr"].jaxpr
            given = zip(inner.invars, equation.invars, strict=True)
            within = zeros(
                inner, [a for a, b in given if not isinstance(b, Literal) and b in found]
            )
            found.update(v for v, z in zip(equation.outvars, within, strict=True) if z)
        elif kind == "scan":
            found.update(_zeros_of_scan(equation, found))
        elif (
            (kind == "broadcast_in_dim" and not operands and _is_zero(equation.invars[0]))
            or (kind in HOMOGENEOUS and not found.isdisjoint(operands))
            or (kind in ADDITIVE and operands and found.issuperset(_added(equation)))
        ):
            found.update(equation.outvars)
    return [_is_zero(v) if isinstance(v, Literal) else v in found for v in jaxpr.outvars]


def _zeros_of_scan(equation: Any, found: set[Any]) -> list[Any]:
    """Return a scan's outputs that are zero: sums, too, that start at zero and stay there."""
    body, carries = equation.params["jaxpr"].jaxpr, equation.params["num_carry"]
    first = equation.params["num_consts"]
    given = [not isinstance(v, Literal) and v in found for v in equation.invars]
    while True:
        within = zeros(body, [v for v, z in zip(body.invars, given, strict=True) if z])
        kept = [a and b for a, b in zip(given[first : first + carries], within, strict=False)]
        if kept == given[first : first + carries]:
            return [v for v, z in zip(equation.outvars, within, strict=True) if z]
        given[first : first + carries] = kept


def _added(equation: Any) -> list[Any]:
    """Return the operands of a sum, or of a choice without its condition."""
    chosen = equation.invars[1:] if equation.primitive.name == "select_n" else equation.invars
    return [None if isinstance(v, Literal) else v for v in chosen]


def _is_zero(literal: Any) -> bool:
    return np.ndim(literal.val) == 0 and float(literal.val) == 0
