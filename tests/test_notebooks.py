"""Every notebook runs from top to bottom and keeps the outputs of its cells; nothing else."""

import ast
import base64
import sys
from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).parent.parent / "notebooks"
sys.path.append(str(FOLDER))

import refresh  # noqa: E402

PATHS = sorted(FOLDER.glob("*.ipynb"))
MOST = 3_000_000  # bytes of the whole folder

every = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


def code_of(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def pictures(notebook):
    outputs = [output for cell in code_of(notebook) for output in cell.outputs]
    return [o.data["image/png"] for o in outputs if "image/png" in o.get("data", {})]


def says_something(source):
    """Return whether a cell prints at its top level, or ends in a value to show."""
    body = ast.parse(source).body
    if not body:
        return False
    prints = [
        node
        for statement in body
        if not isinstance(statement, ast.FunctionDef | ast.ClassDef)
        for node in ast.walk(statement)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print"
    ]
    last = body[-1]  # a call may return None
    shown = isinstance(last, ast.Expr) and not isinstance(last.value, ast.Call)
    return bool(prints) or shown


@every
def test_outputs_are_those_of_the_cells(path):
    """The digest is written by `refresh.py` alone; it changes with the code."""
    notebook = nbformat.read(path, as_version=4)
    hint = f"run python notebooks/refresh.py {path.stem}"
    assert notebook.metadata.get("code") == refresh.digest(notebook), hint
    for cell in code_of(notebook):
        assert not any(output.output_type == "error" for output in cell.outputs)
        assert cell.outputs or not says_something(cell.source), f"{hint}: {cell.source}"
    assert pictures(notebook)


@every
def test_what_is_stored_depends_on_the_cells_alone(path):
    notebook = nbformat.read(path, as_version=4)
    refresh.normalize(notebook)
    assert nbformat.writes(notebook) + "\n" == path.read_text()


def test_the_folder_is_small():
    assert sum(path.stat().st_size for path in FOLDER.glob("*") if path.is_file()) < MOST


@pytest.fixture
def lesson(tmp_path):
    """A notebook that prints, times and draws."""
    cells = [
        "print('one')\nprint(1 + 1)",
        "import time\nprint(time.perf_counter())",
        "import matplotlib.pyplot as plt\nplt.figure(figsize=(2, 1))\nplt.plot([0, 1]);",
    ]
    notebook = nbformat.v4.new_notebook(cells=list(map(nbformat.v4.new_code_cell, cells)))
    notebook.cells[1].metadata["tags"] = ["timing"]
    path = tmp_path / "lesson.ipynb"
    nbformat.write(notebook, path)
    return path


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_second_refresh_changes_nothing(lesson):
    assert refresh.refresh(lesson)
    assert not refresh.refresh(lesson)
    notebook = nbformat.read(lesson, as_version=4)
    assert notebook.cells[0].outputs[0].text == "one\n2\n"
    assert len(pictures(notebook)) == 1
    notebook.cells[0].source = "print('two')"
    nbformat.write(notebook, lesson)
    assert refresh.refresh(lesson)
    assert nbformat.read(lesson, as_version=4).cells[0].outputs[0].text == "two\n"


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("stderr", "careful", "cell 0 wrote to stderr: careful"),
        ("stdout", "<object at 0x7f12>", "cell 0 printed 'at 0x7f12'"),
        ("stdout", "saved to /home/me/x.nc", "cell 0 printed '/home/'"),
        ("stdout", " 12%|#", "cell 0 printed '12%|'"),
    ],
)
def test_what_another_run_would_not_print_is_refused(name, text, words):
    cell = nbformat.v4.new_code_cell("1")
    cell.outputs = [nbformat.v4.new_output("stream", name=name, text=text)]
    with pytest.raises(ValueError, match=words.replace("|", r"\|")):
        refresh.normalize(nbformat.v4.new_notebook(cells=[cell]))


def test_an_unknown_notebook_is_refused():
    with pytest.raises(ValueError, match="there is no notebook 'lessons'; give one of "):
        refresh.paths(["lessons"])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.long
@every
def test_notebook(path):
    notebook = nbformat.read(path, as_version=4)
    stored = len(pictures(notebook))
    refresh.execute(notebook)
    assert len(pictures(notebook)) == stored
    for picture in pictures(notebook):
        assert base64.b64decode(picture).startswith(b"\x89PNG")


@every
def test_it_needs_only_what_is_installed(path):
    notebook = nbformat.read(path, as_version=4)
    modules = set()
    for cell in code_of(notebook):
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.Import):
                modules |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                modules.add((node.module or "").partition(".")[0])
    assert not modules & {"experiments", "tests"}
