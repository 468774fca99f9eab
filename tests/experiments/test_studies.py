"""All studies: short declarations, with papers, sources and minutes; the README is short, too."""

import ast
import importlib
import pkgutil
from pathlib import Path

import pytest

import experiments
from experiments.claims import Criterion
from experiments.study import SCALES, STUDIES

ROOT = Path(__file__).parents[2]
for module in pkgutil.iter_modules(experiments.__path__):
    if module.name != "__main__" and not module.ispkg:
        importlib.import_module(f"experiments.{module.name}")


def body(path):
    """Return how many lines stand after the docstring and the imports."""
    tree = ast.parse(path.read_text())
    imports = [n.end_lineno or 0 for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)]
    return len(path.read_text().splitlines()) - max(imports)


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_is_a_short_declaration(name):
    study = STUDIES[name]
    assert tuple(study.scales) == tuple(study.minutes) == SCALES
    assert study.question.endswith("?")
    assert study.paper
    assert study.figures
    for claim in study.claims:
        assert claim.text
        assert claim.source
        assert claim.claimed
        assert isinstance(claim.holds, Criterion)
        assert set(claim.scales) <= set(SCALES)
    code = (ROOT / "experiments" / f"{name}.py").read_text()
    assert body(ROOT / "experiments" / f"{name}.py") <= 350
    for word in ("savefig", "to_netcdf", "to_csv", "polyfit", "plt."):
        assert word not in code, word


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_bytes()) < 8000
