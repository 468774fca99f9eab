"""Two flax modules, for `jd.problems.flax` and `next_token`, and what `jd.problems.mlp` predicts.

Flax is imported when one of its modules is asked for; it is no dependency of the library.
"""

import importlib
from typing import TYPE_CHECKING, Any

from jaxdopt.problems.neural.losses import cross_entropy
from jaxdopt.problems.neural.mlp import predict
from jaxdopt.problems.reading import imported

if TYPE_CHECKING:
    from jaxdopt.problems.neural.models import CNN, Transformer

__all__ = ["CNN", "Transformer", "cross_entropy", "predict"]


def __getattr__(name: str) -> Any:
    """Import flax's modules when one is asked for first."""
    if name not in ("CNN", "Transformer"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    imported(f"jd.problems.neural.{name}", "flax")
    return getattr(importlib.import_module("jaxdopt.problems.neural.models"), name)
