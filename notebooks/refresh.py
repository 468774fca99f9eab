"""Run notebooks from nothing and store their outputs: ``python notebooks/refresh.py [NAME ...]``.

What is stored depends on the cells alone, so that a second run changes nothing: no times, no paths,
no progress bars, pictures in few colors. Each notebook keeps a digest of its code, by which the
tests know whether its outputs are those of its cells. Cells tagged ``timing`` print how long
something takes: their outputs are stored anew only if the code has changed.
"""

import argparse
import base64
import hashlib
import io
import os
import re
from pathlib import Path

import nbclient
import nbformat
from PIL import Image

FOLDER = Path(__file__).resolve().parent
DOTS = 80  # an inch
COLORS = 64  # of a picture
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
PRIVATE = re.compile(r"\bat 0x[0-9a-f]+|/(?:home|root|tmp|usr|Users|opt)/|\d+%\|")


def paths(names: list[str] | None = None) -> list[Path]:
    """Return the files of notebooks, of all by default."""
    known = {path.stem: path for path in sorted(FOLDER.glob("*.ipynb"))}
    unknown = sorted(set(names or ()) - set(known))
    if unknown:
        raise ValueError(f"there is no notebook {unknown[0]!r}; give one of {', '.join(known)}.")
    return [known[name] for name in names or known]


def execute(notebook: nbformat.NotebookNode) -> None:
    """Run all cells in a new kernel on the CPU, outside of the repository's root."""
    drawing = {"bbox_inches": "tight", "dpi": DOTS}
    client = nbclient.NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        record_timing=False,
        extra_arguments=[
            f"--InlineBackend.print_figure_kwargs={drawing}",
            "--IPKernelApp.log_level=40",
        ],
    )
    drop = ("MPLBACKEND", "PYTHONHASHSEED")  # the kernel then draws inline
    env = {name: value for name, value in os.environ.items() if name not in drop}
    client.execute(cwd=str(FOLDER), env=env | {"JAX_PLATFORMS": "cpu"})


def normalize(notebook: nbformat.NotebookNode) -> None:
    """Leave what depends on the cells alone.

    Raises:
        ValueError: a cell wrote to stderr, or printed a path, an address or a progress bar.
    """
    notebook.metadata = nbformat.from_dict(METADATA | {"code": digest(notebook)})
    for i, cell in enumerate(notebook.cells):
        tags = {"tags": ["timing"]} if is_timing(cell) else {}
        cell.id, cell.metadata = f"cell-{i}", nbformat.from_dict(tags)
        if cell.cell_type == "code":
            cell.outputs = [_normal(output, i) for output in _joined(cell.outputs)]
    for count, cell in enumerate((c for c in notebook.cells if c.cell_type == "code"), start=1):
        cell.execution_count = count
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = count


def digest(notebook: nbformat.NotebookNode) -> str:
    """Return a digest of the code cells."""
    code = "\0".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    return hashlib.sha256(code.encode()).hexdigest()[:16]


def is_timing(cell: nbformat.NotebookNode) -> bool:
    """Return whether a cell prints how long something takes."""
    return "timing" in cell.metadata.get("tags", ())


def _joined(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """Return the outputs with neighboring streams as one: where they are cut is chance."""
    made: list[nbformat.NotebookNode] = []
    for output in outputs:
        last = made[-1] if made else None
        if output.output_type == "stream" and last and last.get("name") == output.name:
            last.text += output.text
        else:
            made.append(output)
    return made


def _normal(output: nbformat.NotebookNode, i: int) -> nbformat.NotebookNode:
    if output.get("name") == "stderr":
        raise ValueError(f"cell {i} wrote to stderr: {output.text.strip()}; mend its cause.")
    data = output.get("data", {})
    shown = "".join([output.get("text", ""), data.get("text/plain", ""), data.get("text/html", "")])
    private = PRIVATE.search(shown)
    if private:
        raise ValueError(f"cell {i} printed {private[0]!r}, which another run would not.")
    output.pop("metadata", None)
    if output.output_type in ("display_data", "execute_result"):
        output.metadata = nbformat.from_dict({})
    if "image/png" in data:
        data["image/png"] = smaller(data["image/png"])
    return output


def smaller(picture: str) -> str:
    """Return a PNG, in base64, with a palette of few colors and nothing but pixels."""
    image = Image.open(io.BytesIO(base64.b64decode(picture)))
    if image.mode != "P":
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
        image = image.quantize(COLORS, dither=Image.Dither.NONE)
    file = io.BytesIO()
    image.save(file, "png", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def refresh(path: Path) -> bool:
    """Run a notebook and store its outputs; return whether its file has changed."""
    before = path.read_text()
    old, notebook = (nbformat.reads(before, as_version=4) for _ in range(2))
    execute(notebook)
    normalize(notebook)
    if old.metadata.get("code") == notebook.metadata.code:
        for cell, known in zip(notebook.cells, old.cells, strict=True):
            if cell.cell_type == "code" and is_timing(cell):
                cell.outputs = known.outputs
    after = nbformat.writes(notebook) + "\n"
    path.write_text(after)
    return after != before


def main() -> None:
    """Refresh the notebooks named on the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="as in first_steps; default: all")
    for path in paths(parser.parse_args().names):
        changed = refresh(path)
        print(f"{path.stem}: {'changed' if changed else 'as before'}", flush=True)


if __name__ == "__main__":
    main()
