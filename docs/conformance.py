"""The conformance suite as a page, with its files to download: one by one, or all in an archive."""

import ast
import shutil
from pathlib import Path


def write(suite: Path, folder: Path) -> None:
    """Write the page, with the golden trajectories and their checker beside it."""
    shutil.copytree(suite, folder, ignore=shutil.ignore_patterns("__pycache__"))
    about = ast.get_docstring(ast.parse((suite / "checker.py").read_text())) or ""
    archive = shutil.make_archive(str(folder), "zip", folder)
    shutil.move(archive, folder / "conformance.zip")
    names = sorted((path.stem for path in suite.glob("*.json")), key=str.lower)
    lines = [
        "# Conformance",
        "",
        f"Golden trajectories of {len(names)} methods, for libraries in any language to test "
        "themselves against: the data, the weights, whatever was drawn, and the estimates of every "
        "step in float64. [checker.py](checker.py) needs NumPy alone; "
        "[conformance.zip](conformance.zip) holds everything.",
        "",
        "```text",
        about,
        "```",
        "",
        ", ".join(f"[{name}]({name}.json)" for name in names),
    ]
    (folder / "index.md").write_text("\n".join(lines) + "\n")
