"""What is published: one version, complete metadata, pinned actions."""

import re
import tomllib
from pathlib import Path

import jaxdopt as jd

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def test_the_version_has_one_place():
    """The package's own; what repeats it for readers repeats it exactly."""
    assert PROJECT["project"]["dynamic"] == ["version"]
    where = ROOT / PROJECT["tool"]["hatch"]["version"]["path"]
    assert f'__version__ = "{jd.__version__}"' in where.read_text().splitlines()
    assert re.fullmatch(r"\d+\.\d+\.\d+", jd.__version__)
    citation = (ROOT / "CITATION.cff").read_text()
    assert re.findall(r"^version: (.*)$", citation, re.M) == [jd.__version__]
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert newest is not None
    assert newest[1] == jd.__version__


def test_the_source_distribution_has_what_its_tests_need():
    """All folders and files that are no hidden settings, and those of CI."""
    include = set(PROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"])
    here = {path.name for path in ROOT.iterdir() if path.suffix in (".md", ".cff")}
    assert here <= include
    folders = {"docs", "experiments", "jaxdopt", "notebooks", "tests"}
    assert {*folders, ".ci", ".github"} <= include


def test_typed_as_the_classifiers_say():
    assert "Typing :: Typed" in PROJECT["project"]["classifiers"]
    assert (Path(jd.__file__).parent / "py.typed").exists()


def test_actions_are_pinned_and_a_token_is_nowhere():
    assert WORKFLOWS
    for path in WORKFLOWS:
        text = path.read_text()
        used = re.findall(r"uses: (\S+)", text)
        assert used
        assert all(re.fullmatch(r"[\w./-]+@v\d+\.\d+\.\d+", action) for action in used), used
        assert "secrets." not in text
