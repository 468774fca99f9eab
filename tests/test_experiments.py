"""The command line, small: every experiment runs, writes what it says, and measures real things."""

import json
import re
import subprocess

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import jaxdopt as jd
from experiments import networks, quickstart, varying
from experiments.__main__ import main
from experiments.benchmarks import (
    accelerators,
    aggregation,
    collectives,
    fresh,
    leaves,
    rows,
    scaling,
    speed,
)
from experiments.panels import Figure
from experiments.study import STUDIES, Program
from experiments.tables import text


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """One quick run of the quick start: its folder."""
    out = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch:  # a compilation for every method, network, regime
        patch.setattr(quickstart, "METHODS", {k: quickstart.METHODS[k] for k in ("DGD", "EXTRA")})
        patch.setattr(quickstart.STUDY, "claims", [])  # of four methods
        patch.setattr(quickstart.STUDY, "figures", {"quickstart": quickstart.FIGURES["quickstart"]})
        main(["quickstart", "--quick", "--seed", "1", "--out", str(out)])
    return out / "quickstart"


@pytest.mark.slow
def test_the_quick_start_writes_figures_tables_and_datasets(results):
    names = {
        "full.nc",
        "minibatch.nc",
        "full, best.nc",
        "minibatch, best.nc",
        "full.csv",
        "minibatch.csv",
        "claims.json",
    }
    names |= {"quickstart.png", "quickstart.pdf", "cache"}
    assert {path.name for path in results.iterdir()} == names
    assert all(path.stat().st_size > 0 for path in results.iterdir())
    dataset = xr.load_dataset(results / "minibatch.nc")
    assert dict(dataset.gap.sizes) == {
        "algorithm": 2,
        "network": 3,
        "stepsize": 4,
        "seed": 2,
        "step": 11,
    }
    assert dataset.seed.values.tolist() == [1, 2]
    rows = (results / "full.csv").read_text().splitlines()
    assert len(rows) == 1 + 3 * 2
    assert len(quickstart.METHODS) == 4


@pytest.mark.slow
def test_the_quick_starts_table_is_its_dataset(results):
    dataset = xr.load_dataset(results / "full.nc")
    table = pd.read_csv(results / "full.csv").set_index(["network", "algorithm"])
    row = table.loc["grid", "EXTRA"]
    here = dataset.sel(network="grid", algorithm="EXTRA").isel(seed=0)
    finals = np.abs(here.gap.isel(step=-1).values)
    assert row["best stepsize"] == here.stepsize.values[finals.argmin()]
    assert row["final gap"] == pytest.approx(finals.min(), rel=1e-12)


def test_the_held_out_images_are_not_trained_on():
    problem, accuracy = quickstart.problem()
    training = {row.tobytes() for row in np.asarray(problem.data[0]).reshape(-1, 64)}
    held_out = [row.tobytes() for row in np.asarray(accuracy.features)]
    assert len(held_out) == 72
    assert sum(image in training for image in held_out) == 0
    assert int(problem.sizes.sum()) + len(held_out) == 357


