"""Poisoned data: problems in which some agents' labels are false."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdopt._checks import count, require, who_lies
from jaxdopt._leaves import is_traced
from jaxdopt._pytree import replace
from jaxdopt._wrapper import rewrap, wrapped
from jaxdopt.problems.finite_sum import FiniteSum, gathered


def flip_labels(problem: Any, liars: Any, *, classes: int | None = None, labels: Any = 1) -> Any:
    """Return the problem with the liars' labels flipped: y becomes C − 1 − y, and ±1 becomes ∓1.

    Liars that follow the protocol on such data are the attack "label flip": give the network
    ``attack=None``, by which they tell the truth about it. All other agents' data are the same
    arrays' rows. L and μ are kept, as those of linear models do not depend on labels; the solution
    and the optimum are of other data, and are dropped.

    Args:
        problem: a `FiniteSum`, of this module or your own, or a wrapper of one, such as
            `Minibatch`.
        liars: their number f, for the last f agents, or a mask [n], as `jd.networks.robust` takes
            them.
        classes: C; by default one more than the largest label. Labels −1 and 1 have no need of it.
        labels: where a sample has its label: its position in a tuple, or its key in a dict.

    Raises:
        ValueError: a problem without samples, samples without such labels, labels that are neither
            ±1 nor classes 0 to C − 1, or liars that are not of these agents.

    Source: Allen-Zhu, Ebrahimianghazani, Li, Alistarh (2021), arXiv 2012.14368 ("label-flipping").

    Example:
        >>> import jaxdopt as jd
        >>> problem = jd.problems.softmax_regression(A, jnp.arange(len(A)) % 3, agents=4)
        >>> poisoned = jd.problems.flip_labels(problem, 1)
        >>> (problem.data[1] + poisoned.data[1]).max(axis=1).tolist()  # y + C − 1 − y is 2
        [4, 4, 4, 2]
    """
    within = wrapped(problem)
    if within is not None:
        flipped = rewrap(problem, flip_labels(within, liars, classes=classes, labels=labels))
        own = vars(flipped).keys() & {"solution", "optimum"}
        return replace(flipped, **dict.fromkeys(own)) if own else flipped
    require(
        isinstance(problem, FiniteSum),
        f"problem is a {type(problem).__name__}, whose labels are not known; give a FiniteSum, or "
        "flip them in the data that it is made of.",
    )
    problem = problem if problem.agents is None else gathered(problem)
    data = problem.data
    has = isinstance(data, Mapping) and labels in data
    has |= isinstance(data, tuple) and labels in range(len(data))
    require(
        has,
        f"labels is {labels!r}, which a sample of this problem does not have; give the position of "
        "the label in a tuple, or its key in a dict.",
    )
    truth = data[labels]
    require(
        isinstance(truth, jax.Array | np.ndarray) and truth.ndim == 2,
        f"the labels have shape {_shapes(truth)}; give one number a sample, [n, m].",
    )
    low, high = _range(truth, classes)
    mask = jnp.asarray(who_lies(liars, problem.n, most=problem.n))
    false = jnp.where(mask[:, None], (low + high - truth).astype(truth.dtype), truth)
    data = jax.tree.map(lambda leaf: false if leaf is truth else leaf, data)
    return replace(problem, data=data, solution=None, optimum=None)


def _range(labels: Any, classes: int | None) -> tuple[Any, Any]:
    """Return the labels whose sum with a label is that with its opposite: −1 and 1, 0 and C − 1."""
    known = None if classes is None else count("classes", classes, 2) - 1
    if is_traced(labels):
        require(known is not None, "the labels are traced; give classes, their number.")
        return 0, known
    values = np.unique(np.asarray(labels).astype(float))
    signs = set(values) <= {-1, 1}
    if signs and (values[0] < 0 or jnp.issubdtype(labels.dtype, jnp.floating)):
        return -1, 1
    high = int(values[-1]) if known is None else known
    require(
        all(v.is_integer() and 0 <= v <= high for v in values),
        f"the labels are from {values[0]:g} to {values[-1]:g}; give classes 0, 1, ..., "
        f"{'' if known is None else f'{high}, '}or labels −1 and 1.",
    )
    return 0, high


def _shapes(tree: Any) -> Any:
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(tree)]
    return shapes[0] if len(shapes) == 1 else shapes
