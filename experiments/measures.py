"""What claims are measured by: exponents, stationary means, spreads, steps to a target."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

import jaxdopt as jd
from experiments.panels import present


def agents_error(state: Any, problem: Any) -> jax.Array:
    """(1/n) Σᵢ |xᵢ − x*|²: the agents' own errors, not their mean's."""
    return jnp.mean(jnp.sum((state.x - problem.solution) ** 2, axis=1))


def exponent(x: Any, y: xr.DataArray, dim: Any) -> xr.DataArray:
    """Return p of y ~ xᵖ: the least-squares slope of log y over log x along ``dim``.

    Points where x or y is not positive and finite are left out; NaN if fewer than two are left.
    """
    pair: Any = xr.broadcast(x if isinstance(x, xr.DataArray) else y[dim], y)
    x, y = pair
    good = np.isfinite(x) & np.isfinite(y) & (x > 0) & (y > 0)
    u: Any = np.log(x.where(good))
    v: Any = np.log(y.where(good))
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


def crossing(ratio: xr.DataArray, dim: str) -> xr.DataArray:
    """Return where along ``dim`` a ratio first crosses 1, linear in logarithms; NaN if nowhere."""
    x = np.log(ratio[dim].values)

    def first(y: np.ndarray) -> float:
        i = int(np.argmax(np.diff(np.sign(y)) != 0))
        at = x[i] + (x[i + 1] - x[i]) * y[i] / (y[i] - y[i + 1])
        return np.exp(at) if y[i] * y[i + 1] <= 0 else np.nan

    return xr.apply_ufunc(first, np.log(ratio), input_core_dims=[[dim]], vectorize=True)


def lasting(
    dataset: xr.Dataset, metric: str, value: float, x: str = "step", *, records: int
) -> xr.DataArray:
    """Return the first ``x`` from which ``metric`` is at or below ``value`` for several records.

    A value counts if those of the next ``records`` - 1 records are there, too; NaN where none does.
    """
    there = (dataset[metric] <= value).astype(float)
    stays = there.rolling(step=records).min().shift(step=1 - records).fillna(0)
    return jd.reach(dataset.assign(stays=stays), "stays", 1.0, x, largest=True)


def soonest(
    dataset: xr.Dataset, metric: str, value: float, x: str = "step", *, over: str, records: int
) -> xr.Dataset:
    """Return the dataset at the member along ``over`` that is first at ``value`` and stays there.

    That is the least median over seeds of `lasting`, which is added as ``arrival`` for every seed;
    where no member arrives, the lowest mean of as many last records. None that diverged is chosen.
    """
    first = lasting(dataset, metric, value, x, records=records).where(~dataset.diverged)
    last = dataset[metric].isel(step=slice(-records, None)).mean(("step", "seed"))
    last = last.where(~dataset.diverged.any("seed")).fillna(1e30)
    late = first.median("seed", skipna=False).fillna(1e9 * (1 + last))
    return dataset.assign(arrival=first).isel({over: late.argmin(over)})


def behind(errors: xr.Dataset, name: str, factor: float) -> tuple[xr.Dataset, xr.Dataset]:
    """Return the last step at which others' errors exceed a method's by a factor, and last ratios.

    Steps are infinite where errors exceed it in the end, 0 where they never do. Errors are means
    over ``seed`` and over windows of a tenth of a decade of steps, which begin after step 0.
    """
    window = ("step", np.floor(10 * np.log10(errors.step.values)))
    errors = errors.where(np.isfinite(errors) & (errors <= 1e12), 1e12).mean("seed")
    means = errors.assign_coords(window=window).groupby("window").mean()
    last = xr.DataArray(errors.step.values, dims="step", coords={"window": window})
    ratios = (means / means.sel(algorithm=name)).drop_sel(algorithm=name)
    times: Any = last.groupby("window").max().where(ratios > factor).max("window").fillna(0.0)
    ratio = ratios.isel(window=-1, drop=True)
    return times.where(~(ratio > factor), np.inf), ratio


def over(
    values: xr.DataArray, one: str | Sequence[str], other: str, dim: str = "algorithm"
) -> xr.DataArray:
    """Return one or several members' values over another's; NotRun if they are not there."""
    top, bottom = (
        values.sel({dim: present(values, dim, name)}, drop=True) for name in (one, other)
    )
    return top / bottom


def among(values: Any, names: Sequence[Any], dim: str = "algorithm") -> Any:
    """Return those of the members that are there; NotRun if none is."""
    return values.sel({dim: present(values, dim, list(names))})


def successive(values: xr.DataArray, dim: str) -> xr.DataArray:
    """Return every value over the one before it along ``dim``."""
    return values.isel({dim: slice(1, None)}) / values.isel({dim: slice(-1)}).values


def flat(values: xr.DataArray, dim: str = "member") -> xr.DataArray:
    """Return the entries that are not NaN along one dimension, labelled by where they stand."""
    places = [
        dict(zip(values.dims, at, strict=True)) for at in np.argwhere(values.notnull().values)
    ]
    names = [", ".join(f"{d} = {values[d].values[i]:.4g}" for d, i in at.items()) for at in places]
    found = [float(values.isel(at)) for at in places]
    return xr.DataArray(found, {dim: names}, dim)


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
