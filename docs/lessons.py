"""Notebooks as pages, with the outputs that they hold."""

import re
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter


def write(notebooks: Path, folder: Path) -> None:
    """Write a page a notebook, its pictures beside it, and an index."""
    folder.mkdir(parents=True)
    index = ["# Notebooks", "", "Each is a lesson; all run from top to bottom with", ""]
    index += ["```bash", 'pip install -e ".[all]" && jupyter lab notebooks', "```", ""]
    for path in sorted(notebooks.glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        first = _sentence(notebook.cells[0].source.partition("\n")[2])
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
        index.append(f"- [{name}]({path.stem}.md): {first}")
    (folder / "index.md").write_text("\n".join(index) + "\n")


def _as_page(match: re.Match[str]) -> str:
    return f"]({match.group(1)}.md" if match.group(1) else "]("


def _sentence(text: str) -> str:
    """Return the first sentence of the first paragraph that goes on from no formula."""
    paragraphs = (" ".join(paragraph.split()) for paragraph in text.split("\n\n"))
    first = next((p for p in paragraphs if p[:1].isupper()), "")
    return re.split(r"(?<=[.?])\s", first)[0]
