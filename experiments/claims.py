"""What papers claim, beside what was measured: tests with tolerances, verdicts, one format.

``claims.json`` has the study, its paper, question, scale, seed, command, seconds, versions, data
and figures, and for every claim its text, source and number, the test with its tolerance, all
measured values with their labels, the worst of them, and the verdict: "holds", "fails", or "not
judged" where a scale cannot show it. A ``miss`` is the worst value's distance from what would hold
in units of the tolerance, with its sign; up to 1 it holds.
"""

import dataclasses
import json
import math
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
import xarray as xr

import jaxdopt as jd
from experiments.panels import NotRun

SCHEMA = 1


@dataclasses.dataclass(frozen=True)
class Criterion:
    """What a measured value has to be; see `near`, `within_factor`, `below`, `above`."""

    kind: str
    value: float
    tolerance: float | None = None

    def miss(self, x: Any) -> np.ndarray:
        """Return how far values are off, in units of the tolerance; NaN counts as infinite."""
        x = np.asarray(x, float)
        unit = abs(self.value) or 1.0
        with np.errstate(divide="ignore", invalid="ignore"):
            if self.kind == "near":
                found = (x - self.value) / self.tolerance
            elif self.kind == "within factor":
                found = np.log(x / self.value) / math.log(self.tolerance or math.nan)
            elif self.kind == "below":
                found = 1 + (x - self.value) / unit
            else:
                found = 1 + (self.value - x) / unit
        return np.where(np.isnan(found), np.inf, found)

    def distance(self, misses: Any) -> Any:
        """Return misses without their sign where both sides count; up to 1 they hold."""
        return np.abs(misses) if self.kind in ("near", "within factor") else misses

    def __str__(self) -> str:
        """What would hold, with the tolerance."""
        return {
            "near": f"{self.value:.4g} ± {self.tolerance:.2g}" if self.kind == "near" else "",
            "within factor": f"{self.value:.3g} within a factor of {self.tolerance}",
            "below": f"at most {self.value:.3g}",
            "above": f"at least {self.value:.3g}",
        }[self.kind]


def near(value: float, tolerance: float) -> Criterion:
    """Hold where |x − value| ≤ tolerance."""
    return Criterion("near", value, tolerance)


def within_factor(value: float, factor: float) -> Criterion:
    """Hold where value / factor ≤ x ≤ value · factor."""
    return Criterion("within factor", value, factor)


def below(value: float) -> Criterion:
    """Hold where x ≤ value; the tolerance is |value|, or 1 if that is 0."""
    return Criterion("below", value)


def above(value: float) -> Criterion:
    """Hold where x ≥ value; the tolerance is |value|, or 1 if that is 0."""
    return Criterion("above", value)


@dataclasses.dataclass(frozen=True)
class Claim:
    """A statement with its source, and how it is measured.

    Args:
        text: the statement.
        source: where it stands: paper and place, or "derived".
        claimed: the number or the word that the source has.
        measure: results to a number, or an array whose entries all have to hold.
        holds: the test.
        scales: at which it can be judged; at others it is measured only.
    """

    text: str
    source: str
    claimed: str
    measure: Callable[[Any], Any]
    holds: Criterion
    scales: Sequence[str] = ("quick", "default", "full")

    def judge(self, results: Any) -> dict[str, Any]:
        """Return the claim's entry in claims.json."""
        entry: dict[str, Any] = {
            "text": self.text,
            "source": self.source,
            "claimed": self.claimed,
            "test": dataclasses.asdict(self.holds),
            "holds_if": str(self.holds),
            "measured": [],
            "worst": None,
            "miss": None,
            "verdict": "not judged",
        }
        try:
            measured = self.measure(results)
        except NotRun:
            return entry
        array = measured if isinstance(measured, xr.DataArray) else xr.DataArray(measured)
        places = [
            {str(d): plain(array[d].values[i]) if d in array.coords else i for d, i in at.items()}
            for at in (
                dict(zip(array.dims, place, strict=True)) for place in np.ndindex(array.shape)
            )
        ]
        if not array.size:  # nothing of the kind happened at this scale
            return entry
        values = array.values.astype(float).ravel()
        misses = self.holds.miss(values)
        distances = self.holds.distance(misses)
        worst = int(np.argmax(distances))
        entry["measured"] = [
            {"value": finite(value), "where": where}
            for value, where in zip(values, places, strict=True)
        ]
        entry["worst"] = entry["measured"][worst]
        entry["miss"] = finite(misses[worst])
        if results.scale in self.scales:
            entry["verdict"] = "holds" if distances[worst] <= 1 else "fails"
        return entry


def claims(*rows: tuple[Any, ...]) -> list[Claim]:
    """Return claims from rows of their arguments, for tables of many short ones."""
    return [Claim(*row) for row in rows]


def finite(value: Any) -> float | None:
    """Return a number for JSON, which has neither NaN nor infinity."""
    return float(value) if np.isfinite(value) else None


def plain(value: Any) -> Any:
    """Return a NumPy scalar as Python's."""
    return value.item() if isinstance(value, np.generic) else value


def number(value: float | None) -> str:
    """Return three digits of a number, or a dash."""
    return "-" if value is None else f"{value:.3g}"


def table(entries: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return the verdicts as a table of text; of many values, the range and the worst one."""
    rows = []
    for entry in entries:
        values = [each["value"] for each in entry["measured"]]
        known = [value for value in values if value is not None]
        missing = [" (some missing)"] * (0 < len(known) < len(values))
        spread = dict.fromkeys(number(v) for v in (min(known), max(known))) if known else ["-"]
        worst = ""
        if len(values) > 1 and entry["worst"]:
            where = ", ".join(map(str, entry["worst"]["where"].values()))
            worst = f"{number(entry['worst']['value'])} {where}".strip()
        rows.append(
            {
                "claim": entry["text"],
                "source": entry["source"],
                "claimed": entry["claimed"],
                "holds if": entry["holds_if"],
                "measured": " to ".join(spread) + "".join(missing),
                "worst": worst,
                "miss": number(entry["miss"]),
                "verdict": entry["verdict"],
            }
        )
    return pd.DataFrame(rows)


def versions() -> dict[str, str]:
    """Return the versions, and the device, that the numbers come from."""
    return {
        "jaxdopt": jd.__version__,
        "jax": jax.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "device": str(jax.devices()[0].device_kind),
    }


def write(about: Mapping[str, Any], entries: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write claims.json."""
    record = {"schema": SCHEMA, **about, "claims": list(entries)}
    temporary = path.with_suffix(f".{os.getpid()}.part")
    temporary.write_text(json.dumps(record, indent=1, allow_nan=False, ensure_ascii=False) + "\n")
    temporary.replace(path)
