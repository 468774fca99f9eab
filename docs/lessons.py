"""Notebooks as pages, with the outputs that they hold."""

import re
from pathlib import Path

import nbformat
from latex2mathml.converter import convert
from nbconvert import MarkdownExporter

MATH = re.compile(r"\$\$(?P<shown>[^$]+)\$\$|\$(?P<inline>(?:[^$\n]|\n(?!\n))+)\$")


def write(notebooks: Path, folder: Path) -> None:
    """Write a page a notebook, its pictures beside it, and an index."""
    folder.mkdir(parents=True)
    index = ["# Notebooks", "", "Each is a lesson; all run from top to bottom with", ""]
    index += ["```bash", 'pip install -e ".[all]" && jupyter lab notebooks', "```", ""]
    for path in sorted(notebooks.glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        first = _sentence(notebook.cells[0].source.partition("\n")[2])
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = MATH.sub(_as_mathml, cell.source)
        exporter = MarkdownExporter()
        exporter.exclude_output_prompt = exporter.exclude_input_prompt = True
        text, resources = exporter.from_notebook_node(
            notebook, {"output_files_dir": f"{path.stem}_files"}
        )
        for name, content in resources["outputs"].items():
            picture = folder / name
            picture.parent.mkdir(exist_ok=True)
            picture.write_bytes(content)
        text = re.sub(r"\]\((?:\.\./)?notebooks/|\]\((\w+)\.ipynb", _as_page, text)
        text = re.sub(r"!\[png\]", "![The figure drawn by the cell above]", text)
        (folder / f"{path.stem}.md").write_text(text)
        title = re.search(r"^# (.+)$", text, flags=re.MULTILINE)
        name = title.group(1) if title else path.stem
        index.append(f"- [{name}]({path.stem}.md): {MATH.sub(_as_mathml, first)}")
    (folder / "index.md").write_text("\n".join(index) + "\n")


def _as_page(match: re.Match[str]) -> str:
    return f"]({match.group(1)}.md" if match.group(1) else "]("


def _as_mathml(match: re.Match[str]) -> str:
    """Return a formula as MathML, which browsers draw themselves, with nothing left to Markdown."""
    shown = match.lastgroup == "shown"
    formula = match[match.lastgroup or 0].strip().replace(r"\arg\min", r"\mathrm{argmin}")
    drawn = convert(formula, display="block" if shown else "inline")
    if "\\" in drawn:
        raise ValueError(f"the formula {formula} has a command that is not known; write another.")
    for mark in "*_`":
        drawn = drawn.replace(mark, f"&#{ord(mark)};")
    return drawn if shown else f"<span>{drawn}</span>"


def _sentence(text: str) -> str:
    """Return the first sentence of the first paragraph that goes on from no formula."""
    paragraphs = (" ".join(paragraph.split()) for paragraph in text.split("\n\n"))
    first = next((p for p in paragraphs if p[:1].isupper()), "")
    return re.split(r"(?<=[.?])\s", first)[0]
