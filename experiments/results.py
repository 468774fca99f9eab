"""What experiments share: comparing methods on different networks, and writing the results."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr
from tqdm import tqdm

import jaxdopt as jd
from experiments.tables import text


def compare(
    entries: Mapping[str, tuple[Any, Any, Any]], *, progress: bool = True, **options: Any
) -> xr.Dataset:
    """Return the histories of `jd.compare` for methods that need different networks or problems.

    Args:
        entries: {name: (method, problem, network)}, such as DSGD on Metropolis weights beside STPP
            on the spanning trees of the same graph.
        progress: show a bar.
        options: of `jd.compare`: ``over`` (the same grid for all), ``seeds``, ``steps``, ...

    Returns:
        A dataset over algorithm, the grid, seed and step.
    """
    parts: list[xr.Dataset] = []
    for name, entry in tqdm(entries.items(), unit="method", disable=not progress):
        method, problem, network = entry
        part = jd.compare({name: method}, problem, network, progress=False, **options)
        parts.append(part.isel(network=0, drop=True))
    return xr.concat(parts, "algorithm", join="outer", data_vars="all")


def write(
    name: str,
    out: Path,
    *,
    command: str,
    tables: Mapping[str, tuple[str, pd.DataFrame]],
    datasets: Mapping[str, xr.Dataset],
    figures: Mapping[str, Any],
) -> list[Path]:
    """Print the tables with their titles, write everything into ``out`` and return the files.

    Datasets carry the ``command`` that reproduces them.
    """
    import matplotlib.pyplot as plt

    out.mkdir(parents=True, exist_ok=True)
    written = []
    for key, (title, table) in tables.items():
        print(f"\n{title}\n\n{text(table)}")
        written.append(out / f"{name}_{key}.csv")
        table.to_csv(written[-1], index=False)
    for key, dataset in datasets.items():
        written.append(out / f"{name}_{key}.nc")
        dataset.assign_attrs(command=command).to_netcdf(written[-1])
    for key, fig in figures.items():
        for suffix in ("png", "pdf"):
            written.append(out / f"{name}_{key}.{suffix}")
            fig.savefig(written[-1], dpi=160)
        plt.close(fig)
    print(f"\nagain: {command}\n")
    return written
