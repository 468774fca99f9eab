"""Tables of text for terminals; their CSV files are pandas' own."""

import pandas as pd


def text(table: pd.DataFrame) -> str:
    """Return a table of strings with its columns aligned to the left."""

    def padded(column: pd.Series) -> pd.Series:
        return column.str.ljust(int(max(len(str(column.name)), column.str.len().max())) + 1)

    return table.apply(padded).to_string(index=False, justify="left")


def number(value: float, form: str = ".2e") -> str:
    """Return a number for a table, or a dash where there is none."""
    return format(value, form) if value == value else "-"