def test_list_and_help(capsys):
    main(["list"])
    listed = capsys.readouterr().out
    for study in STUDIES.values():
        for words in (study.name, study.paper, study.question):
            assert words in listed
    with pytest.raises(SystemExit) as stopped:
        main(["quickstart", "--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert all(option in text for option in ("--quick", "--out", "--seed"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["quickstart", "--out", "{tmp}/file"], "--out is .*/file, where nothing can be written"),
        (["benchmark", "--out", "{tmp}/file/in"], "--out is .*/file/in, where nothing can be wr"),
        (["quickstart", "--seed", "-1"], r"--seed is -1; give 0 to 2\*\*31 - 1\."),
        (["drr", "--mnist", "{tmp}/nowhere"], "--mnist is .*/nowhere, which is not a folder; give"),
        (["drr", "--quick", "--mnist", "{tmp}"], "train-images.* is missing: "),
        (["nosuch"], "nosuch"),
        (["quickstart", "--seed", "one"], "--seed"),
    ],
)
def test_arguments_are_refused_without_a_traceback(arguments, says, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    monkeypatch.setattr(Program, "kept", lambda *_: pytest.fail("work has begun"))
    with pytest.raises(SystemExit) as stopped:
        main([text.format(tmp=tmp_path) for text in arguments])
    assert stopped.value.code == 2
    printed = capsys.readouterr()
    assert re.search(says, printed.out + printed.err)
    assert "Traceback" not in printed.err
    if printed.err.startswith("python -m experiments: "):
        assert printed.err.count("\n") == 1


def test_what_devices_send_is_printed_as_a_table(tmp_path, capsys, monkeypatch):
    permutes: dict[str, list[float]] = {"collective-permute": [2, 2048]}
    points = [
        scaling.Point("ring", "DSGD", 1, 32, 0.01, {}),
        scaling.Point("ring", "DSGD", 8, 256, 0.5, permutes),
    ]
    monkeypatch.setattr(scaling, "measured", lambda scale: (points, f"at scale {scale}"))
    main(["scaling", "--quick", "--out", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "2 collective-permute" in printed
    assert "at scale quick" in printed
    assert json.loads((tmp_path / "scaling.json").read_text())["points"][1]["devices"] == 8


def test_collectives_are_counted_once_a_turn():
    program = """
%inner (a: f32[2]) -> f32[2] {
  %x = f32[2,3]{1,0} collective-permute(%a), channel_id=1
  %y = (f32[4]{0}, f32[32]{0}) all-gather-start(%a), channel_id=2
}

%outer (a: f32[2]) -> f32[2] {
  %w = f32[2] while(%a), body=%inner, backend_config={"known_trip_count":{"n":"5"}}
}

ENTRY %main (p: f32[2]) -> f32[2] {
  %w = f32[2] while(%p), condition=%c, body=%outer, backend_config={"known_trip_count":{"n":"2"}}
  %g = (f64[4]{0}, s32[]) all-reduce(%q), to_apply=%sum
}

%sum (a: f64[]) -> f64[] {
  %s = f64[] add(%a, %a)
}
"""
    assert collectives.counted(program) == {
        "all-gather": (10, 10 * 128),
        "all-reduce": (1, 36),
        "collective-permute": (10, 10 * 24),
    }
    with pytest.raises(ValueError, match="turns is not known"):
        collectives.counted(program.replace('"known_trip_count":{"n":"5"}', ""))


@pytest.mark.slow
@pytest.mark.long
def test_the_benchmark_compares_equal_results_and_prints_a_table(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(speed, "SAMPLES", 10)
    main(["benchmark", "--quick", "--out", str(tmp_path)])
    text = capsys.readouterr().out
    record = json.loads((tmp_path / "benchmark.json").read_text())
    names = {f"P{i}" for i in range(1, 19)} | {"P7b", "P8b", "P8c", "P8d", "peer"}
    assert {row["name"] for row in record["rows"]} == names
    assert {row["absent"] for row in record["rows"]} <= {"", "needs a GPU", "not installed"}
    assert all(row["what"] in text for row in record["rows"])
    compiled = next(row for row in record["rows"] if row["name"] == "P5")
    assert compiled["ratio"] == 0
    memory, records = (row["ratio"] for row in record["rows"] if row["name"] == "P9")
    assert 1 < memory < 20  # data and state have to be there at least
    assert records == 1


def test_the_benchmark_knows_every_rule():
    words = set(re.findall(r"\w+", " ".join(aggregation.rules(2)))) | {"MDA"}
    assert set(jd.aggregators.__all__) - {"chain", "Chain", "Aggregator"} <= words


@pytest.mark.slow
def test_products_of_rules_are_compared_with_loops_and_have_bars_at_full_size(monkeypatch):
    few = {name: aggregation.rules(2)[name] for name in ("Median", "Krum")}
    monkeypatch.setattr(aggregation, "rules", lambda f: dict(few))
    measured = aggregation.aggregation(16, 5, repeats=1)
    assert [row.what.partition(",")[0] for row in measured][:2] == ["Median", "Krum"]
    assert len(measured) == 5
    assert {row.bar for row in measured} == {"-"}
    assert all(row.ratio > 0 for row in measured)
    monkeypatch.setattr(aggregation, "FULL", (16, 5))
    few["Median"] = few["Median"]._replace(by_hand=lambda x: x.max(axis=0))
    with pytest.raises(AssertionError):
        aggregation.aggregation(16, 5, repeats=1)
    del few["Median"]
    assert [row.bar for row in aggregation.aggregation(16, 5, repeats=1)] == [
        "<= 3",
        "<= 12",
        "<= 12",
        "-",
    ]


@pytest.mark.slow
def test_leaves_are_timed_beside_the_whole_row():
    (row,) = leaves.per_leaf(1, 8, repeats=1, messages=1)
    assert row.what.startswith("top 1 % of each of 12 leaves, d = 840")
    assert row.bar == "<= 1.3"
    assert row.ratio > 0


def test_rows_of_a_gpu_are_measured_in_copies_or_said_to_be_absent():
    sizes: dict[str, tuple[int, int]] = {name: (16, 4) for name in ("P8", "P8b", "P8c", "P8d")}
    measured = accelerators.memory_bound(sizes, repeats=1)
    absent = accelerators.memory_bound_if_gpu(repeats=1)
    assert {row.name for row in measured} == {row.name for row in absent} == set(sizes)
    assert {(row.name, row.bar) for row in measured} == {(row.name, row.bar) for row in absent}
    assert all(row.ratio > 0 and row.verdict in ("yes", "no") for row in measured)
    table = text(rows.table([*measured, *absent]))
    assert table.count("not measured here") == table.count("(needs a GPU)") == len(sizes)


@pytest.mark.slow
def test_a_fresh_process_says_what_it_measured_or_how_it_failed(monkeypatch):
    (row,) = fresh.from_nothing(200, full=200)
    assert row.bar == "<= 12 s"
    assert row.met == (row.ratio <= 12)
    assert 0 < row.compile_s < row.ratio  # the first step is a part of it
    with pytest.raises(RuntimeError, match=r"fresh agents 3 ended with 1:[\s\S]*ValueError"):
        fresh.measured("agents", 3)  # no graph of three agents is 6-regular
    killed = subprocess.CompletedProcess([], -9, "", "")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: killed)
    (row,) = fresh.from_nothing(200)
    assert row.bar == "-"
    assert row.figure == "not measured here"
    assert "not enough memory" in row.what


METHODS = ("DSGD", "GradientTracking", "ExactDiffusion")


@pytest.fixture(scope="module")
def networks_results():
    """One quick run of the study of networks."""
    with pytest.MonkeyPatch.context() as patch:  # exact diffusion is EXTRA's close relative
        own = {k: networks.METHODS[k] for k in METHODS}
        patch.setattr(networks, "METHODS", own)
        yield networks.STUDY.results("quick")


@pytest.fixture(scope="module")
def varying_results():
    """One quick run of the study of networks that change."""
    return varying.STUDY.results("quick")


@pytest.mark.slow
def test_the_study_of_networks_measures_what_theory_says(networks_results):
    def fit(name):
        return float(networks.fitted(name)(networks_results).item())

    assert fit("averaging") == pytest.approx(-1, abs=0.1)
    assert fit("Chebyshev") == pytest.approx(-0.5, abs=0.1)
    assert fit("GradientTracking") == pytest.approx(-1, abs=0.3)
    assert fit("ExactDiffusion") == pytest.approx(-0.5, abs=0.2)


@pytest.mark.slow
def test_exact_methods_reach_the_accuracy_and_dsgd_does_not(networks_results):
    rounds = networks.rounds_to(networks_results["optimization"], networks.TARGET)
    exact = rounds.sel(algorithm=["GradientTracking", "ExactDiffusion"])
    assert exact.notnull().all()
    dsgd = rounds.sel(algorithm="DSGD").notnull()  # on the complete graph it is gradient descent
    assert dsgd.network[dsgd].values.tolist() == ["complete"]
    centralized = rounds.sel(network="complete")
    assert centralized.sel(algorithm="GradientTracking") == centralized.sel(algorithm="DSGD")


@pytest.mark.slow
def test_shuffled_agents_are_quicker_to_a_rough_accuracy_only(networks_results):
    rough, fine = (
        float(networks.placement(target, networks_results))
        for target in (networks.COARSE, networks.TARGET)
    )
    assert rough > 3
    assert fine == pytest.approx(1, abs=0.2)


@pytest.mark.slow
def test_failing_links_cost_rounds_and_not_bits(varying_results):
    dataset = varying_results["varying"]
    assert float(dataset.contraction.sel(network="one-peer exponential")) == 0
    shares = varying.failing(varying_results)
    np.testing.assert_allclose(shares.links, 1, atol=0.05)
    np.testing.assert_allclose(shares.gap, 1, atol=0.1)
    np.testing.assert_allclose(shares["mean"], 1, atol=0.02)


@pytest.mark.slow
def test_the_study_of_networks_draws_its_figures_and_numbers_agents_along_the_graph(
    networks_results,
):
    for name, figure in networks.STUDY.figures.items():
        assert Figure.of(figure).draw(networks_results) is not None, name
    path = networks.graphs()["path"]
    order = list(networks.placed(path))
    assert order in (sorted(order), sorted(order)[::-1])
    assert nx.is_isomorphic(networks.placed(path, 0), path)


def test_tables_are_padded():
    table = pd.DataFrame([("ccc", "d"), ("c", "dd")], columns=("a", "bbb"))
    lines = [line.rstrip() for line in text(table).splitlines()]
    assert lines == ["a    bbb", "ccc  d", "c    dd"]
