"""One ratio a row: two programs timed in turns in one process, after their results are compared."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pandas as pd

from experiments.tables import number


@dataclasses.dataclass(frozen=True)
class Row:
    """One ratio, and the bar that it is held against."""

    name: str
    what: str
    ours_ms: float
    theirs_ms: float
    ratio: float
    bar: str
    met: bool
    compile_s: float
    absent: str = ""
    """Why it was not measured here, as "needs a GPU"; then there is no ratio."""

    @property
    def verdict(self) -> str:
        """Whether the bar is met, if there is one."""
        return "-" if self.absent or self.bar == "-" else "yes" if self.met else "no"

    @property
    def figure(self) -> str:
        """The ratio, or that there is none."""
        return "not measured here" if self.absent else f"{self.ratio:.2f}"


def absent(name: str, what: str, bar: str, why: str) -> Row:
    """Return the row of what cannot be measured here."""
    nothing = float("nan")
    return Row(name, f"{what} ({why})", nothing, nothing, nothing, bar, False, nothing, why)


def on_gpu() -> bool:
    """Return whether programs run on a GPU here."""
    return jax.default_backend() == "gpu"


def timed(*functions: Callable[[], Any], repeats: int) -> list[float]:
    """Return each function's best time in seconds, taking turns so that noise hits all alike."""
    best = [np.inf] * len(functions)
    for _ in range(repeats):
        for i, function in enumerate(functions):
            began = time.perf_counter()
            jax.block_until_ready(function())
            best[i] = min(best[i], time.perf_counter() - began)
    return best


def first_call(function: Callable[[], Any]) -> tuple[Any, float]:
    """Return a function's result and the seconds of its first call, compilation included."""
    began = time.perf_counter()
    result = jax.block_until_ready(function())
    return result, time.perf_counter() - began


def agree(ours: Any, theirs: Any) -> None:
    """Raise unless two programs computed the same, to a float32 tolerance."""
    np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), rtol=2e-3, atol=2e-4)


def table(rows: list[Row]) -> pd.DataFrame:
    """Return the rows as a table of ratios."""
    return pd.DataFrame(
        [
            (
                row.name,
                row.what,
                row.figure,
                row.bar,
                row.verdict,
                number(row.ours_ms, ".4f"),
                number(row.theirs_ms, ".4f"),
                number(row.compile_s, ".2f"),
            )
            for row in rows
        ],
        columns=(
            "",
            "measure",
            "ratio",
            "bar",
            "met",
            "ours ms/step",
            "theirs ms/step",
            "first call s",
        ),
    )
