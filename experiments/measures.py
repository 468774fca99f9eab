"""What claims are measured by: exponents, stationary means, spreads, standard errors."""

from typing import Any

import numpy as np
import xarray as xr


def exponent(x: Any, y: xr.DataArray, dim: str) -> xr.DataArray:
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


def flat(values: xr.DataArray, dim: str = "member") -> xr.DataArray:
    """Return the entries that are not NaN along one dimension, labelled by where they stand."""
    places = [
        dict(zip(values.dims, at, strict=True)) for at in np.argwhere(values.notnull().values)
    ]
    names = [", ".join(f"{d} = {values[d].values[i]:.4g}" for d, i in at.items()) for at in places]
    found = [float(values.isel(at)) for at in places]
    return xr.DataArray(found, {dim: names}, dim)
