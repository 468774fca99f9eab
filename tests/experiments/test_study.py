"""Studies: finished programs are kept and taken up again; claims have tests and verdicts."""

import json
import math
import os
import signal
import subprocess
import sys
import textwrap
import time

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import jaxdopt as jd
from experiments import study as studies
from experiments.claims import Claim, above, below, near, table, within_factor
from experiments.measures import exponent, over, spread, standard_error, successive, tail
from experiments.panels import Dots, Figure, Heat, Lines, LogLog, NotRun, level, slope, tick
from experiments.study import (
    Axis,
    Part,
    Program,
    Results,
    Study,
    comparison,
    comparisons,
    frame,
    joined,
    keys,
)

STEPSIZES = (0.05, 0.1)


def programs(world, _):
    problem = jd.problems.GaussianNoise(jd.problems.quadratic(4, 2, seed=world.seed), 0.1)
    shared = {
        "problem": problem,
        "network": jd.networks.metropolis(jd.graphs.ring(4)),
        "x0": problem.start(),
        "key": keys(range(3)),
        "steps": world.steps,
        "every": 5,
    }
    over = {"algorithm": Axis("stepsize", STEPSIZES), "key": Axis("seed", range(3))}
    methods = {"DSGD": jd.DSGD, "GT": jd.GradientTracking}
    return {
        name: Program(shared | {"algorithm": jax.vmap(kind)(jnp.asarray(STEPSIZES))}, over)
        for name, kind in methods.items()
    }


class World:
    def __init__(self, steps, seed, shift=0.0):
        self.steps, self.seed, self.shift = steps, seed, shift


@pytest.fixture
def study(monkeypatch):
    monkeypatch.setattr(studies, "STUDIES", {})
    floor = Claim(
        "a floor", "known", "> 0", lambda r: tail(r["main"].gap).mean("seed"), above(1e-9)
    )
    later = Claim("later", "known", "1", lambda r: r["large"].gap, near(1, 0.1))
    shown = Claim("shown at full", "known", "0", lambda _: 1.0, below(2), scales=("full",))
    return Study(
        name="tiny",
        paper="nobody (2026)",
        question="Does it run?",
        scales={"quick": 20, "default": 40, "full": 80},
        world=World,
        parts={
            "main": Part("algorithm", programs),
            "large": Part(
                "algorithm", lambda world, _: programs(world, _) if world.steps > 40 else {}
            ),
        },
        claims=[floor, later, shown],
        figures={
            "tiny": [
                [
                    Lines(data="main", at={"stepsize": 0.1}, also=[level(1e-3, "a level")]),
                    LogLog(
                        data=lambda r: tail(r["main"].gap),
                        x="stepsize",
                        also=[slope(1, "~ α")],
                        legend="panel",
                    ),
                ],
                [Lines(data="large", at={"stepsize": 0.1})],
            ],
            "large": [[Lines(data="large", at={"stepsize": 0.1})]],
        },
        tables={"final": ("final gaps", lambda r: tail(r["main"][["gap"]]).mean("seed"))},
        minutes={"quick": 0.1, "default": 0.1, "full": 0.1},
    )


def test_a_study_leaves_datasets_figures_tables_and_claims(study, tmp_path, capsys):
    written = study.run("quick", tmp_path, progress=False)
    folder = tmp_path / "tiny"
    expected = {"main.nc", "tiny.png", "tiny.pdf", "final.csv", "claims.json"}
    assert {path.name for path in written} == expected  # nothing of what was not run
    assert {path.name for path in folder.iterdir()} == {*expected, "cache"}
    record = json.loads((folder / "claims.json").read_text())
    assert {key: record[key] for key in ("schema", "study", "scale", "seed", "data")} == {
        "schema": 1,
        "study": "tiny",
        "scale": "quick",
        "seed": 0,
        "data": "synthetic",
    }
    assert record["figures"] == [
        {"name": "tiny", "png": "tiny.png", "pdf": "tiny.pdf", "width": "page"}
    ]
    verdicts = [claim["verdict"] for claim in record["claims"]]
    assert verdicts == ["holds", "not judged", "not judged"]
    first, _, last = record["claims"]
    assert first["test"] == {"kind": "above", "value": 1e-9, "tolerance": None}
    assert len(first["measured"]) == 4
    assert set(first["worst"]["where"]) == {"algorithm", "stepsize"}
    assert last["worst"] == {"value": 1.0, "where": {}}  # measured where it is not judged
    printed = capsys.readouterr().out
    command = f"python -m experiments tiny --quick --out {tmp_path}"
    assert record["command"] == command
    assert f"again: {command}" in printed
    dataset = xr.load_dataset(folder / "main.nc")
    assert dict(dataset.gap.sizes) == {"algorithm": 2, "stepsize": 2, "seed": 3, "step": 5}


