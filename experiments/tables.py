"""Tables as text, for terminals and as CSV."""

import csv
import dataclasses
from collections.abc import Sequence
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of text under a header, padded to columns when printed."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def __str__(self) -> str:
        lines = [self.header, *self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.header))]

        def text(line: Sequence[str]) -> str:
            cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
            return "  ".join(cells).rstrip()

        rule = "  ".join("-" * width for width in widths)
        return "\n".join([text(self.header), rule, *map(text, self.rows)])

    def write(self, path: Path) -> Path:
        """Write the table as CSV and return the path."""
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([self.header, *self.rows])
        return path


def number(value: float, form: str = ".2e") -> str:
    """Return a number for a table, or a dash where there is none."""
    return format(value, form) if value == value else "-"
