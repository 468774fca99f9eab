"""The stability of outer loops: what the study reads off histories, and its laws."""

import numpy as np
import pytest
import xarray as xr

from experiments import outer_laws
from experiments.study import Results


def test_growth_is_the_factor_of_an_oscillation():
    steps = np.arange(241)
    for factor in (0.9, 1.1):
        wave = np.cos(0.8 * steps) ** 2 * factor**steps
        assert outer_laws.growth(wave) == pytest.approx(factor, rel=5e-3)


def test_runs_around_the_edge_are_left_out():
    edges, factors = [0.9, 0.99, 1.01, 1.1, 1.2], [0.9, 1.1, 0.9, 1.1, 0.9]
    cells = xr.Dataset({"edge": ("x", edges), "factor": ("x", factors)})
    results = Results(None, "quick")
    results["cells"] = cells
    assert outer_laws.right("cells", 0.02, results) == pytest.approx(2 / 3)
    assert outer_laws.right("cells", 0.0, results) == pytest.approx(2 / 5)


@pytest.mark.slow
def test_small_diagrams_follow_the_laws():
    for cells in (outer_laws.late("rate", 6, 120), outer_laws.pairs(5, 256, 40, 0)):
        told = np.abs(cells.edge - 1) > 0.05
        assert np.all(((cells.factor < 1) == (cells.edge < 1)).where(told, True))
        assert float(np.abs(cells.factor / cells.theory - 1).median()) < 0.02
