"""The study of FZooS: a problem with a given start and drift, and queries to a gap."""

import numpy as np
import pytest
import xarray as xr

from experiments import fzoos


def test_the_best_options_need_the_fewest_queries_and_reach_it_with_all_seeds():
    gap = np.ones((2, 2, 3))  # stepsize, seed, step
    gap[0, 0, 1:], gap[1, :, 2] = 0.1, 0.2
    dims, queries = ("stepsize", "seed", "step"), np.broadcast_to([0.0, 5.0, 10.0], gap.shape)
    runs = xr.Dataset({"gap": (dims, gap), "queries": (dims, queries)},
                      {"stepsize": [0.5, 1.0], "step": np.arange(3)})  # fmt: skip
    needed, chosen = fzoos.best(runs, 0.3)
    assert needed.values.tolist() == [10, 10]
    assert float(chosen.gap.max("seed").isel(step=-1)) == 0.2
    needed, chosen = fzoos.best(runs, 0.15)  # which no stepsize reaches with both seeds
    assert np.isinf(needed).any()


@pytest.mark.slow
@pytest.mark.long
def test_what_is_claimed_holds():
    results = fzoos.STUDY.results("quick")
    verdicts = {claim.judge(results)["verdict"] for claim in fzoos.CLAIMS}
    assert verdicts == {"holds", "not judged"}
    problem = results.world.problem
    start = problem.objective(problem.start()[0]) - problem.objective(problem.solution)
    assert float(start) == pytest.approx(fzoos.GAP)
    needed = results["needed"].needed.mean("seed").sel(algorithm="FZooS")
    assert needed.sel(target=8e-5) < 1000
    assert np.all(np.diff(needed) >= 0)  # of decreasing targets
