"""The asynchronous toy: its clocks and what it reads off the runs."""

import numpy as np
import pytest
import xarray as xr

from experiments import async_diloco
from experiments.study import Results


@pytest.mark.parametrize("waits", ["all", "each", "dynamic"])
def test_all_clocks_have_the_same_local_steps(waits):
    """Up to a visit; and without waiting they take a third of the time."""
    clock = async_diloco.clock(waits, 10)
    agents, calls = np.asarray(clock.agents), np.asarray(clock.calls)
    taken = calls[agents[agents < async_diloco.WORKERS]].sum()
    assert 10 * 4 * 20 <= taken < 10 * 4 * 20 + 20
    assert (float(clock.end[-1]) < 300) == (waits != "all")


def test_times_are_those_after_which_a_run_stays_below():
    names = ["synchronous, Nesterov", "delayed, dynamic"]
    at = np.linspace(0, 1, async_diloco.POINTS + 1)
    loss = np.stack([2 - at**2, 2 - at**2])
    loss[1, 38] = 3  # once more above
    runs = xr.Dataset(
        {
            "loss": (("variant", "local", "rate", "seed"), loss[..., None, None]),
            "seconds": (("variant", "local"), np.stack([40 * at, 10 * at])),
        },
        {"variant": names, "rate": [async_diloco.RATE]},
    )
    results = Results(None, "quick")
    results["runs"] = runs
    assert async_diloco.sooner(results) == pytest.approx(38 / 9.75)
