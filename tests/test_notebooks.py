"""Every notebook runs from top to bottom, and is kept without outputs."""

import os
from pathlib import Path

import nbclient
import nbformat
import pytest

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook(path, monkeypatch):
    monkeypatch.delenv("MPLBACKEND", raising=False)  # the kernel then draws inline
    # the tests' time is compilation; conftest.py says the same to this process
    value = os.environ.get("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", value)
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code
    assert not any(cell.outputs or cell.execution_count for cell in code)
    for cell in code:  # notebooks that take long say how to make them short
        cell.source = cell.source.replace("quick = False", "quick = True")
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute(cwd=FOLDER)
    figures = [out for cell in code for out in cell.outputs if "image/png" in out.get("data", {})]
    assert len(figures) >= 1
