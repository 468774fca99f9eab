"""The README's Python runs as printed, in order; so do the examples in docstrings."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest

import jaxdopt as jd
from experiments import methods

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
MODULES = [
    module.name
    for module in pkgutil.walk_packages(jd.__path__, "jaxdopt.")
    if ">>>" in Path(importlib.util.find_spec(module.name).origin).read_text()  # type: ignore
]


@pytest.mark.slow
def test_the_readmes_python_runs_as_printed(float32, tmp_path, monkeypatch):
    matplotlib.use("Agg")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for block in BLOCKS:
        exec(compile(block, "README.md", "exec"), names)
    assert names["result"].history["gap"].shape == (201,)
    assert names["more"].history["step"][-1] == 4000
    assert names["curves"].history["gap"].shape == (16, 3, 10, 201)
    assert set(names["dataset"].dims) == {"algorithm", "network", "stepsize", "seed", "step"}
    assert float(names["best"]["gap"].isel(step=-1).max()) < 1e-5
    assert (tmp_path / "comparison.nc").exists()
    assert names["rough"].history["gap"][-1] < 1e-6
    assert names["summed"].history["gap"][-1] < 1e-6
    assert names["squeezed"].history["gap"][-1] < 1e-6
    assert names["pushed"].history["gap"][-1] < 1e-6
    assert names["rooted"].history["gap"][-1] < 1e-6
    assert names["problem"].grad(names["problem"].start(), jax.random.key(0)).shape == (16, 650)


@pytest.mark.slow
def test_the_command_describes_every_method_and_the_readme_every_family(capsys):
    methods.run()
    printed, readme = capsys.readouterr().out, (ROOT / "README.md").read_text()
    entries = {entry.name: entry for entry in methods.entries()}
    assert set(entries) == set(jd.algorithms.__all__)
    for name, entry in entries.items():
        assert entry.signature.startswith(f"{name}(")
        assert str(entry) in printed
        assert set(entry.needs) <= {*jd.roles.WORDS, *jd.roles.PROBLEMS}
        assert entry.needs, name
        assert entry.iteration, name
        assert f"`{entry.family}`" in readme, name
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
