"""Golden trajectories: each file alone is enough to run an independent loop, and is up to date."""

import importlib.util
import inspect
import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from catalogue import ROWS
from reference import black_boxes

from experiments import conformance

FOLDER = conformance.FOLDER
FILES = sorted(FOLDER.glob("*.json"))
RENAMED = {"theta": "relaxation", "mu": "strong_convexity"}  # in the loops
OF_GAMES = {"gradient": "operator", "x0": "z0"}


def _checker() -> Any:
    spec = importlib.util.spec_from_file_location("checker", FOLDER / "checker.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


checker = _checker()


def numbers(loop, case):
    """All that a loop asks for by name and a case has."""
    n, steps = len(case["labels"]), len(case["x"]) - 1
    arguments, there = case["arguments"], case.get("active", np.ones((steps, n)))
    offered = arguments | {
        "stepsize": arguments.get("stepsize") if "compute" in case else fixed(case),
        "weights": case.get("weights", case.get("W")),
        "row": case.get("row"),
        "column": case.get("column"),
        "parent": case.get("down"),
        "push": case.get("up"),
        "active": arguments.get("active", np.array(there, bool)),
        "prox": (lambda z, t: checker.prox(case, z, t)) if "l1" in case else None,
        "compress": lambda k, channel, i, v: checker.compress(case, k, channel, i, v),
        "sizes": [len(labels) for labels in case["labels"]],
        "drawn": lambda k: case["samples"][k],
        "orders": np.array(case.get("samples", np.zeros((1, n)))).reshape(-1, n).T,
        "random": None,  # the samples are the orders
        "toss": lambda k: case["toss"][k],
        "sketch": lambda k: case["sketch"][k],
        "noise": arguments.get("noise") or None,
        "broadcaster": lambda k: case["broadcaster"][k],
        "n": n,
        **dict.fromkeys(("steps", "rounds", "events", "aggregations"), steps),
        "rule": tuple(case.get("rule", ())),
        "compute": case.get("compute", np.zeros((1, n))).T,
        "partner": partners(case),
        "value": lambda i, x, k, local: checker.value(case, i, x),
        "energy": lambda i, x, k: checker.value(case, i, x),
        "direction": lambda i, *at: case["direction"][(*at, i)],
        "normal": lambda k: case["normal"][k],
        "offsets": lambda *at: points(case, *at),
        "frequencies": case.get("frequencies"),
        "phases": case.get("phases"),
        "neighbors": [np.flatnonzero(row) for row in case.get("W", ())],
        "code": black_boxes.log_byte,
        "component": lambda i, j, x: checker.gradient(case, i, x, [j]),
    }
    if "compute" in case:
        offered["delay"] = lambda i, j, m: case["delay"][m, i, j]
    parameters = inspect.signature(loop).parameters
    named = {name: RENAMED.get(name, name) for name in parameters}
    return {name: offered[its] for name, its in named.items() if its in offered}


def fixed(case):
    """The stepsize of every step."""
    return lambda k: case["arguments"]["stepsize"]


def points(case, k, local, count):
    """Where FZooS may ask: the first points, or those that it chooses from."""
    first = local > case["arguments"]["local_steps"]
    found = case["initial"] if first else case["offsets"][k, local]
    assert found.shape[1] == count
    return found


def partners(case):
    """Whom agent i averages with in its m-th event; itself where the file has no more."""
    met = [[] for _ in case["labels"]]
    for i, j in zip(case["agent"], case["partner"], strict=True) if "partner" in case else ():
        met[i].append(j)
    return lambda i, m: met[i][m] if m < len(met[i]) else i


def of_reference(row, case):
    """The independent loop's trajectory, of the case alone."""
    loop = inspect.unwrap(row.reference)
    alone = row.network in ("server", "full", "each", "ticks", "buffer")  # one model, the server's
    events = "compute" in case
    given = {**numbers(loop, case), "x0": case["x"][0, 0] if alone else case["x"][0]}
    if not (row.samples or row.values):
        where = 1 if events and not alone else 0  # the number of the event comes first
        given["gradient"] = lambda *asked: checker.gradient(case, asked[where], asked[where + 1])
    if "operator" in inspect.signature(loop).parameters:  # of a game
        given = {OF_GAMES.get(name, name): value for name, value in given.items()}
    made = loop(**given)
    if events:
        assert_told(case, made)
        made = [given["x0"], *(one.x for one in made)]
    if isinstance(made, tuple):  # and what is known besides
        made = made[0 if row.name in ("OSGP", "JustOneByte", "FZooS") else 1]
    made = np.asarray(made)
    return made[:, None] if made.ndim == 2 else made


def assert_told(case, made):
    """What is stored of the events is what follows from the clock."""
    if "returns" in case:
        assert [[i for i, _ in who] for who in case["returns"]] == [one.who for one in made]
        stale = [[k - fetched for _, fetched in who] for k, who in enumerate(case["returns"])]
        assert stale == [one.staleness for one in made]
    else:
        assert [event.agent for event in made] == case["agent"]
    for event, versions in zip(made, case["read"], strict=True) if "read" in case else ():
        heard = {j: v for j, v in enumerate(versions) if v >= 0 and j != event.agent}
        assert heard == event.read


def test_every_method_has_a_file():
    assert {path.stem for path in FILES} == {row.name for row in ROWS} == {*conformance.METHODS}
    assert sum(path.stat().st_size for path in FILES) < 1_000_000
    assert len((FOLDER / "checker.py").read_text().splitlines()) <= 120


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_loop_that_knows_only_the_file_agrees(row):
    case = checker.load(FOLDER / f"{row.name}.json")
    assert np.abs(case["x"][-1] - case["x"][0]).max() > 0.05
    checker.compare(case, of_reference(row, case), 1e-12)


@pytest.mark.parametrize("name", ["CentralizedRR", "DRR", "EDRR", "GTRR"])
def test_every_sample_is_taken_once_a_pass(name):
    case = checker.load(FOLDER / f"{name}.json")
    samples = np.array(case["samples"])[..., 0]
    for i, labels in enumerate(case["labels"]):
        m = len(labels)
        for first in range(0, len(samples) - m + 1, m):
            assert sorted(samples[first : first + m, i]) == list(range(m))


def quickest(names):
    """Some of the methods, and the others if slow."""
    quick = ("EXTRA", "FedSUM", "ADPSGD")
    return [pytest.param(n, marks=() if n in quick else pytest.mark.slow) for n in names]


@pytest.mark.parametrize("name", quickest(conformance.METHODS))
def test_the_files_are_what_the_library_computes(name):
    """Numbers are read back as they were written, and nothing but rounding has changed."""
    entries = conformance.case(name)
    assert json.loads(conformance.text(entries)) == entries
    stored = json.loads((FOLDER / f"{name}.json").read_text())
    floats = {key for key in entries if key in ("x", "weights", *checker.DRAWN)}
    assert {key: v for key, v in entries.items() if key not in floats} == {
        key: v for key, v in stored.items() if key not in floats
    }
    for key in floats:
        np.testing.assert_allclose(entries[key], stored[key], rtol=1e-12, atol=1e-12)


def extra(k, x, memory, case):
    """EXTRA as a user would write it."""
    g = np.array([checker.gradient(case, i, x[i]) for i in range(len(x))])
    alpha, W = case["arguments"]["stepsize"], case["W"]
    if memory is None:
        return W @ x - alpha * g, (x, g)
    before, g_before = memory
    return x + W @ x - (before + W @ before) / 2 - alpha * (g - g_before), (x, g)


def test_a_step_of_ones_own_is_checked():
    case = checker.load(FOLDER / "EXTRA.json")
    checker.check(case, extra, 1e-12)


@pytest.mark.parametrize("entry", [(7, 2, 1), (20, 4, 2), (0, 0, 0)])
@pytest.mark.parametrize("change", [1e-8, np.nan])
def test_a_changed_entry_is_found(entry, change):
    """The first of two, by its step, agent and coordinate."""
    case = checker.load(FOLDER / "EXTRA.json")
    changed = case["x"].copy()
    changed[entry] += change
    changed[20, 4, 2] += 1.0
    k, i, j = entry
    sentence = rf"EXTRA: after {k} steps, agent {i}, coordinate {j}: x is .*, not .* differ"
    with pytest.raises(AssertionError, match=sentence):
        checker.compare(case, changed)
    checker.compare(case, case["x"] + 1e-12)


@pytest.mark.parametrize(
    ("key", "place"), [("W", (2, 1)), ("x", (0, 3, 0)), ("features", (1, 0, 2)), ("l2", ())]
)
def test_a_changed_datum_is_noticed(key, place):
    """Every entry of the data matters: the step then gives another trajectory."""
    case = json.loads((FOLDER / "EXTRA.json").read_text())
    if place:
        rows = case[key]
        for i in place[:-1]:
            rows = rows[i]
        rows[place[-1]] += 1e-4
    else:
        case[key] += 1e-4
    case = {**case, "x": np.array(case["x"]), "W": np.array(case["W"])}
    case |= {key: [np.array(rows) for rows in case[key]] for key in ("features", "labels")}
    with pytest.raises(AssertionError, match=r"EXTRA: after 1 steps, agent \d, coordinate \d"):
        checker.check(case, extra)


def test_other_languages_hand_in_their_numbers(tmp_path):
    """The checker alone, in a folder of its own, with nothing but NumPy."""
    mine = json.loads((FOLDER / "DGD.json").read_text())["x"]
    (tmp_path / "checker.py").write_text((FOLDER / "checker.py").read_text())
    for change, code in ((0.0, 0), (1e-6, 1)):
        mine[3][1][2] += change
        (tmp_path / "mine.json").write_text(json.dumps(mine))
        made = subprocess.run(
            [sys.executable, "-I", "checker.py", FOLDER / "DGD.json", "mine.json"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert made.returncode == code
        assert ("the same" in made.stdout) == (code == 0)
        assert ("after 3 steps, agent 1, coordinate 2" in made.stderr) == (code == 1)
    with pytest.raises(AssertionError, match=r"DGD: x has shape \(20, 5, 3\), not \(21, 5, 3\)"):
        checker.compare(checker.load(FOLDER / "DGD.json"), mine[1:])
