"""What claims are measured by: exponents, stationary means, spreads, steps to a target."""

from typing import Any

import numpy as np
import xarray as xr

import jaxdopt as jd
from experiments.panels import present


def exponent(x: Any, y: xr.DataArray, dim: Any) -> xr.DataArray:
    """Return p of y ~ xᵖ: the least-squares slope of log y over log x along ``dim``.

    Points where x or y is not positive and finite are left out; NaN if fewer than two are left.
    """
    x, y = xr.broadcast(x if isinstance(x, xr.DataArray) else y[dim], y)
    good = np.isfinite(x) & np.isfinite(y) & (x > 0) & (y > 0)
    u, v = np.log(x.where(good)), np.log(y.where(good))
    u, v = u - u.mean(dim), v - v.mean(dim)
    return ((u * v).sum(dim) / (u * u).sum(dim)).where(good.sum(dim) > 1)


def tail(values: Any, share: float = 0.1) -> Any:
    """Return the mean over the last records of ``step``, a share of them, at least one."""
    count = max(round(share * values.sizes["step"]), 1)
    return values.isel(step=slice(-count, None)).mean("step")


def spread(values: xr.DataArray, dim: Any = None) -> xr.DataArray:
    """Return the largest value over the smallest."""
    return values.max(dim) / values.min(dim)


def standard_error(values: xr.DataArray, dim: str = "seed") -> xr.DataArray:
    """Return the standard error of the mean along ``dim``."""
    return values.std(dim, ddof=1) / np.sqrt(values.sizes[dim])


def attained(dataset: xr.Dataset, metric: str, value: float, x: str = "step") -> xr.DataArray:
    """Return the ``x`` at which ``metric`` first is at most ``value``; NaN if not so at the end."""
    last = dataset[metric].isel(step=-1, drop=True)
    return jd.reach(dataset, metric, value, x).where(last <= value)


def quickest(dataset: xr.Dataset, metric: str, value: float, dim: str) -> xr.Dataset:
    """Return the dataset at those along ``dim`` that take the fewest steps to ``value``.

    Counted in the mean over seeds, all of which have to attain it; where nobody does, those with
    the smallest last value are chosen, of runs that did not diverge.
    """
    steps = attained(dataset, metric, value)
    last = dataset[metric].isel(step=-1, drop=True).where(~dataset.diverged)
    if "seed" in steps.dims:
        steps, last = (each.mean("seed", skipna=False) for each in (steps, last))
    late = 1e9 * (1 + last / (1 + last))  # later than all that attain it
    chosen: Any = steps.fillna(late).fillna(np.inf).argmin(dim)
    return dataset.isel({dim: chosen})


def ratio(values: xr.DataArray, dim: str, first: Any, second: Any) -> xr.DataArray:
    """Return the values at one label over those at another; NotRun if one is not there."""
    over, under = (values.sel({dim: present(values, dim, at)}, drop=True) for at in (first, second))
    return over / under
