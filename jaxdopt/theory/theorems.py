"""What the laws say of a method on a problem and a network."""

import dataclasses
from typing import Any

import numpy as np

from jaxdopt import compressors, roles
from jaxdopt._checks import require
from jaxdopt._leaves import is_traced
from jaxdopt._numbers import Scheduled
from jaxdopt._pytree import number_fields
from jaxdopt.theory.claims import Law, Laws, Theory
from jaxdopt.theory.constants import Constants, require_fixed
from jaxdopt.theory.laws import CENTRAL, LAWS

_REMEDIES = {
    "timeline": "jd.networks.timeline(jd.networks.metropolis(graph), steps=...)",
    "server": "jd.networks.Server(n), with all clients in every round",
    "all": "jd.networks.Server(n), with all clients in every round",
    "push": "jd.networks.column_stochastic(graph)",
    "tree": "jd.networks.spanning_tree(graph)",
}
PLAIN = {  # options of FedAvg without which its local steps are plain gradient descent
    "server_stepsize": 1.0,
    "own_steps": None,
    "local": None,
    "server": None,
    "restart": False,
}


def of(method: Any, problem: Any, network: Any = None) -> Theory:
    """Return what theorems say of a method on a problem and a network.

    Args:
        method: an instance, for whose stepsize the rate and the error hold; or the class, which
            leaves them as formulas.
        problem: any; or `Constants`, with which no network is needed, and whose arrays give
            arrays, such as the boundary of a phase diagram.
        network: on which the method runs, fixed in time or a timeline; the centralized baselines
            need none.

    Raises:
        ValueError: there are no theorems on the method here; they do not cover the network, or the
            method's options; the method does not run on the network.

    Example:
        >>> import jaxdopt as jd
        >>> ring = jd.networks.metropolis(jd.graphs.ring(8))
        >>> problem = jd.problems.quadratic(8, 2, curvature_spread=0.0)
        >>> theory = jd.theory.of(jd.EXTRA(0.5), problem, ring)
        >>> theory.stepsize.formula, round(float(theory.stepsize), 3)
        ('2 λ_min(W̃) / L,  W̃ = (I + W)/2', 0.667)
        >>> theory.edge.kind, round(float(theory.edge), 3)
        ('exact', 1.0)
        >>> gaps = np.array([0.1, 0.01])
        >>> jd.theory.of(jd.DSGD, jd.theory.Constants(n=16, gap=gaps)).transient.value
        array([  1600., 160000.])
    """
    whole = isinstance(method, type)
    kind = method if whole else type(method)
    name = getattr(kind, "__name__", str(kind))
    known = ", ".join(sorted(one.__name__ for one in LAWS))
    require(kind in LAWS, f"no theorem on {name} is known here; there are some on {known}.")
    laws = LAWS[kind]
    sample = _sample(kind) if whole else method
    if isinstance(problem, Constants):
        constants, d = problem, None
    else:
        _require_covered(name, laws, sample, problem, network)
        draws = "finite sum" in sample.needs
        constants, d = Constants.of(problem, network, draws=draws), problem.d
    letters = vars(constants) | _options(sample, whole, d)
    claims = {
        field.name: law.at(letters)
        for field in dataclasses.fields(Laws)
        if isinstance(law := getattr(laws, field.name), Law)
    }
    return Theory(name, constants, **claims)


def _sample(kind: type) -> Any:
    """Return an instance of a class, of any stepsize."""
    numbers = number_fields(kind)
    missing = [
        f.name
        for f in dataclasses.fields(kind)
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    others = [name for name in missing if name not in numbers]
    require(
        not others,
        f"what is known of {kind.__name__} depends on its {' and '.join(others)}; give an instance "
        f"in place of the class.",
    )
    return kind(**dict.fromkeys(missing, 1.0))


def _require_covered(name: str, laws: Laws, method: Any, problem: Any, network: Any) -> None:
    alone = laws.words == CENTRAL
    if network is None:
        require(alone, f"the theorems on {name} are about a network; give the one it runs on.")
        return
    if not alone:
        if "timeline" not in laws.words:
            require_fixed(name, network)
        missing = sorted(laws.words - roles.offers(network))
        require(
            not missing,
            f"the theorems on {name} are about networks that offer {' and '.join(missing)}, and "
            f"this {type(network).__name__} does not; give one such as "
            f"{_REMEDIES.get(''.join(missing[:1]), 'jd.networks.metropolis(graph)')}.",
        )
    roles.check(method, network, problem)


def _options(method: Any, whole: bool, d: int | None) -> dict[str, Any]:
    """Return the letters that are the method's own numbers."""
    for name, expected in PLAIN.items():
        given = getattr(method, name, expected)
        require(
            given is expected or (np.ndim(given) == 0 and given == expected),
            f"the theorems on {type(method).__name__} are about {name} = {expected}, and it is "
            f"{given!r}; give it without.",
        )
    compressor: Any = getattr(method, "compressor", None)
    unbiased = compressors.is_unbiased(compressor)
    return {
        "alpha": None if whole else _constant(getattr(method, "stepsize", None)),
        "theta": _constant(getattr(method, "relaxation", None)),
        "tau": getattr(method, "local_steps", None),
        "C": 1 + compressor.omega(d) if unbiased and d is not None else None,
    }


def _constant(value: Any) -> Any:
    """Return a number as a float, and None for a schedule or one number an agent."""
    if value is None or isinstance(value, Scheduled) or np.ndim(value) > 0:
        return None
    require(not is_traced(value), "the stepsize is traced; call jd.theory.of outside jit.")
    return float(value)
