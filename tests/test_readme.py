"""The Python of README and pages runs as printed, in order; so do the examples in docstrings."""

import dataclasses
import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest

import jaxdopt as jd
from experiments.__main__ import STUDIES
from experiments.catalogue import methods, roles

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = {page.stem: re.findall(r"```python\n(.*?)```", page.read_text(), re.S) for page in PAGES}
MODULES = [
    module.name
    for module in pkgutil.walk_packages(jd.__path__, "jaxdopt.")
    if ">>>" in Path(importlib.util.find_spec(module.name).origin).read_text()  # type: ignore
]


def last(result, metric="gap"):
    return float(np.mean(result.history[metric][-1]))


EXPECTED = {  # what a page says of its results
    "README": lambda names: (
        set(names["dataset"].dims) == {"algorithm", "network", "stepsize", "seed", "step"}
        and len(names["dataset"].algorithm) == 3
    ),
    "before-and-after": lambda names: (
        names["told"].costs["bits"] == 320
        and (names["found"].step, names["found"].fields[0].agents) == (0, (3,))
        and "division by zero, in gradient" in str(names["found"])
        and len(names["dataset"].attrs["fingerprint"]) == 16
        and np.array_equal(names["again"]().state.x, names["result"].state.x)
    ),
    "clients-and-servers": lambda names: last(names["summed"]) < 1e-6,
    "coming-from": lambda names: (
        np.abs(names["x"] - np.asarray(names["result"].state.x)).max() < 1e-13
        and " ".join(f"{value:.8f}" for value in names["x"][0])
        in (ROOT / "docs/coming-from.md").read_text()
    ),
    "compression": lambda names: (
        max(last(names[name]) for name in ("squeezed", "pushed", "sketched")) < 1e-6
        and names["left"]["EControl"] < 1e-8 < 1e-3 * names["left"]["EF14"]
        and names["left"]["EF14"] < 0.1 * names["left"]["naive"]
        and last(names["deep"], "loss") < 0.5
        and last(names["deep"], "bits_up") < 0.2 * last(names["deep"], "bits_down")
        and names["sketched"].history["bits_up"][-1] == 1_500 * 32 * 16
    ),
    "concepts": lambda names: "server" in str(names["refused"]),
    "getting-started": lambda names: (
        names["result"].history["gap"].shape == (201,)
        and names["curves"].history["gap"].shape == (16, 3, 10, 201)
        and float(names["best"]["gap"].isel(step=-1).max()) < 1e-5
        and Path("comparison.nc").exists()
    ),
    "devices": lambda names: (
        sorted(names["order"]) == list(range(512))
        and bool((names["mixed"] == 1).all())
        and names["result"].state.x.shape == (8, names["problem"].d)
    ),
    "gpus": lambda names: names["result"].state.x.shape == (64, 3),
    "liars": lambda names: (
        names["ends"]["mean"] > 10 * names["ends"]["trimmed mean"]
        and (names["rule"].breakdown(9), names["worst"].sizes["network.rule.f"]) == (3, 4)
        and max(last(names["served"]), last(names["own"])) < 0.05
        and last(names["fooled"], "loss") < 0.5
        and max(names["harms"]) > 1.05 * names["harms"][0]
    ),
    "long-runs": lambda names: (
        names["result"].history["step"][-1] == 2000
        and len(names["results"]) == 3
        and float(names["dataset"]["gap"].isel(step=-1).max()) <= 1e-4
        and len([*Path("results/tensorboard").iterdir()]) == 1
        and len([*Path("results/methods").glob("*.npz")]) == 2
        and Path("results/run/state-600").is_dir()
        and len([*Path("results/sweep").iterdir()]) > 6
        and names["curves"].history["gap"].shape == (40, 25, 5)
        and dict(names["faded"]["gap"].sizes)["network.probability"] == 3
        and 0.01 < float(names["best"]["stepsize"].item()) < 1
    ),
    "low-communication": lambda names: (
        np.ptp([last(names["runs"][m], "held out") for m in names["methods"]]) < 0.05
        and max(last(run, "held out") for run in names["runs"].values()) < 2.3
        and names["grid"]["seconds"].isel(step=-1).squeeze()[0].values.round().tolist()
        == [89, 27, 21]
        and names["leaves"].fragments(2) == ((0, 2), (1, 3))
    ),
    "networks": lambda names: max(last(names["rough"]), last(names["rooted"])) < 1e-6,
    "own-data": lambda names: (
        last(names["result"], "accuracy") > 0.9
        and [len(tokens) for tokens in names["text"].tokens] == [800, 1600, 2400, 3200]
        and [len(windows) for windows in names["kept"].windows(32)] == [22, 44, 67, 89]
    ),
    "own-loop": lambda names: (
        names["slopes"].shape == (16, 1) and bool((names["slopes"] != 0).all())
    ),
    "own-method": lambda names: len(names["dataset"].algorithm) == 2,
    "own-model": lambda names: (
        min(last(names["found"], "accuracy"), last(names["result"], "accuracy")) > 0.8
        and last(names["learned"], "held out") < 0.8 * names["learned"].history["held out"][0]
        and names["language"].tokens == 16
        and names["oracle"].grad(names["oracle"].start(), jax.random.key(0)).shape == (16, 1210)
    ),
    "own-rule": lambda names: (
        [round(float(last(names["found"][name], "accuracy")), 1) for name in ("Bristle", "NNA")]
        == [0.9, 0.9]
    ),
    "own-network": lambda names: names["karate"].n == 34,
    "problems": lambda names: (
        last(names["composite"]) < 1e-4
        and last(names["played"][jd.MASHA1], "saddle_gap") < 1e-3
        and last(names["played"][jd.ExtraGradient], "saddle_gap") > 1
        and max(last(names[run], "miss") for run in ("one_byte", "two_values", "federated")) < 0.1
    ),
    "time": lambda names: (
        abs(last(names["waiting"], "seconds") - 500) < 50
        and abs(last(names["unwaiting"], "seconds") - 500) < 50
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page, blocks in BLOCKS.items() if blocks])
def test_a_pages_python_runs_as_printed(page, tmp_path, monkeypatch):
    matplotlib.use("Agg")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    with jax.enable_x64("jax_enable_x64" in "".join(BLOCKS[page])):
        for block in BLOCKS[page]:
            exec(
                compile(
                    block.replace('jax.config.update("jax_enable_x64", True)', ""), page, "exec"
                ),
                names,
            )
        assert EXPECTED[page](names)
    plt.close("all")


