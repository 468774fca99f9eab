"""The command line, small: every experiment runs, writes what it says, and measures real things."""

import json

import numpy as np
import pytest
import xarray as xr

from experiments import quickstart
from experiments.__main__ import main
from experiments.benchmarks import speed
from experiments.tables import Table


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """One quick run of the quick start."""
    out = tmp_path_factory.mktemp("results")
    return quickstart.run(quick=True, out=out, seed=1, progress=False), out


def test_the_quick_start_writes_figures_tables_and_datasets(results):
    written, out = results
    assert all(path.stat().st_size > 0 for path in written)
    assert {path.name for path in written} == {path.name for path in out.iterdir()}
    dataset = xr.load_dataset(out / "quickstart_minibatch.nc")
    assert list(dataset.sizes) == ["algorithm", "network", "stepsize", "seed", "step"]
    assert dataset.seed.values.tolist() == [1, 2]
    rows = (out / "quickstart_full.csv").read_text().splitlines()
    assert len(rows) == 1 + 3 * 4


def test_the_quick_starts_table_is_its_dataset(results):
    import jaxdopt as jd

    dataset = xr.load_dataset(results[1] / "quickstart_full.nc")
    table = quickstart.summary(jd.best(dataset, "gap"))
    row = next(row for row in table.rows if row[:2] == ("grid", "EXTRA"))
    here = dataset.sel(network="grid", algorithm="EXTRA").isel(seed=0)
    finals = np.abs(here.gap.isel(step=-1).values)
    assert row[2] == f"{here.stepsize.values[finals.argmin()]:.3g}"
    assert float(row[3]) == pytest.approx(finals.min(), rel=0.01)


def test_the_held_out_images_are_not_trained_on():
    problem, accuracy = quickstart.problem()
    training = {row.tobytes() for row in np.asarray(problem.data[0]).reshape(-1, 64)}
    held_out = [row.tobytes() for row in np.asarray(accuracy.features)]
    assert len(held_out) == 72
    assert sum(image in training for image in held_out) == 0
    assert int(problem.sizes.sum()) + len(held_out) == 357


def test_list_and_help(capsys):
    main(["list"])
    assert "quickstart" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stopped:
        main(["quickstart", "--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert all(option in text for option in ("--quick", "--out", "--seed"))


def test_the_benchmark_compares_equal_results_and_prints_a_table(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(speed, "SAMPLES", 10)
    main(["benchmark", "--quick", "--out", str(tmp_path)])
    text = capsys.readouterr().out
    record = json.loads((tmp_path / "benchmark.json").read_text())
    assert {row["name"] for row in record["rows"]} == {f"P{i}" for i in range(1, 7)}
    assert all(row["what"] in text for row in record["rows"])
    compiled = next(row for row in record["rows"] if row["name"] == "P5")
    assert compiled["ratio"] == 0


def test_tables_are_padded():
    lines = str(Table(("a", "bb"), [("ccc", "d")])).splitlines()
    assert lines == ["a    bb", "---  --", "ccc  d"]