def test_finished_programs_are_not_run_again_and_changed_ones_are(study, tmp_path, monkeypatch):
    def kept():
        return {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.nc")}

    first = study.results("quick", cache=tmp_path)
    before = kept()
    assert len(before) == 2
    again = study.results("quick", cache=tmp_path)
    assert kept() == before
    xr.testing.assert_identical(again["main"], first["main"])
    fresh = study.results("quick")  # without files
    xr.testing.assert_equal(fresh["main"], first["main"])
    study.results("quick", seed=1, cache=tmp_path)  # other data
    assert len(kept()) == 4
    monkeypatch.setattr(sys.modules[__name__], "STEPSIZES", (0.05, 0.2))  # a constant
    changed = study.results("quick", cache=tmp_path)
    assert len(kept()) == 6
    assert before.items() < kept().items()
    assert changed["main"].stepsize.values.tolist() == [0.05, 0.2]


SCRIPT = """
import sys, time
from pathlib import Path
import jax.numpy as jnp
from experiments.study import Part, Program, Study

LEVEL = 1.0

def value(i, wait):
    time.sleep(wait)
    return {{"value": LEVEL * jnp.arange(3.0) * i}}

def programs(world, _):
    return {{i: Program({{"i": i, "wait": world}}, function=value) for i in range(4)}}

study = Study("stopped", "", "", {{"quick": {wait}}}, {{"values": Part("i", programs)}}, [],
              {{}}, {{}}, world=lambda wait, seed: wait)
study.run("quick", Path(sys.argv[1]), progress=False)
"""


def test_a_killed_run_is_taken_up_where_it_was(tmp_path):
    script = tmp_path / "stopped.py"
    script.write_text(textwrap.dedent(SCRIPT.format(wait=0.5)))
    command = [sys.executable, str(script), str(tmp_path / "out")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    cache = tmp_path / "out" / "stopped" / "cache"
    running = subprocess.Popen(command, env=environment)
    while len(list(cache.glob("*.nc"))) < 2:
        assert running.poll() is None
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    running.wait()
    kept = {path: path.stat().st_mtime_ns for path in cache.glob("*.nc")}
    assert 2 <= len(kept) < 4
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    whole = xr.load_dataset(tmp_path / "out" / "stopped" / "values.nc")
    np.testing.assert_array_equal(whole.value, np.outer(np.arange(4), np.arange(3.0)))
    assert len(list(cache.glob("*.nc"))) == 4


def test_tests_have_signed_misses_in_units_of_their_tolerance():
    assert near(2, 0.5).miss([1.5, 2, 3]).tolist() == [-1, 0, 2]
    np.testing.assert_allclose(within_factor(10, 2).miss([5, 10, 40]), [-1, 0, 2])
    assert below(2).miss([2, 1, 4]).tolist() == [1, 0.5, 2]
    assert above(2).miss([2, 4, 1]).tolist() == [1, 0, 1.5]
    assert below(0).miss([0, -1, 1]).tolist() == [1, 0, 2]
    assert np.isinf(near(1, 1).miss([math.nan])).all()
    assert [
        str(test) for test in (near(-2, 0.3), within_factor(1, 1.4), below(1e-9), above(1))
    ] == [
        "-2 ± 0.3",
        "1 within a factor of 1.4",
        "at most 1e-09",
        "at least 1",
    ]


@pytest.mark.parametrize(
    ("measured", "test", "verdict", "worst"),
    [
        (2.1, near(2, 0.3), "holds", 2.1),
        (xr.DataArray([2.1, 1.5], {"x": ["a", "b"]}, ["x"]), near(2, 0.3), "fails", 1.5),
        (xr.DataArray([0.1, 1.5], {"x": ["a", "b"]}, ["x"]), above(1), "fails", 0.1),
        (math.nan, below(1), "fails", None),
    ],
)
def test_the_worst_value_decides(measured, test, verdict, worst):
    results = Results(None, "quick")
    entry = Claim("a claim", "a paper", "2", lambda _: measured, test).judge(results)
    assert entry["verdict"] == verdict
    assert entry["worst"]["value"] == worst
    json.dumps(entry, allow_nan=False)
    assert table([entry])["verdict"].tolist() == [verdict]


def test_ratios():
    values = xr.DataArray(
        [[1.0, 2.0, 8.0], [2.0, 4.0, 4.0]],
        {"algorithm": ["a", "b"], "n": [1, 2, 4]},
        ("algorithm", "n"),
    )
    assert over(values, "a", "b").values.tolist() == [0.5, 0.5, 2]
    with pytest.raises(NotRun):
        over(values, "a", "c")
    grown = successive(values, "n")
    assert grown.n.values.tolist() == [2, 4]
    assert grown.values.tolist() == [[2, 4], [2, 1]]


def test_measures():
    x = xr.DataArray([1.0, 2.0, 4.0], dims="n")
    y = xr.DataArray([[1.0, 4.0, 16.0], [3.0, 3.0, 3.0], [1.0, np.nan, np.inf]], dims=("k", "n"))
    found = exponent(x, y, "n")
    np.testing.assert_allclose(found, [2, 0, np.nan])
    record = xr.DataArray(np.arange(20.0), dims="step")
    assert float(tail(record, 0.1)) == 18.5
    assert float(tail(record, 0.001)) == 19
    assert spread(y, "n").values[:2].tolist() == [16, 1]
    seeds = xr.DataArray([1.0, 3.0], dims="seed")
    assert float(standard_error(seeds)) == 1


def test_parts_along_several_dimensions_are_joined():
    def part(value, steps):
        return xr.Dataset(
            {"gap": ("step", np.full(len(steps), value)), "diverged": ((), False)}, {"step": steps}
        )

    parts = {(n, name): part(n, [0, n]) for n in (2, 3) for name in ("a", "b") if n + len(name) < 9}
    del parts[3, "b"]
    whole = joined(parts, ("n", "algorithm"))
    assert dict(whole.gap.sizes) == {"n": 2, "algorithm": 2, "step": 3}
    assert float(whole.gap.sel(n=3, algorithm="a", step=3)) == 3
    assert whole.gap.sel(n=3, algorithm="b").isnull().all()
    assert whole.diverged.dtype == bool


def test_labels_that_grow_along_a_dimension_are_written_whole(tmp_path):
    """A file's text has the length of its longest label, which joined files are not bound to."""
    read = {}
    for name in ("a", "much longer"):
        part = xr.Dataset({"y": ("network", [1.0])}, {"network": [name]})
        studies.write(part, tmp_path / f"{len(read)}.nc")
        read[name] = xr.load_dataset(tmp_path / f"{len(read)}.nc", engine="h5netcdf")
    studies.write(joined(read, "network"), tmp_path / "whole.nc")
    whole = xr.load_dataset(tmp_path / "whole.nc", engine="h5netcdf")
    assert whole.network.values.tolist() == ["a", "much longer"]


def test_arrays_by_name_get_their_labels():
    program = Program(
        {"x": jnp.arange(3.0)},
        {"x": Axis("place", ["a", "b", "c"])},
        function=lambda x: {"square": x**2, "pair": jnp.stack([x, -x])},
    )
    dataset = program.run()
    assert float(dataset.square.sel(place="c")) == 4
    assert dataset.pair.dims == ("place", "pair_0")


def test_a_comparison_of_one_method_has_no_dimension_for_it_nor_for_its_only_network():
    problem, ring = jd.problems.quadratic(4, 2), jd.networks.metropolis(jd.graphs.ring(4))
    options = {"problem": problem, "steps": 4, "over": {"stepsize": [0.05, 0.1]}}
    plain = jd.compare({"DSGD": jd.DSGD(0.1)}, networks=ring, progress=False, **options)
    program = comparison(
        jd.DSGD(0.1),
        ("double", "absent"),
        axes={"stepsize": Axis("scaled", ("1/2", "1"))},
        reduce=lambda dataset: dataset.assign(double=2 * dataset.gap),
        networks=ring,
        **options,
    )
    dataset = program.run()
    assert list(dataset) == ["double"]
    assert dict(dataset.sizes) == {"scaled": 2, "seed": 1, "step": 5}
    assert dataset.scaled.values.tolist() == ["1/2", "1"]
    np.testing.assert_array_equal(dataset.double, 2 * plain.gap[0, 0])
    named = comparison(jd.Setting(jd.DSGD(0.1)), networks={"ring": ring}, **options).run()
    assert named.gap.sel(network="ring").dims == ("stepsize", "seed", "step")
    grids = {"DSGD": {"stepsize": [0.1]}}
    methods = {"DSGD": jd.DSGD(0.1), "GT": jd.GradientTracking(0.1)}
    both = comparisons(methods, **options | {"over": grids, "networks": ring})
    assert both["DSGD"].run().gap.dims == ("choice", "seed", "step")
    assert both["GT"].run().gap.dims == ("seed", "step")
    assert [list(each.arguments["algorithms"]) for each in both.values()] == [["DSGD"], ["GT"]]


def test_a_part_that_is_not_run_says_so():
    with pytest.raises(NotRun, match="the part 'large' is not run at the scale 'quick'"):
        Results(None, "quick")["large"]


def test_panels_mark_what_was_not_reached_and_keep_their_legends_off_the_curves():
    values = xr.DataArray(
        [[1.0, 2.0, np.inf], [4.0, np.inf, np.inf]],
        {"algorithm": ["STPP", "DSGD"], "n": [8, 16, 32]},
        ["algorithm", "n"],
        name="steps",
    )
    heat = values.where(np.isfinite(values))
    results = Results(None, "quick")
    fig = Figure(
        [
            [LogLog(data=lambda _: values, x="n"), Dots(data=lambda _: values, x="n")],
            [Heat(data=lambda _: heat, x="n", y="algorithm")],
        ]
    ).draw(results)
    first, dots, cells = fig.axes
    assert [tick.get_text() for tick in first.get_xticklabels()] == ["8", "16", "32"]
    (legend,) = fig.legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert set(labels) == {"not reached", "STPP", "DSGD"}
    hollow = [line for line in first.lines if line.get_markerfacecolor() == "none"]
    assert [float(line.get_xdata()[0]) for line in hollow] == [32, 16, 32]
    assert all(line.get_linestyle() == "None" for line in hollow)
    assert {text.get_text() for text in cells.texts} == {"1e+00", "2e+00", "4e+00", "–"}
    assert dots.get_yscale() == "log"
    fig.canvas.draw()
    below = legend.get_window_extent().y1
    assert all(ax.get_tightbbox().y0 >= below - 1 for ax in fig.axes)


def test_tables_of_datasets_have_a_row_a_combination():
    dataset = xr.Dataset({"gap": ("n", [1.0, np.nan])}, {"n": [8, 16]})
    assert frame(dataset).to_dict("list") == {"n": [8], "gap": [1.0]}
    own = pd.DataFrame({"a": [1]})
    assert frame(own) is own


def test_ticks():
    assert [tick(v) for v in (8, 0.05, 1e4, 2e4, 1e-3, 2e-3, 1000.0)] == [
        "8",
        "0.05",
        "$10^{4}$",
        r"$2\!\cdot\!10^{4}$",
        "$10^{-3}$",
        "0.002",
        "1000",
    ]