def test_what_the_readme_counts():
    needs = [set(roles.built(name).needs) - {*jd.roles.PROBLEMS} for name in roles.METHODS]
    served = sum(not of.isdisjoint({"server", "returns"}) for of in needs)
    central = sum(of == {"all"} for of in needs)
    fields = [{field.name for field in dataclasses.fields(m)} for m in roles.METHODS.values()]
    text = (ROOT / "README.md").read_text()
    for said in (
        f"- {len(needs)} methods, on graphs",
        f"| methods on graphs | {len(needs) - served - central} |",
        f"| methods with a server | {served} |",
        f"and {sum('compressor' in names for names in fields)} methods made for them",
        f"- {len(STUDIES)} studies",
    ):
        assert said in text


@pytest.mark.slow
def test_the_command_describes_every_method(capsys):
    methods.run()
    printed = capsys.readouterr().out
    entries = {entry.name: entry for entry in methods.entries()}
    assert set(entries) == set(jd.algorithms.__all__)
    for name, entry in entries.items():
        assert entry.signature.startswith(f"{name}(")
        assert str(entry) in printed
        assert set(entry.needs) <= {*jd.roles.WORDS, *jd.roles.PROBLEMS}
        assert entry.needs, name
        assert entry.iteration, name
    assert "2 vectors in 2 exchanges" in entries["ATCGT"].sends
    assert entries["PushDIGing"].sends == "2 vectors and 1 number in 1 exchange"


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name):
    random = np.random.default_rng(0)
    features, targets = random.standard_normal((40, 3)), random.standard_normal(40)
    names = {
        "jd": jd,
        "jax": jax,
        "jnp": jnp,
        "A": features,
        "b": targets,
        "problem": jd.problems.least_squares(features, targets, agents=4),
        "network": jd.networks.metropolis(jd.graphs.ring(4)),
    }
    module = importlib.import_module(name)
    found = doctest.DocTestFinder().find(module, extraglobs=names)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    for test in found:
        runner.run(test)
    assert runner.summarize(verbose=False).failed == 0
    assert runner.tries > 0
