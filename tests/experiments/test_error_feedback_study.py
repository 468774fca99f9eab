"""The study of error feedback: where EControl is stable, and that no claim is refuted."""

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from experiments import error_feedback as study
from experiments.study import Results


def diagram(edges):
    """Errors that are small up to an edge, a multiple of δ for every γL."""
    axes = {"delta": [k / study.D for k in study.KEPT], "eta": list(study.FEEDBACK)}
    axes |= {"gamma": list(study.PACES)}
    empty = xr.DataArray(np.zeros([len(v) for v in axes.values()]), axes, tuple(axes))
    edge = empty.delta * xr.DataArray(edges, dims="gamma", coords={"gamma": axes["gamma"]})
    found = Results(None, "default")
    found["diagram"] = xr.where(empty + empty.eta > 1.01 * edge, 1e6, 1e-20).to_dataset(
        name="error"
    )
    return found


def test_the_edge_of_stability_is_measured_in_delta():
    results = diagram([2, 2, 2, 1, 1])
    expected = np.outer([0.05, 0.1, 0.2], [2, 2, 2, 1, 1])
    np.testing.assert_allclose(study.largest(results).transpose("delta", "gamma"), expected)
    law = [claim for claim in study.CLAIMS if "delta" in claim.text]
    assert [claim.judge(results)["verdict"] for claim in law] == ["holds"] * len(law)
    assert any(claim.judge(diagram([4, 4, 4, 4, 4]))["verdict"] == "fails" for claim in law)


def test_the_problem_is_the_one_of_the_numbers():
    problem, goal = study.uneven(0)
    assert (problem.n, problem.d) == (5, 60)
    slope = np.asarray(problem.grad(jnp.tile(goal, (5, 1)), jax.random.key(0)))
    np.testing.assert_allclose(slope.mean(axis=0), 0, atol=1e-12)
    assert np.linalg.norm(slope, axis=1).min() > 1  # clients disagree


def test_a_quick_run_refutes_no_claim(tmp_path):
    study.STUDY.run("quick", tmp_path, progress=False)
    results = study.STUDY.results("quick", cache=tmp_path / "error_feedback" / "cache")
    verdicts = [claim.judge(results)["verdict"] for claim in study.CLAIMS]
    assert verdicts.count("holds") == 12
    assert verdicts.count("not judged") == 3
    written = {path.name for path in (tmp_path / "error_feedback").iterdir()}
    assert {"error_feedback.png", "claims.json", "plateaus.csv"} <= written
